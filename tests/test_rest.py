"""mlcli as a client, of an mlcli server and of a real MLflow server: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from certificates import self_signed
from chaos import Chaos
from mlflow_environments import LEAN, python_with
from served import Served

from mlcli import journal
from mlcli.entities import Metric, Param, RunTag
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound, StoreUnavailable
from mlcli.store import Store, config, open_store, store_root
from mlcli.store import http as requests


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    try:
        python = python_with("newest")
    except AssertionError as error:
        pytest.skip(f"the newest MLflow cannot be installed here: {str(error)[-200:]}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, *words], cwd=folder, stdout=log, stderr=log, env={**environ, **LEAN}, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield url
        os.killpg(process.pid, signal.SIGKILL)  # asked to end it takes ten seconds, for a store that nobody reads again
        process.wait(30)


@pytest.fixture
def ours(root: Path) -> Iterator[Served]:
    with Served(root) as served:
        yield served


@pytest.fixture(params=["mlcli", pytest.param("mlflow", marks=[pytest.mark.network, pytest.mark.slow])])
def url(request: pytest.FixtureRequest) -> str:
    """The address of a server of each kind."""
    if request.param == "mlcli":
        return str(request.getfixturevalue("ours").url)
    return str(request.getfixturevalue("mlflow_server"))


@pytest.fixture
def remote(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


@pytest.fixture
def chaos(url: str) -> Iterator[Chaos]:
    with Chaos(int(url.rpartition(":")[2])) as proxy:
        yield proxy
        requests.server(proxy.url).close()


def script(text: str, url: str, *, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program that logs to the server at ``url``."""
    done = subprocess.run(
        [sys.executable, "-c", "import mlcli, os, sys, time\n" + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "MLCLI_TRACKING_URI": url, **variables},
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def spooled() -> list[Path]:
    """What still waits to be sent."""
    base = Path(config.state_root()) / "spool"
    return [path for path in base.rglob("*") if path.is_file() and path.name not in ("server.json", ".tmp-tables.lock")]


def steps(store: Store, run_id: str, key: str = "loss") -> list[int]:
    return [point.step for point in store.get_metric_history(run_id, key)]


@pytest.fixture
def unused() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# --- the store's methods, over both kinds of servers


def test_a_run_is_written_and_read_back(remote: Store) -> None:
    experiment = remote.ensure_experiment("what is written")
    run_id = remote.create_run(experiment.experiment_id, 1000, {"team": "blue"}, "calm-owl-1", "ann").info.run_id
    points = [Metric("loss", 0.5, 10, 1), Metric("loss", float("nan"), 20, 2)]
    remote.log_batch(run_id, points, [Param("lr", "0.1")], [RunTag("stage", "draft")])
    remote.update_run(run_id, "FINISHED", 5000)
    found = remote.get_run(run_id)
    assert (found.info.run_name, found.info.user_id, found.info.status) == ("calm-owl-1", "ann", "FINISHED")
    assert (found.info.start_time, found.info.end_time) == (1000, 5000)
    assert found.data.params == {"lr": "0.1"}
    assert found.data.tags == {**found.data.tags, "team": "blue", "stage": "draft"}
    history = remote.get_metric_history(run_id, "loss")
    assert [(point.step, point.timestamp, str(point.value)) for point in history] == [(1, 10, "0.5"), (2, 20, "nan")]


def test_a_batch_larger_than_a_request_may_be_goes_in_parts(remote: Store) -> None:
    run_id = remote.create_run("0").info.run_id
    points = [Metric("loss", float(step), 1, step) for step in range(2500)]
    remote.log_batch(run_id, points, [Param(f"p{place}", "1") for place in range(250)])
    assert steps(remote, run_id) == list(range(2500))
    assert len(remote.get_run(run_id).data.params) == 250


def test_our_own_server_takes_a_large_batch_whole_or_not_at_all(ours: Served) -> None:
    with open_store(ours.url) as store:
        run_id = store.create_run("0").info.run_id
        store.log_batch(run_id, params=[Param("p249", "another")])
        points = [Metric("loss", float(step), 1, step) for step in range(2500)]
        with pytest.raises(InvalidInput, match="p249"):
            store.log_batch(run_id, points, [Param(f"p{place}", "1") for place in range(250)])
        assert steps(store, run_id) == []
        assert store.get_run(run_id).data.params == {"p249": "another"}


def test_a_batch_beyond_what_our_server_takes_goes_in_parts(ours: Served) -> None:
    with open_store(ours.url) as store:
        run_id = store.create_run("0").info.run_id
        store.log_batch(run_id, params=[Param(f"p{place}", "x" * 6000) for place in range(3000)])
        assert len(store.get_run(run_id).data.params) == 3000


def test_a_run_is_found_by_a_part_of_its_id_by_its_name_and_by_its_place(remote: Store) -> None:
    first = remote.create_run("0", journal.now() + 10_000_000, run_name="one of a kind").info.run_id
    latest = remote.create_run("0", journal.now() + 20_000_000).info.run_id
    assert remote.find_run(first[:12]) == remote.find_run("one of a kind") == remote.find_run("latest~1") == first
    assert remote.find_run("latest") == latest
    with pytest.raises(NotFound):
        remote.find_run("no such run")


def test_of_runs_that_began_together_the_one_that_is_nobodys_child_is_the_latest(remote: Store) -> None:
    time = journal.now() + 30_000_000
    search = remote.create_run("0", time).info.run_id
    for _ in range(12):
        remote.create_run("0", time, tags={"mlflow.parentRunId": search})
    before = remote.create_run("0", time - 1).info.run_id
    assert remote.find_run("latest") == search
    assert remote.find_run("latest~13") == before
    for run in remote.search_runs(["0"], f"attributes.start_time >= {time - 1}"):
        remote.delete_run(run.info.run_id)


def test_what_is_not_there_is_not_found(remote: Store) -> None:
    with pytest.raises(NotFound):
        remote.get_run("0" * 32)
    with pytest.raises(NotFound):
        remote.get_experiment("987654")
    assert remote.find_experiment("nowhere") is None
    with pytest.raises(NotFound):
        remote.get_metric_history("0" * 32, "loss")


def test_what_is_wrong_is_told_in_our_own_errors(remote: Store) -> None:
    remote.create_experiment("taken once")
    with pytest.raises(AlreadyExists):
        remote.create_experiment("taken once")
    run_id = remote.create_run("0").info.run_id
    remote.log_batch(run_id, params=[Param("lr", "1")])
    with pytest.raises(InvalidInput):
        remote.log_batch(run_id, params=[Param("lr", "2")])
    with pytest.raises(InvalidInput):
        remote.search_runs(["0"], "this is no filter")
    remote.delete_run(run_id)
    with pytest.raises(InvalidState):
        remote.log_batch(run_id, tags=[RunTag("a", "b")])


def test_a_deleted_run_comes_back(remote: Store) -> None:
    run_id = remote.create_run("0").info.run_id
    remote.delete_run(run_id)
    assert remote.get_run(run_id).info.lifecycle_stage == "deleted"
    remote.restore_run(run_id)
    assert remote.get_run(run_id).info.lifecycle_stage == "active"


def test_searches_page(remote: Store) -> None:
    experiment_id = remote.create_experiment("pages")
    made = {remote.create_run(experiment_id, tags={"place": str(place)}).info.run_id for place in range(5)}
    first = remote.search_runs([experiment_id], max_results=3)
    second = remote.search_runs([experiment_id], max_results=3, page_token=first.token)
    assert len(first) == 3
    assert second.token is None
    assert {run.info.run_id for run in [*first, *second]} == made
    (found,) = remote.search_runs(None, "tags.place = '3'")
    assert found.info.run_id in made


def test_the_registry_is_kept(remote: Store) -> None:
    run_id = remote.create_run("0").info.run_id
    remote.create_registered_model("iris", {"a": "b"}, "flowers")
    version = remote.create_model_version("iris", f"runs:/{run_id}/model", run_id)
    remote.set_registered_model_alias("iris", "best", version.version)
    assert remote.get_model_version_by_alias("iris", "best").run_id == run_id
    model = remote.get_registered_model("iris")
    assert (model.description, model.tags, model.aliases) == ("flowers", {"a": "b"}, {"best": "1"})
    assert [item.version for item in remote.search_model_versions("name = 'iris'")] == ["1"]
    remote.delete_registered_model("iris")
    with pytest.raises(NotFound):
        remote.get_registered_model("iris")


# --- a program that logs


def test_a_program_logs_as_to_a_folder(url: str, remote: Store, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(3_000_000))
    done = script(
        """
        mlcli.set_experiment("a program")
        with mlcli.start_run(run_name="first", tags={"team": "blue"}) as run:
            mlcli.log_params({"lr": 0.1, "layers": 3})
            for step in range(5000):
                mlcli.log_metric("loss", step / 2, step=step)
            mlcli.log_text("hello", "notes/hello.txt")
            mlcli.log_artifact(sys.argv[-1] if len(sys.argv) > 1 else os.environ["BIG"])
            mlcli.log_table({"a": [1], "b": [2]}, "table.json")
            mlcli.log_table({"a": [3], "b": [4]}, "table.json")
            with mlcli.start_run(nested=True) as child:
                mlcli.log_metric("inner", 1)
            assert len(mlcli.Client().get_metric_history(run.info.run_id, "loss")) == 5000
        print(run.info.run_id, child.info.run_id)
        """,
        url,
        BIG=str(tmp_path / "big.bin"),
    )
    run_id, child_id = done.stdout.split()
    run, child = remote.get_run(run_id), remote.get_run(child_id)
    assert (run.info.status, run.info.run_name, child.info.status) == ("FINISHED", "first", "FINISHED")
    assert run.data.params == {"lr": "0.1", "layers": "3"}
    assert child.data.tags["mlflow.parentRunId"] == run_id
    assert steps(remote, run_id) == list(range(5000))
    from mlcli.artifacts import open_artifacts

    files = open_artifacts(remote.artifact_root(run_id))
    assert {file.path for file in files.walk()} == {"notes/hello.txt", "big.bin", "table.json"}
    files.get("", str(tmp_path / "all"))
    assert (tmp_path / "all" / "big.bin").read_bytes() == (tmp_path / "big.bin").read_bytes()
    assert json.loads((tmp_path / "all" / "table.json").read_text())["data"] == [[1, 2], [3, 4]]
    assert spooled() == []


def test_a_run_left_open_is_ended_at_exit_whatever_store_came_before(url: str, remote: Store, tmp_path: Path) -> None:
    done = script(
        """
        mlcli.set_tracking_uri(os.environ["LOCAL"])
        with mlcli.start_run():
            pass
        mlcli.set_tracking_uri(os.environ["URL"])
        mlcli.log_metric("loss", 1)
        print(mlcli.active_run().info.run_id)
        """,
        url,
        LOCAL=str(tmp_path / "local"),
        URL=url,
    )
    assert done.stderr == ""
    run = remote.get_run(done.stdout.strip())
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})
    assert spooled() == []


def test_logging_costs_the_program_no_wait(ours: Served) -> None:
    """A server that takes a request and never answers holds nobody up: the lines lie in the spool."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        done = script(
            """
            from mlcli.store import http, spool
            run = mlcli.start_run()
            run.journal.close()
            spool._kinds[os.environ["DEAF"]] = True
            writer = spool.writer(os.environ["DEAF"])
            for step in range(100_000):
                writer.metric(run.info.run_id, "loss", 1.0, step)
            print(sum(1 for line in open(writer.path)))
            sys.stdout.flush()
            os._exit(0)
            """,
            ours.url,
            DEAF=f"http://127.0.0.1:{port}",
        )
    assert done.stdout.split() == ["100001"]


def test_an_exception_fails_the_run(url: str, remote: Store) -> None:
    done = script("with mlcli.start_run() as run:\n    print(run.info.run_id, flush=True)\n    1 / 0", url, check=False)
    assert remote.get_run(done.stdout.strip()).info.status == "FAILED"


def test_forked_children_log_to_their_parents_run(url: str, remote: Store) -> None:
    done = script(
        """
        with mlcli.start_run() as run:
            mlcli.log_metric("loss", 0, step=0)
            children = []
            for place in range(1, 4):
                child = os.fork()
                if not child:
                    for step in range(100):
                        mlcli.log_metric("loss", 1.0, step=place * 1000 + step)
                    os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
        print(run.info.run_id)
        """,
        url,
    )
    run_id = done.stdout.strip()
    logged = sorted(steps(remote, run_id))  # the children log at the same time
    assert logged == [0, *[place * 1000 + step for place in (1, 2, 3) for step in range(100)]]
    assert remote.get_run(run_id).info.status == "FINISHED"
    assert spooled() == []


def test_a_killed_program_loses_nothing_and_its_run_is_closed_by_sync(url: str, remote: Store, mlcli) -> None:
    done = script(
        """
        run = mlcli.start_run()
        print(run.info.run_id, flush=True)
        time.sleep(1)  # the run has its place on the server
        for step in range(3000):
            mlcli.log_metric("loss", 1.0, step=step)
        os.kill(os.getpid(), 9)
        """,
        url,
        check=False,
    )
    run_id, died = done.stdout.strip(), journal.now() + 100
    assert done.returncode == -signal.SIGKILL
    time.sleep(0.3)
    assert remote.get_run(run_id).info.status == "RUNNING"
    mlcli("sync", "--tracking-uri", url)
    assert steps(remote, run_id) == list(range(3000))
    found = remote.get_run(run_id)
    assert (found.info.status, found.data.tags["mlcli.end_reason"]) == ("KILLED", "its process died without ending it")
    assert found.info.end_time is not None
    assert found.info.start_time < found.info.end_time < died
    assert spooled() == []
    before = remote.get_run(run_id)
    mlcli("sync", "--tracking-uri", url)
    assert remote.get_run(run_id) == before


def test_a_line_that_is_refused_keeps_back_nothing(url: str, remote: Store) -> None:
    done = script(
        """
        run = mlcli.start_run()
        for value in ("1", "2"):
            run.journal.params(run.info.run_id, {"lr": value, f"with {value}": "x"})
        os.write(run.journal.fileno(), b'this is no JSON\\n{"metric": "nameless"}\\n')
        os.write(run.journal.fileno(), b'{"run": "%s", "tag": "bytes", "value": "\\xff\\xfe"}\\n' % run.info.run_id.encode())
        mlcli.log_metric("loss", float("-inf"), step=-3)
        mlcli.set_tag("after", "grün")
        mlcli.end_run()
        print(run.info.run_id)
        """,
        url,
    )
    run = remote.get_run(done.stdout.strip())
    assert (run.info.status, run.data.tags["after"], run.data.params["lr"]) == ("FINISHED", "grün", "1")
    assert {"with 1"} <= set(run.data.params)
    assert steps(remote, run.info.run_id) == [-3]


# --- a bad network


def test_a_reply_that_is_cut_off_makes_nothing_twice(chaos: Chaos, remote: Store) -> None:
    with open_store(chaos.url) as store:
        chaos.cut_replies = 1
        experiment_id = store.create_experiment("cut off")
        chaos.cut_replies = 1
        run_id = store.create_run(experiment_id).info.run_id
        chaos.cut_replies = 2
        store.log_batch(run_id, [Metric("loss", 1.0, 1, step) for step in range(10)], [Param("a", "1")])
        chaos.cut_replies = 1
        store.set_tag(run_id, "a", "b")
        chaos.cut_replies = 1
        store.delete_tag(run_id, "a")
        assert chaos.cut_replies == 0
    (run,) = remote.search_runs([experiment_id])
    assert run.info.run_id == run_id
    assert steps(remote, run_id) == list(range(10))
    assert "a" not in run.data.tags


def test_a_journal_goes_over_a_bad_network_once_and_in_order(chaos: Chaos, remote: Store) -> None:
    chaos.only, chaos.cut_replies = b"POST ", 4
    done = script(
        """
        with mlcli.start_run() as run:
            for step in range(20_000):
                mlcli.log_metric("loss", step, step=step)
                if step % 5000 == 0:
                    mlcli.set_tag("at", step)
                    time.sleep(0.3)
        print(run.info.run_id)
        """,
        chaos.url,
    )
    run_id = done.stdout.strip()
    assert chaos.cut_replies == 0
    assert steps(remote, run_id) == list(range(20_000))
    run = remote.get_run(run_id)
    assert (run.info.status, run.data.tags["at"]) == ("FINISHED", "15000")
    assert len(remote.search_runs(None, f"attributes.run_name = '{run.info.run_name}'")) == 1


def test_a_download_that_is_cut_goes_on_and_arrives_whole(chaos: Chaos, remote: Store, tmp_path: Path) -> None:
    content = os.urandom(2_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    with open_store(chaos.url) as store:
        from mlcli.artifacts import open_artifacts

        run_id = store.create_run("0").info.run_id
        files = open_artifacts(store.artifact_root(run_id))
        chaos.only, chaos.cut_replies = b"PUT ", 1
        files.put(str(tmp_path / "big.bin"))
        chaos.only, chaos.cut_after, chaos.cuts = b"big.bin HTTP", 600_000, 3
        files.get("big.bin", str(tmp_path / "copy"))
    assert chaos.cuts == 0
    assert (tmp_path / "copy").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")) == []


# --- the server goes away (mlcli's own, which can be stopped and started here)


SLOW = """
import mlcli, time
with mlcli.start_run() as run:
    print(run.info.run_id, flush=True)
    for step in range(600):
        mlcli.log_metric("loss", step, step=step)
        time.sleep(0.005)
"""
WAITING = """
import mlcli, sys
with mlcli.start_run() as run:
    print(run.info.run_id, flush=True)
    sys.stdin.readline()
    for step in range(500):
        mlcli.log_metric("loss", step, step=step)
    mlcli.log_param("lr", 1)
    mlcli.log_text("hello", "a/b.txt")
"""


def test_the_run_goes_on_while_the_server_restarts(ours: Served) -> None:
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SLOW,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLCLI_TRACKING_URI": ours.url},
    )
    with program:
        assert program.stdout
        run_id = program.stdout.readline().strip()
        time.sleep(0.5)
        ours.stop()
        time.sleep(0.7)
        ours.start()
        assert program.wait(60) == 0
    with open_store(ours.url) as store:
        assert steps(store, run_id) == list(range(600))
        assert store.get_run(run_id).info.status == "FINISHED"


FLOOD = """
import mlcli, time
with mlcli.start_run() as run:
    print(run.info.run_id, flush=True)
    for step in range(20_000):
        mlcli.log_metric("loss", step, step=step)
        if step % 20 == 0:
            time.sleep(0.001)
"""


@pytest.mark.slow
def test_a_server_killed_again_and_again_in_a_flood_has_each_point_once(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlcli", "server", "--port", str(port), "--backend-store-uri", str(root)]

    def started() -> subprocess.Popen[bytes]:
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        return server

    server = started()
    environ = {**os.environ, "MLCLI_TRACKING_URI": f"http://127.0.0.1:{port}"}
    programs = [
        subprocess.Popen([sys.executable, "-c", FLOOD], stdout=subprocess.PIPE, text=True, env=environ)
        for _ in range(3)
    ]
    try:
        for _ in range(4):
            time.sleep(0.4)
            server.kill()
            server.wait()
            server = started()
        ended = [program.communicate(timeout=90)[0].strip() for program in programs]
        assert [program.returncode for program in programs] == [0, 0, 0]
        with open_store(f"http://127.0.0.1:{port}") as store:
            assert {run.info.run_id: run.info.status for run in store.search_runs(None)} == dict.fromkeys(
                ended, "FINISHED"
            )
            for run_id in ended:
                assert steps(store, run_id) == list(range(20_000))
    finally:
        server.kill()
        server.wait()


def test_a_server_that_stays_away_costs_nothing_but_a_sync(ours: Served, mlcli) -> None:
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            WAITING,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLCLI_TRACKING_URI": ours.url, "MLCLI_SYNC_WAIT": "0.5"},
    )
    with program:
        assert program.stdout
        run_id = program.stdout.readline().strip()
        ours.stop()
        _, told = program.communicate("go\n", timeout=60)
        assert program.returncode == 0
        assert "mlcli sync" in told
    assert spooled()
    assert mlcli("sync", "--tracking-uri", ours.url, check=6).stderr
    ours.start()
    mlcli("sync")
    assert spooled() == []
    with open_store(ours.url) as store:
        run = store.get_run(run_id)
        assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "1"})
        assert steps(store, run_id) == list(range(500))
        from mlcli.artifacts import open_artifacts

        assert [file.path for file in open_artifacts(store.artifact_root(run_id)).walk()] == ["a/b.txt"]


def test_a_server_that_is_not_there_is_told_in_a_sentence(unused: str, mlcli) -> None:
    done = mlcli("runs", "list", "--tracking-uri", unused, check=6)
    assert "cannot reach the tracking server" in done.stderr
    assert "mlcli server" in done.stderr


# --- mlcli run

PROJECT = """\
name: demo
entry_points:
  main:
    parameters: {alpha: {type: float, default: 0.5}}
    command: "python train.py {alpha}"
"""
TRAIN = """\
import os, mlcli
print("said by the program")
with mlcli.start_run():
    mlcli.log_metric("loss", 0.25, step=3)
    mlcli.log_text("made", "made.txt")
with open(os.environ["MLCLI_JOURNAL"], "a") as file:
    file.write('{"metric": "shell", "value": 7}\\n')
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text(PROJECT)
    (folder / "train.py").write_text(TRAIN)
    return folder


def test_mlcli_run_records_on_the_server(url: str, remote: Store, project: Path, mlcli) -> None:
    done = mlcli("run", project, "--env-manager", "local", "-P", "alpha=0.7", "--json", "--tracking-uri", url)
    run_id = json.loads(done.stdout)["info"]["run_id"]
    run = remote.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"alpha": "0.7"}
    assert run.data.metrics == {"loss": 0.25, "shell": 7.0}
    assert run.data.tags["mlcli.exit_code"] == "0"
    listed = mlcli("artifacts", "list", run_id, "--tracking-uri", url).stdout
    assert {"made.txt", "logs/output.log"} <= {line.split("\t")[0] for line in listed.splitlines()}
    assert mlcli("runs", "logs", run_id, "--tracking-uri", url).stdout == "said by the program\n"
    assert spooled() == []


def test_mlcli_run_stops_before_anything_slow_when_its_server_is_not_there(unused: str, project: Path, mlcli) -> None:
    done = mlcli("run", project, "--env-manager", "local", "--tracking-uri", unused, check=6)
    assert "said by the program" not in done.stdout
    assert spooled() == []


def test_mlcli_run_keeps_what_it_cannot_send(ours: Served, project: Path, mlcli) -> None:
    (project / "train.py").write_text("import sys\nprint('waits', flush=True)\nsys.stdin.readline()\nsys.exit(3)\n")
    program = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "run", str(project), "--env-manager", "local"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLCLI_TRACKING_URI": ours.url, "MLCLI_SYNC_WAIT": "0.3"},
    )
    with program:
        assert program.stdout
        assert program.stdout.readline() == "waits\n"
        ours.stop()
        _, told = program.communicate("go\n", timeout=100)
    assert program.returncode == 3
    assert "mlcli sync" in told
    ours.start()
    mlcli("sync")
    with open_store(ours.url) as store:
        (run,) = store.search_runs(None)
        assert (run.info.status, run.data.tags["mlcli.exit_code"]) == ("FAILED", "3")
    assert mlcli("runs", "logs", run.info.run_id, "--tracking-uri", ours.url).stdout == "waits\n"
    assert spooled() == []


def test_a_killed_mlcli_run_is_sent_by_sync(ours: Served, project: Path, mlcli) -> None:
    (project / "train.py").write_text("import time\nprint('waits', flush=True)\ntime.sleep(60)\n")
    program = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "run", str(project), "--env-manager", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "MLCLI_TRACKING_URI": ours.url},
    )
    with program:
        assert program.stdout
        assert program.stdout.readline() == "waits\n"
        program.kill()
    with open_store(ours.url) as store:
        for _ in range(50):  # the guardian has a moment to end the program
            mlcli("sync", "--tracking-uri", ours.url)
            (run,) = store.search_runs(None)
            if run.info.status == "KILLED":
                break
            time.sleep(0.2)
    assert (run.info.status, run.data.tags["mlcli.end_reason"]) == ("KILLED", "mlcli was killed")
    assert mlcli("runs", "logs", run.info.run_id, "--tracking-uri", ours.url).stdout == "waits\n"
    assert spooled() == []


# --- who we are


def test_a_server_that_wants_a_token_gets_it(root: Path, tmp_path: Path, mlcli) -> None:
    (tmp_path / "token").write_text("a-token-of-forty-characters-or-so-012345")
    (tmp_path / "token").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlcli", "server", "--port", str(port), "--backend-store-uri", str(root)]
    program = subprocess.Popen(
        [*words, "--token-file", str(tmp_path / "token")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    with program:
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            refused = mlcli("runs", "list", "--tracking-uri", url, check=6)
            assert "MLCLI_TRACKING_TOKEN" in refused.stderr
            token = (tmp_path / "token").read_text()
            done = script(
                "with mlcli.start_run() as run: mlcli.log_metric('loss', 1); mlcli.log_text('a', 'b.txt')",
                url,
                MLCLI_TRACKING_TOKEN=token,
            )
            assert token not in done.stdout + done.stderr
            listed = mlcli(
                "runs", "list", "--json", "--tracking-uri", url, env={**os.environ, "MLFLOW_TRACKING_TOKEN": token}
            )
            assert [run["info"]["status"] for run in json.loads(listed.stdout)] == ["FINISHED"]
        finally:
            program.terminate()


def test_a_certificate_is_checked_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = self_signed(tmp_path)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"experiment": {"experiment_id": "0", "name": "over TLS"}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_words: object) -> None:  # a client that does not trust us hangs up
            pass

    with Quiet(("localhost", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://localhost:{server.server_port}"

        def name(**environ: str) -> str:
            client = requests.Server(url, environ=environ)
            try:
                found = client.json("GET", "/api/2.0/mlflow/experiments/get", query=[("experiment_id", "0")])
                return str(found["experiment"]["name"])
            finally:
                client.close()

        with pytest.raises(StoreUnavailable, match="no safe connection") as raised:
            name()
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in raised.value.hint
        assert name(MLFLOW_TRACKING_SERVER_CERT_PATH=str(certificate)) == "over TLS"
        assert name(MLFLOW_TRACKING_INSECURE_TLS="true") == "over TLS"
        server.shutdown()


def test_a_login_in_the_address_reaches_the_programs_that_are_started(project: Path, tmp_path: Path) -> None:
    """The server asks for it: without it no run is made."""
    seen: list[str | None] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://ann:pw@127.0.0.1:{server.server_port}"
        done = script(
            """
            mlcli.set_tracking_uri(os.environ.pop("MLCLI_TRACKING_URI"))
            try:
                mlcli.projects.run(os.environ["PROJECT"], env_manager="local")
            except mlcli.errors.MlcliError as error:
                print(error)
            """,
            address,
            PROJECT=str(project),
        )
        server.shutdown()
    assert set(seen) == {"Basic YW5uOnB3"}
    assert "pw@" not in done.stdout + done.stderr


def test_a_login_in_the_address_is_used_and_never_shown(unused: str, mlcli) -> None:
    address = unused.replace("http://", "http://ann:s3cret@")
    assert store_root(address) == unused
    done = mlcli("runs", "list", "--tracking-uri", address, check=6)
    assert "s3cret" not in done.stdout + done.stderr
    done = mlcli("doctor", "--tracking-uri", address, check=1)
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        ({"MLCLI_TRACKING_TOKEN": "ours", "MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer ours"),
        ({"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pw"}, "Basic YW5uOnB3"),
        ({}, None),
    ],
)
def test_mlflows_variables_say_who_we_are(variables: dict[str, str], header: str | None) -> None:
    server = requests.Server("http://127.0.0.1:1", environ=variables)
    assert server._headers().get("Authorization") == header


@pytest.mark.parametrize("address", ["http://", "http://host:port", "http://a b/", "http://user:pw@"])
def test_an_impossible_address_is_refused_without_its_secret(address: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        open_store(address)
    assert "pw@" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_says_which_variable_helps(status: int) -> None:
    error = requests.Server("http://127.0.0.1:1").error(requests.Answer(status, {}, b"no"))
    assert isinstance(error, StoreUnavailable)
    assert "MLCLI_TRACKING_TOKEN" in error.hint


def test_a_server_cannot_send_our_login_elsewhere(ours: Served) -> None:
    from mlcli.artifacts import open_artifacts

    with open_store(ours.url):
        pass
    for uri in ("http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/0/x", "mlflow-artifacts://other:9/0/x"):
        with pytest.raises(InvalidInput):
            open_artifacts(uri, store=ours.url)


def test_what_to_do_next_is_told_over_a_server_as_it_is_over_a_folder(ours: Served, root: Path) -> None:
    hints = []
    for place in (ours.url, str(root)):
        with open_store(place) as store:
            store.create_registered_model(f"wine {len(hints)}")
            with pytest.raises(NotFound) as raised:
                store.get_model_version(f"wine {len(hints)}", "7")
        hints.append(raised.value.hint.replace(f"wine {len(hints)}", "wine"))
    assert "models show" in hints[0]
    assert hints[0] == hints[1]


def test_copies_of_artifacts_that_a_killed_process_fetched_go_when_the_next_one_fetches(
    ours: Served, tmp_path: Path
) -> None:
    from mlcli.artifacts import open_artifacts

    with open_store(ours.url) as store:
        run_id = store.create_run("0").info.run_id
        (tmp_path / "a.txt").write_text("a")
        open_artifacts(store.artifact_root(run_id)).put(str(tmp_path / "a.txt"))
        uri = store.artifact_root(run_id)
    fetch = """
        from mlcli.artifacts import open_artifacts
        print(open(open_artifacts(os.environ["URI"], store=os.environ["URL"]).path("a.txt")).read())
    """
    places = tmp_path / "places"
    places.mkdir()
    found = {"URI": uri, "URL": ours.url, "TMPDIR": str(places)}
    script(f"{fetch}\n        os.kill(os.getpid(), 9)", ours.url, check=False, **found)
    assert len(os.listdir(places)) == 1
    assert script(fetch, ours.url, **found).stdout == "a\n"
    assert os.listdir(places) == []
