"""What an evaluation found, as its run's page shows it; and the evaluations of a version of a model.

The report is a file of the run: anybody who may write a run may have written it, so what does not look like one is left out.
"""

from __future__ import annotations

import csv
import io
import json
import os
from typing import Any

from mlcli.artifacts import LocalArtifacts, open_artifacts
from mlcli.entities import Run
from mlcli.errors import MlcliError
from mlcli.evaluation.offline import REPORT, TAG
from mlcli.evaluation.page import TITLES, caveat, summary
from mlcli.rollouts.offline import DATA, VERSION
from mlcli.server.pages.texts import translated
from mlcli.store import Store

MOST_BYTES = 4 * 1024 * 1024
MOST_POINTS = 400
MOST_CLASSES = 30
MOST_LINES = 10
MOST_RUNS = 20
# The columns across and up, the one that names the line, and which picture it is.
_CURVES = {
    "roc_curve_plot": ("false_positive_rate", "true_positive_rate", "class", "roc"),
    "precision_recall_curve_plot": ("recall", "precision", "class", "precision-recall"),
    "lift_curve_plot": ("share_of_rows", "lift", "", "lift"),
    "calibration_curve_plot": ("predicted", "observed", "", "calibration"),
    "residuals_plot": ("predicted", "residual", "", "residuals"),
}


def of_run(run: Run, language: str) -> dict[str, Any] | None:
    """What the evaluation found, where the run is one that has its report."""
    if TAG not in run.data.tags:
        return None
    try:
        artifacts = open_artifacts(run.info.artifact_uri)
        text = _text(artifacts, REPORT)
        report = json.loads(text) if text else None
    except (MlcliError, ValueError, RecursionError):
        return None
    if not isinstance(report, dict):
        return None
    try:
        return _told(report, language) | {
            "page": artifacts.has("report.html"),
            "curves": _curves(artifacts),
            "confusion": _confusion(artifacts),
        }
    except (KeyError, TypeError, ValueError, AttributeError, MlcliError):  # no report of ours
        return None


def _text(artifacts: LocalArtifacts, name: str) -> str:
    """A file of the run as text; "" where there is none, or it is too long to be one of ours."""
    if not artifacts.has(name):
        return ""
    place = artifacts.path(name)
    if not os.path.isfile(place) or os.path.getsize(place) > MOST_BYTES:
        return ""
    with open(place, encoding="utf-8", errors="replace") as file:
        return file.read()


def _told(report: dict[str, Any], language: str) -> dict[str, Any]:
    return {
        "model": str(report["model"]),
        "summary": summary(report, lambda text, **values: translated(text, language, **values)),
        "caveat": caveat(report),
        "level": float(report["level"]),
        "alpha": float(report["alpha"]),
        "scores": [
            {
                "name": str(name), "value": _number(figure["value"]), "low": _number(figure.get("low")),
                "high": _number(figure.get("high")), "interval": str(figure.get("interval", "")), "std": _number(figure.get("std")),
            }
            for name, figure in report["metrics"].items()
        ],
        "comparisons": [
            {
                "metric": str(item["metric"]), "baseline": str(item["baseline"]), "difference": _number(item["difference"]),
                "low": _number(item["low"]), "high": _number(item["high"]), "test": str(item["test"]),
                "p": _number(item["p_adjusted"]),
                "verdict": ("better" if item["better"] else "worse") if item["significant"] else "not shown",
            }
            for item in report["comparisons"]
        ],
        "holm": len(report["baselines"]) > 1,
        "warnings": [str(line) for line in report["warnings"]],
        "failed": [str(line) for line in report["failed"]],
        "passed": bool(report["thresholds"]) and not report["failed"],
    }  # fmt: skip


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _curves(artifacts: LocalArtifacts) -> list[dict[str, Any]]:
    found = []
    for name, (across, up, label, kind) in _CURVES.items():
        text = _text(artifacts, f"{name}.csv")
        if not text:
            continue
        lines: dict[str, list[tuple[float, float]]] = {}
        try:
            for row in csv.DictReader(io.StringIO(text)):
                lines.setdefault(row[label] if label else "", []).append((float(row[across]), float(row[up])))
        except (KeyError, TypeError, ValueError, csv.Error):
            continue
        kept = [
            {"name": key[:80], "points": _thinned([point for point in points if all(map(_drawable, point))])}
            for key, points in list(lines.items())[:MOST_LINES]
        ]
        if any([line["points"] for line in kept]):
            found.append({"title": TITLES[name], "across": across, "up": up, "lines": kept, "kind": kind})
    return found


def _drawable(value: float) -> bool:
    return abs(value) < 1e300  # no NaN either


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(place * step)] for place in range(MOST_POINTS)]


def _confusion(artifacts: LocalArtifacts) -> dict[str, Any] | None:
    """How often each class was taken for which."""
    text = _text(artifacts, "confusion_matrix.csv")
    try:
        rows = list(csv.reader(io.StringIO(text)))
        if not 2 < len(rows) <= MOST_CLASSES + 1:
            return None
        counts = [[int(cell) for cell in row[1:]] for row in rows[1:]]
    except (ValueError, csv.Error):
        return None
    return {
        "classes": rows[0][1:],
        "rows": [{"name": row[0], "counts": c} for row, c in zip(rows[1:], counts, strict=True)],
    }


def of_version(store: Store, model: str, version: str) -> list[dict[str, Any]]:
    """The newest evaluations of a version of a model, with the scores that have an interval first."""
    name = f"{model}/{version}".replace("'", "''")
    everywhere = [experiment.experiment_id for experiment in store.search_experiments()]
    runs = store.search_runs(
        everywhere,
        f"tags.`{VERSION}` = '{name}'",
        order_by=["attributes.start_time DESC"],
        max_results=MOST_RUNS,
    )
    return [
        {
            "run_id": run.info.run_id,
            "name": run.info.run_name,
            "status": run.info.status,
            "method": run.data.tags.get(TAG, ""),
            "data": run.data.tags.get(DATA, ""),
            "passed": {"true": True, "false": False}.get(run.data.tags.get(f"{TAG}.passed", "")),
            "time": run.info.end_time or run.info.start_time,
            "scores": _scores(dict(run.data.metrics)),
        }
        for run in runs
    ]


def _scores(metrics: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"name": key, "value": value, "low": metrics[f"{key}_ci_low"], "high": metrics[f"{key}_ci_high"]}
        for key, value in sorted(metrics.items())
        if f"{key}_ci_low" in metrics and f"{key}_ci_high" in metrics
    ]
