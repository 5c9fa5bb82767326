"""The search language as SQL."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Dict, NamedTuple, Optional, Sequence

from mlcli.errors import InvalidInput


class Query(NamedTuple):
    sql: str
    params: Dict[str, Any]


def runs(
    filter_string: str, order_by: Sequence[str], experiment_ids: Optional[Sequence[int]], view_type: str, now_ms: int
) -> Query:
    where = {"ACTIVE_ONLY": "r.lifecycle_stage = 'active'", "DELETED_ONLY": "r.lifecycle_stage = 'deleted'"}.get(view_type, "1 = 1")
    if experiment_ids is not None:
        where += f" AND r.experiment IN ({', '.join(map(str, experiment_ids))})"
    return Query(f"SELECT r.id FROM runs r WHERE {where} ORDER BY r.start_time DESC, r.run_id", {})


def experiments(filter_string: str, order_by: Sequence[str], view_type: str, now_ms: int) -> Query:
    where = {"ACTIVE_ONLY": "e.lifecycle_stage = 'active'", "DELETED_ONLY": "e.lifecycle_stage = 'deleted'"}.get(view_type, "1 = 1")
    return Query(f"SELECT e.id FROM experiments e WHERE {where} ORDER BY e.creation_time DESC, e.id", {})


def encode_token(offset: int) -> str:
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def decode_token(token: str) -> int:
    try:
        return int(json.loads(base64.b64decode(token))["offset"])
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise InvalidInput(f"{token!r} is not a page token") from None
