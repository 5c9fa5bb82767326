"""Small pictures that the server draws: lines, steps and bands as the points of SVG elements, with their axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mlcli.cli import render

WIDE, HIGH = 420, 220  # of the whole
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 10, 26
COLOURS = 8
Points = Sequence[Sequence[float]]


def picture(
    lines: Sequence[dict[str, Any]],
    *,
    across: str = "",
    steps: bool = False,
    band: bool = False,
    dots: bool = False,
    log: bool = False,
    share: bool = False,
    level: float | None = None,
    diagonal: bool = False,
) -> dict[str, Any]:
    """Where to draw what.

    ``lines`` have a name and points (x, y); with ``band`` (x, low, y, high). ``across`` is ``time`` for seconds. ``share``:
    from 0 to 1. ``level``: a line to compare with.
    """
    up: Callable[[float], float] = (lambda y: math.log10(max(y, 1e-300))) if log else float
    drawn = [
        {"name": str(line["name"]), "points": [(point[0], *(up(y) for y in point[1:])) for point in line["points"]]}
        for line in lines
    ]
    xs = [point[0] for line in drawn for point in line["points"]]
    ys = [y for line in drawn for point in line["points"] for y in point[1:]]
    if not xs:
        return {}
    if level is not None:
        ys.append(up(level))
    x_ticks = _ticks(min(xs), max(xs))
    low_x, high_x = (0.0, 1.0) if diagonal else (min(xs), max(xs))
    low_y, high_y = (0.0, 1.0) if share else _room(min(ys), max(ys))
    wide_x, wide_y = (high_x - low_x) or 1.0, (high_y - low_y) or 1.0

    def x_of(x: float) -> float:
        return round(LEFT + (x - low_x) / wide_x * (WIDE - LEFT - RIGHT), 1)

    def y_of(y: float) -> float:
        return round(HIGH - BOTTOM - (y - low_y) / wide_y * (HIGH - TOP - BOTTOM), 1)

    shapes = []
    for number, line in enumerate(drawn):
        points = line["points"]
        middle = [(point[0], point[2 if band else 1]) for point in points]
        if steps:
            middle = [
                corner
                for one, after in zip(middle, [*middle[1:], None], strict=True)
                for corner in ((one,) if after is None else (one, (after[0], one[1])))
            ]
        edge = [(p[0], p[3]) for p in points] + [(p[0], p[1]) for p in reversed(points)] if band else []
        places = [(x_of(x), y_of(y)) for x, y in middle]
        shapes.append(
            {
                "name": line["name"],
                "colour": number % COLOURS,
                "line": "" if dots else _joined(places),
                "dots": places if dots else [],
                "band": _joined([(x_of(x), y_of(y)) for x, y in edge]),
            }
        )
    return {
        "wide": WIDE,
        "high": HIGH,
        "box": {"left": LEFT, "right": WIDE - RIGHT, "top": TOP, "bottom": HIGH - BOTTOM},
        "shapes": shapes,
        "x_ticks": [
            {"at": x_of(x), "text": render.duration(x * 1000) if across == "time" else f"{x:.3g}"}
            for x in x_ticks
            if low_x <= x <= high_x
        ],
        "y_ticks": [
            {"at": y_of(y), "text": _power(y) if log else f"{y:.0%}" if share and not diagonal else f"{y:.3g}"}
            for y in _ticks(low_y, high_y)
            if low_y <= y <= high_y
        ],
        "level": y_of(up(level)) if level is not None else None,
        "diagonal": diagonal,
    }


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _power(y: float) -> str:
    value = 10**y
    return f"{value:,.0f}" if 1 <= value < 1e5 else f"{value:.2g}"


def _room(low: float, high: float) -> tuple[float, float]:
    pad = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers between two."""
    span = high - low
    if not span > 0:
        return [low]
    size = 10 ** math.floor(math.log10(span / 4))
    step = size * next(times for times in (1, 2, 2.5, 5, 10) if span / (size * times) <= 5)
    first = math.ceil(low / step)
    return [round(number * step, 12) + 0.0 for number in range(first, math.floor(high / step + 1e-9) + 1)]
