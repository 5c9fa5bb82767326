"""Every kind of store there is, opened on a folder of a test's own: what one promises, all promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlcli.store import Store, open_store

KINDS: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: open_store(str(folder))}
