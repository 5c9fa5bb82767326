"""A gateway with real workers on the loopback address, in a thread of the test; and models to put behind it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import Client

from mlcli import envs
from mlcli.server.run import bind
from mlcli.server.security import Auth, Doors
from mlcli.serving.app import Gateway
from mlcli.serving.launch import Launch
from mlcli.serving.pool import Pool
from mlcli.serving.run import Follow, Serving

JSON = {"Content_Type": "application/json"}

NAUGHTY = """
import os, signal, time
import numpy as np

class Model:
    def predict(self, rows):
        acts = set(rows[:, 0].tolist())
        if -1 in acts:
            os._exit(3)
        if -2 in acts:
            time.sleep(60)
        if -3 in acts:
            raise MemoryError
        if -4 in acts:
            os.kill(os.getpid(), signal.SIGKILL)
        if -5 in acts:
            raise ValueError("five is too many")
        if -8 in acts:
            np.zeros(1 << 33)
        if max(acts) >= 1000:
            time.sleep(0.3)
        found = rows[:, 0] * FACTOR
        found[rows[:, 0] == -6] = np.nan
        found[rows[:, 0] == -7] = os.getpid()
        return found

def _load_pyfunc(path):
    if FACTOR == 0:
        raise RuntimeError("no such factor")
    return Model()
"""


def naughty(folder: Path, factor: int = 2) -> Path:
    """A model of arrays that doubles its input, and does as it is told for negative ones."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "naughty.py").write_text(f"FACTOR = {factor}\n{NAUGHTY}")
    inputs = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 1]}}])
    content = {
        "flavors": {"python_function": {"loader_module": "naughty", "code": "code", "env": "python_env.yaml"}},
        "signature": {"inputs": inputs, "outputs": None, "params": None},
    }
    (folder / "MLmodel").write_text(json.dumps(content))
    (folder / "python_env.yaml").write_text("python: 3.11\n")
    return folder


def launch(model: Path, *, name: str = "doubler", version: str = "1", **more: Any) -> Launch:
    environ = envs.variables(envs.ensure(envs_none(), "local"), os.environ)
    return Launch(str(model), name, version, sys.executable, environ, **{"trust": True, **more})


def envs_none() -> Any:
    from mlcli.projects.envfile import EnvSpec

    return EnvSpec("none", os.getcwd())


class Running:
    """A gateway that answers; ``post`` sends a JSON body to it."""

    def __init__(self, client: Client, serving: Serving, gateway: Gateway) -> None:
        self.client, self.serving, self.gateway = client, serving, gateway

    def post(self, body: Any, path: str = "/invocations", **headers: str) -> Any:
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return self.client.send("POST", path, text, **{**JSON, **headers})

    def row(self, *values: float) -> Any:
        return self.post({"inputs": [[value] for value in values]})


@contextmanager
def gateway(
    launched: Launch,
    *,
    workers: int = 1,
    timeout: float = 20,
    auth: Auth | None = None,
    follow: Follow | None = None,
    **settings: Any,
) -> Iterator[Running]:
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    said: list[str] = []
    pool = Pool(launched, workers=workers, timeout=timeout, log=said.append)
    app = Gateway(pool, doors=Doors(port), auth=auth, **settings)
    ready = threading.Event()
    serving = Serving(app, timeout=timeout, ready=ready.set, follow=follow, signals=False)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        while not ready.wait(0.05):
            assert thread.is_alive(), serving.failure
        yield Running(Client(port), serving, app)
    finally:
        serving.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
