"""`mlcli.xgboost`: autolog, and log, save and load models of XGBoost. XGBoost itself is imported when it is needed."""

from mlcli.autolog.xgboost import autolog
from mlcli.models.saving import ModelInfo
from mlcli.models.xgboost import load_model, log_model, save_model

__all__ = ["ModelInfo", "autolog", "load_model", "log_model", "save_model"]
