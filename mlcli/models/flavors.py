"""The flavors that mlcli loads: one line for each, and what a module must have to be one."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple, Optional, Protocol, Tuple

from mlcli.errors import ModelError
from mlcli.models.loading import Found


class Flavor(Protocol):
    """What a module that implements a flavor has."""

    def load(self, found: Found) -> Any:
        """The model itself; asks ``found`` before anything in the files may run."""

    def predictor(
        self, model: Any, how: Mapping[str, Any], found: Found, config: Optional[Mapping[str, Any]] = None
    ) -> Tuple[Callable[..., Any], bool]:
        """The function that predicts, and whether it takes ``params`` too.

        ``how`` is the python_function flavor; ``config`` is what load_model was given for custom models.
        """


class Line(NamedTuple):
    """A flavor: its name in an MLmodel, the loader that MLflow names for it, our module."""

    name: str
    loader_module: str
    module: str


FLAVORS = (
    Line("sklearn", "mlflow.sklearn", "mlcli.models.sklearn"),
    Line("python_function", "mlflow.pyfunc.model", "mlcli.models.python"),
    Line("xgboost", "mlflow.xgboost", "mlcli.models.xgboost"),
    Line("lightgbm", "mlflow.lightgbm", "mlcli.models.lightgbm"),
    Line("pytorch", "mlflow.pytorch", "mlcli.models.pytorch"),
)
PYTHON_FUNCTION = "python_function"


def of_loader(loader_module: str) -> Optional[Line]:
    """The flavor whose loader MLflow calls ``loader_module``; None for one of the model's own or one unknown here."""
    return next((line for line in FLAVORS if line.loader_module == loader_module), None)


def module_of(line: Line) -> Flavor:
    from importlib import import_module

    module: Any = import_module(line.module)
    flavor: Flavor = module
    return flavor


def needed(name: str, what: str) -> Any:
    """Import the library that a flavor is about; ModelError names what to install when it is not there."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            f"{what} needs {name}, which cannot be imported: {error}", hint=f"pip install {name}"
        ) from None


def plain_method(model: Any, how: Mapping[str, Any]) -> Callable[..., Any]:
    """The method of ``model`` that its python_function flavor names, ``predict`` by default."""
    name = str(how.get("predict_fn") or "predict")
    method = None if name.startswith("_") else getattr(model, name, None)
    if callable(method):
        found: Callable[..., Any] = method
        return found

    def missing(_data: Any) -> Any:
        raise ModelError(f"a {type(model).__name__} has no method {name}", hint="load it with its own flavor")

    return missing
