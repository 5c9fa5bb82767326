"""Searches in a real store: MLflow's worked filters row by row, orders, pages, and the work that a search does."""

from __future__ import annotations

import base64
import json

import pytest

from mlcli.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType
from mlcli.errors import InvalidInput
from mlcli.store import Store, query
from mlcli.store.database import Sqlite

DAY = 86_400_000


@pytest.fixture
def worked(store: Store) -> Store:
    """The two runs of MLflow's worked filters."""
    first = store.create_run("0", run_name="A", start_time=1000).info.run_id
    store.log_batch(
        first,
        [Metric(key, value, 1) for key, value in (("acc", 0.9), ("my metric", 1), ("m/x", 2), ("nanm", float("nan")))],
        [Param("lr", "0.1"), Param("model", "CNN"), Param("my param", "x y")],
        [RunTag("team", "blue"), RunTag("my.tag", "v"), RunTag("dash-tag", "q")],
    )
    store.log_inputs(first, [DatasetInput(Dataset("dsA", "d1", "local", "{}"), {"mlflow.data.context": "train"})])
    second = store.create_run("0", run_name="B", start_time=2000).info.run_id
    store.log_batch(
        second,
        [Metric("acc", 0.5, 1), Metric("loss", float("inf"), 1)],
        [Param("lr", "0.2"), Param("model", "cnn2")],
        [RunTag("team", "red")],
    )
    for run_id in (first, second):
        store.update_run(run_id, status="FINISHED", end_time=5000)
    return store


def found(store: Store, text: str, order: tuple[str, ...] = ("run_name",), **options: object) -> str:
    return "".join(run.info.run_name for run in store.search_runs(filter_string=text, order_by=order, **options))


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", "AB"),
        ("metrics.acc > 0.5", "A"),
        ("metric.acc >= -1", "AB"),
        ("metrics.`my metric` = 1", "A"),
        ('metrics."my metric" = 1', "A"),
        ("metrics.'my metric' = 1", "A"),
        ("metrics.`m/x` = 2", "A"),
        ("metrics.nanm = 0", ""),
        ("metrics.nanm != 5", "A"),
        ("metrics.nanm < 5", ""),
        ("metrics.nanm IS NAN", "A"),
        ("metrics.acc IS NOT NAN", "AB"),
        ("metrics.loss > 1e300", "B"),
        ("params.lr = '0.1'", "A"),
        ('param.lr = "0.1"', "A"),
        ("parameters.lr='0.1'", "A"),
        ("params.model LIKE 'C%'", "A"),
        ("params.model like 'C%'", "A"),
        ("params.model ILIKE 'c%'", "AB"),
        ("params.`my param` = 'x y'", "A"),
        ("params.missing IS NULL", "AB"),
        ("params.`my param` IS NOT NULL", "A"),
        ("tags.team != 'blue'", "B"),
        ("tags.missing != 'x'", ""),
        ("tags.my.tag = 'v'", "A"),
        ("tags.mlflow.runName = 'A'", "A"),
        ("tags.`dash-tag` = 'q'", "A"),
        ("status = 'FINISHED'", "AB"),
        ("attributes.status = 'FINISHED'", "AB"),
        ("attribute.status = 'FINISHED'", "AB"),
        ("attr.status = 'FINISHED'", "AB"),
        ("run.status = 'FINISHED'", "AB"),
        ("status = 'finished'", ""),
        ("run_id IN ('a', 'b')", ""),
        ("run_id NOT IN ('a')", "AB"),
        ("run_name LIKE 'A%'", "A"),
        ("`run name` = 'A'", "A"),
        ("start_time > 0", "AB"),
        ("end_time > 0", "AB"),
        ("Created > 0", "AB"),
        ("start_time >= 1000.5", "B"),
        ("dataset.name = 'dsA'", "A"),
        ("datasets.name = 'dsA'", "A"),
        ("dataset.name IN ('dsA', 'x')", "A"),
        ("dataset.context = 'train'", "A"),
        ("metrics.acc > 0.4 and params.model = 'CNN'", "A"),
        ("metrics.acc > 0.4 AND", "AB"),
        ('params.model = "it\'s"', ""),
    ],
)
def test_mlflows_worked_filters_find_what_mlflow_finds(worked, text, runs):
    assert found(worked, text) == runs


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("metrics.acc IS NULL", ""),
        ("metrics.loss IS NULL", "A"),
        ("metrics.acc IN (0.9, 7)", "A"),
        ("metrics.acc NOT IN (0.9)", "B"),
        ("metrics.acc BETWEEN 0.5 AND 0.6", "B"),
        ("params.lr = 0.1", "A"),
        ("params.lr = 1e-1", "A"),
        ("params.lr > '0.15'", "B"),
        ("params.lr > 0.05", "AB"),
        ("params.model > 0", ""),
        ("params.model != 5", "AB"),
        ("params.model IN ('CNN', 'RNN')", "A"),
        ("params.model NOT LIKE 'C%'", "B"),
        ("tags.team IN ('blue', 'red')", "AB"),
        ("status IN ('FINISHED', 'FAILED')", "AB"),
        ("status NOT IN ('FINISHED')", ""),
        ("experiment = 'Default'", "AB"),
        ("experiment_name LIKE 'Def%'", "AB"),
        ("experiment_id = '0'", "AB"),
        ("experiment_id = 0", "AB"),
        ("experiment_id = '00'", ""),
        ("experiment_id != 'x'", "AB"),
        ("duration = 4s", "A"),
        ("duration < '3500ms'", "B"),
        ("start_time < '1971-01-01' AND start_time < -2d", "AB"),
        ("metrics.acc > 0.8 OR params.model = 'cnn2'", "AB"),
        ("NOT metrics.loss > 0", "A"),
        ("NOT (tags.team = 'blue' OR tags.team = 'red')", ""),
        ("NOT params.missing = 'x'", "AB"),
        ("tags.team = 'red' OR tags.team = 'blue' AND metrics.acc > 0.95", "B"),
        ("(tags.team = 'red' OR tags.team = 'blue') AND metrics.acc > 0.8", "A"),
        ("dataset.name IS NULL", "B"),
        ("artifact_uri LIKE '%/artifacts'", "AB"),
    ],
)
def test_the_language_goes_further_than_mlflows(worked, text, runs):
    assert found(worked, text) == runs


def test_artifact_uri_is_what_the_run_says(worked):
    uri = worked.search_runs(filter_string="run_name = 'A'")[0].info.artifact_uri
    assert found(worked, f"artifact_uri = '{uri}'") == "A"


def test_the_value_of_a_metric_is_its_latest(worked):
    run_id = worked.search_runs(filter_string="run_name = 'A'")[0].info.run_id
    worked.log_batch(run_id, [Metric("acc", 0.1, 2, step=5), Metric("acc", 0.99, 3, step=2)])
    assert found(worked, "metrics.acc = 0.1") == "A"
    assert found(worked, "metrics.acc > 0.9") == ""


@pytest.mark.parametrize(
    ("order", "runs"),
    [
        ((), "BA"),
        (("start_time",), "AB"),
        (("metrics.acc",), "BA"),
        (("metrics.acc DESC",), "AB"),
        (("metrics.loss",), "BA"),
        (("metrics.loss DESC",), "BA"),
        (("metrics.nanm",), "AB"),
        (("metrics.missing", "metrics.acc DESC"), "AB"),
        (("params.model",), "AB"),
        (("params.`my param` DESC",), "AB"),
        (("tags.team DESC",), "BA"),
        (("duration",), "BA"),
        (("metrics.acc", "metrics.acc DESC"), "BA"),
    ],
)
def test_runs_are_ordered_with_missing_values_last(worked, order, runs):
    assert found(worked, "", order) == runs


def test_params_are_ordered_as_text_as_mlflow_does(store):
    for value in ("10", "9", "1e1"):
        store.log_batch(store.create_run("0", run_name=value).info.run_id, params=[Param("depth", value)])
    assert found(store, "", ("params.depth",)) == "101e19"


def test_nan_comes_after_numbers_and_before_missing_in_both_directions(store):
    for name, value in (("n", float("nan")), ("h", float("inf")), ("l", float("-inf")), ("m", None), ("z", 0.0)):
        run_id = store.create_run("0", run_name=name).info.run_id
        store.log_batch(run_id, [] if value is None else [Metric("x", value, 1)])
    assert found(store, "", ("metrics.x",)) == "lzhnm"
    assert found(store, "", ("metrics.x DESC",)) == "hzlnm"


def test_pages_of_equal_runs_neither_repeat_nor_miss_any(store):
    made = {store.create_run("0", start_time=5).info.run_id for _ in range(23)}
    seen, token = [], None
    while True:
        page = store.search_runs(max_results=5, order_by=["metrics.none DESC"], page_token=token)
        seen += [run.info.run_id for run in page]
        token = page.token
        if token is None:
            break
    assert len(seen) == 23
    assert set(seen) == made
    assert seen == sorted(seen)


def test_long_tags_are_found_and_ordered_by_all_their_characters(store):
    for name in "abc":
        run_id = store.create_run("0", run_name=name).info.run_id
        store.log_batch(run_id, tags=[RunTag("note", "x" * 300 + name)])
    store.log_batch(store.create_run("0", run_name="s").info.run_id, tags=[RunTag("note", "x")])
    assert found(store, f"tags.note = '{'x' * 300}b'") == "b"
    assert found(store, f"tags.note IN ('{'x' * 300}b', 'x')") == "bs"
    assert found(store, "", ("tags.note DESC",)) == "cbas"


@pytest.mark.parametrize("value", ["'; DROP TABLE runs; --", "' OR '1'='1", '" OR ""="', ":p0", "%s", "?", "\\", "{r}"])
def test_values_and_names_are_never_sql(store, value):
    run_id = store.create_run("0", run_name="A").info.run_id
    store.log_batch(run_id, params=[Param("a", value)])
    store.create_run("0", run_name="B")
    written = "'" + value.replace("'", "''") + "'"
    assert found(store, f"params.a = {written}") == "A"
    assert found(store, f"params.{written} = 'x'") == ""
    assert found(store, "", (f"tags.{written}",)) != ""


def test_the_longest_filter_of_the_simplest_tests_is_not_too_much_for_the_database(worked):
    text = " OR ".join(["run_id=''"] * 629)
    assert 8000 < len(text) <= 8192
    assert found(worked, text) == ""
    assert found(worked, text.replace("OR", "AND")[:8100].rsplit(" AND", 1)[0]) == ""


def test_the_longest_list_is_not_too_much_for_the_database(worked):
    text = "run_name IN ('A'" + ",''" * 2700 + ")"
    assert found(worked, text) == "A"


def test_the_deepest_filter_is_not_too_much_for_the_database(worked):
    assert found(worked, "NOT (" * 24 + "run_name = 'A'" + ")" * 24) == "A"


def test_the_longest_order_is_not_too_much_for_the_database(worked):
    columns = [f"{entity}.k{index}" for index in range(10) for entity in ("metrics", "params", "tags")]
    assert found(worked, "params.lr IN ('0.1', '0.2')", tuple(columns)) == "BA"


def test_a_pattern_of_many_wildcards_ends_soon(store):
    """SQLite's LIKE goes back no further than to the last wildcard; one that goes back to all of them never ends here."""
    run_id = store.create_run("0", run_name="A").info.run_id
    store.log_batch(run_id, tags=[RunTag("t", "a" * 8000)])
    assert found(store, f"tags.t LIKE '{'%a' * 2000}%b'") == ""


# --- scope ------------------------------------------------------------------------------------------------------------


def test_the_view_chooses_active_and_deleted_runs(worked):
    worked.delete_run(worked.search_runs(filter_string="run_name = 'A'")[0].info.run_id)
    assert found(worked, "") == "B"
    assert found(worked, "", view_type=ViewType.DELETED_ONLY) == "A"
    assert found(worked, "", view_type=ViewType.ALL) == "AB"


def test_only_the_experiments_that_are_asked_for_are_searched(worked):
    other = worked.create_experiment("other")
    worked.create_run(other, run_name="C")
    assert found(worked, "") == "ABC"
    assert found(worked, "", experiment_ids=[other]) == "C"
    assert found(worked, "", experiment_ids=["0", other]) == "ABC"
    assert found(worked, "", experiment_ids=[]) == ""
    assert found(worked, "experiment = 'other'") == "C"


def test_an_unknown_view_is_refused():
    with pytest.raises(InvalidInput, match="no view"):
        query.runs("", [], None, "EVERYTHING", 0)


def test_a_relative_time_counts_from_the_time_of_the_search(store):
    search = query.runs("start_time > -2d", [], None, ViewType.ACTIVE_ONLY, 10 * DAY)
    for name, day in (("old", 7), ("new", 9)):
        store.create_run("0", run_name=name, start_time=day * DAY)
    keys = search.page(store.database.query, 10)
    assert store.database.query(f"SELECT name FROM runs WHERE id IN ({keys[0]})") == [("new",)]
    assert len(keys) == 1


def test_experiments_are_searched_by_name_tag_and_time(store):
    first = store.create_experiment("first", tags={"team": "blue"})
    second = store.create_experiment("Second", tags={"team": "red"})

    def ids(text: str, *order: str) -> list[str]:
        return [item.experiment_id for item in store.search_experiments(text, order)]

    assert ids("name = 'first'") == [first]
    assert ids("attribute.name LIKE 'S%'") == [second]
    assert ids("name ilike 's%'") == [second]
    assert ids("tags.team = 'blue' OR tags.team IS NULL", "experiment_id") == ["0", first]
    assert ids("NOT tags.team = 'blue'", "name") == ["0", second]
    assert ids(f"experiment_id IN ('{first}', '{second}')", "name DESC") == [first, second]
    assert ids("creation_time > -1h", "experiment_id DESC") == [second, first, "0"]
    with pytest.raises(InvalidInput):  # a FilterSyntaxError, unless it came over the network
        ids("attributes.name = 'first'")


# --- page tokens ------------------------------------------------------------------------------------------------------


def test_a_page_token_is_mlflows():
    assert json.loads(base64.b64decode(query.encode_token(120))) == {"offset": 120}
    assert query.decode_token(query.encode_token(120)) == 120
    assert query.decode_token(base64.b64encode(b'{"offset": 7}').decode()) == 7


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_the_first_page(token):
    assert query.decode_token(token) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"5",
        b"x",
        b"\xff",
        b"[" * 100_000,
        *(b'{"offset": %s}' % value for value in (b"0", b"-1", b'"1"', b"true", b"1e3", b"9" * 20)),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_token_with_other_content_is_refused(content):
    with pytest.raises(InvalidInput, match="not a page token"):
        query.decode_token(base64.b64encode(content).decode())


@pytest.mark.parametrize("token", ["x", "ü", "!!!!", "e30", "\ud800"])
def test_a_token_that_is_no_base64_is_refused(token):
    with pytest.raises(InvalidInput, match="not a page token"):
        query.decode_token(token)


# --- work -------------------------------------------------------------------------------------------------------------


def many(count: int) -> Sqlite:
    """A store of ``count`` runs: a param that 1 of 100 has, one that half have, one that two have; a metric and a tag."""
    database = Sqlite(":memory:")
    runs = range(1, count + 1)
    with database.transaction():
        database.execute_many(
            "INSERT INTO runs (id, run_id, experiment, name, status, start_time) VALUES (?, ?, 0, ?, 'FINISHED', ?)",
            [(run, f"{run:032x}", f"run-{run}", run) for run in runs],
        )
        values = {
            "rare": lambda run: str(run * 7919 % 100),
            "half": lambda run: str(run % 2),
            "two": lambda run: str(int(run in (5, count // 2))),
        }
        database.execute_many(
            "INSERT INTO params VALUES (?, ?, ?, NULL)",
            [(run, key, value(run)) for run in runs for key, value in values.items()],
        )
        database.execute_many(
            "INSERT INTO series (run, key, value, step, timestamp) VALUES (?, 'score', ?, 0, 0)",
            [(run, run * 104_729 % count / count) for run in runs],
        )
        database.execute_many("INSERT INTO tags VALUES (?, 'name', ?)", [(run, f"run-{run}") for run in runs])
    database.optimize()
    return database


def steps(database: Sqlite, text: str, order: list[str], wanted: int = 10) -> int:
    """How many steps SQLite's machine takes for a page, in hundreds."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    search = query.runs(text, order, None, ViewType.ACTIVE_ONLY, 0)
    database._raw.set_progress_handler(step, 100)
    try:
        search.page(database.query, wanted)
    finally:
        database._raw.set_progress_handler(None, 0)
    return count


@pytest.fixture(scope="module")
def stores():
    opened = {count: many(count) for count in (2000, 20_000)}
    yield opened
    for database in opened.values():
        database.close()


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("params.rare = '3' and metrics.score >= 0.65", ["metrics.score DESC"]),
        ("params.half = '1'", ["metrics.score DESC"]),
        ("params.two = '1'", ["metrics.score DESC"]),
        ("params.two = '2'", ["metrics.score"]),
        ("params.half = '1' and params.rare = '3'", []),
        ("params.two = '1' or metrics.score > 0.9999", ["metrics.score"]),
        ("tags.name = 'run-77'", []),
        ("params.rare IS NOT NULL and NOT params.half = '1'", []),
        ("params.missing IS NULL", []),
        ("metrics.score BETWEEN 0.5 AND 0.500001", []),
        ("run_id = 'x'", ["metrics.score"]),
        ("", []),
        ("", ["metrics.score"]),
        ("", ["metrics.missing"]),
        ("", ["tags.name"]),
    ],
)
def test_ten_times_the_runs_are_not_ten_times_the_work(stores, text, order):
    few, many = (steps(database, text, order) for database in stores.values())
    # Counting is bounded by a number, not by the store; reading each run would take thousands more.
    assert many <= 3 * few + 400


def test_a_page_costs_a_handful_of_statements(stores):
    asked = []

    def fetch(sql, params):
        asked.append(sql)
        return stores[20_000].query(sql, params)

    search = query.runs("params.rare = '3' and metrics.score >= 0.65", ["metrics.score DESC"], [0], "ACTIVE_ONLY", 0)
    assert len(search.page(fetch, 10)) == 10
    assert len(asked) <= 9
