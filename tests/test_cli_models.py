"""`mlcli models`: models by name on the command line, from a run's best model to the files of a champion."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mlcli.artifacts import open_artifacts
from mlcli.cli import boundary, render
from mlcli.entities import Metric, Param, RunTag
from mlcli.store import open_store


class Done(NamedTuple):
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Cli = Callable[..., Done]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("models", "list", code=0, stdin="")`` runs a command in this process, through its boundary."""

    def call(*words: str, code: int = 0, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        found = boundary.run(boundary.take_apart(words))
        done = Done(*capsys.readouterr())
        assert found == code, done
        return done

    return call


@pytest.fixture
def runs() -> list[str]:
    """Three runs with a model each, the oldest first; the second has the best f1, the third the least loss."""
    made = []
    with open_store() as store:
        for place, (f1, loss) in enumerate([(0.7, 3.0), (0.9, 2.0), (0.8, 1.0)]):
            run = store.create_run("0", start_time=1_700_000_000_000 + place, run_name=f"run {place}").info
            store.log_batch(
                run.run_id,
                [Metric("f1", f1, 1), Metric("loss", loss, 1)],
                [Param("C", str(place)), Param("solver", "lbfgs")],
                [RunTag("mlflow.source.name", "train.py"), RunTag("mlflow.source.git.commit", "c0ffee")],
            )
            files = open_artifacts(run.artifact_uri)
            files.put_bytes(b"flavors: {}", "model/MLmodel")
            files.put_bytes(f"numpy==2.{place}\n".encode(), "environment/requirements.txt")
            store.update_run(run.run_id, status="FINISHED")
            made.append(run.run_id)
    return made


@pytest.fixture
def wine(cli: Cli, runs: list[str]) -> list[str]:
    """The runs, each registered as a version of `wine`; the second is the champion, the first two are ready."""
    for run_id, more in zip(runs, (["-t", "stage=ready"], ["-t", "stage=ready", "-a", "champion"], []), strict=True):
        cli("models", "register", f"runs:/{run_id}/model", "wine", *more)
    return runs


def eyes(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(render, "on_terminal", lambda _stream=None: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")


# --- the best run


@pytest.mark.parametrize(
    ("option", "key", "place"),
    [
        ("--best", "metrics.f1", 1),
        ("--worst", "metrics.f1", 0),
        ("--best", "metrics.loss", 2),
        ("--worst", "metrics.loss", 0),
        ("--best", "metrics.f1 ASC", 0),
        ("--best", "metrics.loss desc", 0),
        ("--worst", "metrics.f1 asc", 1),
    ],
)
def test_the_best_run_is_its_id_alone(cli: Cli, runs: list[str], option: str, key: str, place: int) -> None:
    assert cli("runs", "search", option, key).out == f"{runs[place]}\n"


def test_the_best_run_is_one_of_those_that_match(cli: Cli, runs: list[str]) -> None:
    assert cli("runs", "search", "params.C != '1'", "--best", "metrics.f1").out == f"{runs[2]}\n"
    found = json.loads(cli("runs", "search", "--best", "metrics.f1", "--json").out)
    assert found["info"]["run_id"] == runs[1]


def test_where_no_run_has_the_metric_there_is_no_best(cli: Cli, runs: list[str]) -> None:
    with open_store() as store:
        store.log_batch(runs[0], [Metric("odd", float("nan"), 1)])
    for words in (["metrics.nix"], ["metrics.odd"]):
        assert "no run has the metric" in cli("runs", "search", "--best", *words, code=3).err
    assert "is no metric" in cli("runs", "search", "--best", "params.C", code=2).err
    assert "give one of them" in cli("runs", "search", "--best", "metrics.f1", "--worst", "metrics.f1", code=2).err


def test_the_model_of_the_best_run_is_registered_in_one_pipe(cli: Cli, runs: list[str]) -> None:
    found = cli("runs", "search", "--best", "metrics.f1").out
    assert cli("models", "register", "-", "wine", "--alias", "champion", stdin=found).out == "models:/wine/1\n"
    version = json.loads(cli("models", "show", "wine@champion", "--json").out)
    assert (version["run_id"], version["source"]) == (runs[1], f"runs:/{runs[1]}/model")
    for nothing in ("", "\n", f"{runs[0]}\n{runs[1]}\n"):
        assert "one line" in cli("models", "register", "-", "wine", stdin=nothing, code=2).err


# --- looking


def test_models_are_listed_with_their_newest_version_and_aliases(cli: Cli, wine: list[str]) -> None:
    cli("models", "tag", "set", "wine", "team=blue")
    cli("models", "describe", "wine", "tells", "good", "from", "bad")
    cli("models", "register", "latest", "other")
    header, other, line = cli("models", "list").lines
    assert header.split("\t") == ["name", "latest_version", "aliases", "last_updated_timestamp", "tags", "description"]
    assert other.startswith("other\t1\t\t")
    cells = line.split("\t")
    assert (cells[:3], cells[4:]) == (["wine", "3", "champion 2"], ["team=blue", "tells good from bad"])
    (found,) = json.loads(cli("models", "search", "tags.team = 'blue'", "--json").out)
    assert (found["name"], found["aliases"], found["tags"]) == ("wine", {"champion": "2"}, {"team": "blue"})
    assert "--max-results" in cli("models", "list", "--max-results", "1").err
    assert "metrics.x > 1\n  ^" in cli("models", "search", "metrics.x > 1", code=2).err


def test_versions_are_searched_by_their_tags(cli: Cli, wine: list[str]) -> None:
    found = json.loads(cli("models", "search", "--versions", "tags.stage = 'ready'", "--json").out)
    assert {version["version"] for version in found} == {"1", "2"}


def test_no_models_say_how_to_make_one(cli: Cli) -> None:
    assert "mlcli models register" in cli("models", "list").err


def test_a_model_is_shown_with_all_its_versions(cli: Cli, wine: list[str]) -> None:
    shown = json.loads(cli("models", "show", "wine", "--json").out)
    assert [version["version"] for version in shown["versions"]] == ["3", "2", "1"]
    assert "aliases.champion\t2" in cli("models", "show", "models:/wine").lines


@pytest.mark.parametrize("word", ["wine/2", "models:/wine/2", "wine@champion", "wine?tags.stage=ready"])
def test_a_version_is_shown_with_what_it_came_from(cli: Cli, wine: list[str], word: str) -> None:
    shown = json.loads(cli("models", "show", word, "--json").out)
    assert (shown["version"], shown["aliases"]) == ("2", ["champion"])
    came = shown["lineage"]
    assert came["run"]["run_name"] == "run 1"
    assert came["project"] == {"source": "train.py", "commit": "c0ffee"}
    assert came["environment"]["lock"] == f"runs:/{wine[1]}/environment/requirements.txt"
    assert (came["params"]["C"], came["metrics"]["f1"]) == ("1", 0.9)
    lines = cli("models", "show", word).lines
    assert {"alias\tchampion", "project.commit\tc0ffee", "metrics.f1\t0.9"} <= set(lines)


def test_a_run_is_shown_with_its_models_and_their_versions(cli: Cli, wine: list[str]) -> None:
    cli("models", "copy", "wine@champion", "prod")
    shown = json.loads(cli("runs", "show", wine[1], "--json").out)
    (model,) = shown["models"]
    assert (model["path"], model["uri"]) == ("model", f"runs:/{wine[1]}/model")
    assert [(each["name"], each["version"], each["aliases"]) for each in model["versions"]] == [
        ("wine", "2", ["champion"]),
        ("prod", "1", []),
    ]
    assert {f"model\truns:/{wine[1]}/model", "registered.wine/2\tchampion"} <= set(cli("runs", "show", wine[1]).lines)


@pytest.mark.parametrize("width", [80, 140])
def test_nothing_is_wider_than_the_terminal(
    cli: Cli, wine: list[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    cli("models", "describe", "wine/1", "word " * 60)
    cli("models", "tag", "set", "wine", f"long={'x' * 300}", "team=blue")
    eyes(monkeypatch, width)
    for words in (["models", "list"], ["models", "compare", "wine"], ["models", "search", "--versions"]):
        assert max(map(len, cli(*words).lines)) <= width
    table = cli("models", "show", "wine").out.partition("versions\n")[2]
    assert max(map(len, table.splitlines())) <= width
    assert "champion" in table
    assert "wine/2 @champion" in cli("runs", "show", wine[1]).out
    assert "run 1  ✓ FINISHED" in cli("models", "show", "wine@champion").out
    assert "run 1" in cli("runs", "search", "--best", "metrics.f1").out


def test_versions_are_compared_by_all_that_made_them(cli: Cli, wine: list[str]) -> None:
    found = json.loads(cli("models", "compare", "wine/1", "wine@champion", "--json").out)
    assert found["versions"] == ["models:/wine/1", "models:/wine/2"]
    rows = {(row["kind"], row["key"]): row for row in found["rows"]}
    assert rows["param", "C"]["values"] == ["0", "1"]
    assert rows["metric", "f1"]["best"] == [1]
    assert rows["metric", "loss"]["best"] == [1]
    assert rows["package", "numpy"]["values"] == ["2.0", "2.1"]
    assert rows["tag", "stage"]["same"]
    lines = cli("models", "compare", "wine", "--changed").lines
    assert lines[0] == "kind\tkey\tmodels:/wine/1\tmodels:/wine/2\tmodels:/wine/3"
    assert not any(line.startswith("param\tsolver") for line in lines)
    assert "two versions" in cli("models", "compare", "wine/1", "wine/1", code=2).err


# --- changing


def test_an_alias_moves_and_goes(cli: Cli, wine: list[str]) -> None:
    assert "before version 2" in cli("models", "alias", "set", "wine", "champion", "latest").err
    swapped = cli("models", "alias", "set", "wine", "3", "champion", code=2).err
    assert "mlcli models alias set wine champion 3" in swapped
    swapped = cli("models", "alias", "set", "champion", "wine", "1", code=3).err
    assert "the model comes first: mlcli models alias set wine champion 1" in swapped
    cli("models", "alias", "set", "wine", "old", "@champion")
    cli("models", "alias", "set", "wine", "fit", "?tags.stage=ready")
    assert json.loads(cli("models", "show", "wine", "--json").out)["aliases"] == {
        "champion": "3",
        "old": "3",
        "fit": "2",
    }
    cli("models", "alias", "delete", "wine", "old")
    assert "it has champion, fit" in cli("models", "alias", "delete", "wine", "old", code=3).err
    assert "reserved" in cli("models", "alias", "set", "wine", "v1", "1", code=2).err


def test_tags_and_descriptions_are_of_a_model_or_of_a_version(cli: Cli, wine: list[str]) -> None:
    cli("models", "tag", "set", "wine", "team=blue", "a=b=c")
    cli("models", "tag", "set", "wine/3", "stage=draft")
    cli("models", "tag", "delete", "wine", "team")
    cli("models", "describe", "wine@champion", "-", stdin="two\nlines\n")
    assert cli("models", "describe", "wine/2").out == "two\nlines\n"
    assert "has no description" in cli("models", "describe", "wine", code=3).err
    assert json.loads(cli("models", "show", "wine", "--json").out)["tags"] == {"a": "b=c"}
    assert json.loads(cli("models", "show", "wine/3", "--json").out)["tags"] == {"stage": "draft"}
    assert "it has stage" in cli("models", "tag", "delete", "wine/3", "team", code=3).err
    assert "KEY=VALUE" in cli("models", "tag", "set", "wine", "=x", code=2).err


def test_a_model_is_renamed_and_its_version_copied(cli: Cli, wine: list[str]) -> None:
    cli("models", "rename", "wine", "vino")
    assert "no registered model 'wine'" in cli("models", "show", "wine", code=3).err
    assert "did you mean `vino`" in cli("models", "show", "vin", code=3).err
    assert cli("models", "copy", "vino@champion", "prod").out == "models:/prod/1\n"
    assert json.loads(cli("models", "copy", "vino/1", "prod", "--json").out)["source"] == "models:/vino/1"
    assert "models:/vino@x" in cli("models", "show", "vino/x", code=2).err
    assert "say which of them" in cli("models", "copy", "vino", "prod", code=2).err


def test_a_version_is_put_into_a_stage(cli: Cli, wine: list[str]) -> None:
    cli("models", "transition", "wine/1", "production")
    cli("models", "transition", "wine/2", "Production", "--archive-existing-versions")
    assert json.loads(cli("models", "show", "wine/1", "--json").out)["current_stage"] == "Archived"


def test_nothing_is_deleted_unasked_and_what_is_deleted_is_gone(
    cli: Cli, wine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "say --yes" in cli("models", "delete", "wine/3", code=2).err
    cli("models", "delete", "wine/3", "--yes")
    assert "has no version 3" in cli("models", "show", "wine/3", code=3).err
    assert cli("models", "register", wine[2], "wine").out == "models:/wine/4\n"
    assert "cannot be restored" in cli("models", "restore", "wine/3", code=2).err
    monkeypatch.setattr("mlcli.cli.registry._can_ask", lambda: True)
    assert "stopped" in cli("models", "delete", "wine", stdin="n\n", code=1).err
    assert "with 3 versions" in cli("models", "delete", "wine", stdin="y\n").err
    assert json.loads(cli("models", "list", "--json").out) == []


# --- files


def test_the_files_of_a_version_are_downloaded_by_any_of_its_names(cli: Cli, wine: list[str], tmp_path: Path) -> None:
    for word in ("models:/wine@champion", "wine/2", "models:/wine?tags.stage = 'ready'"):
        assert cli("models", "download", word, "-d", str(tmp_path / "out")).out == f"{tmp_path}/out/wine\n"
    assert Path(tmp_path, "out", "wine", "MLmodel").read_text() == "flavors: {}"
    assert "no version" in cli("models", "download", "models:/wine?tags.stage=nix", code=3).err


def test_files_that_are_elsewhere_are_taken_on_trust_and_that_is_said(cli: Cli) -> None:
    assert "there are no runs" in cli("models", "register", "latest", "far", code=3).err
    assert not Path("mlruns").exists()
    assert "nobody looked" in cli("models", "register", "s3://bucket/model", "far").err
    assert "s3://bucket/model" in cli("models", "download", "far/1", code=2).err


def test_what_is_no_model_is_told_before_anything_is_made(cli: Cli, runs: list[str]) -> None:
    told = cli("models", "register", f"runs:/{runs[0]}/nix", "wine", code=3).err
    assert f"the run has runs:/{runs[0][:8]}/model" in told
    assert "reserved" in cli("models", "register", runs[0], "wine", "--alias", "latest", code=2).err
    assert "KEY=VALUE" in cli("models", "register", runs[0], "wine", "--tag", "ready", code=2).err
    assert "cannot stand" in cli("models", "register", runs[0], "a/b", code=2).err
    assert json.loads(cli("models", "list", "--json").out) == []


def test_models_versions_and_aliases_are_offered(cli: Cli, wine: list[str]) -> None:
    from mlcli.cli import completion

    assert completion.model_names("wi") == [("wine", "")]
    assert [word for word, _ in completion.models("w")] == ["wine"]
    assert [word for word, _ in completion.models("wine/")] == ["wine/3", "wine/2", "wine/1"]
    assert completion.models("models:/wine@c") == [("models:/wine@champion", "version 2")]
    assert completion.models("nix/") == []
    assert [word for word, _ in completion.models("wine")] == ["wine", "wine@champion", "wine/3", "wine/2", "wine/1"]
