"""The OpenAPI document, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mlcli._version import __version__
from mlcli.server.routes import Route
from mlcli.server.schema import described, described_object
from mlcli.server.security import OPEN

_ERROR = {
    "type": "object",
    "properties": {
        "error_code": {"type": "string"},
        "message": {"type": "string"},
        "hint": {"type": "string", "description": "what to do next, for people at mlcli's command line"},
    },
    "required": ["error_code", "message"],
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for route in routes:
        if route.page:  # their JSON has the shape of what is on the page, and no promise
            continue
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlcli",
            "version": __version__,
            "description": "MLflow's REST API 2.0 over an mlcli store.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    in_path = re.findall(r"\{(\w+)(?::path)?\}", route.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in in_path
    ]
    result: dict[str, Any] = {
        "summary": route.about,
        "operationId": re.sub(r"\W+", "_", f"{route.method} {route.path}").strip("_"),
        "x-permission": route.permission,
        "security": [] if route.permission == OPEN else [{"bearer": []}, {"basic": []}],
    }
    if route.method == "GET":
        parameters += [
            {"name": field.name, "in": "query", "required": field.required, "schema": described(field)}
            for field in route.fields
        ]
    elif route.fields:
        body = described_object(route.fields)
        result["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    elif route.method == "PUT":
        result["requestBody"] = {"content": {"application/octet-stream": {}}}
    if parameters:
        result["parameters"] = parameters
    error = {
        "description": "an error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    content = {"application/json": {"schema": {"type": "object"}}}
    if route.streams:
        content = {"text/plain": {}, "application/octet-stream": {}}
    result["responses"] = {
        "200": {"description": "done", **({} if route.method == "PUT" else {"content": content})},
        "default": error,
    }
    return result
