"""LightGBM's autolog: `lightgbm.train` and the estimators of `lightgbm.sklearn`, under MLflow's names."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from mlcli.autolog import boosting
from mlcli.autolog.session import Library, Session, Settings


def autolog(
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    registered_model_name: Optional[str] = None,
    extra_tags: Optional[Mapping[str, str]] = None,
) -> None:
    """Log every training with LightGBM from now on; call it again to change how, with ``disable=True`` to stop."""
    LIBRARY.choose(
        Settings(
            log_input_examples=log_input_examples,
            log_model_signatures=log_model_signatures,
            log_models=log_models,
            log_datasets=log_datasets,
            exclusive=exclusive,
            disable_for_unsupported_versions=disable_for_unsupported_versions,
            silent=silent,
            registered_model_name=registered_model_name,
            extra_tags=extra_tags,
        ),
        disable=disable,
    )


def _patch(library: Library, module: ModuleType) -> None:
    if module.__name__ == "lightgbm":
        boosting.watch_train(BOOSTER, module, is_estimators=False)
    elif module.__name__ == "lightgbm.basic":
        boosting.watch_data(BOOSTER, module.Dataset)
    elif module.__name__ == "lightgbm.sklearn":
        boosting.watch_train(BOOSTER, module, is_estimators=True)
        boosting.watch_estimators(BOOSTER, module, module.LGBMModel)
    del library


def _callback(report: Callable[[int, Dict[str, float]], None]) -> Any:
    def curve(env: Any) -> None:
        report(env.iteration, {f"{item[0]}-{item[1]}": item[2] for item in env.evaluation_result_list or ()})

    return curve


def _stopped(model: Any, curve: List[Dict[str, float]]) -> Optional[Dict[str, int]]:
    if model.best_iteration <= 0:  # it was not to stop early
        return None
    # Iterations are counted from 1 here.
    return {
        "stopped_iteration": len(curve),
        "best_iteration": model.best_iteration,
        "best_place": model.best_iteration - 1,
    }


def _importances(model: Any, session: Session) -> Dict[str, Tuple[List[str], Any]]:
    del session
    features = model.feature_name()
    return {kind: (features, model.feature_importance(importance_type=kind)) for kind in ("split", "gain")}


def _datasets(given: Mapping[str, Any]) -> List[Tuple[Any, Any, str, Optional[str]]]:
    train = [(given["train_set"], "train", None)] if given.get("train_set") is not None else []
    valid = given.get("valid_sets") or ()
    valid = list(valid) if isinstance(valid, (list, tuple)) else [valid]
    names = list(given.get("valid_names") or ())
    named = [(data, "eval", names[place] if place < len(names) else None) for place, data in enumerate(valid)]
    return [(data.data, data.label, context, name) for data, context, name in [*train, *named]]


def _predict(model: Any, rows: Any) -> Any:
    return model.predict(rows)


LIBRARY = Library("lightgbm", ("lightgbm",), _patch, (3, 0))
BOOSTER = boosting.Booster(
    LIBRARY,
    (
        "params",
        "train_set",
        "valid_sets",
        "valid_names",
        "fobj",
        "feval",
        "init_model",
        "learning_rates",
        "callbacks",
        "evals_result",
    ),
    _callback,
    _stopped,
    _importances,
    _datasets,
    "",
    _predict,
    dict,
)
