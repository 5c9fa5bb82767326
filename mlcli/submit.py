"""`mlcli.projects.run`: start the run of another project from Python, by the command line of the outer installation.

A training script runs in its project's environment, where what mlcli needs to read projects is not installed. The
`mlcli run` around it says in MLCLI_COMMAND how it can be started again. A run started inside a run is its child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List, Mapping, Optional

from mlcli import journal
from mlcli.entities import RunStatus
from mlcli.errors import InvalidInput, NotFound, RunFailed

_PATIENCE = 30.0  # seconds; mlcli itself gives its child a grace of 10 before it kills it


class SubmittedRun:
    """A run in another process: its ``run_id``, how it is doing, and its end."""

    def __init__(self, run_id: str, process: subprocess.Popen[bytes], uri: str) -> None:
        self.run_id = run_id
        self._process = process
        self._uri = uri

    def wait(self) -> bool:
        """Wait for the end; whether it was a good one."""
        return self._process.wait() == 0

    def get_status(self) -> str:
        """The run's status as the store has it; SCHEDULED as long as it is not in there."""
        from mlcli.store import open_store

        ended = self._process.poll() is not None
        with open_store(self._uri, create=False) as store:
            try:
                return store.get_run(self.run_id).info.status
            except NotFound:  # what was wrong with it was found before there was a run
                return RunStatus.FAILED if ended else RunStatus.SCHEDULED

    def end_reason(self) -> str:
        """Why it did not end well, in a sentence; "" when it did, has not ended, or never was a run."""
        from mlcli.store import open_store

        with open_store(self._uri, create=False) as store:
            try:
                return store.get_run(self.run_id).data.tags.get("mlcli.end_reason", "")
            except NotFound:
                return ""

    def cancel(self) -> None:
        """End it (the run becomes KILLED) and wait until it has."""
        while self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                continue

    @property
    def exit_code(self) -> Optional[int]:
        """What `mlcli run` exited with; None while it runs."""
        return self._process.poll()

    def __repr__(self) -> str:
        return f"SubmittedRun(run_id={self.run_id!r})"


def run(
    uri: str,
    entry_point: str = "main",
    version: Optional[str] = None,
    parameters: Optional[Mapping[str, Any]] = None,
    docker_args: Optional[Mapping[str, Any]] = None,
    experiment_name: Optional[str] = None,
    experiment_id: Optional[str] = None,
    backend: str = "local",
    backend_config: Any = None,  # noqa: ARG001 - MLflow's signature; the local backend has nothing to configure
    storage_dir: Optional[str] = None,
    synchronous: bool = True,
    run_id: Optional[str] = None,
    run_name: Optional[str] = None,
    env_manager: Optional[str] = None,
    build_image: bool = False,
    docker_auth: Optional[Mapping[str, str]] = None,
    parent_run_id: Optional[str] = None,
) -> SubmittedRun:
    """Run a project as `mlcli run` does; raises RunFailed when it does not end well.

    With ``synchronous=False`` it returns at once; wait for it before your own run ends, which would end it.
    """
    if backend != "local":
        raise InvalidInput(f"there is no backend {backend!r}", hint="mlcli runs projects here: backend='local'")
    if build_image or docker_auth:
        raise InvalidInput(
            "building and pushing images is not supported", hint="name a built image in the project's docker_env"
        )
    new_run_id = run_id or journal.new_run_id()
    options: Dict[str, Optional[str]] = {
        "--entry-point": None if entry_point == "main" else entry_point,  # a project's only entry point may differ
        "--version": version,
        "--experiment-name": experiment_name,
        "--experiment-id": None if experiment_id is None else str(experiment_id),
        "--storage-dir": storage_dir,
        "--run-name": run_name,
        "--env-manager": env_manager,
        "--run-id": run_id,
        "--new-run-id": None if run_id else new_run_id,
        "--parent-run-id": parent_run_id or _active_run_id(),
    }
    argv = [*command(), "run"]
    for name, value in options.items():
        if value is not None:
            argv.append(f"{name}={value}")
    for key, value in (parameters or {}).items():
        argv.append(f"-P{key}={value}")
    for key, value in (docker_args or {}).items():
        argv.append(f"-A{key}" if value is True else f"-A{key}={value}")
    argv += ["--", os.fspath(uri)]
    submitted = _start(argv, new_run_id)
    if synchronous:
        _await(submitted, uri)
    return submitted


def _start(argv: List[str], run_id: str) -> SubmittedRun:
    uri = tracking_uri()
    for stream in (sys.stdout, sys.stderr):  # what was printed before it comes before what it prints
        if stream is not None:
            stream.flush()
    try:
        process = subprocess.Popen(argv, env={**os.environ, **login(uri), "MLCLI_TRACKING_URI": uri})
    except OSError as error:
        raise RunFailed(f"cannot start {argv[0]}: {error.strerror}", run_id=run_id, code=127) from error
    return SubmittedRun(run_id, process, uri)


def login(uri: str) -> Dict[str, str]:
    """The login that stood in the address of a server: ``uri`` is without it."""
    if not uri.startswith(("http://", "https://")):
        return {}
    from mlcli.store import http

    return http.login_variables(uri)


def _await(submitted: SubmittedRun, uri: str) -> None:
    try:
        submitted.wait()
    except BaseException:
        submitted.cancel()
        raise
    code = submitted.exit_code or 0
    if code:
        reason = submitted.end_reason() or f"exit code {code}, before there was a run"
        raise RunFailed(
            f"the run of {uri} did not end well: {reason}",
            run_id=submitted.run_id,
            code=code if code > 0 else 128 - code,
            hint=f"`mlcli runs logs {submitted.run_id}` shows its output, if it got that far",
        )


def command() -> List[str]:
    """How the command line of mlcli is started from here."""
    given = os.environ.get("MLCLI_COMMAND")
    if not given:
        return [sys.executable, "-m", "mlcli"]
    try:
        words = json.loads(given)
    except ValueError:
        words = None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"MLCLI_COMMAND must be a JSON list of words, not {given!r}")
    return words


def tracking_uri() -> str:
    """The store that this process logs to, for the process that is started."""
    from mlcli.store import store_root

    fluent = sys.modules.get("mlcli.fluent")
    chosen = getattr(fluent, "get_tracking_uri", None)
    return store_root(chosen() if chosen else None)


def _active_run_id() -> Optional[str]:
    """The run that is active in this process; without one, the environment names the parent."""
    fluent = sys.modules.get("mlcli.fluent")
    active = fluent.active_run() if fluent else None
    return active.info.run_id if active else None
