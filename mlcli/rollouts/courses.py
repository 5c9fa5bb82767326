"""What a rollout looks like drawn: weights, bounds and evidence over time, and shares of latencies, as lines of points.

For pages and reports; it needs no NumPy, so that pages can tell of a rollout where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlcli.store.rollouts import Decided, Weights

LEAST_P = 1e-12  # beyond that nobody learns anything from a picture
MOST_POINTS = 300  # of one line: more than that a picture does not show


def seconds(ns: int, start_ns: int) -> float:
    return round((ns - start_ns) / 1e9, 3)


def of_weights(weights: Sequence[Weights], names: Sequence[str], start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Each weight holds until the next; with a shadow, also the share of requests that it was sent."""
    if not weights:
        return []
    step = -(-len(weights) // MOST_POINTS)
    kept = [one for number, one in enumerate(weights) if number % step == 0 or one is weights[-1]]
    lines = [(name, [one.weights[arm] for one in kept]) for arm, name in enumerate(names)]
    if any([one.shadow for one in kept]):
        lines.append(("shadow", [one.shadow for one in kept]))
    times = [seconds(one.ns, start_ns) for one in kept]
    end = max(seconds(end_ns, start_ns), times[-1] + 1.0 if len(times) == 1 else times[-1])
    return [{"name": name, "points": [*zip(times, shares, strict=True), (end, shares[-1])]} for name, shares in lines]


def of_decisions(history: Iterable[Decided], start_ns: int, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Effects with their bounds, per metric and candidate, and the evidence against each gate, 1/p; in the arms' order."""
    bounds: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    evidence: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for one in history:
        at = seconds(one.ns, start_ns)
        for metric in one.evidence.get("metrics", ()):
            if None not in (metric["difference"], metric["low"], metric["high"]):
                point = (at, metric["low"], metric["difference"], metric["high"])
                bounds.setdefault((metric["candidate"], metric["metric"]), []).append(point)
        for gate in one.evidence.get("gates", ()):
            if gate["p"] is not None:
                evidence.setdefault((gate["candidate"], gate["gate"]), []).append((at, 1 / max(gate["p"], LEAST_P)))
    place = {name: number for number, name in enumerate(names)}

    def lines(of: dict[tuple[str, str], list[tuple[float, ...]]], kind: str) -> list[dict[str, Any]]:
        known = sorted(of.items(), key=lambda line: place.get(line[0][0], len(place)))
        return [
            {kind: what, "candidate": candidate, "points": points}
            for (candidate, what), points in known
            if len(points) > 1
        ]

    return {"intervals": lines(bounds, "metric"), "evidence": lines(evidence, "gate")}


def evidence_pictures(evidence: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(gate, lines): one picture of all gates where there is one candidate, else one a gate with a line a candidate."""
    if len({line["candidate"] for line in evidence}) == 1:
        return [("", [{"name": line["gate"], "points": line["points"]} for line in evidence])]
    return [
        (gate, [{"name": line["candidate"], "points": line["points"]} for line in evidence if line["gate"] == gate])
        for gate in dict.fromkeys(line["gate"] for line in evidence)
    ]


def of_latencies(counts: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """(milliseconds, share of answers that took no longer) of (milliseconds, how many), the shortest first."""
    known = list(counts)
    total, seen = sum(count for _, count in known), 0.0
    points = []
    for ms, count in known:
        seen += count
        points.append((ms, seen / total))
    return [(points[0][0], 0.0), *points] if points else []
