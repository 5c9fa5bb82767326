"""Small pictures of lines, steps, bands and dots as SVG: for pages and for reports that need nothing else.

Colours and strokes are classes, so whoever shows a picture says how it looks in light, in dark and on paper; `STYLE` does.
"""

from __future__ import annotations

import math
import unicodedata
from html import escape
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

WIDE, HIGH, SQUARE = 420, 220, 300  # of the whole; the last one is the side of what compares an axis with itself
RIGHT, TOP, BOTTOM = 14, 10, 26
ROOM = 17  # of a line of text
LETTER = 7.0  # how wide one is, about
COLOURS = 8
Points = Sequence[Sequence[float]]
_LIGHT = ("#3357d6", "#c9640f", "#1a8a5a", "#c2478f", "#8a63d2", "#1287a2", "#92721f", "#6b7484")
_DARK = ("#6d8df5", "#ee9147", "#4bc18d", "#e07bb6", "#b195ec", "#45b9d4", "#cfae57", "#a3abba")
_INK = "".join(f".c{n}{{stroke:{colour};fill:{colour}}}" for n, colour in enumerate(_LIGHT))
_SHAPES = (
    "polyline.drawn{fill:none;stroke-width:2;stroke-linejoin:round}.dashed{stroke-dasharray:7 4}"
    "polygon.band{opacity:.18;stroke:none}circle.spot{opacity:.6;stroke:none}.key{stroke-width:4}"
    ".axis{stroke:#8889}.grid-line{stroke:#8884}.reference{stroke:currentColor;opacity:.6;stroke-dasharray:5 4}"
)
STYLE = (
    f"{_SHAPES}{_INK}@media screen and (prefers-color-scheme:dark){{"
    + "".join(f".c{n}{{stroke:{colour};fill:{colour}}}" for n, colour in enumerate(_DARK))
    + "}"
)


def picture(
    lines: Sequence[Mapping[str, Any]],
    *,
    across: str = "",
    up: str = "",
    names: Tuple[str, str] = ("", ""),
    span: Optional[Tuple[float, float]] = None,
    steps: bool = False,
    band: bool = False,
    dots: bool = False,
    marks: bool = False,
    level: Optional[float] = None,
    diagonal: bool = False,
    square: bool = False,
) -> Dict[str, Any]:
    """Where to draw what, and what its axes say; {} where there is nothing to draw.

    ``lines`` have a name and points (x, y); with ``band`` (x, low, y, high). An axis is plain, ``log``, ``share`` (0 to 1)
    or ``time`` (seconds); ``names`` are written beside them. ``span`` is what the axis across shows at least. ``level``: a
    line to compare with; ``diagonal``: another, where x and y are the same. ``marks`` are dots on the line.
    """
    to_x, to_y = _scale(across), _scale(up)
    drawn = [
        (str(line["name"]), [(to_x(point[0]), *map(to_y, point[1:])) for point in line["points"]]) for line in lines
    ]
    xs = [point[0] for _, points in drawn for point in points] + [to_x(x) for x in span or ()]
    ys = [y for _, points in drawn for point in points for y in point[1:]]
    if not any([points for _, points in drawn]):
        return {}
    if level is not None:
        ys.append(to_y(level))
    if diagonal:  # where both are the same: the axes are alike
        xs = ys = [*xs, *ys]
    low_x, high_x = (0.0, 1.0) if across == "share" else _room(min(xs), max(xs)) if diagonal else (min(xs), max(xs))
    low_y, high_y = (0.0, 1.0) if up == "share" else _room(min(ys), max(ys))
    x_ticks, y_ticks = (ticks(*ends, kind) for ends, kind in (((low_x, high_x), across), ((low_y, high_y), up)))
    wide, high = (SQUARE + 40, SQUARE + 30) if square or diagonal else (WIDE, HIGH)
    left = max(34, round(LETTER * max([_width(text) for _, text in y_ticks], default=0)) + 12)
    right = wide - max(RIGHT, round(LETTER * _width(x_ticks[-1][1]) / 2) if x_ticks else 0)
    top, bottom = TOP + ROOM * bool(names[1]), high - BOTTOM - ROOM * bool(names[0])

    def x_of(x: float) -> float:
        return round(left + (x - low_x) / ((high_x - low_x) or 1.0) * (right - left), 1)

    def y_of(y: float) -> float:
        return round(bottom - (y - low_y) / ((high_y - low_y) or 1.0) * (bottom - top), 1)

    shapes = []
    for number, (name, points) in enumerate(drawn):
        middle = [(point[0], point[2 if band else 1]) for point in points]
        if steps:
            middle = _stepped(middle)
        edge = [(p[0], p[3]) for p in points] + [(p[0], p[1]) for p in reversed(points)] if band else []
        places = [(x_of(x), y_of(y)) for x, y in middle]
        shapes.append(
            {
                "name": name,
                "kind": f"c{number % COLOURS}{' dashed' if number % 2 else ''}",  # what lies below is seen
                "line": "" if dots else _joined(places),
                "dots": places if dots or marks else [],
                "band": _joined([(x_of(x), y_of(y)) for x, y in edge]),
            }
        )
    said = [
        (name, *(_said(point[2 if band else 1], up) for point in (points[0], points[-1])))
        for name, points in drawn
        if points
    ]
    return {
        "wide": wide,
        "high": high,
        "names": names,
        "box": {"left": left, "right": right, "top": top, "bottom": bottom},
        "shapes": shapes,
        "x_ticks": [{"at": x_of(x), "text": text} for x, text in x_ticks],
        "y_ticks": [{"at": y_of(y), "text": text} for y, text in y_ticks],
        "level": y_of(to_y(level)) if level is not None else None,
        "diagonal": diagonal,
        "said": "" if dots else "; ".join(f"{name}{': ' if name else ''}{first} → {last}" for name, first, last in said),
    }  # fmt: skip


def _scale(kind: str) -> Callable[[float], float]:
    """From a value to its place on an axis of this kind."""
    return (lambda value: math.log10(max(value, 1e-300))) if kind == "log" else float


def _stepped(points: Sequence[Tuple[float, float]]) -> List[Tuple[float, float]]:
    """Each value holds until the next."""
    found = list(points[:1])
    for (_, before), (x, y) in zip(points, points[1:]):
        found += [(x, before), (x, y)]
    return found


def _joined(points: Sequence[Tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _room(low: float, high: float) -> Tuple[float, float]:
    pad = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return low - pad, high + pad


def _width(text: str) -> float:
    """Of a text in letters; those of East Asia are wider."""
    return sum(1.9 if unicodedata.east_asian_width(letter) in "WF" else 1.0 for letter in text)


# -- axes


def ticks(low: float, high: float, kind: str = "") -> List[Tuple[float, str]]:
    """About four round numbers between two places on an axis, and what they are called there."""
    if kind == "time":
        return _times(low, high)
    if kind == "log":
        return _powers(low, high)
    step = _step(high - low)
    return [(at, f"{at * 100:.0f} %" if kind == "share" and step >= 0.01 else _number(at, step)) for at in _multiples(low, high, step)]  # fmt: skip


def _step(span: float) -> float:
    """A round number that goes four times, about, into a span."""
    if not span > 1e-300:
        return 1.0
    size = 10.0 ** math.floor(math.log10(span / 4))
    return size * next(times for times in (1, 2, 5, 10) if span / (size * times) <= 5.5)


def _multiples(low: float, high: float, step: float) -> List[float]:
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return [low]  # numbers that nobody tells apart
    slack = 1e-9 * step
    first, last = math.ceil((low - slack) / step), math.floor((high + slack) / step)
    digits = 9 - math.floor(math.log10(step))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def _number(value: float, step: float) -> str:
    """With as many digits as the step has."""
    if not value or abs(value) >= 1e6 or step < 1e-4:
        return _said(value)
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


_SIXTIETHS = (1, 2, 5, 10, 15, 20, 30)
_UNITS = ((86_400.0, "d", ()), (3_600.0, "h", (1, 2, 3, 6, 12)), (60.0, "min", _SIXTIETHS), (1.0, "s", _SIXTIETHS))


def _times(low: float, high: float) -> List[Tuple[float, str]]:
    unit, sign, steps = next((one for one in _UNITS if high - low >= 2 * one[0]), (1.0, "s", ()))
    span = (high - low) / unit
    step = next((float(one) for one in steps if span / one <= 5.5), _step(span))
    return [(at * unit, f"{_number(at, step)} {sign}") for at in _multiples(low / unit, high / unit, step)]


def _powers(low: float, high: float) -> List[Tuple[float, str]]:
    """Of a logarithmic axis, whose places are exponents of ten: 1, 2, 5, 10 as far as there is room for them."""
    decades = high - low
    if decades > 2.5:
        each = math.ceil(decades / 5)
        whole = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        return [(float(power), _said(10.0**power)) for power in whole if power % each == 0]
    factors = range(math.floor(low), math.floor(high) + 1)
    found = [
        math.log10(times) + power
        for power in factors
        for times in ((1, 2, 5) if decades > 0.8 else (1, 2, 3, 4, 5, 6, 8) if decades > 0.35 else ())
    ]
    found = [at for at in found if low - 1e-9 <= at <= high + 1e-9]
    if len(found) < 2:  # less than from one number to the next: round numbers of a plain axis
        found = [math.log10(value) for value in _multiples(10**low, 10**high, _step(10**high - 10**low)) if value > 0]
    return [(at, _said(10**at)) for at in found[:: math.ceil(len(found) / 6) or 1]]


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _said(value: float, kind: str = "") -> str:
    """A number as a reader says it."""
    if kind == "share":
        return f"{value:.3g}" if abs(value) < 0.001 and value else f"{value * 100:.3g} %"
    if kind == "log":
        value = 10.0**value
    if value and not 1e-4 < abs(value) < 1e6:
        power = math.floor(math.log10(abs(value)) + 1e-9)
        lead = f"{value / 10.0**power:.2g}"
        return f"{'' if lead == '1' else lead + '·'}10{str(power).translate(_RAISED)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


# -- as text


def svg(shape: Mapping[str, Any], title: str, *, legend: bool = False) -> str:
    """The ``<svg>`` element; with ``legend`` the names stand below it, where the page has no place for them."""
    box, (x_name, y_name) = shape["box"], shape["names"]
    named = [one for one in shape["shapes"] if one["name"]] if legend else []
    high = shape["high"] + ROOM * len(named)
    label = ". ".join(filter(None, (title, shape["said"])))
    parts = [f'<svg viewBox="0 0 {shape["wide"]} {high}" role="img" aria-label="{escape(label)}">']
    if y_name:
        parts.append(f'<text x="0" y="{TOP + 1}">{escape(y_name)}</text>')
    for tick in shape["y_ticks"]:
        parts.append(_line("grid-line", box["left"], tick["at"], box["right"], tick["at"]))
        parts.append(
            f'<text x="{box["left"] - 6}" y="{tick["at"] + 4}" text-anchor="end">{escape(tick["text"])}</text>'
        )
    for tick in shape["x_ticks"]:
        parts.append(_line("axis", tick["at"], box["bottom"], tick["at"], box["bottom"] + 4))
        parts.append(f'<text x="{tick["at"]}" y="{box["bottom"] + ROOM}" text-anchor="middle">{escape(tick["text"])}</text>')  # fmt: skip
    if x_name:
        parts.append(
            f'<text x="{box["right"]}" y="{box["bottom"] + 2 * ROOM}" text-anchor="end">{escape(x_name)}</text>'
        )
    parts.append(_line("axis", box["left"], box["bottom"], box["right"], box["bottom"]))
    parts += [f'<polygon class="band {one["kind"]}" points="{one["band"]}"/>' for one in shape["shapes"] if one["band"]]
    if shape["diagonal"]:
        parts.append(_line("reference", box["left"], box["bottom"], box["right"], box["top"]))
    if shape["level"] is not None:
        parts.append(_line("reference", box["left"], shape["level"], box["right"], shape["level"]))
    for one in shape["shapes"]:
        if one["line"]:
            parts.append(f'<polyline class="drawn {one["kind"]}" points="{one["line"]}"/>')
        parts += [f'<circle class="spot {one["kind"]}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in one["dots"]]
    for number, one in enumerate(named):
        y = shape["high"] + ROOM * number + 8
        parts.append(f'<line class="key {one["kind"]}" x1="{box["left"]}" x2="{box["left"] + 16}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{box["left"] + 22}" y="{y + 4}">{escape(one["name"])}</text>')
    return "".join([*parts, "</svg>"])


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'


def legend(shape: Mapping[str, Any]) -> str:
    """The names of the lines as a list, for pages; "" where they need none."""
    named = [one for one in shape["shapes"] if one["name"]]
    keys = (
        f'<li><svg class="swatch-line" viewBox="0 0 16 4" aria-hidden="true"><line class="key {one["kind"]}" x2="16" y1="2" y2="2"/></svg>'
        f'<span class="break">{escape(one["name"])}</span></li>'
        for one in named
    )
    return f'<ul class="legend across">{"".join(keys)}</ul>' if named else ""


def file(element: str) -> str:
    """An ``<svg>`` element as a file of its own: black on white. "" of ""."""
    if not element:
        return ""
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    style = f"<style>text{{font:11px system-ui,sans-serif;fill:#333}}{_SHAPES}{_INK}</style>"
    head = element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" color="#111" ', 1)
    place = head.index(">") + 1
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head[:place]}{style}{white}{head[place:]}\n'
