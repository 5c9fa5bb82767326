"""When a rollout that is watched is to be analysed again: on news, or when a time of its file comes, and never busily.

An analysis reads all that was recorded, a third of a second for a million requests. Who watches rests four times as long as
the last one took; while nothing comes in and no time is reached, twenty times, and ten seconds at least.
"""

from __future__ import annotations

import time

from mlcli.rollouts.observe import UNDER_WAY, Analysis
from mlcli.rollouts.steps import standing
from mlcli.store.rollouts import Rollouts

REST, REST_QUIET = 4.0, 20.0
QUIET = 10.0  # what matures without news, such as windows of outcomes, is seen so late at most


class Pace:
    """Knows of the last analysis of the rollout ``name`` what tells whether another could say anything new."""

    def __init__(self, rollouts: Rollouts, name: str) -> None:
        self._rollouts, self._name = rollouts, name
        self._seen: tuple[object, ...] = ()
        self._news: tuple[object, ...] = ()
        self._began = self._ended = 0.0
        self._reached: float | None = None  # the next time of the file, in seconds since 1970
        self.took = 0.0

    def due(self) -> bool:
        """Whether to analyse now; then `done` has to be told of it."""
        self._news, self._began = self._newest(), time.monotonic()
        if not self._ended:
            return True
        rested = self._began - self._ended
        if self._reached is not None and time.time() - UNDER_WAY / 1e9 >= self._reached:
            return rested >= REST * self.took
        if self._news != self._seen:
            return rested >= REST * self.took
        return rested >= max(QUIET, REST_QUIET * self.took)

    def done(self, analysis: Analysis) -> None:
        """Take note of the analysis that was due."""
        self._ended = time.monotonic()
        self.took = self._ended - self._began
        self._seen = self._news
        self._reached = next_time(analysis)

    def _newest(self) -> tuple[object, ...]:
        record = self._rollouts.get(self._name)
        return (record.state, record.invalid, record.version, *self._rollouts.newest(record.key))


def next_time(analysis: Analysis) -> float | None:
    """The next time, after the analysis, at which the same data may get another verdict."""
    rollout, observed = analysis.rollout, analysis.observed
    decision, step = rollout.decision, standing(rollout, observed.step)
    times = [observed.started + decision.min_duration, observed.started + decision.max_duration]
    if step is not None:
        times.append(observed.step_since + step.duration)
    return min([at for at in times if at > observed.now], default=None)
