"""A child from start to end: codes, signals, leftovers, output. Real processes throughout."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from pathlib import Path

import pytest

from mlcli.child import run_child
from mlcli.output import Output

PYTHON = sys.executable
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

# Runs a child as mlcli does and tells how it ended: as JSON in the file named first.
DRIVER = """
import json, os, sys
from mlcli.child import run_child
from mlcli.output import Output
result, options, argv = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
cap = options.pop("cap", 1 << 28)
with Output(os.path.join(os.path.dirname(result), "logs", "output.log"), cap=cap) as output:
    end = run_child(argv, cwd=os.getcwd(), env=dict(os.environ), output=output, mark=b"MARK=" + os.environb[b"MARK"],
                    on_signal=lambda text: print(text, file=sys.stderr, flush=True), **options)
    # Not ru_maxrss: that remembers the greater process (pytest) that this one was forked from.
    peak = [0]
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            peak = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    with open(result, "w") as file:
        json.dump({**end._asdict(), "status": end.status, "exit_code": end.exit_code, "reason": end.reason,
                   "own_memory": peak[0] * 1024}, file)
    output.flush()
"""


class Driven:
    """A process that runs a child; what is asked of it later reads its result."""

    def __init__(self, folder: Path, argv: list[str], options: dict, popen: dict) -> None:
        self.result = folder / "end.json"
        self.log = folder / "logs" / "output.log"
        self.process = subprocess.Popen(
            [PYTHON, "-c", DRIVER, str(self.result), json.dumps(options), *argv],
            # Its own: whoever bears the mark is ended, and other tests run at the same time.
            env={**os.environ, "MARK": uuid.uuid4().hex},
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "preexec_fn": default_signals,
                **popen,
            },
        )

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self, timeout: float = 60) -> dict:
        self.out, self.err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, self.err
        return json.loads(self.result.read_text())

    def wait_for(self, text: bytes, timeout: float = 60) -> None:
        until = time.monotonic() + timeout
        while text not in (self.log.read_bytes() if self.log.exists() else b""):
            assert time.monotonic() < until, "the child never said " + repr(text)
            time.sleep(0.01)


def default_signals() -> None:
    for signum in (signal.SIGINT, signal.SIGHUP):  # the test runner itself may be one that ignores them
        signal.signal(signum, signal.SIG_DFL)


@pytest.fixture
def drive(tmp_path: Path):
    driven: list[Driven] = []

    def start(argv: list[str], *, popen: dict | None = None, **options) -> Driven:
        folder = tmp_path / f"drive{len(driven)}"
        folder.mkdir()
        driven.append(Driven(folder, argv, options, popen or {}))
        return driven[-1]

    yield start
    for one in driven:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            if stream:
                stream.close()


def python(code: str) -> list[str]:
    return [PYTHON, "-u", "-c", code]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int, timeout: float = 30) -> bool:
    until = time.monotonic() + timeout
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_alive(pid)


# -- ends


@pytest.mark.parametrize(("code", "status"), [(0, "FINISHED"), (1, "FAILED"), (3, "FAILED"), (255, "FAILED")])
def test_the_exit_code_of_the_child_is_the_end(drive, code, status):
    end = drive(["sh", "-c", f"exit {code}"]).end()
    assert (end["code"], end["exit_code"], end["status"]) == (code, code, status)
    assert end["signal"] is None


def test_a_child_killed_by_a_signal_is_killed_with_128_and_the_signal(drive):
    end = drive(["sh", "-c", "kill -9 $$"]).end()
    assert (end["status"], end["signal"], end["code"], end["exit_code"]) == ("KILLED", 9, None, 137)
    assert "SIGKILL" in end["reason"]


@pytest.mark.parametrize("argv", [["no-such-program"], ["./no-such-program"]])
def test_a_missing_program_is_an_error_that_names_it(argv, tmp_path):
    with Output(str(tmp_path / "log")) as output, pytest.raises(FileNotFoundError) as caught:
        run_child(argv, cwd=str(tmp_path), env={"PATH": os.environ["PATH"]}, output=output)
    assert caught.value.filename == argv[0]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with Output(str(tmp_path / "log")) as output, pytest.raises(FileNotFoundError) as caught:
        run_child(["true"], cwd=str(tmp_path / "no"), env={"PATH": os.environ["PATH"]}, output=output)
    assert caught.value.filename == str(tmp_path / "no")


def test_a_file_that_may_not_be_executed_is_an_error(tmp_path):
    (tmp_path / "plain").write_text("echo no\n")
    with Output(str(tmp_path / "log")) as output, pytest.raises(PermissionError):
        run_child(["./plain"], cwd=str(tmp_path), env={"PATH": "/bin"}, output=output)


def test_the_program_is_looked_up_on_the_path_of_its_own_environment(tmp_path, capfd):
    script = tmp_path / "bin" / "greet"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho hello $1\n")
    script.chmod(0o755)
    with Output(str(tmp_path / "log")) as output:
        end = run_child(["greet", "you"], cwd="/", env={"PATH": str(script.parent)}, output=output)
        output.flush()
    assert end.exit_code == 0
    assert capfd.readouterr().out == "hello you\n"


def test_a_script_without_an_interpreter_line_goes_to_the_shell(tmp_path, capfd):
    script = tmp_path / "bare"
    script.write_text("echo bare $1\n")
    script.chmod(0o755)
    with Output(str(tmp_path / "log")) as output:
        run_child(["./bare", "one two"], cwd=str(tmp_path), env={"PATH": "/bin:/usr/bin"}, output=output)
        output.flush()
    assert capfd.readouterr().out == "bare one two\n"


def test_memory_and_cpu_time_of_the_child_are_noted(drive):
    end = drive(
        python(
            "x = b'1' * 300_000_000\nimport time\nt = time.process_time()\nwhile time.process_time() < t + 0.3: pass"
        )
    ).end()
    assert 300_000_000 < end["peak_memory"] < 600_000_000
    assert end["cpu_user"] + end["cpu_system"] >= 0.3
    assert end["seconds"] >= 0.3


def test_signal_handlers_of_the_caller_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with Output(str(tmp_path / "log")) as output:
        run_child(["true"], cwd="/", env={"PATH": "/bin:/usr/bin"}, output=output)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


# -- signals to us

POLITE = """
import signal, sys, time
def handler(signum, frame):
    print("got", signal.Signals(signum).name)
    sys.exit(7)
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT): signal.signal(s, handler)
print("ready")
time.sleep(600)
"""
STUBBORN = """
import signal, time
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(s, lambda n, f: print("ignored", signal.Signals(n).name))
print("ready")
while True: time.sleep(0.05)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_that_ends_us_is_passed_on_and_the_run_is_killed(drive, name):
    driven = drive(python(POLITE))
    driven.wait_for(b"ready")
    driven.send(getattr(signal, name))
    end = driven.end()
    assert f"got {name}".encode() in driven.out
    assert (end["status"], end["exit_code"], end["code"]) == ("KILLED", 128 + getattr(signal, name), 7)


def test_a_python_child_that_dies_of_keyboard_interrupt_is_killed_with_130(drive):
    driven = drive(python("import time; print('ready'); time.sleep(600)"))
    driven.wait_for(b"ready")
    driven.send(signal.SIGINT)
    end = driven.end()
    assert (end["status"], end["exit_code"]) == ("KILLED", 130)
    assert b"KeyboardInterrupt" in driven.err


def test_the_first_interrupt_is_passed_on_once_and_then_waited_for(drive):
    driven = drive(python(STUBBORN), grace=0.2)
    driven.wait_for(b"ready")
    driven.send(signal.SIGINT)
    driven.wait_for(b"ignored SIGINT")
    time.sleep(0.6)
    assert driven.process.poll() is None
    assert driven.log.read_bytes().count(b"SIGINT") == 1
    driven.send(signal.SIGTERM)
    driven.end()


def test_the_second_interrupt_is_a_term_and_the_third_a_kill(drive):
    driven = drive(python(STUBBORN))
    driven.wait_for(b"ready")
    driven.send(signal.SIGINT)
    driven.wait_for(b"ignored SIGINT")
    driven.send(signal.SIGINT)
    driven.wait_for(b"ignored SIGTERM")
    driven.send(signal.SIGINT)
    end = driven.end()
    assert (end["status"], end["signal"], end["exit_code"]) == ("KILLED", 9, 130)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_child_that_ignores_term_is_killed_after_the_grace(drive, name):
    driven = drive(python(STUBBORN), grace=0.5)
    driven.wait_for(b"ready")
    driven.send(getattr(signal, name))
    end = driven.end()
    assert (end["status"], end["signal"], end["exit_code"]) == ("KILLED", 9, 128 + getattr(signal, name))


def test_the_whole_group_of_the_child_gets_the_signal(drive):
    driven = drive(["sh", "-c", f"{PYTHON} -u -c '{POLITE.replace(chr(39), '')}' ; echo never"])
    driven.wait_for(b"ready")
    driven.send(signal.SIGINT)
    assert driven.end()["status"] == "KILLED"
    assert b"got SIGINT" in driven.out
    assert b"never" not in driven.out


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_with_a_meaning_of_the_programs_own_is_passed_on_and_ends_nothing(drive, name):
    code = f"""
import signal
signal.signal(signal.{name}, lambda n, f: print("checkpoint"))
signal.alarm(60)
print("ready")
signal.pause()
"""
    driven = drive(python(code))
    driven.wait_for(b"ready")
    driven.send(getattr(signal, name))
    assert driven.end()["status"] == "FINISHED"
    assert b"checkpoint" in driven.out


def test_a_signal_we_were_told_to_ignore_stays_ignored(drive):
    driven = drive(
        python("import time; print('ready'); time.sleep(1); print('done')"), popen={"preexec_fn": ignore_hangup}
    )
    driven.wait_for(b"ready")
    driven.send(signal.SIGHUP)
    assert driven.end()["status"] == "FINISHED"
    assert b"done" in driven.out


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_a_stopped_mlcli_stops_the_child_and_both_go_on_together(drive):
    driven = drive(python("import time\nprint('ready')\nwhile True: print('tick'); time.sleep(0.01)"))
    driven.wait_for(b"ready")
    driven.send(signal.SIGTSTP)
    wait_for_state(driven.process.pid, "T")
    size = driven.log.stat().st_size
    time.sleep(0.3)
    assert driven.log.stat().st_size == size
    driven.send(signal.SIGCONT)
    until = time.monotonic() + 30
    while driven.log.stat().st_size == size:
        assert time.monotonic() < until, "the child did not go on"
        time.sleep(0.01)
    driven.send(signal.SIGTERM)
    assert driven.end()["status"] == "KILLED"


def wait_for_state(pid: int, state: str) -> None:
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < until
        time.sleep(0.01)


# -- leftovers


def test_a_daemon_that_holds_the_output_open_never_hangs_us(drive):
    driven = drive(["sh", "-c", "setsid sleep 1000 & echo $! started"], grace=2)
    end = driven.end()
    assert end["status"] == "FINISHED"
    assert [name for _, name in end["leftovers"]] == ["sleep"]
    assert gone(end["leftovers"][0][0])


def test_a_daemon_that_cut_every_tie_is_found_and_ended(drive, tmp_path):
    code = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        with open({str(tmp_path / "pid")!r}, "w") as f: f.write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
while not os.path.exists({str(tmp_path / "pid")!r}) or not open({str(tmp_path / "pid")!r}).read(): time.sleep(0.01)
"""
    end = drive(python(code)).end()
    assert (end["status"], len(end["leftovers"])) == ("FINISHED", 1)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_leftover_that_ignores_term_is_killed_after_the_grace(drive):
    end = drive(["sh", "-c", "(trap '' TERM; while :; do sleep 0.05; done) & exit 4"], grace=0.5).end()
    assert (end["status"], end["code"]) == ("FAILED", 4)
    assert end["leftovers"]
    assert all(gone(pid) for pid, _ in end["leftovers"])


def test_a_process_that_leaves_by_itself_in_a_moment_is_no_leftover(drive):
    driven = drive(["sh", "-c", "(sleep 0.2; echo last words) & exit 0"])
    assert driven.end()["leftovers"] == []
    assert b"last words" in driven.out


def test_other_children_of_ours_are_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "1000"])
    try:
        with Output(str(tmp_path / "log")) as output:
            end = run_child(["sh", "-c", "sleep 1000 &"], cwd="/", env=dict(os.environ), output=output, grace=1)
        assert len(end.leftovers) == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


# -- output


def test_both_streams_are_passed_on_and_kept(drive):
    driven = drive(["sh", "-c", "echo out; echo err >&2"])
    driven.end()
    assert (driven.out, driven.err) == (b"out\n", b"err\n")
    assert sorted(driven.log.read_bytes().split()) == [b"err", b"out"]


def test_streams_that_are_one_keep_their_order(drive):
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"
    driven = drive(["sh", "-c", script], popen={"stderr": subprocess.STDOUT})
    driven.process.stderr = None
    driven.end()
    expected = b"".join(b"o%d\ne%d\n" % (i, i) for i in range(1, 10))
    assert driven.out == expected
    assert driven.log.read_bytes() == expected


def test_output_comes_as_it_is_written_not_when_a_buffer_is_full(drive):
    driven = drive(["sh", "-c", "printf a; read line; printf b"], popen={"stdin": subprocess.PIPE})
    assert driven.process.stdout.read(1) == b"a"
    assert driven.log.read_bytes() == b"a"
    driven.process.stdin.write(b"go\n")
    driven.process.stdin.flush()
    assert driven.process.stdout.read(1) == b"b"
    driven.end()


def test_every_byte_survives(drive):
    tail = b"\xff\xfe no newline at the end"
    data = bytes(range(256)) * 3000 + tail
    driven = drive(python(f"import sys; sys.stdout.buffer.write(bytes(range(256)) * 3000 + {tail!r})"))
    driven.end()
    assert driven.out == data
    assert driven.log.read_bytes() == data


def test_a_child_that_closes_its_output_runs_on(drive, tmp_path):
    code = f"import os, time; os.close(1); os.close(2); time.sleep(0.5); open({str(tmp_path / 'done')!r}, 'w').close()"
    assert drive(python(code)).end()["status"] == "FINISHED"
    assert (tmp_path / "done").exists()


def test_a_reader_of_ours_that_goes_away_stops_neither_the_child_nor_the_log(drive):
    driven = drive(
        ["sh", "-c", "for i in 1 2 3 4; do echo $i; read x; done; seq 100000"], popen={"stdin": subprocess.PIPE}
    )
    driven.process.stdout.readline()
    driven.process.stdout.close()
    driven.process.stdout = None
    driven.process.stdin.write(b"\n\n\n\n")
    end = driven.end()
    assert end["status"] == "FINISHED"
    assert driven.log.read_bytes().endswith(b"99999\n100000\n")


def test_without_streams_of_our_own_the_log_is_kept(tmp_path):
    with Output(str(tmp_path / "log"), stdout=None, stderr=None) as output:
        run_child(["sh", "-c", "echo out; echo err >&2"], cwd="/", env=dict(os.environ), output=output)
    assert sorted((tmp_path / "log").read_bytes().split()) == [b"err", b"out"]


def test_a_reader_of_ours_that_is_asleep_does_not_make_us_deaf(drive):
    driven = drive(["sh", "-c", "while :; do echo spam; done"])
    until = time.monotonic() + 30  # fill every buffer on the way
    while driven.process.poll() is None and time.monotonic() < until:
        size = driven.log.stat().st_size if driven.log.exists() else 0
        time.sleep(0.3)
        if size and driven.log.stat().st_size == size:
            break
    driven.send(signal.SIGTERM)
    while not driven.result.exists():
        assert time.monotonic() < until + 30, "not ended while the reader slept"
        time.sleep(0.02)
    assert driven.end()["exit_code"] == 143


def test_a_log_beyond_its_cap_keeps_beginning_and_end_and_says_what_is_missing(drive):
    driven = drive(["sh", "-c", "seq 100000; echo the last line"], cap=10_000)
    driven.end()
    log = driven.log.read_bytes()
    assert log.startswith(b"1\n2\n3\n")
    assert log.endswith(b"99999\n100000\nthe last line\n")
    assert b"truncated" in log
    assert len(log) < 10_200
    assert len(driven.out) > 500_000
    assert os.listdir(driven.log.parent) == ["output.log"]


@pytest.mark.parametrize("size", [9_999, 10_000, 10_001, 14_999, 20_000, 123_456])
def test_a_log_is_exact_at_its_edges(tmp_path, size):
    data = b"".join(b"%06d\n" % i for i in range(20_000))[:size]
    with Output(str(tmp_path / "log"), stdout=None, stderr=None, cap=10_000) as output:
        for start in range(0, size, 777):
            output.log.write(data[start : start + 777])
    log = (tmp_path / "log").read_bytes()
    if size <= 10_000:
        assert log == data
    else:
        note = b"\n[mlcli: output truncated here: %d bytes are left out]\n" % (size - 10_000)
        assert log == data[:5_000] + note + data[-5_000:]


def test_a_full_disk_ends_the_log_and_not_the_run(drive):
    driven = drive(python("print('x' * 3_000_000)"), popen={"preexec_fn": limit_file_size})
    assert driven.end()["status"] == "FINISHED"
    assert len(driven.out) == 3_000_001
    assert driven.log.stat().st_size == 1_000_000


def limit_file_size() -> None:
    """The nearest thing to a full disk that needs no root: no file of ours grows beyond a megabyte."""
    default_signals()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def megabytes(count: int) -> list[str]:
    return python(f"import os\nchunk = b'0123456789abcde\\n' * 65536\nfor _ in range({count}): os.write(1, chunk)")


def check_flood(drive, count: int, cap: int) -> None:
    driven = drive(megabytes(count), cap=cap, popen={"stdout": subprocess.DEVNULL})
    end = driven.end(timeout=600)
    assert end["status"] == "FINISHED"
    assert end["own_memory"] < 120_000_000
    assert driven.log.stat().st_size < cap + 1000


def test_a_flood_of_output_costs_bounded_memory_and_disk(drive):
    check_flood(drive, 220, 16 << 20)


@pytest.mark.slow
def test_a_gigabyte_of_output_costs_bounded_memory_and_disk(drive):
    check_flood(drive, 1024, 256 << 20)


def test_a_flood_through_a_pipe_arrives_whole(drive):
    driven = drive(megabytes(40))
    driven.end()
    assert driven.out == b"0123456789abcde\n" * 65536 * 40


# -- terminals


class Terminal:
    """A terminal of ours with a driven child in it."""

    def __init__(self, drive, argv: list[str], size: tuple[int, int], **options) -> None:
        self.master, slave = pty.openpty()
        self.resize(*size)

        def become_foreground() -> None:
            default_signals()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.driven = drive(
            argv, popen={"stdin": slave, "stdout": slave, "stderr": slave, "preexec_fn": become_foreground}, **options
        )
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: bytes, timeout: float = 60) -> bytes:
        until = time.monotonic() + timeout
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        return self.seen

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def end(self) -> dict:
        until = time.monotonic() + 60
        while self.driven.process.poll() is None:
            assert time.monotonic() < until, self.seen
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    break
        self.driven.process.wait(timeout=60)
        os.close(self.master)
        return json.loads(self.driven.result.read_text())


IS_TERMINAL = """
import os, sys
print(sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size(1), "\\x1b[31mred\\x1b[0m")
"""


def test_on_a_terminal_the_child_has_terminals_of_the_same_size(drive):
    terminal = Terminal(drive, python(IS_TERMINAL), (33, 111))
    assert terminal.end()["status"] == "FINISHED"
    assert b"True True True os.terminal_size(columns=111, lines=33) \x1b[31mred\x1b[0m\r\n" in terminal.seen


def test_the_log_of_a_terminal_holds_what_was_written_without_carriage_returns(drive):
    terminal = Terminal(drive, ["sh", "-c", "echo one; echo two >&2; printf '\\rthree'"], (24, 80))
    terminal.end()
    assert terminal.driven.log.read_bytes() == b"one\ntwo\n\rthree"


def test_a_resized_terminal_resizes_the_childs(drive):
    code = """
import os, signal, time
seen = []
signal.signal(signal.SIGWINCH, lambda *_: (print("now", os.get_terminal_size(1).columns), seen.append(1)))
print("ready")
while not seen: time.sleep(0.02)
"""
    terminal = Terminal(drive, python(code), (24, 80))
    terminal.read_until(b"ready")
    terminal.resize(24, 99)
    terminal.read_until(b"now 99")
    terminal.end()


def test_what_is_typed_reaches_the_child(drive):
    terminal = Terminal(drive, python("print('name?'); print('hello', input())"), (24, 80))
    terminal.read_until(b"name?")
    terminal.type(b"world\n")
    terminal.end()
    assert b"hello world" in terminal.seen


def test_control_c_on_the_terminal_interrupts_the_child_once(drive):
    terminal = Terminal(drive, python(POLITE.replace("sys.exit(7)", "") + "\ntime.sleep(0.7); print('over')"), (24, 80))
    terminal.read_until(b"ready")
    terminal.type(b"\x03")
    terminal.read_until(b"got SIGINT")
    terminal.type(b"\x03")
    terminal.read_until(b"got SIGTERM")
    terminal.type(b"\x03")
    end = terminal.end()
    assert (end["status"], end["exit_code"], end["signal"]) == ("KILLED", 130, 9)
    assert terminal.driven.log.read_bytes().count(b"got SIGINT") == 1


def test_with_stdout_in_a_file_the_progress_bar_on_stderr_still_has_a_terminal(drive, tmp_path):
    master, slave = pty.openpty()
    with open(tmp_path / "out.txt", "wb") as out:
        driven = drive(
            python(IS_TERMINAL.replace("os.get_terminal_size(1)", "1")), popen={"stdout": out, "stderr": slave}
        )
    os.close(slave)
    driven.process.wait(timeout=60)
    os.close(master)
    assert (tmp_path / "out.txt").read_text().startswith("False False True")
