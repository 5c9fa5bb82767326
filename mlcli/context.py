"""What a run's tags say about its origin: user, script or notebook, git commit; read from files, no program started."""

from __future__ import annotations

import os
import sys
from typing import Dict, Optional, Tuple

USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
GIT_COMMIT = "mlflow.source.git.commit"
GIT_BRANCH = "mlflow.source.git.branch"
GIT_REPO_URL = "mlflow.source.git.repoURL"
PARENT_RUN = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
NOTE = "mlflow.note.content"

_cached: Dict[Tuple[str, str], Dict[str, str]] = {}


def user() -> str:
    """The name of the one who runs this: LOGNAME, USER, USERNAME, else the system's name for the user id."""
    for variable in ("LOGNAME", "USER", "USERNAME"):
        if os.environ.get(variable):
            return os.environ[variable]
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # Windows; a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def default_tags() -> Dict[str, str]:
    """The tags of a run that a script or notebook starts by itself."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    key = (script, _folder() if script and not os.path.isabs(script) else "")
    found = _cached.get(key)
    if found is None:
        found = _cached[key] = _read_tags(script)
    return found


def _read_tags(script: str) -> Dict[str, str]:
    notebook = "ipykernel" in sys.modules
    tags = {USER: user(), SOURCE_NAME: script or "python", SOURCE_TYPE: "NOTEBOOK" if notebook else "LOCAL"}
    folder = "" if notebook or not os.path.isfile(script) else os.path.dirname(script)
    tags.update(git_tags(os.path.join(_folder(), folder)))
    return {name: value for name, value in tags.items() if value and len(value) < 1000 and value.isprintable()}


def _folder() -> str:
    """The current folder; "/" when it was deleted under us: no git work tree is around that."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


def git_tags(folder: str) -> Dict[str, str]:
    """Commit, branch and repository URL of the git work tree around ``folder``; empty outside of one."""
    git = _git_folder(folder)
    if git is None:
        return {}
    common = os.path.normpath(os.path.join(git, _first_line(os.path.join(git, "commondir")) or "."))
    head = _first_line(os.path.join(git, "HEAD")) or ""
    tags = {}
    if head.startswith("ref: "):
        reference = head[5:]
        commit = _first_line(os.path.join(common, reference)) or _packed(common, reference)
        if reference.startswith("refs/heads/"):
            tags[GIT_BRANCH] = reference[len("refs/heads/") :]
    else:
        commit = head
    if not commit:
        return {}
    url = _remote_url(os.path.join(common, "config"))
    return {GIT_COMMIT: commit, **tags, **({GIT_REPO_URL: url} if url else {})}


def _git_folder(folder: str) -> Optional[str]:
    while True:
        path = os.path.join(folder, ".git")
        if os.path.isdir(path):
            return path
        pointer = _first_line(path) or ""  # a linked work tree or submodule: .git is a file
        if pointer.startswith("gitdir: "):
            return os.path.join(folder, pointer[len("gitdir: ") :])
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _first_line(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return None


def _packed(common: str, reference: str) -> Optional[str]:
    try:
        with open(os.path.join(common, "packed-refs"), encoding="utf-8", errors="replace") as file:
            for line in file:
                commit, _, name = line.strip().partition(" ")
                if name == reference:
                    return commit
    except OSError:
        pass
    return None


def _remote_url(config: str) -> Optional[str]:
    """The URL of ``origin``, else of the first remote, without the credentials that may stand in it."""
    urls: Dict[str, str] = {}
    section = ""
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            for line in map(str.strip, file):
                if line.startswith("["):
                    section = line
                elif section.startswith("[remote ") and line.replace(" ", "").startswith("url="):
                    urls.setdefault(section[9:-2], line.partition("=")[2].strip())
    except OSError:
        return None
    url = urls.get("origin") or next(iter(urls.values()), None)
    scheme, separator, rest = (url or "").partition("://")
    if separator and "@" in rest.partition("/")[0]:
        return f"{scheme}://{rest.partition('@')[2]}"
    return url
