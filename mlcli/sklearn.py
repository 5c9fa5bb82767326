"""`mlcli.sklearn`: log, save and load scikit-learn models. scikit-learn itself is imported when one is written."""

from mlcli.models.sklearn import ModelInfo, load_model, log_model, save_model

__all__ = ["ModelInfo", "load_model", "log_model", "save_model"]
