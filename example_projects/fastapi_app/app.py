"""An application of one's own around a model of the registry: its rows, its words, its answer."""

import os
from typing import Dict, List

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import mlcli.pyfunc
from mlcli.errors import MlcliError

model = mlcli.pyfunc.load_model(os.environ.get("MODEL", "models:/wine@champion"))
GROWERS = ("Barolo", "Grignolino", "Barbera")

app = FastAPI(title="Which wine is it?")


class Wines(BaseModel):
    wines: List[Dict[str, float]]


@app.post("/guess")
def guess(asked: Wines) -> Dict[str, List[str]]:
    import pandas as pd

    try:
        found = model.predict(pd.DataFrame(asked.wines))
    except MlcliError as error:  # a measurement is missing, or is no number
        raise HTTPException(422, error.message) from error
    return {"growers": [GROWERS[int(number)] for number in found]}


@app.get("/model")
def about() -> Dict[str, object]:
    return {"run_id": model.metadata.get("run_id"), "made": model.metadata.get("utc_time_created")}
