"""Rollouts in stores of each kind: what is recorded, what counts once, and what can be found again as of a moment."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_world import AB, BANDIT, CANARY, SHADOW, Traffic, started, text

from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.rollouts import controller as controlling
from mlcli.rollouts import lifecycle
from mlcli.rollouts import pace as pacing
from mlcli.rollouts.controller import Controller
from mlcli.rollouts.models import settled
from mlcli.rollouts.observe import adjusted, analyze, moves
from mlcli.rollouts.offline import demand
from mlcli.store import open_store
from mlcli.store import rollouts as kept
from mlcli.store.rollouts import (
    Counter,
    Exposure,
    Model,
    Outcome,
    Prediction,
    Rollouts,
    Sums,
    Weights,
    outcome_of,
    unit_of,
)


@pytest.fixture
def rollouts(open_at, root):
    with open_at(root) as store:
        yield Rollouts(store)


def prediction(request_id: str, **more):
    given = {
        "role": "live",
        "arm": 0,
        "answered": 0,
        "version": 1,
        "propensity": 0.9,
        "unit": "u",
        "ns": 1,
        "latency_us": 9,
        "status": 200,
    }
    return Prediction(request_id, **{**given, **more})


def test_a_name_is_used_once_and_an_unknown_one_not_found(rollouts):
    rollouts.create("demo", text())
    with pytest.raises(AlreadyExists, match="already"):
        rollouts.create("demo", text())
    with pytest.raises(NotFound, match="no rollout 'other'"):
        rollouts.get("other")


def test_every_change_is_an_event_with_its_actor(rollouts):
    record = started(rollouts, text())
    lifecycle.pause(rollouts, "demo", actor="ann", reason="lunch")
    lifecycle.resume(rollouts, "demo", actor="bob")
    lifecycle.abort(rollouts, "demo", actor="ann", reason="enough")
    told = [(event.kind, event.state, event.actor, event.reason) for event in rollouts.events(record.key)]
    assert told == [
        ("created", "draft", "", ""),
        ("started", "running", "", ""),
        ("paused", "paused", "ann", "lunch"),
        ("resumed", "running", "bob", ""),
        ("aborted", "aborted", "ann", "enough"),
    ]
    assert rollouts.in_force(record.key)[1].weights == (1.0, 0.0)


@pytest.mark.parametrize(
    "act", [lifecycle.start, lifecycle.pause, lifecycle.resume, lifecycle.advance, lifecycle.abort]
)
def test_an_aborted_rollout_is_over(rollouts, act):
    started(rollouts, text())
    lifecycle.abort(rollouts, "demo")
    with pytest.raises(InvalidState, match="aborted"):
        act(rollouts, "demo")


def test_a_request_is_kept_once_and_its_repetition_counted(rollouts):
    key = started(rollouts, text()).key
    assert rollouts.record(key, [prediction("a"), prediction("b")]) == 0
    assert rollouts.record(key, [prediction("b"), prediction("c")]) == 1
    assert rollouts.count_rows(key, rollouts.batch_at(key)[0]) == {("live", 0): 3}


def test_the_same_feedback_a_hundred_times_at_once_is_one_outcome(open_at, root):
    with open_at(root) as store:
        key = started(Rollouts(store), text()).key
    found = []

    def send():
        with open_at(root) as store:
            same = [Outcome("u:a:conversion", "", "a", "conversion", 1.0, 1)]
            found.extend([Rollouts(store).feedback(key, same) for _ in range(25)])

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(accepted for accepted, _ in found) == 1
    assert sum(duplicate for _, duplicate in found) == 99


def test_a_batch_is_kept_whole_or_not_at_all(rollouts):
    key = started(rollouts, text()).key
    with pytest.raises(Exception):  # noqa: B017 - whatever the database says to a row without a request
        rollouts.record(key, [prediction("a"), prediction(None)], counters=[Counter("live", 0, 1, 1, 2, 0)])
    assert rollouts.batch_at(key) == (0, 0)
    assert rollouts.counters(key, 1 << 40) == []


def test_batches_stay_in_their_order_when_the_clock_is_set_back(rollouts, monkeypatch):
    key = started(rollouts, text()).key
    rollouts.record(key, [prediction("a")])
    first, later = rollouts.batch_at(key)
    monkeypatch.setattr(kept.time, "time_ns", lambda: later - 3600 * 10**9)
    rollouts.record(key, [prediction("b")])
    assert analyze(rollouts, "demo").moment.ns > later  # what was known is still known
    lifecycle.abort(rollouts, "demo")
    batch, ns = rollouts.batch_at(key)
    assert batch > first
    assert ns > later
    assert [one.ns for one in rollouts.weights(key)] == sorted(one.ns for one in rollouts.weights(key))


def test_one_controller_at_a_time_and_the_next_after_its_lease(rollouts, monkeypatch):
    key = started(rollouts, text()).key
    assert rollouts.take_lease(key, "one", 5)
    assert rollouts.take_lease(key, "one", 5)
    assert not rollouts.take_lease(key, "two", 5)
    now = time.time_ns()
    monkeypatch.setattr(kept.time, "time_ns", lambda: now + 6 * 10**9)
    assert rollouts.take_lease(key, "two", 5)
    with pytest.raises(InvalidState, match="another controller"):
        rollouts.change("demo", "step", expect=("running",), holder="one")


def test_a_lease_from_before_the_clock_was_set_back_holds_nobody_off(rollouts, monkeypatch):
    key = started(rollouts, text()).key
    assert rollouts.take_lease(key, "one", 5)
    now = time.time_ns()
    monkeypatch.setattr(kept.time, "time_ns", lambda: now - 3600 * 10**9)
    assert rollouts.take_lease(key, "two", 5)


def test_two_controllers_take_a_step_once(rollouts):
    started(rollouts, text())
    Traffic(rollouts, "demo").come(3_000)
    turns = [Controller(rollouts, "demo", holder).turn() for holder in ("one", "two")]
    assert [turn is None for turn in turns] == [False, True]
    assert [event.kind for event in rollouts.events(1)].count("step") == 1


# --- verdicts from what is recorded


def watched(rollouts, *, turns: int = 12, **traffic):
    controller, world = Controller(rollouts, "demo", "test"), Traffic(rollouts, "demo")
    for _ in range(turns):
        world.come(600, **traffic)
        controller.turn()
        if rollouts.get("demo").state != "running":
            break
    return rollouts.get("demo")


def registered(rollouts, versions: int = 2) -> None:
    store = rollouts.store
    store.create_registered_model("churn")
    for _ in range(versions):
        run = store.create_run("0")
        store.create_model_version("churn", f"runs:/{run.info.run_id}/model", run.info.run_id)
    store.set_registered_model_alias("churn", "champion", "1")


def test_a_rollout_keeps_the_models_that_it_began_with_whatever_becomes_of_an_alias(rollouts):
    registered(rollouts)
    started(rollouts, text(strategy=AB, candidate="churn/2"))
    rollouts.store.set_registered_model_alias("churn", "champion", "2")
    told = analyze(rollouts, "demo").to_dictionary()["arms"]
    assert [(arm["uri"], arm["model"]) for arm in told] == [
        ("models:/churn@champion", "models:/churn/1"),
        ("churn/2", "models:/churn/2"),
    ]
    assert lifecycle.moved(rollouts, rollouts.get("demo")) == [
        "models:/churn@champion is models:/churn/2 by now; the rollout stays with models:/churn/1"
    ]
    assert settled(rollouts, "demo", lifecycle.spec_of(rollouts.get("demo")))[0].version == "1"


def test_a_candidate_named_by_an_alias_is_promoted_as_the_version_that_it_was(rollouts):
    registered(rollouts, versions=3)
    rollouts.store.set_registered_model_alias("churn", "next", "2")
    started(rollouts, text(candidate="models:/churn@next"))
    rollouts.store.set_registered_model_alias("churn", "next", "3")
    lifecycle.promote(rollouts, "demo")
    assert rollouts.store.get_model_version_by_alias("churn", "champion").version == "2"
    assert "mlcli.rollout.demo" in rollouts.store.get_model_version("churn", "2").tags


def test_of_a_model_that_was_not_there_at_the_start_the_first_that_is_served_stays(rollouts):
    record = started(rollouts, text())
    assert rollouts.models(record.key) == ()
    first, other = (Model("models:/churn/2", "churn", "2", digest) for digest in ("sha256:a", "sha256:b"))
    assert rollouts.settle("demo", [None, first]) == (None, first)
    assert rollouts.settle("demo", [other, other]) == (other, first)


def test_a_promotion_that_cannot_be_is_told_and_the_controller_goes_on(rollouts):
    started(rollouts, text(strategy=AB))  # its models are not registered
    record = watched(rollouts, turns=3, rate=(0.1, 0.5))
    assert record.state == "running"
    assert [event.reason for event in rollouts.events(record.key) if event.kind == "failed"] == [
        "there is no registered model 'churn'"
    ]


def test_a_better_candidate_is_promoted_with_the_alias_and_it_is_written_on_its_version(rollouts):
    registered(rollouts)
    started(rollouts, text())
    assert watched(rollouts, rate=(0.2, 0.4)).state == "promoted"
    store = rollouts.store
    assert store.get_model_version_by_alias("churn", "champion").version == "2"
    told = json.loads(store.get_model_version("churn", "2").tags["mlcli.rollout.demo"])
    assert told["verdict"] == "promoted"
    assert "conversion" in told["reason"]


def test_an_alias_that_was_moved_meanwhile_is_not_taken_back_by_a_promotion(rollouts):
    registered(rollouts, versions=3)
    started(rollouts, text())
    rollouts.store.set_registered_model_alias("churn", "champion", "3")
    record = lifecycle.promote(rollouts, "demo")
    assert record.state == "promoted"
    assert rollouts.store.get_model_version_by_alias("churn", "champion").version == "3"
    told = [event.reason for event in rollouts.events(record.key) if event.kind == lifecycle.ALIAS_KEPT]
    assert told == ["churn@champion was moved to version 3 meanwhile, which was not compared with: it stays there"]


def test_a_promotion_whose_alias_cannot_be_switched_does_not_happen(rollouts):
    registered(rollouts, versions=1)
    started(rollouts, text())
    with pytest.raises(NotFound):
        lifecycle.promote(rollouts, "demo")
    assert rollouts.get("demo").state == "running"
    assert rollouts.in_force(1)[1].weights == (0.9, 0.1)


@pytest.mark.parametrize(
    ("traffic", "rule"),
    [
        ({"errors": (0.01, 0.5)}, "error_rate"),
        ({"milliseconds": (5.0, 20.0)}, "latency_p95 vs control"),
    ],
)
def test_a_bad_candidate_is_rolled_back(rollouts, traffic, rule):
    started(rollouts, text())
    record = watched(rollouts, **traffic)
    assert record.state == "aborted"
    last = rollouts.events(record.key)[-1]
    assert last.kind == "rolled back"
    assert last.evidence["rule"].startswith(rule)


def test_units_that_vanish_make_it_invalid_and_it_stays_where_it_is(rollouts):
    started(rollouts, text(strategy=AB))
    record = watched(rollouts, lose=0.5)
    assert (record.state, record.invalid) == ("paused", True)
    assert rollouts.in_force(record.key)[1].weights == (0.5, 0.5)
    with pytest.raises(InvalidState):
        lifecycle.start(rollouts, "demo")
    assert not lifecycle.resume(rollouts, "demo").invalid


def test_the_same_candidate_is_neither_promoted_nor_rolled_back(rollouts):
    started(rollouts, text(strategy=AB))
    assert watched(rollouts, turns=4).state == "running"


def test_by_hand_alone_verdicts_are_recommended(rollouts):
    started(rollouts, text(decision="primary: conversion, min_units: 100, auto: false"))
    record = watched(rollouts, turns=3, errors=(0.01, 0.6))
    assert record.state == "running"
    assert [event.kind for event in rollouts.events(record.key)].count("recommended rollback") == 1


def test_a_verdict_is_found_again_as_of_its_moment(rollouts):
    started(rollouts, text(strategy=AB))
    world = Traffic(rollouts, "demo")
    world.come(500, rate=(0.2, 0.3))
    controller = Controller(rollouts, "demo", "test")
    live = controller.turn()
    world.come(1_500, rate=(0.5, 0.1), errors=(0.0, 0.3))
    again = analyze(rollouts, "demo", as_of_ns=live.moment.ns)
    assert json.dumps(again.to_dictionary()) == json.dumps(live.to_dictionary())
    assert json.dumps(analyze(rollouts, "demo", as_of_ns=live.moment.ns).to_dictionary()) == json.dumps(
        again.to_dictionary()
    )
    assert analyze(rollouts, "demo").to_dictionary() != live.to_dictionary()
    assert rollouts.decisions(live.record.key)[0].evidence == json.loads(json.dumps(live.to_dictionary()))


def test_a_dead_worker_of_the_candidate_ends_it(rollouts):
    started(rollouts, text())
    Traffic(rollouts, "demo").come(50)
    rollouts.note("demo", "worker-dead", actor="gateway", reason="challenger")
    found = Controller(rollouts, "demo", "test").turn()
    assert (found.verdict.rule, rollouts.get("demo").state) == ("dead", "aborted")


def test_a_candidate_that_was_just_rolled_back_has_to_wait(rollouts):
    started(rollouts, text())
    lifecycle.abort(rollouts, "demo", kind=lifecycle.ROLLED_BACK)
    rollouts.create("again", text("again"))
    with pytest.raises(InvalidState, match="rolled back"):
        lifecycle.start(rollouts, "again")


def test_a_bandit_moves_traffic_to_the_arm_that_earns(rollouts):
    started(rollouts, text(strategy=BANDIT, decision="policy: no_harm, min_units: 100000"))
    record = watched(rollouts, turns=4, rate=(0.1, 0.4))
    weights = rollouts.weights(record.key)
    assert weights[0].weights == (0.5, 0.5)
    assert weights[-1].weights[1] > 0.95
    assert all(sum(one.weights) == pytest.approx(1.0) for one in weights)


def test_outcomes_count_whichever_way_they_are_named_and_however_early_or_late(rollouts):
    key = started(rollouts, text(strategy=AB)).key
    rollouts.feedback(key, [Outcome("r:r1:conversion", "r1", "", "conversion", 1.0, 10**15 - 50 * 10**6)])
    exposures = [Exposure(f"u{n}", 1, n % 2, 0.1, 0.5, 10**15) for n in range(4)]
    rollouts.record(key, [prediction(f"r{n}", unit=f"u{n}", arm=n % 2) for n in range(4)], exposures)
    rollouts.feedback(key, [Outcome("u:u2:conversion", "", "u2", "conversion", 1.0, 10**15 + 24 * 3600 * 10**9)])
    batch = rollouts.batch_at(key)[0]
    late = 10**15 + 48 * 3600 * 10**9
    everything = rollouts.sums(key, batch, late, "conversion", binary=True)
    assert [(one.arm, one.n, one.y) for one in everything] == [(0, 2, 1.0), (1, 2, 1.0)]
    in_an_hour = rollouts.sums(key, batch, late, "conversion", binary=True, window_ns=3600 * 10**9)
    assert [(one.arm, one.n, one.y) for one in in_an_hour] == [(0, 2, 0.0), (1, 2, 1.0)]
    assert rollouts.sums(key, batch, 10**15 + 1, "conversion", binary=True, window_ns=3600 * 10**9) == []


def test_losses_compare_predictions_with_what_came_true(rollouts):
    key = started(rollouts, text(strategy=AB)).key
    rows = [prediction("a", unit="a", score=1.0), prediction("b", unit="b", arm=1, score=3.0)]
    rollouts.record(key, rows, [Exposure("a", 1, 0, 0.1, 0.5, 1), Exposure("b", 1, 1, 0.9, 0.5, 1)])
    truths = [Outcome(f"r:{r}:label", r, "", "label", 2.5, 2) for r in ("a", "b", "unknown")]
    rollouts.feedback(key, truths)
    batch = rollouts.batch_at(key)[0]
    found = rollouts.sums(key, batch, 10, "label", loss="absolute_error")
    assert [(one.arm, one.n, one.y) for one in found] == [(0, 1, 1.5), (1, 1, 0.5)]


def test_units_that_moved_before_their_window_was_over_do_not_count(rollouts):
    key = started(rollouts, text()).key
    ns = 10**15
    exposures = [Exposure("stays", 1, 0, 0.8, 0.9, ns), Exposure("moves", 1, 0, 0.3, 0.9, ns)]
    rollouts.record(key, exposures=exposures)
    weights = [Weights(1, ns, (0.9, 0.1), 0, 1, ""), Weights(2, ns + 100, (0.5, 0.5), 0, 3, "")]
    assert moves(weights) == [(1, 0.1, 0.5, ns + 100)]
    batch = rollouts.batch_at(key)[0]
    for window, n in ((50, 2), (200, 1)):
        found = rollouts.sums(key, batch, ns + 10**6, "conversion", binary=True, window_ns=window, moves=moves(weights))
        assert [one.n for one in found] == [n]


def test_a_covariate_from_before_is_taken_out(rollouts):
    """Two arms whose difference is all in what was there before."""
    record = started(rollouts, text(strategy=AB))
    key, start = record.key, record.started_ns
    outcomes, exposures = [], []
    for n in range(200):
        arm = n % 2
        exposures.append(Exposure(f"u{n}", 1, arm, 0.1, 0.5, start + 5))
        before = float(n % 10)
        outcomes.append(Outcome(f"u:u{n}:before", "", f"u{n}", "before", before, start - 5))
        outcomes.append(Outcome(f"u:u{n}:spent", "", f"u{n}", "spent", 2 * before + arm, start + 9))
    rollouts.record(key, exposures=exposures)
    rollouts.feedback(key, outcomes)
    found = rollouts.sums(key, rollouts.batch_at(key)[0], start + 10**9, "spent", covariate="before", started_ns=start)
    better = {one.arm: adjusted(one, found) for one in found}
    assert better[1].y / 100 - better[0].y / 100 == pytest.approx(1.0, abs=0.1)
    raw = {one.arm: one for one in found}
    assert better[1].yy - better[1].y ** 2 / 100 < 0.01 * (raw[1].yy - raw[1].y ** 2 / 100)


def test_cuped_from_sums_has_the_published_values():
    """Orders of tea-tasting's users, seed 42: difference, slope and what is left of the variance."""
    arms = [
        Sums(1, 0, 2023, 1073.0, 2073.0, 1090.0, 2720.0, 1691.0),
        Sums(1, 1, 1977, 1133.0, 2121.0, 1006.0, 2380.0, 1551.0),
    ]
    control, candidate = (adjusted(one, arms) for one in arms)
    assert candidate.y / candidate.n - control.y / control.n == pytest.approx(0.0583038926, abs=1e-9)
    n, y = 4000, control.y + candidate.y
    left = (control.yy + candidate.yy - y * y / n) / (4194.0 - 2206.0**2 / n)
    assert left == pytest.approx(0.6347653594, abs=1e-9)


def test_a_shadow_is_compared_request_by_request(rollouts):
    key = started(rollouts, text(strategy=SHADOW, decision="policy: no_harm, min_units: 50")).key
    live = [prediction(f"r{n}", unit=f"u{n}", score=1.0) for n in range(100)]
    shadow = [
        prediction(f"r{n}", unit=f"u{n}", role="shadow", arm=1, answered=1, error="boom" if n < 60 else "")
        for n in range(100)
    ]
    times = "430:100"
    rollouts.record(
        key, [*live, *shadow], [Exposure(f"u{n}", 1, 0, 0.5, 1.0, 1) for n in range(100)],
        [Counter("live", 0, 1, 1, 100, 0, 0, 0, times), Counter("shadow", 1, 1, 1, 100, 60, 0, 7, times)],
    )  # fmt: skip
    found = analyze(rollouts, "demo")
    assert found.observed.pairs == 100
    assert found.verdict.verdict == "ROLLBACK"
    assert found.observed.traffic[1].errors == 60
    assert found.observed.extra["shadow_dropped"] == 7


def test_an_offline_evaluation_may_be_demanded(rollouts):
    registered(rollouts)
    spec = text() + "require_offline: {metric: roc_auc, min_improvement: 0.01, max_age: 30d}\n"
    rollouts.create("demo", spec)
    rollout = lifecycle.spec_of(rollouts.get("demo"))
    with pytest.raises(InvalidState, match="no offline evaluation of models:/churn/2"):
        lifecycle.start(rollouts, "demo")
    evaluated(rollouts, "churn/2", 0.90)
    with pytest.raises(InvalidState, match="not evaluated on the same data"):
        lifecycle.start(rollouts, "demo")
    evaluated(rollouts, "churn/1", 0.895)
    with pytest.raises(InvalidState, match=r"against control's 0\.895"):
        lifecycle.start(rollouts, "demo")
    newest = evaluated(rollouts, "churn/2", 0.92)
    assert demand(rollouts.store, rollout) == {"challenger": newest}
    assert lifecycle.start(rollouts, "demo").state == "running"


def evaluated(rollouts, version: str, value: float) -> str:
    from mlcli.entities import Metric

    store = rollouts.store
    run = store.create_run("0").info.run_id
    store.log_batch(run, [Metric("roc_auc", value, 1, 0)])
    for key, tag in (("mlcli.evaluation.version", version), ("mlcli.evaluation.data", "d1")):
        store.set_tag(run, key, tag)
    store.update_run(run, "FINISHED", int(time.time() * 1000))
    return run


# --- feedback


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"key": "k"}, "request_id or a unit"),
        ({"unit": "u", "request_id": "r", "key": "k"}, "request_id or a unit"),
        ({"unit": "u"}, "needs a key"),
        ({"unit": "u", "key": "k", "value": "one"}, "finite number"),
        ({"unit": "u", "key": "k", "value": float("nan")}, "finite number"),
        ({"unit": "u", "key": "k", "mode": "last"}, "first or sum"),
        ({"unit": "u", "key": "k", "ts": "yesterday"}, "seconds"),
        ({"unit": "u", "key": "k", "when": 1}, "not a field"),
        ({"unit": "", "key": "k"}, "are text"),
        ({"unit": " ", "key": "k"}, "are text"),
        ({"unit": "u", "key": "k" * 300}, "at most 250"),
        ({"request_id": "a\0b", "key": "k"}, "printable"),
        ({"unit": "u", "key": "k", "idempotency_key": "\ud800"}, "printable"),
        ({"unit": "u", "key": "k", "value": 10**400}, "finite number"),
        ({"unit": "u", "key": "k", "value": 1e200}, "finite number"),
        ({"unit": "u", "key": "k", "ts": 9.9e9}, "seconds"),
    ],
)
def test_feedback_that_cannot_be_used_is_refused(given, told):
    with pytest.raises(InvalidInput, match=told):
        outcome_of(given, 1, lambda: "new")


@given(st.text(max_size=600))
def test_a_unit_that_a_client_names_is_one_that_each_database_can_hold(text):
    found = unit_of(text)
    assert len(found) <= 200
    assert "\0" not in found
    assert found.encode().decode() == found
    assert unit_of(found) == found
    assert text.strip().isprintable() <= (found == text.strip() or len(text.strip()) > 200)


def test_long_units_that_begin_alike_stay_two():
    assert unit_of("x" * 500) != unit_of("x" * 500 + "y")


def test_the_first_outcome_of_a_key_stays_and_counts_add_up():
    first = [outcome_of({"unit": "u", "key": "k", "value": value}, 1, lambda: "x").idempotency_key for value in (0, 1)]
    assert first[0] == first[1]
    fresh = iter("ab")
    counted = [
        outcome_of({"unit": "u", "key": "k", "mode": "sum"}, 1, lambda: next(fresh)).idempotency_key for _ in range(2)
    ]
    assert counted[0] != counted[1]


def test_rollouts_are_not_kept_behind_a_server():
    with open_store("http://ann:secret@127.0.0.1:1") as store, pytest.raises(InvalidInput) as refused:
        Rollouts(store)
    assert "not behind a tracking server" in refused.value.message
    assert "http://127.0.0.1:1/rollouts" in str(refused.value.hint)  # where they are to be seen
    assert "secret" not in refused.value.message + str(refused.value.hint)


def test_what_is_read_leaves_no_store_behind(root):
    with open_store(str(root), create=False) as store:
        assert Rollouts(store).list() == []
    assert not root.exists()


def test_the_canary_of_the_examples_has_its_moves():
    weights = [Weights(n, n, (1 - w, w), 0, n, "") for n, w in enumerate((0.1, 0.5, 0.0), 1)]
    assert moves(weights) == [(1, 0.1, 0.5, 2), (1, 0.0, 0.1, 3), (2, 0.0, 0.5, 3)]
    assert CANARY.count("set_weight") == 3


def analyses_of(rollouts, monkeypatch, ticks: int, between=lambda tick: None, took: float = 0.0) -> list[float]:
    """At which seconds a controller analyses that looks once a second, on a clock of the test's, until the rollout's end."""
    clock = {"now": 1_000.0}
    base = time.time() - clock["now"]
    found = []

    def analyses(*args, **more):
        found.append(clock["now"] - 1_000)
        clock["now"] += took
        return analyze(*args, **more)

    def sleeps(seconds):
        clock["now"] += seconds
        between(clock["now"] - 1_000)
        if clock["now"] - 1_000 > ticks:
            raise KeyboardInterrupt

    for module in (controlling, pacing):
        monkeypatch.setattr(module.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(kept.time, "time_ns", lambda: int((base + clock["now"]) * 1e9))
    monkeypatch.setattr(kept.time, "time", lambda: base + clock["now"])
    monkeypatch.setattr(controlling, "analyze", analyses)
    monkeypatch.setattr(controlling.time, "sleep", sleeps)
    with contextlib.suppress(KeyboardInterrupt):
        controlling.run(rollouts, "demo")
    return found


def test_a_controller_without_news_rests(rollouts, monkeypatch):
    started(rollouts, text(strategy=AB))
    assert len(analyses_of(rollouts, monkeypatch, 60)) <= 7
    assert not rollouts.get("demo").controller


def test_a_controller_looks_at_each_batch_and_rests_four_times_as_long_as_it_took(rollouts, monkeypatch):
    key = started(rollouts, text(strategy=AB)).key

    def each(tick: float) -> None:
        rollouts.record(key, [prediction(f"r{tick}")])

    with monkeypatch.context() as clock:
        assert len(analyses_of(rollouts, clock, 40, each)) >= 40
    with monkeypatch.context() as clock:
        slow = analyses_of(rollouts, clock, 120, each, took=2.0)
    assert min(b - a for a, b in pairwise(slow)) >= 10
    assert len(slow) >= 10


def test_a_controller_that_takes_longer_than_its_lease_decides_all_the_same(rollouts, monkeypatch):
    registered(rollouts)
    started(rollouts, text(strategy=AB))
    Traffic(rollouts, "demo").come(3_000, errors=(0.01, 0.9))
    analyses_of(rollouts, monkeypatch, 60, took=8.0)
    assert rollouts.get("demo").state == "aborted"


def test_a_time_of_the_file_wakes_a_controller(rollouts, monkeypatch):
    spec = text(strategy=AB, decision="primary: conversion, max_duration: 15s, on_timeout: rollback")
    started(rollouts, spec)
    analyses_of(rollouts, monkeypatch, 60)
    events = rollouts.events(1)
    assert rollouts.get("demo").state == "aborted"
    assert 14 <= (events[-1].ns - events[0].ns) / 1e9 <= 19
