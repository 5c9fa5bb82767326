"""MLproject files: every field, what MLflow runs, and what it crashes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcli.errors import MlcliError, ProjectError
from mlcli.projects import EntryPoint, Parameter, command, entry_point, load, mlproject, yamlfile


@pytest.fixture
def project(tmp_path):
    """Write files into a folder: ``project({"MLproject": "..."})`` gives its path."""

    def make(files, folder="project"):
        base = tmp_path / folder
        base.mkdir(exist_ok=True)
        for name, content in files.items():
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(base)

    return make


def main(parameters="", line='command: "python train.py"'):
    return f"entry_points:\n  main:\n{parameters}    {line}\n"


# --- what MLflow crashes on: each its own clear error

MALFORMED = [
    ("empty file", "", None, "map of"),
    ("top level list", "- a\n- b\n", 1, "a list"),
    ("top level text", "hello\n", 1, "plain value"),
    ("entry_points a list", "entry_points: [main]\n", 1, "map of names"),
    ("entry_points a text", "entry_points: main\n", 1, "map of names"),
    ("entry point without anything", "entry_points:\n  main:\n", 2, "wants a map"),
    ("entry point a text", "entry_points:\n  main: python train.py\n", 2, "wants a map"),
    ("parameters a list", main("    parameters: [a]\n"), 3, "map of names"),
    ("parameter a number", main("    parameters:\n      p: 5\n"), 4, "type or a map"),
    ("parameter a list", main("    parameters:\n      p: [int]\n"), 4, "type or a map"),
    ("type a map", main("    parameters:\n      p: {type: {a: b}}\n"), 4, "a word"),
    ("python_env a map", "python_env: {python: 3}\n" + main(), 1, "path of a file"),
    ("two environments", "python_env: a\nconda_env: b\n" + main(), 2, "more than one"),
    ("docker without image", "name: x\ndocker_env: {volumes: []}\n" + main(), 2, "image"),
    ("docker without name", "docker_env: {image: x}\n" + main(), 1, "name"),
    ("docker volumes a text", "name: x\ndocker_env: {image: x, volumes: /a}\n" + main(), 2, "list of texts"),
    ("docker environment a map", "name: x\ndocker_env: {image: x, environment: {A: b}}\n" + main(), 2, "list"),
    ("docker variable with newline", 'name: x\ndocker_env: {image: x, environment: [["A", "b\\nRUN x"]]}\n' + main(), 2, "one line"),
    ("docker variable of three", "name: x\ndocker_env: {image: x, environment: [[A, b, c]]}\n" + main(), 2, "not the name"),
    ("docker image with newline", 'name: x\ndocker_env: {image: "a\\nb"}\n' + main(), 2, "image"),
    ("name a list", "name: [a]\n" + main(), 1, "text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), [case[1:] for case in MALFORMED], ids=[c[0] for c in MALFORMED])
def test_a_malformed_file_is_a_project_error_with_its_line(project, text, line, words):
    with pytest.raises(ProjectError) as caught:
        load(project({"MLproject": text}))
    assert caught.value.line == line
    assert words in caught.value.message
    assert caught.value.file.endswith("MLproject")
    assert caught.value.exit_code == 2


def test_all_errors_are_told_at_once(project):
    with pytest.raises(ProjectError) as caught:
        load(project({"MLproject": "name: [a]\nentry_points:\n  a: x\n  b: y\n"}))
    assert caught.value.line == 1
    assert "MLproject:3:3" in caught.value.hint
    assert "MLproject:4:3" in caught.value.hint


# --- what MLflow runs must run here


def test_every_field_is_read(project):
    text = """\
name: My Project v1.2
docker_env:
  image: python:3.11
  volumes: ["/host:/inside:ro"]
  environment: [HOME, ["SET", "value with blank"], ["NUMBER", 5]]
entry_points:
  main:
    parameters:
      short: float
      alpha: {type: float, default: 0.5, description: the penalty}
      grid-size: {type: integer, default: 3}
    command: "python train.py {short} {alpha} {grid-size}"
  grid-search:
    command: "python grid.py"
"""
    found = load(project({"MLproject": text}))
    assert found.name == "My Project v1.2"
    assert found.env.docker == (
        "python:3.11",
        ("/host:/inside:ro",),
        ("HOME", ("SET", "value with blank"), ("NUMBER", "5")),
    )
    assert list(found.entry_points) == ["main", "grid-search"]
    parameters = found.entry_points["main"].parameters
    assert parameters["short"] == Parameter("short", "float", None, True, "", 9)
    assert parameters["alpha"] == Parameter("alpha", "float", "0.5", False, "the penalty", 10)
    assert parameters["grid-size"].default == "3"
    assert found.entry_points["grid-search"] == EntryPoint("grid-search", "python grid.py", {}, 13)
    assert found.problems == ()


@pytest.mark.parametrize(
    ("written", "default"),
    [
        ("1e-3", "1e-3"), ("2e-5", "2e-5"), ("0.1", "0.1"), ("true", "True"), ("off", "False"), ("010", "8"),
        ("None", "None"), ('""', ""), ("'010'", "010"), ("3.10", "3.1"), ("1_000", "1000"), ("12:30:45", "45045"),
        ("2024-01-02", "2024-01-02"), ("-1", "-1"), (".inf", "inf"), ("/data/x", "/data/x"), ("[1, 2]", "[1, 2]"),
        ("--random", "--random"), ('"{mlparams.x}"', "{mlparams.x}"), ('"C:\\\\my data"', "C:\\my data"), ("0", "0"),
        ("~", None), ("null", None), ("", None),
    ],
)  # fmt: skip
def test_a_default_is_the_text_that_mlflow_passes(project, written, default):
    text = main(f"    parameters:\n      p: {{type: string, default: {written}}}\n")
    parameter = load(project({"MLproject": text})).entry_points["main"].parameters["p"]
    assert parameter.default == default
    assert parameter.required is (default is None)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("string", "string"), ("str", "str"), ("int", "int"), ("integer", "integer"), ("bool", "bool"),
        ("boolean", "boolean"), ("path", "path"), ("uri", "uri"), ("Float", "float"), ("list", "list"),
        ('"list[int]"', "list[int]"), ("list[str]", "list[str]"), ("[str]", "list[str]"),
    ],
)  # fmt: skip
def test_types_as_real_files_write_them(project, written, known):
    found = load(
        project({"MLproject": main(f"    parameters:\n      p:\n        type: {written}\n        default: a\n")})
    )
    assert found.entry_points["main"].parameters["p"].type == known
    assert found.problems == ()


def test_an_unknown_type_is_text_with_a_warning(project):
    found = load(project({"MLproject": main("    parameters:\n      p: {type: flaot, default: 1}\n")}))
    assert found.entry_points["main"].parameters["p"].type == "string"
    [problem] = found.problems
    assert (problem.level, problem.code, problem.line, problem.hint) == (
        "warning",
        "unknown-type",
        4,
        "did you mean `float`?",
    )


@pytest.mark.parametrize(
    ("text", "line", "key", "meant"),
    [
        (main("    parameters:\n      p:\n        defualt: 1\n"), 5, "defualt", "default"),
        (main("    parameters:\n      p: {type: int, default:10}\n"), 4, "default:10", "default: 10"),
        (main("    parameters:\n      p: {int: int, default: 3}\n"), 4, "int", "type: int"),
        (main("    parametres: {}\n"), 3, "parametres", "parameters"),
        (main() + "conda-env: conda.yaml\n", 4, "conda-env", "conda_env"),
        ("entry_point: {}\n", 1, "entry_point", "entry_points"),
        (main() + "target: {}\n", 4, "target", ""),
    ],
)
def test_an_unknown_key_is_a_warning_that_guesses(project, text, line, key, meant):
    found = load(project({"MLproject": text}))
    [problem] = [p for p in found.problems if p.code == "unknown-key"]
    assert (problem.level, problem.line) == ("warning", line)
    assert f"`{key}`" in problem.message
    assert problem.hint.startswith(f"did you mean `{meant}`" if meant else "known here")


def test_an_entry_point_without_command_hurts_only_who_runs_it(project):
    found = load(project({"MLproject": main() + "  broken:\n    parameters: {}\n"}))
    assert entry_point(found, "main").command == "python train.py"
    with pytest.raises(ProjectError, match="`broken` has no command") as caught:
        entry_point(found, "broken")
    assert caught.value.line == 4


def test_a_misspelt_command_is_named(project):
    found = load(project({"MLproject": 'entry_points:\n  main:\n    comand: "python x.py"\n'}))
    with pytest.raises(ProjectError, match="line 3 has `comand`, did you mean `command`"):
        entry_point(found)


def test_empty_parameters_are_none(project):
    assert load(project({"MLproject": main("    parameters:\n")})).entry_points["main"].parameters == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_windows_runs(project, encoding):
    content = ("name: größe\n" + main() + "# 한국어").replace("\n", "\r\n").encode(encoding)
    found = load(project({"MLproject": content}))
    assert found.name == "größe"
    assert entry_point(found).command == "python train.py"


def test_a_json_file_runs(project):
    found = load(project({"MLproject": '{"name": "j", "entry_points": {"main": {"command": "python x.py"}}}'}))
    assert command(found, entry_point(found), {}).argv == ("python", "x.py")


@pytest.mark.parametrize(
    ("block", "argv"),
    [
        ("command: >-\n      python train.py\n      --a {a}\n", ("python", "train.py", "--a", "v w")),
        ("command: >\n      python train.py\n        --a {a}\n", None),
        ("command: |\n      python train.py \\\n        --a {a}\n", ("python", "train.py", "--a", "v w")),
        ("command: |\n      python train.py \\\n        --a {a} \\\n", ("python", "train.py", "--a", "v w")),
        ('command: "python train.py\n      --a {a}"\n', ("python", "train.py", "--a", "v w")),
        ("command: python train.py --a={a}\n", ("python", "train.py", "--a=v w")),
        ("command: python3 -u 'my script.py' \"models:/m/{a}\"\n", ("python3", "-u", "my script.py", "models:/m/v w")),
    ],
)
def test_commands_in_every_style_of_yaml(project, block, argv):
    found = load(project({"MLproject": main("    parameters:\n      a: str\n", block)}))
    made = command(found, entry_point(found), {"a": "v w"})
    if argv is None:  # more indented lines keep their line end, to a shell a second command
        assert made.argv[0] == "bash"
    else:
        assert made.argv == argv


def test_anchors_and_merges_work(project):
    text = """\
defaults: &p
  lr: {type: float, default: 0.1}
entry_points:
  main: {parameters: *p, command: "python a.py {lr}"}
  other: {parameters: {<<: *p, n: int}, command: "python b.py {lr} {n}"}
"""
    found = load(project({"MLproject": text}))
    assert command(found, entry_point(found, "other"), {"n": "3"}).argv == ("python", "b.py", "0.1", "3")


# --- any tree at all

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=6),
    st.sampled_from(["python x.py {a}", "float", "conda.yaml", "{", "'"]),
)  # fmt: skip
_keys = st.sampled_from(
    "name python_env conda_env docker_env entry_points main other parameters a command type default image volumes"
    " environment description defualt".split()
)
_trees = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=4)),
    max_leaves=14,
)
_files = st.dictionaries(
    _keys,
    st.one_of(
        _trees,
        st.dictionaries(_keys, st.dictionaries(_keys, _trees, max_size=3), max_size=3),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(_trees, _files))
def test_any_tree_gives_a_project_or_a_named_error(tree):
    import json

    try:
        found = mlproject._Reader(yamlfile.parse(json.dumps(tree, ensure_ascii=False), "MLproject")).mlproject()
    except ProjectError as error:  # YAML knows fewer characters than JSON
        assert error.file == "MLproject"  # noqa: PT017 - any outcome but another exception is good
        return
    for problem in found.problems:
        assert problem.level in ("error", "warning")
        assert problem.file == "MLproject"
    for entry in found.entry_points.values():
        for parameter in entry.parameters.values():
            assert isinstance(parameter.default, str) or parameter.required


@settings(max_examples=60, deadline=None)
@given(tree=_files)
def test_loading_any_file_raises_nothing_else(tree, tmp_path_factory):
    import json

    folder = tmp_path_factory.mktemp("any")
    (folder / "MLproject").write_text(json.dumps(tree))
    try:
        found = load(str(folder))
        command(found, entry_point(found), {"a": "1"})
    except MlcliError as error:
        assert error.message  # noqa: PT017 - any outcome but another exception is good
