"""Rollouts: which there are, how one stands and why, and what its weights, intervals and gates did over time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from mlcli.rollouts import lifecycle
from mlcli.rollouts.models import described
from mlcli.rollouts.rolloutfile import Rollout
from mlcli.server.pages import Page, Visit
from mlcli.store import Store
from mlcli.store.rollouts import DRAFT, PAUSED, RUNNING, Decided, Model, RolloutRecord, Rollouts, Weights

MOST_POINTS = 300  # of a course: more than that a picture does not show
MOST_EVENTS = 200
MOST_PAIRS = 100_000  # of a shadow, compared one by one
SIZE = 50
_FRESH = 10.0  # seconds: windows and pauses pass by without any traffic
_SHARE = 10.0  # an analysis that took so long is asked for again after so many times that
_MOST_KEPT = 64


class Worked(NamedTuple):
    """What an analysis said, of what state of things, and what it cost."""

    of: tuple[Any, ...]
    state: tuple[Any, ...]
    at: float
    took: float
    told: dict[str, Any]


_kept: dict[tuple[str, str, int], Worked] = {}
_one_at_a_time = threading.Lock()


def listing(visit: Visit, store: Store) -> Page:
    rollouts = Rollouts(store)
    everything = rollouts.list()
    pages = max(-(-len(everything) // SIZE), 1)
    page = visit.query.whole("page", 1, 1, pages)
    shown = everything[(page - 1) * SIZE : page * SIZE]
    data = {
        "rollouts": [_line(rollouts, record) for record in shown],
        "live": any([record.state in (RUNNING, PAUSED) for record in shown]),
        "total": len(everything),
        "page": page,
        "pages": pages,
    }
    return Page("rollouts.html", "Rollouts", data, "live" if visit.query.one("part") == "live" else "")


def _line(rollouts: Rollouts, record: RolloutRecord) -> dict[str, Any]:
    rollout = lifecycle.spec_of(record)
    newest = rollouts.decisions(record.key, 1)
    return {
        **_head(record, rollout),
        "arms": [arm.name for arm in rollout.arms],
        "weights": _weights_now(rollout, rollouts.in_force(record.key)[1]),
        "verdict": newest[0].verdict if newest else None,
        "rule": newest[0].rule if newest else None,
    }


def _head(record: RolloutRecord, rollout: Rollout) -> dict[str, Any]:
    return {
        "name": record.name,
        "state": record.state,
        "invalid": record.invalid,
        "strategy": rollout.strategy,
        "step": record.step if rollout.strategy == "canary" and record.step >= 0 else None,
        "steps": len(rollout.steps) if rollout.strategy == "canary" else None,
        "created": _ms(record.created_ns),
        "started": _ms(record.started_ns),
        "ended": _ms(record.ended_ns),
    }


def _ms(ns: int) -> int | None:
    return ns // 1_000_000 if ns else None


def _weights_now(rollout: Rollout, in_force: Weights | None) -> list[float]:
    return list(in_force.weights) if in_force else [1.0] + [0.0] * len(rollout.candidates)


def rollout(visit: Visit, store: Store) -> Page:
    rollouts = Rollouts(store)
    record = rollouts.get(visit.given["name"])
    spec = lifecycle.spec_of(record)
    weights = rollouts.weights(record.key)
    told, problem = (None, "") if record.state == DRAFT else _worked(store, rollouts, record)
    newest = rollouts.decisions(record.key, 1)
    until = record.ended_ns or time.time_ns()
    start = weights[0].ns if weights else until
    events = rollouts.events(record.key)
    data = {
        "rollout": _head(record, spec),
        "live": record.state in (RUNNING, PAUSED),
        "may_promote": record.state in (RUNNING, PAUSED),
        "controlled": record.controller_until_ns > time.time_ns(),
        "arms": told["arms"] if told else _bare_arms(spec, weights, rollouts.models(record.key)),
        "judged": told or (dict(newest[0].evidence) | _decided(newest[0]) if newest else None),
        "problem": problem,
        "limits": {
            "srm_alpha": spec.decision.srm_alpha,
        },
        "shadow": told["shadow"] if told else None,
        "courses": {
            "weights": _courses_of_weights(spec, weights, start, until),
            **_courses_of_decisions(rollouts.course(record.key, MOST_POINTS), start),
        },
        "events": [
            {"time": _ms(event.ns), "kind": event.kind, "state": event.state, "actor": event.actor, "reason": event.reason}
            for event in reversed(events[-MOST_EVENTS:])
        ],
        "more_events": max(len(events) - MOST_EVENTS, 0),
        "candidates": [arm.name for arm in spec.candidates],
        "spec": record.spec,
    }  # fmt: skip
    return Page("rollout.html", record.name, data, "live" if visit.query.one("part") == "live" else "")


def _decided(one: Decided) -> dict[str, Any]:
    return {"verdict": one.verdict, "rule": one.rule, "batch": one.batch, "as_of_ns": one.ns}


def _bare_arms(spec: Rollout, weights: list[Weights], models: Sequence[Model | None]) -> list[dict[str, Any]]:
    """The arms where nothing is counted yet."""
    shares = _weights_now(spec, weights[-1] if weights else None)
    nothing = dict.fromkeys(("units", "requests", "errors", "lost", "p50_ms", "p95_ms", "p99_ms"))
    return [{**arm, "weight": share, **nothing} for arm, share in zip(described(spec, models), shares, strict=True)]


def _worked(store: Store, rollouts: Rollouts, record: RolloutRecord) -> tuple[dict[str, Any] | None, str]:
    """The analysis of a rollout, or why there is none now.

    It may take seconds, so only one is worked out at a time, and it is kept: while the state is the same, until there is a
    new batch; while traffic comes, for ten times as long as it took. Who asks meanwhile gets the one before.
    """
    place = (str(store.root), record.name, record.created_ns)
    state = (record.state, record.invalid, record.version, record.step)
    of = (*rollouts.newest(record.key), *state)
    had = _kept.get(place)
    now = time.monotonic()
    if had and had.state == state:
        age = now - had.at
        if (had.of == of and (record.ended_ns or age < _FRESH)) or age < _SHARE * had.took:
            return had.told, ""
    if not _one_at_a_time.acquire(blocking=False):
        return (had.told, "") if had else (None, "busy")
    try:
        from mlcli.rollouts import report
        from mlcli.rollouts.observe import analyze
        from mlcli.rollouts.verdict import gate_alpha
    except ImportError:
        return None, "libraries"
    else:
        analysis = analyze(rollouts, record.name)
        pairs = analysis.observed.pairs
        told = {
            **analysis.to_dictionary(),
            "gate_alpha": gate_alpha(analysis.rollout),
            "fixed_horizon": report.fixed_horizon(analysis),
            "shadow": report.agreement(rollouts.pairs(record.key, analysis.moment.batch))
            if 0 < pairs <= MOST_PAIRS
            else {"pairs": pairs}
            if pairs
            else None,
        }
        while len(_kept) >= _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[place] = Worked(of, state, time.monotonic(), time.monotonic() - now, told)
        return told, ""
    finally:
        _one_at_a_time.release()


# -- over time: seconds since the first weights


def _courses_of_weights(spec: Rollout, weights: list[Weights], start: int, until: int) -> list[dict[str, Any]]:
    """Each weight holds until the next."""
    step = -(-len(weights) // MOST_POINTS) or 1
    kept = [one for number, one in enumerate(weights) if number % step == 0 or one is weights[-1]]
    lines = [(arm.name, [one.weights[number] for one in kept]) for number, arm in enumerate(spec.arms)]
    if any([one.shadow for one in kept]):
        lines.append(("shadow", [one.shadow for one in kept]))
    end = _seconds(max([until, *(one.ns for one in weights)]), start)
    return [
        {
            "name": name,
            "points": [*zip([_seconds(one.ns, start) for one in kept], shares, strict=True), (end, shares[-1])],
        }
        for name, shares in lines
        if shares
    ]


def _seconds(ns: int, start: int) -> float:
    return round((ns - start) / 1e9, 3)


def _courses_of_decisions(history: list[Decided], start: int) -> dict[str, list[dict[str, Any]]]:
    """Effects with their bounds, per metric and candidate; the evidence against each gate, 1/p."""
    bounds: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    evidence: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in history:
        at = _seconds(one.ns, start)
        for metric in one.evidence.get("metrics", ()):
            if None not in (metric["difference"], metric["low"], metric["high"]):
                point = (at, metric["low"], metric["difference"], metric["high"])
                bounds.setdefault((metric["metric"], metric["candidate"]), []).append(point)
        for gate in one.evidence.get("gates", ()):
            if gate["p"] is not None:
                against = (at, 1 / max(gate["p"], 1e-12))
                evidence.setdefault((gate["gate"], gate["candidate"]), []).append(against)
    return {
        "intervals": [
            {"metric": metric, "candidate": candidate, "points": points}
            for (metric, candidate), points in bounds.items()
            if len(points) > 1
        ],
        "evidence": [
            {"name": f"{gate}: {candidate}", "points": points}
            for (gate, candidate), points in evidence.items()
            if len(points) > 1
        ],
    }


# -- beside a version of a model


def of_version(store: Store, model: str, version: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    """The rollouts that a version was, or is, a candidate in: what became of it, and what goes on."""
    rollouts = Rollouts(store)
    uri = f"models:/{model}/{version}"
    found: dict[str, dict[str, Any]] = {}
    for record in rollouts.list():
        spec = lifecycle.spec_of(record)
        for arm, has in zip(spec.arms, described(spec, rollouts.models(record.key)), strict=True):
            if has["model"] == uri:
                newest = rollouts.decisions(record.key, 1)
                found[record.name] = {
                    **_head(record, spec), "arm": arm.name, "here": True, "reason": "", "candidate": arm != spec.control,
                    "verdict": newest[0].verdict if newest else None,
                }  # fmt: skip
    for key, value in tags.items():
        if not key.startswith(lifecycle.TAG):
            continue
        try:
            told = json.loads(value)
        except ValueError:
            continue
        if not isinstance(told, dict):
            continue
        name = key[len(lifecycle.TAG) :]
        line = found.setdefault(
            name, {"name": name, "state": "", "strategy": "", "arm": "", "here": False, "candidate": True}
        )
        line |= {"verdict": str(told.get("verdict", "")), "reason": str(told.get("reason", ""))}
    return list(found.values())
