"""Stores of MLflow's, written by hand as MLflow writes them: small, and the same everywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPERIMENT = "961060126594141107"
RUN = "0123456789abcdef0123456789abcdef"
CHILD = "fedcba9876543210fedcba9876543210"
TIME = 1_700_000_000_000


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def experiment(root: Path, key: str = EXPERIMENT, name: str = "wine", stage: str = "active") -> Path:
    folder = root / key if stage == "active" else root / ".trash" / key
    meta = (
        f"artifact_location: file://{folder}\ncreation_time: {TIME}\nexperiment_id: '{key}'\nlast_update_time: {TIME}\n"
    )
    write(folder / "meta.yaml", f"{meta}lifecycle_stage: {stage}\nname: {name}\n")
    return folder


def run(
    folder: Path, run_id: str = RUN, *, status: int = 3, stage: str = "active", name: str = "brisk-heron-1"
) -> Path:
    place = folder / run_id
    write(
        place / "meta.yaml",
        f"artifact_uri: file://{place}/artifacts\nend_time: {TIME + 1000 if status != 1 else 'null'}\nentry_point_name: ''\n"
        f"experiment_id: '{folder.name}'\nlifecycle_stage: {stage}\nrun_id: {run_id}\nrun_name: {name}\nsource_name: ''\n"
        f"source_type: 4\nsource_version: ''\nstart_time: {TIME}\nstatus: {status}\ntags: []\nuser_id: ann\n",
    )
    (place / "artifacts").mkdir()
    write(place / "tags" / "mlflow.runName", name)
    return place


def full(root: Path) -> Path:
    """A file store with one of everything."""
    folder = experiment(root)
    write(folder / "tags" / "team", "blue")
    place = run(folder)
    write(place / "params" / "alpha", "0.5")
    write(place / "params" / "data" / "path", "train.csv")
    write(place / "params" / "text", "two\nlines\n")
    write(place / "metrics" / "loss", f"{TIME} 1.5 0\n{TIME + 1} nan 1\n{TIME + 2} inf 2\n{TIME + 3} 0.25 3\n")
    write(place / "metrics" / "val" / "acc", f"{TIME} 0.5 0\n{TIME + 1} 0.75 1 wine abcd1234\n")
    write(place / "artifacts" / "plots" / "loss.txt", "a picture")
    write(
        folder / "datasets" / "d1" / "meta.yaml",
        "digest: abcd1234\nname: wine\nprofile: null\nschema: '{\"a\": 1}'\nsource: wine.csv\nsource_type: local\n",
    )
    write(
        place / "inputs" / "i1" / "meta.yaml",
        f"destination_id: {RUN}\ndestination_type: RUN\nsource_id: d1\nsource_type: DATASET\ntags:\n  mlflow.data.context: training\n",
    )
    child = run(folder, CHILD, status=4, stage="deleted", name="child")
    write(child / "tags" / "mlflow.parentRunId", RUN)
    model = root / "models" / "scorer"
    write(
        model / "meta.yaml",
        f"creation_timestamp: {TIME}\ndescription: scores\nlast_updated_timestamp: {TIME}\nname: scorer\n",
    )
    write(model / "aliases" / "champion", "3")
    write(model / "tags" / "owner", "ann")
    for number, stage in ((1, "None"), (2, "Deleted_Internal"), (3, "Production")):
        write(
            model / f"version-{number}" / "meta.yaml",
            f"creation_timestamp: {TIME + number}\ncurrent_stage: {stage}\ndescription: null\n"
            f"last_updated_timestamp: {TIME + number}\nname: scorer\nrun_id: {RUN}\nrun_link: null\n"
            f"source: file://{place}/artifacts/model\nstatus: READY\nstatus_message: null\nuser_id: null\nversion: {number}\n",
        )
    write(model / "version-3" / "tags" / "n", "three")
    return root


def database(path: Path, runs: Mapping[str, Mapping[str, Any]]) -> Path:
    """A database with the tables that MLflow 1 had; versions since have added columns and tables."""
    raw = sqlite3.connect(path)
    raw.executescript(
        "CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name, artifact_location, lifecycle_stage);"
        "CREATE TABLE runs (run_uuid PRIMARY KEY, name, user_id, status, start_time, end_time, lifecycle_stage,"
        " artifact_uri, experiment_id);"
        "CREATE TABLE params (key, value, run_uuid); CREATE TABLE tags (key, value, run_uuid);"
        "CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);"
        f"INSERT INTO experiments VALUES (0, 'Default', '{path.parent}/mlruns/0', 'active');"
        f"INSERT INTO experiments VALUES (7, 'wine', '{path.parent}/mlruns/7', 'active');"
    )
    for run_id, values in runs.items():
        uri = values.get("artifact_uri", f"{path.parent}/mlruns/7/{run_id}/artifacts")
        raw.execute(
            "INSERT INTO runs VALUES (?, 'from sql', 'bob', 'FINISHED', ?, ?, 'active', ?, 7)",
            (run_id, TIME, TIME, uri),
        )
        raw.executemany(
            "INSERT INTO params VALUES (?, ?, ?)", [(k, v, run_id) for k, v in values.get("params", {}).items()]
        )
        raw.executemany(
            "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)",
            [(key, value, TIME, run_id, step, nan) for key, value, step, nan in values.get("metrics", ())],
        )
    raw.commit()
    raw.close()
    return path
