"""The bodies of `/invocations` and of the Open Inference Protocol: what they ask, and the answers to them.

Answers are the bytes that MLflow would send, but for NaN and infinity, which JSON does not have: they are null.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput, ModelError
from mlcli.models.schema import MISSING_WORDS, Columns, Given, Nested, Records, Rows, Schema, some_of

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_ALONE = "the body must be a JSON object with exactly one of " + ", ".join(FORMS)
# What chat and completion models are asked with: the body itself is the input, and the answer is not wrapped.
_CHAT = ("messages", "prompt", "input")


class Asked(NamedTuple):
    """What a body asks: ``given`` rows (or the whole body of a chat), and how the answer is to look."""

    given: Any
    params: Any = None
    bare: bool = False  # the answer is not wrapped in {"predictions": ...}
    infer: Optional[Mapping[str, Any]] = None  # the request of the Open Inference Protocol


# -- /invocations


def read_json(body: bytes, _schema: Optional[Schema], params: Sequence[str] = ()) -> Asked:
    """Read one of MLflow's four forms; ``params`` are the names that a chat may mix with its input."""
    content = _object(body)
    forms = [name for name in FORMS if name in content]
    if not forms and any([name in content for name in _CHAT]):
        chat = {name: value for name, value in content.items() if name not in params}
        return Asked(chat, {name: content[name] for name in params if name in content} or None, bare=True)
    if len(forms) != 1:
        raise ModelError(f"{_ALONE}; it has {some_of(list(content)) or 'nothing'}")
    form = forms[0]
    value = content[form]
    if form == "dataframe_split":
        given: Given = _split(value)
    elif form == "dataframe_records":
        if not isinstance(value, list):
            raise ModelError("dataframe_records must be a list of objects, one for each row")
        given = Records(value)
    else:
        given = _tensors(form, value)
    return Asked(given, content.get("params"))


def _object(body: bytes) -> Dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{_ALONE}; it is a {'list' if isinstance(content, list) else 'single value'}")
    return content


def _split(value: Any) -> Rows:
    if not isinstance(value, dict):
        raise ModelError('dataframe_split must be an object: {"columns": [...], "data": [[...]]}')
    strange = [name for name in value if name not in ("columns", "index", "data")]
    if "data" not in value or strange:
        told = f"it has {strange[0]!r}" if strange else "it has no data"
        raise ModelError(f"dataframe_split must have data, may have columns and index, and nothing else; {told}")
    names = value.get("columns")
    if not (names is None or isinstance(names, list)) or not isinstance(value["data"], list):
        raise ModelError("columns and data of dataframe_split must be lists")
    return Rows(names, value["data"], value.get("index"))


def _tensors(form: str, value: Any) -> Given:
    if isinstance(value, dict):
        if form == "instances":
            raise ModelError("instances must be a list; an object of columns goes into inputs")
        return Columns(value)
    if isinstance(value, list) and value and all([isinstance(row, dict) for row in value]):
        if form == "instances" and any([row.keys() != value[0].keys() for row in value]):
            raise ModelError("the objects in instances do not all have the same names")
        return Records(value)
    return Nested(value)


def read_csv(body: bytes, schema: Optional[Schema]) -> Asked:
    """Read a table whose first line names the columns."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"the body is not UTF-8: {error}") from None
    if schema is None:
        return Asked(_plain_csv(text))
    import io

    return Asked(next(csv_parts(io.StringIO(text, newline=""), None)))


def csv_parts(stream: Any, size: Optional[int]) -> Iterator[Rows]:
    """A CSV table in parts of ``size`` rows, values as text and None where there is none; None gives one part of all.

    Numbers stay text until they are converted as Python does it, to the nearest: pandas is off by one in the last bit now
    and then.
    """
    import csv

    reader = csv.reader(stream)
    try:
        names = next((row for row in reader if row), None)
        if names is None:
            raise ModelError("the input is empty: a CSV table begins with the names of its columns")
        rows: List[Any] = []
        told = False
        for row in reader:
            if len(row) != len(names):
                if not row:
                    continue
                raise ModelError(f"line {reader.line_num} has {len(row)} values and the header {len(names)}")
            rows.append(row)
            if len(rows) == size:
                yield Rows(names, rows)
                rows, told = [], True
        if rows or not told:  # columns without rows are told too: they may be the wrong ones
            yield Rows(names, rows)
    except csv.Error as error:
        raise ModelError(f"line {reader.line_num} is not CSV: {error}") from None


def without_gaps(rows: Rows) -> Rows:
    """The same rows with None for what a CSV table writes where it has no value."""
    return rows._replace(rows=[[None if value in MISSING_WORDS else value for value in row] for row in rows.rows])


def _plain_csv(text: str) -> Any:
    import io

    pandas = _pandas("a CSV table for a model without a signature")
    try:
        return pandas.read_csv(io.StringIO(text))
    except (ValueError, pandas.errors.ParserError) as error:
        raise ModelError(f"the body is not a CSV table: {error}") from None


def read_parquet(body: bytes, _schema: Optional[Schema]) -> Asked:
    """Read a table in Parquet; needs pandas, and pyarrow or fastparquet, in the model's environment."""
    import io

    pandas = _pandas("a Parquet table")
    try:
        return Asked(pandas.read_parquet(io.BytesIO(body)))
    except ImportError as error:
        raise ModelError("the model's environment cannot read Parquet", hint="it needs pyarrow") from error
    except Exception as error:  # noqa: BLE001 - pyarrow's errors are of its own kinds, and it may not be imported here
        raise ModelError(f"the body is not a Parquet table: {error}") from None


def _pandas(what: str) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise ModelError(f"{what} needs pandas in the model's environment", hint="send JSON instead") from None
    return pd


READERS = {JSON: read_json, CSV: read_csv, PARQUET: read_parquet}


# -- answers


def predictions(found: Any, *, bare: bool = False) -> bytes:
    """The answer of `/invocations`."""
    plain = plain_values(found)
    return dump(plain if bare else {"predictions": plain})


def plain_values(found: Any) -> Any:
    """What a model predicted as lists and objects, tables row by row, as MLflow shows them."""
    if hasattr(found, "to_dict") and hasattr(found, "columns"):
        return found.to_dict(orient="records")
    if hasattr(found, "to_frame") and hasattr(found, "index"):
        return found.to_frame().to_dict(orient="records")
    if hasattr(found, "tolist"):
        return found.tolist()
    return found


def dump(value: Any) -> bytes:
    try:
        return json.dumps(value, default=_plain, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(value), default=_plain).encode()
    except TypeError as error:
        raise ModelError(f"the model's answer cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return value.to_dict(orient="records")
    if isinstance(value, (bytes, bytearray)):
        import base64

        return base64.encodebytes(value).decode("ascii")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "dtype"):
        return str(value) if value.dtype.kind in "Mm" else _unwrapped(value.tolist())
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is among it")


def _unwrapped(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: Any) -> Any:
    """The same without NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _finite(value.tolist())
    return value


def failure(error_code: str, message: str, **more: str) -> bytes:
    """An error in MLflow's form."""
    return json.dumps({"error_code": error_code, "message": message, **more}).encode()


# -- Open Inference Protocol

_OF_OIP = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
_TO_OIP = {name: oip for oip, name in _OF_OIP.items()}
COLUMN_TO_OIP = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64",
    "string": "BYTES", "datetime": "BYTES", "binary": "BYTES",
}  # fmt: skip


def tensor_datatype(dtype: str) -> str:
    """The protocol's name for a type of NumPy's."""
    return _TO_OIP.get(dtype, "BYTES")


def read_infer(body: bytes, schema: Optional[Schema]) -> Asked:
    """Read an inference request: a tensor for each column, or one of rows that hold all columns in order."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the body is not JSON: {error}") from None
    inputs = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(inputs, list) or not inputs or not all([isinstance(item, dict) for item in inputs]):
        raise ModelError('the body must be {"inputs": [{"name", "shape", "datatype", "data"}, ...]}')
    tensors = {str(item.get("name")): _tensor_data(item) for item in inputs}
    if len(tensors) < len(inputs):
        raise InvalidInput("two inputs have the same name")
    parameters = content.get("parameters")
    asked = Asked(_of_tensors(tensors, schema), _params(parameters), infer=content)
    outputs = content.get("outputs")
    if outputs is not None and not (isinstance(outputs, list) and all([isinstance(item, dict) for item in outputs])):
        raise ModelError("outputs must be a list of objects with the names of the outputs that are wanted")
    return asked


def _params(parameters: Any) -> Any:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise ModelError("parameters must be an object")
    given = {name: value for name, value in parameters.items() if name not in ("content_type", "headers")}
    return given or None


def _tensor_data(item: Mapping[str, Any]) -> Tuple[List[int], Any]:
    """Shape and values, checked against each other; values nested as the shape says."""
    name, shape, kind = item.get("name"), item.get("shape"), item.get("datatype")
    if not isinstance(name, str) or not name:
        raise ModelError("an input has no name")
    if not isinstance(shape, list) or not all([type(length) is int and length >= 0 for length in shape]):
        raise InvalidInput(f"the shape of the input {name!r} must be a list of lengths")
    if not isinstance(kind, str) or (kind not in _OF_OIP and kind != "BYTES"):
        known = ", ".join([*_OF_OIP, "BYTES"])
        raise InvalidInput(f"the input {name!r} has the datatype {kind!r}; known: {known}")
    if "data" not in item:
        raise ModelError(f"the input {name!r} has no data; binary data are not supported, send JSON")
    flat = list(_flat(item["data"]))
    if len(flat) != math.prod(shape):
        raise InvalidInput(f"the input {name!r} has {len(flat)} values and its shape {shape} says {math.prod(shape)}")
    for value in flat:
        fine = isinstance(value, str) if kind == "BYTES" else isinstance(value, (int, float)) or value is None
        if not fine or (kind == "BOOL" and value not in (0, 1)) or not _in_range(kind, value):
            raise InvalidInput(f"the input {name!r} has {value!r:.60}, which is no {kind}")
    return shape, _folded(flat, shape)


def _in_range(kind: str, value: Any) -> bool:
    """Whether a number is one of the whole ones that the type has; any number is one of the others."""
    if kind[0] not in "UI" or value is None:
        return True
    bits = int(kind.lstrip("UINT"))
    low, high = (0, 2**bits) if kind[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return type(value) is not float and low <= value < high


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flat(item)
    else:
        yield data


def _folded(flat: List[Any], shape: Sequence[int]) -> Any:
    for length in reversed(shape[1:]):
        flat = [flat[start : start + length] for start in range(0, len(flat), length)] if length else []
    return flat


def _of_tensors(tensors: Mapping[str, Tuple[List[int], Any]], schema: Optional[Schema]) -> Given:
    if len(tensors) == 1:
        name, (shape, data) = next(iter(tensors.items()))
        columns = len(schema.columns) if schema else 0
        if (
            schema
            and schema.columns
            and len(shape) == 2
            and shape[1] == columns
            and (columns > 1 or name not in schema.names)
        ):
            return Rows(schema.names if schema.named else None, data)
        if schema and schema.tensors and schema.tensors[0].name is None:
            return Nested(data)
        if schema is None and len(shape) > 1:
            return Nested(data)
    return Columns({name: _column(name, *found, schema) for name, found in tensors.items()})


def _column(name: str, shape: Sequence[int], data: Any, schema: Optional[Schema]) -> Any:
    """A column of shape [n] or [n, 1] as a list of values; a tensor that the model names stays as it is."""
    if schema is not None and schema.tensors:
        return data
    if len(shape) == 2 and shape[1] == 1:
        return [row[0] for row in data]
    if len(shape) > 1:
        raise InvalidInput(f"the input {name!r} has the shape {list(shape)}; a column has [rows] or [rows, 1]")
    return data


def infer_answer(found: Any, asked: Mapping[str, Any], name: str, version: str, outputs: Sequence[str] = ()) -> bytes:
    """The answer to an inference request; ``outputs`` are the names that the signature gives."""
    import numpy as np

    if hasattr(found, "columns") and hasattr(found, "to_dict"):
        arrays = [(str(column), found[column].to_numpy()) for column in found.columns]
    elif isinstance(found, dict):
        arrays = [(str(key), np.asarray(value)) for key, value in found.items()]
    else:
        arrays = [(outputs[0] if outputs else "predictions", np.asarray(found))]
    wanted = [item.get("name") for item in asked.get("outputs") or ()]
    unknown = [one for one in wanted if one not in dict(arrays)]
    if unknown:
        known = ", ".join([known for known, _ in arrays])
        raise InvalidInput(f"there is no output {unknown[0]!r}; the model has {known}")
    answer = {
        "model_name": name,
        "model_version": version,
        **({"id": asked["id"]} if isinstance(asked.get("id"), str) else {}),
        "outputs": [_output(key, array) for key, array in arrays if not wanted or key in wanted],
    }
    return dump(answer)


def _output(name: str, array: Any) -> Dict[str, Any]:
    kind = tensor_datatype(str(array.dtype))
    flat = array.reshape(-1).tolist()
    if kind == "BYTES":
        flat = [value if isinstance(value, str) else _text(value) for value in flat]
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": flat}


def _text(value: Any) -> str:
    plain = value if isinstance(value, (dict, list)) else _shown(value)
    return plain if isinstance(plain, str) else json.dumps(plain, default=_plain)


def _shown(value: Any) -> Any:
    try:
        return _plain(value)
    except TypeError:
        return value
