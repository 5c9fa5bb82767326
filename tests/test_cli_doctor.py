"""`mlcli doctor`: what is well is shown, what is ill is explained."""

from __future__ import annotations

import json
import os
import sqlite3

import pytest

from mlcli.store import open_store


def test_a_new_machine_is_well(mlcli):
    found = json.loads(mlcli("doctor", "--json").stdout)
    assert found["problems"] == []
    assert set(found) == {"versions", "settings", "store", "environments", "pythons", "problems"}
    assert "none yet" in found["store"]["state"]
    assert os.listdir() == []


def test_the_store_is_counted_and_checked(mlcli):
    with open_store() as store:
        store.create_run("0")
    found = json.loads(mlcli("doctor", "--json").stdout)["store"]
    assert (found["state"], found["runs"], found["experiments"]) == ("well", 1, 1)
    assert found["folder"] == os.path.abspath("mlruns")


def test_each_setting_comes_with_its_source_and_without_passwords(mlcli, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@host/x")
    done = mlcli("doctor", "--json", check=1)
    assert "secret" not in done.stdout + done.stderr
    found = json.loads(done.stdout)["settings"]["tracking_uri"]
    assert found == {"value": "http://***@host/x", "source": "MLFLOW_TRACKING_URI"}


@pytest.mark.parametrize("name", ["MLCLI_TRACKING_TOKEN", "MLCLI_BACKEND_STORE_URI", "MLCLI_MLFLOW_TOKEN"])
def test_a_variable_that_means_something_is_well(mlcli, monkeypatch, name):
    monkeypatch.setenv(name, "x" * 20)
    assert name not in mlcli("doctor").stdout


def test_a_variable_that_is_no_setting_is_ill(mlcli, monkeypatch):
    monkeypatch.setenv("MLCLI_TRACKING_URL", "x")
    done = mlcli("doctor", check=1)
    assert "MLCLI_TRACKING_URL is no setting" in done.stdout


def test_a_key_of_the_project_config_that_is_no_setting_is_ill(mlcli):
    with open("pyproject.toml", "w", encoding="utf-8") as file:
        file.write('[tool.mlcli]\nexperiment_nam = "x"\n')
    problem = json.loads(mlcli("doctor", "--json", check=1).stdout)["problems"][0]
    assert "experiment_nam" in problem["what"]
    assert "did you mean `experiment_name`" in problem["hint"]


def test_a_damaged_store_is_ill_and_says_what_to_do(mlcli):
    with open_store():
        pass
    with open("mlruns/mlcli.db", "r+b") as file:
        file.write(b"this is no database file at all!")
    problem = json.loads(mlcli("doctor", "--json", check=1).stdout)["problems"][0]
    assert "damaged" in problem["what"]
    assert "backup" in problem["hint"]


def test_a_store_of_a_newer_mlcli_is_ill(mlcli):
    with open_store():
        pass
    connection = sqlite3.connect("mlruns/mlcli.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    assert "999" in mlcli("doctor", check=1).stdout


def test_lines_that_could_not_be_applied_are_told(mlcli):
    with open_store() as store:
        run = store.create_run("0").info.run_id
    os.makedirs("mlruns/live", exist_ok=True)
    with open("mlruns/live/hand.jsonl", "w", encoding="utf-8") as file:
        file.write(f'{{"v":1,"run":"{run}"}}\n' + '{"metric":"acc","value":"many"}\n')
    problem = json.loads(mlcli("doctor", "--json", check=1).stdout)["problems"][0]
    assert "1 journal line could not be applied" in problem["what"]
