"""One run: what it was and how it ended, its curves, its files, what it wrote, the runs inside it."""

from __future__ import annotations

import codecs
import os
import re
from typing import Any

from mlcli.artifacts import open_artifacts
from mlcli.cli import portrait
from mlcli.cli.portrait import LOG, NOTE, PARENT
from mlcli.curves import stretched
from mlcli.entities import Run, RunStatus
from mlcli.errors import InvalidInput, MlcliError, NotFound
from mlcli.registry import models_of_run
from mlcli.server.pages import Page, Visit, evaluations, previews
from mlcli.store import Store, survey

_TOLD_BY_TIME = ("run", "started", "took", "running for", "folder", "experiment")
MOST_CHILDREN = 200
MOST_COURSES = 100
_STRETCHES = 50
TAIL = 256 * 1024  # bytes of a log that are shown at once


def overview(visit: Visit, store: Store) -> Page:
    run = store.get_run(visit.given["run_id"])
    experiment = store.get_experiment(run.info.experiment_id)
    data = {
        **head(store, run),
        "facts": {
            name: value
            for name, value in portrait.facts(run, experiment)
            if value is not None and name not in _TOLD_BY_TIME
        },
        "folder": "" if visit.server.auth.required else run.info.artifact_uri,
        "note": run.data.tags.get(NOTE, ""),
        "params": dict(sorted(run.data.params.items())),
        "metrics": _metrics(store, run),
        "tags": {
            key: value
            for key, value in sorted(run.data.tags.items())
            if key not in portrait.TOLD and not key.startswith(("mlflow.", "mlcli."))
        },
        "system_tags": {
            key: value
            for key, value in sorted(run.data.tags.items())
            if key not in portrait.TOLD and key.startswith(("mlflow.", "mlcli."))
        },
        "datasets": [
            {"name": item.dataset.name, "digest": item.dataset.digest, "context": item.tags.get("mlflow.data.context", "")}
            for item in run.inputs.dataset_inputs
        ],
        "children": [
            {"run_id": child.info.run_id, "name": child.info.run_name, "status": child.info.status,
             "start_time": child.info.start_time, "duration_ms": portrait.took(child), "metrics": dict(child.data.metrics)}
            for child in store.search_runs(
                filter_string=f"tags.`{PARENT}` = '{run.info.run_id}'", order_by=["start_time ASC"],
                max_results=MOST_CHILDREN,
            )
        ],
        "models": _models(store, run),
        "evaluation": evaluations.of_run(run, visit.language),
        "patch": _has(run, "code/diff.patch"),
        "lock": _has(run, "environment/requirements.txt"),
    }  # fmt: skip
    return Page("run.html", run.info.run_name, data, "live" if visit.query.one("part") == "live" else "", named=True)


def head(store: Store, run: Run) -> dict[str, Any]:
    """What stands at the top of every page of a run."""
    info, tags = run.info, run.data.tags
    parent = tags.get(PARENT)
    return {
        "run": {
            "run_id": info.run_id,
            "name": info.run_name,
            "status": info.status,
            "experiment_id": info.experiment_id,
            "start_time": info.start_time,
            "end_time": info.end_time,
            "duration_ms": portrait.took(run),
            "lifecycle_stage": info.lifecycle_stage,
            "end_reason": tags.get("mlcli.end_reason", ""),
        },
        "experiment": {"experiment_id": info.experiment_id, "name": store.get_experiment(info.experiment_id).name},
        "parent": {"run_id": parent, "name": _name_of(store, parent)} if parent else None,
        "live": not RunStatus.is_terminated(info.status),
    }


def _name_of(store: Store, run_id: str) -> str:
    try:
        return store.get_run(run_id).info.run_name
    except NotFound:
        return run_id[:8]


def _metrics(store: Store, run: Run) -> list[dict[str, Any]]:
    """Each metric with its latest value and, where it has several points, its range and its course."""
    result: list[dict[str, Any]] = []
    ranges = survey.ranges(store, run.info.run_id)
    latest = {point.key: point for point in getattr(run.data.metrics, "points", ())}
    for key, value in sorted(run.data.metrics.items()):
        row: dict[str, Any] = {"key": key, "value": value, "step": latest[key].step if key in latest else 0}
        course = _course(store, survey.Curve(run.info.run_id, key)) if len(result) < MOST_COURSES else []
        if len(course) > 1:
            least, greatest = ranges.get(key, (None, None))
            row |= {"least": least, "greatest": greatest, "course": course}
        result.append(row)
    return result


def _course(store: Store, curve: survey.Curve) -> list[float]:
    """The values of a metric, of many points the extremes of stretches: as many as a small picture shows."""
    extent = curve.extent(store, 2 * _STRETCHES)
    if extent is None or not extent.more:
        return [value for _, value in curve.points(store)] if extent else []
    width = -(-(extent.last - extent.first + 1) // _STRETCHES)
    return [
        value for value in stretched([curve.thinned(store, extent.first, width)], _STRETCHES)[0] if value is not None
    ]


def _has(run: Run, path: str) -> bool:
    try:
        return open_artifacts(run.info.artifact_uri).has(path)
    except MlcliError:
        return False


def _models(store: Store, run: Run) -> list[dict[str, Any]]:
    """The models that the run made, and what was registered of them."""
    try:
        files = open_artifacts(run.info.artifact_uri).walk()
    except MlcliError:
        files = []
    return [
        {
            "name": model.path or model.uri,
            "uri": model.uri,
            "code": previews.code_for(model.uri),
            "versions": [
                {"name": version.name, "version": version.version, "aliases": list(version.aliases)}
                for version in model.versions
            ],
        }
        for model in models_of_run(store, run, files)
    ]


def charts(visit: Visit, store: Store) -> Page:
    run = store.get_run(visit.given["run_id"])
    points = getattr(run.data.metrics, "points", ())
    keys = sorted(run.data.metrics)
    many = [point.key for point in points if point.step] or keys
    data = {**head(store, run), "metrics": keys, "shown": [key for key in keys if key in set(many)][:24]}
    return Page("run_charts.html", run.info.run_name, data, named=True)


def artifacts(visit: Visit, store: Store) -> Page:
    run = store.get_run(visit.given["run_id"])
    path = visit.query.one("path").strip("/")
    root = open_artifacts(run.info.artifact_uri)
    try:
        shown = previews.preview(root, path, f"runs:/{run.info.run_id}") if path else None
    except MlcliError as error:
        shown = {"kind": "problem", "message": error.message, "path": path}
    folder = path if shown and shown["kind"] in ("folder", "model") else path.rpartition("/")[0]
    try:
        levels = _levels(root, folder)
    except MlcliError as error:
        raise InvalidInput(error.message) from error
    data = {**head(store, run), "path_shown": path, "levels": levels, "preview": shown}
    return Page("run_artifacts.html", run.info.run_name, data, named=True)


def _levels(root: Any, folder: str) -> list[dict[str, Any]]:
    """What is in the artifacts and in each folder on the way to ``folder``: a tree of which one branch is open."""
    result: list[dict[str, Any]] = []

    def walk(place: str, depth: int) -> None:
        try:
            entries = root.list(place)
        except NotFound:
            return
        for item in sorted(entries, key=lambda entry: (not entry.is_dir, entry.path)):
            if item.path == place:
                continue
            is_open = item.is_dir and (folder == item.path or folder.startswith(item.path + "/"))
            result.append(
                {"path": item.path, "name": item.path.rpartition("/")[2], "is_dir": item.is_dir, "size": item.file_size,
                 "depth": depth, "open": is_open}
            )  # fmt: skip
            if len(result) < 5000 and is_open:
                walk(item.path, depth + 1)

    walk("", 0)
    return result


def log(visit: Visit, store: Store) -> Page:
    """The end of the log, or what was written after byte ``from``."""
    run = store.get_run(visit.given["run_id"])
    path = os.path.join(run.info.artifact_uri, *LOG.split("/"))
    text, start, end = "", 0, 0
    exists = os.path.isfile(path) and not os.path.islink(path)
    if exists:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            asked = visit.query.one("from")
            start = visit.query.whole("from", 0, 0, 2**53) if asked else max(0, size - TAIL)
            if start > size:  # it was begun anew
                start = 0
            file.seek(start)
            content = file.read(TAIL)
            if start and not asked:  # the line that the cut goes through
                skipped = content.find(b"\n") + 1
                start, content = start + skipped, content[skipped:]
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(content)
            end = start + len(content) - len(decoder.getstate()[0])  # half a character waits for its other half
    data = {**head(store, run), "text": plain(text), "from": start, "to": end, "exists": exists, "cut": start > 0}
    return Page("run_log.html", run.info.run_name, data, named=True)


def plain(text: str) -> str:
    """Terminal output as text: colours go, and of a line that was drawn over only the last state stays."""
    text = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])", "", text)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", "\n".join(lines))
