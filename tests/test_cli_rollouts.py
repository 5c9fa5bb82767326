"""The commands `mlcli rollouts` and `mlcli monitor`: what they print, what they keep, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rollout_world import AB, CANARY, SHADOW, Traffic, started, text
from test_cli_terminal import COLOUR, terminal

from mlcli.rollouts import lifecycle
from mlcli.rollouts.controller import Controller
from mlcli.store import open_store
from mlcli.store.rollouts import Outcome, Prediction, Rollouts


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a rollout's file in it, whose store is beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollout.yaml").write_text(text(strategy=AB))
    return tmp_path


@pytest.fixture
def running(here) -> Path:
    """A rollout with traffic in which the candidate does better."""
    with open_store(str(here / "mlruns")) as store:
        rollouts = Rollouts(store)
        started(rollouts, text(strategy=AB))
        world = Traffic(rollouts, "demo")
        for _ in range(3):
            world.come(400, rate=(0.2, 0.4), features='{"dataframe_records": [{"age": 30, "kind": "a"}]}')
            Controller(rollouts, "demo", "test").turn()
    return here


def test_a_rollout_goes_from_its_file_to_its_end(here, mlcli):
    assert mlcli("rollouts", "lint", "rollout.yaml").stdout == ""
    mlcli("rollouts", "create", "-f", "rollout.yaml")
    assert json.loads(mlcli("rollouts", "list", "--json").stdout)[0]["state"] == "draft"
    mlcli("rollouts", "start", "demo")
    listed = mlcli("rollouts", "list").stdout.splitlines()
    assert listed[0].split("\t")[:4] == ["name", "state", "strategy", "weights"]
    assert listed[1].split("\t")[:4] == ["demo", "running", "ab", "champion 0.5, challenger 0.5"]
    mlcli("rollouts", "abort", "demo", "--reason", "enough")
    told = json.loads(mlcli("rollouts", "get", "demo", "--json").stdout)
    assert (told["state"], told["events"][-1]["reason"]) == ("aborted", "enough")
    assert told["weights"][-1]["weights"] == [1.0, 0.0]
    again = mlcli("rollouts", "resume", "demo", check=1)
    assert "aborted" in again.stderr


def test_a_bad_file_is_told_line_by_line_and_nothing_is_kept(here, mlcli):
    (here / "bad.yaml").write_text(text(strategy=AB).replace("source: status", "source: state").replace("50}", "60}"))
    done = mlcli("rollouts", "lint", "bad.yaml", check=2)
    assert len(done.stdout.splitlines()) >= 2
    assert all(line.startswith("bad.yaml:") for line in done.stdout.splitlines())
    assert "bad.yaml:" in mlcli("rollouts", "create", "-f", "bad.yaml", check=2).stderr
    assert not (here / "mlruns" / "mlcli.db").exists() or json.loads(mlcli("rollouts", "list", "--json").stdout) == []


def test_names_that_are_not_there_are_not_found(here, mlcli):
    assert "no rollout 'other'" in mlcli("rollouts", "status", "other", check=3).stderr


def test_status_and_analysis_tell_arms_metrics_and_verdict(running, mlcli):
    lines = mlcli("rollouts", "status", "demo").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["name", "champion", "challenger"]
    told = json.loads(mlcli("rollouts", "analyze", "demo", "--exact", "--json").stdout)
    assert told["verdict"] == "PROMOTE"
    assert told["metrics"][0]["low"] > 0
    exact = told["exact"][0]
    assert exact["low"] < 0.2 < exact["high"]
    assert sum(arm["units"] for arm in told["arms"]) == 1_200


def test_the_exit_code_tells_of_a_rollback_and_of_invalid_data(here, mlcli):
    with open_store(str(here / "mlruns")) as store:
        rollouts = Rollouts(store)
        for name, more in (("bad", {"errors": (0.0, 0.5)}), ("lost", {"lose": 0.6}), ("fine", {})):
            started(rollouts, text(name, AB))
            Traffic(rollouts, name).come(800, **more)
    for name, code in (("bad", 10), ("lost", 11), ("fine", 0)):
        mlcli("rollouts", "analyze", name, "--exit-code", check=code)


def test_the_report_is_one_page_with_pictures_and_no_script(running, mlcli):
    mlcli("rollouts", "report", "demo", "--html", "report.html")
    page = (running / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")

    class Checked(HTMLParser):
        text = ""

        def handle_data(self, data):
            self.text += data

    read = Checked()
    read.feed(page)
    assert "PROMOTE" in read.text
    assert "conversion" in read.text
    assert "One look at the planned end" in read.text
    told = json.loads(mlcli("rollouts", "report", "demo", "--json").stdout)
    assert told["gate_alpha"] == pytest.approx(0.01 / 3)
    assert told["fixed_horizon"][0]["probability_to_beat_control"] > 0.99
    assert told["fixed_horizon"][0]["p"] < 0.01
    assert len(told["decisions"]) >= 1


def test_a_shadows_agreement_is_reported(here, mlcli):
    with open_store(str(here / "mlruns")) as store:
        rollouts = Rollouts(store)
        key = started(rollouts, text(strategy=SHADOW, decision="policy: no_harm")).key
        rows = [
            Prediction(f"r{n}", role, arm, arm, 1, 1.0, f"u{n}", 1, 900, 200, "", None, str(label), float(label))
            for n in range(100)
            for role, arm, label in (("live", 0, n % 2), ("shadow", 1, n % 2 if n >= 10 else 1 - n % 2))
        ]
        rollouts.record(key, rows)
    told = json.loads(mlcli("rollouts", "report", "demo", "--html", "report.html", "--json").stdout)["shadow"]
    assert '<th scope="row">agreement, share</th><td>0.9</td>' in (here / "report.html").read_text()
    assert told["agreement"]["share"] == pytest.approx(0.9)
    assert told["kappa"] == pytest.approx(0.8)
    assert told["table"] == [[45, 5], [5, 45]]


def test_where_the_truth_is_known_a_report_shows_what_was_taken_for_what(here, mlcli):
    spec = text(strategy=AB).replace("metrics:\n", "metrics:\n  wrong: {source: loss, key: label, loss: zero_one}\n")
    with open_store(str(here / "mlruns")) as store:
        rollouts = Rollouts(store)
        world = Traffic(rollouts, started(rollouts, spec).name)
        world.come(60, errors=(0.0, 0.0), prediction="1", score=1.0)
        world.come(40, errors=(0.0, 0.0), prediction="0", score=0.0)
        truth = [Outcome(f"l{n}", f"r{n}", "", "label", float(n % 3 > 0), time.time_ns()) for n in range(1, 101)]
        rollouts.feedback(world.record.key, truth)
    (found,) = json.loads(mlcli("rollouts", "report", "demo", "--html", "report.html", "--json").stdout)["labels"]
    assert found["classes"] == [0.0, 1.0]
    both = np.sum([arm["table"] for arm in found["arms"]], axis=0)
    assert both.tolist() == [[13, 27], [20, 40]]  # predicted 0 and 1 down, true ones across
    page = (here / "report.html").read_text()
    assert "wrong: challenger" in page
    assert "predicted / true" in page


def test_units_are_placed_as_they_are_served(running, mlcli):
    told = json.loads(mlcli("rollouts", "assign", "demo", "--unit", "user-1", "--unit", "user-2", "--json").stdout)
    with open_store(str(running / "mlruns")) as store:
        rollouts = Rollouts(store)
        names = [arm.name for arm in lifecycle.spec_of(rollouts.get("demo")).arms]
        assert [one["arm"] for one in told] == [names[rollouts.arm_of(1, one["unit"])[0]] for one in told]


def test_outcomes_come_from_a_file_and_count_once(running, mlcli):
    (running / "outcomes.csv").write_text("unit,key,value\nuser-1,bought,1\nuser-2,bought,0.5\nuser-1,bought,3\n")
    done = mlcli("rollouts", "feedback", "demo", "--file", "outcomes.csv", "--json")
    assert json.loads(done.stdout) == {"accepted": 2, "duplicate": 1}
    (running / "bad.csv").write_text("unit,key,value\nuser-1,bought,much\n")
    assert "bad.csv:2" in mlcli("rollouts", "feedback", "demo", "--file", "bad.csv", check=2).stderr


def test_a_plan_and_a_simulation_tell_what_to_expect(here, mlcli):
    plan = json.loads(
        mlcli("rollouts", "plan", "-f", "rollout.yaml", "--baseline", "0.2", "--mde", "0.05", "--json").stdout
    )
    assert plan["units_per_arm_at_one_look"] == 1_094
    words = (
        "rollouts",
        "simulate",
        "-f",
        "rollout.yaml",
        "--effect",
        "0.2",
        "--reps",
        "5",
        "--units",
        "2000",
        "--json",
    )
    told = {one["verdict"]: one for one in json.loads(mlcli(*words).stdout)}
    assert told["PROMOTE"]["share"] == 1.0
    assert told["PROMOTE"]["rules"] == {"superiority": 5}


def test_drift_is_found_between_files_and_in_what_a_rollout_served(running, mlcli):
    random = np.random.default_rng(0)
    for name, shift in (("before", 0), ("same", 0), ("after", 1)):
        rows = "\n".join(f"{random.normal(shift):.4f},{random.choice(['a', 'b'])}" for _ in range(400))
        (running / f"{name}.csv").write_text(f"age,kind\n{rows}\n")
    mlcli("monitor", "drift", "--reference", "before.csv", "--current", "same.csv", "--exit-code")
    done = mlcli(
        "monitor", "drift", "--reference", "before.csv", "--current", "after.csv", "--exit-code", "--json", check=1
    )
    assert {one["feature"]: one["drifted"] for one in json.loads(done.stdout)} == {"age": True, "kind": False}
    served = json.loads(mlcli("monitor", "drift", "--reference", "before.csv", "--rollout", "demo", "--json").stdout)
    assert next(one for one in served if one["feature"] == "age")["drifted"]


def test_how_each_arm_serves_is_told(running, mlcli):
    told = json.loads(mlcli("monitor", "serve-stats", "demo", "--window", "1h", "--json").stdout)
    assert {one["arm"] for one in told["arms"]} == {"champion", "challenger"}
    assert sum(one["requests"] for one in told["arms"]) == 1_200
    assert told["repeated_inputs"] > 0.99


def test_what_a_rollout_served_names_no_model_twice(here, mlcli):
    done = mlcli("models", "serve", "--rollout", "demo", "-m", "models:/x/1", check=2)
    assert "name what to serve" in done.stderr
    assert "no rollout 'demo'" in mlcli("models", "serve", "--rollout", "demo", check=3).stderr


def test_feedback_by_request_reaches_the_unit(running):
    with open_store(str(running / "mlruns")) as store:
        rollouts = Rollouts(store)
        rollouts.feedback(1, [Outcome("r:r1:late", "r1", "", "late", 1.0, 2**62)])
        assert sum(y for *_, y in rollouts.unit_outcomes(1, rollouts.batch_at(1)[0], "late")) == 1.0
    assert os.path.exists("mlruns/mlcli.db")


# -- watching


def test_watching_draws_in_place_with_the_verdict_in_sight_and_ends_with_the_rollout(here):
    with open_store(str(here / "mlruns")) as store:
        rollouts = Rollouts(store)
        started(rollouts, text(strategy=AB))
        world = Traffic(rollouts, "demo")
        world.come(100)

        def happen() -> None:
            with open_store(str(here / "mlruns")) as other:
                world.rollouts = Rollouts(other)
                for _ in range(2):
                    time.sleep(1.2)  # longer than it takes until the next look
                    world.come(100)
                lifecycle.abort(world.rollouts, "demo", reason="enough")

        meanwhile = threading.Thread(target=happen)
        meanwhile.start()
        written = terminal("rollouts", "status", "demo", "--watch", width=80, height=12)
        meanwhile.join()
    drawn = re.split(r"\x1b\[(\d+)F\x1b\[J", COLOUR.sub("", written))
    screens, back = drawn[::2], [int(lines) for lines in drawn[1::2]]
    assert len(screens) >= 2
    assert back == [screen.count("\n") for screen in screens[:-1]]  # each is drawn where the one before stood
    for screen in screens:
        assert len(screen.splitlines()) < 12
        assert max(map(len, screen.splitlines())) <= 80
        assert re.search(r"^(HOLD|PROMOTE|ROLLBACK) \(", screen, re.MULTILINE)
    assert screens[-1].startswith("demo  aborted, ab")


def test_watching_in_a_pipe_is_a_line_for_each_change_and_its_exit_tells_the_end(here):
    with open_store(str(here / "mlruns")) as store:
        rollouts = Rollouts(store)
        started(rollouts, text(strategy=CANARY))
        world = Traffic(rollouts, "demo")
        world.come(60)
        command = [sys.executable, "-m", "mlcli", "rollouts", "status", "demo", "--watch", "--exit-code"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            head = watching.stdout.readline().rstrip("\n").split("\t")
            first = dict(zip(head, watching.stdout.readline().rstrip("\n").split("\t"), strict=True))
            lifecycle.advance(rollouts, "demo", actor="ann")
            second = dict(zip(head, watching.stdout.readline().rstrip("\n").split("\t"), strict=True))
            world.come(5)  # more of the same is no change
            time.sleep(1.5)
            lifecycle.abort(rollouts, "demo", actor="ann")
            rest = watching.stdout.read().splitlines()
    assert (first["state"], first["weights"]) == ("running", "champion=0.9,challenger=0.1")
    assert second["weights"] == "champion=0.5,challenger=0.5"
    assert len(rest) == 1
    last = dict(zip(head, rest[0].split("\t"), strict=True))
    assert (last["state"], last["weights"]) == ("aborted", "champion=1,challenger=0")
    assert watching.returncode == 10


@pytest.mark.parametrize(("end", "code"), [("abort", 10), ("promote", 0)])
def test_a_rollout_that_has_ended_is_watched_once(here, mlcli, end, code):
    with open_store(str(here / "mlruns")) as store:
        started(Rollouts(store), text(strategy=AB, control="models:/churn/1"))
        getattr(lifecycle, end)(Rollouts(store), "demo")
    done = mlcli("rollouts", "status", "demo", "--watch", "--json", "--exit-code", check=code)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["state"] == {"abort": "aborted", "promote": "promoted"}[end]
