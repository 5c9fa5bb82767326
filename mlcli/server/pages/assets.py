"""The files that pages need, from the package: a dict made once, whose names hold a digest of what is in them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import NotFound
from mlcli.server import http
from mlcli.server.http import Receive, Scope, Send

if TYPE_CHECKING:
    from mlcli.server.app import Request

_NAMES = ("app.css", "uplot.css", "app.js", "charts.js", "plots.js", "uplot.js", "icon.svg")
_KINDS = {"css": b"text/css; charset=utf-8", "js": b"text/javascript; charset=utf-8", "svg": b"image/svg+xml"}


class Asset(NamedTuple):
    kind: bytes
    content: bytes
    packed: bytes  # the same, compressed


@cache
def _assets() -> tuple[dict[str, str], dict[str, Asset]]:
    """The name that each file is asked for by, and the files by those names."""
    import gzip

    names, found = {}, {}
    for name in _NAMES:
        content = (files(__package__) / "static" / name).read_bytes()
        stem, _, ending = name.rpartition(".")
        names[name] = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}.{ending}"
        found[names[name]] = Asset(_KINDS[ending], content, gzip.compress(content, 6, mtime=0))
    return names, found


def name_of(name: str) -> str:
    return _assets()[0][name]


async def send_asset(request: Request, _scope: Scope, _receive: Receive, send: Send) -> None:
    """Send a file by the name that tells what is in it: it may be kept for ever."""
    found = _assets()[1].get(request.given["name"])
    if found is None:
        raise NotFound("there is no such file here")
    headers = [
        (b"content-type", found.kind),
        (b"cache-control", b"public, max-age=31536000, immutable"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"vary", b"accept-encoding"),
    ]
    if b"gzip" in (request.header(b"accept-encoding") or b""):
        await http.answer(send, 200, found.packed, [*headers, (b"content-encoding", b"gzip")])
    else:
        await http.answer(send, 200, found.content, headers)
