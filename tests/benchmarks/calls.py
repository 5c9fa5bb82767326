"""Time calls of a tracking API: `python calls.py mlcli|mlflow POINTS RUNS`; prints seconds per call as JSON."""

import importlib
import json
import os
import sys
import tempfile
import time

module, points, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tracking = importlib.import_module(module)
tracking.set_tracking_uri("mlruns" if module == "mlcli" else "sqlite:///mlflow.db")
result = {}

with tracking.start_run() as run:
    tracking.log_metric("loss", 0.5, step=0)
    start = time.perf_counter()
    for step in range(points):
        tracking.log_metric("loss", 0.5, step=step)
    result["log_metric"] = (time.perf_counter() - start) / points

start = time.perf_counter()
for _ in range(runs):
    tracking.start_run()
    tracking.end_run()
result["start_end"] = (time.perf_counter() - start) / runs

client = tracking.MlflowClient()
client.get_metric_history(run.info.run_id, "loss")
start = time.perf_counter()
found = client.get_metric_history(run.info.run_id, "loss")
result["history"] = (time.perf_counter() - start) * 100_000 / len(found)

with tempfile.TemporaryFile("ab", buffering=0) as file:
    line = b'{"run":"0123456789abcdef0123456789abcdef","metric":"loss","value":0.5,"step":7,"time":1700000000000}\n'
    start = time.perf_counter()
    for _ in range(points):
        os.write(file.fileno(), line)
    result["write"] = (time.perf_counter() - start) / points
print(json.dumps(result))
