"""skops files: written by skops, and read only where every type in them is on our list. The file's own list counts nothing."""

from __future__ import annotations

import pickle
from typing import Any, List

from mlcli.errors import ModelError
from mlcli.models import pickles
from mlcli.models.loading import Found


def dump(model: Any, path: str) -> None:
    import zipfile

    io = _io()
    try:
        io.dump(model, path, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"skops cannot represent this model: {error}", hint="leave out serialization_format"
        ) from error


def untrusted_types(path: str) -> List[str]:
    """The types in a file that skops itself would not load unasked."""
    found: List[str] = _io().get_untrusted_types(file=path)
    return found


def load(path: str, found: Found) -> Any:
    import zipfile

    io = _io()
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is not a skops file")
    try:
        strange = io.get_untrusted_types(file=path)
        refused = [] if found.trusted else [name for name in strange if not pickles.is_known(name)]
        if refused:
            found.ask(f"it names {', '.join(refused)}")
        return io.load(path, trusted=strange)
    except (zipfile.BadZipFile, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged, or no skops file: {error}") from error


def _io() -> Any:
    try:
        import skops.io
    except ImportError:
        raise ModelError("this needs skops, which is not installed", hint="pip install skops") from None
    return skops.io
