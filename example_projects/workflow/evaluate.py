"""Score the model of the step before on the half it has not seen."""

import os
import sys

import numpy as np

import mlcli
import mlcli.sklearn

if __name__ == "__main__":
    data = np.load(os.path.join(sys.argv[1], "test.npz"))
    model = mlcli.sklearn.load_model(sys.argv[2])
    with mlcli.start_run():
        mlcli.log_metric("accuracy", model.score(data["X"], data["y"]))
