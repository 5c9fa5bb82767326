"""What happens to a store: full disks, other programs' locks, damage, older versions, network folders, odd clocks."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from golden import picture

from mlcli import journal
from mlcli.entities import Metric, Param, RunTag
from mlcli.errors import StoreUnavailable
from mlcli.journal import Journal
from mlcli.store import Store, database, open_store
from mlcli.store.database import Sqlite

ASSETS = Path(__file__).parent / "assets"
R = "r" * 32


def python(code: str, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done


# -- held by others

HOLD_DATABASE = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1] + "/mlcli.db", isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
HOLD_LOCK = """
import sys
from mlcli.locks import locked
with locked(sys.argv[1] + "/mlcli.lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(root: Path, code: str) -> Iterator[int]:
    """Another process holds the store; gives its id."""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
    finally:
        holder.communicate()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who holds a lock")
@pytest.mark.parametrize("code", [HOLD_DATABASE, HOLD_LOCK], ids=["database", "lock file"])
def test_who_holds_the_store_for_too_long_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    with open_store(str(root)) as store:
        run_id = store.create_run("0").info.run_id
    monkeypatch.setattr(Sqlite, "patience", 0.2)
    with held(root, code) as holder, open_store(str(root)) as store:
        with pytest.raises(StoreUnavailable, match=rf"busy: process {holder} \(python.* for 0.2 seconds") as caught:
            store.set_tag(run_id, "a", "b")
        assert "wait for it" in caught.value.hint
        assert store.get_run(run_id).info.run_id == run_id
    with open_store(str(root)) as store:
        store.set_tag(run_id, "a", "c")
        assert store.get_run(run_id).data.tags["a"] == "c"


def test_the_command_line_says_that_the_store_is_unavailable_and_loses_nothing(root: Path, mlcli) -> None:
    with open_store(str(root)) as store:
        run_id = store.create_run("0").info.run_id
    start = "from mlcli.store.database import Sqlite\nSqlite.patience = 0.2\nfrom mlcli.cli import main\nmain()"
    with held(root, HOLD_DATABASE) as holder:
        done = subprocess.run(
            [sys.executable, "-c", start, "runs", "set-tag", run_id, "a=b"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "MLCLI_TRACKING_URI": str(root)},
        )
    assert done.returncode == 6, done.stderr
    assert f"process {holder}" in done.stderr
    assert "Traceback" not in done.stderr


# -- full disks

FILL_DATABASE = """
import os, resource, sys
from mlcli.entities import Metric, Param
from mlcli.errors import StoreUnavailable
from mlcli.store import open_store
with open_store(sys.argv[1]) as store:
    run_id = store.create_run("0").info.run_id
    size = max(os.path.getsize(os.path.join(sys.argv[1], name)) for name in ("mlcli.db", "mlcli.db-wal"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
    kept = 0
    try:
        while kept < 100_000:
            store.log_batch(run_id, [Metric("m", float(kept), 1, kept)], [Param(f"p{kept}", "x" * 2000)])
            kept += 1
    except StoreUnavailable as error:
        print(error.message)
        print(error.hint)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.log_batch(run_id, [Metric("after", 1.0, 1, 0)])
    store.update_run(run_id, "FINISHED")
    print(kept)
"""


def test_a_database_that_may_not_grow_says_so_keeps_what_it_acknowledged_and_goes_on_later(root: Path) -> None:
    message, hint, kept = python(FILL_DATABASE, root).stdout.splitlines()
    assert "the disk refused to keep" in message
    assert "space" in hint
    with open_store(str(root)) as store:
        (run,) = store.search_runs()
        assert len(store.get_metric_history(run.info.run_id, "m")) == int(kept) > 0
        assert len(run.data.params) == int(kept)
        assert (run.info.status, run.data.metrics["after"]) == ("FINISHED", 1.0)
        assert store.database.one("PRAGMA integrity_check") == ("ok",)


READ_WITHOUT_SPACE = """
import resource, sys
from mlcli.errors import StoreUnavailable
from mlcli.store import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    open_store(sys.argv[1])
except StoreUnavailable as error:
    print(error.message)
"""


def test_a_reader_without_space_says_so_and_the_next_one_counts_each_line_once(root: Path) -> None:
    open_store(str(root)).close()
    writer = Journal.open(str(root))
    writer.start_run(R, "0", "n", "u", 1)
    for step in range(20_000):
        writer.metric(R, "loss", 0.5, step, 1)
    writer.close()
    assert "the disk refused" in python(READ_WITHOUT_SPACE, root).stdout
    with open_store(str(root)) as store:
        assert len(store.get_metric_history(R, "loss")) == 20_000
        assert store.rejected_lines() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def logged_until_refused(writer: Journal) -> int:
    step = 0
    try:
        while step < 1_000_000:
            writer.metric(R, "loss", 0.5, step, 1)
            step += 1
    except StoreUnavailable as error:
        message = error.message
    assert "no space left" in message
    assert "this call was not recorded" in message
    return step


def test_on_a_full_disk_logging_and_reading_say_so_and_go_on_once_there_is_space(small_disk: Path) -> None:
    root = small_disk / "mlruns"
    with open_store(str(root)) as store:
        writer = Journal.open(str(root))
        writer.start_run(R, "0", "n", "u", 1)
        (small_disk / "ballast").write_bytes(b"x" * 300_000)
        kept = logged_until_refused(writer)
        with pytest.raises(StoreUnavailable, match=r"the disk refused to keep.*full"):
            store.absorb()
        (small_disk / "ballast").unlink()
        writer.metric(R, "after", 1.0, 0, 1)
        writer.status(R, "FINISHED", 2)
        run = store.get_run(R)
        assert (run.info.status, run.data.metrics["after"]) == ("FINISHED", 1.0)
        assert len(store.get_metric_history(R, "loss")) == kept
        # The call that was refused may have left the beginning of its line: told, not guessed at.
        assert [item["reason"] for item in store.rejected_lines()] in ([], ["it is not a JSON object"])
        writer.close()


def test_the_command_line_on_a_full_disk_says_so_in_a_line(small_disk: Path, mlcli) -> None:
    root = small_disk / "mlruns"
    open_store(str(root)).close()
    writer = Journal.open(str(root))
    writer.start_run(R, "0", "n", "u", 1)
    writer.close()
    with open(small_disk / "ballast", "wb", buffering=0) as file:
        while shutil.disk_usage(small_disk).free:
            file.write(b"x" * 4096)
    done = mlcli("runs", "list", check=6, env={**os.environ, "MLCLI_TRACKING_URI": str(root)})
    assert "the disk refused" in done.stderr
    assert "Traceback" not in done.stderr


# -- damage


def filled(root: Path) -> dict[str, object]:
    """A store of some size in one file, and what it says."""
    with open_store(str(root)) as store:
        for number in range(60):
            run = store.create_run("0", start_time=number, run_name=f"run-{number}").info.run_id
            store.log_batch(
                run,
                [Metric("loss", step / 7, step, step) for step in range(40)],
                [Param(f"p{place}", f"{number} {place}") for place in range(10)],
                [RunTag("note", f"tag of {number}")],
            )
        said = picture(store)
    raw = sqlite3.connect(root / "mlcli.db")
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    return said


def look(root: Path) -> dict[str, object] | str:
    """What a store says: all of it, or why it cannot be read. No other exception comes out."""
    try:
        with open_store(str(root)) as store:
            return picture(store)
    except StoreUnavailable as error:
        return error.message


@pytest.mark.parametrize("seed", range(6))
def test_a_random_page_of_noise_is_noticed_or_was_not_needed(root: Path, seed: int) -> None:
    said = filled(root)
    path = root / "mlcli.db"
    whole = path.read_bytes()
    draw = random.Random(seed)
    told = 0
    for _ in range(24):  # pages of tables that are empty are not needed
        page = draw.randrange(len(whole) // 4096)
        noise = draw.randbytes(4096)
        damaged = whole[: page * 4096] + noise + whole[(page + 1) * 4096 :]
        path.write_bytes(damaged)
        found = look(root)
        assert found == said or isinstance(found, str)
        told += isinstance(found, str)
    assert told


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_database_is_noticed_and_never_made_anew(root: Path, seed: int) -> None:
    filled(root)
    path = root / "mlcli.db"
    whole = path.read_bytes()
    draw = random.Random(seed)
    for size in (0, 1, 99, 100, 4096, *(draw.randrange(len(whole)) for _ in range(6))):
        path.write_bytes(whole[:size])
        found = look(root)
        assert isinstance(found, str), f"cut at {size} of {len(whole)}"
        assert path.stat().st_size == size


def test_what_is_damaged_is_told_by_the_doctor_with_what_to_do(root: Path, mlcli) -> None:
    filled(root)
    path = root / "mlcli.db"
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 16 * 4096] = random.Random(1).randbytes(8 * 4096)
    path.write_bytes(content)
    done = mlcli("doctor", "--json", check=1, env={**os.environ, "MLCLI_TRACKING_URI": str(root)})
    problem = json.loads(done.stdout)["problems"][0]
    assert "is damaged" in problem["what"]
    assert "backup" in problem["hint"]


# -- older versions


def golden(root: Path, version: int) -> dict[str, object]:
    """Put a store of an old schema version into ``root``; what it must say."""
    root.mkdir()
    raw = sqlite3.connect(root / "mlcli.db", isolation_level=None)
    raw.executescript((ASSETS / f"store_v{version}.sql").read_text(encoding="utf-8"))
    raw.close()
    return json.loads((ASSETS / f"store_v{version}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", range(1, database.SCHEMA_VERSION + 1))
def test_a_store_of_an_older_version_says_what_it_said(root: Path, version: int) -> None:
    expected = golden(root, version)
    with open_store(str(root)) as store:
        assert picture(store) == expected
        run = store.create_run("0", start_time=1)
        store.log_batch(run.info.run_id, [Metric("m", 1.0, 1, 1)])
        assert store.get_run(run.info.run_id).data.metrics == {"m": 1.0}
        assert store.database.one("PRAGMA integrity_check") == ("ok",)
        assert store.database.query("PRAGMA foreign_key_check") == []


def test_there_is_a_store_of_every_version_to_open() -> None:
    assert {path.stem for path in ASSETS.glob("store_v*.sql")} == {
        f"store_v{version}" for version in range(1, database.SCHEMA_VERSION + 1)
    }


@pytest.fixture
def _next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """An mlcli whose schema is one version further."""
    newest = database.SCHEMA_VERSION + 1
    before = database.statements
    monkeypatch.setattr(database, "SCHEMA_VERSION", newest)
    monkeypatch.setattr(
        database,
        "statements",
        lambda number, *dialect: (
            before(number, *dialect) if number < newest else ["ALTER TABLE runs ADD COLUMN mood TEXT"]
        ),
    )


@pytest.mark.usefixtures("_next_version")
def test_a_copy_is_kept_before_the_schema_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = golden(root, 1)
    with open_store(str(root)) as store:
        assert picture(store) == expected
        assert store.database.query("SELECT DISTINCT mood FROM runs") == [(None,)]
    monkeypatch.undo()
    with pytest.raises(StoreUnavailable, match="schema version"):
        open_store(str(root))
    (root / "mlcli.db.v1").replace(root / "mlcli.db")
    for left in ("mlcli.db-wal", "mlcli.db-shm"):
        (root / left).unlink(missing_ok=True)
    with open_store(str(root)) as store:
        assert picture(store) == expected


@pytest.mark.usefixtures("_next_version")
def test_a_migration_that_fails_leaves_the_store_as_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = golden(root, 1)
    with monkeypatch.context() as broken:
        broken.setattr(database, "statements", lambda *_: ["ALTER TABLE runs ADD COLUMN mood TEXT", "NONSENSE"])
        with pytest.raises(StoreUnavailable, match="NONSENSE"):
            open_store(str(root))
    monkeypatch.undo()
    with open_store(str(root)) as store:
        assert picture(store) == expected


# -- network folders


@pytest.fixture
def _on_nfs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount table that says the store is on NFS; nobody can mount one here."""
    table = tmp_path / "mounts"
    place = str(root.parent.resolve()).replace(" ", "\\040")
    table.write_text(f"/dev/sda / ext4 rw 0 0\nhost:/export {place} nfs4 rw 0 0\n")
    monkeypatch.setattr(database, "MOUNTS", str(table))


def mode(store: Store) -> str:
    return store.database.query("PRAGMA journal_mode")[0][0]


@pytest.mark.usefixtures("_on_nfs")
def test_a_store_on_a_network_folder_does_without_shared_memory(root: Path) -> None:
    with open_store(str(root)) as store:
        assert mode(store) == "delete"
        run = store.create_run("0").info.run_id
        store.log_batch(run, [Metric("m", 1.0, 1, 1)])
        assert store.get_run(run).data.metrics == {"m": 1.0}
        assert not (root / "mlcli.db-shm").exists()


def test_a_store_that_moves_to_a_network_folder_and_back_changes_with_it(
    root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(str(root)) as store:
        store.create_run("0")
        assert mode(store) == "wal"
    request.getfixturevalue("_on_nfs")
    with open_store(str(root)) as store:
        assert (mode(store), len(store.search_runs())) == ("delete", 1)
    monkeypatch.undo()
    with open_store(str(root)) as store:
        assert (mode(store), len(store.search_runs())) == ("wal", 1)


@pytest.mark.parametrize(
    ("table", "network"),
    [
        ("/dev/sda / ext4 rw 0 0", False),
        ("/dev/sda / ext4 rw 0 0\nserver:/home /data nfs rw 0 0", True),
        ("server:/home /dat nfs rw 0 0\n/dev/sda / ext4 rw 0 0", False),
        ("server:/home / nfs rw 0 0\n/dev/sdb /data xfs rw 0 0", False),
        ("overlay / overlay rw 0 0\ntmpfs /data tmpfs rw 0 0", False),
        ("//host/share /data cifs rw 0 0", True),
        ("me@host: /data fuse.sshfs rw 0 0", True),
        ("", False),
    ],
)
def test_the_mount_table_tells_what_is_a_network_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, network: bool
) -> None:
    (tmp_path / "mounts").write_text(table + "\n")
    monkeypatch.setattr(database, "MOUNTS", str(tmp_path / "mounts"))
    assert database.on_network_folder("/data/project/mlruns") is network


# -- clocks


@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "America/New_York", "Pacific/Kiritimati"])
def test_times_are_the_same_moment_in_every_time_zone(root: Path, mlcli, zone: str) -> None:
    with open_store(str(root)) as store:
        store.create_run("0", start_time=1_000_000_000_000)
        store.create_run("0", start_time=4_102_444_800_000)  # the year 2100
    env = {**os.environ, "MLCLI_TRACKING_URI": str(root), "TZ": zone}
    shown = json.loads(mlcli("runs", "list", "--json", env=env).stdout)
    assert [run["info"]["start_time"] for run in shown] == [4_102_444_800_000, 1_000_000_000_000]
    found = mlcli("runs", "search", "start_time < '2001-09-09T01:46:41Z'", "--json", env=env)
    assert [run["info"]["start_time"] for run in json.loads(found.stdout)] == [1_000_000_000_000]


def test_a_run_never_ends_before_it_began_whatever_the_clock_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlcli

    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))
    begin = journal.now()
    with mlcli.start_run() as run:
        monkeypatch.setattr(journal, "now", lambda: begin - 3_600_000)
        mlcli.log_metric("m", 1.0)
    monkeypatch.undo()
    with open_store(str(root)) as store:
        info = store.get_run(run.run_id).info
        assert info.end_time is not None
        assert info.end_time >= info.start_time >= begin


def test_a_writer_that_dies_while_the_clock_jumps_leaves_no_run_that_ends_before_it_began(root: Path) -> None:
    writer = Journal.open(str(root))
    writer.start_run(R, "0", "n", "u", journal.now())
    os.utime(writer.path, (5, 5))
    writer.close()
    with open_store(str(root)) as store:
        info = store.get_run(R).info
        assert (info.status, info.end_time) == ("KILLED", info.start_time)
