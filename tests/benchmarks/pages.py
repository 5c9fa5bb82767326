"""The pages against their budgets: `python tests/benchmarks/pages.py [RUNS]` on a store of 100,000 runs, in a real Chromium.

    `mlcli ui` to the first page          the process starts; the page has been read by a plain client
    first page, shown                     first contentful paint after the server's answer has come
    first page, all that is transferred   page, styles, scripts, in the browser's own count
    100 curves of 10,000 points           from the request of the points to the picture

With `--mlflow [RUNS]` the page of an experiment is measured beside the one of MLflow's own UI, on the same 200 runs (or RUNS)
that are logged to both servers by the same requests: what is transferred, and the time until the last run can be read.

Times are medians. A busy machine makes them longer: the second column is the time that the processors had to work, of the
server, or of the page's thread in the browser.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import beside
import sites
import searches
from playwright.sync_api import sync_playwright

from mlcli.entities import Metric
from mlcli.store import open_store

ROUNDS = 5
BUDGETS = {"mlcli ui to the first page": 1000, "first page, answered": 0, "first page, shown after the answer": 150,
           "first page, kB in all": 300, "first page filtered and ordered, answered": 0, "100 x 10,000 points, answered": 1000,
           "100 x 10,000 points, drawn": 1000, "compare 1,000 runs, answered": 0}  # fmt: skip


def fill(root: str, runs: int) -> list[str]:
    with open_store(root) as store:
        searches.fill(store.database, runs, int(time.time() * 1000))
        made = []
        for number in range(100):
            run = store.create_run("0", run_name=f"curve-{number:02d}").info.run_id
            points = [
                Metric("loss", 2 / (1 + step / 500) + (step * 7919 + number) % 97 / 500, 1_700_000_000_000 + step, step)
                for step in range(10_000)
            ]
            store.log_batch(run, points)
            store.update_run(run, "FINISHED")
            made.append(run)
    return made


def started(root: str, page: str = "/experiments/1") -> tuple[subprocess.Popen[bytes], str, float]:
    """A server in a process of its own, and how long it took until its first page had been read."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "ui", "--port", "0"],
        env={**os.environ, "MLCLI_TRACKING_URI": root}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    line = process.stdout.readline().decode()
    url = line.partition("URI=")[2].split()[0]
    with urlopen(f"{url}{page}") as answer:
        answer.read()
    return process, url, time.perf_counter() - begun


def worked(pid: int) -> float:
    """Seconds of processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(url: str, pid: int) -> tuple[float, float]:
    """Milliseconds until an answer has come, and of work of the server for it; the median of several."""
    times, before = [], worked(pid)
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with urlopen(url) as answer:
            answer.read()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000, (worked(pid) - before) / ROUNDS * 1000


def work_of(session: object) -> float:
    """Milliseconds that the thread of the page has worked."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(item["value"] for item in metrics if item["name"] == "TaskDuration") * 1000


def log_runs(url: str, count: int) -> str:
    """Log runs by MLflow's REST API, the same for every server; gives their experiment."""

    def post(path: str, **body: object) -> dict[str, Any]:
        asked = Request(f"{url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(asked) as answer:
            return json.load(answer)

    experiment = post("experiments/create", name="beside")["experiment_id"]
    for number in range(count):
        now = 1_700_000_000_000 + number
        info = post("runs/create", experiment_id=experiment, start_time=now, run_name=f"run-{number:04d}")["run"][
            "info"
        ]
        metrics = [{"key": key, "value": number / count, "timestamp": now, "step": 0} for key in ("loss", "accuracy")]
        params = [{"key": key, "value": str(number % 7)} for key in ("lr", "layers", "batch")]
        post("runs/log-batch", run_id=info["run_id"], metrics=metrics, params=params)
        post("runs/update", run_id=info["run_id"], status="FINISHED", end_time=now + 1000)
    return experiment


def beside_mlflow(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        place = f"sqlite:///{folder}/mlflow.db"
        mlflow = subprocess.Popen(
            [str(beside.install_mlflow() / "mlflow"), "server", "--port", str(port), "--workers", "1",
             "--backend-store-uri", place, "--default-artifact-root", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ours, our_url, _ = started(str(Path(folder) / "mlruns"), "/")
        their_url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                try:
                    urlopen(f"{their_url}/health").close()
                    break
                except OSError:
                    time.sleep(0.5)
            browser = playwright.chromium.launch(executable_path=sites.CHROMIUM, args=sites.FLAGS)
            print(f"{'page of an experiment of ' + str(count) + ' runs':44}{'kB in all':>12}{'ms to content':>15}")
            for name, url, address in (
                ("mlcli", our_url, "/experiments/{}"),
                ("MLflow", their_url, "/#/experiments/{}/runs"),
            ):
                experiment = log_runs(url, count)
                sizes, times = [], []
                for _ in range(ROUNDS):
                    context = browser.new_context(viewport={"width": 1280, "height": 900})
                    page = context.new_page()
                    session = context.new_cdp_session(page)
                    session.send("Network.enable")
                    sizes.append(0)

                    def came(event: dict[str, Any], sizes: list[float] = sizes) -> None:
                        sizes[-1] += event["encodedDataLength"] / 1000

                    session.on("Network.loadingFinished", came)
                    begun = time.perf_counter()
                    page.goto(url + address.format(experiment), wait_until="commit")
                    page.get_by_text(f"run-{count - 1:04d}").first.wait_for(timeout=60_000)
                    times.append((time.perf_counter() - begun) * 1000)
                    page.wait_for_timeout(1000)
                    context.close()
                print(f"{name:44}{statistics.median(sizes):>12.0f}{statistics.median(times):>15.0f}")
            browser.close()
        finally:
            for process in (ours, mlflow):
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def main() -> None:
    if sys.argv[1:2] == ["--mlflow"]:
        return beside_mlflow(int(sys.argv[2]) if len(sys.argv) > 2 else 200)
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    found: dict[str, float] = {}
    work: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = str(Path(folder) / "mlruns")
        print(f"... a store of {runs:,} runs and 100 curves of 10,000 points", file=sys.stderr)
        curves = fill(root, runs)
        starts, works = [], []
        for _ in range(3):
            process, url, took = started(root)
            starts.append(took)
            works.append(worked(process.pid))
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        found["mlcli ui to the first page"] = statistics.median(starts) * 1000
        work["mlcli ui to the first page"] = statistics.median(works) * 1000
        process, url, _ = started(root)
        try:
            search = (
                "filter=params.model%3D'CNN'%20AND%20metrics.training_score%20%3E%200.9&order=-metrics.training_score"
            )
            points = f"{url}/charts/points?metric=loss&stretches=400&" + "&".join(f"run={run}" for run in curves)
            for name, address in (("first page, answered", f"{url}/experiments/1"),
                                  ("first page filtered and ordered, answered", f"{url}/experiments/1?{search}"),
                                  ("100 x 10,000 points, answered", points),
                                  ("compare 1,000 runs, answered", f"{url}/compare?e=1")):  # fmt: skip
                found[name], work[name] = timed(address, process.pid)
            browser = playwright.chromium.launch(executable_path=sites.CHROMIUM, args=sites.FLAGS)
            shown, works = [], []
            for _ in range(ROUNDS):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                session = context.new_cdp_session(page)
                session.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.goto(f"{url}/experiments/1")
                while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
                    page.wait_for_timeout(
                        20
                    )  # the policy of the pages lets nobody evaluate texts, wait_for_function neither
                shown.append(page.evaluate(
                    "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                    " - performance.getEntriesByType('navigation')[0].responseEnd"))  # fmt: skip
                found["first page, kB in all"] = page.evaluate(
                    "[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]"
                    ".reduce((sum, one) => sum + one.transferSize, 0)") / 1000  # fmt: skip
                works.append(work_of(session))
                context.close()
            work["first page, shown after the answer"] = statistics.median(works)
            found["first page, shown after the answer"] = statistics.median(shown)
            drawn, works = [], []
            for _ in range(ROUNDS):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                session = context.new_cdp_session(page)
                session.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.goto(f"{url}/charts?metric=loss&" + "&".join(f"run={run}" for run in curves))
                page.locator(".plot[data-drawn]").wait_for()
                drawn.append(page.evaluate(
                    "new Promise((done) => requestAnimationFrame(() => done(performance.now()"
                    " - performance.getEntriesByType('resource').find((one) => one.name.includes('/points?')).startTime)))"))  # fmt: skip
                works.append(work_of(session))
                context.close()
            work["100 x 10,000 points, drawn"] = statistics.median(works)
            found["100 x 10,000 points, drawn"] = statistics.median(drawn)
            browser.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    print(f"{'':44}{'measured':>10}{'work':>8}{'budget':>10}")
    for name, budget in BUDGETS.items():
        value = found[name]
        took = f"{work[name]:.0f}" if name in work else ""
        print(f"{name:44}{value:>10.1f}{took:>8}{budget or '-':>10}{'' if not budget or value <= budget else '  OVER'}")


if __name__ == "__main__":
    main()
