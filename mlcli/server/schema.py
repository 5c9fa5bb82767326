"""What a request may hold: fields with kinds, from which requests are checked and the OpenAPI document is made.

Unknown fields are ignored, null is as good as absent, and nothing is turned into something else silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from mlcli.errors import InvalidInput

MAX_FILTER = 8 * 1024
_MAX_INT64 = 2**63 - 1
_WHOLE = re.compile(r"-?[0-9]{1,19}\Z")


class Constant(float):
    """NaN or an infinity that was written as such; a plain infinite float is a number that was too large."""


class Field(NamedTuple):
    """One field of a request. ``kind`` is string, int64, number or boolean, or the fields of an object."""

    name: str
    kind: str | tuple[Field, ...] = "string"
    required: bool = False
    many: bool = False
    choices: tuple[str, ...] = ()
    also: str = ""  # an older name of it
    limit: int = 0  # of characters

    def read(self, value: Any, where: str) -> Any:
        """The checked value; raises InvalidInput that names ``where``."""
        if self.many:
            if not isinstance(value, list):
                raise _wrong(where, value, "a list")
            one = self._replace(many=False)
            return [one.read(item, f"{where}[{place}]") for place, item in enumerate(value)]
        if isinstance(self.kind, tuple):
            if not isinstance(value, dict):
                raise _wrong(where, value, "an object")
            return read(self.kind, value, f"{where}.")
        return _READERS[self.kind](self, value, where)


def read(fields: Sequence[Field], given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The known fields of ``given``, checked; absent ones are absent."""
    result = {}
    for field in fields:
        value = given.get(field.name)
        if value is None and field.also:
            value = given.get(field.also)
        if value is not None:
            result[field.name] = field.read(value, prefix + field.name)
            if field.required and result[field.name] == "" and field.name not in MAY_BE_EMPTY:
                value = None
        if value is None and field.required:
            raise InvalidInput(
                f"Missing value for required parameter '{prefix}{field.name}'."
                " See the API docs for more information about request parameters."
            )
    return result


MAY_BE_EMPTY = frozenset(("value", "lines"))


def query_fields(fields: Sequence[Field], text: bytes) -> dict[str, Any]:
    """The fields that a query string gives; a field that may come often is a list."""
    try:
        found = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise InvalidInput("the query string is not valid text") from None
    many = {field.name for field in fields if field.many}
    result: dict[str, Any] = {}
    for key, value in found:
        name = key.removesuffix("[]")
        if name in many:
            result.setdefault(name, []).append(value)
        else:
            result[name] = value
    return result


def _text(field: Field, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, value, "text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"Invalid value for parameter '{where}': it is not valid text") from None
    if "\0" in value:
        raise InvalidInput(f"Invalid value for parameter '{where}': it contains a NUL character")
    if field.limit and len(value) > field.limit:
        raise InvalidInput(f"Invalid value for parameter '{where}': more than {field.limit} characters")
    if field.choices and value not in field.choices:
        raise InvalidInput(f"Invalid value for parameter '{where}': one of {', '.join(field.choices)} is expected")
    return value


def _whole(_field: Field, value: Any, where: str) -> int:
    if (isinstance(value, str) and _WHOLE.match(value)) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if type(value) is not int or not -_MAX_INT64 - 1 <= value <= _MAX_INT64:
        raise _wrong(where, value, "a whole number of 64 bits")
    return value


def _number(_field: Field, value: Any, where: str) -> float:
    if type(value) is float and value - value == 0.0:
        return value
    if isinstance(value, Constant):
        return float(value)
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            result = float(value)
            if abs(result) != float("inf") or (isinstance(value, str) and "inf" in value.lower()):
                return result
    except (ValueError, OverflowError):
        pass
    raise _wrong(where, value, "a number")


def _flag(_field: Field, value: Any, where: str) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _wrong(where, value, "true or false")
    return value


def _wrong(where: str, value: Any, wanted: str) -> InvalidInput:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    shown = shown.encode("ascii", "backslashreplace").decode()
    return InvalidInput(
        f"Invalid value {shown} for parameter '{where}' supplied: {wanted} is expected."
        f" Hint: Value was of type '{type(value).__name__}'."
    )


_READERS = {"string": _text, "int64": _whole, "number": _number, "boolean": _flag}


# -- as OpenAPI says it

_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "int64": {"type": "integer", "format": "int64"},
    "number": {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]},
    "boolean": {"type": "boolean"},
}


def described(field: Field) -> dict[str, Any]:
    """The field's JSON schema."""
    one = described_object(field.kind) if isinstance(field.kind, tuple) else dict(_TYPES[field.kind])
    if field.choices:
        one["enum"] = list(field.choices)
    if field.limit:
        one["maxLength"] = field.limit
    return {"type": "array", "items": one} if field.many else one


def described_object(fields: Sequence[Field]) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "object", "properties": {field.name: described(field) for field in fields}}
    required = [field.name for field in fields if field.required]
    if required:
        result["required"] = required
    return result
