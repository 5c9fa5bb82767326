"""What a request is about: the unit that it names and the fields that a rollout's `match` asks for, from headers and bodies."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlcli.models.worker import CSV, INFER, JSON
from mlcli.store.rollouts import unit_of

_CSV_HEAD = 65_536


def named(
    headers: Mapping[bytes, bytes], kind: int, body: bytes, header: str, fields: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """The header's value, "" without one, and the fields of the body's first row that are there."""
    found = headers.get(header.lower().encode("latin-1", "replace"), b"") if header else b""
    try:
        text = found.decode()
    except UnicodeDecodeError:
        text = found.decode("latin-1")
    return unit_of(text), fields_of(kind, body, fields) if fields else {}


def fields_of(kind: int, body: bytes, fields: Sequence[str]) -> dict[str, str]:
    """Fields beside the rows or in the first row; nothing of a body that cannot be read, which the worker will refuse."""
    try:
        if kind == CSV:
            rows = csv.reader(io.StringIO(body[:_CSV_HEAD].decode("utf-8-sig", "replace")))
            table = dict(zip(next(rows, []), next(rows, []), strict=False))
            return {field: unit_of(table[field]) for field in fields if table.get(field)}
        if kind not in (JSON, INFER):
            return {}
        content = json.loads(body)
    except (ValueError, RecursionError, csv.Error):
        return {}
    if not isinstance(content, dict):
        return {}
    found = {}
    for field in fields:
        value = _tensor(content, field) if kind == INFER else _first(content, field)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
            found[field] = unit_of(str(value))
    return found


def _tensor(content: Mapping[str, Any], field: str) -> Any:
    told = content.get("parameters")
    if isinstance(told, dict) and field in told:
        return told[field]
    for one in content.get("inputs") or ():
        if isinstance(one, dict) and one.get("name") == field:
            data = one.get("data")
            while isinstance(data, list):
                data = data[0] if data else None
            return data
    return None


def _first(content: Mapping[str, Any], field: str) -> Any:
    if field in content:
        return content[field]
    told = content.get("params")
    if isinstance(told, dict) and field in told:
        return told[field]
    records = content.get("dataframe_records") or content.get("instances")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        return records[0].get(field)
    split = content.get("dataframe_split")
    if isinstance(split, dict):
        columns, data = split.get("columns"), split.get("data")
        if (
            isinstance(columns, list)
            and field in columns
            and isinstance(data, list)
            and data
            and isinstance(data[0], list)
        ):
            place = columns.index(field)
            return data[0][place] if place < len(data[0]) else None
    columns = content.get("inputs")
    if isinstance(columns, dict):
        value = columns.get(field)
        while isinstance(value, list):
            value = value[0] if value else None
        return value
    return None
