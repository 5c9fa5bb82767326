"""`mlcli models serve` as a person starts it: from the registry, followed by a new version, ended by a signal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway import naughty
from serving import Client

from mlcli.store import open_store

ASK = b'{"inputs": [[2]]}'


@contextmanager
def serve(*words, **options):
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "models", "serve", "--env-manager", "local", "-p", "0", "--trust", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert "is ready" in line, process.communicate()
        yield process, Client(int(re.search(r":(\d+)/invocations", line)[1]), Content_Type="application/json"), line
    finally:
        process.kill()
        process.communicate()


def register(store, tmp_path, factor: int) -> str:
    run = store.create_run("0")
    folder = tmp_path / f"factor-{factor}"
    naughty(folder, factor)
    from mlcli.artifacts import open_artifacts

    open_artifacts(run.info.artifact_uri).put_tree(str(folder), "model")
    return store.create_model_version("double", f"runs:/{run.info.run_id}/model", run_id=run.info.run_id).version


def test_an_alias_is_served_and_followed_and_sigterm_ends_it(tmp_path):
    with open_store() as store:
        store.create_registered_model("double")
        store.set_registered_model_alias("double", "champion", register(store, tmp_path, 2))
        with serve("-m", "double@champion") as (process, client, line):
            assert line.startswith("double, version 1, is ready")
            assert client.send("POST", "/invocations", ASK).body == b'{"predictions": [4.0]}'
            store.set_registered_model_alias("double", "champion", register(store, tmp_path, 3))
            end = time.monotonic() + 30
            while client.send("POST", "/invocations", ASK).body != b'{"predictions": [6.0]}':
                assert time.monotonic() < end
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert "version 2 of double answers now" in process.stderr.read()


def test_a_gateway_that_is_killed_leaves_no_worker(tmp_path):
    with serve("-m", naughty(tmp_path / "model")) as (process, client, _):
        pid = int(client.send("POST", "/invocations", b'{"inputs": [[-7]]}').json["predictions"][0])
        process.kill()
        process.wait()
        end = time.monotonic() + 10
        while lives(pid):
            assert time.monotonic() < end
            time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_address_for_others_needs_a_token_which_is_shown_once(tmp_path):
    model = naughty(tmp_path / "model")
    with serve("-m", model, "-h", "0.0.0.0") as (process, client, line):
        assert "with the token" in line
        token = process.stdout.readline().split()[-1]
        assert client.send("POST", "/invocations", ASK).status == 401
        assert client.send("POST", "/invocations", ASK, Authorization=f"Bearer {token}").status == 200
    with serve("-m", model, "-h", "0.0.0.0") as (process, client, _):
        process.kill()
        assert token not in process.stdout.read()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("serve", "-m", "models:/nobody@champion"), 3, "nobody"),
        (("serve", "-m", "nowhere"), 3, "no model at nowhere"),
        (("serve", "-m", ".", "--env-manager", "local"), 1, "no MLmodel file"),
        (("serve", "-m", ".", "--max-batch-time", "5"), 2, "--max-batch-size"),
        (("serve", "-m", ".", "--enable-mlserver"), 2, "no MLServer"),
        (("serve", "-m", ".", "--max-memory", "lots"), 2, "no size"),
        (("predict", "-m", ".", "-i", "nothing.csv"), 2, "no file nothing.csv"),
        (("predict", "-m", ".", "-i", "."), 2, "is a folder"),
        (("predict", "-m", ".", "-t", "xml"), 2, "xml"),
        (("predict", "-m", ".", "-o", "out.parquet"), 2, "cannot be written"),
        (("loadtest", "--data", "x"), 2, "server or a model"),
        (("loadtest", "http://127.0.0.1:9"), 2, "--data"),
        (("prepare-env", "-m", "."), 1, "MLmodel"),
        (("generate-dockerfile", "-m", "."), 1, "MLmodel"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(mlcli, words, code, told):
    done = mlcli("models", *words, check=code)
    assert told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_model_that_may_run_code_is_refused_without_trust(mlcli, tmp_path):
    model = naughty(tmp_path / "model")
    done = mlcli("models", "serve", "-m", model, "--env-manager", "local", "-p", "0", check=1)
    assert "can run code" in done.stderr
    assert "--trust" in done.stderr


def test_loadtest_fails_where_nobody_answers_unless_that_is_allowed(mlcli, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a\n1\n")
    words = ("models", "loadtest", "http://127.0.0.1:9", "--data", rows, "--rate", "20", "--duration", "200ms")
    done = mlcli(*words, check=1)
    assert "127.0.0.1:9 answered none of 4 requests" in done.stderr
    assert "Connection refused (4)" in done.stdout
    assert "p99" not in done.stdout
    mlcli(*words, "--max-error-rate", "1")
