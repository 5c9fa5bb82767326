"""Folders for what a process needs while it lives: gone when it ends, and taken away by the next one if it was killed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator, Tuple

from mlcli import locks

LOCK = "lock"  # held by who made the folder; it lies beside what is put there


@contextmanager
def folder(name: str) -> Iterator[str]:
    """A new folder ``mlcli-NAME-...`` for the length of a block; what killed processes left of that name goes first."""
    place, held = _made(name)
    try:
        yield place
    finally:
        _take_away(place, held)


def folder_of_process(name: str) -> str:
    """The same until this process ends; a fork of it leaves it to its parent."""
    import atexit

    place, held = _made(name)
    owner = os.getpid()

    def leave() -> None:
        if os.getpid() == owner:
            _take_away(place, held)

    atexit.register(leave)
    return place


def _made(name: str) -> Tuple[str, int]:
    import tempfile

    prefix = f"mlcli-{name}-"
    _sweep(prefix)
    while True:
        place = tempfile.mkdtemp(prefix=prefix)
        lock = os.path.join(place, LOCK)
        try:
            held = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except FileNotFoundError:
            continue
        # A sweep may have been between the two lines, and found a file that nobody held.
        if locks.try_lock(held) and os.path.exists(lock):
            return place, held
        os.close(held)


def _take_away(place: str, held: int) -> None:
    import shutil

    os.close(held)
    shutil.rmtree(place, ignore_errors=True)


def _sweep(prefix: str) -> None:
    """Take away the folders whose makers are gone, as far as this user may."""
    import shutil
    import tempfile

    with os.scandir(tempfile.gettempdir()) as entries:
        places = [
            entry.path for entry in entries if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)
        ]
    for place in places:
        try:
            held = os.open(os.path.join(place, LOCK), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:  # another user's, or gone by now, or about to be locked
            continue
        try:
            if locks.try_lock(held):
                shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(held)
