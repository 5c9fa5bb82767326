"""`mlcli.pytorch`: log, save and load models of PyTorch. PyTorch itself is imported when one is written."""

from mlcli.models.pytorch import load_model, log_model, save_model
from mlcli.models.saving import ModelInfo

__all__ = ["ModelInfo", "load_model", "log_model", "save_model"]
