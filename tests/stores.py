"""Every kind of store there is, opened on a folder of a test's own: what one promises, all promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import postgres
from served import ServedStore

from mlcli.store import Store, open_store


class Kind(NamedTuple):
    """A kind of store: called with a folder it opens the store whose journals and artifacts lie there."""

    address: Callable[[Path], str]

    def __call__(self, folder: Path) -> Store:
        return open_store(self.address(folder), artifact_root=str(folder))


in_postgres = Kind(lambda folder: postgres.running().uri_of(folder))

# Those that apply the journals of a folder themselves.
LOCAL_KINDS = {"sqlite": Kind(str), "postgres": in_postgres}
KINDS: dict[str, Callable[[Path], Store]] = {**LOCAL_KINDS, "rest": ServedStore}
