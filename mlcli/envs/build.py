"""Building an environment so that nobody ever sees half of one.

lock -> look again -> clean leftovers -> build in place -> is it healthy? -> write the state file, last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from mlcli.envs import env as envs
from mlcli.envs import installer
from mlcli.envs.env import Env, Place, State
from mlcli.envs.managers import MANAGERS, count
from mlcli.errors import EnvError
from mlcli.locks import locked
from mlcli.projects.requirements import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlcli.envs.python import Choice
    from mlcli.projects.envfile import EnvSpec


def build(
    spec: EnvSpec, manager: str, place: Place, choice: Choice, project: str, progress: Callable[[str], None]
) -> tuple[Env, State]:
    """Build the environment at ``place``, or wait for whoever is building it and take theirs."""
    envs.safe_root()

    def wait() -> None:
        progress("waiting: somebody else is building this environment")

    with locked(place.lock, on_wait=wait) as lock:
        state = envs.read_state(place.prefix)
        ill = envs.illness(place, state)
        if state is not None and ill is None:
            envs.touch(place, state, project)
            return ready(place, state), state
        if os.path.lexists(place.prefix):
            progress(f"building the environment anew: {ill}")
        wipe(place.prefix)
        try:
            return _build(spec, manager, place, choice, project, progress, lock)
        except OSError as error:  # a full disk, a folder without the right to write, a program that does not start
            wipe(place.prefix)
            raise EnvError(
                f"the environment could not be built: {error.strerror or error}: {error.filename or place.prefix}",
                log=place.log,
                hint="check the space and the rights there; MLCLI_ENV_ROOT says where environments go",
            ) from None
        except BaseException:
            wipe(place.prefix)
            raise


def ready(place: Place, state: State, *, built: bool = False) -> Env:
    """The environment at ``place``, as its state file describes it."""
    return Env(
        state.manager,
        place.key,
        place.prefix,
        envs.interpreter(place.prefix, state.manager),
        state.version,
        built,
        state.seconds if built else 0.0,
        (),
        place.log,
        envs.bin_folder(place.prefix, state.manager),
    )


def wipe(prefix: str) -> None:
    """Remove an environment, its state file first: whatever is left after a kill is no environment any more."""
    try:
        os.unlink(os.path.join(prefix, envs.STATE_FILE))
    except OSError:
        pass
    if os.path.islink(prefix) or os.path.isfile(prefix):
        os.unlink(prefix)
    elif os.path.isdir(prefix):
        shutil.rmtree(prefix, ignore_errors=True)
        if os.path.isdir(prefix):
            raise EnvError(f"the leftovers in {prefix} cannot be removed", hint="remove that folder, then try again")


def _build(
    spec: EnvSpec,
    manager: str,
    place: Place,
    choice: Choice,
    project: str,
    progress: Callable[[str], None],
    lock: int,
) -> tuple[Env, State]:
    start = time.monotonic()
    python = choice.python
    _begin_log(place, project)
    version = f"Python {python.version}" if python.version else "Python of conda's choice"
    progress(f"building an environment with {manager}: {version}")
    try:
        os.mkdir(place.prefix, 0o700)
    except OSError as error:
        raise EnvError(f"{place.prefix} cannot be made: {error.strerror}", hint="see MLCLI_ENV_ROOT") from None
    steps = installer.Build(place.log, lock, progress, (*spec.dependencies, *spec.build_dependencies))
    MANAGERS[manager](steps, spec, python, place.prefix)
    _close(place.prefix)
    if manager == "conda":
        os.chmod(place.prefix, 0o700)
    path = envs.interpreter(place.prefix, manager)
    found = _check(path, python.version, place.log)
    packages = installer.freeze(path)
    _write_packages(place.prefix, packages)
    seconds = time.monotonic() - start
    state = State(
        place.key,
        manager,
        found,
        python.path or path,
        choice.reason,
        envs.stamp(path),
        tuple((redact(text), *rest) for text, *rest in envs.requirements_of(spec)),  # type: ignore[misc]
        (project,) if project else (),
        int(time.time() * 1000),
        round(seconds, 3),
        len(packages.splitlines()),
    )
    envs.write_state(place.prefix, state)
    progress(f"environment ready in {seconds:.1f} s: {count(state.packages, 'package')}, Python {found}")
    return ready(place, state, built=True), state


def _close(prefix: str) -> None:
    """Take from others the right to write to the lock that uv leaves, which it gives to everybody on purpose."""
    try:
        os.chmod(os.path.join(prefix, ".lock"), 0o600)
    except FileNotFoundError:
        pass


def _begin_log(place: Place, project: str) -> None:
    descriptor = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S %z')} environment {place.key} for {project or 'nobody'}\n")


def _check(path: str, wanted: str, log: str) -> str:
    """Start the interpreter; say what ails it, or return its version."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", "import json, sys; print(json.dumps('%d.%d.%d' % sys.version_info[:3]))"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
        )
        version = str(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise EnvError("the environment was built, but its Python does not start", tail=str(error), log=log) from None
    if wanted and version != wanted:
        raise EnvError(f"the environment was built with Python {version} instead of {wanted}", log=log)
    return version


def _write_packages(prefix: str, packages: str) -> None:
    descriptor = os.open(os.path.join(prefix, envs.PACKAGES_FILE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(packages)
