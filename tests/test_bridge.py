"""Scripts with the real MLflow under `mlcli run`: recorded here, unchanged, with every version that counts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow_environments import LEAN, PYTHONS, python_with
from served import Served

from mlcli import bridge
from mlcli.envs import Env
from mlcli.store import open_store

EXAMPLE = Path(__file__).parents[1] / "example_projects" / "tutorial_mlflow"


class Recorded(NamedTuple):
    """What a run left behind: the runs of the store by name, and what was printed."""

    done: subprocess.CompletedProcess[str]
    runs: dict[str, Any]

    @property
    def main(self) -> Any:
        return self.runs["main"]


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with one version of MLflow."""
    return python_with(request.param)


@pytest.fixture
def newest() -> Path:
    return python_with("newest")


@pytest.fixture
def run(mlcli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Recorded]:
    """Run a script under `mlcli run` with --env-manager=local and the Python given; the run is named `main`."""
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")  # see test_mlflow_clients.py
    monkeypatch.setenv("MPLBACKEND", "Agg")
    project = tmp_path / "project"
    project.mkdir()

    def call(python: Path, script: str, *args: str, check: int = 0, entry_points: str = "") -> Recorded:
        monkeypatch.setenv("PATH", f"{python.parent}{os.pathsep}{os.environ['PATH']}")
        (project / "train.py").write_text(textwrap.dedent(script))
        (project / "MLproject").write_text(
            'name: p\nentry_points:\n  main: {command: "python train.py"}\n' + entry_points
        )
        done = mlcli("run", project, "--env-manager=local", "--run-name=main", *args, check=check)
        listed = json.loads(mlcli("runs", "list", "--json").stdout)
        return Recorded(done, {item["info"]["run_name"]: item for item in listed})

    return call


@pytest.mark.slow
@pytest.mark.network
class TestEveryVersion:
    def test_a_script_that_never_starts_a_run_logs_into_the_run_that_mlcli_made(self, run, python: Path) -> None:
        found = run(
            python,
            """
            import mlflow
            mlflow.log_param("lr", 0.1)
            mlflow.log_metric("loss", 0.25, step=3)
            mlflow.log_text("hello", "notes/hello.txt")
            mlflow.set_tag("colour", "red")
            """,
        )
        assert list(found.runs) == ["main"]
        assert found.main["info"]["status"] == "FINISHED"
        assert found.main["data"]["params"] == {"lr": "0.1"}
        assert found.main["data"]["metrics"] == {"loss": 0.25}
        tags = found.main["data"]["tags"]
        assert tags["colour"] == "red"
        assert tags["mlflow.source.type"] == "PROJECT"
        assert (Path(found.main["info"]["artifact_uri"]) / "notes" / "hello.txt").read_text() == "hello"

    def test_autolog_logs_into_the_run_that_mlcli_made(self, run, python: Path) -> None:
        found = run(
            python,
            """
            import mlflow
            from sklearn.linear_model import LogisticRegression
            mlflow.sklearn.autolog(log_models=False)
            LogisticRegression(C=0.5).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
            """,
        )
        assert list(found.runs) == ["main"]
        assert found.main["data"]["params"]["C"] == "0.5"
        assert "training_score" in found.main["data"]["metrics"]
        assert found.main["data"]["tags"]["mlflow.autologging"] == "sklearn"

    def test_the_run_moves_to_the_experiment_that_the_script_chooses(self, run, python: Path) -> None:
        found = run(
            python,
            """
            import mlflow
            mlflow.set_experiment("chosen by the script")
            with mlflow.start_run() as run:
                mlflow.log_text("here", "where.txt")
                name = mlflow.get_experiment(run.info.experiment_id).name
            assert name == "chosen by the script", name
            assert [item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)].count("where.txt") == 1
            """,
            "--experiment-name=from the command line",
        )
        assert list(found.runs) == ["main"]
        assert "chosen by the script" in found.done.stderr
        assert found.main["info"]["experiment_id"] == "2"
        assert (Path(found.main["info"]["artifact_uri"]) / "where.txt").read_text() == "here"
        assert "logs/output.log" in _artifacts(found.main)

    def test_what_goes_to_a_store_that_the_script_chooses_is_said_in_one_line(
        self, run, python: Path, tmp_path: Path
    ) -> None:
        found = run(
            python,
            f"""
            import mlflow
            mlflow.set_tracking_uri("sqlite:///{tmp_path}/elsewhere.db")
            with mlflow.start_run(run_name="away"):
                mlflow.log_metric("m", 1)
            """,
            "--experiment-name=unknown over there",
        )
        assert list(found.runs) == ["main"]
        assert found.main["info"]["status"] == "FINISHED"
        (line,) = [line for line in found.done.stderr.splitlines() if "elsewhere itself" in line]
        assert f"sqlite:///{tmp_path}/elsewhere.db" in line

    def test_a_script_that_names_a_server_that_is_not_there_is_recorded_here(self, run, python: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            dead = f"http://localhost:{free.getsockname()[1]}"
        found = run(
            python,
            f"""
            import mlflow
            mlflow.set_tracking_uri("{dead}")
            mlflow.set_experiment("chosen by the script")
            with mlflow.start_run() as active:
                mlflow.log_param("lr", 0.1)
                mlflow.log_metric("loss", 0.25)
                mlflow.log_text("hello", "notes/hello.txt")
            client = mlflow.MlflowClient()
            assert [item.path for item in client.list_artifacts(active.info.run_id, "notes")] == ["notes/hello.txt"]
            assert mlflow.artifacts.load_text(active.info.artifact_uri + "/notes/hello.txt") == "hello"
            client.create_registered_model("wine")
            assert [model.name for model in client.search_registered_models()] == ["wine"]
            """,
        )
        assert list(found.runs) == ["main"]
        assert found.main["info"]["status"] == "FINISHED"
        assert found.main["data"]["params"] == {"lr": "0.1"}
        assert found.main["data"]["metrics"] == {"loss": 0.25}
        assert (Path(found.main["info"]["artifact_uri"]) / "notes" / "hello.txt").read_text() == "hello"
        (line,) = [line for line in found.done.stderr.splitlines() if "nothing answers" in line]
        assert dead in line
        assert "elsewhere itself" not in found.done.stderr

    def test_projects_that_a_script_runs_are_child_runs_in_the_same_environment(self, run, python: Path) -> None:
        found = run(
            python,
            """
            import mlflow
            with mlflow.start_run():
                one = mlflow.run(".", "step", parameters={"n": 2}, run_name="one")
                assert str(one.get_status()) in ("3", "RunStatus.FINISHED"), one.get_status()
                two = mlflow.projects.run(".", "step", parameters={"n": 3}, run_name="two", synchronous=False)
                assert two.wait()
                try:
                    mlflow.projects.run(".", "bad", run_name="three")
                except mlflow.exceptions.ExecutionException:
                    pass
                else:
                    raise AssertionError("a bad end was not told")
            """,
            entry_points=(
                "  step:\n    parameters: {n: int}\n"
                "    command: \"python -c 'import sys, mlflow; mlflow.log_metric(sys.argv[1], 1)' {n}\"\n"
                "  bad: {command: \"python -c 'raise SystemExit(3)'\"}\n"
            ),
        )
        assert set(found.runs) == {"main", "one", "two", "three"}
        parent = found.main["info"]["run_id"]
        for name, status in (("one", "FINISHED"), ("two", "FINISHED"), ("three", "FAILED")):
            assert found.runs[name]["info"]["status"] == status
            assert found.runs[name]["data"]["tags"]["mlflow.parentRunId"] == parent
            assert found.runs[name]["data"]["tags"]["mlcli.env.manager"] == "local"
        assert found.runs["two"]["data"]["metrics"] == {"3": 1.0}
        assert found.main["info"]["status"] == "FINISHED"


def _artifacts(run: Any) -> set[str]:
    root = Path(run["info"]["artifact_uri"])
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.network
class TestRuns:
    def test_the_first_run_is_mlclis_and_later_ones_are_new(self, run, newest: Path) -> None:
        found = run(
            newest,
            """
            import mlflow, os
            for number in range(3):
                with mlflow.start_run(run_name=f"number {number}") as run:
                    mlflow.log_metric("n", number)
                    with mlflow.start_run(nested=True, run_name=f"inner {number}"):
                        pass
                if number == 0:
                    assert run.info.run_id == os.environ["MLCLI_RUN_ID"]
            """,
        )
        names = {f"{kind} {number}" for kind in ("number", "inner") for number in range(3)}
        assert set(found.runs) == names
        for number in range(3):
            outer, inner = found.runs[f"number {number}"], found.runs[f"inner {number}"]
            assert outer["info"]["status"] == inner["info"]["status"] == "FINISHED"
            assert outer["data"]["metrics"] == {"n": number}
            assert inner["data"]["tags"]["mlflow.parentRunId"] == outer["info"]["run_id"]

    def test_the_end_of_mlflows_run_is_not_the_end_of_mlclis(self, run, newest: Path) -> None:
        found = run(
            newest,
            """
            import mlflow, sys
            with mlflow.start_run() as run:
                pass
            assert mlflow.get_run(run.info.run_id).info.status == "RUNNING"
            sys.exit(3)
            """,
            check=3,
        )
        assert found.main["info"]["status"] == "FAILED"
        assert found.main["data"]["tags"]["mlcli.exit_code"] == "3"

    @pytest.mark.parametrize("status", ["FAILED", "KILLED"])
    def test_an_end_that_a_script_gives_on_purpose_stands_when_it_exits_with_0(
        self, run, newest: Path, status: str
    ) -> None:
        found = run(newest, f"import mlflow\nmlflow.start_run()\nmlflow.end_run({status!r})\n")
        assert found.main["info"]["status"] == status

    def test_a_run_that_failed_and_is_taken_up_again_finishes(self, run, newest: Path) -> None:
        found = run(
            newest,
            """
            import mlflow
            run = mlflow.start_run()
            mlflow.end_run("FAILED")
            with mlflow.start_run(run_id=run.info.run_id):
                mlflow.log_metric("m", 1)
            """,
        )
        assert found.main["info"]["status"] == "FINISHED"
        assert found.main["data"]["metrics"] == {"m": 1.0}

    def test_runs_that_a_script_leaves_open_end_with_it(self, run, newest: Path) -> None:
        found = run(
            newest,
            """
            import mlflow
            mlflow.log_metric("m", 1)
            client = mlflow.MlflowClient()
            client.create_run("0", run_name="left open")
            """,
        )
        assert found.runs["left open"]["info"]["status"] == "FINISHED"

    def test_the_search_of_a_script_finds_its_own_run(self, run, newest: Path) -> None:
        run(
            newest,
            """
            import mlflow, os
            mlflow.log_metric("m", 7)
            assert list(mlflow.search_runs(filter_string="metrics.m = 7")["run_id"]) == [os.environ["MLCLI_RUN_ID"]]
            """,
            "--experiment-name=special",
        )

    def test_a_server_that_answers_gets_what_the_script_sends_there(self, run, newest: Path, tmp_path: Path) -> None:
        with Served(tmp_path / "theirs", token="of-somebody-elses-server") as served:
            address = served.url.replace("://", "://me:of-somebody-elses-server@")
            found = run(
                newest,
                f"""
                import mlflow
                mlflow.set_tracking_uri("{address}")
                with mlflow.start_run(run_name="away"):
                    mlflow.log_metric("m", 1)
                """,
            )
        assert found.main["data"]["metrics"] == {}
        assert "nothing answers" not in found.done.stderr
        assert f"elsewhere itself, by mlflow.set_tracking_uri: {served.url}" in found.done.stderr
        with open_store(str(tmp_path / "theirs")) as store:
            assert [(item.info.run_name, item.data.metrics) for item in store.search_runs()] == [("away", {"m": 1.0})]

    def test_a_proxy_and_a_users_credentials_for_another_server_do_no_harm(
        self, run, newest: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        found = run(newest, "import mlflow\nmlflow.log_metric('m', 1)\n")
        assert found.main["data"]["metrics"] == {"m": 1.0}

    def test_nobody_without_the_token_of_the_run_is_let_in(self, run, newest: Path) -> None:
        run(
            newest,
            """
            import os, urllib.error, urllib.request
            request = urllib.request.Request(
                os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/experiments/get?experiment_id=0")
            try:
                urllib.request.urlopen(request)
            except urllib.error.HTTPError as error:
                assert error.code == 401
            else:
                raise AssertionError("let in without a token")
            request.add_header("Authorization", "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"])
            assert b"Default" in urllib.request.urlopen(request).read()
            """,
        )

    def test_killing_mlcli_ends_the_server_and_closes_every_run(self, run, mlcli, newest: Path, tmp_path: Path) -> None:
        run(newest, "")
        script = tmp_path / "project" / "train.py"
        script.write_text(
            "import mlflow, os, time\n"
            "mlflow.log_metric('m', 1)\n"
            "mlflow.MlflowClient().create_run('0', run_name='left open')\n"
            f"open({str(tmp_path / 'address')!r}, 'w').write(os.environ['MLFLOW_TRACKING_URI'] + '\\n')\n"
            "time.sleep(600)\n"
        )
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlcli",
                "run",
                str(tmp_path / "project"),
                "--env-manager=local",
                "--run-name=killed",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = tmp_path / "address"
        _until(lambda: address.exists() and address.read_text().endswith("\n"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        port = int(address.read_text().rpartition(":")[2])
        _until(lambda: not _listens(port))

        def statuses() -> dict[str, str]:
            listed = json.loads(mlcli("runs", "list", "--json").stdout)
            return {item["info"]["run_name"]: item["info"]["status"] for item in listed}

        _until(lambda: "RUNNING" not in statuses().values())
        assert statuses() == {"main": "FINISHED", "killed": "KILLED", "left open": "KILLED"}


# -- stores on servers


@pytest.fixture(params=["mlcli", "mlflow"])
def address(request: pytest.FixtureRequest, tmp_path: Path, newest: Path) -> Iterator[str]:
    """The address of a server that runs, of ours or of MLflow's."""
    folder = tmp_path / "server"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ours = [sys.executable, "-m", "mlcli", "server", "--backend-store-uri", str(folder / "mlruns")]
    theirs = [str(newest), "-m", "mlflow", "server", "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*(ours if request.param == "mlcli" else theirs), "--host", "127.0.0.1", "--port", port],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **LEAN, "PATH": f"{newest.parent}{os.pathsep}{os.environ['PATH']}"},
            start_new_session=True,
        )
        try:
            _until(lambda: _listens(int(port)) or process.poll() is not None)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@pytest.mark.slow
@pytest.mark.network
def test_scripts_log_to_a_store_on_a_server_through_the_run_that_mlcli_made_there(
    run, newest: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCLI_TRACKING_URI", address)
    found = run(
        newest,
        """
        import mlflow, os
        mlflow.set_experiment("chosen by the script")
        with mlflow.start_run(tags={"colour": "red"}) as run:
            assert run.info.run_id == os.environ["MLCLI_RUN_ID"]
            mlflow.log_metric("m", 1)
            mlflow.log_text("x" * 3_000_000, "deep/er.txt")
            assert len(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/deep/er.txt")) == 3_000_000
            with mlflow.start_run(nested=True, run_name="inner"):
                mlflow.log_param("p", 1)
        mlflow.MlflowClient().create_run("0", run_name="left open")
        """,
    )
    assert set(found.runs) == {"main", "inner", "left open"}
    assert {item["info"]["status"] for item in found.runs.values()} == {"FINISHED"}
    assert found.main["data"]["metrics"] == {"m": 1.0}
    assert found.main["data"]["tags"]["colour"] == "red"
    assert found.main["data"]["tags"]["mlflow.source.type"] == "PROJECT"
    assert found.runs["inner"]["data"]["tags"]["mlflow.parentRunId"] == found.main["info"]["run_id"]
    moved = found.main["info"]["experiment_id"] == found.runs["inner"]["info"]["experiment_id"]
    assert moved == ("cannot move runs" not in found.done.stderr)
    assert "the script chose" in found.done.stderr


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


# -- without MLflow


def _environment(prefix: Path, *packages: str) -> Env:
    site = prefix / "lib" / "python3.9" / "site-packages"
    for name in packages:
        (site / name).mkdir(parents=True)
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    (prefix / "bin" / "python").touch()
    (prefix / "pyvenv.cfg").write_text("home = /nowhere/bin\ninclude-system-site-packages = false\n")
    return Env("virtualenv", "key", str(prefix), str(prefix / "bin" / "python"), "3.9.18")


@pytest.mark.parametrize(
    ("package", "found"),
    [
        ("mlflow-2.10.0.dist-info", True),
        ("mlflow_skinny-3.1.0.dist-info", True),
        ("mlflow-1.2.0-py3.6.egg-info", True),
        ("mlflow_export_import-1.2.0.dist-info", False),
        ("mlflow", False),
    ],
)
def test_mlflow_is_noticed_by_its_distribution(tmp_path: Path, package: str, found: bool) -> None:
    assert bridge.has_mlflow(_environment(tmp_path, package), {}) is found


def test_mlflow_on_pythonpath_is_noticed(tmp_path: Path) -> None:
    env = _environment(tmp_path / "env")
    assert not bridge.has_mlflow(env, {})
    (tmp_path / "more" / "mlflow-3.0.0.dist-info").mkdir(parents=True)
    assert bridge.has_mlflow(env, {"PYTHONPATH": str(tmp_path / "more")})


def test_mlflow_of_the_interpreter_below_counts_only_where_the_environment_sees_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "lib" / "python3.9" / "site-packages" / "mlflow-3.0.0.dist-info").mkdir(parents=True)
    env = _environment(tmp_path / "env")
    for sees in ("false", "true"):
        (tmp_path / "env" / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\ninclude-system-site-packages = {sees}\n")
        assert bridge.has_mlflow(env, {}) is (sees == "true")


def test_nothing_is_served_to_an_environment_without_mlflow(mlcli, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os\nprint(os.environ['MLFLOW_TRACKING_URI'], 'MLFLOW_TRACKING_TOKEN' in os.environ)\n"
    )
    said = mlcli("run", tmp_path / "train.py", "--env-manager=local").stdout
    assert said.startswith("file:///")
    assert said.split()[1] == "False"


# -- environments that mlcli builds


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("entry", ["main", "autolog"])
def test_the_tutorial_for_mlflow_as_it_was_written(mlcli, entry: str) -> None:
    done = mlcli("run", EXAMPLE, "-e", entry, check=None, timeout=600)
    if done.returncode == 5 and "3.9" in done.stderr and "installing" not in done.stderr:
        pytest.skip("needs a Python 3.9 (pyenv install 3.9, or uv python install 3.9)")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(mlcli("runs", "list", "--json").stdout)
    assert found["info"]["status"] == "FINISHED"
    assert found["data"]["params"]["penalty"] == "elasticnet"
    assert found["data"]["params"]["l1_ratio"] == "0.1"
    if entry == "autolog":
        assert 0 < found["data"]["metrics"]["training_score"] <= 1
        assert "training_confusion_matrix.png" in _artifacts(found)
    else:
        assert 0 < float(found["data"]["params"]["score"]) <= 1
    assert {"model/MLmodel", "model/model.pkl", "environment/requirements.txt"} <= _artifacts(found)
    root = Path(found["info"]["artifact_uri"])
    assert "mlflow==2.10.0" in (root / "environment" / "requirements.txt").read_text()
    assert "mlcli" not in (root / "model" / "requirements.txt").read_text()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("manager", ["virtualenv", "uv"])
@pytest.mark.parametrize(("pin", "version"), [("mlflow==2.22.*", "2.22."), ("mlflow>=3", "3.")])
def test_mlflow_pinned_by_a_project_logs_here_from_an_environment_of_its_own(
    mlcli, tmp_path: Path, manager: str, pin: str, version: str
) -> None:
    (tmp_path / "MLproject").write_text(
        'name: p\npython_env: env.yaml\nentry_points:\n  main: {command: "python train.py"}\n'
    )
    (tmp_path / "env.yaml").write_text(
        f"python: '3.11'\nbuild_dependencies: [pip, 'setuptools<81']\ndependencies: ['{pin}', 'sqlalchemy<2.1']\n"
    )
    (tmp_path / "train.py").write_text("import mlflow\nmlflow.log_param('version', mlflow.__version__)\n")
    mlcli("run", tmp_path, "--env-manager", manager, timeout=600)
    (found,) = json.loads(mlcli("runs", "list", "--json").stdout)
    assert found["data"]["params"]["version"].startswith(version)
    assert found["info"]["status"] == "FINISHED"
