"""The processes of a run: found by their session, their ancestry or the run's mark in their environment, and ended.

A program may leave the group it was started in (a daemon does), but not all three traces at once by accident.
Elsewhere than on Linux only the process group is known; it stands in the list as one entry with a negative pid.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Collection, Iterable, NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


# A guardian (guardian.py) calls itself so. It is never signalled: it ends by itself once it has ended its own run, and
# whoever killed it would set the program of a nested run free.
GUARDIAN = "run-guardian"


class Kin(NamedTuple):
    """A living process of a run (or, with a negative pid, a process group) and its name."""

    pid: int
    name: str


def prctl(option: int, value: int) -> bool:
    """Ask the Linux kernel to change an attribute of this process; False where there is no such call."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def children() -> set[int] | None:
    """The direct children of this process, zombies among them; None where the kernel does not list them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return None


def find(leader: int, mark: bytes, *, ancestor: int | None = None, ignore: Collection[int] = ()) -> list[Kin]:
    """List the living processes that share ``leader``'s session, carry ``mark``, or descend from ``ancestor``.

    ``mark`` is a ``NAME=value`` of their environment. ``ignore`` and what descends from it does not count.
    """
    if not sys.platform.startswith("linux"):
        return [Kin(-leader, "its process group")] if signal_group(leader, 0) else []
    table = _table()
    ours = os.getpid()

    def descends(pid: int) -> bool:
        seen: set[int] = set()
        while pid in table and pid not in seen:
            if pid in ignore:
                return False
            seen.add(pid)
            pid = table[pid].parent
            if pid == ancestor:
                return True
        return False

    return [
        Kin(pid, entry.name)
        for pid, entry in table.items()
        if pid != ours
        and pid not in ignore
        and entry.state not in "ZX"
        and (entry.session == leader or (ancestor and descends(pid)) or (mark and _carries(pid, mark)))
    ]


class _Entry(NamedTuple):
    name: str
    state: str
    parent: int
    session: int


def _table() -> dict[int, _Entry]:
    result = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                before, _, after = file.read().rpartition(b")")  # the name may hold spaces and brackets
        except OSError:  # gone in between
            continue
        fields = after.split()
        comm = before.partition(b"(")[2].decode("utf-8", "replace")
        result[int(name)] = _Entry(comm, fields[0].decode(), int(fields[1]), int(fields[3]))
    return result


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:  # gone, or not ours to read
        return False


def signal_group(leader: int, signum: int) -> bool:
    """Send ``signum`` to the process group of ``leader``; False when it has no member that can be signalled."""
    try:
        os.killpg(leader, signum)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True


def signal_all(kin: Iterable[Kin], signum: int) -> None:
    """Send ``signum`` to all but the guardians."""
    for one in kin:
        if one.name != GUARDIAN:
            _signal(one.pid, signum)


def _signal(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def reap(pids: Iterable[int]) -> None:
    """Collect those of our (adopted) children among ``pids`` that are dead."""
    for pid in pids:
        _reap(pid)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def names(kin: Collection[Kin]) -> str:
    """``python (4711), sleep (4712)``, cut after five."""
    shown = ", ".join(f"{one.name} ({one.pid})" if one.pid > 0 else one.name for one in list(kin)[:5])
    return f"{shown} and {len(kin) - 5} more" if len(kin) > 5 else shown


END_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


def signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
