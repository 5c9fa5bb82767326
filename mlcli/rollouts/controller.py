"""The one process that decides on a rollout: looks when there is news, gives its verdict, and does what follows from it.

`python -m mlcli.rollouts.controller STORE NAME [ARTIFACT_ROOT]`. A lease in the store makes it the only one, however many
are started; when it dies, the next takes over where the rollout stands, for all that it knows is in the store.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time

from mlcli.errors import InvalidState, MlcliError, StoreUnavailable
from mlcli.rollouts import bandits, lifecycle
from mlcli.rollouts.lifecycle import ROLLED_BACK, evidence_of
from mlcli.rollouts.observe import Analysis, analyze
from mlcli.rollouts.pace import Pace
from mlcli.rollouts.words import say
from mlcli.store.rollouts import PAUSED, RUNNING, RolloutRecord, Rollouts

INTERVAL = 1.0
LEASE = 5.0
KEPT = 10.0  # seconds after which a verdict that says the same again is kept again


class Controller:
    """Decides on one rollout as ``holder``."""

    def __init__(self, rollouts: Rollouts, name: str, holder: str = "") -> None:
        self.rollouts = rollouts
        self.name = name
        self.holder = holder or f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self._last: tuple[str, str] = ("", "")
        self._kept = 0.0
        self._batch = -1
        self._units = 0
        self._recommended = ""
        self._failed = ""
        self._lease = LEASE

    def turn(self) -> Analysis | None:
        """Look once and act on it. None where there is nothing to decide, or another controller decides."""
        record = self.rollouts.get(self.name)
        if record.state != RUNNING or not self.hold(record.key):
            return None
        began = time.monotonic()
        analysis = analyze(self.rollouts, self.name)
        # What is concluded hangs on the lease, which a long analysis may outlive; the next one is given longer.
        self._lease = max(LEASE, 3 * (time.monotonic() - began))
        if not self.hold(record.key):
            return None
        self._keep(record, analysis)
        try:
            self._act(analysis)
        except InvalidState:  # somebody was quicker, by hand or with a lease; the next turn sees what is
            return None
        except StoreUnavailable:
            raise
        except MlcliError as error:  # such as the alias of a model that is gone; a person has to look
            if error.message != self._failed:
                self.rollouts.note(self.name, "failed", actor="controller", reason=error.message)
            self._failed = error.message
        return analysis

    def hold(self, key: int) -> bool:
        """Stay, or become, the controller. False where another one decides."""
        return self.rollouts.take_lease(key, self.holder, self._lease)

    def release(self) -> None:
        """Let the next controller begin at once."""
        self.rollouts.release_lease(self.rollouts.get(self.name).key, self.holder)

    def _keep(self, record: RolloutRecord, analysis: Analysis) -> None:
        verdict, now = analysis.verdict, time.monotonic()
        same = (verdict.verdict, verdict.rule) == self._last
        if same and (now - self._kept < KEPT or analysis.moment.batch == self._batch):
            return
        self._last, self._kept, self._batch = (verdict.verdict, verdict.rule), now, analysis.moment.batch
        self.rollouts.decide(record.key, analysis.moment.batch, verdict.verdict, verdict.rule, analysis.to_dictionary())

    def _act(self, analysis: Analysis) -> None:
        verdict, rollout, name = analysis.verdict, analysis.rollout, self.name
        evidence = evidence_of(analysis)
        told = {"actor": "controller", "reason": verdict.reason, "evidence": evidence, "holder": self.holder}
        if verdict.action == "pause":
            self.rollouts.change(name, "invalid", expect=(RUNNING,), state=PAUSED, invalid=True, **told)  # type: ignore[arg-type]
        elif verdict.action == "rollback" and self._may(rollout.decision.auto, analysis):
            lifecycle.abort(self.rollouts, name, kind=ROLLED_BACK, **told)  # type: ignore[arg-type]
        elif verdict.action == "next" and self._may(rollout.decision.auto, analysis):
            lifecycle.advance(self.rollouts, name, **told)  # type: ignore[arg-type]
        elif verdict.action == "promote" and self._may(rollout.decision.auto, analysis):
            lifecycle.promote(self.rollouts, name, verdict.candidate, **told)  # type: ignore[arg-type]
        elif rollout.strategy == "bandit":
            self._follow_rewards(analysis)

    def _may(self, auto: bool, analysis: Analysis) -> bool:
        """Whether to act; where a person is to decide it is recommended, once."""
        verdict = analysis.verdict
        if not auto and self._recommended != verdict.action:
            kind, evidence = f"recommended {verdict.action}", evidence_of(analysis)
            self.rollouts.note(self.name, kind, actor="controller", reason=verdict.reason, evidence=evidence)
            self._recommended = verdict.action
        return auto

    def _follow_rewards(self, analysis: Analysis) -> None:
        """Publish the weights that follow from the rewards so far, when enough time or units have passed."""
        bandit, observed = analysis.rollout.bandit, analysis.observed
        units = sum(map(sum, observed.units))
        if units - self._units < bandit.every_units and observed.now - observed.step_since < bandit.every:
            return
        found = bandits.weights(
            bandit.algorithm,
            earned(analysis),
            binary=analysis.rollout.metric(bandit.reward).kind == "proportion",
            prior=bandit.prior,
            floor=bandit.floor,
            least=bandit.least,
        )
        before = observed.phases[-1].weights if observed.phases else ()
        self._units = units
        if all([abs(one - other) < 1e-4 for one, other in zip(found, before, strict=False)]):
            return
        lifecycle.publish(self.rollouts, self.name, tuple(found), holder=self.holder, said=say("rewards", units=units))


def earned(analysis: Analysis) -> list[bandits.Rewards]:
    """What each arm of a bandit has earned."""
    phases = analysis.observed.cells.get(analysis.rollout.bandit.reward, ())
    return [
        bandits.Rewards(
            sum(phase[arm].n for phase in phases),
            sum(phase[arm].total for phase in phases),
            sum(phase[arm].squares for phase in phases),
        )
        for arm in range(len(analysis.rollout.arms))
    ]


def run(rollouts: Rollouts, name: str, *, interval: float = INTERVAL) -> None:
    """Decide until the rollout has ended, or this process is told to end."""
    controller, pace = Controller(rollouts, name), Pace(rollouts, name)
    try:
        while (record := rollouts.get(name)).state in (RUNNING, PAUSED):
            try:
                if record.state == RUNNING and not pace.due():
                    controller.hold(record.key)
                elif record.state == RUNNING and (analysis := controller.turn()) is not None:
                    pace.done(analysis)
            except StoreUnavailable as error:
                print(f"controller of {name}: {error.message}; it looks again", file=sys.stderr, flush=True)
            time.sleep(interval)
    finally:
        controller.release()


def main(arguments: list[str]) -> int:
    from mlcli.models.worker import die_with_parent
    from mlcli.store import open_store

    store_uri, name, *rest = arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if rest and rest[0]:
        die_with_parent(int(rest[0]))
    try:
        with open_store(store_uri, artifact_root=rest[1] if len(rest) > 1 else None) as store:
            run(Rollouts(store), name)
    except MlcliError as error:
        print(f"controller of {name}: {error.message}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
