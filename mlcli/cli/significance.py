"""`mlcli runs compare --test`: whether evaluated runs differ, beside by how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlcli.cli import render
from mlcli.cli.portrait import SHORT_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.entities import Run
    from mlcli.evaluation.between import Difference
    from mlcli.store import Store

ALPHA = 0.05
SIGNS = {"better": "green", "worse": "red"}
_PIPED = (
    "run",
    "baseline",
    "metric",
    "value",
    "baseline_value",
    "difference",
    "low",
    "high",
    "p_value",
    "p_adjusted",
    "test",
    "verdict",
    "reason",
)


def compare(store: Store, runs: Sequence[Run], *, as_json: bool) -> None:
    """Write what the tests say of each run against the first."""
    from mlcli.artifacts import open_artifacts
    from mlcli.evaluation import between

    recorded = [
        between.Recorded(run.info.run_id, run.info.run_name, open_artifacts(store.artifact_root(run.info.run_id)))
        for run in runs
    ]
    rows = [_row(item) for item in between.differences(recorded)]
    if as_json:
        render.emit_json({"runs": [run.info.run_id for run in runs], "alpha": ALPHA, "tests": rows})
    elif not render.on_terminal():
        render.records(rows, [render.Column(name) for name in _PIPED])
    else:
        names = {run.info.run_id: run.info.run_name for run in runs}
        for run in runs[1:]:
            _to_eyes([row for row in rows if row["run"] == run.info.run_id], names)


def _row(item: Difference) -> dict[str, Any]:
    one = item.comparison
    told = one is not None and not math.isnan(one.p_value)
    real = told and item.p_adjusted is not None and item.p_adjusted < ALPHA
    return {
        "run": item.run,
        "baseline": item.baseline,
        "metric": item.metric or None,
        "value": item.values[0],
        "baseline_value": item.values[1],
        "difference": one and one.difference,
        "low": one and _or_none(one.low),
        "high": one and _or_none(one.high),
        "p_value": one and _or_none(one.p_value),
        "p_adjusted": item.p_adjusted if told else None,
        "test": one and one.test,
        "verdict": "cannot be told"
        if not told
        else "not shown"
        if not real
        else "better"
        if item.better()
        else "worse",
        "reason": item.reason or (one.note if one is not None and not told else "") or None,
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _to_eyes(rows: Sequence[dict[str, Any]], names: dict[str, str]) -> None:
    from mlcli.evaluation.page import p_text

    def called(run_id: str) -> str:
        return f"{render.plain(names[run_id])} ({run_id[:SHORT_ID]})"

    render.heading(f"{called(rows[0]['run'])} against {called(rows[0]['baseline'])}")
    if rows[0]["test"] is None:
        render.emit(f"cannot be told: {render.plain(rows[0]['reason'])}")
        return
    sign = "…" if render.unicode_ok() else ".."
    shown = [
        {**row, "bounds": "" if row["low"] is None else f"{row['low']:.4f} {sign} {row['high']:.4f}"} for row in rows
    ]
    render.records(
        shown,
        [
            render.Column("metric", "SCORE", style="bold", least=12),
            render.Column("value", names[rows[0]["run"]].upper(), show=render.number, right=True, least=9, optional=2),
            render.Column(
                "baseline_value",
                names[rows[0]["baseline"]].upper(),
                show=render.number,
                right=True,
                least=9,
                optional=3,
            ),
            render.Column("difference", "DIFFERENCE", show=lambda value: f"{value:+.4g}", right=True, style="cyan"),
            render.Column("bounds", "95% INTERVAL", right=True, optional=1),
            render.Column("p_adjusted", "P", show=p_text, right=True),
            render.Column("verdict", " ", style=lambda word: SIGNS.get(str(word), "dim")),
            render.Column("test", "BY", style="dim", optional=4, least=10),
        ],
    )
    render.note("better or worse: p below 0.05. Not shown does not mean that there is none.")
