"""The whole way of a model: trained, evaluated three ways, registered, rolled out to users, let through or turned back.

The truth is known (world.py), so the end is too: version 3, which is as good as version 2 when it is evaluated, but fails for
a new shop, must be rolled back; version 2 must take the place of version 1.
"""

import json
import subprocess
import sys
from pathlib import Path

import mlcli
import numpy as np
import pandas as pd

import traffic
import train
from world import FEATURES, likes, users

HERE = Path(__file__).parent
USERS = 10_000
WAYS = ("holdout", "kfold", "bootstrap")


def evaluate(name, seed):
    """Tell how good versions 1 and 2 are, three ways, and whether the difference is real."""
    rows = pd.DataFrame(users(np.random.default_rng(seed + 1), 1500), columns=FEATURES)
    rows["likes"] = likes(rows.to_numpy())
    for way in WAYS:
        found = mlcli.evaluate(
            f"models:/{name}/2",
            rows,
            targets="likes",
            method=way,
            n_boot=50,
            seed=seed,
            baseline=f"models:/{name}/1",
            run_name=f"full, {way}",
        )
        told = next(row for row in found.comparisons if row["metric"] == "accuracy_score")
        print(
            f"{way}: version 2 is right in {found.metrics['accuracy_score']:.1%}, {told['difference']:+.1%} against"
            f" version 1 ({told['low']:+.1%} to {told['high']:+.1%}; {told['test']})",
            flush=True,
        )


def mlcli_command(*words):
    return [sys.executable, "-m", "mlcli", *words]


def roll_out(file, rollout, seed):
    """Serve a rollout, let users come until it has ended or there are none left, and say how it ended."""
    subprocess.run(mlcli_command("rollouts", "start", "-f", str(HERE / file)), check=True)
    words = ("models", "serve", "--rollout", rollout, "-p", "0", "--env-manager", "local", "--trust")
    server = subprocess.Popen(mlcli_command(*words), stdout=subprocess.PIPE, text=True)
    try:
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        for some in range(0, USERS, 500):
            traffic.main(url, 500, seed + some)
            if state(rollout) != "running":
                break
    finally:
        server.terminate()
        server.wait()
    return state(rollout)


def state(rollout):
    told = subprocess.run(
        mlcli_command("rollouts", "get", rollout, "--json"), check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(told.stdout)["state"]


def main(name, seed):
    train.main(name, seed)
    evaluate(name, seed)
    mlcli.MlflowClient().set_registered_model_alias(name, "champion", "1")
    brittle, full = roll_out("brittle.yaml", "brittle", seed), roll_out("rollout.yaml", "full", seed)
    champion = mlcli.MlflowClient().get_model_version_by_alias(name, "champion").version
    print(f"version 3 is {brittle}, version 2 is {full}, the champion is version {champion}")
    return 0 if (brittle, full, str(champion)) == ("aborted", "promoted", "2") else 1


if __name__ == "__main__":
    sys.exit(main("recommender", int(sys.argv[1])))
