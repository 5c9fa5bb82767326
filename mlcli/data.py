"""Datasets as inputs of a run: `mlcli.log_input(mlcli.data.from_pandas(frame, source="wine.csv"), context="train")`.

A dataset is told by its digest: the same content has the same digest on every machine. What is kept with the run is the
name, the digest, where it came from, its columns and its size; never the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional

from mlcli import context
from mlcli.errors import InvalidInput
from mlcli.models.signature import infer_signature


class InputData:
    """Data at hand and what is known about it; ``to_dict`` is what a run keeps."""

    def __init__(self, data: Any, fields: Dict[str, Any], targets: Any = None) -> None:
        self.data = data
        self.targets = targets
        self._fields = fields

    @property
    def df(self) -> Any:
        """The data, by the name it has for DataFrames."""
        return self.data

    @property
    def features(self) -> Any:
        """The data, by the name it has for arrays."""
        return self.data

    @property
    def name(self) -> str:
        return str(self._fields["name"])

    @property
    def digest(self) -> str:
        return str(self._fields["digest"])

    def to_dict(self) -> Dict[str, Any]:
        return dict(self._fields)


def from_pandas(
    df: Any,
    source: Optional[Any] = None,
    targets: Optional[str] = None,
    name: Optional[str] = None,
    digest: Optional[str] = None,
    predictions: Optional[str] = None,
) -> InputData:
    """Describe a DataFrame; ``source`` is a path or an address, ``targets`` and ``predictions`` names of its columns."""
    for column in (targets, predictions):
        if column is not None and column not in df.columns:
            raise InvalidInput(
                f"the DataFrame has no column {column!r}", hint="it has " + ", ".join(map(str, df.columns))
            )
    profile = {"num_rows": len(df), "num_elements": int(df.size)}
    schema = {"mlflow_colspec": infer_signature(df).inputs}
    found = digest or digest_of(_table_parts(df))
    return InputData(df, _fields(name, found, source, schema, profile), targets)


def from_numpy(
    features: Any,
    source: Optional[Any] = None,
    targets: Any = None,
    name: Optional[str] = None,
    digest: Optional[str] = None,
) -> InputData:
    """Describe an array, or a dict of arrays, with its targets."""
    parts = features if isinstance(features, Mapping) else {"features": features}
    shape = {key: list(map(int, part.shape)) for key, part in parts.items()}
    size = {key: int(part.size) for key, part in parts.items()}
    single = not isinstance(features, Mapping)
    profile: Dict[str, Any] = {
        "features_shape": shape["features"] if single else shape,
        "features_size": size["features"] if single else size,
    }
    schema: Dict[str, Any] = {"mlflow_tensorspec": {"features": _tensors(features), "targets": None}}
    contents = list(parts.values())
    if targets is not None:
        profile.update(targets_shape=list(map(int, targets.shape)), targets_size=int(targets.size))
        schema["mlflow_tensorspec"]["targets"] = _tensors(targets)
        contents.append(targets)
    found = digest or digest_of(contents)
    return InputData(features, _fields(name, found, source, schema, profile), targets)


def _fields(name: Optional[str], digest: str, source: Any, schema: Any, profile: Any) -> Dict[str, Any]:
    kind, text = _source(source)
    return {
        "name": name or "dataset",
        "digest": digest,
        "source_type": kind,
        "source": text,
        "schema": json.dumps(schema),
        "profile": json.dumps(profile),
    }


def _source(source: Any) -> tuple[str, str]:
    """The kind of source and its JSON, as MLflow writes them; without one, the code that made the data."""
    if source is None:
        tags = context.default_tags()
        return "code", json.dumps({"tags": tags})
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        kind = "http" if text.startswith(("http://", "https://")) else "s3" if text.startswith("s3://") else "local"
        return kind, json.dumps({"url" if kind == "http" else "uri": text})
    try:
        return str(source._get_source_type()), str(source.to_json())  # noqa: SLF001 - MLflow's sources have no public name for it
    except AttributeError:
        raise InvalidInput(
            f"a {type(source).__name__} is not a source of data", hint="give a path or an address"
        ) from None


def _tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [{**infer_signature(part).inputs[0], "name": str(key)} for key, part in value.items()]  # type: ignore[index]
    return infer_signature(value).inputs


def digest_of(parts: Iterable[Any]) -> str:
    """The digest of what is read in this order: arrays by type, shape and content, and bytes."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            total.update(part)
            continue
        total.update(str(part.dtype.str).encode() + str(part.shape).encode())
        if part.dtype.kind == "O":
            total.update(repr(part.tolist()).encode())
        elif part.flags.c_contiguous and part.dtype.kind in "biufc" and part.size:
            total.update(part.data)  # as it lies in memory: no copy
        else:
            total.update(part.tobytes())
    return total.hexdigest()[:8]


def _table_parts(df: Any) -> Iterator[Any]:
    """The content of a DataFrame without its index: names and types of its columns, then each column.

    Numbers go as they lie in memory, 50 times faster than as text; other columns as the text of their cells.
    """
    yield ",".join(f"{column}:{dtype}" for column, dtype in zip(df.columns, df.dtypes)).encode()
    for place, dtype in enumerate(df.dtypes):
        column = df.iloc[:, place]
        if getattr(dtype, "kind", "O") in "biuf" and hasattr(dtype, "str"):
            yield column.to_numpy()
        else:
            yield str(column.to_csv(index=False, header=False, float_format=repr)).encode()
