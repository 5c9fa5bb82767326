"""MLflow's name for the place of the client: ``from mlcli.tracking import MlflowClient``."""

from __future__ import annotations

from mlcli.client import MlflowClient
from mlcli.fluent import get_tracking_uri, is_tracking_uri_set, set_tracking_uri

__all__ = ["MlflowClient", "get_tracking_uri", "is_tracking_uri_set", "set_tracking_uri"]
