"""Whether a difference between two recorded evaluations is real; or why that cannot be told.

both                                              by
scored the same rows of the same data             the tests on rows: McNemar, DeLong, paired bootstrap
split the same data into the same folds           the corrected resampled t test of their folds' scores
anything else                                     nothing: it cannot be told
"""

from __future__ import annotations

import csv
import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli.artifacts import LocalArtifacts
from mlcli.errors import NotFound, StoreUnavailable
from mlcli.evaluation import scores, statistics
from mlcli.evaluation.offline import FOLDS, PREDICTIONS, REPORT, SINGLE
from mlcli.evaluation.scores import Answers, Resampling
from mlcli.evaluation.statistics import Comparison


class Recorded(NamedTuple):
    """A run with where its files are."""

    run_id: str
    name: str
    artifacts: LocalArtifacts


class Difference(NamedTuple):
    """One score of ``run`` minus that of ``baseline``; or, without a comparison, why it cannot be told."""

    run: str
    baseline: str
    metric: str = ""
    values: Tuple[Optional[float], Optional[float]] = (None, None)
    comparison: Optional[Comparison] = None
    p_adjusted: Optional[float] = None
    reason: str = ""

    def better(self) -> Optional[bool]:
        """Whether the run is the better one, by the value alone."""
        if self.comparison is None or not self.comparison.difference:
            return None
        return scores.greater_is_better(self.metric) == (self.comparison.difference > 0)


def differences(runs: Sequence[Recorded], level: float = 0.95) -> List[Difference]:
    """Each later run against the first; the p-values of several are raised by Holm."""
    found: List[Difference] = []
    first, *others = runs
    for other in others:
        found += _pair(other, first, level)
    for name in {item.metric for item in found if item.comparison is not None}:
        places = [place for place, item in enumerate(found) if item.metric == name and item.comparison is not None]
        known = [(place, found[place].comparison) for place in places]
        raised = statistics.holm(
            [1.0 if one is None or one.p_value != one.p_value else one.p_value for _, one in known]
        )
        for place, p in zip(places, raised):
            found[place] = found[place]._replace(p_adjusted=p)
    return found


def _pair(run: Recorded, baseline: Recorded, level: float) -> List[Difference]:
    reports = [_json(one, REPORT) for one in (run, baseline)]
    told = Difference(run.run_id, baseline.run_id)
    for one, report in zip((run, baseline), reports):
        if report is None or "metrics" not in report or "method" not in report:
            return [told._replace(reason=f"{one.name} is not an evaluation: `mlcli evaluate` makes one")]
    ours, theirs = (report for report in reports if report is not None)
    reason = _unlike(ours, theirs)
    if reason:
        return [told._replace(reason=reason)]
    values = {
        name: (figure["value"], theirs["metrics"][name]["value"])
        for name, figure in ours["metrics"].items()
        if _tested(name, theirs)
    }
    if ours["method"] in SINGLE and theirs["method"] in SINGLE:
        compared = _by_rows(run, baseline, [*values], ours, level)
    else:
        compared = _by_folds(run, baseline, [*values], (ours, theirs), level)
    if isinstance(compared, str):
        return [told._replace(reason=compared)]
    return [told._replace(metric=name, values=values[name], comparison=one) for name, one in compared.items()]


def _tested(name: str, other: Mapping[str, Any]) -> bool:
    return scores.inferred(name) and name != "score" and name in other["metrics"]


def _unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Why two evaluations have nothing to be compared by; "" when they may have."""
    if ours["data"]["digest"] != theirs["data"]["digest"]:
        return f"they were tested on different data ({ours['data']['digest']} and {theirs['data']['digest']})"
    if ours["target"] != theirs["target"] or ours["model_type"] != theirs["model_type"]:
        return f"they predict different things ({ours['target']} and {theirs['target']})"
    if (ours["method"] in SINGLE) != (theirs["method"] in SINGLE):
        return f"one was fitted for each fold ({ours['method']}, {theirs['method']}), the other once"
    return ""


def _by_rows(
    run: Recorded, baseline: Recorded, names: Sequence[str], report: Mapping[str, Any], level: float
) -> Dict[str, Comparison] | str:
    one, other = (_answers(item, report["model_type"]) for item in (run, baseline))
    if one is None or other is None:
        return "their predictions were not kept"
    rows, ours, groups = one
    if rows != other[0]:
        return "they were tested on different rows of the same data: another seed, or another split"
    known = [name for name in names if name in scores.METRICS]
    size = max(200, min(scores.RESAMPLES, 40_000_000 // max(len(rows), 1)))
    return scores.compare(ours, other[1], known, level=level, resampling=Resampling(0, size, groups))


def _by_folds(
    run: Recorded,
    baseline: Recorded,
    names: Sequence[str],
    reports: Tuple[Mapping[str, Any], Mapping[str, Any]],
    level: float,
) -> Dict[str, Comparison] | str:
    import numpy as np

    splits = [_json(one, FOLDS) for one in (run, baseline)]
    if splits[0] is None or splits[1] is None:
        return "their folds were not kept"
    if splits[0]["folds"] != splits[1]["folds"]:
        return f"their folds are not the same: {splits[0]['splitter']} and {splits[1]['splitter']}"
    found = {}
    for name in names:
        pair = [np.array(report["metrics"][name].get("folds", ()), float) for report in reports]
        if len(pair[0]) != len(pair[1]):
            continue
        apart = pair[0] - pair[1]
        apart = apart[np.isfinite(apart)]
        if len(apart) > 1:
            found[name] = statistics.nadeau_bengio(apart, reports[0]["test_share"], level)
    return found


def _json(run: Recorded, name: str) -> Optional[Dict[str, Any]]:
    try:
        with open(run.artifacts.path(name), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, NotFound, StoreUnavailable):
        return None
    return found if isinstance(found, dict) else None


def _answers(run: Recorded, kind: str) -> Optional[Tuple[List[int], Answers, Any]]:
    """The rows that were tested, the answers for them in the order of the rows, and the groups of the rows."""
    import numpy as np

    try:
        with open(run.artifacts.path(PREDICTIONS), encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
    except (OSError, ValueError, NotFound, StoreUnavailable):
        return None
    lines.sort(key=lambda line: int(line[0]))
    columns = {name: [line[place] for line in lines] for place, name in enumerate(header)}
    rows = [int(cell) for cell in columns["row"]]
    groups = np.array(columns["group"]) if "group" in columns else None
    if kind == scores.REGRESSOR:
        parts = [np.array([float(cell) for cell in columns[name]]) for name in ("target", "prediction")]
        return rows, scores.of_numbers(*parts), groups
    named = [name for name in header if name.startswith("probability_")]
    told = np.array([[float(cell) for cell in columns[name]] for name in named]).T if named else None
    margin = np.array([float(cell) for cell in columns["margin"]]) if "margin" in columns else None
    target, said, labels = _labels(
        columns["target"], columns["prediction"], [name[len("probability_") :] for name in named]
    )
    return rows, scores.of_classes(target, said, told, labels or None, margin), groups


def _labels(*several: Sequence[str]) -> List[Any]:
    """Labels as they were: numbers where all are, which sort otherwise than their texts."""
    try:
        return [[float(cell) for cell in cells] for cells in several]
    except ValueError:
        return list(several)
