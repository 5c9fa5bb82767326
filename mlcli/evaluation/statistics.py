"""Statistics of offline evaluation: intervals, paired tests, resampling estimates. Pure; what is random takes a generator.

what is asked                            function             who showed it
interval of a share                      wilson               Wilson 1927
                                         clopper_pearson      Clopper & Pearson 1934
interval of a difference of shares       newcombe             Newcombe 1998, independent samples, his method 10
                                         newcombe_paired      Newcombe 1998, the same rows, his method 10
interval of an AUC, difference of two    delong_*             DeLong, DeLong & Clarke-Pearson 1988
interval of anything, model fixed        percentile, bca      Efron 1987
two classifiers on the same rows         mcnemar              McNemar 1947
two learners on the same folds           nadeau_bengio        Nadeau & Bengio 2003
                                         five_by_two_t, _f    Dietterich 1998, Alpaydin 1999
error from refits on resamples           point_six_three_two  Efron & Tibshirani 1997
several comparisons at once              holm                 Holm 1979
"""

from __future__ import annotations

import math
from typing import Any, List, NamedTuple, Sequence, Tuple

BINS = 10  # of a reliability curve
FEW_DISCORDANT = 25  # below it McNemar's test is exact
FEW_OF_A_CLASS = 20  # below it the variance of an AUC is too uncertain to be taken for known
ROUNDING = 1e-9  # a spread that is smaller beside the values themselves comes of their last digits


class Interval(NamedTuple):
    """The bounds of a number, and the method that gave them."""

    low: float
    high: float
    method: str


class Comparison(NamedTuple):
    """A difference (candidate minus baseline), its interval, and how surprising it would be if there were none."""

    test: str
    difference: float
    low: float
    high: float
    statistic: float
    p_value: float
    note: str = ""


# -- shares


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """The interval of a share; honest also near 0 and 1, where the textbook's normal interval is not.

    >>> [round(bound, 4) for bound in wilson(81, 263)[:2]]
    [0.2553, 0.3662]
    """
    z = _z(level)
    share, square = successes / n, z * z / n
    middle = share + square / 2
    half = z * math.sqrt(share * (1 - share) / n + square / (4 * n))
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return Interval(0.0 if successes == 0 else low, 1.0 if successes == n else high, "wilson")


def clopper_pearson(successes: float, n: float, level: float = 0.95) -> Interval:
    """The interval of a share that covers at least ``level`` whatever the truth is; wider than Wilson's."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return Interval(low, high, "clopper-pearson")


def newcombe(successes: float, n: float, others: float, m: float, level: float = 0.95) -> Interval:
    """The interval of a difference of two shares from independent samples: ``successes/n - others/m``."""
    one, two = successes / n, others / m
    a, b = wilson(successes, n, level), wilson(others, m, level)
    low = one - two - math.hypot(one - a.low, b.high - two)
    high = one - two + math.hypot(a.high - one, two - b.low)
    return Interval(low, high, "newcombe")


def newcombe_paired(both: int, first: int, second: int, neither: int, level: float = 0.95) -> Interval:
    """The interval of a difference of two shares on the same rows: of those only the first and only the second has."""
    n = both + first + second + neither
    one, two = (both + first) / n, (both + second) / n
    a, b = wilson(both + first, n, level), wilson(both + second, n, level)
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    cross: float = both * neither - first * second
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / math.sqrt(product) if product else 0.0
    down, up = (one - a.low, b.high - two), (two - b.low, a.high - one)
    low = one - two - math.sqrt(down[0] ** 2 - 2 * phi * down[0] * down[1] + down[1] ** 2)
    high = one - two + math.sqrt(up[0] ** 2 - 2 * phi * up[0] * up[1] + up[1] ** 2)
    return Interval(low, high, "newcombe, paired")


class McNemar(NamedTuple):
    """``statistic`` is the chi-square, or, of the exact test, the smaller of the two counts."""

    statistic: float
    p_value: float
    exact: bool


def mcnemar(first: int, second: int, *, exact: bool | None = None, corrected: bool = True) -> McNemar:
    """Whether two classifiers err alike: of the rows that only the one and only the other has right.

    Exact below 25 such rows, otherwise by chi-square, with Edwards's correction unless told otherwise.
    """
    n = first + second
    if exact if exact is not None else n < FEW_DISCORDANT:
        from scipy.stats import binom

        least = min(first, second)
        return McNemar(float(least), min(1.0, 2 * float(binom.cdf(least, n, 0.5))) if n else 1.0, exact=True)
    from scipy.stats import chi2

    if not n:
        return McNemar(0.0, 1.0, exact=False)
    statistic = max(abs(first - second) - corrected, 0) ** 2 / n
    return McNemar(statistic, float(chi2.sf(statistic, 1)), exact=False)


def mcnemar_comparison(right: Any, baseline_right: Any, level: float = 0.95) -> Comparison:
    """McNemar's test of two columns of right and wrong answers, with the difference of the accuracies."""
    import numpy as np

    one, two = np.asarray(right, bool), np.asarray(baseline_right, bool)
    first, second = int((one & ~two).sum()), int((~one & two).sum())
    both, neither = int((one & two).sum()), int((~one & ~two).sum())
    found = mcnemar(first, second)
    bounds = newcombe_paired(both, first, second, neither, level)
    name = "mcnemar, exact" if found.exact else "mcnemar, chi-square"
    note = f"only this one right: {first}, only the baseline right: {second}"
    difference = (first - second) / len(one)
    return Comparison(name, difference, bounds.low, bounds.high, found.statistic, found.p_value, note)


# -- AUC


def delong(positive: Any, scores: Sequence[Any]) -> Tuple[Any, Any]:
    """The AUCs of several scores of the same rows, and their covariance."""
    import numpy as np

    positive = np.asarray(positive, bool)
    m, n = int(positive.sum()), int((~positive).sum())
    hits, misses = [], []
    for score in scores:
        values = np.asarray(score, float)
        ranks = _midranks(values)
        hits.append((ranks[positive] - _midranks(values[positive])) / n)
        misses.append(1 - (ranks[~positive] - _midranks(values[~positive])) / m)
    v10, v01 = np.array(hits), np.array(misses)
    k = len(scores)
    cov10 = np.cov(v10).reshape(k, k) / m if m > 1 else np.zeros((k, k))
    cov01 = np.cov(v01).reshape(k, k) / n if n > 1 else np.zeros((k, k))
    return v10.mean(axis=1), cov10 + cov01


def delong_interval(positive: Any, score: Any, level: float = 0.95) -> Interval:
    """The interval of an AUC, cut at 0 and 1.

    Where the classes are told apart without a fault the variance is 0, which is no certainty: then the interval is
    Wilson's of as many rows as the smaller class has; so it is where a class has one row, which shows no spread.
    """
    aucs, covariance = delong(positive, [score])
    auc, variance, smaller = float(aucs[0]), float(covariance[0, 0]), _smaller_class(positive)
    if variance <= 0 or smaller < 2:
        bounds = wilson(auc * smaller, smaller, level)
        return Interval(bounds.low, bounds.high, "wilson on the smaller class")
    half = _auc_quantile(level, smaller) * math.sqrt(variance)
    return Interval(max(auc - half, 0.0), min(auc + half, 1.0), "delong")


def delong_comparison(positive: Any, score: Any, baseline: Any, level: float = 0.95) -> Comparison:
    """The difference of two AUCs on the same rows.

    With few rows of a class by Student's t, with the freedom of the smaller class; with one row of a class by nothing.
    """
    from scipy.stats import t as student

    aucs, covariance = delong(positive, [score, baseline])
    difference = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-15:
        if abs(difference) < 1e-12:
            return Comparison("delong", difference, difference, difference, 0.0, 1.0, "the scores rank alike")
        return Comparison("delong", difference, math.nan, math.nan, math.nan, math.nan, "no variance to judge by")
    smaller = _smaller_class(positive)
    if smaller < 2:
        note = "one row of a class tells nothing of the spread"
        return Comparison("delong", difference, math.nan, math.nan, math.nan, math.nan, note)
    z, note = difference / math.sqrt(variance), ""
    half = _auc_quantile(level, smaller) * math.sqrt(variance)
    p_value = math.erfc(abs(z) / math.sqrt(2))
    if smaller < FEW_OF_A_CLASS:
        p_value, note = 2 * float(student.sf(abs(z), smaller - 1)), f"by Student's t: a class has {smaller} rows"
    return Comparison("delong", difference, difference - half, difference + half, z, p_value, note)


def _smaller_class(positive: Any) -> int:
    import numpy as np

    rows = int(np.asarray(positive, bool).sum())
    return min(rows, len(positive) - rows)


def _auc_quantile(level: float, smaller: int) -> float:
    from scipy.stats import t as student

    return _z(level) if smaller >= FEW_OF_A_CLASS else float(student.ppf((1 + level) / 2, smaller - 1))


def _midranks(values: Any) -> Any:
    from scipy.stats import rankdata

    return rankdata(values)


# -- bootstrap, the model being fixed


def percentile(replicates: Any, level: float = 0.95) -> Interval:
    import numpy as np

    found = np.asarray(replicates, float)
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(math.nan, math.nan, "percentile")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), "percentile")


def acceleration(jackknife: Any) -> float:
    """How fast the standard error changes with the value, from the estimates with one row left out.

    >>> round(acceleration([1.0, 2.0, 6.0]), 5)
    -0.05727
    """
    import numpy as np

    values = np.asarray(jackknife, float)
    away = values.mean() - values
    scale = float((away**2).sum()) ** 1.5
    return float((away**3).sum() / (6 * scale)) if scale > 0 else 0.0


def bca(estimate: float, replicates: Any, jackknife: Any, level: float = 0.95) -> Interval:
    """The bias-corrected and accelerated interval; the percentile one where the replicates cannot tell the bias."""
    import numpy as np
    from scipy.stats import norm

    found = np.asarray(replicates, float)
    found = found[np.isfinite(found)]
    below = (np.sum(found < estimate) + np.sum(found == estimate) / 2) / len(found) if len(found) else 0.0
    if not 0 < below < 1:
        return percentile(found, level)
    z0, a = float(norm.ppf(below)), acceleration(jackknife)
    sides = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = z0 + float(norm.ppf(tail))
        if a * z >= 1:
            return percentile(found, level)
        sides.append(float(norm.cdf(z0 + z / (1 - a * z))))
    low, high = np.quantile(found, sides)
    return Interval(float(low), float(high), "bca")


def draw_counts(generator: Any, n: int, size: int, groups: Any = None) -> Any:
    """How often each of ``n`` rows is in each of ``size`` resamples, one resample a line; whole groups with ``groups``."""
    import numpy as np

    if groups is not None:
        names, members = np.unique(np.asarray(groups), return_inverse=True)
        return draw_counts(generator, len(names), size)[:, members]
    drawn = generator.integers(0, n, (size, n), dtype=np.int32)
    return np.stack([np.bincount(line, minlength=n) for line in drawn]).astype(float)


def paired_bootstrap(difference: float, replicates: Any, jackknife: Any, level: float = 0.95) -> Comparison:
    """A difference on the same rows, from differences on resamples of them.

    The p-value inverts the percentile interval; with ``B`` resamples it is at least 1 / (B + 1). Resamples of few rows vary
    too little, so p-value and interval are widened as Student's t is beside the normal (Hesterberg 2015). The number of
    rows, or groups, is that of ``jackknife``.
    """
    import numpy as np
    from scipy.stats import norm
    from scipy.stats import t as student

    found = np.asarray(replicates, float)
    found = found[np.isfinite(found)]
    if not len(found):
        return Comparison(
            "paired bootstrap", difference, math.nan, math.nan, math.nan, 1.0, "no resample could be scored"
        )
    units = len(jackknife)
    if units < 2:
        note = "one row or group tells nothing of the spread"
        return Comparison("paired bootstrap", difference, math.nan, math.nan, difference, math.nan, note)
    shrunk = math.sqrt((units - 1) / units)
    wider = 1 - 2 * float(norm.sf(float(student.ppf((1 + level) / 2, units - 1)) / shrunk))
    bounds = bca(difference, found, jackknife, min(wider, 1 - ROUNDING))
    tail = min(np.sum(found <= 0), np.sum(found >= 0))
    p_value = min(1.0, 2 * (float(tail) + 1) / (len(found) + 1))
    p_value = 2 * float(student.sf(float(norm.isf(p_value / 2)) * shrunk, units - 1))
    return Comparison("paired bootstrap", difference, bounds.low, bounds.high, difference, p_value, bounds.method)


# -- folds


def nadeau_bengio(differences: Any, test_share: float, level: float = 0.95) -> Comparison:
    """The corrected resampled t test of differences on the same folds.

    ``test_share`` is the size of a test set over that of its training set. Folds share training rows, so the plain t
    test takes their scores for more independent than they are; the correction adds ``test_share`` to ``1 / J``.
    """
    import numpy as np
    from scipy.stats import t as student

    found = np.asarray(differences, float)
    count = len(found)
    mean, variance = float(found.mean()), float(found.var(ddof=1)) if count > 1 else math.nan
    error = math.sqrt(variance * (1 / count + test_share)) if count > 1 else math.nan
    name = "corrected resampled t"
    if count < 2:
        return Comparison(name, mean, math.nan, math.nan, math.nan, math.nan, "one fold tells nothing of the spread")
    if not found.any():
        return Comparison(name, 0.0, math.nan, math.nan, 0.0, 1.0, "no fold differs")
    if math.sqrt(variance) <= ROUNDING * float(np.abs(found).max()):
        note = "every fold differs by the same: no spread to judge by"
        return Comparison(name, mean, math.nan, math.nan, math.nan, math.nan, note)
    statistic = mean / error
    half = float(student.ppf((1 + level) / 2, count - 1)) * error
    p_value = 2 * float(student.sf(abs(statistic), count - 1))
    return Comparison(name, mean, mean - half, mean + half, statistic, p_value)


def fold_interval(scores: Any, test_share: float, level: float = 0.95) -> Interval:
    """An interval of the mean of fold scores with the same correction; approximate, since no unbiased one exists.

    NaN where all folds score the same: that is no certainty, there is nothing to judge by.
    """
    found = nadeau_bengio(scores, test_share, level)
    return Interval(found.low, found.high, "corrected resampled t, approximate")


def five_by_two_t(differences: Any) -> Comparison:
    """Dietterich's test of differences from five twofold cross-validations, one repeat a line."""
    from scipy.stats import t as student

    pairs = _five_pairs(differences)
    spread = float(((pairs - pairs.mean(axis=1, keepdims=True)) ** 2).sum())
    mean = float(pairs.mean())
    if math.sqrt(spread) <= ROUNDING * float(abs(pairs).max()):
        return Comparison("5x2cv t", mean, math.nan, math.nan, 0.0, 1.0, "no spread")
    statistic = float(pairs[0, 0]) / math.sqrt(spread / 5)
    p_value = 2 * float(student.sf(abs(statistic), 5))
    return Comparison("5x2cv t", mean, math.nan, math.nan, statistic, p_value, "gives no interval")


def five_by_two_f(differences: Any) -> Comparison:
    """Alpaydin's combined F test of the same; it does not hang on which fold comes first."""
    import numpy as np
    from scipy.stats import f as fisher

    pairs = _five_pairs(differences)
    spread = float(((pairs - pairs.mean(axis=1, keepdims=True)) ** 2).sum())
    mean = float(pairs.mean())
    if math.sqrt(spread) <= ROUNDING * float(abs(pairs).max()):
        return Comparison("5x2cv F", mean, math.nan, math.nan, 0.0, 1.0, "no spread")
    statistic = float(np.sum(pairs**2)) / (2 * spread)
    return Comparison(
        "5x2cv F", mean, math.nan, math.nan, statistic, float(fisher.sf(statistic, 10, 5)), "gives no interval"
    )


def _five_pairs(differences: Any) -> Any:
    import numpy as np

    pairs = np.asarray(differences, float)
    if pairs.shape != (5, 2):
        raise ValueError(f"five repeats of two folds are needed, not {pairs.shape}")
    return pairs


def holm(p_values: Sequence[float]) -> List[float]:
    """P-values raised so that together they hold the level of one.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    result = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        result[place] = highest
    return result


# -- refits on resamples


class Resampled(NamedTuple):
    """What refits on resamples say of an error."""

    apparent: float  # of the model fitted on all rows, on these very rows
    out_of_bag: float  # the leave-one-out bootstrap, Err(1)
    no_information: float  # gamma: what it would be if inputs told nothing of the outcome
    overfitting: float  # R: 0 none, 1 as bad as no information
    point_632: float
    point_632_plus: float


def point_six_three_two(apparent: float, out_of_bag: float, no_information: float) -> Resampled:
    """The .632 and .632+ estimates of an error; ``no_information`` may be NaN where it cannot be told (then no .632+)."""
    plain = 0.368 * apparent + 0.632 * out_of_bag
    if math.isnan(no_information):
        return Resampled(apparent, out_of_bag, no_information, math.nan, plain, math.nan)
    capped = min(out_of_bag, no_information)
    rate = 0.0
    if out_of_bag > apparent and no_information > apparent:
        rate = min(max((out_of_bag - apparent) / (no_information - apparent), 0.0), 1.0)
    plus = plain + (capped - apparent) * (0.368 * 0.632 * rate) / (1 - 0.368 * rate)
    return Resampled(apparent, out_of_bag, no_information, rate, plain, plus)


def out_of_bag_error(losses: Any, outside: Any) -> float:
    """Err(1): for each row the mean loss over the refits that did not see it, then the mean over the rows.

    ``losses`` and ``outside`` (whether the row was left out) have one line per refit.
    """
    import numpy as np

    out = np.asarray(outside, bool)
    seen = out.sum(axis=0)
    rows = seen > 0
    total = np.where(out, np.asarray(losses, float), 0.0).sum(axis=0)
    return float((total[rows] / seen[rows]).mean())


# -- calibration


class Bin(NamedTuple):
    """One step of a reliability curve."""

    predicted: float
    observed: float
    rows: int


def reliability(positive: Any, probability: Any, bins: int = BINS) -> List[Bin]:
    """Predicted and observed shares in bins of about as many rows each; equal predictions stay together."""
    import numpy as np

    truth, told = np.asarray(positive, float), np.asarray(probability, float)
    edges = np.unique(np.quantile(told, np.linspace(0, 1, bins + 1)[1:-1]))
    places = np.searchsorted(edges, told, side="right")
    found = []
    for place in range(len(edges) + 1):
        inside = places == place
        if inside.any():
            found.append(Bin(float(told[inside].mean()), float(truth[inside].mean()), int(inside.sum())))
    return found


def expected_calibration_error(curve: Sequence[Bin]) -> float:
    """How far predicted and observed shares lie apart, on average over the rows."""
    rows = sum(step.rows for step in curve)
    return sum(step.rows * abs(step.predicted - step.observed) for step in curve) / rows


# -- power


def proportion_power(n: float, one: float, two: float, alpha: float = 0.05) -> float:
    """How likely a test of two shares with ``n`` rows each finds their difference."""
    from scipy.stats import norm

    middle = (one + two) * (1 - (one + two) / 2)
    z = (math.sqrt(n) * abs(one - two) - float(norm.isf(alpha / 2)) * math.sqrt(middle)) / math.sqrt(
        one * (1 - one) + two * (1 - two)
    )
    return float(norm.cdf(z))


def proportion_size(one: float, two: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """How many rows each of two shares needs for that power."""
    from scipy.stats import norm

    middle = (one + two) * (1 - (one + two) / 2)
    spread = one * (1 - one) + two * (1 - two)
    top = float(norm.isf(alpha / 2)) * math.sqrt(middle) + float(norm.ppf(power)) * math.sqrt(spread)
    return (top / (one - two)) ** 2


def t_power(n: float, difference: float, sd: float = 1.0, alpha: float = 0.05) -> float:
    """How likely a two-sample t test with ``n`` values each finds the difference, on its side."""
    from scipy.stats import nct
    from scipy.stats import t as student

    freedom = 2 * (n - 1)
    return float(nct.sf(student.isf(alpha / 2, freedom), freedom, math.sqrt(n / 2) * difference / sd))


def t_size(difference: float, sd: float = 1.0, power: float = 0.8, alpha: float = 0.05) -> float:
    """How many values each of two samples needs for that power."""
    from scipy.optimize import brentq

    return float(brentq(lambda n: t_power(n, difference, sd, alpha) - power, 2, 1e7, xtol=1e-9))


def _z(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
