"""A store behind a tracking server, mlcli's or MLflow's: the methods of the local one, each a request or a few.

What this process has logged goes out before an answer is read, so a reader sees each call that returned.
"""

from __future__ import annotations

import json
from os import urandom
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import quote

from mlcli import filters, journal, rules, wire
from mlcli.entities import (
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModelInput,
    LoggedModelMetric,
    LoggedModelOutput,
    Metric,
    Page,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
    all_pages,
)
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.store import http, spool
from mlcli.store.leftovers import Leftover
from mlcli.store.records import PARENT_RUN, Pairs, pairs
from mlcli.store.rest_models import RestModels
from mlcli.store.tracking import Store

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100  # what one log-batch may hold, and 1000 in all
_MAX_WHOLE = 8 * 1024 * 1024  # bytes of a batch that a server of ours takes as one
_HISTORY_PAGE = 25_000
_ID_LENGTH = 32
_COLLECTABLE, _COLLECT = "/api/2.0/mlcli/collectable", "/api/2.0/mlcli/collect"
_COLLECTED_AT_ONCE = 500  # runs that the server removes, with their files, before it answers


class RestStore(RestModels, Store):
    """The store at the address ``root``. Nothing is asked of the server before the first call."""

    def __init__(self, url: str) -> None:
        self.server = http.server(url)
        self.root = self.uri = self.server.url

    def close(self) -> None:
        """Nothing to do: connections are kept for the next store of this address."""

    def absorb(self) -> None:
        """Send what this process has logged and the server does not have yet."""
        spool.flush(self.root)

    # -- experiments

    def create_experiment(
        self, name: str, artifact_location: Optional[str] = None, tags: Optional[Pairs] = None
    ) -> str:
        body: Dict[str, Any] = {"name": rules.experiment_name(name)}
        if artifact_location:
            body["artifact_location"] = artifact_location
        if tags:
            body["tags"] = _experiment_tags(tags)
        try:
            return str(self._post("experiments/create", body, again=False)["experiment_id"])
        except http.Uncertain:
            made = self.find_experiment(name)  # a name is taken once: if it is there now, that was us
            if made is None:
                return str(self._post("experiments/create", body, again=False)["experiment_id"])
            return made.experiment_id

    def ensure_experiment(self, name: str) -> Experiment:
        found = self._named(name)
        if found is None:
            try:
                self.create_experiment(name)
            except AlreadyExists:  # another process was quicker
                pass
            found = self._named(name)
        if found is None:
            raise NotFound(f"the experiment {name!r} was created and is not there")
        if found.lifecycle_stage != LifecycleStage.ACTIVE:  # MLflow keeps the names of deleted ones
            raise InvalidState(
                f"experiment {found.experiment_id} ({name!r}) is deleted",
                hint=f"`mlcli experiments restore {found.experiment_id}` brings it back",
            )
        return found

    def get_experiment(self, experiment_id: str) -> Experiment:
        found = self._get("experiments/get", experiment_id=experiment_id)
        return wire.experiment_from(found["experiment"])

    def find_experiment(self, name: str) -> Optional[Experiment]:
        found = self._named(name)
        return found if found is not None and found.lifecycle_stage == LifecycleStage.ACTIVE else None

    def search_experiments(
        self,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        view_type: str = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        page_token: Optional[str] = None,
    ) -> Page[Experiment]:
        body = _search(filter_string, order_by, max_results, page_token)
        body["view_type"] = view_type
        found = self._post("experiments/search", body)
        return Page(
            [wire.experiment_from(item) for item in found.get("experiments", ())], found.get("next_page_token") or None
        )

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        rules.experiment_name(new_name)
        self._post("experiments/update", {"experiment_id": experiment_id, "new_name": new_name})

    def delete_experiment(self, experiment_id: str) -> None:
        self._post("experiments/delete", {"experiment_id": experiment_id})

    def restore_experiment(self, experiment_id: str) -> None:
        self._post("experiments/restore", {"experiment_id": experiment_id})

    def set_experiment_tag(self, experiment_id: str, key: str, value: object) -> None:
        body = {"experiment_id": experiment_id, **_experiment_tags({key: value})[0]}
        self._post("experiments/set-experiment-tag", body)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        self._post("experiments/delete-experiment-tag", {"experiment_id": experiment_id, "key": key})

    # -- runs

    def create_run(
        self,
        experiment_id: str,
        start_time: Optional[int] = None,
        tags: Optional[Pairs] = None,
        run_name: Optional[str] = None,
        user_id: str = "",
        status: str = RunStatus.RUNNING,
        run_id: Optional[str] = None,
    ) -> Run:
        if run_id is not None:
            raise InvalidInput(
                "a tracking server gives a run its id",
                hint="leave the id out; `mlcli import` keeps ids on a local store",
            )
        given = {rules.key(key, "tag"): rules.tag_value(key, value) for key, value in pairs(tags)}
        named = given.get("mlflow.runName")
        if run_name and named and run_name != named:
            raise InvalidInput(f"the run is named {run_name!r} and {named!r} (tag mlflow.runName): give one name")
        name = rules.run_name(run_name or named or journal.new_run_name())
        time = journal.now() if start_time is None else rules.timestamp(start_time)
        body = {
            "experiment_id": str(experiment_id),
            "user_id": user_id,
            "run_name": name,
            "start_time": time,
            "tags": wire.pairs({**given, "mlflow.runName": name}),
        }
        made = self._create_once(body, name, time)
        if status != RunStatus.RUNNING:
            return self.update_run(made.info.run_id, status)
        return made

    def _create_once(self, body: Dict[str, Any], name: str, time: int) -> Run:
        """Create a run once, even when the answer is cut off.

        An mlcli server knows a request that comes again by its key; of an MLflow server we ask whether the run is there.
        """
        key = {"Idempotency-Key": urandom(16).hex()}
        for last in (False, False, True):
            try:
                return wire.run_from(self._post("runs/create", body, again=False, headers=key)["run"])
            except http.Uncertain:  # noqa: PERF203 - a request takes longer than any `try`
                sought = f"attributes.run_name = {filters.quoted(name)} AND attributes.start_time = {time}"
                for run in self.search_runs([body["experiment_id"]], sought, max_results=10):
                    if all(run.data.tags.get(tag["key"]) == tag["value"] for tag in body["tags"]):
                        return run
                if last:
                    raise
        raise AssertionError  # the last attempt returned or raised

    def get_run(self, run_id: str) -> Run:
        self.absorb()
        try:
            return wire.run_from(self._get("runs/get", run_id=run_id)["run"])
        except NotFound:
            raise NotFound(f"there is no run {run_id!r}", hint="`mlcli runs list` shows what there is") from None

    def find_run(self, reference: str) -> str:
        if reference == "latest" or reference.startswith("latest~"):
            return self._nth_latest(reference)
        if not reference:
            raise NotFound("there is no run ''", hint="`mlcli runs list` shows what there is")
        if len(reference) >= _ID_LENGTH:
            try:
                return self.get_run(reference).info.run_id
            except (NotFound, InvalidInput):
                pass
        found: List[Run] = []
        if reference.isascii() and reference.isalnum():
            found = self._runs_like(f"attributes.run_id LIKE '{reference}%'", ViewType.ALL)
        if not found:
            found = self._runs_like(f"attributes.run_name = {filters.quoted(reference)}", ViewType.ACTIVE_ONLY)
        if len(found) == 1:
            return found[0].info.run_id
        if found:
            shown = ", ".join(run.info.run_id[:12] for run in found[:5]) + (", ..." if len(found) > 5 else "")
            raise InvalidInput(f"{reference!r} could be several runs: {shown}", hint="give more of the id")
        raise NotFound(f"there is no run {reference!r}", hint="`mlcli runs list` shows what there is")

    def _runs_like(self, filter_string: str, view: str) -> List[Run]:
        return list(self.search_runs(None, filter_string, view, 6, ["attributes.start_time DESC"]))

    def _nth_latest(self, reference: str) -> str:
        back = reference.partition("~")[2] or "0"
        if not (back.isascii() and back.isdigit() and len(back) < 10):
            raise InvalidInput(f"{reference!r} is not a run", hint="`latest~1` is the run before the latest")
        place, token = int(back), None
        found: List[Tuple[int, bool, str]] = []
        while True:
            # Some more than asked for: those that began in the same millisecond are put in order here.
            size = min(place + 10 - len(found), 1000) if len(found) < place + 10 else 100
            page = self.search_runs(None, max_results=size, order_by=["attributes.start_time DESC"], page_token=token)
            found += [(-(run.info.start_time or 0), PARENT_RUN in run.data.tags, run.info.run_id) for run in page]
            token = page.token
            if token is None or (len(found) > place and found[-1][0] != found[place][0]):
                break
        if len(found) <= place:
            raise NotFound("there are no runs yet" if back == "0" else f"there are not {place + 1} runs yet")
        return sorted(found, key=lambda run: run[:2])[place][2]

    def update_run(
        self,
        run_id: str,
        status: Optional[str] = None,
        end_time: Optional[int] = None,
        run_name: Optional[str] = None,
    ) -> Run:
        self.absorb()
        body: Dict[str, Any] = {"run_id": run_id}
        if status is not None:
            if status not in RunStatus.ALL:
                raise InvalidInput(f"{status!r} is not a run status", hint="one of " + ", ".join(RunStatus.ALL))
            body["status"] = status
            if status in RunStatus.ENDED and end_time is None:
                end_time = journal.now()
        if end_time is not None:
            body["end_time"] = rules.timestamp(end_time)
        if run_name:
            body["run_name"] = rules.run_name(run_name)
        self._post("runs/update", body)
        return self.get_run(run_id)

    def delete_run(self, run_id: str) -> None:
        self._change_run("runs/delete", {"run_id": run_id})

    def restore_run(self, run_id: str) -> None:
        self._change_run("runs/restore", {"run_id": run_id})

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Union[Metric, LoggedModelMetric]] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Log metrics, params and tags.

        A server of ours takes them all or none, up to 8 MiB. MLflow's takes 1000 in a request: more go in several, params
        and tags first, and where one is refused or cut off, what went before it stays.
        """
        points = [_point(item) for item in metrics]
        texts = [
            {"key": rules.key(item.key, "param"), "value": rules.param_value(item.key, item.value)} for item in params
        ]
        marks = [{"key": rules.key(item.key, "tag"), "value": rules.tag_value(item.key, item.value)} for item in tags]
        self.absorb()
        for body in self._requests(points, texts, marks):
            self._post("runs/log-batch", {"run_id": run_id, **body})

    def _requests(
        self, points: List[Dict[str, Any]], texts: List[Dict[str, Any]], marks: List[Dict[str, Any]]
    ) -> Iterable[Dict[str, Any]]:
        whole = {"params": texts, "tags": marks, "metrics": points}
        parts = list(batches(points, texts, marks))
        if len(parts) < 2 or (spool.speaks_journal(self.root) and len(json.dumps(whole)) <= _MAX_WHOLE):
            return [{name: part for name, part in whole.items() if part}]
        return parts

    def set_tag(self, run_id: str, key: str, value: object) -> None:
        body = {"run_id": run_id, "key": rules.key(key, "tag"), "value": rules.tag_value(key, value)}
        self._change_run("runs/set-tag", body)

    def delete_tag(self, run_id: str, key: str) -> None:
        self.absorb()
        try:
            self._post("runs/delete-tag", {"run_id": run_id, "key": key}, again=False)
        except http.Uncertain:
            if key in self.get_run(run_id).data.tags:
                self._post("runs/delete-tag", {"run_id": run_id, "key": key}, again=False)

    def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        given = [{"dataset": wire.filled(**item.dataset._asdict()), "tags": wire.pairs(item.tags)} for item in datasets]
        body = wire.filled(run_id=run_id, datasets=given, models=[{"model_id": item.model_id} for item in models])
        self._change_run("runs/log-inputs", body)

    def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        self._change_run("runs/outputs", {"run_id": run_id, "models": [item._asdict() for item in models]})

    def record_logged_model(self, run_id: str, model: Union[str, Mapping[str, Any]]) -> None:
        text = model if isinstance(model, str) else json.dumps(dict(model))
        self._change_run("runs/log-model", {"run_id": run_id, "model_json": text})

    def move_run(self, run_id: str, experiment_id: str) -> Run:
        """Move a run, on a server of ours; on MLflow's only a run that is there already can be had."""
        found = self.get_run(run_id)
        if found.info.experiment_id == str(experiment_id):
            return found
        if not spool.speaks_journal(self.root):
            raise InvalidInput(f"{self.root} cannot move a run to another experiment")
        self.server.json("POST", "/api/2.0/mlcli/runs/move", {"run_id": run_id, "experiment_id": str(experiment_id)})
        return self.get_run(run_id)

    def latest_metrics(self, run_ids: Sequence[str]) -> Dict[str, List[Metric]]:
        self.absorb()
        return {
            run_id: [
                wire.metric_from(point)
                for point in self._get("runs/get", run_id=run_id)["run"].get("data", {}).get("metrics", ())
            ]
            for run_id in run_ids
        }

    def search_runs(
        self,
        experiment_ids: Optional[Sequence[str]] = None,
        filter_string: str = "",
        view_type: str = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: Optional[str] = None,
    ) -> Page[Run]:
        self.absorb()
        ids = self.all_experiments() if experiment_ids is None else [str(item) for item in experiment_ids]
        body = _search(filter_string, order_by, max_results, page_token)
        body.update(experiment_ids=ids, run_view_type=view_type)
        found = self._post("runs/search", body) if ids else {}
        return Page([wire.run_from(item) for item in found.get("runs", ())], found.get("next_page_token") or None)

    def get_metric_history(self, run_id: str, key: str) -> List[Metric]:
        self.absorb()
        points = list(self._points(run_id, key))
        if not points:
            self.get_run(run_id)  # MLflow has no word for a run that is not there
        return sorted(points, key=lambda point: (point.timestamp, point.step, _nan_first(point.value)))

    def get_metric_values(self, run_id: str, key: str) -> List[float]:
        history = self.get_metric_history(run_id, key)
        history.sort(key=lambda point: (point.step, point.timestamp))
        return [point.value for point in history]

    def _points(self, run_id: str, key: str) -> Iterator[Metric]:  # type: ignore[override]
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            found = self._get("metrics/get-history", run_id=run_id, metric_key=key, max_results=_HISTORY_PAGE, **more)
            yield from map(wire.metric_from, found.get("metrics", ()))
            token = found.get("next_page_token") or ""
            if not token:
                return

    def artifact_root(self, run_id: str) -> str:
        """Where a run's artifacts are reached from here: an address of the server, or the place it names."""
        return proxied(self.root, self.get_run(run_id).info.artifact_uri)

    # -- what is the server's own business

    def collectable(
        self, older_than: int = 0, run_ids: Optional[Sequence[str]] = None
    ) -> Tuple[List[Run], List[Experiment]]:
        """What was deleted on a server of ours; whoever asks needs the right to administer it."""
        query: List[Tuple[str, object]] = [("older_than", older_than)]
        found = self._collectable([*query, *(("run_ids", run_id) for run_id in run_ids or ())])
        return (
            [wire.run_from(item) for item in found.get("runs", ())],
            [wire.experiment_from(item) for item in found.get("experiments", ())],
        )

    def _collectable(self, query: Sequence[Tuple[str, object]]) -> Dict[str, Any]:
        self.absorb()
        if not spool.speaks_journal(self.root):
            raise InvalidInput(
                f"what is deleted on {self.root} cannot be removed from here",
                hint="run `mlflow gc` where the server runs",
            )
        return self.server.json("GET", _COLLECTABLE, query=query)

    def collect(self, runs: Sequence[Run], experiments: Sequence[Experiment]) -> None:
        keys = [run.info.run_id for run in runs]
        for start in range(0, len(keys), _COLLECTED_AT_ONCE):
            self.server.json("POST", _COLLECT, {"run_ids": keys[start : start + _COLLECTED_AT_ONCE]})
        if experiments:
            self.server.json("POST", _COLLECT, {"experiment_ids": [item.experiment_id for item in experiments]})

    def leftovers(self) -> List[Leftover]:
        found = self._collectable([("leftovers", "true")])
        return [Leftover(item["path"], item["why"]) for item in found.get("leftovers", ())]

    def remove_leftovers(self, found: Sequence[Leftover]) -> None:
        """Let the server remove what it finds now: it takes no path from outside."""
        if found:
            self.server.json("POST", _COLLECT, {"leftovers": True})

    def counts(self) -> Dict[str, int]:
        """How many experiments there are; a server does not tell of the rest."""
        return {"experiments": len(self.all_experiments())}

    def rejected_lines(self, limit: int = 20) -> List[Dict[str, Any]]:
        """What the server refused of that which was sent from here."""
        return spool.rejected(self.root)[-limit:]

    # -- requests

    def _change_run(self, path: str, body: Dict[str, Any]) -> None:
        self.absorb()
        self._post(path, body)

    def _named(self, name: str) -> Optional[Experiment]:
        try:
            found = self._get("experiments/get-by-name", experiment_name=name)
        except NotFound:
            return None
        return wire.experiment_from(found["experiment"])

    def all_experiments(self) -> List[str]:
        """The ids of all experiments, deleted ones too."""
        found = all_pages(lambda size, token: self.search_experiments("", (), ViewType.ALL, size, token), None, 1000)
        return [item.experiment_id for item in found]


def batches(
    metrics: Sequence[Dict[str, Any]], params: Sequence[Dict[str, Any]], tags: Sequence[Dict[str, Any]]
) -> Iterator[Dict[str, Any]]:
    """Bodies of log-batch requests, each as large as one may be."""
    metrics, params, tags = list(metrics), list(params), list(tags)
    while metrics or params or tags:
        body = {}
        body["params"], params = params[:MAX_PARAMS], params[MAX_PARAMS:]
        body["tags"], tags = tags[:MAX_TAGS], tags[MAX_TAGS:]
        room = MAX_METRICS - len(body["params"]) - len(body["tags"])
        body["metrics"], metrics = metrics[:room], metrics[room:]
        yield {name: part for name, part in body.items() if part}


def proxied(root: str, uri: str) -> str:
    """The address at which the server ``root`` gives what lies at ``mlflow-artifacts:``; other places as they are."""
    scheme, colon, path = uri.partition(":")
    if scheme != "mlflow-artifacts" or not colon:
        return uri
    if path.startswith("//"):
        host, _, path = path[2:].partition("/")
        if host and host != root.partition("://")[2].partition("/")[0]:
            return uri  # what is meant for this server must not be shown to another one
    return f"{root}{ARTIFACTS}/{quote(path.strip('/'))}"


def _point(item: Union[Metric, LoggedModelMetric]) -> Dict[str, Any]:
    key = rules.key(item.key, "metric")
    point = {
        "key": key,
        "value": wire.number(rules.metric_value(key, item.value)),
        "timestamp": rules.timestamp(item.timestamp),
        "step": rules.int64(item.step, "a step"),
    }
    if isinstance(item, LoggedModelMetric):
        point.update(
            wire.filled(
                run_id=item.run_id,
                model_id=item.model_id,
                dataset_name=item.dataset_name,
                dataset_digest=item.dataset_digest,
            )
        )
    return point


def _search(filter_string: str, order_by: Sequence[str], max_results: int, page_token: Optional[str]) -> Dict[str, Any]:
    body: Dict[str, Any] = {"max_results": max_results}
    if filter_string:
        body["filter"] = filter_string
    if order_by:
        body["order_by"] = list(order_by)
    if page_token:
        body["page_token"] = page_token
    return body


def _experiment_tags(tags: Pairs) -> List[Dict[str, str]]:
    return [
        {
            "key": rules.key(key, "tag"),
            "value": rules.text(value, f"the value of tag {key!r}", rules.MAX_EXPERIMENT_TAG_VALUE),
        }
        for key, value in pairs(tags)
    ]


def _nan_first(value: float) -> Tuple[int, float]:
    return (0, 0.0) if value != value else (1, value)  # noqa: PLR0124 - NaN is the one value unequal to itself
