"""What a model may do while it is loaded: every estimator of scikit-learn loads unasked, and nothing hostile does anything."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import estimators
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import mlcli.sklearn
from mlcli.errors import InvalidInput, ModelError
from mlcli.models import pickles, program, trust

X, Y = estimators.X, estimators.CLASSES


def forge(folder: Path, content: bytes, form: str = "pickle", **flavor: object) -> str:
    """A model directory that somebody else made."""
    folder.mkdir()
    name = "model.skops" if form == "skops" else "model.pkl"
    (folder / name).write_bytes(content)
    own = {"pickled_model": name, "serialization_format": form, **flavor}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": own}}))
    return str(folder)


@pytest.fixture(scope="module")
def fitted() -> list[tuple[str, Any, Any]]:
    return list(estimators.fitted())


# -- what loads unasked


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # scikit-learn says of some that they will go
@pytest.mark.parametrize("form", ["pickle 4", "pickle 5", "cloudpickle", "skops"])
def test_every_estimator_that_can_be_fitted_loads_without_trust_and_says_the_same(fitted, tmp_path: Path, form) -> None:
    import cloudpickle
    import skops.io
    from sklearn.utils import all_estimators

    assert {name for name, _ in all_estimators()} <= {name for name, _, _ in fitted}
    asked, unable = [], []
    for number, (name, model, inputs) in enumerate(fitted):
        try:
            if form == "skops":
                content = skops.io.dumps(model)
            elif form == "cloudpickle":
                content = cloudpickle.dumps(model)
            else:
                content = pickle.dumps(model, int(form[-1]))
        except (TypeError, NotImplementedError, skops.io.exceptions.UnsupportedTypeException, RecursionError):
            unable.append(name)
            continue
        try:
            loaded = mlcli.sklearn.load_model(forge(tmp_path / str(number), content, form.split()[0]))
        except ModelError as error:
            asked.append((name, str(error)))
            continue
        before, after = estimators.answers(model, inputs), estimators.answers(loaded, inputs)
        assert type(before) is type(after), name
        if isinstance(before, np.ndarray) and before.dtype.kind in "if":
            np.testing.assert_allclose(before, after, rtol=1e-9, atol=1e-12, err_msg=name)
    # A bound method of its own: cloudpickle writes it with functions of its own; skops cannot follow it.
    bound = "HistGradientBoostingClassifier of three classes"
    assert [name for name, _ in asked] == ([bound] if form == "cloudpickle" else []), asked
    assert unable == (["Birch", bound] if form == "skops" else [])


def test_no_name_on_the_list_is_a_way_to_run_something() -> None:
    """What may be kept is a function of numbers or a type of array, what may be made bare is a class of scikit-learn."""
    for module, name in pickles._INSTANCES:
        assert module.split(".")[0] in ("sklearn", "scipy"), (module, name)
        assert "datasets" not in module
    for module, name in pickles._VALUES:
        found = getattr(sys.modules.get(module), name, None)
        if module.startswith("numpy") and found is not None:
            assert isinstance(found, (np.ufunc, type)) or name in ("mean", "median"), (module, name)
    assert not (pickles._VALUES | pickles._INSTANCES) & pickles._FOR_CALLS
    assert not pickles._VALUES & pickles._INSTANCES


# -- what does not


class _Calls:
    """Pickles as a call of something with something."""

    def __init__(self, func: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (func, args) if state is None else (func, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


def _named(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93"


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


_END = b"."
_HEAD = b"\x80\x04"
_ARRAY = _named("numpy._core.multiarray", "_reconstruct") + _named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def _dtype(text: str, state: bytes = b"") -> bytes:
    return _named("numpy", "dtype") + _text(text) + b"\x89\x88\x87R" + (state + b"b" if state else b"")


def _hostile(sentinel: str) -> dict[str, bytes]:
    import cloudpickle
    import joblib

    command = f"touch {sentinel}"
    made = LogisticRegression().fit(X, Y)
    dumped = io.BytesIO()
    joblib.dump(np.array([_Calls(os.system, command)], dtype=object), dumped)
    spoilt = LogisticRegression().fit(X, Y)
    spoilt.hidden = {"deep": [(_Calls(os.system, command),)]}
    return {
        "os.system": pickle.dumps(_Calls(os.system, command)),
        "deep in an estimator": pickle.dumps(spoilt),
        "protocol 0": pickle.dumps(_Calls(os.system, command), 0),
        "subprocess": pickle.dumps(_Calls(subprocess.call, ["touch", sentinel])),
        "eval": pickle.dumps(_Calls(eval, f"__import__('os').system({command!r})")),
        "exec": pickle.dumps(_Calls(exec, f"import os; os.system({command!r})")),
        "getattr chain": pickle.dumps(_Calls(getattr, _Calls(__import__, "os"), "system")),
        "getattr of an estimator": pickle.dumps(_Calls(getattr, made, "fit")),
        "cloudpickle lambda": cloudpickle.dumps(_Calls(lambda: os.system(command))),
        "cloudpickle transformer": cloudpickle.dumps(FunctionTransformer(lambda x: os.system(command))),
        "pip.main": _HEAD + _named("pip", "main") + _text("install") + b"\x85R" + _END,
        "instance of protocol 0": f"(S'{command}'\nios\nsystem\n.".encode(),
        "object of protocol 1": b"(" + b"cos\nsystem\n" + f"S'{command}'\n".encode() + b"o.",
        "persistent id": b"Pid\n.",
        "extension code": b"\x80\x02\x82\x01.",
        "dotted name": _HEAD + _named("sklearn.base", "BaseEstimator.__init__") + _END,
        "a second name of os": _HEAD + _named("sklearn.utils", "os.system") + _text(command) + b"\x85R" + _END,
        "joblib of objects": dumped.getvalue(),
        "numpy.load": _HEAD + _named("numpy", "load") + _text(sentinel) + b"\x85R" + _END,
        "numpy.f2py": _HEAD + _named("numpy.f2py", "compile") + _text("x") + b"\x85R" + _END,
        "runstring": _HEAD + _named("numpy.testing._private.utils", "runstring") + _text("x") + b"\x85R" + _END,
        "scipy distribution": pickle.dumps(__import__("scipy.stats").stats.norm(0, 1)),
        "array over bytes": _HEAD
        + _named("numpy", "ndarray")
        + b"K\x01\x85"
        + _text("O8")
        + b"C\x08AAAAAAAA\x87R"
        + _END,
        "array over bytes, bare": _HEAD + _named("numpy", "ndarray") + b"K\x01\x85\x85\x81" + _END,
        "kept for later": pickle.dumps(FunctionTransformer(np.ndarray, kw_args={"dtype": "O"})),
        "kept in a tuple": pickle.dumps(FunctionTransformer(None, kw_args={"a": ((np.ndarray,),)})),
        "objects that claim to be none": _HEAD
        + _ARRAY
        + b"(K\x01K\x01\x85"
        + _dtype("O8", b"(K\x03" + _text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t")
        + b"\x89C\x08AAAAAAAAtb"
        + _END,
        "objects in a record": _HEAD
        + _dtype(
            "V8",
            b"(K\x03" + _text("|") + b"N" + _text("a") + b"\x85}" + _text("a") + _dtype("O8") + b"K\x00\x86s"
            b"K\x08K\x01K\x10t",
        )
        + _END,
        "a shape of its own": _HEAD
        + _named("numpy._core.multiarray", "_reconstruct")
        + _named("numpy", "ndarray")
        + b"J\xff\xff\xff\x7f\x85C\x01b\x87R"
        + _END,
        "state of a class": _HEAD
        + _named("sklearn.linear_model._logistic", "LogisticRegression")
        + b"}"
        + _text("predict")
        + _named("numpy", "exp")
        + b"sb"
        + _END,
        "state set twice": pickle.dumps(DecisionTreeClassifier().fit(X, Y).tree_)[:-1] + b"}b" + _END,
        "call of what was made": _HEAD + _named("sklearn.dummy", "DummyClassifier") + b")\x81)R" + _END,
        "items into an estimator": _HEAD + _named("sklearn.dummy", "DummyClassifier") + b")\x81K\x01K\x02s" + _END,
        "a tree of too many answers": pickle.dumps(
            _Calls(type(DecisionTreeClassifier().fit(X, Y).tree_), 3, np.array([2]), 99)
        ),
    }


@pytest.mark.parametrize("case", sorted(_hostile("x")))
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, case: str) -> None:
    sentinel = tmp_path / "owned"
    with pytest.raises(ModelError) as caught:
        mlcli.sklearn.load_model(forge(tmp_path / "m", _hostile(str(sentinel))[case]))
    assert not sentinel.exists()
    assert "can run code" in str(caught.value) or "damaged" in str(caught.value), caught.value
    if "can run code" in str(caught.value):
        assert "mlcli models trust add" in caught.value.hint


def test_the_refusal_says_what_it_wanted_who_made_it_and_what_to_type(tmp_path: Path) -> None:
    folder = forge(tmp_path / "m", pickle.dumps(_Calls(collections.Counter, collections.ChainMap())))
    content = yaml.safe_load(Path(folder, "MLmodel").read_text())
    content.update(run_id="0123456789abcdef" * 2, utc_time_created="2026-01-02 03:04:05.678")
    Path(folder, "MLmodel").write_text(yaml.safe_dump(content))
    with pytest.raises(ModelError) as caught:
        mlcli.sklearn.load_model(folder)
    assert "it names collections.ChainMap" in str(caught.value)
    assert "by run 0123456789abcdef0123456789abcdef on 2026-01-02" in str(caught.value)
    assert f"mlcli models trust add {folder}" in caught.value.hint
    assert "mlcli models trust types add collections.ChainMap" in caught.value.hint
    assert "trust=True" in caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("cut", [0, 1, 2, 10, 100, -1])
def test_a_pickle_that_breaks_off_is_damaged(tmp_path: Path, cut: int) -> None:
    whole = pickle.dumps(LogisticRegression().fit(X, Y))
    with pytest.raises(ModelError, match="damaged"):
        mlcli.sklearn.load_model(forge(tmp_path / "m", whole[:cut]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_garbled_pickle_is_refused_or_loads_never_anything_else(data: st.DataObject) -> None:
    content = bytearray(_GARBLED)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        verdict = pickles.judge(bytes(content))
    except (program.Damaged, program.Strange):
        return
    if not verdict.refused and not verdict.faults:
        try:
            pickles._Unpickler(io.BytesIO(bytes(content)), frozenset(verdict.names)).load()
        except (
            pickle.UnpicklingError,
            ArithmeticError,
            AttributeError,
            EOFError,
            ImportError,
            LookupError,
            MemoryError,
            TypeError,
            ValueError,
            Warning,  # of another version of scikit-learn, or of NumPy
        ):
            pass  # what a loader turns into a ModelError


_GARBLED = pickle.dumps(LogisticRegression().fit(X[:4], Y[:4]), 4)

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text() | st.integers(), below, max_size=3)
        | st.tuples(below, below)
        | st.frozensets(st.text(), max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
)


@settings(max_examples=150, deadline=None)
@given(value=_PLAIN, protocol=st.sampled_from([1, 2, 3, 4, 5]))
def test_the_reader_follows_whatever_pickle_writes(value: Any, protocol: int) -> None:
    def same(stand_in: Any, real: Any) -> bool:
        if isinstance(stand_in, program.Bytes):
            return isinstance(real, (bytes, bytearray)) and stand_in.size == len(real)
        if isinstance(stand_in, program.Box):
            return type(real).__name__ == stand_in.kind and len(real) == stand_in.size
        if isinstance(stand_in, program.Made):
            return True  # bytes and sets of the older protocols
        if isinstance(real, tuple):
            return len(real) == len(stand_in) and all(map(same, stand_in, real))
        return bool(stand_in == real)

    assert same(program.read(pickle.dumps(value, protocol), program.Free()), value)


# -- skops


def _schema(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found: dict[str, Any] = json.loads(archive.read("schema.json"))
    return found


def _zipped(schema: Any, **more: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("schema.json", schema if isinstance(schema, (str, bytes)) else json.dumps(schema))
        for name, content in more.items():
            archive.writestr(name, content)
    return target.getvalue()


def _hostile_skops(sentinel: str) -> dict[str, bytes]:
    import skops.io

    plain = _schema(skops.io.dumps({"a": 1}))
    node = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 1}
    made = {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ConstructorFromReduceNode"}
    reduced = {
        **made,
        "content": {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "[]"},
    }
    called = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "ConstructorFromReduceNode"}
    tree = {"__class__": "system", "__module__": "os", "__loader__": "NdArrayNode", "type": "numpy", "file": "a.npy"}
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("schema.json", json.dumps(plain))
        archive.writestr("bomb.npy", b"\0" * (80 * 1024 * 1024))
    deep = "[" * 3000 + "]" * 3000
    crc = bytearray(_zipped(plain))
    crc[crc.index(b"protocol")] ^= 1
    return {
        "pickle by that name": pickle.dumps(_Calls(os.system, f"touch {sentinel}")),
        "function": _zipped({**plain, **node}),
        "constructor": _zipped({**plain, **reduced}),
        "array over bytes": _zipped({**plain, **called, "content": reduced["content"]}),
        "array of a strange type": _zipped({**plain, **tree}),
        "unknown loader": _zipped({**plain, "__loader__": "EvalNode"}),
        "protocol 999": _zipped({**plain, "protocol": 999}),
        "protocol of old": _zipped({**plain, "protocol": 0}),
        "3000 deep": _zipped(deep),
        "a list": _zipped([1]),
        "no schema": _zipped(plain).replace(b"schema.json", b"schemo.json"),
        "no JSON": _zipped("{"),
        "bomb": bomb.getvalue(),
        "garbled": bytes(crc),
        "empty zip": b"PK\x05\x06" + b"\0" * 18,
        "lambda": skops.io.dumps(FunctionTransformer(os.path.basename)),
        "partial": skops.io.dumps(FunctionTransformer(__import__("functools").partial(os.path.join, "a"))),
        "method": skops.io.dumps(FunctionTransformer(LogisticRegression().fit)),
        "attrgetter": skops.io.dumps(FunctionTransformer(__import__("operator").attrgetter("a"))),
    }


@pytest.mark.parametrize("case", sorted(_hostile_skops("x")))
def test_a_hostile_skops_file_is_refused_and_nothing_runs(tmp_path: Path, case: str) -> None:
    sentinel = tmp_path / "owned"
    content = _hostile_skops(str(sentinel))[case]
    said = ["os.system", "posixpath.basename", "posixpath.join"]
    with pytest.raises(ModelError):
        mlcli.sklearn.load_model(forge(tmp_path / "m", content, "skops", skops_trusted_types=said))
    assert not sentinel.exists()


# -- numbers that lead compiled code astray


def _spoilt(case: str) -> Any:
    if case.startswith("tree"):
        model = DecisionTreeClassifier(max_depth=3).fit(X, Y)
        state = model.tree_.__getstate__()
        nodes = state["nodes"]
        if case == "tree: child far away":
            nodes["left_child"][0] = 2**40
        elif case == "tree: child before its node":
            nodes["right_child"][0] = 0
        elif case == "tree: one child":
            nodes["left_child"][0] = -1
        else:
            nodes["feature"][0] = 99
        model.tree_ = _with_state(model.tree_, state)
        return model
    if case == "forest: tree of more features":
        forest = RandomForestClassifier(2).fit(X, Y)
        forest.estimators_[0] = DecisionTreeClassifier().fit(np.hstack([X, X]), Y)
        return forest
    if case == "boosting: more classes than trees":
        boosted = GradientBoostingClassifier(n_estimators=2).fit(X, np.arange(40) % 3)
        boosted.estimators_ = boosted.estimators_[:, :1].copy()
        return boosted
    if case.startswith("histogram"):
        histogram = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2).fit(X, Y)
        nodes = histogram._predictors[0][0].nodes
        nodes["left" if "child" in case else "feature_idx"][0] = 2**30
        return histogram
    if case.startswith("neighbors"):
        near = KNeighborsClassifier(algorithm="kd_tree").fit(X, Y)
        parts = list(near._tree.__getstate__())
        if "index" in case:
            parts[1][0] = 2**40
        else:
            parts[2]["idx_end"][0] = 2**40
        near._tree = _with_state(near._tree, tuple(parts))
        return near
    machine = SVC().fit(X, Y)
    machine._dual_coef_ = machine._dual_coef_[:, :1]
    return machine


class _Stated:
    def __init__(self, reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def _with_state(thing: Any, state: Any) -> Any:
    func, args = thing.__reduce__()[:2]
    return _Stated((func, args, state))


@pytest.mark.parametrize(
    "case",
    [
        "tree: child far away",
        "tree: child before its node",
        "tree: one child",
        "tree: feature that there is not",
        "forest: tree of more features",
        "boosting: more classes than trees",
        "histogram: child far away",
        "histogram: feature that there is not",
        "neighbors: index far away",
        "neighbors: node of points that there are not",
        "machine: lost coefficients",
    ],
)
def test_a_model_that_would_crash_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(ModelError, match="damaged or hostile"):
        mlcli.sklearn.load_model(forge(tmp_path / "m", pickle.dumps(_spoilt(case))))


# -- who may


def _found(tmp_path: Path, content: bytes) -> str:
    return forge(tmp_path / "m", content)


def test_the_digest_in_the_environment_grants_this_model_alone(tmp_path: Path, monkeypatch) -> None:
    from mlcli.models import mlmodel

    folder = _found(tmp_path, pickle.dumps(_Calls(os.path.basename, "a/b")))
    monkeypatch.setenv("MLCLI_TRUST", f"sha256:{'0' * 64}, {mlmodel.tree_digest(folder)}")
    assert mlcli.sklearn.load_model(folder) == "b"
    Path(folder, "extra").write_text("x")
    with pytest.raises(ModelError, match="can run code"):
        mlcli.sklearn.load_model(folder)
    monkeypatch.setenv("MLCLI_TRUST", "all")
    with pytest.raises(InvalidInput, match="no digest"):
        mlcli.sklearn.load_model(folder)


def test_a_trusted_type_loads_in_any_model(tmp_path: Path) -> None:
    folder = _found(tmp_path, pickle.dumps(_Calls(os.path.basename, "a/b")))
    trust.add_type("posixpath.basename")
    assert mlcli.sklearn.load_model(folder) == "b"
    for name in ("os.system", "builtins.eval", "cloudpickle.cloudpickle._make_function"):
        with pytest.raises(InvalidInput, match="could do everything"):
            trust.add_type(name)
    trust.remove("posixpath.basename")
    with pytest.raises(ModelError, match="can run code"):
        mlcli.sklearn.load_model(folder)


def test_notes_are_the_users_alone_and_a_cut_line_grants_nothing(tmp_path: Path) -> None:
    from mlcli.models import mlmodel

    folder = _found(tmp_path, pickle.dumps(_Calls(os.path.basename, "a/b")))
    trust.add(mlmodel.tree_digest(folder), folder)
    assert os.stat(trust.path()).st_mode & 0o077 == 0
    assert mlcli.sklearn.load_model(folder) == "b"
    text = Path(trust.path()).read_text()
    Path(trust.path()).write_text(text[: len(text) // 2])
    with pytest.raises(ModelError, match="can run code"):
        mlcli.sklearn.load_model(folder)


def test_nothing_in_the_model_or_its_store_grants_trust(tmp_path: Path, monkeypatch) -> None:
    """Tags of a run come from whoever can write to the store, and a store from anywhere."""
    from mlcli.models import mlmodel, saving

    monkeypatch.setenv("MLCLI_TRACKING_URI", str(tmp_path / "mlruns"))
    with mlcli.start_run() as run:
        content = pickle.dumps(_Calls(os.path.basename, "a/b"))
        folder = forge(tmp_path / "m", content, skops_trusted_types=["posixpath.basename"])
        mlcli.log_artifacts(folder, "model")
        mlcli.set_tag(saving.digest_tag("model"), mlmodel.tree_digest(folder))
    with pytest.raises(ModelError, match="can run code"):
        mlcli.sklearn.load_model(f"runs:/{run.info.run_id}/model")


def test_a_loader_and_code_of_its_own_are_not_imported(tmp_path: Path) -> None:
    folder = Path(forge(tmp_path / "m", b""))
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n_load_pyfunc = None\n")
    for python in ({"loader_module": "mine", "code": "code"}, {"loader_module": "mlflow.sklearn", "code": "code"}):
        flavors = {"python_function": python, "sklearn": {"pickled_model": "model.pkl"}}
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
        with pytest.raises(ModelError, match="can run code"):
            mlcli.pyfunc.load_model(str(folder))
    assert not (tmp_path / "owned").exists()
