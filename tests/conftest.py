"""What every test gets: an empty home, empty caches, no setting of the caller's, and a folder of its own to stand in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import postgres as servers
import pytest
from stores import KINDS, LOCAL_KINDS, NOT_BEHIND_A_SERVER, Kind

from mlcli.store import Store

SETTING_PREFIXES = ("MLCLI_", "MLFLOW_", "GIT_AUTHOR_", "GIT_COMMITTER_")


# What programs leave in the folder for such things, MLflow's locks among it, goes when the tests end. Not for the tests'
# own process: pytest keeps its folders where it found them.
_FOR_PROGRAMS = tempfile.mkdtemp(prefix="mlcli-tests-")
os.chmod(_FOR_PROGRAMS, 0o711)  # PostgreSQL runs as another user, in a folder below it
os.environ["TMPDIR"] = _FOR_PROGRAMS

# Stores wait for the disk at each change, some milliseconds; in memory they do not, and no test pulls the plug.
MEMORY = "/dev/shm"
LEAST_MEMORY = 2_000_000_000


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder like tmp_path, in memory where there is some to spare, and gone after the test."""
    folder = Path(tempfile.mkdtemp(prefix="mlcli-test-", dir=MEMORY if _spare(MEMORY) else None)).resolve()
    yield folder
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o700)  # some tests take rights away
    shutil.rmtree(folder, ignore_errors=True)


def _spare(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > LEAST_MEMORY


@pytest.fixture(autouse=True)
def _isolated(
    tmp_path_factory: pytest.TempPathFactory, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    work = quick_path / "work"
    work.mkdir()
    for name in list(os.environ):
        if name.startswith(SETTING_PREFIXES) or name in (
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "NO_COLOR",
            "FORCE_COLOR",
            "COLUMNS",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
    # One cache of downloads for the whole test run: what is tested is what mlcli builds, not the network.
    monkeypatch.setenv("UV_CACHE_DIR", os.environ.get("UV_CACHE_DIR") or str(Path(_REAL_HOME) / ".cache" / "uv"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    (home / "gitconfig").write_text("[user]\nname = Test\nemail = test@example.invalid\n[init]\ndefaultBranch = main\n")
    # As in an activated environment: `python` is the one that runs the tests.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(work)
    yield
    servers.give_back()


_REAL_HOME = os.path.expanduser("~")


@pytest.fixture
def root(quick_path: Path) -> Path:
    """A folder for a store; nothing is in it yet."""
    return quick_path / "mlruns"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [
        item
        for item in items
        if not ("[rest" in item.name and getattr(item, "originalname", "") in NOT_BEHIND_A_SERVER)
    ]


# Tests that share what is dear (a server of MLflow's, every estimator fitted) go to one worker of the test run, and first.
_TOGETHER = re.compile(
    r"(test_rest)\.py::.*\[mlflow"
    r"|(test_mlflow_clients)\.py::.*\[(?P<version>[^-\]]+)"
    r"|(test_model_safety)\.py::test_every_estimator"
    r"|(test_serving_beside_mlflow)\.py"
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = _TOGETHER.search(nodeid)
            return nodeid if found is None else " ".join(filter(None, found.groups()))

    return Scheduling(config, log)


@pytest.fixture(params=sorted(KINDS))
def store(request: pytest.FixtureRequest, root: Path) -> Iterator[Store]:
    """A store of each kind, new and open."""
    with KINDS[request.param](root) as opened:
        yield opened


@pytest.fixture(params=sorted(LOCAL_KINDS))
def open_at(request: pytest.FixtureRequest) -> Kind:
    """Opens the store of a folder, of each kind that applies the folder's journals itself."""
    return LOCAL_KINDS[request.param]


@pytest.fixture(scope="session")
def postgres() -> servers.Server:
    """A PostgreSQL server of the tests' own, started when the first test wants it."""
    return servers.running()


def pytest_sessionfinish() -> None:
    servers.stop()
    shutil.rmtree(_FOR_PROGRAMS, ignore_errors=True)


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, Any], None]:
    """Write what a simulation measured into the report of the test run, which docs/proof.py reads."""

    def write(what: str, numbers: Any) -> None:
        record_property(what, ", ".join(f"{float(number):.3g}" for number in np.atleast_1d(numbers)))

    return write


@pytest.fixture
def mlcli():
    """Run the command line in a process of its own: ``mlcli("runs", "list", check=0)`` gives the CompletedProcess."""

    def call(
        *args: object, check: int | None = 0, timeout: float = 120, **options: object
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "mlcli", *map(str, args)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        if check is not None:
            assert done.returncode == check, (
                f"exit {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
            )
        return done

    return call
