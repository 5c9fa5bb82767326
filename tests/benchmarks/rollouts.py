"""What a rollout costs: `python tests/benchmarks/rollouts.py [WHAT ...]` prints microseconds and seconds on this machine.

decide and record   CPU of what the gateway does for a request more than it does without a rollout
one model, p50      a real gateway over HTTP: without a rollout, with one, with a shadow
abort               from the command's transaction until the gateway has the weights
shadow that spins   latencies of clients while a shadow takes a whole core, over those with no shadow, paced at 100 a second
analysis            of a million recorded requests, as `mlcli rollouts analyze` does it
burst               ten million requests as fast as they can be noted: what is kept, what is shed, memory (only when asked for)
"""

import asyncio
import http.client
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from gateway import gateway, launch, naughty  # noqa: E402
from rollout_world import AB, SHADOW, started, text  # noqa: E402
from test_rollouts_serving import spinning, world  # noqa: E402

from mlcli.models.worker import JSON  # noqa: E402
from mlcli.rollouts import lifecycle  # noqa: E402
from mlcli.rollouts.observe import analyze  # noqa: E402
from mlcli.serving.app import Asked  # noqa: E402
from mlcli.serving.pool import Answer  # noqa: E402
from mlcli.serving.record import Recorder, Row  # noqa: E402
from mlcli.serving.rollout import RolloutPolicy, force_of  # noqa: E402
from mlcli.store import open_store  # noqa: E402
from mlcli.store.rollouts import Counter, Exposure, Outcome, Prediction, Rollouts  # noqa: E402

HARMLESS = "policy: no_harm, min_units: 1000000"


class Instant:
    """A pool that has its answer ready: what is left is the policy."""

    ready, broken = True, ""
    name, version = "m", "1"

    async def ask(self, kind, body):
        return Answer(200, b'{"predictions": [1.0]}', 0.0)


def cpu_of_a_request(folder: Path) -> tuple[float, float]:
    root = str(folder / "cpu")
    with open_store(root) as store:
        record = started(Rollouts(store), text(strategy=AB, decision=HARMLESS))
        rollout = lifecycle.spec_of(record)
        weights = Rollouts(store).in_force(record.key)
    n = 20_000
    asked = [Asked({b"x-user-id": f"u{i % 5000}".encode()}, JSON, b'{"inputs": [[1.0]]}') for i in range(n)]

    async def play() -> tuple[float, float]:
        pool = Instant()
        policy = RolloutPolicy(
            rollout, record.key, [pool, pool], lambda: Rollouts(open_store(root)), models=["m/1", "m/2"]
        )
        policy._loop = asyncio.get_running_loop()
        policy._started.set()
        policy.assigner.force = force_of(rollout, *weights)
        policy.recorder.start()
        start, whole = time.thread_time(), time.process_time()
        for one in asked:
            await policy.respond(one)
        loop = time.thread_time() - start
        await policy.recorder.close()
        both = time.process_time() - whole
        bare = time.thread_time()
        for one in asked:
            await pool.ask(one.kind, one.body)
        return (loop - (time.thread_time() - bare)) / n * 1e6, both / n * 1e6

    return asyncio.run(play())


def p50(port: int, n: int = 1500) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found = []
    for number in range(n):
        headers = {"Content-Type": "application/json", "X-User-Id": f"u{number}"}
        start = time.perf_counter()
        connection.request("POST", "/invocations", json.dumps({"inputs": [[1.0]]}), headers)
        connection.getresponse().read()
        found.append(time.perf_counter() - start)
    connection.close()
    return statistics.median(found) * 1000


def over_http(folder: Path) -> dict[str, float]:
    one, other = naughty(folder / "one"), naughty(folder / "other", 3)
    found = {}
    with (
        gateway(launch(one)) as plain,
        world(folder / "ab", one, other, text(strategy=AB, decision=HARMLESS)) as ab,
        world(
            folder / "sh", one, other, text("demo", SHADOW, decision="policy: no_harm, min_units: 1000000")
        ) as shadow,
    ):
        ports = {"without": plain.client.port, "rollout": ab.running.client.port, "shadow": shadow.running.client.port}
        rounds = {name: [] for name in ports}
        for _ in range(4):
            for name, port in ports.items():
                rounds[name].append(p50(port, 400))
        found = {name: min(values) for name, values in rounds.items()}
        waits = []
        sent = time.monotonic()
        lifecycle.abort(ab.rollouts, "demo")
        while ab.policy.assigner.force.state != "aborted":
            time.sleep(0.001)
        waits.append(time.monotonic() - sent)
        found["abort"] = max(waits)
    return found


def paced(port: int, n: int, rate: float = 100.0) -> list[float]:
    """Milliseconds from the moment at which each request was due, so that one that waits for another counts the wait."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found, start = [], time.perf_counter()
    for number in range(n):
        due = start + number / rate
        time.sleep(max(due - time.perf_counter(), 0))
        headers = {"Content-Type": "application/json", "X-User-Id": f"u{number}"}
        connection.request("POST", "/invocations", json.dumps({"inputs": [[1.0]]}), headers)
        connection.getresponse().read()
        found.append((time.perf_counter() - due) * 1000)
    connection.close()
    return sorted(found)


def spinning_shadow(folder: Path) -> dict[str, tuple[float, float]]:
    """p50 and p99 without a shadow and with one that spins for 50 ms of CPU at each copy, round by round."""
    one, busy = naughty(folder / "calm"), spinning(folder / "busy")
    off = SHADOW.replace("fraction: 1.0", "fraction: 0.0")
    with (
        world(folder / "off", one, busy, text(strategy=off, decision=HARMLESS)) as without,
        world(folder / "on", one, busy, text(strategy=SHADOW, decision=HARMLESS)) as shadow,
    ):
        rounds: dict[str, list[list[float]]] = {"off": [], "spins": []}
        for _ in range(5):
            for name, running in (("off", without), ("spins", shadow)):
                rounds[name].append(paced(running.running.client.port, 400))
                while running.policy.shadowing:
                    time.sleep(0.05)
        return {
            name: (min(r[len(r) // 2] for r in lists), min(r[len(r) * 99 // 100] for r in lists))
            for name, lists in rounds.items()
        }


def burst(folder: Path, n: int = 10_000_000) -> str:
    """Notes ``n`` requests at full speed through the real recorder into a real store."""
    root = str(folder / "burst")
    with open_store(root) as store:
        key = started(Rollouts(store), text(strategy=AB, decision=HARMLESS)).key

    def rss() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def play() -> Recorder:
        recorder = Recorder(lambda: Rollouts(open_store(root)), "demo", key)
        recorder.start()
        at = time.time_ns()
        for number in range(n):
            unit = f"u{number}"
            arm = number % 2
            noted = Exposure(unit, 1, arm, 0.1, 0.5, at) if number < 200_000 else None
            recorder.add(
                Row(f"r{number}", "live", arm, arm, 1, 0.5, unit, at, 900, 200, "", b"x" * 300, b"y" * 100), noted
            )
            if number % 1_000_000 == 0:
                told.append(rss())
        await recorder.close()
        return recorder

    told: list[float] = []
    start, before = time.perf_counter(), rss()
    recorder = asyncio.run(play())
    took = time.perf_counter() - start
    with open_store(root) as store:
        rollouts = Rollouts(store)
        batch = rollouts.batch_at(key)[0]
        counters = rollouts.counters(key, batch)
        counted, shed = sum(one.n for one in counters), sum(one.shed for one in counters)
        rows = sum(rollouts.count_rows(key, batch).values())
        assert (counted, rows) == (n, n - shed)
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{n:,} requests in {took:.0f} s: {counted:,} counted, {rows:,} rows kept, {recorder.shed:,} shed; memory"
        f" {before:.0f} MB before, {', '.join(f'{mb:.0f}' for mb in told)} at each tenth, {highest:.0f} MB at most"
    )


def a_million(folder: Path) -> float:
    with open_store(str(folder / "million")) as store:
        rollouts = Rollouts(store)
        record = started(rollouts, text(strategy=AB))
        now, number = time.time_ns(), 0
        for _ in range(100):
            rows, exposures, outcomes = [], [], []
            for _ in range(10_000):
                number += 1
                unit = f"u{number % 250_000}"
                arm = (number % 250_000) % 2
                rows.append(
                    Prediction(
                        f"r{number}", "live", arm, arm, 1, 0.5, unit, now, 900, 200, "x" if number % 997 == 0 else ""
                    )
                )
                if number <= 250_000:
                    exposures.append(Exposure(unit, 1, arm, 0.1, 0.5, now))
                    if number % 5 == 0:
                        outcomes.append(Outcome(f"u:{unit}:conversion", "", unit, "conversion", 1.0, now))
            half = [Counter("live", arm, 1, 1, 5_000, 5, 0, 0, "340:4000,360:1000") for arm in (0, 1)]
            rollouts.record(record.key, rows, exposures, half)
            rollouts.feedback(record.key, outcomes)
        start = time.process_time()
        found = analyze(rollouts, "demo")
        assert sum(traffic.n for traffic in found.observed.traffic) == 1_000_000
        return time.process_time() - start


if __name__ == "__main__":
    asked = sys.argv[1:] or ["record", "http", "spins", "analysis"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "record" in asked:
            loop, both = cpu_of_a_request(folder)
            print(f"decide and record: {loop:.0f} us CPU of the event loop, {both:.0f} us with the thread that writes")
        if "http" in asked:
            told = over_http(folder)
            parts = [f"{key} {value:.3f} ms" for key, value in told.items() if key != "abort"]
            print(f"one model, p50: {', '.join(parts)}\nabort: {told['abort'] * 1000:.0f} ms", flush=True)
        if "spins" in asked:
            found = spinning_shadow(folder)
            for place, what in enumerate(("p50", "p99")):
                off, spins = found["off"][place], found["spins"][place]
                print(
                    f"shadow that spins, {what}: {off:.2f} ms off, {spins:.2f} ms on, {spins / off:.2f} x", flush=True
                )
        if "analysis" in asked:
            print(f"analysis of 1,000,000 requests of 250,000 units: {a_million(folder):.2f} s CPU")
        if "burst" in asked:
            print(burst(folder))
