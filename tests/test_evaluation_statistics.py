"""Known answers and simulations of the statistics; beside each simulation, the method that fails in the same harness."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy.stats import binom, bootstrap
from seeds import each_seed, games
from sklearn.datasets import load_breast_cancer, load_wine, make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mlcli.evaluation import statistics as st

# Efron & Tibshirani 1993: spatial test data A, and the fifteen law schools.
SPATIAL = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]
LSAT = [576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594]
GPA = [3.39, 3.30, 2.81, 3.03, 3.44, 3.07, 3.00, 3.43, 3.36, 3.13, 3.12, 2.74, 2.76, 2.88, 2.96]


def scaled_regression():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(st).failed == 0


# -- shares


@pytest.mark.parametrize(
    ("successes", "n", "wilson", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0, 0.1611), (0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
        (20, 20, (1 - 0.1611, 1), (1 - 0.1684, 1)),
    ],
)
def test_intervals_of_a_share_are_the_published_ones(successes, n, wilson, exact):
    assert st.wilson(successes, n)[:2] == pytest.approx(wilson, abs=5e-5)
    assert st.clopper_pearson(successes, n)[:2] == pytest.approx(exact, abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "bounds"), [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090))]
)
def test_the_interval_of_a_difference_of_shares_is_newcombes(counts, bounds):
    assert st.newcombe(*counts)[:2] == pytest.approx(bounds, abs=5e-5)


def test_the_interval_of_a_paired_difference_is_newcombes():
    assert st.newcombe_paired(36, 12, 2, 0)[:2] == pytest.approx((0.0569, 0.3404), abs=5e-5)


def least_of(share: float, reps: int) -> float:
    """The smallest share that chance gives at a true one, in 99.9 % of the cases."""
    return float(binom.ppf(0.0005, reps, share)) / reps


def covered(n: int, p: float, interval) -> float:
    """The exact probability that the interval holds the truth: a sum over all that can be seen, no simulation."""
    seen = [k for k in range(n + 1) if interval(k, n)[0] <= p <= interval(k, n)[1]]
    return float(binom.pmf(seen, n, p).sum())


def wald(k: int, n: int):
    half = 1.959963984540054 * math.sqrt(k / n * (1 - k / n) / n)
    return k / n - half, k / n + half


@pytest.mark.parametrize(
    ("n", "p", "wilson", "naive"),
    [(100, 0.9, 0.936398, 0.932416), (50, 0.95, 0.962224, 0.919867), (143, 0.958, 0.944907, 0.934531)],
)
def test_wilson_covers_what_it_says_where_the_normal_interval_does_not(n, p, wilson, naive, measured):
    found = [covered(n, p, st.wilson), covered(n, p, wald)]
    measured("coverage, of the normal interval", found)
    assert found == pytest.approx([wilson, naive], abs=1e-6)
    assert covered(n, p, st.clopper_pearson) >= 0.95


# -- the same rows


@pytest.mark.parametrize(
    ("b", "c", "corrected", "plain", "exact"),
    [
        (86, 150, (16.81779661, 4.115e-05), (17.3559, 3.0993e-05), 3.715936e-05),
        (6, 16, (None, 0.0550088), None, 0.0524788),
        (25, 15, (None, 0.1547289), None, 0.1538599),
        (11, 1, None, None, 0.0063477),
        (10, 2, None, None, 0.03857421875),
    ],
)
def test_mcnemar_gives_the_published_answers(b, c, corrected, plain, exact):
    for known, options in ((corrected, {}), (plain, {"corrected": False})):
        if known:
            found = st.mcnemar(b, c, exact=False, **options)
            assert found.p_value == pytest.approx(known[1], rel=5e-4)
            assert known[0] is None or found.statistic == pytest.approx(known[0], rel=1e-5)
    assert st.mcnemar(b, c, exact=True).p_value == pytest.approx(exact, rel=1e-5)


def test_mcnemar_is_exact_below_25_discordant_rows_and_sure_of_nothing_without_any():
    assert st.mcnemar(9, 15).exact
    assert not st.mcnemar(9, 16).exact
    assert st.mcnemar(0, 0).p_value == 1.0


@pytest.fixture(scope="module")
def cancer_split():
    data, target = load_breast_cancer(return_X_y=True)
    parts = train_test_split(data, target, test_size=0.25, random_state=0, stratify=target)
    train, test, y_train, y_test = parts
    linear = scaled_regression().fit(train, y_train)
    tree = DecisionTreeClassifier(random_state=0).fit(train, y_train)
    return test, y_test, linear, tree


def test_delong_and_mcnemar_of_two_models_on_one_split_are_the_known_ones(cancer_split):
    test, y, linear, tree = cancer_split
    found = st.delong_comparison(y, linear.predict_proba(test)[:, 1], tree.predict_proba(test)[:, 1])
    assert found.statistic == pytest.approx(3.816716920, rel=5e-3)
    assert found.p_value == pytest.approx(1.352392e-04, rel=2e-2)
    found = st.mcnemar_comparison(linear.predict(test) == y, tree.predict(test) == y)
    assert found.p_value == pytest.approx(0.03857421875)
    assert (found.note, found.test) == ("only this one right: 10, only the baseline right: 2", "mcnemar, exact")
    assert st.wilson(137, 143)[:2] == pytest.approx((0.911488, 0.980631), abs=1e-6)


def test_delongs_variance_is_that_of_the_placements_written_out():
    """The midranks are a short cut; the definition is a sum over all pairs."""
    generator = np.random.default_rng(3)
    y = generator.integers(0, 2, 60).astype(bool)
    scores = [np.round(generator.normal(size=60) + y, 1) for _ in range(2)]  # with ties
    pairs = [(s[y][:, None] > s[~y]) + 0.5 * (s[y][:, None] == s[~y]) for s in scores]
    v10, v01 = np.array([p.mean(axis=1) for p in pairs]), np.array([p.mean(axis=0) for p in pairs])
    expected = np.cov(v10) / y.sum() + np.cov(v01) / (~y).sum()
    aucs, covariance = st.delong(y, scores)
    assert aucs == pytest.approx([p.mean() for p in pairs])
    assert covariance == pytest.approx(expected)


def test_an_auc_of_one_is_not_taken_for_certain():
    found = st.delong_interval([0] * 10 + [1] * 30, np.arange(40))
    assert found.high == 1
    assert found.low == pytest.approx(st.wilson(10, 10).low)


# -- folds


@pytest.fixture(scope="module")
def moons():
    """The grid search of scikit-learn's own example on comparing models: its fold scores by kernel."""
    data, target = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    grid = [{"kernel": ["linear"]}, {"kernel": ["poly"], "degree": [2, 3]}, {"kernel": ["rbf"]}]
    search = GridSearchCV(SVC(random_state=0), grid, scoring="roc_auc", cv=folds).fit(data, target)
    results = search.cv_results_
    names = ["linear", "2_poly", "3_poly", "rbf"]
    return {
        name: np.array([results[f"split{fold}_test_score"][place] for fold in range(100)])
        for place, name in enumerate(names)
    }


def test_the_corrected_t_test_is_that_of_scikit_learns_example(moons):
    found = st.nadeau_bengio(moons["rbf"] - moons["linear"], 10 / 90)
    assert found.statistic == pytest.approx(0.7503126954, abs=5e-3)
    assert found.p_value / 2 == pytest.approx(0.2274229710, abs=5e-3)
    assert 1 - found.p_value / 2 == pytest.approx(
        0.7725770290, abs=5e-3
    )  # the example's probability that rbf is better
    known = {("rbf", "3_poly"): (1.657, 0.050), ("linear", "3_poly"): (1.111, 0.135), ("rbf", "2_poly"): (4.565, 0.0)}
    known |= {("linear", "2_poly"): (4.276, 0.0), ("3_poly", "2_poly"): (3.851, 0.0)}
    for (one, other), (t, p) in known.items():
        found = st.nadeau_bengio(moons[one] - moons[other], 10 / 90)
        assert found.statistic == pytest.approx(t, abs=5e-3)
        assert found.p_value / 2 == pytest.approx(p, abs=1e-3)


def test_without_the_correction_the_same_folds_would_call_it_significant(moons):
    plain = st.nadeau_bengio(moons["rbf"] - moons["linear"], 0.0)
    assert plain.statistic == pytest.approx(2.6111648393, abs=1e-2)
    assert plain.p_value / 2 == pytest.approx(0.0052130132, abs=5e-4)


@pytest.mark.slow
def test_the_corrected_t_test_of_breast_cancer_is_the_known_one():
    data, target = load_breast_cancer(return_X_y=True)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    scores = [
        cross_val_score(model, data, target, cv=folds)
        for model in (scaled_regression(), DecisionTreeClassifier(random_state=0))
    ]
    found = st.nadeau_bengio(scores[0] - scores[1], 1 / 9)
    assert found.difference == pytest.approx(0.057515664, abs=5e-4)
    assert found.statistic == pytest.approx(4.645868412, abs=5e-2)


def test_the_5x2cv_tests_of_wine_are_the_known_ones():
    data, target = load_wine(return_X_y=True)
    generator = np.random.RandomState(1)
    models = scaled_regression(), DecisionTreeClassifier(random_state=0)
    rows = []
    for _ in range(5):
        seed = generator.randint(low=0, high=32767)
        halves = train_test_split(data, target, test_size=0.5, random_state=seed)
        both = [(halves[0], halves[2], halves[1], halves[3]), (halves[1], halves[3], halves[0], halves[2])]
        rows.append([np.subtract(*(model.fit(x, y).score(u, v) for model in models)) for x, y, u, v in both])
    t, f = st.five_by_two_t(rows), st.five_by_two_f(rows)
    assert (t.statistic, t.p_value) == pytest.approx((2.1718612138, 0.0819502763), rel=5e-3)
    assert (f.statistic, f.p_value) == pytest.approx((8.5094339623, 0.0144929880), rel=5e-3)


def type_one(repetitions: int, seed: int = 0) -> tuple[float, float]:
    """How often two learners of equal merit are called different by ten times tenfold cross-validation of 100 rows, by the
    corrected test and by the plain one.

    Each sees one half of the inputs, and the halves have one distribution: over many data sets neither is better.
    """
    generator = np.random.default_rng(seed)
    folds, n, found = 10, 100, np.zeros(2)
    for _ in range(repetitions):
        data, truth = generator.normal(size=(n, 10)), generator.integers(0, 2, n)
        data[:, 0] += truth
        data[:, 5] += truth
        differences = []
        for _repeat in range(10):
            order = generator.permutation(n)
            for test in np.array_split(order, folds):
                train = np.setdiff1d(order, test)
                differences.append(
                    np.subtract(*(nearest(data[:, half], truth, train, test) for half in (slice(5), slice(5, 10))))
                )
        found += [st.nadeau_bengio(differences, share).p_value < 0.05 for share in (1 / 9, 0.0)]
    return tuple(found / repetitions)


def nearest(data, truth, train, test) -> float:
    """The accuracy of the nearest class mean."""
    means = [data[train][truth[train] == label].mean(axis=0) for label in (0, 1)]
    away = [((data[test] - mean) ** 2).sum(axis=1) for mean in means]
    return float(((away[1] < away[0]) == truth[test]).mean())


@games(60, 400)
def test_the_corrected_t_test_holds_its_level_and_the_plain_one_does_not(reps, seed, measured):
    corrected, plain = type_one(reps, seed)
    measured("false alarms of the corrected test, of the plain one", [corrected, plain])
    assert binom.ppf(0.0005, reps, 0.02) <= corrected * reps <= binom.ppf(0.9995, reps, 0.08)
    assert plain * reps >= min(0.35 * reps, binom.ppf(0.0005, reps, 0.54))


@pytest.mark.parametrize("folds", [[0.5, 0.5], [0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6]])
def test_folds_that_all_differ_by_the_same_prove_nothing(folds):
    found = st.nadeau_bengio(folds, 0.25)
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)
    assert st.nadeau_bengio([0.0, 0.0, 0.0], 0.25).p_value == 1
    assert math.isnan(st.fold_interval([1.0, 1.0, 1.0], 0.25).low)


def test_the_last_digits_of_folds_are_no_spread_to_a_5x2cv_test():
    rows = [[0.9 - 0.8, 0.8 - 0.7]] * 5
    assert st.five_by_two_t(rows).p_value == st.five_by_two_f(rows).p_value == 1


def test_one_row_of_a_class_makes_no_difference_of_aucs():
    generator = np.random.default_rng(4)
    truth = [1] + [0] * 50
    found = st.delong_comparison(truth, np.r_[99, generator.normal(size=50)], generator.normal(size=51))
    assert math.isnan(found.p_value)
    assert st.delong_interval(truth, generator.normal(size=51)).method == "wilson on the smaller class"


@pytest.mark.parametrize("few", [2, 12])
@each_seed
def test_few_rows_of_a_class_make_no_aucs_differ_which_a_normal_would(few, seed, measured):
    generator, reps = np.random.default_rng(seed), 200
    truth, found = np.r_[np.ones(few), np.zeros(50)], np.zeros(2)
    for _ in range(reps):
        one = st.delong_comparison(truth, *generator.normal(size=(2, few + 50)))
        found += one.p_value < 0.05, abs(one.statistic) > 1.959964
    measured("false alarms, of a normal", found / reps)
    assert found[0] <= binom.ppf(0.9995, reps, 0.05)
    assert few > 2 or found[1] / reps >= least_of(0.2, reps)


@pytest.mark.parametrize("rows", [2, 5])
@each_seed
def test_a_paired_bootstrap_of_few_rows_holds_its_level_where_plain_percentiles_do_not(rows, seed, measured):
    generator, reps = np.random.default_rng(seed), 200
    found = np.zeros(2)
    for _ in range(reps):
        data = generator.normal(size=rows)
        replicates = data[generator.integers(0, rows, (500, rows))].mean(axis=1)
        left_out = (data.sum() - data) / (rows - 1)
        plain = st.percentile(replicates)
        found += st.paired_bootstrap(data.mean(), replicates, left_out).p_value < 0.05, not plain.low <= 0 <= plain.high
    measured("false alarms, of plain percentiles", found / reps)
    assert found[0] <= binom.ppf(0.9995, reps, 0.05)
    assert found[1] / reps >= least_of(0.15, reps)


# -- bootstrap


def spread(values, axis=-1):
    return np.var(values, axis=axis)


def jackknifed(statistic, *columns):
    n = len(columns[0])
    return [statistic(*(np.delete(np.asarray(column, float), row) for column in columns)) for row in range(n)]


def test_the_acceleration_of_the_spatial_data_is_the_books():
    assert np.var(SPATIAL) == pytest.approx(171.5340, abs=1e-4)
    assert st.acceleration(jackknifed(spread, SPATIAL)) == pytest.approx(0.06124011981230745, rel=1e-12)


def test_the_bca_interval_of_the_spatial_data_is_the_books():
    generator = np.random.default_rng(0)
    data = np.array(SPATIAL, float)
    replicates = np.concatenate([data[generator.integers(0, 26, (10_000, 26))].var(axis=1) for _ in range(10)])
    low, high, method = st.bca(data.var(), replicates, jackknifed(spread, SPATIAL), 0.9)
    assert method == "bca"
    assert 114.5 <= low <= 118
    assert 257.5 <= high <= 263


def test_the_bca_interval_of_the_law_schools_is_efrons():
    pairs = np.array([LSAT, GPA], float)
    r = np.corrcoef(pairs)[0, 1]
    left_out = [np.corrcoef(np.delete(pairs, row, axis=1))[0, 1] for row in range(15)]
    assert r == pytest.approx(0.776374491289407)
    assert st.acceleration(left_out) == pytest.approx(-0.07567156493787919)
    generator = np.random.default_rng(1)
    drawn = pairs[:, generator.integers(0, 15, (40_000, 15))]
    away = drawn - drawn.mean(axis=2, keepdims=True)
    replicates = (away[0] * away[1]).sum(axis=1) / np.sqrt((away**2).sum(axis=2).prod(axis=0))
    assert st.bca(r, replicates, left_out, 0.9)[:2] == pytest.approx((0.4297, 0.9269), abs=0.01)


def test_bca_is_what_scipy_gives_from_the_same_replicates():
    data = np.random.default_rng(2).exponential(size=30)
    known = bootstrap((data,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(5))
    found = st.bca(data.mean(), known.bootstrap_distribution, jackknifed(np.mean, data))
    assert found[:2] == pytest.approx(tuple(known.confidence_interval), rel=1e-9)


def test_bca_falls_back_to_percentiles_where_all_replicates_are_on_one_side():
    assert st.bca(1.0, [0.5, 0.6, 0.7], [1, 1, 1]).method == "percentile"


def exponential_coverage(samples: int, size: int, seed: int = 0) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    hits = np.zeros(2)
    for _ in range(samples):
        data = generator.exponential(size=20)
        replicates = data[generator.integers(0, 20, (size, 20))].mean(axis=1)
        left_out = (data.sum() - data) / 19
        for place, found in enumerate((st.bca(data.mean(), replicates, left_out), st.percentile(replicates))):
            hits[place] += found.low <= 1 <= found.high
    return tuple(hits / samples)


@games(400, 2_000)
def test_with_twenty_skewed_rows_bca_covers_less_than_it_says_which_is_why_reports_call_it_approximate(
    reps, seed, measured
):
    better, plain = exponential_coverage(reps, 1000, seed)
    measured("coverage of BCa, of percentiles, at .95", [better, plain])
    assert binom.ppf(0.0005, reps, 0.9) <= better * reps <= binom.ppf(0.9995, reps, 0.92)  # a nominal .95 it is not
    assert plain * reps <= binom.ppf(0.9995, reps, 0.915)


def test_resamples_keep_the_number_of_rows_and_whole_groups():
    generator = np.random.default_rng(0)
    assert set(st.draw_counts(generator, 7, 50).sum(axis=1)) == {7}
    drawn = st.draw_counts(generator, 6, 50, groups=list("aabbbc"))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 2] == drawn[:, 4]).all()
    assert len(set(drawn.sum(axis=1))) > 1


def test_the_paired_bootstrap_tells_a_real_difference_from_none():
    generator = np.random.default_rng(0)
    counts = st.draw_counts(generator, 200, 1000)

    def compare(differences):
        left_out = (differences.sum() - differences) / 199
        return st.paired_bootstrap(differences.mean(), counts @ differences / 200, left_out)

    noise = generator.normal(size=200)
    assert compare(noise - noise.mean()).p_value > 0.5
    assert compare(noise + 1).p_value == pytest.approx(2 / 1001, rel=0.2)  # Student's t, 200 rows


# -- refits


def one_nearest(n: int, refits: int, seed: int):
    """1-NN on labels that its inputs say nothing about: apparent error 0, truth 0.5.

    Beside it the mean error of the refits on all rows, which some take for the apparent one.
    """
    generator = np.random.default_rng(seed)
    data, y = generator.normal(size=(n, 5)), np.arange(n) % 2
    apart = ((data[:, None] - data) ** 2).sum(axis=2)
    drawn = generator.integers(0, n, (refits, n))
    losses = np.array([y[rows][apart[:, rows].argmin(axis=1)] != y for rows in drawn], float)
    outside = np.array([np.isin(np.arange(n), rows, invert=True) for rows in drawn])
    return st.point_six_three_two(0.0, st.out_of_bag_error(losses, outside), 0.5), losses.mean()


@each_seed
@pytest.mark.parametrize(("n", "times", "plain", "plus"), [(20, 200, 0.333, 0.494), (200, 20, 0.3052, 0.4734)])
def test_632_is_fooled_by_a_model_that_learns_by_heart_and_632_plus_is_not(n, times, plain, plus, seed, measured):
    found = [one_nearest(n, 50, 1_000 * seed + number) for number in range(times)]
    means = [np.mean([one.point_632 for one, _ in found]), np.mean([one.point_632_plus for one, _ in found])]
    measured(".632, .632+, where the truth is .5", means)
    assert means[0] == pytest.approx(plain, abs=0.03)
    assert means[1] == pytest.approx(plus, abs=0.055)
    assert all(one.point_632 == pytest.approx(0.632 * one.out_of_bag) for one, _ in found)


def test_632_of_the_error_of_refits_on_all_rows_is_another_number():
    """A known mistake: it takes the refits' error on all rows for the apparent error, and comes out too high."""
    found = [one_nearest(200, 50, seed) for seed in range(10)]
    assert np.mean([one.point_632 for one, _ in found]) == pytest.approx(0.31, abs=0.02)
    assert np.mean([0.368 * wrong + 0.632 * one.out_of_bag for one, wrong in found]) == pytest.approx(0.38, abs=0.02)


def test_632_plus_is_632_where_nothing_is_overfitted():
    found = st.point_six_three_two(0.2, 0.2, 0.5)
    assert (found.overfitting, found.point_632_plus) == (0.0, pytest.approx(0.2))


def test_an_out_of_bag_error_counts_each_row_once_however_often_it_was_left_out():
    losses, outside = [[1.0, 0.0], [1.0, 9.0], [0.0, 9.0]], [[1, 1], [1, 0], [0, 0]]
    assert st.out_of_bag_error(losses, outside) == pytest.approx(0.5)


# -- several, calibration, power


def test_holm_raises_p_values_in_their_order():
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert st.holm([0.9, 0.8]) == [1.0, 1.0]


def test_calibration_tells_honest_probabilities_from_boasting_ones():
    generator = np.random.default_rng(0)
    told = generator.uniform(size=4000)
    truth = generator.uniform(size=4000) < told
    honest = st.expected_calibration_error(st.reliability(truth, told))
    boasting = st.expected_calibration_error(st.reliability(truth, np.where(told > 0.5, 0.99, 0.01)))
    assert honest < 0.03
    assert boasting > 0.2
    assert sum(step.rows for step in st.reliability(truth, told)) == 4000


def test_power_and_sizes_are_those_of_r():
    assert st.proportion_power(50, 0.5, 0.75) == pytest.approx(0.740166, abs=1e-6)
    assert st.proportion_size(0.5, 0.75, 0.9) == pytest.approx(76.7069, abs=1e-4)
    assert st.proportion_size(0.2, 0.25) == pytest.approx(1093.739, abs=1e-3)
    assert st.proportion_size(0.1, 0.11) == pytest.approx(14750.79, abs=1e-2)
    assert st.t_power(20, 1) == pytest.approx(0.868953, abs=1e-6)
    assert st.t_size(1, power=0.9) == pytest.approx(22.02109, abs=1e-5)
