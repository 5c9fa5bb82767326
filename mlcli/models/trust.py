"""Whether a model may run code while it is loaded. Nothing in the model, and nothing in its store, can grant that.

    trust=True, --trust                                     this once
    MLCLI_TRUST holds its digest                            for programs such as CI
    this user noted its digest                              `log_model` here does so, and `mlcli models trust add`
    a type or function that this user noted                 for models that need no more than that one

The notes lie in the user's own state folder: a store, like a model, may have been downloaded from anywhere.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from mlcli import config, locks, rights
from mlcli.errors import InvalidInput, ModelError, NotFound
from mlcli.models import mlmodel

VARIABLE = "MLCLI_TRUST"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TYPE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+\Z")
LOGGED, ADDED, TYPE = "logged", "added", "type"
MAX_TOLD = 8
# Whoever may call what is in these may do everything.
_ALL_POWERFUL = frozenset(
    "__main__ asyncio builtins cloudpickle code codeop concurrent ctypes dill distutils functools importlib joblib marshal"
    " mlcli multiprocessing nt operator os pickle pip pkgutil posix pty runpy setuptools shutil signal socket subprocess"
    " sys threading timeit types webbrowser".split()
)


class Note(NamedTuple):
    """What this user trusts: the digest of a model, logged here or added by hand, or the name of a type."""

    kind: str
    what: str
    about: str = ""
    time: int = 0


def path() -> str:
    """The file of the notes: one JSON line for each."""
    return os.path.join(config.state_root(), "trust.jsonl")


def grant(folder: str) -> Optional[str]:
    """Why the model in ``folder`` may run code, in words; None where nobody has said that it may."""
    variable = os.environ.get(VARIABLE, "")
    if not variable and not os.path.exists(path()):
        return None
    digest = mlmodel.tree_digest(folder)
    if digest in _given(variable):
        return f"{VARIABLE} holds its digest"
    for note in notes():
        if note.what == digest:
            return "it was logged here by this user" if note.kind == LOGGED else "its digest was added by this user"
    return None


def _given(variable: str) -> FrozenSet[str]:
    """The digests in MLCLI_TRUST, apart by commas or blanks."""
    given = frozenset(filter(None, re.split(r"[\s,]+", variable)))
    strange = sorted(item for item in given if not _DIGEST.match(item))
    if strange:
        raise InvalidInput(
            f"{VARIABLE} holds {strange[0][:80]!r}, which is no digest",
            hint="it takes sha256:... of single models, as `mlcli models inspect` shows them",
        )
    return given


def types() -> FrozenSet[str]:
    """The names of types and functions that this user trusts beside the built-in ones."""
    return frozenset(note.what for note in notes() if note.kind == TYPE)


def notes() -> Iterator[Note]:
    """Every note, in the order of writing."""
    try:
        with open(path(), encoding="utf-8") as file:
            for line in file:
                try:
                    note = Note(**json.loads(line))
                except (ValueError, TypeError):  # a line that was cut, or of a newer version: it grants nothing
                    continue
                yield note
    except FileNotFoundError:
        return


def note_logged(digest: str, about: str) -> None:
    """Note a model that this user's own program has just written."""
    _write([Note(LOGGED, digest, about, int(time.time() * 1000))])


def add(digest: str, about: str) -> Note:
    """Note that the model of that digest may run code."""
    if not _DIGEST.match(digest):
        raise InvalidInput(f"{digest[:80]!r} is no digest of a model", hint="sha256: and 64 hexadecimal digits")
    return _add(Note(ADDED, digest, about, int(time.time() * 1000)))


def add_type(name: str) -> Note:
    """Note that a type or function may be used by any model. A pickle may call it with what it likes."""
    if not _TYPE.match(name):
        raise InvalidInput(f"{name!r} is no name of a type", hint="write it with its module: my_package.module.Thing")
    if _is_all_powerful(name):
        raise InvalidInput(
            f"with {name} any model could do everything",
            hint="trust the single model that needs it: `mlcli models trust add URI`",
        )
    return _add(Note(TYPE, name, "", int(time.time() * 1000)))


def _is_all_powerful(name: str) -> bool:
    return name.partition(".")[0] in _ALL_POWERFUL


def _add(note: Note) -> Note:
    if not any(known.what == note.what for known in notes()):
        _write([note])
    return note


def remove(what: str) -> List[Note]:
    """Take back what was noted of a digest (or an unambiguous beginning of one) or of a type."""
    os.makedirs(os.path.dirname(path()), mode=0o700, exist_ok=True)
    with locks.locked(path() + ".lock"):
        every = list(notes())
        named = {note.what for note in every if what in (note.what, note.about)}
        if not named and len(what) >= 8:
            named = {note.what for note in every if note.what.startswith((what, f"sha256:{what}"))}
        if not named:
            raise NotFound(f"nothing is noted of {what!r}", hint="`mlcli models trust list` shows what is trusted")
        if len(named) > 1:
            raise InvalidInput(f"{what!r} names {len(named)} things", hint=" or ".join(sorted(named)[:5]))
        aside = path() + ".new"
        with open(aside, "w", encoding="utf-8", opener=_opener) as file:
            file.writelines(_line(note) for note in every if note.what not in named)
        os.replace(aside, path())
    return [note for note in every if note.what in named]


def _write(added: List[Note]) -> None:
    os.makedirs(os.path.dirname(path()), mode=0o700, exist_ok=True)
    with locks.locked(path() + ".lock"), open(path(), "a", encoding="utf-8", opener=_opener) as file:
        file.write("".join(map(_line, added)))


def _line(note: Note) -> str:
    return json.dumps(note._asdict(), ensure_ascii=False) + "\n"


def _opener(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), rights.FILE & 0o600)


def refusal(uri: str, content: Mapping[str, Any], what: str, names: Sequence[str] = ()) -> ModelError:
    """The error that says what a model wants to run, who says to have made it, and how to trust it.

    ``names`` are the types and functions that it would do with; none where it takes more than that.
    """
    ways = ["`--trust` (in Python trust=True) for this once", f"`mlcli models trust add {uri}` for good"]
    if 0 < len(names) <= MAX_TOLD and not any(map(_is_all_powerful, names)):
        ways.append(f"`mlcli models trust types add {' '.join(names)}` for every model that names no more")
    return ModelError(
        f"{uri} is not loaded: loading it can run code ({what}). {maker(content)}",
        hint="if you trust who made it: " + ", or ".join(ways),
    )


def maker(content: Mapping[str, Any]) -> str:
    """Who made a model, as far as its MLmodel says; that text is the model's own and proves nothing."""
    run = content.get("run_id")
    when = content.get("utc_time_created")
    said: Dict[str, str] = {}
    if isinstance(run, str) and run.isalnum():
        said["run"] = f"by run {run[:32]}"
    if isinstance(when, str) and re.match(r"\d{4}-\d\d-\d\d ", when):
        said["when"] = f"on {when[:10]}"
    told = f"It says it was made {' '.join(said.values())}" if said else "It does not say who made it"
    return f"{told}; it was not logged by this user on this machine, or was changed since"
