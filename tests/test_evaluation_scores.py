"""Scores against scikit-learn's and MLflow's, on weights as on rows; curves; intervals; comparisons on the same rows."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlcli.errors import InvalidInput
from mlcli.evaluation import scores
from mlcli.evaluation.scores import Resampling

# Refits move in their last digits from one version of scikit-learn to the next.
TOLERANCE = 1e-6 if sklearn.__version__.startswith("1.9.") else 5e-3


def drawn(classes: int, n: int = 80, seed: int = 0, *, ties: bool = True):
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), generator.integers(0, classes, n - classes)])
    told = generator.dirichlet(np.ones(classes), n) + np.eye(classes)[truth] * generator.uniform(0, 1, (n, 1))
    told = np.round(told, 1) + 0.01 if ties else told
    told /= told.sum(axis=1, keepdims=True)
    return scores.of_classes(truth, told.argmax(axis=1), told, range(classes))


def of_sklearn(a, weights):
    binary = len(a.classes) == 2
    average = "binary" if binary else "weighted"
    options = {"average": average, "zero_division": 0, "sample_weight": weights}
    found = {
        "accuracy_score": sk.accuracy_score(a.truth, a.predicted, sample_weight=weights),
        "recall_score": sk.recall_score(a.truth, a.predicted, **options),
        "precision_score": sk.precision_score(a.truth, a.predicted, **options),
        "f1_score": sk.f1_score(a.truth, a.predicted, **options),
        "log_loss": sk.log_loss(a.truth, a.probability, sample_weight=weights),
    }
    if binary:
        score = a.probability[:, 1]
        found["roc_auc"] = sk.roc_auc_score(a.truth, score, sample_weight=weights)
        found["precision_recall_auc"] = sk.average_precision_score(a.truth, score, sample_weight=weights)
        found["brier_score"] = sk.brier_score_loss(a.truth, score, sample_weight=weights)
    else:
        found["roc_auc"] = sk.roc_auc_score(
            a.truth, a.probability, multi_class="ovr", average="weighted", sample_weight=weights
        )
    return found


@settings(max_examples=25, deadline=None)
@given(classes=some.sampled_from([2, 3, 5]), seed=some.integers(0, 10_000), ties=some.booleans())
def test_scores_of_classes_are_scikit_learns_under_any_weights(classes, seed, ties):
    answers = drawn(classes, seed=seed, ties=ties)
    weights = np.random.default_rng(seed).integers(0, 3, len(answers.truth)).astype(float)
    weights[:classes] += 1  # each class is there
    known = of_sklearn(answers, weights)
    found = scores.weighted(answers, weights[None], list(known))
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(known, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=some.integers(0, 10_000))
def test_scores_of_numbers_are_scikit_learns_under_any_weights(seed):
    generator = np.random.default_rng(seed)
    truth = generator.normal(100, 5, 40)
    answers = scores.of_numbers(truth, truth + generator.normal(size=40))
    weights = generator.integers(0, 3, 40).astype(float)
    weights[:2] = 1
    known = {
        name: getattr(sk, name)(answers.truth, answers.predicted, sample_weight=weights)
        for name in ("mean_absolute_error", "mean_squared_error", "r2_score", "mean_absolute_percentage_error")
    }
    kept = weights > 0
    known["max_error"] = sk.max_error(answers.truth[kept], answers.predicted[kept])
    found = scores.weighted(answers, weights[None], scores.names(answers))
    for name, value in known.items():
        assert found[name][0] == pytest.approx(value, rel=1e-9), name


def test_a_weighting_by_counts_is_the_score_of_the_repeated_rows():
    answers = drawn(2, seed=4)
    counts = np.random.default_rng(1).integers(0, 3, len(answers.truth))
    rows = np.repeat(np.arange(len(counts)), counts)
    wanted = [name for name in scores.names(answers) if name != "expected_calibration_error"]  # whose bins are fixed
    many = scores.weighted(answers, counts[None].astype(float), wanted)
    once = scores.score(answers.take(rows), wanted)
    assert {name: float(value[0]) for name, value in many.items()} == pytest.approx(once)


def fitted(load, model, **options):
    data, target = load(return_X_y=True)
    train, test, y_train, y_test = train_test_split(data, target, test_size=0.25, random_state=0, **options)
    return model.fit(train, y_train), test, y_test


def classified(load):
    target = load(return_X_y=True)[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model, test, truth = fitted(load, model, stratify=target)
    return scores.of_classes(truth, model.predict(test), model.predict_proba(test), model.classes_)


@pytest.fixture(scope="module")
def cancer():
    return classified(load_breast_cancer)


def test_breast_cancer_has_mlflows_numbers(cancer):
    found = scores.score(cancer)
    known = {
        "accuracy_score": 0.958041958041958,
        "f1_score": 0.9666666666666667,
        "roc_auc": 0.9951781970649896,
        "precision_recall_auc": 0.9971317270472638,
        "log_loss": 0.0857951510196059,
        "true_positives": 87,
        "true_negatives": 50,
        "false_positives": 3,
        "false_negatives": 3,
        "example_count": 143,
    }
    assert {name: found[name] for name in known} == pytest.approx(known, abs=TOLERANCE)
    assert found["accuracy_score"] == pytest.approx(137 / 143)


def test_iris_has_mlflows_numbers():
    found = scores.score(classified(load_iris))
    known = {"accuracy_score": 0.9736842105, "f1_score": 0.9735994576, "log_loss": 0.1517781237, "roc_auc": 1.0}
    assert {name: found[name] for name in known} == pytest.approx(known, abs=TOLERANCE)
    assert "precision_recall_auc" not in found


def test_diabetes_has_mlflows_numbers():
    model, test, truth = fitted(load_diabetes, LinearRegression())
    found = scores.score(scores.of_numbers(truth, model.predict(test)))
    known = {
        "r2_score": 0.3594088038,
        "root_mean_squared_error": 56.3929042359,
        "mean_absolute_error": 45.1205630744,
        "max_error": 162.4418287167,
        "mean_absolute_percentage_error": 0.3796102422,
        "example_count": 111,
    }
    assert {name: found[name] for name in known} == pytest.approx(known, rel=1e-6)


def test_answers_without_probabilities_have_no_loss_and_answers_with_margins_have_an_auc():
    truth = np.array(["no", "yes", "yes", "no"])
    bare = scores.score(scores.of_classes(truth, truth))
    assert not {"log_loss", "roc_auc", "brier_score"} & {*bare}
    ranked = scores.score(scores.of_classes(truth, truth, margin=np.array([-1.0, 2.0, 1.0, 0.0])))
    assert ranked["roc_auc"] == 1.0
    assert "log_loss" not in ranked


def test_a_class_that_training_never_saw_costs_no_more_than_the_least_probability():
    answers = scores.of_classes([0, 1, 2], [0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [0, 1])
    assert answers.classes == (0, 1, 2)
    assert np.isfinite(scores.score(answers)["log_loss"])


def test_joined_folds_count_every_row_though_they_know_different_classes():
    parts = [
        scores.of_classes([0, 1], [0, 1], [[0.9, 0.1], [0.2, 0.8]], [0, 1]),
        scores.of_classes([0, 2], [0, 2], [[0.7, 0.3], [0.4, 0.6]], [0, 2]),
    ]
    whole = scores.joined(parts)
    assert whole.classes == (0, 1, 2)
    assert whole.probability.tolist() == [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0, 0.3], [0.4, 0, 0.6]]


def test_intervals_are_by_the_method_that_fits_the_score(cancer):
    found = scores.intervals(cancer, scores.score(cancer), resampling=Resampling(size=500))
    assert found["accuracy_score"][:2] == pytest.approx((0.911488, 0.980631), abs=1e-6)
    methods = {name: bounds.method for name, bounds in found.items()}
    assert methods["roc_auc"] == "delong"
    assert methods["recall_score"] == "wilson"
    assert methods["f1_score"] == methods["log_loss"] == "bca"
    assert "true_positives" not in methods
    values = scores.score(cancer)
    assert all(bounds.low <= values[name] <= bounds.high for name, bounds in found.items())


def test_a_calibration_error_has_no_interval_because_resamples_of_an_honest_model_look_less_honest():
    """Probabilities that are the truth have a calibration error of 0, and no bootstrap says so."""
    misses = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        told = generator.uniform(0.05, 0.95, 300)
        truth = (generator.uniform(size=300) < told).astype(int)
        answers = scores.of_classes(truth, told > 0.5, np.column_stack([1 - told, told]), [0, 1])
        name = "expected_calibration_error"
        assert name not in scores.intervals(answers, scores.score(answers, [name]))
        assert name not in scores.compare(answers, answers, [name])
        replicates, _ = scores.resampled([answers], [name], Resampling(size=200))
        misses += np.percentile(replicates[0][name], 2.5) > 0.02
    assert misses >= 18


def test_rows_in_groups_have_wider_intervals_than_rows_on_their_own():
    """Ten copies of forty rows are forty rows."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 40).repeat(10)
    said = np.where(generator.uniform(size=40) < 0.7, truth[::10], 1 - truth[::10]).repeat(10)
    answers = scores.of_classes(truth, said)
    values = {"accuracy_score": scores.score(answers)["accuracy_score"]}
    alone = scores.intervals(answers, values)["accuracy_score"]
    groups = np.arange(40).repeat(10)
    together = scores.intervals(answers, values, resampling=Resampling(groups=groups))["accuracy_score"]
    assert together.method == "bca"
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_bootstrap_takes_functions_of_ones_own():
    answers = drawn(3, seed=2)
    custom = {"cohen_kappa_score": scores.resolve("cohen_kappa_score")}
    values = scores.score(answers, [], custom)
    assert values["cohen_kappa_score"] == pytest.approx(sk.cohen_kappa_score(answers.truth, answers.predicted))
    bounds = scores.intervals(answers, values, custom=custom)["cohen_kappa_score"]
    assert bounds.low < values["cohen_kappa_score"] < bounds.high


def test_a_metric_that_nobody_knows_is_refused_with_the_nearest_name():
    with pytest.raises(InvalidInput, match="no metric 'acuracy_score'") as failure:
        scores.resolve("acuracy_score")
    assert "accuracy_score" in failure.value.hint
    with pytest.raises(InvalidInput):
        scores.resolve("get_scorer")


def test_comparisons_on_the_same_rows_use_the_paired_tests(cancer):
    worse = cancer._replace(probability=cancer.probability[:, ::-1], predicted=1 - cancer.predicted)
    found = scores.compare(cancer, worse, ["accuracy_score", "roc_auc", "log_loss"], resampling=Resampling(size=300))
    assert [one.test for one in found.values()] == ["mcnemar, chi-square", "delong", "paired bootstrap"]
    assert all(one.p_value < 0.01 for one in found.values())
    same = scores.compare(cancer, cancer, ["accuracy_score", "roc_auc", "log_loss"], resampling=Resampling(size=300))
    assert {one.p_value for one in same.values()} == {1.0}


def test_a_perfect_ranking_beats_none_though_neither_has_a_variance():
    truth = np.arange(40) % 2
    perfect = scores.of_classes(truth, truth, np.eye(2)[truth], [0, 1])
    none = scores.of_classes(truth, truth, np.full((40, 2), 0.5), [0, 1])
    found = scores.compare(perfect, none, ["roc_auc"])["roc_auc"]
    assert (found.test, found.difference) == ("paired bootstrap", 0.5)
    assert found.p_value < 0.005
    assert scores.compare(none, none, ["roc_auc"])["roc_auc"].p_value == 1


def test_curves_hold_the_points_of_mlflows_pictures(cancer):
    found = scores.curves(cancer)
    assert [*found] == [
        "confusion_matrix",
        "roc_curve_plot",
        "precision_recall_curve_plot",
        "lift_curve_plot",
        "calibration_curve_plot",
    ]
    assert found["confusion_matrix"].rows == [(0, 50, 3), (1, 3, 87)]
    roc = found["roc_curve_plot"].rows
    assert sk.auc([row[1] for row in roc], [row[2] for row in roc]) == pytest.approx(0.9951781970649896, abs=TOLERANCE)
    assert found["lift_curve_plot"].rows[-1] == (1.0, 1.0)
    assert sum(row[2] for row in found["calibration_curve_plot"].rows) == 143


def test_several_classes_have_a_curve_each_and_their_own_table():
    found = scores.curves(classified(load_iris))
    assert "lift_curve_plot" not in found
    assert {row[0] for row in found["roc_curve_plot"].rows} == {0, 1, 2}
    assert [row[:2] for row in found["per_class_metrics"].rows] == [(0, 13), (1, 13), (2, 12)]


def test_a_calibration_error_has_a_value_and_no_interval_that_might_miss_it():
    generator = np.random.default_rng(8)
    told = generator.random(100)
    truth = (generator.random(100) < told).astype(int)
    answers = scores.of_classes(truth, (told > 0.5).astype(int), np.c_[1 - told, told])
    values = scores.score(answers)
    assert "expected_calibration_error" in values
    assert "expected_calibration_error" not in scores.intervals(answers, values)
