"""The pages of rollouts and of evaluations over HTTP, on one store with traffic whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
import rollout_world as world
from serving import Client, serving

from mlcli.artifacts import open_artifacts
from mlcli.rollouts import lifecycle
from mlcli.rollouts.observe import analyze
from mlcli.server.pages import rollouts as pages
from mlcli.server.pages.pictures import picture
from mlcli.store import open_store
from mlcli.store.rollouts import Prediction, Rollouts

EVIL = "<script>alert(1)</script>"


def keep_verdict(rollouts: Rollouts, name: str) -> None:
    found = analyze(rollouts, name)
    verdict = found.verdict
    rollouts.decide(found.record.key, found.moment.batch, verdict.verdict, verdict.rule, found.to_dictionary())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    root = tmp_path_factory.mktemp("rollouts") / "mlruns"
    with open_store(str(root)) as store:
        store.create_registered_model("churn")
        run = store.create_run("0", run_name="scored")
        for _ in range(2):
            store.create_model_version("churn", f"runs:/{run.info.run_id}/model", run.info.run_id)
        store.set_registered_model_alias("churn", "champion", "1")
        rollouts = Rollouts(store)
        for name, strategy in (("ramp", world.CANARY), ("split", world.AB), ("copy", world.SHADOW)):
            decision = "policy: no_harm" if name == "copy" else world.DECISION
            text = world.text(name, strategy, decision=decision)
            if name == "copy":
                text = text.replace("  conversion:  {source: outcome}\n", "")
            world.started(rollouts, text)
        for name in ("ramp", "split", "copy"):
            traffic = world.Traffic(rollouts, name)
            for _ in range(3):
                traffic.come(300, rate=(0.2, 0.4))
                keep_verdict(rollouts, name)
        key = rollouts.get("copy").key
        pairs = [
            Prediction(f"p{n}", role, int(role == "shadow"), 0, 1, 1.0, f"u{n}", 1, 4000, 200, prediction=said, score=float(said))
            for n in range(40)
            for role, said in (("live", str(n % 2)), ("shadow", str(n % 2 if n > 3 else 1)))
        ]  # fmt: skip
        rollouts.record(key, pairs)
        rollouts.create("idea", world.text("idea"))
        rollouts.note("split", "noted", actor=EVIL, reason=EVIL)
        store.update_run(run.info.run_id, "FINISHED")
        store.set_tag(run.info.run_id, "mlcli.evaluation", "holdout")
        store.set_tag(run.info.run_id, "mlcli.evaluation.version", "churn/2")
        open_artifacts(run.info.artifact_uri).put_bytes(b'{"metrics": [1]}', "report.json")
    with serving(root) as (client, _):
        yield SimpleNamespace(client=client, root=root, run=run.info.run_id)


def show(client: Client, path: str) -> dict:
    answer = client.send("GET", path + ("&" if "?" in path else "?") + "format=json", Accept="text/html")
    assert answer.status == 200, answer
    return answer.json


def do(client: Client, action: str, *, expect: int = 303, origin: bool = True, **fields: str) -> None:
    headers = {"Origin": f"http://127.0.0.1:{client.port}"} if origin else {}
    answer = client.send(
        "POST", f"/do/{action}", urlencode(fields), **{"Content-Type": "application/x-www-form-urlencoded", **headers}
    )
    assert answer.status == expect, answer


@pytest.mark.parametrize("path", ["/rollouts", "/rollouts/ramp", "/rollouts/split", "/rollouts/copy", "/rollouts/idea"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_page_of_rollouts_is_drawn_and_holds_no_code_of_others(site, path, language):
    page = site.client.send("GET", f"{path}?lang={language}", Accept="text/html")
    assert page.status == 200, page
    assert EVIL.encode() not in page.body
    assert b"default-src 'none'" in page.headers["content-security-policy"].encode()
    part = site.client.send("GET", f"{path}?part=live", Accept="text/html")
    assert part.status == 200
    assert b"<html" not in part.body


def test_the_page_shows_what_the_analysis_says(site):
    shown = show(site.client, "/rollouts/split")
    with open_store(str(site.root)) as store:
        told = analyze(Rollouts(store), "split").to_dictionary()
    assert shown["judged"]["verdict"] == told["verdict"]
    assert shown["arms"] == told["arms"]
    assert [gate["status"] for gate in shown["judged"]["gates"]] == [gate["status"] for gate in told["gates"]]
    (course,) = shown["courses"]["intervals"]
    assert len(course["points"]) == 2  # the first verdict came before there were 25 events in each cell
    assert all(low < middle < high for _, low, middle, high in course["points"])
    assert shown["judged"]["gate_alpha"] == pytest.approx(0.01 / 3)


def test_a_shadow_is_told_by_its_agreement(site):
    shadow = show(site.client, "/rollouts/copy")["shadow"]
    assert shadow["pairs"] == 40
    assert shadow["agreement"]["share"] == 38 / 40


def test_the_list_tells_state_step_and_verdict(site):
    lines = {line["name"]: line for line in show(site.client, "/rollouts")["rollouts"]}
    assert lines["idea"]["state"] == "draft"
    assert lines["ramp"]["strategy"] == "canary"
    assert lines["ramp"]["weights"] == [0.9, 0.1]
    assert lines["split"]["verdict"]


def test_an_analysis_is_kept_while_nothing_comes(site):
    with open_store(str(site.root)) as store:
        rollouts = Rollouts(store)
        record = rollouts.get("copy")
        first, _ = pages._worked(store, rollouts, record)
        assert pages._worked(store, rollouts, record)[0] is first
        paused = lifecycle.pause(rollouts, "copy")
        assert pages._worked(store, rollouts, paused)[0] is not first
        lifecycle.resume(rollouts, "copy")


def test_who_asks_while_another_analysis_runs_is_not_held_up(site):
    with open_store(str(site.root)) as store, pages._one_at_a_time:
        rollouts = Rollouts(store)
        pages._kept.clear()
        assert pages._worked(store, rollouts, rollouts.get("split")) == (None, "busy")


def test_the_buttons_pause_resume_step_and_abort(site):
    client = site.client
    do(client, "pause-rollout", rollout="ramp", reason="lunch", origin=False, expect=403)
    do(client, "pause-rollout", rollout="ramp", reason="lunch")
    shown = show(client, "/rollouts/ramp")
    assert shown["rollout"]["state"] == "paused"
    assert shown["events"][0] | {"time": 0} == {
        "time": 0, "kind": "paused", "state": "paused", "actor": "the web page", "reason": "lunch",
    }  # fmt: skip
    do(client, "resume-rollout", rollout="ramp")
    step = shown["rollout"]["step"]
    do(client, "advance-rollout", rollout="ramp", step=str(step))
    do(client, "advance-rollout", rollout="ramp", step=str(step), expect=400)
    assert show(client, "/rollouts/ramp")["arms"][1]["weight"] == 0.5
    do(client, "abort-rollout", rollout="ramp", reason="enough")
    assert show(client, "/rollouts/ramp")["rollout"]["state"] == "aborted"
    assert show(client, "/rollouts/ramp")["arms"][0]["weight"] == 1.0
    do(client, "resume-rollout", rollout="ramp", expect=400)


def test_a_promotion_moves_the_alias(site):
    do(site.client, "promote-rollout", rollout="split", reason="good")
    with open_store(str(site.root)) as store:
        assert store.get_model_version_by_alias("churn", "champion").version == "2"


def test_a_version_shows_its_evaluations_and_rollouts(site):
    shown = show(site.client, "/models/churn/2")
    assert [item["run_id"] for item in shown["evaluations"]] == [site.run]
    assert {item["name"] for item in shown["rollouts"]} >= {"ramp", "split", "copy", "idea"}
    page = site.client.send("GET", "/models/churn/2", Accept="text/html")
    assert b'href="/rollouts/split"' in page.body


def test_a_report_that_is_none_of_ours_is_left_out(site):
    assert show(site.client, f"/runs/{site.run}")["evaluation"] is None


def test_many_verdicts_are_thinned_to_the_last_of_each_stretch(site):
    with open_store(str(site.root)) as store:
        rollouts = Rollouts(store)
        key = rollouts.get("copy").key
        every = rollouts.decisions(key)[::-1]
        assert rollouts.course(key, 100) == every
        fewer = rollouts.course(key, 2)
        assert len(fewer) <= 2
        assert fewer[-1] == every[-1]


def test_a_picture_keeps_its_points_in_its_box_and_draws_steps():
    shape = picture([{"name": "a", "points": [(0, 0.1), (10, 0.5)]}], steps=True, share=True, across="time")
    assert len(shape["shapes"][0]["line"].split()) == 3
    flat = picture([{"name": "", "points": [(0, 1, 1, 1)]}], band=True, level=0)
    assert flat["box"]["top"] <= flat["level"] <= flat["box"]["bottom"]
    assert picture([]) == {}
