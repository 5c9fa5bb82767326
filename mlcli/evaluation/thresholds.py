"""What a model must reach, by itself or beyond a baseline: MLflow's MetricThreshold and its validation."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional

from mlcli.errors import InvalidInput, MlcliError

LEAST = 1e-10  # what a relative change beyond a baseline of 0 must be


class ModelValidationFailedException(MlcliError):
    """A model that does not reach its thresholds; one line for each."""

    error_code = "BAD_REQUEST"
    http_status = 400


class MetricThreshold:
    """What one metric must reach: a value, and how much better than a baseline's it must be."""

    def __init__(
        self,
        threshold: Optional[float] = None,
        min_absolute_change: Optional[float] = None,
        min_relative_change: Optional[float] = None,
        *,
        greater_is_better: Optional[bool] = None,
    ) -> None:
        if greater_is_better is None:
            raise InvalidInput("a MetricThreshold must say whether greater is better", hint="greater_is_better=True")
        if not isinstance(greater_is_better, bool):
            raise InvalidInput(f"greater_is_better is True or False, not {greater_is_better!r}")
        if threshold is None and min_absolute_change is None and min_relative_change is None:
            raise InvalidInput("a MetricThreshold needs a threshold, min_absolute_change or min_relative_change")
        for name, value in (
            ("threshold", threshold),
            ("min_absolute_change", min_absolute_change),
            ("min_relative_change", min_relative_change),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise InvalidInput(f"{name} is a number, not {value!r}")
        if min_absolute_change is not None and min_absolute_change <= 0:
            raise InvalidInput(f"min_absolute_change must be greater than 0, not {min_absolute_change:g}")
        if min_relative_change is not None and not 0 <= min_relative_change <= 1:
            raise InvalidInput(f"min_relative_change is a share between 0 and 1, not {min_relative_change:g}")
        self.threshold = threshold
        self.min_absolute_change = min_absolute_change
        self.min_relative_change = min_relative_change
        self.greater_is_better = greater_is_better

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if value is not None)
        return f"MetricThreshold({given})"


def failures(
    thresholds: Mapping[str, MetricThreshold],
    metrics: Mapping[str, float],
    baseline: Optional[Mapping[str, float]] = None,
) -> List[str]:
    """A sentence for each threshold that is not reached."""
    return [line for name, threshold in thresholds.items() for line in _failed(name, threshold, metrics, baseline)]


def _failed(
    name: str, wanted: MetricThreshold, metrics: Mapping[str, float], baseline: Optional[Mapping[str, float]]
) -> List[str]:
    value = metrics.get(name)
    if value is None:
        return [f"{name} was not measured"]
    sign = 1.0 if wanted.greater_is_better else -1.0
    found = []
    if wanted.threshold is not None and not sign * value >= sign * wanted.threshold:
        word = "least" if wanted.greater_is_better else "most"
        found.append(f"{name} is {value:.6g}, wanted at {word} {wanted.threshold:g}")
    if wanted.min_absolute_change is None and wanted.min_relative_change is None:
        return found
    before = None if baseline is None else baseline.get(name)
    if before is None:
        return [*found, f"{name} of the baseline was not measured"]
    gain = sign * (value - before)
    told = f"{name} is {value:.6g} against {before:.6g} of the baseline"
    if wanted.min_absolute_change is not None and not gain >= wanted.min_absolute_change:
        found.append(f"{told}: better by {gain:.6g}, wanted at least {wanted.min_absolute_change:g}")
    if wanted.min_relative_change is not None:
        if before == 0:
            if not gain >= LEAST:
                found.append(f"{told}: no better, and of 0 there is no share")
        elif not gain / abs(before) >= wanted.min_relative_change:
            found.append(
                f"{told}: better by {gain / abs(before):.4%}, wanted at least {wanted.min_relative_change:.4%}"
            )
    return found


def validate_evaluation_results(
    validation_thresholds: Mapping[str, MetricThreshold], candidate_result: Any, baseline_result: Any = None
) -> None:
    """Raise ModelValidationFailedException unless the candidate reaches every threshold."""
    for name, threshold in validation_thresholds.items():
        if not isinstance(threshold, MetricThreshold):
            raise InvalidInput(f"the threshold of {name!r} is a {type(threshold).__name__}, not a MetricThreshold")
    lines = failures(
        validation_thresholds, candidate_result.metrics, None if baseline_result is None else baseline_result.metrics
    )
    if lines:
        raise ModelValidationFailedException("\n".join(lines))
