"""The model directory that MLflow can load too: saving, loading, signatures; and, where MLflow has it, ``evaluate``."""

from mlcli.models.signature import ModelSignature, infer_signature

__all__ = ["ModelSignature", "infer_signature"]

_OF_EVALUATION = ("EvaluationResult", "MetricThreshold", "evaluate", "validate_evaluation_results")


def __getattr__(name: str) -> object:
    if name not in _OF_EVALUATION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlcli.evaluation import result

    return getattr(result, name)
