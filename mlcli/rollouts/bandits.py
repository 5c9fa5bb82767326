"""Bandits: how traffic moves to the arm that earns more, and what may be concluded afterwards.

    posterior = [beta_posterior(successes, failures) ...]
    weights = floored(best_probabilities(posterior), 0.01)      # published as a version; every decision notes its propensity
    adaptive_means(arms, rewards, propensities)                 # AIPW: unbiased, where an arm's own mean is biased down

Weights change in batches, so each unit's propensity is known. :func:`play` plays whole games of a policy, many at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

EPSILON = 0.1
_NODES = 512


class Rewards(NamedTuple):
    """What an arm has earned: units, sum and sum of squares of their rewards."""

    n: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0


def beta_posterior(successes: float, failures: float, prior: tuple[float, float] = (1.0, 1.0)) -> Any:
    """What is believed of a rate."""
    return stats.beta(prior[0] + successes, prior[1] + failures)


def mean_posterior(rewards: Rewards) -> Any:
    """What is believed of a mean: Student's t of a normal-inverse-gamma prior that is almost flat."""
    n, mean = rewards.n, rewards.mean
    kappa, a = n + 1e-3, 0.5 + n / 2
    b = 0.5 + 0.5 * max(rewards.squares - n * mean * mean, 0.0) + 0.5 * 1e-3 * n * mean * mean / kappa
    return stats.t(2 * a, loc=n * mean / kappa, scale=math.sqrt(b / (a * kappa)))


def best_probabilities(posteriors: Sequence[Any]) -> list[float]:
    """For each arm the probability that it is the best.

    Integrated, not drawn: there is no seed that a verdict could depend on, and no noise in small probabilities.
    """
    nodes, weights = _rule()
    # Three panels: what decides is often in the tails, where one rule of this order has few nodes.
    edges = (0.0, 0.01, 0.99, 1.0)
    found = []
    for arm, own in enumerate(posteriors):
        total = 0.0
        for low, high in pairwise(edges):
            u = low + (nodes + 1) / 2 * (high - low)
            x = own.ppf(u)
            others = np.prod([other.cdf(x) for number, other in enumerate(posteriors) if number != arm], axis=0)
            total += float((weights * others).sum()) * (high - low) / 2
        found.append(total)
    whole = sum(found)
    return [share / whole for share in found]


@cache
def _rule() -> tuple[Any, Any]:
    """Gauss and Legendre's nodes and weights, which cost more to find than all that is done with them."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


def floored(shares: Sequence[float], floor: float) -> list[float]:
    """Weights of which none is below ``floor``: f + (1 - K f) w."""
    room = 1 - len(shares) * floor
    return [floor + room * share for share in shares]


def weights(
    algorithm: str,
    earned: Sequence[Rewards],
    *,
    binary: bool = True,
    prior: tuple[float, float] = (1.0, 1.0),
    floor: float = 0.01,
    least: int = 100,
) -> list[float]:
    """The weights that follow from what the arms have earned; equal until each has ``least`` units."""
    k = len(earned)
    if min(arm.n for arm in earned) < max(least, 1):
        return [1 / k] * k
    if algorithm == "thompson":
        posteriors = [
            beta_posterior(arm.total, arm.n - arm.total, prior) if binary else mean_posterior(arm) for arm in earned
        ]
        return floored(best_probabilities(posteriors), floor)
    if algorithm == "ucb1":
        t = sum(arm.n for arm in earned)
        best = max(range(k), key=lambda arm: earned[arm].mean + math.sqrt(2 * math.log(t) / earned[arm].n))
        return floored([float(arm == best) for arm in range(k)], floor)
    best = max(range(k), key=lambda arm: earned[arm].mean)
    return floored([EPSILON / k + (1 - EPSILON) * (arm == best) for arm in range(k)], floor)


class AdaptiveMean(NamedTuple):
    """An arm's mean reward with its bounds."""

    mean: float
    low: float
    high: float


def adaptive_means(
    arms: Any, rewards: Any, propensities: Any, batches: Any, *, level: float = 0.95
) -> list[AdaptiveMean]:
    """Each arm's mean from adaptively gathered rewards, unbiased (AIPW).

    ``arms``: the arm of each unit in turn; ``propensities``: the probability of *each* arm at that moment (units x arms),
    the same within a batch; ``batches``: the number of the batch. A batch's guess of a mean is made of earlier ones.
    """
    arms, x, p = np.asarray(arms), np.asarray(rewards, float), np.asarray(propensities, float)
    starts = np.flatnonzero(np.diff(np.asarray(batches), prepend=np.asarray(batches)[:1] - 1))
    z = float(stats.norm.ppf(0.5 + level / 2))
    found = []
    for arm in range(p.shape[1]):
        mine = arms == arm
        count, total = np.cumsum(mine), np.cumsum(np.where(mine, x, 0.0))
        known = np.where(starts > 0, starts - 1, 0)
        guess = np.where((starts > 0) & (count[known] > 0), total[known] / np.maximum(count[known], 1), 0.0)
        m = np.repeat(guess, np.diff(np.append(starts, len(x))))
        score = m + np.where(mine, (x - m) / p[:, arm], 0.0)
        mean, half = float(score.mean()), z * float(score.std(ddof=1)) / math.sqrt(len(score))
        found.append(AdaptiveMean(mean, mean - half, mean + half))
    return found


# --- games


def play(policy: str, rates: Sequence[float], steps: int, games: int, seed: int, *, epsilon: float = EPSILON) -> Any:
    """Regret after each step, mean over ``games`` of a policy that decides each step, with rewards 0 and 1."""
    random = np.random.default_rng(seed)
    p = np.asarray(rates, float)
    k = len(p)
    wins, plays = np.zeros((games, k)), np.zeros((games, k))
    rows = np.arange(games)
    lost = np.zeros(steps)
    gap = p.max() - p
    for step in range(steps):
        if policy == "thompson":
            arm = random.beta(1 + wins, 1 + plays - wins).argmax(axis=1)
        elif step < k:
            arm = np.full(games, step)
        elif policy == "ucb1":
            arm = (wins / plays + np.sqrt(2 * math.log(step) / plays)).argmax(axis=1)
        else:
            arm = np.where(
                random.random(games) < epsilon, random.integers(k, size=games), (wins / plays).argmax(axis=1)
            )
        wins[rows, arm] += random.random(games) < p[arm]
        plays[rows, arm] += 1
        lost[step] = gap[arm].mean()
    return np.cumsum(lost)
