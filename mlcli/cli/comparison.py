"""Runs side by side: which values they share, in which they differ, which is the best."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mlcli.cli import render
from mlcli.cli.portrait import SHORT_ID, took
from mlcli.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlcli.entities import Run
    from mlcli.store import Store

# Words in a metric's name that say that less is better.
LESS_IS_BETTER = frozenset(
    "loss error err mse rmse mae mape perplexity time seconds latency regret logloss brier".split()
)
# What tells which code and which environment a run had, in the words of `diff`.
CODE = {
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.branch": "branch",
    "mlcli.git.dirty": "uncommitted changes",
    "mlflow.project.entryPoint": "entry point",
    "mlcli.command": "command",
}
ENVIRONMENT = {"mlcli.env.manager": "manager", "mlcli.env.python": "Python", "mlcli.host": "host"}
LOCK = "environment/requirements.txt"
PATCH = "code/diff.patch"


def better_is_less(metric: str) -> bool:
    """Whether the metric's name says that less is better; any other is taken for a score."""
    words = "".join(char if char.isalnum() else " " for char in metric.lower()).split()
    return any(word in LESS_IS_BETTER for word in words)


def row(kind: str, key: str, values: list[Any]) -> dict[str, Any]:
    return {"kind": kind, "key": key, "values": values, "same": len({str(value) for value in values}) == 1}


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per thing that any of the runs has, with the value of each run."""
    found = [
        row("run", "name", [run.info.run_name for run in runs]),
        row("run", "status", [run.info.status for run in runs]),
        row("run", "duration_ms", [took(run) for run in runs]),
        *rows("param", [run.data.params for run in runs]),
        *rows("metric", [run.data.metrics for run in runs]),
    ]
    return [{**item, "best": best(item["key"], item["values"])} if item["kind"] == "metric" else item for item in found]


def rows(kind: str, maps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per key that any of the maps has."""
    return [row(kind, key, [one.get(key) for one in maps]) for key in sorted({key for one in maps for key in one})]


def best(metric: str, values: Sequence[float | None]) -> list[int]:
    """The places of the best value; none where all are alike."""
    known = [value for value in values if value is not None and abs(value) < float("inf")]
    if len(set(known)) < 2:
        return []
    wanted = min(known) if better_is_less(metric) else max(known)
    return [place for place, value in enumerate(values) if value == wanted]


def differences(one: Run, other: Run) -> list[dict[str, Any]]:
    """What is not the same in two runs: params, metrics, code, environment with its packages, and tags."""
    pair = (one, other)
    maps = [run.data.tags for run in pair]
    own = [{key: value for key, value in tags.items() if not key.startswith(("mlflow.", "mlcli."))} for tags in maps]
    found = [
        *compared(pair),
        *(row("code", words, [tags.get(key) for tags in maps]) for key, words in CODE.items()),
        row("code", PATCH, [_digest(_artifact(run, PATCH)) for run in pair]),
        *(row("environment", words, [tags.get(key) for tags in maps]) for key, words in ENVIRONMENT.items()),
        *rows("package", [_packages(_artifact(run, LOCK)) for run in pair]),
        *rows("tag", own),
    ]
    return [item for item in found if not item["same"] and (item["kind"], item["key"]) != ("run", "name")]


def _artifact(run: Run, name: str) -> str:
    """The text of an artifact, empty where there is none."""
    try:
        with open(os.path.join(run.info.artifact_uri, *name.split("/")), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _digest(text: str) -> str | None:
    """Few characters that differ where the text does."""
    if not text:
        return None
    from hashlib import sha256

    return f"sha256 {sha256(text.encode()).hexdigest()[:12]}"


def _packages(lock: str) -> dict[str, str]:
    """Name and version, or place, of each line of a frozen environment."""
    found = {}
    for line in lock.splitlines():
        name, sign, version = line.partition("==")
        if not sign:
            name, sign, version = line.partition(" @ ")
        if sign and not line.startswith("#"):
            found[name.strip().lower()] = version.strip()
    return found


MOST_COURSES = 200  # histories that are read for the courses of a table


def courses(store: Store, runs: Sequence[Run]) -> dict[tuple[str, int], str]:
    """The course of each metric that was logged more than once, by metric and place of the run."""
    result = {}
    wanted = [
        (key, place)
        for place, run in enumerate(runs[:6])  # more do not fit into a terminal
        for key in sorted(run.data.metrics)
        if not key.startswith("system/")
    ]
    for key, place in wanted[:MOST_COURSES]:
        values = store.get_metric_values(runs[place].info.run_id, key)
        if len(values) > 1:
            result[key, place] = render.sparkline(values, 12)
    return result


def write_importance(runs: Sequence[Run], metric: str, *, as_json: bool) -> None:
    """Write which params go with a metric, how surely, and by what method that is known."""
    from mlcli import importance

    known = [(run.data.params, run.data.metrics[metric]) for run in runs if metric in run.data.metrics]
    if not known:
        names = ", ".join(sorted({key for run in runs for key in run.data.metrics})[:8])
        raise InvalidInput(f"none of these runs has the metric {metric!r}", hint=f"there is {names}" if names else "")
    found = [item._asdict() for item in importance.importances(known)]
    decimals = "{:.2f}".format
    columns = [
        render.Column("param", "PARAM", least=10, style="bold"),
        render.Column("share", "SHARE", show=decimals, right=True, style="cyan"),
        render.Column("low", "FROM", show=decimals, right=True),
        render.Column("high", "TO", show=decimals, right=True),
        render.Column("p", "P", show="{:.3f}".format, right=True),
        render.Column("rho", "RHO", show="{:+.2f}".format, right=True, optional=1),
        render.Column("groups", "GROUPS", right=True, optional=3),
        render.Column("runs", "RUNS", right=True, optional=4),
        render.Column("like", "GOES WITH", optional=2),
    ]
    empty = f"at least {importance.LEAST_RUNS} runs with {metric}, and params that differ between them, are needed"
    render.records(found, columns, as_json=as_json, empty=empty)
    if found and not as_json:
        render.note(
            "share: of the metric's rank variance, for each param alone (epsilon squared), with a 90 % bootstrap interval;"
            " p: permutation test, Holm's correction; rho: Spearman"
        )


def write(
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    courses: Mapping[tuple[str, int], str] | None = None,
) -> None:
    """Write the rows with one column per run; on a terminal with the courses of the metrics below their values."""
    if as_json:
        render.emit_json({"runs": [run.info.run_id for run in runs], "rows": list(rows)})
    elif render.on_terminal():
        _to_eyes(runs, rows, courses or {})
    else:
        names = ["kind", "key", *(str(place) for place in range(len(runs)))]
        lines = [dict(zip(names, (item["kind"], item["key"], *item["values"]), strict=True)) for item in rows]
        titles = ["kind", "key", *(run.info.run_id for run in runs)]
        render.emit("\t".join(titles))
        for line in lines:
            render.emit("\t".join(render.tsv_cell(line[name]) for name in names))


def _to_eyes(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], courses: Mapping[tuple[str, int], str]) -> None:
    star, unlike = ("★", "≠") if render.unicode_ok() else ("*", "!")
    starred = any(item.get("best") for item in rows)
    lines: list[dict[str, object]] = []
    before = ""
    for item in rows:
        line: dict[str, object] = {
            "kind": item["kind"] if item["kind"] != before else "",
            "key": item["key"].removesuffix("_ms") if item["kind"] == "run" else item["key"],
            "mark": "" if item["same"] else unlike,
        }
        for place, value in enumerate(item["values"]):
            end = f" {star}" if place in item.get("best", ()) else "  " if starred else ""
            line[str(place)] = _text(item, value) + end
        before = item["kind"]
        lines.append(line)
        if item["kind"] == "metric" and any((item["key"], place) in courses for place in range(len(runs))):
            end = "  " if starred else ""
            drawn = {str(place): courses.get((item["key"], place), "") + end for place in range(len(runs))}
            lines.append({"kind": "", "key": "", "mark": "", **drawn})
    columns = [
        render.Column("kind", " ", style="dim"),
        render.Column("key", " ", least=12),
        render.Column("mark", " ", style="yellow"),
        *(
            render.Column(
                str(place),
                run.info.run_id[:SHORT_ID] + ("  " if starred else ""),
                right=True,
                least=10,
                optional=place if place > 1 else 0,
                keep_end=True,
            )
            for place, run in enumerate(runs)
        ),
    ]
    for text in render.table(lines, columns, render.terminal_width()):
        render.emit(text)
    if starred:
        render.note(f"{star} the best: the least for losses, errors and times, the greatest for anything else")


def _text(item: Mapping[str, Any], value: Any) -> str:
    if value is None:
        return "-"
    if item["kind"] == "metric":
        return render.number(value)
    return render.duration(value) if item["key"] == "duration_ms" else str(value)
