"""`mlcli.lightgbm`: autolog, and log, save and load models of LightGBM. LightGBM itself is imported when it is needed."""

from mlcli.autolog.lightgbm import autolog
from mlcli.models.lightgbm import load_model, log_model, save_model
from mlcli.models.saving import ModelInfo

__all__ = ["ModelInfo", "autolog", "load_model", "log_model", "save_model"]
