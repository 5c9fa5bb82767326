"""Ready time, memory and requests a second of `mlcli server`: `python tests/benchmarks/server.py [SECONDS]`.

The load comes from processes of their own, each with one keep-alive connection and requests written by hand: what is
measured is the server. Both share the machine, so a machine with two cores shows less than the server can do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from urllib.request import urlopen

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


def load(kind: str, clients: int, port: int, run_id: str, seconds: float) -> tuple[float, float, float]:
    """Requests a second, the median and the 99th percentile of a request in ms."""
    gate, results = multiprocessing.Barrier(clients + 1), multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=work, args=(kind, port, run_id, seconds, number, gate, results))
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    gate.wait()
    times = sorted(time for _ in processes for time in results.get())
    for process in processes:
        process.join()
    return len(times) / seconds, times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3


def pss(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def cpu(pid: int) -> float:
    """Seconds of processor time that the process has used: what it costs, however busy the machine is."""
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


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


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "mlcli", "server", "--backend-store-uri", f"{folder}/mlruns", "-p", str(port)]
        for _ in range(2):  # the first start also makes the store
            start = time.perf_counter()
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while True:
                try:
                    urlopen(f"http://127.0.0.1:{port}/health").read()
                    break
                except OSError:
                    time.sleep(0.002)
            print(f"{'start to the first answer':28}{time.perf_counter() - start:8.3f} s   (<= 0.6)")
            if _ == 0:
                server.send_signal(signal.SIGTERM)
                server.wait()
        try:
            run_id = fill(port)
            for (kind, clients), budget in BUDGETS.items():
                before = cpu(server.pid)
                rate, middle, late = load(kind, clients, port, run_id, seconds)
                cost = (cpu(server.pid) - before) / (rate * seconds) * 1e3
                wanted = f"(>= {budget})" if budget else ""
                print(
                    f"{kind + f', {clients} clients':28}{rate:8.0f} /s  p50 {middle:6.2f} ms  p99 {late:6.2f} ms  cpu {cost:5.2f} ms   {wanted}"
                )
            print(f"{'memory under load (PSS)':28}{pss(server.pid):8.1f} MB  (<= 90)")
        finally:
            server.send_signal(signal.SIGTERM)
            print(f"{'exit code after SIGTERM':28}{server.wait():8}")


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
