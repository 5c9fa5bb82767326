"""`mlcli ui`: another name for `mlcli server`, as in MLflow."""

from __future__ import annotations

from mlcli.cli.server import app

__all__ = ["app"]
