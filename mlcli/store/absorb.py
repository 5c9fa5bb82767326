"""Apply what stands in the journals to the database, each line exactly once, and close the runs of dead writers.

The position reached in a journal is written in the transaction that applies its lines. A journal whose lock can be taken
has lost its writer: what is left of it is applied, the runs it kept alive are closed as KILLED, and the file goes.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli import journal, rules
from mlcli.entities import RunStatus
from mlcli.errors import InvalidInput, MlcliError, NotFound
from mlcli.locks import try_lock
from mlcli.store.database import Database, bound

CHUNK = 8 * 1024 * 1024  # bytes of a journal applied per transaction: bounds memory and how long others wait
_MAX_REJECTED_TEXT = 1000
_KEYS_AT_ONCE = 512  # SQLite of old allows 999 parameters in a statement
END_REASON = "mlcli.end_reason"
# MLflow's
_DATASET_LIMITS = {
    "name": 500,
    "digest": 36,
    "source_type": 250,
    "source": 65_535,
    "schema": 1_048_575,
    "profile": 16_777_215,
}


class _UnknownRun(Exception):
    """A line speaks of a run whose start has not been read yet: it may stand in a journal read a moment too early."""


class _Live(NamedTuple):
    name: str
    path: str
    fd: int
    dead: bool


def absorb(database: Database, root: str) -> None:
    """Bring the database up to date with every journal of the store ``root``."""
    if database.read_only:
        return
    journals = list(_pending(database, root))
    if not journals:
        return
    try:
        if sum([os.fstat(live.fd).st_size for live in journals]) <= CHUNK:
            # Few lines: one transaction for all, rather than a lock and a wait for the disk each.
            with database.transaction(durable=any([live.dead for live in journals])):
                _absorb_all(database, journals)
        else:
            _absorb_all(database, journals)
        for live in journals:
            if live.dead:
                os.unlink(live.path)
        if database.shared:
            _forget(database, [live.name for live in journals if live.dead])
        if any([live.dead for live in journals]):
            database.optimize()
    finally:
        for live in journals:
            os.close(live.fd)


def _absorb_all(database: Database, journals: Sequence[_Live]) -> None:
    waiting = journals
    for last_pass in (False, True):
        waiting = [live for live in waiting if not _absorb_one(database, live, reject_unknown=last_pass)]
        if not waiting:
            break
        if not last_pass:
            # The starts these lines wait for were written before them: read every other journal again.
            for live in journals:
                if live not in waiting and not live.dead:
                    _absorb_one(database, live, reject_unknown=False)


def _pending(database: Database, root: str) -> Iterator[_Live]:
    """Open every journal that has something new, or whose writer is gone (then locked by us)."""
    folder = journal.live_folder(root)
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".jsonl") and name[0] != ".")
    except FileNotFoundError:
        return
    if not names:
        return
    positions = dict(database.query("SELECT name, position FROM journals"))
    for name in names:
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:  # another reader finished it a moment ago
            continue
        dead = try_lock(fd)
        if dead and not os.path.exists(path):
            os.close(fd)
        elif dead or os.fstat(fd).st_size > positions.get(name, 0):
            yield _Live(name, path, fd, dead)
        else:
            os.close(fd)


def _absorb_one(database: Database, live: _Live, *, reject_unknown: bool) -> bool:
    """Apply ``live`` to its end; False when it stopped at a line about a run that is not known yet."""
    while True:
        with database.transaction(durable=live.dead):
            row = database.one(
                "SELECT position, default_run, finished FROM journals WHERE name = :name", {"name": live.name}
            )
            position, default_run, finished = row or (0, None, 0)
            # While we waited for the transaction another reader may have finished this journal and even forgotten it.
            if finished or (row is None and not os.path.exists(live.path)):
                return True
            lines = journal.read_lines(live.fd, position, CHUNK)
            size = os.fstat(live.fd).st_size
            writes = Writes(database, source=live.name, reject_unknown=reject_unknown)
            writes.default_run = default_run
            done = writes.lines(lines, position)
            blocked = done < len(lines.texts)
            begin, position = position, lines.end if not blocked else _position(lines, position, done)
            at_end = (not blocked and lines.end >= size) or not lines.texts
            if not (blocked or at_end or position > begin):  # applied again and again, and never done
                raise MlcliError(f"reading {live.path} does not get beyond byte {begin} of {size}")
            if live.dead and not blocked and at_end:
                _last_words(live, writes, position)
                _close_runs(database, live)
            writes.flush()
            database.execute(
                "INSERT INTO journals (name, position, default_run, finished) VALUES (:name, :position, :run, :finished)"
                " ON CONFLICT (name) DO UPDATE SET position = excluded.position, default_run = excluded.default_run,"
                " finished = excluded.finished",
                {
                    "name": live.name,
                    "position": position,
                    "run": writes.default_run,
                    "finished": int(live.dead and not blocked and at_end),
                },
            )
            if at_end and not database.shared:
                _forget_finished(database, live)
        if blocked:
            return False
        if at_end:
            return True


def _last_words(live: _Live, writes: Writes, position: int) -> None:
    """Apply a last line without an end, if it is whole: `printf` leaves such lines, a cut write does not parse."""
    os.lseek(live.fd, position, os.SEEK_SET)
    text = os.read(live.fd, CHUNK)
    try:
        entry = json.loads(text)
    except ValueError:
        return
    if isinstance(entry, dict):
        try:
            writes.lines(journal.Lines([entry], [text], position + len(text)), position)
        except _UnknownRun:
            writes.reject(text, position, "it names no run that is known")


def _close_runs(database: Database, live: _Live) -> None:
    """Close what a dead writer left open; its last sign of life is when the journal last changed."""
    open_runs = database.query(
        "SELECT id, start_time FROM runs WHERE owner = :name AND status IN ('RUNNING', 'SCHEDULED')",
        {"name": live.name},
    )
    if not open_runs:
        return
    last_sign = int(os.fstat(live.fd).st_mtime * 1000)
    for run, start_time in open_runs:
        database.execute(
            "UPDATE runs SET status = 'KILLED', end_time = :time WHERE id = :run",
            {"run": run, "time": max(last_sign, start_time)},
        )
        set_tag(database, run, END_REASON, "its process died without ending it")


def _forget_finished(database: Database, live: _Live) -> None:
    folder = os.path.dirname(live.path)
    for (name,) in database.query("SELECT name FROM journals WHERE finished = 1"):
        if name != live.name and not os.path.exists(os.path.join(folder, name)):
            database.execute("DELETE FROM journals WHERE name = :name", {"name": name})


def _forget(database: Database, names: Sequence[str]) -> None:
    """Drop the positions of journals that this process removed: another's may look gone and only be on its machine."""
    if names:
        with database.transaction(durable=False):
            for name in names:
                database.execute("DELETE FROM journals WHERE name = :name", {"name": name})


def set_tag(database: Database, run: int, key: str, value: str) -> None:
    database.execute(
        "INSERT INTO tags (run, key, value) VALUES (:run, :key, :value)"
        " ON CONFLICT (run, key) DO UPDATE SET value = excluded.value",
        {"run": run, "key": key, "value": value},
    )
    if key == "mlflow.runName":  # the tag and the name are one thing, as in MLflow
        database.execute("UPDATE runs SET name = :name WHERE id = :run", {"run": run, "name": value})


_Point = Tuple[int, int, float, int]  # step, timestamp, value, is_nan


class Writes:
    """Applies entries of the journal's form inside one transaction; metric points are gathered and written by `flush`.

    With ``source`` None an entry that cannot be applied raises; otherwise it is kept in rejected_lines.
    """

    def __init__(self, database: Database, *, source: Optional[str] = None, reject_unknown: bool = True) -> None:
        self.database = database
        self.source = source
        self.reject_unknown = reject_unknown
        self.default_run: Optional[str] = None
        self._runs: Dict[str, int] = {}
        self._buckets: Dict[Tuple[str, str], List[_Point]] = {}  # points by run id and metric

    def lines(self, lines: journal.Lines, start: int) -> int:
        """Apply lines of a journal that begin at byte ``start``; how many, before one about a run not known yet."""
        buckets = self._buckets
        for index, entry in enumerate(lines.entries):
            try:
                # By far the most common line: another point of a metric seen before, as mlcli writes it.
                value = entry["value"]  # type: ignore[index]
                step, time = entry["step"], entry["time"]  # type: ignore[index]
                if (
                    type(value) is float
                    and value - value == 0.0
                    and type(step) is type(time) is int
                    and 0 <= time <= rules.MAX_INT64
                    and -rules.MAX_INT64 <= step <= rules.MAX_INT64
                ):
                    buckets[entry["run"], entry["metric"]].append((step, time, value, 0))  # type: ignore[index]
                    continue
            except (KeyError, TypeError):
                pass
            try:
                if entry is not None:
                    self.entry(entry)
                elif lines.texts[index].strip():
                    raise InvalidInput("it is not a JSON object")
            except _UnknownRun as unknown:
                if not self.reject_unknown:
                    return index
                self.reject(lines.texts[index], _position(lines, start, index), f"there is no run {unknown.args[0]!r}")
            except MlcliError as error:
                run_id = entry.get("run") if entry else None
                self.reject(lines.texts[index], _position(lines, start, index), error.message, run_id)
        return len(lines.texts)

    def entry(self, entry: Dict[str, Any]) -> None:
        """Apply one entry; raises InvalidInput when it makes no sense."""
        if "v" in entry:
            self._header(entry)
            return
        run_id = entry.get("run") or self.default_run
        if "start" in entry:
            self._start(run_id, entry["start"])
        elif "metric" in entry:
            self._metric(entry)
        elif "metrics" in entry:
            self._metrics(entry)
        elif "param" in entry:
            self.param(self.run(run_id), entry["param"], entry.get("value"))
        elif "params" in entry:
            for key, value in _map(entry["params"], "params").items():
                self.param(self.run(run_id), key, value)
        elif "tag" in entry:
            self.tag(self.run(run_id), entry["tag"], entry.get("value"))
        elif "tags" in entry:
            for key, value in _map(entry["tags"], "tags").items():
                self.tag(self.run(run_id), key, value)
        elif "untag" in entry:
            self.database.execute(
                "DELETE FROM tags WHERE run = :run AND key = :key",
                {"run": self.run(run_id), "key": rules.key(entry["untag"], "tag")},
            )
        elif "status" in entry:
            self.status(self.run(run_id), entry["status"], entry.get("time"))
        elif "resume" in entry:
            self._resume(self.run(run_id))
        elif "input" in entry:
            self.input(self.run(run_id), entry["input"])
        else:
            raise InvalidInput("it has none of: metric, metrics, param, params, tag, tags, untag, status, input")

    def _known(self, run_id: object) -> str:
        self.run(run_id)
        return str(run_id)

    def run(self, run_id: object) -> int:
        """The integer key of a run."""
        found = self._runs.get(run_id) if isinstance(run_id, str) else None
        if found is None:
            if not isinstance(run_id, str):
                raise InvalidInput('it names no run ("run")')
            row = self.database.one("SELECT id FROM runs WHERE run_id = :run_id", {"run_id": run_id})
            if row is None:
                if self.source is None:
                    raise NotFound(f"there is no run {run_id!r}")
                raise _UnknownRun(run_id)
            found = self._runs[run_id] = row[0]
        return found

    def start(
        self, run_id: str, experiment: int, name: str, user: str, time: int, status: str, tags: Dict[str, str]
    ) -> int:
        """Insert a run, owned by the journal these entries come from."""
        if self.database.one("SELECT 1 FROM runs WHERE run_id = :run_id", {"run_id": run_id}):
            raise InvalidInput(f"there is a run {run_id!r} already")
        run = self._runs[run_id] = self.database.insert(
            "INSERT INTO runs (run_id, experiment, name, user_id, status, start_time, owner)"
            " VALUES (:run_id, :experiment, :name, :user, :status, :time, :owner)",
            {
                "run_id": run_id,
                "experiment": experiment,
                "name": name,
                "user": user,
                "status": _status(status),
                "time": time,
                "owner": self.source,
            },
        )
        self.database.execute_many(
            "INSERT INTO tags (run, key, value) VALUES (?, ?, ?)",
            [(run, key, value) for key, value in {**tags, "mlflow.runName": name}.items()],
        )
        return run

    def param(self, run: int, key: object, value: object) -> None:
        key = rules.key(key, "param")
        text = rules.param_value(key, value)
        added = self.database.execute(
            "INSERT INTO params (run, key, value, number) VALUES (:run, :key, :value, :number)"
            " ON CONFLICT (run, key) DO NOTHING",
            {"run": run, "key": key, "value": text, "number": number(text)},
        )
        if not added:
            row = self.database.one(
                "SELECT value FROM params WHERE run = :run AND key = :key", {"run": run, "key": key}
            )
            if row and row[0] != text:
                raise InvalidInput(
                    f"param {key!r} is {row[0]!r} already and cannot become {text!r}",
                    hint="a param is written once; log a value that changes as a metric or a tag",
                )

    def tag(self, run: int, key: object, value: object) -> None:
        key = rules.key(key, "tag")
        set_tag(self.database, run, key, rules.tag_value(key, value))

    def status(self, run: int, status: object, time: object) -> None:
        stamp = journal.now() if time is None else rules.timestamp(time)
        self.database.execute(
            "UPDATE runs SET status = :status, end_time = :end WHERE id = :run",
            {"run": run, "status": _status(status), "end": stamp if status in RunStatus.ENDED else None},
        )

    def point(self, run_id: str, key: str, value: float, step: int, time: int) -> None:
        """Gather one metric point, checked by the caller."""
        is_nan = value != value  # noqa: PLR0124 - NaN is the one value unequal to itself
        self._buckets.setdefault((run_id, key), []).append((step, time, 0.0 if is_nan else value, int(is_nan)))

    def input(self, run: int, given: object) -> None:
        given = _map(given, "input")
        dataset = _map(given.get("dataset"), "dataset")
        fields = ("name", "digest", "source_type", "source", "schema", "profile")
        values = {field: dataset.get(field) for field in fields}
        if not all(isinstance(values[field], str) for field in fields[:4]):
            raise InvalidInput("a dataset needs name, digest, source_type and source")
        for field, limit in _DATASET_LIMITS.items():
            if values[field] is not None:
                values[field] = rules.text(values[field], f"a dataset's {field}", limit)
        row = self.database.one(
            "SELECT id FROM datasets WHERE name = :name AND digest = :digest AND source_type = :source_type"
            " AND source = :source AND COALESCE(schema, '') = COALESCE(:schema, '')"
            " AND COALESCE(profile, '') = COALESCE(:profile, '') ORDER BY id LIMIT 1",
            values,
        )
        key = (
            row[0]
            if row
            else self.database.insert(
                "INSERT INTO datasets (name, digest, source_type, source, schema, profile)"
                " VALUES (:name, :digest, :source_type, :source, :schema, :profile)",
                values,
            )
        )
        self.database.execute(
            "INSERT INTO inputs (run, dataset) VALUES (:run, :dataset) ON CONFLICT (run, dataset) DO NOTHING",
            {"run": run, "dataset": key},
        )
        for name, value in _map(given.get("tags") or {}, "tags").items():
            self.database.execute(
                "INSERT INTO input_tags (run, dataset, key, value) VALUES (:run, :dataset, :key, :value)"
                " ON CONFLICT (run, dataset, key) DO UPDATE SET value = excluded.value",
                {"run": run, "dataset": key, "key": rules.key(name, "tag"), "value": rules.tag_value(name, value)},
            )

    def flush(self) -> None:
        """Write the gathered points: the history, then each series' latest point and extremes."""
        gathered: Dict[int, Dict[str, List[_Point]]] = {}
        for (run_id, key), points in self._buckets.items():
            if points:
                gathered.setdefault(self.run(run_id), {})[key] = points
        self._buckets.clear()
        rows: List[Tuple[int, int, int, float, int]] = []
        for run, metrics in gathered.items():
            for series, points in zip(self._update_series(run, metrics), metrics.values()):
                rows += [(series, *point) for point in points]
        self.database.execute_many(
            "INSERT INTO metrics (series, step, timestamp, value, is_nan) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        )

    def reject(self, text: bytes, position: int, reason: str, run_id: Optional[str] = None) -> None:
        """Keep a line that cannot be applied, with the reason."""
        self.database.execute(
            "INSERT INTO rejected_lines (journal, position, run_id, line, reason, time)"
            " VALUES (:journal, :position, :run_id, :line, :reason, :time)",
            {
                "journal": self.source,
                "position": position,
                "run_id": _storable(run_id) if isinstance(run_id, str) else self.default_run,
                "line": _storable(text[:_MAX_REJECTED_TEXT].decode("utf-8", "backslashreplace")),
                "reason": _storable(reason),
                "time": journal.now(),
            },
        )

    def _header(self, entry: Dict[str, Any]) -> None:
        if entry["v"] != journal.VERSION:
            raise InvalidInput(f"journal version {entry['v']!r} is not known to this mlcli", hint="upgrade mlcli")
        if entry.get("run"):
            self.default_run = rules.run_id(entry["run"])

    def _start(self, run_id: object, start: object) -> None:
        start = _map(start, "start")
        experiment = self._experiment(start.get("experiment_id", "0"))
        tags = {
            rules.key(key, "tag"): rules.tag_value(key, value)
            for key, value in _map(start.get("tags") or {}, "tags").items()
        }
        time = journal.now() if start.get("time") is None else rules.timestamp(start["time"])
        name = rules.run_name(start.get("name") or tags.get("mlflow.runName") or journal.new_run_name())
        user = rules.text(start.get("user") or "", "the user", rules.MAX_KEY)
        run = self.start(rules.run_id(run_id), experiment, name, user, time, start.get("status", "RUNNING"), tags)
        for key, value in _map(start.get("params") or {}, "params").items():
            self.param(run, key, value)

    def _resume(self, run: int) -> None:
        """The run goes on, in the hands of this journal's writer; what told of its end is no longer true."""
        self.database.execute(
            "UPDATE runs SET status = 'RUNNING', end_time = NULL, owner = :owner WHERE id = :run",
            {"run": run, "owner": self.source},
        )
        self.database.execute("DELETE FROM tags WHERE run = :run AND key = :key", {"run": run, "key": END_REASON})

    def _experiment(self, experiment_id: object) -> int:
        try:
            experiment = int(str(experiment_id))
        except ValueError:
            raise InvalidInput(f"{experiment_id!r} is not an experiment id") from None
        if not self.database.one("SELECT 1 FROM experiments WHERE id = :id", {"id": experiment}):
            raise InvalidInput(f"there is no experiment {experiment_id!r}")
        return experiment

    def _metric(self, entry: Dict[str, Any]) -> None:
        run = self._known(entry.get("run") or self.default_run)
        key = rules.key(entry["metric"], "metric")
        value = rules.metric_value(key, entry.get("value"))
        step = rules.int64(entry.get("step", 0), "a step")
        time = journal.now() if entry.get("time") is None else rules.timestamp(entry["time"])
        self.point(run, key, value, step, time)

    def _metrics(self, entry: Dict[str, Any]) -> None:
        run = self._known(entry.get("run") or self.default_run)
        step = rules.int64(entry.get("step", 0), "a step")
        time = journal.now() if entry.get("time") is None else rules.timestamp(entry["time"])
        for key, value in _map(entry["metrics"], "metrics").items():
            self.point(run, rules.key(key, "metric"), rules.metric_value(key, value), step, time)

    def _update_series(self, run: int, metrics: Mapping[str, Sequence[_Point]]) -> List[int]:
        """Bring the series of a run's metrics up to date with more points; their keys, in the order of the metrics."""
        found = self._find_series(run, list(metrics))
        changes, keys = [], []
        for key, points in metrics.items():
            step, time, value, is_nan = max(points, key=_order)
            finite = [point[2] for point in points if not point[3]]
            low: Optional[float] = min(finite) if finite else None
            high: Optional[float] = max(finite) if finite else None
            known = found.get(key)
            if known is None:
                keys.append(
                    self.database.insert(
                        "INSERT INTO series (run, key, value, is_nan, step, timestamp, min, max)"
                        " VALUES (:run, :key, :value, :is_nan, :step, :time, :low, :high)",
                        {
                            "run": run,
                            "key": key,
                            "value": value,
                            "is_nan": is_nan,
                            "step": step,
                            "time": time,
                            "low": low,
                            "high": high,
                        },
                    )
                )
                continue
            series, *latest, old_low, old_high = known
            if _order(latest) > _order((step, time, value, is_nan)):
                step, time, value, is_nan = latest
            if old_low is not None:
                low = old_low if low is None else min(low, old_low)
                high = old_high if high is None else max(high, old_high)
            changes.append((value, is_nan, step, time, low, high, series))
            keys.append(series)
        self.database.execute_many(
            "UPDATE series SET value = ?, is_nan = ?, step = ?, timestamp = ?, min = ?, max = ? WHERE id = ?", changes
        )
        return keys

    def _find_series(self, run: int, keys: Sequence[str]) -> Dict[str, Tuple[Any, ...]]:
        found: Dict[str, Tuple[Any, ...]] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some, params = bound(keys[start : start + _KEYS_AT_ONCE])
            for key, *series in self.database.query(
                "SELECT key, id, step, timestamp, value, is_nan, min, max FROM series"
                f" WHERE run = :run AND key IN ({some})",
                {"run": run, **params},
            ):
                found[key] = tuple(series)
        return found


def _storable(text: str) -> str:
    """Any text, with an escape for what no database takes: half a character, a NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _position(lines: journal.Lines, start: int, index: int) -> int:
    """The byte at which the line ``index`` begins."""
    return start + sum(len(text) + 1 for text in lines.texts[:index])


def number(text: str) -> Optional[float]:
    """The text as a finite number, or None; what numeric comparison of params sees."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value - value == 0.0 else None


def _order(point: Any) -> Tuple[int, int, int, float]:
    """What makes a point later than another: step, then time, then value, NaN first."""
    step, time, value, is_nan = point
    return (step, time, -is_nan, value)


def _status(value: object) -> str:
    if value not in RunStatus.ALL:
        raise InvalidInput(f"{value!r} is not a run status", hint="one of " + ", ".join(RunStatus.ALL))
    return str(value)


def _map(value: object, what: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} must be an object of names and values")
    return value
