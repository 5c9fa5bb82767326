"""The runs of experiments as a table: searched, ordered and cut into pages by the store, whatever their number."""

from __future__ import annotations

from typing import Any

from mlcli.cli.comparison import better_is_less
from mlcli.cli.portrait import PARENT, differing, took
from mlcli.entities import Experiment, Run, ViewType
from mlcli.errors import FilterSyntaxError, InvalidInput
from mlcli.server.pages import Page, Visit
from mlcli.store import Store, survey
from mlcli.store.query import encode_token

VIEWS = {"active": ViewType.ACTIVE_ONLY, "deleted": ViewType.DELETED_ONLY}
SIZES = (50, 25, 100, 200)
MOST_COLUMNS = 40
OWN_COLUMNS = ("user", "source", "version", "experiment", "end_time", "run_id")
_ORDERED_BY = {
    "start_time": "start_time",
    "name": "run_name",
    "status": "status",
    "duration": "duration",
    "user": "user_id",
    "end_time": "end_time",
    "experiment": "experiment_name",
    "run_id": "run_id",
    "source": "tags.`mlflow.source.name`",
    "version": "tags.`mlflow.source.git.commit`",
}
_DEFAULT_METRICS, _DEFAULT_PARAMS = 4, 4


def table(visit: Visit, store: Store) -> Page:
    asked = visit.query
    chosen = _experiments(visit, store)
    ids = None if chosen is None else [experiment.experiment_id for experiment in chosen]
    view = asked.chosen("view", tuple(VIEWS))
    size = asked.whole("size", SIZES[0], 1, max(SIZES))
    page = asked.whole("page", 1, 1, 1_000_000)
    filter_string, order = asked.one("filter").strip(), asked.one("order")
    data: dict[str, Any] = {
        "experiments": [_experiment(experiment) for experiment in chosen or ()],
        "all": chosen is None,
        "filter": filter_string,
        "problem": None,
        "order": order,
        "view": view,
        "page": page,
        "size": size,
        "group": asked.one("group"),
        "runs": [],
        "groups": [],
        "columns": [],
        "best": {},
        "running": 0,
        "total": 0,
        "pages": 1,
    }
    title = "All runs" if chosen is None else ", ".join(experiment.name for experiment in chosen)
    part = "list" if asked.one("part") == "list" else ""
    try:
        terms = [_order_term(order)] if order else []
        store.absorb()
        data["total"] = survey.count_runs(store, ids, filter_string, VIEWS[view])
        data["pages"] = max(1, -(-data["total"] // size))
        data["page"] = page = min(page, data["pages"])  # runs may have gone since the address was made
        token = encode_token((page - 1) * size) if page > 1 else None
        found = store.search_runs(ids, filter_string, VIEWS[view], size, terms, token)
    except InvalidInput as error:  # shown beside the filter, where it is mended
        data["problem"] = problem(error)
        return Page("runs.html", title, data, part, named=chosen is not None)
    columns = [name for name in asked.many("c") if _is_column(name)][:MOST_COLUMNS]
    data["columns"] = columns if "c" in asked else _columns(found, several=chosen is None or len(chosen) != 1)
    names = _names(store, found) if "experiment" in data["columns"] else {}
    kin = survey.children(store, [run.info.run_id for run in found])
    data["runs"] = [_row(run, names, kin.get(run.info.run_id, 0)) for run in found]
    data["best"] = _best(found, data["columns"])
    if data["group"]:
        metrics = [name[len("metrics.") :] for name in data["columns"] if name.startswith("metrics.")]
        if not data["group"].startswith(("params.", "tags.")):
            raise InvalidInput("runs are grouped by a param or a tag", hint="group=params.model, for example")
        data["groups"] = [
            {**item._asdict(), "filter": _joined(filter_string, data["group"], item.value)}
            for item in survey.groups(store, ids, filter_string, VIEWS[view], data["group"], metrics)
        ]
    data["running"] = sum(run["status"] in ("RUNNING", "SCHEDULED") for run in data["runs"])
    return Page("runs.html", title, data, part, named=chosen is not None)


def problem(error: InvalidInput) -> dict[str, Any]:
    """What is wrong with a filter and where: from there on it is not understood."""
    position = error.position if isinstance(error, FilterSyntaxError) else None
    return {"message": error.message, "hint": error.hint or "", "position": position}


def _experiments(visit: Visit, store: Store) -> list[Experiment] | None:
    ids = [visit.given["experiment_id"]] if "experiment_id" in visit.given else visit.query.many("e")
    return [store.get_experiment(item) for item in dict.fromkeys(ids)] or None


def _experiment(experiment: Experiment) -> dict[str, Any]:
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "note": experiment.tags.get("mlflow.note.content", ""),
        "lifecycle_stage": experiment.lifecycle_stage,
    }


def _order_term(order: str) -> str:
    """What the store calls the column that a heading stands for; a ``-`` before it turns the order round."""
    name = order.removeprefix("-")
    way = "DESC" if order.startswith("-") else "ASC"
    kind, _, key = name.partition(".")
    if kind in ("metrics", "params", "tags") and key:
        return f"{kind}.{quoted(key)} {way}"
    if name not in _ORDERED_BY:
        raise InvalidInput(f"runs are not ordered by {name!r}")
    return f"{_ORDERED_BY[name]} {way}"


def quoted(key: str) -> str:
    """A key as the search language takes it, whatever is in it."""
    sign = "`" if "`" not in key else '"'
    return f"{sign}{key.replace(sign, sign * 2)}{sign}"


def _joined(filter_string: str, group: str, value: str) -> str:
    kind, _, key = group.partition(".")
    test = f"{kind}.{quoted(key)} = '{value.replace(chr(39), chr(39) * 2)}'"
    return f"({filter_string}) AND {test}" if filter_string else test


def _is_column(name: str) -> bool:
    kind, _, key = name.partition(".")
    return name in OWN_COLUMNS or (kind in ("metrics", "params", "tags") and bool(key))


def _columns(runs: list[Run], *, several: bool) -> list[str]:
    """Without a choice: the metrics and params in which the runs differ most."""
    metrics = differing([run.data.metrics for run in runs])[:_DEFAULT_METRICS]
    params = differing([run.data.params for run in runs])[:_DEFAULT_PARAMS]
    return [
        *(["experiment"] if several else []),
        "source",
        *(f"metrics.{key}" for key in metrics),
        *(f"params.{key}" for key in params),
    ]


def _names(store: Store, runs: list[Run]) -> dict[str, str]:
    return {key: store.get_experiment(key).name for key in {run.info.experiment_id for run in runs}}


def _row(run: Run, experiments: dict[str, str], children: int) -> dict[str, Any]:
    info, tags = run.info, run.data.tags
    return {
        "run_id": info.run_id,
        "name": info.run_name,
        "status": info.status,
        "experiment_id": info.experiment_id,
        "experiment": experiments.get(info.experiment_id, ""),
        "user": info.user_id or tags.get("mlflow.user", ""),
        "start_time": info.start_time,
        "end_time": info.end_time,
        "duration_ms": took(run),
        "lifecycle_stage": info.lifecycle_stage,
        "source": tags.get("mlflow.source.name", ""),
        "version": tags.get("mlflow.source.git.commit", ""),
        "parent": tags.get(PARENT),
        "children": children,
        "metrics": dict(run.data.metrics),
        "params": dict(run.data.params),
        "tags": {key: value for key, value in tags.items() if not key.startswith(("mlflow.", "mlcli."))},
    }


def _best(runs: list[Run], columns: list[str]) -> dict[str, float]:
    """The best value of each metric that is shown, among the runs that are shown."""
    result = {}
    for name in columns:
        key = name.removeprefix("metrics.")
        known = [
            value for run in runs if (value := run.data.metrics.get(key)) is not None and abs(value) < float("inf")
        ]
        if name.startswith("metrics.") and len(set(known)) > 1:
            result[name] = min(known) if better_is_less(key) else max(known)
    return result
