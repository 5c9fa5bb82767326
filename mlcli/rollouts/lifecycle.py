"""What may happen to a rollout: its start, steps, promotion and end, by hand or by its controller.

Each is one transaction: state, weights, the event that tells of it and, when a model is promoted, the alias. Gateways read
the weights at least once a second, so to abort is one row; it needs no controller.
"""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from mlcli.errors import InvalidState, MlcliError, NotFound
from mlcli.models.loading import whole_uri
from mlcli.rollouts import models, rolloutfile
from mlcli.rollouts.rolloutfile import Rollout
from mlcli.rollouts.steps import at_end, next_stop
from mlcli.rollouts.words import Said, say, worded
from mlcli.store.rollouts import ABORTED, DRAFT, PAUSED, PROMOTED, RUNNING, Model, RolloutRecord, Rollouts

ROLLED_BACK = "rolled back"
ALIAS_KEPT = "alias-kept"
TAG = "mlcli.rollout."  # of model versions: what a rollout made of them
_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


class Plan(NamedTuple):
    """Weights to publish, control first."""

    weights: tuple[float, ...]
    shadow: float = 0.0
    step: int = -1


def by_hand() -> str:
    """Who types."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "somebody"


def spec_of(record: RolloutRecord) -> Rollout:
    return rolloutfile.parse(record.spec, f"{record.name}.yaml")


def first_plan(rollout: Rollout) -> Plan:
    """What traffic looks like at the start."""
    k = len(rollout.arms)
    if rollout.strategy == "canary":
        return canary_plan(rollout, -1)
    if rollout.strategy == "ab":
        return Plan(rollout.weights)
    if rollout.strategy == "shadow":
        return Plan((1.0,) + (0.0,) * (k - 1), rollout.shadow.fraction)
    return Plan((1 / k,) * k)


def canary_plan(rollout: Rollout, step: int) -> Plan:
    """What traffic looks like at the stop after ``step``."""
    number, weight, shadow = next_stop(rollout, step)
    return Plan((1.0 - weight, weight), shadow, number)


def start(rollouts: Rollouts, name: str, *, actor: str = "") -> RolloutRecord:
    """Let a draft begin, if what its file demands is there; from now on its aliases mean what they mean now."""
    record = rollouts.get(name)
    rollout = spec_of(record)
    found: Sequence[Model | None] = ()
    if record.state == DRAFT:
        found = models.looked_up(rollouts.store, rollout)
        _cooled_down(rollouts, rollout, found)
        if rollout.offline is not None:
            from mlcli.rollouts.offline import demand

            demand(rollouts.store, rollout)
    plan = first_plan(rollout)

    def settle() -> None:
        rollouts.settle(name, found, actor=actor)

    return rollouts.change(
        name, "started", expect=(DRAFT,), state=RUNNING, weights=plan.weights, shadow=plan.shadow, step=plan.step,
        actor=actor, also=settle,
    )  # fmt: skip


def moved(rollouts: Rollouts, record: RolloutRecord) -> list[str]:
    """Whose alias names another model by now than the rollout has, in words."""
    told = []
    now = models.looked_up(rollouts.store, spec_of(record))
    for had, has in zip(rollouts.models(record.key), now, strict=False):
        if had and has and (had.exact, had.digest) != (has.exact, has.digest):
            told.append(f"{had.uri} is {has.exact} by now; the rollout stays with {had.exact}")
    return told


def _cooled_down(rollouts: Rollouts, rollout: Rollout, found: Sequence[Model | None]) -> None:
    """Refuse a candidate that was rolled back a moment ago, whatever it is called now."""
    wait = rollout.decision.rollback_cooldown
    named = {arm.model for arm in rollout.candidates} | {one.digest for one in found[1:] if one and one.digest}
    for other in rollouts.list():
        ago = (time.time_ns() - other.ended_ns) / 1e9
        if other.state != ABORTED or not 0 <= ago < wait:
            continue
        theirs = {arm.model for arm in spec_of(other).candidates}
        theirs |= {one.digest for one in rollouts.models(other.key)[1:] if one and one.digest}
        if any([event.kind == ROLLED_BACK for event in rollouts.events(other.key)]) and named & theirs:
            raise InvalidState(
                f"the candidate was rolled back {ago:.0f} s ago, in rollout {other.name!r}",
                hint=f"find out why first; `rollback_cooldown` is {wait:.0f} s",
            )


def pause(rollouts: Rollouts, name: str, *, actor: str = "", reason: str = "") -> RolloutRecord:
    """Let traffic stay as it is and decide nothing."""
    return rollouts.change(name, "paused", expect=(RUNNING,), state=PAUSED, actor=actor, reason=reason)


def resume(rollouts: Rollouts, name: str, *, actor: str = "") -> RolloutRecord:
    """Decide again; a rollout that was invalid is looked at anew."""
    return rollouts.change(name, "resumed", expect=(PAUSED,), state=RUNNING, invalid=False, actor=actor)


def abort(
    rollouts: Rollouts, name: str, *, actor: str = "", reason: str = "", kind: str = "aborted", evidence: object = None,
    holder: str = "",
) -> RolloutRecord:  # fmt: skip
    """Give all traffic back to control, at once and for good."""
    record = rollouts.get(name)
    rollout = spec_of(record)
    back = (1.0,) + (0.0,) * len(rollout.candidates)
    known = rollouts.models(record.key) or (None,) * len(rollout.arms)
    names = [arm.name for arm in rollout.candidates]
    return rollouts.change(
        name, kind, expect=(DRAFT, RUNNING, PAUSED), state=ABORTED, weights=back, actor=actor, reason=reason,
        evidence=evidence, holder=holder,
        also=lambda: _write_back(rollouts, rollout, known, kind, reason, names, evidence),
    )  # fmt: skip


def advance(
    rollouts: Rollouts, name: str, *, actor: str = "", reason: str = "", evidence: object = None, holder: str = ""
) -> RolloutRecord:
    """Go on to the next step of a canary; from the last one, promote."""
    record = rollouts.get(name)
    rollout = spec_of(record)
    if rollout.strategy != "canary" or at_end(rollout, record.step):
        return promote(rollouts, name, actor=actor, reason=reason, evidence=evidence, holder=holder)
    plan = canary_plan(rollout, record.step)
    expect = (RUNNING,) if holder else (RUNNING, PAUSED)

    return rollouts.change(
        name, "step", expect=expect, state=RUNNING, weights=plan.weights, shadow=plan.shadow, step=plan.step,
        actor=actor, reason=reason, evidence=evidence, holder=holder, at_step=record.step,
    )  # fmt: skip


def promote(
    rollouts: Rollouts, name: str, candidate: str = "", *, actor: str = "", reason: str = "", evidence: object = None,
    holder: str = "",
) -> RolloutRecord:  # fmt: skip
    """Give a candidate all traffic, and control's alias with it, in one transaction."""
    record = rollouts.get(name)
    rollout = spec_of(record)
    names = [arm.name for arm in rollout.candidates]
    chosen = candidate or names[0]
    if len(names) > 1 and not candidate:
        raise InvalidState(
            f"rollout {name!r} has {len(names)} candidates", hint=f"--candidate names one of {', '.join(names)}"
        )
    if chosen not in names:
        raise InvalidState(f"rollout {name!r} has no candidate {chosen!r}", hint=f"one of {', '.join(names)}")
    number = 1 + names.index(chosen)
    weights = tuple(float(arm == number) for arm in range(len(rollout.arms)))
    said = say("handed-over", candidate=chosen)

    arms = _models(rollouts, record, rollout)

    def hand_over() -> None:
        _switch_alias(rollouts, name, rollout, arms, number, actor)
        _write_back(rollouts, rollout, arms, "promoted", reason, [chosen], evidence)

    expect = (RUNNING,) if holder else (RUNNING, PAUSED)
    return rollouts.change(
        name, "promoted", expect=expect, state=PROMOTED, weights=weights, actor=actor,
        reason=reason or worded(said), evidence=evidence or {"said": said}, holder=holder, also=hand_over,
    )  # fmt: skip


def _switch_alias(
    rollouts: Rollouts, name: str, rollout: Rollout, arms: Sequence[Model | None], number: int, actor: str
) -> None:
    """Let control's alias name the candidate's version, where both are of one registered model.

    An alias that somebody moved meanwhile names a version that was not compared with: it stays there, and that is told.
    """
    alias = _ALIAS.fullmatch(whole_uri(rollout.control.model))
    if alias is None:
        return
    candidate = arms[number] or models.resolve(rollouts.store, rollout.arms[number].model)
    if alias[1] != candidate.name:
        return
    try:
        named = rollouts.store.get_model_version_by_alias(alias[1], alias[2]).version
    except NotFound:
        named = ""
    control = arms[0]
    if control is None or named in (control.version, candidate.version, ""):
        rollouts.store.set_registered_model_alias(alias[1], alias[2], candidate.version)
        return
    said = say("alias-kept", alias=f"{alias[1]}@{alias[2]}", version=named)
    rollouts.note(name, ALIAS_KEPT, actor=actor, reason=worded(said), evidence={"said": said})


def _write_back(
    rollouts: Rollouts,
    rollout: Rollout,
    arms: Sequence[Model | None],
    kind: str,
    reason: str,
    chosen: Sequence[str],
    evidence: object,
) -> None:
    """Note on the candidates' versions what became of them."""
    for arm, model in zip(rollout.arms, arms, strict=True):
        if arm.name not in chosen or model is None or not model.name:
            continue
        said = {"said": evidence["said"]} if isinstance(evidence, dict) and "said" in evidence else {}
        told = json.dumps({"verdict": kind, "reason": reason[:400], **said, "time": int(time.time())}, sort_keys=True)
        try:
            rollouts.store.set_model_version_tag(model.name, model.version, f"{TAG}{rollout.name}", told)
        except MlcliError:  # the version is gone; the rollout ends all the same
            continue


def _models(rollouts: Rollouts, record: RolloutRecord, rollout: Rollout) -> Sequence[Model | None]:
    """What the arms' models are, or, of those where that is not settled, are now."""
    known = rollouts.models(record.key)
    if len(known) == len(rollout.arms) and None not in known:
        return known
    known += (None,) * (len(rollout.arms) - len(known))
    return [had or now for had, now in zip(known, models.looked_up(rollouts.store, rollout), strict=True)]


def publish(rollouts: Rollouts, name: str, weights: tuple[float, ...], *, holder: str, said: Said) -> RolloutRecord:
    """New weights of a bandit, and what they follow from."""
    return rollouts.change(
        name, "weights", expect=(RUNNING,), weights=weights, reason=worded(said), evidence={"said": said}, holder=holder
    )


def evidence_of(analysis: Any) -> dict[str, Any]:
    """The short form of an analysis that an event keeps; the whole is in `decisions`."""
    verdict = analysis.verdict
    return {
        "verdict": verdict.verdict,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "said": verdict.said,
        "batch": analysis.moment.batch,
        "gates": [gate.to_dictionary() for gate in verdict.gates if gate.status != "pass"],
    }
