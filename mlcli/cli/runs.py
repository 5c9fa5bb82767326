"""`mlcli runs`: find runs again, look at one, put several side by side, take their numbers elsewhere, tidy up."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Annotated, List, Optional

import typer

from mlcli.cli import completion, options, portrait, render
from mlcli.cli.portrait import LOG, NOTE, SHORT_ID, differing, took
from mlcli.entities import LifecycleStage, RunStatus, ViewType
from mlcli.errors import InvalidInput, NotFound
from mlcli.store import is_remote, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mlcli.entities import Experiment, Metric, Run
    from mlcli.store import Store

app = options.group("List, search, show, compare, export and tidy up runs.")

TheRun = Annotated[str, typer.Argument(metavar="RUN", help="The run.", autocompletion=completion.run_ids)]
Metrics = Annotated[
    Optional[List[str]],
    typer.Option("-m", "--metric", metavar="METRIC", help="Only this metric; may be repeated."),
]
SomeRuns = Annotated[
    Optional[List[str]],
    typer.Argument(metavar="RUN...", help="The runs.", autocompletion=completion.run_ids, show_default=False),
]


# --- many runs ----------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    experiment_name: options.ExperimentNames = None,
    experiment_id: options.ExperimentIds = None,
    view: options.View = "active_only",
    max_results: options.Limit = 100,
    filter_string: options.Filter = "",
    order_by: options.OrderBy = None,
    as_json: options.Json = False,
) -> None:
    """List runs, the newest first.

    They are shown with the metrics and params in which they differ. By default the runs of all experiments, or of the one that MLCLI_EXPERIMENT_NAME or the project's settings name.
    A terminal shows as many metrics and params as fit; a pipe gets them all, tab-separated under a header.
    """
    _list(experiment_name, experiment_id, view, max_results, filter_string, order_by, as_json)


@app.command()
def search(
    filter_string: Annotated[
        str, typer.Argument(metavar="FILTER", help="What the runs must match.", show_default=False)
    ] = "",
    experiment_name: options.ExperimentNames = None,
    experiment_id: options.ExperimentIds = None,
    view: options.View = "active_only",
    max_results: options.Limit = 100,
    order_by: options.OrderBy = None,
    best: Annotated[
        Optional[str],
        typer.Option(
            "--best",
            metavar="KEY",
            help="Only the one run with the greatest metrics.f1 (the least of losses, errors and times; ASC or DESC behind"
            " KEY says which way).",
        ),
    ] = None,
    worst: Annotated[
        Optional[str], typer.Option("--worst", metavar="KEY", help="Only the run at the other end.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Search runs by params, metrics, tags and times.

    For example: mlcli runs search "metrics.acc > 0.9 and params.solver = 'lbfgs'"

    --best gives one run; in a pipe its id alone: mlcli runs search --best metrics.f1 | mlcli models register - wine
    """
    if best is None and worst is None:
        _list(experiment_name, experiment_id, view, max_results, filter_string, order_by, as_json)
        return
    if (best is not None and worst is not None) or order_by:
        raise InvalidInput("--best, --worst and --order-by each say an order: give one of them")
    from mlcli.cli import extremes

    with open_store(create=False) as store:
        chosen = options.chosen_experiments(store, experiment_name, experiment_id)
        ids = None if chosen is None else [experiment.experiment_id for experiment in chosen]
        found, metric = extremes.find(
            store, ids, filter_string, options.view_type(view), best or worst or "", best=best is not None
        )
        experiments = _experiment_names(store, [found])
    if as_json:
        render.emit_json(found.to_dictionary())
    elif render.on_terminal():
        render.records([_row(found, experiments)], _columns([found], experiments))
    else:
        render.emit(found.info.run_id)
        render.note(f"{found.info.run_name}: {metric} {render.number(found.data.metrics[metric])}")


def _list(
    names: Sequence[str] | None,
    ids: Sequence[str] | None,
    view: str,
    max_results: int,
    filter_string: str,
    order_by: Sequence[str] | None,
    as_json: bool,
) -> None:
    with open_store(create=False) as store:
        chosen = options.chosen_experiments(store, names, ids)
        found = store.search_runs(
            None if chosen is None else [experiment.experiment_id for experiment in chosen],
            filter_string,
            options.view_type(view),
            max_results,
            order_by or (),
        )
        experiments = {} if as_json else _experiment_names(store, found)
    rows = [_row(run, experiments) for run in found]
    render.records(
        rows,
        _columns(found, experiments) if render.on_terminal() else _all_columns(rows),
        as_json=as_json,
        objects=(run.to_dictionary() for run in found),
        empty=_nothing(chosen, filter_string, view),
    )
    if found.token is not None:
        render.note(f"these are the first {len(found)}; --max-results shows more")


def _nothing(chosen: Sequence[Experiment] | None, filter_string: str, view: str) -> str:
    """What to do next when no run was found."""
    place = f" in {' or '.join(repr(render.plain(experiment.name)) for experiment in chosen)}" if chosen else ""
    if filter_string:
        return f"no run{place} matches; `mlcli runs list` shows what there is"
    if options.view_type(view) == ViewType.DELETED_ONLY:
        return f"no run{place} is deleted"
    return f"there are no runs{place} yet; `mlcli run PROJECT` makes one, or `import mlcli` in a script"


def _experiment_names(store: Store, runs: Iterable[Run]) -> dict[str, str]:
    return {key: store.get_experiment(key).name for key in {run.info.experiment_id for run in runs}}


def _row(run: Run, experiments: Mapping[str, str]) -> dict[str, object]:
    info = run.info
    return {
        "run_id": info.run_id,
        "name": info.run_name,
        "label": f"{portrait.child_sign()} {info.run_name}" if portrait.PARENT in run.data.tags else info.run_name,
        "status": info.status,
        "experiment_id": info.experiment_id,
        "experiment": experiments.get(info.experiment_id, ""),
        "start_time": info.start_time,
        "end_time": info.end_time,
        "duration_ms": took(run),
        "stage": info.lifecycle_stage,
        **{f"metrics.{key}": value for key, value in run.data.metrics.items()},
        **{f"params.{key}": value for key, value in run.data.params.items()},
    }


def _columns(runs: Sequence[Run], experiments: Mapping[str, str]) -> list[render.Column]:
    """The columns a terminal shows, the ones that may be left out last."""
    several = len(experiments) > 1
    deleted = any(run.info.lifecycle_stage == LifecycleStage.DELETED for run in runs)
    params = differing([run.data.params for run in runs])
    metrics = differing([run.data.metrics for run in runs])
    both = {*params} & {*metrics}
    return [
        render.Column("status", "STATUS", show=render.status, style=_status_style),
        render.Column("run_id", "RUN", show=lambda run_id: str(run_id)[:SHORT_ID], style="bold"),
        render.Column("label", "NAME", least=10),
        *([render.Column("stage", "STAGE")] if deleted else []),
        *([render.Column("experiment", "EXPERIMENT", least=8, optional=4)] if several else []),
        render.Column("start_time", "STARTED", show=render.ago, right=True),
        render.Column("duration_ms", "TOOK", show=render.duration, right=True),
        *(
            render.Column(
                f"metrics.{key}",
                f"{key} (metric)" if key in both else key,
                show=render.numbers(run.data.metrics.get(key) for run in runs),
                right=True,
                style="cyan",
                optional=1 + 2 * place,
                least=9,
            )
            for place, key in enumerate(metrics)
        ),
        *(
            render.Column(
                f"params.{key}",
                f"{key} (param)" if key in both else key,
                right=all(_is_number(run.data.params.get(key)) for run in runs),
                optional=2 + 2 * place,
                least=8,
                keep_end=True,
            )
            for place, key in enumerate(params)
        ),
    ]


def _all_columns(rows: Sequence[Mapping[str, object]]) -> list[render.Column]:
    """The columns a pipe gets: the fixed ones first, then every metric and param by name."""
    fixed = ["run_id", "name", "status", "experiment_id", "experiment", "start_time", "end_time", "duration_ms"]
    others = sorted({key for row in rows for key in row if "." in key})
    moments = ("start_time", "end_time")
    return [render.Column(key, pipe=render.iso_time if key in moments else None) for key in (*fixed, *others)]


def _status_style(status: object) -> str:
    return render.status_style(str(status))


def _is_number(text: str | None) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


@app.command()
def export(
    form: Annotated[
        str,
        typer.Option("-f", "--format", metavar="FORMAT", help="csv, jsonl or parquet; by default what FILE ends with."),
    ] = "",
    output: Annotated[Optional[str], typer.Option("-o", "--output", metavar="FILE", help="Write to this file.")] = None,
    experiment_name: options.ExperimentNames = None,
    experiment_id: options.ExperimentIds = None,
    view: options.View = "active_only",
    filter_string: options.Filter = "",
    order_by: options.OrderBy = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="CSV: leave texts alone that a spreadsheet would run as formulas.")
    ] = False,
) -> None:
    """Write runs as CSV, JSON lines or Parquet.

    Each run comes with all its metrics, params and tags.
    """
    from mlcli.cli import tables

    ending = (output or "").rpartition(".")[2].lower()
    wanted = form or (ending if ending in tables.FORMATS else "csv")
    with open_store(create=False) as store:
        chosen = options.chosen_experiments(store, experiment_name, experiment_id)
        runs = tables.all_runs(
            store,
            None if chosen is None else [experiment.experiment_id for experiment in chosen],
            filter_string,
            options.view_type(view),
            order_by or (),
        )
    tables.write(runs, wanted, output, raw=raw)


# --- one run ------------------------------------------------------------------------------------------------------


@app.command()
def show(run: options.RunArgument = None, run_id: options.RunOption = None, as_json: options.Json = False) -> None:
    """Show one run whole.

    How it went, where it came from, its params, metrics, tags, artifacts and models. With --verbose also the tags that mlcli sets.
    With --json it is as in `runs list --json`, and has its models as well, for which the artifacts are looked through.
    """
    from mlcli.artifacts import open_artifacts
    from mlcli.registry import models_of_run

    with open_store(create=False) as store:
        found = store.get_run(options.one_run(store, run, run_id))
        files = open_artifacts(found.info.artifact_uri, store=store.root).walk()
        models = models_of_run(store, found, files)
        if as_json:
            render.emit_json({**found.to_dictionary(), "models": [model.to_dictionary() for model in models]})
            return
        experiment = store.get_experiment(found.info.experiment_id)
        curves = {key: store.get_metric_values(found.info.run_id, key) for key in found.data.metrics}
        children = store.search_runs(
            filter_string=f"tags.`{portrait.PARENT}` = '{found.info.run_id}'", order_by=["start_time ASC"]
        )
    if render.on_terminal():
        portrait.to_eyes(found, experiment, curves, files, children, models)
    else:
        portrait.to_pipe(found, experiment, files, children, models)


app.command("describe", help="The same as show.")(show)


@app.command()
def logs(
    run: options.RunArgument = None,
    run_id: options.RunOption = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    tail: Annotated[
        Optional[int], typer.Option("--tail", metavar="N", min=0, help="Only so many lines from the end.")
    ] = None,
) -> None:
    """Print what a run wrote to stdout and stderr."""
    import time

    from mlcli.artifacts import open_artifacts

    with open_store(create=False) as store:
        found = store.get_run(options.one_run(store, run, run_id))
        key = found.info.run_id
        if is_remote(store.root):  # the log comes there when the run has ended
            while follow and not RunStatus.is_terminated(store.get_run(key).info.status):
                time.sleep(1)
            path = open_artifacts(store.artifact_root(key)).path(LOG)
        else:
            path = os.path.join(found.info.artifact_uri, *LOG.split("/"))
        while not os.path.exists(path):
            if not follow or RunStatus.is_terminated(store.get_run(key).info.status):
                raise NotFound(
                    f"no output is kept of run {key}",
                    hint="`mlcli run` keeps it; of a script that ran on its own there is none",
                )
            time.sleep(0.2)
        with open(path, "rb") as file:
            file.seek(_tail_start(path, tail) if tail is not None else 0)
            while True:
                ended = not follow or RunStatus.is_terminated(store.get_run(key).info.status)
                while block := file.read(1 << 20):
                    sys.stdout.buffer.write(block)
                    sys.stdout.buffer.flush()
                if ended:  # it had ended before the last read, so that read has seen all
                    return
                time.sleep(0.2)


def _tail_start(path: str, lines: int) -> int:
    """Where the last ``lines`` lines of a file begin; reads it backwards, block by block."""
    with open(path, "rb") as file:
        position = file.seek(0, os.SEEK_END)
        wanted = lines
        if position and lines:
            file.seek(position - 1)
            wanted += file.read(1) == b"\n"  # the end of the last line is not the beginning of another
        while position > 0 and wanted > 0:
            step = min(1 << 16, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            place = len(block)
            while wanted > 0:
                place = block.rfind(b"\n", 0, place)
                if place < 0:
                    break
                wanted -= 1
            if wanted == 0:
                return position + place + 1
        return 0 if lines else position


# --- several runs -------------------------------------------------------------------------------------------------


@app.command()
def watch(
    target: Annotated[
        Optional[str],
        typer.Argument(
            metavar="RUN|EXPERIMENT",
            help="A run, or the name of an experiment; else every run that goes on.",
            autocompletion=completion.run_ids,
            show_default=False,
        ),
    ] = None,
    metric: Metrics = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Look again after this.")
    ] = 1.0,
    as_json: options.Json = False,
) -> None:
    """Watch runs until they end.

    Where they are, the course of their metrics, the best so far; when they will be done, where a param such as epochs or max_steps tells how many steps there are.
    A pipe gets a line whenever something is new. --json prints how things stand and does not wait.
    """
    import time

    from mlcli.cli import watching

    with open_store(create=False) as store:
        find, single = _watched(store, target)
        if as_json:
            now = int(time.time() * 1000)
            render.emit_json([watching.row(seen, now) for seen in watching.Watch(store, find, metric or ()).look()])
            return
        if not find():
            render.note(
                f"there are no runs in {target!r} yet"
                if target
                else "no run goes on; `mlcli runs list` lists those that ended"
            )
            return
        watching.watch(store, find, metric or (), single=single, interval=interval)


def _watched(store: Store, target: str | None) -> tuple[Callable[[], Sequence[Run]], bool]:
    """How to find the runs that are meant, each time anew, and whether it is a single one."""
    from mlcli.cli.watching import MOST

    experiment = store.find_experiment(target) if target else None
    if target and experiment is None:
        key = store.find_run(target)
        return lambda: [store.get_run(key)], True
    if experiment is not None:
        ids: list[str] | None = [experiment.experiment_id]
        return lambda: store.search_runs(ids, max_results=MOST), False
    chosen = options.chosen_experiments(store, None, None)
    ids = None if chosen is None else [item.experiment_id for item in chosen]
    begun = [run.info.run_id for run in store.search_runs(ids, _OPEN, max_results=MOST)]

    def going() -> Sequence[Run]:
        # Those that were seen going on stay in sight when they have ended.
        begun.extend(
            run.info.run_id for run in store.search_runs(ids, _OPEN, max_results=MOST) if run.info.run_id not in begun
        )
        return [store.get_run(key) for key in begun[-MOST:]]

    return going, False


_OPEN = "status IN ('RUNNING', 'SCHEDULED')"


@app.command()
def plot(
    runs: options.Runs,
    metric: Annotated[
        Optional[str], typer.Option("-m", "--metric", metavar="METRIC", help="Which one; else the first with a course.")
    ] = None,
    across: Annotated[str, typer.Option("--x", metavar="AXIS", help="step, relative (seconds) or time.")] = "step",
    smooth: Annotated[
        float, typer.Option("--smooth", metavar="0..1", min=0.0, max=0.99, help="How much a moving mean smooths.")
    ] = 0.0,
    log: Annotated[bool, typer.Option("--log", help="A logarithmic scale.")] = False,
    height: Annotated[int, typer.Option("--height", metavar="LINES", min=4, max=100, help="How high it is.")] = 16,
    as_json: options.Json = False,
) -> None:
    """Draw the curves of a metric.

    A pipe gets the points, tab-separated under a header.
    """
    from mlcli.cli import plotting

    if across not in ("step", "relative", "time"):
        raise InvalidInput(f"there is no axis {across!r}", hint="step, relative or time")
    with open_store(create=False) as store:
        found = [store.get_run(key) for key in dict.fromkeys(store.find_run(word) for word in runs)]
        key = metric or _with_a_course(store, found)
        histories = {run.info.run_id: store.get_metric_history(run.info.run_id, key) for run in found}
    if not any(histories.values()):
        known = sorted({name for run in found for name in run.data.metrics})
        raise NotFound(f"no point of {key!r} was logged", hint=f"there is {', '.join(known)}" if known else "")
    curves = []
    for run in found:
        points = [
            (
                _along(point, across, run.info.start_time),
                point.value if abs(point.value) < float("inf") else float("nan"),
            )
            for point in sorted(histories[run.info.run_id], key=lambda point: (point.step, point.timestamp))
        ]
        curves.append(
            plotting.Line(f"{run.info.run_id[:SHORT_ID]}  {run.info.run_name}", plotting.smoothed(points, smooth))
        )
    odd = sum(not abs(point.value) < float("inf") for points in histories.values() for point in points)
    if odd:
        render.note(
            f"{odd} point{'s' if odd > 1 else ''} of {key!r} that no place can be given to (NaN, infinite): the curve is broken there"
        )
    if as_json:
        render.emit_json(
            [
                {
                    "run_id": run.info.run_id,
                    "name": run.info.run_name,
                    "metric": key,
                    "points": [list(point) for point in curve.points if not math.isnan(point[1])],
                }
                for run, curve in zip(found, curves, strict=True)
            ]
        )
    elif render.on_terminal():
        render.emit(render.styled(render.plain(key), "bold"))
        unit = {"step": "step", "relative": "s", "time": "ms since 1970"}[across]
        for line in plotting.drawn(curves, render.terminal_width(), height, log=log, unit=unit):
            render.emit(line)
    else:
        render.emit(f"run_id\tname\tmetric\t{across}\tvalue")
        for run, curve in zip(found, curves, strict=True):
            for x, value in curve.points:
                if math.isnan(value):
                    continue
                render.emit(
                    "\t".join(
                        map(
                            render.tsv_cell,
                            (
                                run.info.run_id,
                                run.info.run_name,
                                key,
                                render.number(x) if across == "relative" else int(x),
                                repr(value),
                            ),
                        )
                    )
                )


def _along(point: Metric, across: str, start: int) -> float:
    if across == "step":
        return point.step
    return (point.timestamp - start) / 1000 if across == "relative" else point.timestamp


def _with_a_course(store: Store, runs: Sequence[Run]) -> str:
    """The metric that most of the runs logged more than once."""
    counts: dict[str, int] = {}
    for points in store.latest_metrics([run.info.run_id for run in runs]).values():
        for point in points:
            if not point.key.startswith("system/"):
                counts[point.key] = counts.get(point.key, 0) + 1 + (1000 if point.step else 0)
    if not counts:
        raise NotFound("these runs have logged no metric", hint="`mlcli runs list` shows what runs logged")
    return min(counts, key=lambda key: (-counts[key], key))


@app.command()
def compare(
    runs: Annotated[
        Optional[List[str]],
        typer.Argument(
            metavar="RUN...",
            help="Run ids, or what stands for them; without any, those that the options find.",
            autocompletion=completion.run_ids,
            show_default=False,
        ),
    ] = None,
    experiment_name: options.ExperimentNames = None,
    filter_string: options.Filter = "",
    max_results: options.Limit = 100,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the same in all.")] = False,
    importance: Annotated[
        Optional[str],
        typer.Option("--importance", metavar="METRIC", help="Which params move this metric, instead of the table."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Of evaluations: whether they truly differ from the first one.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Put runs side by side.

    What differs is marked, and so is the best value of each metric. The best is the greatest;
    for names such as loss, error, rmse or time the least. A terminal shows the courses of the metrics too.
    """
    from mlcli.cli import comparison

    with open_store(create=False) as store:
        if runs:
            found = [store.get_run(store.find_run(word)) for word in runs]
        elif experiment_name or filter_string:
            chosen = options.chosen_experiments(store, experiment_name, None)
            ids = None if chosen is None else [experiment.experiment_id for experiment in chosen]
            found = list(store.search_runs(ids, filter_string, max_results=max_results))
        else:
            raise InvalidInput("no run is named", hint="mlcli runs compare latest latest~1")
        if len(found) < 2:
            raise InvalidInput("two runs at least are needed", hint="mlcli runs compare latest latest~1")
        if test:
            from mlcli.cli import significance

            significance.compare(store, found, as_json=as_json)
            return
        if importance is not None:
            comparison.write_importance(found, importance, as_json=as_json)
            return
        rows = [row for row in comparison.compared(found) if not changed or not row["same"]]
        courses = comparison.courses(store, found) if render.on_terminal() and not as_json else {}
    comparison.write_runs(found, rows, as_json=as_json, courses=courses)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    as_json: options.Json = False,
) -> None:
    """Show in what two runs differ.

    Params, metrics, code, environment with its packages, and tags.
    """
    from mlcli.cli import comparison

    with open_store(create=False) as store:
        found = [store.get_run(store.find_run(word)) for word in (first, second)]
    rows = comparison.differences(*found)
    comparison.write_runs(found, rows, as_json=as_json)
    if not rows:
        render.note("they differ in nothing that was recorded")
    elif any(row["key"] == comparison.PATCH for row in rows):
        render.note(f"`mlcli artifacts download RUN -a {comparison.PATCH}` gets the uncommitted changes of one")


# --- tidying up ---------------------------------------------------------------------------------------------------


@app.command("set-tag")
def set_tag(
    run: TheRun,
    pairs: Annotated[List[str], typer.Argument(metavar="KEY VALUE | KEY=VALUE...", help="The tags.")],
) -> None:
    """Set tags of a run.

    Either one, as KEY VALUE, or any number, as KEY=VALUE.
    """
    if len(pairs) == 2 and "=" not in pairs[0]:
        tags = {pairs[0]: pairs[1]}
    else:
        wrong = [pair for pair in pairs if "=" not in pair]
        if wrong:
            raise InvalidInput(f"{wrong[0]!r} is not KEY=VALUE", hint="mlcli runs set-tag RUN KEY VALUE")
        tags = dict(pair.split("=", 1) for pair in pairs)
    from mlcli.entities import RunTag

    with open_store(create=False) as store:
        key = store.find_run(run)
        store.log_batch(key, tags=[RunTag(name, value) for name, value in tags.items()])
    render.success(f"{_short(key)}: set {', '.join(f'{name}={value}' for name, value in tags.items())}")


@app.command("delete-tag")
def delete_tag(
    run: TheRun,
    key: Annotated[str, typer.Argument(help="The tag.")],
) -> None:
    """Remove a tag from a run."""
    with open_store(create=False) as store:
        found = store.find_run(run)
        store.delete_tag(found, key)
    render.success(f"{_short(found)}: removed the tag {render.plain(key)}")


@app.command()
def note(
    run: TheRun,
    text: Annotated[
        Optional[List[str]], typer.Argument(help="The note; `-` reads it from stdin.", show_default=False)
    ] = None,
) -> None:
    """Write a note on a run, or print the one it has.

    MLflow calls it the description of the run.
    """
    with open_store(create=False) as store:
        key = store.find_run(run)
        if not text:
            found = store.get_run(key).data.tags.get(NOTE)
            if found is None:
                raise NotFound(f"run {key} has no note", hint=f'`mlcli runs note {_short(key)} "TEXT"` writes one')
            render.emit(render.plain_lines(found) if render.on_terminal() else found)
            return
        store.set_tag(key, NOTE, sys.stdin.read() if text == ["-"] else " ".join(text))
    render.success(f"{_short(key)}: note kept; `mlcli runs note {_short(key)}` prints it")


@app.command()
def move(
    runs: options.Runs,
    experiment_name: Annotated[
        Optional[str],
        typer.Option(
            "-n",
            "--experiment-name",
            metavar="NAME",
            help="The experiment they go to.",
            autocompletion=completion.experiment_names,
        ),
    ] = None,
    experiment_id: Annotated[
        Optional[str], typer.Option("-x", "--experiment-id", metavar="ID", help="The same by id.")
    ] = None,
) -> None:
    """Move runs to another experiment.

    Their artifacts stay where they are, so every address of them stays good.
    """
    with open_store(create=False) as store:
        target = options.find_experiment(store, experiment_name, experiment_id)
        found = [store.find_run(word) for word in _words(runs, None)]
        for key in found:
            store.move_run(key, target.experiment_id)
    for key in found:
        render.success(f"run {_short(key)} is in {target.name!r} now")


@app.command()
def delete(
    runs: SomeRuns = None,
    run_id: options.RunOption = None,
) -> None:
    """Delete runs, until restored."""
    with open_store(create=False) as store:
        found = [store.find_run(word) for word in _words(runs, run_id)]
        for key in found:
            store.delete_run(key)
    for key in found:
        render.success(f"deleted run {_short(key)}; `mlcli runs restore {_short(key)}` brings it back")


@app.command()
def restore(
    runs: SomeRuns = None,
    run_id: options.RunOption = None,
) -> None:
    """Bring deleted runs back."""
    with open_store(create=False) as store:
        found = [store.find_run(word) for word in _words(runs, run_id)]
        for key in found:
            store.restore_run(key)
    for key in found:
        render.success(f"run {_short(key)} is back")


def _words(runs: Sequence[str] | None, run_id: str | None) -> list[str]:
    """The runs that are named, each once."""
    words = [*(runs or ()), *([run_id] if run_id else ())]
    if not words:
        raise InvalidInput("no run is named", hint="give a run id or `latest`; `mlcli runs list` shows the ids")
    return list(dict.fromkeys(words))


def _short(run_id: str) -> str:
    return run_id[:SHORT_ID]
