"""Rollouts to test with: a file, a store that holds it, and traffic whose truth is known, recorded as a gateway does."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from mlcli.rollouts import latency, lifecycle, rolloutfile
from mlcli.serving.rollout import Assigner, force_of
from mlcli.store.rollouts import Counter, Exposure, Outcome, Prediction, RolloutRecord, Rollouts

FILE = """\
apiVersion: mlcli/v1
kind: Rollout
name: {name}
unit: {{header: X-User-Id, field: user_id}}
control:    {{name: champion, model: {control}}}
candidates: [{{name: challenger, model: {candidate}}}]
strategy:
{strategy}
metrics:
  error_rate:  {{source: status}}
  latency_p95: {{source: latency}}
  conversion:  {{source: outcome}}
gates:
  - {{metric: error_rate, max: 0.2, critical: true}}
  - {{metric: error_rate, vs: control, tolerance: 1.25}}
  - {{metric: latency_p95, vs: control, tolerance: 1.5}}
decision: {{{decision}}}
"""
CANARY = """\
  canary:
    steps:
      - {set_weight: 10}
      - {pause: {min_units: 100}}
      - {set_weight: 50}
      - {pause: {min_units: 200}}
      - {set_weight: 100}
"""
AB = "  ab: {weights: {champion: 50, challenger: 50}}\n"
SHADOW = "  shadow: {fraction: 1.0, timeout: 1s, queue: 50}\n"
BANDIT = (
    "  bandit: {reward: conversion, update: {every_units: 50, every: 1s}, min_units_per_arm: 50, reward_window: 0s}\n"
)
DECISION = "primary: conversion, min_units: 100, planned_units: 1000"


def text(
    name: str = "demo",
    strategy: str = CANARY,
    *,
    control: str = "models:/churn@champion",
    candidate: str = "models:/churn/2",
    decision: str = DECISION,
) -> str:
    return FILE.format(name=name, strategy=strategy, control=control, candidate=candidate, decision=decision)


def started(rollouts: Rollouts, spec: str) -> RolloutRecord:
    name = rolloutfile.parse(spec).name
    rollouts.create(name, spec)
    return lifecycle.start(rollouts, name)


class Traffic:
    """Lets units come to a rollout and records what happens, through the assignment that gateways use."""

    def __init__(self, rollouts: Rollouts, name: str, seed: int = 0) -> None:
        self.rollouts = rollouts
        self.record = rollouts.get(name)
        self.rollout = lifecycle.spec_of(self.record)
        self.random = np.random.default_rng(seed)
        self.assigner = Assigner(self.rollout)
        self.number = 0

    def come(
        self,
        n: int,
        *,
        rate: tuple[float, ...] = (0.2, 0.2),
        errors: tuple[float, ...] = (0.01, 0.01),
        milliseconds: tuple[float, ...] = (5.0, 5.0),
        lose: float = 0.0,
        **columns: Any,
    ) -> None:
        """``n`` units with one request each; ``lose`` is the share of candidates' that vanish without a trace."""
        self.assigner.force = force_of(self.rollout, *self.rollouts.in_force(self.record.key))
        predictions, exposures, outcomes = [], [], []
        counts: dict[tuple[str, int, int], list[Any]] = {}
        now = time.time_ns()
        for _ in range(n):
            self.number += 1
            unit = f"user-{self.number}"
            found = self.assigner.decide(unit, unit)
            arm = found.arm
            if arm and self.random.random() < lose:
                continue
            error = "boom" if self.random.random() < errors[arm] else ""
            took = int(1000 * self.random.lognormal(np.log(milliseconds[arm]), 0.3))
            predictions.append(
                Prediction(
                    f"r{self.number}",
                    found.role,
                    arm,
                    arm,
                    found.version,
                    found.propensity,
                    unit if found.role == "live" else "",
                    now,
                    took,
                    200,
                    error,
                    **columns,
                )
            )
            row = counts.setdefault((found.role, arm, found.version), [0, 0, {}])
            row[0] += 1
            row[1] += bool(error)
            latency.add(row[2], {latency.bucket(took): 1})
            if found.role == "live":
                exposures.append(Exposure(unit, found.version, arm, found.place, found.propensity, now))
                if self.random.random() < rate[arm]:
                    outcomes.append(Outcome(f"u:{unit}:conversion", "", unit, "conversion", 1.0, now))
        counters = [
            Counter(role, arm, version, now // 60_000_000_000, seen, failed, 0, 0, latency.write(times))
            for (role, arm, version), (seen, failed, times) in counts.items()
        ]
        self.rollouts.record(self.record.key, predictions, exposures, counters)
        self.rollouts.feedback(self.record.key, outcomes)
