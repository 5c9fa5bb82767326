"""Many short runs and many short programs in a row: nothing is lost, and no heap is left for the next reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlcli import journal
from mlcli.journal import Journal
from mlcli.store import MANY_JOURNALS, open_store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="short programs are made by fork here")

# Programs that log a run and exit as any program does; each says how many journals it found, and whether it needed the
# database. Forks of one interpreter: 0.01 s each.
PROGRAMS = """
import atexit, json, os, sys
import mlcli.fluent
said = []
for number in range(int(sys.argv[1])):
    told, tell = os.pipe()
    if os.fork() == 0:
        os.close(told)
        atexit.register(lambda: os.write(tell, json.dumps("sqlite3" in sys.modules).encode()))  # called last
        with mlcli.start_run():
            mlcli.log_param("number", number)
            mlcli.log_metric("m", number)
        sys.exit(0)
    os.close(tell)
    with open(told) as pipe:
        used_database = json.load(pipe)
    os.wait()
    left = sum(name.endswith(".jsonl") for name in os.listdir(os.environ["MLCLI_TRACKING_URI"] + "/live"))
    said.append([left, used_database])
print(json.dumps(said))
"""


def run(code: str, *args: object, root: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "MLCLI_TRACKING_URI": str(root)},
    )
    if check:
        assert (done.returncode, done.stderr) == (0, "")
    return done


def leave_journals(root: Path, count: int) -> None:
    """What ``count`` short programs leave that ended one moment ago."""
    for number in range(count):
        writer = Journal.open(str(root))
        writer.start_run(f"{number:032x}", "0", "n", "u", 1)
        writer.status(f"{number:032x}", "FINISHED", 2)
        writer.close()


def journals(root: Path) -> int:
    return len(list((root / "live").glob("*.jsonl")))


def test_short_programs_in_a_row_leave_few_journals_and_need_the_database_seldom(root: Path) -> None:
    count = 3 * MANY_JOURNALS
    said = json.loads(run(PROGRAMS, count, root=root).stdout)
    assert max(left for left, _ in said) <= MANY_JOURNALS + 1
    assert sum(used for _, used in said) in (2, 3)
    with open_store(str(root)) as store:
        runs = store.search_runs(max_results=count + 1)
        assert sorted(int(found.data.params["number"]) for found in runs) == list(range(count))
        assert {found.info.status for found in runs} == {"FINISHED"}
        assert all(found.data.metrics["m"] == int(found.data.params["number"]) for found in runs)
        assert store.rejected_lines() == []


ONE = "import mlcli\nwith mlcli.start_run():\n    mlcli.log_metric('m', 1.0)\n"


def test_programs_that_end_at_once_do_not_tread_on_each_others_feet(root: Path) -> None:
    leave_journals(root, 2 * MANY_JOURNALS)
    code = "import os, sys\n" + ONE.replace("log_metric('m', 1.0)", "log_metric('m', 1.0)\n    sys.stdin.read()")
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MLCLI_TRACKING_URI": str(root)},
        )
        for _ in range(8)
    ]
    for program in programs:
        assert program.stdin is not None
        program.stdin.close()
        program.stdin = None
    assert [(program.communicate()[1], program.returncode) for program in programs] == [("", 0)] * 8
    assert journals(root) <= MANY_JOURNALS + 8
    with open_store(str(root)) as store:
        assert store.counts()["runs"] == 2 * MANY_JOURNALS + 8
        assert store.counts()["open_runs"] == 0
        assert store.rejected_lines() == []


@pytest.mark.parametrize("trouble", ["held", "damaged", "newer"])
def test_a_program_ends_well_whatever_is_wrong_with_the_database(root: Path, trouble: str) -> None:
    import sqlite3

    open_store(str(root)).close()
    leave_journals(root, MANY_JOURNALS + 1)
    other = sqlite3.connect(root / "mlcli.db", isolation_level=None)
    try:
        if trouble == "held":
            other.execute("BEGIN IMMEDIATE")
        elif trouble == "newer":
            other.execute("PRAGMA user_version = 999")
        else:
            (root / "mlcli.db").write_bytes(b"no database at all" * 100)
        run(ONE, root=root)
        assert journals(root) == MANY_JOURNALS + 2
    finally:
        other.close()


def test_a_program_that_is_killed_while_it_tidies_leaves_each_line_counted_once(root: Path) -> None:
    leave_journals(root, 3 * MANY_JOURNALS)
    code = (
        "import os\n"
        "from mlcli.store import absorb, tidy\n"
        "unlink, done = os.unlink, []\n"
        "def die_later(path):\n"
        "    done.append(path)\n"
        "    if len(done) == 10:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    unlink(path)\n"
        "absorb.os.unlink = die_later\n"
        "tidy(os.environ['MLCLI_TRACKING_URI'])\n"
    )
    assert run(code, root=root, check=False).returncode == -9
    assert journals(root) == 3 * MANY_JOURNALS - 9
    run(ONE, root=root)
    with open_store(str(root)) as store:
        assert store.counts()["runs"] == 3 * MANY_JOURNALS + 1
        assert store.rejected_lines() == []
    assert journals(root) == 0


@pytest.mark.slow
def test_twenty_thousand_short_runs_are_one_file_for_the_next_reader(root: Path) -> None:
    code = (
        "import os, mlcli\n"
        "os.fsync = lambda fd: None\n"  # waiting for the disk at each end is most of the time, and not what is asked here
        "for number in range(20_000):\n"
        "    with mlcli.start_run():\n"
        "        mlcli.log_param('number', number)\n"
        "        mlcli.log_metric('m', number)\n"
    )
    run(code, root=root)
    assert journals(root) == 1
    with open_store(str(root)) as store:
        assert store.counts() == {
            "experiments": 1,
            "runs": 20_000,
            "metric_points": 20_000,
            "rejected_lines": 0,
            "open_runs": 0,
        }
        assert store.search_runs(filter_string="params.number = '19999'")[0].data.metrics == {"m": 19_999.0}
    assert journals(root) == 0
    assert str(root) not in journal.written()
