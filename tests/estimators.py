"""Every estimator of scikit-learn, fitted on the small data that it takes: what the tests of models save and load."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

_random = np.random.RandomState(0)
X = np.abs(_random.normal(size=(40, 3))) + 0.1
CLASSES = np.array([0, 1] * 20)
NUMBERS = X[:, 0] * 2 + X[:, 1]
TEXTS = ["good day", "bad night", "good night", "bad day"] * 10


def _extra() -> list[tuple[str, Any]]:
    """Estimators with parts that their default form does not have."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
    )
    from sklearn.feature_selection import SelectKBest, f_regression, mutual_info_classif
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels
    from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
    from sklearn.svm import SVC

    found: list[tuple[str, Any]] = [
        ("pipeline", make_pipeline(StandardScaler(), LogisticRegression())),
        ("forest", RandomForestClassifier(3, random_state=np.random.RandomState(1))),
        ("kd_tree", KNeighborsClassifier(algorithm="kd_tree", metric="manhattan")),
        ("ball_tree", KNeighborsClassifier(algorithm="ball_tree", metric="chebyshev")),
        ("sparse svc", SVC(probability=False, kernel="linear")),
        ("mlp sgd", MLPClassifier((3,), solver="sgd", max_iter=5)),
        ("select", SelectKBest(f_regression, k=1)),
        ("select mutual", SelectKBest(mutual_info_classif, k=1)),
        ("log", FunctionTransformer(np.log1p, inverse_func=np.expm1)),
        ("onehot int", OneHotEncoder(dtype=np.int64, handle_unknown="ignore")),
        ("columns", ColumnTransformer([("a", StandardScaler(), [0, 1])], remainder="passthrough")),
        ("target", TransformedTargetRegressor(LogisticRegression(), func=None)),
        ("calibrated isotonic", CalibratedClassifierCV(method="isotonic", cv=StratifiedKFold(2))),
        ("gp", GaussianProcessRegressor(kernels.RBF() + kernels.WhiteKernel() * kernels.Matern(), optimizer=None)),
        ("kfold", CalibratedClassifierCV(cv=KFold(2, shuffle=True, random_state=0))),
        ("boosted init", GradientBoostingRegressor(n_estimators=2, loss="huber", init="zero")),
        ("boosted lad", GradientBoostingRegressor(n_estimators=2, loss="absolute_error")),
        ("boosted quantile", GradientBoostingRegressor(n_estimators=2, loss="quantile")),
        ("boosted exponential", GradientBoostingClassifier(n_estimators=2, loss="exponential")),
        ("hist poisson", HistGradientBoostingRegressor(max_iter=2, loss="poisson")),
        ("hist absolute", HistGradientBoostingRegressor(max_iter=2, loss="absolute_error")),
    ]
    found += [
        (f"sgd {loss}", SGDClassifier(loss=loss, max_iter=5, tol=None))
        for loss in ("hinge", "log_loss", "log", "modified_huber", "squared_hinge", "perceptron", "huber")
    ]
    found += [
        (f"sgd regression {loss}", SGDRegressor(loss=loss, max_iter=5, tol=None))
        for loss in ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive")
    ]
    found += [
        (f"hist {loss}", _with(HistGradientBoostingRegressor(max_iter=2), loss=loss, quantile=0.5))
        for loss in ("gamma", "quantile")
    ]
    found += [
        (f"ball_tree {metric}", NearestNeighbors(n_neighbors=1, algorithm="ball_tree", metric=metric))
        for metric in METRICS
    ]
    found += [(f"scored by {name}", scored) for name, scored in _scored()]
    found += [
        (f"{type(model).__name__} of three classes", _OfThreeClasses(model))
        for model in (
            GradientBoostingClassifier(n_estimators=2),
            HistGradientBoostingClassifier(max_iter=2, early_stopping=True, scoring="accuracy"),
            LogisticRegression(),
            SVC(probability=False),
            SGDClassifier(early_stopping=True),
            MLPClassifier((3,), max_iter=5, early_stopping=True),
        )
    ]
    found += [(f"split by {type(cv).__name__}", CalibratedClassifierCV(cv=cv)) for cv in _splitters()]
    found += [
        (f"kernel {type(kernel).__name__}", GaussianProcessRegressor(kernel, optimizer=None)) for kernel in _kernels()
    ]
    found += [(f"ufunc {name}", FunctionTransformer(getattr(np, name))) for name in ("sqrt", "log", "square", "exp")]
    return found


METRICS = (
    "euclidean manhattan chebyshev minkowski hamming canberra braycurtis jaccard dice rogerstanimoto russellrao"
    " sokalmichener sokalsneath matching kulsinski haversine"
).split()


def _with(model: Any, **params: Any) -> Any:
    known = model.get_params()
    return model.set_params(**{name: value for name, value in params.items() if name in known})


def _scored() -> Iterator[tuple[str, Any]]:
    from sklearn import metrics
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    names = metrics.get_scorer_names() if hasattr(metrics, "get_scorer_names") else metrics.SCORERS
    for name in sorted(names):
        yield name, _Fixed(GridSearchCV(Ridge(), {"alpha": [1.0]}, scoring=name), metrics.get_scorer(name))


class _OfThreeClasses:
    """Fits what it holds to words as labels, and to columns of 32 bits."""

    def __init__(self, model: Any) -> None:
        self.search = model

    def fit(self, inputs: Any, _target: Any) -> Any:
        return self.search.fit(inputs.astype("float32"), np.array(["a", "b", "c"])[np.arange(40) % 3])


class _Fixed:
    """A search that is fitted with a score that suits the data, and then told another."""

    def __init__(self, search: Any, scorer: Any) -> None:
        self.search, self.scorer = search, scorer

    def fit(self, inputs: Any, target: Any) -> Any:
        self.search.set_params(scoring=None).fit(inputs, target)
        self.search.set_params(scoring=self.scorer)
        self.search.scorer_ = self.scorer
        return self.search


def _splitters() -> Iterator[Any]:
    from sklearn import model_selection as ms

    yield from (
        ms.KFold(2),
        ms.StratifiedKFold(2),
        ms.ShuffleSplit(2),
        ms.StratifiedShuffleSplit(2),
        ms.RepeatedKFold(n_splits=2),
    )
    yield from (
        ms.RepeatedStratifiedKFold(n_splits=2),
        ms.LeavePOut(1),
        ms.LeaveOneOut(),
        ms.PredefinedSplit(np.arange(40) % 2),
    )
    yield ms.TimeSeriesSplit(2)


def _kernels() -> Iterator[Any]:
    from sklearn.gaussian_process import kernels as k

    yield from (
        k.RBF() + k.WhiteKernel(),
        k.Matern() * k.ConstantKernel(),
        k.RationalQuadratic() ** 2,
        k.ExpSineSquared(),
    )
    yield from (k.DotProduct(), k.PairwiseKernel(), k.CompoundKernel([k.RBF()]))


_NEEDS_ONE = ("SelfTrainingClassifier", "ClassifierChain", "RegressorChain")
_AS_THEY_ARE = ("LinearDiscriminantAnalysis", "TSNE", "SpectralBiclustering", "OrthogonalMatchingPursuitCV")


def _made(name: str, kind: Any) -> Any:
    """An estimator with what its constructor asks for, small enough to be quick."""
    from sklearn.linear_model import LogisticRegression, Ridge

    wanted = inspect.signature(kind.__init__).parameters
    given: dict[str, Any] = {}
    regression = name.endswith("Regressor") or name == "RegressorChain"
    one = Ridge() if regression else LogisticRegression()
    if name == "FrozenEstimator":
        one = LogisticRegression().fit(X, CLASSES)
    for param in ("estimator", "base_estimator"):
        unset = param in wanted and (wanted[param].default is inspect.Parameter.empty or name in _NEEDS_ONE)
        if unset and given == {}:
            given[param] = one
    if "estimators" in wanted:
        given["estimators"] = [("a", one), ("b", one)]
    if "transformer_list" in wanted or "transformers" in wanted:
        from sklearn.preprocessing import StandardScaler

        key = "transformer_list" if "transformer_list" in wanted else "transformers"
        given[key] = [("a", StandardScaler()) if key == "transformer_list" else ("a", StandardScaler(), [0])]
    if "steps" in wanted:
        given["steps"] = [("a", one)]
    if "param_grid" in wanted:
        given["param_grid"] = {"C": [0.1, 1.0]}
    if "param_distributions" in wanted:
        given["param_distributions"] = {"C": [0.1, 1.0]}
    if name == "SparseCoder":
        given["dictionary"] = np.eye(3)
    for param, value in (
        ("n_estimators", 3),
        ("max_iter", 20),
        ("n_iter", 2),
        ("n_components", 2),
        ("n_clusters", 2),
        ("cv", 2),
        ("n_init", 1),
        ("n_bins", 2),
    ):
        if param in wanted and param not in given and name not in _AS_THEY_ARE:
            default = wanted[param].default
            if isinstance(default, (int, str)) or default is None or param == "n_clusters":
                given[param] = value
    if name == "LocalOutlierFactor":
        given["novelty"] = True
    return kind(**given)


def _fitted(name: str, made: Any) -> Any:
    """The estimator fitted on the first of the data that it takes; None where it takes none of them."""
    counts = np.arange(40) % 3
    many = np.column_stack([CLASSES, CLASSES])
    table = [{"a": 1.0, "b": 2.0}, {"a": 3.0}] * 20
    ones = (X > 1).astype(float)
    for inputs, target in (
        (X, CLASSES),
        (X, NUMBERS),
        (X[:, :2], None),
        (X[:, :1], NUMBERS),
        (X, None),
        (X, many),
        (X, np.column_stack([NUMBERS, NUMBERS])),
        (ones, CLASSES),
        (TEXTS, None),
        (table, None),
        (CLASSES, None),
        (np.r_[X, X, X], None),
        (np.hstack([X, X * 2, X**2, X**3]), NUMBERS),
        (many, None),
        (np.abs(X) * 5 // 1, counts),
        ([["a", "b"], ["c"]] * 20, None),
        (X @ X.T, None),
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made.fit(inputs) if target is None else made.fit(inputs, target)
        except Exception:  # noqa: BLE001 - which data an estimator takes is found out by trying
            continue
        return inputs
    return None


def fitted() -> Iterator[tuple[str, Any, Any]]:
    """Name, estimator and the inputs that it was fitted on, for every estimator that can be fitted."""
    from sklearn.utils import all_estimators

    for name, kind in all_estimators():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = _made(name, kind)
        except TypeError:
            continue
        inputs = _fitted(name, made)
        if inputs is not None:
            yield name, made, inputs
    for name, made in _extra():
        inputs = _fitted(name, made)
        if inputs is not None:
            yield name, getattr(made, "search", made), inputs


def answers(model: Any, inputs: Any) -> Any:
    """What the model says of ``inputs``, by the first method that it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in ("predict", "transform", "kneighbors", "score_samples"):
            if hasattr(model, method):
                try:
                    return getattr(model, method)(inputs)
                except (AttributeError, TypeError, ValueError):
                    continue
    return getattr(model, "labels_", None)  # clusters of what it was fitted on
