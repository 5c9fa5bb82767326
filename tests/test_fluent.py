"""The fluent API: what scripts log, in threads, forks and several processes, and how their runs end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import mlcli
from mlcli import entities, fluent
from mlcli.errors import InvalidInput, InvalidState, MlcliError, NotFound, StoreUnavailable
from mlcli.store import open_store


@pytest.fixture(autouse=True)
def _fresh(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of its own and nothing active, for every test."""
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))
    monkeypatch.delenv("MLCLI_EXPERIMENT_ID", raising=False)
    monkeypatch.setattr(fluent, "_chosen", None)
    yield
    while mlcli.active_run():
        mlcli.end_run()
    os.environ.pop("MLCLI_EXPERIMENT_ID", None)


def script(text: str, *args: object, check: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **env},
    )
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


def runs() -> list[entities.Run]:
    """Every run of the store, the oldest first."""
    with open_store() as store:
        return list(reversed(store.search_runs()))


def only() -> entities.Run:
    (run,) = runs()
    return run


# -- what is logged


def test_a_run_holds_what_was_logged(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("f")
    with mlcli.start_run(run_name="first", tags={"team": "a"}, description="what for") as run:
        mlcli.log_param("lr", 0.1)
        mlcli.log_params({"depth": 3, "none": None, "flag": True})
        mlcli.log_metric("loss", 0.5, step=1)
        mlcli.log_metric("loss", 0.25, step=2)
        mlcli.log_metrics({"acc": 0.9, "auc": 1}, step=3)
        mlcli.set_tag("k", "v")
        mlcli.set_tags({"n": 1})
        mlcli.log_artifact(tmp_path / "file.txt", "sub")
    found = mlcli.get_run(run.info.run_id)
    assert found.info.run_name == "first"
    assert found.info.status == "FINISHED"
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"lr": "0.1", "depth": "3", "none": "None", "flag": "True"}
    assert found.data.metrics == {"loss": 0.25, "acc": 0.9, "auc": 1.0}
    tags = {key: value for key, value in found.data.tags.items() if not key.startswith("mlflow.")}
    assert tags == {"team": "a", "k": "v", "n": "1"}
    assert found.data.tags["mlflow.note.content"] == "what for"
    assert Path(found.info.artifact_uri, "sub", "file.txt").read_text() == "f"


def test_a_run_says_where_it_comes_from(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "train.py").write_text("import mlcli\nmlcli.log_metric('m', 1)\n")
    git = ["git", "-C", str(repo)]
    for command in (
        ["init", "-q"],
        ["remote", "add", "origin", "https://user:secret@example.invalid/r.git"],
        ["add", "."],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([sys.executable, str(repo / "train.py")], check=True, env={**os.environ, "LOGNAME": "ada"})
    run = only()
    assert run.info.user_id == "ada"
    assert (
        run.data.tags.items()
        >= {
            "mlflow.user": "ada",
            "mlflow.source.name": str(repo / "train.py"),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": "main",
            "mlflow.source.git.repoURL": "https://example.invalid/r.git",
        }.items()
    )
    subprocess.run([*git, "pack-refs", "--all"], check=True)
    subprocess.run([sys.executable, str(repo / "train.py")], check=True)
    assert [item.data.tags["mlflow.source.git.commit"] for item in runs()] == [commit, commit]


def test_nonfinite_and_numeric_text_metrics_are_kept() -> None:
    with mlcli.start_run() as run:
        for step, value in enumerate([float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, True, "1.5", 2**53]):
            mlcli.log_metric("m", value, step=step)
    history = mlcli.Client().get_metric_history(run.info.run_id, "m")
    values = [point.value for point in sorted(history, key=lambda point: point.step)]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 0.0, 5e-324, 1.0, 1.5, 2.0**53]


@pytest.mark.parametrize(
    "call",
    [
        lambda: mlcli.log_metric("m", "text"),
        lambda: mlcli.log_metric("m", None),
        lambda: mlcli.log_metric("", 1),
        lambda: mlcli.log_metric("../m", 1),
        lambda: mlcli.log_metric("m", 1, step="3"),
        lambda: mlcli.log_metric("m", 1, step=2**63),
        lambda: mlcli.log_metric("m", 1, timestamp=-1),
        lambda: mlcli.log_metrics({"a": 1, "b": "x"}),
        lambda: mlcli.log_param("p", "x" * 6001),
        lambda: mlcli.log_param("p", "a\0b"),
        lambda: mlcli.log_param("p", "\ud800"),
        lambda: mlcli.log_params({"ok": 1, "bad\n": 2}),
        lambda: mlcli.set_tag("t", "x" * 8001),
        lambda: mlcli.log_text(3, "f"),
        lambda: mlcli.log_text("x", "../f"),
        lambda: mlcli.log_dict({"x": object()}, "d.json"),
        lambda: mlcli.log_figure("no figure", "f.png"),
        lambda: mlcli.log_figure("no figure", "format_unknown"),
        lambda: mlcli.log_input(3),
    ],
)
def test_what_cannot_be_kept_is_refused_at_the_call_and_nothing_is_recorded(call) -> None:
    with mlcli.start_run() as run, pytest.raises(InvalidInput):
        call()
    found = mlcli.get_run(run.info.run_id)
    assert (found.data.metrics, found.data.params) == ({}, {})
    assert not any(names for _, _, names in os.walk(found.info.artifact_uri))


@pytest.mark.parametrize("text", ["emoji 🎉", "new\nline", "-lead", "", " ", '"quotes"', "{json: 1}", "x" * 6000])
def test_a_param_comes_back_exactly(text: str) -> None:
    with mlcli.start_run() as run:
        mlcli.log_param("p", text)
    assert mlcli.get_run(run.info.run_id).data.params == {"p": text}


def test_a_param_is_written_once() -> None:
    with mlcli.start_run():
        mlcli.log_param("p", 1)
        mlcli.log_param("p", "1")
        with pytest.raises(InvalidInput, match=r"'p'.*is '1' already.*'2'"):
            mlcli.log_param("p", 2)
        with pytest.raises(InvalidInput):
            mlcli.log_params({"q": 1, "p": 2})
    assert only().data.params == {"p": "1"}


def test_a_param_of_a_resumed_run_is_written_once_too() -> None:
    with mlcli.start_run() as run:
        mlcli.log_param("p", 1)
    with mlcli.start_run(run_id=run.info.run_id):
        mlcli.log_param("p", 1)
        mlcli.log_param("q", 1)
        with pytest.raises(InvalidInput):
            mlcli.log_param("p", 2)
    assert only().data.params == {"p": "1", "q": "1"}


def test_a_tag_can_change_and_go() -> None:
    with mlcli.start_run():
        mlcli.set_tag("t", 1)
        mlcli.set_tag("t", 2)
        mlcli.set_tag("u", 1)
        mlcli.delete_tag("u")
        with pytest.raises(NotFound):
            mlcli.delete_tag("u")
    assert only().data.tags.get("t") == "2"
    assert "u" not in only().data.tags


def test_the_name_tag_renames_the_run() -> None:
    with mlcli.start_run() as run:
        mlcli.set_tag("mlflow.runName", "renamed")
        assert run.info.run_name == "renamed"
    assert only().info.run_name == "renamed"


def test_synchronous_false_gives_something_to_wait_for() -> None:
    with mlcli.start_run():
        mlcli.log_metric("m", 1, synchronous=False).wait()
        mlcli.log_params({"p": 1}, synchronous=False).wait()
        mlcli.set_tag("t", 1, synchronous=False).wait()
        assert mlcli.log_metric("m", 1) is None
        assert mlcli.log_param("q", 7) == 7
        mlcli.flush_async_logging()
    assert only().data.metrics == {"m": 1.0}


def test_another_run_can_be_logged_to_by_its_id() -> None:
    with mlcli.start_run() as first:
        pass
    with mlcli.start_run() as second:
        mlcli.log_metric("m", 1, run_id=first.info.run_id)
        mlcli.log_params({"p": 1}, run_id=first.info.run_id)
        mlcli.log_text("x", "t.txt", run_id=first.info.run_id)
    assert mlcli.get_run(first.info.run_id).data.metrics == {"m": 1.0}
    assert mlcli.get_run(second.info.run_id).data == mlcli.get_run(second.info.run_id).data._replace(
        metrics={}, params={}
    )
    assert mlcli.get_run(first.info.run_id).info.status == "FINISHED"
    with pytest.raises(NotFound):
        mlcli.log_metric("m", 1, run_id="0" * 32)
    mlcli.delete_run(first.info.run_id)
    with pytest.raises(InvalidState):
        mlcli.Client().log_param(first.info.run_id, "q", 1)


# -- artifacts of several kinds


def test_dictionaries_are_written_as_json_or_yaml() -> None:
    import numpy as np
    import yaml

    value = {
        "a": [1, 2.5, None, True],
        "b": {"ä: #": "yes", "n": np.float64(0.5), "arr": np.arange(2)},
        "e": {},
        "l": [],
    }
    with mlcli.start_run() as run:
        mlcli.log_dict(value, "d.json")
        mlcli.log_dict(value, "d.yml")
    plain = {"a": [1, 2.5, None, True], "b": {"ä: #": "yes", "n": 0.5, "arr": [0, 1]}, "e": {}, "l": []}
    folder = Path(run.info.artifact_uri)
    assert json.loads((folder / "d.json").read_text()) == plain
    assert yaml.safe_load((folder / "d.yml").read_text()) == plain


def test_a_figure_and_images_are_saved_in_the_format_of_their_names() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    import PIL.Image
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    with mlcli.start_run() as run:
        mlcli.log_figure(figure, "plots/a.png", save_kwargs={"dpi": 20})
        mlcli.log_figure(figure, "plots/a.svg")
        mlcli.log_image(np.zeros((4, 5, 3), dtype="uint8"), "images/zero.png")
        mlcli.log_image(np.ones((4, 5)), key="grad/x", step=3)
        mlcli.log_image(PIL.Image.new("L", (2, 2)), "pil.png")
        with pytest.raises(InvalidInput):
            mlcli.log_image(np.full((2, 2), 300), "bad.png")
    folder = Path(run.info.artifact_uri)
    assert (folder / "plots" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (folder / "plots" / "a.svg").read_bytes()
    with PIL.Image.open(folder / "images" / "zero.png") as image:
        assert image.size == (5, 4)
    assert [name.split("+")[:3] for name in os.listdir(folder / "images") if "+" in name] == [["grad#x", "step", "3"]]
    assert not (folder / "bad.png").exists()


def test_a_table_grows_by_rows() -> None:
    import pandas as pd

    with mlcli.start_run() as run:
        mlcli.log_table({"q": ["a", "b"], "n": [1, 2]}, "t.json")
        mlcli.log_table(pd.DataFrame({"n": [3], "q": ["c"]}), "t.json")
        mlcli.log_table({"q": "d", "n": 4}, "t.json")
        with pytest.raises(InvalidInput, match="columns"):
            mlcli.log_table({"other": [1]}, "t.json")
        assert mlcli.load_table("t.json").to_dict("list") == {"q": ["a", "b", "c", "d"], "n": [1, 2, 3, 4]}
        with pytest.raises(NotFound, match=r"has a table 'other\.json'"):
            mlcli.load_table("other.json")
    assert json.loads(only().data.tags["mlflow.loggedArtifacts"]) == [{"path": "t.json", "type": "table"}]
    assert [item.path for item in mlcli.artifacts.list_artifacts(run_id=run.info.run_id)] == ["t.json"]


def test_the_tables_of_an_experiment_are_read_as_one() -> None:
    ids = []
    for number in range(3):
        with mlcli.start_run() as run:
            mlcli.log_param("number", number)
            if number != 1:
                mlcli.log_table({"n": [number]}, "t.json")
        ids.append(run.run_id)
        time.sleep(0.002)
    table = mlcli.load_table("t.json", extra_columns=["run_id", "params.number", "params.none"])
    assert table.to_dict("list") == {
        "n": [2, 0],
        "run_id": [ids[2], ids[0]],
        "params.number": ["2", "0"],
        "params.none": [None, None],
    }
    assert mlcli.Client().load_table("0", "t.json", [ids[0]]).to_dict("list") == {"n": [0]}
    with pytest.raises(NotFound, match=r"no table 't\.json'"):
        mlcli.load_table("t.json", [ids[1]])


def test_datasets_are_noted_as_inputs() -> None:
    dataset = entities.Dataset("wine", "1a2b", "local", "wine.csv", schema="{}", profile='{"rows": 3}')
    with mlcli.start_run():
        mlcli.log_input(dataset, context="train", tags={"v": "1"})
        mlcli.log_inputs([dataset._replace(digest="9z")], contexts=["eval"])
    found = {item.dataset: item.tags for item in only().inputs.dataset_inputs}
    assert found == {
        dataset: {"mlflow.data.context": "train", "v": "1"},
        dataset._replace(digest="9z"): {"mlflow.data.context": "eval"},
    }


def test_the_artifact_uri_is_the_folder_where_artifacts_lie() -> None:
    with mlcli.start_run():
        mlcli.log_text("x", "a/b.txt")
        assert Path(mlcli.get_artifact_uri("a/b.txt")).read_text() == "x"
        assert Path(mlcli.get_artifact_uri(), "a", "b.txt").exists()


# -- the life of a run


def test_logging_without_a_run_starts_one() -> None:
    mlcli.log_metric("m", 1)
    assert mlcli.active_run().info.run_id == only().info.run_id
    assert only().info.status == "RUNNING"
    mlcli.end_run()
    assert only().info.status == "FINISHED"
    assert mlcli.active_run() is None
    assert mlcli.last_active_run() == only()


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit(0), "FINISHED"), (SystemExit(3), "FAILED")],
)
def test_the_end_of_with_tells_how_it_went(error, status: str) -> None:
    def fail() -> None:
        with mlcli.start_run():
            raise error

    with pytest.raises(BaseException):  # noqa: B017 - each of the four
        fail()
    assert only().info.status == status


def test_a_second_run_needs_the_first_to_end_or_to_be_its_parent() -> None:
    with mlcli.start_run() as parent:
        with pytest.raises(InvalidState, match="active already"):
            mlcli.start_run()
        with mlcli.start_run(nested=True) as child:
            assert mlcli.active_run() is child
        assert mlcli.active_run() is parent
    assert mlcli.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    assert mlcli.get_parent_run(parent.info.run_id) is None
    assert [run.info.status for run in runs()] == ["FINISHED", "FINISHED"]


def test_a_parent_can_be_named() -> None:
    with mlcli.start_run() as parent:
        pass
    with mlcli.start_run(parent_run_id=parent.info.run_id) as child, pytest.raises(InvalidInput):
        mlcli.start_run(nested=True, parent_run_id=parent.info.run_id)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    with pytest.raises(NotFound):
        mlcli.start_run(parent_run_id="0" * 32)


def test_ending_the_parent_ends_the_children_in_it() -> None:
    with mlcli.start_run():
        mlcli.start_run(nested=True)
    assert [run.info.status for run in runs()] == ["FINISHED", "FINISHED"]
    assert mlcli.active_run() is None


def test_a_run_can_be_resumed_and_ends_again() -> None:
    with mlcli.start_run() as run:
        mlcli.log_metric("m", 1)
    with mlcli.start_run(run_id=run.info.run_id, run_name="again", tags={"t": 1}):
        assert only().info.status == "RUNNING"
        mlcli.log_metric("m", 2, step=1)
    found = only()
    assert (found.info.status, found.info.run_name) == ("FINISHED", "again")
    assert (found.data.metrics, found.data.tags["t"]) == ({"m": 2.0}, "1")


def test_a_deleted_or_missing_run_cannot_be_resumed() -> None:
    with mlcli.start_run() as run:
        pass
    mlcli.delete_run(run.info.run_id)
    with pytest.raises(InvalidState, match="deleted"):
        mlcli.start_run(run_id=run.info.run_id)
    with pytest.raises(NotFound):
        mlcli.start_run(run_id="0" * 32)
    assert mlcli.active_run() is None


def test_an_unknown_status_is_refused_and_the_run_stays_active() -> None:
    with mlcli.start_run() as run:
        with pytest.raises(InvalidInput, match="BOGUS"):
            mlcli.end_run("BOGUS")
        assert mlcli.active_run() is run
        mlcli.end_run("KILLED")
    assert only().info.status == "KILLED"


def test_two_names_for_one_run_are_refused() -> None:
    with pytest.raises(InvalidInput):
        mlcli.start_run(run_name="a", tags={"mlflow.runName": "b"})
    with pytest.raises(InvalidInput):
        mlcli.start_run(description="a", tags={"mlflow.note.content": "b"})


# -- experiments and the store


def test_runs_go_to_the_experiment_that_was_set() -> None:
    made = mlcli.create_experiment("made", tags={"k": "v"})
    found = mlcli.set_experiment("made")
    assert (found.experiment_id, found.tags) == (made, {"k": "v"})
    with mlcli.start_run() as run:
        pass
    assert run.info.experiment_id == made
    mlcli.set_experiment_tag("x", 1)
    assert mlcli.get_experiment_by_name("made").tags == {"k": "v", "x": "1"}
    with mlcli.start_run(experiment_id="0") as run:
        pass
    assert run.info.experiment_id == "0"
    assert mlcli.set_experiment(experiment_id="0").name == "Default"
    assert {item.name for item in mlcli.search_experiments()} == {"Default", "made"}


def test_artifacts_lie_where_the_experiment_says(tmp_path: Path) -> None:
    mlcli.create_experiment("elsewhere", artifact_location=str(tmp_path / "elsewhere"))
    mlcli.set_experiment("elsewhere")
    with mlcli.start_run() as run:
        mlcli.log_text("x", "t.txt")
    assert Path(tmp_path, "elsewhere", run.info.run_id, "artifacts", "t.txt").exists()
    assert only().info.artifact_uri == run.info.artifact_uri


@pytest.mark.parametrize("variable", ["MLCLI_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"])
def test_the_environment_can_name_the_experiment(variable: str) -> None:
    script("import mlcli; mlcli.log_metric('m', 1)", **{variable: "from outside"})
    assert mlcli.get_experiment(only().info.experiment_id).name == "from outside"


def test_a_deleted_or_missing_experiment_takes_no_runs() -> None:
    made = mlcli.create_experiment("gone")
    mlcli.delete_experiment(made)
    for attempt in (
        lambda: mlcli.set_experiment(experiment_id=made),
        lambda: mlcli.start_run(experiment_id=made),
        lambda: mlcli.start_run(experiment_id="77"),
    ):
        with pytest.raises(MlcliError):
            attempt()
    assert mlcli.active_run() is None
    assert mlcli.set_experiment("gone").experiment_id != made


def test_programs_started_from_here_use_the_same_store_and_experiment(tmp_path: Path) -> None:
    mlcli.set_tracking_uri(tmp_path / "other")
    mlcli.set_experiment("shared")
    script("import mlcli; mlcli.log_metric('m', 1)")
    assert mlcli.get_experiment(only().info.experiment_id).name == "shared"
    assert mlcli.get_tracking_uri() == str(tmp_path / "other")


@pytest.mark.parametrize("uri", ["mysql://u:secret@h/db", "sqlite:///mlflow.db", "databricks:x"])
def test_a_store_that_is_neither_folder_nor_server_is_refused_with_what_to_do(uri: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        mlcli.set_tracking_uri(uri)
    assert "folder" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mlcli.set_tracking_uri(tmp_path / "file" / "mlruns")
    with pytest.raises(StoreUnavailable, match="cannot write"):
        mlcli.start_run()


# -- searching


def test_runs_are_found_as_a_list_and_as_a_table() -> None:
    mlcli.set_experiment("searched")
    for number in range(3):
        with mlcli.start_run(run_name=f"r{number}"):
            mlcli.log_metric("m", number)
            mlcli.log_param("p" if number else "q", number)
    found = mlcli.search_runs(filter_string="metrics.m >= 1", order_by=["metrics.m DESC"], output_format="list")
    assert [run.info.run_name for run in found] == ["r2", "r1"]
    frame = mlcli.search_runs(order_by=["metrics.m"])
    assert list(frame["metrics.m"]) == [0.0, 1.0, 2.0]
    assert list(frame["params.p"])[1:] == ["1", "2"]
    assert frame["params.p"].isna()[0]
    assert str(frame["start_time"].dtype).endswith("UTC]")
    assert list(frame["tags.mlflow.runName"]) == ["r0", "r1", "r2"]
    assert len(mlcli.search_runs(experiment_names=["searched", "unknown"], max_results=2)) == 2
    assert len(mlcli.search_runs(experiment_ids="0")) == 0
    assert len(mlcli.search_runs(search_all_experiments=True)) == 3


def test_looking_leaves_nothing_behind(root: Path) -> None:
    assert mlcli.search_runs(output_format="list") == []
    assert mlcli.get_experiment_by_name("none") is None
    with pytest.raises(NotFound):
        mlcli.get_run("0" * 32)
    assert not root.exists()


# -- threads


def test_each_thread_has_its_own_active_run() -> None:
    def work(number: int) -> None:
        with mlcli.start_run(run_name=f"t{number}"):
            for step in range(50):
                mlcli.log_metric("m", number, step=step)

    with mlcli.start_run(run_name="main"):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mlcli.log_metric("m", -1)
    assert {run.info.run_name: run.data.metrics["m"] for run in runs()} == {
        "main": -1.0,
        **{f"t{number}": float(number) for number in range(4)},
    }
    history = mlcli.Client().get_metric_history(
        next(run for run in runs() if run.info.run_name == "t1").info.run_id, "m"
    )
    assert [point.step for point in history] == list(range(50))


def test_threads_can_log_to_one_run() -> None:
    with mlcli.start_run() as run:
        run_id = run.info.run_id

        def work(number: int) -> None:
            for step in range(200):
                mlcli.log_metric(f"m{number}", step, step=step, run_id=run_id)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    client = mlcli.Client()
    assert all(len(client.get_metric_history(run_id, f"m{number}")) == 200 for number in range(6))
    assert [run.info.run_id for run in runs()] == [run_id]


# -- forks and processes

FORK = """
    import os, sys, mlcli
    with mlcli.start_run(run_name="parent"):
        mlcli.log_metric("m", 0, step=0)
        children = []
        for number in range(1, 4):
            pid = os.fork()
            if pid == 0:
                mlcli.log_metric("m", number, step=number)
                mlcli.log_param(f"p{number}", number)
                mlcli.set_tag("from", number)
                LEAVE
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        mlcli.log_metric("m", 9, step=9)
        run = mlcli.active_run()
        print(run.to_dictionary()["info"]["status"])
"""


@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_forked_children_log_to_the_run_and_do_not_end_it(leave: str) -> None:
    done = script(FORK.replace("LEAVE", leave))
    assert "RUNNING" in done.stdout.splitlines()
    run = only()
    assert run.info.status == "FINISHED"
    assert run.data.params == {"p1": "1", "p2": "2", "p3": "3"}
    steps = [point.step for point in mlcli.Client().get_metric_history(run.info.run_id, "m")]
    assert sorted(steps) == [0, 1, 2, 3, 9]
    assert os.listdir(Path(os.environ["MLCLI_TRACKING_URI"], "live")) == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_workers_log_to_one_run(tmp_path: Path, method: str) -> None:
    (tmp_path / "job.py").write_text(
        textwrap.dedent("""
        import multiprocessing, sys, mlcli
        def work(pair):
            run_id, number = pair
            for step in range(100):
                mlcli.log_metric(f"m{number}", step, step=step, run_id=run_id)
        if __name__ == "__main__":
            multiprocessing.set_start_method(sys.argv[1])
            with mlcli.start_run() as run:
                with multiprocessing.Pool(3) as pool:
                    pool.map(work, [(run.info.run_id, number) for number in range(6)])
                    pool.close()
                    pool.join()
        """)
    )
    subprocess.run([sys.executable, str(tmp_path / "job.py"), method], check=True, timeout=120)
    run = only()
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {f"m{number}": 99.0 for number in range(6)}


def test_every_acknowledged_metric_survives_kill_9(root: Path) -> None:
    code = """
        import sys, mlcli
        mlcli.start_run()
        mlcli.log_param("p", 1)
        step = 0
        while True:
            mlcli.log_metric("m", step, step=step)
            step += 1
            if step % 100 == 0:
                sys.stdout.write(f"{step}\\n"); sys.stdout.flush()
    """
    for round_number in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        ) as child:
            acknowledged = int(child.stdout.readline())
            time.sleep(0.03 * (round_number + 1))
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split("\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        run = runs()[-1]
        steps = [point.step for point in mlcli.Client().get_metric_history(run.info.run_id, "m")]
        assert len(steps) >= acknowledged
        assert sorted(steps) == list(range(len(steps)))
        assert run.info.status == "KILLED"
        assert run.data.params == {"p": "1"}
    assert os.listdir(root / "live") == []


# -- what is left open at exit


@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        ("pass", 0, "FINISHED"),
        ("raise ValueError('x')", 1, "FAILED"),
        ("raise KeyboardInterrupt", -2, "KILLED"),
        ("import os; os.kill(os.getpid(), 15)", -15, "KILLED"),
        ("import os; os._exit(0)", 0, "KILLED"),
        ("mlcli.end_run('FAILED')", 0, "FAILED"),
        ("sys.excepthook = sys.__excepthook__; mlcli.end_run(); mlcli.start_run(nested=True)", 0, "FINISHED"),
    ],
)
def test_a_run_left_open_ends_with_its_program(ending: str, code: int, status: str) -> None:
    done = script(f"import sys, mlcli\nmlcli.start_run()\n{ending}", check=None)
    assert done.returncode == code, done.stderr
    assert runs()[-1].info.status == status
    if "ValueError" in ending:
        assert "ValueError: x" in done.stderr


def test_runs_left_open_in_threads_end_too() -> None:
    script(
        """
        import threading, mlcli
        thread = threading.Thread(target=mlcli.start_run)
        thread.start(); thread.join()
        mlcli.start_run()
        mlcli.start_run(nested=True)
        """
    )
    assert [run.info.status for run in runs()] == ["FINISHED"] * 3


# -- inside `mlcli run`


@pytest.fixture
def watched(root: Path):
    """A run held by another process, as `mlcli run` holds it; yields what the script finds in its environment."""
    code = """
        import sys, mlcli.journal as j
        root = sys.argv[1]
        journal = j.Journal.open(root)
        params = {"l1_ratio": "0.30", "flag": "true", "name": "x"}
        journal.start_run("a" * 32, "0", "held", "me", j.now(), tags={"mlflow.source.type": "PROJECT"}, params=params)
        shared = j.Journal.open(root, default_run="a" * 32)
        print(shared.path, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        path = holder.stdout.readline().strip()
        yield {"MLCLI_RUN_ID": "a" * 32, "MLFLOW_RUN_ID": "a" * 32, "MLCLI_JOURNAL": path, "MLCLI_EXPERIMENT_ID": "0"}
        holder.stdin.close()


@pytest.mark.parametrize(
    "body",
    [
        "mlcli.log_metric('m', 1)",
        "with mlcli.start_run(): mlcli.log_metric('m', 1)",
        "mlcli.start_run(run_id='a' * 32); mlcli.log_metric('m', 1); mlcli.end_run()",
    ],
)
def test_a_script_goes_on_with_the_run_of_mlcli_run_and_does_not_end_it(watched: dict[str, str], body: str) -> None:
    script(f"import mlcli\n{body}", **watched)
    run = only()
    assert (run.info.run_id, run.info.status, run.info.run_name) == ("a" * 32, "RUNNING", "held")
    assert run.data.metrics == {"m": 1.0}
    assert run.data.tags["mlflow.source.type"] == "PROJECT"


def test_a_second_start_run_makes_a_new_run(watched: dict[str, str]) -> None:
    script(
        "import mlcli\nfor n in (1, 2):\n    with mlcli.start_run(run_name=f'n{n}'): mlcli.log_metric('m', n)",
        **watched,
    )
    assert [(run.info.run_name, run.data.metrics["m"], run.info.status) for run in runs()] == [
        ("n1", 1.0, "RUNNING"),
        ("n2", 2.0, "FINISHED"),
    ]


def test_a_param_from_the_command_line_may_be_logged_again_as_what_the_script_made_of_it(
    watched: dict[str, str],
) -> None:
    script("import mlcli; mlcli.log_params({'l1_ratio': 0.3, 'flag': True, 'name': 'x', 'new': 1})", **watched)
    done = script("import mlcli; mlcli.log_param('l1_ratio', 0.4)", check=1, **watched)
    assert "is '0.30' already" in done.stderr
    assert only().data.params == {"l1_ratio": "0.30", "flag": "true", "name": "x", "new": "1"}
    with open_store() as store:
        assert store.rejected_lines() == []


def test_another_experiment_or_store_in_the_script_does_not_move_the_run(
    watched: dict[str, str], tmp_path: Path
) -> None:
    done = script(
        """
        import sys, mlcli
        mlcli.set_tracking_uri("http://localhost:5000")
        mlcli.set_tracking_uri(sys.argv[1])
        mlcli.set_experiment("another")
        with mlcli.start_run(): mlcli.log_metric("m", 1)
        with mlcli.start_run(): pass
        """,
        tmp_path / "other",
        **watched,
    )
    assert not (tmp_path / "other").exists()
    first, second = runs()
    assert (first.info.run_id, first.info.experiment_id, first.data.metrics) == ("a" * 32, "0", {"m": 1.0})
    assert mlcli.get_experiment(second.info.experiment_id).name == "another"
    assert len(done.stderr.splitlines()) == 3
    assert "it stays there" in done.stderr


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("mlcli.start_run(); mlcli.end_run('FAILED')", "FAILED"),
        ("mlcli.start_run(); mlcli.end_run('KILLED')", "KILLED"),
        ("mlcli.start_run()\nraise ValueError", "RUNNING"),
        ("with mlcli.start_run():\n    raise ValueError", "FAILED"),
    ],
)
def test_only_a_status_set_on_purpose_is_written(watched: dict[str, str], body: str, status: str) -> None:
    script(f"import mlcli\n{body}", check=None, **watched)
    assert only().info.status == status


def test_a_run_id_without_mlcli_run_is_resumed_and_ended() -> None:
    with mlcli.start_run() as run:
        pass
    script("import mlcli; mlcli.log_metric('m', 1); mlcli.end_run('FAILED')", MLFLOW_RUN_ID=run.info.run_id)
    assert (only().info.status, only().data.metrics) == ("FAILED", {"m": 1.0})


# --- models


def test_a_script_registers_the_model_of_its_run_and_finds_it_again() -> None:
    with mlcli.start_run() as run:
        mlcli.log_dict({}, "model/MLmodel")
    made = mlcli.register_model(f"runs:/{run.run_id}/model", "iris", tags={"a": 1}, alias="best")
    assert (made.name, made.version, made.run_id, made.aliases) == ("iris", "1", run.run_id, ("best",))
    mlcli.set_model_version_tag("iris", "1", "b", 2)
    assert [model.name for model in mlcli.search_registered_models(filter_string="name LIKE 'i%'")] == ["iris"]
    assert [version.tags for version in mlcli.search_model_versions()] == [{"a": "1", "b": "2"}]
    assert mlcli.get_registry_uri() == mlcli.get_tracking_uri()
    mlcli.set_registry_uri(mlcli.get_tracking_uri())


def test_a_logged_model_belongs_to_the_active_run_and_takes_its_metrics() -> None:
    dataset = mlcli.entities.Dataset("wine", "d1", "local", "wine.csv")
    with mlcli.start_run() as run:
        model = mlcli.initialize_logged_model("net", tags={"a": "1"}, params={"depth": 2})
        mlcli.log_metric("acc", 0.5, model_id=model.model_id, dataset=dataset)
        mlcli.log_metrics({"acc": 0.7, "f1": 0.6}, step=2, model_id=model.model_id)
        with pytest.raises(InvalidInput):
            mlcli.log_metrics({"f1": 0.7, "acc": "good"}, step=3, model_id=model.model_id)
        mlcli.log_metric("plain", 1, dataset=dataset)
    assert [item.dataset for item in mlcli.get_run(run.run_id).inputs.dataset_inputs] == [dataset]
    assert (model.source_run_id, model.status) == (run.run_id, "PENDING")
    assert mlcli.get_run(run.run_id).data.metrics == {"acc": 0.7, "f1": 0.6, "plain": 1.0}
    assert mlcli.finalize_logged_model(model.model_id, "READY").status == "READY"
    mlcli.log_model_params({"width": 3}, model.model_id)
    mlcli.set_logged_model_tags(model.model_id, {"b": "2"})
    mlcli.delete_logged_model_tag(model.model_id, "a")
    (found,) = mlcli.search_logged_models(output_format="list")
    assert found == mlcli.get_logged_model(model.model_id)
    assert (found.params, found.tags) == ({"depth": "2", "width": "3"}, {"b": "2"})
    assert {(point.key, point.value, point.dataset_name) for point in found.metrics} == {
        ("acc", 0.5, "wine"),
        ("acc", 0.7, ""),
        ("f1", 0.6, ""),
    }
    mlcli.delete_logged_model(model.model_id)
    assert mlcli.search_logged_models(output_format="list") == []
