"""A rollout behind a real gateway with real workers: what clients get, what is kept, and what no failure may change."""

from __future__ import annotations

import asyncio
import http.client
import os
import pickle
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter as Count
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml
from gateway import gateway, launch, naughty
from hypothesis import given
from hypothesis import strategies as st
from rollout_world import AB, BANDIT, SHADOW, started, text
from sklearn.tree import DecisionTreeRegressor

import mlcli.sklearn
from mlcli.errors import InvalidInput, NotFound, StoreUnavailable
from mlcli.models.mlmodel import tree_digest
from mlcli.models.worker import CSV, INFER, JSON
from mlcli.rollouts import lifecycle, rolloutfile
from mlcli.rollouts.controller import Controller
from mlcli.serving import pool
from mlcli.serving import record as recording
from mlcli.serving import rollout as policies
from mlcli.serving.pool import Answer, Pool
from mlcli.serving.record import INTERVAL, Recorder, Row
from mlcli.serving.rollout import Assigner, RolloutPolicy, fault, force_of
from mlcli.serving.units import fields_of
from mlcli.store import open_store
from mlcli.store.rollouts import Exposure, Outcome, Rollouts, Weights

HARMLESS = "policy: no_harm, min_units: 1000000"


@pytest.fixture(scope="module")
def doubler(tmp_path_factory) -> Path:
    return naughty(tmp_path_factory.mktemp("models") / "doubler")


@pytest.fixture(scope="module")
def tripler(tmp_path_factory) -> Path:
    return naughty(tmp_path_factory.mktemp("models") / "tripler", 3)


class World:
    """A running gateway of a rollout; ``ask`` sends a unit's request."""

    def __init__(self, running, policy, rollouts: Rollouts, key: int) -> None:
        self.running, self.policy, self.rollouts, self.key = running, policy, rollouts, key

    def ask(self, unit: str, value: float = 1.0, **headers: str):
        return self.running.post({"inputs": [[value]]}, X_User_Id=unit, **headers)

    def feedback(self, *items, **headers):
        return self.running.post(items[0] if len(items) == 1 else list(items), "/feedback", **headers)

    def kept(self) -> int:
        return self.rollouts.batch_at(self.key)[0]

    def rows(self, columns: str = "*", where: str = "1 = 1"):
        return self.rollouts.database.query(f"SELECT {columns} FROM predictions WHERE {where}")

    def wait_for(self, rows: int, role: str = "live", seconds: float = 20):
        until(lambda: len(self.rows("request_id", f"role = '{role}'")) >= rows, seconds)

    def weight(self, share: float) -> None:
        self.rollouts.change("demo", "weights", expect=("running",), weights=(1 - share, share))
        version = self.rollouts.get("demo").version
        until(lambda: self.policy.assigner.force.version == version)

    def candidate(self) -> str:
        """A unit that belongs to the candidate."""
        return next(f"c{n}" for n in range(10_000) if self.policy.assigner.decide(f"c{n}", "r").arm)

    def control(self) -> str:
        return next(f"c{n}" for n in range(10_000) if not self.policy.assigner.decide(f"c{n}", "r").arm)


def rows_of(root: Path, columns: str):
    with open_store(str(root)) as store:
        return store.database.query(f"SELECT {columns} FROM predictions")


def until(done, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def world(
    root: Path,
    control: Path,
    candidate: Path,
    spec: str,
    *,
    start: bool = True,
    timeout: float = 20,
    trust: bool = True,
    digest: str = "",
    **settings,
):
    name = rolloutfile.parse(spec).name
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        try:
            record = rollouts.get(name)
        except NotFound:
            record = started(rollouts, spec) if start else rollouts.create(name, spec)
        rollout = lifecycle.spec_of(record)
        limit = rollout.shadow.timeout if rollout.strategy == "shadow" else timeout
        launched = launch(candidate, version="2", trust=trust, digest=digest, only_digest=bool(digest))
        other = Pool(launched, workers=1, timeout=limit, log=lambda _: None)
        made = []

        class Later:
            """Takes the control's pool, which the gateway makes."""

            def __getattr__(self, what):
                return getattr(made[0], what)

        with gateway_with(
            launch(control), Later(), made, other, rollout, record.key, root, timeout, settings
        ) as running:
            yield World(running, made[0], rollouts, record.key)


@contextmanager
def gateway_with(launched, later, made, other, rollout, key, root, timeout, settings):
    from mlcli.serving import run

    original = run.Serving.startup

    async def startup(self, sockets=None):
        made.append(
            RolloutPolicy(
                rollout, key, [self._gateway.pool, other], lambda: Rollouts(open_store(str(root))),
                models=["doubler/1", "doubler/2"], **settings,
            )
        )  # fmt: skip
        await original(self, sockets)

    patch = pytest.MonkeyPatch()
    patch.setattr(run.Serving, "startup", startup)
    try:
        with gateway(launched, timeout=timeout, more=(other,), policy=later) as running:
            yield running
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def half(doubler, tripler, tmp_path_factory):
    """Half control, which doubles, half candidate, which triples."""
    with world(tmp_path_factory.mktemp("half"), doubler, tripler, text(strategy=AB, decision=HARMLESS)) as one:
        yield one


# --- assignment


def test_a_unit_always_gets_the_same_arm_and_is_told_which(half):
    seen = {}
    for _ in range(2):
        for n in range(30):
            answer = half.ask(f"u{n}")
            arm = answer.headers["x-mlcli-variant"]
            assert answer.json["predictions"] == [2.0 if arm == "champion" else 3.0]
            assert answer.headers["x-mlcli-rollout"] == "demo"
            assert answer.headers["x-mlcli-model"] == ("doubler/1" if arm == "champion" else "doubler/2")
            assert seen.setdefault(f"u{n}", arm) == arm
    assert set(seen.values()) == {"champion", "challenger"}
    half.wait_for(60)
    assert half.rollouts.count_crossed(half.key, half.kept()) == 0


def test_an_answer_of_the_open_inference_protocol_names_version_and_variant(half):
    asked = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 1], "data": [2.0]}]}
    seen = set()
    for n in range(20):
        answer = half.running.post(asked, "/v2/models/doubler/infer", X_User_Id=f"oip{n}")
        told = answer.json
        arm = answer.headers["x-mlcli-variant"]
        assert (told["parameters"], told["outputs"][0]["data"]) == (
            {"variant": arm},
            [{"champion": 4.0, "challenger": 6.0}[arm]],
        )
        seen.add((told["model_version"], arm))
    assert seen == {("1", "champion"), ("2", "challenger")}


def test_what_is_decided_is_kept_with_its_propensity(half):
    answer = half.ask("someone", X_Request_Id="my-request")
    assert answer.headers["x-request-id"] == "my-request"
    until(lambda: half.rows("1", "request_id = 'my-request'"))
    row = half.rows("arm, propensity, version, unit, status, score, features", "request_id = 'my-request'")[0]
    arm = half.policy.assigner.decide("someone", "").arm
    assert row == (arm, 0.5, 1, "someone", 200, 2.0 + arm, '{"inputs": [[1.0]]}')


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=4))
def test_propensities_are_the_frequencies(shares):
    rollout = rolloutfile.parse(text(strategy=BANDIT.replace("update", "sticky: false, update")))
    weights = tuple(share / sum(shares) for share in shares)
    assigner = Assigner(rollout)
    assigner.force = force_of(rollout, "running", Weights(1, 1, weights, 0.0, -1, ""))
    found = [assigner.decide(f"u{n}", f"r{n}") for n in range(2_000)]
    assert {one.propensity for one in found} <= set(weights)
    assert sum(weights) == pytest.approx(1.0)
    counts = Count(one.arm for one in found)
    for arm, weight in enumerate(weights):
        assert abs(counts[arm] / 2_000 - weight) < 0.06


_PLACES = (
    "import sys; sys.path[:0] = [{here!r}]\n"
    "from rollout_world import text\n"
    "from mlcli.rollouts import rolloutfile\n"
    "from mlcli.serving.rollout import Assigner, force_of\n"
    "from mlcli.store.rollouts import Weights\n"
    "a = Assigner(rolloutfile.parse(text()))\n"
    "for w in (.01, .1, .5):\n"
    "    a.force = force_of(a.rollout, 'running', Weights(1, 1, (1 - w, w), 0, 1, ''))\n"
    "    print(''.join(str(a.decide(f'user-{{n}}', '').arm) for n in range(1000)))\n"
)


def test_arms_are_the_same_in_each_process_and_the_candidates_only_grow():
    program = _PLACES.format(here=str(Path(__file__).parent))
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(told) == 1
    one, ten, fifty = told.pop().split()
    for before, after in ((one, ten), (ten, fifty)):
        assert all(new == "1" for old, new in zip(before, after, strict=True) if old == "1")
    assert 0 < one.count("1") < ten.count("1") < fifty.count("1") < 600


def test_a_request_without_a_unit_is_controls_and_not_analysed(half):
    answer = half.running.post({"inputs": [[1.0]]}, X_Request_Id="nobody")
    assert answer.headers["x-mlcli-variant"] == "champion"
    until(lambda: half.rows("1", "request_id = 'nobody'"))
    assert half.rows("role, unit", "request_id = 'nobody'") == [("other", "")]


def test_a_unit_is_demanded_and_others_do_not_match(doubler, tripler, root):
    spec = text(strategy=AB, decision=HARMLESS).replace("field: user_id", "field: user_id, on_missing: reject")
    with world(root, doubler, tripler, spec + "match: {country: [KR, JP]}\n") as one:
        refused = one.running.post({"inputs": [[1.0]]}, Country="KR")
        assert (refused.status, refused.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert "X-User-Id" in refused.json["message"]
        unit = one.candidate()
        assert one.ask(unit, Country="JP").headers["x-mlcli-variant"] == "challenger"
        assert one.ask(unit, Country="DE").headers["x-mlcli-variant"] == "champion"


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        (JSON, b'{"user_id": 7, "inputs": []}', "7"),
        (JSON, b'{"dataframe_split": {"columns": ["a", "user_id"], "data": [[1, "x"], [2, "y"]]}}', "x"),
        (JSON, b'{"dataframe_records": [{"user_id": "x"}]}', "x"),
        (JSON, b'{"inputs": {"user_id": ["x", "y"]}}', "x"),
        (JSON, b'{"inputs": [[1]]}', None),
        (JSON, b"{", None),
        (JSON, b'{"user_id": {"a": 1}}', None),
        (CSV, b"a,user_id\n1,x\n", "x"),
        (CSV, b"\xff\xfe", None),
        (INFER, b'{"parameters": {"user_id": "x"}, "inputs": []}', "x"),
        (INFER, b'{"inputs": [{"name": "user_id", "data": [["x"]]}]}', "x"),
    ],
)
def test_a_unit_may_stand_in_the_body(kind, body, found):
    assert fields_of(kind, body, ["user_id"]).get("user_id") == found


@given(st.binary(max_size=100), st.sampled_from([JSON, CSV, INFER]))
def test_no_body_breaks_the_look_for_a_unit(body, kind):
    assert set(fields_of(kind, body, ["user_id"])) <= {"user_id"}


def test_prometheus_hears_of_weights_and_rows(half):
    half.ask("counted")
    until(
        lambda: (
            b'rollout_rows_total{rollout="demo",outcome="written"}' in half.running.client.send("GET", "/metrics").body
        )
    )
    page = half.running.client.send("GET", "/metrics").body.decode()
    assert 'mlcli_serve_rollout_weight{rollout="demo",variant="challenger"} 0.5' in page


# --- candidates that fail (F-series)


@pytest.mark.parametrize("value", [-5, -1, -4], ids=["raises", "exits", "is killed"])
def test_control_answers_for_a_candidate_that_fails_which_is_charged(half, value):
    """Control fails for the same input here, so only what raises is answered by both; what dies is started again."""
    unit = half.candidate()
    until(lambda: half.policy.pools[1].ready)
    request = f"bad{value}"
    half.ask(unit, value, X_Request_Id=request)
    until(lambda: half.rows("1", f"request_id = '{request}'"))
    arm, answered, error = half.rows("arm, answered, error", f"request_id = '{request}'")[0]
    assert (arm, answered) == (1, 0)
    assert error
    until(lambda: half.policy.pools[0].ready and half.policy.pools[1].ready)
    assert half.ask(unit).json["predictions"] == [3.0]


def test_a_candidate_that_is_being_started_again_keeps_nobody_waiting_and_nobody_is_analysed(half):
    """Units of both arms are left out alike, so that the shares of those that are not stay what was published."""
    unit, other = half.candidate(), half.control()
    pool = half.policy.pools[1]
    until(lambda: pool.ready)
    os.kill(pool.workers[0].process.pid, signal.SIGKILL)
    until(lambda: not pool.ready)
    for who in (unit, other):
        answer = half.ask(who, X_Request_Id=f"down-{who}")
        assert (answer.status, answer.headers["x-mlcli-variant"]) == (200, "champion")
    until(lambda: pool.ready)
    assert half.ask(unit, X_Request_Id="up-again").headers["x-mlcli-variant"] == "challenger"
    until(lambda: half.rows("1", "request_id = 'up-again'"))
    left_out = half.rows("role, arm, propensity, error, unit", "request_id LIKE 'down-%'")
    assert left_out == [("other", 0, 1.0, "", "")] * 2
    assert half.rows("role, arm, propensity, error", "request_id = 'up-again'") == [("live", 1, 0.5, "")]
    until(lambda: "worker-ended" in {event.kind for event in half.rollouts.events(half.key)})


def test_a_candidate_that_ends_again_and_again_is_dead(doubler, tripler, root, monkeypatch):
    monkeypatch.setattr(policies, "ENDS", 2)
    with world(root, doubler, tripler, text(strategy=AB, decision=HARMLESS)) as one:
        candidate = one.policy.pools[1]
        for _ in range(2):
            until(lambda: candidate.ready)
            os.kill(candidate.workers[0].process.pid, signal.SIGKILL)
            until(lambda: not candidate.ready)
        until(lambda: "worker-dead" in {event.kind for event in one.rollouts.events(one.key)})


def test_a_candidate_that_does_not_come_up_keeps_nobody_waiting_and_may_be_aborted(
    doubler, root, tmp_path, monkeypatch
):
    monkeypatch.setattr(policies, "LONG", 0.1)
    monkeypatch.setattr(pool, "END", 0.1)
    slow = naughty(tmp_path / "slow")
    (slow / "code" / "naughty.py").write_text("import time\ndef _load_pyfunc(path):\n    time.sleep(600)\n")
    with world(root, doubler, slow, text(strategy=AB, decision=HARMLESS)) as one:
        units = [f"u{n}" for n in range(20)]
        assert {one.ask(unit).body for unit in units} == {b'{"predictions": [2.0]}'}
        lifecycle.abort(one.rollouts, "demo")
        until(lambda: one.policy.pools[1].workers[0].process.poll() is not None)
        assert {one.ask(unit).status for unit in units} == {200}
    assert {role for (role,) in rows_of(root, "role")} == {"other"}


def test_bad_input_charges_nobody(half):
    unit = half.candidate()
    until(lambda: half.policy.pools[0].ready and half.policy.pools[1].ready)
    answer = half.running.post('{"inputs": [["x"]]}', X_User_Id=unit, X_Request_Id="clients-fault")
    assert answer.status == 400
    until(lambda: half.rows("1", "request_id = 'clients-fault'"))
    assert half.rows("error", "request_id = 'clients-fault'") == [("",)]
    assert fault(Answer(400, b'{"error_code": "BAD_REQUEST", "message": "the body is not JSON"}', 0)) == ""


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("{", "application/json", 400),
        ('{"inputs": [[NaN]], "inputs": 1}', "application/json", 400),
        ('{"dataframe_split": {"columns": ["no"], "data": [["x"]]}}', "application/json", 400),
        ('{"inputs": [[1.0, 2.0]]}', "application/json", 400),
        ("1", "text/html", 415),
    ],
)
def test_what_cannot_be_read_is_told_in_mlflows_form(half, body, kind, status):
    answer = half.running.post(body, Content_Type=kind, X_User_Id=half.candidate())
    assert answer.status == status
    assert set(answer.json) >= {"error_code", "message"}


@pytest.mark.parametrize("unit", ['"\\ud800"', '"a\\u0000b"', f'"{"z" * 5000}"', "1e400", '"\\r\\nX-Evil: 1"'])
def test_a_unit_of_any_text_is_kept_and_feedback_finds_it(half, unit):
    name = f"odd{len(unit)}"
    answer = half.running.post(f'{{"user_id": {unit}, "inputs": [[1.0]]}}', X_Request_Id=name)
    assert answer.status == 200
    assert "x-evil" not in answer.headers
    until(lambda: half.rows("1", f"request_id = '{name}'"))
    [(role, kept)] = half.rows("role, unit", f"request_id = '{name}'")
    assert role == "live"
    if unit.startswith('"'):
        assert half.running.post(f'{{"unit": {unit}, "key": "odd"}}', "/feedback").status == 202
        assert half.rollouts.database.query("SELECT 1 FROM outcomes WHERE unit = :unit", {"unit": kept})


@pytest.mark.parametrize("given", ["a b", "x" * 129, "\xe9", ""])
def test_a_request_id_that_cannot_stand_in_a_table_gets_another(half, given):
    told = half.ask("ids", X_Request_Id=given).headers["x-request-id"]
    assert told != given
    assert len(told) == 24


def test_a_candidate_that_refuses_what_control_accepts_is_charged(doubler, tmp_path, root):
    picky = naughty(tmp_path / "picky", 3)
    content = (picky / "MLmodel").read_text()
    (picky / "MLmodel").write_text(content.replace("[-1, 1]", "[-1, 2]"))
    with world(root, doubler, picky, text(strategy=AB, decision=HARMLESS)) as one:
        answer = one.ask(one.candidate())
        assert (answer.status, answer.headers["x-mlcli-variant"]) == (200, "champion")
        one.wait_for(1)
        assert "refuses what control accepts" in one.rows("error")[0][0]


def test_a_candidate_that_cannot_be_loaded_is_told_whenever_it_is_started_and_control_serves(doubler, tmp_path, root):
    broken = naughty(tmp_path / "broken", 0)
    with world(root, doubler, broken, text(strategy=AB, decision=HARMLESS), start=False) as one:
        until(lambda: any(event.kind == "worker-dead" for event in one.rollouts.events(one.key)))
        lifecycle.start(one.rollouts, "demo")
        until(lambda: one.policy.assigner.force.state == "running")
        assert {one.ask(f"u{n}").status for n in range(10)} == {200}
        until(lambda: one.rollouts.events(one.key)[-1].kind == "worker-dead")
        found = Controller(one.rollouts, "demo", "test").turn()
        assert (found.verdict.verdict, found.verdict.rule) == ("ROLLBACK", "dead")
        until(lambda: one.policy.assigner.force.state == "aborted")


# --- models that must not be loaded


class _Writes:
    """Pickled it is a call that leaves a file behind."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("what", ["hostile", "tampered", "exchanged"])
def test_a_candidate_that_must_not_be_loaded_runs_no_code_and_control_answers(doubler, root, tmp_path, what, capfd):
    """Whoever is trusted: that lets a model run code, and does not make other files the ones that are on record."""
    sentinel = tmp_path / "owned"
    folder = tmp_path / "candidate"
    mlcli.sklearn.save_model(
        DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 1.0]), str(folder), serialization_format="cloudpickle"
    )
    content = yaml.safe_load((folder / "MLmodel").read_text())
    file = folder / content["flavors"]["sklearn"]["pickled_model"]
    on_record = tree_digest(str(folder)) if what == "exchanged" else ""
    if what != "tampered":
        file.write_bytes(pickle.dumps(_Writes(sentinel)))
        content.pop("mlcli")  # with it the digests: whoever can write the file can write them too
        (folder / "MLmodel").write_text(yaml.safe_dump(content))
    else:
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole)
    spec, trust = text(strategy=AB, decision=HARMLESS), what != "hostile"
    with world(root, doubler, folder, spec, trust=trust, digest=on_record) as one:
        until(lambda: [event for event in one.rollouts.events(one.key) if event.kind == "worker-dead"])
        assert {one.ask(f"u{n}").body for n in range(20)} == {b'{"predictions": [2.0]}'}
    assert not sentinel.exists()
    why = {"hostile": "can run code", "tampered": "damaged", "exchanged": "not the model on record"}
    assert why[what] in capfd.readouterr().err


# --- shadows


SABOTEUR = """
import os, signal
class Model:
    def predict(self, rows):
        act = int(rows[0, 0])
        if act == 1: raise ValueError("no \\ud800")
        if act == 2: os._exit(1)
        if act == 3: os.kill(os.getpid(), signal.SIGKILL)
        if act == 4: raise MemoryError
        return 3 * rows[:, 0]
def _load_pyfunc(path):
    return Model()
"""


def test_a_shadow_changes_no_byte_whatever_it_does(doubler, root, tmp_path):
    saboteur = naughty(tmp_path / "saboteur")
    (saboteur / "code" / "naughty.py").write_text(SABOTEUR)
    values = [0.0, 1.0, 2.0, 3.0, 4.0, -5, 5.0]

    def told(one: World):
        answers = []
        for n, value in enumerate(values * 3):
            answer = one.ask(f"u{n}", value, X_Request_Id=f"r{n}")
            headers = {key: text for key, text in answer.headers.items() if key != "date"}
            answers.append((answer.status, answer.body, headers))
        return answers

    off = SHADOW.replace("fraction: 1.0", "fraction: 0.0")
    with world(tmp_path / "off", doubler, saboteur, text(strategy=off, decision=HARMLESS)) as one:
        plain = told(one)
        assert one.rows("1", "role = 'shadow'") == []
    with world(root, doubler, saboteur, text(strategy=SHADOW, decision=HARMLESS)) as one:
        assert told(one) == plain
        until(lambda: one.rows("1", "role = 'shadow' AND request_id = 'r1'"))
        assert one.rows("score", "role = 'shadow' AND request_id = 'r0'") == [(0.0,)]
        errors = one.rows("error", "role = 'shadow' AND request_id = 'r1'")
        assert r"no \ud800" in errors[0][0]


STUBBORN = "import os, time\nclass Model:\n    def predict(self, rows):\n        {act}\n        return rows[:, 0]\ndef _load_pyfunc(path):\n    return Model()\n"


def spinning(folder: Path) -> Path:
    model = naughty(folder)
    spin = "end = time.thread_time() + 0.05\n        while time.thread_time() < end: pass"
    (model / "code" / "naughty.py").write_text(STUBBORN.format(act=spin))
    return model


def test_a_shadow_that_spins_costs_the_gateway_no_cpu_and_clients_get_every_answer(doubler, root, tmp_path):
    """What it takes is counted in CPU time, for clocks on the wall tell of the machine's other work."""
    spec = text(strategy=SHADOW.replace("queue: 50", "queue: 5"), decision=HARMLESS)
    spent = {}
    for name, candidate in (("as quick", doubler), ("spins", spinning(tmp_path / "spins"))):
        with world(tmp_path / name, doubler, candidate, spec) as one:
            before = time.process_time()
            assert {one.ask(f"u{n}").body for n in range(300)} == {b'{"predictions": [2.0]}'}
            spent[name] = time.process_time() - before

            def copies(one: World = one) -> list:
                return [c for c in one.rollouts.counters(one.key, one.kept()) if c.role == "shadow"]

            until(lambda copies=copies: sum(c.n + c.dropped for c in copies()) >= 300)
            dropped = sum(c.dropped for c in copies())
            assert dropped > 100 or name != "spins"
            assert one.policy.shadowing <= 5
            if name == "spins":  # that copies wait for one another is not held against the candidate
                until(lambda: one.policy.shadowing == 0)
                one.wait_for(one.policy.pools[1].workers[0].answered, "shadow")
                took = {
                    role: sum(us for (us,) in one.rows("latency_us", f"role = '{role}' AND error = ''"))
                    for role in ("live", "shadow")
                }
                assert took["shadow"] <= 1e6 * one.policy.pools[1].workers[0].busy + took["live"]
    assert spent["spins"] <= 1.2 * spent["as quick"]  # gateway and client, which share this process


def test_a_shadow_that_hangs_is_dropped_and_counted_and_a_control_that_does_is_504(doubler, root, tmp_path):
    model = naughty(tmp_path / "stubborn")
    (model / "code" / "naughty.py").write_text(STUBBORN.format(act="time.sleep(60)"))
    spec = text(strategy=SHADOW.replace("queue: 50", "queue: 5"), decision=HARMLESS)
    with world(root, doubler, model, spec, timeout=3) as one:
        assert {one.ask(f"u{n}").body for n in range(40)} == {b'{"predictions": [2.0]}'}
        assert not one.rows("1", "role = 'shadow'")  # all clients were answered while the first copy still hung
        until(lambda: one.rows("1", "role = 'shadow' AND error <> ''"))
        until(lambda: sum(c.dropped for c in one.rollouts.counters(one.key, one.kept())) > 0)
        counters = one.rollouts.counters(one.key, one.kept())
        assert sum(c.dropped for c in counters if c.role == "live") == 0
        answer = one.ask("slow", -2)
        assert (answer.status, answer.json["error_code"]) == (504, "DEADLINE_EXCEEDED")
        until(lambda: one.rows("status", "unit = 'slow' AND error <> ''") == [(504,)])


# --- feedback


def test_feedback_counts_once_and_says_so(half):
    first = half.feedback({"unit": "fb", "key": "conversion"})
    assert (first.status, first.json) == (202, {"accepted": 1, "duplicate": 0})
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _: half.feedback({"unit": "fb", "key": "conversion", "value": 0}).json, range(40)))
    assert sum(one["accepted"] for one in again) == 0
    assert sum(one["duplicate"] for one in again) == 40
    both = half.feedback({"unit": "fb", "key": "conversion"}, {"unit": "fc", "key": "conversion"})
    assert both.json == {"accepted": 1, "duplicate": 1}


@pytest.mark.parametrize("body", ["{", "3", '[{"unit": "a"}]', '{"unit": "a", "key": "k", "value": NaN}'])
def test_feedback_that_cannot_be_used_is_400(half, body):
    answer = half.running.post(body, "/feedback")
    assert answer.status == 400
    assert answer.json["error_code"]


def test_feedback_may_come_before_the_request_is_kept(half):
    unit = half.candidate() + "-early"
    half.feedback({"unit": unit, "key": "conversion"})
    half.ask(unit)
    until(lambda: half.rows("1", f"unit = '{unit}'"))
    arm = half.policy.assigner.decide(unit, "").arm
    found = half.rollouts.sums(half.key, half.kept(), time.time_ns(), "conversion", binary=True)
    assert next(one.y for one in found if one.arm == arm) >= 1


# --- weights


def test_abort_reaches_the_gateway_within_a_second_with_no_controller_alive(doubler, tripler, root):
    with world(root, doubler, tripler, text(strategy=AB, decision=HARMLESS)) as one:
        unit = one.candidate()
        assert one.ask(unit).headers["x-mlcli-variant"] == "challenger"
        lifecycle.abort(one.rollouts, "demo", reason="enough")
        until(lambda: one.ask(unit).headers["x-mlcli-variant"] == "champion")
        assert [event.kind for event in one.rollouts.events(one.key)][-1] == "aborted"
        until(lambda: not one.policy.pools[1].ready)  # and its process is gone


def test_a_weight_that_rises_moves_units_to_the_candidate_only(doubler, tripler, root):
    with world(root, doubler, tripler, text(decision=HARMLESS)) as one:
        units = [f"u{n}" for n in range(60)]
        before = {unit for unit in units if one.ask(unit).headers["x-mlcli-variant"] == "challenger"}
        one.weight(0.5)
        after = {unit for unit in units if one.ask(unit).headers["x-mlcli-variant"] == "challenger"}
        assert before < after


def test_a_draft_is_controls_alone_until_it_is_started(doubler, tripler, root):
    with world(root, doubler, tripler, text(strategy=AB, decision=HARMLESS), start=False) as one:
        assert {one.ask(f"u{n}").headers["x-mlcli-variant"] for n in range(20)} == {"champion"}
        lifecycle.start(one.rollouts, "demo")
        until(lambda: one.policy.assigner.force.state == "running")
        assert {one.ask(f"u{n}").headers["x-mlcli-variant"] for n in range(20)} == {"champion", "challenger"}


def test_units_of_a_bandit_keep_their_arm_when_weights_move_and_after_a_restart(doubler, tripler, root):
    spec = text(strategy=BANDIT, decision=HARMLESS)
    units = [f"u{n}" for n in range(20)]
    with world(root, doubler, tripler, spec) as one:
        before = [one.ask(unit).headers["x-mlcli-variant"] for unit in units]
        one.weight(0.99)
        assert [one.ask(unit).headers["x-mlcli-variant"] for unit in units] == before
        one.wait_for(40)
    with world(root, doubler, tripler, spec) as one:
        assert [one.ask(unit).headers["x-mlcli-variant"] for unit in units] == before
        one.wait_for(60)
        assert one.rollouts.count_crossed(one.key, one.kept()) == 0


# --- what is kept


def test_everything_that_was_answered_is_kept_at_the_end(doubler, tripler, root):
    spec = text(strategy=AB, decision=HARMLESS)
    with world(root, doubler, tripler, spec) as one, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: one.ask(f"u{n}").status, range(200)))
    assert answers == [200] * 200
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        batch = rollouts.batch_at(1)[0]
        assert sum(rollouts.count_rows(1, batch).values()) == 200
        assert sum(counter.n for counter in rollouts.counters(1, batch)) == 200
        assert sum(n for *_, n in rollouts.count_units(1, batch)) == 200


@pytest.mark.parametrize("durability", ["group", "ack"])
def test_what_is_answered_is_in_the_store_already(doubler, tripler, root, durability):
    with world(root, doubler, tripler, text(strategy=AB, decision=HARMLESS), durability=durability) as one:
        for n in range(5):
            one.ask(f"u{n}", X_Request_Id=f"r{n}")
            assert one.rows("1", f"request_id = 'r{n}'")


def test_a_store_that_is_locked_keeps_nobody_waiting_and_loses_nothing(doubler, tripler, root):
    with world(root, doubler, tripler, text(strategy=AB, decision=HARMLESS)) as one:
        with closing(sqlite3.connect(root / "mlcli.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert [one.ask(f"u{n}").status for n in range(20)] == [200] * 20
            assert one.rows("1") == []
            other.execute("ROLLBACK")
        one.wait_for(20)
        assert sum(c.n for c in one.rollouts.counters(one.key, one.kept())) == 20


def row(n: int, ns: int = 10**18) -> Row:
    return Row(f"r{n}", "live", n % 2, n % 2, 1, 0.5, f"u{n}", ns, 900, 200, "", b"x" * 100, b'{"predictions": [1]}')


def recorded(root: Path, work, opened=None, **settings) -> Recorder:
    async def play() -> Recorder:
        recorder = Recorder(opened or (lambda: Rollouts(open_store(str(root)))), "demo", 1, **settings)
        recorder.start()
        await work(recorder)
        await recorder.close()
        return recorder

    return asyncio.run(play())


@pytest.fixture
def half_of_each(root):
    with open_store(str(root)) as store:
        started(Rollouts(store), text(strategy=AB))
    return root


def counted(root: Path) -> tuple[int, int, int]:
    """Requests by the counters, of them shed, and rows."""
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        batch = rollouts.batch_at(1)[0]
        counters = rollouts.counters(1, batch)
        rows = sum(rollouts.count_rows(1, batch).values())
        return sum(one.n for one in counters), sum(one.shed for one in counters), rows


def test_a_store_that_is_away_costs_bounded_memory_and_no_count(half_of_each, monkeypatch):
    monkeypatch.setattr(recording, "MAX_ROWS", 500)
    back = threading.Event()

    def opened() -> Rollouts:
        back.wait()
        return Rollouts(open_store(str(half_of_each)))

    async def burst(recorder):
        tracemalloc.start()
        held = []
        for n in range(40_000):
            recorder.add(row(n), Exposure(f"u{n}", 1, n % 2, 0.1, 0.5, 1))
            if n % 5_000 == 4_999:
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert max(held) < 3_000_000  # two batches; what came is twenty times that
        back.set()

    recorder = recorded(half_of_each, burst, opened)
    n, shed, rows = counted(half_of_each)
    assert (n, shed) == (40_000, recorder.shed)
    assert rows == n - shed <= 1_000


def test_outcomes_that_a_store_does_not_take_are_refused_when_too_many_wait(half_of_each, monkeypatch):
    monkeypatch.setattr(recording, "MAX_OUTCOMES", 10)
    back = threading.Event()

    def opened() -> Rollouts:
        back.wait()
        return Rollouts(open_store(str(half_of_each)))

    async def flood(recorder):
        made = [[Outcome(f"u:u{n}:k", "", f"u{n}", "k", 1.0, 1)] for n in range(12)]
        sent = [asyncio.ensure_future(recorder.feedback(one)) for one in made]
        await asyncio.sleep(0.05)
        back.set()
        told = await asyncio.gather(*sent, return_exceptions=True)
        assert told[:10] == [(1, 0)] * 10
        assert {type(one) for one in told[10:]} == {StoreUnavailable}
        assert await recorder.feedback(made[11]) == (1, 0)

    recorded(half_of_each, flood, opened)


@pytest.mark.parametrize("wrong", [{"error": "\ud800"}, {"propensity": "\ud800"}, {"status": 2**70}])
def test_what_no_database_takes_is_left_out_and_everything_after_it_is_kept(half_of_each, wrong):
    async def work(recorder):
        recorder.add(row(0)._replace(**wrong))
        with pytest.raises(InvalidInput):
            await recorder.feedback([Outcome("u:a:k", "", "a", "k", 1.0, 2**70)])
        recorder.add(row(1), Exposure("u1", 1, 1, 0.1, 0.5, 1))
        assert await recorder.feedback([Outcome("u:b:k", "", "b", "k", 1.0, 1)]) == (1, 0)

    recorder = recorded(half_of_each, work)
    n, shed, rows = counted(half_of_each)
    assert (n, shed, rows) == (2, recorder.shed, 2 - recorder.shed)
    assert recorder.shed in (1, 2)


def test_a_gateway_that_ends_waits_for_a_store_that_is_away(half_of_each, monkeypatch):
    monkeypatch.setattr(recording, "_BACK_OFF", 0.01)
    looks = iter(range(5))

    def opened() -> Rollouts:
        if next(looks, None) is not None:
            raise StoreUnavailable("the store is busy")
        return Rollouts(open_store(str(half_of_each)))

    async def work(recorder):
        for n in range(10):
            recorder.add(row(n))

    assert recorded(half_of_each, work, opened).failures == 5
    assert counted(half_of_each) == (10, 0, 10)


def test_several_gateways_write_at_once_and_counts_stay_exact(root):
    with open_store(str(root)) as store:
        started(Rollouts(store), text(strategy=AB))

    def one(part: int) -> None:
        async def work(recorder):
            for n in range(part * 200, part * 200 + 200):
                recorder.add(row(n), Exposure(f"u{n % 50}", 1, n % 2, 0.1, 0.5, 1))
                if n % 20 == 0:
                    await recorder.kept()

        recorded(root, work, durability="group")

    threads = [threading.Thread(target=one, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        batch = rollouts.batch_at(1)[0]
        assert rollouts.count_rows(1, batch) == {("live", 0): 400, ("live", 1): 400}
        assert sum(counter.n for counter in rollouts.counters(1, batch)) == 800


def test_a_controller_that_does_not_hear_keeps_no_gateway_from_its_end(doubler, tripler, root):
    deaf = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    with world(root, doubler, tripler, text(strategy=AB, decision=HARMLESS), controller=deaf) as one:
        until(lambda: one.policy._child is not None)
        time.sleep(0.5)  # until it is deaf
        child = one.policy._child
        start = time.monotonic()
    assert child.poll() is not None
    assert time.monotonic() - start < 20


# --- the whole, in processes of their own


@contextmanager
def serve(root: Path, *options: str):
    environ = {**os.environ, "MLCLI_TRACKING_URI": str(root)}
    words = ["models", "serve", "--rollout", "demo", "-p", "0", "--env-manager", "local", "--trust", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlcli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )
    try:
        line = process.stdout.readline()
        assert "is ready" in line, line
        yield process, int(line.split("/invocations")[0].rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def send(port: int, first: int, n: int, rate: float = 50.0) -> dict[str, float]:
    """Send ``n`` requests at a rate until the server ends; when each that was answered with 200 was."""
    answered = {}
    start = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        try:
            for number in range(n):
                time.sleep(max(start + number / rate - time.monotonic(), 0))
                name = f"r{first + number}"
                headers = {"Content-Type": "application/json", "X-User-Id": f"u{name}", "X-Request-Id": name}
                connection.request("POST", "/invocations", '{"inputs": [[1.0]]}', headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    answered[name] = time.monotonic()
        except (OSError, http.client.HTTPException):
            pass
    return answered


def full_for_a_while(process: subprocess.Popen, seconds: float) -> None:
    """Let no file of the process grow, as on a disk that is full."""
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
    time.sleep(seconds)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))


def store_failures(port: int) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    return float(re.search(r"mlcli_serve_rollout_store_failures_total\{\S* (\S+)", page)[1])


MARGIN = 1.0  # seconds by which this machine may be late with a flush


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit is set on another process")
@pytest.mark.parametrize(
    ("durability", "ending"), [("async", signal.SIGTERM), ("group", signal.SIGKILL), ("async", signal.SIGKILL)]
)
def test_what_a_gateways_end_loses_is_what_its_durability_says(doubler, tripler, root, durability, ending):
    """At 200 requests a second; before a SIGTERM the disk is full for a while too."""
    with open_store(str(root)) as store:
        started(Rollouts(store), text(strategy=AB, control=str(doubler), candidate=str(tripler), decision=HARMLESS))
    with (
        ThreadPoolExecutor(4) as senders,
        serve(root, "--durability", durability, "--no-controller") as (process, port),
    ):
        sent = [senders.submit(send, port, part * 10_000, 10_000) for part in range(4)]
        time.sleep(1.0)
        if ending == signal.SIGTERM:
            full_for_a_while(process, 1.0)
            assert store_failures(port) > 0
        else:
            time.sleep(INTERVAL + MARGIN)
        process.send_signal(ending)
        ended = time.monotonic()
        answered = {name: at for one in sent for name, at in one.result().items()}
        process.wait(40)
    with open_store(str(root)) as store:
        assert store.database.damage() == []
        kept = {name for (name,) in store.database.query("SELECT request_id FROM predictions WHERE status = 200")}
        n = sum(counter.n for counter in Rollouts(store).counters(1, 2**40))
    if ending == signal.SIGTERM:
        assert kept == set(answered)
        assert n == len(answered)
    elif durability == "group":
        assert set(answered) <= kept
    else:
        due = {name for name, at in answered.items() if at < ended - INTERVAL - MARGIN}
        assert due
        assert due <= kept
    assert len(answered) > 20


@pytest.mark.slow
def test_gateways_with_several_workers_obey_one_controller_and_none(doubler, tripler, root):
    """Two gateways with two workers each: exact counts, one controller at a time, and an abort when there is none."""
    spec = text(control=str(doubler), candidate=str(tripler), decision=HARMLESS)
    with open_store(str(root)) as store:
        rollouts = Rollouts(store)
        started(rollouts, spec)
        lifecycle.advance(rollouts, "demo")
        step = rollouts.get("demo").step
        with serve(root, "-w", "2") as (_, one), serve(root, "-w", "2") as (_, other), ThreadPoolExecutor(4) as senders:
            sent = [senders.submit(send, port, n * 100, 100, 1e9) for n, port in enumerate((one, other, one, other))]
            answered = {name for part in sent for name in part.result()}
            assert len(answered) == 400
            until(lambda: sum(counter.n for counter in rollouts.counters(1, 2**40)) == 400)
            assert {name for (name,) in rows_of(root, "request_id")} == answered
            assert rollouts.count_crossed(1, 2**40) == 0
            until(lambda: rollouts.get("demo").controller)
            first = rollouts.get("demo").controller
            os.kill(int(first.split(":")[1]), signal.SIGKILL)
            until(lambda: rollouts.get("demo").controller not in ("", first), 40)
            assert (rollouts.get("demo").state, rollouts.get("demo").step) == ("running", step)
            os.kill(int(rollouts.get("demo").controller.split(":")[1]), signal.SIGKILL)
            lifecycle.abort(rollouts, "demo")
            assigner = Assigner(lifecycle.spec_of(rollouts.get("demo")))
            assigner.force = force_of(assigner.rollout, "running", rollouts.weights(1)[-2])
            unit = next(f"u{n}" for n in range(1_000) if assigner.decide(f"u{n}", "r").arm)
            for port in (one, other):
                until(lambda port=port: variant(port, unit) == "champion")
            assert [event.kind for event in rollouts.events(1)][-1] == "aborted"


def variant(port: int, unit: str) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "application/json", "X-User-Id": unit}
        connection.request("POST", "/invocations", '{"inputs": [[1.0]]}', headers)
        answer = connection.getresponse()
        answer.read()
        return answer.headers["x-mlcli-variant"]
