"""Experiments, runs, metrics and journals over REST: each handler translates to one call of the store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mlcli import journal, rules, wire
from mlcli.entities import (
    Dataset,
    DatasetInput,
    LoggedModelInput,
    LoggedModelMetric,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlcli.errors import InvalidInput, NotFound
from mlcli.server.call import Call
from mlcli.server.places import own_location
from mlcli.store import query
from mlcli.store.absorb import Writes
from mlcli.store.absorb import set_tag as write_tag
from mlcli.store.records import MAX_PAGE

Json = dict[str, Any]
_JOURNAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,199}\Z")
_POINTS = 25_000  # of a metric's history in one answer, where the client does not say

# -- experiments


def create_experiment(call: Call) -> Json:
    location = own_location(call.given.get("artifact_location"))
    created = call.store.create_experiment(call.text("name"), location, _pairs(call.given.get("tags")))
    call.server.places.settle(call.store, created)
    return {"experiment_id": created}


def get_experiment(call: Call) -> Json:
    return _experiment(call, call.store.get_experiment(call.text("experiment_id")))


def get_experiment_by_name(call: Call) -> Json:
    name = call.text("experiment_name")
    found = call.store.find_experiment(name)
    if found is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    return _experiment(call, found)


def _experiment(call: Call, found: Any) -> Json:
    return {"experiment": wire.experiment(found, call.server.places.of_experiment(found))}


def search_experiments(call: Call) -> Json:
    page = call.store.search_experiments(
        call.text("filter"),
        call.given.get("order_by", ()),
        call.given.get("view_type", ViewType.ACTIVE_ONLY),
        call.given.get("max_results", 1000),
        call.given.get("page_token") or None,
    )
    places = call.server.places
    return wire.filled(
        experiments=[wire.experiment(item, places.of_experiment(item)) for item in page], next_page_token=page.token
    )


def update_experiment(call: Call) -> Json:
    call.store.rename_experiment(call.text("experiment_id"), call.text("new_name"))
    return {}


def delete_experiment(call: Call) -> Json:
    call.store.delete_experiment(call.text("experiment_id"))
    return {}


def restore_experiment(call: Call) -> Json:
    call.store.restore_experiment(call.text("experiment_id"))
    return {}


def set_experiment_tag(call: Call) -> Json:
    call.store.set_experiment_tag(call.text("experiment_id"), call.text("key"), call.text("value"))
    return {}


def delete_experiment_tag(call: Call) -> Json:
    call.store.delete_experiment_tag(call.text("experiment_id"), call.text("key"))
    return {}


# -- runs


def create_run(call: Call) -> Json:
    """Create a run; with an Idempotency-Key, the same one however often it is sent."""
    run_id = _keyed_run_id(call)
    if run_id is not None:
        try:
            return {"run": run_json(call, call.store.get_run(run_id))}
        except NotFound:
            pass
    tags = dict(_pairs(call.given.get("tags")))
    user = call.text("user_id")
    if call.user.name is not None:
        user = tags["mlflow.user"] = call.user.name
    run = call.store.create_run(
        call.text("experiment_id"),
        call.given.get("start_time"),
        tags,
        call.given.get("run_name"),
        user,
        run_id=run_id,
    )
    return {"run": run_json(call, run)}


def _keyed_run_id(call: Call) -> str | None:
    if not call.key:
        return None
    return hashlib.sha256(f"{call.user.name or ''}\0{call.key}".encode()).hexdigest()[:32]


def get_run(call: Call) -> Json:
    return {"run": run_json(call, call.store.get_run(call.text("run_id")))}


def run_json(call: Call, run: Run) -> Json:
    return wire.run(run, call.server.places.of_run(call.store, run.info))


def update_run(call: Call) -> Json:
    given = call.given
    run = call.store.update_run(call.text("run_id"), given.get("status"), given.get("end_time"), given.get("run_name"))
    return {"run_info": wire.run_info(run.info, call.server.places.of_run(call.store, run.info))}


def delete_run(call: Call) -> Json:
    call.store.delete_run(call.text("run_id"))
    return {}


def restore_run(call: Call) -> Json:
    call.store.restore_run(call.text("run_id"))
    return {}


def search_runs(call: Call) -> Json:
    """Find runs; experiments that are not named are not searched, as in MLflow."""
    page = call.store.search_runs(
        call.given.get("experiment_ids", []),
        call.text("filter"),
        call.given.get("run_view_type", ViewType.ACTIVE_ONLY),
        call.given.get("max_results", 1000),
        call.given.get("order_by", ()),
        call.given.get("page_token") or None,
    )
    of_run = call.server.places.of_run
    runs = [wire.run(run, of_run(call.store, run.info)) for run in page]
    return wire.filled(runs=runs, next_page_token=page.token)


def log_metric(call: Call) -> Json:
    call.store.log_batch(call.text("run_id"), metrics=[_metric(call.given)])
    return {}


def log_parameter(call: Call) -> Json:
    call.store.log_batch(call.text("run_id"), params=[Param(call.text("key"), call.text("value"))])
    return {}


def log_batch(call: Call) -> Json:
    call.store.log_batch(
        call.text("run_id"),
        [_metric(item) for item in call.given.get("metrics", ())],
        [Param(key, value) for key, value in _pairs(call.given.get("params"))],
        [RunTag(key, value) for key, value in _pairs(call.given.get("tags"))],
    )
    return {}


def _metric(item: Json) -> Any:
    time = item.get("timestamp")
    point = (item["key"], item["value"], journal.now() if time is None else time, item.get("step", 0))
    if not item.get("model_id"):
        return Metric(*point)
    return LoggedModelMetric(
        *point,
        model_id=item["model_id"],
        run_id=item.get("run_id", ""),
        dataset_name=item.get("dataset_name", ""),
        dataset_digest=item.get("dataset_digest", ""),
    )


def set_tag(call: Call) -> Json:
    call.store.set_tag(call.text("run_id"), call.text("key"), call.text("value"))
    return {}


def delete_tag(call: Call) -> Json:
    call.store.delete_tag(call.text("run_id"), call.text("key"))
    return {}


def log_inputs(call: Call) -> Json:
    datasets = [
        DatasetInput(
            Dataset(*(item["dataset"].get(field) for field in Dataset._fields)), dict(_pairs(item.get("tags")))
        )
        for item in call.given.get("datasets", ())
    ]
    models = [LoggedModelInput(item["model_id"]) for item in call.given.get("models", ())]
    if models:
        call.store.log_inputs(call.text("run_id"), datasets, models)
    else:
        call.store.log_inputs(call.text("run_id"), datasets)
    return {}


# -- removing for good


def collectable(call: Call) -> Json:
    """Tell what may be removed for good: deleted runs and experiments, or what interrupted work left over."""
    if call.given.get("leftovers"):
        return wire.filled(leftovers=[item._asdict() for item in call.store.leftovers()])
    runs, experiments = call.store.collectable(call.given.get("older_than", 0), call.given.get("run_ids"))
    places = call.server.places
    return wire.filled(
        runs=[run_json(call, run) for run in runs],
        experiments=[wire.experiment(item, places.of_experiment(item)) for item in experiments],
    )


def collect(call: Call) -> Json:
    """Remove for good what is named, if it is deleted."""
    run_ids, chosen = call.given.get("run_ids"), set(call.given.get("experiment_ids", ()))
    if run_ids:
        call.store.collect(call.store.collectable(0, run_ids)[0], [])
    if chosen:
        experiments = [item for item in call.store.collectable()[1] if item.experiment_id in chosen]
        call.store.collect([], experiments)
    if call.given.get("leftovers"):
        call.store.remove_leftovers(call.store.leftovers())
    return {}


# -- histories


def get_history(call: Call) -> Json:
    limit = _limit(call.given.get("max_results", _POINTS))
    start = query.decode_token(call.text("page_token")) if call.given.get("page_token") else 0
    points = _history(call, call.text("run_id"), call.text("metric_key"))
    more = len(points) > start + limit
    return wire.filled(
        metrics=[wire.metric(point) for point in points[start : start + limit]],
        next_page_token=query.encode_token(start + limit) if more else None,
    )


def get_history_bulk(call: Call) -> Json:
    limit = _limit(call.given.get("max_results", _POINTS))
    metrics: list[Json] = []
    for run_id in call.given["run_id"][:100]:
        points = _history(call, run_id, call.text("metric_key"))[: limit - len(metrics)]
        metrics += [{**wire.metric(point), "run_id": run_id} for point in points]
    return wire.filled(metrics=metrics)


def get_history_interval(call: Call) -> Json:
    """Points of one metric of several runs between two steps, thinned out evenly to what a picture can show."""
    limit = _limit(call.given.get("max_results", 2500))
    start, end = call.given.get("start_step"), call.given.get("end_step")
    metrics: list[Json] = []
    for run_id in call.given["run_ids"][:100]:
        points = [
            point
            for point in _history(call, run_id, call.text("metric_key"))
            if (start is None or point.step >= start) and (end is None or point.step <= end)
        ]
        metrics += [{**wire.metric(point), "run_id": run_id} for point in _thinned(points, limit)]
    return wire.filled(metrics=metrics)


def _history(call: Call, run_id: str, key: str) -> list[Metric]:
    try:
        return call.store.get_metric_history(run_id, key)
    except NotFound:  # MLflow answers as if there were no points yet
        return []


def _thinned(points: Sequence[Metric], limit: int) -> Iterable[Metric]:
    if len(points) <= limit:
        return points
    if limit == 1:
        return points[-1:]
    return [points[round(place * (len(points) - 1) / (limit - 1))] for place in range(limit)]


def _limit(value: int) -> int:
    if not 1 <= value <= MAX_PAGE:
        raise InvalidInput(f"max_results must be between 1 and {MAX_PAGE}, not {value}")
    return value


def _pairs(found: Sequence[Json] | None) -> list[tuple[str, str]]:
    return [(pair["key"], pair.get("value", "")) for pair in found or ()]


# -- journals of clients


def move_run(call: Call) -> Json:
    """Move a run to another experiment; its artifacts stay where they are."""
    return {"run": run_json(call, call.store.move_run(call.text("run_id"), call.text("experiment_id")))}


def append_journal(call: Call) -> Json:
    """Apply lines of a client's journal, each exactly once however often they are sent.

    ``position`` is the byte at which ``lines`` begin; the answer's is the byte up to which lines were applied: send on
    from there. It stays where it was when lines are missing before these, and it stops before a line about a run that is
    not known yet: its start may stand in another client's journal. ``closed`` says that the writer has ended: such lines
    are put aside then, and the runs that it kept open are closed.
    """
    name = call.given["name"]
    if not _JOURNAL_NAME.match(name):
        raise InvalidInput(f"{name!r} cannot be the name of a journal")
    position, text = call.given["position"], _line_bytes(call.text("lines"))
    if position < 0:
        raise InvalidInput("position must not be negative")
    closed = call.given.get("closed", False)
    source = f"remote:{call.user.name or ''}:{name}"
    database = call.store.database
    row = database.one("SELECT position, default_run FROM journals WHERE name = :name", {"name": source})
    reached, default_run = row or (0, None)
    if position > reached:
        return {"position": reached}
    text = text[reached - position :]
    writes = Writes(database, source=source, reject_unknown=closed)
    writes.default_run = default_run
    lines = journal.split_lines(text, reached)
    _sign(call, lines.entries)
    done = writes.lines(lines, reached)
    writes.flush()
    reached += sum(len(line) + 1 for line in lines.texts[:done])
    database.execute(
        "INSERT INTO journals (name, position, default_run, finished) VALUES (:name, :position, :run, 0)"
        " ON CONFLICT (name) DO UPDATE SET position = excluded.position, default_run = excluded.default_run",
        {"name": source, "position": reached, "run": writes.default_run},
    )
    if closed and done == len(lines.texts):
        _close_runs(call, source, call.given.get("time"))
    return {"position": reached}


def _line_bytes(text: str) -> bytes:
    return text.encode()


def _sign(call: Call, entries: Sequence[Json | None]) -> None:
    """Write the name of the user, where it is known, on the runs that the lines start."""
    if call.user.name is None:
        return
    for entry in entries:
        start = entry.get("start") if entry else None
        if isinstance(start, dict):
            start["user"] = call.user.name
            if isinstance(start.get("tags", {}), dict):
                start["tags"] = {**start.get("tags", {}), "mlflow.user": call.user.name}


def _close_runs(call: Call, source: str, last_sign: int | None) -> None:
    """Close the runs that the writer of a journal left open, at its last sign of life where the client knows it."""
    database = call.store.database
    last = rules.timestamp(journal.now() if last_sign is None else last_sign)
    for run, start in database.query(
        "SELECT id, start_time FROM runs WHERE owner = :name AND status IN ('RUNNING', 'SCHEDULED')", {"name": source}
    ):
        database.execute(
            "UPDATE runs SET status = 'KILLED', end_time = :time WHERE id = :run",
            {"run": run, "time": max(last, start)},
        )
        write_tag(database, run, "mlcli.end_reason", "its process died without ending it")
