"""`mlcli gc`: remove for good what was deleted long enough ago."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, List, Optional

import typer

from mlcli.cli import completion, options, render
from mlcli.entities import LifecycleStage
from mlcli.errors import InvalidInput, InvalidState
from mlcli.store import open_store

if TYPE_CHECKING:
    from mlcli.store import Store

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
COLUMNS = (
    render.Column("kind", "KIND"),
    render.Column("id", "ID", least=8),
    render.Column("name", "NAME", least=12, style="bold"),
)


@app.command()
def gc(
    older_than: Annotated[
        str, typer.Option("--older-than", help="Only what was deleted at least so long ago: 30d, 12h, 1d12h.")
    ] = "0s",
    run_ids: Annotated[
        Optional[List[str]],
        typer.Option("--run-ids", help="Only these deleted runs (a,b or repeated).", autocompletion=completion.run_ids),
    ] = None,
    experiment_ids: Annotated[
        Optional[List[str]],
        typer.Option("--experiment-ids", help="Only these deleted experiments and their runs (a,b or repeated)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove deleted runs and experiments for good, with their artifacts, and what interrupted work left over.

    `mlcli runs delete` and `mlcli experiments delete` only hide; until this command removes them, `restore` brings them
    back.
    """
    if run_ids and experiment_ids:
        raise InvalidInput("give --run-ids or --experiment-ids, one of them")
    age = milliseconds(older_than)
    with open_store(create=False) as store:
        wanted = [store.find_run(part) for part in _parts(run_ids)]
        runs, experiments = store.collectable(age, wanted if run_ids else None)
        if experiment_ids:
            chosen = [_deleted(store, part) for part in _parts(experiment_ids)]
            runs = [run for run in runs if run.info.experiment_id in chosen]
            experiments = [item for item in experiments if item.experiment_id in chosen]
        left = [] if run_ids or experiment_ids else store.leftovers()
        if not dry_run:
            store.collect(runs, experiments)
            store.remove_leftovers(left)
    rows = [{"kind": "run", "id": run.info.run_id, "name": run.info.run_name} for run in runs]
    rows += [{"kind": "experiment", "id": item.experiment_id, "name": item.name} for item in experiments]
    rows += [{"kind": "leftover", "id": item.path, "name": item.why} for item in left]
    render.records(rows, COLUMNS, as_json=as_json, empty="nothing deleted is old enough to be removed")
    if rows:
        verb = "would be removed" if dry_run else "removed for good"
        counted = [render.count(len(runs), "run"), render.count(len(experiments), "experiment")]
        counted += [render.count(len(left), "leftover")] if left else []
        render.note(f"{', '.join(counted[:-1])} and {counted[-1]} {verb}")


def _parts(given: list[str] | None) -> list[str]:
    """What stands in an option that takes ``a,b`` and may be repeated."""
    return [part for text in given or () for part in text.split(",") if part]


def _deleted(store: Store, experiment_id: str) -> str:
    found = store.get_experiment(experiment_id)
    if found.lifecycle_stage != LifecycleStage.DELETED:
        raise InvalidState(
            f"experiment {experiment_id} ({found.name!r}) is not deleted",
            hint=f"`mlcli experiments delete {experiment_id}` deletes it",
        )
    return found.experiment_id


def milliseconds(text: str) -> int:
    """A span such as ``1d12h`` or ``90s``; fractions are welcome, as in MLflow."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise InvalidInput(f"{text!r} is not a span of time", hint="write it as 30d, 12h, 5m, 10s or 1d12h")
    return round(sum(float(amount) * _UNITS[unit] for amount, unit in parts))
