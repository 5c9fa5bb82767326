"""What is on its way to a tracking server: journals and files kept here until the server has said that it has them.

``<state>/spool/<server>/live/<writer>.jsonl`` is the journal of a process that logs to the server, in the form and with
the lock of any other journal. A thread of that process sends its lines; the program never waits for it, but at the end of
a run, for a bounded time. What is left, because the server was away or the process was killed, the next process of the
same spool or `mlcli sync` sends: in order, and each line once.

    an mlcli server       knows how far it has each journal: lines go there as they are, with their position
    an MLflow server      gets requests that may be repeated; how far it has a journal stands beside the journal
"""

from __future__ import annotations

import atexit
import codecs
import json
import os
import sys
from hashlib import sha256
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from mlcli import config, journal, rights
from mlcli.errors import MlcliError, NotFound, StoreUnavailable
from mlcli.locks import try_lock
from mlcli.store import SPOOL_OF, http

CHUNK = 512 * 1024  # bytes of a journal in one request
JOURNALS = "/api/2.0/mlcli/journals/"
FILES = "files"
_SERVER = SPOOL_OF
_REJECTED = "rejected.jsonl"
_POSITION = ".position"
_INTERVAL = 0.2  # seconds between two looks at the journals of this process
_LONGEST_PAUSE = 15.0  # between two attempts at a server that is away


class Left(NamedTuple):
    """What a spool holds: lines not sent yet in journals without a writer, files not sent yet."""

    journals: int
    bytes: int
    files: int


class Sent(NamedTuple):
    """What `sync` has sent, and how many journals still have a writer, which sends them itself."""

    journals: int
    bytes: int
    files: int
    live: int


def is_remote(root: str) -> bool:
    return root.startswith(("http://", "https://"))


def folder(root: str) -> str:
    """The folder of the journals of the store ``root``: the spool of a server, or the store itself."""
    if not is_remote(root):
        return root
    plain = http.split_credentials(root)[0]
    return os.path.join(config.state_root(), "spool", sha256(plain.encode()).hexdigest()[:16])


def server_of(path: str) -> Optional[str]:
    """The address of the server that the spool folder ``path`` belongs to; None where it is no spool."""
    try:
        with open(os.path.join(path, _SERVER), encoding="utf-8") as file:
            return str(json.load(file)["uri"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def spools() -> List[str]:
    """The addresses of all servers that something was on its way to."""
    base = os.path.join(config.state_root(), "spool")
    names = sorted(os.listdir(base)) if os.path.isdir(base) else []
    found = [server_of(os.path.join(base, name)) for name in names]
    return [uri for uri in found if uri is not None]


def make_folder(root: str) -> str:
    """Create the spool of a server; nobody else may look into it."""
    place = folder(root)
    if server_of(place) is None:
        try:
            rights.make_folder(place)
            os.chmod(place, 0o700)
            aside = os.path.join(place, f".{_SERVER}.{os.getpid()}")
            with open(aside, "w", encoding="utf-8", opener=rights.opener) as file:
                json.dump({"uri": http.split_credentials(root)[0]}, file)
            os.replace(aside, os.path.join(place, _SERVER))
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write to the spool {place}: {error.strerror or error}",
                hint="what goes to a server is kept there first; XDG_STATE_HOME names another place",
            ) from error
    return place


def writer(root: str) -> journal.Journal:
    """The journal of this process for the store ``root``, sent from now on if that is a server."""
    if not is_remote(root):
        return journal.writer(root)
    found = journal.writer(make_folder(root))
    shipper(root).watch(found.path)
    return found


def open_journal(root: str, *, default_run: Optional[str] = None) -> journal.Journal:
    """A new journal for the store ``root``, sent from now on if that is a server."""
    if not is_remote(root):
        return journal.Journal.open(root, default_run=default_run)
    made = journal.Journal.open(make_folder(root), default_run=default_run)
    shipper(root).watch(made.path)
    return made


# -- sending


class Outgoing:
    """A journal on its way: how far the server has it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.position = _read_position(path)
        self.default_run: Optional[str] = None
        self.failures = 0  # in a row, by a server that answers but cannot carry it out

    def waiting(self) -> int:
        """Bytes that the server does not have yet."""
        try:
            return max(os.stat(self.path).st_size - self.position, 0)
        except FileNotFoundError:
            return 0

    def read(self, *, to_the_end: bool = False) -> bytes:
        """Whole lines from the position on, about a chunk of them; of a dead writer also a last line without an end."""
        with open(self.path, "rb") as file:
            file.seek(self.position)
            data = b""
            while True:
                part = file.read(CHUNK)
                data += part
                end = data.rfind(b"\n") + 1
                if end or not part:
                    break
        if not end and to_the_end and _whole(data):
            return data + b"\n"  # `printf` leaves such lines; a cut write does not parse
        return data[:end]

    def reached(self, position: int) -> None:
        self.position = position
        self.failures = 0
        aside = f"{self.path}{_POSITION}.{os.getpid()}"
        with open(aside, "w", encoding="ascii", opener=rights.opener) as file:
            file.write(str(position))
        os.replace(aside, self.path + _POSITION)

    def forget(self) -> None:
        for path in (self.path, self.path + _POSITION):
            if os.path.exists(path):
                os.unlink(path)


def _whole(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def _read_position(path: str) -> int:
    try:
        with open(path + _POSITION, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


class Shipper:
    """Sends the journals of this process to a server, from a thread of its own."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._out: Dict[str, Outgoing] = {}
        self._lock = Lock()
        self._wake = Event()
        self._thread: Optional[Thread] = None
        self._told = False

    def watch(self, path: str) -> None:
        if path not in self._out:
            self._out[path] = Outgoing(path)
        if self._thread is None:
            self._thread = Thread(target=self._loop, name="mlcli-sync", daemon=True)
            self._thread.start()

    def waiting(self) -> int:
        return sum([out.waiting() for out in list(self._out.values())])

    def send(self, patience: Optional[float] = None) -> None:
        """Send all that is there now. Raises StoreUnavailable when the server does not take it within ``patience``."""
        if not self.waiting():
            return
        end = None if patience is None else monotonic() + patience
        if not self._lock.acquire(timeout=-1 if patience is None else max(patience, 0.001)):
            raise StoreUnavailable(
                f"the tracking server {self.root} does not answer in time", hint="`mlcli sync` sends what is left later"
            )
        try:
            for out in list(self._out.values()):
                send(self.root, out, patience=None if end is None else max(end - monotonic(), 0.05))
        finally:
            self._lock.release()

    def _loop(self) -> None:
        pause = 0.05  # the first look comes soon: others want to see that the run is there
        while not self._wake.wait(pause):
            pause = self._next(pause)

    def _next(self, pause: float) -> float:
        """Send what there is and say how long to rest then."""
        try:
            self.send()
        except StoreUnavailable:
            return min(pause * 2, _LONGEST_PAUSE)
        except (MlcliError, OSError):
            return _LONGEST_PAUSE  # told at the end, when it is tried for the last time
        return _INTERVAL

    def settle(self, patience: float, *, closing: bool = False) -> bool:
        """Send all, and what dead writers left; False (and a note, once) when the server is away.

        The wait is bounded, and starts anew as long as the server takes something.
        """
        journals = list(self._out.values())
        if self._told:  # it has been waited for already
            patience = min(patience, 0.5)
        try:
            while True:
                before = self.waiting()
                try:
                    self.send(patience)
                    break
                except StoreUnavailable:
                    if self.waiting() >= before:
                        raise
            if closing:
                for out in journals:
                    journal.release(os.path.dirname(os.path.dirname(out.path)))
                self._out.clear()
            sync(self.root, patience=patience)
        except (MlcliError, OSError) as error:
            if not self._told:
                self._told = True
                message = error.message if isinstance(error, MlcliError) else str(error)
                _note(f"{message}; what was logged is kept in {folder(self.root)}, and `mlcli sync` sends it later")
            return False
        self._told = False
        return True


def send(root: str, out: Outgoing, *, patience: Optional[float] = None, dead: bool = False) -> int:
    """Send the journal from where the server has it; return how many bytes went.

    An mlcli server stops before a line about a run that it does not know yet: the run's start may stand in another
    journal. Then so do we.
    """
    first = out.position
    end = None if patience is None else monotonic() + patience
    while out.waiting():
        data = out.read(to_the_end=dead)
        if not data:
            break
        left = None if end is None else max(end - monotonic(), 0.05)
        if speaks_journal(root, patience=left):
            before = out.position
            out.reached(_send_lines(root, out, data, left))
            if out.position == before:
                break
        else:
            from mlcli.store import translate

            translate.send(root, out, data, left)
            out.reached(out.position + len(data))
        if end is not None and monotonic() >= end and out.waiting():
            raise StoreUnavailable(f"{root} could not take everything in time", hint="`mlcli sync` sends the rest")
    return max(out.position - first, 0)


def _send_lines(
    root: str, out: Outgoing, data: bytes, patience: Optional[float], *, ended: Optional[int] = None
) -> int:
    """Send lines; ``ended`` is when their writer gave the last sign of life, if it is gone."""
    body: Dict[str, Any] = {"position": out.position, "lines": _text(data)}
    if ended is not None:
        body.update(closed=True, time=ended)
    return int(http.server(root).json("POST", JOURNALS + out.name, body, patience=patience)["position"])


def _text(data: bytes) -> str:
    """The lines as text of the same length in bytes: a position counts bytes."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8", "mlcli-same-length")


codecs.register_error(
    "mlcli-same-length",
    lambda error: ("?" * (error.end - error.start), error.end),  # type: ignore[attr-defined]
)


_kinds: Dict[str, bool] = {}


def speaks_journal(root: str, *, patience: Optional[float] = None) -> bool:
    """Whether the server is mlcli's, which takes journals as they are; asked once per process."""
    plain = http.split_credentials(root)[0]
    if plain not in _kinds:
        try:
            found = http.server(root).json("GET", "/api/3.0/mlflow/server-info", patience=patience)
        except (NotFound, StoreUnavailable) as error:
            if isinstance(error, (http.Unreachable, http.Uncertain, http.Refused)):
                raise
            found = {}
        _kinds[plain] = found.get("server") == "mlcli"
    return _kinds[plain]


# -- what was left


def sync(root: str, *, patience: Optional[float] = None, progress: Callable[[str], None] = lambda _text: None) -> Sent:
    """Send what processes that are gone have left, close the runs they left open, and send the files that wait."""
    place = folder(root)
    dead: List[Tuple[Outgoing, int]] = []
    size = live = 0
    try:
        for path in _journals(place):
            try:
                fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError:
                continue
            if try_lock(fd) and os.path.exists(path):
                dead.append((Outgoing(path), fd))
            else:
                live += os.path.exists(path)  # or somebody else finished it a moment ago
                os.close(fd)
        # Twice: what one journal says of a run may have to wait for the run's start in another one.
        failure: Optional[MlcliError] = None
        for finish in (False, True):
            for out, _ in dead:
                try:
                    size += _finish(root, out, patience, progress, finish=finish)
                except StoreUnavailable:  # noqa: PERF203 - a request takes longer than any `try`
                    raise
                except MlcliError as error:  # it must not keep back the others
                    failure = error
        if failure is not None:
            raise failure
    finally:
        for _, fd in dead:
            os.close(fd)
    return Sent(len(dead), size, _send_files(root, place, progress), live)


def _finish(
    root: str, out: Outgoing, patience: Optional[float], progress: Callable[[str], None], *, finish: bool
) -> int:
    """Send the rest of a journal without a writer; to ``finish`` it is to close its runs and remove it."""
    size = 0
    if out.waiting():
        progress(f"sending {out.waiting():,} bytes of {out.name}")
        size = send(root, out, patience=patience, dead=True)
    if finish:
        _close(root, out, patience)
        out.forget()
    return size


def _close(root: str, out: Outgoing, patience: Optional[float]) -> None:
    """Say that the writer is gone: its open runs are closed, and what cannot be understood is put aside."""
    if not speaks_journal(root, patience=patience):
        from mlcli.store import translate

        translate.close_runs(root, out, patience)
        return
    ended = int(os.stat(out.path).st_mtime * 1000)
    while True:
        data = out.read(to_the_end=True) if out.waiting() else b""
        position = _send_lines(root, out, data, patience, ended=ended)
        if position <= out.position:
            return
        out.reached(position)


def left(root: str) -> Left:
    """What waits in the spool of a server."""
    place = folder(root)
    waiting = [Outgoing(path).waiting() for path in _journals(place)]
    files = sum(not name.endswith(".lock") for _, _, names in os.walk(os.path.join(place, FILES)) for name in names)
    return Left(len([size for size in waiting if size]), sum(waiting), files)


def _journals(place: str) -> List[str]:
    live = journal.live_folder(place)
    try:
        names = sorted(name for name in os.listdir(live) if name.endswith(".jsonl") and name[0] != ".")
    except FileNotFoundError:
        return []
    return [os.path.join(live, name) for name in names]


def files_folder(root: str, run_id: str, *, own: bool = False) -> str:
    """Where files of a run wait until the server takes them; ``own`` for those of its `mlcli run`."""
    return os.path.join(folder(root), FILES, run_id + (".run" if own else ""))


def _send_files(root: str, place: str, progress: Callable[[str], None]) -> int:
    base = os.path.join(place, FILES)
    count = 0
    for name in sorted(os.listdir(base)) if os.path.isdir(base) else []:
        if not name.endswith(".lock"):
            count += send_files(root, os.path.join(base, name), progress)
    return count


def send_files(root: str, folder: str, progress: Callable[[str], None] = lambda _text: None) -> int:
    """Send the files of a run that wait in a folder, unless a living process still writes there; return how many."""
    from mlcli.store.served import send_waiting

    return send_waiting(root, os.path.basename(folder).partition(".")[0], folder, progress)


# -- what the server refused


def reject(root: str, name: str, what: Any, reason: str) -> None:
    """Keep what the server refuses for good: it must not keep back what comes after it."""
    line = {
        "journal": name,
        "line": json.dumps(what, ensure_ascii=False)[:1000],
        "reason": reason,
        "time": journal.now(),
    }
    path = os.path.join(folder(root), _REJECTED)
    with open(path, "a", encoding="utf-8", opener=rights.opener) as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    _note(f"{root} refused a line that was logged: {reason}")


def rejected(root: str) -> List[Dict[str, Any]]:
    try:
        with open(os.path.join(folder(root), _REJECTED), encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


def _note(text: str) -> None:
    print(f"mlcli: {text}", file=sys.stderr)


# -- this process

_shippers: Dict[str, Shipper] = {}


def shipper(root: str) -> Shipper:
    found = _shippers.get(root)
    if found is None:
        if not _shippers:
            atexit.register(_at_exit)
        found = _shippers[root] = Shipper(root)
    return found


def flush(root: str) -> None:
    """Send what this process has logged to the server ``root``; raises when the server does not take it."""
    found = _shippers.get(root)
    if found is not None:
        found.send()


def settle(root: str) -> bool:
    """At the end of a run: wait, not for ever, until the server has all of it. False when it is away."""
    return shipper(root).settle(_wait()) if is_remote(root) else True


def _wait() -> float:
    """Seconds that the end of a run waits for a server that takes nothing."""
    try:
        return max(float(config.setting("sync_wait").value or 10), 0.05)
    except ValueError:
        return 10.0


def _at_exit() -> None:
    for found in list(_shippers.values()):
        found.settle(_wait(), closing=True)


def _after_fork() -> None:
    # The threads stayed with the parent, and so do its journals.
    _shippers.clear()
    atexit.unregister(_at_exit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
