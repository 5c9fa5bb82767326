"""The active run of each thread and the calls that log to it: MLflow's fluent API.

A log call appends one line to the journal of this process and returns; nothing here opens the database unless an answer
is needed from it. Whether a run of ``mlcli run`` is continued decides who ends it:

    started here                     ended here: end_run, the end of ``with``, or the exit of the program
    continued from ``mlcli run``     ended by mlcli when the program is gone; a status set on purpose is written
    resumed by its id                as started here
"""

from __future__ import annotations

import atexit
import os
import sys
from threading import local
from types import TracebackType
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type, Union

from mlcli import config, content, context, journal, rules
from mlcli.artifacts import open_artifacts
from mlcli.entities import (
    Experiment,
    LifecycleStage,
    LoggedModelInput,
    LoggedModelMetric,
    Run,
    RunInfo,
    RunStatus,
    ViewType,
    all_pages,
)
from mlcli.errors import InvalidInput, InvalidState, MlcliError, NotFound
from mlcli.live import LiveRun, attach, check_stage
from mlcli.store import is_remote, open_store, server_of, store_root, takes_new_runs, tidy

DEFAULT_EXPERIMENT = "0"
_TRACKING_VARIABLE = "MLCLI_TRACKING_URI"
_EXPERIMENT_VARIABLE = "MLCLI_EXPERIMENT_ID"


class _Thread(local):
    """What is active in this thread."""

    run: Optional[ActiveRun] = None
    stack: Tuple[ActiveRun, ...] = ()


class _Place(NamedTuple):
    """An experiment of a store, and the folder that its runs' artifacts lie in."""

    experiment_id: str
    location: str


class _Chosen(NamedTuple):
    """What set_experiment chose."""

    root: str
    experiment: Experiment


_thread = _Thread()
_open_runs: Dict[str, ActiveRun] = {}  # to be closed when this process exits
_places: Dict[Tuple[str, str, str], _Place] = {}
_chosen: Optional[_Chosen] = None
_last_run: Optional[Tuple[str, str]] = None
_crash: Optional[str] = None
_hooked = False


class RunOperations:
    """What a call with ``synchronous=False`` returns. The call is complete already; there is nothing to wait for."""

    def wait(self) -> None:
        pass


class ActiveRun(LiveRun):
    """The run that a thread logs to; as a context manager it ends the run: FINISHED, or FAILED after an exception."""

    def end(self, status: str, *, on_purpose: bool = True) -> None:
        _open_runs.pop(self.run_id, None)
        super().end(status, on_purpose=on_purpose)

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        _leave(self, _status_after(kind, error), on_purpose=not self.inherited)


# -- the store and the experiment


def set_tracking_uri(uri: Union[str, os.PathLike[str]]) -> None:
    """Choose the store: a folder, or the address of a server. Programs started from here use it too."""
    text = os.fspath(uri)
    if _inside_mlcli_run():
        _note(f"set_tracking_uri({text!r}) has no effect inside `mlcli run`, which keeps the run in its own store")
        return
    root = store_root(text) if text else ""
    os.environ[_TRACKING_VARIABLE] = text if is_remote(root) else root  # an address may hold a login


def get_tracking_uri() -> str:
    """The store in use: its folder, or the address of its server."""
    return _root()


def is_tracking_uri_set() -> bool:
    return config.tracking_uri().source.startswith(("MLCLI_", "MLFLOW_"))


def set_experiment(experiment_name: Optional[str] = None, experiment_id: Optional[str] = None) -> Experiment:
    """Choose the experiment of the runs that follow, by name (created if missing) or by id."""
    global _chosen  # noqa: PLW0603 - the choice is the program's, not a thread's
    if (experiment_name is None) == (experiment_id is None):
        raise InvalidInput("give a name or an experiment_id, one of them")
    root = _root()
    with open_store(root) as store:
        if experiment_name is not None:
            found = store.ensure_experiment(experiment_name)
        else:
            found = _active(store.get_experiment(str(experiment_id)))
    _chosen = _Chosen(root, found)
    _places[root, "id", found.experiment_id] = _Place(found.experiment_id, found.artifact_location)
    waiting = _inside_mlcli_run() and config.setting("run_id").value
    if waiting and config.setting("experiment_id").value not in (None, found.experiment_id):
        _note(
            f"`mlcli run` made this run in experiment {config.setting('experiment_id').value}; it stays there,"
            f" set_experiment({found.name!r}) is for runs that the program starts itself"
        )
    elif not _inside_mlcli_run():
        os.environ[_EXPERIMENT_VARIABLE] = found.experiment_id
    return found


def current_experiment_id() -> str:
    """The experiment that a run started now would be in."""
    return _place(_root()).experiment_id


def create_experiment(
    name: str, artifact_location: Optional[str] = None, tags: Optional[Mapping[str, Any]] = None
) -> str:
    """Create an experiment and return its id."""
    with open_store() as store:
        return store.create_experiment(name, artifact_location, tags)


def get_experiment(experiment_id: str) -> Experiment:
    with open_store(create=False) as store:
        return store.get_experiment(experiment_id)


def get_experiment_by_name(name: str) -> Optional[Experiment]:
    """The active experiment of that name, or None."""
    with open_store(create=False) as store:
        return store.find_experiment(name)


def search_experiments(
    view_type: str = ViewType.ACTIVE_ONLY,
    max_results: Optional[int] = None,
    filter_string: Optional[str] = None,
    order_by: Optional[Sequence[str]] = None,
) -> List[Experiment]:
    """Find experiments; by default all that are active, the newest first."""
    with open_store(create=False) as store:
        return all_pages(
            lambda size, token: store.search_experiments(filter_string or "", order_by or (), view_type, size, token),
            max_results,
        )


def delete_experiment(experiment_id: str) -> None:
    with open_store() as store:
        store.delete_experiment(experiment_id)


def set_experiment_tag(key: str, value: Any) -> None:
    """Set a tag of the active experiment."""
    set_experiment_tags({key: value})


def set_experiment_tags(tags: Mapping[str, Any]) -> None:
    """Set tags of the active experiment."""
    experiment_id = current_experiment_id()
    with open_store() as store:
        for key, value in tags.items():
            store.set_experiment_tag(experiment_id, key, value)


# -- the life of a run


def start_run(
    run_id: Optional[str] = None,
    experiment_id: Optional[str] = None,
    run_name: Optional[str] = None,
    nested: bool = False,
    parent_run_id: Optional[str] = None,
    tags: Optional[Mapping[str, Any]] = None,
    description: Optional[str] = None,
    log_system_metrics: Optional[bool] = None,  # noqa: ARG001 - MLflow's signature; there are none to log here
) -> ActiveRun:
    """Start a run, or go on with the run ``run_id``; use it as ``with mlcli.start_run():``.

    Inside ``mlcli run`` the first call goes on with the run that mlcli made; the next ones start new runs.
    """
    if _thread.run is not None and not nested:
        raise InvalidState(
            f"run {_thread.run.run_id} is active already",
            hint="end it with mlcli.end_run(), or start a child of it with start_run(nested=True)",
        )
    parent = _parent(parent_run_id)
    given: Dict[str, Any] = dict(tags or {})
    if description is not None:
        if given.get(context.NOTE, description) != description:
            raise InvalidInput(f"the description is given twice: as description and as the tag {context.NOTE}")
        given[context.NOTE] = description
    if run_name and given.get(context.RUN_NAME, run_name) != run_name:
        raise InvalidInput(f"the run is named {run_name!r} and, by its tag, {given[context.RUN_NAME]!r}")
    if parent:
        given[context.PARENT_RUN] = parent
    root, waiting = _run_of_the_environment()
    if run_id is None and waiting is not None:
        run = _go_on(root, waiting, experiment_id)
    elif run_id is not None:
        run = _go_on(root if run_id == waiting else _root(), rules.run_id(run_id), experiment_id)
    else:
        run = _start(_root(), experiment_id, run_name, given)
        run_name, given = None, {}
    if waiting == run.run_id:
        _take_run_of_the_environment()
    if run_name:
        given[context.RUN_NAME] = run_name
    run.set_tags(given)
    _enter(run)
    return run


def end_run(status: str = RunStatus.FINISHED) -> None:
    """End the active run, if there is one."""
    if status not in RunStatus.ALL:
        raise InvalidInput(f"{status!r} is not a run status", hint="one of " + ", ".join(RunStatus.ALL))
    if _thread.run is not None:
        _leave(_thread.run, status)


def active_run() -> Optional[ActiveRun]:
    """The run that this thread logs to, or None."""
    return _thread.run


def last_active_run() -> Optional[Run]:
    """The run that is active or was last, as it stands in the store now."""
    if _thread.run is None and _last_run is None:
        return None
    root, run_id = (_thread.run.root, _thread.run.run_id) if _thread.run else _last_run or ("", "")
    with open_store(root) as store:
        return store.get_run(run_id)


def get_run(run_id: str) -> Run:
    with open_store(create=False) as store:
        return store.get_run(run_id)


def get_parent_run(run_id: str) -> Optional[Run]:
    """The run that the tag ``mlflow.parentRunId`` of a run names, or None."""
    with open_store(create=False) as store:
        parent = store.get_run(run_id).data.tags.get(context.PARENT_RUN)
        return store.get_run(parent) if parent else None


def delete_run(run_id: str) -> None:
    with open_store() as store:
        store.delete_run(run_id)


def run_to_log(run_id: Optional[str] = None) -> LiveRun:
    """The active run, started if there is none; or the run ``run_id``, which must exist and not be deleted."""
    active = _thread.run
    if run_id is None:
        return active or start_run()
    return active if active is not None and active.run_id == run_id else attach(_root(), run_id)


# -- logging


def log_metric(
    key: str,
    value: Any,
    step: Optional[int] = None,
    synchronous: Optional[bool] = None,
    timestamp: Optional[int] = None,
    run_id: Optional[str] = None,
    model_id: Optional[str] = None,
    dataset: Any = None,
) -> Optional[RunOperations]:
    """Log one point of a metric; ``step`` is 0 unless given, ``timestamp`` (ms) now.

    With ``model_id`` it tells of that logged model too, on the ``dataset`` if one is given. A ``dataset`` is noted as an
    input of the run; a metric of the run alone has none, in MLflow neither.
    """
    if model_id is not None or dataset is not None:
        return log_metrics({key: value}, step, synchronous, run_id, timestamp, model_id, dataset)
    run: Optional[LiveRun] = _thread.run
    if run is None or run_id is not None:
        run = run_to_log(run_id)
    if timestamp is not None:
        timestamp = rules.timestamp(timestamp)
    run.journal.metric(run.run_id, key, value, 0 if step is None else rules.int64(step, "a step"), timestamp)
    return None if synchronous is None else _done(synchronous)


def log_metrics(
    metrics: Mapping[str, Any],
    step: Optional[int] = None,
    synchronous: Optional[bool] = None,
    run_id: Optional[str] = None,
    timestamp: Optional[int] = None,
    model_id: Optional[str] = None,
    dataset: Any = None,
) -> Optional[RunOperations]:
    """Log several metrics of one step: all of them or, if one is no number, none. ``model_id``: see `log_metric`."""
    run = run_to_log(run_id)
    name, digest = "", ""
    if dataset is not None:
        on = content.dataset(dataset)
        name, digest = on.name, on.digest
        run.ensure_input(on)
    if model_id is None:
        run.log_metrics(metrics, step, timestamp)
    else:
        log_to_model(run.root, run.run_id, model_id, metrics, step, timestamp, name, digest)
    return _done(synchronous)


def log_to_model(
    root: str,
    run_id: str,
    model_id: str,
    metrics: Mapping[str, Any],
    step: Optional[int],
    timestamp: Optional[int],
    dataset_name: str,
    dataset_digest: str,
) -> None:
    """Log metrics of a run that tell of a logged model; one that the run did not make is noted as its input, as in MLflow.

    This goes to the store at once, not to the journal: the model must be there.
    """
    time = journal.now() if timestamp is None else rules.timestamp(timestamp)
    at = 0 if step is None else rules.int64(step, "a step")
    points = [
        LoggedModelMetric(key, rules.metric_value(key, value), time, at, model_id, run_id, dataset_name, dataset_digest)
        for key, value in metrics.items()
    ]
    with open_store(root) as store:
        run = store.get_run(run_id)
        made = {item.model_id for item in run.outputs.model_outputs}
        if model_id not in made | {item.model_id for item in run.inputs.model_inputs}:
            store.log_inputs(run_id, models=[LoggedModelInput(model_id)])
        store.log_batch(run_id, points)


def log_param(key: str, value: Any, synchronous: Optional[bool] = None) -> Any:
    """Log a param, written once; any value is kept as its text. Returns the value."""
    run_to_log().log_params({key: value})
    return value if synchronous is not False else RunOperations()


def log_params(
    params: Mapping[str, Any], synchronous: Optional[bool] = None, run_id: Optional[str] = None
) -> Optional[RunOperations]:
    """Log several params: all of them or, if one is not acceptable, none."""
    run_to_log(run_id).log_params(params)
    return _done(synchronous)


def set_tag(key: str, value: Any, synchronous: Optional[bool] = None) -> Optional[RunOperations]:
    run_to_log().set_tags({key: value})
    return _done(synchronous)


def set_tags(tags: Mapping[str, Any], synchronous: Optional[bool] = None) -> Optional[RunOperations]:
    run_to_log().set_tags(tags)
    return _done(synchronous)


def delete_tag(key: str) -> None:
    """Delete a tag of the active run; NotFound when it has none of that name."""
    run_to_log().delete_tag(key)


def flush_async_logging() -> None:
    """Nothing waits: each call has been written when it returns."""


def log_input(dataset: Any, context: Optional[str] = None, tags: Optional[Mapping[str, str]] = None) -> None:
    """Note a dataset the run read: an `entities.Dataset`, or any object with MLflow's ``to_dict``."""
    noted = dict(tags or {})
    if context is not None:
        noted["mlflow.data.context"] = context
    run_to_log().log_input(content.dataset(dataset), noted)


def log_inputs(
    datasets: Sequence[Any],
    contexts: Optional[Sequence[Optional[str]]] = None,
    tags_list: Optional[Sequence[Optional[Mapping[str, str]]]] = None,
) -> None:
    """Note several datasets."""
    for index, dataset in enumerate(datasets):
        log_input(dataset, contexts[index] if contexts else None, tags_list[index] if tags_list else None)


# -- artifacts


def log_artifact(
    local_path: Union[str, os.PathLike[str]], artifact_path: Optional[str] = None, run_id: Optional[str] = None
) -> None:
    """Copy a file (or a folder) into the run's artifacts, below ``artifact_path``."""
    run_to_log(run_id).artifacts.put(os.fspath(local_path), artifact_path or "")


def log_artifacts(
    local_dir: Union[str, os.PathLike[str]], artifact_path: Optional[str] = None, run_id: Optional[str] = None
) -> None:
    """Copy what is in a folder into the run's artifacts, below ``artifact_path``."""
    run_to_log(run_id).artifacts.put_tree(os.fspath(local_dir), artifact_path or "")


def log_text(text: str, artifact_file: str, run_id: Optional[str] = None) -> None:
    """Write ``text`` as an artifact, in UTF-8."""
    run_to_log(run_id).log_text(text, artifact_file)


def log_dict(dictionary: Any, artifact_file: str, run_id: Optional[str] = None) -> None:
    """Write a dictionary or list as YAML where the name ends so (.yaml, .yml), else as JSON."""
    run_to_log(run_id).log_dict(dictionary, artifact_file)


def log_figure(figure: Any, artifact_file: str, *, save_kwargs: Optional[Mapping[str, Any]] = None) -> None:
    """Save a matplotlib or plotly figure in the format that the name ends with."""
    run_to_log().log_figure(figure, artifact_file, save_kwargs)


def log_image(
    image: Any,
    artifact_file: Optional[str] = None,
    key: Optional[str] = None,
    step: Optional[int] = None,
    timestamp: Optional[int] = None,
    synchronous: Optional[bool] = None,
) -> Optional[RunOperations]:
    """Save an image (Pillow's, or an array) under a name, or under a ``key`` as one of a series of steps."""
    run_to_log().log_image(image, image_name(artifact_file, key, step, timestamp))
    return _done(synchronous)


def image_name(
    artifact_file: Optional[str], key: Optional[str], step: Optional[int] = None, timestamp: Optional[int] = None
) -> str:
    """The artifact's name of an image: the one given, or one of the series ``key``, in MLflow's form."""
    if (artifact_file is None) == (key is None):
        raise InvalidInput("give artifact_file or key, one of them")
    if key is None:
        return artifact_file or ""
    name = rules.key(key, "image").replace("/", "#")
    time = journal.now() if timestamp is None else rules.timestamp(timestamp)
    number = rules.int64(step or 0, "a step")
    return f"images/{name}+step+{number}+timestamp+{time}+{os.urandom(8).hex()}.png"


def log_table(data: Any, artifact_file: str, run_id: Optional[str] = None) -> None:
    """Append rows (a DataFrame, or a dictionary of columns) to a JSON table."""
    run_to_log(run_id).log_table(data, artifact_file)


def load_table(
    artifact_file: str, run_ids: Optional[Sequence[str]] = None, extra_columns: Optional[Sequence[str]] = None
) -> Any:
    """Read a table of several runs (by default of all in the active experiment that have it) as one DataFrame.

    ``extra_columns`` are columns of `search_runs`, such as run_id or params.lr, that tell the runs apart.
    """
    root = _root()
    return tables(root, _place(root).experiment_id, artifact_file, run_ids, extra_columns)


def tables(
    root: str,
    experiment_id: str,
    artifact_file: str,
    run_ids: Optional[Sequence[str]],
    extra_columns: Optional[Sequence[str]],
) -> Any:
    """What `load_table` and the client's give: the rows of each run's table, those of the newest run first."""
    pandas = content.pandas("load_table")
    with open_store(root, create=False) as store:
        if run_ids:
            runs = sorted(map(store.get_run, run_ids), key=lambda run: -run.info.start_time)
        else:
            having = "tags.mlflow.loggedArtifacts IS NOT NULL"
            runs = all_pages(
                lambda size, token: store.search_runs([experiment_id], having, max_results=size, page_token=token), None
            )
    frames = []
    for run in runs:
        table = content.read_table(open_artifacts(run.info.artifact_uri).path(artifact_file), artifact_file)
        if table is None and run_ids:
            raise NotFound(f"run {run.info.run_id} has no table {artifact_file!r}")
        if table is not None:
            frame = pandas.DataFrame(table["data"], columns=table["columns"])
            about = content.frame(pandas, [run])
            for name in extra_columns or ():
                frame[name] = about[name][0] if name in about else None
            frames.append(frame)
    if not frames:
        raise NotFound(f"no run of experiment {experiment_id} has a table {artifact_file!r}")
    return pandas.concat(frames, ignore_index=True)


def get_artifact_uri(artifact_path: Optional[str] = None) -> str:
    """Where the active run's artifacts lie, or one of them."""
    root = run_to_log().info.artifact_uri
    return f"{root}/{rules.artifact_path(artifact_path)}" if artifact_path else root


# -- searching


def search_runs(
    experiment_ids: Union[str, Sequence[str], None] = None,
    filter_string: str = "",
    run_view_type: str = ViewType.ACTIVE_ONLY,
    max_results: int = 100_000,
    order_by: Optional[Sequence[str]] = None,
    output_format: str = "pandas",
    search_all_experiments: bool = False,
    experiment_names: Optional[Sequence[str]] = None,
) -> Any:
    """Find runs, as a DataFrame or with ``output_format="list"`` as a list; by default in the active experiment."""
    if output_format not in ("pandas", "list"):
        raise InvalidInput(f"output_format is 'pandas' or 'list', not {output_format!r}")
    if experiment_ids and experiment_names:
        raise InvalidInput("give experiment_ids or experiment_names, one of them")
    pandas = content.pandas("search_runs", 'output_format="list"') if output_format == "pandas" else None
    with open_store(create=False) as store:
        ids: Optional[List[str]] = None
        if experiment_names:
            found = [store.find_experiment(name) for name in experiment_names]
            ids = [item.experiment_id for item in found if item is not None]
        elif experiment_ids:
            ids = [experiment_ids] if isinstance(experiment_ids, str) else list(experiment_ids)
        elif not search_all_experiments:
            ids = [_place(_root()).experiment_id]
        runs = all_pages(
            lambda size, token: store.search_runs(ids, filter_string, run_view_type, size, order_by or (), token),
            max_results,
        )
    return runs if pandas is None else content.frame(pandas, runs)


# -- how


def _root() -> str:
    """The store, its folder or its server's address; inside ``mlcli run`` the one that holds its run."""
    path = config.setting("journal").value
    if not path:
        return store_root()
    folder = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    return server_of(folder) or folder


def _inside_mlcli_run() -> bool:
    return config.setting("journal").value is not None


def _run_of_the_environment() -> Tuple[str, Optional[str]]:
    """The store and id of the run that this program is to go on with."""
    return _root(), config.setting("run_id").value


def _take_run_of_the_environment() -> None:
    """Only the first start_run goes on with it, neither the next nor one in a child process."""
    for variable in ("MLCLI_RUN_ID", "MLFLOW_RUN_ID"):
        os.environ.pop(variable, None)


def _active(experiment: Experiment) -> Experiment:
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidState(
            f"experiment {experiment.experiment_id} ({experiment.name!r}) is deleted",
            hint=f"`mlcli experiments restore {experiment.experiment_id}` brings it back",
        )
    return experiment


def _place(root: str, experiment_id: Optional[str] = None) -> _Place:
    """The experiment for a new run: given, chosen by set_experiment, named by the settings, else Default."""
    if experiment_id is None and _chosen is not None:
        if _chosen.root == root:
            return _Place(_chosen.experiment.experiment_id, _chosen.experiment.artifact_location)
        return _look_up(root, "name", _chosen.experiment.name)
    if experiment_id is None:
        experiment_id = config.setting("experiment_id").value
    if experiment_id is not None:
        return _look_up(root, "id", str(experiment_id))
    name = config.setting("experiment_name").value
    if name is not None:
        return _look_up(root, "name", name)
    if is_remote(root):
        return _look_up(root, "id", DEFAULT_EXPERIMENT)
    return _Place(DEFAULT_EXPERIMENT, os.path.join(root, DEFAULT_EXPERIMENT))


def _look_up(root: str, kind: str, value: str) -> _Place:
    found = _places.get((root, kind, value))
    if found is None:
        with open_store(root) as store:
            experiment = store.ensure_experiment(value) if kind == "name" else _active(store.get_experiment(value))
        found = _places[root, kind, value] = _Place(experiment.experiment_id, experiment.artifact_location)
    return found


def start_aside(parent: LiveRun, tags: Mapping[str, Any], time: int) -> LiveRun:
    """A run in the experiment of ``parent``, begun at ``time`` (ms) and active in no thread; the caller ends it."""
    return _start(parent.root, parent.info.experiment_id, None, tags, time)


def _start(
    root: str,
    experiment_id: Optional[str],
    run_name: Optional[str],
    tags: Mapping[str, Any],
    time: Optional[int] = None,
) -> ActiveRun:
    place = _place(root, experiment_id)
    all_tags = {**context.default_tags(), **tags}
    name = str(run_name or all_tags.get(context.RUN_NAME) or journal.new_run_name())
    user = all_tags.get(context.USER, "")
    if is_remote(root) and not takes_new_runs(root):  # MLflow: the server gives the id
        with open_store(root) as store:
            made = store.create_run(place.experiment_id, time, all_tags, name, str(user)).info
        run = ActiveRun(root, made.run_id, info=made)
        run.journal.resume_run(made.run_id, made.start_time)
        run.known_params = {}
        return run
    run_id, time = journal.new_run_id(), journal.now() if time is None else time
    uri = f"{place.location.rstrip('/')}/{run_id}/artifacts"
    info = RunInfo(run_id, place.experiment_id, name, user, RunStatus.RUNNING, time, None, uri)
    run = ActiveRun(root, run_id, info=info)
    run.journal.start_run(run_id, place.experiment_id, name, user, time, RunStatus.RUNNING, all_tags)
    run.known_params = {}
    return run


def _go_on(root: str, run_id: str, experiment_id: Optional[str]) -> ActiveRun:
    """Go on with a run: one that ``mlcli run`` holds as it is, another one by making it ours."""
    if _inside_mlcli_run() and run_id == config.setting("run_id").value:
        return ActiveRun(root, run_id, watched=True)
    with open_store(root) as store:
        info = store.get_run(run_id).info
    check_stage(info)
    if experiment_id is not None and str(experiment_id) != info.experiment_id:
        raise InvalidInput(f"run {run_id} is in experiment {info.experiment_id}, not in {experiment_id}")
    run = ActiveRun(root, run_id, info=info._replace(status=RunStatus.RUNNING))
    run.journal.resume_run(run_id, journal.now())
    return run


def _parent(parent_run_id: Optional[str]) -> Optional[str]:
    active = _thread.run
    if parent_run_id is None:
        return active.run_id if active is not None else None
    if active is not None:
        if active.run_id != parent_run_id:
            raise InvalidInput(f"the active run is {active.run_id}, so the parent cannot be {parent_run_id}")
        return parent_run_id
    with open_store(_root()) as store:
        check_stage(store.get_run(parent_run_id).info)
    return parent_run_id


def _enter(run: ActiveRun) -> None:
    global _last_run  # noqa: PLW0603 - what last_active_run answers
    _thread.stack = (*_thread.stack, run)
    _thread.run = run
    _last_run = (run.root, run.run_id)
    _open_runs[run.run_id] = run
    if not _hooked:
        _hook()
    elif is_remote(run.root):  # the runs are ended before what is left is sent, whichever store came first
        atexit.unregister(_at_exit)
        atexit.register(_at_exit)


def _leave(run: ActiveRun, status: str, *, on_purpose: bool = True) -> None:
    """End ``run``; it and what was started inside of it and not ended are no longer active in this thread."""
    stack = _thread.stack
    if run in stack:
        place = stack.index(run)
        for inner in reversed(stack[place + 1 :]):
            inner.end(status, on_purpose=on_purpose)
        _thread.stack = stack[:place]
        _thread.run = stack[place - 1] if place else None
    elif run.run_id not in _open_runs:  # ended already: with start_run() as run: mlcli.end_run()
        return
    run.end(status, on_purpose=on_purpose)


def _status_after(kind: Optional[Type[BaseException]], error: Optional[BaseException]) -> str:
    """What an exception, or none, says about the run it ended."""
    if kind is None or (issubclass(kind, SystemExit) and getattr(error, "code", None) in (None, 0)):
        return RunStatus.FINISHED
    return RunStatus.KILLED if issubclass(kind, KeyboardInterrupt) else RunStatus.FAILED


def _hook() -> None:
    """Close at exit what is left open, with the status that an uncaught exception gives it; then tidy the store."""
    global _hooked  # noqa: PLW0603 - once per process
    _hooked = True
    before = sys.excepthook

    def note_crash(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
        global _crash  # noqa: PLW0603 - read once, at exit
        _crash = _status_after(kind, error)
        before(kind, error, trace)

    sys.excepthook = note_crash
    atexit.register(_at_exit)


def _at_exit() -> None:
    """End what was left open, and see to it that many short programs in a row leave no heap for the next reader."""
    for run in reversed(list(_open_runs.values())):
        _end_quietly(run)
    for root in journal.written():
        tidy(root)


def _end_quietly(run: ActiveRun) -> None:
    try:
        run.end(_crash or RunStatus.FINISHED, on_purpose=False)
    except MlcliError as error:  # e.g. a full disk: the readers close the run
        _note(error.message)


def _after_fork() -> None:
    """A child may log to its parent's runs; it does not end them when it exits."""
    _open_runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _done(synchronous: Optional[bool]) -> Optional[RunOperations]:
    return RunOperations() if synchronous is False else None


def _note(text: str) -> None:
    print(f"mlcli: {text}", file=sys.stderr)
