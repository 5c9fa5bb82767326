"""Stores: what lasts. `open_store` opens the one that a tracking URI names.

The database is imported when a store is opened: a script that only logs does without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

from mlcli import config, journal, locks
from mlcli.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from mlcli.store.tracking import Store as Store

DATABASE = "mlcli.db"
MANY_JOURNALS = 64


def __getattr__(name: str) -> object:
    if name == "Store":
        from mlcli.store.tracking import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def store_root(uri: Optional[str] = None) -> str:
    """The absolute folder of the store that ``uri`` (by default the settings) names: a path or a ``file:`` URI."""
    source = "" if uri else " (from {})"
    if not uri:
        found = config.tracking_uri()
        uri, source = found.value or "", source.format(found.source)
    scheme, colon, rest = uri.partition(":")
    if not colon or len(scheme) == 1 or os.path.sep in scheme:  # a path; one letter is a drive of Windows
        try:
            return os.path.abspath(os.path.expanduser(uri))
        except FileNotFoundError:
            raise InvalidInput(
                f"the store {uri}{source} is named from the current folder, which was deleted",
                hint="go to a folder that is there: cd ~",
            ) from None
    if scheme == "file":
        return os.path.abspath(_file_path(rest))
    if scheme in ("http", "https"):
        raise InvalidInput(
            f"this version of mlcli keeps runs in a folder, not on a server: {_masked(uri)}{source}",
            hint="set MLCLI_TRACKING_URI to a folder, such as ./mlruns",
        )
    if scheme in ("sqlite", "postgresql", "mysql", "mssql"):
        raise InvalidInput(
            f"a store is a folder, not a {scheme} database: {_masked(uri)}{source}",
            hint="set MLCLI_TRACKING_URI to a folder, such as ./mlruns; it holds a SQLite database of its own",
        )
    raise InvalidInput(f"{_masked(uri)} is not a store{source}", hint="a store is a folder, such as ./mlruns")


def open_store(uri: Optional[str] = None, *, create: bool = True) -> Store:
    """Open the store at ``uri`` (by default where the settings say) and catch up with its journals.

    Where there is none yet it is created; with ``create=False`` an empty one in memory is given instead, so that looking
    leaves nothing behind.
    """
    from mlcli.store.database import Database
    from mlcli.store.tracking import Store

    root = store_root(uri)
    path = os.path.join(root, DATABASE)
    if not create and not os.path.exists(path) and not os.path.isdir(journal.live_folder(root)):
        return Store(root, Database(":memory:"))
    journal.make_store_folder(root)
    store = Store(root, Database(path))
    try:
        store.absorb()
    except BaseException:
        store.close()
        raise
    return store


def tidy(root: str, *, patience: float = 1.0) -> None:
    """Apply the journals that short processes left, if they have become many, so that no reader waits long for them.

    For the end of a process, which must neither fail nor be held up: one process at a time does it, and gives up
    rather than wait for a busy store. What stays is applied by the next one or by the next reader.
    """
    folder = journal.live_folder(root)
    try:
        if sum(name.endswith(".jsonl") for name in os.listdir(folder)) <= MANY_JOURNALS:
            return
        lock = os.open(os.path.join(folder, ".tidy"), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:
        return
    try:
        if locks.try_lock(lock):
            from mlcli.store.database import Database
            from mlcli.store.tracking import Store

            with Store(root, Database(os.path.join(root, DATABASE), patience=patience)) as store:
                store.absorb()
    except (OSError, StoreUnavailable):  # a reader meets the same, and says so
        pass
    finally:
        os.close(lock)


def _file_path(rest: str) -> str:
    from urllib.parse import unquote

    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise InvalidInput(f"file:{rest} names another machine ({host})", hint="write file:///folder")
        rest = slash + path
    return unquote(rest)


def _masked(uri: str) -> str:
    """The URI without what stands between :// and @: it may hold a password."""
    scheme, sep, rest = uri.partition("://")
    return f"{scheme}{sep}***@{rest.rpartition('@')[2]}" if sep and "@" in rest else uri
