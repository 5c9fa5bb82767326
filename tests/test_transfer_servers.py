"""From and to running servers, mlcli's in this process; MLflow's own stores, written and served by the real MLflow."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import mlflow_folders as theirs
import pytest
from mlflow_environments import PYTHONS, python_with
from mlflow_folders import CHILD, EXPERIMENT, RUN, TIME
from served import Served

from mlcli.entities import Metric, ViewType
from mlcli.store import Store, open_store
from mlcli.store.rest import RestStore
from mlcli.transfer.filestore import FileStore
from mlcli.transfer.into import bring
from mlcli.transfer.ours import OurStore
from mlcli.transfer.records import Trouble
from mlcli.transfer.send import RUN_ID, send
from mlcli.transfer.server import Server
from mlcli.transfer.sources import open_sources

HISTORY = Path(__file__).with_name("mlflow_scripts") / "history.py"


@pytest.fixture
def filled(root: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with what a file store of MLflow's held, and a logged model."""
    with open_store(str(root)) as store:
        bring(FileStore(str(theirs.full(tmp_path / "there" / "mlruns"))), store)
        model = store.create_logged_model(EXPERIMENT, "line", RUN, {"t": "u"}, {"k": "v"}, "lines")
        theirs.write(Path(model.artifact_location) / "MLmodel", "flavors: {}\n")
        store.finalize_logged_model(model.model_id, "READY")
        store.log_batch(RUN, [Metric("long", step / 7, TIME + step, step) for step in range(2500)])
        yield store


def sent(store: Store, url: str) -> tuple[dict[str, int], list[Trouble]]:
    troubles: list[Trouble] = []
    return send(OurStore(store.root, store=store), url, troubles.append), troubles


def check_sent(filled: Store, there: RestStore) -> None:
    """Everything of ``filled`` is on the server, under ids of the server's."""
    experiment = there.find_experiment("wine")
    assert experiment is not None
    runs = {run.data.tags[RUN_ID]: run for run in there.search_runs([experiment.experiment_id], view_type=ViewType.ALL)}
    one, other = filled.get_run(RUN), runs[RUN]
    assert set(runs) == {RUN, CHILD}
    assert (other.info.status, other.info.end_time, other.info.run_name) == ("FINISHED", TIME + 1000, "brisk-heron-1")
    assert other.data.params == one.data.params
    assert other.inputs.dataset_inputs == one.inputs.dataset_inputs
    assert runs[CHILD].data.tags["mlflow.parentRunId"] == other.info.run_id
    assert runs[CHILD].info.lifecycle_stage == "deleted"
    history = there.get_metric_history(other.info.run_id, "loss")
    assert [point.step for point in history] == [0, 1, 2, 3]
    assert math.isnan(history[1].value)
    assert len(there.get_metric_history(other.info.run_id, "long")) == 2500
    assert {version.version for version in there.search_model_versions("name = 'scorer'")} == {"1", "3"}
    assert there.get_model_version_by_alias("scorer", "champion").run_id == other.info.run_id


def test_what_is_sent_to_a_server_is_there_and_goes_once(filled: Store, tmp_path: Path) -> None:
    with Served(tmp_path / "served") as served:
        counts, troubles = sent(filled, served.url)
        assert not [trouble for trouble in troubles if trouble.lost], troubles
        assert (counts["runs"], counts["artifact_files"], counts["logged_models"]) == (2, 2, 1)
        store = RestStore(served.url)
        check_sent(filled, store)
        again, _ = sent(filled, served.url)
        assert (again["runs"], again["runs_there_already"], again["model_versions"]) == (0, 2, 0)
        check_sent(filled, store)


def test_what_a_server_has_comes_with_its_ids_and_files(filled: Store, tmp_path: Path) -> None:
    with Served(Path(filled.root)) as served, open_store(str(tmp_path / "other")) as other:
        (source,) = open_sources(served.url, other.root)
        report = bring(source, other)
        assert report.complete, report.troubles
        for run_id in (RUN, CHILD):
            one, two = filled.get_run(run_id), other.get_run(run_id)
            assert two == one._replace(info=two.info)
            assert two.info == one.info._replace(artifact_uri=two.info.artifact_uri)
        assert other.get_metric_history(RUN, "long") == filled.get_metric_history(RUN, "long")
        assert Path(other.artifact_root(RUN), "plots", "loss.txt").read_text() == "a picture"
        assert other.get_registered_model("scorer").aliases == {"champion": "3"}
        (model,) = other.search_logged_models([EXPERIMENT])
        assert Path(model.artifact_location, "MLmodel").read_text() == "flavors: {}\n"
        assert bring(Server(served.url), other).counts["runs_here_already"] == 2


def test_an_import_goes_into_a_store_of_this_machine(mlcli, filled: Store, tmp_path: Path) -> None:
    with Served(tmp_path / "served") as served:
        told = mlcli("--tracking-uri", served.url, "import", filled.root, check=2).stderr
        assert "an import goes into a store of this machine" in told
        told = mlcli("--tracking-uri", served.url, "export", "-o", "x.zip", check=2).stderr
        assert "`mlcli import http://...` brings the runs here first" in told


def test_the_command_sends_to_a_server(mlcli, filled: Store, tmp_path: Path) -> None:
    with Served(tmp_path / "served") as served:
        done = mlcli("--tracking-uri", filled.root, "export", RUN, "--to", served.url)
        assert f"1 run, 2,506 metric points, 2 files went to {served.url}" in done.stderr


# -- the real MLflow


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def python(request: pytest.FixtureRequest) -> Path:
    try:
        return python_with(request.param)
    except (AssertionError, OSError) as error:
        pytest.skip(f"MLflow {request.param} cannot be installed here: {error}")


def real_environment() -> dict[str, str]:
    return {
        **os.environ,
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_store_of_the_real_mlflow_comes_whole(root: Path, tmp_path: Path, python: Path, kind: str) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    uri = f"file://{folder}/mlruns" if kind == "file" else f"sqlite:///{folder}/mlflow.db"
    done = subprocess.run(
        [python, HISTORY, uri], cwd=folder, env=real_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    sources = open_sources(str(folder), str(root))
    assert len(sources) == 1
    with open_store(str(root)) as store:
        report = bring(sources[0], store)
        sources[0].close()
        assert report.complete, report.troubles
        check_history(store, made)


def check_history(store: Store, made: dict[str, object]) -> None:
    experiment_id = made["experiments"]["Linear Models"]
    assert store.get_experiment(experiment_id).tags == {"team": "blue", "mlflow.note.content": "all about lines"}
    assert store.get_experiment(made["experiments"]["Abandoned"]).lifecycle_stage == "deleted"
    parent = store.get_run(made["parent"])
    assert parent.info.experiment_id == experiment_id
    assert parent.data.params == {
        "alpha": "0.5",
        "data/path": "train.csv",
        "empty": "",
        "unicode": "grün\nzweite Zeile",
    }
    assert parent.data.tags["mlflow.note.content"] == "a parent"
    history = store.get_metric_history(made["parent"], "loss")
    assert {point.step: point.value for point in history if point.step != 1 and point.step < 3} == {0: 1.5, 2: 0.25}
    assert math.isnan(next(point.value for point in history if point.step == 1))
    (item,) = parent.inputs.dataset_inputs
    assert (item.dataset.name, dict(item.tags)) == ("wine", {"mlflow.data.context": "training"})
    assert Path(store.artifact_root(made["parent"]), "notes", "hello.txt").read_text() == "hello\n"
    child = store.get_run(made["child"])
    assert child.data.tags["mlflow.parentRunId"] == made["parent"]
    assert len(store.get_metric_history(made["child"], "acc/val")) == 250
    stages = {name: store.get_run(made[name]).info for name in ("failed", "deleted", "open", "lost")}
    assert (stages["failed"].status, stages["open"].status) == ("FAILED", "RUNNING")
    assert (stages["deleted"].lifecycle_stage, stages["lost"].experiment_id) == (
        "deleted",
        made["experiments"]["Abandoned"],
    )
    assert [version.version for version in store.search_model_versions("name = 'scorer'")] == ["3", "1"]
    assert store.get_model_version_by_alias("scorer", "champion").run_id == made["parent"]
    assert store.get_model_version("scorer", "3").current_stage == "Production"
    for model_id in made["models"]:
        model = store.get_logged_model(model_id)
        assert (model.name, model.params, model.status) == ("line", {"k": "v"}, "READY")
        assert Path(model.artifact_location, "MLmodel").exists()


@pytest.mark.slow
@pytest.mark.network
def test_runs_go_to_the_real_mlflow_server_and_come_back(filled: Store, tmp_path: Path, python: Path) -> None:
    with real_server(python, tmp_path) as url:
        counts, troubles = sent(filled, url)
        known = [trouble for trouble in troubles if "does not know them" not in trouble.why]
        assert not [trouble for trouble in known if trouble.lost], troubles
        assert counts["runs"] == 2
        check_sent(filled, RestStore(url))
        again, _ = sent(filled, url)
        assert (again["runs"], again["runs_there_already"], again["model_versions"]) == (0, 2, 0)
        with open_store(str(tmp_path / "back")) as back:
            report = bring(Server(url), back)
            assert report.complete, report.troubles
            run = next(run for run in back.search_runs() if run.data.tags[RUN_ID] == RUN)
            assert Path(back.artifact_root(run.info.run_id), "plots", "loss.txt").read_text() == "a picture"
            assert len(back.get_metric_history(run.info.run_id, "long")) == 2500
            assert bring(Server(url), back).counts["runs_here_already"] == 2


@contextmanager
def real_server(python: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [python.with_name("mlflow"), "server", *store, "--port", str(port), "--workers", "1"],
            env={**real_environment(), "PATH": f"{python.parent}:{os.environ['PATH']}"},
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while not answers(url):
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (URLError, OSError):
        return False
