"""Curves for pictures: thinned to what can be seen, with the extremes kept, and put on common places along the axis.

A value that is NaN breaks its curve: what is before it and what comes after are not joined.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

Curve = Sequence[tuple[float, float]]


class Aligned(NamedTuple):
    """Curves over common places ``xs``; None where a curve has no point. ``width`` is that of a stretch, 0 where every
    point is there.
    """

    xs: list[float]
    curves: list[list[float | None]]
    width: float


def aligned(curves: Sequence[Curve], stretches: int) -> Aligned:
    """Put curves, each in the order of its places, on common places.

    Where there would be more places than twice the ``stretches``, the axis is cut into that many and each curve keeps
    its least and its greatest point of each stretch, in their order: no spike is lost, whatever the scale.
    """
    places: set[float] = set()
    for curve in curves:
        places.update([x for x, _ in curve])
        if len(places) > 2 * stretches:
            return _thinned(curves, stretches)
    xs = sorted(places)
    index = {x: place for place, x in enumerate(xs)}
    result = []
    for curve in curves:
        values: list[float | None] = [None] * len(xs)
        for x, value in curve:
            known = values[index[x]]
            if known is None or value == value or known != known:  # noqa: PLR0124 - a NaN hides no number
                values[index[x]] = value  # of several points in one place the last is seen
        result.append(values)
    return Aligned(xs, result, 0.0)


def _thinned(curves: Sequence[Curve], stretches: int) -> Aligned:
    low = min(curve[0][0] for curve in curves if curve)
    high = max(curve[-1][0] for curve in curves if curve)
    width = (high - low) / stretches or 1.0
    edges = [low + width * place for place in range(1, stretches)]
    xs = [low + width * (place + part) for place in range(stretches) for part in (0.25, 0.75)]
    result = []
    for curve in curves:
        values: list[float | None] = [None] * (2 * stretches)
        if curve:
            where, what = zip(*curve, strict=True)
            start = 0
            for place in range(stretches):
                end = bisect_left(where, edges[place], start) if place < stretches - 1 else len(where)
                if end > start:
                    part = [value for value in what[start:end] if not math.isnan(value)] or [math.nan]
                    least, greatest = min(part), max(part)
                    if least == greatest or math.isnan(least):
                        values[2 * place] = least
                    elif part.index(least) < part.index(greatest):
                        values[2 * place], values[2 * place + 1] = least, greatest
                    else:
                        values[2 * place], values[2 * place + 1] = greatest, least
                    start = end
        result.append(values)
    return Aligned(xs, result, width)


def stretched(curves: Sequence[Sequence[tuple[int, float, float]]], count: int) -> list[list[float | None]]:
    """Curves on twice ``count`` places from the (place, least, greatest) of their stretches.

    In which order the two came is not known any more: the nearer one to what came before is first, as a curve goes.
    """
    result = []
    for curve in curves:
        values: list[float | None] = [None] * (2 * count)
        before = None
        for place, least, greatest in curve:
            if math.isnan(least):
                values[2 * place] = least
                continue
            if least == greatest:
                values[2 * place] = before = least
                continue
            falls = before is not None and abs(before - greatest) <= abs(before - least)
            values[2 * place], values[2 * place + 1] = (greatest, least) if falls else (least, greatest)
            before = least if falls else greatest
        result.append(values)
    return result
