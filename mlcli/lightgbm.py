"""`mlcli.lightgbm`: trainings with LightGBM that log themselves. LightGBM itself is imported by the program, not here."""

from mlcli.autolog.lightgbm import autolog

__all__ = ["autolog"]
