"""What a word names as a source: a folder, a database, a server, a bundle."""

from __future__ import annotations

import os

from mlcli.errors import InvalidInput, NotFound
from mlcli.store import DATABASE
from mlcli.transfer.filestore import FileStore
from mlcli.transfer.mlflowdb import MlflowDatabase
from mlcli.transfer.records import Source

_SQLITE = b"SQLite format 3\0"
_ZIP = b"PK\x03\x04"


def open_sources(given: str, target: str) -> list[Source]:
    """The sources that ``given`` names, open; ``target`` is the folder of the store that they go into, "" where it is none.

    A folder may hold more than one: an mlruns of MLflow's with a store of ours in it, a project with its mlflow.db.
    """
    scheme, colon, rest = given.partition(":")
    if scheme in ("http", "https") and colon:
        from mlcli.transfer.server import Server

        return [Server(given)]
    if scheme == "sqlite" and colon:
        path = rest[4:] if rest.startswith("////") else rest.lstrip("/")
        return [_file("/" + path if rest.startswith("////") else path)]
    if scheme in ("postgresql", "mysql", "mssql") and colon:
        raise InvalidInput(
            f"mlcli does not read MLflow's tables in {scheme}",
            hint="start `mlflow server` on that database and import from its address",
        )
    path = os.path.expanduser(given)
    if scheme == "file" and colon:
        from mlcli.artifacts import open_artifacts

        path = open_artifacts(given).root
    if os.path.isfile(path):
        return [_file(path)]
    if not os.path.isdir(path):
        raise NotFound(
            f"there is no {given}", hint="name an mlruns folder, an mlflow.db, a bundle, or http://host:port"
        )
    found = _folder(path, target)
    if not found:
        raise InvalidInput(
            f"there is nothing to import in {path}",
            hint="a source is an mlruns folder, an mlflow.db, another store of mlcli's, a bundle, or http://host:port",
        )
    return found


def _folder(path: str, target: str) -> list[Source]:
    found: list[Source] = []
    if os.path.exists(os.path.join(path, DATABASE)) and not _same(path, target):
        from mlcli.transfer.ours import OurStore

        found.append(OurStore(path))
    if FileStore.looks_like(path):
        found.append(FileStore(path))
    if found:
        return found
    if os.path.isfile(os.path.join(path, "mlflow.db")):
        found.append(MlflowDatabase(os.path.join(path, "mlflow.db")))
    below = os.path.join(path, "mlruns")
    return found + (_folder(below, target) if os.path.isdir(below) else [])


def _file(path: str) -> Source:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if head.startswith(_ZIP):
        from mlcli.transfer.bundle import Bundle

        return Bundle(path)
    if head == _SQLITE:
        if os.path.basename(path) == DATABASE:
            from mlcli.transfer.ours import OurStore

            return OurStore(os.path.dirname(os.path.abspath(path)))
        return MlflowDatabase(path)
    raise InvalidInput(f"{path} is neither a SQLite database nor a bundle of `mlcli export`")


def _same(one: str, other: str) -> bool:
    return bool(other) and os.path.realpath(one) == os.path.realpath(other)
