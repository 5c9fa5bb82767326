"""`mlcli check`: what it finds, where, how to mend it, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcli.cli import check as cli_check
from mlcli.projects import check
from mlcli.projects.problem import Problem

EXAMPLES = Path(__file__).parent.parent / "example_projects"
MAIN = "entry_points:\n  main:\n"


@pytest.fixture
def found(tmp_path):
    """Check an MLproject (and other files) and give ``(code, level, line)`` of what was found."""

    def look(text, **files):
        (tmp_path / "MLproject").write_text(text)
        for name in ("train.py", *files):
            (tmp_path / name.replace("__", ".")).write_text(files.get(name, ""))
        return [(p.code, p.level, p.line) for p in check(str(tmp_path))]

    return look


def parameter(line, command="python train.py {p}"):
    return f'{MAIN}    parameters:\n      p: {line}\n    command: "{command}"\n'


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.iterdir() if p.is_dir() and p.name != "blog_typos"))
def test_the_examples_are_clean(name):
    # The script of tutorial_mlflow stands as it was written for MLflow, a parameter it does not use included.
    expected = ["unused-parameter"] if name == "tutorial_mlflow" else []
    assert [problem.code for problem in check(str(EXAMPLES / name))] == expected


@pytest.mark.parametrize(
    "line",
    ["float", "{type: float, default: 1e-3}", "{type: float, default: 2e-5}", "{default: true}", "{type: int, default: 1_000}",
     "{type: bool, default: off}", "{type: float, default: 3.10}", "{type: int, default: 3}", "{type: string, default: ''}",
     "{type: int, default: ''}", "{type: float, default: .inf}", "{type: string, default: 2024-01-02}"],
)  # fmt: skip
def test_good_parameters_are_clean(line, found):
    assert found(parameter(line)) == []


@pytest.mark.parametrize(
    ("line", "code", "level"),
    [
        ("{type: int, default: auto}", "default-type", "warning"),
        ("{type: float, default: '1,5'}", "default-type", "warning"),
        ("{type: uri, default: data.csv}", "default-type", "error"),
        ("{type: string, default: None}", "default-none", "warning"),
        ("{type: int, default: 010}", "yaml-value", "warning"),
        ("{type: string, default: 3.10}", "yaml-value", "warning"),
        ("{type: string, default: off}", "yaml-value", "warning"),
        ("{type: string, default: 12:30:45}", "yaml-value", "warning"),
        ("{type: int, defualt: 3}", "lost-default", "error"),
        ("{type: int, default:10}", "lost-default", "error"),
        ("{int: int, default: 3}", "unknown-key", "warning"),
        ("{type: flaot, default: 3}", "unknown-type", "warning"),
        ("{default: /home/me/data}", "absolute-path", "warning"),
        ("{default: 'C:/me/data'}", "absolute-path", "warning"),
        ("{default: 'data\\x.csv'}", "windows", "warning"),
        ("", "no-type", "warning"),
    ],
)
def test_a_doubtful_parameter_is_found_on_its_line(line, code, level, found):
    assert found(parameter(line)) == [(code, level, 4)]


@pytest.mark.parametrize(
    ("command", "code", "level"),
    [
        ("python train.py", "unused-parameter", "warning"),
        ("python train.py {q}", "command", "error"),
        ("python train.py '{p}", "command", "error"),
        ("python trian.py {p}", "missing-script", "error"),
        ("python train.py ${HOME} {p}", "command", "error"),
        ("python -c 'print({p})'", "value-in-code", "warning"),
        ("python train.py \u2013\u2013p {p}", "typographic-dash", "warning"),
        ("python train.py \u201c{p}\u201d", "typographic-quotes", "warning"),
        ("python train.py {p} \\\\", "trailing-backslash", "warning"),
    ],
)
def test_a_doubtful_command_is_found(command, code, level, found):
    assert [item[:2] for item in found(parameter("string", command))] == [(code, level)]


@pytest.mark.parametrize(
    "command",
    ["VAR={p} python -c 'print(1)' && echo {p}", "python -c 'print({{1}})' {p}", "python -Wc -c 'import sys' --x={p}"],
)
def test_a_parameter_beside_program_text_is_no_part_of_it(command, found):
    assert found(parameter("string", command)) == []


@pytest.mark.parametrize(
    "command", ["python -u -c 'print({p})'", "true; perl -e print{p}", 'python -uc \\"print({p})\\"']
)
def test_a_parameter_inside_program_text_is_found(command, found):
    assert [item[0] for item in found(parameter("string", command))] == ["value-in-code"]


def test_a_mended_script_name_is_suggested(tmp_path):
    (tmp_path / "MLproject").write_text(f'{MAIN}    command: "python trian.py"\n')
    (tmp_path / "train.py").write_text("")
    [problem] = check(str(tmp_path))
    assert problem.hint == "did you mean `train.py`?"


@pytest.mark.parametrize(
    ("text", "code", "level"),
    [
        ("", "not-a-map", "error"),
        ("a: [", "unreadable", "error"),
        ("name: x\n", "nothing-to-run", "error"),
        (f"{MAIN}    parameters: {{}}\n", "no-command", "error"),
        ("entry_points:\n  a: {command: x}\n  b: {command: y}\n", "no-main", "warning"),
        (f"python_env: none.yaml\n{MAIN}    command: x\n", "missing-env-file", "error"),
    ],
)
def test_a_doubtful_file_is_found(text, code, level, tmp_path):
    (tmp_path / "MLproject").write_text(text)
    assert (code, level) in [(p.code, p.level) for p in check(str(tmp_path))]


def test_a_missing_environment_file_is_told_on_the_line_that_names_it(tmp_path):
    (tmp_path / "MLproject").write_text(f"name: x\npython_env: none.yaml\n{MAIN}    command: x\n")
    [problem] = check(str(tmp_path))
    assert (problem.code, problem.line) == ("missing-env-file", 2)
    assert problem.file.endswith("MLproject")


def test_a_requirements_file_that_nothing_names_is_told(found):
    assert found(f'{MAIN}    command: "python train.py"\n', requirements__txt="numpy\n") == [
        ("unused-requirements", "warning", None)
    ]


def test_a_name_that_mlflow_overlooks_is_told(tmp_path):
    (tmp_path / "MLproject.yaml").write_text(f'{MAIN}    command: "true"\n')
    assert [(p.code, p.hint) for p in check(str(tmp_path))] == [("file-name", "rename it to MLproject")]


def test_every_finding_says_how_to_mend_it(tmp_path):
    lines = ["{type: int, default: auto}", "{type: int, default: 010}", "{defualt: 3}", "{default: /home/me/x}"]
    parameters = "".join(f"      p{n}: {line}\n" for n, line in enumerate(lines))
    (tmp_path / "MLproject").write_text(f'{MAIN}    parameters:\n{parameters}    command: "python train.py"\n')
    problems = check(str(tmp_path))
    assert len(problems) == 9
    assert all(problem.hint for problem in problems)


# --- the command


def test_a_clean_project_exits_with_0_and_says_what_next(mlcli):
    done = mlcli("check", EXAMPLES / "tutorial")
    assert done.stdout == ""
    assert "no problems found" in done.stderr
    assert f"mlcli run {EXAMPLES / 'tutorial'}" in done.stderr


def test_the_blogs_typos_are_explained_with_their_lines(mlcli):
    done = mlcli("check", EXAMPLES / "blog_typos", check=2)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "MLProject:10:9: error: `defualt`" in lines[0]
    assert "MLProject:13:9: error: `defualt`" in lines[1]
    assert "did you mean `default`?" in lines[0]
    assert "2 errors, 0 warnings" in done.stderr


def test_findings_of_the_environment_file_name_it_as_seen_from_here(mlcli, tmp_path):
    folder = tmp_path / "proj"
    folder.mkdir()
    (folder / "MLproject").write_text(f'conda_env: conda.yaml\n{MAIN}    command: "true"\n')
    (folder / "conda.yaml").write_text("dependencies:\n  - python=3.10\n  - six\n  - gcc_linux-64=9\n")
    done = mlcli("check", "proj", cwd=tmp_path)
    assert done.stdout.startswith("proj/conda.yaml:4:5: warning: only conda can install `gcc_linux-64=9`")


def test_an_environment_file_that_is_not_there_is_missed_where_it_is_named(mlcli, tmp_path):
    (tmp_path / "MLproject").write_text(f'name: x\npython_env: gone.yaml\n{MAIN}    command: "true"\n')
    for words in (("check",), ("run", "--env-manager=uv")):
        done = mlcli(*words, cwd=tmp_path, check=2)
        assert "MLproject:2:1: " in done.stdout + done.stderr
        assert "`gone.yaml` is not there" in done.stdout + done.stderr


def test_a_terminal_gets_findings_no_wider_than_itself(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    cli_check._grouped([Problem("error", "x", "a few words " * 12, "MLproject", 10, 4, "other words " * 9)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert len([line for line in lines if "words" in line]) == 7


def test_warnings_alone_exit_with_0(mlcli, tmp_path):
    (tmp_path / "MLproject").write_text(f'target: x\n{MAIN}    command: "true"\n')
    done = mlcli("check", tmp_path)
    assert "MLproject:1:1: warning: `target`" in done.stdout
    assert "0 errors, 1 warning" in done.stderr


def test_json_is_an_array_of_findings(mlcli, tmp_path):
    assert json.loads(mlcli("check", EXAMPLES / "wine", "--json").stdout) == []
    [first, _] = json.loads(mlcli("check", EXAMPLES / "blog_typos", "--json", check=2).stdout)
    assert (first["level"], first["code"], first["line"], first["column"]) == ("error", "lost-default", 10, 9)
    assert first["file"].endswith("MLProject")
    assert first["hint"] == "did you mean `default`?"


def test_a_project_that_is_not_there_is_an_error(mlcli, tmp_path):
    done = mlcli("check", tmp_path / "none", check=2)
    assert "no such folder" in done.stdout
