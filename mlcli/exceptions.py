"""MLflow's name for our errors: ``except mlcli.exceptions.MlflowException``."""

from __future__ import annotations

from mlcli.errors import MlcliError

MlflowException = MlcliError
