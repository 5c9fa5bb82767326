"""Runs of projects from birth to a truthful end: `mlcli run` as a process of its own, killed in every way."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlcli import kin, runner
from mlcli.store import open_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def project(folder: Path, code: str = "print('hello')", *, command: str = "python train.py", **files: str) -> Path:
    """A project with one entry point that runs ``code``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLproject").write_text(f"name: demo\nentry_points:\n  main:\n    command: {json.dumps(command)}\n")
    (folder / "train.py").write_text(code)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


class Mlcli:
    """An `mlcli run` under way, in the current folder's store."""

    def __init__(self, *args: object, **popen) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlcli", "run", *map(str, args)],
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "preexec_fn": default_signals,
                **popen,
            },
        )

    def wait_for(self, path: Path) -> str:
        return wait_for(path, self)

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self, timeout: float = 60) -> int:
        self.out, self.err = self.process.communicate(timeout=timeout)
        return self.process.returncode

    def guardian(self) -> int:
        """The child that watches over it."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (found,) = [int(pid) for pid in listed if Path(f"/proc/{pid}/comm").read_text().strip() == kin.GUARDIAN]
        return found


def default_signals() -> None:
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def wait_for(path: Path, mlcli: Mlcli | None = None) -> str:
    until = time.monotonic() + 60
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < until, f"{path.name} never came"
        if mlcli and mlcli.process.poll() is not None:
            mlcli.end()
            raise AssertionError(f"mlcli ended with {mlcli.process.returncode}: {mlcli.err.decode()}")
        time.sleep(0.01)
    return path.read_text()


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


@pytest.fixture
def start():
    started: list[Mlcli] = []

    def begin(*args: object, **popen) -> Mlcli:
        started.append(Mlcli(*args, "--env-manager=local", **popen))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            if stream:
                stream.close()


def the_run():
    with open_store() as store:
        (found,) = store.search_runs()
    return found


def ended_run(timeout: float = 30):
    """The one run, once readers see that it has ended."""
    until = time.monotonic() + timeout
    while (found := the_run()).info.status in ("RUNNING", "SCHEDULED"):
        assert time.monotonic() < until, f"still {found.info.status}"
        time.sleep(0.05)
    return found


def log_of(run) -> bytes:
    return Path(run.info.artifact_uri, "logs", "output.log").read_bytes()


# A program that says its pid in the file `pid` and then sleeps; POLITE ends by SIGTERM, STUBBORN does not.
SLEEPER = """
import os, signal, sys, time
{handlers}
with open({pid!r}, "w") as file: file.write(f"{{os.getpid()}}\\n")
time.sleep(600)
"""


def sleeper(tmp_path: Path, handlers: str = "") -> str:
    return SLEEPER.format(handlers=handlers, pid=str(tmp_path / "pid"))


STUBBORN = "for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(s, signal.SIG_IGN)"

# -- what is recorded


def test_a_good_run_is_finished_with_all_that_was_asked_to_be_known(tmp_path, mlcli):
    folder = project(tmp_path / "p")
    (folder / "MLproject").write_text(
        "name: demo\nentry_points:\n  main:\n    parameters:\n      lr: {type: float, default: 0.1}\n"
        "    command: python train.py {lr}\n"
    )
    done = mlcli(
        "run", folder, "-P", "lr=0.5", "-P", "extra=it's", "--env-manager=local",
        "--experiment-name", "exp", "--run-name", "first", "--tag", "team=vision",
    )  # fmt: skip
    assert done.stdout == "hello\n"
    run = the_run()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params == {"lr": "0.5", "extra": "it's"}
    tags = run.data.tags
    assert tags["mlflow.source.type"] == "PROJECT"
    assert tags["mlflow.source.name"] == str(folder)
    assert tags["mlflow.project.entryPoint"] == "main"
    assert tags["mlflow.project.backend"] == "local"
    assert "mlflow.project.env" not in tags
    assert tags["team"] == "vision"
    assert tags["mlcli.exit_code"] == "0"
    assert tags["mlcli.env.manager"] == "local"
    assert tags["mlcli.cwd"] == str(folder)
    assert "train.py 0.5" in tags["mlcli.command"]
    assert tags["mlflow.user"] == run.info.user_id != ""
    assert int(tags["mlcli.duration_ms"]) >= 0
    assert int(tags["mlcli.peak_memory_bytes"]) > 1_000_000
    assert float(tags["mlcli.cpu_seconds"]) > 0
    assert run.info.end_time >= run.info.start_time
    assert log_of(run) == b"hello\n"
    with open_store() as store:
        assert store.get_experiment(run.info.experiment_id).name == "exp"


def test_every_tag_that_a_run_gets_is_in_the_table(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p", "raise SystemExit(3)"), "--env-manager=local", check=3)
    assert set(the_run().data.tags) - {"mlflow.runName"} <= set(runner.TAGS)


@pytest.mark.parametrize("code", [1, 2, 3, 77, 255])
def test_the_programs_exit_code_is_ours_and_the_run_failed(tmp_path, mlcli, code):
    mlcli("run", project(tmp_path / "p", f"raise SystemExit({code})"), "--env-manager=local", check=code)
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.exit_code"]) == ("FAILED", str(code))


def test_the_reason_of_a_failure_is_the_last_line_the_program_said(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p", "raise ValueError('no data')"), "--env-manager=local", check=1)
    assert the_run().data.tags["mlcli.end_reason"] == "the program ended with exit code 1: ValueError: no data"


def test_a_program_that_is_not_there_fails_the_run_with_127(tmp_path, mlcli):
    done = mlcli("run", project(tmp_path / "p", command="no-such-program --x"), "--env-manager=local", check=127)
    assert "command not found: no-such-program" in done.stderr
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.exit_code"]) == ("FAILED", "127")
    assert "command not found" in run.data.tags["mlcli.end_reason"]


def test_a_program_that_may_not_be_executed_fails_the_run_with_126(tmp_path, mlcli):
    plain = project(tmp_path / "p") / "train.py"
    done = mlcli("run", project(tmp_path / "p", command=str(plain)), "--env-manager=local", check=126)
    assert "Permission denied" in done.stderr
    assert the_run().info.status == "FAILED"


def test_a_program_killed_with_9_is_a_killed_run_and_exit_137(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p", "import os; os.kill(os.getpid(), 9)"), "--env-manager=local", check=137)
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.signal"]) == ("KILLED", "SIGKILL")
    assert "SIGKILL" in run.data.tags["mlcli.end_reason"]


def test_the_child_finds_its_run_under_our_names_and_mlflows(tmp_path, mlcli):
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(('MLCLI_', 'MLFLOW_'))}))"
    done = mlcli(
        "run", project(tmp_path / "p", code), "--env-manager=local", env={**os.environ, "MLFLOW_EXPERIMENT_NAME": "e"}
    )
    found = json.loads(done.stdout)
    run = the_run()
    root = str(Path("mlruns").absolute())
    assert found["MLCLI_RUN_ID"] == found["MLFLOW_RUN_ID"] == run.info.run_id
    assert found["MLCLI_EXPERIMENT_ID"] == found["MLFLOW_EXPERIMENT_ID"] == run.info.experiment_id
    assert found["MLCLI_TRACKING_URI"] == root
    assert found["MLFLOW_TRACKING_URI"] == f"file://{root}"
    assert found["MLCLI_JOURNAL"].startswith(f"{root}/live/")
    assert json.loads(found["MLCLI_COMMAND"]) == [sys.executable, "-m", "mlcli"]
    assert found["MLCLI_ENV_MANAGER"] == "local"
    assert "MLFLOW_EXPERIMENT_NAME" not in found


def test_a_relative_store_means_the_same_folder_in_the_child(tmp_path, mlcli):
    done = mlcli(
        "run", project(tmp_path / "p", "import os; print(os.environ['MLCLI_TRACKING_URI'])"), "--env-manager=local",
        env={**os.environ, "MLCLI_TRACKING_URI": "some/store"},
    )  # fmt: skip
    assert done.stdout == f"{Path('some/store').absolute()}\n"


def test_any_language_logs_by_appending_lines_to_the_journal(tmp_path, mlcli):
    command = (
        """echo '{{"metric":"loss","value":0.5,"step":3}}' >> "$MLCLI_JOURNAL" && """
        """printf '{{"param":"torn","val' >> "$MLCLI_JOURNAL" """
    )
    mlcli("run", project(tmp_path / "p", command=command), "--env-manager=local")
    run = the_run()
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 0.5}


def test_a_status_set_on_purpose_is_kept_when_the_program_exits_with_0(tmp_path, mlcli):
    command = """echo '{{"status":"FAILED"}}' >> "$MLCLI_JOURNAL" """
    mlcli("run", project(tmp_path / "p", command=command), "--env-manager=local", check=0)
    assert the_run().info.status == "FAILED"


def test_a_status_set_on_purpose_does_not_hide_a_bad_exit_code(tmp_path, mlcli):
    command = """echo '{{"status":"FINISHED"}}' >> "$MLCLI_JOURNAL"; exit 9"""
    mlcli("run", project(tmp_path / "p", command=command), "--env-manager=local", check=9)
    assert the_run().info.status == "FAILED"


def git(folder: Path, *args: object) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *map(str, args)], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_and_what_was_changed_since_are_kept(tmp_path, mlcli):
    folder = project(tmp_path / "repo")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "train.py").write_text("print('changed')\n")
    mlcli("run", folder, "--env-manager=local")
    run = the_run()
    assert run.data.tags["mlflow.source.git.commit"] == git(folder, "rev-parse", "HEAD")
    assert run.data.tags["mlcli.git.dirty"] == "true"
    assert run.data.tags["mlflow.source.name"] == f"file://{folder}"
    diff = Path(run.info.artifact_uri, "code", "diff.patch").read_text()
    assert "-print('hello')" in diff
    assert "+print('changed')" in diff


@pytest.mark.parametrize("kind", ["version", "zip", "bare"])
def test_a_fetched_project_is_named_by_where_it_came_from_and_not_by_the_cache(tmp_path, mlcli, kind):
    folder = project(tmp_path / "repo" / "sub")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-qm", "first")
    git(folder.parent, "archive", "--format=zip", "-o", tmp_path / "p.zip", "HEAD")
    git(folder.parent, "clone", "-q", "--bare", folder.parent, tmp_path / "bare.git")
    asked, name = {
        "version": (["../repo/sub", "--version", "main"], f"file://{folder.parent}#sub"),
        "zip": (["../p.zip#sub"], f"{tmp_path}/p.zip#sub"),
        "bare": (["../bare.git#sub"], f"{tmp_path}/bare.git#sub"),
    }[kind]
    here = tmp_path / "here"
    here.mkdir()
    mlcli("run", *asked, "--env-manager=local", cwd=here, env={**os.environ, "MLCLI_TRACKING_URI": "mlruns"})
    with open_store(str(here / "mlruns")) as store:
        (run,) = store.search_runs()
    assert run.data.tags["mlflow.source.name"] == name


def test_a_clean_work_tree_leaves_no_diff(tmp_path, mlcli):
    folder = project(tmp_path / "repo")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    mlcli("run", folder, "--env-manager=local")
    run = the_run()
    assert run.data.tags["mlcli.git.dirty"] == "false"
    assert not Path(run.info.artifact_uri, "code").exists()


def test_the_installed_packages_are_kept_with_the_run(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p"), "--env-manager=local")
    frozen = Path(the_run().info.artifact_uri, "environment", "requirements.txt").read_text()
    assert "pytest==" in frozen


NO_INDEX = {
    "UV_INDEX_URL": "http://127.0.0.1:9/",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:9/",
    "PIP_INDEX_URL": "http://127.0.0.1:9/",
}


def test_an_environment_that_cannot_be_built_fails_the_run_with_its_log(tmp_path, mlcli):
    folder = project(tmp_path / "p", **{"python_env.yaml": "dependencies: [no-such-package-of-ours==1.0]\n"})
    with (folder / "MLproject").open("a") as file:
        file.write("python_env: python_env.yaml\n")
    done = mlcli("run", folder, "--env-manager=uv", check=5, env={**os.environ, **NO_INDEX, "UV_HTTP_RETRIES": "0"})
    assert "no-such-package-of-ours" in done.stderr
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.exit_code"]) == ("FAILED", "5")
    assert run.data.tags["mlcli.end_reason"]
    assert "no-such-package-of-ours" in Path(run.info.artifact_uri, "logs", "env.log").read_text()


# -- mistakes are found before there is a run


@pytest.mark.parametrize(
    "args",
    [
        ["-e", "nope"],
        ["-P", "lr"],
        ["-P", "a=1", "-P", "a=2"],
        ["--experiment-name", "a", "--experiment-id", "0"],
        ["--env-manager", "nope"],
        ["-b", "kubernetes"],
        ["--tag", "x"],
        ["--run-name", "a\nb"],
        ["--experiment-name", "  "],
    ],
)
def test_a_mistake_on_the_command_line_is_usage_and_leaves_nothing_behind(tmp_path, mlcli, args):
    done = mlcli("run", project(tmp_path / "p"), *args, check=2)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not Path("mlruns").exists()


def test_an_experiment_id_that_is_not_there_is_not_found_and_makes_no_run(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p"), "--env-manager=local", "--experiment-id", "77", check=3)
    with open_store() as store:
        assert store.search_runs() == []


def test_a_project_that_is_not_there_makes_no_run(mlcli):
    done = mlcli("run", "no-such-folder", check=2)
    assert "no-such-folder" in done.stderr
    assert not Path("mlruns").exists()


def test_a_grace_that_is_no_number_is_said_before_there_is_a_run(tmp_path, mlcli):
    done = mlcli(
        "run", project(tmp_path / "p"), "--env-manager=local", check=2, env={**os.environ, "MLCLI_GRACE": "soon"}
    )
    assert "MLCLI_GRACE" in done.stderr
    assert not Path("mlruns").exists()


# -- who dies first


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_mlcli_ends_the_program_and_the_run_is_killed(tmp_path, start, name, code):
    running = start(project(tmp_path / "p", sleeper(tmp_path)))
    pid = int(running.wait_for(tmp_path / "pid"))
    running.send(getattr(signal, name))
    assert running.end() == code
    assert not is_alive(pid)
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.exit_code"]) == ("KILLED", str(code))
    assert name in run.data.tags["mlcli.end_reason"]


def test_control_c_reaches_the_program_once_though_the_terminal_sends_it_to_our_whole_group(tmp_path, start):
    counting = (
        "count = 0\n"
        "def handler(signum, frame):\n"
        "    global count\n"
        "    count += 1\n"
        "    print('interrupt', count, flush=True)\n"
        "    signal.signal(signal.SIGALRM, lambda *_: sys.exit(5))\n"
        "    signal.alarm(1)\n"
        "signal.signal(signal.SIGINT, handler)"
    )
    running = start(project(tmp_path / "p", sleeper(tmp_path, counting)), start_new_session=True)
    running.wait_for(tmp_path / "pid")
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.end() == 130
    assert running.out == b"interrupt 1\n"


def test_a_stubborn_program_is_killed_by_the_third_interrupt(tmp_path, start):
    running = start(project(tmp_path / "p", sleeper(tmp_path, STUBBORN)))
    pid = int(running.wait_for(tmp_path / "pid"))
    for _ in range(3):
        running.send(signal.SIGINT)
        time.sleep(0.3)
    assert running.end() == 130
    assert not is_alive(pid)
    assert the_run().info.status == "KILLED"


def test_a_stubborn_program_is_killed_when_the_grace_after_a_term_is_over(tmp_path, start):
    environ = {**os.environ, "MLCLI_GRACE": "0.5"}
    running = start(project(tmp_path / "p", sleeper(tmp_path, STUBBORN)), env=environ)
    pid = int(running.wait_for(tmp_path / "pid"))
    running.send(signal.SIGTERM)
    assert running.end() == 143
    assert not is_alive(pid)
    assert the_run().info.status == "KILLED"


def test_when_mlcli_is_killed_with_9_the_program_is_ended_and_the_run_closed(tmp_path, start):
    running = start(project(tmp_path / "p", sleeper(tmp_path)))
    pid = int(running.wait_for(tmp_path / "pid"))
    running.send(signal.SIGKILL)
    running.end()
    assert gone(pid)
    run = ended_run()
    assert (run.info.status, run.data.tags["mlcli.end_reason"]) == ("KILLED", "mlcli was killed")


def test_while_the_guardian_still_ends_the_program_no_reader_closes_the_run(tmp_path, start):
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.5), sys.exit(0)))"
    running = start(project(tmp_path / "p", sleeper(tmp_path, slow)))
    pid = int(running.wait_for(tmp_path / "pid"))
    running.send(signal.SIGKILL)
    running.end()
    assert is_alive(pid)
    assert the_run().info.status == "RUNNING"
    assert gone(pid)
    assert ended_run().data.tags["mlcli.end_reason"] == "mlcli was killed"


def test_when_mlcli_is_killed_with_9_a_daemon_of_the_program_ends_too(tmp_path, start):
    code = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(0, 100)
        with open({str(tmp_path / "pid")!r}, "w") as file: file.write(f"{{os.getpid()}}\\n")
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""
    running = start(project(tmp_path / "p", code))
    pid = int(running.wait_for(tmp_path / "pid"))
    running.send(signal.SIGKILL)
    running.end()
    assert gone(pid)
    assert ended_run().info.status == "KILLED"


def test_when_mlcli_and_its_guardian_are_killed_the_program_ends_and_the_next_reader_closes_the_run(tmp_path, start):
    running = start(project(tmp_path / "p", sleeper(tmp_path)))
    pid = int(running.wait_for(tmp_path / "pid"))
    os.kill(running.guardian(), signal.SIGKILL)
    running.send(signal.SIGKILL)
    running.end()
    assert ended_run().info.status == "KILLED"
    assert gone(pid)


def test_when_mlcli_is_killed_with_9_the_stubborn_program_of_a_nested_run_ends_too(tmp_path, start):
    inner = project(tmp_path / "inner", sleeper(tmp_path, STUBBORN))
    code = f"import mlcli.projects; mlcli.projects.run({str(inner)!r})"
    running = start(project(tmp_path / "outer", code))
    pid = int(running.wait_for(tmp_path / "pid"))
    running.send(signal.SIGKILL)
    running.end()
    assert gone(pid, 60)
    until = time.monotonic() + 60
    while "RUNNING" in (statuses := all_statuses()):
        assert time.monotonic() < until, statuses
        time.sleep(0.1)
    assert statuses == ["KILLED", "KILLED"]


def all_statuses() -> list[str]:
    with open_store() as store:
        return [run.info.status for run in store.search_runs()]


def test_a_killed_guardian_does_no_harm(tmp_path, start):
    code = f"""
import os, time
open({str(tmp_path / "pid")!r}, "w").write(f"{{os.getpid()}}\\n")
while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.01)
"""
    running = start(project(tmp_path / "p", code))
    running.wait_for(tmp_path / "pid")
    os.kill(running.guardian(), signal.SIGKILL)
    (tmp_path / "go").touch()
    assert running.end() == 0
    assert the_run().info.status == "FINISHED"


def test_nothing_of_ours_is_left_after_a_run(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p"), "--env-manager=local")
    mark = f"MLCLI_RUN_ID={the_run().info.run_id}".encode()
    assert kin.find(-1, mark) == []


def test_a_daemon_left_behind_is_ended_with_a_warning(tmp_path, mlcli):
    done = mlcli("run", project(tmp_path / "p", command="setsid sleep 1000 & exit 0"), "--env-manager=local")
    assert "left processes behind" in done.stderr
    assert "sleep" in done.stderr
    assert the_run().info.status == "FINISHED"


def test_a_terminated_environment_build_is_a_killed_run(tmp_path, start):
    """A stand-in `python` on the PATH that never answers keeps mlcli in the middle of finding the environment."""
    running = start(project(tmp_path / "p"), env={**os.environ, "PATH": slow_python(tmp_path)})
    running.wait_for(tmp_path / "asked")
    running.send(signal.SIGTERM)
    assert running.end() == 143
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.exit_code"]) == ("KILLED", "143")


def test_when_mlcli_is_killed_with_9_while_it_builds_the_next_reader_closes_the_run(tmp_path, start):
    running = start(project(tmp_path / "p"), env={**os.environ, "PATH": slow_python(tmp_path)})
    running.wait_for(tmp_path / "asked")
    assert the_run().info.status == "SCHEDULED"
    running.send(signal.SIGKILL)
    running.process.wait()
    assert the_run().info.status == "KILLED"


def test_a_program_that_removes_its_own_log_still_ends_as_it_ended(tmp_path, mlcli):
    code = "import os, shutil; shutil.rmtree(os.environ['MLCLI_TRACKING_URI'] + '/0'); raise SystemExit(3)"
    mlcli("run", project(tmp_path / "p", code), "--env-manager=local", check=3)
    run = the_run()
    assert (run.info.status, run.data.tags["mlcli.end_reason"]) == ("FAILED", "the program ended with exit code 3")


def test_a_script_that_goes_on_with_the_run_adds_to_it(tmp_path, mlcli):
    code = """
import mlcli
with mlcli.start_run() as run:
    mlcli.log_param("lr", 0.1)
    mlcli.log_metric("loss", 0.5)
    mlcli.log_text("hello", "notes/hello.txt")
"""
    mlcli("run", project(tmp_path / "p", code), "--env-manager=local")
    run = the_run()
    assert (run.info.status, run.data.params, run.data.metrics) == ("FINISHED", {"lr": "0.1"}, {"loss": 0.5})
    assert Path(run.info.artifact_uri, "notes", "hello.txt").read_text() == "hello"


def slow_python(tmp_path: Path) -> str:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "python"
    script.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\nexec sleep 10\n")
    script.chmod(0o755)
    return f"{script.parent}:/usr/bin:/bin"


DOCKER = """#!/bin/sh
# Stands in for docker: says that it is there and has the image, and runs what comes after the image.
echo "$@" >> {log}
case "$1" in
  version) echo 1 ;;
  image) echo sha256:0 ;;
  run) while [ "$1" != "stand-in:1" ]; do shift; done; shift; exec "$@" ;;
esac
"""


def in_container(tmp_path: Path, command: str) -> tuple[Path, dict[str, str]]:
    folder = project(tmp_path / "p", command=command)
    with (folder / "MLproject").open("a") as file:
        file.write("docker_env:\n  image: stand-in:1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER.format(log=tmp_path / "docker.log"))
    (tmp_path / "bin" / "docker").chmod(0o755)
    return folder, {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def test_a_project_with_an_image_runs_in_it_and_finds_its_run(tmp_path, mlcli):
    folder, environ = in_container(tmp_path, "printenv MLCLI_RUN_ID")
    done = mlcli("run", folder, "-A", "gpus=all", env=environ)
    run = the_run()
    assert done.stdout == f"{run.info.run_id}\n"
    assert run.data.tags["mlflow.project.env"] == "docker"
    assert "--gpus all" in (tmp_path / "docker.log").read_text()


def test_a_container_whose_client_was_killed_is_killed(tmp_path, mlcli):
    folder, environ = in_container(tmp_path, "sh -c 'kill -9 $$'")
    mlcli("run", folder, env=environ, check=137)
    assert (tmp_path / "docker.log").read_text().endswith(f"kill mlcli-{the_run().info.run_id}\n")


# -- output


def test_a_reader_that_goes_away_leaves_the_run_alone(tmp_path, start):
    code = "import sys\nfor i in range(50000): print(i)\n"
    running = start(project(tmp_path / "p", code))
    running.process.stdout.readline()
    running.process.stdout.close()
    running.process.stdout = None
    assert running.end() == 0
    run = the_run()
    assert run.info.status == "FINISHED"
    assert log_of(run).endswith(b"49999\n")


def test_with_stdout_closed_the_output_does_not_go_into_our_own_files(tmp_path):
    folder = project(tmp_path / "p", "print('x' * 100)")
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m mlcli run {folder} --env-manager=local >&- 2>&- <&-"],
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    run = the_run()
    assert run.info.status == "FINISHED"
    assert log_of(run) == b"x" * 100 + b"\n"
    with open_store() as store:
        assert store.rejected_lines() == []


def test_a_program_that_prints_binary_is_kept_byte_for_byte(tmp_path, start):
    running = start(project(tmp_path / "p", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)"))
    assert running.end() == 0
    assert running.out == bytes(range(256)) * 1000 == log_of(the_run())


# -- again and inside


def test_a_run_may_be_run_again_into(tmp_path, mlcli):
    folder = project(tmp_path / "p", "import os, sys; sys.exit(0 if os.path.exists('ok') else 1)")
    mlcli("run", folder, "--env-manager=local", check=1)
    run_id = the_run().info.run_id
    (folder / "ok").touch()
    mlcli("run", folder, "--env-manager=local", "--run-id", run_id[:6])
    run = the_run()
    assert (run.info.status, run.info.run_id, run.data.tags["mlcli.exit_code"]) == ("FINISHED", run_id, "0")
    assert "mlcli.end_reason" not in run.data.tags


def test_a_run_that_is_run_again_into_keeps_its_experiment_and_params(tmp_path, mlcli):
    folder = project(tmp_path / "p")
    mlcli("run", folder, "--env-manager=local", "--experiment-name", "e", "-P", "a=1")
    mlcli("run", folder, "--env-manager=local", "--run-id", "latest", "-P", "a=1")
    with open_store() as store:
        assert store.get_experiment(the_run().info.experiment_id).name == "e"
    mlcli("run", folder, "--env-manager=local", "--run-id", "latest", "-P", "a=2", check=2)
    mlcli("run", folder, "--env-manager=local", "--run-id", "latest", "--experiment-name", "other", check=2)
    assert the_run().info.status == "FINISHED"


def test_a_run_that_is_alive_cannot_be_run_again_into(tmp_path, start, mlcli):
    folder = project(tmp_path / "p", sleeper(tmp_path))
    running = start(folder)
    running.wait_for(tmp_path / "pid")
    done = mlcli("run", folder, "--env-manager=local", "--run-id", the_run().info.run_id, check=1)
    assert "is RUNNING" in done.stderr


def test_mlcli_run_inside_a_run_makes_a_child_run_and_inherits_the_env_manager(tmp_path, mlcli):
    project(tmp_path / "inner", "print('inner')", **{"python_env.yaml": "dependencies: [no-such-package-at-all]\n"})
    with (tmp_path / "inner" / "MLproject").open("a") as file:
        file.write("python_env: python_env.yaml\n")
    outer = project(tmp_path / "outer", command=f"{sys.executable} -m mlcli run {tmp_path / 'inner'} -q")
    mlcli("run", outer, "--env-manager=local", "--experiment-name", "e")
    with open_store() as store:
        runs = {run.data.tags["mlcli.cwd"]: run for run in store.search_runs()}
    child, parent = runs[str(tmp_path / "inner")], runs[str(outer)]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["mlcli.env.manager"] == "local"
    assert child.info.experiment_id == parent.info.experiment_id
    assert (child.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert "mlflow.parentRunId" not in parent.data.tags


NESTED = """
import mlcli.projects
from mlcli.errors import RunFailed
good = mlcli.projects.run({inner!r}, parameters={{"code": 0}})
print("good", good.wait(), good.get_status())
try:
    mlcli.projects.run({inner!r}, parameters={{"code": 4}})
except RunFailed as error:
    print("bad", error.exit_code)
later = mlcli.projects.run({inner!r}, parameters={{"code": 0}}, synchronous=False, run_name="later")
print("later", later.wait(), later.get_status())
endless = mlcli.projects.run({inner!r}, entry_point="endless", synchronous=False)
import time
while endless.get_status() != "RUNNING": time.sleep(0.05)
endless.cancel()
print("cancelled", endless.get_status())
"""
STEPS = """
name: steps
entry_points:
  main:
    parameters: {code: int}
    command: "exit {code}"
  endless:
    command: "sleep 600"
"""


@pytest.mark.parametrize("python", [sys.executable, os.path.expanduser("~/.pyenv/versions/3.8.18/bin/python")])
def test_projects_run_from_python_makes_child_runs_and_tells_their_ends(tmp_path, mlcli, python):
    if not os.path.exists(python):
        pytest.skip("this machine has no Python 3.8")
    inner = project(tmp_path / "inner")
    (inner / "MLproject").write_text(STEPS)
    outer = project(tmp_path / "outer", NESTED.format(inner=str(inner)), command=f"{python} train.py")
    done = mlcli("run", outer, "--env-manager=local")
    assert done.stdout.splitlines() == ["good True FINISHED", "bad 4", "later True FINISHED", "cancelled KILLED"]
    with open_store() as store:
        runs = store.search_runs()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED", "KILLED"]
    assert "later" in [run.info.run_name for run in children]


def test_a_run_id_of_another_store_in_the_environment_makes_no_parent(tmp_path, mlcli):
    mlcli("run", project(tmp_path / "p"), "--env-manager=local", env={**os.environ, "MLFLOW_RUN_ID": "0" * 32})
    run = the_run()
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.info.run_id != "0" * 32


# -- parameters of type path that lie elsewhere


class Data(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path.startswith("/data") else 404)
        self.end_headers()
        self.wfile.write(b"a,b\n1,2\n")

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Data) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


READER = "import sys; print(sys.argv[1]); print(open(sys.argv[1]).read().split())"
WITH_PATH = """
name: reads
entry_points:
  main:
    parameters: {data: path}
    command: "python train.py {data}"
"""


@pytest.mark.parametrize("kept", [False, True])
def test_a_path_at_an_http_address_is_downloaded_for_the_program(tmp_path, mlcli, address, kept):
    folder = project(tmp_path / "p", READER)
    (folder / "MLproject").write_text(WITH_PATH)
    storage = ["--storage-dir", tmp_path / "storage"] if kept else []
    done = mlcli("run", folder, "--env-manager=local", "-P", f"data={address}/data.csv", *storage)
    path, content = done.stdout.splitlines()
    assert content == "['a,b', '1,2']"
    assert path.endswith("/param_0/data.csv")
    assert os.path.exists(path) is kept
    assert the_run().data.params == {"data": f"{address}/data.csv"}


def test_a_path_that_cannot_be_downloaded_fails_the_run_before_its_program_starts(tmp_path, mlcli, address):
    folder = project(tmp_path / "p", READER)
    (folder / "MLproject").write_text(WITH_PATH)
    done = mlcli("run", folder, "--env-manager=local", "-P", f"data={address}/gone.csv", check=1)
    assert done.stdout == ""
    assert "the parameter `data`" in done.stderr
    assert "404" in done.stderr or "Not Found" in done.stderr
    assert the_run().info.status == "FAILED"


# -- the last line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", ""),
        (b"one\ntwo\n\n", "two"),
        (b"\x1b[31mValueError: x\x1b[0m\n", "ValueError: x"),
        (b"50%\r100%\r", "100%"),
        (b"bad \xff\x00\x07bytes", "bad \ufffdbytes"),
        (b"x" * 100_000, "x" * 300),
    ],
)
def test_the_last_line_that_says_something_is_found_without_colours(tmp_path, text, expected):
    (tmp_path / "log").write_bytes(text)
    assert runner.last_line(str(tmp_path / "log")) == expected


# -- a signal at the worst moment

DROPPED = """
import os, signal, sys
from mlcli import runner

class Finaliser:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass  # here Python runs the handler, and drops what it raises

listener = runner.Listener(created=lambda *_: Finaliser() and None)
print(runner.run(runner.Request(sys.argv[1], env_manager="local"), listener).exit_code)
"""


def test_a_signal_whose_exception_python_drops_still_ends_the_run(tmp_path):
    folder = project(tmp_path / "p", command="sleep 600")
    done = subprocess.run(
        [sys.executable, "-c", DROPPED, str(folder)], capture_output=True, text=True, timeout=100, check=False
    )
    assert "Exception ignored" in done.stderr, "the signal was to strike inside a finaliser"
    assert done.stdout.strip() == "143"
    assert the_run().info.status == "KILLED"
