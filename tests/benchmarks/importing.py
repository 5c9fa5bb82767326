"""Time `mlcli import` of 10,000 runs with 1,000,000 metric points from MLflow's file store in the folder given.

Prints the seconds it took: reading, checking, writing, all in one process, artifacts included (one file per tenth run).
The folder is filled first, the way MLflow fills it; `--keep` leaves it for another time.
"""

import hashlib
import os
import shutil
import sys
import time

from mlcli.store import open_store
from mlcli.transfer.filestore import FileStore
from mlcli.transfer.into import bring

RUNS = 10_000
METRICS = 4
STEPS = 25
META = """artifact_uri: file://{root}/1/{run}/artifacts
end_time: 1700000060000
entry_point_name: ''
experiment_id: '{experiment}'
lifecycle_stage: active
run_id: {run}
run_name: brisk-heron-{number}
source_name: ''
source_type: 4
source_version: ''
start_time: 1700000000000
status: 3
tags: []
user_id: ann
"""
EXPERIMENT = "961060126594141107"


def fill(root: str) -> None:
    home = os.path.join(root, EXPERIMENT)
    os.makedirs(home)
    with open(os.path.join(home, "meta.yaml"), "w") as file:
        file.write(
            f"artifact_location: file://{home}\ncreation_time: 1700000000000\nexperiment_id: '{EXPERIMENT}'\n"
            "last_update_time: 1700000000000\nlifecycle_stage: active\nname: many\n"
        )
    for number in range(RUNS):
        run = hashlib.md5(str(number).encode()).hexdigest()
        folder = os.path.join(home, run)
        for below in ("params", "tags", "metrics", "artifacts"):
            os.makedirs(os.path.join(folder, below))
        write(folder, "meta.yaml", META.format(root=root, experiment=EXPERIMENT, run=run, number=number))
        for place in range(5):
            write(folder, f"params/p{place}", str(number * place / 7))
        for key, value in (
            ("mlflow.runName", f"brisk-heron-{number}"),
            ("mlflow.user", "ann"),
            ("mlflow.source.name", "train.py"),
            ("mlflow.source.type", "LOCAL"),
        ):
            write(folder, f"tags/{key}", value)
        for place in range(METRICS):
            lines = [f"{1700000000000 + step} {number / (step + 1 + place)} {step}\n" for step in range(STEPS)]
            write(folder, f"metrics/m{place}", "".join(lines))
        if number % 10 == 0:
            write(folder, "artifacts/model.txt", "x" * 1000)


def write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


def main(folder: str) -> float:
    source, target = os.path.join(folder, "theirs"), os.path.join(folder, "ours")
    if not os.path.exists(source):
        fill(source)
    start = time.perf_counter()
    with open_store(target) as store:
        report = bring(FileStore(source), store)
    seconds = time.perf_counter() - start
    assert report.complete and report.counts["metric_points"] == RUNS * METRICS * STEPS, report.as_dict()
    again = time.perf_counter()
    with open_store(target) as store:
        report = bring(FileStore(source), store)
    assert report.counts["runs_here_already"] == RUNS and not report.counts["runs_added"]
    print(f"again: {time.perf_counter() - again:.2f} s", file=sys.stderr)
    if "--keep" not in sys.argv:
        shutil.rmtree(source)
    return seconds


if __name__ == "__main__":
    print(main(sys.argv[1]))
