"""Runs side by side and in pictures: what differs, which params go with which metric, what images show."""

from __future__ import annotations

from typing import Any

from mlcli.artifacts import open_artifacts
from mlcli.cli import comparison, portrait
from mlcli.entities import Run
from mlcli.errors import MlcliError
from mlcli.importance import importances, numeric
from mlcli.server.pages import Page, Visit, previews
from mlcli.server.pages.charts import chosen_runs
from mlcli.store import Store

MOST_RUNS = 1000
MOST_SIDE_BY_SIDE = 20
MOST_IMAGES = 200
_FILES_WALKED = 2000


def compare(visit: Visit, store: Store) -> Page:
    runs = chosen_runs(visit, store, MOST_RUNS)
    params = portrait.differing([run.data.params for run in runs]) if len(runs) > 1 else []
    metrics = portrait.differing([run.data.metrics for run in runs]) if runs else []
    metric = visit.query.one("metric")
    if metric not in metrics:
        metric = metrics[0] if metrics else ""
    side = runs[:MOST_SIDE_BY_SIDE]
    data: dict[str, Any] = {
        "runs": [
            {
                "run_id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "params": {key: run.data.params[key] for key in params if key in run.data.params},
                "metrics": {key: run.data.metrics[key] for key in metrics if key in run.data.metrics},
            }
            for run in runs
        ],
        "params": params,
        "numeric_params": [key for key in params if numeric([run.data.params.get(key) for run in runs])],
        "metrics": metrics,
        "metric": metric,
        "less": comparison.better_is_less(metric),
        "rows": comparison.compared(side),
        "side": len(side),
        "images": _images(side),
        "importance": [
            item._asdict()
            for item in importances(
                [(run.data.params, run.data.metrics[metric]) for run in runs if metric in run.data.metrics]
            )
        ]
        if metric
        else [],
    }
    return Page("compare.html", "Compare", data)


def _images(runs: list[Run]) -> list[dict[str, Any]]:
    """Image files by their path, with the runs that have them; what most have comes first."""
    owners: dict[str, list[str]] = {}
    for run in runs:
        walked = 0
        try:
            for file in open_artifacts(run.info.artifact_uri).walk():
                walked += 1
                if walked > _FILES_WALKED:
                    break
                if previews.ending(file.path) in previews.IMAGES:
                    owners.setdefault(file.path, []).append(run.info.run_id)
        except MlcliError:
            continue
    found = sorted(owners.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_IMAGES]
    return [{"path": path, "runs": run_ids} for path, run_ids in found]
