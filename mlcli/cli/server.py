"""`mlcli server`: pages and MLflow's REST API over a store, for one person or a team; `mlcli server users`: who may do what."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer
import typer.core

from mlcli import config
from mlcli.cli import options, render
from mlcli.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlcli.server.security import Users
    from mlcli.store import Store


# -h is the host here, as in MLflow.
class _Server(typer.core.TyperGroup):
    """The command and its group; ``-h`` alone asks for help all the same."""

    def parse_args(self, ctx: Any, args: List[str]) -> List[str]:
        return super().parse_args(ctx, ["--help"] if args == ["-h"] else args)


app = typer.Typer(
    cls=_Server,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["--help"]},
)
users_app = options.group("Add, list and remove the users of a server, each with a token of their own.")
app.add_typer(users_app, name="users")

DEFAULT_PORT = 5000
TOKEN_FILE = "server-token"  # noqa: S105 - the name of a file
USERS_FILE = "server-users.json"

_IGNORED = {
    "workers": "one process answers all requests",
    "gunicorn_opts": "there is no gunicorn here",
    "waitress_opts": "there is no waitress here",
    "uvicorn_opts": "uvicorn is set up by mlcli",
    "dev": "there is no development mode",
    "x_frame_options": "no page may show this server in a frame",
}
_REFUSED = {
    "artifacts_only": "a server of artifacts alone is not possible: they belong to the runs of a store",
    "app_name": "users are made with `mlcli server users add NAME --role read|write|admin`",
    "cors_allowed_origins": "pages of other origins may not use this server; clients that are not web pages may",
    "expose_prometheus": "this server gives no metrics to Prometheus",
    "disable_security_middleware": "the checks of Host and Origin stay on; --allowed-hosts names more hosts",
}

Backend = Annotated[
    Optional[str],
    typer.Option(
        "--backend-store-uri",
        metavar="STORE",
        help="A folder or postgresql://...; else the nearest mlruns.",
        envvar=["MLCLI_BACKEND_STORE_URI", "MLFLOW_BACKEND_STORE_URI"],
        show_envvar=False,
    ),
]

Destination = Annotated[
    Optional[str],
    typer.Option(
        "--artifacts-destination",
        "--default-artifact-root",
        metavar="FOLDER",
        help="Where the artifacts of new experiments go; else beside the runs.",
    ),
]


def _no(flag: str) -> Any:
    return typer.Option(flag, hidden=True)


@app.callback(invoke_without_command=True)
def server(
    context: typer.Context,
    backend_store_uri: Backend = None,
    artifacts_destination: Destination = None,
    host: Annotated[str, typer.Option("-h", "--host", metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("-p", "--port", metavar="PORT", min=0, max=65535, help="The port; 0 is any that is free."),
    ] = DEFAULT_PORT,
    token_file: Annotated[
        Optional[str],
        typer.Option("--token-file", metavar="FILE", help="Ask for the token in this file; made if it is not there."),
    ] = None,
    allowed_hosts: Annotated[
        Optional[List[str]],
        typer.Option("--allowed-hosts", metavar="NAMES", help="Names this server is reached by (a,b or repeated)."),
    ] = None,
    static_prefix: Annotated[
        str, typer.Option("--static-prefix", metavar="PATH", help="A path before every other, for proxies.")
    ] = "",
    serve_artifacts: Annotated[
        bool, typer.Option("--serve-artifacts/--no-serve-artifacts", help="Send and take artifacts over HTTP.")
    ] = True,
    open_pages: Annotated[bool, typer.Option("--open", help="Open the pages in the browser.")] = False,
    registry_store_uri: Annotated[Optional[str], _no("--registry-store-uri")] = None,
    workers: Annotated[Optional[str], _no("--workers")] = None,
    workers_short: Annotated[Optional[str], _no("-w")] = None,
    gunicorn_opts: Annotated[Optional[str], _no("--gunicorn-opts")] = None,
    waitress_opts: Annotated[Optional[str], _no("--waitress-opts")] = None,
    uvicorn_opts: Annotated[Optional[str], _no("--uvicorn-opts")] = None,
    dev: Annotated[bool, _no("--dev")] = False,
    x_frame_options: Annotated[Optional[str], _no("--x-frame-options")] = None,
    artifacts_only: Annotated[bool, _no("--artifacts-only")] = False,
    app_name: Annotated[Optional[str], _no("--app-name")] = None,
    cors_allowed_origins: Annotated[Optional[str], _no("--cors-allowed-origins")] = None,
    expose_prometheus: Annotated[Optional[str], _no("--expose-prometheus")] = None,
    disable_security_middleware: Annotated[bool, _no("--disable-security-middleware")] = False,
) -> None:
    """Serve pages to look at runs, and MLflow's REST API for programs, over a store.

    On the loopback address everybody on this machine may use it. On any other a token is needed: it is made at the
    first start and shown once. `mlcli server users add` gives people tokens of their own.
    """
    if context.invoked_subcommand is not None:
        return
    given = {
        "workers": workers or workers_short,
        "gunicorn_opts": gunicorn_opts,
        "waitress_opts": waitress_opts,
        "uvicorn_opts": uvicorn_opts,
        "dev": dev,
        "x_frame_options": x_frame_options,
        "artifacts_only": artifacts_only,
        "app_name": app_name,
        "cors_allowed_origins": cors_allowed_origins,
        "expose_prometheus": expose_prometheus,
        "disable_security_middleware": disable_security_middleware,
    }
    _judge(given)
    if registry_store_uri not in (None, backend_store_uri):
        raise InvalidInput("the registry is in the same store as the runs", hint="leave --registry-store-uri out")
    if static_prefix and (not static_prefix.startswith("/") or static_prefix.endswith("/")):
        raise InvalidInput(f"--static-prefix {static_prefix!r} must begin with / and not end with it")
    _serve(
        backend_store_uri,
        _folder(artifacts_destination),
        host,
        port,
        token_file,
        [name for given_names in allowed_hosts or () for name in given_names.split(",") if name.strip()],
        static_prefix,
        serve_artifacts=serve_artifacts,
        open_pages=open_pages,
    )


def _judge(given: dict[str, Any]) -> None:
    """Say of MLflow's options that mean nothing here that they do nothing; refuse those that would be missed."""
    for name, why in _REFUSED.items():
        if given[name]:
            raise InvalidInput(f"--{name.replace('_', '-')}: {why}")
    for name, why in _IGNORED.items():
        if given[name]:
            render.note(f"--{name.replace('_', '-')} does nothing: {why}")


def _folder(destination: str | None) -> str | None:
    if destination is None or destination.rstrip("/") in ("mlflow-artifacts:", "mlflow-artifacts:/"):
        return None
    scheme, colon, _ = destination.partition("://")
    if colon and scheme.lower() != "file":
        raise InvalidInput(
            f"artifacts cannot be kept at {config.masked(destination)}", hint="give a folder of this machine"
        )
    from mlcli.artifacts import open_artifacts

    return open_artifacts(os.path.expanduser(destination)).root


def _serve(
    uri: str | None,
    destination: str | None,
    host: str,
    port: int,
    token_file: str | None,
    allowed: list[str],
    prefix: str,
    *,
    serve_artifacts: bool,
    open_pages: bool,
) -> None:
    from mlcli.server.app import make_app
    from mlcli.server.run import bind, serve
    from mlcli.server.security import Auth, is_loopback, token_from

    first = _open(uri, destination)
    users = _users(first)
    root = first.root
    local = is_loopback(host)
    token, new = None, False
    if token_file is None and not local:
        token_file = os.path.join(root, TOKEN_FILE)
    if token_file is not None:
        token, new = token_from(token_file)
    sock = bind(host, port)
    first.close()
    port = sock.getsockname()[1]
    auth = Auth(token, users)
    application = make_app(
        lambda: _open(uri, destination),
        auth=auth,
        users=users,
        port=port,
        allowed_hosts=allowed,
        serve_artifacts=serve_artifacts,
        artifacts_destination=destination,
        static_prefix=prefix,
    )

    def ready() -> None:
        url = f"http://{shown(host)}:{port}{prefix}"
        needs = " and a token (MLFLOW_TRACKING_TOKEN)" if auth.required else ""
        print(f"mlcli server is ready: use it with MLFLOW_TRACKING_URI={url}{needs}", flush=True)
        print(f"its pages are at {url}/", flush=True)
        if new:
            print(f"its token, shown this once and kept in {token_file}: MLFLOW_TRACKING_TOKEN={token}", flush=True)
            print(f"a browser that has been at {url}/login?token={token} is let in", flush=True)
        if open_pages:
            import threading
            import webbrowser
            from urllib.parse import urlencode

            # The token of the file is the owner's, and so is this browser.
            page = f"{url}/login?{urlencode({'token': token})}" if token else f"{url}/"
            # Some browsers are waited for until they end; this thread has to answer them meanwhile.
            threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
        if not local and not allowed:
            render.note("clients reach it by address; --allowed-hosts NAME lets them use a name")
        render.note(f"the store is {first.database.name}; Ctrl-C ends the server")

    serve(application, sock, ready=ready)


def shown(host: str) -> str:
    """What to write in a URL for an address that stands for all of the machine's."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - told apart, not bound
        import socket

        try:
            host = socket.gethostbyname(socket.gethostname())
        except OSError:
            host = "127.0.0.1"
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _open(uri: str | None, destination: str | None = None, *, create: bool = True) -> Store:
    from mlcli.store import is_remote, open_store

    address = uri or config.tracking_uri().value or ""
    if is_remote(address):
        place = str(config.masked(address)).replace("***@", "")
        raise InvalidInput(
            f"a server needs a store of its own, not another server: {place}",
            hint=f"an mlcli server has its pages itself: open {place} in a browser; or name a folder or a database with"
            " --backend-store-uri",
        )
    if address.partition("://")[0] in ("postgresql", "postgres"):
        return open_store(address, create=create, artifact_root=destination)
    return open_store(address, create=create)


def _users(store: Store) -> Users:
    from mlcli.server.security import Users

    return Users(os.path.join(store.root, USERS_FILE))


# -- users


@users_app.command("add")
def add_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What is recorded with what the user creates.")],
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="read, write or admin.")] = "write",
    backend_store_uri: Backend = None,
    artifacts_destination: Destination = None,
) -> None:
    """Add a user and print the token.

    It is not kept and cannot be shown again.
    """
    with _open_users(backend_store_uri, artifacts_destination, adding=True) as (users, served):
        token = users.add(name, role)
    render.note(f"{name} may {role} on the server of {served}")
    render.note(f"the token is shown this once: MLFLOW_TRACKING_TOKEN, or the password of {name}")
    render.emit(token)


@users_app.command("list")
def list_users(
    backend_store_uri: Backend = None, artifacts_destination: Destination = None, as_json: options.Json = False
) -> None:
    """List the users and their roles."""
    with _open_users(backend_store_uri, artifacts_destination) as (users, _):
        found = users.read()
    rows = [{"name": name, "role": user["role"]} for name, user in sorted(found.items())]
    columns = (render.Column("name", "NAME", style="bold"), render.Column("role", "ROLE"))
    render.records(rows, columns, as_json=as_json, empty="there are no users; `mlcli server users add NAME` adds one")


@users_app.command("remove")
def remove_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token is of no use from now on.")],
    backend_store_uri: Backend = None,
    artifacts_destination: Destination = None,
) -> None:
    """Remove a user, whose token is of no use from now on."""
    with _open_users(backend_store_uri, artifacts_destination) as (users, _):
        users.remove(name)
    render.success(f"{name} is removed")


@contextlib.contextmanager
def _open_users(uri: str | None, destination: str | None, *, adding: bool = False) -> Iterator[tuple[Users, str]]:
    """The users of a server, and what to call its store.

    Where records are in a database, the server's first start decides which folder is beside it: a user who is added
    before that might be kept in another one.
    """
    from mlcli.store import is_database

    address = uri or config.tracking_uri().value or ""
    folder = _folder(destination) if is_database(address) else None
    with _open(uri, folder, create=adding and not (is_database(address) and folder is None)) as store:
        if adding and store.database.name == ":memory:":
            raise NotFound(
                f"there is no store in {config.masked(address)} yet",
                hint="start `mlcli server` with it once, or name the folder of its artifacts with --artifacts-destination",
            )
        yield _users(store), store.database.name
