"""Run by a real MLflow of any version: fill the store at argv[1] with one of everything, and print what it holds."""

from __future__ import annotations

import json
import os
import sys
import tempfile

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient


def main(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    first = client.create_experiment("Linear Models", tags={"team": "blue", "mlflow.note.content": "all about lines"})
    mlflow.set_experiment("Linear Models")
    with mlflow.start_run(run_name="parent", description="a parent") as parent:
        mlflow.log_params({"alpha": 0.5, "data/path": "train.csv", "empty": "", "unicode": "grün\nzweite Zeile"})
        mlflow.log_metric("loss", 1.5, step=0)
        mlflow.log_metric("loss", float("nan"), step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        mlflow.set_tag("stage", "draft")
        mlflow.log_text("hello\n", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "config.json")
        with mlflow.start_run(run_name="child", nested=True) as child:
            points = [Metric("acc/val", 0.01 * step, 1_700_000_000_000 + step, step) for step in range(250)]
            client.log_batch(child.info.run_id, points, [Param("depth", "3")], [RunTag("kind", "leaf")])
        _log_input(client, parent.info.run_id)
    failed = client.create_run(first, run_name="failed one")
    client.set_terminated(failed.info.run_id, "FAILED")
    deleted = client.create_run(first, run_name="deleted one")
    client.log_metric(deleted.info.run_id, "loss", 9.0)
    client.set_terminated(deleted.info.run_id)
    client.delete_run(deleted.info.run_id)
    open_run = client.create_run(first, run_name="still open")
    gone = client.create_experiment("Abandoned")
    lost = client.create_run(gone, run_name="in abandoned")
    client.set_terminated(lost.info.run_id)
    client.delete_experiment(gone)

    client.create_registered_model("scorer", tags={"owner": "ann"}, description="scores things")
    source = f"runs:/{parent.info.run_id}/notes"
    for number in ("one", "two", "three"):
        client.create_model_version("scorer", source, parent.info.run_id, tags={"n": number}, description=number)
    client.delete_model_version("scorer", "2")
    client.set_registered_model_alias("scorer", "champion", "1")
    client.transition_model_version_stage("scorer", "3", "Production")

    models = []
    if hasattr(client, "create_logged_model"):
        model = client.create_logged_model(
            first, name="line", source_run_id=parent.info.run_id, params={"k": "v"}, tags={"t": "u"}, model_type="lines"
        )
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "MLmodel"), "w") as file:
                file.write("flavors: {}\n")
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_batch(parent.info.run_id, [Metric("loss", 0.125, 1_700_000_000_000, 3, model_id=model.model_id)])
        models.append(model.model_id)
    print(
        json.dumps(
            {
                "version": mlflow.__version__,
                "experiments": {"Linear Models": first, "Abandoned": gone},
                "parent": parent.info.run_id,
                "child": child.info.run_id,
                "failed": failed.info.run_id,
                "deleted": deleted.info.run_id,
                "open": open_run.info.run_id,
                "lost": lost.info.run_id,
                "models": models,
            }
        )
    )


def _log_input(client: MlflowClient, run_id: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset("wine", "abcd1234", "local", '{"uri": "wine.csv"}', '{"mlflow_colspec": []}', '{"num_rows": 5}')
    context = InputTag("mlflow.data.context", "training")
    client.log_inputs(run_id, [DatasetInput(dataset, [context])])


if __name__ == "__main__":
    main(*sys.argv[1:])
