"""Datasets as inputs: told by their content, described, kept with the run."""

from __future__ import annotations

import json

import pytest

import mlcli
from mlcli.errors import InvalidInput

pandas = pytest.importorskip("pandas", reason="needs pandas (pip install 'mlcli[test]')")
numpy = pytest.importorskip("numpy", reason="needs numpy (pip install 'mlcli[test]')")


def frame(first: float = 0.1):
    return pandas.DataFrame({"a": [first, 2.5], "b": [1, 2], "이름": ["x", "y"]})


def test_a_dataframe_is_kept_with_the_run(tmp_path) -> None:
    with mlcli.start_run() as run:
        mlcli.log_input(mlcli.data.from_pandas(frame(), source="wine.csv", targets="b", name="wine"), context="train")
    (found,) = mlcli.get_run(run.info.run_id).inputs.dataset_inputs
    dataset = found.dataset
    assert (dataset.name, dataset.source_type, json.loads(dataset.source)) == ("wine", "local", {"uri": "wine.csv"})
    assert [(column["name"], column["type"]) for column in json.loads(dataset.schema)["mlflow_colspec"]] == [
        ("a", "double"),
        ("b", "long"),
        ("이름", "string"),
    ]
    assert json.loads(dataset.profile) == {"num_rows": 2, "num_elements": 6}
    assert dict(found.tags) == {"mlflow.data.context": "train"}
    assert [
        item.info.run_id for item in mlcli.search_runs(filter_string="dataset.name = 'wine'", output_format="list")
    ] == [run.info.run_id]


def test_the_same_content_has_the_same_digest_and_another_another() -> None:
    digests = [mlcli.data.from_pandas(frame(value)).digest for value in (0.1, 0.1, 0.1 + 1e-12)]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 8
    assert mlcli.data.from_pandas(frame().rename(columns={"a": "c"})).digest != digests[0]


def test_arrays_and_their_targets_are_described() -> None:
    fields = mlcli.data.from_numpy(numpy.zeros((5, 2)), targets=numpy.ones(5)).to_dict()
    assert json.loads(fields["profile"]) == {
        "features_shape": [5, 2],
        "features_size": 10,
        "targets_shape": [5],
        "targets_size": 5,
    }
    assert json.loads(fields["schema"])["mlflow_tensorspec"]["features"][0]["tensor-spec"] == {
        "dtype": "float64",
        "shape": [-1, 2],
    }
    assert fields["source_type"] == "code"
    other = mlcli.data.from_numpy(numpy.zeros((2, 5)), targets=numpy.ones(5))
    assert other.digest != fields["digest"]


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no column 'quality'"):
        mlcli.data.from_pandas(frame(), targets="quality")


def test_a_source_may_be_an_address() -> None:
    fields = mlcli.data.from_pandas(frame(), source="https://example.invalid/wine.csv").to_dict()
    assert (fields["source_type"], json.loads(fields["source"])) == (
        "http",
        {"url": "https://example.invalid/wine.csv"},
    )
