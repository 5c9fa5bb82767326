"""The Dockerfile of a model: what stands in it, and that following it by hand gives a server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gateway import naughty
from serving import Client

from mlcli.errors import InvalidInput, MlcliError
from mlcli.serving.image import write_context
from mlcli.serving.launch import find


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = naughty(tmp_path / "doubler")
    (folder / "python_env.yaml").write_text("python: 3.11.7\ndependencies:\n- -r requirements.txt\n")
    (folder / "requirements.txt").write_text("numpy\n")
    return folder


@pytest.mark.parametrize(
    "line",
    [
        'numpy"]\nRUN touch /evil',
        "numpy; touch /evil",
        "numpy\\\nRUN touch /evil",
        "$(touch /evil)",
        "numpy\rRUN touch /evil",
        "numpy\u2028RUN touch /evil",
        "{base}",
    ],
)
def test_no_requirement_gets_into_the_dockerfile(model, tmp_path, line):
    plain = Path(write_context(find(str(model)), str(tmp_path / "plain")).dockerfile).read_bytes()
    (model / "requirements.txt").write_text(line + "\n")
    try:
        context = write_context(find(str(model)), str(tmp_path / "context"))
    except MlcliError:
        assert not (tmp_path / "context").exists()
        return
    assert Path(context.dockerfile).read_bytes() == plain


@pytest.mark.parametrize("python", ["3.11 && touch /evil", "3.11\\nRUN x", ">=3.9", "$(x)"])
def test_a_python_that_is_no_version_is_refused(model, tmp_path, python):
    (model / "python_env.yaml").write_text(json.dumps({"python": python}))
    with pytest.raises(MlcliError):
        write_context(find(str(model)), str(tmp_path / "context"))
    assert not (tmp_path / "context").exists()


@pytest.mark.parametrize("base", ["python\nRUN x", "python AS x", "-x", ""])
def test_a_base_that_is_no_image_is_refused(model, tmp_path, base):
    with pytest.raises(InvalidInput):
        write_context(find(str(model)), str(tmp_path / "context"), base=base)


def test_a_folder_with_something_in_it_is_left_alone(model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(InvalidInput, match="not empty"):
        write_context(find(str(model)), str(tmp_path / "there"))
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]


def test_where_no_engine_answers_the_context_is_left_and_the_command_told(mlcli, model, tmp_path):
    (tmp_path / "empty").mkdir()
    done = mlcli(
        "models",
        "build-docker",
        "-m",
        model,
        "-n",
        "team/doubler:1",
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path / "empty")},
    )
    assert done.stdout == "docker build -t team/doubler:1 team-doubler-1-context\n"
    assert (tmp_path / "team-doubler-1-context" / "mlcli" / "serving" / "static" / "docs.html").is_file()


@pytest.mark.slow
@pytest.mark.network
def test_following_the_dockerfile_gives_a_server_that_needs_nothing_else(model, tmp_path):
    """Each instruction is carried out in a folder that stands for /opt; there is no engine here that could."""
    context = write_context(find(str(model)), str(tmp_path / "context"), trust=True)
    root = tmp_path / "root"
    root.mkdir()
    environ = {
        "HOME": str(root),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "UV_CACHE_DIR": os.environ["UV_CACHE_DIR"],
    }

    def inside(text: str) -> str:
        return re.sub(r"/(opt|tmp)\b", lambda match: f"{root}/{match[1]}", text)

    (root / "tmp").mkdir()
    command: list[str] = []
    lines = Path(context.dockerfile).read_text().replace("\\\n", "").splitlines()
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *sources, target = shlex.split(inside(rest))
            for source in sources:
                place = Path(target) / source if target.endswith("/") else Path(target)
                place.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-r", Path(context.folder) / source, place], check=True)
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                if name != "UV_NO_CACHE":
                    environ[name] = inside(value).replace("$PATH", environ["PATH"])
        elif word == "RUN" and not rest.startswith("pip install"):
            subprocess.run(inside(rest), shell=True, check=True, env={**os.environ, **environ}, capture_output=True)
        elif word == "ENTRYPOINT":
            command = [inside(part) for part in json.loads(rest)]
    subprocess.run(["rm", "-r", context.folder], check=True)
    command[command.index("-h") + 1] = "127.0.0.1"
    command[command.index("-p") + 1] = "0"
    server = subprocess.Popen(command, env=environ, cwd=root / "tmp", stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        port = int(re.search(r":(\d+)/invocations", line)[1])
        token = (root / "tmp" / "mlcli-token").read_text().strip()
        client = Client(port, Authorization=f"Bearer {token}", Content_Type="application/json")
        assert client.send("POST", "/invocations", b'{"inputs": [[4]]}').body == b'{"predictions": [8.0]}'
        assert client.send("GET", "/docs").status == 200
    finally:
        server.send_signal(signal.SIGTERM)
        end = time.monotonic() + 20
        assert server.wait(timeout=end - time.monotonic()) == 0
        server.stdout.close()
