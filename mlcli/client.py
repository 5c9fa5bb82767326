"""`Client`: the store by run id instead of by active run, with the names of MLflow's client."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Union

from mlcli import context, fluent, rules
from mlcli.artifacts import download_artifacts, list_artifacts
from mlcli.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    FileInfo,
    Metric,
    Page,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
)
from mlcli.live import LiveRun, attach
from mlcli.registry import RegistryClient, same_store
from mlcli.store import store_root


class Client(RegistryClient):
    """Reads and writes one store; any number may exist, in any thread. Runs made here are ended by who made them."""

    def __init__(
        self,
        tracking_uri: Optional[str] = None,
        registry_uri: Optional[str] = None,
    ) -> None:
        self._uri = store_root(tracking_uri) if tracking_uri else None
        same_store(registry_uri, self.tracking_uri)

    @property
    def tracking_uri(self) -> str:
        return self._uri or fluent.get_tracking_uri()

    def _run(self, run_id: str) -> LiveRun:
        return attach(self.tracking_uri, run_id)

    # -- experiments

    def create_experiment(
        self, name: str, artifact_location: Optional[str] = None, tags: Optional[Mapping[str, Any]] = None
    ) -> str:
        with self._open() as store:
            return store.create_experiment(name, artifact_location, tags)

    def get_experiment(self, experiment_id: str) -> Experiment:
        with self._open(create=False) as store:
            return store.get_experiment(experiment_id)

    def get_experiment_by_name(self, name: str) -> Optional[Experiment]:
        with self._open(create=False) as store:
            return store.find_experiment(name)

    def search_experiments(
        self,
        view_type: str = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: Optional[str] = None,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[Experiment]:
        with self._open(create=False) as store:
            return store.search_experiments(filter_string or "", order_by or (), view_type, max_results, page_token)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        with self._open() as store:
            store.rename_experiment(experiment_id, new_name)

    def delete_experiment(self, experiment_id: str) -> None:
        with self._open() as store:
            store.delete_experiment(experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        with self._open() as store:
            store.restore_experiment(experiment_id)

    def set_experiment_tag(self, experiment_id: str, key: str, value: Any) -> None:
        with self._open() as store:
            store.set_experiment_tag(experiment_id, key, value)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        with self._open() as store:
            store.delete_experiment_tag(experiment_id, key)

    # -- runs

    def create_run(
        self,
        experiment_id: str,
        start_time: Optional[int] = None,
        tags: Optional[Mapping[str, Any]] = None,
        run_name: Optional[str] = None,
    ) -> Run:
        """Create a run that is open until `set_terminated`, whatever becomes of this process."""
        user = (tags or {}).get(context.USER) or context.user()
        with self._open() as store:
            return store.create_run(experiment_id, start_time, tags, run_name, str(user))

    def get_run(self, run_id: str) -> Run:
        with self._open(create=False) as store:
            return store.get_run(run_id)

    def get_parent_run(self, run_id: str) -> Optional[Run]:
        with self._open(create=False) as store:
            parent = store.get_run(run_id).data.tags.get(context.PARENT_RUN)
            return store.get_run(parent) if parent else None

    def search_runs(
        self,
        experiment_ids: Union[str, Sequence[str], None] = None,
        filter_string: str = "",
        run_view_type: str = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Union[str, Sequence[str], None] = None,
        page_token: Optional[str] = None,
    ) -> Page[Run]:
        """Find runs in one experiment, in several, or (None) in all; the page's ``token`` leads to the next one."""
        ids = [experiment_ids] if isinstance(experiment_ids, (str, int)) else experiment_ids
        order = [order_by] if isinstance(order_by, str) else order_by or ()
        with self._open(create=False) as store:
            return store.search_runs(ids, filter_string, run_view_type, max_results, order, page_token)

    def update_run(self, run_id: str, status: Optional[str] = None, name: Optional[str] = None) -> None:
        with self._open() as store:
            store.update_run(run_id, status, None, name)

    def set_terminated(self, run_id: str, status: Optional[str] = None, end_time: Optional[int] = None) -> None:
        """End a run, FINISHED unless said otherwise."""
        with self._open() as store:
            store.update_run(run_id, status or RunStatus.FINISHED, end_time)

    def delete_run(self, run_id: str) -> None:
        with self._open() as store:
            store.delete_run(run_id)

    def restore_run(self, run_id: str) -> None:
        with self._open() as store:
            store.restore_run(run_id)

    # -- logging

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: Any,
        timestamp: Optional[int] = None,
        step: Optional[int] = None,
        synchronous: Optional[bool] = None,
        dataset_name: Optional[str] = None,
        dataset_digest: Optional[str] = None,
        model_id: Optional[str] = None,
    ) -> Optional[fluent.RunOperations]:
        """Log one point of a metric; with ``model_id`` it tells of that logged model too: see `mlcli.log_metric`."""
        run = self._run(run_id)
        if model_id is not None:
            fluent.log_to_model(
                run.root, run_id, model_id, {key: value}, step, timestamp, dataset_name or "", dataset_digest or ""
            )
        else:
            time = None if timestamp is None else rules.timestamp(timestamp)
            run.journal.metric(run_id, key, value, rules.int64(step or 0, "a step"), time)
        return fluent.RunOperations() if synchronous is False else None

    def log_param(self, run_id: str, key: str, value: Any, synchronous: Optional[bool] = None) -> Any:
        """Log a param, written once; any value is kept as its text. Returns the value."""
        self.log_batch(run_id, params=[Param(key, rules.param_value(rules.key(key, "param"), value))])
        return value if synchronous is not False else fluent.RunOperations()

    def set_tag(
        self, run_id: str, key: str, value: Any, synchronous: Optional[bool] = None
    ) -> Optional[fluent.RunOperations]:
        with self._open() as store:
            store.set_tag(run_id, key, value)
        return fluent.RunOperations() if synchronous is False else None

    def delete_tag(self, run_id: str, key: str) -> None:
        with self._open() as store:
            store.delete_tag(run_id, key)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: Optional[bool] = None,
    ) -> Optional[fluent.RunOperations]:
        """Log metrics, params and tags: all of them or, if one is not acceptable, none."""
        with self._open() as store:
            store.log_batch(run_id, metrics, params, tags)
        return fluent.RunOperations() if synchronous is False else None

    def log_inputs(self, run_id: str, datasets: Optional[Sequence[Union[Dataset, DatasetInput]]] = None) -> None:
        """Note the datasets that a run read."""
        inputs = [item if isinstance(item, DatasetInput) else DatasetInput(item) for item in datasets or ()]
        with self._open() as store:
            store.log_inputs(run_id, inputs)

    def get_metric_history(self, run_id: str, key: str) -> List[Metric]:
        """Every point of a metric, ordered by timestamp, step, value."""
        with self._open(create=False) as store:
            return store.get_metric_history(run_id, key)

    # -- artifacts

    def log_artifact(self, run_id: str, local_path: str, artifact_path: Optional[str] = None) -> None:
        self._run(run_id).artifacts.put(local_path, artifact_path or "")

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: Optional[str] = None) -> None:
        self._run(run_id).artifacts.put_tree(local_dir, artifact_path or "")

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self._run(run_id).log_text(text, artifact_file)

    def log_dict(self, run_id: str, dictionary: Any, artifact_file: str) -> None:
        self._run(run_id).log_dict(dictionary, artifact_file)

    def log_figure(
        self, run_id: str, figure: Any, artifact_file: str, *, save_kwargs: Optional[Mapping[str, Any]] = None
    ) -> None:
        self._run(run_id).log_figure(figure, artifact_file, save_kwargs)

    def log_image(
        self,
        run_id: str,
        image: Any,
        artifact_file: Optional[str] = None,
        key: Optional[str] = None,
        step: Optional[int] = None,
        timestamp: Optional[int] = None,
        synchronous: Optional[bool] = None,
    ) -> Optional[fluent.RunOperations]:
        """Save an image under a name, or under a ``key`` as one of a series of steps."""
        self._run(run_id).log_image(image, fluent.image_name(artifact_file, key, step, timestamp))
        return fluent.RunOperations() if synchronous is False else None

    def log_table(self, run_id: str, data: Any, artifact_file: str) -> None:
        self._run(run_id).log_table(data, artifact_file)

    def load_table(
        self,
        experiment_id: str,
        artifact_file: str,
        run_ids: Optional[Sequence[str]] = None,
        extra_columns: Optional[Sequence[str]] = None,
    ) -> Any:
        """Read a table of several runs (by default of all in the experiment that have it) as one DataFrame."""
        return fluent.tables(self.tracking_uri, experiment_id, artifact_file, run_ids, extra_columns)

    def list_artifacts(self, run_id: str, path: Optional[str] = None) -> List[FileInfo]:
        """What is directly in a folder of the run's artifacts; nothing there is an empty list."""
        return list_artifacts(run_id=run_id, artifact_path=path, tracking_uri=self.tracking_uri)

    def download_artifacts(self, run_id: str, path: str, dst_path: Optional[str] = None) -> str:
        """Fetch a file or folder and return its local path; without ``dst_path`` nothing is copied."""
        return download_artifacts(run_id=run_id, artifact_path=path, dst_path=dst_path, tracking_uri=self.tracking_uri)


MlflowClient = Client
