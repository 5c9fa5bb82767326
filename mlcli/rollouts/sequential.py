"""Tests that may be looked at as often as one likes: each keeps its error rate over all looks together.

    confidence_sequence   means and proportions: asymptotic (Waudby-Smith et al. 2024), with a rule on how many events it needs
    event_evidence        errors and other rare events: exact, also while weights change (Lindon & Malek 2022)
    quantile_test         latencies: two samples (Howard & Ramdas 2022), also of histograms
    bernoulli_bounds      one rate: beta-binomial mixture
    exact_difference      bounded outcomes without asymptotics: gamma-exponential mixture (Howard et al. 2021)
    sample_ratio          do the arms have the units that their weights promise? (Dirichlet-multinomial mixture), and chi-squared

Evidence grows as a nonnegative (super)martingale under the null hypothesis, so it ever reaches 1/alpha with probability
alpha at most (Ville). A p-value of a single look, looked at often, has no such bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

LEAST_EVENTS = 25  # in each cell (arm x outcome) before a confidence sequence of a proportion is shown
LEAST_UNITS = 100  # per arm, for means
RATIOS = np.geomspace(1.05, 200.0, 40)
CONCENTRATIONS = (10.0, 100.0, 1_000.0, 10_000.0)


class Interval(NamedTuple):
    """An effect with its bounds over all looks, and the p-value that goes with them."""

    effect: float
    low: float
    high: float
    p: float


def best_rho(v: float, alpha: float = 0.05) -> float:
    """The tuning of a two-sided normal mixture that is tightest at intrinsic time ``v``."""
    return v / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))


def normal_evidence(s: float, v: float, rho: float) -> float:
    """Log of the normal mixture at sum ``s`` and intrinsic time ``v``."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))


def normal_bound(v: float, alpha: float, rho: float) -> float:
    """How far a sum gets from 0 with probability ``alpha``, ever."""
    return math.sqrt((v + rho) * (math.log(1 + v / rho) + 2 * math.log(1 / alpha)))


def gamma_exponential_evidence(s: Any, v: Any, rho: float, c: float) -> Any:
    """Log of the gamma-exponential mixture, for sums whose steps are at most ``c`` (sub-exponential)."""
    q = rho / c**2
    lead = q * math.log(q) - special.gammaln(q) - math.log(special.gammainc(q, q))
    a, y = (np.asarray(v) + rho) / c**2, (c * np.asarray(s) + np.asarray(v)) / c**2
    return lead + special.gammaln(a) + np.log(special.gammainc(a, y + q)) - a * np.log(y + q) + y


def beta_binomial_evidence(s: Any, v: Any, rho: float, g: float, h: float) -> Any:
    """Log of the two-sided beta-binomial mixture, for steps between -g and h."""
    r = max(rho - g * h, 1e-3 * g * h)
    s, v = np.asarray(s, float), np.asarray(v, float)
    up, down = g * (g + h), h * (g + h)
    return (
        v / (g * h) * math.log(g + h)
        - (v + h * s) / down * math.log(g)
        - (v - g * s) / up * math.log(h)
        + special.betaln((r + v - g * s) / up, (r + v + h * s) / down)
        - special.betaln(r / up, r / down)
    )


def bound(evidence: Any, alpha: float, highest: float) -> float:
    """The sum at which ``evidence(sum)`` reaches 1/alpha; it must grow from 0 to ``highest``."""
    threshold = math.log(1 / alpha)
    if evidence(highest) < threshold:
        return highest
    return float(optimize.brentq(lambda s: evidence(s) - threshold, 0.0, highest, xtol=1e-10))


# --- means and proportions


def tuning(alpha: float, planned: float) -> float:
    """The rho of a confidence sequence that is tightest when ``planned`` units are in."""
    return math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned)


def confidence_sequence(effect: Any, se: Any, n: Any, *, alpha: float, planned: float) -> tuple[Any, Any, Any]:
    """Lower bound, upper bound and p-value of an effect with standard error ``se`` after ``n`` units; arrays too.

    Asymptotic: ask :func:`enough_events` first. With rare outcomes and few candidates it would be wrong a third of the time.
    """
    rho2 = tuning(alpha, planned) ** 2
    n = np.asarray(n, float)
    half = se * np.sqrt(n) * np.sqrt(2 * (n * rho2 + 1) / (n * n * rho2) * np.log(np.sqrt(n * rho2 + 1) / alpha))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z2 = np.where(np.asarray(se) > 0, (np.asarray(effect) / np.asarray(se)) ** 2, 0.0)
        p = np.minimum(1.0, np.sqrt(n * rho2 + 1) * np.exp(-rho2 * n * z2 / (2 * (n * rho2 + 1))))
    return effect - half, effect + half, p


def enough_events(successes: Any, totals: Any, least: int = LEAST_EVENTS) -> Any:
    """Whether each cell of a proportion, success and failure in each arm (last axis), has ``least`` units."""
    successes, totals = np.asarray(successes), np.asarray(totals)
    return np.all((successes >= least) & (totals - successes >= least), axis=-1)


# --- rare events


def event_evidence(candidate: Any, weight: Any, *, tolerance: float = 1.0) -> Any:
    """Log evidence, after each event, that the candidate's rate is more than ``tolerance`` times control's.

    ``candidate``: for each unit's first event in turn, whether it was a candidate's. ``weight``: the candidate's share of
    traffic at that moment. Exact whatever the weights did meanwhile and however the rate changes over time.
    """
    hits = np.asarray(candidate, float)
    w = np.asarray(weight, float)
    if not hits.size:
        return np.zeros(0)
    null = w * tolerance / (w * tolerance + 1 - w)
    up = w * tolerance
    other = np.multiply.outer(up, RATIOS)
    other = other / (other + (1 - w)[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(hits[:, None] > 0, np.log(other / null[:, None]), np.log((1 - other) / (1 - null)[:, None]))
    gain[(w <= 0) | (w >= 1)] = 0.0  # where one arm has all the traffic an event tells nothing
    return np.logaddexp.reduce(np.cumsum(gain, axis=0), axis=1) - math.log(len(RATIOS))


# --- quantiles


def quantile_test(control: Any, candidate: Any, q: float, *, best_at: float = 1_000.0) -> tuple[float, int]:
    """The p-value of "both have the same ``q``-quantile", and which way they differ (1: the candidate's is greater).

    Counts per value (a histogram), in the same ascending values for both. Ties are no trouble: at a value that holds the
    quantile a sample speaks neither for nor against.
    """
    counts = np.vstack([np.asarray(control, float), np.asarray(candidate, float)])
    totals = counts.sum(axis=1)
    if not totals.all():
        return 1.0, 0
    after = counts.cumsum(axis=1)
    away = np.minimum(after - q * totals[:, None], 0.0) + np.maximum(after - counts - q * totals[:, None], 0.0)
    rho = best_rho(best_at * q * (1 - q), 0.05)
    evidence = beta_binomial_evidence(away, q * (1 - q) * totals[:, None], rho, q, 1 - q)
    against = float(evidence.sum(axis=0).min())
    quantiles = [int(np.searchsorted(after[arm], q * totals[arm] - 1e-9)) for arm in (0, 1)]
    return min(1.0, math.exp(-against)), int(np.sign(quantiles[1] - quantiles[0]))


def quantile_exceeds(counts_above: int, total: int, q: float, *, best_at: float = 1_000.0) -> float:
    """The p-value of "the ``q``-quantile is at most x", where ``counts_above`` of ``total`` lie above x."""
    share_below = (total - counts_above) / total if total else 1.0
    if share_below >= q:
        return 1.0
    rho = best_rho(best_at * q * (1 - q), 0.05)
    s = total * (share_below - q)
    return min(1.0, math.exp(-float(beta_binomial_evidence(s, q * (1 - q) * total, rho, q, 1 - q))))


# --- one rate


def bernoulli_bounds(successes: int, n: int, *, alpha: float, best_at: float) -> tuple[float, float]:
    """Bounds of a rate that hold over all looks at once; tightest after ``best_at`` trials."""
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    threshold = math.log(1 / alpha)

    def beyond(p: float) -> float:
        v = p * (1 - p)
        rho = best_rho(best_at * v, alpha)
        return float(beta_binomial_evidence(successes - n * p, n * v, rho, p, 1 - p)) - threshold

    tiny = 1e-9
    low = 0.0 if successes == 0 or beyond(tiny) <= 0 else float(optimize.brentq(beyond, tiny, max(rate - 1e-12, tiny)))
    high = (
        1.0
        if successes == n or beyond(1 - tiny) <= 0
        else float(optimize.brentq(beyond, min(rate + 1e-12, 1 - tiny), 1 - tiny))
    )
    return low, high


# --- bounded outcomes, exactly


def exact_difference(
    outcome: Any, candidate: Any, weight: Any, *, alpha: float, best_at: float
) -> tuple[float, float, float]:
    """Effect and bounds of outcomes in [0, 1] without asymptotics: each unit in turn, its arm, the candidate's weight then.

    Scores are weighted by inverse propensity around a running mean, so they stay right while weights change; the bounds
    are wider than those of :func:`confidence_sequence`.
    """
    y, z, w = np.asarray(outcome, float), np.asarray(candidate, float), np.asarray(weight, float)
    n = len(y)
    if n < 2:
        return 0.0, -1.0, 1.0
    before = np.concatenate([[0.5], (0.5 + np.cumsum(y)[:-1]) / (np.arange(1, n) + 1.0)])
    score = (z - w) / (w * (1 - w)) * (y - before)
    guess = np.concatenate([[0.0], np.clip(np.cumsum(score)[:-1] / np.arange(1, n), -1, 1)])
    v = float(((score - guess) ** 2).sum())
    c = 2.0 / float(np.minimum(w, 1 - w).min())
    typical = max(v / n, 1e-12) * best_at
    rho = best_rho(typical, alpha / 2)
    half = bound(lambda s: gamma_exponential_evidence(s, v, rho, c), alpha / 2, 10.0 * n * c)
    effect = float(score.mean())
    return effect, effect - half / n, effect + half / n


# --- sample ratio


def ratio_log_factor(counts: Sequence[float] | Any, shares: Sequence[float] | Any, concentration: float) -> float:
    """Log Bayes factor of counts against the shares that were promised; depends on the totals alone."""
    n, theta = np.asarray(counts, float), np.asarray(shares, float) / np.sum(shares)
    some = theta > 0
    n, theta = n[some], theta[some]
    a = concentration * theta
    return float(
        special.gammaln(a.sum())
        - special.gammaln(a.sum() + n.sum())
        + (special.gammaln(a + n) - special.gammaln(a)).sum()
        - (n * np.log(theta)).sum()
    )


def sample_ratio(phases: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """The p-value, over all looks, of "units came in the shares promised": counts and shares of each phase of weights.

    A mixture of concentrations: a single great one, as is usual, takes 600 against 400 for chance.
    """
    factors = [sum(ratio_log_factor(counts, shares, c) for counts, shares in phases) for c in CONCENTRATIONS]
    mean = float(np.logaddexp.reduce(factors)) - math.log(len(factors))
    return min(1.0, math.exp(-mean))


def sample_ratio_chi2(counts: Sequence[float], shares: Sequence[float]) -> float:
    """Pearson's p-value of the same for one look; not to be watched."""
    n, theta = np.asarray(counts, float), np.asarray(shares, float) / np.sum(shares)
    some = theta > 0
    if some.sum() < 2 or not n.sum():
        return 1.0
    expected = theta[some] / theta[some].sum() * n[some].sum()
    return float(special.chdtrc(some.sum() - 1, float(((n[some] - expected) ** 2 / expected).sum())))
