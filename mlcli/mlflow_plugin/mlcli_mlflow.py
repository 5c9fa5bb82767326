"""Loaded by the real MLflow inside `mlcli run`, through its plugin interface: tells mlcli where a script logs to.

Standard library and MLflow alone, any Python: it runs in the project's environment. MLflow asks its run context
providers for tags whenever a run starts, on whichever server.
"""

import json
import os

_TAG = "mlcli.mlflow.elsewhere"
_told = set()


class Elsewhere:
    """A run context provider without tags: it tells once where runs go that do not come to mlcli."""

    def in_context(self) -> bool:
        from mlflow.tracking import get_tracking_uri

        uri, ours, journal = get_tracking_uri(), os.environ.get("MLCLI_MLFLOW_URI"), os.environ.get("MLCLI_JOURNAL")
        if ours and journal and uri != ours and uri not in _told:
            _told.add(uri)
            line = json.dumps({"tag": _TAG, "value": ", ".join(sorted(_masked(one) for one in _told))[:5000]})
            with open(journal, "a") as file:
                file.write(line + "\n")
        return False

    def tags(self) -> dict:
        return {}


def _masked(uri: str) -> str:
    """The URI without what stands between :// and @: it may hold a password."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
