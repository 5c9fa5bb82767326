"""PyTorch modules: whole, as `torch.save` pickles them, the way MLflow reads and writes them. They load under the gate."""

from __future__ import annotations

import os
import pickle
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput, ModelError
from mlcli.models import flavors, loading, saving
from mlcli.models.saving import Given, ModelInfo, Pins, Written

FLAVOR = "pytorch"
_DATA = "data"
_FILE = "model.pth"
_EXPORTED = "model.pt2"
_NOTE = "pickle_module_info.txt"
_PICKLED_BY = "mlflow.pytorch.pickle_module"  # cloudpickle by another name


def save_model(
    pytorch_model: Any,
    path: str,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    metadata: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
) -> None:
    """Write a ``torch.nn.Module`` as a model directory. What the main script defines travels with it."""
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    saving.save(path, _writer(pytorch_model), given)


def log_model(
    pytorch_model: Any,
    artifact_path: Optional[str] = None,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    name: Optional[str] = None,
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
    """Log a module as an artifact of the active run, as :func:`save_model` writes it."""
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    return saving.log(
        _writer(pytorch_model),
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
    """Load the module, on the CPU and ready to predict."""
    found = loading.find(model_uri, trust_it=trust, dst_path=dst_path)
    loading.bring_code(found, found.flavor(FLAVOR).get("code"))
    return load(found)


def load(found: loading.Found) -> Any:
    flavor = found.flavor(FLAVOR)
    folder = str(flavor.get("model_data", _DATA))
    found.ask("a module of PyTorch is a pickle that makes what it likes")
    torch: Any = flavors.needed("torch", "this model")
    try:
        if os.path.isfile(os.path.join(found.folder, folder, _EXPORTED)):
            return torch.export.load(found.path(f"{folder}/{_EXPORTED}")).module()
        path = found.path(f"{folder}/{_FILE}")
        # The zip of torch.jit.save has no data.pkl of torch.save's kind; torch.load tells them apart by itself.
        more = {"weights_only": False} if _knows_weights_only(torch) else {}
        model = torch.load(path, map_location="cpu", pickle_module=pickle, **more)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{found.uri} needs something that is missing here: {error}",
            hint="the requirements.txt beside it lists what it was made with",
        ) from error
    except (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{found.uri} is damaged, or no model of PyTorch: {error}") from error
    model.eval()
    return model


def _knows_weights_only(torch: Any) -> bool:
    import inspect

    return "weights_only" in inspect.signature(torch.load).parameters


def predictor(
    model: Any, _how: Mapping[str, Any], _found: loading.Found, _config: Optional[Mapping[str, Any]] = None
) -> Tuple[Callable[..., Any], bool]:
    return lambda data: _predict(model, data), False


def _predict(model: Any, data: Any) -> Any:
    """Answers as an array, or for a DataFrame as one with the same index: as MLflow gives them."""
    torch: Any = flavors.needed("torch", "this model")
    table = saving.is_table(data)
    if not table and not (hasattr(data, "dtype") and hasattr(data, "shape")):
        raise InvalidInput(f"a module of PyTorch takes a DataFrame or an array, not a {type(data).__name__}")
    with torch.no_grad():
        answer = model(torch.from_numpy(data.to_numpy(dtype="float32") if table else data))
    if not isinstance(answer, torch.Tensor):
        raise ModelError(f"the module answers with a {type(answer).__name__}, not with a tensor")
    found = answer.cpu().numpy()
    if not table:
        return found
    import pandas as pd

    return pd.DataFrame(found, index=data.index)


def _writer(model: Any) -> saving.Writer:
    if not callable(getattr(model, "state_dict", None)) or not callable(model):
        raise InvalidInput(f"a {type(model).__name__} is no module of PyTorch", hint="give a torch.nn.Module")

    def write(folder: str) -> Written:
        import torch

        try:
            import cloudpickle
        except ImportError:
            raise ModelError(
                "a PyTorch model needs cloudpickle, which is not installed", hint="pip install cloudpickle"
            ) from None
        data = os.path.join(folder, _DATA)
        os.makedirs(data)
        with open(os.path.join(data, _NOTE), "w", encoding="utf-8") as file:
            file.write(_PICKLED_BY)
        path = os.path.join(data, _FILE)
        if isinstance(model, torch.jit.ScriptModule):
            torch.jit.save(model, path)
        else:
            torch.save(model, path, pickle_module=cloudpickle)
        named = {type(part).__module__.partition(".")[0] for part in model.modules()} - {"__main__"}
        return Written(
            FLAVOR,
            {"model_data": _DATA, "pytorch_version": str(torch.__version__)},
            {
                "loader_module": "mlflow.pytorch",
                "data": _DATA,
                "pickle_module_name": _PICKLED_BY,
                "config": {"device": None},
            },
            frozenset(("torch", "cloudpickle", "numpy", *named)),
            lambda example: _predict(model.eval(), example),
        )

    return write
