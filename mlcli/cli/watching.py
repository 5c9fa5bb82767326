"""Runs while they go on: where they are, how their metrics move, what was the best so far, when they will be done."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from mlcli.cli import render
from mlcli.cli.comparison import better_is_less
from mlcli.cli.portrait import SHORT_ID, took
from mlcli.entities import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlcli.entities import Run
    from mlcli.store import Store

MOST = 40
# Params that say how many steps there will be, the surest first.
_TOTALS = (
    "max_steps total_steps num_steps n_steps steps num_train_steps max_iter max_iterations iterations num_iterations"
    " epochs num_epochs n_epochs max_epochs num_train_epochs num_boost_round n_estimators rounds"
).split()


class Course(NamedTuple):
    """A metric of a run so far."""

    values: Sequence[float]
    step: int
    time: int


class Seen(NamedTuple):
    """A run at one moment, with the courses of the metrics that are watched."""

    run: Run
    courses: Mapping[str, Course]


class Watch:
    """Looks at runs again and again; a history is read anew only when its metric moved."""

    def __init__(self, store: Store, find: Callable[[], Sequence[Run]], metrics: Sequence[str]) -> None:
        self.store = store
        self.find = find
        self.metrics = metrics
        self._known: dict[tuple[str, str], Course] = {}

    def look(self) -> list[Seen]:
        return [Seen(run, self._courses(run)) for run in self.find()]

    def _courses(self, run: Run) -> dict[str, Course]:
        points = {point.key: point for point in getattr(run.data.metrics, "points", ())}
        if not points and run.data.metrics:
            points = {point.key: point for point in self.store.latest_metrics([run.info.run_id])[run.info.run_id]}
        result = {}
        for key in self.metrics or [key for key in sorted(points) if not key.startswith("system/")]:
            point = points.get(key)
            if point is None:
                continue
            known = self._known.get((run.info.run_id, key))
            if known is None or (known.step, known.time) != (point.step, point.timestamp):
                values = self.store.get_metric_values(run.info.run_id, key)
                known = self._known[run.info.run_id, key] = Course(values, point.step, point.timestamp)
            result[key] = known
        return result


def total_steps(params: Mapping[str, str]) -> int | None:
    """How many steps a run means to take, where one of its params says so."""
    lower = {key.lower().replace("-", "_"): value for key, value in params.items()}
    for name in _TOTALS:
        value = lower.get(name, "")
        if value.isascii() and value.isdigit() and 0 < int(value) < 10**12:
            return int(value)
    return None


def remaining(seen: Seen, now: int) -> int | None:
    """How long the run will still take, in milliseconds, at the pace it had so far; None where nothing tells."""
    total = total_steps(seen.run.data.params)
    ahead = max(seen.courses.values(), key=lambda course: course.step, default=None)
    if total is None or ahead is None or seen.run.info.status != RunStatus.RUNNING or ahead.step <= 0:
        return None
    # Steps are counted from 0 or from 1; the last one is total - 1 at least.
    left = max(total - 1 - ahead.step, 0)
    pace = (ahead.time - seen.run.info.start_time) / ahead.step
    if pace <= 0 or ahead.step > total:
        return None
    return max(int(left * pace - (now - ahead.time)), 0)


def best(key: str, values: Sequence[float]) -> float | None:
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return None
    return min(finite) if better_is_less(key) else max(finite)


def row(seen: Seen, now: int) -> dict[str, Any]:
    """One run as one row, and as JSON."""
    info = seen.run.info
    total = total_steps(seen.run.data.params)
    step = max((course.step for course in seen.courses.values()), default=None)
    return {
        "run_id": info.run_id,
        "name": info.run_name,
        "status": info.status,
        "step": step,
        "steps": total,
        "elapsed_ms": took(seen.run),
        "eta_ms": remaining(seen, now),
        "metrics": {
            key: {"latest": course.values[-1] if course.values else None, "best": best(key, course.values)}
            for key, course in seen.courses.items()
        },
    }


def of_many(seen: Sequence[Seen], width: int, now: int) -> list[str]:
    """A table of the runs; each metric with its value, its course and the best so far."""
    keys = list(dict.fromkeys(key for item in seen for key in item.courses))
    # What has a course is what one watches.
    keys.sort(key=lambda key: -max(len(item.courses[key].values) for item in seen if key in item.courses))
    rows = []
    for item in seen:
        told = row(item, now)
        line: dict[str, Any] = {**told, "at": _at(told)}
        for key in keys:
            course = item.courses.get(key)
            if course is not None and course.values:
                line |= {f"{key} value": course.values[-1], f"{key} best": told["metrics"][key]["best"]}
                line[f"{key} course"] = render.sparkline(course.values, 16)
        rows.append(line)
    columns = [
        render.Column("status", "STATUS", show=render.status, style=lambda status: render.status_style(str(status))),
        render.Column("run_id", "RUN", show=lambda run_id: str(run_id)[:SHORT_ID], style="bold"),
        render.Column("name", "NAME", least=10),
        render.Column("at", "STEP", right=True),
        render.Column("elapsed_ms", "TOOK", show=render.duration, right=True, optional=1),
        render.Column("eta_ms", "ETA", show=render.duration, right=True, style="yellow"),
    ]
    moving = {key for key in keys if any(len(item.courses[key].values) > 1 for item in seen if key in item.courses)}
    for place, key in enumerate(keys):
        columns.append(
            render.Column(f"{key} value", key, show=render.number, right=True, style="cyan", optional=2 + 3 * place)
        )
        if key in moving:
            columns += [
                render.Column(f"{key} course", "COURSE", optional=4 + 3 * place),
                render.Column(f"{key} best", "BEST", show=render.number, right=True, optional=3 + 3 * place),
            ]
    return render.table(rows, columns, width)


def of_one(seen: Seen, width: int, now: int) -> list[str]:
    """One run: a line on how it goes, and a row for each of its metrics."""
    told = row(seen, now)
    info = seen.run.info
    parts = [
        render.styled(f"{render.status(info.status)}  {render.plain(info.run_name)}", "bold"),
        f"step {_at(told)}" if told["step"] is not None else "",
        render.duration(told["elapsed_ms"]),
        render.styled(f"about {render.duration(told['eta_ms'])} to go", "yellow") if told["eta_ms"] is not None else "",
    ]
    rows = [
        {"key": key, "latest": course.values[-1], "best": best(key, course.values), "points": len(course.values),
         "course": render.sparkline(course.values, max(16, min(60, width - 56)))}
        for key, course in seen.courses.items() if course.values
    ]  # fmt: skip
    columns = [
        render.Column("key", "METRIC", least=12),
        render.Column("latest", "LATEST", show=render.number, right=True, style="cyan"),
        render.Column("best", "BEST", show=render.number, right=True),
        render.Column("points", "POINTS", right=True, optional=1),
        render.Column("course", "COURSE", least=8),
    ]
    return ["   ".join(part for part in parts if part), *(render.table(rows, columns, width) if rows else [])]


def _at(told: Mapping[str, Any]) -> str:
    if told["step"] is None:
        return ""
    return f"{told['step']:,}/{told['steps']:,}" if told["steps"] else f"{told['step']:,}"


def lines(seen: Sequence[Seen], before: dict[str, dict[str, Any]], now: int) -> list[str]:
    """For a pipe: a line for each run of which something is new."""
    result = []
    for item in seen:
        told = row(item, now)
        state = {key: told[key] for key in ("status", "step", "metrics")}
        if before.get(told["run_id"]) == state:
            continue
        before[told["run_id"]] = state
        metrics = " ".join(
            f"{key}={render.number(value['latest'])}"
            for key, value in told["metrics"].items()
            if value["latest"] is not None
        )
        cells = (
            render.iso_time(now),
            told["run_id"],
            told["name"],
            told["status"],
            told["step"],
            told["eta_ms"],
            metrics,
        )
        result.append("\t".join(render.tsv_cell(cell) for cell in cells))
    return result


def watch(
    store: Store, find: Callable[[], Sequence[Run]], metrics: Sequence[str], *, single: bool, interval: float
) -> None:
    """Show the runs until all have ended; on a terminal in place, in a pipe line by line."""
    watching = Watch(store, find, metrics)
    before: dict[str, dict[str, Any]] = {}
    shown = 0
    if not render.on_terminal():
        print("time\trun_id\tname\tstatus\tstep\teta_ms\tmetrics", flush=True)
    while True:
        seen, now = watching.look(), int(time.time() * 1000)
        if render.on_terminal():
            width = render.terminal_width()
            text = of_one(seen[0], width, now) if single and seen else of_many(seen, width, now) if seen else []
            shown = redraw(text, shown)
        else:
            for line in lines(seen, before, now):
                print(line, flush=True)
        if all(RunStatus.is_terminated(item.run.info.status) for item in seen):
            return
        time.sleep(interval)


def redraw(text: Sequence[str], shown: int) -> int:
    """Write the lines in the place of those before; as many as the terminal is high."""
    try:
        high = os.get_terminal_size(sys.stdout.fileno()).lines or 24
    except (OSError, ValueError):
        high = 24
    fitting = list(text[: high - 2])
    if len(text) > len(fitting):
        fitting.append(render.styled(f"({len(text) - len(fitting)} more lines)", "dim"))
    back = f"\x1b[{shown}F\x1b[J" if shown and os.environ.get("TERM") != "dumb" else ""
    sys.stdout.write(back + "\n".join(fitting) + "\n")
    sys.stdout.flush()
    return len(fitting)
