"""A store for the MLflow of one child: the first run that it makes is the run that `mlcli run` has made already.

what the child's MLflow asks for                          what it gets
runs/create, the first that is no child and no project    mlcli's run, in the experiment that the script chose
runs/create with mlflow.parentRunId                       a new run below that one
runs/create of mlflow.projects.run without a parent       a new run below mlcli's run
runs/create, later                                        a new run
runs/update of mlcli's run to FINISHED                    nothing: it ends when its process does
runs/update of mlcli's run to FAILED, KILLED              that status, which stays if the exit code is 0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcli.bridge import STAYED
from mlcli.entities import RunStatus, RunTag
from mlcli.errors import InvalidInput
from mlcli.store.records import pairs

if TYPE_CHECKING:
    from mlcli.entities import Run
    from mlcli.store import Store
    from mlcli.store.records import Pairs

PARENT = "mlflow.parentRunId"
# What mlcli knows better than a script that believes it was started by itself.
_OURS = ("mlflow.user", "mlflow.source.", "mlflow.project.", "mlflow.runName")


class Adoption:
    """What the stores of all threads of one server share: mlcli's run, and the runs that were made."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.taken = False
        self.made: list[str] = []


class AdoptingStore:
    """Everything the ``store`` does, but for how runs are made and ended."""

    def __init__(self, store: Store, adoption: Adoption) -> None:
        self._store = store
        self._adoption = adoption

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: Pairs | None = None,
        run_name: str | None = None,
        user_id: str = "",
        status: str = RunStatus.RUNNING,
        run_id: str | None = None,
    ) -> Run:
        given = {str(key): value for key, value in pairs(tags)}
        is_project = given.get("mlflow.source.type") == "PROJECT"
        if not (self._adoption.taken or PARENT in given or is_project):
            return self._adopt(experiment_id, given, run_name)
        if is_project:
            given.setdefault(PARENT, self._adoption.run_id)
        run = self._store.create_run(experiment_id, start_time, given, run_name, user_id, status, run_id=run_id)
        self._adoption.made.append(run.info.run_id)
        return run

    def _adopt(self, experiment_id: str, tags: dict[str, Any], run_name: str | None) -> Run:
        run_id = self._adoption.run_id
        if self._store.get_run(run_id).info.experiment_id != str(experiment_id):
            try:
                self._store.move_run(run_id, str(experiment_id))
            except InvalidInput:  # a server of MLflow's: the run stays where mlcli has made it, and the script goes on
                self._store.set_tag(run_id, STAYED, str(experiment_id))
        name = run_name or tags.get("mlflow.runName")
        kept = [RunTag(key, value) for key, value in tags.items() if not key.startswith(_OURS)]
        if kept:
            self._store.log_batch(run_id, tags=kept)
        if name:
            self._store.update_run(run_id, run_name=name)
        run = self._store.get_run(run_id)
        self._adoption.taken = True
        return run

    def update_run(
        self, run_id: str, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> Run:
        if run_id != self._adoption.run_id or status in (RunStatus.FAILED, RunStatus.KILLED):
            return self._store.update_run(run_id, status, end_time, run_name)
        if status != RunStatus.FINISHED:  # it goes on: an end of before is none any more
            return self._store.update_run(run_id, status, None, run_name)
        run = self._store.update_run(run_id, run_name=run_name) if run_name else self._store.get_run(run_id)
        return run._replace(info=run.info._replace(status=status, end_time=end_time))


def close_left_open(store: Store, adoption: Adoption, status: str) -> None:
    """End what the child has made and not ended, as the child itself ended."""
    for run_id in adoption.made:
        if not RunStatus.is_terminated(store.get_run(run_id).info.status):
            store.update_run(run_id, status)
