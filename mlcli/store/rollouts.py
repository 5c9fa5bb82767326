"""Rollouts in a store: their state, what gateways record of their traffic, and what is read of it for a verdict.

What is recorded comes in batches, one transaction each. A batch's number says what was known when: everything read here
takes ``batch``, the last one to heed, and gives the same however much came after it.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.store.database import Database

DRAFT, RUNNING, PAUSED = "draft", "running", "paused"
PROMOTED, ABORTED, STOPPED = "promoted", "aborted", "stopped"
LIVE, SHADOW = "live", "shadow"
MODELS = "models"  # the event that says what an arm's model is
NO_BATCH = 0
MAX_UNIT = 200  # characters of a unit
MAX_VALUE = 1e100  # of an outcome: sums of squares stay finite
MAX_NAME = 250  # of a request_id, a key of outcomes, an idempotency_key
_COLUMNS = (
    "id, name, spec, state, invalid, step, step_ns, version, created_ns, started_ns, ended_ns, controller,"
    " controller_until_ns"
)
_EARLY = 3600 * 10**9  # how much before its first exposure the outcome of a unit may be stamped: other clocks


class RolloutRecord(NamedTuple):
    """A rollout as the store has it; times in nanoseconds, 0 where there is none yet."""

    key: int
    name: str
    spec: str
    state: str
    invalid: bool
    step: int
    step_ns: int
    version: int
    created_ns: int
    started_ns: int
    ended_ns: int
    controller: str
    controller_until_ns: int


class Event(NamedTuple):
    """What happened to a rollout, by whom and why."""

    ns: int
    kind: str
    state: str
    actor: str
    reason: str
    evidence: Any


class Model(NamedTuple):
    """What the URI of an arm's model stood for when the rollout was first served or started.

    ``name`` and ``version`` of the registry, "" for other models; ``digest`` of all files.
    """

    uri: str
    name: str
    version: str
    digest: str

    @property
    def exact(self) -> str:
        """A URI that stays with these files, whatever becomes of an alias."""
        return f"models:/{self.name}/{self.version}" if self.name else self.uri


class Weights(NamedTuple):
    """One version of the weights, control first, and the share of requests that candidates see as shadows."""

    version: int
    ns: int
    weights: Tuple[float, ...]
    shadow: float
    step: int
    reason: str


class Prediction(NamedTuple):
    """A request that an arm answered; see the table of that name."""

    request_id: str
    role: str
    arm: int
    answered: int
    version: int
    propensity: float
    unit: str
    ns: int
    latency_us: int
    status: int
    error: str = ""
    features: Optional[str] = None
    prediction: Optional[str] = None
    score: Optional[float] = None


class Exposure(NamedTuple):
    """A unit that met an arm."""

    unit: str
    version: int
    arm: int
    place: float
    propensity: float
    ns: int


class Counter(NamedTuple):
    """Exact counts of an arm under one version of the weights in one minute."""

    role: str
    arm: int
    version: int
    minute: int
    n: int
    errors: int
    shed: int = 0
    dropped: int = 0
    latencies: str = ""


class Outcome(NamedTuple):
    """What became of a unit or a request."""

    idempotency_key: str
    request_id: str
    unit: str
    key: str
    value: float
    ns: int


class Decided(NamedTuple):
    """A verdict that was given."""

    ns: int
    batch: int
    verdict: str
    rule: str
    evidence: Any


class Sums(NamedTuple):
    """Units of an arm under one version of the weights, with sums over them: y, its square, x (a covariate), ..."""

    version: int
    arm: int
    n: int
    y: float
    yy: float
    x: float
    xx: float
    xy: float


class Rollouts:
    """The rollouts of a store that lies on this machine or in PostgreSQL. ``store`` is closed by whoever opened it."""

    def __init__(self, store: Any) -> None:
        database = getattr(store, "database", None)
        if database is None:
            url = getattr(store, "uri", "")  # without credentials
            raise InvalidInput(
                f"rollouts are kept in a store, not behind a tracking server{f': {url}' if url else ''}",
                hint=f"look at them, pause, promote and abort them at {url or 'its page'}/rollouts; other commands are given where"
                " the store is: mlcli --tracking-uri ./mlruns rollouts ...",
            )
        self.store = store
        self.database: Database = database

    # -- rollouts

    def create(self, name: str, spec: str, *, actor: str = "") -> RolloutRecord:
        """Keep a new rollout as a draft."""
        now = time.time_ns()
        with self.database.transaction():
            added = self.database.execute(
                "INSERT INTO rollouts (name, spec, created_ns) VALUES (:name, :spec, :now) ON CONFLICT (name) DO NOTHING",
                {"name": name, "spec": spec, "now": now},
            )
            if not added:
                raise AlreadyExists(
                    f"there is a rollout {name!r} already",
                    hint=f"`mlcli rollouts get {name}` shows it; names are not used twice",
                )
            made = self.get(name)
            self._event(made.key, now, "created", DRAFT, actor, "", None)
        return made

    def get(self, name: str) -> RolloutRecord:
        row = self.database.one(f"SELECT {_COLUMNS} FROM rollouts WHERE name = :name", {"name": name})
        if row is None:
            raise NotFound(f"there is no rollout {name!r}", hint="`mlcli rollouts list` lists them")
        return _record(row)

    def list(self) -> List[RolloutRecord]:
        """All rollouts, the newest first."""
        return [_record(row) for row in self.database.query(f"SELECT {_COLUMNS} FROM rollouts ORDER BY id DESC")]

    def events(self, key: int) -> List[Event]:
        """What happened, in turn."""
        rows = self.database.query(
            "SELECT ns, kind, state, actor, reason, evidence FROM rollout_events WHERE rollout = :key ORDER BY id",
            {"key": key},
        )
        return [Event(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]) if row[5] else None) for row in rows]

    def models(self, key: int, until_ns: int = 2**62) -> Tuple[Optional[Model], ...]:
        """What each arm's model is, control's first; None, or nothing, where that is not settled yet."""
        rows = self.database.query(
            "SELECT evidence FROM rollout_events WHERE rollout = :key AND kind = :kind AND ns <= :until ORDER BY id",
            {"key": key, "kind": MODELS, "until": until_ns},
        )
        found: List[Optional[Model]] = []
        for (evidence,) in rows:
            told = [None if one is None else Model(**one) for one in json.loads(evidence)]
            found += [None] * (len(told) - len(found))
            found = [before or now for before, now in zip(found, told)]
        return tuple(found)

    def settle(self, name: str, models: Sequence[Optional[Model]], *, actor: str = "") -> Tuple[Optional[Model], ...]:
        """Keep for good what the arms' models are; of an arm that has one already the first one stays."""
        with self.database.transaction():
            record = self.get(name)
            before = self.models(record.key)
            before += (None,) * (len(models) - len(before))
            new = [now if known is None else None for known, now in zip(before, models)]
            if any([one is not None for one in new]):
                told = ", ".join(f"{one.uri} is {one.exact}" if one.uri != one.exact else one.uri for one in new if one)
                evidence = [None if one is None else one._asdict() for one in new]
                self._event(record.key, time.time_ns(), MODELS, record.state, actor, told, evidence)
            return self.models(record.key)

    def weights(self, key: int, until_ns: Optional[int] = None) -> List[Weights]:
        """All versions of the weights, in turn; those published after ``until_ns`` left out."""
        rows = self.database.query(
            "SELECT version, ns, weights, shadow, step, reason FROM rollout_weights WHERE rollout = :key ORDER BY version",
            {"key": key},
        )
        return [
            Weights(row[0], row[1], tuple(json.loads(row[2])), row[3], row[4], row[5])
            for row in rows
            if until_ns is None or row[1] <= until_ns
        ]

    def in_force(self, key: int) -> Tuple[str, Optional[Weights]]:
        """The state and the newest weights; one short read, for gateways that ask each second."""
        row = self.database.one(
            "SELECT r.state, w.version, w.ns, w.weights, w.shadow, w.step, w.reason FROM rollouts r"
            " LEFT JOIN rollout_weights w ON w.rollout = r.id AND w.version = r.version WHERE r.id = :key",
            {"key": key},
        )
        if row is None:
            raise NotFound("the rollout is gone from the store")
        state, version, ns, weights, shadow, step, reason = row
        return state, None if version is None else Weights(
            version, ns, tuple(json.loads(weights)), shadow, step, reason
        )

    def change(
        self,
        name: str,
        kind: str,
        *,
        expect: Sequence[str],
        state: Optional[str] = None,
        weights: Optional[Sequence[float]] = None,
        shadow: float = 0.0,
        step: Optional[int] = None,
        invalid: Optional[bool] = None,
        actor: str = "",
        reason: str = "",
        evidence: object = None,
        holder: str = "",
        at_step: Optional[int] = None,
        also: Optional[Callable[[], None]] = None,
    ) -> RolloutRecord:
        """Let one thing happen to a rollout, all of it in one transaction: state, weights, event, and what ``also`` does.

        ``expect``: the states it may happen in. ``holder``: the controller on whose lease it hangs.
        ``at_step``: the step that it must stand at, so that of two who want to go on one does.
        """
        with self.database.transaction():
            now = time.time_ns()
            found = self.get(name)
            if found.state not in expect:
                raise InvalidState(
                    f"rollout {name!r} is {found.state}, so this cannot happen to it: {kind}",
                    hint=f"`mlcli rollouts status {name}` tells why",
                )
            if at_step is not None and found.step != at_step:
                raise InvalidState(f"rollout {name!r} went on meanwhile", hint=f"mlcli rollouts status {name}")
            if holder and (found.controller != holder or found.controller_until_ns < now):
                raise InvalidState(f"another controller decides on rollout {name!r} now")
            after = state or found.state
            version = found.version
            if weights is not None:
                version += 1
                at = max(now, self._newest_ns("rollout_weights", found.key) + 1)
                self.database.execute(
                    "INSERT INTO rollout_weights (rollout, version, ns, weights, shadow, step, reason)"
                    " VALUES (:key, :version, :at, :weights, :shadow, :step, :reason)",
                    {
                        "key": found.key, "version": version, "at": at, "weights": json.dumps(list(weights)),
                        "shadow": shadow, "step": found.step if step is None else step, "reason": reason or kind,
                    },
                )  # fmt: skip
            ended = after in (PROMOTED, ABORTED, STOPPED)
            self.database.execute(
                "UPDATE rollouts SET state = :state, version = :version, invalid = :invalid, step = :step,"
                " step_ns = :step_ns, started_ns = :started, ended_ns = :ended WHERE id = :key",
                {
                    "key": found.key, "state": after, "version": version,
                    "invalid": int(found.invalid if invalid is None else invalid),
                    "step": found.step if step is None else step,
                    "step_ns": found.step_ns if step is None else now,
                    "started": found.started_ns or (now if after == RUNNING else 0),
                    "ended": (found.ended_ns or now) if ended else 0,
                },
            )  # fmt: skip
            self._event(found.key, now, kind, after, actor, reason, evidence)
            if also is not None:
                also()
            return self.get(name)

    def _event(self, key: int, now: int, kind: str, state: str, actor: str, reason: str, evidence: object) -> None:
        self.database.execute(
            "INSERT INTO rollout_events (rollout, ns, kind, state, actor, reason, evidence)"
            " VALUES (:key, :now, :kind, :state, :actor, :reason, :evidence)",
            {
                "key": key, "now": now, "kind": kind, "state": state, "actor": actor, "reason": reason,
                "evidence": "" if evidence is None else json.dumps(evidence, sort_keys=True),
            },
        )  # fmt: skip

    def note(self, name: str, kind: str, *, actor: str, reason: str, evidence: object = None) -> None:
        """Keep an event that changes nothing by itself, such as the death of a worker."""
        with self.database.transaction():
            found = self.get(name)
            self._event(found.key, time.time_ns(), kind, found.state, actor, reason, evidence)

    def _newest_ns(self, table: str, key: int) -> int:
        row = self.database.one(f"SELECT COALESCE(MAX(ns), 0) FROM {table} WHERE rollout = :key", {"key": key})
        return int(row[0]) if row else 0

    # -- the one controller

    def take_lease(self, key: int, holder: str, seconds: float) -> bool:
        """Become, or stay, the controller of a rollout for so long; False where another one is.

        A lease that would run ten times as long as any is from before the clock was set back: it holds nobody off.
        """
        span = int(seconds * 1e9)
        with self.database.transaction(durable=False):
            now = time.time_ns()
            return bool(
                self.database.execute(
                    "UPDATE rollouts SET controller = :holder, controller_until_ns = :until WHERE id = :key"
                    " AND (controller = :holder OR controller_until_ns < :now OR controller_until_ns > :absurd)",
                    {"key": key, "holder": holder, "now": now, "until": now + span, "absurd": now + 10 * span},
                )
            )

    def release_lease(self, key: int, holder: str) -> None:
        """Stop being the controller."""
        with self.database.transaction(durable=False):
            self.database.execute(
                "UPDATE rollouts SET controller = '', controller_until_ns = 0 WHERE id = :key AND controller = :holder",
                {"key": key, "holder": holder},
            )

    # -- recording

    def record(
        self,
        key: int,
        predictions: Sequence[Prediction] = (),
        exposures: Sequence[Exposure] = (),
        counters: Sequence[Counter] = (),
        *,
        durable: bool = False,
    ) -> int:
        """Keep a batch of traffic, all or nothing; how many of its rows were there already (requests repeated)."""
        with self.database.transaction(durable=durable):
            batch = self._batch(key)
            duplicates = 0
            if predictions:
                self.database.execute_many(
                    "INSERT INTO predictions (rollout, request_id, role, arm, answered, version, propensity, unit, ns,"
                    " latency_us, status, error, features, prediction, score, batch)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (rollout, request_id, role, arm) DO NOTHING",
                    [(key, *row, batch) for row in predictions],
                )
                kept = self.database.one(
                    "SELECT COUNT(*) FROM predictions WHERE rollout = :key AND batch = :batch",
                    {"key": key, "batch": batch},
                )
                duplicates = len(predictions) - (kept[0] if kept else 0)
                failed = [row for row in predictions if row.error and row.unit and row.role == LIVE]
                if failed:
                    self.database.execute_many(
                        "INSERT INTO rollout_first_errors (rollout, unit, arm, version, ns, batch)"
                        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (rollout, unit) DO NOTHING",
                        [(key, row.unit, row.arm, row.version, row.ns, batch) for row in failed],
                    )
            if exposures:
                self.database.execute_many(
                    "INSERT INTO rollout_exposures (rollout, unit, version, arm, place, propensity, ns, batch)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (rollout, unit, version, arm) DO NOTHING",
                    [(key, *row, batch) for row in exposures],
                )
                self.database.execute(
                    "UPDATE rollout_exposures SET first = 0 WHERE rollout = :key AND batch = :batch AND EXISTS ("
                    "SELECT 1 FROM rollout_exposures older WHERE older.rollout = rollout_exposures.rollout"
                    " AND older.unit = rollout_exposures.unit AND (older.version < rollout_exposures.version"
                    " OR (older.version = rollout_exposures.version AND older.arm <> rollout_exposures.arm"
                    " AND (older.batch < :batch OR older.arm < rollout_exposures.arm))))",
                    {"key": key, "batch": batch},
                )
            if counters:
                self.database.execute_many(
                    "INSERT INTO serve_counters (rollout, batch, role, arm, version, minute, n, errors, shed, dropped,"
                    " latencies) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [(key, batch, *row) for row in counters],
                )
            return duplicates

    def feedback(self, key: int, outcomes: Sequence[Outcome]) -> Tuple[int, int]:
        """Keep outcomes, each once; how many are new, how many were there already."""
        if not outcomes:
            return 0, 0
        with self.database.transaction():
            batch = self._batch(key)
            self.database.execute_many(
                "INSERT INTO outcomes (rollout, idempotency_key, request_id, unit, key, value, ns, batch)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (rollout, idempotency_key) DO NOTHING",
                [(key, *row, batch) for row in outcomes],
            )
            row = self.database.one(
                "SELECT COUNT(*) FROM outcomes WHERE rollout = :key AND batch = :batch", {"key": key, "batch": batch}
            )
            new = int(row[0]) if row else 0
        return new, len(outcomes) - new

    def _batch(self, key: int) -> int:
        at = max(time.time_ns(), self._newest_ns("rollout_batches", key) + 1)
        return self.database.insert(
            "INSERT INTO rollout_batches (rollout, ns) VALUES (:key, :at)", {"key": key, "at": at}
        )

    def arm_of(self, key: int, unit: str) -> Optional[Tuple[int, int, float]]:
        """The arm a unit met first, under which version of the weights, and how likely that was; for sticky bandits."""
        return self.database.one(
            "SELECT arm, version, propensity FROM rollout_exposures WHERE rollout = :key AND unit = :unit"
            " ORDER BY version, batch LIMIT 1",
            {"key": key, "unit": unit},
        )

    # -- verdicts

    def decide(self, key: int, batch: int, verdict: str, rule: str, evidence: object) -> None:
        """Keep a verdict with what it was concluded from."""
        with self.database.transaction(durable=False):
            self.database.execute(
                "INSERT INTO decisions (rollout, ns, batch, verdict, rule, evidence)"
                " VALUES (:key, :now, :batch, :verdict, :rule, :evidence)",
                {
                    "key": key, "now": time.time_ns(), "batch": batch, "verdict": verdict, "rule": rule,
                    "evidence": json.dumps(evidence, sort_keys=True),
                },
            )  # fmt: skip

    def decisions(self, key: int, limit: int = 1_000_000) -> List[Decided]:
        """The verdicts given, the newest first."""
        rows = self.database.query(
            "SELECT ns, batch, verdict, rule, evidence FROM decisions WHERE rollout = :key ORDER BY id DESC LIMIT :limit",
            {"key": key, "limit": limit},
        )
        return [Decided(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in rows]

    def course(self, key: int, most: int) -> List[Decided]:
        """The verdicts given, in turn; of many the last one of each of ``most`` stretches of time."""
        row = self.database.one("SELECT COUNT(*), MIN(ns), MAX(ns) FROM decisions WHERE rollout = :key", {"key": key})
        count, first, last = row or (0, 0, 0)
        if count <= most:
            return self.decisions(key)[::-1]
        rows = self.database.query(
            "SELECT ns, batch, verdict, rule, evidence FROM decisions WHERE id IN (SELECT MAX(id) FROM decisions"
            " WHERE rollout = :key GROUP BY (ns - :first) / :width) ORDER BY id",
            {"key": key, "first": first, "width": (last - first) // most + 1},
        )
        return [Decided(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in rows]

    def batch_at(self, key: int, ns: Optional[int] = None) -> Tuple[int, int]:
        """The last batch up to a moment (default: of all), and its time; (0, 0) before the first."""
        row = self.database.one(
            "SELECT id, ns FROM rollout_batches WHERE rollout = :key AND ns <= :ns ORDER BY ns DESC LIMIT 1",
            {"key": key, "ns": 2**62 if ns is None else ns},
        )
        return (int(row[0]), int(row[1])) if row else (NO_BATCH, 0)

    def newest(self, key: int) -> Tuple[int, int]:
        """The last batch and the last event: while both stay, nothing has come in."""
        row = self.database.one(
            "SELECT (SELECT MAX(id) FROM rollout_batches WHERE rollout = :key),"
            " (SELECT MAX(id) FROM rollout_events WHERE rollout = :key)",
            {"key": key},
        )
        return (int(row[0] or NO_BATCH), int(row[1] or 0)) if row else (NO_BATCH, 0)

    # -- what verdicts are made of

    def count_units(self, key: int, batch: int) -> List[Tuple[int, int, int]]:
        """(version, arm, units) of first exposures."""
        return self.database.query(
            "SELECT version, arm, COUNT(*) FROM rollout_exposures WHERE rollout = :key AND first = 1 AND batch <= :batch"
            " GROUP BY version, arm",
            {"key": key, "batch": batch},
        )

    def count_step_units(self, key: int, versions: Tuple[int, int], batch: int) -> int:
        """Distinct units that were seen under these versions of the weights (first, last)."""
        one = versions[0] == versions[1]
        row = self.database.one(
            f"SELECT COUNT({'*' if one else 'DISTINCT unit'}) FROM rollout_exposures WHERE rollout = :key"
            " AND version BETWEEN :first AND :last AND batch <= :batch",
            {"key": key, "first": versions[0], "last": versions[1], "batch": batch},
        )
        return int(row[0]) if row else 0

    def count_crossed(self, key: int, batch: int) -> int:
        """Units that met more than one arm."""
        row = self.database.one(
            "SELECT COUNT(*) FROM (SELECT unit FROM rollout_exposures WHERE rollout = :key AND batch <= :batch"
            " GROUP BY unit HAVING MIN(arm) <> MAX(arm)) crossed",
            {"key": key, "batch": batch},
        )
        return int(row[0]) if row else 0

    def first_errors(self, key: int, batch: int) -> List[Tuple[int, int]]:
        """(arm, version) of each unit's first error, in turn."""
        return self.database.query(
            "SELECT arm, version FROM rollout_first_errors WHERE rollout = :key AND batch <= :batch ORDER BY ns, unit",
            {"key": key, "batch": batch},
        )

    def lone_shadow_errors(self, key: int, batch: int) -> List[int]:
        """For each unit in turn the arm of its first error that the other arm, given the same request, did not make.

        Control first: 0, or the candidate's number.
        """
        rows = self.database.query(
            "SELECT CASE WHEN l.error <> '' THEN 0 ELSE s.arm END, MIN(l.ns) AS at, l.unit FROM predictions l"
            " JOIN predictions s ON s.rollout = l.rollout AND s.request_id = l.request_id AND s.role = 'shadow'"
            " WHERE l.rollout = :key AND l.role = 'live' AND +l.batch <= :batch AND +s.batch <= :batch"
            " AND (l.error = '') <> (s.error = '') AND l.unit <> ''"
            " GROUP BY l.unit, CASE WHEN l.error <> '' THEN 0 ELSE s.arm END ORDER BY at, l.unit",
            {"key": key, "batch": batch},
        )
        seen: Dict[str, int] = {}
        for arm, _, unit in rows:
            seen.setdefault(unit, arm)
        return list(seen.values())

    def counters(self, key: int, batch: int, since: int = NO_BATCH) -> List[Counter]:
        """Counts of the batches after ``since``."""
        rows = self.database.query(
            "SELECT role, arm, version, minute, n, errors, shed, dropped, latencies FROM serve_counters"
            " WHERE rollout = :key AND batch > :since AND batch <= :batch ORDER BY id",
            {"key": key, "batch": batch, "since": since},
        )
        return [Counter(*row) for row in rows]

    def count_rows(self, key: int, batch: int) -> Dict[Tuple[str, int], int]:
        """Rows of predictions per role and arm."""
        rows = self.database.query(
            "SELECT role, arm, COUNT(*) FROM predictions WHERE rollout = :key AND batch <= :batch GROUP BY role, arm",
            {"key": key, "batch": batch},
        )
        return {(role, arm): n for role, arm, n in rows}

    def sums(
        self,
        key: int,
        batch: int,
        now_ns: int,
        outcome: str,
        *,
        window_ns: int = 0,
        binary: bool = False,
        moves: Sequence[Tuple[int, float, float, int]] = (),
        covariate: str = "",
        started_ns: int = 0,
        loss: str = "",
    ) -> List[Sums]:
        """Units by version and arm of their first exposure, with sums over them of an outcome.

        A unit counts once its window is over, and only if its whole window lay before it moved to another arm: ``moves``
        has (version, from place, to place, when). ``binary``: whether it had the outcome at all; a unit without one has 0.
        Otherwise units without one are left out, and y is the mean of what a unit has. ``loss`` takes the outcome as the
        truth of a request and compares the prediction with it. ``covariate``: an outcome from before the rollout.
        """
        params: Dict[str, Any] = {
            "key": key, "batch": batch, "now": now_ns, "outcome": outcome, "window": window_ns, "early": _EARLY,
            "covariate": covariate, "started": started_ns,
        }  # fmt: skip
        until = "e.ns + :window" if window_ns else ":now"
        value = {
            "": "o.value",
            "absolute_error": "ABS(p.score - o.value)",
            "squared_error": "(p.score - o.value) * (p.score - o.value)",
            "zero_one": "CASE WHEN p.score = o.value THEN 0.0 ELSE 1.0 END",
        }[loss]
        y = "MAX(CASE WHEN o.value > 0 THEN 1.0 ELSE 0.0 END)" if binary else "AVG(o.value)"
        moved = " ".join(
            f"WHEN e.version = {int(version)} AND e.place >= {low!r} AND e.place < {high!r} THEN {int(at)}"
            for version, low, high, at in moves
        )
        moved = f"CASE {moved} ELSE NULL END" if moved else "NULL"
        ready = (
            "e.rollout = :key AND e.first = 1 AND +e.batch <= :batch"
            + (" AND e.ns + :window <= :now" if window_ns else "")
            + (f" AND COALESCE({moved}, 9000000000000000000) >= {until}" if moves else "")
        )
        # An outcome names its unit, or a request whose prediction names it.
        named = (
            "SELECT COALESCE(NULLIF(o.unit, ''), p.unit) AS unit, o.ns AS ns, {value} AS value FROM outcomes o"
            " {join} JOIN predictions p ON p.rollout = o.rollout AND p.request_id = o.request_id AND p.role = 'live'"
            " AND +p.batch <= :batch"
            " WHERE o.rollout = :key AND o.key = {key} AND +o.batch <= :batch{only}"
        )
        mine = named.format(
            value=value, join="" if loss else "LEFT", key=":outcome", only=" AND p.score IS NOT NULL" if loss else ""
        )
        in_time = f"o.ns >= e.ns - :early AND o.ns <= {until}"
        # CROSS JOIN: from each outcome to its unit by key; SQLite would rather go the other way, which takes minutes.
        earned = (
            f"SELECT e.unit AS unit, e.version AS version, e.arm AS arm, {y} AS y FROM ({mine}) o"
            f" CROSS JOIN rollout_exposures e WHERE e.unit = o.unit AND {in_time} AND {ready}"
            " GROUP BY e.unit, e.version, e.arm"
        )
        before = (
            "SELECT o.unit AS unit, SUM(o.value) AS x FROM ("
            + named.format(value="o.value", join="LEFT", key=":covariate", only=" AND o.ns < :started")
            + ") o GROUP BY o.unit"
        )
        totals: Dict[Tuple[int, int], int] = {}
        if binary:
            counted = self.database.query(
                f"SELECT e.version, e.arm, COUNT(*) FROM rollout_exposures e WHERE {ready} GROUP BY e.version, e.arm",
                params,
            )
            totals = {(version, arm): n for version, arm, n in counted}
        found = {
            (row[0], row[1]): [row[2], *(float(value or 0.0) for value in row[3:5]), 0.0, 0.0, 0.0]
            for row in self.database.query(
                f"SELECT version, arm, COUNT(*), SUM(y), SUM(y * y) FROM ({earned}) earned GROUP BY version, arm",
                params,
            )
        }
        for place, n in totals.items():
            found.setdefault(place, [0, 0.0, 0.0, 0.0, 0.0, 0.0])[0] = n
        if covariate:
            everybody = (
                f"SELECT e.unit AS unit, e.version AS version, e.arm AS arm FROM rollout_exposures e WHERE {ready}"
            )
            for version, arm, x, xx in self.database.query(
                f"SELECT who.version, who.arm, SUM(b.x), SUM(b.x * b.x) FROM ({everybody if binary else earned}) who"
                f" JOIN ({before}) b ON b.unit = who.unit GROUP BY who.version, who.arm",
                params,
            ):
                found[version, arm][3:5] = [float(x), float(xx)]
            for version, arm, xy in self.database.query(
                f"SELECT who.version, who.arm, SUM(who.y * b.x) FROM ({earned}) who JOIN ({before}) b"
                " ON b.unit = who.unit GROUP BY who.version, who.arm",
                params,
            ):
                found[version, arm][5] = float(xy)
        return [
            Sums(version, arm, int(row[0]), row[1], row[2], row[3], row[4], row[5])
            for (version, arm), row in sorted(found.items())
        ]

    def unit_outcomes(self, key: int, batch: int, outcome: str) -> List[Tuple[int, int, float]]:
        """(arm, version, whether it had the outcome: 1 or 0) of each unit, in the turn of their first exposures."""
        params = {"key": key, "batch": batch, "outcome": outcome}
        had = {
            unit
            for (unit,) in self.database.query(
                "SELECT DISTINCT COALESCE(NULLIF(o.unit, ''), p.unit) FROM outcomes o LEFT JOIN predictions p"
                " ON p.rollout = o.rollout AND p.request_id = o.request_id AND p.role = 'live'"
                " WHERE o.rollout = :key AND o.key = :outcome AND +o.batch <= :batch AND o.value > 0",
                params,
            )
        }
        rows = self.database.query(
            "SELECT arm, version, unit FROM rollout_exposures WHERE rollout = :key AND first = 1 AND batch <= :batch"
            " ORDER BY ns, unit",
            params,
        )
        return [(arm, version, float(unit in had)) for arm, version, unit in rows]

    def shadow_losses(self, key: int, batch: int, outcome: str, loss: str) -> List[Sums]:
        """Per arm, losses of the requests that control and a shadow both answered and whose truth is known."""
        of = {
            "absolute_error": "ABS({0} - o.value)",
            "squared_error": "({0} - o.value) * ({0} - o.value)",
            "zero_one": "CASE WHEN {0} = o.value THEN 0.0 ELSE 1.0 END",
        }[loss]
        ours, theirs = of.format("l.score"), of.format("s.score")
        row = self.database.one(
            f"SELECT COUNT(*), SUM({ours}), SUM({ours} * {ours}), SUM({theirs}), SUM({theirs} * {theirs}),"
            f" SUM({ours} * {theirs}) FROM outcomes o"
            " JOIN predictions l ON l.rollout = o.rollout AND l.request_id = o.request_id AND l.role = 'live'"
            " JOIN predictions s ON s.rollout = o.rollout AND s.request_id = o.request_id AND s.role = 'shadow'"
            " WHERE o.rollout = :key AND o.key = :outcome AND +o.batch <= :batch AND +l.batch <= :batch"
            " AND +s.batch <= :batch AND l.score IS NOT NULL AND s.score IS NOT NULL",
            {"key": key, "batch": batch, "outcome": outcome},
        )
        n, y, yy, x, xx, xy = row or (0, 0, 0, 0, 0, 0)
        return [Sums(0, 0, n, y or 0.0, yy or 0.0, x or 0.0, xx or 0.0, xy or 0.0)]

    def pairs(self, key: int, batch: int) -> List[Tuple[Any, ...]]:
        """(control's prediction, its score, its microseconds, the shadow's prediction, score, microseconds, error)."""
        return self.database.query(
            "SELECT l.prediction, l.score, l.latency_us, s.prediction, s.score, s.latency_us, s.error FROM predictions l"
            " JOIN predictions s ON s.rollout = l.rollout AND s.request_id = l.request_id AND s.role = 'shadow'"
            " WHERE l.rollout = :key AND l.role = 'live' AND +l.batch <= :batch AND +s.batch <= :batch",
            {"key": key, "batch": batch},
        )

    def labels(self, key: int, batch: int, outcome: str) -> List[Tuple[int, float, float, int]]:
        """(arm, what it predicted, what came true, how often), of a shadow's answers too."""
        return self.database.query(
            "SELECT p.arm, p.score, o.value, COUNT(*) FROM outcomes o"
            " JOIN predictions p ON p.rollout = o.rollout AND p.request_id = o.request_id"
            " WHERE o.rollout = :key AND o.key = :outcome AND +o.batch <= :batch AND +p.batch <= :batch"
            " AND p.score IS NOT NULL AND p.error = '' GROUP BY p.arm, p.score, o.value ORDER BY p.arm, p.score, o.value",
            {"key": key, "batch": batch, "outcome": outcome},
        )

    def count_pairs(self, key: int, batch: int, versions: Tuple[int, int]) -> int:
        """Requests that a shadow answered under these versions of the weights (first, last)."""
        row = self.database.one(
            "SELECT COUNT(*) FROM predictions WHERE rollout = :key AND role = 'shadow' AND batch <= :batch"
            " AND version BETWEEN :first AND :last",
            {"key": key, "batch": batch, "first": versions[0], "last": versions[1]},
        )
        return int(row[0]) if row else 0

    def features(self, key: int, since_ns: int, until_ns: int, limit: int) -> List[Tuple[str, int]]:
        """The newest (features, arm) of live requests in a stretch of time, where they were kept."""
        return self.database.query(
            "SELECT features, arm FROM predictions WHERE rollout = :key AND role = 'live' AND features IS NOT NULL"
            " AND ns >= :since AND ns <= :until ORDER BY ns DESC LIMIT :limit",
            {"key": key, "since": since_ns, "until": until_ns, "limit": limit},
        )

    def repeated_inputs(self, key: int, since_ns: int) -> Tuple[int, int]:
        """(rows with features, distinct features) of live requests since a moment."""
        row = self.database.one(
            "SELECT COUNT(*), COUNT(DISTINCT features) FROM predictions WHERE rollout = :key AND role = 'live'"
            " AND features IS NOT NULL AND ns >= :since",
            {"key": key, "since": since_ns},
        )
        return (int(row[0]), int(row[1])) if row else (0, 0)


def _record(row: Tuple[Any, ...]) -> RolloutRecord:
    found = RolloutRecord(*row)
    return found._replace(invalid=bool(found.invalid))


def unit_of(text: str) -> str:
    """A unit as it is kept, however it was named: what each database can hold, and never long; spaces at its ends do not count."""
    if len(text) <= MAX_UNIT and text.isprintable():
        return text.strip()
    text = text.strip().encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if len(text) <= MAX_UNIT:
        return text
    return f"{text[: MAX_UNIT - 33]}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _name(given: Any, what: str) -> str:
    if not isinstance(given, str) or not given:
        raise InvalidInput(f"{what} is text")
    if len(given) > MAX_NAME or "\0" in given or not given.isprintable():
        raise InvalidInput(f"{what} is text of at most {MAX_NAME} printable characters")
    return given


def outcome_of(given: Mapping[str, Any], now_ns: int, fresh: Callable[[], str]) -> Outcome:
    """Make of what a client sent an outcome, or say what is wrong with it.

    The same request or unit and key is the same outcome, whatever its value: the first one stays. With ``mode: sum`` each
    is one more, unless its own ``idempotency_key`` says that it is not.
    """
    unknown = [
        key for key in given if key not in ("request_id", "unit", "key", "value", "ts", "idempotency_key", "mode")
    ]
    if unknown:
        raise InvalidInput(
            f"{unknown[0]!r} is not a field of feedback",
            hint="request_id or unit, key, value, ts, idempotency_key, mode",
        )
    request_id, unit, key = (given.get(name) for name in ("request_id", "unit", "key"))
    if (request_id is None) == (unit is None):
        raise InvalidInput("feedback names either a request_id or a unit")
    who = request_id if request_id is not None else unit
    if not isinstance(who, (str, int)) or isinstance(who, bool) or not str(who).strip():
        raise InvalidInput("request_id and unit are text")
    who = unit_of(str(who)) if unit is not None else _name(str(who), "request_id")
    if key is None:
        raise InvalidInput("feedback needs a key, such as conversion")
    key = _name(key, "the key of feedback")
    value = given.get("value", 1)
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, (int, float)) or not abs(value) <= MAX_VALUE:
        raise InvalidInput(f"the value of feedback is a finite number, at most 1e100, not {str(value)[:80]!r}")
    mode = given.get("mode", "first")
    if mode not in ("first", "sum"):
        raise InvalidInput(f"the mode of feedback is first or sum, not {mode!r}")
    ts = given.get("ts")
    if ts is not None and (isinstance(ts, bool) or not isinstance(ts, (int, float)) or not 0 < ts < 9e9):
        raise InvalidInput("ts is seconds since 1970", hint="leave it out for now")
    own = given.get("idempotency_key")
    if own is not None:
        _name(own, "idempotency_key")
    kind = "r" if request_id is not None else "u"
    same = f"own:{own}" if own else f"{kind}:{who}:{key}" if mode == "first" else f"new:{fresh()}"
    return Outcome(
        same, who if request_id is not None else "", who if unit is not None else "", key,
        float(value), now_ns if ts is None else int(ts * 1e9),
    )  # fmt: skip
