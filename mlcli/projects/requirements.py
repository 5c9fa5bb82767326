"""Requirement lines as pip reads them, each with the file and line that asks for it.

Continued lines are joined, comments dropped, ``-r`` files read in (UTF-16 too), ``-c`` files kept apart as constraints.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import ProjectError
from mlcli.projects import yamlfile
from mlcli.projects.problem import ERROR, WARNING, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Requirement(NamedTuple):
    """One line and who asks for it; ``file`` as seen from the project's folder."""

    text: str
    file: str
    line: int | None = None

    @property
    def place(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def name(self) -> str | None:
        """The normalised name of the package; None for options, paths and bare URLs."""
        found = None if is_path(self.text) else _NAMED.match(self.text)
        return None if found is None else normalise(found["name"])

    @property
    def path(self) -> str | None:
        """The local folder or file that this line installs, as written; None if it is none."""
        text = self.text
        if (option := _EDITABLE.match(text)) is not None:
            text = option["value"].strip("'\"")
        return re.sub(r"\[[^\]]*\]$", "", re.split(r"\s+;|\s+--", text)[0]).strip() if is_path(text) else None

    @property
    def editable(self) -> bool:
        return _EDITABLE.match(self.text) is not None


_NAMED = re.compile(r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)", re.DOTALL)
_EDITABLE = re.compile(r"(?:-e\s*|--editable(?:\s+|=))(?P<value>.+)")
_INCLUDE = re.compile(r"(?:-(?P<short>[rc])\s*|--(?P<long>requirements?|constraints?)(?:\s+|=))(?P<value>.+)")
_VERSION = (
    r"v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?\d*)?(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?"
    r"(?:[-_.]?dev[-_.]?\d*)?(?:\+[\w.-]+)?(?:\.\*)?"
)
_CLAUSE = re.compile(rf"\s*(?:===\s*\S+|(?:==|~=|!=|<=|>=|<|>)\s*{_VERSION})\s*", re.IGNORECASE)


def normalise(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_path(text: str) -> bool:
    """Tell whether a line names a local folder or file rather than a package."""
    first = text.split(";", maxsplit=1)[0].strip()
    if first.startswith("file:"):
        return True
    if "://" in first or first.startswith("-") or " @" in first:
        return False
    return (
        first in (".", "..")
        or first.startswith(("./", "../", "/", "~", ".\\", "..\\", ".["))
        or re.match(r"[A-Za-z]:[\\/]", first) is not None
        or ("/" in re.split(r"[\[\s]", first)[0])
        or first.endswith((".whl", ".tar.gz", ".zip"))
    )


class Reader:
    """Collects the requirements of one environment file and of all the files it includes."""

    def __init__(self, folder: str, problems: list[Problem]) -> None:
        self.folder = folder
        self.requirements: list[Requirement] = []
        self.constraints: list[Requirement] = []
        self._problems = problems
        self._open: list[str] = []

    def add(self, text: str, file: str, line: int | None, *, base: str | None = None, constraint: bool = False) -> None:
        """Take in one line; what it includes is looked for in the project's folder, then beside ``base``."""
        include = _INCLUDE.fullmatch(text)
        if include is not None:
            kind = include["short"] or include["long"][0]
            self._include(include["value"].strip().strip("'\""), text, file, line, base, constraint or kind == "c")
            return
        requirement = Requirement(text, file, line)
        if requirement.name == "mlcli":  # the tracker is put on PYTHONPATH; no index is asked for it
            return
        problem = fault(requirement)
        if problem is not None:
            self._problems.append(problem)
        (self.constraints if constraint else self.requirements).append(requirement)

    def _include(self, target: str, text: str, file: str, line: int | None, base: str | None, constraint: bool) -> None:
        if "://" in target and not target.startswith("file:"):
            (self.constraints if constraint else self.requirements).append(Requirement(text, file, line))
            return
        path = self._find(target.removeprefix("file://"), base)
        shown = shorten(path, self.folder)
        if path in self._open:
            self._problem("requirements-loop", f"`{target}` includes itself", file, line, "remove this line")
            return
        try:
            content = yamlfile.read_text(path, self._problems, file=shown)
        except ProjectError as error:
            message = f"`{target}` cannot be read: {error.message}"
            self._problem("requirements-missing", message, file, line, f"looked for {path}")
            return
        self._open.append(path)
        for number, item in logical_lines(content):
            self.add(item, shown, number, base=os.path.dirname(path), constraint=constraint)
        self._open.pop()

    def _find(self, target: str, base: str | None) -> str:
        # Inside a requirements file paths are seen from that file; those of the environment file from the project.
        folders = [base, self.folder] if self._open else [self.folder, base]
        found = [os.path.normpath(os.path.join(folder, target)) for folder in folders if folder is not None]
        return next((path for path in found if os.path.exists(path)), found[0])

    def _problem(self, code: str, message: str, file: str, line: int | None, hint: str) -> None:
        self._problems.append(Problem(ERROR, code, message, file, line, None, hint))


def logical_lines(content: str) -> Iterator[tuple[int, str]]:
    r"""Yield the number and text of each line that says something, ``\\`` continuations joined, comments gone."""
    pending, start = "", 0
    for number, raw in enumerate(content.splitlines(), 1):
        start = start or number
        if pending and raw.lstrip().startswith("#"):  # pip: a comment inside a continued line ends nothing
            continue
        if raw.endswith("\\"):
            pending += raw[:-1].strip() + " "
            continue
        text = without_comment(pending + raw.strip() if pending else raw)
        if text:
            yield start, text
        pending, start = "", 0
    text = without_comment(pending)
    if text:
        yield start, text


def without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#.*$", "", line).strip()


def fault(requirement: Requirement) -> Problem | None:
    """Say what is wrong with a line that no installer would accept."""
    text = requirement.text
    if text.startswith("-") or requirement.path is not None or "://" in text:
        return None
    found = _NAMED.match(text)
    rest = "" if found is None else re.sub(r"\s+--(?:hash|config-settings?|global-option)\b.*$", "", found["rest"])
    rest = rest.split(";")[0].strip()
    if found is not None and rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1]
    if found is not None and (not rest or rest.startswith("@") or all(map(_CLAUSE.fullmatch, rest.split(",")))):
        return None
    message, hint = (
        f"`{text}` is not a requirement that an installer understands",
        "write `name==1.2.3`, `name>=1.2` or `name`",
    )
    if found is not None and re.match(r"=[^=]", rest):
        hint = f"pip wants two equal signs: `{found['name']}=={rest[1:].split('=')[0].strip()}`"
    elif found is not None and re.match(r"[A-Za-z0-9]", rest):
        hint = "one package a line"
    return Problem(ERROR, "bad-requirement", message, requirement.file, requirement.line, None, hint)


def notes(requirements: Iterable[Requirement]) -> list[Problem]:
    """Warn of options that send the installer to places other than the user's own index."""
    return [
        Problem(
            WARNING,
            "index-option",
            f"packages may come from a place of the project's choice: `{redact(item.text)}`",
            item.file,
            item.line,
        )
        for item in requirements
        if re.match(r"(?:--(?:extra-)?index-url|-i|--find-links|-f|--trusted-host)\b", item.text)
    ]


def redact(text: str) -> str:
    """Hide the passwords inside URLs."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)


def shorten(path: str, folder: str) -> str:
    """``path`` as seen from ``folder`` when it lies inside, else as it is."""
    inside = os.path.relpath(path, folder) if os.path.splitdrive(path)[0] == os.path.splitdrive(folder)[0] else path
    return path if inside.startswith("..") else inside
