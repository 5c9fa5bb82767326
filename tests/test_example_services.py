"""The example services, started as their READMEs say, in environments of their own with the real FastAPI."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving import Client

EXAMPLES = Path(__file__).parents[1] / "example_projects"
pytestmark = [pytest.mark.slow, pytest.mark.network]


@contextmanager
def service(name: str, *words: str):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlcli",
        "run",
        str(EXAMPLES / name),
        "--env-manager",
        "uv",
        "-P",
        f"port={port}",
        *words,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        client = Client(port, Content_Type="application/json")
        end = time.monotonic() + 180
        while not answers(client):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.2)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def answers(client: Client) -> bool:
    try:
        return client.send("GET", "/openapi.json").status == 200
    except ConnectionError:
        return False


def test_an_application_serves_a_model_of_the_registry(mlcli):
    mlcli("run", EXAMPLES / "wine", "--env-manager", "uv", "-P", "epochs=5", timeout=600)
    mlcli("models", "register", "runs:/latest/model", "wine")
    mlcli("models", "alias", "set", "wine", "champion", "1")
    example = json.loads(
        mlcli("models", "download", "wine/1", "-d", ".").stdout and Path("wine/input_example.json").read_text()
    )
    rows = [dict(zip(example["columns"], row, strict=True)) for row in example["data"]]
    with service("fastapi_app") as client:
        answer = client.send("POST", "/guess", json.dumps({"wines": rows}))
        assert answer.status == 200, answer
        assert set(answer.json["growers"]) <= {"Barolo", "Grignolino", "Barbera"}
        assert len(answer.json["growers"]) == len(rows)
        del rows[0]["alcohol"]
        refused = client.send("POST", "/guess", json.dumps({"wines": rows[:1]}))
        assert (refused.status, "alcohol" in refused.json["detail"]) == (422, True)


def test_a_request_starts_a_training_and_another_tells_how_far_it_is():
    with service("train_service") as client:
        begun = client.send("POST", "/train", '{"epochs": 12}')
        assert begun.status == 202, begun
        end = time.monotonic() + 300
        while (told := client.send("GET", begun.json["progress"]).json)["status"] not in (
            "FINISHED",
            "FAILED",
            "KILLED",
        ):
            assert time.monotonic() < end
            time.sleep(0.2)
        assert (told["status"], told["why"], told["step"]) == ("FINISHED", "", 11)
        assert "accuracy" in str(told["metrics"])
        assert client.send("GET", "/train/nothing").status == 404
        wrong = client.send("POST", "/train", '{"epoch": 12}')  # the project has no such parameter
        assert wrong.status == 202, wrong
        end = time.monotonic() + 60
        while (told := client.send("GET", wrong.json["progress"]).json)["status"] != "FAILED":
            assert time.monotonic() < end
            time.sleep(0.2)
        assert (told["exit_code"], told["metrics"]) == (2, {})
