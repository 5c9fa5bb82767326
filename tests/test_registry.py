"""The registry's contract, over every store there is: registered models, versions, aliases, logged models, moved runs."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import LOCAL_KINDS

from mlcli import artifacts, registry, rules
from mlcli.artifacts import open_artifacts
from mlcli.entities import (
    Dataset,
    DatasetInput,
    LoggedModelInput,
    LoggedModelMetric,
    LoggedModelOutput,
    Metric,
    ModelVersion,
    Param,
    RunTag,
)
from mlcli.errors import AlreadyExists, FilterSyntaxError, InvalidInput, InvalidState, NotFound
from mlcli.store import Store, sources

PROMPT = "mlflow.prompt.is_prompt"


@pytest.fixture
def run_id(store: Store) -> str:
    return store.create_run("0", run_name="calm-owl-1", user_id="ann", start_time=1000).info.run_id


@pytest.fixture
def new_version(store: Store, run_id: str) -> Callable[..., ModelVersion]:
    """Makes a version of a model, which is created with its first one."""

    def make(name: str = "iris", **options: object) -> ModelVersion:
        try:
            store.create_registered_model(name)
        except AlreadyExists:
            pass
        return store.create_model_version(name, f"runs:/{run_id}/model", **options)

    return make


# -- registered models


def test_a_model_is_read_as_it_was_created(store: Store) -> None:
    made = store.create_registered_model("iris classifier", tags={"team": "blue"}, description="petals")
    assert made == store.get_registered_model("iris classifier")
    assert (made.name, made.tags, made.description) == ("iris classifier", {"team": "blue"}, "petals")
    assert (made.latest_versions, made.aliases) == ((), {})


def test_a_name_is_taken_once(store: Store) -> None:
    store.create_registered_model("iris")
    with pytest.raises(AlreadyExists, match="'iris'"):
        store.create_registered_model("iris")


@pytest.mark.parametrize(
    "name", ["", "  ", "a/b", "a:b", "..", ".", "a\\b", "..%2f..%2fetc", "%2e%2e/x", "a\0b", "a\nb", "x" * 501, None, 3]
)
def test_a_name_that_no_uri_can_hold_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.create_registered_model(name)
    assert store.search_registered_models() == []


def test_a_missing_model_is_not_found(store: Store) -> None:
    for call in (
        lambda: store.get_registered_model("nix"),
        lambda: store.rename_registered_model("nix", "neu"),
        lambda: store.update_registered_model("nix", "text"),
        lambda: store.delete_registered_model("nix"),
        lambda: store.get_latest_versions("nix"),
        lambda: store.set_registered_model_tag("nix", "a", "b"),
        lambda: store.delete_registered_model_tag("nix", "a"),
        lambda: store.get_model_version("nix", "1"),
        lambda: store.get_model_version_by_alias("nix", "best"),
        lambda: store.set_registered_model_alias("nix", "best", "1"),
        lambda: store.create_model_version("nix", "s3://bucket/model"),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_description_changes_and_the_time_of_change_with_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.create_registered_model("iris", description="old")
    monkeypatch.setattr("mlcli.journal.now", lambda: before.last_updated_timestamp + 5)
    after = store.update_registered_model("iris", "new")
    assert (after.description, after.creation_timestamp, after.last_updated_timestamp) == (
        "new",
        before.creation_timestamp,
        before.last_updated_timestamp + 5,
    )


def test_renaming_takes_versions_tags_and_aliases_along(store: Store, new_version: Callable[..., ModelVersion]) -> None:
    new_version(tags={"a": "1"})
    store.set_registered_model_alias("iris", "best", 1)
    store.set_registered_model_tag("iris", "team", "blue")
    renamed = store.rename_registered_model("iris", "lily")
    assert (renamed.tags, renamed.aliases) == ({"team": "blue"}, {"best": "1"})
    assert store.get_model_version_by_alias("lily", "best").tags == {"a": "1"}
    assert [version.name for version in store.search_model_versions()] == ["lily"]
    with pytest.raises(NotFound):
        store.get_registered_model("iris")


def test_a_model_is_not_renamed_over_another(store: Store) -> None:
    store.create_registered_model("iris", tags={"of": "iris"})
    store.create_registered_model("lily")
    with pytest.raises(AlreadyExists):
        store.rename_registered_model("iris", "lily")
    with pytest.raises(InvalidInput):
        store.rename_registered_model("iris", "a/b")
    assert store.get_registered_model("iris").tags == {"of": "iris"}


def test_deleting_a_model_deletes_all_that_belongs_to_it(
    store: Store, new_version: Callable[..., ModelVersion]
) -> None:
    new_version(tags={"a": "1"})
    new_version()
    store.set_registered_model_alias("iris", "best", 1)
    store.delete_registered_model("iris")
    assert store.search_model_versions() == []
    fresh = store.create_registered_model("iris")
    assert (fresh.aliases, fresh.tags, fresh.latest_versions) == ({}, {}, ())


def test_tags_of_a_model_are_set_replaced_and_removed(store: Store) -> None:
    store.create_registered_model("iris", tags={"a": 1})
    store.set_registered_model_tag("iris", "a", "2")
    store.set_registered_model_tag("iris", "long", "x" * 100_000)
    assert store.get_registered_model("iris").tags == {"a": "2", "long": "x" * 100_000}
    store.delete_registered_model_tag("iris", "long")
    store.delete_registered_model_tag("iris", "never there")
    assert store.get_registered_model("iris").tags == {"a": "2"}
    with pytest.raises(InvalidInput):
        store.set_registered_model_tag("iris", "longer", "x" * 100_001)


# -- versions


def test_versions_are_numbered_from_one(new_version: Callable[..., ModelVersion]) -> None:
    assert [new_version().version for _ in range(3)] == ["1", "2", "3"]
    assert new_version("other").version == "1"


def test_a_version_is_read_as_it_was_created(store: Store, run_id: str) -> None:
    store.create_registered_model("iris")
    made = store.create_model_version(
        "iris", f"runs:/{run_id}/model", run_id, {"a": 1}, "http://there/run", "first", user_id="ann"
    )
    assert made == store.get_model_version("iris", 1) == store.get_model_version("iris", "1")
    assert (made.source, made.run_id, made.tags, made.run_link, made.description, made.user_id) == (
        f"runs:/{run_id}/model",
        run_id,
        {"a": "1"},
        "http://there/run",
        "first",
        "ann",
    )
    assert (made.status, made.current_stage, made.aliases) == ("READY", "None", ())


def test_the_number_of_a_deleted_version_is_not_given_again(
    store: Store, new_version: Callable[..., ModelVersion]
) -> None:
    new_version()
    new_version()
    store.delete_model_version("iris", "2")
    assert new_version().version == "3"
    store.delete_model_version("iris", "1")
    store.delete_model_version("iris", "3")
    assert new_version().version == "4"


def test_a_deleted_version_is_gone(store: Store, new_version: Callable[..., ModelVersion]) -> None:
    new_version()
    store.set_registered_model_alias("iris", "best", "1")
    store.delete_model_version("iris", "1")
    for call in (
        lambda: store.get_model_version("iris", "1"),
        lambda: store.delete_model_version("iris", "1"),
        lambda: store.update_model_version("iris", "1", "text"),
        lambda: store.set_model_version_tag("iris", "1", "a", "b"),
        lambda: store.get_model_version_download_uri("iris", "1"),
        lambda: store.transition_model_version_stage("iris", "1", "Staging"),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.get_registered_model("iris").aliases == {}
    assert store.get_latest_versions("iris") == []


@pytest.mark.parametrize("version", ["0", "-1", "one", "1.0", "", None, "²", "1; DROP TABLE runs"])
def test_what_is_no_version_number_is_refused(
    store: Store, new_version: Callable[..., ModelVersion], version: object
) -> None:
    new_version()
    with pytest.raises(InvalidInput, match="number of a version"):
        store.get_model_version("iris", version)


def test_a_failed_version_leaves_nothing_behind(store: Store) -> None:
    store.create_registered_model("iris")
    with pytest.raises(InvalidInput):
        store.create_model_version("iris", "s3://b/m", tags={"bad//key": "x"})
    with pytest.raises(NotFound):
        store.create_model_version("iris", "runs:/" + "0" * 32)
    assert store.search_model_versions() == []
    assert store.create_model_version("iris", "s3://b/m").version == "1"


def test_a_change_of_a_version_is_noted_in_version_and_model(
    store: Store, new_version: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_version()
    monkeypatch.setattr("mlcli.journal.now", lambda: made.creation_timestamp + 9)
    assert store.update_model_version("iris", "1", "better").description == "better"
    later = made.creation_timestamp + 9
    assert store.get_model_version("iris", "1").last_updated_timestamp == later
    assert store.get_registered_model("iris").last_updated_timestamp == later


def test_tags_of_a_version_are_set_and_removed(store: Store, new_version: Callable[..., ModelVersion]) -> None:
    new_version(tags={"a": "1"})
    store.set_model_version_tag("iris", "1", "b", None)
    store.delete_model_version_tag("iris", "1", "a")
    store.delete_model_version_tag("iris", "1", "never there")
    assert store.get_model_version("iris", "1").tags == {"b": "None"}


def test_a_model_its_version_and_its_alias_are_registered_in_one_go(store: Store, run_id: str) -> None:
    source = f"runs:/{run_id}/model"
    made = store.register_model_version("iris", source, tags={"a": 1}, description="first", alias="best")
    assert (made.version, made.run_id, made.tags, made.description) == ("1", run_id, {"a": "1"}, "first")
    assert store.register_model_version("iris", source, alias="best").aliases == ("best",)
    assert store.get_registered_model("iris").aliases == {"best": "2"}
    for wrong in ({"alias": "latest"}, {"tags": {"bad//key": "x"}}):
        with pytest.raises(InvalidInput):
            store.register_model_version("lily", source, **wrong)
    with pytest.raises(InvalidInput):
        store.register_model_version("lily", "/etc")
    assert [model.name for model in store.search_registered_models()] == ["iris"]


REGISTERS = """
import sys, mlcli
for _ in range(4):
    print(mlcli.register_model("s3://bucket/model", "iris", tags={"by": sys.argv[1]}).version)
"""


def test_processes_that_register_at_once_get_numbers_of_their_own(root: Path) -> None:
    """The model itself is new: it is created once, whoever comes first."""
    environ = {**os.environ, "MLCLI_TRACKING_URI": str(root)}
    writers = [
        subprocess.Popen([sys.executable, "-c", REGISTERS, str(place)], env=environ, stdout=subprocess.PIPE, text=True)
        for place in range(3)
    ]
    numbers = [list(map(int, writer.communicate(timeout=60)[0].split())) for writer in writers]
    assert all(own == sorted(own) for own in numbers)
    assert sorted(itertools.chain(*numbers)) == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(LOCAL_KINDS))
def test_versions_created_at_once_get_numbers_of_their_own(kind: str, root: Path) -> None:
    with LOCAL_KINDS[kind](root) as store:
        store.create_registered_model("iris")

    def create(_: int) -> list[str]:
        with LOCAL_KINDS[kind](root) as own:
            return [own.create_model_version("iris", "s3://b/m").version for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        numbers = [int(number) for part in pool.map(create, range(4)) for number in part]
    assert sorted(numbers) == list(range(1, 21))


# -- aliases


def test_an_alias_names_one_version_and_moves(store: Store, new_version: Callable[..., ModelVersion]) -> None:
    new_version()
    new_version()
    store.set_registered_model_alias("iris", "best", "1")
    store.set_registered_model_alias("iris", "first", "1")
    assert store.get_model_version("iris", "1").aliases == ("best", "first")
    store.set_registered_model_alias("iris", "best", "2")
    assert store.get_model_version_by_alias("iris", "best").version == "2"
    assert store.get_registered_model("iris").aliases == {"best": "2", "first": "1"}
    store.delete_registered_model_alias("iris", "best")
    store.delete_registered_model_alias("iris", "best")
    assert store.get_registered_model("iris").aliases == {"first": "1"}


def test_an_unknown_alias_is_a_bad_request_as_in_mlflow(store: Store) -> None:
    store.create_registered_model("iris")
    with pytest.raises(InvalidInput, match="'best'"):
        store.get_model_version_by_alias("iris", "best")


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v1", "V23", "", "a b", "a.b", "é", "x" * 256, None, "a\n"])
def test_an_alias_that_means_something_else_is_refused(
    store: Store, new_version: Callable[..., ModelVersion], alias: str
) -> None:
    new_version()
    with pytest.raises(InvalidInput):
        store.set_registered_model_alias("iris", alias, "1")
    assert store.get_registered_model("iris").aliases == {}


def test_an_alias_needs_a_version_that_is_there(store: Store, new_version: Callable[..., ModelVersion]) -> None:
    new_version()
    with pytest.raises(NotFound):
        store.set_registered_model_alias("iris", "best", "2")


# -- stages and latest


def test_the_latest_versions_are_the_newest_of_each_stage(
    store: Store, new_version: Callable[..., ModelVersion]
) -> None:
    for _ in range(4):
        new_version()
    store.transition_model_version_stage("iris", "1", "production")
    store.transition_model_version_stage("iris", "2", "Production")
    found = {version.current_stage: version.version for version in store.get_latest_versions("iris")}
    assert found == {"None": "4", "Production": "2"}
    assert [version.version for version in store.get_latest_versions("iris", ["PRODUCTION"])] == ["2"]
    assert store.get_latest_versions("iris", ["Archived"]) == []
    assert {version.version for version in store.get_registered_model("iris").latest_versions} == {"4", "2"}


def test_a_version_takes_the_place_of_those_in_its_stage(
    store: Store, new_version: Callable[..., ModelVersion]
) -> None:
    for _ in range(3):
        new_version()
    store.transition_model_version_stage("iris", "1", "Staging")
    store.transition_model_version_stage("iris", "2", "Production")
    store.transition_model_version_stage("iris", "3", "Staging", archive_existing_versions=True)
    stages = [store.get_model_version("iris", number).current_stage for number in (1, 2, 3)]
    assert stages == ["Archived", "Production", "Staging"]
    with pytest.raises(InvalidInput, match="not archived for the stage None"):
        store.transition_model_version_stage("iris", "1", "None", archive_existing_versions=True)
    with pytest.raises(InvalidInput, match="no stage"):
        store.transition_model_version_stage("iris", "1", "Live")


# -- copying


def test_a_copy_has_the_files_tags_and_description_of_its_original(store: Store, run_id: str) -> None:
    store.create_registered_model("iris")
    store.create_model_version("iris", f"runs:/{run_id}/model", tags={"a": "1"}, description="text")
    store.transition_model_version_stage("iris", "1", "Production")
    made = store.copy_model_version("iris", "1", "lily")
    assert (made.name, made.version, made.source, made.run_id) == ("lily", "1", "models:/iris/1", run_id)
    assert (made.tags, made.description, made.current_stage) == ({"a": "1"}, "text", "None")
    assert store.get_model_version_download_uri("lily", "1") == store.get_model_version_download_uri("iris", "1")


def test_a_copy_of_a_copy_outlives_both(store: Store) -> None:
    store.create_registered_model("a")
    store.create_model_version("a", "s3://bucket/model")
    store.copy_model_version("a", "1", "b")
    store.copy_model_version("b", "1", "c")
    store.delete_registered_model("a")
    store.delete_registered_model("b")
    assert store.get_model_version_download_uri("c", "1") == "s3://bucket/model"


def test_copying_what_is_not_there_creates_nothing(store: Store) -> None:
    store.create_registered_model("a")
    with pytest.raises(NotFound):
        store.copy_model_version("a", "1", "b")
    assert [model.name for model in store.search_registered_models()] == ["a"]


# -- where files are


def test_a_local_source_lies_inside_the_artifacts_of_its_run(store: Store, run_id: str) -> None:
    folder = Path(store.artifact_root(run_id), "model")
    folder.mkdir(parents=True)
    store.create_registered_model("iris")
    for source in (str(folder), folder.as_uri(), f"FILE://localhost{folder}", f"file:{folder}"):
        made = store.create_model_version("iris", source, run_id)
        assert made.source == source
        assert store.get_model_version_download_uri("iris", made.version) == str(folder)


def test_a_local_source_may_lie_inside_its_logged_model(store: Store, run_id: str) -> None:
    model = store.create_logged_model("0", "net", run_id)
    store.create_registered_model("iris")
    store.create_model_version("iris", f"{model.artifact_location}/sub", model_id=model.model_id)
    assert store.get_model_version_download_uri("iris", "1") == f"{model.artifact_location}/sub"
    with pytest.raises(InvalidInput):
        store.create_model_version("iris", model.artifact_location, run_id)


def forbidden(inside: str, run_id: str) -> dict[str, str]:
    """Sources that lead elsewhere, by what they try; ``inside`` is the folder of the run."""
    return {
        "a folder of the system": "file:///etc",
        "its plain path": "/etc",
        "one that is not there": "file:///etc/nothing-here",
        "a path beside the run": f"{inside}-evil",
        "up and out": f"{inside}/../../../x",
        "up and out, encoded": f"{inside}/%2e%2e/%2e%2e/x",
        "encoded twice": f"{inside}/..%252f..%252fx",
        "backslashes": f"{inside}/..\\..\\x",
        "backslashes, encoded": f"{inside}/..%5c..%5cx",
        "another encoding": f"{inside}/%u002e%u002e/x",
        "relative": "model",
        "relative, of file:": "file:model",
        "relative, up": "../../etc",
        "a drive": "C:\\x",
        "a drive without a root": "C:x",
        "a share": "\\\\host\\share",
        "two slashes": "//etc",
        "four slashes": "file:////etc",
        "another host": "file://host/etc",
        "no scheme": "://etc",
        "a space before": " file:///etc",
        "a query": "http://h?/../../etc",
        "a fragment": "http:///#/../../etc",
        "a fragment of file:": f"file://{inside}#/../etc",
        "a fragment, encoded": f"file://{inside}%23/../etc",
        "params": "http://h/;../../etc",
        "up in a bucket": "s3://b/../../x",
        "up in the proxy": "mlflow-artifacts:/../../etc",
        "up in the proxy, encoded": "mlflow-artifacts:/0/..%2f..%2fetc",
        "no run of the proxy": "mlflow-artifacts:/0/" + "0" * 32 + "/artifacts/model",
        "no model of the proxy": "mlflow-artifacts:/0/models/m-1/artifacts",
        "anything in the proxy": "mlflow-artifacts:/0",
        "beside a run in the proxy": f"mlflow-artifacts:/0/{run_id}/artifacts-evil",
        "no host": "http:///etc",
        "a password": "sftp://user:secret@h/m",
        "an unknown scheme": "dbfs:/model",
        "another unknown scheme": "jar:file:///etc!/x",
        "up in a run": f"runs:/{run_id}/../../x",
        "up in a run, encoded": f"runs:/{run_id}/%2e%2e/x",
        "a run of another server": f"runs://h/{run_id}/model",
        "no run": "runs:/",
        "no run id": "runs:/../x",
        "no model": "models:/",
        "up in a model": "models:/../x",
        "too much of a model": "models:/iris/1/x",
        "no model id": "models:/iris",
        "nothing": "",
        "blank": "  ",
        "too much": "s3://b/" + "x" * 3000,
        "an end of line": "s3://b/m\n",
        "a NUL": "s3://b/m\0",
    }


@pytest.mark.parametrize("attempt", sorted(forbidden("", "")))
def test_a_source_that_leads_elsewhere_is_refused(store: Store, run_id: str, attempt: str) -> None:
    source = forbidden(store.artifact_root(run_id), run_id)[attempt]
    store.create_registered_model("iris")
    # No tag, run or model that one may name opens a way.
    model = store.create_logged_model("0", "net", run_id)
    for run, model_id, tags in itertools.product((None, run_id), (None, model.model_id), (None, {PROMPT: "true"})):
        with pytest.raises(InvalidInput) as caught:
            store.create_model_version("iris", source, run, tags, model_id=model_id)
        assert "secret" not in str(caught.value)
    assert store.search_model_versions() == []
    assert store.create_model_version("iris", "s3://b/m").version == "1"


def test_a_refused_source_does_not_tell_whether_it_exists(store: Store, run_id: str, tmp_path: Path) -> None:
    store.create_registered_model("iris")
    (tmp_path / "here").mkdir()
    answers = set()
    for name in ("here", "gone"):
        for run in (None, run_id, "0" * 32):
            with pytest.raises(InvalidInput) as caught:
                store.create_model_version("iris", str(tmp_path / name), run)
            answers.add((str(caught.value).replace(name, ""), caught.value.hint))
    assert len(answers) == 1


def test_a_link_out_of_the_artifacts_is_no_way_out(store: Store, run_id: str, tmp_path: Path) -> None:
    inside = Path(store.artifact_root(run_id))
    inside.mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (inside / "model").symlink_to(tmp_path / "secret")
    store.create_registered_model("iris")
    with pytest.raises(InvalidInput):
        store.create_model_version("iris", str(inside / "model"), run_id)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(alphabet="./%2eEfF5cC\\:;?#ab1-@ ", max_size=40), st.sampled_from(["", "file:", "/r/", "file:///r/"]))
def test_a_local_source_that_is_read_has_no_way_up(text: str, prefix: str) -> None:
    try:
        found = sources.read(prefix + text)
    except InvalidInput:
        return
    for form in (found.path, rules.percent_decoded(found.path)):
        assert ".." not in form.replace("\\", "/").split("/")
    assert found.kind != "local" or os.path.isabs(found.path)


def test_the_source_of_a_run_names_the_run(store: Store, run_id: str) -> None:
    store.create_registered_model("iris")
    made = store.create_model_version("iris", f"runs:/{run_id}/model")
    assert made.run_id == run_id
    assert store.get_model_version_download_uri("iris", "1") == f"runs:/{run_id}/model"
    other = store.create_run("0").info.run_id
    with pytest.raises(InvalidInput, match="another run"):
        store.create_model_version("iris", f"runs:/{run_id}/model", other)
    with pytest.raises(NotFound):
        store.create_model_version("iris", f"runs:/{'0' * 32}/model")


def test_the_source_of_a_logged_model_comes_to_its_folder(store: Store, run_id: str) -> None:
    model = store.create_logged_model("0", "net", run_id)
    store.create_registered_model("iris")
    made = store.create_model_version("iris", f"models:/{model.model_id}", run_id)
    assert (made.model_id, made.source) == (model.model_id, f"models:/{model.model_id}")
    assert store.get_model_version_download_uri("iris", "1") == model.artifact_location
    with pytest.raises(InvalidInput, match="another model"):
        store.create_model_version("iris", f"models:/{model.model_id}", model_id="m-" + "0" * 32)
    with pytest.raises(NotFound):
        store.create_model_version("iris", "models:/m-" + "0" * 32)
    store.delete_logged_model(model.model_id)
    assert store.get_model_version_download_uri("iris", "1") == model.artifact_location


@pytest.mark.parametrize("reference", ["/2", "@best", "/latest", "/LATEST", "/Production"])
def test_the_source_of_another_version_comes_to_what_it_names_now(store: Store, reference: str) -> None:
    store.create_registered_model("a")
    store.create_registered_model("b")
    store.create_model_version("a", "s3://b/one")
    store.create_model_version("a", "s3://b/two")
    store.set_registered_model_alias("a", "best", "2")
    store.transition_model_version_stage("a", "2", "Production")
    store.create_model_version("b", f"models:/a{reference}")
    store.set_registered_model_alias("a", "best", "1")
    assert store.get_model_version_download_uri("b", "1") == "s3://b/two"


def test_a_servers_name_of_a_runs_artifacts_comes_to_their_folder(store: Store, run_id: str) -> None:
    model = store.create_logged_model("0", "net", run_id)
    store.create_registered_model("iris")
    store.create_model_version("iris", f"mlflow-artifacts:/0/{run_id}/artifacts/a/model", run_id)
    store.create_model_version("iris", f"mlflow-artifacts:/0/models/{model.model_id}/artifacts", run_id)
    store.create_model_version("iris", "mlflow-artifacts://h:5000/0/elsewhere", run_id)
    assert [store.get_model_version_download_uri("iris", number) for number in (1, 2, 3)] == [
        f"{store.artifact_root(run_id)}/a/model",
        model.artifact_location,
        "mlflow-artifacts://h:5000/0/elsewhere",
    ]


def test_a_prompt_has_no_files(store: Store) -> None:
    store.create_registered_model("greeting", tags={PROMPT: "true"})
    store.create_model_version("greeting", "prompt-template", tags={PROMPT: "true", "mlflow.prompt.text": "Hi"})
    assert store.get_model_version_download_uri("greeting", "1") == "prompt-template"


# -- search


@pytest.fixture
def models(store: Store, run_id: str) -> Store:
    for name, tags in (
        ("alpha", {"team": "blue"}),
        ("Beta", {"team": "red"}),
        ("gamma", {}),
        ("hello", {PROMPT: "true"}),
    ):
        store.create_registered_model(name, tags=tags)
    store.create_model_version("alpha", f"runs:/{run_id}/model", tags={"good": "yes"})
    store.create_model_version("alpha", "s3://b/m")
    store.create_model_version("Beta", "s3://b/m")
    return store


@pytest.mark.parametrize(
    ("filter_string", "names"),
    [
        ("", {"alpha", "Beta", "gamma", "hello"}),
        ("name = 'alpha'", {"alpha"}),
        ("name LIKE '%a'", {"alpha", "Beta", "gamma"}),
        ("name LIKE 'b%'", set()),
        ("name ILIKE 'b%'", {"Beta"}),
        ("attribute.name != 'alpha'", {"Beta", "gamma", "hello"}),
        ("name IN ('alpha', 'gamma')", {"alpha", "gamma"}),
        ("tags.team = 'blue'", {"alpha"}),
        ("tags.team != 'blue'", {"Beta"}),
        ("tag.team ILIKE 'B%' AND name = 'alpha'", {"alpha"}),
        ("tags.team IS NULL", {"gamma", "hello"}),
        (f"tag.`{PROMPT}` != 'true'", {"alpha", "Beta", "gamma"}),
        (f"tags.`{PROMPT}` = 'false'", {"alpha", "Beta", "gamma"}),
        (f"tags.`{PROMPT}` = 'true'", {"hello"}),
        (f"name LIKE '%a' AND tag.`{PROMPT}` != 'true'", {"alpha", "Beta", "gamma"}),
        (f"NOT (tags.`{PROMPT}` != 'true')", {"hello"}),
    ],
)
def test_registered_models_are_found(models: Store, filter_string: str, names: set[str]) -> None:
    assert {model.name for model in models.search_registered_models(filter_string)} == names


@pytest.mark.parametrize(
    ("filter_string", "found"),
    [
        ("", {("alpha", "1"), ("alpha", "2"), ("Beta", "1")}),
        ("name = 'alpha'", {("alpha", "1"), ("alpha", "2")}),
        ("name ILIKE 'b%'", {("Beta", "1")}),
        ("version_number = 1", {("alpha", "1"), ("Beta", "1")}),
        ("version_number >= '2'", {("alpha", "2")}),
        ("version_number BETWEEN 2 AND 9", {("alpha", "2")}),
        ("source_path LIKE 's3:%'", {("alpha", "2"), ("Beta", "1")}),
        ("tags.good = 'yes'", {("alpha", "1")}),
        ("run_id = 'nothing'", set()),
        ("run_id IN ('nothing', 'more')", set()),
        (f"tag.`{PROMPT}` != 'true' AND name = 'Beta'", {("Beta", "1")}),
    ],
)
def test_versions_are_found(models: Store, filter_string: str, found: set[tuple[str, str]]) -> None:
    assert {(each.name, each.version) for each in models.search_model_versions(filter_string)} == found


def test_versions_are_found_by_their_run(models: Store, run_id: str) -> None:
    assert [each.version for each in models.search_model_versions(f"run_id = '{run_id}'")] == ["1"]


@pytest.mark.parametrize("filter_string", ["metrics.a > 1", "params.a = 'x'", "version_number = 'one'", "alias = 'x'"])
def test_a_search_for_what_versions_have_not_is_refused(store: Store, filter_string: str) -> None:
    with pytest.raises(FilterSyntaxError):
        store.search_model_versions(filter_string)


def test_models_come_in_the_order_asked_for(models: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later = models.get_registered_model("Beta").last_updated_timestamp + 50
    monkeypatch.setattr("mlcli.journal.now", lambda: later)
    models.update_registered_model("gamma", "changed last")

    def names(*order: str) -> list[str]:
        return [model.name for model in models.search_registered_models(order_by=order)]

    assert names() == names("name ASC") == ["Beta", "alpha", "gamma", "hello"]
    assert names("name DESC") == ["hello", "gamma", "alpha", "Beta"]
    assert names("timestamp DESC", "name")[0] == names("last_updated_timestamp DESC")[0] == "gamma"


def test_versions_come_in_the_order_asked_for(models: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later = models.get_registered_model("Beta").last_updated_timestamp + 50
    monkeypatch.setattr("mlcli.journal.now", lambda: later)
    models.update_model_version("alpha", "1", "changed last")

    def found(*order: str) -> list[tuple[str, str]]:
        return [(each.name, each.version) for each in models.search_model_versions(order_by=order)]

    assert found()[0] == ("alpha", "1")
    assert found("name", "version_number DESC") == [("Beta", "1"), ("alpha", "2"), ("alpha", "1")]


def test_pages_of_models_and_versions_join_to_the_whole(store: Store) -> None:
    for number in range(7):
        store.create_registered_model(f"model {number}")
        store.create_model_version(f"model {number}", "s3://b/m")
    for search in (store.search_registered_models, store.search_model_versions):
        whole, token, pages = search(), None, []
        while True:
            page = search(max_results=3, page_token=token)
            pages += page
            token = page.token
            if not token:
                break
        assert pages == whole
        assert len(whole) == 7


def test_a_page_has_a_limit_of_its_own(store: Store) -> None:
    for search, most in ((store.search_registered_models, 1000), (store.search_model_versions, 200_000)):
        assert search(max_results=most) == []
        for size in (0, -1, most + 1):
            with pytest.raises(InvalidInput, match="max_results"):
                search(max_results=size)


# -- logged models


def test_a_logged_model_is_read_as_it_was_created(store: Store, run_id: str) -> None:
    made = store.create_logged_model("0", "net", run_id, {"a": 1}, {"depth": 3}, "classifier")
    assert made == store.get_logged_model(made.model_id)
    assert made.model_id.startswith("m-")
    assert (made.name, made.source_run_id, made.tags, made.params, made.model_type, made.status) == (
        "net",
        run_id,
        {"a": "1"},
        {"depth": "3"},
        "classifier",
        "PENDING",
    )
    assert made.artifact_location == os.path.join(store.root, "0", "models", made.model_id, "artifacts")


def test_a_logged_model_without_a_name_gets_one(store: Store) -> None:
    assert store.create_logged_model("0").name


@pytest.mark.parametrize("name", ["a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", " ", "x" * 501])
def test_a_logged_models_name_can_stand_in_a_path(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.create_logged_model("0", name)


def test_a_logged_model_needs_its_experiment_and_run(store: Store) -> None:
    with pytest.raises(NotFound):
        store.create_logged_model("77")
    with pytest.raises(NotFound):
        store.create_logged_model("0", source_run_id="0" * 32)
    gone = store.create_experiment("gone")
    store.delete_experiment(gone)
    with pytest.raises(InvalidState):
        store.create_logged_model(gone)


def test_a_logged_model_becomes_ready_or_fails(store: Store) -> None:
    model = store.create_logged_model("0", "net")
    assert store.finalize_logged_model(model.model_id, "READY").status == "READY"
    assert store.finalize_logged_model(model.model_id, "FAILED").status == "FAILED"
    with pytest.raises(InvalidInput):
        store.finalize_logged_model(model.model_id, "DONE")


def test_a_deleted_logged_model_is_not_found(store: Store) -> None:
    model = store.create_logged_model("0", "net")
    store.delete_logged_model(model.model_id)
    assert store.search_logged_models() == []
    for call in (
        lambda: store.get_logged_model(model.model_id),
        lambda: store.delete_logged_model(model.model_id),
        lambda: store.finalize_logged_model(model.model_id, "READY"),
        lambda: store.set_logged_model_tags(model.model_id, {"a": "b"}),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.get_logged_model(model.model_id, allow_deleted=True).lifecycle_stage == "deleted"


def test_tags_and_params_of_a_logged_model(store: Store) -> None:
    model = store.create_logged_model("0", "net").model_id
    store.set_logged_model_tags(model, {"a": "1", "b": "2"})
    store.set_logged_model_tags(model, {"a": "3"})
    store.delete_logged_model_tag(model, "b")
    store.log_logged_model_params(model, {"lr": 0.1})
    store.log_logged_model_params(model, {"lr": 0.1, "depth": 3})
    found = store.get_logged_model(model)
    assert (found.tags, found.params) == ({"a": "3"}, {"lr": "0.1", "depth": "3"})
    with pytest.raises(NotFound):
        store.delete_logged_model_tag(model, "b")
    with pytest.raises(InvalidInput, match="'lr'"):
        store.log_logged_model_params(model, {"lr": 0.2})


def test_a_metric_of_a_logged_model_is_one_of_the_run_too(store: Store, run_id: str) -> None:
    model = store.create_logged_model("0", "net", run_id).model_id
    points = [
        LoggedModelMetric("acc", 0.5, 10, 1, model, "", "iris", "d1"),
        LoggedModelMetric("acc", math.nan, 20, 2, model),
        Metric("loss", 1.0, 10, 1),
    ]
    store.log_batch(run_id, points)
    store.log_batch(run_id, points[:1])
    kept = store.get_logged_model(model).metrics
    assert kept[0] == LoggedModelMetric("acc", 0.5, 10, 1, model, run_id, "iris", "d1")
    assert len(kept) == 2
    assert math.isnan(kept[1].value)
    run = store.get_run(run_id)
    assert run.data.metrics["loss"] == 1.0
    assert [point.step for point in store.get_metric_history(run_id, "acc")] == [1, 2]


def test_a_batch_for_an_unknown_model_is_refused_whole(store: Store, run_id: str) -> None:
    with pytest.raises(NotFound):
        store.log_batch(run_id, [LoggedModelMetric("acc", 0.5, 10, 1, "m-nothing")], tags=[RunTag("a", "b")])
    assert store.get_run(run_id).data.metrics == {}
    assert "a" not in store.get_run(run_id).data.tags


def test_a_run_knows_the_models_it_made_and_read(store: Store, run_id: str) -> None:
    first = store.create_logged_model("0", "first", run_id).model_id
    second = store.create_logged_model("0", "second", run_id).model_id
    store.log_outputs(run_id, [LoggedModelOutput(second, 2), LoggedModelOutput(first, 1)])
    store.log_outputs(run_id, [LoggedModelOutput(first, 1)])
    store.log_inputs(run_id, models=[LoggedModelInput(first)])
    run = store.get_run(run_id)
    assert run.outputs.model_outputs == (LoggedModelOutput(first, 1), LoggedModelOutput(second, 2))
    assert run.inputs.model_inputs == (LoggedModelInput(first),)
    assert run.to_dictionary()["outputs"] == {
        "model_outputs": [{"model_id": first, "step": 1}, {"model_id": second, "step": 2}]
    }
    with pytest.raises(NotFound):
        store.log_outputs(run_id, [LoggedModelOutput("m-nothing")])


@pytest.fixture
def logged(store: Store, run_id: str) -> dict[str, str]:
    """Three models: of two experiments, with accuracies on two datasets."""
    other = store.create_experiment("other")
    made = {}
    for name, experiment, depth, train, test in (
        ("small", "0", 2, 0.7, 0.6),
        ("large", "0", 10, 0.9, 0.5),
        ("odd", other, 3, math.nan, None),
    ):
        model = store.create_logged_model(experiment, name, run_id, {"of": name}, {"depth": depth}, "net").model_id
        points = [LoggedModelMetric("acc", train, 5, 0, model, "", "train", "t1")]
        if test is not None:
            points.append(LoggedModelMetric("acc", test, 6, 0, model, "", "test", "t2"))
        store.log_batch(run_id, points)
        made[name] = model
    store.finalize_logged_model(made["large"], "READY")
    return made


@pytest.mark.parametrize(
    ("filter_string", "names"),
    [
        ("", {"small", "large", "odd"}),
        ("name = 'small'", {"small"}),
        ("name LIKE '%l%' AND model_type = 'net'", {"small", "large"}),
        ("status = 'READY'", {"large"}),
        ("params.depth > 2", {"large", "odd"}),
        ("params.depth = '2'", {"small"}),
        ("tags.of IN ('odd', 'small')", {"odd", "small"}),
        ("metrics.acc > 0.8", {"large"}),
        ("metrics.acc > 0.55 AND metrics.acc < 0.65", {"small", "large"}),  # each test looks at every point
        ("creation_time > 0", {"small", "large", "odd"}),
        ("source_run_id = 'nothing'", set()),
    ],
)
def test_logged_models_are_found(store: Store, logged: dict[str, str], filter_string: str, names: set[str]) -> None:
    assert {model.name for model in store.search_logged_models(None, filter_string)} == names


def test_logged_models_are_found_in_experiments_and_on_datasets(store: Store, logged: dict[str, str]) -> None:
    def names(**options: object) -> set[str]:
        return {model.name for model in store.search_logged_models(**options)}

    assert names(experiment_ids=["0"]) == {"small", "large"}
    assert names(experiment_ids=[]) == set()
    on_test = [{"dataset_name": "test"}]
    assert names(filter_string="metrics.acc > 0.65", datasets=on_test) == set()
    assert names(filter_string="metrics.acc > 0.55", datasets=on_test) == {"small"}
    assert names(filter_string="metrics.acc > 0", datasets=[{"dataset_name": "test", "dataset_digest": "t1"}]) == set()
    with pytest.raises(InvalidInput):
        names(filter_string="metrics.acc > 0", datasets=[{"dataset_digest": "t1"}])


def test_logged_models_come_in_the_order_of_a_metric_on_a_dataset(store: Store, logged: dict[str, str]) -> None:
    def names(*order: object) -> list[str]:
        return [model.name for model in store.search_logged_models(order_by=order)]

    train = {"field_name": "metrics.acc", "dataset_name": "train", "dataset_digest": "t1"}
    assert names({**train, "ascending": False}) == ["large", "small", "odd"]
    assert names({**train, "ascending": True}) == ["small", "large", "odd"]
    assert names({"field_name": "metrics.acc", "ascending": False, "dataset_name": "test"})[0] == "small"
    assert names("name DESC") == ["small", "odd", "large"]
    assert names({"field_name": "params.depth"}) == ["large", "small", "odd"]  # params sort as text
    for wrong in ({}, {"field_name": 3}, {"field_name": "name", "dataset_name": "x"}, 7):
        with pytest.raises(InvalidInput):
            names(wrong)


def test_pages_of_logged_models_join_to_the_whole(store: Store, logged: dict[str, str]) -> None:
    first = store.search_logged_models(max_results=2)
    assert first.token
    joined = [*first, *store.search_logged_models(max_results=2, page_token=first.token)]
    assert [model.model_id for model in joined] == [model.model_id for model in store.search_logged_models()]


# -- models as MLflow 2 logs them


def test_a_model_of_mlflow_2_is_added_to_the_history_in_the_tags(store: Store, run_id: str) -> None:
    models = [
        {"run_id": run_id, "artifact_path": name, "flavors": {"python_function": {}}, "model_uuid": name}
        for name in ("a", "b")
    ]
    store.record_logged_model(run_id, json.dumps(models[0]))
    store.record_logged_model(run_id, models[1])
    assert json.loads(store.get_run(run_id).data.tags["mlflow.log-model.history"]) == models


def test_a_run_may_log_more_models_than_a_tag_has_room_for(store: Store, run_id: str) -> None:
    for number in range(30):
        store.record_logged_model(run_id, {"artifact_path": str(number), "flavors": {"f": {"x": "y" * 400}}})
    assert len(json.loads(store.get_run(run_id).data.tags["mlflow.log-model.history"])) == 30


@pytest.mark.parametrize("model", ["", "[]", "{", '{"artifact_path": "m"}', "null", "[" * 2000])
def test_what_does_not_describe_a_model_is_refused(store: Store, run_id: str, model: str) -> None:
    with pytest.raises(InvalidInput):
        store.record_logged_model(run_id, model)
    assert "mlflow.log-model.history" not in store.get_run(run_id).data.tags


# -- runs that move


def test_a_run_moves_and_its_artifacts_stay_where_their_uri_says(store: Store, run_id: str) -> None:
    before = store.get_run(run_id)
    other, third = store.create_experiment("other"), store.create_experiment("third")
    moved = store.move_run(run_id, other)
    assert moved.info == before.info._replace(experiment_id=other)
    assert [run.info.run_id for run in store.search_runs([other])] == [run_id]
    assert store.search_runs(["0"]) == []
    assert store.move_run(run_id, third).info.artifact_uri == before.info.artifact_uri
    assert store.search_runs(filter_string=f"artifact_uri = '{before.info.artifact_uri}'")


def test_a_moved_run_takes_local_sources(store: Store, run_id: str) -> None:
    folder = Path(store.artifact_root(run_id), "model")
    folder.mkdir(parents=True)
    store.move_run(run_id, store.create_experiment("other"))
    store.create_registered_model("iris")
    store.create_model_version("iris", str(folder), run_id)
    assert store.get_model_version_download_uri("iris", "1") == str(folder)


def test_the_folder_of_a_deleted_experiment_is_kept_for_the_runs_that_left(store: Store) -> None:
    first, second = store.create_experiment("first"), store.create_experiment("second")
    run_id = store.create_run(first).info.run_id
    folder = Path(store.artifact_root(run_id))
    folder.mkdir(parents=True)
    (folder / "kept.txt").write_text("x")
    store.move_run(run_id, second)
    store.delete_experiment(first)
    store.collect(*store.collectable())
    assert (folder / "kept.txt").read_text() == "x"
    assert store.get_run(run_id).info.experiment_id == second


def test_a_run_moves_only_to_an_experiment_that_is_there(store: Store, run_id: str) -> None:
    with pytest.raises(NotFound):
        store.move_run(run_id, "77")
    with pytest.raises(NotFound):
        store.move_run("0" * 32, "0")
    gone = store.create_experiment("gone")
    store.delete_experiment(gone)
    with pytest.raises(InvalidState):
        store.move_run(run_id, gone)
    assert store.get_run(run_id).info.experiment_id == "0"


# -- reading the files


def test_a_models_uri_comes_to_its_files(store: Store, run_id: str) -> None:
    model = store.create_logged_model("0", "net", run_id)
    store.create_registered_model("iris")
    store.create_model_version("iris", f"models:/{model.model_id}")
    store.create_model_version("iris", "s3://b/m")
    store.set_registered_model_alias("iris", "best", "1")
    store.transition_model_version_stage("iris", "1", "Production")
    for uri in (f"models:/{model.model_id}", "models:/iris/1", "models:/iris@best", "models:/iris/production"):
        assert store.locate_model(uri) == model.artifact_location
    for uri in ("models:/iris/2", "models:/iris/latest", "models:/iris/None"):
        assert store.locate_model(uri) == "s3://b/m"
    for uri in ("models:/iris", "models:/", "runs:/x/y", "/etc", "models:/../x", "models:/iris/1/x"):
        with pytest.raises(InvalidInput, match="names no model"):
            store.locate_model(uri)
    for uri in ("models:/iris/3", "models:/lily/1", "models:/m-" + "0" * 32, "models:/iris/Archived"):
        with pytest.raises(NotFound):
            store.locate_model(uri)


def test_a_uri_names_a_version_by_what_is_true_of_it(store: Store) -> None:
    for name, tags in (
        ("iris", {"stage": "ready", "score": "0.7"}),
        ("iris", {"stage": "ready", "score": "0.9"}),
        ("iris", {"stage": "ready", "score": "0.8"}),
        ("iris", {"stage": "draft"}),
        ("lily", {"stage": "ready"}),
    ):
        store.register_model_version(name, f"s3://b/{name}", tags=tags)
    store.set_registered_model_alias("iris", "best", 1)
    for reference, version in {
        "/2": "2",
        "/latest": "4",
        "@best": "1",
        "?": "4",
        "?tags.stage = 'ready'": "3",
        "?tags.stage=ready": "3",
        "?tags.stage = 'ready' and version_number < 3": "2",
        "?tags.stage = 'ready' order by tags.score desc": "2",
        "?tags.stage = 'draft' or tags.stage = 'ready' ORDER BY version_number": "1",
        "?ORDER BY tags.score DESC, version_number": "2",
    }.items():
        found = store.resolve_model_version(f"models:/iris{reference}")
        assert (found.name, found.version) == ("iris", version), reference
    assert store.locate_model("models:/iris?tags.stage=ready") == "s3://b/iris"
    with pytest.raises(NotFound, match=r"no version of registered model 'iris' matches tags\.stage = 'nix'"):
        store.resolve_model_version("models:/iris?tags.stage = 'nix'")
    with pytest.raises(NotFound, match="'nix'"):
        store.resolve_model_version("models:/nix?tags.stage = 'ready'")
    for wrong in ("models:/iris?metrics.f1 > 1", "models:/iris?tags.stage =", "models:/?tags.a = 'b'", "models:/m-1"):
        with pytest.raises(InvalidInput):
            store.resolve_model_version(wrong)
    with pytest.raises(InvalidInput):  # a source is kept: it names a version, not a question
        store.create_model_version("lily", "models:/iris?tags.stage = 'ready'")


# -- from runs to models and back


def put_model(store: Store, run_id: str, path: str) -> None:
    open_artifacts(store.artifact_root(run_id)).put_bytes(b"flavors: {}", f"{path}/MLmodel")


def test_a_version_is_made_of_what_a_uri_names(store: Store, run_id: str) -> None:
    put_model(store, run_id, "deep/model")
    net = store.create_logged_model("0", "net", run_id).model_id
    for uri in (
        f"runs:/{run_id}/deep/model",
        f"runs:/{run_id[:9]}/deep/model",
        "runs:/latest/deep/model",
        "runs:/latest",
    ):
        made = registry.register(store, uri, "iris")
        assert (made.source, made.run_id, made.model_id) == (f"runs:/{run_id}/deep/model", run_id, "")
    assert registry.register(store, "latest", "iris", alias="best").aliases == ("best",)
    store.log_outputs(run_id, [LoggedModelOutput(net)])
    for uri in (f"runs:/{run_id}/net", f"models:/{net}"):
        made = registry.register(store, uri, "iris", tags={"a": 1}, description="text")
        assert (made.source, made.run_id, made.model_id) == (f"models:/{net}", run_id, net)
    assert (made.version, made.tags, made.description) == ("7", {"a": "1"}, "text")
    copied = registry.register(store, "models:/iris@best", "lily")
    assert (copied.source, copied.run_id, copied.version) == ("models:/iris/5", run_id, "1")
    with pytest.raises(InvalidInput, match="2 models") as caught:
        registry.register(store, f"runs:/{run_id}", "iris")
    assert "deep/model" in caught.value.hint
    assert "net" in caught.value.hint


def test_what_names_no_model_is_not_registered(store: Store, run_id: str) -> None:
    for uri, error in (
        (f"runs:/{run_id}/nix", NotFound),
        (f"runs:/{run_id}", NotFound),
        ("runs:/nix/model", NotFound),
        ("models:/nix/1", NotFound),
        ("models:/nix", InvalidInput),
        ("/etc", InvalidInput),
        ("", NotFound),
        ("file:///etc", InvalidInput),
    ):
        with pytest.raises(error):
            registry.register(store, uri, "iris")
    assert store.search_registered_models() == []


def test_a_path_into_the_artifacts_of_a_run_is_that_model(root: Path) -> None:
    with LOCAL_KINDS["sqlite"](root) as store:
        run_id = store.create_run("0").info.run_id
        put_model(store, run_id, "model")
        made = registry.register(store, f"{store.artifact_root(run_id)}/model", "iris")
        assert made.source == f"runs:/{run_id}/model"
        other = root.parent / "other" / "0" / run_id / "artifacts" / "model"
        other.mkdir(parents=True)
        with pytest.raises(InvalidInput, match="not among the artifacts"):
            registry.register(store, str(other), "iris")


def test_a_run_knows_the_versions_of_its_models(store: Store, run_id: str) -> None:
    put_model(store, run_id, "model")
    put_model(store, run_id, "other")
    net = store.create_logged_model("0", "net", run_id).model_id
    store.log_outputs(run_id, [LoggedModelOutput(net)])
    registry.register(store, f"runs:/{run_id}/model", "iris", alias="best")
    registry.register(store, "models:/iris/1", "lily")
    registry.register(store, f"models:/{net}", "iris")
    store.create_model_version("iris", "s3://b/m", run_id)
    run = store.get_run(run_id)
    found = registry.models_of_run(store, run, open_artifacts(run.info.artifact_uri, store=store.root).walk())
    assert [(model.path, [(each.name, each.version, each.aliases) for each in model.versions]) for model in found] == [
        ("model", [("iris", "1", ("best",)), ("lily", "1", ())]),
        ("other", []),
        ("net", [("iris", "2", ())]),
        ("", [("iris", "3", ())]),
    ]


def test_a_version_tells_what_it_came_from(store: Store, run_id: str) -> None:
    put_model(store, run_id, "model")
    tags = {"mlflow.source.name": "train.py", "mlflow.source.git.commit": "abc", "mlcli.env.python": "3.11.7"}
    store.log_batch(
        run_id, [Metric("f1", 0.9, 5)], [Param("C", "10")], [RunTag(key, value) for key, value in tags.items()]
    )
    store.log_inputs(
        run_id, [DatasetInput(Dataset("wine", "d1", "local", "wine.csv"), {"mlflow.data.context": "train"})]
    )
    open_artifacts(store.artifact_root(run_id)).put_bytes(b"numpy==2.0\n", registry.LOCK)
    version = registry.register(store, f"runs:/{run_id}/model", "iris")
    came = registry.lineage(store, version, registry.run_of(store, version))
    assert came["run"]["run_id"] == run_id
    assert came["project"] == {"source": "train.py", "commit": "abc"}
    assert came["environment"] == {"python": "3.11.7", "lock": f"runs:/{run_id}/{registry.LOCK}"}
    assert [(item["name"], item["digest"], item["context"]) for item in came["data"]] == [("wine", "d1", "train")]
    assert (came["params"], came["metrics"]) == ({"C": "10"}, {"f1": 0.9})
    alone = registry.register(store, "s3://b/m", "iris")
    assert registry.run_of(store, alone) is None
    assert registry.lineage(store, alone, None) == {}


def test_files_of_a_version_are_read_on_this_machine_only(store: Store, run_id: str) -> None:
    store.create_registered_model("iris")
    for source in ("s3://b/m", "http://h/m", "prompt-template", "mlflow-artifacts://h/0/x"):
        made = store.create_model_version("iris", source)
        with pytest.raises(InvalidInput, match="not kept here"):
            store.get_model_version_folder("iris", made.version)
    made = store.create_model_version("iris", f"runs:/{run_id}/model")
    folder = Path(store.artifact_root(run_id), "model")
    assert store.get_model_version_folder("iris", made.version) == str(folder)


def test_a_model_named_below_a_run_may_be_a_logged_model(store: Store, run_id: str) -> None:
    model = store.create_logged_model("0", "net", run_id)
    store.create_registered_model("iris")
    store.create_model_version("iris", f"runs:/{run_id}/net/data")
    assert store.get_model_version_folder("iris", "1") == f"{model.artifact_location}/data"
    Path(store.artifact_root(run_id), "net").mkdir(parents=True)
    assert store.get_model_version_folder("iris", "1") == f"{store.artifact_root(run_id)}/net/data"


def test_files_of_a_registered_model_are_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))
    with LOCAL_KINDS["sqlite"](root) as store:
        run_id = store.create_run("0").info.run_id
        folder = Path(store.artifact_root(run_id), "model")
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text("flavors: {}")
        store.create_registered_model("iris")
        store.create_model_version("iris", f"runs:/{run_id}/model")
        store.create_model_version("iris", str(folder), run_id)
    for version in ("/1", "/2", "/latest", "?version_number = 1"):
        assert Path(artifacts.resolve(f"models:/iris{version}"), "MLmodel").read_text() == "flavors: {}"
    with LOCAL_KINDS["sqlite"](root) as store:
        store.create_model_version("iris", "http://127.0.0.1:9/m")
    with pytest.raises(InvalidInput, match="kept elsewhere"):
        artifacts.resolve("models:/iris/3")


@pytest.mark.parametrize("strange", ["a\0b", "\ud800", "x" * 100_000, "' OR 1=1 --", "%", "", "Ａ"])
def test_a_strange_name_is_looked_up_like_any_other(
    store: Store, new_version: Callable[..., ModelVersion], strange: str
) -> None:
    new_version()
    model = store.create_logged_model("0", "net").model_id
    for call in (
        lambda: store.get_registered_model(strange),
        lambda: store.get_model_version(strange, "1"),
        lambda: store.get_model_version_by_alias("iris", strange),
        lambda: store.get_latest_versions(strange),
        lambda: store.delete_registered_model(strange),
        lambda: store.create_model_version(strange, "s3://b/m"),
        lambda: store.create_model_version("iris", "s3://b/m", strange or "-"),
        lambda: store.get_logged_model(strange),
        lambda: store.finalize_logged_model(strange, "READY"),
        lambda: store.create_logged_model("0", "net", strange or "-"),
        lambda: store.delete_logged_model_tag(model, strange),
        lambda: store.move_run(strange, "0"),
    ):
        with pytest.raises((NotFound, InvalidInput)):
            call()
    for quiet in (
        lambda: store.delete_registered_model_alias("iris", strange),
        lambda: store.delete_registered_model_tag("iris", strange),
        lambda: store.delete_model_version_tag("iris", "1", strange),
    ):
        with suppress(InvalidInput):
            quiet()
    assert [version.version for version in store.search_model_versions()] == ["1"]


def test_a_model_that_mlflow_3_logged_is_found_by_its_name_in_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))
    with LOCAL_KINDS["sqlite"](root) as store:
        run_id = store.create_run("0").info.run_id
        made = [store.create_logged_model("0", "net", run_id) for _ in range(3)]
        for step, model in enumerate(made):
            folder = Path(model.artifact_location)
            folder.mkdir(parents=True)
            (folder / "MLmodel").write_text(f"step: {step}")
            store.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
        store.delete_logged_model(made[2].model_id)
    assert Path(artifacts.resolve(f"runs:/{run_id}/net/MLmodel")).read_text() == "step: 1"
    with pytest.raises(NotFound):
        artifacts.resolve(f"runs:/{run_id}/other")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(LOCAL_KINDS))
def test_models_logged_at_once_all_come_into_the_history(kind: str, root: Path) -> None:
    with LOCAL_KINDS[kind](root) as store:
        run_id = store.create_run("0").info.run_id

    def log(writer: int) -> None:
        with LOCAL_KINDS[kind](root) as own:
            for number in range(5):
                own.record_logged_model(run_id, {"artifact_path": f"{writer}.{number}", "flavors": {}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    with LOCAL_KINDS[kind](root) as store:
        history = json.loads(store.get_run(run_id).data.tags["mlflow.log-model.history"])
    assert len({model["artifact_path"] for model in history}) == 20
