"""scikit-learn's autolog: what a training leaves behind, what a program does afterwards, and that nothing of it gets in the way."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed, parallel_backend
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import BaggingRegressor, StackingRegressor, VotingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_predict, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import mlcli
import mlcli.sklearn
from mlcli.autolog import scores, session
from mlcli.autolog.calls import MetricFunction
from mlcli.autolog.sklearn import LIBRARY
from mlcli.entities import Run
from mlcli.errors import InvalidInput
from mlcli.live import LiveRun

X, Y = load_iris(return_X_y=True, as_frame=True)
TWO = X[Y < 2], Y[Y < 2]
NUMBERS = X.to_numpy()[:, :2], X.to_numpy()[:, 2]

CLASSIFIER = "precision_score recall_score f1_score accuracy_score log_loss roc_auc score".split()
REGRESSOR = "mean_squared_error mean_absolute_error r2_score root_mean_squared_error score".split()
FILES = ["estimator.html", "model", "training_confusion_matrix.png"]
CURVES = ["training_precision_recall_curve.png", "training_roc_curve.png"]


@pytest.fixture(autouse=True)
def _store(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))
    yield
    mlcli.sklearn.autolog(disable=True)
    LIBRARY.chosen = False
    mlcli.end_run()


@pytest.fixture
def on() -> None:
    mlcli.sklearn.autolog()


@pytest.fixture
def lean() -> None:
    """Autolog without what takes most of the time and is tested elsewhere."""
    mlcli.sklearn.autolog(log_models=False, log_datasets=False)


def runs() -> list[Run]:
    """All runs, the oldest first."""
    found: list[Run] = mlcli.search_runs(output_format="list", search_all_experiments=True)
    return found[::-1]


def one() -> Run:
    (found,) = runs()
    return found


def files(run: Run, path: str | None = None) -> list[str]:
    return [item.path for item in mlcli.Client().list_artifacts(run.info.run_id, path)]


def read(run: Run, name: str) -> str:
    return Path(run.info.artifact_uri, name).read_text(encoding="utf-8")


def contexts(run: Run) -> list[str]:
    return [item.tags["mlflow.data.context"] for item in run.inputs.dataset_inputs]


def prefixed(names: list[str]) -> set[str]:
    return {f"training_{name}" for name in names}


# -- what a training leaves


def test_a_classifier_leaves_params_scores_plots_its_picture_a_model_and_its_data(on, capfd) -> None:
    model = LogisticRegression(C=0.5).fit(*TWO)
    mlcli.sklearn.autolog(log_post_training_metrics=False)
    run = one()
    assert run.info.status == "FINISHED"
    assert run.data.params == {name: str(value) for name, value in model.get_params().items()}
    assert set(run.data.metrics) == prefixed(CLASSIFIER)
    assert run.data.metrics["training_log_loss"] == sklearn.metrics.log_loss(TWO[1], model.predict_proba(TWO[0]))
    assert run.data.metrics["training_accuracy_score"] == run.data.metrics["training_score"] == 1.0
    assert run.data.tags["estimator_name"] == "LogisticRegression"
    assert run.data.tags["estimator_class"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert run.data.tags["mlflow.autologging"] == "sklearn"
    assert files(run) == [*FILES, *CURVES]
    for name in [FILES[2], *CURVES]:
        assert Path(run.info.artifact_uri, name).read_bytes().startswith(b"\x89PNG")
    assert "LogisticRegression" in read(run, "estimator.html")
    assert 'charset="UTF-8"' in read(run, "estimator.html")
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.tags) == ("dataset", {"mlflow.data.context": "train"})
    assert capfd.readouterr().err == ""


def test_the_model_comes_back_with_its_signature_scores_and_params(on) -> None:
    model = make_pipeline(StandardScaler(), Ridge()).fit(X, Y)
    run = one()
    again = mlcli.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert again.predict(X).tolist() == model.predict(X).tolist()
    text = read(run, "model/MLmodel")
    assert "sepal length (cm)" in text
    assert f"training_r2_score: {run.data.metrics['training_r2_score']!r}" in text
    assert 'ridge__alpha: "1.0"' in text


def test_a_regressor_leaves_the_scores_of_one(lean) -> None:
    model = LinearRegression().fit(*NUMBERS)
    run = one()
    assert set(run.data.metrics) == prefixed(REGRESSOR)
    assert files(run) == ["estimator.html"]
    assert run.data.metrics["training_score"] == pytest.approx(model.score(*NUMBERS))
    assert (
        run.data.metrics["training_root_mean_squared_error"] == run.data.metrics["training_mean_squared_error"] ** 0.5
    )


def test_several_classes_have_no_curves_and_a_weighted_average(lean) -> None:
    model = DecisionTreeClassifier(max_depth=2).fit(X, Y)
    run = one()
    assert files(run) == ["estimator.html", "training_confusion_matrix.png"]
    expected = sklearn.metrics.precision_score(Y, model.predict(X), average="weighted")
    assert run.data.metrics["training_precision_score"] == expected


def test_pos_label_makes_the_scores_those_of_one_class() -> None:
    mlcli.sklearn.autolog(pos_label=0, log_models=False, log_datasets=False)
    model = DummyClassifier(strategy="constant", constant=1).fit(*TWO)
    assert one().data.metrics["training_recall_score"] == 0.0
    assert model.predict(TWO[0]).all()


def test_a_classifier_without_probabilities_has_curves_and_no_log_loss(lean, capfd) -> None:
    RidgeClassifier().fit(*TWO)
    run = one()
    assert set(run.data.metrics) == prefixed(["precision_score", "recall_score", "f1_score", "accuracy_score", "score"])
    assert files(run) == ["estimator.html", FILES[2], *CURVES]
    assert capfd.readouterr().err == ""


def test_text_labels_and_sample_weights_are_scored_as_they_are(lean) -> None:
    labels = TWO[1].map({0: "ja", 1: "nein"}).to_numpy()
    weights = np.linspace(0, 1, len(labels))
    wrong = DummyClassifier(strategy="most_frequent").fit(TWO[0], labels, sample_weight=weights)
    run = one()
    mlcli.sklearn.autolog(disable=True)
    expected = sklearn.metrics.accuracy_score(labels, wrong.predict(TWO[0]), sample_weight=weights)
    assert run.data.metrics["training_accuracy_score"] == run.data.metrics["training_score"] == expected != 0.5
    assert files(run) == ["estimator.html", FILES[2], *CURVES]


def test_clusters_have_a_model_and_no_scores_which_is_said(on, capfd) -> None:
    KMeans(n_clusters=2, n_init=1, random_state=0).fit_predict(NUMBERS[0])
    run = one()
    assert (run.data.metrics, files(run)) == ({}, ["estimator.html", "model"])
    assert contexts(run) == ["train"]
    assert capfd.readouterr().err == "mlcli: autolog: no training scores of KMeans: it was fitted without y\n"


def test_what_transforms_has_a_signature_of_what_comes_out(on) -> None:
    PCA(2).fit_transform(NUMBERS[0], NUMBERS[1])
    run = one()
    assert run.data.tags["estimator_name"] == "PCA"
    assert '"shape\\": [-1, 2]' in read(run, "model/MLmodel")


@pytest.mark.parametrize(
    "prepare",
    [
        lambda: StandardScaler().fit(X),
        lambda: StandardScaler().fit_transform(X),
        lambda: TfidfVectorizer().fit(["a text", "another text"]),
        lambda: ColumnTransformer([("a", StandardScaler(), [0])]).fit(X),
        lambda: cross_val_score(LinearRegression(), *NUMBERS, cv=2),
        lambda: cross_val_predict(LinearRegression(), *NUMBERS, cv=2),
    ],
    ids="scaler scaler-transform tfidf columns cross_val_score cross_val_predict".split(),
)
def test_preparing_data_and_cross_validation_make_no_run(lean, prepare) -> None:
    prepare()
    assert runs() == []


@pytest.mark.parametrize("backend", ["sequential", "threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_only_the_outermost_training_is_logged_wherever_the_inner_ones_run(lean, backend: str) -> None:
    models = [("a", LinearRegression()), ("b", Ridge())]
    with parallel_backend(backend, n_jobs=2):
        StackingRegressor(models, final_estimator=Ridge(), cv=2).fit(*NUMBERS)
        VotingRegressor(models).fit(*NUMBERS)
        BaggingRegressor(LinearRegression(), n_estimators=3).fit(*NUMBERS)
        cross_val_score(Ridge(), *NUMBERS, cv=2)
        GridSearchCV(Ridge(), {"alpha": [1]}, cv=2, scoring=make_scorer(sklearn.metrics.r2_score)).fit(*NUMBERS)
    names = [run.data.tags["estimator_name"] for run in runs() if "mlflow.parentRunId" not in run.data.tags]
    assert names == ["StackingRegressor", "VotingRegressor", "BaggingRegressor", "GridSearchCV"]


def test_threads_of_the_program_log_a_run_each(lean) -> None:
    Parallel(n_jobs=2, backend="threading")(delayed(Ridge(alpha=a).fit)(*NUMBERS) for a in (1, 2, 3))
    threads = [threading.Thread(target=Ridge(alpha=a).fit, args=NUMBERS) for a in (4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.data.params["alpha"] for run in runs()) == ["1", "2", "3", "4", "5"]
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert mlcli.active_run() is None


# -- searches


def test_a_search_leaves_its_best_and_a_child_run_for_each_of_the_best_candidates(capfd) -> None:
    mlcli.sklearn.autolog(max_tuning_runs=2, log_input_examples=True)
    search = GridSearchCV(Ridge(), {"alpha": [1, 10, 1000]}, cv=2, scoring=make_scorer(sklearn.metrics.r2_score))
    search.fit(*NUMBERS)
    parent, *children = sorted(runs(), key=lambda run: run.data.tags.get("mlflow.parentRunId", ""))
    assert parent.data.metrics["best_cv_score"] == search.best_score_
    assert parent.data.params["best_alpha"] == str(search.best_params_["alpha"])
    assert parent.data.params["estimator"] == "Ridge()"
    assert "estimator__alpha" not in parent.data.params
    assert files(parent) == ["best_estimator", "cv_results.csv", "estimator.html", "model"]
    assert "input_example.json" in read(parent, "best_estimator/MLmodel")
    loaded = mlcli.sklearn.load_model(f"runs:/{parent.info.run_id}/best_estimator")
    assert loaded.get_params() == search.best_estimator_.get_params()
    assert sorted(child.data.params["alpha"] for child in children) == ["1", "10"]
    for child in children:
        place = [1, 10, 1000].index(int(child.data.params["alpha"]))
        assert child.data.params == {
            **{k: str(v) for k, v in Ridge().get_params().items()},
            "alpha": child.data.params["alpha"],
        }
        assert set(child.data.metrics) == set(
            "mean_fit_time std_fit_time mean_score_time std_score_time mean_test_score std_test_score rank_test_score".split()
        )
        assert child.data.metrics["mean_test_score"] == search.cv_results_["mean_test_score"][place]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["mlflow.autologging"] == "sklearn"
        assert child.data.tags["estimator_name"] == "Ridge"
        assert child.info.start_time == parent.info.start_time
        assert child.info.end_time is not None
        assert child.info.status == "FINISHED"
        assert contexts(child) == ["train"]
    assert capfd.readouterr().err == ""


def test_the_table_of_a_search_is_what_pandas_makes_of_it(lean) -> None:
    search = RandomizedSearchCV(Ridge(), {"alpha": [1, 2.5], "solver": ["svd", "lsqr"]}, n_iter=3, cv=2, random_state=0)
    search.fit(*NUMBERS)
    (parent,) = [run for run in runs() if "mlflow.parentRunId" not in run.data.tags]
    text = read(parent, "cv_results.csv")
    ours = pd.read_csv(io.StringIO(text))
    theirs = io.StringIO(pd.DataFrame(search.cv_results_).to_csv(index=False))
    pd.testing.assert_frame_equal(ours, pd.read_csv(theirs))
    assert len(list(csv.reader(io.StringIO(text)))) == 4


def test_several_scorers_rank_by_the_first_and_none_limits_the_children() -> None:
    mlcli.sklearn.autolog(max_tuning_runs=None, log_models=False, log_datasets=False)
    GridSearchCV(
        Ridge(), {"alpha": [1, 2, 3, 4, 5, 6, 7]}, cv=2, scoring=["r2", "neg_mean_squared_error"], refit="r2"
    ).fit(*NUMBERS)
    assert len(runs()) == 8
    mlcli.sklearn.autolog(max_tuning_runs=1, log_models=False, log_datasets=False)
    GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2, scoring=["r2", "neg_mean_squared_error"], refit=False).fit(*NUMBERS)
    assert len(runs()) == 10


# -- to which run


def test_the_active_run_gets_it_and_stays_open(lean) -> None:
    with mlcli.start_run() as run:
        LinearRegression().fit(*NUMBERS)
        assert mlcli.active_run() is run
        mlcli.log_metric("mine", 1)
    found = one()
    assert "mlflow.autologging" not in found.data.tags
    assert {"mine", "training_score"} <= set(found.data.metrics)


def test_two_trainings_in_one_run_keep_the_first_params_and_say_so(lean, capfd) -> None:
    with mlcli.start_run():
        Ridge(alpha=1.0).fit(*NUMBERS)
        Ridge(alpha=2.0, tol=0.1).fit(*NUMBERS)
    assert one().data.params["alpha"] == "1.0"
    (line,) = capfd.readouterr().err.splitlines()
    assert "the params of Ridge not logged" in line
    assert "(and 1 more)" in line


def test_a_training_that_raises_ends_its_run_as_failed_with_its_params(lean) -> None:
    with pytest.raises(ValueError, match="Found input variables"):
        LogisticRegression(C=2).fit(X, Y[:3])
    run = one()
    assert (run.info.status, run.data.params["C"]) == ("FAILED", "2")
    assert mlcli.active_run() is None


def test_a_training_that_raises_leaves_the_programs_run_open(lean) -> None:
    with mlcli.start_run():
        with pytest.raises(ValueError, match="Found input variables"):
            LogisticRegression().fit(X, Y[:3])
        assert mlcli.active_run() is not None
    assert one().info.status == "FINISHED"


def test_exclusive_leaves_runs_of_the_program_alone() -> None:
    mlcli.sklearn.autolog(exclusive=True, log_models=False, extra_tags={"team": "blue"})
    with mlcli.start_run():
        LinearRegression().fit(*NUMBERS)
    assert one().data.params == {}
    LinearRegression().fit(*NUMBERS)
    assert runs()[-1].data.tags["team"] == "blue"


# -- options


def test_each_part_can_be_left_out(capfd) -> None:
    mlcli.sklearn.autolog(log_models=False, log_datasets=False, log_post_training_metrics=False)
    model = LinearRegression().fit(*NUMBERS)
    model.score(*NUMBERS)
    run = one()
    assert (files(run), run.inputs.dataset_inputs, set(run.data.metrics)) == (
        ["estimator.html"],
        (),
        prefixed(REGRESSOR),
    )
    assert capfd.readouterr().err == ""


def test_examples_signatures_formats_and_a_registered_name(capfd) -> None:
    mlcli.sklearn.autolog(
        log_input_examples=True,
        log_model_signatures=False,
        serialization_format="cloudpickle",
        registered_model_name="flowers",
        silent=True,
    )
    Ridge().fit(X, Y)
    run = one()
    content = read(run, "model/MLmodel")
    assert "serialization_format: cloudpickle" in content
    assert json.loads(read(run, "model/input_example.json"))["columns"] == list(X.columns)
    from mlcli.store import open_store

    with open_store() as store:
        assert store.get_model_version("flowers", "1").run_id == run.info.run_id


@pytest.mark.parametrize("options", [{"max_tuning_runs": -1}, {"serialization_format": "zip"}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        mlcli.sklearn.autolog(**options)
    assert not LIBRARY.on


def test_silent_says_nothing(capfd) -> None:
    mlcli.sklearn.autolog(silent=True, log_models=False)
    KMeans(n_clusters=2, n_init=1).fit(NUMBERS[0])
    assert capfd.readouterr().err == ""


# -- data of every kind


@pytest.mark.parametrize(
    ("data", "described"),
    [
        (NUMBERS, True),
        ((X[["sepal length (cm)"]], Y.to_frame()), True),
        ((sparse.csr_matrix(NUMBERS[0]), NUMBERS[1]), True),
        ((NUMBERS[0].tolist(), NUMBERS[1].tolist()), True),
        ((NUMBERS[0], np.column_stack([NUMBERS[1], NUMBERS[1]])), True),
    ],
    ids="array frame sparse lists many-answers".split(),
)
def test_data_of_every_kind_are_scored_described_and_signed(on, capfd, data: Any, described: bool) -> None:
    Ridge().fit(*data)
    run = one()
    assert set(run.data.metrics) == prefixed(REGRESSOR)
    assert contexts(run) == ["train"] * described
    assert "signature" in read(run, "model/MLmodel")
    assert capfd.readouterr().err == ""


def test_texts_are_trained_on_through_a_pipeline(on, capfd) -> None:
    texts, labels = ["good day", "bad night", "good night", "bad day"] * 3, [1, 0, 1, 0] * 3
    make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    run = one()
    assert set(run.data.metrics) == prefixed(CLASSIFIER)
    assert "string" in read(run, "model/MLmodel")
    assert capfd.readouterr().err == ""


def test_several_answers_at_once_have_the_scores_that_are_made_for_them(lean, capfd) -> None:
    answers = np.column_stack([TWO[1], 1 - TWO[1]])
    MultiOutputClassifier(DecisionTreeClassifier(max_depth=1)).fit(TWO[0], answers)
    run = one()
    assert {"training_score", "training_f1_score", "training_accuracy_score"} <= set(run.data.metrics)
    assert files(run) == ["estimator.html"]
    assert "of MultiOutputClassifier" in capfd.readouterr().err


def test_a_training_that_writes_into_its_data_is_scored_on_what_it_was_given(lean) -> None:
    data = NUMBERS[0].copy(order="F")
    expected = LinearRegression(fit_intercept=True).fit(*NUMBERS).score(*NUMBERS)
    LinearRegression(copy_X=False).fit(data, NUMBERS[1])
    assert runs()[-1].data.metrics["training_r2_score"] == pytest.approx(expected)


# -- what follows a training


def test_scores_of_the_program_are_named_by_its_variables(lean) -> None:
    model = LogisticRegression().fit(*TWO)
    held_out, wanted = X[Y < 2][::2], Y[Y < 2][::2]
    model.score(held_out, wanted)
    answers = model.predict(held_out)
    sklearn.metrics.accuracy_score(wanted, answers)
    sklearn.metrics.accuracy_score(wanted, y_pred=answers, normalize=True)
    sklearn.metrics.roc_auc_score(wanted, model.predict_proba(held_out + 0)[:, 1])  # not the answers themselves
    sklearn.metrics.accuracy_score(wanted, model.predict(held_out + 0))
    held_out = held_out[::2]  # another object by the same name
    sklearn.metrics.f1_score(wanted[::2], model.predict(held_out))
    run = one()
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) - prefixed(CLASSIFIER) == {
        "LogisticRegression_score_held_out",
        "accuracy_score_held_out",
        "accuracy_score-2_held_out",
        "accuracy_score-3_unknown_dataset-2",
        "f1_score_held_out-2",
    }
    assert json.loads(read(run, "metric_info.json")) == {
        "LogisticRegression_score_held_out": "LogisticRegression.score(X=held_out, y=wanted)",
        "accuracy_score_held_out": "accuracy_score(y_true=wanted, y_pred=answers)",
        "accuracy_score-2_held_out": "accuracy_score(y_true=wanted, y_pred=answers, normalize=True)",
        "accuracy_score-3_unknown_dataset-2": "accuracy_score(y_true=wanted, y_pred=<ndarray>)",
        "f1_score_held_out-2": "f1_score(y_true=<Series>, y_pred=<ndarray>)",
    }


def test_the_data_that_were_predicted_are_noted_once(on) -> None:
    model = LinearRegression().fit(*NUMBERS)
    held_out = NUMBERS[0][:10]
    for _ in range(3):
        model.predict(held_out)
    assert contexts(one()) == ["train", "eval"]


def test_predicting_in_a_loop_does_not_fill_the_run(on) -> None:
    model = LinearRegression().fit(*NUMBERS)
    for start in range(50):
        model.predict(NUMBERS[0][start : start + 3] + start)
    assert contexts(one()).count("eval") == 20


def test_a_function_that_was_handed_the_data_is_looked_through(lean) -> None:
    def evaluate(fitted: Any, features: Any, labels: Any) -> Any:
        return fitted.score(features, labels)

    model = LinearRegression().fit(*NUMBERS)
    held_out, wanted = NUMBERS[0][:20], NUMBERS[1][:20]
    evaluate(model, held_out, labels=wanted)
    assert "LinearRegression_score_held_out" in one().data.metrics


def test_a_model_that_autolog_does_not_know_is_left_alone(lean) -> None:
    mlcli.sklearn.autolog(disable=True)
    model = LinearRegression().fit(*NUMBERS)
    mlcli.sklearn.autolog()
    sklearn.metrics.r2_score(NUMBERS[1], model.predict(NUMBERS[0]))
    model.score(*NUMBERS)
    assert runs() == []


# -- it does not get in the way


class Counting(LinearRegression):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def predict(self, X: Any) -> Any:  # noqa: N803
        self.asked.append(len(X))
        return super().predict(X)


def test_a_regressor_predicts_its_data_once_and_a_few_rows_for_the_signature(on) -> None:
    model = Counting().fit(*NUMBERS)
    assert model.asked == [150, 5]
    assert one().data.metrics["training_score"] == one().data.metrics["training_r2_score"]


def test_a_classifier_answers_once_in_each_way_and_is_fitted_once(on, monkeypatch) -> None:
    counts: dict[str, int] = {}

    class Counted(DummyClassifier):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
            counts["fit"] = counts.get("fit", 0) + 1
            return super().fit(X, y, sample_weight)

        def predict(self, X: Any) -> Any:  # noqa: N803
            counts[f"predict {len(X)}"] = counts.get(f"predict {len(X)}", 0) + 1
            return super().predict(X)

        def predict_proba(self, X: Any) -> Any:  # noqa: N803
            counts["predict_proba"] = counts.get("predict_proba", 0) + 1
            return np.full((len(X), 2), 0.5)

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
            raise AssertionError

    monkeypatch.setattr(Counted, "score", ClassifierMixin.score)
    monkeypatch.setattr(sys.modules[__name__], "Counted", Counted, raising=False)
    Counted(strategy="constant", constant=1).fit(*TWO)
    assert counts == {"fit": 1, "predict 100": 1, "predict 5": 1, "predict_proba": 1}


def test_methods_keep_their_signatures_names_and_documentation(on) -> None:
    before = inspect.signature(LogisticRegression.fit.__wrapped__)
    assert inspect.signature(LogisticRegression.fit) == before
    assert LogisticRegression.fit.__doc__ == LogisticRegression.fit.__wrapped__.__doc__
    assert LogisticRegression.fit.__qualname__ == "LogisticRegression.fit"
    model = SVC().fit(*TWO)
    assert not hasattr(model, "predict_proba")
    assert isinstance(clone(model), SVC)
    assert vars(clone(model)) == vars(SVC())


def test_a_fitted_model_is_pickled_as_it_would_be_without_autolog(lean) -> None:
    bare = pickle.dumps(Ridge.fit.__wrapped__(Ridge(), *NUMBERS))
    model = Ridge().fit(*NUMBERS)
    model.predict(NUMBERS[0])
    assert pickle.dumps(model) == bare


def test_what_was_imported_while_it_was_on_can_be_pickled_when_it_is_off(on) -> None:
    from sklearn.metrics import accuracy_score

    assert isinstance(accuracy_score, MetricFunction)
    scorer = make_scorer(accuracy_score)
    fit = LinearRegression.fit
    mlcli.sklearn.autolog(disable=True)
    assert pickle.loads(pickle.dumps(accuracy_score)) is sklearn.metrics.accuracy_score
    assert pickle.loads(pickle.dumps(scorer))._score_func is sklearn.metrics.accuracy_score
    assert accuracy_score([1], [1]) == 1.0
    assert fit(LinearRegression(), *NUMBERS).predict(NUMBERS[0]).shape == (150,)
    assert runs() == []


def snapshot() -> dict[str, Any]:
    """Every attribute of every class and module of scikit-learn that autolog could have touched."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith(("sklearn", "joblib")) and module is not None:
            for key, value in list(vars(module).items()):
                found[f"{name}:{key}"] = value
                if isinstance(value, type) and value.__module__.startswith(("sklearn", "joblib")):
                    for attribute, raw in list(vars(value).items()):
                        if attribute not in ("__abstractmethods__", "_abc_impl"):
                            found[f"{value.__module__}.{value.__qualname__}.{attribute}"] = raw
                            found[f"{value.__module__}.{value.__qualname__}.{attribute}.fn"] = getattr(raw, "fn", None)
    return found


def test_disable_restores_every_attribute_and_leaves_no_finder() -> None:
    before, finders = snapshot(), list(sys.meta_path)
    mlcli.sklearn.autolog()
    mlcli.sklearn.autolog(log_models=False)
    during = snapshot()
    assert any(during[key] is not value for key, value in before.items())
    import sklearn.experimental.enable_halving_search_cv  # noqa: F401 - a module that is new

    mlcli.sklearn.autolog(disable=True)
    after = snapshot()
    assert [key for key, value in before.items() if after[key] is not value] == []
    assert set(after) - set(before) == {key for key in set(after) - set(before) if not key.endswith("__mlcli__")}
    assert [key for key, value in after.items() if getattr(value, "__mlcli__", False)] == []
    assert sys.meta_path == finders


def test_a_method_that_somebody_else_replaced_stays_theirs(monkeypatch) -> None:
    monkeypatch.setattr(LinearRegression, "fit", LinearRegression.fit)  # to be put back after the test
    mlcli.sklearn.autolog(log_models=False, log_datasets=False)
    ours = LinearRegression.fit

    def theirs(self: Any, *args: Any) -> Any:
        return ours(self, *args)

    LinearRegression.fit = theirs  # type: ignore[method-assign]
    mlcli.sklearn.autolog(disable=True)
    assert LinearRegression.fit is theirs
    LinearRegression().fit(*NUMBERS)
    assert runs() == []
    mlcli.sklearn.autolog(log_models=False, log_datasets=False)
    LinearRegression().fit(*NUMBERS)
    assert len(runs()) == 1


def test_the_programs_own_estimators_are_its_own_affair(lean) -> None:
    class Own(BaseEstimator):
        def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
            return self

    Own().fit(*NUMBERS)
    assert runs() == []


def test_a_forked_child_logs_runs_of_its_own(lean) -> None:
    LinearRegression().fit(*NUMBERS)
    pid = os.fork()
    if pid == 0:
        try:
            Ridge().fit(*NUMBERS)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [run.data.tags["estimator_name"] for run in runs()] == ["LinearRegression", "Ridge"]


# -- whatever fails in it, the training goes on


def fit_all() -> list[Any]:
    """A search and what may follow: every step of the logging but for the plots is in it."""
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1]}, cv=2).fit(*NUMBERS)
    held_out, wanted = NUMBERS[0][::3], NUMBERS[1][::3]
    answers = search.predict(held_out)
    return [
        search.best_params_,
        search.best_score_,
        answers.tolist(),
        search.score(held_out, wanted),
        sklearn.metrics.r2_score(wanted, answers),
    ]


def steps_of(monkeypatch: pytest.MonkeyPatch, failing: int | None) -> int:
    """Run all with the step of that number replaced by one that raises; gives how many steps there were."""
    count = 0
    original = session.Library.attempt

    def attempt(self: session.Library, what: str, step: Any, *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count - 1 == failing:

            def step(*_: Any, **__: Any) -> Any:
                raise OSError(f"no {what}")

        return original(self, what, step, *args, **options)

    monkeypatch.setattr(session.Library, "attempt", attempt)
    assert fit_all() == steps_of.expected  # type: ignore[attr-defined]
    mlcli.end_run()  # where its end is the step that failed
    monkeypatch.setattr(session.Library, "attempt", original)
    return count


def test_each_step_that_fails_is_said_once_and_the_training_is_the_same(monkeypatch, capfd) -> None:
    steps_of.expected = fit_all()  # type: ignore[attr-defined]
    mlcli.sklearn.autolog()
    count = steps_of(monkeypatch, None)
    assert count > 20
    assert capfd.readouterr().err == ""
    for number in range(count):
        mlcli.sklearn.autolog()
        steps_of(monkeypatch, number)
        said = capfd.readouterr().err.splitlines()
        assert len(said) == 1, said
        assert said[0].startswith("mlcli: autolog: ")
        assert "OSError: no " in said[0]


def test_plots_that_cannot_be_drawn_are_said_and_the_rest_is_there(lean, monkeypatch, capfd) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no font")

    for name in ("_draw_confusion", "_draw_curve", "log_html"):
        monkeypatch.setattr(scores, name, fail)
    LogisticRegression().fit(*TWO)
    assert len(capfd.readouterr().err.splitlines()) == 4
    assert set(one().data.metrics) == prefixed(CLASSIFIER)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    broken=st.sets(
        st.sampled_from(
            ["log_params", "log_metrics", "set_tags", "log_input", "log_text", "log_dict", "artifacts", "end"]
        ),
        min_size=1,
    )
)
def test_whatever_the_store_refuses_the_training_and_its_exception_are_the_programs(
    root: Path, broken: set[str]
) -> None:
    mlcli.sklearn.autolog(silent=True)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        for name in broken:
            patch.setattr(LiveRun, name, property(refuse) if name == "artifacts" else refuse)
        assert LinearRegression().fit(*NUMBERS).score(*NUMBERS) > 0
        with pytest.raises(ValueError, match="inconsistent numbers"):
            Ridge().fit(NUMBERS[0], NUMBERS[1][:3])
    assert mlcli.active_run() is None or "end" in broken
    mlcli.end_run()


def test_a_store_that_cannot_be_written_costs_a_line_and_nothing_else(tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(tmp_path / "file" / "mlruns"))
    mlcli.sklearn.autolog()
    for _ in range(2):
        assert LinearRegression().fit(*NUMBERS).score(*NUMBERS) > 0
    assert len(capfd.readouterr().err.splitlines()) == 1


# -- in a program of its own


def program(code: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done


def test_autolog_imports_nothing_and_works_with_what_is_imported_later() -> None:
    done = program(
        """
        import sys
        import mlcli as mlflow
        mlflow.autolog(log_models=False)
        assert not {"sklearn", "numpy", "joblib", "xgboost", "torch"} & set(sys.modules)
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name in ("matplotlib", "pandas"):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import accuracy_score
        X, y = load_iris(return_X_y=True)
        for C in (1, 2):
            model = LogisticRegression(C=C, max_iter=500).fit(X[:100], y[:100])
            found = accuracy_score(y[:100], model.predict(X[:100]))
        runs = mlflow.search_runs(output_format="list")
        print([sorted(run.data.metrics)[0] for run in runs], [len(run.inputs.dataset_inputs) for run in runs])
        """
    )
    assert done.stdout == "['accuracy_score_unknown_dataset', 'accuracy_score_unknown_dataset'] [2, 2]\n"
    assert done.stderr == "mlcli: autolog: no plots are logged: matplotlib is not installed (pip install matplotlib)\n"


def test_the_tutorial_with_the_name_changed_gives_the_same_run() -> None:
    """The seed's second script, line for line, with `import mlcli as mlflow`."""
    done = program(
        """
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        import mlcli as mlflow
        import mlcli.sklearn

        if __name__ == "__main__":
            mlflow.sklearn.autolog()

            X = np.array([-2, -1, 0, 1, 2, 1]).reshape(-1, 1)
            y = np.array([0, 0, 1, 1, 1, 0])

            penalty = "elasticnet"
            l1_ratio = 0.1

            lr = LogisticRegression(penalty=penalty, l1_ratio=l1_ratio, solver="saga")

            with mlflow.start_run() as run:
                lr.fit(X, y)
                score = lr.score(X, y)
                print("Score: %s" % score)
        """,
        "-W",
        "ignore",
    )
    run = one()
    assert done.stdout == f"Score: {run.data.metrics['training_score']}\n"
    assert run.data.params["l1_ratio"] == "0.1"
    assert set(run.data.metrics) == {*prefixed(CLASSIFIER), "LogisticRegression_score_X"}
    assert files(run) == ["estimator.html", "metric_info.json", *FILES[1:], *CURVES]


# -- the import hook and the name


def test_the_package_is_the_function_however_it_was_imported() -> None:
    for first in ("mlcli.autolog", "from mlcli.autolog import calls", "import mlcli.sklearn; mlcli.sklearn.autolog"):
        program(
            f"""
            import mlcli
            {first}
            mlcli.autolog(silent=True)
            mlcli.autolog(disable=True)
            import mlcli.autolog.calls as calls
            from mlcli import autolog
            autolog(disable=True)
            import inspect
            assert list(inspect.signature(autolog).parameters)[:2] == ["log_input_examples", "log_model_signatures"]
            """
        )


def test_a_librarys_own_settings_go_before_those_for_all_and_off_is_off() -> None:
    mlcli.sklearn.autolog(log_models=False)
    mlcli.autolog(log_models=True, exclusive=True)
    assert not LIBRARY.settings.log_models
    assert not LIBRARY.settings.exclusive
    mlcli.autolog(disable=True)
    assert not LIBRARY.on
    mlcli.autolog(log_models=True, exclude_flavors=["sklearn"])
    assert not LIBRARY.on
    mlcli.autolog(exclusive=True)
    assert LIBRARY.settings.exclusive
    mlcli.autolog(disable=True)
    with pytest.raises(InvalidInput, match="keras"):
        mlcli.autolog(exclude_flavors=["keras"])


def test_an_old_version_is_tried_and_said_or_left_alone(monkeypatch, capfd) -> None:
    monkeypatch.setattr(sklearn, "__version__", "0.24.2")
    mlcli.sklearn.autolog(log_models=False)
    LinearRegression().fit(*NUMBERS)
    assert len(runs()) == 1
    assert capfd.readouterr().err.startswith("mlcli: autolog: sklearn 0.24.2 is older than 1.0")
    mlcli.sklearn.autolog(disable=True)
    mlcli.sklearn.autolog(disable_for_unsupported_versions=True)
    LinearRegression().fit(*NUMBERS)
    assert len(runs()) == 1


def test_where_no_run_can_be_started_the_inner_trainings_do_not_ask_again(lean, monkeypatch) -> None:
    asked = []

    def refuse(**_: Any) -> Any:
        asked.append(1)
        raise OSError("no")

    monkeypatch.setattr("mlcli.fluent.start_run", refuse)
    GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(*NUMBERS)
    assert asked == [1]


def test_a_run_that_the_training_itself_left_open_ends_with_it(lean) -> None:
    class Careless(Ridge):
        def predict(self, X: Any) -> Any:  # noqa: N803
            if len(mlcli.active_run().data.tags) and len(runs()) == 1:
                mlcli.start_run(nested=True)
            return super().predict(X)

    Careless().fit(*NUMBERS)
    assert mlcli.active_run() is None
    assert [run.info.status for run in runs()] == ["FINISHED", "FINISHED"]


def test_an_interrupted_training_is_killed(lean) -> None:
    class Interrupted(BaseEstimator):
        def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_pipeline(Interrupted()).fit(*NUMBERS)
    assert one().info.status == "KILLED"


def test_a_param_that_cannot_be_printed_is_its_type_and_one_that_is_too_long_is_cut() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise ValueError

    with mlcli.start_run() as run:
        session.log_params(run, {"a": Unprintable(), "b": "x" * 7000, "c": 1})
    params = one().data.params
    assert (params["a"], params["c"]) == ("<Unprintable>", "1")
    assert params["b"] == "x" * 5997 + "..."
