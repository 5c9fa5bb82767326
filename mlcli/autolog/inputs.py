"""What a training was given: the data, the answers and weights by their places in `fit`, a few rows to show, a dataset to note."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence

from mlcli import content, data
from mlcli.autolog.session import Session

EXAMPLE_ROWS = 5


class Given(NamedTuple):
    """The arguments of a call of `fit` that scores are made of."""

    X: Any
    y: Any
    sample_weight: Any


def given_to(fit: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Given:
    """The first argument is the data and the second the answers, whatever they are called."""
    named = arguments(fit, args, kwargs)
    names = [name for name in list(inspect.signature(fit).parameters)[1:] if name not in ("args", "kwargs")]
    first, second = (named.get(names[place]) if len(names) > place else None for place in (0, 1))
    if len(names) > 1 and names[1] == "sample_weight":
        second = None
    return Given(first, second, named.get("sample_weight"))


def arguments(method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
    """The arguments of a method's call by name, without its own object."""
    names = list(inspect.signature(method).parameters)[1:]
    return {**dict(zip(names, args)), **kwargs}


def rows(X: Any) -> Any:
    """A copy of the first rows, which the training cannot change."""
    if X is None:
        return None
    return copy.deepcopy(X.iloc[:EXAMPLE_ROWS] if hasattr(X, "iloc") else X[:EXAMPLE_ROWS])


def as_example(few: Any) -> Any:
    """Rows in the form that a signature is made of: lists of numbers are arrays."""
    if isinstance(few, (list, tuple)) and few and not isinstance(few[0], (str, Mapping)):
        numpy = sys.modules["numpy"]
        return numpy.asarray(few)
    return few


def is_sparse(X: Any) -> bool:
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def describe(X: Any, y: Any = None, name: Optional[str] = None) -> Optional[data.InputData]:
    """The data as a dataset; None for what is neither a table nor numbers. Sparse data stay sparse."""
    if hasattr(X, "columns") and hasattr(X, "iloc"):
        return data.from_pandas(X, name=name)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if is_sparse(X):
        compact = X.tocsr()
        parts = (compact.data, compact.indices, compact.indptr)
        digest = data.digest_of(parts if y is None else (*parts, _plain(numpy, y)))
        return data.from_numpy(compact, name=name, digest=digest)
    if (
        isinstance(X, (list, tuple)) and X and not isinstance(X[0], str)
    ):  # texts as an array are all as long as the longest
        X = numpy.asarray(X)
    if not isinstance(X, numpy.ndarray) or X.dtype.kind == "O":
        return None
    return data.from_numpy(X, targets=None if y is None else _plain(numpy, y), name=name)


def _plain(numpy: Any, y: Any) -> Any:
    if is_sparse(y):
        y = y.toarray()
    array = numpy.asarray(y)
    return array.astype(str) if array.dtype.kind == "O" else array


def note(session: Session, dataset: Optional[data.InputData], context: str) -> None:
    """Log a dataset that the training read; one that was read twice is told by what it was read for first."""
    if dataset is None or (dataset.name, dataset.digest) in session.noted:
        return
    session.noted.add((dataset.name, dataset.digest))
    session.run.log_input(content.dataset(dataset), {"mlflow.data.context": context})
