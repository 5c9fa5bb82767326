"""What every source gives and every target takes: experiments, runs, models as plain values, with their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from mlcli.entities import DatasetInput
from mlcli.store.bulk import Points


class Trouble(NamedTuple):
    """Something that did not come over as it was: to which thing it happened, why, and whether anything is lost."""

    what: str
    why: str
    lost: bool = True


Tell = Callable[[Trouble], None]


class Files(Protocol):
    """The files of a run or a model, wherever they lie."""

    def bring(self, target: str, *, link: bool, tell: Callable[[str, str], None]) -> tuple[int, int]:
        """Copy what is not below the folder ``target`` yet; how many files and bytes came. ``tell(name, why)`` of others."""


class ExperimentRecord(NamedTuple):
    experiment_id: str
    name: str
    lifecycle_stage: str = "active"
    creation_time: int | None = None
    last_update_time: int | None = None
    tags: Mapping[str, str] = {}


class RunRecord(NamedTuple):
    run_id: str
    experiment_id: str
    name: str
    user_id: str
    status: str
    start_time: int | None
    end_time: int | None
    lifecycle_stage: str = "active"
    deleted_time: int | None = None
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    metrics: Mapping[str, Points] = {}
    inputs: Sequence[DatasetInput] = ()
    outputs: Sequence[tuple[str, int]] = ()  # logged models that the run made: id, step
    model_inputs: Sequence[str] = ()
    files: Files | None = None


class ModelRecord(NamedTuple):
    """A logged model, as MLflow 3 keeps them beside runs."""

    model_id: str
    experiment_id: str
    name: str
    status: str
    creation_time: int
    last_updated_time: int
    source_run_id: str | None = None
    model_type: str | None = None
    status_message: str | None = None
    lifecycle_stage: str = "active"
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    # key, value, timestamp, step, run id, dataset name, dataset digest
    metrics: Sequence[tuple[str, float, int, int, str | None, str | None, str | None]] = ()
    files: Files | None = None


class VersionRecord(NamedTuple):
    version: int
    creation_time: int
    last_updated_time: int
    source: str
    run_id: str | None = None
    description: str | None = None
    user_id: str | None = None
    stage: str = "None"
    status: str = "READY"
    status_message: str | None = None
    run_link: str | None = None
    model_id: str | None = None
    tags: Mapping[str, str] = {}


class RegisteredRecord(NamedTuple):
    """A registered model with all its versions, deleted ones included: their numbers are never given again."""

    name: str
    creation_time: int
    last_updated_time: int
    description: str | None = None
    tags: Mapping[str, str] = {}
    aliases: Mapping[str, int] = {}
    versions: Sequence[VersionRecord] = ()
    last_version: int = 0  # the highest number ever given


class Source(Protocol):
    """Where experiments and runs come from. Everything is read when it is asked for, run by run."""

    about: str

    def experiments(self, tell: Tell) -> Sequence[ExperimentRecord]: ...

    def run_ids(self, experiment: ExperimentRecord) -> Sequence[str]:
        """The ids of its runs, as far as a quick look tells."""

    def runs(self, experiment: ExperimentRecord, tell: Tell, known: Container[str]) -> Iterator[RunRecord]:
        """Its runs, but for those whose ids are ``known``."""

    def models(self, experiment: ExperimentRecord, tell: Tell) -> Iterator[ModelRecord]: ...

    def registry(self, tell: Tell) -> Iterator[RegisteredRecord]: ...

    def close(self) -> None: ...


def lasting_source(version: VersionRecord) -> str:
    """Where the version's files are from now on: the run and the logged model keep their ids, so their own URIs hold."""
    path = version.source.split("://", 1)[-1]
    for folder, form in ((version.run_id, "runs:/{}"), (version.model_id, "models:/{}")):
        mark = f"/{folder}/artifacts"
        if folder and mark in path:
            below = path.partition(mark)[2].strip("/")
            return "/".join(filter(None, (form.format(folder), below)))
    found = re.search(r"/models/(m-[0-9a-f]{32})/artifacts(?:/(.*))?$", path)
    if found:
        return "/".join(filter(None, (f"models:/{found[1]}", found[2])))
    return version.source
