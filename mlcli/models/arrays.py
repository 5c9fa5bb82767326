"""scikit-learn estimators on bare arrays: the answers that they give for a DataFrame, to the last bit, for less.

What is listed here looks at names of columns only to check them, and the signature has checked them already. An estimator
that is not listed, or is a subclass of one, gets a DataFrame.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, List, Optional

_LINEAR_CLASSIFIERS = frozenset(("LogisticRegression", "LinearSVC", "SGDClassifier", "Perceptron"))
_LINEAR_REGRESSORS = frozenset(("LinearRegression", "Ridge", "Lasso", "ElasticNet"))
_SCALERS = frozenset(("StandardScaler", "MinMaxScaler"))
_BY_ARRAY = (
    _LINEAR_CLASSIFIERS
    | _LINEAR_REGRESSORS
    | _SCALERS
    | frozenset(
        """
        LogisticRegressionCV RidgeClassifier RidgeCV LassoCV ElasticNetCV Lars LassoLars BayesianRidge ARDRegression
        HuberRegressor SGDRegressor PassiveAggressiveClassifier PassiveAggressiveRegressor PoissonRegressor GammaRegressor
        SVC NuSVC SVR NuSVR LinearSVR DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor
        RandomForestClassifier RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor GradientBoostingClassifier
        GradientBoostingRegressor IsolationForest KNeighborsClassifier KNeighborsRegressor GaussianNB BernoulliNB
        MultinomialNB MLPClassifier MLPRegressor KMeans MiniBatchKMeans GaussianMixture LinearDiscriminantAnalysis
        QuadraticDiscriminantAnalysis GaussianProcessClassifier GaussianProcessRegressor MaxAbsScaler RobustScaler
        Normalizer PolynomialFeatures PowerTransformer QuantileTransformer SimpleImputer PCA TruncatedSVD
        """.split()
    )
)


def on_arrays(model: Any, method: str) -> Optional[Callable[[Any], Any]]:
    """``model.<method>`` for arrays whose columns are those that it was fitted on; None where it needs a DataFrame.

    ``model`` is not changed.
    """
    steps = _steps(model)
    if steps is None:
        return None
    nameless = [_without_names(step) for step in steps]
    if len(steps) == 1 and not hasattr(model, "steps"):
        whole = nameless[0]
    else:
        whole = _without_names(model)
        names = [name for name, step in model.steps if step is not None and step != "passthrough"]
        whole.steps = list(zip(names, nameless))
    usual: Callable[[Any], Any] = getattr(whole, method)
    return _linear(nameless, usual) if method == "predict" else usual


def _steps(model: Any) -> Optional[List[Any]]:
    """The estimators that rows go through, in order; None if one of them is not known to work on arrays."""
    kind = type(model)
    if kind.__module__.startswith("sklearn.pipeline") and kind.__name__ == "Pipeline":
        if "_sklearn_output_config" in vars(model) or getattr(model, "transform_input", None):
            return None
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
    else:
        steps = [model]
    for step in steps:
        kind = type(step)
        known = kind.__module__.startswith("sklearn.") and kind.__name__ in _BY_ARRAY
        if not known or "_sklearn_output_config" in vars(step):
            return None
    return steps or None


def _without_names(estimator: Any) -> Any:
    """A shallow copy that does not warn of columns without names."""
    twin = copy.copy(estimator)
    vars(twin).pop("feature_names_in_", None)
    return twin


def _linear(steps: List[Any], usual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Predict with a linear model behind scalers: the same operations on the same numbers, without the checks between.

    Whatever is not plain (NaN, infinity, another type or width) goes the usual way, and gets the usual answer or error.
    """
    import numpy as np

    *scalers, last = steps
    name = type(last).__name__
    if name not in _LINEAR_CLASSIFIERS | _LINEAR_REGRESSORS or any(
        [type(step).__name__ not in _SCALERS for step in scalers]
    ):
        return usual
    operations = [operation for scaler in scalers for operation in _scaling(scaler)]
    if any([operand is None for _, operand in operations]):
        return usual
    coefficients, intercept = np.asarray(last.coef_), np.asarray(last.intercept_)
    if coefficients.dtype != np.float64 or hasattr(last.coef_, "toarray"):
        return usual
    weights = coefficients.T if coefficients.ndim == 2 else coefficients
    classes = getattr(last, "classes_", None) if name in _LINEAR_CLASSIFIERS else None
    width, double = coefficients.shape[-1], np.float64
    isfinite, whole, needs_double = np.isfinite, np.integer, bool(operations)

    def predict(array: Any) -> Any:
        if array.ndim != 2 or array.shape[1] != width or not len(array):
            return usual(array)
        if array.dtype != double:
            if not issubclass(array.dtype.type, whole):
                return usual(array)
            found = array.astype(double) if needs_double else array
        elif isfinite(array).all():
            found = array
        else:
            return usual(array)
        for operation, operand in operations:
            found = operation(found, operand)
        scores = found @ weights + intercept
        if classes is None:
            return scores
        if scores.shape[1] == 1:
            return classes[(scores[:, 0] > 0).astype(int)]
        return classes[scores.argmax(axis=1)]

    return predict


def _scaling(scaler: Any) -> List[Any]:
    """What a scaler does to its input, as operations with one operand each."""
    import numpy as np

    if type(scaler).__name__ == "MinMaxScaler":
        if scaler.clip:
            return [(None, None)]
        return [(np.multiply, scaler.scale_), (np.add, scaler.min_)]
    by = [(np.subtract, scaler.mean_)] if scaler.with_mean else []
    return by + ([(np.divide, scaler.scale_)] if scaler.with_std else [])
