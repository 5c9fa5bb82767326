"""XGBoost's autolog: `xgboost.train` and the estimators of `xgboost.sklearn`, under MLflow's names."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from mlcli.autolog import boosting
from mlcli.autolog.session import Library, Session, Settings
from mlcli.errors import InvalidInput
from mlcli.models.xgboost import FORMATS


def autolog(
    importance_types: Optional[Sequence[str]] = None,
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    registered_model_name: Optional[str] = None,
    model_format: str = "ubj",
    extra_tags: Optional[Mapping[str, str]] = None,
) -> None:
    """Log every training with XGBoost from now on; call it again to change how, with ``disable=True`` to stop.

    ``importance_types`` are kinds that ``Booster.get_score`` knows (``["weight"]``); each becomes a table and a plot.
    """
    if model_format not in FORMATS:
        raise InvalidInput(f"{model_format!r} is no format of XGBoost's", hint="one of " + ", ".join(FORMATS))
    LIBRARY.choose(
        Settings(
            importance_types=tuple(importance_types or ("weight",)),
            log_input_examples=log_input_examples,
            log_model_signatures=log_model_signatures,
            log_models=log_models,
            log_datasets=log_datasets,
            exclusive=exclusive,
            disable_for_unsupported_versions=disable_for_unsupported_versions,
            silent=silent,
            registered_model_name=registered_model_name,
            model_format=model_format,
            extra_tags=extra_tags,
        ),
        disable=disable,
    )


def _patch(library: Library, module: ModuleType) -> None:
    if module.__name__ == "xgboost":
        boosting.watch_train(BOOSTER, module, is_estimators=False)
    elif module.__name__ == "xgboost.core":
        boosting.watch_data(BOOSTER, module.DMatrix)
    elif module.__name__ == "xgboost.sklearn":
        boosting.watch_train(BOOSTER, module, is_estimators=True)
        boosting.watch_estimators(BOOSTER, module, module.XGBModel)
    del library


def _callback(report: Callable[[int, Dict[str, float]], None]) -> Any:
    from xgboost.callback import TrainingCallback

    class Curve(TrainingCallback):  # type: ignore[misc]
        """Reports the newest value of each metric after each iteration."""

        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, List[Any]]]) -> bool:
            del model
            report(
                epoch,
                {
                    f"{data}-{metric}": _newest(values)
                    for data, metrics in evals_log.items()
                    for metric, values in metrics.items()
                },
            )
            return False

    return Curve()


def _newest(values: List[Any]) -> float:
    value = values[-1]
    return float(value[0] if isinstance(value, tuple) else value)  # a pair has the deviation of a cross-validation too


def _stopped(model: Any, curve: List[Dict[str, float]]) -> Optional[Dict[str, int]]:
    try:
        best = int(model.best_iteration)
    except AttributeError:  # it was not to stop early
        return None
    return {"stopped_iteration": len(curve) - 1, "best_iteration": best, "best_place": best}


def _importances(model: Any, session: Session) -> Dict[str, Tuple[List[str], Any]]:
    found = {kind: model.get_score(importance_type=kind) for kind in session.settings.importance_types}
    return {kind: (list(scores), list(scores.values())) for kind, scores in found.items()}


def _datasets(given: Mapping[str, Any]) -> List[Tuple[Any, Any, str, Optional[str]]]:
    train = [(given["dtrain"], "train", None)] if given.get("dtrain") is not None else []
    every = [*train, *((data, "eval", name) for data, name in given.get("evals") or ())]
    return [(data.get_data(), None, context, name) for data, context, name in every if hasattr(data, "get_data")]


def _predict(model: Any, rows: Any) -> Any:
    import xgboost

    return model.predict(xgboost.DMatrix(rows))


def _model_options() -> Dict[str, Any]:
    return {"model_format": LIBRARY.settings.model_format}


LIBRARY = Library("xgboost", ("xgboost",), _patch, (1, 4))
BOOSTER = boosting.Booster(
    LIBRARY,
    ("params", "dtrain", "evals", "obj", "feval", "evals_result", "xgb_model", "callbacks", "learning_rates"),
    _callback,
    _stopped,
    _importances,
    _datasets,
    "validation",
    _predict,
    _model_options,
)
