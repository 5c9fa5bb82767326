"""`mlcli models`: models by name and version, and their files."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from mlcli.artifacts import locate, model_artifacts, parse_runs_uri
from mlcli.cli import completion, models_trust, options, registry, render, serve
from mlcli.cli.artifacts import Destination, Force, fetch
from mlcli.errors import ModelError
from mlcli.models import mlmodel
from mlcli.registry import uri_of_only_model
from mlcli.store import open_store

app = options.group("Register, find, compare, inspect, trust, serve and download models.")
app.registered_commands += registry.app.registered_commands
app.add_typer(registry.alias_app, name="alias")
app.add_typer(registry.tag_app, name="tag")
serve.register(app)
models_trust.register(app)


@app.command()
def download(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help="runs:/RUN/PATH; runs:/RUN where the run has one model; NAME/VERSION, NAME@ALIAS or"
            " \"NAME?tags.stage = 'ready'\", with models:/ before it or not.",
            autocompletion=completion.models,
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
    name = ""
    if ":" not in uri and not os.path.exists(uri):
        with open_store(create=False) as store:
            uri = registry.uri_of(registry.one_version(store, uri))
    if uri.startswith("runs:") and not parse_runs_uri(uri)[1]:
        uri = uri_of_only_model(uri)
    artifacts, path = (model_artifacts(uri), "") if uri.startswith("models:") else locate(uri)
    if not path:
        # A registered or logged model is a folder of its own: its copy is named as the URI names it.
        name = re.sub("[@/?].*", "", uri.partition("/")[2]) if uri.startswith("models:") else uri.rpartition("/")[2]
    if artifacts.has(path) and not artifacts.has(f"{path}/{mlmodel.FILE}".lstrip("/")):
        raise ModelError(
            f"{uri} is not a model: it has no {mlmodel.FILE} file",
            hint=f"`mlcli artifacts download -u {uri}` gets it all the same",
        )
    found = fetch(artifacts, path, dst_path, force=force, check=check, name=name)
    render.emit_json({"path": found}) if as_json else render.emit(found)


def check(folder: str) -> None:
    """Compare the files of a model with the digests that its MLmodel file lists, where it lists any."""
    content = mlmodel.read(folder)
    if not mlmodel.noted_digests(content):
        render.detail("the model lists no digests: nothing to check it against")
    try:
        mlmodel.check_digests(folder, content)
    except ModelError as error:  # the folder is the copy made aside, which goes
        message = str(error).replace(f"{folder} is damaged: ", "the model is damaged: ")
        raise ModelError(message, hint="nothing was put in its place. Log the model again") from None
