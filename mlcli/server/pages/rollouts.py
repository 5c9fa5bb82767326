"""Rollouts: which there are, how one stands and why, and what its weights, intervals and gates did over time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlcli.rollouts import courses, latency, lifecycle
from mlcli.rollouts.models import described
from mlcli.rollouts.rolloutfile import Rollout
from mlcli.server.pages import Page, Visit
from mlcli.store import Store
from mlcli.store.rollouts import DRAFT, PAUSED, RUNNING, Decided, Model, RolloutRecord, Rollouts, Weights

if TYPE_CHECKING:
    from mlcli.rollouts.observe import Analysis

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
    names = [arm.name for arm in spec.arms]
    weights = rollouts.weights(record.key)
    told, problem = (None, "") if record.state == DRAFT else _worked(store, rollouts, record)
    newest = rollouts.decisions(record.key, 1)
    history = rollouts.course(record.key, courses.MOST_POINTS)
    start = weights[0].ns if weights else record.created_ns
    until = max(
        [start, *(one.ns for one in weights), *(one.ns for one in history)]
    )  # nothing is known of the time since
    events = rollouts.events(record.key)
    data = {
        "rollout": _head(record, spec),
        "live": record.state in (RUNNING, PAUSED),
        "may_promote": record.state in (RUNNING, PAUSED),
        "controlled": record.controller_until_ns > time.time_ns(),
        "arms": told["arms"]
        if told
        else _arms_known(
            spec, weights, rollouts.models(record.key), newest[0].evidence.get("arms", []) if newest else []
        ),
        "judged": told or (dict(newest[0].evidence) | _decided(newest[0]) if newest else None),
        "problem": problem,
        "limits": {
            "srm_alpha": spec.decision.srm_alpha,
        },
        "shadow": told["shadow"] if told else None,
        "courses": {
            "span": (0.0, courses.seconds(until, start)),
            "weights": courses.of_weights(weights, names, start, until),
            **courses.of_decisions(history, start, names),
            "latencies": told["latencies"] if told else [],
        },
        "events": [
            {
                "time": _ms(event.ns), "kind": event.kind, "state": event.state, "actor": event.actor, "reason": event.reason,
                "said": event.evidence.get("said") if isinstance(event.evidence, dict) else None,
            }
            for event in reversed(events[-MOST_EVENTS:])
        ],
        "more_events": max(len(events) - MOST_EVENTS, 0),
        "candidates": [arm.name for arm in spec.candidates],
        "spec": record.spec,
    }  # fmt: skip
    return Page("rollout.html", record.name, data, "live" if visit.query.one("part") == "live" else "", named=True)


def _decided(one: Decided) -> dict[str, Any]:
    return {"verdict": one.verdict, "rule": one.rule, "batch": one.batch, "as_of_ns": one.ns}


def _arms_known(
    spec: Rollout, weights: list[Weights], models: Sequence[Model | None], counted: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The arms with their models, their weights now and what the last verdict counted, if there is one."""
    shares = _weights_now(spec, weights[-1] if weights else None)
    nothing = dict.fromkeys(("units", "requests", "errors", "lost", "p50_ms", "p95_ms", "p99_ms"))
    known = {arm["name"]: arm for arm in counted}
    return [
        {**nothing, **known.get(arm["name"], {}), **arm, "weight": share}
        for arm, share in zip(described(spec, models), shares, strict=True)
    ]


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
            "latencies": _latencies(analysis),
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


def _latencies(analysis: Analysis) -> list[dict[str, Any]]:
    """For each arm that answered, which share of its answers took no longer than so many milliseconds."""
    counted = zip(analysis.rollout.arms, analysis.observed.traffic, strict=True)
    return [
        {
            "name": arm.name,
            "points": courses.of_latencies(
                [(round(latency.middle(one) / 1000, 3), count) for one, count in sorted(traffic.latencies.items())]
            ),
        }
        for arm, traffic in counted
        if traffic.latencies
    ]


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
                    **_head(record, spec), "arm": arm.name, "here": True, "reason": "", "said": None, "candidate": arm != spec.control,
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
        said = told.get("said")
        line |= {
            "verdict": str(told.get("verdict", "")), "reason": str(told.get("reason", "")),
            "said": said if isinstance(said, dict) else None,
        }  # fmt: skip
    return list(found.values())
