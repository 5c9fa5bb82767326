"""The ground floor: rules of names and values, settings and their sources, locks, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcli import config, errors, locks, rules
from mlcli.errors import InvalidInput

# -- rules


@pytest.mark.parametrize("key", ["a", "val/loss", "my metric", "a.b-c_d:e", "손실", "x" * 250, "é"])
def test_a_good_key_is_kept_as_it_is(key: str) -> None:
    assert rules.key(key, "metric") == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x" * 251,
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        ".",
        "a/.",
        "a\\b",
        "a\nb",
        "a\0",
        "a;b",
        "a\u202eb",
        7,
        None,
        b"a",
    ],
)
def test_a_bad_key_is_refused_in_words(key: object) -> None:
    with pytest.raises(InvalidInput, match="metric name"):
        rules.key(key, "metric")


@pytest.mark.parametrize(("given_value", "kept"), [(1, 1.0), (True, 1.0), ("1.5", 1.5), ("nan", None), (2.5, 2.5)])
def test_what_is_a_number_is_a_metric_value(given_value: object, kept: float | None) -> None:
    found = rules.metric_value("m", given_value)
    assert found == kept or (kept is None and found != found)


def test_arrays_of_one_element_are_metric_values() -> None:
    numpy = pytest.importorskip("numpy", reason="needs numpy (pip install 'mlcli[test]')")
    assert rules.metric_value("m", numpy.float32(0.5)) == rules.metric_value("m", numpy.array([0.5])) == 0.5
    with pytest.raises(InvalidInput, match="not a number"):
        rules.metric_value("m", numpy.array([1.0, 2.0]))


@pytest.mark.parametrize("value", [None, "x", [], {}, object(), 10**400])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="metric 'm'"):
        rules.metric_value("m", value)


@given(st.text(max_size=60))
def test_text_is_refused_or_kept_to_the_letter(text: str) -> None:
    try:
        kept = rules.param_value("p", text)
    except InvalidInput:
        assert "\0" in text or any(0xD800 <= ord(char) <= 0xDFFF for char in text)
    else:
        assert kept == text


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "..",
        "../x",
        "a/../../b",
        "..\\..\\x",
        "%2e%2e%2fx",
        "..%252f",
        "%252e%252e/x",
        "C:\\x",
        "C:x",
        "\\\\h\\s",
        "//x",
        "a\0b",
    ],
)
def test_a_path_out_of_the_artifact_root_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="leaves the artifact root"):
        rules.artifact_path(path)


@pytest.mark.parametrize(
    ("path", "normal"), [("", ""), ("a", "a"), ("a//b/./c/", "a/b/c"), ("50%/x", "50%/x"), ("그림.png", "그림.png")]
)
def test_an_artifact_path_becomes_normal(path: str, normal: str) -> None:
    assert rules.artifact_path(path) == normal


@given(st.text(alphabet="./%2eE5cfC\\:a\0", max_size=24))
def test_an_accepted_path_stays_inside_however_often_it_is_decoded(path: str) -> None:
    from urllib.parse import unquote

    try:
        found = rules.artifact_path(path)
    except InvalidInput:
        return
    for _ in range(4):
        resolved = os.path.normpath(os.path.join("/artifacts", found)) if found else "/artifacts"
        assert resolved == "/artifacts" or resolved.startswith("/artifacts/")
        found = unquote(found)


# -- settings


def test_a_flag_beats_our_variable_beats_mlflows_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.setting("installer") == ("uv", "default")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert config.setting("experiment_name") == ("theirs", "MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLCLI_EXPERIMENT_NAME", "ours")
    assert config.setting("experiment_name") == ("ours", "MLCLI_EXPERIMENT_NAME")
    assert config.setting("experiment_name", "flag") == ("flag", "the command line")


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLI_EXPERIMENT_NAME", "")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert config.setting("experiment_name").value == "theirs"


def test_the_projects_table_is_read_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.mlcli]\nenv_manager = "local"\n')
    below = tmp_path / "src"
    below.mkdir()
    monkeypatch.chdir(below)
    assert config.setting("env_manager") == ("local", str(tmp_path / "pyproject.toml"))


def test_a_broken_pyproject_does_not_stop_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mlcli]\nenv_manager = \n")
    monkeypatch.chdir(tmp_path)
    assert config.setting("env_manager").source == "default"


# -- locks

HOLD = (
    "import sys, time\n"
    "from mlcli import locks\n"
    "with locks.locked(sys.argv[1]):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_lock_is_freed_by_the_death_of_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    waits: list[int] = []
    with pytest.raises(TimeoutError), locks.locked(path, timeout=0.05, on_wait=lambda: waits.append(1)):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locks.locked(path, timeout=5):
        assert waits == [1]


def test_a_child_that_holds_a_copy_keeps_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    with locks.locked(path) as fd:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[fd])
    with pytest.raises(TimeoutError), locks.locked(path, timeout=0.05):
        pass
    child.kill()
    child.wait()
    with locks.locked(path, timeout=5):
        pass


def test_waiters_get_the_lock_one_by_one(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from mlcli import locks\n"
        "with locks.locked(sys.argv[1]):\n"
        "    with open(sys.argv[2], 'r+') as file:\n"
        "        number = int(file.read()); time.sleep(0.01); file.seek(0); file.write(str(number + 1))\n"
    )
    counter = tmp_path / "count"
    counter.write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "x.lock", counter]) for _ in range(8)]
    assert [worker.wait() for worker in workers] == [0] * 8
    assert counter.read_text() == "8"


# -- errors


def test_the_tree_at_the_head_of_the_file_is_the_tree() -> None:
    """Name, error code, status and exit code of each class stand in the drawing as they are in the code."""
    for kind in [errors.MlcliError, *_below(errors.MlcliError)]:
        (line,) = [
            line for line in (errors.__doc__ or "").splitlines() if f" {kind.__name__} " in f" {line.strip(' │├└─')} "
        ]
        if kind.__doc__ is None or kind not in (errors.FilterSyntaxError, errors.ProjectError):
            assert kind.error_code in line
            assert str(kind.http_status) in line
            assert f"exit {kind.exit_code}" in line or kind is errors.RunFailed


def test_a_filter_error_points_at_the_place() -> None:
    error = errors.FilterSyntaxError("a number is expected", text="metrics.acc > x", position=14)
    assert str(error).splitlines()[1:] == ["  metrics.acc > x", "                ^"]


def test_a_project_error_begins_with_file_and_line() -> None:
    assert str(errors.ProjectError("no", file="MLproject", line=3, column=5)) == "MLproject:3:5: no"


def _below(kind: type) -> list[type]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [found for child in children for found in [child, *_below(child)]]
