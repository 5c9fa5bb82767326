"""The tracking store's contract, over every store there is."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcli import journal
from mlcli.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound, StoreUnavailable
from mlcli.store import Store, open_store


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, root: Path) -> Iterator[Store]:
    with open_store(str(root)) as opened:
        yield opened


@pytest.fixture
def run_id(store: Store) -> str:
    return store.create_run("0", run_name="calm-owl-1", user_id="ann", start_time=1000).info.run_id


# -- experiments


def test_a_new_store_has_the_default_experiment(store: Store) -> None:
    (experiment,) = store.search_experiments()
    assert (experiment.experiment_id, experiment.name, experiment.lifecycle_stage) == ("0", "Default", "active")
    assert abs(experiment.creation_time - journal.now()) < 3_600_000


def test_an_experiment_is_found_by_id_and_name(store: Store) -> None:
    experiment_id = store.create_experiment("first", tags={"team": "blue"})
    found = store.get_experiment(experiment_id)
    assert found == store.find_experiment("first") == store.ensure_experiment("first")
    assert (found.name, found.tags, found.artifact_location) == (
        "first",
        {"team": "blue"},
        os.path.join(store.root, experiment_id),
    )


def test_ensure_creates_what_is_missing(store: Store) -> None:
    assert store.ensure_experiment("new").name == "new"


def test_a_name_is_taken_until_its_experiment_is_deleted(store: Store) -> None:
    first = store.create_experiment("same")
    with pytest.raises(AlreadyExists, match="'same'"):
        store.create_experiment("same")
    store.delete_experiment(first)
    assert store.find_experiment("same") is None
    second = store.create_experiment("same")
    assert second != first
    with pytest.raises(AlreadyExists):
        store.restore_experiment(first)
    store.rename_experiment(second, "other")
    store.restore_experiment(first)
    assert store.find_experiment("same") == store.get_experiment(first)


@pytest.mark.parametrize("name", ["", "   ", "x" * 501, "a\nb", "a\0b", "\u202egnp", 7, None])
def test_an_impossible_experiment_name_is_refused(store: Store, name: object) -> None:
    with pytest.raises(InvalidInput):
        store.create_experiment(name)
    assert len(store.search_experiments()) == 1


@pytest.mark.parametrize("name", ["한국어 실험", "../x", "a'b\"c;--", "100%_", "x" * 500])
def test_any_visible_text_names_an_experiment(store: Store, name: str) -> None:
    assert store.get_experiment(store.create_experiment(name)).name == name


@pytest.mark.parametrize("location", ["http://h/a", "s3://b/x", "/a/../b", "/a?x", "/a#b", "/a;b", "x" * 3000])
def test_an_artifact_location_is_a_plain_folder(store: Store, location: str) -> None:
    with pytest.raises(InvalidInput):
        store.create_experiment("e", artifact_location=location)


def test_artifacts_lie_where_the_experiment_says(store: Store, tmp_path: Path) -> None:
    experiment_id = store.create_experiment("e", artifact_location=f"file://{tmp_path}/elsewhere")
    run = store.create_run(experiment_id)
    assert run.info.artifact_uri == f"{tmp_path}/elsewhere/{run.info.run_id}/artifacts"


@pytest.mark.parametrize("experiment_id", ["7", "x", "", "-1", "1" * 30, None, "0 OR 1"])
def test_an_unknown_experiment_is_not_found(store: Store, experiment_id: object) -> None:
    with pytest.raises(NotFound, match="there is no experiment"):
        store.get_experiment(experiment_id)


def test_deleting_an_experiment_takes_its_runs_along_and_restoring_brings_them_back(store: Store) -> None:
    experiment_id = store.create_experiment("e")
    run_id = store.create_run(experiment_id).info.run_id
    store.delete_experiment(experiment_id)
    assert store.get_run(run_id).info.lifecycle_stage == "deleted"
    assert [item.name for item in store.search_experiments(view_type=ViewType.DELETED_ONLY)] == ["e"]
    with pytest.raises(InvalidState, match="is deleted"):
        store.create_run(experiment_id)
    store.restore_experiment(experiment_id)
    assert store.get_run(run_id).info.lifecycle_stage == "active"
    with pytest.raises(InvalidState, match="not deleted"):
        store.restore_experiment(experiment_id)


def test_experiment_tags_are_set_and_deleted(store: Store) -> None:
    store.set_experiment_tag("0", "team", "blue")
    store.set_experiment_tag("0", "team", "red")
    assert store.get_experiment("0").tags == {"team": "red"}
    store.delete_experiment_tag("0", "team")
    assert store.get_experiment("0").tags == {}
    with pytest.raises(NotFound):
        store.delete_experiment_tag("0", "team")


# -- runs


def test_a_run_is_created_running_with_what_was_given(store: Store) -> None:
    run = store.create_run("0", start_time=5, tags={"a": "b"}, run_name="calm-owl-1", user_id="ann")
    info = run.info
    assert (info.status, info.start_time, info.end_time, info.run_name, info.user_id) == (
        "RUNNING",
        5,
        None,
        "calm-owl-1",
        "ann",
    )
    assert run.data.tags == {"a": "b", "mlflow.runName": "calm-owl-1"}
    assert info.artifact_uri == f"{store.root}/0/{info.run_id}/artifacts"
    assert len(info.run_id) == 32


def test_name_and_name_tag_are_one(store: Store, run_id: str) -> None:
    store.set_tag(run_id, "mlflow.runName", "other")
    assert store.get_run(run_id).info.run_name == "other"
    run = store.update_run(run_id, run_name="third")
    assert (run.info.run_name, run.data.tags["mlflow.runName"]) == ("third", "third")
    assert store.create_run("0", tags={"mlflow.runName": "x"}).info.run_name == "x"
    with pytest.raises(InvalidInput, match="one name"):
        store.create_run("0", run_name="a", tags={"mlflow.runName": "b"})


def test_an_end_status_carries_its_time_and_running_again_takes_it_away(store: Store, run_id: str) -> None:
    info = store.update_run(run_id, status="FAILED", end_time=2000).info
    assert (info.status, info.end_time) == ("FAILED", 2000)
    info = store.update_run(run_id, status="RUNNING").info
    assert (info.status, info.end_time) == ("RUNNING", None)
    with pytest.raises(InvalidInput, match="not a run status"):
        store.update_run(run_id, status="DONE")


def test_a_batch_is_all_or_nothing(store: Store, run_id: str) -> None:
    store.log_batch(run_id, [Metric("m", 1.0, 10, 1)], [Param("p", "1")], [RunTag("t", "x")])
    with pytest.raises(InvalidInput, match="cannot become '2'"):
        store.log_batch(run_id, [Metric("n", 1.0, 10, 1)], [Param("q", "1"), Param("p", "2")], [RunTag("t", "y")])
    data = store.get_run(run_id).data
    assert (data.metrics, data.params, data.tags["t"]) == ({"m": 1.0}, {"p": "1"}, "x")


def test_history_is_ordered_by_time_then_step_then_value(store: Store, run_id: str) -> None:
    points = [(3.0, 30, 1), (1.0, 10, 5), (2.0, 10, 4), (0.5, 30, 1), (math.nan, 30, 1)]
    store.log_batch(run_id, [Metric("m", value, time, step) for value, time, step in points])
    found = [(metric.value, metric.timestamp, metric.step) for metric in store.get_metric_history(run_id, "m")]
    assert found[:2] == [(2.0, 10, 4), (1.0, 10, 5)]
    assert math.isnan(found[2][0])
    assert found[3:] == [(0.5, 30, 1), (3.0, 30, 1)]


def test_the_same_point_twice_is_one_point(store: Store, run_id: str) -> None:
    for _ in range(2):
        store.log_batch(run_id, [Metric("m", 1.0, 10, 1)])
    assert len(store.get_metric_history(run_id, "m")) == 1


def test_the_latest_value_is_the_greatest_by_step_time_value(store: Store, run_id: str) -> None:
    store.log_batch(run_id, [Metric("m", 9.0, 50, 1), Metric("m", 1.0, 10, 2), Metric("m", 2.0, 10, 2)])
    assert store.get_run(run_id).data.metrics == {"m": 2.0}


def test_a_metric_that_was_never_logged_has_no_history(store: Store, run_id: str) -> None:
    assert store.get_metric_history(run_id, "nothing") == []
    with pytest.raises(NotFound):
        store.get_metric_history("nobody", "m")


def test_tags_change_and_go(store: Store, run_id: str) -> None:
    store.set_tag(run_id, "t", "1")
    store.set_tag(run_id, "t", 2)
    assert store.get_run(run_id).data.tags["t"] == "2"
    store.delete_tag(run_id, "t")
    with pytest.raises(NotFound, match="no tag 't'"):
        store.delete_tag(run_id, "t")


def test_a_deleted_run_is_hidden_takes_no_more_and_comes_back(store: Store, run_id: str) -> None:
    store.delete_run(run_id)
    assert store.search_runs() == []
    assert [run.info.run_id for run in store.search_runs(view_type=ViewType.DELETED_ONLY)] == [run_id]
    with pytest.raises(InvalidState, match="is deleted"):
        store.log_batch(run_id, [Metric("m", 1.0, 1, 0)])
    store.delete_run(run_id)
    store.restore_run(run_id)
    assert len(store.search_runs()) == 1
    with pytest.raises(NotFound):
        store.delete_run("nobody")


def test_datasets_are_kept_once_and_shown_with_each_run(store: Store, run_id: str) -> None:
    dataset = Dataset("wine", "abc12345", "local", "wine.csv", schema="{}", profile=None)
    other = store.create_run("0").info.run_id
    for run in (run_id, other):
        store.log_inputs(run, [DatasetInput(dataset, {"mlflow.data.context": "train"})])
        assert store.get_run(run).inputs.dataset_inputs == (DatasetInput(dataset, {"mlflow.data.context": "train"}),)
    assert store.database.query("SELECT COUNT(*) FROM datasets") == [(1,)]


# -- finding runs


def test_a_run_is_found_by_any_unique_beginning_by_name_and_by_age(store: Store) -> None:
    ids = [store.create_run("0", start_time=time, run_name=f"name-{time}").info.run_id for time in (1, 2, 3)]
    assert store.find_run(ids[0]) == ids[0]
    unique = next(
        ids[1][:length] for length in range(1, 33) if sum(item.startswith(ids[1][:length]) for item in ids) == 1
    )
    assert store.find_run(unique) == ids[1]
    assert [store.find_run(reference) for reference in ("latest", "latest~1", "latest~2")] == ids[::-1]
    assert store.find_run("name-2") == ids[1]


def test_a_reference_that_means_several_runs_or_none_says_so(store: Store) -> None:
    store.create_run("0", run_name="same")
    store.create_run("0", run_name="same")
    with pytest.raises(InvalidInput, match="could be several runs"):
        store.find_run("same")
    for reference in ("zzz", "", "latest~9", "%"):
        with pytest.raises(NotFound):
            store.find_run(reference)
    with pytest.raises(InvalidInput):
        store.find_run("latest~x")


def test_the_newest_run_comes_first_and_pages_join_without_a_gap(store: Store) -> None:
    ids = [store.create_run("0", start_time=time).info.run_id for time in range(25)]
    pages, token = [], None
    while True:
        page = store.search_runs(max_results=10, page_token=token)
        pages += [run.info.run_id for run in page]
        token = page.token
        if token is None:
            break
    assert pages == ids[::-1]


def test_runs_of_the_named_experiments_only(store: Store) -> None:
    other = store.create_experiment("other")
    mine, theirs = store.create_run("0").info.run_id, store.create_run(other).info.run_id
    assert [run.info.run_id for run in store.search_runs(["0"])] == [mine]
    assert [run.info.run_id for run in store.search_runs([other])] == [theirs]
    assert store.search_runs([]) == []


@pytest.mark.parametrize("size", [0, -1, 50_001])
def test_a_page_has_a_sensible_size(store: Store, size: int) -> None:
    with pytest.raises(InvalidInput, match="max_results"):
        store.search_runs(max_results=size)


# -- the folder


def test_looking_leaves_nothing_behind(root: Path) -> None:
    with open_store(str(root), create=False) as store:
        assert store.search_runs() == []
        assert len(store.search_experiments()) == 1
    assert not root.exists()


def test_a_store_is_invisible_to_git(root: Path) -> None:
    open_store(str(root)).close()
    subprocess.run(["git", "init", "-q", str(root.parent)], check=True)
    assert (
        subprocess.run(["git", "-C", root.parent, "status", "--porcelain"], capture_output=True, check=True).stdout
        == b""
    )


def test_a_store_can_be_moved(root: Path) -> None:
    with open_store(str(root)) as store:
        run_id = store.create_run("0").info.run_id
    moved = root.parent / "moved"
    root.rename(moved)
    with open_store(str(moved)) as store:
        assert store.get_run(run_id).info.artifact_uri == f"{moved}/0/{run_id}/artifacts"


@pytest.mark.parametrize(
    "uri", ["http://u:SECRET@h:5000", "sqlite:///x.db", "postgresql://u:SECRET@h/db", "s3://b/x", "file://host/x"]
)
def test_what_is_not_a_folder_is_refused_without_telling_secrets(uri: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_store(uri)
    assert "SECRET" not in str(caught.value)


def test_the_store_is_found_upwards_as_git_finds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(str(tmp_path / "mlruns")).close()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with open_store() as store:
        assert store.root == str(tmp_path / "mlruns")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/flow")
    with open_store() as store:
        assert store.root == f"{tmp_path}/flow"
    monkeypatch.setenv("MLCLI_TRACKING_URI", f"{tmp_path}/ours")
    with open_store() as store:
        assert store.root == f"{tmp_path}/ours"


# -- faults


def sabotage(root: Path, content: bytes) -> None:
    open_store(str(root)).close()
    (root / "mlcli.db").write_bytes(content)


@pytest.mark.parametrize(
    "content", [b"hello, I am text\n" * 100, os.urandom(8192), b"SQLite format 3\0" + os.urandom(4000)]
)
def test_a_damaged_database_is_named_and_left_alone(root: Path, content: bytes) -> None:
    sabotage(root, content)
    with pytest.raises(StoreUnavailable, match=r"damaged|error|malformed") as caught:
        open_store(str(root))
    assert "mlcli.db" in caught.value.message
    assert (root / "mlcli.db").read_bytes() == content


def test_a_newer_database_says_which_mlcli_opens_it(root: Path) -> None:
    with open_store(str(root)) as store:
        store.database._raw.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreUnavailable, match="schema version 999") as caught:
        open_store(str(root))
    assert "upgrade" in caught.value.hint


def test_a_database_of_another_program_is_not_touched(root: Path) -> None:
    import sqlite3

    root.mkdir()
    other = sqlite3.connect(root / "mlcli.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(StoreUnavailable, match="another program"):
        open_store(str(root))


def test_a_read_only_store_can_be_read_and_says_so_when_written(root: Path) -> None:
    """Access rights do not bind root, so a child process without them does the looking."""
    with open_store(str(root)) as store:
        run_id = store.create_run("0").info.run_id
    script = (
        "import os, sys, encodings.idna\n"
        "from mlcli.store import open_store\n"
        "from mlcli.errors import StoreUnavailable\n"
        "if os.getuid() == 0:\n"
        "    os.setgid(65534); os.setuid(65534)\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    print(store.get_run(sys.argv[2]).info.status)\n"
        "    try:\n"
        "        store.create_run('0')\n"
        "    except StoreUnavailable as error:\n"
        "        print(error.message.split(':')[0])\n"
    )
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in root.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(root), run_id],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert (done.stdout, done.stderr) == ("RUNNING\nthe store is read-only\n", "")


def test_a_database_held_by_another_program_is_waited_for(root: Path) -> None:
    open_store(str(root)).close()
    script = (
        "import sqlite3, sys, time\n"
        "held = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "held.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "time.sleep(1)\n"
        "held.execute('ROLLBACK')\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, root / "mlcli.db"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with open_store(str(root)) as store:
        assert store.create_run("0").info.status == "RUNNING"
    holder.stdout.close()
    assert holder.wait() == 0


FIRST_START = "import sys\nfrom mlcli.store import open_store\nopen_store(sys.argv[1]).create_run('0')\n"


def test_twelve_first_starts_at_once_all_work(root: Path) -> None:
    starts = [
        subprocess.Popen([sys.executable, "-c", FIRST_START, str(root)], stderr=subprocess.PIPE) for _ in range(12)
    ]
    errors = [start.communicate()[1] for start in starts]
    assert [start.returncode for start in starts] == [0] * 12, errors
    with open_store(str(root)) as store:
        assert store.counts()["runs"] == 12


@pytest.mark.slow
def test_a_first_start_killed_anywhere_is_repaired_by_the_next(root: Path) -> None:
    import signal
    import time

    for number in range(25):
        folder = root / str(number)
        first = subprocess.Popen([sys.executable, "-c", FIRST_START, str(folder)])
        time.sleep(0.02 + number * 0.004)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with open_store(str(folder)) as store:
            store.create_run("0")
            assert store.counts()["runs"] in (1, 2)
            assert store.database.one("PRAGMA integrity_check") == ("ok",)


@pytest.mark.slow
def test_fifty_writers_lose_nothing(root: Path) -> None:
    script = (
        "import sys\n"
        "from mlcli.entities import Metric\n"
        "from mlcli.store import open_store\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    for step in range(20):\n"
        "        store.log_batch(sys.argv[2], [Metric(sys.argv[3], float(step), step, step)])\n"
    )
    with open_store(str(root)) as store:
        run_id = store.create_run("0").info.run_id
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(root), run_id, f"m{number}"], stderr=subprocess.PIPE)
        for number in range(50)
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 50, errors
    with open_store(str(root)) as store:
        assert store.counts()["metric_points"] == 1000


def test_the_clock_may_jump_back(store: Store, run_id: str) -> None:
    info = store.update_run(run_id, status="FINISHED", end_time=1).info
    assert info.end_time == 1


@pytest.mark.parametrize("time", [4102444800000, 2**53])
def test_times_far_ahead_are_kept(store: Store, run_id: str, time: int) -> None:
    store.log_batch(run_id, [Metric("m", 1.0, time, 0)])
    assert store.get_metric_history(run_id, "m")[0].timestamp == time


def test_a_search_sees_one_moment(store: Store, root: Path) -> None:
    """Another process deletes a run between two statements of a search; the page is the one of its first statement."""
    first = store.create_run("0", start_time=1).info.run_id
    with open_store(str(root)) as other, store.database.snapshot():
        assert len(store.search_runs()) == 1
        other.delete_run(first)
        assert len(store.search_runs()) == 1
    assert store.search_runs() == []
