"""`mlcli.pytorch`: trainings with PyTorch Lightning that log themselves. Lightning is imported by the program, not here."""

from mlcli.autolog.lightning import autolog

__all__ = ["autolog"]
