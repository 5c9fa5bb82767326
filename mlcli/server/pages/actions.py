"""What the buttons do: each reads a form, asks the store for one thing, and says which page to show then."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from mlcli.artifacts import open_artifacts
from mlcli.cli.portrait import NOTE
from mlcli.entities import LifecycleStage, RunTag
from mlcli.errors import InvalidInput, InvalidState, NotFound
from mlcli.registry import models_of_run, only_model
from mlcli.rollouts import lifecycle
from mlcli.server.pages import Query
from mlcli.server.security import Identity
from mlcli.store import Store
from mlcli.store.rollouts import Rollouts

MOST_RUNS = 1000
Action = Callable[[Store, Query, Identity], str]


def find(name: str) -> Action:
    found = ACTIONS.get(name)
    if found is None:
        raise NotFound(f"there is no action {name[:80]!r}")
    return found


def _experiment(form: Query) -> str:
    return f"/experiments/{quote(form.one('experiment'), safe='')}"


def _run(form: Query) -> str:
    return f"/runs/{quote(form.one('run'), safe='')}"


def _model(form: Query) -> str:
    return f"/models/{quote(form.one('model'), safe='')}"


def _version(form: Query) -> str:
    return f"{_model(form)}/{quote(form.one('version'), safe='')}"


def _runs(form: Query) -> list[str]:
    found = list(dict.fromkeys(form.many("run")))
    if not found:
        raise InvalidInput("no run is selected")
    if len(found) > MOST_RUNS:
        raise InvalidInput(f"at most {MOST_RUNS} runs at once")
    return found


# -- experiments


def create_experiment(store: Store, form: Query, _user: Identity) -> str:
    tags = {NOTE: form.one("note")} if form.one("note") else {}
    return f"/experiments/{store.create_experiment(form.one('name').strip(), None, tags)}"


def edit_experiment(store: Store, form: Query, _user: Identity) -> str:
    experiment = store.get_experiment(form.one("experiment"))
    name = form.one("name").strip()
    if name != experiment.name:
        store.rename_experiment(experiment.experiment_id, name)
    if form.one("note") != experiment.tags.get(NOTE, ""):
        store.set_experiment_tag(experiment.experiment_id, NOTE, form.one("note"))
    return _experiment(form)


def delete_experiment(store: Store, form: Query, _user: Identity) -> str:
    store.delete_experiment(form.one("experiment"))
    return "/"


def restore_experiment(store: Store, form: Query, _user: Identity) -> str:
    store.restore_experiment(form.one("experiment"))
    return _experiment(form)


# -- runs


def edit_run(store: Store, form: Query, _user: Identity) -> str:
    store.update_run(form.one("run"), run_name=form.one("name").strip())
    return _run(form)


def write_note(store: Store, form: Query, _user: Identity) -> str:
    note = form.one("note").replace("\r\n", "\n")
    run = store.get_run(form.one("run"))
    if note:
        store.set_tag(run.info.run_id, NOTE, note)
    elif NOTE in run.data.tags:
        store.delete_tag(run.info.run_id, NOTE)
    return _run(form)


def tag_runs(store: Store, form: Query, _user: Identity) -> str:
    runs = _runs(form)
    for run_id in runs:
        store.log_batch(run_id, tags=[RunTag(form.one("key").strip(), form.one("value"))])
    return _run(form) if len(runs) == 1 else "/runs"


def untag_run(store: Store, form: Query, _user: Identity) -> str:
    store.delete_tag(form.one("run"), form.one("key"))
    return _run(form)


def delete_runs(store: Store, form: Query, _user: Identity) -> str:
    for run_id in _runs(form):
        store.delete_run(run_id)
    return "/runs?view=deleted"


def restore_runs(store: Store, form: Query, _user: Identity) -> str:
    runs = _runs(form)
    for run_id in runs:
        store.restore_run(run_id)
    return _run(form) if len(runs) == 1 else "/runs"


def register_runs(store: Store, form: Query, user: Identity) -> str:
    """Make a version of each run that has a model; which one, where it has several, has to be said."""
    name, path = form.one("name").strip(), form.one("path").strip("/ ")
    chosen = []
    for run_id in _runs(form):
        run = store.get_run(run_id)
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise InvalidInput(f"run {run.info.run_name!r} is deleted")
        there = models_of_run(store, run, open_artifacts(run.info.artifact_uri).walk())
        wanted = [model for model in there if model.path == path] if path else there
        if path and not wanted:
            raise InvalidInput(f"run {run.info.run_name!r} has no model at {path!r}")
        chosen.append((run_id, only_model(run_id, wanted)))
    for run_id, model in chosen:  # each of them was looked at: none is made when one of them cannot be
        store.register_model_version(name, model.uri, run_id, model_id=model.model_id or None, user_id=user.name or "")
    return f"/models/{quote(name, safe='')}"


def register_model(store: Store, form: Query, user: Identity) -> str:
    """Make a version of one model of a run, by its URI."""
    name, uri, run_id = form.one("name").strip(), form.one("uri"), form.one("run")
    model_id = uri.partition(":/")[2] if uri.startswith("models:/m-") else None
    store.register_model_version(name, uri, run_id or None, model_id=model_id, user_id=user.name or "")
    return f"/models/{quote(name, safe='')}"


# -- models


def edit_model(store: Store, form: Query, _user: Identity) -> str:
    model, name = form.one("model"), form.one("name").strip()
    found = store.get_registered_model(model)
    if form.one("note") != found.description:
        store.update_registered_model(model, form.one("note"))
    if name != model:
        store.rename_registered_model(model, name)
    return f"/models/{quote(name, safe='')}"


def delete_model(store: Store, form: Query, _user: Identity) -> str:
    store.delete_registered_model(form.one("model"))
    return "/models"


def set_alias(store: Store, form: Query, _user: Identity) -> str:
    store.set_registered_model_alias(form.one("model"), form.one("alias").strip(), form.one("version"))
    return _model(form)


def remove_alias(store: Store, form: Query, _user: Identity) -> str:
    store.delete_registered_model_alias(form.one("model"), form.one("alias"))
    return _model(form)


def describe_version(store: Store, form: Query, _user: Identity) -> str:
    store.update_model_version(form.one("model"), form.one("version"), form.one("note"))
    return _version(form)


def tag_version(store: Store, form: Query, _user: Identity) -> str:
    store.set_model_version_tag(form.one("model"), form.one("version"), form.one("key").strip(), form.one("value"))
    return _version(form)


def untag_version(store: Store, form: Query, _user: Identity) -> str:
    store.delete_model_version_tag(form.one("model"), form.one("version"), form.one("key"))
    return _version(form)


def delete_version(store: Store, form: Query, _user: Identity) -> str:
    store.delete_model_version(form.one("model"), form.one("version"))
    return _model(form)


# -- rollouts


def _rollout(form: Query) -> str:
    return f"/rollouts/{quote(form.one('rollout'), safe='')}"


def _who(user: Identity) -> str:
    return user.name or "the web page"


def pause_rollout(store: Store, form: Query, user: Identity) -> str:
    reason = form.one("reason").strip()
    lifecycle.pause(Rollouts(store), form.one("rollout"), actor=_who(user), reason=reason)
    return _rollout(form)


def resume_rollout(store: Store, form: Query, user: Identity) -> str:
    lifecycle.resume(Rollouts(store), form.one("rollout"), actor=_who(user))
    return _rollout(form)


def advance_rollout(store: Store, form: Query, user: Identity) -> str:
    """Go on to the next step, if it still stands where the page showed it."""
    rollouts, name, seen = Rollouts(store), form.one("rollout"), form.one("step")
    if seen and seen != str(rollouts.get(name).step):
        raise InvalidState(f"rollout {name!r} went on meanwhile", hint="look at it again")
    lifecycle.advance(rollouts, name, actor=_who(user), reason=form.one("reason").strip())
    return _rollout(form)


def promote_rollout(store: Store, form: Query, user: Identity) -> str:
    reason, candidate = form.one("reason").strip(), form.one("candidate")
    lifecycle.promote(Rollouts(store), form.one("rollout"), candidate, actor=_who(user), reason=reason)
    return _rollout(form)


def abort_rollout(store: Store, form: Query, user: Identity) -> str:
    reason = form.one("reason").strip()
    lifecycle.abort(Rollouts(store), form.one("rollout"), actor=_who(user), reason=reason)
    return _rollout(form)


ACTIONS: dict[str, Action] = {
    action.__name__.replace("_", "-"): action
    for action in (
        create_experiment, edit_experiment, delete_experiment, restore_experiment,
        edit_run, write_note, tag_runs, untag_run, delete_runs, restore_runs, register_runs, register_model,
        edit_model, delete_model, set_alias, remove_alias, describe_version, tag_version, untag_version, delete_version,
        pause_rollout, resume_rollout, advance_rollout, promote_rollout, abort_rollout,
    )
}  # fmt: skip
