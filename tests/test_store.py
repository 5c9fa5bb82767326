"""The tracking store's contract, over every store there is (tests/stores.py): nothing here knows where one keeps its records."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from mlcli import journal
from mlcli.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.store import Store


@pytest.fixture
def run_id(store: Store) -> str:
    return store.create_run("0", run_name="calm-owl-1", user_id="ann", start_time=1000).info.run_id


# -- experiments


def test_a_new_store_has_the_default_experiment(store: Store) -> None:
    (experiment,) = store.search_experiments()
    assert (experiment.experiment_id, experiment.name, experiment.lifecycle_stage) == ("0", "Default", "active")
    assert abs(experiment.creation_time - journal.now()) < 3_600_000


def test_an_experiment_is_found_by_id_and_name(store: Store) -> None:
    experiment_id = store.create_experiment("first", tags={"team": "blue"})
    found = store.get_experiment(experiment_id)
    assert found == store.find_experiment("first") == store.ensure_experiment("first")
    assert (found.name, found.tags, found.artifact_location) == (
        "first",
        {"team": "blue"},
        os.path.join(store.root, experiment_id),
    )


def test_ensure_creates_what_is_missing(store: Store) -> None:
    assert store.ensure_experiment("new").name == "new"


def test_a_name_is_taken_until_its_experiment_is_deleted(store: Store) -> None:
    first = store.create_experiment("same")
    with pytest.raises(AlreadyExists, match="'same'"):
        store.create_experiment("same")
    store.delete_experiment(first)
    assert store.find_experiment("same") is None
    second = store.create_experiment("same")
    assert second != first
    with pytest.raises(AlreadyExists):
        store.restore_experiment(first)
    store.rename_experiment(second, "other")
    store.restore_experiment(first)
    assert store.find_experiment("same") == store.get_experiment(first)


@pytest.mark.parametrize("name", ["", "   ", "x" * 501, "a\nb", "a\0b", "\u202egnp", 7, None])
def test_an_impossible_experiment_name_is_refused(store: Store, name: object) -> None:
    with pytest.raises(InvalidInput):
        store.create_experiment(name)
    assert len(store.search_experiments()) == 1


@pytest.mark.parametrize("name", ["한국어 실험", "../x", "a'b\"c;--", "100%_", "x" * 500])
def test_any_visible_text_names_an_experiment(store: Store, name: str) -> None:
    assert store.get_experiment(store.create_experiment(name)).name == name


@pytest.mark.parametrize("location", ["http://h/a", "s3://b/x", "/a/../b", "/a?x", "/a#b", "/a;b", "x" * 3000])
def test_an_artifact_location_is_a_plain_folder(store: Store, location: str) -> None:
    with pytest.raises(InvalidInput):
        store.create_experiment("e", artifact_location=location)


def test_artifacts_lie_where_the_experiment_says(store: Store, tmp_path: Path) -> None:
    experiment_id = store.create_experiment("e", artifact_location=f"file://{tmp_path}/elsewhere")
    run = store.create_run(experiment_id)
    assert run.info.artifact_uri == f"{tmp_path}/elsewhere/{run.info.run_id}/artifacts"


@pytest.mark.parametrize("experiment_id", ["7", "x", "", "-1", "1" * 30, None, "0 OR 1"])
def test_an_unknown_experiment_is_not_found(store: Store, experiment_id: object) -> None:
    with pytest.raises(NotFound, match="there is no experiment"):
        store.get_experiment(experiment_id)


def test_deleting_an_experiment_takes_its_runs_along_and_restoring_brings_them_back(store: Store) -> None:
    experiment_id = store.create_experiment("e")
    run_id = store.create_run(experiment_id).info.run_id
    store.delete_experiment(experiment_id)
    assert store.get_run(run_id).info.lifecycle_stage == "deleted"
    assert [item.name for item in store.search_experiments(view_type=ViewType.DELETED_ONLY)] == ["e"]
    with pytest.raises(InvalidState, match="is deleted"):
        store.create_run(experiment_id)
    store.restore_experiment(experiment_id)
    assert store.get_run(run_id).info.lifecycle_stage == "active"
    with pytest.raises(InvalidState, match="not deleted"):
        store.restore_experiment(experiment_id)


def test_experiment_tags_are_set_and_deleted(store: Store) -> None:
    store.set_experiment_tag("0", "team", "blue")
    store.set_experiment_tag("0", "team", "red")
    assert store.get_experiment("0").tags == {"team": "red"}
    store.delete_experiment_tag("0", "team")
    assert store.get_experiment("0").tags == {}
    with pytest.raises(NotFound):
        store.delete_experiment_tag("0", "team")


# -- runs


def test_a_run_is_created_running_with_what_was_given(store: Store) -> None:
    run = store.create_run("0", start_time=5, tags={"a": "b"}, run_name="calm-owl-1", user_id="ann")
    info = run.info
    assert (info.status, info.start_time, info.end_time, info.run_name, info.user_id) == (
        "RUNNING",
        5,
        None,
        "calm-owl-1",
        "ann",
    )
    assert run.data.tags == {"a": "b", "mlflow.runName": "calm-owl-1"}
    assert info.artifact_uri == f"{store.root}/0/{info.run_id}/artifacts"
    assert len(info.run_id) == 32


def test_name_and_name_tag_are_one(store: Store, run_id: str) -> None:
    store.set_tag(run_id, "mlflow.runName", "other")
    assert store.get_run(run_id).info.run_name == "other"
    run = store.update_run(run_id, run_name="third")
    assert (run.info.run_name, run.data.tags["mlflow.runName"]) == ("third", "third")
    assert store.create_run("0", tags={"mlflow.runName": "x"}).info.run_name == "x"
    with pytest.raises(InvalidInput, match="one name"):
        store.create_run("0", run_name="a", tags={"mlflow.runName": "b"})


def test_an_end_status_carries_its_time_and_running_again_takes_it_away(store: Store, run_id: str) -> None:
    info = store.update_run(run_id, status="FAILED", end_time=2000).info
    assert (info.status, info.end_time) == ("FAILED", 2000)
    info = store.update_run(run_id, status="RUNNING").info
    assert (info.status, info.end_time) == ("RUNNING", None)
    with pytest.raises(InvalidInput, match="not a run status"):
        store.update_run(run_id, status="DONE")


def test_a_batch_is_all_or_nothing(store: Store, run_id: str) -> None:
    store.log_batch(run_id, [Metric("m", 1.0, 10, 1)], [Param("p", "1")], [RunTag("t", "x")])
    with pytest.raises(InvalidInput, match="cannot become '2'"):
        store.log_batch(run_id, [Metric("n", 1.0, 10, 1)], [Param("q", "1"), Param("p", "2")], [RunTag("t", "y")])
    data = store.get_run(run_id).data
    assert (data.metrics, data.params, data.tags["t"]) == ({"m": 1.0}, {"p": "1"}, "x")


def test_history_is_ordered_by_time_then_step_then_value(store: Store, run_id: str) -> None:
    points = [(3.0, 30, 1), (1.0, 10, 5), (2.0, 10, 4), (0.5, 30, 1), (math.nan, 30, 1)]
    store.log_batch(run_id, [Metric("m", value, time, step) for value, time, step in points])
    found = [(metric.value, metric.timestamp, metric.step) for metric in store.get_metric_history(run_id, "m")]
    assert found[:2] == [(2.0, 10, 4), (1.0, 10, 5)]
    assert math.isnan(found[2][0])
    assert found[3:] == [(0.5, 30, 1), (3.0, 30, 1)]


def test_the_same_point_twice_is_one_point(store: Store, run_id: str) -> None:
    for _ in range(2):
        store.log_batch(run_id, [Metric("m", 1.0, 10, 1)])
    assert len(store.get_metric_history(run_id, "m")) == 1


def test_the_latest_value_is_the_greatest_by_step_time_value(store: Store, run_id: str) -> None:
    store.log_batch(run_id, [Metric("m", 9.0, 50, 1), Metric("m", 1.0, 10, 2), Metric("m", 2.0, 10, 2)])
    assert store.get_run(run_id).data.metrics == {"m": 2.0}


def test_a_metric_that_was_never_logged_has_no_history(store: Store, run_id: str) -> None:
    assert store.get_metric_history(run_id, "nothing") == []
    with pytest.raises(NotFound):
        store.get_metric_history("nobody", "m")


def test_tags_change_and_go(store: Store, run_id: str) -> None:
    store.set_tag(run_id, "t", "1")
    store.set_tag(run_id, "t", 2)
    assert store.get_run(run_id).data.tags["t"] == "2"
    store.delete_tag(run_id, "t")
    with pytest.raises(NotFound, match="no tag 't'"):
        store.delete_tag(run_id, "t")


def test_a_deleted_run_is_hidden_takes_no_more_and_comes_back(store: Store, run_id: str) -> None:
    store.delete_run(run_id)
    assert store.search_runs() == []
    assert [run.info.run_id for run in store.search_runs(view_type=ViewType.DELETED_ONLY)] == [run_id]
    with pytest.raises(InvalidState, match="is deleted"):
        store.log_batch(run_id, [Metric("m", 1.0, 1, 0)])
    store.delete_run(run_id)
    store.restore_run(run_id)
    assert len(store.search_runs()) == 1
    with pytest.raises(NotFound):
        store.delete_run("nobody")


def test_datasets_are_shown_with_each_run_that_read_them(store: Store, run_id: str) -> None:
    dataset = Dataset("wine", "abc12345", "local", "wine.csv", schema="{}", profile=None)
    other = store.create_run("0").info.run_id
    for run in (run_id, other):
        store.log_inputs(run, [DatasetInput(dataset, {"mlflow.data.context": "train"})])
        assert store.get_run(run).inputs.dataset_inputs == (DatasetInput(dataset, {"mlflow.data.context": "train"}),)


# -- finding runs


def test_a_run_is_found_by_any_unique_beginning_by_name_and_by_age(store: Store) -> None:
    ids = [store.create_run("0", start_time=time, run_name=f"name-{time}").info.run_id for time in (1, 2, 3)]
    assert store.find_run(ids[0]) == ids[0]
    unique = next(
        ids[1][:length] for length in range(1, 33) if sum(item.startswith(ids[1][:length]) for item in ids) == 1
    )
    assert store.find_run(unique) == ids[1]
    assert [store.find_run(reference) for reference in ("latest", "latest~1", "latest~2")] == ids[::-1]
    assert store.find_run("name-2") == ids[1]


def test_of_runs_that_began_together_the_one_that_is_nobodys_child_is_the_latest(store: Store) -> None:
    search = store.create_run("0", start_time=5).info.run_id
    for _ in range(12):
        store.create_run("0", start_time=5, tags={"mlflow.parentRunId": search})
    before = store.create_run("0", start_time=4).info.run_id
    assert store.find_run("latest") == search
    assert store.find_run("latest~13") == before


def test_a_reference_that_means_several_runs_or_none_says_so(store: Store) -> None:
    store.create_run("0", run_name="same")
    store.create_run("0", run_name="same")
    with pytest.raises(InvalidInput, match="could be several runs"):
        store.find_run("same")
    for reference in ("zzz", "", "latest~9", "%"):
        with pytest.raises(NotFound):
            store.find_run(reference)
    with pytest.raises(InvalidInput):
        store.find_run("latest~x")


def test_the_newest_run_comes_first_and_pages_join_without_a_gap(store: Store) -> None:
    ids = [store.create_run("0", start_time=time).info.run_id for time in range(25)]
    pages, token = [], None
    while True:
        page = store.search_runs(max_results=10, page_token=token)
        pages += [run.info.run_id for run in page]
        token = page.token
        if token is None:
            break
    assert pages == ids[::-1]


def test_runs_of_the_named_experiments_only(store: Store) -> None:
    other = store.create_experiment("other")
    mine, theirs = store.create_run("0").info.run_id, store.create_run(other).info.run_id
    assert [run.info.run_id for run in store.search_runs(["0"])] == [mine]
    assert [run.info.run_id for run in store.search_runs([other])] == [theirs]
    assert store.search_runs([]) == []


@pytest.mark.parametrize("size", [0, -1, 50_001])
def test_a_page_has_a_sensible_size(store: Store, size: int) -> None:
    with pytest.raises(InvalidInput, match="max_results"):
        store.search_runs(max_results=size)


# -- times


def test_the_clock_may_jump_back(store: Store, run_id: str) -> None:
    info = store.update_run(run_id, status="FINISHED", end_time=1).info
    assert info.end_time == 1


@pytest.mark.parametrize("time", [4102444800000, 2**53])
def test_times_far_ahead_are_kept(store: Store, run_id: str, time: int) -> None:
    store.log_batch(run_id, [Metric("m", 1.0, time, 0)])
    assert store.get_metric_history(run_id, "m")[0].timestamp == time


# -- values

EXTREMES = (0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 2.0**53 + 1, math.inf, -math.inf)


@pytest.mark.parametrize("value", [*EXTREMES, math.nan])
def test_a_number_is_kept_to_the_last_bit_but_for_the_sign_of_zero(store: Store, run_id: str, value: float) -> None:
    store.log_batch(run_id, [Metric("m", value, 1, 0)])
    kept = abs(value) if value == 0 else value
    found = [*(point.value for point in store.get_metric_history(run_id, "m")), store.get_run(run_id).data.metrics["m"]]
    assert [repr(abs(item) if item == 0 else item) for item in found] == [repr(kept)] * 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [(True, 1.0), ("1.5", 1.5), (2**63, 2.0**63), (" 7 ", 7.0), (10**400, None), ("x", None), (None, None)],
)
def test_what_is_a_number_in_other_words_is_one(store: Store, run_id: str, given: object, kept: float | None) -> None:
    if kept is None:
        with pytest.raises(InvalidInput, match="not a number"):
            store.log_batch(run_id, [Metric("m", given, 1, 0)])
    else:
        store.log_batch(run_id, [Metric("m", given, 1, 0)])
    assert store.get_run(run_id).data.metrics == ({} if kept is None else {"m": kept})


@pytest.mark.parametrize(
    ("step", "time"), [(2**63, 1), (-(2**63), 1), (1.5, 1), ("1", 1), (None, 1), (0, -1), (0, 2**63), (0, "now")]
)
def test_a_step_or_time_that_fits_no_64_bits_is_refused(store: Store, run_id: str, step: object, time: object) -> None:
    with pytest.raises(InvalidInput):
        store.log_batch(run_id, [Metric("m", 1.0, time, step)])
    assert store.get_run(run_id).data.metrics == {}


TEXTS = [
    "",
    "-x",
    "--help",
    "a\nb\r\n\tc",
    " padded ",
    "🦉 한국어 e\u0301",
    "'; DROP TABLE runs; --",
    "\\N",
    "x" * 6000,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_comes_back_as_it_went_in(store: Store, run_id: str, text: str) -> None:
    store.log_batch(run_id, params=[Param("p", text)], tags=[RunTag("t", text)])
    store.set_experiment_tag("0", "t", text)
    data = store.get_run(run_id).data
    assert (data.params["p"], data.tags["t"], store.get_experiment("0").tags["t"]) == (text, text, text)


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "a\0b", "\ud800", "x" * 20_001], ids=["1 MB", "NUL", "surrogate", "long"]
)
def test_text_that_cannot_be_kept_as_it_is_is_refused_whole(store: Store, run_id: str, text: str) -> None:
    with pytest.raises(InvalidInput):
        store.log_batch(run_id, params=[Param("p", text)])
    with pytest.raises(InvalidInput):
        store.set_tag(run_id, "t", text)
    with pytest.raises(InvalidInput):
        store.set_experiment_tag("0", "t", text)
    data = store.get_run(run_id).data
    assert (data.params, "t" in data.tags, store.get_experiment("0").tags) == ({}, False, {})
