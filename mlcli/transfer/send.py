"""Send what a source gives to a tracking server, MLflow's or mlcli's, through its REST API.

The server gives ids of its own. The tag `mlcli.exported.run_id` of a run there tells its id here, and `mlcli.exported.whole`
that all of it arrived: sending again sends what is missing and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from mlcli.artifacts import open_artifacts
from mlcli.entities import LoggedModel, LoggedModelOutput, Metric, Param, RunTag
from mlcli.errors import MlcliError, NotFound, StoreUnavailable
from mlcli.store.bulk import Points
from mlcli.store.rest import RestStore, proxied
from mlcli.store.served import ServedArtifacts
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
    lasting_source,
)
from mlcli.transfer.server import all_runs, versions_of

RUN_ID = "mlcli.exported.run_id"
MODEL_ID = "mlcli.exported.model_id"
VERSION = "mlcli.exported.version"
WHOLE = "mlcli.exported.whole"
PARENT = "mlflow.parentRunId"
MAX_GAP = 1000  # deleted versions in a row whose numbers are worth keeping


def send(
    source: Source, url: str, tell: Tell, *, artifacts: bool = True, tick: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Send everything that is not deleted; what went, counted."""
    store = RestStore(url)
    with store:
        sending = _Sending(store, tell, artifacts=artifacts)
        experiments = []
        for record in source.experiments(tell):
            if record.lifecycle_stage == "deleted":
                tell(Trouble(f"experiment {record.name}", "it is deleted, so it was not sent", False))
            else:
                experiments.append(record)
        total = sum(len(source.run_ids(record)) for record in experiments)
        done = 0
        for record in experiments:
            experiment_id = sending.experiment(record)
            for model in source.models(record, tell):
                sending.waiting_models.append(model)
            for run in source.runs(record, tell, ()):
                try:
                    sending.run(run, experiment_id)
                except MlcliError as error:
                    if error.exit_code == StoreUnavailable.exit_code:
                        raise
                    tell(Trouble(f"run {run.run_id}", error.message))
                done += 1
                if tick is not None:
                    tick(done, total)
            sending.models(experiment_id)
            sending.finish()
        for registered in source.registry(tell):
            try:
                sending.registered(registered)
            except MlcliError as error:
                if error.exit_code == StoreUnavailable.exit_code:
                    raise
                tell(Trouble(f"registered model {registered.name}", error.message))
        return sending.counts


class _Sending:
    """What is known while sending: which run and model there is which here."""

    def __init__(self, store: RestStore, tell: Tell, *, artifacts: bool) -> None:
        self.store = store
        self.tell = tell
        self.artifacts = artifacts
        self.run_ids: dict[str, str] = {}
        self.whole: set[str] = set()
        self.model_ids: dict[str, str] = {}
        self.waiting_models: list[ModelRecord] = []
        self._ending: list[tuple[RunRecord, str]] = []
        self.counts = dict.fromkeys(("runs", "metric_points", "artifact_files", "logged_models", "model_versions"), 0)
        self.counts["runs_there_already"] = 0

    def experiment(self, record: ExperimentRecord) -> str:
        found = self.store.ensure_experiment(record.name)
        for key, value in record.tags.items():
            if found.tags.get(key) != value:
                self.store.set_experiment_tag(found.experiment_id, key, value)
        for run in all_runs(self.store, found.experiment_id):
            there, tags = run.info.run_id, run.data.tags
            self.run_ids[there] = there  # the run itself, brought from that very server
            self.run_ids.setdefault(tags.get(RUN_ID, there), there)
            if WHOLE in tags or RUN_ID not in tags:
                self.whole.add(there)
        return found.experiment_id

    def run(self, record: RunRecord, experiment_id: str) -> None:
        there = self.run_ids.get(record.run_id)
        if there in self.whole:
            self.counts["runs_there_already"] += 1
            return
        tags = {key: value for key, value in record.tags.items() if key != PARENT}
        if there is None:
            first = {RUN_ID: record.run_id, "mlflow.runName": record.name}
            made = self.store.create_run(
                experiment_id, record.start_time, {**first, "mlflow.user": record.user_id}, record.name, record.user_id
            )
            there = self.run_ids[record.run_id] = made.info.run_id
        points = [point for key, column in record.metrics.items() for point in _metrics(key, column)]
        params = [Param(key, value) for key, value in record.params.items()]
        self.store.log_batch(there, points, params, [RunTag(key, value) for key, value in tags.items()])
        if record.inputs:
            self.store.log_inputs(there, record.inputs)
        self._files(record.files, self.store.get_run(there).info.artifact_uri, f"run {record.run_id}")
        self.counts["runs"] += 1
        self.counts["metric_points"] += len(points)
        self._ending.append((record, there))

    def models(self, experiment_id: str) -> None:
        """Send the logged models of the experiment; a server of before MLflow 3 has none."""
        models, self.waiting_models = self.waiting_models, []
        models = [model for model in models if model.lifecycle_stage != "deleted"]
        if not models:
            return
        try:
            there = {model.tags.get(MODEL_ID): model.model_id for model in self._models_there(experiment_id)}
        except NotFound:
            self.tell(Trouble("logged models", f"{self.store.root} does not know them; {len(models)} were not sent"))
            return
        for model in models:
            if model.model_id in there:
                self.model_ids[model.model_id] = there[model.model_id]
                continue
            run_id = self.run_ids.get(model.source_run_id or "")
            tags = {**model.tags, MODEL_ID: model.model_id}
            made = self.store.create_logged_model(
                experiment_id, model.name, run_id, tags, model.params, model.model_type
            )
            self.model_ids[model.model_id] = made.model_id
            self._files(model.files, made.artifact_location, f"logged model {model.model_id}")
            if model.status != "PENDING":
                self.store.finalize_logged_model(made.model_id, model.status)
            self.counts["logged_models"] += 1

    def finish(self) -> None:
        """Tell the server of parents, of models made, of the end: last, so that what is whole is whole."""
        for record, there in self._ending:
            if PARENT in record.tags:
                parent = record.tags[PARENT]
                self.store.set_tag(there, PARENT, self.run_ids.get(parent, parent))
            made = [
                LoggedModelOutput(self.model_ids[model], step)
                for model, step in record.outputs
                if model in self.model_ids
            ]
            if made:
                self.store.log_outputs(there, made)
            self.store.set_tag(there, WHOLE, "true")
            self.store.update_run(there, record.status, record.end_time)
            if record.lifecycle_stage == "deleted":
                self.store.delete_run(there)
        self._ending = []

    def registered(self, record: RegisteredRecord) -> None:
        what = f"registered model {record.name}"
        new = False
        try:
            self.store.get_registered_model(record.name)
        except NotFound:
            self.store.create_registered_model(record.name, record.tags, record.description or None)
            new = True
        there = {version.tags.get(VERSION): version.version for version in versions_of(self.store, record.name)}
        numbers: dict[int, str] = {}
        given = 0
        for version in sorted(record.versions, key=lambda version: version.version):
            if version.stage == "Deleted_Internal":
                continue
            mark = f"{version.version}/{version.creation_time}"
            if mark not in there:
                if new:  # numbers of deleted versions are given and taken back, so that the others keep theirs
                    for _ in range(min(version.version - given - 1, MAX_GAP)):
                        gone = self._version(record.name, version, "deleted")
                        self.store.delete_model_version(record.name, gone)
                    given = version.version
                there[mark] = self._version(record.name, version, mark)
                self.counts["model_versions"] += 1
                if there[mark] != str(version.version):
                    self.tell(Trouble(what, f"version {version.version} is version {there[mark]} there", False))
            numbers[version.version] = there[mark]
        for alias, number in record.aliases.items():
            if number in numbers:
                self.store.set_registered_model_alias(record.name, alias, numbers[number])

    def _version(self, name: str, version: VersionRecord, mark: str) -> str:
        source = lasting_source(version)
        for old, new in ((version.run_id, self.run_ids), (version.model_id, self.model_ids)):
            if old and old in new:
                source = source.replace(old, new[old])
        made = self.store.create_model_version(
            name,
            source,
            self.run_ids.get(version.run_id or "", version.run_id),
            {**version.tags, VERSION: mark},
            version.run_link,
            version.description,
            self.model_ids.get(version.model_id or ""),
        )
        if version.stage.lower() not in ("none", ""):
            self.store.transition_model_version_stage(name, made.version, version.stage, False)
        return made.version

    def _models_there(self, experiment_id: str) -> list[LoggedModel]:
        found: list[LoggedModel] = []
        token = None
        while True:
            page = self.store.search_logged_models([experiment_id], page_token=token)
            found += page
            token = page.token
            if token is None:
                return found

    def _files(self, files: Files | None, uri: str, what: str) -> None:
        if not self.artifacts:
            return
        if not isinstance(files, Folder):
            self.tell(Trouble(what, getattr(files, "why", "its folder of artifacts is missing")))
            return
        if not files.path:
            return
        place = proxied(self.store.root, uri)
        if not place.startswith(("http://", "https://")):
            self.tell(Trouble(what, f"the server keeps files at {uri} and takes none: start it with --serve-artifacts"))
            return
        target = cast("ServedArtifacts", open_artifacts(place))
        for name, path, _size in files.walk(
            lambda name, why: self.tell(Trouble(what, f"the file {name} was left: {why}"))
        ):
            try:
                target.upload(path, name)
            except MlcliError as error:
                self.tell(Trouble(what, f"the file {name} did not go: {error.message}"))
                continue
            self.counts["artifact_files"] += 1


def _metrics(key: str, points: Points) -> list[Metric]:
    nans = points.nans or [0] * len(points.steps)
    return [
        Metric(key, float("nan") if nan else value, time, step)
        for step, time, value, nan in zip(points.steps, points.times, points.values, nans, strict=True)
    ]
