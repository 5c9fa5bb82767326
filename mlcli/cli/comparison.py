"""Runs side by side: which values they share, in which they differ, which is the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcli.cli import render
from mlcli.cli.portrait import SHORT_ID, took
from mlcli.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlcli.entities import Run

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
    return [
        row("run", "name", [run.info.run_name for run in runs]),
        row("run", "status", [run.info.status for run in runs]),
        row("run", "duration_ms", [took(run) for run in runs]),
        *results(runs),
    ]


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The params, and the metrics with the best value of each."""
    metrics = rows("metric", [run.data.metrics for run in runs])
    return [
        *rows("param", [run.data.params for run in runs]),
        *({**item, "best": best(item["key"], item["values"])} for item in metrics),
    ]


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
        *origins(pair),
        *rows("package", [packages(artifact(run, LOCK)) for run in pair]),
        *rows("tag", own),
    ]
    return [item for item in found if not item["same"] and (item["kind"], item["key"]) != ("run", "name")]


def origins(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Which code each run had, and which environment."""
    maps = [run.data.tags for run in runs]
    return [
        *(row("code", words, [tags.get(key) for tags in maps]) for key, words in CODE.items()),
        row("code", PATCH, [_digest(artifact(run, PATCH)) for run in runs]),
        *(row("environment", words, [tags.get(key) for tags in maps]) for key, words in ENVIRONMENT.items()),
    ]


def artifact(run: Run, name: str) -> str:
    """The text of an artifact, empty where there is none."""
    from mlcli.artifacts import open_artifacts

    if not run.info.artifact_uri:
        return ""
    try:
        with open(open_artifacts(run.info.artifact_uri).path(name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, InvalidInput):
        return ""


def _digest(text: str) -> str | None:
    """Few characters that differ where the text does."""
    if not text:
        return None
    from hashlib import sha256

    return f"sha256 {sha256(text.encode()).hexdigest()[:12]}"


def packages(lock: str) -> dict[str, str]:
    """Name and version, or place, of each line of a frozen environment."""
    found = {}
    for line in lock.splitlines():
        name, sign, version = line.partition("==")
        if not sign:
            name, sign, version = line.partition(" @ ")
        if sign and not line.startswith("#"):
            found[name.strip().lower()] = version.strip()
    return found


def write_runs(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Write the rows with one column per run."""
    ids = [run.info.run_id for run in runs]
    write("runs", ids, rows, as_json=as_json, titles=[run_id[:SHORT_ID] for run_id in ids])


def write(
    what: str, ids: Sequence[str], rows: Sequence[Mapping[str, Any]], *, as_json: bool, titles: Sequence[str]
) -> None:
    """Write the rows with one column per thing that is compared; a terminal shows its title instead of its id."""
    if as_json:
        render.emit_json({what: list(ids), "rows": list(rows)})
    elif render.on_terminal():
        _to_eyes(titles, rows)
    else:
        names = ["kind", "key", *(str(place) for place in range(len(ids)))]
        lines = [dict(zip(names, (item["kind"], item["key"], *item["values"]), strict=True)) for item in rows]
        render.emit("\t".join(("kind", "key", *ids)))
        for line in lines:
            render.emit("\t".join(render.tsv_cell(line[name]) for name in names))


def _to_eyes(titles: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
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
    columns = [
        render.Column("kind", " ", style="dim"),
        render.Column("key", " ", least=12),
        render.Column("mark", " ", style="yellow"),
        *(
            render.Column(
                str(place),
                title + ("  " if starred else ""),
                right=True,
                least=10,
                optional=place if place > 1 else 0,
                keep_end=True,
            )
            for place, title in enumerate(titles)
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
