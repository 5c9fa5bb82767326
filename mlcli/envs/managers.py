"""The env managers that build: each is one function that fills a folder, in one table.

    virtualenv   the virtualenv program makes the folder, uv (or pip) installs into it
    uv           uv does both
    conda        conda, mamba or micromamba does all of it, from the conda file

``local`` and ``docker`` build nothing; see mlcli.envs.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Protocol

from mlcli import config
from mlcli.envs import env as envs
from mlcli.envs import installer
from mlcli.envs.python import which
from mlcli.errors import EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.envs.installer import Build
    from mlcli.envs.python import Python
    from mlcli.projects.envfile import EnvSpec
    from mlcli.projects.requirements import Requirement

_ANY_VERSION_WILL_DO = frozenset({"pip", "setuptools", "wheel"})
_FIRST_PYTHON_OF_VIRTUALENV = (3, 8)


class Manager(Protocol):
    """Fill the folder ``prefix`` with an environment of this Python; conda chooses its own."""

    def __call__(self, build: Build, spec: EnvSpec, python: Python, prefix: str) -> None: ...


def virtualenv(build: Build, spec: EnvSpec, python: Python, prefix: str) -> None:
    if python.numbers < _FIRST_PYTHON_OF_VIRTUALENV:  # virtualenv 21 starts at 3.8; uv still makes older ones
        uv(build, spec, python, prefix)
        return
    # Without seeds: pip, setuptools and wheel come from `build_dependencies`, in the versions that stand there. Only to
    # install with pip there must be one to begin with.
    # Symlinked app-data: virtualenv remembers there what it learned of each interpreter.
    cache = os.path.join(config.cache_root(), "virtualenv")
    command = [sys.executable, "-m", "virtualenv", "--no-periodic-update", "--app-data", cache]
    command += ["--python", python.path, "--no-vcs-ignore", "--quiet", prefix]
    if config.setting("installer").value != "pip":
        command.append("--no-seed")
    build.run(command, doing="virtualenv", cwd=prefix, python=python.version)
    _install(build, spec, python, prefix)


def uv(build: Build, spec: EnvSpec, python: Python, prefix: str) -> None:
    command = [installer.uv(), "venv", "--quiet", "--allow-existing", "--no-project", "--python", python.path, prefix]
    build.run(command, doing="uv venv", cwd=prefix, python=python.version)
    _install(build, spec, python, prefix)


def conda(build: Build, spec: EnvSpec, python: Python, prefix: str) -> None:
    del python
    program = find_conda()
    file = os.path.join(spec.folder, spec.conda_file or "")
    # `env create` wants to make the folder itself, and conda resolves pip's relative paths beside the file.
    os.rmdir(prefix)
    micro = "micromamba" in os.path.basename(program)
    command = [program, *(["create"] if micro else ["env", "create"]), "--yes", "-p", prefix, "-f", file]
    if not micro and "conda" in os.path.basename(program):
        command.remove("--yes")  # older condas do not know it for `env create`, and none of them asks
    build.progress(f"{os.path.basename(program)} is building the environment; this takes minutes")
    build.run(command, doing=f"{os.path.basename(program)} env create", cwd=spec.folder)


MANAGERS: dict[str, Manager] = {"virtualenv": virtualenv, "uv": uv, "conda": conda}


def find_conda() -> str:
    """The conda of this machine: CONDA_EXE, MLFLOW_CONDA_HOME, then conda, mamba, micromamba on PATH."""
    home = os.environ.get("MLFLOW_CONDA_HOME")
    folder = "Scripts" if sys.platform == "win32" else "bin"
    named = [
        os.environ.get("CONDA_EXE"),
        os.environ.get("MAMBA_EXE"),
        os.path.join(home, folder, "conda") if home else None,
    ]
    for path in named:
        if path and os.access(path, os.X_OK):
            return path
    for name in ("conda", "mamba", "micromamba"):
        found = which(name, os.environ)
        if found is not None:
            return found
    raise EnvError(
        "conda was asked for, and neither conda nor mamba nor micromamba is here",
        hint="leave --env-manager away: the conda file is then built without conda; or set CONDA_EXE",
    )


# -- what virtualenv and uv share


def _install(build: Build, spec: EnvSpec, python: Python, prefix: str) -> None:
    interpreter = envs.interpreter(prefix)
    limits = _write(prefix, "constraints", spec, spec.constraints) if spec.constraints else None
    for name, what, items in (
        ("build-requirements", "build dependency", spec.build_dependencies),
        ("requirements", "package", spec.dependencies),
    ):
        packages = [item for item in items if installs(item)]
        if not packages:
            continue
        file = _write(prefix, name, spec, items, limits)
        amount = count(len(packages), what)
        options = _options(items)
        installer.install(build, interpreter, python.version, file, pinned=pinned(items), options=options, count=amount)


def count(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    return f"{number} {what[:-1] + 'ies' if what.endswith('y') else what + 's'}"


def _write(prefix: str, name: str, spec: EnvSpec, items: Sequence[Requirement], limits: str | None = None) -> str:
    """Write requirement lines to a file of the environment, every relative path made absolute."""
    lines = [placed(item, spec.folder) for item in items if not _UNKNOWN_TO_FILES.match(item.text)]
    if limits is not None:
        lines.append(f"-c {limits}")
    path = os.path.join(prefix, f".mlcli-{name}.txt")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def placed(item: Requirement, folder: str) -> str:
    if item.path is not None:
        return item.text.replace(item.path, envs.absolute(item.path, folder), 1)
    links = re.fullmatch(r"(--find-links(?:\s+|=)|-f\s*)(.+)", item.text)
    if links is not None and "://" not in links[2]:
        beside = os.path.dirname(os.path.join(folder, item.file))
        found = [os.path.join(parent, links[2]) for parent in (beside, folder)]
        return f"--find-links {next((path for path in found if os.path.exists(path)), found[-1])}"
    return item.text


# -- options that pip takes from a requirements file and uv takes on its command line only

_UNKNOWN_TO_FILES = re.compile(r"--(?:pre|trusted-host|prefer-binary|use-feature|require-hashes|no-verify-hashes)\b")


def _options(items: Sequence[Requirement]) -> list[str]:
    if config.setting("installer").value == "pip":
        return _pip_options(items)
    options: list[str] = []
    for item in items:
        text = item.text
        if re.match(r"--pre\b", text):
            options += ["--prerelease", "allow"]
        elif (host := re.match(r"--trusted-host[\s=]+(\S+)", text)) is not None:
            options += ["--allow-insecure-host", host[1]]
        elif text.startswith("--require-hashes"):
            options.append("--require-hashes")
    if any(re.match(r"--extra-index-url\b", item.text) for item in items):
        # As pip does, which such files were written for: the best version wins, from whichever index it comes.
        options += ["--index-strategy", "unsafe-best-match"]
    return options


def _pip_options(items: Sequence[Requirement]) -> list[str]:
    return [part for item in items if _UNKNOWN_TO_FILES.match(item.text) for part in re.split(r"[\s=]+", item.text)]


def installs(item: Requirement) -> bool:
    """Tell a line that installs something from an option."""
    return not item.text.startswith("-") or re.match(r"-[er]|--editable|--requirement", item.text) is not None


def pinned(items: Sequence[Requirement]) -> bool:
    """Tell whether the cache alone may answer: each line is one exact version, or a tool of which any will do."""
    return all(_EXACT.search(item.text) or item.name in _ANY_VERSION_WILL_DO for item in items if installs(item))


_EXACT = re.compile(r"^[^/\s]+\s*(?<![=!<>~])==\s*[^*\s,/]+(?:\s*;.*|\s+--hash.*)?$")
