"""What pages ask of a store beyond its records: how much there is, which keys, groups of runs, curves as numbers.

Each is one statement, or one for each curve, over the indexes that searches use.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from mlcli import journal
from mlcli.entities import Run, ViewType
from mlcli.store import query
from mlcli.store.records import KEYS_AT_ONCE, experiment_key
from mlcli.store.tracking import Store

MAX_GROUPS = 200
_GREATEST = 1.7976931348623157e308  # beyond is infinity
_TABLES = {"params": "params", "metrics": "series", "tags": "tags"}


class Activity(NamedTuple):
    """How many active runs an experiment has, how many of them go on, when the last one started."""

    runs: int = 0
    running: int = 0
    last: Optional[int] = None


def activity(store: Store) -> Dict[str, Activity]:
    """The activity of each experiment that has runs."""
    store.absorb()
    rows = store.database.query(
        "SELECT experiment, count(*), max(start_time) FROM runs WHERE lifecycle_stage = 'active' GROUP BY experiment"
    )
    going = store.database.query(
        "SELECT experiment, count(*) FROM runs WHERE status IN ('RUNNING', 'SCHEDULED')"
        " AND lifecycle_stage = 'active' GROUP BY experiment"
    )
    running = dict(going)
    return {str(key): Activity(runs, running.get(key, 0), last) for key, runs, last in rows}


def count_runs(
    store: Store,
    experiment_ids: Optional[Sequence[str]],
    filter_string: str = "",
    view_type: str = ViewType.ACTIVE_ONLY,
) -> int:
    """How many runs a search finds."""
    found, params = _search(store, experiment_ids, filter_string, view_type)
    row = store.database.one(f"SELECT count(*) FROM ({found}) AS found", params)
    return int(row[0]) if row else 0


def keys(store: Store, kind: str, begin: str = "", limit: int = 50) -> List[str]:
    """The keys of ``params``, ``metrics`` or ``tags`` that begin with a text, in order; each costs one look into an index."""
    table = _TABLES[kind]
    rows = store.database.query(
        f"WITH RECURSIVE found (key, n) AS (SELECT min(key), 1 FROM {table} WHERE key >= :low"
        f" UNION ALL SELECT (SELECT min(x.key) FROM {table} x WHERE x.key > found.key), n + 1 FROM found"
        " WHERE key IS NOT NULL AND key < :high AND n < :most)"
        " SELECT key FROM found WHERE key IS NOT NULL AND key < :high ORDER BY key",
        {"low": begin, "high": begin + "\U0010ffff", "most": limit},
    )
    return [row[0] for row in rows]


def values(store: Store, kind: str, key: str, begin: str = "", limit: int = 20) -> List[str]:
    """Values that a param or tag has, in order."""
    table = _TABLES[kind]
    short = " AND length(value) <= 200"
    rows = store.database.query(
        f"WITH RECURSIVE found (value, n) AS"
        f" (SELECT min(value), 1 FROM {table} WHERE key = :key AND value >= :low{short}"
        f" UNION ALL SELECT (SELECT min(x.value) FROM {table} x WHERE x.key = :key AND x.value > found.value"
        f" AND length(x.value) <= 200), n + 1 FROM found WHERE value IS NOT NULL AND value < :high AND n < :most)"
        " SELECT value FROM found WHERE value IS NOT NULL AND value < :high ORDER BY value",
        {"key": key, "low": begin, "high": begin + "\U0010ffff", "most": limit},
    )
    return [row[0] for row in rows]


class RunGroup(NamedTuple):
    """Runs that share a value of a param or tag; ``metrics`` has (least, mean, greatest, how many have it) of each."""

    value: str
    runs: int
    last: int
    metrics: Dict[str, Tuple[float, float, float, int]]


def groups(
    store: Store,
    experiment_ids: Optional[Sequence[str]],
    filter_string: str,
    view_type: str,
    by: str,
    metrics: Sequence[str],
) -> List[RunGroup]:
    """Groups of the runs that a search finds, the largest first; ``by`` is ``params.<key>`` or ``tags.<key>``."""
    store.absorb()
    kind, _, key = by.partition(".")
    table = _TABLES[kind]
    found, bound = _search(store, experiment_ids, filter_string, view_type)
    params = {**bound, "group_key": key, "most": MAX_GROUPS}
    rows = store.database.query(
        f"SELECT x.value, count(*) AS runs, max(r.start_time) FROM ({found}) AS found"
        f" JOIN {table} x ON x.run = found.id AND x.key = :group_key JOIN runs r ON r.id = found.id"
        " GROUP BY x.value ORDER BY runs DESC, x.value LIMIT :most",
        params,
    )
    numbers: Dict[str, Dict[str, Tuple[float, float, float, int]]] = {}
    for metric in metrics:
        for value, *spread in store.database.query(
            f"SELECT x.value, min(s.value), avg(s.value), max(s.value), count(*) FROM ({found}) AS found"
            f" JOIN {table} x ON x.run = found.id AND x.key = :group_key"
            " JOIN series s ON s.run = found.id AND s.key = :metric AND s.is_nan = 0 GROUP BY x.value",
            {**bound, "group_key": key, "metric": metric},
        ):
            least, mean, greatest, count = spread
            numbers.setdefault(value, {})[metric] = (least, mean, greatest, count)
    return [RunGroup(value, count, last, numbers.get(value, {})) for value, count, last in rows]


def runs_of(store: Store, run_ids: Sequence[str]) -> List[Run]:
    """The runs of these ids, deleted ones too, in the order of the ids; what is not there is left out."""
    found: Dict[str, Run] = {}
    for start in range(0, len(run_ids), KEYS_AT_ONCE // 5):
        some = [run_id for run_id in run_ids[start : start + KEYS_AT_ONCE // 5] if "'" not in run_id]
        if some:
            named = "run_id IN ('{}')".format("', '".join(some))
            found.update((run.info.run_id, run) for run in store.search_runs(None, named, ViewType.ALL))
    return [found[run_id] for run_id in run_ids if run_id in found]


def children(store: Store, run_ids: Sequence[str]) -> Dict[str, int]:
    """How many active child runs each of the runs has."""
    some = {f"r{place}": run_id for place, run_id in enumerate(run_ids[:500])}
    if not some:
        return {}
    rows = store.database.query(
        "SELECT t.value, count(*) FROM tags t JOIN runs r ON r.id = t.run AND r.lifecycle_stage = 'active'"
        " WHERE t.key = 'mlflow.parentRunId' AND length(t.value) <= 200"
        f" AND t.value IN (:{', :'.join(some)}) GROUP BY t.value",
        some,
    )
    return dict(rows)


def ranges(store: Store, run_id: str) -> Dict[str, Tuple[Optional[float], Optional[float]]]:
    """The least and the greatest value of each metric of a run; None while every point is NaN."""
    rows = store.database.query(
        "SELECT s.key, s.min, s.max FROM runs r JOIN series s ON s.run = r.id WHERE r.run_id = :run", {"run": run_id}
    )
    return {key: (least, greatest) for key, least, greatest in rows}


class Extent(NamedTuple):
    """Where a curve begins and ends along an axis, and whether it has more points than were counted."""

    first: int
    last: int
    more: bool


_POINTS = (
    "runs r JOIN series s ON s.run = r.id AND s.key = :key JOIN metrics m ON m.series = s.id"
    " AND m.{axis} BETWEEN :low AND :high WHERE r.run_id = :run"
)
_FINITE = "m.is_nan = 0 AND m.value BETWEEN :least AND :greatest"
_AXES = {"step": "timestamp", "timestamp": "step"}  # the other one decides between equals


class Curve(NamedTuple):
    """The points of a metric of a run along ``step`` or ``timestamp``, from low to high.

    Those that are no finite numbers have no place in a picture, but there the curve is broken: as values they are NaN.
    """

    run_id: str
    key: str
    axis: str = "step"
    low: int = -(2**63)
    high: int = 2**63 - 1

    def extent(self, store: Store, most: int) -> Optional[Extent]:
        """Where its finite points begin and end, and whether it has more than ``most`` points; None where it has none."""
        # Two looks at the ends of the index, where min() and max() at once would read all of it.
        ends = [
            store.database.one(
                f"SELECT m.{self.axis} FROM {self._tables} AND {_FINITE} ORDER BY m.{self.axis} {way} LIMIT 1",
                self._bound,
            )
            for way in ("ASC", "DESC")
        ]
        if ends[0] is None or ends[1] is None:
            return None
        counted = store.database.query(f"SELECT 1 FROM {self._tables} LIMIT {int(most) + 1}", self._bound)
        return Extent(ends[0][0], ends[1][0], len(counted) > most)

    def points(self, store: Store) -> List[Tuple[int, float]]:
        """Every point, as (step or time, value) in that order, from the first finite one to the last."""
        rows: List[Any] = store.database.query(
            f"SELECT m.{self.axis}, CASE WHEN {_FINITE} THEN m.value END FROM {self._tables}"
            f" ORDER BY m.{self.axis}, m.{_AXES[self.axis]}, m.value",
            self._bound,
        )
        return [(place, math.nan if value is None else value) for place, value in _from_first_to_last(rows)]

    def thinned(self, store: Store, origin: int, width: int) -> List[Tuple[int, float, float]]:
        """The least and the greatest value of each stretch that has points: (number of the stretch, least, greatest)."""
        value = f"CASE WHEN {_FINITE} THEN m.value END"
        rows: List[Any] = store.database.query(
            f"SELECT (m.{self.axis} - :origin) / :width AS place, min({value}), max({value}) FROM {self._tables}"
            " GROUP BY place ORDER BY place",
            {**self._bound, "origin": origin, "width": width},
        )
        return [
            (place, *((math.nan, math.nan) if least is None else (least, greatest)))
            for place, least, greatest in _from_first_to_last(rows)
        ]

    @property
    def _tables(self) -> str:
        return _POINTS.format(axis=self.axis)

    @property
    def _bound(self) -> Dict[str, Any]:
        return {
            "run": self.run_id,
            "key": self.key,
            "low": self.low,
            "high": self.high,
            "least": -_GREATEST,
            "greatest": _GREATEST,
        }


def _from_first_to_last(rows: List[Any]) -> List[Any]:
    """The rows without those before the first and after the last that have a value."""
    known = [number for number, row in enumerate(rows) if row[1] is not None]
    return rows[known[0] : known[-1] + 1] if known else []


def _search(
    store: Store, experiment_ids: Optional[Sequence[str]], filter_string: str, view_type: str
) -> Tuple[str, Dict[str, Any]]:
    """A search as one statement that gives ``id``, and what is bound in it."""
    chosen = None if experiment_ids is None else [experiment_key(item) for item in experiment_ids]
    found = query.runs(filter_string, (), chosen, view_type, journal.now(), root=store.root)
    statement = found.sql  # what is bound is known when it has been written
    return statement, found.params
