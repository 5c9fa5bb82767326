"""Which params move a metric: for each param, the share of the metric's rank variance that its values explain.

Method, by name: epsilon squared of Kruskal and Wallis on ranks, adjusted for chance (a param that does nothing is 0 on
average); params that are numbers with many values are cut into groups of equal size. A permutation test gives the
p-value (Holm's correction for the number of params), a basic bootstrap the 90 % interval. Spearman's rho says which way a
numeric param moves the metric. Nothing but the standard library; the same runs always give the same answer.

What it cannot tell: params that were changed together cannot be told apart (their association is given), nor what
params do only in combination. It describes the runs that were made; it proves no cause.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEAST_RUNS = 8
MOST_RUNS = 400  # more are sampled
MOST_PARAMS = 40
SHUFFLES = 299
RESAMPLES = 200
_GROUPS = 5  # of a numeric param with more values than that


class Importance(NamedTuple):
    """What is known of one param. ``share`` is 0 to 1, with its interval; ``p`` is corrected; ``rho`` of numeric params."""

    param: str
    share: float
    low: float
    high: float
    p: float
    rho: float | None
    groups: int
    runs: int
    like: str  # a param of which this one can hardly be told apart, or ""


def importances(runs: Sequence[tuple[Mapping[str, str], float]]) -> list[Importance]:
    """The params that are not the same in all runs, the most important first; empty for too few runs."""
    known = [(params, value) for params, value in runs if abs(value) < float("inf")]
    if len(known) < LEAST_RUNS:
        return []
    chance = random.Random(20_261_125)  # noqa: S311 - statistics, not secrets
    if len(known) > MOST_RUNS:
        known = chance.sample(known, MOST_RUNS)
    ranks = ranked([value for _, value in known])
    if len(set(ranks)) < 2:
        return []
    labels = {}
    for key in sorted({key for params, _ in known for key in params}):
        groups = _grouped([params.get(key) for params, _ in known])
        if 1 < len(set(groups)) <= len(known) // 2:
            labels[key] = groups
    if len(labels) > MOST_PARAMS:
        strongest = sorted(labels, key=lambda key: -share(labels[key], ranks))
        labels = {key: labels[key] for key in strongest[:MOST_PARAMS]}
    shares = {key: share(groups, ranks) for key, groups in labels.items()}
    exceeded = dict.fromkeys(labels, 0)
    shuffled = list(ranks)
    for _ in range(SHUFFLES):
        chance.shuffle(shuffled)
        for key, groups in labels.items():
            exceeded[key] += share(groups, shuffled) >= shares[key] - 1e-12
    corrected = holm({key: (count + 1) / (SHUFFLES + 1) for key, count in exceeded.items()})
    resampled: dict[str, list[float]] = {key: [] for key in labels}
    for _ in range(RESAMPLES):
        drawn = [chance.randrange(len(known)) for _ in known]
        values = ranked([ranks[place] for place in drawn])
        for key, groups in labels.items():
            resampled[key].append(share([groups[place] for place in drawn], values))
    result = []
    for key, groups in labels.items():
        found = shares[key]
        spread = sorted(resampled[key])
        # The basic interval: drawing with repetition makes shares too large, and this takes that back.
        low = 2 * found - spread[int(0.95 * (RESAMPLES - 1))]
        high = 2 * found - spread[int(0.05 * (RESAMPLES - 1))]
        result.append(
            Importance(
                key,
                max(found, 0.0),
                min(max(low, 0.0), 1.0),
                min(max(high, 0.0), 1.0),
                corrected[key],
                _rho([params.get(key) for params, _ in known], ranks),
                len(set(groups)),
                len(known),
                _twin(key, labels),
            )
        )
    return sorted(result, key=lambda item: (-item.share, item.p, item.param))


def share(groups: Sequence[object], ranks: Sequence[float]) -> float:
    """Epsilon squared: the share of the variance of ``ranks`` between groups, less what chance alone would give."""
    count = len(ranks)
    sums: dict[object, float] = {}
    sizes: dict[object, int] = {}
    for group, rank in zip(groups, ranks, strict=True):
        sums[group] = sums.get(group, 0.0) + rank
        sizes[group] = sizes.get(group, 0) + 1
    total = sum(ranks)
    whole = sum(rank * rank for rank in ranks) - total * total / count
    between = sum(value * value / sizes[group] for group, value in sums.items()) - total * total / count
    free = count - len(sums)
    if whole <= 0 or free <= 0 or len(sums) < 2:
        return 0.0
    within = (whole - between) / free
    return (between - (len(sums) - 1) * within) / whole


def ranked(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            ranks[order[place]] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number, step by step."""
    result, greatest = {}, 0.0
    for place, (key, p) in enumerate(sorted(ps.items(), key=lambda item: item[1])):
        greatest = max(greatest, min(1.0, p * (len(ps) - place)))
        result[key] = greatest
    return result


def numeric(values: Sequence[str | None]) -> list[float] | None:
    """The values as numbers, where all that are there are."""
    try:
        found = [float(value) for value in values if value is not None]
    except ValueError:
        return None
    return found if found and all(abs(value) < float("inf") for value in found) else None


def _grouped(values: Sequence[str | None]) -> list[str]:
    numbers = numeric(values)
    if numbers is None or len(set(numbers)) <= _GROUPS + 1:
        return ["" if value is None else f"={float(value):g}" if numbers else f"={value}" for value in values]
    order = sorted(numbers)
    edges = sorted({order[len(order) * part // _GROUPS] for part in range(1, _GROUPS)})
    return ["" if value is None else f"<{sum(float(value) >= edge for edge in edges)}" for value in values]


def _rho(values: Sequence[str | None], ranks: Sequence[float]) -> float | None:
    numbers = numeric(values)
    if numbers is None or len(numbers) < LEAST_RUNS:
        return None
    mine = ranked(numbers)
    theirs = ranked([rank for value, rank in zip(values, ranks, strict=True) if value is not None])
    mean = (len(mine) + 1) / 2
    both = sum((a - mean) * (b - mean) for a, b in zip(mine, theirs, strict=True))
    one, other = (sum((value - mean) ** 2 for value in side) for side in (mine, theirs))
    return both / (one * other) ** 0.5 if one > 0 and other > 0 else None


def _twin(key: str, labels: Mapping[str, Sequence[str]]) -> str:
    """Another param that goes with this one: knowing its group tells this one's in nine runs of ten."""
    mine = labels[key]
    for other, theirs in labels.items():
        if other == key:
            continue
        counts: dict[str, dict[str, int]] = {}
        for a, b in zip(theirs, mine, strict=True):
            counts.setdefault(a, {})[b] = counts.setdefault(a, {}).get(b, 0) + 1
        hits = sum(max(row.values()) for row in counts.values())
        usual = max(mine.count(label) for label in set(mine))
        if len(counts) <= len(mine) // 3 and hits >= 0.9 * len(mine) and hits > usual:
            return other
    return ""
