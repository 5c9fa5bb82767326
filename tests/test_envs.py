"""Environments: reused by what they hold, built by one, never seen half built, and honest about Python."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from wheelhouse import make_wheel

from mlcli import __version__, config, envs
from mlcli.envs import docker, installer, kept, lock, managers, why
from mlcli.envs import env as on_disk
from mlcli.envs import python as pythons
from mlcli.errors import EnvError, InvalidInput, InvalidState, NotFound, ProjectError
from mlcli.locks import locked
from mlcli.projects.docker import DockerSpec
from mlcli.projects.envfile import EnvSpec, read_env
from mlcli.projects.requirements import Requirement

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
REAL_HOME = os.path.expanduser("~")


@pytest.fixture(autouse=True)
def _no_python_downloads(monkeypatch):
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PYENV_ROOT", os.environ.get("PYENV_ROOT") or str(Path(REAL_HOME) / ".pyenv"))


@pytest.fixture
def wheels(tmp_path):
    """A folder of wheels: alpha 1.0 and 2.0, and beta, which needs alpha."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "alpha", "1.0")
    make_wheel(folder, "alpha", "2.0")
    make_wheel(folder, "beta", "1.5", needs=("alpha",))
    return folder


@pytest.fixture
def project(tmp_path, wheels):
    """Write a project whose packages come from the folder of wheels: ``project("alpha==1.0", python=...)``."""

    def call(*dependencies, python=None, build=(), name="proj", files=None):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        lines = ["--no-index", f"--find-links {wheels}", *dependencies] if dependencies else []
        data = {"build_dependencies": list(build), "dependencies": lines}
        if python is not None:
            data["python"] = python
        (folder / "python_env.yaml").write_text(json.dumps(data))
        for path, content in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        return read_env(str(folder))

    return call


def ask(env, code, **options):
    """Run code in an environment as the runner would."""
    done = subprocess.run(
        ["python", "-c", code],
        env=envs.variables(env, os.environ),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def leftovers():
    root = Path(os.environ["XDG_CACHE_HOME"]) / "mlcli" / "envs"
    return sorted(path.name for path in root.iterdir() if path.name not in ("locks", "logs")) if root.exists() else []


# -- building and reusing


@pytest.mark.parametrize("manager", ["virtualenv", "uv"])
def test_an_environment_holds_what_the_project_asks_for(project, manager):
    env = envs.ensure(project("alpha==1.0"), manager)
    assert (env.manager, env.built, env.version) == (manager, True, pythons.choose(None).python.version)
    assert ask(env, "import alpha; print(alpha.__version__)") == "1.0"
    assert ask(env, "import sys; print(sys.prefix)") == env.prefix
    assert envs.freeze(env) == "alpha==1.0\n"


def test_virtualenv_is_the_default(project):
    assert envs.choose(project("alpha")) == "virtualenv"


def test_the_second_time_it_is_reused_and_no_program_is_started(project, monkeypatch):
    spec = project("alpha==1.0")
    first = envs.ensure(spec, "uv")
    monkeypatch.setattr(subprocess, "Popen", None)
    second = envs.ensure(spec, "uv")
    assert (first.built, second.built) == (True, False)
    assert first.prefix == second.prefix


def test_reuse_imports_nothing_that_builds(project):
    spec = project("alpha==1.0")
    envs.ensure(spec, "uv")
    code = (
        "import sys; from mlcli import envs; from mlcli.projects.envfile import read_env;"
        f"e = envs.ensure(read_env({spec.folder!r}), 'uv'); assert not e.built;"
        "print([m for m in ('subprocess', 'shutil', 'tempfile', 'virtualenv', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("line", "installs", "pinned"),
    [
        ("a==1", True, True),
        ("a[x] == 1.0; python_version<'3'", True, True),
        ("a==1 --hash=sha256:x", True, True),
        ("pip", True, True),
        ("a", True, False),
        ("a>=1", True, False),
        ("a==1.*", True, False),
        ("a @ https://x/a==1", True, False),
        ("./a==1", True, False),
        ("-e .", True, False),
        ("-rhttps://x/y==1", True, False),
        ("git+https://x@1==2", True, False),
        ("--index-url https://x", False, True),
        ("--require-hashes", False, True),
    ],
)
def test_the_cache_alone_may_answer_only_for_exact_versions(line, installs, pinned):
    item = Requirement(line, "requirements.txt")
    assert (managers.installs(item), managers.pinned([item])) == (installs, pinned)


def test_two_projects_with_the_same_needs_share_one_environment(project):
    one = envs.ensure(project("alpha==1.0", name="one"), "uv", project="one")
    two = envs.ensure(project("alpha==1.0", name="two"), "uv", project="two")
    assert (one.prefix, two.built) == (two.prefix, False)
    assert on_disk.read_state(two.prefix).projects == ("one", "two")


@pytest.mark.parametrize(
    "other",
    [
        {"dependencies": ("alpha==2.0",)},
        {"dependencies": ("alpha==1.0", "beta")},
        {"dependencies": ("-r requirements.txt",), "files": {"requirements.txt": "alpha==2.0\n"}},
        {"dependencies": ("alpha==1.0", "-c limits.txt"), "files": {"limits.txt": "alpha<2\n"}},
    ],
)
def test_other_needs_have_another_key(project, other):
    python = pythons.choose(None).python
    base = project("alpha==1.0")
    changed = project(*other["dependencies"], files=other.get("files"))
    assert on_disk.fingerprint(base, "uv", python) != on_disk.fingerprint(changed, "uv", python)


def test_the_key_knows_the_manager_and_the_python_but_not_where_it_lies(project):
    spec = project("alpha==1.0")
    python = pythons.choose(None).python
    key = on_disk.fingerprint(spec, "uv", python)
    assert key == on_disk.fingerprint(spec, "uv", python._replace(path="/elsewhere/python"))
    assert key != on_disk.fingerprint(spec, "virtualenv", python)
    assert key != on_disk.fingerprint(spec, "uv", python._replace(version="3.99.1"))


def test_a_requirements_file_that_changes_makes_another_environment(project):
    spec = project("-r requirements.txt", files={"requirements.txt": "alpha==1.0\n"})
    first = envs.ensure(spec, "uv")
    (Path(spec.folder) / "requirements.txt").write_text("alpha==2.0\n")
    second = envs.ensure(read_env(spec.folder), "uv")
    assert ask(second, "import alpha; print(alpha.__version__)") == "2.0"
    assert first.prefix != second.prefix


def test_constraints_limit_what_is_installed(project):
    env = envs.ensure(project("alpha", "-c limits.txt", files={"limits.txt": "alpha<2\n"}), "uv")
    assert envs.freeze(env) == "alpha==1.0\n"


def test_build_dependencies_are_installed_too(project, wheels):
    spec = project("beta", build=["--no-index", f"--find-links {wheels}", "alpha==1.0"])
    said = []
    env = envs.ensure(spec, "uv", progress=said.append)
    assert envs.freeze(env) == "alpha==1.0\nbeta==1.5\n"
    assert [line for line in said if line.startswith("installing")] == [
        "installing 1 build dependency",
        "installing 1 package",
    ]


SETUP = "from setuptools import setup\nsetup(name='mine', version='0.1', py_modules=['mine'])\n"


@pytest.mark.network
def test_the_project_itself_can_be_installed_editable(project):
    spec = project("-e .", files={"setup.py": SETUP, "mine.py": "x = 1\n"})
    spec = spec._replace(dependencies=tuple(item for item in spec.dependencies if item.text == "-e ."))
    env = envs.ensure(spec, "uv")
    (Path(spec.folder) / "mine.py").write_text("x = 2\n")
    assert ask(env, "import mine; print(mine.x)") == "2"


def test_a_local_wheel_is_found_from_the_projects_folder(project, wheels):
    spec = project("./alpha-1.0-py3-none-any.whl")
    shutil.copy(wheels / "alpha-1.0-py3-none-any.whl", spec.folder)
    assert envs.freeze(envs.ensure(spec, "uv")).startswith("alpha @ file:")


def test_a_project_without_needs_gets_an_empty_environment(tmp_path):
    env = envs.ensure(EnvSpec("none", str(tmp_path)), "virtualenv")
    assert envs.freeze(env) == ""
    assert ask(env, "import sys; print(sys.prefix)") == env.prefix


@pytest.mark.slow
def test_pip_installs_where_it_is_asked_to(project, monkeypatch):
    monkeypatch.setenv("MLCLI_INSTALLER", "pip")
    env = envs.ensure(project("beta", "--trusted-host example.invalid"), "virtualenv")
    assert "beta==1.5\n" in envs.freeze(env)
    assert "-m pip install" in Path(env.log).read_text()


def test_progress_says_what_how_many_and_how_long(project):
    said = []
    envs.ensure(project("beta"), "uv", progress=said.append)
    assert said[0] == f"building an environment with uv: Python {pythons.choose(None).python.version}"
    assert said[1] == "installing 1 package"
    assert any(line.startswith("installed 2 packages in ") for line in said)
    assert said[-1].startswith("environment ready in ")
    assert "2 packages" in said[-1]


def test_options_of_the_project_that_lead_elsewhere_are_told(project):
    assert any("--find-links" in problem.message for problem in project("alpha").problems)


def test_nothing_we_make_can_be_written_by_others_whatever_the_umask(project, tmp_path):
    old = os.umask(0)
    try:
        envs.ensure(project("alpha==1.0"), "virtualenv")
    finally:
        os.umask(old)
    root = Path(os.environ["XDG_CACHE_HOME"]) / "mlcli"
    open_ones = [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert open_ones == []
    assert stat.S_IMODE((root / "envs").stat().st_mode) == 0o700


def test_a_root_that_anybody_can_write_to_is_refused(project, tmp_path, monkeypatch):
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o777)
    monkeypatch.setenv("MLCLI_ENV_ROOT", str(root))
    with pytest.raises(EnvError, match="can be changed by others"):
        envs.ensure(project("alpha"), "uv")


# -- what can be broken


def test_an_environment_without_its_state_file_is_built_anew(project):
    spec = project("alpha==1.0")
    env = envs.ensure(spec, "uv")
    os.unlink(Path(env.prefix) / on_disk.STATE_FILE)
    (Path(env.prefix) / "half-built").touch()
    said = []
    again = envs.ensure(spec, "uv", progress=said.append)
    assert again.built
    assert not (Path(env.prefix) / "half-built").exists()
    assert "building the environment anew: its building was interrupted" in said


@pytest.mark.parametrize("content", ["", "{", "[]", '{"v": 1}', '{"v": 99}', "\x00\x01", '{"v": 1, "key": 3}'])
def test_whatever_shape_the_damage_of_the_state_file_takes_it_is_built_anew(project, content):
    spec = project("alpha==1.0")
    env = envs.ensure(spec, "uv")
    (Path(env.prefix) / on_disk.STATE_FILE).write_text(content)
    said = []
    assert envs.ensure(spec, "uv", progress=said.append).built
    assert "building the environment anew: its state file is damaged" in said


def test_an_environment_whose_interpreter_is_gone_is_built_anew(project):
    spec = project("alpha==1.0")
    env = envs.ensure(spec, "uv")
    os.unlink(env.python)
    os.symlink("/nowhere/python", env.python)
    said = []
    assert envs.ensure(spec, "uv", progress=said.append).built
    assert any("its interpreter is gone" in line for line in said)


def test_an_environment_whose_interpreter_was_replaced_is_built_anew(project, tmp_path):
    spec = project("alpha==1.0")
    env = envs.ensure(spec, "uv")
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\n")
    os.unlink(env.python)
    os.symlink(other, env.python)
    assert envs.ensure(spec, "uv").built


def test_a_failed_build_leaves_nothing_but_its_log(project):
    with pytest.raises(EnvError) as caught:
        envs.ensure(project("gamma==1"), "uv")
    assert leftovers() == []
    assert "gamma" in caught.value.tail
    assert "gamma" in Path(caught.value.log).read_text()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("requirement", "hint"),
    [
        ("gamma", "no package `gamma`"),
        ("alpha==9", "the index has no alpha==9"),
    ],
)
def test_a_failure_says_what_it_means_and_which_line_asks(project, requirement, hint):
    with pytest.raises(EnvError) as caught:
        envs.ensure(project("-r requirements.txt", files={"requirements.txt": f"beta\n{requirement}\n"}), "uv")
    assert hint in caught.value.hint
    assert "(requirements.txt:2)" in caught.value.hint


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        (
            (
                "Because the current Python version (3.9.18) does not satisfy Python>=3.11 and numpy==2.3.1 depends on Python>=3.11,"
                " we can conclude that numpy==2.3.1 cannot be used."
            ),
            "numpy 2.3.1 needs Python >=3.11, this environment has 3.9.18: change `python`, or pin another numpy",
        ),
        (
            (
                "Because a==1 depends on numpy<2 and you require a==1, we can conclude that you require numpy<2.\n"
                "And because you require numpy==99, we can conclude that your requirements are unsatisfiable."
            ),
            "numpy as it is asked for does not go with the others",
        ),
        ("ERROR: No matching distribution found for six==99", "the index has no such version of six"),
        ("error sending request for url (https://x)\n cause: dns error", "cannot be reached"),
        ("HTTP status client error (401 Unauthorized)\nstatus code 401", "refuses access"),
        ("Failed to build `pandas==1.0.0`", "pandas has no wheel for Python 3.9.18"),
        ("write failed: No space left on device (os error 28)", "the disk is full"),
        ("nobody knows what happened", "the log has all"),
    ],
)
def test_an_installers_last_words_are_explained(output, hint):
    assert hint in installer.explain(output, (), "3.9.18")


def test_passwords_in_urls_are_never_shown_or_kept(project, tmp_path):
    spec = project("--extra-index-url http://me:S3CRET@127.0.0.1:9/simple", "alpha==1.0")
    said = []
    env = envs.ensure(spec, "uv", progress=said.append)
    state = (Path(env.prefix) / on_disk.STATE_FILE).read_text()
    told = "".join(problem.message for problem in spec.problems)
    assert "127.0.0.1:9" in told
    assert "S3CRET" not in told + state + Path(env.log).read_text() + "".join(said) + str(
        lock.lock(spec, env, "requirements")
    )


class FakeIndex(http.server.BaseHTTPRequestHandler):
    """A package index that fails in the way its ``mode`` says."""

    def __init__(self, mode, wheel, *args):
        self.mode, self.wheel = mode, wheel
        super().__init__(*args)

    def do_GET(self):
        if self.mode == "500":
            self.send_error(500)
        elif self.path.startswith("/simple/alpha"):
            self._answer(f'<a href="/files/{self.wheel.name}">{self.wheel.name}</a>'.encode(), "text/html")
        elif self.path.startswith("/files/"):
            content = self.wheel.read_bytes()
            self._answer(content[: len(content) // 2] if self.mode == "truncated" else content, "application/zip")
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_args):
        pass


@pytest.fixture
def index(wheels):
    """Start an index that fails: ``index("500")`` gives its URL."""
    servers = []

    def start(mode):
        handler = partial(FakeIndex, mode, wheels / "alpha-1.0-py3-none-any.whl")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/simple"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("mode", "hint"),
    [("500", "fails at the moment"), ("truncated", "damaged or was cut off"), ("closed", "cannot be reached")],
)
def test_a_broken_index_is_a_clear_error_and_leaves_nothing(tmp_path, index, mode, hint, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    url = "http://127.0.0.1:9/simple" if mode == "closed" else index(mode)
    (tmp_path / "python_env.yaml").write_text(f"dependencies: ['--index-url {url}', alpha==1.0]")
    with pytest.raises(EnvError) as caught:
        envs.ensure(read_env(str(tmp_path)), "uv")
    assert hint in caught.value.hint, caught.value.tail
    assert leftovers() == []


def test_an_index_that_works_is_used(tmp_path, index, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    (tmp_path / "python_env.yaml").write_text(f"dependencies: ['--index-url {index('fine')}', alpha==1.0]")
    assert envs.freeze(envs.ensure(read_env(str(tmp_path)), "uv")) == "alpha==1.0\n"


def test_the_index_of_pips_settings_is_used_by_uv(tmp_path, index, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("PIP_INDEX_URL", index("fine"))
    (tmp_path / "python_env.yaml").write_text("dependencies: [alpha]")
    assert envs.freeze(envs.ensure(read_env(str(tmp_path)), "uv")) == "alpha==1.0\n"


# -- several at once, and death in the middle

BUILDER = """
import sys
from mlcli import envs
from mlcli.projects.envfile import read_env
env = envs.ensure(read_env(sys.argv[1]), "uv", project=sys.argv[2], progress=lambda line: print(line, flush=True))
print("BUILT" if env.built else "REUSED", flush=True)
"""


def builder(spec, name="x"):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, spec.folder, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_of_five_at_once_one_builds_and_the_others_take_its_environment(project):
    spec = project("beta")
    outputs = []
    processes = [builder(spec, str(number)) for number in range(5)]
    for process in processes:
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0, outputs[-1]
    assert sorted(output.split()[-1] for output in outputs) == ["BUILT"] + ["REUSED"] * 4
    assert len(leftovers()) == 1


def test_who_waits_for_another_says_so(project):
    spec = project("alpha==1.0")
    place = on_disk.Place(
        os.path.abspath(config.env_root()), on_disk.fingerprint(spec, "uv", pythons.choose(None).python)
    )
    on_disk.safe_root()
    with locked(place.lock):
        process = builder(spec)
        line = process.stdout.readline()
        assert line == "waiting: somebody else is building this environment\n"
    output, _ = process.communicate(timeout=60)
    assert output.split()[-1] == "BUILT"


# An sdist whose build waits until it is told to go on: a build that can be interrupted at a known place.
SLOW_BACKEND = """
import os, time

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    folder = {folder!r}
    open(os.path.join(folder, "started"), "w").write(str(os.getpid()))
    parent = os.getppid()
    while not os.path.exists(os.path.join(folder, "go")):
        if os.getppid() != parent:  # the installer was killed: nobody waits any more
            raise SystemExit(1)
        time.sleep(0.01)
    import shutil
    shutil.copy({wheel!r}, wheel_directory)
    return os.path.basename({wheel!r})

build_editable = build_wheel
"""
PYPROJECT = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n[project]\nname = 'alpha'\nversion = '1.0'\n"


@pytest.fixture
def slow_project(project, wheels, tmp_path):
    """A project whose installation goes on only when the file ``go`` is there."""
    backend = SLOW_BACKEND.format(folder=str(tmp_path), wheel=str(wheels / "alpha-1.0-py3-none-any.whl"))
    return project("./slow", files={"slow/pyproject.toml": PYPROJECT, "slow/backend.py": backend})


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_build_that_was_killed_is_never_used(slow_project, tmp_path):
    process = builder(slow_project)
    wait_for((tmp_path / "started").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(leftovers()) == 1
    assert on_disk.read_state(Path(os.environ["XDG_CACHE_HOME"]) / "mlcli" / "envs" / leftovers()[0]) is None
    (tmp_path / "go").touch()
    env = envs.ensure(slow_project, "uv")
    assert env.built
    assert ask(env, "import alpha; print(alpha.__version__)") == "1.0"


def test_the_lock_outlives_its_killed_holder_while_the_installer_lives(slow_project, tmp_path):
    process = builder(slow_project)
    wait_for((tmp_path / "started").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    second = builder(slow_project)
    assert second.stdout.readline() == "waiting: somebody else is building this environment\n"
    (tmp_path / "go").touch()
    output, _ = second.communicate(timeout=60)
    assert output.split()[-1] == "BUILT"
    process.stdout.close()


def test_an_interrupted_build_is_cleaned_up_at_once(slow_project, tmp_path):
    process = builder(slow_project)
    wait_for((tmp_path / "started").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert leftovers() == []


def test_an_installer_that_is_killed_is_an_error_and_leaves_nothing(slow_project, tmp_path):
    def kill():
        wait_for(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text())
        os.kill(int((tmp_path / "started").read_text()), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(EnvError, match="installing 1 package failed"):
        envs.ensure(slow_project, "uv")
    thread.join()
    assert leftovers() == []


def test_a_folder_that_cannot_be_written_to_is_a_clear_error(project, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLCLI_ENV_ROOT", str(tmp_path / "file" / "envs"))
    with pytest.raises(EnvError, match="cannot be made") as caught:
        envs.ensure(project("alpha"), "uv")
    assert "MLCLI_ENV_ROOT" in caught.value.hint


# -- Python


def versions_here():
    return sorted(
        (python for python in pythons.Known.load().all() if python.numbers >= (3, 8)), key=lambda p: p.numbers
    )


def test_the_exact_python_is_taken_when_it_is_here(project):
    env = envs.ensure(project(python=versions_here()[0].version), "uv")
    assert (env.version, env.notes) == (versions_here()[0].version, ())


def test_the_nearest_patch_is_taken_and_said(project):
    python = versions_here()[-1]
    minor = ".".join(python.version.split(".")[:2])
    env = envs.ensure(project(python=f"{minor}.99"), "uv")
    assert env.version.startswith(minor + ".")
    assert env.notes == (f"Python {minor}.99 is not on this machine; using {env.version}, the nearest here",)


def test_a_look_ahead_says_what_would_be_built_and_installs_nothing(project, monkeypatch):
    monkeypatch.setattr(installer, "install_python", None)
    spec = project("alpha==1.0")
    before = envs.preview(spec, "uv")
    env = envs.ensure(spec, "uv")
    after = envs.preview(spec, "uv")
    assert (before.exists, after.exists) == (False, True)
    assert (after.place, after.python, after.packages[-1]) == (env.prefix, env.version, "alpha==1.0")
    nowhere = envs.preview(project(python="3.99"), "uv")
    assert (nowhere.exists, nowhere.python, nowhere.reason) == (False, None, "Python 3.99 is not on this machine")
    assert nowhere.state == "cannot be built"
    monkeypatch.setattr(installer, "may_install_python", lambda: True)
    assert envs.preview(project(python="3.99"), "uv").state == "would be built, if uv can install Python"


def test_strict_python_takes_nothing_but_the_exact_one(project):
    minor = ".".join(versions_here()[-1].version.split(".")[:2])
    with pytest.raises(EnvError, match=rf"Python {minor}\.99 is not on this machine") as caught:
        envs.ensure(project(python=f"{minor}.99"), "uv", strict_python=True)
    assert versions_here()[-1].version in caught.value.hint


def test_a_python_that_is_nowhere_is_an_error_that_lists_what_is_here(project):
    with pytest.raises(EnvError) as caught:
        envs.ensure(project(python="3.99"), "uv")
    assert all(python.version in caught.value.hint for python in versions_here())


def test_a_minor_version_means_its_newest_patch(project):
    python = versions_here()[0]
    minor = python.version.rpartition(".")[0]
    chosen = pythons.choose(minor).python
    assert chosen.numbers == max(item.numbers for item in versions_here() if item.version.startswith(minor + "."))


def test_a_range_takes_the_python_of_the_command_line_when_it_allows_it():
    oldest = versions_here()[0]
    assert pythons.choose(f">={oldest.version.rpartition('.')[0]}").python.version == HERE


def test_a_range_without_the_python_of_the_command_line_takes_the_newest_that_is_allowed():
    others = [python for python in versions_here() if python.version != HERE]
    assert pythons.choose(f">=3.8,!={HERE}").python.numbers == max(python.numbers for python in others)


def test_a_minor_version_after_one_equals_sign_is_that_minor_whatever_the_command_line_has():
    oldest = versions_here()[0]
    assert pythons.choose(f"={oldest.version.rpartition('.')[0]}").python.numbers[:2] == oldest.numbers[:2]


def test_no_python_named_means_the_one_of_the_command_line():
    assert pythons.choose(None).python.version == envs.ensure(EnvSpec("none", "."), "local").version


def test_each_interpreter_is_asked_once(monkeypatch):
    first = pythons.choose(HERE)
    monkeypatch.setattr(pythons, "_ask", None)
    assert pythons.choose(HERE) == first


def test_an_interpreter_that_changes_is_asked_again(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "python3.9"
    script.parent.mkdir()
    answer = '#!/bin/sh\necho \'["{}", "cpython", "linux cpython-39-x86_64-linux-gnu", "{}"]\'\n'
    for version in ("3.9.1", "3.9.222"):
        script.write_text(answer.format(version, script))
        script.chmod(0o755)
        assert pythons.Known.load().at(str(script)).version == version


def test_a_shim_is_asked_each_time_for_it_answers_by_folder(tmp_path):
    shim = tmp_path / "shims" / "python"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\necho "[\\"$(cat version)\\", \\"cpython\\", \\"x\\", \\"$0\\"]"\n')
    shim.chmod(0o755)
    for version in ("3.9.1", "3.11.2"):
        Path("version").write_text(version)
        known = pythons.Known.load()
        assert known.at(str(shim)).version == version
        known.save()


def test_a_broken_interpreter_is_passed_over(tmp_path, monkeypatch):
    broken = tmp_path / "bin" / "python3.97"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert pythons.Known.load().at(str(broken)) is None


def test_a_failed_installation_of_python_is_not_tried_again_the_same_day(project, monkeypatch):
    tries = []

    def install(request, _progress):
        tries.append(request)
        return "no network"

    monkeypatch.setattr(installer, "may_install_python", lambda: True)
    monkeypatch.setattr(installer, "install_python", install)
    for _ in range(2):
        with pytest.raises(EnvError):
            pythons.choose("3.99")
    assert tries == ["3.99"]


def test_uv_may_be_forbidden_to_install_python(monkeypatch):
    monkeypatch.setattr(installer, "install_python", None)
    assert not installer.may_install_python()
    with pytest.raises(EnvError, match=r"Python 3.99 is not on this machine$"):
        pythons.choose("3.99")


def test_why_uv_could_not_install_a_python_is_said_once_with_what_is_used_instead(project, tmp_path, monkeypatch):
    monkeypatch.delenv("UV_PYTHON_DOWNLOADS")
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", (tmp_path / "no mirror").as_uri())
    minor = versions_here()[-1].version.rpartition(".")[0]
    said = []
    spec = project(python=f"{minor}.99")
    before = envs.preview(spec, "uv")
    env = envs.ensure(spec, "uv", progress=said.append)
    assert [line for line in said if "uv" in line and "building" not in line] == [
        f"Python {minor}.99 is not here; asking uv to install it"
    ]
    (note,) = env.notes
    assert note.startswith(f"Python {minor}.99 is not on this machine, and uv could not install it (")
    assert note.endswith(f"); using {env.version}, the nearest here")
    assert before.notes == (
        f"Python {minor}.99 is not on this machine: uv is asked for it, and without it {env.version} is used",
    )


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, -1], ids=["oldest", "newest"])
@pytest.mark.parametrize("manager", ["virtualenv", "uv"])
def test_the_oldest_and_the_newest_python_run_with_the_tracker_beside_them(project, manager, which):
    python = versions_here()[which]
    env = envs.ensure(project("alpha==1.0", python=python.version), manager)
    code = "import mlcli, sys; print('%d.%d.%d' % sys.version_info[:3], mlcli.__version__)"
    assert ask(env, code) == f"{python.version} {__version__}"


def test_pyenvs_shim_is_seen_through(tmp_path, monkeypatch):
    root = tmp_path / "pyenv"
    for version in ("3.9.1", "3.9.7", "3.11.2"):
        binary = root / "versions" / version / "bin" / "python"
        binary.parent.mkdir(parents=True)
        binary.write_text("")
        binary.chmod(0o755)
    (root / "shims").mkdir()
    (root / "shims" / "python").write_text("#!/bin/sh\n")
    (root / "shims" / "python").chmod(0o755)
    (root / "version").write_text("3.11.2\n")
    environ = {"PATH": str(root / "shims"), "PYENV_ROOT": str(root)}
    assert pythons.local_path(environ) == str(root / "versions" / "3.11.2" / "bin" / "python")
    assert pythons.local_path({**environ, "PYENV_VERSION": "3.9"}) == str(
        root / "versions" / "3.9.7" / "bin" / "python"
    )
    Path(".python-version").write_text("3.9.1\n")
    assert pythons.local_path(environ) == str(root / "versions" / "3.9.1" / "bin" / "python")


# -- local


def test_local_is_the_python_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:/usr/bin:/bin")
    env = envs.ensure(EnvSpec("none", str(tmp_path)), "local")
    assert (env.python, env.version, env.key) == (os.path.join(os.path.dirname(sys.executable), "python"), HERE, None)
    assert envs.variables(env, os.environ)["PATH"] == os.environ["PATH"]


def test_local_finds_a_python_where_there_is_only_python3(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(folder))
    env = envs.ensure(EnvSpec("none", str(tmp_path)), "local")
    done = subprocess.run(
        ["python", "-c", "import sys; print(sys.version_info[:2])"],
        env=envs.variables(env, os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(sys.version_info[:2])


def test_what_is_installed_locally_is_asked_once(tmp_path, monkeypatch):
    env = envs.ensure(EnvSpec("none", str(tmp_path)), "local")
    first = envs.freeze(env)
    monkeypatch.setattr(subprocess, "run", None)
    assert envs.freeze(env) == first


def test_a_broken_environment_file_does_not_matter_locally(project, tmp_path):
    (tmp_path / "python_env.yaml").write_text("python: three\n")
    spec = read_env(str(tmp_path))
    assert envs.ensure(spec, "local").manager == "local"
    with pytest.raises(ProjectError, match="no Python version"):
        envs.choose(spec, "uv")


# -- variables


def test_the_variables_are_those_of_an_activated_environment(project):
    env = envs.ensure(project("alpha"), "uv")
    start = {"PATH": "/usr/bin", "PYTHONHOME": "/x", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/mine"}
    found = envs.variables(env, start)
    assert found["PATH"] == f"{env.prefix}/bin:/usr/bin"
    assert found["VIRTUAL_ENV"] == env.prefix
    assert found["PYTHONPATH"] == f"{envs.expose_tracker()}:/mine"
    assert not {"PYTHONHOME", "PYTHONDONTWRITEBYTECODE"} & set(found)
    assert start["PYTHONHOME"] == "/x"


def test_the_tracker_is_exposed_and_nothing_else_of_ours():
    assert [name for name in os.listdir(envs.expose_tracker()) if name != "mlcli"] == []


def test_mlcli_run_through_the_tracker_exposes_the_same_folder(tmp_path):
    code = "from mlcli import envs; print(envs.expose_tracker())"
    exposed = envs.expose_tracker()
    environ = {**os.environ, "PYTHONPATH": exposed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == exposed


def test_the_environment_sees_the_tracker_but_not_our_packages(project):
    env = envs.ensure(project("alpha"), "uv")
    code = "import mlcli, importlib.util as u; print(u.find_spec('typer'), u.find_spec('mlcli') is not None)"
    assert ask(env, code) == "None True"


# -- choosing the manager

DOCKER = EnvSpec("docker", "/proj", docker=DockerSpec("image:1", ("/data:/data", "./in:/in"), ("HOME", ("A", "1"))))


def test_docker_env_always_means_docker(tmp_path):
    assert [envs.choose(DOCKER, asked) for asked in (None, "local", "virtualenv")] == ["docker"] * 3


@pytest.mark.parametrize(
    ("asked", "message"), [("conda", "conda cannot build"), ("docker", "no docker_env"), ("pixi", "no env manager")]
)
def test_a_manager_that_cannot_work_is_refused_before_anything_starts(tmp_path, asked, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        envs.choose(EnvSpec("python", str(tmp_path), "python_env.yaml"), asked)
    assert caught.value.hint


def test_the_settings_say_the_manager(monkeypatch, tmp_path):
    monkeypatch.setenv("MLCLI_ENV_MANAGER", "uv")
    assert envs.choose(EnvSpec("none", str(tmp_path))) == "uv"


def test_conda_that_is_not_here_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CONDA_EXE", "MAMBA_EXE", "MLFLOW_CONDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.9]")
    with pytest.raises(EnvError, match="neither conda nor mamba nor micromamba"):
        envs.ensure(read_env(str(tmp_path)), "conda")


FAKE_CONDA = """#!{python}
import os, subprocess, sys
args = sys.argv[1:]
assert args[:2] == ["env", "create"], args
prefix, file = args[args.index("-p") + 1], args[args.index("-f") + 1]
assert os.path.exists(file) and not os.path.exists(prefix)
subprocess.run([{uv!r}, "venv", "-q", "--python", {python!r}, prefix], check=True)
"""


def test_conda_builds_from_the_conda_file_when_it_is_here(tmp_path, monkeypatch):
    conda = tmp_path / "conda"
    conda.write_text(FAKE_CONDA.format(python=sys.executable, uv=installer.uv()))
    conda.chmod(0o755)
    monkeypatch.setenv("CONDA_EXE", str(conda))
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.9, ffmpeg]")
    env = envs.ensure(read_env(str(tmp_path)), "conda")
    assert (env.manager, env.version, env.notes) == ("conda", HERE, ())
    assert envs.variables(env, os.environ)["CONDA_PREFIX"] == env.prefix
    assert not envs.ensure(read_env(str(tmp_path)), "conda").built


def test_a_conda_file_is_built_without_conda(tmp_path, wheels):
    lines = f"['--no-index', '--find-links {wheels}', beta]"
    (tmp_path / "conda.yaml").write_text(f"dependencies: [python={MINOR}, alpha=1, ffmpeg, {{pip: {lines}}}]")
    spec = read_env(str(tmp_path))
    assert envs.freeze(envs.ensure(spec, "virtualenv")) == "alpha==1.0\nbeta==1.5\n"
    assert spec.untranslated == ("ffmpeg",)


# -- docker


def test_a_missing_docker_client_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvError, match="no docker on PATH"):
        envs.ensure(DOCKER)


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client here")
def test_a_docker_engine_that_does_not_answer_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(EnvError, match="the docker engine does not answer") as caught:
        envs.ensure(DOCKER)
    assert "nobody.sock" in caught.value.tail


def test_docker_run_is_composed_of_mounts_variables_and_arguments(tmp_path):
    tracker = tmp_path / "tracker"
    (tmp_path / "package").mkdir()
    tracker.mkdir()
    (tracker / "mlcli").symlink_to(tmp_path / "package")
    argv = docker.docker_argv(
        DOCKER,
        ["python", "train.py", "$(x)"],
        variables={"MLCLI_RUN_ID": "abc"},
        store="/s/mlruns",
        tracker=str(tracker),
        args=["gpus=all", "privileged", "m=2g"],
        environ={"HOME": "/h"},
    )
    user = f"{os.getuid()}:{os.getgid()}"
    assert argv == [
        *("docker", "run", "--rm", "--init", "--workdir", "/mlflow/projects/code", "--user", user),
        *("--volume", "/proj:/mlflow/projects/code"),
        *("--volume", "/s/mlruns:/s/mlruns", "--volume", "/s/mlruns:/mlflow/tmp/mlruns"),
        *("--volume", f"{tmp_path}/package:/mlcli/tracker/mlcli:ro"),
        *("--volume", "/data:/data", "--volume", "/proj/in:/in"),
        *("--env", "HOME", "--env", "MLCLI_RUN_ID", "--env", "PYTHONPATH=/mlcli/tracker", "--env", "A=1"),
        *("--gpus", "all", "--privileged", "-m", "2g"),
        *("image:1", "python", "train.py", "$(x)"),
    ]


@pytest.mark.parametrize("arg", ["", "=x", "--privileged"])
def test_a_docker_argument_without_a_name_is_refused(arg):
    with pytest.raises(InvalidInput):
        docker.docker_argv(DOCKER, ["x"], variables={}, args=[arg])


# -- keeping, explaining, locking


def test_those_in_use_are_not_removed(project):
    env = envs.ensure(project("alpha"), "uv")
    (found,) = kept.listed()
    with envs.in_use(env), pytest.raises(InvalidState, match="in use"):
        kept.remove(found)
    kept.remove(found)
    assert leftovers() == []


def test_two_runs_use_one_environment_at_once(project):
    env = envs.ensure(project("alpha"), "uv")
    with envs.in_use(env), envs.in_use(env):
        assert kept.listed()[0].illness is None


def test_an_environment_removed_before_its_run_starts_is_noticed(project):
    env = envs.ensure(project("alpha"), "uv")
    kept.remove(kept.listed()[0])
    with pytest.raises(EnvError, match="removed a moment ago"), envs.in_use(env):
        pass


def test_environments_are_found_by_key_and_by_project(project):
    one = envs.ensure(project("alpha==1.0"), "uv", project="/one")
    envs.ensure(project("alpha==2.0"), "uv", project="/two")
    assert [found.place.prefix for found in kept.find(one.key[:6])] == [one.prefix]
    assert [found.place.prefix for found in kept.find("/one")] == [one.prefix]
    with pytest.raises(NotFound):
        kept.find("three")


def test_what_is_unused_or_broken_is_stale(project):
    env = envs.ensure(project("alpha"), "uv")
    assert kept.stale(kept.listed()[0], kept.seconds("30d")) is None
    month_ago = time.time() - 31 * 86400
    os.utime(Path(env.prefix) / on_disk.STATE_FILE, (month_ago, month_ago))
    assert kept.stale(kept.listed()[0], kept.seconds("30d")) == "not used for 31 days"
    os.unlink(Path(env.prefix) / on_disk.STATE_FILE)
    assert kept.stale(kept.listed()[0], kept.seconds("30d")) == "its building was interrupted"


def test_a_package_is_explained_by_the_line_or_by_the_package_that_needs_it(project):
    spec = project("-r requirements.txt", files={"requirements.txt": "beta\n"})
    packages = why.installed(envs.ensure(spec, "uv").prefix)
    assert [item.place for item in why.direct("Beta", spec.dependencies)] == ["requirements.txt:1"]
    assert why.direct("alpha", spec.dependencies) == []
    assert why.chains("alpha", spec.dependencies, packages) == [["beta", "alpha"]]


def test_the_lock_builds_the_same_again(project, wheels, tmp_path):
    spec = project("beta", "alpha<2")
    env = envs.ensure(spec, "uv")
    (tmp_path / "lock.txt").write_text(lock.lock(spec, env, "requirements"))
    again = envs.ensure(project("-r ../lock.txt", name="again"), "uv")
    assert envs.freeze(again) == envs.freeze(env) == "alpha==1.0\nbeta==1.5\n"


def test_a_pylock_names_every_package_with_its_hash(project):
    spec = project("beta", "alpha<2")
    text = lock.lock(spec, envs.ensure(spec, "uv"), "pylock")
    assert 'lock-version = "1.0"' in text
    assert 'name = "alpha"\nversion = "1.0"' in text
    assert "sha256" in text


# -- the real index


@pytest.mark.network
def test_packages_come_from_the_index(tmp_path):
    (tmp_path / "python_env.yaml").write_text("dependencies: [six==1.16.0, idna]")
    env = envs.ensure(read_env(str(tmp_path)), "virtualenv")
    assert ask(env, "import six, idna; print(six.__version__)") == "1.16.0"


@pytest.mark.network
@pytest.mark.slow
def test_the_tutorials_pins_build_and_import(tmp_path):
    (tmp_path / "python_env.yaml").write_text(
        textwrap.dedent("""\
            python: "3.9.13"
            build_dependencies: [pip, setuptools, wheel==0.37.1]
            dependencies: [scikit-learn==1.4.0, pandas==2.2.0, numpy==1.26.3]
        """)
    )
    try:
        env = envs.ensure(read_env(str(tmp_path)), "virtualenv")
    except EnvError as error:
        if error.message.startswith("Python 3.9.13 is not on this machine"):
            pytest.skip("no Python 3.9 here")
        raise
    assert (
        ask(env, "import sklearn, pandas, numpy, wheel; print(sklearn.__version__, pandas.__version__)")
        == "1.4.0 2.2.0"
    )
