"""The steps of a canary: where it stands, where it comes to next, when it is at its end."""

from __future__ import annotations

from mlcli.rollouts.rolloutfile import Rollout, Step


def at_end(rollout: Rollout, step: int) -> bool:
    """Whether nothing but the whole traffic comes after this step."""
    if rollout.strategy != "canary":
        return True
    rest = rollout.steps[step + 1 :]
    return not rest or (len(rest) == 1 and rest[0].kind == "set_weight" and rest[0].weight >= 1.0)


def standing(rollout: Rollout, step: int) -> Step | None:
    """The step a canary stands at."""
    return rollout.steps[step] if rollout.strategy == "canary" and 0 <= step < len(rollout.steps) else None


def next_stop(rollout: Rollout, step: int) -> tuple[int, float, float]:
    """Where a canary comes to from ``step`` (-1: the start): the step, the weight there, the share that is shadowed.

    Weights and shadow steps before the next pause take effect together; the step it stands at is that pause, or the
    shadow step, or the last one.
    """
    weight, shadow = weight_at(rollout, step), 0.0
    number = step
    for number in range(step + 1, len(rollout.steps)):
        here = rollout.steps[number]
        if here.kind == "set_weight":
            weight = here.weight
            following = rollout.steps[number + 1] if number + 1 < len(rollout.steps) else None
            if following is None or following.kind != "pause":
                return number, weight, 0.0
        elif here.kind == "shadow":
            return number, weight, here.fraction
        else:
            return number, weight, 0.0
    return number, weight, shadow


def weight_at(rollout: Rollout, step: int) -> float:
    """The candidate's weight at a step."""
    return next((s.weight for s in reversed(rollout.steps[: step + 1]) if s.kind == "set_weight"), 0.0)
