"""Curves and going runs in a terminal: `mlcli runs watch`, `plot` and what `compare` shows of courses and importance."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli_terminal import COLOUR, lines

from mlcli.cli import plotting, render, watching
from mlcli.entities import Metric, Param
from mlcli.store import open_store


@pytest.fixture
def runs() -> list[str]:
    """Two runs with a course of 30 steps, ended, and one that goes on at step 9 of 100."""
    made = []
    with open_store() as store:
        for place, name in enumerate(("first", "second", "going")):
            run = store.create_run("0", run_name=name, start_time=1_700_000_000_000).info.run_id
            steps = 30 if place < 2 else 10
            points = [
                Metric("loss", (place + 1) / (step + 1), 1_700_000_000_000 + 1000 * step, step) for step in range(steps)
            ]
            store.log_batch(
                run, [*points, Metric("acc", 0.5 + place / 10, 1, 0)], [Param("epochs", "100"), Param("lr", str(place))]
            )
            if place < 2:
                store.update_run(run, "FINISHED", 1_700_000_030_000)
            made.append(run)
    return made


def seen(run_id: str) -> watching.Seen:
    with open_store() as store:
        return watching.Watch(store, lambda: [store.get_run(run_id)], ()).look()[0]


def test_the_time_to_go_comes_from_the_pace_and_the_param_that_tells_the_steps(runs):
    going = seen(runs[2])
    now = 1_700_000_009_000
    assert watching.remaining(going, now) == 90 * 1000  # 9 steps in 9 s, 90 to go
    assert watching.remaining(going, now + 4000) == 86 * 1000
    assert watching.remaining(seen(runs[0]), now) is None  # it has ended


@pytest.mark.parametrize(
    ("params", "total"),
    [
        ({"epochs": "5"}, 5),
        ({"max-steps": "10", "epochs": "5"}, 10),
        ({"epochs": "many"}, None),
        ({}, None),
        ({"lr": "3"}, None),
    ],
)
def test_params_that_tell_how_many_steps_there_will_be(params, total):
    assert watching.total_steps(params) == total


def test_watching_an_experiment_shows_courses_and_the_best_and_ends_with_its_runs(mlcli, runs):
    with open_store() as store:
        store.update_run(runs[2], "FINISHED")
    shown = lines("runs", "watch", "Default", width=110)
    first = next(line for line in shown if "first" in line)
    assert "29/100" in first
    assert "█" in first
    assert "0.033333" in first  # the best of the losses
    narrow = lines("runs", "watch", "Default", width=80)
    assert any("BEST" in line for line in narrow)  # rather than the course
    assert max(map(render.width, [COLOUR.sub("", line) for line in narrow])) <= 80


def test_watching_in_a_pipe_is_a_line_for_what_is_new(runs):
    with subprocess.Popen(
        [sys.executable, "-m", "mlcli", "runs", "watch", "going", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        head, line = (process.stdout.readline().rstrip("\n").split("\t") for _ in range(2))
        told = dict(zip(head, line, strict=True))
        assert (told["name"], told["status"], told["step"]) == ("going", "RUNNING", "9")
        with open_store() as store:
            store.log_batch(runs[2], [Metric("loss", 0.001, 1_700_000_010_000, 10)])
            assert "loss=0.001" in process.stdout.readline()
            store.update_run(runs[2], "FAILED")
        assert "FAILED" in process.stdout.readline()
        assert process.stdout.read() == ""
        assert process.wait(30) == 0


def test_how_things_stand_as_json(mlcli, runs):
    found = json.loads(mlcli("runs", "watch", "--json").stdout)
    assert [(item["name"], item["step"], item["steps"]) for item in found] == [("going", 9, 100)]
    assert found[0]["metrics"]["loss"] == {"latest": 0.3, "best": 0.3}


def test_nothing_that_goes_on_is_said(mlcli):
    assert "no run goes on" in mlcli("runs", "watch").stderr
    assert "there is no run" in mlcli("runs", "watch", "nonsense", check=3).stderr


def test_a_plot_fits_the_terminal_and_names_its_runs(runs):
    shown = lines("runs", "plot", *runs, "-m", "loss", width=70)
    assert max(map(render.width, shown)) <= 70
    assert any("⣀" in line or "⠉" in line for line in shown)
    assert [name for name in ("first", "second", "going") if any(name in line for line in shown[-4:])] == [
        "first",
        "second",
        "going",
    ]


def test_a_plot_in_a_pipe_is_the_points(mlcli, runs):
    rows = [line.split("\t") for line in mlcli("runs", "plot", "second").stdout.splitlines()]
    assert rows[0] == ["run_id", "name", "metric", "step", "value"]
    assert rows[1][2:] == ["loss", "0", "2.0"]  # the metric with a course, though acc comes first
    assert len(rows) == 31


def test_a_plot_says_which_points_it_cannot_show(mlcli):
    with open_store() as store:
        run = store.create_run("0", run_name="diverged").info.run_id
        store.log_batch(run, [Metric("loss", value, 1, step) for step, value in enumerate((1.0, 2.0, float("nan")))])
    shown = mlcli("runs", "plot", run, "-m", "loss")
    assert len(shown.stdout.splitlines()) == 3
    assert "1 point of 'loss'" in shown.stderr


def test_a_plot_of_what_was_not_logged_says_what_there_is(mlcli, runs):
    assert "there is acc, loss" in mlcli("runs", "plot", "first", "-m", "auc", check=3).stderr
    assert "axis" in mlcli("runs", "plot", "first", "--x", "sideways", check=2).stderr


def test_compare_shows_the_courses_on_a_terminal(runs):
    shown = [COLOUR.sub("", line) for line in lines("runs", "compare", *runs[:2], width=90)]
    place = next(number for number, line in enumerate(shown) if line.strip().startswith("loss") or " loss " in line)
    assert shown[place + 1].count("█") == 2


def test_compare_tells_which_params_go_with_a_metric(mlcli):
    with open_store() as store:
        for number in range(16):
            run = store.create_run("0").info.run_id
            store.log_batch(
                run,
                [Metric("acc", number % 2 + number / 100, 1)],
                [Param("kind", "ab"[number % 2]), Param("noise", "xyzu"[number // 4])],
            )
    found = json.loads(mlcli("runs", "compare", "--filter", "metrics.acc >= 0", "--importance", "acc", "--json").stdout)
    assert found[0]["param"] == "kind"
    assert found[0]["share"] > 0.7
    assert found[0]["p"] < 0.05 < found[1]["p"]
    assert (
        "has the metric"
        in mlcli("runs", "compare", "--filter", "metrics.acc >= 0", "--importance", "x", check=2).stderr
    )


@given(
    points=st.lists(st.tuples(st.integers(0, 50), st.floats(-1e300, 1e300)), min_size=1, max_size=40),
    width=st.integers(30, 90),
    log=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_any_curve_can_be_drawn(points, width, log):
    drawn = plotting.drawn([plotting.Line("x", sorted(points))], width, 5, log=log)
    assert bool(drawn) == any(value > 0 or not log for _, value in points)
    assert all(render.width(COLOUR.sub("", line)) <= max(width, plotting.LEAST_WIDTH + 14) for line in drawn)


def test_smoothing_leaves_a_constant_alone():
    assert plotting.smoothed([(0, 2.0), (1, 2.0)], 0.9) == [(0, pytest.approx(2.0)), (1, pytest.approx(2.0))]
