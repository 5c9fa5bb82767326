"""The README tells the truth: its commands exist, its tables are complete, its tour runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlcli.cli import COMMANDS
from mlcli.config import SETTINGS

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
SERVER = (REPO / "docs" / "server.md").read_text(encoding="utf-8")
SHELL_BLOCKS = re.findall(r"```(?:sh|console)\n(.*?)```", README + SERVER, re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The mlcli commands of a shell block, without their comments."""
    lines = [line.removeprefix("$ ") for line in text.splitlines()]
    parts = [part for line in lines for part in re.split(r" (?:&&|\|) ", line)]
    return [shlex.split(part, comments=True) for part in parts if part.strip().startswith("mlcli ")]


def test_the_table_of_commands_is_complete() -> None:
    table = README.split("## Commands")[1].split("## ")[0]
    assert set(re.findall(r"^\| `mlcli (\w+)", table, re.MULTILINE)) == set(COMMANDS)


def test_the_table_names_every_subcommand(mlcli) -> None:
    table = README.split("## Commands")[1].split("## ")[0]
    for group, names in re.findall(r"^\| `mlcli (\w+)` \| ((?:`[\w-]+`(?:, )?)+) \|$", table, re.MULTILINE):
        text = mlcli(group, "--help").stdout
        listed = set(re.findall(r"^  ([a-z][\w-]*)  ", text.split("Commands:")[1], re.MULTILINE))
        assert set(re.findall(r"`([\w-]+)`", names)) <= listed, group


def test_the_table_of_settings_is_complete() -> None:
    table = README.split("## Settings")[1].split("## ")[0]
    named = {variable for setting in SETTINGS for variable in setting.variables}
    assert named <= set(re.findall(r"\b(?:MLCLI|MLFLOW)_\w+", table))


@pytest.mark.parametrize("command", [" ".join(item[1:]) for block in SHELL_BLOCKS for item in commands(block)])
def test_every_command_and_option_in_it_exists(mlcli, command: str) -> None:
    words = command.split()
    group = (
        words[:3]
        if words[:2] == ["server", "users"]
        else words[:2]
        if words[1:]
        and not words[1].startswith("-")
        and words[0] in ("runs", "experiments", "artifacts", "models", "env", "rollouts", "monitor")
        else words[:1]
    )
    text = mlcli(*group, "--help").stdout
    for option in re.findall(r"(?<!\S)(--?[a-zA-Z][\w-]*)", command):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), (
            f"{option} is not in the help of mlcli {' '.join(group)}"
        )


def test_files_it_links_to_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPO / link).exists(), link


@pytest.mark.slow
def test_the_tour_runs_as_printed(tmp_path: Path) -> None:
    (tour,) = re.findall(r"<!-- tour -->\n```sh\n(.*?)```", README, re.DOTALL)
    shutil.copytree(REPO / "example_projects", tmp_path / "example_projects")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", tour],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "downloads" / "model" / "MLmodel").exists()
    assert done.stdout.count("Score:") == 3, "two runs print it, runs logs once more"
