"""A store made by real runs, for the pages to show: a project, scripts, a model, and texts that would like to be code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") for path in [f"/usr/bin/{name}"] if os.path.exists(path)),
    "",
)  # fmt: skip
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-default-apps --mute-audio""".split()

PROJECT = {
    "MLproject": """name: digits
entry_points:
  main:
    parameters:
      lr: {type: float, default: 0.01}
      solver: {type: str, default: adam}
    command: "python train.py {lr} {solver}"
""",
    "train.py": """import json, struct, sys, zlib
import mlcli

lr, solver = float(sys.argv[1]), sys.argv[2]
print(f"training with lr={lr} and {solver}")
for step in range(60):
    loss = 2.2 * (1 - min(lr * 8, 0.9)) ** (step / 10) + 0.1
    mlcli.log_metric("loss", loss, step=step)
    mlcli.log_metric("accuracy", 1 - loss / 3, step=step)
    print(f"\\x1b[32mstep {step:3d}\\x1b[0m loss {loss:.4f}")


def png(size, colour):
    rows = b"".join(b"\\0" + bytes(colour(x, y) for x in range(size) for _ in range(3)) for y in range(size))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


with open("confusion.png", "wb") as file:
    file.write(png(96, lambda x, y: 235 if x // 12 == y // 12 else (40 + int(lr * 900) + 7 * (x // 12)) % 140))
mlcli.log_artifact("confusion.png", "figures")
mlcli.log_text("class,precision,recall\\n0,0.98,0.99\\n1,0.95,0.96\\n2,0.93,0.91\\n", "report.csv")
mlcli.log_dict({"classes": 3, "best": {"step": 59, "loss": loss}}, "summary.json")
mlcli.log_text("<h1>Report</h1><p style='color:teal'>All is well.</p>", "report.html")
mlcli.set_tag("team", "vision")
mlcli.set_tag("mlflow.note.content", "Baseline with **%s**.\\n\\n- lr %g\\n- see `report.csv`\\n" % (solver, lr))
""",
}

MODEL = """import mlcli, numpy
from sklearn.linear_model import LogisticRegression
mlcli.set_experiment("digits")
x = numpy.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.8, 0.1]])
for strength in (1.0, 0.1):
    with mlcli.start_run(run_name=f"logistic-{strength:g}"):
        model = LogisticRegression(C=strength).fit(x, [0, 1, 0, 1])
        mlcli.log_params({"C": strength, "solver": "lbfgs"})
        mlcli.log_metric("accuracy", model.score(x, [0, 1, 0, 1]))
        mlcli.sklearn.log_model(model, "model", input_example=x)
"""

SWEEP = """import math, random, mlcli
random.seed(7)
mlcli.set_experiment("sweep")
for number in range(40):
    lr, solver, layers = 10 ** random.uniform(-4, -1), random.choice(["adam", "sgd", "rmsprop"]), random.choice([2, 3, 4])
    best = 0.97 - 0.08 * abs(math.log10(lr) + 2.3) - 0.05 * (solver == "sgd") + random.gauss(0, 0.01)
    with mlcli.start_run(run_name=f"trial-{number:02d}"):
        mlcli.log_params({"lr": f"{lr:.5g}", "solver": solver, "layers": layers, "batch_size": 64})
        mlcli.log_metrics({"accuracy": best, "seconds": 10 + 6 * layers + random.random()})
        for step in range(0, 100, 5):
            mlcli.log_metric("loss", 2.2 * math.exp(-step / 25) + 1 - best + random.random() * 0.05, step=step)
"""

# Each of these would call dialog() or set window.pwned if it were taken for code.
EVIL = (
    "<script>window.pwned=1;alert(1)</script>",
    '"><img src=x onerror="window.pwned=1;alert(1)">',
    "'-alert(1)-'",
    "</script><script>window.pwned=1</script>",
    "</textarea></title><svg/onload=window.pwned=1>",
    "{{7*7}}{% raw %}${alert(1)}",
    "javascript:alert(1)//",
    '" onfocus="window.pwned=1" autofocus="',
)  # fmt: skip
EVIL_NOTE = """[click](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>) ![i](javascript:alert(1))
<script>window.pwned=1</script> <img src=x onerror=window.pwned=1>
[a](https://example.org" onmouseover="window.pwned=1)

| <b onclick=alert(1)>x</b> |
|---|
| `<script>window.pwned=1</script>` |
"""
EVIL_FILES = {
    "evil.html": "<script>top.pwned=1;parent.pwned=1;alert(1)</script><img src=x onerror='parent.pwned=1'><h1>html</h1>",
    "evil.svg": "<svg xmlns='http://www.w3.org/2000/svg' onload='window.pwned=1'><script>window.pwned=1</script><rect width='9' height='9'/></svg>",
    "evil.csv": "=cmd|' /C calc'!A0,<script>window.pwned=1</script>\n<img src=x onerror=window.pwned=1>,2\n",
    "evil.json": '{"</script><script>window.pwned=1</script>": "<img src=x onerror=window.pwned=1>"}',
    "evil.md": EVIL_NOTE,
    "evil.txt": "<script>window.pwned=1</script>",
    "<img src=x onerror=alert(1)>.txt": "a name",
    "model/MLmodel": "flavors:\n  '<script>window.pwned=1</script>':\n    version: '<img src=x onerror=window.pwned=1>'\n"
    "model_uuid: '</script><script>window.pwned=1</script>'\n",
}  # fmt: skip


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "MLCLI_TRACKING_URI": str(root), "MLCLI_EXPERIMENT_NAME": "digits"}


def script(root: Path, text: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments], env=environment(root), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def project(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PROJECT.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run_project(root: Path, folder: Path, **parameters: object) -> None:
    words = [word for name, value in parameters.items() for word in ("-P", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "mlcli", "run", str(folder), "--env-manager=local", *words],
        env=environment(root), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def fill(root: Path, work: Path, *, models: bool = True) -> None:
    """Make the runs: two of a project, a sweep, two models of which one is registered, one run full of evil."""
    from mlcli.store import open_store

    place = project(work / "digits")
    run_project(root, place, lr=0.01)
    run_project(root, place, lr=0.08, solver="sgd")
    script(root, SWEEP)
    if models:
        script(root, MODEL)
        with open_store(str(root)) as store:
            run_id = store.find_run("logistic-1")
            store.create_registered_model("digits", description="Tells digits apart.")
            store.create_model_version("digits", f"runs:/{run_id}/model", run_id)
            store.set_registered_model_alias("digits", "champion", "1")


def fill_with_evil(root: Path) -> str:
    """A run in whose every text somebody wrote code; gives its id."""
    from mlcli.artifacts import open_artifacts
    from mlcli.entities import Metric, Param, RunTag
    from mlcli.store import open_store

    with open_store(str(root)) as store:
        experiment = store.create_experiment(EVIL[0], tags={"mlflow.note.content": EVIL_NOTE})
        for number, text in enumerate(EVIL):
            run = store.create_run(experiment, run_name=text, tags={"mlflow.source.name": text})
            store.log_batch(
                run.info.run_id,
                metrics=[Metric("loss", 1 / (number + 1), 1_700_000_000_000 + step, step) for step in range(9)],
                params=[Param("text", text), Param("n", str(number))],
                tags=[RunTag("evil", text), RunTag("mlflow.note.content", EVIL_NOTE)],
            )
            store.update_run(run.info.run_id, "FINISHED")
        artifacts = open_artifacts(run.info.artifact_uri)
        for name, text in EVIL_FILES.items():
            artifacts.put_bytes(text.encode(), name)
        artifacts.put_bytes(b"<script>window.pwned=1</script>\n\x1b]0;x\x07", "logs/output.log")
        store.create_registered_model(EVIL[0].replace("/", "").replace("\\", ""), description=EVIL_NOTE)
        store.create_model_version(
            EVIL[0].replace("/", ""), f"runs:/{run.info.run_id}/model", run.info.run_id, description=EVIL_NOTE
        )
    return run.info.run_id
