"""Entities as MLflow's REST API writes them, both ways: what the server answers and what a client reads.

64 bit integers are JSON numbers, what is unset or empty is left out, numbers JSON has no word for are the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from mlcli.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    FileInfo,
    LoggedModel,
    LoggedModelInput,
    LoggedModelMetric,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)

Json = Dict[str, Any]

MODEL_STATUS = {
    LoggedModelStatus.PENDING: "LOGGED_MODEL_PENDING",
    LoggedModelStatus.READY: "LOGGED_MODEL_READY",
    LoggedModelStatus.FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}


# -- entities to JSON


def number(value: float) -> Any:
    """A float as JSON can hold it."""
    if value - value == 0.0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - NaN is the one unequal to itself


def filled(**fields: Any) -> Json:
    """The fields that say something: no None, no empty list or object."""
    return {key: value for key, value in fields.items() if value is not None and value not in ([], {})}


def pairs(values: Mapping[str, Any]) -> List[Json]:
    return [{"key": key, "value": value} for key, value in values.items()]


def metric(item: Any) -> Json:
    return {"key": item.key, "value": number(item.value), "timestamp": item.timestamp, "step": item.step}


def experiment(item: Experiment, location: str) -> Json:
    """``location`` is where the client is told the artifacts are."""
    return filled(
        experiment_id=item.experiment_id,
        name=item.name,
        artifact_location=location,
        lifecycle_stage=item.lifecycle_stage,
        last_update_time=item.last_update_time,
        creation_time=item.creation_time,
        tags=pairs(item.tags),
    )


def run_info(info: RunInfo, artifact_uri: str) -> Json:
    result = {
        "run_uuid": info.run_id,
        "run_id": info.run_id,
        "experiment_id": info.experiment_id,
        "run_name": info.run_name,
        "user_id": info.user_id,
        "status": info.status,
        "start_time": info.start_time,
        "end_time": info.end_time,
        "artifact_uri": artifact_uri,
        "lifecycle_stage": info.lifecycle_stage,
    }
    if info.end_time is None:
        del result["end_time"]
    return result


def run(item: Run, artifact_uri: str) -> Json:
    info, data, inputs, outputs = item
    points = getattr(data.metrics, "points", None)
    if points is None:
        points = [Metric(key, value, info.start_time, 0) for key, value in data.metrics.items()]
    known = {}
    if points:
        known["metrics"] = [metric(point) for point in points]
    if data.params:
        known["params"] = pairs(data.params)
    if data.tags:
        known["tags"] = pairs(data.tags)
    return {
        "info": run_info(info, artifact_uri),
        "data": known,
        "inputs": _run_inputs(inputs) if inputs.dataset_inputs or inputs.model_inputs else {},
        "outputs": filled(model_outputs=[output._asdict() for output in outputs.model_outputs]),
    }


def _run_inputs(inputs: RunInputs) -> Json:
    return filled(
        dataset_inputs=[
            filled(tags=pairs(given.tags), dataset=filled(**given.dataset._asdict())) for given in inputs.dataset_inputs
        ],
        model_inputs=[model._asdict() for model in inputs.model_inputs],
    )


def registered_model(item: RegisteredModel) -> Json:
    return filled(
        name=item.name,
        creation_timestamp=item.creation_timestamp,
        last_updated_timestamp=item.last_updated_timestamp,
        description=item.description or None,
        latest_versions=[model_version(version) for version in item.latest_versions],
        tags=pairs(item.tags),
        aliases=[{"alias": alias, "version": str(version)} for alias, version in item.aliases.items()],
    )


def model_version(item: ModelVersion) -> Json:
    texts = ("user_id", "description", "run_id", "run_link", "status_message", "model_id")
    return filled(
        name=item.name,
        version=str(item.version),
        creation_timestamp=item.creation_timestamp,
        last_updated_timestamp=item.last_updated_timestamp,
        current_stage=item.current_stage,
        source=item.source,
        status=item.status,
        **{text: getattr(item, text) or None for text in texts},
        tags=pairs(item.tags),
        aliases=list(item.aliases),
    )


def logged_model(item: LoggedModel, artifact_uri: str) -> Json:
    info = filled(
        model_id=item.model_id,
        experiment_id=item.experiment_id,
        name=item.name,
        creation_timestamp_ms=item.creation_timestamp,
        last_updated_timestamp_ms=item.last_updated_timestamp,
        artifact_uri=artifact_uri,
        status=MODEL_STATUS[item.status],
        status_message=item.status_message or None,
        model_type=item.model_type or None,
        source_run_id=item.source_run_id or None,
        tags=pairs(item.tags),
    )
    points = [
        {
            **metric(point),
            **filled(
                model_id=point.model_id or None,
                run_id=point.run_id or None,
                dataset_name=point.dataset_name or None,
                dataset_digest=point.dataset_digest or None,
            ),
        }
        for point in item.metrics
    ]
    return {"info": info, "data": filled(params=pairs(item.params), metrics=points)}


def file_info(item: FileInfo) -> Json:
    return filled(path=item.path, is_dir=item.is_dir, file_size=item.file_size)


# -- JSON to entities


def _pairs_from(found: Any) -> Dict[str, str]:
    return {str(pair["key"]): pair.get("value", "") for pair in found or ()}


def metric_from(found: Mapping[str, Any]) -> Metric:
    return Metric(str(found["key"]), float(found["value"]), int(found.get("timestamp", 0)), int(found.get("step", 0)))


def experiment_from(found: Mapping[str, Any]) -> Experiment:
    return Experiment(
        str(found["experiment_id"]),
        str(found["name"]),
        found.get("artifact_location", ""),
        found.get("lifecycle_stage", "active"),
        int(found.get("creation_time", 0)),
        int(found.get("last_update_time", 0)),
        _pairs_from(found.get("tags")),
    )


def run_info_from(found: Mapping[str, Any]) -> RunInfo:
    end = found.get("end_time")
    return RunInfo(
        str(found.get("run_id") or found["run_uuid"]),
        str(found.get("experiment_id", "0")),
        found.get("run_name", ""),
        found.get("user_id", ""),
        found.get("status", "RUNNING"),
        int(found.get("start_time", 0)),
        int(end) if end else None,
        found.get("artifact_uri", ""),
        found.get("lifecycle_stage", "active"),
    )


def run_from(found: Mapping[str, Any]) -> Run:
    """The run of a ``{"info": ..., "data": ..., "inputs": ...}``."""
    data = found.get("data") or {}
    inputs = found.get("inputs") or {}
    return Run(
        run_info_from(found["info"]),
        RunData(
            {str(point["key"]): float(point["value"]) for point in data.get("metrics") or ()},
            _pairs_from(data.get("params")),
            _pairs_from(data.get("tags")),
        ),
        RunInputs(
            tuple(
                DatasetInput(dataset_from(given["dataset"]), _pairs_from(given.get("tags")))
                for given in inputs.get("dataset_inputs") or ()
            ),
            tuple(LoggedModelInput(str(item["model_id"])) for item in inputs.get("model_inputs") or ()),
        ),
        RunOutputs(
            tuple(
                LoggedModelOutput(str(item["model_id"]), int(item.get("step", 0)))
                for item in (found.get("outputs") or {}).get("model_outputs") or ()
            )
        ),
    )


def dataset_from(found: Mapping[str, Any]) -> Dataset:
    return Dataset(*(found.get(field) for field in Dataset._fields))  # type: ignore[arg-type]


def file_info_from(found: Mapping[str, Any]) -> FileInfo:
    size = found.get("file_size")
    return FileInfo(str(found["path"]), bool(found.get("is_dir")), None if size is None else int(size))


def registered_model_from(found: Mapping[str, Any]) -> RegisteredModel:
    return RegisteredModel(
        str(found["name"]),
        int(found.get("creation_timestamp", 0)),
        int(found.get("last_updated_timestamp", 0)),
        found.get("description", ""),
        tuple(model_version_from(item) for item in found.get("latest_versions") or ()),
        _pairs_from(found.get("tags")),
        {str(item["alias"]): str(item["version"]) for item in found.get("aliases") or ()},
    )


def model_version_from(found: Mapping[str, Any]) -> ModelVersion:
    texts = ("description", "user_id", "current_stage", "source", "run_id", "run_link", "status", "status_message")
    return ModelVersion(
        str(found["name"]),
        str(found["version"]),
        int(found.get("creation_timestamp", 0)),
        int(found.get("last_updated_timestamp", 0)),
        **{text: found[text] for text in (*texts, "model_id") if found.get(text)},
        tags=_pairs_from(found.get("tags")),
        aliases=tuple(found.get("aliases") or ()),
    )


def logged_model_from(found: Mapping[str, Any]) -> LoggedModel:
    """The model of a ``{"info": ..., "data": ...}``."""
    info, data = found["info"], found.get("data") or {}
    status = str(info.get("status", ""))
    return LoggedModel(
        str(info["model_id"]),
        str(info.get("experiment_id", "0")),
        info.get("name", ""),
        info.get("artifact_uri", ""),
        int(info.get("creation_timestamp_ms", 0)),
        int(info.get("last_updated_timestamp_ms", 0)),
        {word: name for name, word in MODEL_STATUS.items()}.get(status, LoggedModelStatus.PENDING),
        info.get("status_message", ""),
        info.get("model_type", ""),
        info.get("source_run_id", ""),
        _pairs_from(info.get("tags")),
        _pairs_from(data.get("params")),
        tuple(
            LoggedModelMetric(
                *metric_from(point),
                point.get("model_id", ""),
                point.get("run_id", ""),
                point.get("dataset_name", ""),
                point.get("dataset_digest", ""),
            )
            for point in data.get("metrics") or ()
        ),
    )
