"""A running tracking server as a source, MLflow's or mlcli's."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from typing import NamedTuple

from mlcli.artifacts import LocalArtifacts, open_artifacts
from mlcli.entities import Experiment, ModelVersion, Run, ViewType
from mlcli.errors import MlcliError, NotFound
from mlcli.store.bulk import Points
from mlcli.store.rest import RestStore, proxied
from mlcli.transfer.files import locate
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

PAGE = 1000


class Server:
    """The server at an address; with a token or a login as the settings have them."""

    def __init__(self, url: str) -> None:
        self.store = RestStore(url)
        self.about = f"the server {self.store.root}"
        self._runs: dict[str, list[Run]] = {}

    def close(self) -> None:
        self.store.close()

    def experiments(self, tell: Tell) -> Sequence[ExperimentRecord]:  # noqa: ARG002
        found: list[Experiment] = []
        token = None
        while True:
            page = self.store.search_experiments(view_type=ViewType.ALL, max_results=PAGE, page_token=token)
            found += page
            token = page.token
            if token is None:
                break
        return [
            ExperimentRecord(
                item.experiment_id,
                item.name,
                item.lifecycle_stage,
                item.creation_time or None,
                item.last_update_time or None,
                item.tags,
            )
            for item in found
        ]

    def run_ids(self, experiment: ExperimentRecord) -> Sequence[str]:
        return [run.info.run_id for run in self._all(experiment)]

    def _all(self, experiment: ExperimentRecord) -> list[Run]:
        if experiment.experiment_id not in self._runs:
            self._runs[experiment.experiment_id] = all_runs(self.store, experiment.experiment_id)
        return self._runs[experiment.experiment_id]

    def runs(self, experiment: ExperimentRecord, tell: Tell, known: Container[str]) -> Iterator[RunRecord]:
        for run in self._all(experiment):
            info = run.info
            if info.run_id in known:
                continue
            metrics: dict[str, Points] = {}
            for key in run.data.metrics:
                try:
                    metrics[key] = self._points(info.run_id, key)
                except NotFound as error:
                    tell(Trouble(f"run {info.run_id}", f"metric {key}: {error.message}"))
            yield RunRecord(
                info.run_id,
                experiment.experiment_id,
                info.run_name,
                info.user_id,
                info.status,
                info.start_time,
                info.end_time,
                info.lifecycle_stage,
                None,
                run.data.params,
                run.data.tags,
                metrics,
                run.inputs.dataset_inputs,
                [(model.model_id, model.step) for model in run.outputs.model_outputs],
                [model.model_id for model in run.inputs.model_inputs],
                self._files(info.artifact_uri, info.run_id),
            )
        del self._runs[experiment.experiment_id]

    def models(self, experiment: ExperimentRecord, tell: Tell) -> Iterator[ModelRecord]:  # noqa: ARG002
        token = None
        while True:
            try:
                page = self.store.search_logged_models([experiment.experiment_id], page_token=token)
            except NotFound:  # a server of before MLflow 3
                return
            for model in page:
                yield ModelRecord(
                    model.model_id,
                    experiment.experiment_id,
                    model.name,
                    model.status,
                    model.creation_timestamp,
                    model.last_updated_timestamp,
                    model.source_run_id or None,
                    model.model_type or None,
                    model.status_message or None,
                    model.lifecycle_stage,
                    model.params,
                    model.tags,
                    [
                        (
                            point.key,
                            point.value,
                            point.timestamp,
                            point.step,
                            point.run_id,
                            point.dataset_name,
                            point.dataset_digest,
                        )
                        for point in model.metrics
                    ],
                    self._files(model.artifact_location, model.model_id),
                )
            token = page.token
            if token is None:
                return

    def registry(self, tell: Tell) -> Iterator[RegisteredRecord]:  # noqa: ARG002
        token = None
        while True:
            page = self.store.search_registered_models(page_token=token)
            for model in page:
                versions = [_version(version) for version in versions_of(self.store, model.name)]
                aliases = model.aliases or self.store.get_registered_model(model.name).aliases
                yield RegisteredRecord(
                    model.name,
                    model.creation_timestamp,
                    model.last_updated_timestamp,
                    model.description,
                    model.tags,
                    {alias: int(version) for alias, version in aliases.items()},
                    versions,
                    max((version.version for version in versions), default=0),
                )
            token = page.token
            if token is None:
                return

    def _points(self, run_id: str, key: str) -> Points:
        history = self.store.get_metric_history(run_id, key)
        nans = [int(point.value != point.value) for point in history]
        return Points(
            [point.step for point in history],
            [point.timestamp for point in history],
            [0.0 if nan else point.value for point, nan in zip(history, nans, strict=True)],
            nans if any(nans) else None,
        )

    def _files(self, uri: str, owner: str) -> Files | None:
        place = proxied(self.store.root, uri)
        if place.startswith(("http://", "https://")):
            return Served(open_artifacts(place))
        return locate(uri, owner, ())


class Served(NamedTuple):
    """The files of a run that a server gives."""

    artifacts: LocalArtifacts

    def bring(self, target: str, *, link: bool, tell: Callable[[str, str], None]) -> tuple[int, int]:  # noqa: ARG002
        count = size = 0
        try:
            found = self.artifacts.walk()
        except MlcliError as error:
            tell("", error.message)
            return 0, 0
        for item in found:
            place = os.path.join(target, *item.path.split("/"))
            if os.path.isfile(place) and os.path.getsize(place) == item.file_size:
                continue
            try:
                with LocalArtifacts(target).writing(item.path) as aside:
                    self.artifacts.get(item.path, aside)
            except MlcliError as error:
                tell(item.path, error.message)
                continue
            count, size = count + 1, size + (item.file_size or 0)
        return count, size


def all_runs(store: RestStore, experiment_id: str) -> list[Run]:
    """Every run of an experiment, deleted ones too."""
    found: list[Run] = []
    token = None
    while True:
        page = store.search_runs([experiment_id], "", ViewType.ALL, PAGE, (), token)
        found += page
        token = page.token
        if token is None:
            return found


def versions_of(store: RestStore, name: str) -> list[ModelVersion]:
    """Every version of a registered model."""
    quoted = name.replace("'", "\\'")
    found: list[ModelVersion] = []
    token = None
    while True:
        page = store.search_model_versions(f"name = '{quoted}'", max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if token is None:
            return found


def _version(version: ModelVersion) -> VersionRecord:
    return VersionRecord(
        int(version.version),
        version.creation_timestamp,
        version.last_updated_timestamp,
        version.source,
        version.run_id or None,
        version.description or None,
        version.user_id or None,
        version.current_stage,
        version.status,
        version.status_message or None,
        version.run_link or None,
        version.model_id or None,
        version.tags,
    )
