"""The journal: one line per call, valid, never mixed up, each applied exactly once."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcli import journal
from mlcli.errors import InvalidInput
from mlcli.journal import Journal
from mlcli.store import open_store

OLDEST = Path("~/.pyenv/versions/3.8.18/bin/python").expanduser()


@pytest.fixture
def writer(root: Path):
    opened = Journal.open(str(root))
    yield opened
    opened.close()


@pytest.fixture
def run_id(writer: Journal) -> str:
    run_id = journal.new_run_id()
    writer.start_run(run_id, "0", "calm-owl-1", "ann", 1000)
    return run_id


def lines(writer: Journal) -> list[dict]:
    return [json.loads(line) for line in Path(writer.path).read_text(encoding="utf-8").splitlines()]


def test_every_call_is_one_line_of_json(writer: Journal, run_id: str) -> None:
    writer.metric(run_id, "loss", 0.25, 3, 1234)
    writer.metrics(run_id, {"a": 1, "b": math.inf}, 4, 1235)
    writer.params(run_id, {"lr": 0.1})
    writer.tags(run_id, {"stage": "준비"})
    writer.untag(run_id, "stage")
    writer.status(run_id, "FINISHED", 2000)
    assert lines(writer)[2:] == [
        {"run": run_id, "metric": "loss", "value": 0.25, "step": 3, "time": 1234},
        {"run": run_id, "metrics": {"a": 1.0, "b": "Infinity"}, "step": 4, "time": 1235},
        {"run": run_id, "params": {"lr": "0.1"}},
        {"run": run_id, "tags": {"stage": "준비"}},
        {"run": run_id, "untag": "stage"},
        {"run": run_id, "status": "FINISHED", "time": 2000},
    ]


def test_the_first_line_tells_the_version(writer: Journal) -> None:
    assert lines(writer)[0] == {"v": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2])
def test_a_metric_comes_back_exactly(root: Path, writer: Journal, run_id: str, value: float) -> None:
    writer.metric(run_id, "x", value, 1, 5)
    with open_store(str(root)) as store:
        found = store.get_metric_history(run_id, "x")[0].value
        latest = store.get_run(run_id).data.metrics["x"]
    assert (math.isnan(found) and math.isnan(latest)) if math.isnan(value) else found == latest == value


@given(key=st.text(min_size=1, max_size=20), value=st.text(max_size=40))
def test_a_param_is_refused_or_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    root = tmp_path_factory.mktemp("p") / "mlruns"
    writer = Journal.open(str(root))
    try:
        run_id = journal.new_run_id()
        writer.start_run(run_id, "0", "n", "u", 1)
        try:
            writer.params(run_id, {key: value})
        except InvalidInput:
            return
        with open_store(str(root)) as store:
            assert store.get_run(run_id).data.params == {key: value}
            assert store.rejected_lines() == []
    finally:
        writer.close()


def test_a_bad_call_writes_nothing(writer: Journal, run_id: str) -> None:
    before = Path(writer.path).read_bytes()
    for call in (
        lambda: writer.metric(run_id, "../x", 1.0),
        lambda: writer.metric(run_id, "x", "abc"),
        lambda: writer.metric(run_id, "x", 1.0, 2**63),
        lambda: writer.metric(run_id, "x", 1.0, 1.5),
        lambda: writer.metric(run_id, "x", 1.0, 1, -5),
        lambda: writer.metrics(run_id, {"x": 1.0}, 1, 2**63),
        lambda: writer.params(run_id, {"ok": 1, "": 2}),
        lambda: writer.params(run_id, {"p": "x" * 6001}),
        lambda: writer.tags(run_id, {"t": "\ud800"}),
    ):
        with pytest.raises(InvalidInput):
            call()
    assert Path(writer.path).read_bytes() == before


def test_threads_do_not_mix_lines(root: Path, writer: Journal, run_id: str) -> None:
    def work(number: int) -> None:
        for step in range(500):
            writer.metric(run_id, f"m{number}", float(step), step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_store(str(root)) as store:
        assert [len(store.get_metric_history(run_id, f"m{number}")) for number in range(8)] == [500] * 8
        assert store.rejected_lines() == []


def test_a_forked_child_writes_to_a_journal_of_its_own(root: Path) -> None:
    parent = journal.writer(str(root))
    run_id = journal.new_run_id()
    parent.start_run(run_id, "0", "n", "u", 1)
    child = os.fork()
    if child == 0:
        own = journal.writer(str(root))
        own.metric(run_id, "from_child", 1.0)
        os._exit(0 if own.path != parent.path else 1)
    assert os.waitpid(child, 0)[1] == 0
    with open_store(str(root)) as store:
        run = store.get_run(run_id)
        assert run.data.metrics == {"from_child": 1.0}
        assert run.info.status == "RUNNING", "the child's death is not the parent's"
    journal.release(str(root))


def test_forked_siblings_name_their_runs_apart() -> None:
    names = []
    for _ in range(2):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, journal.new_run_name().encode())
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            names.append(pipe.read())
        os.wait()
    assert names[0] != names[1]


def test_a_forked_child_does_not_keep_its_parents_runs_alive(root: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from mlcli import journal\n"
        "writer = journal.writer(sys.argv[1])\n"
        "writer.start_run('r' * 32, '0', 'n', 'u', 1)\n"
        "if os.fork() == 0:\n"
        "    time.sleep(60)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        parent.wait()
        with open_store(str(root)) as store:
            assert store.get_run("r" * 32).info.status == "KILLED"
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


def test_kill_9_in_a_metric_flood_loses_nothing_that_returned(root: Path) -> None:
    script = (
        "import sys\n"
        "from mlcli import journal\n"
        "writer = journal.writer(sys.argv[1])\n"
        "writer.start_run('r' * 32, '0', 'n', 'u', 1)\n"
        "step = 0\n"
        "while True:\n"
        "    writer.metric('r' * 32, 'loss', 0.5, step)\n"
        "    sys.stdout.write(f'{step}\\n')\n"
        "    sys.stdout.flush()\n"
        "    step += 1\n"
    )
    flood = subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, text=True)
    assert flood.stdout is not None
    for _ in range(2000):
        flood.stdout.readline()
    flood.kill()
    returned = 2000 + flood.stdout.read().count("\n")
    flood.stdout.close()
    flood.wait()
    with open_store(str(root)) as store:
        steps = [metric.step for metric in store.get_metric_history("r" * 32, "loss")]
        assert returned <= len(steps) <= returned + 1
        assert steps == list(range(len(steps)))
        run = store.get_run("r" * 32)
        assert run.info.status == "KILLED"
        assert run.data.tags["mlcli.end_reason"] == "its process died without ending it"
        assert os.listdir(root / "live") == []


@pytest.mark.skipif(not OLDEST.exists(), reason="needs Python 3.8 (pyenv install 3.8.18)")
def test_the_oldest_python_writes_and_reads(root: Path) -> None:
    script = (
        "import sys\n"
        "from mlcli import journal\n"
        "from mlcli.store import open_store\n"
        "writer = journal.writer(sys.argv[1])\n"
        "writer.start_run('r' * 32, '0', 'n', 'u', 1, params={'lr': '0.1'})\n"
        "writer.metric('r' * 32, 'loss', 0.5, 1)\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    run = store.search_runs(filter_string=\"params.lr = '0.1' AND metrics.loss < 1\")[0]\n"
        "print(run.data.metrics['loss'])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(journal.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [OLDEST, "-W", "error", "-c", script, str(root)], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0.5\n", "")


def test_run_names_are_short_and_readable() -> None:
    names = [journal.new_run_name() for _ in range(200)]
    assert all(len(name) <= 20 and name.count("-") == 2 for name in names)


def test_a_seeded_script_gets_new_names() -> None:
    import random

    random.seed(1)
    draws, state = [journal.new_run_name() for _ in range(3)], random.getstate()
    random.seed(1)
    assert random.getstate() == state, "naming a run must not consume the script's random numbers"
    assert [journal.new_run_name() for _ in range(3)] != draws
