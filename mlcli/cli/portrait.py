"""One run for eyes and for a pipe: how it went, where it came from, what it logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcli.cli import render
from mlcli.entities import LifecycleStage, RunStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlcli.entities import Experiment, FileInfo, Run
    from mlcli.registry import RunModel

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
LOG = "logs/output.log"
SHORT_ID = 8

# Tags whose content the first lines tell in words of their own.
TOLD = {NOTE, "mlflow.runName", "mlflow.user"}


def to_pipe(
    run: Run,
    experiment: Experiment,
    files: Sequence[FileInfo],
    children: Sequence[Run],
    models: Sequence[RunModel],
) -> None:
    """Everything as name and value, one a line."""
    info = {
        **run.info._asdict(),
        "experiment": experiment.name,
        "start_time": render.iso_time(run.info.start_time),
        "end_time": render.iso_time(run.info.end_time),
    }
    render.fields(
        [
            *info.items(),
            *((f"params.{key}", value) for key, value in sorted(run.data.params.items())),
            *((f"metrics.{key}", value) for key, value in sorted(run.data.metrics.items())),
            *((f"tags.{key}", value) for key, value in sorted(run.data.tags.items())),
            *(("child", child.info.run_id) for child in children),
            *(("artifact", file.path) for file in files),
            *(("model", model.uri) for model in models),
            *(
                (f"registered.{version.name}/{version.version}", ",".join(version.aliases))
                for model in models
                for version in model.versions
            ),
        ]
    )


def to_eyes(
    run: Run,
    experiment: Experiment,
    curves: Mapping[str, Sequence[float]],
    files: Sequence[FileInfo],
    children: Sequence[Run],
    models: Sequence[RunModel],
) -> None:
    """The answer to: did it work, what was it, what came of it."""
    info, tags = run.info, run.data.tags
    title = f"{render.status(info.status)}  {render.plain(info.run_name)}"
    render.emit(render.styled(title, f"bold {render.status_style(info.status)}".strip()))
    if info.lifecycle_stage == LifecycleStage.DELETED:
        render.emit(f"deleted; `mlcli runs restore {info.run_id[:SHORT_ID]}` brings it back")
    render.fields(_first_lines(run, experiment))
    if tags.get(NOTE):
        render.heading("note")
        render.emit(render.plain_lines(tags[NOTE]))
    section("params", sorted(run.data.params.items()))
    if curves:
        render.heading("metrics")
        for line in _metrics(run, curves):
            render.emit(line)
    if children:
        render.heading("child runs")
        for child in children:
            parts = (render.status(child.info.status), child.info.run_id[:SHORT_ID], child.info.run_name)
            render.emit(f"{'  '.join(map(render.plain, parts))}  {render.styled(render.duration(took(child)), 'dim')}")
    section("models", [(render.plain(model.path or model.uri), _registered(model)) for model in models])
    everything = render.levels().verbose
    section(
        "tags",
        sorted(
            (key, value)
            for key, value in tags.items()
            if everything or (key not in TOLD and not key.startswith(("mlcli.", "mlflow.")))
        ),
    )
    if files:
        render.heading("artifacts")
        for line in tree(files):
            render.emit(line)
    if info.status in (RunStatus.FAILED, RunStatus.KILLED) and any(file.path == LOG for file in files):
        render.note(f"\n`mlcli runs logs {info.run_id[:SHORT_ID]}` prints what it wrote")


def _registered(model: RunModel) -> str:
    """The versions that are made of a model, each with the aliases that name it."""
    words = [
        " ".join((f"{version.name}/{version.version}", *(f"@{alias}" for alias in version.aliases)))
        for version in model.versions
    ]
    return ", ".join(words) or "not registered"


def child_sign() -> str:
    """What stands before the name of a run that is part of another."""
    return "↳" if render.unicode_ok() else ">"


def took(run: Run) -> int | None:
    """How long the run took, or has been going for, in milliseconds."""
    measured = run.data.tags.get("mlcli.duration_ms", "")
    if measured.isdigit() and run.info.end_time is not None:
        return int(measured)
    if run.info.end_time is not None:
        return run.info.end_time - run.info.start_time
    if run.info.status != RunStatus.RUNNING:
        return None
    import time

    return int(time.time() * 1000) - run.info.start_time


def _first_lines(run: Run, experiment: Experiment) -> list[tuple[str, object]]:
    info, tags = run.info, run.data.tags
    commit = tags.get("mlflow.source.git.commit")
    if commit and tags.get("mlcli.git.dirty") == "true":
        commit += " and uncommitted changes (code/diff.patch)"
    ended = tags.get("mlcli.end_reason", "")
    for name, words in (("mlcli.signal", "signal"), ("mlcli.exit_code", "exit code")):
        value = tags.get(name, "0")
        if value != "0" and value not in ended:
            ended += f"{', ' if ended else ''}{words} {value}"
    who = "@".join(part for part in (info.user_id or tags.get("mlflow.user", ""), tags.get("mlcli.host", "")) if part)
    return [
        ("run", info.run_id),
        ("ended", ended or None),
        ("experiment", f"{experiment.name} ({experiment.experiment_id})"),
        ("started", f"{render.local_time(info.start_time)} ({render.ago(info.start_time)})"),
        ("took" if info.end_time else "running for", render.duration(took(run)) or None),
        ("resources", _resources(tags) or None),
        ("by", who or None),
        ("source", tags.get("mlflow.source.name")),
        ("commit", commit),
        ("branch", tags.get("mlflow.source.git.branch")),
        ("repository", tags.get("mlflow.source.git.repoURL")),
        ("entry point", tags.get("mlflow.project.entryPoint")),
        ("command", tags.get("mlcli.command")),
        ("environment", environment(*(tags.get(f"mlcli.env.{part}") for part in ("manager", "python", "key"))) or None),
        ("child of", tags.get(PARENT)),
        ("folder", info.artifact_uri),
    ]


def environment(manager: str | None, python: str | None, key: str | None) -> str:
    """An environment in few words, as far as it is known."""
    parts = (manager, f"Python {python}" if python else "", f"({key[:SHORT_ID]})" if key else "")
    return " ".join(part for part in parts if part)


def _resources(tags: Mapping[str, str]) -> str:
    """Peak memory and CPU time, as far as they were measured."""
    parts = []
    for key, words in (("mlcli.peak_memory_bytes", "memory"), ("mlcli.cpu_seconds", "CPU")):
        try:
            value = float(tags[key])
        except (KeyError, ValueError):
            continue
        parts.append(f"{render.size(value) if words == 'memory' else render.duration(value * 1000)} {words}")
    return ", ".join(parts)


def section(title: str, pairs: Sequence[tuple[str, object]]) -> None:
    """Names and values below a heading, if there are any."""
    if pairs:
        render.heading(title)
        render.fields(pairs)


def _metrics(run: Run, curves: Mapping[str, Sequence[float]]) -> list[str]:
    """A table of the metrics; those with several points get their range and their course."""
    rows: list[dict[str, object]] = []
    for key, values in sorted(curves.items()):
        finite = [value for value in values if abs(value) < float("inf")]
        row: dict[str, object] = {"key": key, "value": run.data.metrics[key]}
        if len(values) > 1 and finite:
            row |= {"min": min(finite), "max": max(finite), "points": len(values), "course": render.sparkline(values)}
        rows.append(row)
    columns = [
        render.Column("key", "METRIC", least=12),
        render.Column("value", "LATEST", show=render.number, right=True, style="cyan"),
    ]
    if any("points" in row for row in rows):
        columns += [
            *(
                render.Column(name, name.upper(), show=render.number, right=True, optional=True)
                for name in ("min", "max")
            ),
            render.Column("points", "POINTS", right=True, optional=2),
            render.Column("course", "COURSE", least=8, optional=3),
        ]
    return render.table(rows, columns, render.terminal_width())


def tree(files: Sequence[FileInfo]) -> list[str]:
    """Artifacts as a tree with sizes, in lines for a terminal."""
    root: dict[str, Any] = {}
    for file in files:
        *folders, name = file.path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = {} if file.is_dir else file.file_size
    return _branches(root, "")


def _branches(place: Mapping[str, Any], before: str) -> list[str]:
    branch, last, bar = ("├─ ", "└─ ", "│  ") if render.unicode_ok() else ("|- ", "`- ", "|  ")
    result = []
    for number, (name, below) in enumerate(sorted(place.items()), 1):
        end = number == len(place)
        sign = f"{before}{last if end else branch}{render.plain(name)}"
        if isinstance(below, dict):
            result += [f"{sign}/", *_branches(below, before + ("   " if end else bar))]
        else:
            result.append(f"{sign}  {render.styled(render.size(below), 'dim')}")
    return result
