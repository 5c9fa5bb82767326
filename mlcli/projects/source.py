"""Where a project comes from: a folder, a script, a git repository at some version, a zip file.

mlcli run .                                   a folder, used in place
mlcli run folder#sub/folder                   a folder below it
mlcli run train.py                            a script; its folder is the project
mlcli run folder -v v1.2                      that version of the folder's own repository, in the cache
mlcli run https://host/repo#sub -v v1.2       a repository: https, ssh, git@host:path, file, .../tree/<version>/<path>
mlcli run project.zip                         a zip file, here or at an https address
"""

from __future__ import annotations

import os
import re
import stat
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.errors import ProjectError
from mlcli.projects import git
from mlcli.projects.download import into

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable

SCRIPTS = (".py", ".sh", ".R")
MAX_UNPACKED = 4 * 1024**3
MAX_DOWNLOAD = 1024**3
MAX_FILES = 50_000
MAX_RATIO = 200  # unpacked bytes for each packed one, where there is more than MIN_SUSPECT
MIN_SUSPECT = 64 * 1024**2

_TREE_URL = re.compile(r"(https?://[^/]+/[^#?]+?)(?:\.git)?/(?:-/)?tree/([^#?]+)")
_SCP = re.compile(r"(?:[\w.+-]+@)[\w.-]+:(?!//)\S+|[\w-]+\.[\w.-]+:(?!//)\S+")
_ZIP_URL = re.compile(r"https?://[^?#]+\.zip")


class Source(NamedTuple):
    """Where a project was found; ``folder`` is where its commands run, ``script`` the file that was named itself."""

    uri: str
    folder: str
    subdir: str = ""
    commit: str | None = None
    branch: str | None = None
    repo_url: str | None = None
    dirty: bool | None = None
    root: str | None = None
    version: str | None = None
    script: str | None = None


def locate(
    uri: str,
    version: str | None = None,
    *,
    submodules: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Source:
    """Find the project that ``uri`` names; fetch or unpack it into the cache if it is not here."""
    typed = uri
    uri = uri.strip()
    if len(uri) > 1 and uri[0] == uri[-1] and uri[0] in "'\"":
        uri = uri[1:-1]
    if not uri or re.search(r"[\x00-\x1f\x7f]", uri) or uri.startswith("-"):
        raise ProjectError(f"{typed!r} is not a project", hint="give a folder, a git address or a .zip file")
    version = version or None
    whole_exists = os.path.exists(uri)
    base, subdir = (uri, "") if whole_exists else _split(uri)
    if base.startswith("file:"):
        base = _file_path(base)
    if os.path.isdir(base) and not git.is_bare(base):
        return _local(typed, base, subdir, version, submodules=submodules)
    if os.path.isfile(base) and not base.lower().endswith(".zip"):
        return _file(typed, base, version, submodules=submodules)
    if base.lower().endswith(".zip") and (os.path.isfile(base) or _ZIP_URL.fullmatch(base)):
        if version is not None:
            raise ProjectError("a zip file has no versions", hint="leave --version out")
        unpacked = _unzipped(base, progress)
        folder = _only_folder(unpacked)
        if subdir and not os.path.isdir(os.path.join(folder, subdir)) and os.path.isdir(os.path.join(unpacked, subdir)):
            folder = unpacked  # `#` counts from the top of the archive, as in MLflow, or from its only folder
        return Source(typed, _below(folder, subdir, typed), subdir)
    return _remote(typed, base, subdir, version, submodules=submodules, progress=progress)


def _split(uri: str) -> tuple[str, str]:
    base, _, subdir = uri.partition("#")
    return base or ".", subdir.strip("'\"")


def _file_path(uri: str) -> str:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ProjectError(f"`{uri}` names another machine", hint="a folder of this one is file:///absolute/path")
    return url2pathname(parts.path)


def _below(folder: str, subdir: str, uri: str) -> str:
    """The folder ``subdir`` of ``folder``, never one outside of it."""
    if not subdir:
        return folder
    target = os.path.normpath(os.path.join(folder, subdir))
    if (
        os.path.isabs(subdir)
        or not _within(folder, target)
        or not _within(os.path.realpath(folder), os.path.realpath(target))
    ):
        raise ProjectError(
            f"`{subdir}` is not a folder inside the project", hint=f"`{uri}`: what follows # stays below it"
        )
    if not os.path.isdir(target):
        raise ProjectError(
            f"no folder `{subdir}` in the project", hint=_near(target, folder) or f"`{uri}`: see what follows #"
        )
    return target


def _within(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _local(uri: str, base: str, subdir: str, version: str | None, *, submodules: bool) -> Source:
    base = os.path.abspath(base)
    folder = _below(base, subdir, uri)
    if version is None:
        state = git.state(folder)
        if state is None:
            return Source(uri, folder, subdir)
        return Source(uri, folder, subdir, state.commit, state.branch, state.repo_url, state.dirty, state.root)
    found = git.work_tree(folder)
    if found is None:
        raise ProjectError(f"{folder} is in no git repository and has no versions", hint="leave --version out")
    root, git_dir = found
    checkout = git.checkout_local(root, git_dir, version, submodules=submodules)
    inside = os.path.relpath(os.path.realpath(folder), os.path.realpath(root))
    there = os.path.normpath(os.path.join(checkout.folder, inside))
    if not os.path.isdir(there):
        raise ProjectError(f"version `{version}` of {root} has no folder {inside}")
    url = checkout.repo_url if checkout.repo_url != root else None
    return Source(uri, there, subdir, checkout.commit, checkout.branch, url, False, checkout.folder, version)


def _file(uri: str, path: str, version: str | None, *, submodules: bool) -> Source:
    folder, name = os.path.split(os.path.abspath(path))
    if name.lower() in ("mlproject", "mlproject.yaml", "mlproject.yml"):
        return _local(uri, folder, "", version, submodules=submodules)
    if not name.endswith(SCRIPTS):
        raise ProjectError(
            f"`{path}` is a file, and no script", hint=f"give a folder, a .zip file or a script ({', '.join(SCRIPTS)})"
        )
    return _local(uri, folder, "", version, submodules=submodules)._replace(script=name)


def _remote(
    uri: str,
    base: str,
    subdir: str,
    version: str | None,
    *,
    submodules: bool,
    progress: Callable[[str], None] | None,
) -> Source:
    if re.match(r"git\+\w+://", base):  # as pip writes it
        base = base[len("git+") :]
    path = ""
    tree = _TREE_URL.fullmatch(base.rstrip("/"))
    if tree:
        base, path = f"{tree.group(1)}.git" if "github.com/" in base else tree.group(1), tree.group(2)
        if version is not None and (path != version and not path.startswith(f"{version}/")):
            raise ProjectError(f"the address names the version `{path}`, and --version `{version}`", hint="give one")
        if version is not None:
            subdir, path = path[len(version) + 1 :] or subdir, ""
    if os.path.isdir(base):  # a bare repository of this machine
        base = os.path.abspath(base)
    elif "://" not in base and not _SCP.fullmatch(base) and "::" not in base:
        raise _not_there(base)
    else:
        git.check_url(base)
    checkout = git.checkout(
        base if "://" in base or not os.path.isabs(base) else f"file://{base}",
        version,
        path=path,
        submodules=submodules,
        progress=progress,
    )
    subdir = subdir or checkout.subdir
    folder = _below(checkout.folder, subdir, uri)
    return Source(
        git.strip_credentials(uri),
        folder,
        subdir,
        checkout.commit,
        checkout.branch,
        checkout.repo_url,
        False,
        checkout.folder,
        version or (path[: len(path) - len(subdir)].strip("/") if path else None),
    )


def _not_there(path: str) -> ProjectError:
    if re.match(r"(www\.)?(github|gitlab|bitbucket)\.\w+/", path):
        return ProjectError(f"no such folder: {path}", hint=f"for the repository write https://{path}")
    what = "file" if path.endswith((*SCRIPTS, ".zip")) else "folder"
    return ProjectError(f"no such {what}: {path}", hint=_near(path) or f"the current folder is {_here()}")


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "gone"


def _near(path: str, root: str = "") -> str:
    """Which entries of the nearest existing folder resemble the first part of ``path`` that does not exist.

    They are named as seen from ``root``, if there is one.
    """
    path = os.path.normpath(path)
    missing = path
    while os.path.dirname(missing) not in ("", missing) and not os.path.isdir(os.path.dirname(missing)):
        missing = os.path.dirname(missing)
    parent, name = os.path.split(missing)
    try:
        names = sorted(os.listdir(parent or "."))
    except OSError:
        return ""
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    near = near or [found for found in names if found.lower() == name.lower()]
    full = [os.path.join(parent, found) for found in near]
    shown = [os.path.relpath(found, root) for found in full] if root else full
    return f"did you mean {' or '.join(shown)}?" if near else ""


# --- zip files


def _unzipped(uri: str, progress: Callable[[str], None] | None) -> str:
    import tempfile

    if os.path.isfile(uri):
        return _unpacked(uri, uri)
    os.makedirs(config.cache_root(), mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=config.cache_root(), suffix=".zip") as download:
        if progress:
            progress(f"downloading {git.strip_credentials(uri)}")
        into(download, uri, limit=MAX_DOWNLOAD)
        download.flush()
        return _unpacked(download.name, git.strip_credentials(uri))


def _unpacked(path: str, name: str) -> str:
    return git.cached_tree(_digest(path), lambda target: _unzip(path, name, target))


def _digest(path: str) -> str:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:20]


def _unzip(path: str, name: str, target: str) -> None:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, name)
            os.makedirs(target)
            left = MAX_UNPACKED
            for member in archive.infolist():
                left -= _extract(archive, member, target, left, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, UnicodeDecodeError) as error:
        raise ProjectError(f"not a zip file that can be read: {error}", file=name) from None


def _check_members(archive: zipfile.ZipFile, name: str) -> None:
    members = archive.infolist()
    unpacked, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if len(members) > MAX_FILES or unpacked > MAX_UNPACKED or unpacked > max(MIN_SUSPECT, packed * MAX_RATIO):
        raise ProjectError(
            f"unpacks to {len(members):,} files and {unpacked:,} bytes, which no project needs", file=name
        )
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        parts = member.filename.rstrip("/").split("/")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ProjectError(f"holds `{member.filename}`, which is neither file nor folder", file=name)
        if re.search(r"[\x00-\x1f\\]|^\w:", member.filename) or any(part in ("", ".", "..") for part in parts):
            raise ProjectError(f"holds `{member.filename!r}`, which would leave its folder", file=name)
        if member.flag_bits & 1:
            raise ProjectError("is encrypted", file=name, hint="unpack it and give the folder")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: str, left: int, name: str) -> int:
    """Write one member; count what really comes out, whatever the header says."""
    path = os.path.join(target, *member.filename.rstrip("/").split("/"))
    try:
        if member.is_dir():
            os.makedirs(path, exist_ok=True)
            return 0
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = 0
        with archive.open(member) as source, open(path, "xb") as file:
            while chunk := source.read(1 << 20):
                size += len(chunk)
                if size > left or size > member.file_size:
                    raise ProjectError(f"`{member.filename}` unpacks to more than it says", file=name)
                file.write(chunk)
    except (FileExistsError, NotADirectoryError):
        raise ProjectError(f"holds `{member.filename}` twice", file=name) from None
    if (member.external_attr >> 16) & stat.S_IXUSR:
        os.chmod(path, stat.S_IRWXU)
    return size


def _only_folder(folder: str) -> str:
    """The single folder inside, as the zip files of GitHub have one; else ``folder`` itself."""
    entries = [entry for entry in os.listdir(folder) if entry not in ("__MACOSX", ".DS_Store")]
    inside = os.path.join(folder, entries[0]) if len(entries) == 1 else folder
    return inside if os.path.isdir(inside) else folder
