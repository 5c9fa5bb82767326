"""Locks between processes: an OS lock on a file, freed by the kernel whenever its holder dies.

flock rather than POSIX record locks: those vanish as soon as the same process closes any other handle on the file.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Callable, Iterator, List, Optional

if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int, shared: bool) -> bool:  # noqa: ARG001 - Windows has exclusive locks only
        try:
            os.lseek(fd, 2**40, os.SEEK_SET)  # far behind the content, so that reading stays possible
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(fd: int, shared: bool) -> bool:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock the open file ``fd`` if nobody holds it; closing every copy of ``fd`` unlocks it."""
    return _try_lock(fd, shared)


@contextmanager
def locked(
    path: str, *, timeout: Optional[float] = None, on_wait: Optional[Callable[[], None]] = None
) -> Iterator[int]:
    """Hold the lock file ``path`` (created if missing) and yield its descriptor.

    ``on_wait`` is called once when somebody else holds it. A child that is given the descriptor (``pass_fds``) keeps
    the lock alive after its parent's death. Raises TimeoutError after ``timeout`` seconds.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if not try_lock(fd):
            _wait(fd, path, timeout, on_wait)
        yield fd
    finally:
        os.close(fd)


def _wait(fd: int, path: str, timeout: Optional[float], on_wait: Optional[Callable[[], None]]) -> None:
    if on_wait:
        on_wait()
    if timeout is None and sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    end = monotonic() + (timeout if timeout is not None else float("inf"))
    pause = 0.0005
    while not try_lock(fd):
        if monotonic() >= end:
            raise TimeoutError(f"somebody else holds the lock {path}")
        sleep(pause)
        pause = min(pause * 1.5, 0.02)


def holders(*paths: str) -> List[str]:
    """The other processes that hold a write lock on one of the files, in words, where the kernel tells (Linux)."""
    inodes = {str(os.stat(path).st_ino) for path in paths if os.path.exists(path)}
    found = {}
    try:
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:  # 1: FLOCK ADVISORY WRITE 4711 fe:00:12345 0 EOF; "->" marks one that waits
                words = line.split()
                if len(words) > 5 and words[3] == "WRITE" and words[5].rpartition(":")[2] in inodes:
                    found[int(words[4])] = f"process {words[4]}{_command(words[4])}"
    except (OSError, ValueError):
        return []
    found.pop(os.getpid(), None)
    return [found[process] for process in sorted(found) if process > 0]


def _command(process: str) -> str:
    """The first words of a process's command line: the later ones may hold what is nobody's business."""
    try:
        with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
            words = file.read().split("\0")
    except OSError:
        return ""
    text = " ".join([os.path.basename(words[0]), *words[1:2]])[:60]
    return f" ({text.strip()})" if text.isprintable() and text.strip() else ""
