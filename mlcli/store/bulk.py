"""Whole runs written many at a time, with the ids and times they had elsewhere: what an import is made of.

Call everything here inside a transaction. What is given obeys the rules already (`rules`); only what the database alone can
know is looked at: what is here and what is not.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from mlcli.entities import DatasetInput, LifecycleStage
from mlcli.store.absorb import Writes, number
from mlcli.store.database import Database
from mlcli.store.records import NEXT_EXPERIMENT

_KEYS_AT_ONCE = 500


class Points(NamedTuple):
    """The history of one metric in columns; ``nans`` is None where no value is NaN, and a NaN's value is 0."""

    steps: Sequence[int]
    times: Sequence[int]
    values: Sequence[float]
    nans: Optional[Sequence[int]] = None


class WholeRun(NamedTuple):
    """A run with all that was logged to it."""

    run_id: str
    experiment: int
    name: str
    user_id: str
    status: str
    start_time: int
    end_time: Optional[int]
    lifecycle_stage: str = LifecycleStage.ACTIVE
    deleted_time: Optional[int] = None
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    metrics: Mapping[str, Points] = {}
    inputs: Sequence[DatasetInput] = ()
    models: Sequence[Tuple[str, str, int]] = ()  # role (input or output), logged model, step


class Known(NamedTuple):
    """A run that is here: its key, the experiment it is in, whether it may still change."""

    key: int
    experiment: int
    open: bool


def known_runs(database: Database, run_ids: Sequence[str]) -> Dict[str, Known]:
    """Which of the runs are here."""
    found: Dict[str, Known] = {}
    for start in range(0, len(run_ids), _KEYS_AT_ONCE):
        some = run_ids[start : start + _KEYS_AT_ONCE]
        names = {f"r{place}": run_id for place, run_id in enumerate(some)}
        rows = database.query(
            "SELECT run_id, id, experiment, status, owner FROM runs"
            f" WHERE run_id IN ({', '.join(':' + name for name in names)})",
            names,
        )
        for run_id, key, experiment, status, owner in rows:
            found[run_id] = Known(key, experiment, status in ("RUNNING", "SCHEDULED") and owner is None)
    return found


def tagged_runs(database: Database, key: str) -> Set[str]:
    """The ids of the runs that have the tag."""
    rows = database.query(
        "SELECT r.run_id FROM runs r WHERE r.id IN (SELECT run FROM tags WHERE key = :key AND length(value) <= 200)"
        " OR r.id IN (SELECT run FROM tags WHERE key = :key AND length(value) > 200)",
        {"key": key},
    )
    return {row[0] for row in rows}


def untag(database: Database, run: int, key: str) -> None:
    database.execute("DELETE FROM tags WHERE run = :run AND key = :key", {"run": run, "key": key})


def add_experiment(
    database: Database,
    wanted: Optional[int],
    name: str,
    stage: str,
    created: int,
    updated: int,
    tags: Mapping[str, str],
) -> int:
    """Insert an experiment, under the id ``wanted`` where that is free; its id."""
    values = {"name": name, "stage": stage, "created": created, "updated": updated}
    taken = wanted is None or database.one("SELECT 1 FROM experiments WHERE id = :id", {"id": wanted})
    if taken:
        key = database.insert(
            "INSERT INTO experiments (id, name, lifecycle_stage, creation_time, last_update_time)"
            f" VALUES ({NEXT_EXPERIMENT}, :name, :stage, :created, :updated)",
            values,
        )
    else:
        key = int(wanted or 0)
        database.execute(
            "INSERT INTO experiments (id, name, lifecycle_stage, creation_time, last_update_time)"
            " VALUES (:id, :name, :stage, :created, :updated)",
            {**values, "id": key},
        )
    add_experiment_tags(database, key, tags)
    return key


def add_experiment_tags(database: Database, experiment: int, tags: Mapping[str, str]) -> None:
    """Add the tags that the experiment has not."""
    database.execute_many(
        "INSERT INTO experiment_tags (experiment, key, value) VALUES (?, ?, ?) ON CONFLICT (experiment, key) DO NOTHING",
        [(experiment, key, value) for key, value in tags.items()],
    )


def add_runs(database: Database, runs: Sequence[WholeRun]) -> None:
    """Insert runs that are not here, whole; nobody watches them, so that an open one stays open."""
    params: List[Tuple[Any, ...]] = []
    tags: List[Tuple[Any, ...]] = []
    points: List[Iterable[Tuple[Any, ...]]] = []
    for run in runs:
        key = database.insert(
            "INSERT INTO runs (run_id, experiment, name, user_id, status, start_time, end_time, lifecycle_stage,"
            " deleted_time) VALUES (:run_id, :experiment, :name, :user_id, :status, :start_time, :end_time,"
            " :lifecycle_stage, :deleted_time)",
            dict(zip(_RUN_FIELDS, run)),
        )
        params += [(key, name, value, number(value)) for name, value in run.params.items()]
        tags += [(key, name, value) for name, value in {**run.tags, "mlflow.runName": run.name}.items()]
        for name, column in run.metrics.items():
            if column.steps:
                points.append(_rows(_add_series(database, key, name, column), column))
        _add_inputs(database, key, run)
    database.execute_many("INSERT INTO params (run, key, value, number) VALUES (?, ?, ?, ?)", params)
    database.execute_many("INSERT INTO tags (run, key, value) VALUES (?, ?, ?)", tags)
    database.execute_many(
        "INSERT INTO metrics (series, step, timestamp, value, is_nan) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        chain.from_iterable(points),
    )


_RUN_FIELDS = WholeRun._fields[:9]


def renew_run(database: Database, key: int, run: WholeRun) -> None:
    """Bring a run that is here and was still open up to what it is elsewhere by now; nothing comes twice."""
    database.execute(
        "UPDATE runs SET status = :status, end_time = :end WHERE id = :id",
        {"status": run.status, "end": run.end_time, "id": key},
    )
    database.execute_many(
        "INSERT INTO params (run, key, value, number) VALUES (?, ?, ?, ?) ON CONFLICT (run, key) DO NOTHING",
        [(key, name, value, number(value)) for name, value in run.params.items()],
    )
    writes = Writes(database)
    for name, value in run.tags.items():
        writes.tag(key, name, value)
    for name, column in run.metrics.items():
        nans = column.nans or repeat(0)
        for step, time, point, is_nan in zip(column.steps, column.times, column.values, nans):
            writes.point(run.run_id, name, float("nan") if is_nan else point, step, time)
    writes.flush()
    _add_inputs(database, key, run)


def homes(database: Database, run_ids: Sequence[str]) -> List[int]:
    """The experiments in which those of the runs lie that are here, the fullest first."""
    counts: Dict[int, int] = {}
    for run in known_runs(database, run_ids).values():
        counts[run.experiment] = counts.get(run.experiment, 0) + 1
    return sorted(counts, key=lambda experiment: -counts[experiment])


def _add_series(database: Database, run: int, name: str, column: Points) -> int:
    if column.nans is None:
        step, time, value = max(zip(column.steps, column.times, column.values))
        is_nan, low, high = 0, min(column.values), max(column.values)
    else:
        step, time, minus, value = max(zip(column.steps, column.times, [-nan for nan in column.nans], column.values))
        real = [value for value, nan in zip(column.values, column.nans) if not nan]
        is_nan, low, high = -minus, min(real, default=None), max(real, default=None)  # type: ignore[assignment]
    return database.insert(
        "INSERT INTO series (run, key, value, is_nan, step, timestamp, min, max)"
        " VALUES (:run, :key, :value, :is_nan, :step, :time, :low, :high)",
        {
            "run": run,
            "key": name,
            "value": value,
            "is_nan": is_nan,
            "step": step,
            "time": time,
            "low": low,
            "high": high,
        },
    )


def _rows(series: int, column: Points) -> Iterable[Tuple[Any, ...]]:
    return zip(repeat(series), column.steps, column.times, column.values, column.nans or repeat(0))


def _add_inputs(database: Database, run: int, whole: WholeRun) -> None:
    writes = Writes(database)
    for item in whole.inputs:
        writes.input(run, {"dataset": item.dataset._asdict(), "tags": dict(item.tags)})
    database.execute_many(
        "INSERT INTO run_models (run, role, model_id, step) VALUES (?, ?, ?, ?) ON CONFLICT (run, role, model_id) DO NOTHING",
        [(run, *model) for model in whole.models],
    )


# -- models


class WholeModel(NamedTuple):
    """A logged model with all that belongs to it."""

    model_id: str
    experiment: int
    name: str
    creation_time: int
    last_updated_time: int
    status: str
    status_message: str
    model_type: str
    source_run_id: str
    lifecycle_stage: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    # key, run id, dataset name, dataset digest, step, time, value, is_nan
    metrics: Sequence[Tuple[str, str, str, str, int, int, float, int]]


def has_logged_model(database: Database, model_id: str) -> bool:
    return database.one("SELECT 1 FROM logged_models WHERE model_id = :id", {"id": model_id}) is not None


def add_logged_model(database: Database, model: WholeModel) -> None:
    """Insert a logged model that is not here."""
    key = database.insert(
        "INSERT INTO logged_models (model_id, experiment, name, creation_time, last_updated_time, status, status_message,"
        " model_type, source_run_id, lifecycle_stage, deleted_time) VALUES (:model_id, :experiment, :name, :creation_time,"
        " :last_updated_time, :status, :status_message, :model_type, :source_run_id, :lifecycle_stage, :deleted_time)",
        {
            **dict(zip(WholeModel._fields[:10], model)),
            "deleted_time": model.last_updated_time if model.lifecycle_stage == LifecycleStage.DELETED else None,
        },
    )
    database.execute_many(
        "INSERT INTO logged_model_params (model, key, value, number) VALUES (?, ?, ?, ?)",
        [(key, name, value, number(value)) for name, value in model.params.items()],
    )
    database.execute_many(
        "INSERT INTO logged_model_tags (model, key, value) VALUES (?, ?, ?)",
        [(key, name, value) for name, value in model.tags.items()],
    )
    database.execute_many(
        "INSERT INTO logged_model_metrics (model, key, run_id, dataset_name, dataset_digest, step, timestamp, value, is_nan)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(key, *point) for point in model.metrics],
    )


class WholeVersion(NamedTuple):
    """A version of a registered model."""

    version: int
    creation_time: int
    last_updated_time: int
    description: str
    user_id: str
    stage: str
    source: str
    storage: str
    run_id: str
    run_link: str
    model_id: str
    status: str
    status_message: str
    tags: Mapping[str, str]


def registered_model(
    database: Database, name: str, created: int, updated: int, description: str, tags: Mapping[str, str]
) -> Tuple[int, bool]:
    """The key of the registered model of that name, made if there is none, and whether it was made."""
    row = database.one("SELECT id FROM registered_models WHERE name = :name", {"name": name})
    key = (
        int(row[0])
        if row
        else database.insert(
            "INSERT INTO registered_models (name, creation_time, last_updated_time, description)"
            " VALUES (:name, :created, :updated, :description)",
            {"name": name, "created": created, "updated": updated, "description": description},
        )
    )
    database.execute_many(
        "INSERT INTO registered_model_tags (model, key, value) VALUES (?, ?, ?) ON CONFLICT (model, key) DO NOTHING",
        [(key, tag, value) for tag, value in tags.items()],
    )
    return key, row is None


def add_version(database: Database, model: int, version: WholeVersion) -> Tuple[int, bool]:
    """Insert a version that is not here, under its number where that was never given; its number here, and whether it came.

    The same version is the one that was made at the same moment of the same source.
    """
    same = database.one(
        "SELECT version FROM model_versions WHERE model = :model AND creation_time = :creation_time AND source = :source"
        " AND run_id = :run_id",
        {"model": model, **{name: getattr(version, name) for name in ("creation_time", "source", "run_id")}},
    )
    if same:
        return int(same[0]), False
    row = database.one("SELECT highest_version FROM registered_models WHERE id = :model", {"model": model})
    highest = int(row[0]) if row else 0
    given = version.version if version.version > highest else highest + 1
    key = database.insert(
        "INSERT INTO model_versions (model, version, creation_time, last_updated_time, description, user_id, stage, source,"
        " storage, run_id, run_link, model_id, status, status_message) VALUES (:model, :version, :creation_time,"
        " :last_updated_time, :description, :user_id, :stage, :source, :storage, :run_id, :run_link, :model_id, :status,"
        " :status_message)",
        {**dict(zip(WholeVersion._fields[:13], version)), "model": model, "version": given},
    )
    database.execute_many(
        "INSERT INTO model_version_tags (version, key, value) VALUES (?, ?, ?)",
        [(key, tag, value) for tag, value in version.tags.items()],
    )
    reserve_versions(database, model, given)
    return given, True


def set_storage(database: Database, model: int, version: int, storage: str) -> None:
    """Say where the files of a version are; "" stands for nowhere here."""
    database.execute(
        "UPDATE model_versions SET storage = :storage WHERE model = :model AND version = :version",
        {"model": model, "version": version, "storage": storage},
    )


def reserve_versions(database: Database, model: int, highest: int) -> None:
    """See to it that no new version gets a number up to ``highest``: deleted versions keep theirs."""
    database.execute(
        "UPDATE registered_models SET highest_version = :highest WHERE id = :model AND highest_version < :highest",
        {"model": model, "highest": highest},
    )


def add_alias(database: Database, model: int, alias: str, version: int) -> int:
    """Let an alias that is free name the version; the version that it names now."""
    database.execute(
        "INSERT INTO registered_model_aliases (model, alias, version) VALUES (:model, :alias, :version)"
        " ON CONFLICT (model, alias) DO NOTHING",
        {"model": model, "alias": alias, "version": version},
    )
    row = database.one(
        "SELECT version FROM registered_model_aliases WHERE model = :model AND alias = :alias",
        {"model": model, "alias": alias},
    )
    return int(row[0]) if row else version
