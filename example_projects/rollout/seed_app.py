"""The A/B test of many a tutorial, as a small app of its own: odd and even hashes of user ids, FastAPI, two models.

    MLCLI_TRACKING_URI=mlruns uvicorn --app-dir example_projects/rollout seed_app:app --port 5001

It splits traffic, and that is all: who got which model is written nowhere, nothing is told of outcomes, a model that fails
fails its users, and the halves are the same in every test, because the hash has no salt.
"""

import hashlib
import os

import mlcli.pyfunc
import pandas as pd
from fastapi import FastAPI, Header, HTTPException

NAME = os.environ.get("MODEL_NAME", "recommender")
app = FastAPI()
VERSIONS = {"A": "1", "B": os.environ.get("MODEL_B", "2")}
models = {arm: mlcli.pyfunc.load_model(f"models:/{NAME}/{version}") for arm, version in VERSIONS.items()}


def arm_of(user):
    return "A" if int(hashlib.md5(user.encode()).hexdigest(), 16) % 2 == 0 else "B"


@app.post("/invocations")
def invocations(body: dict, x_user_id: str = Header()):
    arm = arm_of(x_user_id)
    split = body["dataframe_split"]
    try:
        found = models[arm].predict(pd.DataFrame(split["data"], columns=split["columns"]))
    except Exception as error:
        raise HTTPException(500, str(error)) from error
    return {"predictions": [int(one) for one in found], "model": arm}


@app.post("/feedback", status_code=202)
def feedback(body: list[dict]):
    return {"accepted": 0, "duplicate": 0}
