"""The file of a rollout: what is read from it, and where and how its mistakes are told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_world import AB, BANDIT, CANARY, SHADOW, text

from mlcli.errors import ProjectError
from mlcli.rollouts import rolloutfile
from mlcli.rollouts.steps import at_end, next_stop


@pytest.mark.parametrize("strategy", [AB, BANDIT, CANARY])
def test_each_strategy_is_read(strategy):
    rollout = rolloutfile.parse(text(strategy=strategy))
    assert rollout.strategy == strategy.split()[0].rstrip(":")
    assert [arm.name for arm in rollout.arms] == ["champion", "challenger"]
    assert rollout.hash.salt == "demo"


def test_a_shadow_is_read():
    rollout = rolloutfile.parse(text(strategy=SHADOW, decision="policy: no_harm"))
    assert rollout.shadow == (1.0, 1.0, 50)


def test_steps_have_their_weights_and_durations():
    spec = text(
        strategy="  canary: {steps: [{shadow: {duration: 30m, min_rows: 10}}, {set_weight: 5}, {pause: {duration: 1d}}]}\n"
    )
    rollout = rolloutfile.parse(spec)
    assert [(step.kind, step.weight, step.duration, step.least) for step in rollout.steps] == [
        ("shadow", 0.0, 1800.0, 10),
        ("set_weight", 0.05, 0.0, 0),
        ("pause", 0.0, 86400.0, 0),
    ]


def test_a_canary_stops_at_each_pause_and_ends_before_all_traffic():
    rollout = rolloutfile.parse(text())
    assert next_stop(rollout, -1) == (1, 0.1, 0.0)
    assert not at_end(rollout, 1)
    assert next_stop(rollout, 1) == (3, 0.5, 0.0)
    assert at_end(rollout, 3)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: demo", "name: de mo", "is not a name"),
        ("set_weight: 10", "set_wieght: 10", "a step is one of"),
        ("set_weight: 10", "set_weight: 110", "between 0 and 100"),
        ("min_units: 100}}", "min_unit: 100}}", "did you mean `min_units`"),
        ("source: status", "source: state", "is one of status"),
        ("metric: latency_p95, vs", "metric: latency, vs", "there is no metric `latency`"),
        ("tolerance: 1.5", "tolerance: 0.5", "between 1 and 1000"),
        ("primary: conversion", "primary: clicks", "no metric with an outcome"),
        ("min_units: 100,", "min_units: many,", "must be a number"),
        ("candidates: [{name: challenger", "candidates: [{name: champion", "two arms"),
        ("  canary:", "  canaries:", "did you mean `canary`"),
        ("unit: {header: X-User-Id, field: user_id}", "unit: {on_missing: control}", "nothing says what a unit is"),
        ("max: 0.2, critical: true", "max: 0.2, critical: maybe", "true or false"),
        ("{metric: error_rate, max: 0.2, critical: true}", "{metric: conversion, vs: control}", "needs a `margin`"),
        ("{metric: error_rate, max: 0.2, critical: true}", "{metric: error_rate, margin: 0.1}", "not for status"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(old, new, told, tmp_path):
    file = tmp_path / "rollout.yaml"
    assert old in text()
    file.write_text(text().replace(old, new))
    line = next(number for number, words in enumerate(file.read_text().splitlines(), 1) if new in words)
    problems = [f"{problem.message} {problem.hint}" for problem in rolloutfile.lint(str(file)) if problem.line == line]
    assert any(told in problem for problem in problems), rolloutfile.lint(str(file))
    with pytest.raises(ProjectError) as caught:
        rolloutfile.read(str(file))
    assert f"{file}:" in str(caught.value)


def test_a_good_file_has_no_problems(tmp_path):
    file = tmp_path / "rollout.yaml"
    file.write_text(text())
    assert rolloutfile.lint(str(file)) == []


@pytest.mark.parametrize("weights", ["{champion: 60, challenger: 60}", "{champion: 50, other: 50}"])
def test_weights_that_make_no_whole_are_refused(weights):
    with pytest.raises(ProjectError, match=r"sum to|not a key"):
        rolloutfile.parse(text(strategy=f"  ab: {{weights: {weights}}}\n"))


def test_a_shadow_has_no_outcomes_to_win_by():
    with pytest.raises(ProjectError, match="no outcomes of its own"):
        rolloutfile.parse(text(strategy=SHADOW))


def test_a_margin_on_the_better_side_is_a_warning(tmp_path):
    file = tmp_path / "rollout.yaml"
    file.write_text(
        text().replace("{metric: error_rate, max: 0.2, critical: true}", "{metric: conversion, margin: 0.01}")
    )
    assert [(problem.level, problem.code) for problem in rolloutfile.lint(str(file))] == [("warning", "margin")]


@given(st.text(max_size=200))
def test_any_text_is_a_rollout_or_an_error_of_ours(given_text):
    try:
        rolloutfile.parse(given_text)
    except ProjectError:
        pass


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["canary", "ab", "steps", "weights", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["unit", "strategy", "metrics", "gates", "decision", "candidates", "match", "fallback"]), _VALUES
)
def test_any_value_of_a_key_is_taken_or_told(key, value):
    import yaml

    content = yaml.safe_load(text())
    content[key] = value
    try:
        rolloutfile.parse(yaml.safe_dump(content))
    except ProjectError:
        pass


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("10m", 600), ("1.5h", 5400), ("14d", 1209600), (90, 90), ("2w", None), (-1, None), (True, None)],
)
def test_durations(written, seconds):
    assert rolloutfile.duration(written) == seconds
