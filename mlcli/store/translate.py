"""Lines of a journal as requests to an MLflow server, each of which may be repeated without harm.

Points, params and tags of a run are gathered into batches; what changes their meaning by its place (a tag's removal, a
status, a dataset) sends what was gathered before it. A line that the server refuses for good is kept aside.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from mlcli import journal, rules
from mlcli.entities import RunStatus
from mlcli.errors import InvalidInput, MlcliError, NotFound, StoreUnavailable
from mlcli.store import http, rest, spool
from mlcli.store.absorb import _map, _status

_PATIENT_WITH_FAILURES = 4  # MLflow answers 500 when its database is locked, and when a value is beyond it
_Item = Dict[str, Any]


class _Gathered:
    """What has been read of one run and not been sent."""

    def __init__(self) -> None:
        self.metrics: List[_Item] = []
        self.params: Dict[str, str] = {}
        self.tags: Dict[str, str] = {}
        self._seen: Set[Tuple[str, int, int, str]] = set()

    def point(self, key: str, value: object, step: object, time: object) -> None:
        number = rules.metric_value(rules.key(key, "metric"), value)
        item = (key, rules.int64(step, "a step"), rules.timestamp(time), repr(number))
        if item not in self._seen:
            self._seen.add(item)
            shown: Any = number if number - number == 0.0 else _WORDS[item[3]]
            self.metrics.append({"key": key, "value": shown, "step": item[1], "timestamp": item[2]})


_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class _Translation:
    """Goes through lines of one journal."""

    def __init__(self, root: str, out: spool.Outgoing, patience: Optional[float]) -> None:
        self.root = root
        self.out = out
        self.patience = patience
        self.gathered: Dict[str, _Gathered] = {}

    def entry(self, entry: Dict[str, Any]) -> None:
        if "v" in entry:
            self.out.default_run = entry.get("run") or self.out.default_run
            return
        run_id = entry.get("run") or self.out.default_run
        if not isinstance(run_id, str):
            raise InvalidInput('it names no run ("run")')
        run = self.gathered.setdefault(run_id, _Gathered())
        time = entry.get("time")
        time = journal.now() if time is None else time
        if "metric" in entry:
            run.point(entry["metric"], entry.get("value"), entry.get("step", 0), time)
        elif "metrics" in entry:
            for key, value in _map(entry["metrics"], "metrics").items():
                run.point(key, value, entry.get("step", 0), time)
        elif "param" in entry:
            self._param(run_id, entry["param"], entry.get("value"))
        elif "params" in entry:
            for key, value in _map(entry["params"], "params").items():
                self._param(run_id, key, value)
        elif "tag" in entry:
            run.tags[rules.key(entry["tag"], "tag")] = rules.tag_value(entry["tag"], entry.get("value"))
        elif "tags" in entry:
            for key, value in _map(entry["tags"], "tags").items():
                run.tags[rules.key(key, "tag")] = rules.tag_value(key, value)
        elif "untag" in entry:
            self.flush(run_id)
            self._quietly("runs/delete-tag", {"run_id": run_id, "key": rules.key(entry["untag"], "tag")})
        elif "status" in entry:
            self.flush(run_id)
            body: Dict[str, Any] = {"run_id": run_id, "status": _status(entry["status"])}
            if entry["status"] in RunStatus.ENDED:
                body["end_time"] = rules.timestamp(time)
            self.post("runs/update", body)
        elif "resume" in entry:
            self.flush(run_id)
            self.post("runs/update", {"run_id": run_id, "status": RunStatus.RUNNING})
        elif "input" in entry:
            self.flush(run_id)
            given = _map(entry["input"], "input")
            dataset = {key: value for key, value in _map(given.get("dataset"), "dataset").items() if value is not None}
            marks = [{"key": key, "value": value} for key, value in _map(given.get("tags") or {}, "tags").items()]
            self.post("runs/log-inputs", {"run_id": run_id, "datasets": [{"dataset": dataset, "tags": marks}]})
        else:
            raise InvalidInput("an MLflow server has no word for it")

    def _param(self, run_id: str, key: object, value: object) -> None:
        name = rules.key(key, "param")
        text = rules.param_value(name, value)
        run = self.gathered[run_id]
        if run.params.get(name, text) != text:
            raise InvalidInput(f"param {name!r} is {run.params[name]!r} already and cannot become {text!r}")
        run.params[name] = text

    def flush(self, run_id: str) -> None:
        run = self.gathered.pop(run_id, None)
        self.gathered[run_id] = _Gathered()
        if run is None:
            return
        for body in rest.batches(run.metrics, _pairs(run.params), _pairs(run.tags)):
            self._batch(run_id, body)

    def finish(self) -> None:
        for run_id in list(self.gathered):
            self.flush(run_id)

    def _batch(self, run_id: str, body: Dict[str, List[_Item]]) -> None:
        """Send a batch; of one that is refused, each half by itself, so that only what is wrong stays behind."""
        try:
            self.post("runs/log-batch", {"run_id": run_id, **body})
        except StoreUnavailable:
            raise
        except NotFound as error:
            spool.reject(self.root, self.out.name, {"run": run_id, **body}, error.message)
        except MlcliError as error:
            items = [(kind, item) for kind, part in body.items() for item in part]
            if len(items) == 1:
                spool.reject(self.root, self.out.name, {"run": run_id, **body}, error.message)
                return
            middle = len(items) // 2
            for half in (items[:middle], items[middle:]):
                part: Dict[str, List[_Item]] = {}
                for kind, item in half:
                    part.setdefault(kind, []).append(item)
                self._batch(run_id, part)

    def _quietly(self, path: str, body: Dict[str, Any]) -> None:
        try:
            self.post(path, body)
        except NotFound:  # it is gone already
            pass

    def post(self, path: str, body: Dict[str, Any]) -> None:
        try:
            http.server(self.root).json("POST", http.API + path, body, patience=self.patience)
        except MlcliError as error:
            if type(error) is MlcliError and self.out.failures < _PATIENT_WITH_FAILURES:
                self.out.failures += 1
                raise http.Unreachable(
                    f"the tracking server {self.root} fails: {error.message[:300]}", hint="its log says more"
                ) from error
            raise


def send(root: str, out: spool.Outgoing, data: bytes, patience: Optional[float]) -> None:
    """Send whole lines; raises StoreUnavailable when they are to be sent again, all of them."""
    if out.default_run is None and out.position:
        out.default_run = _default_run(out.path)
    lines = journal.split_lines(data, out.position)
    work = _Translation(root, out, patience)
    for text, entry in zip(lines.texts, lines.entries):
        if entry is None:
            if text.strip():
                spool.reject(root, out.name, text.decode("utf-8", "backslashreplace"), "it is not a JSON object")
            continue
        _told(root, out, entry, lambda entry=entry: work.entry(entry))  # type: ignore[misc]
    work.finish()


def _told(root: str, out: spool.Outgoing, entry: Dict[str, Any], step: Callable[[], None]) -> None:
    """Keep an entry aside that makes no sense or is refused."""
    try:
        step()
    except StoreUnavailable:
        raise
    except MlcliError as error:
        spool.reject(root, out.name, entry, error.message)


def _default_run(path: str) -> Optional[str]:
    with open(path, "rb") as file:
        head = _parsed(file.readline())
    return head.get("run") if "v" in head else None


def _parsed(line: bytes) -> Dict[str, Any]:
    entries = journal.split_lines(line, 0).entries
    return (entries[0] if entries else None) or {}


def close_runs(root: str, out: spool.Outgoing, patience: Optional[float]) -> None:
    """Close the runs that the dead writer of a journal kept alive and did not end."""
    open_runs: Set[str] = set()
    with open(out.path, "rb") as file:
        for line in file:
            if b'"resume"' not in line and b'"status"' not in line and b'"start"' not in line:
                continue
            entry = _parsed(line)
            if "resume" in entry or "start" in entry:
                open_runs.add(str(entry.get("run")))
            elif entry.get("status") in RunStatus.ENDED:
                open_runs.discard(str(entry.get("run")))
    last_sign = int(os.stat(out.path).st_mtime * 1000)
    server = http.server(root)
    for run_id in sorted(open_runs):
        try:
            run = server.json("GET", http.API + "runs/get", query=[("run_id", run_id)], patience=patience)["run"]
            if run["info"].get("status") in RunStatus.ENDED or run["info"].get("lifecycle_stage") == "deleted":
                continue
            tag = {"run_id": run_id, "key": "mlcli.end_reason", "value": "its process died without ending it"}
            server.json("POST", http.API + "runs/set-tag", tag, patience=patience)
            body = {
                "run_id": run_id,
                "status": RunStatus.KILLED,
                "end_time": max(last_sign, int(run["info"].get("start_time", 0))),
            }
            server.json("POST", http.API + "runs/update", body, patience=patience)
        except (NotFound, InvalidInput) as error:
            spool.reject(root, out.name, {"run": run_id, "status": RunStatus.KILLED}, error.message)


def _pairs(values: Dict[str, str]) -> List[_Item]:
    return [{"key": key, "value": value} for key, value in values.items()]
