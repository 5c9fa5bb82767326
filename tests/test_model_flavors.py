"""Models of other kinds than scikit-learn's: Python models here, boosters and PyTorch beside the real libraries and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import mlflow_environments
import numpy as np
import pandas as pd
import pytest
import yaml
from serving import serving
from sklearn.linear_model import LogisticRegression

import mlcli
import mlcli.pyfunc
import mlcli.sklearn
from mlcli.errors import InvalidInput, ModelError
from mlcli.models import infer_signature

FRAME = pd.DataFrame({"a": [0.1, 0.9], "b": [1.0, 2.0]})


@pytest.fixture(autouse=True)
def _store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLI_TRACKING_URI", str(root))


class Threshold(mlcli.pyfunc.PythonModel):
    def load_context(self, context):
        self.limit = float(Path(context.artifacts["limit"]).read_text())
        self.config = context.model_config

    def predict(self, context, model_input, params=None):
        limit = (params or {}).get("limit", self.limit)
        return (model_input["a"] > limit).astype(int)


def _limit() -> dict[str, str]:
    Path("limit.txt").write_text("0.5")
    return {"limit": "limit.txt"}


# -- custom Python models


def test_a_python_model_finds_its_artifacts_and_params(tmp_path: Path) -> None:
    signature = infer_signature(FRAME, pd.Series([1]), params={"limit": 0.5})
    with mlcli.start_run():
        info = mlcli.pyfunc.log_model(
            "model", python_model=Threshold(), artifacts=_limit(), signature=signature, model_config={"k": 1}
        )
    os.remove("limit.txt")
    model = mlcli.pyfunc.load_model(info.model_uri, model_config={"more": 2})
    assert list(model.predict(FRAME)) == [0, 1]
    assert list(model.predict(FRAME, params={"limit": 0.95})) == [0, 0]
    assert model.unwrap().config == {"k": 1, "more": 2}
    assert model.unwrap_python_model().limit == 0.5
    with pytest.raises(InvalidInput, match="'a'"):
        model.predict(FRAME[["b"]])


def test_a_python_model_of_somebody_else_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlcli.pyfunc.save_model("saved", python_model=Threshold(), artifacts=_limit())
    with pytest.raises(ModelError, match="a Python object of its own"):
        mlcli.pyfunc.load_model("saved")
    assert list(mlcli.pyfunc.load_model("saved", trust=True).predict(FRAME)) == [0, 1]


def test_a_function_is_a_model() -> None:
    def double(model_input):
        return model_input["a"] * 2

    with mlcli.start_run():
        info = mlcli.pyfunc.log_model("model", python_model=double, input_example=FRAME)
    model = mlcli.pyfunc.load_model(info.model_uri)
    assert list(model.predict(FRAME)) == [0.2, 1.8]
    assert [item["name"] for item in model.signature.inputs] == ["a", "b"]
    assert model.metadata.run_id == info.run_id


def test_artifacts_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.txt").write_text(name)

    class Both(mlcli.pyfunc.PythonModel):
        def predict(self, context, model_input):
            return [Path(context.artifacts[name]).read_text() for name in ("x", "y")]

    files = {name: str(tmp_path / name / "file.txt") for name in ("x", "y")}
    mlcli.pyfunc.save_model("saved", python_model=Both(), artifacts=files)
    assert mlcli.pyfunc.load_model("saved", trust=True).predict(None) == ["x", "y"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "python_model or loader_module"),
        ({"python_model": 3}, "no Python model"),
        ({"python_model": Threshold}, "is a class"),
        ({"python_model": len, "loader_module": "x"}, "python_model or loader_module"),
    ],
)
def test_what_is_no_python_model_is_refused(given, error: str) -> None:
    with pytest.raises(InvalidInput, match=error):
        mlcli.pyfunc.save_model("m", **given)
    assert not os.path.exists("m")


def test_a_module_with_a_loader_of_its_own_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "scorer.py").write_text(
        "import json, os\n"
        "class Scorer:\n"
        "    def __init__(self, data): self.data = data\n"
        "    def predict(self, rows): return [row + self.data for row in rows]\n"
        "def _load_pyfunc(path): return Scorer(json.load(open(path)))\n"
    )
    (tmp_path / "data.json").write_text("10")
    mlcli.pyfunc.save_model(
        "m", loader_module="scorer", data_path=str(tmp_path / "data.json"), code_paths=[str(tmp_path / "scorer.py")]
    )
    code = "import sys, mlcli.pyfunc; print(mlcli.pyfunc.load_model('m', trust=True).predict([1, 2]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[11, 12]\n"


# -- what is kept with a model


def test_a_model_keeps_by_which_run_on_which_data_and_with_which_scores_it_was_made() -> None:
    model = LogisticRegression().fit(FRAME, [0, 1])
    Path("notes.md").write_text("hello")
    with mlcli.start_run(run_name="first") as run:
        mlcli.log_input(mlcli.data.from_pandas(FRAME, name="iris"), context="train")
        mlcli.log_metric("acc", 0.9)
        info = mlcli.sklearn.log_model(
            model,
            name="model",
            conda_env={"dependencies": ["python=3.9.13", {"pip": ["scikit-learn==1.2"]}]},
            extra_files=["notes.md"],
            params={"C": 1.0},
            tags={"stage": "try"},
            model_type="classifier",
            step=3,
            await_registration_for=0,
        )
        mlcli.log_metric("acc", 0.1)
    folder = Path(mlcli.artifacts.resolve(info.model_uri))
    content = yaml.safe_load((folder / "MLmodel").read_text())
    own = content["mlcli"]
    assert content["run_id"] == run.info.run_id
    assert own["run_name"] == "first"
    assert own["scores"] == {"acc": 0.9}
    assert [(item["name"], item["context"]) for item in own["data"]] == [("iris", "train")]
    assert (own["params"], own["tags"], own["model_type"], own["step"]) == (
        {"C": "1.0"},
        {"stage": "try"},
        "classifier",
        3,
    )
    assert (folder / "requirements.txt").read_text() == "scikit-learn==1.2\n"
    assert yaml.safe_load((folder / "python_env.yaml").read_text())["python"] == "3.9.13"
    assert content["flavors"]["sklearn"]["extra_files"] == [{"path": "extra_files/notes.md"}]
    assert (folder / "extra_files" / "notes.md").read_text() == "hello"
    assert (info.name, info.step, info.params) == ("model", 3, {"C": "1.0"})
    assert run.data.tags["mlcli.model.model.digest"] == info.digest


def test_requirements_given_twice_are_refused() -> None:
    model = LogisticRegression().fit(FRAME, [0, 1])
    with pytest.raises(InvalidInput, match="given twice"):
        mlcli.sklearn.save_model(model, "m", conda_env={"dependencies": []}, pip_requirements=["x"])
    Path("a.txt").write_text("-r b.txt\none\n")
    Path("b.txt").write_text("two\n# three\n")
    mlcli.sklearn.save_model(model, "m", pip_requirements=["-r a.txt", "four"])
    assert Path("m/requirements.txt").read_text().split() == ["two", "one", "four"]
    Path("b.txt").write_text("-r a.txt\n")
    with pytest.raises(InvalidInput, match="read themselves in"):
        mlcli.sklearn.save_model(model, "n", pip_requirements="a.txt")


def test_log_model_starts_no_program_and_asks_the_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError(f"a program was started: {args}")

    model = LogisticRegression().fit(FRAME, [0, 1])
    with mlcli.start_run():
        monkeypatch.setattr(subprocess, "Popen", refuse)
        monkeypatch.setattr(os, "system", refuse)
        assert mlcli.sklearn.log_model(model, "model", input_example=FRAME).model_uri


def test_an_array_is_fitted_to_the_signature_of_tensors() -> None:
    inputs = np.array([[0.1, 1.0], [0.9, 2.0]])
    mlcli.sklearn.save_model(LogisticRegression().fit(inputs, [0, 1]), "m", input_example=inputs)
    model = mlcli.pyfunc.load_model("m")
    assert list(model.predict(inputs)) == [0, 1]
    assert list(model.predict(inputs.astype("float32"))) == [0, 1]
    with pytest.raises(ModelError, match="numbers are wanted"):
        model.predict(np.array([["x", "y"]]))
    assert model.predict_fn.__self__ is model.unwrap()


# -- the real libraries, and MLflow beside them

_EXPOSED = """
import sys, os, json, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
os.environ["XDG_STATE_HOME"] = os.path.abspath("state")
import numpy as np, pandas as pd
X = pd.DataFrame(np.random.RandomState(0).rand(60, 3), columns=list("abc"))
y = np.array([0, 1] * 30)
said = {}
def same(name, got, want):
    said[name] = bool(np.allclose(np.asarray(got).ravel(), np.asarray(want).ravel()))
"""


def _run(python: Path, tmp_path: Path, code: str) -> dict[str, bool]:
    """Run ``code`` there, with mlcli exposed and nothing else of this environment."""
    (tmp_path / "expose").mkdir(exist_ok=True)
    if not (tmp_path / "expose" / "mlcli").exists():
        os.symlink(Path(mlcli.__file__).parent, tmp_path / "expose" / "mlcli")
    program = _EXPOSED + textwrap.dedent(code) + "\nprint(json.dumps(said))\n"
    done = subprocess.run(
        [python, "-c", program, tmp_path / "expose"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


@pytest.mark.slow
@pytest.mark.network
def test_boosters_load_both_ways_and_without_trust(tmp_path: Path) -> None:
    said = _run(
        mlflow_environments.python_with("boosters"),
        tmp_path,
        """
        import lightgbm, mlflow.lightgbm, mlflow.xgboost, xgboost
        import mlcli.lightgbm, mlcli.pyfunc, mlcli.xgboost
        matrix = xgboost.DMatrix(X, y)
        cases = [
            ("xgb", mlcli.xgboost, mlflow.xgboost, xgboost.XGBClassifier(n_estimators=3).fit(X, y)),
            ("booster", mlcli.xgboost, mlflow.xgboost, xgboost.train({}, matrix, 3)),
            ("lgb", mlcli.lightgbm, mlflow.lightgbm, lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(X, y)),
            ("text", mlcli.lightgbm, mlflow.lightgbm, lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, y), 3)),
        ]
        for name, ours, theirs, model in cases:
            want = model.predict(xgboost.DMatrix(X) if name == "booster" else X)
            ours.save_model(model, name, input_example=X[:2])
            theirs.save_model(model, name + "-theirs", pip_requirements=["x"])
            same(name + " here", mlcli.pyfunc.load_model(name).predict(X), want)
            same(name + " in MLflow", mlflow.pyfunc.load_model(name).predict(X), want)
            same(name + " of MLflow", mlcli.pyfunc.load_model(name + "-theirs").predict(X), want)
            said[name + " class"] = type(ours.load_model(name)) is type(model) is type(theirs.load_model(name))
            said[name + " requirements"] = ours.__name__.rpartition(".")[2] in open(name + "/requirements.txt").read()
        """,
    )
    assert len(said) == 20
    assert all(said.values()), said


@pytest.mark.slow
@pytest.mark.network
def test_pytorch_loads_both_ways_under_the_gate(tmp_path: Path) -> None:
    said = _run(
        mlflow_environments.python_with("torch", "3.10"),
        tmp_path,
        """
        import mlcli, mlcli.pyfunc, mlcli.pytorch, mlflow.pytorch, torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(3, 1)
            def forward(self, x):
                return torch.sigmoid(self.layer(x))
        net = Net()
        want = net(torch.from_numpy(X.to_numpy(dtype="float32"))).detach().numpy()
        mlcli.pytorch.save_model(net, "ours", input_example=X[:2])
        mlflow.pytorch.save_model(net, "theirs", pip_requirements=["x"])
        try:
            mlcli.pytorch.load_model("theirs")
        except mlcli.MlcliError as error:
            said["refused"] = "can run code" in str(error)
        same("here", mlcli.pyfunc.load_model("ours", trust=True).predict(X), want)
        same("in MLflow", mlflow.pyfunc.load_model("ours").predict(X), want)
        same("of MLflow", mlcli.pyfunc.load_model("theirs", trust=True).predict(X), want)
        with mlcli.start_run():
            uri = mlcli.pytorch.log_model(net).model_uri
        same("logged", mlcli.pyfunc.load_model(uri).predict(X), want)
        from mlcli.models.inspection import inspect
        found = inspect("theirs")
        said["names"] = not found.loads and any("torch" in name for name in found.names)
        import sys
        sys.modules["cloudpickle"] = None
        try:
            mlcli.pytorch.save_model(net, "without")
        except mlcli.MlcliError as error:
            said["told"] = "needs cloudpickle" in str(error)
        """,
    )
    assert len(said) == 7
    assert all(said.values()), said


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("version", ["newest", "2.22"])
def test_the_real_mlflow_loads_what_is_made_here_from_a_path_and_a_server_and_the_other_way_round(
    tmp_path: Path, version: str
) -> None:
    with serving(tmp_path / "mlruns") as (client, _):
        said = _run(
            mlflow_environments.python_with(version),
            tmp_path,
            f"""
            from sklearn.ensemble import RandomForestClassifier
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import FunctionTransformer
            import mlcli, mlcli.pyfunc, mlcli.sklearn
            forest = RandomForestClassifier(5, random_state=0).fit(X, y)
            def double(x):
                return x * 2
            own = make_pipeline(FunctionTransformer(double), forest).fit(X, y)
            metadata = {{"k": ["v", {{"ä": "b: c"}}]}}
            mlcli.set_tracking_uri("http://127.0.0.1:{client.port}")
            with mlcli.start_run() as run:
                mlcli.log_metric("acc", 0.5)
                info = mlcli.sklearn.log_model(
                    forest, "model", input_example=X[:2], metadata=metadata, registered_model_name="forest"
                )
            same("through a server", mlcli.pyfunc.load_model("models:/forest/1").predict(X), forest.predict(X))
            mlcli.sklearn.save_model(own, "own", input_example=X[:2])
            mlcli.sklearn.save_model(forest, "forest", input_example=X[:2])
            import mlflow
            mlflow.set_tracking_uri("http://127.0.0.1:{client.port}")
            for name, uri, model in (
                ("path", "forest", forest),
                ("by value", "own", own),
                ("run", info.model_uri, forest),
                ("version", "models:/forest/1", forest),
            ):
                same("sklearn " + name, mlflow.sklearn.load_model(uri).predict(X), model.predict(X))
                same("pyfunc " + name, mlflow.pyfunc.load_model(uri).predict(X), model.predict(X))
            meta = mlflow.models.get_model_info(info.model_uri)
            said["metadata"] = meta.metadata == metadata
            said["signature"] = [column.name for column in meta.signature.inputs] == list("abc")
            example = mlflow.pyfunc.load_model("forest").input_example if {version == "newest"} else None
            said["example"] = example is None or list(example.columns) == list("abc")
            os.environ["XDG_STATE_HOME"] = os.path.abspath("nobody")
            forms = ["pickle", "cloudpickle"]
            try:
                import skops
                forms += ["skops"] if {version == "newest"} else []
            except ImportError:
                pass
            for form in forms:
                more = {{}}
                if form == "skops":
                    more["skops_trusted_types"] = ["sklearn.tree._tree.Tree", "numpy.dtype"]
                mlflow.sklearn.save_model(forest, "theirs-" + form, serialization_format=form, pip_requirements=["x"], **more)
                same("theirs " + form, mlcli.pyfunc.load_model("theirs-" + form).predict(X), forest.predict(X))
            mlflow.sklearn.save_model(own, "theirs-own", serialization_format="cloudpickle", pip_requirements=["x"])
            try:
                mlcli.sklearn.load_model("theirs-own")
            except mlcli.MlcliError as error:
                said["gate"] = "can run code" in str(error)
            same("theirs by value", mlcli.sklearn.load_model("theirs-own", trust=True).predict(X), own.predict(X))
            with mlflow.start_run():
                logged = mlflow.sklearn.log_model(forest, "model", pip_requirements=["x"], **(
                    {{"serialization_format": "pickle"}} if {version == "newest"} else {{}}))
            same("theirs logged", mlcli.pyfunc.load_model(logged.model_uri).predict(X), forest.predict(X))
            """,
        )
    assert len(said) >= 16, said
    assert all(said.values()), said


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("version", ["newest", "2.22"])
def test_python_models_load_both_ways(tmp_path: Path, version: str) -> None:
    said = _run(
        mlflow_environments.python_with(version),
        tmp_path,
        """
        import subprocess
        make = '''
        import sys
        sys.path.insert(0, sys.argv[1])
        import mlcli.pyfunc
        class Mine(mlcli.pyfunc.PythonModel):
            def load_context(self, context):
                self.limit = float(open(context.artifacts["limit"]).read())
            def predict(self, context, model_input, params=None):
                return (model_input["a"] > self.limit).astype(int)
        open("limit.txt", "w").write("0.5")
        mlcli.pyfunc.save_model("ours", python_model=Mine(), artifacts={"limit": "limit.txt"})
        mlcli.pyfunc.save_model("function", python_model=lambda model_input: model_input["a"] * 2)
        '''
        import textwrap
        subprocess.run([sys.executable, "-c", textwrap.dedent(make), sys.argv[1]], check=True)
        sys.path.remove(sys.argv[1])
        import mlflow.pyfunc
        same("class in MLflow", mlflow.pyfunc.load_model("ours").predict(X), X["a"] > 0.5)
        same("function in MLflow", mlflow.pyfunc.load_model("function").predict(X), X["a"] * 2)
        said["without mlcli"] = "mlcli" not in sys.modules
        class Theirs(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):
                return model_input["a"] + 1
        mlflow.pyfunc.save_model("theirs", python_model=Theirs(), pip_requirements=["x"])
        sys.path.insert(0, sys.argv[1])
        import mlcli.pyfunc
        same("of MLflow", mlcli.pyfunc.load_model("theirs", trust=True).predict(X), X["a"] + 1)
        """,
    )
    assert len(said) == 4
    assert all(said.values()), said
    with pytest.raises(
        ModelError, match="missing here: No module named 'mlflow'"
    ):  # its class holds functions of MLflow
        mlcli.pyfunc.load_model(str(tmp_path / "theirs"), trust=True)


@pytest.mark.slow
@pytest.mark.network
def test_python_3_8_and_scikit_learn_1_0_work(tmp_path: Path) -> None:
    said = _run(
        mlflow_environments.python_with("old scikit-learn", "3.8"),
        tmp_path,
        f"""
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import estimators, mlcli, mlcli.pyfunc, mlcli.sklearn
        with mlcli.start_run():
            from sklearn.ensemble import RandomForestClassifier
            forest = RandomForestClassifier(3).fit(X, y)
            info = mlcli.sklearn.log_model(forest, "model", input_example=X[:2], registered_model_name="old")
        same("logged", mlcli.pyfunc.load_model("models:/old/1").predict(X), forest.predict(X))
        os.environ["XDG_STATE_HOME"] = os.path.abspath("nobody")
        for number, (name, model, inputs) in enumerate(estimators.fitted()):
            mlcli.sklearn.save_model(model, str(number), serialization_format="pickle")
            loaded = mlcli.sklearn.load_model(str(number))
            said[name] = type(loaded) is type(model)
        """,
    )
    assert len(said) > 300
    assert all(said.values()), said
