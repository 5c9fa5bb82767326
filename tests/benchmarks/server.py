"""Ready time, memory and requests a second of `mlcli server`: `python tests/benchmarks/server.py [--seconds N] [--mlflow]`.

Each figure stands beside its budget; `--mlflow` measures `mlflow server` (the newest) in the same run, with its default
number of workers. The load comes from processes of their own, each with one keep-alive connection and requests written by
hand: what is measured is the server. Both share the machine, so a machine with two cores shows less than the server can
do; "cpu" is what a request costs the server's processes, however busy the machine is. The floor is the same uvicorn with an
application that answers at once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from beside import install_mlflow

API = "/api/2.0/mlflow/"
BUDGETS = {
    ("log-metric", 1): 1500,
    ("log-batch of 10", 1): 1500,
    ("runs/search", 1): 1000,
    ("runs/get", 1): 0,
    ("log-metric", 8): 2500,
    ("log-batch of 10", 8): 0,
    ("runs/search", 8): 1500,
    ("runs/get", 8): 2500,
}


class Connection:
    """One keep-alive connection that sends requests written beforehand."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def request(self, method: str, path: str, body: object = None) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self.sock.sendall(head.encode() + data)
        return self.answer()

    def answer(self) -> bytes:
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head!r} {body!r}")
        return body

    def _more(self) -> None:
        part = self.sock.recv(1 << 20)
        if not part:
            raise SystemExit("the server closed the connection")
        self.rest += part


def work(kind: str, port: int, run_id: str, seconds: float, number: int, gate, results) -> None:
    connection = Connection(port)
    gate.wait()
    times, place = [], number * 10_000_000
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        place += 1
        if kind == "log-metric":
            point = {
                "run_id": run_id,
                "run_uuid": run_id,
                "key": f"m{number}",
                "value": 0.5,
                "timestamp": place,
                "step": place,
            }
            connection.request("POST", API + "runs/log-metric", point)
        elif kind == "log-batch of 10":
            points = [{"key": f"b{key}", "value": 0.5, "timestamp": place, "step": place} for key in range(10)]
            connection.request("POST", API + "runs/log-batch", {"run_id": run_id, "metrics": points})
        elif kind == "runs/search":
            asked = {
                "experiment_ids": ["1"],
                "max_results": 10,
                "order_by": ["metrics.acc DESC"],
                "filter": "metrics.acc > 0.2",
            }
            connection.request("POST", API + "runs/search", asked)
        else:
            connection.request("GET", API + "runs/get?run_id=" + run_id)
        times.append(time.perf_counter() - start)
    results.put(times)


class Load(NamedTuple):
    """How a server stood one kind of requests: how many a second, and ms of a request."""

    rate: float
    middle: float
    late: float
    cpu: float


def load(kind: str, clients: int, port: int, run_id: str, seconds: float, session: int) -> Load:
    """Let so many clients ask for so many seconds."""
    gate, results = multiprocessing.Barrier(clients + 1), multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=work, args=(kind, port, run_id, seconds, number, gate, results))
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    before = cpu(session)
    gate.wait()
    times = sorted(time for _ in processes for time in results.get())
    cost = (cpu(session) - before) / len(times)
    for process in processes:
        process.join()
    return Load(len(times) / seconds, times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3, cost * 1e3)


def members(session: int) -> list[int]:
    """The processes of a server: it was started in a session of its own."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(name)) == session:
                found.append(int(name))
        except OSError:
            continue
    return found


def pss(session: int) -> float:
    """Megabytes of memory of all processes of a server, what they share counted once."""
    total = 0
    for pid in members(session):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


def cpu(session: int) -> float:
    """Seconds of processor time that the processes of a server have used."""
    total = 0
    for pid in members(session):
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])
    return total / os.sysconf("SC_CLK_TCK")


def fill(port: int) -> str:
    """100 runs of 5 params, 5 metrics and 3 tags in experiment 1; the id of one of them."""
    connection = Connection(port)
    connection.request("POST", API + "experiments/create", {"name": "load"})
    for number in range(100):
        run = json.loads(connection.request("POST", API + "runs/create", {"experiment_id": "1"}))
        run_id = run["run"]["info"]["run_id"]
        pairs = [{"key": f"k{key}", "value": str(number)} for key in range(5)]
        metrics = [
            {"key": key, "value": number / 100, "timestamp": 1, "step": 0} for key in ("acc", "b", "c", "d", "e")
        ]
        connection.request(
            "POST", API + "runs/log-batch", {"run_id": run_id, "metrics": metrics, "params": pairs, "tags": pairs[:3]}
        )
    return run_id


@contextmanager
def running(command: list[str], folder: str, port: int) -> Iterator[tuple[int, float]]:
    """A server; its session, and the seconds until its first answer."""
    start = time.perf_counter()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MLCLI_"))}
    server = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/health").read()
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit(f"it ended with {server.returncode}: {command}") from None
                time.sleep(0.002)
        yield server.pid, time.perf_counter() - start
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Figures(NamedTuple):
    """What one server did."""

    start: float
    memory: float
    loads: dict[tuple[str, int], Load]


def measure(command: list[str], seconds: float, kinds: list[tuple[str, int]]) -> Figures:
    """Start a server twice, since the first start makes the store, and put it under every kind of load."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [*command, "--port", str(port)]
        with running(command, folder, port):
            pass
        with running(command, folder, port) as (session, start):
            run_id = fill(port)
            loads = {kind: load(*kind, port, run_id, seconds, session) for kind in kinds}
            return Figures(start, pss(session), loads)


def ours() -> list[str]:
    return [sys.executable, "-m", "mlcli", "server", "--backend-store-uri", "mlruns"]


def theirs(programs: Path) -> list[str]:
    """MLflow's server with the settings that it has of itself."""
    return [str(programs / "mlflow"), "server", "--backend-store-uri", "sqlite:///mlflow.db", "--host", "127.0.0.1"]


FLOOR = """
import sys, uvicorn
async def app(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[-1]), log_level="critical", lifespan="off", access_log=False, ws="none")
"""


def floor(seconds: float) -> dict[int, Load]:
    """What is left when nothing is done: requests with one client and with eight."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        with running([sys.executable, "-c", FLOOR, str(port)], folder, port) as (session, _):
            return {clients: load("runs/get", clients, port, "0" * 32, seconds, session) for clients in (1, 8)}


CALLS = """
import sys, time
import mlcli
with mlcli.start_run():
    mlcli.log_metric("loss", 0.5, step=0)
    start = time.perf_counter()
    for step in range(1, 1001):
        mlcli.log_metric("loss", 0.5, step=step)
    print((time.perf_counter() - start) * 1e3)
"""


def through_the_client() -> tuple[float, float]:
    """8 processes that log 1,000 points each: microseconds of a call, and seconds until the server has all of them."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        with running([*ours(), "--port", str(port)], folder, port):
            environ = {**os.environ, "MLCLI_TRACKING_URI": f"http://127.0.0.1:{port}", "XDG_STATE_HOME": folder}
            start = time.perf_counter()
            programs = [
                subprocess.Popen([sys.executable, "-c", CALLS], env=environ, stdout=subprocess.PIPE, text=True)
                for _ in range(8)
            ]
            costs = [float(program.communicate()[0]) for program in programs]
            whole = time.perf_counter() - start
            asked = {"experiment_ids": ["0"], "filter": "metrics.loss = 0.5", "max_results": 10}
            runs = json.loads(Connection(port).request("POST", API + "runs/search", asked))["runs"]
            arrived = [run["data"]["metrics"][0]["step"] for run in runs]
            if arrived != [1000] * 8:
                raise SystemExit(f"points are missing: {arrived}")
    return sorted(costs)[len(costs) // 2], whole


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure mlcli server.")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each kind of load")
    parser.add_argument("--mlflow", action="store_true", help="measure the newest MLflow beside it (installs it once)")
    options = parser.parse_args()
    programs = None
    if options.mlflow:
        programs = install_mlflow()
    kinds = list(BUDGETS)
    found = measure(ours(), options.seconds, kinds)
    other = measure(theirs(programs), options.seconds, kinds) if programs else None
    least = floor(options.seconds)
    call, whole = through_the_client()
    line = "{:36}{:>12}{:>12}{:>12}  {}".format
    print(line("", "mlcli", "budget", "MLflow", "p50, p99, cpu of a request in ms (MLflow's)"))
    print(
        line("start to the first answer, s", f"{found.start:.3f}", "<= 0.6", other and f"{other.start:.1f}" or "", "")
    )
    print(line("memory under load, MB", f"{found.memory:.1f}", "<= 90", other and f"{other.memory:.0f}" or "", ""))
    for (kind, clients), budget in BUDGETS.items():
        mine, its = found.loads[kind, clients], other and other.loads[kind, clients]
        note = f"{mine.middle:.2f}, {mine.late:.2f}, {mine.cpu:.2f}"
        note += f"   ({its.middle:.1f}, {its.late:.1f}, {its.cpu:.1f})" if its else ""
        wanted = f">= {budget}" if budget else ""
        its_rate = f"{its.rate:.0f}" if its else ""
        print(line(f"{kind}, {clients} clients, a second", f"{mine.rate:.0f}", wanted, its_rate, note))
    for clients, bare in least.items():
        note = f"{bare.middle:.2f}, {bare.late:.2f}, {bare.cpu:.2f}"
        print(line(f"floor: uvicorn alone, {clients} clients", f"{bare.rate:.0f}", "", "", note))
    print(line("log_metric of a client, us a call", f"{call:.1f}", "<= 10", "", ""))
    print(
        line(
            "8 programs x 1,000 log_metric, s",
            f"{whole:.2f}",
            "",
            "",
            "start of Python to the last point on the server",
        )
    )


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
