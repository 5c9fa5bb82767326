"""What `mlcli models serve --rollout` puts behind the gateway: the models of the arms, and the policy between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import InvalidInput, MlcliError
from mlcli.rollouts import models
from mlcli.serving.launch import Launch, Served, Started, find
from mlcli.serving.record import DURABILITIES
from mlcli.store import open_store, store_root
from mlcli.store.rollouts import ABORTED, DRAFT, STOPPED, Model, Rollouts

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
    candidates: tuple[Served | str, ...]  # or why there is none
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
            rollouts = Rollouts(store)
            record = rollouts.get(name)
            rollout = spec_of(record)
            if record.state in (ABORTED, STOPPED):
                raise MlcliError(
                    f"rollout {name!r} is {record.state}: nothing is compared any more",
                    hint=f"mlcli models serve -m {rollout.control.model}",
                )
            settled = models.settled(rollouts, name, rollout, actor="gateway")
        goes_on = record.state != DRAFT
        candidates = [
            _served(arm.model, model, goes_on=goes_on)
            for arm, model in zip(rollout.candidates, settled[1:], strict=True)
        ]
        return cls(
            rollout,
            record.key,
            record.state,
            _found(rollout.control.model, settled[0]),
            tuple(candidates),
            durability,
            keep_inputs,
            controller,
        )

    @property
    def goes_on(self) -> bool:
        """Whether it was started: then control answers, whatever became of the candidates."""
        return self.state != DRAFT

    def policy(
        self,
        control: Pool,
        launch: Launch,
        launches: Sequence[Launch | str],
        started: Sequence[Sequence[Started]],
        *,
        workers: int,
        timeout: float,
    ) -> RolloutPolicy:
        """The policy before control's pool, of ``launch``, and those of the candidates, whose workers are ``started``."""
        from mlcli.serving.app import log
        from mlcli.serving.pool import Pool
        from mlcli.serving.rollout import RolloutPolicy, controller_command

        root = store_root()
        limit = self.rollout.shadow.timeout if self.rollout.strategy == "shadow" else timeout
        pools = [
            Pool(
                launch._replace(version="") if isinstance(one, str) else one,
                workers=workers,
                timeout=limit,
                log=log,
                started=under_way,
                missing=one if isinstance(one, str) else "",
            )
            for one, under_way in zip(launches, started, strict=True)
        ]
        return RolloutPolicy(
            self.rollout,
            self.key,
            [control, *pools],
            lambda: Rollouts(open_store(root)),
            models=[
                "" if isinstance(one, str) else f"{one.name}/{one.version}" for one in (self.control, *self.candidates)
            ],
            durability=self.durability,
            keep_bodies=self.keep_inputs,
            controller=controller_command(root, self.rollout.name) if self.controller else (),
        )


def _found(uri: str, model: Model | None) -> Served:
    """The files of an arm's model: those that it was settled on, and no others."""
    if model is None:
        return find(uri)  # which says what is wrong with it
    return find(model.exact)._replace(digest=model.digest, only_digest=True)


def _served(uri: str, model: Model | None, *, goes_on: bool) -> Served | str:
    try:
        return _found(uri, model)
    except MlcliError as error:
        if not goes_on:
            raise
        return error.message
