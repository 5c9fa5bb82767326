"""The registry and logged models behind a tracking server: the local store's methods, each a request."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence
from urllib.parse import quote

from mlcli import rules, wire
from mlcli.entities import LoggedModel, LoggedModelMetric, LoggedModelStatus, ModelVersion, Page, RegisteredModel
from mlcli.errors import AlreadyExists, InvalidInput, NotFound
from mlcli.store import http, sources
from mlcli.store.records import Pairs, pairs


class Requests:
    """The one way to MLflow's API of a server; ``again=False`` for what must not be done twice."""

    server: http.Server

    def _get(self, path: str, **query: object) -> Dict[str, Any]:
        return self.server.json("GET", http.API + path, query=list(query.items()))

    def _post(
        self, path: str, body: Dict[str, Any], *, again: bool = True, headers: Optional[Dict[str, str]] = None
    ) -> Dict[str, Any]:
        return self._ask("POST", path, body, again=again, headers=headers)

    def _ask(
        self,
        method: str,
        path: str,
        body: Optional[Dict[str, Any]],
        *,
        again: bool = True,
        headers: Optional[Dict[str, str]] = None,
    ) -> Dict[str, Any]:
        return self.server.json(method, http.API + path, body, again=again, headers=headers)


class RestModels(Requests):
    """What a server keeps about models."""

    # -- registered models

    def create_registered_model(
        self, name: str, tags: Optional[Pairs] = None, description: Optional[str] = None
    ) -> RegisteredModel:
        body = wire.filled(name=rules.model_name(name), tags=_tags(tags), description=description)
        try:
            return _model(self._post("registered-models/create", body, again=False))
        except http.Uncertain:
            try:  # a name is taken once: if it is there now, that was us
                return self.get_registered_model(name)
            except NotFound:
                return _model(self._post("registered-models/create", body, again=False))

    def get_registered_model(self, name: str) -> RegisteredModel:
        return _model(self._get("registered-models/get", name=name))

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        body = {"name": name, "new_name": rules.model_name(new_name)}
        return _model(self._post("registered-models/rename", body, again=False))

    def update_registered_model(self, name: str, description: Optional[str]) -> RegisteredModel:
        return _model(self._ask("PATCH", "registered-models/update", {"name": name, "description": description or ""}))

    def delete_registered_model(self, name: str) -> None:
        self._ask("DELETE", "registered-models/delete", {"name": name})

    def search_registered_models(
        self,
        filter_string: Optional[str] = "",
        max_results: int = 100,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[RegisteredModel]:
        found = self._find("registered-models/search", filter_string, max_results, order_by, page_token)
        items = [wire.registered_model_from(item) for item in found.get("registered_models", ())]
        return Page(items, found.get("next_page_token") or None)

    def get_latest_versions(self, name: str, stages: Optional[Sequence[str]] = None) -> List[ModelVersion]:
        body = wire.filled(name=name, stages=list(stages or ()))
        return _versions(self._post("registered-models/get-latest-versions", body))

    def set_registered_model_tag(self, name: str, key: str, value: object) -> None:
        self._post("registered-models/set-tag", {"name": name, "key": key, "value": str(value)})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        self._ask("DELETE", "registered-models/delete-tag", {"name": name, "key": key})

    def set_registered_model_alias(self, name: str, alias: str, version: object) -> None:
        self._post("registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._ask("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        return _version(self._get("registered-models/alias", name=name, alias=alias))

    # -- model versions

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: Optional[str] = None,
        tags: Optional[Pairs] = None,
        run_link: Optional[str] = None,
        description: Optional[str] = None,
        model_id: Optional[str] = None,
        user_id: str = "",  # noqa: ARG002 - the server knows who asks
    ) -> ModelVersion:
        """Create the next version. Not sent twice: when the answer is cut off, whoever calls must look."""
        body = wire.filled(
            name=name,
            source=source,
            run_id=run_id or None,
            tags=_tags(tags),
            run_link=run_link or None,
            description=description or None,
            model_id=model_id or None,
        )
        return _version(self._post("model-versions/create", body, again=False))

    def register_model_version(
        self,
        name: str,
        source: str,
        run_id: Optional[str] = None,
        tags: Optional[Pairs] = None,
        description: Optional[str] = None,
        model_id: Optional[str] = None,
        alias: Optional[str] = None,
        user_id: str = "",
        run_link: Optional[str] = None,
    ) -> ModelVersion:
        """Create the next version; what can be seen to be wrong is refused before the server makes anything."""
        if alias is not None:
            rules.alias(alias)
        if sources.read(source).kind == "local":  # of this machine, not of the server's
            raise sources.refused(source)
        for key, _ in pairs(tags):
            rules.key(key, "tag")
        try:
            self.create_registered_model(name)
        except AlreadyExists:
            pass
        made = self.create_model_version(name, source, run_id, tags, run_link, description, model_id, user_id)
        if alias is None:
            return made
        self.set_registered_model_alias(name, alias, made.version)
        return self.get_model_version(name, made.version)

    def get_model_version(self, name: str, version: object) -> ModelVersion:
        return _version(self._get("model-versions/get", name=name, version=str(version)))

    def update_model_version(self, name: str, version: object, description: Optional[str]) -> ModelVersion:
        body = {"name": name, "version": str(version), "description": description or ""}
        return _version(self._ask("PATCH", "model-versions/update", body))

    def transition_model_version_stage(
        self, name: str, version: object, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        body = {
            "name": name,
            "version": str(version),
            "stage": stage,
            "archive_existing_versions": archive_existing_versions,
        }
        return _version(self._post("model-versions/transition-stage", body))

    def delete_model_version(self, name: str, version: object) -> None:
        self._ask("DELETE", "model-versions/delete", {"name": name, "version": str(version)})

    def search_model_versions(
        self,
        filter_string: Optional[str] = "",
        max_results: int = 10_000,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[ModelVersion]:
        found = self._find("model-versions/search", filter_string, max_results, order_by, page_token)
        return Page(_versions(found), found.get("next_page_token") or None)

    def get_model_version_download_uri(self, name: str, version: object) -> str:
        found = self._get("model-versions/get-download-uri", name=name, version=str(version))
        return str(found.get("artifact_uri", ""))

    def set_model_version_tag(self, name: str, version: object, key: str, value: object) -> None:
        body = {"name": name, "version": str(version), "key": key, "value": str(value)}
        self._post("model-versions/set-tag", body)

    def delete_model_version_tag(self, name: str, version: object, key: str) -> None:
        self._ask("DELETE", "model-versions/delete-tag", {"name": name, "version": str(version), "key": key})

    # -- logged models

    def create_logged_model(
        self,
        experiment_id: str,
        name: Optional[str] = None,
        source_run_id: Optional[str] = None,
        tags: Optional[Pairs] = None,
        params: Optional[Pairs] = None,
        model_type: Optional[str] = None,
    ) -> LoggedModel:
        body = wire.filled(
            experiment_id=str(experiment_id),
            name=name or None,
            source_run_id=source_run_id or None,
            tags=_tags(tags),
            params=_tags(params),
            model_type=model_type or None,
        )
        return _logged(self._post("logged-models", body, again=False))

    def get_logged_model(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        if allow_deleted:
            raise InvalidInput("a tracking server does not show deleted models")
        return _logged(self._get(_path(model_id)))

    def finalize_logged_model(self, model_id: str, status: str) -> LoggedModel:
        if status not in wire.MODEL_STATUS:
            raise InvalidInput(f"{status!r} is no status of a logged model", hint=", ".join(LoggedModelStatus.ALL))
        return _logged(self._ask("PATCH", _path(model_id), {"model_id": model_id, "status": wire.MODEL_STATUS[status]}))

    def delete_logged_model(self, model_id: str) -> None:
        self._ask("DELETE", _path(model_id), None)

    def set_logged_model_tags(self, model_id: str, tags: Pairs) -> None:
        self._ask("PATCH", f"{_path(model_id)}/tags", {"tags": _tags(tags)})

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        self._ask("DELETE", f"{_path(model_id)}/tags/{quote(key, safe='', errors='surrogatepass')}", None)

    def log_logged_model_params(self, model_id: str, params: Pairs) -> None:
        self._post(f"{_path(model_id)}/params", {"params": _tags(params)})

    def log_logged_model_metrics(self, metrics: Sequence[LoggedModelMetric]) -> None:
        for run_id in sorted({point.run_id for point in metrics}):
            self.log_batch(run_id, [point for point in metrics if point.run_id == run_id])

    def log_batch(self, run_id: str, metrics: Sequence[Any] = ()) -> None:
        raise NotImplementedError  # the runs' part of the store

    def search_logged_models(
        self,
        experiment_ids: Optional[Sequence[str]] = None,
        filter_string: Optional[str] = "",
        datasets: Optional[Sequence[Mapping[str, Any]]] = None,
        max_results: int = 100,
        order_by: Optional[Sequence[Any]] = None,
        page_token: Optional[str] = None,
    ) -> Page[LoggedModel]:
        ids = self.all_experiments() if experiment_ids is None else [str(item) for item in experiment_ids]
        body = wire.filled(
            experiment_ids=ids,
            filter=filter_string or None,
            datasets=[dict(item) for item in datasets or ()],
            max_results=max_results,
            order_by=[_order(item) for item in order_by or ()],
            page_token=page_token,
        )
        found = self._post("logged-models/search", body) if ids else {}
        items = [wire.logged_model_from(item) for item in found.get("models", ())]
        return Page(items, found.get("next_page_token") or None)

    def all_experiments(self) -> List[str]:
        raise NotImplementedError  # the experiments' part of the store

    def _find(
        self,
        path: str,
        filter_string: Optional[str],
        max_results: int,
        order_by: Optional[Sequence[str]],
        page_token: Optional[str],
    ) -> Dict[str, Any]:
        query: List[Any] = [("max_results", max_results)]
        query += [("filter", filter_string)] if filter_string else []
        query += [("order_by", item) for item in order_by or ()]
        query += [("page_token", page_token)] if page_token else []
        return self.server.json("GET", http.API + path, query=query)


def _path(model_id: str) -> str:
    return f"logged-models/{quote(model_id, safe='', errors='surrogatepass')}"


def _tags(given: Optional[Pairs]) -> List[Dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in pairs(given)]


def _order(item: Any) -> Dict[str, Any]:
    """A text such as ``metrics.loss DESC`` as a logged models' search wants it."""
    if isinstance(item, Mapping):
        return dict(item)
    if not isinstance(item, str):
        raise InvalidInput("order_by has texts, or maps with a field_name", hint="such as metrics.accuracy")
    name, _, direction = item.strip().rpartition(" ")
    if direction.upper() in ("ASC", "DESC") and name:
        return {"field_name": name.strip(), "ascending": direction.upper() == "ASC"}
    return {"field_name": item.strip(), "ascending": True}


def _model(found: Mapping[str, Any]) -> RegisteredModel:
    return wire.registered_model_from(found["registered_model"])


def _version(found: Mapping[str, Any]) -> ModelVersion:
    return wire.model_version_from(found["model_version"])


def _versions(found: Mapping[str, Any]) -> List[ModelVersion]:
    items: Iterable[Mapping[str, Any]] = found.get("model_versions", ())
    return [wire.model_version_from(item) for item in items]


def _logged(found: Mapping[str, Any]) -> LoggedModel:
    return wire.logged_model_from(found["model"])
