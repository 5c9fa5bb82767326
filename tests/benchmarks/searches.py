"""Search at 1,000, 10,000 and 100,000 runs: ``python tests/benchmarks/searches.py [sizes]`` prints medians in ms.

``postgresql://...`` among the words is an empty database to fill and search instead of SQLite's, at one size.

Each run has 5 params, 5 metrics and 3 tags. Timed is what a search does before its runs are read: parse, plan, page of keys.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mlcli.store import query
from mlcli.store.absorb import number
from mlcli.store.database import Database, Sqlite

TUTORIAL = "params.l1_ratio = '0.03' and metrics.training_score >= 0.65"
SCORE = "metrics.training_score DESC"
# name: filter, order, experiments, rows wanted
CASES: dict[str, tuple[str, list[str], list[int] | None, int]] = {
    "tutorial search (1 run of 100), all experiments": (TUTORIAL, [SCORE], None, 10),
    "tutorial search, one large experiment": (TUTORIAL, [SCORE], [1], 10),
    "tutorial search, one small experiment": (TUTORIAL, [SCORE], [2], 10),
    "no filter, newest 10": ("", [], None, 10),
    "no filter, newest 1,000": ("", [], None, 1000),
    "newest 10 of one experiment": ("", [], [1], 10),
    "newest 10 of three experiments": ("", [], [1, 2, 3], 10),
    "no filter, best 10 by metric": ("", [SCORE], None, 10),
    "best 10 of one small experiment": ("", [SCORE], [2], 10),
    "param of half the runs, best 10": ("params.model = 'CNN'", [SCORE], None, 10),
    "param of three runs, best 10": ("params.rare = '1'", [SCORE], None, 10),
    "param of no run, best 10": ("params.rare = '2'", [SCORE], None, 10),
    "param as number, newest 10": ("params.alpha > 0.99", [], None, 10),
    "two params, newest 10": ("params.model = 'CNN' and params.l1_ratio = '0.03'", [], None, 10),
    "param IN, best 10": ("params.l1_ratio IN ('0.03', '0.04')", [SCORE], None, 10),
    "tag of a tenth, best 100": ("tags.team = 'team3'", [SCORE], None, 100),
    "tag of one run": ("tags.`mlflow.runName` = 'run-77'", [], None, 10),
    "rare metric, newest 10": ("metrics.training_score > 0.9999", [], None, 10),
    "diverged (IS NAN), newest 10": ("metrics.loss IS NAN", [], None, 10),
    "param IS NULL, newest 10": ("params.rare IS NULL", [], None, 10),
    "metric IS NOT NULL of three runs": ("metrics.rare IS NOT NULL", [], None, 10),
    "OR of a rare and a common one": ("params.rare = '1' OR params.model = 'CNN'", [SCORE], None, 10),
    "OR of two rare ones": ("params.rare = '1' OR metrics.rare > 0", [SCORE], None, 10),
    "NOT (common)": ("NOT (params.model = 'CNN' OR tags.team = 'team3')", [], None, 10),
    "LIKE half, newest 10": ("params.model LIKE 'C%'", [], None, 10),
    "running": ("status = 'RUNNING'", [], None, 10),
    "last two days, best 10": ("start_time > -2d", [SCORE], None, 10),
    "order by param": ("", ["params.alpha"], None, 10),
    "order by tag": ("", ["tags.team DESC"], None, 10),
    "order by metric that three runs have": ("", ["metrics.rare"], None, 10),
    "order by metric with many equals": ("", ["metrics.epoch"], None, 10),
    "scan: LIKE of no run": ("params.model LIKE 'X%'", [], None, 10),
    "scan: run_name": ("run_name = 'run-77'", [], None, 10),
    "scan: longest 10": ("", ["duration DESC"], None, 10),
    "scan: deleted and active, newest 10": ("", [], None, -10),
    "page at offset 900": ("", [SCORE], None, 910),
}


def fill(database: Database, count: int, now: int) -> None:
    """Experiment 2 has a hundredth of the runs, 3 a tenth, 1 the rest; run ``k`` is one minute older than ``k + 1``."""
    dice = random.Random(5)
    runs, params, series, tags = [], [], [], []
    for run in range(1, count + 1):
        experiment = 2 if run % 100 == 50 else 3 if run % 10 == 5 else 1
        start = now - (count - run) * 60_000
        status = "RUNNING" if run > count - 5 else "FAILED" if run % 50 == 0 else "FINISHED"
        end = None if status == "RUNNING" else start + dice.randrange(1, 10_000_000)
        runs.append((run, f"{dice.getrandbits(128):032x}", experiment, f"run-{run}", "ann", status, start, end))
        values = {
            "l1_ratio": f"0.{dice.randrange(100):02d}",
            "alpha": repr(dice.random()),
            "model": "CNN" if dice.random() < 0.5 else "MLP",
            "seed": str(run),
            "optimizer": "adam",
        }
        if run in (count // 3, count // 2, count - 100):
            values["rare"] = "1"
            series.append((run, "rare", dice.random(), 0))
        params += [(run, key, value, number(value)) for key, value in values.items()]
        nan = run % 1000 == 500
        measured = {"training_score": dice.random(), "rmse": dice.random(), "r2": dice.random(), "epoch": 100.0}
        series += [(run, key, value, 0) for key, value in measured.items()]
        series.append((run, "loss", 0.0 if nan else dice.random(), int(nan)))
        tags += [
            (run, "team", f"team{dice.randrange(10)}"),
            (run, "mlflow.user", "ann"),
            (run, "mlflow.runName", f"run-{run}"),
        ]
    with database.transaction():
        for experiment in (1, 2, 3):
            database.execute(
                "INSERT INTO experiments (id, name, creation_time, last_update_time) VALUES (:id, :name, 0, 0)",
                {"id": experiment, "name": f"experiment {experiment}"},
            )
        database.execute_many(
            "INSERT INTO runs (id, run_id, experiment, name, user_id, status, start_time, end_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            runs,
        )
        database.execute_many("INSERT INTO params VALUES (?, ?, ?, ?)", params)
        database.execute_many(
            "INSERT INTO series (run, key, value, is_nan, step, timestamp) VALUES (?, ?, ?, ?, 0, 0)", series
        )
        database.execute_many("INSERT INTO tags VALUES (?, ?, ?)", tags)
    database.optimize()


def median(database: Database, case: tuple[str, list[str], list[int] | None, int], now: int) -> float:
    text, order, experiments, wanted = case
    view = "ALL" if wanted < 0 else "ACTIVE_ONLY"
    times = []
    for _ in range(11):
        start = time.perf_counter()
        query.runs(text, order, experiments, view, now).page(database.query, min(abs(wanted), 1000), 0)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def opened(address: str | None, folder: str) -> Database:
    if address is None:
        return Sqlite(str(Path(folder) / "mlcli.db"))
    from mlcli.store.postgres import Postgres

    return Postgres(address)


def main(sizes: list[int], address: str | None = None) -> None:
    now = int(time.time() * 1000)
    columns = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            database = opened(address, folder)
            try:
                fill(database, size, now)
                columns.append([median(database, case, now) for case in CASES.values()])
            finally:
                database.close()
    print(f"{'median ms':50}" + "".join(f"{size:>10,}" for size in sizes))
    for name, *row in zip(CASES, *columns):
        print(f"{name:50}" + "".join(f"{value:10.2f}" for value in row))


if __name__ == "__main__":
    words = sys.argv[1:]
    addresses = [word for word in words if "://" in word]
    main([int(word) for word in words if word.isdigit()] or [1000, 10_000, 100_000], *addresses)
