"""The client: the store by run id, with MLflow's names."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlcli
from mlcli.entities import Dataset, Metric, Param, RunTag, ViewType
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound


@pytest.fixture
def client(root: Path) -> mlcli.Client:
    return mlcli.MlflowClient(tracking_uri=str(root))


def test_an_experiment_lives_and_dies(client: mlcli.Client) -> None:
    made = client.create_experiment("one", tags={"k": "v"})
    with pytest.raises(AlreadyExists):
        client.create_experiment("one")
    client.rename_experiment(made, "two")
    client.set_experiment_tag(made, "l", 2)
    client.delete_experiment_tag(made, "k")
    assert client.get_experiment_by_name("two").tags == {"l": "2"}
    client.delete_experiment(made)
    assert client.get_experiment_by_name("two") is None
    assert [item.name for item in client.search_experiments(ViewType.DELETED_ONLY)] == ["two"]
    client.restore_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "active"


def test_a_run_made_by_the_client_is_open_until_it_is_ended(client: mlcli.Client) -> None:
    run_id = client.create_run("0", tags={"t": 1}, run_name="mine").info.run_id
    assert client.get_run(run_id).info.status == "RUNNING"
    client.log_metric(run_id, "m", 0.5, step=2, timestamp=1000)
    client.log_param(run_id, "p", 1)
    client.set_tag(run_id, "u", 2)
    client.log_inputs(run_id, [Dataset("d", "1", "local", "x")])
    client.set_terminated(run_id, "FAILED", end_time=5)
    found = client.get_run(run_id)
    assert (found.info.status, found.info.end_time, found.info.run_name) == ("FAILED", 5, "mine")
    assert found.data.metrics == {"m": 0.5}
    assert found.data.params == {"p": "1"}
    assert {key: found.data.tags[key] for key in "tu"} == {"t": "1", "u": "2"}
    assert client.get_metric_history(run_id, "m") == [Metric("m", 0.5, 1000, 2)]
    assert [item.dataset.name for item in found.inputs.dataset_inputs] == ["d"]
    client.delete_tag(run_id, "u")
    assert "u" not in client.get_run(run_id).data.tags


def test_a_batch_is_logged_whole_or_not_at_all(client: mlcli.Client) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_batch(
        run_id, [Metric("m", step, 0, step) for step in range(2000)], [Param("p", "1")], [RunTag("t", "1")]
    )
    with pytest.raises(InvalidInput):
        client.log_batch(run_id, [Metric("n", 1, 0)], [Param("q", "1"), Param("p", "2")], [RunTag("u", "1")])
    found = client.get_run(run_id)
    assert (found.data.metrics, found.data.params) == ({"m": 1999.0}, {"p": "1"})
    assert "u" not in found.data.tags
    assert len(client.get_metric_history(run_id, "m")) == 2000


def test_runs_are_searched_as_the_tutorials_do(client: mlcli.Client) -> None:
    experiment = client.create_experiment("e")
    for ratio, score in (("0.03", 0.7), ("0.03", 0.6), ("0.1", 0.9)):
        run_id = client.create_run(experiment).info.run_id
        client.log_param(run_id, "l1_ratio", ratio)
        client.log_metric(run_id, "training_score", score)
    found = client.search_runs(
        experiment_ids=experiment,
        filter_string="params.l1_ratio = '0.03' and metric.`training_score` >= 0.65",
        run_view_type=ViewType.ACTIVE_ONLY,
        max_results=1,
        order_by=["metrics.training_score DESC"],
    )
    assert [run.data.metrics["training_score"] for run in found] == [0.7]
    first = client.search_runs([experiment], max_results=2, order_by="metrics.training_score")
    rest = client.search_runs([experiment], max_results=2, order_by="metrics.training_score", page_token=first.token)
    assert [run.data.metrics["training_score"] for run in first + rest] == [0.6, 0.7, 0.9]


def test_a_run_is_renamed_deleted_and_restored(client: mlcli.Client) -> None:
    run_id = client.create_run("0").info.run_id
    client.update_run(run_id, name="new")
    client.delete_run(run_id)
    assert client.search_runs(["0"]) == []
    with pytest.raises(InvalidState):
        client.log_param(run_id, "p", 1)
    client.restore_run(run_id)
    assert client.search_runs(["0"])[0].info.run_name == "new"


def test_artifacts_go_in_and_come_out(client: mlcli.Client, tmp_path: Path) -> None:
    run_id = client.create_run("0").info.run_id
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f.txt").write_text("f")
    client.log_artifact(run_id, str(tmp_path / "in" / "f.txt"))
    client.log_artifacts(run_id, str(tmp_path / "in"), "folder")
    client.log_text(run_id, "text", "t.txt")
    client.log_dict(run_id, {"a": 1}, "d.json")
    client.log_table(run_id, {"a": [1]}, "table.json")
    assert [item.path for item in client.list_artifacts(run_id)] == ["d.json", "f.txt", "folder", "t.txt", "table.json"]
    assert Path(client.download_artifacts(run_id, "folder", str(tmp_path / "out")), "f.txt").read_text() == "f"
    with pytest.raises(NotFound):
        client.download_artifacts(run_id, "none", str(tmp_path / "out"))


def test_images_of_one_key_make_a_series(client: mlcli.Client) -> None:
    from PIL import Image

    run_id = client.create_run("0").info.run_id
    for step in range(2):
        client.log_image(run_id, Image.new("L", (2, 2)), key="dots", step=step, timestamp=9)
    client.log_image(run_id, Image.new("L", (2, 2)), "one.png")
    assert [item.path for item in client.list_artifacts(run_id)] == ["images", "one.png"]
    names = [item.path.partition("+timestamp+9+")[0] for item in client.list_artifacts(run_id, "images")]
    assert names == ["images/dots+step+0", "images/dots+step+1"]


def test_two_clients_of_two_stores_do_not_mix(tmp_path: Path) -> None:
    one, two = (mlcli.Client(str(tmp_path / name)) for name in ("one", "two"))
    run_id = one.create_run("0").info.run_id
    one.log_metric(run_id, "m", 1)
    with pytest.raises(NotFound):
        two.log_metric(run_id, "m", 1)
    assert two.search_runs() == []


# --- models


def test_models_and_versions_are_kept_under_mlflows_names(client: mlcli.Client) -> None:
    run_id = client.create_run("0").info.run_id
    client.create_registered_model("iris", {"team": "blue"}, "petals")
    made = client.create_model_version("iris", f"runs:/{run_id}/model", run_id, tags={"a": 1}, description="first")
    assert (made.version, made.tags, made.description, bool(made.user_id)) == ("1", {"a": "1"}, "first", True)
    client.create_model_version("iris", "s3://b/m")
    client.set_registered_model_alias("iris", "best", "1")
    client.set_registered_model_tag("iris", "k", "v")
    client.set_model_version_tag("iris", "1", "b", 2)
    client.delete_model_version_tag("iris", "1", "a")
    assert client.get_model_version_by_alias("iris", "best").tags == {"b": "2"}
    assert client.get_model_version_download_uri("iris", "1") == f"runs:/{run_id}/model"
    client.transition_model_version_stage("iris", "2", "Staging")
    client.set_model_version_tag("iris", key="c", value="3", stage="Staging")
    assert client.get_model_version("iris", "2").tags == {"c": "3"}
    assert [version.version for version in client.get_latest_versions("iris", ["Staging"])] == ["2"]
    assert client.copy_model_version("models:/iris@best", "lily").source == "models:/iris/1"
    assert client.update_model_version("iris", "2", "second").description == "second"
    assert client.update_registered_model("iris", "more petals").description == "more petals"
    assert client.rename_registered_model("iris", "rose").tags == {"team": "blue", "k": "v"}
    first = client.search_registered_models(max_results=1, order_by=["name DESC"])
    rest = client.search_registered_models(max_results=1, order_by=["name DESC"], page_token=first.token)
    assert [model.name for model in (*first, *rest)] == ["rose", "lily"]
    client.create_registered_model("greeting", {"mlflow.prompt.is_prompt": "true"})
    assert [model.name for model in client.search_registered_models("name ILIKE 'G%' or name = 'lily'")] == ["lily"]
    assert {version.version for version in client.search_model_versions("name = 'rose'")} == {"1", "2"}
    client.delete_registered_model_alias("rose", "best")
    client.delete_registered_model_tag("rose", "k")
    client.delete_model_version("rose", "2")
    found = client.get_registered_model("rose")
    assert (found.aliases, found.tags, [each.version for each in found.latest_versions]) == (
        {},
        {"team": "blue"},
        ["1"],
    )
    client.delete_registered_model("rose")
    with pytest.raises(NotFound):
        client.get_model_version("rose", "1")
    with pytest.raises(InvalidInput, match="a version or a stage"):
        client.set_model_version_tag("lily", key="a", value="b")


def test_a_logged_model_goes_from_pending_to_deleted(client: mlcli.Client) -> None:
    model = client.create_logged_model("0", "net", tags={"a": "1"}, params={"depth": 2}).model_id
    client.log_model_params(model, {"width": 3})
    client.set_logged_model_tags(model, {"b": "2"})
    client.delete_logged_model_tag(model, "a")
    assert client.finalize_logged_model(model, "READY").status == "READY"
    (found,) = client.search_logged_models(["0"], "name = 'net'")
    assert (found, found.params, found.tags) == (
        client.get_logged_model(model),
        {"depth": "2", "width": "3"},
        {"b": "2"},
    )
    client.delete_logged_model(model)
    assert client.search_logged_models(["0"]) == []


def test_a_metric_may_tell_of_a_logged_model_on_a_dataset(client: mlcli.Client) -> None:
    model = client.create_logged_model("0", "net").model_id
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "acc", 0.5, 1000, 1, None, "wine", "d1", model)
    client.log_metric(run_id, "acc", 0.7, 2000, 2, model_id=model)
    assert client.get_run(run_id).data.metrics == {"acc": 0.7}
    assert [item.model_id for item in client.get_run(run_id).inputs.model_inputs] == [model]
    points = client.get_logged_model(model).metrics
    assert [(point.value, point.step, point.run_id, point.dataset_name, point.dataset_digest) for point in points] == [
        (0.5, 1, run_id, "wine", "d1"),
        (0.7, 2, run_id, "", ""),
    ]
    with pytest.raises(NotFound):
        client.log_metric(run_id, "other", 1, model_id="m-nothing")
    assert "other" not in client.get_run(run_id).data.metrics


def test_the_registry_is_in_the_store_of_the_runs(root: Path, tmp_path: Path) -> None:
    assert mlcli.Client(str(root), registry_uri=str(root)).search_registered_models() == []
    with pytest.raises(InvalidInput, match="another store"):
        mlcli.Client(str(root), registry_uri=str(tmp_path / "elsewhere"))
