"""Our single file: runs, models and their files in a zip archive that any unzip opens and that only we put back.

    mlcli-bundle.json        what it is, its experiments, the ids of their runs; the first member
    experiments/<n>.jsonl    one line per run, then its points (at most 10,000 a line), then the logged models
    registry.jsonl           one line per registered model
    artifacts/<run>/<path>   the files of a run
    models/<model>/<path>    the files of a logged model

A bundle may come from anybody. Nothing in it is believed: names are paths below their root or it is refused; links, devices,
encrypted and overlapping members are refused; no line is longer than 64 MB; each field has the type that it must have.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from mlcli import artifacts as local
from mlcli import journal, rules
from mlcli._version import __version__
from mlcli.entities import Dataset, DatasetInput
from mlcli.errors import InvalidInput, MlcliError
from mlcli.store.bulk import Points
from mlcli.transfer.files import Folder
from mlcli.transfer.records import (
    ExperimentRecord,
    Files,
    ModelRecord,
    RegisteredRecord,
    RunRecord,
    Source,
    Tell,
    Trouble,
    VersionRecord,
)

MANIFEST = "mlcli-bundle.json"
REGISTRY = "registry.jsonl"
FORMAT = "mlcli bundle"
VERSION = 1
MAX_MEMBERS = 2_000_000
MAX_LINE = 64 * 1024 * 1024
POINTS_A_LINE = 10_000
_BLOCK = 1024 * 1024
_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

Tick = Callable[[int, int], None]


# -- writing


def write(source: Source, path: str, tell: Tell, *, artifacts: bool = True, tick: Tick | None = None) -> dict[str, int]:
    """Write all that the source gives to the file ``path``, which appears when it is whole; what went, counted."""
    counts = dict.fromkeys(("runs", "metric_points", "artifact_files", "artifact_bytes", "logged_models", "models"), 0)
    experiments = list(source.experiments(tell))
    ids = [list(source.run_ids(record)) for record in experiments]
    total = sum(map(len, ids))
    folders: list[tuple[str, Files | None]] = []
    with _aside(path) as place, zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "mlcli": __version__,
            "created": journal.now(),
            "experiments": [
                {**record._asdict(), "tags": dict(record.tags), "runs": runs}
                for record, runs in zip(experiments, ids, strict=True)
            ],
        }
        archive.writestr(MANIFEST, json.dumps(manifest, ensure_ascii=False))
        for place_in, record in enumerate(experiments):
            with archive.open(f"experiments/{place_in}.jsonl", "w", force_zip64=True) as file:
                for run in source.runs(record, tell, ()):
                    counts["metric_points"] += _write_run(file, run)
                    counts["runs"] += 1
                    folders.append((f"artifacts/{run.run_id}", run.files))
                    if tick is not None:
                        tick(counts["runs"], total)
                for model in source.models(record, tell):
                    metrics = [[point[0], _number(point[1]), *point[2:]] for point in model.metrics]
                    _line(file, {"model": {**_plain(model), "metrics": metrics}})
                    counts["logged_models"] += 1
                    folders.append((f"models/{model.model_id}", model.files))
        with archive.open(REGISTRY, "w", force_zip64=True) as file:
            for registered in source.registry(tell):
                versions = [_plain(version) for version in registered.versions]
                _line(file, {"registered": {**_plain(registered), "versions": versions}})
                counts["models"] += 1
        for prefix, files in folders if artifacts else ():
            _write_files(archive, prefix, files, tell, counts)
    return counts


def _write_run(file: IO[bytes], run: RunRecord) -> int:
    inputs = [{"dataset": item.dataset._asdict(), "tags": dict(item.tags)} for item in run.inputs]
    _line(file, {"run": {**_plain(run), "inputs": inputs}})
    count = 0
    for key, points in run.metrics.items():
        nans = points.nans or [0] * len(points.steps)
        values = [_number(float("nan") if nan else value) for value, nan in zip(points.values, nans, strict=True)]
        for start in range(0, len(values), POINTS_A_LINE):
            part = slice(start, start + POINTS_A_LINE)
            _line(
                file,
                {
                    "of": run.run_id,
                    "metric": key,
                    "steps": list(points.steps[part]),
                    "times": list(points.times[part]),
                    "values": values[part],
                },
            )
        count += len(values)
    return count


def _plain(record: Any) -> dict[str, Any]:
    """The fields that JSON takes as they are."""
    found = record._asdict()
    for name in ("files", "metrics", "inputs", "versions"):
        found.pop(name, None)
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}


def _line(file: IO[bytes], entry: Mapping[str, Any]) -> None:
    file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _write_files(
    archive: zipfile.ZipFile, prefix: str, files: Files | None, tell: Tell, counts: dict[str, int]
) -> None:
    what = prefix.replace("artifacts/", "run ").replace("models/", "logged model ")
    if not isinstance(files, Folder):
        tell(Trouble(what, getattr(files, "why", "its folder of artifacts is missing")))
        return
    try:
        found = files.walk(lambda name, why: tell(Trouble(what, f"the file {name} was left: {why}")))
    except MlcliError as error:
        tell(Trouble(what, error.message))
        return
    for name, path, size in found:
        try:
            with open(path, "rb") as reader, archive.open(f"{prefix}/{name}", "w", force_zip64=True) as writer:
                while block := reader.read(_BLOCK):
                    writer.write(block)
        except OSError as error:
            if error.filename != path:  # the disk of the bundle, not the file
                raise
            tell(Trouble(what, f"the file {name} cannot be read: {error.strerror}"))
            continue
        counts["artifact_files"] += 1
        counts["artifact_bytes"] += size


@contextmanager
def _aside(path: str) -> Iterator[str]:
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise InvalidInput(f"there is no folder {folder}")
    if os.path.isdir(path):
        raise InvalidInput(f"{path} is a folder", hint="name a file, such as runs.mlcli.zip")
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device: nothing may take its place
        yield path
        return
    place = os.path.join(folder, f".tmp-{name}-{os.getpid()}")
    try:
        yield place
        os.replace(place, path)
    except BaseException:
        if os.path.exists(place):
            os.unlink(place)
        raise


# -- reading


class Bundle:
    """A file that ``write`` wrote, or that somebody says it did."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.about = f"the bundle {self.path}"
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise InvalidInput(
                f"{self.path} is not a whole bundle: {error}", hint="was it copied to its end?"
            ) from None
        try:
            self._members = self._checked()
            self._manifest = self._read_manifest()
        except BaseException:
            self._archive.close()
            raise
        self._places: dict[str, int] = {}

    def close(self) -> None:
        self._archive.close()

    def experiments(self, tell: Tell) -> Sequence[ExperimentRecord]:  # noqa: ARG002
        found = []
        for place, entry in enumerate(_list(self._manifest.get("experiments"), "experiments")):
            values = _Values(entry, f"{MANIFEST}: experiment {place}")
            record = ExperimentRecord(
                values.text("experiment_id"),
                values.text("name"),
                values.text("lifecycle_stage"),
                values.whole("creation_time"),
                values.whole("last_update_time"),
                values.texts("tags"),
            )
            self._places[record.experiment_id] = place
            found.append(record)
        return found

    def run_ids(self, experiment: ExperimentRecord) -> Sequence[str]:
        entry = self._manifest["experiments"][self._places[experiment.experiment_id]]
        return [run_id for run_id in _list(entry.get("runs"), "runs") if isinstance(run_id, str)]

    def runs(self, experiment: ExperimentRecord, tell: Tell, known: Container[str]) -> Iterator[RunRecord]:
        waiting: RunRecord | None = None
        for values in self._lines(self._member(experiment)):
            if "run" in values.entry:
                if waiting is not None:
                    yield waiting
                waiting = self._run(values.below("run"), experiment)
                waiting = None if waiting.run_id in known else waiting
            elif "metric" in values.entry and waiting is not None and values.entry.get("of") == waiting.run_id:
                try:
                    key, points = values.text("metric"), values.points()
                except InvalidInput as error:
                    tell(Trouble(f"run {waiting.run_id}", error.message))
                    continue
                before = waiting.metrics.get(key)
                waiting = waiting._replace(
                    metrics={**waiting.metrics, key: _joined(before, points) if before else points}
                )
        if waiting is not None:
            yield waiting

    def models(self, experiment: ExperimentRecord, tell: Tell) -> Iterator[ModelRecord]:  # noqa: ARG002
        for values in self._lines(self._member(experiment)):
            if "model" in values.entry:
                model = values.below("model")
                yield ModelRecord(
                    rules.run_id(model.text("model_id")),
                    experiment.experiment_id,
                    model.text("name"),
                    model.text("status"),
                    model.whole("creation_time") or 0,
                    model.whole("last_updated_time") or 0,
                    model.maybe("source_run_id"),
                    model.maybe("model_type"),
                    model.maybe("status_message"),
                    model.text("lifecycle_stage"),
                    model.texts("params"),
                    model.texts("tags"),
                    model.model_points(),
                    self._files(f"models/{model.text('model_id')}/"),
                )

    def registry(self, tell: Tell) -> Iterator[RegisteredRecord]:  # noqa: ARG002
        for line in self._lines(REGISTRY):
            values = line.below("registered")
            versions = [
                _version(_Values(entry, values.place)) for entry in _list(values.entry.get("versions"), "versions")
            ]
            aliases = values.entry.get("aliases") or {}
            if not isinstance(aliases, dict) or not all(type(number) is int for number in aliases.values()):
                raise values.wrong("aliases")
            yield RegisteredRecord(
                values.text("name"),
                values.whole("creation_time") or 0,
                values.whole("last_updated_time") or 0,
                values.maybe("description"),
                values.texts("tags"),
                aliases,
                versions,
                values.whole("last_version") or 0,
            )

    def _run(self, values: _Values, experiment: ExperimentRecord) -> RunRecord:
        run_id = rules.run_id(values.text("run_id"))
        inputs = []
        for entry in _list(values.entry.get("inputs") or [], "inputs"):
            item = _Values(entry, values.place)
            dataset = item.below("dataset")
            inputs.append(
                DatasetInput(
                    Dataset(
                        dataset.text("name"),
                        dataset.text("digest"),
                        dataset.text("source_type"),
                        dataset.text("source"),
                        dataset.maybe("schema"),
                        dataset.maybe("profile"),
                    ),
                    item.texts("tags"),
                )
            )
        outputs = [
            (str(pair[0]), pair[1])
            for pair in _list(values.entry.get("outputs") or [], "outputs")
            if isinstance(pair, list) and len(pair) == 2 and type(pair[1]) is int
        ]
        return RunRecord(
            run_id,
            experiment.experiment_id,
            values.text("name"),
            values.text("user_id"),
            values.text("status"),
            values.whole("start_time"),
            values.whole("end_time"),
            values.text("lifecycle_stage"),
            values.whole("deleted_time"),
            values.texts("params"),
            values.texts("tags"),
            {},
            inputs,
            outputs,
            [str(model) for model in _list(values.entry.get("model_inputs") or [], "model_inputs")],
            self._files(f"artifacts/{run_id}/"),
        )

    def _files(self, prefix: str) -> Members:
        return Members(self, prefix, self._members.get(prefix, []))

    def _member(self, experiment: ExperimentRecord) -> str:
        return f"experiments/{self._places[experiment.experiment_id]}.jsonl"

    def _lines(self, member: str) -> Iterator[_Values]:
        try:
            with self._archive.open(member) as file:
                number = 0
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    place = f"{member}, line {number}"
                    if len(line) > MAX_LINE:
                        raise InvalidInput(f"{self.path}: {place} is longer than {MAX_LINE:,} bytes")
                    yield _Values(_parsed(line, f"{self.path}: {place}"), place)
        except KeyError:
            raise InvalidInput(f"{self.path} lacks its member {member}") from None
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise InvalidInput(f"{self.path}: {member} is damaged: {error}") from None

    def _read_manifest(self) -> dict[str, Any]:
        entry = next((values.entry for values in self._lines(MANIFEST)), {})
        if entry.get("format") != FORMAT:
            raise InvalidInput(f"{self.path} is a zip archive, but no bundle of `mlcli export`")
        if entry.get("version") != VERSION:
            raise InvalidInput(f"{self.path} has version {entry.get('version')!r} of the form", hint="upgrade mlcli")
        return dict(entry)

    def _checked(self) -> dict[str, list[zipfile.ZipInfo]]:
        """The members below each run and model; raises where one of all members is not what we write."""
        members = self._archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise InvalidInput(f"{self.path} has {len(members):,} members; {MAX_MEMBERS:,} are allowed")
        seen = set()
        found: dict[str, list[zipfile.ZipInfo]] = {}
        for member in members:
            name = member.filename
            try:
                plain = rules.artifact_path(name) == name
            except InvalidInput:
                plain = False
            if not plain or name in seen:
                raise InvalidInput(f"{self.path} has a member {name!r}, which no bundle has: nothing was imported")
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG) or member.flag_bits & 1:
                raise InvalidInput(f"{self.path}: {name!r} is no plain file: nothing was imported")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InvalidInput(f"{self.path}: {name!r} is packed in a way that no bundle is")
            seen.add(name)
            parts = name.split("/", 2)
            if len(parts) == 3:
                found.setdefault(f"{parts[0]}/{parts[1]}/", []).append(member)
        # Members that overlap, the trick of archives that unpack to petabytes, add up to more than the file has.
        if sum(member.compress_size for member in members) > os.path.getsize(self.path):
            raise InvalidInput(f"{self.path} has members that overlap: nothing was imported")
        return found


class Members(NamedTuple):
    """The files of one run in a bundle."""

    bundle: Bundle
    prefix: str
    members: Sequence[zipfile.ZipInfo]

    def bring(self, target: str, *, link: bool, tell: Callable[[str, str], None]) -> tuple[int, int]:  # noqa: ARG002
        root = local.LocalArtifacts(target)
        count = size = 0
        for member in self.members:
            name = member.filename[len(self.prefix) :]
            place = os.path.join(target, *name.split("/"))
            if os.path.isfile(place) and os.path.getsize(place) == member.file_size:
                continue
            try:
                with root.writing(name) as aside, open(aside, "wb") as writer:
                    self._unpack(member, writer)
            except (MlcliError, zipfile.BadZipFile, EOFError) as error:
                tell(name, str(error))
                continue
            count, size = count + 1, size + member.file_size
        return count, size

    def _unpack(self, member: zipfile.ZipInfo, writer: IO[bytes]) -> None:
        with self.bundle._archive.open(member) as reader:  # noqa: SLF001 - a part of it
            while block := reader.read(_BLOCK):
                writer.write(block)


class _Values(NamedTuple):
    """An object of JSON whose fields must have their types."""

    entry: dict[str, Any]
    place: str

    def wrong(self, name: str) -> InvalidInput:
        return InvalidInput(f"{self.place}: {name!r} is missing or of a wrong type")

    def below(self, name: str) -> _Values:
        value = self.entry.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name)
        return _Values(value, self.place)

    def text(self, name: str) -> str:
        value = self.entry.get(name)
        if not isinstance(value, str):
            raise self.wrong(name)
        return value

    def maybe(self, name: str) -> str | None:
        return None if self.entry.get(name) is None else self.text(name)

    def whole(self, name: str) -> int | None:
        value = self.entry.get(name)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= rules.MAX_INT64:
            raise self.wrong(name)
        return value

    def texts(self, name: str) -> dict[str, str]:
        value = self.entry.get(name) or {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.wrong(name)
        return value

    def points(self) -> Points:
        steps, times, values = (_list(self.entry.get(name), name) for name in ("steps", "times", "values"))
        if not len(steps) == len(times) == len(values) or not all(type(item) is int for item in steps + times):
            raise self.wrong("steps")
        numbers = [self._float(value) for value in values]
        nans = [int(value != value) for value in numbers]  # noqa: PLR0124 - NaN is the one value unequal to itself
        if any(nans):
            return Points(steps, times, [0.0 if nan else value for value, nan in zip(numbers, nans, strict=True)], nans)
        return Points(steps, times, numbers)

    def model_points(self) -> list[tuple[str, float, int, int, str | None, str | None, str | None]]:
        found = []
        for point in _list(self.entry.get("metrics") or [], "metrics"):
            if not (isinstance(point, list) and len(point) == 7 and isinstance(point[0], str)):
                raise self.wrong("metrics")
            key, value, time, step, *names = point
            if (
                type(time) is not int
                or type(step) is not int
                or not all(isinstance(name, (str, type(None))) for name in names)
            ):
                raise self.wrong("metrics")
            found.append((key, self._float(value), time, step, names[0], names[1], names[2]))
        return found

    def _float(self, value: object) -> float:
        if type(value) is float or type(value) is int or value in _NAMES.values():
            return float(value)  # type: ignore[arg-type]
        raise self.wrong("values")


def _version(values: _Values) -> VersionRecord:
    return VersionRecord(
        values.whole("version") or 0,
        values.whole("creation_time") or 0,
        values.whole("last_updated_time") or 0,
        values.text("source"),
        values.maybe("run_id"),
        values.maybe("description"),
        values.maybe("user_id"),
        values.text("stage"),
        values.text("status"),
        values.maybe("status_message"),
        values.maybe("run_link"),
        values.maybe("model_id"),
        values.texts("tags"),
    )


def _joined(one: Points, other: Points) -> Points:
    nans = None
    if one.nans or other.nans:
        nans = [*(one.nans or [0] * len(one.steps)), *(other.nans or [0] * len(other.steps))]
    return Points([*one.steps, *other.steps], [*one.times, *other.times], [*one.values, *other.values], nans)


def _number(value: float) -> float | str:
    return value if value - value == 0.0 else _NAMES[repr(value)]


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{what} must be a list")
    return value


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{place} is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise InvalidInput(f"{place} is not an object")
    return entry
