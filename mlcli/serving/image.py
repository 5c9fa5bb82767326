"""A Dockerfile and its context, which serve a model with nothing else from this machine.

The image has two environments: the model's own, from its requirements, and a small one for mlcli. Requirement lines stay in
their file: none of their text stands in the Dockerfile, so none can add an instruction to it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlcli.errors import EnvError, InvalidInput, ModelError
from mlcli.models import mlmodel
from mlcli.projects.envfile import EnvSpec, read_env
from mlcli.projects.requirements import Requirement
from mlcli.serving.launch import Served, fitted

# What the gateway imports, and no more: the rest of mlcli's requirements are for other commands.
_GATEWAY = ("typer>=0.20,<0.29", "rich>=13.7", "PyYAML>=6.0.1", "uvicorn>=0.30", "uvloop>=0.19", "httptools>=0.6")
_VERSION = re.compile(r"\d+(?:\.\d+){0,2}\Z")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,255}\Z")
BASE = "python:3.12-slim"
PORT = 8080
_KEPT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")

_DOCKERFILE = """\
# Serves a model: docker run -p 5000:{port} IMAGE
# The token that callers need is shown in its log; -v FILE:/tmp/mlcli-token sets it.
FROM {base}
RUN pip install --no-cache-dir uv
ENV UV_NO_CACHE=1 UV_PYTHON_INSTALL_DIR=/opt/python PYTHONDONTWRITEBYTECODE=1

COPY gateway-requirements.txt /opt/build/
RUN uv venv /opt/gateway && uv pip install --python /opt/gateway/bin/python -r /opt/build/gateway-requirements.txt

COPY requirements.txt constraints.txt /opt/build/
RUN uv venv --python {python} /opt/model-env && uv pip install --python /opt/model-env/bin/python -r /opt/build/requirements.txt -c /opt/build/constraints.txt

COPY mlcli /opt/mlcli/mlcli
COPY model /opt/model

ENV PYTHONPATH=/opt/mlcli PATH=/opt/model-env/bin:$PATH HOME=/tmp MLCLI_TRACKING_URI=/tmp/mlruns
WORKDIR /tmp
USER 65534:65534
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/opt/gateway/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/ping', timeout=2)"]
ENTRYPOINT ["/opt/gateway/bin/python", "-m", "mlcli", "models", "serve", "-m", "/opt/model", "--env-manager", "local", "-h", "0.0.0.0", "-p", "{port}", "--token-file", "/tmp/mlcli-token"{more}]
"""


class Context(NamedTuple):
    """A folder that `docker build` takes."""

    folder: str
    dockerfile: str


def write_context(served: Served, folder: str, *, base: str = BASE, workers: int = 1, trust: bool = False) -> Context:
    """Write Dockerfile, model, mlcli and requirements into ``folder``, which must be new or empty.

    ``trust`` lets the image load a model that can run code.
    """
    if not _IMAGE.match(base):
        raise InvalidInput(f"{base!r} is no name of an image")
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise InvalidInput(f"{folder} is there already and not empty", hint="name a folder that is new")
    content = mlmodel.read(served.folder)
    spec = fitted(read_env(served.folder), content)
    spec.check()
    python = _python(spec)
    lines = requirement_lines(spec.dependencies)
    more = [*(["-w", str(workers)] if workers > 1 else []), *(["--trust"] if trust else [])]
    text = _DOCKERFILE.format(base=base, python=python, port=PORT, more="".join([f', "{word}"' for word in more]))
    existed = os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    try:
        package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
        shutil.copytree(package, os.path.join(folder, "mlcli"), ignore=_KEPT_OUT)
        shutil.copytree(served.folder, os.path.join(folder, "model"), ignore=_KEPT_OUT)
        _write(folder, "requirements.txt", "".join([f"{line}\n" for line in lines]))
        constraints = requirement_lines(spec.constraints)
        _write(folder, "constraints.txt", "".join([f"{line}\n" for line in constraints]))
        _write(folder, "gateway-requirements.txt", "".join([f"{line}\n" for line in _GATEWAY]))
        _write(folder, "Dockerfile", text)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            os.makedirs(folder, exist_ok=True)
        raise
    return Context(folder, os.path.join(folder, "Dockerfile"))


def _python(spec: EnvSpec) -> str:
    """The model's Python, by a version that is nothing but one."""
    found = (spec.python or "3.12").strip()
    if not _VERSION.match(found):
        raise ModelError(
            f"the model asks for Python {found[:40]!r}, which is no single version", hint="mend its python_env.yaml"
        )
    # Another patch release runs the same pickles, and is there for longer.
    return ".".join(found.split(".")[:2])


def requirement_lines(items: Sequence[Requirement]) -> list[str]:
    """The requirements of a model, one a line, with nothing that installs from this machine."""
    found = []
    for item in items:
        text = " ".join(item.text.split())
        if item.path is not None:
            raise ModelError(f"{item.place}: {text[:80]!r} is on this machine, and would not be in the image")
        found.append(text)
    return found


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def build(context: Context, name: str, say: Callable[[str], None]) -> bool:
    """Build the image where a docker engine answers; False where there is none."""
    if not re.match(r"[a-z0-9][a-z0-9._/:-]{0,254}\Z", name):
        raise InvalidInput(f"{name!r} is no name of an image", hint="small letters, digits and . _ - / :")
    docker = shutil.which("docker")
    if docker is None or not _answers(docker):
        return False
    say(f"docker builds {name}")
    done = subprocess.run([docker, "build", "-t", name, context.folder], stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise EnvError(f"docker could not build {name}: exit code {done.returncode}", hint="what it said stands above")
    return True


def _answers(docker: str) -> bool:
    try:
        done = subprocess.run(
            [docker, "version"], capture_output=True, timeout=20, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
