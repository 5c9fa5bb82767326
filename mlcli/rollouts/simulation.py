"""What a rollout's file would do in a world whose truth is known: through the same verdicts as the real one.

    simulate(rollout, Truth(baseline=0.2, effect=0.0), reps=1000, seed=0)     # A/A: how often is it wrong?
    simulate(rollout, Truth(baseline=0.2, effect=0.05), reps=1000, seed=0)    # how often, and how soon, does it see it?

Units come one after another; the verdict is asked for every ``every`` units. Time is not simulated: a step lasts as long
as its units take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mlcli.errors import InvalidInput
from mlcli.rollouts import bandits, effects, latency, verdict
from mlcli.rollouts.effects import Cell
from mlcli.rollouts.rolloutfile import Rollout
from mlcli.rollouts.steps import next_stop
from mlcli.rollouts.verdict import Observed, Phase, Traffic


class Truth(NamedTuple):
    """A world: control's rate of the primary metric, how much more candidates have, and how often requests fail."""

    baseline: float = 0.2
    effect: float = 0.0
    error_rate: float = 0.01
    error_ratio: float = 1.0
    latency_ratio: float = 1.0
    lost_share: float = 0.0  # of the candidates' units, never recorded: the sample ratio shows it


class Game(NamedTuple):
    """How one repetition ended: the last verdict, after how many units, of which candidates answered so many."""

    verdict: str
    rule: str
    units: int
    candidate_units: int


class Simulated(NamedTuple):
    """All repetitions, and the power of one look at the planned end for comparison."""

    games: tuple[Game, ...]

    def share(self, verdict_: str) -> float:
        return sum(game.verdict == verdict_ for game in self.games) / len(self.games)

    def median_units(self, verdict_: str) -> float | None:
        units = [game.units for game in self.games if game.verdict == verdict_]
        return float(np.median(units)) if units else None

    def median_candidate_units(self, verdict_: str) -> float | None:
        units = [game.candidate_units for game in self.games if game.verdict == verdict_]
        return float(np.median(units)) if units else None


def simulate(
    rollout: Rollout,
    truth: Truth,
    *,
    reps: int,
    seed: int = 0,
    units: int = 0,
    every: int = 0,
    tick: Callable[[int, int], None] | None = None,
) -> Simulated:
    """Play ``reps`` rollouts of at most ``units`` units (default: what the steps and the plan ask for, four times)."""
    if rollout.strategy == "shadow":
        raise InvalidInput(
            "a shadow splits no traffic: there is nothing to simulate", hint="simulate ab, canary or bandit"
        )
    asked = sum(step.least for step in rollout.steps) + rollout.decision.planned_units
    units = units or 4 * asked
    every = every or max(units // 50, 1)
    timeless = rollout._replace(
        steps=tuple(step._replace(duration=0.0) for step in rollout.steps),
        decision=rollout.decision._replace(min_duration=0.0, max_duration=math.inf),
    )
    games = []
    for number in range(reps):
        games.append(_play(timeless, truth, np.random.default_rng([seed, number]), units, every))
        if tick is not None:
            tick(number + 1, reps)
    return Simulated(tuple(games))


def fixed_power(p1: float, p2: float, n: int, *, reps: int, seed: int = 0, alpha: float = 0.05) -> float:
    """How often one look after ``n`` units per arm finds the difference, played out."""
    random = np.random.default_rng(seed)
    first, second = random.binomial(n, p1, reps), random.binomial(n, p2, reps)
    found = [effects.two_proportions(int(a), n, int(b), n) < alpha for a, b in zip(first, second, strict=True)]
    return float(np.mean(found))


class _World:
    """Units that have come so far, summed up as the store sums them up."""

    def __init__(self, rollout: Rollout, truth: Truth, random: Any) -> None:
        self.rollout, self.truth, self.random = rollout, truth, random
        self.arms = len(rollout.arms)
        self.metrics = [m for m in rollout.metrics if m.kind in ("proportion", "mean")]
        self.phases: list[Phase] = []
        self.units: list[Any] = []
        self.sums: list[dict[str, Any]] = []
        self.errors: list[tuple[int, int]] = []
        self.answered, self.failed = np.zeros(self.arms, int), np.zeros(self.arms, int)
        self.latencies: list[dict[int, int]] = [{} for _ in range(self.arms)]
        self.step, self.step_units = -1, 0

    def publish(self, weights: tuple[float, ...]) -> None:
        self.phases.append(Phase(len(self.phases) + 1, weights))
        self.units.append(np.zeros(self.arms, int))
        self.sums.append({metric.name: np.zeros((self.arms, 2)) for metric in self.metrics})

    def come(self, n: int) -> None:
        """Let ``n`` units come, one request each."""
        where = len(self.phases) - 1
        weights = np.asarray(self.phases[-1].weights)
        covered = self.random.random(n) < self.rollout.coverage
        arm = self.random.choice(self.arms, size=n, p=weights / weights.sum())[covered]
        if self.truth.lost_share:
            arm = arm[(arm == 0) | (self.random.random(len(arm)) >= self.truth.lost_share)]
        rate = np.where(arm > 0, self.truth.error_rate * self.truth.error_ratio, self.truth.error_rate)
        failed = self.random.random(len(arm)) < np.minimum(rate, 1.0)
        self.errors += [(int(one), where) for one in arm[failed]]
        counts = np.bincount(arm, minlength=self.arms)
        self.units[-1] += counts
        self.answered += counts
        self.failed += np.bincount(arm[failed], minlength=self.arms)
        self.step_units += len(arm)
        for metric in self.metrics:
            chance = self.truth.baseline + (arm > 0) * self.truth.effect
            y = (
                (self.random.random(len(arm)) < chance).astype(float)
                if metric.kind == "proportion"
                else self.random.normal(chance, 1.0)
            )
            self.sums[-1][metric.name] += np.column_stack(
                [np.bincount(arm, weights=values, minlength=self.arms) for values in (y, y * y)]
            )
        if any(metric.source == "latency" for metric in self.rollout.metrics):
            took = self.random.lognormal(math.log(5_000), 0.4, len(arm))
            took = np.where(arm > 0, took * self.truth.latency_ratio, took)
            numbers = (np.log(took) / math.log(latency.RATIO)).astype(int)
            for one in range(self.arms):
                values, times = np.unique(numbers[arm == one], return_counts=True)
                latency.add(self.latencies[one], dict(zip(values.tolist(), times.tolist(), strict=True)))

    def observed(self) -> Observed:
        cells = {
            metric.name: tuple(
                tuple(
                    Cell(int(n), float(total), float(squares))
                    for n, (total, squares) in zip(units, sums[metric.name], strict=True)
                )
                for units, sums in zip(self.units, self.sums, strict=True)
            )
            for metric in self.metrics
        }
        return Observed(
            now=0.0, started=0.0, step=self.step, step_since=0.0,
            phases=tuple(self.phases), units=tuple(tuple(counts.tolist()) for counts in self.units),
            step_units=self.step_units, crossed=0, first_errors=tuple(self.errors),
            traffic=tuple(
                Traffic(int(self.answered[arm]), int(self.failed[arm]), 0, self.latencies[arm])
                for arm in range(self.arms)
            ),
            cells=cells, labelled={}, pairs=1 << 60,
        )  # fmt: skip

    def earned(self, metric: str) -> list[bandits.Rewards]:
        """What each arm has earned so far."""
        sums = np.sum([sums[metric] for sums in self.sums], axis=0)
        n = np.sum(self.units, axis=0)
        return [bandits.Rewards(int(n[arm]), float(sums[arm][0]), float(sums[arm][1])) for arm in range(self.arms)]


def _play(rollout: Rollout, truth: Truth, random: Any, units: int, every: int) -> Game:
    world = _World(rollout, truth, random)
    if rollout.strategy == "canary":
        _advance(rollout, world)
    elif rollout.strategy == "ab":
        world.publish(rollout.weights)
    else:
        world.publish(tuple([1 / world.arms] * world.arms))
    done, found = 0, None
    while done < units:
        some = min(every, units - done)
        world.come(some)
        done += some
        found = verdict.decide(rollout, world.observed())
        if found.action == "next":
            _advance(rollout, world)
        elif found.action != "none":
            break
        elif rollout.strategy == "bandit":
            bandit = rollout.bandit
            binary = rollout.metric(bandit.reward).kind == "proportion"
            world.publish(
                tuple(
                    bandits.weights(
                        bandit.algorithm, world.earned(bandit.reward), binary=binary, prior=bandit.prior,
                        floor=bandit.floor, least=bandit.least,
                    )
                )
            )  # fmt: skip
    assert found is not None  # noqa: S101 - units is positive
    return Game(found.verdict, found.rule, done, int(world.answered[1:].sum()))


def _advance(rollout: Rollout, world: _World) -> None:
    world.step, weight, _ = next_stop(rollout, world.step)
    world.step_units = 0
    world.publish((1 - weight, weight))
