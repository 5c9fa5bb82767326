"""Offline evaluation: a learner, rows and a scheme become a recorded run that says how good, and how sure of it.

load     the learner, the rows, the splits, what may leak: all that can be wrong is found here; no run exists yet
answer   each fold is fitted and tested, beside each other where asked; what is done is kept, so that it can be resumed
tell     scores with intervals, comparisons with baselines by the test that fits, thresholds
record   params, metrics, the rows' digest, predictions, folds, curves, report.json and report.html in the run
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli import config, content, fluent, rights, rules
from mlcli._version import __version__
from mlcli.autolog import session
from mlcli.errors import InvalidInput, InvalidState, MlcliError
from mlcli.evaluation import learners, scores, splits, statistics, tables, thresholds
from mlcli.evaluation.learners import Learner, Outcome
from mlcli.evaluation.scores import Answers, Curve, Resampling
from mlcli.evaluation.splits import Scheme, Splits
from mlcli.evaluation.statistics import Comparison, Interval
from mlcli.evaluation.tables import Table
from mlcli.evaluation.thresholds import MetricThreshold

TAG = "mlcli.evaluation"  # of a run that is an evaluation; its value is the method
REPORT, PAGE, PREDICTIONS, FOLDS = "report.json", "report.html", "predictions.csv", "folds.json"
SINGLE = ("holdout", "none")  # one model, tested once
FORMAT = 1


class Request(NamedTuple):
    """What is to be evaluated, on what, and how."""

    model: Any
    data: Any
    target: Any = None
    group: Any = None
    time: Any = None
    predictions: Any = None
    model_type: Optional[str] = None
    scheme: Scheme = Scheme()
    metrics: Tuple[str, ...] = ()  # none: all that apply
    custom: Mapping[str, Callable[[Any, Any], float]] = {}
    interval: str = "auto"
    level: float = 0.95
    baselines: Tuple[Any, ...] = ()
    test: str = "auto"
    alpha: float = 0.05
    thresholds: Mapping[str, MetricThreshold] = {}
    jobs: int = 1
    trust: bool = False
    run_id: Optional[str] = None  # to log into
    resume: Optional[str] = None  # to go on with
    run_name: Optional[str] = None
    experiment_id: Optional[str] = None
    features: Optional[Sequence[str]] = None
    arguments: Mapping[str, Any] = {}  # what a face wants back when the evaluation is resumed


class Listener(NamedTuple):
    """Whom the evaluation tells what it does."""

    progress: Callable[[int, int], None] = lambda _done, _total: None
    note: Callable[[str], None] = lambda _text: None
    warn: Callable[[str], None] = lambda _text: None
    started: Callable[[str], None] = lambda _run_id: None


class Figure(NamedTuple):
    """One number with all that is known of it."""

    value: float
    interval: Optional[Interval] = None
    std: Optional[float] = None
    folds: Tuple[float, ...] = ()
    estimate: str = ""
    more: Mapping[str, float] = {}


class Job(NamedTuple):
    """A request with everything found and checked."""

    request: Request
    learner: Learner
    baselines: Tuple[Learner, ...]
    table: Table
    kind: str
    plan: Splits
    custom: Mapping[str, Any]
    warnings: Tuple[str, ...]
    fingerprint: str


# -- load


def check(request: Request) -> None:
    """Refuse what contradicts itself, before anything is loaded."""
    splits.check(request.scheme)
    method = request.scheme.method
    if request.model_type not in (None, *scores.TYPES):
        raise InvalidInput(f"there is no type {request.model_type!r}", hint="classifier or regressor")
    if request.interval not in scores.INTERVALS:
        raise InvalidInput(f"there is no interval {request.interval!r}", hint="one of " + ", ".join(scores.INTERVALS))
    for name, value in (("--level", request.level), ("--alpha", request.alpha)):
        if not 0 < value < 1:
            raise InvalidInput(f"{name} is a share between 0 and 1, not {value:g}")
    if request.jobs < 1:
        raise InvalidInput(f"{request.jobs} folds at once cannot be", hint="-j 2")
    if request.test not in scores.TESTS:
        raise InvalidInput(f"there is no test {request.test!r}", hint="one of " + ", ".join(scores.TESTS))
    if request.test != "auto" and not request.baselines:
        raise InvalidInput(
            f"--test {request.test} compares with a baseline, and none is named", hint="--baseline MODEL"
        )
    if request.test in ("mcnemar", "delong", "paired-bootstrap") and method not in SINGLE:
        raise InvalidInput(
            f"{request.test} compares two fitted models on the same rows; --method {method} fits anew for each fold",
            hint="--test nb-t compares learners by their folds",
        )
    if request.test in ("nb-t", "5x2cv-t", "5x2cv-f") and method in SINGLE:
        raise InvalidInput(
            f"{request.test} compares learners by their folds; --method {method} has none", hint="--method kfold"
        )
    if request.test.startswith("5x2cv") and (method, request.scheme.folds, request.scheme.repeats) != (
        "repeated-kfold",
        2,
        5,
    ):
        raise InvalidInput(
            f"{request.test} needs five repeats of two folds", hint="--method repeated-kfold --folds 2 --repeats 5"
        )
    improved = [
        name
        for name, item in request.thresholds.items()
        if item.min_absolute_change or item.min_relative_change is not None
    ]
    if improved and not request.baselines:
        raise InvalidInput(f"an improvement of {improved[0]} needs a baseline to improve on", hint="--baseline MODEL")


def load(request: Request) -> Job:
    """Find and check everything that can be before a run is made."""
    check(request)
    need()
    learner = learners.of(request.model, trust=request.trust)
    baselines = tuple([learners.of(item, trust=request.trust) for item in request.baselines])
    for one in (learner, *baselines):
        _can(one, request.scheme.method)
    features = request.features if request.features is not None else learner.features
    table = tables.load(
        request.data,
        request.target,
        group=request.group,
        time=request.time,
        predictions=request.predictions,
        features=features,
    )
    if learner.model is None and table.predictions is None:
        raise InvalidInput("there is neither a model nor a column of predictions", hint="name one of them")
    if table.truth is None:
        raise InvalidInput("no target is named", hint="--target COLUMN says what the truth is")
    for one in (learner, *baselines):
        if hasattr(one.model, "evaluate_fold"):
            one.model.check(table.source or __file__)
    kind = request.model_type or learners.kind_of(learner, table)
    _can_be_told([*request.metrics, *request.thresholds], kind, request.custom)
    plan = splits.make(request.scheme, table, classes=kind == scores.CLASSIFIER)
    custom = dict(request.custom)
    for name in (*request.metrics, *request.thresholds):
        function = None if name in custom or name == "score" else scores.resolve(name)
        if function is not None:
            custom[name] = function
    told = [*plan.warnings, *_leaks(request.scheme.method, (learner, *baselines), table, plan)]
    return Job(
        request,
        learner,
        baselines,
        table,
        kind,
        plan,
        custom,
        tuple(told),
        _fingerprint(request, learner, baselines, table, kind),
    )


def need() -> None:
    """Refuse where the libraries of an evaluation are missing, before a model asks for them in its own words."""
    from importlib.util import find_spec

    if any([find_spec(name) is None for name in ("sklearn", "scipy", "numpy")]):
        raise MlcliError(
            "an evaluation needs scikit-learn, which is not installed", hint="pip install 'mlcli[sklearn]'"
        )


def _can_be_told(names: Sequence[str], kind: str, custom: Mapping[str, Any]) -> None:
    """Refuse scores of numbers where classes are told, and the other way; what else they need is seen when all is done."""
    for name in names:
        metric = None if name in custom else scores.METRICS.get(name)
        if metric is not None and metric.needs != "any" and (metric.needs == "numbers") != (kind == scores.REGRESSOR):
            has = [
                known
                for known, one in scores.METRICS.items()
                if one.needs == "any" or (one.needs == "numbers") == (kind == scores.REGRESSOR)
            ]
            raise InvalidInput(f"{name} is no score of a {kind}", hint="these are: " + ", ".join(has))


def _can(learner: Learner, method: str) -> None:
    if method == "none":
        if not learner.fitted and learner.model != learners.DUMMY:
            raise InvalidInput(
                f"{learner.name} is not fitted, so there is nothing to score with --method none",
                hint="--method kfold fits it on a part of the data and tests it on the rest",
            )
        if learner.model == learners.DUMMY:
            raise InvalidInput("the dummy has to be fitted, which --method none does not", hint="--method holdout")
    elif not learner.refits:
        raise InvalidInput(
            f"{learner.name} can only predict, it cannot be fitted anew as --method {method} does",
            hint="--method none scores it as it is; evaluate the project that trains it for --method kfold",
        )


def _leaks(method: str, all_learners: Sequence[Learner], table: Table, plan: Splits) -> List[str]:
    if method != "none":
        grouped = method != "timeseries"  # which parts by time alone; the others keep groups together
        return tables.leaks(table, plan.parts, grouped=grouped, ordered=method == "timeseries")
    return [
        f"{learner.name} was trained on these very data: its scores tell how well it remembers, not how well it predicts"
        for learner in all_learners
        if table.noted.digest in learner.trained_on
    ]


def _fingerprint(request: Request, learner: Learner, baselines: Sequence[Learner], table: Table, kind: str) -> str:
    """What must be the same for folds of an interrupted evaluation to be used again."""
    from hashlib import sha256

    what = [
        table.noted.digest,
        table.target,
        kind,
        list(request.scheme),
        [one.digest or one.name for one in (learner, *baselines)],
    ]
    return sha256(json.dumps(what, default=str).encode()).hexdigest()[:16]


# -- answer


class Kept:
    """The folds of an evaluation that are done, each a file, until it is recorded as a whole."""

    def __init__(self, run_id: str) -> None:
        self.folder = os.path.join(config.state_root(), "evaluations", run_id)

    def begin(self, job: Job) -> None:
        """Note what is evaluated; or, of one begun before, that it is the same."""
        found = self.read()
        if found is None:
            rights.make_folder(self.folder)
            self._write(
                "plan.json",
                content.json_text({"fingerprint": job.fingerprint, "arguments": dict(job.request.arguments)}).encode(),
            )
        elif found["fingerprint"] != job.fingerprint:
            raise InvalidInput(
                "the interrupted evaluation was of other data, another model or another scheme",
                hint="give what was given then, or start a new one",
            )

    def read(self) -> Optional[Dict[str, Any]]:
        """What was noted at the beginning; None where nothing is kept."""
        try:
            with open(os.path.join(self.folder, "plan.json"), encoding="utf-8") as file:
                found: Dict[str, Any] = json.load(file)
                return found
        except FileNotFoundError:
            return None

    def get(self, who: int, fold: int) -> Optional[Outcome]:
        import numpy as np

        path = os.path.join(self.folder, f"{who}-{fold}.npz")
        if not os.path.exists(path):
            return None
        with np.load(path, allow_pickle=False) as found:
            parts = {name: found[name] for name in found.files}
        told = json.loads(str(parts["told"]))
        answers = None
        if "truth" in parts:
            classes = tuple(parts["classes"].tolist()) if "classes" in parts else None
            answers = Answers(
                parts["truth"], parts["predicted"], classes, parts.get("probability"), parts.get("margin")
            )
        return Outcome(answers, told["metrics"], told["seconds"], told["run_id"])

    def put(self, who: int, fold: int, outcome: Outcome) -> None:
        import io

        import numpy as np

        told = {"metrics": dict(outcome.metrics), "seconds": outcome.seconds, "run_id": outcome.run_id}
        parts: Dict[str, Any] = {"told": np.array(json.dumps(told))}
        if outcome.answers is not None:
            found = outcome.answers._asdict()
            parts.update({name: np.asarray(part) for name, part in found.items() if part is not None})
        held = io.BytesIO()
        np.savez(held, **parts)
        self._write(f"{who}-{fold}.npz", held.getvalue())

    def _write(self, name: str, data: bytes) -> None:
        path = os.path.join(self.folder, name)
        with open(f"{path}.tmp", "wb") as file:
            file.write(data)
        os.replace(f"{path}.tmp", path)

    def count(self) -> int:
        """How many folds are done."""
        try:
            return len([name for name in os.listdir(self.folder) if name.endswith(".npz")])
        except FileNotFoundError:
            return 0

    def drop(self) -> None:
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)


def answered(job: Job, kept: Kept, listener: Listener) -> List[List[Outcome]]:
    """The outcome of each fold, for the learner and for each baseline; what is kept is not done again."""
    import numpy as np

    parts = list(job.plan.parts)
    if job.request.scheme.method == "bootstrap":  # the last one is fitted on all rows and answers for them
        everything = np.arange(job.table.rows)
        parts.append((everything, everything))
    tasks = [(who, fold) for fold in range(len(parts)) for who in range(1 + len(job.baselines))]
    found = {task: outcome for task in tasks for outcome in [kept.get(*task)] if outcome is not None}
    left = [task for task in tasks if task not in found]
    listener.progress(len(found), len(tasks))
    everyone = (job.learner, *job.baselines)

    work = [(task, everyone[task[0]], job.table, *parts[task[1]], job.kind, task[1]) for task in left]
    for task, outcome in _each(work, job):
        found[task] = outcome
        if len(tasks) > 1:
            kept.put(task[0], task[1], outcome)
        listener.progress(len(found), len(tasks))
    return [[found[who, fold] for fold in range(len(parts))] for who in range(len(everyone))]


def _beside(parent: int, *work: Any) -> Tuple[Tuple[int, int], Outcome]:
    """A fold in a process of joblib's, which ends when its parent does: on its own it would wait for work for minutes."""
    if os.getpid() != parent and not any([thread.name == _FOLLOWER for thread in threading.enumerate()]):
        threading.Thread(target=_follow, args=(os.getppid(),), name=_FOLLOWER, daemon=True).start()
    return _one(*work)


_FOLLOWER = "follower of the parent"


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _one(task: Tuple[int, int], *work: Any) -> Tuple[Tuple[int, int], Outcome]:
    with session.quiet():  # autolog would log each fold's fit into the run of the whole
        return task, learners.run_fold(*work)


def _each(work: Sequence[Any], job: Job) -> Iterator[Tuple[Tuple[int, int], Outcome]]:
    """The results as they come; several processes at once where asked for, threads where they only wait for others."""
    if job.request.jobs == 1 or len(work) < 2:
        yield from (_one(*item) for item in work)
        return
    from concurrent.futures import BrokenExecutor

    from joblib import Parallel, delayed

    backend = "threading" if _recipes(job) else "loky"
    try:
        together = Parallel(n_jobs=job.request.jobs, backend=backend, return_as="generator_unordered")
    except (TypeError, ValueError):  # joblib before 1.4 gives all at the end
        together = Parallel(n_jobs=job.request.jobs, backend=backend)
    try:
        yield from together(delayed(_beside)(os.getpid(), *item) for item in work)
    except BrokenExecutor as error:
        raise MlcliError(
            "a process that did a fold was killed, perhaps for want of memory",
            hint="fewer folds at once need less: -j 1",
        ) from error
    finally:
        if backend == "loky":
            _end_workers()


def _end_workers() -> None:
    """End joblib's processes: they wait five minutes for more work, and the end of the program for them."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


# -- tell


def figures(job: Job, outcomes: Sequence[Outcome], wanted: Sequence[str]) -> Dict[str, Figure]:
    """Every number with its interval."""
    method = job.request.scheme.method
    if method == "bootstrap":
        return _of_resamples(job, outcomes, wanted)
    if len(outcomes) == 1:
        return _of_rows(job, outcomes[0], wanted)
    return _of_folds(job, outcomes, wanted)


def wanted_of(job: Job, outcomes: Sequence[Outcome]) -> List[str]:
    """The names of the scores, in the order they are shown."""
    answers = [outcome.answers for outcome in outcomes if outcome.answers is not None]
    if len(answers) == len(outcomes):
        has = scores.names(scores.joined(answers[:50]) if len(answers) > 1 else answers[0])
        has += [*job.custom]
        if all(["score" in outcome.metrics for outcome in outcomes]):
            has.append("score")
    else:
        common = set.intersection(*[{*outcome.metrics} for outcome in outcomes])
        has = [name for name in outcomes[0].metrics if name in common]
        if not has:
            raise InvalidInput(
                f"{job.learner.name} gave other metrics back in each fold, none in all of them",
                hint="let it log the same metrics whatever rows it is given",
            )
    if not job.request.metrics:
        return has
    missing = [name for name in job.request.metrics if name not in has]
    if missing:
        raise InvalidInput(f"{missing[0]} cannot be told of these answers", hint="these can: " + ", ".join(has))
    wanted = {*job.request.metrics, *job.request.thresholds, "example_count"}
    return [name for name in has if name in wanted]


def _scored(job: Job, outcome: Outcome, wanted: Sequence[str]) -> Dict[str, float]:
    if outcome.answers is None:
        return {name: outcome.metrics[name] for name in wanted}
    ours = [name for name in wanted if name in scores.METRICS]
    custom = {name: function for name, function in job.custom.items() if name in wanted}
    found = {**scores.score(outcome.answers, ours, custom), **outcome.metrics}
    return {name: found.get(name, math.nan) for name in wanted}


def _of_rows(job: Job, outcome: Outcome, wanted: Sequence[str]) -> Dict[str, Figure]:
    request, values = job.request, _scored(job, outcome, wanted)
    bounds: Dict[str, Interval] = {}
    if outcome.answers is not None:
        own = {name: value for name, value in values.items() if name != "score" and math.isfinite(value)}
        bounds = scores.intervals(
            outcome.answers,
            own,
            kind=request.interval,
            level=request.level,
            resampling=resampling(job),
            custom=job.custom,
        )
        if "score" in values:  # the estimator's own is mostly one of the others
            twin = scores.PRIMARY[job.kind]
            if twin in bounds and values[twin] == values["score"]:
                bounds["score"] = bounds[twin]
    return {name: Figure(value, bounds.get(name)) for name, value in values.items()}


def resampling(job: Job) -> Resampling:
    """How test rows are drawn anew for intervals of a fixed model."""
    test = job.plan.parts[0][1]
    groups = None if job.table.groups is None else job.table.groups[test]
    size = max(200, min(scores.RESAMPLES, 40_000_000 // max(len(test), 1)))
    return Resampling(job.request.scheme.seed, size, groups)


def test_share(job: Job) -> float:
    """The size of a test set over that of its training set."""
    import numpy as np

    return float(np.mean([len(test) / max(len(np.unique(train)), 1) for train, test in job.plan.parts]))


def _of_folds(job: Job, outcomes: Sequence[Outcome], wanted: Sequence[str]) -> Dict[str, Figure]:
    import numpy as np

    by_fold = [_scored(job, outcome, wanted) for outcome in outcomes]
    repeats = (
        max(1, len(outcomes) // max(job.request.scheme.folds, 1))
        if job.request.scheme.method == "repeated-kfold"
        else 1
    )
    found = {}
    for name in wanted:
        values = np.array([scored[name] for scored in by_fold])
        if name in scores.METRICS and scores.METRICS[name].counts and name != "mean_on_target":
            found[name] = Figure(float(values.sum() / repeats), folds=tuple(values.tolist()))
            continue
        told = values[np.isfinite(values)]
        if not len(told):
            found[name] = Figure(math.nan, folds=tuple(values.tolist()))
            continue
        bounds = None
        if job.request.interval != "none" and len(told) > 1 and name != "mean_on_target" and scores.inferred(name):
            ranged = scores.PRIMARY[job.kind] if name == "score" else name
            found_bounds = statistics.fold_interval(told, test_share(job), job.request.level)
            bounds = None if math.isnan(found_bounds.low) else scores.within(ranged, found_bounds)
        std = float(told.std(ddof=1)) if len(told) > 1 else None
        found[name] = Figure(float(told.mean()), bounds, std, tuple(values.tolist()), "mean of folds")
    return found


# Scores that are a mean loss of rows, or follow from one: for them there is .632+.
_LOSSES = (
    "accuracy_score",
    "log_loss",
    "brier_score",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "r2_score",
)


def _of_resamples(job: Job, outcomes: Sequence[Outcome], wanted: Sequence[str]) -> Dict[str, Figure]:
    import numpy as np

    apparent, refits = outcomes[-1], outcomes[:-1]
    whole = _scored(job, apparent, wanted)
    by_refit = [_scored(job, outcome, wanted) for outcome in refits]
    errors = _errors(job, apparent, refits)
    found = {}
    for name in wanted:
        if name in scores.METRICS and scores.METRICS[name].counts:
            found[name] = (
                Figure(whole[name])
                if name in ("example_count", "mean_on_target", "sum_on_target")
                else Figure(math.nan)
            )
            continue
        values = np.array([scored[name] for scored in by_refit])
        told = values[np.isfinite(values)]
        known = job.request.interval != "none" and scores.inferred(name)
        bounds = statistics.percentile(told, job.request.level) if known else None
        bounds = bounds and bounds._replace(method="percentile of the out-of-bag scores")
        error = errors.get(name)
        if error is None:
            out = float(told.mean()) if len(told) else math.nan
            plain = 0.368 * whole[name] + 0.632 * out
            more = {"apparent": whole[name], "oob": out, "632": plain}
            found[name] = Figure(plain, bounds, _std(told), tuple(values.tolist()), ".632", more)
            continue
        turn = error[1]
        more = {
            "apparent": turn(error[0].apparent),
            "oob": turn(error[0].out_of_bag),
            "632": turn(error[0].point_632),
            "632plus": turn(error[0].point_632_plus),
            "overfitting_rate": error[0].overfitting,
        }
        found[name] = Figure(more["632plus"], bounds, _std(told), tuple(values.tolist()), ".632+", more)
    return {name: figure for name, figure in found.items() if not math.isnan(figure.value) or figure.folds}


def _std(values: Any) -> Optional[float]:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _errors(
    job: Job, apparent: Outcome, refits: Sequence[Outcome]
) -> Dict[str, Tuple[statistics.Resampled, Callable[[float], float]]]:
    """The .632+ estimate of each mean loss, and how its score follows from it."""
    import numpy as np

    if apparent.answers is None or any([outcome.answers is None for outcome in refits]):
        return {}
    outside = np.zeros((len(refits), job.table.rows), bool)
    for line, (_, test) in zip(outside, job.plan.parts):
        line[test] = True
    found: Dict[str, Tuple[statistics.Resampled, Callable[[float], float]]] = {}
    for name, (losses, no_information) in _row_losses(apparent.answers).items():
        table = np.zeros(outside.shape)
        for line, out, outcome in zip(table, outside, refits):
            if outcome.answers is not None:
                line[out] = losses(outcome.answers)
        err = statistics.point_six_three_two(
            float(np.mean(losses(apparent.answers))), statistics.out_of_bag_error(table, outside), no_information
        )
        found[name] = (err, (lambda error: 1 - error) if name == "accuracy_score" else (lambda error: error))
    if "mean_squared_error" in found:
        err = found["mean_squared_error"][0]
        variance = float(np.var(apparent.answers.truth))
        found["root_mean_squared_error"] = (err, math.sqrt)
        if variance > 0:
            found["r2_score"] = (err, lambda error: 1 - error / variance)
    return found


def _row_losses(whole: Answers) -> Dict[str, Tuple[Callable[[Answers], Any], float]]:
    """Each mean loss as a function of answers, and what it is where inputs tell nothing of the outcome."""
    import numpy as np

    if whole.classes is None:
        gaps = whole.truth[:, None] - whole.predicted[None, :] if len(whole.truth) <= 5000 else None
        square = float(
            np.var(whole.truth) + np.var(whole.predicted) + (whole.truth.mean() - whole.predicted.mean()) ** 2
        )
        return {
            "mean_squared_error": (lambda a: (a.truth - a.predicted) ** 2, square),
            "mean_absolute_error": (
                lambda a: np.abs(a.truth - a.predicted),
                math.nan if gaps is None else float(np.abs(gaps).mean()),
            ),
        }
    classes = whole.classes
    shares = np.array([(whole.truth == label).mean() for label in classes])
    said = np.array([(whole.predicted == label).mean() for label in classes])
    found: Dict[str, Tuple[Callable[[Answers], Any], float]] = {
        "accuracy_score": (lambda a: a.truth != a.predicted, float((shares * (1 - said)).sum()))
    }
    if whole.probability is not None:
        tiny = np.finfo(float).eps
        told = np.clip(whole.probability, tiny, 1 - tiny)
        no_log = -float((shares * np.log(told).mean(axis=0)).sum())
        if len(classes) == 2:
            no_brier = float((shares[1] * (1 - told[:, 1]) ** 2 + shares[0] * told[:, 1] ** 2).mean())
        else:
            no_brier = float(
                sum(
                    [
                        shares[k] * ((told - np.eye(len(classes))[k]) ** 2).sum(axis=1).mean()
                        for k in range(len(classes))
                    ]
                )
            )

        def places(a: Answers) -> Any:
            return np.searchsorted(classes, a.truth)

        found["log_loss"] = (lambda a: scores.log_losses(scores.widened(a, classes), places(a)), no_log)
        found["brier_score"] = (
            lambda a: scores.brier_losses(scores.widened(a, classes), np.eye(len(classes))[places(a)]),
            no_brier,
        )
    return found


class Contrast(NamedTuple):
    """One score of the learner against one baseline's."""

    baseline: str
    metric: str
    comparison: Comparison
    p_adjusted: float
    significant: bool


def contrasts(job: Job, outcomes: Sequence[Sequence[Outcome]], told: Sequence[Mapping[str, Figure]]) -> List[Contrast]:
    """The learner against each baseline, score by score; p-values of several baselines are raised by Holm."""
    found: List[Tuple[int, str, Comparison]] = []
    for place in range(len(job.baselines)):
        common = [name for name in told[0] if name in told[place + 1] and name != "score" and scores.inferred(name)]
        found += [
            (place, name, one)
            for name, one in _compared(job, outcomes[0], outcomes[place + 1], common, told, place).items()
        ]
    adjusted: Dict[Tuple[int, str], float] = {}
    for name in {item[1] for item in found}:
        some = [item for item in found if item[1] == name]
        raised = statistics.holm([1.0 if math.isnan(item[2].p_value) else item[2].p_value for item in some])
        adjusted.update({item[:2]: math.nan if math.isnan(item[2].p_value) else p for item, p in zip(some, raised)})
    return [
        Contrast(job.baselines[place].name, name, one, adjusted[place, name], adjusted[place, name] < job.request.alpha)
        for place, name, one in found
    ]


def _compared(
    job: Job,
    ours: Sequence[Outcome],
    theirs: Sequence[Outcome],
    names: Sequence[str],
    told: Sequence[Mapping[str, Figure]],
    place: int,
) -> Dict[str, Comparison]:
    import numpy as np

    request = job.request
    if len(ours) == 1:
        one, other = ours[0].answers, theirs[0].answers
        if one is None or other is None:
            return {}
        return scores.compare(
            one, other, names, test=request.test, level=request.level, resampling=resampling(job), custom=job.custom
        )
    found = {}
    for name in names:
        differences = np.array(told[0][name].folds) - np.array(told[place + 1][name].folds)
        if request.test.startswith("5x2cv"):
            if np.isfinite(differences).all():
                tested = statistics.five_by_two_t if request.test.endswith("t") else statistics.five_by_two_f
                found[name] = tested(differences.reshape(5, 2))
            continue
        differences = differences[np.isfinite(differences)]
        if len(differences) > 1:
            one_test = statistics.nadeau_bengio(differences, test_share(job), request.level)
            if request.scheme.method in ("bootstrap", "timeseries"):
                one_test = one_test._replace(note="approximate: made for random splits")
            found[name] = one_test
    return found


# -- record


class Evaluated(NamedTuple):
    """An evaluation that is recorded: its run, and all its numbers as one JSON-ready object."""

    run_id: str
    report: Dict[str, Any]
    curves: Dict[str, Curve]
    answers: Optional[Answers]


def evaluate(request: Request, listener: Listener = Listener()) -> Evaluated:  # noqa: B008 - it is immutable
    """Evaluate and record; the run ends FAILED, or KILLED at an interrupt, after which ``resume`` goes on with it."""
    job = load(request)
    for line in job.warnings:
        listener.warn(line)
    start = time.time()
    run, ours = _run(request)
    listener.started(run.run_id)
    kept = Kept(run.run_id)
    try:
        kept.begin(job)
        for recipe in _recipes(job):
            recipe.parent = run.run_id
        _note_beginning(run, job, ours=ours)
        outcomes = answered(job, kept, listener)
        done = _told(job, outcomes, run.run_id, time.time() - start)
        _record(run, job, outcomes, done)
        for line in done.report["warnings"][len(job.warnings) :]:
            listener.warn(line)
    except KeyboardInterrupt:
        for recipe in _recipes(job):
            recipe.cancel()
        if not kept.count():
            kept.drop()
        if ours:
            fluent.end_run("KILLED")
        raise
    except BaseException:
        for recipe in _recipes(job):
            recipe.cancel()
        if not kept.count():
            kept.drop()
        if ours:
            fluent.end_run("FAILED")
        raise
    kept.drop()
    if ours:
        fluent.end_run()
    return done


def _recipes(job: Job) -> List[Any]:
    return [one.model for one in (job.learner, *job.baselines) if hasattr(one.model, "evaluate_fold")]


def _run(request: Request) -> Tuple[fluent.ActiveRun, bool]:
    """The run to record in: the active one, one that is named, or a new one; and whether it is ours to end."""
    active = fluent.active_run()
    named = request.resume or request.run_id
    if active is not None and named in (None, active.run_id):
        return active, False
    if request.resume and Kept(request.resume).read() is None:
        raise InvalidState(
            f"there is nothing to resume of run {request.resume}",
            hint="only an evaluation that was interrupted on this machine can go on",
        )
    nested = active is not None
    run = fluent.start_run(run_id=named, experiment_id=request.experiment_id, run_name=request.run_name, nested=nested)
    return run, True


def _note_beginning(run: fluent.ActiveRun, job: Job, *, ours: bool) -> None:
    request, scheme = job.request, job.request.scheme
    said: Dict[str, Any] = {
        "model": job.learner.name,
        "model_type": job.kind,
        "method": scheme.method,
        "target": job.table.target,
        "seed": scheme.seed,
        "level": request.level,
    }
    if scheme.method not in (*SINGLE, "bootstrap"):
        said["folds"] = scheme.folds
    if scheme.method == "repeated-kfold":
        said["repeats"] = scheme.repeats
    if scheme.method == "holdout":
        said["test_size"] = scheme.test_size
    if scheme.method == "bootstrap":
        said["n_boot"] = scheme.n_boot
    named = {"group": request.group, "time": request.time}
    said.update({key: value for key, value in named.items() if isinstance(value, str)})
    if job.baselines:
        said["baseline"] = ", ".join([one.name for one in job.baselines])
        said["test"] = request.test
        said["alpha"] = request.alpha
    if ours and not run.watched and request.run_id is None:
        run.log_params({key: _cut(value) for key, value in said.items()})
    tags = {
        TAG: scheme.method,
        f"{TAG}.model": job.learner.name,
        f"{TAG}.version": job.learner.version,
        f"{TAG}.data": job.table.noted.digest,
        f"{TAG}.splitter": job.plan.splitter,
        f"{TAG}.versions": json.dumps(versions()),
    }
    run.set_tags({key: _cut(value) for key, value in tags.items() if value})
    run.log_input(content.dataset(job.table.noted), {"mlflow.data.context": "eval"})


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 500 else f"{text[:499]}…"


def versions() -> Dict[str, str]:
    """The libraries whose versions may move a number."""
    import platform

    import numpy as np
    import scipy
    import sklearn

    found = {"mlcli": __version__, "python": platform.python_version()}
    found.update({"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__})
    return found


def _told(job: Job, outcomes: Sequence[Sequence[Outcome]], run_id: str, seconds: float) -> Evaluated:
    request = job.request
    wanted = wanted_of(job, outcomes[0])
    told = [figures(job, outcomes[0], wanted)]
    for some in outcomes[1:]:
        has = {*wanted_of(job._replace(request=request._replace(metrics=())), some)}
        told.append(figures(job, some, [name for name in wanted if name in has]))
    compared = contrasts(job, outcomes, told)
    values = [{name: figure.value for name, figure in one.items() if math.isfinite(figure.value)} for one in told]
    failed = thresholds.failures(
        {name: _alone(item) for name, item in request.thresholds.items() if item.threshold is not None}, values[0]
    )
    gains = {
        name: _beyond(item) for name, item in request.thresholds.items() if item.threshold is None or _improves(item)
    }
    for one in values[1:]:
        failed += thresholds.failures(gains, values[0], one)
    answers = None
    parts = [outcome.answers for outcome in outcomes[0]]
    if request.scheme.method != "bootstrap" and all([part is not None for part in parts]):
        answers = scores.joined([part for part in parts if part is not None]) if len(parts) > 1 else parts[0]
    first = answers
    if answers is not None and request.scheme.method == "repeated-kfold":
        first = answers.take(slice(0, job.table.rows))
    undefined = [name for name, figure in told[0].items() if any([not math.isfinite(value) for value in figure.folds])]
    never = [name for name in undefined if not any([math.isfinite(value) for value in told[0][name].folds])]
    undefined = [name for name in undefined if name not in never]
    warnings = list(job.warnings)
    if never:
        warnings.append(f"not a number in any fold, so nothing can be told of: {', '.join(never)}")
    if undefined:
        warnings.append(f"not defined in every fold, and told from the others: {', '.join(undefined)}")
    report = {
        "format": FORMAT,
        "run_id": run_id,
        "model": job.learner.name,
        "model_version": job.learner.version or None,
        "model_type": job.kind,
        "method": request.scheme.method,
        "splitter": job.plan.splitter,
        "scheme": request.scheme._asdict(),
        "folds": len(job.plan.parts),
        "test_share": test_share(job) if request.scheme.method != "none" else None,
        "target": job.table.target,
        "data": {
            "name": job.table.noted.name,
            "digest": job.table.noted.digest,
            "rows": job.table.rows,
            "source": job.table.source,
        },
        "level": request.level,
        "alpha": request.alpha,
        "metrics": _figures(told[0]),
        "baselines": [
            {"model": one.name, "metrics": _figures(figures_)} for one, figures_ in zip(job.baselines, told[1:])
        ],
        "comparisons": [_contrast(item) for item in compared],
        "thresholds": {name: _threshold(item) for name, item in request.thresholds.items()},
        "failed": failed,
        "passed": not failed,
        "warnings": warnings,
        "runs": [outcome.run_id for outcome in outcomes[0] if outcome.run_id],
        "versions": versions(),
        "seconds": round(seconds, 3),
    }
    return Evaluated(run_id, content.plain(_finite(report)), scores.curves(first) if first is not None else {}, answers)


def _improves(item: MetricThreshold) -> bool:
    return item.min_absolute_change is not None or item.min_relative_change is not None


def _alone(item: MetricThreshold) -> MetricThreshold:
    return MetricThreshold(item.threshold, greater_is_better=item.greater_is_better)


def _beyond(item: MetricThreshold) -> MetricThreshold:
    return MetricThreshold(
        None, item.min_absolute_change, item.min_relative_change, greater_is_better=item.greater_is_better
    )


def _threshold(item: MetricThreshold) -> Dict[str, Any]:
    return {key: value for key, value in vars(item).items() if value is not None}


def _finite(value: Any) -> Any:
    """What JSON can hold: a number that is none becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figures(told: Mapping[str, Figure]) -> Dict[str, Any]:
    found = {}
    for name, figure in told.items():
        one: Dict[str, Any] = {"value": figure.value}
        if figure.interval is not None:
            one.update(low=figure.interval.low, high=figure.interval.high, interval=figure.interval.method)
        if figure.std is not None:
            one["std"] = figure.std
        if figure.estimate:
            one["estimate"] = figure.estimate
        if figure.folds:
            one["folds"] = list(figure.folds)
        if figure.more:
            one.update({f"estimate_{key}" if key[0].isdigit() else key: value for key, value in figure.more.items()})
        found[name] = one
    return found


def _contrast(item: Contrast) -> Dict[str, Any]:
    one = item.comparison
    better = scores.greater_is_better(item.metric) == (one.difference > 0)
    return {
        "baseline": item.baseline,
        "metric": item.metric,
        "difference": one.difference,
        "low": one.low,
        "high": one.high,
        "test": one.test,
        "statistic": one.statistic,
        "p_value": one.p_value,
        "p_adjusted": item.p_adjusted,
        "significant": item.significant,
        "better": better if one.difference else None,
        "note": one.note,
    }


def flat(report: Mapping[str, Any]) -> Dict[str, float]:
    """The numbers of a report as a run's metrics: ``roc_auc``, and beside it ``_ci_low``, ``_mean``, ``_fold_0`` ..."""
    found: Dict[str, Optional[float]] = {}
    for name, figure in report["metrics"].items():
        found[name] = figure["value"]
        found[f"{name}_ci_low"], found[f"{name}_ci_high"] = figure.get("low"), figure.get("high")
        if report["method"] == "bootstrap":
            for key, word in (
                ("apparent", "apparent"),
                ("oob", "oob"),
                ("estimate_632", "632"),
                ("estimate_632plus", "632plus"),
            ):
                found[f"{name}_{word}"] = figure.get(key)
            found[f"{name}_std"] = figure.get("std")
        elif figure.get("folds"):
            if "estimate" in figure:
                found[f"{name}_mean"], found[f"{name}_std"] = figure["value"], figure.get("std")
            found.update({f"{name}_fold_{fold}": value for fold, value in enumerate(figure["folds"])})
    return {name: value for name, value in found.items() if value is not None}


def _record(run: fluent.ActiveRun, job: Job, outcomes: Sequence[Sequence[Outcome]], done: Evaluated) -> None:
    from mlcli.evaluation import page

    run.log_metrics({name: value for name, value in flat(done.report).items() if _is_key(name)})
    if done.report["thresholds"]:
        run.set_tags({f"{TAG}.passed": str(done.report["passed"]).lower()})
    run.log_text(json.dumps(done.report, indent=2, ensure_ascii=False), REPORT)
    for name, curve in done.curves.items():
        run.log_text(csv_text(curve.columns, curve.rows), f"{name}.csv")
        picture = page.standalone(curve)
        if picture:
            run.log_text(picture, f"{name}.svg")
    run.log_text(page.html(done.report, done.curves), PAGE)
    if job.request.scheme.method != "none":
        run.log_text(_folds_text(job), FOLDS)
    if done.answers is not None:
        run.log_text(_predictions_text(job, [outcome.answers for outcome in outcomes[0]]), PREDICTIONS)


def _is_key(name: str) -> bool:
    try:
        rules.key(name, "metric")
    except InvalidInput:
        return False
    return True


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    import csv
    import io

    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return held.getvalue()


def _folds_text(job: Job) -> str:
    """Which rows were tested in which fold, and trained on where that is not all others."""
    import numpy as np

    parts = []
    for train, test in job.plan.parts:
        one = {"test": test.tolist()}
        if len(train) != job.table.rows - len(test) or len(np.intersect1d(train, test)):
            one["train"] = train.tolist()
        parts.append(one)
    return json.dumps({"splitter": job.plan.splitter, "rows": job.table.rows, "folds": parts})


def _predictions_text(job: Job, parts: Sequence[Optional[Answers]]) -> str:
    columns = ["row", "fold", "target", "prediction"]
    classes: Tuple[Any, ...] = ()
    told = [part for part in parts if part is not None]
    if all([part.probability is not None for part in told]):
        classes = tuple(sorted({label for part in told for label in part.classes or ()}))
        columns += [f"probability_{label}" for label in classes]
    elif all([part.margin is not None for part in told]):
        columns.append("margin")
    if job.table.groups is not None:
        columns.append("group")
    rows: List[Sequence[Any]] = []
    for fold, (part, (_, test)) in enumerate(zip(told, job.plan.parts)):
        lines = [test.tolist(), [fold] * len(test), part.truth.tolist(), part.predicted.tolist()]
        if classes:
            lines += scores.widened(part, classes).T.tolist()
        elif "margin" in columns:
            lines.append(part.margin.tolist())
        if job.table.groups is not None:
            lines.append(job.table.groups[test].tolist())
        rows += zip(*lines)
    return csv_text(columns, rows)


def last_words(run_id: str) -> Optional[str]:
    """What to tell of an evaluation that was interrupted: how much of it is kept."""
    done = Kept(run_id).count()
    if not done:
        return None
    return f"{done} {'fold is' if done == 1 else 'folds are'} kept: `mlcli evaluate --resume {run_id[:8]}` goes on"


def arguments_of(run_id: str) -> Dict[str, Any]:
    """What the command line of an interrupted evaluation said."""
    found = Kept(run_id).read()
    if found is None or not found["arguments"]:
        raise InvalidState(
            f"there is nothing to resume of run {run_id}",
            hint="only an evaluation that was interrupted on this machine can go on",
        )
    said: Dict[str, Any] = found["arguments"]
    return said
