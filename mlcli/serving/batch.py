"""Predict for a whole file: a worker reads it part by part, and what it writes gets its name when it is complete."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlcli.errors import InvalidInput, MlcliError, ModelError
from mlcli.models.worker import ANSWER
from mlcli.serving.launch import Launch, Started


def predict_file(launch: Launch, target: str | None, tick: Callable[[int], None] | None = None) -> int:
    """Let a worker do the launch's file job and return the number of rows; ``tick`` is told the bytes that were read.

    ``target`` None is standard output. A pipe or a device is written to; only a file is put in the place of another.
    """
    if target is None:
        return _run(launch, 1, tick)
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise InvalidInput(f"there is no folder {folder}")
    if os.path.isdir(target):
        raise InvalidInput(f"{target} is a folder")
    if os.path.exists(target) and not os.path.isfile(target):
        descriptor = os.open(target, os.O_WRONLY)
        try:
            return _run(launch, descriptor, tick)
        finally:
            os.close(descriptor)
    aside = os.path.join(folder, f".{os.path.basename(target)}.{os.getpid()}.part")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        rows = _run(launch, descriptor, tick)
        os.fsync(descriptor)
        os.replace(aside, target)
    except BaseException:
        os.unlink(aside)
        raise
    finally:
        os.close(descriptor)
    return rows


def _run(launch: Launch, target: int, tick: Callable[[int], None] | None) -> int:
    given = launch.file or {}
    with _opened(given.get("source")) as source:
        file = {**given, "source": None, "target": os.dup(target)}
        try:
            started = launch._replace(file=file).start(file["target"], stdin=source)
        finally:
            os.close(file["target"])
    try:
        return _follow(started, tick)
    finally:
        started.sock.close()
        started.process.kill()
        started.process.wait()


@contextmanager
def _opened(path: str | None) -> Iterator[int | None]:
    """The input for the worker to read as its standard input; None is ours.

    It is opened here: ``/dev/fd/63``, as a shell names a pipe, is nothing to another process.
    """
    if path is None:
        yield None
        return
    try:
        source = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    try:
        yield source
    finally:
        os.close(source)


def _follow(started: Started, tick: Callable[[int], None] | None) -> int:
    """Read what the worker tells until it is done."""
    while True:
        head = _exactly(started, ANSWER.size)
        length, number, status, _ = ANSWER.unpack(head)
        body = _exactly(started, length)
        if status >= 400:
            told = json.loads(body)
            kind = InvalidInput if told["error_code"] == InvalidInput.error_code else ModelError
            error: MlcliError = kind(told["message"], hint=told.get("hint", ""))
            raise error
        if number and status == 200:
            return int(body)
        if number and tick:
            tick(int(body))


def _exactly(started: Started, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = started.sock.recv(size - len(parts), socket.MSG_WAITALL)
        if not part:
            code = started.process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ModelError(f"the process that predicts {how}", hint="what it said stands above")
        parts += part
    return parts
