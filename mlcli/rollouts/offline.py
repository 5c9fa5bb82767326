"""The demand of a rollout that its candidates were evaluated offline before: found in the runs of evaluations."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from mlcli.errors import InvalidState, MlcliError
from mlcli.rollouts.rolloutfile import Arm, Offline, Rollout
from mlcli.store import sources

VERSION, DATA = "mlcli.evaluation.version", "mlcli.evaluation.data"


class Score(NamedTuple):
    """What an evaluation found: the metric, when, on which data."""

    value: float
    ended: int
    data: str
    run_id: str


def demand(store: Any, rollout: Rollout) -> dict[str, str]:
    """Raise InvalidState unless each candidate has the evaluation that the file demands; the runs that show it."""
    wanted = rollout.offline
    if wanted is None:
        return {}
    shown = {}
    for arm in rollout.candidates:
        own = _scores(store, arm, wanted)
        if not own:
            raise InvalidState(
                f"no offline evaluation of {arm.model} with {wanted.metric} is on record",
                hint=f"`mlcli evaluate {arm.model} --data FILE --target COLUMN` makes one",
            )
        newest = own[0]
        age = time.time() - newest.ended / 1000
        if wanted.max_age and age > wanted.max_age:
            raise InvalidState(
                f"the offline evaluation of {arm.model} is {age / 86400:.1f} days old",
                hint=f"at most {wanted.max_age / 86400:g} days are allowed: evaluate it again",
            )
        shown[arm.name] = newest.run_id
        against = _scores(store, rollout.control, wanted)
        pairs = [(mine, theirs) for mine in own for theirs in against if mine.data == theirs.data]
        if not pairs:
            raise InvalidState(
                f"control, {rollout.control.model}, and {arm.model} were not evaluated on the same data",
                hint="evaluate both on one file, so that they can be compared",
            )
        mine, theirs = pairs[0]
        better = mine.value - theirs.value if _greater_is_better(wanted.metric) else theirs.value - mine.value
        if better < wanted.min_improvement:
            raise InvalidState(
                f"offline, {wanted.metric} of {arm.name} is {mine.value:.6g} against control's {theirs.value:.6g}",
                hint=f"it must be better by {wanted.min_improvement:g} (runs {mine.run_id[:8]} and {theirs.run_id[:8]})",
            )
    return shown


def _greater_is_better(metric: str) -> bool:
    from mlcli.evaluation.scores import greater_is_better

    return greater_is_better(metric)


def _scores(store: Any, arm: Arm, wanted: Offline) -> list[Score]:
    """Of an arm, the newest first."""
    name = _version_of(store, arm.model)
    if not name:
        raise InvalidState(
            f"{arm.model} is no version of a registered model, so no evaluation can be found for it",
            hint="register it: models:/NAME/VERSION",
        )
    everywhere = [experiment.experiment_id for experiment in store.search_experiments()]
    runs = store.search_runs(
        everywhere,
        f"tags.`{VERSION}` = '{name}' and status = 'FINISHED'",
        order_by=["attributes.end_time DESC"],
        max_results=50,
    )
    return [
        Score(run.data.metrics[wanted.metric], run.info.end_time or 0, run.data.tags.get(DATA, ""), run.info.run_id)
        for run in runs
        if wanted.metric in run.data.metrics
    ]


def _version_of(store: Any, uri: str) -> str:
    """``name/number`` of the version that a URI names now, "" if it names none."""
    try:
        source = sources.read(uri)
        if source.kind != "version":
            return ""
        if source.reference.startswith("@"):
            return f"{source.name}/{store.get_model_version_by_alias(source.name, source.reference[1:]).version}"
        if source.reference.isdigit():
            return f"{source.name}/{store.get_model_version(source.name, source.reference).version}"
    except MlcliError:
        return ""
    return ""
