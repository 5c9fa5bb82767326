"""Autolog with the oldest scikit-learn and Python it is for: the same program, and its run is that of the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow_environments import python_with

pytestmark = [pytest.mark.slow, pytest.mark.network]

# pyenv's, which uv does not look for when the home is the tests' own.
PYTHON = next(
    (str(path) for path in Path(os.path.expanduser("~"), ".pyenv", "versions").glob("3.8.*/bin/python3")), "3.8"
)

SCRIPT = """
import json, sys
import mlcli
mlcli.set_tracking_uri("mlruns")
mlcli.autolog()
import sklearn.metrics
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
X, y = load_iris(return_X_y=True, as_frame=True)
two, which = X[y < 2], y[y < 2]
search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2, n_jobs=2)
search.fit(two, which)
held_out, wanted = two[::2], which[::2]
answers = search.predict(held_out)
sklearn.metrics.accuracy_score(wanted, answers)
search.score(held_out, wanted)
runs = mlcli.search_runs(output_format="list")
found = sorted([["mlflow.parentRunId" in run.data.tags, sorted(run.data.metrics), run.data.tags["estimator_name"],
    sorted(item.path for item in mlcli.Client().list_artifacts(run.info.run_id)), [item.tags["mlflow.data.context"] for item in run.inputs.dataset_inputs]] for run in runs])
(parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
loaded = mlcli.sklearn.load_model(f"runs:/{parent.info.run_id}/model")
assert (loaded.predict(held_out) == answers).all()
mlcli.autolog(disable=True)
assert not hasattr(LogisticRegression.fit, "__mlcli__")
print(json.dumps(found))
"""


def run(python: str, folder: Path) -> tuple[list[Any], str]:
    folder.mkdir()
    done = subprocess.run(
        [python, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_oldest_pair_leaves_what_the_newest_leaves(tmp_path: Path) -> None:
    try:
        old = python_with("old scikit-learn", PYTHON)
    except AssertionError as error:
        if "3.8" not in str(error):
            raise
        pytest.skip("needs a Python 3.8 (pyenv install 3.8, or uv python install 3.8)")
    found, said = run(str(old), tmp_path / "old")
    assert (found, said) == (run(sys.executable, tmp_path / "new")[0], "")
