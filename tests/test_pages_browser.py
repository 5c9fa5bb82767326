"""A real headless Chromium uses the pages of a real server, over a store that runs made and go on making."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rollout_world
import sites
from serving import serving

from mlcli.entities import Metric, Param
from mlcli.rollouts import lifecycle
from mlcli.rollouts.controller import Controller
from mlcli.server.security import Auth, Users
from mlcli.store import open_store
from mlcli.store.rollouts import Rollouts

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sites.CHROMIUM, reason="the system's Chromium is not here: apt-get install chromium"),
]


class Site:
    """The pages over one store: what is opened is watched for errors, dialogs and refused scripts."""

    def __init__(self, context: Any, root: Path, port: int) -> None:
        self.context, self.root, self.url = context, root, f"http://127.0.0.1:{port}"
        self.wrong: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.page.url}: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("console", self._heard)
        self.sure = False

    def _dialog(self, dialog: Any) -> None:
        if self.sure:
            dialog.accept()
        else:
            self.wrong.append(f"{self.page.url}: a dialog said {dialog.message!r}")
            dialog.dismiss()

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"{self.page.url}: {message.text}")

    def open(self, path: str) -> Any:
        self.page.goto(self.url + path)
        return self.page

    def run_named(self, name: str) -> str:
        with open_store(str(self.root)) as store:
            return store.find_run(name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=sites.CHROMIUM, args=sites.FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    sites.fill(folder / "mlruns", folder)
    return folder / "mlruns"


@pytest.fixture(scope="module")
def shared(browser: Any, filled: Path) -> Iterator[tuple[Any, Path, int]]:
    with serving(filled) as (client, _):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
        yield context, filled, client.port
        context.close()


@pytest.fixture
def site(shared: tuple[Any, Path, int]) -> Iterator[Site]:
    opened = Site(*shared)
    yield opened
    opened.page.close()
    assert opened.wrong == []


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#list tbody th a:not(.badge)").all_inner_texts()]


def wait_for_heading(page: Any, text: str) -> None:
    """A click may answer before the page it leads to is there: the heading of the one before must not be taken for it."""
    page.get_by_role("heading", level=1, name=text, exact=True).wait_for()


def test_the_way_from_the_experiments_to_a_run_is_two_clicks(site):
    page = site.open("/")
    page.get_by_role("link", name="sweep").click()
    page.get_by_role("link", name="trial-07").click()
    wait_for_heading(page, "trial-07")
    assert page.locator("td.value", has_text="64").count() == 1


def test_the_runs_of_several_experiments_stand_in_one_table(site):
    page = site.open("/")
    page.get_by_label("sweep", exact=True).check()
    page.get_by_label("digits", exact=True).check()
    page.get_by_role("button", name="Runs of the selected").click()
    page.wait_for_url("**/runs?e=*&e=*")
    assert {text for text in page.locator("#list td a").all_inner_texts() if text in ("sweep", "digits")} == {
        "sweep",
        "digits",
    }


def test_a_search_finds_orders_and_stays_in_the_address(site):
    page = site.open("/")
    page.get_by_role("link", name="sweep").click()
    page.fill("#filter", "params.solver = 'adam'")
    page.keyboard.press("Enter")
    page.wait_for_url("**filter=params.solver**")
    page.get_by_role("columnheader", name="accuracy").get_by_role("link").click()
    page.wait_for_url("**order=-metrics.accuracy**")
    found = names(page)
    values = [float(text) for text in page.locator("td.num.best, td.num").evaluate_all(
        "cells => cells.filter((cell) => cell.cellIndex === 5).map((cell) => cell.firstChild.textContent)")]  # fmt: skip
    assert values == sorted(values, reverse=True)
    assert 3 < len(found) < 40
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert names(page) == found
    assert page.input_value("#filter") == "params.solver = 'adam'"


def test_a_filter_is_judged_and_completed_while_it_is_typed(site):
    page = site.open("/runs")
    page.click("#filter")
    page.keyboard.type("params.sol")
    page.locator("#filter-words li", has_text="solver").wait_for()
    page.keyboard.press("Tab")
    assert page.input_value("#filter") == "params.solver"
    page.keyboard.type(" = 'ad")
    page.locator("#filter-words li", has_text="'adam'").click()
    assert page.input_value("#filter") == "params.solver = 'adam'"
    page.keyboard.type(" metrics")
    page.locator("#filter[aria-invalid=true]").wait_for()
    page.locator("#filter-problem:not(:empty)").wait_for()


def test_runs_that_are_selected_are_compared(site):
    page = site.open("/runs?filter=run_name%20LIKE%20'trial-0%25'")
    page.check("#all")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?**")
    wait_for_heading(page, "Compare 10 runs")
    for plot in ("parallel", "scatter", "heat", "box"):
        page.locator(f'[data-plot="{plot}"] svg').wait_for()
    assert page.locator('[data-plot="parallel"] .run-line').count() == 10
    page.check("#only-changed")
    assert not page.get_by_role("rowheader", name="batch_size").is_visible()


def test_lines_of_parallel_coordinates_are_kept_by_dragging_along_an_axis(site):
    page = site.open("/compare?filter=run_name%20LIKE%20'trial-%25'&metric=accuracy")
    axis = page.locator("#parallel .axis-hit").last
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 12, box["y"] + box["height"] / 4, steps=3)
    page.mouse.up()
    off = page.locator("#parallel .run-line.off").count()
    assert 0 < off < 40


def test_contour_lines_are_drawn_where_runs_foretell_each_other_and_not_of_noise(site):
    trials = "/compare?filter=run_name%20LIKE%20'trial-%25'"
    page = site.open(f"{trials}&metric=accuracy#heat-x=p:lr&heat-y=p:layers")
    page.check("#contour")
    assert page.locator('[data-plot="heat"] .contour').count() > 2
    assert "% of the variance" in page.locator("#heat-note").inner_text()
    page = site.open(f"{trials}&metric=seconds#heat-x=p:lr&heat-y=p:lr&contour=1")
    assert page.locator('[data-plot="heat"] .dot').count() == 40
    assert page.locator('[data-plot="heat"] .contour').count() == 0
    page.select_option('[data-axis="heat-x"]', "p:solver")
    assert "numbers on both axes" in page.locator("#heat-note").inner_text()


def test_numbers_and_names_that_javascript_has_other_plans_for_are_shown(site):
    """JSON has no word for NaN and the infinities, and every object has a constructor."""
    with open_store(str(site.root)) as store:
        experiment = store.create_experiment("odd")
        for number, loss in enumerate((math.nan, math.inf, -math.inf, 0.5, 2.0)):
            run = store.create_run(experiment, run_name=f"odd-{number}").info.run_id
            points = [Metric("loss", value, 1, step) for step, value in enumerate((1.0, 0.75, loss))]
            rare = [Param("constructor", str(number))] if number % 2 else []
            store.log_batch(run, points, [Param("__proto__", str(number)), *rare])
            store.update_run(run, "FINISHED")
    page = site.open(f"/compare?e={experiment}&metric=loss#scatter-x=p:constructor")
    page.locator('[data-plot="parallel"][data-drawn]').wait_for()
    assert page.locator('[data-plot="scatter"] .dot').count() == 1  # of two that have the param one has a number
    page = site.open(f"/charts?e={experiment}&metric=loss")
    page.locator(".plot[data-drawn]").wait_for()
    told = page.locator(".chart > p").inner_text()
    assert re.findall(r"odd-\d [-\w]+", told) == ["odd-2 -Infinity", "odd-1 Infinity", "odd-0 NaN"]


def test_importance_names_the_params_that_were_made_to_matter(site):
    page = site.open("/compare?filter=run_name%20LIKE%20'trial-%25'&metric=accuracy")
    found = page.locator("#importance tbody th").all_inner_texts()
    assert {found[0], found[1]} == {"lr", "solver"}
    assert page.locator("#importance .bar-mark").count() == len(found)


def test_curves_are_drawn_smoothed_zoomed_and_taken_along(site, tmp_path):
    runs = "&".join(f"run={site.run_named(f'trial-0{number}')}" for number in range(4))
    page = site.open(f"/charts?{runs}&metric=loss")
    plot = page.locator(".plot[data-drawn]")
    plot.wait_for()
    assert "4 curves" in plot.get_attribute("aria-label")
    page.locator("#chart-smooth").fill("0.9")
    page.check("#chart-log")
    assert "smooth=0.9" in page.url
    box = page.locator(".u-over").bounding_box()
    with page.expect_response(lambda answer: "low=" in answer.url):
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 260, box["y"] + 60, steps=4)
        page.mouse.up()
    page.wait_for_url("**low=**")
    tip = page.locator(".tip table tr").first
    for place in range(100, 200):  # the part is drawn anew a moment later
        page.mouse.move(box["x"] + place, box["y"] + 120)
        if tip.is_visible():
            break
        page.wait_for_timeout(25)
    tip.wait_for()
    for kind, begin in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"run_id,")):
        with page.expect_download() as saved:
            page.locator(".chart").get_by_text(kind, exact=True).click()
        assert Path(saved.value.path()).read_bytes().startswith(begin), kind


def test_a_note_is_written_in_markdown(site):
    run = site.run_named("trial-11")
    page = site.open(f"/runs/{run}")
    page.get_by_role("button", name="Edit").click()
    page.fill("#edit-note textarea", "It is **good**.\n\n- one")
    page.locator("#edit-note").get_by_role("button", name="Save").click()
    page.locator(".note strong", has_text="good").wait_for()
    with open_store(str(site.root)) as store:
        assert store.get_run(run).data.tags["mlflow.note.content"] == "It is **good**.\n\n- one"


def test_a_model_is_registered_and_given_an_alias(site):
    page = site.open(f"/runs/{site.run_named('logistic-0.1')}")
    page.locator("#models-title").wait_for()
    page.get_by_role("button", name="Register").click()
    page.fill("#register-model input[name=name]", "digits")
    page.locator("#register-model").get_by_role("button", name="Register").click()
    page.wait_for_url("**/models/digits")
    page.get_by_label("New alias of version 2").fill("challenger")
    page.keyboard.press("Enter")
    page.locator(".chip.alias", has_text="@challenger").wait_for()
    page.locator(".chip.alias", has_text="@challenger").get_by_role("button").click()
    page.locator(".chip.alias", has_text="@challenger").wait_for(state="detached")
    page.get_by_label("v1").check()
    page.get_by_label("v2").check()
    page.get_by_role("button", name="Compare versions").click()
    page.locator("tr.differs", has_text="C").first.wait_for()


def test_runs_are_tagged_deleted_and_restored_together(site):
    page = site.open("/runs?filter=run_name%20LIKE%20'trial-2%25'")
    for name in ("trial-20", "trial-21"):
        page.get_by_label(name, exact=True).check()
    page.get_by_role("button", name="Tag").click()
    page.fill("#tag-runs input[name=key]", "kind")
    page.fill("#tag-runs input[name=value]", "old")
    with page.expect_navigation():
        page.locator("#tag-runs").get_by_role("button", name="Tag").click()
    page.goto(f"{site.url}/runs?filter=tags.kind%20%3D%20'old'")
    assert sorted(names(page)) == ["trial-20", "trial-21"]
    page.check("#all")
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("No run matches").wait_for()
    page.goto(f"{site.url}/runs?view=deleted")
    page.check("#all")
    page.get_by_role("button", name="Restore").click()
    page.get_by_text("Nothing is deleted").wait_for()
    page.goto(f"{site.url}/runs?filter=tags.kind%20%3D%20'old'")
    assert sorted(names(page)) == ["trial-20", "trial-21"]


def test_experiments_are_made_renamed_deleted_and_restored(site):
    page = site.open("/")
    page.get_by_role("button", name="New experiment").click()
    page.fill("#new-experiment input[name=name]", "idea")
    page.locator("#new-experiment").get_by_role("button", name="Create").click()
    page.wait_for_url("**/experiments/*")
    page.get_by_role("button", name="Edit").click()
    page.fill("#edit-experiment input[name=name]", "better idea")
    page.fill("#edit-experiment textarea", "why not")
    page.locator("#edit-experiment").get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="better idea").wait_for()
    page.goto(site.url)
    page.get_by_role("button", name="Edit better idea").click()
    page.locator("#edit-experiment").get_by_role("button", name="Delete").click()
    page.get_by_role("link", name="better idea").wait_for(state="detached")
    page.goto(f"{site.url}/?view=deleted")
    page.get_by_role("button", name="Restore").click()
    page.get_by_text("Nothing is deleted").wait_for()


def test_what_a_run_writes_is_followed_to_its_end(site, tmp_path):
    """The store is written to by the run while its pages are looked at."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, mlcli\n"
        "for step in range(3):\n"
        "    print('round', step, flush=True)\n"
        "    mlcli.log_metric('loss', 1 / (step + 1), step=step)\n"
        "    sys.stdin.readline()\n",
        encoding="utf-8",
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "mlcli", "run", str(script), "--env-manager=local", "--run-name", "slow"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        env=sites.environment(site.root),
    )  # fmt: skip
    try:
        page = site.open("/experiments/" + digits(site))
        page.get_by_role("link", name="slow").wait_for()  # it comes by itself
        page.get_by_role("link", name="slow").click()
        page.get_by_role("link", name="Output").click()
        page.locator("#log", has_text="round 0").wait_for()
        for text in ("round 1", "round 2"):
            running.stdin.write("\n")
            running.stdin.flush()
            page.locator("#log", has_text=text).wait_for()
        overview = site.context.new_page()
        overview.goto(page.url.removesuffix("/log"))
        overview.locator("#run-status[data-status=RUNNING]").wait_for()
        running.stdin.write("\n")
        running.stdin.flush()
        page.locator("#log-state", has_text="the run has ended").wait_for()
        overview.locator("#run-status[data-status=FINISHED]").wait_for()
        overview.close()
    finally:
        running.stdin.close()
        assert running.wait(30) == 0


def digits(site: Site) -> str:
    with open_store(str(site.root)) as store:
        return store.find_experiment("digits").experiment_id


def test_artifacts_are_shown_each_in_its_own_way(site):
    with open_store(str(site.root)) as store:
        run = next(run.info.run_id for run in store.search_runs([digits(site)], "tags.team = 'vision'"))
    page = site.open(f"/runs/{run}/artifacts")
    page.get_by_role("link", name="report.csv").click()
    page.locator(".preview tbody tr").nth(2).wait_for()
    assert page.locator(".preview tbody tr").count() == 3
    page.get_by_role("link", name="summary.json").click()
    assert '"classes": 3' in page.locator("pre.text").inner_text()
    page.get_by_role("link", name="figures/").click()
    page.get_by_role("link", name="confusion.png").click()
    assert page.locator("img.picture").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    page.get_by_role("link", name="report.html").click()
    assert page.frame_locator("iframe").locator("h1").inner_text() == "Report"


@pytest.mark.parametrize(
    ("printed", "page"),
    [
        ("/#/experiments/{e}/runs/{r}", "/runs/{r}"),
        ("/#/experiments/{e}", "/experiments/{e}"),
        ("/#/models/digits/versions/1", "/models/digits/1"),
    ],
)
def test_addresses_that_mlflow_prints_lead_to_the_page(site, printed, page):
    known = {"e": digits(site), "r": site.run_named("trial-01")}
    site.open(printed.format(**known)).wait_for_url("**" + page.format(**known))


def test_images_of_runs_stand_side_by_side(site):
    with open_store(str(site.root)) as store:
        runs = [run.info.run_id for run in store.search_runs([digits(site)], "tags.team = 'vision'")]
    page = site.open("/compare?" + "&".join(f"run={run}" for run in runs))
    images = page.locator("#image-grid img")
    assert images.count() == 2
    images.first.scroll_into_view_if_needed()
    assert images.first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 96


def test_keys_move_select_and_search(site):
    page = site.open("/runs?filter=run_name%20LIKE%20'trial-%25'")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert page.locator("tr.chosen").count() == 2
    page.keyboard.press("c")
    page.wait_for_url("**/compare?**")
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.wait_for_url("**/models")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"


def test_korean_is_spoken_to_who_asks_for_it(browser, shared):
    _, _, port = shared
    context = browser.new_context(locale="ko-KR")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    assert page.locator("h1").inner_text() == "실험"
    page.get_by_role("link", name="EN").click()
    wait_for_heading(page, "Experiments")
    page.reload()
    page.get_by_role("link", name="Models").click()
    wait_for_heading(page, "Models")  # the choice is remembered
    context.close()


def test_light_and_dark_follow_the_system_and_the_button(browser, shared):
    _, _, port = shared
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    colour = "getComputedStyle(document.body.parentElement).backgroundColor"
    page.goto(f"http://127.0.0.1:{port}/")
    dark = page.evaluate(colour)
    page.click("#theme")
    light = page.evaluate(colour)
    page.reload()
    assert page.evaluate(colour) == light != dark
    context.close()


def test_no_page_is_wider_than_the_window(browser, shared):
    _, root, port = shared
    with open_store(str(root)) as store:
        run, model = store.find_run("trial-01"), store.find_run("logistic-1")
    context = browser.new_context()
    page = context.new_page()
    for path in ("/", "/runs", f"/runs/{run}", f"/runs/{run}/charts", f"/runs/{model}/artifacts?path=model", f"/charts?run={run}",
                 f"/compare?run={run}&run={model}", "/models", "/models/digits", "/models/digits/1"):  # fmt: skip
        page.goto(f"http://127.0.0.1:{port}{path}")
        for width in (360, 1280, 2560):
            page.set_viewport_size({"width": width, "height": 800})
            for _ in range(100):  # charts are drawn anew after the window has its new width
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                if wide <= 0:
                    break
                page.wait_for_timeout(50)
            assert wide <= 0, (path, width)
    context.close()


def test_the_table_follows_what_is_logged_meanwhile(site):
    with open_store(str(site.root)) as store:
        experiment = store.create_experiment("going on")
        run = store.create_run(experiment, run_name="alive").info.run_id
        store.log_batch(run, [Metric("loss", 0.5, 1, 1)], [Param("a", "1")])
        page = site.open(f"/experiments/{experiment}")
        page.get_by_role("cell", name="0.5000", exact=True).wait_for()
        stop = threading.Event()

        def flood() -> None:
            with open_store(str(site.root)) as other:
                step = 2
                while not stop.wait(0.01):
                    other.log_batch(run, [Metric("loss", 0.25, step, step)])
                    step += 1

        writer = threading.Thread(target=flood)
        writer.start()
        try:
            page.get_by_role("cell", name="0.2500", exact=True).wait_for()
        finally:
            stop.set()
            writer.join()
        store.update_run(run, "FINISHED")
        page.get_by_text("FINISHED").wait_for()


# -- what must not happen

# Asked when all that was begun so far has had its turn: what images that cannot be had call comes in a task of its own.
PWNED = "new Promise((told) => requestAnimationFrame(() => setTimeout(() => told(window.pwned ?? null))))"


def test_code_in_names_notes_params_and_files_is_shown_and_never_runs(browser, tmp_path):
    root = tmp_path / "mlruns"
    run = sites.fill_with_evil(root)
    with serving(root) as (client, _):
        context = browser.new_context()
        site = Site(context, root, client.port)
        with open_store(str(root)) as store:
            experiment = store.search_experiments("name LIKE '%script%'")[0].experiment_id
            model = store.search_registered_models()[0].name
            runs = "&".join(f"run={item.info.run_id}" for item in store.search_runs([experiment]))
        shown = [f"/runs/{run}/artifacts?path={name}" for name in ("model", *sites.EVIL_FILES)]
        for path in ("/", f"/experiments/{experiment}", f"/experiments/{experiment}?group=params.text&c=tags.evil&c=params.text",
                     f"/runs?filter={sites.EVIL[0]}&c=params.{sites.EVIL[1]}&order={sites.EVIL[0]}", f"/?q={sites.EVIL[1]}", f"/runs/{run}",
                     f"/runs/{run}/charts", f"/runs/{run}/log", f"/charts?{runs}", f"/compare?{runs}", "/models",
                     f"/models/{model}", f"/models/{model}/1", f"/runs/{sites.EVIL[0]}", *shown):  # fmt: skip
            page = site.open(path.replace("#", "%23"))
            assert page.evaluate(PWNED) is None, path
        page = site.open(f"/runs/{run}/artifacts?path=evil.html")
        frame = page.frame_locator("iframe")
        assert frame.locator("h1").inner_text() == "html"  # it is there to be seen, and nothing in it ran
        assert page.evaluate(PWNED) is None
        for name in ("evil.html", "evil.svg"):  # opened by themselves too
            page = site.open(f"/runs/{run}/file?path={name}")
            assert page.evaluate("window.pwned ?? null") is None
        page = site.open(f"/runs/{run}")
        addresses = page.locator("a").evaluate_all("links => links.map((link) => link.protocol)")
        assert set(addresses) <= {"http:", "https:"}
        refused = [
            text
            for text in site.wrong
            if not re.search(r"sandboxed|Content Security Policy|violates the following", text)
        ]
        assert refused == []
        context.close()


def test_a_browser_logs_in_once_and_may_do_what_its_token_may(browser, tmp_path):
    root = tmp_path / "mlruns"
    with open_store(str(root)) as store:
        store.create_run("0", run_name="first")
    users = Users(str(tmp_path / "users.json"))
    token = users.add("reader", "read")
    with serving(root, auth=Auth(None, users), users=users) as (client, _):
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{client.port}/runs")
        page.fill("input[name=token]", "wrong" * 8)
        page.keyboard.press("Enter")
        page.get_by_text("No such token").wait_for()
        page.fill("input[name=token]", token)
        page.keyboard.press("Enter")
        page.get_by_text("reader · read only").wait_for()
        cookie = next(item for item in context.cookies() if item["name"].startswith("mlcli-") and item["httpOnly"])
        assert cookie["sameSite"] == "Strict"
        assert token not in cookie["value"]
        assert page.get_by_role("button", name="New experiment").count() == 0
        page.goto(f"http://127.0.0.1:{client.port}/runs")
        page.get_by_role("link", name="first").wait_for()
        answer = page.evaluate(
            "fetch('/do/create-experiment', {method: 'POST', body: new URLSearchParams({name: 'x'})}).then((answer) => answer.status)"
        )
        assert answer == 403
        page.get_by_role("button", name="Log out").click()
        page.locator("input[name=token]").wait_for()
        context.close()


# -- rollouts


@pytest.fixture(scope="module")
def rolled(filled: Path) -> Path:
    """Rollouts beside the runs: one that goes on, one that is invalid, one with a code for a reason, many long names."""
    names = [f"challenger-{number}-{'x' * 60}" for number in range(7)]
    arms = ", ".join(f"{{name: {name}, model: 'models:/digits/{number}'}}" for number, name in enumerate(names))
    shares = ", ".join(f"{name}: 10" for name in names)
    many = rollout_world.text("many", f"  ab: {{weights: {{champion: 30, {shares}}}}}\n")
    many = re.sub(r"candidates: .*", lambda _: f"candidates: [{arms}]", many)
    with open_store(str(filled)) as store:
        rollouts = Rollouts(store)
        for spec, lose in (
            (rollout_world.text("ramp", control="'<script>alert(1)</script>'"), 0.0),
            (rollout_world.text("lossy", rollout_world.AB), 0.5),
            (many, 0.0),
        ):
            name = rollout_world.started(rollouts, spec).name
            controller, world = Controller(rollouts, name, "test"), rollout_world.Traffic(rollouts, name)
            for _ in range(3):
                world.come(400, rate=(0.3,) * 8, errors=(0.02,) * 8, milliseconds=(5.0,) * 8, lose=lose)
                verdict = controller.turn() if name != "ramp" else None
                assert verdict is None or verdict.verdict.verdict != "ROLLBACK"
        lifecycle.pause(rollouts, "many", reason="<img src=x onerror=alert(1)> 이유")
    return filled


def test_a_rollout_page_follows_weights_and_its_end_without_being_loaded_again(site, rolled):
    page = site.open("/rollouts/ramp")
    row = page.get_by_role("row", name=re.compile("^challenger .*churn.2$"))
    assert row.get_by_role("cell").first.inner_text() == "10 %"
    page.evaluate("window.same = true")
    page.get_by_text("The file", exact=True).click()
    with open_store(str(rolled)) as store:
        rollouts = Rollouts(store)
        lifecycle.advance(rollouts, "ramp", actor="ann", reason="<b>enough</b>")
        row.get_by_role("cell", name="50 %", exact=True).wait_for()
        page.get_by_role("cell", name="<b>enough</b>").wait_for()
        assert page.locator("details[open]").count() == 1
        page.get_by_role("button", name="Pause").click()
        page.get_by_label("Reason").first.fill("let me look")
        lifecycle.abort(rollouts, "ramp", actor="ann")
        page.wait_for_timeout(3500)  # longer than until the next look: what is being typed is not taken away
        assert page.get_by_label("Reason").first.input_value() == "let me look"
        page.get_by_role("button", name="Cancel").first.click()
    page.locator(".facts-line", has_text="aborted").wait_for()
    assert page.get_by_role("button", name="Abort").count() == 0
    assert page.locator("[data-pace]").count() == 0  # what has ended is asked for no more
    assert page.evaluate("window.same") is True


# What a reader needs who sees badly or not at all; gives what is wrong.
ACCESS = """() => {
  const wrong = [];
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [.2126, .7152, .0722][n], 0);
  const behind = (one) => { for (; one; one = one.parentElement) {
    const rgb = numbers(getComputedStyle(one).backgroundColor); if (rgb.length === 3 || rgb[3] > .99) return rgb; } return [255, 255, 255]; };
  for (const one of document.querySelectorAll("main *")) {
    const style = getComputedStyle(one);
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.getClientRects().length || style.visibility === "hidden") continue;
    const ink = light(numbers(one.closest("svg") ? style.fill : style.color)), paper = light(behind(one));
    const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    let seen = 1; for (let up = one; up; up = up.parentElement) seen *= Number(getComputedStyle(up).opacity);
    if (ratio < 4.5 || seen < .99) wrong.push(`${ratio.toFixed(2)} ${seen} ${one.textContent.trim().slice(0, 40)}`);
  }
  const levels = [...document.querySelectorAll("main :is(h1, h2, h3)")].filter((one) => !one.closest("dialog")).map((one) => Number(one.tagName[1]));
  if (levels[0] !== 1 || levels.some((level, n) => n && level > levels[n - 1] + 1)) wrong.push(`headings ${levels}`);
  for (const table of document.querySelectorAll("main table")) if (!document.getElementById(table.getAttribute("aria-labelledby"))) wrong.push("a table without a name");
  for (const shape of document.querySelectorAll("main svg:not([aria-hidden])")) if (!shape.getAttribute("aria-label")) wrong.push("a picture without words");
  for (const box of document.querySelectorAll("main .scroll")) if (box.tabIndex < 0) wrong.push("a table that keys cannot move");
  return wrong;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_rollouts_are_read_by_who_sees_badly_and_by_keys(browser, shared, rolled, theme):
    context = browser.new_context(color_scheme=theme, locale="ko-KR", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    for path in ("/rollouts", "/rollouts/lossy", "/rollouts/many"):
        page.goto(f"http://127.0.0.1:{shared[2]}{path}")
        assert page.evaluate(ACCESS) == [], path
        for width in (390, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
    context.close()
