"""Random searches over random runs: what the database finds, and in which order, is what plain Python finds."""

from __future__ import annotations

import math
import os
import re
import sqlite3
from functools import cmp_to_key
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import in_postgres
from test_filters_property import KEYS, NUMBERS, TEXTS, trees, written

from mlcli import filters
from mlcli.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    LifecycleStage,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunStatus,
    ViewType,
)
from mlcli.filters import Comparison, FromNow, Group, Not, OrderTerm
from mlcli.store import query
from mlcli.store.absorb import number
from mlcli.store.database import Database, Sqlite

NOW = 86_400_000
EXAMPLES = int(os.environ.get("SEARCH_EXAMPLES", "60"))  # thousands were tried; few of them are tried again each time
ROOT = "/store"


# --- the evaluator: what a search means, in plain Python over entities ------------------------------------------------


def holds(node: filters.Node | None, record: Run | Experiment, names: dict[str, str]) -> bool:
    if node is None:
        return True
    if isinstance(node, Not):
        return not holds(node.term, record, names)
    if isinstance(node, Group):
        return (all if node.operator == "AND" else any)(holds(term, record, names) for term in node.terms)
    values = values_of(record, node.entity, node.key, names)
    if node.operator == "IS NULL":
        return not values
    return any(passes(node, value) for value in values)


def values_of(record: Run | Experiment, entity: str, key: str, names: dict[str, str]) -> list:
    """The values that a record has in a column: none, one, or (datasets) several."""
    if isinstance(record, Experiment):
        if entity == "tag":
            return [record.tags[key]] if key in record.tags else []
        return [getattr(record, key)]
    if entity == "dataset":
        inputs = record.inputs.dataset_inputs
        if key == "context":
            return [item.tags["mlflow.data.context"] for item in inputs if "mlflow.data.context" in item.tags]
        return [getattr(item.dataset, key) for item in inputs]
    if entity != "attribute":
        owned = {"metric": record.data.metrics, "param": record.data.params, "tag": record.data.tags}[entity]
        return [owned[key]] if key in owned else []
    info = record.info
    derived = {
        "experiment_name": names[info.experiment_id],
        "duration": None if info.end_time is None else info.end_time - info.start_time,
    }
    value = derived[key] if key in derived else getattr(info, key)
    return [] if value is None else [value]


def passes(test: Comparison, value: object) -> bool:
    if test.operator == "IS NOT NULL":
        return True
    operands = test.value if isinstance(test.value, tuple) and not isinstance(test.value, FromNow) else (test.value,)
    operands = tuple(NOW + item.milliseconds if isinstance(item, FromNow) else item for item in operands)
    if test.entity == "param" and not isinstance(operands[0], str):
        value = number(value)
    return positive(test.positive_operator, value, operands) != test.is_negative


def positive(operator: str, value, operands: tuple) -> bool:
    if operator == "IS NAN":
        return math.isnan(value)
    if value is None:
        return False
    if operator == "LIKE":
        return like(operands[0], value)
    if operator == "ILIKE":
        return like(operands[0].lower(), value.lower())
    if operator == "BETWEEN":
        return operands[0] <= value <= operands[1]
    first = operands[0]
    return {
        "=": lambda: value == first,
        "IN": lambda: value in operands,
        "<": lambda: value < first,
        "<=": lambda: value <= first,
        ">": lambda: value > first,
        ">=": lambda: value >= first,
    }[operator]()


def like(pattern: str, value: str) -> bool:
    pieces = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    return (
        re.fullmatch("".join(wild.get(piece, re.escape(piece[-1])) for piece in pieces), value, re.DOTALL) is not None
    )


def ordered(records: list, terms: list[OrderTerm], last: list[OrderTerm], names: dict[str, str]) -> list:
    def compare(left, right) -> int:
        for term in [*terms, *last]:
            ours = values_of(left, term.entity, term.key, names)
            theirs = values_of(right, term.entity, term.key, names)
            ranks = [2 if not some else 1 if some[0] != some[0] else 0 for some in (ours, theirs)]
            if ranks[0] != ranks[1]:
                return ranks[0] - ranks[1]
            if ranks[0] == 0 and ours != theirs:
                one, other = sortable(ours[0], term.key), sortable(theirs[0], term.key)
                return -1 if (one < other) != term.descending else 1
        return 0

    return sorted(records, key=cmp_to_key(compare))


def sortable(value, key: str):
    if key == "experiment_id":
        return int(value)
    return value.encode() if isinstance(value, str) else value


# --- random stores ----------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    experiments: list[Experiment]
    runs: list[Run]


def some_of(values: st.SearchStrategy) -> st.SearchStrategy[dict]:
    return st.dictionaries(st.sampled_from(KEYS), values, max_size=4)


datasets = st.lists(
    st.builds(
        lambda name, digest, context: DatasetInput(
            Dataset(name, digest, "local", "{}"), {} if context is None else {"mlflow.data.context": context}
        ),
        st.sampled_from(TEXTS),
        st.sampled_from(TEXTS),
        st.none() | st.sampled_from(TEXTS),
    ),
    max_size=2,
    unique_by=lambda item: item.dataset[:2],
).map(tuple)

EXPERIMENT_NAMES = ("CNN", "cnn", "ünÏ")
LOCATIONS = {"0": None, "1": "/elsewhere/", "2": None}


@st.composite
def stores(draw) -> Drawn:
    experiments = [
        Experiment(str(key), name, "", draw(stages), draw(st.integers(0, 3)) * 1000, draw(times), draw(some_of(texts)))
        for key, name in enumerate(EXPERIMENT_NAMES)
    ]
    count = draw(st.integers(0, 8))
    runs = []
    for index in range(count):
        experiment = draw(st.sampled_from("012"))
        run_id = f"{draw(st.integers(0, 9))}{index}"
        start = draw(times)
        end = draw(st.none() | times.map(lambda time, start=start: start + time))
        base = (LOCATIONS[experiment] or f"{ROOT}/{experiment}").rstrip("/")
        info = RunInfo(
            run_id,
            experiment,
            draw(st.sampled_from(TEXTS)),
            draw(st.sampled_from(TEXTS)),
            draw(st.sampled_from(RunStatus.ALL)),
            start,
            end,
            f"{base}/{run_id}/artifacts",
            draw(stages),
        )
        metrics = some_of(st.sampled_from((*NUMBERS, float("nan"))))
        runs.append(
            Run(info, RunData(draw(metrics), draw(some_of(texts)), draw(some_of(texts))), RunInputs(draw(datasets)))
        )
    return Drawn(experiments, runs)


times = st.sampled_from((0, 1000, 2000, 2500, NOW))
texts = st.sampled_from((*TEXTS, "x" * 210 + "a", "x" * 210 + "B", "nan", "inf", "NaN"))
stages = st.sampled_from((LifecycleStage.ACTIVE, LifecycleStage.ACTIVE, LifecycleStage.DELETED))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """A database of each kind, which :func:`fill` fills anew for every example."""
    opened = Sqlite(":memory:") if request.param == "sqlite" else in_postgres(tmp_path).database
    yield opened
    opened.close()


def fill(database: Database, store: Drawn) -> None:
    with database.transaction():
        for table in ("runs", "datasets", "experiments"):
            database.execute(f"DELETE FROM {table}")
        for item in store.experiments:
            database.execute(
                "INSERT INTO experiments VALUES (:id, :name, :location, :stage, :created, :updated)",
                {
                    "id": int(item.experiment_id),
                    "name": item.name,
                    "location": LOCATIONS[item.experiment_id],
                    "stage": item.lifecycle_stage,
                    "created": item.creation_time,
                    "updated": item.last_update_time,
                },
            )
            database.execute_many(
                "INSERT INTO experiment_tags VALUES (?, ?, ?)",
                [(int(item.experiment_id), *pair) for pair in item.tags.items()],
            )
        for run, (info, data, inputs, *_) in enumerate(store.runs, 1):
            database.execute_many(
                "INSERT INTO runs (id, run_id, experiment, name, user_id, status, start_time, end_time, lifecycle_stage)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        run,
                        info.run_id,
                        int(info.experiment_id),
                        info.run_name,
                        info.user_id,
                        info.status,
                        info.start_time,
                        info.end_time,
                        info.lifecycle_stage,
                    )
                ],
            )
            database.execute_many("INSERT INTO tags VALUES (?, ?, ?)", [(run, *pair) for pair in data.tags.items()])
            database.execute_many(
                "INSERT INTO params VALUES (?, ?, ?, ?)",
                [(run, key, value, number(value)) for key, value in data.params.items()],
            )
            database.execute_many(
                "INSERT INTO series (run, key, value, is_nan, step, timestamp) VALUES (?, ?, ?, ?, 0, 0)",
                [
                    (run, key, 0.0 if value != value else value, int(value != value))
                    for key, value in data.metrics.items()
                ],
            )
            for item in inputs.dataset_inputs:
                dataset = database.insert(
                    "INSERT INTO datasets (name, digest, source_type, source) VALUES (:name, :digest, '', '')",
                    {"name": item.dataset.name, "digest": item.dataset.digest},
                )
                database.execute_many("INSERT INTO inputs VALUES (?, ?)", [(run, dataset)])
                database.execute_many(
                    "INSERT INTO input_tags VALUES (?, ?, ?, ?)",
                    [(run, dataset, *pair) for pair in item.tags.items()],
                )


# --- random orders ----------------------------------------------------------------------------------------------------


def orders(grammar: filters.Grammar) -> st.SearchStrategy[list[OrderTerm]]:
    owned = [entity for entity in ("metric", "param", "tag") if entity in grammar.entities.values()]
    term = st.builds(OrderTerm, st.sampled_from(owned), st.sampled_from(KEYS), st.booleans()) | st.builds(
        OrderTerm, st.just("attribute"), st.sampled_from(list(grammar.attributes)), st.booleans()
    )
    return st.lists(term, max_size=3, unique_by=lambda item: item[:2])


def order_written(term: OrderTerm) -> str:
    prefix = "" if term.entity == "attribute" else f"{term.entity}s."
    return f"{prefix}`{term.key}`{' DESC' if term.descending else ''}"


# --- the properties ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(250, 4000, 64_000), (1, 2, 3)], ids=["usual bounds", "tiny bounds"])
def _bounds(request, monkeypatch):
    """Tiny bounds make small stores take every way that large ones take."""
    monkeypatch.setattr(query, "_BOUNDS", request.param)


class Search(NamedTuple):
    tree: filters.Node | None
    order: list[OrderTerm]
    experiments: list[int] | None
    view: str
    size: int


searches = st.builds(
    Search,
    st.none() | trees(filters.RUNS),
    orders(filters.RUNS),
    st.none() | st.lists(st.sampled_from((0, 1, 2)), max_size=3, unique=True),
    st.sampled_from((ViewType.ACTIVE_ONLY, ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)),
    st.integers(1, 4),
)


@pytest.mark.usefixtures("_bounds")
def test_runs_are_found_and_ordered_as_plain_python_does(database):
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(stores(), st.lists(searches, min_size=4, max_size=4))
    def check(store, several):
        fill(database, store)
        for search in several:
            check_search(store, database, search)

    check()


def check_search(store: Drawn, database: Database, wanted: Search) -> None:
    names = {item.experiment_id: item.name for item in store.experiments}
    stage = {ViewType.ACTIVE_ONLY: "active", ViewType.DELETED_ONLY: "deleted"}.get(wanted.view)
    seen = [
        run
        for run in store.runs
        if (stage is None or run.info.lifecycle_stage == stage)
        and (wanted.experiments is None or int(run.info.experiment_id) in wanted.experiments)
        and holds(wanted.tree, run, names)
    ]
    last = [OrderTerm("attribute", "start_time", True), OrderTerm("attribute", "run_id", False)]
    expected = [run.info.run_id for run in ordered(seen, wanted.order, last, names)]
    text = "" if wanted.tree is None else written(wanted.tree)
    order = [order_written(term) for term in wanted.order]
    search = query.runs(text, order, wanted.experiments, wanted.view, NOW, root=ROOT)
    id_of = {key: run.info.run_id for key, run in enumerate(store.runs, 1)}
    whole = [id_of[row[0]] for row in database.query(search.sql, search.params)]
    pages = []
    for offset in range(0, len(store.runs) + 2, wanted.size):
        page = search.page(database.query, wanted.size, offset)
        assert len(page) <= wanted.size
        pages += [id_of[key] for key in page]
    assert (text, order, whole) == (text, order, expected)
    assert (text, order, pages) == (text, order, expected)


def test_experiments_are_found_and_ordered_as_plain_python_does(database):
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(
        stores(),
        st.none() | trees(filters.EXPERIMENTS),
        orders(filters.EXPERIMENTS),
        st.sampled_from((ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)),
    )
    def check(store, tree, order, view):
        stage = {ViewType.ACTIVE_ONLY: "active", ViewType.DELETED_ONLY: "deleted"}.get(view)
        seen = [
            item
            for item in store.experiments
            if (stage is None or item.lifecycle_stage == stage) and holds(tree, item, {})
        ]
        last = [OrderTerm("attribute", "creation_time", True), OrderTerm("attribute", "experiment_id", False)]
        expected = [int(item.experiment_id) for item in ordered(seen, order, last, {})]
        text = "" if tree is None else written(tree)
        search = query.experiments(text, [order_written(term) for term in order], view, NOW)
        fill(database, store)
        assert (text, search.page(database.query, 10)) == (text, expected)

    check()


def test_the_memory_database_of_these_tests_is_sqlite_as_users_have_it():
    """The properties say something about SQLite only if its LIKE minds case, as the store's connection sets it."""
    database = Sqlite(":memory:")
    try:
        assert database.query("SELECT 'a' LIKE 'A', ulower('Ü'), sqlite_version()") == [
            (0, "ü", sqlite3.sqlite_version)
        ]
    finally:
        database.close()
