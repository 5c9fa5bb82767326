"""Scores of predictions under MLflow's names, with an interval for each, and the curves behind them.

A score is computed for many weightings of the rows at once: all ones give the score itself, the counts of a resample
its value there, all ones but for a zero the value without that row. So one text serves the score, its bootstrap and its
jackknife, and 2,000 resamples cost a few matrix products.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput
from mlcli.evaluation import statistics
from mlcli.evaluation.statistics import Comparison, Interval

CLASSIFIER, REGRESSOR = "classifier", "regressor"
TYPES = (CLASSIFIER, REGRESSOR)
INTERVALS = ("auto", "wilson", "clopper-pearson", "delong", "bca", "percentile", "none")
RESAMPLES = 2000
CUSTOM_RESAMPLES = 200  # of a metric that is a function of its own, called once for each
CELLS = 4_000_000  # weights held at once
JACKKNIFE = 500  # beyond so many rows they are left out in so many groups


class Metric(NamedTuple):
    """What is known of a score; ``needs`` says which answers it is of: labels, numbers, probabilities, ranks, pairs."""

    greater_is_better: bool
    needs: str
    binary: bool = False
    counts: bool = False  # a count or a property of the data: no interval, no comparison
    share: bool = False  # a share of rows


METRICS: Dict[str, Metric] = {
    "accuracy_score": Metric(True, "labels", share=True),
    "recall_score": Metric(True, "labels"),
    "precision_score": Metric(True, "labels"),
    "f1_score": Metric(True, "labels"),
    "roc_auc": Metric(True, "ranks"),
    "precision_recall_auc": Metric(True, "ranks", binary=True),
    "log_loss": Metric(False, "probabilities"),
    "brier_score": Metric(False, "probabilities"),
    "expected_calibration_error": Metric(False, "probabilities", binary=True),
    "true_negatives": Metric(True, "labels", binary=True, counts=True),
    "false_positives": Metric(False, "labels", binary=True, counts=True),
    "false_negatives": Metric(False, "labels", binary=True, counts=True),
    "true_positives": Metric(True, "labels", binary=True, counts=True),
    "mean_absolute_error": Metric(False, "numbers"),
    "mean_squared_error": Metric(False, "numbers"),
    "root_mean_squared_error": Metric(False, "numbers"),
    "r2_score": Metric(True, "numbers"),
    "max_error": Metric(False, "numbers"),
    "mean_absolute_percentage_error": Metric(False, "numbers"),
    "sum_on_target": Metric(True, "numbers", counts=True),
    "mean_on_target": Metric(True, "numbers", counts=True),
    "example_count": Metric(True, "any", counts=True),
}
# Of what was not seen a maximum knows nothing, and resamples of an honest model look less calibrated than it is: what a
# bootstrap of either tells is not where the truth is.
NOT_RESAMPLED = ("max_error", "expected_calibration_error")
INFINITE = float("inf")
PRIMARY = {CLASSIFIER: "accuracy_score", REGRESSOR: "r2_score"}


class Answers(NamedTuple):
    """What a model said of some rows, and the truth.

    ``classes`` are all labels, sorted; the last of two is the positive one. ``probability`` has a column for each;
    ``margin`` ranks rows by how positive they are said to be, where nothing tells probabilities.
    """

    truth: Any
    predicted: Any
    classes: Optional[Tuple[Any, ...]] = None  # None: numbers
    probability: Any = None
    margin: Any = None

    @property
    def rank(self) -> Any:
        """The scores by which rows are ranked where there are two classes."""
        if self.classes is None or len(self.classes) != 2:
            return None
        return self.margin if self.probability is None else self.probability[:, 1]

    @property
    def positive(self) -> Any:
        """Which rows truly are of the positive class."""
        return self.truth == (self.classes or (None,))[-1]

    def take(self, rows: Any) -> Answers:
        """The answers for some of the rows."""
        picked = [None if part is None else part[rows] for part in (self.probability, self.margin)]
        return Answers(self.truth[rows], self.predicted[rows], self.classes, *picked)


def of_classes(
    truth: Any, predicted: Any, probability: Any = None, columns: Optional[Sequence[Any]] = None, margin: Any = None
) -> Answers:
    """Answers of a classifier; ``columns`` are the labels that the columns of ``probability`` stand for."""
    import numpy as np

    labels = [labels_of(truth), labels_of(predicted)] + ([] if columns is None else [labels_of(columns)])
    if len({part.dtype.kind in "US" for part in labels}) > 1:  # a file has only texts
        labels = [part.astype(str) for part in labels]
    truth, predicted = labels[:2]
    classes = tuple(np.unique(np.concatenate([np.unique(part) for part in labels])).tolist())
    if columns is not None:
        columns = labels[2].tolist()
    if probability is not None and columns is not None and tuple(columns) != classes:
        wide = np.zeros((len(truth), len(classes)))
        wide[:, np.searchsorted(classes, list(columns))] = probability
        probability = wide
    return Answers(truth, predicted, classes, None if probability is None else np.asarray(probability, float), margin)


def labels_of(values: Any) -> Any:
    """Labels as an array of texts or of numbers."""
    import numpy as np

    found = np.asarray(values if hasattr(values, "__array__") else list(values))
    if found.dtype.kind != "O":
        return found.ravel()
    return np.asarray([item.item() if hasattr(item, "item") else item for item in found.ravel().tolist()])


def of_numbers(truth: Any, predicted: Any) -> Answers:
    """Answers of a regressor."""
    import numpy as np

    return Answers(np.asarray(truth, float), np.asarray(predicted, float))


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of several parts, one after the other."""
    import numpy as np

    truth, predicted = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    if parts[0].classes is None:
        return Answers(truth, predicted)
    classes = tuple(np.unique(np.concatenate([list(part.classes or ()) for part in parts])).tolist())
    probability = margin = None
    if all([part.probability is not None for part in parts]):
        probability = np.concatenate([widened(part, classes) for part in parts])
    if all([part.margin is not None for part in parts]):
        margin = np.concatenate([part.margin for part in parts])
    return Answers(truth, predicted, classes, probability, margin)


def widened(answers: Answers, classes: Tuple[Any, ...]) -> Any:
    """The probabilities with a column for each of ``classes``; 0 where the model did not know the class."""
    import numpy as np

    if answers.classes == classes:
        return answers.probability
    wide = np.zeros((len(answers.truth), len(classes)))
    wide[:, [classes.index(label) for label in answers.classes or ()]] = answers.probability
    return wide


# -- which scores there are


def names(answers: Answers) -> List[str]:
    """The scores that can be told of these answers, in the order they are shown."""
    return [name for name, metric in METRICS.items() if _applies(metric, answers)]


def _applies(metric: Metric, answers: Answers) -> bool:
    if metric.needs == "any":
        return True
    if answers.classes is None or metric.needs == "numbers":
        return answers.classes is None and metric.needs == "numbers"
    if metric.binary and len(answers.classes) != 2:
        return False
    if metric.needs == "probabilities":
        return answers.probability is not None
    if metric.needs == "ranks":
        return answers.probability is not None or answers.rank is not None
    return True


def inferred(name: str) -> bool:
    """Whether there is an interval, and a test, for that score."""
    return name not in NOT_RESAMPLED and not (name in METRICS and METRICS[name].counts)


def within(name: str, bounds: Interval) -> Interval:
    """The interval without what the score cannot be: a share beyond 1, a loss below 0."""
    if name not in METRICS:
        return bounds
    low = -INFINITE if name == "r2_score" else 0.0
    high = 1.0 if METRICS[name].greater_is_better or name == "expected_calibration_error" else INFINITE
    return bounds._replace(low=max(bounds.low, low), high=min(bounds.high, high))


def resolve(name: str) -> Optional[Callable[[Any, Any], float]]:
    """The function of ``sklearn.metrics`` by that name; None for a score of ours."""
    if name in METRICS:
        return None
    import sklearn.metrics

    found: Any = getattr(sklearn.metrics, name, None)
    if (
        not callable(found)
        or isinstance(found, type)
        or not name.endswith(("_score", "_error", "_loss", "_coef", "coefficient", "_deviance"))
    ):
        import difflib

        near = difflib.get_close_matches(name, METRICS, 1)
        raise InvalidInput(
            f"there is no metric {name!r}",
            hint=f"did you mean {near[0]}?"
            if near
            else "one of " + ", ".join(METRICS) + ", or a function of sklearn.metrics",
        )
    function: Callable[[Any, Any], float] = found
    return function


def greater_is_better(name: str) -> bool:
    """Whether more of it is better; of an unknown score its name decides."""
    return METRICS[name].greater_is_better if name in METRICS else not name.endswith(("error", "loss", "deviance"))


# -- scores under weights


def score(answers: Answers, wanted: Optional[Sequence[str]] = None, custom: Mapping[str, Any] = {}) -> Dict[str, float]:
    """The scores of the answers, and of ``custom`` functions of truth and prediction."""
    import numpy as np

    values = weighted(answers, np.ones((1, len(answers.truth))), names(answers) if wanted is None else wanted)
    found = {name: float(value[0]) for name, value in values.items()}
    found.update({name: float(function(answers.truth, answers.predicted)) for name, function in custom.items()})
    return found


def weighted(answers: Answers, weights: Any, wanted: Sequence[str]) -> Dict[str, Any]:
    """The scores under each line of ``weights``; NaN where one is not defined."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        found = _numbers(answers, weights) if answers.classes is None else _labels(answers, weights, wanted)
        if "example_count" in wanted:
            found["example_count"] = weights.sum(axis=1)
    return {name: found[name] for name in wanted if name in found}


def _numbers(answers: Answers, weights: Any) -> Dict[str, Any]:
    import numpy as np

    y, error = answers.truth, answers.truth - answers.predicted
    size = np.abs(error)
    total = weights.sum(axis=1)
    away = y - y.mean()
    sums = weights @ np.column_stack(
        [size, error**2, away, away**2, size / np.maximum(np.abs(y), np.finfo(float).eps), y]
    )
    squares = sums[:, 1] / total
    spread = sums[:, 3] - sums[:, 2] ** 2 / total
    return {
        "mean_absolute_error": sums[:, 0] / total,
        "mean_squared_error": squares,
        "root_mean_squared_error": np.sqrt(squares),
        "r2_score": np.where(spread > 0, 1 - sums[:, 1] / spread, np.where(sums[:, 1] > 0, 0.0, 1.0)),
        "max_error": np.where(weights > 0, size, 0).max(axis=1),
        "mean_absolute_percentage_error": sums[:, 4] / total,
        "sum_on_target": sums[:, 5],
        "mean_on_target": sums[:, 5] / total,
    }


def _labels(answers: Answers, weights: Any, wanted: Sequence[str]) -> Dict[str, Any]:
    import numpy as np

    classes = answers.classes or ()
    truth, predicted = np.searchsorted(classes, answers.truth), np.searchsorted(classes, answers.predicted)
    total = weights.sum(axis=1)
    k = np.arange(len(classes))
    is_true = (truth[:, None] == k).astype(float)
    support = weights @ is_true
    found: Dict[str, Any] = {}
    if {*wanted} & {name for name, metric in METRICS.items() if metric.needs == "labels"}:
        said = weights @ (predicted[:, None] == k).astype(float)
        hits = weights @ (is_true * (predicted == truth)[:, None])
        found["accuracy_score"] = hits.sum(axis=1) / total
        by_class = {
            "recall_score": _ratio(hits, support),
            "precision_score": _ratio(hits, said),
            "f1_score": _ratio(2 * hits, said + support),
        }
        for name, values in by_class.items():
            found[name] = values[:, 1] if len(classes) == 2 else (values * support).sum(axis=1) / total
        if len(classes) == 2:
            found["true_negatives"], found["true_positives"] = hits[:, 0], hits[:, 1]
            found["false_positives"], found["false_negatives"] = said[:, 1] - hits[:, 1], said[:, 0] - hits[:, 0]
    if answers.probability is not None:
        found.update(_probabilities(answers, weights, truth, is_true, wanted))
    if "roc_auc" in wanted or "precision_recall_auc" in wanted:
        found.update(_ranks(answers, weights, is_true, support, wanted))
    return found


def _ratio(top: Any, bottom: Any) -> Any:
    """A share, 0 where there is nothing to share, as scikit-learn has it."""
    import numpy as np

    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _probabilities(answers: Answers, weights: Any, truth: Any, is_true: Any, wanted: Sequence[str]) -> Dict[str, Any]:
    import numpy as np

    total = weights.sum(axis=1)
    told = answers.probability
    found: Dict[str, Any] = {}
    if "log_loss" in wanted:
        found["log_loss"] = weights @ log_losses(told, truth) / total
    if "brier_score" in wanted:
        found["brier_score"] = weights @ brier_losses(told, is_true) / total
    if "expected_calibration_error" in wanted and told.shape[1] == 2:
        edges = np.unique(np.quantile(told[:, 1], np.linspace(0, 1, statistics.BINS + 1)[1:-1]))
        step = np.searchsorted(edges, told[:, 1], side="right")
        gap = (step[:, None] == np.arange(len(edges) + 1)) * (told[:, 1] - is_true[:, 1])[:, None]
        found["expected_calibration_error"] = np.abs(weights @ gap).sum(axis=1) / total
    return found


def log_losses(probability: Any, truth: Any) -> Any:
    """What each row costs; ``truth`` are places of classes. No probability is taken for quite 0."""
    import numpy as np

    tiny = np.finfo(float).eps
    told = np.clip(probability[np.arange(len(truth)), truth], tiny, 1 - tiny)
    return -np.log(told)


def brier_losses(probability: Any, is_true: Any) -> Any:
    """What each row costs: of two classes the squared error of the positive one, of more the sum over all."""
    if probability.shape[1] == 2:
        return (probability[:, 1] - is_true[:, 1]) ** 2
    return ((probability - is_true) ** 2).sum(axis=1)


def _ranks(answers: Answers, weights: Any, is_true: Any, support: Any, wanted: Sequence[str]) -> Dict[str, Any]:
    import numpy as np

    found: Dict[str, Any] = {}
    if answers.rank is not None:
        hits, misses = _steps(answers.rank, is_true[:, 1], weights)
        if "roc_auc" in wanted:
            found["roc_auc"] = _area(hits, misses)
        if "precision_recall_auc" in wanted:
            found["precision_recall_auc"] = _precision_recall_area(hits, misses)
    elif "roc_auc" in wanted and answers.probability is not None:
        present = is_true.any(axis=0)
        areas = np.zeros_like(support)
        for place in np.flatnonzero(present):
            area = _area(*_steps(answers.probability[:, place], is_true[:, place], weights))
            areas[:, place] = np.where(support[:, place] > 0, area, 0)
        found["roc_auc"] = (areas * support).sum(axis=1) / support.sum(axis=1)
    return found


def _steps(values: Any, positive: Any, weights: Any) -> Tuple[Any, Any]:
    """The weight of positive and of negative rows at each distinct score, the highest first."""
    import numpy as np

    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sorted_weights = weights[:, order]
    hits = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    return hits, np.add.reduceat(sorted_weights, starts, axis=1) - hits


def _area(hits: Any, misses: Any) -> Any:
    above = hits.cumsum(axis=1) - hits / 2
    return (misses * above).sum(axis=1) / (hits.sum(axis=1) * misses.sum(axis=1))


def _precision_recall_area(hits: Any, misses: Any) -> Any:
    """The average precision; trapezoids between the points would flatter the model."""
    import numpy as np

    true, false = hits.cumsum(axis=1), misses.cumsum(axis=1)
    precision = np.divide(true, true + false, out=np.ones_like(true), where=true + false > 0)
    return (hits * precision).sum(axis=1) / true[:, -1]


# -- intervals and comparisons


class Resampling(NamedTuple):
    """How rows are drawn anew; ``groups`` are drawn whole."""

    seed: int = 0
    size: int = RESAMPLES
    groups: Any = None


ROWS = Resampling()


def intervals(
    answers: Answers,
    values: Mapping[str, float],
    *,
    kind: str = "auto",
    level: float = 0.95,
    resampling: Resampling = ROWS,
    custom: Mapping[str, Any] = {},
) -> Dict[str, Interval]:
    """An interval for each score of a model that was not fitted on these rows.

    ``auto`` takes Wilson's for shares, DeLong's for the AUC, BCa for anything else; where rows come in groups,
    all by resampling groups. A maximum and a calibration error have none.
    """
    found: Dict[str, Interval] = {}
    if kind == "none" or len(answers.truth) < 2:
        return found
    left = []
    for name in values:
        if not inferred(name):
            continue
        bounds = None if resampling.groups is not None else _closed(answers, name, kind, level)
        if bounds is None:
            left.append(name)
        else:
            found[name] = bounds
    replicates, left_out = resampled([answers], left, resampling, custom)
    for name in left:
        if kind == "percentile":
            found[name] = statistics.percentile(replicates[0][name], level)
        else:
            found[name] = statistics.bca(values[name], replicates[0][name], left_out[0][name], level)
    return {name: found[name] for name in values if name in found}


def _closed(answers: Answers, name: str, kind: str, level: float) -> Optional[Interval]:
    """The interval that a formula gives, where one is asked for and there is one."""
    if kind in ("bca", "percentile"):
        return None
    if name == "roc_auc" and answers.rank is not None and kind in ("auto", "delong"):
        positive = answers.positive
        return statistics.delong_interval(positive, answers.rank, level) if 0 < positive.sum() < len(positive) else None
    share = _share(answers, name)
    if share is None or not share[1]:
        return None
    exact = kind == "clopper-pearson"
    return (statistics.clopper_pearson if exact else statistics.wilson)(share[0], share[1], level)


def _share(answers: Answers, name: str) -> Optional[Tuple[int, int]]:
    """Successes and trials of a score that is a share of rows."""
    right = answers.truth == answers.predicted
    if name == "accuracy_score":
        return int(right.sum()), len(right)
    if answers.classes is None or len(answers.classes) != 2:
        return None
    if name == "recall_score":
        return int((right & answers.positive).sum()), int(answers.positive.sum())
    if name == "precision_score":
        said = answers.predicted == answers.classes[-1]
        return int((right & said).sum()), int(said.sum())
    return None


def resampled(
    several: Sequence[Answers], wanted: Sequence[str], resampling: Resampling, custom: Mapping[str, Any] = {}
) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """The scores of each of ``several`` answers on the same resamples, and with a part of the rows left out."""
    import numpy as np

    n = len(several[0].truth)
    ours = [name for name in wanted if name not in custom]
    replicates: List[Dict[str, Any]] = [{} for _ in several]
    left_out: List[Dict[str, Any]] = [{} for _ in several]
    if not wanted:
        return replicates, left_out
    generator = np.random.default_rng(resampling.seed)
    chunk = max(1, CELLS // n)
    parts: List[List[Dict[str, Any]]] = [[] for _ in several]
    for start in range(0, resampling.size, chunk):
        counts = statistics.draw_counts(generator, n, min(chunk, resampling.size - start), resampling.groups)
        for place, answers in enumerate(several):
            few = counts[: max(0, CUSTOM_RESAMPLES - start)]
            parts[place].append({**weighted(answers, counts, ours), **_called(answers, few, custom, wanted)})
    holes = _holes(n, resampling.groups)
    without: List[List[Dict[str, Any]]] = [[] for _ in several]
    for start in range(0, len(holes), chunk):
        for place, answers in enumerate(several):
            lines = holes[start : start + chunk]
            without[place].append(
                {**weighted(answers, lines, ours), **_called(answers, lines[:CUSTOM_RESAMPLES], custom, wanted)}
            )
    for place in range(len(several)):
        for name in wanted:
            replicates[place][name] = np.concatenate([part[name] for part in parts[place] if name in part] or [[]])
            left_out[place][name] = np.concatenate([part[name] for part in without[place] if name in part] or [[]])
    return replicates, left_out


def _called(answers: Answers, counts: Any, custom: Mapping[str, Any], wanted: Sequence[str]) -> Dict[str, Any]:
    import numpy as np

    found = {}
    rows = [np.repeat(np.arange(len(line)), line.astype(int)) for line in counts] if custom else []
    for name in wanted:
        if name in custom:
            found[name] = np.array([custom[name](answers.truth[some], answers.predicted[some]) for some in rows], float)
    return found


def _holes(n: int, groups: Any) -> Any:
    """Weights that leave out one row, one group of rows, or, of very many, every so-many-th."""
    import numpy as np

    if groups is not None:
        _, members = np.unique(np.asarray(groups), return_inverse=True)
    else:
        members = np.arange(n)
    members = members % JACKKNIFE
    return (members[None, :] != np.arange(members.max() + 1)[:, None]).astype(float)


TESTS = ("auto", "mcnemar", "delong", "nb-t", "5x2cv-t", "5x2cv-f", "paired-bootstrap")
ON_ROWS = ("auto", "mcnemar", "delong", "paired-bootstrap")


def compare(
    answers: Answers,
    baseline: Answers,
    wanted: Sequence[str],
    *,
    test: str = "auto",
    level: float = 0.95,
    resampling: Resampling = ROWS,
    custom: Mapping[str, Any] = {},
) -> Dict[str, Comparison]:
    """Whether two models differ on the same rows, score by score.

    ``auto``: McNemar for the accuracy, DeLong for the AUC, the paired bootstrap for anything else and where rows come in
    groups.
    """
    found: Dict[str, Comparison] = {}
    left = []
    ranked = answers.rank is not None and baseline.rank is not None and answers.classes == baseline.classes
    for name in wanted:
        if not inferred(name):
            continue
        if resampling.groups is None and name == "accuracy_score" and test in ("auto", "mcnemar"):
            right = [one.truth == one.predicted for one in (answers, baseline)]
            found[name] = statistics.mcnemar_comparison(right[0], right[1], level)
        elif resampling.groups is None and name == "roc_auc" and ranked and test in ("auto", "delong"):
            one = statistics.delong_comparison(answers.positive, answers.rank, baseline.rank, level)
            if one.p_value == one.p_value:
                found[name] = one
            else:
                left.append(name)
        elif test in ("auto", "paired-bootstrap"):
            left.append(name)
    replicates, left_out = resampled([answers, baseline], left, resampling, custom)
    ones = [
        score(one, [name for name in left if name not in custom], {key: custom[key] for key in left if key in custom})
        for one in (answers, baseline)
    ]
    for name in left:
        if any([name not in one for one in ones]):
            continue
        found[name] = statistics.paired_bootstrap(
            ones[0][name] - ones[1][name],
            replicates[0][name] - replicates[1][name],
            left_out[0][name] - left_out[1][name],
            level,
        )
    return {name: found[name] for name in wanted if name in found}


# -- curves


class Curve(NamedTuple):
    """Points as a table; ``kind`` says how it is drawn."""

    kind: str
    columns: Tuple[str, ...]
    rows: List[Tuple[Any, ...]]


MAX_CLASSES = 10  # beyond so many, no curve for each


def curves(answers: Answers) -> Dict[str, Curve]:
    """The points of MLflow's pictures, under their names."""
    if answers.classes is None:
        return {"residuals_plot": _residuals(answers)}
    found = {"confusion_matrix": _confusion(answers)}
    if len(answers.classes) == 2 and answers.rank is not None and 0 < answers.positive.sum() < len(answers.positive):
        series = [("", answers.rank, answers.positive)]
    elif answers.probability is not None and 2 < len(answers.classes) <= MAX_CLASSES:
        series = [
            (label, answers.probability[:, place], answers.truth == label)
            for place, label in enumerate(answers.classes)
        ]
    else:
        series = []
    series = [item for item in series if 0 < item[2].sum() < len(item[2])]
    if series:
        found["roc_curve_plot"] = _roc(series)
        found["precision_recall_curve_plot"] = _precision_recall(series)
    if len(answers.classes) == 2 and series:
        found["lift_curve_plot"] = _lift(answers)
    if answers.probability is not None and len(answers.classes) == 2:
        steps = statistics.reliability(answers.positive, answers.probability[:, 1])
        found["calibration_curve_plot"] = Curve(
            "calibration", ("predicted", "observed", "rows"), [tuple(step) for step in steps]
        )
    if len(answers.classes) > 2:
        found["per_class_metrics"] = _per_class(answers)
    return found


def _confusion(answers: Answers) -> Curve:
    import numpy as np

    classes = answers.classes or ()
    truth, predicted = np.searchsorted(classes, answers.truth), np.searchsorted(classes, answers.predicted)
    counts = np.bincount(truth * len(classes) + predicted, minlength=len(classes) ** 2).reshape(len(classes), -1)
    rows = [(label, *line) for label, line in zip(classes, counts.tolist())]
    return Curve("confusion", ("true", *map(str, classes)), rows)


def _cumulated(values: Any, positive: Any) -> Tuple[Any, Any, Any]:
    import numpy as np

    hits, misses = _steps(values, positive.astype(float), np.ones((1, len(values))))
    return hits[0].cumsum(), misses[0].cumsum(), np.unique(values)[::-1]


def _roc(series: Sequence[Any]) -> Curve:
    rows: List[Tuple[Any, ...]] = []
    for label, values, positive in series:
        true, false, thresholds = _cumulated(values, positive)
        rows.append((label, 0.0, 0.0, None))
        rows += zip([label] * len(true), (false / false[-1]).tolist(), (true / true[-1]).tolist(), thresholds.tolist())
    return Curve("roc", ("class", "false_positive_rate", "true_positive_rate", "threshold"), rows)


def _precision_recall(series: Sequence[Any]) -> Curve:
    rows: List[Tuple[Any, ...]] = []
    for label, values, positive in series:
        true, false, thresholds = _cumulated(values, positive)
        rows.append((label, 0.0, 1.0, None))
        rows += zip(
            [label] * len(true), (true / true[-1]).tolist(), (true / (true + false)).tolist(), thresholds.tolist()
        )
    return Curve("precision-recall", ("class", "recall", "precision", "threshold"), rows)


def _lift(answers: Answers) -> Curve:
    true, false, _ = _cumulated(answers.rank, answers.positive)
    share = (true + false) / (true[-1] + false[-1])
    return Curve("lift", ("share_of_rows", "lift"), list(zip(share.tolist(), (true / true[-1] / share).tolist())))


def _residuals(answers: Answers) -> Curve:
    rows = list(zip(answers.predicted.tolist(), (answers.truth - answers.predicted).tolist()))
    return Curve("residuals", ("predicted", "residual"), rows)


def _per_class(answers: Answers) -> Curve:
    rows: List[Tuple[Any, ...]] = []
    for place, label in enumerate(answers.classes or ()):
        truth, said = answers.truth == label, answers.predicted == label
        if not truth.any():
            continue
        probability = None if answers.probability is None else answers.probability[:, [place, place]]
        one = Answers(truth, said, (False, True), probability)
        wanted = ["recall_score", "precision_score", "f1_score"]
        if probability is not None and not truth.all():
            wanted += ["roc_auc", "precision_recall_auc"]
        found = score(one, wanted)
        columns = ("recall_score", "precision_score", "f1_score", "roc_auc", "precision_recall_auc")
        rows.append((label, int(truth.sum()), *(found.get(name) for name in columns)))
    return Curve(
        "table",
        ("class", "rows", "recall_score", "precision_score", "f1_score", "roc_auc", "precision_recall_auc"),
        rows,
    )
