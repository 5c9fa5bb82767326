"""LightGBM models: a Booster as the text that LightGBM writes, models of its scikit-learn classes as pickles under the gate."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput, ModelError
from mlcli.models import flavors, loading, saving, sklearn
from mlcli.models.saving import Given, ModelInfo, Pins, Written

FLAVOR = "lightgbm"
_BOOSTER = "lightgbm.basic.Booster"
# Their state is numbers, and the text of the model.
INSTANCES = frozenset(
    [("lightgbm.basic", "Booster")]
    + [("lightgbm.sklearn", f"LGBM{kind}") for kind in ("Model", "Classifier", "Regressor", "Ranker")]
)


def save_model(
    lgb_model: Any,
    path: str,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    serialization_format: Optional[str] = None,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    metadata: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
) -> None:
    """Write a Booster or a model of LightGBM's scikit-learn classes as a model directory."""
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    saving.save(path, _writer(lgb_model, serialization_format), given)


def log_model(
    lgb_model: Any,
    artifact_path: Optional[str] = None,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    name: Optional[str] = None,
    serialization_format: Optional[str] = None,
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
        _writer(lgb_model, serialization_format),
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
    lightgbm = flavors.needed("lightgbm", "this model")
    if flavor.get("model_class", _BOOSTER) != _BOOSTER:
        return sklearn.load_file(found, flavor.get("data"), flavor.get("serialization_format"), instances=INSTANCES)
    try:
        return lightgbm.Booster(model_file=path)
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged, or no model of LightGBM: {str(error).splitlines()[0]}") from error


def predictor(
    model: Any, how: Mapping[str, Any], _found: loading.Found, _config: Optional[Mapping[str, Any]] = None
) -> Tuple[Callable[..., Any], bool]:
    return flavors.plain_method(model, how), False


def _writer(model: Any, form: Optional[str]) -> saving.Writer:
    name = f"{type(model).__module__}.{type(model).__name__}"
    if not name.startswith("lightgbm."):
        raise InvalidInput(
            f"a {type(model).__name__} is no model of LightGBM",
            hint="give a Booster, or an LGBMClassifier and the like",
        )

    def write(folder: str) -> Written:
        import lightgbm

        own = {"lgb_version": lightgbm.__version__, "model_class": name}
        modules = {"lightgbm", "numpy"}
        if name == _BOOSTER:
            own["data"] = "model.lgb"
            model.save_model(os.path.join(folder, "model.lgb"))
        else:
            own["data"], own["serialization_format"], named = sklearn.serialize(model, folder, form)
            modules |= {"sklearn", *named}
        return Written(
            FLAVOR, own, {"loader_module": "mlflow.lightgbm", "data": own["data"]}, frozenset(modules), model.predict
        )

    return write
