"""What people read of a rollout: one HTML file that needs nothing else, and its twin in JSON with every number."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np

from mlcli.evaluation.page import STYLE, plot, table
from mlcli.evaluation.statistics import newcombe, wilson
from mlcli.rollouts import bandits, drift, effects, latency
from mlcli.rollouts.effects import Cell
from mlcli.rollouts.observe import Analysis, analyze
from mlcli.rollouts.verdict import gate_alpha
from mlcli.store.rollouts import Decided, Rollouts

_ASSUMPTIONS = (
    "The unit of analysis is the unit that is assigned; requests of one unit are not independent.",
    "Bounds and p-values hold over all looks together; the report may be read at any time.",
    "Bounds of means and proportions are asymptotic; they are shown from 25 events in each cell, or 100 units per arm, on.",
    "Phases with different weights are compared one by one; effects are taken to be alike in all of them.",
    "A unit counts when the window of its outcome is over, and only if it did not move to another arm before.",
    "The probability to beat control is a description; no decision is made by it.",
)


def figures(rollouts: Rollouts, name: str, *, as_of_ns: int | None = None) -> dict[str, Any]:
    """Every number of the report."""
    analysis = analyze(rollouts, name, as_of_ns=as_of_ns)
    record = analysis.record
    history = [one for one in reversed(rollouts.decisions(record.key)) if one.batch <= analysis.moment.batch]
    return {
        **analysis.to_dictionary(),
        "state": record.state,
        "invalid": record.invalid,
        "gate_alpha": gate_alpha(analysis.rollout),
        "fixed_horizon": fixed_horizon(analysis),
        "shadow": agreement(rollouts.pairs(record.key, analysis.moment.batch)) if analysis.observed.pairs else None,
        "weights": [one._asdict() for one in rollouts.weights(record.key)],
        "decisions": [_short(one) for one in history],
        "events": [event._asdict() for event in rollouts.events(record.key)],
        "latencies": {
            arm.name: [[latency.middle(number) / 1000, count] for number, count in sorted(traffic.latencies.items())]
            for arm, traffic in zip(analysis.rollout.arms, analysis.observed.traffic, strict=True)
        },
        "assumptions": list(_ASSUMPTIONS),
    }


def _short(one: Decided) -> dict[str, Any]:
    return {
        "ns": one.ns,
        "verdict": one.verdict,
        "rule": one.rule,
        "metrics": [
            {key: metric[key] for key in ("metric", "candidate", "difference", "low", "high")}
            for metric in one.evidence["metrics"]
        ],
        "gates": [{key: gate[key] for key in ("gate", "candidate", "status", "p")} for gate in one.evidence["gates"]],
    }


def fixed_horizon(analysis: Analysis) -> list[dict[str, Any]]:
    """What one look at the planned end would say: right only if nobody looked before, and shown only once it is there."""
    rollout, observed = analysis.rollout, analysis.observed
    found: list[dict[str, Any]] = []
    if rollout.strategy == "bandit":
        return found
    for metric in rollout.metrics:
        if metric.kind != "proportion":
            continue
        phases = observed.cells.get(metric.name, ())
        arms = [_total([phase[arm] for phase in phases]) for arm in range(len(rollout.arms))]
        for arm in range(1, len(arms)):
            control, candidate = arms[0], arms[arm]
            if min(control.n, candidate.n) == 0:
                continue
            xc, xt = round(control.total), round(candidate.total)
            planned = control.n + candidate.n >= rollout.decision.planned_units
            one_phase = sum(any(cell.n for cell in phase) for phase in phases) == 1
            told: dict[str, Any] = {
                "metric": metric.name,
                "candidate": rollout.arms[arm].name,
                "probability_to_beat_control": bandits.best_probabilities(
                    [bandits.beta_posterior(c.total, c.n - c.total) for c in (control, candidate)]
                )[1],
            }
            if planned and one_phase:
                bounds = newcombe(xt, candidate.n, xc, control.n)
                told.update(p=effects.two_proportions(xc, control.n, xt, candidate.n), low=bounds.low, high=bounds.high)
            found.append(told)
    return found


def _total(cells: list[Cell]) -> Cell:
    return Cell(sum(c.n for c in cells), sum(c.total for c in cells), sum(c.squares for c in cells))


def agreement(pairs: list[tuple[Any, ...]]) -> dict[str, Any]:
    """A shadow beside control, request by request: agreement, differences, latencies."""
    both = [pair for pair in pairs if not pair[6]]
    scores = np.array([(pair[1], pair[4]) for pair in both if pair[1] is not None and pair[4] is not None], float)
    same = sum(pair[0] == pair[3] for pair in both)
    found: dict[str, Any] = {"pairs": len(pairs), "errors": len(pairs) - len(both)}
    if both:
        bounds = wilson(same, len(both))
        found["agreement"] = {"share": same / len(both), "low": bounds.low, "high": bounds.high}
        found["p50_ms"] = [float(np.median([pair[column] for pair in both])) / 1000 for column in (2, 5)]
    if len(scores) >= 2:
        kinds = np.unique(scores)
        if len(kinds) <= drift.MAX_LEVELS and np.all(kinds == np.round(kinds)):
            places = np.searchsorted(kinds, scores)
            crossed = np.zeros((len(kinds), len(kinds)), int)
            np.add.at(crossed, (places[:, 0], places[:, 1]), 1)
            n = crossed.sum()
            chance = float((crossed.sum(axis=1) * crossed.sum(axis=0)).sum()) / n**2
            observed = float(np.trace(crossed)) / n
            found["classes"] = [float(kind) for kind in kinds]
            found["table"] = crossed.tolist()
            found["kappa"] = (observed - chance) / (1 - chance) if chance < 1 else 1.0
        else:
            from scipy import stats

            away = scores[:, 1] - scores[:, 0]
            sd = float(away.std(ddof=1))
            found["difference"] = {
                "mean": float(away.mean()),
                "mean_absolute": float(np.abs(away).mean()),
                "limits_of_agreement": [float(away.mean()) - 1.96 * sd, float(away.mean()) + 1.96 * sd],
                "ks": float(stats.ks_2samp(scores[:, 0], scores[:, 1]).statistic),
            }
    return found


# --- HTML


def html(told: dict[str, Any]) -> str:
    """The figures as one page, pictures included."""
    names = [arm["name"] for arm in told["arms"]]
    start = told["weights"][0]["ns"] if told["weights"] else 0
    parts = [
        f"<h1>Rollout {escape(told['rollout'])}</h1>",
        f"<p class=dim>{escape(told['strategy'])}, {escape(told['state'])}</p>",
        f'<p class="{_class(told)}"><b>{escape(told["verdict"])}</b> by the rule {escape(told["rule"])}: {escape(told["reason"])}</p>',
        "<h2>Arms</h2>",
        table(
            ("arm", "model", "weight", "units", "requests", "errors", "p50 ms", "p95 ms", "p99 ms"),
            [
                [
                    arm["name"], arm["model"], f"{arm['weight']:.4g}", str(arm["units"]), str(arm["requests"]),
                    str(arm["errors"]), _text(arm["p50_ms"]), _text(arm["p95_ms"]), _text(arm["p99_ms"]),
                ]
                for arm in told["arms"]
            ],
        ),
    ]  # fmt: skip
    if told["metrics"]:
        rows = [
            [
                m["metric"],
                m["candidate"],
                *(_text(m[key]) for key in ("control", "value", "difference", "low", "high", "p")),
            ]
            for m in told["metrics"]
        ]
        grey = ' class="dim"' if told["verdict"] == "INVALID" else ""
        head = ("metric", "candidate", "control", "value", "difference", "from", "to", "p")
        parts += ["<h2>Metrics</h2>", f"<div{grey}>{table(head, rows)}</div>"]
    if told["gates"]:
        rows = [[gate["gate"], gate["candidate"], gate["status"], gate["detail"]] for gate in told["gates"]]
        parts += ["<h2>Gates</h2>", _of_words(("gate", "candidate", "status", "what"), rows)]
    parts.append(f"<p>Sample ratio: p = {_text(told['sample_ratio'])}; units in two arms: {told['crossed']}</p>")
    if told["shadow"]:
        parts += ["<h2>Shadow</h2>", _of_words(("what", "value"), _flat(told["shadow"]))]
    if told["fixed_horizon"]:
        rows = [
            [
                one["metric"],
                one["candidate"],
                *(_text(one.get(key)) for key in ("probability_to_beat_control", "low", "high", "p")),
            ]
            for one in told["fixed_horizon"]
        ]
        told_of = "A description: bounds and p are right only if nobody looked before, and stand here once all units of the plan came under the same weights."
        columns = ("metric", "candidate", "probability to beat control", "from", "to", "p")
        parts += ["<h2>One look at the planned end</h2>", f"<p class=dim>{told_of}</p>", table(columns, rows)]
    pictures = [("Weights over time", _weights(told["weights"], names, start)), *_histories(told, start), _cdf(told)]
    shown = [
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>" for title, picture in pictures if picture
    ]
    parts += ["<h2>Over time</h2>", f'<div class="pictures">{"".join(shown)}</div>']
    rows = [
        [_since(event["ns"], start), event["kind"], event["state"], event["actor"], event["reason"]]
        for event in told["events"]
    ]
    parts += ["<h2>Events</h2>", _of_words(("after", "event", "state", "by", "reason"), rows)]
    parts += ["<h2>Assumptions</h2>", "<ul>", *(f"<li>{escape(line)}</li>" for line in told["assumptions"]), "</ul>"]
    title = escape(f"rollout {told['rollout']}")
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}{_WORDS}</style>\n{body}\n</html>\n'


_WORDS = ".words td,.words th{text-align:left;white-space:normal}"


def _of_words(head: tuple[str, ...], rows: list[list[str]]) -> str:
    return f'<div class="words">{table(head, rows)}</div>'


def _flat(told: dict[str, Any], before: str = "") -> list[list[str]]:
    """A line for each number or list of them, with the names that lead to it."""
    rows: list[list[str]] = []
    for key, value in told.items():
        name = f"{before}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}, ")
        elif isinstance(value, list):
            rows.append([name, ", ".join(f"{one:.4g}" if isinstance(one, (int, float)) else str(one) for one in value)])
        else:
            rows.append([name, f"{value:.4g}" if isinstance(value, float) else str(value)])
    return rows


def _class(told: dict[str, Any]) -> str:
    return {"PROMOTE": "good", "ROLLBACK": "bad", "INVALID": "bad"}.get(told["verdict"], "warn")


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _since(ns: int, start: int) -> str:
    seconds = (ns - start) / 1e9
    return f"{round(seconds)} s" if abs(seconds) < 7200 else f"{seconds / 3600:.1f} h"


def _weights(weights: list[dict[str, Any]], names: list[str], start: int) -> str:
    """Steps: each weight holds until the next."""
    lines: list[tuple[str, list[tuple[float, float]]]] = []
    for number, name in enumerate(names):
        points: list[tuple[float, float]] = []
        for one in weights:
            at = (one["ns"] - start) / 1e9
            if points:
                points.append((at, points[-1][1]))
            points.append((at, one["weights"][number]))
        if points:
            points.append((points[-1][0] + 1.0, points[-1][1]))
        lines.append((name, points))
    return plot(lines, "seconds", "weight") if weights else ""


def _histories(told: dict[str, Any], start: int) -> list[tuple[str, str]]:
    """Bounds of each metric and evidence of each gate, over time."""
    bounds: dict[str, dict[str, list[tuple[float, float]]]] = {}
    evidence: dict[str, list[tuple[float, float]]] = {}
    for one in told["decisions"]:
        at = (one["ns"] - start) / 1e9
        for metric in one["metrics"]:
            if metric["difference"] is not None:
                lines = bounds.setdefault(f"{metric['metric']}: {metric['candidate']} less control", {})
                for key, label in (("high", "upper bound"), ("difference", "effect"), ("low", "lower bound")):
                    lines.setdefault(label, []).append((at, metric[key]))
        for gate in one["gates"]:
            if gate["p"] is not None:
                evidence.setdefault(f"{gate['gate']}: {gate['candidate']}", []).append(
                    (at, -math.log10(max(gate["p"], 1e-12)))
                )
    found = [
        (title, plot(list(lines.items()), "seconds", "effect", level=0.0))
        for title, lines in bounds.items()
        if len(lines["effect"]) > 1
    ]
    grown = [(title, points) for title, points in evidence.items() if len(points) > 1]
    if grown:
        title, level = "Evidence of harm: -log10 p; a gate fails at the line", -math.log10(told["gate_alpha"])
        found.append((title, plot(grown, "seconds", "evidence", level=level)))
    return found


def _cdf(told: dict[str, Any]) -> tuple[str, str]:
    lines = []
    for name, counts in told["latencies"].items():
        total = sum(count for _, count in counts)
        if total:
            shares = np.cumsum([count for _, count in counts]) / total
            lines.append(
                (name, [(math.log10(ms), float(share)) for (ms, _), share in zip(counts, shares, strict=True)])
            )
    return "Latency: share of answers", plot(lines, "log10 ms", "share") if lines else ""
