"""Curves of several runs over each other, and their points as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcli.curves import aligned
from mlcli.entities import Run, RunStatus
from mlcli.errors import InvalidInput
from mlcli.server import http
from mlcli.server.http import Receive, Scope, Send
from mlcli.server.pages import SAFE, Page, Visit, read_query
from mlcli.store import Store, survey

if TYPE_CHECKING:
    from mlcli.server.app import Request

AXES = ("step", "relative", "time")
MOST_RUNS = 100
MOST_METRICS = 24


def chosen_runs(visit: Visit, store: Store, most: int) -> list[Run]:
    """The runs that are named or, without names, the newest that a filter finds in experiments."""
    ids = list(dict.fromkeys(visit.query.many("run")))
    if ids:
        return survey.runs_of(store, ids[:most])
    return list(store.search_runs(visit.query.many("e") or None, visit.query.one("filter"), max_results=most))


def overlay(visit: Visit, store: Store) -> Page:
    runs = chosen_runs(visit, store, MOST_RUNS)
    keys = sorted({key for run in runs for key in run.data.metrics})
    asked = [key for key in dict.fromkeys(visit.query.many("metric")) if key in keys]
    with_steps = {point.key for run in runs for point in getattr(run.data.metrics, "points", ()) if point.step}
    shown = asked or [key for key in keys if key in with_steps][:6] or keys[:6]
    data = {
        "runs": [{"run_id": run.info.run_id, "name": run.info.run_name, "status": run.info.status} for run in runs],
        "metrics": keys,
        "shown": shown[:MOST_METRICS],
        "live": any(not RunStatus.is_terminated(run.info.status) for run in runs),
    }
    return Page("charts.html", "Charts", data)


def points(visit: Visit, store: Store) -> dict[str, Any]:
    """One metric of several runs over common places; ``low`` and ``high`` choose a part of the axis."""
    asked = visit.query
    key, axis = asked.one("metric"), asked.chosen("x", AXES)
    stretches = asked.whole("stretches", 400, 10, 4000)
    low, high = _number(asked.one("low")), _number(asked.one("high"))
    runs = chosen_runs(visit, store, MOST_RUNS)
    curves = [_curve(store, run, key, axis, low, high) for run in runs]
    found = aligned(curves, stretches)
    return {
        "x": [float(f"{x:.15g}") for x in found.xs],
        "series": [
            {
                "run_id": run.info.run_id,
                "name": run.info.run_name,
                "y": [value if value is None else float(f"{value:.7g}") for value in values],
                "latest": run.data.metrics.get(key),
            }
            for run, values in zip(runs, found.curves, strict=True)
        ],
        "stretch": found.width,
        "points": sum(map(len, curves)),
        "live": any(not RunStatus.is_terminated(run.info.status) for run in runs),
    }


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a number") from None
    return found if abs(found) < float("inf") else None


def _curve(
    store: Store, run: Run, key: str, axis: str, low: float | None, high: float | None
) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = list(survey.curve(store, run.info.run_id, key, by_time=axis != "step"))
    if axis == "time":
        found = [(time / 1000, value) for time, value in found]
    elif axis == "relative" and found:
        start = min(run.info.start_time, found[0][0]) if run.info.start_time else found[0][0]
        found = [((time - start) / 1000, value) for time, value in found]
    if low is None and high is None:
        return [point for point in found if abs(point[1]) < float("inf")]
    first = float("-inf") if low is None else low
    last = float("inf") if high is None else high
    return [point for point in found if first <= point[0] <= last and abs(point[1]) < float("inf")]


async def download(request: Request, scope: Scope, _receive: Receive, send: Send) -> None:
    """Send every point of a metric of the runs as CSV, nothing thinned."""
    query = read_query(scope["query_string"])
    key = query.one("metric")

    def job(store: Store) -> bytes:
        import csv
        import io

        from mlcli.cli.render import iso_time

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("run_id", "run_name", "metric", "step", "time", "value"))
        for run_id in list(dict.fromkeys(query.many("run")))[:MOST_RUNS]:
            name = _cell(store.get_run(run_id).info.run_name)
            for point in store.get_metric_history(run_id, key):
                writer.writerow((run_id, name, _cell(key), point.step, iso_time(point.timestamp), repr(point.value)))
        return text.getvalue().encode("utf-8", "replace")

    content = await request.server.workers.read(job, quick=False)
    headers = [
        (b"content-type", b"text/csv; charset=utf-8"),
        (b"content-disposition", b'attachment; filename="curves.csv"'),
        *SAFE,
    ]
    await http.answer(send, 200, content, headers)


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
