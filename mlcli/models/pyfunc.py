"""Any model as one thing that predicts, whatever its flavor: MLflow's python_function."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Mapping, Optional

from mlcli.errors import ModelError
from mlcli.models import flavors, loading, schema
from mlcli.models.schema import Params, Schema
from mlcli.models.signature import ModelSignature


class ModelMetadata(Dict[str, Any]):
    """What an MLmodel says, as a map; its keys are attributes too, and ``signature`` is one that can be used."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the MLmodel says nothing of {name!r}")

    @property
    def signature(self) -> Optional[ModelSignature]:
        given = self.get("signature")
        return ModelSignature.from_dict(given) if isinstance(given, dict) else None

    def get_input_schema(self) -> Any:
        return self.signature.inputs if self.signature else None

    def get_output_schema(self) -> Any:
        return self.signature.outputs if self.signature else None

    def get_params_schema(self) -> Any:
        return self.signature.params if self.signature else None


class PyFuncModel:
    """A loaded model.

    ``predict_fn`` is the bare function of the model, which takes what the flavor takes: ``predict_fn(data)``, or
    ``predict_fn(data, params=...)`` where ``takes_params``. :meth:`predict` fits the data to the signature first.
    """

    def __init__(
        self,
        found: loading.Found,
        model: Any,
        predict_fn: Callable[..., Any],
        *,
        takes_params: bool = False,
    ) -> None:
        self.model_uri = found.uri
        self.folder = found.folder
        self.metadata = ModelMetadata(found.content)
        self.signature = self.metadata.signature
        self.predict_fn = predict_fn
        self.takes_params = takes_params
        self._schema = Schema.of(self.signature.inputs) if self.signature else None
        self._model = model

    def predict(self, data: Any, params: Optional[Mapping[str, Any]] = None) -> Any:
        """Predict for a DataFrame, an array, lists or a dictionary of columns, checked against the signature."""
        data = self._fitted(data)
        if self.takes_params:
            known = Params.of(self.signature.params) if self.signature else None
            return self.predict_fn(data, params=known.fill(dict(params or {})) if known else params)
        return self.predict_fn(data)

    def _fitted(self, data: Any) -> Any:
        """The data as the signature has them; InvalidInput names the column and the row that do not fit."""
        if self._schema is None:
            return data
        if self._schema.tensors and hasattr(data, "dtype") and hasattr(data, "tolist"):
            if _is_as_said(data, self._schema.tensors[0]):
                return data
            return self._schema.tensor(schema.Nested(data.tolist()))
        if self._schema.tensors:
            return data
        if hasattr(data, "columns") and hasattr(data, "dtypes"):
            return self._schema.frame(data)
        if isinstance(data, Mapping):
            plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in data.items()}
            return self._schema.frame(schema.Columns(plain))
        if isinstance(data, (list, tuple)) and data and all(isinstance(row, Mapping) for row in data):
            return self._schema.frame(schema.Records([dict(row) for row in data]))
        return self._schema.frame(schema.Nested(data.tolist() if hasattr(data, "tolist") else list(data)))

    def unwrap(self) -> Any:
        """The model itself: the estimator, the booster, the Python object."""
        return self._model

    unwrap_python_model = unwrap
    get_raw_model = unwrap

    @property
    def loader_module(self) -> str:
        return str(self.metadata["flavors"][flavors.PYTHON_FUNCTION].get("loader_module"))

    def __repr__(self) -> str:
        return f"<PyFuncModel {type(self._model).__name__} from {self.model_uri}>"


def _is_as_said(array: Any, said: schema.Tensor) -> bool:
    return (
        str(array.dtype) == said.dtype
        and len(array.shape) == len(said.shape)
        and all(want in (-1, has) for want, has in zip(said.shape, array.shape))
    )


def load_model(
    model_uri: str,
    *,
    trust: bool = False,
    dst_path: Optional[str] = None,
    model_config: Optional[Mapping[str, Any]] = None,
) -> PyFuncModel:
    """Load a model of any flavor: ``runs:/<run>/<path>``, ``models:/<name>/<version>``, a path ...

    ``trust=True`` also loads what can run code while it is loaded. ``dst_path`` keeps a copy of the directory there.
    ``model_config`` is for custom Python models, over what was saved with them.
    """
    found = loading.find(model_uri, trust_it=trust, dst_path=dst_path)
    how = found.flavor(flavors.PYTHON_FUNCTION)
    line = flavors.of_loader(str(how.get("loader_module")))
    if line is None:
        return _load_foreign(found, how)
    loading.bring_code(found, how.get("code"))
    flavor = flavors.module_of(line)
    model = flavor.load(found)
    predict_fn, takes_params = flavor.predictor(model, how, found, model_config)
    return PyFuncModel(found, model, predict_fn, takes_params=takes_params)


def _load_foreign(found: loading.Found, how: Mapping[str, Any]) -> PyFuncModel:
    """A model with a loader of its own: a module with the function ``_load_pyfunc``, as MLflow has it."""
    from importlib import import_module

    name = str(how.get("loader_module"))
    if not re.match(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z", name):
        raise ModelError(f"{found.uri} has no loader_module that could be imported: {name[:80]!r}")
    found.ask(f"it is loaded by the module {name}")
    loading.bring_code(found, how.get("code"))
    path = found.path(how["data"], file=False) if how.get("data") else found.folder
    try:
        model = import_module(name)._load_pyfunc(path)  # noqa: SLF001 - the name by which MLflow finds loaders
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{found.uri} needs a loader that is not here: {error}", hint=f"install {name}") from error
    return PyFuncModel(found, model, model.predict)
