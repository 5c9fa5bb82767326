"""The search language: a filter such as ``metrics.acc > 0.9 AND params.model = 'CNN'`` read into a tree. Knows no SQL.

    filter := "" | any [AND]                         a trailing AND is tolerated, as in MLflow
    any    := all (OR all)*
    all    := one (AND one)*
    one    := NOT one | "(" any ")" | test
    test   := column (= | != | > | >= | < | <=) value
            | column [NOT] (LIKE | ILIKE) text [ESCAPE character]
            | column [NOT] IN "(" value ("," value)* ")"
            | column [NOT] BETWEEN value AND value
            | column IS [NOT] (NULL | NAN)
    column := [entity "."] key                       the key bare (letters, digits, _ and .) or in `..`, ".." or '..'

Whatever MLflow accepts means here what it means there. A quote inside a quoted text is written twice. What a column is
compared with depends on the kind of the column:

    metric                number    0.9  -1  1e-3  inf
    param                 text, or a number (then compared as numbers): params.lr > 0.05
    tag, dataset, text    text      'CNN'  "it's"
    start_time, end_time  moment    milliseconds since 1970, -2d (from now), '2026-11-01', '2026-11-01T12:00:00Z'
    duration              span      milliseconds, 5m, '1h30m', 90s; only a run that has ended has one

A moment without a zone is local time. Meaning: a test holds when *some value is there* and passes it; the negative
operators (!=, NOT IN, NOT LIKE, NOT BETWEEN) hold when some value is there and does not pass. Only IS NULL holds for
what is missing. NaN passes no test but IS NAN, a param that is no finite number no comparison with a number.
NOT holds exactly where what follows it does not.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

from mlcli.errors import FilterSyntaxError, InvalidInput

MAX_BYTES = 8 * 1024
MAX_DEPTH = 50
MAX_ORDER_TERMS = 30  # SQLite joins at most 64 tables

NUMBER, PARAM, TEXT, ID, MOMENT, SPAN, COUNT = "number", "param", "text", "id", "moment", "span", "count"


class FromNow(NamedTuple):
    """A moment relative to the time of the search; negative is the past."""

    milliseconds: int


Scalar = Union[float, str, FromNow]
# Of BETWEEN and IN: a tuple. Of the IS family: None. Of LIKE: the pattern, in which \ escapes %, _ and itself.
Value = Union[Scalar, Tuple[Scalar, ...], None]


class Comparison(NamedTuple):
    """One test of one column; ``operator`` is upper case with single spaces: ``=``, ``NOT IN``, ``IS NULL``."""

    entity: str  # metric | param | tag | attribute | dataset
    key: str
    operator: str
    value: Value
    position: int

    @property
    def is_negative(self) -> bool:
        return self.operator in POSITIVE

    @property
    def positive_operator(self) -> str:
        """The operator without its negation: ``=`` for ``!=``, ``IN`` for ``NOT IN``."""
        return POSITIVE.get(self.operator, self.operator)


class Not(NamedTuple):
    term: Node


class Group(NamedTuple):
    operator: str  # AND | OR
    terms: Tuple[Node, ...]


Node = Union[Comparison, Not, Group]


class OrderTerm(NamedTuple):
    entity: str
    key: str
    descending: bool
    dataset: Tuple[str, str] = ("", "")  # of a metric of a logged model: the name and digest of what it was measured on


POSITIVE = {
    "!=": "=",
    "NOT IN": "IN",
    "NOT LIKE": "LIKE",
    "NOT ILIKE": "ILIKE",
    "NOT BETWEEN": "BETWEEN",
    "IS NOT NAN": "IS NAN",
}


class Grammar(NamedTuple):
    """The columns of one kind of record."""

    what: str
    entities: Mapping[str, str]  # spelling -> entity
    attributes: Mapping[str, str]  # name -> kind
    aliases: Mapping[str, str]  # other spellings of attributes
    hints: Mapping[str, str]  # what to say to names that are no attributes


RUNS = Grammar(
    what="runs",
    entities={
        "metrics": "metric",
        "params": "param",
        "tags": "tag",
        "attributes": "attribute",
        "datasets": "dataset",
        "metric": "metric",
        "param": "param",
        "parameter": "param",
        "parameters": "param",
        "tag": "tag",
        "attribute": "attribute",
        "attr": "attribute",
        "run": "attribute",
        "dataset": "dataset",
    },
    attributes={
        "run_id": TEXT,
        "run_name": TEXT,
        "user_id": TEXT,
        "status": TEXT,
        "artifact_uri": TEXT,
        "start_time": MOMENT,
        "end_time": MOMENT,
        "duration": SPAN,
        "experiment_id": ID,
        "experiment_name": TEXT,
    },
    aliases={
        "experiment": "experiment_name",
        "created": "start_time",
        "Created": "start_time",
        "run name": "run_name",
        "Run name": "run_name",
        "Run Name": "run_name",
    },
    hints={"lifecycle_stage": "deleted runs are chosen by the view: --view deleted_only | all (run_view_type)"},
)

EXPERIMENTS = Grammar(
    what="experiments",
    entities={"tags": "tag", "attribute": "attribute", "tag": "tag"},
    attributes={"name": TEXT, "experiment_id": ID, "creation_time": MOMENT, "last_update_time": MOMENT},
    aliases={},
    hints={"lifecycle_stage": "deleted experiments are chosen by the view: --view deleted_only | all (view_type)"},
)

_MODEL_TIMES = {"creation_timestamp": MOMENT, "last_updated_timestamp": MOMENT}
_MODEL_TIME_ALIASES = {
    "timestamp": "last_updated_timestamp",
    "last_update_time": "last_updated_timestamp",
    "creation_time": "creation_timestamp",
    "creation_timestamp_ms": "creation_timestamp",
    "last_updated_timestamp_ms": "last_updated_timestamp",
}
_OF_MODELS = {"tags": "tag", "attributes": "attribute", "tag": "tag", "attribute": "attribute", "attr": "attribute"}

REGISTERED_MODELS = Grammar(
    what="registered models",
    entities=_OF_MODELS,
    attributes={"name": TEXT, **_MODEL_TIMES},
    aliases=_MODEL_TIME_ALIASES,
    hints={},
)

MODEL_VERSIONS = Grammar(
    what="model versions",
    entities=_OF_MODELS,
    attributes={
        "name": TEXT,
        "version_number": COUNT,
        "run_id": TEXT,
        "source_path": TEXT,
        "current_stage": TEXT,
        "status": TEXT,
        "user_id": TEXT,
        "model_id": TEXT,
        **_MODEL_TIMES,
    },
    aliases={**_MODEL_TIME_ALIASES, "version": "version_number", "stage": "current_stage", "source": "source_path"},
    hints={},
)

LOGGED_MODELS = Grammar(
    what="logged models",
    entities={
        "metrics": "metric",
        "params": "param",
        **_OF_MODELS,
        "metric": "metric",
        "param": "param",
        "parameter": "param",
        "parameters": "param",
    },
    attributes={
        "name": TEXT,
        "model_id": TEXT,
        "model_type": TEXT,
        "status": TEXT,
        "source_run_id": TEXT,
        "experiment_id": ID,
        **_MODEL_TIMES,
    },
    aliases=_MODEL_TIME_ALIASES,
    hints={},
)

_DATASET_KEYS = ("name", "digest", "context")
_COMPARING = ("=", "!=", ">", ">=", "<", "<=")
_OPERATORS: Dict[str, Tuple[str, ...]] = {
    NUMBER: (*_COMPARING, "IN", "BETWEEN"),
    PARAM: (*_COMPARING, "IN", "BETWEEN", "LIKE", "ILIKE"),
    TEXT: ("=", "!=", "IN", "LIKE", "ILIKE"),
    ID: ("=", "!=", "IN"),
    MOMENT: (*_COMPARING, "IN", "BETWEEN"),
    SPAN: (*_COMPARING, "IN", "BETWEEN"),
    COUNT: (*_COMPARING, "IN", "BETWEEN"),
}
_KEYWORDS = frozenset(("AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "NAN", "BETWEEN", "ESCAPE"))
_EXAMPLES = {
    NUMBER: "a number, as in 0.9",
    PARAM: "a text in quotes or a number, as in 'CNN' or 0.1",
    TEXT: "a text in quotes, as in 'CNN'",
    ID: "an id, as in '1'",
    MOMENT: "a time, as in -2d, '2026-11-01' or milliseconds since 1970",
    SPAN: "a length of time, as in 5m, '1h30m' or milliseconds",
    COUNT: "a number, as in 3",
}


def parse(text: Optional[str], grammar: Grammar = RUNS) -> Optional[Node]:
    """Read a filter into a tree; None where it is empty and so holds for everything."""
    if text is None or text == "":
        return None
    _check_text(text, "the filter")
    return _Parser(text, grammar).filter()


def parse_order(items: Union[str, Sequence[str], None], grammar: Grammar = RUNS) -> List[OrderTerm]:
    """Read ``"<column> [ASC|DESC]"`` items; a column named again is dropped, as it cannot change the order."""
    terms: Dict[Tuple[str, str], OrderTerm] = {}
    for item in [items] if isinstance(items, str) else items or ():
        _check_text(item, "order_by")
        term = _Parser(item, grammar).order_term()
        terms.setdefault((term.entity, term.key), term)
    if len(terms) > MAX_ORDER_TERMS:
        raise InvalidInput(f"order_by has {len(terms)} columns; {MAX_ORDER_TERMS} are allowed")
    return list(terms.values())


class Choice(NamedTuple):
    """One of many: the first, in this order, of those that match."""

    filter: str
    order_by: Tuple[str, ...]


def choice(text: str) -> Choice:
    """Split ``<filter> [ORDER BY <column> [ASC|DESC], ...]``, which stands behind the ``?`` of a URI.

    A value may stand without quotes here, ``tags.stage = ready``: a shell has often eaten them.
    """
    _check_text(text, "what stands behind the ?")
    tokens = _tokens(text)
    words = [token.text.upper() if token.kind == "word" else "" for token in tokens]
    places = range(len(tokens) - 1)
    end = next((place for place in places if words[place : place + 2] == ["ORDER", "BY"]), len(tokens) - 1)
    parts, start = [], 0
    for place in range(2, end):
        column, sign, value = tokens[place - 2 : place + 1]
        of_tag = column.entity in ("tag", "tags") and value.kind == "literal"
        if sign.kind == "sign" and (value.kind == "word" or of_tag):
            parts += [text[start : value.position], quoted(value.text)]
            start = value.end
    parts.append(text[start : tokens[end].position])
    items: List[str] = []
    first = end + 2
    for place in range(first, len(tokens)):
        if tokens[place].kind in (",", "end"):
            if place == first:
                message, hint = "ORDER BY wants a column here", "such as ORDER BY version_number DESC"
                raise FilterSyntaxError(message, text=text, position=tokens[place].position, hint=hint)
            items.append(text[tokens[first].position : tokens[place].position].strip())
            first = place + 1
    return Choice("".join(parts).strip(), tuple(items))


def quoted(text: str) -> str:
    """A text as a value of a filter. MLflow has two kinds of quotes and no way to write one inside its own kind."""
    if "'" in text and '"' not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


def both(one: str, other: str) -> str:
    """The filter that holds where both do."""
    if not one.strip() or not other.strip():
        return one.strip() or other.strip()
    # Parentheses only where they are needed: MLflow's own servers know none.
    return " AND ".join(
        f"({part})" if any(token.kind == "word" and token.text.upper() == "OR" for token in _tokens(part)) else part
        for part in (one, other)
    )


# --- from characters to tokens ---------------------------------------------------------------------------------------

# Each of these reads a text once, without going back: hostile filters cost no more than honest ones.
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\W\d]\w*")
_KEY = re.compile(r"\w+(?:\.\w+)*")
_UNQUOTED = re.compile(r"[\w./:-]*")
_LITERAL = re.compile(r"[+-]?(?:\.?\d[\w.:+-]*|inf(?:inity)?\b)", re.ASCII | re.IGNORECASE)
_SIGN = re.compile(r"[=!<>]+")
_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)", re.ASCII | re.IGNORECASE)
# These are compiled when the first time or length of time is met: most searches have none, and each store is opened often.
_SPAN = r"([+-]?)((?:[0-9]+(?:\.[0-9]+)?\s*(?:ms|min|[smhdw])\s*)+)"
_SPAN_PART = r"([0-9]+(?:\.[0-9]+)?)\s*(ms|min|[smhdw])"
_DATE = (
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)? ?(?:(Z)|([+-])([0-9]{2}):?([0-9]{2}))?)?"
)
_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}


class _Token(NamedTuple):
    kind: str  # column | word | quoted (a lone `..`) | text | literal | sign | ( | ) | , | end
    text: str
    position: int
    end: int
    entity: str = ""


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise InvalidInput(f"{what} must be text, not {type(text).__name__}")
    # No text has more characters than bytes: a long one is turned away before it is encoded.
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidInput(f"{what} is longer than {MAX_BYTES} bytes", hint="search in several steps")
    for position, char in enumerate(text):
        if char == "\0" or "\ud800" <= char <= "\udfff":
            raise FilterSyntaxError(f"{what} contains a character that is no text", text=text, position=position)


def _quoted(source: str, start: int) -> Tuple[str, int]:
    """Read a quoted text from its opening quote; gives what it says and where it ends."""
    quote = source[start]
    end = source.find(quote, start + 1)
    while end >= 0 and source[end + 1 : end + 2] == quote:
        end = source.find(quote, end + 2)
    if end < 0:
        raise FilterSyntaxError(f"this {quote} is not closed", text=source, position=start)
    return source[start + 1 : end].replace(quote * 2, quote), end + 1


def _tokens(source: str) -> List[_Token]:
    tokens: List[_Token] = []
    position = 0
    while True:
        position = _match_end(_SPACE, source, position)
        if position == len(source):
            return [*tokens, _Token("end", "the end", position, position)]
        tokens.append(_token(source, position))
        position = tokens[-1].end


def _match_end(pattern: re.Pattern[str], source: str, position: int) -> int:
    match = pattern.match(source, position)
    return match.end() if match else position


def _token(source: str, start: int) -> _Token:
    char = source[start]
    if char in "(),":
        return _Token(char, char, start, start + 1)
    if char in "'\"`":
        text, end = _quoted(source, start)
        return _Token("quoted" if char == "`" else "text", text, start, end)
    for kind, pattern in (("sign", _SIGN), ("literal", _LITERAL)):
        end = _match_end(pattern, source, start)
        # A word may begin as a number does: inf, infinity_norm.
        if end > start and not (kind == "literal" and char.isalpha()):
            return _Token(kind, source[start:end], start, end)
    end = _match_end(_WORD, source, start)
    if end == start:
        hint = "text needs quotes, a name with such a character backticks"
        if char == ";" or source.startswith("--", start):
            hint = "one filter at a time, without comments and ;"
        raise FilterSyntaxError(f"{char!r} means nothing here", text=source, position=start, hint=hint)
    word = source[start:end]
    if source[end : end + 1] != ".":
        return _Token("word", word, start, end)
    if source[end + 1 : end + 2] in ("'", '"', "`"):
        key, end = _quoted(source, end + 1)
    else:
        key, end = source[end + 1 : _match_end(_KEY, source, end + 1)], _match_end(_KEY, source, end + 1)
    if not key:
        raise FilterSyntaxError(f"{word}. wants a name after the point", text=source, position=end)
    if source[end : end + 1] in ("-", "/", ":"):
        meant = source[start + len(word) + 1 : _match_end(_UNQUOTED, source, start)]
        raise FilterSyntaxError(
            f"a name with {source[end]} needs backticks", text=source, position=end, hint=f"write {word}.`{meant}`"
        )
    return _Token("column", key, start, end, word)


# --- from tokens to the tree -----------------------------------------------------------------------------------------


class _Parser:
    def __init__(self, source: str, grammar: Grammar) -> None:
        self.source = source
        self.grammar = grammar
        self.tokens = _tokens(source)
        self.index = 0
        self.depth = 0
        self.start = self.tokens[0]  # of the test being read

    # Entry points

    def filter(self) -> Node:
        if self.now.kind == "end":
            self.fail("the filter is blank", self.now, hint="leave it out, or give an empty text, to search everything")
        tree = self.any()
        if self.now.kind != "end":
            self.unexpected("AND, OR or the end")
        return tree

    def order_term(self) -> OrderTerm:
        entity, key, _ = self.column()
        if entity == "dataset":
            self.fail("runs are not ordered by datasets", self.tokens[0])
        direction = self.keyword("ASC", "DESC")
        if self.now.kind == ",":
            self.fail("one column per item of order_by", self.now, hint="give order_by once for each column")
        if self.now.kind != "end":
            self.unexpected("ASC, DESC or the end")
        return OrderTerm(entity, key, direction == "DESC")

    # Tokens

    @property
    def now(self) -> _Token:
        return self.tokens[self.index]

    def next(self) -> _Token:
        token = self.now
        self.index += token.kind != "end"
        return token

    def keyword(self, *words: str) -> str:
        """Step over one of these words and give it, or stay and give ''."""
        if self.now.kind == "word" and self.now.text.upper() in words:
            return self.next().text.upper()
        return ""

    def fail(self, message: str, token: _Token, hint: str = "") -> NoReturn:
        raise FilterSyntaxError(message, text=self.source, position=token.position, hint=hint)

    def unexpected(self, expected: str, hint: str = "") -> NoReturn:
        token = self.now
        found = "the end" if token.kind == "end" else _clipped(self.source[token.position : token.end])
        self.fail(f"expected {expected}, found {found}", token, hint)

    # Rules

    def any(self) -> Node:
        terms = [self.all()]
        while self.keyword("OR"):
            terms.append(self.all())
        return terms[0] if len(terms) == 1 else Group("OR", tuple(terms))

    def all(self) -> Node:
        terms = [self.one()]
        while self.keyword("AND"):
            if self.now.kind == "end":
                break
            terms.append(self.one())
        return terms[0] if len(terms) == 1 else Group("AND", tuple(terms))

    def one(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels", self.now)
        node = self.one_inside()
        self.depth -= 1
        return node

    def one_inside(self) -> Node:
        if self.keyword("NOT"):
            return Not(self.one())
        if self.now.kind != "(":
            return self.test()
        opened = self.next()
        node = self.any()
        if self.now.kind == "end":
            self.fail("this ( is not closed", opened)
        if self.now.kind != ")":
            self.unexpected("AND, OR or )")
        self.next()
        return node

    def test(self) -> Node:
        self.start = self.now
        entity, key, kind = self.column()
        operator = self.operator(self.start, kind)
        return Comparison(entity, key, operator, self.operand(operator, kind), self.start.position)

    def column(self) -> Tuple[str, str, str]:
        """Read a column: entity, key and the kind of its values."""
        token = self.now
        if token.kind not in ("column", "word", "quoted") or self.is_keyword(token):
            hint = "the column stands on the left: params.model = 'CNN'" if token.kind in ("text", "literal") else ""
            self.unexpected("a column such as metrics.acc or status", hint)
        self.next()
        entity = self.grammar.entities.get(token.entity) if token.entity else "attribute"
        if entity is None:
            self.unknown_entity(token)
        if entity == "attribute":
            name = self.grammar.aliases.get(token.text, token.text)
            if name not in self.grammar.attributes:
                self.unknown_attribute(token)
            return entity, name, self.grammar.attributes[name]
        if entity == "dataset" and token.text not in _DATASET_KEYS:
            self.fail(f"datasets have no {token.text!r}", token, f"they have {', '.join(_DATASET_KEYS)}")
        return entity, token.text, {"metric": NUMBER, "param": PARAM}.get(entity, TEXT)

    def is_keyword(self, token: _Token) -> bool:
        return token.kind == "word" and token.text.upper() in _KEYWORDS

    def operator(self, column: _Token, kind: str) -> str:
        token = self.now
        if token.kind == "sign":
            self.next()
            if token.text not in _COMPARING:
                right = {"==": "=", "<>": "!=", "=<": "<=", "=>": ">="}.get(token.text)
                self.fail(f"there is no operator {token.text}", token, f"write {right}" if right else "")
            operator = positive = token.text
        elif self.keyword("IS"):
            return self.is_operator(kind)
        else:
            negation = "NOT " if self.keyword("NOT") else ""
            positive = self.keyword("IN", "LIKE", "ILIKE", "BETWEEN")
            if not positive:
                self.unexpected("an operator such as =, !=, LIKE, IN or IS NULL")
            operator = negation + positive
        if positive not in _OPERATORS[kind]:
            self.wrong_operator(column, operator, kind, token)
        return operator

    def is_operator(self, kind: str) -> str:
        negation = "NOT " if self.keyword("NOT") else ""
        what = self.keyword("NULL", "NAN") if kind == NUMBER else self.keyword("NULL")
        return f"IS {negation}{what}" if what else self.unexpected("NULL")

    def operand(self, operator: str, kind: str) -> Value:
        positive = POSITIVE.get(operator, operator)
        if operator.startswith("IS "):
            return None
        if positive in ("LIKE", "ILIKE"):
            return self.pattern()
        if positive == "IN":
            return self.values(kind)
        ordered = kind == PARAM and positive not in ("=", "IN")
        first = self.scalar(NUMBER if ordered else kind, quoted_number=ordered)
        if positive != "BETWEEN":
            return first
        if not self.keyword("AND"):
            self.unexpected("AND and the upper bound")
        return first, self.scalar(NUMBER if ordered else kind, quoted_number=ordered)

    def values(self, kind: str) -> Tuple[Scalar, ...]:
        if self.now.kind != "(":
            self.unexpected("( and a list", "write IN ('a', 'b')")
        self.next()
        first = self.now
        values = [self.scalar(kind)]
        while self.now.kind == ",":
            self.next()
            values.append(self.scalar(kind))
        if self.now.kind != ")":
            self.unexpected(", or )")
        self.next()
        if kind == PARAM and len({isinstance(value, str) for value in values}) > 1:
            self.fail("texts and numbers stand in one list", first, "quote all of them, or none")
        return tuple(values)

    def pattern(self) -> str:
        """Read what LIKE wants; the answer escapes with a backslash whatever the filter chose to escape with."""
        if self.now.kind != "text":
            self.no_text()
        text = self.next().text
        if not self.keyword("ESCAPE"):
            return text.replace("\\", "\\\\")
        token = self.now
        if token.kind != "text" or len(token.text) != 1:
            self.unexpected("one character in quotes after ESCAPE", "write LIKE '100\\%' ESCAPE '\\'")
        self.next()
        parts, chars = [], iter(text)
        for char in chars:
            if char != token.text:
                parts.append("\\\\" if char == "\\" else char)
                continue
            literal = next(chars, "")
            if literal not in ("%", "_", token.text):
                self.fail(f"{token.text} escapes %, _ or itself, not {literal or 'the end'}", token)
            parts.append("\\" + literal if literal in "%_\\" else literal)
        return "".join(parts)

    def scalar(self, kind: str, *, quoted_number: bool = False) -> Scalar:
        token = self.now
        if token.kind not in ("text", "literal") and not self.is_infinity(token):
            self.no_value(kind)
        value = self.converted(token, kind, quoted_number)
        self.next()
        return value

    def is_infinity(self, token: _Token) -> bool:
        return token.kind == "word" and token.text.lower() in ("inf", "infinity")

    def converted(self, token: _Token, kind: str, quoted_number: bool) -> Scalar:
        quoted = token.kind == "text"
        as_number = _number(token.text)
        if kind in (NUMBER, COUNT):
            if as_number is None or (quoted and kind == NUMBER and not quoted_number):
                self.no_number(token, as_number is not None)
            return as_number
        if kind == PARAM and not quoted and as_number is not None:
            return as_number
        if kind == ID and not quoted and token.text.isdigit():
            return token.text
        if kind in (TEXT, PARAM, ID):
            if not quoted:
                self.no_text()
            return token.text
        if as_number is not None:
            if quoted:
                self.fail(f"{token.text!r} is a text", token, f"drop the quotes: {token.text}")
            return _whole(token.text)
        return self.moment(token) if kind == MOMENT else self.span(token)

    def moment(self, token: _Token) -> Scalar:
        span = _span(token.text)
        if span is not None:
            if token.text[0] not in "+-":
                self.fail(f"{token.text} is a length of time", token, f"-{token.text} is that long ago")
            return FromNow(span)
        moment = _date(token.text)
        if moment is None:
            self.fail(f"{_clipped(token.text)!r} is no time", token, f"write {_EXAMPLES[MOMENT]}")
        return moment

    def span(self, token: _Token) -> Scalar:
        span = _span(token.text)
        if span is None:
            self.fail(f"{_clipped(token.text)!r} is no length of time", token, f"write {_EXAMPLES[SPAN]}")
        return span

    # What was meant

    def shown(self, token: _Token) -> str:
        return _clipped(self.source[token.position : token.end])

    def no_value(self, kind: str) -> NoReturn:
        token = self.now
        if token.kind == "word" and not self.is_keyword(token) and kind in (TEXT, PARAM, ID):
            self.no_text()
        if token.kind == "word" and token.text.upper() == "NAN":
            self.unexpected(_EXAMPLES[kind], "nothing equals NaN; write IS NAN")
        if token.kind == "column":
            self.unexpected(_EXAMPLES[kind], "a column is compared with a value, not with another column")
        if token.kind == "quoted":
            self.unexpected(_EXAMPLES[kind], "backticks are for names; a text stands in ' or \"")
        self.unexpected(_EXAMPLES[kind])

    def no_text(self) -> NoReturn:
        token = self.now
        if token.kind in ("word", "literal") and not self.is_keyword(token):
            test = self.source[self.start.position : token.position]
            said = f"text needs quotes: {test if len(test) < 60 and '(' not in test else ''}'{token.text}'"
            self.fail(f"expected {_EXAMPLES[TEXT]}, found {self.shown(token)}", token, said)
        if token.kind == "quoted":
            self.unexpected(_EXAMPLES[TEXT], "backticks are for names; a text stands in ' or \"")
        self.unexpected(_EXAMPLES[TEXT])

    def no_number(self, token: _Token, would_be: bool) -> NoReturn:
        hint = f"drop the quotes: {token.text}" if would_be else ""
        self.fail(f"expected {_EXAMPLES[NUMBER]}, found {self.shown(token)}", token, hint)

    def wrong_operator(self, column: _Token, operator: str, kind: str, token: _Token) -> NoReturn:
        allowed = ", ".join(_OPERATORS[kind])
        self.fail(f"{operator} does not go with {self.shown(column)}", token, f"use {allowed} or IS NULL")

    def unknown_entity(self, token: _Token) -> NoReturn:
        canonical = {entity: name for name, entity in reversed(list(self.grammar.entities.items()))}
        wanted = [name for name in self.grammar.entities if name in canonical.values()]
        near = _near(token.entity, self.grammar.entities)
        hint = f"did you mean {near}.{token.text}?" if near else f"use one of {', '.join(wanted)}"
        self.fail(f"{self.grammar.what} have no {token.entity!r}", token, hint)

    def unknown_attribute(self, token: _Token) -> NoReturn:
        names = ", ".join(self.grammar.attributes)
        if token.text in self.grammar.hints:
            hint = self.grammar.hints[token.text]
        elif _near(token.text, self.grammar.attributes):
            hint = f"did you mean {_near(token.text, self.grammar.attributes)}?"
        else:
            key = token.text if _KEY.fullmatch(token.text) else f"`{token.text}`"
            prefixes = [name for name in ("metrics", "params", "tags") if name in self.grammar.entities]
            hint = f"did you mean {' or '.join(f'{prefix}.{key}' for prefix in prefixes)}?"
        what = f"unknown attribute {_clipped(token.text)!r} of {self.grammar.what}; the attributes are {names}"
        self.fail(what, token, hint)


def _near(word: str, names: Mapping[str, str]) -> str:
    from difflib import get_close_matches  # only a mistake pays for it

    lower = {name.lower(): name for name in reversed(list(names))}
    found = get_close_matches(word[:100].lower(), lower, n=1, cutoff=0.75)
    return lower[found[0]] if found else ""


def _clipped(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _number(text: str) -> Optional[float]:
    return float(text) if _NUMBER.fullmatch(text) else None


def _whole(text: str) -> float:
    """A number of milliseconds, whole if it can be (and if a database can hold it so)."""
    value = float(text)
    if text.lstrip("+-").isdigit() and abs(value) < 2**62:
        return int(text)
    return int(value) if abs(value) < 2**62 and value.is_integer() else value


def _span(text: str) -> Optional[int]:
    match = re.fullmatch(_SPAN, text.strip())
    if not match:
        return None
    total = sum(float(count) * _MILLISECONDS[unit] for count, unit in re.findall(_SPAN_PART, match[2]))
    return None if total > 1e16 else int(-total if match[1] == "-" else total)


def _date(text: str) -> Optional[int]:
    match = re.fullmatch(_DATE, text.strip())
    if not match:
        return None
    fraction = (match[7] or "0").ljust(6, "0")
    try:
        moment = datetime(*(int(part or 0) for part in match.groups()[:6]), int(fraction))  # type: ignore[call-arg,arg-type]  # noqa: DTZ001 - local time where no zone is named
        if match[8]:
            moment = moment.replace(tzinfo=timezone.utc)
        elif match[9]:
            shift = timedelta(hours=int(match[10]), minutes=int(match[11]))
            moment = moment.replace(tzinfo=timezone(-shift if match[9] == "-" else shift))
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):  # no such day; beyond what the system's clock can say
        return None
