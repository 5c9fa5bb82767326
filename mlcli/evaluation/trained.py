"""A project that is trained and tested once per fold: a child run of its entry point for each.

What it is given, and what it gives back:

    -P train_data=FILE -P test_data=FILE    rows to fit on and to test on, with all columns, in the format of the data
    predictions.csv, an artifact            one line for each row of test_data, in its order, under a header:
                                            `prediction`, and for classes, if it has them, `probability_<label>` for
                                            each label, or `probability` of the greater of two
    or else its metrics                     what the child run logged is taken as the fold's scores

From predictions every score, interval and test follows; of bare metrics only their mean and the tests on folds.
"""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from mlcli import journal, scratch, submit
from mlcli.artifacts import open_artifacts
from mlcli.errors import InvalidInput, ProjectError, RunFailed
from mlcli.evaluation import scores
from mlcli.evaluation.learners import Outcome
from mlcli.evaluation.tables import Table

ANSWERS = "predictions.csv"
TRAIN, TEST = "train_data", "test_data"
PATIENCE = 30.0


class Recipe:
    """A project and how it is run; ``parent`` is the run that its child runs belong to."""

    def __init__(
        self,
        uri: str,
        *,
        entry_point: Optional[str] = None,
        version: Optional[str] = None,
        parameters: Optional[Mapping[str, str]] = None,
        env_manager: Optional[str] = None,
    ) -> None:
        self.uri = uri
        self.entry_point = entry_point
        self.version = version
        self.parameters = dict(parameters or {})
        self.env_manager = env_manager
        self.parent: Optional[str] = None
        given = " ".join([f"{key}={value}" for key, value in self.parameters.items()])
        self.name = " ".join(filter(None, (uri, entry_point, given)))
        self.digest = "\0".join(filter(None, (os.path.abspath(uri), entry_point, version, given)))
        self._processes: List[subprocess.Popen[bytes]] = []
        wrong = [key for key in self.parameters if key in (TRAIN, TEST)]
        if wrong:
            raise InvalidInput(f"-P {wrong[0]} is what each fold gives the project", hint="leave it out")

    def check(self, data: str) -> None:
        """Refuse a project that cannot be run or does not take the files of a fold; ``data`` stands for both."""
        from mlcli import runner

        request = runner.Request(
            uri=self.uri,
            entry_point=self.entry_point,
            version=self.version,
            parameters={**self.parameters, TRAIN: data, TEST: data},
            env_manager=self.env_manager,
        )
        try:
            entry = runner.plan(request).entry
        except ProjectError as error:
            if os.path.exists(self.uri) or not re.fullmatch(r"(models?:/?/?)?[\w.-]+(/\d+)?", self.uri):
                raise
            name = re.sub(r"models?:/*|/\d+$", "", self.uri)
            raise ProjectError(error.message, hint=f"a registered model is {name}/1 or {name}@ALIAS") from None
        missing = [name for name in (TRAIN, TEST) if name not in entry.parameters]
        if missing and entry.script is None:
            raise InvalidInput(
                f"the entry point {entry.name!r} of {self.uri} has no parameter {' and no '.join(missing)}",
                hint="an evaluation tells it the rows to train and to test on as the files train_data and test_data",
            )

    def evaluate_fold(self, table: Table, train: Any, test: Any, kind: str, fold: int = 0) -> Outcome:
        """Run the project on these rows and read what it gave back."""
        run_id = journal.new_run_id()
        with scratch.folder("fold") as folder:
            files = write_parts(table, folder, {TRAIN: train, TEST: test})
            seconds = self._run(run_id, files, folder, f"fold-{fold}")
        return self._read(run_id, table, test, kind, seconds)

    def _run(self, run_id: str, files: Mapping[str, str], folder: str, name: str) -> float:
        import time

        options = {
            "--entry-point": self.entry_point,
            "--version": self.version,
            "--env-manager": self.env_manager,
            "--run-name": name,
            "--new-run-id": run_id,
            "--parent-run-id": self.parent,
        }
        argv = [*submit.command(), "run"]
        argv += [f"{name}={value}" for name, value in options.items() if value is not None]
        argv += [f"-P{name}={value}" for name, value in {**self.parameters, **files}.items()]
        uri = submit.tracking_uri()
        variables = {**os.environ, **submit.login(uri), "MLCLI_TRACKING_URI": uri}
        if self.parent is not None:
            variables["MLCLI_EXPERIMENT_ID"] = _experiment_of(self.parent)
            variables.pop("MLCLI_EXPERIMENT_NAME", None)
        said = os.path.join(folder, "stderr")
        start = time.perf_counter()
        with open(said, "wb") as stderr:
            process = subprocess.Popen(
                [*argv, "--", self.uri],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            self._processes.append(process)
            code = process.wait()
            self._processes.remove(process)
        if code:
            submitted = submit.SubmittedRun(run_id, process, uri)
            reason = submitted.end_reason() or _last_line(said) or f"exit code {code}"
            raise RunFailed(
                f"{name} of {self.uri} did not end well: {reason}",
                run_id=run_id,
                code=code if code > 0 else 128 - code,
                hint=f"`mlcli runs logs {run_id[:8]}` shows its output, if it got that far",
            )
        return time.perf_counter() - start

    def cancel(self) -> None:
        """End what is still running."""
        for process in list(self._processes):
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

    def _read(self, run_id: str, table: Table, test: Any, kind: str, seconds: float) -> Outcome:
        from mlcli.store import open_store

        with open_store(submit.tracking_uri(), create=False) as store:
            run = store.get_run(run_id)
            artifacts = open_artifacts(store.artifact_root(run_id))
        logged = {key: value for key, value in run.data.metrics.items() if not key.startswith("system/")}
        metrics = {key: value for key, value in logged.items() if math.isfinite(value)}
        if artifacts.has(ANSWERS):
            told = read_answers(artifacts.path(ANSWERS), table.truth[test], kind, table.truth)
            return Outcome(told, {}, seconds, run_id)
        if logged and not metrics:
            raise InvalidInput(
                f"{self.uri} gave no number back: {', '.join(logged)} is NaN or infinite (run {run_id})",
                hint=f"`mlcli runs logs {run_id[:8]}` shows what it said of it",
            )
        if not metrics:
            raise InvalidInput(
                f"{self.uri} gave neither predictions nor metrics back (run {run_id})",
                hint=f"let it log {ANSWERS} with a column `prediction`, a line for each row of {TEST}, or its metrics",
            )
        return Outcome(None, metrics, seconds, run_id)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_processes": []}


def _experiment_of(run_id: str) -> str:
    from mlcli.store import open_store

    with open_store(submit.tracking_uri(), create=False) as store:
        return store.get_run(run_id).info.experiment_id


def _last_line(path: str) -> str:
    with open(path, "rb") as file:
        lines = file.read()[-4000:].decode("utf-8", "replace").splitlines()
    told = [line for line in lines if line.startswith("error:")] or lines[-1:]
    return told[-1].replace("error: ", "", 1) if told else ""


def write_parts(table: Table, folder: str, parts: Mapping[str, Any]) -> Dict[str, str]:
    """The rows as files of the data's own format; of a csv, cell for cell as it stands there."""
    source = table.source or ""
    ending = os.path.splitext(source)[1].lower()
    if ending in (".parquet", ".pq"):
        for name, rows in parts.items():
            # Else the numbers of the rows would be a column of the file that the data do not have.
            counted = type(table.noted.data.index).__name__ == "RangeIndex"
            part = table.noted.data.iloc[rows]
            (part.reset_index(drop=True) if counted else part).to_parquet(os.path.join(folder, name + ending))
        return {name: os.path.join(folder, name + ending) for name in parts}
    if not source:
        _write_frame(table, folder, parts)
        return {name: os.path.join(folder, f"{name}.csv") for name in parts}
    separator = "\t" if ending == ".tsv" else ","
    with open(source, encoding="utf-8-sig", newline="") as file:
        header, *lines = [line for line in csv.reader(file, delimiter=separator) if line]
    if len(lines) != table.rows:
        raise InvalidInput(f"{source} was changed while it was evaluated", hint="start again")
    for name, rows in parts.items():
        with open(os.path.join(folder, name + ending), "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=separator, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([lines[row] for row in rows.tolist()])
    return {name: os.path.join(folder, name + ending) for name in parts}


def _write_frame(table: Table, folder: str, parts: Mapping[str, Any]) -> None:
    frame = table.noted.data
    if not hasattr(frame, "columns"):
        raise InvalidInput(
            "a project is given files, and arrays have no names of columns", hint="give a DataFrame or a file"
        )
    if table.target not in frame.columns:
        raise InvalidInput("a project needs its target among the columns", hint="name the target's column")
    for name, rows in parts.items():
        frame.iloc[rows].to_csv(os.path.join(folder, f"{name}.csv"), index=False, float_format=repr)


def read_answers(path: str, truth: Any, kind: str, all_truth: Any) -> scores.Answers:
    """The answers in a project's predictions.csv."""
    import numpy as np

    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    if "prediction" not in header:
        raise InvalidInput(
            f"{ANSWERS} of the project has no column `prediction`", hint="it has " + (", ".join(header) or "none")
        )
    if len(rows) != len(truth):
        raise InvalidInput(
            f"{ANSWERS} of the project has {len(rows)} rows, {TEST} has {len(truth)}",
            hint="one for each, in the same order",
        )
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    if kind == scores.REGRESSOR:
        return scores.of_numbers(truth, _floats(columns["prediction"], "prediction"))
    labels = scores.labels_of(truth)
    numeric = labels.dtype.kind not in "US"
    if labels.dtype.kind == "b":
        labels = labels.astype(int)
        columns["prediction"] = [{"True": "1", "False": "0"}.get(cell, cell) for cell in columns["prediction"]]
    said = _floats(columns["prediction"], "prediction") if numeric else np.asarray(columns["prediction"])
    probability, known = _probabilities(columns, scores.labels_of(all_truth), numeric=numeric)
    return scores.of_classes(labels, said, probability, known)


def _probabilities(
    columns: Mapping[str, Sequence[str]], truth: Any, *, numeric: bool
) -> Tuple[Any, Optional[List[Any]]]:
    import numpy as np

    classes = np.unique(truth.astype(int) if truth.dtype.kind == "b" else truth).tolist()
    if "probability" in columns:
        if len(classes) != 2:
            raise InvalidInput(
                f"`probability` is for two classes, here are {len(classes)}",
                hint="a column probability_<label> for each",
            )
        told = _floats(columns["probability"], "probability")
        return np.column_stack([1 - told, told]), classes
    names = [name for name in columns if name.startswith("probability_")]
    if not names:
        return None, None
    labels: List[Any] = [name[len("probability_") :] for name in names]
    if numeric:
        labels = _floats(
            [{"True": "1", "False": "0"}.get(label, label) for label in labels], "probability_<label>"
        ).tolist()
    order = sorted(range(len(labels)), key=lambda place: labels[place])
    table = np.column_stack([_floats(columns[names[place]], names[place]) for place in order])
    return table, [labels[place] for place in order]


def _floats(cells: Sequence[str], name: str) -> Any:
    import numpy as np

    try:
        found = np.array([float(cell) for cell in cells])
    except ValueError as error:
        raise InvalidInput(f"the column {name} of {ANSWERS} is to hold numbers: {error}") from None
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise InvalidInput(
            f"the column {name} of {ANSWERS} is {cells[wrong[0]]} in row {wrong[0] + 1}"
            f" ({len(wrong)} of {len(found)} rows are no finite number)",
            hint=f"let the project answer each row of {TEST} with a number",
        )
    return found
