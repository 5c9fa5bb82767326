"""A search as SQL: one text for SQLite and PostgreSQL, bound :named parameters, and the cheapest way to a page of it.

Each test of the filter becomes a predicate that is true or false, never NULL, so that NOT means what it says.

A page of runs can be had in two ways. *In order*: walk an index that has the order asked for (newest runs, or the values
of a metric, param or tag), test each run, stop when the page is full; cheap when many runs match. *From a condition*:
take the runs that an index gives for one condition, test them, sort them; cheap when that condition is rare. No
database knows beforehand which it is, for the statistics say how common values are on average, and one value in a
hundred is not the average. So :meth:`Query.page` asks the indexes, up to a bound that grows until one way is good enough.
"""

from __future__ import annotations

import binascii
import json
import math
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from mlcli import filters
from mlcli.entities import LifecycleStage, RunStatus, ViewType
from mlcli.errors import InvalidInput
from mlcli.filters import Comparison, FromNow, Group, Node, Not, OrderTerm

# Runs a statement and gives its rows: Database.query.
Fetch = Callable[[str, Mapping[str, Any]], Iterable[Sequence[Any]]]

# Measured on stores of 100,000 runs; only ratios matter.
_BOUNDS = (250, 4000, 64_000)  # how far a condition's runs are counted, step by step
_COUNTED_PER_MET = 40  # counting so many runs costs what testing one met in order does
_TAKEN_PER_LISTED = 10  # taking a run from a condition costs ten times passing one by with the condition as a list
_TAKEN_PER_READ = 3  # ... and three times reading and sorting everything
_UNCOUNTED = 4  # a condition that no index can count is taken to let one run of four pass
_MOST_COUNTS = 32  # a filter of more conditions than this is not worth asking about
_OPEN = ", ".join(f"'{status}'" for status in (RunStatus.RUNNING, RunStatus.SCHEDULED))
_SHORT = 200  # characters of a param or tag that its index of values holds
_TEXTS = ("param", "tag")
_CONTEXT = "mlflow.data.context"
_PROMPT = "mlflow.prompt.is_prompt"


class Query:
    """A search that is ready to run: ``sql`` is the whole answer in one statement, :meth:`page` a part of it, cheaply."""

    __slots__ = ("_search", "_sql", "params")

    def __init__(self, sql: str, params: Dict[str, Any], search: Optional[_RunSearch] = None) -> None:
        self._sql = sql
        self.params = params
        self._search = search

    @property
    def sql(self) -> str:
        return self._search.whole() if self._search else self._sql

    def page(self, fetch: Fetch, limit: int, offset: int = 0) -> List[int]:
        """Give the keys of rows ``offset`` to ``offset + limit`` of the answer, in its order."""
        statements = self._search.statements(fetch, limit + offset) if self._search else [self.sql]
        found: List[int] = []
        for statement in statements:
            bounds = {"page_limit": limit - len(found), "page_offset": offset}
            rows = fetch(f"{statement} LIMIT :page_limit OFFSET :page_offset", {**self.params, **bounds})
            more = [row[0] for row in rows]
            found += more
            if len(found) == limit or statement is statements[-1]:
                break
            if more:
                offset = 0
            elif offset:
                offset -= _count(fetch, statement, self.params)
        return found


def runs(
    filter_string: Optional[str],
    order_by: Optional[Sequence[str]],
    experiment_ids: Optional[Sequence[int]],
    view_type: str,
    now_ms: int,
    *,
    root: str = "",
) -> Query:
    """Search runs (``SELECT r.id``) in the experiments, None for all; ``root`` is where artifacts lie by default."""
    tree = filters.parse(filter_string, filters.RUNS)
    order = filters.parse_order(order_by, filters.RUNS)
    return _RunSearch(tree, order, experiment_ids, _stage(view_type), now_ms, root).query()


def experiments(filter_string: Optional[str], order_by: Optional[Sequence[str]], view_type: str, now_ms: int) -> Query:
    """Search experiments (``SELECT r.id``)."""
    tree = filters.parse(filter_string, filters.EXPERIMENTS)
    order = filters.parse_order(order_by, filters.EXPERIMENTS)
    text = _Text(_EXPERIMENTS, now_ms)
    where = [text.predicate(node) for node in _conjuncts(tree)]
    stage = _stage(view_type)
    if stage:
        where.append(f"r.lifecycle_stage = {text.bind(stage)}")
    return Query(text.select("experiments r", where, order), text.params)


def registered_models(filter_string: Optional[str], order_by: Optional[Sequence[str]], now_ms: int) -> Query:
    """Search registered models (``SELECT r.id``)."""
    return _search_models(filter_string, order_by, filters.REGISTERED_MODELS, "registered_models r", _MODELS, now_ms)


def model_versions(filter_string: Optional[str], order_by: Optional[Sequence[str]], now_ms: int) -> Query:
    """Search versions of registered models (``SELECT r.id``)."""
    source = "model_versions r JOIN registered_models m ON m.id = r.model"
    return _search_models(filter_string, order_by, filters.MODEL_VERSIONS, source, _VERSIONS, now_ms)


def logged_models(
    filter_string: Optional[str],
    order_by: Optional[Sequence[Union[str, Mapping[str, Any]]]],
    experiment_ids: Optional[Sequence[int]],
    datasets: Optional[Sequence[Mapping[str, Any]]],
    now_ms: int,
) -> Query:
    """Search logged models (``SELECT r.id``); of the metrics on ``datasets``, where some are named."""
    tree = filters.parse(filter_string, filters.LOGGED_MODELS)
    text = _LoggedText(now_ms, datasets or ())
    where = [text.predicate(node) for node in _conjuncts(tree)]
    where.append("r.lifecycle_stage = 'active'")
    if experiment_ids is not None:
        where.append(f"r.experiment IN ({text.bind_all(experiment_ids)})" if experiment_ids else "1 = 0")
    return Query(text.select("logged_models r", where, text.order(order_by or ())), text.params)


def _search_models(
    filter_string: Optional[str],
    order_by: Optional[Sequence[str]],
    grammar: filters.Grammar,
    source: str,
    kind: _Kind,
    now_ms: int,
) -> Query:
    text = _Text(kind, now_ms)
    where = [text.predicate(_prompts(node)) for node in _conjuncts(filters.parse(filter_string, grammar))]
    return Query(text.select(source, where, filters.parse_order(order_by, grammar)), text.params)


def _prompts(node: Node) -> Node:
    """A model without the tag of prompts is no prompt: MLflow's clients ask ``!= 'true'`` of every model."""
    if isinstance(node, Group):
        return Group(node.operator, tuple(_prompts(term) for term in node.terms))
    if isinstance(node, Not):
        return Not(_prompts(node.term))
    if (node.entity, node.key) == ("tag", _PROMPT) and (node.operator, str(node.value).lower()) in (
        ("!=", "true"),
        ("=", "false"),
    ):
        return Not(node._replace(operator="=", value="true"))
    return node


def encode_token(offset: int) -> str:
    """The token of the page that begins at ``offset``, as MLflow writes it."""
    return binascii.b2a_base64(json.dumps({"offset": offset}).encode(), newline=False).decode()


def decode_token(token: Optional[str]) -> int:
    """Read the offset out of a page token; no token is the first page."""
    if not token:
        return 0
    try:
        content = json.loads(binascii.a2b_base64(token.encode("ascii")))
    except (ValueError, AttributeError, RecursionError):
        content = None
    offset = content.get("offset") if isinstance(content, dict) else None
    if type(offset) is not int or not 0 < offset < 2**62:
        raise InvalidInput(
            f"{str(token)[:80]!r} is not a page token", hint="give the token of the page before as it came"
        )
    return offset


def _stage(view_type: str) -> str:
    stages = {
        ViewType.ACTIVE_ONLY: LifecycleStage.ACTIVE,
        ViewType.DELETED_ONLY: LifecycleStage.DELETED,
        ViewType.ALL: "",
    }
    if view_type not in stages:
        raise InvalidInput(f"{view_type!r} is no view", hint="one of " + ", ".join(stages))
    return stages[view_type]


def _count(fetch: Fetch, select: str, params: Mapping[str, Any], bound: int = 0) -> int:
    limit = f" LIMIT {bound}" if bound else ""
    return int(next(iter(fetch(f"SELECT count(*) FROM ({select}{limit}) AS counted", params)))[0])


def _conjuncts(tree: Optional[Node]) -> List[Node]:
    """The parts of a filter that all must hold."""
    if tree is None:
        return []
    if isinstance(tree, Group) and tree.operator == "AND":
        return [part for term in tree.terms for part in _conjuncts(term)]
    return [tree]


# --- tests and orders as text ----------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """How records of a kind lie in tables; ``{r}`` stands for the alias of the record's own table."""

    owner: str  # the column by which params, tags ... name their record
    tables: Mapping[str, str]  # entity -> table
    columns: Mapping[str, str]  # attribute -> expression
    nullable: FrozenSet[str]
    last_order: Tuple[Tuple[str, str], ...]  # attribute, order: what decides between equals


_RUNS = _Kind(
    owner="run",
    tables={"metric": "series", "param": "params", "tag": "tags"},
    columns={
        "run_id": "{r}.run_id",
        "run_name": "{r}.name",
        "user_id": "{r}.user_id",
        "status": "{r}.status",
        "start_time": "{r}.start_time",
        "end_time": "{r}.end_time",
        "duration": "({r}.end_time - {r}.start_time)",
        "experiment_id": "{r}.experiment",
        "experiment_name": "(SELECT e.name FROM experiments e WHERE e.id = {r}.experiment)",
        "artifact_uri": (
            "(SELECT rtrim(COALESCE(e.artifact_location, CAST(:root AS TEXT) || '/' || CAST(e.id AS TEXT)), '/')"
            " || '/' || {r}.run_id || '/artifacts' FROM experiments e WHERE e.id = COALESCE({r}.home, {r}.experiment))"
        ),
    },
    nullable=frozenset(("end_time", "duration")),
    last_order=(("start_time", "r.start_time DESC"), ("run_id", "r.run_id")),
)

_EXPERIMENTS = _Kind(
    owner="experiment",
    tables={"tag": "experiment_tags"},
    columns={
        "name": "{r}.name",
        "experiment_id": "{r}.id",
        "creation_time": "{r}.creation_time",
        "last_update_time": "{r}.last_update_time",
    },
    nullable=frozenset(),
    last_order=(("creation_time", "r.creation_time DESC"), ("experiment_id", "r.id")),
)


_MODEL_TIMES = {"creation_timestamp": "{r}.creation_time", "last_updated_timestamp": "{r}.last_updated_time"}

_MODELS = _Kind(
    owner="model",
    tables={"tag": "registered_model_tags"},
    columns={"name": "{r}.name", **_MODEL_TIMES},
    nullable=frozenset(),
    last_order=(("name", "r.name"),),
)

_VERSIONS = _Kind(
    owner="version",
    tables={"tag": "model_version_tags"},
    columns={
        "name": "m.name",
        "version_number": "{r}.version",
        "run_id": "{r}.run_id",
        "source_path": "{r}.source",
        "current_stage": "{r}.stage",
        "status": "{r}.status",
        "user_id": "{r}.user_id",
        "model_id": "{r}.model_id",
        **_MODEL_TIMES,
    },
    nullable=frozenset(),
    last_order=(
        ("last_updated_timestamp", "r.last_updated_time DESC"),
        ("name", "m.name"),
        ("version_number", "r.version DESC"),
    ),
)

_LOGGED_MODELS = _Kind(
    owner="model",
    tables={"metric": "logged_model_metrics", "param": "logged_model_params", "tag": "logged_model_tags"},
    columns={
        "name": "{r}.name",
        "model_id": "{r}.model_id",
        "model_type": "{r}.model_type",
        "status": "{r}.status",
        "source_run_id": "{r}.source_run_id",
        "experiment_id": "{r}.experiment",
        **_MODEL_TIMES,
    },
    nullable=frozenset(),
    last_order=(("creation_timestamp", "r.creation_time DESC"), ("model_id", "r.model_id")),
)


class _Text:
    """Writes the pieces of statements over one kind of record and gathers the values bound in them."""

    def __init__(self, kind: _Kind, now_ms: int) -> None:
        self.kind = kind
        self.now_ms = now_ms
        self.params: Dict[str, Any] = {}

    def bind(self, value: object) -> str:
        name = f"p{len(self.params)}"
        self.params[name] = self.now_ms + value.milliseconds if isinstance(value, FromNow) else value
        return f":{name}"

    def bind_all(self, values: Iterable[object]) -> str:
        return ", ".join(self.bind(value) for value in values)

    # Filters

    def predicate(self, node: Node, record: str = "r.id") -> str:
        """A test of the record ``r``; ``record`` is its key, perhaps known before its row is read."""
        if isinstance(node, Group):
            return "(" + f" {node.operator} ".join(self.predicate(term, record) for term in node.terms) + ")"
        if isinstance(node, Not):
            return f"NOT ({self.predicate(node.term, record)})"
        if node.entity == "attribute":
            return self.attribute(node, "r")
        source, owner, where = self.rows(node)
        negation = "NOT " if node.operator == "IS NULL" else ""
        return f"{negation}EXISTS (SELECT 1 FROM {source} WHERE {' AND '.join([f'{owner} = {record}', *where])})"

    def attribute(self, test: Comparison, alias: str) -> str:
        column = self.kind.columns[test.key].format(r=alias)
        if test.operator.startswith("IS "):
            return f"{column} {test.operator}"
        tested = self.tested(column, test)
        return f"({column} IS NOT NULL AND {tested})" if test.key in self.kind.nullable else tested

    def rows(self, test: Comparison) -> Tuple[str, str, List[str]]:
        """The rows that pass a test: their tables, the column of their record, the conditions."""
        if test.entity == "dataset" and test.key != "context":
            return "inputs i JOIN datasets x ON x.id = i.dataset", "i.run", self.value_tests(test, "x", test.key)
        if test.entity == "dataset":
            return "input_tags x", "x.run", [f"x.key = '{_CONTEXT}'", *self.value_tests(test, "x")]
        where = [f"x.key = {self.bind(test.key)}", *self.value_tests(test, "x")]
        return f"{self.kind.tables[test.entity]} x", f"x.{self.kind.owner}", where

    def value_tests(self, test: Comparison, alias: str, column: str = "value") -> List[str]:
        """What a row, known to be there, has to pass."""
        if test.operator in ("IS NULL", "IS NOT NULL"):
            return []
        if test.positive_operator == "IS NAN":
            return [f"{alias}.is_nan = {int(not test.is_negative)}"]
        if test.entity == "metric":
            tested = f"{alias}.is_nan = 0 AND {self.compared(f'{alias}.value', test)}"
            return [f"NOT ({tested})" if test.is_negative else tested]
        first = test.value[0] if isinstance(test.value, tuple) else test.value
        if test.entity == "param" and not isinstance(first, str):
            tested = self.tested(f"{alias}.number", test)
            return [f"({alias}.number IS NULL OR {tested})" if test.is_negative else tested]
        return [self.tested(f"{alias}.{column}", test)]

    def tested(self, column: str, test: Comparison) -> str:
        compared = self.compared(column, test)
        return f"NOT ({compared})" if test.is_negative else compared

    def compared(self, column: str, test: Comparison) -> str:
        operator = test.positive_operator
        values = test.value if isinstance(test.value, tuple) and not isinstance(test.value, FromNow) else (test.value,)
        if test.entity == "attribute" and test.key == "experiment_id":
            bound = [self.bind(_experiment_key(value)) for value in values]
        else:
            bound = [self.bind(value) for value in values]
        if operator == "IN":
            return f"{column} IN ({', '.join(bound)})"
        if operator == "BETWEEN":
            return f"{column} BETWEEN {bound[0]} AND {bound[1]}"
        if operator == "LIKE":
            return f"{column} LIKE {bound[0]} ESCAPE '\\'"
        if operator == "ILIKE":
            return f"ulower({column}) LIKE ulower({bound[0]}) ESCAPE '\\'"
        return f"{column} {operator} {bound[0]}"

    # Orders

    def select(self, source: str, where: Sequence[str], order: Sequence[OrderTerm], *, first: str = "") -> str:
        """A statement over ``source``, which has the record as ``r``; ``first`` orders before the terms do."""
        joins, columns = [], [first] if first else []
        for place, term in enumerate(order):
            join, column = self.ordered(term, f"o{place}")
            joins.append(join)
            columns.append(column)
        named = {term.key for term in order if term.entity == "attribute"}
        columns += [column for key, column in self.kind.last_order if key not in named]
        return (
            f"SELECT r.id FROM {source}{''.join(joins)}"
            f" WHERE {' AND '.join(where) or '1 = 1'} ORDER BY {', '.join(columns)}"
        )

    def ordered(self, term: OrderTerm, alias: str) -> Tuple[str, str]:
        """The join that brings an order's values, and the order: missing last, NaN before missing."""
        direction = "DESC" if term.descending else "ASC"
        if term.entity == "attribute":
            last = " NULLS LAST" if term.key in self.kind.nullable else ""
            return "", f"{self.kind.columns[term.key].format(r='r')} {direction}{last}"
        join = (
            f" LEFT JOIN {self.kind.tables[term.entity]} {alias}"
            f" ON {alias}.{self.kind.owner} = r.id AND {alias}.key = {self.bind(term.key)}"
        )
        nan = f"{alias}.is_nan NULLS LAST, " if term.entity == "metric" else ""
        return join, f"{nan}{alias}.value {direction} NULLS LAST"


class _LoggedText(_Text):
    """Logged models have several points of a metric: of several runs, on several datasets."""

    def __init__(self, now_ms: int, datasets: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(_LOGGED_MODELS, now_ms)
        self.datasets = datasets

    def rows(self, test: Comparison) -> Tuple[str, str, List[str]]:
        source, owner, where = super().rows(test)
        if test.entity == "metric" and self.datasets:
            where.append("(" + " OR ".join(self.on_dataset(_dataset(given)) for given in self.datasets) + ")")
        return source, owner, where

    def on_dataset(self, dataset: Tuple[str, str]) -> str:
        name, digest = dataset
        named = f"x.dataset_name = {self.bind(name)}"
        return f"({named} AND x.dataset_digest = {self.bind(digest)})" if digest else named

    def order(self, order_by: Sequence[Union[str, Mapping[str, Any]]]) -> List[OrderTerm]:
        terms: Dict[Tuple[object, ...], OrderTerm] = {}
        for item in [order_by] if isinstance(order_by, str) else order_by:
            given = {"field_name": item} if isinstance(item, str) else item
            if not isinstance(given, Mapping) or not isinstance(given.get("field_name"), str):
                raise InvalidInput("order_by has texts, or maps with a field_name", hint="such as metrics.accuracy")
            (term,) = filters.parse_order([given["field_name"]], filters.LOGGED_MODELS)
            if given.get("dataset_name"):
                term = term._replace(dataset=_dataset(given))
                if term.entity != "metric":
                    raise InvalidInput(f"only metrics are ordered by dataset, not {given['field_name']!r}")
            term = term._replace(descending=term.descending or given.get("ascending") is False)
            terms.setdefault((term.entity, term.key, term.dataset), term)
        if len(terms) > filters.MAX_ORDER_TERMS:
            raise InvalidInput(f"order_by has {len(terms)} columns; {filters.MAX_ORDER_TERMS} are allowed")
        return list(terms.values())

    def ordered(self, term: OrderTerm, alias: str) -> Tuple[str, str]:
        if term.entity != "metric":
            return super().ordered(term, alias)
        where = f"x.model = r.id AND x.key = {self.bind(term.key)}"
        if term.dataset[0]:
            where += f" AND {self.on_dataset(term.dataset)}"
        last = f"FROM logged_model_metrics x WHERE {where} ORDER BY x.timestamp DESC, x.step DESC, x.value DESC LIMIT 1"
        direction = "DESC" if term.descending else "ASC"
        return "", f"(SELECT x.is_nan {last}) NULLS LAST, (SELECT x.value {last}) {direction} NULLS LAST"


def _dataset(given: Mapping[str, Any]) -> Tuple[str, str]:
    name, digest = given.get("dataset_name"), given.get("dataset_digest") or ""
    if not isinstance(name, str) or not name or not isinstance(digest, str):
        raise InvalidInput("a dataset needs its dataset_name, a text", hint="and may have a dataset_digest")
    return name, digest


def _experiment_key(value: object) -> int:
    """The integer key of an experiment's id; -1, which none has, for what cannot be one."""
    text = str(value)
    return int(text) if text.isdigit() and len(text) < 19 and str(int(text)) == text else -1


# --- the cheapest way to a page of runs ------------------------------------------------------------------------------


class _Sources(NamedTuple):
    operator: str  # AND: any part will do | OR: all parts together
    parts: List[_Source]


_Source = Union[str, _Sources]


class _Condition(NamedTuple):
    """A part of the search that runs may be taken from; ``in_walk``: the index walked in order sees to it anyway."""

    node: Optional[Node]  # None: the experiments
    source: _Source
    in_walk: bool

    @property
    def listing(self) -> Optional[str]:
        """The statement that gives exactly the runs that meet the condition."""
        return self.source if isinstance(self.source, str) else None


class _RunSearch:
    def __init__(
        self,
        tree: Optional[Node],
        order: Sequence[OrderTerm],
        experiments: Optional[Sequence[int]],
        stage: str,
        now_ms: int,
        root: str,
    ) -> None:
        self.text = _Text(_RUNS, now_ms)
        self.text.params["root"] = root
        self.conjuncts = _conjuncts(tree)
        self.order = order
        self.experiments = experiments
        self.stage = stage
        self.first = order[0] if order else OrderTerm("attribute", "start_time", descending=True)

    def query(self) -> Query:
        return Query("", self.text.params, self)

    def statements(self, fetch: Fetch, needed: int) -> List[str]:
        """The statements that give the runs in order when read one after another, chosen for ``needed`` runs."""
        can_walk = self.can_walk(fetch)
        conditions = self.conditions()
        if not conditions or (can_walk and all(condition.in_walk for condition in conditions)):
            return self.walk({}) if can_walk else [self.whole()]
        listed: Dict[Optional[Node], str] = {}
        for bound, next_bound in zip(_BOUNDS, (*_BOUNDS[1:], 0)):
            total, counted = _sizes(fetch, [condition.source for condition in conditions], self.text.params, bound)
            # What has more than the bound has somewhere between it and all: the middle, as ratios go.
            sizes = [size if size < bound else max(bound, math.isqrt(bound * total)) for size, _ in counted]
            met = self.met(needed, total, conditions, sizes)
            size, selects = min(counted, key=lambda pair: pair[0])
            take = size < bound and size * (_TAKEN_PER_LISTED if can_walk else _TAKEN_PER_READ) < (
                met if can_walk else total
            )
            tested = size if take else met
            listed = {
                condition.node: condition.listing
                for condition, each in zip(conditions, sizes)
                if condition.listing and each < min(bound, tested * _TAKEN_PER_LISTED)
                if take or not condition.in_walk
            }
            if take:
                return [self.from_condition(selects, listed)]
            if size < bound or (can_walk and met * _COUNTED_PER_MET <= next_bound):
                break
        return self.walk(listed) if can_walk else [self.whole()]

    def met(self, needed: int, total: int, conditions: Sequence[_Condition], sizes: Sequence[int]) -> int:
        """How many runs a walk is likely to meet until it has ``needed`` that pass."""
        met = needed
        for condition, size in zip(conditions, sizes):
            met = met if condition.in_walk else met * max(1, total // max(1, size))
        if len(conditions) < len(self.conjuncts):
            met *= _UNCOUNTED
        return min(met, total)

    # Scope and tests

    def scope(self, alias: str, *, walking: bool = False) -> List[str]:
        where = []
        if self.stage:
            where.append(f"{alias}.lifecycle_stage = {self.text.bind(self.stage)}")
        if self.experiments is not None and len(self.experiments) == 1:
            where.append(f"{alias}.experiment = {self.text.bind(self.experiments[0])}")
        elif self.experiments:
            # The plus keeps the index of each experiment's runs out of it: it has the order of no two of them.
            plus = "+" if walking else ""
            where.append(f"{plus}{alias}.experiment IN ({self.text.bind_all(self.experiments)})")
        elif self.experiments is not None:
            where.append("1 = 0")
        return where

    def tests(self, nodes: Iterable[Node], listed: Mapping[Optional[Node], str], record: str = "r.id") -> List[str]:
        """Predicates for ``nodes``; a condition of ``listed`` is gathered once and looked up, in memory, from then on."""
        # The plus keeps the list from becoming where the statement begins.
        known = [f"+{record} IN ({select})" for select in listed.values()]
        return known + [self.text.predicate(node, record) for node in nodes if node not in listed]

    # One way: everything

    def whole(self) -> str:
        return self.text.select("runs r", self.scope("r") + self.tests(self.conjuncts, {}), self.order)

    # Another: along an index that has the order

    def can_walk(self, fetch: Fetch) -> bool:
        """Whether an index has the order that is asked for."""
        if self.first.entity == "attribute":
            return self.first.key == "start_time" and bool(self.stage)
        if self.first.entity not in _TEXTS:
            return True
        table = _RUNS.tables[self.first.entity]
        long_one = f"SELECT 1 FROM {table} x WHERE x.key = {self.text.bind(self.first.key)} AND {_is_long('x')}"
        return not _count(fetch, long_one, self.text.params, 1)

    def walk(self, listed: Mapping[Optional[Node], str]) -> List[str]:
        """Statements that meet the runs in order, one after another."""
        first = self.first
        if first.entity == "attribute":
            where = self.scope("r", walking=True) + self.tests(self.conjuncts, listed)
            return [self.text.select("runs r", where, self.order)]
        own = [  # the index walked sees to these
            node
            for node in self.conjuncts
            if isinstance(node, Comparison) and (node.entity, node.key) == (first.entity, first.key)
        ]
        rest = [node for node in self.conjuncts if node not in own]
        wants_none = [test.operator == "IS NULL" for test in own]
        statements = []
        if not any(wants_none):
            statements += [self.walk_values(first, own, rest, nan, listed) for nan in _nan_phases(first, own)]
        if all(wants_none):
            has_none = Comparison(first.entity, first.key, "IS NULL", None, 0)
            where = self.scope("r", walking=True) + self.tests([has_none, *rest], listed)
            statements.append(self.text.select("runs r", where, self.order[1:]))
        return statements

    def walk_values(
        self,
        term: OrderTerm,
        own: Sequence[Comparison],
        rest: Sequence[Node],
        nan: Optional[int],
        listed: Mapping[Optional[Node], str],
    ) -> str:
        """Walk the runs that have a metric, param or tag, in the order of its values."""
        where = [f"v.key = {self.text.bind(term.key)}"]
        if nan is not None:
            where.append(f"v.is_nan = {nan}")
        if term.entity in _TEXTS:
            where.append(f"{_is_short('v')}")
        for test in own:
            where += self.text.value_tests(test, "v")
        where += [*self.tests(rest, listed, "v.run"), "r.id = v.run", *self.scope("r", walking=True)]
        source = f"{_RUNS.tables[term.entity]} v CROSS JOIN runs r"
        first = f"v.value {'DESC' if term.descending else 'ASC'}"
        return self.text.select(source, where, self.order[1:], first=first)

    # A third: from the runs that an index gives for a condition

    def from_condition(self, selects: Sequence[str], listed: Mapping[Optional[Node], str]) -> str:
        others = {node: select for node, select in listed.items() if [select] != selects}
        where = [*self.tests(self.conjuncts, others, "c.run"), "r.id = c.run", *self.scope("r")]
        return self.text.select(f"({' UNION '.join(selects)}) c CROSS JOIN runs r", where, self.order)

    def conditions(self) -> List[_Condition]:
        first = self.first
        found = []
        for node in self.conjuncts:
            source = self.source(node)
            if source is not None and len(_parts(source)) <= _MOST_COUNTS:
                in_walk = isinstance(node, Comparison) and (node.entity, node.key) == (first.entity, first.key)
                found.append(_Condition(node, source, in_walk))
        if self.experiments is not None:
            source = f"SELECT x.id AS run FROM runs x WHERE {' AND '.join(self.scope('x'))}"
            in_walk = first.entity == "attribute" and len(self.experiments) == 1
            found.append(_Condition(None, source, in_walk))
        return found

    def source(self, node: Node) -> Optional[_Source]:
        """Statements over indexes that give all runs which can pass ``node``, and perhaps more; None without an index."""
        if isinstance(node, Not):
            return None
        if isinstance(node, Comparison):
            return self.select_of(node)
        parts = [self.source(term) for term in node.terms]
        known = [part for part in parts if part is not None]
        complete = len(known) == len(parts)
        return _Sources(node.operator, known) if known and (complete or node.operator == "AND") else None

    def select_of(self, test: Comparison) -> Optional[str]:
        if test.is_negative or test.operator in ("IS NULL", "LIKE", "ILIKE"):
            return None
        if test.entity != "attribute":
            source, owner, where = self.text.rows(test)
            values = test.value if isinstance(test.value, tuple) else (test.value,)
            if test.entity in _TEXTS and test.operator != "IS NOT NULL" and isinstance(values[0], str):
                lengths = {len(str(value)) > _SHORT for value in values}
                if len(lengths) > 1:
                    return None
                where.append(_is_long("x") if lengths.pop() else f"{_is_short('x')}")
            distinct = "DISTINCT " if test.entity == "dataset" else ""
            return f"SELECT {distinct}{owner} AS run FROM {source} WHERE {' AND '.join(where) or '1 = 1'}"
        if test.operator not in ("=", "IN") and test.key != "start_time":
            return None
        if test.key in ("run_id", "experiment_id"):
            return f"SELECT x.id AS run FROM runs x WHERE {self.text.attribute(test, 'x')}"
        if test.key == "experiment_name":
            named = self.text.compared("e.name", test)
            return (
                f"SELECT x.id AS run FROM runs x WHERE x.experiment IN (SELECT e.id FROM experiments e WHERE {named})"
            )
        if test.key == "start_time" and self.stage:
            stage = f"x.lifecycle_stage = {self.text.bind(self.stage)}"
            return f"SELECT x.id AS run FROM runs x WHERE {stage} AND {self.text.attribute(test, 'x')}"
        values = test.value if isinstance(test.value, tuple) else (test.value,)
        if test.key == "status" and RunStatus.ENDED.isdisjoint(map(str, values)):
            # The index of open runs is found by its own words only.
            return f"SELECT x.id AS run FROM runs x WHERE x.status IN ({_OPEN}) AND {self.text.attribute(test, 'x')}"
        return None


def _is_long(alias: str) -> str:
    """The words of the partial indexes of params and tags."""
    return f"length({alias}.value) > {_SHORT}"


def _is_short(alias: str) -> str:
    return f"length({alias}.value) <= {_SHORT}"


def _nan_phases(term: OrderTerm, own: Sequence[Comparison]) -> Tuple[Optional[int], ...]:
    """Which parts of a metric's index to walk: the values, then NaN where the filter lets it through."""
    if term.entity != "metric":
        return (None,)
    if any(not test.is_negative and test.operator not in ("IS NAN", "IS NOT NULL") for test in own):
        return (0,)
    return (0, 1)


def _sizes(
    fetch: Fetch, sources: Sequence[_Source], params: Mapping[str, Any], bound: int
) -> Tuple[int, List[Tuple[int, List[str]]]]:
    """About how many runs there are; of each source how many it gives, and the statements to take them from.

    Each statement is counted up to ``bound``, all of them in one.
    """
    columns = ["(SELECT COALESCE(max(id), 0) FROM runs)"]
    columns += [
        f"(SELECT count(*) FROM ({select} LIMIT {bound}) AS counted)" for source in sources for select in _parts(source)
    ]
    counts = iter([int(count) for count in next(iter(fetch("SELECT " + ", ".join(columns), params)))])
    return next(counts), [_size(source, counts) for source in sources]


def _parts(source: _Source) -> List[str]:
    return [source] if isinstance(source, str) else [select for part in source.parts for select in _parts(part)]


def _size(source: _Source, counts: Iterator[int]) -> Tuple[int, List[str]]:
    if isinstance(source, str):
        return next(counts), [source]
    sizes = [_size(part, counts) for part in source.parts]
    if source.operator == "AND":
        return min(sizes, key=lambda pair: pair[0])
    return sum(size for size, _ in sizes), [select for _, selects in sizes for select in selects]
