"""`mlcli env`: what is listed, explained, locked and removed, for eyes, for pipes and as JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from wheelhouse import make_wheel

from mlcli import envs
from mlcli.envs import env as on_disk
from mlcli.projects.envfile import read_env

REAL_HOME = os.path.expanduser("~")


@pytest.fixture(autouse=True)
def _no_python_downloads(monkeypatch):
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PYENV_ROOT", os.environ.get("PYENV_ROOT") or str(Path(REAL_HOME) / ".pyenv"))


@pytest.fixture
def project(tmp_path):
    """A project of two packages, one of which needs the other."""
    make_wheel(tmp_path / "wheels", "alpha", "1.0")
    make_wheel(tmp_path / "wheels", "beta", "1.5", needs=("alpha",))
    folder = tmp_path / "proj"
    folder.mkdir()
    (folder / "MLproject").write_text(
        "name: demo\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: python -c pass\n"
    )
    (folder / "python_env.yaml").write_text("dependencies:\n  - -r requirements.txt\n")
    (folder / "requirements.txt").write_text(f"--no-index\n--find-links {tmp_path / 'wheels'}\nbeta==1.5\n")
    return folder


def build(project):
    return envs.ensure(read_env(str(project)), "uv", project=str(project))


def table(output):
    head, *lines = [line.split("\t") for line in output.splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_ls_lists_nothing_and_says_what_to_do(mlcli):
    done = mlcli("env", "ls")
    assert table(done.stdout) == []
    assert "No environments" in done.stderr


def test_ls_gives_each_environment_with_its_projects(mlcli, project):
    env = build(project)
    (row,) = table(mlcli("env", "ls").stdout)
    assert (row["key"], row["manager"], row["python"], row["packages"]) == (env.key[:32], "uv", env.version, "2")
    assert row["projects"] == str(project)
    (found,) = json.loads(mlcli("env", "ls", "--json").stdout)
    assert (found["key"], found["path"], found["projects"]) == (env.key, env.prefix, [str(project)])
    assert found["size"] > 0


def test_ls_says_what_is_wrong_with_one(mlcli, project):
    os.unlink(Path(build(project).prefix) / on_disk.STATE_FILE)
    (row,) = table(mlcli("env", "ls").stdout)
    assert row["problem"] == "its building was interrupted"


def test_why_names_the_file_and_line_of_each_requirement_and_builds_nothing(mlcli, project):
    done = mlcli("env", "why", project)
    assert {"requirement": "beta==1.5", "role": "run", "place": "requirements.txt:3"} in table(done.stdout)
    assert not (Path(os.environ["XDG_CACHE_HOME"]) / "mlcli" / "envs").exists()


def test_why_tells_which_python_was_chosen_and_why(mlcli, project):
    (project / "python_env.yaml").write_text('python: "3.0.99999"\n')
    assert "3.0.99999 is not on this machine" in mlcli("env", "why", project, "--json").stdout
    (project / "python_env.yaml").write_text('python: "3"\n')
    python = json.loads(mlcli("env", "why", project, "--json").stdout)["python"]
    assert (python["asked"], python["line"], python["reason"]) == ("3", 1, "asked for 3")


def test_why_tells_of_the_python_in_a_pipe_too(mlcli, project):
    (project / "python_env.yaml").write_text('python: "3"\n')
    done = mlcli("env", "why", project)
    assert table(done.stdout) == []
    assert "environment: virtualenv, would be built: " in done.stderr
    assert "asked for 3 (python_env.yaml:1)" in done.stderr


def test_why_a_package_is_there_because_another_needs_it(mlcli, project):
    build(project)
    done = mlcli("env", "why", project, "alpha", "--env-manager", "uv")
    assert table(done.stdout) == [{"why": "needed", "what": "beta > alpha", "place": "requirements.txt:3"}]
    found = json.loads(mlcli("env", "why", project, "Alpha", "--env-manager", "uv", "--json").stdout)
    assert (found["version"], found["asked_by"], found["needed_by"]) == ("1.0", [], [["beta", "alpha"]])


def test_why_a_package_that_nobody_asks_for_is_not_found(mlcli, project):
    assert "asks for gamma" in mlcli("env", "why", project, "gamma", check=3).stderr


def test_lock_writes_the_exact_set_to_stdout_and_says_the_rest_on_stderr(mlcli, project):
    done = mlcli("env", "lock", project, "--env-manager", "uv")
    assert done.stdout.splitlines()[1:] == ["alpha==1.0", "beta==1.5"]
    assert "environment ready" in done.stderr


def test_lock_writes_a_pylock_where_the_file_is_called_so(mlcli, project, tmp_path):
    target = tmp_path / "pylock.toml"
    mlcli("env", "lock", project, "--env-manager", "uv", "-o", target)
    assert 'name = "beta"\nversion = "1.5"' in target.read_text()


def test_lock_refuses_a_format_it_does_not_know(mlcli, project):
    assert "requirements, pylock" in mlcli("env", "lock", project, "--format", "xml", check=2).stderr


@pytest.mark.parametrize("which", ["key", "folder"])
def test_rm_removes_by_key_and_by_project(mlcli, project, which):
    env = build(project)
    mlcli("env", "rm", env.key[:10] if which == "key" else project)
    assert not os.path.exists(env.prefix)
    assert "mlcli env ls" in mlcli("env", "rm", env.key[:10], check=3).stderr


def test_rm_leaves_one_that_is_in_use(mlcli, project):
    env = build(project)
    with envs.in_use(env):
        assert "is in use" in mlcli("env", "rm", env.key[:10], check=1).stderr
    assert os.path.exists(env.prefix)


def test_prune_removes_what_is_old_and_first_only_tells(mlcli, project):
    env = build(project)
    assert table(mlcli("env", "prune").stdout) == []
    (row,) = table(mlcli("env", "prune", "--older-than", "0", "--dry-run").stdout)
    assert row["key"] == env.key[:32]
    assert os.path.exists(env.prefix)
    assert len(json.loads(mlcli("env", "prune", "--older-than", "0", "--json").stdout)) == 1
    assert not os.path.exists(env.prefix)


def test_prune_leaves_one_that_is_in_use(mlcli, project):
    env = build(project)
    with envs.in_use(env):
        assert "in use" in mlcli("env", "prune", "--older-than", "0").stderr
    assert os.path.exists(env.prefix)


def test_prune_refuses_what_is_no_length_of_time(mlcli):
    assert "30d" in mlcli("env", "prune", "--older-than", "soon", check=2).stderr


def test_two_projects_of_one_name_are_told_apart(mlcli, project, tmp_path):
    other = tmp_path / "other" / "demo"
    shutil.copytree(project, other)
    (other / "requirements.txt").write_text(f"--no-index\n--find-links {tmp_path / 'wheels'}\nalpha==1.0\n")
    for folder in (project, other):
        mlcli("run", folder, "--env-manager=uv")
    assert {row["projects"] for row in table(mlcli("env", "ls").stdout)} == {str(project), str(other)}
    mlcli("env", "rm", other)
    assert [row["projects"] for row in table(mlcli("env", "ls").stdout)] == [str(project)]
    assert "mlcli env ls" in mlcli("env", "rm", "demo", check=3).stderr


def test_the_environment_of_a_fetched_project_goes_by_its_address(mlcli, project):
    git = ["git", "-C", str(project)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    mlcli("run", project, "--version", "main", "--env-manager=uv")
    (row,) = table(mlcli("env", "ls").stdout)
    assert row["projects"] == str(project)
    subprocess.run(["git", "clone", "-q", "--bare", str(project), "bare.git"], check=True)
    address = Path("bare.git").absolute().as_uri()
    mlcli("run", address, "--env-manager=uv")
    (row,) = table(mlcli("env", "ls").stdout)
    assert row["projects"] == f"{project},{address}"
    mlcli("env", "rm", address)
    assert table(mlcli("env", "ls").stdout) == []
