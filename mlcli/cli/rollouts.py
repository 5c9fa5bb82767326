"""`mlcli rollouts`: compare models under live traffic, and let the better one through."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer

from mlcli.cli import options, render, rollout_status
from mlcli.cli.rollout_status import EXIT_INVALID, EXIT_ROLLBACK, state_style
from mlcli.errors import InvalidInput, MlcliError
from mlcli.store import open_store
from mlcli.store.rollouts import Rollouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlcli.rollouts.observe import Analysis
    from mlcli.rollouts.simulation import Simulated
    from mlcli.store.rollouts import Outcome, RolloutRecord

EXIT_ERRORS = 2

app = options.group("Compare models under live traffic: A/B, canary, shadow, bandit.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The rollout.", show_default=False)]
File = Annotated[str, typer.Option("-f", "--file", metavar="FILE", help="The rollout's YAML file.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")]


_COLUMNS = (
    render.Column("name", "NAME", least=12, style="bold"),
    render.Column("state", "STATE", style=state_style),
    render.Column("strategy", "STRATEGY"),
    render.Column("weights", "WEIGHTS", least=36),
    render.Column(
        "created_ns",
        "CREATED",
        show=lambda ns: render.ago(ns / 1e6),
        optional=1,
        pipe=lambda ns: render.iso_time(ns // 10**6),
    ),
    render.Column("candidates", "CANDIDATES", least=16, optional=2, keep_end=True),
)


# --- files


@app.command()
def lint(
    file: Annotated[
        Optional[str], typer.Argument(metavar="FILE", help="The rollout's YAML file.", show_default=False)
    ] = None,
    file_option: Annotated[Optional[str], typer.Option("-f", "--file", metavar="FILE", help="The same.")] = None,
    as_json: options.Json = False,
) -> None:
    """Find what is wrong with a rollout's file; exits with 2 when there are errors."""
    path = file or file_option
    if not path:
        raise InvalidInput("no file is named", hint="mlcli rollouts lint rollout.yaml")
    from mlcli.projects.problem import ERROR
    from mlcli.rollouts import rolloutfile

    problems = rolloutfile.lint(path)
    if as_json:
        render.emit_json([problem._asdict() for problem in problems])
    else:
        for problem in problems:
            hint = f" ({problem.hint})" if problem.hint else ""
            print(
                f"{problem.place}: {problem.level}: {render.plain(problem.message)}{render.plain(hint)} [{problem.code}]"
            )
    if any([problem.level == ERROR for problem in problems]):
        raise typer.Exit(EXIT_ERRORS)
    if not problems:
        render.success(f"no problems found; `mlcli rollouts create -f {path}` keeps it")


@app.command()
def create(file: File, as_json: options.Json = False) -> None:
    """Keep a rollout as a draft: nothing happens to traffic yet."""
    with open_store() as store:
        rollouts = Rollouts(store)
        made = _created(rollouts, file)
        told = _object(rollouts, made)
    render.emit_json(told) if as_json else render.success(
        f"rollout {made.name!r} is a draft; `mlcli models serve --rollout {made.name}` serves it,"
        f" `mlcli rollouts start {made.name}` begins"
    )


def _created(rollouts: Rollouts, file: str) -> RolloutRecord:
    from mlcli.projects import yamlfile
    from mlcli.rollouts import rolloutfile
    from mlcli.rollouts.lifecycle import by_hand

    spec = yamlfile.read_text(file)
    rollout = rolloutfile.parse(spec, file)
    made = rollouts.create(rollout.name, spec, actor=by_hand())
    for arm in rollout.arms:
        _look_for(arm.model)
    return made


def _look_for(uri: str) -> None:
    """Warn of a model that cannot be served yet."""
    from mlcli.artifacts import locate

    try:
        locate(uri)
    except MlcliError as error:
        render.warn(f"{uri} cannot be served: {error.message}")


@app.command()
def start(
    name: Annotated[Optional[str], typer.Argument(metavar="NAME", help="A draft.", show_default=False)] = None,
    file: Annotated[
        Optional[str], typer.Option("-f", "--file", metavar="FILE", help="Create it from this file first.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Begin: from now on candidates get their share, of whoever serves the rollout."""
    if (name is None) == (file is None):
        raise InvalidInput(
            "name a draft, or a file", hint="mlcli rollouts start NAME, or mlcli rollouts start -f rollout.yaml"
        )
    from mlcli.rollouts import lifecycle

    with open_store() as store:
        rollouts = Rollouts(store)
        if file is not None:
            name = _created(rollouts, file).name
        started = lifecycle.start(rollouts, str(name), actor=lifecycle.by_hand())
        weights, told = _weights(rollouts, started), _object(rollouts, started)
        for text in lifecycle.moved(rollouts, started):
            render.warn(text)
    render.emit_json(told) if as_json else render.success(
        f"rollout {started.name!r} is running: {weights}; `mlcli rollouts status {started.name} --watch` follows it"
    )


# --- looking


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List rollouts, the newest first."""
    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        found = rollouts.list()
        objects = [_object(rollouts, record) for record in found]
        rows = [{**one, "weights": _weights(rollouts, record)} for one, record in zip(objects, found, strict=True)]
    for row in rows:
        row["candidates"] = ", ".join(arm["model"] for arm in row["arms"][1:])
    render.records(
        rows,
        _COLUMNS,
        as_json=as_json,
        objects=objects,
        empty="there is no rollout; `mlcli rollouts create -f rollout.yaml` makes one",
    )


@app.command()
def get(name: Name, as_json: options.Json = False) -> None:
    """Show a rollout: its file, what happened to it and why."""
    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        record = rollouts.get(name)
        events = rollouts.events(record.key)
        weights = rollouts.weights(record.key)
        shown = _object(rollouts, record)
    told = {
        **shown,
        "spec": record.spec,
        "weights": [one._asdict() for one in weights],
        "events": [event._asdict() for event in events],
    }
    if as_json:
        render.emit_json(told)
        return
    render.fields(
        [
            ("name", record.name),
            ("state", f"{record.state}{', invalid' if record.invalid else ''}"),
            ("strategy", told["strategy"]),
            *((f"arm.{arm['name']}", _is(arm)) for arm in told["arms"]),
            ("weights", _shares(told["arms"], weights[-1].weights) if weights else None),
            ("created", _time(record.created_ns)),
            ("started", _time(record.started_ns)),
            ("ended", _time(record.ended_ns)),
        ]
    )
    if render.on_terminal():
        render.heading("Events")
    columns = (
        render.Column(
            "ns", "TIME", show=lambda ns: render.local_time(ns / 1e6), pipe=lambda ns: render.iso_time(ns // 10**6)
        ),
        render.Column("kind", "EVENT", style="bold"),
        render.Column("state", "STATE", style=state_style, optional=2),
        render.Column("actor", "BY", optional=1),
        render.Column("reason", "REASON", least=40),
    )
    render.records([event._asdict() for event in events], columns)


@app.command()
def status(
    name: Name,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until it has ended; ^C ends the watching, not the rollout.")
    ] = False,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit with 10 for ROLLBACK or what was aborted, 11 for INVALID, else 0."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show arms, metrics, gates and the verdict as of now.

    With --watch it is drawn anew in its place; in a pipe each change is a line, with --json a document on a line.
    """
    need_statistics()
    from mlcli.rollouts.observe import analyze

    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        if watch:
            analysis = rollout_status.watch(rollouts, name, as_json=as_json)
        else:
            analysis = analyze(rollouts, name)
            rollout_status.show(analysis, as_json=as_json)
    if exit_code:
        raise typer.Exit(rollout_status.exit_code(analysis))


# --- deciding


@app.command()
def pause(name: Name, reason: Reason = "") -> None:
    """Leave traffic as it is and decide nothing."""
    from mlcli.rollouts import lifecycle

    with open_store() as store:
        lifecycle.pause(Rollouts(store), name, actor=lifecycle.by_hand(), reason=reason)
    render.success(f"rollout {name!r} is paused; `mlcli rollouts resume {name}` goes on")


@app.command()
def resume(name: Name) -> None:
    """Go on deciding; one that was invalid is looked at anew."""
    from mlcli.rollouts import lifecycle

    with open_store() as store:
        lifecycle.resume(Rollouts(store), name, actor=lifecycle.by_hand())
    render.success(f"rollout {name!r} is running")


@app.command()
def promote(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="All traffic and control's alias at once.")] = False,
    candidate: Annotated[
        str, typer.Option("--candidate", metavar="ARM", help="Which one, where there are several.")
    ] = "",
    reason: Reason = "",
) -> None:
    """Go on to the next step, or with --full to the end, whatever the verdict."""
    from mlcli.rollouts import lifecycle

    with open_store() as store:
        rollouts = Rollouts(store)
        if full:
            now = lifecycle.promote(rollouts, name, candidate, actor=lifecycle.by_hand(), reason=reason)
        else:
            now = lifecycle.advance(rollouts, name, actor=lifecycle.by_hand(), reason=reason)
        weights = _weights(rollouts, now)
        kept = [event.reason for event in rollouts.events(now.key) if event.kind == lifecycle.ALIAS_KEPT]
    render.success(f"rollout {name!r} is {now.state}: {weights}")
    for told in kept:
        render.warn(told)


@app.command()
def abort(name: Name, reason: Reason = "") -> None:
    """Give all traffic back to control, within a second and for good."""
    from mlcli.rollouts import lifecycle

    with open_store() as store:
        lifecycle.abort(Rollouts(store), name, actor=lifecycle.by_hand(), reason=reason)
    render.success(f"rollout {name!r} is aborted: control answers everything")


app.command("rollback", hidden=True, help="The same as abort.")(abort)


# --- numbers


@app.command()
def analyze(
    name: Name,
    as_of: Annotated[
        Optional[str],
        typer.Option(
            "--as-of",
            metavar="TIME",
            help="Heed only what was there then: 2026-05-01T12:00:00Z, or seconds since 1970.",
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Add bounds of proportions that need no asymptotics.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 10 for ROLLBACK, 11 for INVALID, else 0.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Work out the verdict anew from what is recorded; the same data give the same verdict."""
    need_statistics()
    from mlcli.rollouts.observe import analyze as work_out

    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        analysis = work_out(rollouts, name, as_of_ns=None if as_of is None else _moment(as_of))
        bounds = _exact(rollouts, analysis) if exact else []
        if as_json:
            render.emit_json({**analysis.to_dictionary(), **({"exact": bounds} if exact else {})})
        else:
            rollout_status.show(analysis, as_json=False)
            for one in bounds:
                print(
                    f"{one['metric']} of {one['candidate']}, exactly: {one['difference']:+.4g} ({one['low']:+.4g} to {one['high']:+.4g})"
                )
    if exit_code:
        raise typer.Exit({"ROLLBACK": EXIT_ROLLBACK, "INVALID": EXIT_INVALID}.get(analysis.verdict.verdict, 0))


def _exact(rollouts: Rollouts, analysis: Analysis) -> list[dict[str, Any]]:
    from mlcli.rollouts.sequential import exact_difference

    found = []
    shares = {phase.version: phase.weights for phase in analysis.observed.phases}
    for metric in analysis.rollout.metrics:
        if metric.kind != "proportion":
            continue
        rows = rollouts.unit_outcomes(analysis.record.key, analysis.moment.batch, metric.key)
        for number, arm in enumerate(analysis.rollout.candidates, 1):
            mine = [
                (y, float(who == number), shares[version][number] / (shares[version][0] + shares[version][number]))
                for who, version, y in rows
                if who in (0, number) and min(shares[version][0], shares[version][number]) > 0
            ]
            if not mine:
                continue
            y, z, w = zip(*mine, strict=True)
            effect, low, high = exact_difference(
                y, z, w, alpha=analysis.rollout.decision.alpha, best_at=analysis.rollout.decision.planned_units
            )
            found.append({"metric": metric.name, "candidate": arm.name, "difference": effect, "low": low, "high": high})
    return found


@app.command()
def report(
    name: Name,
    html: Annotated[Optional[str], typer.Option("--html", metavar="FILE", help="Write the page to this file.")] = None,
    as_of: Annotated[Optional[str], typer.Option("--as-of", metavar="TIME", help="As it was then.")] = None,
    as_json: options.Json = False,
) -> None:
    """Write one self-contained page about a rollout, or with --json every number of it."""
    need_statistics()
    from mlcli.rollouts import report as make

    if html is None and not as_json:
        raise InvalidInput("say what to write", hint=f"mlcli rollouts report {name} --html report.html, or --json")
    with open_store(create=False) as store:
        told = make.figures(Rollouts(store), name, as_of_ns=None if as_of is None else _moment(as_of))
    if as_json:
        render.emit_json(told)
    if html is not None:
        _write(html, make.html(told))
        render.success(f"the report is in {html}")


def _write(path: str, text: str) -> None:
    special = os.path.exists(path) and not os.path.isfile(path)  # a pipe or a device: nothing may take its place
    aside = path if special else f"{path}.part"
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
        if not special:
            os.replace(aside, path)
    except OSError as error:
        raise MlcliError(
            f"cannot write {path}: {error.strerror}", hint="name a file in a folder that is there"
        ) from None


@app.command()
def assign(
    name: Name,
    units: Annotated[List[str], typer.Option("--unit", metavar="UNIT", help="Whom to place; may be repeated.")],
    as_json: options.Json = False,
) -> None:
    """Show where units stand and which arm they have now."""
    from mlcli.rollouts.assignment import bucket
    from mlcli.rollouts.lifecycle import spec_of
    from mlcli.serving.rollout import Assigner, force_of
    from mlcli.store.rollouts import unit_of

    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        record = rollouts.get(name)
        rollout = spec_of(record)
        assigner = Assigner(rollout, lambda unit: rollouts.arm_of(record.key, unit))
        assigner.force = force_of(rollout, *rollouts.in_force(record.key))
        rows = []
        for unit in units:
            found = assigner.decide(unit_of(unit), unit)
            owned = assigner.force.owned[found.arm] if found.role == "live" else None
            rows.append(
                {
                    "unit": unit,
                    "bucket": bucket(found.place),
                    "arm": rollout.arms[found.arm].name,
                    "analysed": found.role == "live",
                    "range": f"{owned.start:.4g}-{owned.end:.4g}" if owned else None,
                    "propensity": found.propensity,
                }
            )
    columns = (
        render.Column("unit", "UNIT", style="bold"),
        render.Column("bucket", "BUCKET", right=True),
        render.Column("arm", "ARM"),
        render.Column("range", "RANGE"),
        render.Column("propensity", "PROPENSITY", right=True, show=lambda x: f"{x:.4g}"),
        render.Column("analysed", "ANALYSED", show=lambda x: "yes" if x else "no"),
    )
    render.records(rows, columns, as_json=as_json)


@app.command()
def plan(
    file: File,
    baseline: Annotated[
        float, typer.Option("--baseline", metavar="RATE", help="Control's rate of the primary metric.")
    ],
    mde: Annotated[float, typer.Option("--mde", metavar="DIFFERENCE", help="The smallest difference worth finding.")],
    power: Annotated[float, typer.Option("--power", metavar="SHARE", min=0.5, max=0.999)] = 0.8,
    per_day: Annotated[
        Optional[float],
        typer.Option("--units-per-day", metavar="N", min=0, help="How many units come, for the days it takes."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say how many units a rollout needs to find a difference."""
    need_statistics()
    from mlcli.rollouts import rolloutfile
    from mlcli.rollouts.planning import plan as work_out

    found = work_out(rolloutfile.read(file), baseline, mde, power=power, per_day=per_day)
    render.fields(list(found.items()), as_json=as_json, obj=found)


@app.command()
def simulate(
    file: File,
    baseline: Annotated[float, typer.Option("--baseline", metavar="RATE", min=0, max=1, help="Control's rate.")] = 0.2,
    effect: Annotated[
        float, typer.Option("--effect", metavar="DIFFERENCE", help="The candidate's rate less control's.")
    ] = 0.0,
    error_rate: Annotated[float, typer.Option("--error-rate", metavar="RATE", min=0, max=1, help="Of control.")] = 0.01,
    error_ratio: Annotated[
        float, typer.Option("--error-ratio", metavar="TIMES", min=0, help="The candidate's over control's.")
    ] = 1.0,
    latency_ratio: Annotated[float, typer.Option("--latency-ratio", metavar="TIMES", min=0.01, help="The same.")] = 1.0,
    reps: Annotated[int, typer.Option("--reps", metavar="N", min=1, help="Rollouts to play.")] = 200,
    units: Annotated[
        int, typer.Option("--units", metavar="N", min=0, help="The most units of each; 0: four times the plan.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0)] = 0,
    as_json: options.Json = False,
) -> None:
    """Play a rollout in a world whose truth is given: how often it is wrong, how soon it is right.

    With --effect 0 every PROMOTE of a superiority rollout, and every ROLLBACK, is a false one. The verdicts are those of the
    real thing; time is not simulated: a step lasts as long as its units take.
    """
    need_statistics()
    from mlcli.rollouts import rolloutfile
    from mlcli.rollouts.simulation import Truth
    from mlcli.rollouts.simulation import simulate as play

    truth = Truth(baseline, effect, error_rate, error_ratio, latency_ratio)
    with render.progress("playing", "rollout") as tick:
        found = play(rolloutfile.read(file), truth, reps=reps, seed=seed, units=units, tick=tick)
    rows = list(_shares_of(found))
    columns = (
        render.Column("verdict", "VERDICT", style="bold"),
        render.Column("share", "SHARE", right=True, show=lambda x: f"{x:.1%}"),
        render.Column("interval", "95 % INTERVAL", show=lambda pair: f"{pair[0]:.1%} to {pair[1]:.1%}"),
        render.Column("median_units", "MEDIAN UNITS", right=True, show=lambda x: f"{x:.0f}"),
        render.Column("median_candidate_units", "OF CANDIDATES", right=True, show=lambda x: f"{x:.0f}"),
        render.Column(
            "rules", "RULES", least=12, optional=1, show=lambda rules: ", ".join(f"{k} {v}" for k, v in rules.items())
        ),
    )
    render.records(rows, columns, as_json=as_json)


def _shares_of(found: Simulated) -> Iterator[dict[str, Any]]:
    from collections import Counter

    from mlcli.evaluation.statistics import wilson

    for verdict in ("PROMOTE", "ROLLBACK", "INVALID", "HOLD"):
        share = found.share(verdict)
        bounds = wilson(round(share * len(found.games)), len(found.games))
        yield {
            "verdict": verdict,
            "share": share,
            "interval": [bounds.low, bounds.high],
            "median_units": found.median_units(verdict),
            "median_candidate_units": found.median_candidate_units(verdict),
            "rules": dict(Counter(game.rule for game in found.games if game.verdict == verdict)),
        }


@app.command()
def feedback(
    name: Name,
    file: Annotated[
        str,
        typer.Option(
            "--file", metavar="FILE", help="CSV with a header, or JSON lines: request_id or unit, key, value, ts ..."
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Bring outcomes in from a file; each counts once, however often it is brought."""
    import secrets
    from itertools import islice

    from mlcli.store.rollouts import outcome_of

    now = time.time_ns()

    def made(line: int, given: dict[str, Any]) -> Outcome:
        try:
            return outcome_of(given, now, lambda: secrets.token_hex(12))
        except InvalidInput as error:
            raise InvalidInput(f"{file}:{line}: {error.message}", hint=error.hint) from None

    outcomes: Iterable[Outcome] = (made(line, given) for line, given in _outcomes(file))
    if os.path.isfile(file):
        for _ in outcomes:  # all is looked at before anything is kept
            pass
        outcomes = (made(line, given) for line, given in _outcomes(file))
    else:  # a pipe is read once
        outcomes = iter(list(outcomes))
    with open_store() as store:
        rollouts = Rollouts(store)
        key = rollouts.get(name).key
        accepted = duplicate = 0
        while part := list(islice(outcomes, 10_000)):
            new, old = rollouts.feedback(key, part)
            accepted, duplicate = accepted + new, duplicate + old
    if as_json:
        render.emit_json({"accepted": accepted, "duplicate": duplicate})
    else:
        render.success(f"{render.count(accepted, 'outcome')} kept; {duplicate} were there already")


def _outcomes(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    import csv
    import json

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.endswith((".jsonl", ".ndjson", ".json")):
                for number, line in enumerate(file, 1):
                    if line.strip():
                        try:
                            given = json.loads(line)
                        except ValueError:
                            raise InvalidInput(f"{path}:{number}: not JSON", hint="one object a line") from None
                        if not isinstance(given, dict):
                            raise InvalidInput(f"{path}:{number}: not an object")
                        yield number, given
                return
            for number, row in enumerate(csv.DictReader(file), 2):
                given = {key: value for key, value in row.items() if key and value not in (None, "")}
                for key in ("value", "ts"):
                    if key in given:
                        try:
                            given[key] = float(given[key])
                        except ValueError:
                            raise InvalidInput(f"{path}:{number}: {key} is no number: {given[key]!r}") from None
                yield number, given
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8") from None


# --- shared


def _object(rollouts: Rollouts, record: RolloutRecord) -> dict[str, Any]:
    from mlcli.rollouts.lifecycle import spec_of
    from mlcli.rollouts.models import described

    rollout = spec_of(record)
    return {
        "name": record.name,
        "state": record.state,
        "invalid": record.invalid,
        "strategy": rollout.strategy,
        "step": record.step,
        "version": record.version,
        "arms": described(rollout, rollouts.models(record.key)),
        "created_ns": record.created_ns,
        "started_ns": record.started_ns,
        "ended_ns": record.ended_ns,
    }


def _is(arm: dict[str, Any]) -> str:
    """The model of an arm, and by what name the file has it."""
    named = "" if arm["uri"] == arm["model"] else f" (in the file: {arm['uri']})"
    return f"{arm['model']}{named}"


def _weights(rollouts: Rollouts, record: RolloutRecord) -> str:
    _, weights = rollouts.in_force(record.key)
    return _shares(_object(rollouts, record)["arms"], weights.weights) if weights else ""


def _shares(arms: list[dict[str, str]], weights: Any) -> str:
    return ", ".join(f"{arm['name']} {weight:.4g}" for arm, weight in zip(arms, weights, strict=True))


def _time(ns: int) -> str | None:
    if not ns:
        return None
    return render.local_time(ns / 1e6) if render.on_terminal() else render.iso_time(ns // 10**6)


def _moment(text: str) -> int:
    """Nanoseconds since 1970 of a moment as people write it."""
    from datetime import datetime, timezone

    try:
        return int(float(text) * 1e9) if len(text.partition(".")[0]) < 15 else int(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidInput(f"{text!r} is no moment", hint="write 2026-05-01T12:00:00Z, or seconds since 1970") from None
    return int((found if found.tzinfo else found.astimezone(timezone.utc)).timestamp() * 1e9)


def need_statistics() -> None:
    """Say what to install where NumPy and SciPy are missing."""
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise MlcliError(
            "this needs NumPy and SciPy",
            hint="pip install 'mlcli[sklearn]'; `mlcli rollouts get NAME` shows state, weights and events without them",
        )
