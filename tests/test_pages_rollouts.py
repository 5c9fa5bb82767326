"""The pages of rollouts and of evaluations: what they say, who may act on them, and that names from files stay text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import postgres
import pytest
from rollout_world import AB, CANARY, SHADOW, Traffic, started, text
from serving import Answer, Client, serving
from sklearn.linear_model import LogisticRegression

import mlcli
from mlcli.rollouts import lifecycle
from mlcli.rollouts.controller import Controller
from mlcli.rollouts.words import SENTENCES, say, worded
from mlcli.server.pages import drawing, texts
from mlcli.server.pages import rollouts as pages
from mlcli.server.security import Auth, Users
from mlcli.store import open_store
from mlcli.store.rollouts import Prediction, Rollouts

EVIL = "<img src=x onerror=alert(1)>"


class Site:
    def __init__(self, root: Path, client: Client, evaluation: str) -> None:
        self.root, self.client, self.evaluation = root, client, evaluation

    def get(self, path: str, **headers: str) -> Answer:
        return self.client.send("GET", path, **{"Accept": "text/html", **headers})

    def data(self, path: str) -> Any:
        answer = self.get(path + "?format=json")
        assert answer.status == 200, answer
        return answer.json

    def do(self, action: str, **fields: str) -> int:
        return self.client.send(
            "POST",
            f"/do/{action}",
            urlencode(fields),
            **{
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"http://127.0.0.1:{self.client.port}",
                "Accept": "application/json",
            },
        ).status


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A rollout of each fate, an evaluation of the version that was rolled out, and a server before them."""
    root = tmp_path_factory.mktemp("rollouts") / "mlruns"
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(200, 2))
    labels = (inputs[:, 0] + draw.normal(scale=0.5, size=200) > 0).astype(int)
    before = mlcli.get_tracking_uri()
    mlcli.set_tracking_uri(root)
    try:
        with mlcli.start_run():
            mlcli.sklearn.log_model(LogisticRegression().fit(inputs, labels), "model", input_example=inputs[:2])
            for _ in range(2):
                version = mlcli.register_model(f"runs:/{mlcli.active_run().info.run_id}/model", "churn")
        mlcli.MlflowClient().set_registered_model_alias("churn", "champion", "1")
        evaluated = mlcli.evaluate(
            f"models:/churn/{version.version}", inputs, targets=labels, method="holdout", baseline="dummy"
        )
    finally:
        mlcli.set_tracking_uri(before)
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        started(rollouts, text("going", AB))
        started(rollouts, text("better", AB))
        started(rollouts, text("worse", AB))
        started(rollouts, text("beside", SHADOW, decision="policy: no_harm, min_units: 50"))
        started(rollouts, text("ramp", CANARY))
        rollouts.create("draft", text("draft"))
        pairs = [
            Prediction(f"p{n}", role, int(role == "shadow"), 0, 1, 1.0, f"u{n}", 1, 4000, 200, prediction=said)
            for n in range(40)
            for role, said in (("live", "1"), ("shadow", "1" if n > 1 else "0"))
        ]
        rollouts.record(rollouts.get("beside").key, pairs)
        for name, traffic in (("better", {"rate": (0.2, 0.5)}), ("worse", {"errors": (0.0, 0.5)}), ("beside", {})):
            controller, world = Controller(rollouts, name, "test"), Traffic(rollouts, name)
            for _ in range(6):
                if rollouts.get(name).state == "running":
                    world.come(300, **traffic)
                    controller.turn()
        lifecycle.pause(rollouts, "going", actor="ann", reason=EVIL)
    with serving(root) as (client, _):
        yield Site(root, client, evaluated.run_id)


def test_every_page_is_html_and_its_twin_json(site: Site) -> None:
    for path in ("/rollouts", *(f"/rollouts/{name}" for name in ("better", "worse", "beside", "going", "draft"))):
        page = site.get(path)
        assert page.status == 200, page
        assert b"<!doctype html>" in page.body.lower()
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert site.data(path)


def test_the_list_says_where_each_rollout_stands(site: Site) -> None:
    listed = {one["name"]: one for one in site.data("/rollouts")["rollouts"]}
    assert {name: one["state"] for name, one in listed.items()} == {
        "better": "promoted", "worse": "aborted", "beside": "running", "going": "paused", "draft": "draft",
        "ramp": "running",
    }  # fmt: skip
    assert listed["worse"]["verdict"] == "ROLLBACK"
    assert listed["better"]["weights"] == [0.0, 1.0]


def test_a_rollout_shows_its_verdict_gates_intervals_and_courses(site: Site) -> None:
    told = site.data("/rollouts/better")
    assert told["judged"]["metrics"]
    conversion = next(one for one in told["judged"]["metrics"] if one["metric"] == "conversion")
    assert conversion["low"] > 0
    assert {gate["gate"] for gate in told["judged"]["gates"]}
    assert [line["name"] for line in told["courses"]["weights"]] == ["champion", "challenger"]
    assert told["courses"]["weights"][1]["points"][-1][1] == 1.0
    assert told["events"][0]["kind"]
    assert "ROLLBACK" in site.get("/rollouts/worse").body.decode()


def test_a_shadow_shows_how_often_both_agree(site: Site) -> None:
    told = site.data("/rollouts/beside")
    assert told["arms"][1]["weight"] == 0
    assert told["shadow"]["pairs"] == 40
    assert told["shadow"]["agreement"]["share"] == 38 / 40


def test_an_analysis_is_kept_until_the_state_changes(site: Site) -> None:
    with open_store(str(site.root)) as store:
        rollouts = Rollouts(store)
        first, _ = pages._worked(store, rollouts, rollouts.get("beside"))
        assert pages._worked(store, rollouts, rollouts.get("beside"))[0] is first
        paused = lifecycle.pause(rollouts, "beside")
        assert pages._worked(store, rollouts, paused)[0] is not first
        lifecycle.resume(rollouts, "beside")


def test_who_asks_while_another_analysis_runs_is_not_held_up(site: Site) -> None:
    with open_store(str(site.root)) as store, pages._one_at_a_time:
        pages._kept.clear()
        rollouts = Rollouts(store)
        assert pages._worked(store, rollouts, rollouts.get("better")) == (None, "busy")


def test_many_verdicts_are_thinned_to_the_last_of_each_stretch(site: Site) -> None:
    with open_store(str(site.root)) as store:
        rollouts = Rollouts(store)
        key = rollouts.get("beside").key
        for number in range(5):
            rollouts.decide(key, number, "HOLD", f"rule {number}", {})
        every = rollouts.decisions(key)[::-1]
        assert rollouts.course(key, 100) == every
        assert len(rollouts.course(key, 2)) <= 2
        assert rollouts.course(key, 2)[-1] == every[-1]


def test_a_step_is_taken_only_from_where_the_page_showed_it(site: Site) -> None:
    step = str(site.data("/rollouts/ramp")["rollout"]["step"])
    assert site.do("advance-rollout", rollout="ramp", step=step) == 200
    assert site.do("advance-rollout", rollout="ramp", step=step) == 400
    assert site.data("/rollouts/ramp")["arms"][1]["weight"] == 0.5
    assert site.do("promote-rollout", rollout="ramp", reason="good") == 200
    assert site.data("/rollouts/ramp")["rollout"]["state"] == "promoted"


def test_why_is_said_in_the_readers_language(site: Site) -> None:
    korean = site.get("/rollouts/worse", **{"Accept-Language": "ko"}).body.decode()
    gates = site.data("/rollouts/worse")["judged"]["gates"]
    assert len([gate for gate in gates if gate["said"]["say"] == "own-errors"]) == 1
    assert "first errors are its own" not in korean
    assert korean.count("이 후보의 것입니다") == 1
    english = site.data("/rollouts/worse")["judged"]["reason"]
    assert english not in korean
    said = english.replace(" to ", " ~ ")
    assert korean.count(said) == 2  # the verdict, and the event that rolled it back
    assert said in site.get("/models/churn/2", **{"Accept-Language": "ko"}).body.decode()
    assert "<title>worse · mlcli</title>" in korean  # a name, though the page has a word for it


def test_each_sentence_has_the_same_values_in_both_languages() -> None:
    for sentence in SENTENCES.values():
        korean = texts.KOREAN[sentence]
        assert sorted(re.findall(r"\{[^}]*\}", korean)) == sorted(re.findall(r"\{[^}]*\}", sentence)), sentence


@pytest.mark.parametrize(
    "said", [{}, {"say": "of another version"}, {"say": "lost"}, {"say": "sample-ratio", "p": "x"}]
)
def test_what_cannot_be_worded_is_shown_as_it_was_kept(said: dict[str, Any]) -> None:
    assert worded(said) == ""
    assert drawing._in_words("as it was kept", said, "ko") == "as it was kept"


def test_a_reason_that_a_person_gave_is_not_translated_away() -> None:
    said = say("handed-over", candidate="challenger")
    assert drawing._in_words("challenger answers everything", said, "ko") == "challenger: 모든 요청에 응답합니다"
    assert drawing._in_words("because", said, "ko") == "because"


def test_the_latencies_of_each_arm_are_drawn(site: Site) -> None:
    lines = site.data("/rollouts/better")["courses"]["latencies"]
    assert [line["name"] for line in lines] == ["champion", "challenger"]
    for line in lines:
        shares = [share for _, share in line["points"]]
        assert (shares[0], shares[-1]) == (0, 1)
        assert shares == sorted(shares)
        median = next(ms for ms, share in line["points"] if share >= 0.5)
        assert 4 < median < 6  # the traffic's is 5
    assert 'aria-label="Latency' in site.get("/rollouts/better").body.decode()


def test_what_people_wrote_stays_text(site: Site) -> None:
    page = site.get("/rollouts/going").body.decode()
    assert EVIL not in page
    assert "&lt;img src=x" in page


def test_an_unknown_rollout_is_not_found(site: Site) -> None:
    assert site.get("/rollouts/nobody").status == 404
    assert site.get("/rollouts/nobody?format=json").status == 404


def test_a_rollout_is_resumed_and_aborted_from_its_page(site: Site) -> None:
    assert site.do("resume-rollout", rollout="going") in (200, 303)
    assert site.data("/rollouts/going")["rollout"]["state"] == "running"
    assert site.do("abort-rollout", rollout="going", reason="enough") in (200, 303)
    told = site.data("/rollouts/going")
    assert told["rollout"]["state"] == "aborted"
    assert told["events"][0]["reason"] == "enough"
    assert site.do("resume-rollout", rollout="going") >= 400


def test_an_evaluation_shows_scores_with_intervals_and_the_comparison(site: Site) -> None:
    found = site.data(f"/runs/{site.evaluation}")["evaluation"]
    scores = {one["name"]: one for one in found["scores"]}
    assert scores["accuracy_score"]["low"] < scores["accuracy_score"]["value"] < scores["accuracy_score"]["high"]
    verdicts = {one["metric"]: one["verdict"] for one in found["comparisons"]}
    assert verdicts["accuracy_score"] == "better"
    assert any(curve["lines"] for curve in found["curves"])
    assert "accuracy_score" in site.get(f"/runs/{site.evaluation}").body.decode()


def test_an_evaluation_is_told_in_the_readers_language(site: Site) -> None:
    page = site.get(f"/runs/{site.evaluation}", **{"Accept-Language": "ko"}).body.decode()
    assert "분류, 한 번 학습하고 시험, " in page
    assert not [text for text in ("fitted and tested", "true positive rate", "not shown is not") if text in page]


def test_a_version_shows_what_it_was_offline_and_what_became_of_it(site: Site) -> None:
    found = site.data("/models/churn/2")
    assert [one["run_id"] for one in found["evaluations"]] == [site.evaluation]
    assert {one["name"] for one in found["rollouts"]} >= {"better", "worse"}
    assert site.get("/models/churn/2").status == 200


def test_a_report_that_is_none_of_ours_is_left_out(site: Site, tmp_path) -> None:
    root = tmp_path / "mlruns"
    with open_store(str(root)) as store:
        run = store.create_run("0", tags={"mlcli.evaluation": "none"})
        from mlcli.artifacts import open_artifacts

        for content in (b"[]", b"{", b'{"model": 1}', json.dumps({"metrics": {"a": None}}).encode()):
            open_artifacts(run.info.artifact_uri).put_bytes(content, "report.json")
            with serving(root) as (client, _):
                answer = client.send("GET", f"/runs/{run.info.run_id}?format=json")
                assert answer.status == 200
                assert answer.json["evaluation"] is None


def test_who_may_only_read_sees_no_buttons_and_changes_nothing(tmp_path) -> None:
    root = tmp_path / "mlruns"
    with open_store(str(root)) as store:
        Rollouts(store).create("draft", text("draft"))
    users = Users(str(root / "server-users.json"))
    token = users.add("ann", "read")
    with serving(root, auth=Auth(users=users), users=users) as (client, _):
        read = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
        page = client.send("GET", "/rollouts/draft", **read)
        assert page.status == 200, page
        assert b"abort-rollout" not in page.body
        for path in ("/rollouts", "/rollouts/draft", "/rollouts/draft?format=json", "/rollouts/draft?part=live"):
            assert client.send("GET", path).status == 401
        refused = client.send(
            "POST",
            "/do/abort-rollout",
            "rollout=draft",
            **{
                **read,
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"http://127.0.0.1:{client.port}",
            },
        )
        assert refused.status == 403
        writer = {
            **read,
            "Authorization": f"Bearer {users.add('bob', 'write')}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        own = {"Origin": f"http://127.0.0.1:{client.port}", "Accept": "application/json"}
        assert client.send("POST", "/do/abort-rollout", "rollout=draft", **{**writer, **own}).status == 200
        event = client.send("GET", "/rollouts/draft?format=json", **read).json["events"][0]
        assert (event["kind"], event["actor"]) == ("aborted", "bob")


def test_over_postgresql_a_page_says_the_same_as_over_sqlite(tmp_path) -> None:
    told = []
    for uri, files in (
        (str(tmp_path / "mlruns"), None),
        (postgres.running().uri_of(tmp_path), str(tmp_path / "files")),
    ):
        with open_store(uri, artifact_root=files) as store:
            rollouts = Rollouts(store)
            started(rollouts, text("ab", AB))
            world = Traffic(rollouts, "ab")
            for _ in range(2):
                world.come(300, rate=(0.2, 0.4))
                Controller(rollouts, "ab", "test").turn()
            key = rollouts.get("ab").key
            for number in range(pages.courses.MOST_POINTS):
                rollouts.decide(key, number, "HOLD", "units", {"metrics": [], "gates": []})
        with serving(uri, artifacts_destination=files) as (client, _):
            assert client.send("GET", "/rollouts/ab", Accept="text/html").status == 200
            found = client.send("GET", "/rollouts/ab?format=json").json
            listed = client.send("GET", "/rollouts?format=json").json["rollouts"][0]
            told.append(
                (
                    found["arms"],
                    found["judged"]["metrics"],
                    found["judged"]["gates"],
                    listed["verdict"],
                    [event["kind"] for event in found["events"]],
                    found["courses"]["latencies"],
                )
            )
    assert told[0] == told[1]


def test_without_numpy_the_last_verdict_weights_and_events_are_shown_and_what_is_missing(site: Site) -> None:
    pages._kept.clear()
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('numpy', 'scipy', 'pandas', 'sklearn')))\n"
        "from serving import serving\n"
        f"with serving({str(site.root)!r}) as (client, _):\n"
        "    for path in ('/rollouts', '/rollouts/better', '/rollouts/better?format=json', '/rollouts/draft'):\n"
        "        answer = client.send('GET', path, Accept='text/html')\n"
        "        print(answer.status, answer.body.decode().replace(chr(10), ' '))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)  # fmt: skip
    listed, page, twin, draft = done.stdout.splitlines()
    assert {line.partition(" ")[0] for line in (listed, page, twin, draft)} == {"200"}
    assert "mlcli[sklearn]" in page
    told = json.loads(twin.partition(" ")[2])
    assert told["judged"]["verdict"] == "PROMOTE"
    assert told["arms"][1]["requests"] > 0
    assert told["courses"]["weights"][1]["points"][-1][1] == 1.0
    assert told["events"][0]["kind"] == "promoted"


def test_a_long_list_is_shown_in_parts_and_many_arms_with_long_names_keep_their_order(tmp_path) -> None:
    names = [f"candidate-{number}-{'x' * 80}" for number in range(7)]
    arms = "\n".join(f"  - {{name: {name}, model: models:/m/{number}}}" for number, name in enumerate(names))
    shares = ", ".join(f"{name}: 10" for name in names)
    spec = text("many", f"  ab: {{weights: {{champion: 30, {shares}}}}}\n")
    spec = re.sub(r"candidates: .*", lambda _: f"candidates:\n{arms}", spec)
    root = tmp_path / "mlruns"
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        for number in range(120):
            rollouts.create(f"draft-{number}", text(f"draft-{number}"))
        started(rollouts, spec)
        world = Traffic(rollouts, "many")
        for _ in range(3):
            world.come(800, rate=(0.3,) * 8, errors=(0.02,) * 8, milliseconds=(5.0,) * 8)
            Controller(rollouts, "many", "test").turn()
    with serving(root) as (client, _):
        first = client.send("GET", "/rollouts?format=json").json
        assert (first["total"], first["pages"], len(first["rollouts"])) == (121, 3, 50)
        assert len(client.send("GET", "/rollouts?page=3&format=json").json["rollouts"]) == 21
        told = client.send("GET", "/rollouts/many?format=json").json
        assert [line["name"] for line in told["courses"]["latencies"]] == ["champion", *names]
        assert [line["candidate"] for line in told["courses"]["intervals"]] == names
        page = client.send("GET", "/rollouts/many", Accept="text/html").body.decode()
        pictures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
        assert max(picture.count("<polyline") for picture in pictures) == 8  # no more lines than colours
