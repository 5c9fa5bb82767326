"""`mlcli experiments`: create, find, rename, delete, restore and export experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mlcli.cli import completion, options, render
from mlcli.entities import ViewType
from mlcli.errors import InvalidInput, NotFound
from mlcli.store import open_store

if TYPE_CHECKING:
    from mlcli.entities import Experiment
    from mlcli.store import Store

app = options.group("Create, search, rename, delete and export experiments.")

Which = Annotated[
    Optional[str],
    typer.Argument(
        metavar="EXPERIMENT", help="Name or id.", autocompletion=completion.experiment_names, show_default=False
    ),
]
Name = Annotated[
    Optional[str],
    typer.Option(
        "-n",
        "--experiment-name",
        metavar="NAME",
        help="The experiment's name.",
        autocompletion=completion.experiment_names,
    ),
]
Id = Annotated[Optional[str], typer.Option("-x", "--experiment-id", metavar="ID", help="The experiment's id.")]

COLUMNS = (
    render.Column("experiment_id", "ID", right=True),
    render.Column("name", "NAME", least=16, style="bold"),
    render.Column("lifecycle_stage", "STAGE", optional=2),
    render.Column("last_update_time", "CHANGED", show=render.ago, optional=1, pipe=render.iso_time),
    render.Column("artifact_location", "ARTIFACTS", least=20, optional=3, style="dim", keep_end=True),
)


@app.command()
def create(
    name: Annotated[Optional[str], typer.Argument(help="The new experiment's name.", show_default=False)] = None,
    experiment_name: Annotated[
        Optional[str], typer.Option("-n", "--experiment-name", metavar="NAME", help="The same.")
    ] = None,
    artifact_location: Annotated[
        Optional[str],
        typer.Option(
            "-l", "--artifact-location", metavar="FOLDER", help="Folder for its artifacts; by default the store."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Create an experiment.

    On a terminal a sentence says what was made. In a pipe stdout is the new id alone, so that
    `id=$(mlcli experiments create NAME)` works, and the sentence goes to stderr.
    """
    if (name is None) == (experiment_name is None):
        raise InvalidInput("give the new experiment one name", hint="mlcli experiments create NAME")
    wanted = str(name if name is not None else experiment_name)
    with open_store() as store:
        experiment_id = store.create_experiment(wanted, artifact_location)
        made = store.get_experiment(experiment_id)
    sentence = f"Created experiment {render.plain(wanted)!r} with id {experiment_id}"
    if as_json:
        render.emit_json(_object(made))
    elif render.on_terminal():
        render.emit(sentence)
    else:
        render.emit(experiment_id)
        render.note(sentence)


@app.command()
def search(
    view: options.View = "active_only",
    max_results: options.Limit = 1000,
    filter_string: options.Filter = "",
    order_by: options.OrderBy = None,
    as_json: options.Json = False,
) -> None:
    """List experiments, the oldest first."""
    with open_store(create=False) as store:
        found = store.search_experiments(
            filter_string, order_by or ["creation_time ASC"], options.view_type(view), max_results
        )
    render.records(
        [experiment._asdict() for experiment in found],
        COLUMNS,
        as_json=as_json,
        objects=[_object(experiment) for experiment in found],
        empty="no experiment is like that; `mlcli experiments create NAME` makes one",
    )


app.command("list", help="The same as search.")(search)


@app.command()
def get(
    experiment: Which = None,
    experiment_name: Name = None,
    experiment_id: Id = None,
    as_json: options.Json = False,
    output: Annotated[
        Optional[str], typer.Option("--output", metavar="table|json", help="MLflow's way to ask for --json.")
    ] = None,
) -> None:
    """Show one experiment."""
    if output not in (None, "table", "json"):
        raise InvalidInput(f"--output is table or json, not {output!r}")
    as_json = as_json or output == "json"
    with open_store(create=False) as store:
        found = _find(store, experiment, experiment_name, experiment_id)
        runs = store.search_runs([found.experiment_id], max_results=1)
    pairs: list[tuple[str, object]] = [
        ("experiment_id", found.experiment_id),
        ("name", found.name),
        ("lifecycle_stage", found.lifecycle_stage),
        ("artifact_location", found.artifact_location),
        ("creation_time", _time(found.creation_time)),
        ("last_update_time", _time(found.last_update_time)),
        ("newest run", runs[0].info.run_id if runs else None),
        *((f"tags.{key}", value) for key, value in found.tags.items()),
    ]
    render.fields(pairs, as_json=as_json, obj=_object(found))


@app.command()
def rename(
    experiment: Which = None,
    new_name: Annotated[Optional[str], typer.Argument(help="The new name.", show_default=False)] = None,
    experiment_name: Name = None,
    experiment_id: Id = None,
    new_name_option: Annotated[Optional[str], typer.Option("--new-name", metavar="NAME", help="The new name.")] = None,
) -> None:
    """Give an experiment another name.

    For example: mlcli experiments rename OLD NEW
    """
    if (experiment_name or experiment_id) and experiment and not new_name:
        experiment, new_name = None, experiment
    wanted = new_name or new_name_option
    if not wanted:
        raise InvalidInput("no new name is given", hint="mlcli experiments rename OLD NEW")
    with open_store(create=False) as store:
        found = _find(store, experiment, experiment_name, experiment_id)
        store.rename_experiment(found.experiment_id, wanted)
    render.success(
        f"experiment {found.experiment_id} is now {render.plain(wanted)!r}, before {render.plain(found.name)!r}"
    )


@app.command()
def delete(experiment: Which = None, experiment_name: Name = None, experiment_id: Id = None) -> None:
    """Delete an experiment and its runs, until restored."""
    with open_store(create=False) as store:
        found = _find(store, experiment, experiment_name, experiment_id)
        store.delete_experiment(found.experiment_id)
    render.success(
        f"deleted experiment {render.plain(found.name)!r};"
        f" `mlcli experiments restore {found.experiment_id}` brings it back"
    )


@app.command()
def restore(experiment: Which = None, experiment_name: Name = None, experiment_id: Id = None) -> None:
    """Bring a deleted experiment and its runs back."""
    with open_store(create=False) as store:
        found = _find(store, experiment, experiment_name, experiment_id, deleted=True)
        store.restore_experiment(found.experiment_id)
    render.success(f"experiment {render.plain(found.name)!r} is back with its runs")


@app.command()
def csv(
    experiment: Which = None,
    experiment_name: Name = None,
    experiment_id: Id = None,
    filename: Annotated[
        Optional[str], typer.Option("-o", "--filename", metavar="FILE", help="Write to this file.")
    ] = None,
) -> None:
    """Export the runs of an experiment as CSV.

    `mlcli runs export` does the same for any choice of runs, and as JSON lines or Parquet.
    """
    from mlcli.cli import tables

    with open_store(create=False) as store:
        found = _find(store, experiment, experiment_name, experiment_id)
        tables.write(tables.all_runs(store, [found.experiment_id]), "csv", filename)


def _find(
    store: Store, word: str | None, name: str | None, experiment_id: str | None, *, deleted: bool = False
) -> Experiment:
    """The experiment that is meant; a bare word is a name or, where no name is like it, an id."""
    if word is None:
        return options.find_experiment(store, name, experiment_id)
    if name is not None or experiment_id is not None:
        raise InvalidInput("two experiments are named: give one of them")
    if deleted:
        gone = store.search_experiments(view_type=ViewType.DELETED_ONLY)
        named = [experiment for experiment in gone if experiment.name == word]
        if len(named) > 1:
            ids = ", ".join(sorted(experiment.experiment_id for experiment in named))
            raise InvalidInput(f"several deleted experiments were named {word!r}", hint=f"give one of the ids {ids}")
        if named:
            return named[0]
    found = store.find_experiment(word)
    if found is not None:
        return found
    try:
        return store.get_experiment(word)
    except NotFound:
        raise options.no_experiment(store, word) from None


def _object(experiment: Experiment) -> dict[str, Any]:
    return {**experiment._asdict(), "tags": dict(experiment.tags)}


def _time(ms: int) -> str:
    return f"{render.local_time(ms)} ({render.ago(ms)})" if render.on_terminal() else render.iso_time(ms)
