"""The boundary: how a command line is taken apart, and how every error becomes two lines and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlcli.cli.doctor  # noqa: F401 - a command module that the tests put an ill one in place of
from mlcli import errors
from mlcli.cli import COMMANDS, boundary
from mlcli.cli.boundary import Invocation, take_apart

PYTHON = [sys.executable, "-m", "mlcli"]


# --- words


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["runs", "list"], Invocation(False, False, False, "runs", ("list",))),
        (["-q", "runs", "list"], Invocation(True, False, False, "runs", ("list",))),
        (["runs", "list", "--quiet"], Invocation(True, False, False, "runs", ("list",))),
        (["runs", "--debug", "list", "--verbose"], Invocation(False, True, True, "runs", ("list",))),
        (["-v", "run", "-v", "v1.0"], Invocation(False, True, False, "run", ("-v", "v1.0"))),
        (["run", ".", "--", "--quiet", "-q"], Invocation(False, False, False, "run", (".", "--", "--quiet", "-q"))),
        (["-q"], Invocation(True, False, False, "", ())),
        (["--tracking-uri", "x", "runs"], Invocation(False, False, False, "runs", (), "x")),
        (["runs", "list", "--tracking-uri=x"], Invocation(False, False, False, "runs", ("list",), "x")),
    ],
)
def test_options_that_count_everywhere_are_found_before_a_double_dash(argv, expected):
    assert take_apart(argv) == expected


def test_a_short_v_behind_the_command_is_the_commands_own(mlcli):
    assert mlcli("experiments", "search", "-v", "all").stdout.startswith("experiment_id\t")


def test_version(mlcli):
    from mlcli import __version__

    assert mlcli("--version").stdout == f"mlcli {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(mlcli, argv):
    out = mlcli(*argv).stdout
    assert all(f"  {name} " in out for name in COMMANDS)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(mlcli, command):
    out = mlcli(command, "-h").stdout
    assert out.startswith(f"Usage: mlcli {command}")
    assert mlcli("help", command).stdout == out


def test_each_command_of_a_group_has_help_that_begins_with_a_short_sentence(mlcli):
    for group in ("runs", "experiments", "artifacts", "models"):
        listed = mlcli(group).stdout.partition("Commands:\n")[2].splitlines()
        assert listed
        for line in listed:
            name, about = line.split(maxsplit=1)
            assert not about.endswith("..."), f"{group} {name}: the first sentence is too long for a list"
            assert mlcli(group, name, "--help").stdout.startswith(f"Usage: mlcli {group} {name}")


# --- usage errors


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["runz"], "there is no command 'runz'", "did you mean `run`"),
        (["zzzzz"], "there is no command 'zzzzz'", "`mlcli --help` lists them"),
        (["--versoin"], "there is no option '--versoin'", "did you mean `--version`"),
        (["-q"], "no command is given", "`mlcli --help` lists the commands"),
        (["runs", "lst"], "there is no command runs 'lst'", "did you mean `list`?"),
        (["runs", "list", "--jsno"], "there is no option '--jsno'", "did you mean `--json`?"),
        (["runs", "list", "--max-results", "x"], "'x' is not a valid int", "`mlcli runs list --help`"),
        (["runs", "list", "--max-results", "0"], "0 is not in the range", "`mlcli runs list --help`"),
        (["runs", "diff", "a"], "missing argument", "`mlcli runs diff --help`"),
        (["runs", "compare"], "no run is named", "mlcli runs compare latest latest~1"),
        (["runs", "list", "--view", "some"], "there is no view 'some'", "active_only, deleted_only or all"),
    ],
)
def test_a_usage_error_says_what_to_write_instead_and_exits_2(mlcli, argv, message, hint):
    done = mlcli(*argv, check=2)
    assert done.stdout == ""
    error, hinted = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error.lower()
    assert hinted.startswith("hint: ")
    assert hint in hinted


# --- errors of every kind, through the boundary in this process


class IllCommand:
    """A command module whose command does what a test gives it."""

    def __init__(self, action) -> None:
        import typer

        self.app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

        @self.app.command()
        def ill() -> None:
            action()


@pytest.fixture
def ill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """``ill(error, debug=False)`` runs a command that raises it: exit code and what stood on stderr."""

    def call(error: BaseException, *, debug: bool = False) -> tuple[int, str]:
        def action() -> None:
            raise error

        monkeypatch.setitem(sys.modules, "mlcli.cli.doctor", IllCommand(action))
        code = boundary.run(Invocation(False, False, debug, "doctor", ()))
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MlcliError("x"), 1),
        (errors.InvalidInput("x"), 2),
        (errors.ProjectError("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.AlreadyExists("x"), 1),
        (errors.InvalidState("x"), 1),
        (errors.ModelError("x"), 1),
        (errors.EnvError("x"), 5),
        (errors.StoreUnavailable("x"), 6),
        (errors.RunFailed("x", run_id="1", code=137), 137),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "/etc/shadow"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(ill, error, code):
    found, told = ill(error)
    assert found == code
    assert told.startswith("error: ")
    assert "Traceback" not in told


def test_an_error_is_followed_by_its_hint(ill):
    assert ill(errors.NotFound("no such thing", hint="make one"))[1] == "error: no such thing\nhint: make one\n"


def test_a_project_error_names_file_line_and_column(ill):
    error = errors.ProjectError("bad", file="MLproject", line=3, column=7)
    assert ill(error)[1] == "error: MLproject:3:7: bad\n"


def test_a_filter_error_points_at_the_place(ill):
    error = errors.FilterSyntaxError("what is this", text="a ? b", position=2)
    assert ill(error)[1] == "error: what is this\n  a ? b\n    ^\n"


def test_an_environment_error_shows_the_end_of_the_output_and_where_the_rest_is(ill):
    told = ill(errors.EnvError("cannot install", tail="one\ntwo\n", log="/tmp/x.log"))[1]
    assert told == "error: cannot install\n  | one\n  | two\n  the whole output: /tmp/x.log\n"


def test_control_characters_in_a_message_cannot_steer_the_terminal(ill):
    assert ill(errors.MlcliError("\x1b[2Jboo"))[1] == "error: \\x1b[2Jboo\n"


def test_debug_shows_the_traceback(ill):
    assert "Traceback" in ill(errors.NotFound("x"), debug=True)[1]


def test_a_bug_exits_with_4_and_leaves_a_report(ill):
    code, told = ill(ValueError("not thought of"))
    assert code == 4
    assert told.startswith("error: mlcli itself failed: ValueError: not thought of\nhint: a report is in ")
    reports = list((Path(os.environ["XDG_STATE_HOME"]) / "mlcli" / "reports").iterdir())
    assert len(reports) == 1
    assert "ValueError: not thought of" in reports[0].read_text()
    assert str(reports[0]) in told


def test_a_bug_is_told_even_where_no_report_can_be_written(ill, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    code, told = ill(ValueError("x"))
    assert code == 4
    assert "--debug" in told


def test_commands_can_run_one_after_the_other_in_one_process(capsys):
    for words in (("list",), ("search", "metrics.x > 1"), ("list", "--json")):
        assert boundary.run(Invocation(False, False, False, "runs", words)) == 0
    assert capsys.readouterr().out.endswith("[]\n")


# --- streams and surroundings


def fill(count: int) -> None:
    from mlcli.store import open_store

    with open_store() as store:
        for _ in range(count):
            store.create_run("0")


def test_a_reader_that_leaves_ends_the_command_silently():
    fill(300)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PYTHON, "runs", "list", "--max-results", "300"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_behind_stdout_is_told():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([*PYTHON, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().startswith("error: cannot write the output: No space left on device")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_no_harm(closed):
    command = f'"{sys.executable}" -m mlcli experiments create "$1" {closed}'
    name = f"made with {len(closed)}"
    done = subprocess.run(["sh", "-c", command, "sh", name], capture_output=True, check=False)
    assert done.returncode == 0
    from mlcli.store import open_store

    with open_store() as store:
        assert store.find_experiment(name) is not None
        assert all(len(experiment.name) < 30 for experiment in store.search_experiments())


def test_a_console_of_ascii_only_gets_something_for_every_sign(mlcli):
    mlcli("experiments", "create", "naïve 日本")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert "na?ve ??" in mlcli("experiments", "search", env=environ).stdout
    assert '"na\\u00efve \\u65e5\\u672c"' in mlcli("experiments", "search", "--json", env=environ).stdout


def test_a_folder_deleted_under_us_is_no_traceback(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'cd "{gone}" && rmdir "{gone}" && exec "{sys.executable}" -m mlcli runs list'
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": _here()}
    )
    assert done.returncode in (0, 2, 6)
    assert "Traceback" not in done.stderr
    assert "mlcli itself failed" not in done.stderr


def test_a_disk_that_is_full_only_at_the_end_is_told_once():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*PYTHON, "experiments", "search"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "words", [("runs", "show"), ("runs", "delete"), ("runs", "list", "-n"), ("experiments", "get")]
)
def test_bytes_that_are_no_text_are_a_usage_error(words):
    done = subprocess.run([*PYTHON, *words, b"\xff\xfe"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not valid" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_home_and_few_descriptors_are_enough():
    environ = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("XDG_")}
    command = f'ulimit -n 64; exec "{sys.executable}" -m mlcli runs list'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr


def _here() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
