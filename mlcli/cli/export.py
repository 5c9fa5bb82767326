"""`mlcli export`: put runs into one file that `mlcli import` reads anywhere, or send them to a server."""

from __future__ import annotations

from typing import Annotated, List, Optional

import typer

from mlcli.cli import options, render
from mlcli.errors import InvalidInput, NotFound
from mlcli.store import Store, is_remote, open_store
from mlcli.transfer import bundle
from mlcli.transfer.ours import OurStore
from mlcli.transfer.records import Trouble

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def export(
    runs: Annotated[
        Optional[List[str]],
        typer.Argument(metavar="[RUN]...", help="These runs; none and no option: all.", show_default=False),
    ] = None,
    experiment_names: options.ExperimentNames = None,
    experiment_ids: options.ExperimentIds = None,
    filter_string: options.Filter = "",
    output: Annotated[
        Optional[str], typer.Option("-o", "--output", metavar="FILE", help="The file to write, such as runs.mlcli.zip.")
    ] = None,
    to: Annotated[
        Optional[str],
        typer.Option("--to", metavar="URL", help="Send them to this tracking server instead, MLflow's or mlcli's."),
    ] = None,
    artifacts: Annotated[bool, typer.Option("--artifacts/--no-artifacts", help="With the files of the runs.")] = True,
    as_json: options.Json = False,
) -> None:
    """Put one run, a search, an experiment or everything into one file, or send it to a server.

    `mlcli import FILE` reads it anywhere: runs keep their ids, whole metric histories, files and models. A server gives ids
    of its own, and the tag mlcli.exported.run_id tells the old ones; what is there already is not sent again.
    """
    if (output is None) == (to is None):
        raise InvalidInput("say where to: a file or a server", hint="-o runs.mlcli.zip, or --to http://host:5000")
    troubles: list[Trouble] = []
    with open_store(create=False) as store:
        if is_remote(store.root):
            raise InvalidInput(
                "an export is made where the store is, not from a server",
                hint="`mlcli import http://...` brings the runs here first",
            )
        wanted = _wanted(store, runs, experiment_names, experiment_ids, filter_string)
        source = OurStore(store.root, store=store, only=wanted)
        with render.progress("exporting", unit="run") as tick:
            if output is not None:
                counts = bundle.write(source, output, troubles.append, artifacts=artifacts, tick=tick)
            else:
                from mlcli.transfer.send import send

                counts = send(source, to or "", troubles.append, artifacts=artifacts, tick=tick)
    if as_json:
        render.emit_json({"to": output or to, **counts, "troubles": [trouble._asdict() for trouble in troubles]})
    for trouble in troubles[:20]:
        (render.warn if trouble.lost else render.note)(f"{trouble.what}: {trouble.why}")
    said = f"{render.count(counts['runs'], 'run')}, {render.count(counts['metric_points'], 'metric point')}"
    render.success(f"{said}, {render.count(counts['artifact_files'], 'file')} went to {output or to}")
    if any(trouble.lost for trouble in troubles):
        raise typer.Exit(1)


def _wanted(
    store: Store, runs: list[str] | None, names: list[str] | None, ids: list[str] | None, filter_string: str
) -> set[str] | None:
    """The ids of the runs that are asked for; None stands for everything there is, models and deleted things too."""
    if runs:
        if names or ids or filter_string:
            raise InvalidInput("name runs, or give a search; not both")
        return {store.find_run(word) for word in runs}
    if not names and not ids and not filter_string:
        return None
    from mlcli.cli.tables import all_runs

    chosen = options.chosen_experiments(store, names, ids)
    found = all_runs(store, [item.experiment_id for item in chosen] if chosen else None, filter_string)
    if not found:
        raise NotFound("no run matches", hint="`mlcli runs list` shows what there is")
    return {run.info.run_id for run in found}
