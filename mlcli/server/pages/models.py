"""The registry: models by name, their versions, which alias names which, where each came from."""

from __future__ import annotations

from typing import Any

from mlcli import registry
from mlcli.artifacts import open_artifacts
from mlcli.cli import comparison, portrait
from mlcli.entities import ModelVersion, Run
from mlcli.errors import InvalidInput, MlcliError
from mlcli.server.pages import Page, Visit, evaluations, previews, rollouts
from mlcli.store import Store, survey

SIZE = 100


def listing(visit: Visit, store: Store) -> Page:
    words = visit.query.one("q").strip()
    token = visit.query.one("token") or None
    pattern = "".join("\\" + char if char in "%_\\" else char for char in words).replace("'", "''")
    found = store.search_registered_models(f"name ILIKE '%{pattern}%'" if words else "", SIZE, None, token)
    data = {
        "models": [
            {
                "name": model.name,
                "description": model.description,
                "latest": max((version.version for version in model.latest_versions), key=int, default=None),
                "aliases": dict(model.aliases),
                "last_updated": model.last_updated_timestamp,
                "tags": dict(model.tags),
            }
            for model in found
        ],
        "search": words,
        "next": found.token,
    }
    return Page("models.html", "Models", data)


def model(visit: Visit, store: Store) -> Page:
    found = store.get_registered_model(visit.given["name"])
    versions = sorted(
        store.search_model_versions(f"name = '{_literal(found.name)}'", max_results=1000),
        key=lambda version: -int(version.version),
    )
    runs = _runs(store, versions)
    scores = portrait.differing([run.data.metrics for run in runs.values()])[:6] if runs else []
    data = {
        "model": {
            "name": found.name,
            "description": found.description,
            "aliases": dict(found.aliases),
            "tags": dict(found.tags),
            "created": found.creation_timestamp,
        },
        "versions": [_version(version, runs.get(version.run_id), scores) for version in versions],
        "scores": scores,
    }
    return Page("model.html", found.name, data, named=True)


def _literal(text: str) -> str:
    return text.replace("'", "''")


def _runs(store: Store, versions: list[ModelVersion]) -> dict[str, Run]:
    """The runs that the versions came from, as far as they are here: some are kept elsewhere, or were removed for good."""
    wanted = list(dict.fromkeys(version.run_id for version in versions if version.run_id))
    return {run.info.run_id: run for run in survey.runs_of(store, wanted)}


def _version(version: ModelVersion, run: Run | None, scores: list[str]) -> dict[str, Any]:
    return {
        "version": version.version,
        "created": version.creation_timestamp,
        "aliases": list(version.aliases),
        "stage": version.current_stage,
        "status": version.status,
        "description": version.description,
        "user": version.user_id,
        "run_id": version.run_id,
        "run_name": run.info.run_name if run else version.run_id[:8],
        "run_here": run is not None,
        "metrics": {key: run.data.metrics[key] for key in scores if key in run.data.metrics} if run else {},
        "tags": dict(version.tags),
    }


def version(visit: Visit, store: Store) -> Page:
    name, number = visit.given["name"], visit.given["version"]
    found = store.get_model_version(name, number)
    run = _runs(store, [found]).get(found.run_id)
    uri = f"models:/{found.name}/{found.version}"
    described = None
    try:
        root = open_artifacts(store.get_model_version_folder(name, number))
        described = previews.described(root, "") if root.has("MLmodel") else None
        files = [item.path for item in root.walk()][:200]
    except MlcliError:
        files = []
    data = {
        "model": found.name,
        "version": _version(found, run, sorted(run.data.metrics) if run else []),
        "params": registry.lineage(store, found, run).get("params", {}),
        "lineage": _lineage(store, found, run),
        "described": described,
        "evaluations": evaluations.of_version(store, name, found.version),
        "rollouts": rollouts.of_version(store, name, found.version, dict(found.tags)),
        "files": files,
        "code_texts": previews.code_for(uri),
        "source": found.source if "://" not in found.source and not found.source.startswith("/") else "",
    }
    return Page("version.html", f"{found.name} v{found.version}", data, named=True)


def _lineage(store: Store, found: ModelVersion, run: Run | None) -> list[dict[str, Any]]:
    """Where a version came from, step by step back: what it was copied from, its run, experiment, data and code."""
    steps: list[dict[str, Any]] = []
    copied = found.source.removeprefix("models:/").partition("/")
    if found.source.startswith("models:/") and copied[1]:
        steps.append({"what": "copy of", "name": f"{copied[0]} v{copied[2]}", "page": ["models", copied[0], copied[2]]})
    came = registry.lineage(store, found, run)
    if run is None:
        if found.run_id:
            steps.append({"what": "run", "name": found.run_id, "page": None})
        return steps
    steps.append({"what": "run", "name": run.info.run_name, "page": ["runs", run.info.run_id]})
    experiment = store.get_experiment(run.info.experiment_id)
    steps.append({"what": "experiment", "name": experiment.name, "page": ["experiments", experiment.experiment_id]})
    steps += [
        {"what": "dataset", "name": f"{item['name']} ({item['digest']}) {item['context']}".rstrip(), "page": None}
        for item in came.get("data", ())
    ]
    steps += [
        {"what": what.replace("_", " "), "name": value, "page": None}
        for what, value in {**came.get("project", {}), **came.get("environment", {})}.items()
        if what not in ("lock", "key", "uncommitted_changes")
    ]
    if "lock" in came.get("environment", {}):
        page = ["runs", run.info.run_id, "artifacts"]
        steps.append({"what": "packages", "name": registry.LOCK, "page": page, "path": registry.LOCK})
    return steps


def compare(visit: Visit, store: Store) -> Page:
    """Versions side by side: their runs' params and metrics, stages, aliases and signatures."""
    name = visit.given["name"]
    numbers = list(dict.fromkeys(visit.query.many("version")))[:20]
    if len(numbers) < 2:
        raise InvalidInput("two versions at least are needed", hint="select them in the list of versions")
    versions = [store.get_model_version(name, number) for number in numbers]
    rows = comparison.compared_versions(store, versions)
    data = {
        "model": name,
        "versions": [{"version": item.version, "aliases": list(item.aliases)} for item in versions],
        "rows": rows,
    }
    return Page("versions.html", f"Compare {name}", data)
