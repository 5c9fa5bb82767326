"""Make a picture of every page, in both themes and three widths: `python docs/screenshots.py FOLDER [--only NAME] [--language ko]`.

The store is made by real runs, the browser is the Chromium of the system (apt-get install chromium), driven by playwright.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import rollout_world
import sites
from playwright.sync_api import sync_playwright
from serving import serving

from mlcli.rollouts import lifecycle
from mlcli.rollouts.observe import analyze
from mlcli.store import open_store
from mlcli.store.rollouts import Rollouts

WIDTHS = (360, 1280, 2560)
THEMES = ("light", "dark")


EVALUATION = """
import mlcli
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.dummy import DummyClassifier

data = load_breast_cancer(as_frame=True).frame
mlcli.evaluate(LogisticRegression(C=0.01, solver="liblinear"), data, targets="target", method="holdout", run_name="evaluated",
               baseline=DummyClassifier(), metrics=["accuracy_score", "roc_auc", "log_loss"])
"""


def fill_rollouts(root: Path) -> None:
    """Four rollouts with traffic: one that goes on, one rolled back, a shadow, a draft."""
    with open_store(str(root)) as store:
        evaluated = store.find_run("evaluated")
        store.set_tag(evaluated, "mlcli.evaluation.version", "digits/2")
        store.create_model_version(
            "digits", f"runs:/{store.find_run('logistic-1')}/model", store.find_run("logistic-1")
        )
        rollouts = Rollouts(store)
        models = {"control": "models:/digits@champion", "candidate": "models:/digits/2"}
        shadow = rollout_world.text("digits-shadow", rollout_world.SHADOW, decision="policy: no_harm", **models)
        for text, errors in (
            (rollout_world.text("digits-bad", rollout_world.AB, **models), (0.01, 0.2)),
            (shadow, (0.01, 0.01)),
            (rollout_world.text("digits-v2", **models), (0.01, 0.01)),
        ):
            name = rollout_world.started(rollouts, text).name
            traffic = rollout_world.Traffic(rollouts, name)
            for turn in range(12):
                traffic.come(150, rate=(0.2, 0.3), errors=errors, prediction="1", score=1.0)
                found = analyze(rollouts, name)
                verdict = found.verdict
                told = found.to_dictionary()
                rollouts.decide(found.record.key, found.moment.batch, verdict.verdict, verdict.rule, told)
                if name == "digits-v2" and turn == 5:
                    lifecycle.advance(rollouts, name, actor="mlcli", reason=verdict.reason)
                time.sleep(0.1)
        lifecycle.abort(
            rollouts, "digits-bad", actor="mlcli", reason="errors of challenger", kind=lifecycle.ROLLED_BACK
        )
        rollouts.create("digits-v3", rollout_world.text("digits-v3", **models))


def places(root: Path) -> dict[str, str]:
    """Name of the picture, address of the page."""
    with open_store(str(root)) as store:
        digits = store.find_experiment("digits").experiment_id
        sweep = store.find_experiment("sweep").experiment_id
        trained = next(run.info.run_id for run in store.search_runs([digits]) if "loss" in run.data.metrics)
        model = store.find_run("logistic-1")
        evaluated = store.find_run("evaluated")
        trials = [run.info.run_id for run in store.search_runs([sweep], max_results=6)]
    some = "&".join(f"run={run}" for run in trials)
    return {
        "experiments": "/",
        "experiments-empty": "/?q=nothing",
        "runs": f"/experiments/{sweep}",
        "runs-filter": f"/experiments/{sweep}?filter=metrics.accuracy%20%3E%200.9%20AND%20params.",
        "runs-groups": f"/experiments/{sweep}?group=params.solver",
        "runs-empty": "/experiments/0",
        "run": f"/runs/{trained}",
        "run-model": f"/runs/{model}",
        "run-charts": f"/runs/{trained}/charts",
        "run-artifacts": f"/runs/{trained}/artifacts?path=figures/confusion.png",
        "run-table": f"/runs/{trained}/artifacts?path=report.csv",
        "run-page": f"/runs/{trained}/artifacts?path=report.html",
        "run-model-files": f"/runs/{model}/artifacts?path=model",
        "run-log": f"/runs/{trained}/log",
        "charts": f"/charts?{some}&metric=loss",
        "compare": f"/compare?e={sweep}",
        "models": "/models",
        "model": "/models/digits",
        "version": "/models/digits/1",
        "version-evaluated": "/models/digits/2",
        "run-evaluation": f"/runs/{evaluated}",
        "rollouts": "/rollouts",
        "rollout": "/rollouts/digits-v2",
        "rollout-bad": "/rollouts/digits-bad",
        "rollout-shadow": "/rollouts/digits-shadow",
        "rollout-draft": "/rollouts/digits-v3",
        "missing": "/runs/0000",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="only pages whose name contains this")
    parser.add_argument("--language", default="en-US")
    parser.add_argument("--width", type=int, action="append")
    parser.add_argument("--theme", action="append", choices=THEMES)
    parser.add_argument("--whole", action="store_true", help="the whole page, not what is seen first")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("MLCLI_", "MLFLOW_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        root = Path(work) / "mlruns"
        sites.fill(root, Path(work))
        sites.script(root, EVALUATION)
        fill_rollouts(root)
        browser = playwright.chromium.launch(executable_path=sites.CHROMIUM, args=sites.FLAGS)
        with serving(root) as (client, _):
            for theme in options.theme or THEMES:
                for width in options.width or WIDTHS:
                    context = browser.new_context(
                        viewport={"width": width, "height": 780 if width < 600 else 900 if width < 2000 else 1440},
                        color_scheme=theme, locale=options.language,
                    )  # fmt: skip
                    page = context.new_page()
                    page.on("pageerror", lambda error: print(f"  error in {page.url}: {error}"))
                    for name, address in places(root).items():
                        if options.only not in name:
                            continue
                        page.goto(f"http://127.0.0.1:{client.port}{address}")
                        page.wait_for_timeout(350)
                        wide = page.evaluate(
                            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                        )
                        if wide > 0:
                            print(f"  {name} at {width}: {wide} px too wide")
                        page.screenshot(path=options.folder / f"{name}-{theme}-{width}.png", full_page=options.whole)
                    context.close()
        browser.close()
    print(f"the pictures are in {options.folder}")


if __name__ == "__main__":
    main()
