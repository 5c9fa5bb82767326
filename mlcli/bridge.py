"""The real MLflow in a project's environment logs to this store: a server of its own for the lifetime of one child.

The listening socket is bound before the child starts, and the server process inherits it: what the child sends while
the server is still starting waits in the kernel. Nothing is started for an environment without MLflow.

    who ends                    then
    the child                   the server is told how, closes the runs that the child left open, and ends
    mlcli, by kill -9           the guardian ends the child; the server sees the end of its pipe: the same, as KILLED
    the server, by an accident  the child's calls are refused; the run goes on, and a warning says so
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import IO

    from mlcli.envs import Env

HOST = "127.0.0.1"
PLUGIN = os.path.join(os.path.dirname(os.path.realpath(__file__)), "mlflow_plugin")
ELSEWHERE = "mlcli.mlflow.elsewhere"  # the tag in which the plugin tells where else the child has logged to
UNANSWERED = (
    "mlcli.mlflow.unanswered"  # ... and in which it tells of servers that the child named and that are not there
)
STAYED = (
    "mlcli.mlflow.experiment"  # the tag with the experiment that the script chose, where the run could not go there
)
_MLFLOW = re.compile(r"mlflow([_-]skinny)?-[^/]*\.(dist|egg)-info\Z", re.IGNORECASE)
_SETTLE = 30.0  # seconds the server has to write down what has been sent


def has_mlflow(env: Env, environ: Mapping[str, str]) -> bool:
    """Whether MLflow is installed for the environment's Python: a look at folders, no process is started."""
    folders = dict.fromkeys(_site_packages(env, environ))
    return any([_holds_mlflow(folder) for folder in folders])


def _holds_mlflow(folder: str) -> bool:
    try:
        return any([_MLFLOW.match(name) for name in os.listdir(folder)])
    except OSError:
        return False


def _site_packages(env: Env, environ: Mapping[str, str]) -> Iterator[str]:
    """The folders in which the packages of ``env`` may lie."""
    short = "python" + ".".join(env.version.split(".")[:2])
    yield from (part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part)
    prefix = env.prefix or os.path.dirname(os.path.dirname(env.python))
    yield os.path.join(prefix, "lib", short, "site-packages")
    config = _pyvenv(prefix)
    if config is not None and config.get("include-system-site-packages", "").lower() != "true":
        return
    bases = [os.path.dirname(os.path.dirname(os.path.realpath(env.python))), "/usr", "/usr/local"]
    if config is not None and config.get("home"):
        bases.insert(0, os.path.dirname(config["home"]))
    if config is None and (env.prefix or not os.path.realpath(env.python).startswith("/usr/")):
        bases = bases[:1]  # Debian's Python alone looks in /usr/lib/python3 and /usr/local
    for base in bases:
        yield os.path.join(base, "lib", short, "site-packages")
        yield os.path.join(base, "lib", short, "dist-packages")
        yield os.path.join(base, "lib", "python3", "dist-packages")
    if not environ.get("PYTHONNOUSERSITE"):
        user = environ.get("PYTHONUSERBASE") or os.path.join(os.path.expanduser("~"), ".local")
        yield os.path.join(user, "lib", short, "site-packages")


def _pyvenv(prefix: str) -> dict[str, str] | None:
    """What pyvenv.cfg says; None where there is none: no virtual environment."""
    try:
        with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8") as file:
            lines = [line.partition("=") for line in file]
    except OSError:
        return None
    return {key.strip().lower(): value.strip() for key, _, value in lines}


class Bridge:
    """A server for the child of one run; a context manager.

    ``pipe`` must stay open, here or in the guardian, as long as the child lives.
    """

    def __init__(self, store: str, run_id: str, login: Mapping[str, str]) -> None:
        self._store = store
        self._run_id = run_id
        self._login = login  # to the server that the store is on
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._heard = -1
        self.uri = ""
        self.status = "KILLED"  # how the child ended, for the runs that it left open
        self.problem = ""  # how the server ended, if badly
        self.pipe = -1
        # A token of the caller's own stays: a script that logs to their server as well needs it there.
        inherited = not os.environ.get("MLCLI_MLFLOW_URI") and os.environ.get("MLFLOW_TRACKING_TOKEN")
        import secrets  # with socket and tempfile 5 ms, which runs without MLflow do not pay

        self.token = inherited or secrets.token_urlsafe(32)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else -1

    def __enter__(self) -> Bridge:
        self._start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.problem = self._close()

    def _start(self) -> None:
        # The protocol is named: asyncio turns Nagle's algorithm off only where it is, and it costs 40 ms a request.
        import socket
        import tempfile

        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.bind((HOST, 0))
            listener.listen(128)
            self.uri = f"http://{HOST}:{listener.getsockname()[1]}"
            ours, self.pipe = os.pipe()
            heard, told = os.pipe()
            self._heard = heard
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            settings = {
                "socket": listener.fileno(),
                "pipe": ours,
                "told": told,
                "store": self._store,
                "run_id": self._run_id,
            }
            path = os.pathsep.join(part for part in (_package_folder(), os.environ.get("PYTHONPATH", "")) if part)
            environ = {**os.environ, **self._login, "MLCLI_BRIDGE_TOKEN": self.token, "PYTHONPATH": path}
            # A session of its own: ^C on the terminal is for the child first, which has something to write down then.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlcli.server.bridge", json.dumps(settings)],
                cwd="/",  # a project's own modules are not to be found by ours
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=(listener.fileno(), ours, told),
                start_new_session=True,
                env=environ,
            )
            os.close(ours)
            os.close(told)
        finally:
            listener.close()  # the server's copy alone is left: when it dies, calls are refused and do not hang

    def variables(self, experiment: str, environ: Mapping[str, str]) -> dict[str, str | None]:
        """What the child's MLflow must find in its environment; None takes a variable away."""
        result: dict[str, str | None] = {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_TOKEN": self.token,
            # Its first run is given the id by the server: with the variable, MLflow stops at a set_experiment().
            "MLFLOW_RUN_ID": None,
            # By name, for a script that goes elsewhere: no other server knows our ids. MLflow's own default needs neither.
            "MLFLOW_EXPERIMENT_ID": None,
            "MLFLOW_EXPERIMENT_NAME": None if experiment == "Default" else experiment,
            "MLFLOW_ALLOW_FILE_STORE": environ.get("MLFLOW_ALLOW_FILE_STORE", "true"),
            # A server that is gone does not come back: seven tries would take four minutes.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"),
            "MLCLI_MLFLOW_URI": self.uri,
            "MLCLI_MLFLOW_TOKEN": self.token,
            # The plugin's: it looks whether a server that the script names is there. One of the caller's own stays.
            "MLFLOW_TRACKING_AUTH": environ.get("MLFLOW_TRACKING_AUTH") or "mlcli",
            "PYTHONPATH": os.pathsep.join(part for part in (environ.get("PYTHONPATH", ""), PLUGIN) if part),
        }
        for name in ("NO_PROXY", "no_proxy"):
            known = [part for part in environ.get(name, "").split(",") if part]
            result[name] = ",".join([*known, HOST])
        return result

    def _close(self) -> str:
        """End the server; what went wrong, or "" when all went well."""
        process, said = self._process, self._said
        if process is None or said is None:
            return ""
        os.set_blocking(self._heard, False)
        try:
            used = bool(os.read(self._heard, 1))
        except BlockingIOError:
            used = False
        running = process.poll() is None
        if not used and running:
            process.kill()  # nobody asked it anything: there is nothing to write down
        elif running:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.pipe, self.status.encode())
        os.close(self.pipe)
        os.close(self._heard)
        self.pipe = -1
        try:
            code = process.wait(_SETTLE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        with said:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
        if code == 0 or (running and not used):
            return ""
        return f"the server for MLflow's calls ended badly: {lines[-1] if lines else f'exit code {code}'}"


def _package_folder() -> str:
    return os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
