"""XGBoost and LightGBM train by themselves and through their estimators, in an environment with both, beside the real MLflow.

What differs on purpose: an importance file of XGBoost is indented here; MLflow appends its callback to the caller's own list.
Otherwise as in tests/test_autolog_beside_mlflow.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow_environments import python_with

pytestmark = [pytest.mark.slow, pytest.mark.network]

SCRIPT = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
flow = importlib.import_module(sys.argv[1])
flow.set_tracking_uri(sys.argv[2])
for name in ("xgboost", "lightgbm"):
    importlib.import_module(f"{sys.argv[1]}.{name}").autolog(log_models=False)
import lightgbm as lgb
import numpy as np
import xgboost as xgb
from scipy import sparse
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True, as_frame=True)
A, b = X.to_numpy(), y.to_numpy()
two = b < 2
cases = {}

def case(function):
    experiment = flow.set_experiment(function.__name__).experiment_id
    try:
        function()
    except Exception as error:
        if "boom" not in str(error):
            raise
    client = flow.MlflowClient()
    said = []
    for run in client.search_runs([experiment], order_by=["attributes.start_time ASC"]):
        said.append({
            "status": str(run.info.status),
            "params": run.data.params,
            "metrics": run.data.metrics,
            "curves": {key: [[point.step, point.value] for point in sorted(client.get_metric_history(run.info.run_id, key), key=lambda point: point.step)] for key in run.data.metrics},
            "tags": {key: value for key, value in run.data.tags.items() if key in ("mlflow.autologging", "estimator_name")},
            "files": sorted(item.path for item in client.list_artifacts(run.info.run_id)),
            "datasets": sorted([item.dataset.name, *(getattr(tag, "value", tag) for tag in (item.tags.values() if isinstance(item.tags, dict) else item.tags))] for item in run.inputs.dataset_inputs),
        })
        for path in said[-1]["files"]:
            if path.endswith(".json"):
                said[-1][path] = json.load(open(flow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path)))
    cases[function.__name__] = said

@case
def xgboost_stops_early():
    train, valid = xgb.DMatrix(X[::2], y[::2]), xgb.DMatrix(X[1::2], y[1::2])
    mine = []
    xgb.train({"objective": "multi:softprob", "num_class": 3, "eval_metric": ["mlogloss", "merror"], "max_depth": 2}, train, 30, evals=[(train, "train"), (valid, "valid")], early_stopping_rounds=2, verbose_eval=False, callbacks=mine)
    assert sys.argv[1] == "mlflow" or mine == []

@case
def xgboost_without_evaluation():
    xgb.train({"max_depth": 2}, xgb.DMatrix(A, b), num_boost_round=2)

@case
def xgboost_ranks():
    data = xgb.DMatrix(A, b)
    data.set_group([50, 50, 50])
    xgb.train({"objective": "rank:ndcg", "eval_metric": "ndcg@3"}, data, 2, evals=[(data, "train")], verbose_eval=False)

@case
def xgboost_estimator():
    model = xgb.XGBClassifier(n_estimators=3, max_depth=2, eval_metric="logloss").fit(X[two], y[two], eval_set=[(X[two], y[two])], verbose=False)
    rows = X[two]
    model.score(rows, y[two])

@case
def xgboost_linear():
    xgb.XGBRegressor(n_estimators=3, booster="gblinear").fit(A, b)

@case
def xgboost_fails():
    def boom(*_):
        raise ValueError("boom")
    xgb.train({}, xgb.DMatrix(A, b), 2, obj=boom)

@case
def lightgbm_stops_early():
    train = lgb.Dataset(X[::2], y[::2])
    valid = lgb.Dataset(X[1::2], y[1::2], reference=train)
    lgb.train({"objective": "multiclass", "num_class": 3, "metric": ["multi_logloss", "multi_error"], "verbose": -1, "num_leaves": 4}, train, 40, valid_sets=[train, valid], valid_names=["train", "valid"], callbacks=[lgb.early_stopping(2, verbose=False)])

@case
def lightgbm_without_evaluation():
    lgb.train({"verbose": -1, "objective": "regression"}, lgb.Dataset(A, b), num_boost_round=2)

@case
def lightgbm_estimator():
    lgb.LGBMClassifier(n_estimators=3, verbose=-1).fit(X[two], y[two], eval_set=[(X[two][::2], y[two][::2])])

@case
def the_programs_run():
    with flow.start_run():
        lgb.LGBMRegressor(n_estimators=2, verbose=-1).fit(A, b)
        flow.log_metric("mine", 1)

print(json.dumps(cases))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("boosters")


def run(python: Path, script: str, folder: Path, *arguments: str) -> str:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(python), "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_autolog_leaves_what_mlflows_leaves(python: Path, tmp_path: Path) -> None:
    found: list[dict[str, list[dict[str, Any]]]] = [
        json.loads(run(python, SCRIPT, tmp_path / name, name, store).splitlines()[-1])
        for name, store in (("mlflow", "sqlite:///mlflow.db"), ("mlcli", "mlruns"))
    ]
    theirs, ours = found
    assert list(ours) == list(theirs)
    for name, runs in theirs.items():
        assert len(ours[name]) == len(runs), name
        for mine, other in zip(ours[name], runs, strict=True):
            assert set(mine) == set(other), name
            if name.endswith("_fails"):  # MLflow's own queue may be cut off by the end of its program
                other["params"] = {**mine["params"], **other["params"]}
            for part in other:
                assert mine[part] == pytest.approx(other[part]) if part == "metrics" else mine[part] == other[part], (
                    name,
                    part,
                )


MODELS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlcli
mlcli.set_tracking_uri(sys.argv[1])
mlcli.autolog(log_input_examples=True)
import lightgbm as lgb
import xgboost as xgb
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
X, y = load_iris(return_X_y=True, as_frame=True)
X.columns = list("abcd")
X, y = X[y < 2], y[y < 2]
trained = [
    (xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(X, y), 2), mlcli.xgboost.load_model, xgb.DMatrix(X)),
    (xgb.XGBClassifier(n_estimators=2).fit(X, y), mlcli.xgboost.load_model, X),
    (lgb.train({"objective": "binary", "verbose": -1}, lgb.Dataset(X, y), 2), mlcli.lightgbm.load_model, X),
    (lgb.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, y), mlcli.lightgbm.load_model, X),
    (GridSearchCV(xgb.XGBClassifier(n_estimators=2), {"max_depth": [1, 2]}, cv=2).fit(X, y), mlcli.sklearn.load_model, X),
]
runs = [run for run in mlcli.search_runs(output_format="list", order_by=["attributes.start_time ASC"]) if "mlflow.parentRunId" not in run.data.tags]
said = []
for run, (model, load, data) in zip(runs, trained):
    again = load(f"runs:/{run.info.run_id}/model")
    assert (again.predict(data) == model.predict(data)).all()
    content = open(f"{run.info.artifact_uri}/model/MLmodel").read()
    said.append([type(again).__name__, '\\\\"name\\\\": \\\\"d\\\\"' in content, "input_example" in content])
print(json.dumps(said))
mlcli.autolog(disable=True)
for kind in (xgb.XGBClassifier, xgb.XGBModel, lgb.LGBMModel, lgb.LGBMRegressor, xgb.DMatrix, lgb.Dataset):
    assert not any(hasattr(value, "__mlcli__") for value in vars(kind).values()), kind
assert not any(hasattr(train, "__mlcli__") for train in (xgb.train, xgb.sklearn.train, lgb.train, lgb.sklearn.train))
"""


def test_the_models_come_back_with_signature_and_example_and_off_is_off(python: Path, tmp_path: Path) -> None:
    said = json.loads(run(python, MODELS, tmp_path / "models", "mlruns").splitlines()[-1])
    names = ["Booster", "XGBClassifier", "Booster", "LGBMClassifier", "GridSearchCV"]
    assert said == [[name, True, True] for name in names]
