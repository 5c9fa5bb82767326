"""How many units a rollout needs, at one look and with watching."""

from __future__ import annotations

import math
from typing import Any

from mlcli.errors import InvalidInput
from mlcli.evaluation.statistics import proportion_size, t_size
from mlcli.rollouts import sequential
from mlcli.rollouts.rolloutfile import Rollout


def plan(
    rollout: Rollout, baseline: float, difference: float, *, power: float = 0.8, per_day: float | None = None
) -> dict[str, Any]:
    """Units per arm that find ``difference`` from ``baseline``; per day, how many days that takes."""
    decision = rollout.decision
    if not decision.primary:
        raise InvalidInput("the rollout has no primary metric to plan for", hint="decision: {primary: conversion}")
    if difference == 0:
        raise InvalidInput("--mde is 0: no number of units finds that")
    metric = rollout.metric(decision.primary)
    if metric.kind == "proportion":
        other = baseline + difference
        if not 0 < baseline < 1 or not 0 < other < 1:
            raise InvalidInput(f"rates lie between 0 and 1, not {baseline:g} and {other:g}")
        fixed = proportion_size(baseline, other, power, decision.alpha)
        spread = baseline * (1 - baseline) + other * (1 - other)
    else:
        fixed = t_size(abs(difference), 1.0, power, decision.alpha)
        spread = 2.0
    watched = _watched(spread, abs(difference), power, decision.alpha, max(2 * fixed, 2))
    arms = len(rollout.arms)
    found: dict[str, Any] = {
        "metric": metric.name,
        "units_per_arm_at_one_look": math.ceil(fixed),
        "units_per_arm_watched": math.ceil(watched),
        "units_in_all_watched": math.ceil(watched) * arms,
        "planned_units": math.ceil(2 * fixed),
    }
    if per_day:
        found["days_watched"] = round(math.ceil(watched) * arms / (per_day * rollout.coverage), 2)
    return found


def _watched(spread: float, difference: float, power: float, alpha: float, planned: float) -> float:
    """Units per arm after which a confidence sequence excludes 0 with this power, if it is asked then alone.

    It may be asked at any time, so it will often be sooner; `simulate` shows how often and how soon.
    """
    from scipy import optimize, stats

    z = float(stats.norm.ppf(power))

    def short(n: float) -> float:
        se = math.sqrt(spread / n)
        low, _, _ = sequential.confidence_sequence(difference, se, 2 * n, alpha=alpha, planned=planned)
        return float(low) - z * se

    high = planned
    while short(high) < 0:
        high *= 2
    return float(optimize.brentq(short, 2.0, high))
