"""Logged models, as MLflow 3 has them: records of their own beside the runs that made them."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from mlcli import journal, rules
from mlcli.entities import (
    LifecycleStage,
    LoggedModel,
    LoggedModelMetric,
    LoggedModelStatus,
    Page,
)
from mlcli.errors import InvalidInput, InvalidState, NotFound
from mlcli.store import query
from mlcli.store.absorb import number
from mlcli.store.records import Pairs, Records, experiment_key, grouped, no_experiment, pairs

_COLUMNS = (
    "r.id, r.model_id, r.experiment, r.name, e.artifact_location, r.creation_time, r.last_updated_time, r.status,"
    " r.status_message, r.model_type, r.source_run_id, r.lifecycle_stage"
)
_TABLES = "logged_models r JOIN experiments e ON e.id = r.experiment"


class LoggedModels(Records):
    """The part of a store that keeps logged models."""

    def create_logged_model(
        self,
        experiment_id: str,
        name: Optional[str] = None,
        source_run_id: Optional[str] = None,
        tags: Optional[Pairs] = None,
        params: Optional[Pairs] = None,
        model_type: Optional[str] = None,
    ) -> LoggedModel:
        """Create a logged model whose files are still to come: PENDING until :meth:`finalize_logged_model`."""
        named = rules.logged_model_name(name) if name else journal.new_run_name()
        if source_run_id:
            rules.run_id(source_run_id)
            self.absorb()
        model_id = f"m-{journal.new_run_id()}"
        now = journal.now()
        with self.database.transaction():
            self._active_experiment_key(experiment_id)
            if source_run_id and not self._count(
                "SELECT COUNT(*) FROM runs WHERE run_id = :run_id", {"run_id": source_run_id}
            ):
                raise NotFound(f"there is no run {source_run_id!r}", hint="`mlcli runs list` shows what there is")
            key = self.database.insert(
                "INSERT INTO logged_models"
                " (model_id, experiment, name, creation_time, last_updated_time, model_type, source_run_id)"
                " VALUES (:model_id, :experiment, :name, :now, :now, :model_type, :run_id)",
                {
                    "model_id": model_id,
                    "experiment": experiment_key(experiment_id),
                    "name": named,
                    "now": now,
                    "model_type": rules.text(model_type or "", "the model type", rules.MAX_MODEL_NAME),
                    "run_id": source_run_id or "",
                },
            )
            self._set_model_tags(key, tags)
            self._set_model_params(key, params)
        return self.get_logged_model(model_id)

    def get_logged_model(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        rows = self.database.query(f"SELECT {_COLUMNS} FROM {_TABLES} WHERE r.model_id = :id", {"id": model_id})
        if not rows or (rows[0][-1] != LifecycleStage.ACTIVE and not allow_deleted):
            raise _no_model(model_id)
        return self._logged_models(rows)[0]

    def finalize_logged_model(self, model_id: str, status: str) -> LoggedModel:
        """Say how storing its files ended: READY or FAILED."""
        if status not in LoggedModelStatus.ALL:
            raise InvalidInput(f"{status!r} is no status of a logged model", hint=", ".join(LoggedModelStatus.ALL))
        with self.database.transaction():
            self._touch_model(self._active_model(model_id), "status = :status", {"status": status})
        return self.get_logged_model(model_id)

    def delete_logged_model(self, model_id: str) -> None:
        """Move a logged model to the deleted stage; its files stay."""
        with self.database.transaction():
            change = "lifecycle_stage = 'deleted', deleted_time = :now"
            self._touch_model(self._active_model(model_id), change, {})

    def set_logged_model_tags(self, model_id: str, tags: Pairs) -> None:
        with self.database.transaction():
            model = self._active_model(model_id)
            self._set_model_tags(model, tags)
            self._touch_model(model, "", {})

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        with self.database.transaction():
            model = self._active_model(model_id)
            if not self.database.execute(
                "DELETE FROM logged_model_tags WHERE model = :model AND key = :key", {"model": model, "key": key}
            ):
                raise NotFound(f"logged model {model_id} has no tag {key!r}")

    def log_logged_model_params(self, model_id: str, params: Pairs) -> None:
        with self.database.transaction():
            self._set_model_params(self._active_model(model_id), params)

    def log_logged_model_metrics(self, metrics: Sequence[LoggedModelMetric]) -> None:
        """Keep metric points with the logged models they name; the run's own metrics are :meth:`Store.log_batch`'s."""
        if not metrics:
            return
        with self.database.transaction(durable=False):
            models = {model_id: self._active_model(model_id) for model_id in {point.model_id for point in metrics}}
            for point in metrics:
                key = rules.key(point.key, "metric")
                value = rules.metric_value(key, point.value)
                is_nan = value != value  # noqa: PLR0124 - NaN is the one value unequal to itself
                self.database.execute(
                    "INSERT INTO logged_model_metrics"
                    " (model, key, run_id, dataset_name, dataset_digest, step, timestamp, value, is_nan) VALUES"
                    " (:model, :key, :run_id, :dataset_name, :dataset_digest, :step, :time, :value, :is_nan)"
                    " ON CONFLICT DO NOTHING",
                    {
                        "model": models[point.model_id],
                        "key": key,
                        "run_id": point.run_id or "",
                        "dataset_name": rules.text(point.dataset_name or "", "a dataset's name", 500),
                        "dataset_digest": rules.text(point.dataset_digest or "", "a dataset's digest", 100),
                        "step": rules.int64(point.step, "a step"),
                        "time": rules.timestamp(point.timestamp),
                        "value": 0.0 if is_nan else value,
                        "is_nan": int(is_nan),
                    },
                )

    def search_logged_models(
        self,
        experiment_ids: Optional[Sequence[str]] = None,
        filter_string: Optional[str] = "",
        datasets: Optional[Sequence[Mapping[str, Any]]] = None,
        max_results: int = 100,
        order_by: Optional[Sequence[Any]] = None,
        page_token: Optional[str] = None,
    ) -> Page[LoggedModel]:
        """Find logged models in the experiments (None: in all), by default the newest first.

        ``order_by`` has texts, or maps of field_name, ascending, dataset_name, dataset_digest as MLflow has;
        ``datasets`` (maps of dataset_name, dataset_digest) says which metrics the filter looks at.
        """
        keys = None if experiment_ids is None else [experiment_key(item) for item in experiment_ids]
        select = query.logged_models(filter_string, order_by, keys, datasets, journal.now())
        with self.database.snapshot():
            found, token = self._page(select, max_results, page_token)
            rows = self._by_keys(f"SELECT {_COLUMNS} FROM {_TABLES} WHERE r.id", found)
            return Page(self._logged_models(rows), token)

    # -- rows to values

    def _logged_models(self, rows: Sequence[Tuple[Any, ...]]) -> List[LoggedModel]:
        keys = [row[0] for row in rows]
        params = grouped(
            self._by_keys("SELECT model, key, value FROM logged_model_params WHERE model", keys, ordered=False)
        )
        tags = grouped(
            self._by_keys("SELECT model, key, value FROM logged_model_tags WHERE model", keys, ordered=False)
        )
        metrics = self._model_metrics(keys, {row[0]: row[1] for row in rows})
        result = []
        for key, model_id, experiment, name, location, created, updated, status, said, kind, run_id, stage in rows:
            base = (location or os.path.join(self.root, str(experiment))).rstrip("/")
            result.append(
                LoggedModel(
                    model_id=model_id,
                    experiment_id=str(experiment),
                    name=name,
                    artifact_location=f"{base}/models/{model_id}/artifacts",
                    creation_timestamp=created,
                    last_updated_timestamp=updated,
                    status=status,
                    status_message=said,
                    model_type=kind,
                    source_run_id=run_id,
                    tags=tags.get(key, {}),
                    params=params.get(key, {}),
                    metrics=tuple(metrics.get(key, ())),
                    lifecycle_stage=stage,
                )
            )
        return result

    def _model_metrics(self, keys: Sequence[int], ids: Mapping[int, str]) -> Dict[int, List[LoggedModelMetric]]:
        rows = self._by_keys(
            "SELECT model, key, timestamp, step, value, is_nan, run_id, dataset_name, dataset_digest"
            " FROM logged_model_metrics WHERE model",
            keys,
            ordered=False,
        )
        result: Dict[int, List[LoggedModelMetric]] = {}
        for model, key, time, step, value, is_nan, run_id, name, digest in sorted(rows):
            shown = float("nan") if is_nan else value
            result.setdefault(model, []).append(
                LoggedModelMetric(key, shown, time, step, ids[model], run_id, name, digest)
            )
        return result

    # -- small pieces

    def _note_models(self, run: int, role: str, models: Iterable[Tuple[str, int]]) -> None:
        """Note that a run read or made logged models, at a step of it."""
        for model_id, step in models:
            self._active_model(model_id)
            self.database.execute(
                "INSERT INTO run_models (run, role, model_id, step) VALUES (:run, :role, :model_id, :step)"
                " ON CONFLICT (run, role, model_id) DO UPDATE SET step = excluded.step",
                {"run": run, "role": role, "model_id": model_id, "step": rules.int64(step or 0, "a step")},
            )

    def _active_model(self, model_id: object) -> int:
        row = self.database.one(
            "SELECT id, lifecycle_stage FROM logged_models WHERE model_id = :id", {"id": str(model_id)}
        )
        if row is None or row[1] != LifecycleStage.ACTIVE:
            raise _no_model(model_id)
        return int(row[0])

    def _active_experiment_key(self, experiment_id: str) -> None:
        row = self.database.one(
            "SELECT lifecycle_stage FROM experiments WHERE id = :id", {"id": experiment_key(experiment_id)}
        )
        if row is None:
            raise no_experiment(experiment_id)
        if row[0] != LifecycleStage.ACTIVE:
            raise InvalidState(
                f"experiment {experiment_id} is deleted",
                hint=f"`mlcli experiments restore {experiment_id}` restores it",
            )

    def _touch_model(self, model: int, change: str, params: Mapping[str, Any]) -> None:
        self.database.execute(
            f"UPDATE logged_models SET {change}{', ' if change else ''}last_updated_time = :now WHERE id = :id",
            {**params, "id": model, "now": journal.now()},
        )

    def _set_model_tags(self, model: int, tags: Optional[Pairs]) -> None:
        for key, value in pairs(tags):
            self.database.execute(
                "INSERT INTO logged_model_tags (model, key, value) VALUES (:model, :key, :value)"
                " ON CONFLICT (model, key) DO UPDATE SET value = excluded.value",
                {
                    "model": model,
                    "key": rules.key(key, "tag"),
                    "value": rules.text(value, f"the value of tag {key!r}", rules.MAX_MODEL_TAG_VALUE),
                },
            )

    def _set_model_params(self, model: int, params: Optional[Pairs]) -> None:
        for key, value in pairs(params):
            text = rules.param_value(rules.key(key, "param"), value)
            row = self.database.one(
                "SELECT value FROM logged_model_params WHERE model = :model AND key = :key",
                {"model": model, "key": key},
            )
            if row and row[0] != text:
                raise InvalidInput(
                    f"param {key!r} of the model is {row[0]!r} already and cannot become {text!r}",
                    hint="a param is written once; log a value that changes as a tag",
                )
            self.database.execute(
                "INSERT INTO logged_model_params (model, key, value, number) VALUES (:model, :key, :value, :number)"
                " ON CONFLICT (model, key) DO NOTHING",
                {"model": model, "key": key, "value": text, "number": number(text)},
            )


def _no_model(model_id: object) -> NotFound:
    return NotFound(f"there is no logged model {model_id!r}", hint="a logged model's id begins with m-")
