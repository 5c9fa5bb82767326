"""What a child writes: passed on to our stdout and stderr as it comes, and kept in a log of bounded size.

Where ours is a terminal the child gets a pseudo terminal, so colours and progress bars live; elsewhere a pipe. One
channel serves both streams when both of ours are the same thing, so that their order is kept. At most one chunk per
channel is in memory: a slow reader of ours slows the child, as it would without us.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys

from mlcli import rights

if sys.platform != "win32":
    import fcntl
    import termios

MAX_LOG = 256 * 1024 * 1024
_CHUNK = 65536
# A pipe that select calls writable takes at least this much without blocking; more could make us deaf to signals.
_SAFE_WRITE = 512 if sys.platform == "darwin" else 4096
# How much is taken over from a child that has ended while somebody else goes on writing to its stdout.
_MAX_DRAIN = 1024 * 1024


class Log:
    """A file of raw bytes that keeps the beginning and the end when more than ``cap`` bytes are written.

    The end is kept in a ring in an unlinked file, so nothing is left over whoever is killed when.
    """

    def __init__(self, path: str, cap: int = MAX_LOG) -> None:
        rights.make_folder(os.path.dirname(path))
        self.path = path
        self.problem = ""  # why the log is incomplete, when it is
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, rights.FILE)
        self._head_room = cap // 2
        self._ring_size = cap - cap // 2
        self._ring = -1
        self._beyond = 0  # bytes written after the head was full

    def write(self, data: bytes) -> None:
        if self._fd < 0 or self.problem:
            return
        try:
            head = data[: self._head_room]
            if head:
                _write_all(self._fd, head)
                self._head_room -= len(head)
            if len(head) < len(data):
                self._write_ring(data[len(head) :])
        except OSError as error:  # a full disk must not end the run
            self.problem = f"the output is not kept any more in {self.path}: {error.strerror}"

    def _write_ring(self, data: bytes) -> None:
        if self._ring < 0:
            name = f"{self.path}.tail-{os.getpid()}"
            self._ring = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.unlink(name)
        while data:
            place = self._beyond % self._ring_size
            done = os.pwrite(self._ring, data[: self._ring_size - place], place)
            self._beyond += done
            data = data[done:]

    def close(self) -> None:
        """Bring the end of the output behind its beginning, with a note where something is missing."""
        if self._fd < 0:
            return
        try:
            if self._ring >= 0:
                self._append_ring()
        except OSError as error:
            self.problem = f"the end of the output could not be kept in {self.path}: {error.strerror}"
        finally:
            for fd in (self._fd, self._ring):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._ring = -1

    def _append_ring(self) -> None:
        skipped = self._beyond - self._ring_size
        if skipped > 0:
            note = f"\n[mlcli: output truncated here: {skipped} bytes are left out]\n"
            _write_all(self._fd, note.encode())
        position = self._beyond if skipped > 0 else 0
        left = min(self._beyond, self._ring_size)
        while left:
            place = position % self._ring_size
            data = os.pread(self._ring, min(left, _CHUNK * 16, self._ring_size - place), place)
            _write_all(self._fd, data)
            position += len(data)
            left -= len(data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Channel:
    """One way from the child to us: where we read, where we pass it on to, and what is still to be passed on."""

    def __init__(self, target: int | None) -> None:
        self.target = target
        self.pending = memoryview(b"")
        self.is_terminal = target is not None and os.isatty(target)
        self.step = _CHUNK if target is not None and stat.S_ISREG(os.fstat(target).st_mode) else _SAFE_WRITE
        self.source, self.for_child = self._open()
        os.set_blocking(self.source, False)

    def _open(self) -> tuple[int, int]:
        if self.is_terminal:
            try:
                ours, theirs = os.openpty()
            except OSError:  # no pseudo terminals here
                self.is_terminal = False
            else:
                mode = termios.tcgetattr(theirs)
                mode[1] &= ~termios.OPOST  # the real terminal adds the carriage returns; the log has what was written
                termios.tcsetattr(theirs, termios.TCSANOW, mode)
                self._pass_size(ours)
                return ours, theirs
        return os.pipe()

    def resize(self) -> None:
        if self.is_terminal and self.source >= 0:
            self._pass_size(self.source)

    def _pass_size(self, terminal: int) -> None:
        if self.target is not None:
            try:
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(self.target, termios.TIOCGWINSZ, bytes(8)))
            except OSError:  # our terminal has gone
                pass

    def pull(self) -> bytes | None:
        """Read a chunk; b"" is the end (the source is closed then), None nothing at the moment."""
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:  # Linux tells the end of a pseudo terminal so
                raise
            data = b""
        if not data:
            self.close()
        elif self.target is not None:
            self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
        return data

    def push(self) -> None:
        """Pass on what the target takes now; a target that is closed or full gets nothing from here on."""
        if self.target is None:
            return
        try:
            self.pending = self.pending[os.write(self.target, self.pending[: self.step]) :]
        except BlockingIOError:
            pass
        except OSError:
            self.target = None
            self.pending = memoryview(b"")

    def close(self) -> None:
        if self.source >= 0:
            os.close(self.source)
            self.source = -1


class Output:
    """The two streams of a child on their way to ``stdout`` and ``stderr`` (descriptors; None drops) and to the log."""

    def __init__(self, log_path: str, *, stdout: int | None = 1, stderr: int | None = 2, cap: int = MAX_LOG) -> None:
        self.log = Log(log_path, cap)
        out, err = _usable(stdout), _usable(stderr)
        self._channels = [_Channel(out)]
        if out is None or err is None or not _same(out, err):
            self._channels.append(_Channel(err))

    @property
    def for_child(self) -> tuple[int, int]:
        """The descriptors to be the child's stdout and stderr."""
        return self._channels[0].for_child, self._channels[-1].for_child

    def started(self) -> None:
        """Close our copies of the child's ends, so that we see it close them."""
        for channel in self._channels:
            if channel.for_child >= 0:
                os.close(channel.for_child)
                channel.for_child = -1

    def resize(self) -> None:
        for channel in self._channels:
            channel.resize()

    def step(self, wake: int, timeout: float | None) -> bool:
        """Wait for something to move and move it; True when ``wake`` became readable."""
        sources = [channel.source for channel in self._channels if channel.source >= 0 and not channel.pending]
        targets = [channel.target for channel in self._channels if channel.pending and channel.target is not None]
        readable, writable, _ = select.select([wake, *sources], targets, [], timeout)
        for channel in self._channels:
            if channel.pending and channel.target in writable:
                channel.push()
            elif channel.source in readable:
                self.log.write(channel.pull() or b"")
        return wake in readable

    def finish(self) -> None:
        """Take over what the ended child has left in its channels, and complete the log."""
        self.started()
        for channel in self._channels:
            taken = 0
            while channel.source >= 0 and taken < _MAX_DRAIN:
                data = channel.pull()
                if data is None:
                    # What went through a pseudo terminal arrives a moment later; somebody else may hold it open.
                    if not channel.is_terminal or not select.select([channel.source], [], [], 0.05)[0]:
                        break
                    continue
                self.log.write(data)
                taken += len(data)
            channel.close()
        self.log.close()

    def flush(self) -> None:
        """Pass on the rest, however slowly it is read."""
        for channel in self._channels:
            while channel.pending and channel.target is not None:
                select.select([], [channel.target], [])
                channel.push()

    def close(self) -> None:
        self.started()
        for channel in self._channels:
            channel.close()
        self.log.close()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _usable(fd: int | None) -> int | None:
    """``fd``, or None when nothing is open there."""
    if fd is None:
        return None
    try:
        os.fstat(fd)
    except OSError:
        return None
    return fd


def _same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))
