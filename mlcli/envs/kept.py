"""The environments that are kept: which there are, who used them, who may remove them."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.envs import env as envs
from mlcli.envs.build import wipe
from mlcli.envs.env import Place, State
from mlcli.errors import InvalidInput, InvalidState, NotFound
from mlcli.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME = re.compile(r"[0-9a-f]{32}")


class Kept(NamedTuple):
    """One folder of the env root; ``state`` is None for leftovers, ``illness`` says why it would not be used."""

    place: Place
    state: State | None
    illness: str | None
    last_used: float

    @property
    def short(self) -> str:
        return self.place.name[:8]

    def size(self) -> int:
        """The bytes of all its files; those that uv linked from its cache take no second place on the disk."""
        return sum(_sizes(self.place.prefix))


def listed() -> list[Kept]:
    """All of them, the last used first."""
    root = os.path.abspath(config.env_root())
    try:
        names = [name for name in os.listdir(root) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    found = (_kept(root, name) for name in names)
    return sorted((kept for kept in found if kept is not None), key=lambda kept: -kept.last_used)


def _kept(root: str, name: str) -> Kept | None:
    prefix = os.path.join(root, name)
    state = envs.read_state(prefix)
    place = Place(root, name if state is None else state.key)
    try:
        used = envs.last_used(prefix)
    except OSError:
        try:
            used = os.lstat(prefix).st_mtime
        except FileNotFoundError:  # removed since the folder was listed
            return None
    return Kept(place, state, envs.illness(place, state), used)


def find(word: str, projects: Iterable[str] = ()) -> list[Kept]:
    """Those whose key begins with ``word``, else those that one of ``projects`` (names of the same one) has used."""
    everything = listed()
    if re.fullmatch(r"[0-9a-f]{4,64}", word):
        by_key = [kept for kept in everything if kept.place.key.startswith(word) or kept.place.name.startswith(word)]
        if len(by_key) > 1:
            raise InvalidInput(
                f"{word} stands for {len(by_key)} environments",
                hint=f"give more of it: {', '.join(kept.place.name for kept in by_key)}",
            )
        if by_key:
            return by_key
    names = {word, os.path.abspath(word), *projects}
    found = [kept for kept in everything if kept.state is not None and names & set(kept.state.projects)]
    if not found:
        raise NotFound(f"no environment has the key {word} or was used by a project {word}", hint="mlcli env ls")
    return found


def remove(kept: Kept) -> None:
    """Remove it, unless somebody builds it or runs in it at this moment."""
    envs.safe_root()
    try:
        with locked(kept.place.lock, timeout=0):
            wipe(kept.place.prefix)
            if os.path.exists(kept.place.log):
                os.unlink(kept.place.log)
    except TimeoutError:
        raise InvalidState(f"the environment {kept.short} is in use", hint="wait until its run has ended") from None


def stale(kept: Kept, seconds: float) -> str | None:
    """Say why it may go: of no use to anyone, or not used for so long; None when it should stay."""
    if kept.state is None or kept.illness is not None:
        return kept.illness
    unused = time.time() - kept.last_used
    return f"not used for {_words(unused)}" if unused >= seconds else None


def sweep(seconds: float) -> None:
    """Remove the logs of builds that failed so long ago."""
    folder = os.path.join(os.path.abspath(config.env_root()), "logs")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        built = os.path.exists(os.path.join(os.path.dirname(folder), name.removesuffix(".log")))
        if not built and time.time() - os.stat(path).st_mtime >= seconds:
            os.unlink(path)


def _words(seconds: float) -> str:
    units = ((86400, "day"), (3600, "hour"), (60, "minute"))
    size, word = next((unit for unit in units if seconds >= unit[0]), (1, "second"))
    number = int(seconds // size)
    return f"{number} {word}{'' if number == 1 else 's'}"


def seconds(text: str) -> float:
    """Read a length of time: ``30d``, ``12h``, ``2w``, ``90m``, ``0``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip().lower())
    if found is None:
        raise InvalidInput(f"`{text}` is no length of time", hint="write 30d, 12h or 2w")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "": 86400}[found[2]]


def _sizes(folder: str) -> Iterator[int]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(entry.path)
                else:
                    yield entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # it is being removed at this moment
        return
