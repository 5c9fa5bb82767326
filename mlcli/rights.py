"""Folders and files that nobody but their owner may change, even where the umask would let everybody."""

from __future__ import annotations

import os
import stat

FOLDER = 0o755
FILE = 0o644
_OTHERS_WRITE = 0o022


def make_folder(path: str) -> None:
    """Create a folder and the folders above it that are missing; the umask may take rights away, never give more."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and parent != path:
        make_folder(parent)
    try:
        os.mkdir(path, FOLDER)
    except FileExistsError:  # made by another process meanwhile, or something else is in the way
        if not os.path.isdir(path):
            raise


def protect(path: str) -> None:
    """Take the right to write from group and others, for a file or folder that somebody else's code made for us."""
    _protect_one(path)
    for parent, below, files in os.walk(path):
        for name in below + files:
            _protect_one(os.path.join(parent, name))


def _protect_one(path: str) -> None:
    found = os.lstat(path)
    if found.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(found.st_mode):
        os.chmod(path, stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)


def opener(path: str, flags: int) -> int:
    """For ``open(..., opener=rights.opener)``."""
    return os.open(path, flags | getattr(os, "O_CLOEXEC", 0), FILE)
