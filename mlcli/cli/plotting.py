"""Curves in a terminal: points as braille dots, two across and four down in each character, or as letters without Unicode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlcli.cli import render

if TYPE_CHECKING:
    from collections.abc import Sequence

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row, then column, of a character
_LETTERS = "*o+x#%@&"
STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
LEAST_WIDTH, LEAST_HEIGHT = 24, 4


class Line(NamedTuple):
    """A curve to draw: its name and its points, in order along the axis; one that is NaN breaks it."""

    name: str
    points: Sequence[tuple[float, float]]


def drawn(lines: Sequence[Line], width: int, height: int, *, log: bool = False, unit: str = "step") -> list[str]:
    """The curves with their axes, at most ``width`` wide, and a line for each that says which it is."""
    import math

    def up(value: float) -> float:
        return math.log10(value) if log else value

    def broken(value: float) -> bool:
        return math.isnan(value) or (log and value <= 0)

    every = [point for line in lines for point in line.points if not broken(point[1])]
    if not every:
        return []
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    labels = [render.number(value) for value in _ticks(low, high, log=log)]
    margin = max(map(len, labels)) + 1
    across, down = max(width - margin - 1, LEAST_WIDTH), max(height, LEAST_HEIGHT)
    picture = _Picture(across, down)
    bottom, span = up(low), (up(high) - up(low)) or 1.0
    for number, line in enumerate(lines):
        before: tuple[int, int] | None = None
        for x, y in line.points:
            if broken(y):
                before = None
                continue
            place = (
                round((x - left) / ((right - left) or 1.0) * (picture.wide - 1)),
                round((1 - (up(y) - bottom) / span) * (picture.high - 1)),
            )
            picture.stroke(before or place, place, number)
            before = place
    bar = "│" if render.unicode_ok() else "|"
    rows = {0: labels[2], down // 2: labels[1], down - 1: labels[0]}
    result = [f"{rows.get(row, ''):>{margin - 1}} {bar}{text}" for row, text in enumerate(picture.rows())]
    corner, flat = ("└", "─") if render.unicode_ok() else ("+", "-")
    first, last = (f"{render.number(left)}", f"{render.number(right)} {unit}")
    result.append(f"{'':{margin}}{corner}{flat * across}")
    result.append(f"{'':{margin}} {first}{last:>{max(across - len(first), 1)}}")
    for number, line in enumerate(lines):
        sign = render.styled("━━" if render.unicode_ok() else _LETTERS[number % len(_LETTERS)] * 2, style_of(number))
        result.append(f"{'':{margin}} {sign} {render.cut(render.plain(line.name), across - 4)}")
    return result


def style_of(number: int) -> str:
    return STYLES[number % len(STYLES)]


def _ticks(low: float, high: float, *, log: bool) -> tuple[float, float, float]:
    """What is written at the bottom, in the middle and at the top."""
    return low, (low * high) ** 0.5 if log else low / 2 + high / 2, high


class _Picture:
    """Dots in characters; each character has the colour of the curve that came there last."""

    def __init__(self, across: int, down: int) -> None:
        self.fine = render.unicode_ok()
        self.wide, self.high = (across * 2, down * 4) if self.fine else (across, down)
        self._dots = [[0] * across for _ in range(down)]
        self._owner = [[-1] * across for _ in range(down)]

    def stroke(self, start: tuple[int, int], end: tuple[int, int], number: int) -> None:
        (x, y), (to_x, to_y) = start, end
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(steps + 1):
            self._dot(x + (to_x - x) * step // steps, y + (to_y - y) * step // steps, number)

    def _dot(self, x: int, y: int, number: int) -> None:
        if self.fine:
            column, row = x // 2, y // 4
            self._dots[row][column] |= _DOTS[y % 4][x % 2]
        else:
            column, row = x, y
            self._dots[row][column] = ord(_LETTERS[number % len(_LETTERS)])
        self._owner[row][column] = number

    def rows(self) -> list[str]:
        """The characters, each stretch of one curve in its colour."""
        result = []
        for dots, owners in zip(self._dots, self._owner, strict=True):
            text, start = "", 0
            while start < len(dots):
                end = start
                while end < len(dots) and owners[end] == owners[start]:
                    end += 1
                part = "".join(
                    " " if not dot else chr(0x2800 + dot) if self.fine else chr(dot) for dot in dots[start:end]
                )
                text += part if owners[start] < 0 else render.styled(part, style_of(owners[start]))
                start = end
            result.append(text.rstrip())
        return result


def smoothed(points: Sequence[tuple[float, float]], weight: float) -> list[tuple[float, float]]:
    """A moving mean in which what lies back weighs ever less; 0 leaves the points as they are."""
    result, mean, total = [], 0.0, 0.0
    for x, value in points:
        if value != value:  # noqa: PLR0124 - NaN
            result.append((x, value))
            continue
        mean = mean * weight + (1 - weight) * value
        total = total * weight + (1 - weight)
        result.append((x, mean / total))
    return result
