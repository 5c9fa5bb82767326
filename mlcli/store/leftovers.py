"""What interrupted work left in the folders of a store: unfinished files, and the files of runs that are being removed.

Nothing is guessed: only the folders of runs that this store knows are searched, and a run's files are removed only when
it is written down that they were to be. A folder without a record may be MLflow's, which keeps its runs in ``mlruns`` too.
"""

from __future__ import annotations

import json
import os
from time import time
from typing import Iterator, List, NamedTuple, Sequence

from mlcli import rights
from mlcli.artifacts import TEMPORARY
from mlcli.errors import StoreUnavailable
from mlcli.store.tracking import Store, remove_folder

DAY = 24 * 60 * 60
_PLAN = ".removing-"  # files in the store's folder that list what a `gc` is about to remove


class Leftover(NamedTuple):
    path: str
    why: str


def found(store: Store, older_than: float = DAY) -> List[Leftover]:
    """Everything that can go: unfinished files of more than ``older_than`` seconds, and what a plan was not carried out of."""
    return [*_unremoved(store), *_unfinished(store, time() - older_than)]


def remove(store: Store, leftovers: Sequence[Leftover]) -> None:
    for leftover in leftovers:
        if os.path.isdir(leftover.path):
            remove_folder(leftover.path)
        elif os.path.exists(leftover.path):
            os.unlink(leftover.path)
    for plan in _plans(store):
        if not any(map(os.path.isdir, _gone(store, plan))):
            os.unlink(plan)


def plan(store: Store, folders: Sequence[str]) -> str:
    """Write down, before the records go, which folders are to be removed after them; the path of what was written."""
    path = os.path.join(store.root, f"{_PLAN}{os.urandom(6).hex()}.json")
    try:
        with open(path, "x", encoding="utf-8", opener=rights.opener) as file:
            json.dump(list(folders), file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreUnavailable(
            f"cannot write {path}: {error.strerror}", hint="nothing was removed; check space and rights"
        ) from error
    return path


def _plans(store: Store) -> List[str]:
    names = os.listdir(store.root) if os.path.isdir(store.root) else []
    return [os.path.join(store.root, name) for name in sorted(names) if name.startswith(_PLAN)]


def _gone(store: Store, plan: str) -> List[str]:
    """The folders of a plan whose records are gone indeed: the removal may have been cut short before that."""
    try:
        with open(plan, encoding="utf-8") as file:
            folders = json.load(file)
    except (OSError, ValueError):  # cut short while it was written: then no record has gone either
        return []
    return [folder for folder in folders if not store.has_folder(folder)]


def _unremoved(store: Store) -> Iterator[Leftover]:
    for one in _plans(store):
        for folder in _gone(store, one):
            if os.path.isdir(folder):
                yield Leftover(folder, "files of what was removed")


def _unfinished(store: Store, before: float) -> Iterator[Leftover]:
    for folder in store.run_folders():
        for parent, below, files in os.walk(folder):
            for name in below + files:
                if name.startswith(TEMPORARY) and not name.endswith(".lock"):
                    path = os.path.join(parent, name)
                    if os.lstat(path).st_mtime < before:
                        yield Leftover(path, "an unfinished file")
            below[:] = [name for name in below if not name.startswith(TEMPORARY)]
