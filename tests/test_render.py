"""How values and tables look: the pure part of the command line."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcli.cli import render


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """``terminal()`` makes stdout a UTF-8 terminal of 80 columns that remembers what was written."""

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    def make() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return make


COLUMNS = (
    render.Column("name", "NAME", least=6),
    render.Column("score", "SCORE", show=render.number, right=True),
    render.Column("extra", "EXTRA", optional=1),
)
ROWS = [{"name": "alpha", "score": 0.123456789, "extra": "x" * 30}, {"name": "b" * 40, "score": 12.0, "extra": "y"}]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (59_940, "59.9 s"),
        (59_990, "1m 00s"),
        (200_000, "3m 20s"),
        (7_500_000, "2h 05m"),
        (3 * 86_400_000, "3d 0h"),
        (-1500, "-1.5 s"),
        (None, ""),
    ],
)
def test_duration(ms, text):
    assert render.duration(ms) == text


@pytest.mark.parametrize(
    ("before", "text"),
    [(0, "0s ago"), (59_000, "59s ago"), (60_000, "1m ago"), (7_200_000, "2h ago"), (86_400_000 * 3, "3d ago")],
)
def test_ago(before, text):
    now = 1_700_000_000_000
    assert render.ago(now - before, now) == text


def test_ago_gives_the_date_of_what_is_long_ago_or_yet_to_come():
    now = 1_700_000_000_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", render.ago(now - 86_400_000 * 60, now))
    assert render.ago(now + 86_400_000, now).startswith("2023-11-1")


def test_times_for_programs_are_utc_with_milliseconds():
    assert render.iso_time(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize("ms", [10**18, -(10**18)])
def test_a_moment_no_clock_can_show_is_still_shown(ms):
    assert render.iso_time(ms)
    assert render.local_time(ms)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (999_900, "1.0 MB"), (5 * 10**15, "5000 TB")],
)
def test_size(count, text):
    assert render.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1234567, "0.12346"),
        (1e-7, "1e-07"),
        (1e12, "1e+12"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (None, ""),
    ],
)
def test_number(value, text):
    assert render.number(value) == text


def test_numbers_of_a_column_have_their_points_below_each_other():
    show = render.numbers([0.5, 0.12345, None, 0.99])
    assert [show(value) for value in (0.5, 0.12345, 0.99)] == ["0.5000", "0.1235", "0.9900"]


def test_numbers_of_very_different_size_are_shown_each_in_its_own_way():
    show = render.numbers([1e-9, 0.5])
    assert show(1e-9) == "1e-09"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6))
def test_numbers_shows_any_floats(values):
    show = render.numbers(values)
    assert all(show(value) for value in values)


def test_plain_spells_control_characters_out():
    assert render.plain("a\x1b[31m\n\tb\u202ec\x9b") == "a\\x1b[31m\\n\\tb\\u202ec\\x9b"


def test_width_counts_wide_and_combining_characters():
    assert render.width("日本") == 4
    assert render.width("e\u0301") == 1


def test_cut_marks_what_is_missing(terminal):
    terminal()
    assert render.cut("abcdefgh", 5) == "abcd…"
    assert render.cut("/long/path/file.csv", 11, keep_end=True) == "/long….csv"[:5] + "…" + "e.csv"
    assert render.cut("日本語", 4) == "日…"


@given(st.text(max_size=30), st.integers(1, 12), st.booleans())
def test_cut_never_takes_more_room_than_it_has(text, limit, keep_end):
    assert render.width(render.cut(text, limit, keep_end=keep_end)) <= limit


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=100), st.integers(1, 40))
def test_sparkline_is_never_longer_than_asked(values, limit):
    assert len(render.sparkline(values, limit)) <= limit


def test_sparkline_goes_from_the_least_to_the_greatest(terminal):
    terminal()
    assert render.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert render.sparkline([1, float("nan"), 1]) == "▁ ▁"
    assert render.sparkline([float("nan")]) == ""
    assert len(render.sparkline([-1e308, 1e308])) == 2


@given(
    st.lists(
        st.fixed_dictionaries({"name": st.text(max_size=40), "score": st.floats(), "extra": st.text(max_size=90)}),
        min_size=1,
        max_size=4,
    ),
    st.integers(22, 120),
)
@settings(max_examples=60)
def test_a_table_is_never_wider_than_the_terminal(rows, space):
    assert all(render.width(line) <= space for line in render.table(rows, COLUMNS, space))


def test_a_table_aligns_numbers_right_and_says_what_it_left_out(terminal):
    terminal()
    lines = render.table(ROWS, COLUMNS, 30)
    assert [line.split()[-1] for line in (lines[0], *lines[2:4])] == ["SCORE", "0.12346", "12"]
    assert len({len(line) for line in (lines[0], *lines[2:4])}) == 1
    assert lines[4] == "(no room for EXTRA)"


def test_what_is_optional_comes_along_in_the_order_of_its_number():
    columns = [render.Column("a", optional=2), render.Column("b", optional=1), render.Column("c")]
    lines = render.table([{"a": "1" * 8, "b": "2" * 8, "c": "3" * 8}], columns, 20)
    assert lines[0].split() == ["b", "c"]


def test_a_pipe_gets_tab_separated_lines_under_a_header(capsys):
    render.records([{"name": "a\tb\nc\\d", "score": None, "extra": True}], COLUMNS)
    assert capsys.readouterr().out == "name\tscore\textra\na\\tb\\nc\\\\d\t\ttrue\n"


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_tab_separated_values_can_be_taken_apart_again(values):
    line = "\t".join(render.tsv_cell(value) for value in values)
    signs = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    assert [re.sub(r"\\[\\tnr]", lambda match: signs[match[0]], cell) for cell in line.split("\t")] == values


def test_json_is_one_valid_document_with_nan_as_text(capsys):
    render.records([{"name": "日", "score": float("nan")}], COLUMNS, as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == [{"name": "日", "score": "NaN"}]


def test_json_of_named_tuples_in_lists_keeps_their_values():
    assert render.json_ready({"a": [float("inf"), (1, float("-inf"))]}) == {"a": ["Infinity", [1, "-Infinity"]]}


def test_nothing_to_list_says_on_stderr_what_to_do_next(capsys):
    render.records([], COLUMNS, empty="make one")
    captured = capsys.readouterr()
    assert captured.out == "name\tscore\textra\n"
    assert captured.err == "make one\n"


def test_nothing_to_list_is_an_empty_json_array(capsys):
    render.records([], COLUMNS, as_json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_a_terminal_gets_no_header_over_nothing(terminal):
    stream = terminal()
    render.records([], COLUMNS)
    assert stream.getvalue() == ""


def test_fields_are_aligned_on_a_terminal_and_leave_out_what_is_unknown(terminal):
    stream = terminal()
    render.fields([("a", 1), ("long name", "x"), ("gone", None)])
    assert stream.getvalue() == "a          1\nlong name  x\n"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_follow_the_conventions(terminal, monkeypatch, environ, expected):
    terminal()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert render.coloured() is expected


def test_a_pipe_gets_colours_only_when_forced(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert not render.coloured()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert render.styled("x", "bold red") == "\x1b[1;31mx\x1b[0m"


def test_quiet_silences_notes_but_not_warnings(capsys):
    render.configure(render.Levels(quiet=True))
    try:
        render.note("a note")
        render.success("done")
        render.warn("careful")
    finally:
        render.configure(render.Levels())
    assert capsys.readouterr().err == "warning: careful\n"


def test_each_status_has_a_sign_of_its_own(terminal):
    terminal()
    states = ["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"]
    assert len({render.status(state)[0] for state in states}) == len(states)
