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
