"""Every kind of store there is, opened on a folder of a test's own: what one promises, all promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import postgres

from mlcli.store import Store, open_store


def in_postgres(folder: Path) -> Store:
    return open_store(postgres.running().uri_of(folder), artifact_root=str(folder))


# Those that apply the journals of a folder themselves.
LOCAL_KINDS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: open_store(str(folder)),
    "postgres": in_postgres,
}
KINDS: dict[str, Callable[[Path], Store]] = {**LOCAL_KINDS}
