"""The database under a store: what each promises, and SQLite: connection, transactions, versions, the driver's faults.

A statement is one text for every database (:named parameters, the common subset of SQL); what differs between them lives
here and in postgres.py and nowhere else.

SQLite is opened with WAL and `BEGIN IMMEDIATE` for each write; a lock file around write transactions keeps waiting short
under many writers and keeps checkpoints apart (SQLite before 3.51.3 could damage a WAL that two connections reset at
once). On a network folder, where WAL's shared memory does not work, the rollback journal is used.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import (
    Any,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Union,
)

from mlcli import locks, rights
from mlcli._version import __version__
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, MlcliError, StoreUnavailable

APPLICATION_ID = 0x6D6C636C  # "mlcl": tells our database from any other SQLite file
SCHEMA_VERSION = 4
MOUNTS = "/proc/self/mounts"
_FAULTS = (sqlite3.Error, OverflowError, UnicodeEncodeError)  # what the driver raises
_ASKED = 5  # times that SQLite asks whether to go on, before a statement is given up
_DIALECT = {"identity": "INTEGER PRIMARY KEY", "clustered": "WITHOUT ROWID"}
_NETWORK_FILESYSTEMS = frozenset(
    "nfs nfs4 cifs smb smb2 smb3 smbfs lustre gpfs beegfs ceph glusterfs 9p afs davfs orangefs vboxsf drvfs prl_fs"
    " fuse.sshfs fuse.glusterfs fuse.s3fs fuse.gcsfuse fuse.rclone fuse.vmhgfs-fuse".split()
)


class Database(Protocol):
    """What a store needs of its database: one open connection, used by one thread at a time.

    Writing happens inside :meth:`transaction`, one writer after another, so what a transaction has read stays true
    until its end. Faults come as our errors, whatever the driver calls them.
    """

    read_only: bool
    shared: bool  # whether stores of other machines, with journals of their own, may be at work in it too

    @property
    def name(self) -> str:
        """What to call it before people: its file, or its address without secrets."""

    @property
    def version(self) -> int:
        """The version of the schema in it."""

    def query(self, sql: str, params: Mapping[str, Any] = {}) -> List[Tuple[Any, ...]]:
        """All rows of a reading statement."""

    def one(self, sql: str, params: Mapping[str, Any] = {}) -> Optional[Tuple[Any, ...]]:
        """The first row of a reading statement."""

    def iterate(self, sql: str, params: Mapping[str, Any] = {}) -> Iterator[Tuple[Any, ...]]:
        """The rows of a reading statement, not all in memory at once."""

    def execute(self, sql: str, params: Mapping[str, Any] = {}) -> int:
        """Run a writing statement inside :meth:`transaction`; the number of rows it changed."""

    def insert(self, sql: str, params: Mapping[str, Any]) -> int:
        """Run an INSERT of one row; its integer key."""

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement with positional ``?`` for each row."""

    def transaction(self, *, durable: bool = True) -> ContextManager[None]:
        """All or nothing. ``durable`` waits for the disk, so that it survives a power failure too."""

    def snapshot(self) -> ContextManager[None]:
        """Several reads of one moment: what others write meanwhile is not seen."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction or a snapshot is under way."""

    def optimize(self) -> None:
        """Bring the planner's statistics up to date where they are stale; cheap when they are not."""

    def damage(self) -> List[str]:
        """What is broken in it, as far as a look at all of it tells; nothing when it is well."""

    def close(self) -> None:
        """Let go of it."""


class TooLong(StoreUnavailable):
    """A statement was given up because it took more steps than it was allowed."""


class Sqlite:
    """One open SQLite store database. Not shared between threads at the same moment; each store opens its own."""

    shared = False
    patience = 30.0  # seconds to wait for others; then whoever holds the store is named

    def __init__(self, path: str, *, patience: Optional[float] = None) -> None:
        self.path = path
        if patience is not None:
            self.patience = patience
        self._in_memory = path == ":memory:"
        self.lock_path = path[: -len(".db")] + ".lock" if path.endswith(".db") else path + ".lock"
        self.read_only = False
        self._depth = 0
        self._synchronous = ""
        self._asked = 0  # see give_up_after
        self._raw = self._open()

    @property
    def name(self) -> str:
        return self.path

    @property
    def version(self) -> int:
        with self._translated():
            return int(self._raw.execute("PRAGMA user_version").fetchone()[0])

    # -- reading and writing

    def query(self, sql: str, params: Mapping[str, Any] = {}) -> List[Tuple[Any, ...]]:
        self._asked = 0
        try:
            return self._raw.execute(sql, params).fetchall()
        except _FAULTS as error:
            raise self._fault(error) from error

    def one(self, sql: str, params: Mapping[str, Any] = {}) -> Optional[Tuple[Any, ...]]:
        self._asked = 0
        try:
            row: Optional[Tuple[Any, ...]] = self._raw.execute(sql, params).fetchone()
        except _FAULTS as error:
            raise self._fault(error) from error
        return row

    def iterate(self, sql: str, params: Mapping[str, Any] = {}) -> Iterator[Tuple[Any, ...]]:
        self._asked = 0
        with self._translated():
            yield from self._raw.execute(sql, params)

    def execute(self, sql: str, params: Mapping[str, Any] = {}) -> int:
        """Run a writing statement inside :meth:`transaction`; the number of rows it changed."""
        try:
            return self._raw.execute(sql, params).rowcount
        except _FAULTS as error:
            raise self._fault(error) from error

    def insert(self, sql: str, params: Mapping[str, Any]) -> int:
        """Run an INSERT of one row; its integer key."""
        try:
            return self._raw.execute(sql, params).lastrowid or 0
        except _FAULTS as error:
            raise self._fault(error) from error

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement with positional ``?`` for each row."""
        with self._translated():
            self._raw.executemany(sql, rows)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing. ``durable`` waits for the disk, so that it survives a power failure too."""
        if self._depth:
            yield
            return
        if self.read_only:
            raise StoreUnavailable(
                f"the store is read-only: {os.path.dirname(self.path)}",
                hint="make the folder writable, or name another one with MLCLI_TRACKING_URI",
            )
        with self._locked(), self._translated():
            self._set_synchronous("FULL" if durable else "NORMAL")
            self._raw.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
            except BaseException:
                self._depth = 0
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                raise
            self._depth = 0
            try:
                self._raw.execute("COMMIT")
            except sqlite3.Error:
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several reads of one moment: what others write meanwhile is not seen."""
        if self.in_transaction:
            yield
            return
        with self._translated():
            self._raw.execute("BEGIN")
            try:
                yield
            finally:
                self._raw.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        return self._depth > 0 or self._raw.in_transaction

    def give_up_after(self, steps: int) -> None:
        """Raise TooLong from a reading statement that takes more than so many steps of SQLite's machine."""

        # SQLite counts the steps of a prepared statement over all the times that it is run, and so asks now and then in
        # the middle of a short one: what counts is how often it asks in one run of it.
        def ask() -> int:
            self._asked += 1
            return int(self._asked > _ASKED)

        self._raw.set_progress_handler(ask, max(1, steps // _ASKED))

    @property
    def waits_for_nobody(self) -> bool:
        """Whether who reads never waits for who writes."""
        return not on_network_folder(self.path)

    def damage(self) -> List[str]:
        return [row[0] for row in self.query("PRAGMA quick_check(3)") if row[0] != "ok"]

    def close(self) -> None:
        self._raw.close()

    def optimize(self) -> None:
        """Bring the planner's statistics up to date where they are stale; cheap when they are not."""
        if not self.read_only:
            with self._locked(), self._translated():
                self._raw.execute("PRAGMA analysis_limit = 1000")
                self._raw.execute("PRAGMA optimize")

    # -- opening

    def _open(self) -> sqlite3.Connection:
        if self._in_memory:
            raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._configure(raw)
            self._migrate(raw, 0)
            return raw
        if os.path.isdir(self.path):
            raise StoreUnavailable(
                f"{self.path} is a folder, not a database", hint="name the folder that holds the store"
            )
        exists = os.path.exists(self.path)
        size = os.path.getsize(self.path) if exists else -1
        if 0 < size < 512:  # no database is so small, yet SQLite takes such a file for an empty one and writes over it
            raise self._damaged(f"it has {size} bytes")
        if size == 0 and self._was_filled():
            raise self._damaged("it is empty, and was not")
        writable = os.access(os.path.dirname(self.path) or ".", os.W_OK) and (
            not exists or os.access(self.path, os.W_OK)
        )
        if not writable:
            return self._open_read_only(exists)
        opened: Optional[sqlite3.Connection] = None
        try:
            # A connection may be closed by another thread than the one that opened it (interpreter exit, servers).
            opened = raw = sqlite3.connect(
                self.path, timeout=self.patience, isolation_level=None, check_same_thread=False
            )
            self._configure(raw)
            version = raw.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                self._migrate(raw, version)
            return raw
        except sqlite3.Error as error:
            if opened is not None:
                opened.close()
            raise self._translate(error) from error
        except BaseException:
            if opened is not None:
                opened.close()
            raise

    def _was_filled(self) -> bool:
        """Whether a schema was made here once: then an empty file is a loss, not a first start that was cut short."""
        if os.path.exists(self.path + "-wal"):
            return True
        try:
            return os.path.getsize(self.lock_path) > 0
        except OSError:
            return False

    def _open_read_only(self, exists: bool) -> sqlite3.Connection:
        if not exists:
            raise StoreUnavailable(
                f"there is no store in {os.path.dirname(self.path)}, and the folder is read-only",
                hint="name a folder that can be written with MLCLI_TRACKING_URI",
            )
        self.read_only = True
        # Without a log beside it the file cannot change under a reader; with one, SQLite must be let to read it.
        mode = "mode=ro" if os.path.exists(self.path + "-wal") else "mode=ro&immutable=1"
        try:
            raw = sqlite3.connect(
                f"file:{_quoted(self.path)}?{mode}", uri=True, isolation_level=None, check_same_thread=False
            )
            raw.execute("PRAGMA case_sensitive_like = ON")
            raw.create_function("ulower", 1, _lower, deterministic=True)
            version = raw.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise self._translate(error) from error
        if version > SCHEMA_VERSION:
            raise self._newer(raw)
        if version < SCHEMA_VERSION:
            raw.close()
            raise StoreUnavailable(
                f"the store {self.path} is read-only and has the older schema version {version}",
                hint="open it once where it can be written: a copy of the folder will do",
            )
        return raw

    def _configure(self, raw: sqlite3.Connection) -> None:
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("PRAGMA case_sensitive_like = ON")
        raw.execute("PRAGMA mmap_size = 0")
        raw.create_function("ulower", 1, _lower, deterministic=True)
        if self._in_memory:
            return
        wanted = "delete" if on_network_folder(self.path) else "wal"  # copied to or from such a folder, it changes
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
            with self._locked():
                raw.execute(f"PRAGMA journal_mode = {wanted}")
        raw.execute("PRAGMA synchronous = NORMAL")
        self._synchronous = "NORMAL"

    def _migrate(self, raw: sqlite3.Connection, version: int) -> None:
        """Create the schema, or bring an older one up to date: each step in a transaction of its own, under the lock."""
        if version > SCHEMA_VERSION:
            raise self._newer(raw)
        with self._locked():
            self._keep_copy(raw)
            raw.execute("BEGIN EXCLUSIVE")
            try:
                version = raw.execute("PRAGMA user_version").fetchone()[0]
                if version == 0 and raw.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                    raise StoreUnavailable(
                        f"{self.path} is a database of another program",
                        hint="name another folder with MLCLI_TRACKING_URI",
                    )
                for number in range(version + 1, SCHEMA_VERSION + 1):
                    for statement in statements(number, _DIALECT):
                        raw.execute(statement)
                raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                if version == 0:
                    raw.execute(
                        "INSERT INTO experiments (id, name, creation_time, last_update_time)"
                        " VALUES (0, 'Default', CAST(strftime('%s', 'now') AS INTEGER) * 1000,"
                        " CAST(strftime('%s', 'now') AS INTEGER) * 1000)"
                    )
                raw.execute("COMMIT")
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                raise
            if not self._in_memory:
                with open(self.lock_path, "w", encoding="ascii", opener=rights.opener) as file:
                    file.write(f"schema {SCHEMA_VERSION}\n")  # see _was_filled

    def _keep_copy(self, raw: sqlite3.Connection) -> None:
        """Copy the database of an older mlcli aside before it is changed: the older one still opens the copy."""
        version = raw.execute("PRAGMA user_version").fetchone()[0]
        if not 0 < version < SCHEMA_VERSION:
            return
        copy = f"{self.path}.v{version}"
        aside = f"{copy}.tmp"
        if os.path.exists(aside):
            os.unlink(aside)  # of a migration that was cut short
        with closing(sqlite3.connect(aside)) as target:
            raw.backup(target)
        os.replace(aside, copy)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._in_memory:
            yield
            return
        try:
            with locks.locked(self.lock_path, timeout=self.patience):
                yield
        except TimeoutError:
            raise self._busy(self.lock_path) from None

    def _set_synchronous(self, level: str) -> None:
        if self._synchronous != level:
            self._raw.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level

    # -- faults

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise self._fault(error) from error

    def _fault(self, error: Union[sqlite3.Error, OverflowError, UnicodeEncodeError]) -> MlcliError:
        """Our error for one of the driver's."""
        if isinstance(error, OverflowError):
            return InvalidInput("a number has more than 64 bits")
        if isinstance(error, UnicodeEncodeError):
            return InvalidInput(f"a text is not valid: it has a lone surrogate at position {error.start}")
        return self._translate(error)

    def _translate(self, error: sqlite3.Error) -> MlcliError:
        text = str(error)
        if text == "interrupted":
            return TooLong("the statement took too long")
        if isinstance(error, sqlite3.IntegrityError):
            return broken_rule(unique="UNIQUE" in text, what=text)
        if "readonly" in text or "read-only" in text:
            return StoreUnavailable(
                f"the store is read-only: {self.path}", hint="make it writable, or name another store"
            )
        if "locked" in text or "busy" in text:
            return self._busy(self.path)
        if "full" in text or "disk I/O error" in text:
            return StoreUnavailable(
                f"the disk refused to keep what was written to {self.path}: {text}",
                hint="is there space left? What was logged before is kept",
            )
        if "not a database" in text or "malformed" in text or "file is encrypted" in text:
            return self._damaged(text)
        if "unable to open" in text:
            return StoreUnavailable(
                f"cannot open {self.path}: {text}", hint="does the folder exist, and may you read it?"
            )
        return StoreUnavailable(f"the store {self.path} gave an error: {text}")

    def _busy(self, held: str) -> StoreUnavailable:
        who = " and ".join(locks.holders(held, held + "-shm")) or "another program"
        return StoreUnavailable(
            f"the store is busy: {who} has held {held} for {self.patience:g} seconds",
            hint="wait for it to end, or close what has the store open (a database browser?), then try again",
        )

    def _damaged(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the store {self.path} is damaged: {what}",
            hint="nothing was changed. Keep a copy, then try `sqlite3 mlcli.db .recover`, or put a backup in its place",
        )

    def _newer(self, raw: sqlite3.Connection) -> StoreUnavailable:
        found = raw.execute("PRAGMA user_version").fetchone()[0]
        raw.close()
        return StoreUnavailable(
            f"the store {self.path} has schema version {found}; mlcli {__version__} knows versions up to {SCHEMA_VERSION}",
            hint="a newer mlcli wrote it: upgrade mlcli (pip install --upgrade mlcli)",
        )


def broken_rule(*, unique: bool, what: str) -> MlcliError:
    """A rule of the schema that a write would have broken: another program, not minding our lock, wrote meanwhile."""
    if unique:
        return AlreadyExists(f"there is such a record already: {what}", hint="read it again, then decide")
    return InvalidState(f"what this belongs to is gone, or not as it was: {what}", hint="read it again, then decide")


def statements(number: int, dialect: Mapping[str, str]) -> List[str]:
    """The SQL statements of migration ``number``, with the words that a database has of its own."""
    folder = os.path.join(os.path.dirname(__file__), "migrations")
    name = next(name for name in sorted(os.listdir(folder)) if name.startswith(f"{number:04d}_"))
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        lines = [line.split("--", 1)[0].rstrip() for line in file]
    text = "\n".join(line for line in lines if line)
    for placeholder, sql in dialect.items():
        text = text.replace("{" + placeholder + "}", sql)
    return [statement for statement in text.split(";") if statement.strip()]


def bound(values: Sequence[Any]) -> Tuple[str, Dict[str, Any]]:
    """The inside of an ``IN (...)`` and the values it names.

    The last value is repeated up to a power of two: so there are few texts, which the driver keeps prepared.
    """
    length = 1 << (len(values) - 1).bit_length()
    text, names = _names(length)
    return text, dict(zip(names, [*values, *[values[-1]] * (length - len(values))]))


@lru_cache(maxsize=None)
def _names(length: int) -> Tuple[str, List[str]]:
    names = [f"k{place}" for place in range(length)]
    return ", ".join(f":{name}" for name in names), names


def on_network_folder(path: str) -> bool:
    """Whether ``path`` lies on a network file system, as far as the mount table tells."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            mounts = [words[1:3] for words in map(str.split, file) if len(words) > 2]
    except OSError:
        return False
    real = os.path.realpath(path)
    best: Tuple[int, str] = (-1, "")
    for point, kind in mounts:
        place = point.replace("\\040", " ")
        if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) > best[0]:
            best = (len(place), kind)
    return best[1] in _NETWORK_FILESYSTEMS


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
