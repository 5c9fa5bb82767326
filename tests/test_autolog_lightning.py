"""PyTorch Lightning's trainer logs itself, in an environment with the real one.

The environment is made once, with pip, which may know a place of torch's that uv does not; without torch the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow_environments import python_with_lightning

pytestmark = [pytest.mark.slow, pytest.mark.network]

SCRIPT = """
import importlib, json, logging, sys, warnings
warnings.simplefilter("ignore")
flow = importlib.import_module(sys.argv[1])
if sys.argv[1] == "mlcli":
    flow.autolog()
importlib.import_module(sys.argv[1] + ".pytorch").autolog(log_models=False)
flow.set_tracking_uri(sys.argv[2])
import torch
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

# A loop of one's own: nothing of it is logged, which is said once.
layer = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for _ in range(3):
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()

import lightning.pytorch as pl

class Model(pl.LightningModule):
    def __init__(self, breaks=False):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.breaks = breaks

    def forward(self, x):
        return self.layer(x)

    def loss(self, batch):
        x, y = batch
        return ((self(x) - y) ** 2).mean()

    def training_step(self, batch, index):
        if self.breaks and index == 2:
            raise ValueError("boom")
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, index):
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

torch.manual_seed(0)
X = torch.randn(64, 4)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, X.sum(1, keepdim=True)), batch_size=16)
quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
cases = {}

def case(function):
    experiment = flow.set_experiment(function.__name__).experiment_id
    torch.manual_seed(0)
    try:
        function()
    except ValueError as error:
        assert "boom" in str(error)
    client = flow.MlflowClient()
    cases[function.__name__] = [
        {
            "status": str(run.info.status),
            "params": run.data.params,
            "curves": {key: [[point.step, point.value] for point in sorted(client.get_metric_history(run.info.run_id, key), key=lambda point: point.step)] for key in run.data.metrics},
            "tags": {key: value for key, value in run.data.tags.items() if key in ("mlflow.autologging", "Mode")},
            "files": [item.path for item in client.list_artifacts(run.info.run_id)],
            "checkpoints": [item.path for item in client.list_artifacts(run.info.run_id, "checkpoints")],
        }
        for run in client.search_runs([experiment])
    ]

@case
def trains_and_tests():
    trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, **quiet)
    callbacks = list(trainer.callbacks)
    model = Model()
    trainer.fit(model, loader, loader)
    if sys.argv[1] == "mlcli":
        assert trainer.callbacks == callbacks
        assert not model._forward_hooks
    trainer.test(model, loader, verbose=False)

@case
def stops_early():
    stop = pl.callbacks.EarlyStopping("val_loss", patience=2, min_delta=3.0)
    pl.Trainer(max_epochs=12, callbacks=[stop], **quiet).fit(Model(), loader, loader)

@case
def logs_steps():
    importlib.import_module(sys.argv[1] + ".pytorch").autolog(log_models=False, log_every_n_step=2, log_every_n_epoch=2, checkpoint=False)
    pl.Trainer(max_epochs=2, enable_checkpointing=False, **quiet).fit(Model(), loader)

@case
def keeps_a_checkpoint_of_each_epoch():
    importlib.import_module(sys.argv[1] + ".pytorch").autolog(log_models=False, checkpoint_save_best_only=False, checkpoint_save_weights_only=True)
    pl.Trainer(max_epochs=2, enable_checkpointing=False, **quiet).fit(Model(), loader)

@case
def fails():
    pl.Trainer(max_epochs=2, enable_checkpointing=False, **quiet).fit(Model(breaks=True), loader)

@case
def the_programs_run():
    with flow.start_run():
        pl.Trainer(max_epochs=1, enable_checkpointing=False, **quiet).fit(Model(), loader)

if sys.argv[1] == "mlcli":
    experiment = flow.set_experiment("models").experiment_id
    flow.pytorch.autolog()
    model = Model()
    pl.Trainer(max_epochs=1, enable_checkpointing=False, **quiet).fit(model, loader)
    (run,) = flow.search_runs([experiment], output_format="list")
    again = flow.pytorch.load_model(f"runs:/{run.info.run_id}/model", trust=True)
    assert torch.equal(again(X), model(X))
    assert '[-1, 4]' in open(f"{run.info.artifact_uri}/model/MLmodel").read()
    flow.autolog(disable=True)
    experiment = flow.set_experiment("off").experiment_id
    pl.Trainer(max_epochs=1, enable_checkpointing=False, **quiet).fit(Model(), loader)
    assert len(flow.search_runs([experiment], output_format="list")) == 0
print(json.dumps(cases))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return python_with_lightning()
    except AssertionError as error:
        pytest.skip(f"needs PyTorch: pip install torch==2.13.0 lightning ({str(error).strip()[-200:]})")


@pytest.fixture(scope="module")
def done(python: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("lightning")
    ended = subprocess.run(
        [str(python), "-c", SCRIPT, "mlcli", str(folder / "mlruns")],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture
def cases(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    assert {name: len(runs) for name, runs in found.items()} == dict.fromkeys(found, 1)
    return {name: runs[0] for name, runs in found.items()}


def steps(case: dict[str, Any], name: str) -> list[int]:
    return [step for step, _ in case["curves"][name]]


def test_a_bare_loop_is_said_not_to_be_logged_and_nothing_else_is_said(done) -> None:
    said = [line for line in done.stderr.splitlines() if line.startswith("mlcli: ")]
    assert len(said) == 1
    assert "a loop over a bare torch module is not logged" in said[0]


def test_params_curves_and_the_summary(cases) -> None:
    case = cases["trains_and_tests"]
    assert case["status"] == "FINISHED"
    assert (
        case["params"] | {"epochs": "2", "optimizer_name": "Adam", "lr": "0.05", "betas": "(0.9, 0.999)"}
        == case["params"]
    )
    assert steps(case, "val_loss") == steps(case, "train_loss_epoch") == [0, 1]
    assert case["files"] == ["checkpoints", "model_summary.txt"]
    assert case["checkpoints"] == ["checkpoints/latest_checkpoint.pth", "checkpoints/latest_checkpoint_metrics.json"]
    assert case["tags"] == {"mlflow.autologging": "pytorch", "Mode": "testing"}
    assert len(case["curves"]["test_loss"]) == 1


def test_early_stopping_and_the_best_checkpoint(cases) -> None:
    case = cases["stops_early"]
    assert case["params"] | {"monitor": "val_loss", "mode": "min", "patience": "2"} == case["params"]
    assert {
        name: values[0][1]
        for name, values in case["curves"].items()
        if name in ("stopped_epoch", "restored_epoch", "wait_count")
    } == {
        "stopped_epoch": 2,
        "restored_epoch": 0,
        "wait_count": 2,
    }
    assert case["curves"]["best_score"][0][1] == case["curves"]["val_loss"][0][1]


def test_metrics_of_steps_when_they_are_asked_for(cases) -> None:
    case = cases["logs_steps"]
    assert steps(case, "train_loss_step") == [1, 3, 5, 7]
    assert steps(case, "train_loss_epoch") == [1]
    assert case["checkpoints"] == []


def test_a_checkpoint_of_each_epoch(cases) -> None:
    assert cases["keeps_a_checkpoint_of_each_epoch"]["checkpoints"] == ["checkpoints/epoch_0", "checkpoints/epoch_1"]


def test_a_training_that_raises_is_failed_and_the_programs_run_is_its_own(cases) -> None:
    assert cases["fails"]["status"] == "FAILED"
    assert cases["fails"]["params"]["epochs"] == "2"
    assert cases["the_programs_run"]["tags"] == {"Mode": "training"}
    assert cases["the_programs_run"]["status"] == "FINISHED"
