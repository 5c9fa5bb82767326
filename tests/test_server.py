"""The server speaks MLflow's REST API over a real store and real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import API, FILES, Client, serving

from mlcli import journal
from mlcli.entities import Metric
from mlcli.store import open_store


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    with serving(root) as (found, _):
        yield found


# -- experiments


def test_an_experiment_comes_back_as_mlflow_tells_it(client):
    made = client.post("experiments/create", name="é", tags=[{"key": "a", "value": "b"}])
    found = client.get(f"experiments/get?experiment_id={made['experiment_id']}")["experiment"]
    assert found.pop("creation_time") == found.pop("last_update_time")
    assert found == {
        "experiment_id": "1",
        "name": "é",
        "artifact_location": "mlflow-artifacts:/1",
        "lifecycle_stage": "active",
        "tags": [{"key": "a", "value": "b"}],
    }


def test_an_experiment_is_found_by_its_name(client):
    client.post("experiments/create", name="a b/c")
    assert client.get("experiments/get-by-name?experiment_name=a%20b%2Fc")["experiment"]["experiment_id"] == "1"
    assert (
        client.get("experiments/get-by-name?experiment_name=x", expect=404)["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    )


def test_a_second_experiment_of_a_name_is_refused_as_mlflow_does(client):
    client.post("experiments/create", name="a")
    assert client.post("experiments/create", name="a", expect=400)["error_code"] == "RESOURCE_ALREADY_EXISTS"


def test_experiments_are_searched_page_by_page(client):
    for name in "abc":
        client.post("experiments/create", name=name)
    first = client.post("experiments/search", max_results=2, order_by=["name"], filter="name != 'Default'")
    rest = client.post(
        "experiments/search",
        max_results=2,
        order_by=["name"],
        filter="name != 'Default'",
        page_token=first["next_page_token"],
    )
    assert [item["name"] for page in (first, rest) for item in page["experiments"]] == ["a", "b", "c"]
    assert "next_page_token" not in rest


def test_an_experiment_is_renamed_tagged_deleted_and_restored(client):
    client.post("experiments/create", name="a")
    client.post("experiments/update", experiment_id="1", new_name="b")
    client.post("experiments/set-experiment-tag", experiment_id="1", key="k", value="v")
    client.post("experiments/delete", experiment_id="1")
    deleted = client.get("experiments/get?experiment_id=1")["experiment"]
    client.post("experiments/restore", experiment_id="1")
    active = client.get("experiments/get?experiment_id=1")["experiment"]
    assert (deleted["name"], deleted["lifecycle_stage"], active["lifecycle_stage"]) == ("b", "deleted", "active")
    assert active["tags"] == [{"key": "k", "value": "v"}]
    client.post("experiments/delete-experiment-tag", experiment_id="1", key="k")
    assert "tags" not in client.get("experiments/get?experiment_id=1")["experiment"]


# -- runs


def test_a_run_comes_back_as_mlflow_tells_it(client):
    run_id = client.new_run(run_name="n", user_id="u", start_time=5, tags=[{"key": "a", "value": "b"}])
    run = client.get(f"runs/get?run_id={run_id}")["run"]
    assert run == {
        "info": {
            "run_uuid": run_id,
            "run_id": run_id,
            "experiment_id": "0",
            "run_name": "n",
            "user_id": "u",
            "status": "RUNNING",
            "start_time": 5,
            "artifact_uri": f"mlflow-artifacts:/0/{run_id}/artifacts",
            "lifecycle_stage": "active",
        },
        "data": {"tags": [{"key": "a", "value": "b"}, {"key": "mlflow.runName", "value": "n"}]},
        "inputs": {},
        "outputs": {},
    }


def test_a_run_is_known_by_run_uuid_as_well(client):
    run_id = client.new_run()
    client.post("runs/log-parameter", run_uuid=run_id, key="p", value="1")
    assert client.get(f"runs/get?run_uuid={run_id}")["run"]["data"]["params"] == [{"key": "p", "value": "1"}]


@pytest.mark.parametrize("value", [0.1, -0.0, 1e308, 5, "NaN", "Infinity", "-Infinity"])
def test_a_metric_value_comes_back_as_it_was_sent(client, value):
    run_id = client.new_run()
    client.post("runs/log-metric", run_id=run_id, key="m", value=value, timestamp=2**62, step=-3)
    point = {"key": "m", "value": value, "timestamp": 2**62, "step": -3}
    assert client.get(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"] == [point]
    assert client.get(f"metrics/get-history?run_id={run_id}&metric_key=m")["metrics"] == [point]


@pytest.mark.parametrize(
    "given",
    [
        {"value": "x"},
        {"value": True},
        {"value": None},
        {"value": [1]},
        {"timestamp": 2**63},
        {"timestamp": "soon"},
        {"timestamp": -1},
        {"step": 1.5},
        {"key": ""},
        {"key": 7},
        {"key": "a\u0000b"},
    ],
)
def test_a_metric_that_makes_no_sense_is_refused_and_not_stored(client, given):
    run_id = client.new_run()
    sent = {"run_id": run_id, "key": "m", "value": 1.0, "timestamp": 1, "step": 0, **given}
    assert client.post("runs/log-metric", expect=400, **sent)["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "metrics" not in client.get(f"runs/get?run_id={run_id}")["run"]["data"]


def test_a_number_too_large_for_a_float_is_refused(client):
    run_id = client.new_run()
    body = f'{{"run_id": "{run_id}", "key": "m", "value": 1e999, "timestamp": 1}}'
    assert client.send("POST", API + "runs/log-metric", body, Content_Type="application/json").status == 400


def test_a_batch_is_stored_whole_or_not_at_all(client):
    run_id = client.new_run()
    client.post(
        "runs/log-batch",
        run_id=run_id,
        metrics=[{"key": "m", "value": 1, "timestamp": 1}],
        params=[{"key": "p", "value": "1"}],
        tags=[{"key": "t", "value": "v"}],
    )
    refused = client.post(
        "runs/log-batch",
        run_id=run_id,
        metrics=[{"key": "n", "value": 1, "timestamp": 1}],
        params=[{"key": "p", "value": "2"}],
        expect=400,
    )
    data = client.get(f"runs/get?run_id={run_id}")["run"]["data"]
    assert refused["error_code"] == "INVALID_PARAMETER_VALUE"
    assert [item["key"] for item in data["metrics"]] == ["m"]
    assert data["params"] == [{"key": "p", "value": "1"}]


def test_a_run_is_ended_renamed_and_taken_up_again(client):
    run_id = client.new_run(start_time=1)
    ended = client.post("runs/update", run_id=run_id, status="FINISHED", end_time=9, run_name="done")["run_info"]
    assert (ended["status"], ended["end_time"], ended["run_name"]) == ("FINISHED", 9, "done")
    again = client.post("runs/update", run_id=run_id, status="RUNNING")["run_info"]
    assert again["status"] == "RUNNING"
    assert "end_time" not in again


def test_a_deleted_run_takes_no_more_and_comes_back(client):
    run_id = client.new_run()
    client.post("runs/delete", run_id=run_id)
    refused = client.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1, expect=400)
    assert refused["error_code"] == "INVALID_PARAMETER_VALUE"
    client.post("runs/restore", run_id=run_id)
    client.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1)


def test_runs_are_searched_page_by_page_in_the_experiments_named(client):
    client.post("experiments/create", name="a")
    for number in range(3):
        run_id = client.new_run("1", start_time=number)
        client.post("runs/log-batch", run_id=run_id, metrics=[{"key": "m", "value": number, "timestamp": 1}])
    client.new_run("0")
    asked = {"experiment_ids": ["1"], "filter": "metrics.m >= 1", "order_by": ["metrics.m DESC"], "max_results": 1}
    first = client.post("runs/search", **asked)
    second = client.post("runs/search", **asked, page_token=first["next_page_token"])
    values = [page["runs"][0]["data"]["metrics"][0]["value"] for page in (first, second)]
    assert values == [2.0, 1.0]
    assert "next_page_token" not in second
    assert client.post("runs/search") == {}


def test_datasets_come_back_with_their_tags(client):
    run_id = client.new_run()
    dataset = {"name": "iris", "digest": "abc", "source_type": "local", "source": "{}"}
    given = {"tags": [{"key": "mlflow.data.context", "value": "train"}], "dataset": dataset}
    client.post("runs/log-inputs", run_id=run_id, datasets=[given])
    assert client.get(f"runs/get?run_id={run_id}")["run"]["inputs"] == {"dataset_inputs": [given]}


def test_a_history_comes_in_pages(client):
    run_id = client.new_run()
    points = [{"key": "m", "value": float(step), "timestamp": step, "step": step} for step in range(5)]
    client.post("runs/log-batch", run_id=run_id, metrics=points)
    path = f"metrics/get-history?run_id={run_id}&metric_key=m&max_results=3"
    first = client.get(path)
    rest = client.get(f"{path}&page_token={first['next_page_token']}")
    assert first["metrics"] + rest["metrics"] == points


def test_the_history_of_what_is_not_there_is_empty_as_in_mlflow(client):
    assert client.get("metrics/get-history?run_id=nope&metric_key=m") == {}


def test_histories_of_several_runs_are_thinned_out_between_two_steps(client):
    runs = [client.new_run(), client.new_run()]
    for run_id in runs:
        points = [{"key": "m", "value": step, "timestamp": 1, "step": step} for step in range(100)]
        client.post("runs/log-batch", run_id=run_id, metrics=points)
    asked = "&".join(f"run_ids={run_id}" for run_id in runs)
    path = f"metrics/get-history-bulk-interval?{asked}&metric_key=m&start_step=10&end_step=90&max_results=5"
    found = client.get(path)["metrics"]
    assert [(item["run_id"], item["step"]) for item in found] == [
        (run_id, step) for run_id in runs for step in (10, 30, 50, 70, 90)
    ]


def test_a_create_request_sent_again_under_its_key_is_the_same_run(client):
    sent = [
        client.api("POST", "runs/create", {"experiment_id": "0"}, Idempotency_Key=key)["run"]["info"]["run_id"]
        for key in ("k", "k", "other")
    ]
    assert sent[0] == sent[1] != sent[2]
    assert len(client.post("runs/search", experiment_ids=["0"])["runs"]) == 2


def test_the_twin_under_ajax_api_answers_the_same(client):
    run_id = client.new_run()
    one, other = (
        client.send("GET", f"{prefix}/2.0/mlflow/runs/get?run_id={run_id}") for prefix in ("/api", "/ajax-api")
    )
    assert one.json == other.json


def test_a_prefix_for_proxies_may_stand_before_every_path(root):
    with serving(root, static_prefix="/ml") as (client, _):
        assert client.send("GET", "/ml/health").body == b"OK"
        assert client.send("GET", "/health").body == b"OK"


def test_a_live_journal_is_applied_before_a_read(root, client):
    writer = journal.Journal.open(str(root))
    try:
        run_id = journal.new_run_id()
        writer.start_run(run_id, "0", "n", "u", 1, "RUNNING", {}, {})
        writer.metric(run_id, "m", 0.5, 1, 2)
        assert client.get(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"][0]["value"] == 0.5
    finally:
        writer.close()


# -- models


def test_a_model_is_registered_versioned_named_and_found(client):
    run_id = client.new_run()
    client.post("registered-models/create", name="m", tags=[{"key": "a", "value": "b"}], description="d")
    client.send("PUT", f"{FILES}/0/{run_id}/artifacts/model/MLmodel", b"flavors: {}")
    source = f"mlflow-artifacts:/0/{run_id}/artifacts/model"
    made = client.post("model-versions/create", name="m", source=source, run_id=run_id)["model_version"]
    client.post("registered-models/alias", name="m", alias="best", version="1")
    assert (made["version"], made["status"], made["current_stage"]) == ("1", "READY", "None")
    assert client.get("registered-models/alias?name=m&alias=best")["model_version"]["version"] == "1"
    assert client.get("registered-models/get?name=m")["registered_model"]["aliases"] == [
        {"alias": "best", "version": "1"}
    ]
    uri = client.get("model-versions/get-download-uri?name=m&version=1")["artifact_uri"]
    assert uri == source
    assert client.send("GET", "/model-versions/get-artifact?name=m&version=1&path=MLmodel").body == b"flavors: {}"
    client.post("model-versions/create", name="m", source=f"runs:/{run_id}/model", run_id=run_id)
    assert client.send("GET", "/model-versions/get-artifact?name=m&version=2&path=MLmodel").body == b"flavors: {}"


def test_an_alias_that_is_not_there_is_a_wrong_parameter_as_in_mlflow(client):
    client.post("registered-models/create", name="m")
    assert client.get("registered-models/alias?name=m&alias=x", expect=400)["error_code"] == "INVALID_PARAMETER_VALUE"
    assert client.get("registered-models/alias?name=no&alias=x", expect=404)["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_models_without_the_tag_of_prompts_are_no_prompts(client):
    client.post("registered-models/create", name="m")
    client.post("registered-models/create", name="p", tags=[{"key": "mlflow.prompt.is_prompt", "value": "true"}])
    found = client.get("registered-models/search?filter=tag.%60mlflow.prompt.is_prompt%60%20!%3D%20'true'")
    assert [item["name"] for item in found["registered_models"]] == ["m"]


def test_bodies_of_delete_and_patch_are_read(client):
    client.post("registered-models/create", name="m")
    client.api("PATCH", "registered-models/update", {"name": "m", "description": "new"})
    assert client.get("registered-models/get?name=m")["registered_model"]["description"] == "new"
    client.api("DELETE", "registered-models/delete", {"name": "m"})
    client.get("registered-models/get?name=m", expect=404)


def test_a_logged_model_lives_from_pending_to_ready(client):
    run_id = client.new_run()
    made = client.post("logged-models", experiment_id="0", name="model", source_run_id=run_id)["model"]["info"]
    model_id = made["model_id"]
    assert made["status"] == "LOGGED_MODEL_PENDING"
    assert made["artifact_uri"] == f"mlflow-artifacts:/0/models/{model_id}/artifacts"
    done = client.api("PATCH", f"logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"})
    assert done["model"]["info"]["status"] == "LOGGED_MODEL_READY"
    client.post("runs/outputs", run_id=run_id, models=[{"model_id": model_id, "step": 0}])
    client.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1, model_id=model_id)
    client.api("PATCH", f"logged-models/{model_id}/tags", {"tags": [{"key": "a/b", "value": "c"}]})
    outputs = client.get(f"runs/get?run_id={run_id}")["run"]["outputs"]
    found = client.get(f"logged-models/{model_id}")["model"]
    assert outputs["model_outputs"][0]["model_id"] == model_id
    assert found["data"]["metrics"][0]["run_id"] == run_id
    assert found["info"]["tags"] == [{"key": "a/b", "value": "c"}]
    client.api("DELETE", f"logged-models/{model_id}/tags/a%2Fb")
    searched = client.post("logged-models/search", experiment_ids=["0"], filter="name = 'model'")["models"]
    assert [item["info"]["model_id"] for item in searched] == [model_id]
    assert "tags" not in searched[0]["info"]


def test_a_model_of_mlflow_2_is_noted_in_a_tag(client):
    run_id = client.new_run()
    model = json.dumps({"artifact_path": "model", "flavors": {}, "run_id": run_id, "utc_time_created": "x"})
    client.post("runs/log-model", run_id=run_id, model_json=model)
    tags = {tag["key"]: tag["value"] for tag in client.get(f"runs/get?run_id={run_id}")["run"]["data"]["tags"]}
    assert json.loads(tags["mlflow.log-model.history"])[0]["artifact_path"] == "model"


# -- artifacts


def place(client: Client) -> tuple[str, str]:
    run_id = client.new_run()
    return run_id, f"{FILES}/0/{run_id}/artifacts"


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_file_comes_back_byte_for_byte(client, size):
    run_id, base = place(client)
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert client.send("PUT", f"{base}/a/b%20c.bin", content).status == 200
    assert client.send("GET", f"{base}/a/b%20c.bin").body == content
    assert client.send("GET", f"/get-artifact?run_uuid={run_id}&path=a/b%20c.bin").body == content
    listed = client.send("GET", f"{FILES}?path=0/{run_id}/artifacts/a").json
    assert listed == {"files": [{"path": "b c.bin", "is_dir": False, "file_size": size}]}
    assert client.get(f"artifacts/list?run_id={run_id}") == {
        "root_uri": f"mlflow-artifacts:/0/{run_id}/artifacts",
        "files": [{"path": "a", "is_dir": True}],
    }


def test_a_file_sent_in_chunks_of_unknown_length_comes_back(client):
    _, base = place(client)
    sent = client.send("PUT", f"{base}/f", iter([b"a" * 700_000, b"b" * 700_000]), Transfer_Encoding="chunked")  # type: ignore[arg-type]
    assert sent.status == 200
    assert client.send("GET", f"{base}/f").body == b"a" * 700_000 + b"b" * 700_000


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-", 200, b"0123456789"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=10-", 416, None),
        ("bytes=4-2", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_a_range_is_a_part_of_the_file(client, asked, status, content):
    _, base = place(client)
    client.send("PUT", f"{base}/f", b"0123456789")
    answer = client.send("GET", f"{base}/f", Range=asked)
    assert answer.status == status
    assert content is None or answer.body == content


def test_a_range_of_a_file_that_changed_since_is_the_whole_file(client):
    _, base = place(client)
    client.send("PUT", f"{base}/f", b"0123456789")
    tag = client.send("GET", f"{base}/f").headers["etag"]
    assert client.send("GET", f"{base}/f", Range="bytes=5-", If_Range=tag).body == b"56789"
    client.send("PUT", f"{base}/f", b"abcdefghijk")
    assert client.send("GET", f"{base}/f", Range="bytes=5-", If_Range=tag).body == b"abcdefghijk"


def test_a_file_and_a_folder_are_deleted(client):
    run_id, base = place(client)
    for name in ("a/x", "a/y", "b"):
        client.send("PUT", f"{base}/{name}", b"1")
    assert client.send("DELETE", f"{base}/a").json == {}
    assert client.send("GET", f"{FILES}?path=0/{run_id}/artifacts").json["files"][0]["path"] == "b"
    assert client.send("DELETE", f"{base}/a").status == 404


def test_a_file_that_is_not_there_is_a_404_in_json(client):
    _, base = place(client)
    answer = client.send("GET", f"{base}/nope")
    assert (answer.status, answer.json["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_an_upload_cut_short_leaves_nothing(client, root):
    import socket
    import time

    run_id, base = place(client)
    with socket.create_connection(("127.0.0.1", client.port)) as sock:
        sock.sendall(
            f"PUT {base}/f HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Length: 5000000\r\n\r\n".encode()
            + b"x" * 2_000_000
        )
        time.sleep(0.3)
    folder = root / "0" / run_id / "artifacts"
    deadline = time.monotonic() + 10
    while folder.exists() and list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_artifacts_go_where_the_server_was_told(root, tmp_path):
    with serving(root, artifacts_destination=str(tmp_path / "files")) as (client, _):
        client.post("experiments/create", name="a")
        run_id = client.new_run("1")
        assert client.send("PUT", f"{FILES}/1/{run_id}/artifacts/f", b"1").status == 200
    assert (tmp_path / "files" / "1" / run_id / "artifacts" / "f").read_bytes() == b"1"
    with open_store(str(root)) as store:
        assert store.artifact_root(run_id) == str(tmp_path / "files" / "1" / run_id / "artifacts")


def test_artifacts_are_not_served_when_they_are_not_to_be(root):
    with serving(root, serve_artifacts=False) as (client, _):
        run_id, base = place(client)
        assert client.send("PUT", f"{base}/f", b"1").status == 404
        assert client.get(f"runs/get?run_id={run_id}")["run"]["info"]["artifact_uri"].startswith(str(root))


# -- journals of clients


def lines(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def start(run_id: str) -> object:
    return {"run": run_id, "start": {"experiment_id": "0", "name": "n", "user": "u", "time": 1, "status": "RUNNING"}}


def send(client: Client, name: str, position: int, text: str, **more: object) -> int:
    answer = client.send("POST", f"/api/2.0/mlcli/journals/{name}", {"position": position, "lines": text, **more})
    assert answer.status == 200, answer
    found: int = answer.json["position"]
    return found


def test_lines_of_a_journal_count_once_however_often_they_are_sent(client, root):
    first = lines({"v": 1}, start("r1"), {"run": "r1", "param": "p", "value": "1"})
    second = lines({"run": "r1", "metric": "m", "value": 1.0, "step": 1, "time": 1})
    assert send(client, "w", 0, first) == len(first)
    assert send(client, "w", 0, first) == len(first)
    assert send(client, "w", 0, first + second) == len(first + second)
    assert send(client, "w", len(first), second) == len(first + second)
    assert client.get("runs/get?run_id=r1")["run"]["data"]["metrics"][0]["value"] == 1.0
    with open_store(str(root)) as store:
        assert store.rejected_lines() == []


def test_lines_beyond_what_has_come_wait_for_what_is_missing(client):
    assert send(client, "w", 500, lines(start("r1"))) == 0


def test_a_line_without_its_end_waits(client):
    text = lines({"v": 1}, start("r1"))
    assert send(client, "w", 0, text + '{"run": "r1", "met') == len(text)


def test_a_line_about_a_run_that_is_not_known_yet_waits_for_it(client):
    early = lines({"v": 1}, {"run": "r1", "metric": "m", "value": 1.0, "step": 1, "time": 1})
    reached = send(client, "child", 0, early)
    assert reached < len(early)
    send(client, "parent", 0, lines({"v": 1}, start("r1")))
    assert send(client, "child", reached, early[reached:]) == len(early)
    assert client.get("runs/get?run_id=r1")["run"]["data"]["metrics"][0]["value"] == 1.0


def test_the_end_of_a_writer_closes_the_runs_it_left_open(client):
    text = lines({"v": 1}, start("r1"), start("r2"), {"run": "r2", "status": "FINISHED", "time": 5})
    send(client, "w", 0, text)
    assert send(client, "w", len(text), "", closed=True) == len(text)
    statuses = [client.get(f"runs/get?run_id={run_id}")["run"]["info"]["status"] for run_id in ("r1", "r2")]
    assert statuses == ["KILLED", "FINISHED"]


# -- many at once


def test_many_clients_lose_nothing_and_wait_for_nobody(client, root):
    runs = [client.new_run() for _ in range(4)]

    def log(number: int) -> None:
        for step in range(50):
            client.post(
                "runs/log-metric", run_id=runs[number % 4], key=f"m{number}", value=step, timestamp=1, step=step
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(log, range(8)))
    with open_store(str(root)) as store:
        assert store.counts()["metric_points"] == 400


def test_a_request_that_fails_takes_no_other_of_its_group_with_it(root):
    """Behind a write that takes a while, the next ones queue up and are one group."""
    with serving(root) as (client, app):
        run_id = client.new_run()
        held = threading.Event()

        async def hold() -> None:
            await app.workers.write(lambda _store: held.wait(5), durable=False)

        import asyncio

        holder = threading.Thread(target=lambda: asyncio.run(hold()))
        holder.start()
        with ThreadPoolExecutor(8) as pool:
            good = [
                pool.submit(client.post, "runs/log-metric", run_id=run_id, key=f"m{number}", value=1, timestamp=1)
                for number in range(4)
            ]
            bad = [
                pool.submit(client.post, "runs/log-metric", run_id="nope", key="m", value=1, timestamp=1, expect=404)
                for _ in range(2)
            ]
            threading.Timer(0.3, held.set).start()
            for one in good + bad:
                one.result()
        holder.join()
        assert len(client.get(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"]) == 4


def test_the_same_store_answers_through_python_and_through_http(client, root):
    run_id = client.new_run()
    with open_store(str(root)) as store:
        store.log_batch(run_id, [Metric("m", 0.25, 7, 3)])
    assert client.get(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"] == [
        {"key": "m", "value": 0.25, "timestamp": 7, "step": 3}
    ]


def test_a_search_that_takes_long_is_answered_all_the_same(root, monkeypatch):
    """The thread that answers gives it up after a few steps of the database; another one finishes it."""
    monkeypatch.setattr("mlcli.server.work.STEPS", 50)
    with serving(root) as (client, _):
        for number in range(30):
            run_id = client.new_run()
            client.post("runs/log-batch", run_id=run_id, metrics=[{"key": "m", "value": number, "timestamp": 1}])
        found = client.post("runs/search", experiment_ids=["0"], filter="metrics.m > 24", max_results=100)
        assert len(found["runs"]) == 5
