"""What the words of a command line ask for, as a request; also where that command line runs in another environment."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Sequence, Tuple

from mlcli import fluent
from mlcli.errors import InvalidInput
from mlcli.evaluation import learners, offline, result, scores
from mlcli.evaluation.splits import Scheme
from mlcli.evaluation.thresholds import MetricThreshold
from mlcli.store import open_store


def request_of(given: Mapping[str, Any]) -> offline.Request:
    """What the words of the command line ask for."""
    if not given["model"]:
        raise InvalidInput("no model is named", hint="mlcli evaluate models:/churn/3 --data test.csv --target y")
    if not given["data"]:
        raise InvalidInput("no data are named", hint="--data FILE, a csv or parquet")
    if not given["target"]:
        raise InvalidInput("no target is named", hint="--target COLUMN says what is to be predicted")
    offline.need()
    data = os.path.abspath(given["data"])
    learner = _learner(given["model"], given)
    baselines = tuple([_learner(word, given) for word in given["baseline"] or ()])
    if given["experiment_name"] and given["experiment_id"]:
        raise InvalidInput("--experiment-name and --experiment-id are both given", hint="give one of them")
    run_id = given["run_id"]
    if run_id:
        with open_store(create=False) as store:
            run_id = store.find_run(run_id)
    method = given["method"] or result.default_method(learner)
    repeats = given["repeats"] if method == "repeated-kfold" else 1
    request = offline.Request(
        model=learner,
        data=data,
        target=given["target"],
        group=given["group"],
        time=given["time"],
        model_type=given["model_type"],
        scheme=Scheme(
            method, given["folds"], repeats, given["test_size"], given["n_boot"], given["seed"], given["stratify"]
        ),
        metrics=tuple(given["metric"] or ()),
        interval=given["interval"],
        level=given["level"],
        baselines=baselines,
        test=given["test"],
        alpha=given["alpha"],
        thresholds=_thresholds(given["fail_under"] or (), given["min_improvement"] or ()),
        jobs=given["jobs"],
        trust=given["trust"],
        run_id=run_id,
        resume=given["resume"],
        run_name=given["run_name"],
        experiment_id=given["experiment_id"],
        arguments={**given, "data": data},
    )
    offline.check(request)
    if given["experiment_name"]:
        fluent.set_experiment(given["experiment_name"])
    return request


def _learner(word: str, given: Mapping[str, Any]) -> learners.Learner:
    if word == learners.DUMMY or learners.is_model(word):
        for option, name in (("-P", "parameters"), ("-e", "entry_point"), ("-v", "version")):
            if given[name] and word == given["model"]:
                raise InvalidInput(f"{option} is for projects, and this is a model", hint="leave it out")
        return learners.of(word, trust=given["trust"])
    from mlcli.evaluation.trained import Recipe
    from mlcli.projects.parameters import parse_given

    recipe = Recipe(
        word,
        entry_point=given["entry_point"],
        version=given["version"],
        parameters=parse_given(given["parameters"] or []),
        env_manager=given["env_manager"],
    )
    return learners.of(recipe)


def _thresholds(under: Sequence[str], improvements: Sequence[str]) -> Dict[str, MetricThreshold]:
    found: Dict[str, Dict[str, float]] = {}
    for word in under:
        name, value = _pair(word, "--fail-under")
        found.setdefault(name, {})["threshold"] = value
    for word in improvements:
        text, comma, kind = word.partition(",")
        if comma and kind != "relative":
            raise InvalidInput(f"--min-improvement wants METRIC=VALUE or METRIC=VALUE,relative, not {word!r}")
        name, value = _pair(text, "--min-improvement")
        found.setdefault(name, {})["min_relative_change" if comma else "min_absolute_change"] = value
    return {
        name: MetricThreshold(**wanted, greater_is_better=scores.greater_is_better(name))
        for name, wanted in found.items()
    }


def _pair(word: str, option: str) -> Tuple[str, float]:
    name, equals, text = word.partition("=")
    try:
        if name and equals:
            return name, float(text)
    except ValueError:
        pass
    raise InvalidInput(f"{option} wants METRIC=VALUE, not {word!r}", hint=f"{option} accuracy_score=0.9")
