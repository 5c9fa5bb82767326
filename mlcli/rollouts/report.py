"""What people read of a rollout: one HTML file that needs nothing else, and its twin in JSON with every number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

import numpy as np

from mlcli.evaluation.page import document, figure, table
from mlcli.evaluation.pictures import picture
from mlcli.evaluation.statistics import holm, wilson
from mlcli.rollouts import bandits, courses, drift, effects, latency
from mlcli.rollouts.observe import Analysis, analyze, finite
from mlcli.rollouts.verdict import gate_alpha
from mlcli.store.rollouts import Decided, Rollouts, Weights

MOST_CLASSES = 20
BINS = 10
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
    weights = rollouts.weights(record.key, as_of_ns)
    names = [arm.name for arm in analysis.rollout.arms]
    batch, until = analysis.moment
    history = [one for one in reversed(rollouts.decisions(record.key)) if one.batch <= batch]
    drawn = [one for one in rollouts.course(record.key, courses.MOST_POINTS) if one.batch <= batch]
    return {
        **analysis.to_dictionary(),
        "state": record.state,
        "invalid": record.invalid,
        "gate_alpha": gate_alpha(analysis.rollout),
        "fixed_horizon": fixed_horizon(analysis),
        "shadow": agreement(rollouts.pairs(record.key, batch)) if analysis.observed.pairs else None,
        "weights": [one._asdict() for one in weights],
        "decisions": [_short(one) for one in history],
        "courses": courses.of_decisions(drawn, weights[0].ns if weights else 0, names),
        "labels": labels(rollouts, analysis),
        "events": [event._asdict() for event in rollouts.events(record.key) if event.ns <= until],
        "latencies": {
            name: [[latency.middle(number) / 1000, count] for number, count in sorted(traffic.latencies.items())]
            for name, traffic in zip(names, analysis.observed.traffic, strict=True)
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
    """What one look at the planned end would say: right only if nobody looked before, and shown only once it is there.

    P-values of several candidates are raised by Holm. The probability to beat control describes and decides nothing; there
    is one only where the weights never changed, because pooled phases may turn it around.
    """
    rollout, observed = analysis.rollout, analysis.observed
    found: list[dict[str, Any]] = []
    if rollout.strategy == "bandit":
        return found
    for metric in rollout.metrics:
        if metric.kind not in ("proportion", "mean"):
            continue
        binary, phases = metric.kind == "proportion", observed.cells.get(metric.name, ())
        planned = sum(cell.n for phase in phases for cell in phase) >= rollout.decision.planned_units
        here: list[dict[str, Any]] = []
        for arm in range(1, len(rollout.arms)):
            pairs = [(phase[0], phase[arm]) for phase in phases if phase[0].n and phase[arm].n]
            contrast = effects.one_look(pairs, binary=binary)
            if contrast is None:
                continue
            told: dict[str, Any] = {}
            if binary and len(pairs) == 1:
                told["probability_to_beat_control"] = bandits.best_probabilities(
                    [bandits.beta_posterior(cell.total, cell.n - cell.total) for cell in pairs[0]]
                )[1]
            if planned:
                told.update({key: finite(value) for key, value in contrast._asdict().items()})
            if told:
                here.append({"metric": metric.name, "candidate": rollout.arms[arm].name, **told})
        tested = [told for told in here if told.get("p") is not None]
        for told, p in zip(tested, holm([told["p"] for told in tested]), strict=True):
            told["p"] = p
        found += here
    return found


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


def labels(rollouts: Rollouts, analysis: Analysis) -> list[dict[str, Any]]:
    """What each arm predicted beside what came true, for each outcome that is the truth of a request.

    Few whole numbers are classes: how often each was taken for which. Of others the means of ten groups by what was
    predicted, which show whether predictions mean what they say.
    """
    found = []
    for metric in analysis.rollout.metrics:
        if metric.source != "loss":
            continue
        rows = np.array(rollouts.labels(analysis.record.key, analysis.moment.batch, metric.key), float).reshape(-1, 4)
        by_arm = [(arm.name, rows[rows[:, 0] == number, 1:]) for number, arm in enumerate(analysis.rollout.arms)]
        known = [(name, of) for name, of in by_arm if len(of)]
        kinds = np.unique(rows[:, 1:3])
        if not known:
            continue
        if len(kinds) <= MOST_CLASSES and np.all(kinds == np.round(kinds)):
            arms = [{"name": name, "table": _table(of, kinds)} for name, of in known]
            found.append({"metric": metric.name, "classes": kinds.tolist(), "arms": arms})
        else:
            found.append({"metric": metric.name, "arms": [{"name": name, "bins": _bins(of)} for name, of in known]})
    return found


def _table(rows: Any, kinds: Any) -> list[list[int]]:
    """Predicted down, true across; rows are (predicted, true, how many)."""
    counts = np.zeros((len(kinds), len(kinds)), int)
    np.add.at(counts, tuple(np.searchsorted(kinds, rows[:, :2]).T), rows[:, 2].astype(int))
    found: list[list[int]] = counts.tolist()
    return found


def _bins(rows: Any) -> list[tuple[float, float]]:
    """Means of predicted and true in groups of like size, of one prediction at least."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    before = np.cumsum(rows[:, 2]) - rows[:, 2]
    group = np.minimum((before / rows[:, 2].sum() * BINS).astype(int), BINS - 1)
    parts = [rows[group == number] for number in range(BINS)]
    return [
        (float(np.average(part[:, 0], weights=part[:, 2])), float(np.average(part[:, 1], weights=part[:, 2])))
        for part in parts
        if len(part)
    ]


# --- HTML


def html(told: dict[str, Any]) -> str:
    """The figures as one page, pictures included."""
    names = [arm["name"] for arm in told["arms"]]
    start = told["weights"][0]["ns"] if told["weights"] else 0
    end = max([one["ns"] for one in (*told["weights"], *told["decisions"])], default=start)
    parts = [
        f"<h1>Rollout {escape(told['rollout'])}</h1>",
        f"<p class=dim>{escape(told['strategy'])}, {escape(told['state'])}; as of {_moment(told['as_of_ns'])}</p>",
        f'<p class="{_class(told)}"><b>{escape(told["verdict"])}</b> by the rule {escape(told["rule"])}: {escape(told["reason"])}</p>',
        "<h2>Arms</h2>",
        table(
            ("arm", "model", "weight", "units", "requests", "errors", "lost", "p50 ms", "p95 ms", "p99 ms"),
            [
                [
                    arm["name"], arm["model"], f"{arm['weight'] * 100:.4g} %", f"{arm['units']:,}", f"{arm['requests']:,}",
                    _counted(arm["errors"], arm["requests"]), f"{arm['lost']:,}",
                    _text(arm["p50_ms"]), _text(arm["p95_ms"]), _text(arm["p99_ms"]),
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
                f"{m['n']:,}",
            ]
            for m in told["metrics"]
        ]
        untrusted = told["verdict"] == "INVALID"
        head = ("metric", "candidate", "control", "value", "difference", "from", "to", "p", "units")
        parts += ["<h2>Metrics</h2>", table(head, rows, "untrusted" if untrusted else "")]
        if untrusted:
            parts.append('<p class="bad">The numbers cannot be trusted while the verdict is INVALID.</p>')
    if told["gates"]:
        rows = [
            [gate["gate"], gate["candidate"], gate["status"], _text(gate["p"]), gate["detail"]]
            for gate in told["gates"]
        ]
        parts += ["<h2>Gates</h2>", table(("gate", "candidate", "status", "p", "what"), rows, "words")]
    chi2 = told["sample_ratio_chi2"]
    pearson = "" if chi2 is None else f" (one look, chi-square: p = {_text(chi2)})"
    parts.append(
        f"<p>Sample ratio: p = {_text(told['sample_ratio'])}{pearson}; units in two arms: {told['crossed']}</p>"
    )
    if told["shadow"]:
        parts += ["<h2>Shadow</h2>", *_of_shadow(told["shadow"])]
    if told["fixed_horizon"]:
        rows = [
            [
                one["metric"],
                one["candidate"],
                *(_text(one.get(key)) for key in ("probability_to_beat_control", "difference", "low", "high", "p")),
            ]
            for one in told["fixed_horizon"]
        ]
        told_of = "A description: bounds and p are right only if nobody looked before, and stand here once the units of the plan have come. Phases with different weights are compared one by one; p of several candidates are raised by Holm."
        columns = ("metric", "candidate", "probability to beat control", "difference", "from", "to", "p")
        parts += ["<h2>One look at the planned end</h2>", f"<p class=dim>{told_of}</p>", table(columns, rows)]
    shown = "".join([*_over_time(told, names, start, end), _latencies(told), *_of_labels(told["labels"])])
    if shown:
        parts += ["<h2>Pictures</h2>", f'<div class="pictures">{shown}</div>']
    rows = [
        [_since(event["ns"], start), event["kind"], event["state"], event["actor"], event["reason"]]
        for event in told["events"]
    ]
    parts += ["<h2>Events</h2>", table(("after", "event", "state", "by", "reason"), rows, "words")]
    parts += ["<h2>Assumptions</h2>", "<ul>", *(f"<li>{escape(line)}</li>" for line in told["assumptions"]), "</ul>"]
    return document(f"Rollout {told['rollout']}", parts)


def _moment(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _counted(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole * 100:.3g} %)" if whole else f"{part:,}"


def _class(told: dict[str, Any]) -> str:
    return {"PROMOTE": "good", "ROLLBACK": "bad", "INVALID": "bad"}.get(told["verdict"], "warn")


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _since(ns: int, start: int) -> str:
    """How long after the start; of what came before it, nothing."""
    took = (ns - start) / 1e9
    if took < 0:
        return "–"
    return f"{took:.0f} s" if took < 120 else f"{took / 60:.1f} min" if took < 7200 else f"{took / 3600:.1f} h"


def _of_shadow(told: dict[str, Any]) -> list[str]:
    """The numbers of a shadow, each on a line, and its table of classes."""
    rows: list[list[str]] = []

    def add(before: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            name = f"{before}{key.replace('_', ' ')}"
            if isinstance(value, dict):
                add(f"{name}, ", value)
            elif isinstance(value, list):
                rows.append([name, ", ".join(_text(one) for one in value)])
            else:
                rows.append([name, _text(value)])

    add("", {key: value for key, value in told.items() if key not in ("classes", "table")})
    parts = [table(("what", "value"), rows, "words")]
    if "table" in told and len(told["classes"]) <= MOST_CLASSES:
        parts.append(_crossed("control / shadow", told["classes"], told["table"]))
    return parts


def _crossed(corner: str, classes: Sequence[float], counts: Sequence[Sequence[int]]) -> str:
    """Down the one, across the other."""
    names = [_text(one) for one in classes]
    return table(
        (corner, *names), [[name, *(f"{n:,}" for n in line)] for name, line in zip(names, counts, strict=True)]
    )


def _over_time(told: dict[str, Any], names: Sequence[str], start: int, end: int) -> list[str]:
    """Weights, bounds of each metric, evidence against each gate: all over the same time."""
    whole = (0.0, courses.seconds(end, start))
    weights = courses.of_weights([Weights(**one) for one in told["weights"]], names, start, end)
    drawn = [figure("Weights over time", picture(weights, across="time", up="share", span=whole, steps=True))]
    for one in told["courses"]["intervals"]:
        made = picture([{"name": "", "points": one["points"]}], across="time", span=whole, band=True, level=0.0)
        drawn.append(figure(f"{one['metric']}: {one['candidate']} less control", made, "difference with its bounds"))
    limit = 1 / told["gate_alpha"]
    for gate, lines in courses.evidence_pictures(told["courses"]["evidence"]):
        made = picture(lines, across="time", up="log", span=whole, level=limit, names=("", "1/p"))
        title = f"Evidence of harm: {gate}" if gate else "Evidence of harm"
        drawn.append(figure(title, made, f"1/p; a gate is broken beyond the dashed line, 1/α = {limit:,.0f}"))
    return drawn


def _latencies(told: dict[str, Any]) -> str:
    lines = [
        {"name": name, "points": courses.of_latencies(counts)} for name, counts in told["latencies"].items() if counts
    ]
    made = picture(lines, across="log", up="share", names=("ms", ""))
    return figure("Latency", made, "share of answers that took no longer")


def _of_labels(labels: Sequence[dict[str, Any]]) -> list[str]:
    """Confusion of each arm, or how what was predicted and what came true go together."""
    found = []
    for one in labels:
        if "classes" in one:
            for arm in one["arms"]:
                crossed = _crossed("predicted / true", one["classes"], arm["table"])
                found.append(
                    f"<figure><figcaption>{escape(one['metric'])}: {escape(arm['name'])}</figcaption>{crossed}</figure>"
                )
        else:
            made = picture(
                [{"name": arm["name"], "points": arm["bins"]} for arm in one["arms"]],
                names=("predicted", "observed"), diagonal=True, marks=True,
            )  # fmt: skip
            found.append(figure(f"{one['metric']}: calibration", made, "means of ten groups by what was predicted"))
    return found
