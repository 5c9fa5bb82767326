"""How results look: a table on a terminal, tab-separated lines in a pipe, JSON on request; notes go to stderr.

Data are written to stdout, everything said about them to stderr. Tables on a terminal are drawn by rich, which is imported
only then; which columns fit is decided here, because rich cannot be told what to leave out on a narrow terminal.
Whatever comes from outside is shown with its control characters spelled out, so that no run name can steer a terminal.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
GAP = "  "


class Levels(NamedTuple):
    """How much is said: what ``-q``, ``-v`` and ``--debug`` ask for."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


_levels = Levels()


def configure(levels: Levels) -> None:
    """Set, once per process, how much is said."""
    global _levels  # noqa: PLW0603 - the one setting of a process that every face reads
    _levels = levels


def levels() -> Levels:
    return _levels


class Column(NamedTuple):
    """One column of a table.

    A terminal gets ``show(value)``, a pipe the value itself or ``pipe(value)``. Where the terminal is narrow, columns
    are cut, at most down to their ``least`` width (0: never), at their end or, to ``keep_end``, in their middle; what is
    ``optional`` comes along, the smallest number first, as long as there is room.
    """

    key: str
    title: str = ""
    show: Callable[[Any], str] = str
    right: bool = False
    style: str | Callable[[Any], str] = ""
    least: int = 0
    optional: int = 0
    keep_end: bool = False
    pipe: Callable[[Any], str] | None = None

    @property
    def heading(self) -> str:
        return self.title or self.key


# --- what the terminal can do -------------------------------------------------------------------------------------


def on_terminal(stream: TextIO | None = None) -> bool:
    """Whether the data (or ``stream``) go to a terminal, to somebody's eyes."""
    stream = sys.stdout if stream is None else stream
    return stream is not None and not stream.closed and stream.isatty()


def coloured(stream: TextIO | None = None) -> bool:
    """NO_COLOR forbids colours, FORCE_COLOR asks for them; otherwise a terminal that is not dumb gets them."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and on_terminal(stream)


def unicode_ok(stream: TextIO | None = None) -> bool:
    """Whether signs such as a check mark can be written; otherwise plain letters stand in."""
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None) or "ascii"
    return str(encoding).lower().replace("-", "").replace("_", "").startswith("utf")


def terminal_width() -> int:
    """Columns of the terminal: the variable COLUMNS, else what the terminal says, else 80."""
    if os.environ.get("COLUMNS", "").isdigit() and int(os.environ["COLUMNS"]) > 0:
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def console() -> Console:
    """The rich console of stdout, for progress bars and the like; made only when somebody asks."""
    from rich.console import Console

    return Console(no_color=not coloured(), highlight=False)


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """``text`` in one or more of STYLES (``"bold red"``), where colours are wanted."""
    if not style or not coloured(stream):
        return text
    return f"\x1b[{';'.join(STYLES[name] for name in style.split())}m{text}\x1b[0m"


# --- text ---------------------------------------------------------------------------------------------------------

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL |= {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r"}
# These reorder or hide the text around them.
_CONTROL |= {
    code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}


def plain(value: object) -> str:
    """The value as one line that shows its control characters instead of obeying them; None is empty."""
    return "" if value is None else str(value).translate(_CONTROL)


def plain_lines(value: str) -> str:
    """As ``plain``, but keep line ends and tabs."""
    return "\n".join("\t".join(plain(part) for part in line.split("\t")) for line in value.split("\n"))


def width(text: str) -> int:
    """How many columns the text takes on a terminal: East Asian wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    """The text in at most ``limit`` columns; a mark stands where something is missing, at the end or in the middle."""
    if width(text) <= limit:
        return text
    mark = "…" if unicode_ok() else "~"
    tail = _beginning(text[::-1], (limit - 1) // 2)[::-1] if keep_end else ""
    return _beginning(text, limit - 1 - width(tail)) + mark + tail if limit > 0 else ""


def _beginning(text: str, limit: int) -> str:
    """As much of the text's beginning as fits."""
    end = min(len(text), max(limit, 0))
    while width(text[:end]) > limit:
        end -= 1
    return text[:end]


def _padded(text: str, space: int, *, right: bool) -> str:
    fill = " " * (space - width(text))
    return fill + text if right else text + fill


def duration(ms: float | None) -> str:
    """A span of time for people: ``850 ms``, ``12.3 s``, ``3m 20s``, ``2h 05m``, ``3d 4h``."""
    if ms is None:
        return ""
    if ms < 0:
        return f"-{duration(-ms)}"
    seconds = ms / 1000
    if seconds < 1:
        return f"{ms:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {whole:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24}d {hours % 24}h"


def ago(ms: float | None, now: float | None = None) -> str:
    """How long ago a moment was; beyond a month, its date."""
    if ms is None:
        return ""
    import time

    seconds = (time.time() * 1000 if now is None else now) / 1000 - ms / 1000
    if seconds < -60:
        return local_time(ms)
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h"), (30 * 86400, 86400, "d")):
        if seconds < limit:
            return f"{int(max(seconds, 0) // unit)}{name} ago"
    return local_time(ms)[:10]


def local_time(ms: float | None) -> str:
    """A moment as the reader's clock shows it: ``2026-11-23 14:05:09``."""
    if ms is None:
        return ""
    import time

    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))
    except (OverflowError, ValueError, OSError):  # a clock that was far off when the run was made
        return f"{ms:.0f} ms"


def iso_time(ms: int | None) -> str:
    """A moment for programs: UTC, ISO 8601, milliseconds."""
    if ms is None:
        return ""
    import time

    try:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms // 1000))}.{ms % 1000:03d}Z"
    except (OverflowError, ValueError, OSError):
        return str(ms)


def size(count: float | None) -> str:
    """A number of bytes for people: ``512 B``, ``1.2 kB``, ``3.4 MB``."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.1f} {unit}" if count < 99.95 else f"{count:.0f} {unit}"


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def number(value: float | None) -> str:
    """A metric in few characters: whole numbers whole, others with five significant digits."""
    if value is None:
        return ""
    if str(float(value)) in _NOT_FINITE:
        return _NOT_FINITE[str(float(value))]
    if float(value).is_integer() and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.5g}"


def numbers(values: Iterable[object]) -> Callable[[Any], str]:
    """How to show the numbers of one column so that their points stand below each other: four digits of the greatest."""
    known = [float(value) for value in values if isinstance(value, (int, float)) and abs(value) < float("inf")]
    greatest = max(map(abs, known), default=0.0)
    least = min((abs(value) for value in known if value), default=0.0)
    if all(value.is_integer() for value in known) or not 1e-3 <= greatest < 1e6 or least < greatest / 1e4:
        return number
    decimals = 3
    while greatest < 1 and decimals < 12:
        greatest, decimals = greatest * 10, decimals + 1
    while greatest >= 10 and decimals > 1:
        greatest, decimals = greatest / 10, decimals - 1
    return lambda value: f"{value:.{decimals}f}" if abs(value) < float("inf") else number(value)


def count(number_of: int, noun: str) -> str:
    """``1 run``, ``2 runs``; nouns whose plural is not an ``s`` are not ours."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


_SIGNS = {
    "FINISHED": ("✓", "+", "green"),
    "FAILED": ("✗", "x", "red"),
    "KILLED": ("■", "#", "red"),
    "RUNNING": ("●", "*", "cyan"),
    "SCHEDULED": ("◌", ".", "yellow"),
}


def status(value: str) -> str:
    """A run's status with a sign of its own, so that colour is not needed to see it."""
    sign, letter, _ = _SIGNS.get(value, ("?", "?", ""))
    return f"{sign if unicode_ok() else letter} {value}"


def status_style(value: str) -> str:
    return _SIGNS.get(value, ("", "", ""))[2]


def sparkline(values: Sequence[float], limit: int = 24) -> str:
    """The course of a metric in at most ``limit`` characters; a value that is not finite leaves a gap."""
    steps = "▁▂▃▄▅▆▇█" if unicode_ok() else "_.-=+*#@"
    if len(values) > limit:  # the last value of each stretch, so that the end is the latest
        values = [values[(index + 1) * len(values) // limit - 1] for index in range(limit)]
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    half = (high / 2 - low / 2) or 1.0  # halves: the span of two huge values may overflow
    return "".join(
        steps[min(int((value / 2 - low / 2) / half * (len(steps) - 1) + 0.5), len(steps) - 1)]
        if abs(value) < float("inf")
        else " "
        for value in values
    )


# --- data, to stdout ----------------------------------------------------------------------------------------------


def emit(text: str) -> None:
    """One line of data."""
    print(text)


def emit_json(value: object) -> None:
    """One JSON document; NaN and the infinities, which JSON lacks, become the strings NaN, Infinity, -Infinity."""
    import json

    ascii_only = not unicode_ok()
    indent = 2
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    except ValueError:
        text = json.dumps(json_ready(value), ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    print(text)


def json_ready(value: object) -> object:
    """The value with every float that JSON lacks as a string."""
    if isinstance(value, float):
        return _NOT_FINITE.get(str(value), value)
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    return value


_TSV = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}


def tsv_cell(value: object) -> str:
    r"""A value as one cell of tab-separated lines: backslash, tab and line ends are written ``\\ \t \n \r``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).translate(_TSV)


def records(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[Column],
    *,
    as_json: bool = False,
    empty: str = "",
    objects: Iterable[object] | None = None,
) -> None:
    """Write a list: a table on a terminal, tab-separated lines under a header in a pipe, or a JSON array.

    The JSON array holds ``objects`` where given, else the rows. ``empty`` says on stderr what to do next when there is
    nothing to list.
    """
    if as_json:
        emit_json(list(rows if objects is None else objects))
    elif not on_terminal():
        lines = ["\t".join(_piped(row.get(column.key), column) for column in columns) for row in rows]
        print("\n".join(["\t".join(column.key for column in columns), *lines]))
    elif rows:
        print("\n".join(table(rows, columns, terminal_width())))
    if not rows and empty:
        note(empty)


def _piped(value: object, column: Column) -> str:
    return tsv_cell(column.pipe(value) if column.pipe and value is not None else value)


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[Column], space: int) -> list[str]:
    """The lines of a table that is at most ``space`` wide; says below what was left out."""
    cells = [
        [plain(column.show(row[column.key])) if row.get(column.key) is not None else "" for column in columns]
        for row in rows
    ]
    widths = [
        max([width(column.heading), *(width(line[index]) for line in cells)]) for index, column in enumerate(columns)
    ]
    kept, widths, left_out = _fit(columns, widths, space)
    lines = _drawn(
        [(cut(columns[index].heading, widths[index]), widths[index], columns[index].right) for index in kept],
        [
            [
                (
                    cut(line[index], widths[index], keep_end=columns[index].keep_end),
                    _style(columns[index], row) if line[index] else "",
                )
                for index in kept
            ]
            for row, line in zip(rows, cells, strict=True)
        ],
        space,
    )
    if left_out:
        names = ", ".join(columns[index].heading.strip() for index in left_out)
        lines.append(styled(cut(f"(no room for {names})", space), "dim"))
    return lines


def _style(column: Column, row: Mapping[str, object]) -> str:
    return column.style if isinstance(column.style, str) else column.style(row.get(column.key))


def _drawn(heads: Sequence[tuple[str, int, bool]], rows: Sequence[Sequence[tuple[str, str]]], space: int) -> list[str]:
    """Let rich draw columns of known width (heading, width, to the right) and rows of texts with their styles."""
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    frame = box.SIMPLE_HEAD if unicode_ok() else box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    drawn = Table(
        box=frame, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", border_style="dim"
    )
    for heading_, wide, right in heads:
        drawn.add_column(
            Text(heading_), width=wide, no_wrap=True, overflow="crop", justify="right" if right else "left"
        )
    for row in rows:
        drawn.add_row(*(Text(text, style) for text, style in row))
    output = StringIO()
    console = Console(
        file=output,
        width=max(space, _needed([wide for _, wide, _ in heads], range(len(heads)))),
        force_terminal=coloured(),
        color_system="standard" if coloured() else None,
        legacy_windows=False,
    )
    console.print(drawn)
    return [line.rstrip() for line in output.getvalue().rstrip("\n").split("\n")]


def _fit(columns: Sequence[Column], natural: Sequence[int], space: int) -> tuple[list[int], list[int], list[int]]:
    """Choose the columns that fit, their widths, and what is left out: first who comes along, then who is cut."""
    smallest = [min(full, column.least or full) for full, column in zip(natural, columns, strict=True)]
    kept: list[int] = []
    for index in sorted(range(len(columns)), key=lambda index: columns[index].optional):
        if not columns[index].optional or _needed(smallest, [*kept, index]) <= space:
            kept.append(index)
    kept.sort()
    widths = list(natural)
    while _needed(widths, kept) > space:  # always the widest of those that may still be cut
        loose = [index for index in kept if widths[index] > smallest[index]]
        if not loose:
            break
        widths[max(loose, key=lambda index: widths[index])] -= 1
    return kept, widths, [index for index in range(len(columns)) if index not in kept]


def _needed(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[index] for index in kept) + len(GAP) * (len(kept) - 1)


def fields(pairs: Iterable[tuple[str, object]], *, as_json: bool = False, obj: object = None) -> None:
    """Write one thing: names and values aligned on a terminal, tab-separated in a pipe, or ``obj`` as JSON."""
    shown = [(name, value) for name, value in pairs if value is not None]
    if as_json:
        emit_json(dict(shown) if obj is None else obj)
    elif on_terminal():
        space = max((width(plain(name)) for name, _ in shown), default=0)
        for name, value in shown:
            print(f"{styled(_padded(plain(name), space, right=False), 'dim')}{GAP}{plain(value)}")
    else:
        for name, value in shown:
            print(f"{tsv_cell(name)}\t{tsv_cell(value)}")


def heading(text: str) -> None:
    """A title between parts of a long answer on a terminal."""
    print(f"\n{styled(text, 'bold')}")


# --- words, to stderr ---------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    stream = cast("TextIO | None", sys.stderr)
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):  # nobody listens; what was asked for goes on
        pass


def note(text: str) -> None:
    """Say something about the data; silent with ``-q``."""
    if not _levels.quiet:
        _say(text)


def detail(text: str) -> None:
    """Say something that only ``-v`` wants to know."""
    if _levels.verbose or _levels.debug:
        _say(styled(text, "dim", sys.stderr))


def success(text: str) -> None:
    """Say that something was done; silent with ``-q``."""
    if not _levels.quiet:
        sign = "✓" if unicode_ok(sys.stderr) else "ok:"
        _say(f"{styled(sign, 'green', sys.stderr)} {text}")


@contextmanager
def progress(what: str, unit: str = "") -> Iterator[Callable[[int, int], None] | None]:
    """Give a function that shows how many of how many bytes are done, while it takes; None where nobody would see.

    With ``unit`` it is not bytes that are counted but, say, runs.
    """
    if _levels.quiet or not on_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        yield None
        return
    import time

    start = shown = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - start < 0.3 or now - shown < 0.1:  # what is quick needs no bar
            return
        shown = now
        room = max(terminal_width() - width(what) - 34, 10)
        share = done / total if total else 1.0
        bar = ("█" if unicode_ok(sys.stderr) else "#") * int(share * room)
        of, speed = (
            (count(total, unit), count(int(done / (now - start)), unit))
            if unit
            else (size(total), size(done / (now - start)))
        )
        text = f"{what} {bar:{room}} {share:4.0%} of {of}, {speed}/s"
        sys.stderr.write(f"\r\x1b[K{cut(text, terminal_width() - 1)}")
        sys.stderr.flush()

    try:
        yield tick
    finally:
        if shown != start:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def warn(text: str, hint: str = "") -> None:
    """Say that something is not as it should be; also with ``-q``."""
    _say(f"{styled('warning:', 'bold yellow', sys.stderr)} {plain_lines(text)}")
    if hint:
        _say(f"{styled('hint:', 'bold', sys.stderr)} {plain_lines(hint)}")


def error(text: str, hint: str = "") -> None:
    """Say why nothing came of it, and what to do next."""
    _say(f"{styled('error:', 'bold red', sys.stderr)} {plain_lines(text)}")
    if hint:
        _say(f"{styled('hint:', 'bold', sys.stderr)} {plain_lines(hint)}")
