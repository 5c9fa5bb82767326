"""The tracking store in a folder: experiments, runs, params, metrics, tags, datasets, found by the search language.

A rule about what is stored stands here once; command line, API and server only translate. Every read first applies what
stands in the journals, so a reader sees each call that returned.
"""

from __future__ import annotations

import json
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, Union

from mlcli import journal, rules
from mlcli.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    LatestMetrics,
    LifecycleStage,
    LoggedModelInput,
    LoggedModelMetric,
    LoggedModelOutput,
    Metric,
    Page,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunTag,
    ViewType,
)
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound, StoreUnavailable
from mlcli.store import query
from mlcli.store.absorb import Writes, set_tag
from mlcli.store.records import (
    KEYS_AT_ONCE,
    NEXT_EXPERIMENT,
    PARENT_RUN,
    Pairs,
    experiment_key,
    grouped,
    no_experiment,
    pairs,
)
from mlcli.store.registry import Registry

if TYPE_CHECKING:
    from mlcli.store.leftovers import Leftover

_RUN_COLUMNS = (
    "r.id, r.run_id, r.experiment, r.name, r.user_id, r.status, r.start_time, r.end_time, r.lifecycle_stage,"
    " e.id, e.artifact_location"
)
_MODEL_HISTORY = "mlflow.log-model.history"
_MAX_MODEL_HISTORY = 1_000_000  # not a tag's limit: a run may log many models
# The experiment in whose folder the artifacts of a run lie.
_RUNS = "runs r JOIN experiments e ON e.id = COALESCE(r.home, r.experiment)"
_EXPERIMENT_COLUMNS = "e.id, e.name, e.artifact_location, e.lifecycle_stage, e.creation_time, e.last_update_time"


class Store(Registry):
    """A store of runs and models in the folder ``root``. Close it, or use it as a context manager."""

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    # -- experiments

    def create_experiment(
        self, name: str, artifact_location: Optional[str] = None, tags: Optional[Pairs] = None
    ) -> str:
        """Create an experiment and return its id. Raises AlreadyExists; the name of a deleted one is free."""
        rules.experiment_name(name)
        location = _artifact_location(artifact_location)
        with self.database.transaction():
            if self._experiment_named(name) is not None:
                raise AlreadyExists(
                    f"there is an experiment {name!r} already", hint=f"runs join it with --experiment-name {name!r}"
                )
            now = journal.now()
            key = self.database.insert(
                "INSERT INTO experiments (id, name, artifact_location, creation_time, last_update_time)"
                f" VALUES ({NEXT_EXPERIMENT}, :name, :location, :now, :now)",
                {"name": name, "location": location, "now": now},
            )
            for tag, value in pairs(tags):
                self._set_experiment_tag(key, tag, value)
        return str(key)

    def ensure_experiment(self, name: str) -> Experiment:
        """The active experiment ``name``, created if there is none."""
        found = self.find_experiment(name)
        if found is None:
            try:
                self.create_experiment(name)
            except AlreadyExists:  # another process was quicker
                pass
            found = self.find_experiment(name)
            assert found is not None  # noqa: S101 - it was created a line above
        return found

    def get_experiment(self, experiment_id: str) -> Experiment:
        rows = self.database.query(
            f"SELECT {_EXPERIMENT_COLUMNS} FROM experiments e WHERE e.id = :id", {"id": experiment_key(experiment_id)}
        )
        if not rows:
            raise no_experiment(experiment_id)
        return self._experiments(rows)[0]

    def find_experiment(self, name: str) -> Optional[Experiment]:
        """The experiment of that name: the active one, else the one deleted last, else None."""
        rows = self.database.query(
            f"SELECT {_EXPERIMENT_COLUMNS} FROM experiments e WHERE e.name = :name"
            " ORDER BY e.lifecycle_stage, e.last_update_time DESC LIMIT 1",
            {"name": name},
        )
        found = self._experiments(rows)
        return found[0] if found and found[0].lifecycle_stage == LifecycleStage.ACTIVE else None

    def search_experiments(
        self,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        view_type: str = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        page_token: Optional[str] = None,
    ) -> Page[Experiment]:
        """Find experiments; by default the newest first."""
        from mlcli.store import query  # the search language: `mlcli run` has no use for it

        select = query.experiments(filter_string, order_by, view_type, journal.now())
        with self.database.snapshot():
            keys, token = self._page(select, max_results, page_token)
            rows = self._by_keys(f"SELECT {_EXPERIMENT_COLUMNS} FROM experiments e WHERE e.id", keys)
            return Page(self._experiments(rows), token)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        rules.experiment_name(new_name)
        with self.database.transaction():
            self._active_experiment(experiment_id)
            if self._experiment_named(new_name) is not None:
                raise AlreadyExists(f"there is an experiment {new_name!r} already")
            self._touch_experiment(experiment_id, "name = :name", {"name": new_name})

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment and its runs; :meth:`restore_experiment` brings all back."""
        self.absorb()  # runs that were started a moment ago are among them
        with self.database.transaction():
            self._active_experiment(experiment_id)
            self._touch_experiment(experiment_id, "lifecycle_stage = 'deleted'", {})
            self.database.execute(
                "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = :now"
                " WHERE experiment = :id AND lifecycle_stage = 'active'",
                {"id": experiment_key(experiment_id), "now": journal.now()},
            )

    def restore_experiment(self, experiment_id: str) -> None:
        self.absorb()
        with self.database.transaction():
            found = self.get_experiment(experiment_id)
            if found.lifecycle_stage == LifecycleStage.ACTIVE:
                raise InvalidState(f"experiment {experiment_id} ({found.name!r}) is not deleted")
            if self._experiment_named(found.name) is not None:
                raise AlreadyExists(
                    f"an experiment {found.name!r} was created since",
                    hint="rename that one first, then restore this one",
                )
            self._touch_experiment(experiment_id, "lifecycle_stage = 'active'", {})
            self.database.execute(
                "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE experiment = :id",
                {"id": experiment_key(experiment_id)},
            )

    def set_experiment_tag(self, experiment_id: str, key: str, value: object) -> None:
        with self.database.transaction():
            self._set_experiment_tag(experiment_key(self._active_experiment(experiment_id).experiment_id), key, value)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        with self.database.transaction():
            gone = self.database.execute(
                "DELETE FROM experiment_tags WHERE experiment = :id AND key = :key",
                {"id": experiment_key(experiment_id), "key": key},
            )
            if not gone:
                raise NotFound(f"experiment {experiment_id} has no tag {key!r}")

    # -- runs

    def create_run(
        self,
        experiment_id: str,
        start_time: Optional[int] = None,
        tags: Optional[Pairs] = None,
        run_name: Optional[str] = None,
        user_id: str = "",
        status: str = "RUNNING",
        run_id: Optional[str] = None,
    ) -> Run:
        """Create a run that no process watches: it stays open until somebody ends it."""
        run_id = journal.new_run_id() if run_id is None else rules.run_id(run_id)
        given = {rules.key(key, "tag"): rules.tag_value(key, value) for key, value in pairs(tags)}
        named = given.get("mlflow.runName")
        if run_name and named and run_name != named:
            raise InvalidInput(f"the run is named {run_name!r} and {named!r} (tag mlflow.runName): give one name")
        name = rules.run_name(run_name or named or journal.new_run_name())
        with self.database.transaction():
            experiment = experiment_key(self._active_experiment(experiment_id).experiment_id)
            time = journal.now() if start_time is None else rules.timestamp(start_time)
            Writes(self.database).start(run_id, experiment, name, user_id, time, status, given)
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> Run:
        self.absorb()
        rows = self.database.query(
            f"SELECT {_RUN_COLUMNS} FROM {_RUNS} WHERE r.run_id = :run_id",
            {"run_id": run_id},
        )
        if not rows:
            raise NotFound(f"there is no run {run_id!r}", hint="`mlcli runs list` shows what there is")
        return self._runs(rows)[0]

    def find_run(self, reference: str) -> str:
        """The id of the run a person means: an id, a unique beginning of one, ``latest``, ``latest~2``, a run's name."""
        self.absorb()
        if reference == "latest" or reference.startswith("latest~"):
            return self._nth_latest(reference)
        rows = self.database.query(
            "SELECT run_id FROM runs WHERE run_id >= :low AND run_id < :high ORDER BY run_id LIMIT 6",
            {"low": reference, "high": reference + "\U0010ffff"},
        )
        found = [row[0] for row in rows]
        if reference in found or (len(found) == 1 and reference):
            return reference if reference in found else found[0]
        if not found:
            found = [
                row[0]
                for row in self.database.query(
                    "SELECT run_id FROM runs WHERE name = :name AND lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 6",
                    {"name": reference},
                )
            ]
            if len(found) == 1:
                return str(found[0])
        if found and reference:
            shown = ", ".join(run_id[:12] for run_id in found[:5]) + (", ..." if len(found) > 5 else "")
            raise InvalidInput(f"{reference!r} could be several runs: {shown}", hint="give more of the id")
        raise NotFound(f"there is no run {reference!r}", hint="`mlcli runs list` shows what there is")

    def update_run(
        self,
        run_id: str,
        status: Optional[str] = None,
        end_time: Optional[int] = None,
        run_name: Optional[str] = None,
    ) -> Run:
        self.absorb()
        with self.database.transaction():
            run = self._active_run(run_id)
            writes = Writes(self.database)
            if status is not None:
                writes.status(run, status, end_time)
            elif end_time is not None:
                self.database.execute(
                    "UPDATE runs SET end_time = :time WHERE id = :run", {"run": run, "time": rules.timestamp(end_time)}
                )
            if run_name:
                writes.tag(run, "mlflow.runName", rules.run_name(run_name))
        return self.get_run(run_id)

    def delete_run(self, run_id: str) -> None:
        """Move a run to the deleted stage; :meth:`restore_run` brings it back."""
        self._set_stage(run_id, LifecycleStage.DELETED, journal.now())

    def restore_run(self, run_id: str) -> None:
        self._set_stage(run_id, LifecycleStage.ACTIVE, None)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Union[Metric, LoggedModelMetric]] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Log metrics, params and tags: all of them or, if one is not acceptable, none.

        A metric that names a logged model is kept with the model too.
        """
        self.absorb()
        with self.database.transaction(durable=False):
            run = self._active_run(run_id)
            writes = Writes(self.database)
            for param in params:
                writes.param(run, param.key, param.value)
            for tag in tags:
                writes.tag(run, tag.key, tag.value)
            for metric in metrics:
                key = rules.key(metric.key, "metric")
                value = rules.metric_value(key, metric.value)
                writes.point(run_id, key, value, rules.int64(metric.step, "a step"), rules.timestamp(metric.timestamp))
            writes.flush()
            self.log_logged_model_metrics(
                [
                    metric if metric.run_id else metric._replace(run_id=run_id)
                    for metric in metrics
                    if isinstance(metric, LoggedModelMetric) and metric.model_id
                ]
            )

    def set_tag(self, run_id: str, key: str, value: object) -> None:
        self.absorb()
        with self.database.transaction():
            Writes(self.database).tag(self._active_run(run_id), key, value)

    def delete_tag(self, run_id: str, key: str) -> None:
        self.absorb()
        with self.database.transaction():
            run = self._active_run(run_id)
            if not self.database.execute("DELETE FROM tags WHERE run = :run AND key = :key", {"run": run, "key": key}):
                raise NotFound(f"run {run_id} has no tag {key!r}")

    def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        """Note the datasets, and the logged models, that a run read."""
        self.absorb()
        with self.database.transaction():
            run = self._active_run(run_id)
            writes = Writes(self.database)
            for item in datasets:
                writes.input(run, {"dataset": item.dataset._asdict(), "tags": dict(item.tags)})
            self._note_models(run, "input", [(model.model_id, 0) for model in models])

    def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        """Note the logged models that a run made."""
        self.absorb()
        with self.database.transaction():
            self._note_models(self._active_run(run_id), "output", [(model.model_id, model.step) for model in models])

    def record_logged_model(self, run_id: str, model: Union[str, Mapping[str, Any]]) -> None:
        """Note a model as MLflow 2 does: its description, or the JSON of it, is added to a list in a tag of the run."""
        description = rules.model_description(model)
        self.absorb()
        with self.database.transaction():
            run = self._active_run(run_id)
            # Writing the row first makes a second writer wait: both models will be in the list.
            self.database.execute("UPDATE runs SET name = name WHERE id = :run", {"run": run})
            row = self.database.one(
                "SELECT value FROM tags WHERE run = :run AND key = :key", {"run": run, "key": _MODEL_HISTORY}
            )
            models = [*_model_history(row[0] if row else ""), description]
            set_tag(
                self.database,
                run,
                _MODEL_HISTORY,
                rules.text(json.dumps(models), f"tag {_MODEL_HISTORY}", _MAX_MODEL_HISTORY),
            )

    def move_run(self, run_id: str, experiment_id: str) -> Run:
        """Move a run to another experiment; its artifacts stay where they are, so that every URI of them stays good."""
        self.absorb()
        with self.database.transaction():
            run = self._active_run(run_id)
            target = experiment_key(self._active_experiment(experiment_id).experiment_id)
            self.database.execute(
                "UPDATE runs SET home = COALESCE(home, experiment), experiment = :target WHERE id = :run",
                {"run": run, "target": target},
            )
        return self.get_run(run_id)

    def search_runs(
        self,
        experiment_ids: Optional[Sequence[str]] = None,
        filter_string: str = "",
        view_type: str = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: Optional[str] = None,
    ) -> Page[Run]:
        """Find runs in the experiments (None: in all); by default the newest first, missing values last."""
        self.absorb()
        keys = None if experiment_ids is None else [experiment_key(item) for item in experiment_ids]
        select = query.runs(filter_string, order_by, keys, view_type, journal.now(), root=self.root)
        with self.database.snapshot():
            found, token = self._page(select, max_results, page_token)
            rows = self._by_keys(f"SELECT {_RUN_COLUMNS} FROM {_RUNS} WHERE r.id", found)
            return Page(self._runs(rows), token)

    def get_metric_history(self, run_id: str, key: str) -> List[Metric]:
        """Every point of a metric, ordered by timestamp, step, value."""
        self.absorb()
        points = self._points(run_id, key)
        if any([before[1] > after[1] for before, after in zip(points, points[1:])]):
            points.sort(key=lambda point: (point[1], point[0], -point[3], point[2]))
        nan, new = float("nan"), Metric._make
        return [new((key, nan if is_nan else value, time, step)) for step, time, value, is_nan in points]

    def latest_metrics(self, run_ids: Sequence[str]) -> Dict[str, List[Metric]]:
        """The latest point of each metric of the runs, by run id; what :class:`RunData` tells without time and step."""
        result: Dict[str, List[Metric]] = {}
        for start in range(0, len(run_ids), KEYS_AT_ONCE):
            some = {f"r{place}": run_id for place, run_id in enumerate(run_ids[start : start + KEYS_AT_ONCE])}
            for run_id, key, value, is_nan, step, time in self.database.query(
                "SELECT r.run_id, s.key, s.value, s.is_nan, s.step, s.timestamp FROM runs r"
                f" JOIN series s ON s.run = r.id WHERE r.run_id IN (:{', :'.join(some)})",
                some,
            ):
                point = Metric(key, float("nan") if is_nan else value, time, step)
                result.setdefault(run_id, []).append(point)
        return result

    def get_metric_values(self, run_id: str, key: str) -> List[float]:
        """The values of a metric in the order of its steps: what a curve shows."""
        self.absorb()
        return [float("nan") if is_nan else value for _, _, value, is_nan in self._points(run_id, key)]

    def artifact_root(self, run_id: str) -> str:
        """The folder, or URI, that a run's artifacts lie in; it may not exist yet."""
        return self.get_run(run_id).info.artifact_uri

    def collectable(
        self, older_than: int = 0, run_ids: Optional[Sequence[str]] = None
    ) -> Tuple[List[Run], List[Experiment]]:
        """What :meth:`collect` would remove for good: runs and experiments deleted at least ``older_than`` ms ago."""
        self.absorb()
        before = journal.now() - older_than
        rows = self.database.query(
            f"SELECT {_RUN_COLUMNS} FROM {_RUNS}"
            " WHERE r.lifecycle_stage = 'deleted' AND r.deleted_time <= :before ORDER BY r.id",
            {"before": before},
        )
        runs = self._runs(rows)
        if run_ids is not None:
            found = {run.info.run_id for run in runs}
            for run_id in run_ids:
                if run_id not in found:
                    stage = self.get_run(run_id).info.lifecycle_stage
                    why = "is not deleted" if stage == LifecycleStage.ACTIVE else "was deleted only a short while ago"
                    raise InvalidState(f"run {run_id} {why}", hint=f"`mlcli runs delete {run_id}` deletes it")
            return [run for run in runs if run.info.run_id in set(run_ids)], []
        gone = {row[0] for row in rows}
        experiments = self.database.query(
            f"SELECT {_EXPERIMENT_COLUMNS} FROM experiments e"
            " WHERE e.lifecycle_stage = 'deleted' AND e.last_update_time <= :before AND e.id <> 0 ORDER BY e.id",
            {"before": before},
        )
        kept = {
            experiment
            for run, *places in self.database.query("SELECT id, experiment, home FROM runs")
            for experiment in places
            if run not in gone
        }
        return runs, self._experiments([row for row in experiments if row[0] not in kept])

    def collect(self, runs: Sequence[Run], experiments: Sequence[Experiment]) -> None:
        """Remove deleted runs and experiments for good, with their artifacts."""
        from mlcli.store import leftovers

        if not runs and not experiments:
            return
        folders = [os.path.dirname(run.info.artifact_uri) for run in runs]
        # Files go after the records: what is cut short leaves files that nobody names, never records without files.
        # Which files, is written down before: the next gc removes them.
        with self.database.transaction():
            plan = leftovers.plan(self, folders)
            for run in runs:
                self.database.execute(
                    "DELETE FROM runs WHERE run_id = :run_id AND lifecycle_stage = 'deleted'",
                    {"run_id": run.info.run_id},
                )
            for experiment in experiments:
                self.database.execute(
                    "DELETE FROM experiments WHERE id = :id AND lifecycle_stage = 'deleted'"
                    " AND NOT EXISTS (SELECT 1 FROM runs WHERE experiment = :id)",  # nobody started one meanwhile
                    {"id": experiment_key(experiment.experiment_id)},
                )
            self.database.execute("DELETE FROM datasets WHERE id NOT IN (SELECT dataset FROM inputs)")
        for folder in folders:
            if not self.has_folder(folder):  # it may have been restored in the last moment
                remove_folder(folder)
        for experiment in experiments:
            remove_if_empty(experiment.artifact_location)  # what else is in it may be MLflow's, which numbers alike
        os.unlink(plan)

    def leftovers(self) -> List[Leftover]:
        """What interrupted work left in the folders of this store and can go."""
        from mlcli.store import leftovers

        return leftovers.found(self)

    def remove_leftovers(self, found: Sequence[Leftover]) -> None:
        from mlcli.store import leftovers

        leftovers.remove(self, found)

    def run_folders(self) -> Iterator[str]:
        """The folders of runs that are there on this machine, wherever their experiments keep them."""
        for key, location in self.database.query("SELECT id, artifact_location FROM experiments ORDER BY id"):
            base = location or os.path.join(self.root, str(key))
            there = set(os.listdir(base)) if os.path.isdir(base) else set()
            known = self.database.query("SELECT run_id FROM runs WHERE experiment = :id", {"id": key}) if there else []
            yield from (os.path.join(base, run_id) for (run_id,) in known if run_id in there)

    def has_folder(self, folder: str) -> bool:
        """Whether ``folder`` is the one of a run that is on record."""
        found = self.database.one("SELECT 1 FROM runs WHERE run_id = :name", {"name": os.path.basename(folder)})
        return found is not None

    def counts(self) -> Dict[str, int]:
        """How many experiments, runs, metric points, live journals and rejected lines the store holds."""
        self.absorb()
        tables = {
            "experiments": "experiments",
            "runs": "runs",
            "metric_points": "metrics",
            "rejected_lines": "rejected_lines",
        }
        result = {name: self._count(f"SELECT COUNT(*) FROM {table}") for name, table in tables.items()}
        result["open_runs"] = self._count("SELECT COUNT(*) FROM runs WHERE status IN ('RUNNING', 'SCHEDULED')")
        return result

    def rejected_lines(self, limit: int = 20) -> List[Dict[str, Any]]:
        """Journal lines that could not be applied, newest first."""
        self.absorb()
        names = ("journal", "position", "run_id", "line", "reason", "time")
        rows = self.database.query(
            f"SELECT {', '.join(names)} FROM rejected_lines ORDER BY id DESC LIMIT :limit", {"limit": limit}
        )
        return [dict(zip(names, row)) for row in rows]

    # -- rows to values

    def _experiments(self, rows: Sequence[Tuple[Any, ...]]) -> List[Experiment]:
        keys = [row[0] for row in rows]
        tags = grouped(
            self._by_keys("SELECT experiment, key, value FROM experiment_tags WHERE experiment", keys, ordered=False)
        )
        return [
            Experiment(
                str(key),
                name,
                location or os.path.join(self.root, str(key)),
                stage,
                created,
                updated,
                tags.get(key, {}),
            )
            for key, name, location, stage, created, updated in rows
        ]

    def _runs(self, rows: Sequence[Tuple[Any, ...]]) -> List[Run]:
        keys = [row[0] for row in rows]
        params = grouped(self._by_keys("SELECT run, key, value FROM params WHERE run", keys, ordered=False))
        tags = grouped(self._by_keys("SELECT run, key, value FROM tags WHERE run", keys, ordered=False))
        latest: Dict[int, LatestMetrics] = {}
        points: Dict[int, List[Metric]] = {}
        nan, new = float("nan"), Metric._make
        for run, name, value, is_nan, time, step in self._by_keys(
            "SELECT run, key, value, is_nan, timestamp, step FROM series WHERE run", keys, ordered=False
        ):
            if run not in latest:
                latest[run] = LatestMetrics()
                latest[run].points = points[run] = []
            point = new((name, nan if is_nan else value, time, step))
            latest[run][name] = point.value
            points[run].append(point)
        inputs = self._inputs(keys)
        made, read = self._models_of(keys)
        result = []
        for key, run_id, experiment, name, user, status, start, end, stage, home, location in rows:
            base = location or os.path.join(self.root, str(home))
            info = RunInfo(
                run_id, str(experiment), name, user, status, start, end, f"{base.rstrip('/')}/{run_id}/artifacts", stage
            )
            data = RunData(latest.get(key) or LatestMetrics(), params.get(key, {}), tags.get(key, {}))
            read_there = RunInputs(tuple(inputs.get(key, ())), tuple(read.get(key, ())))
            result.append(Run(info, data, read_there, RunOutputs(tuple(made.get(key, ())))))
        return result

    def _inputs(self, keys: Sequence[int]) -> Dict[int, List[DatasetInput]]:
        rows = self._by_keys(
            "SELECT i.run, d.id, d.name, d.digest, d.source_type, d.source, d.schema, d.profile"
            " FROM inputs i JOIN datasets d ON d.id = i.dataset WHERE i.run",
            keys,
            ordered=False,
        )
        if not rows:
            return {}
        tags: Dict[Tuple[int, int], Dict[str, str]] = {}
        for run, dataset, key, value in self._by_keys(
            "SELECT run, dataset, key, value FROM input_tags WHERE run", keys, ordered=False
        ):
            tags.setdefault((run, dataset), {})[key] = value
        result: Dict[int, List[DatasetInput]] = {}
        for run, dataset, *fields in rows:
            result.setdefault(run, []).append(DatasetInput(Dataset(*fields), tags.get((run, dataset), {})))
        return result

    def _models_of(
        self, keys: Sequence[int]
    ) -> Tuple[Dict[int, List[LoggedModelOutput]], Dict[int, List[LoggedModelInput]]]:
        made: Dict[int, List[LoggedModelOutput]] = {}
        read: Dict[int, List[LoggedModelInput]] = {}
        rows = self._by_keys("SELECT run, role, model_id, step FROM run_models WHERE run", keys, ordered=False)
        for run, role, model_id, step in sorted(rows, key=lambda row: (row[3], row[2])):
            if role == "output":
                made.setdefault(run, []).append(LoggedModelOutput(model_id, step))
            else:
                read.setdefault(run, []).append(LoggedModelInput(model_id))
        return made, read

    def _points(self, run_id: str, key: str) -> List[Tuple[int, int, float, int]]:
        row = self.database.one(
            "SELECT r.id, s.id FROM runs r LEFT JOIN series s ON s.run = r.id AND s.key = :key WHERE r.run_id = :run_id",
            {"run_id": run_id, "key": key},
        )
        if row is None:
            raise NotFound(f"there is no run {run_id!r}", hint="`mlcli runs list` shows what there is")
        if row[1] is None:
            return []
        points: List[Any] = self.database.query(
            "SELECT step, timestamp, value, is_nan FROM metrics WHERE series = :series"
            " ORDER BY step, timestamp, value, is_nan",
            {"series": row[1]},
        )
        return points

    # -- small pieces

    def _nth_latest(self, reference: str) -> str:
        back = reference.partition("~")[2] or "0"
        if not (back.isascii() and back.isdigit() and len(back) < 10):
            raise InvalidInput(f"{reference!r} is not a run", hint="`latest~1` is the run before the latest")
        # The candidates that autolog keeps of a search begin in the millisecond of the search itself: it goes before them.
        row = self.database.one(
            "SELECT run_id FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC, EXISTS"
            " (SELECT 1 FROM tags WHERE tags.run = runs.id AND tags.key = :parent), id DESC LIMIT 1 OFFSET :back",
            {"back": int(back), "parent": PARENT_RUN},
        )
        if row is None:
            raise NotFound("there are no runs yet" if back == "0" else f"there are not {int(back) + 1} runs yet")
        return str(row[0])

    def _active_run(self, run_id: str) -> int:
        row = self.database.one("SELECT id, lifecycle_stage FROM runs WHERE run_id = :run_id", {"run_id": run_id})
        if row is None:
            raise NotFound(f"there is no run {run_id!r}", hint="`mlcli runs list` shows what there is")
        if row[1] != LifecycleStage.ACTIVE:
            raise InvalidState(f"run {run_id} is deleted", hint=f"`mlcli runs restore {run_id}` brings it back")
        return int(row[0])

    def _set_stage(self, run_id: str, stage: str, deleted_time: Optional[int]) -> None:
        self.absorb()
        with self.database.transaction():
            if not self.database.execute(
                "UPDATE runs SET lifecycle_stage = :stage, deleted_time = :time WHERE run_id = :run_id",
                {"run_id": run_id, "stage": stage, "time": deleted_time},
            ):
                raise NotFound(f"there is no run {run_id!r}", hint="`mlcli runs list` shows what there is")

    def _experiment_named(self, name: str) -> Optional[int]:
        row = self.database.one(
            "SELECT id FROM experiments WHERE name = :name AND lifecycle_stage = 'active'", {"name": name}
        )
        return None if row is None else int(row[0])

    def _active_experiment(self, experiment_id: str) -> Experiment:
        found = self.get_experiment(experiment_id)
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise InvalidState(
                f"experiment {found.experiment_id} ({found.name!r}) is deleted",
                hint=f"`mlcli experiments restore {found.experiment_id}` brings it back",
            )
        return found

    def _touch_experiment(self, experiment_id: str, change: str, params: Mapping[str, Any]) -> None:
        self.database.execute(
            f"UPDATE experiments SET {change}, last_update_time = :now WHERE id = :id",
            {**params, "id": experiment_key(experiment_id), "now": journal.now()},
        )

    def _set_experiment_tag(self, experiment: int, key: str, value: object) -> None:
        self.database.execute(
            "INSERT INTO experiment_tags (experiment, key, value) VALUES (:id, :key, :value)"
            " ON CONFLICT (experiment, key) DO UPDATE SET value = excluded.value",
            {
                "id": experiment,
                "key": rules.key(key, "tag"),
                "value": rules.text(value, f"the value of tag {key!r}", rules.MAX_EXPERIMENT_TAG_VALUE),
            },
        )


def _model_history(text: str) -> List[Any]:
    try:
        models = json.loads(text or "[]")
    except ValueError:
        models = []
    return models if isinstance(models, list) else []


def remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:  # it is not empty, or was never made
        pass


def remove_folder(path: str) -> None:
    import shutil

    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreUnavailable(
            f"cannot remove {path}: {error.strerror}",
            hint="its record is gone; mend the rights and try `mlcli gc` again",
        ) from error


def _artifact_location(location: Optional[str]) -> Optional[str]:
    """A folder for artifacts outside the store, absolute. Fragments, queries and foreign schemes are refused."""
    if not location:
        return None
    text = rules.text(location, "the artifact location", rules.MAX_ARTIFACT_LOCATION)
    path = text[len("file://") :] if text.startswith("file:///") else text
    scheme = path.split(":", 1)[0]
    if ":" in path and len(scheme) > 1 and scheme.isalnum():
        raise InvalidInput(f"artifacts cannot be kept at {location!r}", hint="give a folder, or file:///folder")
    if any(sign in path for sign in "?#;\0") or ".." in path.replace("\\", "/").split("/"):
        raise InvalidInput(f"{location!r} is not a plain folder", hint="no '..', '?', '#' or ';'")
    return os.path.abspath(path)
