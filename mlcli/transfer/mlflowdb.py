"""MLflow's SQLite database, of any version with the tables we know: read, never written, never migrated."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from mlcli.entities import Dataset, DatasetInput
from mlcli.errors import StoreUnavailable
from mlcli.store.bulk import Points
from mlcli.transfer.files import Elsewhere, Folder, locate
from mlcli.transfer.filestore import MODEL_STATUS
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

RUNS_AT_ONCE = 200


class MlflowDatabase:
    """A file such as ``mlflow.db``. What a version of MLflow did not have yet is passed over."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.folder = os.path.dirname(self.path)
        self.about = f"MLflow's database {self.path}"
        self._missing: set[str] = set()
        # With a log beside it SQLite must be let to read that; without one nothing changes under us.
        mode = "mode=ro" if os.path.exists(self.path + "-wal") else "mode=ro&immutable=1"
        quoted = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        try:
            self._raw = sqlite3.connect(f"file:{quoted}?{mode}", uri=True)
            self._raw.row_factory = sqlite3.Row
            self._columns = {
                name: {row[1] for row in self._raw.execute(f"PRAGMA table_info({name})")}
                for (name,) in self._raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot read {self.path}: {error}") from error
        if not {"experiments", "runs", "metrics", "params", "tags"} <= set(self._columns):
            self._raw.close()
            raise StoreUnavailable(
                f"{self.path} is not a database of MLflow's", hint="it lacks the tables experiments, runs, metrics"
            )

    def close(self) -> None:
        self._raw.close()

    def experiments(self, tell: Tell) -> Sequence[ExperimentRecord]:
        tags: dict[int, dict[str, str]] = {}
        for row in self._rows("experiment_tags"):
            tags.setdefault(row["experiment_id"], {})[row["key"]] = str(row["value"])
        found = []
        for row in self._rows("experiments", "ORDER BY experiment_id"):
            values = dict(row)
            workspace = values.get("workspace", "default")
            if workspace != "default":
                tell(Trouble(f"experiment {values['name']}", f"it comes from the workspace {workspace!r}", False))
            found.append(
                ExperimentRecord(
                    str(values["experiment_id"]),
                    values["name"],
                    values["lifecycle_stage"],
                    values.get("creation_time"),
                    values.get("last_update_time"),
                    tags.get(values["experiment_id"], {}),
                )
            )
        traces = sum(1 for _ in self._rows("trace_info"))
        if traces:
            tell(Trouble("traces", f"there are {traces}, which mlcli does not keep", False))
        return found

    def run_ids(self, experiment: ExperimentRecord) -> Sequence[str]:
        return [
            row[0]
            for row in self._query(
                "SELECT run_uuid FROM runs WHERE experiment_id = ? ORDER BY start_time, run_uuid",
                (int(experiment.experiment_id),),
            )
        ]

    def runs(self, experiment: ExperimentRecord, tell: Tell, known: Container[str]) -> Iterator[RunRecord]:
        wanted = [run_id for run_id in self.run_ids(experiment) if run_id not in known]
        for start in range(0, len(wanted), RUNS_AT_ONCE):
            yield from self._some(wanted[start : start + RUNS_AT_ONCE], experiment, tell)

    def _some(self, run_ids: Sequence[str], experiment: ExperimentRecord, tell: Tell) -> Iterator[RunRecord]:
        params = self._named("params", run_ids)
        tags = self._named("tags", run_ids)
        metrics = self._metrics(run_ids)
        inputs = self._inputs(run_ids)
        outputs = self._model_links("RUN_OUTPUT", run_ids)
        read = self._model_links("RUN_INPUT", run_ids)
        rows = {row["run_uuid"]: dict(row) for row in self._in("SELECT * FROM runs WHERE run_uuid", run_ids)}
        for run_id in run_ids:
            values = rows[run_id]
            try:
                yield RunRecord(
                    run_id,
                    experiment.experiment_id,
                    values.get("name") or "",
                    values.get("user_id") or "",
                    values["status"],
                    values["start_time"],
                    values["end_time"],
                    values["lifecycle_stage"],
                    values.get("deleted_time"),
                    params.get(run_id, {}),
                    tags.get(run_id, {}),
                    metrics.get(run_id, {}),
                    inputs.get(run_id, []),
                    outputs.get(run_id, []),
                    [model for model, _ in read.get(run_id, [])],
                    self._files(values.get("artifact_uri"), run_id, tags.get(run_id, {}), tell),
                )
            except (KeyError, TypeError, ValueError) as error:
                tell(Trouble(f"run {run_id}", f"its row makes no sense: {error}"))

    def models(self, experiment: ExperimentRecord, tell: Tell) -> Iterator[ModelRecord]:
        key = int(experiment.experiment_id)
        if "logged_models" not in self._columns:
            return
        for row in self._query("SELECT * FROM logged_models WHERE experiment_id = ?", (key,)):
            values = dict(row)
            model_id = values["model_id"]
            yield ModelRecord(
                model_id,
                experiment.experiment_id,
                values["name"],
                MODEL_STATUS.get(values["status"], "READY"),
                values["creation_timestamp_ms"],
                values["last_updated_timestamp_ms"],
                values.get("source_run_id"),
                values.get("model_type"),
                values.get("status_message"),
                values.get("lifecycle_stage") or "active",
                self._of_model("logged_model_params", "param_key, param_value", model_id),
                self._of_model("logged_model_tags", "tag_key, tag_value", model_id),
                [
                    tuple(point)
                    for point in self._query(
                        "SELECT metric_name, metric_value, metric_timestamp_ms, metric_step, run_id, dataset_name,"
                        " dataset_digest FROM logged_model_metrics WHERE model_id = ?",
                        (model_id,),
                    )
                ],
                self._files(values.get("artifact_location"), model_id, {}, tell),
            )

    def registry(self, tell: Tell) -> Iterator[RegisteredRecord]:  # noqa: ARG002
        tags: dict[str, dict[str, str]] = {}
        aliases: dict[str, dict[str, int]] = {}
        versions: dict[str, list[VersionRecord]] = {}
        version_tags: dict[tuple[str, int], dict[str, str]] = {}
        for row in self._rows("registered_model_tags"):
            tags.setdefault(row["name"], {})[row["key"]] = str(row["value"])
        for row in self._rows("registered_model_aliases"):
            aliases.setdefault(row["name"], {})[row["alias"]] = row["version"]
        for row in self._rows("model_version_tags"):
            version_tags.setdefault((row["name"], row["version"]), {})[row["key"]] = str(row["value"])
        for row in self._rows("model_versions", "ORDER BY name, version"):
            values = dict(row)
            source = values.get("source") or ""
            versions.setdefault(values["name"], []).append(
                VersionRecord(
                    values["version"],
                    values["creation_time"] or 0,
                    values["last_updated_time"] or values["creation_time"] or 0,
                    source,
                    values.get("run_id"),
                    values.get("description"),
                    values.get("user_id"),
                    values.get("current_stage") or "None",
                    values.get("status") or "READY",
                    values.get("status_message"),
                    values.get("run_link"),
                    source[len("models:/") :] if source.startswith("models:/m-") else None,
                    version_tags.get((values["name"], values["version"]), {}),
                )
            )
        for row in self._rows("registered_models", "ORDER BY name"):
            name = row["name"]
            some = versions.get(name, [])
            yield RegisteredRecord(
                name,
                row["creation_time"] or 0,
                row["last_updated_time"] or row["creation_time"] or 0,
                row["description"],
                tags.get(name, {}),
                aliases.get(name, {}),
                some,
                max((item.version for item in some), default=0),
            )

    def _metrics(self, run_ids: Sequence[str]) -> dict[str, dict[str, Points]]:
        columns: dict[tuple[str, str], tuple[list[int], list[int], list[float], list[int]]] = {}
        has_nan = "is_nan" in self._columns["metrics"]
        has_step = "step" in self._columns["metrics"]
        nan, step = "is_nan" if has_nan else "0", "step" if has_step else "0"
        marks = ", ".join("?" * len(run_ids))
        cursor = self._raw.cursor()
        cursor.row_factory = None
        try:
            rows = cursor.execute(
                f"SELECT run_uuid, key, {step}, timestamp, value, {nan} FROM metrics WHERE run_uuid IN ({marks})",
                run_ids,
            ).fetchall()
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        for run_id, key, step_, time, value, is_nan in rows:
            found = columns.get((run_id, key))
            if found is None:
                found = columns[run_id, key] = ([], [], [], [])
            found[0].append(step_)
            found[1].append(time)
            found[2].append(0.0 if is_nan else value)
            found[3].append(1 if is_nan else 0)
        result: dict[str, dict[str, Points]] = {}
        for (run_id, key), (steps, times, values, nans) in columns.items():
            result.setdefault(run_id, {})[key] = Points(steps, times, values, nans if any(nans) else None)
        return result

    def _named(self, table: str, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for run_id, key, value in self._in(f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid", run_ids):
            found.setdefault(run_id, {})[key] = "" if value is None else str(value)
        return found

    def _inputs(self, run_ids: Sequence[str]) -> dict[str, list[DatasetInput]]:
        if "inputs" not in self._columns or "datasets" not in self._columns:
            return {}
        tags: dict[str, dict[str, str]] = {}
        found: dict[str, list[DatasetInput]] = {}
        rows = self._in(
            "SELECT i.destination_id, i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source,"
            " d.dataset_schema, d.dataset_profile FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
            " WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id",
            run_ids,
        )
        for input_id, name, value in self._in(
            "SELECT input_uuid, name, value FROM input_tags WHERE input_uuid", [row[1] for row in rows]
        ):
            tags.setdefault(input_id, {})[name] = value
        for run_id, input_id, *fields in rows:
            found.setdefault(run_id, []).append(DatasetInput(Dataset(*fields), tags.get(input_id, {})))
        return found

    def _model_links(self, kind: str, run_ids: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        if "step" not in self._columns.get("inputs", set()):
            return {}
        found: dict[str, list[tuple[str, int]]] = {}
        rows = self._in(
            f"SELECT source_id, destination_id, step FROM inputs WHERE source_type = '{kind}' AND source_id", run_ids
        )
        for run_id, model_id, step in rows:
            found.setdefault(run_id, []).append((model_id, step or 0))
        return found

    def _of_model(self, table: str, columns: str, model_id: str) -> dict[str, str]:
        return {
            row[0]: str(row[1]) for row in self._query(f"SELECT {columns} FROM {table} WHERE model_id = ?", (model_id,))
        }

    def _files(self, uri: str | None, owner: str, tags: Mapping[str, str], tell: Tell) -> Files | None:
        """The files of a run; a folder that is missing is no loss as long as nothing says that there was something in it."""
        found = locate_beside(self.folder, uri, owner)
        if not (isinstance(found, Elsewhere) and found.local) or "mlflow.log-model.history" in tags:
            return found
        base = os.path.dirname(os.path.dirname(found.uri))
        if not os.path.isdir(base) and base not in self._missing:
            self._missing.add(base)
            tell(Trouble(base, "there is no such folder: if its runs had artifacts, they did not come", False))
        return Folder("")

    def _rows(self, table: str, order: str = "") -> Iterator[sqlite3.Row]:
        if table in self._columns:
            yield from self._query(f"SELECT * FROM {table} {order}")

    def _in(self, select: str, values: Sequence[str]) -> list[Any]:
        rows: list[Any] = []
        for start in range(0, len(values), 500):
            some = values[start : start + 500]
            rows += self._query(f"{select} IN ({', '.join('?' * len(some))})", some)
        return rows

    def _query(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._raw.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.Error) -> StoreUnavailable:
        return StoreUnavailable(f"cannot read {self.path}: {error}", hint="nothing was changed in it")


def locate_beside(folder: str, uri: str | None, owner: str) -> Files | None:
    """Files whose URI MLflow noted in a database: by the folders beside the database first, for one that was moved."""
    near = [
        os.path.join(folder, scheme, *uri.rpartition(f"/{scheme}/")[2].split("/"))
        for scheme in ("mlruns", "mlartifacts")
        if uri and f"/{scheme}/" in uri
    ]
    if uri and uri.startswith("mlflow-artifacts:"):
        path = uri.partition(":")[2]
        below = path[2:].partition("/")[2] if path.startswith("//") else path.lstrip("/")
        near += [os.path.join(folder, name, *below.split("/")) for name in ("mlartifacts", "mlruns")]
    inside = os.path.realpath(folder) + os.sep
    return locate(uri, owner, tuple(path for path in near if os.path.realpath(path).startswith(inside)))
