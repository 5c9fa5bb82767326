"""Readers apply each journal line exactly once, whoever dies when, and close the runs of dead writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores import Kind

from mlcli import journal
from mlcli.errors import MlcliError
from mlcli.journal import Journal

R = "r" * 32


def started(root: Path) -> Journal:
    writer = Journal.open(str(root), default_run=R)
    writer.start_run(R, "0", "n", "u", 1000)
    return writer


def append(writer: Journal, text: str) -> None:
    with open(writer.path, "ab") as file:
        file.write(text.encode())


def test_lines_appended_by_a_shell_are_about_the_journals_run(root: Path, open_at: Kind) -> None:
    writer = started(root)
    subprocess.run(
        [
            "bash",
            "-c",
            'echo \'{"metric":"loss","value":0.3,"step":7}\' >> "$J"; echo \'{"param":"lr","value":"0.1"}\' >> "$J"',
        ],
        env={**os.environ, "J": writer.path},
        check=True,
    )
    with open_at(root) as store:
        run = store.get_run(R)
        assert run.data.metrics == {"loss": 0.3}
        assert run.data.params == {"lr": "0.1"}
        assert store.get_metric_history(R, "loss")[0].step == 7
    writer.close()


def test_a_half_written_last_line_waits(root: Path, open_at: Kind) -> None:
    writer = started(root)
    append(writer, '{"metric":"loss","val')
    with open_at(root) as store:
        assert store.get_run(R).data.metrics == {}
        append(writer, 'ue":1.5}\n')
        assert store.get_run(R).data.metrics == {"loss": 1.5}
        assert store.rejected_lines() == []
    writer.close()


def test_a_whole_last_line_without_an_end_counts_once_the_writer_is_gone(root: Path, open_at: Kind) -> None:
    writer = started(root)
    append(writer, '{"metric":"loss","value":2}')
    writer.close()
    with open_at(root) as store:
        assert store.get_run(R).data.metrics == {"loss": 2.0}


def test_a_torn_last_line_of_a_dead_writer_is_dropped(root: Path, open_at: Kind) -> None:
    writer = started(root)
    append(writer, '{"metric":"loss","value":2}\n{"metric":"loss","val')
    writer.close()
    with open_at(root) as store:
        assert store.get_run(R).data.metrics == {"loss": 2.0}
        assert store.rejected_lines() == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "it is not a JSON object"),
        ("[1, 2]", "it is not a JSON object"),
        ('{"metric":"../x","value":1}', "not a plain relative path"),
        ('{"metric":"x","value":"abc"}', "not a number"),
        ('{"metric":"x","value":1,"step":99999999999999999999}', "64 bits"),
        ('{"metric":"x","value":1.0,"step":1,"time":-5}', "negative"),
        ('{"run":"nobody","metric":"x","value":1}', "there is no run 'nobody'"),
        ('{"run":"half \\ud800","metric":"x","value":1}', "lone surrogate"),
        ('{"run":"nul \\u0000","metric":"x","value":1}', ""),
        ('{"tag":"t","value":"nul \\u0000"}', "NUL"),
        (
            '{"input":{"dataset":{"name":"' + "x" * 501 + '","digest":"","source_type":"","source":""}}}',
            "500 are allowed",
        ),
        ('{"status":"DONE"}', "'DONE' is not a run status"),
        ('{"something":1}', "it has none of"),
        ('{"params":[1]}', "params must be an object"),
        ("[" * 100_000, "it is not a JSON object"),
    ],
)
def test_a_line_that_cannot_be_applied_is_kept_with_the_reason_and_blocks_nothing(
    root: Path, open_at: Kind, line: str, reason: str
) -> None:
    writer = started(root)
    append(writer, f'{{"metric":"before","value":1}}\n{line}\n{{"metric":"after","value":1}}\n')
    with open_at(root) as store:
        assert store.get_run(R).data.metrics == {"before": 1.0, "after": 1.0}
        (rejected,) = store.rejected_lines()
        assert reason in rejected["reason"]
        text = Path(writer.path).read_bytes()
        assert text[rejected["position"] :].startswith(line[:200].encode())
    writer.close()


def test_a_param_written_twice_keeps_its_first_value_and_says_so(root: Path, open_at: Kind) -> None:
    writer = started(root)
    writer.params(R, {"lr": 0.1})
    writer.params(R, {"lr": 0.1})
    writer.params(R, {"lr": 0.2})
    with open_at(root) as store:
        assert store.get_run(R).data.params == {"lr": "0.1"}
        assert [item["reason"] for item in store.rejected_lines()] == [
            "param 'lr' is '0.1' already and cannot become '0.2'"
        ]
    writer.close()


def test_a_run_of_a_dead_writer_is_closed_at_its_last_sign_of_life(root: Path, open_at: Kind) -> None:
    writer = started(root)
    writer.metric(R, "loss", 1.0)
    os.utime(writer.path, (5000, 5000))
    writer.close()
    with open_at(root) as store:
        info = store.get_run(R).info
        assert (info.status, info.end_time) == ("KILLED", 5_000_000)


def test_a_run_that_ended_keeps_its_status_when_the_writer_goes(root: Path, open_at: Kind) -> None:
    writer = started(root)
    writer.status(R, "FINISHED", 3000)
    writer.close()
    with open_at(root) as store:
        info = store.get_run(R).info
        assert (info.status, info.end_time) == ("FINISHED", 3000)


def test_the_death_of_a_writer_that_only_added_to_a_run_does_not_close_it(root: Path, open_at: Kind) -> None:
    owner, guest = started(root), Journal.open(str(root))
    guest.metric(R, "loss", 1.0)
    guest.close()
    with open_at(root) as store:
        run = store.get_run(R)
        assert run.info.status == "RUNNING"
        assert run.data.metrics == {"loss": 1.0}
    owner.close()


def test_a_resumed_run_belongs_to_the_writer_that_resumed_it(root: Path, open_at: Kind) -> None:
    first = started(root)
    first.status(R, "FINISHED", 2000)
    first.close()
    second = Journal.open(str(root))
    second.resume_run(R, 3000)
    with open_at(root) as store:
        assert store.get_run(R).info.status == "RUNNING"
        second.close()
        assert store.get_run(R).info.status == "KILLED"


def test_lines_about_a_run_wait_for_a_start_that_stands_in_another_journal(root: Path, open_at: Kind) -> None:
    """The guest's file sorts before the owner's: its lines are read first."""
    guest, owner = Journal.open(str(root)), None
    time.sleep(0.002)
    owner = started(root)
    guest.metric(R, "loss", 1.0)
    with open_at(root) as store:
        assert store.get_run(R).data.metrics == {"loss": 1.0}
        assert store.rejected_lines() == []
    guest.close()
    owner.close()


def test_the_latest_value_is_the_one_of_the_last_step_whatever_the_order_of_lines(root: Path, open_at: Kind) -> None:
    writer = started(root)
    writer.metric(R, "loss", 3.0, 30, 5)
    writer.metric(R, "loss", 1.0, 10, 9)
    with open_at(root) as store:
        assert store.get_run(R).data.metrics == {"loss": 3.0}
        writer.metric(R, "loss", 2.0, 20, 7)
        assert store.get_run(R).data.metrics == {"loss": 3.0}
        writer.metric(R, "loss", 0.5, 30, 6)
        assert store.get_run(R).data.metrics == {"loss": 0.5}
        assert store.database.query("SELECT min, max FROM series") == [(0.5, 3.0)]
    writer.close()


READER = """
import sys, time
from mlcli.store import absorb
from mlcli.store import open_store
absorb.CHUNK = 20_000
with open_store(sys.argv[1], artifact_root=sys.argv[2]) as store:
    print(store.counts()["metric_points"])
"""


@pytest.mark.slow
def test_readers_killed_while_absorbing_count_each_line_once(root: Path, open_at: Kind) -> None:
    writer = started(root)
    for step in range(60_000):
        writer.metric(R, "loss", step * 0.5, step)
    for round_ in range(12):
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, open_at.address(root), str(root)], stdout=subprocess.DEVNULL
        )
        time.sleep(0.05 + round_ * 0.04)
        reader.send_signal(signal.SIGKILL)
        reader.wait()
    with open_at(root) as store:
        history = store.get_metric_history(R, "loss")
        assert [metric.step for metric in history] == list(range(60_000))
        assert store.database.damage() == []
        assert store.rejected_lines() == []
    writer.close()


@pytest.mark.slow
def test_many_readers_and_writers_at_once(root: Path, open_at: Kind) -> None:
    script = (
        "import sys\n"
        "from mlcli import journal\n"
        "from mlcli.store import open_store\n"
        "run_id = journal.new_run_id()\n"
        "writer = journal.writer(sys.argv[1])\n"
        "writer.start_run(run_id, '0', 'n', 'u', journal.now())\n"
        "for step in range(200):\n"
        "    writer.metric(run_id, 'loss', float(step), step)\n"
        "    if step % 50 == 0:\n"
        "        with open_store(sys.argv[2], artifact_root=sys.argv[1]) as store:\n"
        "            assert len(store.get_metric_history(run_id, 'loss')) == step + 1\n"
        "writer.status(run_id, 'FINISHED')\n"
    )
    address = open_at.address(root)
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(root), address], stderr=subprocess.PIPE) for _ in range(24)
    ]
    errors = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 24, errors
    with open_at(root) as store:
        assert store.counts() == {
            "experiments": 1,
            "runs": 24,
            "metric_points": 4800,
            "rejected_lines": 0,
            "open_runs": 0,
        }


def test_journals_that_are_finished_leave_nothing_behind(root: Path, open_at: Kind) -> None:
    for number in range(3):
        writer = Journal.open(str(root))
        writer.start_run(f"{number}" * 32, "0", "n", "u", 1)
        writer.status(f"{number}" * 32, "FINISHED", 2)
        writer.close()
        with open_at(root) as store:
            assert store.counts()["runs"] == number + 1
    assert os.listdir(root / "live") == []
    with open_at(root) as store:
        assert len(store.database.query("SELECT * FROM journals")) <= 1


def test_a_full_disk_is_told_and_what_came_before_is_kept(root: Path, open_at: Kind) -> None:
    script = (
        "import resource, signal, sys\n"
        "from mlcli import journal\n"
        "from mlcli.errors import StoreUnavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = journal.writer(sys.argv[1])\n"
        "writer.start_run('r' * 32, '0', 'n', 'u', 1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))\n"
        "kept = 0\n"
        "try:\n"
        "    while True:\n"
        "        writer.metric('r' * 32, 'loss', 0.5, kept)\n"
        "        kept += 1\n"
        "except StoreUnavailable as error:\n"
        "    print(error.message)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "writer.metric('r' * 32, 'after', 1.0, 0)\n"
        "print(kept)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True)
    message, kept = done.stdout.splitlines()
    assert "not recorded" in message or "File too large" in message
    with open_at(root) as store:
        assert len(store.get_metric_history(R, "loss")) == int(kept)
        assert store.get_run(R).data.metrics["after"] == 1.0


def test_the_journal_of_a_newer_mlcli_is_kept_not_guessed_at(root: Path, open_at: Kind) -> None:
    folder = Path(journal.live_folder(str(root)))
    folder.mkdir(parents=True)
    (folder / "x.jsonl").write_text('{"v":2}\n')
    with open_at(root) as store:
        assert "journal version 2" in store.rejected_lines()[0]["reason"]


def test_a_journal_that_is_read_without_getting_on_is_an_error_not_a_loop(
    root: Path, open_at: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = started(root)
    read_lines, read = journal.read_lines, []

    def one_byte_short(fd: int, position: int, size: int) -> journal.Lines:
        read.append(position)
        assert len(read) < 100, "it reads on for ever"
        lines = read_lines(fd, position, size)
        return lines._replace(end=lines.end - 1)

    with open_at(root) as store:
        append(writer, '{"metric":"loss","value":1.5}\n')
        monkeypatch.setattr(journal, "read_lines", one_byte_short)
        with pytest.raises(MlcliError, match="does not get beyond byte"):
            store.get_run(R)
        monkeypatch.undo()
        assert store.get_run(R).data.metrics == {"loss": 1.5}
        assert store.rejected_lines() == []
    writer.close()
