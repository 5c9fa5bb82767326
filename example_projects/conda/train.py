"""Classify irises by their neighbours; the environment comes from a conda.yaml."""

import argparse

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import mlcli
import mlcli.sklearn

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--neighbours", type=int, default=5)
    args = parser.parse_args()

    X, y = load_iris(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    with mlcli.start_run():
        model = KNeighborsClassifier(args.neighbours).fit(X_train, y_train)
        mlcli.log_metric("accuracy", model.score(X_test, y_test))
        mlcli.sklearn.log_model(model, "model")
        print("accuracy", model.score(X_test, y_test))
