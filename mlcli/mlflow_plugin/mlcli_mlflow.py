"""Loaded by the real MLflow inside `mlcli run`, through its plugin interface (the entry points beside this file).

It runs in the project's environment, with any version of MLflow and any Python from 3.8: it imports MLflow, the tracker
side of mlcli and the standard library. It does three things:

* It tells mlcli where a script logs to that chooses another server itself. MLflow asks its run context providers for
  tags whenever a run starts, wherever that is.
* It brings here what a script sends to a server that is not there: `http://localhost:5000` of somebody else's machine.
  MLflow hands each request to its request auth provider before it goes out.
* It lets `mlflow.projects.run` go through `mlcli run`: the run is a child of this one, and it uses mlcli's environments
  and env manager, where MLflow's own way needs pyenv and forgets `--env-manager=local`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import re
import socket
import sys
import time
from types import ModuleType
from typing import Any, Dict, Optional, Sequence, Set
from urllib.parse import urlsplit

_ELSEWHERE = "mlcli.mlflow.elsewhere"
_UNANSWERED = "mlcli.mlflow.unanswered"
_NAME = "mlcli"  # of the request auth provider, in MLFLOW_TRACKING_AUTH
_API = re.compile(r"/(?:ajax-)?api/[0-9.]+/mlflow")
_KNOCKS = (0.0, 0.3, 0.7)  # pauses before an address is tried: a server that was started a moment ago gets its second
_BACKENDS = "mlflow.projects.backend.loader"  # the module with the table of MLflow's backends
_told: Dict[str, Set[str]] = {_ELSEWHERE: set(), _UNANSWERED: set()}
_answers: Dict[str, bool] = {}


class Elsewhere:
    """A run context provider without tags: it tells once of each place but mlcli's that runs go to."""

    def in_context(self) -> bool:
        from mlflow.tracking import get_tracking_uri

        uri = get_tracking_uri()
        if os.environ.get("MLCLI_MLFLOW_URI") and not _comes_here(uri):
            _tell(_ELSEWHERE, _masked(uri))
        return False

    def tags(self) -> Dict[str, str]:
        return {}


def _tell(tag: str, what: str) -> None:
    """Tell mlcli, once, in a tag of its run."""
    journal = os.environ.get("MLCLI_JOURNAL")
    if journal and what not in _told[tag]:
        _told[tag].add(what)
        line = json.dumps({"tag": tag, "value": ", ".join(sorted(_told[tag]))[:5000]})
        with open(journal, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class Unanswered:
    """A request auth provider: a request to a server of MLflow's that nothing answers for goes to mlcli's."""

    def get_name(self) -> str:
        return _NAME

    def get_auth(self) -> Any:
        return _send_here


def _send_here(request: Any) -> Any:
    """Let a prepared request go where it is answered."""
    ours = os.environ.get("MLCLI_MLFLOW_URI", "")
    api = _API.search(request.url)
    if ours and api and not request.url.startswith(ours + "/"):
        if _comes_here(request.url):
            request.url = ours + request.url[api.start() :]
            request.headers["Authorization"] = f"Bearer {os.environ.get('MLCLI_MLFLOW_TOKEN', '')}"
            return request
        return _with_own_login(request)
    return request


def _with_own_login(request: Any) -> Any:
    """Do what requests does where nobody provides for it: the login of ~/.netrc, or of the address."""
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url, get_netrc_auth

    login = get_netrc_auth(request.url) or get_auth_from_url(request.url)
    return HTTPBasicAuth(*login)(request) if login and any(login) else request


def _comes_here(uri: str) -> bool:
    """Whether what goes to the address ends in mlcli's store: it is ours, or there is no server to take it."""
    if uri == os.environ.get("MLCLI_MLFLOW_URI"):
        return True
    aware = os.environ.get("MLFLOW_TRACKING_AUTH") == _NAME and not os.environ.get("MLFLOW_TRACKING_AWS_SIGV4")
    if not (aware and uri.lower().startswith(("http://", "https://"))):
        return False
    parts = urlsplit(uri)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if place not in _answers:
        _answers[place] = _is_answered(place)
    if not _answers[place]:
        _tell(_UNANSWERED, place)
    return not _answers[place]


def _is_answered(place: str) -> bool:
    """Whether there is a server at an address. What is slow, or behind a proxy, is left to MLflow to find out."""
    from requests.utils import get_environ_proxies

    parts = urlsplit(place)
    try:
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError:  # no port: MLflow's own words are the right ones
        return True
    if get_environ_proxies(place).get(parts.scheme):
        return True
    for pause in _KNOCKS:
        time.sleep(pause)
        try:
            socket.create_connection((host, port), 3).close()
        except (ConnectionRefusedError, socket.gaierror):
            continue
        except OSError:
            return True
        return True
    return False


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

        if not _comes_here(tracking_uri):
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
