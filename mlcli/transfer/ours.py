"""A store of ours as a source: all of it, or chosen runs with what belongs to them."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterator, Sequence
from typing import Any

from mlcli.artifacts import open_artifacts
from mlcli.entities import Run
from mlcli.errors import MlcliError
from mlcli.store import Store, open_store
from mlcli.store.bulk import Points
from mlcli.transfer.files import Elsewhere, Folder
from mlcli.transfer.records import (
    ExperimentRecord,
    Files,
    ModelRecord,
    RegisteredRecord,
    RunRecord,
    Tell,
    Trouble,
    VersionRecord,
)

RUNS_AT_ONCE = 500


class OurStore:
    """The store in ``folder``; with ``only``, just those runs, their experiments, their models."""

    def __init__(self, folder: str, *, store: Store | None = None, only: Collection[str] | None = None) -> None:
        self.about = f"the store {os.path.abspath(folder)}"
        self._given = store is not None
        self.store = store or open_store(folder, create=False)
        self.database = self.store.database
        self.only = only

    def close(self) -> None:
        if not self._given:
            self.store.close()

    def experiments(self, tell: Tell) -> Sequence[ExperimentRecord]:  # noqa: ARG002
        self.store.absorb()
        tags: dict[int, dict[str, str]] = {}
        for key, name, value in self.database.query("SELECT experiment, key, value FROM experiment_tags"):
            tags.setdefault(key, {})[name] = value
        wanted = None
        if self.only is not None:
            rows = self.database.query("SELECT run_id, experiment FROM runs")
            wanted = {experiment for run_id, experiment in rows if run_id in self.only}
        return [
            ExperimentRecord(str(key), name, stage, created, updated, tags.get(key, {}))
            for key, name, stage, created, updated in self.database.query(
                "SELECT id, name, lifecycle_stage, creation_time, last_update_time FROM experiments ORDER BY id"
            )
            if wanted is None or key in wanted
        ]

    def run_ids(self, experiment: ExperimentRecord) -> Sequence[str]:
        rows = self.database.query(
            "SELECT run_id FROM runs WHERE experiment = :id ORDER BY id", {"id": int(experiment.experiment_id)}
        )
        return [row[0] for row in rows if self.only is None or row[0] in self.only]

    def runs(self, experiment: ExperimentRecord, tell: Tell, known: Container[str]) -> Iterator[RunRecord]:
        wanted = [run_id for run_id in self.run_ids(experiment) if run_id not in known]
        for start in range(0, len(wanted), RUNS_AT_ONCE):
            some = wanted[start : start + RUNS_AT_ONCE]
            rows = self._in("SELECT run_id, id, deleted_time FROM runs WHERE run_id", some)
            keys = {run_id: (key, deleted) for run_id, key, deleted in rows}
            points = self._points([key for key, _ in keys.values()])
            for run_id in some:
                if run_id not in keys:  # gone meanwhile
                    tell(Trouble(f"run {run_id}", "it was removed while it was read"))
                    continue
                key, deleted = keys[run_id]
                yield _record(self.store.get_run(run_id), deleted, points.get(key, {}))

    def models(self, experiment: ExperimentRecord, tell: Tell) -> Iterator[ModelRecord]:  # noqa: ARG002
        location = self.store.get_experiment(experiment.experiment_id).artifact_location.rstrip("/")
        rows = self.database.query(
            "SELECT id, model_id, name, status, creation_time, last_updated_time, source_run_id, model_type, status_message,"
            " lifecycle_stage FROM logged_models WHERE experiment = :id ORDER BY id",
            {"id": int(experiment.experiment_id)},
        )
        for key, model_id, name, status, created, updated, run_id, kind, message, stage in rows:
            if self.only is not None and run_id not in self.only:
                continue
            values = {"id": key}
            metrics = self.database.query(
                "SELECT key, value, timestamp, step, run_id, dataset_name, dataset_digest, is_nan FROM logged_model_metrics"
                " WHERE model = :id",
                values,
            )
            yield ModelRecord(
                model_id,
                experiment.experiment_id,
                name,
                status,
                created,
                updated,
                run_id or None,
                kind or None,
                message or None,
                stage,
                dict(self.database.query("SELECT key, value FROM logged_model_params WHERE model = :id", values)),
                dict(self.database.query("SELECT key, value FROM logged_model_tags WHERE model = :id", values)),
                [(row[0], float("nan") if row[7] else row[1], *row[2:7]) for row in metrics],
                _files(f"{location}/models/{model_id}/artifacts"),
            )

    def registry(self, tell: Tell) -> Iterator[RegisteredRecord]:  # noqa: ARG002
        models = self.database.query(
            "SELECT id, name, creation_time, last_updated_time, description, highest_version FROM registered_models"
            " ORDER BY id"
        )
        for key, name, created, updated, description, highest in models:
            values = {"id": key}
            versions = [version for version in self._versions(key) if self.only is None or version.run_id in self.only]
            if self.only is not None and not versions:
                continue
            numbers = {version.version for version in versions}
            aliases = self.database.query(
                "SELECT alias, version FROM registered_model_aliases WHERE model = :id", values
            )
            yield RegisteredRecord(
                name,
                created,
                updated,
                description,
                dict(self.database.query("SELECT key, value FROM registered_model_tags WHERE model = :id", values)),
                {alias: version for alias, version in aliases if version in numbers},
                versions,
                highest,
            )

    def _versions(self, model: int) -> Iterator[VersionRecord]:
        rows = self.database.query(
            "SELECT id, version, creation_time, last_updated_time, source, run_id, description, user_id, stage, status,"
            " status_message, run_link, model_id FROM model_versions WHERE model = :id ORDER BY version",
            {"id": model},
        )
        for key, *fields in rows:
            tags = self.database.query("SELECT key, value FROM model_version_tags WHERE version = :id", {"id": key})
            yield VersionRecord._make([*fields, dict(tags)])

    def _points(self, keys: Sequence[int]) -> dict[int, dict[str, Points]]:
        columns: dict[tuple[int, str], tuple[list[int], list[int], list[float], list[int]]] = {}
        some = ", ".join(map(str, keys))
        rows = self.database.iterate(
            "SELECT s.run, s.key, m.step, m.timestamp, m.value, m.is_nan FROM series s JOIN metrics m ON m.series = s.id"
            f" WHERE s.run IN ({some})"
        )
        for run, key, step, time, value, is_nan in rows:
            found = columns.get((run, key))
            if found is None:
                found = columns[run, key] = ([], [], [], [])
            found[0].append(step)
            found[1].append(time)
            found[2].append(value)
            found[3].append(is_nan)
        result: dict[int, dict[str, Points]] = {}
        for (run, key), (steps, times, values, nans) in columns.items():
            result.setdefault(run, {})[key] = Points(steps, times, values, nans if any(nans) else None)
        return result

    def _in(self, select: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        names = {f"v{place}": value for place, value in enumerate(values)}
        return self.database.query(f"{select} IN ({', '.join(':' + name for name in names)})", names)


def _record(run: Run, deleted_time: int | None, metrics: dict[str, Points]) -> RunRecord:
    info = run.info
    return RunRecord(
        info.run_id,
        info.experiment_id,
        info.run_name,
        info.user_id,
        info.status,
        info.start_time,
        info.end_time,
        info.lifecycle_stage,
        deleted_time,
        run.data.params,
        run.data.tags,
        metrics,
        run.inputs.dataset_inputs,
        [(model.model_id, model.step) for model in run.outputs.model_outputs],
        [model.model_id for model in run.inputs.model_inputs],
        _files(info.artifact_uri),
    )


def _files(uri: str) -> Files:
    try:
        path = open_artifacts(uri).root
    except MlcliError as error:
        return Elsewhere(uri, error.message)
    return Folder(path if os.path.isdir(path) else "")
