"""How a rollout stands: once, in its place on a terminal while it goes on, a line for each change in a pipe."""

from __future__ import annotations

import json
import textwrap
import time
from typing import TYPE_CHECKING, Any

from mlcli.cli import render
from mlcli.cli.watching import redraw
from mlcli.store.rollouts import ABORTED, PROMOTED, RUNNING, STOPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlcli.rollouts.observe import Analysis
    from mlcli.store.rollouts import Rollouts

EXIT_ROLLBACK, EXIT_INVALID = 10, 11
ENDED = (PROMOTED, ABORTED, STOPPED)
_LOOK = 1.0  # seconds: whether there is news costs one short read


def state_style(state: str) -> str:
    return {"running": "yellow", "promoted": "green", "aborted": "red", "paused": "magenta"}.get(state, "")


_ARMS = (
    render.Column("name", "ARM", least=8, style="bold", keep_end=True),
    render.Column("weight", "WEIGHT", right=True, show=lambda share: f"{share:.2%}"),
    render.Column("units", "UNITS", right=True),
    render.Column("requests", "REQUESTS", right=True),
    render.Column("errors", "ERRORS", right=True),
    render.Column("p50_ms", "P50 MS", right=True, optional=2, show=lambda ms: f"{ms:.1f}"),
    render.Column("p95_ms", "P95 MS", right=True, optional=1, show=lambda ms: f"{ms:.1f}"),
    render.Column("p99_ms", "P99 MS", right=True, optional=3, show=lambda ms: f"{ms:.1f}"),
    render.Column("model", "MODEL", least=20, optional=4, style="dim", keep_end=True),
)
_METRICS = (
    render.Column("metric", "METRIC", least=8, style="bold"),
    render.Column("candidate", "CANDIDATE", least=8, optional=1, keep_end=True),
    render.Column("control", "CONTROL", right=True, show=lambda x: f"{x:.4g}"),
    render.Column("value", "VALUE", right=True, show=lambda x: f"{x:.4g}"),
    render.Column("difference", "DIFFERENCE", right=True, show=lambda x: f"{x:+.4g}"),
    render.Column("interval", "INTERVAL"),
    render.Column("p", "P", right=True, show=lambda x: f"{x:.2g}"),
)
_LIGHTS = {"pass": ("●", "green"), "fail": ("✗", "red"), "inconclusive": ("○", "yellow")}
_GATES = (
    render.Column("gate", "GATE", least=10, style="bold"),
    render.Column("candidate", "CANDIDATE", least=8, optional=2, keep_end=True),
    render.Column(
        "status",
        "STATUS",
        show=lambda status: f"{_LIGHTS[status][0]} {status}" if render.unicode_ok() else status,
        style=lambda status: _LIGHTS[status][1],
    ),
    render.Column("detail", "WHAT", least=20, optional=1),
)


def show(analysis: Analysis, *, as_json: bool) -> None:
    """The arms in a pipe, all of it on a terminal."""
    told, record = analysis.to_dictionary(), analysis.record
    if as_json:
        render.emit_json(_document(analysis))
    elif render.on_terminal():
        for line in lines(analysis, render.terminal_width()):
            print(line)
    else:
        render.records(told["arms"], _ARMS)
        render.note(f"{record.state}; {told['verdict']} ({told['rule']}): {told['reason']}")


def _document(analysis: Analysis) -> dict[str, Any]:
    return {"state": analysis.record.state, "invalid": analysis.record.invalid, **analysis.to_dictionary()}


def lines(analysis: Analysis, width: int, *, verdict_first: bool = False) -> list[str]:
    """The rollout for a terminal; no line is wider than it. What does not fit is cut below: the verdict may go first."""
    told, record = analysis.to_dictionary(), analysis.record
    where = f", step {told['step'] + 1} of {len(analysis.rollout.steps)}" if analysis.rollout.steps else ""
    how = f"{record.state}, {told['strategy']}{where}"
    name = render.cut(render.plain(record.name), max(width - len(how) - 2, 8))
    state = render.styled(record.state, state_style(record.state))
    head = f"{render.styled(name, 'bold')}  {state}{how[len(record.state) :]}"
    parts = [render.table(told["arms"], _ARMS, width)]
    if told["metrics"]:
        parts.append(render.table([_with_interval(metric) for metric in told["metrics"]], _METRICS, width))
    if told["gates"]:
        parts.append(render.table(told["gates"], _GATES, width))
    left_out = analysis.observed.extra.get("shadow_dropped", 0)
    if told["shadow_pairs"] or left_out:
        parts.append([f"shadow: {told['shadow_pairs']:,} requests in this step, {left_out:,} left out"])
    if told["strategy"] != "shadow":
        parts.append([f"sample ratio p = {told['sample_ratio']:.3g}"])
    parts.insert(0 if verdict_first else len(parts), _verdict(analysis, width))
    return [head, *(line for part in parts for line in ("", *part))]


def _verdict(analysis: Analysis, width: int) -> list[str]:
    record, verdict, wide = analysis.record, analysis.verdict, max(width, 20)
    style = {"PROMOTE": "bold green", "HOLD": "bold"}.get(verdict.verdict, "bold red")
    first, *rest = textwrap.wrap(f"{verdict.verdict} ({verdict.rule}): {render.plain(verdict.reason)}", wide)
    found = [render.styled(verdict.verdict, style) + first[len(verdict.verdict) :], *rest]
    if record.state == RUNNING and record.controller_until_ns < time.time_ns():
        who = f"nobody decides: no gateway serves it now; `mlcli models serve --rollout {record.name}`"
        found += [render.styled(line, "dim") for line in textwrap.wrap(who, wide)]
    return found


def _with_interval(metric: dict[str, Any]) -> dict[str, Any]:
    low, high = metric["low"], metric["high"]
    return {**metric, "interval": "too little data" if low is None else f"{low:+.4g} to {high:+.4g}"}


def watch(rollouts: Rollouts, name: str, *, as_json: bool) -> Analysis:
    """Show it on news until it has ended; gives the last analysis."""
    shown, before = 0, None
    in_place = render.on_terminal() and not as_json
    if not in_place and not as_json:
        print("time\tstate\tstep\tverdict\trule\tweights\trequests\terrors\treason", flush=True)
    for analysis in _looks(rollouts, name):
        told = analysis.to_dictionary()
        weights = [arm["weight"] for arm in told["arms"]]
        now = (analysis.record.state, told["step"], told["verdict"], told["rule"], weights)
        if in_place:
            shown = redraw(lines(analysis, render.terminal_width(), verdict_first=True), shown)
        elif now != before:
            print(json.dumps(render.json_ready(_document(analysis))) if as_json else _line(analysis), flush=True)
        before = now
    return analysis


def _looks(rollouts: Rollouts, name: str) -> Iterator[Analysis]:
    """An analysis at each news, the last one of a rollout that has ended."""
    from mlcli.rollouts.observe import analyze
    from mlcli.rollouts.pace import Pace

    pace = Pace(rollouts, name)
    while True:
        if pace.due() or rollouts.get(name).state in ENDED:
            analysis = analyze(rollouts, name)
            pace.done(analysis)
            yield analysis
            if analysis.record.state in ENDED:
                return
        time.sleep(_LOOK)


def _line(analysis: Analysis) -> str:
    """One change, for a pipe."""
    told = analysis.to_dictionary()
    arms = told["arms"]
    cells = (
        render.iso_time(told["as_of_ns"] // 10**6), analysis.record.state, told["step"] if analysis.rollout.steps else None,
        told["verdict"], told["rule"], ",".join(f"{arm['name']}={arm['weight']:.4g}" for arm in arms),
        sum(arm["requests"] for arm in arms), sum(arm["errors"] for arm in arms), told["reason"],
    )  # fmt: skip
    return "\t".join(render.tsv_cell(cell) for cell in cells)


def exit_code(analysis: Analysis) -> int:
    """10 where control is or should be back, 11 where the data cannot be trusted, else 0; what has ended, by its end."""
    state, verdict = analysis.record.state, analysis.verdict.verdict
    if state in ENDED:
        return EXIT_ROLLBACK if state == ABORTED else 0
    return {"ROLLBACK": EXIT_ROLLBACK, "INVALID": EXIT_INVALID}.get(verdict, 0)
