"""`mlcli server` as a process: its start, its end, its death in the middle of a flood, and the users it is told of."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving import API, FILES, Client

from mlcli.store import open_store


@contextmanager
def process(root: Path, *options: str, **environ: str) -> Iterator[tuple[Client, subprocess.Popen[str], list[str]]]:
    """The server in a process of its own; its first line has come."""
    command = [sys.executable, "-m", "mlcli", "server", "--backend-store-uri", str(root), *options]
    if "-p" not in options:
        command += ["-p", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}
    ) as server:
        try:
            assert server.stdout is not None
            said = [server.stdout.readline()]
            found = re.search(r"http://[^ ]*?:(\d+)", said[0])
            assert found, (said, server.stderr.read() if server.stderr else "")
            yield Client(int(found[1])), server, said
        finally:
            if server.poll() is None:
                server.kill()
            server.wait(20)
            server.communicate()


def test_the_first_line_says_how_to_use_it_and_sigterm_ends_it(root):
    with process(root) as (client, server, said):
        assert said[0] == f"mlcli server is ready: use it with MLFLOW_TRACKING_URI=http://127.0.0.1:{client.port}\n"
        assert client.send("GET", "/health").body == b"OK"
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_a_browser_that_is_waited_for_is_opened_and_gets_its_page(root, tmp_path):
    browser = tmp_path / "browser.py"
    browser.write_text(
        "import pathlib, sys, urllib.request\n"
        "page = urllib.request.urlopen(sys.argv[1], timeout=20).read()\n"
        "pathlib.Path(__file__).with_name('page.part').write_bytes(page)\n"
        "pathlib.Path(__file__).with_name('page.part').rename(pathlib.Path(__file__).with_name('page'))\n",
        encoding="utf-8",
    )
    with process(root, "--open", BROWSER=f"{sys.executable} {browser} %s"):
        until = time.monotonic() + 25
        while not (tmp_path / "page").exists() and time.monotonic() < until:
            time.sleep(0.02)
    assert "<h1>Experiments</h1>" in (tmp_path / "page").read_text(encoding="utf-8")


def test_a_request_under_way_is_finished_before_the_end(root):
    with process(root) as (client, server, _):
        run_id = client.new_run()

        def slowly() -> Iterator[bytes]:
            yield b"a" * 1000
            server.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield b"b" * 1000

        sent = client.send("PUT", f"{FILES}/0/{run_id}/artifacts/f", slowly(), Transfer_Encoding="chunked")
        assert sent.status == 200
        assert server.wait(20) == 0
    assert (root / "0" / run_id / "artifacts" / "f").read_bytes() == b"a" * 1000 + b"b" * 1000


def flood(client: Client, run_id: str, number: int, stored: list[tuple[str, int]], until: threading.Event) -> None:
    """Log points one after another, and note each that was acknowledged."""
    step = 0
    while not until.is_set():
        step += 1
        point = {"run_id": run_id, "key": f"m{number}", "value": step, "timestamp": step, "step": step}
        try:
            if client.send("POST", API + "runs/log-metric", point).status == 200:
                stored.append((f"m{number}", step))
        except (OSError, http.client.HTTPException):  # a dying server breaks off in any way it likes
            time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_acknowledged_is_stored_when_the_server_dies_in_a_flood(root, number):
    stored: list[tuple[str, int]] = []
    until = threading.Event()
    run_id = ""
    for turn in range(2):
        with process(root) as (client, server, _):
            run_id = run_id or client.new_run()
            until.clear()
            threads = [
                threading.Thread(target=flood, args=(client, run_id, 10 * turn + place, stored, until))
                for place in range(4)
            ]
            for thread in threads:
                thread.start()
            wanted, deadline = len(stored) + 150, time.monotonic() + 20
            while len(stored) < wanted and time.monotonic() < deadline:
                time.sleep(0.01)
            server.send_signal(number)
            server.wait(20)
            until.set()
            for thread in threads:
                thread.join()
    with open_store(str(root)) as store:
        found = {
            (key, point.step) for key in {key for key, _ in stored} for point in store.get_metric_history(run_id, key)
        }
    assert len(stored) >= 300
    assert set(stored) <= found


def test_a_run_that_is_asked_for_again_after_a_crash_is_not_made_twice(root):
    with process(root) as (client, server, _):
        first = client.api("POST", "runs/create", {"experiment_id": "0"}, Idempotency_Key="k")["run"]["info"]["run_id"]
        server.kill()
        server.wait(20)
    with process(root) as (client, _, _):
        again = client.api("POST", "runs/create", {"experiment_id": "0"}, Idempotency_Key="k")["run"]["info"]["run_id"]
    assert first == again


def test_another_address_than_loopback_needs_a_token_shown_once(root):
    with process(root, "--host", "0.0.0.0") as (client, server, said):
        _, told = (server.stdout.readline(), server.stdout.readline()) if server.stdout else ("", "")
        token = re.search(r"MLFLOW_TRACKING_TOKEN=(\S{40,})", told)
        assert "and a token" in said[0]
        assert token
        client.get("experiments/get?experiment_id=0", expect=401)
        assert Client(client.port, Authorization=f"Bearer {token[1]}").get("experiments/get?experiment_id=0")
    assert (root / "server-token").stat().st_mode & 0o777 == 0o600
    with process(root, "--host", "0.0.0.0") as (_, server, said):
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate()
        assert token[1] not in said[0] + out + err


def test_users_get_tokens_of_their_own(root, mlcli):
    store = ("--backend-store-uri", root)
    token = mlcli("server", "users", "add", "ann", "--role", "read", *store).stdout.strip()
    assert json.loads(mlcli("server", "users", "list", "--json", *store).stdout) == [{"name": "ann", "role": "read"}]
    assert "already" in mlcli("server", "users", "add", "ann", *store, check=1).stderr
    with process(root) as (client, _, _):
        client.get("experiments/get?experiment_id=0", expect=401)
        ann = Client(client.port, Authorization=f"Bearer {token}")
        assert ann.get("experiments/get?experiment_id=0")["experiment"]["name"] == "Default"
        assert ann.post("runs/create", experiment_id="0", expect=403)["error_code"] == "PERMISSION_DENIED"
        mlcli("server", "users", "remove", "ann", *store)
    assert mlcli("server", "users", "remove", "ann", *store, check=3)


def test_looking_for_users_where_no_server_was_leaves_nothing_behind(mlcli, tmp_path):
    store = ["--backend-store-uri", str(tmp_path / "nowhere")]
    assert json.loads(mlcli("server", "users", "list", "--json", *store).stdout) == []
    assert "there is no user 'ann'" in mlcli("server", "users", "remove", "ann", *store, check=3).stderr
    assert not (tmp_path / "nowhere").exists()
    assert str(tmp_path / "nowhere") in mlcli("server", "users", "add", "ann", *store).stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--app-name", "basic-auth"], "mlcli server users add"),
        (["--artifacts-only"], "--artifacts-only"),
        (["--disable-security-middleware"], "--allowed-hosts"),
        (["--cors-allowed-origins", "*"], "other origins"),
        (["--registry-store-uri", "sqlite:///x.db"], "the same store"),
        (["--allowed-hosts", "*"], "exactly"),
        (["--artifacts-destination", "s3://bucket"], "give a folder"),
        (["--static-prefix", "x/"], "must begin with /"),
        (["--backend-store-uri", "http://h:1"], "not another server"),
        (["--backend-store-uri", "sqlite:///x.db"], "a store is a folder"),
        (["--host", "192.0.2.1"], "cannot listen"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_way_out(root, mlcli, options, said):
    at = [] if "--backend-store-uri" in options else ["--backend-store-uri", root]
    done = mlcli("server", "-p", "0", *at, *options, check=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_mlflow_that_mean_nothing_here_are_taken(root):
    with process(root, "--workers", "4", "--gunicorn-opts", "--timeout 5") as (client, server, _):
        assert client.send("GET", "/health").status == 200
        server.send_signal(signal.SIGTERM)
        assert "--workers does nothing" in server.communicate()[1]


def test_a_port_that_is_taken_is_told(root, mlcli):
    with process(root) as (client, _, _):
        done = mlcli("server", "--backend-store-uri", root, "-p", client.port, check=2)
        assert f"cannot listen on 127.0.0.1:{client.port}" in done.stderr


def test_ui_is_another_name_for_it(mlcli):
    assert mlcli("ui", "--help").stdout.replace("mlcli ui", "mlcli server") == mlcli("server", "--help").stdout


@pytest.mark.slow
def test_a_machine_that_makes_up_requests_finds_no_500(root):
    """Schemathesis reads our own OpenAPI document and sends what fits it, and what does not."""
    with process(root) as (client, _, _):
        client.new_run()
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{client.port}/api/2.0/mlcli/openapi.json",
                "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance",
                "--max-examples", "15", "--generation-deterministic", "--phases", "examples,coverage,fuzzing",
                "--no-color", "--request-timeout", "20",
            ],
            capture_output=True, text=True, timeout=570, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert client.send("GET", "/health").body == b"OK"
