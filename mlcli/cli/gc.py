"""`mlcli gc`: remove for good what was deleted long enough ago."""

from __future__ import annotations

import re
from typing import Annotated, List, Optional

import typer

from mlcli.cli import completion, options, render
from mlcli.errors import InvalidInput
from mlcli.store import leftovers, open_store

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove deleted runs and experiments for good, with their artifacts, and what interrupted work left over.

    `mlcli runs delete` and `mlcli experiments delete` only hide; until this command removes them, `restore` brings them
    back.
    """
    age = milliseconds(older_than)
    with open_store(create=False) as store:
        wanted = [store.find_run(part) for given in run_ids or () for part in given.split(",") if part]
        runs, experiments = store.collectable(age, wanted if run_ids else None)
        left = [] if run_ids else leftovers.found(store)
        if not dry_run:
            store.collect(runs, experiments)
            leftovers.remove(store, left)
    rows = [{"kind": "run", "id": run.info.run_id, "name": run.info.run_name} for run in runs]
    rows += [{"kind": "experiment", "id": item.experiment_id, "name": item.name} for item in experiments]
    rows += [{"kind": "leftover", "id": item.path, "name": item.why} for item in left]
    render.records(rows, COLUMNS, as_json=as_json, empty="nothing deleted is old enough to be removed")
    if rows:
        verb = "would be removed" if dry_run else "removed for good"
        counted = [render.count(len(runs), "run"), render.count(len(experiments), "experiment")]
        counted += [render.count(len(left), "leftover")] if left else []
        render.note(f"{', '.join(counted[:-1])} and {counted[-1]} {verb}")


def milliseconds(text: str) -> int:
    """A span such as ``1d12h`` or ``90s``; fractions are welcome, as in MLflow."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise InvalidInput(f"{text!r} is not a span of time", hint="write it as 30d, 12h, 5m, 10s or 1d12h")
    return round(sum(float(amount) * _UNITS[unit] for amount, unit in parts))
