"""The newest MLflow beside which things are measured, in an environment of its own that is kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def install_mlflow() -> Path:
    """The folder of programs of an environment with the newest MLflow."""
    place = Path.home() / ".cache" / "mlcli-benchmarks" / "mlflow"
    if not (place / "bin" / "mlflow").exists():
        print("... installing MLflow", file=sys.stderr)
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
        quiet([uv, "venv", "-q", "--clear", "--python", sys.executable, str(place)], Path.home())
        quiet(
            [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(place / "bin" / "python"), "mlflow"],
            Path.home(),
        )
    return place / "bin"


def quiet(command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        sys.exit(f"$ {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
