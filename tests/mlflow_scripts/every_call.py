"""Touch every call of the real MLflow client against the server in MLFLOW_TRACKING_URI, and check what it answers.

Run by each version of MLflow in an environment of its own (Python 3.9 and newer); `check` functions hold what a real
MLflow server answers. The last line that it prints is a JSON object: the name of each check, and "ok" or what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
import uuid
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression, LogisticRegression

warnings.simplefilter("ignore")
VERSION = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
THREE = VERSION >= (3, 0)
CHECKS = []
X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
Y = np.array([0, 0, 0, 1, 1, 1])


def check(function):
    CHECKS.append(function)
    return function


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def code_of(call, *args, **options) -> str:
    """The error code that a call is refused with."""
    try:
        call(*args, **options)
    except MlflowException as error:
        return error.error_code
    return "no error"


def log_model(model, name: str, **options):
    # Without requirements MLflow starts an interpreter to find them out, which takes ten seconds.
    where = {"name": name} if THREE else {"artifact_path": name}
    return mlflow.sklearn.log_model(model, **where, pip_requirements=["scikit-learn"], **options)


def a_model():
    return LinearRegression().fit(X, X[:, 0] * 2 + 1)


# -- experiments


@check
def experiments() -> None:
    client = MlflowClient()
    name = unique("experiment")
    made = client.create_experiment(name, tags={"team": "vision"})
    assert client.get_experiment(made).name == name
    assert client.get_experiment(made).tags["team"] == "vision"
    assert client.get_experiment(made).lifecycle_stage == "active"
    assert client.get_experiment_by_name(name).experiment_id == made
    assert client.get_experiment_by_name("no such experiment") is None
    assert code_of(client.create_experiment, name) == "RESOURCE_ALREADY_EXISTS"
    assert code_of(client.get_experiment, "999999") == "RESOURCE_DOES_NOT_EXIST"
    assert code_of(client.create_experiment, "") == "INVALID_PARAMETER_VALUE"
    client.rename_experiment(made, name + "-renamed")
    assert client.get_experiment(made).name == name + "-renamed"
    client.set_experiment_tag(made, "stage", "late")
    found = client.search_experiments(filter_string=f"name = '{name}-renamed' AND tags.stage = 'late'")
    assert [item.experiment_id for item in found] == [made]
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert made in [item.experiment_id for item in client.search_experiments(view_type=ViewType.DELETED_ONLY)]
    assert made not in [item.experiment_id for item in client.search_experiments()]
    client.restore_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "active"


@check
def search_of_experiments_in_pages() -> None:
    client = MlflowClient()
    prefix = unique("page")
    made = [client.create_experiment(f"{prefix}-{number}") for number in range(5)]
    found, token, pages = [], None, 0
    while True:
        page = client.search_experiments(
            filter_string=f"name LIKE '{prefix}%'", max_results=2, order_by=["name ASC"], page_token=token
        )
        found += [item.experiment_id for item in page]
        pages += 1
        token = page.token
        if not token:
            break
    assert found == made
    assert pages == 3


@check
def set_experiment_by_name_and_id() -> None:
    name = unique("fluent")
    made = mlflow.set_experiment(name)
    assert mlflow.set_experiment(name).experiment_id == made.experiment_id
    assert mlflow.set_experiment(experiment_id=made.experiment_id).name == name
    assert mlflow.get_experiment(made.experiment_id).name == name
    assert mlflow.get_experiment_by_name(name).experiment_id == made.experiment_id
    mlflow.set_experiment_tag("purpose", "test")
    assert mlflow.get_experiment(made.experiment_id).tags["purpose"] == "test"
    mlflow.set_experiment_tags({"a": "1", "b": "2"})
    assert mlflow.get_experiment(made.experiment_id).tags["b"] == "2"


# -- runs


@check
def a_run_with_all_it_can_hold() -> None:
    mlflow.set_experiment(unique("runs"))
    with mlflow.start_run(run_name="first", tags={"given": "at start"}, description="a note") as run:
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"depth": 3, "none": None, "text": "a b"})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        mlflow.log_metrics({"accuracy": 0.9, "nan": float("nan")}, step=7)
        mlflow.set_tag("colour", "red")
        mlflow.set_tags({"shape": "round", "gone": "soon"})
        mlflow.delete_tag("gone")
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first"
    assert found.info.lifecycle_stage == "active"
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"lr": "0.1", "depth": "3", "none": "None", "text": "a b"}
    assert found.data.metrics["loss"] == 0.25
    assert found.data.metrics["accuracy"] == 0.9
    assert np.isnan(found.data.metrics["nan"])
    tags = found.data.tags
    assert tags["given"] == "at start"
    assert tags["mlflow.note.content"] == "a note"
    assert tags["mlflow.runName"] == "first"
    assert tags["colour"] == "red"
    assert "gone" not in tags
    assert tags["mlflow.source.type"] == "LOCAL"
    assert found.info.run_id in found.info.artifact_uri


@check
def wrong_calls_are_refused_with_mlflows_codes() -> None:
    client = MlflowClient()
    run = client.create_run("0")
    run_id = run.info.run_id
    client.log_param(run_id, "p", 1)
    client.log_param(run_id, "p", 1)
    assert code_of(client.log_param, run_id, "p", 2) == "INVALID_PARAMETER_VALUE"
    assert code_of(client.get_run, "0" * 32) == "RESOURCE_DOES_NOT_EXIST"
    assert code_of(client.delete_tag, run_id, "missing") == "RESOURCE_DOES_NOT_EXIST"
    assert code_of(client.log_metric, run_id, "a//b", 1.0) == "INVALID_PARAMETER_VALUE"
    assert code_of(client.search_runs, ["0"], "params.x ===== 1") == "INVALID_PARAMETER_VALUE"
    client.delete_run(run_id)
    assert code_of(client.log_metric, run_id, "a", 1.0) == "INVALID_PARAMETER_VALUE"
    assert code_of(client.create_run, "999999") != "no error"


@check
def nested_runs() -> None:
    mlflow.set_experiment(unique("nested"))
    with mlflow.start_run() as parent:
        with mlflow.start_run(nested=True, run_name="child") as child:
            mlflow.log_metric("m", 1)
        assert mlflow.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    found = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert list(found["run_id"]) == [child.info.run_id]


@check
def a_failed_run_says_so_and_a_resumed_one_goes_on() -> None:
    try:
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1)
            raise ValueError("on purpose")
    except ValueError:
        pass
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
    with mlflow.start_run(run_id=run.info.run_id):
        assert mlflow.get_run(run.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("m", 2, step=1)
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["m"] == 2


@check
def a_run_that_is_never_started_is_started_by_the_first_call() -> None:
    mlflow.log_param("implicit", "yes")
    run = mlflow.active_run()
    mlflow.end_run("KILLED")
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "KILLED"
    assert found.data.params == {"implicit": "yes"}


@check
def the_client_makes_renames_ends_deletes_and_restores_a_run() -> None:
    client = MlflowClient()
    experiment = client.create_experiment(unique("client"))
    run = client.create_run(experiment, start_time=1_700_000_000_000, tags={"k": "v"}, run_name="by-client")
    run_id = run.info.run_id
    assert run.info.status == "RUNNING"
    assert run.info.start_time == 1_700_000_000_000
    assert run.info.run_name == "by-client"
    client.update_run(run_id, status="FAILED", name="renamed")
    assert client.get_run(run_id).info.run_name == "renamed"
    assert client.get_run(run_id).data.tags["mlflow.runName"] == "renamed"
    assert client.get_run(run_id).info.status == "FAILED"
    client.set_tag(run_id, "mlflow.runName", "by tag")
    assert client.get_run(run_id).info.run_name == "by tag"
    client.set_terminated(run_id, "FINISHED", end_time=1_700_000_001_000)
    assert client.get_run(run_id).info.end_time == 1_700_000_001_000
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1
    client.restore_run(run_id)
    assert len(client.search_runs([experiment])) == 1
    mlflow.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"


@check
def batches_and_whole_histories() -> None:
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    metrics = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(2500)]
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(f"p{number}", str(number)) for number in range(150)],
        tags=[RunTag(f"t{number}", str(number)) for number in range(120)],
    )
    history = client.get_metric_history(run_id, "loss")
    assert [point.step for point in history] == list(range(2500))
    assert history[-1].value == 1 / 2500
    assert history[-1].timestamp == 1_700_000_002_499
    found = client.get_run(run_id)
    assert len(found.data.params) == 150
    assert found.data.tags["t119"] == "119"
    assert found.data.metrics["loss"] == 1 / 2500
    assert client.get_metric_history(run_id, "no such metric") == []
    client.log_metric(run_id, "big", float("inf"), step=-3)
    assert client.get_metric_history(run_id, "big")[0].value > 1e308
    client.set_terminated(run_id)


@check
def search_of_runs_in_pages_and_in_order() -> None:
    client = MlflowClient()
    experiment = client.create_experiment(unique("search"))
    made = []
    for number in range(7):
        run = client.create_run(experiment, tags={"parity": "even" if number % 2 == 0 else "odd"})
        client.log_metric(run.info.run_id, "score", number / 10)
        client.log_param(run.info.run_id, "number", number)
        client.set_terminated(run.info.run_id)
        made.append(run.info.run_id)
    found, token, pages = [], None, 0
    while True:
        page = client.search_runs([experiment], max_results=3, order_by=["metrics.score DESC"], page_token=token)
        found += [run.info.run_id for run in page]
        pages += 1
        token = page.token
        if not token:
            break
    assert found == made[::-1]
    assert pages == 3

    def numbers(text: str) -> list:
        runs = client.search_runs([experiment], text, order_by=["metrics.score ASC"])
        return [int(run.data.params["number"]) for run in runs]

    assert numbers("metrics.score > 0.35") == [4, 5, 6]
    assert numbers("params.number = '3'") == [3]
    assert numbers(f"attributes.run_id IN ('{made[1]}', '{made[2]}')") == [1, 2]
    assert numbers("tags.parity = 'odd' AND metrics.score < 0.4") == [1, 3]
    assert numbers("attributes.status = 'FINISHED'") == list(range(7))
    assert numbers("tags.parity LIKE 'e%'") == [0, 2, 4, 6]
    assert numbers("params.number != '3'") == [0, 1, 2, 4, 5, 6]
    assert numbers(f"attributes.run_id = '{made[2]}'") == [2]
    frame = mlflow.search_runs([experiment], order_by=["metrics.score DESC"], max_results=5)
    assert list(frame["metrics.score"]) == [0.6, 0.5, 0.4, 0.3, 0.2]
    assert "params.number" in frame.columns
    assert "tags.parity" in frame.columns
    assert str(frame["start_time"].dtype).startswith("datetime64")
    assert len(mlflow.search_runs(search_all_experiments=True, output_format="list", max_results=50)) >= 7
    name = client.get_experiment(experiment).name
    assert len(mlflow.search_runs(experiment_names=[name])) == 7


@check
def datasets() -> None:
    mlflow.set_experiment(unique("datasets"))
    data = mlflow.data.from_pandas(pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}), name="little")
    with mlflow.start_run() as run:
        mlflow.log_input(data, context="training")
    (found,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert found.dataset.name == "little"
    assert found.dataset.digest == data.digest
    assert "mlflow_colspec" in found.dataset.schema
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


# -- artifacts


@check
def artifacts_of_every_kind() -> None:
    mlflow.set_experiment(unique("artifacts"))
    folder = Path(tempfile.mkdtemp())
    (folder / "sub").mkdir()
    (folder / "one.txt").write_text("one")
    (folder / "sub" / "two words.bin").write_bytes(bytes(range(256)) * 4096)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(folder / "one.txt"))
        mlflow.log_artifact(str(folder / "one.txt"), "deep/er")
        mlflow.log_artifacts(str(folder), "all")
        mlflow.log_text("h\u00e9llo", "texts/hello.txt")
        mlflow.log_dict({"a": [1, 2]}, "config.json")
        mlflow.log_dict({"a": [1, 2]}, "config.yaml")
        figure, axes = plt.subplots()
        axes.plot([1, 2])
        mlflow.log_figure(figure, "plots/line.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "images/black.png")
        mlflow.log_table({"q": ["a", "b"], "n": [1, 2]}, "table.json")
        mlflow.log_table({"q": ["c"], "n": [3]}, "table.json")
        uri = mlflow.get_artifact_uri("texts/hello.txt")
    run_id = run.info.run_id
    client = MlflowClient()
    top = {item.path: item.is_dir for item in client.list_artifacts(run_id)}
    assert top == {
        "all": True,
        "config.json": False,
        "config.yaml": False,
        "deep": True,
        "images": True,
        "one.txt": False,
        "plots": True,
        "table.json": False,
        "texts": True,
    }
    sizes = {item.path: item.file_size for item in client.list_artifacts(run_id, "all/sub")}
    assert sizes == {"all/sub/two words.bin": 256 * 4096}
    assert client.list_artifacts(run_id, "nothing/here") == []
    got = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/all"))
    assert (got / "sub" / "two words.bin").read_bytes() == bytes(range(256)) * 4096
    everything = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=tempfile.mkdtemp()))
    assert (everything / "deep" / "er" / "one.txt").read_text() == "one"
    assert mlflow.artifacts.load_text(uri) == "h\u00e9llo"
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/config.json") == {"a": [1, 2]}
    assert mlflow.artifacts.load_image(f"runs:/{run_id}/images/black.png").size == (4, 4)
    table = mlflow.load_table("table.json", run_ids=[run_id])
    assert list(table["q"]) == ["a", "b", "c"]
    assert Path(client.download_artifacts(run_id, "one.txt")).read_text() == "one"
    try:
        mlflow.artifacts.download_artifacts(f"runs:/{run_id}/missing.txt", dst_path=tempfile.mkdtemp())
    except Exception as error:  # noqa: BLE001 - each version has a class of its own for it
        said = str(error)
    else:
        said = "nothing"
    assert "missing.txt" in said or "404" in said


@check
def stepped_images() -> None:
    if VERSION < (2, 14):
        return
    with mlflow.start_run() as run:
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), key="grid", step=3)
        mlflow.flush_artifact_async_logging()
    names = [item.path for item in MlflowClient().list_artifacts(run.info.run_id, "images")]
    assert len(names) == 2
    assert all("step" in name for name in names)


@check
def a_large_artifact() -> None:
    file = Path(tempfile.mkdtemp()) / "large.bin"
    block = os.urandom(1 << 20)
    file.write_bytes(block * 24)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(file))
    got = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="large.bin"))
    assert got.read_bytes() == block * 24


@check
def asynchronous_logging() -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("late", 1.0, synchronous=False)
        mlflow.log_params({"later": 2}, synchronous=False)
        if hasattr(mlflow, "flush_async_logging"):
            mlflow.flush_async_logging()
        else:
            time.sleep(2)
    found = mlflow.get_run(run.info.run_id)
    assert found.data.metrics == {"late": 1.0}
    assert found.data.params == {"later": "2"}


# -- models


@check
def log_and_load_a_model() -> None:
    mlflow.set_experiment(unique("models"))
    with mlflow.start_run() as run:
        info = log_model(a_model(), "model", input_example=X[:2])
    loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert abs(loaded.predict([[3.0]])[0] - 7) < 1e-9
    assert abs(mlflow.pyfunc.load_model(info.model_uri).predict(X[:1])[0] - 1) < 1e-9
    assert mlflow.models.get_model_info(info.model_uri).signature is not None
    if not THREE:
        names = {item.path for item in MlflowClient().list_artifacts(run.info.run_id, "model")}
        assert "model/MLmodel" in names
        (entry,) = json.loads(mlflow.get_run(run.info.run_id).data.tags["mlflow.log-model.history"])
        assert entry["artifact_path"] == "model"
        return
    (output,) = mlflow.get_run(run.info.run_id).outputs.model_outputs
    assert output.model_id == info.model_id
    found = mlflow.get_logged_model(info.model_id)
    assert found.name == "model"
    assert str(found.status).endswith("READY")
    assert found.source_run_id == run.info.run_id
    assert abs(mlflow.sklearn.load_model(f"models:/{info.model_id}").predict([[3.0]])[0] - 7) < 1e-9
    assert "model" in {item.path.split("/")[0] for item in MlflowClient().list_artifacts(run.info.run_id, "model")}


@check
def logged_models() -> None:
    if not THREE:
        return
    experiment = mlflow.set_experiment(unique("logged-models"))
    client = MlflowClient()
    model = mlflow.initialize_logged_model(name="net", params={"layers": 3}, tags={"kind": "small"}, model_type="nn")
    assert str(model.status).endswith("PENDING")
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.set_logged_model_tags(model.model_id, {"colour": "blue"})
    client.log_model_params(model.model_id, {"width": "9"})
    found = mlflow.get_logged_model(model.model_id)
    assert str(found.status).endswith("READY")
    assert dict(found.params) == {"layers": "3", "width": "9"}
    assert found.tags["colour"] == "blue"
    assert found.model_type == "nn"
    client.delete_logged_model_tag(model.model_id, "colour")
    assert "colour" not in mlflow.get_logged_model(model.model_id).tags
    with mlflow.start_run() as run:
        mlflow.log_metric("accuracy", 0.75, model_id=model.model_id, step=4)
    (metric,) = mlflow.get_logged_model(model.model_id).metrics
    assert (metric.key, metric.value, metric.run_id) == ("accuracy", 0.75, run.info.run_id)
    other = client.create_logged_model(experiment.experiment_id, name="other")
    wanted = {"experiment_ids": [experiment.experiment_id], "output_format": "list"}
    assert {item.name for item in mlflow.search_logged_models(**wanted)} == {"net", "other"}
    named = mlflow.search_logged_models(filter_string="name = 'net'", **wanted)
    assert [item.model_id for item in named] == [model.model_id]
    good = mlflow.search_logged_models(filter_string="metrics.accuracy > 0.5", **wanted)
    assert [item.model_id for item in good] == [model.model_id]
    wide = mlflow.search_logged_models(filter_string="params.width = '9'", **wanted)
    assert [item.model_id for item in wide] == [model.model_id]
    best = mlflow.search_logged_models(order_by=[{"field_name": "creation_timestamp", "ascending": True}], **wanted)
    assert [item.name for item in best] == ["net", "other"]
    client.delete_logged_model(other.model_id)
    assert {item.name for item in mlflow.search_logged_models(**wanted)} == {"net"}
    assert code_of(mlflow.get_logged_model, other.model_id) == "RESOURCE_DOES_NOT_EXIST"


@check
def autolog_of_sklearn() -> None:
    experiment = mlflow.set_experiment(unique("autolog"))
    mlflow.sklearn.autolog(log_datasets=True)
    try:
        with mlflow.start_run() as run:
            LogisticRegression(C=0.5).fit(X, Y)
        LogisticRegression(C=0.25).fit(X, Y)
    finally:
        mlflow.sklearn.autolog(disable=True)
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["C"] == "0.5"
    assert "training_accuracy_score" in found.data.metrics
    assert found.data.tags["estimator_name"] == "LogisticRegression"
    assert [item.dataset.name for item in found.inputs.dataset_inputs] == ["dataset"]
    paths = {item.path for item in MlflowClient().list_artifacts(run.info.run_id)}
    assert "training_confusion_matrix.png" in paths
    assert mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model").predict([[5.0]])[0] == 1
    (by_itself,) = MlflowClient().search_runs([experiment.experiment_id], "params.C = '0.25'")
    assert by_itself.data.tags["mlflow.autologging"] == "sklearn"
    assert by_itself.info.status == "FINISHED"


# -- the registry


@check
def registered_models() -> None:
    client = MlflowClient()
    name = unique("registered")
    made = client.create_registered_model(name, tags={"owner": "me"}, description="about it")
    assert made.name == name
    assert code_of(client.create_registered_model, name) == "RESOURCE_ALREADY_EXISTS"
    assert code_of(client.get_registered_model, unique("none")) == "RESOURCE_DOES_NOT_EXIST"
    found = client.get_registered_model(name)
    assert found.tags == {"owner": "me"}
    assert found.description == "about it"
    client.update_registered_model(name, "changed")
    client.set_registered_model_tag(name, "tier", "1")
    client.delete_registered_model_tag(name, "owner")
    found = client.get_registered_model(name)
    assert found.description == "changed"
    assert found.tags == {"tier": "1"}
    client.rename_registered_model(name, name + "-two")
    assert [item.name for item in client.search_registered_models(f"name = '{name}-two'")] == [name + "-two"]
    assert [item.name for item in client.search_registered_models(f"name LIKE '{name}%'")] == [name + "-two"]
    assert [item.name for item in client.search_registered_models("tags.tier = '1'") if name in item.name]
    client.delete_registered_model(name + "-two")
    assert code_of(client.get_registered_model, name + "-two") == "RESOURCE_DOES_NOT_EXIST"


@check
def search_of_registered_models_in_pages() -> None:
    client = MlflowClient()
    prefix = unique("many")
    for number in range(5):
        client.create_registered_model(f"{prefix}-{number}")
    found, token, pages = [], None, 0
    while True:
        page = client.search_registered_models(
            f"name LIKE '{prefix}%'", max_results=2, order_by=["name DESC"], page_token=token
        )
        found += [item.name for item in page]
        pages += 1
        token = page.token
        if not token:
            break
    assert found == [f"{prefix}-{number}" for number in (4, 3, 2, 1, 0)]
    assert pages == 3


@check
def model_versions_aliases_tags_stages_and_copies() -> None:
    client = MlflowClient()
    name = unique("versions")
    mlflow.set_experiment(unique("registry"))
    with mlflow.start_run() as run:
        first = log_model(a_model(), "model", registered_model_name=name)
    if hasattr(first, "registered_model_version"):
        assert str(first.registered_model_version) == "1"
    second = mlflow.register_model(f"runs:/{run.info.run_id}/model", name, tags={"from": "register"})
    assert str(second.version) == "2"
    assert second.current_stage == "None"
    found = client.get_model_version(name, "2")
    assert found.run_id == run.info.run_id
    assert found.tags["from"] == "register"
    assert found.status == "READY"
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "best", "1")
    client.set_registered_model_alias(name, "best", "2")
    assert str(client.get_model_version_by_alias(name, "champion").version) == "1"
    assert {key: str(value) for key, value in client.get_registered_model(name).aliases.items()} == {
        "champion": "1",
        "best": "2",
    }
    assert client.get_model_version(name, "2").aliases == ["best"]
    for uri in (f"models:/{name}/1", f"models:/{name}@champion", f"models:/{name}/latest"):
        assert abs(mlflow.sklearn.load_model(uri).predict([[3.0]])[0] - 7) < 1e-9, uri
    client.delete_registered_model_alias(name, "champion")
    assert code_of(client.get_model_version_by_alias, name, "champion") == "INVALID_PARAMETER_VALUE"
    client.set_model_version_tag(name, "1", "checked", "yes")
    assert client.get_model_version(name, "1").tags["checked"] == "yes"
    client.delete_model_version_tag(name, "1", "checked")
    assert "checked" not in client.get_model_version(name, "1").tags
    client.update_model_version(name, "1", "the first")
    assert client.get_model_version(name, "1").description == "the first"
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "production", archive_existing_versions=True)
    assert client.get_model_version(name, "1").current_stage == "Archived"
    latest = {item.current_stage: str(item.version) for item in client.get_latest_versions(name)}
    assert latest == {"Production": "2", "Archived": "1"}
    assert [str(item.version) for item in client.get_latest_versions(name, ["Production"])] == ["2"]
    assert abs(mlflow.pyfunc.load_model(f"models:/{name}/Production").predict(X[:1])[0] - 1) < 1e-9
    assert client.get_model_version_download_uri(name, "1")
    versions = client.search_model_versions(f"name = '{name}'")
    assert [str(item.version) for item in versions] == ["2", "1"]
    of_run = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert {str(item.version) for item in of_run} == {"1", "2"}
    copy = client.copy_model_version(f"models:/{name}/2", name + "-copy")
    assert copy.name == name + "-copy"
    assert str(copy.version) == "1"
    assert abs(mlflow.sklearn.load_model(f"models:/{name}-copy/1").predict([[3.0]])[0] - 7) < 1e-9
    client.delete_model_version(name, "2")
    assert code_of(client.get_model_version, name, "2") == "RESOURCE_DOES_NOT_EXIST"
    third = client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id)
    assert str(third.version) == "3"
    client.delete_registered_model(name)
    assert client.search_model_versions(f"name = '{name}'") == []


@check
def prompts_are_kept_apart_from_models() -> None:
    if not THREE:
        return
    name = unique("prompt")
    mlflow.genai.register_prompt(name=name, template="Say {{word}}", commit_message="first")
    loaded = mlflow.genai.load_prompt(f"prompts:/{name}/1")
    assert loaded.template == "Say {{word}}"
    assert [item.name for item in MlflowClient().search_registered_models(f"name = '{name}'")] == []
    assert [item.name for item in mlflow.genai.search_prompts(f"name = '{name}'")] == [name]


def main() -> None:
    wanted = sys.argv[1:]
    results = {}
    for function in CHECKS:
        if wanted and function.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            function()
            results[function.__name__] = "ok"
        except Exception:  # noqa: BLE001 - the other checks go on
            results[function.__name__] = traceback.format_exc()
            while mlflow.active_run():
                mlflow.end_run()
        print(f"{time.monotonic() - start:6.1f} s {function.__name__}", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
