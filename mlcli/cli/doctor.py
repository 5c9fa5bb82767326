"""`mlcli doctor`: versions, settings with their sources, the health of the store and of the environments."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from mlcli import config, journal
from mlcli._version import __version__
from mlcli.cli import options, render
from mlcli.cli.boundary import did_you_mean
from mlcli.envs import kept
from mlcli.envs.python import Known
from mlcli.errors import MlcliError
from mlcli.store import DATABASE, is_database, is_remote, leftovers, open_store, store_root
from mlcli.store.database import on_network_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlcli.store import Store

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

TOOLS = ("uv", "git", "docker", "conda")
# What `mlcli run` tells the programs it starts, and nobody sets.
# Not settings, but variables that mean something: secrets, which no file should hold, and what `mlcli run` tells its child.
INNER = frozenset(
    "MLCLI_TRACKING_TOKEN MLCLI_BACKEND_STORE_URI MLCLI_COMMAND MLCLI_PARENT_RUN_ID MLCLI_MLFLOW_URI MLCLI_MLFLOW_TOKEN".split()
)
LITTLE_SPACE = 200_000_000


class Illness(NamedTuple):
    """What is wrong, and what to do about it."""

    what: str
    hint: str


@app.command()
def doctor(as_json: options.Json = False) -> None:
    """Show versions, settings and the health of the store.

    Exits with 1 when something is ill; what and how to mend it stands at the end. Passwords in addresses are masked.
    """
    ills: list[Illness] = []
    found: dict[str, Any] = {
        "versions": _versions(),
        "settings": _settings(ills),
        "store": _store(ills),
        "environments": _environments(ills),
        "pythons": {python.path: python.version for python in _pythons()},
    }
    if as_json:
        render.emit_json({**found, "problems": [ill._asdict() for ill in ills]})
    elif render.on_terminal():
        _to_eyes(found, ills)
    else:
        render.fields([*_flat(found), *((f"problem.{place}", ill.what) for place, ill in enumerate(ills, 1))])
    if ills:
        raise typer.Exit(1)


def _to_eyes(found: dict[str, Any], ills: list[Illness]) -> None:
    for section, content in found.items():
        render.heading(section)
        if section == "settings":
            render.fields((name, _setting(item)) for name, item in content.items())
        else:
            render.fields([(name.replace("_", " "), _words(name, value)) for name, value in content.items()])
    render.heading("problems" if ills else "no problems found")
    for ill in ills:
        render.emit(f"{render.styled('✗' if render.unicode_ok() else 'x', 'red')} {render.plain(ill.what)}")
        render.emit(f"  {render.plain(ill.hint)}")


def _setting(item: dict[str, str | None]) -> str:
    return "not set" if item["value"] is None else f"{item['value']}  ({item['source']})"


def _words(name: str, value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return render.size(value) if name in ("size", "free_space") else f"{value:,}"
    return value


def _flat(found: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for section, content in found.items():
        for name, value in content.items():
            yield f"{section}.{name}", value["value"] if isinstance(value, dict) else value


def _versions() -> dict[str, str | None]:
    return {
        "mlcli": f"{__version__} in {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}",
        "python": f"{platform.python_version()} at {sys.executable}",
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        **{name: _installed(name) for name in ("typer", "rich", "virtualenv")},
        **{name: _tool(name) for name in TOOLS},
    }


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _tool(name: str) -> str:
    """Version and place of a program, beside our own Python or on the PATH."""
    path = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if path is None:
        return "not found"
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return f"does not start, at {path}"
    number = re.search(r"\d+(\.\d+)+", done.stdout)
    return f"{number[0] if number else '?'} at {path}"


def _settings(ills: list[Illness]) -> dict[str, dict[str, str | None]]:
    found = {entry.name: config.setting(entry.name) for entry in config.SETTINGS}
    found["tracking_uri"] = config.tracking_uri()
    known = [variable for entry in config.SETTINGS for variable in entry.variables]
    ills += [
        Illness(f"the variable {name} is no setting of mlcli", did_you_mean(name, known) or f"unset {name}")
        for name in sorted(os.environ)
        if name.startswith("MLCLI_") and name not in known and name not in INNER
    ]
    ills += [
        Illness(f"{file} sets {name}, which is no setting", did_you_mean(name, found) or "remove the line")
        for name, (_, file) in config.project_config().items()
        if name not in found
    ]
    return {name: {"value": config.masked(value.value), "source": value.source} for name, value in found.items()}


def _store(ills: list[Illness]) -> dict[str, object]:
    address = config.tracking_uri().value or ""
    if is_database(address):
        return _database(config.masked(address), ills)
    try:
        root = store_root()
    except MlcliError as error:
        ills.append(Illness(str(error), error.hint))
        return {"state": "cannot be used"}
    if is_remote(root):
        return _server(root, ills)
    path = os.path.join(root, DATABASE)
    result: dict[str, object] = {"folder": root}
    if not os.path.exists(path) and not os.path.isdir(journal.live_folder(root)):
        return {**result, "state": "none yet; the first run makes it"}
    if on_network_folder(root):
        result["network_folder"] = True
    result["size"] = sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
    result["free_space"] = shutil.disk_usage(root).free
    if shutil.disk_usage(root).free < LITTLE_SPACE:
        ills.append(Illness(f"the disk of {root} is nearly full", "make room, or move the store"))
    try:
        with open_store(create=False) as store:
            result |= _opened(store, ills)
    except MlcliError as error:
        ills.append(Illness(str(error), error.hint))
        result["state"] = "cannot be opened"
    return result


def _database(name: str | None, ills: list[Illness]) -> dict[str, object]:
    """What a store says of itself whose records are in a database server."""
    try:
        with open_store(create=False) as store:
            return {"database": name, "folder": store.root, **_opened(store, ills)}
    except MlcliError as error:
        ills.append(Illness(str(error), error.hint))
        return {"database": name, "state": "cannot be opened"}


def _server(root: str, ills: list[Illness]) -> dict[str, object]:
    """What a tracking server says of itself, and what waits here to be sent to it."""
    from mlcli.store import spool

    left = spool.left(root)
    waiting = {"waiting_journals": left.journals, "waiting_bytes": left.bytes, "waiting_files": left.files}
    if left.journals or left.files:
        what = f"{render.count(left.journals, 'journal')} and {render.count(left.files, 'file')}"
        ills.append(Illness(f"{what} were not sent to {root}", "`mlcli sync` sends them, unless their process lives"))
    refused = spool.rejected(root)
    if refused:
        ills.append(
            Illness(
                f"{root} refused {render.count(len(refused), 'line')}, the last one because: {refused[-1]['reason']}",
                f"they are kept in {spool.folder(root)}; mend what logs them",
            )
        )
    result: dict[str, object] = {"address": root, "spool": spool.folder(root), **waiting}
    try:
        with open_store(create=False) as store:
            kind = "mlcli" if spool.speaks_journal(root, patience=5) else "MLflow"
            return {**result, "state": "well", "server": kind, **store.counts()}
    except MlcliError as error:
        ills.append(Illness(str(error), error.hint))
        return {**result, "state": "cannot be reached"}


def _opened(store: Store, ills: list[Illness]) -> dict[str, object]:
    """What an open store says of itself; looks at every page of the database."""
    damage = store.database.damage()
    if damage:
        ills.append(
            Illness(
                f"the database {store.database.name} is damaged: {damage[0]}",
                "keep a copy, then try `sqlite3 mlcli.db .recover`, or put a backup in its place",
            )
        )
    counts = store.counts()
    if counts["rejected_lines"]:
        last = store.rejected_lines(1)[0]
        ills.append(
            Illness(
                f"{render.count(counts['rejected_lines'], 'journal line')} could not be applied, the last one because:"
                f" {last['reason']}",
                "they are kept in the table rejected_lines of the store's database; mend what writes them",
            )
        )
    left = leftovers.found(store)
    if left:
        ills.append(
            Illness(
                f"{render.count(len(left), 'leftover')} of interrupted work, such as {left[0].path} ({left[0].why})",
                "`mlcli gc --dry-run` lists them with what was deleted, `mlcli gc` removes them",
            )
        )
    live = journal.live_folder(store.root)
    return {
        "state": "damaged" if damage else "read-only" if store.database.read_only else "well",
        "schema_version": store.database.version,
        **counts,
        "leftovers": len(left),
        "live_journals": len(os.listdir(live)) if os.path.isdir(live) else 0,
    }


def _environments(ills: list[Illness]) -> dict[str, object]:
    found = kept.listed()
    ills += [
        Illness(
            f"the environment {one.short} cannot be used: {one.illness}",
            f"`mlcli env rm {one.short}` removes it; the next run builds it anew",
        )
        for one in found
        if one.illness
    ]
    return {"folder": config.env_root(), "count": len(found), "size": sum(one.size() for one in found)}


def _pythons() -> list[Any]:
    known = Known.load()
    found = known.all()
    known.save()
    return sorted(found, key=lambda python: python.numbers, reverse=True)
