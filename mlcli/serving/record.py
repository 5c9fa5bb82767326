"""Keeps what a rollout's traffic was: rows and exact counts go to the store from a thread of its own, in batches.

    durability   a request is answered ...                        a kill -9 of the gateway loses
    async        at once                                          what came in the last fifth of a second
    group        when it is in the database                       nothing that was answered
    ack          when the disk has it                             nothing, not even with the power

What is there at SIGTERM is written before the process ends. The store being away or full keeps no request from being
answered: batches wait; when too much waits, rows are shed and counted, so that no rate is biased. What the store will not
take at all is left out and counted too: the thread that writes outlives everything.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mlcli.errors import InvalidInput, MlcliError, StoreUnavailable
from mlcli.rollouts import latency
from mlcli.serving.app import log
from mlcli.store.rollouts import LIVE, Counter, Exposure, Outcome, Prediction, Rollouts

ASYNC, GROUP, ACK = "async", "group", "ack"
DURABILITIES = (ASYNC, GROUP, ACK)
INTERVAL = 0.2
TOGETHER = 0.003  # seconds in which others may join a commit that somebody waits for
PATIENCE = 1.0  # seconds that an answer waits for its commit; then it is given all the same
OUTCOME_PATIENCE = 20.0
LAST_PATIENCE = 15.0  # seconds in which the store may still come back when the gateway ends
MAX_OUTCOMES = 100_000  # that wait for the store
MAX_ROWS = 50_000
MAX_BYTES = 64 * 1024 * 1024
MAX_KEPT = 4096  # bytes of a body that are kept
_BACK_OFF = 0.5


class Row(NamedTuple):
    """A request as the gateway has it; what costs time to make of it is made in the thread."""

    request_id: str
    role: str
    arm: int
    answered: int
    version: int
    propensity: float
    unit: str
    ns: int
    latency_us: int
    status: int
    error: str
    features: bytes
    prediction: bytes


class _Batch:
    """What is written in one transaction."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.exposures: list[Exposure] = []
        self.counts: dict[tuple[str, int, int, int], list[Any]] = {}
        self.notes: list[tuple[str, str]] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.exposures or self.counts or self.notes)

    def shed(self) -> int:
        """Leave out the rows, and units with them; how many rows there were. Counts stay exact."""
        for row in self.rows:
            _counter(self, row.role, row.arm, row.version, row.ns)[2] += 1
        for exposure in self.exposures:
            _counter(self, LIVE, exposure.arm, exposure.version, exposure.ns)[3] += 1
        left_out = len(self.rows)
        self.rows, self.exposures, self.notes = [], [], []
        return left_out


_Given = tuple[Sequence[Outcome], asyncio.Future[tuple[int, int]]]


class Recorder:
    """Takes rows from the event loop; ``open_rollouts`` opens the store, in the thread that will use it."""

    def __init__(
        self,
        open_rollouts: Callable[[], Rollouts],
        name: str,
        key: int,
        *,
        durability: str = ASYNC,
        keep_bodies: bool = True,
    ) -> None:
        self.durability = durability
        self.duplicates = 0
        self.shed = 0
        self.written = 0
        self.failures = 0
        self._open = open_rollouts
        self._name, self._key = name, key
        self._keep = keep_bodies
        self._lock = threading.Lock()
        self._now = _Batch()
        self._outcomes: list[_Given] = []
        self._waiting = 0  # outcomes
        self._closed = 0.0  # when closing began
        self._said = ""
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Write what is there, and end."""
        self._closed = time.monotonic()
        self._closing = True
        self._wake.set()
        if self._thread.ident is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    # -- from the event loop

    def add(self, row: Row, exposure: Exposure | None = None) -> None:
        """Take note of a request."""
        size = len(row.features) + len(row.prediction) + 200
        with self._lock:
            batch = self._now
            counter = _counter(batch, row.role, row.arm, row.version, row.ns)
            counter[0] += 1
            counter[1] += bool(row.error)
            bucket = latency.bucket(row.latency_us)
            counter[4][bucket] = counter[4].get(bucket, 0) + 1
            if len(batch.rows) >= MAX_ROWS or batch.bytes + size > MAX_BYTES:
                counter[2] += 1
                self.shed += 1
            else:
                batch.rows.append(row)
                batch.bytes += size
            if exposure is not None and len(batch.exposures) < 4 * MAX_ROWS:
                batch.exposures.append(exposure)
            elif exposure is not None:
                counter[3] += 1  # a unit that is missing makes the data invalid, so it is told

    def drop(self, role: str, arm: int, version: int, ns: int) -> None:
        """Count a request that is not copied to a shadow, which has too much to do."""
        with self._lock:
            _counter(self._now, role, arm, version, ns)[3] += 1

    def note(self, kind: str, reason: str) -> None:
        """Let the store know of an event."""
        with self._lock:
            self._now.notes.append((kind, reason))
        self._wake.set()

    async def kept(self) -> None:
        """Wait until what was added is in the database, as far as the durability asks for that."""
        if self.durability == ASYNC:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            self._now.waiting.append(future)
        self._wake.set()
        await asyncio.wait([future], timeout=PATIENCE)

    @property
    def flooded(self) -> bool:
        """Whether so many outcomes wait that no more can be taken."""
        return self._waiting >= MAX_OUTCOMES

    async def feedback(self, outcomes: Sequence[Outcome]) -> tuple[int, int]:
        """Keep outcomes and wait for it: how many are new, and how many were there."""
        future: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        with self._lock:
            if self._waiting + len(outcomes) > MAX_OUTCOMES:
                raise StoreUnavailable("too many outcomes wait for the store", hint="send it again in a moment")
            self._waiting += len(outcomes)
            self._outcomes.append((outcomes, future))
        self._wake.set()
        try:
            return await asyncio.wait_for(future, OUTCOME_PATIENCE)
        except asyncio.TimeoutError:
            raise StoreUnavailable(
                "the store did not take the outcome in time", hint="send it again: it counts once"
            ) from None
        finally:
            with self._lock:
                self._waiting -= len(outcomes)

    # -- in the thread

    def _run(self) -> None:
        rollouts: Rollouts | None = None
        failed: _Batch | None = None
        while True:
            self._wake.wait(INTERVAL)
            if self._wake.is_set():
                self._wake.clear()
                if self.durability != ASYNC and not self._closing:
                    time.sleep(TOGETHER)
            closing = self._closing
            with self._lock:
                outcomes, self._outcomes = self._outcomes, []
                batch = failed
                if batch is None and (self._now or self._now.waiting):
                    batch, self._now = self._now, _Batch()
            try:
                if rollouts is None and (batch or outcomes):
                    rollouts = self._open()
                if rollouts is not None and batch:
                    self._write(rollouts, batch)
                if batch is not None:
                    self._tell(batch.waiting)
                batch = failed = None  # what comes of outcomes is none of its business
                if rollouts is not None and outcomes:
                    self._keep_outcomes(rollouts, outcomes)
            except StoreUnavailable as error:
                self.failures += 1
                failed = batch
                self._give_back(outcomes)
                self._say(f"{error.message}; what was recorded waits")
                if closing and time.monotonic() > self._closed + LAST_PATIENCE:
                    with self._lock:
                        lost = [count[0] for one in (batch, self._now) if one for count in one.counts.values()]
                    self._say(f"{sum(lost)} requests could not be kept: {error.message}")
                    break
                time.sleep(_BACK_OFF)
                self._wake.set()
                continue
            except Exception as error:  # noqa: BLE001 - the last handler of a thread: what is wrong is left out, and it goes on
                self._say(f"left out, for the store refuses it: {_worded(error)}")
                self._give_back(outcomes)
                failed = batch if batch and (batch.rows or batch.exposures or batch.notes) else None
                if failed is not None:
                    self.shed += failed.shed()
                self._wake.set()
                continue
            with self._lock:
                empty = not self._now and not self._outcomes
            if closing and empty:
                break
            if closing:
                self._wake.set()
        if rollouts is not None:
            rollouts.store.close()

    def _write(self, rollouts: Rollouts, batch: _Batch) -> None:
        with rollouts.database.transaction(durable=self.durability == ACK):
            duplicates = rollouts.record(
                self._key,
                [self._prediction(row) for row in batch.rows],
                batch.exposures,
                [
                    Counter(role, arm, version, minute, n, errors, shed, dropped, latency.write(histogram))
                    for (role, arm, version, minute), (n, errors, shed, dropped, histogram) in batch.counts.items()
                ],
            )
            for kind, reason in batch.notes:
                rollouts.note(self._name, kind, actor="gateway", reason=reason)
        self.duplicates += duplicates
        self.written += len(batch.rows)

    def _keep_outcomes(self, rollouts: Rollouts, outcomes: list[_Given]) -> None:
        """Keep what several callers brought, in one transaction; if that cannot be, each by itself."""
        try:
            with rollouts.database.transaction():
                counted = [rollouts.feedback(self._key, given) for given, _ in outcomes]
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - as above: one of them is wrong, and the others are kept
            if len(outcomes) == 1:
                self._refuse(outcomes, error)
                return
            for one in outcomes:
                self._keep_outcomes(rollouts, [one])
            return
        for (_, future), found in zip(outcomes, counted, strict=True):
            self._loop.call_soon_threadsafe(_resolve, future, found)

    def _prediction(self, row: Row) -> Prediction:
        features = prediction = None
        if self._keep:
            features = (
                row.features.decode("utf-8", "replace").replace("\0", "") if 0 < len(row.features) <= MAX_KEPT else None
            )
            prediction = (
                row.prediction.decode("utf-8", "replace").replace("\0", "")
                if 0 < len(row.prediction) <= MAX_KEPT
                else None
            )
        score = _score(row.prediction) if not row.error and len(row.prediction) <= MAX_KEPT else None
        return Prediction(*row[:11], features, prediction, score)

    def _say(self, text: str) -> None:
        """Say something in the log; what is said again and again, once."""
        if text != self._said:
            log(f"rollout {self._name}: {text}")
        self._said = text

    def _give_back(self, outcomes: list[_Given]) -> None:
        with self._lock:
            self._outcomes[:0] = [one for one in outcomes if not one[1].done()]

    def _refuse(self, outcomes: list[_Given], error: Exception) -> None:
        told = error if isinstance(error, MlcliError) else InvalidInput("the store cannot keep this")
        for _, future in outcomes:
            self._loop.call_soon_threadsafe(_fail, future, told)

    def _tell(self, waiting: list[asyncio.Future[None]]) -> None:
        if waiting:
            self._loop.call_soon_threadsafe(_resolve_all, waiting)


def _worded(error: Exception) -> str:
    return error.message if isinstance(error, MlcliError) else f"{type(error).__name__}: {error}"


def _counter(batch: _Batch, role: str, arm: int, version: int, ns: int) -> list[Any]:
    """n, errors, shed, dropped, latencies."""
    place = (role, arm, version, ns // 60_000_000_000)
    found = batch.counts.get(place)
    if found is None:
        found = batch.counts[place] = [0, 0, 0, 0, {}]
    return found


def _resolve_all(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        _resolve(future, None)


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _score(body: bytes) -> float | None:
    """The first number of a prediction, whichever protocol it is in."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        outputs = found.get("outputs")
        found = found.get("predictions", outputs[0].get("data") if outputs and isinstance(outputs, list) else None)
    while isinstance(found, (list, dict)) and found:
        found = found[0] if isinstance(found, list) else next(iter(found.values()))
    try:
        return float(found) if isinstance(found, (int, float)) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None
