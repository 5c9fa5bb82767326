"""Running the programs that build environments: uv, pip, virtualenv, conda; their output kept, watched and explained."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import EnvError
from mlcli.projects.requirements import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

    from mlcli.projects.requirements import Requirement

_TAIL = 12
_POSIX = os.name == "posix"

# Settings of a person's own shell that would send uv or pip somewhere else than the environment at hand.
_MISLEADING = frozenset(
    "UV_PYTHON UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT UV_TARGET UV_PREFIX PIP_TARGET PIP_PREFIX PIP_USER PIP_PYTHON"
    " PIP_REQUIRE_VIRTUALENV VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH".split()
)


def uv() -> str:
    """The uv program: the one that came with mlcli, else the one on PATH."""
    try:
        from uv import find_uv_bin
    except ImportError:
        found = None
    else:
        try:
            found = find_uv_bin()
        except FileNotFoundError:
            found = None
    if found is None:
        from mlcli.envs.python import which

        found = which("uv", os.environ)
    if found is None:
        raise EnvError("uv, which installs packages, is not here", hint="pip install uv, or set MLCLI_INSTALLER=pip")
    return found


def environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a program that builds: the caller's, without what would mislead it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _MISLEADING and not name.startswith("VIRTUALENV_")
    }
    kept.update({"NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUTF8": "1"})
    # Nobody is asked for a password in the middle of a build: it would wait for an answer that cannot come.
    kept.setdefault("GIT_TERMINAL_PROMPT", "0")
    kept.update(extra or {})
    return kept


class Build:
    """One environment being built: runs program after program, all their output in one log."""

    def __init__(
        self, log: str, lock: int | None, progress: Callable[[str], None], where: Sequence[Requirement] = ()
    ) -> None:
        self.log = log
        self.progress = progress
        self.where = where  # who asks for what, to explain a failure
        self._lock = lock

    def run(
        self, argv: Sequence[str], *, doing: str, cwd: str, extra: Mapping[str, str] | None = None, python: str = ""
    ) -> None:
        """Run ``argv`` to its end; a failure is an EnvError with the last lines and what to do about them."""
        code, tail = self._run(argv, cwd, environ(extra), self.progress)
        if code != 0:
            output = "\n".join(tail)
            raise EnvError(
                f"{doing} failed (exit {code})" if code > 0 else f"{doing} was killed (signal {-code})",
                tail=output,
                log=self.log,
                hint=explain(output, self.where, python),
            )

    def attempt(self, argv: Sequence[str], *, cwd: str, extra: Mapping[str, str] | None = None) -> bool:
        """Run ``argv``; tell whether it succeeded, and say nothing of its failure."""
        lines: list[str] = []
        code, _ = self._run(argv, cwd, environ(extra), lines.append)
        if code == 0:
            for line in lines:
                self.progress(line)
        return code == 0

    def _run(
        self, argv: Sequence[str], cwd: str, environ: dict[str, str], progress: Callable[[str], None]
    ) -> tuple[int, list[str]]:
        tail: deque[str] = deque(maxlen=_TAIL)
        with _log(self.log) as log:
            log.write(f"$ {redact(' '.join(argv))}\n")
            # The lock goes along: should we die, it is held until the installer is gone, and nobody builds beside it.
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=cwd,
                env=environ,
                pass_fds=(self._lock,) if _POSIX and self._lock is not None else (),
                umask=0o077 if _POSIX else -1,
            )
            try:
                for raw in process.stdout or ():
                    line = redact(raw.rstrip())
                    log.write(line + "\n")
                    if line:
                        tail.append(line)
                    if (told := _told(line)) is not None:
                        progress(told)
                code = process.wait()
            except BaseException:
                _end(process)
                raise
            finally:
                if process.stdout is not None:
                    process.stdout.close()
            log.write(f"exit {code}\n")
        return code, list(tail)


@contextlib.contextmanager
def _log(path: str) -> Iterator[IO[str]]:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="replace", buffering=1) as file:
        yield file


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_TELLING = (
    (re.compile(r"Resolved (\d+ packages?) in (.+)"), r"resolved \1 in \2"),
    (re.compile(r"Installed (\d+ packages?) in (.+)"), r"installed \1 in \2"),
    (re.compile(r"\s*(?:Downloading|Updating) (\S+ \(.+\)|\S+\.git.*)"), r"downloading \1"),
    (re.compile(r"\s*Building (?!wheels? for collected)(?:wheel for )?(\S+).*"), r"building \1"),
    (re.compile(r"Collecting (\S+).*"), r"collecting \1"),
    (re.compile(r"Installing collected packages: (.*)"), r"installing \1"),
)


def _told(line: str) -> str | None:
    """What is worth showing of a line of uv's or pip's."""
    for pattern, words in _TELLING:
        found = pattern.fullmatch(line)
        if found is not None:
            return found.expand(words)
    return None


# -- packages


def install(
    build: Build, python: str, version: str, file: str, *, pinned: bool, options: Sequence[str], count: str
) -> None:
    """Install the requirements file ``file`` into the environment of the interpreter ``python``."""
    from mlcli import config

    build.progress(f"installing {count}")
    cwd = os.path.dirname(file)
    if config.setting("installer").value == "pip":
        _pip(build, python, version, file, cwd, count)
        return
    command = [uv(), "pip", "install", "--python", python, "-r", file, *options]
    # When every version is written down, the cache may hold all that is needed: asking the index again would only
    # cost a second. Whatever is missing there is fetched as usual.
    if pinned and build.attempt([*command, "--offline"], cwd=cwd):
        return
    build.run(command, doing=f"installing {count}", cwd=cwd, extra=_indexes(), python=version)


def _pip(build: Build, python: str, version: str, file: str, cwd: str, count: str) -> None:
    own = os.path.join(os.path.dirname(python), "pip" + (".exe" if os.name == "nt" else ""))
    if not os.path.exists(own):
        build.run([python, "-m", "ensurepip", "--default-pip"], doing="putting pip into the environment", cwd=cwd)
    build.run([python, "-m", "pip", "install", "-r", file], doing=f"installing {count}", cwd=cwd, python=version)


def _indexes() -> dict[str, str]:
    """The index that pip is told to use, for uv, which reads none of pip's settings."""
    if any(os.environ.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")):
        return {}
    url = os.environ.get("PIP_INDEX_URL") or _pip_config("index-url")
    return {"UV_DEFAULT_INDEX": url} if url else {}


def _pip_config(key: str) -> str | None:
    from configparser import Error, RawConfigParser

    home = os.path.expanduser("~")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = ["/etc/pip.conf", os.path.join(home, ".pip", "pip.conf"), os.path.join(base, "pip", "pip.conf")]
    if os.name == "nt":
        files = [os.path.join(os.environ.get("APPDATA", home), "pip", "pip.ini")]
    parser = RawConfigParser()
    try:
        parser.read([*files, os.environ.get("PIP_CONFIG_FILE") or files[-1]], encoding="utf-8")
    except (Error, UnicodeDecodeError):
        return None
    for section in ("install", "global"):
        if parser.has_option(section, key):
            return str(parser.get(section, key))
    return None


def freeze(python: str) -> str:
    """What is installed beside this interpreter, as requirement lines."""
    try:
        command = [uv(), "pip", "freeze", "--python", python]
    except EnvError:  # pip installed it, so pip is there to list it
        command = [python, "-m", "pip", "freeze", "--all"]
    done = subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environ(),
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise EnvError("what is installed could not be listed", tail=done.stderr.strip())
    return redact(done.stdout)


# -- Python itself


def may_install_python() -> bool:
    """Tell whether there is a uv that may download one: UV_PYTHON_DOWNLOADS and UV_OFFLINE can forbid it."""
    if os.environ.get("UV_PYTHON_DOWNLOADS", "").lower() in ("never", "manual") or _true("UV_OFFLINE"):
        return False
    try:
        uv()
    except EnvError:
        return False
    return True


def install_python(request: str, progress: Callable[[str], None]) -> str | None:
    """Let uv download a Python; say in a few words why it could not, or return None when it did."""
    progress(f"Python {request} is not here; asking uv to install it")
    start = time.monotonic()
    # One try and short waits: without a network this must not cost the user more than a moment.
    patience = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "15", "UV_HTTP_CONNECT_TIMEOUT": "5"}
    try:
        done = subprocess.run(
            [uv(), "python", "install", "--no-bin", request],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environ(patience),
            check=False,
            timeout=600,
        )
    except subprocess.TimeoutExpired:
        return "it took more than ten minutes"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return re.sub(r"^\W*(caused by|cause|error):\s*", "", last.strip(), flags=re.IGNORECASE)
    progress(f"installed Python {request} in {time.monotonic() - start:.1f} s")
    return None


def known_pythons() -> list[str]:
    """The interpreters that uv finds; on Windows it reads the registry for us."""
    import json

    try:
        done = subprocess.run(
            [uv(), "python", "list", "--only-installed", "--output-format", "json"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=60,
            env=environ(),
        )
        return [str(item["path"]) for item in json.loads(done.stdout) if item.get("path")]
    except (EnvError, OSError, ValueError, subprocess.SubprocessError):
        return []


def _true(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on", "y", "t")


# -- explaining


class _Case(NamedTuple):
    pattern: re.Pattern[str]
    hint: str


_CASES = (
    _Case(
        re.compile(
            r"does\s+not\s+satisfy\s+Python(?P<needs>[<>=!~\d.,*]+)\s+and\s+(?P<name>[\w.-]+)==(?P<version>\S+)\s+depends"
        ),
        "{name} {version} needs Python {needs}, this environment has {python}: change `python`, or pin another {name}",
    ),
    _Case(
        re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+)\s+has\s+no\s+(?:usable\s+)?wheels"),
        "{name} {version} has no wheel for Python {python}: change `python`, or pin another {name}",
    ),
    _Case(
        re.compile(r"there\s+is\s+no\s+version\s+of\s+(?P<name>[\w.-]+)\s?(?P<version>[=<>!~][^\s,]*)"),
        "the index has no {name}{version}: look up which versions there are",
    ),
    _Case(
        re.compile(r"(?P<name>[\w.-]+)\s+was\s+not\s+found\s+in\s+the\s+(?:package\s+registry|provided|cache)"),
        "the index has no package `{name}`: is the name misspelt?",
    ),
    _Case(
        re.compile(
            r"Could not find a version that satisfies the requirement (?P<name>[\w.-]+)\S* \(from versions: none\)"
        ),
        "the index has no package `{name}` for Python {python}: is the name misspelt?",
    ),
    _Case(
        re.compile(
            r"(?:Could not find a version that satisfies the requirement|No matching distribution found for) (?P<name>[\w.-]+)"
        ),
        "the index has no such version of {name} for Python {python}: change `python`, or pin another {name}",
    ),
    _Case(
        re.compile(r"Because\s+you\s+require\s+(?P<name>[\w.-]+)\S*\s+and\s+(?P<other>[\w.-]+)"),
        "{name} and {other} cannot be had together: loosen one of the two",
    ),
    _Case(
        re.compile(
            r"And\s+because\s+you\s+require\s+(?P<name>[\w.-]+)\S*\s+we\s+can\s+conclude\s+that\s+your\s+requirements\s+are"
        ),
        "{name} as it is asked for does not go with the others: loosen one of them",
    ),
    _Case(re.compile(r"(?i)No space left on device"), "the disk is full: mlcli env prune, or uv cache prune"),
    _Case(
        re.compile(r"(?i)hash mismatch|hashes? (?:do not|don't) match"),
        "what the index sent is not what the hash says: check the hash, or whether something tampers with downloads",
    ),
    _Case(
        re.compile(r"(?i)status code 40[13]|\b40[13] (?:unauthorized|forbidden)"),
        "the index refuses access: check the credentials (UV_INDEX_*, netrc, keyring)",
    ),
    _Case(
        re.compile(
            r"(?i)dns error|failed to lookup|name or service not known|connection refused|network is unreachable|client error \(connect\)|newconnectionerror|timed? ?out|error sending request|tunnel error"
        ),
        "the package index cannot be reached: check the network, the proxy (HTTPS_PROXY) and the index URL",
    ),
    _Case(
        re.compile(r"(?i)status (?:code|server error)?.{0,20}\b5\d\d\b|HTTP status server error"),
        "the package index fails at the moment: try again later",
    ),
    _Case(
        re.compile(
            r"(?i)failed to (?:extract|unzip|read .*zip)|invalid zip|bad ?zip|unexpected end of (?:file|data)|error decoding response body|end of file before message length|connection (?:closed|reset)|eocd"
        ),
        "a download is damaged or was cut off: try again; if it stays so, uv cache clean",
    ),
    _Case(
        re.compile(r"(?i)failed to build [`']?(?P<name>[\w.-]+)|could not build wheels for (?P<other>[\w.-]+)"),
        "{name} has no wheel for Python {python} and its source does not build here: pin a version with a wheel, or change `python`",
    ),
    _Case(
        re.compile(r"(?i)couldn't parse requirement|invalid requirement|expected .* start of a requirement"),
        "one of the lines is no requirement: mlcli check names it",
    ),
    _Case(
        re.compile(r"(?i)no such file or directory|does not exist|distribution not found at"),
        "a file that a requirement names is not there; paths are seen from the project's folder",
    ),
    _Case(re.compile(r"(?i)permission denied"), "a folder cannot be written to: see MLCLI_ENV_ROOT and UV_CACHE_DIR"),
)


def explain(output: str, where: Sequence[Requirement], python: str) -> str:
    """Say in one line what an installer's last words mean, and which line of the project asks for it."""
    for case in _CASES:
        found = case.pattern.search(output)
        if found is None:
            continue
        words = {key: (value or "").strip("`'.,") for key, value in found.groupdict().items()}
        words["name"] = words.get("name") or words.get("other") or "a package"
        hint = case.hint.format(**{"version": "", "needs": "", "other": "", **words, "python": python})
        place = _place(words["name"], where)
        return f"{hint} ({place})" if place else hint
    return "the log has all of what the installer said"


def _place(name: str, where: Sequence[Requirement]) -> str | None:
    from mlcli.projects.requirements import normalise

    return next((item.place for item in where if item.name == normalise(name)), None)
