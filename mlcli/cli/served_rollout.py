"""What `mlcli models serve --rollout` puts behind the gateway: the models of the arms, and the policy between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import InvalidInput, MlcliError
from mlcli.serving.launch import Launch, Served, Started, find
from mlcli.serving.record import DURABILITIES
from mlcli.store import open_store, store_root
from mlcli.store.rollouts import ABORTED, STOPPED, Rollouts

if TYPE_CHECKING:
    from mlcli.rollouts.rolloutfile import Rollout
    from mlcli.serving.pool import Pool
    from mlcli.serving.rollout import RolloutPolicy


class Plan(NamedTuple):
    """A rollout and the files of its models."""

    rollout: Rollout
    key: int
    state: str
    control: Served
    candidates: tuple[Served, ...]
    durability: str
    keep_inputs: bool
    controller: bool

    @classmethod
    def of(cls, name: str, durability: str, *, keep_inputs: bool, controller: bool) -> Plan:
        """Find the rollout and its models. One that was aborted is served by its control alone."""
        from mlcli.cli.rollouts import need_statistics
        from mlcli.rollouts.lifecycle import spec_of

        if durability not in DURABILITIES:
            raise InvalidInput(f"--durability {durability!r} is not known", hint=f"one of {', '.join(DURABILITIES)}")
        if controller:
            need_statistics()
        with open_store(create=False) as store:
            record = Rollouts(store).get(name)
        if record.state in (ABORTED, STOPPED):
            raise MlcliError(
                f"rollout {name!r} is {record.state}: nothing is compared any more",
                hint=f"mlcli models serve -m {spec_of(record).control.model}",
            )
        rollout = spec_of(record)
        return cls(
            rollout,
            record.key,
            record.state,
            find(rollout.control.model),
            tuple(find(arm.model) for arm in rollout.candidates),
            durability,
            keep_inputs,
            controller,
        )

    def policy(
        self,
        control: Pool,
        launches: Sequence[Launch],
        started: Sequence[Sequence[Started]],
        *,
        workers: int,
        timeout: float,
    ) -> RolloutPolicy:
        """The policy before control's pool and those of the candidates, whose workers are ``started``."""
        from mlcli.serving.app import log
        from mlcli.serving.pool import Pool
        from mlcli.serving.rollout import RolloutPolicy, controller_command

        root = store_root()
        limit = self.rollout.shadow.timeout if self.rollout.strategy == "shadow" else timeout
        pools = [
            Pool(launch, workers=workers, timeout=limit, log=log, started=under_way)
            for launch, under_way in zip(launches, started, strict=True)
        ]
        return RolloutPolicy(
            self.rollout,
            self.key,
            [control, *pools],
            lambda: Rollouts(open_store(root)),
            models=[f"{one.name}/{one.version}" for one in (self.control, *self.candidates)],
            durability=self.durability,
            keep_bodies=self.keep_inputs,
            controller=controller_command(root, self.rollout.name) if self.controller else (),
        )
