"""scikit-learn's autolog: params, scores, plots, models, datasets and searches of each `fit`, under MLflow's names.

Patched are the estimators of scikit-learn's own modules as they are imported: `fit`, `fit_transform` and `fit_predict`, and for
what follows a training `predict` and its kin, `score` and sklearn.metrics. Preparing data (preprocessing, impute,
feature_extraction, feature_selection, ColumnTransformer) is no training, unless it is a part of one.
"""

from __future__ import annotations

import csv
import functools
import io
import sys
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from mlcli.autolog import calls, inputs, scores
from mlcli.autolog.patches import is_ours, original_of, wrapper
from mlcli.autolog.session import Library, Session, Settings, log_params, now, quiet, start_child, train
from mlcli.entities import RunStatus
from mlcli.errors import InvalidInput
from mlcli.models.sklearn import SUPPORTED_SERIALIZATION_FORMATS

TRAININGS = ("fit", "fit_transform", "fit_predict")
_EXCLUDED = ("preprocessing", "impute", "feature_extraction", "feature_selection", "utils", "externals", "tests")
_EXCLUDED_CLASSES = ("ColumnTransformer", "BaseEstimator")
# What the cross-validation functions run for each fold, in whatever thread or process.
_FOLDS = ("_fit_and_score", "_fit_and_predict", "_permutation_test_score", "_incremental_fit_estimator")
_VALIDATION = "sklearn.model_selection._validation"
_COPIES = ("copy", "copy_X", "copy_x", "copy_Xy")


def autolog(
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    max_tuning_runs: Optional[int] = 5,
    log_post_training_metrics: bool = True,
    serialization_format: Optional[str] = None,
    registered_model_name: Optional[str] = None,
    pos_label: Any = None,
    extra_tags: Optional[Mapping[str, str]] = None,
) -> None:
    """Log every training with scikit-learn from now on; call it again to change how, with ``disable=True`` to stop.

    A training logs to the active run, or to one of its own. ``max_tuning_runs`` is how many of a search's candidates become
    child runs, the best first (None: all). ``serialization_format`` is pickle unless the model needs cloudpickle.
    With ``exclusive=True`` runs that the program started itself are left alone. ``extra_tags`` are for runs that autolog starts.
    """
    if max_tuning_runs is not None and max_tuning_runs < 0:
        raise InvalidInput(f"max_tuning_runs is a number of runs or None, not {max_tuning_runs}")
    if serialization_format not in (None, *SUPPORTED_SERIALIZATION_FORMATS):
        raise InvalidInput(
            f"{serialization_format!r} is not a serialization format",
            hint="one of " + ", ".join(SUPPORTED_SERIALIZATION_FORMATS),
        )
    LIBRARY.choose(
        Settings(
            log_input_examples=log_input_examples,
            log_model_signatures=log_model_signatures,
            log_models=log_models,
            log_datasets=log_datasets,
            exclusive=exclusive,
            disable_for_unsupported_versions=disable_for_unsupported_versions,
            silent=silent,
            max_tuning_runs=max_tuning_runs,
            log_post_training_metrics=log_post_training_metrics,
            serialization_format=serialization_format,
            registered_model_name=registered_model_name,
            pos_label=pos_label,
            extra_tags=extra_tags,
        ),
        disable=disable,
    )


# -- what is patched


def _patch(library: Library, module: ModuleType) -> None:
    if module.__name__ == _VALIDATION:
        for name in _FOLDS:
            if callable(vars(module).get(name)):
                _watch_folds(library, name, vars(module)[name])
    if module.__name__ == "sklearn.metrics":
        calls.watch_metrics(library, module)
    else:
        _bare(module, calls.MetricFunction)  # scikit-learn's own calls are nobody's metric
    for thing in list(vars(module).values()):
        if isinstance(thing, type) and thing.__module__ == module.__name__ and _is_estimator(thing):
            watch_class(library, thing, functools.partial(_fit, library))


def _watch_folds(library: Library, name: str, original: Callable[..., Any]) -> None:
    """Everywhere: a function goes to a worker process by its name, which must not name another function."""
    after = wrapper(original, _fold)
    for module in _modules():
        if vars(module).get(name) is original:
            library.patches.replace(module, name, after)


def _modules() -> List[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("sklearn.") and module is not None]


def _bare(module: ModuleType, kind: Any) -> None:
    """Put the originals where a module has imported ours from another one."""
    for name, value in list(vars(module).items()):
        if isinstance(value, kind) and is_ours(value):
            setattr(module, name, original_of(value))


def _unpatch() -> None:
    for module in _modules():
        _bare(module, object)


def _is_estimator(thing: type) -> bool:
    parts = thing.__module__.split(".")
    return (
        len(parts) > 1
        and not any([part in _EXCLUDED for part in parts])
        and not thing.__name__.startswith("_")
        and thing.__name__ not in _EXCLUDED_CLASSES
        and not getattr(thing, "__abstractmethods__", None)
        and callable(getattr(thing, "get_params", None))
        and hasattr(thing, "fit")
    )


def watch_class(library: Library, estimator: type, fit: Callable[..., Any]) -> None:
    """Stand before the methods of an estimator's class that train, predict and score."""
    for name in TRAININGS:
        if hasattr(estimator, name):
            library.patches.wrap(estimator, name, fit)
    for name in calls.PREDICTIONS:
        if hasattr(estimator, name):
            library.patches.wrap(estimator, name, functools.partial(calls.predict, library))
    if hasattr(estimator, "score"):
        library.patches.wrap(estimator, "score", functools.partial(calls.score, library))


def _fold(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with quiet():
        return original(*args, **kwargs)


def _fit(library: Library, original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any) -> Any:
    def before(session: Session) -> Callable[[Any], None]:
        return _before(session, original, estimator, args, kwargs)

    return train(library, type(estimator).__name__, before, original, estimator, *args, **kwargs)


# -- one training


def _before(
    session: Session, fit: Callable[..., Any], estimator: Any, args: Tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[Any], None]:
    is_search = _is_search(estimator)
    params = session.attempt("the params", estimator.get_params, deep=not is_search) or {}
    session.attempt("the params", session.log_params, params)
    session.attempt("the tags", session.run.set_tags, tags_of(estimator))
    known = session.attempt("the data", inputs.given_to, fit, args, kwargs)
    given = known or inputs.Given(None, None, None)
    if _changes_its_data(params):
        import copy

        given = session.attempt("the data", copy.deepcopy, given) or given
    dataset = None
    if session.settings.log_datasets and given.X is not None:
        dataset = session.attempt("the dataset", inputs.describe, given.X, given.y)
        session.attempt("the dataset", inputs.note, session, dataset, "train")
    few = session.attempt("the input example", inputs.rows, given.X) if session.settings.log_models else None

    def after(_: Any) -> None:
        answers = scores.Answers(estimator, given)
        found = session.attempt("the training scores", scores.training_scores, session, answers) or {}
        session.attempt("the training scores", session.run.log_metrics, found)
        if known and given.y is None and not found:
            session.library.say(f"no training scores of {session.label}: it was fitted without y")
        # After the scores, which a model keeps with it.
        session.attempt("the model", log_model, session, estimator, "model", few, params)
        session.attempt("the plots", scores.log_plots, session, answers)
        session.attempt("the picture", scores.log_html, session, estimator)
        if is_search:
            _log_search(session, estimator, few, dataset)
        session.attempt("what follows the training", calls.remember, session, estimator)

    return after


def tags_of(estimator: Any) -> Dict[str, str]:
    kind = type(estimator)
    return {"estimator_name": kind.__name__, "estimator_class": f"{kind.__module__}.{kind.__name__}"}


def _changes_its_data(params: Mapping[str, Any]) -> bool:
    """Whether the training may write into the arrays it is given: scores are then made of a copy."""
    return any([value is False and name.rpartition("__")[2] in _COPIES for name, value in params.items()])


def log_model(session: Session, estimator: Any, name: str, few: Any, params: Mapping[str, Any]) -> None:
    """Log a fitted estimator with the signature that a few rows and their answers show."""
    from mlcli.models import infer_signature
    from mlcli.models.sklearn import log_model as log

    settings = session.settings
    if not settings.log_models:
        return
    example = inputs.as_example(few)
    signature = None
    answer = next((name for name in ("predict", "transform") if hasattr(estimator, name)), None)
    if settings.log_model_signatures and example is not None and answer is not None:
        ask = getattr(estimator, answer)
        signature = session.attempt("the signature", lambda: infer_signature(example, ask(example)))
    log(
        estimator,
        name=name,
        signature=signature,
        input_example=example if settings.log_input_examples and not inputs.is_sparse(example) else None,
        serialization_format=settings.serialization_format,
        registered_model_name=settings.registered_model_name if name == "model" else None,
        params=params,
    )


# -- searches


def _is_search(estimator: Any) -> bool:
    from sklearn.model_selection._search import BaseSearchCV

    return isinstance(estimator, BaseSearchCV)


def _log_search(session: Session, search: Any, few: Any, dataset: Any) -> None:
    if hasattr(search, "best_estimator_"):
        best = search.best_estimator_
        session.attempt("the best estimator", log_model, session, best, "best_estimator", few, best.get_params())
    if hasattr(search, "best_score_"):
        session.attempt("the best score", session.run.log_metrics, {"best_cv_score": search.best_score_})
    if hasattr(search, "best_params_"):
        best = {f"best_{name}": value for name, value in search.best_params_.items()}
        session.attempt("the best params", session.log_params, best)
    if hasattr(search, "cv_results_"):
        session.attempt("the child runs", _log_children, session, search, dataset)
        session.attempt("cv_results.csv", session.run.log_text, _as_csv(search.cv_results_), "cv_results.csv")


def _log_children(session: Session, search: Any, dataset: Any) -> None:
    """A child run for each candidate, or for the best of them: params of the estimator that was tried, and its scores."""
    results = search.cv_results_
    chosen = list(range(len(results["params"])))
    most = session.settings.max_tuning_runs
    if most is not None:
        ranks = next((results[name] for name in results if name.startswith("rank_test_")), chosen)
        chosen = sorted(chosen, key=lambda place: ranks[place])[:most]
    seed = search.estimator
    base = seed.get_params(deep=not _is_search(seed))
    begun = session.run.info.start_time
    for place in chosen:
        child = start_child(session, tags_of(seed), begun)
        session.attempt("the params of a child run", log_params, child, {**base, **results["params"][place]})
        session.attempt("the scores of a child run", child.log_metrics, _numbers(results, place))
        if dataset is not None:
            session.attempt("the dataset of a child run", _note_dataset, child, dataset)
        child.journal.status(child.run_id, RunStatus.FINISHED, now())


def _note_dataset(run: Any, dataset: Any) -> None:
    from mlcli import content

    run.log_input(content.dataset(dataset), {"mlflow.data.context": "train"})


def _numbers(results: Mapping[str, Any], place: int) -> Dict[str, float]:
    """The scores of one candidate: means, deviations, ranks; not those of each fold."""
    return {
        name: float(column[place])
        for name, column in results.items()
        if not name.startswith(("param", "split"))
        and getattr(column, "dtype", None) is not None
        and column.dtype.kind in "iuf"
    }


def _as_csv(results: Mapping[str, Any]) -> str:
    """The table of a search, as pandas writes it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(results)
    columns: List[List[Any]] = [_cells(column) for column in results.values()]
    writer.writerows(zip(*columns))
    return text.getvalue()


def _cells(column: Any) -> List[Any]:
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    return ["" if value is None or value != value else value for value in values]  # noqa: PLR0124 - NaN


LIBRARY = Library("sklearn", ("sklearn",), _patch, (1, 0), unpatch=_unpatch)
