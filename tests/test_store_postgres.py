"""A store whose records are in PostgreSQL: first starts, faults of server and network, secrets, what a folder may be for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from postgres import PASSWORD, Server
from serving import API, Client
from stores import in_postgres

from mlcli import config
from mlcli.entities import Metric, Param, RunTag
from mlcli.errors import AlreadyExists, InvalidInput, MlcliError, NotFound, StoreUnavailable
from mlcli.journal import Journal
from mlcli.store import Store, open_store

psycopg = pytest.importorskip("psycopg", reason="the driver is not here: pip install 'mlcli[postgres]'")
from mlcli.store.postgres import Postgres  # noqa: E402 - there is none without the driver

R = "r" * 32


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with in_postgres(root) as opened:
        yield opened


def backend(store: Store) -> int:
    return store.database.query("SELECT pg_backend_pid()")[0][0]


def cut(server: Server, store: Store) -> None:
    """End the connection of ``store`` from the server's side, as a restart or a firewall does."""
    pid = backend(store)
    server.run(f"SELECT pg_terminate_backend({pid})")
    while server.run(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
        time.sleep(0.01)


# -- the schema


FIRST_START = "import sys\nfrom mlcli.store import open_store\nopen_store(sys.argv[1], artifact_root=sys.argv[2]).create_run('0')\n"


def test_twelve_first_starts_at_once_all_work(root: Path) -> None:
    address = in_postgres.address(root)
    starts = [
        subprocess.Popen([sys.executable, "-c", FIRST_START, address, str(root)], stderr=subprocess.PIPE)
        for _ in range(12)
    ]
    errors = [start.communicate()[1] for start in starts]
    assert [start.returncode for start in starts] == [0] * 12, errors
    with in_postgres(root) as store:
        assert store.counts()["runs"] == 12


@pytest.mark.slow
def test_a_first_start_killed_anywhere_is_repaired_by_the_next(root: Path) -> None:
    for number in range(12):
        folder = root / str(number)
        first = subprocess.Popen([sys.executable, "-c", FIRST_START, in_postgres.address(folder), str(folder)])
        time.sleep(0.15 + number * 0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with in_postgres(folder) as store:
            store.create_run("0")
            assert store.counts()["runs"] in (1, 2)


def test_tables_of_another_program_are_not_touched(root: Path, postgres: Server) -> None:
    address = in_postgres.address(root)
    with psycopg.connect(address, autocommit=True) as raw:
        raw.execute("CREATE TABLE runs (mine TEXT)")
    with pytest.raises(StoreUnavailable, match="tables of another program, such as 'runs'"):
        in_postgres(root)
    with psycopg.connect(address) as raw:
        assert raw.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").fetchone() == (1,)


def test_a_newer_database_says_which_mlcli_opens_it(root: Path, store: Store) -> None:
    with store.database.transaction():
        store.database.execute("UPDATE mlcli_meta SET value = '999'")
    with pytest.raises(StoreUnavailable, match="schema version 999") as caught:
        in_postgres(root)
    assert "upgrade" in caught.value.hint


def test_looking_leaves_nothing_behind(root: Path, postgres: Server) -> None:
    address = in_postgres.address(root)
    with open_store(address, create=False) as store:
        assert store.search_runs() == []
    with psycopg.connect(address) as raw:
        assert raw.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").fetchone() == (0,)


def test_a_database_that_cannot_keep_every_text_is_refused(postgres: Server) -> None:
    postgres.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", database="postgres")
    with pytest.raises(StoreUnavailable, match="LATIN1"):
        open_store(postgres.uri(database="latin"))


def test_a_database_of_the_plainest_kind_will_do(root: Path, postgres: Server) -> None:
    """No ICU, no language: letters of every script are still found whatever their case."""
    with open_store(postgres.uri_of(root, database="plain"), artifact_root=str(root)) as store:
        run_id = store.create_run("0", run_name="ÜBER").info.run_id
        assert [run.info.run_id for run in store.search_runs(filter_string="run_name ILIKE 'über'")] == [run_id]


# -- values


def test_the_longest_values_of_any_script_are_kept_and_found(store: Store) -> None:
    """An index of PostgreSQL takes 2,700 bytes; these have more, and cannot be compressed."""
    run_id = store.create_run("0").info.run_id
    wide = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(8000))
    store.log_batch(run_id, params=[Param("k" * 250, wide[:6000])], tags=[RunTag("한" * 250, wide)])
    data = store.get_run(run_id).data
    assert data.params["k" * 250] == wide[:6000]
    assert data.tags["한" * 250] == wide
    store.log_batch(run_id, params=[Param("p", wide[:2500])], tags=[RunTag("t", wide[:2500])])
    for text in (f"params.p = '{wide[:2500]}'", f"tags.t = '{wide[:2500]}'", f"params.p IN ('{wide[:2500]}')"):
        assert len(store.search_runs(filter_string=text, order_by=["params.p", "tags.t"])) == 1


def test_what_no_database_takes_is_the_callers_mistake(store: Store) -> None:
    with pytest.raises(InvalidInput):
        store.find_run("nul \0")
    with pytest.raises(InvalidInput, match="cannot be stored"):
        store.create_run("0", user_id="nul \0")
    assert store.search_runs() == []


def test_thousands_of_points_at_once_are_one_batch_and_none_comes_twice(store: Store) -> None:
    run_id = store.create_run("0").info.run_id
    points = [Metric("m", float(step) if step % 7 else float("inf"), step, step) for step in range(5000)]
    for _ in range(2):
        store.log_batch(run_id, points)
    assert store.get_metric_history(run_id, "m") == points
    store.log_batch(run_id, [Metric("other", 1.0, 1, 1)] * 300)
    assert store.counts()["metric_points"] == 5001


def test_rows_can_be_read_a_few_at_a_time_while_others_are_asked_for(store: Store) -> None:
    run_id = store.create_run("0").info.run_id
    store.log_batch(run_id, [Metric("m", float(step), step, step) for step in range(300)])
    rows = store.database.iterate("SELECT step FROM metrics ORDER BY step")
    assert [next(rows), store.database.one("SELECT 7"), next(rows)] == [(0,), (7,), (1,)]
    assert len(list(rows)) == 298


def test_a_rule_that_another_program_broke_is_told_as_what_it_is(store: Store) -> None:
    run_id = store.create_run("0").info.run_id
    with pytest.raises(AlreadyExists, match="such a record already"), store.database.transaction():
        store.database.insert(
            "INSERT INTO runs (run_id, experiment, name, status, start_time) VALUES (:id, 0, '', 'RUNNING', 0)",
            {"id": run_id},
        )
    with pytest.raises(MlcliError, match="gone"), store.database.transaction():
        store.database.execute("UPDATE runs SET experiment = 999")
    assert store.get_run(run_id).info.experiment_id == "0"


# -- several at once


def test_writers_of_several_machines_lose_nothing(root: Path, store: Store) -> None:
    script = (
        "import sys\n"
        "from mlcli.entities import Metric\n"
        "from mlcli.store import open_store\n"
        "with open_store(sys.argv[1], artifact_root=sys.argv[2]) as store:\n"
        "    for step in range(20):\n"
        "        store.log_batch(sys.argv[3], [Metric('m', float(step), step, step), Metric(sys.argv[4], 0.5, 1, step)])\n"
    )
    run_id = store.create_run("0").info.run_id
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, in_postgres.address(root), str(root / str(number)), run_id, f"m{number}"],
            stderr=subprocess.PIPE,
        )
        for number in range(8)
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 8, errors
    assert store.counts()["metric_points"] == 20 + 8 * 20


def test_journals_of_two_machines_are_each_applied_once(root: Path, tmp_path: Path) -> None:
    """A reader of one machine sees the positions of both, but only its own files."""
    address = in_postgres.address(root)
    folders = [tmp_path / "here", tmp_path / "there"]
    writers = []
    for number, folder in enumerate(folders):
        writer = Journal.open(str(folder), default_run=str(number) * 32)
        writer.start_run(str(number) * 32, "0", "n", "u", 1000)
        writer.metric(str(number) * 32, "loss", 1.0, 1)
        writers.append(writer)
    for _ in range(2):
        for folder in folders:
            with open_store(address, artifact_root=str(folder)) as store:
                assert store.counts()["rejected_lines"] == 0
    for writer, folder in zip(writers, folders, strict=True):
        writer.close()
        with open_store(address, artifact_root=str(folder)) as store:
            assert store.get_run("0" * 32).data.metrics == {"loss": 1.0}
    with open_store(address, artifact_root=str(folders[0])) as store:
        assert [run.info.status for run in store.search_runs()] == ["KILLED", "KILLED"]
        assert store.counts()["rejected_lines"] == 0
        assert store.database.query("SELECT name FROM journals") == []


def test_a_search_sees_one_moment(root: Path, store: Store) -> None:
    with in_postgres(root) as other:
        first = store.create_run("0", start_time=1).info.run_id
        with store.database.snapshot():
            assert len(store.search_runs()) == 1
            other.delete_run(first)
            assert len(store.search_runs()) == 1
        assert store.search_runs() == []


def test_who_holds_the_store_is_named(root: Path, store: Store) -> None:
    other = Postgres(in_postgres.address(root), patience=0.2)
    try:
        with store.database.transaction():
            holder = backend(store)
            with pytest.raises(StoreUnavailable, match=f"busy: mlcli {os.getpid()} at .* \\(backend {holder}\\)"):
                other.transaction().__enter__()
        with other.transaction():
            other.execute("DELETE FROM tags")
    finally:
        other.close()


# -- faults


def test_a_connection_lost_between_calls_is_made_anew(store: Store, postgres: Server) -> None:
    run_id = store.create_run("0").info.run_id
    cut(postgres, store)
    assert store.get_run(run_id).info.status == "RUNNING"
    cut(postgres, store)
    store.set_tag(run_id, "t", "1")
    cut(postgres, store)
    assert [run.data.tags["t"] for run in store.search_runs()] == ["1"]


def two_halves(store: Store, server: Server) -> None:
    store.create_experiment("half")
    cut(server, store)
    store.create_experiment("other half")


def test_a_connection_lost_while_writing_keeps_nothing_and_the_next_call_works(store: Store, postgres: Server) -> None:
    with pytest.raises(StoreUnavailable, match=r"connection to \S+ was lost") as caught, store.database.transaction():
        two_halves(store, postgres)
    assert "nothing of what was being written was kept" in caught.value.hint
    assert [item.name for item in store.search_experiments()] == ["Default"]
    store.create_experiment("half")


class CutAtCommit:
    """A connection whose COMMIT goes unanswered: it is cut before the server has heard it, or just after."""

    def __init__(self, store: Store, server: Server, *, heard: bool) -> None:
        self.raw, self.server, self.heard = store.database._raw, server, heard

    def __getattr__(self, name: str) -> object:
        return getattr(self.raw, name)

    def execute(self, sql: str, *rest: object) -> object:
        if sql != "COMMIT":
            return self.raw.execute(sql, *rest)
        if self.heard:
            self.raw.execute(sql)
        self.server.run(f"SELECT pg_terminate_backend({self.raw.info.backend_pid})")
        return self.raw.execute("SELECT 1")


def test_a_commit_without_an_answer_is_asked_after(store: Store, postgres: Server) -> None:
    database = store.database

    def rename(name: str, *, heard: bool) -> None:
        with database.transaction():
            database.execute("UPDATE experiments SET name = :name", {"name": name})
            database._raw = CutAtCommit(store, postgres, heard=heard)

    rename("heard", heard=True)
    with pytest.raises(StoreUnavailable, match="was not kept"):
        rename("not heard", heard=False)
    assert [item.name for item in store.search_experiments()] == ["heard"]


def test_a_restart_of_the_server_is_survived(store: Store, postgres: Server) -> None:
    run_id = store.create_run("0").info.run_id
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable, match=r"cannot reach|was lost"):
            store.get_run(run_id)
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            store.get_run(run_id)
    finally:
        postgres.start()
    assert store.get_run(run_id).info.status == "RUNNING"


def test_a_statement_that_takes_too_long_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Postgres, "longest", 0.2)
    store.database.close()
    with pytest.raises(StoreUnavailable, match=r"longer than 0\.2 seconds"):
        store.database.query("SELECT pg_sleep(5)")
    assert store.search_runs() == []


def test_a_writer_that_stops_in_the_middle_does_not_keep_others_waiting(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Postgres, "idle", 0.3)
    paused = Postgres(in_postgres.address(root))
    try:
        writing = paused.transaction()
        writing.__enter__()
        paused.execute("UPDATE experiments SET name = 'half done'")
        store.create_experiment("others go on")  # after the server has given up on the first
        with pytest.raises(StoreUnavailable, match="was lost"):
            writing.__exit__(None, None, None)
        assert [item.name for item in store.search_experiments()] == ["others go on", "Default"]
    finally:
        paused.close()


def test_a_server_without_room_for_another_connection_says_so(root: Path, store: Store, postgres: Server) -> None:
    postgres.run("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 1")
    address = postgres.uri().replace(f"mlcli:{quote(PASSWORD, safe='')}", "narrow:narrow")
    with psycopg.connect(address), pytest.raises(StoreUnavailable, match="too many connections"):
        open_store(address, artifact_root=str(root))


def test_a_failed_statement_leaves_no_transaction_behind(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"), store.database.transaction():
        store.database.execute("UPDATE nothing SET x = 1")
    with pytest.raises(StoreUnavailable, match="does not exist"), store.database.snapshot():
        store.database.query("SELECT x FROM nothing")
    store.create_run("0")
    assert len(store.search_runs()) == 1


def test_a_forked_child_has_a_connection_of_its_own(store: Store) -> None:
    mine = backend(store)
    child = os.fork()
    if child == 0:
        os._exit(0 if backend(store) != mine and store.create_run("0").info.status == "RUNNING" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert backend(store) == mine
    assert len(store.search_runs()) == 1


def test_a_role_that_may_only_read_reads_and_says_so_when_written(root: Path, store: Store, postgres: Server) -> None:
    store.create_run("0")
    postgres.run("CREATE ROLE reader LOGIN PASSWORD 'reader'; ALTER ROLE reader SET default_transaction_read_only = on")
    schema = store.database.query("SELECT current_schema()")[0][0]
    postgres.run(f"GRANT USAGE ON SCHEMA {schema} TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
    address = postgres.uri(schema).replace(f"mlcli:{quote(PASSWORD, safe='')}", "reader:reader")
    with open_store(address, artifact_root=str(root)) as reading:
        assert len(reading.search_runs()) == 1
        with pytest.raises(StoreUnavailable, match="read-only"):
            reading.create_run("0")


# -- folders


def test_artifacts_lie_where_the_store_began(root: Path, store: Store, tmp_path: Path) -> None:
    with open_store(in_postgres.address(root)) as again:
        assert again.root == store.root == str(root)
    with open_store(in_postgres.address(root), artifact_root=str(tmp_path / "mount")) as elsewhere:
        assert elsewhere.create_run("0").info.artifact_uri.startswith(f"{tmp_path}/mount/0/")


def test_a_folder_of_journals_is_not_taken_for_a_store(root: Path, store: Store) -> None:
    with pytest.raises(InvalidInput, match=r"the records of .* are in postgresql://\*\*\*@127"):
        open_store(str(root))


def test_a_store_of_its_own_is_not_taken_for_a_folder_of_artifacts(root: Path, tmp_path: Path) -> None:
    open_store(str(tmp_path / "own")).close()
    with pytest.raises(InvalidInput, match="holds a store of its own"):
        open_store(in_postgres.address(root), artifact_root=str(tmp_path / "own"))


def test_a_program_is_not_started_where_it_could_not_log(
    root: Path, store: Store, mlcli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("MLproject").write_text("name: x\nentry_points:\n  main:\n    command: touch started\n")
    monkeypatch.setenv("MLCLI_TRACKING_URI", in_postgres.address(root))
    done = mlcli("run", ".", "--env-manager=local", check=2)
    assert "mlcli server --backend-store-uri" in done.stderr
    assert not Path("started").exists()
    assert store.search_runs() == []


# -- secrets


CANARY = "SECRET"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:SECRET@127.0.0.1:1/db",
        "postgresql://u:SECRET@no-such-host.invalid/db",
        "postgresql://u:SE/CRET@SECRET@h:port/db",
        "postgresql://u:SECRET@h:notaport/db",
        "postgresql://u:%zzSECRET@h/db",
        "postgresql://h/db?password=SECRET&nonsense=SECRET",
        "postgresql://h:1/db?password=SECRET&sslmode=SECRET",
        "postgresql://u:SECRET@[::1/db",
        "postgres://u:SECRET#x@h/db",
        "postgresql://SECRET@127.0.0.1:1/db",
    ],
)
def test_an_address_that_leads_nowhere_tells_no_secret(mlcli, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(MlcliError) as caught:
        open_store(address)
    error: BaseException | None = caught.value
    assert CANARY not in f"{caught.value} {caught.value.hint}".replace('user "SECRET"', "")
    assert error.__cause__ is None or CANARY not in repr(error.__cause__)
    assert error.__suppress_context__
    monkeypatch.setenv("MLCLI_TRACKING_URI", address)
    for words in (["runs", "list"], ["doctor"], ["--debug", "runs", "list"], ["run", "."]):
        done = mlcli(*words, check=None)
        assert done.returncode != 0
        assert CANARY not in done.stdout + done.stderr


def test_nothing_that_is_said_or_kept_has_the_password(
    root: Path, mlcli, monkeypatch: pytest.MonkeyPatch, postgres: Server
) -> None:
    address = in_postgres.address(root)
    with in_postgres(root) as store:
        run_id = store.create_run("0").info.run_id
        assert PASSWORD not in repr(vars(store)) + repr(store.database)
    monkeypatch.setenv("MLCLI_TRACKING_URI", address)
    shown = ""
    for words in (
        ["doctor"],
        ["doctor", "--json"],
        ["runs", "list"],
        ["runs", "show", run_id],
        ["experiments", "create", "new"],
        ["runs", "delete", run_id, "--yes"],
    ):
        done = mlcli(*words, check=None)
        shown += done.stdout + done.stderr
    with psycopg.connect(address) as raw:
        for (table,) in raw.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall():
            shown += repr(raw.execute(f"SELECT * FROM {table}").fetchall())
    for path in [*root.rglob("*"), *Path.home().rglob("*"), *Path().rglob("*")]:
        if path.is_file():
            shown += path.read_text(errors="replace")
    assert "127.0.0.1" in shown
    for form in (PASSWORD, quote(PASSWORD, safe=""), PASSWORD.partition("/")[0]):
        assert form not in shown


@contextmanager
def serving(address: str, root: Path) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "mlcli", "server", "-p", "0", "--artifacts-destination", str(root)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MLCLI_BACKEND_STORE_URI": address},
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
            assert found, said + server.stdout.read()
            yield Client(int(found[1])), server
        finally:
            server.kill()


def test_a_server_over_postgres_survives_its_restart_and_tells_no_secret(root: Path, postgres: Server) -> None:
    with serving(in_postgres.address(root), root) as (client, server):
        run_id = client.new_run()
        client.post("runs/log-metric", run_id=run_id, key="m", value=1.5, timestamp=1, step=1)
        postgres.stop()
        try:
            answers = [
                client.send("GET", f"{API}runs/get?run_id={run_id}"),
                client.send("POST", f"{API}runs/set-tag", {"run_id": run_id, "key": "t", "value": "x"}),
            ]
        finally:
            postgres.start()
        client.post("runs/log-metric", run_id=run_id, key="m", value=2.5, timestamp=2, step=2)
        data = client.get(f"runs/get?run_id={run_id}")["run"]["data"]
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=30)[0]
    assert [(answer.status, answer.json["error_code"]) for answer in answers] == [(503, "TEMPORARILY_UNAVAILABLE")] * 2
    assert data["metrics"][0]["value"] == 2.5
    for form in (PASSWORD, quote(PASSWORD, safe=""), CANARY):
        assert form not in said + str(answers)
    with in_postgres(root) as store:
        assert [point.value for point in store.get_metric_history(run_id, "m")] == [1.5, 2.5]


def test_a_wrong_password_is_not_repeated(postgres: Server) -> None:
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        open_store(postgres.uri(password="WRONG-SECRET"))
    assert CANARY not in f"{caught.value} {caught.value.hint}"


def test_doctor_says_how_a_store_in_postgres_is(root: Path, mlcli, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_postgres(root) as store:
        store.create_run("0")
    monkeypatch.setenv("MLCLI_TRACKING_URI", in_postgres.address(root))
    found = json.loads(mlcli("doctor", "--json").stdout)["store"]
    assert (found["state"], found["runs"], found["folder"]) == ("well", 1, str(root))
    assert found["database"].startswith("postgresql://***@127.0.0.1:")


def test_without_the_driver_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlcli.store.postgres", None)
    with pytest.raises(StoreUnavailable, match="needs the driver psycopg") as caught:
        open_store("postgresql://h/db")
    assert "mlcli[postgres]" in caught.value.hint


def test_a_looker_finds_no_store_where_none_is(root: Path) -> None:
    with pytest.raises(NotFound, match="no store"):
        Postgres(in_postgres.address(root), create=False)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:p@h:5432/db", "postgresql://***@h:5432/db"),
        ("postgresql://h/db?password=p", "postgresql://h/db?***"),
        ("postgresql://u:p@q/r@h/db?x=y", "postgresql://***@h/db?***"),
        ("postgresql://h/db?password=a@b", "postgresql://***@b"),
        ("http://h:5000", "http://h:5000"),
        ("/some/folder", "/some/folder"),
        (None, None),
    ],
)
def test_addresses_are_shown_without_secrets(address: str | None, shown: str | None) -> None:
    assert config.masked(address) == shown


def test_users_are_kept_where_the_server_will_look(mlcli, tmp_path: Path) -> None:
    address = in_postgres.address(tmp_path / "s")
    add = ("server", "users", "add", "--backend-store-uri", address)
    assert "there is no store" in mlcli(*add, "ann", check=3).stderr
    folder = tmp_path / "files"
    mlcli(*add, "ann", "--artifacts-destination", folder)
    mlcli(*add, "bob")
    assert set(json.loads((folder / "server-users.json").read_text())["users"]) == {"ann", "bob"}


def test_what_was_kept_in_a_folder_moves_into_the_database(mlcli, root: Path, tmp_path: Path) -> None:
    with open_store(str(root)) as store:
        experiment = store.create_experiment("wine")
        run = store.create_run(experiment, run_name="first")
        store.log_batch(run.info.run_id, [Metric("loss", 0.5, 1, 1)], [Param("lr", "0.1")])
        store.update_run(run.info.run_id, "FINISHED")
        Path(run.info.artifact_uri).mkdir(parents=True)
        (Path(run.info.artifact_uri) / "notes.txt").write_text("x")
        store.create_registered_model("iris")
    address = in_postgres.address(tmp_path / "s")
    with open_store(address, artifact_root=str(tmp_path / "files")):
        pass
    for already in ("", "1 run was here already"):
        assert already in mlcli("--tracking-uri", address, "import", root).stderr
    with open_store(address) as store:
        (found,) = store.search_runs()
        assert (found.info.run_name, found.data.metrics, found.data.params) == ("first", {"loss": 0.5}, {"lr": "0.1"})
        assert Path(found.info.artifact_uri).is_relative_to(tmp_path / "files")
        assert (Path(found.info.artifact_uri) / "notes.txt").read_text() == "x"
        assert [model.name for model in store.search_registered_models()] == ["iris"]
        assert store.create_experiment("next") != experiment
