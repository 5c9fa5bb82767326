"""Environments with the real MLflow and other libraries, built by uv once and kept between test runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

_ROOT = Path(os.path.expanduser("~")) / ".cache" / "mlcli-tests"
_COMMON = ["matplotlib", "pillow"]
# MLflow 2.10 needs these beside it today: SQLAlchemy 2.1, setuptools 81, NumPy 2 and pandas 3 came after it.
_OF_ITS_TIME = ["sqlalchemy<2.1", "setuptools<81", "numpy<2", "scikit-learn==1.4.0", "pandas<3"]

# MLflow's server without the seven processes that wait for jobs of generative models.
LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# Those that every test of MLflow's clients is about.
PYTHONS = {
    "newest": ["mlflow>=3", "scikit-learn"],
    "2.22": ["mlflow==2.22.*", "sqlalchemy<2.1", "setuptools<81", "scikit-learn<1.8", "pandas<3"],
    "2.10.0": ["mlflow==2.10.0", *_OF_ITS_TIME],
}
# Beside a model's own library. XGBoost's wheel without the libraries of graphics cards, and PyTorch's last such one.
OTHERS = {
    "boosters": ["mlflow>=3", "scikit-learn", "xgboost-cpu", "lightgbm"],
    "torch": ["mlflow==2.22.*", "sqlalchemy<2.1", "setuptools<81", "numpy<2", "pandas<3", "torch==1.12.1"],
    "tea-tasting": ["tea-tasting==1.14.*"],
    "old scikit-learn": ["scikit-learn==1.0.*", "numpy<1.24", "pandas", "cloudpickle"],
}


def python_with(version: str, python: str = "3.11") -> Path:
    """The interpreter of the environment with that MLflow; built now if it is not there."""
    return built(f"mlflow-{version}", [*{**PYTHONS, **OTHERS}[version], *_COMMON], python)


def python_with_lightning() -> Path:
    """The interpreter of the environment with PyTorch Lightning. pip may know a place of PyTorch's that uv does not."""
    return built("lightning", ["lightning", "cloudpickle"], by_pip=("torch==2.13.0",))


# The Python that an environment is for, where it is not the newest that all of its libraries know.
OLDER = {"torch": "3.10", "old scikit-learn": "3.8"}


def build_all() -> None:
    """Build every environment, two at a time; what cannot be had here is told and left to the tests to skip."""
    builders = [lambda name=name: python_with(name, OLDER.get(name, "3.11")) for name in (*PYTHONS, *OTHERS)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(build) for build in (*builders, python_with_lightning)]:
            error = done.exception()
            if error is not None:
                print(f"not built: {error}", file=sys.stderr)


def built(name: str, wanted: list[str], python: str = "3.11", *, by_pip: tuple[str, ...] = ()) -> Path:
    """The interpreter of an environment with these packages; built now if it is not there.

    ``by_pip`` are packages that pip may know another place of than uv does; they are installed first.
    """
    key = hashlib.sha256("\n".join([*by_pip, *wanted]).encode()).hexdigest()[:8]
    folder = _ROOT / f"{name}-{key}"
    done = folder / "complete"
    _ROOT.mkdir(parents=True, exist_ok=True)
    with (_ROOT / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one test run build it once
        if not done.exists():
            uv = [sys.executable, "-m", "uv"]
            seed = ["--seed"] if by_pip else []
            _call([*uv, "venv", "--quiet", "--clear", *seed, "--python", interpreter(python), str(folder)])
            if by_pip:
                _call([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *by_pip])
            _call([*uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *wanted])
            done.touch()
    return folder / "bin" / "python"


def interpreter(version: str) -> str:
    """A Python of that version (or at that path) that is on this machine: uv would download one, which not every network allows."""
    if os.sep in version:
        return version
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    kept = sorted((_ROOT.parent.parent / ".pyenv" / "versions").glob(f"{version}.*/bin/python3"))
    found = str(kept[-1]) if kept else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"there is no Python {version} here")
    return found


def _call(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
