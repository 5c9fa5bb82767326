"""`mlcli.sklearn`: autolog, and log, save and load scikit-learn models. scikit-learn itself is imported when it is needed."""

from mlcli.autolog.sklearn import autolog
from mlcli.models.saving import ModelInfo
from mlcli.models.sklearn import (
    SERIALIZATION_FORMAT_CLOUDPICKLE,
    SERIALIZATION_FORMAT_PICKLE,
    SERIALIZATION_FORMAT_SKOPS,
    load_model,
    log_model,
    save_model,
)

__all__ = [
    "SERIALIZATION_FORMAT_CLOUDPICKLE",
    "SERIALIZATION_FORMAT_PICKLE",
    "SERIALIZATION_FORMAT_SKOPS",
    "ModelInfo",
    "autolog",
    "load_model",
    "log_model",
    "save_model",
]
