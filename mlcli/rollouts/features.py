"""The columns of recorded request bodies, for the look at drift."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any


def table_of(bodies: Sequence[str]) -> dict[str, list[Any]]:
    """Values per feature over the rows of all bodies; rows without names get ``feature_0`` and on."""
    found: dict[str, list[Any]] = {}
    for body in bodies:
        for row in rows_of(body):
            for name, value in row.items():
                if not isinstance(value, (list, dict)):
                    found.setdefault(name, []).append(value)
    return found


def rows_of(body: str) -> list[dict[str, Any]]:
    """The rows of one body in any of the forms of `/invocations`; none of one that cannot be read."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return [
            {name: _number(value) for name, value in row.items() if name} for row in csv.DictReader(io.StringIO(body))
        ]
    if not isinstance(content, dict):
        return []
    split = content.get("dataframe_split")
    if isinstance(split, dict):
        return [dict(zip(split.get("columns") or [], row, strict=False)) for row in split.get("data") or []]
    records = content.get("dataframe_records")
    if records is None:
        records = content.get("instances", content.get("inputs"))
    if isinstance(records, dict):
        columns = {name: value if isinstance(value, list) else [value] for name, value in records.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]
    if not isinstance(records, list):
        return []
    return [
        row
        if isinstance(row, dict)
        else {f"feature_{n}": value for n, value in enumerate(row if isinstance(row, list) else [row])}
        for row in records
    ]


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text
