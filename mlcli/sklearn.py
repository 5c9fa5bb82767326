"""`mlcli.sklearn`: autolog, and log, save and load scikit-learn models. scikit-learn itself is imported when it is needed."""

from mlcli.autolog.sklearn import autolog
from mlcli.models.sklearn import ModelInfo, load_model, log_model, save_model

__all__ = ["ModelInfo", "autolog", "load_model", "log_model", "save_model"]
