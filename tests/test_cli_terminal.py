"""What a terminal gets: tables that fit, colours, signs; each command run in a pseudo terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from mlcli.cli.render import width as shown_width
from mlcli.entities import Metric, Param
from mlcli.store import open_store

COLOUR = re.compile("\x1b\\[[0-9;]*m")


def terminal(*words: str, width: int = 80, height: int = 40, **environ: str) -> str:
    """What the command writes to a terminal of that size, colours included."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "mlcli", *words],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TERM": "xterm-256color", **environ},
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:  # Linux says EIO when the last writer is gone
                break
            if not block:
                break
            written += block
    os.close(master)
    assert process.returncode == 0, written.decode()
    return written.decode().replace("\r\n", "\n")


def lines(*words: str, width: int = 80) -> list[str]:
    return COLOUR.sub("", terminal(*words, width=width)).splitlines()


@pytest.fixture
def runs() -> list[str]:
    """Runs with long names, wide characters, many metrics and params that differ or do not."""
    made = []
    names = ["日本語の実験 長い名前 とても長い", "a-name-that-is-far-too-long-for-any-column-of-any-table", "short"]
    with open_store() as store:
        other = store.create_experiment("an experiment with a long name")
        for place, name in enumerate(names):
            start = 1_700_000_000_000 + place * 1000
            key = store.create_run(["0", other][place % 2], start_time=start, run_name=name).info.run_id
            store.log_batch(
                key,
                params=[
                    Param("same", "1"),
                    Param("lr", f"0.0{place + 1}"),
                    Param("data", f"/a/very/long/path/{place}.csv"),
                ],
                metrics=[Metric(f"metric_{n}", place + n / 7, start + n, n) for n in range(9)]
                + [Metric("loss", 1 / (n + 1) + place, start + n, n) for n in range(50)],
            )
            store.update_run(key, status=["FINISHED", "FAILED", "KILLED"][place], end_time=start + 61_000)
            made.append(key)
    return made


@pytest.mark.parametrize("width", [60, 80, 140, 300])
@pytest.mark.parametrize(
    "words",
    [("runs", "list"), ("runs", "compare", "latest", "latest~1", "latest~2"), ("experiments", "list")],
)
def test_no_line_of_a_table_is_wider_than_the_terminal(runs, words, width):
    written = lines(*words, width=width)
    notes = [line for line in written if line.startswith("★")]
    assert all(shown_width(line) <= width for line in written if line not in notes)


def test_the_variable_columns_goes_before_the_terminals_width(runs):
    wide = COLOUR.sub("", terminal("runs", "list", width=80, COLUMNS="200")).splitlines()
    assert max(map(shown_width, wide)) > 100


def test_a_wide_terminal_shows_all_that_differs_and_a_narrow_one_says_what_is_missing(runs):
    wide = lines("runs", "list", width=300)[0].split()
    assert {"loss", "metric_0", "lr", "data", "EXPERIMENT"} <= set(wide)
    assert "same" not in wide
    assert lines("runs", "list", width=80)[5].startswith("(no room for ")


def test_a_list_shows_status_short_id_and_duration(runs):
    rows = lines("runs", "list", width=140)[2:5]
    assert [row.split()[:3] for row in rows] == [
        ["■", "KILLED", runs[2][:8]],
        ["✗", "FAILED", runs[1][:8]],
        ["✓", "FINISHED", runs[0][:8]],
    ]
    assert all("1m 01s" in row for row in rows)


def test_colours_are_there_and_go_with_no_color(runs):
    assert COLOUR.search(terminal("runs", "list"))
    assert not COLOUR.search(terminal("runs", "list", NO_COLOR="1"))
    assert not COLOUR.search(terminal("runs", "list", TERM="dumb"))


def test_show_tells_a_run_in_sections(runs):
    written = lines("runs", "show", runs[1])
    assert written[0].startswith("✗ FAILED  a-name-that-is")
    assert {"params", "metrics"} <= set(written)
    curve = next(line for line in written if line.startswith("loss "))
    assert curve.split()[1:5] == ["1.02", "1.02", "2", "50"]
    assert curve.split()[5][0] == "█"
    assert curve.split()[5][-1] == "▁"


def test_show_has_the_reason_of_a_bad_end(runs):
    with open_store() as store:
        store.set_tag(runs[1], "mlcli.end_reason", "the command ended with exit code 3")
        store.set_tag(runs[1], "mlcli.exit_code", "3")
    ended = [line.split(None, 1)[1] for line in lines("runs", "show", runs[1]) if line.startswith("ended ")]
    assert ended == ["the command ended with exit code 3"]


def test_a_run_that_is_part_of_another_is_marked_and_shown_with_it(runs):
    with open_store() as store:
        child = store.create_run("0", run_name="part", tags={"mlflow.parentRunId": runs[0]}).info.run_id
    assert any(f"{child[:8]}  ↳ part" in line for line in lines("runs", "list", width=140))
    assert any(line.startswith(f"● RUNNING  {child[:8]}  part") for line in lines("runs", "show", runs[0]))


def test_compare_marks_what_differs_and_what_is_best(runs):
    written = lines("runs", "compare", *runs, width=140)
    loss = next(line for line in written if " loss " in line)
    assert "≠" in loss
    assert loss.index("★") < loss.rindex("1.02")
    same = next(line for line in written if " same " in line)
    assert "≠" not in same


def test_artifacts_are_a_tree_with_sizes(runs):
    with open_store() as store:
        folder = os.path.join(store.artifact_root(runs[0]), "model")
    os.makedirs(folder)
    for name in ("MLmodel", "model.bin"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"x" * 1500)
    assert lines("artifacts", "list", runs[0]) == [
        "└─ model/",
        "   ├─ MLmodel  1.5 kB",
        "   └─ model.bin  1.5 kB",
        "2 files, 3.0 kB",
    ]


def test_create_says_a_sentence(runs):
    assert lines("experiments", "create", "wine") == ["Created experiment 'wine' with id 2"]


def test_nothing_to_list_is_one_sentence():
    assert len(lines("runs", "list", width=200)) == 1


def test_a_value_cannot_steer_the_terminal():
    with open_store() as store:
        key = store.create_run("0").info.run_id
        store.log_batch(key, params=[Param("bad", "\x1b]0;owned\x07\x1b[2J")])
    for words in (("runs", "list"), ("runs", "show", "latest")):
        written = COLOUR.sub("", terminal(*words))
        assert "\x1b" not in written
        assert "\x07" not in written
        assert "\\x1b]0;owned" in written
