"""XGBoost models in XGBoost's own formats, which hold numbers and no code: save_model, log_model, load_model."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput, ModelError
from mlcli.models import flavors, loading, saving
from mlcli.models.saving import Given, ModelInfo, Pins, Written

FLAVOR = "xgboost"
FORMATS = ("ubj", "json")
BOOSTER = "xgboost.core.Booster"
CLASSES = frozenset(
    f"xgboost.sklearn.{name}"
    for name in "XGBModel XGBClassifier XGBRegressor XGBRanker XGBRFClassifier XGBRFRegressor".split()
) | {BOOSTER}


def save_model(
    xgb_model: Any,
    path: str,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    model_format: str = "ubj",
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    metadata: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
) -> None:
    """Write a Booster or a model of XGBoost's scikit-learn classes as a model directory; ``model_format`` is ubj or json."""
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    saving.save(path, _writer(xgb_model, model_format), given)


def log_model(
    xgb_model: Any,
    artifact_path: Optional[str] = None,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    name: Optional[str] = None,
    model_format: str = "ubj",
    registered_model_name: Optional[str] = None,
    signature: Any = None,
    input_example: Any = None,
    await_registration_for: Optional[int] = None,  # noqa: ARG001 - MLflow's; a version is ready at once here
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    metadata: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
    params: Optional[Mapping[str, Any]] = None,
    tags: Optional[Mapping[str, Any]] = None,
    model_type: Optional[str] = None,
    step: int = 0,
    model_id: Optional[str] = None,
    run_id: Optional[str] = None,
) -> ModelInfo:
    """Log a model as an artifact of the active run, as :func:`save_model` writes it."""
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    return saving.log(
        _writer(xgb_model, model_format),
        given,
        artifact_path=artifact_path,
        name=name,
        run_id=run_id,
        registered_model_name=registered_model_name,
        params=params,
        tags=tags,
        model_type=model_type,
        step=step,
        model_id=model_id,
    )


def load_model(model_uri: str, dst_path: Optional[str] = None, *, trust: bool = False) -> Any:
    """Load the Booster, or the model of the scikit-learn class that was saved."""
    found = loading.find(model_uri, trust_it=trust, dst_path=dst_path)
    loading.bring_code(found, found.flavor(FLAVOR).get("code"))
    return load(found)


def load(found: loading.Found) -> Any:
    flavor = found.flavor(FLAVOR)
    path = found.path(flavor.get("data"))
    name = str(flavor.get("model_class", BOOSTER))
    if name not in CLASSES:
        found.ask(f"it makes a {name[:100]}", (name[:100],))
    xgboost = flavors.needed("xgboost", "this model")
    home = flavors.needed(name.rpartition(".")[0], "this model")
    try:
        model = getattr(home, name.rpartition(".")[2])()
        model.load_model(path)
    except (xgboost.core.XGBoostError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged, or no model of XGBoost: {str(error).splitlines()[0]}") from error
    return model


def predictor(
    model: Any, how: Mapping[str, Any], _found: loading.Found, _config: Optional[Mapping[str, Any]] = None
) -> Tuple[Callable[..., Any], bool]:
    if type(model).__name__ != "Booster":
        return flavors.plain_method(model, how), False
    xgboost = flavors.needed("xgboost", "this model")
    return lambda data: model.predict(xgboost.DMatrix(data)), False


def _writer(model: Any, model_format: str) -> saving.Writer:
    name = f"{type(model).__module__}.{type(model).__name__}"
    if not callable(getattr(model, "save_model", None)) or not name.startswith("xgboost."):
        raise InvalidInput(
            f"a {type(model).__name__} is no model of XGBoost", hint="give a Booster, or an XGBClassifier and the like"
        )
    if model_format not in FORMATS:
        raise InvalidInput(f"{model_format!r} is no format of XGBoost's", hint="ubj or json")

    def write(folder: str) -> Written:
        import xgboost

        file = f"model.{model_format}"
        model.save_model(os.path.join(folder, file))
        own = {"xgb_version": xgboost.__version__, "data": file, "model_class": name, "model_format": model_format}
        booster = name == BOOSTER
        return Written(
            FLAVOR,
            own,
            {"loader_module": "mlflow.xgboost", "data": file},
            frozenset(("xgboost", "numpy", *(() if booster else ("sklearn",)))),
            (lambda data: model.predict(xgboost.DMatrix(data))) if booster else model.predict,
        )

    return write
