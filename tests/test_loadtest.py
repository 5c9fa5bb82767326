"""The load generator: latency counts from when a request was due, so that a stall is seen by all whom it kept waiting."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from contextlib import contextmanager

import pytest
from certificates import self_signed
from gateway import gateway, launch, naughty
from hypothesis import given
from hypothesis import strategies as st

from mlcli.errors import InvalidInput
from mlcli.serving import loadtest

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@contextmanager
def answering(*, stall: float = 0.0, after: int = 0, answer: bytes = ANSWER, hang_up: bool = False, tls=None):
    """A server that answers at once, but for one stall of all its connections after so many requests."""
    served = 0
    ready, ended = threading.Event(), threading.Event()
    address: list[int] = []

    async def main() -> None:
        calm = asyncio.Event()
        calm.set()

        talks = set()

        async def talk(reader, writer):
            nonlocal served
            talks.add(asyncio.current_task())
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    await reader.readexactly(2)
                    served += 1
                    if stall and served == after:
                        calm.clear()
                        asyncio.get_running_loop().call_later(stall, calm.set)
                    await calm.wait()
                    writer.write(answer)
                    if hang_up and served % 2:
                        break
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
        address.append(server.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.to_thread(ended.wait)
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield f"http://127.0.0.1:{address[0]}"
    finally:
        ended.set()
        thread.join(10)


def ask(url: str, rate: float, seconds: float, timeout: float = 20) -> loadtest.Report:
    target = loadtest.Target.of(url)
    return loadtest.run(
        target, [target.request(b"{}", "application/json", None)], rate=rate, seconds=seconds, timeout=timeout
    )


@pytest.mark.slow
def test_a_stall_of_a_second_in_ten_is_seen_by_one_request_in_ten():
    """100 a second for 10 s, one stall of 1 s: waits of 0 to 1 s for 100 of 1000, so p95 is 0.5 s and p99 0.9 s."""
    with answering(stall=1.0, after=300) as url:
        report = ask(url, 100, 10)
    assert report.statuses == {"200": 1000}
    assert report.percentile(0.95) == pytest.approx(0.5, abs=0.12)
    assert report.percentile(0.99) == pytest.approx(0.9, abs=0.12)


def test_requests_are_sent_while_the_server_stalls():
    with answering(stall=0.6, after=20) as url:
        report = ask(url, 100, 2)
    assert report.statuses == {"200": 200}
    waited = [latency for latency in report.latencies if latency > 0.1]
    assert len(waited) >= 40  # of the 60 that were due in the stall


def test_what_gets_no_answer_and_what_gets_an_error_is_counted():
    with answering(answer=b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n") as url:
        report = ask(url, 100, 0.3)
    assert (report.statuses, report.error_rate) == ({"500": 30}, 1.0)
    report = ask("http://127.0.0.1:9", 50, 0.2)
    assert report.statuses == {loadtest.NO_ANSWER: 10}
    assert math.isnan(report.percentile(0.5))


def test_why_nothing_was_answered_is_told(tmp_path):
    def reasons(url):
        target = loadtest.Target.of(url)
        asked = [target.request(b"{}", "application/json", None)]
        return loadtest.run(target, asked, rate=50, seconds=0.1, timeout=5).reasons

    assert reasons("http://127.0.0.1:9") == {"Connection refused": 5}
    (why,) = reasons("http://no-such-host.invalid")
    assert why.startswith("the name no-such-host.invalid is not known")
    context, _ = self_signed(tmp_path)
    with answering(tls=context) as url:
        assert reasons(url.replace("http:", "https:")) == {"its certificate is not trusted: self-signed certificate": 5}


def test_connections_that_the_server_closes_are_made_anew():
    with answering(hang_up=True) as url:
        report = ask(url, 100, 0.5)
    assert report.requests == 50
    assert report.statuses["200"] >= 40


def test_an_answer_that_never_comes_is_given_up():
    with answering(stall=3, after=1) as url:
        report = ask(url, 20, 0.2, timeout=0.3)
    assert report.statuses == {loadtest.NO_ANSWER: 4}


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=200))
def test_a_histogram_holds_each_value_once_below_its_bound(values):
    values.sort()
    found = loadtest.histogram(values)
    assert sum(count for _, count in found) == len(values)
    assert found[-1][0] == values[-1]
    bounds = [bound for bound, _ in found]
    assert bounds == sorted(bounds)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_the_share_does_not_exceed(values, share):
    values.sort()
    found = loadtest.percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://user@host", "http://a:b", "http://[::1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidInput):
        loadtest.Target.of(url)


def test_rows_become_bodies(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,x\n2.5,\n")
    found, kind = loadtest.bodies(str(tmp_path / "rows.csv"))
    assert kind == "application/json"
    assert [json.loads(body)["dataframe_split"]["data"] for body in found] == [[[1, "x"]], [[2.5, None]]]
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"inputs": [[1]]}\n')
    found, _ = loadtest.bodies(str(tmp_path / "rows.jsonl"))
    assert [json.loads(body) for body in found] == [{"dataframe_records": [{"a": 1}]}, {"inputs": [[1]]}]
    for text in ("", "a,b\n", "[1]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InvalidInput):
            loadtest.bodies(str(tmp_path / "bad.json"))


def test_the_command_exits_1_when_a_limit_is_exceeded(mlcli, tmp_path):
    (tmp_path / "body.json").write_text('{"inputs": [[1]]}')
    with gateway(launch(naughty(tmp_path / "model"))) as running:
        words = ("models", "loadtest", f"http://127.0.0.1:{running.client.port}", "--data", tmp_path / "body.json")
        words = (*words, "--rate", 50, "--duration", "400ms")
        told = json.loads(mlcli(*words, "--json", "--max-p99", "20s", "--max-error-rate", "0").stdout)
        assert (told["requests"], told["statuses"]) == (20, {"200": 20})
        done = mlcli(*words, "--max-p99", "0.001ms", check=1)
        assert "p99 is" in done.stderr
        assert "SINCE DUE" not in done.stderr
