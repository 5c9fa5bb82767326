"""A real server on the loopback address, in a thread of the test or in a process of its own, and a plain client for it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mlcli.server.app import Server, make_app
from mlcli.server.run import Running, bind
from mlcli.store import open_store

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests as they are given; ``api`` is for MLflow's part."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port = port
        self.headers = headers

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            names = {key.replace("_", "-"): value for key, value in {**self.headers, **headers}.items()}
            if isinstance(body, dict):
                body = json.dumps(body)
                names.setdefault("Content-Type", "application/json")
            connection.request(method, path, body, names, encode_chunked=not isinstance(body, (bytes, str, type(None))))
            found = connection.getresponse()
            return Answer(found.status, {key.lower(): value for key, value in found.getheaders()}, found.read())
        finally:
            connection.close()

    def api(self, method: str, path: str, body: Any = None, *, expect: int = 200, **headers: str) -> Any:
        answer = self.send(method, API + path, body, **headers)
        assert answer.status == expect, answer
        return answer.json

    def post(self, path: str, *, expect: int = 200, **body: Any) -> Any:
        return self.api("POST", path, body, expect=expect)

    def get(self, path: str, *, expect: int = 200) -> Any:
        return self.api("GET", path, expect=expect)

    def new_run(self, experiment_id: str = "0", **fields: Any) -> str:
        run_id: str = self.post("runs/create", experiment_id=experiment_id, **fields)["run"]["info"]["run_id"]
        return run_id


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[tuple[Client, Server]]:
    """Serve the store at ``root`` in a thread; ``settings`` are those of make_app."""
    sock = bind("127.0.0.1", 0)
    app = make_app(lambda: open_store(str(root)), port=sock.getsockname()[1], **settings)
    ready = threading.Event()
    running = Running(app, ready=ready.set, signals=False)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        assert ready.wait(20)
        yield Client(sock.getsockname()[1]), app
    finally:
        running.should_exit = True
        thread.join(30)
        app.close()
        sock.close()
