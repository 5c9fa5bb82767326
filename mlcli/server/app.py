"""The ASGI application: guards the doors, finds the route, checks who asks and what, and lets a handler answer."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mlcli.errors import MlcliError, StoreUnavailable
from mlcli.server import http
from mlcli.server.call import Call
from mlcli.server.http import Receive, Refused, Scope, Send
from mlcli.server.places import Places
from mlcli.server.routes import FEW, Route, Router, table
from mlcli.server.schema import query_fields, read
from mlcli.server.security import OPEN, READ, Auth, Doors, Identity, Users
from mlcli.server.work import Workers
from mlcli.store import Store

MAX_KEY = 256
DEFAULT_EXPERIMENT = "0"
_BODILESS = frozenset(("GET", "HEAD"))


class Request(NamedTuple):
    """A request as a handler that streams sees it."""

    server: Server
    headers: Mapping[bytes, bytes]
    given: dict[str, Any]
    user: Identity

    def header(self, name: bytes) -> bytes | None:
        return self.headers.get(name)

    @property
    def content_length(self) -> int | None:
        return http.content_length(self.headers)


class Server:
    """An application over one store. ``async`` callable of ASGI; :meth:`close` ends its threads and connections."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        auth: Auth,
        users: Users | None,
        doors: Doors,
        places: Places,
        routes: tuple[Route, ...],
        prefix: str,
    ) -> None:
        self.auth = auth
        self.users = users
        self.doors = doors
        self.places = places
        self.router = Router(routes)
        self.prefix = prefix
        self.workers = Workers(open_store, lambda store: places.settle(store, DEFAULT_EXPERIMENT))

    def close(self) -> None:
        self.workers.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this application does not speak {scope['type']}")
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve(scope, receive, sending)
            return
        except http.Gone:
            return
        except Refused as error:
            refused = error
        except MlcliError as error:
            if isinstance(error, StoreUnavailable):
                _log(f"{scope['method']} {scope['path']!r}: {error.message}")
            refused = http.refusal(error)
        except Exception as error:  # noqa: BLE001 - a bug in one request is told to the log, and ends no other
            _log(f"{scope['method']} {scope['path']!r}: {''.join(traceback.format_exception(error))}")
            refused = Refused(500, "INTERNAL_ERROR", "the server failed; its log says why")
        if started:  # half an answer is out: the connection is cut, so that nobody takes it for a whole one
            raise _Cut
        await http.answer_error(send, refused)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = http.headers_of(scope)
        self.doors.guard(headers)
        route, given = self._route(scope)
        user = self._admit(route, headers)
        if route.streams:
            if route.fields:
                given = {**read(route.fields, query_fields(route.fields, scope["query_string"])), **given}
            await route.handler(Request(self, headers, given, user), receive, send)
            return
        if route.method in _BODILESS:
            found = read(route.fields, query_fields(route.fields, scope["query_string"]))
        else:
            found = read(route.fields, await self._body(headers, receive))
        given = {**found, **given} if given else found
        key = headers.get(b"idempotency-key")
        call_key = None if key is None else key[:MAX_KEY].decode("latin-1")

        def job(store: Store) -> Any:
            return route.handler(Call(self, store, given, user, call_key))

        if route.permission == READ or route.method == "GET" or route.aside:
            quick = route.quick == 1 or found.get("max_results", FEW + 1) <= route.quick
            content = await self.workers.read(lambda store: http.dump(job(store)), quick=quick)
        else:
            content = http.dump(await self.workers.write(job, durable=route.durable))
        await http.answer_json(send, content)

    def _route(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        path: str = scope["path"]
        if self.prefix and path.startswith(self.prefix + "/"):
            path = path[len(self.prefix) :]
        method = scope["method"]
        found = self.router.find(method, path)
        if found is not None:
            for value in found[1].values():
                if not value.isprintable():
                    raise Refused(400, "INVALID_PARAMETER_VALUE", "the path contains characters that cannot be seen")
            return found
        methods = self.router.methods(path)
        if methods:
            raise Refused(
                405, "BAD_REQUEST", f"this path knows {', '.join(methods)}", [(b"allow", ", ".join(methods).encode())]
            )
        raise Refused(404, "ENDPOINT_NOT_FOUND", "there is no such endpoint on this server")

    def _admit(self, route: Route, headers: Mapping[bytes, bytes]) -> Identity:
        user = self.auth.identify(headers.get(b"authorization")) if route.permission != OPEN else NOBODY
        if user is None:
            raise Refused(
                401,
                "UNAUTHENTICATED",
                "this server needs a token: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD",
                [(b"www-authenticate", b'Basic realm="mlcli", charset="UTF-8"')],
            )
        if not user.may(route.permission):
            raise Refused(403, "PERMISSION_DENIED", f"this needs the right to {route.permission}")
        return user

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> dict[str, Any]:
        length = http.content_length(headers)
        if length is not None and length > http.MAX_BODY:
            raise http.too_large(http.MAX_BODY)
        kind = headers.get(b"content-type")
        if kind is None or kind.partition(b";")[0].strip().lower() != b"application/json":
            if kind is None and not length and b"transfer-encoding" not in headers:
                return {}
            raise Refused(415, "BAD_REQUEST", "the body must be JSON: Content-Type: application/json")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(415, "BAD_REQUEST", "the body must not be compressed")
        return http.parse_json(await http.read_body(receive))


class _Cut(Exception):
    """An answer broke off; the protocol closes the connection."""


NOBODY = Identity(None, READ)


def make_app(
    open_store: Callable[[], Store],
    *,
    auth: Auth | None = None,
    users: Users | None = None,
    port: int | None = None,
    allowed_hosts: Iterable[str] = (),
    serve_artifacts: bool = True,
    artifacts_destination: str | None = None,
    static_prefix: str = "",
    overrides: Mapping[str, Callable[[Call], Any]] | None = None,
) -> Server:
    """The application over the store that ``open_store`` opens; each thread of it opens one of its own.

    ``port`` is the one that clients name in their Host header. ``overrides`` puts other handlers in the place of those
    in the table, by the end of the route's path, such as ``runs/create``; permission and fields stay.
    """
    routes = table()
    if not serve_artifacts:
        routes = tuple(route for route in routes if "mlflow-artifacts" not in route.path)
    for end, handler in (overrides or {}).items():
        routes = tuple(route._replace(handler=handler) if route.path.endswith("/" + end) else route for route in routes)
    return Server(
        open_store,
        auth=auth or Auth(),
        users=users,
        doors=Doors(port, allowed_hosts),
        places=Places(served=serve_artifacts, destination=artifacts_destination),
        routes=routes,
        prefix=static_prefix.rstrip("/"),
    )


def _log(text: str) -> None:
    print(f"mlcli server: {text}", file=sys.stderr, flush=True)
