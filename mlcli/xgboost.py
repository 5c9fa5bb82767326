"""`mlcli.xgboost`: log, save and load models of XGBoost. XGBoost itself is imported when one is written."""

from mlcli.models.saving import ModelInfo
from mlcli.models.xgboost import load_model, log_model, save_model

__all__ = ["ModelInfo", "load_model", "log_model", "save_model"]
