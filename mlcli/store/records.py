"""What every part of the store shares: pages of a search, rows by their keys, the checks of small inputs."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from mlcli.errors import InvalidInput, NotFound
from mlcli.store import query
from mlcli.store.absorb import absorb
from mlcli.store.database import Database, bound

MAX_PAGE = 50_000
# An import may bring ids of 18 digits, which MLflow's file store gives; counting goes on below them.
NEXT_EXPERIMENT = "(SELECT COALESCE(MAX(id), 0) + 1 FROM experiments WHERE id < 1000000000000)"
PARENT_RUN = "mlflow.parentRunId"
KEYS_AT_ONCE = 500  # SQLite of old allows 999 parameters in a statement

Pairs = Union[Mapping[str, Any], Iterable[Tuple[str, Any]]]


class Records:
    """A database of records, beside the folder ``root`` that journals and artifacts lie in."""

    def __init__(self, root: str, database: Database) -> None:
        self.root = root
        self.database = database
        self.uri = root

    def absorb(self) -> None:
        """Apply what stands in the journals; every read of runs does this first."""
        if not self.database.in_transaction:
            absorb(self.database, self.root)

    def _page(
        self, select: query.Query, max_results: int, page_token: Optional[str], most: int = MAX_PAGE
    ) -> Tuple[List[int], Optional[str]]:
        if not 1 <= max_results <= most:
            raise InvalidInput(f"max_results must be between 1 and {most}, not {max_results}")
        offset = query.decode_token(page_token) if page_token else 0
        keys = select.page(self.database.query, max_results + 1, offset)
        more = len(keys) > max_results
        return keys[:max_results], query.encode_token(offset + max_results) if more else None

    def _by_keys(self, select: str, keys: Sequence[int], *, ordered: bool = True) -> List[Tuple[Any, ...]]:
        """Rows of ``select ... IN (keys)``; ``ordered`` puts them in the order of the keys, their first column."""
        rows: List[Tuple[Any, ...]] = []
        for start in range(0, len(keys), KEYS_AT_ONCE):
            some, params = bound(keys[start : start + KEYS_AT_ONCE])
            rows += self.database.query(f"{select} IN ({some})", params)
        if ordered:
            places = {key: place for place, key in enumerate(keys)}
            rows.sort(key=lambda row: places[row[0]])
        return rows

    def _count(self, sql: str, params: Mapping[str, Any] = {}) -> int:
        row = self.database.one(sql, params)
        return int(row[0]) if row else 0


def experiment_key(experiment_id: object) -> int:
    text = str(experiment_id)
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    raise no_experiment(experiment_id)


def no_experiment(experiment_id: object) -> NotFound:
    return NotFound(f"there is no experiment {experiment_id!r}", hint="`mlcli experiments search` lists ids and names")


def grouped(rows: Iterable[Tuple[Any, ...]]) -> Dict[int, Dict[str, Any]]:
    result: Dict[int, Dict[str, Any]] = {}
    for owner, key, value in rows:
        result.setdefault(owner, {})[key] = value
    return result


def pairs(given: Optional[Pairs]) -> List[Tuple[str, Any]]:
    if given is None:
        return []
    return list(given.items()) if isinstance(given, Mapping) else [(key, value) for key, value in given]
