"""What a signature says of a model's input, and fitting to it what a caller sends: or an error with column and row.

MLflow's rules where they lose nothing. Where MLflow loses something in silence, this refuses: 1.5 for a `long` (it becomes
1 there), 3,000,000,000 for an `integer` (it wraps around), "no" for a `boolean` (it becomes true).
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union

from mlcli.errors import InvalidInput, ModelError

NUMBERS = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
SIMPLE = (*NUMBERS, "boolean", "string", "datetime", "binary")
_WHOLE = {"integer": 2**31, "long": 2**63}
_NEAR = 2**31
_WORDS = {
    "integer": "a whole number of 32 bits",
    "long": "a whole number",
    "float": "a number",
    "double": "a number",
    "boolean": "true or false",
    "string": "text",
    "datetime": "a time such as 2024-05-01T12:00:00",
    "binary": "bytes as base64",
}
_TRUTH = {
    "true": True,
    "false": False,
    "True": True,
    "False": False,
    "TRUE": True,
    "FALSE": False,
    "1": True,
    "0": False,
}
MISSING_WORDS = frozenset(("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A"))


class Rows(NamedTuple):
    """A list of rows, with or without the names of their columns."""

    names: Optional[Sequence[Any]]
    rows: Any
    index: Any = None


class Records(NamedTuple):
    """A list of objects, one for each row."""

    records: List[Dict[str, Any]]


class Columns(NamedTuple):
    """An object with a list of values for each column."""

    columns: Dict[str, Any]


class Nested(NamedTuple):
    """Lists in lists, or one value: an array without names."""

    content: Any


Given = Union[Rows, Records, Columns, Nested]


class Column(NamedTuple):
    """One column of a table; ``kind`` is one of SIMPLE, or array, object, map with ``spec`` to say of what."""

    name: Optional[str]
    kind: str
    required: bool
    spec: Mapping[str, Any]


class Tensor(NamedTuple):
    """One array: its type and shape, -1 where any length will do."""

    name: Optional[str]
    dtype: str
    shape: Tuple[int, ...]


class Schema:
    """The inputs of a signature. ``first_row`` of its methods is the number of rows before, for what errors say."""

    def __init__(self, columns: Sequence[Column], tensors: Sequence[Tensor]) -> None:
        self.columns = tuple(columns)
        self.tensors = tuple(tensors)
        self.names: List[Any] = [column.name for column in columns]
        self.named = bool(columns) and columns[0].name is not None
        kinds = {column.kind for column in columns}
        whole = [number for number, column in enumerate(columns) if column.kind in _WHOLE]
        self.numeric = self.named and kinds <= set(NUMBERS) and all([column.required for column in columns])
        self._whole = whole
        self._dtype: Any = None
        if self.numeric:
            import numpy as np

            # What pandas makes of such columns side by side, and with it scikit-learn.
            self._dtype = np.result_type(*[NUMBERS[kind] for kind in kinds])

    @classmethod
    def of(cls, spec: Optional[Sequence[Mapping[str, Any]]]) -> Optional[Schema]:
        """Read the inputs of a ModelSignature; None where there are none."""
        if not spec:
            return None
        tensors = [_tensor(item) for item in spec if item.get("type") == "tensor"]
        columns = [_column(item) for item in spec if item.get("type") != "tensor"]
        if tensors and columns:
            raise InvalidInput("the signature mixes columns and tensors", hint="log the model again with one of them")
        return cls(columns, tensors)

    # -- arrays, where every column is a number

    def array(self, given: Given, first_row: int = 0) -> Any:
        """The rows as one array of numbers, columns in the order of the signature; only where ``numeric``.

        Its memory lies column by column, as that of a DataFrame does: a sum of products is then the same to the last bit.
        """
        import numpy as np

        names: Optional[Sequence[Any]]
        rows: Any
        try:
            if type(given) is Rows:
                names, rows = given.names, given.rows
                if names != self.names:
                    if names is None:
                        return self._slowly(given, first_row)
                    order = [names.index(name) for name in self.names]
                    if any([len(row) != len(names) for row in rows]):
                        return self._slowly(given, first_row)
                    rows = [[row[place] for place in order] for row in rows]
            elif type(given) is Records:
                rows = [[record[name] for name in self.names] for record in given.records]
            else:
                return self._slowly(given, first_row)
            found = np.array(rows, dtype=None if self._whole else self._dtype)
            if found.dtype.kind == "U":
                found = found.astype(self._dtype)
        except (ValueError, TypeError, LookupError, OverflowError):
            return self._slowly(given, first_row)
        if found.ndim != 2 or found.shape[1] != len(self.names) or (self._whole and not self._fits(found)):
            return self._slowly(given, first_row)
        return np.asfortranarray(found, dtype=self._dtype)

    def _fits(self, found: Any) -> bool:
        """Whether whole numbers stand where they must, none of them near a limit; what is in doubt is looked at slowly."""
        if found.dtype.kind == "i":
            return bool((abs(found) < _NEAR).all())
        if found.dtype.kind != "f" or self._dtype.kind != "f":
            return False
        whole = found[:, self._whole]
        return bool(((whole % 1 == 0) & (abs(whole) < _NEAR)).all())

    def _slowly(self, given: Given, first_row: int) -> Any:
        """The same, column by column: finds what is wrong, and takes what needs care."""
        import numpy as np

        found, _ = self._table(given)
        arrays = [_numbers(column, found[column.name], first_row) for column in self.columns]
        self._same_length(arrays)
        result = np.empty((len(arrays[0]), len(arrays)), dtype=self._dtype, order="F")
        for number, values in enumerate(arrays):
            result[:, number] = values
        return result

    # -- tables

    def frame(self, given: Any, first_row: int = 0) -> Any:
        """The input as a DataFrame with the columns of the signature, in its order and of its types."""
        import pandas as pd

        found, index = self._table(given)
        series: Dict[Any, Any] = {}
        for place, column in enumerate(self.columns):
            key = column.name if self.named else place
            if key in found:
                series[key] = _series(column, found[key], first_row)
        self._same_length(list(series.values()))
        try:
            return pd.DataFrame(series, index=index)
        except ValueError as error:
            raise InvalidInput(f"the columns make no table: {error}") from None

    def _same_length(self, found: Sequence[Any]) -> None:
        lengths = {len(values) for values in found}
        if len(lengths) > 1:
            raise InvalidInput(f"the columns have different lengths: {', '.join(map(str, sorted(lengths)))}")

    def _table(self, given: Any) -> Tuple[Dict[Any, Any], Any]:
        """Columns by name, all required ones among them (by number where the signature has no names), and the index."""
        found, index = _by_column(given, None if not self.named else self.names)
        if not self.named:
            found = dict(enumerate(found.values()))
            if len(found) < len(self.columns):
                raise InvalidInput(f"the model takes {len(self.columns)} columns and the input has {len(found)}")
            return found, index
        missing = [str(column.name) for column in self.columns if column.required and column.name not in found]
        if missing:
            raise InvalidInput(_lacking(missing, [name for name in found if name not in self.names]))
        return found, index

    # -- tensors

    def tensor(self, given: Given) -> Any:
        """The input as the array that the signature describes, or as a map of arrays where it names them."""
        if self.tensors[0].name is not None:
            found, _ = _by_column(given, [item.name for item in self.tensors])
            missing = [str(item.name) for item in self.tensors if item.name not in found]
            if missing:
                raise InvalidInput(_lacking(missing, [str(name) for name in found if name not in missing]))
            return {item.name: _shaped(item, found[item.name]) for item in self.tensors}
        if isinstance(given, Nested):
            return _shaped(self.tensors[0], given.content)
        if isinstance(given, Rows):
            return _shaped(self.tensors[0], given.rows)
        found, _ = _by_column(given, None)
        columns = list(found.values())
        if len(columns) == 1 and columns[0] and isinstance(columns[0][0], (list, tuple)):
            return _shaped(self.tensors[0], columns[0])
        return _shaped(self.tensors[0], [list(row) for row in zip(*columns)])


def _lacking(missing: Sequence[str], others: Sequence[Any]) -> str:
    told = f"the input has no column {some_of(missing)}"
    if others:
        told += f"; it has {some_of(others)}, which the model does not know"
    return told


def some_of(names: Sequence[Any]) -> str:
    """The first ten names, and how many more there are."""
    told = ", ".join([repr(str(name)) for name in names[:10]])
    return f"{told} and {len(names) - 10} more" if len(names) > 10 else told


def _column(item: Mapping[str, Any]) -> Column:
    kind = str(item.get("type"))
    if kind not in (*SIMPLE, "array", "object", "map", "any"):
        raise InvalidInput(f"the signature has a column of the type {kind!r}, which is not known")
    name = item.get("name")
    required = item.get("required", not item.get("optional", False))
    return Column(None if name is None else str(name), kind, bool(required), item)


def _tensor(item: Mapping[str, Any]) -> Tensor:
    spec = item["tensor-spec"]
    name = item.get("name")
    return Tensor(None if name is None else str(name), str(spec["dtype"]), tuple(map(int, spec["shape"])))


def _by_column(given: Any, names: Optional[Sequence[Any]]) -> Tuple[Dict[Any, Any], Any]:
    if isinstance(given, Rows):
        return _columns_of_rows(given)
    if isinstance(given, Records):
        # Not all records must have all columns: what one lacks is missing there.
        found: Dict[Any, None] = {}
        for number, record in enumerate(given.records, 1):
            if not isinstance(record, dict):
                raise InvalidInput(f"row {number} is {_shown(record)}, not an object with a value for each column")
            found.update(dict.fromkeys(record))
        return {name: [record.get(name) for record in given.records] for name in found}, None
    if isinstance(given, Columns):
        single = {name: values for name, values in given.columns.items() if not isinstance(values, (list, tuple))}
        if single and len(single) < len(given.columns):
            raise InvalidInput(f"the column {next(iter(single))!r} is one value and others are lists of values")
        return {name: [values] if single else values for name, values in given.columns.items()}, None
    if isinstance(given, Nested):
        values = given.content if isinstance(given.content, list) else [given.content]
        if names is not None and len(names) == 1:
            flat = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
            return {names[0]: flat}, None
        if names is not None:
            raise InvalidInput(
                f"the model takes named columns ({some_of(names)}) and the input has no names",
                hint='send {"dataframe_split": {"columns": [...], "data": [[...]]}} or a list of objects',
            )
        return _columns_of_rows(Rows(None, [value if isinstance(value, list) else [value] for value in values]))
    # A DataFrame.
    return {name: given[name] for name in given.columns}, given.index


def _columns_of_rows(given: Rows) -> Tuple[Dict[Any, Any], Any]:
    rows = given.rows
    if not isinstance(rows, list):
        raise InvalidInput(f"the data are {_shown(rows)}, not a list of rows")
    rows = [row if isinstance(row, list) else [row] for row in rows]
    width = len(given.names) if given.names is not None else len(rows[0]) if rows else 0
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise ModelError(f"row {number} has {len(row)} values and there are {width} columns")
    names = list(range(width)) if given.names is None else list(given.names)
    if len(set(map(str, names))) < width:
        raise InvalidInput("two columns have the same name")
    columns = list(map(list, zip(*rows))) if rows else [[] for _ in names]
    return dict(zip(names, columns)), given.index


# -- one column


def _wrong(column: Column, row: int, value: Any) -> NoReturn:
    name = "" if column.name is None else f" {column.name!r}"
    raise ModelError(
        f"column{name} wants {_WORDS[column.kind]} ({column.kind}); row {row} has {_shown(value)}"
        + (": a value may not be missing here" if _is_missing(value) else "")
    )


def _shown(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _numbers(column: Column, values: Any, first_row: int) -> Any:
    """An array of the column's own type; says which value cannot be one."""
    import numpy as np

    dtype = NUMBERS[column.kind]
    if hasattr(values, "dtype"):
        plain = getattr(values.dtype, "kind", "O") in ("iu" if column.kind in _WHOLE else "iuf") and hasattr(
            values.dtype, "str"
        )
        if values.dtype == dtype or (
            plain and (column.kind not in _WHOLE or values.dtype.itemsize < np.dtype(dtype).itemsize)
        ):
            return np.asarray(values, dtype=dtype)
        values = values.tolist()
    limit = _WHOLE.get(column.kind)
    result = []
    for row, value in enumerate(values, first_row + 1):
        if type(value) is float or type(value) is int:
            number: Any = value
        elif isinstance(value, str):
            number = _from_text(value)
            if number is None and limit is None and value in MISSING_WORDS:
                number = math.nan
        elif value is None:
            number = math.nan if limit is None else None
        elif isinstance(value, (bool, np.bool_)):
            number = int(value)
        else:
            number = value.item() if hasattr(value, "item") else None
        if number is None or isinstance(number, (str, bytes)):
            _wrong(column, row, value)
        if limit is not None:
            if not math.isfinite(number) or int(number) != number:
                _wrong(column, row, value)
            number = int(number)
            if not -limit <= number < limit:
                _wrong(column, row, value)
        else:
            try:
                number = float(number)
            except (OverflowError, TypeError, ValueError):
                _wrong(column, row, value)
        result.append(number)
    return np.array(result, dtype=dtype)


def _from_text(value: str) -> Union[int, float, None]:
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None


def _series(column: Column, values: Any, first_row: int) -> Any:
    """What pandas gets of one column."""
    import pandas as pd

    if column.kind in NUMBERS:
        return _numbers(column, values, first_row)
    if column.kind == "boolean":
        return _booleans(column, values, first_row)
    if column.kind == "datetime":
        return _times(column, values, first_row)
    if column.kind == "binary":
        return pd.Series([_bytes(column, row, value) for row, value in enumerate(values, first_row + 1)], dtype=object)
    if column.kind == "string":
        if hasattr(values, "dtype"):
            return values.array
        for row, value in enumerate(values, first_row + 1):
            if isinstance(value, (list, dict)):
                _wrong(column, row, value)
        # pandas' own type for text, whichever its version has; other values stay what they are, as in MLflow.
        return pd.Series(values, dtype=None if any([isinstance(value, str) for value in values]) else object).array
    fitted = [_deep(column.spec, value, f"column {column.name!r}, row {row}", column.required)
              for row, value in enumerate(values, first_row + 1)]  # fmt: skip
    return pd.Series(fitted, dtype=object).array


def _booleans(column: Column, values: Any, first_row: int) -> Any:
    import pandas as pd

    result: List[Optional[bool]] = []
    for row, value in enumerate(values, first_row + 1):
        if isinstance(value, str):
            found = _TRUTH.get(value)
            if found is None and not (value in MISSING_WORDS and not column.required):
                _wrong(column, row, value)
            result.append(found)
        elif _is_missing(value):
            if column.required:
                _wrong(column, row, value)
            result.append(None)
        elif value in (0, 1):
            result.append(bool(value))
        else:
            _wrong(column, row, value)
    return pd.Series(result, dtype=object if None in result else bool).array


def _times(column: Column, values: Any, first_row: int) -> Any:
    import pandas as pd

    def read(part: Any) -> Any:
        found = pd.to_datetime(pd.Series(part, dtype=None if len(part) else "datetime64[ns]"))
        return found.astype("datetime64[ns]").array

    try:
        return read(values)
    except (ValueError, TypeError, OverflowError):
        for row, value in enumerate(values, first_row + 1):
            if pd.isna(pd.to_datetime(value, errors="coerce")) and not _is_missing(value):
                _wrong(column, row, value)
        raise InvalidInput(f"column {column.name!r} holds times of different kinds, with and without a zone") from None


def _bytes(column: Column, row: int, value: Any) -> Any:
    import base64
    import binascii

    if isinstance(value, (bytes, bytearray)) or (value is None and not column.required):
        return value
    if not isinstance(value, str):
        _wrong(column, row, value)
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        _wrong(column, row, value)


def _deep(spec: Mapping[str, Any], value: Any, where: str, required: bool = True) -> Any:
    """A value inside a list, object or map, fitted to its specification."""
    kind = spec.get("type")
    if value is None and (not required or kind == "any"):
        return None
    if kind == "array":
        if hasattr(value, "tolist"):
            value = value.tolist()
        if not isinstance(value, list):
            raise InvalidInput(f"{where} wants a list; it has {_shown(value)}")
        return [_deep(spec["items"], item, f"{where}, item {number}") for number, item in enumerate(value, 1)]
    if kind in ("object", "map"):
        if not isinstance(value, dict):
            raise InvalidInput(f"{where} wants an object; it has {_shown(value)}")
        if kind == "map":
            return {key: _deep(spec["values"], item, f"{where}, key {key!r}") for key, item in value.items()}
        known: Mapping[str, Mapping[str, Any]] = spec["properties"]
        for key in value:
            if key not in known:
                raise InvalidInput(f"{where} has the key {key!r}, which the model does not know")
        for key, part in known.items():
            if part.get("required", True) and key not in value:
                raise InvalidInput(f"{where} lacks the key {key!r}")
        return {key: _deep(known[key], item, f"{where}, key {key!r}", known[key].get("required", True))
                for key, item in value.items()}  # fmt: skip
    if kind not in SIMPLE:
        return value
    try:
        found = _series(Column(None, str(kind), required, spec), [value], 0)
    except ModelError:
        raise InvalidInput(f"{where} wants {_WORDS[str(kind)]} ({kind}); it has {_shown(value)}") from None
    return found.tolist()[0] if kind in NUMBERS or kind == "boolean" else found[0]


# -- tensors


def _shaped(item: Tensor, values: Any) -> Any:
    import numpy as np

    name = "" if item.name is None else f" {item.name!r}"
    try:
        found = np.asarray(values)
        if item.dtype == "object" and item.shape == (-1,):
            return values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        wanted = np.dtype(item.dtype)
        if wanted.kind in "iu" and found.dtype.kind == "f" and not (found == np.floor(found)).all():
            raise ValueError("whole numbers are wanted")
        if wanted.kind in "iu" and found.dtype.kind in "iuf" and found.size:
            limits = np.iinfo(wanted)
            if found.min() < limits.min or found.max() > limits.max:
                raise ValueError(f"a number does not fit into {wanted}")
        if wanted.kind in "iufb" and found.dtype.kind not in "iufbO":
            raise ValueError("numbers are wanted")
        array = found.astype(wanted) if wanted.kind in "USO" else np.array(values, dtype=wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(f"the input{name} is no array of {item.dtype}: {error}") from None
    fits = len(array.shape) == len(item.shape) and all(
        [wanted in (-1, have) for wanted, have in zip(item.shape, array.shape)]
    )
    if not fits:
        raise InvalidInput(
            f"the input{name} has the shape {_form(array.shape)} and the model takes {_form(item.shape)}"
        )
    return array


def _form(shape: Sequence[int]) -> str:
    return "(" + ", ".join(["any" if length < 0 else str(length) for length in shape]) + ")"


# -- params


class Params:
    """The params of a signature: names, types and defaults."""

    def __init__(self, spec: Sequence[Mapping[str, Any]]) -> None:
        self._spec = {str(item["name"]): item for item in spec}

    @classmethod
    def of(cls, spec: Optional[Sequence[Mapping[str, Any]]]) -> Optional[Params]:
        return cls(spec) if spec else None

    def fill(self, given: Any) -> Dict[str, Any]:
        """All params: those that are given, checked, and the defaults of the rest; unknown ones are left out, as in MLflow."""
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise InvalidInput(f"params must be an object, not {_shown(given)}")
        return {
            name: self._fitted(name, item, given[name]) if name in given else item.get("default")
            for name, item in self._spec.items()
        }

    @staticmethod
    def _fitted(name: str, item: Mapping[str, Any], value: Any) -> Any:
        kind = str(item.get("type"))
        if value is None or kind not in SIMPLE:
            return value
        many = bool(item.get("shape"))
        if many != isinstance(value, list):
            raise InvalidInput(f"the param {name!r} wants {'a list' if many else 'one value'}; it has {_shown(value)}")
        for one in value if many else [value]:
            if isinstance(one, bool) != (kind == "boolean") or isinstance(one, str) != (
                kind in ("string", "datetime", "binary")
            ):
                raise InvalidInput(f"the param {name!r} wants {_WORDS[kind]} ({kind}); it has {_shown(one)}")
        column = Column(f"param {name}", kind, True, item)
        values = value if many else [value]
        if kind in NUMBERS:
            found = _numbers(column, values, 0).tolist()
        elif kind == "datetime":
            found = [_times(column, [one], 0)[0] for one in values]
        else:
            found = values
        return found if many else found[0]
