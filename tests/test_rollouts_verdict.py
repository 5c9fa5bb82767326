"""Verdicts as a pure function: the order of the rules, what each gate says, and whole rollouts in worlds of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from rollout_world import AB, BANDIT, CANARY, text
from seeds import each_seed
from test_rollouts_statistics import least, most

from mlcli.errors import InvalidInput
from mlcli.evaluation.statistics import holm, proportion_size
from mlcli.rollouts import rolloutfile
from mlcli.rollouts.effects import Cell, two_proportions
from mlcli.rollouts.observe import Analysis
from mlcli.rollouts.planning import plan
from mlcli.rollouts.report import fixed_horizon
from mlcli.rollouts.simulation import Truth, fixed_power, simulate
from mlcli.rollouts.verdict import Observed, Phase, Traffic, adaptive, decide

MARGIN = "{metric: error_rate, max: 0.2, critical: true}"


def observed(**more) -> Observed:
    """A healthy A/B of 2,000 units an arm, in which the candidate converts better."""
    times = {400: 1_900, 420: 100}
    given = {
        "now": 1_000.0, "started": 1.0, "step": -1, "step_since": 0.0,
        "phases": (Phase(1, (0.5, 0.5)),),
        "units": ((2_000, 2_000),),
        "step_units": 4_000, "crossed": 0,
        "first_errors": tuple((arm, 0) for arm in (0, 1) * 10),
        "traffic": (Traffic(2_000, 10, 0, times), Traffic(2_000, 10, 0, times)),
        "cells": {"conversion": ((Cell(2_000, 400, 400), Cell(2_000, 560, 560)),)},
        "labelled": {},
    }  # fmt: skip
    return Observed(**{**given, **more})


def rollout(strategy: str = AB, gate: str = "", **more):
    spec = text(strategy=strategy, **more)
    return rolloutfile.parse(spec.replace(MARGIN, gate) if gate else spec)


def test_a_better_candidate_that_harms_nothing_is_promoted():
    found = decide(rollout(), observed())
    assert (found.verdict, found.rule, found.action, found.candidate) == (
        "PROMOTE",
        "superiority",
        "promote",
        "challenger",
    )


SICK = {"units": ((2_000, 1_000),)}
BROKEN = {"traffic": (Traffic(2_000, 10, 0, {400: 2_000}), Traffic(2_000, 1_500, 0, {400: 2_000}))}


@pytest.mark.parametrize(
    ("more", "verdict", "rule"),
    [
        ({**SICK, **BROKEN}, "INVALID", "sample-ratio"),
        ({"crossed": 100}, "INVALID", "crossover"),
        ({"traffic": (Traffic(2_000, 10, 50, {400: 2_000}), Traffic(2_000, 10, 0, {400: 2_000}))}, "INVALID", "lost"),
        ({"labelled": {"abs_error": ((1_000, 500),)}}, "INVALID", "missing-outcomes"),
        (BROKEN, "ROLLBACK", "error_rate max"),
        ({"first_errors": ((1, 0),) * 20}, "ROLLBACK", "error_rate vs control"),
        ({"traffic": (Traffic(2_000, 10, 0, {400: 2_000}), Traffic(2_000, 10, 0, {500: 2_000}))}, "ROLLBACK", "latency_p95 vs control"),
        ({"traffic": (Traffic(2_000), Traffic(2_000, dead=True))}, "ROLLBACK", "dead"),
        ({"units": ((50, 50),)}, "HOLD", "min_units"),
        ({"traffic": (Traffic(), Traffic())}, "HOLD", "gate"),
        ({"cells": {"conversion": ((Cell(2_000, 400, 400), Cell(2_000, 405, 405)),)}}, "HOLD", "policy"),
        ({"cells": {"conversion": ((Cell(2_000, 400, 400), Cell(2_000, 300, 300)),)}}, "HOLD", "policy"),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds_decides(more, verdict, rule):
    found = decide(rollout(), observed(**more))
    assert (found.verdict, found.rule) == (verdict, rule)


def test_missing_data_is_never_a_pass():
    found = decide(rollout(), observed(traffic=(Traffic(50, 0, 0, {400: 50}), Traffic(50, 0, 0, {400: 50}))))
    assert {gate.gate: gate.status for gate in found.gates}["latency_p95 vs control"] == "inconclusive"
    assert found.verdict == "HOLD"


def test_few_errors_of_a_candidate_end_nothing():
    found = decide(rollout(), observed(first_errors=((1, 0), (1, 0))))
    assert found.verdict == "PROMOTE"


def test_a_margin_of_harm_ends_it_and_a_wide_one_lets_it_pass():
    worse = observed(cells={"conversion": ((Cell(2_000, 600, 600), Cell(2_000, 300, 300)),)})
    broken = decide(rollout(gate="{metric: conversion, margin: -0.01}"), worse)
    assert broken.rule == "conversion margin"
    assert {gate.p for gate in broken.gates if gate.gate == "conversion margin"} == {
        None
    }  # its bounds decide; p asks whether there is any effect
    same = observed(
        cells={"conversion": ((Cell(40_000, 8_000, 8_000), Cell(40_000, 8_000, 8_000)),)}, units=((40_000, 40_000),)
    )
    wide = rollout(
        gate="{metric: conversion, margin: -0.1}",
        decision="primary: conversion, policy: non_inferiority, margin: -0.1, min_units: 100",
    )
    assert decide(wide, same).verdict == "PROMOTE"
    narrow = rollout(decision="primary: conversion, policy: non_inferiority, margin: -0.0001, min_units: 100")
    assert decide(narrow, same).verdict == "HOLD"


def looked_at(spec, **more):
    """What one look at the planned end says."""
    return fixed_horizon(Analysis(None, spec, None, observed(**more), None))


def test_one_look_at_a_ramp_says_nothing_of_pooled_phases():
    ramp = [
        (Cell(990_000, 20_000, 20_000), Cell(10_000, 230, 230)),
        (Cell(500_000, 5_000, 5_000), Cell(500_000, 6_000, 6_000)),
    ]
    (found,) = looked_at(rollout(), cells={"conversion": tuple(ramp)})
    assert "probability_to_beat_control" not in found
    assert found["difference"] > 0
    assert found["p"] < 1e-20
    (alone,) = looked_at(rollout(), cells={"conversion": (ramp[0],)})
    assert 0.95 < alone["probability_to_beat_control"] < 1


def test_one_look_at_several_candidates_raises_their_p_values():
    arms = (Cell(2_000, 400, 400), Cell(2_000, 450, 450), Cell(2_000, 470, 470))
    several = rollout()
    several = several._replace(candidates=(*several.candidates, several.candidates[0]._replace(name="second")))
    found = [one["p"] for one in looked_at(several, cells={"conversion": (arms,)})]
    plain = [two_proportions(400, 2_000, total, 2_000) for total in (450, 470)]
    assert found == pytest.approx(holm(plain))
    assert found != pytest.approx(plain)


def test_time_that_is_up_holds_or_rolls_back_and_never_promotes():
    same = observed(cells={"conversion": ((Cell(2_000, 400, 400), Cell(2_000, 401, 401)),)})
    assert decide(rollout(decision="primary: conversion, max_duration: 10s, min_units: 10"), same)[:2] == (
        "HOLD",
        "timeout",
    )
    back = rollout(decision="primary: conversion, max_duration: 10s, min_units: 10, on_timeout: rollback")
    assert decide(back, same)[:2] == ("ROLLBACK", "timeout")


def test_a_step_waits_for_its_units():
    canary = rollout(CANARY)
    assert decide(canary, observed(step=1, step_units=99))[:2] == ("HOLD", "units")
    assert decide(canary, observed(step=1, step_units=100)).action == "next"


def test_no_interval_is_shown_before_there_are_events_for_one():
    few = observed(cells={"conversion": ((Cell(2_000, 24, 24), Cell(2_000, 60, 60)),)})
    assert decide(rollout(), few).metrics[0].low is None
    enough = observed(cells={"conversion": ((Cell(2_000, 25, 25), Cell(2_000, 60, 60)),)})
    assert decide(rollout(), enough).metrics[0].low is not None


def test_units_that_are_all_alike_settle_nothing():
    """Nobody has bought anything yet: no spread is no certainty that the candidate does no harm."""
    spec = text(strategy=AB, decision="primary: conversion, policy: non_inferiority, margin: -0.1, min_units: 100")
    spec = spec.replace("kind: proportion", "kind: mean")
    nothing = observed(cells={"conversion": ((Cell(2_000, 0.0, 0.0), Cell(2_000, 0.0, 0.0)),)})
    found = decide(rolloutfile.parse(spec), nothing)
    assert found.verdict == "HOLD"
    assert {one.low for one in found.metrics} == {None}


def test_rewards_that_moved_traffic_do_not_bias_the_effect():
    """Weights follow what was earned; the plain difference of means is then off, the one by propensities is not."""
    random = np.random.default_rng(5)
    plain, weighted, covered = [], [], []
    for _ in range(300):
        phases, weights, share = [], [], 0.5
        wins, plays = np.ones(2), np.full(2, 2.0)
        for version in range(10):
            n = random.binomial(100, share)
            counts = (100 - n, n)
            x = [random.binomial(count, 0.1) for count in counts]
            phases.append([Cell(count, float(total), float(total)) for count, total in zip(counts, x, strict=True)])
            weights.append(Phase(version, (1 - share, share)))
            wins, plays = wins + x, plays + counts
            means = wins / plays
            share = 0.9 if means[1] > means[0] else 0.1
        effect = adaptive(phases, weights, 1)
        totals = [[sum(phase[arm].total for phase in phases), sum(phase[arm].n for phase in phases)] for arm in (0, 1)]
        rates = [total / n for total, n in totals]
        plain.append(min(rates) - 0.1)
        weighted.append(effect.difference)
        covered.append(abs(effect.difference) <= 1.96 * effect.se)
    assert np.mean(plain) < -0.01
    assert abs(np.mean(weighted)) < 4 * np.std(weighted) / np.sqrt(300)
    assert np.mean(covered) >= least(0.92, 300)


# --- whole rollouts through the same verdicts


@each_seed
def test_a_rollout_of_the_same_model_is_seldom_decided(seed, measured):
    found = simulate(rollout(), Truth(0.2, 0.0), reps=30, units=4_000, every=250, seed=seed)
    measured("decided", found.share("PROMOTE") + found.share("ROLLBACK"))
    assert found.share("PROMOTE") + found.share("ROLLBACK") <= most(0.06, 30)


def test_a_better_model_gets_through_a_canary_and_a_broken_one_does_not():
    better = simulate(rollout(CANARY), Truth(0.2, 0.1), reps=15, units=20_000, every=250)
    assert better.share("PROMOTE") >= 0.9
    broken = simulate(rollout(CANARY), Truth(0.2, 0.1, error_ratio=40), reps=15, units=20_000, every=50)
    assert broken.share("ROLLBACK") == 1.0
    assert broken.median_candidate_units("ROLLBACK") < 100
    slow = simulate(rollout(CANARY), Truth(0.2, 0.1, latency_ratio=3), reps=5, units=20_000, every=250)
    assert slow.share("ROLLBACK") == 1.0


@each_seed
def test_lost_units_are_noticed(seed):
    found = simulate(rollout(), Truth(0.2, 0.0, lost_share=0.3), reps=10, units=8_000, every=200, seed=seed)
    assert found.share("INVALID") == 1.0


@pytest.mark.slow
@each_seed
def test_a_bandit_of_equal_arms_is_seldom_decided(seed):
    bandit = rollout(BANDIT)
    found = simulate(bandit, Truth(0.2, 0.0), reps=40, units=4_000, every=250, seed=seed)
    assert found.share("PROMOTE") <= most(0.05, 40)


@pytest.mark.slow
@each_seed
def test_watched_for_long_the_same_model_keeps_the_promised_rate(seed, measured):
    for strategy in (AB, CANARY):
        found = simulate(rollout(strategy), Truth(0.05, 0.0), reps=60, units=6_000, every=300, seed=seed)
        measured(
            f"PROMOTE, ROLLBACK of the same model ({strategy.split(':')[0].strip()})",
            [found.share("PROMOTE"), found.share("ROLLBACK")],
        )
        assert found.share("PROMOTE") <= most(0.05, 60)
        assert found.share("ROLLBACK") <= most(0.01, 60)


@each_seed
def test_a_plan_has_the_power_it_says(seed, measured):
    n = proportion_size(0.2, 0.25)
    assert n == pytest.approx(1093.739, abs=1e-3)
    power = fixed_power(0.2, 0.25, round(n), reps=4_000, seed=seed)
    measured("power played out, of .80 planned", power)
    assert 0.77 <= power <= 0.83


def test_a_plan_needs_more_units_when_it_is_watched():
    found = plan(rollout(), 0.2, 0.05, per_day=1_000)
    assert found["units_per_arm_at_one_look"] == 1_094
    assert found["units_per_arm_watched"] > 1_094
    assert found["days_watched"] == pytest.approx(found["units_in_all_watched"] / 1_000, abs=0.01)


@pytest.mark.parametrize(("baseline", "difference", "told"), [(0.2, 0.0, "is 0"), (0.98, 0.05, "between 0 and 1")])
def test_a_plan_of_nothing_is_refused(baseline, difference, told):
    with pytest.raises(InvalidInput, match=told):
        plan(rollout(), baseline, difference)
