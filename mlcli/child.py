"""A child process from its start to its truthful end: output, signals, leftovers, what it used.

The child leads a session of its own, so that a signal meant for it reaches all of its group and none of ours. Its
controlling terminal is none: ^C on ours comes to us, and we pass it on. Signals are read from a pipe (the wakeup
descriptor) like everything else, so one loop waits for all.

    what we are sent            what the child's group gets
    SIGINT (^C)                 SIGINT; the second time SIGTERM; the third time SIGKILL
    SIGTERM, SIGHUP, SIGQUIT    the same signal, and SIGKILL when the grace is over
    SIGTSTP (^Z)                SIGSTOP, then we stop too; SIGCONT when we are continued
    SIGUSR1, SIGUSR2, SIGWINCH  the same signal

The end of the child itself decides. Whoever it left behind has a moment to leave, then gets SIGTERM and SIGKILL.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from time import monotonic
from typing import TYPE_CHECKING, Callable, Collection, Mapping, NamedTuple, Sequence

from mlcli import kin
from mlcli.guardian import AFTER_KILL, Guardian
from mlcli.kin import Kin
from mlcli.output import Output

if TYPE_CHECKING:
    import resource

GRACE = 10.0
# What multiprocessing and joblib leave behind goes by itself within this time.
_MOMENT = 1.0
_PASSED_ON = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class End(NamedTuple):
    """How a child ended: by ``code`` or by ``signal``, and which signal asked us to end it, if one did (``asked``)."""

    code: int | None
    signal: int | None
    asked: int | None
    seconds: float
    peak_memory: int  # bytes; of the largest process that was waited for
    cpu_user: float
    cpu_system: float
    leftovers: tuple[Kin, ...]

    @property
    def exit_code(self) -> int:
        """What a shell would call it: the child's code, or 128 + the signal."""
        if self.asked is not None:
            return 128 + self.asked
        if self.signal is not None:
            return 128 + self.signal
        return self.code or 0

    @property
    def status(self) -> str:
        if self.asked is not None or self.signal is not None:
            return "KILLED"
        return "FAILED" if self.code else "FINISHED"

    @property
    def reason(self) -> str:
        """One line that says why, for the run's record; "" when all went well."""
        if self.asked is not None:
            return f"mlcli was sent {kin.signal_name(self.asked)} and passed it on"
        if self.signal is not None:
            hint = ": was the memory full?" if self.signal == getattr(signal, "SIGKILL", 9) else ""
            return f"the program was killed by {kin.signal_name(self.signal)}{hint}"
        if self.code:
            inner = f" ({kin.signal_name(self.code - 128)})" if 128 < self.code < 160 else ""
            return f"the program ended with exit code {self.code}{inner}"
        return ""


def run_child(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    output: Output,
    mark: bytes = b"",
    grace: float = GRACE,
    guardian: Guardian | None = None,
    ours: Collection[int] = (),
    on_start: Callable[[int], None] = lambda _pid: None,
    on_signal: Callable[[str], None] = lambda _text: None,
) -> End:
    """Run ``argv`` to its end. OSError, with the file's name, when it cannot be started.

    ``output`` is complete but for what our own readers have not taken yet (``Output.flush``). ``guardian`` must be
    started; it has been let go when this returns. ``ours`` are processes of mlcli that are no part of the run. ``on_signal`` is told, in words, what a signal to us led to.
    """
    before = kin.children() or set()
    guarded = {guardian.pid, *ours} if guardian else set(ours)
    kin.prctl(kin.PR_SET_CHILD_SUBREAPER, 1)
    try:
        with _Signals() as signals:
            start = monotonic()
            pid = _spawn(argv, cwd, env, output, guardian.pipe if guardian else -1)
            output.started()
            on_start(pid)
            watch = _Watch(pid, output, signals, grace, on_signal)
            status, usage = watch.until_end()
            seconds = monotonic() - start
            leftovers = watch.end_leftovers(mark, before | guarded)
            output.finish()
    finally:
        if guardian:
            guardian.goodbye()
        kin.prctl(kin.PR_SET_CHILD_SUBREAPER, 0)
    return End(
        code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        asked=watch.asked,
        seconds=seconds,
        peak_memory=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        cpu_user=usage.ru_utime,
        cpu_system=usage.ru_stime,
        leftovers=tuple(leftovers),
    )


def _spawn(argv: Sequence[str], cwd: str, env: Mapping[str, str], output: Output, guard: int) -> int:
    """Start the child; returns when it is the other program, or raises what kept it from becoming it."""
    arguments = [os.fsencode(part) for part in argv]
    stdin = _stdin()
    ours, theirs = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        where = 0
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            if guard >= 0:
                os.write(guard, b"%d\n" % os.getpid())
            # For the case that mlcli and the guardian are both killed.
            kin.prctl(kin.PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(127)
            for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; other programs do not expect that
                signal.signal(signum, signal.SIG_DFL)
            stdout, stderr = output.for_child
            if stdin >= 0:
                os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.chdir(cwd)
            where = 1
            _become(arguments, env)
        except OSError as error:
            os.write(theirs, b"%d %d" % (where, error.errno or errno.EIO))
        finally:
            os._exit(127)
    os.close(theirs)
    if stdin >= 0:
        os.close(stdin)
    said = b""
    while part := os.read(ours, 64):
        said += part
    os.close(ours)
    if said:
        os.waitpid(pid, 0)
        where, number = map(int, said.split())
        raise OSError(number, os.strerror(number), argv[0] if where else cwd)
    return pid


def _become(arguments: list[bytes], env: Mapping[str, str]) -> None:
    """Replace this process; a script without a ``#!`` line goes to the shell, as a shell would do."""
    try:
        os.execvpe(arguments[0], arguments, dict(env))  # noqa: S606 - running programs is what this tool does
    except OSError as error:
        if error.errno != errno.ENOEXEC or b"/" not in arguments[0]:
            raise
        os.execve("/bin/sh", [b"sh", *arguments], dict(env))  # noqa: S606 - the same


def _stdin() -> int:
    """A descriptor to be the child's stdin, or -1: it inherits ours, unless that is a terminal that is not for us now.

    In a session of its own a child is not stopped for reading the terminal of a background job: it would take what is
    typed away from the shell.
    """
    try:
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return os.open(os.devnull, os.O_RDONLY)
    except OSError:  # not our controlling terminal
        pass
    return -1


class _Signals:
    """Turns the signals we care about into bytes on a pipe; the handlers before are put back at the end.

    A signal that we were told to ignore (``nohup``, a background job) stays ignored.
    """

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._before: dict[int, object] = {}
        self._wakeup = -1

    def __enter__(self) -> _Signals:
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in (*kin.END_SIGNALS, *_PASSED_ON, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCHLD):
            before = signal.getsignal(signum)
            if before is not signal.SIG_IGN or signum == signal.SIGCHLD:
                self._before[signum] = before
                signal.signal(signum, lambda _signum, _frame: None)
        return self

    def read(self) -> list[int]:
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []

    def __exit__(self, *_exc: object) -> None:
        for signum, before in self._before.items():
            if before is not None:  # None: set by somebody who is not Python; cannot be put back
                signal.signal(signum, before)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)


class _Watch:
    """One running child and what has been done to end it."""

    def __init__(
        self, pid: int, output: Output, signals: _Signals, grace: float, on_signal: Callable[[str], None]
    ) -> None:
        self.pid = pid
        self.asked: int | None = None
        self._output = output
        self._signals = signals
        self._grace = grace
        self._on_signal = on_signal
        self._interrupts = 0
        self._deadline: float | None = None
        self._ended = False
        self._killed = False

    def until_end(self) -> tuple[int, resource.struct_rusage]:
        """Move output and pass signals on until the child has ended."""
        while True:
            found, status, usage = os.wait4(self.pid, os.WNOHANG)
            if found:
                self._ended = True
                self._deadline = None
                return status, usage
            self._step(None)

    def end_leftovers(self, mark: bytes, ignore: set[int]) -> list[Kin]:
        """End what the child has left behind and list it; what leaves by itself within a moment is not listed."""

        def find() -> list[Kin]:
            mine = kin.children()
            if mine is not None:
                kin.reap(mine - ignore)
                if not (kin.children() or set()) - ignore:
                    return []  # the quick way: everything it left behind has become our child
            return kin.find(self.pid, mark, ancestor=os.getpid(), ignore=ignore)

        self._wait(find, _MOMENT)
        leftovers = [one for one in find() if one.name != kin.GUARDIAN]
        for signum, seconds in ((signal.SIGTERM, self._grace), (signal.SIGKILL, AFTER_KILL)):
            left = find()
            if not left:
                break
            kin.signal_all(left, signum)
            self._wait(find, seconds, repeat=signum if signum == signal.SIGKILL else 0)
        return leftovers

    def _wait(self, find: Callable[[], list[Kin]], seconds: float, *, repeat: int = 0) -> None:
        """Wait, moving output, until nothing is found or the time is over (or somebody is impatient)."""
        until = monotonic() + seconds
        while (left := find()) and monotonic() < until and not (self._killed and not repeat):
            if repeat:  # those who were forked in between
                kin.signal_all(left, repeat)
            self._step(0.02)

    def _step(self, timeout: float | None) -> None:
        if self._deadline is not None:
            left = self._deadline - monotonic()
            if left <= 0:
                self._deadline = None
                self._kill(f"it did not end within {self._grace:g} s")
            timeout = max(left, 0.0) if timeout is None else min(timeout, max(left, 0.0))
        if self._output.step(self._signals.fd, timeout):
            for signum in self._signals.read():
                self._handle(signum)

    def _handle(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            return
        if signum == signal.SIGWINCH:
            self._output.resize()
        if signum == signal.SIGTSTP:
            kin.signal_group(self.pid, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            kin.signal_group(self.pid, signal.SIGCONT)
            return
        if signum not in kin.END_SIGNALS:
            kin.signal_group(self.pid, signum)
            return
        if self._ended:  # only leftovers are still there
            self._killed = True
            return
        self.asked = self.asked or signum
        name = kin.signal_name(signum)
        if signum != signal.SIGINT:
            self._pass_on(signum)
            self._deadline = self._deadline or monotonic() + self._grace
            self._on_signal(f"{name}: passed on to the program; it is killed in {self._grace:g} s")
            return
        self._interrupts += 1
        if self._interrupts == 1:
            self._pass_on(signal.SIGINT)
            self._on_signal("interrupted: waiting for the program to end; ^C again sends SIGTERM")
        elif self._interrupts == 2:
            self._pass_on(signal.SIGTERM)
            self._on_signal("interrupted twice: SIGTERM sent; ^C again kills the program")
        else:
            self._kill("interrupted three times")

    def _pass_on(self, signum: int) -> None:
        kin.signal_group(self.pid, signum)
        kin.signal_group(self.pid, signal.SIGCONT)  # a stopped program could not act on it

    def _kill(self, why: str) -> None:
        self._killed = True
        kin.signal_group(self.pid, signal.SIGKILL)
        self._on_signal(f"{why}: the program is killed")
