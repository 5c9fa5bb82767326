"""Every route of the server in one table: method, path, who may, what answers, and what a request holds.

The table is all there is: the router, the checks of requests and the OpenAPI document are made from it, and a route
without a permission cannot be written down.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from mlcli.errors import MlcliError
from mlcli.server.schema import MAX_FILTER, Field
from mlcli.server.security import ADMIN, OPEN, READ, WRITE

API, AJAX = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts"
OWN = "/api/2.0/mlcli"
FEW = 100


class Route(NamedTuple):
    """A route. ``handler`` answers from the store; a coroutine function deals with body and answer itself."""

    method: str
    path: str  # {name} is one part of it, {name:path} the rest
    permission: str
    handler: Callable[..., Any]
    fields: tuple[Field, ...] = ()
    about: str = ""
    quick: int = 0  # a read of at most so many results takes a millisecond or less
    durable: bool = True  # a write that must survive a power failure too
    streams: bool = False
    aside: bool = False  # a write that takes its time: in a thread and transactions of its own


def _text(name: str, *, required: bool = False, also: str = "", limit: int = 0) -> Field:
    return Field(name, "string", required, also=also, limit=limit)


def _need(name: str) -> Field:
    return Field(name, "string", required=True)


def _whole(name: str, *, required: bool = False) -> Field:
    return Field(name, "int64", required)


def _texts(name: str) -> Field:
    return Field(name, "string", many=True)


def _list(name: str, *fields: Field, required: bool = False) -> Field:
    return Field(name, fields, required, many=True)


def _one(name: str, *fields: Field, required: bool = False) -> Field:
    return Field(name, fields, required)


RUN = _text("run_id", required=True, also="run_uuid")
KEY, VALUE = _need("key"), _text("value")
PAIR = (KEY, VALUE)
TAGS, PARAMS = _list("tags", *PAIR), _list("params", *PAIR)
FILTER = _text("filter", limit=MAX_FILTER)
PAGE = (_whole("max_results"), _texts("order_by"), _text("page_token"))
VIEWS = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
METRIC = (
    KEY,
    Field("value", "number", required=True),
    _whole("timestamp"),
    _whole("step"),
    _text("model_id"),
    _text("dataset_name"),
    _text("dataset_digest"),
    _text("run_id"),
)
DATASET = (
    _need("name"),
    _need("digest"),
    _need("source_type"),
    _need("source"),
    _text("schema"),
    _text("profile"),
)
EXPERIMENT = _need("experiment_id")
NAME, VERSION, MODEL = _need("name"), _need("version"), _need("model_id")


def table() -> tuple[Route, ...]:
    """All routes; the twins under /ajax-api, which MLflow's pages use, are added by the router."""
    from mlcli.server import files, models, runs, system

    search_experiments = (FILTER, Field("view_type", choices=VIEWS), *PAGE)
    search_runs = (_texts("experiment_ids"), FILTER, Field("run_view_type", choices=VIEWS), *PAGE)
    history = (
        RUN,
        _need("metric_key"),
        _whole("max_results"),
        _text("page_token"),
    )
    routes = [
        # experiments
        _api("POST", "experiments/create", WRITE, runs.create_experiment, _need("name"), _text("artifact_location"), TAGS),
        _api("GET", "experiments/get", READ, runs.get_experiment, EXPERIMENT, quick=1),
        _api("GET", "experiments/get-by-name", READ, runs.get_experiment_by_name, _need("experiment_name"), quick=1),
        _api("POST", "experiments/search", READ, runs.search_experiments, *search_experiments, quick=FEW),
        _api("GET", "experiments/search", READ, runs.search_experiments, *search_experiments, quick=FEW),
        _api("POST", "experiments/update", WRITE, runs.update_experiment, EXPERIMENT, _need("new_name")),
        _api("POST", "experiments/delete", WRITE, runs.delete_experiment, EXPERIMENT),
        _api("POST", "experiments/restore", WRITE, runs.restore_experiment, EXPERIMENT),
        _api("POST", "experiments/set-experiment-tag", WRITE, runs.set_experiment_tag, EXPERIMENT, *PAIR),
        _api("POST", "experiments/delete-experiment-tag", WRITE, runs.delete_experiment_tag, EXPERIMENT, KEY),
        # runs
        _api(
            "POST", "runs/create", WRITE, runs.create_run,
            EXPERIMENT, _text("user_id"), _text("run_name"), _whole("start_time"), TAGS,
        ),
        _api("GET", "runs/get", READ, runs.get_run, RUN, quick=1),
        _api(
            "POST", "runs/update", WRITE, runs.update_run,
            RUN, Field("status", choices=STATUSES), _whole("end_time"), _text("run_name"),
        ),
        _api("POST", "runs/delete", WRITE, runs.delete_run, RUN),
        _api("POST", "runs/restore", WRITE, runs.restore_run, RUN),
        _api("POST", "runs/search", READ, runs.search_runs, *search_runs, quick=FEW),
        _api("POST", "runs/log-metric", WRITE, runs.log_metric, RUN, *METRIC[:-1], durable=False),
        _api("POST", "runs/log-parameter", WRITE, runs.log_parameter, RUN, *PAIR, durable=False),
        _api(
            "POST", "runs/log-batch", WRITE, runs.log_batch,
            RUN, _list("metrics", *METRIC), PARAMS, TAGS, durable=False,
        ),
        _api("POST", "runs/set-tag", WRITE, runs.set_tag, RUN, *PAIR),
        _api("POST", "runs/delete-tag", WRITE, runs.delete_tag, RUN, KEY),
        _api(
            "POST", "runs/log-inputs", WRITE, runs.log_inputs,
            RUN, _list("datasets", TAGS, _one("dataset", *DATASET, required=True)), _list("models", MODEL),
        ),
        _api("GET", "metrics/get-history", READ, runs.get_history, *history),
        _api(
            "GET", "metrics/get-history-bulk", READ, runs.get_history_bulk,
            Field("run_id", required=True, many=True), _need("metric_key"), _whole("max_results"),
        ),
        _api(
            "GET", "metrics/get-history-bulk-interval", READ, runs.get_history_interval,
            Field("run_ids", required=True, many=True), _need("metric_key"), _whole("start_step"), _whole("end_step"),
            _whole("max_results"),
        ),
        _api("GET", "artifacts/list", READ, files.list_artifacts, RUN, _text("path"), _text("page_token")),
        *models.routes(_api),
        # files
        Route("GET", f"{ARTIFACTS}/artifacts", READ, files.list_proxied, (_text("path"),)),
        Route("GET", f"{ARTIFACTS}/artifacts/{{path:path}}", READ, files.download, streams=True),
        Route("PUT", f"{ARTIFACTS}/artifacts/{{path:path}}", WRITE, files.upload, streams=True),
        Route("DELETE", f"{ARTIFACTS}/artifacts/{{path:path}}", WRITE, files.delete, streams=True),
        Route("GET", "/get-artifact", READ, files.get_artifact, (RUN, _need("path")), streams=True),
        Route(
            "GET", "/model-versions/get-artifact", READ, files.get_version_artifact,
            (NAME, VERSION, _need("path")), streams=True,
        ),
        # the server itself
        Route("GET", "/health", OPEN, system.health, streams=True),
        Route("GET", "/version", OPEN, system.version, streams=True),
        Route("GET", "/api/3.0/mlflow/server-info", READ, system.server_info, quick=1),
        Route("GET", f"{OWN}/openapi.json", READ, system.openapi, quick=1),
        Route("GET", f"{OWN}/users", ADMIN, system.list_users, quick=1),
        Route(
            "GET", f"{OWN}/collectable", ADMIN, runs.collectable,
            (_whole("older_than"), _texts("run_ids"), Field("leftovers", "boolean")),
        ),
        Route(
            "POST", f"{OWN}/collect", ADMIN, runs.collect,
            (_texts("run_ids"), _texts("experiment_ids"), Field("leftovers", "boolean")), aside=True,
        ),
        Route("POST", f"{OWN}/runs/move", WRITE, runs.move_run, (RUN, _need("experiment_id"))),
        Route(
            "POST", f"{OWN}/journals/{{name}}", WRITE, runs.append_journal,
            (_whole("position", required=True), _text("lines"), Field("closed", "boolean"), _whole("time")),
        ),
    ]  # fmt: skip
    return tuple(route._replace(about=route.about or _about(route.handler)) for route in routes)


def _api(
    method: str,
    path: str,
    permission: str,
    handler: Callable[..., Any],
    *fields: Field,
    quick: int = 0,
    durable: bool = True,
) -> Route:
    return Route(method, f"{API}/{path}", permission, handler, fields, quick=quick, durable=durable)


def _about(handler: Callable[..., Any]) -> str:
    return (handler.__doc__ or handler.__name__.replace("_", " ")).split("\n", 1)[0].rstrip(".")


class Unknown(MlcliError):
    error_code = "ENDPOINT_NOT_FOUND"
    http_status = 404


Streamed = Callable[..., Awaitable[None]]


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._plain: dict[tuple[str, str], Route] = {}
        self._shaped: dict[str, list[tuple[list[str], Route]]] = {}
        self._methods: dict[str, set[str]] = {}
        for route in routes:
            if route.permission not in (OPEN, READ, WRITE, ADMIN):
                raise ValueError(f"{route.method} {route.path} has no permission")
            for path in twins(route.path):
                if "{" in path:
                    self._shaped.setdefault(route.method, []).append((path.split("/"), route))
                else:
                    self._plain[route.method, path] = route
                    self._methods.setdefault(path, set()).add(route.method)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        route = self._plain.get((method, path))
        if route is not None:
            return route, {}
        parts = path.split("/")
        for shape, shaped in self._shaped.get(method, ()):
            found = _fits(shape, parts)
            if found is not None:
                return shaped, found
        return None

    def methods(self, path: str) -> list[str]:
        """The methods that a path knows; none for a path that is not known."""
        found = set(self._methods.get(path, ()))
        parts = path.split("/")
        found |= {
            method
            for method, shapes in self._shaped.items()
            if any(_fits(shape, parts) is not None for shape, _ in shapes)
        }
        return sorted(found)


def twins(path: str) -> tuple[str, ...]:
    return (path, "/ajax-api" + path[len("/api") :]) if path.startswith(("/api/2.0/mlflow", "/api/3.0/")) else (path,)


def _fits(shape: list[str], parts: list[str]) -> dict[str, str] | None:
    rest = shape[-1].endswith(":path}")
    if len(parts) != len(shape) and not (rest and len(parts) > len(shape)):
        return None
    found = {}
    for place, part in enumerate(shape):
        if not part.startswith("{"):
            if parts[place] != part:
                return None
        elif part.endswith(":path}"):
            found[part[1:-6]] = "/".join(parts[place:])
        elif parts[place]:
            found[part[1:-1]] = parts[place]
        else:
            return None
    return found
