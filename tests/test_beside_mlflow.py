"""One script, two libraries: what MLflow records and answers, mlcli records and answers too.

Left out is what differs on purpose: an infinity stays one here (MLflow keeps it as 1.8e308 in SQL), too long text is
refused and not cut, YAML and tables are spaced in another way, and a search may say more (tests/test_query.py).

The newest MLflow that installs is put into an environment of its own; where that cannot be done, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.network, pytest.mark.slow]

PRELUDE = """
import importlib, json, math, os, sys
name, store = sys.argv[1:3]
flow = mlflow = importlib.import_module(name)
importlib.import_module(name + ".artifacts")
flow.set_tracking_uri(store)
def plain(value):
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
def ours(tags):
    "Tags without what tells of the machine, the source and the library."
    return {key: tags[key] for key in sorted(tags) if not key.startswith(("mlflow.source.", "mlflow.user", "mlflow.parentRunId"))}
"""

# What a script does and prints; nothing in it may depend on ids or the time of day.
SCRIPT = """
import pandas as pd
import yaml
ViewType = flow.entities.ViewType
said = {}
experiment = flow.set_experiment("side by side")
said["experiment"] = [experiment.name, experiment.lifecycle_stage, flow.get_experiment_by_name("side by side").experiment_id == experiment.experiment_id]
with flow.start_run(run_name="parent", tags={"team": "blue"}, description="a note") as parent:
    said["log_param returns"] = flow.log_param("lr", 0.10)
    flow.log_params({"model": "CNN", "none": None, "empty": "", "list": [1, 2]})
    flow.log_metric("loss", 0.5, step=0, timestamp=1000)
    flow.log_metric("loss", 0.25, step=2, timestamp=900)
    flow.log_metric("loss", float("nan"), step=1, timestamp=1100)
    flow.log_metrics({"acc": 1, "flag": True, "text": "1.5"}, step=3)
    flow.set_tag("stage", "draft")
    flow.set_tags({"a": 1, "b": "two"})
    flow.delete_tag("b")
    flow.log_text("hello", "notes/hello.txt")
    flow.log_dict({"k": [1, {"x": None}]}, "d.json")
    flow.log_dict({"k": [1, {"x": None}]}, "d.yaml")
    flow.log_table({"q": ["a", "b"], "n": [1, 2]}, "t.json")
    flow.log_table(pd.DataFrame({"q": ["c"], "n": [3]}), "t.json")
    os.makedirs("files/sub", exist_ok=True)
    for path in ("files/one.txt", "files/sub/two.txt"):
        with open(path, "w") as file:
            file.write(path)
    flow.log_artifact("files/one.txt", "single")
    flow.log_artifacts("files", "many")
    said["active"] = [flow.active_run().info.run_id == parent.info.run_id, parent.info.status, parent.info.run_name]
    said["uri ends"] = flow.get_artifact_uri("notes").endswith(parent.info.run_id + "/artifacts/notes")
    with flow.start_run(run_name="child", nested=True) as child:
        flow.log_param("lr", "0.2")
        flow.log_metric("acc", 0.5)
        flow.log_metric("only", -1e-300)
    said["parent of child"] = flow.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    said["get_parent_run"] = flow.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
said["last"] = flow.last_active_run().info.run_name in ("parent", "child")
try:
    with flow.start_run(run_name="failing"):
        raise ValueError("no")
except ValueError:
    pass
with flow.start_run(run_id=parent.info.run_id):
    flow.log_metric("loss", 0.125, step=3, timestamp=1200)
    said["resumed"] = flow.get_run(parent.info.run_id).info.status
run = flow.get_run(parent.info.run_id)
said["run"] = [run.info.status, run.info.run_name, run.info.lifecycle_stage, run.data.params, run.data.metrics, ours(run.data.tags)]
table = flow.search_runs(order_by=["attributes.run_name"])
said["columns"] = sorted(name for name in table.columns if not name.startswith(("tags.mlflow.source", "tags.mlflow.user")))
said["first columns"] = list(table.columns[:6])
said["kinds"] = {name: str(table[name].dtype).replace("[ns, ", "[?, ").replace("[ms, ", "[?, ") for name in table.columns if name in ("start_time", "end_time") or name.startswith("metrics.")}
said["rows"] = [[row["tags.mlflow.runName"], row["status"], row["params.lr"], row["metrics.acc"], row["metrics.only"]] for row in table.to_dict("records")]
def names(text, **options):
    return sorted(run.info.run_name for run in flow.search_runs(filter_string=text, output_format="list", **options))
said["searches"] = [[text, names(text)] for text in (
    "metrics.acc > 0.7", "params.lr = '0.1'", "tags.team = 'blue'", "status = 'FAILED'", "params.model LIKE 'C%' and metrics.loss < 1",
    "attributes.run_name ILIKE 'CH%'", "params.none = 'None'", "params.missing IS NULL",
)]
said["by name"] = names("", experiment_names=["side by side"])
said["everywhere"] = names("", search_all_experiments=True)
client = flow.MlflowClient()
said["history"] = [[point.key, point.value, point.step, point.timestamp] for point in client.get_metric_history(run.info.run_id, "loss")]
said["files"] = [[item.path, item.is_dir] for item in client.list_artifacts(run.info.run_id)]
said["below"] = [[item.path, item.is_dir, item.file_size] for item in client.list_artifacts(run.info.run_id, "many")]
said["nothing there"] = client.list_artifacts(run.info.run_id, "nowhere")
uri = f"runs:/{run.info.run_id}/"
said["text"] = flow.artifacts.load_text(uri + "notes/hello.txt")
said["dict"] = flow.artifacts.load_dict(uri + "d.json")
with open(flow.artifacts.download_artifacts(uri + "d.yaml")) as file:
    said["yaml"] = yaml.safe_load(file)
with open(os.path.join(flow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="many", dst_path="."), "sub", "two.txt")) as file:
    said["downloaded"] = [file.read(), sorted(os.listdir("many"))]
said["table"] = flow.load_table("t.json").to_dict("list")
loaded = flow.load_table("t.json", run_ids=[run.info.run_id], extra_columns=["run_id", "params.lr"])
said["table with more"] = [list(loaded.columns), set(loaded["run_id"]) == {run.info.run_id}, list(loaded["params.lr"])]
other = client.create_experiment("other", tags={"x": "y"})
made = client.create_run(other, start_time=5000, tags={"t": "1"}, run_name="by hand")
client.log_metric(made.info.run_id, "m", 1.5, timestamp=7, step=2)
client.log_param(made.info.run_id, "p", 1)
client.log_batch(made.info.run_id, [flow.entities.Metric("m", 2.5, 8, 3)], [flow.entities.Param("q", "2")], [flow.entities.RunTag("t", "2")])
client.set_tag(made.info.run_id, "u", 3)
client.delete_tag(made.info.run_id, "u")
client.log_text(made.info.run_id, "x", "x.txt")
client.log_dict(made.info.run_id, {"a": 1}, "a.json")
client.set_terminated(made.info.run_id, "FAILED", end_time=9000)
client.update_run(made.info.run_id, name="renamed")
found = client.get_run(made.info.run_id)
said["by hand"] = [found.info.status, found.info.start_time, found.info.end_time, found.info.run_name, found.data.metrics, found.data.params, ours(found.data.tags)]
client.delete_run(made.info.run_id)
said["deleted"] = [len(client.search_runs([other])), len(client.search_runs([other], run_view_type=ViewType.DELETED_ONLY)), len(client.search_runs([other], run_view_type=ViewType.ALL)), client.get_run(made.info.run_id).info.lifecycle_stage]
client.restore_run(made.info.run_id)
client.rename_experiment(other, "another")
client.set_experiment_tag(other, "k", "v")
said["other"] = [client.get_experiment(other).name, client.get_experiment(other).tags]
client.delete_experiment(other)
said["experiments"] = [sorted(item.name for item in client.search_experiments(view_type=view)) for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)]
client.restore_experiment(other)
said["filtered"] = [item.name for item in flow.search_experiments(filter_string="name LIKE 'an%'")]
paged = client.search_runs([experiment.experiment_id], max_results=2)
said["page"] = [len(paged), bool(paged.token), len(client.search_runs([experiment.experiment_id], max_results=2, page_token=paged.token))]
said["states"] = [flow.entities.RunStatus.is_terminated(flow.entities.RunStatus.FINISHED), flow.entities.RunStatus.to_string(flow.entities.RunStatus.KILLED)]
said["dataset"] = None
dataset = flow.entities.Dataset(name="wine", digest="abc12345", source_type="local", source='{"uri": "wine.csv"}', schema="{}", profile="{}")
client.log_inputs(made.info.run_id, [flow.entities.DatasetInput(dataset, [flow.entities.InputTag("mlflow.data.context", "train")])])
(noted,) = client.get_run(made.info.run_id).inputs.dataset_inputs
said["dataset"] = [noted.dataset.name, noted.dataset.digest, noted.dataset.source_type, noted.dataset.source]
said["by dataset"] = [run.info.run_name for run in client.search_runs([other], "dataset.name = 'wine'")]
print("SAID " + json.dumps(plain(said)))
"""

# Calls that both refuse, with MLflow's error code.
REFUSED = {
    "a param changed": "with flow.start_run():\n    flow.log_param('p', 1); flow.log_param('p', 2)",
    "a key out of range": "with flow.start_run():\n    flow.log_param('a' * 251, 1)",
    "a path as key": "with flow.start_run():\n    flow.log_metric('../x', 1)",
    "no number": "with flow.start_run():\n    flow.log_metric('m', 'many')",
    "a missing tag": "with flow.start_run():\n    flow.delete_tag('nothing')",
    "an unknown run": "flow.get_run('f' * 32)",
    "an unknown experiment": "flow.get_experiment('77')",
    "a name twice": "flow.create_experiment('x'); flow.create_experiment('x')",
    "a filter of nonsense": "flow.search_runs(filter_string='metrics.x ==', output_format='list')",
    "an unknown attribute": "flow.search_runs(filter_string='mood > 1', output_format='list')",
    "a page of nothing": "flow.MlflowClient().search_runs(['0'], max_results=0)",
}
REFUSE = """
refused = {}
for what, code in json.loads(sys.argv[3]).items():
    try:
        exec(code)
    except flow.exceptions.MlflowException as error:
        refused[what] = error.error_code
    else:
        refused[what] = "accepted"
print("SAID " + json.dumps(refused))
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with MLflow."""
    folder = tmp_path_factory.mktemp("mlflow")
    uv = Path(sys.executable).with_name("uv")
    for words in (
        ["venv", "--quiet", "--python", sys.executable, folder / "v"],
        ["pip", "install", "--quiet", "--python", folder / "v" / "bin" / "python", "mlflow>=3"],
    ):
        done = subprocess.run([uv, *words], capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"MLflow cannot be installed here: {done.stderr.strip()[-300:]}")
    return str(folder / "v" / "bin" / "python")


def said(python: str, library: str, store: str, code: str, folder: Path, *args: str) -> Any:
    folder.mkdir()
    done = subprocess.run(
        [python, "-c", PRELUDE + code, library, store, *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=folder,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"},
    )
    assert done.returncode == 0, f"{library}: {done.stderr[-4000:]}"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    return json.loads(line[5:])


def both(theirs: str, tmp_path: Path, code: str, *args: str) -> tuple[Any, Any]:
    mlflow = said(theirs, "mlflow", f"sqlite:///{tmp_path}/mlflow.db", code, tmp_path / "theirs", *args)
    return mlflow, said(sys.executable, "mlcli", f"{tmp_path}/mlruns", code, tmp_path / "ours", *args)


def test_a_script_records_and_reads_the_same_under_both(theirs: str, tmp_path: Path) -> None:
    mlflow, mlcli = both(theirs, tmp_path, SCRIPT)
    assert set(mlcli) == set(mlflow)
    differing = {key: (mlflow[key], mlcli[key]) for key in mlflow if mlflow[key] != mlcli[key]}
    assert differing == {}, json.dumps(differing)


def test_what_mlflow_refuses_is_refused_with_its_error_code(theirs: str, tmp_path: Path) -> None:
    mlflow, mlcli = both(theirs, tmp_path, REFUSE, json.dumps(REFUSED))
    assert mlcli == mlflow
