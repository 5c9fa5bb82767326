"""What can be asked of a served model: its OpenAPI document and its tensors, from the signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlcli._version import __version__
from mlcli.models.payloads import COLUMN_TO_OIP, CSV, JSON, PARQUET, tensor_datatype

if TYPE_CHECKING:
    from mlcli.serving.pool import Pool

_OF_COLUMN: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
}
_ERROR = {
    "type": "object",
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error_code", "message"],
}
_ERRORS = {
    "400": "the body does not fit the model",
    "413": "the body is too large",
    "415": "the Content-Type is not known",
    "500": "the model's process ended",
    "503": "too much is waiting, or the model cannot be started",
    "504": "the model did not answer in time",
    "507": "the model ran out of memory",
}


def tensors(about: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs as the Open Inference Protocol describes them."""
    signature = about.get("signature") or {}
    return _tensors(signature.get("inputs"), "input"), _tensors(signature.get("outputs"), "predictions")


def _tensors(spec: Sequence[Mapping[str, Any]] | None, unnamed: str) -> list[dict[str, Any]]:
    found = []
    for number, item in enumerate(spec or ()):
        name = item.get("name") or (unnamed if not number else f"{unnamed}-{number}")
        if item.get("type") == "tensor":
            inner = item["tensor-spec"]
            kind, shape = tensor_datatype(inner["dtype"]), list(inner["shape"])
        else:
            kind, shape = COLUMN_TO_OIP.get(str(item.get("type")), "BYTES"), [-1]
        found.append({"name": name, "datatype": kind, "shape": shape})
    return found


def document(pool: Pool, *, protected: bool) -> dict[str, Any]:
    """The document for the model that a pool serves, with the model's own columns and example."""
    about = pool.about
    signature = about.get("signature") or {}
    row, named = _row(signature.get("inputs"))
    params = _params(signature.get("params"))
    example = about.get("example")
    models = f"/v2/models/{quote(pool.name, safe='')}"
    paths: dict[str, Any] = {
        "/invocations": {
            "post": {
                "summary": "Predict, in MLflow's protocol.",
                "operationId": "invocations",
                "requestBody": {
                    "required": True,
                    "content": {
                        JSON: {
                            "schema": _body(row, named, params),
                            **({} if example is None else {"example": example}),
                        },
                        CSV: {"schema": {"type": "string"}},
                        PARQUET: {},
                    },
                },
                "responses": {
                    "200": _answer("the predictions", {"$ref": "#/components/schemas/Predictions"}),
                    **_errors(),
                },
            }
        },
        f"{models}/infer": {
            "post": {
                "summary": "Predict, in the Open Inference Protocol.",
                "operationId": "infer",
                "requestBody": {"required": True, "content": {JSON: {"schema": _infer_body(about)}}},
                "responses": {"200": _answer("the outputs", {"type": "object"}), **_errors()},
            }
        },
        models: {"get": _get("Tell inputs and outputs.", "metadata")},
        "/ping": {"get": _get("Tell whether the model can predict.", "ping", JSON)},
        "/metrics": {"get": _get("Tell counts and latencies, for Prometheus.", "metrics", "text/plain")},
        "/version": {"get": _get("Tell the version of mlcli.", "version")},
    }
    components: dict[str, Any] = {
        "schemas": {
            "Row": row,
            "Error": _ERROR,
            "Predictions": {
                "type": "object",
                "properties": {"predictions": {}},
                "required": ["predictions"],
            },
        }
    }
    result: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": pool.name, "version": pool.version or "1", "description": _told(about, pool)},
        "paths": paths,
        "components": components,
        "x-mlcli": {
            "version": __version__,
            "signature": signature,
            "example": example,
            "flavors": about.get("flavors"),
        },
    }
    if protected:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        result["security"] = [{"bearer": []}]
    return result


def _told(about: Mapping[str, Any], pool: Pool) -> str:
    flavors = [name for name in about.get("flavors", []) if name != "python_function"]
    return f"Version {pool.version}: {' and '.join(flavors) or 'a model'}, Python {about.get('python')}"


def _row(spec: Sequence[Mapping[str, Any]] | None) -> tuple[dict[str, Any], bool]:
    """The schema of one row, and whether its columns have names."""
    if not spec:
        return {"description": "the model has no signature: rows as it was trained on"}, False
    if spec[0].get("type") == "tensor":
        inner = spec[0]["tensor-spec"]
        return _nested(inner["shape"][1:], str(inner["dtype"])), spec[0].get("name") is not None
    if spec[0].get("name") is None:
        return {"type": "array", "prefixItems": [_value(item) for item in spec], "minItems": len(spec)}, False
    return {
        "type": "object",
        "properties": {str(item["name"]): _value(item) for item in spec},
        "required": [str(item["name"]) for item in spec if item.get("required", True)],
    }, True


def _nested(shape: Sequence[int], dtype: str) -> dict[str, Any]:
    kind = {"i": "integer", "u": "integer", "f": "number", "b": "boolean"}.get(dtype[:1], "string")
    result: dict[str, Any] = {"type": kind}
    for length in reversed(shape):
        result = {"type": "array", "items": result, **({} if length < 0 else {"minItems": length, "maxItems": length})}
    return result


def _value(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type")
    if kind == "array":
        return {"type": "array", "items": _value(item["items"])}
    if kind == "map":
        return {"type": "object", "additionalProperties": _value(item["values"])}
    if kind == "object":
        properties = item["properties"]
        return {
            "type": "object",
            "properties": {name: _value(part) for name, part in properties.items()},
            "required": [name for name, part in properties.items() if part.get("required", True)],
        }
    return _OF_COLUMN.get(str(kind), {})


def _params(spec: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if not spec:
        return None
    found = {}
    for item in spec:
        value = _value(item)
        value = {"type": "array", "items": value} if item.get("shape") else value
        found[str(item["name"])] = {**value, "default": item.get("default")}
    return {"type": "object", "properties": found}


def _body(row: Mapping[str, Any], named: bool, params: Mapping[str, Any] | None) -> dict[str, Any]:
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}
    properties = row.get("properties")
    columns = {"type": "array", "items": {"type": "string", **({"enum": list(properties)} if properties else {})}}
    split = {
        "type": "object",
        "properties": {
            "columns": columns,
            "index": {"type": "array"},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        "required": ["data"],
    }
    forms: dict[str, Mapping[str, Any]] = {"dataframe_split": split, "dataframe_records": rows, "instances": rows}
    forms["inputs"] = (
        {"type": "object", "properties": {name: {"type": "array"} for name in properties or ()}} if named else rows
    )
    return {
        "oneOf": [
            {
                "type": "object",
                "title": name,
                "properties": {name: schema, **({} if params is None else {"params": params})},
                "required": [name],
            }
            for name, schema in forms.items()
        ]
    }


def _infer_body(about: Mapping[str, Any]) -> dict[str, Any]:
    inputs, _ = tensors(about)
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype", "data"],
    }
    example = {
        "inputs": [{**item, "shape": [1], "data": ["" if item["datatype"] == "BYTES" else 0]} for item in inputs]
    }
    return {
        "type": "object",
        "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor, "minItems": 1}},
        "required": ["inputs"],
        "examples": [example],
    }


def _answer(about: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {JSON: {"schema": schema}}}


def _errors() -> dict[str, Any]:
    return {status: _answer(about, {"$ref": "#/components/schemas/Error"}) for status, about in _ERRORS.items()}


def _get(summary: str, name: str, kind: str = JSON) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "responses": {"200": {"description": "done", "content": {kind: {}}}},
    }
