"""Pictures of pages and reports: where lines go, what axes say, and that names from files stay text in them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcli.evaluation.pictures import file, legend, picture, svg, ticks

EVIL = "<img src=x onerror=alert(1)>\"'&"
NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)


def labels(low: float, high: float, kind: str = "") -> list[str]:
    return [text for _, text in ticks(low, high, kind)]


@pytest.mark.parametrize(
    ("low", "high", "kind", "said"),
    [
        (0.0, 1.0, "", ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.14, 0.03, "", ["-0.10", "-0.05", "0"]),
        (0.0, 1.0, "share", ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        (math.log10(2), math.log10(120), "log", ["2", "5", "10", "20", "50", "100"]),
        (0.0, 8.0, "log", ["1", "100", "10,000", "10⁶", "10⁸"]),
        (math.log10(4.0), math.log10(4.4), "log", ["4", "4.1", "4.2", "4.3", "4.4"]),
        (0.0, 95.0, "time", ["0 s", "20 s", "40 s", "60 s", "80 s"]),
        (0.0, 4000.0, "time", ["0 min", "15 min", "30 min", "45 min", "60 min"]),
        (0.0, 90_000.0, "time", ["0 h", "6 h", "12 h", "18 h", "24 h"]),
        (0.0, 3e6, "time", ["0 d", "10 d", "20 d", "30 d"]),
    ],
)
def test_axes_say_round_numbers_with_their_units(low, high, kind, said):
    assert labels(low, high, kind) == said


@given(NUMBERS, NUMBERS, st.sampled_from(("", "share", "time")))
def test_ticks_are_few_and_lie_on_the_axis(one, other, kind):
    low, high = sorted((one, other))
    found = ticks(low, high, kind)
    assert len(found) <= 7
    slack = 1e-6 * max(abs(low), abs(high), 1.0)
    assert all(low - slack <= at <= high + slack for at, _ in found)


@given(st.floats(-12, 12), st.floats(0, 24))
def test_ticks_of_a_logarithmic_axis_are_few_and_lie_on_it(low, decades):
    found = ticks(low, low + decades, "log")
    assert len(found) <= 8
    assert all(low - 1e-6 <= at <= low + decades + 1e-6 for at, _ in found)


def test_steps_hold_their_value_until_the_next():
    shape = picture([{"name": "a", "points": [(0, 0.1), (10, 0.5)]}], steps=True, up="share", across="time")
    assert len(shape["shapes"][0]["line"].split()) == 3
    assert shape["said"] == "a: 10 % → 50 %"


def test_a_line_to_compare_with_is_always_in_the_picture():
    flat = picture([{"name": "", "points": [(0, 1, 1, 1)]}], band=True, level=0)
    assert flat["box"]["top"] <= flat["level"] <= flat["box"]["bottom"]
    high = picture([{"name": "", "points": [(0, 1.0), (1, 2.0)]}], up="log", level=300.0)
    assert high["box"]["top"] <= high["level"] <= high["box"]["bottom"]


def test_the_diagonal_is_where_both_are_the_same():
    lines = [{"name": "", "points": [(2.0, 20.0), (20.0, 2.0), (5.0, 5.0)]}]
    shape = picture(lines, diagonal=True)
    x, y = map(float, shape["shapes"][0]["line"].split()[2].split(","))
    box = shape["box"]
    across, up = (x - box["left"]) / (box["right"] - box["left"]), (box["bottom"] - y) / (box["bottom"] - box["top"])
    assert across == pytest.approx(up, abs=0.002)


def test_nothing_is_drawn_of_nothing():
    assert picture([]) == {}
    assert picture([{"name": "a", "points": []}], span=(0, 1)) == {}


def test_pictures_over_the_same_time_share_their_axis():
    shape = picture([{"name": "", "points": [(50, 1.0), (60, 2.0)]}], across="time", span=(0.0, 100.0))
    first = float(shape["shapes"][0]["line"].split(",")[0])
    assert first == pytest.approx((shape["box"]["left"] + shape["box"]["right"]) / 2, abs=0.2)


def test_names_stand_outside_the_plot_and_stay_text():
    lines = [{"name": EVIL, "points": [(0, 1.0), (1, 2.0)]}, {"name": "모델", "points": [(0, 1.0), (1, 3.0)]}]
    shape = picture(lines)
    inside = svg(shape, EVIL)
    assert "<img" not in inside + legend(shape)
    assert [element.tag for element in ET.fromstring(inside).iter() if "text" in element.tag and element.text in (EVIL, "모델")] == []  # fmt: skip
    assert re.findall(r'<span class="break">([^<]*)</span>', legend(shape))[1] == "모델"
    whole = ET.fromstring(file(svg(shape, "", legend=True)).encode())
    rows = [element for element in whole.iter("{http://www.w3.org/2000/svg}text") if element.text in (EVIL, "모델")]
    assert len(rows) == 2
    assert all(float(row.get("y")) > shape["box"]["bottom"] for row in rows)


def test_who_cannot_see_a_picture_hears_its_ends():
    shape = picture([{"name": "champion", "points": [(0, 0.9), (5, 0.5)]}], up="share")
    assert 'aria-label="Weights. champion: 90 % → 50 %"' in svg(shape, "Weights")
