"""The signature of a model: what goes in and what comes out, in MLflow's form, inferred from examples."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from mlcli.errors import InvalidInput

Spec = List[Dict[str, Any]]

_COLUMN_TYPES = {"b": "boolean", "S": "binary", "U": "string", "O": "string", "M": "datetime"}


class ModelSignature(NamedTuple):
    """Inputs, outputs and params of a model; each a list of column or tensor specifications."""

    inputs: Optional[Spec] = None
    outputs: Optional[Spec] = None
    params: Optional[Spec] = None

    def to_dict(self) -> Dict[str, Optional[str]]:
        """As it stands in an MLmodel: each part a JSON text."""
        return {name: None if part is None else json.dumps(part) for name, part in self._asdict().items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> ModelSignature:
        return cls(*(json.loads(given[name]) if given.get(name) else None for name in cls._fields))


def infer_signature(model_input: Any = None, model_output: Any = None, params: Any = None) -> ModelSignature:
    """Infer a signature from an example input and output: tables by column, arrays by type and shape."""
    return ModelSignature(
        None if model_input is None else _spec(model_input),
        None if model_output is None else _spec(model_output),
        None if params is None else _params(params),
    )


def as_dict(signature: Any) -> Dict[str, Any]:
    """A signature of ours or of MLflow's as it stands in an MLmodel."""
    try:
        result: Dict[str, Any] = dict(signature.to_dict())
    except (AttributeError, TypeError, ValueError):
        raise InvalidInput(
            f"{signature!r} is not a signature", hint="make one with mlcli.models.infer_signature(X, model.predict(X))"
        ) from None
    return result


def _spec(example: Any) -> Spec:
    if hasattr(example, "columns") and hasattr(example, "dtypes"):  # a DataFrame
        return [
            _column(example[name].dtype, str(name), values=example[name], required=not _has_missing(example[name]))
            for name in example.columns
        ]
    if hasattr(example, "dtype") and hasattr(example, "index"):  # a Series
        name = None if example.name is None else str(example.name)
        return [_column(example.dtype, name, values=example, required=not _has_missing(example))]
    if hasattr(example, "dtype") and hasattr(example, "shape") and not hasattr(example, "item_size"):
        shape = [-1, *map(int, example.shape[1:])] if len(example.shape) else []
        return [{"type": "tensor", "tensor-spec": {"dtype": _dtype_name(example.dtype), "shape": shape}}]
    if isinstance(example, Mapping):
        return [{**_of_values(value), "name": str(name), "required": True} for name, value in example.items()]
    if isinstance(example, (list, tuple)) and example and all(isinstance(row, Mapping) for row in example):
        return _spec(example[0])
    return [{**_of_values(example), "required": True}]


def _has_missing(column: Any) -> bool:
    return bool(column.isna().any())


def _column(dtype: Any, name: Optional[str], *, values: Any, required: bool) -> Dict[str, Any]:
    kind = getattr(dtype, "kind", "O")
    if kind in "iu":
        short = dtype.itemsize < 4 or (kind == "i" and dtype.itemsize == 4)
        type_name = "integer" if short else "long"
    elif kind == "f":
        type_name = "float" if dtype.itemsize <= 4 else "double"
    elif kind == "O" and len(values) and all(isinstance(value, bool) for value in values):
        type_name = "boolean"
    elif kind in _COLUMN_TYPES:
        type_name = _COLUMN_TYPES[kind]
    else:
        raise InvalidInput(f"column {name!r} has the type {dtype}, which a signature cannot describe")
    return {"type": type_name, **({} if name is None else {"name": name}), "required": required}


def _of_values(value: Any) -> Dict[str, Any]:
    """The type of a plain Python value, or of what a list holds."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    if hasattr(value, "dtype"):
        return {"type": _column(value.dtype, None, values=[value], required=True)["type"]}
    for kind, name in ((bool, "boolean"), (int, "long"), (float, "double"), (str, "string"), (bytes, "binary")):
        if isinstance(value, kind):
            return {"type": name}
    raise InvalidInput(f"a signature cannot describe a {type(value).__name__}")


def _dtype_name(dtype: Any) -> str:
    return "str" if dtype.kind == "U" else str(dtype)


def _params(params: Mapping[str, Any]) -> Spec:
    return [
        {
            "name": name,
            **_of_values(value),
            "default": value,
            "shape": [-1] if isinstance(value, (list, tuple)) else None,
        }
        for name, value in params.items()
    ]
