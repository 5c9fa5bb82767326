"""Which arm a unit belongs to: salted hashes, ranges of weights, and what raising a weight may change.

A unit's place is a number in [0, 1) that depends on the salt and the unit alone, so it is the same in each process, after
a restart, on each machine. Arms own ranges of places. Standard library only: the gateway asks here for each request.

    sha256      ours: the first 64 bits of SHA-256 over "salt.unit"
    murmur3     Optimizely's: MurmurHash3 (32 bits) over "unit" + "salt"
    fnv1a-v2    GrowthBook's: FNV-1a twice over "salt" + "unit", 10,000 places
    sha1        LaunchDarkly's: the first 60 bits of SHA-1 over "salt.unit"

Python's own hash() differs between processes, and odd and even ids are the same halves in every experiment: neither is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

BUCKETS = 10_000
_MASK = 0xFFFFFFFF


class Range(NamedTuple):
    """Places from ``start`` up to, but not including, ``end``."""

    start: float
    end: float

    def __contains__(self, place: object) -> bool:
        return isinstance(place, float) and self.start <= place < self.end


def sha256_number(salt: str, unit: str) -> int:
    """The 64 bits that the place of a unit is made of."""
    return int.from_bytes(hashlib.sha256(f"{salt}.{unit}".encode()).digest()[:8], "big")


def _sha256(salt: str, unit: str, _seed: int) -> float:
    # 53 bits: a float has no more, and all 64 could round up to 1.0, which no range holds.
    return (sha256_number(salt, unit) >> 11) / 2**53


def _sha1(salt: str, unit: str, _seed: int) -> float:
    digest = hashlib.sha1(f"{salt}.{unit}".encode(), usedforsecurity=False).hexdigest()
    return min(int(digest[:15], 16) / 0xFFFFFFFFFFFFFFF, _LAST)


def _fnv1a_v2(salt: str, unit: str, _seed: int) -> float:
    return fnv1a(str(fnv1a(salt + unit))) % 10_000 / 10_000


def _murmur3(salt: str, unit: str, seed: int) -> float:
    return murmur3(f"{unit}{salt}".encode(), seed) / 2**32


HASHES: dict[str, Callable[[str, str, int], float]] = {
    "sha256": _sha256,
    "murmur3": _murmur3,
    "fnv1a-v2": _fnv1a_v2,
    "sha1": _sha1,
}
_LAST = 1.0 - 2.0**-53


def place(unit: str, *, salt: str, algorithm: str = "sha256", seed: int = 1) -> float:
    """Where a unit stands in [0, 1); ``seed`` is of use to murmur3 only."""
    return HASHES[algorithm](salt, unit, seed)


def bucket(place_: float) -> int:
    """A place as people read it: one of 10,000."""
    return int(place_ * BUCKETS)


def ranges(weights: Sequence[float], coverage: float = 1.0) -> list[Range]:
    """The range of each arm. Raising ``coverage`` adds units and moves none from arm to arm.

    Weights that do not sum to 1 become equal ones, as GrowthBook has it; the reader of rollout files refuses them before.
    """
    coverage = min(max(coverage, 0.0), 1.0)
    if abs(sum(weights) - 1.0) > 0.01:
        weights = [1.0 / len(weights)] * len(weights)
    found: list[Range] = []
    start = 0.0
    for weight in weights:
        found.append(Range(start, start + coverage * weight))
        start += weight
    if found and coverage == 1.0:
        found[-1] = Range(found[-1].start, 1.0)  # what a sum of floats falls short of 1 belongs to somebody
    return found


def canary_ranges(weights: Sequence[float]) -> list[Range]:
    """Candidates own the places from 0 up, control the rest: a rising weight moves units from control alone.

    ``weights`` has control first. With several candidates only the last one's rising moves nobody but control's units.
    """
    found: list[Range] = []
    start = 0.0
    for weight in weights[1:]:
        found.append(Range(start, start + weight))
        start += weight
    return [Range(start, 1.0), *found]


def arm_at(place_: float, owned: Sequence[Range]) -> int | None:
    """The number of the arm that owns a place; None for one that is not covered."""
    for number, owned_range in enumerate(owned):
        if owned_range.start <= place_ < owned_range.end:
            return number
    return None


def fnv1a(text: str) -> int:
    """FNV-1a, 32 bits, over the characters of a text."""
    value = 0x811C9DC5
    for char in text:
        value = ((value ^ ord(char)) * 0x01000193) & _MASK
    return value


def murmur3(data: bytes, seed: int = 0) -> int:
    """MurmurHash3 x86, 32 bits."""
    value = seed & _MASK
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        value ^= _mixed(int.from_bytes(data[start : start + 4], "little"))
        value = (_rotated(value, 13) * 5 + 0xE6546B64) & _MASK
    if len(data) > whole:
        value ^= _mixed(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def _mixed(block: int) -> int:
    return (_rotated((block * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK
