"""MLflow's file store: a folder of folders, one small file per param, tag and metric."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import yaml

from mlcli.entities import Dataset, DatasetInput
from mlcli.errors import InvalidInput
from mlcli.store.bulk import Points
from mlcli.transfer.files import locate
from mlcli.transfer.records import (
    ExperimentRecord,
    ModelRecord,
    RegisteredRecord,
    RunRecord,
    Tell,
    Trouble,
    VersionRecord,
)

STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
MODEL_STATUS = {0: "UNSPECIFIED", 1: "PENDING", 2: "READY", 3: "FAILED"}
TRASH = ".trash"
_NOT_RUNS = frozenset(("tags", "datasets", "traces", "models", "assessments"))
_PLAIN = re.compile(r"[A-Za-z0-9_./][^\s#'\"]*(?: [^\s#:'\"]+)*\Z")
_WORDS = {"null": None, "true": True, "false": False}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FileStore:
    """The folder ``mlruns`` as MLflow wrote it; also one that lies in a store of ours, whose own folders are passed over."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.about = f"MLflow's file store {self.folder}"
        self._shared = os.path.exists(os.path.join(self.folder, "mlcli.db"))
        self._places: dict[str, str] = {}

    @staticmethod
    def looks_like(folder: str) -> bool:
        """Whether there is an experiment of MLflow's in the folder."""
        for base in (folder, os.path.join(folder, TRASH)):
            try:
                with os.scandir(base) as entries:
                    names = [entry.name for entry in entries]
            except OSError:
                continue
            if any(name.isdigit() and os.path.exists(os.path.join(base, name, "meta.yaml")) for name in sorted(names)):
                return True
        return False

    def close(self) -> None:
        """Nothing is held open."""

    def experiments(self, tell: Tell) -> Sequence[ExperimentRecord]:
        found = []
        for base in (self.folder, os.path.join(self.folder, TRASH)):
            for name in _folders(base):
                if name[0] == "." or (base == self.folder and name in ("models", "live")):
                    continue
                place = os.path.join(base, name)
                record = self._experiment(place, name, tell)
                if record is not None:
                    self._places[record.experiment_id] = place
                    found.append(record)
        return found

    def run_ids(self, experiment: ExperimentRecord) -> Sequence[str]:
        names = _folders(self._places[experiment.experiment_id])
        return [name for name in names if name not in _NOT_RUNS and name[0] != "."]

    def runs(self, experiment: ExperimentRecord, tell: Tell, known: Container[str]) -> Iterator[RunRecord]:
        place = self._places[experiment.experiment_id]
        datasets = _datasets(place, tell)
        traces = len(_folders(os.path.join(place, "traces")))
        if traces:
            tell(Trouble(f"experiment {experiment.name}", f"it has {traces} traces, which mlcli does not keep", False))
        for name in self.run_ids(experiment):
            if name in known:
                continue
            folder = os.path.join(place, name)
            try:
                text = _text(os.path.join(folder, "meta.yaml"))
            except FileNotFoundError:
                if not self._shared and _folders(folder) != ["artifacts"]:
                    tell(Trouble(f"run {name}", "its folder has no meta.yaml"))
                continue
            except OSError as error:
                tell(Trouble(f"run {name}", f"its meta.yaml cannot be read: {error.strerror}"))
                continue
            try:
                yield self._run(folder, name, experiment, meta(text), datasets, tell)
            except (InvalidInput, OSError, ValueError, TypeError) as error:
                tell(Trouble(f"run {name}", _why(error)))

    def models(self, experiment: ExperimentRecord, tell: Tell) -> Iterator[ModelRecord]:
        base = os.path.join(self._places[experiment.experiment_id], "models")
        for name in _folders(base):
            folder = os.path.join(base, name)
            try:
                values = meta(_text(os.path.join(folder, "meta.yaml")))
                yield ModelRecord(
                    str(values.get("model_id") or name),
                    experiment.experiment_id,
                    str(values.get("name") or name),
                    MODEL_STATUS.get(values.get("status", 2), "READY"),
                    int(values["creation_timestamp"]),
                    int(values.get("last_updated_timestamp") or values["creation_timestamp"]),
                    values.get("source_run_id"),
                    values.get("model_type"),
                    values.get("status_message"),
                    str(values.get("lifecycle_stage") or "active"),
                    _values(os.path.join(folder, "params"), tell),
                    _values(os.path.join(folder, "tags"), tell),
                    list(_model_points(os.path.join(folder, "metrics"), name, tell)),
                    locate(values.get("artifact_location"), name, (os.path.join(folder, "artifacts"),)),
                )
            except (InvalidInput, OSError, ValueError, KeyError, TypeError) as error:
                tell(Trouble(f"logged model {name}", _why(error)))

    def registry(self, tell: Tell) -> Iterator[RegisteredRecord]:
        base = os.path.join(self.folder, "models")
        for folder_name in _folders(base):
            folder = os.path.join(base, folder_name)
            try:
                values = meta(_text(os.path.join(folder, "meta.yaml")))
                name = str(values.get("name") or folder_name)
                versions = list(_versions(folder, name, tell))
                aliases = {key: int(text) for key, text in _values(os.path.join(folder, "aliases"), tell).items()}
                yield RegisteredRecord(
                    name,
                    int(values["creation_timestamp"]),
                    int(values.get("last_updated_timestamp") or values["creation_timestamp"]),
                    values.get("description"),
                    _values(os.path.join(folder, "tags"), tell),
                    aliases,
                    versions,
                    max((item.version for item in versions), default=0),
                )
            except (InvalidInput, OSError, ValueError, KeyError, TypeError) as error:
                tell(Trouble(f"registered model {folder_name}", _why(error)))

    def _experiment(self, place: str, name: str, tell: Tell) -> ExperimentRecord | None:
        try:
            values = meta(_text(os.path.join(place, "meta.yaml")))
            return ExperimentRecord(
                str(values.get("experiment_id", name)),
                str(values["name"]),
                str(values.get("lifecycle_stage") or "active"),
                values.get("creation_time"),
                values.get("last_update_time"),
                _values(os.path.join(place, "tags"), tell),
            )
        except FileNotFoundError:
            if not (self._shared or _holds_artifacts_only(place)):
                tell(Trouble(f"experiment {name}", f"{place} has no meta.yaml"))
        except (InvalidInput, OSError, ValueError, KeyError, TypeError) as error:
            why = "its meta.yaml has no name" if isinstance(error, KeyError) else _why(error)
            tell(Trouble(f"experiment {name}", why))
        return None

    def _run(
        self,
        folder: str,
        run_id: str,
        experiment: ExperimentRecord,
        values: Mapping[str, Any],
        datasets: Mapping[str, Dataset],
        tell: Tell,
    ) -> RunRecord:
        missing = [name for name in ("status", "start_time") if name not in values]
        if missing:  # MLflow writes this file in place: one of a run that was killed may be cut
            raise InvalidInput(f"its meta.yaml lacks {missing[0]!r}: was it cut?")
        here = set(_folders(folder))
        params = _values(os.path.join(folder, "params"), tell) if "params" in here else {}
        tags = _values(os.path.join(folder, "tags"), tell) if "tags" in here else {}
        metrics: dict[str, Points] = {}
        if "metrics" in here:
            for key, path in _walk(os.path.join(folder, "metrics")):
                points = parse_metric(
                    _bytes(path), lambda why, key=key: tell(Trouble(f"run {run_id}", f"metric {key}: {why}"))
                )
                if points.steps:
                    metrics[key] = points
        inputs, outputs, model_inputs = [], [], []
        for _, link in _links(os.path.join(folder, "inputs"), run_id, tell) if "inputs" in here else ():
            source = str(link.get("source_id"))
            if link.get("source_type") == "DATASET" and source in datasets:
                link_tags = {str(key): str(value) for key, value in (link.get("tags") or {}).items()}
                inputs.append(DatasetInput(datasets[source], link_tags))
            elif link.get("source_type") == "DATASET":
                tell(Trouble(f"run {run_id}", f"the dataset {source} that it read is not described"))
            else:
                model_inputs.append(str(link.get("destination_id") or source))
        for name, link in _links(os.path.join(folder, "outputs"), run_id, tell) if "outputs" in here else ():
            outputs.append((str(link.get("destination_id") or name), int(link.get("step") or 0)))
        status = values["status"]
        return RunRecord(
            str(values.get("run_id") or values.get("run_uuid") or run_id),
            experiment.experiment_id,
            str(values.get("run_name") or values.get("name") or ""),
            str(values.get("user_id") or ""),
            STATUS[status] if status in STATUS else str(status),
            values.get("start_time"),
            values.get("end_time"),
            str(values.get("lifecycle_stage") or "active"),
            values.get("deleted_time"),
            params,
            tags,
            metrics,
            inputs,
            outputs,
            model_inputs,
            locate(values.get("artifact_uri"), run_id, (os.path.join(folder, "artifacts"),)),
        )


def _holds_artifacts_only(place: str) -> bool:
    """Whether a folder is where a database keeps the files of an experiment: MLflow's own default is in `mlruns` too."""
    folders = [
        os.path.join(place, name, below) if name == "models" else os.path.join(place, name)
        for name in _folders(place)
        for below in (_folders(os.path.join(place, name)) if name == "models" else [""])
    ]
    return bool(folders) and all(_folders(folder) == ["artifacts"] for folder in folders)


def meta(text: str) -> Mapping[str, Any]:
    """The content of a meta.yaml; flat and plain ones, which nearly all are, without a YAML parser: 20 times faster."""
    found: dict[str, Any] = {}
    for line in text.split("\n"):
        key, separator, value = line.partition(": ")
        if not separator or not key.isidentifier():
            if line:
                return _yaml(text)
        elif value.isdigit() and len(value) < 19:
            found[key] = int(value)
        elif value[:1] == "'" and value[-1:] == "'" and len(value) > 1 and "'" not in value[1:-1]:
            found[key] = value[1:-1]
        elif value in _WORDS:
            found[key] = _WORDS[value]
        elif value == "[]":
            found[key] = []
        elif (
            (_PLAIN.match(value) and value.lower() not in _ODD and not value[0].isdigit())
            or _HEX.match(value)
            or _FILE.match(value)
        ):
            found[key] = value
        else:
            return _yaml(text)
    return found or _yaml(text)


_ODD = frozenset(("yes", "no", "on", "off", "y", "n", "true", "false", "null", ".nan", ".inf", "~"))
_HEX = re.compile(
    r"(?=[0-9]*[a-df])[0-9a-f]{32}\Z"
)  # run ids; one in a million has the shape of a number, and is quoted
_FILE = re.compile(r"(?:file://)?/[\w/.+-]+\Z")


def _yaml(text: str) -> Mapping[str, Any]:
    try:
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader either way
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark is not None else ""
        raise InvalidInput(f"its meta.yaml is no YAML: {getattr(error, 'problem', None) or error}{place}") from None
    if not isinstance(found, dict):
        raise InvalidInput("its meta.yaml holds no names and values" if found else "its meta.yaml is empty")
    return found


def parse_metric(data: bytes, tell: Any) -> Points:
    """The points of a metric file: lines of timestamp, value, step, and perhaps more."""
    fields = data.split()
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    if len(fields) == 3 * lines:
        try:
            values = list(map(float, fields[1::3]))
            total = sum(values)
            if total - total == 0.0:
                return Points(list(map(int, fields[2::3])), list(map(int, fields[0::3])), values)
        except ValueError:
            pass
    steps: list[int] = []
    times: list[int] = []
    values = []
    nans: list[int] = []
    for place, line in enumerate(data.split(b"\n"), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            time, value = int(parts[0]), float(parts[1])
            step = int(parts[2]) if len(parts) > 2 else 0
        except (ValueError, IndexError):
            tell(f"line {place} is not a point: {line[:60]!r}")
            continue
        is_nan = value != value  # noqa: PLR0124 - NaN is the one value unequal to itself
        steps.append(step)
        times.append(time)
        values.append(0.0 if is_nan else value)
        nans.append(int(is_nan))
    return Points(steps, times, values, nans if any(nans) else None)


def _model_points(
    folder: str, name: str, tell: Tell
) -> Iterator[tuple[str, float, int, int, str | None, str | None, str | None]]:
    for key, path in _walk(folder):
        for place, line in enumerate(_text(path).split("\n"), 1):
            parts = line.split()
            if not parts:
                continue
            try:
                more: list[str | None] = [*parts[3:6], None, None, None]
                yield key, float(parts[1]), int(parts[0]), int(parts[2]), more[0], more[1], more[2]
            except (ValueError, IndexError):
                tell(Trouble(f"logged model {name}", f"metric {key}: line {place} is not a point: {line[:60]!r}"))


def _versions(folder: str, name: str, tell: Tell) -> Iterator[VersionRecord]:
    for version in _folders(folder):
        if not version.startswith("version-"):
            continue
        try:
            values = meta(_text(os.path.join(folder, version, "meta.yaml")))
            yield VersionRecord(
                int(values["version"]),
                int(values["creation_timestamp"]),
                int(values.get("last_updated_timestamp") or values["creation_timestamp"]),
                str(values.get("source") or ""),
                values.get("run_id"),
                values.get("description"),
                values.get("user_id"),
                str(values.get("current_stage") or "None"),
                str(values.get("status") or "READY"),
                values.get("status_message"),
                values.get("run_link"),
                values.get("model_id"),
                _values(os.path.join(folder, version, "tags"), tell),
            )
        except (InvalidInput, OSError, ValueError, KeyError, TypeError) as error:
            tell(Trouble(f"registered model {name}, {version}", _why(error)))


def _datasets(place: str, tell: Tell) -> dict[str, Dataset]:
    found = {}
    base = os.path.join(place, "datasets")
    for name in _folders(base):
        try:
            values = meta(_text(os.path.join(base, name, "meta.yaml")))
            found[name] = Dataset(
                str(values["name"]),
                str(values["digest"]),
                str(values["source_type"]),
                str(values["source"]),
                values.get("schema"),
                values.get("profile"),
            )
        except (InvalidInput, OSError, ValueError, KeyError) as error:
            tell(Trouble(f"dataset {name}", _why(error)))
    return found


def _links(folder: str, run_id: str, tell: Tell) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in _folders(folder):
        try:
            yield name, meta(_text(os.path.join(folder, name, "meta.yaml")))
        except (InvalidInput, OSError, ValueError) as error:
            tell(Trouble(f"run {run_id}", f"{os.path.basename(folder)}/{name}: {_why(error)}"))


def _values(folder: str, tell: Tell) -> dict[str, str]:
    """Names and contents of the files below a folder of params or tags."""
    found = {}
    for key, path in _walk(folder):
        try:
            found[key] = _bytes(path).decode()
        except UnicodeDecodeError as error:
            tell(Trouble(path, f"it is not UTF-8 text (byte {error.start})"))
        except OSError as error:
            tell(Trouble(path, f"it cannot be read: {error.strerror}"))
    return found


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """Every file below ``folder`` with its name relative to it: a slash in a metric's name is a folder."""
    waiting = [("", folder)]
    while waiting:
        prefix, place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        yield prefix + entry.name, entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
        except FileNotFoundError:
            continue


def _folders(place: str) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _text(path: str) -> str:
    return _bytes(path).decode("utf-8-sig").replace("\r\n", "\n")


def _bytes(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = part = os.read(fd, 65536)
        while len(part) == 65536:
            part = os.read(fd, 65536)
            data += part
        return data
    finally:
        os.close(fd)


def _why(error: Exception) -> str:
    if isinstance(error, InvalidInput):
        return error.message
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyError):
        return f"its meta.yaml lacks {error}"
    return f"its meta.yaml makes no sense: {error}"
