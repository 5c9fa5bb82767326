"""Run the application on uvicorn: one process, a socket bound before anything else, and an end that drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from mlcli.errors import InvalidInput
from mlcli.server.http import MAX_HEAD

if TYPE_CHECKING:
    from mlcli.server.app import Server

HEAD_PATIENCE = 10.0  # seconds in which the head of a request must have come
KEEP_ALIVE = 75  # seconds between two requests of one connection
DRAIN = 10  # seconds that requests under way have to end
_MAX_FILES = 65_536
BACKLOG = 1024
_NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n"
    b"content-length: 71\r\nconnection: close\r\n\r\n"
    b'{"error_code":"BAD_REQUEST","message":"the request is not proper HTTP"}'
)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 is any that is free."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The protocol is named: asyncio turns Nagle's algorithm off only where it is, and it costs 40 ms a request.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise InvalidInput(f"there is no address {host!r} on this machine: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise InvalidInput(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="is another server there? --port 0 takes any port that is free",
        ) from error
    return sock


def serve(app: Server, sock: socket.socket, *, ready: Callable[[], None] | None = None, signals: bool = True) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished, what was acknowledged is stored.

    ``ready`` is called when requests are answered. ``signals`` False leaves them alone, for a server in a thread: its
    end is :attr:`Running.should_exit`.
    """
    running = Running(app, ready=ready, signals=signals)
    try:
        running.run(sockets=[sock])
    finally:
        app.close()


class Running(uvicorn.Server):
    """uvicorn's server with our settings, and signals that end it without killing the process."""

    def __init__(self, app: Any, *, ready: Callable[[], None] | None = None, signals: bool = True) -> None:
        _raise_file_limit()
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # our own application says what is worth saying
        config = uvicorn.Config(
            app,
            http=_protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=DRAIN,
        )
        super().__init__(config)
        self._ready = ready
        self._signals = signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._end)
        if self._ready:
            self._ready()

    def _end(self) -> None:
        self.force_exit = self.should_exit  # asked twice: at once
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn would raise the signal again when all is done, and kill us before our own end."""
        yield


def _protocol() -> type[asyncio.Protocol]:
    """Uvicorn's protocol, httptools' where it is installed, with a guard against heads that never end."""
    base: Any
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        base = HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        base = H11Protocol

    class Guarded(base):  # type: ignore[misc, unused-ignore]
        """Closes a connection that takes too long, or too many bytes, to say what it wants."""

        _guard: asyncio.TimerHandle | None = None
        _head = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            cycle = self.cycle
            if cycle is not None and not cycle.response_complete:  # a request is under way
                self._head = 0
                if self._guard is not None:
                    self._guard.cancel()
                    self._guard = None
                return
            self._head += len(data)
            if self._guard is None:
                self._watch()
            if self._head > 2 * MAX_HEAD:
                self._late()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._guard is not None:
                self._guard.cancel()
                self._guard = None
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - one sentence fits all
            """Say in JSON, as everything else is said, that this is not HTTP."""
            if not self.transport.is_closing():
                self.transport.write(_NOT_HTTP)
                self.transport.close()

        def _watch(self) -> None:
            self._guard = self.loop.call_later(HEAD_PATIENCE, self._late)

        def _late(self) -> None:
            self._guard = None
            if self.cycle is not None and not self.cycle.response_complete:
                return
            if not self.transport.is_closing():
                self.transport.abort()

    return Guarded


def _raise_file_limit() -> None:
    """As many open files as we may have: each connection is one, and a flood of them must leave some for the store."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a sandbox that does not let us: fewer connections then
            return
