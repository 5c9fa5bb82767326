"""A project: where it is, what its MLproject says, what it needs installed, and which of its commands is meant."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.errors import ProjectError
from mlcli.projects import mlproject, source
from mlcli.projects.envfile import EnvSpec, read_env
from mlcli.projects.mlproject import EntryPoint
from mlcli.projects.problem import WARNING, Problem, listing, raise_first, similar
from mlcli.projects.requirements import redact
from mlcli.projects.template import compile_command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlcli.projects.source import Source
    from mlcli.projects.template import Command
    from mlcli.projects.yamlfile import Document

FILE = "MLproject"
# Where projects keep their MLproject when it is not at the top, most common first; looked through for suggestions.
LIKELY_FOLDERS = ("MLProject", "MLproject", "mlproject", "src", "mlflow", "project", "train", "training", "ml", "app")
_NO_ENTRY_POINT = re.compile(r"(setup|conftest|__init__|__main__|noxfile|test_.*|.*_test)\.py")


class Project(NamedTuple):
    """A project ready to be asked for commands; ``problems`` are worth telling, none of them stops every run.

    What is wrong with the environment is in ``env.problems``: it does not matter to who brings their own.
    """

    name: str
    folder: str
    file: str | None
    source: Source
    entry_points: dict[str, EntryPoint]
    env: EnvSpec
    problems: tuple[Problem, ...] = ()

    @property
    def fetched(self) -> bool:
        """Tell whether it lies in the cache: it came from elsewhere, or is another version than the one that lies there."""
        return os.path.realpath(self.folder).startswith(os.path.realpath(config.cache_root()) + os.sep)

    @property
    def origin(self) -> str:
        """What tells it from every other project: its folder, or the address that it was fetched from."""
        if not self.fetched:
            return os.path.realpath(self.folder)
        base, hash_, subdir = self.source.uri.partition("#")
        return redact(f"{os.path.realpath(base) if os.path.exists(base) else base}{hash_}{subdir}")


def load(
    uri: str,
    version: str | None = None,
    *,
    submodules: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Project:
    """Find and read a project; raises ProjectError for what stops every run of it."""
    project = read(source.locate(uri, version, submodules=submodules, progress=progress))
    raise_first(problem for problem in project.problems if problem.code not in mlproject.LATER)
    return project


def read(found: Source) -> Project:
    """Read the project at ``found`` with all its problems, errors among them; raises only where nothing can be read."""
    folder = found.folder
    name = os.path.basename(folder)
    file, problems = find_file(folder)
    if file is None:
        return Project(name, folder, None, found, {}, _placed(read_env(folder)), problems)
    read_file = mlproject.read(file)
    env = _placed(
        read_env(folder, kind=read_file.env_kind, file=read_file.env_file, docker=read_file.docker), read_file.document
    )
    return Project(
        read_file.name or name, folder, file, found, read_file.entry_points, env, (*problems, *read_file.problems)
    )


def _placed(env: EnvSpec, document: Document | None = None) -> EnvSpec:
    """With problems whose files are seen from the current folder; a file that is not there is missed where it is named."""
    problems = []
    for problem in env.problems:
        if problem.code == "missing-env-file" and document is not None:
            named = document.data if isinstance(document.data, dict) else {}
            key = next((key for key in ("python_env", "conda_env") if named.get(key) is not None), None)
            if key is not None:
                line, column = document.mark(key)
                problems.append(problem._replace(file=document.file, line=line, column=column))
                continue
        file = problem.file and mlproject.shown(os.path.join(env.folder, problem.file))
        problems.append(problem._replace(file=file))
    return env._replace(problems=tuple(problems))


def find_file(folder: str) -> tuple[str | None, tuple[Problem, ...]]:
    """Find the MLproject file of a folder, in any case; ``MLproject.yaml``, which MLflow overlooks, with a warning."""
    try:
        files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise ProjectError(f"the folder cannot be read: {error.strerror}", file=folder) from None
    exact = [name for name in files if name.lower() == FILE.lower()]
    if len(exact) > 1:
        raise ProjectError(
            f"{listing(exact)} differ only in case, and MLflow takes either", file=folder, hint="keep one of them"
        )
    if exact:
        return os.path.join(folder, exact[0]), ()
    other = [name for name in files if name.lower() in ("mlproject.yaml", "mlproject.yml")]
    if not other:
        return None, ()
    path = os.path.join(folder, other[0])
    message = f"`{other[0]}` is read as the MLproject file; MLflow does not find it under this name"
    return path, (Problem(WARNING, "file-name", message, mlproject.shown(path), hint=f"rename it to {FILE}"),)


# --- which command


def entry_point(project: Project, name: str | None = None) -> EntryPoint:
    """The entry point of this name, a script of this name, or the one that can only be meant when no name is given."""
    if name is None and project.source.script is not None:
        return _script(project, project.source.script)
    declared = project.entry_points.get(name or "main")
    if declared is None and name is None:
        return _only_one(project)
    if declared is None and name is not None and name.endswith(source.SCRIPTS):
        return _script(project, name)
    if declared is None:
        raise _no_entry_point(project, name or "main")
    if not declared.command:
        raise_first(p for p in project.problems if p.code == "no-command" and f"`{declared.name}`" in p.message)
    return declared


def command(
    project: Project,
    entry: EntryPoint,
    parameters: Mapping[str, str],
    *,
    storage_dir: str | None = None,
) -> Command:
    """Check the parameters and make the command; starts and writes nothing.

    What it says is to be downloaded must be fetched before the command can run.
    """
    file = mlproject.shown(project.file) if project.file else None
    return compile_command(entry, parameters, project.folder, file=file, storage_dir=storage_dir)


def _script(project: Project, name: str, note: str = "") -> EntryPoint:
    if not os.path.isfile(os.path.join(project.folder, name)):
        known = [*project.entry_points, *scripts(project.folder)]
        meant = similar(name, known)
        hint = f"did you mean `{meant}`?" if meant else _choices(project)
        raise ProjectError(f"no script `{name}` in {project.folder}", hint=hint)
    # As a word of its own: a name that begins with a dash is no option.
    word = shlex.quote(f"./{name}" if name.startswith("-") else name).replace("{", "{{").replace("}", "}}")
    # MLflow takes $SHELL for .sh files; they are written for bash, whatever shell a person types into.
    program = {".py": "python", ".sh": "bash", ".R": "Rscript"}[os.path.splitext(name)[1]]
    return EntryPoint(name, f"{program} {word}", {}, None, name, note)


def scripts(folder: str) -> list[str]:
    """The scripts at the top of a folder that may be meant to be run."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.name.endswith(source.SCRIPTS) and not _NO_ENTRY_POINT.fullmatch(entry.name) and entry.is_file()
    )


def _only_one(project: Project) -> EntryPoint:
    if len(project.entry_points) == 1:
        only = next(iter(project.entry_points.values()))
        if only.command:
            return only._replace(note=f"there is no entry point `main`; `{only.name}` is the only one")
        return entry_point(project, only.name)
    if project.entry_points or _misspelt_key(project):
        raise _no_entry_point(project, "main")
    found = scripts(project.folder)
    if len(found) == 1:
        lacks = f"no {FILE} file" if project.file is None else "no entry point"
        return _script(project, found[0], f"{lacks} here; `{found[0]}` is the only script")
    raise _no_entry_point(project, "main")


def _misspelt_key(project: Project) -> Problem | None:
    wanted = "did you mean `entry_points`?"
    return next((p for p in project.problems if p.code == "unknown-key" and p.hint == wanted), None)


def _no_entry_point(project: Project, name: str) -> ProjectError:
    misspelt = _misspelt_key(project)
    if misspelt is not None:
        key = misspelt.message.split("`")[1]
        return ProjectError(
            f"there are no entry points: line {misspelt.line} has `{key}`, did you mean `entry_points`?",
            file=misspelt.file,
            line=misspelt.line,
            column=misspelt.column,
            hint=f"rename `{key}` to `entry_points`",
        )
    if project.file is None:
        elsewhere = suggestions(project.folder)
        hint = f"there is one in {listing(elsewhere)}: mlcli run {_shown(project, elsewhere[0])}" if elsewhere else ""
        return ProjectError(f"no {FILE} file in {project.folder}", hint=hint or _choices(project))
    meant = similar(name, project.entry_points)
    hint = f"did you mean `{meant}`?" if meant else _choices(project)
    return ProjectError(f"there is no entry point `{name}`", file=mlproject.shown(project.file), hint=hint)


def _shown(project: Project, folder: str) -> str:
    typed = project.source.uri.partition("#")[0]
    below = f"{project.source.subdir}/{folder}" if project.source.subdir else folder
    return shlex.quote(f"{typed}#{below}")


def _choices(project: Project) -> str:
    found = scripts(project.folder)
    if project.entry_points:
        return f"choose one with -e: {listing(list(project.entry_points))}"
    if found:
        return f"choose a script with -e: {listing(found[:8])}"
    return f"a project is a folder with an {FILE} file, or with a .py or .sh script"


def suggestions(folder: str) -> list[str]:
    """The folders just below that hold an MLproject file, likely ones first."""
    result = []
    for entry in sorted(os.scandir(folder), key=lambda e: (e.name not in LIKELY_FOLDERS, e.name)):
        if not entry.name.startswith(".") and entry.is_dir():
            try:
                names = [name.lower() for name in os.listdir(entry.path)]
            except OSError:
                continue
            if any(name in ("mlproject", "mlproject.yaml", "mlproject.yml") for name in names):
                result.append(entry.name)
    return result[:8]
