"""`mlcli run`: run an entry point of a project and record the run.

Stdout belongs to the program that is run; what mlcli says goes to stderr. With ``--json`` it is the other way round:
the program's stdout joins stderr, so that stdout is one JSON document, the recorded run.
"""

import os
import shlex
import sys
from typing import Annotated, Callable, Dict, List, Mapping, Optional, Tuple

import typer

from mlcli import runner
from mlcli.cli import completion, options, render
from mlcli.entities import RunStatus
from mlcli.errors import InvalidInput, MlcliError
from mlcli.projects.parameters import parse_given
from mlcli.store import store_root

# No `from __future__ import annotations` here: Typer would compile each of these texts again, 4 ms in all.
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

SHOWN = 10  # params and metrics in the summary, lines of the command
LONG_LINE = 400


@app.command()
def run(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT", help="A folder, git address, .zip or script; PROJECT#SUB is the folder SUB inside it."
        ),
    ] = ".",
    entry_point: Annotated[
        Optional[str],
        typer.Option(
            "-e",
            "--entry-point",
            metavar="NAME",
            help="Entry point, or a .py or .sh file. [default: main]",
            autocompletion=completion.entry_points,
        ),
    ] = None,
    version: Annotated[
        Optional[str],
        typer.Option("-v", "--version", metavar="REF", help="Branch, tag or commit of a git project."),
    ] = None,
    parameters: Annotated[
        Optional[List[str]],
        typer.Option(
            "-P",
            "--param-list",
            metavar="NAME=VALUE",
            help="A parameter; may be repeated.",
            autocompletion=completion.parameters,
        ),
    ] = None,
    docker_args: Annotated[
        Optional[List[str]],
        typer.Option("-A", "--docker-args", metavar="NAME[=VALUE]", help="An option for `docker run`."),
    ] = None,
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
    env_manager: Annotated[
        Optional[str],
        typer.Option(
            "--env-manager",
            metavar="NAME",
            help="virtualenv, uv, conda, docker or local. [default: docker for a docker_env, else virtualenv]",
        ),
    ] = None,
    run_name: Annotated[Optional[str], typer.Option("--run-name", metavar="NAME", help="A name for the run.")] = None,
    tags: Annotated[
        Optional[List[str]], typer.Option("--tag", metavar="KEY=VALUE", help="A tag for the run; may be repeated.")
    ] = None,
    storage_dir: Annotated[
        Optional[str],
        typer.Option(
            "--storage-dir",
            metavar="FOLDER",
            help="Keep here what is downloaded for parameters of type path. [default: a temporary folder]",
        ),
    ] = None,
    run_id: Annotated[
        Optional[str],
        typer.Option(
            "--run-id",
            metavar="RUN",
            help="Run again into this run, which has ended.",
            autocompletion=completion.run_ids,
        ),
    ] = None,
    strict_python: Annotated[
        bool, typer.Option("--strict-python", help="Exactly the Python that the project names, or none.")
    ] = False,
    submodules: Annotated[bool, typer.Option("--submodules", help="Fetch the submodules of a git project.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all and say what would be done; start nothing.")
    ] = False,
    backend: Annotated[str, typer.Option("-b", "--backend", metavar="NAME", help="Only local.")] = "local",
    backend_config: Annotated[
        Optional[str], typer.Option("-c", "--backend-config", metavar="FILE", help="Of no use to the local backend.")
    ] = None,
    build_image: Annotated[bool, typer.Option("--build-image", hidden=True)] = False,
    new_run_id: Annotated[Optional[str], typer.Option("--new-run-id", hidden=True)] = None,
    parent_run_id: Annotated[Optional[str], typer.Option("--parent-run-id", hidden=True)] = None,
    as_json: options.Json = False,
) -> None:
    """Run an entry point of a project and record the run.

    Exits with the program's own code, or 128 + the signal that ended it; 2 when the project or the options are wrong,
    5 when its environment cannot be built, 127 when its command is not there.
    """
    _check_backend(backend, backend_config, build_image=build_image)
    request = runner.Request(
        uri=uri,
        entry_point=entry_point,
        version=version,
        parameters=parse_given(parameters or []),
        experiment_name=experiment_name,
        experiment_id=experiment_id,
        run_name=run_name,
        tags=_tags(tags or []),
        env_manager=env_manager,
        storage_dir=storage_dir,
        docker_args=tuple(docker_args or ()),
        strict_python=strict_python,
        submodules=submodules,
        run_id=run_id,
        new_run_id=new_run_id,
        parent_run_id=parent_run_id,
    )
    plan = runner.plan(request, render.note)
    for problem in runner.problems(plan):
        render.warn(f"{problem.place}: {problem.message}" if problem.place else problem.message, problem.hint)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    born: List[str] = []
    try:
        outcome = runner.execute(plan, _listener(plan, born), stdout=2 if as_json else 1)
    except runner.Interrupted as interrupted:
        _not_started(RunStatus.KILLED, born)
        render.error(f"interrupted by {interrupted} before the program was started")
        raise typer.Exit(128 + interrupted.signum) from None
    except MlcliError:
        _not_started(RunStatus.FAILED, born)
        raise
    if as_json:
        render.emit_json(outcome.run.to_dictionary())
    _summary(outcome)
    raise typer.Exit(outcome.exit_code)


def _check_backend(backend: str, backend_config: Optional[str], *, build_image: bool) -> None:
    if backend != "local":
        raise InvalidInput(f"there is no backend `{backend}`", hint="mlcli runs projects on this machine: -b local")
    if backend_config is not None:
        render.note("the local backend has nothing to configure: --backend-config is not used")
    if build_image:
        raise InvalidInput("--build-image is not supported", hint="name a built image in the project's docker_env")


def _tags(items: List[str]) -> Dict[str, str]:
    result: Dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--tag wants KEY=VALUE, not `{item}`", hint="write --tag team=vision")
        if result.setdefault(key, value) != value:
            raise InvalidInput(f"the tag `{key}` is given twice", hint=f"keep one `--tag {key}=...`")
    return result


def _listener(plan: runner.Plan, born: List[str]) -> runner.Listener:
    def created(run_id: str, name: str, experiment: str) -> None:
        born.append(f"{name} ({run_id})")
        render.note(render.plain(f"run {name} ({run_id}) in experiment {experiment}"))
        for line in _command_lines(plan.command.text):
            render.note(render.styled(line, "dim", sys.stderr))

    return runner.Listener(progress=render.note, note=render.note, warn=render.warn, created=created)


def _command_lines(text: str) -> List[str]:
    """The command as one would type it, its first lines only."""
    lines = [render.cut(render.plain(line), LONG_LINE) for line in text.strip().splitlines()]
    shown = [f"{'  ' if number else '$ '}{line}" for number, line in enumerate(lines[:SHOWN])]
    return shown + ([f"  and {render.count(len(lines) - SHOWN, 'more line')}"] if len(lines) > SHOWN else [])


def _command_fields(text: str) -> List[Tuple[str, object]]:
    if not render.on_terminal():
        return [("command", text)]
    return [("" if number else "command", line[2:]) for number, line in enumerate(_command_lines(text))]


def _not_started(status: str, born: List[str]) -> None:
    """Say what is recorded of a run whose program never started."""
    for name in born:
        if render.on_terminal(sys.stderr):
            render.note("")  # a ^C stands on the line already
        mark = render.styled(render.status(status), render.status_style(status), sys.stderr)
        render.note(f"{mark} {render.plain(name)}")


# --- what would be done -------------------------------------------------------------------------------------------


def _show_plan(plan: runner.Plan, *, as_json: bool) -> None:
    environment = runner.preview(plan)
    source = plan.project.source
    kind, experiment = plan.experiment
    shown = {
        "project": plan.project.name,
        "source": source.uri,
        "version": source.commit,
        "entry_point": plan.entry.name,
        "command": plan.command.text,
        "cwd": plan.project.folder,
        "parameters": plan.command.parameters,
        "experiment": {kind: experiment},
        "store": store_root(plan.request.tracking_uri),
        "environment": environment._asdict(),
        "docker": list(runner.container(plan)) if environment.manager == "docker" else None,
        "notes": [*plan.command.notes, *environment.notes],
    }
    if as_json:
        render.emit_json(shown)
        return
    pairs: List[Tuple[str, object]] = [
        ("project", shown["project"]),
        ("source", shown["source"]),
        ("version", shown["version"]),
        ("entry point", shown["entry_point"]),
        ("environment", f"{environment.manager}, {environment.state}"),
        ("environment at", environment.place),
        ("python", f"{environment.python}: {environment.reason}" if environment.python else environment.reason),
        *((f"parameter {name}", value) for name, value in plan.command.parameters.items()),
        *_command_fields(plan.command.text),
        ("docker", shlex.join(runner.container(plan)) if environment.manager == "docker" else None),
        ("folder", shown["cwd"]),
        ("experiment", experiment if kind == "name" else f"id {experiment}"),
        ("store", shown["store"]),
    ]
    render.fields(pairs)
    for note in (*plan.command.notes, *environment.notes):
        render.note(note)
    render.note("nothing was started (--dry-run)")


# --- what was done ------------------------------------------------------------------------------------------------


def _summary(outcome: runner.Outcome) -> None:
    """Say on stderr how the run ended; a terminal gets what was recorded as well."""
    run = outcome.run
    seconds = outcome.end.seconds if outcome.end else 0.0
    status = render.styled(render.status(run.info.status), render.status_style(run.info.status), sys.stderr)
    words = f"{status} {render.plain(run.info.run_name)} ({run.info.run_id}) in {render.duration(seconds * 1000)}"
    reason = run.data.tags.get("mlcli.end_reason", "")
    if outcome.exit_code or reason:
        words += f": {render.plain(reason)}"
    if not render.on_terminal(sys.stderr):
        render.note(words)
        return
    lines = ["", words]
    for title, values, show in (
        ("params", run.data.params, str),
        ("metrics", run.data.metrics, render.number),
    ):
        lines += _table(title, values, show)
    count = len(runner.artifacts_of(run))
    lines.append(f"  artifacts  {render.count(count, 'file')} in {render.plain(_from_here(run.info.artifact_uri))}")
    short = run.info.run_id[:8]
    lines.append(f"  next       mlcli runs show {short}, mlcli artifacts list {short}, mlcli runs list")
    render.note("\n".join(lines))


def _from_here(path: str) -> str:
    """A path below the current folder as it is called from there; it is shorter."""
    try:
        inside = os.path.relpath(path)
    except OSError:  # the current folder is gone
        return path
    return path if inside.startswith(os.pardir) else inside


def _table(title: str, values: Mapping[str, object], show: Callable[..., str]) -> List[str]:
    pairs = list(values.items())
    if not pairs:
        return []
    space = max(render.width(render.plain(name)) for name, _ in pairs[:SHOWN])
    room = max(render.terminal_width() - space - 16, 20)
    lines = []
    for index, (name, value) in enumerate(pairs[:SHOWN]):
        head = title if index == 0 else ""
        text = render.cut(render.plain(show(value)), room)
        lines.append(f"  {head:9}  {render.plain(name):{space}}  {text}")
    if len(pairs) > SHOWN:
        lines.append(f"  {'':9}  and {len(pairs) - SHOWN} more")
    return lines
