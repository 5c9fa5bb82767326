"""Time the tutorial's search over a store of N generated runs: `python search.py FOLDER N`; prints the median in seconds."""

import random
import statistics
import sys
import time

from mlcli import journal
from mlcli.store import open_store

folder, runs = sys.argv[1], int(sys.argv[2])
draw = random.Random(0)
writer = journal.writer(folder)
for number in range(runs):
    run_id = journal.new_run_id()
    params = {"l1_ratio": f"0.{draw.randrange(100):02d}", **{f"p{key}": str(draw.randrange(10)) for key in range(4)}}
    tags = {f"t{key}": str(draw.randrange(5)) for key in range(3)}
    writer.start_run(run_id, "0", f"run-{number}", "bench", 1_700_000_000_000 + number, tags=tags, params=params)
    writer.metrics(run_id, {"training_score": draw.random(), **{f"m{key}": draw.random() for key in range(4)}}, 0, 1)
    writer.status(run_id, "FINISHED", 1_700_000_000_500 + number)
journal.release(folder)
times = []
with open_store(folder) as store:
    for _ in range(51):
        start = time.perf_counter()
        found = store.search_runs(
            ["0"],
            "params.l1_ratio = '0.03' and metrics.training_score >= 0.65",
            max_results=10,
            order_by=["metrics.training_score DESC"],
        )
        times.append(time.perf_counter() - start)
    assert len(found) == min(10, len(found)) and all(run.data.params["l1_ratio"] == "0.03" for run in found)
print(statistics.median(times))
