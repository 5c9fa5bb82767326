"""`mlcli artifacts` and `mlcli models`: what is fetched is whole, checked, and never in the way of something else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlcli.entities import LoggedModelOutput
from mlcli.models import mlmodel
from mlcli.store import open_store


@pytest.fixture
def run() -> str:
    """A run with a model, a plot and a file at the top."""
    with open_store() as store:
        key = store.create_run("0").info.run_id
        root = Path(store.artifact_root(key))
    (root / "model").mkdir(parents=True)
    (root / "plots").mkdir()
    (root / "model" / "model.bin").write_bytes(b"weights" * 100)
    (root / "plots" / "loss.svg").write_text("<svg/>")
    (root / "notes.txt").write_text("hello")
    digests = mlmodel.digests(str(root / "model"))
    content = {"flavors": {"custom": {}}, mlmodel.OWN_KEY: {"version": "0", "digests": digests}}
    (root / "model" / "MLmodel").write_text(mlmodel.dump_yaml(content))
    return key


def root_of(run: str) -> Path:
    with open_store() as store:
        return Path(store.artifact_root(run))


def test_list_in_a_pipe_has_paths_and_sizes(mlcli, run):
    lines = mlcli("artifacts", "list", "latest").stdout.splitlines()
    assert lines[0] == "path\tfile_size"
    assert [line.split("\t")[0] for line in lines[1:]] == [
        "model/MLmodel",
        "model/model.bin",
        "notes.txt",
        "plots/loss.svg",
    ]
    assert "model/model.bin\t700" in lines


def test_list_below_a_path_as_json(mlcli, run):
    found = json.loads(mlcli("artifacts", "list", "--run-id", run, "-a", "plots", "--json").stdout)
    assert found == [{"path": "plots/loss.svg", "is_dir": False, "file_size": 6}]


def test_a_run_without_artifacts_says_how_to_log_one(mlcli):
    with open_store() as store:
        store.create_run("0")
    assert "log-artifact" in mlcli("artifacts", "list", "latest").stderr


@pytest.mark.parametrize(
    "words", [["latest", "-a", "model"], ["-r", "latest", "-a", "model"], ["-u", "runs:/latest/model"]]
)
def test_download_prints_where_it_is(mlcli, run, words):
    path = mlcli("artifacts", "download", *words, "-d", "out").stdout.strip()
    assert path == os.path.abspath("out/model")
    assert Path("out/model/model.bin").read_bytes() == b"weights" * 100
    assert os.listdir("out") == ["model"]


def test_download_of_a_file_goes_into_the_current_folder(mlcli, run):
    mlcli("artifacts", "download", "latest", "-a", "plots/loss.svg")
    assert Path("loss.svg").read_text() == "<svg/>"


def test_download_of_everything(mlcli, run):
    mlcli("artifacts", "download", "latest", "-d", "all")
    assert sorted(os.listdir("all")) == ["model", "notes.txt", "plots"]


def test_what_is_there_already_and_the_same_stays(mlcli, run):
    mlcli("artifacts", "download", "latest", "-a", "model", "-d", "out")
    before = os.stat("out/model").st_ino
    assert "the same" in mlcli("artifacts", "download", "latest", "-a", "model", "-d", "out").stderr
    assert os.stat("out/model").st_ino == before


@pytest.mark.parametrize("change", ["changed", "added", "missing"])
def test_what_is_there_and_differs_is_replaced_only_by_force(mlcli, run, change):
    mlcli("artifacts", "download", "latest", "-a", "model", "-d", "out")
    if change == "changed":
        Path("out/model/model.bin").write_bytes(b"WEIGHTS" * 100)
    elif change == "added":
        Path("out/model/other").write_text("x")
    else:
        Path("out/model/model.bin").unlink()
    before = sorted(os.listdir("out/model"))
    assert "--force" in mlcli("artifacts", "download", "latest", "-a", "model", "-d", "out", check=1).stderr
    assert sorted(os.listdir("out/model")) == before
    mlcli("artifacts", "download", "latest", "-a", "model", "-d", "out", "--force")
    assert sorted(os.listdir("out/model")) == ["MLmodel", "model.bin"]
    assert Path("out/model/model.bin").read_bytes() == b"weights" * 100
    assert os.listdir("out") == ["model"]


def test_an_artifact_that_is_not_there_is_not_found_and_the_like_is_named(mlcli, run):
    told = mlcli("artifacts", "download", "latest", "-a", "modle", check=3).stderr
    assert "did you mean `model`" in told
    assert not Path("modle").exists()


@pytest.mark.parametrize("path", ["../..", "/etc/passwd", "model/../../x"])
def test_no_path_leaves_the_artifacts(mlcli, run, path):
    mlcli("artifacts", "download", "latest", "-a", path, check=2)


def test_a_run_and_a_uri_together_are_refused(mlcli, run):
    mlcli("artifacts", "download", "latest", "-u", "runs:/latest/model", check=2)


def test_a_file_in_the_place_of_the_folder_is_told(mlcli, run):
    Path("out").write_text("")
    assert "is not a folder" in mlcli("artifacts", "download", "latest", "-a", "model", "-d", "out", check=2).stderr


def test_log_artifact_and_log_artifacts(mlcli, run):
    Path("data").mkdir()
    Path("data/a.txt").write_text("a")
    mlcli("artifacts", "log-artifact", "-l", "data/a.txt", "-r", run, "-a", "texts")
    mlcli("artifacts", "log-artifacts", "-l", "data", "latest", "-a", "all")
    assert (root_of(run) / "texts" / "a.txt").read_text() == "a"
    assert (root_of(run) / "all" / "a.txt").read_text() == "a"


def test_what_cannot_be_logged_is_told(mlcli, run):
    Path("data").mkdir()
    assert "log-artifacts" in mlcli("artifacts", "log-artifact", "-l", "data", "latest", check=2).stderr
    assert "there is no file" in mlcli("artifacts", "log-artifact", "-l", "gone", "latest", check=3).stderr
    mlcli("runs", "delete", run)
    Path("x").write_text("")
    assert "is deleted" in mlcli("artifacts", "log-artifact", "-l", "x", run, check=1).stderr


# --- models


@pytest.mark.parametrize("uri", ["runs:/latest/model", "runs:/latest", "runs:/latest/"])
def test_a_model_is_downloaded_whole(mlcli, run, uri):
    path = mlcli("models", "download", uri, "-d", "out").stdout.strip()
    assert path == os.path.abspath("out/model")
    assert mlmodel.tree_digest(path) == mlmodel.tree_digest(str(root_of(run) / "model"))


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("models:/iris/1", "iris"),
        ("models:/iris@best", "iris"),
        ("models:/iris/latest", "iris"),
        ("runs:/{}/net", "net"),
    ],
)
def test_a_model_of_the_registry_is_downloaded_under_its_name(mlcli, run, uri, name):
    with open_store() as store:
        store.create_registered_model("iris")
        store.create_model_version("iris", f"runs:/{run}/model")
        store.set_registered_model_alias("iris", "best", "1")
        logged = store.create_logged_model("0", "net", run)
        store.log_outputs(run, [LoggedModelOutput(logged.model_id)])
    model = root_of(run) / "model"
    shutil.copytree(model, logged.artifact_location)
    path = mlcli("models", "download", uri.format(run), "-d", "out").stdout.strip()
    assert path == os.path.abspath(f"out/{name}")
    assert mlmodel.tree_digest(path) == mlmodel.tree_digest(str(model))


def test_a_model_that_was_changed_since_it_was_logged_is_refused(mlcli, run):
    (root_of(run) / "model" / "model.bin").write_bytes(b"malice!" * 100)
    told = mlcli("models", "download", "runs:/latest/model", "-d", "out", check=1).stderr
    assert "model.bin" in told
    assert os.listdir("out") == []


def test_a_model_that_lacks_a_file_is_refused(mlcli, run):
    (root_of(run) / "model" / "model.bin").unlink()
    assert "lacks model.bin" in mlcli("models", "download", "runs:/latest/model", "-d", "out", check=1).stderr


def test_what_is_no_model_is_told(mlcli, run):
    assert "artifacts download" in mlcli("models", "download", "runs:/latest/plots", check=1).stderr


def test_a_run_with_several_models_wants_to_know_which(mlcli, run):
    other = root_of(run) / "second"
    other.mkdir()
    (other / "MLmodel").write_text("flavors: {}\n")
    assert f"runs:/{run[:8]}/second" in mlcli("models", "download", "runs:/latest", check=2).stderr


@pytest.mark.parametrize(
    ("uri", "code"),
    [("models:/m", 2), ("models:/m/1", 3), ("runs:/nope/model", 3), ("runs:/latest/gone", 3), ("http://x/y", 2)],
)
def test_uris_that_lead_nowhere(mlcli, run, uri, code):
    done = mlcli("models", "download", uri, check=code)
    assert done.stdout == ""


def test_an_interrupted_download_leaves_nothing_under_the_models_name(run):
    """Killed while it copies: the target does not exist, or is whole."""
    with open(root_of(run) / "model" / "big.bin", "wb") as file:
        file.truncate(400_000_000)
    command = [sys.executable, "-m", "mlcli", "artifacts", "download", "latest", "-a", "model", "-d", "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not list(Path().glob("out/.tmp-*")) and process.poll() is None:
            pass
        process.kill()
    if Path("out/model").exists():
        assert Path("out/model/big.bin").stat().st_size == 400_000_000


def test_a_run_uri_may_stand_where_the_run_stands(mlcli, tmp_path):
    with open_store() as store:
        run = store.create_run("0")
    root = Path(run.info.artifact_uri)
    root.mkdir(parents=True)
    (root / "notes.txt").write_text("hello")
    mlcli("artifacts", "download", f"runs:/{run.info.run_id}/notes.txt", "-d", tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "hello"
