"""Fit one of two models to the training rows, answer for the test rows, and hand the answers back.

`mlcli evaluate` reads the artifact predictions.csv: a line for each test row, in their order.
"""

import sys

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mlcli
import mlcli.sklearn

MODELS = {
    "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "tree": DecisionTreeClassifier(random_state=0),
}
TARGET = "diagnosis"

if __name__ == "__main__":
    train, test = pd.read_csv(sys.argv[1]), pd.read_csv(sys.argv[2])
    model = MODELS[sys.argv[3]].fit(train.drop(columns=TARGET), train[TARGET])
    answers = pd.DataFrame({"prediction": model.predict(test.drop(columns=TARGET))})
    for label, told in zip(model.classes_, model.predict_proba(test.drop(columns=TARGET)).T):
        answers[f"probability_{label}"] = told
    with mlcli.start_run():
        mlcli.log_input(mlcli.data.from_pandas(train, source=sys.argv[1], targets=TARGET), context="train")
        mlcli.log_text(answers.to_csv(index=False), "predictions.csv")
        mlcli.sklearn.log_model(model, "model", input_example=train.drop(columns=TARGET).head(3))
