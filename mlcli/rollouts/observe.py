"""What the store knows of a rollout at a moment, as the values that verdicts are made of."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from mlcli.rollouts import latency, rolloutfile
from mlcli.rollouts.effects import Cell
from mlcli.rollouts.models import described
from mlcli.rollouts.rolloutfile import Metric, Rollout
from mlcli.rollouts.verdict import Observed, Phase, Traffic, Verdict, decide
from mlcli.store.rollouts import LIVE, SHADOW, Counter, Event, Model, RolloutRecord, Rollouts, Sums, Weights

DEAD = "worker-dead"
UNDER_WAY = 2 * 10**9  # a moment so long ago has no batch any more that is on its way into the store


class Moment(NamedTuple):
    """Up to where to look: the last batch, its time, and the events and weights before it."""

    batch: int
    ns: int


class Analysis(NamedTuple):
    """A rollout observed at a moment, and the verdict on it."""

    record: RolloutRecord
    rollout: Rollout
    moment: Moment
    observed: Observed
    verdict: Verdict
    models: tuple[Model | None, ...] = ()

    def to_dictionary(self) -> dict[str, Any]:
        """For JSON: the same data give the same text."""
        arms = described(self.rollout, self.models)
        phases = self.observed.phases
        return {
            "rollout": self.record.name,
            "as_of_ns": self.moment.ns,
            "batch": self.moment.batch,
            "strategy": self.rollout.strategy,
            "step": self.observed.step,
            "arms": [
                {
                    **arm,
                    "weight": phases[-1].weights[number] if phases else float(number == 0),
                    "units": sum(counts[number] for counts in self.observed.units),
                    "requests": traffic.n,
                    "errors": traffic.errors,
                    "lost": traffic.lost,
                    "p50_ms": _ms(traffic, 0.5),
                    "p95_ms": _ms(traffic, 0.95),
                    "p99_ms": _ms(traffic, 0.99),
                }
                for number, (arm, traffic) in enumerate(zip(arms, self.observed.traffic, strict=True))
            ],
            "shadow_pairs": self.observed.pairs,
            "crossed": self.observed.crossed,
            **self.verdict.to_dictionary(),
        }


def _ms(traffic: Traffic, q: float) -> float | None:
    found = latency.quantile(traffic.latencies, q)
    return None if found is None else round(found / 1000, 3)


def analyze(rollouts: Rollouts, name: str, *, as_of_ns: int | None = None) -> Analysis:
    """Observe a rollout as of a moment (default: all that is there; of one that has ended, its end) and judge it.

    A pure function of what is stored: asked twice for the same moment it says the same, whatever was added since.
    """
    with rollouts.database.snapshot():
        record = rollouts.get(name)
        rollout = rolloutfile.parse(record.spec, f"{name}.yaml")
        if as_of_ns is None and record.ended_ns:
            as_of_ns = record.ended_ns
        batch, ns = rollouts.batch_at(record.key, as_of_ns)
        if as_of_ns is None:
            happened = [event.ns for event in rollouts.events(record.key)]
            as_of_ns = max(ns, *happened, time.time_ns() - UNDER_WAY)
        moment = Moment(batch, as_of_ns)
        observed = observe(rollouts, record, rollout, moment)
        models = rollouts.models(record.key, moment.ns)
    return Analysis(record, rollout, moment, observed, decide(rollout, observed), models)


def observe(rollouts: Rollouts, record: RolloutRecord, rollout: Rollout, moment: Moment) -> Observed:
    """All that is known of a rollout at a moment."""
    key, batch = record.key, moment.batch
    weights = rollouts.weights(key, moment.ns) or rollouts.weights(key)[:1]
    versions = [one.version for one in weights]
    arms = len(rollout.arms)
    here = weights[-1] if weights else Weights(0, 0, (1.0,) + (0.0,) * (arms - 1), 0.0, -1, "")
    step_since = next((one.ns for one in weights if one.version == _first_of_step(weights, here)), record.started_ns)
    spans = (_first_of_step(weights, here), here.version)
    events = [event for event in rollouts.events(key) if event.ns <= moment.ns]
    counters = rollouts.counters(key, batch)
    metrics = [metric for metric in rollout.metrics if metric.kind in ("proportion", "mean")]
    cells: dict[str, tuple[tuple[Cell, ...], ...]] = {}
    labelled: dict[str, tuple[tuple[int, ...], ...]] = {}
    for metric in metrics:
        if rollout.strategy == "shadow" and metric.source == "loss":
            cells[metric.name] = _paired(rollouts.shadow_losses(key, batch, metric.key, metric.loss)[0])
            continue
        found = rollouts.sums(
            key, batch, moment.ns, metric.key,
            window_ns=int(_window(rollout, metric) * 1e9), binary=metric.kind == "proportion",
            moves=moves(weights) if rollout.strategy == "canary" else (),
            covariate=metric.covariate, started_ns=record.started_ns, loss=metric.loss,
        )  # fmt: skip
        cells[metric.name] = table(versions, arms, found, metric)
        if metric.kind == "mean":
            labelled[metric.name] = tuple(tuple(cell.n for cell in phase) for phase in cells[metric.name])
    return Observed(
        now=moment.ns / 1e9,
        started=record.started_ns / 1e9,
        step=here.step,
        step_since=step_since / 1e9,
        phases=tuple(Phase(one.version, one.weights) for one in weights),
        units=_units(versions, arms, rollouts.count_units(key, batch)),
        step_units=rollouts.count_step_units(key, spans, batch),
        crossed=rollouts.count_crossed(key, batch) if rollout.strategy in ("ab", "bandit") else 0,
        first_errors=_first_errors(rollouts, rollout, key, batch, versions),
        traffic=tuple(_traffic(rollout, counters, events, arm) for arm in range(arms)),
        cells=cells,
        labelled=labelled,
        pairs=rollouts.count_pairs(key, batch, spans),
        extra={"shadow_dropped": sum(one.dropped for one in counters if one.role == SHADOW)},
    )


def _window(rollout: Rollout, metric: Metric) -> float:
    """How long after its first exposure a unit's outcome counts; a bandit waits for rewards as long as it says."""
    if rollout.strategy == "bandit" and metric.name == rollout.bandit.reward:
        return rollout.bandit.window
    return metric.window


def _first_of_step(weights: Sequence[Weights], here: Weights) -> int:
    """The version that began the step ``here`` belongs to: a pause and a resumption do not begin it anew."""
    first = here.version
    for one in reversed(weights):
        if one.step != here.step:
            break
        first = one.version
    return first


def moves(weights: Sequence[Weights]) -> list[tuple[int, float, float, int]]:
    """(version, from place, to place, when): which units that came under a version changed arms, and when first.

    Of a canary: candidates own the places below the weight, so only places between two weights move.
    """
    found = []
    for number, own in enumerate(weights):
        reach = own.weights[1]
        low = high = reach
        for later in weights[number + 1 :]:
            w = later.weights[1]
            if w > high:
                found.append((own.version, high, w, later.ns))
                high = w
            elif w < low:
                found.append((own.version, w, low, later.ns))
                low = w
    return found


def table(versions: Sequence[int], arms: int, sums: Sequence[Sums], metric: Metric) -> tuple[tuple[Cell, ...], ...]:
    """Cells per version and arm; with a covariate, of outcomes less what it explains (CUPED)."""
    by_place = {(one.version, one.arm): one for one in sums}
    if metric.covariate:
        by_place = {place: adjusted(one, sums) for place, one in by_place.items()}
    return tuple(
        tuple(
            Cell(one.n, one.y, one.yy) if (one := by_place.get((version, arm))) else Cell(0, 0.0, 0.0)
            for arm in range(arms)
        )
        for version in versions
    )


def adjusted(one: Sums, everything: Sequence[Sums]) -> Sums:
    """Sums of y - theta (x - mean of x), theta and the mean over all arms together."""
    n = sum(part.n for part in everything)
    if n < 2:
        return one
    x, y = sum(part.x for part in everything), sum(part.y for part in everything)
    variance = sum(part.xx for part in everything) - x * x / n
    theta = (sum(part.xy for part in everything) - x * y / n) / variance if variance > 0 else 0.0
    middle = x / n
    # With z = y - theta x + theta mean(x): the sums of z and of its square.
    shift = theta * middle
    total = one.y - theta * one.x + one.n * shift
    squares = one.yy - 2 * theta * one.xy + theta**2 * one.xx + 2 * shift * (one.y - theta * one.x) + one.n * shift**2
    return one._replace(y=total, yy=squares)


def _paired(one: Sums) -> tuple[tuple[Cell, ...], ...]:
    """Losses of both arms for the same requests, as cells whose comparison has the variance of the paired difference."""
    n = one.n
    if n < 2:
        return ((Cell(n, one.y, one.yy), Cell(n, one.x, one.xx)),)
    # Control gets none of the variance and the candidate that of x - y: the effect and its error are the paired ones.
    variance = max((one.xx - 2 * one.xy + one.yy) - (one.x - one.y) ** 2 / n, 0.0)
    return ((Cell(n, one.y, one.y**2 / n), Cell(n, one.x, one.x**2 / n + variance)),)


def _units(versions: Sequence[int], arms: int, counts: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, ...], ...]:
    known = {(version, arm): n for version, arm, n in counts}
    return tuple(tuple(known.get((version, arm), 0) for arm in range(arms)) for version in versions)


def _first_errors(
    rollouts: Rollouts, rollout: Rollout, key: int, batch: int, versions: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    if rollout.strategy == "shadow":
        return tuple((arm, 0) for arm in rollouts.lone_shadow_errors(key, batch))
    places = {version: number for number, version in enumerate(versions)}
    return tuple((arm, places[v]) for arm, v in rollouts.first_errors(key, batch) if v in places)


def _traffic(rollout: Rollout, counters: Sequence[Counter], events: Sequence[Event], arm: int) -> Traffic:
    role = SHADOW if rollout.strategy == "shadow" and arm else LIVE
    mine = [one for one in counters if one.arm == arm and one.role == role]
    return Traffic(
        sum(one.n for one in mine),
        sum(one.errors for one in mine),
        sum(one.dropped for one in mine) if role == LIVE else 0,
        latency.merged(latency.read(one.latencies) for one in mine),
        arm > 0 and _dead(events, rollout.arms[arm].name),
    )


def _dead(events: Sequence[Event], name: str) -> bool:
    """Whether a gateway gave up on the candidate's process since the rollout was last started or resumed."""
    for event in reversed(events):
        if event.kind == DEAD and event.reason == name:
            return True
        if event.kind in ("started", "resumed"):
            return False
    return False


def finite(value: float | None) -> float | None:
    """A number that JSON has, or None."""
    return value if value is not None and math.isfinite(value) else None
