"""`mlcli artifacts`: the files of runs, listed, fetched and logged; how `models download` fetches too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mlcli.artifacts import LocalArtifacts, Skipped, locate, open_artifacts
from mlcli.cli import options, render
from mlcli.cli.portrait import tree
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlcli.entities import FileInfo
    from mlcli.store import Store

app = options.group("List, download and log the files of runs.")

Path = Annotated[
    Optional[str], typer.Option("-a", "--artifact-path", metavar="PATH", help="A file or folder among the artifacts.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there and differs.")]
Destination = Annotated[
    str, typer.Option("-d", "--dst-path", metavar="FOLDER", help="Where to put it; made if missing.")
]


@app.command("list")
def list_(
    run: options.RunArgument = None,
    run_id: options.RunOption = None,
    artifact_path: Path = None,
    as_json: options.Json = False,
) -> None:
    """List the artifacts of a run, with their sizes."""
    with open_store(create=False) as store:
        key = options.one_run(store, run, run_id)
        artifacts = open_artifacts(store.artifact_root(key))
    found = artifacts.walk(artifact_path or "")
    if render.on_terminal() and not as_json:
        for line in tree(found):
            render.emit(line)
        if not found:
            render.note(_nothing(key))
        else:
            total = render.size(sum(file.file_size or 0 for file in found))
            render.note(f"{render.count(len(found), 'file')}, {total}")
        return
    columns = [render.Column("path"), render.Column("file_size")]
    render.records([file._asdict() for file in found], columns, as_json=as_json, empty=_nothing(key))


def _nothing(run_id: str) -> str:
    return f"run {run_id[:8]} has no artifacts; `mlcli artifacts log-artifact -r {run_id[:8]} -l FILE` logs one"


@app.command()
def download(
    run: options.RunArgument = None,
    run_id: options.RunOption = None,
    artifact_path: Path = None,
    artifact_uri: Annotated[
        Optional[str], typer.Option("-u", "--artifact-uri", metavar="URI", help="runs:/RUN/PATH, instead of the run.")
    ] = None,
    dst_path: Destination = ".",
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Copy artifacts of a run to a folder.

    Prints where they are. Nothing is overwritten by something else unless --force says so; what appears is whole.
    """
    if run and run.startswith("runs:") and artifact_uri is None:
        run, artifact_uri = None, run
    if artifact_uri is not None:
        if run or run_id:
            raise InvalidInput("both a run and a URI are given: give one of them")
        artifacts, path = locate(artifact_uri)
        path = "/".join(part for part in (path, artifact_path) if part)
    else:
        with open_store(create=False) as store:
            artifacts = open_artifacts(store.artifact_root(options.one_run(store, run, run_id)))
        path = artifact_path or ""
    found = fetch(artifacts, path, dst_path, force=force)
    render.emit_json({"path": found}) if as_json else render.emit(found)


@app.command("log-artifact")
def log_artifact(
    local_file: Annotated[str, typer.Option("-l", "--local-file", metavar="FILE", help="The file to log.")],
    run: options.RunArgument = None,
    run_id: options.RunOption = None,
    artifact_path: Annotated[
        Optional[str], typer.Option("-a", "--artifact-path", metavar="FOLDER", help="The folder to log it into.")
    ] = None,
) -> None:
    """Log a file as an artifact of a run."""
    if os.path.isdir(local_file):
        raise InvalidInput(f"{local_file} is a folder", hint="`mlcli artifacts log-artifacts` logs what is in a folder")
    with open_store(create=False) as store:
        key, artifacts = _writable(store, run, run_id)
    artifacts.put(local_file, artifact_path or "")
    render.success(f"logged {os.path.basename(local_file)} to run {key[:8]}")


@app.command("log-artifacts")
def log_artifacts(
    local_dir: Annotated[str, typer.Option("-l", "--local-dir", metavar="FOLDER", help="The folder to log.")],
    run: options.RunArgument = None,
    run_id: options.RunOption = None,
    artifact_path: Annotated[
        Optional[str], typer.Option("-a", "--artifact-path", metavar="FOLDER", help="The folder to log it into.")
    ] = None,
) -> None:
    """Log all that is in a folder as artifacts of a run."""
    with open_store(create=False) as store:
        key, artifacts = _writable(store, run, run_id)
    artifacts.put_tree(local_dir, artifact_path or "", on_skip=_tell_skipped)
    render.success(f"logged {local_dir} to run {key[:8]}; `mlcli artifacts list {key[:8]}` shows what it has now")


def _writable(store: Store, run: str | None, run_id: str | None) -> tuple[str, LocalArtifacts]:
    found = store.get_run(options.one_run(store, run, run_id))
    if found.info.lifecycle_stage != "active":
        key = found.info.run_id
        raise InvalidState(f"run {key} is deleted", hint=f"`mlcli runs restore {key[:8]}` brings it back")
    return found.info.run_id, open_artifacts(found.info.artifact_uri, store=store.root)


def _tell_skipped(skipped: Skipped) -> None:
    render.warn(f"not copied: {skipped.path}: {skipped.why}")


# --- fetching -----------------------------------------------------------------------------------------------------


def fetch(
    artifacts: LocalArtifacts,
    path: str,
    folder: str,
    *,
    force: bool,
    check: Callable[[str], None] | None = None,
    name: str = "",
) -> str:
    """Copy an artifact into ``folder``, as ``name`` if one is given, and return where it is.

    Of the root all that is in it is copied; with a name it is copied as a folder of that name.

    The copy is made aside, checked, and renamed: under its name it is whole or not there at all. What is there already
    stays if it is the same; if not, it is replaced only by ``force``.
    """
    if path or name:
        return _fetch_one(artifacts, path, folder, force=force, check=check, name=name)
    entries = artifacts.list()
    if not entries:
        raise NotFound("the run has no artifacts")
    for entry in entries:
        _fetch_one(artifacts, entry.path, folder, force=force, check=check)
    return os.path.abspath(folder)


def _fetch_one(
    artifacts: LocalArtifacts,
    path: str,
    folder: str,
    *,
    force: bool,
    check: Callable[[str], None] | None,
    name: str = "",
) -> str:
    from tempfile import TemporaryDirectory

    target = os.path.join(os.path.abspath(folder), name or path.rpartition("/")[2])
    if not artifacts.has(path):
        raise NotFound(
            f"there is no artifact {path!r} in {artifacts.root}",
            hint=_near(artifacts, path) or "the run has no artifacts",
        )
    here = type(artifacts) is LocalArtifacts
    if here and os.path.realpath(target) == artifacts.path(path):
        return target
    if os.path.lexists(target):
        if _same(artifacts, path, target):
            render.note(f"{target} was there already, and is the same")
            return target
        if not force:
            raise AlreadyExists(
                f"{target} is there already, and differs", hint="choose another folder with -d, or say --force"
            )
    try:
        os.makedirs(folder, exist_ok=True)
        with TemporaryDirectory(prefix=".tmp-", dir=folder) as aside:
            copy = os.path.join(aside, "new")
            with render.progress(f"copying {path or name}") as tick:
                artifacts.get(path, copy, progress=tick, on_skip=_tell_skipped)
            if check is not None:
                check(copy)
            if os.path.lexists(target):
                os.rename(target, os.path.join(aside, "old"))
            os.rename(copy, target)
    except FileExistsError:
        raise InvalidInput(f"{folder} is not a folder") from None
    return target


def _near(artifacts: LocalArtifacts, path: str) -> str:
    """What there is instead of the path, in a few words."""
    from mlcli.cli.boundary import did_you_mean

    entries = [file.path for file in artifacts.walk()]
    folders = {file.rpartition("/")[0] for file in entries} - {""}
    near = did_you_mean(path, [*entries, *folders])
    return near or (f"there are: {', '.join(sorted(file.path for file in artifacts.list())[:8])}" if entries else "")


def _same(artifacts: LocalArtifacts, path: str, target: str) -> bool:
    """Whether the file or folder at ``target`` holds what the artifact holds, and nothing else."""
    import filecmp

    source = artifacts.path(path)
    if os.path.islink(target) or os.path.isdir(source) != os.path.isdir(target):
        return False
    if not os.path.isdir(source):
        return filecmp.cmp(source, target, shallow=False)
    names = {file.path: file for file in artifacts.walk(path)}
    there = {
        os.path.relpath(os.path.join(parent, name), target).replace(os.sep, "/")
        for parent, _, files in os.walk(target)
        for name in files
    }
    relative = {name[len(path) :].lstrip("/"): file for name, file in names.items()}
    return there == set(relative) and all(
        _same_file(artifacts, file, os.path.join(target, *name.split("/"))) for name, file in relative.items()
    )


def _same_file(artifacts: LocalArtifacts, file: FileInfo, target: str) -> bool:
    import filecmp

    return not os.path.islink(target) and filecmp.cmp(artifacts.path(file.path), target, shallow=False)
