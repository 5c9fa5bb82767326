"""Why a package is in an environment: which line asks for it, or which package that a line asks for needs it."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import deque
from importlib.metadata import distributions
from typing import TYPE_CHECKING, NamedTuple

from mlcli.projects.requirements import Requirement, normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Installed(NamedTuple):
    name: str
    version: str
    needs: tuple[tuple[str, str], ...]  # the normalised name and the line that asks for it


def installed(prefix: str) -> dict[str, Installed]:
    """All packages of the environment at ``prefix`` by normalised name, read from their own metadata."""
    pattern = ("Lib", "site-packages") if sys.platform == "win32" else ("lib", "python*", "site-packages")
    folders = glob.glob(os.path.join(prefix, *pattern))
    result: dict[str, Installed] = {}
    for distribution in distributions(path=folders):
        name = distribution.metadata["Name"]
        if name:
            needs = [_need(line) for line in distribution.requires or () if not re.search(r";.*\bextra\s*==", line)]
            result[normalise(name)] = Installed(name, distribution.version, tuple(filter(None, needs)))
    return result


def _need(line: str) -> tuple[str, str] | None:
    found = re.match(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", line)
    return None if found is None else (normalise(found[0]), line.partition(";")[0].strip())


def direct(package: str, requirements: Iterable[Requirement]) -> list[Requirement]:
    """The lines that ask for it by name."""
    return [item for item in requirements if item.name == normalise(package)]


def chains(package: str, requirements: Sequence[Requirement], packages: dict[str, Installed]) -> list[list[str]]:
    """For each line that pulls it in through others, the shortest way: the names from the line's package down to it."""
    wanted = normalise(package)
    roots = [item.name for item in requirements if item.name in packages and item.name != wanted]
    found = (_shortest(root, wanted, packages) for root in dict.fromkeys(roots) if root is not None)
    return [[packages[name].name for name in chain] for chain in found if chain]


def _shortest(root: str, wanted: str, packages: dict[str, Installed]) -> list[str]:
    ways = deque([[root]])
    seen = {root}
    while ways:
        way = ways.popleft()
        for name, _ in packages[way[-1]].needs:
            if name == wanted:
                return [*way, name]
            if name in packages and name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []
