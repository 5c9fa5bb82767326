"""Artifacts: whole or absent, below their root whatever path or link is tried, and never a hang."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlcli import artifacts as api
from mlcli.artifacts import LocalArtifacts, Skipped, locate
from mlcli.entities import FileInfo
from mlcli.errors import InvalidInput, MlcliError, NotFound


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(str(tmp_path / "root" / "artifacts"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "er" / "b.bin").write_bytes(bytes(range(256)))
    return folder


def tree(folder: str | Path) -> dict[str, bytes]:
    return {
        os.path.relpath(os.path.join(parent, name), folder): Path(parent, name).read_bytes()
        for parent, _, names in os.walk(folder)
        for name in names
    }


def test_a_file_is_put_under_its_own_name(store: LocalArtifacts, source: Path) -> None:
    store.put(str(source / "a.txt"), "x/y")
    assert store.walk() == [FileInfo("x/y/a.txt", False, 1)]


def test_a_folder_is_put_whole_with_its_empty_folders(store: LocalArtifacts, source: Path) -> None:
    store.put(str(source))
    assert tree(Path(store.root, "source")) == tree(source)
    assert FileInfo("source/empty", True) in store.list("source")


def test_the_content_of_a_folder_is_poured_into_the_root(store: LocalArtifacts, source: Path) -> None:
    store.put_tree(str(source))
    assert [item.path for item in store.list()] == ["a.txt", "deep", "empty"]


def test_listing_a_file_gives_the_file(store: LocalArtifacts) -> None:
    store.put_bytes(b"12345", "f/g.txt")
    assert store.list("f/g.txt") == [FileInfo("f/g.txt", False, 5)]


def test_an_empty_root_lists_nothing_and_a_missing_path_is_not_found(store: LocalArtifacts) -> None:
    assert store.list() == []
    with pytest.raises(NotFound, match="nope"):
        store.list("nope")


def test_putting_again_replaces_the_file(store: LocalArtifacts) -> None:
    store.put_bytes(b"one", "f")
    store.put_bytes(b"two", "f")
    assert Path(store.path("f")).read_bytes() == b"two"


def test_an_executable_stays_executable(store: LocalArtifacts, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    store.put(str(script))
    assert os.access(store.path("run.sh"), os.X_OK)


def test_a_file_from_proc_that_claims_to_be_empty_is_copied(store: LocalArtifacts) -> None:
    if not os.path.exists("/proc/version"):
        pytest.skip("no /proc here")
    store.put("/proc/version")
    assert Path(store.path("version")).read_bytes() == Path("/proc/version").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "..",
        "a/../../b",
        "/etc/passwd",
        "//x",
        "C:\\x",
        "C:x",
        "..\\..\\x",
        "\\\\host\\share",
        "%2e%2e/x",
        "..%252f..%252fx",
        "%2Fetc",
        "..%5c..%5cx",
        "a\0b",
    ],
)
def test_a_path_that_leaves_the_root_is_refused_everywhere_and_changes_nothing(
    store: LocalArtifacts, source: Path, tmp_path: Path, path: str
) -> None:
    before = tree(tmp_path)
    for attempt in (
        lambda: store.put_bytes(b"x", path),
        lambda: store.put(str(source / "a.txt"), path),
        lambda: store.put_tree(str(source), path),
        lambda: store.list(path),
        lambda: store.path(path),
        lambda: store.get(path, str(tmp_path / "out")),
    ):
        with pytest.raises(InvalidInput, match="leaves the artifact root"):
            attempt()
    assert tree(tmp_path) == before


def test_a_forbidden_path_answers_alike_whether_it_exists_or_not(store: LocalArtifacts, tmp_path: Path) -> None:
    store.put_bytes(b"x", "inside")
    os.symlink(tmp_path, os.path.join(store.root, "link"))
    (tmp_path / "there").write_text("secret")
    errors = []
    for name in ("link/there", "link/none"):
        with pytest.raises(InvalidInput) as caught:
            store.path(name)
        errors.append(str(caught.value).replace(name, "NAME") + caught.value.hint)
    assert errors[0] == errors[1]


def test_a_link_that_leads_out_of_the_root_is_neither_listed_nor_read_nor_written_through(
    store: LocalArtifacts, tmp_path: Path
) -> None:
    store.put_bytes(b"x", "inside")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    os.symlink(outside, os.path.join(store.root, "folder"))
    os.symlink(outside / "secret", os.path.join(store.root, "file"))
    assert [item.path for item in store.list()] == ["inside"]
    for attempt in (
        lambda: store.list("folder"),
        lambda: store.get("file", str(tmp_path / "got")),
        lambda: store.put_bytes(b"evil", "folder/new"),
    ):
        with pytest.raises(InvalidInput, match="leaves the artifact root"):
            attempt()
    store.put_bytes(b"mine", "file")  # in place of the link, not through it
    assert (outside / "secret").read_text() == "s"
    assert sorted(os.listdir(outside)) == ["secret"]


def test_a_neighbour_whose_name_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    store = LocalArtifacts(str(tmp_path / "art"))
    (tmp_path / "art").mkdir()
    (tmp_path / "art-evil").mkdir()
    (tmp_path / "art-evil" / "x").write_text("s")
    os.symlink(tmp_path / "art-evil", tmp_path / "art" / "link")
    with pytest.raises(InvalidInput):
        store.path("link/x")


_SEGMENTS = [
    "..",
    ".",
    "",
    "in",
    "out",
    "loop",
    "up",
    "file",
    "%2e%2e",
    "..%2f",
    "a b",
    "..\\..",
    "~",
    "é",
    ".tmp-x",
    "-",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(segments=st.lists(st.sampled_from(_SEGMENTS) | st.text(max_size=4), max_size=6))
@example(segments=["in", "up", "file"])
@example(segments=["out", "secret"])
def test_what_can_be_read_is_exactly_what_lies_inside(tmp_path_factory, segments: list[str]) -> None:
    """Whatever resolves does so to a place whose real path is in the root; what lies there by a plain path resolves."""
    root = _maze(tmp_path_factory)
    store = LocalArtifacts(root)
    path = "/".join(segments)
    real_root = os.path.realpath(root)
    try:
        found = store.path(path)
    except InvalidInput:
        plain = all(part in ("in", "file", "a b", "é", "~", "-") for part in segments)
        assert not plain, "a plain path was refused"
        return
    except ValueError as error:
        pytest.fail(f"{path!r}: {error!r} is not one of our errors")
    assert os.path.commonpath([real_root, os.path.realpath(found)]) == real_root


_mazes: list[str] = []


def _maze(factory: pytest.TempPathFactory) -> str:
    if not _mazes:
        top = factory.mktemp("maze")
        root = top / "root"
        (root / "in" / "in").mkdir(parents=True)
        (root / "file").write_text("f")
        (top / "elsewhere").mkdir()
        (top / "elsewhere" / "secret").write_text("s")
        os.symlink(top / "elsewhere", root / "out")
        os.symlink("loop", root / "loop")
        os.symlink("..", root / "in" / "up")
        os.symlink("../..", root / "up")
        _mazes.append(str(root))
    return _mazes[0]


def test_links_loops_pipes_and_sockets_are_skipped_and_told(
    store: LocalArtifacts, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s")
    os.symlink(tmp_path / "secret", source / "leads-out")
    os.symlink("nowhere", source / "dangling")
    os.symlink("loop", source / "loop")
    os.symlink("deep", source / "to-folder")
    os.symlink("..", source / "deep" / "cycle")
    os.symlink("a.txt", source / "to-file")
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(source)  # socket paths are short
        sock.bind("sock")
        os.chdir(here)
        skipped: list[Skipped] = []
        store.put_tree(str(source), on_skip=skipped.append)
    assert {item.path for item in skipped} == {
        "leads-out",
        "dangling",
        "loop",
        "to-folder",
        "deep/cycle",
        "pipe",
        "sock",
    }
    assert all(item.why for item in skipped)
    assert tree(store.root) == {"a.txt": b"a", "to-file": b"a", "deep/er/b.bin": bytes(range(256))}
    assert not any(os.path.islink(os.path.join(store.root, name)) for name in os.listdir(store.root))


def test_what_is_skipped_is_told_as_a_warning(store: LocalArtifacts, source: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.warns(UserWarning, match="not copied: pipe: a pipe"):
        store.put_tree(str(source))


@pytest.mark.parametrize("name", ["back\\slash", ".tmp-mine", "C:drive"])
def test_a_name_that_cannot_be_an_artifact_is_skipped_and_named(store: LocalArtifacts, source: Path, name: str) -> None:
    (source / name).write_text("x")
    skipped: list[Skipped] = []
    store.put_tree(str(source), on_skip=skipped.append)
    assert [item.path for item in skipped] == [name]
    assert len(store.walk()) == 2


@pytest.mark.parametrize("kind", ["pipe", "device", "missing"])
def test_logging_something_that_is_no_file_is_a_clear_error(store: LocalArtifacts, tmp_path: Path, kind: str) -> None:
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/null"), "missing": tmp_path / "missing"}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(MlcliError, match="there is no file" if kind == "missing" else f"is a {kind}"):
        store.put(str(path))
    assert store.list() == []


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "quote\"'",
        "$(touch x)",
        "new\nline",
        "é" * 120,
        "x" * 255,
        "-rf",
        "trailing.",
        "CON",
        b"\xff\xfe".decode("utf-8", "surrogateescape"),
    ],
)
def test_strange_file_names_come_back_as_they_were(store: LocalArtifacts, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / name).write_bytes(b"content")
    store.put_tree(str(folder))
    target = store.get("", str(tmp_path / "back"))
    assert tree(target) == {name: b"content"}


def test_an_artifact_name_that_is_too_long_is_a_clear_error(store: LocalArtifacts) -> None:
    with pytest.raises(MlcliError, match="cannot write"):
        store.put_bytes(b"x", "n" * 300)
    assert store.walk() == []


def test_a_file_that_does_not_hold_still_is_an_error_and_leaves_nothing(store: LocalArtifacts, tmp_path: Path) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(b"x" * 50_000_000)
    stop = threading.Event()

    def grow() -> None:
        with growing.open("ab") as file:
            while not stop.is_set():
                file.write(b"y")
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(MlcliError, match="changes while it is copied"):
            store.put(str(growing))
    finally:
        stop.set()
        writer.join()
    assert os.listdir(store.root) == []


def test_what_a_failed_writer_wrote_is_not_published(store: LocalArtifacts) -> None:
    def fail_halfway() -> None:
        with store.writing("model") as folder:
            os.makedirs(folder)
            Path(folder, "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert os.listdir(store.root) == []


def test_a_folder_replaces_the_one_before_at_once(store: LocalArtifacts) -> None:
    for name in ("old", "new"):
        with store.writing("model") as folder:
            os.makedirs(folder)
            Path(folder, name).write_text(name)
    assert [item.path for item in store.walk()] == ["model/new"]
    assert os.listdir(store.root) == ["model"]


def test_a_copy_cut_off_by_kill_9_shows_nothing_and_its_rest_is_swept(tmp_path: Path) -> None:
    root, big = tmp_path / "root", tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(8_000_000_000)  # sparse: takes a while to copy, takes no space to hold
    code = (
        "import os, sys; from mlcli import artifacts; del os.copy_file_range\n"
        "artifacts.LocalArtifacts(sys.argv[1]).put(sys.argv[2])"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(root), str(big)])
    try:
        deadline = time.monotonic() + 30
        while not (root.exists() and any(file.stat().st_size for file in root.iterdir())):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.005)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    store = LocalArtifacts(str(root))
    assert [name[:5] for name in os.listdir(root)] == [".tmp-"]
    assert store.list() == []
    assert store.walk() == []
    assert store.remove_leftovers(older_than=3600) == 0
    assert store.remove_leftovers(older_than=-1) == 1
    assert os.listdir(root) == []


def test_a_download_appears_when_it_is_complete(store: LocalArtifacts, source: Path, tmp_path: Path) -> None:
    store.put_tree(str(source), "data")
    seen: list[list[str]] = []
    target = tmp_path / "out" / "data"
    store.get("data", str(target), progress=lambda _done, _total: seen.append(sorted(os.listdir(tmp_path / "out"))))
    assert tree(target) == tree(source)
    assert seen
    assert all("data" not in names for names in seen)
    assert os.listdir(tmp_path / "out") == ["data"]


def test_a_download_tells_how_far_it_is(store: LocalArtifacts, source: Path, tmp_path: Path) -> None:
    store.put_tree(str(source))
    steps: list[tuple[int, int]] = []
    store.get("", str(tmp_path / "out"), progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (257, 257)
    assert steps == sorted(steps)


def test_a_download_into_a_folder_that_is_there_keeps_what_is_in_it(
    store: LocalArtifacts, source: Path, tmp_path: Path
) -> None:
    store.put_tree(str(source))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("m")
    store.get("", str(tmp_path / "out"))
    assert set(tree(tmp_path / "out")) == {"mine", *tree(source)}


def test_a_download_brings_no_links_and_nothing_from_outside(store: LocalArtifacts, tmp_path: Path) -> None:
    store.put_bytes(b"x", "m/file")
    (tmp_path / "secret").write_text("s")
    os.symlink(tmp_path / "secret", os.path.join(store.root, "m", "leak"))
    os.symlink("file", os.path.join(store.root, "m", "alias"))
    with pytest.warns(UserWarning, match="not copied: leak"):
        store.get("m", str(tmp_path / "out"))
    assert tree(tmp_path / "out") == {"file": b"x", "alias": b"x"}
    assert not os.path.islink(tmp_path / "out" / "alias")


def test_unfinished_files_are_not_downloaded(store: LocalArtifacts, tmp_path: Path) -> None:
    store.put_bytes(b"x", "m/file")
    Path(store.root, "m", ".tmp-abc").write_text("half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.get("m", str(tmp_path / "out"))
    assert tree(tmp_path / "out") == {"file": b"x"}


def test_a_full_or_forbidden_place_is_a_clear_error(store: LocalArtifacts, tmp_path: Path) -> None:
    store.put_bytes(b"x", "f")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MlcliError, match="cannot write"):
        store.get("f", str(tmp_path / "file" / "below"))


def test_many_writers_of_one_name_leave_one_whole_file(store: LocalArtifacts) -> None:
    def write(number: int) -> None:
        for _ in range(30):
            store.put_bytes(bytes([number]) * 10_000, "same")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = Path(store.path("same")).read_bytes()
    assert len(content) == 10_000
    assert len(set(content)) == 1
    assert os.listdir(store.root) == ["same"]


# -- URIs


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "FILE:{}", "file://localhost{}"])
def test_a_path_and_a_file_uri_name_the_same_place(tmp_path: Path, form: str) -> None:
    (tmp_path / "a b").write_text("x")
    path = str(tmp_path / "a b")
    assert api.resolve(form.format(path if form == "{}" else path.replace(" ", "%20"))) == os.path.realpath(path)


@pytest.mark.parametrize(
    "uri",
    [
        "file:x",
        "file://elsewhere/etc/passwd",
        "file:///tmp#/../etc",
        "file:///tmp?/../etc",
        "file:///tmp;/../etc",
        "file:///tmp/%2e%2e/etc",
        "s3://b/../../x",
        "mlflow-artifacts:/../../etc",
        "http://h/x",
        "dbfs:/x",
        "models:/m",
        "runs:x",
        "runs:/",
        "runs://host/run/path",
        "runs:/id/../../etc",
    ],
)
def test_a_strange_uri_is_refused_with_a_hint(uri: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        locate(uri)
    assert caught.value.hint or "leaves" in caught.value.message


def test_a_run_uri_leads_into_the_runs_artifacts(root: Path) -> None:
    import mlcli

    mlcli.set_tracking_uri(root)
    with mlcli.start_run() as run:
        mlcli.log_text("hello", "notes/a.txt")
        mlcli.log_dict({"a": [1, 2]}, "d.json")
    uri = f"runs:/{run.info.run_id}"
    assert api.load_text(f"{uri}/notes/a.txt") == "hello"
    assert api.load_dict(f"{uri}/d.json") == {"a": [1, 2]}
    assert [item.path for item in api.list_artifacts(uri)] == ["d.json", "notes"]
    assert [item.path for item in api.list_artifacts(run_id=run.info.run_id, artifact_path="notes")] == ["notes/a.txt"]
    assert api.list_artifacts(f"{uri}/nothing") == []
    assert api.download_artifacts(f"{uri}/notes") == os.path.realpath(
        root / "0" / run.info.run_id / "artifacts" / "notes"
    )
    assert tree(api.download_artifacts(f"{uri}/notes", dst_path="out")) == {"a.txt": b"hello"}
    assert os.listdir("out") == ["notes"]
    assert sorted(tree(api.download_artifacts(run_id=run.info.run_id, dst_path="all"))) == ["d.json", "notes/a.txt"]
    assert api.download(f"runs:/{run.info.run_id[:8]}/d.json", "one").endswith("one/d.json")
    with pytest.raises(NotFound, match="nothing"):
        api.download_artifacts(f"{uri}/nothing", dst_path="out")
    with pytest.raises(NotFound):
        api.download_artifacts("runs:/0123/model", dst_path="out")


def test_damaged_text_and_json_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe{")
    (tmp_path / "g").write_text("{")
    with pytest.raises(InvalidInput, match="not a text file"):
        api.load_text(str(tmp_path / "f"))
    with pytest.raises(InvalidInput, match="not JSON"):
        api.load_dict(str(tmp_path / "g"))
