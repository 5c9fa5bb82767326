"""Loaded by the real MLflow inside `mlcli run`, through its plugin interface (the entry points beside this file).

It runs in the project's environment, with any version of MLflow and any Python from 3.8: it imports MLflow, the tracker
side of mlcli and the standard library. It does two things:

* It tells mlcli where a script logs to that chooses another server itself. MLflow asks its run context providers for
  tags whenever a run starts, wherever that is.
* It lets `mlflow.projects.run` go through `mlcli run`: the run is a child of this one, and it uses mlcli's environments
  and env manager, where MLflow's own way needs pyenv and forgets `--env-manager=local`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from types import ModuleType
from typing import Any, Dict, Optional, Sequence, Set

_TAG = "mlcli.mlflow.elsewhere"
_BACKENDS = "mlflow.projects.backend.loader"  # the module with the table of MLflow's backends
_told: Set[str] = set()


class Elsewhere:
    """A run context provider without tags: it tells once of each place but mlcli's that runs go to."""

    def in_context(self) -> bool:
        from mlflow.tracking import get_tracking_uri

        uri, ours, journal = get_tracking_uri(), os.environ.get("MLCLI_MLFLOW_URI"), os.environ.get("MLCLI_JOURNAL")
        if ours and journal and uri != ours and uri not in _told:
            _told.add(uri)
            line = json.dumps({"tag": _TAG, "value": ", ".join(sorted(map(_masked, _told)))[:5000]})
            with open(journal, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        return False

    def tags(self) -> Dict[str, str]:
        return {}


def _masked(uri: str) -> str:
    """The URI without what stands between :// and @: it may hold a password."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


class Backend:
    """The backend `local` of mlflow.projects: `mlcli run`, unless the script logs to another server."""

    def __init__(self, own: Any) -> None:
        self._own = own  # MLflow's

    def __call__(self) -> Backend:
        return self

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Dict[str, Any],
        version: Optional[str],
        backend_config: Dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> Any:
        from mlflow.exceptions import ExecutionException

        if tracking_uri != os.environ.get("MLCLI_MLFLOW_URI"):
            return self._own().run(
                project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id
            )
        import mlflow

        from mlcli import submit
        from mlcli.errors import MlcliError

        active = mlflow.active_run()
        try:
            submitted = submit.run(
                project_uri,
                entry_point,
                version,
                params,
                backend_config.get("DOCKER_ARGS"),
                experiment_id=experiment_id,
                storage_dir=backend_config.get("STORAGE_DIR"),
                synchronous=False,
                env_manager=backend_config.get("ENV_MANAGER"),
                build_image=bool(backend_config.get("build_image")),
                parent_run_id=active.info.run_id if active else None,
            )
        except MlcliError as error:
            raise ExecutionException(f"{error}\n{error.hint}".strip()) from error
        _until_it_is_there(submitted)
        return _submitted_run(submitted)


def _until_it_is_there(submitted: Any) -> None:
    """Wait until the run is in the store: MLflow's next step is to set a tag on it."""
    from mlflow.exceptions import ExecutionException, MlflowException
    from mlflow.tracking import MlflowClient

    while True:
        ended = submitted.exit_code is not None
        try:
            MlflowClient().get_run(submitted.run_id)
        except MlflowException as error:
            if ended:
                raise ExecutionException(
                    f"mlcli run ended with exit code {submitted.exit_code} before there was a run"
                ) from error
        else:
            return
        time.sleep(0.05)


def _submitted_run(submitted: Any) -> Any:
    from mlflow.entities import RunStatus
    from mlflow.projects.submitted_run import SubmittedRun
    from mlflow.tracking import MlflowClient

    class Submitted(SubmittedRun):  # type: ignore[misc]
        """MLflow's view of a run that `mlcli run` makes."""

        @property
        def run_id(self) -> str:
            return str(submitted.run_id)

        def wait(self) -> bool:
            return bool(submitted.wait())

        def get_status(self) -> Any:
            return RunStatus.from_string(MlflowClient().get_run(self.run_id).info.status)

        def cancel(self) -> None:
            submitted.cancel()

    return Submitted()


class _WhenImported(importlib.abc.MetaPathFinder):
    """Puts our backend into MLflow's table once the module with the table has been imported."""

    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name != _BACKENDS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        loader = spec.loader if spec else None
        if loader is not None and hasattr(loader, "exec_module"):
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _offer(module)

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _offer(module: ModuleType) -> None:
    table = getattr(module, "MLFLOW_BACKENDS", None)
    if isinstance(table, dict) and "local" in table:
        table["local"] = Backend(table["local"])


if os.environ.get("MLCLI_MLFLOW_URI"):
    if _BACKENDS in sys.modules:
        _offer(sys.modules[_BACKENDS])
    else:
        sys.meta_path.insert(0, _WhenImported())
