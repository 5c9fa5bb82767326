"""`mlcli.evaluate(...)`: the evaluation from Python, with MLflow's arguments and result where they mean the same."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from mlcli.artifacts import open_artifacts
from mlcli.errors import InvalidInput
from mlcli.evaluation import learners, offline, tables
from mlcli.evaluation.offline import Listener, Request
from mlcli.evaluation.scores import Curve
from mlcli.evaluation.splits import Scheme
from mlcli.evaluation.statistics import Interval
from mlcli.evaluation.thresholds import MetricThreshold, validate_evaluation_results

_METRICS, _ARTIFACTS, _REPORT = "metrics.json", "artifacts_metadata.json", "report.json"


class EvaluationArtifact(NamedTuple):
    """A file of the evaluation: where it is, and what it holds (of a curve, its points)."""

    uri: str
    content: Any = None


class EvaluationResult:
    """What came of an evaluation.

    ``metrics`` are the numbers by name, ``intervals`` the bounds of those that have them, ``comparisons`` the tests against
    baselines, ``failed`` what was not reached, ``report`` all of it as one JSON-ready object.
    """

    def __init__(
        self,
        metrics: Dict[str, float],
        artifacts: Dict[str, EvaluationArtifact],
        run_id: Optional[str] = None,
        report: Optional[Dict[str, Any]] = None,
        tables: Optional[Dict[str, Any]] = None,
    ) -> None:
        self.metrics = metrics
        self.artifacts = artifacts
        self.run_id = run_id
        self.report = report or {}
        self._tables = tables

    @property
    def intervals(self) -> Dict[str, Interval]:
        figures = self.report.get("metrics", {})
        return {
            name: Interval(figure["low"], figure["high"], figure["interval"])
            for name, figure in figures.items()
            if figure.get("low") is not None
        }

    @property
    def comparisons(self) -> List[Dict[str, Any]]:
        return list(self.report.get("comparisons", ()))

    @property
    def warnings(self) -> List[str]:
        return list(self.report.get("warnings", ()))

    @property
    def failed(self) -> List[str]:
        return list(self.report.get("failed", ()))

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def tables(self) -> Dict[str, Any]:
        """``eval_results_table``: a DataFrame with row, fold, target and prediction of everything that was tested."""
        if self._tables is None:
            found = self.artifacts.get("predictions")
            self._tables = {} if found is None else {"eval_results_table": tables.read(found.uri)}
        return self._tables

    def save(self, path: str) -> None:
        """Write it to a folder that :meth:`load` reads."""
        os.makedirs(path, exist_ok=True)
        known = {name: {"uri": item.uri} for name, item in self.artifacts.items()}
        for name, value in ((_METRICS, self.metrics), (_ARTIFACTS, known), (_REPORT, self.report)):
            with open(os.path.join(path, name), "w", encoding="utf-8") as file:
                json.dump(value, file, indent=2)
        with open(os.path.join(path, "run_id"), "w", encoding="utf-8") as file:
            file.write(self.run_id or "")

    @classmethod
    def load(cls, path: str) -> EvaluationResult:
        """Read what :meth:`save` wrote."""
        try:
            metrics, known, report = [_json(os.path.join(path, name)) for name in (_METRICS, _ARTIFACTS, _REPORT)]
            with open(os.path.join(path, "run_id"), encoding="utf-8") as file:
                run_id = file.read() or None
        except FileNotFoundError as error:
            raise InvalidInput(f"{path} holds no saved evaluation: {error.filename} is missing") from None
        return cls(metrics, {name: EvaluationArtifact(item["uri"]) for name, item in known.items()}, run_id, report)

    def __repr__(self) -> str:
        return f"<EvaluationResult of run {self.run_id}: {', '.join(f'{k}={v:.4g}' for k, v in self.shown().items())}>"

    def shown(self) -> Dict[str, float]:
        """The scores alone, without what is told beside them."""
        figures = self.report.get("metrics", {})
        return {name: figure["value"] for name, figure in figures.items() if figure.get("value") is not None}


def _json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def evaluate(
    model: Any = None,
    data: Any = None,
    *,
    model_type: Optional[str] = None,
    targets: Any = None,
    predictions: Any = None,
    dataset_path: Any = None,  # noqa: ARG001 - MLflow's signature; the digest tells the data
    feature_names: Optional[Sequence[str]] = None,
    evaluators: Any = None,
    evaluator_config: Optional[Mapping[str, Any]] = None,
    extra_metrics: Union[Mapping[str, Callable[[Any, Any], float]], Sequence[Any], None] = None,
    custom_artifacts: Any = None,
    env_manager: Optional[str] = None,
    model_config: Any = None,
    inference_params: Any = None,
    model_id: Optional[str] = None,  # noqa: ARG001 - MLflow's signature
    method: Optional[str] = None,
    folds: int = 5,
    repeats: Optional[int] = None,
    test_size: float = 0.25,
    n_boot: int = 200,
    seed: int = 0,
    stratify: Optional[bool] = None,
    groups: Any = None,
    times: Any = None,
    metrics: Sequence[str] = (),
    interval: str = "auto",
    level: float = 0.95,
    baseline: Any = None,
    test: str = "auto",
    alpha: float = 0.05,
    thresholds: Optional[Mapping[str, MetricThreshold]] = None,
    jobs: int = 1,
    trust: bool = False,
    run_name: Optional[str] = None,
    resume: Optional[str] = None,
    progress: Optional[Callable[[int, int], None]] = None,
    entry_point: Optional[str] = None,
    parameters: Optional[Mapping[str, Any]] = None,
) -> EvaluationResult:
    """Evaluate a model on data and record it: in the active run, or in a new one.

    ``model`` is an estimator, a function, the URI or folder of a model, a project, or None with ``predictions``.
    ``targets``, ``predictions``, ``groups`` and ``times`` are names of columns or the columns themselves.

    ``entry_point``, ``parameters`` and ``env_manager`` are of a project, as for ``mlcli run``.

    ``method`` says what is done; by default what is fitted is scored as it is, an estimator that is not is fitted on each
    of five folds, and a project on a part of the rows:

        none                                                scores a fitted model on all rows
        holdout                                             fits once, tests on ``test_size`` of the rows
        kfold, repeated-kfold, stratified, grouped          each row is tested by a model that did not see it
        timeseries                                          tested on what comes after what was fitted on
        bootstrap                                           refits on ``n_boot`` resamples: out-of-bag, .632, .632+
    """
    for name, value in (
        ("evaluators", None if evaluators in (None, "default") else evaluators),
        ("custom_artifacts", custom_artifacts),
        ("model_config", model_config),
        ("inference_params", inference_params),
    ):
        if value:
            raise InvalidInput(f"evaluate() knows nothing to do with {name}", hint="leave it out")
    project = isinstance(model, (str, os.PathLike)) and model != learners.DUMMY and not learners.is_model(str(model))
    if (entry_point or parameters) and not project:
        raise InvalidInput("entry_point and parameters are a project's, and this is none", hint="leave them out")
    if env_manager not in (None, "local") and not project:
        raise InvalidInput(
            f"from Python a model is evaluated in this environment, not in one of {env_manager}",
            hint=f"mlcli evaluate MODEL --env-manager {env_manager} does it on the command line",
        )
    custom = _custom(extra_metrics)
    settings = dict(evaluator_config or {})
    metrics = settings.pop("metrics", metrics)
    unknown = [name for name in settings if name != "log_model_explainability"]
    if unknown:
        raise InvalidInput(f"evaluate() knows no evaluator_config {unknown[0]!r}", hint="leave it out")
    if project:
        from mlcli.evaluation.trained import Recipe

        given = {name: str(value) for name, value in (parameters or {}).items()}
        model = Recipe(str(model), entry_point=entry_point, parameters=given, env_manager=env_manager)
    learner = learners.of(model, trust=trust)
    done_by = method or default_method(learner)
    if repeats is None:
        repeats = 10 if done_by == "repeated-kfold" else 1
    baselines = () if baseline is None else tuple(baseline) if isinstance(baseline, (list, tuple)) else (baseline,)
    done = offline.evaluate(
        Request(
            model=learner,
            data=data,
            target=targets,
            group=groups,
            time=times,
            predictions=predictions,
            model_type=model_type,
            scheme=Scheme(done_by, folds, repeats, test_size, n_boot, seed, stratify),
            metrics=tuple(metrics),
            custom=custom,
            interval=interval,
            level=level,
            baselines=baselines,
            test=test,
            alpha=alpha,
            thresholds=dict(thresholds or {}),
            jobs=jobs,
            trust=trust,
            run_name=run_name,
            resume=resume,
            features=feature_names,
        ),
        Listener(warn=_warn, progress=progress or (lambda _done, _total: None)),
    )
    return result_of(done)


def default_method(learner: learners.Learner) -> str:
    """What is done where nothing is said."""
    if learner.fitted:
        return "none"
    return "holdout" if hasattr(learner.model, "evaluate_fold") else "kfold"


def _custom(given: Any) -> Dict[str, Callable[[Any, Any], float]]:
    if given is None:
        return {}
    found = dict(given) if isinstance(given, Mapping) else {getattr(item, "__name__", ""): item for item in given}
    wrong = [name for name, function in found.items() if not name or name == "<lambda>" or not callable(function)]
    if wrong:
        raise InvalidInput(
            "extra_metrics are functions of truth and prediction with names", hint="extra_metrics={'cost': cost}"
        )
    return found


def _warn(text: str) -> None:
    import sys

    print(f"mlcli: {text}", file=sys.stderr)


def result_of(done: offline.Evaluated) -> EvaluationResult:
    """The result with its files."""
    from mlcli import fluent
    from mlcli.store import open_store

    with open_store(fluent.get_tracking_uri(), create=False) as store:
        root = store.artifact_root(done.run_id)
    artifacts = open_artifacts(root)
    found = {}
    for name, curve in done.curves.items():
        found[name] = EvaluationArtifact(f"{root}/{name}.csv", _frame(curve))
    for name, file in (("predictions", offline.PREDICTIONS), ("folds", offline.FOLDS), ("report", offline.PAGE)):
        if artifacts.has(file):
            found[name] = EvaluationArtifact(f"{root}/{file}")
    return EvaluationResult(offline.flat(done.report), found, done.run_id, done.report)


def _frame(curve: Curve) -> Any:
    try:
        import pandas as pd
    except ImportError:
        return curve
    return pd.DataFrame(curve.rows, columns=list(curve.columns))


__all__ = ["EvaluationArtifact", "EvaluationResult", "MetricThreshold", "evaluate", "validate_evaluation_results"]
