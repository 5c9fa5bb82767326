"""`mlcli evaluate`: tell how good a model or a project is, how sure that is, and whether it beats another."""

import os
import sys
from typing import Annotated, Any, Dict, List, Mapping, Optional

import typer

from mlcli.cli import completion, options, render
from mlcli.errors import InvalidInput, MlcliError

# No `from __future__ import annotations` here: Typer would compile each of these texts again.
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

SIGNS = {"better": "green", "worse": "red"}


@app.command()
def evaluate(
    model: Annotated[
        Optional[str],
        typer.Argument(
            metavar="MODEL|PROJECT",
            help="runs:/RUN/model, models:/NAME/VERSION, a folder of a model, or a project.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[Optional[str], typer.Option("--data", metavar="FILE", help="The rows: csv or parquet.")] = None,
    target: Annotated[
        Optional[str], typer.Option("--target", metavar="COLUMN", help="What is to be predicted.")
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(
            "--method",
            metavar="METHOD",
            help="holdout, kfold, repeated-kfold, stratified, grouped, timeseries, bootstrap, or none: score it as it is."
            " [default: none for a model, holdout for a project]",
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", metavar="N", help="How many parts.")] = 5,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", help="Of repeated-kfold.")] = 10,
    test_size: Annotated[float, typer.Option("--test-size", metavar="SHARE", help="Of holdout.")] = 0.25,
    n_boot: Annotated[int, typer.Option("--n-boot", metavar="N", help="Refits of bootstrap.")] = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of splits and resamples.")] = 0,
    stratify: Annotated[
        Optional[bool],
        typer.Option(
            "--stratify/--no-stratify",
            help="Keep the shares of classes. [default: of a classifier]",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        Optional[str], typer.Option("--group", metavar="COLUMN", help="Rows of one group stay on one side.")
    ] = None,
    time: Annotated[Optional[str], typer.Option("--time", metavar="COLUMN", help="The order of timeseries.")] = None,
    metric: Annotated[
        Optional[List[str]],
        typer.Option("--metric", metavar="NAME", help="Only these scores, or one of sklearn.metrics; may be repeated."),
    ] = None,
    model_type: Annotated[
        Optional[str],
        typer.Option("--type", metavar="TYPE", help="classifier or regressor. [default: as the model says]"),
    ] = None,
    interval: Annotated[
        str,
        typer.Option(
            "--ci",
            metavar="NAME",
            help="auto, wilson, clopper-pearson, delong, bca, percentile or none; for holdout and none.",
        ),
    ] = "auto",
    level: Annotated[float, typer.Option("--level", metavar="SHARE", help="Of the intervals.")] = 0.95,
    baseline: Annotated[
        Optional[List[str]],
        typer.Option(
            "--baseline", metavar="MODEL", help="Compare with this model or project, or `dummy`; may be repeated."
        ),
    ] = None,
    test: Annotated[
        str,
        typer.Option(
            "--test", metavar="NAME", help="auto, mcnemar, delong, paired-bootstrap, nb-t, 5x2cv-t or 5x2cv-f."
        ),
    ] = "auto",
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="SHARE", help="Below it a difference is called real.")
    ] = 0.05,
    fail_under: Annotated[
        Optional[List[str]],
        typer.Option("--fail-under", metavar="METRIC=VALUE", help="Exit with 1 when it is worse; may be repeated."),
    ] = None,
    min_improvement: Annotated[
        Optional[List[str]],
        typer.Option(
            "--min-improvement",
            metavar="METRIC=VALUE[,relative]",
            help="Exit with 1 when it betters the baseline by less; may be repeated.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", metavar="N", help="Folds at once.")] = 1,
    experiment_name: Annotated[
        Optional[str],
        typer.Option(
            "-n",
            "--experiment-name",
            metavar="NAME",
            help="Experiment of the run; made if missing.",
            autocompletion=completion.experiment_names,
        ),
    ] = None,
    experiment_id: Annotated[
        Optional[str], typer.Option("-x", "--experiment-id", metavar="ID", help="The same by id.")
    ] = None,
    run_name: Annotated[Optional[str], typer.Option("--run-name", metavar="NAME", help="A name for the run.")] = None,
    run_id: Annotated[
        Optional[str],
        typer.Option("--run-id", metavar="RUN", help="Log into this run.", autocompletion=completion.run_ids),
    ] = None,
    resume: Annotated[
        Optional[str],
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with an evaluation that was interrupted; needs nothing else.",
            autocompletion=completion.run_ids,
        ),
    ] = None,
    entry_point: Annotated[
        Optional[str], typer.Option("-e", "--entry-point", metavar="NAME", help="Of the project. [default: main]")
    ] = None,
    parameters: Annotated[
        Optional[List[str]],
        typer.Option("-P", "--param-list", metavar="NAME=VALUE", help="A parameter of the project; may be repeated."),
    ] = None,
    version: Annotated[
        Optional[str], typer.Option("-v", "--version", metavar="REF", help="Branch, tag or commit of a git project.")
    ] = None,
    env_manager: Annotated[
        Optional[str],
        typer.Option(
            "--env-manager",
            metavar="NAME",
            help="virtualenv, uv, conda or local: the environment to evaluate in. [default: local for a model]",
        ),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Load models that can run code.")] = False,
    html: Annotated[
        Optional[str], typer.Option("--html", metavar="FILE", help="Write the report to this file too.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tell how good a model is, and how sure that is.

    A model is scored on the rows, or cloned and fitted anew for each fold. A project is run for each fold with
    -P train_data=FILE -P test_data=FILE; it hands back the artifact predictions.csv (a column `prediction`, a line for
    each test row) or its metrics. The evaluation is a run with its scores, intervals and a report.

    Exits with 1 when a threshold is not reached.

    For example:

    \b
    mlcli evaluate models:/churn/3 --data test.csv --target churned
    mlcli evaluate models:/churn/3 --data all.csv --target churned --method kfold
    mlcli evaluate . --data all.csv --target churned --fail-under roc_auc=0.8
    """  # noqa: D301 - a backspace, by which click keeps lines as they are
    given = dict(locals())
    if html is not None and not os.path.isdir(os.path.dirname(os.path.abspath(html))):
        raise InvalidInput(f"cannot write {html}: there is no such folder", hint="make it, or name another file")
    from mlcli.evaluation import learners, offline, page, words
    from mlcli.store import open_store

    if resume is not None:
        with open_store(create=False) as store:
            found = store.find_run(resume)
        given = {**offline.arguments_of(found), "resume": found, "html": html, "as_json": as_json, "jobs": jobs}
    shown = _Progress()
    born: List[str] = []
    listener = offline.Listener(progress=shown.tick, note=render.note, warn=render.warn, started=born.append)
    try:
        if given["env_manager"] not in (None, "local") and given["model"] and learners.is_model(given["model"]):
            from mlcli.evaluation import elsewhere

            report, text = elsewhere.evaluate(given, listener)
        else:
            done = offline.evaluate(words.request_of(given), listener)
            report, text = done.report, page.html(done.report, done.curves)
    except (KeyboardInterrupt, MlcliError):
        shown.clear()
        for kept in filter(None, map(offline.last_words, born)):
            render.note(kept)
        raise
    shown.clear()
    tell(report, as_json=as_json)
    if html is not None:
        _write(html, text)
        render.success(f"wrote {html}")
    if not report["passed"]:
        raise typer.Exit(1)


class _Progress:
    """Folds done, and the time that the others will take."""

    def __init__(self) -> None:
        self._start: Optional[float] = None
        self._before = 0
        self._drawn = False

    def tick(self, done: int, total: int) -> None:
        import time

        if total < 2 or render.levels().quiet:
            return
        now = time.monotonic()
        if self._start is None:
            self._start, self._before = now, done
            if done:
                render.note(f"{done} of {total} folds {'was' if done == 1 else 'were'} done before")
        if now - self._start < 0.3 or not render.on_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
            return
        fresh = done - self._before
        left = (now - self._start) / fresh * (total - done) if fresh else None
        sign = "█" if render.unicode_ok(sys.stderr) else "#"
        told = f", {render.duration(left * 1000)} left" if left is not None else ""
        room = max(min(render.terminal_width() - 40, 40), 8)
        text = f"{done} of {total} folds {sign * round(room * done / total):{room}}{told}"
        sys.stderr.write(f"\r\x1b[K{render.cut(text, render.terminal_width() - 1)}")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


# --- what came of it ----------------------------------------------------------------------------------------------


def tell(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Write the scores and comparisons; say how they are meant."""
    if as_json:
        render.emit_json(report)
    elif render.on_terminal():
        _to_eyes(report)
    else:
        _to_pipe(report)
        render.note(f"run {report['run_id']}")
    for line in report["failed"]:
        render.error(f"not reached: {line}")
    for line in _close_calls(report):
        render.note(line)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from None


def _close_calls(report: Mapping[str, Any]) -> List[str]:
    """Thresholds that are reached by the value, but not by the whole interval."""
    found = []
    for name, wanted in report["thresholds"].items():
        figure = report["metrics"].get(name)
        if figure is None or "threshold" not in wanted or figure.get("low") is None or figure["value"] is None:
            continue
        bar, more = wanted["threshold"], wanted["greater_is_better"]
        reached = figure["value"] >= bar if more else figure["value"] <= bar
        edge = figure["low"] if more else figure["high"]
        if reached and (edge < bar if more else edge > bar):
            found.append(
                f"{name} reaches {bar:g}, but its interval goes {'down' if more else 'up'} to {render.number(edge)}"
            )
    return found


def _to_eyes(report: Mapping[str, Any]) -> None:
    from mlcli.evaluation import page

    render.emit(render.plain(page.summary(report)))
    render.emit("")
    rows = [{"metric": name, **figure} for name, figure in report["metrics"].items()]
    for row in rows:
        row["bounds"] = _bounds(row)
    folds = any(row.get("std") is not None for row in rows)
    several_methods = len({row.get("interval") for row in rows} - {None}) > 1
    columns = [
        render.Column("metric", "SCORE", style="bold", least=12),
        render.Column("value", "VALUE", show=_shown, right=True, style="cyan"),
        render.Column("bounds", f"{report['level']:.0%} INTERVAL", right=True),
        *([render.Column("std", "SD", show=_shown, right=True, optional=1)] if folds else []),
        *([render.Column("interval", "BY", style="dim", optional=2, least=10)] if several_methods else []),
    ]
    render.records(rows, columns)
    for one in report["baselines"]:
        against = [item for item in report["comparisons"] if item["baseline"] == one["model"]]
        if not against:
            continue
        render.heading(f"Against {render.plain(one['model'])}")
        tests = {item["test"] for item in against}
        render.records(
            [{**item, "bounds": _bounds(item), "verdict": page.verdict(item)} for item in against],
            [
                render.Column("metric", "SCORE", style="bold", least=12),
                render.Column("difference", "DIFFERENCE", show=_signed, right=True, style="cyan"),
                render.Column("bounds", f"{report['level']:.0%} INTERVAL", right=True, optional=1),
                render.Column("p_adjusted", "P", show=page.p_text, right=True),
                render.Column("verdict", " ", style=lambda word: SIGNS.get(str(word), "dim")),
                *([render.Column("test", "BY", style="dim", optional=2, least=10)] if len(tests) > 1 else []),
            ],
        )
        if len(tests) == 1:
            render.note(f"by the {tests.pop()} test")
    render.note("")
    render.note(page.caveat(report))
    short = report["run_id"][:8]
    render.note(f"run {short}: `mlcli runs show {short}`, `mlcli artifacts download {short} -a report.html`")


def _shown(value: Optional[float]) -> str:
    if value is None:
        return ""
    return (
        str(int(value))
        if float(value).is_integer() and abs(value) < 1e9
        else f"{value:.4f}"
        if abs(value) < 1e4
        else f"{value:.5g}"
    )


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{_shown(value)}"


def _bounds(item: Mapping[str, Any]) -> str:
    if item.get("low") is None or item.get("high") is None:
        return ""
    sign = "…" if render.unicode_ok() else ".."
    return f"{_shown(item['low'])} {sign} {_shown(item['high'])}"


_PIPED = ("kind", "metric", "baseline", "value", "low", "high", "std", "method", "p_value", "p_adjusted", "significant")


def _to_pipe(report: Mapping[str, Any]) -> None:
    rows: List[Dict[str, object]] = [
        {"kind": "score", "metric": name, **figure, "method": figure.get("interval")}
        for name, figure in report["metrics"].items()
    ]
    rows += [
        {"kind": "difference", **item, "value": item["difference"], "method": item["test"]}
        for item in report["comparisons"]
    ]
    render.records(rows, [render.Column(name) for name in _PIPED])
