"""Every example project runs, in the current environment and in the one it asks for, and leaves what its README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "example_projects"
LOCAL = "--env-manager=local"


@pytest.fixture
def run(mlcli):
    """Run an example; gives the recorded run as `runs show --json` prints it."""

    def call(name: str, *args: str, check: int = 0) -> dict[str, Any]:
        mlcli("run", EXAMPLES / name, "-q", *args, check=check, timeout=600)
        return json.loads(mlcli("runs", "show", "latest", "--json").stdout)

    return call


def predict(model: str | Path, rows: list[list[float]], python: str = sys.executable) -> str:
    """What a downloaded model answers, loaded in a process of its own."""
    script = (
        "import json, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import mlcli.sklearn\n"
        "model = mlcli.sklearn.load_model(sys.argv[1], trust=True)\n"
        "print(model.predict(json.loads(sys.argv[2])).tolist())\n"
    )
    done = subprocess.run(
        [python, "-c", script, str(model), json.dumps(rows)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_example_explains_itself() -> None:
    for folder in EXAMPLES.iterdir():
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert readme.startswith(f"# {folder.name}: ")
        assert f"example_projects/{folder.name}" in readme


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.name != "blog_typos"))
def test_the_linter_finds_no_error_in_it(mlcli, name: str) -> None:
    assert [
        item for item in json.loads(mlcli("check", EXAMPLES / name, "--json").stdout) if item["level"] == "error"
    ] == []


def test_tutorial_local(run, mlcli, tmp_path: Path) -> None:
    found = run("tutorial", LOCAL, "-P", "regularization=0.5")
    assert found["info"]["status"] == "FINISHED"
    assert found["data"]["params"] == {"regularization": "0.5", "penalty": "elasticnet", "l1_ratio": "0.1"}
    assert 0 < found["data"]["metrics"]["score"] <= 1
    mlcli("models", "download", "runs:/latest/model", "-d", tmp_path)
    assert predict(tmp_path / "model", [[-2.0], [2.0]]) in ("[0, 1]", "[0, 0]", "[1, 1]")


@pytest.mark.parametrize("entry", ["main", "argparse"])
def test_tutorial2_local(run, entry: str) -> None:
    found = run("tutorial2", LOCAL, "-e", entry, "-P", "penalty=elasticnet", "-P", "l1_ratio=0.3")
    assert found["info"]["status"] == "FINISHED"
    given = {"solver": "saga", "penalty": "elasticnet", "l1_ratio": "0.3"}
    assert given.items() <= found["data"]["params"].items()
    assert found["data"]["params"]["C"] == "1.0"  # autolog's
    assert 0 < found["data"]["metrics"]["training_score"] <= 1


def test_tutorial2_refuses_a_ratio_that_is_no_number_and_makes_no_run(mlcli) -> None:
    done = mlcli("run", EXAMPLES / "tutorial2", LOCAL, "-P", "l1_ratio=lots", check=2)
    assert "l1_ratio" in done.stderr
    assert "lots" in done.stderr
    assert mlcli("runs", "list", "--json").stdout.strip() == "[]"


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tutorial", "tutorial2"])
def test_the_tutorials_in_the_environment_they_pin(mlcli, name: str) -> None:
    done = mlcli("run", EXAMPLES / name, check=None, timeout=600)
    if done.returncode == 5 and "3.9" in done.stderr and "installing" not in done.stderr:
        pytest.skip("needs a Python 3.9 (pyenv install 3.9, or uv python install 3.9)")
    assert done.returncode == 0, done.stderr
    found = json.loads(mlcli("runs", "show", "latest", "--json").stdout)
    assert found["data"]["tags"]["mlcli.env.python"].startswith("3.9.")
    frozen = (Path(found["info"]["artifact_uri"]) / "environment" / "requirements.txt").read_text()
    assert {"scikit-learn==1.4.0", "pandas==2.2.0", "numpy==1.26.3", "matplotlib==3.8.2"} <= set(frozen.split())
    assert "mlflow" not in frozen


@pytest.mark.network
@pytest.mark.slow
def test_wine_in_its_environment_from_training_to_a_model_that_answers(mlcli, run, tmp_path: Path) -> None:
    found = run("wine", "-P", "epochs=20")
    assert found["info"]["status"] == "FINISHED"
    assert found["data"]["metrics"]["accuracy"] > 0.9
    assert found["data"]["params"]["epochs"] == "20"
    artifacts = Path(found["info"]["artifact_uri"])
    assert (artifacts / "plots" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert (artifacts / "logs" / "output.log").read_text().startswith("accuracy")
    assert "scikit-learn==1.7.2" in (artifacts / "environment" / "requirements.txt").read_text()
    mlcli("models", "download", f"runs:/{found['info']['run_id']}/model", "-d", tmp_path)
    (environment,) = json.loads(mlcli("env", "ls", "--json").stdout)
    answer = predict(
        tmp_path / "model",
        [[13.7, 1.7, 2.4, 15.6, 127.0, 2.8, 3.1, 0.3, 2.3, 5.6, 1.0, 3.9, 1065.0]],
        f"{environment['path']}/bin/python",
    )
    assert answer == "[0]"


def test_wine_local_logs_a_curve_per_epoch(run, mlcli) -> None:
    found = run("wine", LOCAL, "-P", "epochs=5")
    assert found["info"]["status"] == "FINISHED"
    from mlcli.store import open_store

    with open_store() as store:
        assert [metric.step for metric in store.get_metric_history(found["info"]["run_id"], "test_loss")] == [
            0,
            1,
            2,
            3,
            4,
        ]


def test_autolog_logs_a_search_that_says_nothing_of_logging(run, mlcli) -> None:
    run("autolog", LOCAL, "-P", "folds=2")
    runs = json.loads(mlcli("runs", "list", "--json").stdout)
    (parent,) = [item for item in runs if "best_cv_score" in item["data"]["metrics"]]
    assert parent["info"]["status"] == "FINISHED"
    assert parent["data"]["params"]["folds"] == "2"
    assert {"f1_score_X_test", "GridSearchCV_score_X_test", "training_roc_auc"} <= set(parent["data"]["metrics"])
    children = [item["data"]["tags"].get("mlflow.parentRunId") for item in runs if item is not parent]
    assert children == [parent["info"]["run_id"]] * 4


def test_workflow_steps_are_child_runs(run, mlcli) -> None:
    run("workflow", LOCAL, "-P", "depth=3")
    runs = json.loads(mlcli("runs", "list", "--json").stdout)
    by_entry = {item["data"]["tags"]["mlflow.project.entryPoint"]: item for item in runs}
    assert set(by_entry) == {"main", "prepare", "train", "evaluate"}
    parent = by_entry["main"]["info"]["run_id"]
    for step in ("prepare", "train", "evaluate"):
        assert by_entry[step]["data"]["tags"]["mlflow.parentRunId"] == parent
        assert by_entry[step]["info"]["status"] == "FINISHED"
        assert by_entry[step]["data"]["tags"]["mlcli.env.manager"] == "local"
    assert by_entry["main"]["data"]["metrics"]["accuracy"] > 0.8


@pytest.mark.network
@pytest.mark.slow
def test_conda_file_without_conda(run) -> None:
    found = run("conda", "-P", "neighbours=3")
    assert found["data"]["metrics"]["accuracy"] > 0.9
    assert found["data"]["tags"]["mlcli.env.manager"] == "virtualenv"


def test_bash_logs_through_the_journal(run) -> None:
    found = run("bash", LOCAL, "-P", "steps=30")
    assert found["data"]["metrics"]["x"] == pytest.approx(3, abs=1e-4)
    assert found["data"]["tags"]["language"] == "bash"


def test_the_blogs_typos_are_explained_with_their_lines(mlcli) -> None:
    done = mlcli("check", EXAMPLES / "blog_typos", check=2)
    for line in (10, 13):
        assert re.search(rf"MLProject:{line}:\d+: error: `defualt`.*did you mean `default`", done.stdout + done.stderr)


def test_the_blogs_typos_stop_a_run_before_it_starts_and_values_mend_it(mlcli, run) -> None:
    done = mlcli("run", EXAMPLES / "blog_typos", LOCAL, check=2)
    assert "solver: line 10 has `defualt`" in done.stderr
    assert "penalty: line 13 has `defualt`" in done.stderr
    assert mlcli("runs", "list", "--json").stdout.strip() == "[]"
    assert run("blog_typos", LOCAL, "-P", "solver=saga", "-P", "penalty=l2")["info"]["status"] == "FINISHED"


@pytest.mark.slow
def test_evaluation_trains_for_each_fold_and_tells_the_better_model(mlcli, tmp_path: Path) -> None:
    project = EXAMPLES / "evaluation"
    mlcli("run", project, LOCAL, "-q", "-e", "data", "-P", f"to={tmp_path / 'cancer.csv'}")
    words = (
        "--data",
        tmp_path / "cancer.csv",
        "--target",
        "diagnosis",
        LOCAL,
        "--method",
        "kfold",
        "--folds",
        "3",
        "--json",
    )
    for model in ("linear", "tree"):
        found = json.loads(mlcli("evaluate", project, *words, "-P", f"model={model}", "--run-name", model).stdout)
        assert len(found["runs"]) == 3
    tests = json.loads(mlcli("runs", "compare", "tree", "linear", "--test", "--json").stdout)["tests"]
    assert {row["metric"]: row["verdict"] for row in tests}["roc_auc"] == "better"


@pytest.mark.slow
def test_a_better_model_goes_its_whole_way_and_a_brittle_one_is_turned_back(mlcli) -> None:
    done = mlcli("run", EXAMPLES / "rollout", "-q", "-e", "story", LOCAL, timeout=300)
    told = [line for line in done.stdout.splitlines() if line.startswith(("holdout", "kfold", "bootstrap"))]
    assert len(told) == 3
    assert all(float(re.search(r"\(\+([\d.]+)%", line)[1]) > 0 for line in told), told
    events = {
        name: json.loads(mlcli("rollouts", "get", name, "--json").stdout)["events"] for name in ("brittle", "full")
    }
    assert [event["kind"] for event in events["full"]] == ["created", "started", "models", "step", "promoted"]
    assert events["brittle"][-1]["kind"] == "rolled back"
    assert json.loads(mlcli("models", "show", "recommender", "--json").stdout)["aliases"] == {"champion": "2"}
