"""`mlcli gc` removes for good only what was deleted, and only when it is old enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcli.cli.gc import milliseconds
from mlcli.errors import InvalidInput
from mlcli.store import open_store


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


@pytest.mark.parametrize(
    ("text", "expected"), [("30d", 2_592_000_000), ("1d12h", 129_600_000), ("1.5h", 5_400_000), ("90s", 90_000)]
)
def test_spans_of_time(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "1x", "-1d", "1d x"])
def test_what_is_no_span_of_time(text: str) -> None:
    with pytest.raises(InvalidInput):
        milliseconds(text)
