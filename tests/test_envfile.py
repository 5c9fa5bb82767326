"""Environment files as real people write them, each read into what it means, with the line of what is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcli.errors import ProjectError
from mlcli.projects import pythonspec
from mlcli.projects.conda import translate
from mlcli.projects.envfile import read_env
from mlcli.projects.requirements import Requirement, is_path, logical_lines


@pytest.fixture
def read(tmp_path):
    """Write files into a project folder and read its environment: ``read({"python_env.yaml": ...}, kind="python")``."""

    def call(files, **options):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_env(str(tmp_path), **options)

    return call


def texts(requirements):
    return [item.text for item in requirements]


def codes(spec, level=None):
    return [item.code for item in spec.problems if level in (None, item.level)]


PLAIN = """\
python: "3.9.13"
build_dependencies:
  - pip
  - wheel==0.37.1
dependencies:
  - scikit-learn==1.4.0  # the model
  - pandas==2.2.0
"""


def test_a_plain_file_has_python_build_dependencies_and_dependencies(read):
    spec = read({"python_env.yaml": PLAIN}, kind="python", file="python_env.yaml")
    assert (spec.kind, spec.python, spec.python_line) == ("python", "3.9.13", 1)
    assert texts(spec.build_dependencies) == ["pip", "wheel==0.37.1"]
    assert spec.dependencies[1] == Requirement("pandas==2.2.0", "python_env.yaml", 7)
    assert texts(spec.dependencies)[0] == "scikit-learn==1.4.0"
    assert spec.problems == ()


def test_requirement_files_are_read_in_with_the_line_that_asks(read):
    spec = read(
        {
            "python_env.yaml": "dependencies:\n  - -r requirements.txt\n",
            "requirements.txt": "# first\nsix==1.16.0\n-r more/extra.txt\n",
            "more/extra.txt": "idna\n-r sibling.txt\n",
            "more/sibling.txt": "toml\n",
        }
    )
    assert [(item.text, item.place) for item in spec.dependencies] == [
        ("six==1.16.0", "requirements.txt:2"),
        ("idna", "more/extra.txt:1"),
        ("toml", "more/sibling.txt:1"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_a_requirements_file_may_say_its_encoding(read, encoding):
    spec = read(
        {
            "python_env.yaml": "dependencies: [-r requirements.txt]",
            "requirements.txt": "six\r\n# größe\r\nidna\r\n".encode(encoding),
        }
    )
    assert texts(spec.dependencies) == ["six", "idna"]
    assert spec.problems == ()


def test_a_missing_requirements_file_names_the_line_that_includes_it(read):
    spec = read({"python_env.yaml": "dependencies:\n  - six\n  - -r nope.txt\n"})
    with pytest.raises(ProjectError, match=r"nope\.txt.*no such file") as caught:
        spec.check()
    assert (caught.value.file, caught.value.line) == ("python_env.yaml", 3)


def test_a_requirements_file_that_includes_itself_is_an_error_not_a_hang(read):
    spec = read({"python_env.yaml": "dependencies: [-r a.txt]", "a.txt": "six\n-r b.txt\n", "b.txt": "-r a.txt\n"})
    assert codes(spec, "error") == ["requirements-loop"]
    assert texts(spec.dependencies) == ["six"]


def test_constraints_are_kept_apart(read):
    spec = read({"python_env.yaml": "dependencies: [six, -c limits.txt]", "limits.txt": "six<2\n"})
    assert texts(spec.dependencies) == ["six"]
    assert spec.constraints == (Requirement("six<2", "limits.txt", 1),)


def test_dependencies_as_one_text_are_read_with_a_warning(read):
    spec = read({"python_env.yaml": "dependencies: -r requirements.txt\n", "requirements.txt": "six\n"})
    assert texts(spec.dependencies) == ["six"]
    assert codes(spec) == ["dependencies-string"]


def test_everything_under_python_env_is_read_with_a_warning(read):
    spec = read({"python_env.yaml": 'python_env:\n  python: "3.10"\n  dependencies:\n    - six\n'})
    assert (spec.python, texts(spec.dependencies)) == ("3.10", ["six"])
    assert (codes(spec), spec.dependencies[0].line) == (["env-nested"], 4)


def test_json_is_read(read):
    spec = read({"python_env.yaml": '{\n\t"python": "3.10",\n\t"dependencies": ["six"]\n}'})
    assert (spec.python, texts(spec.dependencies), spec.problems) == ("3.10", ["six"], ())


@pytest.mark.parametrize("written", ["3.10", "3.9", "3"])
def test_an_unquoted_python_is_taken_as_written_with_a_warning(read, written):
    spec = read({"python_env.yaml": f"python: {written}\n"})
    assert (spec.python, codes(spec)) == (written, ["python-unquoted"])
    assert f'"{written}"' in spec.problems[0].hint


def test_an_unquoted_full_version_is_text_already(read):
    assert read({"python_env.yaml": "python: 3.9.13\n"}).problems == ()


def test_nonsense_for_python_is_an_error_with_its_line(read):
    spec = read({"python_env.yaml": "dependencies: []\npython: three\n"})
    assert [(item.code, item.line) for item in spec.problems] == [("python-version", 2)]


def test_an_empty_file_means_nothing_to_install(read):
    spec = read({"python_env.yaml": ""})
    assert (spec.kind, spec.dependencies, codes(spec)) == ("python", (), ["env-file-empty"])


def test_a_misspelt_key_says_what_was_meant(read):
    spec = read({"python_env.yaml": "dependancies:\n  - six\n"})
    assert codes(spec, "error") == ["unknown-key"]
    assert "`dependencies`" in spec.problems[0].hint


def test_an_unknown_key_is_a_warning(read):
    assert codes(read({"python_env.yaml": "owner: me\ndependencies: [six]\n"}), "warning") == ["unknown-key"]


def test_a_conda_file_under_the_name_of_a_python_env_is_read_as_one(read):
    conda = "name: x\nchannels: [defaults]\ndependencies:\n  - python=3.9\n  - numpy=1.21\n  - pip:\n      - six\n"
    spec = read({"python_env.yaml": conda}, kind="python", file="python_env.yaml")
    assert (spec.kind, spec.python, codes(spec)) == ("conda", "3.9", ["conda-file"])
    assert texts(spec.dependencies) == ["numpy==1.21.*", "six"]


def test_a_broken_version_is_an_error_that_stands_at_its_line(read):
    spec = read({"python_env.yaml": "dependencies:\n  - six\n  - mlflow == 2..7.1\n"})
    assert [(item.code, item.line) for item in spec.problems] == [("bad-requirement", 3)]


def test_one_equal_sign_says_that_pip_wants_two(read):
    spec = read({"python_env.yaml": "dependencies: [numpy=1.21]"})
    assert "`numpy==1.21`" in spec.problems[0].hint


@pytest.mark.parametrize(
    "line",
    [
        "six",
        "six==1.16.0",
        "six ~= 1.0",
        "scikit-learn[a,b]>=1.0,<2",
        "six!=1.5.*",
        "pkg==1.0a1",
        "pkg==1.0.post1.dev3+local.1",
        "pkg===weird-thing",
        "torch==2.0.1+cpu",
        "pkg (>=1.0)",
        "requests; python_version < '3.8'",
        "six==1.16.0 --hash=sha256:abc",
        "pkg @ git+https://example.com/x.git@v1#egg=pkg",
        "git+https://example.com/x.git#egg=x",
        "--extra-index-url https://example.com",
        "-e .",
        "./local",
        "zope.interface",
        "pkg>=1!2.0",
        "pkg==1.0-1",
    ],
)
def test_lines_that_pip_accepts_are_accepted(read, line):
    spec = read({"python_env.yaml": "dependencies: [-r r.txt]", "r.txt": line + "\n"})
    assert (texts(spec.dependencies), codes(spec, "error")) == ([line], [])


def test_options_that_point_elsewhere_are_kept_and_reported(read):
    spec = read({"python_env.yaml": "dependencies: ['--extra-index-url https://example.com/simple', six]"})
    assert texts(spec.dependencies) == ["--extra-index-url https://example.com/simple", "six"]
    assert codes(spec) == ["index-option"]


@pytest.mark.parametrize("line", ["mlcli", "mlcli==0.1", "mlcli[sklearn] >= 0.1", "MLCLI"])
def test_mlcli_itself_is_never_asked_of_an_index(read, line):
    assert texts(read({"python_env.yaml": f"dependencies: ['{line}', six]"}).dependencies) == ["six"]


def test_a_missing_file_says_what_there_is_instead(read):
    spec = read({"conda.yaml": ""}, kind="python", file="python_env.yaml")
    assert codes(spec, "error") == ["missing-env-file"]
    assert "conda.yaml" in spec.problems[0].hint


def test_broken_yaml_is_an_error_with_line_and_column(read):
    spec = read({"python_env.yaml": 'python: "3.9\ndependencies: []\n'})
    assert (spec.problems[0].level, spec.problems[0].line) == ("error", 1)


def test_without_a_word_in_mlproject_the_files_are_found_as_mlflow_finds_them(read):
    assert read({}).kind == "none"
    assert read({"conda.yaml": "dependencies: [six]"}).kind == "conda"
    assert read({"python_env.yaml": "dependencies: [six]"}).kind == "python"


CONDA = """\
name: tutorial
channels:
  - default
  - pytorch
dependencies:
  - python=3.8
  - pip=21
  - pytorch::pytorch=1.13
  - cudatoolkit=11.3
  - ffmpeg
  - scikit-learn=0.24.1=hb3f193_0
  - pip:
      - mlflow>=1.0
      - -r requirements.txt
prefix: /home/me/miniconda3/envs/tutorial
"""


def test_a_conda_file_is_translated(read):
    spec = read({"conda.yaml": CONDA, "requirements.txt": "six\n"}, kind="conda", file="conda.yaml")
    assert (spec.kind, spec.python, spec.python_line, spec.conda_file) == ("conda", "3.8", 6, "conda.yaml")
    assert texts(spec.build_dependencies) == ["pip==21.*"]
    assert [(item.text, item.place) for item in spec.dependencies] == [
        ("torch==1.13.*", "conda.yaml:8"),
        ("scikit-learn==0.24.1", "conda.yaml:11"),
        ("mlflow>=1.0", "conda.yaml:13"),
        ("six", "requirements.txt:1"),
    ]
    assert spec.untranslated == ("ffmpeg",)
    assert codes(spec) == ["conda-channel", "conda-untranslated"]


@pytest.mark.parametrize(
    ("spec", "kind", "requirement"),
    [
        ("numpy", "package", "numpy"),
        ("numpy=1.2", "package", "numpy==1.2.*"),
        ("numpy==1.2", "package", "numpy==1.2"),
        ("numpy 1.2.*", "package", "numpy==1.2.*"),
        ("numpy >=1.2 py39_0", "package", "numpy>=1.2"),
        ("numpy[version='>=1.2']", "package", "numpy>=1.2"),
        ("conda-forge::numpy>=1.2,<2", "package", "numpy>=1.2,<2"),
        ("numpy=1.2.3=py39_0", "package", "numpy==1.2.3"),
        ("python>=3.8,<3.11", "python", ">=3.8,<3.11"),
        ("python=3.9.*", "python", "3.9"),
        ("python", "python", ""),
        ("wheel", "build", "wheel"),
        ("pytorch-gpu=2.0", "package", "torch==2.0.*"),
        ("tensorflow-gpu==2.4.1", "package", "tensorflow==2.4.1"),
        ("py-xgboost=1.7", "package", "xgboost==1.7.*"),
        ("matplotlib-base", "package", "matplotlib"),
        ("opencv==4.8.1", "package", "opencv-python-headless==4.8.1.*"),
        ("python-graphviz", "package", "graphviz"),
        ("graphviz", "native", ""),
        ("r-base", "native", ""),
        ("pytorch-cuda=11.7", "brought-along", ""),
        ("_libgcc_mutex=0.1=main", "brought-along", ""),
        ("openssl=1.1.1k=h27cfd23_0", "brought-along", ""),
        ("mkl", "brought-along", ""),
    ],
)
def test_conda_words_in_pip_words(spec, kind, requirement):
    assert translate(spec)[::2] == (kind, requirement)


def test_a_version_that_pip_cannot_say_is_dropped_and_said(read):
    spec = read({"conda.yaml": "dependencies:\n  - numpy=1.2|1.3\n"})
    assert (texts(spec.dependencies), codes(spec)) == (["numpy"], ["conda-version"])


@pytest.mark.parametrize(
    ("text", "allowed", "refused"),
    [
        ("3.9.13", (3, 9, 13), (3, 9, 18)),
        ("3.10", (3, 10, 4), (3, 1, 0)),
        ("3", (3, 13, 0), (2, 7, 18)),
        (">=3.9", (3, 13, 0), (3, 8, 18)),
        (">=3.8,<3.11", (3, 10, 13), (3, 11, 0)),
        ("~=3.9", (3, 12, 0), (3, 8, 0)),
        ("~=3.9.1", (3, 9, 18), (3, 10, 0)),
        ("==3.9.*", (3, 9, 18), (3, 10, 0)),
        ("!=3.9.1", (3, 9, 2), (3, 9, 1)),
        (">3.8", (3, 9, 0), (3, 8, 18)),
        ("<=3.9", (3, 9, 18), (3, 10, 0)),
        ("python=3.9", (3, 9, 1), (3, 8, 0)),
    ],
)
def test_python_versions_and_ranges(text, allowed, refused):
    spec = pythonspec.parse(text)
    assert spec is not None
    assert (spec.allows(allowed), spec.allows(refused)) == (True, False)


@pytest.mark.parametrize("text", ["", "three", "3.9.13.1", ">=", "3.9;rm"])
def test_what_is_no_python_version(text):
    assert pythonspec.parse(text) is None


def test_continued_lines_are_one_and_comments_none():
    content = "six \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\n\n# note\nidna # why\npkg @ https://x/y#egg=pkg\n"
    assert list(logical_lines(content)) == [
        (1, "six --hash=sha256:aa --hash=sha256:bb"),
        (6, "idna"),
        (7, "pkg @ https://x/y#egg=pkg"),
    ]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("-e .", "."),
        ("--editable=./lib[extra]", "./lib"),
        ("./wheels/x-1.0-py3-none-any.whl", "./wheels/x-1.0-py3-none-any.whl"),
        ("../shared", "../shared"),
        (".[dev]", "."),
        ("-e git+https://x/y.git#egg=y", None),
        ("six", None),
    ],
)
def test_local_paths_are_told_from_packages(text, path):
    assert Requirement(text, "r.txt").path == path
    assert is_path(path or "six") is (path is not None)


WORDS = st.sampled_from(
    [
        "python",
        "dependencies",
        "build_dependencies",
        "channels",
        "pip",
        "name",
        "six==1",
        "-r r.txt",
        "-e .",
        "3.10",
        "",
    ]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=12),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(WORDS | st.text(max_size=6), inside, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, kind=st.sampled_from(["python", "conda"]))
def test_whatever_a_file_holds_it_is_read_or_explained(tmp_path, tree, kind):
    (tmp_path / "env.yaml").write_text(json.dumps(tree))
    spec = read_env(str(tmp_path), kind=kind, file="env.yaml")
    assert all(problem.message and problem.file for problem in spec.problems)
    assert all(isinstance(item.text, str) and item.text for item in (*spec.dependencies, *spec.build_dependencies))
    if codes(spec, "error"):
        with pytest.raises(ProjectError):
            spec.check()
    else:
        spec.check()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.text(max_size=80) | st.lists(WORDS | st.text(max_size=12), max_size=5).map("\n".join))
def test_whatever_a_requirements_file_holds_it_is_read_or_explained(tmp_path, content):
    (tmp_path / "python_env.yaml").write_text("dependencies: [-r r.txt]")
    (tmp_path / "r.txt").write_text(content, encoding="utf-8", errors="surrogatepass")
    spec = read_env(str(tmp_path))
    assert all(item.text == item.text.strip() and item.text for item in spec.dependencies)


@given(text=st.text(max_size=30))
def test_conda_lines_of_any_shape_are_translated_or_said_to_be_unreadable(text):
    found = translate(text)
    assert found.kind in ("python", "build", "package", "brought-along", "native", "unreadable")
