"""The server process of a bridge (mlcli/bridge.py): serves one run's store to one child, and ends when its pipe does."""

from __future__ import annotations

import base64
import hmac
import json
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, cast

from mlcli.entities import RunStatus
from mlcli.server.adopt import AdoptingStore, Adoption, close_left_open
from mlcli.server.app import make_app
from mlcli.server.forward import Forward
from mlcli.server.run import Running
from mlcli.server.security import ANYBODY, Auth, Doors, Identity
from mlcli.store import Store, is_remote, open_store
from mlcli.store.rest import RestStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlcli.server.app import Server
    from mlcli.server.http import Receive, Scope, Send

_VARIABLE = "MLCLI_BRIDGE_TOKEN"


class OneChild(Auth):
    """Lets in who sends what the child's MLflow sends: the run's token, or the name and password of its environment.

    MLflow prefers MLFLOW_TRACKING_USERNAME and _PASSWORD to a token. They are left to the child, who may need them for
    another server, and so they count here as well.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._accepted = [f"Bearer {environ[_VARIABLE]}".encode()]
        name, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD")
        if name and password:
            self._accepted.append(b"Basic " + base64.b64encode(f"{name}:{password}".encode()))

    @property
    def required(self) -> bool:
        return True

    def identify(self, authorization: bytes | None, session: str | None = None) -> Identity | None:  # noqa: ARG002 - no browser comes here
        given = authorization or b""
        return ANYBODY if any([hmac.compare_digest(given, one) for one in self._accepted]) else None


class _Heard:
    """The application, which tells when the first request comes."""

    def __init__(self, app: Server | Forward, told: int) -> None:
        self._app = app
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._told >= 0:
            told, self._told = self._told, -1
            os.write(told, b".")
            os.close(told)
        await self._app(scope, receive, send)


def _application(uri: str, adoption: Adoption, port: int) -> Server | Forward:
    auth = OneChild(os.environ)
    if is_remote(uri):
        store = RestStore(uri)
        return Forward(store, AdoptingStore(store, adoption), adoption, auth, Doors(port))

    def adopting() -> Store:
        return cast("Store", AdoptingStore(open_store(uri), adoption))

    return make_app(adopting, auth=auth, port=port, pages=False)


def main() -> None:
    settings = json.loads(sys.argv[1])
    adoption = Adoption(settings["run_id"])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=settings["socket"])

    app = _application(settings["store"], adoption, listener.getsockname()[1])
    server = Running(_Heard(app, settings["told"]))
    status: list[bytes] = []

    def watch() -> None:
        while part := os.read(settings["pipe"], 64):
            status.append(part)
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listener])
    app.close()
    if adoption.made:
        said = b"".join(status).decode()
        with open_store(settings["store"]) as store:
            close_left_open(store, adoption, said if RunStatus.is_terminated(said) else RunStatus.KILLED)


if __name__ == "__main__":
    main()
