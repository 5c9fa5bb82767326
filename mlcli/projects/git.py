"""Git, as far as projects need it: what a work tree is at, and work trees of any version of any repository, cached.

Remote repositories are kept as bare mirrors in ``<cache>/git``, checked out versions in ``<cache>/projects``; the
user's own work tree is read and never touched. No hook runs, no option can be smuggled in by a URL or a version.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.errors import ProjectError
from mlcli.locks import locked

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

KEEP_DAYS = 30
MAX_DIFF = 10 * 1024 * 1024
MAX_UNTRACKED = 200

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SHORT_SHA = re.compile(r"[0-9a-f]{4,64}")
_CREDENTIALS = re.compile(r"(?i)(https?://)[^/@\s]*@")
_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "protocol.fd.allow=never"),
    *("-c", "core.fsmonitor=false", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"),
)


class State(NamedTuple):
    """What a work tree is at; ``dirty`` is None where git could not tell."""

    root: str
    commit: str | None
    branch: str | None
    repo_url: str | None
    dirty: bool | None


# --- running git


def environment() -> dict[str, str]:
    """Our variables for git: nothing that points it at another repository, no prompt, messages in English."""
    kept = {name: value for name, value in os.environ.items() if name not in _REDIRECTING}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}


_REDIRECTING = frozenset(
    "GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR"
    " GIT_NAMESPACE GIT_PREFIX GIT_CONFIG_PARAMETERS GIT_CONFIG_COUNT GIT_EXTERNAL_DIFF GIT_CEILING_DIRECTORIES".split()
)


def _start(*arguments: str, silent: bool = False) -> subprocess.Popen[bytes]:
    import subprocess

    try:
        return subprocess.Popen(
            ["git", *_OPTIONS, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if silent else subprocess.PIPE,
            env=environment(),
        )
    except FileNotFoundError:
        raise ProjectError(
            "git is not installed, or not on PATH", hint="install git, or give the folder of the project instead"
        ) from None


def _finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate()
    return process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "replace")


def _git(*arguments: str) -> tuple[int, str, str]:
    return _finish(_start(*arguments))


def _must(what: str, *arguments: str, hint: str = "") -> str:
    code, out, err = _git(*arguments)
    if code:
        raise ProjectError(f"{what}: {_complaint(err)}", hint=hint)
    return out


def _complaint(err: str) -> str:
    """The line of git's complaint that says most, without credentials."""
    lines = [line.strip() for line in err.splitlines() if line.strip() and not line.startswith(("hint:", "warning:"))]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:", "Permission"))]
    said = (telling or lines or ["git failed and said nothing"])[0]
    return strip_credentials(re.sub(r"^(fatal|error|remote): ", "", said))


def strip_credentials(url: str) -> str:
    """Take user and password out of http URLs, and the password out of ssh URLs."""
    return re.sub(r"(?i)(ssh://[^:/@\s]*):[^/@\s]*@", r"\1@", _CREDENTIALS.sub(r"\1", url))


# --- the state of a work tree, mostly without git


def work_tree(folder: str) -> tuple[str, str] | None:
    """Find the work tree around ``folder`` and its git directory."""
    for parent in config.parents(os.path.abspath(folder)):
        path = os.path.join(parent, ".git")
        if os.path.isfile(os.path.join(path, "HEAD")):
            return parent, path
        if os.path.isfile(path):  # a linked work tree, or a submodule
            pointer = _content(path)
            if pointer.startswith("gitdir:"):
                target = os.path.join(parent, pointer[len("gitdir:") :].strip())
                if os.path.isfile(os.path.join(target, "HEAD")):
                    return parent, os.path.normpath(target)
    return None


def state(folder: str) -> State | None:
    """Say what the work tree around ``folder`` is at; None without one, or when the folder is ignored by git."""
    found = work_tree(folder)
    if found is None:
        return None
    root, git_dir = found
    # Both at once: each takes as long as git takes to start.
    try:
        status = _start("-C", root, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
    except ProjectError:  # no git here; the files still tell the commit
        return State(root, *_head(git_dir), _remote(git_dir), None)
    ignored = None
    if os.path.realpath(folder) != os.path.realpath(root):
        ignored = _start("-C", root, "check-ignore", "--quiet", "--", os.path.abspath(folder))
    code, out, _ = _finish(status)
    if ignored is not None and _finish(ignored)[0] == 0:
        return None
    commit, branch = _head(git_dir)
    if commit is None:
        commit = _git("-C", root, "rev-parse", "--verify", "--quiet", "HEAD")[1].strip() or None
    return State(root, commit, branch, _remote(git_dir), bool(out) if code == 0 else None)


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _common(git_dir: str) -> str:
    """The directory a linked work tree shares with its repository."""
    shared = _content(os.path.join(git_dir, "commondir")).strip()
    return os.path.normpath(os.path.join(git_dir, shared)) if shared else git_dir


def _head(git_dir: str) -> tuple[str | None, str | None]:
    """Commit and branch, read from the files; no commit when they are kept in another way (reftable)."""
    head = _content(os.path.join(git_dir, "HEAD")).strip()
    if not head.startswith("ref:"):
        return (head if _SHA.fullmatch(head) else None), None
    ref = head[len("ref:") :].strip()
    branch = ref[len("refs/heads/") :] if ref.startswith("refs/heads/") else None
    if branch == ".invalid":
        return None, None
    common = _common(git_dir)
    commit = _content(os.path.join(common, *ref.split("/"))).strip()
    if not _SHA.fullmatch(commit):
        packed = re.search(
            rf"^([0-9a-f]+) {re.escape(ref)}$", _content(os.path.join(common, "packed-refs")), re.MULTILINE
        )
        commit = packed.group(1) if packed else ""
    return commit or None, branch


def _remote(git_dir: str) -> str | None:
    """The address of ``origin``, else of the first remote, without credentials."""
    urls: dict[str, str] = {}
    remote = None
    for line in _content(os.path.join(_common(git_dir), "config")).splitlines():
        section = re.match(r'\s*\[(\w+)(?:\s+"(.*)")?\]', line)
        if section:
            remote = section.group(2) if section.group(1).lower() == "remote" else None
        elif remote is not None and (found := re.match(r"\s*url\s*=\s*(.*?)\s*$", line)):
            urls.setdefault(remote, found.group(1).strip('"'))
    url = urls.get("origin") or next(iter(urls.values()), None)
    return strip_credentials(url) if url else None


def diff(root: str) -> bytes:
    """What was changed since HEAD, as a patch, and the names of new files as comments; at most ``MAX_DIFF`` bytes."""
    changes = _start(
        *("-C", root, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=dirty"),
        *("HEAD", "--"),
        silent=True,
    )
    with changes:
        assert changes.stdout is not None  # noqa: S101 - for mypy: it was asked for as a pipe
        patch = changes.stdout.read(MAX_DIFF + 1)
        if len(patch) > MAX_DIFF:
            changes.kill()
    if len(patch) > MAX_DIFF:
        patch = (
            patch[: patch.rfind(b"\n", 0, MAX_DIFF) + 1] + b"# cut here: the patch is larger than %d bytes\n" % MAX_DIFF
        )
    names = _git("-C", root, "ls-files", "--others", "--exclude-standard", "--directory")[1].splitlines()
    lines = [f"# new, not in git: {name}\n" for name in names[:MAX_UNTRACKED]]
    if len(names) > MAX_UNTRACKED:
        lines.append(f"# ... and {len(names) - MAX_UNTRACKED} more\n")
    return patch + "".join(lines).encode("utf-8", "surrogateescape")


# --- versions


class Checkout(NamedTuple):
    """A checked out version in the cache; ``subdir`` is what of the address was no part of the version."""

    folder: str
    commit: str
    branch: str | None
    repo_url: str
    subdir: str = ""


def check_version(version: str) -> None:
    """Refuse what git might take for an option or for anything but a branch, tag or commit."""
    if not version.strip() or version.startswith("-") or re.search(r"[\s\x00-\x1f\x7f:?*~^\[\\]|\.\.", version):
        raise ProjectError(f"`{version}` is not a version", hint="give a branch, a tag or a commit")


def check_url(url: str) -> None:
    """Refuse addresses that git would read as options or hand to a program."""
    plain = strip_credentials(url)
    if url.startswith("-") or re.match(r"[\w+.-]+::", url) or re.search(r"[\x00-\x20\x7f]", url):
        raise ProjectError(f"`{plain}` is not an address of a repository", hint="use https://, ssh:// or git@host:path")
    scheme = url.split("://", 1)[0].lower() if "://" in url else "ssh"
    host = re.sub(r"\A.*@", "", re.split(r"[/:]", url.split("://", 1)[-1], maxsplit=1)[0])
    if scheme not in ("http", "https", "ssh", "file") or host.startswith("-") or "://-" in url:
        raise ProjectError(f"`{plain}` is not an address of a repository", hint="use https://, ssh:// or git@host:path")


def is_bare(folder: str) -> bool:
    """Tell whether ``folder`` is a repository without work tree."""
    return all(os.path.exists(os.path.join(folder, name)) for name in ("HEAD", "objects", "refs"))


def checkout_local(root: str, git_dir: str, version: str, *, submodules: bool = False) -> Checkout:
    """Check a version of the user's own repository out into the cache."""
    check_version(version)
    for ref in (f"refs/heads/{version}", f"refs/tags/{version}", version, f"refs/remotes/origin/{version}"):
        code, out, err = _git("-C", root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if code == 0:
            break
    else:
        if "fatal" in err:
            raise ProjectError(f"the repository {root} cannot be read: {_complaint(err)}")
        raise _no_version(version, root, _git("-C", root, "for-each-ref", "--format=%(refname)")[1].split())
    commit = out.strip()
    branch = version if ref.startswith("refs/heads/") else None
    url = _remote(git_dir) or root
    return Checkout(_tree(_common(git_dir), root, url, commit, submodules=submodules), commit, branch, url)


def checkout(
    url: str,
    version: str | None,
    *,
    path: str = "",
    submodules: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Checkout:
    """Check a version of the repository at ``url`` out into the cache, fetching what is missing.

    ``path`` is what follows ``/tree/`` in a web address: a version, which may hold slashes, and maybe a folder.
    """
    check_url(url)
    if version is not None:
        check_version(version)
    plain = strip_credentials(url)
    mirror = os.path.join(config.cache_root(), "git", f"{_digest(plain)}.git")
    os.makedirs(os.path.dirname(mirror), mode=0o700, exist_ok=True)
    with locked(
        f"{mirror}.lock", on_wait=(lambda: progress(f"waiting for another fetch of {plain}")) if progress else None
    ):
        if not is_bare(mirror):
            _remove(mirror)
            _must("the cache cannot be made", "init", "--quiet", "--bare", "--", mirror)
        subdir = ""
        branch = None
        if version is not None and _SHA.fullmatch(version) and _has(mirror, version):
            commit = version
        else:
            if progress:
                progress(f"fetching {plain}" + (f" at {version}" if version else ""))
            refs = _remote_refs(url)
            if path and version is None:
                version, subdir = _split_path(path, refs)
            commit, branch = _fetch(mirror, url, version, refs)
        os.utime(mirror)
    return Checkout(_tree(mirror, plain, plain, commit, submodules=submodules), commit, branch, plain, subdir)


def _digest(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:20]


def _has(mirror: str, commit: str) -> bool:
    return _git("-C", mirror, "cat-file", "-e", f"{commit}^{{commit}}")[0] == 0


def _remote_refs(url: str) -> dict[str, str]:
    """The refs of a remote repository; ``HEAD`` with the branch it stands for under ``HEAD ref``."""
    out = _must(
        f"{strip_credentials(url)} cannot be read",
        *("ls-remote", "--symref", "--", url),
        hint="is the address right, is the network up, may you read it? try: git ls-remote " + strip_credentials(url),
    )
    refs: dict[str, str] = {}
    for line in out.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            refs[f"{name} ref"] = value[len("ref: ") :]
        elif name.endswith("^{}"):
            refs[name[:-3]] = value
        else:
            refs.setdefault(name, value)
    if not refs:
        raise ProjectError(f"{strip_credentials(url)} is an empty repository")
    return refs


def _split_path(path: str, refs: Mapping[str, str]) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    for count in range(len(parts), 0, -1):
        ref = "/".join(parts[:count])
        if f"refs/heads/{ref}" in refs or f"refs/tags/{ref}" in refs:
            return ref, "/".join(parts[count:])
    return parts[0], "/".join(parts[1:])


def _fetch(mirror: str, url: str, version: str | None, refs: Mapping[str, str]) -> tuple[str, str | None]:
    """Bring the commit that ``version`` means into the mirror; give it and its branch, if it is one."""
    branch: str | None = None
    if version is None:
        commit = refs.get("HEAD")
        branch = refs.get("HEAD ref", "").removeprefix("refs/heads/") or None
        if commit is None:
            raise ProjectError(f"{strip_credentials(url)} has no HEAD", hint="say which branch, with --version")
    else:
        commit = refs.get(f"refs/heads/{version}")
        branch = version if commit else None
        commit = commit or refs.get(f"refs/tags/{version}")
        if commit is None and _SHORT_SHA.fullmatch(version):
            tips = {sha for sha in refs.values() if sha.startswith(version)}
            commit = next(iter(tips)) if len(tips) == 1 else None
            commit = commit or (version if _SHA.fullmatch(version) else _fetch_all(mirror, url, version))
        if commit is None:
            raise _no_version(version, strip_credentials(url), list(refs))
    if not _has(mirror, commit):
        code, _, err = _git("-C", mirror, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, commit)
        if code and not _has(mirror, _fetch_all(mirror, url, commit) or commit):
            raise ProjectError(f"{strip_credentials(url)} has no {version or commit}: {_complaint(err)}")
    _must("the cache cannot be written", "-C", mirror, "update-ref", f"refs/mlcli/{commit}", commit)
    return commit, branch


def _fetch_all(mirror: str, url: str, version: str) -> str | None:
    """Fetch the whole history, and find the commit in it that a short or unadvertised hash means."""
    deepen = ["--unshallow"] if os.path.exists(os.path.join(mirror, "shallow")) else []
    specs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    _must(
        f"{strip_credentials(url)} cannot be fetched",
        *("-C", mirror, "fetch", "--quiet", "--no-tags", *deepen, "--", url, *specs),
    )
    code, out, err = _git("-C", mirror, "rev-parse", "--verify", "--end-of-options", f"{version}^{{commit}}")
    if "ambiguous" in err:
        raise ProjectError(f"more than one commit begins with {version}", hint="give more of its letters")
    return out.strip() if code == 0 else None


def _no_version(version: str, where: str, refs: list[str]) -> ProjectError:
    from mlcli.projects.problem import similar

    names = [re.sub(r"\Arefs/(heads|tags|remotes/origin)/", "", ref) for ref in refs]
    names = [name for name in dict.fromkeys(names) if not name.startswith(("refs/", "HEAD"))]
    meant = similar(version, names)
    hint = f"did you mean `{meant}`?" if meant else f"there are: {', '.join(names[:12])}"
    return ProjectError(f"{where} has no branch, tag or commit `{version}`", hint=hint)


# --- checked out trees


def _tree(git_dir: str, where: str, url: str, commit: str, *, submodules: bool) -> str:
    """A work tree of ``commit`` that borrows its objects from ``git_dir``; reused when it is there already."""

    def build(folder: str) -> None:
        _must("the version cannot be checked out", "init", "--quiet", "--", folder)
        inside = os.path.join(folder, ".git")
        with open(os.path.join(inside, "objects", "info", "alternates"), "w", encoding="utf-8") as file:
            file.write(f"{os.path.join(git_dir, 'objects')}\n")
        if os.path.exists(os.path.join(git_dir, "shallow")):
            with open(os.path.join(inside, "shallow"), "w", encoding="utf-8") as file:
                file.write(_content(os.path.join(git_dir, "shallow")))
        _must("the version cannot be checked out", "-C", folder, "config", "remote.origin.url", url)
        _restore(folder, commit)
        if submodules:
            _must(
                "the submodules cannot be fetched",
                *("-C", folder, "submodule", "--quiet", "update", "--init", "--recursive"),
            )

    return cached_tree(_digest(where, commit, "submodules" * submodules), build, lambda tree: _restore(tree, commit))


def _restore(folder: str, commit: str) -> None:
    """Put the files of the commit in place; what an earlier run changed is put back, what it made stays."""
    _must("the version cannot be checked out", "-C", folder, "checkout", "--quiet", "--force", "--detach", commit, "--")


def cached_tree(key: str, build: Callable[[str], None], refresh: Callable[[str], None] | None = None) -> str:
    """The folder ``<cache>/projects/<key>``, built once; unused ones are removed after ``KEEP_DAYS`` days."""
    base = os.path.join(config.cache_root(), "projects")
    os.makedirs(base, mode=0o700, exist_ok=True)
    folder, used = os.path.join(base, key), os.path.join(base, f"{key}.used")
    with locked(os.path.join(base, f"{key}.lock")):
        if os.path.exists(used) and os.path.isdir(folder):
            if refresh is not None:
                refresh(folder)
        else:
            _remove(folder)
            building = f"{folder}.building"
            _remove(building)
            try:
                build(building)
                os.rename(building, folder)
            finally:
                _remove(building)
        with open(used, "w", encoding="utf-8"):  # also the mark that the tree is whole
            pass
    _prune(base)
    return folder


def _remove(folder: str) -> None:
    if os.path.isdir(folder):
        import shutil

        shutil.rmtree(folder)


def _prune(base: str) -> None:
    """Remove trees that nobody used for long; looks once a day."""
    stamp = os.path.join(base, ".pruned")
    now = time.time()
    try:
        if now - os.stat(stamp).st_mtime < 86400:
            return
    except FileNotFoundError:
        pass
    with open(stamp, "w", encoding="utf-8"):
        pass
    for entry in list(os.scandir(base)):
        if not entry.name.endswith(".used") or now - entry.stat().st_mtime < KEEP_DAYS * 86400:
            continue
        folder = entry.path.removesuffix(".used")
        try:
            with locked(f"{folder}.lock", timeout=0):
                os.unlink(entry.path)
                _remove(folder)
        except (TimeoutError, OSError):  # in use, or not ours to remove: next time
            continue
