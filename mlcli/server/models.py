"""The registry and logged models over REST: each handler translates to one call of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlcli import rules, wire
from mlcli.artifacts import open_artifacts
from mlcli.entities import LoggedModel, LoggedModelOutput, ModelVersion
from mlcli.errors import NotFound
from mlcli.server.call import Call
from mlcli.server.schema import MAX_FILTER, Field
from mlcli.server.security import READ, WRITE

if TYPE_CHECKING:
    from mlcli.server.routes import Route

Json = dict[str, Any]

_STATUS = {word: status for status, word in wire.MODEL_STATUS.items()}


def routes(api: Callable[..., Route]) -> list[Route]:
    """The part of the table that is about models; ``api`` makes a route under MLflow's prefix."""
    name, version, model_id = Field("name", required=True), Field("version", required=True), Field("model_id")
    key, value = Field("key", required=True), Field("value")
    tags, params = Field("tags", (key, value), many=True), Field("params", (key, value), many=True)
    description, alias = Field("description"), Field("alias", required=True)
    search = (
        Field("filter", limit=MAX_FILTER),
        Field("max_results", "int64"),
        Field("order_by", many=True),
        Field("page_token"),
    )
    model, versions, logged = "registered-models", "model-versions", "logged-models"
    latest = (name, Field("stages", many=True))
    run_id = Field("run_id", required=True, also="run_uuid")
    order = (
        Field("field_name", required=True),
        Field("ascending", "boolean"),
        Field("dataset_name"),
        Field("dataset_digest"),
    )
    return [
        api("POST", f"{model}/create", WRITE, create_model, name, tags, description),
        api("GET", f"{model}/get", READ, get_model, name, quick=1),
        api("GET", f"{model}/search", READ, search_models, *search, quick=100),
        api("POST", f"{model}/rename", WRITE, rename_model, name, Field("new_name", required=True)),
        api("PATCH", f"{model}/update", WRITE, update_model, name, description),
        api("DELETE", f"{model}/delete", WRITE, delete_model, name),
        api("POST", f"{model}/get-latest-versions", READ, latest_versions, *latest, quick=1),
        api("GET", f"{model}/get-latest-versions", READ, latest_versions, *latest, quick=1),
        api("POST", f"{model}/set-tag", WRITE, set_model_tag, name, key, value),
        api("DELETE", f"{model}/delete-tag", WRITE, delete_model_tag, name, key),
        api("POST", f"{model}/alias", WRITE, set_alias, name, alias, version),
        api("GET", f"{model}/alias", READ, get_by_alias, name, alias, quick=1),
        api("DELETE", f"{model}/alias", WRITE, delete_alias, name, alias),
        api(
            "POST", f"{versions}/create", WRITE, create_version,
            name, Field("source", required=True), Field("run_id"), tags, Field("run_link"), description, model_id,
        ),
        api("GET", f"{versions}/get", READ, get_version, name, version, quick=1),
        api("GET", f"{versions}/get-download-uri", READ, get_download_uri, name, version, quick=1),
        api("GET", f"{versions}/search", READ, search_versions, *search, quick=100),
        api("PATCH", f"{versions}/update", WRITE, update_version, name, version, description),
        api(
            "POST", f"{versions}/transition-stage", WRITE, transition_stage,
            name, version, Field("stage", required=True), Field("archive_existing_versions", "boolean"),
        ),
        api("DELETE", f"{versions}/delete", WRITE, delete_version, name, version),
        api("POST", f"{versions}/set-tag", WRITE, set_version_tag, name, version, key, value),
        api("DELETE", f"{versions}/delete-tag", WRITE, delete_version_tag, name, version, key),
        api(
            "POST", logged, WRITE, create_logged,
            Field("experiment_id", required=True), Field("name"), Field("model_type"), Field("source_run_id"),
            params, tags,
        ),
        api(
            "POST", f"{logged}/search", READ, search_logged,
            Field("experiment_ids", many=True), Field("filter", limit=MAX_FILTER),
            Field("datasets", (Field("dataset_name", required=True), Field("dataset_digest")), many=True),
            Field("max_results", "int64"), Field("order_by", order, many=True), Field("page_token"),
        ),
        api("GET", logged + "/{model_id}", READ, get_logged, quick=1),
        api(
            "PATCH", logged + "/{model_id}", WRITE, finalize_logged,
            Field("status", required=True, choices=tuple(_STATUS)),
        ),
        api("DELETE", logged + "/{model_id}", WRITE, delete_logged),
        api("PATCH", logged + "/{model_id}/tags", WRITE, set_logged_tags, tags),
        api("DELETE", logged + "/{model_id}/tags/{tag_key:path}", WRITE, delete_logged_tag),
        api("POST", logged + "/{model_id}/params", WRITE, log_logged_params, params),
        api(
            "GET", logged + "/{model_id}/artifacts/directories", READ, list_logged,
            Field("artifact_directory_path"), Field("page_token"),
        ),
        api(
            "POST", "runs/outputs", WRITE, log_outputs,
            run_id, Field("models", (Field("model_id", required=True), Field("step", "int64")), required=True, many=True),
        ),
        api("POST", "runs/log-model", WRITE, log_model, run_id, Field("model_json", required=True)),
    ]  # fmt: skip


# -- registered models


def _model(found: Any) -> Json:
    return {"registered_model": wire.registered_model(found)}


def create_model(call: Call) -> Json:
    return _model(
        call.store.create_registered_model(
            call.text("name"), _pairs(call.given.get("tags")), call.given.get("description")
        )
    )


def get_model(call: Call) -> Json:
    return _model(call.store.get_registered_model(call.text("name")))


def search_models(call: Call) -> Json:
    page = call.store.search_registered_models(
        call.text("filter"),
        call.given.get("max_results", 100),
        call.given.get("order_by"),
        call.given.get("page_token") or None,
    )
    return wire.filled(registered_models=[wire.registered_model(item) for item in page], next_page_token=page.token)


def rename_model(call: Call) -> Json:
    return _model(call.store.rename_registered_model(call.text("name"), call.text("new_name")))


def update_model(call: Call) -> Json:
    return _model(call.store.update_registered_model(call.text("name"), call.given.get("description")))


def delete_model(call: Call) -> Json:
    call.store.delete_registered_model(call.text("name"))
    return {}


def latest_versions(call: Call) -> Json:
    found = call.store.get_latest_versions(call.text("name"), call.given.get("stages") or None)
    return wire.filled(model_versions=[wire.model_version(item) for item in found])


def set_model_tag(call: Call) -> Json:
    call.store.set_registered_model_tag(call.text("name"), call.text("key"), call.text("value"))
    return {}


def delete_model_tag(call: Call) -> Json:
    call.store.delete_registered_model_tag(call.text("name"), call.text("key"))
    return {}


def set_alias(call: Call) -> Json:
    call.store.set_registered_model_alias(call.text("name"), call.text("alias"), call.text("version"))
    return {}


def get_by_alias(call: Call) -> Json:
    return _version(call.store.get_model_version_by_alias(call.text("name"), call.text("alias")))


def delete_alias(call: Call) -> Json:
    call.store.delete_registered_model_alias(call.text("name"), call.text("alias"))
    return {}


# -- model versions


def _version(found: ModelVersion) -> Json:
    return {"model_version": wire.model_version(found)}


def create_version(call: Call) -> Json:
    given = call.given
    return _version(
        call.store.create_model_version(
            call.text("name"),
            call.text("source"),
            given.get("run_id") or None,
            _pairs(given.get("tags")),
            given.get("run_link"),
            given.get("description"),
            given.get("model_id") or None,
            user_id=call.user.name or "",
        )
    )


def get_version(call: Call) -> Json:
    return _version(call.store.get_model_version(call.text("name"), call.text("version")))


def get_download_uri(call: Call) -> Json:
    found = call.store.get_model_version_download_uri(call.text("name"), call.text("version"))
    return {"artifact_uri": call.server.places.public(call.store, found)}


def search_versions(call: Call) -> Json:
    page = call.store.search_model_versions(
        call.text("filter"),
        call.given.get("max_results", 10_000),
        call.given.get("order_by"),
        call.given.get("page_token") or None,
    )
    return wire.filled(model_versions=[wire.model_version(item) for item in page], next_page_token=page.token)


def update_version(call: Call) -> Json:
    return _version(
        call.store.update_model_version(call.text("name"), call.text("version"), call.given.get("description"))
    )


def transition_stage(call: Call) -> Json:
    return _version(
        call.store.transition_model_version_stage(
            call.text("name"),
            call.text("version"),
            call.text("stage"),
            call.given.get("archive_existing_versions", False),
        )
    )


def delete_version(call: Call) -> Json:
    call.store.delete_model_version(call.text("name"), call.text("version"))
    return {}


def set_version_tag(call: Call) -> Json:
    call.store.set_model_version_tag(call.text("name"), call.text("version"), call.text("key"), call.text("value"))
    return {}


def delete_version_tag(call: Call) -> Json:
    call.store.delete_model_version_tag(call.text("name"), call.text("version"), call.text("key"))
    return {}


# -- logged models


def _logged(call: Call, found: LoggedModel) -> Json:
    return wire.logged_model(found, call.server.places.public(call.store, found.artifact_location))


def create_logged(call: Call) -> Json:
    given = call.given
    tags = dict(_pairs(given.get("tags")))
    if call.user.name is not None:
        tags["mlflow.user"] = call.user.name
    found = call.store.create_logged_model(
        call.text("experiment_id"),
        given.get("name") or None,
        given.get("source_run_id") or None,
        tags,
        _pairs(given.get("params")),
        given.get("model_type") or None,
    )
    return {"model": _logged(call, found)}


def get_logged(call: Call) -> Json:
    return {"model": _logged(call, call.store.get_logged_model(call.text("model_id")))}


def finalize_logged(call: Call) -> Json:
    found = call.store.finalize_logged_model(call.text("model_id"), _STATUS[call.text("status")])
    return {"model": _logged(call, found)}


def delete_logged(call: Call) -> Json:
    call.store.delete_logged_model(call.text("model_id"))
    return {}


def search_logged(call: Call) -> Json:
    given = call.given
    page = call.store.search_logged_models(
        given.get("experiment_ids", []),
        call.text("filter"),
        given.get("datasets"),
        given.get("max_results", 100),
        given.get("order_by"),
        given.get("page_token") or None,
    )
    return wire.filled(models=[_logged(call, item) for item in page], next_page_token=page.token)


def set_logged_tags(call: Call) -> Json:
    call.store.set_logged_model_tags(call.text("model_id"), _pairs(call.given.get("tags")))
    return {"model": _logged(call, call.store.get_logged_model(call.text("model_id")))}


def delete_logged_tag(call: Call) -> Json:
    call.store.delete_logged_model_tag(call.text("model_id"), call.text("tag_key"))
    return {}


def log_logged_params(call: Call) -> Json:
    call.store.log_logged_model_params(call.text("model_id"), _pairs(call.given.get("params")))
    return {}


def list_logged(call: Call) -> Json:
    """List a logged model's files directly in a folder of it."""
    found = call.store.get_logged_model(call.text("model_id"))
    name = rules.artifact_path(call.text("artifact_directory_path"))
    try:
        files = [item for item in open_artifacts(found.artifact_location).list(name) if item.path != name]
    except NotFound:
        files = []
    return wire.filled(
        root_uri=call.server.places.public(call.store, found.artifact_location),
        files=[wire.file_info(item) for item in files],
    )


def log_outputs(call: Call) -> Json:
    models = [LoggedModelOutput(item["model_id"], item.get("step", 0)) for item in call.given["models"]]
    call.store.log_outputs(call.text("run_id"), models)
    return {}


def log_model(call: Call) -> Json:
    """Note a model as clients of MLflow 2 do."""
    call.store.record_logged_model(call.text("run_id"), call.text("model_json"))
    return {}


def _pairs(found: Sequence[Json] | None) -> list[tuple[str, str]]:
    return [(pair["key"], pair.get("value", "")) for pair in found or ()]
