"""Run the three steps; each is a run of its own below this one."""

import argparse

import mlcli
from mlcli.artifacts import download_artifacts

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    with mlcli.start_run():
        prepared = mlcli.projects.run(".", "prepare", parameters={"seed": args.seed})
        data = download_artifacts(f"runs:/{prepared.run_id}/data")

        trained = mlcli.projects.run(".", "train", parameters={"data": data, "depth": args.depth})
        model = download_artifacts(f"runs:/{trained.run_id}/model")

        evaluated = mlcli.projects.run(".", "evaluate", parameters={"data": data, "model": model})
        metrics = mlcli.get_run(evaluated.run_id).data.metrics
        mlcli.log_metrics(metrics)
        print("accuracy", metrics["accuracy"])
