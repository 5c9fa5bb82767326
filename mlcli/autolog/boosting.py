"""What the autologs of XGBoost and LightGBM have in common: `train` and the estimators above it, curves, importances, models.

Both have a function `train` and estimators whose `fit` calls it. An estimator's `fit` is the training, and `train` inside of it
logs the params, the curves and the importances; called by itself, `train` is the training and logs the model too.
"""

from __future__ import annotations

import functools
import inspect
import json
from importlib import import_module
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from mlcli.autolog import calls, inputs
from mlcli.autolog.scores import can_plot, drawing, new_figure
from mlcli.autolog.session import Library, Session, current, is_outermost, train
from mlcli.autolog.sklearn import watch_class


class Booster(NamedTuple):
    """What one of the two libraries does in its own way."""

    library: Library
    unlogged: Tuple[str, ...]  # arguments of `train` that are no params
    callback: Callable[
        [Callable[[int, Dict[str, float]], None]], Any
    ]  # the library's callback that reports each iteration
    stopped: Callable[[Any, List[Dict[str, float]]], Optional[Dict[str, int]]]  # how early stopping ended, if it was on
    importances: Callable[[Any, Session], Mapping[str, Tuple[List[str], Any]]]  # by kind: features and their importance
    datasets: Callable[[Mapping[str, Any]], List[Tuple[Any, Any, str, Optional[str]]]]  # data, answers, context, name
    evaluation: str  # what the estimators call their evaluation sets, with a number; "" for nothing
    predict: Callable[[Any, Any], Any]  # what a trained model says about a few rows
    model_options: Callable[[], Dict[str, Any]]


def watch_train(booster: Booster, module: ModuleType, *, is_estimators: bool) -> None:
    """Stand before ``module.train``: the function that programs call, or the name of it that the estimators call."""
    if callable(vars(module).get("train")):
        call = functools.partial(_within, booster) if is_estimators else functools.partial(_train, booster)
        booster.library.patches.wrap(module, "train", call)


def watch_estimators(booster: Booster, module: ModuleType, base: type) -> None:
    for thing in list(vars(module).values()):
        if isinstance(thing, type) and issubclass(thing, base) and thing.__module__ == module.__name__:
            watch_class(booster.library, thing, functools.partial(_fit, booster))


_examples = calls.Known()


def watch_data(booster: Booster, data: type) -> None:
    """Keep the first rows of the library's own data objects, which do not give them back."""

    def made(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if is_outermost():
            rows: Any = args[0] if args else kwargs.get("data")
            if len(getattr(rows, "shape", ())) == 2:
                booster.library.attempt("an input example is", _keep, self, rows)

    booster.library.patches.wrap(data, "__init__", made)


def _keep(made: Any, rows: Any) -> None:
    _examples.add(made, inputs.rows(rows))


# -- trainings


def _fit(booster: Booster, original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any) -> Any:
    def before(session: Session) -> Callable[[Any], None]:
        session.welcomes = booster.library.name
        given = session.attempt("the data", inputs.given_to, original, args, kwargs)
        few = None if given is None else session.attempt("the input example", inputs.rows, given.X)
        if given is not None and session.settings.log_datasets:
            # As the program has them: what `train` is given has been put into bins.
            named = inputs.arguments(original, args, kwargs)
            session.attempt("the datasets", _note_datasets, booster, session, given, named)

        def after(_: Any) -> None:
            session.attempt("the model", _log_model, booster, session, estimator, few, estimator.predict)
            session.attempt("what follows the training", calls.remember, session, estimator)

        return after

    return train(booster.library, type(estimator).__name__, before, original, estimator, *args, **kwargs)


def _note_datasets(booster: Booster, session: Session, given: inputs.Given, named: Mapping[str, Any]) -> None:
    inputs.note(session, inputs.describe(given.X, given.y), "train")
    names = list(named.get("eval_names") or ())
    for place, (X, y) in enumerate(_evaluation_sets(named)):
        name = names[place] if place < len(names) else f"{booster.evaluation}_{place}" if booster.evaluation else None
        inputs.note(session, inputs.describe(X, y, name), "eval")


def _evaluation_sets(named: Mapping[str, Any]) -> List[Tuple[Any, Any]]:
    X, y = named.get("eval_X"), named.get("eval_y")  # LightGBM 4.7 and newer
    if X is not None:
        return list(zip(X, y or ())) if isinstance(X, tuple) else [(X, y)]
    return [(pair[0], pair[1]) for pair in named.get("eval_set") or ()]


def _within(booster: Booster, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`train` as an estimator calls it: logged as a part of the estimator's training, or not at all."""
    session = current()
    if session is None or session.welcomes != booster.library.name:
        return original(*args, **kwargs)
    session.welcomes = ""
    recording = session.attempt("the training", _Recording, booster, session, original, args, kwargs, notes_data=False)
    if recording is None:
        return original(*args, **kwargs)
    model = original(*recording.args, **recording.kwargs)
    session.attempt("what is known after the training", recording.finish, model)
    return model


def _train(booster: Booster, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    chosen: List[_Recording] = []

    def before(session: Session) -> Optional[Callable[[Any], None]]:
        recording = _Recording(booster, session, original, args, kwargs)
        chosen.append(recording)
        data = recording.given.get("dtrain", recording.given.get("train_set"))

        def after(model: Any) -> None:
            recording.finish(model)
            few = _examples.get(data)
            predict = functools.partial(booster.predict, model)
            session.attempt("the model", _log_model, booster, session, model, few, predict)

        return after

    def called(*_: Any, **__: Any) -> Any:
        return original(*chosen[0].args, **chosen[0].kwargs) if chosen else original(*args, **kwargs)

    return train(booster.library, f"{booster.library.name}.train", before, called)


class _Recording:
    """One call of `train`: logs what is known before, gives the arguments with our callback among them, logs the rest."""

    def __init__(
        self,
        booster: Booster,
        session: Session,
        original: Callable[..., Any],
        args: Tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        notes_data: bool = True,
    ) -> None:
        self.booster, self.session = booster, session
        signature = inspect.signature(original)
        bound = signature.bind(*args, **kwargs)
        own = dict(bound.arguments.get("params") or {})
        bound.apply_defaults()
        self.given: Dict[str, Any] = dict(bound.arguments)
        rest = {name: value for name, value in self.given.items() if name not in booster.unlogged}
        session.attempt("the params", session.log_params, {**rest, **own})
        if notes_data and session.settings.log_datasets:
            session.attempt("the datasets", self._note_datasets)
        self.curve: List[Dict[str, float]] = []
        # A list of its own: the caller's is the caller's.
        self.given["callbacks"] = [*(self.given.get("callbacks") or ()), booster.callback(self._report)]
        bound.arguments["callbacks"] = self.given["callbacks"]
        self.args, self.kwargs = bound.args, bound.kwargs

    def _note_datasets(self) -> None:
        for data, answers, context, name in self.booster.datasets(self.given):
            inputs.note(self.session, inputs.describe(data, answers, name), context)

    def _report(self, step: int, values: Dict[str, float]) -> None:
        self.session.attempt("the scores of an iteration", self._log_iteration, step, values)

    def _log_iteration(self, step: int, values: Dict[str, float]) -> None:
        metrics = {name.replace("@", "_at_"): float(value) for name, value in values.items()}
        self.curve.append(metrics)
        self.session.run.log_metrics(metrics, step)

    def finish(self, model: Any) -> None:
        self.session.attempt("how it stopped", self._log_stop, model)
        for kind, (features, values) in (
            self.session.attempt("the importances", self.booster.importances, model, self.session) or {}
        ).items():
            name = f"feature_importance_{kind}"
            numbers = {feature: _plain(value) for feature, value in zip(features, values)}
            self.session.attempt(f"the {kind} importances", self._log_importances, name, numbers)
            self.session.attempt(f"the plot of the {kind} importances", _plot, self.session, name, kind, numbers)

    def _log_importances(self, name: str, numbers: Dict[str, Any]) -> None:
        self.session.run.log_text(json.dumps(numbers, indent=2), f"{name}.json")

    def _log_stop(self, model: Any) -> None:
        """Where it stopped and which iteration was the best, whose scores stand once more at the end of the curves."""
        stop = self.booster.stopped(model, self.curve)
        if stop is None:
            return
        best = stop.pop("best_place")
        self.session.run.log_metrics(stop)
        if 0 <= best < len(self.curve):
            self.session.run.log_metrics(self.curve[best], len(self.curve))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _log_model(booster: Booster, session: Session, model: Any, few: Any, predict: Callable[[Any], Any]) -> None:
    from mlcli.models import infer_signature

    settings = session.settings
    if not settings.log_models:
        return
    example = inputs.as_example(few)
    signature = None
    if settings.log_model_signatures and example is not None:
        signature = session.attempt("the signature", lambda: infer_signature(example, predict(example)))
    # The flavor imports its library; this module is about none of them.
    import_module(f"mlcli.models.{booster.library.name}").log_model(
        model,
        name="model",
        signature=signature,
        input_example=example if settings.log_input_examples and not inputs.is_sparse(example) else None,
        registered_model_name=settings.registered_model_name,
        **booster.model_options(),
    )


# -- plots


def _plot(session: Session, name: str, kind: str, numbers: Mapping[str, Any]) -> None:
    """Bars, the longest at the top; where there is an importance for each class, a bar for each."""
    if not numbers or not can_plot(session):
        return

    def weight(item: Tuple[str, Any]) -> float:
        return sum(map(abs, item[1])) if isinstance(item[1], list) else float(item[1])

    ordered = sorted(numbers.items(), key=weight)
    rows = [value if isinstance(value, list) else [value] for _, value in ordered]
    classes = len(rows[0])
    with drawing():
        figure, axes = new_figure(6.4, min(40.0, max(4.8, 1.5 + 0.2 * len(rows) * max(1, classes // 3))))
        height = 0.8 / classes
        for index in range(classes):
            places = [row + (index - (classes - 1) / 2) * height for row in range(len(rows))]
            axes.barh(places, [values[index] for values in rows], height=height, label=f"Class {index}")
        axes.set_yticks(range(len(rows)))
        axes.set_yticklabels([feature for feature, _ in ordered])
        axes.set_xlabel("Importance")
        axes.set_title(f"Feature Importance ({kind})")
        if classes > 1:
            axes.legend()
        figure.tight_layout()
        with session.run.artifacts.writing(f"{name}.png", ".png") as path:
            figure.savefig(path)
