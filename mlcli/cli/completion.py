"""What the Tab key offers: commands and options by Typer, ids of runs and names of experiments from the store."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from mlcli.cli import COMMANDS, EXIT_USAGE, MODULES, render
from mlcli.errors import MlcliError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.projects import Project

OFFERED = 200
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


class LazyGroup(TyperGroup):
    """All commands as one Typer group; a command's module is imported when the line has reached it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if ctx.args or ctx._protected_args:  # noqa: SLF001 - click has no other way to ask whether a command is named
            return get_command(import_module(f"mlcli.cli.{MODULES.get(cmd_name, cmd_name)}").app)
        return typer.core.TyperCommand(cmd_name, help=COMMANDS[cmd_name])


def _root() -> Any:
    app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def mlcli(
        quiet: bool = typer.Option(False, "-q", "--quiet"),
        verbose: bool = typer.Option(False, "-v", "--verbose"),
        debug: bool = typer.Option(False, "--debug"),
        version: bool = typer.Option(False, "--version"),
    ) -> None:
        """The root of the command line, as the shell sees it."""

    return get_command(app)


def answer() -> int:
    """Answer the shell, which asks through variables; never with an error, whatever the line looks like."""
    try:
        _root().main(prog_name="mlcli", complete_var="_MLCLI_COMPLETE")
    except (MlcliError, OSError):
        return 0
    return 0


def set_up(option: str, rest: Sequence[str]) -> int:
    """Do what ``--install-completion [SHELL]`` or ``--show-completion [SHELL]`` asks for."""
    # Typer keeps both private; its own options for them cannot take the shell's name where it can guess one.
    from typer._completion_shared import get_completion_script, install

    shell = rest[0] if rest else _current_shell()
    if shell not in SHELLS:
        render.error(
            f"there is no completion for the shell {shell!r}" if shell else "this shell was not recognised",
            f"name one of {', '.join(SHELLS)}: mlcli {option} {SHELLS[0]}",
        )
        return EXIT_USAGE
    if option == "--show-completion":
        render.emit(get_completion_script(prog_name="mlcli", complete_var="_MLCLI_COMPLETE", shell=shell))
    else:
        _, path = install(shell=shell, prog_name="mlcli", complete_var="_MLCLI_COMPLETE")
        render.success(f"wrote {path}; the Tab key knows mlcli in the next {shell} that starts")
    return 0


def _current_shell() -> str:
    shellingham: Any = import_module("shellingham")  # Typer's own way to tell; it has no annotations
    try:
        return str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        return ""


def run_ids(incomplete: str) -> list[tuple[str, str]]:
    """The newest runs whose id begins so, each with its name and status."""
    from mlcli.store import open_store

    try:
        with open_store(create=False) as store:
            runs = store.search_runs(max_results=OFFERED if not incomplete else 10_000, order_by=["start_time DESC"])
    except (MlcliError, OSError):
        return []
    found = [
        (run.info.run_id, f"{run.info.run_name}, {run.info.status}")
        for run in runs
        if run.info.run_id.startswith(incomplete)
    ]
    words = [(word, "the newest run") for word in ("latest",) if incomplete and word.startswith(incomplete)]
    return words + found[:OFFERED]


def experiment_names(incomplete: str) -> list[str]:
    """The names of the active experiments that begin so."""
    from mlcli.store import open_store

    try:
        with open_store(create=False) as store:
            names = [experiment.name for experiment in store.search_experiments()]
    except (MlcliError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)][:OFFERED]


def model_names(incomplete: str) -> list[tuple[str, str]]:
    """The names of the registered models that begin so."""
    from mlcli.store import open_store

    try:
        with open_store(create=False) as store:
            found = store.search_registered_models(max_results=1000)
    except (MlcliError, OSError):
        return []
    return [(model.name, model.description) for model in found if model.name.startswith(incomplete)][:OFFERED]


def models(incomplete: str) -> list[tuple[str, str]]:
    """Names of models; behind ``wine/`` its versions, behind ``wine@`` its aliases, behind ``wine`` both.

    bash takes an @ for the end of a word, so what stands behind one there cannot be completed.
    """
    from mlcli.filters import quoted
    from mlcli.store import open_store

    before = "models:/" if incomplete.startswith("models:/") else ""
    text = incomplete[len(before) :]
    name = text.partition("@" if "@" in text else "/")[0]
    names = model_names(text)
    if name == text and name not in [known for known, _ in names]:
        return [(before + known, about) for known, about in names]
    try:
        with open_store(create=False) as store:
            found = store.search_model_versions(f"name = {quoted(name)}", OFFERED, ["version_number DESC"])
    except (MlcliError, OSError):
        return []
    offered = [
        *names,
        *((f"{name}@{alias}", f"version {version.version}") for version in found for alias in version.aliases),
        *((f"{name}/{version.version}", ", ".join(version.aliases)) for version in found),
    ]
    return [(before + word, about) for word, about in offered if word.startswith(text)]


def entry_points(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The entry points of the project on the line, each with its command."""
    project = _project(ctx)
    if project is None:
        return []
    return [(name, entry.command) for name, entry in project.entry_points.items() if name.startswith(incomplete)]


def parameters(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What may be given with ``-P``: the parameters of the entry point on the line that are not given yet."""
    from mlcli.projects import entry_point

    project = _project(ctx)
    if project is None:
        return []
    try:
        entry = entry_point(project, ctx.params.get("entry_point"))
    except MlcliError:
        return []
    given = {str(pair).partition("=")[0] for pair in ctx.params.get("parameters") or ()}
    return [
        (f"{name}=", f"{parameter.type}, {'required' if parameter.required else f'default {parameter.default}'}")
        for name, parameter in entry.parameters.items()
        if name.startswith(incomplete) and name not in given
    ]


def _project(ctx: typer.Context) -> Project | None:
    """The project on the line if it lies on this machine: the Tab key fetches nothing."""
    from mlcli.projects import load

    # Behind an option that still waits for its value the arguments are not parsed: they are left over.
    uri = str(next(iter(ctx.args), None) or ctx.params.get("uri") or ".")
    if not os.path.isdir(uri.partition("#")[0]):
        return None
    try:
        return load(uri)
    except MlcliError:
        return None
