"""What an environment file says about Python: a version, the beginning of one, or a range."""

from __future__ import annotations

import re
from typing import NamedTuple

Version = tuple[int, ...]

_CLAUSE = re.compile(r"(?P<sign>===?|~=|!=|<=|>=|<|>|=)?\s*v?(?P<number>\d+(?:\.\d+){0,2})(?P<rest>\.\*|\.[xX])?")


class PythonSpec(NamedTuple):
    """Clauses that must all hold: pairs of a sign and numbers; ``=`` means "begins with"."""

    text: str
    clauses: tuple[tuple[str, Version], ...]

    @property
    def exact(self) -> Version | None:
        """The one full version that is asked for, if it is one."""
        if len(self.clauses) == 1 and self.clauses[0][0] == "=" and len(self.clauses[0][1]) == 3:
            return self.clauses[0][1]
        return None

    def allows(self, version: Version) -> bool:
        """Tell whether this version (major, minor, patch) will do."""
        return all(_holds(sign, wanted, version) for sign, wanted in self.clauses)

    def may_allow(self, beginning: Version) -> bool:
        """Tell whether a version that begins like this can do; for names such as ``python3.9``."""
        return all(sign != "=" or beginning[: len(wanted)] == wanted[: len(beginning)] for sign, wanted in self.clauses)

    def nearest(self) -> PythonSpec | None:
        """The same minor version with any patch, for an exact version that is nowhere to be had."""
        exact = self.exact
        return None if exact is None else PythonSpec(self.text, (("=", exact[:2]),))


def parse(text: str) -> PythonSpec | None:
    """Read ``3.9.13``, ``3.10``, ``3``, ``3.9.*``, ``==3.9.13``, ``~=3.9``, ``>=3.8,<3.11``; None if it is none of them."""
    wanted = re.sub(r"^(c?python)\s*", "", text.strip(), flags=re.IGNORECASE)
    clauses: list[tuple[str, Version]] = []
    for part in wanted.split(","):
        found = _CLAUSE.fullmatch(part.strip())
        if found is None:
            return None
        sign, number = found["sign"] or "=", tuple(int(item) for item in found["number"].split("."))
        if sign == "~=":
            if len(number) < 2:
                return None
            clauses += [(">=", number), ("=", number[:-1])]
        else:
            clauses.append(("=" if sign in ("==", "===") else sign, number))
    return PythonSpec(text.strip(), tuple(clauses))


def _holds(sign: str, wanted: Version, version: Version) -> bool:
    begins = version[: len(wanted)] == wanted
    match sign:
        case "=":
            return begins
        case "!=":
            return not begins
        case ">=":
            return version >= wanted
        case "<":
            return version < wanted
        case ">":  # as pip has it: >3.8 excludes every 3.8.x
            return version > wanted and not begins
        case _:  # <=3.9 allows every 3.9.x: nobody who writes it means 3.9.0
            return version < wanted or begins
