"""The verdict on a rollout: a pure function of what was recorded and of its file.

    decide(rollout, observed)    the first of these that holds:

    INVALID     the data cannot be trusted: units missing from an arm, units in two arms, rows lost, labels missing from an arm
    ROLLBACK    a critical limit is broken, a gate against control rejects, a candidate's process is dead (or time is up
                and the file says so)
    PROMOTE     the step's time and units are there, no gate lacks data, and, at the end, the policy holds
    HOLD        else

Everything here may be asked as often as one likes: each test keeps its error rate over all looks together. Alpha of the
guardrails is shared by all gates of all candidates; the primary metric of several candidates goes through Holm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlcli.evaluation.statistics import holm
from mlcli.rollouts import effects, latency, sequential
from mlcli.rollouts.effects import Cell, Effect
from mlcli.rollouts.rolloutfile import Gate, Metric, Rollout
from mlcli.rollouts.steps import at_end, standing
from mlcli.rollouts.words import Said, say, worded

INVALID, ROLLBACK, PROMOTE, HOLD = "INVALID", "ROLLBACK", "PROMOTE", "HOLD"
MAX_CROSSED = 0.01
MAX_LOST = 0.001
LEAST_LATENCIES = 100


class Phase(NamedTuple):
    """A stretch of time with one set of weights, control first."""

    version: int
    weights: tuple[float, ...]


class Traffic(NamedTuple):
    """What an arm has answered (or was sent, as a shadow)."""

    n: int = 0
    errors: int = 0
    lost: int = 0  # answered, and yet not in the store
    latencies: Mapping[int, int] = {}
    dead: bool = False


class Observed(NamedTuple):
    """A rollout up to a moment. Times in seconds; everything per arm has control first."""

    now: float
    started: float
    step: int
    step_since: float
    phases: tuple[Phase, ...]
    units: tuple[tuple[int, ...], ...]  # per phase and arm, at their first exposure
    step_units: int  # distinct, in the current step, all arms
    crossed: int
    first_errors: tuple[tuple[int, int], ...]  # (arm, place of the phase) of each unit's first error, in turn
    traffic: tuple[Traffic, ...]
    cells: Mapping[str, tuple[tuple[Cell, ...], ...]]  # per metric, phase and arm
    labelled: Mapping[str, tuple[tuple[int, ...], ...]]  # units with an outcome, of metrics where one is expected
    pairs: int = 0  # requests that a shadow answered too
    extra: Mapping[str, Any] = {}  # more for reports; decides nothing


class GateResult(NamedTuple):
    """A gate: pass, fail, or inconclusive; ``waits`` when it has too little data to let a step go by."""

    gate: str
    candidate: str
    status: str
    said: Said
    p: float | None = None
    waits: bool = False

    @property
    def detail(self) -> str:
        """What was found, in English."""
        return worded(self.said)

    def to_dictionary(self) -> dict[str, Any]:
        return {**self._asdict(), "detail": self.detail}


class MetricResult(NamedTuple):
    """A metric of a candidate against control; no interval before there is enough data for one."""

    metric: str
    candidate: str
    control: float | None
    value: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


class Verdict(NamedTuple):
    """What to do, the rule that says so, and all that it was concluded from."""

    verdict: str
    rule: str
    said: Said
    action: str  # none | pause | rollback | next | promote
    candidate: str
    gates: tuple[GateResult, ...]
    metrics: tuple[MetricResult, ...]
    sample_ratio: float
    sample_ratio_chi2: float | None

    @property
    def reason(self) -> str:
        """Why, in English."""
        return worded(self.said)

    def to_dictionary(self) -> dict[str, Any]:
        """For JSON; the same every time for the same data."""
        return {
            **self._asdict(),
            "reason": self.reason,
            "gates": [gate.to_dictionary() for gate in self.gates],
            "metrics": [metric._asdict() for metric in self.metrics],
        }


def decide(rollout: Rollout, observed: Observed) -> Verdict:
    """Give the verdict on ``rollout`` at the moment of ``observed``."""
    gates = tuple(_gate(rollout, observed, gate, arm) for arm in range(1, len(rollout.arms)) for gate in rollout.gates)
    metrics = tuple(
        compare(rollout, observed, metric, arm, rollout.decision.alpha / len(rollout.candidates))
        for arm in range(1, len(rollout.arms))
        for metric in rollout.metrics
        if metric.kind in ("proportion", "mean")
    )
    ratio, chi2 = sample_ratio(rollout, observed)

    def verdict(what: str, rule: str, said: Said, action: str, candidate: str = "") -> Verdict:
        return Verdict(what, rule, said, action, candidate, gates, metrics, ratio, chi2)

    wrong = _invalid(rollout, observed, ratio)
    if wrong:
        return verdict(INVALID, wrong[0], wrong[1], "pause")
    broken = _broken(rollout, observed, gates)
    if broken:
        return verdict(ROLLBACK, broken[0], broken[1], "rollback", broken[2])
    waiting = _waiting(rollout, observed, gates)
    late = observed.started > 0 and observed.now - observed.started >= rollout.decision.max_duration
    if not waiting:
        if not at_end(rollout, observed.step):
            return verdict(PROMOTE, "step", say("step"), "next")
        winner, said = _winner(rollout, gates, metrics)
        if winner:
            return verdict(PROMOTE, rollout.decision.policy, said, "promote", winner)
        waiting = ("policy", said)
    if late and rollout.decision.on_timeout == "rollback":
        return verdict(ROLLBACK, "timeout", say("timeout", why=waiting[1]), "rollback")
    return verdict(HOLD, "timeout" if late else waiting[0], waiting[1], "none")


# --- rule 1


def sample_ratio(rollout: Rollout, observed: Observed) -> tuple[float, float | None]:
    """The p-value, over all looks, of the promised shares; and Pearson's where the weights never changed."""
    if rollout.strategy == "shadow":
        return 1.0, None
    phases = _split(observed.units, observed.phases)
    chi2 = sequential.sample_ratio_chi2(*phases[0]) if len(phases) == 1 else None
    return (sequential.sample_ratio(phases) if phases else 1.0), chi2


def _split(units: Sequence[Sequence[int]], phases: Sequence[Phase]) -> list[tuple[Sequence[float], Sequence[float]]]:
    """Counts and shares of the phases in which more than one arm had traffic."""
    return [
        (counts, phase.weights)
        for counts, phase in zip(units, phases, strict=True)
        if sum(counts) and sum(weight > 0 for weight in phase.weights) > 1
    ]


def _invalid(rollout: Rollout, observed: Observed, ratio: float) -> tuple[str, Said] | None:
    if ratio < rollout.decision.srm_alpha:
        return "sample-ratio", say("sample-ratio", p=ratio)
    units = sum(map(sum, observed.units))
    if observed.crossed > max(MAX_CROSSED * units, 4):
        return "crossover", say("crossover", crossed=observed.crossed, units=units)
    answered = sum(arm.n for arm in observed.traffic)
    lost = sum(arm.lost for arm in observed.traffic)
    if lost > MAX_LOST * max(answered, 1):
        return "lost", say("lost", lost=lost, answered=answered)
    for name, counts in observed.labelled.items():
        phases = _split(counts, observed.phases)
        p = sequential.sample_ratio(phases) if phases and rollout.strategy != "shadow" else 1.0
        if p < rollout.decision.srm_alpha:
            return "missing-outcomes", say("missing-outcomes", metric=name, p=p)
    return None


# --- rule 2


def _broken(rollout: Rollout, observed: Observed, gates: Sequence[GateResult]) -> tuple[str, Said, str] | None:
    for arm, traffic in zip(rollout.candidates, observed.traffic[1:], strict=True):
        if traffic.dead:
            return "dead", say("dead", candidate=arm.name), arm.name
    for result in gates:
        if result.status == "fail":
            return result.gate, say("broken", candidate=result.candidate, detail=result.said), result.candidate
    return None


def gate_alpha(rollout: Rollout) -> float:
    """The level of each gate, so that all of them together keep ``guardrail_alpha``."""
    return rollout.decision.guardrail_alpha / max(len(rollout.gates) * len(rollout.candidates), 1)


def _gate(rollout: Rollout, observed: Observed, gate: Gate, arm: int) -> GateResult:
    test = {"limit": _limit, "events": _events, "quantile": _quantile, "margin": _margin}[gate.kind]
    return test(rollout, observed, gate, arm)


def _events(rollout: Rollout, observed: Observed, gate: Gate, arm: int) -> GateResult:
    name = rollout.arms[arm].name
    alpha = gate_alpha(rollout)
    mine = [(who == arm, where) for who, where in observed.first_errors if who in (0, arm)]
    if rollout.strategy == "shadow":  # both get the same requests: an error of one alone is anybody's at even odds
        weight = [0.5] * len(mine)
    else:
        shares = [(phase.weights[0], phase.weights[arm]) for phase in observed.phases]
        weight = [shares[where][1] / (sum(shares[where]) or 1.0) for _, where in mine]
    evidence = sequential.event_evidence([hit for hit, _ in mine], weight, tolerance=gate.tolerance)
    hits = np.cumsum([hit for hit, _ in mine])
    counted = evidence[hits >= gate.least_events] if mine else np.zeros(0)
    highest = float(counted.max()) if len(counted) else 0.0
    p = min(1.0, math.exp(-highest))
    said = say("own-errors", own=int(hits[-1]) if mine else 0, all=len(mine), p=p)
    if p <= alpha:
        return GateResult(gate.name, name, "fail", said, p)
    if not observed.traffic[arm].n:
        return GateResult(gate.name, name, "inconclusive", say("no-request"), None, waits=True)
    return GateResult(gate.name, name, "pass", said, p)


def _quantile(rollout: Rollout, observed: Observed, gate: Gate, arm: int) -> GateResult:
    name, q = rollout.arms[arm].name, rollout.metric(gate.metric).q
    control, candidate = observed.traffic[0].latencies, observed.traffic[arm].latencies
    if min(sum(control.values()), sum(candidate.values())) < LEAST_LATENCIES:
        return GateResult(gate.name, name, "inconclusive", say("few-answers", least=LEAST_LATENCIES), None, waits=True)
    shifted = {number - latency.shift(gate.tolerance): count for number, count in candidate.items()}
    first = min(*control, *shifted)
    counts = np.zeros((2, max(*control, *shifted) - first + 1))
    for row, histogram in enumerate((control, shifted)):
        counts[row, np.asarray(list(histogram)) - first] = list(histogram.values())
    p, direction = sequential.quantile_test(counts[0], counts[1], q)
    p = p if direction > 0 else 1.0  # faster than it may be slower is nothing against it
    ours, theirs = latency.quantile(candidate, q) or 0.0, latency.quantile(control, q) or 0.0
    said = say("latencies", ours=ours / 1000, theirs=theirs / 1000, p=p)
    return GateResult(gate.name, name, "fail" if p <= gate_alpha(rollout) else "pass", said, p)


def _limit(rollout: Rollout, observed: Observed, gate: Gate, arm: int) -> GateResult:
    metric, name, traffic = rollout.metric(gate.metric), rollout.arms[arm].name, observed.traffic[arm]
    alpha = gate_alpha(rollout)
    if metric.kind == "quantile":
        if not traffic.latencies:
            return GateResult(gate.name, name, "inconclusive", say("no-answer"), None, waits=True)
        n = sum(traffic.latencies.values())
        p = sequential.quantile_exceeds(latency.above(traffic.latencies, gate.limit * 1e6), n, metric.q)
        value = (latency.quantile(traffic.latencies, metric.q) or 0.0) / 1e6
        return _limited(
            gate, name, broken=p <= alpha, within=value <= gate.limit, said=say("latency", value=value * 1000), p=p
        )
    if metric.kind == "event":
        events, n = traffic.errors, traffic.n
    else:
        events = round(sum(phase[arm].total for phase in observed.cells.get(metric.name, ())))
        n = sum(phase[arm].n for phase in observed.cells.get(metric.name, ()))
    if not n:
        return GateResult(gate.name, name, "inconclusive", say("no-request"), None, waits=True)
    low, high = sequential.bernoulli_bounds(events, n, alpha=alpha, best_at=1_000.0)
    broken = low > gate.limit if gate.upper else high < gate.limit
    within = events / n <= gate.limit if gate.upper else events / n >= gate.limit
    return _limited(gate, name, broken=broken, within=within, said=say("share", value=events / n, low=low, high=high))


def _limited(gate: Gate, name: str, *, broken: bool, within: bool, said: Said, p: float | None = None) -> GateResult:
    """Tell of a limit: broken for certain and critical, it fails; otherwise, outside, it keeps a step from going by."""
    if broken and gate.critical:
        return GateResult(gate.name, name, "fail", said, p)
    if broken or not within:
        return GateResult(gate.name, name, "inconclusive", say("beyond", detail=said), p, waits=True)
    return GateResult(gate.name, name, "pass", said, p)


def _margin(rollout: Rollout, observed: Observed, gate: Gate, arm: int) -> GateResult:
    metric, name = rollout.metric(gate.metric), rollout.arms[arm].name
    found = compare(rollout, observed, metric, arm, gate_alpha(rollout))
    if found.low is None or found.high is None:
        return GateResult(
            gate.name, name, "inconclusive", say("too-little", metric=metric.name), None, waits=found.n == 0
        )
    low, high, margin = found.low, found.high, gate.margin
    if not metric.higher_is_better:
        low, high, margin = -high, -low, -margin
    said = say("difference", value=found.difference, low=found.low, high=found.high)
    if high < margin:
        return GateResult(gate.name, name, "fail", said, None)
    return GateResult(gate.name, name, "pass" if low > margin else "inconclusive", said, None)


# --- rule 3


def _waiting(rollout: Rollout, observed: Observed, gates: Sequence[GateResult]) -> tuple[str, Said] | None:
    """What a step, or the end, waits for."""
    step, decision = standing(rollout, observed.step), rollout.decision
    if step is not None and step.kind != "set_weight":
        left = step.duration - (observed.now - observed.step_since)
        if left > 0:
            return "duration", say("lasts", left=left)
        have = observed.pairs if step.kind == "shadow" else observed.step_units
        if have < step.least:
            return "units", say("rows" if step.kind == "shadow" else "units", have=have, least=step.least)
    if step is None or step.kind != "shadow":
        blocked = [result for result in gates if result.status == "inconclusive" and result.waits]
        if blocked:
            return "gate", say("waits", candidate=blocked[0].candidate, gate=blocked[0].gate, detail=blocked[0].said)
    if not at_end(rollout, observed.step):
        return None
    left = decision.min_duration - (observed.now - observed.started)
    if left > 0:
        return "min_duration", say("min-duration", left=left)
    if rollout.strategy == "shadow":
        have, least = observed.pairs, decision.min_units
    else:
        have = min(sum(phase[arm] for phase in observed.units) for arm in range(len(rollout.arms)))
        least = decision.min_units
    if have < least:
        return "min_units", say("min-units", have=have, least=least)
    return None


def _winner(rollout: Rollout, gates: Sequence[GateResult], metrics: Sequence[MetricResult]) -> tuple[str, Said]:
    """The candidate that the policy lets in, or "" and why there is none."""
    decision = rollout.decision
    clean = [
        arm.name
        for arm in rollout.candidates
        if all([result.status == "pass" for result in gates if result.candidate == arm.name])
    ]
    if not clean:
        open_ = next(result for result in gates if result.status != "pass")
        return "", say("open", candidate=open_.candidate, gate=open_.gate, detail=open_.said)
    if decision.policy == "no_harm":
        return clean[0], say("harmless")
    higher = rollout.metric(decision.primary).higher_is_better
    primary = [result for result in metrics if result.metric == decision.primary]
    adjusted = dict(zip([r.candidate for r in primary], holm([_or_one(r.p) for r in primary]), strict=True))
    sign = 1 if higher else -1
    better: list[tuple[float, MetricResult]] = []
    for result in primary:
        if result.low is None or result.high is None or result.difference is None or result.candidate not in clean:
            continue
        low = result.low if higher else -result.high
        if decision.policy == "superiority":
            holds = sign * result.difference > 0 and adjusted[result.candidate] < decision.alpha
        else:
            holds = low > sign * decision.margin
        if holds:
            better.append((sign * result.difference, result))
    if not better:
        return "", say("unsettled", metric=decision.primary)
    best = max(better)[1]
    assert best.difference is not None and best.low is not None and best.high is not None  # noqa: S101, PT018 - chosen so
    return best.candidate, say("settled", metric=decision.primary, value=best.difference, low=best.low, high=best.high)


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


# --- metrics


def compare(rollout: Rollout, observed: Observed, metric: Metric, arm: int, alpha: float) -> MetricResult:
    """A metric of the candidate ``arm`` against control, with bounds that hold over all looks."""
    name, phases = rollout.arms[arm].name, observed.cells.get(metric.name, ())
    control, candidate = (_pooled([phase[number] for phase in phases]) for number in (0, arm))
    n = control.n + candidate.n
    values = (control.mean if control.n else None, candidate.mean if candidate.n else None)
    effect = (
        adaptive(phases, observed.phases, arm)
        if rollout.strategy == "bandit"
        else effects.stratified([(phase[0], phase[arm]) for phase in phases], balanced=True)
    )
    if effect is None or not _enough(metric, control, candidate):
        return MetricResult(metric.name, name, *values, None, None, None, None, n)
    low, high, p = sequential.confidence_sequence(
        effect.difference, effect.se, effect.n, alpha=alpha, planned=rollout.decision.planned_units
    )
    return MetricResult(metric.name, name, *values, effect.difference, float(low), float(high), float(p), n)


def _pooled(cells: Sequence[Cell]) -> Cell:
    return Cell(sum(c.n for c in cells), sum(c.total for c in cells), sum(c.squares for c in cells))


def _enough(metric: Metric, control: Cell, candidate: Cell) -> bool:
    if metric.kind == "proportion":
        counts = ([control.total, candidate.total], [control.n, candidate.n])
        return bool(sequential.enough_events(*counts))
    return min(control.n, candidate.n) >= sequential.LEAST_UNITS


def adaptive(phases: Sequence[Sequence[Cell]], weights: Sequence[Phase], arm: int) -> Effect | None:
    """The effect under weights that followed the rewards: AIPW scores, batch by batch, from each batch's sums.

    A unit's score is m_k - m_0 plus (x - m_k)/p_k where it was the candidate's, minus (x - m_0)/p_0 where control's; m is
    what was known before the batch. Plain means of the arms would be biased down.
    """
    known = [Cell(0, 0.0, 0.0), Cell(0, 0.0, 0.0)]
    n, total, squares = 0, 0.0, 0.0
    for cells, phase in zip(phases, weights, strict=True):
        pair = (cells[0], cells[arm])
        shares = (phase.weights[0], phase.weights[arm])
        if min(shares) <= 0:
            continue
        base = known[1].mean - known[0].mean
        units = sum(cell.n for cell in cells)
        n += units
        total += (units - pair[0].n - pair[1].n) * base
        squares += (units - pair[0].n - pair[1].n) * base**2
        for number, sign in ((0, -1.0), (1, 1.0)):
            cell, m, p = pair[number], known[number].mean, shares[number]
            s1, s2 = cell.total - cell.n * m, cell.squares - 2 * m * cell.total + cell.n * m * m
            total += cell.n * base + sign * s1 / p
            squares += cell.n * base**2 + 2 * base * sign * s1 / p + s2 / p**2
        known = [_pooled([before, now]) for before, now in zip(known, pair, strict=True)]
    if n < 2:
        return None
    variance = max(squares - total**2 / n, 0.0) / (n - 1)
    return Effect(total / n, math.sqrt(variance / n), n)
