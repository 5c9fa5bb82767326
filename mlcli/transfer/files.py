"""Where the files of imported runs lie, and how they get below a new root: copied, or linked where that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from mlcli import artifacts, rights
from mlcli.errors import MlcliError


class Folder(NamedTuple):
    """Files in a folder of this machine; "" stands for none."""

    path: str

    def bring(self, target: str, *, link: bool, tell: Callable[[str, str], None]) -> tuple[int, int]:
        if not self.path or (os.path.exists(target) and os.path.samefile(self.path, target)):
            return 0, 0  # an mlruns folder that becomes a store of ours keeps its files where they are
        count = size = 0
        try:
            folders, files = self._tree(tell)
        except MlcliError as error:
            tell("", error.message)
            return 0, 0
        if files:
            rights.make_folder(target)
        for name in folders if files else ():
            rights.make_folder(os.path.join(target, *name.split("/")))
        for name, path, length in files:
            place = os.path.join(target, *name.split("/"))
            if _same(place, length):
                continue
            try:
                if not (link and _linked(path, place)):
                    artifacts._copy(path, place)  # noqa: SLF001
            except MlcliError as error:
                tell(name, error.message)
                continue
            count, size = count + 1, size + length
        return count, size

    def walk(self, tell: Callable[[str, str], None]) -> list[tuple[str, str, int]]:
        """Every file: its name below the folder, its path, its size. ``tell(name, why)`` of what is passed over."""
        return self._tree(tell)[1] if self.path else []

    def _tree(self, tell: Callable[[str, str], None]) -> tuple[list[str], list[tuple[str, str, int]]]:
        return artifacts._tree(self.path, lambda skipped: tell(skipped.path, skipped.why))  # noqa: SLF001


class Elsewhere(NamedTuple):
    """Files that cannot be had from here; the run says where they are."""

    uri: str
    why: str
    local: bool = False  # a folder of this machine that is not there

    def bring(self, target: str, *, link: bool, tell: Callable[[str, str], None]) -> tuple[int, int]:  # noqa: ARG002
        tell("", self.why)
        return 0, 0


def locate(uri: str | None, owner: str, near: tuple[str, ...]) -> Folder | Elsewhere | None:
    """The files at an artifact URI of MLflow: ``near`` are folders to look in first, for stores that were moved.

    ``owner`` is the id of the run or model. A folder outside ``near`` is believed only when the id is a part of its path:
    a store made by somebody else must not make us copy whatever it likes from this machine.
    """
    for folder in near:
        if os.path.isdir(folder):
            return Folder(folder)
    if not uri:
        return None
    scheme, colon, rest = uri.partition(":")
    if colon and len(scheme) > 1 and os.sep not in scheme and scheme != "file":
        return Elsewhere(uri, f"its files are at {uri}, which mlcli does not read")
    path = uri
    if scheme == "file" and colon:
        path = unquote(rest[2:].partition("/")[2] if rest.startswith("//") else rest)
        path = "/" + path.lstrip("/")
    if not os.path.isdir(path):
        return Elsewhere(path, f"there is no folder {path}", local=True)
    if owner not in path.split(os.sep):
        return Elsewhere(uri, f"{path} does not look like the folder of {owner}: not copied")
    return Folder(path)


def _same(place: str, length: int) -> bool:
    """Whether the file came already: what has its name is whole."""
    try:
        return os.path.getsize(place) == length
    except OSError:
        return False


def _linked(path: str, place: str) -> bool:
    try:
        if os.path.lexists(place):
            os.unlink(place)
        os.link(path, place)
    except OSError:  # another device, a file system without links: copied instead
        return False
    return True
