"""The data of an evaluation: from csv, parquet, a DataFrame or arrays; its target, groups and times, and what may leak."""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from mlcli import data as inputs
from mlcli.errors import InvalidInput, MlcliError, NotFound

READ = (".csv", ".tsv", ".txt", ".parquet", ".pq")


class Table(NamedTuple):
    """Rows with what is to be predicted of each; ``noted`` is what a run keeps of them."""

    features: Any
    truth: Any
    target: str
    noted: inputs.InputData
    source: Optional[str] = None
    groups: Any = None
    times: Any = None
    predictions: Any = None

    @property
    def rows(self) -> int:
        return len(self.truth)

    @property
    def columns(self) -> List[str]:
        return [str(name) for name in getattr(self.features, "columns", ())]

    def take(self, rows: Any) -> Any:
        """Some of the rows, without their target."""
        return taken(self.features, rows)


def taken(features: Any, rows: Any) -> Any:
    return features.iloc[rows] if hasattr(features, "iloc") else features[rows]


def load(
    data: Any,
    target: Any,
    *,
    group: Any = None,
    time: Any = None,
    predictions: Any = None,
    features: Optional[Sequence[str]] = None,
    name: Optional[str] = None,
) -> Table:
    """Make a table of a path, a DataFrame, a dataset of ``mlcli.data``, or arrays.

    ``target``, ``group``, ``time`` and ``predictions`` are names of columns or columns themselves. Columns named so are
    no features, unless ``features``, the columns that the model wants, names them.
    """
    source = None
    if isinstance(data, inputs.InputData):
        target = data.targets if target is None else target
        data = data.data
    if isinstance(data, (str, os.PathLike)):
        source = os.path.abspath(os.fspath(data))
        data = read(source)
    if target is None and predictions is None:
        raise InvalidInput("no target is named", hint="--target COLUMN says what is to be predicted")
    if isinstance(data, dict) and not hasattr(data, "columns"):
        data = _frame(data)
    if not hasattr(data, "columns"):
        return _of_arrays(data, target, group, time, predictions, source)
    _check_names([str(column) for column in data.columns], "the data", "have")
    taken_out: List[Any] = []

    def column(given: Any, what: str) -> Any:
        if given is None:
            return None
        if not _is_name(given):
            return _column(given, len(data), what)
        if given not in data.columns:
            raise InvalidInput(f"the data have no column {given!r} ({what})", hint=_near(str(given), data.columns))
        taken_out.append(given)
        return data[given].to_numpy()

    truth = column(target, "target")
    parts = [column(given, what) for given, what in ((group, "group"), (time, "time"), (predictions, "predictions"))]
    _check_truth(truth, target if _is_name(target) else "target")
    parts = _checked(parts, group, time, predictions)
    if features is not None:
        missing = [name for name in features if name not in data.columns]
        if missing:
            raise InvalidInput(
                f"the model wants the columns {', '.join(missing)}, which the data do not have",
                hint="they have " + ", ".join(map(str, data.columns)),
            )
        used = data[list(features)]
    else:
        used = data.drop(columns=list(dict.fromkeys(taken_out)))
    called = str(target) if _is_name(target) else "target"
    noted = inputs.from_pandas(
        data, source=source, targets=called if called in data.columns else None, name=name or _name(source)
    )
    return Table(used, truth, called, noted, source, *parts)


def _of_arrays(data: Any, target: Any, group: Any, time: Any, predictions: Any, source: Optional[str]) -> Table:
    import numpy as np

    try:
        array = data if hasattr(data, "shape") else np.asarray(data)
    except ValueError:
        raise InvalidInput("the rows of the data differ in length", hint="give as many values in each row") from None
    if not array.shape:
        raise InvalidInput(
            f"a {type(data).__name__} is no data", hint="give a file, a DataFrame, an array, or a list of rows"
        )
    for given, what in ((target, "targets"), (group, "groups"), (time, "times"), (predictions, "predictions")):
        if _is_name(given):
            raise InvalidInput(f"arrays have no column {given!r}", hint=f"give the {what} as an array of their own")
    truth = _column(target, array.shape[0], "target")
    _check_truth(truth, "target")
    parts = [
        None if given is None else _column(given, array.shape[0], what)
        for given, what in ((group, "group"), (time, "time"), (predictions, "predictions"))
    ]
    parts = _checked(parts, group, time, predictions)
    dense = array.toarray() if hasattr(array, "toarray") else array
    noted = inputs.from_numpy(dense, source=source, targets=truth)
    return Table(array, truth, "target", noted, source, *parts)


def _is_name(given: Any) -> bool:
    return isinstance(given, str)


def _column(values: Any, rows: int, what: str) -> Any:
    import numpy as np

    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or len(found) != rows:
        raise InvalidInput(f"the {what} has the shape {found.shape}, the data have {rows} rows")
    return found


def _check_names(names: Sequence[str], where: str, verb: str) -> None:
    """Refuse two columns of one name: which of them is meant cannot be told."""
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{where} {verb} the column {twice[0]!r} more than once", hint="rename or drop one of them")


def _missing(values: Any) -> int:
    return sum([value is None or value != value for value in values.tolist()])  # noqa: PLR0124 - NaN is not itself


def _check_truth(truth: Any, name: str) -> None:
    import numpy as np

    if truth is None:
        return
    if len(truth) == 0:
        raise InvalidInput("the data have no rows", hint="a header alone tells nothing")
    missing = _missing(truth)
    if missing:
        raise InvalidInput(
            f"the target {name!r} is missing in {missing} of {len(truth)} rows", hint="leave those rows out of the data"
        )
    infinite = int(np.isinf(truth).sum()) if truth.dtype.kind == "f" else 0
    if infinite:
        raise InvalidInput(
            f"the target {name!r} is infinite in {infinite} of {len(truth)} rows",
            hint="leave those rows out of the data",
        )


def _checked(parts: Sequence[Any], *given: Any) -> List[Any]:
    """Groups, times and predictions as they can be used: none is missing, and times have an order."""
    for values, named, what in zip(parts, given, ("group", "time", "prediction")):
        missing = 0 if values is None else _missing(values)
        if missing:
            called = f"{what} {named!r}" if _is_name(named) else what
            raise InvalidInput(
                f"the {called} is missing in {missing} of {len(values)} rows", hint="leave those rows out of the data"
            )
    groups, times, predictions = parts
    return [groups, None if times is None else _ordered(times, given[1]), predictions]


def _ordered(times: Any, given: Any) -> Any:
    """The times as something that sorts as time runs: texts must be numbers or dates of ISO 8601.

    As texts 02/01/2024 would come after 01/12/2024, and "10" before "9".
    """
    import numpy as np

    if times.dtype.kind not in "OUST":
        return times
    called = f"the time {given!r}" if _is_name(given) else "the time"
    texts = [str(value) if isinstance(value, str) else None for value in times.tolist()]
    if None in texts:
        try:
            np.argsort(times, kind="stable")
        except TypeError:
            kinds = " and ".join(sorted({type(value).__name__ for value in times.tolist()}))
            raise InvalidInput(f"{called} has no order: it mixes {kinds}", hint="give one kind of time") from None
        return times
    said = [text for text in texts if text is not None]
    try:
        return np.array([float(text) for text in said])
    except ValueError:
        pass
    found = [_moment(text) for text in said]
    wrong = [text for text, moment in zip(said, found) if moment is None]
    if wrong:
        raise InvalidInput(
            f"{called} cannot be put in order: {wrong[0]!r} is neither a number nor a date",
            hint="write dates as 2024-01-31 or 2024-01-31T12:00:00",
        )
    return np.array(found, dtype="datetime64[us]")


def _moment(text: str) -> Any:
    """A date of ISO 8601 in UTC, where it names a zone; None of anything else."""
    import re
    from datetime import datetime, timezone

    match = re.fullmatch(
        r"(\d{4})-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?\s*(Z|[+-]\d\d:?\d\d)?)?)?",
        text.strip(),
    )
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    fields = [year, month, day or "1", hour or "0", minute or "0", second or "0", (fraction or "0").ljust(6, "0")]
    try:
        found = datetime(*[int(field) for field in fields])  # type: ignore[arg-type]  # noqa: DTZ001 - see the zone
        if zone not in (None, "Z"):
            offset = datetime.strptime(zone.replace(":", ""), "%z").utcoffset()
            found = (found.replace(tzinfo=timezone.utc) - (offset or found.resolution * 0)).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return found


def _name(source: Optional[str]) -> Optional[str]:
    return os.path.splitext(os.path.basename(source))[0] if source else None


def _near(word: str, known: Any) -> str:
    import difflib

    names = [str(name) for name in known]
    near = [name for name in names if name.lower() == word.lower()] or difflib.get_close_matches(word, names, 1)
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"did you mean {near[0]!r}? They have {shown}" if near else f"they have {shown}"


# -- files


def read(path: str) -> Any:
    """The file as a DataFrame."""
    if not os.path.exists(path):
        raise NotFound(f"there is no file {path}", hint=f"the current folder is {os.getcwd()}")
    ending = os.path.splitext(path)[1].lower()
    if os.path.isdir(path) or ending not in READ:
        raise InvalidInput(f"{path} is neither csv nor parquet", hint="the name says which: " + ", ".join(READ))
    try:
        import pandas as pd
    except ImportError:
        raise MlcliError(f"reading {path} needs pandas", hint="pip install pandas") from None
    try:
        if ending in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return _read_csv(path, "\t" if ending == ".tsv" else ",")
    except ImportError:
        raise MlcliError("Parquet needs pyarrow", hint="pip install pyarrow, or give a csv") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is not UTF-8: its byte {error.object[error.start]:#04x} stands for no character",
            hint=f"iconv -f ENCODING -t UTF-8 {os.path.basename(path)} > utf8.csv; ENCODING is often cp1252 or UTF-16",
        ) from None
    except (ValueError, OSError) as error:  # pandas' errors of parsing are ValueErrors, pyarrow's both
        raise InvalidInput(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _read_csv(path: str, separator: str) -> Any:
    import csv
    import warnings

    import pandas as pd

    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next((line for line in csv.reader(file, delimiter=separator) if line), [])
    if not header:
        raise InvalidInput(f"{path} is empty", hint="a csv begins with the names of its columns")
    if len(header) == 1:
        other = {sign: header[0].count(sign) for sign in (",", ";", "\t", "|") if sign in header[0]}
        if other:
            raise InvalidInput(
                f"{path} seems to be separated by {max(other, key=lambda sign: other[sign])!r}, read is {separator!r}",
                hint="save it with commas, or with tabs as .tsv; or read it with pandas and give mlcli.evaluate the DataFrame",
            )
    _check_names(header, path, "has")
    with warnings.catch_warnings():
        # Else the surplus of a longer line shifts all columns: pandas takes the first for names of rows.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, sep=separator, index_col=False)
        except pd.errors.ParserWarning:
            raise InvalidInput(
                f"{path} has lines with more cells than its header, which names {len(header)} columns",
                hint="name every column; quote cells that hold the separator",
            ) from None


def _frame(columns: Dict[str, Any]) -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise MlcliError("a dictionary of columns needs pandas", hint="pip install pandas") from None
    return pd.DataFrame(columns)


def complaints(features: Any) -> str:
    """Which columns hold what most models cannot use: missing or infinite values, texts; "" where none does."""
    import numpy as np

    if not hasattr(features, "columns"):
        array = np.asarray(features)
        if array.dtype.kind != "f":
            return ""
        counts = [(int(np.isnan(array).sum()), "missing"), (int(np.isinf(array).sum()), "infinite")]
        return "; ".join([f"{number} values are {what}" for number, what in counts if number])
    found = []
    for name in features.columns:
        column = features[name]
        missing = int(column.isna().sum())
        infinite = int(np.isinf(column).sum()) if getattr(column.dtype, "kind", "") == "f" else 0
        if missing:
            found.append(f"{name!r} is missing in {missing} of {len(column)} rows")
        if infinite:
            found.append(f"{name!r} is infinite in {infinite} of {len(column)} rows")
        if str(column.dtype) in ("object", "str", "string", "category"):
            found.append(f"{name!r} is text")
    return "; ".join(found[:5]) + ("; ..." if len(found) > 5 else "")


# -- what may leak


def row_ids(features: Any) -> Any:
    """A number for each row; rows that are alike have the same."""
    import numpy as np

    if hasattr(features, "toarray"):
        features = features.toarray()
    if hasattr(features, "columns"):
        import pandas as pd

        return pd.util.hash_pandas_object(features, index=False).to_numpy()
    array = np.ascontiguousarray(features)
    if array.dtype.kind == "O":
        return np.array([hash(tuple(row)) for row in array.tolist()])
    flat = array.reshape(len(array), -1)
    return np.unique(flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel(), return_inverse=True)[
        1
    ]


def leaks(table: Table, splits: Sequence[Tuple[Any, Any]], *, grouped: bool, ordered: bool) -> List[str]:
    """What makes the score look better than the model is: rows, groups or times on both sides of a split."""
    import numpy as np

    found = []
    ids = row_ids(table.features)
    if len(np.unique(ids)) < len(ids):
        both = np.unique(np.concatenate([test[np.isin(ids[test], ids[train])] for train, test in splits]))
        if len(both):
            found.append(
                f"{len(both)} of {table.rows} rows are tested on a model that was trained on a row just like them; drop the"
                " duplicates, or keep them together with --group"
            )
    if table.groups is not None and not grouped:
        crossing = [np.isin(table.groups[test], table.groups[train]).any() for train, test in splits]
        if any(crossing):
            found.append(
                f"groups are on both sides of {sum(crossing)} of {len(splits)} splits: what is known of a group helps with its tests"
            )
    if table.times is not None and not ordered:
        found.append(
            "rows have times, but are split regardless of them: a model is tested on rows older than those it knows; --method timeseries keeps their order"
        )
    if table.groups is None:
        found += _identifiers(table, splits)
    return found


def _identifiers(table: Table, splits: Sequence[Tuple[Any, Any]]) -> List[str]:
    """Columns that by their name tell whom a row is about, with the same one on both sides."""
    import numpy as np

    found = []
    for name in table.columns:
        if not (name.lower() in ("id", "user", "patient", "customer") or name.lower().endswith(("_id", "userid"))):
            continue
        values = table.features[name].to_numpy()
        train, test = splits[0]
        if 1 < len(set(values.tolist())) < len(values) and np.isin(values[test], values[train]).any():
            found.append(
                f"the column {name!r} has the same values in training and in test rows; --group {name} keeps each on one side"
            )
    return found
