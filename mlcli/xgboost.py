"""`mlcli.xgboost`: trainings with XGBoost that log themselves. XGBoost itself is imported by the program, not here."""

from mlcli.autolog.xgboost import autolog

__all__ = ["autolog"]
