"""Where requests meet the store: reads each on a connection of their own, writes through one thread that groups them.

All writes that have queued up while the last group was committed make the next group: one transaction, each request in
a savepoint of its own, so that one that fails takes no other with it. A request is answered after the COMMIT.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple

from mlcli import journal
from mlcli.errors import StoreUnavailable
from mlcli.store import Store
from mlcli.store.database import Sqlite, TooLong

Job = Callable[[Store], Any]
GROUP = 256  # requests in a transaction
READERS = 4
STEPS = 50_000  # of SQLite's machine: a few milliseconds


class _Write(NamedTuple):
    job: Job
    durable: bool
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Workers:
    """The threads of a server and their stores."""

    def __init__(self, open_store: Callable[[], Store], prepare: Callable[[Store], None]) -> None:
        self._open = open_store
        self._own = threading.local()
        self._opened: list[Store] = []
        self._lock = threading.Lock()
        # The store of the thread that answers. What is wrong with it is said at the start.
        self._first = open_store()
        self._opened.append(self._first)
        prepare(self._first)
        self._live = journal.live_folder(self._first.root)
        # In the thread that answers nothing may wait for another process, or for a disk far away.
        database = self._first.database
        self._quick = isinstance(database, Sqlite) and database.waits_for_nobody
        if isinstance(database, Sqlite):
            database.give_up_after(STEPS)
        self._pool = ThreadPoolExecutor(READERS, "reader")
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Finish what has been queued, then close every connection."""
        self._queue.put(None)
        self._writer.join()
        self._pool.shutdown(wait=True)
        for store in self._opened:
            store.close()

    async def read(self, job: Job, *, quick: bool) -> Any:
        """Run a read. A ``quick`` one is tried at once, unless a journal waits to be applied first.

        What turns out not to be quick is given up, and done by a thread of its own while others are answered.
        """
        if quick and self._quick and not self._journals():
            try:
                return job(self._first)
            except TooLong:
                pass
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, job)

    def write(self, job: Job, *, durable: bool) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Write(job, durable, future, loop))
        return future

    async def aside(self, job: Callable[..., Any], *args: Any) -> Any:
        """Run what waits for a disk, not for the store."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, job, *args)

    def _read(self, job: Job) -> Any:
        return job(self._store())

    def _store(self) -> Store:
        """Give this thread's own store."""
        found: Store | None = getattr(self._own, "store", None)
        if found is None:
            found = self._own.store = self._open()
            with self._lock:
                self._opened.append(found)
        return found

    def _journals(self) -> bool:
        try:
            with os.scandir(self._live) as entries:
                return next(entries, None) is not None
        except FileNotFoundError:
            return False

    # -- the writer

    def _write(self) -> None:
        ended = False
        while not ended:
            group = [self._queue.get()]
            while group[-1] is not None and len(group) < GROUP:
                if self._queue.empty():
                    break
                group.append(self._queue.get())  # nobody else takes from it
            ended = group[-1] is None
            writes = [item for item in group if item is not None]
            if writes:
                _deliver(writes, self._commit(writes))

    def _commit(self, group: list[_Write]) -> list[Any]:
        """What each write of the group gives, a result or an error; all are committed."""
        outcomes: list[Any] = []
        try:
            store = self._store()
            store.absorb()
            with store.database.transaction(durable=any([item.durable for item in group])):
                if len(group) == 1:  # what fails takes the transaction with it: no savepoint is needed
                    return [group[0].job(store)]
                outcomes += [_attempt(store, item.job) for item in group]
        except Exception as error:  # noqa: BLE001 - the writer must outlive whatever a request brings to light
            return [error] * len(group)
        return outcomes


def _attempt(store: Store, job: Job) -> Any:
    database = store.database
    database.execute("SAVEPOINT request")
    try:
        result = job(store)
    except StoreUnavailable:
        raise  # the transaction itself is in doubt
    except Exception as error:  # noqa: BLE001 - one request's trouble is not that of the others in its group
        database.execute("ROLLBACK TO SAVEPOINT request")
        result = error
    database.execute("RELEASE SAVEPOINT request")
    return result


def _deliver(group: list[_Write], outcomes: list[Any]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for item, outcome in zip(group, outcomes, strict=True):
        by_loop.setdefault(item.loop, []).append((item.future, outcome))
    for loop, settled in by_loop.items():
        if not loop.is_closed():  # else nobody waits any more
            loop.call_soon_threadsafe(_settle, settled)


def _settle(settled: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in settled:
        if future.done():  # its client went away
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
