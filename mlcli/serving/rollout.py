"""The policy of a rollout before several models: assigns each request to an arm, lets that arm answer, records it.

A candidate that fails is answered for by control, and charged. Shadows are asked after the client has its answer, a bounded
number at a time, and what they say goes to the store alone. Weights are read from the store four times a second: whoever
sets the candidate's to 0 there is obeyed within a second, with or without a controller.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from mlcli.errors import MlcliError
from mlcli.models.worker import INFER, MODEL_RAISED
from mlcli.rollouts.assignment import Range, arm_at, canary_ranges, place, ranges
from mlcli.rollouts.rolloutfile import Rollout
from mlcli.server import http
from mlcli.server.http import Headers, Refused
from mlcli.serving.app import Asked, Family, log
from mlcli.serving.pool import Answer, Pool
from mlcli.serving.record import Recorder, Row
from mlcli.serving.units import named
from mlcli.store.rollouts import (
    ABORTED,
    DRAFT,
    LIVE,
    PAUSED,
    RUNNING,
    SHADOW,
    STOPPED,
    Exposure,
    Outcome,
    Rollouts,
    Weights,
    outcome_of,
)

LOOK = 0.25
TOGETHER = 0.005  # seconds in which requests are gathered before shadows get them
MAX_UNITS = 200_000
OTHER = "other"  # the role of requests that are not analysed: no unit, no match, or not covered
ENDED, DEAD = "worker-ended", "worker-dead"
LONG, LAST = 60.0, 600.0  # seconds of a candidate's start: until the gateway says it is ready, until it is given up
ENDS, WITHIN = 10, 300.0  # so many ends of a candidate's workers in so many seconds are its death
MAX_OUTCOMES = 10_000
SHORT = 4096  # bytes of feedback that are read at once
_JSON: Headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
_RAISED = MODEL_RAISED.encode()


class Force(NamedTuple):
    """What is in force: a version of the weights and the places that each arm owns under it."""

    state: str
    version: int
    weights: tuple[float, ...]
    owned: tuple[Range, ...]
    shadow: float


class Decision(NamedTuple):
    """The arm of a request; not analysed where ``role`` says so."""

    arm: int
    role: str
    unit: str
    place: float
    version: int
    propensity: float


class Copy(NamedTuple):
    """A request that shadows are to answer too; ``around`` are the seconds it took here besides those of its model."""

    kind: int
    body: bytes
    request_id: str
    unit: str
    version: int
    ns: int
    around: float


def force_of(rollout: Rollout, state: str, weights: Weights | None) -> Force:
    """What a state and its weights mean; control alone where there are none yet."""
    arms = len(rollout.arms)
    if weights is None or state == DRAFT:
        return Force(state, 0, (1.0,) + (0.0,) * (arms - 1), (Range(0.0, 1.0),), 0.0)
    ended = state not in (RUNNING, PAUSED)
    if rollout.strategy == "ab" and not ended:
        owned = ranges(weights.weights, rollout.coverage)
    else:
        owned = canary_ranges(weights.weights)
    return Force(state, weights.version, weights.weights, tuple(owned), 0.0 if ended else weights.shadow)


class Assigner:
    """Decides which arm a unit has; the same in each process, for it depends on the file, the weights and the unit."""

    def __init__(self, rollout: Rollout, known: Callable[[str], tuple[int, int, float] | None] | None = None) -> None:
        self.rollout = rollout
        self.force = force_of(rollout, DRAFT, None)
        self._known = known
        self._kept: OrderedDict[str, tuple[int, int, float]] = OrderedDict()
        self._sticky = rollout.strategy == "bandit" and rollout.bandit.sticky

    def decide(self, unit: str, request_id: str) -> Decision:
        """The arm of a unit, "" for none."""
        force, rollout = self.force, self.rollout
        if not unit or force.state not in (RUNNING, PAUSED):
            arm = max(range(len(force.weights)), key=force.weights.__getitem__)
            return Decision(arm, OTHER, unit, 0.0, force.version, 1.0)
        by = rollout.hash
        if rollout.strategy == "bandit" and not self._sticky:
            at = place(request_id, salt=by.salt, algorithm=by.algorithm, seed=by.seed)
        else:
            at = place(unit, salt=by.salt, algorithm=by.algorithm, seed=by.seed)
        if self._sticky:
            before = self._first_met(unit)
            if before is not None:
                return Decision(before[0], LIVE, unit, at, before[1], before[2])
        arm_found = arm_at(at, force.owned)
        if arm_found is None:
            return Decision(0, OTHER, unit, at, force.version, 1.0)
        decision = Decision(arm_found, LIVE, unit, at, force.version, force.weights[arm_found])
        if self._sticky:
            self._keep(unit, (arm_found, force.version, decision.propensity))
        return decision

    def _first_met(self, unit: str) -> tuple[int, int, float] | None:
        found = self._kept.get(unit)
        if found is not None:
            self._kept.move_to_end(unit)
            return found
        found = self._known(unit) if self._known is not None else None
        if found is not None:
            self._keep(unit, found)
        return found

    def _keep(self, unit: str, met: tuple[int, int, float]) -> None:
        self._kept[unit] = met
        if len(self._kept) > MAX_UNITS:
            self._kept.popitem(last=False)


class RolloutPolicy:
    """Stands between the gateway and the pools of a rollout's arms, control's first."""

    def __init__(
        self,
        rollout: Rollout,
        key: int,
        pools: Sequence[Pool],
        open_rollouts: Callable[[], Rollouts],
        *,
        models: Sequence[str],
        durability: str = "async",
        keep_bodies: bool = True,
        controller: Sequence[str] = (),
    ) -> None:
        self.rollout = rollout
        self.pools = list(pools)
        self.recorder = Recorder(open_rollouts, rollout.name, key, durability=durability, keep_bodies=keep_bodies)
        self._key = key
        self._open = open_rollouts
        self._reader: Rollouts | None = None
        sticky = rollout.strategy == "bandit" and rollout.bandit.sticky
        self.assigner = Assigner(rollout, self._first_met if sticky else None)
        self.changed = threading.Event()
        self.shadowing = 0
        self._seen: set[str] = set()
        self._seen_version = -1
        self._fields = [*([rollout.unit.field] if rollout.unit.field else []), *(name for name, _ in rollout.match)]
        self._told = [
            [
                (b"x-mlcli-rollout", rollout.name.encode()),
                (b"x-mlcli-variant", arm.name.encode()),
                (b"x-mlcli-model", model.encode("latin-1", "replace")),
            ]
            for arm, model in zip(rollout.arms, models, strict=True)
        ]
        # What the Open Inference Protocol has a place for in the body: it ends with a brace, and has no parameters yet.
        self._variants = [b', "parameters": ' + http.dump({"variant": arm.name}) + b"}" for arm in rollout.arms]
        self._lost: set[int] = set()  # arms that were never up
        self._dead: set[int] = set()  # arms whose end is noted
        self._ended = [deque[float](maxlen=ENDS) for _ in self.pools]  # when workers ended
        self._started = asyncio.Event()
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = ThreadPoolExecutor(1, "feedback")
        self._waiting: list[Copy] = []
        self._copies: set[asyncio.Future[Answer]] = set()
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._controller = list(controller)
        self._child: subprocess.Popen[bytes] | None = None

    # -- start and end

    async def start(self) -> None:
        """Start what is behind it; control is up already, and answers alone until the candidates are.

        Returns when they are, or have been given up, or take long.
        """
        self._loop = asyncio.get_running_loop()
        self._reader = self._open()
        self._take(*self._reader.in_force(self._key))
        self.recorder.start()
        self._watcher.start()
        self._started.set()
        if self._controller:
            self._spawn(self._keep_controller())
        self._spawn(self._look_after_workers())
        if self.assigner.force.state in (ABORTED, STOPPED):
            return
        candidates = [self._spawn(self._start(arm)) for arm in range(1, len(self.pools))]
        await asyncio.wait(candidates, timeout=LONG)
        for arm, candidate in enumerate(candidates, 1):
            if not candidate.done():
                log(f"{self.rollout.arms[arm].name} is not up yet; control answers alone")

    async def _start(self, arm: int) -> None:
        """Start a candidate; one that cannot be started, or is not up in time, is given up."""
        try:
            await asyncio.wait_for(self.pools[arm].start(), LAST)
        except (MlcliError, asyncio.TimeoutError) as error:
            if self.assigner.force.state in (ABORTED, STOPPED):
                return
            why = error.message if isinstance(error, MlcliError) else f"it was not up after {LAST:g} seconds"
            log(f"{self.rollout.arms[arm].name} cannot be served: {why}")
            self._lost.add(arm)

    async def close(self) -> None:
        """Keep what was recorded, and end; requests have been answered by now."""
        self._closing = True
        self._shadow()
        if self._copies:
            await asyncio.wait(self._copies, timeout=2.0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            await self._loop.run_in_executor(None, _ended, self._child)
        self._reading.shutdown(wait=False, cancel_futures=True)
        await self.recorder.close()
        if self._reader is not None:
            self._reader.store.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- requests

    async def respond(self, asked: Asked) -> tuple[int, bytes, Headers]:
        """Answer a request through the arm that it belongs to."""
        if not self._started.is_set():
            await self._started.wait()
        request_id = _request_id(asked.headers.get(b"x-request-id", b""))
        unit = self._unit(asked, request_id)
        decision = self.assigner.decide(unit, request_id)
        if decision.role == LIVE and not self._all_up():
            arm_up = decision.arm if self.pools[decision.arm].ready else 0
            decision = decision._replace(role=OTHER, arm=arm_up, propensity=1.0)
        ns, start = time.time_ns(), time.perf_counter()
        arm = decision.arm
        answer = await self._ask(arm, asked)
        error = fault(answer)
        answered = arm
        took = time.perf_counter() - start
        around = max(took - answer.seconds, 0.0)
        if arm and (error or answer.status == 400) and self.rollout.fallback == "control":
            other = await self._ask(0, asked)
            if error or other.status == 200:
                error = error or f"it refuses what control accepts: {_words(answer)}"
                answer, answered = other, 0
        features = asked.body if len(asked.body) <= 4096 and asked.kind < 3 else b""
        row = Row(
            request_id, decision.role, arm, answered, decision.version, decision.propensity,
            unit if decision.role == LIVE else "", ns, int(took * 1e6), answer.status, error, features, answer.body,
        )  # fmt: skip
        self.recorder.add(row, self._exposure(decision, ns))
        if self.assigner.force.shadow and decision.role == LIVE:
            self._later(Copy(asked.kind, asked.body, request_id, decision.unit, decision.version, ns, around))
        if self.recorder.durability != "async":
            await self.recorder.kept()
        body = answer.body
        if asked.kind == INFER and answer.status == 200:
            body = body[:-1] + self._variants[answered]
        return answer.status, body, [*_JSON, (b"x-request-id", request_id.encode()), *self._told[answered]]

    def _all_up(self) -> bool:
        """Whether each arm that has a share can answer.

        While one cannot, nobody is analysed: its units would be missing or charged, and those of the others be counted
        alone. Units of all arms are left out alike, for a reason that no unit has to do with, so shares and propensities
        stay what was published.
        """
        weights = self.assigner.force.weights
        return all([not weights[arm] or self.pools[arm].ready for arm in range(1, len(weights))])

    def _unit(self, asked: Asked, request_id: str) -> str:
        """The unit of a request that is to be analysed, "" for one that is not."""
        rollout = self.rollout
        header, found = named(asked.headers, asked.kind, asked.body, rollout.unit.header, self._fields)
        for name, values in rollout.match:
            value = found.get(name) or asked.headers.get(name.lower().encode("latin-1", "replace"), b"").decode(
                "latin-1"
            )
            if value not in values:
                return ""
        unit = header or found.get(rollout.unit.field, "")
        if unit or rollout.unit.on_missing == "control":
            return unit
        if rollout.unit.on_missing == "request":
            return request_id
        names = " or ".join(
            [
                *([f"the header {rollout.unit.header}"] if rollout.unit.header else []),
                *([f"the field {rollout.unit.field!r}"] if rollout.unit.field else []),
            ]
        )
        raise Refused(400, "INVALID_PARAMETER_VALUE", f"the request does not say whom it is about: it needs {names}")

    async def _ask(self, arm: int, asked: Asked) -> Answer:
        pool = self.pools[arm]
        if arm and not pool.ready:  # nobody waits for a candidate that is being started again
            return _failed("the candidate's process is not running")
        try:
            return await pool.ask(asked.kind, asked.body)
        except Refused as refused:
            if not arm:
                return _failed(refused.message, refused.status, refused.error_code)
            return _failed(refused.message)

    def _exposure(self, decision: Decision, ns: int) -> Exposure | None:
        """What is to be kept of a unit's meeting its arm; None when it is kept already."""
        if decision.role != LIVE:
            return None
        if self._seen_version != self.assigner.force.version or len(self._seen) >= MAX_UNITS:
            self._seen.clear()
            self._seen_version = self.assigner.force.version
        if decision.unit in self._seen:
            return None
        self._seen.add(decision.unit)
        return Exposure(decision.unit, decision.version, decision.arm, decision.place, decision.propensity, ns)

    # -- shadows

    def _later(self, copy: Copy) -> None:
        """Let shadows have a request in a moment, with others: a worker is woken once for all of them."""
        if random.random() >= self.assigner.force.shadow:  # noqa: S311 - a sample, no secret
            return
        if not self._waiting:
            self._loop.call_later(TOGETHER, self._shadow)
        self._waiting.append(copy)

    def _shadow(self) -> None:
        """Let shadows answer too; nobody but the store hears of it."""
        waiting, self._waiting = self._waiting, []
        for copy in waiting:
            for arm in range(1, len(self.pools)):
                pool = self.pools[arm]
                if self.shadowing >= self.rollout.shadow.queue or not pool.ready:
                    self.recorder.drop(SHADOW, arm, copy.version, copy.ns)
                    continue
                ns, start = time.time_ns(), time.perf_counter()
                try:
                    answer = pool.ask(copy.kind, copy.body)
                except Refused as refused:
                    self._copied(copy, arm, ns, start, _failed(refused.message))
                    continue
                self.shadowing += 1
                self._copies.add(answer)
                answer.add_done_callback(partial(self._shadowed, copy, arm, ns, start))

    def _shadowed(self, copy: Copy, arm: int, ns: int, start: float, answer: asyncio.Future[Answer]) -> None:
        self.shadowing -= 1
        self._copies.discard(answer)
        if not answer.cancelled():
            self._copied(copy, arm, ns, start, answer.result())

    def _copied(self, copy: Copy, arm: int, ns: int, start: float, answer: Answer) -> None:
        error = fault(answer) or (f"refused: {_words(answer)}" if answer.status != 200 else "")
        # What a client would have waited. Copies wait for one another, as requests that are paced by control's answers do not.
        seconds = copy.around + answer.seconds if answer.seconds else time.perf_counter() - start
        took = int(seconds * 1e6)
        self.recorder.add(
            Row(
                copy.request_id, SHADOW, arm, arm, copy.version, 1.0, copy.unit, ns, took, answer.status, error, b"",
                answer.body,
            )
        )  # fmt: skip

    # -- feedback

    async def feedback(self, body: bytes) -> tuple[int, bytes, Headers]:
        """Keep what became of requests or units."""
        if self.recorder.flooded:
            raise Refused(
                503, "TEMPORARILY_UNAVAILABLE", "too many outcomes wait; send it again", [(b"retry-after", b"1")]
            )
        if len(body) <= SHORT:
            outcomes = _outcomes(body)
        else:  # one after another and beside the loop, which has requests to answer
            outcomes = await self._loop.run_in_executor(self._reading, _outcomes, body)
        try:
            accepted, duplicate = await self.recorder.feedback(outcomes)
        except MlcliError as error:
            raise http.refusal(error) from None
        return 202, http.dump({"accepted": accepted, "duplicate": duplicate}), _JSON

    def families(self) -> list[Family]:
        """Weights, and what became of the record of traffic."""
        recorder, name = self.recorder, {"rollout": self.rollout.name}
        arms = [{**name, "variant": arm.name} for arm in self.rollout.arms]
        rows = ("written", recorder.written), ("shed", recorder.shed), ("duplicate", recorder.duplicates)
        return [
            Family(
                "rollout_weight",
                "gauge",
                "The share of an arm.",
                list(zip(arms, self.assigner.force.weights, strict=True)),
            ),
            Family(
                "rollout_rows_total",
                "counter",
                "Requests kept, or not.",
                [({**name, "outcome": what}, n) for what, n in rows],
            ),
            Family(
                "rollout_store_failures_total",
                "counter",
                "Writes that had to wait for the store.",
                [(name, recorder.failures)],
            ),
            Family("rollout_shadowing", "gauge", "Copies that a shadow is answering.", [(name, self.shadowing)]),
        ]

    # -- what is in force

    def _first_met(self, unit: str) -> tuple[int, int, float] | None:
        if self._reader is None:
            return None
        try:
            return self._reader.arm_of(self._key, unit)
        except MlcliError:  # the store is away: the hash decides
            return None

    def _take(self, state: str, weights: Weights | None) -> None:
        before = self.assigner.force
        force = force_of(self.rollout, state, weights)
        if force == before:
            return
        self.assigner.force = force
        if state == RUNNING and before.state != RUNNING:
            self._dead.clear()  # who starts or resumes has to hear of it anew
        self.changed.set()
        shares = ", ".join(
            f"{arm.name} {weight:.4g}" for arm, weight in zip(self.rollout.arms, force.weights, strict=True)
        )
        log(f"rollout {self.rollout.name} is {state}: {shares}")
        if state in (ABORTED, STOPPED) and before.state in (RUNNING, PAUSED):
            for pool in self.pools[1:]:
                self._spawn(pool.drain())

    def _watch(self) -> None:
        """Look at the weights again and again, in a thread with a connection of its own."""
        rollouts: Rollouts | None = None
        told = False
        while not self._closing:
            try:
                if rollouts is None:
                    rollouts = self._open()
                state, weights = rollouts.in_force(self._key)
                told = False
                if not self._closing:
                    self._loop.call_soon_threadsafe(self._take, state, weights)
            except MlcliError as error:
                if not told:
                    log(f"rollout {self.rollout.name}: {error.message}; the weights stay as they are")
                told = True
            time.sleep(LOOK)
        if rollouts is not None:
            rollouts.store.close()

    async def _look_after_workers(self) -> None:
        """Let the store know of workers that ended, and of candidates that cannot be started any more."""
        seen = [0] * len(self.pools)
        while True:
            await asyncio.sleep(LOOK)
            for arm in range(1, len(self.pools)):
                pool, name = self.pools[arm], self.rollout.arms[arm].name
                for _ in range(pool.restarts - seen[arm]):
                    self._ended[arm].append(time.monotonic())
                    self.recorder.note(ENDED, name)
                seen[arm] = pool.restarts
                if arm in self._dead:
                    continue
                if arm in self._lost or pool.broken or self._keeps_ending(arm):
                    self._dead.add(arm)
                    self.recorder.note(DEAD, name)

    def _keeps_ending(self, arm: int) -> bool:
        """Whether a candidate that answers clients ends again and again: nobody would be analysed, and nothing decided."""
        moments = self._ended[arm]
        often = len(moments) == ENDS and moments[-1] - moments[0] < WITHIN
        return often and self.assigner.force.weights[arm] > 0

    async def _keep_controller(self) -> None:
        """Have a controller as long as there is something to decide; one that dies gets a successor."""
        while True:
            if self.assigner.force.state in (RUNNING, PAUSED) and (
                self._child is None or self._child.poll() is not None
            ):
                self._child = subprocess.Popen(self._controller, stdin=subprocess.DEVNULL)  # noqa: ASYNC220 - a moment
            await asyncio.sleep(1.0)


def _ended(child: subprocess.Popen[bytes]) -> None:
    """Wait for a controller to end; one in the middle of a long analysis does not hear, and loses nothing when it is killed."""
    try:
        child.wait(2.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def controller_command(store_uri: str, name: str, artifact_root: str = "") -> list[str]:
    """What starts a controller that ends with this process."""
    return [
        sys.executable, "-m", "mlcli.rollouts.controller", store_uri, name, str(os.getpid()),
        *([artifact_root] if artifact_root else []),
    ]  # fmt: skip


def fault(answer: Answer) -> str:
    """Why an answer is the model's fault, "" where it is none: a refusal of bad input is the client's."""
    if answer.status >= 500 or (answer.status == 400 and _RAISED in answer.body[:400]):
        return _words(answer)
    return ""


def _outcomes(body: bytes) -> list[Outcome]:
    """What a body tells of; Refused where it cannot be used."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "BAD_REQUEST", "the body is not JSON") from None
    items = given if isinstance(given, list) else [given]
    if len(items) > MAX_OUTCOMES:
        raise Refused(413, "BAD_REQUEST", f"more than {MAX_OUTCOMES} outcomes at once")
    now = time.time_ns()
    outcomes: list[Outcome] = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise Refused(400, "INVALID_PARAMETER_VALUE", "feedback is an object, or a list of objects")
        try:
            outcomes.append(outcome_of(item, now, lambda: os.urandom(12).hex()))
        except MlcliError as error:
            where = f"item {number}: " if len(items) > 1 else ""
            raise Refused(400, error.error_code, f"{where}{error.message}") from None
    return outcomes


def _words(answer: Answer) -> str:
    try:
        told = json.loads(answer.body)
        text = told.get("message") or told.get("error")
    except (ValueError, AttributeError):
        text = ""
    told = str(text or f"status {answer.status}")[:500]
    return told.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")  # what each database can hold


def _failed(message: str, status: int = 503, error_code: str = "TEMPORARILY_UNAVAILABLE") -> Answer:
    return Answer(status, json.dumps({"error_code": error_code, "message": message}).encode(), 0.0)


def _request_id(given: bytes) -> str:
    """The client's, if it is of a kind that can stand in a header and a table; else a new one."""
    if 0 < len(given) <= 128 and given.isascii():
        text = given.decode("ascii")
        if text.isprintable() and " " not in text:
            return text
    return os.urandom(12).hex()
