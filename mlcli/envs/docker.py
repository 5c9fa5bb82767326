"""Projects that run in a container: is docker there, and the ``docker run`` that starts a command of the project.

Nothing is built: the image that the project names is used as it is, the project and the store are mounted into it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from mlcli.envs import python as _python
from mlcli.envs.env import Env
from mlcli.errors import EnvError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlcli.projects.docker import DockerSpec
    from mlcli.projects.envfile import EnvSpec

CODE = "/mlflow/projects/code"  # where MLflow puts it; commands of real projects rely on it
STORE = "/mlflow/tmp/mlruns"
TRACKER = "/mlcli/tracker"
_PATIENCE = 30


class Mount(NamedTuple):
    source: str
    target: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"


def client() -> str:
    """The docker program of this machine."""
    found = _python.which("docker", os.environ)
    if found is None:
        raise EnvError(
            "the project runs in a container, and there is no docker on PATH",
            hint="install docker, or take `docker_env` out of MLproject to run it without a container",
        )
    return found


def ensure(spec: EnvSpec, progress: Callable[[str], None]) -> Env:
    """Make sure that the engine answers and has the image, which is pulled if need be."""
    program = client()
    docker = _docker(spec)
    done = _ask([program, "version", "--format", "{{.Server.Version}}"])
    if done.returncode != 0:
        raise EnvError(
            "the docker engine does not answer",
            tail=done.stderr.strip(),
            hint="start it (systemctl start docker, Docker Desktop), and see that you may talk to it: docker info",
        )
    if _ask([program, "image", "inspect", "--format", "{{.Id}}", docker.image]).returncode != 0:
        progress(f"pulling the image {docker.image}")
        pulled = subprocess.run(
            [program, "pull", "--", docker.image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if pulled.returncode != 0:
            raise EnvError(
                f"the image {docker.image} is not here and cannot be pulled",
                tail=pulled.stderr.strip(),
                hint="check its name and tag in MLproject, docker login, the network",
            )
    return Env("docker", None, None, "python", "")


def docker_argv(
    spec: EnvSpec,
    argv: Sequence[str],
    *,
    variables: Mapping[str, str],
    store: str | None = None,
    tracker: str | None = None,
    args: Sequence[str] = (),
    name: str | None = None,
    program: str = "docker",
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Compose the ``docker run`` that runs ``argv`` in the project's image.

    The project is mounted at /mlflow/projects/code and is the working folder; ``store`` (a folder) at the same path as
    here, so that every path the run records is true on both sides; ``tracker`` (see expose_tracker) read-only on
    PYTHONPATH. ``variables`` are set inside; ``args`` are the ``-A NAME[=VALUE]`` of the command line. The values of
    variables travel in docker's own environment where they can, so that no secret shows in the process list: give the
    process that starts this command ``{**environ, **variables}``.
    """
    docker = _docker(spec)
    environ = os.environ if environ is None else environ
    mounts = [Mount(spec.folder, CODE)]
    inside = dict(variables)
    if store is not None:
        mounts.append(Mount(os.path.abspath(store), os.path.abspath(store)))
        mounts.append(Mount(os.path.abspath(store), STORE))
    if tracker is not None:
        # The link inside the folder leads nowhere in the container: the package itself is mounted.
        package = os.path.realpath(os.path.join(tracker, "mlcli"))
        mounts.append(Mount(package, f"{TRACKER}/mlcli", read_only=True))
        inside["PYTHONPATH"] = ":".join(part for part in (TRACKER, inside.get("PYTHONPATH", "")) if part)
    command = [program, "run", "--rm", "--init", "--workdir", CODE]
    if name is not None:
        command += ["--name", name]
    if sys.platform != "win32" and not any(arg.split("=")[0] in ("user", "u") for arg in args):
        # What the run writes into the mounted folders belongs to the user, as it does without a container.
        command += ["--user", f"{os.getuid()}:{os.getgid()}"]
    for mount in mounts:
        command += ["--volume", str(mount)]
    for volume in docker.volumes:
        command += ["--volume", _volume(volume, spec.folder)]
    for item in docker.environment:
        if isinstance(item, str):
            if item in environ and item not in inside:
                command += ["--env", item]
        else:
            inside.setdefault(*item)
    for key, value in inside.items():
        command += ["--env", key if variables.get(key) == value else f"{key}={value}"]
    return [*command, *options(args), docker.image, *argv]


def _volume(text: str, folder: str) -> str:
    """A volume's relative source is seen from the project, which docker would take for the name of a volume."""
    source, colon, rest = text.partition(":")
    if source in (".", "..") or source.startswith(("./", "../")):
        source = os.path.normpath(os.path.join(folder, source))
    elif source.startswith("~"):
        source = os.path.expanduser(source)
    return source + colon + rest


def options(args: Sequence[str]) -> list[str]:
    """What ``-A NAME[=VALUE]`` of the command line means for ``docker run``."""
    result = []
    for arg in args:
        name, equals, value = arg.partition("=")
        if not name or name.startswith("-"):
            raise InvalidInput(f"-A wants NAME or NAME=VALUE, not `{arg}`", hint="for example -A gpus=all")
        result += [f"{'-' if len(name) == 1 else '--'}{name}", *([value] if equals else [])]
    return result


def _docker(spec: EnvSpec) -> DockerSpec:
    if spec.docker is None:
        raise InvalidInput("the project has no docker_env, so there is no image to run")
    if spec.docker.image.startswith("-"):
        raise InvalidInput(f"`{spec.docker.image}` is no name of an image")
    return spec.docker


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {_PATIENCE} s")
    except OSError as error:
        raise EnvError(f"docker cannot be started: {error.strerror}", hint=f"look at {command[0]}") from None
