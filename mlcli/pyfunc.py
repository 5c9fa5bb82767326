"""`mlcli.pyfunc`: load a model of any flavor as one thing that predicts."""

from mlcli.models.pyfunc import ModelMetadata, PyFuncModel, load_model

__all__ = ["ModelMetadata", "PyFuncModel", "load_model"]
