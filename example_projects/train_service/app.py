"""A service that trains: `POST /train` starts a run of a project, `GET /train/{run_id}` tells how far it is."""

import os
from typing import Any, Dict

from fastapi import FastAPI, HTTPException

import mlcli.projects
from mlcli.client import Client
from mlcli.errors import MlcliError, NotFound

PROJECT = os.environ.get("PROJECT", "../wine")
started: Dict[str, Any] = {}  # the runs that this service started, by their ids

app = FastAPI(title="Train")


@app.post("/train", status_code=202)
def train(parameters: Dict[str, Any]) -> Dict[str, str]:
    try:
        run = mlcli.projects.run(PROJECT, parameters=parameters, synchronous=False)
    except MlcliError as error:
        raise HTTPException(422, error.message) from error
    started[run.run_id] = run
    return {"run_id": run.run_id, "progress": f"/train/{run.run_id}"}


@app.get("/train/{run_id}")
def progress(run_id: str) -> Dict[str, Any]:
    run = started.get(run_id)
    if run is None:
        raise HTTPException(404, "this service has started no such run")
    told: Dict[str, Any] = {
        "run_id": run_id,
        "status": run.get_status(),
        "why": run.end_reason(),
        "exit_code": run.exit_code,
        "metrics": {},
        "step": None,
    }
    try:
        recorded = Client().get_run(run_id).data
    except NotFound:  # it has not begun, or what was asked for cannot be run: the service's log says why
        return told
    told["metrics"] = dict(recorded.metrics)
    points = [Client().get_metric_history(run_id, key)[-1] for key in recorded.metrics]
    told["step"] = max((point.step for point in points), default=None)
    return told


@app.delete("/train/{run_id}")
def cancel(run_id: str) -> Dict[str, str]:
    run = started.get(run_id)
    if run is None:
        raise HTTPException(404, "this service has started no such run")
    run.cancel()
    return {"run_id": run_id, "status": run.get_status()}
