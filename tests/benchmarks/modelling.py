"""Time logging and loading a forest: `python modelling.py mlcli|mlflow TIMES`; prints seconds as JSON."""

import importlib
import json
import pickle
import statistics
import sys
import time

module, times = sys.argv[1], int(sys.argv[2])
tracking = importlib.import_module(module)
sk = importlib.import_module(f"{module}.sklearn")
pyfunc = importlib.import_module(f"{module}.pyfunc")
tracking.set_tracking_uri("mlruns" if module == "mlcli" else "sqlite:///mlflow.db")

import numpy as np
from sklearn.ensemble import RandomForestClassifier

X = np.random.RandomState(0).rand(500, 10)
y = (X[:, 0] > 0.5).astype(int)
forest = RandomForestClassifier(100, random_state=0).fit(X, y)


def median(call):
    taken = []
    for number in range(times):
        start = time.perf_counter()
        call(number)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


with tracking.start_run() as run:
    log = median(
        lambda number: sk.log_model(
            forest,
            f"model{number}",
            input_example=X[:2],
            skops_trusted_types=["sklearn.tree._tree.Tree", "numpy.dtype"],
        )
    )
uri = f"runs:/{run.info.run_id}/model0"
result = {
    "log_model": log,
    "load_model": median(lambda _: pyfunc.load_model(uri)),
    "pickle": median(lambda number: pickle.loads(pickle.dumps(forest))),
}
with open("forest.pkl", "wb") as file:
    pickle.dump(forest, file)
print(json.dumps(result))
