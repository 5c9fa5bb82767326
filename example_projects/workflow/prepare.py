"""Split the breast cancer data and keep both halves as artifacts."""

import os
import sys
import tempfile

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import mlcli

if __name__ == "__main__":
    seed = int(sys.argv[1])
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
    with mlcli.start_run(), tempfile.TemporaryDirectory() as folder:
        np.savez(os.path.join(folder, "train.npz"), X=X_train, y=y_train)
        np.savez(os.path.join(folder, "test.npz"), X=X_test, y=y_test)
        mlcli.log_artifacts(folder, "data")
        mlcli.log_metrics({"train_rows": len(y_train), "test_rows": len(y_test)})
