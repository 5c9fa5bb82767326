"""`mlcli.pyfunc`: load a model of any flavor as one thing that predicts; save and log models of your own."""

from mlcli.models.pyfunc import ModelMetadata, PyFuncModel, load_model
from mlcli.models.python import log_model, save_model
from mlcli.models.python_model import PythonModel, PythonModelContext
from mlcli.models.saving import ModelInfo

__all__ = [
    "ModelInfo",
    "ModelMetadata",
    "PyFuncModel",
    "PythonModel",
    "PythonModelContext",
    "load_model",
    "log_model",
    "save_model",
]
