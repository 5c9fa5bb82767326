"""Serve a model from its start to the last answer: the gateway, its workers, and the new version behind an alias."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlcli.errors import MlcliError
from mlcli.server.run import Running
from mlcli.serving.app import Gateway, log
from mlcli.serving.launch import Launch, Started
from mlcli.serving.pool import Pool

WATCH = 1.0  # seconds between two looks at an alias
LAST_WORDS = 0.3  # seconds in which a server that is to end still takes requests, telling each client to hang up


class Follow(NamedTuple):
    """How to look for another version: ``current`` tells its number, ``prepare`` what to start it with."""

    current: Callable[[], str]
    prepare: Callable[[], Launch]


class Serving(Running):
    """uvicorn's server around a gateway."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        timeout: float,
        ready: Callable[[], None] | None = None,
        follow: Follow | None = None,
        signals: bool = True,
    ) -> None:
        super().__init__(gateway, signals=signals)
        self.config.timeout_graceful_shutdown = int(timeout) + 2
        self.failure: MlcliError | None = None
        self._gateway = gateway
        self._timeout = timeout
        self._told = ready
        self._follow = follow
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests that come before the model is there wait for it; /ping says that it is not there yet.
        await super().startup(sockets)
        self._tasks.append(asyncio.create_task(self._start()))

    async def _start(self) -> None:
        try:
            await self._gateway.pool.start()
            if self._gateway.policy is not None:
                await self._gateway.policy.start()
            else:
                for pool in self._gateway.more:
                    await pool.start()
        except MlcliError as error:
            self.failure = error
            self.should_exit = True
            return
        if self._told:
            self._told()
        if self._follow:
            await self._watch(self._follow)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.draining = True
        if self.failure is None and not self.force_exit:
            await asyncio.sleep(LAST_WORDS)
            for server in self.servers:  # who is connected already may still ask
                server.close()
            await asyncio.sleep(LAST_WORDS / 3)
        await super().shutdown(sockets)
        if self._gateway.policy is not None:
            await self._gateway.policy.close()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for pool in (self._gateway.pool, *self._gateway.more):
            await pool.close()

    # -- a new version

    async def _watch(self, follow: Follow) -> None:
        """Put the version that the alias names in the place of the one that answers; one that fails is not tried twice."""
        loop = asyncio.get_running_loop()
        refused, trouble = "", ""
        while True:
            await asyncio.sleep(WATCH)
            try:
                version = await loop.run_in_executor(None, follow.current)
            except MlcliError as error:  # the alias is gone, the store is away: what answers goes on
                if trouble != error.message:
                    log(f"cannot look for a new version: {error.message}; version {self._gateway.pool.version} stays")
                trouble = error.message
                continue
            trouble = ""
            if version in (self._gateway.pool.version, refused):
                refused = refused if version == refused else ""
                continue
            if not await self._swap(follow, version):
                refused = version

    async def _swap(self, follow: Follow, version: str) -> bool:
        gateway, old = self._gateway, self._gateway.pool
        log(f"version {version} of {old.name} is starting; version {old.version} answers until it is ready")
        try:
            launch = await asyncio.get_running_loop().run_in_executor(None, follow.prepare)
            pool = Pool(launch, workers=len(old.workers), timeout=self._timeout, log=log)
            await pool.start()
        except MlcliError as error:
            gateway.failed_swaps += 1
            log(f"version {version} of {old.name} cannot be served: {error.message}; version {old.version} stays")
            return False
        gateway.pool = pool
        gateway.swaps += 1
        log(f"version {pool.version} of {pool.name} answers now")
        self._tasks.append(asyncio.create_task(old.drain()))
        return True


def serve(
    launch: Launch,
    sock: socket.socket,
    make_gateway: Callable[[Pool], Gateway],
    *,
    workers: int,
    timeout: float,
    ready: Callable[[], None],
    follow: Follow | None = None,
    started: Sequence[Started] = (),
) -> None:
    """Serve until SIGTERM or SIGINT; every request that was taken is answered. Raises what kept the model from loading."""
    pool = Pool(launch, workers=workers, timeout=timeout, log=log, started=started)
    serving = Serving(make_gateway(pool), timeout=timeout, ready=ready, follow=follow)
    serving.run(sockets=[sock])
    if serving.failure is not None:
        raise serving.failure
