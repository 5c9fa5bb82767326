"""Runs as rows of a flat table: CSV, JSON lines and Parquet."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO, cast

from mlcli.cli import render
from mlcli.entities import ViewType
from mlcli.errors import InvalidInput, MlcliError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlcli.entities import Run
    from mlcli.store import Store

FORMATS = ("csv", "jsonl", "parquet")
PAGE = 10_000
FIRST = ("run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time")
# A spreadsheet takes a text that begins so for a formula and may run programs for it.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def all_runs(
    store: Store,
    experiment_ids: Sequence[str] | None,
    filter_string: str = "",
    view: str = ViewType.ACTIVE_ONLY,
    order_by: Sequence[str] = (),
) -> list[Run]:
    """Every run that matches, page by page."""
    found: list[Run] = []
    token = None
    while True:
        page = store.search_runs(experiment_ids, filter_string, view, PAGE, order_by, token)
        found += page
        token = page.token
        if token is None:
            return found


def write(runs: Sequence[Run], form: str, filename: str | None, *, raw: bool = False) -> None:
    """Write the runs to a file, which appears when it is whole, or to stdout."""
    if form not in FORMATS:
        raise InvalidInput(f"there is no format {form!r}", hint=f"say {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if form == "parquet":
        _write_parquet(runs, filename)
    else:
        with _opened(filename) as file:
            if form == "csv":
                _write_csv(runs, file, raw=raw)
            else:
                _write_jsonl(runs, file)
    if filename is not None:
        render.success(f"wrote {render.count(len(runs), 'run')} to {filename}")
    elif not runs:
        render.note("no run matches; `mlcli runs list` shows what there is")


def flat(run: Run) -> dict[str, object]:
    """The run as one row, with MLflow's column names."""
    info = run.info._asdict()
    return {
        **{name: info[name] for name in FIRST},
        "run_name": info["run_name"],
        **{f"metrics.{key}": value for key, value in run.data.metrics.items()},
        **{f"params.{key}": value for key, value in run.data.params.items()},
        **{f"tags.{key}": value for key, value in run.data.tags.items()},
    }


def columns(rows: Iterable[dict[str, object]]) -> list[str]:
    """The columns of all rows: the fixed ones, then metrics, params and tags by name."""
    names = {name for row in rows for name in row if "." in name}
    ranks = {"metrics": 0, "params": 1, "tags": 2}
    return [*FIRST, "run_name", *sorted(names, key=lambda name: (ranks[name.partition(".")[0]], name))]


def safe_cell(value: object, *, raw: bool = False) -> object:
    """The value as a CSV cell; a text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    if raw or not isinstance(value, str) or not value.startswith(FORMULA_SIGNS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _write_csv(runs: Sequence[Run], file: TextIO, *, raw: bool) -> None:
    import csv

    rows = [flat(run) for run in runs]
    names = columns(rows)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([safe_cell(name, raw=raw) for name in names])
    for row in rows:
        row["start_time"], row["end_time"] = _moment(row["start_time"]), _moment(row["end_time"])
        writer.writerow([safe_cell(row.get(name), raw=raw) for name in names])


def _moment(ms: object) -> str:
    """A moment as MLflow's CSV has it: ``2026-11-22 11:29:59.323+00:00``."""
    return render.iso_time(cast("int | None", ms)).replace("T", " ").replace("Z", "+00:00")


def _write_jsonl(runs: Sequence[Run], file: TextIO) -> None:
    import json

    file.writelines(json.dumps(render.json_ready(run.to_dictionary()), ensure_ascii=False) + "\n" for run in runs)


def _write_parquet(runs: Sequence[Run], filename: str | None) -> None:
    if filename is None:
        raise InvalidInput("Parquet is not for a terminal or a pipe", hint="name a file: -o runs.parquet")
    try:
        pa: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise MlcliError("Parquet needs the package pyarrow", hint="pip install pyarrow, or use --format csv") from None
    rows = [flat(run) for run in runs]
    table = pa.table({name: [row.get(name) for row in rows] for name in columns(rows)})
    with _aside(filename) as path:
        parquet.write_table(table, path)


@contextmanager
def _opened(filename: str | None) -> Iterator[TextIO]:
    if filename is None:
        yield sys.stdout
        return
    with _aside(filename) as path, open(path, "w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def _aside(filename: str) -> Iterator[str]:
    """A path to write to that takes the file's place when all went well; a pipe or a device is written to itself."""
    if os.path.exists(filename) and not os.path.isfile(filename) and not os.path.isdir(filename):
        yield filename
        return
    folder, name = os.path.split(os.path.abspath(filename))
    if not os.path.isdir(folder):
        raise InvalidInput(f"there is no folder {folder}")
    path = os.path.join(folder, f".tmp-{name}-{os.getpid()}")
    try:
        yield path
        os.replace(path, filename)
    except BaseException:
        if os.path.exists(path):
            os.unlink(path)
        raise
