"""A project, an environment and a store become a recorded run whose status tells the truth. Prints nothing itself.

plan     project, entry point, command, experiment: all that can be wrong is found here; no run exists yet
execute  the run is made (SCHEDULED) -> environment -> RUNNING -> child -> FINISHED | FAILED | KILLED

what happens                               status     mlcli exits with
the child exits with 0                     FINISHED   0 (a script that set an end status on purpose keeps it)
the child exits with n                     FAILED     n
the child is killed by signal n            KILLED     128 + n
mlcli is sent SIGINT, SIGTERM, SIGHUP      KILLED     130, 143, 129 (while the environment is built, too)
the environment cannot be built            FAILED     5
the command is not there, not executable   FAILED     127, 126
mlcli is killed with -9                    KILLED     the guardian ends the child and writes it down
mlcli and the guardian are killed          KILLED     by the next reader of the store
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from mlcli import bridge, config, context, envs, journal, kin, projects, rules
from mlcli._version import __version__
from mlcli.artifacts import open_artifacts
from mlcli.child import GRACE, End, run_child
from mlcli.entities import LifecycleStage, Run, RunData, RunInfo, RunStatus
from mlcli.errors import (
    AlreadyExists,
    EnvError,
    InvalidInput,
    InvalidState,
    MlcliError,
    NotFound,
    ProjectError,
    RunFailed,
    StoreUnavailable,
)
from mlcli.guardian import Guardian
from mlcli.output import Output
from mlcli.projects import download, git
from mlcli.shipment import Shipment, login_variables
from mlcli.store import folder_of, is_remote, open_journal, open_store, store_root, takes_new_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from mlcli.artifacts import LocalArtifacts
    from mlcli.entities import Experiment, FileInfo
    from mlcli.envs import Env
    from mlcli.journal import Journal
    from mlcli.projects import Command, EntryPoint, Problem, Project
    from mlcli.projects.download import Download
    from mlcli.store import Store

LOG = "logs/output.log"
ENV_LOG = "logs/env.log"
DIFF = "code/diff.patch"
FREEZE = "environment/requirements.txt"

BROUGHT = ("local", "docker")  # the env managers to which it does not matter what the environment file says

# The tags of a run of a project. MLflow's names where it has them.
TAGS = {
    "mlflow.user": "who ran it",
    "mlflow.source.name": "the project: its folder, or the URI as typed",
    "mlflow.source.type": "PROJECT",
    "mlflow.source.git.commit": "HEAD of the project's repository",
    "mlflow.source.git.repoURL": "its first remote, without credentials",
    "mlflow.source.git.branch": "the branch asked for, or checked out",
    "mlflow.project.entryPoint": "the entry point",
    "mlflow.project.backend": "local",
    "mlflow.project.env": "the env manager, unless local",
    "mlflow.parentRunId": "the run that started this one",
    "mlcli.version": "of mlcli",
    "mlcli.command": "the command, for people",
    "mlcli.cwd": "where it ran",
    "mlcli.host": "the machine",
    "mlcli.git.dirty": "true when the work tree had uncommitted changes (then there is code/diff.patch)",
    "mlcli.env.manager": "the env manager",
    "mlcli.env.key": "the environment's key, see `mlcli env ls`",
    "mlcli.env.python": "the version of the environment's Python",
    "mlcli.exit_code": "what the child ended with, in a shell's words",
    "mlcli.signal": "the signal that ended the child",
    "mlcli.end_reason": "why the run did not end well, in a sentence",
    "mlcli.duration_ms": "how long the child ran, by a clock that nobody can set",
    "mlcli.peak_memory_bytes": "the most memory one process of the child had",
    "mlcli.cpu_seconds": "the CPU time of the child and those it waited for",
}

OF_THE_END = ("mlcli.exit_code", "mlcli.signal", "mlcli.end_reason", "mlcli.duration_ms")


class Request(NamedTuple):
    """What somebody wants run. None means: by the settings, or the project's default."""

    uri: str
    entry_point: str | None = None
    version: str | None = None
    parameters: Mapping[str, str] = {}
    experiment_name: str | None = None
    experiment_id: str | None = None
    run_name: str | None = None
    tags: Mapping[str, str] = {}
    env_manager: str | None = None
    storage_dir: str | None = None
    docker_args: tuple[str, ...] = ()
    strict_python: bool = False
    submodules: bool = False
    tracking_uri: str | None = None
    run_id: str | None = None  # an existing run to run again into
    new_run_id: str | None = None  # the id of the run to be made, when the caller must know it
    parent_run_id: str | None = None


class Plan(NamedTuple):
    """A request with everything found and checked that can be before anything slow starts."""

    request: Request
    project: Project
    entry: EntryPoint
    command: Command
    env_manager: str | None  # as asked for, or inherited
    experiment: tuple[str, str]  # ("name" or "id", which one)
    grace: float  # seconds between SIGTERM and SIGKILL


class Listener(NamedTuple):
    """Whom the run tells what it does; each gets a sentence."""

    progress: Callable[[str], None] = lambda _text: None
    note: Callable[[str], None] = lambda _text: None
    warn: Callable[[str], None] = lambda _text: None
    created: Callable[[str, str, str], None] = lambda _run_id, _name, _experiment: None


class Outcome(NamedTuple):
    """A run that has ended: as the store has it, how its child ended, what mlcli exits with."""

    run: Run
    exit_code: int
    end: End | None
    env: Env | None


def run(
    request: Request, listener: Listener | None = None, *, stdout: int | None = 1, stderr: int | None = 2
) -> Outcome:
    """Run a project to its end and record it. Raises EnvError or RunFailed when the child never started."""
    listener = listener or Listener()
    return execute(plan(request, listener.progress), listener, stdout=stdout, stderr=stderr)


# -- before there is a run


def plan(request: Request, progress: Callable[[str], None] = lambda _text: None) -> Plan:
    """Find and check everything; nothing is built or recorded, at most a project is fetched (``progress``)."""
    if sys.platform == "win32":
        raise InvalidInput("running projects needs Linux or macOS", hint="on Windows, use mlcli inside WSL")
    for key, value in request.tags.items():
        rules.tag_value(rules.key(key, "tag"), value)
    if request.run_name:
        rules.run_name(request.run_name)
    experiment = _asked_experiment(request)
    project = projects.load(request.uri, request.version, submodules=request.submodules, progress=progress)
    entry = projects.entry_point(project, request.entry_point)
    command = projects.command(project, entry, request.parameters, storage_dir=_storage(request))
    for key, value in command.parameters.items():
        rules.param_value(rules.key(key, "param"), value)
    manager = config.setting("env_manager", request.env_manager).value
    notes = [*command.notes, *_unused(request, manager, envs.choose(project.env, manager))]
    command = command._replace(notes=tuple(notes))
    return Plan(request, project, entry, command, manager, experiment, _grace())


def _storage(request: Request) -> str | None:
    return request.storage_dir or os.environ.get("MLFLOW_TMP_DIR") or None


def _unused(request: Request, asked: str | None, manager: str) -> list[str]:
    """Say which options mean nothing for this project; raises where one of docker's is malformed."""
    if manager != "docker":
        return ["the project has no docker_env: --docker-args is not used"] if request.docker_args else []
    from mlcli.envs import docker

    docker.options(request.docker_args)
    if asked in (None, "docker"):
        return []
    return [f"the project has a docker_env, so it runs in docker: the env manager `{asked}` is not used"]


def container(plan: Plan) -> tuple[str, ...]:
    """The `docker run` of a project with an image, without the variables that tell the program its run."""
    from mlcli.envs import docker

    argv = docker.docker_argv(
        plan.project.env,
        plan.command.argv,
        variables={},
        store=store_root(plan.request.tracking_uri),
        tracker=envs.expose_tracker(),
        args=plan.request.docker_args,
    )
    return tuple(argv)


def _asked_experiment(request: Request) -> tuple[str, str]:
    """The experiment that the flags name, else the variables, else the configuration file, else Default."""
    if request.experiment_name and request.experiment_id:
        raise InvalidInput("--experiment-name and --experiment-id are both given", hint="give one of them")
    if request.experiment_name:
        return "name", rules.experiment_name(request.experiment_name)
    if request.experiment_id:
        return "id", request.experiment_id
    name, by_id = config.setting("experiment_name"), config.setting("experiment_id")
    # A variable says more than a configuration file.
    found = [item for item in (name, by_id) if item.value and item.source.isupper()] or [
        item for item in (name, by_id) if item.value
    ]
    if len(found) > 1:
        raise InvalidInput(
            f"the experiment is named twice: {name.value!r} by {name.source} and {by_id.value!r} by {by_id.source}",
            hint="unset one of them, or say --experiment-name or --experiment-id",
        )
    if not found:
        return "name", "Default"
    kind = "name" if found[0] is name else "id"
    value = found[0].value or ""
    return kind, rules.experiment_name(value) if kind == "name" else value


def problems(plan: Plan) -> list[Problem]:
    """What is worth telling about the project, though it does not stop this run."""
    brought = envs.choose(plan.project.env, plan.env_manager) in BROUGHT
    return [*plan.project.problems, *(() if brought else plan.project.env.problems)]


def preview(plan: Plan) -> envs.Preview:
    """Look at the environment without building it or installing anything."""
    return envs.preview(plan.project.env, plan.env_manager, strict_python=plan.request.strict_python)


def _experiment(store: Store, asked: tuple[str, str]) -> Experiment:
    kind, value = asked
    if kind == "name":
        return store.ensure_experiment(value)
    found = store.get_experiment(value)
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidState(
            f"experiment {value} ({found.name!r}) is deleted",
            hint=f"`mlcli experiments restore {value}` brings it back",
        )
    return found


def _parent(store: Store, request: Request) -> str | None:
    """The run that this one is started from: said by the caller, or by the environment when this store knows it."""
    if request.parent_run_id:
        return store.get_run(request.parent_run_id).info.run_id
    inherited = os.environ.get("MLCLI_PARENT_RUN_ID") or config.setting("run_id").value
    if not inherited:
        return None
    try:
        return store.get_run(inherited).info.run_id
    except NotFound:
        return None


# -- the run


def execute(plan: Plan, listener: Listener, *, stdout: int | None = 1, stderr: int | None = 2) -> Outcome:
    """Make the run, and end it truthfully whatever happens."""
    output: Output | None = None
    try:
        store_root(plan.request.tracking_uri)  # where a program cannot log, as in a database, none is started
        with open_store(plan.request.tracking_uri) as store:
            recorder = _Recorder(store, plan, _identity(store, plan), listener.note)
            with recorder:
                listener.created(recorder.run_id, recorder.name, recorder.experiment.name)
                for note in plan.command.notes:
                    listener.note(note)
                env = _environment(plan, recorder, listener)
                _fetch(plan.command.downloads, listener, recorder.run_id)
                _keep_changes(plan.project, recorder.artifacts, listener)
                output = Output(recorder.path(LOG), stdout=stdout, stderr=stderr)
                with envs.in_use(env):
                    end = _child(plan, recorder, env, output, listener)
                _record_end(recorder, end)
                _keep_freeze(env, recorder.artifacts, listener)
            run = recorder.recorded()
        output.flush()  # only now: a reader of ours that sleeps must not keep the run alive
        if end.leftovers:
            listener.warn(f"the program left processes behind, which were ended: {kin.names(end.leftovers)}")
        if output.log.problem:
            listener.warn(output.log.problem)
    finally:
        if output:
            output.close()
        if plan.command.downloads and _storage(plan.request) is None:
            shutil.rmtree(plan.command.downloads[0].folder, ignore_errors=True)
    return Outcome(run, end.exit_code, end, env)


class _Identity(NamedTuple):
    """Which run it is; ``known`` when the store has it already, and it is run again into."""

    run_id: str
    name: str
    experiment: Experiment
    artifacts: str
    known: bool


def _identity(store: Store, plan: Plan) -> _Identity:
    request = plan.request
    if request.run_id:
        run = _existing(store, plan, request.run_id)
        experiment = store.get_experiment(run.info.experiment_id)
        return _Identity(
            run.info.run_id, request.run_name or run.info.run_name, experiment, run.info.artifact_uri, known=True
        )
    experiment = _experiment(store, plan.experiment)
    run_id = journal.new_run_id()
    if request.new_run_id:
        run_id = rules.run_id(request.new_run_id)
        if _known(store, run_id):
            raise AlreadyExists(f"there is a run {run_id} already", hint="--run-id runs again into an existing one")
    location = f"{experiment.artifact_location.rstrip('/')}/{run_id}/artifacts"
    return _Identity(run_id, request.run_name or journal.new_run_name(), experiment, location, known=False)


def _known(store: Store, run_id: str) -> bool:
    try:
        store.get_run(run_id)
    except NotFound:
        return False
    return True


def _existing(store: Store, plan: Plan, reference: str) -> Run:
    """The run to run again into: it must not be alive, and its params cannot change."""
    run = store.get_run(store.find_run(reference))
    name = f"run {run.info.run_id}"
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidState(f"{name} is deleted", hint=f"`mlcli runs restore {run.info.run_id}` brings it back")
    if not RunStatus.is_terminated(run.info.status):
        raise InvalidState(f"{name} is {run.info.status}", hint="wait for its end, or make a new run")
    if plan.request.experiment_id or plan.request.experiment_name:
        experiment = _experiment(store, plan.experiment)
        if experiment.experiment_id != run.info.experiment_id:
            raise InvalidInput(f"{name} is in experiment {run.info.experiment_id}, not in {experiment.name!r}")
    for key, value in plan.command.parameters.items():
        if run.data.params.get(key, value) != value:
            raise InvalidInput(
                f"param {key!r} of {name} is {run.data.params[key]!r} and cannot become {value!r}",
                hint="leave --run-id out: a new run keeps both",
            )
    return run


class _Recorder:
    """The run in the store, from its birth to its end; an exception on the way out ends it with its reason."""

    def __init__(self, store: Store, plan: Plan, identity: _Identity, note: Callable[[str], None]) -> None:
        self.store = store
        self.note = note
        self.run_id = identity.run_id
        self.name = identity.name
        self.experiment = identity.experiment
        self._ended = False
        self._shipment: Shipment | None = None
        self._status, self._begun, self._params = RunStatus.RUNNING, journal.now(), plan.command.parameters
        parent = _parent(store, plan.request)
        user = context.user()
        tags = _birth_tags(plan, user)
        if parent:
            tags["mlflow.parentRunId"] = parent
        tags.update(plan.request.tags)
        given = not identity.known and not takes_new_runs(store.root)  # by an MLflow server: the run and its id
        if given:
            self.run_id = _made_by_server(store, plan, self.experiment, self.name, user, tags)
        if is_remote(store.root):
            self._shipment = Shipment(store.root, self.run_id)
            self.artifacts: LocalArtifacts = self._shipment.artifacts
        else:
            self.artifacts = open_artifacts(identity.artifacts)
        self.journal: Journal = open_journal(store.root)
        # Lines by others go to a journal of their own: a torn one must not swallow ours.
        self.others: Journal = open_journal(store.root, default_run=self.run_id)
        try:
            if identity.known or given:
                self._begin_again(tags, plan.command.parameters)
            else:
                self.journal.start_run(
                    self.run_id,
                    self.experiment.experiment_id,
                    self.name,
                    user,
                    journal.now(),
                    RunStatus.SCHEDULED,
                    tags,
                    plan.command.parameters,
                )
            if self._shipment is not None:
                self._shipment.flush()  # the program asks the server for its run
        except BaseException:
            self._close()
            raise

    def settle(self) -> None:
        """Send what the program has logged, also when it died before it could."""
        if self._shipment is not None:
            self._shipment.settle()

    def recorded(self) -> Run:
        """The run as the store has it, or as far as we know it while its server is away."""
        try:
            return self.store.get_run(self.run_id)
        except StoreUnavailable:
            if self._shipment is None:
                raise
        info = RunInfo(self.run_id, self.experiment.experiment_id, self.name, "", self._status, self._begun, None, "")
        return Run(info, RunData({}, dict(self._params), {}))

    def _begin_again(self, tags: dict[str, str], params: Mapping[str, str]) -> None:
        self.journal.resume_run(self.run_id, journal.now())
        self.journal.status(self.run_id, RunStatus.SCHEDULED)
        for key in OF_THE_END:
            self.journal.untag(self.run_id, key)
        self.journal.tags(self.run_id, {**tags, "mlflow.runName": self.name})
        self.journal.params(self.run_id, params)

    def path(self, artifact: str) -> str:
        return os.path.join(self.artifacts.root, *artifact.split("/"))

    def tags(self, tags: Mapping[str, str]) -> None:
        self.journal.tags(self.run_id, {key: _cut(value) for key, value in tags.items()})

    def status(self, status: str) -> None:
        self.journal.status(self.run_id, status)

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Write the end down; it is on the disk when this returns."""
        if tags:
            self.tags(tags)
        self.status(status)
        self._status = status
        self._ended = True
        self.journal.sync()

    def __enter__(self) -> _Recorder:
        self._signals = _Interruptible()
        return self

    def hold(self) -> None:
        """From here on the child is there: what ends it is passed on to it."""
        self._signals.deaf = True
        if self._signals.heard is not None:
            # It struck where Python drops exceptions (a finaliser, a callback of a library): let it count all the same.
            os.kill(os.getpid(), self._signals.heard)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self._signals.deaf = True
        try:
            if not self._ended:
                self.end(*_failure(error))
        finally:
            self._close()
            if self._shipment is not None:
                self._shipment.send(self.note)
            self._signals.put_back()

    def _close(self) -> None:
        self.journal.close()
        self.others.close()


def _made_by_server(
    store: Store, plan: Plan, experiment: Experiment, name: str, user: str, tags: Mapping[str, str]
) -> str:
    """The id of a run that a server made which gives ids itself."""
    if plan.request.new_run_id:
        raise InvalidInput(
            f"{store.uri} is an MLflow server, which gives a run its id itself",
            hint="start the run without an id; `mlcli server` takes ids",
        )
    return store.create_run(experiment.experiment_id, None, tags, name, user).info.run_id


def _failure(error: BaseException | None) -> tuple[str, dict[str, str]]:
    """Status and tags of a run that an exception ended before its child could."""
    if isinstance(error, Interrupted):
        code = 128 + error.signum
        reason = f"mlcli was sent {kin.signal_name(error.signum)} before the program was started"
        return RunStatus.KILLED, {"mlcli.end_reason": reason, "mlcli.exit_code": str(code)}
    if isinstance(error, KeyboardInterrupt):
        return RunStatus.KILLED, {"mlcli.end_reason": "interrupted", "mlcli.exit_code": "130"}
    code = error.exit_code if isinstance(error, MlcliError) else 4
    what = str(error) if isinstance(error, MlcliError) else f"mlcli failed: {type(error).__name__}: {error}"
    return RunStatus.FAILED, {"mlcli.end_reason": what, "mlcli.exit_code": str(code)}


class Interrupted(KeyboardInterrupt):
    """A signal that asked mlcli to end while no child was there to pass it on to."""

    def __init__(self, signum: int) -> None:
        super().__init__(kin.signal_name(signum))
        self.signum = signum


class _Interruptible:
    """Makes the signals that would end us at once raise `Interrupted`, so that the run is ended before us."""

    def __init__(self) -> None:
        self.deaf = False
        self.heard: int | None = None
        self._before: dict[int, object] = {}
        for signum in kin.END_SIGNALS:
            before = signal.getsignal(signum)
            if before is not signal.SIG_IGN:
                self._before[signum] = before
                signal.signal(signum, self._raise)

    def _raise(self, signum: int, _frame: FrameType | None) -> None:
        if not self.deaf:
            self.heard = signum
            raise Interrupted(signum)

    def put_back(self) -> None:
        for signum, before in self._before.items():
            if before is not None:
                signal.signal(signum, before)  # type: ignore[arg-type]


def _birth_tags(plan: Plan, user: str) -> dict[str, str]:
    """What is known of a run before it does anything."""
    source = plan.project.source
    tags = {
        "mlflow.user": user,
        "mlflow.source.name": _source_name(plan.project),
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": source.commit,
        "mlflow.source.git.repoURL": source.repo_url,
        "mlflow.source.git.branch": source.branch,
        "mlflow.project.entryPoint": plan.entry.name,
        "mlflow.project.backend": "local",
        "mlcli.version": __version__,
        "mlcli.command": plan.command.text,
        "mlcli.cwd": plan.project.folder,
        "mlcli.host": _host(),
        "mlcli.git.dirty": None if source.dirty is None else str(source.dirty).lower(),
    }
    return {key: _cut(value) for key, value in tags.items() if value}


def _source_name(project: Project) -> str:
    """As MLflow writes it: a folder inside a work tree as file://<work tree>[#subfolder], an address as typed."""
    source = project.source
    if project.fetched:
        base = source.uri.partition("#")[0] or os.curdir
        found = git.work_tree(base) if os.path.isdir(base) and not git.is_bare(base) else None
        if found is None:
            return project.origin
        root, folder = found[0], os.path.join(os.path.abspath(base), source.subdir)
    elif source.script is not None:
        return os.path.join(source.folder, source.script)
    elif source.root is None:
        return source.folder
    else:
        root, folder = source.root, source.folder
    inside = os.path.relpath(folder, root)
    return f"file://{root}" + ("" if inside == os.curdir else f"#{inside}")


def _cut(value: str) -> str:
    limit = rules.MAX_TAG_VALUE
    text = value.replace("\0", "").encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def _environment(plan: Plan, recorder: _Recorder, listener: Listener) -> Env:
    """Build or reuse the environment; a failure keeps its log with the run."""
    try:
        env = envs.ensure(
            plan.project.env,
            plan.env_manager,
            project=plan.project.origin,
            progress=listener.progress,
            strict_python=plan.request.strict_python,
        )
    except EnvError as error:
        if error.log:
            _keep(recorder.artifacts, error.log, ENV_LOG)
        raise
    for note in env.notes:
        listener.note(note)
    if env.built and env.log:
        _keep(recorder.artifacts, env.log, ENV_LOG)
    tags = {"mlcli.env.manager": env.manager, "mlcli.env.key": env.key, "mlcli.env.python": env.version}
    if env.manager != "local":
        tags["mlflow.project.env"] = env.manager
    recorder.tags({key: value for key, value in tags.items() if value})
    return env


def _fetch(downloads: Sequence[Download], listener: Listener, run_id: str) -> None:
    """Bring the values of parameters that lie elsewhere."""
    for item in downloads:
        listener.progress(f"downloading {git.strip_credentials(item.uri)}")
        try:
            download.fetch(item)
        except ProjectError as error:
            raise RunFailed(
                f"the parameter `{item.parameter}`: {error.message}", run_id=run_id, code=1, hint=error.hint
            ) from None
        except OSError as error:
            raise RunFailed(
                f"the parameter `{item.parameter}` cannot be kept at {item.path}: {error.strerror}",
                run_id=run_id,
                code=1,
                hint="--storage-dir says where it goes",
            ) from None


def _keep(artifacts: LocalArtifacts, path: str, name: str) -> None:
    try:
        with open(path, "rb") as file:
            artifacts.put_bytes(file.read(), name)
    except FileNotFoundError:
        pass


def _keep_changes(project: Project, artifacts: LocalArtifacts, listener: Listener) -> None:
    """Keep what the work tree has beyond its commit."""
    if not (project.source.dirty and project.source.root and project.source.commit):
        return
    try:
        patch = git.diff(project.source.root)
    except MlcliError as error:
        listener.warn(f"the uncommitted changes could not be kept with the run: {error}")
        return
    if patch:
        artifacts.put_bytes(patch, DIFF)


def _child(plan: Plan, recorder: _Recorder, env: Env, output: Output, listener: Listener) -> End:
    with _bridge(recorder, env, listener) as served:
        return _guarded(plan, recorder, env, output, listener, served)


def _guarded(
    plan: Plan, recorder: _Recorder, env: Env, output: Output, listener: Listener, served: bridge.Bridge | None
) -> End:
    child = _invocation(plan, recorder, env, served)
    mark = f"MLCLI_RUN_ID={recorder.run_id}".encode()
    # The guardian closes what it inherits, but for these copies: they keep the run alive for the store's readers.
    held = (os.dup(recorder.journal.fileno()), os.dup(recorder.others.fileno()))
    keep = held if served is None else (*held, served.pipe)
    guardian = Guardian(keep=keep, mark=mark, last_words=lambda: _last_words(recorder, held[0]))
    recorder.status(RunStatus.RUNNING)
    guardian.start()

    try:
        end = run_child(
            child.argv,
            cwd=plan.project.folder,
            env=child.variables,
            output=output,
            mark=mark,
            grace=plan.grace,
            guardian=guardian,
            ours=() if served is None else (served.pid,),
            on_start=lambda _pid: recorder.hold(),
            on_signal=listener.note,
        )
        if env.manager == "docker" and end.signal is not None:
            _remove_container(child.argv, recorder.run_id)
        if served is not None:
            served.status = end.status
        return end
    except OSError as error:
        raise _not_started(error, plan, recorder.run_id) from error
    finally:
        for fd in held:
            os.close(fd)


@contextlib.contextmanager
def _bridge(recorder: _Recorder, env: Env, listener: Listener) -> Iterator[bridge.Bridge | None]:
    """Serve the store to the MLflow of the environment, if there is one, and tell what it did there and elsewhere."""
    if env.manager == "docker" or not bridge.has_mlflow(env, os.environ):
        yield None
        return
    root = recorder.store.root
    with bridge.Bridge(root, recorder.run_id, login_variables(root) if is_remote(root) else {}) as served:
        yield served
    if served.problem:
        listener.warn(served.problem)
    try:
        run = recorder.store.get_run(recorder.run_id)
        chosen = recorder.store.get_experiment(run.info.experiment_id)
    except MlcliError:  # a database that cannot be used now must not change how the run ended
        return
    if chosen.experiment_id != recorder.experiment.experiment_id:
        listener.note(f"the script chose the experiment {chosen.name!r}: the run is there")
    elif bridge.STAYED in run.data.tags:
        listener.note(
            f"the script chose another experiment, {run.data.tags[bridge.STAYED]}; the server cannot move runs, so the run"
            f" stays in {chosen.name!r}: name it with --experiment-name"
        )
    elsewhere = run.data.tags.get(bridge.ELSEWHERE)
    if elsewhere:
        listener.note(f"the script logged elsewhere itself, by mlflow.set_tracking_uri: {elsewhere}")
    unanswered = run.data.tags.get(bridge.UNANSWERED)
    if unanswered:
        listener.note(f"the script names {unanswered}, where nothing answers: what it sent there is recorded here")


def _last_words(recorder: _Recorder, fd: int) -> None:
    """What the guardian writes when mlcli has been killed and the child is gone."""
    last = journal.Journal(recorder.journal.path, fd)
    last.tags(recorder.run_id, {"mlcli.end_reason": "mlcli was killed", "mlcli.exit_code": "137"})
    last.status(recorder.run_id, RunStatus.KILLED)


def _grace() -> float:
    """How long a child has between SIGTERM and SIGKILL."""
    found = config.setting("grace")
    try:
        seconds = float(found.value or GRACE)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise InvalidInput(f"{found.source} must be a number of seconds, not {found.value!r}")
    return seconds


def _variables(plan: Plan, recorder: _Recorder) -> dict[str, str]:
    """What the child finds out about its run, under our names and MLflow's."""
    root = recorder.store.root
    result = {
        "MLCLI_TRACKING_URI": root,
        "MLCLI_RUN_ID": recorder.run_id,
        "MLCLI_EXPERIMENT_ID": recorder.experiment.experiment_id,
        "MLCLI_JOURNAL": recorder.others.path,
        "MLFLOW_TRACKING_URI": root if is_remote(root) else f"file://{quote(root)}",
        "MLFLOW_RUN_ID": recorder.run_id,
        "MLFLOW_EXPERIMENT_ID": recorder.experiment.experiment_id,
    }
    if is_remote(root):
        result.update(login_variables(root))
    if plan.env_manager:
        result["MLCLI_ENV_MANAGER"] = plan.env_manager
    return result


class _Invocation(NamedTuple):
    argv: tuple[str, ...]
    variables: dict[str, str]


def _invocation(plan: Plan, recorder: _Recorder, env: Env, served: bridge.Bridge | None) -> _Invocation:
    """The argument vector and the environment variables of the child."""
    ours = _variables(plan, recorder)
    if env.manager == "docker":
        from mlcli.envs import docker

        argv = docker.docker_argv(
            plan.project.env,
            plan.command.argv,
            variables=ours,
            store=folder_of(recorder.store.root),
            tracker=envs.expose_tracker(),
            args=plan.request.docker_args,
            name=f"mlcli-{recorder.run_id}",
            program=docker.client(),
        )
        return _Invocation(tuple(argv), {**os.environ, **ours})
    variables = envs.variables(env, os.environ)
    for name in ("MLCLI_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"):  # the id says it; a name would contradict it
        variables.pop(name, None)
    # For runs that the child starts: these stay when a script takes MLCLI_RUN_ID out of its environment.
    inner = {"MLCLI_PARENT_RUN_ID": recorder.run_id, "MLCLI_COMMAND": json.dumps([sys.executable, "-m", "mlcli"])}
    variables.update({**ours, **inner})
    for name, value in served.variables(recorder.experiment.name, variables).items() if served else ():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    return _Invocation(plan.command.argv, variables)


def _remove_container(argv: tuple[str, ...], run_id: str) -> None:
    """End a container whose client was killed: it would go on without it."""
    import subprocess

    subprocess.run(
        [argv[0], "kill", f"mlcli-{run_id}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _not_started(error: OSError, plan: Plan, run_id: str) -> RunFailed:
    program = plan.command.argv[0]
    if error.errno == errno.E2BIG:
        return RunFailed(
            "the command line and the environment variables are too long to start it", run_id=run_id, code=126
        )
    if error.filename == plan.project.folder:
        return RunFailed(f"cannot enter {error.filename}: {error.strerror}", run_id=run_id, code=126)
    if error.errno != errno.ENOENT:
        return RunFailed(
            f"{program} cannot be executed: {error.strerror}",
            run_id=run_id,
            code=126,
            hint=f"is it a program? chmod +x {program}",
        )
    if "/" in program and os.path.exists(os.path.join(plan.project.folder, program)):
        return RunFailed(
            f"{program} cannot be executed: its first line (#!) names a program that is not there",
            run_id=run_id,
            code=127,
        )
    return RunFailed(
        f"command not found: {program}",
        run_id=run_id,
        code=127,
        hint=f"the command is: {plan.command.text}\nput what it needs into the project's environment, or onto PATH",
    )


def _keep_freeze(env: Env, artifacts: LocalArtifacts, listener: Listener) -> None:
    """Keep the list of what is installed. After the end: it may take a tenth of a second to find out."""
    try:
        packages = envs.freeze(env)
        if packages:
            artifacts.put_bytes(packages.encode(), FREEZE)
    except (OSError, MlcliError) as error:
        listener.warn(f"the list of installed packages could not be kept with the run: {error}")


# -- the end


def _record_end(recorder: _Recorder, end: End) -> None:
    # Absorbs all that the child has logged, so that nothing it said of its status comes after what we say.
    recorder.settle()
    try:
        said = recorder.store.get_run(recorder.run_id).info.status
    except MlcliError:  # a database that cannot be used now must not change how the run ended
        said = RunStatus.RUNNING
    status = end.status
    if status == RunStatus.FINISHED and RunStatus.is_terminated(said):
        status = said  # what the script said of itself on purpose
    reason = end.reason
    if end.code and end.asked is None:
        last = last_line(recorder.path(LOG))
        reason += f": {last}" if last else ""
    tags = {
        "mlcli.exit_code": str(end.exit_code),
        "mlcli.signal": kin.signal_name(end.signal) if end.signal is not None else "",
        "mlcli.end_reason": reason,
        "mlcli.duration_ms": str(round(end.seconds * 1000)),
        "mlcli.peak_memory_bytes": str(end.peak_memory),
        "mlcli.cpu_seconds": f"{end.cpu_user + end.cpu_system:.3f}",
    }
    recorder.end(status, {key: value for key, value in tags.items() if value})


def artifacts_of(run: Run) -> list[FileInfo]:
    """The files that a run has kept."""
    try:
        return [item for item in open_artifacts(run.info.artifact_uri).walk() if not item.is_dir]
    except (NotFound, StoreUnavailable):
        return []


def last_line(path: str, limit: int = 300) -> str:
    """The last line of a log that says something, without colours: mostly the error itself."""
    import re

    try:
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 8192, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:  # the program removed it
        return ""
    plain = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))", "", text)
    lines = [line.strip() for line in re.split(r"[\r\n]", plain)]
    printable = ["".join(char for char in line if char.isprintable()) for line in lines]
    return next((line for line in reversed(printable) if line), "")[:limit]
