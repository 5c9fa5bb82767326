"""The store in a folder: where it is found, what its SQLite database goes through, what is kept in it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mlcli.entities import Dataset, DatasetInput
from mlcli.errors import InvalidInput, StoreUnavailable
from mlcli.store import database, open_store

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
    "uri", ["mysql://u:SECRET@h/db", "sqlite:///x.db?password=SECRET", "s3://k:SECRET@b/x", "file://host/x"]
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
        "import os, sys, encodings.idna, mlcli.store.tracking, mlcli.store.absorb, mlcli.store.query\n"
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


def older_store(root: Path) -> None:
    """A store as the first version of mlcli left it, with a run in it."""
    root.mkdir()
    with closing(sqlite3.connect(root / "mlcli.db", isolation_level=None)) as raw:
        for statement in database.statements(1, {"identity": "INTEGER PRIMARY KEY", "clustered": "WITHOUT ROWID"}):
            raw.execute(statement)
        raw.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        raw.execute("PRAGMA user_version = 1")
        raw.execute("INSERT INTO experiments VALUES (0, 'Default', NULL, 'active', 1, 1)")
        raw.execute(
            "INSERT INTO runs (run_id, experiment, name, status, start_time) VALUES ('abc', 0, 'old', 'FINISHED', 1)"
        )


def test_a_store_of_an_older_version_comes_along_and_a_copy_is_kept(root: Path) -> None:
    older_store(root)
    with open_store(str(root)) as store:
        run = store.get_run("abc")
        assert (run.info.run_name, run.info.artifact_uri) == ("old", str(root / "0" / "abc" / "artifacts"))
        store.create_registered_model("iris")
        assert store.create_model_version("iris", "runs:/abc/model").run_id == "abc"
    with closing(sqlite3.connect(root / "mlcli.db.v1")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT name FROM runs").fetchall() == [("old",)]


def test_a_read_only_store_of_an_older_version_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older_store(root)
    monkeypatch.setattr(os, "access", lambda *_: False)  # rights do not bind root
    with pytest.raises(StoreUnavailable, match="older schema version 1") as caught:
        open_store(str(root))
    assert "where it can be written" in caught.value.hint


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


# -- inside


def test_a_dataset_is_kept_once_however_many_runs_read_it(root: Path) -> None:
    dataset = Dataset("wine", "abc12345", "local", "wine.csv")
    with open_store(str(root)) as store:
        for _ in range(2):
            store.log_inputs(
                store.create_run("0").info.run_id, [DatasetInput(dataset, {"mlflow.data.context": "train"})]
            )
        assert store.database.query("SELECT COUNT(*) FROM datasets") == [(1,)]


def test_a_search_sees_one_moment(root: Path) -> None:
    """Another process deletes a run between two statements of a search; the page is the one of its first statement."""
    with open_store(str(root)) as store, open_store(str(root)) as other:
        first = store.create_run("0", start_time=1).info.run_id
        with store.database.snapshot():
            assert len(store.search_runs()) == 1
            other.delete_run(first)
            assert len(store.search_runs()) == 1
        assert store.search_runs() == []


def test_only_a_statement_that_is_long_itself_is_given_up(root: Path) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT count(*) FROM n"
    with open_store(str(root)) as store:
        assert isinstance(store.database, database.Sqlite)
        store.database.give_up_after(5000)
        for _ in range(1000):  # many steps, all told
            assert store.database.query(numbers, {"last": 10}) == [(10,)]
        with pytest.raises(database.TooLong):
            store.database.query(numbers, {"last": 100_000})
        assert store.database.one(numbers, {"last": 10}) == (10,)


def test_a_list_of_keys_is_looked_up_with_few_statements() -> None:
    texts = set()
    for count in range(1, 501):
        text, values = database.bound(range(count))
        assert set(values.values()) == set(range(count))
        texts.add(text)
    assert len(texts) == 10
