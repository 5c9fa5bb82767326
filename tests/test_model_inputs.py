"""What a signature makes of what callers send; estimators on arrays; files of rows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gateway import launch, naughty
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

import mlcli.sklearn
from mlcli.errors import InvalidInput, MlcliError, ModelError
from mlcli.models import infer_signature, payloads, worker
from mlcli.models.arrays import on_arrays
from mlcli.models.schema import Columns, Nested, Params, Records, Rows, Schema
from mlcli.serving.batch import predict_file

KINDS = ("integer", "long", "float", "double")


def schema(**columns: str) -> Schema:
    spec = [{"name": name, "type": kind, "required": not kind.endswith("?")} for name, kind in columns.items()]
    found = Schema.of([{**item, "type": item["type"].rstrip("?")} for item in spec])
    assert found is not None
    return found


numbers = {
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
    "double": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    names = [f"c{number}" for number in range(len(kinds))]
    row = st.tuples(*[numbers[kind] for kind in kinds]).map(list)
    return dict(zip(names, kinds, strict=True)), draw(st.lists(row, min_size=1, max_size=5))


@settings(max_examples=80)
@given(tables(), st.randoms())
def test_every_form_gives_the_array_that_pandas_gives(table, random):
    kinds, rows = table
    names = list(kinds)
    wanted = schema(**kinds)
    frame = pd.DataFrame(
        {name: np.array([row[place] for row in rows], dtype={"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}[kind])
         for place, (name, kind) in enumerate(kinds.items())}
    ).to_numpy()  # fmt: skip
    order = list(range(len(names)))
    random.shuffle(order)
    forms = [
        Rows(names, rows),
        Rows([names[place] for place in order], [[row[place] for place in order] for row in rows]),
        Records([dict(zip(names, row, strict=True)) for row in rows]),
        Columns({name: [row[place] for row in rows] for place, name in enumerate(names)}),
        Rows(names, [[repr(value) for value in row] for row in rows]),
    ]
    for form in forms:
        found = wanted.array(form)
        assert found.dtype == frame.dtype
        assert found.flags.f_contiguous
        assert np.array_equal(found, frame)
        assert np.array_equal(wanted.frame(form).to_numpy(), frame)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b", "columns", "data"]), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    st.sampled_from(payloads.FORMS),
    st.sampled_from([schema(a="double", b="long"), schema(a="double"), schema(a="string", b="boolean?"), None]),
)
@settings(max_examples=200)
def test_whatever_json_comes_it_is_read_or_refused(value, form, wanted):
    body = json.dumps({form: value}).encode()
    with contextlib.suppress(InvalidInput, ModelError):  # any other error is a bug
        given_ = payloads.read_json(body, wanted).given
        if wanted is not None:
            wanted.array(given_) if wanted.numeric else wanted.frame(given_)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("double", "x", "'x'"),
        ("double", [1], "a list"),
        ("double", {}, "an object"),
        ("long", 1.5, "1.5"),
        ("long", None, "may not be missing"),
        ("long", 2**63, str(2**63)),
        ("integer", 2**31, str(2**31)),
        ("boolean", "no", "'no'"),
        ("boolean", 2, "2"),
        ("datetime", "yesterday", "'yesterday'"),
        ("binary", "?", "'?'"),
        ("string", [1], "a list"),
    ],
)
def test_an_error_names_column_and_row_and_value(kind, value, told):
    fine = {"boolean": True, "datetime": "2024-05-01", "binary": "AA==", "string": "x"}.get(kind, 1)
    with pytest.raises(ModelError) as caught:
        schema(one="double", two=kind).frame(Rows(["one", "two"], [[1, fine], [1, value], [1, fine]]), first_row=100)
    assert "'two'" in caught.value.message
    assert "row 102" in caught.value.message
    assert told in caught.value.message


def test_a_missing_column_is_named_and_what_came_in_its_place():
    with pytest.raises(InvalidInput, match=r"no column 'b'; it has 'B'"):
        schema(a="double", b="double").array(Rows(["a", "B"], [[1, 2]]))


def test_optional_columns_may_be_left_out_or_empty():
    wanted = schema(a="double", b="double?")
    assert list(wanted.frame(Rows(["a"], [[1]]))) == ["a"]
    assert np.isnan(wanted.frame(Rows(["a", "b"], [[1, None]])).b[0])


def test_types_that_are_no_numbers_become_what_pandas_has_for_them():
    wanted = schema(t="string", f="boolean", d="datetime", y="binary")
    frame = wanted.frame(Rows(["t", "f", "d", "y"], [["a", True, "2024-05-01T12:00:00", "AQI="]]))
    assert frame.iloc[0].tolist() == ["a", True, pd.Timestamp("2024-05-01 12:00"), b"\x01\x02"]
    assert str(frame.d.dtype) == "datetime64[ns]"


def test_tensors_have_the_shape_and_type_of_the_signature():
    spec = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    wanted = Schema.of(spec)
    assert wanted.tensor(Nested([[1, 2]])).dtype == np.float32
    for bad in ([[1, 2, 3]], [1, 2], [["a", "b"]], 5):
        with pytest.raises(MlcliError):
            wanted.tensor(Nested(bad))


def test_params_are_checked_and_filled_with_their_defaults():
    params = Params.of(
        [
            {"name": "k", "type": "long", "default": 3, "shape": None},
            {"name": "w", "type": "double", "default": [1.0], "shape": [-1]},
        ]
    )
    assert params.fill(None) == {"k": 3, "w": [1.0]}
    assert params.fill({"k": 5, "w": [2], "other": 1}) == {"k": 5, "w": [2.0]}
    for bad in ({"k": "5"}, {"k": 1.5}, {"w": 1}, [1]):
        with pytest.raises(MlcliError):
            params.fill(bad)


@given(st.text(alphabet='ab,"\n\r 1', max_size=60), st.integers(1, 3))
def test_parts_of_a_csv_table_are_the_table(text, size):
    def rows(size):
        try:
            return [row for part in payloads.csv_parts(io.StringIO(text, newline=""), size) for row in part.rows]
        except ModelError:
            return None

    assert rows(size) == rows(None)


# -- estimators on arrays

RANDOM = np.random.default_rng(0)
X = pd.DataFrame({f"c{number}": RANDOM.normal(size=60) for number in range(7)})
WHOLE = pd.DataFrame({f"c{number}": RANDOM.integers(-50, 50, 60) for number in range(7)})
CLASSES = [RANDOM.integers(0, 2, 60), np.array(list("abc"))[RANDOM.integers(0, 3, 60)]]
MODELS = [
    *[make() for make in (LogisticRegression, SGDClassifier, LinearSVC, KNeighborsClassifier, SVC)],
    RandomForestClassifier(5),
    make_pipeline(StandardScaler(), LogisticRegression()),
    make_pipeline(MinMaxScaler(), StandardScaler(with_mean=False), LinearSVC()),
]
REGRESSORS = [LinearRegression(), Ridge(), ElasticNet(0.01), make_pipeline(StandardScaler(), LinearRegression())]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("table", [X, WHOLE], ids=["double", "long"])
@pytest.mark.parametrize("model", [*MODELS, *REGRESSORS], ids=str)
def test_an_estimator_answers_for_arrays_what_it_answers_for_tables_to_the_last_bit(model, table):
    regressor = model in REGRESSORS
    for target in (X.c0 * 3 - 1, X[["c1", "c2"]]) if regressor else CLASSES:
        model.fit(table, target)
        predict = on_arrays(model, "predict")
        for count in (1, 2, 60):
            rows = pd.DataFrame({name: table[name].to_numpy()[:count] for name in table})
            right = model.predict(rows)
            found = predict(np.asfortranarray(rows.to_numpy()))
            assert (found.dtype, found.shape, found.tobytes()) == (right.dtype, right.shape, right.tobytes())
    assert hasattr(model, "feature_names_in_")


def test_what_is_not_plain_gets_the_estimators_own_answer():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, CLASSES[0])
    predict = on_arrays(model, "predict")
    for bad in (np.full((1, 7), np.nan), np.full((1, 7), np.inf), np.ones((1, 3)), np.empty((0, 7))):
        with pytest.raises(ValueError, match=r"NaN|infinity|3 features|0 sample"):
            predict(bad)


def test_what_needs_a_table_gets_one():
    class Mine(LogisticRegression):
        pass

    columns = make_pipeline(make_column_transformer((StandardScaler(), ["c0"])), LinearRegression())
    for model in (columns, Mine(), make_pipeline(OneHotEncoder(), LogisticRegression())):
        assert on_arrays(model, "predict") is None
    assert (
        on_arrays(make_pipeline(StandardScaler(), LinearRegression()).set_output(transform="pandas"), "predict") is None
    )


# -- files


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "linear"
    rows = pd.DataFrame({"a": [0.0, 1, 2], "b": [1.0, 0, 5]})
    model = LinearRegression().fit(rows, rows.a * 2 + rows.b)
    mlcli.sklearn.save_model(model, folder, signature=infer_signature(rows, model.predict(rows)), input_example=rows)
    return folder


def job(model: Path, **file):
    return launch(model, file={"kind": "csv", "form": "csv", **file})


@pytest.fixture(scope="module")
def predictor(linear):
    return worker._loaded({"model": str(linear)})


def predicted(predictor, path: Path, form: str = "json", size: int = 10, seen: list[int] | None = None) -> str:
    with tempfile.TemporaryFile("w+") as target:
        file = worker.File(str(path), path.suffix[1:], target.fileno(), form, size)
        worker.predict_file(predictor, file, (seen if seen is not None else []).append)
        target.seek(0)
        return target.read()


def test_a_file_is_predicted_in_parts_and_an_error_counts_rows_of_the_whole(predictor, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("b,a\n" + "".join(f"{number},1\n" for number in range(95)))
    seen: list[int] = []
    lines = predicted(predictor, rows, "csv", seen=seen).splitlines()
    assert len(seen) == 10
    assert lines[0] == "prediction"
    assert [round(float(line), 6) for line in lines[1:]] == [2.0 + number for number in range(95)]
    rows.write_text("b,a\n" + "1,1\n" * 57 + "x,1\n")
    with pytest.raises(ModelError, match=r"'b' wants a number \(double\); row 58 has 'x'"):
        predicted(predictor, rows)


def test_all_forms_give_the_same_predictions(predictor, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "rows.jsonl").write_text('{"a": 1, "b": 2}\n\n{"a": 3, "b": 4}\n')
    (tmp_path / "rows.json").write_text('{"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}')
    for size in (1, 10):
        for path in tmp_path.iterdir():
            assert [round(found) for found in json.loads(predicted(predictor, path, size=size))["predictions"]] == [
                4,
                10,
            ]
    (tmp_path / "none.csv").write_text("a,b\n")
    assert predicted(predictor, tmp_path / "none.csv") == '{"predictions": []}'


def test_parquet_gives_the_predictions_of_csv(predictor, tmp_path):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"b": [2.0, 4.5, -1.0], "a": [1, 3, 7]})
    table.to_parquet(tmp_path / "rows.parquet")
    table.to_csv(tmp_path / "rows.csv", index=False)
    for size in (1, 2, 10):
        assert predicted(predictor, tmp_path / "rows.parquet", "csv", size) == predicted(
            predictor, tmp_path / "rows.csv", "csv", size
        )
    (tmp_path / "damaged.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-9])
    with pytest.raises(ModelError, match="not a Parquet table"):
        predicted(predictor, tmp_path / "damaged.parquet")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_table_without_a_header_is_refused(predictor, tmp_path, content):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(ModelError, match="the input is empty"):
        predicted(predictor, tmp_path / "rows.csv")


def test_a_header_alone_gives_no_predictions_and_must_have_the_columns(predictor, tmp_path):
    (tmp_path / "rows.csv").write_text("b,a\n")
    assert json.loads(predicted(predictor, tmp_path / "rows.csv", "json")) == {"predictions": []}
    (tmp_path / "rows.csv").write_text("a,c\n")
    with pytest.raises(InvalidInput, match="no column 'b'; it has 'c'"):
        predicted(predictor, tmp_path / "rows.csv")


def test_names_that_are_not_told_are_counted():
    schema = Schema.of([{"name": f"c{number}", "type": "long", "required": True} for number in range(13)])
    with pytest.raises(InvalidInput, match=r"'c9' and 3 more; it has 'd0', .*'d9' and 2 more, which the model"):
        schema.frame(Rows([f"d{number}" for number in range(12)], []))


def test_rows_may_come_from_a_pipe_that_this_process_alone_can_name(linear, tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"a,b\n1,2\n3,4\n")
    os.close(writer)
    assert predict_file(job(linear, source=f"/dev/fd/{reader}"), str(tmp_path / "out.csv")) == 2
    os.close(reader)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_standard_input_that_is_closed_is_told(predictor, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", None)
    with (tmp_path / "out").open("w") as target, pytest.raises(ModelError, match="standard input is closed"):
        worker.predict_file(predictor, worker.File(None, "csv", target.fileno(), "csv"), print)


def test_predictions_go_into_a_pipe_not_into_its_place(linear, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert predict_file(job(linear, source=str(tmp_path / "rows.csv")), str(tmp_path / "pipe")) == 2
        assert os.read(reader, 100).startswith(b"prediction\n")
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_appears_when_it_is_complete(linear, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    assert predict_file(job(linear, source=str(tmp_path / "rows.csv")), str(tmp_path / "out.csv")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "rows.csv"]
    assert (tmp_path / "out.csv").read_text().startswith("prediction\n")


def test_a_worker_that_dies_leaves_no_file(tmp_path):
    model = naughty(tmp_path / "model")
    (tmp_path / "rows.json").write_text('{"inputs": [[-4]]}')
    with pytest.raises(ModelError, match="signal 9"):
        predict_file(job(model, kind="json", source=str(tmp_path / "rows.json")), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_million_rows_need_no_more_memory_than_a_few(linear, tmp_path):
    """The worker may have 300 MB of address space beyond what it has when it begins; the table alone is 20 MB of text."""
    rows = tmp_path / "rows.csv"
    with rows.open("w") as file:
        file.write("a,b\n")
        for number in range(1000):
            file.write("".join(f"{number}.{part},0.25\n" for part in range(1000)))
    code = (
        "import resource, sys; from mlcli.models import worker\n"
        "predictor = worker._loaded({'model': sys.argv[1]})\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "import os; null = os.open(os.devnull, os.O_WRONLY); seen = []\n"
        "file = worker.File(sys.argv[2], 'csv', null, 'csv')\n"
        "print(worker.predict_file(predictor, file, lambda _: seen.append(peak())), seen[-1] - seen[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, linear, rows], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 1_000_000
    assert grown < 10_000  # kilobytes, from the third of its 50 parts to the last


@pytest.mark.slow
@pytest.mark.network
def test_a_model_predicts_in_the_environment_that_it_asks_for(tmp_path, mlcli):
    model = naughty(tmp_path / "model")
    (model / "python_env.yaml").write_text("python: '3.11'\ndependencies:\n- numpy==2.3.*\n")
    (tmp_path / "rows.json").write_text('{"inputs": [[4]]}')
    python = mlcli("models", "prepare-env", "-m", model, "--env-manager", "uv").stdout.strip()
    assert subprocess.run(
        [python, "-c", "import numpy; print(numpy.__version__)"], capture_output=True, text=True, check=True
    ).stdout.startswith("2.3.")
    done = mlcli("models", "predict", "-m", model, "-i", tmp_path / "rows.json", "--env-manager", "uv", "--trust")
    assert done.stdout == '{"predictions": [8.0]}'


def test_the_worker_runs_on_python_3_8_syntax():
    import ast

    for name in ("schema", "payloads", "arrays", "worker"):
        path = Path(payloads.__file__).with_name(f"{name}.py")
        ast.parse(path.read_text(), feature_version=(3, 8))
