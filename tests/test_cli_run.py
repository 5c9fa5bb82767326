"""`mlcli run` as people and scripts see it: what is said where, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlcli.cli import run as cli_run
from mlcli.errors import InvalidInput
from mlcli.store import open_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

MLPROJECT = """
name: demo
entry_points:
  main:
    parameters:
      lr: {type: float, default: 0.1}
    command: "python train.py {lr}"
"""
TRAIN = "import sys; print('trained with', sys.argv[1])"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "MLproject").write_text(MLPROJECT)
    (folder / "train.py").write_text(TRAIN)
    return folder


def test_stdout_is_the_programs_alone_and_what_mlcli_says_goes_to_stderr(demo, mlcli):
    done = mlcli("run", demo, "--env-manager=local")
    assert done.stdout == "trained with 0.1\n"
    assert "FINISHED" in done.stderr


def test_quiet_leaves_stderr_to_the_program(demo, mlcli):
    (demo / "train.py").write_text("import sys; print('mine', file=sys.stderr)")
    assert mlcli("run", demo, "--env-manager=local", "-q").stderr == "mine\n"


def test_json_prints_the_run_as_one_document_and_the_programs_output_on_stderr(demo, mlcli):
    done = mlcli("run", demo, "--env-manager=local", "--json", "-q", "-P", "lr=3")
    run = json.loads(done.stdout)
    assert run["info"]["status"] == "FINISHED"
    assert run["data"]["params"] == {"lr": "3"}
    assert done.stderr == "trained with 3\n"


def test_json_of_a_failed_run_is_printed_with_the_programs_exit_code(demo, mlcli):
    (demo / "train.py").write_text("raise SystemExit(7)")
    done = mlcli("run", demo, "--env-manager=local", "--json", check=7)
    assert json.loads(done.stdout)["info"]["status"] == "FAILED"


def test_the_current_folder_is_the_project_when_none_is_named(demo, mlcli):
    assert mlcli("run", "--env-manager=local", cwd=demo).stdout == "trained with 0.1\n"


def test_a_dry_run_says_all_and_starts_nothing(demo, mlcli):
    done = mlcli("run", demo, "--env-manager=local", "-P", "lr=0.5", "--experiment-name", "e", "--dry-run")
    shown = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert shown["project"] == "demo"
    assert shown["entry point"] == "main"
    assert shown["command"] == "python train.py 0.5"
    assert shown["parameter lr"] == "0.5"
    assert shown["environment"].startswith("local")
    assert re.fullmatch(r"3\.\d+\.\d+: the Python of the command line", shown["python"])
    assert shown["experiment"] == "e"
    assert shown["folder"] == str(demo)
    assert not Path("mlruns").exists()


def test_a_dry_run_says_whether_the_environment_would_be_built(demo, mlcli):
    (demo / "python_env.yaml").write_text("dependencies: [no-such-package]\n")
    with (demo / "MLproject").open("a") as file:
        file.write("python_env: python_env.yaml\n")
    shown = json.loads(mlcli("run", demo, "--env-manager=uv", "--dry-run", "--json").stdout)
    assert shown["environment"]["manager"] == "uv"
    assert shown["environment"]["state"] == "would be built"
    assert not Path(shown["environment"]["place"]).exists()


def test_a_dry_run_finds_the_same_mistakes_as_a_run(demo, mlcli):
    done = mlcli("run", demo, "--env-manager=local", "-P", "lr=abc", "--dry-run", check=2)
    assert "lr" in done.stderr


@pytest.mark.parametrize("args", [["-b", "databricks"], ["--build-image"], ["--tag", "novalue"], ["--tag", "=x"]])
def test_what_is_not_possible_is_said_with_a_hint(demo, mlcli, args):
    done = mlcli("run", demo, *args, check=2)
    assert done.stderr.startswith("error: ")
    assert "\nhint: " in done.stderr


def test_a_backend_config_is_not_needed_and_that_is_said(demo, mlcli):
    done = mlcli("run", demo, "--env-manager=local", "-b", "local", "--backend-config", "{}")
    assert "--backend-config is not used" in done.stderr


IMAGE = """
name: demo
docker_env: {image: "registry/image:1"}
entry_points:
  main: {command: "python train.py 1"}
"""


def test_a_dry_run_shows_the_docker_run_that_would_be_made(demo, mlcli):
    (demo / "MLproject").write_text(IMAGE)
    shown = json.loads(mlcli("run", demo, "--dry-run", "--json", "-A", "gpus=all").stdout)
    assert shown["environment"]["state"] == "image registry/image:1"
    assert shown["docker"][:2] == ["docker", "run"]
    assert " ".join(shown["docker"]).endswith("--gpus all registry/image:1 python train.py 1")
    text = dict(line.split("\t", 1) for line in mlcli("run", demo, "--dry-run").stdout.splitlines())["docker"]
    assert text.endswith("registry/image:1 python train.py 1")


def test_an_env_manager_that_the_image_overrules_is_told(demo, mlcli):
    (demo / "MLproject").write_text(IMAGE)
    done = mlcli("run", demo, "--env-manager=local", "--dry-run")
    assert "the env manager `local` is not used" in done.stderr


def test_options_for_docker_are_checked_before_there_is_a_run(demo, mlcli):
    (demo / "MLproject").write_text(IMAGE)
    assert "-A wants NAME" in mlcli("run", demo, "-A", "--gpus", check=2).stderr
    assert not Path("mlruns").exists()


def test_options_for_docker_without_an_image_are_not_used_and_that_is_said(demo, mlcli):
    done = mlcli("run", demo, "--env-manager=local", "-A", "gpus=all")
    assert "--docker-args is not used" in done.stderr


def test_the_command_stands_below_the_runs_name_in_its_own_lines(demo, mlcli):
    command = "\n".join(["for i in 1 2; do", "  true $i", "done", *(f"echo {number}" for number in range(9))])
    (demo / "MLproject").write_text(f"entry_points: {{main: {{command: {json.dumps(command)}}}}}")
    first, *lines = mlcli("run", demo, "--env-manager=local").stderr.splitlines()
    assert first.endswith("in experiment Default")
    assert lines[:3] == ["$ for i in 1 2; do", "    true $i", "  done"]
    assert lines[10] == "  and 2 more lines"


def test_a_run_whose_program_never_started_is_told_with_its_status(demo, mlcli):
    (demo / "MLproject").write_text("entry_points: {main: {command: no-such-program-of-ours}}")
    done = mlcli("run", demo, "--env-manager=local", check=127)
    status, error = done.stderr.splitlines()[2:4]
    assert "FAILED" in status
    assert the_run().info.run_id in status
    assert error == "error: command not found: no-such-program-of-ours"


def test_tags_are_split_at_the_first_equals_sign():
    assert cli_run._tags(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_a_tag_given_twice_with_two_values_is_refused():
    with pytest.raises(InvalidInput, match="twice"):
        cli_run._tags(["a=1", "a=2"])


def test_a_terminal_is_told_what_was_recorded_and_what_to_do_next(demo):
    command = """echo '{{"metric":"accuracy","value":0.75}}' >> "$MLCLI_JOURNAL"; python train.py {lr}"""
    (demo / "MLproject").write_text(MLPROJECT.replace("python train.py {lr}", command.replace('"', '\\"')))
    seen = on_terminal("run", demo, "--env-manager=local")
    run_id = the_run().info.run_id
    assert "trained with 0.1\r\n" in seen
    for text in ("FINISHED", "lr", "accuracy", "0.75", f"mlcli runs show {run_id[:8]}", "2 files"):
        assert text in seen, text


def the_run():
    with open_store() as store:
        (found,) = store.search_runs()
    return found


def on_terminal(*args: object) -> str:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcli", *map(str, args)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([master], [], [], 0.1)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:
                break
    os.close(master)
    assert process.wait(timeout=60) == 0, seen
    return seen.decode()


def test_the_help_names_every_option_once(mlcli):
    text = mlcli("run", "--help").stdout
    for option in ("--entry-point", "--param-list", "--env-manager", "--dry-run", "--experiment-name", "--tag"):
        assert text.count(f"{option} ") + text.count(f"{option}\n") == 1, option
    assert "--new-run-id" not in text
