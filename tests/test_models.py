"""Model directories: what is written, what MLflow's readers need, and what is refused when it is read."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

import mlcli
import mlcli.pyfunc
import mlcli.sklearn
from mlcli.errors import InvalidInput, MlcliError, ModelError
from mlcli.models import ModelSignature, infer_signature, mlmodel

FRAME = pd.DataFrame({"a": np.linspace(0, 1, 40), "b": np.tile([0.0, 1.0], 20)})
TARGET = (FRAME["a"] > 0.5).astype(int)


@pytest.fixture
def model() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, TARGET)


@pytest.fixture(autouse=True)
def _store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, *command: str) -> None:
        self.command = command

    def __reduce__(self):
        return subprocess.call, (list(self.command),)


def forge(folder: Path, content: bytes, form: str = "pickle", **flavor: object) -> Path:
    """A model directory that somebody else made."""
    folder.mkdir()
    name = "model.skops" if form == "skops" else "model.pkl"
    (folder / name).write_bytes(content)
    own = {"pickled_model": name, "serialization_format": form, **flavor}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": own}}))
    return folder


# -- what is written


def test_a_logged_model_comes_back(model) -> None:
    with mlcli.start_run() as run:
        info = mlcli.sklearn.log_model(model, "model")
    assert info.model_uri == f"runs:/{run.info.run_id}/model"
    assert (mlcli.sklearn.load_model(info.model_uri).predict(FRAME) == model.predict(FRAME)).all()
    with mlcli.start_run():
        assert mlcli.sklearn.log_model(model).artifact_path == "model"
        assert mlcli.sklearn.log_model(model, name="deep/er").artifact_path == "deep/er"


def test_the_directory_says_what_mlflow_asks_for(model) -> None:
    with mlcli.start_run() as run:
        mlcli.sklearn.log_model(model, "model", input_example=FRAME[:2], metadata={"k": "v"})
    folder = Path(run.info.artifact_uri, "model")
    content = yaml.safe_load((folder / "MLmodel").read_text())
    assert content["artifact_path"] == "model"
    assert content["run_id"] == run.info.run_id
    assert content["metadata"] == {"k": "v"}
    python = content["flavors"]["python_function"]
    assert python["loader_module"] == "mlflow.sklearn"
    assert (folder / python["model_path"]).is_file()
    assert (folder / python["env"]["conda"]).is_file()
    assert content["flavors"]["sklearn"]["serialization_format"] == "pickle"
    assert json.loads(content["signature"]["inputs"]) == [
        {"type": "double", "name": "a", "required": True},
        {"type": "double", "name": "b", "required": True},
    ]
    pins = (folder / "requirements.txt").read_text().split()
    assert {pin.partition("==")[0] for pin in pins} == {"numpy", "pandas", "scikit-learn"}
    assert yaml.safe_load((folder / "python_env.yaml").read_text())["dependencies"] == ["-r requirements.txt"]
    assert yaml.safe_load((folder / "conda.yaml").read_text())["dependencies"][-1] == {"pip": pins}
    assert json.loads((folder / "input_example.json").read_text())["columns"] == ["a", "b"]
    digests = content["mlcli"]["digests"]
    assert set(digests) == set(os.listdir(folder)) - {"MLmodel"}
    assert all(mlmodel.file_digest(str(folder / name)) == digest for name, digest in digests.items())


def test_requirements_can_be_given(model, tmp_path: Path) -> None:
    (tmp_path / "req.txt").write_text("# mine\nfoo==1\n\nbar\n")
    mlcli.sklearn.save_model(model, "m", pip_requirements=str(tmp_path / "req.txt"), extra_pip_requirements=["baz"])
    assert Path("m/requirements.txt").read_text() == "foo==1\nbar\nbaz\n"


def test_a_model_is_not_written_over_what_is_there(model) -> None:
    Path("full").mkdir()
    Path("full", "x").write_text("x")
    Path("empty").mkdir()
    with pytest.raises(MlcliError, match="exists already"):
        mlcli.sklearn.save_model(model, "full")
    mlcli.sklearn.save_model(model, "empty")
    assert type(mlcli.sklearn.load_model("empty")).__name__ == "Pipeline"


def test_a_model_that_cannot_be_written_leaves_nothing() -> None:
    with mlcli.start_run() as run:
        with pytest.raises(InvalidInput, match="not a scikit-learn estimator"):
            mlcli.sklearn.log_model("text", "model")
        with pytest.raises(InvalidInput, match="serialization format"):
            mlcli.sklearn.log_model(LogisticRegression(), "model", serialization_format="joblib")
        with pytest.raises(ModelError, match="cannot be pickled"):
            mlcli.sklearn.log_model(FunctionTransformer(func=lambda x: x), "model", serialization_format="pickle")
        with pytest.raises(InvalidInput):
            mlcli.sklearn.log_model(LogisticRegression(), "../model")
    assert mlcli.artifacts.list_artifacts(run_id=run.info.run_id) == []
    assert not [name for name in os.listdir(run.info.artifact_uri) if name]


def test_a_model_that_is_logged_with_a_name_is_registered(model, capsys: pytest.CaptureFixture[str]) -> None:
    with mlcli.start_run():
        versions = [
            mlcli.sklearn.log_model(model, "model", registered_model_name="prod").registered_model_version
            for _ in range(2)
        ]
    assert versions == [1, 2]
    assert "registered as version 2 of prod: models:/prod/2" in capsys.readouterr().err
    loaded = mlcli.pyfunc.load_model("models:/prod/2")
    assert (loaded.predict(FRAME) == model.predict(FRAME)).all()
    with mlcli.start_run() as run, pytest.raises(InvalidInput, match="model name"):
        mlcli.sklearn.log_model(model, "model", registered_model_name="a/b")
    assert mlcli.artifacts.list_artifacts(run_id=run.info.run_id) == []


def test_what_the_main_script_defines_is_kept_by_value_and_needs_no_trust_of_who_logged_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(
        textwrap.dedent("""
        import sys, mlcli, mlcli.sklearn
        from sklearn.preprocessing import FunctionTransformer
        def double(x):
            return x * 2
        with mlcli.start_run():
            print(mlcli.sklearn.log_model(FunctionTransformer(double).fit([[1]]), "model").model_uri)
        """)
    )
    done = subprocess.run([sys.executable, str(tmp_path / "train.py")], check=True, capture_output=True, text=True)
    uri = done.stdout.strip()
    folder = Path(mlcli.artifacts.resolve(uri))
    content = yaml.safe_load((folder / "MLmodel").read_text())
    assert content["flavors"]["sklearn"]["serialization_format"] == "cloudpickle"
    assert "cloudpickle==" in (folder / "requirements.txt").read_text()
    assert mlcli.sklearn.load_model(uri).transform(np.array([3])) == [6]
    copy = mlcli.artifacts.download_artifacts(uri, dst_path="copy")
    assert mlcli.sklearn.load_model(copy).transform(np.array([3])) == [6]
    with (Path(copy) / "requirements.txt").open("a") as file:
        file.write("evil\n")
    with pytest.raises(ModelError, match=r"damaged|can run code"):
        mlcli.sklearn.load_model(copy)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    with pytest.raises(ModelError, match="can run code"):
        mlcli.sklearn.load_model(str(folder))
    assert mlcli.sklearn.load_model(str(folder), trust=True).transform(np.array([3])) == [6]


def test_code_of_the_project_travels_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine.py").write_text(
        "from sklearn.linear_model import LogisticRegression\nclass Mine(LogisticRegression): pass\n"
    )
    train = """
        import sys, mlcli.sklearn
        sys.path.insert(0, sys.argv[1])
        from mine import Mine
        with mlcli.start_run():
            model = Mine().fit([[0], [1]], [0, 1])
            print(mlcli.sklearn.log_model(model, "model", code_paths=[sys.argv[1] + "/mine.py"]).model_uri)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(train), tmp_path / "p"], check=True, capture_output=True, text=True
    )
    load = "import sys, mlcli.sklearn; print(type(mlcli.sklearn.load_model(sys.argv[1])).__name__)"
    for _ in range(2):  # loading leaves the model as it was
        loaded = subprocess.run(
            [sys.executable, "-c", load, done.stdout.strip()], check=True, capture_output=True, text=True
        )
        assert loaded.stdout == "Mine\n"
    folder = mlcli.artifacts.resolve(done.stdout.strip())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    with pytest.raises(ModelError, match="brings code"):
        mlcli.sklearn.load_model(folder)


def test_code_of_a_process_that_was_killed_goes_at_the_next_load_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    folder, places = tmp_path / "m", tmp_path / "tmp"
    (folder / "code").mkdir(parents=True)
    places.mkdir()
    (folder / "code" / "brought.py").write_text(
        "def predict(rows): return rows\ndef _load_pyfunc(path): return __import__(__name__)\n"
    )
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: brought\n    code: code\n")
    load = "import sys, mlcli.pyfunc; mlcli.pyfunc.load_model(sys.argv[1], trust=True); print(flush=True); sys.stdin.read()"

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", load, folder], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(places)},
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "\n"
        return process

    with start() as killed:
        (left,) = os.listdir(places)
        with start() as living:
            assert left in os.listdir(places)
            (stays,) = set(os.listdir(places)) - {left}
            killed.kill()
            killed.wait()
            with start() as third:
                assert left not in os.listdir(places)
                assert (places / stays / "code" / "brought.py").exists()
                third.communicate()
            living.communicate()
    assert os.listdir(places) == []


# -- what loads without trust


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        SGDClassifier(),
        SVC(),
        RandomForestClassifier(5),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingRegressor(max_iter=3),
        IsolationForest(n_estimators=3),
        KNeighborsClassifier(algorithm="kd_tree"),
        KNeighborsClassifier(algorithm="ball_tree"),
        MLPClassifier((3,), max_iter=500, tol=1),
        GaussianProcessRegressor(optimizer=None),
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}),
        StackingClassifier([("lr", LogisticRegression())]),
        make_pipeline(ColumnTransformer([("a", StandardScaler(), ["a"]), ("b", OneHotEncoder(), ["b"])]), SVC()),
    ],
    ids=lambda item: type(item).__name__,
)
def test_scikit_learns_own_models_load_anywhere_without_trust(estimator, tmp_path: Path) -> None:
    estimator.fit(FRAME, TARGET)
    mlcli.sklearn.save_model(estimator, str(tmp_path / "m"))
    loaded = mlcli.sklearn.load_model(str(tmp_path / "m"))
    assert (loaded.predict(FRAME) == estimator.predict(FRAME)).all()


def test_a_text_model_loads_without_trust(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad"] * 5, [1, 0] * 5)
    mlcli.sklearn.save_model(model, str(tmp_path / "m"))
    assert mlcli.sklearn.load_model(str(tmp_path / "m")).predict(["good"]) == [1]


def test_a_skops_model_loads_without_trust(tmp_path: Path) -> None:
    forest = RandomForestClassifier(5).fit(FRAME, TARGET)
    mlcli.sklearn.save_model(forest, str(tmp_path / "m"), serialization_format="skops")
    content = yaml.safe_load((tmp_path / "m" / "MLmodel").read_text())
    assert "sklearn.tree._tree.Tree" in content["flavors"]["sklearn"]["skops_trusted_types"]
    assert (mlcli.sklearn.load_model(str(tmp_path / "m")).predict(FRAME) == forest.predict(FRAME)).all()


# -- what does not


def test_a_pickle_that_runs_a_command_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    evil = pickle.dumps(Evil("touch", str(tmp_path / "owned")))
    folder = forge(tmp_path / "m", evil)
    with pytest.raises(ModelError, match=r"can run code \(it names subprocess.call\)") as caught:
        mlcli.sklearn.load_model(str(folder))
    assert "trust=True" in caught.value.hint
    assert not (tmp_path / "owned").exists()
    mlcli.sklearn.load_model(str(folder), trust=True)
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("importlib", "import_module"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("sklearn.datasets", "load_files"),
        ("sklearn.utils.parallel", "Parallel"),
        ("sklearn.feature_extraction.text", "partial"),
        ("sklearn.pipeline", "check_memory"),
        ("sklearn.base", "BaseEstimator.__init__.__globals__"),
        ("sklearn.base", "clone"),
        ("sklearn.linear_model.tests.test_base", "make_sparse_data"),
        ("numpy", "load"),
        ("numpy", "vectorize"),
        ("numpy", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("joblib", "load"),
        ("scipy.sparse", "load_npz"),
        ("cloudpickle.cloudpickle", "_make_function"),
        ("mlcli.fluent", "delete_run"),
    ],
    ids=".".join,
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_cannot_reach(tmp_path: Path, name: tuple[str, str], protocol: int) -> None:
    module, attribute = name
    if protocol == 4:
        content = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name) + b"\x93."
    else:
        content = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(ModelError, match="can run code"):
        mlcli.sklearn.load_model(str(forge(tmp_path / "m", content)))


def test_code_that_a_model_brings_needs_trust(tmp_path: Path, model) -> None:
    folder = forge(tmp_path / "m", pickle.dumps(model), code="code")
    with pytest.raises(ModelError, match="brings code"):
        mlcli.sklearn.load_model(str(folder))


def test_a_model_file_outside_its_directory_is_refused(tmp_path: Path, model) -> None:
    (tmp_path / "outside.pkl").write_bytes(pickle.dumps(model))
    folder = forge(tmp_path / "m", b"", pickled_model="../outside.pkl")
    with pytest.raises(InvalidInput, match="leaves the artifact root"):
        mlcli.sklearn.load_model(str(folder))
    os.symlink("../outside.pkl", folder / "link.pkl")
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {"pickled_model": "link.pkl"}}}))
    with pytest.raises(InvalidInput, match="leaves the artifact root"):
        mlcli.sklearn.load_model(str(folder))


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04", b"\x80\x04.", b"PK\x03\x04", pickle.dumps([1])[:-1]])
def test_damaged_pickles_are_clear_errors(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match="damaged"):
        mlcli.sklearn.load_model(str(forge(tmp_path / "m", content)))


@pytest.mark.parametrize("content", [pickle.dumps(Evil("touch", "owned")), b"", b"PK\x05\x06" + b"\0" * 18])
def test_a_skops_file_that_is_none_is_never_read_as_something_else(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match="skops file"):
        mlcli.sklearn.load_model(str(forge(tmp_path / "m", content, "skops")), trust=True)
    assert not os.path.exists("owned")


def test_a_skops_model_with_foreign_types_needs_trust(tmp_path: Path) -> None:
    import skops.io

    content = skops.io.dumps(FunctionTransformer(os.path.basename))
    folder = forge(tmp_path / "m", content, "skops", skops_trusted_types=["posixpath.basename"])
    with pytest.raises(ModelError, match=r"can run code.*basename"):
        mlcli.sklearn.load_model(str(folder))
    assert type(mlcli.sklearn.load_model(str(folder), trust=True)).__name__ == "FunctionTransformer"


def test_a_changed_file_is_noticed(tmp_path: Path, model) -> None:
    mlcli.sklearn.save_model(model, str(tmp_path / "m"))
    file = tmp_path / "m" / "model.pkl"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ModelError, match=r"damaged: model\.pkl"):
        mlcli.sklearn.load_model(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a model"),
        ("", "not a map"),
        ("- 1", "not a map"),
        ("{", "YAML"),
        ("flavors: {}", "no sklearn flavor"),
        ("flavors: {keras: {}, python_function: {}}", "keras, python_function"),
        ("flavors: {sklearn: {pickled_model: gone.pkl}}", "incomplete"),
    ],
)
def test_a_directory_that_is_no_model_is_a_clear_error(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "m").mkdir()
    if text is not None:
        (tmp_path / "m" / "MLmodel").write_text(text)
    with pytest.raises(ModelError, match=message):
        mlcli.sklearn.load_model(str(tmp_path / "m"))


# -- YAML without a library

_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(
    _SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(value=st.dictionaries(st.text(min_size=1), _VALUES, min_size=1, max_size=4))
def test_what_is_written_reads_the_same_with_pyyaml_and_without(value: dict[str, object]) -> None:
    text = mlmodel.dump_yaml(value)
    assert yaml.safe_load(text) == value
    assert mlmodel._Reader(text, "f").read() == value


@pytest.mark.parametrize(
    "text",
    ["a: [1, 2]", "a: &x 1\nb: *x", "a: |\n  text", "a: 'x\n  y'", " a: 1\nb: 2", "? a", "a: !!python/x 1"],
)
def test_yaml_of_others_is_refused_by_the_small_reader_not_misread(text: str) -> None:
    if text == "a: [1, 2]":
        assert mlmodel._Reader(text, "f").read() == {"a": [1, 2]}
        return
    with pytest.raises(ModelError, match="needs PyYAML"):
        mlmodel._Reader(text, "f").read()


# -- signatures


def test_signatures_describe_tables_arrays_and_plain_values() -> None:
    frame = pd.DataFrame(
        {
            "f8": [1.5],
            "f4": np.array([1], "f4"),
            "i8": [1],
            "i4": np.array([1], "i4"),
            "u1": np.array([1], "u1"),
            "b": [True],
            "s": ["x"],
            "t": pd.to_datetime(["2024-01-01"]),
            "gap": [None],
        }
    ).astype({"gap": "float64"})
    inputs = infer_signature(frame).inputs
    assert [item["type"] for item in inputs] == [
        "double",
        "float",
        "long",
        "integer",
        "integer",
        "boolean",
        "string",
        "datetime",
        "double",
    ]
    assert [item["required"] for item in inputs] == [True] * 8 + [False]
    array = infer_signature(np.zeros((3, 2), "float32"), np.array(["a"]))
    assert array.inputs == [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    assert array.outputs == [{"type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}}]
    assert infer_signature({"a": 1, "b": "x"}).inputs == [
        {"type": "long", "name": "a", "required": True},
        {"type": "string", "name": "b", "required": True},
    ]
    assert ModelSignature.from_dict(array.to_dict()) == array


def test_something_else_as_signature_is_refused(model) -> None:
    with pytest.raises(InvalidInput, match="not a signature") as caught:
        mlcli.sklearn.save_model(model, "m", signature="a -> b")
    assert "infer_signature" in caught.value.hint
    assert not os.path.exists("m")


# -- where skops and cloudpickle are not installed

BARE = """
import sys
from sklearn.linear_model import LogisticRegression
for name in ("skops", "cloudpickle", "yaml"):
    sys.modules[name] = None
import mlcli, mlcli.sklearn
model = LogisticRegression().fit([[0], [1]], [0, 1])
with mlcli.start_run():
    info = mlcli.sklearn.log_model(model, "model", signature=mlcli.models.infer_signature([[0.5]]))
print(mlcli.sklearn.load_model(info.model_uri).predict([[1]])[0])
try:
    mlcli.sklearn.log_model(type("Mine", (LogisticRegression,), {"__module__": "__main__"})(), "mine")
except mlcli.MlcliError as error:
    print(error, "|", error.hint)
"""


def test_plain_models_need_no_other_library() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], check=True, capture_output=True, text=True)
    first, second = done.stdout.strip().split("\n")
    assert first == "1"
    assert "needs cloudpickle" in second
    assert "pip install cloudpickle" in second
