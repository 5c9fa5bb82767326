"""`mlcli import`: bring runs here from MLflow, from a server, from another store, from a bundle."""

from __future__ import annotations

from typing import Annotated, List, Optional

import typer

from mlcli import config
from mlcli.cli import options, render
from mlcli.errors import InvalidInput
from mlcli.store import is_database, is_remote, open_store, store_root
from mlcli.transfer.into import Report, Wishes, bring
from mlcli.transfer.sources import open_sources

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

SHOWN_TROUBLES = 20
COLUMNS = (
    render.Column("name", "EXPERIMENT", least=12, style="bold"),
    render.Column("source_id", "ID THERE", least=8),
    render.Column("experiment_id", "ID HERE", least=8),
    render.Column("how", "HOW"),
)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder (mlruns, or another store), an mlflow.db, a bundle of `mlcli export`, or http://host:port.",
            show_default=False,
        ),
    ],
    experiments: Annotated[
        Optional[List[str]],
        typer.Option("-n", "--experiment-name", metavar="NAME", help="Only this experiment; may be repeated."),
    ] = None,
    artifacts: Annotated[
        str,
        typer.Option("--artifacts", metavar="HOW", help="copy, link (hard links, on one disk: no space) or none."),
    ] = "copy",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come.")] = False,
    as_json: options.Json = False,
) -> None:
    """Bring experiments, runs, artifacts and models here from MLflow, a server, another store or a bundle.

    The source is only read. Runs keep their ids; experiments of one name become one. Doing it again brings what is new and
    nothing twice, so an import that was interrupted is done again. Exit code 1 says that something could not come.
    """
    root = "" if is_database(config.tracking_uri().value or "") else store_root()
    wishes = Wishes(artifacts, experiments or (), dry_run)
    sources = open_sources(source, root)
    try:
        with open_store(create=not dry_run) as store:
            if is_remote(store.root):
                raise InvalidInput(
                    "an import goes into a store of this machine, not into a server",
                    hint="import into a folder with --tracking-uri, then send it with `mlcli export --to http://...`",
                )
            with render.progress("importing", unit="run") as tick:
                reports = [bring(item, store, wishes, tick) for item in sources]
    finally:
        for item in sources:
            item.close()
    _tell(reports, dry_run=dry_run, as_json=as_json)
    if not all(report.complete for report in reports):
        raise typer.Exit(1)


def _tell(reports: list[Report], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        render.emit_json({"dry_run": dry_run, "sources": [report.as_dict() for report in reports]})
    for report in reports:
        if not as_json:
            render.records(
                [place._asdict() for place in report.places], COLUMNS, as_json=False, empty="the source is empty"
            )
        lost = [trouble for trouble in report.troubles if trouble.lost]
        for trouble in (lost + [trouble for trouble in report.troubles if not trouble.lost])[:SHOWN_TROUBLES]:
            (render.warn if trouble.lost else render.note)(f"{trouble.what}: {trouble.why}")
        if len(report.troubles) > SHOWN_TROUBLES:
            render.warn(f"... and {len(report.troubles) - SHOWN_TROUBLES:,} more", "--json lists them all")
        (render.note if dry_run else render.success)(f"{'would come' if dry_run else 'came'}: {_summary(report)}")


def _summary(report: Report) -> str:
    counts = report.counts
    parts = [
        render.count(counts["runs_added"], "run"),
        render.count(counts["metric_points"], "metric point"),
        f"{render.count(counts['artifact_files'], 'file')} ({render.size(counts['artifact_bytes'])})",
        counts["logged_models"] and render.count(counts["logged_models"], "logged model"),
        counts["model_versions"] and render.count(counts["model_versions"], "model version"),
        counts["runs_updated"] and f"{render.count(counts['runs_updated'], 'open run')} brought up to date",
    ]
    here = counts["runs_here_already"]
    known = f"; {render.count(here, 'run')} {'was' if here == 1 else 'were'} here already" if here else ""
    return f"{', '.join(part for part in parts if part)} from {report.about}{known}"
