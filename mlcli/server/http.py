"""Requests and answers over ASGI: bodies of bounded size and patience, JSON, errors in MLflow's form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from mlcli.errors import InvalidInput, InvalidState, MlcliError, StoreUnavailable
from mlcli.server.schema import Constant

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_HEAD = 16 * 1024
MAX_BODY = 16 * 1024 * 1024
PATIENCE = 30.0  # seconds without a byte of a body that is still to come

SAFE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
_JSON: Headers = [(b"content-type", b"application/json"), *SAFE]
_TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8"), *SAFE]


class Refused(Exception):
    """A request that is answered with an error before it reaches the store."""

    def __init__(
        self, status: int, error_code: str, message: str, headers: Headers | None = None, *, hint: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.message = message
        self.hint = hint
        self.headers = headers or []


class Gone(Exception):
    """The client went away in the middle of its request."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by their names in small letters; what decides who asks for what may not stand twice."""
    found: dict[bytes, bytes] = {}
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in found and name in _ONCE:
            raise Refused(400, "BAD_REQUEST", "a header that must stand once stands twice")
        found[name] = value
    if size > MAX_HEAD:
        raise Refused(431, "BAD_REQUEST", f"the request line and headers are longer than {MAX_HEAD} bytes")
    return found


_ONCE = frozenset((b"host", b"origin", b"authorization", b"content-length", b"content-type"))


def content_length(headers: Mapping[bytes, bytes]) -> int | None:
    found = headers.get(b"content-length")
    return int(found) if found is not None and found.isdigit() else None


async def answer(send: Send, status: int, content: bytes, headers: Headers) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-length", str(len(content)).encode()), *headers],
        }
    )
    await send({"type": "http.response.body", "body": content})


async def answer_json(send: Send, content: bytes) -> None:
    await answer(send, 200, content, _JSON)


async def answer_text(send: Send, text: str) -> None:
    await answer(send, 200, text.encode(), _TEXT)


async def answer_error(send: Send, refused: Refused) -> None:
    told = {"error_code": refused.error_code, "message": refused.message}
    if refused.hint:  # MLflow's clients read on
        told["hint"] = refused.hint
    await answer(send, refused.status, dump(told), [*_JSON, *refused.headers])


def dump(found: Any) -> bytes:
    return _encode(found).encode()


# Nothing we make holds itself: not looking for that saves a fifth of the time.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def refusal(error: MlcliError) -> Refused:
    """The error as MLflow's API tells it."""
    if isinstance(error, StoreUnavailable):
        # Its message is for the owner of the store: it names paths and processes.
        return Refused(503, error.error_code, "the store cannot be used at the moment; the server's log says why")
    if isinstance(error, InvalidState):  # MLflow: INVALID_STATE is 500, and a deleted run a wrong parameter
        return Refused(400, InvalidInput.error_code, error.message, hint=error.hint)
    return Refused(error.http_status, error.error_code, str(error), hint=error.hint)


async def next_part(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of the body, and whether more is to come."""
    late = False
    task = asyncio.current_task()

    def give_up() -> None:
        nonlocal late
        late = True
        if task:
            task.cancel()

    # asyncio.wait_for would make a task of its own for each request.
    timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)
    try:
        message = await receive()
    except asyncio.CancelledError:
        if not late:
            raise
        raise Refused(
            408, "BAD_REQUEST", f"no byte of the body came for {PATIENCE:g} seconds", [(b"connection", b"close")]
        ) from None
    finally:
        timer.cancel()
    if message["type"] != "http.request":
        raise Gone
    return message.get("body", b""), message.get("more_body", False)


async def read_body(receive: Receive, limit: int = MAX_BODY) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        part, more = await next_part(receive)
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int) -> Refused:
    return Refused(413, "BAD_REQUEST", f"the body is larger than {limit} bytes", [(b"connection", b"close")])


def parse_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds; an empty body is an empty object."""
    if not body:
        return {}
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=Constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, _Twice):
            raise Refused(400, "BAD_REQUEST", f"the body names {str(error)[:100]!r} twice") from None
        raise Refused(400, "BAD_REQUEST", "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "BAD_REQUEST", "the body must be a JSON object")
    return found


class _Twice(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Twice(key.encode("ascii", "backslashreplace").decode())
            seen.add(key)
    return found
