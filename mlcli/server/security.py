"""Who may do what: tokens and users, and which Host and Origin a request may name.

    role     may
    read     see everything
    write    see and change everything
    admin    the same, and see who the users are

Tokens are 256 random bits; what is kept is their SHA-256. A named user's name is recorded with what that user creates.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mlcli import journal
from mlcli.errors import AlreadyExists, InvalidInput, NotFound
from mlcli.locks import locked
from mlcli.server.http import Refused

OPEN, READ, WRITE, ADMIN = "open", "read", "write", "admin"
ROLES = (READ, WRITE, ADMIN)
_RANK = {OPEN: 0, READ: 1, WRITE: 2, ADMIN: 3}
_USER_NAME = re.compile(r"[A-Za-z0-9][\w.@+\-]{0,127}\Z", re.ASCII)
LEAST_TOKEN = 16


class Identity(NamedTuple):
    """Who asks; ``name`` is None where nobody in particular is known."""

    name: str | None
    role: str

    def may(self, permission: str) -> bool:
        return _RANK[self.role] >= _RANK[permission]


ANYBODY = Identity(None, ADMIN)


class Auth:
    """Tells who sends a request. Without a token and without users everybody may do everything."""

    def __init__(self, token: str | None = None, users: Users | None = None, *, required: bool = False) -> None:
        if token is not None and len(token) < LEAST_TOKEN:
            raise InvalidInput(
                f"the token is too short: at least {LEAST_TOKEN} characters are needed",
                hint="remove the token file; the next start makes a good one",
            )
        self._token = None if token is None else _digest(token)
        self._users = users
        self._required = required or token is not None

    @property
    def required(self) -> bool:
        return self._required or bool(self._users and self._users.read())

    def identify(self, authorization: bytes | None) -> Identity | None:
        """The sender; None where a token is needed and is missing or unknown."""
        users = self._users.read() if self._users else {}
        if not self._required and not users:
            return ANYBODY
        digest = _digest(_password(authorization))
        found = None
        # Every hash is compared, and in constant time: how long it takes tells nothing.
        for name, user in users.items():
            if hmac.compare_digest(digest, user["token"]):
                found = Identity(name, user["role"])
        if self._token is not None and hmac.compare_digest(digest, self._token):
            found = Identity(None, ADMIN)
        return found


class Users:
    """The users of a server: a file beside the store that only its owner can read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._users: dict[str, dict[str, Any]] = {}

    def read(self) -> Mapping[str, dict[str, Any]]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            self._seen, self._users = None, {}
            return self._users
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._seen:
            self._users = self._load()
            self._seen = seen
        return self._users

    def add(self, name: str, role: str) -> str:
        """Add a user and return the token, which is not kept and cannot be shown again."""
        if not _USER_NAME.match(name):
            raise InvalidInput(f"{name!r} cannot be a user's name", hint="letters, digits and _ . @ + - are allowed")
        if role not in ROLES:
            raise InvalidInput(f"there is no role {role!r}", hint="one of " + ", ".join(ROLES))
        token = secrets.token_urlsafe(32)
        with locked(self.path + ".lock", timeout=10):
            users = self._load()
            if name in users:
                raise AlreadyExists(f"there is a user {name!r} already", hint="remove it first to give a new token")
            users[name] = {"role": role, "token": _digest(token), "created": journal.now()}
            self._save(users)
        return token

    def remove(self, name: str) -> None:
        if not os.path.exists(self.path):
            raise _no_user(name)
        with locked(self.path + ".lock", timeout=10):
            users = self._load()
            if users.pop(name, None) is None:
                raise _no_user(name)
            self._save(users)

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            with open(self.path, encoding="utf-8") as file:
                users = json.load(file)["users"]
            return {str(name): {**user, "token": str(user["token"]), "role": _RANK[user["role"]] and user["role"]}
                    for name, user in users.items()}  # fmt: skip
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            # Nobody gets in rather than everybody.
            raise InvalidInput(f"{self.path} is damaged", hint="remove it and add the users again") from None

    def _save(self, users: Mapping[str, Any]) -> None:
        aside = f"{self.path}.tmp-{os.getpid()}"
        write_secret(aside, json.dumps({"version": 1, "users": users}, indent=1))
        os.replace(aside, self.path)


def _no_user(name: str) -> NotFound:
    return NotFound(f"there is no user {name!r}", hint="`mlcli server users list` lists them")


def write_secret(path: str, text: str) -> None:
    """Write a new file that nobody but its owner can read."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def token_from(path: str) -> tuple[str, bool]:
    """The token that the file holds, made and kept there if there is none; whether it is new."""
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        write_secret(path, token + "\n")
        return token, True
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the token file {path}: {error}") from error
    if len(token) < LEAST_TOKEN:
        raise InvalidInput(
            f"the token in {path} is too short: at least {LEAST_TOKEN} characters are needed",
            hint="remove the file; the next start makes a good one",
        )
    return token, False


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _password(authorization: bytes | None) -> str:
    """The token in ``Bearer TOKEN``, or the password in ``Basic ...``; "" where there is neither."""
    scheme, _, rest = (authorization or b"").strip().partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer":
        return rest.decode("latin-1")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[2]
        except ValueError:
            return ""
    return ""


class Doors:
    """Which Host a request may name: an address, ``localhost``, or a name that the server was told of; with its port.

    A web page can make a browser send requests here under a name of its own (DNS rebinding); it cannot make it send an
    address, nor hide where a request comes from (Origin, Sec-Fetch-Site).
    """

    def __init__(self, port: int | None, allowed: Iterable[str] = ()) -> None:
        self.port = port
        self._names = {"localhost"}
        self._exact: set[str] = set()
        for item in allowed:
            name = item.strip().lower()
            if not name or "*" in name or "/" in name:
                raise InvalidInput(
                    f"{item!r} is not a host that can be allowed",
                    hint="name hosts exactly, without wildcards: --allowed-hosts team.example.org,team.example.org:8443",
                )
            (self._exact if re.search(r":\d+\Z", name) else self._names).add(name)
        self._known: dict[bytes, bool] = {}

    def guard(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what a web page of somebody else's may have sent."""
        host = headers.get(b"host", b"")
        if not self.host_allowed(host):
            raise Refused(
                403, "PERMISSION_DENIED", "this server is not known by that Host; --allowed-hosts names more of them"
            )
        if not self.origin_allowed(headers.get(b"origin"), headers.get(b"sec-fetch-site"), host):
            raise Refused(403, "PERMISSION_DENIED", "requests from other web pages are refused")

    def host_allowed(self, header: bytes) -> bool:
        known = self._known.get(header)
        if known is None:
            known = self._judge(header)
            if known and len(self._known) < 1000:
                self._known[header] = known
        return known

    def _judge(self, header: bytes) -> bool:
        try:
            text = header.decode("ascii").lower()
        except UnicodeDecodeError:
            return False
        if text in self._exact:
            return True
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]@/?#\s]+)(?::([0-9]{1,5}))?", text)
        if not match:
            return False
        host, port = match[1], match[2]
        named = host in self._names and host != "localhost"
        # Behind a proxy the port is the proxy's, mostly none; an address or localhost is reached at our own port.
        if port is None:
            if not (named or self.port in (80, 443, None)):
                return False
        elif self.port is not None and int(port) != self.port:
            return False
        if host in self._names:
            return True
        try:
            ipaddress.ip_address(host[1:-1] if host.startswith("[") else host)
        except ValueError:
            return False
        return True

    def origin_allowed(self, origin: bytes | None, site: bytes | None, host: bytes) -> bool:
        """Whether a page may send this: only one of our own."""
        if site is not None and site.lower() not in (b"same-origin", b"none"):
            return False
        return origin is None or origin.lower() in (b"http://" + host.lower(), b"https://" + host.lower())


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
