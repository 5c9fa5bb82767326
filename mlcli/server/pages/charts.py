"""Curves of several runs over each other, and their points as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlcli.curves import Aligned, aligned, stretched
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
    runs = chosen_runs(visit, store, MOST_RUNS)
    found = _aligned(store, runs, key, axis, stretches, (_number(asked.one("low")), _number(asked.one("high"))))
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
        "live": any(not RunStatus.is_terminated(run.info.status) for run in runs),
    }


def _aligned(
    store: Store, runs: Sequence[Run], key: str, axis: str, stretches: int, part: tuple[float | None, float | None]
) -> Aligned:
    """The curves on common places. Along time a curve is kept in milliseconds, and shown in seconds."""
    store.absorb()
    unit = 1 if axis == "step" else 1000
    starts = [_start(store, run, key) if axis == "relative" else 0 for run in runs]
    curves = []
    for run, start in zip(runs, starts, strict=True):
        curve = survey.Curve(run.info.run_id, key, "step" if axis == "step" else "timestamp")
        if part[0] is not None:
            curve = curve._replace(low=max(curve.low, math.ceil(part[0] * unit) + start))
        if part[1] is not None:
            curve = curve._replace(high=min(curve.high, math.floor(part[1] * unit) + start))
        curves.append(curve)
    extents = [curve.extent(store, 2 * stretches) for curve in curves]
    if not any(extent and extent.more for extent in extents):
        return aligned(
            [
                [((place - start) / unit if unit > 1 else place, value) for place, value in curve.points(store)]
                for curve, start in zip(curves, starts, strict=True)
            ],
            stretches,
        )
    ends = [
        (extent.first - start, extent.last - start) for extent, start in zip(extents, starts, strict=True) if extent
    ]
    low, high = min(first for first, _ in ends), max(last for _, last in ends)
    width = -(-(high - low + 1) // stretches)
    thinned = [curve.thinned(store, low + start, width) for curve, start in zip(curves, starts, strict=True)]
    xs = [(low + width * (place + part)) / unit for place in range(stretches) for part in (0.25, 0.75)]
    return Aligned(xs, stretched(thinned, stretches), width / unit)


def _start(store: Store, run: Run, key: str) -> int:
    """When a run began or, where its clock was another one, its first point."""
    extent = survey.Curve(run.info.run_id, key, "timestamp").extent(store, 0)
    return min(run.info.start_time, extent.first) if extent and run.info.start_time else extent.first if extent else 0


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a number") from None
    return found if abs(found) < 2**62 else None


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
