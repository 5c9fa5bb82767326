"""The Pythons of this machine, and which of them a project gets.

Found by name in the places where they are kept (PATH, pyenv, uv, mise, asdf); each is asked once who it is, and the
answer is kept in ``<cache>/pythons.json`` for as long as its file does not change. On the fast path nothing is run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from mlcli import config
from mlcli.errors import EnvError
from mlcli.projects import pythonspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mlcli.projects.pythonspec import PythonSpec, Version

_WINDOWS = sys.platform == "win32"
_EXE = ".exe" if _WINDOWS else ""
_MINORS = range(20, 7, -1)
_REMEMBER_FAILURE = 24 * 3600
_QUESTION = (
    "import json, sys, sysconfig as s; print(json.dumps(['%d.%d.%d' % sys.version_info[:3], sys.implementation.name,"
    " '%s %s' % (s.get_platform(), s.get_config_var('SOABI') or s.get_config_var('EXT_SUFFIX')),"
    " getattr(sys, '_base_executable', None) or sys.executable]))"
)


class Python(NamedTuple):
    """An interpreter; ``tag`` is its platform and binary interface, so that equal ones are equal wherever they lie."""

    path: str
    version: str
    implementation: str
    tag: str

    @property
    def numbers(self) -> Version:
        return tuple(int(part) for part in self.version.split("."))

    @property
    def free_threaded(self) -> bool:
        return re.search(r"\d+t\b", self.tag) is not None


class Choice(NamedTuple):
    """The Python a project gets, why, and what the user should know about it (None: it is what was asked for)."""

    python: Python
    reason: str
    note: str | None = None


CONDAS_CHOICE = Choice(Python("", "", "conda", ""), "the conda file: conda chose it")


# -- choosing


def choose(
    text: str | None,
    *,
    strict: bool = False,
    install: bool = True,
    progress: Callable[[str], None] = lambda _line: None,
) -> Choice:
    """Find the Python for what an environment file says (None: nothing).

    ========================  ==================================================================================
    nothing                   the ``python`` of the command line, as ``--env-manager=local`` takes it
    3.9.13                    that one; else what uv can install; else the newest 3.9 here, said aloud (not if strict)
    3.9                       the newest 3.9 here; else what uv can install
    3                         the ``python`` of the command line if it is one; else the newest here
    >=3.8,<3.11               the ``python`` of the command line if it is allowed; else the newest here that is; else uv
    ========================  ==================================================================================

    With ``install=False`` nothing is installed: this is only a look at what would be chosen.
    """
    known = Known.load()
    try:
        return _choose(text, known, strict, progress if install else None)
    finally:
        known.save()


def may_install(text: str | None) -> bool:
    """Tell whether uv would be asked for what an environment file says."""
    spec = pythonspec.parse(text or "")
    return spec is not None and Known.load().may_install(spec)


def _choose(text: str | None, known: Known, strict: bool, progress: Callable[[str], None] | None) -> Choice:
    if text is None:
        return Choice(known.local(os.environ), "the environment file names no Python: the one of the command line")
    spec = pythonspec.parse(text)
    if spec is None:
        raise EnvError(f"`{text}` is no Python version", hint='write a version ("3.10") or a range (">=3.9,<3.12")')
    here = [python for python in known.matching(spec) if spec.allows(python.numbers)]
    if here:
        return Choice(_best(spec, here, known), f"asked for {text}")
    installed, tried = (None, "") if progress is None else known.install(spec, progress)
    if installed is not None:
        return Choice(installed, f"asked for {text}; installed by uv")
    near = spec.nearest()
    candidates = [] if near is None else [item for item in known.matching(near) if near.allows(item.numbers)]
    if candidates and near is not None and not strict:
        python = _best(near, candidates, known)
        note = f"Python {text} is not on this machine{tried}; using {python.version}, the nearest here"
        if progress is None and known.may_install(spec):
            note = f"Python {text} is not on this machine: uv is asked for it, and without it {python.version} is used"
        return Choice(python, f"asked for {text}, which is not here: the nearest patch of the same minor", note)
    if progress is not None and not tried and known.failed_lately(spec):
        tried = ", and uv could not install it when it was asked last"
    raise _none(text, known, candidates, tried)


def _best(spec: PythonSpec, here: list[Python], known: Known) -> Python:
    here = [python for python in here if not python.free_threaded] or here
    here = [python for python in here if python.implementation == "cpython"] or here
    if not any(sign == "=" and len(wanted) > 1 for sign, wanted in spec.clauses):
        local = known.local(os.environ)
        if spec.allows(local.numbers):
            return local
    return max(here, key=lambda python: python.numbers)  # of equals, the first found


def _none(text: str, known: Known, near: list[Python], tried: str) -> EnvError:
    found = sorted({python.version for python in known.all()}, key=lambda item: [int(part) for part in item.split(".")])
    hint = (
        f"found here: {', '.join(found) or 'none'}; install it (uv python install, pyenv install), or change `python`"
    )
    if near:
        hint += f"; without --strict-python {max(near, key=lambda item: item.numbers).version} would do"
    return EnvError(f"Python {text} is not on this machine{tried}", hint=hint)


# -- finding


class Known:
    """The interpreters met so far, by path; and the installations that failed lately."""

    def __init__(self, pythons: dict[str, list[object]], failed: dict[str, float]) -> None:
        self._pythons = pythons
        self._failed = failed
        self._changed = False

    @classmethod
    def load(cls) -> Known:
        try:
            with open(_cache_file(), encoding="utf-8") as file:
                data = json.load(file)
            return cls(dict(data["pythons"]), dict(data["failed"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls({}, {})

    def save(self) -> None:
        if not self._changed:
            return
        path = _cache_file()
        aside = f"{path}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({"pythons": self._pythons, "failed": self._failed}, file)
            os.replace(aside, path)
        except OSError:  # it is only a memory: a read-only cache costs time, nothing else
            return
        self._changed = False

    def at(self, path: str) -> Python | None:
        """Who the interpreter at ``path`` is; None if it is none that runs, or older than Python 3."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        stamp = [found.st_mtime_ns, found.st_size]
        entry = self._pythons.get(path)
        if entry is None or entry[:2] != stamp:
            entry = [*stamp, *_ask(path)]
            if not _is_shims(os.path.dirname(path)):  # a shim answers differently in each folder
                self._pythons[path] = entry
                self._changed = True
        return None if len(entry) < 6 else Python(str(entry[5]), str(entry[2]), str(entry[3]), str(entry[4]))

    def matching(self, spec: PythonSpec) -> list[Python]:
        """Every interpreter whose name does not exclude it; those of another version are not even asked."""
        paths = (path for path, beginning in _candidates() if spec.may_allow(beginning))
        return self._distinct(paths)

    def all(self) -> list[Python]:
        return self._distinct(path for path, _ in _candidates())

    def _distinct(self, paths: Iterable[str]) -> list[Python]:
        seen: dict[str, Python] = {}
        for path in paths:
            python = self.at(path)
            if python is not None:
                seen.setdefault(os.path.realpath(python.path), python)
        return list(seen.values())

    def local(self, environ: Mapping[str, str]) -> Python:
        """The interpreter behind the first ``python`` (or ``python3``) of PATH; ours if there is none."""
        path = local_path(environ)
        python = None if path is None else self.at(path)
        if python is None:
            python = self.at(sys.executable)
        if python is None:
            raise EnvError("no Python can be started here", hint="put one on PATH")
        return python

    def may_install(self, spec: PythonSpec) -> bool:
        """Tell whether uv would be asked for it now."""
        from mlcli.envs import installer

        return not self.failed_lately(spec) and installer.may_install_python()

    def failed_lately(self, spec: PythonSpec) -> bool:
        """Tell whether uv was asked for it, in vain, within a day."""
        return time.time() - self._failed.get(spec.text, 0) < _REMEMBER_FAILURE

    def install(self, spec: PythonSpec, progress: Callable[[str], None]) -> tuple[Python | None, str]:
        """Let uv install what was asked for, or say why not; a failure is remembered for a day, so that it costs once."""
        if self.failed_lately(spec):
            return None, ""
        from mlcli.envs import installer

        request = ",".join(f"{'==' if sign == '=' else sign}{_dotted(wanted, sign)}" for sign, wanted in spec.clauses)
        if spec.exact or (len(spec.clauses) == 1 and spec.clauses[0][0] == "="):
            request = ".".join(str(part) for part in spec.clauses[0][1])
        if not installer.may_install_python():
            return None, ""
        failure = installer.install_python(request, progress)
        if failure is None:
            found = [python for python in self.matching(spec) if spec.allows(python.numbers)]
            if found:
                return _best(spec, found, self), ""
            failure = "what it installed is not found"
        self._failed[spec.text] = time.time()
        self._changed = True
        return None, f", and uv could not install it ({failure})"


def _dotted(wanted: Version, sign: str) -> str:
    return ".".join(str(part) for part in wanted) + (".*" if sign == "=" and len(wanted) < 3 else "")


def _cache_file() -> str:
    return os.path.join(config.cache_root(), "pythons.json")


def _ask(path: str) -> list[str]:
    import subprocess

    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [path, "-I", "-c", _QUESTION],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=20,
            check=False,
            env=environ,
        )
        version, implementation, tag, base = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return [version, implementation, tag, base if os.path.exists(base) else path]


def _candidates() -> Iterator[tuple[str, Version]]:
    """Yield every place where an interpreter may be, and how its version begins as far as the name tells."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and not _is_shims(folder):
            for minor in _MINORS:
                if os.path.exists(path := os.path.join(folder, f"python3.{minor}{_EXE}")):
                    yield path, (3, minor)
            for name in ("python3", "python"):
                if os.path.exists(path := os.path.join(folder, name + _EXE)):
                    yield path, (3,)
    for parent in _collections():
        for name in sorted(_listed(parent), reverse=True):
            found = re.search(r"(?:^|-|@)(\d+(?:\.\d+)*)", name)
            if found is None:
                continue
            for inside in ("python.exe",) if _WINDOWS else ("bin/python3", "bin/python"):
                if os.path.exists(path := os.path.join(parent, name, inside)):
                    yield path, tuple(int(part) for part in found[1].split(".")[:3])
                    break
    yield sys.executable, tuple(sys.version_info[:3])
    if _WINDOWS:
        from mlcli.envs import installer

        yield from ((path, ()) for path in installer.known_pythons())  # the registry knows more than the file system


def _collections() -> Iterator[str]:
    """Yield the folders that hold one folder for each version."""
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    if _WINDOWS:
        appdata = os.environ.get("APPDATA", home)
        yield os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(appdata, "uv", "python")
        yield os.path.join(home, ".pyenv", "pyenv-win", "versions")
        return
    yield os.path.join(_pyenv_root(), "versions")
    yield os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(data, "uv", "python")
    yield os.path.join(os.environ.get("MISE_DATA_DIR") or os.path.join(data, "mise"), "installs", "python")
    yield os.path.join(os.environ.get("ASDF_DATA_DIR") or os.path.join(home, ".asdf"), "installs", "python")
    if sys.platform == "darwin":
        yield "/opt/homebrew/opt"
        yield "/usr/local/opt"
        yield "/Library/Frameworks/Python.framework/Versions"


def _pyenv_root() -> str:
    return os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_shims(folder: str) -> bool:
    return os.path.basename(os.path.normpath(folder)) == "shims"


# -- the Python of the command line


def local_path(environ: Mapping[str, str]) -> str | None:
    """The file that ``python`` (or else ``python3``) on this PATH leads to, past the shims of pyenv; None without one."""
    for name in ("python", "python3"):
        path = which(name, environ)
        if path is not None:
            return _behind_shim(path, environ) or path
    return None


def which(name: str, environ: Mapping[str, str]) -> str | None:
    """The program that a shell with this PATH would start."""
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, name + _EXE)
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    return None


def _behind_shim(path: str, environ: Mapping[str, str]) -> str | None:
    """What pyenv's shim would start, by pyenv's own rules: asking it takes 50 ms, reading its files none."""
    root = environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    if os.path.dirname(path) != os.path.join(root, "shims"):
        return None
    for version in _pyenv_versions(root, environ):
        if version == "system":
            rest = [item for item in environ.get("PATH", "").split(os.pathsep) if not _is_shims(item)]
            return which(os.path.basename(path), {"PATH": os.pathsep.join(rest)})
        for name in _pyenv_spellings(root, version):
            found = os.path.join(root, "versions", name, "bin", os.path.basename(path))
            if os.access(found, os.X_OK):
                return found
    return None


def _pyenv_versions(root: str, environ: Mapping[str, str]) -> list[str]:
    if environ.get("PYENV_VERSION"):
        return environ["PYENV_VERSION"].split(":")
    try:
        folders = config.parents(os.getcwd())
    except FileNotFoundError:
        folders = []
    for file in [*(os.path.join(folder, ".python-version") for folder in folders), os.path.join(root, "version")]:
        try:
            with open(file, encoding="utf-8") as stream:
                versions = [line.split("#", maxsplit=1)[0].strip() for line in stream]
        except OSError:
            continue
        if any(versions):
            return [version for version in versions if version]
    return ["system"]


def _pyenv_spellings(root: str, version: str) -> list[str]:
    """``3.11`` means the newest 3.11.x that pyenv has."""
    same = [name for name in _listed(os.path.join(root, "versions")) if name.startswith(version + ".")]
    return [version, *sorted(same, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], reverse=True)]
