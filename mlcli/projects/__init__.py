"""Projects: an MLproject file and an environment file plus parameters become a command; nothing of theirs is run.

    project = load("https://github.com/me/model#train", version="v1.2")
    entry = entry_point(project, "main")
    command(project, entry, {"alpha": "0.5"}).argv

The names are imported when they are first used: scripts of any Python call ``run``, which needs none of the reading.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # for editors and type checkers; a test holds this list and the table equal
    from mlcli.projects.docker import DockerSpec as DockerSpec
    from mlcli.projects.lint import check as check
    from mlcli.projects.mlproject import EntryPoint as EntryPoint
    from mlcli.projects.mlproject import Parameter as Parameter
    from mlcli.projects.problem import Problem as Problem
    from mlcli.projects.project import Project as Project
    from mlcli.projects.project import command as command
    from mlcli.projects.project import entry_point as entry_point
    from mlcli.projects.project import load as load
    from mlcli.projects.source import Source as Source
    from mlcli.projects.template import Command as Command
    from mlcli.submit import SubmittedRun as SubmittedRun
    from mlcli.submit import run as run

_NAMES = {
    "mlcli.projects.docker": "DockerSpec",
    "mlcli.projects.lint": "check",
    "mlcli.projects.mlproject": "EntryPoint Parameter",
    "mlcli.projects.problem": "Problem",
    "mlcli.projects.project": "Project command entry_point load",
    "mlcli.projects.source": "Source",
    "mlcli.projects.template": "Command",
    "mlcli.submit": "SubmittedRun run",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
