"""Coming over and going back: what is read from MLflow, merged, packed into a bundle and put back."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mlflow_folders as theirs
import pytest
from mlflow_folders import CHILD, EXPERIMENT, RUN, TIME

from mlcli.entities import Metric, Param, ViewType
from mlcli.errors import InvalidInput, MlcliError, NotFound
from mlcli.store import Store, open_store
from mlcli.transfer import bundle
from mlcli.transfer.bundle import Bundle
from mlcli.transfer.filestore import FileStore, meta, parse_metric
from mlcli.transfer.into import FILES_AT, Report, Wishes, bring
from mlcli.transfer.mlflowdb import MlflowDatabase
from mlcli.transfer.ours import OurStore
from mlcli.transfer.sources import open_sources


@pytest.fixture
def here(root: Path, open_at):
    """The store that things are brought into."""
    with open_at(root) as store:
        yield store


@pytest.fixture
def there(quick_path: Path) -> Path:  # on the disk that `here` is on: files can be linked
    return quick_path / "there" / "mlruns"


def whys(report: Report) -> list[str]:
    return [f"{trouble.what}: {trouble.why}" for trouble in report.troubles]


# -- the file store


def test_a_run_comes_with_all_it_has(here: Store, there: Path) -> None:
    report = bring(FileStore(str(theirs.full(there))), here)
    run = here.get_run(RUN)
    assert report.complete, whys(report)
    assert (run.info.experiment_id, run.info.run_name, run.info.user_id) == (EXPERIMENT, "brisk-heron-1", "ann")
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", TIME, TIME + 1000)
    assert run.data.params == {"alpha": "0.5", "data/path": "train.csv", "text": "two\nlines\n"}
    assert run.data.metrics == {"loss": 0.25, "val/acc": 0.75}
    history = here.get_metric_history(RUN, "loss")
    assert [(point.step, point.timestamp) for point in history] == [(step, TIME + step) for step in range(4)]
    assert [history[0].value, history[2].value, history[3].value] == [1.5, math.inf, 0.25]
    assert math.isnan(history[1].value)
    (item,) = run.inputs.dataset_inputs
    assert (item.dataset.name, item.dataset.schema, item.tags) == (
        "wine",
        '{"a": 1}',
        {"mlflow.data.context": "training"},
    )
    assert Path(here.artifact_root(RUN), "plots", "loss.txt").read_text() == "a picture"


def test_stages_parents_and_tags_of_experiments_come(here: Store, there: Path) -> None:
    theirs.full(there)
    theirs.run(theirs.experiment(there, "5", "old", "deleted"), "a" * 32, stage="deleted")
    bring(FileStore(str(there)), here)
    child = here.get_run(CHILD)
    assert (child.info.lifecycle_stage, child.info.status) == ("deleted", "FAILED")
    assert child.data.tags["mlflow.parentRunId"] == RUN
    assert here.get_experiment(EXPERIMENT).tags == {"team": "blue"}
    assert here.get_experiment("5").lifecycle_stage == "deleted"
    here.restore_run(CHILD)


def test_the_registry_comes_with_its_numbers(here: Store, there: Path) -> None:
    bring(FileStore(str(theirs.full(there))), here)
    assert [version.version for version in here.search_model_versions("name = 'scorer'")] == ["3", "1"]
    model = here.get_registered_model("scorer")
    assert (model.description, dict(model.tags), dict(model.aliases)) == ("scores", {"owner": "ann"}, {"champion": "3"})
    version = here.get_model_version("scorer", "3")
    assert (version.current_stage, version.run_id, dict(version.tags)) == ("Production", RUN, {"n": "three"})
    assert here.create_model_version("scorer", f"runs:/{RUN}/model", RUN).version == "4"


def test_a_version_whose_source_was_a_folder_is_found_in_the_run(here: Store, there: Path) -> None:
    bring(FileStore(str(theirs.full(there))), here)
    assert here.get_model_version_download_uri("scorer", "1") in (
        f"runs:/{RUN}/model",
        f"{here.artifact_root(RUN)}/model",
    )


def test_a_version_whose_source_is_a_file_of_this_machine_reaches_no_file(
    here: Store, there: Path, tmp_path: Path
) -> None:
    """A made-up store must not make a server hand out what lies elsewhere on its machine."""
    theirs.write(tmp_path / "secrets" / "id_rsa", "a key")
    theirs.full(there)
    path = there / "models" / "scorer" / "version-1" / "meta.yaml"
    path.write_text(
        path.read_text().replace(
            f"source: file://{there}/{EXPERIMENT}/{RUN}/artifacts/model", f"source: {tmp_path}/secrets"
        )
    )
    report = bring(FileStore(str(there)), here)
    assert "version 1 has no files here: its source is" in "".join(whys(report))
    assert here.get_model_version("scorer", "1").source == f"{tmp_path}/secrets"
    with pytest.raises(MlcliError, match="no files here"):
        here.get_model_version_download_uri("scorer", "1")


def test_a_copied_version_finds_the_files_of_what_it_copies(here: Store, there: Path) -> None:
    theirs.full(there)
    copy = there / "models" / "a copy" / "version-1" / "meta.yaml"
    original = there / "models" / "scorer" / "version-3" / "meta.yaml"
    theirs.write(copy, original.read_text().replace("version: 3", "version: 1").replace("name: scorer", "name: a copy"))
    text = "".join(
        "source: models:/scorer/3\n" if line.startswith("source:") else line
        for line in copy.read_text().splitlines(True)
    )
    copy.write_text(text)
    theirs.write(there / "models" / "a copy" / "meta.yaml", f"creation_timestamp: {TIME}\nname: a copy\n")
    assert bring(FileStore(str(there)), here).complete
    copied = here.get_model_version_download_uri("a copy", "1")
    assert copied == here.get_model_version_download_uri("scorer", "3")


def test_again_nothing_comes_twice(here: Store, there: Path) -> None:
    source = FileStore(str(theirs.full(there)))
    first = bring(source, here).counts
    before = (here.get_run(RUN), here.counts(), here.get_registered_model("scorer"))
    again = bring(source, here).counts
    assert first["runs_added"] == again["runs_here_already"] == 2
    assert {name: number for name, number in again.items() if number} == {
        "experiments_joined": 1,
        "runs_here_already": 2,
    }
    assert (here.get_run(RUN), here.counts(), here.get_registered_model("scorer")) == before


def test_an_open_run_is_brought_up_to_date(here: Store, there: Path) -> None:
    folder = theirs.experiment(there)
    place = theirs.run(folder, status=1)
    theirs.write(place / "metrics" / "loss", f"{TIME} 1.0 0\n")
    bring(FileStore(str(there)), here)
    assert here.get_run(RUN).info.status == "RUNNING"
    theirs.write(place / "metrics" / "loss", f"{TIME} 1.0 0\n{TIME} 0.5 1\n")
    theirs.write(place / "params" / "late", "1")
    (place / "meta.yaml").write_text((place / "meta.yaml").read_text().replace("status: 1", "status: 3"))
    report = bring(FileStore(str(there)), here)
    assert report.counts["runs_updated"] == 1
    assert here.get_run(RUN).info.status == "FINISHED"
    assert here.get_run(RUN).data.params == {"late": "1"}
    assert [point.value for point in here.get_metric_history(RUN, "loss")] == [1.0, 0.5]


def test_people_of_one_experiment_are_joined_and_ids_kept_where_free(here: Store, tmp_path: Path) -> None:
    theirs.run(theirs.experiment(tmp_path / "ann", "1", "wine"), "a" * 32)
    theirs.run(theirs.experiment(tmp_path / "bob", "2", "wine"), "b" * 32)
    theirs.run(theirs.experiment(tmp_path / "cy", "1", "beer"), "c" * 32)
    for name in ("ann", "bob", "cy"):
        report = bring(FileStore(str(tmp_path / name)), here)
    assert [here.get_run(letter * 32).info.experiment_id for letter in "abc"] == ["1", "1", "2"]
    (place,) = report.places
    assert (place.source_id, place.experiment_id, place.how) == ("1", "2", "renumbered")


def test_a_renamed_experiment_is_known_by_its_runs(here: Store, there: Path) -> None:
    theirs.run(theirs.experiment(there), RUN)
    bring(FileStore(str(there)), here)
    here.rename_experiment(EXPERIMENT, "reds")
    theirs.run(there / EXPERIMENT, CHILD)
    bring(FileStore(str(there)), here)
    assert here.get_run(CHILD).info.experiment_id == EXPERIMENT
    assert here.find_experiment("wine") is None


def test_new_experiments_are_counted_on_below_long_ids(here: Store, there: Path) -> None:
    theirs.experiment(there)
    bring(FileStore(str(there)), here)
    assert len(here.create_experiment("next")) < 4


def test_versions_of_two_people_get_numbers_of_their_own(here: Store, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        theirs.full(tmp_path / name)
    for meta_file in (tmp_path / "bob" / "models").rglob("version-*/meta.yaml"):
        meta_file.write_text(
            meta_file.read_text().replace(f"creation_timestamp: {TIME}", f"creation_timestamp: {TIME + 9}")
        )
    for path in (tmp_path / "bob" / "models" / "scorer").glob("version-*/meta.yaml"):
        path.write_text(path.read_text().replace(RUN, CHILD))
    bring(FileStore(str(tmp_path / "ann")), here)
    report = bring(FileStore(str(tmp_path / "bob")), here)
    assert {version.version for version in here.search_model_versions("name = 'scorer'")} == {"1", "3", "4", "5"}
    assert here.get_registered_model("scorer").aliases == {"champion": "3"}
    assert any("its version 1 is version 4 here" in why for why in whys(report))
    assert any("the alias 'champion' names version 3 here" in why for why in whys(report))
    assert not report.complete


def test_what_cannot_come_is_told_and_the_rest_comes(here: Store, there: Path) -> None:
    folder = theirs.experiment(there)
    place = theirs.run(folder)
    theirs.write(place / "params" / "long", "x" * 6001)
    theirs.write(place / "params" / "fine", "1")
    theirs.write(place / "metrics" / "loss", f"{TIME} 1.0 0\nnot a point\n{TIME} 2.0 1\n")
    (place / "params" / "latin").write_bytes(b"caf\xe9")
    theirs.write(theirs.run(folder, "b" * 32) / "meta.yaml", "run_id: [\n")
    (theirs.run(folder, "c" * 32) / "meta.yaml").unlink()
    os.rmdir(theirs.run(folder, "d" * 32) / "artifacts")
    theirs.write(there / "77" / "meta.yaml", "")
    cut = theirs.run(folder, "e" * 32) / "meta.yaml"
    cut.write_text(cut.read_text().partition("start_time")[0])
    report = bring(FileStore(str(there)), here)
    told = "\n".join(whys(report))
    assert here.get_run(RUN).data.params == {"fine": "1"}
    assert [point.value for point in here.get_metric_history(RUN, "loss")] == [1.0, 2.0]
    assert here.get_run("d" * 32).info.status == "FINISHED"
    assert not report.complete
    for why in (
        "the value of param 'long' has 6001 characters",
        "metric loss: line 2 is not a point: b'not a point'",
        "params/latin: it is not UTF-8 text (byte 3)",
        f"run {'b' * 32}: its meta.yaml is no YAML",
        f"run {'c' * 32}: its folder has no meta.yaml",
        f"run {'d' * 32}: its files did not come: there is no folder",
        "experiment 77: its meta.yaml is empty",
        f"run {'e' * 32}: its meta.yaml lacks 'status': was it cut?",
    ):
        assert why in told, told


def test_a_folder_of_artifacts_whose_records_are_in_a_database_is_no_experiment(here: Store, there: Path) -> None:
    theirs.full(there)
    (there / "1" / ("a" * 32) / "artifacts").mkdir(parents=True)
    (there / "1" / "models" / "m-1" / "artifacts").mkdir(parents=True)
    assert bring(FileStore(str(there)), here).complete
    (there / "2").mkdir()
    assert [f"experiment 2: {there}/2 has no meta.yaml"] == whys(bring(FileStore(str(there)), here))


def test_a_store_that_was_moved_has_its_files_beside_it(here: Store, there: Path) -> None:
    theirs.full(there)
    moved = there.rename(there.parent / "elsewhere")
    report = bring(FileStore(str(moved)), here)
    assert report.complete
    assert Path(here.artifact_root(RUN), "plots", "loss.txt").exists()


def test_a_made_up_artifact_uri_copies_nothing_of_this_machine(here: Store, there: Path, tmp_path: Path) -> None:
    theirs.write(tmp_path / "secrets" / "id_rsa", "a key")
    place = theirs.run(theirs.experiment(there))
    os.rmdir(place / "artifacts")
    path = place / "meta.yaml"
    path.write_text(path.read_text().replace(f"file://{place}/artifacts", f"file://{tmp_path}/secrets"))
    report = bring(FileStore(str(there)), here)
    assert "does not look like the folder of" in "".join(whys(report))
    assert not os.path.exists(here.artifact_root(RUN))


def test_links_out_of_the_artifacts_are_left_and_told(here: Store, there: Path, tmp_path: Path) -> None:
    theirs.write(tmp_path / "secret", "a key")
    place = theirs.run(theirs.experiment(there))
    (place / "artifacts" / "innocent.txt").symlink_to(tmp_path / "secret")
    theirs.write(place / "artifacts" / "fine.txt", "fine")
    report = bring(FileStore(str(there)), here)
    assert "innocent.txt was left: a link that leads out of the folder" in "".join(whys(report))
    assert os.listdir(here.artifact_root(RUN)) == ["fine.txt"]


def test_files_can_be_linked_or_left_and_fetched_later(here: Store, there: Path) -> None:
    source = FileStore(str(theirs.full(there)))
    bring(source, here, Wishes(artifacts="none"))
    assert not os.path.exists(here.artifact_root(RUN))
    assert FILES_AT in here.get_run(RUN).data.tags
    report = bring(source, here, Wishes(artifacts="link"))
    assert report.counts["artifact_files"] == 1
    assert FILES_AT not in here.get_run(RUN).data.tags
    theirs_file = there / EXPERIMENT / RUN / "artifacts" / "plots" / "loss.txt"
    assert os.path.samefile(theirs_file, os.path.join(here.artifact_root(RUN), "plots", "loss.txt"))


def test_a_dry_run_writes_nothing(here: Store, there: Path) -> None:
    source = FileStore(str(theirs.full(there)))
    report = bring(source, here, Wishes(dry_run=True))
    assert (report.counts["runs_added"], report.counts["metric_points"], report.counts["model_versions"]) == (2, 6, 2)
    assert len(here.search_experiments(view_type=ViewType.ALL)) == 1
    with pytest.raises(NotFound):
        here.get_run(RUN)


def test_an_mlruns_of_mlflow_becomes_a_store_in_place(there: Path) -> None:
    """The folder keeps its ids, so the files are where they belong already."""
    theirs.full(there)
    (source,) = open_sources(str(there), str(there))
    with open_store(str(there)) as store:
        report = bring(source, store)
        assert (report.complete, report.counts["runs_added"], report.counts["artifact_files"]) == (True, 2, 0)
        assert Path(store.artifact_root(RUN), "plots", "loss.txt").read_text() == "a picture"
        store.create_run("0")
    with open_store(str(there)) as store:
        assert bring(FileStore(str(there)), store).complete


# -- the small readers


@pytest.mark.parametrize(
    "text",
    [
        "name: wine\nexperiment_id: '961060126594141107'\ncreation_time: 1700000000000\n",
        "name: two words here\nend_time: null\ntags: []\nsource_name: ''\n",
        "name: 'it''s'\nvalue: \"a\\tb\"\n",
        "name: long words that the dumper\n  folds at eighty\n",
        "name: 'true'\nother: yes\nnumber: '0012'\noctal: 010\nfloat: 1.5\ndate: 2026-01-01\n",
        "a: ~\nb: .5\nc: 0x1f\nd: 1_000\ne: off\n",
        "run_id: 0123456789abcdef0123456789abcdef\nuri: file:///a b/c\n",
        "tags:\n  a: b\nname: x\n",
    ],
)
def test_a_meta_file_reads_as_yaml_reads_it(text: str) -> None:
    import yaml

    assert meta(text) == yaml.safe_load(text)


def test_metric_lines_of_every_age_are_read() -> None:
    told: list[str] = []
    points = parse_metric(b"5 1.5 0\n6 2.5\n7 nan 2 wine abcd\n\n8 -inf 3", told.append)
    assert (points.times, points.steps, points.nans, told) == ([5, 6, 7, 8], [0, 0, 2, 3], [0, 0, 1, 0], [])
    assert points.values == [1.5, 2.5, 0.0, -math.inf]


# -- the database


def test_an_old_database_is_read_and_not_changed(here: Store, tmp_path: Path) -> None:
    path = theirs.database(
        tmp_path / "mlflow.db",
        {RUN: {"params": {"alpha": "1"}, "metrics": [("loss", 0.5, 0, 0), ("loss", 0.0, 1, 1)]}},
    )
    theirs.write(tmp_path / "mlruns" / "7" / RUN / "artifacts" / "a.txt", "a")
    before = path.read_bytes()
    source = MlflowDatabase(str(path))
    report = bring(source, here)
    source.close()
    run = here.get_run(RUN)
    assert report.complete, whys(report)
    assert (run.info.experiment_id, run.info.run_name, run.data.params) == ("7", "from sql", {"alpha": "1"})
    assert math.isnan(here.get_metric_history(RUN, "loss")[1].value)
    assert Path(here.artifact_root(RUN), "a.txt").exists()
    assert path.read_bytes() == before
    assert [name for name in os.listdir(tmp_path) if name.startswith("mlflow")] == ["mlflow.db"]


def test_a_run_whose_files_are_in_a_bucket_says_so(here: Store, tmp_path: Path) -> None:
    uri = f"s3://bucket/7/{RUN}/artifacts"
    source = MlflowDatabase(str(theirs.database(tmp_path / "mlflow.db", {RUN: {"artifact_uri": uri}})))
    report = bring(source, here)
    source.close()
    assert f"its files are at {uri}, which mlcli does not read" in "".join(whys(report))
    assert here.get_run(RUN).data.tags[FILES_AT] == uri


def test_what_is_no_source_is_told(tmp_path: Path) -> None:
    theirs.write(tmp_path / "notes.txt", "hello")
    (tmp_path / "empty").mkdir()
    for word, error, why in (
        ("notes.txt", InvalidInput, "neither a SQLite database nor a bundle"),
        ("empty", InvalidInput, "there is nothing to import"),
        ("gone", NotFound, "there is no"),
        ("postgresql://host/db", InvalidInput, "does not read MLflow's tables in postgresql"),
    ):
        with pytest.raises(error, match=why):
            open_sources(str(tmp_path / word) if ":" not in word else word, str(tmp_path / "mlruns"))


# -- bundles


def packed(store: Store, path: Path, only: set[str] | None = None) -> dict[str, int]:
    troubles: list[object] = []
    counts = bundle.write(OurStore(store.root, store=store, only=only), str(path), troubles.append)
    assert not troubles
    return counts


def test_a_bundle_brings_everything_back(here: Store, there: Path, tmp_path: Path) -> None:
    bring(FileStore(str(theirs.full(there))), here)
    model = here.create_logged_model(EXPERIMENT, "line", RUN, {"t": "u"}, {"k": "v"}, "lines")
    theirs.write(Path(model.artifact_location) / "MLmodel", "flavors: {}\n")
    here.finalize_logged_model(model.model_id, "READY")
    points = [Metric("long", step / 7, TIME + step, step) for step in range(25_000)]
    open_run = here.create_run(EXPERIMENT).info.run_id
    here.log_batch(open_run, points, [Param("a", "b")])
    packed(here, tmp_path / "all.zip")
    source = Bundle(str(tmp_path / "all.zip"))
    with open_store(str(tmp_path / "other")) as other:
        report = bring(source, other)
        assert report.complete, whys(report)
        for run_id in (RUN, CHILD, open_run):
            one, two = here.get_run(run_id), other.get_run(run_id)
            assert two == one._replace(info=two.info)
            assert two.info == one.info._replace(artifact_uri=two.info.artifact_uri)
        assert other.get_metric_history(open_run, "long") == here.get_metric_history(open_run, "long")
        assert other.get_registered_model("scorer") == here.get_registered_model("scorer")
        found = other.get_logged_model(model.model_id)
        assert found == here.get_logged_model(model.model_id)._replace(artifact_location=found.artifact_location)
        assert Path(found.artifact_location, "MLmodel").read_text() == "flavors: {}\n"
        assert Path(other.artifact_root(RUN), "plots", "loss.txt").read_text() == "a picture"
        assert bring(source, other).counts["runs_added"] == 0
    source.close()


def test_a_bundle_of_one_run_holds_nothing_else(here: Store, there: Path, tmp_path: Path) -> None:
    bring(FileStore(str(theirs.full(there))), here)
    here.create_run(here.create_experiment("private"))
    assert packed(here, tmp_path / "one.zip", {CHILD}) == {
        "runs": 1,
        "metric_points": 0,
        "artifact_files": 0,
        "artifact_bytes": 0,
        "logged_models": 0,
        "models": 0,
    }
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        text = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "private" not in text
    assert "train.csv" not in text


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("../../outside.txt", b"x", "which no bundle has"),
        (f"artifacts/{RUN}/../../../outside.txt", b"x", "which no bundle has"),
        ("/etc/outside.txt", b"x", "which no bundle has"),
        (f"artifacts/{RUN}/a\\..\\b", b"x", "which no bundle has"),
        (f"artifacts/{RUN}/%2e%2e/%2e%2e/b", b"x", "which no bundle has"),
        ("registry.jsonl", b'{"registered": 3}\n', "which no bundle has"),  # a second member of one name
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_bundle_with_a_member_that_leads_elsewhere_is_refused(
    here: Store, tmp_path: Path, name, content, why
) -> None:
    path = tmp_path / "bad.zip"
    packed(here, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, content)
    with pytest.raises(InvalidInput, match=why):
        Bundle(str(path))


def test_a_link_in_a_bundle_is_refused(here: Store, tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    packed(here, path)
    member = zipfile.ZipInfo(f"artifacts/{RUN}/link")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InvalidInput, match="no plain file"):
        Bundle(str(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"run_id":"', '"run_id":"../../'),
        ('"alpha":"0.5"', '"alpha":0.5'),
        (f'"start_time":{TIME}', '"start_time":-5'),
        ('"steps":[', '"steps":["x",'),
        ('"values":[1.5', '"values":["seven"'),
        ('"params":{', '"params":[{'),
    ],
)
def test_a_bundle_whose_lines_make_no_sense_brings_no_nonsense(
    here: Store, there: Path, tmp_path: Path, old, new
) -> None:
    bring(FileStore(str(theirs.full(there))), here)
    packed(here, tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for name in good.namelist():
            text = good.read(name).decode()
            bad.writestr(name, text.replace(old, new) if name.startswith("experiments/") else text)
    source = Bundle(str(tmp_path / "bad.zip"))
    with open_store(str(tmp_path / "other")) as other:
        try:
            complete = bring(source, other).complete
        except InvalidInput:
            complete = False
        assert not complete
        assert other.counts()["runs"] < 2 or "loss" not in other.get_run(RUN).data.metrics
    source.close()
    assert not list(tmp_path.glob("**/outside*"))


def test_a_cut_bundle_is_told(here: Store, there: Path, tmp_path: Path) -> None:
    bring(FileStore(str(theirs.full(there))), here)
    packed(here, tmp_path / "whole.zip")
    data = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidInput, match="not a whole bundle"):
        Bundle(str(tmp_path / "cut.zip"))


def test_another_zip_is_no_bundle(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("hello.txt", "x")
    with pytest.raises(InvalidInput, match="lacks its member"):
        Bundle(str(tmp_path / "x.zip"))


# -- the command line


def test_the_commands_carry_a_run_from_mlflow_to_another_store(mlcli, there: Path) -> None:
    theirs.full(there)
    done = mlcli("import", there)
    assert done.stdout.splitlines()[1].split("\t") == ["wine", EXPERIMENT, EXPERIMENT, "created"]
    assert "came: 2 runs, 6 metric points, 1 file (9 B), 2 model versions" in done.stderr
    assert "1 run, 6 metric points, 1 file went to out.zip" in mlcli("export", RUN[:6], "-o", "out.zip").stderr
    other = {**os.environ, "MLCLI_TRACKING_URI": "other"}
    report = json.loads(mlcli("import", "out.zip", "--json", env=other).stdout)
    assert report["sources"][0]["runs_added"] == 1
    assert json.loads(mlcli("runs", "show", RUN, "--json", env=other).stdout)["data"]["params"]["alpha"] == "0.5"
    assert "1 run was here already" in mlcli("import", "mlruns", env=other).stderr


def test_an_import_that_loses_something_exits_with_1(mlcli, there: Path) -> None:
    theirs.write(theirs.run(theirs.experiment(there)) / "params" / "long", "x" * 6001)
    assert "warning: run" in mlcli("import", there, check=1).stderr
    assert "would come: 0 runs" in mlcli("import", there, "--dry-run").stderr


def test_a_dry_run_of_the_command_leaves_no_store(mlcli, there: Path) -> None:
    assert "would come: 2 runs" in mlcli("import", theirs.full(there), "--dry-run").stderr
    assert not os.path.exists("mlruns")


def test_wrong_words_are_told(mlcli, there: Path) -> None:
    theirs.full(there)
    assert "there is no gone" in mlcli("import", "gone", check=3).stderr
    assert "artifacts cannot be 'move'" in mlcli("import", there, "--artifacts", "move", check=2).stderr
    assert "has no experiment 'beer'" in mlcli("import", there, "-n", "beer", check=2).stderr
    assert "say where to" in mlcli("export", check=2).stderr
    assert "no run matches" in mlcli("export", "-o", "x.zip", "--filter", "params.a = 'b'", check=3).stderr
    assert not os.path.exists("x.zip")


def test_an_import_that_was_killed_goes_on(root: Path, there: Path) -> None:
    folder = theirs.experiment(there)
    ids = [f"{number:032x}".replace("0", "a", 1) for number in range(3000)]
    for run_id in ids:
        place = theirs.run(folder, run_id)
        theirs.write(place / "metrics" / "m", f"{TIME} 1.0 0\n")
        theirs.write(place / "artifacts" / "f.txt", "content")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "--tracking-uri", str(root), "import", str(there)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (root / "mlcli.db").exists():
            with open_store(str(root)) as store:
                if store.counts()["runs"] >= 500:
                    break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open_store(str(root)) as store:
        report = bring(FileStore(str(there)), store)
        assert report.complete
        assert store.counts()["runs"] == store.counts()["metric_points"] == 3000
        assert all(os.path.exists(os.path.join(store.artifact_root(run_id), "f.txt")) for run_id in ids[::100])
