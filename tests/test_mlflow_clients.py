"""MLflow's own clients, of today, of version 2 and of the year the tutorials are from, against `mlcli server`.

Each in an environment of its own, which uv builds once and keeps under ~/.cache/mlcli-tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow_environments import PYTHONS, python_with

SCRIPTS = Path(__file__).with_name("mlflow_scripts")
SCRIPT = SCRIPTS / "every_call.py"
# What the script checks; one name is missing here when a check is added there, and the test says so.
CHECKS = [
    line[len("def ") :].partition("(")[0]
    for before, line in zip(SCRIPT.read_text().splitlines(), SCRIPT.read_text().splitlines()[1:], strict=False)
    if before == "@check"
]

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an `mlcli server` that all the clients share, as a team would."""
    folder = tmp_path_factory.mktemp("server")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlcli", "server", "--backend-store-uri", str(folder / "mlruns"), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        try:
            yield _address(folder / "log", process)
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert "Traceback" not in (folder / "log").read_text()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    while process.poll() is None:
        for word in log.read_text().split():
            if "http://127.0.0.1:" in word:
                return word[word.index("http://") :]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _environ(python: Path, server: str, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MPLBACKEND": "Agg",
        # MLflow 2.10 looks at distutils before setuptools does, which setuptools of today does not like.
        "SETUPTOOLS_USE_DISTUTILS": "stdlib",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _client(python: Path, server: str, home: Path, *arguments: object) -> str:
    done = subprocess.run(
        [str(python), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=_environ(python, server, home),
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with one version of MLflow."""
    return python_with(request.param)


@pytest.fixture(scope="module")
def answers(python: Path, server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each check of the script, run by one version of MLflow."""
    home = tmp_path_factory.mktemp("client")
    result: dict[str, str] = json.loads(_client(python, server, home, SCRIPT).splitlines()[-1])
    return result


@pytest.mark.parametrize("name", CHECKS)
def test_mlflows_client_finds_what_it_expects(answers: dict[str, str], name: str) -> None:
    assert answers[name] == "ok", answers[name]


@pytest.fixture
def mlflow(python: Path, server: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """MLflow's command line; each call is a process of its own, and none imports MLflow again."""
    with subprocess.Popen(
        [python, SCRIPTS / "command_line.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environ(python, server, tmp_path),
        cwd=tmp_path,
    ) as process:
        assert process.stdin
        assert process.stdout

        def call(*arguments: str) -> str:
            print(json.dumps(arguments), file=process.stdin, flush=True)
            code, said = json.loads(process.stdout.readline())
            assert code == 0, said
            return str(said)

        yield call
        process.stdin.close()


def test_mlflows_command_line_works_against_the_server(
    mlflow: Callable[..., str], python: Path, server: str, tmp_path: Path
) -> None:
    name = f"by-hand-{python.parents[1].name}"
    assert _client(python, server, tmp_path, "-m", "mlflow", "experiments", "search")  # as it is called in earnest
    made = mlflow("experiments", "create", "-n", name)
    experiment = made.split()[-1]
    assert name in mlflow("experiments", "search")
    mlflow("experiments", "rename", "-x", experiment, "--new-name", name + "-renamed")
    assert name + "-renamed" in mlflow("experiments", "csv", "-x", experiment) + mlflow("experiments", "search")
    script = "import mlflow, sys; r = mlflow.start_run(experiment_id=sys.argv[1]); print('run', r.info.run_id)"
    said = _client(python, server, tmp_path, "-c", script, experiment)
    run_id = next(line.split()[1] for line in said.splitlines() if line.startswith("run "))
    assert run_id in mlflow("runs", "list", "--experiment-id", experiment)
    assert json.loads(mlflow("runs", "describe", "--run-id", run_id))["info"]["run_id"] == run_id
    (tmp_path / "note.txt").write_text("hello")
    mlflow("artifacts", "log-artifact", "--local-file", "note.txt", "--run-id", run_id)
    assert json.loads(mlflow("artifacts", "list", "--run-id", run_id))[0]["path"] == "note.txt"
    mlflow("artifacts", "download", "--run-id", run_id, "--artifact-path", "note.txt", "--dst-path", "got")
    assert (tmp_path / "got" / "note.txt").read_text() == "hello"
    mlflow("runs", "delete", "--run-id", run_id)
    assert run_id not in mlflow("runs", "list", "--experiment-id", experiment)
    mlflow("runs", "restore", "--run-id", run_id)
    assert run_id in mlflow("runs", "list", "--experiment-id", experiment)
    mlflow("experiments", "delete", "-x", experiment)
    assert name + "-renamed" not in mlflow("experiments", "search")
    mlflow("experiments", "restore", "-x", experiment)
    assert name + "-renamed" in mlflow("experiments", "search")


def test_the_server_is_healthy_after_all_of_them(server: str) -> None:
    with urlopen(f"{server}/health", timeout=10) as answer:
        assert answer.read() == b"OK"
