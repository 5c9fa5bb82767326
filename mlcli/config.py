"""Settings: what the user asked for, and where they said it.

Order: command line flag, ``MLCLI_*``, MLflow's variable, ``[tool.mlcli]`` of the nearest pyproject.toml, default.
This is the only module of the ground floor that reads the environment.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

STORE_FOLDER = "mlruns"


class Setting(NamedTuple):
    """One setting: its name in ``[tool.mlcli]``, the variables that set it (first wins), what it is for."""

    name: str
    variables: Tuple[str, ...]
    about: str
    default: Optional[str] = None


class Value(NamedTuple):
    """A setting's value (None when nothing sets it) and the place that set it, in words."""

    value: Optional[str]
    source: str


SETTINGS: Tuple[Setting, ...] = (
    Setting(
        "tracking_uri", ("MLCLI_TRACKING_URI", "MLFLOW_TRACKING_URI"), "the store: a folder, or the address of a server"
    ),
    Setting("experiment_name", ("MLCLI_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"), "the experiment of new runs"),
    Setting("experiment_id", ("MLCLI_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_ID"), "the same, by id"),
    Setting("run_id", ("MLCLI_RUN_ID", "MLFLOW_RUN_ID"), "the run that a script continues"),
    Setting("journal", ("MLCLI_JOURNAL",), "the file that any program of a run may append lines to"),
    Setting("env_manager", ("MLCLI_ENV_MANAGER",), "virtualenv, uv, conda, docker or local"),
    Setting("env_root", ("MLCLI_ENV_ROOT",), "where environments are kept"),
    Setting("installer", ("MLCLI_INSTALLER",), "uv or pip", "uv"),
    Setting("sync_wait", ("MLCLI_SYNC_WAIT",), "seconds that a run's end waits for a server that is away", "10"),
    Setting("grace", ("MLCLI_GRACE",), "seconds a child has between SIGTERM and SIGKILL", "10"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def setting(name: str, flag: Optional[str] = None, environ: Optional[Mapping[str, str]] = None) -> Value:
    """Find the value of the setting ``name``; an empty variable counts as unset."""
    entry = _BY_NAME[name]
    environ = os.environ if environ is None else environ
    if flag is not None:
        return Value(flag, "the command line")
    for variable in entry.variables:
        if environ.get(variable):
            return Value(environ[variable], variable)
    found = project_config().get(name)
    if found is not None:
        return Value(str(found[0]), found[1])
    return Value(entry.default, "default")


_project_config: Dict[str, Dict[str, Tuple[Any, str]]] = {}


def project_config() -> Dict[str, Tuple[Any, str]]:
    """The table ``[tool.mlcli]`` of the nearest pyproject.toml upwards, each value with the file that holds it."""
    folder = _cwd()
    if folder not in _project_config:
        _project_config[folder] = _read_project_config(folder)
    return _project_config[folder]


def _read_project_config(folder: str) -> Dict[str, Tuple[Any, str]]:
    for parent in parents(folder):
        path = os.path.join(parent, "pyproject.toml")
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            continue
        if b"[tool.mlcli]" not in content:  # the parser is imported only for those who use it
            return {}
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            try:
                import tomli as tomllib
            except ImportError:
                return {}
        try:
            table = tomllib.loads(content.decode("utf-8"))["tool"]["mlcli"]
        except (ValueError, KeyError):
            return {}
        return {name: (value, path) for name, value in table.items()}
    return {}


def parents(folder: str) -> list[str]:
    """``folder`` and every folder above it, nearest first."""
    result = [folder]
    while os.path.dirname(result[-1]) != result[-1]:
        result.append(os.path.dirname(result[-1]))
    return result


def tracking_uri(flag: Optional[str] = None) -> Value:
    """Where runs are remembered; by default the nearest ``mlruns`` upwards that is a store of ours, or a new one here."""
    found = setting("tracking_uri", flag)
    if found.value:
        return found
    here = _cwd()
    for parent in parents(here):
        folder = os.path.join(parent, STORE_FOLDER)
        if os.path.exists(os.path.join(folder, "mlcli.db")) or os.path.isdir(os.path.join(folder, "live")):
            return Value(folder, "found here" if parent == here else f"found in {parent}")
    return Value(os.path.join(here, STORE_FOLDER), "default")


def masked(uri: Optional[str]) -> Optional[str]:
    """An address without what may be secret in it: what stands between :// and the last @, and what follows a ?."""
    scheme, sep, rest = (uri or "").partition("://")
    if not sep:
        return uri
    _, at, place = rest.rpartition("@")  # the last one: a password may hold one that was not written as %40
    place, question, _ = place.partition("?")
    return f"{scheme}://{'***@' if at else ''}{place}{'?***' if question else ''}"


def cache_root() -> str:
    """The folder for what can be built again: XDG_CACHE_HOME or the platform's own, plus ``mlcli``."""
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        home = os.path.expanduser("~")
        if sys.platform == "darwin":
            base = os.path.join(home, "Library", "Caches")
        elif sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
        else:
            base = os.path.join(home, ".cache")
    return os.path.join(base, "mlcli")


def env_root() -> str:
    return setting("env_root").value or os.path.join(cache_root(), "envs")


def state_root() -> str:
    """The folder for logs of our own: XDG_STATE_HOME/mlcli, by default ``~/.local/state/mlcli``."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "mlcli")


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the folder was deleted under us
        return os.path.expanduser("~")
