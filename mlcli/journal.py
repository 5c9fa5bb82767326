"""The write path of live runs: one JSON line per call, appended to a file of this process.

``<store>/live/<writer>.jsonl`` belongs to one process, which holds an OS lock on it for its life. Each call is a single
``os.write``, so what returned is in the kernel's hands and survives ``kill -9`` of its caller; there is no lock, no
database and no thread on this path. Readers of the store apply the lines to the database (store/absorb.py), and close
the runs of a writer whose lock they can take: it is dead.

The line format is public and versioned: docs/journal.md.
"""

from __future__ import annotations

import errno
import json
import os
from time import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from mlcli import rights, rules
from mlcli.errors import StoreUnavailable
from mlcli.locks import try_lock

VERSION = 1
LIVE = "live"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NONFINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


def now() -> int:
    """UTC milliseconds since 1970."""
    return int(time() * 1000)


def new_run_id() -> str:
    return os.urandom(16).hex()


def live_folder(root: str) -> str:
    return os.path.join(root, LIVE)


class Journal:
    """The open journal of this process. Values are checked here; what is written is valid."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self._fd = fd
        self._torn = False
        self._prefixes: Dict[Tuple[str, str], str] = {}

    @classmethod
    def open(cls, root: str, *, default_run: Optional[str] = None) -> Journal:
        """Create a journal in the store ``root``; lines that name no run are about ``default_run``."""
        folder = live_folder(root)
        make_store_folder(root)
        rights.make_folder(folder)
        name = f"{now():011x}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        path = os.path.join(folder, name)
        # Windows cannot rename an open file; there a reader may catch a journal in the moment before its lock.
        hidden = path if os.name == "nt" else os.path.join(folder, f".{name}")
        try:
            # Locked before it gets its name: a reader never sees a journal that seems to have no owner.
            fd = os.open(hidden, _APPEND | os.O_EXCL, 0o644)
            try_lock(fd)
            if hidden != path:
                os.rename(hidden, path)
        except OSError as error:
            raise _unwritable(folder, error) from error
        journal = cls(path, fd)
        journal._write(_dump({"v": VERSION, "run": default_run} if default_run else {"v": VERSION}))
        return journal

    def start_run(
        self,
        run_id: str,
        experiment_id: str,
        name: str,
        user: str,
        time: int,
        status: str = "RUNNING",
        tags: Optional[Mapping[str, str]] = None,
        params: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Bring a run into being, kept alive by this process: when it dies, the run is closed."""
        start: Dict[str, Any] = {
            "experiment_id": experiment_id,
            "name": rules.run_name(name),
            "user": user,
            "time": time,
            "status": status,
        }
        if tags:
            start["tags"] = {rules.key(key, "tag"): rules.tag_value(key, value) for key, value in tags.items()}
        if params:
            start["params"] = {rules.key(key, "param"): rules.param_value(key, value) for key, value in params.items()}
        self._write(_dump({"run": rules.run_id(run_id), "start": start}))

    def resume_run(self, run_id: str, time: int) -> None:
        """Set an existing run RUNNING, kept alive by this process from now on."""
        self._write(_dump({"run": run_id, "resume": time}))

    def metric(self, run_id: str, key: str, value: Any, step: int = 0, time: Optional[int] = None) -> None:
        prefix = self._prefixes.get((run_id, key)) or self._prefix(run_id, key)
        if type(value) is not float:
            value = rules.metric_value(key, value)
        if type(step) is not int or not -rules.MAX_INT64 <= step <= rules.MAX_INT64:
            step = rules.int64(step, "a step")
        if time is None:
            time = now()
        elif type(time) is not int or not 0 <= time <= rules.MAX_INT64:
            time = rules.timestamp(time)
        text = repr(value) if value - value == 0.0 else _NONFINITE[repr(value)]
        self._write(f'{prefix}{text},"step":{step},"time":{time}}}\n'.encode())

    def metrics(self, run_id: str, values: Mapping[str, Any], step: int = 0, time: Optional[int] = None) -> None:
        """Log several metrics of one step in one line."""
        stamp = now() if time is None else rules.timestamp(time)
        line = {
            "run": run_id,
            "metrics": {rules.key(key, "metric"): _number(rules.metric_value(key, values[key])) for key in values},
            "step": rules.int64(step, "a step"),
            "time": stamp,
        }
        self._write(_dump(line))

    def params(self, run_id: str, values: Mapping[str, Any]) -> None:
        checked = {rules.key(key, "param"): rules.param_value(key, value) for key, value in values.items()}
        self._write(_dump({"run": run_id, "params": checked}))

    def tags(self, run_id: str, values: Mapping[str, Any]) -> None:
        checked = {rules.key(key, "tag"): rules.tag_value(key, value) for key, value in values.items()}
        self._write(_dump({"run": run_id, "tags": checked}))

    def untag(self, run_id: str, key: str) -> None:
        self._write(_dump({"run": run_id, "untag": rules.key(key, "tag")}))

    def status(self, run_id: str, status: str, time: Optional[int] = None) -> None:
        """Set a run's status; an end status carries the end time."""
        self._write(_dump({"run": run_id, "status": status, "time": now() if time is None else time}))

    def input(self, run_id: str, dataset: Mapping[str, Optional[str]], tags: Mapping[str, str]) -> None:
        """Note a dataset (name, digest, source_type, source, schema, profile) that the run read."""
        self._write(_dump({"run": run_id, "input": {"dataset": dict(dataset), "tags": dict(tags)}}))

    def fileno(self) -> int:
        """The locked descriptor: whoever holds a copy of it keeps the runs of this journal alive."""
        return self._fd

    def sync(self) -> None:
        """Wait until the lines are on the disk; before, they survive the process but not the machine."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file and give up the lock; the lines stay until a reader has applied them."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _prefix(self, run_id: str, key: str) -> str:
        rules.key(key, "metric")
        if len(self._prefixes) > 10_000:
            self._prefixes.clear()
        text = f'{{"run":{json.dumps(run_id)},"metric":{json.dumps(key)},"value":'
        self._prefixes[run_id, key] = text
        return text

    def _write(self, line: bytes) -> None:
        if self._torn:  # a full disk cut the line before: end it, so that only that one is lost
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._torn = written != len(line)
        if self._torn:
            raise _unwritable(self.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def _dump(line: Mapping[str, Any]) -> bytes:
    return (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _number(value: float) -> Any:
    return value if value - value == 0.0 else _NONFINITE[repr(value)].strip('"')


def _unwritable(path: str, error: OSError) -> StoreUnavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreUnavailable(
            f"no space left for {path}; this call was not recorded",
            hint="free some space: what was logged before is kept, and logging goes on",
        )
    return StoreUnavailable(
        f"cannot write to the store: {path}: {error.strerror or error}",
        hint="is the folder writable? MLCLI_TRACKING_URI names another one",
    )


def make_store_folder(root: str) -> None:
    """Create the folder of a store, invisible to git so that runs do not make a work tree dirty."""
    if os.path.isdir(root):
        return
    try:
        rights.make_folder(root)
        with open(os.path.join(root, ".gitignore"), "w", encoding="utf-8", opener=rights.opener) as file:
            file.write("# runs recorded by mlcli\n*\n")
    except OSError as error:
        raise _unwritable(root, error) from error


# -- one journal per process and store

_writers: Dict[str, Journal] = {}


def writer(root: str) -> Journal:
    """The journal of this process in the store ``root``, opened on first use; a forked child gets its own."""
    found = _writers.get(root)
    if found is None:
        found = _writers[root] = Journal.open(root)
    return found


def written() -> List[str]:
    """The stores that this process has a journal in."""
    return list(_writers)


def release(root: str) -> None:
    """Close the journal of this process in the store ``root``, if it has one."""
    found = _writers.pop(root, None)
    if found is not None:
        found.close()


def _after_fork() -> None:
    # The child must neither write into its parent's journal nor keep the parent's runs alive.
    for journal in _writers.values():
        journal.close()
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- reading


class Lines(NamedTuple):
    """Consecutive lines: what each holds (None where it is not a JSON object), their texts, where the next one starts."""

    entries: List[Optional[Dict[str, Any]]]
    texts: List[bytes]
    end: int


def read_lines(fd: int, position: int, size: int) -> Lines:
    """Read whole lines from ``position`` on, about ``size`` bytes of them.

    A line longer than ``size`` is read whole all the same; a last line without an end waits.
    """
    os.lseek(fd, position, os.SEEK_SET)
    data = b""
    while True:
        part = os.read(fd, size)
        data += part
        if b"\n" in part or not part:
            return split_lines(data, position)


def split_lines(data: bytes, position: int) -> Lines:
    """The whole lines of ``data``, which begins at byte ``position`` of a journal."""
    end = data.rfind(b"\n")
    if end < 0:
        return Lines([], [], position)
    texts = data[:end].split(b"\n")
    return Lines(_parse(texts), texts, position + end + 1)


def _parse(texts: List[bytes]) -> List[Optional[Dict[str, Any]]]:
    try:  # one call of the parser for all lines: 3 times faster than a call each
        entries: List[Optional[Dict[str, Any]]] = json.loads(b"[" + b",".join(texts) + b"]")
        if len(entries) == len(texts) and all([type(entry) is dict for entry in entries]):
            return entries
    except (ValueError, RecursionError):
        pass
    return [_parse_one(text) for text in texts]


def _parse_one(text: bytes) -> Optional[Dict[str, Any]]:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


# -- names for runs that were given none

_ADJECTIVES = (
    "amber bold brave bright brisk calm clear clever cosmic crisp curious daring deft eager early even fair fast fine "
    "fond free fresh gentle glad golden grand happy honest humble jolly keen kind lively loyal lucid lucky mellow merry "
    "mild modest neat nimble noble open patient placid plucky polite proud quick quiet rapid ready robust rustic sage "
    "serene sharp silent simple sleek smart snug sober solid steady stoic sunny swift tender tidy true upbeat vivid "
    "warm wise witty young zesty"
).split()
_NOUNS = (
    "ant badger bear beaver bee bison boar crane crow deer dove duck eagle eel egret elk falcon ferret finch fox frog "
    "gecko goat goose gull hare hawk heron horse hound ibis jay kite koala lark lemur lion llama lynx magpie marten "
    "mink mole moose moth mouse newt okapi orca otter owl panda perch pike plover pony puffin puma quail rabbit ram "
    "raven robin salmon seal shark shrew shrike skink sloth snail snipe sparrow squid stag stork swan tapir tern tiger "
    "toad trout turtle viper vole walrus wasp weasel whale wolf wren yak zebra"
).split()


def new_run_name() -> str:
    """A readable name in MLflow's form, such as ``brisk-heron-417``."""
    draw = int.from_bytes(
        os.urandom(8), "little"
    )  # not `random`: a script that seeds it must get new names all the same
    draw, adjective = divmod(draw, len(_ADJECTIVES))
    draw, noun = divmod(draw, len(_NOUNS))
    return f"{_ADJECTIVES[adjective]}-{_NOUNS[noun]}-{draw % 1000}"
