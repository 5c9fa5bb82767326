"""The worker processes of one model version: their start, their requests, their end, and their start again.

A request waits in the pool until a worker has room. A worker answers in order, so what it works on is the oldest of its
requests; a few more lie ready for it, so that it never waits for us.

    a worker ...             the request it worked on            the others it had        the worker
    ends, or is killed       goes to another; if that one        go to another worker     is started again
                             ends too, 500
    is over the timeout      504                                 go to another worker     is killed and started again
    runs out of memory       507                                 go to another worker     is started again
    cannot be started        -                                   wait, then 503           is tried again, later and later

With micro-batching it is not known which of the requests of a batch was at fault: the second time each is alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mlcli.errors import MlcliError, ModelError
from mlcli.models.worker import ANSWER, OUT_OF_MEMORY, REQUEST
from mlcli.server.http import Refused
from mlcli.serving.launch import Launch, Started
from mlcli.serving.metrics import Histogram

DEPTH = 8  # requests that lie at the one worker of a pool
DEPTH_OF_MANY = 2  # the same where another worker may be free before this one is
SLOW = 0.1  # seconds at one request, after which nothing waits behind it that another worker could do
MAX_WAITING = 4096
MAX_WAITING_BYTES = 256 * 1024 * 1024
LAST_BACK_OFF = 30.0
FAILED_STARTS = 3  # in a row, after which nobody waits for a worker any more
END = 5.0  # seconds in which a worker must have ended when its socket is closed


class Answer(NamedTuple):
    """What a worker said; ``seconds`` is the time that it took for it."""

    status: int
    body: bytes
    seconds: float


class _Call:
    """A request on its way to a worker and back."""

    __slots__ = ("alone", "body", "deadline", "future", "kind", "moved", "number", "tried")

    def __init__(self, number: int, kind: int, body: bytes, future: asyncio.Future[Answer], deadline: float) -> None:
        self.number = number
        self.kind = kind
        self.body = body
        self.future = future
        self.deadline = deadline
        self.alone = False
        self.tried = False  # a worker ended while it had this
        self.moved = False  # it lies at a slow worker, and was given to another too


class Worker(asyncio.Protocol):
    """One process and our end of its socket."""

    def __init__(self, pool: Pool, place: int) -> None:
        self.pool = pool
        self.place = place
        self.ready = False
        self.about: dict[str, Any] = {}
        self.calls: deque[_Call] = deque()
        self.since = 0.0  # when it began with the oldest of its calls
        self.answered = 0
        self.busy = 0.0
        self.killed_for: str = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    async def start(self, started: Started | None = None) -> None:
        self.process, ours = started or self.pool.launch.start()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def send(self, call: _Call, now: float) -> None:
        if not self.calls:
            self.since = now
        self.calls.append(call)
        self._write(REQUEST.pack(len(call.body), call.number, call.kind) + call.body)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start, have = 0, len(buffer)
        while have - start >= ANSWER.size:
            length, number, status, took = ANSWER.unpack_from(buffer, start)
            end = start + ANSWER.size + length
            if have < end:
                break
            body = bytes(buffer[start + ANSWER.size : end])
            start = end
            if number:
                self._answered(number, Answer(status, body, took / 1e6))
            else:
                self._introduced(status, body)
        del buffer[:start]

    def _introduced(self, status: int, body: bytes) -> None:
        told = json.loads(body)
        if status != 200:
            self.pool.refused(self, ModelError(str(told["message"]), hint=str(told.get("hint", ""))))
            return
        self.about = told
        self.ready = True
        self.pool.introduced(self)

    def _answered(self, number: int, answer: Answer) -> None:
        call = self.calls.popleft()
        now = time.monotonic()
        self.since = now
        self.answered += 1
        self.busy += answer.seconds
        if call.number != number:  # an answer that nobody asked for: the two do not speak of the same any more
            self.kill("it answered what was not asked")
            return
        self.pool.answered(self, call, answer, now)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended is what its process says
        self.ready = False
        self._transport = None
        self.pool.lost(self)

    def kill(self, why: str) -> None:
        self.killed_for = self.killed_for or why
        self.ready = False
        if self.process is not None:
            self.process.kill()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Let it end: it does when it has answered what it has."""
        if self._transport is not None:
            self._transport.close()

    async def ended(self) -> str:
        """Wait for the end of the process, hastened if need be, and say how it was."""
        process = self.process
        if process is None:
            return "it was not started"
        until = time.monotonic() + END
        while process.poll() is None:
            if time.monotonic() > until:
                process.kill()
            await asyncio.sleep(0.005)
        code = process.returncode
        if self.killed_for:
            return self.killed_for
        if code == OUT_OF_MEMORY:
            return "it ran out of memory"
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            return f"it was killed by {name}" + (": was the memory full?" if name == "SIGKILL" else "")
        return f"it ended with exit code {code}"

    def memory(self) -> int | None:
        """The bytes of memory that it holds now; None where the system does not tell."""
        try:
            with open(f"/proc/{self.process.pid if self.process else 0}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return None


class Pool:
    """The workers of one model version."""

    def __init__(
        self,
        launch: Launch,
        *,
        workers: int,
        timeout: float,
        log: Callable[[str], None],
        started: Sequence[Started] = (),
        missing: str = "",
    ) -> None:
        """``started`` are workers of this launch that are under way already; ``missing`` says why there can be none."""
        self.launch = launch
        self._started = list(started)
        self.name, self.version = launch.name, launch.version
        self.timeout = timeout
        self.about: dict[str, Any] = {}
        self.restarts = 0
        self.latency = Histogram()
        self.statuses: dict[int, int] = {}
        self._log = log
        self._depth = launch.batch_size if launch.batch_size > 1 else (DEPTH if workers == 1 else DEPTH_OF_MANY)
        self._count = workers
        self.workers: list[Worker] = []
        self._open: dict[int, _Call] = {}  # oldest first, and so the one whose time is over first
        self._queue: deque[_Call] = deque()
        self._bytes = 0
        self._number = 0
        self._bad_starts = 0
        self._broken = self._missing = missing
        self._closing = False
        self._empty = asyncio.Event()
        self._first: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    # -- start and end

    async def start(self) -> None:
        """Start the workers; returns when one of them can predict. ModelError with its reason when the model cannot be loaded."""
        if self._missing:
            raise ModelError(self._missing)
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self.workers = [Worker(self, place) for place in range(self._count)]
        try:
            for worker in self.workers:
                await worker.start(self._started.pop() if self._started else None)
            await self._first
        except BaseException:
            await self.close()
            raise
        self._sweep = loop.call_later(self._interval, self._look)

    @property
    def ready(self) -> bool:
        return any([worker.ready for worker in self.workers])

    @property
    def broken(self) -> str:
        """Why the model cannot be started any more, "" while it can."""
        return self._broken

    async def drain(self) -> None:
        """Answer what has been asked, then end the workers."""
        while self._open:
            self._empty.clear()
            await self._empty.wait()
        await self.close()

    async def close(self) -> None:
        """End the workers; what is still waiting is told so."""
        self._closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        if self._first is not None and not self._first.done():
            self._first.set_exception(ModelError("it was ended before it could predict"))
            self._first.exception()  # whoever waits is told; where nobody does that is no news
        for call in list(self._open.values()):
            self._finish(call, _failed(503, "TEMPORARILY_UNAVAILABLE", "the server is shutting down"))
        for worker in self.workers:
            worker.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*[worker.ended() for worker in self.workers if worker.process is not None])

    # -- requests

    def ask(self, kind: int, body: bytes) -> asyncio.Future[Answer]:
        """Hand a body to a worker. Raises Refused when too much is waiting, or nothing can answer."""
        if self._closing:
            raise _unavailable("the model is being replaced; ask again")
        if self._broken and not self.ready:
            raise _unavailable(f"the model cannot be started: {self._broken}")
        if len(self._open) >= MAX_WAITING or self._bytes + len(body) > MAX_WAITING_BYTES:
            raise _unavailable("too many requests are waiting; ask again in a moment")
        self._number += 1
        now = time.monotonic()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        call = _Call(self._number, kind, body, future, now + self.timeout)
        self._open[call.number] = call
        self._bytes += len(body)
        worker = None if self._queue else self._free(now)
        if worker is None:
            self._queue.append(call)
        else:
            worker.send(call, now)
        return future

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._open)

    def _free(self, now: float) -> Worker | None:
        """The worker with the least to do, if one has room."""
        best, least = None, self._depth
        for worker in self.workers:
            calls = worker.calls
            if not worker.ready or len(calls) >= least:
                continue
            if calls and (calls[-1].alone or (self._count > 1 and now - worker.since > SLOW)):
                continue
            best, least = worker, len(calls)
        return best

    def _hand_out(self, now: float) -> None:
        queue = self._queue
        while queue:
            if queue[0].future.done():  # its time was over while it waited
                queue.popleft()
                continue
            worker = self._free(now)
            if worker is None or (queue[0].alone and worker.calls):
                return
            worker.send(queue.popleft(), now)

    def _finish(self, call: _Call, answer: Answer) -> None:
        if self._open.pop(call.number, None) is None:
            return
        self._bytes -= len(call.body)
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        self.latency.add(time.monotonic() - (call.deadline - self.timeout))
        if not call.future.done():
            call.future.set_result(answer)
        if not self._open:
            self._empty.set()

    # -- what workers tell

    def introduced(self, worker: Worker) -> None:
        self.about = worker.about
        self._bad_starts = 0
        self._broken = ""
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        self._hand_out(time.monotonic())

    def refused(self, worker: Worker, error: ModelError) -> None:
        """A worker that cannot load the model; it ends by itself."""
        worker.killed_for = error.message
        if self._first is not None and not self._first.done():
            self._first.set_exception(error)

    def answered(self, worker: Worker, call: _Call, answer: Answer, now: float) -> None:
        self._finish(call, answer)
        if answer.status == 507:
            worker.ready = False  # it is about to end
        if self._queue:
            self._hand_out(now)

    def lost(self, worker: Worker) -> None:
        calls = [call for call in worker.calls if not call.future.done() and not call.moved]
        # The oldest was being worked on even where its caller has been told that the time is over.
        first = worker.calls[0] if worker.calls else None
        worker.calls.clear()
        victim = None
        batched = self.launch.batch_size > 1
        if first is not None and first in calls and first.tried and (first.alone or not batched):
            victim = first
            calls.remove(first)
        for call in calls if batched else [call for call in calls if call is first]:
            call.tried = True
            call.alone = batched
        self._queue.extendleft(reversed(calls))
        if not self._closing:
            self._spawn(self._bury(worker, victim))
            self._hand_out(time.monotonic())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, worker: Worker, victim: _Call | None) -> None:
        """Say how a worker ended, and put another in its place."""
        reason = await worker.ended()
        if victim is not None:
            told = f"the model's process ended while it predicted: {reason}"
            self._finish(victim, _failed(500, "INTERNAL_ERROR", told))
        if self._first is not None and not self._first.done():
            self._first.set_exception(
                ModelError(f"the process that loads the model ended: {reason}", hint="what it said stands above")
            )
            return
        if not worker.about:
            self._bad_starts += 1
        self._log(f"a worker of {self.name} ended: {reason}; it is started again")
        await self._replace(worker.place, worker)

    async def _replace(self, place: int, old: Worker) -> None:
        lived = old.answered > 0
        self.restarts += 1
        if self._bad_starts >= FAILED_STARTS and not self.ready:
            self._broken = old.killed_for or "its process ends at once; the server's log says more"
            for call in list(self._open.values()):
                self._finish(
                    call, _failed(503, "TEMPORARILY_UNAVAILABLE", f"the model cannot be started: {self._broken}")
                )
        if not lived:
            await asyncio.sleep(min(LAST_BACK_OFF, 0.1 * 2 ** min(self._bad_starts, 10)))
        worker = Worker(self, place)
        self.workers[place] = worker
        try:
            await worker.start()
        except (MlcliError, OSError) as error:
            worker.killed_for = str(error)
            self._bad_starts += 1
            self._spawn(self._replace(place, worker))

    # -- time

    @property
    def _interval(self) -> float:
        return min(0.25, self.timeout / 8)

    def _look(self) -> None:
        """Tell whose time is over; kill a worker that has been at one request for all of it."""
        now = time.monotonic()
        for call in list(self._open.values()):
            if call.deadline > now:
                break
            told = f"the model did not answer within {self.timeout:g} seconds"
            self._finish(call, _failed(504, "DEADLINE_EXCEEDED", told))
        for worker in self.workers:
            if worker.ready and worker.calls and now - worker.since > self.timeout:
                worker.kill(f"it did not answer within {self.timeout:g} s")
            elif self._count > 1 and len(worker.calls) > 1 and now - worker.since > SLOW:
                self._rescue(worker)
        if self._queue:
            self._hand_out(now)
        self._sweep = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _rescue(self, worker: Worker) -> None:
        """Give what lies behind a slow request to others too; whichever answers first is right."""
        behind = [call for call in list(worker.calls)[1:] if not call.moved and not call.future.done()]
        for call in behind:
            call.moved = True
        self._queue.extendleft(reversed(behind))


def _failed(status: int, error_code: str, message: str) -> Answer:
    return Answer(status, json.dumps({"error_code": error_code, "message": message}).encode(), 0.0)


def _unavailable(message: str) -> Refused:
    return Refused(503, "TEMPORARILY_UNAVAILABLE", message, [(b"retry-after", b"1")])
