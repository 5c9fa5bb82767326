"""Seeds of simulations: one that is frozen, and one that is new each month, so that no bar is fitted to a seed."""

from __future__ import annotations

import time

import pytest

FROZEN, THIS_MONTH = 1, int(time.strftime("%Y%m", time.gmtime()))
# A bar at what chance gives in 99.9 % of the cases fails in one month of a thousand though all is well.
each_seed = pytest.mark.parametrize(
    "seed", [pytest.param(FROZEN, id="frozen"), pytest.param(THIS_MONTH, id="this month")]
)


def games(few: int, many: int) -> pytest.MarkDecorator:
    """Play ``few`` with each seed, and, in the slow run, ``many`` with this month's."""
    return pytest.mark.parametrize(
        ("reps", "seed"),
        [
            pytest.param(few, FROZEN, id="frozen"),
            pytest.param(few, THIS_MONTH, id="this month"),
            pytest.param(many, THIS_MONTH, id="this month, many", marks=pytest.mark.slow),
        ],
    )
