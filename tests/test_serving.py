"""The gateway before real workers: protocols, refusals, and what happens when a worker does not do its work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from browser import PROGRAM, Browser
from gateway import Running, gateway, launch, naughty

from mlcli.errors import InvalidInput, ModelError
from mlcli.server.security import Auth
from mlcli.serving.launch import byte_count, find
from mlcli.serving.run import Follow

TOKEN = "a token of good length"


@pytest.fixture(scope="module")
def doubler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return naughty(tmp_path_factory.mktemp("models") / "doubler")


@pytest.fixture(scope="module")
def served(doubler: Path):
    with gateway(launch(doubler)) as running:
        yield running


# -- protocols


def test_an_answer_has_mlflows_bytes(served):
    answer = served.row(1, 2.5)
    assert (answer.status, answer.body) == (200, b'{"predictions": [2.0, 5.0]}')
    assert answer.headers["content-type"] == "application/json"


def test_nan_is_null_because_json_has_no_nan(served):
    assert served.row(-6).body == b'{"predictions": [null]}'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "exactly one of"),
        ("{}", "exactly one of"),
        ('{"inputs": [[1]], "instances": [[1]]}', "exactly one of"),
        ('{"dataframe_records": {}}', "list of objects"),
        ('{"dataframe_split": {"rows": []}}', "must have data"),
        (b'{"inputs": [["\xff"]]}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"inputs": [[-5]]}', "five is too many"),
        ('{"inputs": [["x"]]}', "numbers are wanted"),
    ],
)
def test_a_bad_body_is_the_callers_mistake(served, body, told):
    answer = served.post(body)
    assert (answer.status, answer.json["error_code"]) == (400, "BAD_REQUEST")
    assert told in answer.json["message"]


@pytest.mark.parametrize("body", ['{"inputs": [[1, 2]]}', '{"inputs": 3}'])
def test_an_input_that_does_not_fit_the_signature_is_told_so(served, body):
    answer = served.post(body)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/json; charset=latin-1", "application/json; version=2", "application/xml"]
)
def test_other_media_types_are_415(served, kind):
    assert served.client.send("POST", "/invocations", "{}", Content_Type=kind).status == 415


def test_a_charset_of_utf_8_may_be_named(served):
    assert served.post({"inputs": [[1]]}, Content_Type="application/json; charset=UTF-8").status == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(doubler):
    with gateway(launch(doubler), max_body=1000) as running:
        with socket.create_connection(("127.0.0.1", running.client.port)) as sock:
            head = "POST /invocations HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\n"
            sock.sendall((head % running.client.port + "Content-Length: 100000000\r\n\r\n").encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 413")
        assert running.post("[" + "1," * 1000 + "1]").status == 413
        assert running.row(1).status == 200


def test_get_of_invocations_is_405(served):
    answer = served.client.send("GET", "/invocations")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_another_page_and_another_host_are_refused(served):
    assert served.post({"inputs": [[1]]}, Origin="http://evil.example").status == 403
    assert served.post({"inputs": [[1]]}, Host="evil.example").status == 403


def test_the_open_inference_protocol_answers(served):
    client = served.client
    assert client.send("GET", "/v2/health/live").json == {"live": True}
    assert client.send("GET", "/v2/health/ready").json == {"ready": True}
    assert client.send("GET", "/v2").json["name"] == "mlcli"
    told = client.send("GET", "/v2/models/doubler/versions/1").json
    assert told["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 1]}]
    assert client.send("GET", "/v2/models/doubler/ready").json == {"name": "doubler", "ready": True}
    asked = {"id": "7", "inputs": [{"name": "input", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}]}
    assert served.post(asked, "/v2/models/doubler/infer").json == {
        "model_name": "doubler",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "predictions", "shape": [2], "datatype": "FP64", "data": [2.0, 4.0]}],
    }


@pytest.mark.parametrize(
    ("path", "change", "status", "told"),
    [
        ("/v2/models/other/infer", {}, 404, "no model"),
        ("/v2/models/doubler/versions/9/infer", {}, 404, "no model"),
        ("/v2/models/doubler/infer", {"shape": [3, 1]}, 400, "2 values"),
        ("/v2/models/doubler/infer", {"datatype": "FP65"}, 400, "datatype"),
        ("/v2/models/doubler/infer", {"datatype": ["FP64"]}, 400, "datatype"),
        ("/v2/models/doubler/infer", {"datatype": "UINT8", "data": [255, 256]}, 400, "256, which is no UINT8"),
        ("/v2/models/doubler/infer", {"datatype": "UINT64", "data": [-1, 0]}, 400, "-1, which is no UINT64"),
        ("/v2/models/doubler/infer", {"datatype": "INT8", "data": [-128, 128]}, 400, "128, which is no INT8"),
        ("/v2/models/doubler/infer", {"data": ["a", "b"]}, 400, "no FP64"),
        ("/v2/models/doubler/infer", {"name": None}, 400, "no name"),
    ],
)
def test_errors_of_the_open_inference_protocol_have_its_form(served, path, change, status, told):
    tensor = {"name": "input", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0], **change}
    answer = served.post({"inputs": [tensor]}, path)
    assert answer.status == status
    assert told in answer.json["error"]


def test_probes_metrics_and_the_description(served):
    client = served.client
    assert [client.send("GET", path).status for path in ("/ping", "/health", "/version", "/nothing")] == [
        200,
        200,
        200,
        404,
    ]
    served.row(1)
    page = client.send("GET", "/metrics").body.decode()
    assert 'mlcli_serve_worker_up{model="doubler",version="1",worker="0"} 1' in page
    assert 'mlcli_serve_responses_total{endpoint="invocations",status="200"}' in page
    assert 'le="+Inf"' in page
    document = client.send("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert "/v2/models/doubler/infer" in document["paths"]


def test_the_page_brings_all_it_needs_and_no_script_in_it(served):
    answer = served.client.send("GET", "/docs")
    assert b"<script>" not in answer.body
    assert b"//" not in answer.body.replace(b"<!doctype", b"")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert served.client.send("GET", "/docs/docs.js").status == 200
    assert served.client.send("GET", "/docs/../app.py").status == 404


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
def test_a_person_can_try_the_model_in_a_browser(served):
    with Browser() as browser:
        browser.open(f"http://127.0.0.1:{served.client.port}/docs")
        browser.until("document.getElementById('columns')?.rows.length > 1")
        browser.run("document.getElementById('body').value = '{\"inputs\": [[21]]}'")
        browser.run("document.getElementById('send').click()")
        assert "42" in browser.until("document.getElementById('answer').textContent")
        assert browser.messages == []


def test_a_token_guards_all_but_the_probes(doubler):
    with gateway(launch(doubler), auth=Auth(TOKEN)) as running:
        assert running.client.send("GET", "/ping").status == 200
        assert running.client.send("GET", "/docs").status == 200
        for method, path in (
            ("POST", "/invocations"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/v2/models/doubler"),
        ):
            assert running.client.send(method, path, "{}", Content_Type="application/json").status == 401
        assert running.post({"inputs": [[1]]}, Authorization=f"Bearer {TOKEN}").status == 200
        assert running.post({"inputs": [[1]]}, Authorization="Bearer wrong").status == 401


# -- workers that do not do their work


@pytest.fixture(scope="module")
def two(doubler: Path):
    """Two workers, and little patience."""
    with gateway(launch(doubler), workers=2, timeout=1.5) as running:
        yield running


def eventually_well(running: Running) -> None:
    end = time.monotonic() + 30
    while not all([worker.ready for worker in running.gateway.pool.workers]):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert running.row(4).json == {"predictions": [8.0]}


@pytest.mark.parametrize(
    ("act", "status", "told"),
    [
        (-1, 500, "exit code 3"),
        (-2, 504, "within 1.5 seconds"),
        (-3, 507, "out of memory"),
        (-4, 500, "SIGKILL"),
    ],
)
def test_whoever_asked_is_told_others_go_on_and_the_worker_is_replaced(two, act, status, told):
    before = two.gateway.pool.restarts
    with ThreadPoolExecutor(9) as threads:
        bad = threads.submit(two.row, act)
        good = list(threads.map(two.row, range(40)))
        answer = bad.result()
    assert (answer.status, told in answer.json["message"]) == (status, True), answer
    assert "error_code" in answer.json
    assert [one.json for one in good] == [{"predictions": [2.0 * number]} for number in range(40)]
    end = time.monotonic() + 20
    while two.gateway.pool.restarts == before:
        assert time.monotonic() < end
        time.sleep(0.02)
    eventually_well(two)


def test_requests_behind_the_one_that_kills_the_only_worker_are_answered(served):
    with ThreadPoolExecutor(12) as threads:
        slow = threads.submit(served.row, 1000)
        time.sleep(0.1)  # the worker is busy: what follows lies ready behind it
        bad = threads.submit(served.row, -1)
        time.sleep(0.05)
        good = list(threads.map(served.row, range(10)))
    assert (slow.result().status, bad.result().status) == (200, 500)
    assert [one.json for one in good] == [{"predictions": [2.0 * number]} for number in range(10)]


def test_a_worker_that_is_killed_while_it_waits_is_missed_by_nobody(served):
    pid = int(served.row(-7).json["predictions"][0])
    os.kill(pid, signal.SIGKILL)
    assert served.row(3).json == {"predictions": [6.0]}
    assert int(served.row(-7).json["predictions"][0]) != pid


def test_a_limit_of_memory_ends_the_request_and_not_the_server(doubler):
    with gateway(launch(doubler, memory=byte_count("3G"))) as running:
        assert running.row(-8).status == 507
        assert running.row(2).json == {"predictions": [4.0]}


def test_a_client_that_hangs_up_harms_nobody(served):
    body = json.dumps({"inputs": [[1000]]})
    head = f"POST /invocations HTTP/1.1\r\nHost: localhost:{served.client.port}\r\nContent-Type: application/json\r\n"
    for text in (f"{head}Content-Length: {len(body)}\r\n\r\n{body}", f"{head}Content-Length: 500\r\n\r\n" + "{"):
        with socket.create_connection(("127.0.0.1", served.client.port)) as sock:
            sock.sendall(text.encode())
    assert served.row(1).status == 200


def test_a_model_that_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(AssertionError, match="no such factor"), gateway(launch(naughty(tmp_path / "zero", 0))):
        pass


def test_workers_end_with_the_gateway(doubler):
    with gateway(launch(doubler), workers=2) as running:
        pids = [worker.process.pid for worker in running.gateway.pool.workers]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# -- together


def test_rows_of_many_requests_go_into_one_prediction_with_the_same_answers(doubler):
    with gateway(launch(doubler, batch_size=16, batch_seconds=0.05)) as running, ThreadPoolExecutor(16) as threads:
        acts = [1, 2, -5, 3, -6, 4, 1, 5]
        found = list(threads.map(running.row, acts))
        single = [running.row(act) for act in acts]
        assert [(one.status, one.body) for one in found] == [(one.status, one.body) for one in single]


def test_in_a_batch_only_the_one_at_fault_fails_when_the_worker_dies(doubler):
    with gateway(launch(doubler, batch_size=16, batch_seconds=0.2)) as running, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(running.row, [1, 2, -1, 3]))
        assert [one.status for one in found] == [200, 200, 500, 200]


# -- ends and exchanges


class Flood:
    """Clients that ask without a pause until they are told to stop; ``lost`` are requests without an answer."""

    def __init__(self, port: int, clients: int = 6) -> None:
        self.answers: list[bytes] = []
        self.lost = 0
        self.refused = False
        self._stop = threading.Event()
        self._port = port
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        body = b'{"inputs": [[1]]}'
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost:{self._port}\r\nContent-Type: application/json\r\n"
        text = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        while not self._stop.is_set():
            try:
                sock = socket.create_connection(("127.0.0.1", self._port), timeout=20)
            except ConnectionError:  # the server has ended: it takes no more
                return
            with sock:
                while not self._stop.is_set():
                    try:
                        sock.sendall(text)
                        answer = b""
                        while not answer.endswith(b"}"):
                            part = sock.recv(65536)
                            if not part:
                                break
                            answer += part
                    except ConnectionError:
                        self.lost += 1
                        return
                    if not answer:
                        self.lost += 1
                        return
                    self.answers.append(answer)
                    if b"connection: close" in answer.lower():
                        return

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def test_an_end_answers_every_request_that_was_taken(doubler):
    with gateway(launch(doubler)) as running, ThreadPoolExecutor(2) as threads:
        slow = threads.submit(running.row, 1000)
        flood = Flood(running.client.port)
        time.sleep(0.3)
        running.serving.should_exit = True
        assert slow.result().json == {"predictions": [2000.0]}
        for thread in flood._threads:
            thread.join(30)
    assert flood.lost == 0
    assert len(flood.answers) > 20
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in flood.answers)


def test_a_new_version_takes_over_without_a_lost_request_and_a_bad_one_does_not(doubler, tmp_path):
    models = {"1": doubler, "2": naughty(tmp_path / "two", 3), "3": naughty(tmp_path / "three", 0)}
    now = ["1"]
    follow = Follow(lambda: now[0], lambda: launch(models[now[0]], version=now[0]))
    with gateway(launch(doubler), follow=follow) as running:
        old = running.gateway.pool.workers[0].process.pid
        flood = Flood(running.client.port, 3)
        try:
            now[0] = "2"
            wait(lambda: running.gateway.swaps == 1)
            now[0] = "3"
            wait(lambda: running.gateway.failed_swaps == 1)
            wait(lambda: not alive(old))
        finally:
            flood.stop()
        assert running.gateway.pool.version == "2"
        assert flood.lost == 0
        ends = {answer.rpartition(b"\r\n\r\n")[2] for answer in flood.answers}
        assert ends == {b'{"predictions": [2.0]}', b'{"predictions": [3.0]}'}
        assert running.client.send("GET", "/v2/models/doubler").json["versions"] == ["2"]


def wait(done, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# -- a policy


def test_a_policy_chooses_among_pools_and_adds_to_the_answer(doubler, tmp_path):
    from mlcli.serving.pool import Pool

    tripler = Pool(launch(naughty(tmp_path / "tripler", 3), version="2"), workers=1, timeout=20, log=print)

    seen = []

    class Odd:
        async def start(self):
            await tripler.start()

        async def respond(self, asked):
            pool = tripler if asked.headers.get(b"x-unit") == b"odd" else running.gateway.pool
            answer = await pool.ask(asked.kind, asked.body)
            seen.append((pool.version, answer.status))
            return answer.status, answer.body, [(b"x-mlcli-variant", pool.version.encode())]

        async def close(self):
            seen.append("closed")

    with gateway(launch(doubler), more=(tripler,), policy=Odd()) as running:
        wait(lambda: tripler.ready)
        assert running.row(1).json == {"predictions": [2.0]}
        odd = running.post({"inputs": [[1]]}, X_Unit="odd")
        assert (odd.json, odd.headers["x-mlcli-variant"]) == ({"predictions": [3.0]}, "2")
    assert seen == [("1", 200), ("2", 200), "closed"]


# -- small things


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 2**29), ("4G", 2**32), ("1.5k", 1536), ("100", 100), ("2GiB", 2**31)]
)
def test_sizes_are_read_with_their_units(text, size):
    assert byte_count(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "4X", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInput):
        byte_count(text)


def test_a_model_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(Exception, match="no model"):
        find(str(tmp_path / "nothing"))


@pytest.mark.parametrize("uri", ["./doubler", "folder/1", "a/b/c", "models/doubler"])
def test_a_path_is_a_path(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    naughty(tmp_path / uri)
    assert find(uri).folder == str(tmp_path / uri.removeprefix("./"))


def test_too_many_waiting_requests_are_refused(doubler, monkeypatch):
    monkeypatch.setattr("mlcli.serving.pool.MAX_WAITING", 3)
    with gateway(launch(doubler)) as running, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(running.row, [1000] * 8))
        statuses = sorted(one.status for one in found)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        assert next(one for one in found if one.status == 503).headers["retry-after"] == "1"


def test_a_pool_can_be_used_without_a_server(doubler):
    from mlcli.models.worker import JSON
    from mlcli.serving.pool import Pool

    async def ask():
        pool = Pool(launch(doubler), workers=1, timeout=20, log=print)
        await pool.start()
        answers = await asyncio.gather(*[pool.ask(JSON, b'{"inputs": [[%d]]}' % number) for number in range(30)])
        await pool.drain()
        return [json.loads(answer.body)["predictions"] for answer in answers]

    assert asyncio.run(ask()) == [[2.0 * number] for number in range(30)]


def test_an_interpreter_that_is_not_there_is_told():
    with pytest.raises(ModelError, match="cannot start"):
        launch(Path("nowhere"))._replace(python="/nowhere/python").start()
