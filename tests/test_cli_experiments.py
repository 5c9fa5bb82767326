"""`mlcli experiments`: create, find, rename, delete, restore and export."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest

from mlcli.store import open_store


def names(mlcli, *options: str) -> list[str]:
    return [line.split("\t")[1] for line in mlcli("experiments", "search", *options).stdout.splitlines()[1:]]


@pytest.mark.parametrize("words", [["wine"], ["--experiment-name", "wine"], ["-n", "wine"]])
def test_create_in_a_pipe_gives_the_id_and_says_the_rest_on_stderr(mlcli, words):
    done = mlcli("experiments", "create", *words)
    assert (done.stdout, done.stderr) == ("1\n", "Created experiment 'wine' with id 1\n")


def test_create_as_json_gives_the_experiment(mlcli):
    made = json.loads(mlcli("experiments", "create", "wine", "--json").stdout)
    assert made["experiment_id"] == "1"
    assert made == json.loads(mlcli("experiments", "get", "wine", "--json").stdout)


def test_create_keeps_the_artifact_location(mlcli, tmp_path):
    made = json.loads(mlcli("experiments", "create", "far", "-l", tmp_path / "far", "--json").stdout)
    assert made["artifact_location"] == str(tmp_path / "far")


@pytest.mark.parametrize("words", [[], ["a", "-n", "b"]])
def test_create_wants_one_name(mlcli, words):
    assert "one name" in mlcli("experiments", "create", *words, check=2).stderr


def test_a_name_that_is_taken_is_told(mlcli):
    mlcli("experiments", "create", "wine")
    assert "already" in mlcli("experiments", "create", "wine", check=1).stderr


def test_search_lists_the_oldest_first(mlcli):
    for name in ("b", "a", "c"):
        mlcli("experiments", "create", name)
    assert names(mlcli) == ["Default", "b", "a", "c"]
    assert mlcli("experiments", "list").stdout == mlcli("experiments", "search").stdout


def test_search_takes_filter_order_and_limit(mlcli):
    for name in ("b", "a", "c"):
        mlcli("experiments", "create", name)
    assert names(mlcli, "--filter", "name != 'Default'", "--order-by", "name DESC") == ["c", "b", "a"]
    assert names(mlcli, "--max-results", "2") == ["Default", "b"]


def test_search_as_json_is_an_array_of_what_get_prints(mlcli):
    mlcli("experiments", "create", "wine")
    listed = json.loads(mlcli("experiments", "search", "--json").stdout)
    assert listed[:1] == [json.loads(mlcli("experiments", "get", "Default", "--json").stdout)]


@pytest.mark.parametrize("words", [["wine"], ["1"], ["-n", "wine"], ["-x", "1"], ["--experiment-id", "1"]])
def test_an_experiment_is_found_by_name_or_id(mlcli, words):
    mlcli("experiments", "create", "wine")
    assert "name\twine\n" in mlcli("experiments", "get", *words).stdout


def test_a_name_goes_before_an_id(mlcli):
    mlcli("experiments", "create", "7")
    assert "experiment_id\t1\n" in mlcli("experiments", "get", "7").stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["get", "Defualt"], 3, "did you mean `Default`?"),
        (["get"], 2, "name one experiment"),
        (["get", "Default", "-x", "0"], 2, "two experiments are named"),
        (["get", "-x", "99"], 3, "there is no experiment '99'"),
        (["rename", "Default"], 2, "no new name"),
        (["restore", "Default"], 1, "is not deleted"),
    ],
)
def test_what_cannot_be_done_is_told(mlcli, words, code, message):
    assert message in mlcli("experiments", *words, check=code).stderr


@pytest.mark.parametrize(
    "words", [["wine", "beer"], ["-x", "1", "--new-name", "beer"], ["-x", "1", "beer"], ["wine", "--new-name", "beer"]]
)
def test_rename(mlcli, words):
    mlcli("experiments", "create", "wine")
    mlcli("experiments", "rename", *words)
    assert names(mlcli) == ["Default", "beer"]


def test_delete_and_restore_with_its_runs(mlcli):
    mlcli("experiments", "create", "wine")
    with open_store() as store:
        store.create_run("1")
    told = mlcli("experiments", "delete", "wine").stderr
    assert "mlcli experiments restore 1" in told
    assert names(mlcli) == ["Default"]
    assert names(mlcli, "-v", "deleted_only") == ["wine"]
    assert len(mlcli("runs", "list").stdout.splitlines()) == 1
    mlcli("experiments", "restore", "wine")
    assert names(mlcli) == ["Default", "wine"]
    assert len(mlcli("runs", "list").stdout.splitlines()) == 2


def test_the_name_of_a_deleted_experiment_is_free_and_restoring_needs_the_id(mlcli):
    for _ in range(2):
        mlcli("experiments", "create", "wine")
        mlcli("experiments", "delete", "wine")
    assert "1" in mlcli("experiments", "restore", "wine", check=2).stderr
    mlcli("experiments", "restore", "1")
    assert names(mlcli) == ["Default", "wine"]


def test_csv_goes_to_stdout_or_to_a_file(mlcli):
    with open_store() as store:
        run = store.create_run("0").info.run_id
    rows = list(csv.DictReader(io.StringIO(mlcli("experiments", "csv", "-x", "0").stdout)))
    assert [row["run_id"] for row in rows] == [run]
    mlcli("experiments", "csv", "Default", "-o", "runs.csv")
    with open("runs.csv", encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_looking_at_experiments_makes_no_store(mlcli):
    assert names(mlcli) == ["Default"]
    assert os.listdir() == []


def test_mlflows_way_to_ask_for_json_is_understood(mlcli):
    with open_store() as store:
        store.create_experiment("wine")
    get = ("experiments", "get", "-n", "wine")
    assert mlcli(*get, "--output", "json").stdout == mlcli(*get, "--json").stdout
    assert mlcli(*get, "--output", "table").stdout == mlcli(*get).stdout
    assert "table or json" in mlcli(*get, "--output", "xml", check=2).stderr
