"""The Tab key: commands, options, ids of runs, names of experiments."""

from __future__ import annotations

import os

import pytest

from mlcli.store import open_store


def complete(mlcli, line: str) -> list[str]:
    """What bash would offer at the end of the line."""
    words = line.split(" ")
    environ = {
        **os.environ,
        "_MLCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    return mlcli(env=environ).stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mlcli exp", ["experiments"]),
        ("mlcli --vers", ["--version"]),
        ("mlcli runs sh", ["show"]),
        ("mlcli runs list --js", ["--json"]),
        ("mlcli nothing here", []),
    ],
)
def test_commands_and_options_are_offered(mlcli, line, offered):
    assert [word for word in complete(mlcli, line) if word] == offered


def test_ids_of_runs_are_offered_by_their_beginning(mlcli):
    with open_store() as store:
        run = store.create_run("0").info.run_id
    assert complete(mlcli, f"mlcli runs show {run[:3]}") == [run]
    assert complete(mlcli, f"mlcli artifacts list --run-id {run[:3]}") == [run]
    assert complete(mlcli, "mlcli runs show lat") == ["latest"]


def test_names_of_experiments_are_offered(mlcli):
    with open_store() as store:
        store.create_experiment("wine")
    assert complete(mlcli, "mlcli runs list --experiment-name wi") == ["wine"]
    assert complete(mlcli, "mlcli experiments get wi") == ["wine"]


def test_completion_makes_no_store_and_no_noise(mlcli):
    assert complete(mlcli, "mlcli runs show a") == [""]
    assert os.listdir() == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_shown(mlcli, shell):
    assert "_MLCLI_COMPLETE" in mlcli("--show-completion", shell).stdout
