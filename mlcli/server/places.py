"""Where artifacts are: on disk for the server, ``mlflow-artifacts:/<experiment>/...`` for whoever asks over HTTP.

A path of the proxy begins with the id of an experiment; the rest lies in that experiment's folder, in the artifacts of a
run or of a logged model. Nothing else of the store can be named, and clients name no folder of this machine.
"""

from __future__ import annotations

import os

from mlcli import rules
from mlcli.artifacts import LocalArtifacts, open_artifacts, parse_runs_uri
from mlcli.entities import Experiment, RunInfo
from mlcli.errors import InvalidInput, NotFound
from mlcli.store import Store

SCHEME = "mlflow-artifacts:/"


class Places:
    """Translates between locations on disk and the URIs that clients see."""

    def __init__(self, *, served: bool = True, destination: str | None = None) -> None:
        self.served = served
        self.destination = destination
        self._experiments: dict[str, str] = {}  # folder on disk -> experiment id; a location never changes

    def of_experiment(self, experiment: Experiment) -> str:
        return SCHEME + experiment.experiment_id if self.served else experiment.artifact_location

    def of_run(self, store: Store, info: RunInfo) -> str:
        return self.public(store, info.artifact_uri)

    def public(self, store: Store, location: str) -> str:
        """The URI for clients of a folder on disk; what is no folder of an experiment stays as it is."""
        if not self.served or not location.startswith("/"):
            return location
        root = store.root.rstrip("/") + "/"
        if location.startswith(root):
            return SCHEME + location[len(root) :]
        folder = location
        while len(folder) > 1:
            known = self._experiments.get(folder) or self._find(store, folder)
            if known:
                return SCHEME + known + location[len(folder) :]
            folder = os.path.dirname(folder)
        raise NotFound("the artifacts lie where no experiment of this server keeps them")

    def settle(self, store: Store, experiment_id: str) -> None:
        """Let the artifacts of a new experiment go where the server was told to keep them."""
        if self.destination and self.destination != store.root:
            with store.database.transaction():
                store.database.execute(
                    "UPDATE experiments SET artifact_location = :folder WHERE id = :id AND artifact_location IS NULL"
                    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.experiment = :id)",
                    {"folder": os.path.join(self.destination, experiment_id), "id": int(experiment_id)},
                )

    def _find(self, store: Store, folder: str) -> str | None:
        row = store.database.one(
            "SELECT id FROM experiments WHERE artifact_location = :folder ORDER BY id LIMIT 1", {"folder": folder}
        )
        if row is None:
            return None
        if len(self._experiments) < 100_000:
            self._experiments[folder] = str(row[0])
        return str(row[0])

    def private(self, store: Store, uri: str) -> str:
        """The folder on disk that the location of a model version means."""
        if uri.startswith("runs:/"):
            run_id, path = parse_runs_uri(uri)
            return open_artifacts(store.artifact_root(run_id)).path(path)
        if uri.startswith(SCHEME):
            artifacts, path = self.locate(store, uri[len(SCHEME) :].lstrip("/"))
            return artifacts.path(path)
        if uri.startswith("/"):
            return uri
        raise InvalidInput("the files of this model version are not on this server")

    def locate(self, store: Store, path: str) -> tuple[LocalArtifacts, str]:
        """The artifacts of an experiment and the path below them that a path of the proxy means."""
        name = rules.artifact_path(path)
        if "//" in path:
            raise InvalidInput(f"the artifact path {path!r} is not a plain relative path")
        experiment, _, rest = name.partition("/")
        if not experiment:
            raise InvalidInput("the artifact path names no experiment", hint="<experiment>/<run>/artifacts/<path>")
        parts = rest.split("/")
        depth = 2 if parts[0] == "models" else 1
        if len(parts) <= depth or parts[depth] != "artifacts":
            raise InvalidInput(f"the artifact path {path!r} is not of the form <experiment>/<run>/artifacts/<path>")
        if not (experiment.isascii() and experiment.isdigit()):
            raise NotFound(f"there is no experiment {experiment!r}")
        return open_artifacts(store.get_experiment(experiment).artifact_location), rest


def own_location(location: str | None) -> str | None:
    """What an experiment's artifact location may be when a client names it: nothing, or ours to choose."""
    if not location or location.rstrip("/") in ("mlflow-artifacts:", "mlflow-artifacts:/"):
        return None
    raise InvalidInput(
        "artifact_location cannot be chosen by a client of this server: it keeps artifacts beside its store",
        hint="leave artifact_location out",
    )
