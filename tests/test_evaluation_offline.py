"""Offline evaluation from Python and from the command line: every method, what is recorded, what is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import mlcli
import mlcli.sklearn
from mlcli.cli import boundary
from mlcli.errors import InvalidInput, InvalidState, MlcliError, ModelError
from mlcli.evaluation import offline, tables, thresholds

# Refits move in their last digits from one version of scikit-learn to the next.
TOLERANCE = 1e-6 if sklearn.__version__.startswith("1.9.") else 5e-3
CANCER = load_breast_cancer(return_X_y=True, as_frame=True)


def linear():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def tree():
    return DecisionTreeClassifier(random_state=0)


@pytest.fixture(scope="module")
def halves():
    """Training and test rows of the cancer data, with their target ``y``."""
    return train_test_split(CANCER[0].assign(y=CANCER[1]), test_size=0.25, random_state=0, stratify=CANCER[1])


@pytest.fixture
def logged(halves):
    """A logged model, and its test rows as a csv."""
    train, test = halves
    test.to_csv("test.csv", index=False)
    features = train.drop(columns="y")
    with mlcli.start_run(run_name="fitted") as run:
        mlcli.log_input(mlcli.data.from_pandas(train), context="train")
        mlcli.sklearn.log_model(linear().fit(features, train.y), "model", input_example=features.head(2))
    return f"runs:/{run.info.run_id}/model"


@pytest.fixture
def cli(capsys):
    """`mlcli evaluate` in this process; gives what it wrote to stdout and stderr."""

    def call(*words: str, check: int = 0, command: tuple[str, ...] = ("evaluate",)) -> tuple[str, str]:
        capsys.readouterr()
        code = boundary.run(boundary.take_apart([*command, *map(str, words)]))
        told = capsys.readouterr()
        assert code == check, told.err
        return told.out, told.err

    return call


def artifact(run_id: str, name: str) -> str:
    return Path(mlcli.artifacts.download_artifacts(run_id=run_id, artifact_path=name)).read_text(encoding="utf-8")


# -- known answers


def test_kfold_has_the_known_numbers_and_records_each_fold():
    found = mlcli.evaluate(linear(), CANCER[0], targets=CANCER[1].to_numpy(), method="kfold")
    m = found.metrics
    folds = [0.956140350877193, 0.9736842105263158, 0.9824561403508771, 1.0, 0.9823008849557522]
    assert [m[f"accuracy_score_fold_{fold}"] for fold in range(5)] == pytest.approx(folds, abs=TOLERANCE)
    assert m["accuracy_score"] == m["accuracy_score_mean"] == pytest.approx(0.9789163173, abs=TOLERANCE)
    assert m["accuracy_score_std"] == pytest.approx(0.0159266044, abs=TOLERANCE)
    assert m["roc_auc"] == pytest.approx(0.9954558098, abs=TOLERANCE)
    assert m["log_loss"] == pytest.approx(0.0738174949, abs=TOLERANCE)
    assert m["accuracy_score_ci_low"] < m["accuracy_score"] < m["accuracy_score_ci_high"] <= 1
    assert m["true_positives"] + m["false_negatives"] == CANCER[1].sum()
    run = mlcli.get_run(found.run_id)
    assert run.data.metrics == pytest.approx(m)
    assert run.data.params["method"] == "kfold"
    assert run.data.tags["mlcli.evaluation"] == "kfold"
    assert "StratifiedKFold(n_splits=5" in run.data.tags["mlcli.evaluation.splitter"]
    assert [item.tags["mlflow.data.context"] for item in run.inputs.dataset_inputs] == ["eval"]
    assert run.info.status == "FINISHED"
    rows = [int(line["row"]) for line in csv.DictReader(artifact(found.run_id, "predictions.csv").splitlines())]
    assert sorted(rows) == list(range(569))
    parts = json.loads(artifact(found.run_id, "folds.json"))["folds"]
    assert sorted(row for part in parts for row in part["test"]) == list(range(569))


def test_kfold_of_a_regressor_has_the_known_numbers():
    data, target = load_diabetes(return_X_y=True)
    found = mlcli.evaluate(LinearRegression(), data, targets=target, method="kfold", folds=10)
    assert found.metrics["r2_score"] == pytest.approx(0.4838658642, abs=1e-6)
    assert found.metrics["root_mean_squared_error"] == pytest.approx(54.4629108426, abs=1e-5)
    assert found.intervals["r2_score"].high <= 1


def test_holdout_has_the_known_numbers_and_compares_by_the_paired_tests():
    found = mlcli.evaluate(linear(), CANCER[0], targets=CANCER[1].to_numpy(), method="holdout", baseline=tree())
    assert found.metrics["accuracy_score"] == pytest.approx(137 / 143)
    assert found.metrics["roc_auc"] == pytest.approx(0.9951781970649896, abs=TOLERANCE)
    assert found.intervals["accuracy_score"][:2] == pytest.approx((0.911488, 0.980631), abs=1e-6)
    tests = {item["metric"]: item for item in found.comparisons}
    assert tests["accuracy_score"]["test"] == "mcnemar, exact"
    assert tests["accuracy_score"]["p_value"] == pytest.approx(0.03857421875)
    assert tests["roc_auc"]["test"] == "delong"
    assert tests["roc_auc"]["p_value"] == pytest.approx(1.352392e-04, rel=2e-2)
    assert tests["log_loss"]["better"]


MLFLOW = {
    "binary": "true_negatives false_positives false_negatives true_positives example_count accuracy_score recall_score"
    " precision_score f1_score log_loss roc_auc precision_recall_auc score",
    "multiclass": "example_count accuracy_score recall_score precision_score f1_score log_loss roc_auc score",
    "numbers": "example_count mean_absolute_error mean_squared_error root_mean_squared_error sum_on_target mean_on_target"
    " r2_score max_error mean_absolute_percentage_error score",
}


@pytest.mark.parametrize(
    ("load", "model", "case"),
    [
        (load_breast_cancer, linear(), "binary"),
        (load_iris, linear(), "multiclass"),
        (load_diabetes, LinearRegression(), "numbers"),
    ],
)
def test_a_fitted_model_is_scored_as_it_is_under_mlflows_names(load, model, case):
    data, target = load(return_X_y=True)
    found = mlcli.evaluate(model.fit(data, target), data, targets=target)
    assert found.report["method"] == "none"
    assert {*MLFLOW[case].split()} <= {*found.shown()}
    assert found.metrics["score"] == pytest.approx(model.score(data, target))
    if case == "multiclass":
        assert "precision_recall_auc" not in found.metrics


def test_bootstrap_refits_and_is_not_fooled_by_a_model_that_learns_by_heart():
    generator = np.random.default_rng(0)
    data, target = generator.normal(size=(40, 5)), np.arange(40) % 2
    found = mlcli.evaluate(KNeighborsClassifier(1), data, targets=target, method="bootstrap", n_boot=60)
    m = found.metrics
    assert m["accuracy_score_apparent"] == 1.0
    assert 1 - m["accuracy_score_632"] == pytest.approx(0.632 * (1 - m["accuracy_score_oob"]))
    assert m["accuracy_score"] == m["accuracy_score_632plus"] < 0.6 < m["accuracy_score_632"]
    assert found.report["metrics"]["f1_score"]["estimate"] == ".632"


def test_bootstrap_of_numbers_tells_r2_from_the_squared_error():
    data, target = load_diabetes(return_X_y=True)
    m = mlcli.evaluate(LinearRegression(), data, targets=target, method="bootstrap", n_boot=20).metrics
    assert m["r2_score"] == pytest.approx(1 - m["mean_squared_error"] / target.var())
    assert m["root_mean_squared_error"] == pytest.approx(m["mean_squared_error"] ** 0.5)
    assert m["mean_squared_error_apparent"] < m["mean_squared_error"]


# -- splits and leaks


def parts_of(found) -> list[tuple[list[int], list[int]]]:
    told = json.loads(artifact(found.run_id, "folds.json"))
    everything = set(range(told["rows"]))
    return [(part.get("train") or sorted(everything - {*part["test"]}), part["test"]) for part in told["folds"]]


def test_groups_stay_on_one_side_in_folds_and_in_resamples():
    generator = np.random.default_rng(0)
    data = pd.DataFrame(generator.normal(size=(60, 2)), columns=["a", "b"])
    data = data.assign(who=np.arange(60) // 4, y=np.arange(60) % 2)
    for method in ("grouped", "holdout", "repeated-kfold", "bootstrap"):
        found = mlcli.evaluate(linear(), data, targets="y", groups="who", method=method, folds=3, repeats=2, n_boot=5)
        parts = parts_of(found)
        assert all(not {*data.who[train]} & {*data.who[test]} for train, test in parts), method
        assert found.warnings == []


def test_time_series_are_tested_on_what_comes_later_whatever_order_the_rows_have():
    generator = np.random.default_rng(0)
    data = pd.DataFrame(
        {"x": generator.normal(size=50), "when": generator.permutation(50), "y": generator.normal(size=50)}
    )
    found = mlcli.evaluate(LinearRegression(), data, targets="y", times="when", method="timeseries", folds=4)
    assert all(data.when[train].max() < data.when[test].min() for train, test in parts_of(found))
    assert "not in the order of their times" in found.warnings[0]


def test_rows_that_are_in_training_and_test_are_told():
    data = pd.concat([CANCER[0].assign(y=CANCER[1])] * 2, ignore_index=True)
    found = mlcli.evaluate(linear(), data, targets="y", method="holdout")
    assert "just like them" in found.warnings[0]
    assert mlcli.evaluate(linear(), data.iloc[:569], targets="y", method="holdout").warnings == []


def test_columns_that_tell_whom_a_row_is_about_are_told():
    data = pd.DataFrame({"user_id": np.arange(40) // 4, "x": np.arange(40.0), "y": np.arange(40) % 2})
    found = mlcli.evaluate(linear(), data, targets="y", method="kfold", folds=2)
    assert "--group user_id" in found.warnings[0]


def test_a_model_scored_on_its_own_training_rows_is_told(logged, halves):
    found = mlcli.evaluate(logged, halves[0], targets="y")
    assert "trained on these very data" in found.warnings[0]
    assert mlcli.evaluate(logged, halves[1], targets="y").warnings == []


def test_a_class_too_rare_for_the_folds_is_told_and_undefined_scores_are_left_out():
    target = np.array([1] * 3 + [0] * 47)
    found = mlcli.evaluate(linear(), CANCER[0].iloc[:50, :3], targets=target, method="kfold", folds=10)
    assert "rarest class has 3 rows" in found.warnings[0]
    assert "roc_auc" in found.warnings[-1]
    assert 0 <= found.metrics["roc_auc"] <= 1


# -- what is evaluated


def test_functions_predictions_and_models_without_probabilities_are_scored(halves):
    _, test = halves
    by_rule = mlcli.evaluate(
        lambda rows: (rows["mean radius"] < 15).astype(int), test, targets="y", model_type="classifier"
    )
    assert by_rule.metrics["accuracy_score"] > 0.8
    assert "roc_auc" not in by_rule.metrics
    said = mlcli.evaluate(data=test.assign(p=1), targets="y", predictions="p", model_type="classifier")
    assert said.metrics["accuracy_score"] == test.y.mean()
    margins = mlcli.evaluate(make_pipeline(StandardScaler(), LinearSVC()), CANCER[0], targets=CANCER[1].to_numpy())
    assert margins.metrics["roc_auc"] > 0.95
    assert "log_loss" not in margins.metrics


def test_metrics_of_ones_own_have_intervals_too(halves):
    def cost(truth, predicted):
        return float(np.mean(np.where(predicted > truth, 5, predicted != truth)))

    found = mlcli.evaluate(
        linear().fit(halves[0].drop(columns="y"), halves[0].y), halves[1], targets="y", extra_metrics=[cost]
    )
    assert found.intervals["cost"].low <= found.metrics["cost"] <= found.intervals["cost"].high


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "kfod"}, "no method"),
        ({"method": "none"}, "not fitted"),
        ({"targets": "z"}, "no column 'z'"),
        ({"targets": None}, "no target"),
        ({"level": 1.5}, "between 0 and 1"),
        ({"method": "grouped"}, "names the groups"),
        ({"test": "mcnemar"}, "none is named"),
        ({"test": "mcnemar", "baseline": "dummy"}, "fits anew"),
        ({"test": "5x2cv-t", "baseline": "dummy"}, "five repeats"),
        ({"metrics": ["nonsense_score"]}, "no metric"),
        ({"model_type": "clusterer"}, "no type"),
        ({"jobs": 0}, "cannot be"),
        ({"folds": 1}, "too few"),
        ({"evaluators": ["other"]}, "evaluators"),
        ({"env_manager": "conda"}, "in this environment"),
        ({"model": KNeighborsClassifier(), "model_type": "regressor", "stratify": True}, "number"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_run(changed, words):
    data = pd.DataFrame({"x": np.arange(20.0), "y": np.arange(20) % 2})
    with pytest.raises(InvalidInput, match=words):
        mlcli.evaluate(**{"model": linear(), "data": data, "targets": "y", "method": "kfold", **changed})
    assert not os.path.exists("mlruns")


def test_what_only_predicts_is_not_fitted_anew(halves):
    with pytest.raises(InvalidInput, match="can only predict") as refused:
        mlcli.evaluate(lambda rows: rows["mean radius"], halves[1], targets="y", method="kfold", model_type="regressor")
    assert "--method none" in refused.value.hint


def test_a_missing_target_value_is_told_with_how_many():
    data = pd.DataFrame({"x": range(10), "y": [1.5, None] * 5})
    with pytest.raises(InvalidInput, match="missing in 5 of 10"):
        mlcli.evaluate(LinearRegression(), data, targets="y", method="kfold")


ROWS = "a,b,t,y\n" + "".join(f"{i},{i % 7},2024-01-{i % 28 + 1:02},{i % 2}\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (ROWS.replace("a,b,", "a,a,"), {}, "has the column 'a' more than once"),
        (ROWS.replace(",", ";"), {}, "separated by ';'"),
        (ROWS.replace("\n", "\n1,2,2024-01-01,1,9\n", 1), {}, "more cells than its header, which names 4"),
        (ROWS.replace("a,", "\xe9,").encode("latin1"), {}, "is not UTF-8: its byte 0xe9"),
        ("", {}, "is empty"),
        ("a,b,t,y\n", {}, "no rows"),
        (ROWS.replace(",0\n", ",1\n"), {}, "'y' is 1 in every row"),
        (ROWS.replace(",1\n", ",inf\n"), {}, "'y' is infinite in 20 of 40 rows"),
        (ROWS.replace("\n3,3,", "\n3,,"), {"groups": "b"}, "the group 'b' is missing in 1 of 40 rows"),
        (ROWS.replace("2024-01-28", "28/01/2024"), {"times": "t", "method": "timeseries"}, "'28/01/2024' is neither"),
    ],
)
def test_a_file_that_cannot_be_evaluated_is_told_before_there_is_a_run(tmp_path, text, options, words):
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInput, match=re.escape(words)) as told:
        mlcli.evaluate("dummy", path, targets="y", model_type="classifier", folds=3, **options)
    assert told.value.hint
    assert not mlcli.search_runs(output_format="list")


def test_times_are_ordered_as_time_runs_not_as_their_texts_do():
    zones = ["2024-03-01T00:30:00+02:00", "2024-02-29T23:00:00Z", "2024-02-29"]
    assert np.argsort(tables._ordered(np.array(zones, object), "t")).tolist() == [2, 0, 1]
    assert np.argsort(tables._ordered(np.array(["10", "9"], object), "t")).tolist() == [1, 0]


def test_a_model_that_cannot_be_fitted_says_which_column_it_could_not_use():
    data = CANCER[0].assign(y=CANCER[1], note="x")
    data.iloc[3, 0] = np.nan
    with pytest.raises(ModelError, match="cannot be fitted for fold 0") as told:
        mlcli.evaluate(LogisticRegression(), data, targets="y")
    assert "'mean radius' is missing in 1 of" in told.value.hint
    assert "'note' is text" in told.value.hint


def test_a_score_of_numbers_is_refused_of_classes_and_a_threshold_is_measured(halves):
    with pytest.raises(InvalidInput, match="r2_score is no score of a classifier"):
        mlcli.evaluate("dummy", halves[1], targets="y", metrics=["r2_score"])
    wanted = {"accuracy_score": mlcli.models.MetricThreshold(threshold=0.1, greater_is_better=True)}
    assert mlcli.evaluate("dummy", halves[1], targets="y", metrics=["roc_auc"], thresholds=wanted).passed


def test_a_model_that_fails_on_the_data_ends_the_run_as_failed():
    model = linear().fit(CANCER[0].to_numpy(), CANCER[1])
    with pytest.raises(ModelError, match="cannot predict"):
        mlcli.evaluate(model, np.zeros((10, 3)), targets=np.arange(10) % 2)
    assert mlcli.last_active_run().info.status == "FAILED"
    assert mlcli.active_run() is None


def test_numbers_told_as_classes_are_refused(halves):
    regression = LinearRegression().fit(halves[0].drop(columns="y"), halves[0].y)
    with pytest.raises(InvalidInput, match="fractions"):
        mlcli.evaluate(regression, halves[1], targets="y", model_type="classifier")


def test_an_evaluation_in_an_active_run_logs_there_and_leaves_it_open(halves):
    model = linear().fit(halves[0].drop(columns="y"), halves[0].y)
    with mlcli.start_run() as run:
        mlcli.log_param("seed", 7)  # which is not the evaluation's
        found = mlcli.evaluate(model, halves[1], targets="y")
        assert mlcli.active_run().info.run_id == run.info.run_id == found.run_id
    assert mlcli.get_run(run.info.run_id).data.metrics["roc_auc"] == found.metrics["roc_auc"]


def test_autolog_logs_no_fits_of_folds_into_the_evaluation():
    data = {"targets": CANCER[1].to_numpy(), "method": "kfold", "folds": 2, "metrics": ["accuracy_score"]}
    mlcli.sklearn.autolog()
    try:
        found = mlcli.evaluate(tree(), CANCER[0], **data)
    finally:
        mlcli.sklearn.autolog(disable=True)
    run = mlcli.get_run(found.run_id)
    assert run.data.metrics == pytest.approx(found.metrics)
    assert "max_depth" not in run.data.params
    assert len(mlcli.search_runs(output_format="list")) == 1


# -- several at once, interrupted, resumed


@pytest.mark.slow
def test_folds_at_once_give_the_same_numbers_as_one_after_the_other():
    target = CANCER[1].to_numpy()
    one = mlcli.evaluate(linear(), CANCER[0], targets=target, folds=3)
    two = mlcli.evaluate(linear(), CANCER[0], targets=target, folds=3, jobs=2)
    assert one.metrics == pytest.approx(two.metrics)


class Killed(ClassifierMixin, BaseEstimator):
    """Ends the process that fits it, as the system does where memory runs out."""

    def fit(self, data, target):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_of_a_fold_that_is_killed_is_told_with_what_to_do():
    data = pd.DataFrame({"x": np.arange(20.0), "y": np.arange(20) % 2})
    with pytest.raises(MlcliError, match="was killed") as told:
        mlcli.evaluate(Killed(), data, targets="y", method="kfold", folds=2, jobs=2)
    assert "-j 1" in told.value.hint
    assert mlcli.last_active_run().info.status == "FAILED"


@pytest.mark.slow
def test_a_command_that_did_folds_at_once_ends_when_they_are_done(mlcli, logged):
    """Idle workers of joblib live on for five minutes."""
    words = ("evaluate", logged, "--data", "test.csv", "--target", "y", "--method", "kfold", "--folds", "2", "-j", "2")
    mlcli(*words, timeout=120)


def test_a_model_may_be_named_as_serving_names_it_and_a_word_that_is_none_says_how(mlcli, logged):
    mlcli("models", "register", logged, "churn")
    words = ("--data", "test.csv", "--target", "y", "--metric", "accuracy_score", "--json")
    assert json.loads(mlcli("evaluate", "churn/1", *words).stdout)["model"] == "models:/churn/1"
    for word in ("churn", "model:/churn/1"):
        failed = mlcli("evaluate", word, *words, check=2)
        assert "a registered model is churn/1 or churn@ALIAS" in failed.stderr


SLOW = """
import os, sys, time
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
import mlcli

class Slow(ClassifierMixin, BaseEstimator):
    def fit(self, data, target):
        print(os.getpid(), flush=True)
        time.sleep(60)

mlcli.evaluate(Slow(), np.arange(20.0)[:, None], targets=[0, 1] * 10, method="kfold", folds=2, jobs=2)
"""


@pytest.mark.slow
def test_processes_of_folds_end_with_the_evaluation_that_is_killed():
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
    with process:
        workers = {int(process.stdout.readline()) for _ in range(2)}
        process.kill()
    assert len(workers) == 2
    assert process.pid not in workers
    _until_gone(workers)


def _until_gone(pids):
    for _ in range(300):
        if not any(map(_runs, pids)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{pids} are still there")


def _runs(pid):
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # that of one that nobody has waited for is empty
    except (FileNotFoundError, ProcessLookupError):
        return False


class Counting(ClassifierMixin, BaseEstimator):
    """Guesses the first class, and counts how often it was fitted."""

    fits = 0

    def fit(self, data, target):
        type(self).fits += 1
        self.classes_ = np.unique(target)
        return self

    def predict(self, data):
        return np.full(len(data), self.classes_[0])


def test_an_interrupted_evaluation_keeps_its_folds_and_goes_on():
    data = pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40) % 2})

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    Counting.fits = 0
    with pytest.raises(KeyboardInterrupt):
        mlcli.evaluate(Counting(), data, targets="y", method="kfold", progress=interrupt)
    run = mlcli.last_active_run()
    assert run.info.status == "KILLED"
    assert Counting.fits == 2
    with pytest.raises(InvalidInput, match="other data"):
        mlcli.evaluate(Counting(), data.assign(x=0.0), targets="y", method="kfold", resume=run.info.run_id)
    found = mlcli.evaluate(Counting(), data, targets="y", method="kfold", resume=run.info.run_id)
    assert Counting.fits == 5
    assert found.run_id == run.info.run_id
    assert mlcli.get_run(found.run_id).info.status == "FINISHED"
    assert found.metrics == pytest.approx(mlcli.evaluate(Counting(), data, targets="y", method="kfold").metrics)
    with pytest.raises(InvalidState, match="nothing to resume"):
        mlcli.evaluate(Counting(), data, targets="y", method="kfold", resume=run.info.run_id)


def test_an_interrupt_before_any_fold_is_done_leaves_nothing_to_resume():
    data = pd.DataFrame({"x": np.arange(20.0), "y": np.arange(20) % 2})

    def interrupt(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlcli.evaluate(linear(), data, targets="y", method="kfold", progress=interrupt)
    assert offline.Kept(mlcli.last_active_run().info.run_id).read() is None


# -- thresholds


@pytest.mark.parametrize(
    ("wanted", "candidate", "baseline", "failed"),
    [
        ({"threshold": 0.9}, 0.9, None, False),
        ({"threshold": 0.9}, 0.89, None, True),
        ({"threshold": 0.5, "greater_is_better": False}, 0.5, None, False),
        ({"threshold": 0.5, "greater_is_better": False}, 0.51, None, True),
        ({"min_absolute_change": 0.5}, 1.5, 1.0, False),
        ({"min_absolute_change": 0.5}, 1.25, 1.0, True),
        ({"min_absolute_change": 0.5, "greater_is_better": False}, 0.25, 1.0, False),
        ({"min_relative_change": 0.25}, 1.25, 1.0, False),
        ({"min_relative_change": 0.25}, 1.2, 1.0, True),
        ({"min_relative_change": 0.25}, -0.75, -1.0, False),
        ({"min_relative_change": 0.25}, 1e-9, 0.0, False),
        ({"min_relative_change": 0.0}, 0.0, 0.0, True),
        ({"min_absolute_change": 0.1}, 1.0, None, True),
    ],
)
def test_thresholds_are_mlflows(wanted, candidate, baseline, failed):
    limit = mlcli.MetricThreshold(**{"greater_is_better": True, **wanted})
    found = thresholds.failures({"m": limit}, {"m": candidate}, None if baseline is None else {"m": baseline})
    assert bool(found) == failed, found


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"threshold": 0.9, "greater_is_better": None},
        {"greater_is_better": True},
        {"min_absolute_change": 0, "greater_is_better": True},
        {"min_relative_change": 1.5, "greater_is_better": True},
        {"threshold": "0.9", "greater_is_better": True},
    ],
)
def test_thresholds_that_say_nothing_are_refused(wanted):
    with pytest.raises(InvalidInput):
        mlcli.MetricThreshold(**wanted)


def test_validation_raises_with_a_line_for_each_metric_that_fails():
    class Result:
        def __init__(self, **metrics):
            self.metrics = metrics

    limits = {name: mlcli.MetricThreshold(0.9, greater_is_better=True) for name in ("a", "b", "c")}
    with pytest.raises(thresholds.ModelValidationFailedException) as failed:
        mlcli.validate_evaluation_results(limits, Result(a=0.5, b=0.95))
    assert failed.value.message.splitlines() == ["a is 0.5, wanted at least 0.9", "c was not measured"]
    assert failed.value.error_code == "BAD_REQUEST"


# -- what is kept


def test_a_result_is_saved_and_loaded_whole(halves, tmp_path):
    model = linear().fit(halves[0].drop(columns="y"), halves[0].y)
    found = mlcli.evaluate(model, halves[1], targets="y")
    assert len(found.tables["eval_results_table"]) == 143
    assert found.artifacts["roc_curve_plot"].content.columns[1] == "false_positive_rate"
    found.save(str(tmp_path / "kept"))
    again = mlcli.EvaluationResult.load(str(tmp_path / "kept"))
    assert (again.metrics, again.run_id, again.intervals) == (found.metrics, found.run_id, found.intervals)
    assert again.artifacts["roc_curve_plot"].uri == found.artifacts["roc_curve_plot"].uri


def test_the_report_is_one_page_that_needs_nothing_else(halves):
    train, test = halves
    hostile = test.rename(columns={"y": "<script>alert(1)</script>"})
    model = linear().fit(train.drop(columns="y"), train.y)
    found = mlcli.evaluate(model, hostile, targets="<script>alert(1)</script>")
    page = artifact(found.run_id, "report.html")
    assert page.count("<svg ") == 6
    assert not [word for word in ("<script", "http:", "https:", "src=", "@import", "url(") if word in page]
    assert "&lt;script&gt;" in page
    for name in ("roc_curve_plot", "confusion_matrix", "lift_curve_plot"):
        assert ET.fromstring(artifact(found.run_id, f"{name}.svg").encode()).tag.endswith("svg")
    assert json.loads(artifact(found.run_id, "report.json"))["metrics"] == found.report["metrics"]


# -- the command line


def test_a_logged_model_is_scored_from_the_command_line(cli, logged):
    out, err = cli(logged, "--data", "test.csv", "--target", "y", "--json", "--html", "r.html")
    told = json.loads(out)
    assert told["metrics"]["accuracy_score"]["value"] == pytest.approx(137 / 143)
    assert told["method"] == "none"
    assert Path("r.html").read_text().startswith("<!doctype html>")
    assert "wrote r.html" in err


def test_a_pipe_gets_scores_and_differences_as_one_table(cli, logged):
    out, _ = cli(
        logged, "--data", "test.csv", "--target", "y", "--method", "kfold", "--folds", "3", "--baseline", "dummy"
    )
    rows = list(csv.DictReader(out.splitlines(), delimiter="\t"))
    assert {row["kind"] for row in rows} == {"score", "difference"}
    (auc,) = [row for row in rows if (row["kind"], row["metric"]) == ("difference", "roc_auc")]
    assert auc["method"] == "corrected resampled t"
    assert auc["significant"] == "true"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--fail-under", "accuracy_score=0.99"), 1),
        (("--fail-under", "log_loss=0.5"), 0),
        (("--method", "kfold", "--baseline", "dummy", "--min-improvement", "roc_auc=0.1"), 0),
        (("--method", "kfold", "--baseline", "dummy", "--min-improvement", "log_loss=0.99,relative"), 1),
    ],
)
def test_thresholds_decide_the_exit_code_and_the_run_is_recorded_all_the_same(cli, logged, words, code):
    _, err = cli(logged, "--data", "test.csv", "--target", "y", *words, check=code)
    assert ("not reached" in err) == bool(code)
    run = mlcli.search_runs(output_format="list", max_results=1)[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlcli.evaluation.passed"] == ("false" if code else "true")


def test_a_threshold_that_the_interval_does_not_clear_is_told(cli, logged):
    _, err = cli(logged, "--data", "test.csv", "--target", "y", "--fail-under", "accuracy_score=0.95")
    assert "its interval goes down to 0.91149" in err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "no model is named"),
        (("MODEL",), 2, "no data are named"),
        (("MODEL", "--data", "test.csv"), 2, "no target is named"),
        (("MODEL", "--data", "none.csv", "--target", "y"), 3, "there is no file"),
        (("MODEL", "--data", "test.csv", "--target", "Y"), 2, "did you mean 'y'?"),
        (("MODEL", "--data", "test.csv", "--target", "y", "--fail-under", "x"), 2, "METRIC=VALUE"),
        (("MODEL", "--data", "test.csv", "--target", "y", "--min-improvement", "r=1,2"), 2, "relative"),
        (("MODEL", "--data", "test.csv", "--target", "y", "-P", "a=1"), 2, "-P is for projects"),
        (("nowhere", "--data", "test.csv", "--target", "y"), 2, "nowhere"),
        (("--resume", "latest"), 1, "nothing to resume"),
    ],
)
def test_mistakes_are_told_in_a_line(cli, logged, words, code, told):
    words = [logged if word == "MODEL" else word for word in words]
    _, err = cli(*words, check=code)
    assert told in err
    assert err.startswith("error: ")


def test_an_interrupted_command_goes_on_with_resume_alone(cli, logged, monkeypatch):
    real = offline.Kept.put

    def put(self, who, fold, outcome):
        real(self, who, fold, outcome)
        if fold == 1:
            raise KeyboardInterrupt

    words = (logged, "--data", "test.csv", "--target", "y", "--method", "kfold", "--folds", "4")
    with monkeypatch.context() as patched:
        patched.setattr(offline.Kept, "put", put)
        _, err = cli(*words, check=130)
    assert "2 folds are kept: `mlcli evaluate --resume" in err
    out, err = cli("--resume", "latest", "--json")
    assert "2 of 4 folds were done before" in err
    whole, _ = cli(*words, "--json")
    assert json.loads(out)["metrics"] == json.loads(whole)["metrics"]


@pytest.mark.slow
def test_the_experiment_is_chosen_and_made(mlcli, logged):
    mlcli("evaluate", logged, "--data", "test.csv", "--target", "y", "-n", "judged", "--run-name", "first", "-q")
    listed = json.loads(mlcli("runs", "list", "-n", "judged", "--json").stdout)
    assert [run["info"]["run_name"] for run in listed] == ["first"]


@pytest.mark.slow
@pytest.mark.network
def test_a_model_is_evaluated_in_its_own_environment(mlcli, logged):
    words = ("evaluate", logged, "--data", "test.csv", "--target", "y", "--json")
    there = json.loads(mlcli(*words, "--env-manager", "uv", timeout=300).stdout)
    assert there["metrics"]["accuracy_score"]["value"] == pytest.approx(137 / 143)
    wrong = mlcli(*words[:-2], "z", "--env-manager", "uv", check=2)
    assert "no column" in wrong.stderr


# -- projects

TRAIN = """
import csv, sys
import mlcli

train, test = (list(csv.DictReader(open(path))) for path in sys.argv[1:3])
bar = sum(float(row["x"]) for row in train) / len(train)
said = ["yes" if float(row["x"]) > bar else "no" for row in test]
with mlcli.start_run():
    if sys.argv[3] == "metrics":
        mlcli.log_metric("hits", sum(a == row["y"] for a, row in zip(said, test)) / len(test))
    elif sys.argv[3] == "few":
        mlcli.log_text("prediction\\nyes\\n", "predictions.csv")
    elif sys.argv[3] == "nan":
        mlcli.log_metric("hits", float("nan"))
    elif sys.argv[3] == "other":
        mlcli.log_metric(f"hits_{test[0]['code']}", 1.0)
    elif sys.argv[3] == "fail":
        sys.exit("no such luck")
    else:
        mlcli.log_text("prediction\\n" + "\\n".join(said) + "\\n", "predictions.csv")
"""


@pytest.fixture
def project(tmp_path):
    """A project that calls a row `yes` where x is above its mean, and 40 rows of which that is true but for two."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "MLproject").write_text(
        "name: judged\nentry_points:\n"
        "  main:\n    parameters:\n      train_data: path\n      test_data: path\n"
        "      give: {type: string, default: predictions}\n"
        '    command: "python train.py {train_data} {test_data} {give}"\n'
        '  other:\n    command: "python train.py"\n'
    )
    rows = [(f"{x:.2f}", "no" if x in (30, 35) else "yes" if x > 19.5 else "no", f"{x:03}") for x in range(40)]
    Path("rows.csv").write_text("x,y,code\n" + "".join(f"{','.join(row)}\n" for row in rows))
    return tmp_path


DATA = ("--data", "rows.csv", "--target", "y", "--env-manager", "local")


def test_a_project_is_run_for_each_fold_as_a_child(cli, project):
    out, _ = cli(project, *DATA, "--method", "kfold", "--folds", "2", "-j", "2", "--json")
    told = json.loads(out)
    assert told["metrics"]["accuracy_score"]["value"] == pytest.approx(38 / 40, abs=0.06)
    children = [mlcli.get_run(run_id) for run_id in told["runs"]]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {told["run_id"]}
    assert sorted(run.info.run_name for run in children) == ["fold-0", "fold-1"]
    assert not Path(children[0].data.params["train_data"]).exists()


@pytest.mark.parametrize("wrong", [{"parameters": {"a": 1}}, {"entry_point": "main"}])
def test_what_a_project_is_given_is_refused_of_a_model(halves, wrong):
    with pytest.raises(InvalidInput, match="this is none"):
        mlcli.evaluate("dummy", halves[1], targets="y", **wrong)


def test_a_report_in_a_folder_that_is_not_there_is_refused_before_the_work(cli, logged):
    _, err = cli(logged, "--data", "test.csv", "--target", "y", "--html", "nowhere/report.html", check=2)
    assert "no such folder" in err


def test_a_project_may_hand_back_metrics_alone(cli, project):
    out, _ = cli(project, *DATA, "-P", "give=metrics", "--method", "kfold", "--folds", "2", "--json")
    told = json.loads(out)["metrics"]
    assert [*told] == ["hits"]
    assert told["hits"]["value"] == pytest.approx(0.95, abs=0.06)


def test_a_project_that_hands_back_too_few_rows_is_told(cli, project):
    _, err = cli(project, *DATA, "-P", "give=few", check=2)
    assert "predictions.csv of the project has 1 rows, test_data has 10" in err


def test_a_project_that_fails_says_why(cli, project):
    _, err = cli(project, *DATA, "-P", "give=fail", check=1)
    assert "no such luck" in err
    assert "mlcli runs logs" in err


@pytest.mark.parametrize(
    ("give", "told"), [("nan", "gave no number back: hits is NaN"), ("other", "other metrics back in each fold")]
)
def test_a_project_whose_metrics_tell_nothing_is_refused(cli, project, give, told):
    _, err = cli(project, *DATA, "-P", f"give={give}", "--method", "kfold", "--folds", "2", check=2)
    assert told in err


def test_an_entry_point_that_takes_no_files_is_refused_before_anything_runs(cli, project):
    _, err = cli(project, *DATA, "-e", "other", check=2)
    assert "has no parameter train_data and no test_data" in err
    assert not os.path.exists("mlruns")


def test_the_files_of_a_fold_hold_the_cells_as_they_stand_in_the_csv(project, tmp_path):
    from mlcli.evaluation import tables, trained

    table = tables.load("rows.csv", "y")
    parts = trained.write_parts(table, str(tmp_path), {"train_data": np.array([3, 7]), "test_data": np.array([1])})
    assert Path(parts["train_data"]).read_text() == "x,y,code\n3.00,no,003\n7.00,no,007\n"


@pytest.mark.parametrize(
    ("text", "truth", "told"),
    [
        ("prediction,probability\n1,0.8\n0,0.4\n", [1, 0], [[0.2, 0.8], [0.6, 0.4]]),
        ("prediction,probability_1,probability_0\n1,0.8,0.2\n0,0.4,0.6\n", [1, 0], [[0.2, 0.8], [0.6, 0.4]]),
        ("prediction,probability_b,probability_a\nb,0.8,0.2\na,0.4,0.6\n", ["b", "a"], [[0.2, 0.8], [0.6, 0.4]]),
        (
            "prediction,probability_True,probability_False\nTrue,0.8,0.2\nFalse,0.4,0.6\n",
            [True, False],
            [[0.2, 0.8], [0.6, 0.4]],
        ),
    ],
)
def test_answers_of_a_project_are_read_whatever_their_labels(tmp_path, text, truth, told):
    from mlcli.evaluation import trained

    (tmp_path / "predictions.csv").write_text(text)
    found = trained.read_answers(str(tmp_path / "predictions.csv"), np.array(truth), "classifier", np.array(truth))
    assert found.probability == pytest.approx(np.array(told))
    assert (found.truth == found.predicted).all()


# -- two recorded evaluations


@pytest.mark.parametrize("cell", ["nan", "inf"])
def test_an_answer_that_is_no_finite_number_is_told_with_its_row(tmp_path, cell):
    from mlcli.evaluation import trained

    path = tmp_path / "predictions.csv"
    path.write_text(f"prediction\n1\n{cell}\n")
    with pytest.raises(InvalidInput, match=f"is {cell} in row 2"):
        trained.read_answers(str(path), np.array([1, 0]), "classifier", np.array([1, 0]))


def compared(cli, *runs: str) -> list[dict]:
    out, _ = cli(*runs, "--test", "--json", command=("runs", "compare"))
    return json.loads(out)["tests"]


def test_runs_that_scored_the_same_rows_are_compared_row_by_row(cli, halves):
    train, test = halves
    runs = [
        mlcli.evaluate(model.fit(train.drop(columns="y"), train.y), test, targets="y").run_id
        for model in (tree(), linear())
    ]
    found = {row["metric"]: row for row in compared(cli, *runs)}
    assert found["accuracy_score"]["p_value"] == pytest.approx(0.03857421875)
    assert found["roc_auc"]["p_value"] == pytest.approx(1.352392e-04, rel=2e-2)
    assert found["roc_auc"]["verdict"] == "better"
    assert found["precision_score"]["verdict"] == "not shown"


def test_runs_with_the_same_folds_are_compared_by_them_as_a_baseline_would_be(cli):
    target = CANCER[1].to_numpy()
    runs = [mlcli.evaluate(model, CANCER[0], targets=target).run_id for model in (tree(), linear())]
    found = {row["metric"]: row["p_value"] for row in compared(cli, *runs)}
    at_once = mlcli.evaluate(linear(), CANCER[0], targets=target, baseline=tree())
    assert found == pytest.approx({item["metric"]: item["p_value"] for item in at_once.comparisons})


def test_groups_that_one_of_two_runs_knew_bind_both(cli):
    data = CANCER[0].iloc[:200].assign(who=np.arange(200) // 10)
    target = CANCER[1].to_numpy()[:200]
    columns = [*CANCER[0].columns]
    models = [model.fit(data[columns], target) for model in (tree(), linear())]
    alone, grouped = (
        mlcli.evaluate(model, data, targets=target, method="none", metrics=["accuracy_score"], **more).run_id
        for model, more in zip(
            models, ({"feature_names": columns}, {"feature_names": columns, "groups": "who"}), strict=True
        )
    )
    told = [compared(cli, *pair)[0] for pair in ((alone, grouped), (grouped, alone))]
    assert [row["test"] for row in told] == ["paired bootstrap", "paired bootstrap"]


def test_what_cannot_be_told_is_said_with_the_reason(cli):
    target = CANCER[1].to_numpy()
    few = {"targets": target, "metrics": ["accuracy_score"], "folds": 2}
    first = mlcli.evaluate(linear(), CANCER[0], **few).run_id
    with mlcli.start_run() as plain:
        pass
    others = {
        plain.info.run_id: "is not an evaluation",
        mlcli.evaluate(linear(), CANCER[0], **few, seed=1).run_id: "their folds are not the same",
        mlcli.evaluate(linear(), CANCER[0][:500], **{**few, "targets": target[:500]}).run_id: "different data",
        mlcli.evaluate(linear(), CANCER[0], **few, method="holdout").run_id: "one was fitted for each fold",
    }
    rows = compared(cli, first, *others)
    assert all(others[row["run"]] in row["reason"] for row in rows)
    assert {row["verdict"] for row in rows} == {"cannot be told"}
    splits = [mlcli.evaluate(linear(), CANCER[0], **few, method="holdout", seed=seed).run_id for seed in (0, 1)]
    assert "different rows" in compared(cli, *splits)[0]["reason"]


def test_several_runs_are_held_to_the_level_of_one(cli):
    target = CANCER[1].to_numpy()
    models = (tree(), linear(), KNeighborsClassifier(1))
    runs = [
        mlcli.evaluate(model, CANCER[0], targets=target, folds=3, metrics=["accuracy_score"]).run_id for model in models
    ]
    rows = [row for row in compared(cli, *runs) if row["metric"] == "accuracy_score"]
    least = min(rows, key=lambda row: row["p_value"])
    assert least["p_adjusted"] == pytest.approx(min(1, 2 * least["p_value"]))


def test_it_is_found_where_mlflow_has_it():
    import mlcli.models

    assert mlcli.models.evaluate is mlcli.evaluate
    assert mlcli.models.MetricThreshold is mlcli.MetricThreshold
