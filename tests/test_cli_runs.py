"""`mlcli runs`: what is listed, shown, compared, exported and tidied up."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from served import Served

from mlcli.entities import Metric, Param, RunTag
from mlcli.store import open_store, store_root


@pytest.fixture
def runs() -> list[str]:
    """Three ended runs, the oldest first: two of `wine`, one of Default."""
    made = []
    with open_store() as store:
        wine = store.create_experiment("wine")
        for place, (experiment, status) in enumerate([(wine, "FINISHED"), (wine, "FAILED"), ("0", "FINISHED")]):
            start = 1_700_000_000_000 + place * 60_000
            run = store.create_run(experiment, start_time=start, run_name=f"run number {place}", user_id="ann").info
            store.log_batch(
                run.run_id,
                params=[Param("lr", f"0.{place + 1}"), Param("solver", "lbfgs")],
                metrics=[Metric("acc", 0.5 + place / 10, start, 0), Metric("loss", 1.0 - place / 10, start, 0)],
                tags=[RunTag("team", "red"), RunTag("formula", "=cmd()")],
            )
            store.log_batch(run.run_id, metrics=[Metric("acc", 0.6 + place / 10, start, 1)])
            store.update_run(run.run_id, status=status, end_time=start + 5_000)
            made.append(run.run_id)
    return made


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


# --- list and search


def test_list_in_a_pipe_has_every_metric_and_param_under_a_header(mlcli, runs):
    rows = table(mlcli("runs", "list").stdout)
    assert [row["run_id"] for row in rows] == runs[::-1]
    assert rows[0] == {
        "run_id": runs[2],
        "name": "run number 2",
        "status": "FINISHED",
        "experiment_id": "0",
        "experiment": "Default",
        "start_time": "2023-11-14T22:15:20.000Z",
        "end_time": "2023-11-14T22:15:25.000Z",
        "duration_ms": "5000",
        "metrics.acc": "0.8",
        "metrics.loss": "0.8",
        "params.lr": "0.3",
        "params.solver": "lbfgs",
    }


def test_list_as_json_is_an_array_of_what_show_prints(mlcli, runs):
    listed = json.loads(mlcli("runs", "list", "--json").stdout)
    assert [run["info"]["run_id"] for run in listed] == runs[::-1]
    shown = json.loads(mlcli("runs", "show", runs[2], "--json").stdout)
    assert shown.pop("models") == []
    assert listed[0] == shown
    assert set(listed[0]) == {"info", "data", "inputs", "outputs"}


@pytest.mark.parametrize(
    "options", [["--experiment-name", "wine"], ["-n", "wine"], ["--experiment-id", "1"], ["-x", "1"]]
)
def test_list_takes_an_experiment_by_name_or_id(mlcli, runs, options):
    assert {row["run_id"] for row in table(mlcli("runs", "list", *options).stdout)} == set(runs[:2])


def test_list_takes_several_experiments(mlcli, runs):
    assert len(table(mlcli("runs", "list", "-n", "wine", "-n", "Default").stdout)) == 3


@pytest.mark.parametrize("variable", ["MLCLI_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"])
def test_list_follows_the_experiment_of_the_settings(mlcli, runs, monkeypatch, variable):
    monkeypatch.setenv(variable, "wine")
    assert len(table(mlcli("runs", "list").stdout)) == 2


def test_an_experiment_that_is_not_there_is_not_found_and_the_like_is_named(mlcli, runs):
    told = mlcli("runs", "list", "-n", "wein", check=3).stderr
    assert "there is no experiment 'wein'" in told
    assert "did you mean `wine`?" in told


def test_list_stops_at_max_results_and_says_so(mlcli, runs):
    done = mlcli("runs", "list", "--max-results", 2)
    assert len(table(done.stdout)) == 2
    assert "--max-results" in done.stderr


def test_list_orders_as_asked(mlcli, runs):
    rows = table(mlcli("runs", "list", "--order-by", "metrics.acc ASC").stdout)
    assert [row["run_id"] for row in rows] == runs


def test_search_finds_what_matches(mlcli, runs):
    rows = table(mlcli("runs", "search", "metrics.acc > 0.65 and params.solver = 'lbfgs' and status = 'FAILED'").stdout)
    assert [row["run_id"] for row in rows] == [runs[1]]


def test_a_filter_that_does_not_parse_is_pointed_at(mlcli, runs):
    told = mlcli("runs", "search", "metrics.acc >> 1", check=2).stderr
    assert told.startswith("error: ")
    assert "\n  metrics.acc >> 1\n" in told
    assert "^" in told


def test_nothing_found_says_what_to_do_next(mlcli):
    assert "mlcli run PROJECT" in mlcli("runs", "list").stderr
    assert "no run matches" in mlcli("runs", "search", "metrics.acc > 5").stderr
    assert "is deleted" in mlcli("runs", "list", "--view", "deleted_only").stderr
    assert mlcli("runs", "list", "--json").stdout == "[]\n"


def test_looking_at_nothing_makes_no_store(mlcli):
    mlcli("runs", "list")
    assert os.listdir() == []


def test_quiet_leaves_only_the_data(mlcli):
    assert mlcli("runs", "list", "-q").stderr == ""


# --- naming a run


def test_a_run_is_named_by_id_prefix_latest_and_name(mlcli, runs):
    def shown(word: str) -> str:
        return json.loads(mlcli("runs", "show", word, "--json").stdout)["info"]["run_id"]

    assert shown(runs[0]) == shown(runs[0][:10]) == shown("latest~2") == shown("run number 0") == runs[0]
    assert shown("latest") == runs[2]


def test_a_run_is_named_by_an_option_as_in_mlflow(mlcli, runs):
    assert json.loads(mlcli("runs", "describe", "--run-id", runs[1], "--json").stdout)["info"]["run_id"] == runs[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nope"], 3, "there is no run 'nope'"),
        (["latest~9"], 3, "there are not 10 runs"),
        (["latest~²"], 2, "is not a run"),
        (["latest~" + "9" * 30], 2, "is not a run"),
        ([], 2, "no run is named"),
        (["latest", "--run-id", "latest~1"], 2, "two runs are named"),
    ],
)
def test_a_run_that_cannot_be_found_is_told(mlcli, runs, words, code, message):
    assert message in mlcli("runs", "show", *words, check=code).stderr


# --- show and logs


def test_show_in_a_pipe_is_name_and_value_a_line(mlcli, runs):
    found = dict(line.split("\t") for line in mlcli("runs", "show", "latest").stdout.splitlines())
    assert found["run_id"] == runs[2]
    assert found["params.lr"] == "0.3"
    assert found["metrics.acc"] == "0.8"
    assert found["tags.team"] == "red"
    assert found["end_time"] == "2023-11-14T22:15:25.000Z"


def write_log(run_id: str, content: bytes) -> str:
    with open_store() as store:
        path = os.path.join(store.artifact_root(run_id), "logs", "output.log")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path


def logs(*words: object) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "mlcli", "runs", "logs", *map(str, words)], capture_output=True, check=True
    ).stdout


def test_logs_are_printed_byte_for_byte(runs):
    content = bytes(range(256)) * 3
    write_log(runs[0], content)
    assert logs(runs[0]) == content


@pytest.mark.parametrize(
    ("content", "count", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
        (b"\n\n\n", 1, b"\n"),
        (b"x" * 200_000 + b"\nlast\n", 1, b"last\n"),
    ],
)
def test_logs_tail_is_the_last_lines(runs, content, count, expected):
    write_log(runs[0], content)
    assert logs(runs[0], "--tail", count) == expected


def test_logs_of_a_run_without_output_are_not_found(mlcli, runs):
    assert "no output is kept" in mlcli("runs", "logs", "latest", check=3).stderr


def test_logs_follow_until_the_run_ends():
    with open_store() as store:
        key = store.create_run("0").info.run_id
        path = write_log(key, b"one\n")
        follower = subprocess.Popen(
            [sys.executable, "-m", "mlcli", "runs", "logs", key, "--follow"], stdout=subprocess.PIPE
        )
        with follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"one\n"
            with open(path, "ab") as file:
                file.write(b"two\n")
            assert follower.stdout.readline() == b"two\n"
            with open(path, "ab") as file:
                file.write(b"three\n")
            store.update_run(key, status="FINISHED")
            assert follower.stdout.read() == b"three\n"
        assert follower.returncode == 0


# --- compare and diff


def test_compare_puts_runs_side_by_side(mlcli, runs):
    lines = [line.split("\t") for line in mlcli("runs", "compare", *runs[:2]).stdout.splitlines()]
    assert lines[0] == ["kind", "key", *runs[:2]]
    assert ["param", "lr", "0.1", "0.2"] in lines
    assert ["metric", "acc", "0.6", "0.7"] in lines


def test_compare_knows_which_metrics_are_better_when_less(mlcli, runs):
    rows = json.loads(mlcli("runs", "compare", *runs, "--json").stdout)["rows"]
    best = {row["key"]: row["best"] for row in rows if row["kind"] == "metric"}
    assert best == {"acc": [2], "loss": [2]}


def test_compare_can_leave_out_what_is_the_same(mlcli, runs):
    keys = {row["key"] for row in json.loads(mlcli("runs", "compare", *runs, "--changed", "--json").stdout)["rows"]}
    assert "solver" not in keys
    assert "lr" in keys


def test_compare_needs_two_runs(mlcli, runs):
    assert "two runs" in mlcli("runs", "compare", "latest", check=2).stderr


def test_diff_shows_only_what_differs(mlcli, runs):
    with open_store() as store:
        store.set_tag(runs[0], "mlflow.source.git.commit", "aaa")
        store.set_tag(runs[1], "mlflow.source.git.commit", "bbb")
        for run_id, version in zip(runs[:2], ("1.26.3", "2.0.0"), strict=True):
            folder = os.path.join(store.artifact_root(run_id), "environment")
            os.makedirs(folder)
            with open(os.path.join(folder, "requirements.txt"), "w", encoding="utf-8") as file:
                file.write(f"numpy=={version}\npandas==2.2.0\n")
    lines = [line.split("\t") for line in mlcli("runs", "diff", *runs[:2]).stdout.splitlines()[1:]]
    found = {(kind, key): values for kind, key, *values in lines}
    assert found["param", "lr"] == ["0.1", "0.2"]
    assert found["run", "status"] == ["FINISHED", "FAILED"]
    assert found["code", "commit"] == ["aaa", "bbb"]
    assert found["package", "numpy"] == ["1.26.3", "2.0.0"]
    assert ("package", "pandas") not in found
    assert ("param", "solver") not in found
    assert ("tag", "team") not in found


def test_diff_of_a_run_with_itself_says_so(mlcli, runs):
    done = mlcli("runs", "diff", "latest", "latest")
    assert done.stdout.splitlines() == [f"kind\tkey\t{runs[2]}\t{runs[2]}"]
    assert "differ in nothing" in done.stderr


# --- export


def test_export_as_csv_has_mlflows_columns(mlcli, runs):
    rows = list(csv.DictReader(io.StringIO(mlcli("runs", "export").stdout)))
    assert len(rows) == 3
    assert list(rows[0])[:7] == [
        "run_id",
        "experiment_id",
        "status",
        "artifact_uri",
        "start_time",
        "end_time",
        "run_name",
    ]
    assert rows[0]["start_time"] == "2023-11-14 22:15:20.000+00:00"
    assert rows[0]["metrics.acc"] == "0.8"


def test_a_text_that_a_spreadsheet_would_run_is_quoted_unless_asked_not_to(mlcli, runs):
    safe = next(csv.DictReader(io.StringIO(mlcli("runs", "export").stdout)))
    raw = next(csv.DictReader(io.StringIO(mlcli("runs", "export", "--raw").stdout)))
    assert (safe["tags.formula"], raw["tags.formula"]) == ("'=cmd()", "=cmd()")


def test_a_negative_number_is_no_formula(mlcli, runs):
    with open_store() as store:
        store.log_batch(runs[0], params=[Param("low", "-0.5"), Param("sum", "-1+2")])
    row = list(csv.DictReader(io.StringIO(mlcli("runs", "export").stdout)))[-1]
    assert (row["params.low"], row["params.sum"]) == ("-0.5", "'-1+2")


def test_export_as_jsonl_to_a_file_has_one_run_a_line(mlcli, runs):
    mlcli("runs", "export", "-o", "out.jsonl", "--filter", "status = 'FINISHED'")
    with open("out.jsonl", encoding="utf-8") as file:
        assert [json.loads(line)["info"]["run_id"] for line in file] == [runs[2], runs[0]]
    assert sorted(os.listdir()) == ["mlruns", "out.jsonl"]


def test_an_export_goes_into_a_pipe_not_into_its_place(mlcli, runs):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        mlcli("runs", "export", "-o", "pipe", "--format", "csv")
        assert os.read(reader, 100).startswith(b"run_id,")
    finally:
        os.close(reader)
    assert sorted(os.listdir()) == ["mlruns", "pipe"]


def test_export_in_an_unknown_format_or_to_no_folder_is_told(mlcli, runs):
    assert "csv, jsonl or parquet" in mlcli("runs", "export", "--format", "xls", check=2).stderr
    assert "there is no folder" in mlcli("runs", "export", "-o", "gone/x.csv", check=2).stderr
    assert "name a file" in mlcli("runs", "export", "--format", "parquet", check=2).stderr


# --- tidying up


def tags(mlcli, run_id: str) -> dict[str, str]:
    return json.loads(mlcli("runs", "show", run_id, "--json").stdout)["data"]["tags"]


def test_set_tag_takes_a_pair_or_any_number_of_assignments(mlcli, runs):
    mlcli("runs", "set-tag", "latest", "colour", "dark red")
    mlcli("runs", "set-tag", "latest", "a=1", "b=x=y")
    found = tags(mlcli, runs[2])
    assert (found["colour"], found["a"], found["b"]) == ("dark red", "1", "x=y")


def test_set_tag_without_a_value_is_told_and_sets_nothing(mlcli, runs):
    assert "KEY=VALUE" in mlcli("runs", "set-tag", "latest", "a=1", "b", check=2).stderr
    assert "a" not in tags(mlcli, runs[2])


def test_delete_tag_removes_one(mlcli, runs):
    mlcli("runs", "delete-tag", "latest", "team")
    assert "team" not in tags(mlcli, runs[2])
    assert "has no tag" in mlcli("runs", "delete-tag", "latest", "team", check=3).stderr


def test_a_note_is_kept_and_printed(mlcli, runs):
    mlcli("runs", "note", "latest", "a good", "one")
    assert mlcli("runs", "note", "latest").stdout == "a good one\n"
    assert tags(mlcli, runs[2])["mlflow.note.content"] == "a good one"


def test_a_note_can_come_from_stdin(mlcli, runs):
    done = subprocess.run(
        [sys.executable, "-m", "mlcli", "runs", "note", "latest", "-"],
        input=b"two\nlines",
        check=True,
        capture_output=True,
    )
    assert done.stdout == b""
    assert mlcli("runs", "note", "latest").stdout == "two\nlines\n"


def test_no_note_is_not_found(mlcli, runs):
    assert "has no note" in mlcli("runs", "note", "latest", check=3).stderr


def test_runs_move_to_another_experiment_here_and_on_a_server(mlcli, runs, monkeypatch):
    mlcli("experiments", "create", "other")
    assert "is in 'other' now" in mlcli("runs", "move", runs[0], "-n", "other").stderr
    assert "there is no experiment 'othr'" in mlcli("runs", "move", runs[1], "-n", "othr", check=3).stderr
    with Served(Path(store_root())) as served:
        monkeypatch.setenv("MLCLI_TRACKING_URI", served.url)
        mlcli("runs", "move", runs[1], "-n", "other")
    monkeypatch.delenv("MLCLI_TRACKING_URI")
    found = json.loads(mlcli("runs", "list", "-n", "other", "--json").stdout)
    assert {run["info"]["run_id"] for run in found} == {runs[0], runs[1]}


def test_runs_are_deleted_and_restored(mlcli, runs):
    mlcli("runs", "delete", "latest", runs[0])
    assert [row["run_id"] for row in table(mlcli("runs", "list").stdout)] == [runs[1]]
    deleted = table(mlcli("runs", "list", "--view", "deleted_only").stdout)
    assert {row["run_id"] for row in deleted} == {runs[0], runs[2]}
    mlcli("runs", "restore", "--run-id", runs[0])
    assert len(table(mlcli("runs", "list").stdout)) == 2


def test_one_wrong_id_deletes_none_of_the_others(mlcli, runs):
    mlcli("runs", "delete", runs[0], "nope", check=3)
    assert len(table(mlcli("runs", "list").stdout)) == 3


def test_a_running_run_shows_how_long_it_has_been_going(mlcli):
    with open_store() as store:
        store.create_run("0", start_time=int(time.time() * 1000) - 60_000)
    row = table(mlcli("runs", "list").stdout)[0]
    assert int(row["duration_ms"]) >= 60_000
    assert row["end_time"] == ""
