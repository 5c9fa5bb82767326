"""An mlcli server in a thread of the test's own process, over the store in a folder."""

from __future__ import annotations

import threading
from pathlib import Path

from mlcli.server.app import make_app
from mlcli.server.run import Running, bind
from mlcli.server.security import Auth
from mlcli.store import http, open_store
from mlcli.store.rest import RestStore


class Served:
    """A running server: its address ``url``, its ``port``; stopped and started again as often as a test likes."""

    def __init__(self, folder: Path, port: int = 0, token: str | None = None) -> None:
        self.folder = folder
        self.port = port
        self.token = token
        self.start()

    def start(self) -> None:
        sock = bind("127.0.0.1", self.port)
        self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        ready = threading.Event()
        self._app = make_app(lambda: open_store(str(self.folder)), auth=Auth(self.token), port=self.port)
        self._running = Running(self._app, ready=ready.set, signals=False)
        self._sock = sock
        self._thread = threading.Thread(target=self._running.run, kwargs={"sockets": [sock]}, name="served")
        self._thread.start()
        assert ready.wait(30)

    def stop(self) -> None:
        http.server(self.url).close()
        self._running.should_exit = True
        self._thread.join(30)
        self._app.close()
        self._sock.close()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


class ServedStore(RestStore):
    """A store behind a server that ends with it."""

    def __init__(self, folder: Path) -> None:
        self._served = Served(folder)
        super().__init__(self._served.url)

    def close(self) -> None:
        self._served.stop()
