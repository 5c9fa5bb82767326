"""`mlcli env`: the environments of projects: which there are, why they hold what they hold, and getting rid of them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mlcli import envs, projects
from mlcli.cli import options, render
from mlcli.config import env_root
from mlcli.envs import kept as kept_envs
from mlcli.errors import EnvError, InvalidInput, InvalidState, MlcliError, NotFound
from mlcli.projects.requirements import normalise

if TYPE_CHECKING:
    from mlcli.envs.kept import Kept
    from mlcli.projects import Project

app = options.group("List, explain, lock and remove the environments of projects.")

ProjectArgument = Annotated[str, typer.Argument(metavar="PROJECT", help="Folder or git URI of a project.")]
Manager = Annotated[
    Optional[str], typer.Option("--env-manager", help="virtualenv, uv, conda, docker or local.", metavar="NAME")
]
Version = Annotated[
    Optional[str], typer.Option("-v", "--version", metavar="REF", help="Branch, tag or commit of a git project.")
]


def _projects(names: Any) -> str:
    return ", ".join(os.path.basename(str(name).rstrip("/")) or str(name) for name in names) if names else ""


COLUMNS = (
    render.Column("key", "KEY", show=lambda key: str(key)[:8], style="bold", pipe=lambda key: str(key)[:32]),
    render.Column("manager", "MANAGER", optional=2),
    render.Column("python", "PYTHON"),
    render.Column("packages", "PACKAGES", right=True, optional=3),
    render.Column("size", "SIZE", show=render.size, right=True),
    render.Column("last_used", "USED", show=render.ago, optional=1, pipe=render.iso_time),
    render.Column("projects", "PROJECTS", show=_projects, least=12, pipe=lambda names: ",".join(map(str, names))),
    render.Column("problem", "PROBLEM", least=12, style="yellow", optional=4),
)


@app.command("ls")
def list_(as_json: options.Json = False) -> None:
    """List the environments that are kept, the last used first."""
    rows = [_row(kept) for kept in kept_envs.listed()]
    healthy = render.on_terminal() and all(row["problem"] is None for row in rows)
    columns = COLUMNS[:-1] if healthy else COLUMNS
    render.records(
        rows, columns, as_json=as_json, empty=f"No environments in {env_root()}; `mlcli run` builds them as needed."
    )


def _row(kept: Kept) -> dict[str, object]:
    state = kept.state
    return {
        "key": kept.place.key,
        "manager": None if state is None else state.manager,
        "python": None if state is None else state.version,
        "packages": None if state is None else state.packages,
        "size": kept.size(),
        "last_used": int(kept.last_used * 1000),
        "created": None if state is None else state.created,
        "projects": [] if state is None else list(state.projects),
        "path": kept.place.prefix,
        "problem": kept.illness,
    }


@app.command()
def why(
    project: ProjectArgument,
    package: Annotated[
        Optional[str], typer.Argument(metavar="PACKAGE", help="Why this one?", show_default=False)
    ] = None,
    version: Version = None,
    env_manager: Manager = None,
    as_json: options.Json = False,
) -> None:
    """Tell which line asks for each package, and why this Python.

    Which file and line asks for what is installed, which Python the project gets, and why it is that one.
    With PACKAGE: the lines that ask for it by name, and, once the environment is built, the packages that need it.
    Nothing is built or downloaded.
    """
    loaded = _load(project, version)
    spec = loaded.env
    preview = envs.preview(spec, env_manager)
    lines = (*spec.build_dependencies, *spec.dependencies, *spec.constraints)
    roles = ["build"] * len(spec.build_dependencies) + ["run"] * len(spec.dependencies) + ["constraint"] * len(lines)
    rows: list[dict[str, object]] = [
        {"requirement": item.text, "file": item.file, "line": item.line, "place": item.place, "role": role}
        for item, role in zip(lines, roles, strict=False)
    ]
    python = {
        "asked": spec.python,
        "file": spec.file,
        "line": spec.python_line,
        "version": preview.python,
        "path": preview.interpreter,
        "reason": preview.reason,
    }
    about: dict[str, object] = {
        "project": project,
        "manager": preview.manager,
        "place": preview.place,
        "built": preview.exists,
        "python": python,
        "untranslated": list(spec.untranslated),
        "notes": list(preview.notes),
    }
    if package is not None:
        _why_package(package, loaded, preview, about, as_json=as_json)
        return
    if as_json:
        render.emit_json({**about, "requirements": rows})
        return
    head = _head(preview, spec.file, spec.python, spec.python_line)
    if render.on_terminal():
        render.fields(head)
        render.heading("Requirements")
    else:  # the lines of a pipe are requirements, all of them
        for name, value in head:
            if value is not None:
                render.note(render.plain(f"{name}: {value}"))
    columns = (
        render.Column("requirement", "REQUIREMENT", style="bold", least=16),
        render.Column("role", "FOR", optional=1),
        render.Column("place", "ASKED FOR BY", least=12, keep_end=True),
    )
    render.records(rows, columns, empty="The project asks for no package.")
    for note in preview.notes:
        render.note(note)


def _head(preview: envs.Preview, file: str | None, asked: str | None, line: int | None) -> list[tuple[str, object]]:
    place = f" ({file}:{line})" if asked and line else ""
    built = f"{preview.manager}, {preview.state}"
    return [
        ("environment", built + (f": {preview.place}" if preview.place else "")),
        ("python", f"{preview.python}: {preview.reason}{place}" if preview.python else preview.reason),
        ("interpreter", preview.interpreter),
    ]


def _why_package(
    package: str, loaded: Project, preview: envs.Preview, about: dict[str, object], *, as_json: bool
) -> None:
    from mlcli.envs import why as reasons

    spec = loaded.env
    lines = (*spec.build_dependencies, *spec.dependencies)
    asked = reasons.direct(package, lines)
    limits = reasons.direct(package, spec.constraints)
    packages = reasons.installed(preview.place) if preview.exists and preview.place else {}
    found = packages.get(normalise(package))
    chains = reasons.chains(package, lines, packages)
    if not asked and not limits and not chains and found is None:
        more = "" if packages else "; what its packages need shows once it is built: mlcli run"
        raise NotFound(
            f"nothing in this project asks for {package}{more}", hint="mlcli env why PROJECT lists what it asks for"
        )
    if as_json:
        direct = [{"requirement": item.text, "file": item.file, "line": item.line} for item in (*asked, *limits)]
        version = None if found is None else found.version
        render.emit_json({**about, "package": package, "version": version, "asked_by": direct, "needed_by": chains})
        return
    rows = [{"why": "asked for", "what": item.text, "place": item.place} for item in asked]
    rows += [{"why": "limited", "what": item.text, "place": item.place} for item in limits]
    rows += [{"why": "needed", "what": " > ".join(chain), "place": _asker(chain[0], loaded)} for chain in chains]
    if found is not None:
        render.note(f"{found.name} {found.version} is installed")
    columns = (
        render.Column("why", "WHY"),
        render.Column("what", "WHAT", style="bold", least=16),
        render.Column("place", "ASKED FOR BY", keep_end=True, least=12),
    )
    render.records(rows, columns, empty=f"No line asks for {package}; it came with the environment.")


def _asker(name: str, loaded: Project) -> str:
    from mlcli.envs.why import direct

    return next((item.place for item in direct(name, (*loaded.env.build_dependencies, *loaded.env.dependencies))), "")


@app.command()
def lock(
    project: ProjectArgument,
    output: Annotated[
        Optional[str], typer.Option("-o", "--output", metavar="FILE", help="File to write; by default stdout.")
    ] = None,
    form: Annotated[
        Optional[str],
        typer.Option("--format", help="requirements, or pylock (pylock.toml, PEP 751).", metavar="FORMAT"),
    ] = None,
    version: Version = None,
    env_manager: Manager = None,
) -> None:
    """Write down exactly what is installed for a project.

    Its environment is built if need be.
    Without --format, the name of the file decides: pylock.toml or *.toml is a pylock, anything else requirement lines.
    """
    from mlcli.envs.lock import lock as exact

    loaded = _load(project, version)
    if form is None:
        form = "pylock" if output is not None and output.endswith(".toml") else "requirements"
    env = envs.ensure(loaded.env, env_manager, project=loaded.origin, progress=render.note)
    if env.manager == "docker":
        raise InvalidInput("a container's packages are locked by its image", hint="name the image by its digest")
    for note in env.notes:
        render.note(note)
    text = exact(loaded.env, env, form)
    if output is None or output == "-":
        sys.stdout.write(text)
        return
    try:
        with open(output, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise MlcliError(f"{output} cannot be written: {error.strerror}") from None
    render.success(
        f"wrote {output}: Python {env.version}, {render.count(len(envs.freeze(env).splitlines()), 'package')}"
    )


@app.command()
def rm(
    which: Annotated[str, typer.Argument(metavar="KEY|PROJECT", help="A key (its beginning), or a project.")],
) -> None:
    """Remove an environment by its key, or all of a project.

    One that is in use stays.
    """
    for kept in kept_envs.find(which, _origins(which)):
        size = kept.size()
        kept_envs.remove(kept)
        render.success(f"removed {kept.short} ({render.size(size)})")


def _origins(project: str) -> tuple[str, str]:
    """What environments may remember the project by (see `Project.origin`), even if it is no project any more."""
    base, hash_, subdir = project.partition("#")
    return os.path.join(os.path.realpath(base), subdir).rstrip(os.sep), f"{os.path.realpath(base)}{hash_}{subdir}"


@app.command()
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Not used for so long: 30d, 12h, 2w, 0.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove the environments that nobody used lately.

    What interrupted builds left behind goes, too. One that is in use stays.
    """
    limit = kept_envs.seconds(older_than)
    gone: list[dict[str, object]] = []
    for kept in kept_envs.listed():
        reason = kept_envs.stale(kept, limit)
        if reason is None:
            continue
        row = {**_row(kept), "reason": reason}
        try:
            if not dry_run:
                kept_envs.remove(kept)
        except InvalidState as error:
            render.note(error.message)
            continue
        except EnvError as error:
            render.warn(error.message, error.hint)
            continue
        gone.append(row)
    if not dry_run:
        kept_envs.sweep(limit)
    columns = (COLUMNS[0], COLUMNS[2], COLUMNS[4], COLUMNS[6], render.Column("reason", "REASON", least=12))
    render.records(gone, columns, as_json=as_json, empty="Nothing to remove.")
    if gone:
        total = render.size(sum(int(str(row["size"])) for row in gone))
        render.success(f"{'would remove' if dry_run else 'removed'} {render.count(len(gone), 'environment')}, {total}")


def _load(project: str, version: str | None) -> Project:
    loaded = projects.load(project, version)
    for problem in loaded.env.problems:
        if problem.level == "warning":
            render.warn(f"{problem.place}: {problem.message}", problem.hint)
    return loaded
