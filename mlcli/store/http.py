"""Requests to a tracking server: kept connections, deadlines, retries, credentials that are never shown.

A request that may be sent twice without harm is sent again after a cut connection or an overloaded server's answer. Any
other one is sent again only when it certainly did not arrive; when nobody knows, :class:`Uncertain` says so.
"""

from __future__ import annotations

import atexit
import base64
import http.client
import json
import os
import re
import socket
import ssl
import sys
from random import random
from threading import Lock
from time import monotonic, sleep
from typing import IO, Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar, Union
from urllib.parse import quote, unquote, urlsplit

from mlcli._version import __version__
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, MlcliError, NotFound, StoreUnavailable

T = TypeVar("T")

API = "/api/2.0/mlflow/"  # where MLflow serves its REST API
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
_PATIENCE = (0.1, 0.2, 0.4, 0.8)  # pauses between the attempts, each shortened by chance
_IDLE_SECONDS = 30.0  # a connection that rested longer is not used again
_BUSY = frozenset((429, 502, 503, 504))
_BLOCK = 256 * 1024

# What a server's error_code is here. Anything else goes by the HTTP status.
ERRORS: Mapping[str, Type[MlcliError]] = {
    "INVALID_PARAMETER_VALUE": InvalidInput,
    "BAD_REQUEST": InvalidInput,
    "MALFORMED_REQUEST": InvalidInput,
    "NOT_IMPLEMENTED": InvalidInput,
    "RESOURCE_DOES_NOT_EXIST": NotFound,
    "NOT_FOUND": NotFound,
    "ENDPOINT_NOT_FOUND": NotFound,
    "RESOURCE_ALREADY_EXISTS": AlreadyExists,
    "ALREADY_EXISTS": AlreadyExists,
    "RESOURCE_CONFLICT": InvalidState,
    "ABORTED": InvalidState,
    "INVALID_STATE": InvalidState,
    "UNAUTHENTICATED": StoreUnavailable,
    "CUSTOMER_UNAUTHORIZED": StoreUnavailable,
    "PERMISSION_DENIED": StoreUnavailable,
    "REQUEST_LIMIT_EXCEEDED": StoreUnavailable,
    "RESOURCE_EXHAUSTED": StoreUnavailable,
    "TEMPORARILY_UNAVAILABLE": StoreUnavailable,
    "DEADLINE_EXCEEDED": StoreUnavailable,
    "CANCELLED": StoreUnavailable,
    "INTERNAL_ERROR": MlcliError,
    "DATA_LOSS": MlcliError,
}


_STATE = re.compile(r" is (not )?deleted$|must be in the '?(active|deleted)'? (lifecycle_)?sta[tg]e")


class Unreachable(StoreUnavailable):
    """The server could not be talked to, or is too busy; the request has certainly not been carried out."""


class Uncertain(StoreUnavailable):
    """The connection was cut after the request was sent: it may have been carried out, or not."""


class Refused(StoreUnavailable):
    """The server does not know who asks, or does not let them."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Server:
    """One server, by the address of its root; any number of threads may use it."""

    def __init__(self, url: str, *, environ: Optional[Mapping[str, str]] = None) -> None:
        self.url, user = split_credentials(url)
        if user:
            _credentials[self.url] = user
        parts = urlsplit(self.url)
        self._host, self._port, self._base = parts.hostname or "", parts.port, parts.path.rstrip("/")
        self._tls = parts.scheme == "https"
        self._environ = environ
        self._idle: List[Tuple[http.client.HTTPConnection, float]] = []
        self._lock = Lock()
        self._context: Optional[ssl.SSLContext] = None

    # -- requests

    def json(
        self,
        method: str,
        path: str,
        body: Optional[Mapping[str, Any]] = None,
        *,
        query: Sequence[Tuple[str, object]] = (),
        again: bool = True,
        patience: Optional[float] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Dict[str, Any]:
        """Send a JSON request and return the object that is answered; an error that is answered is raised.

        ``again`` tells that it does no harm to send it twice; ``patience`` how many seconds all of it may take.
        """
        text = "" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        # What is no text goes as it is: the server says so, as it does of any other fault.
        content = None if body is None else text.encode(errors="surrogatepass")
        told = {"Accept": "application/json", **(headers or {})}
        if content is not None:
            told["Content-Type"] = "application/json"
        answer = self.send(method, path + _query(query), content, headers=told, again=again, patience=patience)
        if not answer.body.strip():
            return {}
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise StoreUnavailable(
                f"{self.url} does not answer as a tracking server does",
                hint="is the address right? It is the one that `mlcli server` or `mlflow server` prints",
            )
        return found

    def send(
        self,
        method: str,
        path: str,
        body: Union[bytes, Callable[[], IO[bytes]], None] = None,
        *,
        headers: Optional[Mapping[str, str]] = None,
        again: bool = True,
        patience: Optional[float] = None,
        length: Optional[int] = None,
    ) -> Answer:
        """Send a request, once more where that does no harm, and return the answer; an error that is answered is raised.

        ``body`` may be a function that opens a file of ``length`` bytes; it is called for each attempt.
        """
        return self._attempts(
            lambda seconds: self._once(method, path, body, headers or {}, length, seconds, fresh=not again),
            again=again,
            patience=patience,
        )

    def fetch(self, path: str, target: IO[bytes], tick: Optional[Callable[[int], None]] = None) -> Mapping[str, str]:
        """Append what is at ``path`` to the open file ``target``; goes on after a cut where it stopped.

        Returns the headers of the answer. What is in ``target`` before belongs to the same content.
        """
        validator: List[str] = []

        def once(seconds: float) -> Mapping[str, str]:
            return self._fetch_once(path, target, validator, tick, seconds)

        pauses = 0
        while True:
            before = target.tell()
            try:
                return self._attempts(once, again=True, patience=None)
            except StoreUnavailable:
                pauses = 0 if target.tell() > before else pauses + 1  # as long as it moves on, so do we
                if pauses > 1:
                    raise

    def exchange(
        self,
        method: str,
        path: str,
        body: Union[bytes, Callable[[], IO[bytes]], None],
        headers: Mapping[str, str],
        length: Optional[int],
        fresh: bool,
    ) -> Tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """One request with our credentials, for a caller who reads the answer, whatever it is, and closes the connection."""
        return self._exchange(method, path, body, headers, length, ANSWER_SECONDS, fresh=fresh)

    def _attempts(self, once: Callable[[float], T], *, again: bool, patience: Optional[float]) -> T:
        end = None if patience is None else monotonic() + patience
        for pause in (*_PATIENCE, None):
            seconds = ANSWER_SECONDS if end is None else max(end - monotonic(), 0.05)
            try:
                return once(seconds)
            except (Unreachable, Uncertain) as error:
                retry = again or isinstance(error, Unreachable)
                if pause is None or not retry or (end is not None and monotonic() + pause >= end):
                    raise
                sleep(pause * (0.5 + random() / 2))  # noqa: S311 - so that many clients do not come back at once
        raise AssertionError  # the last attempt returned or raised

    def _once(
        self,
        method: str,
        path: str,
        body: Union[bytes, Callable[[], IO[bytes]], None],
        headers: Mapping[str, str],
        length: Optional[int],
        seconds: float,
        *,
        fresh: bool,
    ) -> Answer:
        response, connection = self._exchange(method, path, body, headers, length, seconds, fresh=fresh)
        try:
            content = response.read()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise self._cut(error) from error
        self._put_back(connection, response)
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        if answer.status >= 300:
            raise self.error(answer)
        return answer

    def _fetch_once(
        self,
        path: str,
        target: IO[bytes],
        validator: List[str],
        tick: Optional[Callable[[int], None]],
        seconds: float,
    ) -> Mapping[str, str]:
        there = target.tell()
        headers = {"Accept-Encoding": "identity"}
        if there:
            headers["Range"] = f"bytes={there}-"
            if validator:
                headers["If-Range"] = validator[0]
        response, connection = self._exchange("GET", path, None, headers, None, seconds, fresh=False)
        found = {name.lower(): value for name, value in response.getheaders()}
        try:
            if response.status == 416 and found.get("content-range", "").rpartition("/")[2] == str(there):
                response.read()
                self._put_back(connection, response)
                return found
            if response.status >= 300:
                content = response.read()
                self._put_back(connection, response)
                raise self.error(Answer(response.status, found, content))
            if there and not found.get("content-range", "").startswith(f"bytes {there}-"):
                target.seek(0)  # a server that knows no ranges, or a file that is another one now
                target.truncate()
            if found.get("etag", "").startswith('"'):
                validator[:] = [found["etag"]]
            expected = int(found["content-length"]) if found.get("content-length", "").isdigit() else None
            received = 0
            while True:
                block = response.read(_BLOCK)
                if not block:
                    break
                target.write(block)
                received += len(block)
                if tick:
                    tick(target.tell())
            if expected is not None and received < expected:
                raise http.client.IncompleteRead(b"", expected - received)
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise self._cut(error) from error
        self._put_back(connection, response)
        return found

    def _exchange(
        self,
        method: str,
        path: str,
        body: Union[bytes, Callable[[], IO[bytes]], None],
        headers: Mapping[str, str],
        length: Optional[int],
        seconds: float,
        *,
        fresh: bool,
    ) -> Tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """Send one request and read the head of its answer; a rested connection found closed is replaced once."""
        everything = {**self._headers(), **headers}
        while True:
            connection, used = self._take(seconds, fresh=fresh)
            content = body() if callable(body) else body
            try:
                if length is not None:
                    everything["Content-Length"] = str(length)
                try:
                    connection.request(method, self._base + path, content, everything)
                except (BrokenPipeError, ConnectionResetError):
                    # The server may have answered before it read all: that answer says why.
                    if used:
                        raise
                return connection.getresponse(), connection
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if used and isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                    fresh = True  # the server closed it while it rested
                    continue
                raise self._cut(error) from error
            except BaseException:
                connection.close()
                raise
            finally:
                if content is not None and not isinstance(content, bytes):
                    content.close()

    # -- connections

    def _take(self, seconds: float, *, fresh: bool) -> Tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was in use before. Only what may be sent twice goes out on a used one."""
        with self._lock:
            while self._idle and not fresh:
                connection, since = self._idle.pop()
                if connection.sock is not None and monotonic() - since < _IDLE_SECONDS:
                    connection.sock.settimeout(min(seconds, ANSWER_SECONDS))
                    return connection, True
                connection.close()
        timeout = min(seconds, CONNECT_SECONDS)
        if self._tls:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._tls_context()
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            made.connect()
        except ssl.SSLError as error:
            made.close()
            raise StoreUnavailable(
                f"no safe connection to {self.url}: {error.reason or error}",
                hint="MLFLOW_TRACKING_SERVER_CERT_PATH names the certificate of a server that signed it itself",
            ) from error
        except OSError as error:
            made.close()
            raise Unreachable(
                f"cannot reach the tracking server {self.url}: {_reason(error)}",
                hint="does it run? `mlcli server` starts one; MLCLI_TRACKING_URI names another store",
            ) from error
        sock: Any = made.sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(min(seconds, ANSWER_SECONDS))
        return made, False

    def _put_back(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        if response.will_close or not response.isclosed():
            connection.close()
            return
        with self._lock:
            self._idle.append((connection, monotonic()))

    def close(self) -> None:
        """Close the connections that rest; the next request opens one again."""
        with self._lock:
            for connection, _ in self._idle:
                connection.close()
            self._idle.clear()

    def after_fork(self) -> None:
        self._lock = Lock()
        self.close()

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = _context(self._setting)
        return self._context

    # -- who we are

    def _setting(self, *names: str) -> str:
        environ = os.environ if self._environ is None else self._environ
        return next((environ[name] for name in names if environ.get(name)), "")

    def _headers(self) -> Dict[str, str]:
        headers = {"User-Agent": f"mlcli/{__version__}"}
        token = self._setting("MLCLI_TRACKING_TOKEN", "MLFLOW_TRACKING_TOKEN")
        user = _credentials.get(self.url)
        if user is None and self._setting("MLFLOW_TRACKING_USERNAME"):
            user = (self._setting("MLFLOW_TRACKING_USERNAME"), self._setting("MLFLOW_TRACKING_PASSWORD"))
        if user is not None:  # what stands in the address is meant for this server
            pair = f"{user[0]}:{user[1]}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
        elif token:
            if not token.isascii() or not token.isprintable():
                raise InvalidInput("the token of the tracking server has characters that a token cannot have")
            headers["Authorization"] = f"Bearer {token}"
        return headers

    # -- what went wrong

    def _cut(self, error: BaseException) -> MlcliError:
        if isinstance(error, (TimeoutError, socket.timeout)):
            return Uncertain(
                f"the tracking server {self.url} does not answer in time", hint="it may be overloaded: try again later"
            )
        return Uncertain(
            f"the connection to the tracking server {self.url} was cut: {_reason(error)}", hint="try again"
        )

    def error(self, answer: Answer) -> MlcliError:
        """What an answer that is no success means here."""
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        told = found if isinstance(found, dict) else {}
        code = str(told.get("error_code") or "")
        message = str(told.get("message") or "").strip()
        hint = str(told.get("hint") or "")
        if answer.status in (401, 403):
            known = "MLCLI_TRACKING_TOKEN holds the token; MLFLOW_TRACKING_USERNAME and _PASSWORD a login"
            may_not = "whoever runs the server gives rights: `mlcli server users add NAME --role ROLE`"
            return Refused(
                f"the tracking server {self.url} refuses: {message or _status(answer.status)}",
                hint=hint or (may_not if "needs the right to" in message else known),
            )
        if answer.status in _BUSY:
            return Unreachable(
                f"the tracking server {self.url} cannot answer now: {message or _status(answer.status)}",
                hint=hint or "try again later",
            )
        if 300 <= answer.status < 400:
            return StoreUnavailable(
                f"{self.url} sends us elsewhere, where we do not follow",
                hint="put the server's final address into MLCLI_TRACKING_URI",
            )
        kind = ERRORS.get(code)
        if kind is InvalidInput and _STATE.search(message):
            kind = InvalidState  # MLflow has one word for both
        if kind is None:
            kind = NotFound if answer.status == 404 else InvalidInput if answer.status < 500 else MlcliError
        if not message:
            message = f"{self.url} answers {_status(answer.status)}"
        return kind(message, hint=hint)


def split_credentials(url: str) -> Tuple[str, Optional[Tuple[str, str]]]:
    """An address in its plain form, and the login that stood in it."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise InvalidInput(f"{masked(url)} is not an address", hint="write http://host:5000") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{masked(url)} is not the address of a server", hint="write http://host:5000")
    if any(char <= " " or char == "\x7f" for char in url.strip()):
        raise InvalidInput(f"{masked(url)!r} has characters that an address cannot have")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = f"{parts.scheme.lower()}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    user = None
    if parts.username is not None:
        user = (unquote(parts.username), unquote(parts.password or ""))
    return plain, user


def masked(uri: str) -> str:
    """The URI without what stands between :// and @: it may hold a password."""
    scheme, sep, rest = uri.partition("://")
    return f"{scheme}{sep}***@{rest.rpartition('@')[2]}" if sep and "@" in rest else uri


def login_variables(url: str) -> Dict[str, str]:
    """The login that stood in an address, as the variables that hand it to a program started from here."""
    user = _credentials.get(url)
    return {} if user is None else {"MLFLOW_TRACKING_USERNAME": user[0], "MLFLOW_TRACKING_PASSWORD": user[1]}


def _query(pairs: Sequence[Tuple[str, object]]) -> str:
    text = "&".join(
        f"{quote(name, safe='')}={quote(str(value), safe='', errors='surrogatepass')}" for name, value in pairs
    )
    return f"?{text}" if text else ""


def _context(setting: Callable[..., str]) -> ssl.SSLContext:
    path = setting("MLFLOW_TRACKING_SERVER_CERT_PATH")
    try:
        if path:
            folder = os.path.isdir(path)
            context = ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
        else:
            context = ssl.create_default_context()
        client = setting("MLFLOW_TRACKING_CLIENT_CERT_PATH")
        if client:
            context.load_cert_chain(client)
    except OSError as error:
        raise InvalidInput(
            f"the certificate cannot be read: {error.strerror or error}",
            hint="look at MLFLOW_TRACKING_SERVER_CERT_PATH and MLFLOW_TRACKING_CLIENT_CERT_PATH",
        ) from error
    if setting("MLFLOW_TRACKING_INSECURE_TLS").lower() in ("true", "1"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "it does not answer"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _status(status: int) -> str:
    return f"{status} {http.client.responses.get(status, '')}".strip()


# -- one per address, so that connections are kept from call to call

_credentials: Dict[str, Tuple[str, str]] = {}
_servers: Dict[str, Server] = {}


def server(url: str) -> Server:
    """The server at an address; the same one each time."""
    plain, user = split_credentials(url)
    if user:
        _credentials[plain] = user
    found = _servers.get(plain)
    if found is None:
        found = _servers[plain] = Server(plain)
    return found


def known(url: str) -> bool:
    """Whether this process speaks with the server at a plain address already."""
    return url in _servers


def _close_all() -> None:
    for found in _servers.values():
        found.close()


def _after_fork() -> None:
    for found in _servers.values():
        found.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork") and sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
