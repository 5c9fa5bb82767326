"""Bring what a source holds into a store: many runs per transaction, files first, nothing twice however often it is done.

A run is known by its id. One that is here and has ended stays as it is; one that was still open when it came is brought up to
date. Files come before the record of their run, so an import that was killed goes on where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mlcli import journal, rules
from mlcli.entities import DatasetInput, RunStatus
from mlcli.errors import InvalidInput, MlcliError
from mlcli.store import Store, bulk
from mlcli.store.bulk import Points, WholeModel, WholeRun, WholeVersion
from mlcli.transfer.records import (
    ExperimentRecord,
    Files,
    ModelRecord,
    RegisteredRecord,
    RunRecord,
    Source,
    Tell,
    Trouble,
    VersionRecord,
    lasting_source,
)

RUNS_AT_ONCE = 500
POINTS_AT_ONCE = 250_000
MODEL_HISTORY = "mlflow.log-model.history"  # a list of models in one tag: the store lets it grow
MAX_MODEL_HISTORY = 1_000_000
FILES_AT = "mlcli.import.artifacts"  # tag: where the files still are that did not come
_STAGES = {"none": "None", "staging": "Staging", "production": "Production", "archived": "Archived"}
_ARTIFACT_MODES = ("copy", "link", "none")

Tick = Callable[[int, int], None]


class Place(NamedTuple):
    """Where an experiment's runs go."""

    source_id: str
    name: str
    experiment_id: str
    how: str  # joined | created | renumbered


class Report:
    """What an import did, counted, and what it could not do."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.counts: dict[str, int] = dict.fromkeys(
            (
                "experiments_created",
                "experiments_joined",
                "runs_added",
                "runs_updated",
                "runs_here_already",
                "metric_points",
                "params",
                "tags",
                "datasets",
                "artifact_files",
                "artifact_bytes",
                "logged_models",
                "registered_models",
                "model_versions",
            ),
            0,
        )
        self.places: list[Place] = []
        self.troubles: list[Trouble] = []

    def tell(self, trouble: Trouble) -> None:
        self.troubles.append(trouble)

    @property
    def complete(self) -> bool:
        """Whether nothing was lost."""
        return not any(trouble.lost for trouble in self.troubles)

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.about,
            "complete": self.complete,
            **self.counts,
            "experiments": [place._asdict() for place in self.places],
            "troubles": [trouble._asdict() for trouble in self.troubles],
        }


class Wishes(NamedTuple):
    """How an import is wanted."""

    artifacts: str = "copy"  # copy | link | none
    experiments: Sequence[str] = ()  # only these names; empty: all
    dry_run: bool = False


EVERYTHING = Wishes()


def bring(source: Source, store: Store, wishes: Wishes = EVERYTHING, tick: Tick | None = None) -> Report:
    """Import everything, or what the wishes say, and report."""
    if wishes.artifacts not in _ARTIFACT_MODES:
        raise InvalidInput(f"artifacts cannot be {wishes.artifacts!r}", hint=f"say {', '.join(_ARTIFACT_MODES)}")
    store.absorb()
    report = Report(source.about)
    records = _wanted(source.experiments(report.tell), wishes, source)
    ids = {record.experiment_id: source.run_ids(record) for record in records}
    total = sum(len(some) for some in ids.values())
    done = 0
    for record in records:
        key = _place(store, record, ids[record.experiment_id], wishes, report)
        bringing = _Bringing(store, key, wishes, report)

        def count(number: int) -> None:
            nonlocal done
            done += number
            if tick is not None:
                tick(min(done, total), total)

        known = bringing.finished(ids[record.experiment_id])
        count(len(known))
        for chunk in _chunks(source.runs(record, report.tell, known)):
            bringing.runs(chunk)
            count(len(chunk))
        for model in source.models(record, report.tell):
            bringing.model(model)
    if not wishes.experiments:
        _register_all(store, list(source.registry(report.tell)), wishes, report)
    return report


class _Bringing:
    """The import of one experiment."""

    def __init__(self, store: Store, key: int | None, wishes: Wishes, report: Report) -> None:
        self.store = store
        self.database = store.database
        self.key = key
        self.wishes = wishes
        self.report = report
        self.base = store.get_experiment(str(key)).artifact_location.rstrip("/") if key is not None else ""

    def finished(self, run_ids: Sequence[str]) -> set[str]:
        """Which of the runs are here for good, with all they have: they need not be read again."""
        known = {run_id for run_id, run in bulk.known_runs(self.database, run_ids).items() if not run.open}
        if self.wishes.artifacts != "none" and known:
            known -= bulk.tagged_runs(self.database, FILES_AT)
        self.report.counts["runs_here_already"] += len(known)
        return known

    def _folder(self, run_id: str) -> str:
        return f"{self.base}/{run_id}/artifacts"

    def runs(self, records: Sequence[RunRecord]) -> None:
        clean = []
        for record in records:
            try:
                clean.append((record, clean_run(record, self.key or 0, self.report.tell)))
            except MlcliError as error:
                self.report.tell(Trouble(f"run {record.run_id}", error.message))
        if self.wishes.dry_run:
            self._count(clean, bulk.known_runs(self.database, [run.run_id for _, run in clean]))
            return
        clean = [(record, self._with_files(record, run)) for record, run in clean]
        with self.database.transaction():
            here = bulk.known_runs(self.database, [run.run_id for _, run in clean])
            bulk.add_runs(self.database, [run for _, run in clean if run.run_id not in here])
            for _, run in clean:
                known = here.get(run.run_id)
                if known is not None and known.open:
                    bulk.renew_run(self.database, known.key, run)
                if known is not None and FILES_AT not in run.tags:
                    bulk.untag(self.database, known.key, FILES_AT)
        self._count(clean, here)

    def model(self, record: ModelRecord) -> None:
        what = f"logged model {record.model_id}"
        if bulk.has_logged_model(self.database, record.model_id):
            return
        try:
            model = clean_model(record, self.key or 0, self.report.tell)
        except MlcliError as error:
            self.report.tell(Trouble(what, error.message))
            return
        if not self.wishes.dry_run:
            self._files(record.files, f"{self.base}/models/{model.model_id}/artifacts", what)
            with self.database.transaction():
                if not bulk.has_logged_model(self.database, model.model_id):
                    bulk.add_logged_model(self.database, model)
        self.report.counts["logged_models"] += 1

    def _with_files(self, record: RunRecord, run: WholeRun) -> WholeRun:
        tags = {key: value for key, value in run.tags.items() if key != FILES_AT}
        if not self._files(record.files, self._folder(run.run_id), f"run {run.run_id}"):
            tags[FILES_AT] = getattr(record.files, "uri", "") or self.report.about
        return run._replace(tags=tags)

    def _files(self, files: Files | None, target: str, what: str) -> bool:
        """Bring the files; False when some did not come, so that another import tries again."""
        if self.wishes.artifacts == "none":
            return False
        whole = True

        def tell(name: str, why: str) -> None:
            nonlocal whole
            whole = False
            self.report.tell(
                Trouble(what, f"the file {name} was left: {why}" if name else f"its files did not come: {why}")
            )

        if files is None:
            tell("", "its folder of artifacts is missing")
        else:
            count, size = files.bring(target, link=self.wishes.artifacts == "link", tell=tell)
            self.report.counts["artifact_files"] += count
            self.report.counts["artifact_bytes"] += size
        return whole

    def _count(self, clean: Sequence[tuple[RunRecord, WholeRun]], here: Mapping[str, bulk.Known]) -> None:
        counts = self.report.counts
        for _, run in clean:
            if run.run_id in here and not here[run.run_id].open:
                counts["runs_here_already"] += 1
                continue
            counts["runs_updated" if run.run_id in here else "runs_added"] += 1
            counts["metric_points"] += sum(len(points.steps) for points in run.metrics.values())
            counts["params"] += len(run.params)
            counts["tags"] += len(run.tags)
            counts["datasets"] += len(run.inputs)


# -- what obeys the rules


def clean_run(record: RunRecord, experiment: int, tell: Tell) -> WholeRun:
    """The run with all that the rules allow; what they do not is told. Raises when there can be no such run."""
    what = f"run {record.run_id}"
    run_id = rules.run_id(record.run_id)
    tags = _allowed(record.tags, "tag", what, tell)
    status = record.status
    if status not in RunStatus.ALL:
        tell(Trouble(what, f"its status {status!r} is not known here; it became FAILED", False))
        status = RunStatus.FAILED
    start = record.start_time if isinstance(record.start_time, int) and record.start_time >= 0 else None
    end = record.end_time if isinstance(record.end_time, int) and record.end_time >= 0 else None
    metrics = {}
    for key, points in record.metrics.items():
        try:
            metrics[rules.key(key, "metric")] = _points_allowed(points, key, what, tell)
        except InvalidInput as error:
            tell(Trouble(what, error.message))
    return WholeRun(
        run_id,
        experiment,
        _run_name(record, tags, tell),
        record.user_id,
        status,
        start if start is not None else end or 0,
        end,
        "deleted" if record.lifecycle_stage == "deleted" else "active",
        (record.deleted_time or journal.now()) if record.lifecycle_stage == "deleted" else None,
        _allowed(record.params, "param", what, tell),
        tags,
        metrics,
        [item for item in record.inputs if _input_allowed(item, what, tell)],
        [("output", model, step) for model, step in record.outputs]
        + [("input", model, 0) for model in record.model_inputs],
    )


def clean_model(record: ModelRecord, experiment: int, tell: Tell) -> WholeModel:
    what = f"logged model {record.model_id}"
    metrics = []
    for key, value, time, step, run_id, dataset, digest in record.metrics:
        is_nan = value != value  # noqa: PLR0124 - NaN is the one value unequal to itself
        metrics.append(
            (key, run_id or "", dataset or "", digest or "", step, time, 0.0 if is_nan else value, int(is_nan))
        )
    return WholeModel(
        rules.run_id(record.model_id),
        experiment,
        rules.logged_model_name(record.name),
        record.creation_time,
        record.last_updated_time,
        record.status if record.status in ("PENDING", "READY", "FAILED") else "READY",
        record.status_message or "",
        record.model_type or "",
        record.source_run_id or "",
        "deleted" if record.lifecycle_stage == "deleted" else "active",
        _allowed(record.params, "param", what, tell),
        _allowed(record.tags, "tag", what, tell),
        metrics,
    )


def _allowed(given: Mapping[str, str], kind: str, what: str, tell: Tell) -> dict[str, str]:
    found = {}
    for key, value in given.items():
        try:
            name = rules.key(key, kind)
            if kind == "param":
                found[name] = rules.param_value(name, value)
            elif name == MODEL_HISTORY:
                found[name] = rules.text(value, f"tag {name}", MAX_MODEL_HISTORY)
            else:
                found[name] = rules.tag_value(name, value)
        except InvalidInput as error:
            tell(Trouble(what, error.message))
    return found


def _points_allowed(points: Points, key: str, what: str, tell: Tell) -> Points:
    if not points.steps or (
        min(points.times) >= 0
        and max(points.times) <= rules.MAX_INT64
        and min(points.steps) >= -rules.MAX_INT64
        and max(points.steps) <= rules.MAX_INT64
    ):
        return points
    keep = [
        place
        for place, (step, time) in enumerate(zip(points.steps, points.times, strict=True))
        if 0 <= time <= rules.MAX_INT64 and -rules.MAX_INT64 <= step <= rules.MAX_INT64
    ]
    tell(Trouble(what, f"metric {key}: {len(points.steps) - len(keep)} points have a time or step out of range"))
    return Points(*([column[place] for place in keep] if column is not None else None for column in points))  # type: ignore[arg-type]


def _run_name(record: RunRecord, tags: Mapping[str, str], tell: Tell) -> str:
    name = record.name or tags.get("mlflow.runName") or record.run_id
    try:
        return rules.run_name(name)
    except InvalidInput as error:
        tell(Trouble(f"run {record.run_id}", f"{error.message}; it is named by its id"))
        return record.run_id


def _input_allowed(item: DatasetInput, what: str, tell: Tell) -> bool:
    try:
        for key, value in item.tags.items():
            rules.tag_value(rules.key(key, "tag"), value)
    except InvalidInput as error:
        tell(Trouble(what, f"dataset {item.dataset.name}: {error.message}"))
        return False
    return True


# -- experiments


def _wanted(records: Sequence[ExperimentRecord], wishes: Wishes, source: Source) -> list[ExperimentRecord]:
    if not wishes.experiments:
        return list(records)
    missing = set(wishes.experiments) - {record.name for record in records}
    if missing:
        raise InvalidInput(f"{source.about} has no experiment {min(missing)!r}")
    return [record for record in records if record.name in wishes.experiments]


def _place(
    store: Store, record: ExperimentRecord, run_ids: Sequence[str], wishes: Wishes, report: Report
) -> int | None:
    """The experiment that the runs go to: the one of that name, the one where its runs are already, or a new one."""
    what = f"experiment {record.experiment_id}"
    name = record.name
    try:
        rules.experiment_name(name)
    except InvalidInput as error:
        name = what
        report.tell(Trouble(what, f"{error.message}; here it is named {name!r}"))
    tags = {}
    for tag, value in record.tags.items():
        try:
            tags[rules.key(tag, "tag")] = rules.text(value, f"the value of tag {tag!r}", rules.MAX_EXPERIMENT_TAG_VALUE)
        except InvalidInput as error:
            report.tell(Trouble(what, error.message))
    deleted = record.lifecycle_stage == "deleted"
    database = store.database
    wanted = int(record.experiment_id) if re.fullmatch(r"[0-9]{1,18}", record.experiment_id) else None
    if wishes.dry_run:
        key = _found(store, name, deleted, run_ids, wanted)
        _told(report, record, name, key, key is not None)
        return key
    with database.transaction():
        key = _found(store, name, deleted, run_ids, wanted)
        joined = key is not None
        if key is None:
            created = record.creation_time or journal.now()
            stage = "deleted" if deleted else "active"
            updated = record.last_update_time or created
            key = bulk.add_experiment(database, wanted, name, stage, created, updated, tags)
        else:
            bulk.add_experiment_tags(database, key, tags)
    _told(report, record, name, key, joined)
    return key


def _found(store: Store, name: str, deleted: bool, run_ids: Sequence[str], wanted: int | None) -> int | None:
    stage = "deleted" if deleted else "active"
    rows = store.database.query(
        "SELECT id FROM experiments WHERE name = :name AND lifecycle_stage = :stage ORDER BY last_update_time DESC",
        {"name": name, "stage": stage},
    )
    ids = [int(row[0]) for row in rows]
    if ids:
        return wanted if wanted in ids else ids[0]
    homes = bulk.homes(store.database, run_ids)
    return homes[0] if homes else None


def _told(report: Report, record: ExperimentRecord, name: str, key: int | None, joined: bool) -> None:
    how = "joined" if joined else "created" if key is None or str(key) == record.experiment_id else "renumbered"
    report.counts["experiments_joined" if joined else "experiments_created"] += 1
    report.places.append(Place(record.experiment_id, name, "" if key is None else str(key), how))


def _chunks(runs: Iterable[RunRecord]) -> Iterable[list[RunRecord]]:
    """Runs in lots that are committed together: not too many, and not too many points."""
    iterator = iter(runs)
    chunk: list[RunRecord] = []
    points = 0
    for run in iterator:
        chunk.append(run)
        points += sum(len(column.steps) for column in run.metrics.values())
        if len(chunk) >= RUNS_AT_ONCE or points >= POINTS_AT_ONCE:
            yield chunk
            chunk, points = [], 0
    if chunk:
        yield chunk


# -- the registry


class _Came(NamedTuple):
    """A version that was brought: its model here, its number here."""

    what: str
    model: int
    number: int
    version: VersionRecord


def _register_all(store: Store, records: Sequence[RegisteredRecord], wishes: Wishes, report: Report) -> None:
    if wishes.dry_run:
        for record in records:
            known = store.database.one("SELECT id FROM registered_models WHERE name = :name", {"name": record.name})
            report.counts["registered_models"] += not known
            report.counts["model_versions"] += 0 if known else len(_living(record))
        return
    with store.database.transaction():
        waiting = [came for record in records for came in _register(store, record, report)]
        # A version may be a copy of another that came after it: look again as long as one more finds its files.
        while True:
            found = [(came, storage) for came in waiting if (storage := _storage(store, came)) is not None]
            for came, storage in found:
                bulk.set_storage(store.database, came.model, came.number, storage)
            settled = {(came.model, came.number) for came, _ in found}
            waiting = [came for came in waiting if (came.model, came.number) not in settled]
            if not found:
                break
        for came in waiting:
            why = f"version {came.number} has no files here: its source is {came.version.source!r}"
            report.tell(Trouble(came.what, why))


def _storage(store: Store, came: _Came) -> str | None:
    version = came.version
    try:
        storage = store.storage_of(lasting_source(version), version.run_id or "", version.model_id or "")
    except MlcliError:
        return None
    return storage or None


def _register(store: Store, record: RegisteredRecord, report: Report) -> list[_Came]:
    what = f"registered model {record.name}"
    try:
        name = rules.model_name(record.name)
    except InvalidInput as error:
        report.tell(Trouble(what, error.message))
        return []
    database = store.database
    tags = _model_tags(record.tags, what, report.tell)
    model, made = bulk.registered_model(
        database, name, record.creation_time, record.last_updated_time, record.description or "", tags
    )
    report.counts["registered_models"] += made
    numbers = {}
    brought = []
    for version in _living(record):
        version_tags = _model_tags(version.tags, f"{what}, version {version.version}", report.tell)
        number, came = bulk.add_version(database, model, _whole_version(version, version_tags))
        numbers[version.version] = number
        if not came:
            continue
        report.counts["model_versions"] += 1
        brought.append(_Came(what, model, number, version))
        if number != version.version:
            why = f"its version {version.version} is version {number} here: the number was taken"
            report.tell(Trouble(what, why, False))
    if made:
        bulk.reserve_versions(database, model, record.last_version)
    for alias, number in record.aliases.items():
        _alias(store, model, alias, numbers.get(number), what, report.tell)
    return brought


def _living(record: RegisteredRecord) -> list[VersionRecord]:
    return sorted(
        (version for version in record.versions if version.stage != "Deleted_Internal"),
        key=lambda version: version.version,
    )


def _alias(store: Store, model: int, alias: str, number: int | None, what: str, tell: Tell) -> None:
    try:
        rules.alias(alias)
    except InvalidInput as error:
        tell(Trouble(what, error.message))
        return
    if number is None:
        tell(Trouble(what, f"its alias {alias!r} names a version that is not there"))
        return
    now = bulk.add_alias(store.database, model, alias, number)
    if now != number:
        tell(Trouble(what, f"the alias {alias!r} names version {now} here, and still does (there: {number})"))


def _model_tags(tags: Mapping[str, str], what: str, tell: Tell) -> dict[str, str]:
    found = {}
    for key, value in tags.items():
        try:
            found[rules.key(key, "tag")] = rules.text(value, f"the value of tag {key!r}", rules.MAX_MODEL_TAG_VALUE)
        except InvalidInput as error:
            tell(Trouble(what, error.message))
    return found


def _whole_version(version: VersionRecord, tags: Mapping[str, str]) -> WholeVersion:
    return WholeVersion(
        version.version,
        version.creation_time,
        version.last_updated_time,
        version.description or "",
        version.user_id or "",
        _STAGES.get(version.stage.lower(), "None"),
        version.source,
        "",  # found when all are here
        version.run_id or "",
        version.run_link or "",
        version.model_id or "",
        version.status,
        version.status_message or "",
        tags,
    )
