"""Random lives of stores: whatever is created, logged, renamed, deleted, restored and killed, a plain dictionary agrees."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import postgres
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test
from stores import LOCAL_KINDS

from mlcli import journal
from mlcli.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.journal import Journal

EXAMPLES = int(os.environ.get("STATEFUL_EXAMPLES", "100"))  # thousands were tried
NAMES = st.sampled_from(["a", "b", "wine 🍷", "x" * 500])
KEYS = st.sampled_from(["k", "a/b", "with space"])
VALUES = st.sampled_from(["", "1", "two\nlines", "🦉"])
NUMBERS = st.sampled_from([0.0, 0.5, -1.0, 1e300, 5e-324, math.inf, -math.inf, math.nan])
STEPS = st.integers(-1, 2)
ENDS = st.sampled_from(sorted(RunStatus.ENDED))
OPEN = (RunStatus.RUNNING, RunStatus.SCHEDULED)


class Life(RuleBasedStateMachine):
    """Writers are journals: what they write lies there until somebody looks. A killed writer just closes its file."""

    kind = ""
    experiments = Bundle("experiments")
    runs = Bundle("runs")
    writers = Bundle("writers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mlcli-life-"))
        self.store = LOCAL_KINDS[self.kind](self.folder / "mlruns")
        self.kept_experiments: dict[str, dict[str, Any]] = {"0": {"name": "Default", "stage": "active"}}
        self.kept_runs: dict[str, dict[str, Any]] = {}
        self.open_writers: list[Journal] = []
        self.time = 1000

    def teardown(self) -> None:
        try:
            self.look()
        finally:
            for writer in self.open_writers:
                writer.close()
            self.store.close()
            shutil.rmtree(self.folder)
            postgres.give_back()

    # -- experiments

    @rule(target=experiments)
    def take_the_default_experiment(self) -> str:
        return "0"

    @rule(target=experiments, name=NAMES)
    def create_experiment(self, name: str) -> Any:
        if name in self.active_names():
            with pytest.raises(AlreadyExists):
                self.store.create_experiment(name)
            return multiple()
        made = self.store.create_experiment(name)
        assert made not in self.kept_experiments
        self.kept_experiments[made] = {"name": name, "stage": "active"}
        return made

    @rule(experiment=experiments, name=NAMES)
    def rename_experiment(self, experiment: str, name: str) -> None:
        kept = self.kept_experiments.get(experiment)
        with self.expected(
            NotFound if kept is None else InvalidState if kept["stage"] == "deleted" else None,
            AlreadyExists if name in self.active_names() else None,
        ):
            self.store.rename_experiment(experiment, name)
            kept["name"] = name

    @rule(experiment=experiments)
    def delete_experiment(self, experiment: str) -> None:
        kept = self.kept_experiments.get(experiment)
        with self.expected(NotFound if kept is None else InvalidState if kept["stage"] == "deleted" else None):
            self.store.delete_experiment(experiment)
            kept["stage"] = "deleted"
            for run in self.kept_runs.values():
                if run["experiment"] == experiment:
                    run["stage"] = "deleted"

    @rule(experiment=experiments)
    def restore_experiment(self, experiment: str) -> None:
        kept = self.kept_experiments.get(experiment)
        with self.expected(
            NotFound if kept is None else InvalidState if kept["stage"] == "active" else None,
            AlreadyExists if kept and kept["name"] in self.active_names() else None,
        ):
            self.store.restore_experiment(experiment)
            kept["stage"] = "active"
            for run in self.kept_runs.values():
                if run["experiment"] == experiment:
                    run["stage"] = "active"

    # -- runs, through the store

    @rule(target=runs, experiment=experiments, name=VALUES.filter(str.isalnum))
    def create_run(self, experiment: str, name: str) -> Any:
        kept = self.kept_experiments.get(experiment)
        wrong = NotFound if kept is None else InvalidState if kept["stage"] == "deleted" else None
        if wrong:
            with pytest.raises(wrong):
                self.store.create_run(experiment, run_name=name)
            return multiple()
        made = self.store.create_run(experiment, run_name=name).info.run_id
        self.keep_run(made, experiment, name, None)
        return made

    @rule(run=runs, key=KEYS, text=VALUES, number=NUMBERS, step=STEPS)
    def log_batch(self, run: str, key: str, text: str, number: float, step: int) -> None:
        self.time += 1
        kept = self.kept_runs.get(run)
        taken = bool(kept) and kept["params"].get(key, text) != text
        with self.expected(self.not_active(kept), InvalidInput if taken else None):
            self.store.log_batch(run, [Metric(key, number, self.time, step)], [Param(key, text)], [RunTag(key, text)])
            kept["points"].append((key, number, self.time, step))
            kept["params"][key] = kept["tags"][key] = text

    @rule(run=runs, key=KEYS)
    def delete_tag(self, run: str, key: str) -> None:
        kept = self.kept_runs.get(run)
        missing = bool(kept) and key not in kept["tags"]
        with self.expected(self.not_active(kept), NotFound if missing else None):
            self.store.delete_tag(run, key)
            del kept["tags"][key]

    @rule(run=runs, name=st.sampled_from(["calm-owl-1", "🦉"]), status=st.sampled_from(RunStatus.ALL))
    def rename_and_set_status(self, run: str, name: str, status: str) -> None:
        kept = self.kept_runs.get(run)
        with self.expected(self.not_active(kept)):
            self.store.update_run(run, status, run_name=name)
            kept["name"] = kept["tags"]["mlflow.runName"] = name
            kept["status"] = status

    @rule(run=runs)
    def delete_run(self, run: str) -> None:
        kept = self.kept_runs.get(run)
        with self.expected(NotFound if kept is None else None):
            self.store.delete_run(run)
            kept["stage"] = "deleted"

    @rule(run=runs)
    def restore_run(self, run: str) -> None:
        kept = self.kept_runs.get(run)
        with self.expected(NotFound if kept is None else None):
            self.store.restore_run(run)
            kept["stage"] = "active"

    @rule()
    def collect_garbage(self) -> None:
        self.store.collect(*self.store.collectable())
        self.kept_runs = {key: run for key, run in self.kept_runs.items() if run["stage"] == "active"}
        used = {run["experiment"] for run in self.kept_runs.values()}
        self.kept_experiments = {
            key: item
            for key, item in self.kept_experiments.items()
            if item["stage"] == "active" or key in used or key == "0"
        }

    # -- runs, through journals

    @rule(target=writers)
    def open_writer(self) -> Journal:
        writer = Journal.open(self.store.root)
        self.open_writers.append(writer)
        return writer

    @rule(target=runs, writer=writers, experiment=experiments)
    def start_run(self, writer: Journal, experiment: str) -> Any:
        if self.kept_experiments.get(experiment, {}).get("stage") != "active":
            return multiple()
        made = journal.new_run_id()
        writer.start_run(made, experiment, "n", "u", self.time)
        self.keep_run(made, experiment, "n", writer)
        return made

    @rule(run=runs, key=KEYS, text=VALUES, number=NUMBERS, step=STEPS)
    def append_lines(self, run: str, key: str, text: str, number: float, step: int) -> None:
        """Lines of the run's owner; the first value of a param stands. For a run that is gone they are rejected."""
        kept = self.kept_runs.get(run)
        if kept is None or kept["owner"] is None:
            return
        self.time += 1
        kept["owner"].metric(run, key, number, step, self.time)
        kept["owner"].params(run, {key: text})
        kept["owner"].tags(run, {key: text})
        kept["points"].append((key, number, self.time, step))
        kept["params"].setdefault(key, text)
        kept["tags"][key] = text

    @rule(run=runs, status=ENDS)
    def append_the_end(self, run: str, status: str) -> None:
        kept = self.kept_runs.get(run)
        if kept is not None and kept["owner"] is not None:
            kept["owner"].status(run, status, self.time)
            kept["status"] = status

    @rule(run=runs, writer=writers)
    def resume(self, run: str, writer: Journal) -> None:
        """As the tracking API does it: look first, then take the run over."""
        kept = self.kept_runs.get(run)
        if kept is None:
            return
        assert self.store.get_run(run).info.status == kept["status"]
        writer.resume_run(run, self.time)
        kept["owner"], kept["status"] = writer, RunStatus.RUNNING
        kept["tags"].pop("mlcli.end_reason", None)

    @rule(writer=consumes(writers))
    def kill(self, writer: Journal) -> None:
        writer.close()
        self.open_writers.remove(writer)
        for run in self.kept_runs.values():
            if run["owner"] is writer:
                run["owner"] = None
                if run["status"] in OPEN:
                    run["status"] = RunStatus.KILLED
                    run["tags"]["mlcli.end_reason"] = "its process died without ending it"

    # -- looking

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = LOCAL_KINDS[self.kind](self.folder / "mlruns")

    @rule()
    def look(self) -> None:
        found = {item.experiment_id: item for item in self.store.search_experiments(view_type=ViewType.ALL)}
        assert {
            key: {"name": item.name, "stage": item.lifecycle_stage} for key, item in found.items()
        } == self.kept_experiments
        runs = {run.info.run_id: run for run in self.store.search_runs(view_type=ViewType.ALL)}
        assert set(runs) == set(self.kept_runs)
        for key, kept in self.kept_runs.items():
            info, data = runs[key].info, runs[key].data
            assert (info.experiment_id, info.run_name, info.status, info.lifecycle_stage) == (
                kept["experiment"],
                kept["name"],
                kept["status"],
                kept["stage"],
            )
            assert (info.end_time is None) == (info.status in OPEN)
            assert (data.params, data.tags) == (kept["params"], kept["tags"])
            names = {point[0] for point in kept["points"]}
            assert set(data.metrics) == names
            for name in names:
                points = [point for point in kept["points"] if point[0] == name]
                history = self.store.get_metric_history(key, name)
                assert list(map(repr, history)) == [repr(Metric(*point)) for point in sorted(points, key=by_time)]
                assert repr(data.metrics[name]) == repr(max(points, key=by_step)[1])

    # -- small pieces

    def expected(self, *wrong: type[Exception] | None) -> Any:
        first = next((kind for kind in wrong if kind is not None), None)
        return pytest.raises(first) if first else _Nothing()

    def not_active(self, kept: dict[str, Any] | None) -> type[Exception] | None:
        return NotFound if kept is None else InvalidState if kept["stage"] == "deleted" else None

    def active_names(self) -> set[str]:
        return {item["name"] for item in self.kept_experiments.values() if item["stage"] == "active"}

    def keep_run(self, run: str, experiment: str, name: str, owner: Journal | None) -> None:
        self.kept_runs[run] = {
            "experiment": experiment,
            "name": name,
            "status": RunStatus.RUNNING,
            "stage": "active",
            "params": {},
            "tags": {"mlflow.runName": name},
            "points": [],
            "owner": owner,
        }


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def by_time(point: tuple[str, float, int, int]) -> tuple[int, int]:
    return point[2], point[3]


def by_step(point: tuple[str, float, int, int]) -> tuple[int, int]:
    return point[3], point[2]


@pytest.mark.parametrize("kind", sorted(LOCAL_KINDS))
def test_whatever_happens_to_a_store_a_dictionary_agrees(kind: str) -> None:
    run_state_machine_as_test(
        type(f"Life_{kind}", (Life,), {"kind": kind}),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
