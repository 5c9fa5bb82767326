"""What is wrong, or may be wrong, with a project: one sentence, the place, and the way to mend it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ERROR = "error"
WARNING = "warning"


class Problem(NamedTuple):
    """One finding; ``line`` and ``column`` count from 1, ``code`` is a stable kebab-case name for it."""

    level: str
    code: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    hint: str = ""

    @property
    def place(self) -> str:
        """``file:line:column`` as far as known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def error(self) -> ProjectError:
        """The same as an exception."""
        return ProjectError(self.message, file=self.file, line=self.line, column=self.column, hint=self.hint)


def raise_first(problems: Iterable[Problem]) -> None:
    """Raise the first problem of level error, if any, and list the others in its hint."""
    errors = [problem for problem in problems if problem.level == ERROR]
    if not errors:
        return
    first, *others = errors
    if others:
        more = "\n".join(f"also {problem.place}: {problem.message}" for problem in others)
        first = first._replace(hint=f"{first.hint}\n{more}".strip())
    raise first.error()


def similar(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` was probably meant to be."""
    by_lower = {word.lower().replace("-", "_"): word for word in known}
    found = get_close_matches(name.lower().replace("-", "_"), by_lower, n=1, cutoff=0.7)
    return by_lower[found[0]] if found else None


def listing(names: Sequence[str]) -> str:
    """``a, b and c``, each in backticks."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}" if quoted else ""
