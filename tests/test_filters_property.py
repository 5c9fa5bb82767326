"""Random filters: what is printed is read back as the same tree, and no text, however hostile, does anything but fail."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcli import filters
from mlcli.errors import FilterSyntaxError, InvalidInput
from mlcli.filters import Comparison, FromNow, Group, Node, Not

KEYS = ("a", "b.c", "my key", "m/x", "ключ", "AND", "it's", "2")
TEXTS = ("CNN", "cnn", "CNN2", "0.1", "1e-1", "10", "it's", 'say "x"', "50%", "a_b", "a\\b", "", "Ünï", "ünÏ", "\\%")
NUMBERS = (0.0, 0.1, 0.5, 1.0, 10.0, -1.0, 1e300, float("inf"), float("-inf"))
PATTERNS = ("%", "C%", "c%", "%n%", "_NN", "CNN_", "50\\%", "a\\_b", "%\\\\%", "\\\\\\%", "ü%", "%1", "", "%'%")
MOMENTS = (0, 1000, 2000, 2500.5, FromNow(-86_400_000), FromNow(0), FromNow(500))
SPANS = (0, 1, 60_000, 999.5)

texts = st.sampled_from(TEXTS)
patterns = st.sampled_from(PATTERNS)


def every_test(entity: str, key: str, kind: str, *, wild: bool) -> st.SearchStrategy[Comparison]:
    """All tests that fit a column; ``wild`` takes any text or number instead of a few that meet each other."""
    any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
    text = any_text if wild else texts
    pattern = any_text.map(lambda value: value.replace("\\", "\\\\")) if wild else patterns
    number = st.floats(allow_nan=False) if wild else st.sampled_from(NUMBERS)
    scalars = {
        "number": number,
        "text": st.sampled_from(("0", "1", "01", "x")) if key == "experiment_id" else text,
        "moment": st.sampled_from(MOMENTS),
        "span": st.sampled_from(SPANS),
    }

    def comparing(operators: tuple[str, ...], value: st.SearchStrategy) -> st.SearchStrategy[Comparison]:
        return st.builds(lambda op, given: Comparison(entity, key, op, given, 0), st.sampled_from(operators), value)

    def several(value: st.SearchStrategy) -> st.SearchStrategy:
        return st.lists(value, min_size=1, max_size=3).map(tuple)

    missing = comparing(("IS NULL", "IS NOT NULL"), st.none())
    if kind in ("text", "id"):
        value = scalars["text"]
        some = comparing(("=", "!="), value) | comparing(("IN", "NOT IN"), several(value)) | missing
        return some if kind == "id" else some | comparing(("LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"), pattern)
    if kind == "param":
        return every_test(entity, key, "text", wild=wild) | every_test(entity, key, "number", wild=wild).filter(
            lambda test: "NAN" not in test.operator
        )
    value = scalars[kind]
    nan = comparing(("IS NAN", "IS NOT NAN"), st.none()) if kind == "number" else missing
    return (
        comparing(("=", "!=", "<", "<=", ">", ">="), value)
        | comparing(("IN", "NOT IN"), several(value))
        | comparing(("BETWEEN", "NOT BETWEEN"), st.tuples(value, value))
        | missing
        | nan
    )


def comparisons(grammar: filters.Grammar, *, wild: bool = False) -> st.SearchStrategy[Comparison]:
    any_key = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
    keys = any_key if wild else st.sampled_from(KEYS)
    columns = [
        keys.flatmap(lambda key, entity=entity, kind=kind: every_test(entity, key, kind, wild=wild))
        for entity, kind in (("metric", "number"), ("param", "param"), ("tag", "text"))
        if entity in grammar.entities.values()
    ]
    columns += [every_test("attribute", name, kind, wild=wild) for name, kind in grammar.attributes.items()]
    if "dataset" in grammar.entities.values():
        columns += [every_test("dataset", key, "text", wild=wild) for key in ("name", "digest", "context")]
    return st.one_of(columns)


def trees(grammar: filters.Grammar, *, wild: bool = False) -> st.SearchStrategy[Node]:
    return st.recursive(
        comparisons(grammar, wild=wild),
        lambda inner: (
            st.builds(Not, inner)
            | st.builds(Group, st.sampled_from(("AND", "OR")), st.lists(inner, min_size=2, max_size=3).map(tuple))
        ),
        max_leaves=6,
    )


def written(node: Node) -> str:
    """The tree as a filter."""
    if isinstance(node, Not):
        return f"NOT {written(node.term)}" if isinstance(node.term, (Comparison, Not)) else f"NOT {enclosed(node.term)}"
    if isinstance(node, Group):
        return f" {node.operator} ".join(enclosed(term) for term in node.terms)
    column = f"`{node.key}`" if node.entity == "attribute" else f"{node.entity}s.`{node.key.replace('`', '``')}`"
    if node.value is None:
        return f"{column} {node.operator}"
    if "LIKE" in node.operator:
        return f"{column} {node.operator} {value_written(node.value)} ESCAPE '\\'"
    if "BETWEEN" in node.operator:
        return f"{column} {node.operator} {' AND '.join(map(value_written, node.value))}"
    if "IN" in node.operator:
        return f"{column} {node.operator} ({', '.join(map(value_written, node.value))})"
    return f"{column} {node.operator} {value_written(node.value)}"


def enclosed(node: Node) -> str:
    return f"({written(node)})" if isinstance(node, Group) else written(node)


def value_written(value: object) -> str:
    if isinstance(value, FromNow):
        return f"{value.milliseconds:+d}ms"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def without_positions(node: Node) -> Node:
    if isinstance(node, Not):
        return Not(without_positions(node.term))
    if isinstance(node, Group):
        return Group(node.operator, tuple(map(without_positions, node.terms)))
    return node._replace(position=0)


@pytest.mark.parametrize("grammar", [filters.RUNS, filters.EXPERIMENTS], ids=lambda grammar: grammar.what)
def test_a_printed_tree_is_read_back_as_itself(grammar):
    @settings(max_examples=400, deadline=None)
    @given(trees(grammar, wild=True))
    def check(tree):
        assert without_positions(filters.parse(written(tree), grammar)) == tree

    check()


@settings(max_examples=400, deadline=None)
@given(trees(filters.RUNS))
def test_each_comparison_knows_where_it_stands(tree):
    text = written(tree)

    def check(node):
        if isinstance(node, Comparison):
            assert text[node.position :].startswith((f"`{node.key}`", f"{node.entity}s."))
        for term in [node.term] if isinstance(node, Not) else node.terms if isinstance(node, Group) else []:
            check(term)

    check(filters.parse(text))


PIECES = (
    "metrics.a params.`x` status = != > LIKE IN ( ) , 'a' 1 -2d NOT AND OR IS NULL BETWEEN ESCAPE '' ` ' \" ; -- . DESC"
).split()


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join))
def test_any_text_is_read_or_refused_at_a_place_within_it(text):
    for read in (filters.parse, lambda item: filters.parse_order([item])):
        try:
            read(text)
        except FilterSyntaxError as error:
            refused = error
        else:
            continue
        assert 0 <= refused.position <= len(text)
        assert refused.message
        assert refused.text == text


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        "NOT ",
        "'",
        "`",
        '"',
        "metrics.",
        "a.",
        "1",
        "1d",
        "-",
        "%",
        "status=''OR ",
        "a`",
        "1e",
        "((a",
        "''",
        "'a' 'b",
        "\\",
    ],
)
def test_work_grows_with_the_length_of_hostile_text_and_not_faster(unit):
    """Counts the lines of Python that run, so that a slow machine changes nothing; regexes are watched by their shape."""

    def lines_run(length: int) -> int:
        text = (unit * length)[:length]
        count = 0

        def trace(frame, event, arg):
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            filters.parse(text)
        except InvalidInput:
            pass
        finally:
            sys.settrace(before)
        return count

    assert lines_run(8000) <= 12 * lines_run(1000) + 1000


@pytest.mark.parametrize("unit", ["(", "'", "NOT ", "a OR ", "1", "%", "\U0001f600"])
def test_a_text_beyond_the_limit_is_refused_before_it_is_read(unit):
    with pytest.raises(InvalidInput, match="longer than 8192 bytes"):
        filters.parse(unit * 100_000)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_any_text_can_be_quoted(text: str) -> None:
    tree = filters.parse(f"tags.a = {filters.quoted(text)}")
    assert isinstance(tree, Comparison)
    assert tree.value == text


@given(st.text(alphabet="tags.ab =!<>'\"`orderbyORDERBY,();-01", max_size=40))
def test_a_choice_is_read_or_refused_and_reads_the_same_again(text: str) -> None:
    try:
        found = filters.choice(text)
    except InvalidInput:
        return
    assert filters.choice(found.filter) == (found.filter, ())
