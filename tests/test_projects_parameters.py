"""Parameters: given, defaulted, checked, resolved; all before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlcli.errors import InvalidInput, NotFound
from mlcli.projects.mlproject import EntryPoint, Parameter
from mlcli.projects.parameters import parse_given, resolve
from mlcli.store import open_store


def entry(*parameters, script=None):
    return EntryPoint("main", "x", {p.name: p for p in parameters}, 1, script)


def one(kind, default=None, name="p"):
    return Parameter(name, kind, default, default is None)


def test_given_values_split_at_the_first_equals_sign():
    assert parse_given(["a=1", "b=", "c=x=y", "d= z "]) == {"a": "1", "b": "", "c": "x=y", "d": " z "}


@pytest.mark.parametrize(("items", "word"), [(["a"], "name=value"), (["=3"], "name=value"), (["a=1", "a=2"], "twice")])
def test_given_values_of_another_form_are_usage_errors(items, word):
    with pytest.raises(InvalidInput, match=word) as caught:
        parse_given(items)
    assert caught.value.exit_code == 2


def test_a_given_value_wins_over_the_default(tmp_path):
    values = resolve(entry(one("int", "1"), one("int", "2", "q")), {"p": "5"}, str(tmp_path))
    assert values.recorded == values.resolved == {"p": "5", "q": "2"}
    assert values.notes == ()


FITS = [
    ("int", "3"), ("int", "-3"), ("int", " 3 "), ("integer", "+1_000"), ("float", "1e-3"), ("float", "nan"),
    ("float", "-.5"), ("float", "3"), ("bool", "true"), ("boolean", "False"), ("string", "anything"), ("list", "[1,2]"),
    ("list[int]", "1 2"), ("uri", "s3://bucket/x"), ("uri", "runs:/abc/model"),
]  # fmt: skip
STILL_SENSIBLE = [
    ("int", "3.0"), ("int", "1e3"), ("int", ""), ("int", "None"), ("float", ""), ("float", "None"), ("bool", "yes"),
    ("bool", "1"), ("bool", "off"),
]  # fmt: skip
WRONG = [
    ("int", "abc"), ("int", "3.5"), ("int", "1,5"), ("int", "inf"), ("float", "abc"), ("float", "1,5"), ("bool", "perhaps"),
    ("bool", "2"), ("uri", "data/x.csv"), ("int", "nan"),
]  # fmt: skip


def test_all_wrong_values_are_named_at_once_with_the_lines_that_declare_them(tmp_path):
    declared = [
        Parameter(name, kind, None, True, line=line)
        for name, kind, line in (("n", "int", 7), ("f", "float", 8), ("u", "uri", 9), ("data", "path", 10))
    ]
    given = {"n": "x", "f": "1", "u": "/z", "data": "gone.csv"}
    with pytest.raises(InvalidInput) as caught:
        resolve(entry(*declared), given, str(tmp_path), "p/MLproject")
    first, second, third = caught.value.message.splitlines()
    assert first == "the parameter `n` wants a whole number, not `x`"
    assert second == "the parameter `u` wants a URI with a scheme, not `/z`"
    assert third.startswith("the parameter `data` wants an existing path")
    assert caught.value.hint.endswith(
        "p/MLproject declares `n: int` on line 7, `u: uri` on line 9, `data: path` on line 10"
    )


@pytest.mark.parametrize(("kind", "value"), FITS)
def test_a_value_that_fits_its_type_is_passed_on(kind, value, tmp_path):
    values = resolve(entry(one(kind)), {"p": value}, str(tmp_path))
    assert values.resolved == {"p": value}
    assert values.notes == ()


@pytest.mark.parametrize(("kind", "value"), STILL_SENSIBLE)
def test_a_value_that_still_makes_sense_is_passed_on_with_a_note(kind, value, tmp_path):
    values = resolve(entry(one(kind)), {"p": value}, str(tmp_path))
    assert values.resolved == {"p": value}
    assert len(values.notes) == 1


@pytest.mark.parametrize(("kind", "value"), WRONG)
def test_a_value_that_makes_no_sense_is_an_error(kind, value, tmp_path):
    with pytest.raises(InvalidInput, match="`p` wants") as caught:
        resolve(entry(one(kind)), {"p": value}, str(tmp_path))
    assert value in caught.value.message


@pytest.mark.parametrize(
    ("kind", "default"), [*WRONG[:-3], ("int", "auto"), ("float", "{mlparams.lr}"), ("path", "None"), ("path", "")]
)
def test_a_default_is_never_held_against_its_type(kind, default, tmp_path):
    values = resolve(entry(one(kind, default)), {}, str(tmp_path))
    assert values.resolved == {"p": default}
    assert resolve(entry(one(kind, default)), {"p": default}, str(tmp_path)).notes == ()


def test_a_comma_in_a_number_gets_a_hint(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        resolve(entry(one("float")), {"p": "1,5"}, str(tmp_path))
    assert "1.5" in caught.value.hint


def test_all_missing_parameters_are_listed_in_order(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        resolve(entry(one("int", None, "b"), one("int", "1", "x"), one("int", None, "a")), {}, str(tmp_path))
    assert "`b` and `a`" in caught.value.message
    assert "-P b=... -P a=..." in caught.value.hint


def test_a_misspelling_that_took_the_default_is_told(tmp_path):
    lost = one("int")._replace(lost="line 9 has `defualt`, did you mean `default`?")
    with pytest.raises(InvalidInput, match="line 9 has `defualt`"):
        resolve(entry(lost), {}, str(tmp_path), "MLproject")


@pytest.mark.parametrize("name", ["learning-rate", "learning_rat", "Learning_Rate", "learningrate"])
def test_an_undeclared_name_that_resembles_a_declared_one_is_an_error(name, tmp_path):
    with pytest.raises(InvalidInput) as caught:
        resolve(entry(one("float", "1", "learning_rate")), {name: "2"}, str(tmp_path))
    assert caught.value.hint == "did you mean `learning_rate`?"


def test_any_other_undeclared_name_is_appended_with_one_note(tmp_path):
    values = resolve(entry(one("float", "1", "alpha")), {"depth": "3", "verbose": ""}, str(tmp_path))
    assert values.extras == {"depth": "3", "verbose": ""}
    assert values.recorded == {"alpha": "1", "depth": "3", "verbose": ""}
    [note] = values.notes
    assert "--depth --verbose" in note


def test_a_name_that_resembles_one_given_as_well_is_meant(tmp_path):
    assert resolve(entry(one("int", "1", "size")), {"size": "1", "sizes": "2"}, str(tmp_path)).extras == {"sizes": "2"}


def test_a_script_takes_any_parameter_without_a_note(tmp_path):
    assert resolve(entry(script="x.py"), {"a": "1"}, str(tmp_path)).notes == ()


@pytest.mark.parametrize("given", [{"p": "a\0b"}, {"q\0": "x"}])
def test_nul_is_refused(given, tmp_path):
    with pytest.raises(InvalidInput, match="NUL"):
        resolve(entry(one("string", "x")), given, str(tmp_path))


# --- paths


def test_a_path_is_seen_from_the_callers_folder_and_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data.csv").write_text("")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "data.csv").write_text("")
    monkeypatch.chdir(tmp_path / "here")
    values = resolve(entry(one("path")), {"p": "data.csv"}, str(tmp_path / "project"))
    assert values.resolved == {"p": str(tmp_path / "here" / "data.csv")}
    assert values.recorded == {"p": "data.csv"}
    assert values.notes == ()


def test_a_path_that_is_only_in_the_project_is_found_there_and_said_so(tmp_path):
    (tmp_path / "data.csv").write_text("")
    values = resolve(entry(one("path", "data.csv")), {}, str(tmp_path))
    assert values.resolved == {"p": str(tmp_path / "data.csv")}
    assert "project's folder" in values.notes[0]


def test_a_path_that_is_nowhere_names_both_places(tmp_path):
    with pytest.raises(InvalidInput) as caught:
        resolve(entry(one("path")), {"p": "none.csv"}, str(tmp_path))
    assert str(tmp_path / "none.csv") in caught.value.message
    assert os.path.abspath("none.csv") in caught.value.message


@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_file_uri_is_a_path(host, tmp_path):
    (tmp_path / "a b").write_text("")
    values = resolve(entry(one("path")), {"p": f"file://{host}{tmp_path}/a%20b"}, str(tmp_path))
    assert values.resolved == {"p": str(tmp_path / "a b")}


def test_what_lies_at_an_http_address_is_to_be_downloaded_under_its_own_name(tmp_path):
    both = {"p": "https://user:secret@example.com/some/x%20y.csv?v=1", "q": "http://example.com/"}
    values = resolve(entry(one("path"), one("path", name="q")), both, str(tmp_path), storage_dir=str(tmp_path / "s"))
    first, second = values.downloads
    assert first.folder == second.folder
    assert os.path.dirname(first.folder) == str(tmp_path / "s")
    assert first.path == f"{first.folder}/param_0/x y.csv"
    assert second.path == f"{first.folder}/param_1/download"
    assert values.resolved == {"p": first.path, "q": second.path}
    assert values.recorded == both
    assert not (tmp_path / "s").exists()
    assert "secret" not in "".join(values.notes)


def test_an_artifact_of_a_run_is_the_path_where_it_lies(tmp_path):
    with open_store() as store:
        run = store.create_run("0")
    folder = Path(run.info.artifact_uri, "data")
    folder.mkdir(parents=True)
    values = resolve(entry(one("path")), {"p": f"runs:/{run.info.run_id}/data"}, str(tmp_path))
    assert values.resolved == {"p": str(folder)}
    with pytest.raises(NotFound):
        resolve(entry(one("path")), {"p": f"runs:/{run.info.run_id}/other"}, str(tmp_path))


@pytest.mark.parametrize("uri", ["s3://b/x", "dbfs:/x", "ftp://example.com/x"])
def test_what_would_need_a_download_says_what_to_do(uri, tmp_path):
    with pytest.raises(InvalidInput, match="does not download") as caught:
        resolve(entry(one("path")), {"p": uri}, str(tmp_path))
    assert "type: uri" in caught.value.hint


def test_a_file_with_a_colon_in_its_name_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data:v1").write_text("")
    assert resolve(entry(one("path")), {"p": "data:v1"}, str(tmp_path)).resolved == {"p": str(tmp_path / "data:v1")}
