"""Any model as one thing that predicts, whatever its flavor: MLflow's python_function."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Mapping, Optional

from mlcli.errors import ModelError
from mlcli.models import flavors, loading
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
        self._model = model

    def predict(self, data: Any, params: Optional[Mapping[str, Any]] = None) -> Any:
        """Predict for a DataFrame, an array, lists or a dictionary of columns, checked against the signature."""
        if self.takes_params:
            return self.predict_fn(data, params=params)
        return self.predict_fn(data)

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


def load_model(model_uri: str, *, trust: bool = False, dst_path: Optional[str] = None) -> PyFuncModel:
    """Load a model of any flavor: ``runs:/<run>/<path>``, ``models:/<name>/<version>``, a path ...

    ``trust=True`` also loads what can run code while it is loaded. ``dst_path`` keeps a copy of the directory there.
    """
    found = loading.find(model_uri, trust_it=trust, dst_path=dst_path)
    how = found.flavor(flavors.PYTHON_FUNCTION)
    line = flavors.of_loader(str(how.get("loader_module")))
    if line is None:
        return _load_foreign(found, how)
    loading.bring_code(found, how.get("code"))
    flavor = flavors.module_of(line)
    model = flavor.load(found)
    predict_fn, takes_params = flavor.predictor(model, how)
    return PyFuncModel(found, model, predict_fn, takes_params=takes_params)


def _load_foreign(found: loading.Found, how: Mapping[str, Any]) -> PyFuncModel:
    """A model with a loader of its own: a module with the function ``_load_pyfunc``, as MLflow has it."""
    from importlib import import_module

    name = str(how.get("loader_module"))
    if not re.match(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z", name):
        raise ModelError(f"{found.uri} has no loader_module that could be imported: {name[:80]!r}")
    found.ask(f"it is loaded by the module {name}")
    loading.bring_code(found, how.get("code"))
    path = found.path(how["data"], folder=True) if how.get("data") else found.folder
    try:
        model = import_module(name)._load_pyfunc(path)  # noqa: SLF001 - the name by which MLflow finds loaders
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{found.uri} needs a loader that is not here: {error}", hint=f"install {name}") from error
    return PyFuncModel(found, model, model.predict)
