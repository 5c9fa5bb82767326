"""Environments for the commands of projects: reused in milliseconds by fingerprint, or built under a lock.

env = ensure(spec, None, project=folder, progress=print)
with in_use(env):
    subprocess.run(["python", "train.py"], env=variables(env, os.environ))
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.envs import env as _env
from mlcli.envs import python as _python
from mlcli.envs.env import Env, Place, in_use
from mlcli.errors import EnvError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlcli.envs.python import Choice
    from mlcli.projects.envfile import EnvSpec

__all__ = [
    "NAMES",
    "Env",
    "Preview",
    "choose",
    "default_manager",
    "ensure",
    "expose_tracker",
    "freeze",
    "in_use",
    "preview",
    "variables",
]

_FIRST_PYTHON = (3, 8)
_TO_BUILD = "would be built"
NAMES = ("virtualenv", "uv", "conda", "docker", "local")


def default_manager(spec: EnvSpec) -> str:
    return "docker" if spec.kind == "docker" else "virtualenv"


def choose(spec: EnvSpec, asked: str | None = None) -> str:
    """Settle which env manager builds for this project.

    =================  ===========  ==========================================
    the project says   asked for    gets
    =================  ===========  ==========================================
    docker_env         anything     docker, as in MLflow: the image is the point
    anything else      nothing      virtualenv
    conda_env          conda        conda
    python_env         conda        an error: conda cannot build from that file
    anything else      docker       an error: there is no image
    anything           the rest     what was asked for
    =================  ===========  ==========================================

    A file that nothing can be built from is an error here, before anything is started.
    """
    asked = asked or config.setting("env_manager").value
    if asked is not None and asked not in NAMES:
        raise InvalidInput(f"there is no env manager `{asked}`", hint=f"known: {', '.join(NAMES)}")
    if spec.kind == "docker":
        return "docker"
    if asked == "docker":
        raise InvalidInput(
            "the project has no docker_env, so there is no image to run",
            hint="add `docker_env:` with `image:` to MLproject",
        )
    if asked == "conda" and spec.conda_file is None:
        raise InvalidInput(
            f"conda cannot build from {spec.file or 'a project without a conda file'}",
            hint="use virtualenv or uv, or give the project a conda.yaml and `conda_env: conda.yaml`",
        )
    if asked != "local":
        spec.check()
    return asked or default_manager(spec)


def ensure(
    spec: EnvSpec,
    manager: str | None = None,
    *,
    project: str = "",
    progress: Callable[[str], None] = lambda _line: None,
    strict_python: bool = False,
) -> Env:
    """Give an environment that satisfies ``spec``: the one that is there, or one built now.

    ``progress`` gets lines for people while something is built. Raises EnvError with the installer's last words.
    """
    manager = choose(spec, manager)
    if manager == "local":
        return _local()
    if manager == "docker":
        from mlcli.envs import docker

        return docker.ensure(spec, progress)
    if manager == "conda":
        from mlcli.envs.managers import find_conda

        find_conda()
        choice = _python.CONDAS_CHOICE
    else:
        choice = _python.choose(spec.python, strict=strict_python, progress=progress)
    place = _place(spec, manager, choice)
    state = _env.read_state(place.prefix)
    if state is not None and _env.illness(place, state) is None:
        _env.touch(place, state, project)
        python = _env.interpreter(place.prefix, manager)
        found = Env(manager, place.key, place.prefix, python, state.version, log=place.log, bin=os.path.dirname(python))
    else:
        from mlcli.envs.build import build

        found, _ = build(spec, manager, place, choice, project, progress)
    return found._replace(notes=_notes(choice))


class Preview(NamedTuple):
    """What ``ensure`` would give; ``exists`` is False where it would build, ``state`` says it in words."""

    manager: str
    state: str
    exists: bool
    place: str | None
    python: str | None
    interpreter: str | None
    reason: str
    packages: tuple[str, ...]
    notes: tuple[str, ...]


def preview(spec: EnvSpec, manager: str | None = None, *, strict_python: bool = False) -> Preview:
    """Look at the environment that ``ensure`` would give; nothing is built, installed or downloaded."""
    manager = choose(spec, manager)
    if manager == "local":
        env = _local()
        return Preview(
            manager, "used as it is", True, None, env.version, env.python, "the Python of the command line", (), ()
        )
    if manager == "docker":
        image = "" if spec.docker is None else spec.docker.image
        return Preview(manager, f"image {image}", True, None, None, None, "the image's own", (), ())
    packages = tuple(item.text for item in (*spec.build_dependencies, *spec.dependencies))
    if manager == "conda":
        choice = _python.CONDAS_CHOICE
    else:
        try:
            choice = _python.choose(spec.python, strict=strict_python, install=False)
        except EnvError as error:
            state = f"{_TO_BUILD}, if uv can install Python" if _python.may_install(spec.python) else "cannot be built"
            return Preview(manager, state, False, None, None, None, error.message, packages, (error.hint,))
    place = _place(spec, manager, choice)
    ready = _env.illness(place, _env.read_state(place.prefix)) is None
    return Preview(
        manager,
        "ready" if ready else _TO_BUILD,
        ready,
        place.prefix,
        choice.python.version or None,
        choice.python.path or None,
        choice.reason,
        packages,
        _notes(choice),
    )


def _place(spec: EnvSpec, manager: str, choice: Choice) -> Place:
    return Place(os.path.abspath(config.env_root()), _env.fingerprint(spec, manager, choice.python))


def _notes(choice: Choice) -> tuple[str, ...]:
    notes = [] if choice.note is None else [choice.note]
    if choice.python.version and choice.python.numbers < _FIRST_PYTHON:
        notes.append(f"`import mlcli` needs Python 3.8 or newer; this environment has {choice.python.version}")
    return tuple(notes)


def _local() -> Env:
    """The Python of the command line, as it is."""
    known = _python.Known.load()
    path = _python.local_path(os.environ)
    found = None if path is None else known.at(path)
    if path is None or found is None:
        path, found = sys.executable, known.local(os.environ)
    known.save()
    first = _python.which("python", os.environ)
    folder = None
    if first is None:  # a command says `python`, and there is none
        folder = _shim(path)
    elif first != path:  # pyenv's shim: it would put this very folder first, after 50 ms of thinking
        folder = os.path.dirname(path)
    return Env("local", None, None, path, found.version, bin=folder)


def _shim(path: str) -> str:
    """A folder in which the interpreter ``path`` is called ``python``."""
    if os.path.basename(path) in ("python", "python.exe"):
        return os.path.dirname(path)
    folder = os.path.join(config.cache_root(), "shims", _short(path))
    shim = os.path.join(folder, "python")
    if not os.path.exists(shim):
        # A script and no link: a linked interpreter does not find the virtual environment that it belongs to.
        os.makedirs(folder, mode=0o700, exist_ok=True)
        quoted = "'" + path.replace("'", "'\\''") + "'"
        _publish(shim, f'#!/bin/sh\nexec {quoted} "$@"\n', 0o700)
    return folder


def variables(env: Env, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command that runs in ``env``; what a shell gets by activating it, and the tracker."""
    result = dict(environ)
    if env.bin is not None:
        result["PATH"] = os.pathsep.join(part for part in (env.bin, environ.get("PATH", "")) if part)
    if env.prefix is not None:
        for name in ("PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "__PYVENV_LAUNCHER__"):
            result.pop(name, None)
        if env.manager == "conda":
            result.pop("VIRTUAL_ENV", None)
            result.update(CONDA_PREFIX=env.prefix, CONDA_DEFAULT_ENV=env.prefix)
        else:
            result.pop("CONDA_PREFIX", None)
            result.update(VIRTUAL_ENV=env.prefix, VIRTUAL_ENV_PROMPT=f"mlcli-{os.path.basename(env.prefix)[:8]}")
    if env.manager != "docker":
        parts = [expose_tracker(), *environ.get("PYTHONPATH", "").split(os.pathsep)]
        result["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(part for part in parts if part))
    return result


def expose_tracker() -> str:
    """A folder in which there is the package mlcli and nothing else, to be put on PYTHONPATH."""
    # The real place: a nested mlcli, which runs through such a link, must not link to the link.
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    name = _short(package)
    folder = os.path.join(config.cache_root(), "tracker", name)
    link = os.path.join(folder, "mlcli")
    try:
        if os.path.samefile(link, package):
            return folder
    except OSError:
        pass
    os.makedirs(folder, mode=0o700, exist_ok=True)
    aside = f"{link}.{os.getpid()}"
    try:
        os.symlink(package, aside, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        return _copy_tracker(package, folder, link)
    os.replace(aside, link)
    return folder


def _copy_tracker(package: str, folder: str, link: str) -> str:
    import shutil

    newest = max(
        os.stat(os.path.join(parent, file)).st_mtime_ns for parent, _, files in os.walk(package) for file in files
    )
    stamp = os.path.join(folder, "stamp")
    try:
        with open(stamp, encoding="ascii") as file:
            if file.read() == str(newest):
                return folder
    except OSError:
        pass
    shutil.copytree(package, link, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    _publish(stamp, str(newest), 0o600)
    return folder


def freeze(env: Env) -> str:
    """What is installed in the environment, as requirement lines.

    Written down when it was built; for ``local`` asked once and remembered until its site-packages change.
    """
    if env.manager == "docker":
        return ""
    if env.prefix is not None:
        try:
            with open(os.path.join(env.prefix, _env.PACKAGES_FILE), encoding="utf-8") as file:
                return file.read()
        except OSError:
            pass
    return _freeze_local(env.python)


_LIST = (
    "import json, sys, importlib.metadata as m; print(json.dumps([[p for p in sys.path if p], sorted({'%s==%s' %"
    " (d.metadata['Name'], d.version) for d in m.distributions() if d.metadata['Name']}, key=str.lower)]))"
)


def _freeze_local(python: str) -> str:
    name = _short(python)
    cache = os.path.join(config.cache_root(), "installed", f"{name}.json")
    try:
        with open(cache, encoding="utf-8") as file:
            known = json.load(file)
        if known["python"] == python and known["folders"] == _stamps([path for path, _ in known["folders"]]):
            return str(known["packages"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    import subprocess

    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [python, "-c", _LIST],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
            env=environ,
            cwd=os.path.dirname(python),  # so that the packages of the caller's folder are not counted
        )
        folders, lines = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise EnvError(f"what is installed for {python} could not be listed", tail=str(error)) from None
    packages = "".join(f"{line}\n" for line in lines)
    os.makedirs(os.path.dirname(cache), mode=0o700, exist_ok=True)
    _publish(cache, json.dumps({"python": python, "folders": _stamps(folders), "packages": packages}), 0o600)
    return packages


def _stamps(folders: list[str]) -> list[list[object]]:
    """When something was last installed into, or removed from, each folder."""
    return [[folder, os.stat(folder).st_mtime_ns if os.path.exists(folder) else 0] for folder in folders]


def _short(text: str) -> str:
    """A short name for a path, to tell files of a cache apart; not hashlib, whose import takes 3 ms of every run."""
    data = text.encode("utf-8", "surrogateescape")
    return f"{zlib.crc32(data):08x}{zlib.crc32(data[::-1]):08x}"


def _publish(path: str, content: str, mode: int) -> None:
    aside = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(content)
    os.replace(aside, path)
