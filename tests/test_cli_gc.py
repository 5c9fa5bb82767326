"""`mlcli gc` removes for good only what was deleted, and only when it is old enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import Served

from mlcli.artifacts import TEMPORARY
from mlcli.cli.gc import milliseconds
from mlcli.errors import InvalidInput, MlcliError
from mlcli.store import http, leftovers, open_store, store_root


@pytest.fixture
def deleted() -> tuple[str, str, Path]:
    """A deleted run with an artifact, and one that stays."""
    with open_store() as store:
        gone, kept = store.create_run("0"), store.create_run("0")
        folder = Path(gone.info.artifact_uri)
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"x")
        store.delete_run(gone.info.run_id)
    return gone.info.run_id, kept.info.run_id, folder.parent


def test_a_deleted_run_goes_with_its_files_and_the_others_stay(mlcli, deleted) -> None:
    gone, kept, folder = deleted
    removed = json.loads(mlcli("gc", "--json").stdout)
    assert [item["id"] for item in removed] == [gone]
    assert not folder.exists()
    mlcli("runs", "show", gone, check=3)
    mlcli("runs", "show", kept)


def test_a_dry_run_removes_nothing(mlcli, deleted) -> None:
    gone, _, folder = deleted
    assert gone in mlcli("gc", "--dry-run").stdout
    assert (folder / "artifacts" / "model.bin").exists()
    mlcli("runs", "restore", gone)


def test_what_was_deleted_a_moment_ago_is_not_old(mlcli, deleted) -> None:
    done = mlcli("gc", "--older-than", "1h")
    assert deleted[0] not in done.stdout
    assert "nothing deleted is old enough" in done.stderr


def test_a_run_that_is_not_deleted_is_refused(mlcli, deleted) -> None:
    assert "is not deleted" in mlcli("gc", "--run-ids", deleted[1], check=1).stderr


def test_a_deleted_experiment_goes_with_its_runs(mlcli) -> None:
    with open_store() as store:
        experiment_id = store.create_experiment("old")
        store.create_run(experiment_id)
        store.delete_experiment(experiment_id)
    removed = json.loads(mlcli("gc", "--json").stdout)
    assert sorted(item["kind"] for item in removed) == ["experiment", "run"]
    assert "old" not in mlcli("experiments", "search", "--view", "all").stdout


def test_only_the_named_experiments_go(mlcli, deleted) -> None:
    with open_store() as store:
        ids = [store.create_experiment(name) for name in ("one", "two", "stays")]
        for experiment_id in ids[:2]:
            store.create_run(experiment_id)
            store.delete_experiment(experiment_id)
    removed = json.loads(mlcli("gc", "--experiment-ids", ids[0], "--json").stdout)
    assert sorted((item["kind"], item["name"]) for item in removed if item["kind"] == "experiment") == [
        ("experiment", "one")
    ]
    assert len(removed) == 2
    mlcli("runs", "restore", deleted[0])
    assert "'stays'" in mlcli("gc", "--experiment-ids", ids[2], check=1).stderr
    assert "one of them" in mlcli("gc", "--experiment-ids", ids[1], "--run-ids", deleted[0], check=2).stderr
    mlcli("experiments", "restore", ids[1])


def test_what_mlflow_keeps_in_the_same_folder_stays(mlcli) -> None:
    with open_store() as store:
        experiment_id = store.create_experiment("old")
        gone = Path(store.create_run(experiment_id).info.artifact_uri)
        gone.mkdir(parents=True)
        store.delete_experiment(experiment_id)
    theirs = Path("mlruns", experiment_id, "e" * 32, "artifacts", "model.bin")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"x")
    mlcli("gc")
    assert theirs.exists()
    assert not gone.parent.exists()


@pytest.fixture
def unfinished(deleted) -> dict[str, Path]:
    """Files that writers left which were killed: long ago, just now, and one that is not ours."""
    _, kept, _ = deleted
    with open_store() as store:
        folder = Path(store.get_run(kept).info.artifact_uri)
    files = {
        "old": folder / "sub" / ".tmp-0123",
        "inside": folder / "sub" / ".tmp-folder" / "x",
        "new": folder / ".tmp-4567",
        "whole": folder / "model.bin",
        "unknown": folder.parent.parent / ("f" * 32) / "artifacts" / ".tmp-89ab",
    }
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for path in (files["old"], files["inside"].parent, files["whole"], files["unknown"]):
        os.utime(path, (1000, 1000))
    return files


def test_unfinished_files_of_yesterday_go_and_nothing_else(mlcli, unfinished) -> None:
    expected = sorted([str(unfinished["inside"].parent), str(unfinished["old"])])
    ill = json.loads(mlcli("doctor", "--json", check=1).stdout)
    assert ill["store"]["leftovers"] == 2
    assert "2 leftovers of interrupted work" in ill["problems"][0]["what"]
    assert "mlcli gc" in ill["problems"][0]["hint"]
    for options in (["--dry-run"], []):
        shown = json.loads(mlcli("gc", "--json", *options).stdout)
        assert sorted(item["id"] for item in shown if item["kind"] == "leftover") == expected
    assert {name for name, path in unfinished.items() if path.exists()} == {"new", "whole", "unknown"}
    assert json.loads(mlcli("doctor", "--json").stdout)["store"]["leftovers"] == 0


KILLED_GC = """
import os
from mlcli.store import open_store, tracking
def die(path):
    os.kill(os.getpid(), 9)
tracking.remove_folder = die
with open_store() as store:
    store.collect(*store.collectable())
"""


def test_the_files_of_runs_go_even_if_gc_was_killed_after_their_records(mlcli, deleted) -> None:
    gone, kept, folder = deleted
    assert subprocess.run([sys.executable, "-c", KILLED_GC], check=False).returncode == -9
    mlcli("runs", "show", gone, check=3)
    assert folder.exists()
    assert json.loads(mlcli("doctor", "--json", check=1).stdout)["store"]["leftovers"] == 1
    (removed,) = json.loads(mlcli("gc", "--json").stdout)
    assert removed == {"kind": "leftover", "id": str(folder), "name": "files of what was removed"}
    assert not folder.exists()
    mlcli("runs", "show", kept)
    assert json.loads(mlcli("gc", "--json").stdout) == []
    assert not list(Path("mlruns").glob(".removing-*"))


def test_a_gc_that_was_killed_before_the_records_went_changes_nothing(mlcli, deleted) -> None:
    gone, _, folder = deleted
    with open_store() as store:
        leftovers.plan(store, [str(folder)])
        store.restore_run(gone)
    assert json.loads(mlcli("gc", "--json").stdout) == []
    assert (folder / "artifacts" / "model.bin").exists()
    assert not list(Path("mlruns").glob(".removing-*"))


@pytest.mark.parametrize(
    ("text", "expected"), [("30d", 2_592_000_000), ("1d12h", 129_600_000), ("1.5h", 5_400_000), ("90s", 90_000)]
)
def test_spans_of_time(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "1x", "-1d", "1d x"])
def test_what_is_no_span_of_time(text: str) -> None:
    with pytest.raises(InvalidInput):
        milliseconds(text)


def test_what_is_deleted_on_a_server_is_removed_there(
    mlcli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(str(root)) as store:
        experiment = store.create_experiment("old")
        gone, kept, inside = store.create_run("0"), store.create_run("0"), store.create_run(experiment)
        for run in (gone, kept):
            Path(run.info.artifact_uri).mkdir(parents=True)
            (Path(run.info.artifact_uri) / "model.bin").write_bytes(b"x")
        store.delete_run(gone.info.run_id)
        store.delete_experiment(experiment)
        unfinished = Path(kept.info.artifact_uri) / f"{TEMPORARY}half"
        unfinished.write_bytes(b"x")
        os.utime(unfinished, (1, 1))
    with Served(root) as served:
        monkeypatch.setenv("MLCLI_TRACKING_URI", served.url)
        dry = json.loads(mlcli("gc", "--dry-run", "--json").stdout)
        assert Path(gone.info.artifact_uri).exists()
        assert json.loads(mlcli("gc", "--json").stdout) == dry
        assert json.loads(mlcli("gc", "--json").stdout) == []
    assert [(item["kind"], item["id"]) for item in dry] == [
        ("run", gone.info.run_id),
        ("run", inside.info.run_id),
        ("experiment", experiment),
        ("leftover", str(unfinished)),
    ]
    assert not Path(gone.info.artifact_uri).parent.exists()
    assert not unfinished.exists()
    assert (Path(kept.info.artifact_uri) / "model.bin").exists()
    with open_store(str(root)) as store:
        assert [run.info.run_id for run in store.search_runs(view_type="ALL")] == [kept.info.run_id]


def test_a_server_removes_nothing_that_is_not_deleted(
    mlcli, deleted: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(Path(store_root())) as served:
        monkeypatch.setenv("MLCLI_TRACKING_URI", served.url)
        assert "is not deleted" in mlcli("gc", "--run-ids", deleted[1], check=1).stderr
        with pytest.raises(MlcliError, match="is not deleted"):
            http.server(served.url).json("POST", "/api/2.0/mlcli/collect", {"run_ids": [deleted[1]]})
        mlcli("runs", "show", deleted[1])


def test_a_server_lets_nobody_remove_without_a_token_and_says_so(
    mlcli, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(root, token="known-to-few-people") as served:
        monkeypatch.setenv("MLCLI_TRACKING_URI", served.url)
        assert "needs a token" in mlcli("gc", check=6).stderr
        monkeypatch.setenv("MLCLI_TRACKING_TOKEN", "known-to-few-people")
        mlcli("gc")
