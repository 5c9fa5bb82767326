"""`mlcli.lightgbm`: log, save and load models of LightGBM. LightGBM itself is imported when one is written."""

from mlcli.models.lightgbm import load_model, log_model, save_model
from mlcli.models.saving import ModelInfo

__all__ = ["ModelInfo", "load_model", "log_model", "save_model"]
