"""One script under the real MLflow's autolog and under ours: the same params, scores, tags, files, data and child runs.

What differs on purpose:

    models        MLflow 3 keeps a model as a record beside the run; here it is an artifact of the run, with a tag that has its digest
    log_model     MLflow notes the model in the tag mlflow.log-model.history (version 2) or in outputs (version 3)
    scores        a model's own score is not computed again where a metric says the same; the numbers are equal
    lists         a list of lists is a dataset here; MLflow says that it does not know the type
    failures      a training that raised has the tags estimator_* here; MLflow loses them
    halving       the halving searches have child runs here too
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
importlib.import_module(sys.argv[1] + ".sklearn")
flow.set_tracking_uri(sys.argv[2])
flow.sklearn.autolog(log_models=False)
import numpy as np
import sklearn.metrics
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, StackingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

X, y = load_iris(return_X_y=True, as_frame=True)
two, which = X[y < 2], y[y < 2]
A, b = X.to_numpy()[:, :2], X.to_numpy()[:, 2]
cases = {}

def case(function):
    experiment = flow.set_experiment(function.__name__).experiment_id
    try:
        function()
    except ValueError:
        pass
    client = flow.MlflowClient()
    runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    parents = {run.info.run_id: run for run in runs}
    said = []
    for run in runs:
        said.append({
            "status": str(run.info.status),
            "params": run.data.params,
            "metrics": run.data.metrics,
            "tags": {key: value for key, value in run.data.tags.items() if not key.startswith(("mlflow.source", "mlflow.runName", "mlflow.user", "mlflow.parentRunId", "mlcli."))},
            "is child": "mlflow.parentRunId" in run.data.tags,
            "files": sorted(item.path for item in client.list_artifacts(run.info.run_id)),
            "datasets": sorted([item.dataset.name, *(getattr(tag, "value", tag) for tag in (item.tags.values() if isinstance(item.tags, dict) else item.tags))] for item in run.inputs.dataset_inputs),
        })
        for name in ("metric_info.json",):
            if name in said[-1]["files"]:
                said[-1][name] = flow.artifacts.load_dict(f"{run.info.artifact_uri}/{name}") if hasattr(flow.artifacts, "load_dict") else json.load(open(f"{run.info.artifact_uri}/{name}"))
    cases[function.__name__] = sorted(said, key=lambda one: json.dumps([one["is child"], sorted(one["params"].items())]))

@case
def two_classes():
    model = LogisticRegression().fit(two, which)
    X_test, y_test = two[::2], which[::2]
    model.score(X_test, y_test)
    answers = model.predict(X_test)
    sklearn.metrics.accuracy_score(y_test, answers)
    accuracy_score(y_test, y_pred=answers, normalize=False)
    sklearn.metrics.roc_auc_score(y_test, answers)
    sklearn.metrics.confusion_matrix(y_test, answers)

@case
def without_probabilities():
    LinearSVC().fit(two, which)

@case
def three_classes_in_a_pipeline():
    pipe = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, y)
    pipe.predict(A.repeat(2, axis=1))

@case
def regression_with_weights():
    Ridge().fit(A, b, sample_weight=np.linspace(0, 1, len(b)))

@case
def sparse_data():
    Ridge(solver="lsqr").fit(sparse.csr_matrix(A), b)

@case
def many_answers():
    LinearRegression().fit(A, np.column_stack([b, b]))

@case
def clusters():
    KMeans(2, n_init=1, random_state=0).fit_predict(A)

@case
def components():
    PCA(1).fit_transform(A)

@case
def texts():
    make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(np.array(["good day", "bad night"] * 3), np.array([1, 0] * 3))

@case
def a_search():
    search = GridSearchCV(Ridge(), {"alpha": [1, 2, 3, 4, 5, 6, 7]}, cv=2).fit(A, b)
    search.score(A, b)

@case
def a_random_search_over_a_pipeline():
    RandomizedSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, n_iter=2, cv=2, random_state=0).fit(two, which)

@case
def an_ensemble():
    StackingRegressor([("a", Ridge()), ("b", LinearRegression())], cv=2).fit(A, b)

@case
def preparation():
    StandardScaler().fit(A)
    ColumnTransformer([("a", StandardScaler(), [0])]).fit_transform(A)
    cross_val_score(Ridge(), A, b, cv=2)

@case
def a_failure():
    LogisticRegression(C=3).fit(A, b[:3])

@case
def the_programs_run():
    with flow.start_run():
        LinearRegression().fit(A, b)
        flow.log_metric("mine", 1)

print(json.dumps(cases))
"""


def run(library: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What the script's cases left under one of the two libraries, in one environment: MLflow's."""
    python = python_with("newest")
    folder.mkdir()
    done = subprocess.run(
        [
            str(python),
            "-c",
            SCRIPT,
            library,
            f"sqlite:///{folder}/mlflow.db" if library == "mlflow" else str(folder / "mlruns"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "MPLBACKEND": "Agg",
        },
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")


def test_autolog_leaves_what_mlflows_leaves(tmp_path: Path) -> None:
    ours = run("mlcli", tmp_path / "ours")
    for attempt in range(3):  # MLflow writes in the background; on a busy machine a search of its ends as FAILED
        theirs = run("mlflow", tmp_path / f"theirs-{attempt}")
        if all(one["status"] == "FINISHED" for name, runs in theirs.items() for one in runs if name != "a_failure"):
            break
    assert list(ours) == list(theirs)
    for name, runs in theirs.items():
        assert len(ours[name]) == len(runs), name
        for mine, other in zip(ours[name], runs, strict=True):
            if name == "a_failure":
                # MLflow writes these in the background, and an exception may be quicker than that.
                for part in ("params", "datasets"):
                    other[part] = other[part] or mine[part]
                other["tags"] |= {key: mine["tags"][key] for key in ("estimator_name", "estimator_class")}
            for part in ("status", "params", "tags", "is child", "files", "datasets", "metric_info.json"):
                assert mine.get(part) == other.get(part), (name, part)
            assert set(mine["metrics"]) == set(other["metrics"]), name
            exact = {key: value for key, value in other["metrics"].items() if key not in TIMES}
            assert {key: mine["metrics"][key] for key in exact} == pytest.approx(exact, rel=1e-9, abs=1e-12), name
