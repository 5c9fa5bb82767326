"""Stores: what lasts. `open_store` opens the one that a tracking URI names: a folder, or a tracking server.

The database is imported when a store is opened: a script that only logs does without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

from mlcli import config, journal, locks, rights
from mlcli.errors import InvalidInput, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from mlcli.store.tracking import Store as Store

DATABASE = "mlcli.db"
SPOOL_OF = "server.json"  # in a folder of journals that go to a server
ELSEWHERE = "mlcli.database"  # in a folder of journals and artifacts: the database that the records are in
_POSTGRES = ("postgresql", "postgres")
MANY_JOURNALS = 64


def __getattr__(name: str) -> object:
    if name == "Store":
        from mlcli.store.tracking import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def store_root(uri: Optional[str] = None) -> str:
    """The store that ``uri`` (by default the settings) names: an absolute folder, or the plain address of a server."""
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
        from mlcli.store import http

        return http.server(uri).url
    if scheme in _POSTGRES:
        raise InvalidInput(
            f"programs do not log into a database: {config.masked(uri)}{source}",
            hint="`mlcli server --backend-store-uri postgresql://...` serves it; set MLCLI_TRACKING_URI to that server",
        )
    if scheme in ("sqlite", "mysql", "mssql"):
        raise InvalidInput(
            f"a store is a folder, not a {scheme} database: {config.masked(uri)}{source}",
            hint="set MLCLI_TRACKING_URI to a folder, such as ./mlruns; it holds a SQLite database of its own",
        )
    raise InvalidInput(f"{config.masked(uri)} is not a store{source}", hint="a store is a folder, such as ./mlruns")


def open_store(uri: Optional[str] = None, *, create: bool = True, artifact_root: Optional[str] = None) -> Store:
    """Open the store at ``uri`` (by default where the settings say) and catch up with its journals.

    Where there is none yet it is created; with ``create=False`` an empty one in memory is given instead, so that looking
    leaves nothing behind. ``artifact_root`` is for a store whose records are in PostgreSQL: the folder of its artifacts
    and journals (by default the one that the store began with, else ``mlruns``).
    """
    address = uri or config.tracking_uri().value or ""
    if address.partition("://")[0].lower() in ("http", "https"):
        from mlcli.store.rest import RestStore

        return RestStore(address)
    if is_database(address):
        store = _open_postgres(address, create, artifact_root)
    else:
        store = _open_folder(store_root(uri), create)
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
    if any([os.path.exists(os.path.join(root, name)) for name in (SPOOL_OF, ELSEWHERE)]):
        return  # what applies these journals is elsewhere
    folder = journal.live_folder(root)
    try:
        if sum(name.endswith(".jsonl") for name in os.listdir(folder)) <= MANY_JOURNALS:
            return
        lock = os.open(os.path.join(folder, ".tidy"), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:
        return
    try:
        if locks.try_lock(lock):
            from mlcli.store.database import Sqlite
            from mlcli.store.tracking import Store

            with Store(root, Sqlite(os.path.join(root, DATABASE), patience=patience)) as store:
                store.absorb()
    except (OSError, StoreUnavailable):  # a reader meets the same, and says so
        pass
    finally:
        os.close(lock)


def _open_folder(root: str, create: bool) -> Store:
    from mlcli.store.database import Sqlite
    from mlcli.store.tracking import Store

    path = os.path.join(root, DATABASE)
    if not create and not os.path.exists(path) and not os.path.isdir(journal.live_folder(root)):
        return Store(root, Sqlite(":memory:"))
    elsewhere = os.path.join(root, ELSEWHERE)
    if os.path.exists(elsewhere):
        with open(elsewhere, encoding="utf-8") as file:
            raise InvalidInput(
                f"the records of {root} are in {file.read().strip()}", hint="open them by the address of that database"
            )
    journal.make_store_folder(root)
    return Store(root, Sqlite(path))


def _open_postgres(uri: str, create: bool, artifact_root: Optional[str]) -> Store:
    from mlcli.store.database import Sqlite
    from mlcli.store.tracking import Store

    try:
        from mlcli.store.postgres import Postgres
    except ImportError as error:
        raise StoreUnavailable(
            f"a store in PostgreSQL needs the driver psycopg: {error}",
            hint="pip install 'mlcli[postgres]', in the environment of the program that opens the store",
        ) from error
    root = os.path.abspath(os.path.expanduser(artifact_root)) if artifact_root else None
    default = os.path.abspath(config.STORE_FOLDER)
    try:
        database = Postgres(uri, create=create)
    except NotFound:
        return Store(root or default, Sqlite(":memory:"))
    try:
        kept = database.artifact_root(root or default)
        root = root or kept or default
        if os.path.exists(os.path.join(root, DATABASE)):
            raise InvalidInput(
                f"{root} holds a store of its own", hint=f"name another folder for the artifacts of {database.name}"
            )
        elsewhere = os.path.join(root, ELSEWHERE)
        if not os.path.exists(elsewhere):  # journals must reach these records and no others
            journal.make_store_folder(root)
            with open(elsewhere, "w", encoding="utf-8", opener=rights.opener) as file:
                file.write(f"{database.name}\n")
        return Store(root, database)
    except BaseException:
        database.close()
        raise


def writer(root: str) -> journal.Journal:
    """The journal of this process for the store ``root``; what is for a server goes there in the background."""
    if is_remote(root):
        from mlcli.store import spool

        return spool.writer(root)
    return journal.writer(root)


def open_journal(root: str, *, default_run: Optional[str] = None) -> journal.Journal:
    """A new journal for the store ``root``, as :func:`writer` gives the one of this process."""
    if is_remote(root):
        from mlcli.store import spool

        return spool.open_journal(root, default_run=default_run)
    return journal.Journal.open(root, default_run=default_run)


def folder_of(root: str) -> str:
    """The folder of the journals of the store ``root``: the store's own, or the spool of what goes to a server."""
    if is_remote(root):
        from mlcli.store import spool

        return spool.folder(root)
    return root


def files_folder(root: str, run_id: str) -> str:
    """Where files of a run wait for the server ``root`` that is away."""
    from mlcli.store import spool

    return spool.files_folder(root, run_id)


def settle(root: str) -> bool:
    """Wait, for a bounded time, until a server has what was logged; False when it is away."""
    if is_remote(root):
        from mlcli.store import spool

        return spool.settle(root)
    return True


def is_database(uri: str) -> bool:
    """Whether ``uri`` is the address of a database that keeps the records of a store."""
    return uri.partition("://")[0] in _POSTGRES


def is_remote(root: str) -> bool:
    return root.startswith(("http://", "https://"))


def takes_new_runs(root: str) -> bool:
    """Whether a journal may bring runs into being in the store ``root``; on an MLflow server only the server does."""
    if not is_remote(root):
        return True
    from mlcli.store import spool

    return spool.speaks_journal(root)


def server_of(folder: str) -> Optional[str]:
    """The address of the server that the journals in ``folder`` go to; None where they are a store's own."""
    if not os.path.exists(os.path.join(folder, SPOOL_OF)):
        return None
    from mlcli.store import spool

    return spool.server_of(folder)


def _file_path(rest: str) -> str:
    from urllib.parse import unquote

    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise InvalidInput(f"file:{rest} names another machine ({host})", hint="write file:///folder")
        rest = slash + path
    return unquote(rest)
