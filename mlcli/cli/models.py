"""`mlcli models`: get models out of runs."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from mlcli.artifacts import LocalArtifacts, locate, parse_runs_uri
from mlcli.cli import options, render, serve
from mlcli.cli.artifacts import Destination, Force, fetch
from mlcli.errors import InvalidInput, ModelError, NotFound
from mlcli.models import mlmodel

app = options.group("Download the models of runs; serve them, predict with them.")
serve.register(app)


@app.callback()
def _group() -> None:
    """Keep `models` a group: a Typer with a single command would be that command."""


@app.command()
def download(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help="runs:/RUN/PATH; runs:/RUN where the run has one model; models:/NAME/VERSION or models:/NAME@ALIAS.",
        ),
    ],
    dst_path: Destination = ".",
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Copy a model to a folder and print where it is.

    The copy is made aside, its files are checked against the digests in its MLmodel file, and only then it gets its
    name. A model that is there already stays if it is the same; --force replaces one that differs.
    """
    artifacts, path = locate(uri)
    name = ""
    if uri.startswith("runs:") and not parse_runs_uri(uri)[1]:
        path = _only_model(artifacts, uri)
    elif not path:
        # A registered or logged model is a folder of its own: its copy is named as the URI names it.
        name = re.sub("[@/].*", "", uri.partition("/")[2]) if uri.startswith("models:") else uri.rpartition("/")[2]
    if artifacts.has(path) and not artifacts.has(f"{path}/{mlmodel.FILE}".lstrip("/")):
        raise ModelError(
            f"{uri} is not a model: it has no {mlmodel.FILE} file",
            hint=f"`mlcli artifacts download -u {uri}` gets it all the same",
        )
    found = fetch(artifacts, path, dst_path, force=force, check=check, name=name)
    render.emit_json({"path": found}) if as_json else render.emit(found)


def _only_model(artifacts: LocalArtifacts, uri: str) -> str:
    """The path of the run's model, if it has just one."""
    ending = f"/{mlmodel.FILE}"
    found = [file.path.removesuffix(ending) for file in artifacts.walk() if f"/{file.path}".endswith(ending)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"{uri} has no model", hint="`mlcli artifacts list` shows what the run has")
    raise InvalidInput(
        f"the run has {len(found)} models", hint="say which: " + " or ".join(f"{uri}/{path}" for path in found)
    )


def check(folder: str) -> None:
    """Compare the files of a model with the digests that its MLmodel file lists, where it lists any."""
    own = mlmodel.read(folder).get(mlmodel.OWN_KEY)
    listed = own.get("digests") if isinstance(own, dict) else None
    if not isinstance(listed, dict):
        render.detail("the model lists no digests: nothing to check it against")
        return
    for name, digest in mlmodel.digests(folder).items():
        if name in listed and listed[name] != digest:
            raise ModelError(
                f"the file {name} of the model is not the one that was logged: its SHA-256 is {digest}, not {listed[name]}",
                hint="it was changed or damaged since; nothing was put in its place. Log the model again",
            )
    gone = sorted(name for name in listed if not os.path.isfile(os.path.join(folder, *str(name).split("/"))))
    if gone:
        raise ModelError(f"the model lacks {', '.join(gone)}, which was logged with it", hint="log the model again")
