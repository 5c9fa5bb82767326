"""Latencies as counts in buckets that are 2 % wide: exact to 1 %, added up in any order, small to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

RATIO = 1.02
_LOG = math.log(RATIO)


def bucket(microseconds: float) -> int:
    """The bucket of a latency."""
    return int(math.log(microseconds) / _LOG) if microseconds > 1 else 0


def middle(number: int) -> float:
    """Microseconds that stand for a bucket, at most 1 % off."""
    return math.exp((number + 0.5) * _LOG)


def shift(tolerance: float) -> int:
    """By how many buckets a latency may be longer; rounded up, in favour of the candidate."""
    return math.ceil(math.log(tolerance) / _LOG - 1e-9)


def add(into: dict[int, int], counts: Mapping[int, int]) -> None:
    """Add counts to others."""
    for number, count in counts.items():
        into[number] = into.get(number, 0) + count


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """All counts together."""
    total: dict[int, int] = {}
    for counts in histograms:
        add(total, counts)
    return total


def quantile(counts: Mapping[int, int], q: float) -> float | None:
    """The latency in microseconds that a share ``q`` does not exceed; None of nothing."""
    left = q * sum(counts.values())
    for number in sorted(counts):
        left -= counts[number]
        if left <= 1e-9:
            return middle(number)
    return None


def above(counts: Mapping[int, int], microseconds: float) -> int:
    """How many latencies are longer."""
    edge = bucket(microseconds)
    return sum(count for number, count in counts.items() if number > edge)


def write(counts: Mapping[int, int]) -> str:
    """As text: ``bucket:count`` with commas between."""
    return ",".join(f"{number}:{counts[number]}" for number in sorted(counts))


def read(text: str) -> dict[int, int]:
    """What :func:`write` wrote."""
    pairs = (part.split(":") for part in text.split(",") if part)
    return {int(number): int(count) for number, count in pairs}
