"""The search language while it is typed: what is wrong so far, and what could come next."""

from __future__ import annotations

import re
from typing import Any

from mlcli import filters
from mlcli.errors import InvalidInput
from mlcli.server.pages import Visit
from mlcli.server.pages.runs import problem
from mlcli.store import Store, survey

_KINDS = {"metric": "metrics", "metrics": "metrics", "param": "params", "params": "params", "parameter": "params",
          "parameters": "params", "tag": "tags", "tags": "tags"}  # fmt: skip
_KEY = re.compile(r"(\w+)\.(`[^`]*|\"[^\"]*|[\w.]*)$")
_VALUE = re.compile(r"(params?|tags?)\.(`[^`]+`|\"[^\"]+\"|[\w.]+)\s*(?:=|!=|LIKE|ILIKE)\s*'([^']*)$", re.IGNORECASE)
_WORD = re.compile(r"(\w*)$")
_AFTER_TEST = re.compile(r"(?:'|\"|\)|\d|NULL|NAN)\s+\w*$", re.IGNORECASE)
_AFTER_COLUMN = re.compile(r"(?:\w+\.(?:`[^`]+`|\"[^\"]+\"|[\w.]+)|\b(?:status|run_name|run_id|start_time|end_time|duration|user_id))\s+$")  # fmt: skip
MOST = 12


def check(visit: Visit, store: Store) -> dict[str, Any]:
    """Judge a filter; ``at`` is where the cursor stands in it."""
    text = visit.query.one("filter")[: filters.MAX_BYTES]
    at = visit.query.whole("at", len(text), 0, len(text))
    wrong = None
    try:
        filters.parse(text.strip())
    except InvalidInput as error:
        wrong = problem(error)
    start, words = _next(store, text[:at])
    return {"problem": wrong, "start": start, "end": at, "words": words[:MOST]}


def _next(store: Store, text: str) -> tuple[int, list[str]]:
    """Where the word begins that is being typed, and what it could become."""
    if match := _VALUE.search(text):
        key = match[2].strip('`"')
        found = survey.values(store, _KINDS[match[1].lower()], key, match[3], MOST)
        return match.start(3) - 1, ["'" + value.replace("'", "''") + "'" for value in found]
    if (match := _KEY.search(text)) and match[1].lower() in _KINDS:
        begin = match[2].lstrip('`"')
        found = survey.keys(store, _KINDS[match[1].lower()], begin, MOST)
        return match.start(2), [
            key if re.fullmatch(r"\w+(\.\w+)*", key) else f"`{key}`" for key in found if "`" not in key
        ]
    if _AFTER_COLUMN.search(text):
        return len(text), ["= ", "!= ", "> ", "< ", ">= ", "<= ", "LIKE ", "IN (", "IS NULL"]
    word = _WORD.search(text)
    begin = word[1] if word else ""
    columns = ["metrics.", "params.", "tags.", *filters.RUNS.attributes]
    choices = ["AND ", "OR "] if _AFTER_TEST.search(text) else [*columns, "NOT "]
    return len(text) - len(begin), [
        item for item in choices if item.lower().startswith(begin.lower()) and item != begin
    ]
