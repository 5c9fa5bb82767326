"""The same training with named arguments (argparse)."""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression

import mlcli
import mlcli.sklearn

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--solver", type=str, default="saga")
    parser.add_argument("--penalty", type=str, default="l2")
    parser.add_argument("--l1_ratio", type=float, default=0.1)
    args = parser.parse_args()

    mlcli.sklearn.autolog()

    X = np.array([-2, -1, 0, 1, 2, 1]).reshape(-1, 1)
    y = np.array([0, 0, 1, 1, 1, 0])

    lr = LogisticRegression(penalty=args.penalty, l1_ratio=args.l1_ratio, solver=args.solver, max_iter=5000)

    with mlcli.start_run() as run:
        lr.fit(X, y)
        print("Score: %s" % lr.score(X, y))
