"""Load at a steady rate, and how long each request took from the moment at which it was due.

An open loop: requests are sent when they are due, however slow the answers are. A client that waits for one answer before it
sends the next request would not ask while the server stalls, and so not measure the stall.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mlcli.errors import InvalidInput

MAX_CONNECTIONS = 2000
_BARS = 24
NO_ANSWER = "no answer"


class Target(NamedTuple):
    """Where the load goes, and nowhere else: redirects are not followed."""

    host: str
    port: int
    path: str
    secure: bool

    @classmethod
    def of(cls, url: str) -> Target:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise InvalidInput(f"{url!r} is not the address of a server", hint="write http://127.0.0.1:5000") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise InvalidInput(f"{url!r} is not the address of a server", hint="write http://127.0.0.1:5000")
        path = parts.path if parts.path not in ("", "/") else "/invocations"
        secure = parts.scheme == "https"
        return cls(
            parts.hostname, port or (443 if secure else 80), path + (f"?{parts.query}" if parts.query else ""), secure
        )

    def request(self, body: bytes, kind: str, token: str | None) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {host}:{self.port}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "") + "\r\n"
        )
        return head.encode() + body


class Report(NamedTuple):
    """What a test found; times in seconds from the moment at which each request was due."""

    rate: float
    seconds: float
    latencies: list[float]  # of every request that got an answer, sorted
    statuses: dict[str, int]  # by status, or NO_ANSWER
    service: list[float]  # the same from the moment at which it was really sent, sorted
    late: float  # how far behind its schedule this sender ever was
    reasons: dict[str, int]  # why there was no answer

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        return sum([count for status, count in self.statuses.items() if not status.startswith("2")])

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def percentile(self, share: float) -> float:
        return percentile(self.latencies, share)

    def to_dictionary(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "seconds": self.seconds,
            "requests": self.requests,
            "errors": self.errors,
            "error_rate": self.error_rate,
            "statuses": self.statuses,
            "no_answer": self.reasons,
            "latency_ms": {
                **{f"p{name}": _ms(self.percentile(share)) for name, share in PERCENTILES.items()},
                "mean": _ms(sum(self.latencies) / len(self.latencies) if self.latencies else math.nan),
            },
            "service_ms": {f"p{name}": _ms(percentile(self.service, share)) for name, share in PERCENTILES.items()},
            "sender_late_ms": _ms(self.late),
            "histogram": [{"to_ms": _ms(to), "count": count} for to, count in histogram(self.latencies)],
        }


PERCENTILES = {"50": 0.5, "90": 0.9, "95": 0.95, "99": 0.99, "99.9": 0.999, "100": 1.0}


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1000, 3)


def percentile(found: Sequence[float], share: float) -> float:
    """The least value that ``share`` of all do not exceed; NaN of none."""
    return found[max(0, math.ceil(share * len(found)) - 1)] if found else math.nan


def histogram(found: Sequence[float]) -> list[tuple[float, int]]:
    """Counts between bounds that grow by the same factor, from the least to the greatest."""
    if not found:
        return []
    low, high = max(found[0], 1e-6), max(found[-1], 1e-6)
    steps = min(_BARS, max(1, math.ceil(math.log(high / low) / math.log(1.35)))) if high > low else 1
    bounds = [low * (high / low) ** (number / steps) for number in range(1, steps)] + [high]
    counts = [0] * steps
    place = 0
    for value in found:
        while place < steps - 1 and value > bounds[place]:
            place += 1
        counts[place] += 1
    return list(zip(bounds, counts, strict=True))


def run(
    target: Target,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    timeout: float,
    tick: Callable[[int, int], None] | None = None,
) -> Report:
    """Send the requests one after another, again and again, ``rate`` a second for ``seconds``."""
    return asyncio.run(_Test(target, requests, rate, seconds, timeout, tick).run())


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, test: _Test) -> None:
        self.test = test
        self.due = self.sent = 0.0
        self.busy = False
        self.transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = b""
        self._need = -1
        self._status = ""
        self._close = False
        self._why = "the connection was closed before the answer"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        self.busy, self.due, self.sent = True, due, time.perf_counter()
        self._timer = asyncio.get_running_loop().call_later(self.test.timeout, self._give_up)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._need < 0:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.decode("latin-1").lower().split("\r\n")
            fields = dict([line.split(":", 1) for line in lines[1:] if ":" in line])
            self._status = lines[0].split(" ")[1] if " " in lines[0] else ""
            self._need = int(fields.get("content-length", "0").strip() or 0)
            self._close = "close" in fields.get("connection", "")
            if "chunked" in fields.get("transfer-encoding", ""):
                self._close, self._need = True, -2
            self._buffer = rest
        if self._need == -2:
            if self._buffer.endswith(b"0\r\n\r\n"):
                self._answered()
        elif len(self._buffer) >= self._need:
            self._answered()

    def _answered(self) -> None:
        now = time.perf_counter()
        self.test.note(self._status, now - self.due, now - self.sent)
        self._rest()
        if self._close:
            self.transport.close()
        else:
            self.test.free(self)

    def _rest(self) -> None:
        self.busy, self._buffer, self._need = False, b"", -1
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        self._why = self.test.too_long
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - that it broke is all that counts
        if self.busy:
            self._rest()
            self.test.unanswered(self._why)
        self.test.gone(self)


class _Test:
    def __init__(
        self,
        target: Target,
        requests: Sequence[bytes],
        rate: float,
        seconds: float,
        timeout: float,
        tick: Callable[[int, int], None] | None,
    ) -> None:
        self.target = target
        self.requests = requests
        self.rate = rate
        self.seconds = seconds
        self.timeout = timeout
        self._tick = tick
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._opening = 0
        self._due: deque[tuple[bytes, float]] = deque()  # waits for a connection
        self._latencies: list[float] = []
        self._service: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self.too_long = f"it took longer than {timeout:g} s"
        self._context = ssl.create_default_context() if target.secure else None
        self._late = 0.0
        self._total = max(1, round(rate * seconds))
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()

    async def run(self) -> Report:
        start = time.perf_counter() + 0.05
        for number in range(self._total):
            due = start + number / self.rate
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            elif number % 100 == 0:
                await asyncio.sleep(0)
            self._late = max(self._late, time.perf_counter() - due)
            self._send(self.requests[number % len(self.requests)], due)
        await self._done.wait()
        for connection in list(self._open):
            connection.transport.abort()
        return Report(
            self.rate,
            self.seconds,
            sorted(self._latencies),
            dict(self._statuses),
            sorted(self._service),
            self._late,
            dict(self._reasons.most_common()),
        )

    def _send(self, request: bytes, due: float) -> None:
        if self._idle:
            self._idle.pop().send(request, due)
            return
        self._due.append((request, due))
        if len(self._open) + self._opening < MAX_CONNECTIONS and self._opening < len(self._due):
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        target = self.target
        try:
            made = asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), target.host, target.port, ssl=self._context
            )
            _, connection = await asyncio.wait_for(made, self.timeout)
        except (OSError, asyncio.TimeoutError) as error:
            self._opening -= 1
            if self._due:
                self._due.popleft()
                self.unanswered(self._told(error))
            return
        self._opening -= 1
        self._open.add(connection)
        self.free(connection)

    def _told(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"it does not speak TLS as we do: {error.reason}"
        if isinstance(error, socket.gaierror):
            return f"the name {self.target.host} is not known: {error.strerror}"
        if isinstance(error, OSError):
            return os.strerror(error.errno) if error.errno else str(error) or self.too_long
        return self.too_long

    def free(self, connection: _Connection) -> None:
        if self._due:
            connection.send(*self._due.popleft())
        else:
            self._idle.append(connection)

    def gone(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._due:  # it may have been the one that they waited for
            self._send(*self._due.popleft())

    def unanswered(self, why: str) -> None:
        self._reasons[why] += 1
        self.note(NO_ANSWER, None, None)

    def note(self, status: str, latency: float | None, service: float | None) -> None:
        self._statuses[status] += 1
        if latency is not None and service is not None:
            self._latencies.append(latency)
            self._service.append(service)
        done = self._statuses.total()
        if self._tick and done % 50 == 0:
            self._tick(done, self._total)
        if done >= self._total:
            self._done.set()


# -- bodies


def bodies(path: str) -> tuple[list[bytes], str]:
    """The bodies in a file, and their Content-Type: each row of a CSV table, each line of JSON lines, or the JSON itself."""
    if not os.path.isfile(path):
        raise InvalidInput(f"there is no file {path}")
    ending = os.path.splitext(path)[1].lower()
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if ending == ".csv":
                found = _of_csv(file)
            elif ending in (".jsonl", ".ndjson"):
                found = [_of_object(json.loads(line)) for line in file if line.strip()]
            else:
                found = [_of_object(json.load(file))]
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", hint="it takes .csv, .json and .jsonl") from None
    if not found:
        raise InvalidInput(f"{path} has no rows")
    return found, "application/json"


def _of_csv(file: Any) -> list[bytes]:
    import csv

    reader = csv.reader(file)
    names = next(reader, None)
    if not names:
        return []
    return [
        json.dumps({"dataframe_split": {"columns": names, "data": [[_value(cell) for cell in row]]}}).encode()
        for row in reader
        if row
    ]


def _value(cell: str) -> Any:
    if cell == "":
        return None
    for kind in (int, float):
        try:
            found = kind(cell)
        except ValueError:
            continue
        return found if math.isfinite(found) else cell
    return cell


def _of_object(value: Any) -> bytes:
    """A body that is one already, or a row as an object."""
    if not isinstance(value, dict):
        raise ValueError("a JSON object is wanted: a body of /invocations, or one row")  # noqa: TRY004 - caught above
    known = ("dataframe_split", "dataframe_records", "instances", "inputs", "messages", "prompt", "input")
    return json.dumps(value if any([name in value for name in known]) else {"dataframe_records": [value]}).encode()
