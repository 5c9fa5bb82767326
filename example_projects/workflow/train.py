"""Fit a decision tree to the training half."""

import os
import sys

import numpy as np
from sklearn.tree import DecisionTreeClassifier

import mlcli
import mlcli.sklearn

if __name__ == "__main__":
    data = np.load(os.path.join(sys.argv[1], "train.npz"))
    with mlcli.start_run():
        model = DecisionTreeClassifier(max_depth=int(sys.argv[2]), random_state=0).fit(data["X"], data["y"])
        mlcli.log_metric("training_accuracy", model.score(data["X"], data["y"]))
        mlcli.sklearn.log_model(model, "model")
