"""The same models and the same bodies, to `mlflow models serve` of the newest MLflow and to ours."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from gateway import envs_none, gateway
from mlflow_environments import python_with
from serving import Client

from mlcli import envs
from mlcli.serving.launch import Launch

pytestmark = [pytest.mark.slow, pytest.mark.network]

MAKE = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow.sklearn, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
folder = sys.argv[1]
random = np.random.default_rng(0)
X = pd.DataFrame(random.normal(size=(90, 3)), columns=["a", "b", "c"])
y = (X.a + X.b > 0).map({True: "yes", False: "no"})
for name, model, table, target in [
    ("classes", make_pipeline(StandardScaler(), LogisticRegression()), X, y),
    ("numbers", make_pipeline(StandardScaler(), LinearRegression()), X, X.a * 3 - X.c),
    ("array", LogisticRegression(), X.to_numpy(), (X.a > 0).astype(int)),
    ("whole", LinearRegression(), (X * 100).astype(int), X.a),
    ("text", make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["t"]), remainder="passthrough"),
        LinearRegression()), X.assign(t=list("uvw") * 30), X.a),
]:
    model.fit(table, target)
    mlflow.sklearn.save_model(model, f"{folder}/{name}", signature=infer_signature(table, model.predict(table)),
        input_example=table[:2], pip_requirements=["scikit-learn"], serialization_format="pickle")
"""

ROW = {"a": 1.25, "b": -0.5, "c": 3}


def split(*rows, columns=("a", "b", "c"), **more):
    return json.dumps({"dataframe_split": {"columns": list(columns), "data": [list(row) for row in rows], **more}})


NAMED = [
    split((1.25, -0.5, 3)),
    split((1.25, -0.5, 3), (0.1, 0.2, 0.3), (-1e300, 5e-324, 0.0)),
    split((3, 1.25, -0.5), columns=("c", "a", "b")),
    split((1.25, "x", -0.5, 3), columns=("a", "z", "b", "c")),
    split((1.25, -0.5, 3), index=[7]),
    split((1.25, -0.5)),
    split((1.25, -0.5), columns=("a", "b")),
    split((1.25, None, 3)),
    split((1.25, "two", 3)),
    split((1.25, "2", 3)),
    split((True, 1, 0)),
    split(),
    json.dumps({"dataframe_records": [ROW, ROW]}),
    json.dumps({"dataframe_records": [{"a": 1, "b": 2}]}),
    json.dumps({"dataframe_records": ROW}),
    json.dumps({"instances": [ROW]}),
    json.dumps({"instances": [[1.25, -0.5, 3]]}),
    json.dumps({"inputs": {"a": [1.25], "b": [-0.5], "c": [3.0]}}),
    json.dumps({"inputs": [[1.25, -0.5, 3]]}),
    json.dumps({"inputs": [ROW], "params": {"k": 1}}),
    json.dumps({"inputs": [ROW], "instances": [ROW]}),
    json.dumps([ROW]),
    "{",
    "",
    "3",
    '{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, NaN, 3]]}}',
    '{"dataframe_split": {"columns": ["a", "b", "c"]}}',
    '{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]], "dtypes": []}}',
]
ARRAY = [
    json.dumps({"inputs": [[1.25, -0.5, 3], [1, 2, 3]]}),
    json.dumps({"instances": [[1.25, -0.5, 3]]}),
    json.dumps({"inputs": [[1.25, -0.5]]}),
    json.dumps({"inputs": [["x", 1, 2]]}),
    json.dumps({"dataframe_split": {"data": [[1.25, -0.5, 3]]}}),
    split((1.25, -0.5, 3)),
]
WHOLE = [split((1, 2, 3)), split((1, 2, 3), (2**40, -5, 0)), json.dumps({"instances": [{"a": 1, "b": 2, "c": 3}]})]
TEXT = [
    split((1, 2, 3, "u"), (1, 2, 3, "other"), columns=("a", "b", "c", "t")),
    split((1, 2, 3, None), columns=("a", "b", "c", "t")),
    json.dumps({"dataframe_records": [{**ROW, "t": "v"}]}),
]
CSV = ["a,b,c\n1.25,-0.5,3\n0.1,0.2,0.3\n", "c,b,a\n3,-0.5,1.25\n", "a,b\n1,2\n", "a,b,c\n1,,3\n", "a,b,c\n1,x,3\n"]
MODELS = {"classes": NAMED, "numbers": NAMED, "array": ARRAY, "whole": WHOLE, "text": TEXT}


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("newest")


@pytest.fixture(scope="module")
def models(python, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    done = subprocess.run([python, "-c", MAKE, folder], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


# MLflow's own application for each model, all in one process: its start is what costs.
APP = """
import sys, uvicorn
from fastapi import FastAPI
from mlflow.pyfunc import load_model
from mlflow.pyfunc.scoring_server import init
app = FastAPI()
for name in sys.argv[3:]:
    app.mount("/" + name, init(load_model(sys.argv[2] + "/" + name)))
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@pytest.fixture(scope="module")
def mlflow(python, models):
    port = free_port()
    process = subprocess.Popen(
        [python, "-c", APP, str(port), models, *MODELS],
        cwd=models,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = Client(port)
        until_it_answers(client, process)
        yield client
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", MODELS)
def test_answers_and_statuses_are_mlflows(python, models, mlflow, name):
    environ = {**envs.variables(envs.ensure(envs_none(), "local"), os.environ)}
    asked = [(body, "application/json") for body in MODELS[name]]
    asked += [(body, "text/csv") for body in CSV] if MODELS[name] is NAMED else []
    asked += [("{}", "text/plain"), ("{}", "application/json; charset=latin-1"), ("{}", "application/json; x=1")]
    wrong = []
    with gateway(Launch(str(models / name), name, "1", str(python), environ), timeout=60) as ours:
        for body, kind in asked:
            right = mlflow.send("POST", f"/{name}/invocations", body, Content_Type=kind)
            found = ours.client.send("POST", "/invocations", body, Content_Type=kind)
            same = found.status == right.status and (right.status != 200 or found.body == right.body)
            if same and right.status == 400:
                same = found.json["error_code"] == right.json["error_code"]
            if not same:
                wrong.append((body, (right.status, right.body[:300]), (found.status, found.body[:300])))
        assert wrong == []
        for path in ("/ping", "/health"):
            right, found = mlflow.send("GET", f"/{name}{path}"), ours.client.send("GET", path)
            told = [(one.status, one.body, one.headers["content-type"]) for one in (right, found)]
            assert told[0] == told[1]
        assert (
            mlflow.send("GET", f"/{name}/invocations").status == ours.client.send("GET", "/invocations").status == 405
        )
        # Here MLflow fails itself: 500 for a request without a Content-Type.
        assert ours.client.send("POST", "/invocations", b"{}").status == 415


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until_it_answers(client: Client, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 90
    while not answers(client):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


def answers(client: Client) -> bool:
    try:
        return client.send("GET", f"/{next(iter(MODELS))}/ping").status == 200
    except ConnectionError:
        return False
