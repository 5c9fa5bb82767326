"""What a fitted scikit-learn estimator makes of the data it was fitted on: scores, plots, its picture as HTML.

Each kind of prediction is asked for once and serves all that is made of it; `score` is not called where it says what a metric
says already.
"""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Any, Callable, Dict, Iterator, List, Tuple

from mlcli.autolog import patches
from mlcli.autolog.inputs import Given, is_sparse
from mlcli.autolog.session import Session

PREFIX = "training_"
_PLOT_DPI = 120
_matplotlib = Lock()


class Answers:
    """The estimator's answers to the training data, each asked for when it is first needed."""

    def __init__(self, estimator: Any, given: Given) -> None:
        self.estimator = estimator
        self.given = given
        self._known: Dict[str, Any] = {}

    def get(self, method: str) -> Any:
        if method not in self._known:
            self._known[method] = getattr(self.estimator, method)(self.given.X)
        return self._known[method]


def training_scores(session: Session, answers: Answers) -> Dict[str, float]:
    """The scores that MLflow logs for a classifier or a regressor; one that cannot be computed is left out, and said."""
    from sklearn.base import is_classifier, is_regressor

    estimator, given = answers.estimator, answers.given
    if given.y is None:
        return {}
    found: Dict[str, float] = {}
    wanted: List[Tuple[str, Callable[[], float]]] = []
    if is_classifier(estimator):
        wanted = _of_classifier(answers, session.settings.pos_label)
    elif is_regressor(estimator):
        wanted = _of_regressor(answers)
    failed: Dict[str, List[str]] = {}
    for name, score in wanted:
        try:
            found[PREFIX + name] = float(score())
        except Exception as error:  # noqa: BLE001 - many scores are not made for some kind of answers
            failed.setdefault(f"{type(error).__name__}: {error}".splitlines()[0], []).append(name)
    for reason, names in failed.items():
        session.library.say(f"no {', '.join(names)} of {session.label} ({reason[:200]})")
    if PREFIX + "mean_squared_error" in found:
        found[PREFIX + "root_mean_squared_error"] = found[PREFIX + "mean_squared_error"] ** 0.5
    if hasattr(estimator, "score"):
        score = session.attempt("the score", _score, answers, found)
        if score is not None:
            found[PREFIX + "score"] = score
    return found


def _of_classifier(answers: Answers, pos_label: Any) -> List[Tuple[str, Callable[[], float]]]:
    from sklearn import metrics

    y, weight = _flat(answers.given.y), answers.given.sample_weight
    kind = {"average": "weighted"} if pos_label is None else {"average": "binary", "pos_label": pos_label}

    def of_answers(name: str, **options: Any) -> Callable[[], float]:
        function = patches.original_of(getattr(metrics, name))
        return lambda: function(y, answers.get("predict"), sample_weight=weight, **options)

    def log_loss() -> Any:
        return patches.original_of(metrics.log_loss)(y, answers.get("predict_proba"), sample_weight=weight)

    def roc_auc() -> Any:
        proba = answers.get("predict_proba")
        scores = proba[:, 1] if len(proba[0]) == 2 and len(getattr(y, "shape", (0,))) == 1 else proba
        function = patches.original_of(metrics.roc_auc_score)
        return function(y, scores, average="weighted", sample_weight=weight, multi_class="ovo")

    found = [
        ("precision_score", of_answers("precision_score", zero_division=0, **kind)),
        ("recall_score", of_answers("recall_score", zero_division=0, **kind)),
        ("f1_score", of_answers("f1_score", zero_division=0, **kind)),
        ("accuracy_score", of_answers("accuracy_score")),
    ]
    if hasattr(answers.estimator, "predict_proba"):
        found += [("log_loss", log_loss), ("roc_auc", roc_auc)]
    return found


def _flat(y: Any) -> Any:
    """The answers of one column as that column."""
    shape: Any = getattr(y, "shape", (0,))
    if len(shape) == 2 and shape[1] == 1 and not is_sparse(y):
        return y.iloc[:, 0] if hasattr(y, "iloc") else y[:, 0]
    return y


def _of_regressor(answers: Answers) -> List[Tuple[str, Callable[[], float]]]:
    from sklearn import metrics

    y, weight = answers.given.y, answers.given.sample_weight

    def of(name: str) -> Callable[[], float]:
        function = patches.original_of(getattr(metrics, name))
        return lambda: function(y, answers.get("predict"), sample_weight=weight, multioutput="uniform_average")

    return [(name, of(name)) for name in ("mean_squared_error", "mean_absolute_error", "r2_score")]


def _score(answers: Answers, found: Dict[str, float]) -> float:
    """What ``estimator.score`` says: a metric that is known already where the estimator has the ordinary one."""
    from sklearn.base import ClassifierMixin, RegressorMixin

    estimator, given = answers.estimator, answers.given
    score = inspect.unwrap(type(_scorer_of(estimator)).score)
    takes_weight = "sample_weight" in inspect.signature(estimator.score).parameters
    if takes_weight or given.sample_weight is None:
        for mixin, metric in ((ClassifierMixin, "accuracy_score"), (RegressorMixin, "r2_score")):
            if score is mixin.score and PREFIX + metric in found:
                return found[PREFIX + metric]
    options = {"sample_weight": given.sample_weight} if takes_weight and given.sample_weight is not None else {}
    return float(estimator.score(given.X, given.y, **options))


def _scorer_of(estimator: Any) -> Any:
    """The estimator whose `score` answers for this one: the last of a pipeline, the best of a search that scores by it."""
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import Pipeline

    if type(estimator) is Pipeline and hasattr(estimator.steps[-1][1], "score"):
        return _scorer_of(estimator.steps[-1][1])
    if type(estimator) in (GridSearchCV, RandomizedSearchCV) and estimator.scoring is None:
        return _scorer_of(estimator.best_estimator_)
    return estimator


# -- plots


def log_plots(session: Session, answers: Answers) -> None:
    """Confusion matrix, and for two classes ROC and precision-recall curves, in MLflow's files."""
    from sklearn.base import is_classifier

    y = answers.given.y
    if y is None or not is_classifier(answers.estimator) or is_sparse(y):
        return
    if len(getattr(y, "shape", (0,))) > 1 and y.shape[1] > 1:  # several answers at once have no such plots
        return
    if not can_plot(session):
        return
    import numpy as np

    y = np.ravel(y)
    with drawing():
        session.attempt("the confusion matrix", _draw_confusion, session, answers, y)
        if len(np.unique(y)) == 2:
            session.attempt("the ROC curve", _draw_curve, session, answers, y, "Roc", "roc_curve", "ROC curve")
            session.attempt(
                "the precision-recall curve",
                _draw_curve,
                session,
                answers,
                y,
                "PrecisionRecall",
                "precision_recall_curve",
                "Precision recall curve",
            )


@contextmanager
def drawing() -> Iterator[None]:
    """For one thread at a time, as matplotlib is."""
    with _matplotlib:
        yield


def _after_fork() -> None:
    global _matplotlib  # noqa: PLW0603 - another thread of the parent may have held it
    _matplotlib = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def can_plot(session: Session) -> bool:
    """Whether matplotlib can be imported; that it cannot is said once."""
    try:
        import_module("matplotlib")
    except ImportError:
        session.library.say("no plots are logged: matplotlib is not installed (pip install matplotlib)")
        return False
    return True


def new_figure(width: float = 6.0, height: float = 4.5) -> Tuple[Any, Any]:
    """A figure that pyplot, whose figures are the user's, does not know."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_PLOT_DPI)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot(1, 1, 1)


def _save(session: Session, figure: Any, name: str) -> None:
    with session.run.artifacts.writing(f"{PREFIX}{name}.png", ".png") as path:
        figure.savefig(path, dpi=_PLOT_DPI)


def _draw_confusion(session: Session, answers: Answers, y: Any) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    labels = getattr(answers.estimator, "classes_", None)
    shares = confusion_matrix(
        y, answers.get("predict"), sample_weight=answers.given.sample_weight, labels=labels, normalize="true"
    )
    figure, axes = new_figure()
    display = ConfusionMatrixDisplay(shares, display_labels=labels)
    display.plot(
        ax=axes, cmap="Blues", values_format=".2f" if len(shares) > 2 else None, include_values=len(shares) <= 30
    )
    size = min(10.0, 60.0 / len(shares))
    for text in [
        *axes.get_xticklabels(),
        *axes.get_yticklabels(),
        *(display.text_.ravel() if len(shares) <= 30 else ()),
    ]:
        text.set_fontsize(size)
    axes.set_title("Normalized confusion matrix")
    figure.tight_layout()  # labels may be long
    _save(session, figure, "confusion_matrix")


def _draw_curve(session: Session, answers: Answers, y: Any, kind: str, name: str, title: str) -> None:
    from sklearn import metrics

    estimator = answers.estimator
    if hasattr(estimator, "predict_proba"):
        scores = answers.get("predict_proba")[:, 1]
    elif hasattr(estimator, "decision_function"):
        scores = answers.get("decision_function")
    else:
        return
    figure, axes = new_figure()
    getattr(metrics, f"{kind}CurveDisplay" if kind == "Roc" else f"{kind}Display").from_predictions(
        y,
        scores,
        sample_weight=answers.given.sample_weight,
        pos_label=estimator.classes_[1],
        name=type(estimator).__name__,
        ax=axes,
    )
    axes.set_title(title)
    _save(session, figure, name)


def log_html(session: Session, estimator: Any) -> None:
    """The estimator's parts and settings as a page that can be opened by itself."""
    from sklearn.utils import estimator_html_repr

    page = f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="UTF-8"></head>\n<body>\n{estimator_html_repr(estimator)}\n</body>\n</html>\n'
    session.run.log_text(page, "estimator.html")
