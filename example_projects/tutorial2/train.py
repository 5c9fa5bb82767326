"""Fit a logistic regression whose parameters arrive by position (sys.argv)."""

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression

import mlcli
import mlcli.sklearn

if __name__ == "__main__":
    mlcli.sklearn.autolog()

    X = np.array([-2, -1, 0, 1, 2, 1]).reshape(-1, 1)
    y = np.array([0, 0, 1, 1, 1, 0])

    lr = LogisticRegression(penalty=sys.argv[2], l1_ratio=float(sys.argv[3]), solver=sys.argv[1], max_iter=5000)

    with mlcli.start_run() as run:
        lr.fit(X, y)
        print("Score: %s" % lr.score(X, y))
