"""Fit a logistic regression to six points and remember how it went."""

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression

import mlcli
import mlcli.sklearn

if __name__ == "__main__":
    regularization = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1

    X = np.array([-2, -1, 0, 1, 2, 1]).reshape(-1, 1)
    y = np.array([0, 0, 1, 1, 1, 0])

    penalty = "elasticnet"
    l1_ratio = 0.1
    lr = LogisticRegression(penalty=penalty, l1_ratio=l1_ratio, C=1 / regularization, solver="saga", max_iter=5000)
    lr.fit(X, y)
    score = lr.score(X, y)
    print("Score: %s" % score)

    mlcli.log_param("penalty", penalty)
    mlcli.log_param("l1_ratio", l1_ratio)
    mlcli.log_metric("score", score)
    mlcli.sklearn.log_model(lr, "model")
