"""A run that this process logs to: each call appends a line to the process's journal, or a file to the run's artifacts."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, Optional, Set, Tuple
from weakref import WeakSet

from mlcli import content, context, journal, rights, rules
from mlcli.artifacts import LocalArtifacts, open_artifacts
from mlcli.entities import Dataset, LifecycleStage, Run, RunData, RunInfo, RunInputs, RunStatus
from mlcli.errors import InvalidInput, InvalidState, StoreUnavailable
from mlcli.store import files_folder, folder_of, is_remote, open_store, settle, writer


class LiveRun:
    """The logging calls of one run. ``info`` may be given by who knows it; otherwise it is read when it is needed."""

    def __init__(self, root: str, run_id: str, *, watched: bool = False, info: Optional[RunInfo] = None) -> None:
        self.run_id = run_id
        self.root = root
        self.watched = watched  # `mlcli run` holds the run and ends it
        self.inherited = False  # by a fork: the parent process ends it
        self.journal: journal.Journal = writer(root)
        self.known_params: Optional[Dict[str, str]] = None  # None: not read from the store yet
        self.known_datasets: Set[Tuple[str, str]] = set()  # name and digest: noted as inputs already
        self._info = info
        self._artifacts: Optional[LocalArtifacts] = None
        _live_runs.add(self)

    @property
    def info(self) -> RunInfo:
        if self._info is None:
            self._info = self.read().info
        return self._info

    @property
    def data(self) -> RunData:
        """The latest metrics, the params and tags, read now."""
        return self.read().data

    @property
    def inputs(self) -> RunInputs:
        return self.read().inputs

    def to_dictionary(self) -> Dict[str, Any]:
        return self.read().to_dictionary()

    def read(self) -> Run:
        """The run as it stands in the store now."""
        with open_store(self.root) as store:
            return store.get_run(self.run_id)

    @property
    def artifacts(self) -> LocalArtifacts:
        if self._artifacts is None:
            try:
                self.info  # noqa: B018 - reads it
            except StoreUnavailable:
                if not is_remote(self.root):
                    raise
                return LocalArtifacts(files_folder(self.root, self.run_id))  # `mlcli sync` sends them
            self._artifacts = open_artifacts(self.info.artifact_uri, store=self.root, run_id=self.run_id)
        return self._artifacts

    def log_metrics(
        self, metrics: Mapping[str, Any], step: Optional[int] = None, timestamp: Optional[int] = None
    ) -> None:
        """Log several metrics of one step: all of them or, if one is no number, none."""
        time = None if timestamp is None else rules.timestamp(timestamp)
        if metrics:
            self.journal.metrics(self.run_id, metrics, 0 if step is None else rules.int64(step, "a step"), time)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params, all of them or none; one that has a different value already is an error."""
        known = self._params()
        new = {}
        for key, value in params.items():
            text = rules.param_value(rules.key(key, "param"), value)
            before = known.get(key)
            if before is None:
                new[key] = text
            elif before != text and not (self.watched and _same_value(before, text)):
                raise InvalidInput(
                    f"param {key!r} of run {self.run_id} is {before!r} already and cannot become {text!r}",
                    hint="a param is written once; log a value that changes as a metric or a tag",
                )
        if new:
            self.journal.params(self.run_id, new)
            known.update(new)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        if tags:
            self.journal.tags(self.run_id, tags)
            if self._info is not None and context.RUN_NAME in tags:
                self._info = self._info._replace(run_name=str(tags[context.RUN_NAME]))

    def delete_tag(self, key: str) -> None:
        """Delete a tag; NotFound when there is none of that name."""
        with open_store(self.root) as store:
            store.delete_tag(self.run_id, key)

    def log_input(self, dataset: Dataset, tags: Mapping[str, str]) -> None:
        self.journal.input(self.run_id, dataset._asdict(), tags)

    def ensure_input(self, dataset: Dataset) -> None:
        """Note a dataset that the run read, unless it is noted."""
        key = (dataset.name, dataset.digest)
        if key not in self.known_datasets:
            self.known_datasets |= {(item.dataset.name, item.dataset.digest) for item in self.inputs.dataset_inputs}
        if key not in self.known_datasets:
            self.log_input(dataset, {})
            self.known_datasets.add(key)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Write ``text`` as an artifact, in UTF-8."""
        if not isinstance(text, str):
            raise InvalidInput(f"log_text takes text, not {type(text).__name__}", hint="log_dict writes dictionaries")
        self.artifacts.put_bytes(text.encode("utf-8", "surrogateescape"), artifact_file)

    def log_dict(self, dictionary: Any, artifact_file: str) -> None:
        """Write a dictionary or list as YAML where the name ends so (.yaml, .yml), else as JSON."""
        if artifact_file.endswith((".yaml", ".yml")):
            from mlcli.models.mlmodel import dump_yaml

            self.log_text(dump_yaml(content.plain(dictionary)), artifact_file)
        else:
            self.log_text(content.json_text(dictionary, indent=2), artifact_file)

    def log_figure(self, figure: Any, artifact_file: str, save_kwargs: Optional[Mapping[str, Any]] = None) -> None:
        """Save a matplotlib or plotly figure in the format that the name ends with."""
        suffix = _suffix(artifact_file)
        options = dict(save_kwargs or {})
        with self.artifacts.writing(artifact_file, suffix) as path:
            if hasattr(figure, "savefig"):
                figure.savefig(path, **options)
            elif hasattr(figure, "write_image") and suffix != ".html":
                figure.write_image(path, **options)
            elif hasattr(figure, "write_html"):
                figure.write_html(path, **{"include_plotlyjs": "cdn", "auto_open": False, **options})
            else:
                raise InvalidInput(
                    f"{type(figure).__name__} is not a figure", hint="give a matplotlib or plotly figure"
                )

    def log_image(self, image: Any, artifact_file: str) -> None:
        """Save an image, Pillow's or an array, in the format that the name ends with."""
        picture = content.picture(image)
        with self.artifacts.writing(artifact_file, _suffix(artifact_file)) as path:
            picture.save(path)

    def log_table(self, data: Any, artifact_file: str) -> None:
        """Append rows (a DataFrame, or a dictionary of columns) to a JSON table."""
        from mlcli.locks import locked

        columns, rows = content.table(data)
        with locked(self._table_lock()):
            before = content.read_table(self.artifacts.path(artifact_file), artifact_file)
            if before is not None:
                if set(before["columns"]) != set(columns):
                    raise InvalidInput(f"the columns of {artifact_file} are {before['columns']}, not {columns}")
                order = [columns.index(name) for name in before["columns"]]
                columns = before["columns"]
                rows = before["data"] + [[row[place] for place in order] for row in rows]
            self.artifacts.put_bytes(content.json_text({"columns": columns, "data": rows}).encode(), artifact_file)
        if before is None:
            self._note_table(artifact_file)

    def _table_lock(self) -> str:
        """The lock file of the run's tables; of a run on a server it keeps apart only the programs of this machine."""
        place = folder_of(self.root) if self.artifacts.root.startswith(("http://", "https://")) else self.artifacts.root
        rights.make_folder(place)
        return os.path.join(place, ".tmp-tables.lock")

    def end(self, status: str, *, on_purpose: bool = True) -> None:
        """Write the end of the run, unless another process does.

        ``on_purpose`` is False where the program merely stops: at its exit, at the end of a ``with`` in a forked child.
        """
        # The clock may have been set back meanwhile: a run does not end before it began.
        time = max(journal.now(), 0 if self._info is None else self._info.start_time)
        if self._is_ours_to_end(status, on_purpose):
            self.journal.status(self.run_id, status, time)
        if not self.inherited:
            self.journal.sync()
        settle(self.root)
        if self._info is not None:
            self._info = self._info._replace(status=status, end_time=time if status in RunStatus.ENDED else None)

    def _is_ours_to_end(self, status: str, on_purpose: bool) -> bool:
        if self.inherited:
            return on_purpose
        return not self.watched or (on_purpose and status != RunStatus.FINISHED)

    def _params(self) -> Dict[str, str]:
        if self.known_params is None:
            self.known_params = dict(self.read().data.params)
        return self.known_params

    def _note_table(self, artifact_file: str) -> None:
        """Note the table where MLflow's UI looks for tables."""
        noted = json.loads(self.read().data.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": artifact_file, "type": "table"}
        if entry not in noted:
            self.set_tags({"mlflow.loggedArtifacts": json.dumps([*noted, entry])})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.run_id}>"


def attach(root: str, run_id: str) -> LiveRun:
    """Log to a run that somebody else started; it must exist and not be deleted."""
    found = _attached.get((root, run_id))
    if found is None:
        with open_store(root) as store:
            info = store.get_run(run_id).info
        check_stage(info)
        found = _attached[root, run_id] = LiveRun(root, run_id, info=info)
    return found


def check_stage(info: RunInfo) -> None:
    if info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidState(f"run {info.run_id} is deleted", hint=f"`mlcli runs restore {info.run_id}` brings it back")


def _suffix(artifact_file: str) -> str:
    suffix = os.path.splitext(artifact_file)[1]
    if not suffix:
        raise InvalidInput(
            f"the name {artifact_file!r} does not say which format", hint="end it with .png, for example"
        )
    return suffix


def _same_value(before: str, after: str) -> bool:
    """Whether two texts mean one value: mlcli notes what stood on the command line, a script what it made of it."""
    if before.lower() == after.lower() and after.lower() in ("true", "false", "none"):
        return True
    try:
        return float(before) == float(after)
    except ValueError:
        return False


# -- forks

_live_runs: WeakSet[LiveRun] = WeakSet()
_attached: Dict[tuple[str, str], LiveRun] = {}


class _Unopened:
    """Stands for the journal in a forked child, which opens one of its own only if it logs."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        self._run.journal = writer(self._run.root)
        return getattr(self._run.journal, name)


def _after_fork() -> None:
    for run in list(_live_runs):
        run.inherited = True
        run.journal = _Unopened(run)  # type: ignore[assignment]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
