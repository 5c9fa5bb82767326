"""The search language: what it reads, what it refuses, and what it then says."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time

import pytest

from mlcli import filters
from mlcli.errors import FilterSyntaxError, InvalidInput
from mlcli.filters import EXPERIMENTS, RUNS, Comparison, FromNow, Group, Not, OrderTerm


def one(text: str, grammar: filters.Grammar = RUNS) -> tuple:
    """The only comparison of a filter, without its position."""
    tree = filters.parse(text, grammar)
    assert isinstance(tree, Comparison)
    return tree[:4]


def refusal(text: str, grammar: filters.Grammar = RUNS) -> FilterSyntaxError:
    with pytest.raises(FilterSyntaxError) as caught:
        filters.parse(text, grammar)
    return caught.value


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_filter_is_no_filter(text):
    assert filters.parse(text) is None


@pytest.mark.parametrize("spelling", ["metric", "metrics"])
def test_metrics_have_two_spellings(spelling):
    assert one(f"{spelling}.acc > 0.5") == ("metric", "acc", ">", 0.5)


@pytest.mark.parametrize("spelling", ["param", "params", "parameter", "parameters"])
def test_params_have_four_spellings(spelling):
    assert one(f'{spelling}.lr = "0.1"') == ("param", "lr", "=", "0.1")


@pytest.mark.parametrize("spelling", ["", "attribute.", "attributes.", "attr.", "run."])
def test_attributes_need_no_prefix(spelling):
    assert one(f"{spelling}status = 'FINISHED'") == ("attribute", "status", "=", "FINISHED")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Created", "start_time"),
        ("created", "start_time"),
        ("`run name`", "run_name"),
        ("`Run name`", "run_name"),
        ("attributes.`Run Name`", "run_name"),
        ("experiment", "experiment_name"),
    ],
)
def test_attributes_have_second_names(spelling, name):
    assert one(f"{spelling} IS NULL")[1] == name


@pytest.mark.parametrize("key", ["`my metric`", '"my metric"', "'my metric'"])
def test_a_name_stands_in_any_quotes(key):
    assert one(f"metrics.{key} = 1") == ("metric", "my metric", "=", 1.0)


def test_a_bare_name_may_have_points_digits_and_any_letters():
    assert one("tags.mlflow.source.2.größe = 'x'")[1] == "mlflow.source.2.größe"


@pytest.mark.parametrize(
    ("text", "value"),
    [(".9", 0.9), ("1e-3", 0.001), ("-1", -1.0), ("+2.", 2.0), ("inf", float("inf")), ("-Infinity", float("-inf"))],
)
def test_numbers_are_read_in_every_usual_form(text, value):
    assert one(f"metrics.a >= {text}")[3] == value


def test_a_number_of_any_length_is_read():
    assert one("metrics.a < " + "9" * 6000)[3] == float("inf")


@pytest.mark.parametrize(
    ("text", "value"),
    [('"it\'s"', "it's"), ("'it''s'", "it's"), ('"say ""x"""', 'say "x"'), ("'a\\b'", "a\\b"), ("''", "")],
)
def test_a_quote_inside_a_text_is_the_other_one_or_written_twice(text, value):
    assert one(f"params.a = {text}")[3] == value


def test_and_binds_closer_than_or_and_not_closest():
    tree = filters.parse("status = 'a' OR status = 'b' AND NOT status = 'c'")
    a, b, c = (Comparison("attribute", "status", "=", text, place) for text, place in (("a", 0), ("b", 16), ("c", 37)))
    assert tree == Group("OR", (a, Group("AND", (b, Not(c)))))


def test_parentheses_decide():
    tree = filters.parse("(status = 'a' OR status = 'b') AND status = 'c'")
    assert isinstance(tree, Group)
    assert tree.operator == "AND"
    assert tree.terms[0].operator == "OR"


def test_words_of_the_language_may_be_in_any_case():
    text = "metrics.a > 1 and params.b like 'x%' or not tags.c is not null and params.d not in ('y')"
    assert filters.parse(text) == filters.parse(
        text.replace(" and ", " AND ")
        .replace(" or not ", " OR NOT ")
        .replace("like", "LIKE")
        .replace("is not null", "IS NOT NULL")
        .replace("not in", "NOT IN")
    )


def test_a_trailing_and_is_tolerated():
    assert one("metrics.acc > 0.4 AND") == ("metric", "acc", ">", 0.4)


def test_spaces_and_line_breaks_separate_alike():
    assert filters.parse("metrics.a>1\n\tAND metrics.b<2") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params.lr > 0.05", (">", 0.05)),
        ("params.lr > '0.05'", (">", 0.05)),
        ("params.lr = 0.1", ("=", 0.1)),
        ("params.lr = '0.1'", ("=", "0.1")),
        ("params.lr IN (0.1, 1)", ("IN", (0.1, 1.0))),
        ("params.lr IN ('0.1', 'auto')", ("IN", ("0.1", "auto"))),
        ("params.lr BETWEEN 0.1 AND 1", ("BETWEEN", (0.1, 1.0))),
        ("params.lr NOT BETWEEN '0.1' AND 1", ("NOT BETWEEN", (0.1, 1.0))),
    ],
)
def test_params_are_compared_as_numbers_where_a_number_is_asked_for(text, expected):
    assert one(text)[2:] == expected


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("-2d", -2 * 86_400_000),
        ("'-1h30m'", -5_400_000),
        ("-90s", -90_000),
        ("+1w", 7 * 86_400_000),
        ("-1.5h", -5_400_000),
        ("'-1h 30min'", -5_400_000),
        ("-250ms", -250),
    ],
)
def test_a_time_may_be_told_from_now(text, milliseconds):
    assert one(f"start_time > {text}")[3] == FromNow(milliseconds)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("'2026-11-01T12:00:00Z'", "2026-11-01T12:00:00+00:00"),
        ("'2026-11-01 12:00:00.250+02:00'", "2026-11-01T12:00:00.250+02:00"),
        ("'2026-11-01T12:00-0130'", "2026-11-01T12:00:00-01:30"),
        ("2026-11-01T12:00:00Z", "2026-11-01T12:00:00+00:00"),
    ],
)
def test_a_time_with_a_zone_is_that_moment(text, moment):
    expected = dt.datetime.fromisoformat(moment).timestamp() * 1000
    assert one(f"end_time < {text}")[3] == expected


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be set here")
def test_a_time_without_a_zone_is_local(monkeypatch):
    try:
        monkeypatch.setenv("TZ", "UTC-3")
        time.tzset()
        assert one("start_time >= '1970-01-02'")[3] == 86_400_000 - 3 * 3_600_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("5m", 300_000), ("'1h30m'", 5_400_000), ("90s", 90_000), ("1500", 1500), ("0.5s", 500)]
)
def test_a_duration_is_a_length_of_time_or_milliseconds(text, milliseconds):
    assert one(f"duration >= {text}")[3] == milliseconds


def test_a_pattern_escapes_only_what_it_is_told_to():
    assert one("params.a LIKE '50\\%'")[3] == "50\\\\%"
    assert one("params.a LIKE '50\\%' ESCAPE '\\'")[3] == "50\\%"
    assert one("params.a LIKE '50!%!!_\\' ESCAPE '!'")[3] == "50\\%!_\\\\"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "metrics.acc > '0.5'",
        "metrics.acc LIKE '0%'",
        "metrics.acc == 0.9",
        "metrics.acc <> 0.9",
        "metrics.m/x = 2",
        "acc > 0.5",
        "params.lr > 'high'",
        "params.model RLIKE 'C.*'",
        "params.model = CNN",
        "tags.dash-tag = 'q'",
        "tags.team = 5",
        "STATUS = 'FINISHED'",
        "Attributes.status = 'FINISHED'",
        "status > 'A'",
        "run_id IN ()",
        "run_id IN (1)",
        "run_id IN 'a'",
        "params.a IN ('x', 1)",
        "start_time > '0'",
        "start_time > 2d",
        "start_time > '2026-02-30'",
        "start_time > '12026-02-03'",
        "start_time LIKE '1%'",
        "duration > '5 parsecs'",
        "lifecycle_stage = 'active'",
        "experiment_id LIKE '1%'",
        "dataset.profile = 'x'",
        "status = 'a', status = 'b'",
        "status = 'a' -- comment",
        "status = 'a';",
        "metrics.acc >",
        "metrics.acc",
        "status",
        "1=1",
        "'CNN' = params.model",
        " ",
        "AND",
        "status = 'a' AND AND status = 'b'",
        "status = 'a' OR",
        "status = 'a' status = 'b'",
        "(status = 'a'",
        "status = 'a')",
        "NOT",
        "foo.bar = 'x'",
        "model.name = 'x'",
        "param.`lr` = `0.1`",
        "params. = 'x'",
        "params.`` = 'x'",
        "params.a = params.b",
        "params.a IS 'x'",
        "params.a IS NAN",
        "metrics.a = nan",
        "metrics.a BETWEEN 1",
        "metrics.a BETWEEN 1 OR 2",
        "params.a LIKE 5",
        "params.a LIKE 'x' ESCAPE 'ab'",
        "params.a LIKE 'x!y' ESCAPE '!'",
        "params.a LIKE 'x!' ESCAPE '!'",
        "status = 'a",
        "metrics.`a = 1",
        "params.a = 'x\0y'",
        "params.a = '\ud800'",
        "params.a = 0.1.2",
    ],
)
def test_what_makes_no_sense_is_refused(text):
    error = refusal(text)
    assert error.error_code == "INVALID_PARAMETER_VALUE"
    assert error.text == text
    assert 0 <= error.position <= len(text)


@pytest.mark.parametrize(
    ("text", "position", "message", "hint"),
    [
        ("params.model = CNN", 15, "a text in quotes", "text needs quotes: params.model = 'CNN'"),
        ("metrics.a > 0 AND acc > 0.5", 18, "unknown attribute 'acc'", "did you mean metrics.acc or params.acc"),
        ("acc > 0.5", 0, "run_id, run_name, user_id, status, artifact_uri, start_time, end_time", "metrics.acc"),
        ("statsu = 'x'", 0, "unknown attribute", "did you mean status?"),
        ("STATUS = 'x'", 0, "unknown attribute", "did you mean status?"),
        ("metrcs.acc > 1", 0, "runs have no 'metrcs'", "did you mean metrics.acc?"),
        ("foo.bar = 'x'", 0, "runs have no 'foo'", "use one of metrics, params, tags, attributes, datasets"),
        ("tags.dash-tag = 'q'", 9, "a name with - needs backticks", "write tags.`dash-tag`"),
        ("metrics.m/x = 2", 9, "a name with / needs backticks", "write metrics.`m/x`"),
        ("metrics.acc > '0.5'", 14, "expected a number", "drop the quotes: 0.5"),
        ("metrics.acc == 1", 12, "there is no operator ==", "write ="),
        ("metrics.acc <> 1", 12, "there is no operator <>", "write !="),
        ("metrics.acc LIKE '1'", 12, "LIKE does not go with metrics.acc", "use =, !=, >"),
        ("metrics.a = nan", 12, "expected a number", "IS NAN"),
        ("start_time > 2d", 13, "2d is a length of time", "-2d is that long ago"),
        ("lifecycle_stage = 'deleted'", 0, "unknown attribute", "chosen by the view"),
        ("'CNN' = params.model", 0, "expected a column", "the column stands on the left"),
        ("params.a = params.b", 11, "found params.b", "not with another column"),
        ("(status = 'a'", 0, "this ( is not closed", ""),
        ("status = 'a", 9, "this ' is not closed", ""),
        ("metrics.acc >", 13, "found the end", ""),
        ("params.a IN ('x', 1)", 13, "texts and numbers", "quote all of them, or none"),
    ],
)
def test_a_refusal_points_at_the_place_and_says_what_to_write(text, position, message, hint):
    error = refusal(text)
    assert error.position == position
    assert message in error.message
    assert hint in error.hint


def test_a_refusal_shows_the_filter_with_a_caret():
    assert str(refusal("status = 'a' AND acc > 1")).splitlines()[1:] == [
        "  status = 'a' AND acc > 1",
        "  " + " " * 17 + "^",
    ]


def test_a_refusal_of_a_long_filter_shows_the_surroundings_of_the_place_on_one_line():
    text = "status = 'a' AND\n" * 100 + "acc > 1 AND " + "status = 'b' AND " * 100
    _, shown, caret = str(refusal(text)).splitlines()
    assert shown[caret.index("^") :].startswith("acc > 1")
    assert len(shown) < 130


def test_fifty_levels_may_be_nested_and_no_more():
    assert filters.parse("(" * 49 + "status = 'a'" + ")" * 49) is not None
    assert "nested deeper than 50" in refusal("(" * 50 + "status = 'a'" + ")" * 50).message
    assert "nested deeper than 50" in refusal("NOT " * 50 + "status = 'a'").message


def test_many_parentheses_beside_each_other_are_not_deep():
    assert filters.parse(" OR ".join(["(status = 'a')"] * 200)) is not None


def test_the_limit_of_length_counts_bytes():
    with pytest.raises(InvalidInput, match="longer than 8192 bytes"):
        filters.parse(f"params.a = '{'ü' * 4100}'")


def test_a_filter_that_is_no_text_is_refused():
    with pytest.raises(InvalidInput, match="must be text, not int"):
        filters.parse(5)


def test_the_suggestion_machinery_is_not_loaded_for_filters_without_mistakes():
    code = "import sys; from mlcli import filters; filters.parse(\"metrics.a > 1\"); print('difflib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- experiments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 'a'", ("attribute", "name", "=", "a")),
        ("attribute.name LIKE 'a%'", ("attribute", "name", "LIKE", "a%")),
        ("name ilike 'a%'", ("attribute", "name", "ILIKE", "a%")),
        ("experiment_id IN ('1', '2')", ("attribute", "experiment_id", "IN", ("1", "2"))),
        ("creation_time > 5", ("attribute", "creation_time", ">", 5)),
        ("last_update_time > -1d", ("attribute", "last_update_time", ">", FromNow(-86_400_000))),
        ("tags.team = 'x'", ("tag", "team", "=", "x")),
        ("tag.team IS NOT NULL", ("tag", "team", "IS NOT NULL", None)),
    ],
)
def test_experiments_have_a_grammar_of_their_own(text, expected):
    assert one(text, EXPERIMENTS) == expected


@pytest.mark.parametrize(
    "text",
    ["attributes.name = 'a'", "attr.name = 'a'", "metrics.a > 1", "status = 'x'", "name > 'a'", "creation_time > '5'"],
)
def test_experiments_refuse_what_only_runs_have(text):
    refusal(text, EXPERIMENTS)


# --- order_by ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("metrics.acc", OrderTerm("metric", "acc", descending=False)),
        ("metrics.acc DESC", OrderTerm("metric", "acc", descending=True)),
        ("params.`my param` asc", OrderTerm("param", "my param", descending=False)),
        ("tag.team desc", OrderTerm("tag", "team", descending=True)),
        ("attributes.start_time", OrderTerm("attribute", "start_time", descending=False)),
        ("Created DESC", OrderTerm("attribute", "start_time", descending=True)),
        ("duration DESC", OrderTerm("attribute", "duration", descending=True)),
    ],
)
def test_an_order_is_a_column_and_a_direction(text, term):
    assert filters.parse_order([text]) == [term]


def test_a_column_named_twice_in_the_order_counts_once():
    terms = filters.parse_order(["metrics.a DESC", "status", "metric.a ASC"])
    assert terms == [OrderTerm("metric", "a", descending=True), OrderTerm("attribute", "status", descending=False)]


@pytest.mark.parametrize("given", [None, [], ()])
def test_no_order_is_an_empty_one(given):
    assert filters.parse_order(given) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "acc",
        "metrics.acc DOWN",
        "metrics.a, metrics.b",
        "dataset.name",
        "lifecycle_stage",
        "metrics.a = 1",
        "ASC",
    ],
)
def test_an_order_that_makes_no_sense_is_refused(text):
    with pytest.raises(FilterSyntaxError):
        filters.parse_order([text])


def test_more_columns_than_a_database_joins_are_refused():
    with pytest.raises(InvalidInput, match="31 columns; 30 are allowed"):
        filters.parse_order([f"metrics.m{index}" for index in range(31)])


# --- choices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", ())),
        ("tags.stage = 'ready'", ("tags.stage = 'ready'", ())),
        ("tags.stage=ready", ("tags.stage='ready'", ())),
        ("tags.score = 0.9 and name != iris", ("tags.score = '0.9' and name != 'iris'", ())),
        ("version_number > 3", ("version_number > 3", ())),
        (
            "tags.`order by` = 'order by' order by a, tags.b DESC",
            ("tags.`order by` = 'order by'", ("a", "tags.b DESC")),
        ),
        ("ORDER BY creation_timestamp", ("", ("creation_timestamp",))),
    ],
)
def test_a_choice_is_a_filter_and_an_order(text, expected):
    assert filters.choice(text) == expected


@pytest.mark.parametrize("text", ["order by", "order by a,", "order by a,,b", "tags.a = 'b", "a; b", 3])
def test_a_choice_that_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidInput):
        filters.choice(text)


def test_two_filters_hold_together():
    assert filters.both("a = 'or'", "b = 1") == "a = 'or' AND b = 1"
    assert filters.both("a = 1 or b = 2", "c = 3") == "(a = 1 or b = 2) AND c = 3"
    assert filters.both("", "c = 3") == filters.both("c = 3", " ") == "c = 3"
