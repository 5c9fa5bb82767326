"""The pages over HTTP: their twins in JSON, who gets in, what other sites can make of them; the pictures' numbers."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Answer, Client, serving

from mlcli.artifacts import open_artifacts
from mlcli.curves import aligned
from mlcli.entities import Metric, Param, RunTag
from mlcli.importance import importances
from mlcli.server.pages import assets, preferred, texts
from mlcli.server.pages.markdown import as_html
from mlcli.server.pages.run import plain
from mlcli.server.security import Auth, Users
from mlcli.store import open_store, survey

PAGES = Path(texts.__file__).parent
TOKEN = "t" * 43


class Filled:
    """A store with one experiment of three runs and a model, served."""

    def __init__(self, root: Path, client: Client) -> None:
        self.client, self.root = client, root
        self.own = f"http://127.0.0.1:{client.port}"

    def get(self, path: str, **headers: str) -> Answer:
        return self.client.send("GET", path, **{"Accept": "text/html", **headers})

    def do(self, action: str, *, expect: int = 303, **fields: object) -> Answer:
        answer = self.client.send(
            "POST", f"/do/{action}", urlencode(fields, doseq=True),
            **{"Content-Type": "application/x-www-form-urlencoded", "Origin": self.own, "Accept": "application/json" if expect != 303 else ""},
        )  # fmt: skip
        assert answer.status == expect, answer
        return answer


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    root = tmp_path_factory.mktemp("pages") / "mlruns"
    with open_store(str(root)) as store:
        store.create_experiment("fruit", tags={"mlflow.note.content": "*sweet*"})
        for number, kind in enumerate(("apple", "pear", "pear")):
            run = store.create_run("1", run_name=f"run-{number}", tags={"team": "a" if number else "b"})
            points = [Metric("loss", number + 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(5)]
            store.log_batch(run.info.run_id, points, [Param("kind", kind), Param("n.x", str(number))])
            store.update_run(run.info.run_id, "FINISHED")
        files = open_artifacts(run.info.artifact_uri)
        files.put_bytes(b"flavors:\n  sklearn:\n    sklearn_version: 1.5\n", "model/MLmodel")
        files.put_bytes(b"a\n", "notes.txt")
        store.create_registered_model("basket")
        store.create_model_version("basket", f"runs:/{run.info.run_id}/model", run.info.run_id)
    with serving(root) as (client, _):
        found = Filled(root, client)
        found.run = run.info.run_id
        yield found


def every_page(run: str) -> list[str]:
    return ["/", "/runs", "/experiments/1", f"/runs/{run}", f"/runs/{run}/charts", f"/runs/{run}/artifacts", f"/runs/{run}/log",
            f"/runs/{run}/artifacts?path=model", f"/charts?run={run}", "/compare?e=1", "/models", "/models/basket",
            "/models/basket/1"]  # fmt: skip


# -- what a page is


def test_every_page_is_html_under_a_policy_and_has_a_twin_in_json(filled):
    for path in every_page(filled.run):
        page = filled.get(path)
        assert page.status == 200, path
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        twin = filled.get(path + ("&" if "?" in path else "?") + "format=json")
        assert twin.headers["content-type"] == "application/json"
        assert isinstance(twin.json, dict), path


def test_no_page_holds_scripts_or_styles_of_its_own():
    for file in (PAGES / "templates").glob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", text), file
        for tag in re.findall(r"<script[^>]*>", text):
            assert "src=" in tag or 'type="application/json"' in tag, file
        assert "|safe" not in text, file


def test_every_text_of_the_templates_and_scripts_is_there_in_korean():
    wanted = set(texts.SCRIPT_TEXTS)
    for file in (PAGES / "templates").glob("*.html"):
        found = re.findall(r"(?<![\w.])t\('((?:[^'\\]|\\.)*)'", file.read_text(encoding="utf-8"))
        wanted |= {text.replace("\\'", "'") for text in found}
    assert sorted(wanted - set(texts.KOREAN)) == []
    said = set()
    for name in ("app.js", "charts.js", "plots.js"):
        said |= set(
            re.findall(r'(?<![\w.])t\("((?:[^"\\]|\\.)*)"', (PAGES / "static" / name).read_text(encoding="utf-8"))
        )
    assert said == set(texts.SCRIPT_TEXTS)
    for text, korean in texts.KOREAN.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", korean)), text


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("fr;q=1,ko;q=0.1,en;q=0.5", "en"),
        ("xx;q=y,ko", "ko"),
        ("*", "en"),
    ],
)
def test_the_language_is_the_one_the_browser_likes_best(header, language):
    assert preferred(header) == language


def test_a_filter_that_is_wrong_is_told_beside_it(filled):
    page = filled.get("/experiments/1?filter=metrics.loss%20%3E")
    assert page.status == 200
    assert b'role="alert"' in page.body
    assert filled.get("/experiments/1?filter=metrics.loss%20%3E&format=json").json["problem"]["message"]


def test_runs_are_ordered_filtered_and_paged_by_the_store(filled):
    found = filled.get("/experiments/1?filter=params.kind%3D'pear'&order=-metrics.loss&size=1&page=2&format=json").json
    assert [run["name"] for run in found["runs"]] == ["run-1"]
    assert (found["total"], found["pages"], found["page"]) == (2, 2, 2)


def test_a_page_of_the_list_that_is_no_more_is_its_last_one(filled):
    data = filled.get("/experiments/1?page=9&size=2&format=json").json
    assert (data["page"], data["pages"], len(data["runs"])) == (2, 2, 1)


def test_runs_are_grouped_with_the_spread_of_their_metrics(filled):
    groups = filled.get("/experiments/1?group=params.kind&format=json").json["groups"]
    assert [(item["value"], item["runs"]) for item in groups] == [("pear", 2), ("apple", 1)]
    assert groups[0]["metrics"]["loss"] == pytest.approx([1.2, 1.7, 2.2, 2])
    assert (
        filled.get("/experiments/1?" + urlencode({"filter": groups[0]["filter"], "format": "json"})).json["total"] == 2
    )


def test_a_part_of_a_page_comes_alone(filled):
    part = filled.get("/experiments/1?part=list").body
    assert b"<html" not in part
    assert b"run-0" in part


@pytest.mark.parametrize(
    ("typed", "words"),
    [("params.k", "kind"), ("params.kind = 'p", "'pear'"), ("metr", "metrics."), ("params.kind ", "= "), ("params.kind = 'a' ", "AND "),
     ("tags.te", "team"), ("params.n", "n.x"), ("stat", "status")],
)  # fmt: skip
def test_what_could_come_next_in_a_filter(filled, typed, words):
    found = filled.get("/search/check?" + urlencode({"filter": typed, "at": len(typed)})).json
    assert words in found["words"]


def test_an_unknown_run_is_a_page_for_people_and_json_for_programs(filled):
    page = filled.get("/runs/none")
    assert page.status == 404
    assert b"<html" in page.body
    assert filled.client.send("GET", "/runs/none").json["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_the_first_page_with_all_it_loads_is_small(filled):
    page = filled.get("/experiments/1", **{"Accept-Encoding": "gzip"})
    html = filled.get("/experiments/1").body.decode()
    loaded = [
        filled.get(path, **{"Accept-Encoding": "gzip"}) for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    ]
    assert len(loaded) >= 3
    assert len(page.body) + sum(len(answer.body) for answer in loaded) < 300_000


def test_files_that_pages_need_come_from_a_fixed_list_and_are_kept_for_ever(filled):
    answer = filled.get(f"/static/{assets.name_of('app.js')}")
    assert "immutable" in answer.headers["cache-control"]
    for name in ("app.js", "..%2f__init__.py", "%2e%2e", "templates", assets.name_of("app.js") + "/../x"):
        assert filled.get(f"/static/{name}").status == 404, name


def test_the_api_does_without_the_pages_and_jinja():
    script = (
        "import sys\nfrom mlcli.server.app import make_app\nfrom mlcli.store import open_store\n"
        "app = make_app(lambda: open_store('mlruns'), port=5000)\napp.close()\n"
        "print(sorted({'jinja2', 'markdown_it', 'mlcli.server.pages.drawing', 'mlcli.server.pages.runs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- buttons


def test_a_note_is_written_and_taken_away(filled):
    filled.do("write-note", run=filled.run, note="a\r\nb")
    assert filled.get(f"/runs/{filled.run}?format=json").json["note"] == "a\nb"
    filled.do("write-note", run=filled.run, note="")
    assert filled.get(f"/runs/{filled.run}?format=json").json["note"] == ""


def test_a_model_is_registered_from_runs_by_its_only_path(filled):
    assert filled.do("register-runs", run=filled.run, name="fresh").headers["location"] == "/models/fresh"
    version = filled.get("/models/fresh/1?format=json").json
    assert version["lineage"][0] == {"what": "run", "name": "run-2", "page": ["runs", filled.run]}
    assert version["described"]["flavors"] == {"sklearn": "sklearn_version 1.5"}
    with open_store(str(filled.root)) as store:
        empty = store.find_run("run-0")
    assert "has no model" in filled.do("register-runs", expect=404, run=empty, name="none").json["message"]
    assert filled.client.send("GET", "/models/none").status == 404  # nothing half done


def test_what_cannot_be_done_is_said_and_nothing_is_changed(filled):
    assert "no action" in filled.do("nonsense", expect=404).json["message"]
    assert "no run is selected" in filled.do("delete-runs", expect=400).json["message"]
    assert filled.do("tag-runs", expect=404, run=[filled.run, "none"], key="half", value="done").status == 404
    assert "half" not in filled.get(f"/runs/{filled.run}?format=json").json["tags"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {},
    ],
)
def test_a_form_of_another_site_changes_nothing(filled, headers):
    answer = filled.client.send(
        "POST", "/do/create-experiment", "name=csrf", **{"Content-Type": "application/x-www-form-urlencoded", **headers}
    )
    assert answer.status == 403
    assert "csrf" not in str(filled.get("/?format=json").json)


def test_a_form_as_plain_text_is_refused(filled):
    answer = filled.client.send(
        "POST", "/do/create-experiment", "name=csrf", **{"Content-Type": "text/plain", "Origin": filled.own}
    )
    assert answer.status == 415


def test_a_link_on_another_site_leads_to_a_page_and_to_nothing_else(filled):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert filled.get("/runs", **link).status == 200
    assert filled.get("/runs", **{**link, "Sec-Fetch-Dest": "iframe"}).status == 403
    assert (
        filled.get("/runs?format=json", **{**link, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}).status == 403
    )
    assert filled.get("/api/2.0/mlflow/experiments/get?experiment_id=0", **link).status == 403
    assert filled.get("/login?token=x", **link).status == 403


# -- tokens


def test_a_cookie_opens_pages_alone_and_ends_with_its_user(tmp_path):
    users = Users(str(tmp_path / "users.json"))
    token = users.add("ann", "write")
    with serving(tmp_path / "mlruns", auth=Auth(TOKEN, users), users=users) as (client, _):
        stranger = client.send("GET", "/", Accept="text/html")
        assert stranger.status == 401
        assert "www-authenticate" not in stranger.headers  # the browser's own window would come before ours
        let_in = client.send("GET", f"/login?token={token}", Accept="text/html")
        assert (let_in.status, let_in.headers["location"]) == (303, "/")
        cookie, _, flags = let_in.headers["set-cookie"].partition(";")
        assert "HttpOnly" in flags
        assert "SameSite=Strict" in flags
        assert token not in cookie
        page = client.send("GET", "/", Accept="text/html", Cookie=cookie)
        assert page.status == 200
        assert b"ann" in page.body
        value = cookie.partition("=")[2]
        for given in ({"Cookie": cookie}, {"Authorization": f"Bearer {value}"}):
            assert client.send("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", **given).status == 401
        assert client.send("GET", "/", Cookie=cookie[:-1] + ("0" if cookie[-1] != "0" else "1")).status == 401
        users.remove("ann")
        assert client.send("GET", "/", Cookie=cookie).status == 401
        assert client.send("GET", f"/login?token={token}").status == 401
        assert client.send("GET", f"/login?token={TOKEN}").status == 303


def test_a_link_followed_to_a_closed_server_asks_again_from_the_page_itself(tmp_path):
    with serving(tmp_path / "mlruns", auth=Auth(TOKEN)) as (client, _):
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        answer = client.send("GET", "/runs?filter=a%22b", Accept="text/html", **link)
        assert answer.status == 401
        assert b'http-equiv="refresh" content="0;url=/runs?filter=a%22b"' in answer.body


def test_a_prefix_stands_before_every_address(tmp_path):
    with serving(tmp_path / "mlruns", static_prefix="/team") as (client, _):
        body = client.send("GET", "/team/", Accept="text/html").body.decode()
        addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', body)
        assert addresses
        assert [address for address in addresses if not address.startswith("/team/")] == []


# -- files


def test_a_file_is_shown_where_it_can_do_no_harm(filled):
    with open_store(str(filled.root)) as store:
        files = open_artifacts(store.artifact_root(filled.run))
    for name in ("x.html", "x.svg", "x.js", "x.xml"):
        files.put_bytes(b"<script>alert(1)</script>", name)
        answer = filled.get(f"/runs/{filled.run}/file?path={name}")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "allow-scripts" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert ("content-disposition" in answer.headers) == (name in ("x.js", "x.xml"))
    assert filled.get(f"/runs/{filled.run}/file?path=../../mlcli.db").status == 400
    assert (
        filled.get(f"/runs/{filled.run}/artifacts?format=json&path=" + quote("../..")).json["preview"]["kind"]
        == "problem"
    )


def test_the_output_is_given_from_where_one_left_off(filled):
    with open_store(str(filled.root)) as store:
        files = open_artifacts(store.artifact_root(filled.run))
    files.put_bytes("eins\n실".encode()[:-1], "logs/output.log")
    first = filled.get(f"/runs/{filled.run}/log?format=json").json
    assert first["text"] == "eins\n"
    files.put_bytes("eins\n실행\n".encode(), "logs/output.log")
    assert filled.get(f"/runs/{filled.run}/log?format=json&from={first['to']}").json["text"] == "실행\n"


def test_terminal_output_is_text_without_its_colours():
    assert (
        plain("\x1b[31mred\x1b[0m 10%\r 50%\r100%\nend\x07\x1b]0;title\x07")
        == "red 10%\r 50%\r100%".rpartition("\r")[2] + "\nend"
    )


# -- numbers of pictures


@given(
    curves=st.lists(
        st.lists(st.tuples(st.integers(0, 3000), st.floats(-1e9, 1e9)), max_size=300).map(lambda points: sorted(points, key=lambda point: point[0])),
        min_size=1, max_size=4,
    ),
    stretches=st.integers(2, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_thinned_curves_keep_their_extremes_and_bounded_places(curves, stretches):
    found = aligned(curves, stretches)
    assert found.xs == sorted(found.xs)
    assert len(found.xs) <= 2 * stretches
    for curve, values in zip(curves, found.curves, strict=True):
        kept = [value for value in values if value is not None]
        last = dict(curve)  # of several points in one place the last is seen
        seen = [value for _, value in curve] if found.width else list(last.values())
        assert (min(kept), max(kept)) == (min(seen), max(seen)) if curve else not kept


@pytest.mark.parametrize("stretches", [10, 2000])
def test_a_curve_is_broken_where_it_is_not_a_number(filled, stretches):
    with open_store(str(filled.root)) as store:
        run = store.create_run("0").info.run_id
        values = [math.nan if 400 <= step < 700 or step == 5 else 1.0 for step in range(1000)]
        store.log_batch(run, [Metric("m", value, 1 + step, step) for step, value in enumerate(values)])
    found = filled.get(f"/charts/points?run={run}&metric=m&stretches={stretches}").json
    gaps = [x for x, y in zip(found["x"], found["series"][0]["y"], strict=True) if y == "NaN"]
    # A single point is less than a stretch is wide: seen only where every point is.
    assert (min(gaps), max(gaps), len(gaps)) == ((425, 625, 3) if stretches == 10 else (5, 699, 301))
    assert found["series"][0]["y"][0] == found["series"][0]["y"][-1 if stretches == 2000 else -2] == 1.0
    page = filled.get(f"/runs/{run}").body.decode()
    assert len(re.findall("M", re.search(r'class="spark".*?<path d="([^"]+)"', page)[1])) == 2


def test_points_of_curves_come_thinned_and_the_part_that_is_asked_for_whole(filled):
    with open_store(str(filled.root)) as store:
        run = store.create_run("0").info.run_id
        points = [Metric("spiky", 99.0 if step == 777 else step % 7, 1 + step, step) for step in range(2000)]
        store.log_batch(run, points)
        store.update_run(run, "FINISHED")
    found = filled.get(f"/charts/points?run={run}&metric=spiky&stretches=20").json
    assert len(found["x"]) == 40
    assert max(value for value in found["series"][0]["y"] if value is not None) == 99.0
    part = filled.get(f"/charts/points?run={run}&metric=spiky&stretches=20&low=770&high=780").json
    assert (part["stretch"], part["x"]) == (0, list(range(770, 781)))
    shown = filled.get(f"/runs/{run}?format=json").json["metrics"][0]
    assert (shown["least"], shown["greatest"], max(shown["course"])) == (0, 99, 99)
    assert len(shown["course"]) <= 100
    table = filled.get(f"/charts/points.csv?run={run}&metric=spiky").body.decode().splitlines()
    assert len(table) == 2001
    assert table[0] == "run_id,run_name,metric,step,time,value"


def test_importance_finds_what_matters_and_is_silent_about_noise():
    import random

    chance = random.Random(3)
    runs = []
    for _ in range(60):
        params = {
            "lr": f"{chance.random():.4f}",
            "kind": chance.choice("ab"),
            "noise": chance.choice("xyz"),
            "seed": str(chance.random()),
        }
        runs.append((params, -abs(float(params["lr"]) - 0.5) + 0.2 * (params["kind"] == "a") + chance.gauss(0, 0.02)))
    found = {item.param: item for item in importances(runs)}
    assert found["lr"].p < 0.05  # it rises and falls: no line would see it
    assert found["kind"].p < 0.05
    assert found["lr"].low > 0
    assert found["noise"].p > 0.05
    assert found["noise"].low == 0
    assert next(iter(found)) in ("lr", "kind")
    assert importances(runs) == importances(runs)


def test_importance_of_pure_noise_is_seldom_found():
    import random

    chance = random.Random(5)
    alarms = 0
    for _ in range(20):
        runs = [({"a": chance.choice("xy"), "b": f"{chance.random()}"}, chance.random()) for _ in range(24)]
        alarms += any(item.p < 0.05 for item in importances(runs))
    assert alarms <= 4


def test_importance_says_which_params_cannot_be_told_apart():
    runs = [({"a": str(n % 2), "b": "even" if n % 2 == 0 else "odd"}, float(n % 2) + n / 100) for n in range(20)]
    assert {item.param: item.like for item in importances(runs)} == {"a": "b", "b": "a"}
    assert importances(runs[:5]) == []


@given(st.text(alphabet="<>&\"'()[]!*_`#|-:/ \n\\javscriptonload=x", max_size=120))
@settings(max_examples=150, deadline=None)
def test_notes_hold_no_tags_but_those_of_markdown(text):
    html = as_html(text)
    tags = set(re.findall(r"</?([a-zA-Z][\w-]*)", html))
    assert tags <= set(
        "p br hr em strong a code pre ul ol li blockquote h1 h2 h3 h4 h5 h6 table thead tbody tr th td s".split()
    )
    for tag in re.findall(r"<[^>]*>", html):
        assert re.fullmatch(r'<(?:/?[a-z]\w*(?: (?:href="(?:https?://|mailto:|#)[^"<>]*"|rel="[a-z ]*"|title="[^"<>]*"|class="[^"<>]*"|start="\d+"|style="text-align:\w+"))*(?: /)?)>', tag, re.IGNORECASE), tag  # fmt: skip


# -- what is asked of stores


def test_a_survey_counts_groups_and_names_the_same_in_every_database(open_at, root):
    with open_at(root) as store:
        experiment = store.create_experiment("a")
        for number in range(4):
            run = store.create_run(experiment, run_name=str(number)).info.run_id
            store.log_batch(
                run, [Metric("m", float(number), 1, 1)], [Param(f"p{number % 2}", "v")], [RunTag("t", str(number % 2))]
            )
        child = store.create_run(experiment, tags={"mlflow.parentRunId": run}).info.run_id
        store.delete_run(store.create_run(experiment).info.run_id)
        assert survey.activity(store)[experiment][:2] == (5, 5)
        assert survey.count_runs(store, [experiment], "metrics.m > 0") == 3
        assert survey.keys(store, "params") == ["p0", "p1"]
        assert survey.keys(store, "params", "p1") == ["p1"]
        assert survey.keys(store, "metrics", limit=1) == ["m"]
        assert survey.values(store, "tags", "t") == ["0", "1"]
        groups = survey.groups(store, [experiment], "", "ACTIVE_ONLY", "tags.t", ["m"])
        assert [(group.value, group.runs, group.metrics["m"]) for group in groups] == [
            ("0", 2, (0, 1, 2, 2)),
            ("1", 2, (1, 2, 3, 2)),
        ]
        assert survey.children(store, [run, child]) == {run: 1}
        assert [item.info.run_id for item in survey.runs_of(store, [child, "none", run])] == [child, run]
        curve = survey.Curve(run, "m")
        assert curve.points(store) == [(1, 3.0)]
        store.log_batch(
            run, [Metric("m", value, 9 - step, step) for step, value in enumerate((4.0, -1.0, 2.0, 8.0, float("nan")))]
        )
        assert curve.extent(store, 3) == (0, 3, True)
        assert curve.thinned(store, 0, 2) == [(0, -1.0, 4.0), (1, 2.0, 8.0)]
        store.log_batch(
            run, [Metric("g", *each) for each in ((1.0, 1, 1), (math.nan, 2, 2), (3.0, 3, 3), (math.inf, 4, 4))]
        )
        points = survey.Curve(run, "g").points(store)
        assert points[::2] == [(1, 1.0), (3, 3.0)]
        assert len(points) == 3
        assert math.isnan(points[1][1])
        assert curve._replace(axis="timestamp", low=6, high=7).points(store) == [(6, 8.0), (7, 2.0)]
