"""The pages against their budgets: `python tests/benchmarks/pages.py [RUNS]` on a store of 100,000 runs, in a real Chromium.

    `mlcli ui` to the first page          the process starts; the page has been read by a plain client
    first page, shown                     first contentful paint after the server's answer has come
    first page, all that is transferred   page, styles, scripts, in the browser's own count
    100 curves of 10,000 points           from the request of the points to the picture

Times are medians. A busy machine makes them longer: the second column is the time that the processors had to work, of the
server, or of the page's thread in the browser.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

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


def started(root: str) -> tuple[subprocess.Popen[bytes], str, float]:
    """A server in a process of its own, and how long it took until its first page had been read."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "ui", "--port", "0"],
        env={**os.environ, "MLCLI_TRACKING_URI": root}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    line = process.stdout.readline().decode()
    url = line.partition("URI=")[2].split()[0]
    with urlopen(f"{url}/experiments/1") as answer:
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


def main() -> None:
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
