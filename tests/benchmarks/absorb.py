"""Time the absorption of a journal of 600,000 metric lines into the store folder given; prints seconds per line."""

import sys
import time

from mlcli import journal
from mlcli.store import open_store

POINTS = 600_000
with open_store(sys.argv[1]) as store:
    writer = journal.writer(sys.argv[1])
    run_id = journal.new_run_id()
    writer.start_run(run_id, "0", "bench", "bench", journal.now())
    for step in range(POINTS // 2):
        writer.metric(run_id, "loss", 0.123 * step, step)
        writer.metric(run_id, "accuracy", 0.456 * step, step)
    start = time.perf_counter()
    store.absorb()
    print((time.perf_counter() - start) / POINTS)
