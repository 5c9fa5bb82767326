"""`mlcli models inspect` and `mlcli models trust`, on models of every verdict."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import yaml
from sklearn.linear_model import LogisticRegression

import mlcli.pyfunc
import mlcli.sklearn
from mlcli.cli.boundary import run, take_apart


class Runs:
    def __reduce__(self):
        return os.system, ("touch owned",)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    def calls(*words: str, code: int = 0) -> tuple[str, str]:
        assert run(take_apart(["models", *words])) == code
        return capsys.readouterr()

    return calls


@pytest.fixture
def evil() -> str:
    Path("evil").mkdir()
    Path("evil/model.pkl").write_bytes(pickle.dumps(Runs()))
    own = {"pickled_model": "model.pkl", "serialization_format": "pickle"}
    Path("evil/MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": own}}))
    return "evil"


def test_inspect_tells_what_is_inside(call) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    mlcli.sklearn.save_model(model, "good", input_example=[[0.5]])
    found = json.loads(call("inspect", "good", "--json")[0])
    assert found["loads"] is True
    assert found["reasons"] == []
    assert "sklearn.linear_model._logistic.LogisticRegression" in found["names"]
    assert found["flavors"]["sklearn"]["serialization_format"] == "pickle"
    assert found["digest"].startswith("sha256:")
    assert {file["state"] for file in found["files"] if file["path"] != "MLmodel"} == {"ok"}
    assert any(line.startswith("scikit-learn==") for line in found["requirements"])
    lines = dict(line.split("\t") for line in call("inspect", "good")[0].splitlines())
    assert lines["loads"] == "true"
    assert lines["flavors.sklearn.serialization_format"] == "pickle"


def test_inspect_tells_of_files_that_were_changed(call) -> None:
    mlcli.sklearn.save_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "good")
    Path("good/requirements.txt").write_text("evil\n")
    os.remove("good/conda.yaml")
    found = json.loads(call("inspect", "good", "--json")[0])
    states = {file["path"]: file["state"] for file in found["files"]}
    assert found["loads"] is False
    assert found["reasons"][0] == "requirements.txt is changed since it was logged"
    assert states["requirements.txt"] == "changed"
    assert states["conda.yaml"] == "missing"
    assert states["model.pkl"] == "ok"


def test_inspect_runs_nothing(call, evil: str) -> None:
    found = json.loads(call("inspect", evil, "--json")[0])
    assert found["loads"] is False
    assert found["names"] == [f"{os.system.__module__}.system"]
    assert "it names" in found["reasons"][0]
    Path("evil/model.pkl").write_bytes(b"\x80\x04garbage")
    assert "damaged" in json.loads(call("inspect", evil, "--json")[0])["reasons"][-1]
    assert not os.path.exists("owned")


def test_a_model_is_trusted_by_its_digest_until_that_is_removed(call, evil: str) -> None:
    shown, said = call("trust", "add", evil)
    assert "it names" in said
    digest = shown.strip()
    assert digest in call("trust", "list")[0]
    assert json.loads(call("inspect", evil, "--json")[0])["trusted"]
    mlcli.sklearn.load_model(evil)
    assert os.path.exists("owned")
    assert call("trust", "remove", digest[:20])[0].strip() == digest
    with pytest.raises(mlcli.MlcliError, match="can run code"):
        mlcli.sklearn.load_model(evil)
    assert "nothing is noted" in call("trust", "remove", digest, code=3)[1]


def test_types_are_added_listed_and_removed(call) -> None:
    assert call("trust", "types", "add", "my_pkg.Thing")[0] == "my_pkg.Thing\n"
    assert json.loads(call("trust", "types", "list", "--json")[0]) == ["my_pkg.Thing"]
    assert call("trust", "types", "remove", "my_pkg.Thing")[0] == "my_pkg.Thing\n"
    assert "could do everything" in call("trust", "types", "add", "os.system", code=2)[1]
    assert "no name of a type" in call("trust", "types", "add", "x y", code=2)[1]


def test_what_was_logged_here_is_listed_on_request(call) -> None:
    with mlcli.start_run():
        info = mlcli.sklearn.log_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "model")
    shown, said = call("trust", "list")
    assert "you have added nothing" in said
    assert info.digest not in shown
    assert info.digest in call("trust", "list", "--all")[0]


def test_a_model_is_named_as_shortly_as_elsewhere(call) -> None:
    with mlcli.start_run():
        mlcli.sklearn.log_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "model", registered_model_name="lr")
    call("alias", "set", "lr", "champion", "1")
    want = json.loads(call("inspect", "models:/lr/1", "--json")[0])["digest"]
    for name in ("lr/1", "lr@champion", "runs:/latest"):
        assert json.loads(call("inspect", name, "--json")[0])["digest"] == want
        assert call("trust", "add", name)[0].strip() == want


def test_what_is_no_model_is_a_clear_error(call) -> None:
    assert "is not a model" in call("inspect", ".", code=1)[1]
    assert "no model at" in call("inspect", "nowhere", code=3)[1]
