"""Serve one LogisticRegression with mlcli, with MLflow and with bare ASGI, one after another: `python tests/benchmarks/serving.py [SECONDS]`.

The load comes from processes of their own, each with one keep-alive connection and requests written by hand. `--no-mlflow` leaves
MLflow out (its environment is installed once, into the cache of the tests).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from server import Connection, cpu  # noqa: E402 - beside this file

# What each figure may be, as a ratio: (over MLflow's, over the limit's). None is not asked for.
BUDGETS = {
    "p50 of one row, ms": (0.15, 2.0),
    "requests a second, 8 clients": (15.0, None),
    "start to first /ping, s": (0.2, None),
}
RAW = """
import pickle, json, sys
import numpy as np, uvicorn
with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
async def app(scope, receive, send):
    body = b""
    if scope["method"] == "POST":
        rows = json.loads((await receive())["body"])["dataframe_split"]["data"]
        body = json.dumps({"predictions": model.predict(np.array(rows)).tolist()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[2]), lifespan="off", access_log=False, log_level="error")
"""


def make(folder: Path) -> dict:
    """Save the model; the body that asks it for one row."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    import mlcli.sklearn
    from mlcli.models import infer_signature

    X, y = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=500).fit(X, y)
    mlcli.sklearn.save_model(model, folder / "model", signature=infer_signature(X, model.predict(X)))
    with (folder / "bare.pkl").open("wb") as file:
        pickle.dump(LogisticRegression(max_iter=500).fit(X.to_numpy(), y), file)
    return {"dataframe_split": {"columns": list(X), "data": [[5.1, 3.5, 1.4, 0.2]]}}


def work(port: int, body: dict, seconds: float, gate, results) -> None:
    connection = Connection(port)
    gate.wait()
    times, end = [], time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        connection.request("POST", "/invocations", body)
        times.append(time.perf_counter() - start)
    results.put(times)


def load(port: int, body: dict, clients: int, seconds: float) -> list[float]:
    gate, results = multiprocessing.Barrier(clients + 1), multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=work, args=(port, body, seconds, gate, results)) for _ in range(clients)
    ]
    for process in processes:
        process.start()
    gate.wait()
    times = sorted(one for _ in processes for one in results.get())
    for process in processes:
        process.join()
    return times


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [pid]
    for one in found:
        found += [child for child, parent in parents if parent == one]
    return found


def pss(pid: int) -> float:
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass
    return total / 1024


def measure(command: list[str], environ: dict[str, str], port: int, body: dict, seconds: float) -> dict[str, float]:
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                    sock.sendall(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port)
                    if b" 200 " in sock.recv(100):
                        break
            except OSError:
                pass
            if process.poll() is not None or time.perf_counter() - begun > 120:
                raise SystemExit(f"does not start: {' '.join(command)}")
            time.sleep(0.005)
        ready = time.perf_counter() - begun
        load(port, body, 1, 0.5)
        used = sum(map(cpu, family(process.pid)))
        one = load(port, body, 1, seconds)
        eight = load(port, body, 8, seconds)
        used = sum(map(cpu, family(process.pid))) - used
        return {
            "start to first /ping, s": ready,
            "p50 of one row, ms": statistics.median(one) * 1e3,
            "p99 of one row, ms": one[int(len(one) * 0.99)] * 1e3,
            "requests a second, 8 clients": len(eight) / seconds,
            "p99 with 8 clients, ms": eight[int(len(eight) * 0.99)] * 1e3,
            "processor us a request": used / (len(one) + len(eight)) * 1e6,
            "memory (PSS), MB": pss(process.pid),
        }
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        for pid in family(process.pid)[1:]:
            os.kill(pid, signal.SIGTERM)
        process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def main() -> None:
    numbers = [word for word in sys.argv[1:] if word != "--no-mlflow"]
    seconds = float(numbers[0]) if numbers else 5.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = make(folder)
        environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        port = free_port()
        ours = [sys.executable, "-m", "mlcli", "models", "serve", "-m", str(folder / "model"), "--env-manager", "local"]
        columns = {"mlcli": measure([*ours, "-p", str(port)], environ, port, body, seconds)}
        if "--no-mlflow" not in sys.argv:
            from mlflow_environments import python_with

            python, port = python_with("newest"), free_port()
            theirs = [
                str(python.with_name("mlflow")),
                "models",
                "serve",
                "-m",
                str(folder / "model"),
                "--env-manager",
                "local",
            ]
            path = {**environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
            columns["MLflow"] = measure([*theirs, "-p", str(port)], path, port, body, seconds)
        port = free_port()
        raw = [sys.executable, "-c", RAW, str(folder / "bare.pkl"), str(port)]
        columns["limit"] = measure(raw, environ, port, body, seconds)
    print("| |" + "".join(f" {name} |" for name in columns) + " to MLflow | to the limit | budget |")
    print("|---|" + "---|" * (len(columns) + 3))
    for what, value in columns["mlcli"].items():
        ratios = [value / columns[other][what] if other in columns else None for other in ("MLflow", "limit")]
        budget = BUDGETS.get(what)
        verdict = "" if budget is None else told(what, ratios, budget)
        cells = [f"{columns[name][what]:.3g}" for name in columns] + [
            "-" if one is None else f"{one:.2f}" for one in ratios
        ]
        print(f"| {what} | " + " | ".join(cells) + f" | {verdict} |")


def told(what: str, ratios: list[float | None], budget: tuple[float | None, float | None]) -> str:
    more = "a second" in what
    parts = []
    for ratio, limit, other in zip(ratios, budget, ("MLflow", "the limit"), strict=True):
        if limit is not None:
            kept = ratio is None or (ratio >= limit if more else ratio <= limit)
            parts.append(
                f"{'>=' if more else '<='} {limit:g} x {other}: {'-' if ratio is None else 'kept' if kept else 'MISSED'}"
            )
    return ", ".join(parts)


if __name__ == "__main__":
    main()
