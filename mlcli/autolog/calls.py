"""What a program does with an estimator after its training: `score` and the functions of sklearn.metrics, logged by name.

The name of a metric tells the data it was computed on by the variable that the caller had them in:

    model.score(X_test, y_test)                                  LogisticRegression_score_X_test
    answers = model.predict(X_test)
    accuracy_score(y_test, answers)                              accuracy_score_X_test
    accuracy_score(y_test, answers)    again                     accuracy_score-2_X_test

An answer is known by its identity; what is computed from it is not followed. ``metric_info.json`` has each call's text.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import weakref
from threading import RLock
from types import FrameType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from mlcli import content
from mlcli.autolog import inputs
from mlcli.autolog.session import Library, Session, is_outermost, quiet
from mlcli.live import LiveRun

PREDICTIONS = ("predict", "predict_proba", "predict_log_proba", "transform")
_MOST_DATASETS = 20  # of one estimator: a program that predicts in a loop must not fill its run with them
_MOST_NAMED = 1000
_UNKNOWN = "unknown_dataset"
# Functions of sklearn.metrics that give no score.
_NO_SCORES = (
    "curve",
    "report",
    "matrix",
    "scorer",
    "scoring",
    "pairwise",
    "distances",
    "kernels",
    "silhouette_samples",
)

_lock = RLock()


class Trained:
    """An estimator that was fitted under autolog: its run, and what was called with it since."""

    def __init__(self, library: Library, run: LiveRun) -> None:
        self.library = library
        self.run = run
        self.datasets = 0
        self.noted = Known()  # the data that are datasets of the run already
        self.inputs: Dict[str, List[Tuple[int, Any]]] = {}  # a variable's name: the objects it had, by identity
        self.counts: Dict[str, int] = {}
        self.calls: Dict[str, str] = {}

    def input_name(self, value: Any, frame: Optional[FrameType]) -> str:
        """The caller's name of the data; another object by the same name gets a number."""
        name = caller_name(value, frame) or _UNKNOWN
        with _lock:
            known = self.inputs.setdefault(name, [])
            for place, (identity, reference) in enumerate(known):
                if identity == id(value) and (reference is None or reference() is value):
                    return _numbered(name, place)
            if len(known) < _MOST_NAMED:
                known.append((id(value), _reference(value)))
            return _numbered(name, len(known) - 1)

    def log(self, function: str, call: str, dataset: str, value: float) -> None:
        with _lock:
            place = self.counts.get(function, 0)
            self.counts[function] = place + 1
            key = f"{_numbered(function, place)}_{dataset}"
            self.run.log_metrics({key: value})
            if len(self.calls) < _MOST_NAMED:
                self.calls[key] = call
                self.run.log_dict(dict(sorted(self.calls.items())), "metric_info.json")


class Known:
    """Objects and what is known of them, by identity, as long as they live."""

    def __init__(self) -> None:
        self._found: Dict[int, Tuple[Any, Any]] = {}

    def add(self, thing: Any, fact: Any) -> None:
        identity = id(thing)
        try:
            reference = weakref.ref(thing, lambda _: self._found.pop(identity, None))
        except TypeError:  # e.g. a list
            return
        self._found[identity] = (reference, fact)

    def get(self, thing: Any) -> Any:
        found = self._found.get(id(thing))
        return found[1] if found is not None and found[0]() is thing else None


_trained = Known()
_answers = Known()


def remember(session: Session, estimator: Any) -> None:
    """Log what is called with this estimator from now on to the session's run."""
    if session.settings.log_post_training_metrics:
        _trained.add(estimator, Trained(session.library, session.run))


def _numbered(name: str, place: int) -> str:
    return name if place == 0 else f"{name}-{place + 1}"


def _reference(value: Any) -> Any:
    try:
        return weakref.ref(value)
    except TypeError:
        return None


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- what stands before the estimators' methods


def _watched(library: Library, estimator: Any) -> Optional[Trained]:
    found = _trained.get(estimator)
    if found is None or not library.on or not library.settings.log_post_training_metrics or not is_outermost():
        return None
    trained: Trained = found
    return trained


def predict(library: Library, original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any) -> Any:
    trained = _watched(library, estimator)
    if trained is None:
        return original(estimator, *args, **kwargs)
    with quiet():
        answer = original(estimator, *args, **kwargs)
        library.attempt("predictions are", _note_answer, trained, original, args, kwargs, answer, _caller())
    return answer


def score(library: Library, original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any) -> Any:
    trained = _watched(library, estimator)
    if trained is None:
        return original(estimator, *args, **kwargs)
    with quiet():
        value = original(estimator, *args, **kwargs)
        library.attempt(
            f"the score of {type(estimator).__name__} is",
            _note_score,
            trained,
            original,
            estimator,
            args,
            kwargs,
            value,
            _caller(),
        )
    return value


def _note_answer(
    trained: Trained,
    original: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    answer: Any,
    frame: Optional[FrameType],
) -> None:
    X = _first(original, args, kwargs)
    _answers.add(answer, (trained, trained.input_name(X, frame)))
    if trained.noted.get(X) or not trained.library.settings.log_datasets or trained.datasets >= _MOST_DATASETS:
        return
    dataset = inputs.describe(X)
    if dataset is not None:
        trained.datasets += 1
        trained.noted.add(X, fact=True)
        trained.run.log_input(content.dataset(dataset), {"mlflow.data.context": "eval"})


def _note_score(
    trained: Trained,
    original: Callable[..., Any],
    estimator: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    value: Any,
    frame: Optional[FrameType],
) -> None:
    if not _is_number(value):
        return
    function = f"{type(estimator).__name__}_score"
    call = f"{type(estimator).__name__}.score({_call_text(original, args, kwargs, frame, skip=1)})"
    name = trained.input_name(_first(original, args, kwargs), frame)
    trained.log(function, call, name, float(value))


def _first(method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if args:
        return args[0]
    names = list(inspect.signature(method).parameters)[1:2]
    return kwargs.get(names[0]) if names else None


# -- what stands before the functions of sklearn.metrics


class MetricFunction:
    """Stands before a function of sklearn.metrics. Pickled, it is that function: the reader needs nothing of ours."""

    __mlcli__ = True
    __wrapped__: Callable[..., Any]

    def __init__(self, library: Library, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._library = library

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        library = self._library
        if not library.on or not library.settings.log_post_training_metrics or not is_outermost():
            return self.__wrapped__(*args, **kwargs)
        with quiet():
            value = self.__wrapped__(*args, **kwargs)
            library.attempt(
                f"{self.__wrapped__.__name__} is",
                _note_metric,
                self.__wrapped__,
                args,
                kwargs,
                value,
                _caller(),
            )
        return value

    def __reduce__(self) -> Tuple[Any, ...]:
        return copy.copy, (self.__wrapped__,)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


def watch_metrics(library: Library, metrics: Any) -> None:
    """Stand before the functions of sklearn.metrics that give a score."""
    for name in metrics.__all__:
        function = getattr(metrics, name, None)
        if inspect.isfunction(function) and not any([part in name for part in _NO_SCORES]):
            library.patches.replace(metrics, name, MetricFunction(library, function))

    def make_scorer(original: Callable[..., Any], score_func: Any, *args: Any, **kwargs: Any) -> Any:
        bare = score_func.__wrapped__ if isinstance(score_func, MetricFunction) else score_func
        return original(bare, *args, **kwargs)  # a scorer is pickled with the models it scores

    library.patches.wrap(metrics, "make_scorer", make_scorer)


def _note_metric(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    value: Any,
    frame: Optional[FrameType],
) -> None:
    if not _is_number(value):
        return
    for given in (*args, *kwargs.values()):
        found = _answers.get(given)
        if found is not None:
            trained, dataset = found
            call = f"{function.__name__}({_call_text(function, args, kwargs, frame)})"
            trained.log(function.__name__, call, dataset, float(value))
            return


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float)) or (getattr(value, "shape", None) == () and value.dtype.kind in "iuf")


# -- names


def _caller() -> Optional[FrameType]:
    """The frame of the program, below those of ours."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("mlcli.autolog"):
        frame = frame.f_back
    return frame


def caller_name(value: Any, frame: Optional[FrameType]) -> Optional[str]:
    """The variable that holds ``value`` in the function it comes from: frames that were only handed it are passed over."""
    if value is None:
        return None
    while frame is not None:
        code, names = frame.f_code, frame.f_locals
        count = code.co_argcount + code.co_kwonlyargcount
        handed = [names.get(name) for name in code.co_varnames[:count]]
        rest = list(code.co_varnames[count : count + bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)])
        for name in rest:
            more = names.get(name, ())
            handed += list(more.values() if isinstance(more, dict) else more)
        if any([item is value for item in handed]):
            frame = frame.f_back
            continue
        return next((name for name, item in list(names.items()) if item is value and name.isidentifier()), None)
    return None


def _call_text(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    frame: Optional[FrameType],
    skip: int = 0,
) -> str:
    names = list(inspect.signature(function).parameters)[skip:]
    return ", ".join(f"{name}={_argument_text(value, frame)}" for name, value in [*zip(names, args), *kwargs.items()])


def _argument_text(value: Any, frame: Optional[FrameType]) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 32 else value[:32] + "...")
    if value is None or isinstance(value, (bool, int, float, complex)) or getattr(value, "shape", None) == ():
        return repr(value)
    return caller_name(value, frame) or f"<{type(value).__name__}>"
