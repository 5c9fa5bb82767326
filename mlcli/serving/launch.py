"""From the URI of a model to the process that will load it: its files, its environment, its command line."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mlcli.artifacts import locate, parse_runs_uri
from mlcli.errors import InvalidInput, ModelError, NotFound
from mlcli.models import flavors, mlmodel
from mlcli.models.loading import whole_uri
from mlcli.models.worker import JOB, REQUEST
from mlcli.projects.envfile import EnvSpec, read_env
from mlcli.projects.requirements import Requirement


class Started(NamedTuple):
    """A worker under way and our end of its socket."""

    process: subprocess.Popen[bytes]
    sock: socket.socket


class Served(NamedTuple):
    """A model as it is served. ``follows`` is true where its URI may name another version later."""

    uri: str
    folder: str
    name: str
    version: str
    follows: bool = False
    digest: str = ""  # of its files, where it is on record
    only_digest: bool = False  # no other files will do, whoever trusts them


class Launch(NamedTuple):
    """What a worker is started with."""

    model: str  # a folder, or an address that the worker finds for itself
    name: str
    version: str
    python: str
    environ: Mapping[str, str]
    trust: bool = False
    memory: int | None = None  # bytes of address space
    batch_size: int = 1
    batch_seconds: float = 0.0
    file: Mapping[str, Any] | None = None  # a job of `predict` in place of requests
    digest: str = ""
    only_digest: bool = False

    def job(self) -> bytes:
        told = self._asdict()
        for name in ("python", "environ"):
            del told[name]
        return json.dumps({**told, "parent": os.getpid()}).encode()

    def start(self, *inherited: int, stdin: int | None = subprocess.DEVNULL) -> Started:
        """Start the process. Only ever in the main thread: the kernel ends it with the thread that started it."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = self._process(theirs, inherited, stdin)
            except BaseException:
                ours.close()
                raise
        job = self.job()
        ours.sendall(REQUEST.pack(len(job), 0, JOB) + job)
        return Started(process, ours)

    def _process(self, theirs: socket.socket, inherited: tuple[int, ...], stdin: int | None) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [self.python, "-m", "mlcli.models.worker", str(theirs.fileno())],
                env=dict(self.environ),
                pass_fds=(theirs.fileno(), *inherited),
                stdin=stdin,
                stdout=_stderr(),  # what a model prints is no data of ours
                start_new_session=True,
            )
        except OSError as error:
            raise ModelError(f"cannot start {self.python}: {error.strerror or error}") from error


def _stderr() -> int:
    """Where what a worker says goes: where the process's own errors go, if that is a file at all."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # none, a buffer in memory, closed
        return subprocess.DEVNULL if sys.__stderr__ is None or sys.__stderr__.closed else 2


def find(uri: str) -> Served:
    """Find the files of a model; of an alias, those of the version that it names now.

    ``models:/`` may be left out before NAME@ALIAS and NAME/VERSION; ``runs:/RUN`` will do where the run has one model.
    """
    uri = whole_uri(uri)
    if uri.startswith("models:"):
        return _registered(uri)
    folder = _folder(uri)
    if uri.startswith("runs:"):
        from mlcli.registry import digest_in_run
        from mlcli.store import open_store

        run, path = parse_runs_uri(uri)
        with open_store(create=False) as store:
            digest = digest_in_run(store, store.find_run(run), path)
        return Served(uri, folder, path.rpartition("/")[2], run, digest=digest)
    name = os.path.basename(folder.rstrip(os.sep)) or "model"
    return Served(uri, folder, name, "1")


_ONE_VERSION = re.compile(r"models:/[^/@?]+/\d+\Z")


def _registered(uri: str) -> Served:
    from mlcli.store import open_store

    if re.match(r"models:/m-[\w\-]+\Z", uri):  # a logged model
        return Served(uri, _folder(uri), "model", uri.rpartition("/")[2])
    from mlcli.registry import digest_on_record

    with open_store(create=False) as store:
        found = store.resolve_model_version(uri)
        digest = digest_on_record(store, found)
    folder = _folder(f"models:/{found.name}/{found.version}")
    return Served(uri, folder, found.name, found.version, follows=not _ONE_VERSION.match(uri), digest=digest)


def version_of(uri: str) -> str:
    """The number of the version that ``models:/NAME@ALIAS`` (or /latest, /Production, ?tags...) names now."""
    from mlcli.store import open_store

    with open_store(create=False) as store:
        return store.resolve_model_version(uri).version


def _folder(uri: str) -> str:
    artifacts, path = locate(uri)
    folder = artifacts.path(path)
    if not os.path.isdir(folder):
        raise NotFound(f"there is no model at {uri}", hint=f"{folder} is not a folder")
    return folder


class Environment(NamedTuple):
    """The Python that a model runs in."""

    python: str
    environ: Mapping[str, str]
    manager: str


def environment(folder: str, manager: str | None, progress: Callable[[str], None]) -> Environment:
    """The environment that a model asks for, built if it is not there; with ``local`` the current one."""
    from mlcli import envs

    content = mlmodel.read(folder)
    spec = read_env(folder)
    if spec.kind == "none" and manager != "local":
        raise ModelError(
            f"{folder} does not say what it needs: it has neither python_env.yaml nor conda.yaml",
            hint="--env-manager local uses the current environment",
        )
    spec = fitted(spec, content)
    found = envs.ensure(spec, manager, project=folder, progress=progress)
    for note in found.notes:
        progress(note)
    return Environment(found.python, envs.variables(found, os.environ), found.manager)


def fitted(spec: EnvSpec, content: Mapping[str, Any]) -> EnvSpec:
    """What must be installed for mlcli to run the model, in place of what MLflow needs for it.

    MLflow itself, 90 packages and 800 MB, is left out where mlcli loads the model without it. PyYAML comes in where the
    MLmodel is not written by mlcli.
    """
    how = (content.get("flavors") or {}).get(flavors.PYTHON_FUNCTION) or {}
    found = list(spec.dependencies)
    if how.get("loader_module") == "mlflow.sklearn":
        found = [item for item in found if item.name != "mlflow"]
    if mlmodel.OWN_KEY not in content and not any([item.name == "pyyaml" for item in found]):
        found.append(Requirement("PyYAML", mlmodel.FILE))
    return spec._replace(dependencies=tuple(found))


def byte_count(text: str) -> int:
    """The bytes that a size such as 512M or 4G means."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?\s*", text.upper())
    found = int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " ")) if match else 0
    if found <= 0:
        raise InvalidInput(f"{text!r} is no size", hint="write bytes with a unit: 512M, 4G")
    return found
