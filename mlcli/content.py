"""What the objects that people log become: JSON, images, tables, datasets, and runs as a DataFrame."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from mlcli.entities import Dataset, Run
from mlcli.errors import InvalidInput, MlcliError


def dataset(given: Any) -> Dataset:
    if isinstance(given, Dataset):
        return given
    try:
        fields = given.to_dict()
        return Dataset(
            str(fields["name"]),
            str(fields["digest"]),
            str(fields["source_type"]),
            fields["source"] if isinstance(fields["source"], str) else json_text(fields["source"]),
            fields.get("schema"),
            fields.get("profile"),
        )
    except (AttributeError, TypeError, KeyError):
        raise InvalidInput(
            f"a {type(given).__name__} is not a dataset",
            hint="log mlcli.entities.Dataset(name, digest, source_type, source)",
        ) from None


def json_text(value: Any, indent: Optional[int] = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain_one)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"this cannot be written as JSON: {error}") from None


def _plain_one(value: Any) -> Any:
    """The plain Python value of a NumPy scalar or array, a date, a path."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def plain(value: Any) -> Any:
    return json.loads(json_text(value))


def picture(image: Any) -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise MlcliError("log_image needs Pillow, which is not installed", hint="pip install pillow") from None
    if isinstance(image, PIL.Image.Image):
        return image
    if not hasattr(image, "dtype"):
        raise InvalidInput(f"a {type(image).__name__} is not an image", hint="give a Pillow image or an array")
    if image.dtype.kind == "f":
        if image.size and not (image.min() >= 0 and image.max() <= 1):
            raise InvalidInput("the values of a float image are from 0 to 1")
        image = (image * 255).round()
    elif image.dtype.kind == "b":
        image = image * 255
    elif image.size and not (image.min() >= 0 and image.max() <= 255):
        raise InvalidInput("the values of an integer image are from 0 to 255")
    if len(image.shape) == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    try:
        return PIL.Image.fromarray(image.astype("uint8"))
    except (TypeError, ValueError):
        raise InvalidInput(f"an array of shape {image.shape} is not an image") from None


def table(data: Any) -> Tuple[List[str], List[List[Any]]]:
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        data = data.to_dict(orient="list")
    if not isinstance(data, Mapping):
        raise InvalidInput(
            f"a {type(data).__name__} is not a table", hint="give a DataFrame or a dictionary of columns"
        )
    values = {str(name): list(item) if _is_column(item) else [item] for name, item in data.items()}
    lengths = {len(item) for item in values.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"the columns of a table are of one length, these are of {sorted(lengths)}")
    return list(values), [list(row) for row in zip(*values.values())]


def _is_column(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def read_table(path: str, name: str) -> Optional[Dict[str, Any]]:
    """A table that was logged; None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
        return {"columns": list(table["columns"]), "data": list(table["data"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise InvalidInput(f"the artifact {name!r} is not a table") from None


def pandas(caller: str, instead: str = "") -> Any:
    try:
        import pandas as pd
    except ImportError:
        hint = f"pip install pandas, or ask for {instead}" if instead else "pip install pandas"
        raise MlcliError(f"{caller} needs pandas, which is not installed", hint=hint) from None
    return pd


def frame(pandas: Any, runs: Sequence[Run]) -> Any:
    """Runs as MLflow's table: a row each; what a run does not have is None, or NaN for a metric."""
    columns: Dict[str, List[Any]] = {
        name: [getattr(run.info, name) for run in runs]
        for name in ("run_id", "experiment_id", "status", "artifact_uri")
    }
    for name in ("start_time", "end_time"):
        columns[name] = pandas.to_datetime([getattr(run.info, name) for run in runs], unit="ms", utc=True)
    for part, missing in (("metrics", float("nan")), ("params", None), ("tags", None)):
        for key in sorted({key for run in runs for key in getattr(run.data, part)}):
            columns[f"{part}.{key}"] = [getattr(run.data, part).get(key, missing) for run in runs]
    return pandas.DataFrame(columns)
