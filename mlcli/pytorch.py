"""`mlcli.pytorch`: autolog for PyTorch Lightning, and log, save and load models of PyTorch. Both are imported when they are needed."""

from mlcli.autolog.lightning import autolog
from mlcli.models.pytorch import load_model, log_model, save_model
from mlcli.models.saving import ModelInfo

__all__ = ["ModelInfo", "autolog", "load_model", "log_model", "save_model"]
