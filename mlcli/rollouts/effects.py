"""Effects between arms from units, not requests: ramps by their phases, ratios by the delta method, CUPED."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from mlcli.evaluation.statistics import newcombe


class Effect(NamedTuple):
    """A difference, candidate less control, its standard error and the units behind it."""

    difference: float
    se: float
    n: int


class Cell(NamedTuple):
    """What is known of a metric in one arm during one phase of weights: units, sum and sum of squares over them."""

    n: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        """The unbiased variance of a unit."""
        return max(self.squares - self.total**2 / self.n, 0.0) / (self.n - 1) if self.n > 1 else 0.0


def stratified(phases: Sequence[tuple[Cell, Cell]], *, balanced: bool = False) -> Effect | None:
    """The effect over the phases of a ramp, each (control, candidate) compared with itself; None where none can be.

    Pooling would compare Friday's many control units with Saturday's many candidates, and may turn the sign around.
    A phase weighs what its units are; ``balanced``, what they tell: Mantel's n0 n1/(n0 + n1). Where the effect is the same
    throughout that is the sharper of the two by far, because 10,000 units at 1 % know little of the candidate.
    """
    usable = [(control, candidate) for control, candidate in phases if control.n >= 2 and candidate.n >= 2]
    if not usable:
        return None
    n = sum(control.n + candidate.n for control, candidate in usable)
    told = [
        control.n * candidate.n / (control.n + candidate.n) if balanced else control.n + candidate.n
        for control, candidate in usable
    ]
    shares = [part / sum(told) for part in told]
    difference = sum(
        share * (candidate.mean - control.mean) for share, (control, candidate) in zip(shares, usable, strict=True)
    )
    variance = sum(
        share**2 * (candidate.variance / candidate.n + control.variance / control.n)
        for share, (control, candidate) in zip(shares, usable, strict=True)
    )
    return Effect(difference, math.sqrt(variance), n)


def proportions(phases: Sequence[tuple[int, int, int, int]]) -> Effect | None:
    """:func:`stratified` for counts: (control successes, control units, candidate successes, candidate units)."""
    return stratified([(Cell(nc, xc, xc), Cell(nt, xt, xt)) for xc, nc, xt, nt in phases])


def mantel_haenszel(phases: Sequence[tuple[int, int, int, int]]) -> tuple[float, float]:
    """Risk difference and odds ratio of Mantel and Haenszel over the phases of a ramp."""
    table = np.asarray(phases, float)
    xc, nc, xt, nt = table.T
    n = nc + nt
    difference = float(((xt * nc - xc * nt) / n).sum() / (nt * nc / n).sum())
    return difference, float((xt * (nc - xc) / n).sum() / (xc * (nt - xt) / n).sum())


class Association(NamedTuple):
    """Cochran, Mantel and Haenszel's chi-squared of one degree of freedom, and its p-value."""

    statistic: float
    p: float


def cochran_mantel_haenszel(phases: Sequence[tuple[int, int, int, int]]) -> Association:
    """Whether the arms differ, phase by phase; for one look at the planned end only. Counts as in :func:`proportions`.

    No correction for continuity. The p-value is 1 where no phase has both arms and both outcomes.
    """
    xc, nc, xt, nt = np.asarray(phases, float).reshape(-1, 4).T
    n, successes = nc + nt, xc + xt
    both = (nc > 0) & (nt > 0)
    expected = successes[both] * nt[both] / n[both]
    variance = (successes * (n - successes) * nc * nt)[both] / (n[both] ** 2 * (n[both] - 1))
    if variance.sum() <= 0:
        return Association(0.0, 1.0)
    statistic = float((xt[both] - expected).sum() ** 2 / variance.sum())
    return Association(statistic, float(stats.chi2.sf(statistic, 1)))


def ratio(sums: Any, counts: Any) -> tuple[float, float]:
    """A ratio of sums over units (conversions per request) and its standard error, by the delta method."""
    s, m = np.asarray(sums, float), np.asarray(counts, float)
    n = len(s)
    value = float(s.sum() / m.sum())
    if n < 2:
        return value, math.inf
    return value, math.sqrt(float(((s - value * m) ** 2).sum()) / ((n - 1) * n * float(m.mean()) ** 2))


def cuped(y: Any, x: Any) -> tuple[Any, float]:
    """Outcomes less what a covariate from before the rollout explains of them, and the slope; arms pooled."""
    y, x = np.asarray(y, float), np.asarray(x, float)
    variance = float(x.var(ddof=1))
    theta = float(np.cov(y, x, ddof=1)[0, 1]) / variance if variance > 0 else 0.0
    return y - theta * (x - x.mean()), theta


class Contrast(NamedTuple):
    """A difference, candidate less control, as one look at the planned end sees it: bounds and p-value, not to be watched."""

    difference: float
    low: float
    high: float
    p: float


def welch(control: Any, candidate: Any, level: float = 0.95) -> Contrast:
    """Welch's t between the units of two arms."""
    a, b = np.asarray(control, float), np.asarray(candidate, float)
    return _welch(
        (len(a), float(a.mean()), float(a.var(ddof=1))), (len(b), float(b.mean()), float(b.var(ddof=1))), level
    )


def welch_of_sums(control: Cell, candidate: Cell, level: float = 0.95) -> Contrast:
    """:func:`welch` from sums; each arm needs two units."""
    return _welch((control.n, control.mean, control.variance), (candidate.n, candidate.mean, candidate.variance), level)


def _welch(control: tuple[int, float, float], candidate: tuple[int, float, float], level: float) -> Contrast:
    (na, a, spread_a), (nb, b, spread_b) = control, candidate
    va, vb = spread_a / na, spread_b / nb
    difference, se = b - a, math.sqrt(va + vb)
    if se == 0:  # no spread to judge by
        return Contrast(difference, math.nan, math.nan, 1.0 if difference == 0 else math.nan)
    freedom = (va + vb) ** 2 / (va**2 / (na - 1) + vb**2 / (nb - 1))
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * se
    p = float(2 * stats.t.sf(abs(difference) / se, freedom))
    return Contrast(difference, difference - half, difference + half, p)


def one_look(phases: Sequence[tuple[Cell, Cell]], *, binary: bool, level: float = 0.95) -> Contrast | None:
    """What the planned end's one look says of (control, candidate) per phase; None where no phase has two units of both.

    Within one phase the two-proportion z-test with Newcombe's bounds, or Welch's t. Over several, Cochran, Mantel and
    Haenszel's test, or a z-test of the phases' effect: pooled, a ramp may turn the sign around.
    """
    usable = [(control, candidate) for control, candidate in phases if control.n >= 2 and candidate.n >= 2]
    if not usable:
        return None
    if len(usable) == 1:
        control, candidate = usable[0]
        if not binary:
            return welch_of_sums(control, candidate, level)
        xc, xt = round(control.total), round(candidate.total)
        bounds = newcombe(xt, candidate.n, xc, control.n, level)
        p = two_proportions(xc, control.n, xt, candidate.n)
        return Contrast(candidate.mean - control.mean, bounds.low, bounds.high, p)
    effect = stratified(usable, balanced=True)
    assert effect is not None  # noqa: S101 - each phase is usable
    half = float(stats.norm.ppf(0.5 + level / 2)) * effect.se
    if binary:
        p = cochran_mantel_haenszel([(round(c.total), c.n, round(t.total), t.n) for c, t in usable]).p
    else:
        p = (
            float(2 * stats.norm.sf(abs(effect.difference) / effect.se))
            if effect.se > 0
            else float(effect.difference == 0)
        )
    return Contrast(effect.difference, effect.difference - half, effect.difference + half, p)


def two_proportions(xc: int, nc: int, xt: int, nt: int) -> float:
    """The p-value of the pooled z-test; for one look at the planned end only."""
    pooled = (xc + xt) / (nc + nt)
    se = math.sqrt(pooled * (1 - pooled) * (1 / nc + 1 / nt))
    return float(2 * stats.norm.sf(abs(xt / nt - xc / nc) / se)) if se > 0 else 1.0
