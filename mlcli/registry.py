"""The registry for scripts and faces: what a URI to register means, what a version came from, what became of a run."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli import context, filters
from mlcli.artifacts import open_artifacts, parse_runs_uri
from mlcli.entities import LoggedModel, LoggedModelStatus, ModelStage, ModelVersion, Page, RegisteredModel, all_pages
from mlcli.errors import InvalidInput, NotFound
from mlcli.store import open_store, store_root

if TYPE_CHECKING:
    from mlcli.entities import FileInfo, Run
    from mlcli.store import Store

_MODEL_FILE = "MLmodel"
LOCK = "environment/requirements.txt"  # of a run: what was installed
_CONTEXT = "mlflow.data.context"
_PROMPT = "mlflow.prompt.is_prompt"
_IN_A_RUN = re.compile(r"(.*/([0-9a-f]{32})/artifacts)(?:/(.*))?\Z", re.DOTALL)
_PROJECT = {
    "source": "mlflow.source.name",
    "entry_point": "mlflow.project.entryPoint",
    "command": "mlcli.command",
    "commit": "mlflow.source.git.commit",
    "uncommitted_changes": "mlcli.git.dirty",
    "branch": "mlflow.source.git.branch",
    "repository": "mlflow.source.git.repoURL",
}
_ENVIRONMENT = {"manager": "mlcli.env.manager", "python": "mlcli.env.python", "key": "mlcli.env.key"}


# -- registering


def register(
    store: Store,
    uri: str,
    name: str,
    *,
    tags: Optional[Mapping[str, Any]] = None,
    description: Optional[str] = None,
    alias: Optional[str] = None,
) -> ModelVersion:
    """Make a version of the model ``name``, which is created if need be, out of what a URI names.

        runs:/<run>/<path>     a model among the run's artifacts, or the logged model of that name
        runs:/<run>, <run>     the run's model, if it has just one; <run> as everywhere: an id, its beginning, `latest`
        models:/<model id>     a logged model
        models:/<name>/3 ...   another version: the files are its files, whatever becomes of it
        a path                 if it leads into the artifacts of a run of this store
        s3://... and others    files that are elsewhere; nobody looks whether they are there

    Raises NotFound where no model is, before anything is made.
    """
    source, run_id, model_id = _source(store, str(uri))
    return store.register_model_version(
        name, source, run_id or None, tags, description, model_id or None, alias, context.user()
    )


def _source(store: Store, uri: str) -> Tuple[str, str, str]:
    """The source, the run and the logged model of a version to be."""
    if uri.startswith("runs:"):
        run, path = parse_runs_uri(uri)
        return _of_run(store, store.find_run(run), path)
    if uri.startswith("models:/m-") and "@" not in uri and uri.count("/") == 1 and "?" not in uri:
        model = store.get_logged_model(uri[len("models:/") :])
        return uri, model.source_run_id, model.model_id
    if uri.startswith("models:"):
        found = store.resolve_model_version(uri)
        return f"models:/{found.name}/{found.version}", found.run_id, found.model_id
    if "/" not in uri and ":" not in uri and not os.path.exists(uri):
        return _of_run(store, store.find_run(uri), "")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri):
        return uri, "", ""
    inside = _IN_A_RUN.match(os.path.realpath(uri))
    if inside:
        try:
            folder = os.path.realpath(store.artifact_root(inside[2]))
        except (NotFound, InvalidInput):
            folder = ""
        if folder == inside[1]:
            return _of_run(store, inside[2], inside[3] or "")
    raise InvalidInput(
        f"{uri} is not among the artifacts of a run of this store",
        hint="log the model first (log_model, or `mlcli artifacts log-artifacts`), then register runs:/<run>/<path>",
    )


def _of_run(store: Store, run_id: str, path: str) -> Tuple[str, str, str]:
    run = store.get_run(run_id)
    try:
        artifacts = open_artifacts(run.info.artifact_uri, store=store.root)
    except InvalidInput:  # a place that only the server's other clients can read
        if path:
            return f"runs:/{run_id}/{path}", run_id, ""
        raise
    if path and artifacts.has(f"{path}/{_MODEL_FILE}"):
        return f"runs:/{run_id}/{path}", run_id, ""
    there = models_of_run(store, run, artifacts.walk())
    if not path:
        chosen = only_model(run_id, there)
        return chosen.uri, run_id, chosen.model_id
    for model in there:
        if model.model_id and model.path == path:
            return model.uri, run_id, model.model_id
    has = " or ".join(f"runs:/{run_id[:8]}/{model.path}" for model in there if model.path)
    raise NotFound(
        f"there is no model at runs:/{run_id}/{path}",
        hint=f"the run has {has}"
        if has
        else f"the run has no model; `mlcli artifacts list {run_id[:8]}` shows its files",
    )


# -- digests


def digest_on_record(store: Store, version: ModelVersion) -> str:
    """The digest that a version's files had when they were logged, "" where none was noted."""
    source = version.source
    if source.startswith("runs:"):
        return digest_in_run(store, *parse_runs_uri(source))
    if re.match(r"models:/[^/@?]+/\d+\Z", source):  # its files are those of another version
        try:
            return digest_on_record(store, store.resolve_model_version(source))
        except NotFound:
            return ""
    return ""


def digest_in_run(store: Store, run_id: str, path: str) -> str:
    """The digest that a run notes of its model at ``path``, "" for none."""
    from mlcli.models.saving import digest_tag

    try:
        return store.get_run(run_id).data.tags.get(digest_tag(path), "")
    except NotFound:
        return ""


# -- from a run to its models


class RunModel(NamedTuple):
    """A model that a run made, and the registered versions that are made of it."""

    path: str  # among the run's artifacts, or the name of the logged model; "" where only versions know the run
    uri: str
    model_id: str = ""
    versions: Tuple[ModelVersion, ...] = ()

    def to_dictionary(self) -> Dict[str, Any]:
        return {**self._asdict(), "versions": [version_dictionary(version) for version in self.versions]}


def models_of_run(store: Store, run: Run, files: Sequence[FileInfo]) -> List[RunModel]:
    """The models among a run's artifacts (``files``) and its logged models; versions of anything else come last."""
    run_id = run.info.run_id
    end = f"/{_MODEL_FILE}"
    paths = [file.path[: -len(end)] for file in files if f"/{file.path}".endswith(end)]
    found = [RunModel(path, f"runs:/{run_id}/{path}".rstrip("/")) for path in paths]
    for model_id in dict.fromkeys(output.model_id for output in run.outputs.model_outputs):
        model = _logged(store, model_id)
        if model is not None:
            found.append(RunModel(model.name, f"models:/{model_id}", model_id))
    left = versions_of_run(store, run_id)
    result = []
    for item in found:
        own: Dict[str, ModelVersion] = {}
        for version in left:  # a copy comes after what it was made of
            if version.source in own or _is_of(version, item, run_id):
                own[f"models:/{version.name}/{version.version}"] = version
        left = [version for version in left if version not in own.values()]
        result.append(item._replace(versions=tuple(own.values())))
    return result + [RunModel("", version.source, version.model_id, (version,)) for version in left]


def versions_of_run(store: Store, run_id: str) -> List[ModelVersion]:
    """The registered versions that name a run, the oldest first."""
    found = store.search_model_versions(f"run_id = '{run_id}'", order_by=["creation_timestamp ASC"])
    return list(found)


def _is_of(version: ModelVersion, model: RunModel, run_id: str) -> bool:
    if model.model_id:
        return version.model_id == model.model_id or version.source in (model.uri, f"runs:/{run_id}/{model.path}")
    inside = f"/{run_id}/artifacts/{model.path}".rstrip("/")
    return version.source.rstrip("/") == model.uri or version.source.rstrip("/").endswith(inside)


def only_model(run_id: str, models: Sequence[RunModel]) -> RunModel:
    """The model of a run that has just one."""
    there = [model for model in models if model.path or not model.versions]
    if len(there) == 1:
        return there[0]
    if not there:
        raise NotFound(f"run {run_id} has no model", hint=f"`mlcli artifacts list {run_id[:8]}` shows what it has")
    names = " or ".join(f"runs:/{run_id[:8]}/{model.path}" for model in there)
    raise InvalidInput(f"run {run_id} has {len(there)} models", hint=f"say which: {names}")


# -- from a version to what it came from


def uri_of_only_model(uri: str) -> str:
    """The URI of the model of ``runs:/<run>``, if the run has just one."""
    with open_store(create=False) as store:
        run = store.get_run(store.find_run(parse_runs_uri(uri)[0]))
        files = open_artifacts(run.info.artifact_uri, store=store.root).walk()
        return only_model(run.info.run_id, models_of_run(store, run, files)).uri


def version_dictionary(version: ModelVersion) -> Dict[str, Any]:
    """A version as one JSON-ready object, with MLflow's names."""
    return {**version._asdict(), "tags": dict(version.tags), "aliases": list(version.aliases)}


def model_dictionary(model: RegisteredModel) -> Dict[str, Any]:
    """A registered model as one JSON-ready object."""
    return {
        **model._asdict(),
        "latest_versions": [version_dictionary(version) for version in model.latest_versions],
        "tags": dict(model.tags),
        "aliases": dict(model.aliases),
    }


def run_of(store: Store, version: ModelVersion) -> Optional[Run]:
    """The run of a version, if it has one that is still there."""
    if not version.run_id:
        return None
    try:
        return store.get_run(version.run_id)
    except NotFound:
        return None


def lineage(store: Store, version: ModelVersion, run: Optional[Run]) -> Dict[str, Any]:
    """What a version came from: run, project, commit, data, params, scores, environment. Empty parts are left out."""
    params: Dict[str, str] = {}
    metrics: Dict[str, float] = {}
    model = _logged(store, version.model_id)
    if model is not None:
        params.update(model.params)
        metrics.update((point.key, point.value) for point in model.metrics)
    found: Dict[str, Any] = {}
    if run is not None:
        info, tags = run.info, run.data.tags
        params.update(run.data.params)
        metrics.update(run.data.metrics)
        found["run"] = {
            name: getattr(info, name)
            for name in ("run_id", "run_name", "experiment_id", "user_id", "status", "start_time", "end_time")
        }
        found["project"] = {words: tags[tag] for words, tag in _PROJECT.items() if tags.get(tag)}
        found["environment"] = {words: tags[tag] for words, tag in _ENVIRONMENT.items() if tags.get(tag)}
        if _has(store, run, LOCK):
            found["environment"]["lock"] = f"runs:/{info.run_id}/{LOCK}"
        found["data"] = [
            {
                "name": item.dataset.name,
                "digest": item.dataset.digest,
                "context": item.tags.get(_CONTEXT, ""),
                "source_type": item.dataset.source_type,
                "source": item.dataset.source,
            }
            for item in run.inputs.dataset_inputs
        ]
    found.update(params=params, metrics=metrics)
    return {key: value for key, value in found.items() if value}


def _logged(store: Store, model_id: str) -> Optional[LoggedModel]:
    """The logged model, if one is named that was not deleted."""
    try:
        return store.get_logged_model(model_id) if model_id else None
    except NotFound:
        return None


def _has(store: Store, run: Run, path: str) -> bool:
    try:
        return open_artifacts(run.info.artifact_uri, store=store.root).has(path)
    except InvalidInput:  # kept where only others can read it
        return False


# -- MLflow's names


def without_prompts(filter_string: Optional[str]) -> str:
    """The filter, and no prompts, which MLflow keeps among the models; one that speaks of prompts stays as it is."""
    given = filter_string or ""
    return given if _PROMPT in given else filters.both(given, f"tags.`{_PROMPT}` != 'true'")


def register_model(
    model_uri: str,
    name: str,
    await_registration_for: Optional[int] = 300,  # noqa: ARG001 - MLflow's signature; a version is ready when it is made
    *,
    tags: Optional[Mapping[str, Any]] = None,
    description: Optional[str] = None,
    alias: Optional[str] = None,
) -> ModelVersion:
    """Make a version of the model ``name``, which is created if need be: see :func:`register` for what a URI may be."""
    with open_store() as store:
        return register(store, model_uri, name, tags=tags, description=description, alias=alias)


def search_registered_models(
    max_results: Optional[int] = None,
    filter_string: Optional[str] = None,
    order_by: Optional[Sequence[str]] = None,
) -> List[RegisteredModel]:
    """Find registered models; by default all, in the order of their names."""
    wanted = without_prompts(filter_string)
    with open_store(create=False) as store:
        return all_pages(
            lambda size, token: store.search_registered_models(wanted, size, order_by, token), max_results, 1000
        )


def search_model_versions(
    max_results: Optional[int] = None,
    filter_string: Optional[str] = None,
    order_by: Optional[Sequence[str]] = None,
) -> List[ModelVersion]:
    """Find versions of models; by default all, the ones changed last first."""
    with open_store(create=False) as store:
        return all_pages(
            lambda size, token: store.search_model_versions(filter_string, size, order_by, token), max_results, 10_000
        )


def set_model_version_tag(
    name: str, version: Optional[str] = None, key: Optional[str] = None, value: Any = None
) -> None:
    with open_store() as store:
        store.set_model_version_tag(name, version, str(key), value)


def get_registry_uri() -> str:
    """The store in use: models are registered where the runs are."""
    return store_root()


def set_registry_uri(uri: str) -> None:
    """Say where the registry is. It is in the store, so anything but the store in use is refused."""
    same_store(uri, store_root())


def initialize_logged_model(
    name: Optional[str] = None,
    source_run_id: Optional[str] = None,
    tags: Optional[Mapping[str, Any]] = None,
    params: Optional[Mapping[str, Any]] = None,
    model_type: Optional[str] = None,
    experiment_id: Optional[str] = None,
) -> LoggedModel:
    """Create a logged model that is PENDING until `finalize_logged_model`, by default of the active run."""
    from mlcli import fluent

    active = fluent.active_run()
    if source_run_id is None and active is not None:
        source_run_id = active.run_id
    if experiment_id is None:
        experiment_id = active.info.experiment_id if active is not None else fluent.current_experiment_id()
    with open_store() as store:
        return store.create_logged_model(experiment_id, name, source_run_id, tags, params, model_type)


def finalize_logged_model(model_id: str, status: str) -> LoggedModel:
    """Say how storing the files of a logged model ended: READY or FAILED."""
    with open_store() as store:
        return store.finalize_logged_model(model_id, str(status))


def get_logged_model(model_id: str) -> LoggedModel:
    with open_store(create=False) as store:
        return store.get_logged_model(model_id)


def delete_logged_model(model_id: str) -> None:
    with open_store() as store:
        store.delete_logged_model(model_id)


def log_model_params(params: Mapping[str, Any], model_id: Optional[str] = None) -> None:
    """Log params of a logged model; each is written once."""
    if model_id is None:
        raise InvalidInput("no logged model is named", hint="log_model_params({...}, model_id=model.model_id)")
    with open_store() as store:
        store.log_logged_model_params(model_id, params)


def set_logged_model_tags(model_id: str, tags: Mapping[str, Any]) -> None:
    with open_store() as store:
        store.set_logged_model_tags(model_id, tags)


def delete_logged_model_tag(model_id: str, key: str) -> None:
    with open_store() as store:
        store.delete_logged_model_tag(model_id, key)


def search_logged_models(
    experiment_ids: Optional[Sequence[str]] = None,
    filter_string: Optional[str] = None,
    datasets: Optional[Sequence[Mapping[str, Any]]] = None,
    max_results: Optional[int] = None,
    order_by: Optional[Sequence[Any]] = None,
    output_format: str = "pandas",
) -> Any:
    """Find logged models, by default in the active experiment; a DataFrame, or a list with ``output_format="list"``."""
    from mlcli import content, fluent

    if output_format not in ("pandas", "list"):
        raise InvalidInput(f"{output_format!r} is no output_format", hint="pandas or list")
    pandas = content.pandas("search_logged_models") if output_format == "pandas" else None
    ids = [fluent.current_experiment_id()] if experiment_ids is None else experiment_ids
    with open_store(create=False) as store:
        found = all_pages(
            lambda size, token: store.search_logged_models(ids, filter_string, datasets, size, order_by, token),
            max_results,
            1000,
        )
    if pandas is None:
        return found
    columns = [name for name in LoggedModel._fields if name != "lifecycle_stage"]
    return pandas.DataFrame([[getattr(model, name) for name in columns] for model in found], columns=columns)


def same_store(uri: Optional[str], root: str) -> None:
    """Refuse a registry that is not in the store of the runs."""
    if uri and store_root(uri) != root:
        raise InvalidInput(
            "the registry cannot be another store than the one of the runs",
            hint="set_tracking_uri, or the client's tracking_uri, names the store of both",
        )


class RegistryClient:
    """The part of the client that is about models: the store's methods, under MLflow's names and in its order."""

    @property
    def tracking_uri(self) -> str:
        raise NotImplementedError

    def _open(self, *, create: bool = True) -> Store:
        return open_store(self.tracking_uri, create=create)

    # -- registered models

    def create_registered_model(
        self, name: str, tags: Optional[Mapping[str, Any]] = None, description: Optional[str] = None
    ) -> RegisteredModel:
        with self._open() as store:
            return store.create_registered_model(name, tags, description)

    def get_registered_model(self, name: str) -> RegisteredModel:
        with self._open(create=False) as store:
            return store.get_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        with self._open() as store:
            return store.rename_registered_model(name, new_name)

    def update_registered_model(self, name: str, description: Optional[str] = None) -> RegisteredModel:
        """Set the description."""
        with self._open() as store:
            return store.update_registered_model(name, description)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model with its versions, for good; their files stay where they are."""
        with self._open() as store:
            store.delete_registered_model(name)

    def search_registered_models(
        self,
        filter_string: Optional[str] = None,
        max_results: int = 100,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[RegisteredModel]:
        with self._open(create=False) as store:
            return store.search_registered_models(without_prompts(filter_string), max_results, order_by, page_token)

    def set_registered_model_tag(self, name: str, key: str, value: Any) -> None:
        with self._open() as store:
            store.set_registered_model_tag(name, key, value)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        with self._open() as store:
            store.delete_registered_model_tag(name, key)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Let ``alias`` name this version, and no other any more."""
        with self._open() as store:
            store.set_registered_model_alias(name, alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        with self._open() as store:
            store.delete_registered_model_alias(name, alias)

    # -- versions

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: Optional[str] = None,
        tags: Optional[Mapping[str, Any]] = None,
        run_link: Optional[str] = None,
        description: Optional[str] = None,
        await_creation_for: Optional[int] = 300,  # noqa: ARG002 - MLflow's signature; a version is ready when it is made
        local_model_path: Optional[str] = None,  # noqa: ARG002 - the same; of Unity Catalog
        model_id: Optional[str] = None,
    ) -> ModelVersion:
        """Create the next version of a model that is there. Nobody looks whether the source has files: see `register_model`."""
        with self._open() as store:
            return store.create_model_version(
                name, source, run_id, tags, run_link, description, model_id, user_id=context.user()
            )

    def copy_model_version(self, src_model_uri: str, dst_name: str) -> ModelVersion:
        """Make a version of ``dst_name``, which is created if need be, out of ``models:/<name>/<version>`` or what names one."""
        with self._open() as store:
            found = store.resolve_model_version(src_model_uri)
            return store.copy_model_version(found.name, found.version, dst_name)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        with self._open(create=False) as store:
            return store.get_model_version(name, version)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        with self._open(create=False) as store:
            return store.get_model_version_by_alias(name, alias)

    def get_latest_versions(self, name: str, stages: Optional[Sequence[str]] = None) -> List[ModelVersion]:
        """The newest version of each stage; ``stages`` says which, by default all."""
        with self._open(create=False) as store:
            return store.get_latest_versions(name, stages)

    def update_model_version(self, name: str, version: str, description: Optional[str] = None) -> ModelVersion:
        """Set the description."""
        with self._open() as store:
            return store.update_model_version(name, version, description)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Put a version into a stage; aliases say the same with words of your own."""
        with self._open() as store:
            return store.transition_model_version_stage(name, version, stage, archive_existing_versions)

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version, for good; its number is not given again and its files stay where they are."""
        with self._open() as store:
            store.delete_model_version(name, version)

    def search_model_versions(
        self,
        filter_string: Optional[str] = None,
        max_results: int = 10_000,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[ModelVersion]:
        with self._open(create=False) as store:
            return store.search_model_versions(filter_string, max_results, order_by, page_token)

    def get_model_version_stages(self, name: str, version: str) -> List[str]:  # noqa: ARG002 - MLflow's signature
        """The stages there are, the same for every version."""
        return list(ModelStage.ALL)

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """Where the files of a version are: a folder, or a URI."""
        with self._open(create=False) as store:
            return store.get_model_version_download_uri(name, version)

    def set_model_version_tag(
        self,
        name: str,
        version: Optional[str] = None,
        key: Optional[str] = None,
        value: Any = None,
        stage: Optional[str] = None,
    ) -> None:
        """Set a tag of a version, or of the newest one in a stage."""
        with self._open() as store:
            store.set_model_version_tag(name, _version_in(store, name, version, stage), str(key), value)

    def delete_model_version_tag(
        self, name: str, version: Optional[str] = None, key: Optional[str] = None, stage: Optional[str] = None
    ) -> None:
        with self._open() as store:
            store.delete_model_version_tag(name, _version_in(store, name, version, stage), str(key))

    # -- logged models

    def create_logged_model(
        self,
        experiment_id: str,
        name: Optional[str] = None,
        source_run_id: Optional[str] = None,
        tags: Optional[Mapping[str, Any]] = None,
        params: Optional[Mapping[str, Any]] = None,
        model_type: Optional[str] = None,
    ) -> LoggedModel:
        """Create a logged model that is PENDING until `finalize_logged_model`."""
        with self._open() as store:
            return store.create_logged_model(experiment_id, name, source_run_id, tags, params, model_type)

    def finalize_logged_model(self, model_id: str, status: str = LoggedModelStatus.READY) -> LoggedModel:
        with self._open() as store:
            return store.finalize_logged_model(model_id, str(status))

    def get_logged_model(self, model_id: str) -> LoggedModel:
        with self._open(create=False) as store:
            return store.get_logged_model(model_id)

    def delete_logged_model(self, model_id: str) -> None:
        with self._open() as store:
            store.delete_logged_model(model_id)

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, Any]) -> None:
        with self._open() as store:
            store.set_logged_model_tags(model_id, tags)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        with self._open() as store:
            store.delete_logged_model_tag(model_id, key)

    def log_model_params(self, model_id: str, params: Mapping[str, Any]) -> None:
        with self._open() as store:
            store.log_logged_model_params(model_id, params)

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: Optional[str] = None,
        datasets: Optional[Sequence[Mapping[str, Any]]] = None,
        max_results: Optional[int] = None,
        order_by: Optional[Sequence[Any]] = None,
        page_token: Optional[str] = None,
    ) -> Page[LoggedModel]:
        with self._open(create=False) as store:
            return store.search_logged_models(
                experiment_ids, filter_string, datasets, max_results or 100, order_by, page_token
            )


def _version_in(store: Store, name: str, version: Optional[str], stage: Optional[str]) -> str:
    if (version is None) == (stage is None):
        raise InvalidInput("give a version or a stage, one of them")
    if version is not None:
        return str(version)
    return store.resolve_model_version(f"models:/{name}/{stage}").version
