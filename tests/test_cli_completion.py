"""The Tab key: commands, options, ids of runs, names of experiments."""

from __future__ import annotations

import os
import subprocess
import sys

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
        ("mlcli experim", ["experiments"]),
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


PROJECT = """\
name: demo
entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.5}
      data: path
    command: "python train.py {alpha} {data}"
  evaluate:
    parameters: {beta: int}
    command: "python evaluate.py {beta}"
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mlcli run . -e ev", ["evaluate"]),
        ("mlcli run -e ", ["main", "evaluate"]),
        ("mlcli run . -P ", ["alpha=", "data="]),
        ("mlcli run . -P data=x -P ", ["alpha="]),
        ("mlcli run . -e evaluate -P ", ["beta="]),
        ("mlcli run https://example.invalid/repo -P ", [""]),
    ],
)
def test_entry_points_and_parameters_of_a_project_are_offered(mlcli, line, offered):
    with open("MLproject", "w", encoding="utf-8") as file:
        file.write(PROJECT)
    assert complete(mlcli, line) == offered


def test_a_project_that_cannot_be_read_offers_nothing(mlcli):
    with open("MLproject", "w", encoding="utf-8") as file:
        file.write("entry_points: [")
    assert complete(mlcli, "mlcli run . -P ") == [""]


def test_completion_makes_no_store_and_no_noise(mlcli):
    assert complete(mlcli, "mlcli runs show a") == [""]
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("shell", "sign"),
    [("bash", "complete -o default -F"), ("zsh", "#compdef mlcli"), ("fish", "complete --command mlcli")],
)
def test_the_script_of_each_shell_is_shown(mlcli, shell, sign):
    script = mlcli("--show-completion", shell).stdout
    assert sign in script
    assert "_MLCLI_COMPLETE" in script


def test_completion_is_installed_where_the_shell_looks(mlcli):
    assert ".bash_completions" in mlcli("--install-completion", "bash").stderr
    with open(os.path.expanduser("~/.bashrc"), encoding="utf-8") as file:
        assert "mlcli.sh" in file.read()


def test_a_shell_that_is_not_known_is_told(mlcli):
    assert "bash, zsh, fish" in mlcli("--show-completion", "tcsh", check=2).stderr


def test_bash_itself_completes_with_the_script(mlcli):
    """The script shown, sourced by a real bash, completes through the real program."""
    with open_store() as store:
        run = store.create_run("0").info.run_id
    script = mlcli("--show-completion", "bash").stdout
    lines = [
        script,
        f'mlcli() {{ "{sys.executable}" -m mlcli "$@"; }}',
        'COMP_WORDS=(mlcli runs show ""); COMP_CWORD=3',
        f'env() {{ local set=("$1" "$2" "$3"); command env "${{set[@]}}" "{sys.executable}" -m "$4"; }}',
        "_mlcli_completion mlcli",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [run]
