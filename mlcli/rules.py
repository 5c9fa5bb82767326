"""Names, values and limits, checked in this one place for client and store alike.

The limits are MLflow's. Where MLflow cuts or changes a value silently, this raises: nothing is ever stored that
differs from what was given.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict

from mlcli.errors import InvalidInput

MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_EXPERIMENT_NAME = 500
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_ARTIFACT_LOCATION = 2048
MAX_MODEL_NAME = 500
MAX_MODEL_TAG_VALUE = 100_000
MAX_DESCRIPTION = 100_000
MAX_ALIAS = 255
MAX_INT64 = 2**63 - 1

_KEY = re.compile(r"[\w/.\- :]+\Z")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}\Z")
_DRIVE = re.compile(r"(?:\A|/)[A-Za-z]:")  # wherever it stands: joined to a folder of Windows, it leaves it
_ALIAS = re.compile(r"[A-Za-z0-9_\-]+\Z")
# Control characters, and the characters that reorder or hide text on a screen.
_INVISIBLE = re.compile("[\x00-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
# Keys seen valid once: a training loop logs the same few names for ever.
_valid_keys: set[str] = set()


def key(value: object, what: str) -> str:
    """Check the name of a metric, param or tag (``what``) and return it.

    Allowed are 1 to 250 letters, digits, ``_ / . - :`` and spaces, read as a relative path that is already normal.
    """
    if isinstance(value, str) and value in _valid_keys:
        return value
    if not isinstance(value, str):
        raise InvalidInput(f"a {what} name must be text, not {type(value).__name__}: {value!r}")
    if not value:
        raise InvalidInput(f"a {what} name must not be empty")
    if len(value) > MAX_KEY:
        raise InvalidInput(f"the {what} name {value[:40]!r}... has {len(value)} characters; {MAX_KEY} are allowed")
    if not _KEY.match(value) or _INVISIBLE.search(value):
        bad = next(char for char in value if not _KEY.match(char) or _INVISIBLE.search(char))
        raise InvalidInput(
            f"the {what} name {value!r} contains {bad!r}",
            hint="letters, digits, underscores, dashes, periods, spaces, colons and slashes are allowed",
        )
    if value.startswith("/") or any(part in ("", ".", "..") for part in value.split("/")):
        raise InvalidInput(
            f"the {what} name {value!r} is not a plain relative path", hint="no //, ./, ../ or / at an end"
        )
    if len(_valid_keys) < 10_000:
        _valid_keys.add(value)
    return value


def text(value: object, what: str, limit: int) -> str:
    """Turn ``value`` into the text that is stored, or say why it cannot be."""
    result = value if isinstance(value, str) else str(value)
    if len(result) > limit:
        raise InvalidInput(
            f"{what} has {len(result)} characters; {limit} are allowed",
            hint="log long text as an artifact: mlcli.log_text(text, 'name.txt')",
        )
    if not result.isascii():
        try:
            result.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{what} is not valid text: it has a lone surrogate at position {error.start}") from None
    if "\0" in result:
        raise InvalidInput(f"{what} contains a NUL character at position {result.index(chr(0))}")
    return result


def param_value(name: str, value: object) -> str:
    return text(value, f"the value of param {name!r}", MAX_PARAM_VALUE)


def tag_value(name: str, value: object) -> str:
    return text(value, f"the value of tag {name!r}", MAX_TAG_VALUE)


def metric_value(name: str, value: Any) -> float:
    """The value as a float: numbers, numeric text, booleans, and arrays of one element."""
    if type(value) is float:
        return value
    try:
        return float(value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value)
    except (TypeError, ValueError, OverflowError):
        shown = repr(value)
        raise InvalidInput(
            f"the value of metric {name!r} is not a number: {shown if len(shown) < 80 else shown[:77] + '...'}"
        ) from None


def int64(value: Any, what: str) -> int:
    """A whole number that fits a 64 bit integer; 3.0 is one, 3.5 and "3" are not."""
    if type(value) is int and -MAX_INT64 <= value <= MAX_INT64:
        return value
    try:
        if not isinstance(value, (str, bytes)) and int(value) == value and -MAX_INT64 <= int(value) <= MAX_INT64:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(f"{what} must be a whole number of at most 64 bits, not {value!r}")


def timestamp(value: Any) -> int:
    """Milliseconds since 1970, at least 0; fractions are cut as MLflow cuts them."""
    if isinstance(value, float) and value == value and abs(value) < MAX_INT64:  # noqa: PLR0124 - NaN is the one unequal to itself
        value = int(value)
    result = int64(value, "a timestamp")
    if result < 0:
        raise InvalidInput(f"a timestamp must not be negative: {result}")
    return result


def run_id(value: object) -> str:
    if not isinstance(value, str) or not _RUN_ID.match(value):
        raise InvalidInput(
            f"{value!r} is not a run id", hint="a run id is letters, digits, _ and -: see `mlcli runs list`"
        )
    return value


def experiment_name(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"an experiment name must be text, not {type(value).__name__}: {value!r}")
    if not value.strip():
        raise InvalidInput("an experiment name must not be empty")
    if len(value) > MAX_EXPERIMENT_NAME:
        raise InvalidInput(f"the experiment name has {len(value)} characters; {MAX_EXPERIMENT_NAME} are allowed")
    if _INVISIBLE.search(value):
        raise InvalidInput(f"the experiment name {value!r} contains a character that cannot be seen")
    return text(value, "the experiment name", MAX_EXPERIMENT_NAME)


def run_name(value: object) -> str:
    result = text(value, "the run name", MAX_KEY)
    if _INVISIBLE.search(result):
        raise InvalidInput(f"the run name {result!r} contains a character that cannot be seen")
    return result


def model_name(value: object) -> str:
    """The name of a registered model: what can stand in ``models:/<name>/1``."""
    result = _name(value, "a model name")
    if percent_decoded(result) in (".", "..") or any(
        char in form for form in (result, percent_decoded(result)) for char in "/:\\"
    ):
        raise InvalidInput(f"the model name {result!r} cannot stand in models:/<name>/<version>", hint="no / : or \\")
    return result


def logged_model_name(value: object) -> str:
    result = _name(value, "a logged model's name")
    bad = [char for char in result if char in "/:.%\"'\\"]
    if bad:
        raise InvalidInput(f"the logged model's name {result!r} contains {bad[0]!r}", hint="no / : . % or quotes")
    return result


def _name(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be text, not {type(value).__name__}: {value!r}")
    if not value.strip():
        raise InvalidInput(f"{what} must not be empty")
    if len(value) > MAX_MODEL_NAME:
        raise InvalidInput(f"{what} has {len(value)} characters; {MAX_MODEL_NAME} are allowed: {value[:40]!r}...")
    if _INVISIBLE.search(value):
        raise InvalidInput(f"{what} contains a character that cannot be seen: {value!r}")
    return text(value, what, MAX_MODEL_NAME)


def alias(value: object) -> str:
    """A name for a version of a model; ``latest`` and ``v1`` mean something already."""
    if not isinstance(value, str) or not _ALIAS.match(value) or len(value) > MAX_ALIAS:
        raise InvalidInput(
            f"{value!r} cannot be an alias", hint=f"1 to {MAX_ALIAS} letters, digits, underscores and dashes"
        )
    if value.lower() == "latest" or re.match(r"[vV][0-9]+\Z", value):
        raise InvalidInput(f"the alias {value!r} is reserved", hint="`latest` and `v1` name versions already")
    return value


def model_description(value: Any) -> Dict[str, Any]:
    """What MLflow 2 notes of a model in a run: some fields of its MLmodel, given as a map or as JSON."""
    import json

    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict) or "artifact_path" not in value or "flavors" not in value:
        raise InvalidInput(
            "a model to note must be a JSON object with artifact_path and flavors", hint="give the MLmodel as JSON"
        )
    return value


def artifact_path(value: object) -> str:
    """A path inside an artifact root, normal and relative, with forward slashes; "" is the root itself.

    Refused: absolute paths, drive letters, ``..``, backslashes (a separator elsewhere), NUL, and anything that
    percent-decodes to one of these, so that no later decoding can lead out of the root.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise InvalidInput(f"an artifact path must be text, not {type(value).__name__}: {value!r}")
    decoded = percent_decoded(value)
    for form in (value, decoded):
        parts = form.split("/")
        if form.startswith("/") or "\\" in form or "\0" in form or ".." in parts or _DRIVE.search(form):
            raise InvalidInput(
                f"the artifact path {value!r} leaves the artifact root", hint="use a relative path with forward slashes"
            )
    return "/".join(part for part in value.split("/") if part not in ("", "."))


def percent_decoded(value: str) -> str:
    """What ``value`` says to whoever decodes it again and again."""
    for _ in range(8):
        before, value = value, _decoded_once(value)
        if before == value:
            break
    return value


def _decoded_once(value: str) -> str:
    return re.sub(r"%([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), value)
