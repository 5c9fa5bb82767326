"""A built environment on disk: its place, its key, its state file, and whether it may be used.

<env root>/<first 32 of key>/.mlcli-env.json     written last: without it there is no environment, only leftovers
                             .mlcli-packages.txt  what was really installed
<env root>/locks/<...>.lock   held alone while one builds or removes it, shared while runs use it
<env root>/logs/<...>.log     what the installers said
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.errors import EnvError
from mlcli.locks import try_lock
from mlcli.projects.requirements import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlcli.envs.python import Python
    from mlcli.projects.envfile import EnvSpec
    from mlcli.projects.requirements import Requirement

STATE_FILE = ".mlcli-env.json"
PACKAGES_FILE = ".mlcli-packages.txt"
VERSION = 1
_MAX_PROJECTS = 50
_SOURCES = (".py", ".pyx", ".c", ".cpp", ".h", ".toml", ".cfg", ".in", ".rs", ".f90")


class Env(NamedTuple):
    """An environment that a command can run in; ``bin`` is the folder to put first on PATH."""

    manager: str
    key: str | None
    prefix: str | None
    python: str
    version: str
    built: bool = False
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    log: str | None = None
    bin: str | None = None


class Place(NamedTuple):
    """Where the environment with this key lies, or would."""

    root: str
    key: str

    @property
    def name(self) -> str:
        return self.key[:32]

    @property
    def prefix(self) -> str:
        return os.path.join(self.root, self.name)

    @property
    def lock(self) -> str:
        return os.path.join(self.root, "locks", f"{self.name}.lock")

    @property
    def log(self) -> str:
        return os.path.join(self.root, "logs", f"{self.name}.log")


class State(NamedTuple):
    """What the state file says; ``interpreter`` is the real file behind the environment's python: path, mtime, size."""

    key: str
    manager: str
    version: str
    python: str
    reason: str
    interpreter: tuple[str, int, int]
    requirements: tuple[tuple[str, str, int | None, str], ...]  # text, file, line, role: build, run or constraint
    projects: tuple[str, ...]
    created: int
    seconds: float
    packages: int


def bin_folder(prefix: str, manager: str = "") -> str:
    if sys.platform == "win32":
        return prefix if manager == "conda" else os.path.join(prefix, "Scripts")
    return os.path.join(prefix, "bin")


def interpreter(prefix: str, manager: str = "") -> str:
    return os.path.join(bin_folder(prefix, manager), "python.exe" if sys.platform == "win32" else "python")


# -- the key


def fingerprint(spec: EnvSpec, manager: str, python: Python) -> str:
    """Hash all that decides what the environment will hold; where it lies on this machine is no part of it."""
    content: list[object] = [VERSION, manager, [python.implementation, python.version, python.tag]]
    parts = (spec.build_dependencies, spec.dependencies, spec.constraints)
    content += [[" ".join(item.text.split()) for item in part] for part in parts]
    local = [item for part in parts for item in part if item.path is not None]
    content += [[spec.folder, *(_local(spec.folder, item) for item in local)] if local else []]
    if manager == "conda" and spec.conda_file:
        content.append(_file_digest(os.path.join(spec.folder, spec.conda_file)))
    import hashlib  # 3 ms, and a run in the current environment needs no key

    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _local(folder: str, item: Requirement) -> list[object]:
    """What decides the installation of a local folder or file; an editable one reads its own code each time it runs."""
    path = absolute(item.path or ".", folder)
    if not os.path.isdir(path):
        return [path, _file_digest(path)]
    names = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
    found = [[name, _file_digest(os.path.join(path, name))] for name in names]
    return [path, found, [] if item.editable else sorted(_sources(path))]


def _sources(folder: str) -> Iterator[list[object]]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("mlruns", "build", "dist")]
        for name in files:
            if name.endswith(_SOURCES):
                path = os.path.join(parent, name)
                with contextlib.suppress(OSError):
                    found = os.stat(path)
                    yield [shorten(path, folder), found.st_size, found.st_mtime_ns]


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            import hashlib

            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def absolute(path: str, folder: str) -> str:
    """A path of a requirement line, seen from the project's folder."""
    if path.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        path = unquote(urlsplit(path).path)
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


# -- the state file


def read_state(prefix: str) -> State | None:
    """What was written when the environment was ready; None when it never was, or the file is damaged."""
    try:
        with open(os.path.join(prefix, STATE_FILE), encoding="utf-8") as file:
            data = json.load(file)
        if data["v"] != VERSION:
            return None
        path, mtime, size = data["interpreter"]
        return State(
            str(data["key"]),
            str(data["manager"]),
            str(data["version"]),
            str(data["python"]),
            str(data["reason"]),
            (str(path), int(mtime), int(size)),
            tuple((str(text), str(file), line, str(role)) for text, file, line, role in data["requirements"]),
            tuple(map(str, data["projects"])),
            int(data["created"]),
            float(data["seconds"]),
            int(data["packages"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # whatever shape the damage takes: it is no environment
        return None


def write_state(prefix: str, state: State) -> None:
    """Write the state file as one step; from now on the environment exists."""
    path = os.path.join(prefix, STATE_FILE)
    aside = f"{path}.{os.getpid()}"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"v": VERSION, **state._asdict()}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def stamp(path: str) -> tuple[str, int, int]:
    """Which file an interpreter really is, so that another one in its place is noticed."""
    real = os.path.realpath(path)
    found = os.stat(real)
    return real, found.st_mtime_ns, found.st_size


def illness(place: Place, state: State | None) -> str | None:
    """Say why what lies at this place cannot be used; None when it can. Two looks at the disk, nothing is run."""
    if state is None:
        if not os.path.lexists(place.prefix):
            return "not built yet"
        return "its building was interrupted" if not _has_state(place) else "its state file is damaged"
    if state.key != place.key:
        return "its state file belongs to another environment"
    python = interpreter(place.prefix, state.manager)
    try:
        now = stamp(python)
    except OSError:
        return f"its interpreter is gone ({os.path.realpath(python)})"
    if now != state.interpreter:
        return f"its interpreter was replaced ({now[0]})"
    return None


def _has_state(place: Place) -> bool:
    return os.path.exists(os.path.join(place.prefix, STATE_FILE))


def touch(place: Place, state: State, project: str) -> None:
    """Note that ``project`` uses this environment now."""
    with contextlib.suppress(OSError):
        if project and project not in state.projects:
            write_state(place.prefix, state._replace(projects=(*state.projects, project)[-_MAX_PROJECTS:]))
        else:
            os.utime(os.path.join(place.prefix, STATE_FILE))


def last_used(prefix: str) -> float:
    """When it was used last, in seconds since the epoch."""
    return os.stat(os.path.join(prefix, STATE_FILE)).st_mtime


# -- folders and locks


def safe_root() -> str:
    """The folder of all environments, made for this user alone; refused when somebody else could put things into it."""
    root = os.path.abspath(config.env_root())
    try:
        for folder in (root, os.path.join(root, "locks"), os.path.join(root, "logs")):
            os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnvError(
            f"{root} cannot be made: {error.strerror}", hint="set MLCLI_ENV_ROOT to a folder of yours"
        ) from None
    if sys.platform != "win32":
        found = os.stat(root)
        if found.st_uid not in (os.getuid(), 0) or (found.st_mode & 0o002 and not found.st_mode & 0o1000):
            raise EnvError(
                f"{root} can be changed by others, who could put their programs into your environments",
                hint="set MLCLI_ENV_ROOT to a folder of yours, or take the right to write from the others",
            )
    return root


@contextlib.contextmanager
def in_use(env: Env) -> Iterator[None]:
    """Keep the environment from being removed or rebuilt while a run is inside it."""
    if env.key is None or env.prefix is None:
        yield
        return
    place = Place(os.path.dirname(env.prefix), env.key)
    try:
        descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:  # a root that cannot be written to: there nobody removes anything either
        yield
        return
    try:
        # Windows knows no shared locks: a second run must not wait for the first, so there the lock is a courtesy.
        while not try_lock(descriptor, shared=True) and sys.platform != "win32":
            time.sleep(0.01)
        if not _has_state(place):
            raise EnvError("the environment was removed a moment ago", hint="run it again: it will be built anew")
        yield
    finally:
        os.close(descriptor)


def requirements_of(spec: EnvSpec) -> tuple[tuple[str, str, int | None, str], ...]:
    roles: Sequence[tuple[str, tuple[Requirement, ...]]] = (
        ("build", spec.build_dependencies),
        ("run", spec.dependencies),
        ("constraint", spec.constraints),
    )
    return tuple((item.text, item.file, item.line, role) for role, part in roles for item in part)
