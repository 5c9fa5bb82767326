"""What the models of a rollout's file are: an alias names another version tomorrow, and a rollout compares what it began with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlcli.artifacts import LocalArtifacts, locate, model_in, parse_runs_uri, place_in_run
from mlcli.errors import InvalidInput, InvalidState, NotFound
from mlcli.models import loading, mlmodel
from mlcli.models.loading import whole_uri
from mlcli.registry import digest_in_run, digest_on_record
from mlcli.store.rollouts import Model

if TYPE_CHECKING:
    from mlcli.rollouts.rolloutfile import Rollout
    from mlcli.store import Store
    from mlcli.store.rollouts import Rollouts


def resolve(store: Store, uri: str) -> Model:
    """What a URI stands for now; without a digest where a version's files are not here.

    NotFound where nothing is, ModelError where the files are not those on record.
    """
    uri = whole_uri(uri)
    if uri.startswith("models:") and not uri.startswith("models:/m-"):
        found = store.resolve_model_version(uri)
        name, version = found.name, found.version
        try:
            folder = _folder(model_in(store, f"models:/{name}/{version}"), "")
        except (NotFound, InvalidInput, InvalidState):
            return Model(uri, name, version, "")
        return Model(uri, name, version, _digest(folder, digest_on_record(store, found)))
    recorded = ""
    if uri.startswith("models:"):
        folder = _folder(model_in(store, uri), "")
    elif uri.startswith("runs:"):
        run, path = parse_runs_uri(uri)
        run = store.find_run(run)
        recorded = digest_in_run(store, run, path)
        folder = _folder(*place_in_run(store, run, path))
    else:
        folder = uri = _folder(*locate(uri))  # whole, for whoever looks from another folder
    return Model(uri, "", "", _digest(folder, recorded))


def _folder(artifacts: LocalArtifacts, path: str) -> str:
    folder = artifacts.path(path)
    if not os.path.isdir(folder):
        raise NotFound(f"there is no model: {folder} is not a folder")
    return folder


def _digest(folder: str, recorded: str) -> str:
    if recorded:
        loading.check(folder, recorded)
    return mlmodel.tree_digest(folder)


def settled(rollouts: Rollouts, name: str, rollout: Rollout, *, actor: str = "") -> tuple[Model | None, ...]:
    """Settle, if that was not done before, what the models of all arms are; None for one that is not there."""
    known = rollouts.models(rollouts.get(name).key)
    if len(known) == len(rollout.arms) and None not in known:
        return known
    return rollouts.settle(name, looked_up(rollouts.store, rollout), actor=actor)


def looked_up(store: Store, rollout: Rollout) -> list[Model | None]:
    """What the models of all arms are now; None for one that is not there."""
    return [_found(store, arm.model) for arm in rollout.arms]


def _found(store: Store, uri: str) -> Model | None:
    try:
        return resolve(store, uri)
    except (NotFound, InvalidInput, InvalidState):
        return None


def described(rollout: Rollout, models: Sequence[Model | None]) -> list[dict[str, Any]]:
    """Each arm with the model that it has (``model``), as the file names it (``uri``), and the digest of its files."""
    models = [*models, *[None] * (len(rollout.arms) - len(models))]
    return [
        {
            "name": arm.name,
            "model": model.exact if model else arm.model,
            "uri": arm.model,
            "digest": model.digest if model else None,
        }
        for arm, model in zip(rollout.arms, models, strict=True)
    ]
