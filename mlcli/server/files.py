"""Artifacts over HTTP: MLflow's proxy (list, download, upload, delete) and what its pages download.

A download is always an attachment that a browser neither shows nor runs. An upload is streamed to a file aside and takes
its name when it is whole.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlcli import rules, wire
from mlcli.artifacts import TEMPORARY, LocalArtifacts, open_artifacts
from mlcli.entities import FileInfo
from mlcli.errors import InvalidInput, MlcliError, NotFound, StoreUnavailable
from mlcli.server.call import Call
from mlcli.server.http import Gone, Receive, Refused, Send, answer, answer_json, next_part

if TYPE_CHECKING:
    from mlcli.server.app import Request

Json = dict[str, Any]
CHUNK = 1024 * 1024
_ABOUT_NAMES = frozenset((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EINVAL))
_TO_KEEP = [
    (b"content-type", b"application/octet-stream"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
]
_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})\Z")


def list_artifacts(call: Call) -> Json:
    """List a run's files directly in a folder of it."""
    run = call.store.get_run(call.text("run_id"))
    root = call.server.places.of_run(call.store, run.info)
    found = _listed(open_artifacts(run.info.artifact_uri), call.text("path"))
    return wire.filled(root_uri=root, files=[wire.file_info(item) for item in found])


def list_proxied(call: Call) -> Json:
    """List a folder of the proxy; names are relative to it."""
    path = rules.artifact_path(call.text("path"))
    if path.count("/") < 2:  # above any artifacts: nothing to be seen from here
        return {}
    artifacts, below = call.server.places.locate(call.store, path)
    found = [item._replace(path=item.path.rpartition("/")[2]) for item in _listed(artifacts, below)]
    return wire.filled(files=[wire.file_info(item) for item in found])


def _listed(artifacts: LocalArtifacts, path: str) -> list[FileInfo]:
    """What is directly in a folder; a file holds nothing, and neither does what is not there."""
    name = rules.artifact_path(path)
    try:
        return [item for item in artifacts.list(name) if item.path != name]
    except (NotFound, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidInput(f"the artifact path {path[:200]!r} cannot be read: {error.strerror}") from error


async def delete(request: Request, _receive: Receive, send: Send) -> None:
    """Delete a file or folder of the proxy."""
    path = request.given["path"]
    artifacts, below = await request.server.workers.read(
        lambda store: request.server.places.locate(store, path), quick=True
    )
    await request.server.workers.aside(_delete, artifacts, below, path)
    await answer_json(send, b"{}")


def _delete(artifacts: LocalArtifacts, below: str, shown: str) -> None:
    path = artifacts.path(below)
    try:
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        raise _missing(shown) from None
    except OSError as error:
        raise StoreUnavailable(f"cannot delete {path}: {error.strerror}") from error


# -- downloads


async def download(request: Request, _receive: Receive, send: Send) -> None:
    """Download a file; a Range gives a part of it."""
    path = request.given["path"]
    artifacts, below = await request.server.workers.read(
        lambda store: request.server.places.locate(store, path), quick=True
    )
    await send_file(request, send, artifacts, below, path)


async def get_artifact(request: Request, _receive: Receive, send: Send) -> None:
    """Download a file of a run."""
    run_id, path = request.given["run_id"], request.given["path"]
    name = rules.artifact_path(path)
    root = await request.server.workers.read(lambda store: store.artifact_root(run_id), quick=True)
    await send_file(request, send, open_artifacts(root), name, path)


async def get_version_artifact(request: Request, _receive: Receive, send: Send) -> None:
    """Download a file of a model version."""
    given = request.given
    name = rules.artifact_path(given["path"])

    def root(store: Any) -> str:
        # A folder of this machine and nothing else: a URI that a client chose as the source is not followed.
        found: str = store.get_model_version_folder(given["name"], given["version"])
        return found

    folder = await request.server.workers.read(root, quick=True)
    await send_file(request, send, open_artifacts(folder), name, given["path"])


async def send_file(
    request: Request,
    send: Send,
    artifacts: LocalArtifacts,
    below: str,
    shown: str,
    as_what: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a file to be kept or, with other headers of type and policy, to be looked at."""
    fd, found = await request.server.workers.aside(_open, artifacts, below, shown)
    try:
        size = found.st_size
        tag = f'"{found.st_mtime_ns:x}-{size:x}"'.encode()
        start, end = _range(request, size, tag)
        headers = [
            *(as_what or _TO_KEEP),
            *([] if as_what else [(b"content-disposition", _attachment(below))]),
            (b"x-content-type-options", b"nosniff"),
            (b"accept-ranges", b"bytes"),
            (b"etag", tag),
            (b"last-modified", formatdate(found.st_mtime, usegmt=True).encode()),
            (b"content-length", str(end - start).encode()),
        ]
        part = start > 0 or end < size
        if part:
            headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
        await send({"type": "http.response.start", "status": 206 if part else 200, "headers": headers})
        while start < end:
            block = await request.server.workers.aside(os.pread, fd, min(CHUNK, end - start), start)
            if not block:  # it was cut short while it was sent: the client sees that bytes are missing
                raise Gone
            start += len(block)
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        os.close(fd)


def _open(artifacts: LocalArtifacts, below: str, shown: str) -> tuple[int, os.stat_result]:
    path = artifacts.path(below)
    if any(part.startswith(TEMPORARY) for part in below.split("/")):
        raise _missing(shown)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(shown) from None
    except OSError as error:
        raise InvalidInput(f"the artifact {shown!r} cannot be read: {error.strerror}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise _missing(shown)
    return fd, found


def _range(request: Request, size: int, tag: bytes) -> tuple[int, int]:
    """First byte and end of what is asked for; all of it where nothing, or nothing sensible, is."""
    asked = request.header(b"range")
    same = request.header(b"if-range")
    match = _RANGE.match(asked or b"")
    if not match or (same is not None and same != tag) or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if start >= end:
        if match[1] and match[2] and int(match[2]) < int(match[1]):
            return 0, size
        raise Refused(
            416, "BAD_REQUEST", "the range is outside the file", [(b"content-range", f"bytes */{size}".encode())]
        )
    return start, end


def _attachment(path: str) -> bytes:
    name = path.rpartition("/")[2]
    plain = re.sub(r"[^A-Za-z0-9._\- ]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}".encode()


def _missing(path: str) -> NotFound:
    return NotFound(f"there is no artifact {path!r}")


# -- uploads


async def upload(request: Request, receive: Receive, send: Send) -> None:
    """Upload a file; the body is its content."""
    path = request.given["path"]
    workers = request.server.workers
    artifacts, below = await workers.read(lambda store: request.server.places.locate(store, path), quick=True)
    expected = request.content_length
    if below.endswith("/artifacts"):
        raise InvalidInput(f"the artifact path {path!r} names no file")
    waiting, more = await next_part(receive)
    try:
        if not more:
            await workers.aside(artifacts.put_bytes, waiting, below)
        else:
            await _upload_long(workers.aside, artifacts, below, waiting, receive, expected)
    except MlcliError as error:
        raise _judged(error, path) from error
    await answer(send, 200, b"", [(b"x-content-type-options", b"nosniff")])


async def _upload_long(
    aside: Callable[..., Any],
    artifacts: LocalArtifacts,
    below: str,
    first: bytes,
    receive: Receive,
    expected: int | None,
) -> None:
    """Write parts of about a megabyte to a file aside, as they come; only a whole file gets its name."""
    writing = artifacts.writing(below)
    place = await aside(writing.__enter__)
    try:
        with open(place, "wb", buffering=0) as file:  # noqa: ASYNC230 - opening is quick; what takes long is aside
            waiting, more = bytearray(first), True
            while more:
                part, more = await next_part(receive)
                waiting += part
                if len(waiting) >= CHUNK or not more:
                    await aside(_write_all, file, bytes(waiting))
                    waiting.clear()
            if expected is not None and file.tell() != expected:
                raise Gone
    except BaseException as error:
        if not await aside(writing.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await aside(writing.__exit__, None, None, None)


def _judged(error: MlcliError, path: str) -> MlcliError:
    """What the disk refused: the client's fault where it is about the name, else ours."""
    cause = error.__cause__
    if not isinstance(cause, OSError):
        return error
    if cause.errno in _ABOUT_NAMES:
        return InvalidInput(f"the artifact {path[:200]!r} cannot be written: {cause.strerror}")
    return StoreUnavailable(f"the artifact {path[:200]!r} cannot be written: {cause.strerror}")


def _write_all(file: Any, block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise StoreUnavailable(f"cannot write an artifact: {error.strerror}") from error
