"""Train three models that choose what to show a user, and register them.

1 learns from the shop alone, 2 from everything, and 3 from everything too, but it stumbles over shops that it has not seen:
nothing that was known when it was trained shows that.
"""

import sys

import mlcli
import mlcli.sklearn
import numpy as np
import pandas as pd
from mlcli.models.signature import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from world import FEATURES, likes, users


def pipeline(columns, unknown):
    parts = [(OneHotEncoder(handle_unknown=unknown), ["shop"])]
    if columns:
        parts.append((StandardScaler(), columns))
    return make_pipeline(make_column_transformer(*parts), LogisticRegression())


def main(name, seed):
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(users(random, 4000), columns=FEATURES)
    train, test, y, y_test = train_test_split(rows, likes(rows.to_numpy()), test_size=0.25, random_state=seed)
    for what, columns, unknown in [
        ("plain", [], "ignore"),
        ("full", FEATURES[1:], "ignore"),
        ("brittle", FEATURES[1:], "error"),
    ]:
        with mlcli.start_run(run_name=what):
            model = pipeline(columns, unknown).fit(train, y)
            mlcli.log_param("model", what)
            mlcli.log_metric("accuracy", model.score(test, y_test))
            mlcli.sklearn.log_model(
                model, "model", signature=infer_signature(train, model.predict(train)), registered_model_name=name
            )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
