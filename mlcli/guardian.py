"""A tiny process that outlives a killed mlcli just long enough to end the child and close the run.

It is a fork of mlcli that waits on a pipe. A goodbye on the pipe lets it go; the end of the pipe without one means
that mlcli was killed. It holds a copy of the journal's lock, so no reader closes the run before the child is gone.
"""

from __future__ import annotations

import os
import signal
from time import monotonic, sleep
from typing import Callable, Collection

from mlcli import kin

GRACE = 5.0
# Those that were killed go at once; the guardian of a nested run may need its own grace before it goes.
AFTER_KILL = GRACE + 2.0
_GOODBYE = b"."


class Guardian:
    """Watches from ``start`` until ``goodbye``; ``last_words`` runs in it when mlcli has been killed.

    ``keep`` are the descriptors, besides its pipe, that it leaves open. ``mark`` is a ``NAME=value`` in the
    environment of every process of the run (see kin.py).
    """

    def __init__(self, *, keep: Collection[int], mark: bytes, last_words: Callable[[], None]) -> None:
        self._keep = keep
        self._mark = mark
        self._last_words = last_words
        self.pid = -1
        self.pipe = -1  # the child itself writes its pid here before it becomes another program

    def start(self) -> None:
        ours, self.pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._watch(ours)
            finally:
                os._exit(0)  # never the caller's clean-up
        os.close(ours)

    def goodbye(self) -> None:
        """Let it go; it no longer holds the journal's lock when this returns."""
        if self.pipe < 0:
            return
        try:
            os.write(self.pipe, _GOODBYE)
        except OSError:  # it was killed
            pass
        os.close(self.pipe)
        self.pipe = -1
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass

    def _watch(self, pipe: int) -> None:
        signal.set_wakeup_fd(-1)
        for signum in (*kin.END_SIGNALS, signal.SIGTSTP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _take_name()
        os.chdir("/")  # keeps no folder busy
        _close_others(pipe, *self._keep)
        said = b""
        while _GOODBYE not in said:
            part = os.read(pipe, 4096)
            if not part:
                self._clean_up(said)
                return
            said += part

    def _clean_up(self, said: bytes) -> None:
        leader = int(said.split(b"\n", 1)[0] or 0)
        if leader:
            end_all(leader, self._mark)
        self._last_words()


def _take_name() -> None:
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(kin.GUARDIAN)
    except OSError:  # not Linux
        pass


def end_all(leader: int, mark: bytes) -> None:
    """End every process of the run: SIGTERM, some seconds, SIGKILL."""
    for signum, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, AFTER_KILL)):
        until = monotonic() + seconds
        known: set[int] = set()
        while found := kin.find(leader, mark):
            kin.signal_all((one for one in found if one.pid not in known), signum)
            known |= {one.pid for one in found}
            if monotonic() > until:
                break
            sleep(0.02)
        else:
            return


def _close_others(*keep: int) -> None:
    """Close every other descriptor: whoever waits for the end of one of them must not wait for us."""
    for fd in _open_descriptors():
        if fd not in keep:
            _close(fd)


def _open_descriptors() -> list[int]:
    # Listed rather than counted up to the limit, which may be a thousand million.
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return [int(name) for name in os.listdir(folder)]
    return list(range(4096))


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # the one that the list itself was read from
        pass
