"""Measure mlcli beside MLflow and beside the machine's limit, in one run: `python tests/benchmarks [--mlflow] [--write]`.

Commands are timed interleaved, round by round, so that a busy moment hits all of them; medians are compared as ratios.
`--mlflow` installs the newest MLflow into an environment of its own (kept in the cache); `--write` updates docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import server
from beside import install_mlflow, quiet

HERE = Path(__file__).parent
REPO = HERE.parents[1]
MLCLI = [str(Path(sys.executable).with_name("mlcli"))]


class Row(NamedTuple):
    """One line of the table; times in seconds, None where it was not measured."""

    what: str
    ours: float | None
    mlflow: float | None
    limit: float | None
    unit: str = "ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlflow", action="store_true", help="measure the newest MLflow beside it (installs it once)")
    parser.add_argument("--write", action="store_true", help="write the table to docs/benchmarks.md")
    parser.add_argument("--only", default="", help="only the parts whose name contains this")
    options = parser.parse_args()
    mlflow = install_mlflow() if options.mlflow else None
    rows: list[Row] = []
    parts = (
        commands,
        no_op_run,
        environments,
        calls,
        absorbing,
        importing,
        searching,
        evaluating,
        serving,
        modelling,
        footprint,
    )
    for part in parts:
        if options.only in part.__name__:
            with tempfile.TemporaryDirectory() as folder:
                print(f"... {part.__name__}", file=sys.stderr, flush=True)
                rows += part(Path(folder), mlflow)
    table = render(rows)
    print(table)
    if options.write:
        (REPO / "docs" / "benchmarks.md").write_text(document(table, mlflow), encoding="utf-8")
        readme = REPO / "README.md"
        before, rest = readme.read_text(encoding="utf-8").split("<!-- benchmarks -->")
        after = rest.split("<!-- /benchmarks -->")[1]
        short = "\n".join("|".join(line.split("|")[:5]) + "|" for line in table.splitlines())
        readme.write_text(f"{before}<!-- benchmarks -->\n{short}\n<!-- /benchmarks -->{after}", encoding="utf-8")


# -- parts


def commands(folder: Path, mlflow: Path | None) -> list[Row]:
    """Start-up of everyday commands on a store with one run."""
    quiet([*MLCLI, "experiments", "create", "bench"], folder)
    theirs = [str(mlflow / "mlflow")] if mlflow else None
    if theirs:
        quiet([*theirs, "experiments", "create", "-n", "bench"], folder)
    bare = [sys.executable, "-c", "pass"]
    rows = []
    for ours, other in (
        (["--version"], ["--version"]),
        (["--help"], ["--help"]),
        (["runs", "list"], ["runs", "list", "--experiment-id", "0"]),
    ):
        ours_, limit = interleaved([lambda a=ours: quiet([*MLCLI, *a], folder), lambda: quiet(bare, folder)], 15)
        rows.append(
            Row(
                f"mlcli {' '.join(ours)}",
                ours_,
                theirs and once(lambda a=other: quiet([*theirs, *a], folder), 3),
                limit,
            )
        )
    ours_, limit = interleaved(
        [lambda: quiet([sys.executable, "-c", "import mlcli"], folder), lambda: quiet(bare, folder)], 15
    )
    their_import = mlflow and once(lambda: quiet([str(mlflow / "python"), "-c", "import mlflow"], folder), 3)
    return [*rows, Row("import mlcli (with Python's start)", ours_, their_import, limit)]


def no_op_run(folder: Path, mlflow: Path | None) -> list[Row]:
    """A project whose script does nothing, in the current environment and in one built before."""
    project = folder / "noop"
    project.mkdir()
    (project / "MLproject").write_text("name: noop\nentry_points:\n  main:\n    command: python train.py\n")
    (project / "train.py").write_text("pass\n")
    env = {**os.environ, "MLCLI_ENV_ROOT": str(folder / "envs")}
    bare = lambda: quiet([sys.executable, "train.py"], project)  # noqa: E731
    local = lambda: quiet([*MLCLI, "run", "noop", "--env-manager=local"], folder, env)  # noqa: E731
    built = lambda: quiet([*MLCLI, "run", "noop"], folder, env)  # noqa: E731
    built()
    ours, reused, limit = interleaved([local, built, bare], 11)
    theirs = mlflow and once(
        lambda: quiet([str(mlflow / "mlflow"), "run", "noop", "--env-manager=local"], folder, _path(mlflow)), 3
    )
    return [
        Row("run of a no-op project, local", ours, theirs, limit),
        Row("the same in an environment built before", reused, None, ours),
    ]


def environments(folder: Path, _mlflow: Path | None) -> list[Row]:
    """Build scikit-learn + pandas + numpy with the package cache warm."""
    project = folder / "build"
    project.mkdir()
    version = ".".join(platform.python_version_tuple()[:2])
    pins = (
        ["scikit-learn==1.4.0", "pandas==2.2.0", "numpy==1.26.3"]
        if version <= "3.12" and len(version) == 4
        else ["scikit-learn", "pandas", "numpy"]
    )
    (project / "python_env.yaml").write_text(json.dumps({"python": version, "dependencies": pins}))
    (project / "MLproject").write_text(
        "name: build\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: python -c pass\n"
    )
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    number = iter(range(1000))

    def build(manager: str) -> None:
        root = folder / f"envs{next(number)}"
        quiet([*MLCLI, "run", "build", f"--env-manager={manager}"], folder, {**os.environ, "MLCLI_ENV_ROOT": str(root)})
        shutil.rmtree(root)

    def floor() -> None:
        place = folder / f"floor{next(number)}"
        quiet([uv, "venv", "-q", "--python", sys.executable, str(place)], folder)
        quiet([uv, "pip", "install", "-q", "--offline", "--python", str(place / "bin" / "python"), *pins], folder)
        shutil.rmtree(place)

    build("virtualenv")
    virtualenv, uv_manager, limit = interleaved([lambda: build("virtualenv"), lambda: build("uv"), floor], 3)
    return [
        Row("build scikit-learn + pandas + numpy, warm, virtualenv", virtualenv, None, limit),
        Row("the same, uv", uv_manager, None, limit),
    ]


def calls(folder: Path, mlflow: Path | None) -> list[Row]:
    """Calls of the tracking API, per call."""
    ours = measured(sys.executable, "mlcli", folder / "ours", 100_000, 2_000)
    theirs = measured(str(mlflow / "python"), "mlflow", folder / "theirs", 300, 30) if mlflow else {}
    return [
        Row("log_metric, one call", ours["log_metric"], theirs.get("log_metric"), ours["write"], "us"),
        Row("start_run + end_run", ours["start_end"], theirs.get("start_end"), None, "us"),
        Row("metric history, 100,000 points", ours["history"], None, None),
    ]


def modelling(folder: Path, mlflow: Path | None) -> list[Row]:
    """Log a forest of 100 trees with an input example, and load it; the limit is pickle alone."""
    ours = measured(sys.executable, "mlcli", folder / "ours", 11, script="modelling.py")
    theirs = measured(str(mlflow / "python"), "mlflow", folder / "theirs", 1, script="modelling.py") if mlflow else {}
    return [
        Row("log_model, a forest with an input example", ours["log_model"], theirs.get("log_model"), ours["pickle"]),
        Row("pyfunc.load_model of it, checked", ours["load_model"], theirs.get("load_model"), ours["pickle"]),
    ]


def absorbing(folder: Path, _mlflow: Path | None) -> list[Row]:
    """Bring 600,000 metric lines into the database; seconds per million."""
    done = subprocess.run(
        [sys.executable, HERE / "absorb.py", folder / "mlruns"], capture_output=True, text=True, check=True
    )
    return [Row("absorb a journal, per metric", float(done.stdout), None, None, "us")]


def importing(folder: Path, _mlflow: Path | None) -> list[Row]:
    """Bring 10,000 runs with a million metric points here from MLflow's file store."""
    done = subprocess.run([sys.executable, HERE / "importing.py", folder], capture_output=True, text=True, check=True)
    return [Row("import from MLflow's file store, per metric point", float(done.stdout) / 1_000_000, None, None, "us")]


def searching(folder: Path, _mlflow: Path | None) -> list[Row]:
    """A param and a metric condition, ordered by the metric, ten back, in process."""
    rows = []
    for runs in (1_000, 10_000, 100_000):
        done = subprocess.run(
            [sys.executable, HERE / "search.py", folder / str(runs), str(runs)],
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(Row(f"search by param and metric, 10 of {runs:,} runs", float(done.stdout), None, None))
    return rows


def evaluating(folder: Path, _mlflow: Path | None) -> list[Row]:
    """Five-fold evaluation, CPU; the limit is scikit-learn alone, with the same folds and scores."""
    done = subprocess.run([sys.executable, HERE / "evaluating.py", folder], capture_output=True, text=True, check=True)
    return [
        Row(f"evaluate in 5 folds, {name} model (CPU)", times["ours"], None, times["limit"])
        for name, times in json.loads(done.stdout).items()
    ]


def serving(_folder: Path, mlflow: Path | None) -> list[Row]:
    """The server under load; the time of a request is a second by the requests of a second."""
    kinds = [kind for kind, budget in server.BUDGETS.items() if budget]
    ours = server.measure(server.ours(), 3.0, kinds)
    theirs = server.measure(server.theirs(mlflow), 3.0, kinds) if mlflow else None
    floor = server.floor(2.0)
    rows = [
        Row("server: start to the first answer", ours.start, theirs and theirs.start, None),
        Row("server: memory under load", ours.memory, theirs and theirs.memory, None, "MB"),
    ]
    rows += [
        Row(
            f"server: {kind}, {clients} client{'s' if clients > 1 else ''}, a request",
            1 / found.rate,
            theirs and 1 / theirs.loads[kind, clients].rate,
            1 / floor[clients].rate,
        )
        for (kind, clients), found in ours.loads.items()
    ]
    call, _ = server.through_the_client()
    return [*rows, Row("log_metric to a server, one call", call / 1e6, None, None, "us")]


def footprint(folder: Path, mlflow: Path | None) -> list[Row]:
    """What an installation adds."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    quiet([uv, "venv", "-q", "--python", sys.executable, str(folder / "v")], folder)
    empty = size(folder / "v")
    quiet(
        [uv, "pip", "install", "-q", "--link-mode=copy", "--python", str(folder / "v" / "bin" / "python"), str(REPO)],
        folder,
    )
    theirs = mlflow and size(mlflow.parent) / 1e6
    packages = len(list((folder / "v").glob("lib/*/site-packages/*.dist-info")))
    their_packages = mlflow and len(list(mlflow.parent.glob("lib/*/site-packages/*.dist-info")))
    return [
        Row("installed size", (size(folder / "v") - empty) / 1e6, theirs, None, "MB"),
        Row("installed packages", packages, their_packages, None, ""),
    ]


# -- measuring


def interleaved(actions: list[Callable[[], None]], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    for _ in range(rounds):
        for action, found in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def once(action: Callable[[], None], rounds: int) -> float:
    return interleaved([action], rounds)[0]


def measured(python: str, module: str, folder: Path, *numbers: int, script: str = "calls.py") -> dict[str, float]:
    folder.mkdir()
    env = {**os.environ, "MLFLOW_TRACKING_URI": "", "MLCLI_TRACKING_URI": ""}
    done = subprocess.run(
        [python, HERE / script, module, *map(str, numbers)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _path(programs: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


# -- telling


def render(rows: list[Row]) -> str:
    lines = ["| what | mlcli | MLflow | times less | limit | x limit |", "|---|---|---|---|---|---|"]
    for row in rows:
        ratio = f"{row.mlflow / row.ours:,.0f}" if row.mlflow and row.ours else ""
        over = f"{row.ours / row.limit:.1f}" if row.limit and row.ours else ""
        cells = [
            row.what,
            shown(row.ours, row.unit),
            shown(row.mlflow, row.unit),
            ratio,
            shown(row.limit, row.unit),
            over,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit in ("MB", ""):
        return f"{value:,.0f} {unit}".strip()
    scaled = value * {"ms": 1e3, "us": 1e6}[unit]
    return f"{scaled:,.2f} {unit}" if scaled < 10 else f"{scaled:,.0f} {unit}"


def document(table: str, mlflow: Path | None) -> str:
    found = ""
    if mlflow:
        found = (
            ", "
            + subprocess.run(
                [mlflow / "mlflow", "--version"], capture_output=True, text=True, check=True
            ).stdout.strip()
        )
    return (
        "# Benchmarks\n\n"
        f"Medians of one run of `python tests/benchmarks --mlflow --write` on {datetime.date.today():%Y-%m-%d}: "
        f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}{found}. "
        "Absolute figures drift with the machine; the ratios hold.\n\n"
        "The limit is a bare `python -c pass` for commands, `python train.py` for runs, one `os.write` for `log_metric`, "
        "`uv venv` + `uv pip install --offline` for builds, uvicorn with an application that answers at once for requests.\n\n"
        f"{table}\n"
    )


if __name__ == "__main__":
    main()
