"""Odd surroundings: no home, no current folder, the C locale, an open umask, few descriptors, no stdin, a full TMPDIR.

Each is tried on a script that logs everything and on commands that read it back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
import mlcli
with mlcli.start_run(run_name="zürich 🦉"):
    mlcli.log_param("lr", 0.1)
    mlcli.log_metric("loss", 0.5)
    mlcli.set_tag("stage", "entwürfe")
    try:
        mlcli.log_text("ü", "notes/ü.txt")
    except mlcli.errors.InvalidInput as error:  # told, not a stack of frames
        assert "'notes/ü.txt' cannot be written in ascii" in error.message and "PYTHONUTF8" in error.hint
        mlcli.log_text("ü", "notes/u.txt")
    mlcli.log_dict({"a": 1}, "d.yaml")
    mlcli.log_table({"a": [1]}, "t.json")
    mlcli.log_artifact(mlcli.__file__, "code")
found = mlcli.search_runs(output_format="list", search_all_experiments=True)
assert [run.info.status for run in found] == ["FINISHED"], found
assert sorted(item.path for item in mlcli.artifacts.list_artifacts(run_id=found[0].info.run_id)) == [
    "code", "d.yaml", "notes", "t.json"
]
"""
COMMANDS = (
    ("runs", "list"),
    ("runs", "list", "--json"),
    ("runs", "show", "latest"),
    ("artifacts", "list", "-r", "latest"),
)

Around = Callable[[Path, dict[str, str]], dict[str, object]]


def no_home(folder: Path, env: dict[str, str]) -> dict[str, object]:
    for name in [name for name in env if name == "HOME" or name.startswith("XDG_")]:
        del env[name]
    return {}


def home_not_there(folder: Path, env: dict[str, str]) -> dict[str, object]:
    no_home(folder, env)
    env["HOME"] = "/proc/no/such/home"  # nobody, root neither, can make it
    return {}


def no_current_folder(folder: Path, env: dict[str, str]) -> dict[str, object]:
    gone = folder / "gone"
    gone.mkdir()
    return {"cwd": gone, "preexec_fn": gone.rmdir}


def c_locale(folder: Path, env: dict[str, str]) -> dict[str, object]:
    for name in [name for name in env if name.startswith(("LC_", "LANG"))]:
        del env[name]
    env.update(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    return {}


def few_descriptors(folder: Path, env: dict[str, str]) -> dict[str, object]:
    import resource

    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))}


def no_stdin(folder: Path, env: dict[str, str]) -> dict[str, object]:
    return {"preexec_fn": lambda: os.close(0), "stdin": None}


def no_stdin_no_stderr(folder: Path, env: dict[str, str]) -> dict[str, object]:
    def close() -> None:
        os.close(0)
        os.close(2)

    return {"preexec_fn": close, "stdin": None}


def open_umask(folder: Path, env: dict[str, str]) -> dict[str, object]:
    return {"preexec_fn": lambda: os.umask(0)}


def shut_umask(folder: Path, env: dict[str, str]) -> dict[str, object]:
    return {"preexec_fn": lambda: os.umask(0o077)}


def no_temporary_folder(folder: Path, env: dict[str, str]) -> dict[str, object]:
    env.update(TMPDIR="/proc/no/such", TMP="/proc/no/such", TEMP="/proc/no/such")
    return {}


def empty_environment(folder: Path, env: dict[str, str]) -> dict[str, object]:
    store = env["MLCLI_TRACKING_URI"]
    env.clear()
    env["MLCLI_TRACKING_URI"] = store
    return {}


AROUND = (
    no_home,
    home_not_there,
    no_current_folder,
    c_locale,
    few_descriptors,
    no_stdin,
    no_stdin_no_stderr,
    open_umask,
    shut_umask,
    no_temporary_folder,
    empty_environment,
)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX surroundings")
@pytest.mark.parametrize("around", AROUND, ids=lambda around: around.__name__)
def test_it_works_all_the_same(root: Path, tmp_path: Path, around: Around) -> None:
    def call(*words: str) -> str:
        env = {**os.environ, "MLCLI_TRACKING_URI": str(root)}
        options = {"stdin": subprocess.DEVNULL, **around(tmp_path, env)}
        done = subprocess.run([sys.executable, *words], capture_output=True, check=False, env=env, **options)
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        return done.stdout.decode()

    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    assert call("-c", f"exec(open({str(script)!r}, encoding='utf-8').read())") == ""
    for words in COMMANDS:
        assert call("-m", "mlcli", *words).strip()
    (run,) = json.loads(call("-m", "mlcli", "runs", "list", "--json"))
    assert (run["info"]["run_name"], run["data"]["tags"]["stage"]) == ("zürich 🦉", "entwürfe")
    open_to_others = [path for path in [root, *root.rglob("*")] if path.stat().st_mode & 0o022]
    assert open_to_others == []


def test_a_store_named_from_a_folder_that_is_gone_cannot_be_found_and_that_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "mlcli", "runs", "list"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "MLCLI_TRACKING_URI": "./mlruns"},
        cwd=gone,
        preexec_fn=gone.rmdir,
    )
    assert done.returncode == 2
    assert "./mlruns (from MLCLI_TRACKING_URI) is named from the current folder, which was deleted" in done.stderr


def test_without_a_current_folder_and_without_a_setting_it_says_where_it_looked(tmp_path: Path) -> None:
    """The store cannot be found from a folder that is gone; the home folder takes its place."""
    home = tmp_path / "home"
    home.mkdir()
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "mlcli", "runs", "list"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(home)},
        cwd=gone,
        preexec_fn=gone.rmdir,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert list(home.iterdir()) == []
