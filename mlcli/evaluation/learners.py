"""What is evaluated: an estimator that is fitted anew for each fold, or something fitted already that only predicts.

what is given                                    it is
an estimator of scikit-learn, or a model of one  fitted anew (``clone``), or used as it is where nothing is split
a project                                        run for each fold (``trained.py``)
any other model, a function                      used as it is: it cannot be fitted anew
a column of predictions                          the same
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from mlcli.errors import InvalidInput, ModelError
from mlcli.evaluation import scores, tables
from mlcli.evaluation.scores import CLASSIFIER, REGRESSOR, Answers
from mlcli.evaluation.tables import Table
from mlcli.models.loading import whole_uri

DUMMY = "dummy"
FEW_CLASSES = 10
# What an estimator raises where data are not for it.
_TROUBLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Outcome(NamedTuple):
    """What came of one fold: the answers for its test rows, or, where a project tells no answers, its own metrics."""

    answers: Optional[Answers]
    metrics: Mapping[str, float] = {}
    seconds: float = 0.0
    run_id: str = ""


class Learner(NamedTuple):
    """A model or the recipe of one."""

    model: Any
    name: str  # as it is shown and recorded
    refits: bool
    fitted: bool
    features: Optional[List[str]] = None  # the columns that it wants, where it tells
    trained_on: Tuple[str, ...] = ()  # the digests of the data that it was fitted on, where they are recorded
    version: str = ""  # name/number of a registered model
    digest: str = ""


def of(model: Any, *, trust: bool = False) -> Learner:
    """Make a learner of an estimator, a function, the URI or folder of a model, ``"dummy"``, or None."""
    if model is None:
        return Learner(None, "predictions", refits=False, fitted=True)
    if isinstance(model, Learner):
        return model
    if model == DUMMY:
        return Learner(DUMMY, DUMMY, refits=True, fitted=False)
    if isinstance(model, (str, os.PathLike)):
        uri = os.fspath(model)
        if is_model(uri):
            return _loaded(whole_uri(uri), trust=trust)
        from mlcli.evaluation.trained import Recipe

        return of(Recipe(uri), trust=trust)
    if hasattr(model, "evaluate_fold"):
        return Learner(model, model.name, refits=True, fitted=False, digest=model.digest)
    if hasattr(model, "unwrap") and hasattr(model, "metadata"):
        return _of_pyfunc(model, str(getattr(model, "model_uri", type(model).__name__)))
    if callable(getattr(model, "fit", None)) and callable(getattr(model, "get_params", None)):
        return Learner(
            model, _shown(model), refits=True, fitted=_is_fitted(model), features=_wanted(model), digest=_shown(model)
        )
    if callable(getattr(model, "predict", None)):
        return Learner(model, type(model).__name__, refits=False, fitted=True)
    if callable(model):
        return Learner(_Function(model), getattr(model, "__name__", type(model).__name__), refits=False, fitted=True)
    raise InvalidInput(
        f"a {type(model).__name__} cannot be evaluated",
        hint="give a scikit-learn estimator, a function, or the URI of a model",
    )


class _Function:
    """A function that predicts, as a model."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def predict(self, data: Any) -> Any:
        return self._function(data)


def _shown(model: Any) -> str:
    text = " ".join(repr(model).split())
    return text if len(text) <= 200 else f"{text[:199]}…"


def is_model(uri: str) -> bool:
    """Whether it names a model; anything else is taken for a project."""
    if uri.startswith(("runs:", "models:", "mlflow-artifacts:")) or whole_uri(uri) != uri:
        return True
    return os.path.isfile(os.path.join(uri[len("file://") :] if uri.startswith("file://") else uri, "MLmodel"))


def _loaded(uri: str, *, trust: bool) -> Learner:
    from mlcli.models import pyfunc

    return _of_pyfunc(pyfunc.load_model(uri, trust=trust), uri)


def _of_pyfunc(model: Any, uri: str) -> Learner:
    content = dict(model.metadata)
    features = None
    inputs = model.signature.inputs if model.signature is not None else None
    columns = [column.get("name") for column in inputs or () if isinstance(column, Mapping)]
    if columns and all(columns):
        features = [str(name) for name in columns]
    run_id = content.get("run_id")
    digests = _trained_on(run_id) if isinstance(run_id, str) else ()
    inner = model.unwrap()
    refits = callable(getattr(inner, "fit", None)) and callable(getattr(inner, "get_params", None))
    digest = str(content.get("model_uuid") or content.get("model_id") or uri)
    version = _version(uri)
    return Learner(
        inner if refits else model,
        uri,
        refits,
        fitted=True,
        features=features,
        trained_on=digests,
        version=version,
        digest=digest,
    )


def _version(uri: str) -> str:
    """``name/number`` of the registered version that a URI stands for now, or ""."""
    if not uri.startswith("models:/"):
        return ""
    name, sign, rest = uri[len("models:/") :].partition("/")
    if sign and rest.isdigit():
        return f"{name}/{rest}"
    from mlcli.errors import MlcliError
    from mlcli.store import open_store

    name, sign, alias = name.partition("@")
    if not sign:
        return ""
    try:
        with open_store(create=False) as store:
            return f"{name}/{store.get_model_version_by_alias(name, alias).version}"
    except MlcliError:
        return ""


def _trained_on(run_id: str) -> Tuple[str, ...]:
    """The digests of the datasets that the run which made a model noted as those it was trained on."""
    from mlcli.errors import MlcliError
    from mlcli.store import open_store

    try:
        with open_store(create=False) as store:
            inputs = store.get_run(run_id).inputs.dataset_inputs
    except MlcliError:  # another store's model
        return ()
    return tuple(
        [
            item.dataset.digest
            for item in inputs
            if dict(item.tags).get("mlflow.data.context", "train").startswith("train")
        ]
    )


def _wanted(model: Any) -> Optional[List[str]]:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _is_fitted(model: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except (NotFittedError, TypeError):
        return False
    return True


def kind_of(learner: Learner, table: Table) -> str:
    """Whether it tells classes or numbers: as scikit-learn says of the model, else by the target's values."""
    if learner.refits and learner.model != DUMMY and not hasattr(learner.model, "evaluate_fold"):
        from sklearn.base import is_classifier, is_regressor

        if is_classifier(learner.model):
            return CLASSIFIER
        if is_regressor(learner.model):
            return REGRESSOR
        raise InvalidInput(
            f"{type(learner.model).__name__} is neither a classifier nor a regressor",
            hint="those two can be evaluated; --type says which one it is to be taken for",
        )
    truth = scores.labels_of(table.truth)
    if truth.dtype.kind not in "iuf":
        return CLASSIFIER
    if truth.dtype.kind == "f" and (truth != truth.round()).any():
        return REGRESSOR
    if len(set(truth.tolist())) <= FEW_CLASSES:
        return CLASSIFIER
    raise InvalidInput(
        f"the target {table.target!r} has whole numbers of {len(set(truth.tolist()))} values: are they classes or amounts?",
        hint="--type classifier or --type regressor says which",
    )


# -- one fold


def run_fold(learner: Learner, table: Table, train: Any, test: Any, kind: str, fold: int = 0) -> Outcome:
    """Fit on the one rows, unless nothing is to be fitted, and answer for the others."""
    start = time.perf_counter()
    model = learner.model
    if model is None:
        said = table.predictions[test]
        answers = (
            scores.of_numbers(table.truth[test], said)
            if kind == REGRESSOR
            else scores.of_classes(table.truth[test], said)
        )
        return Outcome(answers)
    if hasattr(model, "evaluate_fold"):  # a project
        outcome: Outcome = model.evaluate_fold(table, train, test, kind, fold)
        return outcome
    if len(train):
        model = _fitted(_fresh(model, kind), table.take(train), table.truth[train], fold)
    answers, own = answer(model, table.take(test), table.truth[test], kind)
    return Outcome(answers, own, time.perf_counter() - start)


def _fitted(model: Any, features: Any, truth: Any, fold: int) -> Any:
    try:
        return model.fit(features, truth)
    except _TROUBLE as error:
        raise ModelError(
            f"{type(model).__name__} cannot be fitted for fold {fold}: {_reason(error)}",
            hint=tables.complaints(features) or "are these the columns and the target that it is made for?",
        ) from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _fresh(model: Any, kind: str) -> Any:
    if model == DUMMY:
        from sklearn.dummy import DummyClassifier, DummyRegressor

        return DummyClassifier(strategy="prior") if kind == CLASSIFIER else DummyRegressor()
    from sklearn.base import clone

    return clone(model)


def answer(model: Any, features: Any, truth: Any, kind: str) -> Tuple[Answers, Dict[str, float]]:
    """What the model says of the rows, and what it calls its ``score``, where it has one of its own."""
    import numpy as np

    try:
        said = np.asarray(model.predict(features))
        said = said[:, 0] if said.ndim == 2 and said.shape[1] == 1 else said
        if said.shape != (len(truth),):
            raise InvalidInput(
                f"the model answers with the shape {said.shape} for {len(truth)} rows",
                hint="one prediction for each row can be evaluated",
            )
        answers = scores.of_numbers(truth, said) if kind == REGRESSOR else _classified(model, features, truth, said)
        own = _own_score(model, features, truth, answers)
    except _TROUBLE as error:
        raise ModelError(
            f"the model cannot predict for these data: {_reason(error)}",
            hint=tables.complaints(features)
            or "are they the columns that it was trained on, and is the kind (--type) right?",
        ) from error
    return answers, own


def _classified(model: Any, features: Any, truth: Any, said: Any) -> Answers:
    whole = scores.labels_of(truth).dtype.kind in "iub"
    if whole and said.dtype.kind == "f" and (said != said.round()).any():
        raise InvalidInput(
            "the model answers with fractions, which are no classes", hint="is it a regressor? --type regressor"
        )
    columns = getattr(model, "classes_", None)
    probability = margin = None
    if columns is not None and hasattr(model, "predict_proba"):
        probability = model.predict_proba(features)
    elif columns is not None and len(columns) == 2 and hasattr(model, "decision_function"):
        margin = model.decision_function(features)
    return scores.of_classes(truth, said, probability, columns if probability is not None else None, margin)


def _own_score(model: Any, features: Any, truth: Any, answers: Answers) -> Dict[str, float]:
    """The estimator's ``score``; known from the answers where it is scikit-learn's usual one."""
    from sklearn.base import ClassifierMixin, RegressorMixin

    if not callable(getattr(model, "score", None)):
        return {}
    last = model
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    usual = getattr(type(last), "score", None)
    if usual is ClassifierMixin.score and answers.classes is not None:
        return {"score": scores.score(answers, ["accuracy_score"])["accuracy_score"]}
    if usual is RegressorMixin.score and answers.classes is None:
        return {"score": scores.score(answers, ["r2_score"])["r2_score"]}
    return {"score": float(model.score(features, truth))}
