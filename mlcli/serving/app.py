"""The gateway's application: guards the doors, reads a body, lets a worker answer it; and what tells of the model.

POST /invocations                                 MLflow's protocol
GET  /ping /health                                200 when the model can predict, else 503
GET  /version                                     of mlcli
GET  /v2 /v2/health/live /v2/health/ready         the Open Inference Protocol
GET  /v2/models/NAME[/versions/V][/ready]
POST /v2/models/NAME[/versions/V]/infer
POST /feedback                                    of a rollout: what became of requests
GET  /metrics                                     for Prometheus
GET  /docs /openapi.json                          to read, and to try in a browser
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from mlcli._version import __version__
from mlcli.errors import MlcliError
from mlcli.models.worker import INFER, KINDS
from mlcli.server import http
from mlcli.server.http import Headers, Receive, Refused, Scope, Send
from mlcli.server.security import Auth, Doors
from mlcli.serving import metrics
from mlcli.serving.openapi import document, tensors
from mlcli.serving.pool import Pool

_STATIC = os.path.join(os.path.dirname(__file__), "static")
_PAGES = {
    "/docs": ("docs.html", b"text/html; charset=utf-8"),
    "/docs/docs.js": ("docs.js", b"text/javascript; charset=utf-8"),
    "/docs/docs.css": ("docs.css", b"text/css; charset=utf-8"),
}
_JSON: Headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
_TEXT: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), *http.SAFE]
_PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    b" frame-ancestors 'none'"
)
_CLOSE = (b"connection", b"close")
_MAX_KINDS = 64


class Asked(NamedTuple):
    """A request for predictions as a policy sees it; its body is read by no one before the worker."""

    headers: Mapping[bytes, bytes]
    kind: int
    body: bytes


class Family(NamedTuple):
    """A metric for Prometheus with its rows of labels and value."""

    name: str
    kind: str
    about: str
    rows: Sequence[tuple[Mapping[str, object], float | None]]


class Policy(Protocol):
    """Decides which model version answers a request, and learns how it went."""

    async def start(self) -> None:
        """Begin, once the gateway's own pool can predict; it starts all other pools."""
        ...

    async def respond(self, asked: Asked) -> tuple[int, bytes, Headers]: ...

    async def feedback(self, body: bytes) -> tuple[int, bytes, Headers]:
        """Take what became of requests that were answered."""
        ...

    async def close(self) -> None:
        """End, when all requests have been answered."""
        ...

    def families(self) -> Sequence[Family]:
        """What it has to tell Prometheus."""
        ...


class Gateway:
    """An ASGI application over pools of workers: ``pool`` answers, unless a ``policy`` says which of them does."""

    def __init__(
        self,
        pool: Pool,
        *,
        doors: Doors,
        auth: Auth | None = None,
        max_body: int = http.MAX_BODY,
        policy: Policy | None = None,
        more: tuple[Pool, ...] = (),
    ) -> None:
        self.pool = pool
        self.more = more
        self.policy = policy
        self.draining = False
        self.swaps = 0
        self.failed_swaps = 0
        self.started = time.time()
        self._doors = doors
        self._auth = auth or Auth()
        self._max_body = max_body
        self._kinds: dict[bytes, int] = {}
        self._counts: dict[tuple[str, int], int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this application does not speak {scope['type']}")
        path: str = scope["path"]
        what = "other"
        try:
            headers = http.headers_of(scope)
            self._doors.guard(headers)
            if path == "/invocations" and scope["method"] == "POST":
                what = "invocations"
                status, content, told = await self._invocations(headers, receive)
            else:
                what, status, content, told = await self._other(scope["method"], path, headers, receive)
        except http.Gone:
            return
        except Refused as error:
            status, content, told = error.status, _refusal(path, error), [*_JSON, *error.headers]
        except Exception as error:  # noqa: BLE001 - a bug in one request is told to the log, and ends no other
            _log(f"{scope['method']} {path!r}: {''.join(traceback.format_exception(error))}")
            refused = Refused(500, "INTERNAL_ERROR", "the server failed; its log says why")
            status, content, told = 500, _refusal(path, refused), _JSON
        key = (what, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self.draining:
            told = [*told, _CLOSE]
        await http.answer(send, status, content, told)

    # -- predictions

    async def _invocations(self, headers: Mapping[bytes, bytes], receive: Receive) -> tuple[int, bytes, Headers]:
        self._admit(headers)
        given = headers.get(b"content-type", b"")
        kind = self._kinds.get(given)
        if kind is None:
            kind = self._kind(given)
        _uncompressed(headers)
        body = await self._body(headers, receive)
        if self.policy is None:
            answer = await self.pool.ask(kind, body)
            return answer.status, answer.body, _JSON
        return await self.policy.respond(Asked(headers, kind, body))

    def _kind(self, given: bytes) -> int:
        """What a Content-Type says of the body; the parameter charset=utf-8 is the only one, as in MLflow."""
        text = given.decode("latin-1")
        name, *parameters = [part.strip() for part in text.split(";")]
        if not name:
            raise Refused(415, "BAD_REQUEST", f"the request has no Content-Type; known: {', '.join(KINDS)}")
        kind = KINDS.get(name.lower())
        if kind is None:
            raise Refused(
                415, "BAD_REQUEST", f"the Content-Type {name[:100]!r} is not known; known: {', '.join(KINDS)}"
            )
        for parameter in filter(None, parameters):
            key, _, value = parameter.partition("=")
            if key.strip().lower() != "charset" or value.strip().strip('"').lower() not in ("utf-8", "utf8"):
                raise Refused(415, "BAD_REQUEST", f"the body must be UTF-8 and nothing else: {parameter[:100]!r}")
        if len(self._kinds) < _MAX_KINDS:
            self._kinds[given] = kind
        return kind

    async def _infer(
        self, name: str, version: str, headers: Mapping[bytes, bytes], receive: Receive
    ) -> tuple[int, bytes, Headers]:
        pool = self._find(name, version)
        if b"inference-header-content-length" in headers:
            raise Refused(415, "BAD_REQUEST", "binary tensors are not supported; send them as JSON")
        given = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if given != b"application/json":
            raise Refused(415, "BAD_REQUEST", "the body must be JSON: Content-Type: application/json")
        _uncompressed(headers)
        body = await self._body(headers, receive)
        if self.policy is not None and not version:
            status, content, told = await self.policy.respond(Asked(headers, INFER, body))
        else:
            status, content, _ = await pool.ask(INFER, body)
            told = _JSON
        return status, content if status == 200 else _as_v2(content), told

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        length = http.content_length(headers)
        if length is not None and length > self._max_body:
            raise http.too_large(self._max_body)
        return await http.read_body(receive, self._max_body)

    def _admit(self, headers: Mapping[bytes, bytes]) -> None:
        if self._auth.required and self._auth.identify(headers.get(b"authorization")) is None:
            raise Refused(
                401,
                "UNAUTHENTICATED",
                "this server needs a token: Authorization: Bearer TOKEN",
                [(b"www-authenticate", b'Bearer realm="mlcli"')],
            )

    # -- the rest

    async def _other(
        self, method: str, path: str, headers: Mapping[bytes, bytes], receive: Receive
    ) -> tuple[str, int, bytes, Headers]:
        parts = path.strip("/").split("/")
        if len(parts) >= 3 and parts[:2] == ["v2", "models"]:
            name, version, what = _named(parts[2:])
            _allow(method, ("POST",) if what == "infer" else ("GET", "HEAD"))
            self._admit(headers)
            if what == "infer":
                return "infer", *await self._infer(name, version, headers, receive)
            return "other", *self._tell(name, version, what)
        if path == "/invocations":
            _allow(method, ("POST",))
        if path == "/feedback" and self.policy is not None:
            _allow(method, ("POST",))
            self._admit(headers)
            _uncompressed(headers)
            return "feedback", *await self.policy.feedback(await self._body(headers, receive))
        page = _PAGES.get(path)
        if page is not None:
            _allow(method, ("GET", "HEAD"))
            return "other", 200, _file(page[0]), [(b"content-type", page[1]), *_safe_page()]
        simple = _SIMPLE.get(path)
        if simple is None:
            raise Refused(404, "ENDPOINT_NOT_FOUND", "there is no such endpoint on this server")
        _allow(method, ("GET", "HEAD"))
        if not simple.open:
            self._admit(headers)
        return "other", *simple.answer(self)

    @property
    def ready(self) -> bool:
        return self.pool.ready and not self.draining

    def _find(self, name: str, version: str) -> Pool:
        for pool in (self.pool, *self.more):
            if pool.name == name and version in ("", pool.version):
                return pool
        told = f"there is no model {name!r}" + (f" of version {version!r}" if version else "")
        known = ", ".join(sorted({f"{pool.name} {pool.version}".strip() for pool in (self.pool, *self.more)}))
        raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"{told} here; served: {known}")

    def _tell(self, name: str, version: str, what: str) -> tuple[int, bytes, Headers]:
        pool = self._find(name, version)
        if what == "ready":
            fine = pool.ready and not self.draining
            return (200 if fine else 503), http.dump({"name": name, "ready": fine}), _JSON
        inputs, outputs = tensors(pool.about)
        versions = [each.version for each in (self.pool, *self.more) if each.name == name]
        told = {
            "name": name,
            "versions": versions,
            "platform": "mlcli_" + "_".join(pool.about.get("flavors", [])),
            "inputs": inputs,
            "outputs": outputs,
        }
        return 200, http.dump(told), _JSON

    def ping(self) -> tuple[int, bytes, Headers]:
        return (200 if self.ready else 503), b"\n", _JSON

    def version(self) -> tuple[int, bytes, Headers]:
        return 200, __version__.encode(), _JSON

    def server(self) -> tuple[int, bytes, Headers]:
        return 200, http.dump({"name": "mlcli", "version": __version__, "extensions": []}), _JSON

    def live(self) -> tuple[int, bytes, Headers]:
        return 200, b'{"live":true}', _JSON

    def is_ready(self) -> tuple[int, bytes, Headers]:
        return (200 if self.ready else 503), http.dump({"ready": self.ready}), _JSON

    def openapi(self) -> tuple[int, bytes, Headers]:
        told = document(self.pool, protected=self._auth.required)
        return 200, http.dump(told), [*_JSON, (b"cache-control", b"no-store")]

    def metrics(self) -> tuple[int, bytes, Headers]:
        page = metrics.Page()
        pools = (self.pool, *self.more)
        name = "mlcli_serve_"
        page.family(f"{name}up", "gauge", "Whether the model can predict.", [({}, int(self.ready))])
        page.family(f"{name}start_time_seconds", "gauge", "When the server was started.", [({}, self.started)])
        page.family(
            f"{name}responses_total",
            "counter",
            "Answers by endpoint and status.",
            [({"endpoint": what, "status": status}, count) for (what, status), count in sorted(self._counts.items())],
        )
        page.family(
            f"{name}model_swaps_total",
            "counter",
            "Model versions that took the place of another.",
            [({"outcome": "done"}, self.swaps), ({"outcome": "failed"}, self.failed_swaps)],
        )
        page.histogram(
            f"{name}prediction_seconds",
            "From the whole request to its answer.",
            [(_of(pool), pool.latency) for pool in pools],
        )
        page.family(
            f"{name}predictions_total",
            "counter",
            "Answers of the model by status.",
            [
                ({**_of(pool), "status": status}, count)
                for pool in pools
                for status, count in sorted(pool.statuses.items())
            ],
        )
        page.family(
            f"{name}waiting", "gauge", "Requests without an answer yet.", [(_of(pool), pool.waiting) for pool in pools]
        )
        page.family(
            f"{name}worker_restarts_total",
            "counter",
            "Workers that ended and were started again.",
            [(_of(pool), pool.restarts) for pool in pools],
        )
        workers = [({**_of(pool), "worker": worker.place}, worker) for pool in pools for worker in pool.workers]
        for key, kind, about, value in _OF_WORKER:
            page.family(f"{name}worker_{key}", kind, about, [(labels, value(worker)) for labels, worker in workers])
        for family in self.policy.families() if self.policy is not None else ():
            page.family(f"{name}{family.name}", family.kind, family.about, family.rows)
        return 200, page.text(), _TEXT


_OF_WORKER: tuple[tuple[str, str, str, Callable[[Any], float | None]], ...] = (
    ("up", "gauge", "Whether the worker can predict.", lambda worker: int(worker.ready)),
    ("requests_total", "counter", "Requests it answered since its start.", lambda worker: worker.answered),
    ("busy_seconds_total", "counter", "Seconds it predicted since its start.", lambda worker: worker.busy),
    ("memory_bytes", "gauge", "Memory it holds.", lambda worker: worker.memory()),
)


class _Simple(NamedTuple):
    """An answer that needs nothing of the request; ``open`` ones need no token."""

    answer: Callable[[Gateway], tuple[int, bytes, Headers]]
    open: bool


_SIMPLE = {
    "/ping": _Simple(Gateway.ping, True),
    "/health": _Simple(Gateway.ping, True),
    "/version": _Simple(Gateway.version, True),
    "/v2": _Simple(Gateway.server, True),
    "/v2/health/live": _Simple(Gateway.live, True),
    "/v2/health/ready": _Simple(Gateway.is_ready, True),
    "/metrics": _Simple(Gateway.metrics, False),
    "/openapi.json": _Simple(Gateway.openapi, False),
}


def _of(pool: Pool) -> dict[str, object]:
    return {"model": pool.name, "version": pool.version}


def _named(parts: list[str]) -> tuple[str, str, str]:
    """Model, version ("" for the one that answers) and the last word of a path below /v2/models."""
    name, *rest = parts
    version = ""
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
    what = rest[0] if rest else ""
    if len(rest) > 1 or what not in ("", "ready", "infer"):
        raise Refused(404, "ENDPOINT_NOT_FOUND", "there is no such endpoint on this server")
    return name, version, what


def _allow(method: str, methods: tuple[str, ...]) -> None:
    if method not in methods:
        allowed = ", ".join(methods)
        raise Refused(405, "BAD_REQUEST", f"this path knows {allowed}", [(b"allow", allowed.encode())])


def _uncompressed(headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(415, "BAD_REQUEST", "the body must not be compressed")


def _refusal(path: str, refused: Refused) -> bytes:
    if path.startswith("/v2"):
        return http.dump({"error": refused.message, "error_code": refused.error_code})
    return http.dump({"error_code": refused.error_code, "message": refused.message})


def _as_v2(content: bytes) -> bytes:
    """A worker's error in the form of the Open Inference Protocol."""
    told = json.loads(content)
    return http.dump({"error": told["message"], "error_code": told["error_code"]})


def _file(name: str) -> bytes:
    with open(os.path.join(_STATIC, name), "rb") as file:
        return file.read()


def _safe_page() -> Headers:
    return [(key, _PAGE_POLICY if key == b"content-security-policy" else value) for key, value in http.SAFE]


def path_of(pool: Pool) -> str:
    """Where the Open Inference Protocol has this model."""
    return f"/v2/models/{quote(pool.name, safe='')}"


def _log(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the disk of the log is full, or nobody reads it: answers go on
        print(f"mlcli models serve: {text}", file=sys.stderr or sys.__stderr__, flush=True)


def log(error: MlcliError | str) -> None:
    """Say something in the server's log."""
    _log(error if isinstance(error, str) else error.message + (f" ({error.hint})" if error.hint else ""))
