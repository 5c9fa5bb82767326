"""YAML files: any honest encoding, places of keys, and errors that name line, column and fix."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcli.errors import ProjectError
from mlcli.projects import yamlfile

BROKEN = [
    ("tab indent", "a:\n\tb: 1\n", 2, 1, "tab"),
    ("tab after spaces", "a:\n  b: 1\n \tc: 2\n", 3, 2, "tab"),
    ("unclosed double quote", 'a: 1\ncommand: "python x.py\n', 2, 10, "never closed"),
    ("unclosed quote, more quotes below", 'a: "x\nb: "y"\nc: 1\n', 1, 4, "never closed"),
    ("unclosed single quote", "a: 'it''s\nb: 1\n", 1, 4, "never closed"),
    ("wrong indentation", "a: 1\n b: 2\n", 2, 3, "key: value"),
    ("colon in a plain value", "a: b: c\n", 1, 5, "key: value"),
    ("no space after the colon", "p:\n  type: int\n  default:10\nq: 1\n", 3, 3, "key: value"),
    ("duplicate key", "a: 1\nb: 2\na: 3\n", 3, 1, "twice"),
    ("duplicate key in braces", "{a: 1, a: 2}", 1, 8, "twice"),
    ("unclosed bracket", "a: [1,2\nb: 3\n", 1, 4, "never closed"),
    ("unclosed brace", "a: {b: 1\nc: 2\n", 1, 4, "never closed"),
    ("unknown alias", "a: *x\n", 1, 4, "alias"),
    ("python tag", "a: !!python/object/apply:os.system [touch x]\n", 1, 4, "tag"),
    ("tag on a key", "!!python/name:os.system a: 1\n", 1, 1, "tag"),
    ("template left in", "name: {{cookiecutter.name}}\n", 1, 8, "template"),
    ("two documents", "---\na: 1\n---\nb: 2\n", 3, 1, "second document"),
    ("control character", "a: 1\nb: \x01\n", 2, 4, "control character"),
    ("at sign", "a: @x\n", 1, 4, "cannot begin"),
    ("bad escape", 'a: "\\d"\n', 1, 5, "backslash"),
    ("self reference", "a: &a [*a]\n", 1, 4, "itself"),
    ("list as key", "? [1]\n: 2\n", 1, 3, "key"),
]


@pytest.mark.parametrize(("text", "line", "column", "word"), [case[1:] for case in BROKEN], ids=[c[0] for c in BROKEN])
def test_broken_yaml_says_where_and_what(text, line, column, word):
    with pytest.raises(ProjectError) as caught:
        yamlfile.parse(text, "MLproject")
    error = caught.value
    assert (error.file, error.line, error.column) == ("MLproject", line, column)
    assert word in error.message


@pytest.mark.parametrize("text", [case[1] for case in BROKEN[:12]])
def test_broken_yaml_comes_with_a_fix(text):
    with pytest.raises(ProjectError) as caught:
        yamlfile.parse(text, "MLproject")
    assert caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark_are_read(encoding, tmp_path):
    path = tmp_path / "f"
    path.write_bytes("name: größe 한국\n".encode(encoding))
    document = yamlfile.read(str(path))
    assert document.data == {"name": "größe 한국"}
    assert document.problems == []


def test_utf16_of_the_other_byte_order_is_read():
    assert yamlfile.decode(b"\xfe\xff" + "a: é".encode("utf-16-be"), "f") == "a: é"


def test_a_guessed_encoding_is_a_warning_with_its_place():
    problems = []
    assert yamlfile.decode("a: 1\nb: é".encode("latin-1"), "f", problems) == "a: 1\nb: é"
    assert [(p.level, p.code, p.line, p.column) for p in problems] == [("warning", "encoding", 2, 4)]


@pytest.mark.parametrize("content", [b"a\0\xff", b"\xff\xfea\0b", b"\xef\xbb\xbf\xff\0"])
def test_bytes_that_are_no_text_are_refused(content):
    with pytest.raises(ProjectError, match="not valid"):
        yamlfile.decode(content, "f")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ProjectError, match="no such file"):
        yamlfile.read(str(tmp_path / "none"))
    with pytest.raises(ProjectError, match="folder"):
        yamlfile.read(str(tmp_path))


def test_every_key_and_value_has_its_place():
    document = yamlfile.parse("a:\n  b: 010\n  c: [x, y]\n", "f")
    assert document.mark("a", "b") == (2, 3)
    assert document.value_mark("a", "b") == (2, 6)
    assert document.value_mark("a", "c", 1) == (3, 10)
    assert document.mark("a", "nothing", "there") == (1, 1)
    assert document.written("a", "b") == "010"
    assert document.data["a"]["b"] == 8


def test_merged_keys_have_the_place_where_they_stand():
    document = yamlfile.parse("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n", "f")
    assert document.data["other"] == {"x": 1, "y": 3}
    assert document.mark("other", "x") == (1, 11)
    assert document.mark("other", "y") == (4, 3)


def test_keys_are_what_was_written():
    assert yamlfile.parse("on: 1\n1.0: 2\nno: 3\n", "f").data == {"on": 1, "1.0": 2, "no": 3}


@pytest.mark.parametrize("text", ["a: 2024-13-45", "a: =", "a: <<", f"a: {'1' * 5000}"])
def test_what_only_looks_like_a_number_or_date_is_text(text):
    assert yamlfile.parse(text, "f").data == {"a": text[3:]}


def test_an_alias_bomb_is_refused_unexpanded():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(ProjectError, match="aliases"):  # written out it would fill no memory of this world
        yamlfile.parse("\n".join(lines), "f")


def test_a_merge_bomb_is_refused_unexpanded():
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}" for n in range(1, 40)]
    with pytest.raises(ProjectError, match="aliases"):
        yamlfile.parse("\n".join(lines), "f")


@pytest.mark.parametrize("text", ["[" * 3000, "a: " + "{b: " * 300, "- " * 2000])
def test_deep_nesting_is_an_error_not_a_crash(text):
    with pytest.raises(ProjectError):
        yamlfile.parse(text, "f")


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    with pytest.raises(ProjectError, match="MiB"):
        yamlfile.read(str(path))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"%@`#,?\n\t \\0~<=.é\x00\x7f")), max_size=60))
def test_any_text_gives_a_document_or_a_project_error(text):
    try:
        document = yamlfile.parse(text, "f")
    except ProjectError as error:
        assert error.file == "f"  # noqa: PT017 - any outcome but another exception is good
        return
    document.mark("a", 0)
    document.written("a")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_text_or_a_project_error(content):
    try:
        assert isinstance(yamlfile.decode(content, "f"), str)
    except ProjectError as error:
        assert error.file == "f"  # noqa: PT017 - any outcome but another exception is good
