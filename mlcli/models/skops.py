"""skops files: written by skops, and read only where every type in them is on our list. The file's own list counts nothing.

A skops file is a zip with a schema, which names what to make and how, and arrays. The schema is read here first, without
skops: each entry has a loader, and for each loader stands below what it may make unasked.
"""

from __future__ import annotations

import json
import pickle
from typing import Any, Dict, FrozenSet, List, NamedTuple, Sequence, Tuple

from mlcli.errors import ModelError
from mlcli.models import allowed, pickles, sound, trust
from mlcli.models.loading import Found

SCHEMA = "schema.json"
PROTOCOL = 2  # what skops 0.10 and newer write; older forms had holes
MAX_ENTRIES = 200_000
MAX_RATIO = 200  # of a file larger than this:
SMALL = 64 * 1024 * 1024


def _names(*tables: Dict[str, str]) -> FrozenSet[str]:
    return frozenset(f"{module}.{name}" for table in tables for module in table for name in table[module].split())


def _only(*names: str) -> FrozenSet[str]:
    return frozenset(names)


_VALUES = _names(allowed.VALUES)
_SCALARS = frozenset(
    f"numpy.{name}"
    for name in "bool bool_ str_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64"
    " complex128 datetime64 timedelta64".split()
)
_MAKES: Dict[str, FrozenSet[str]] = {
    "ObjectNode": _names(allowed.INSTANCES, allowed.TREES),
    "TreeNode": _only("sklearn.tree._tree.Tree"),
    "LossNode": pickles.LOSS_TYPES,
    "FunctionNode": _VALUES,
    "TypeNode": _VALUES | _names(allowed.INSTANCES) | _only("collections.OrderedDict"),
    "NdArrayNode": _SCALARS | _only("numpy.ndarray"),
    "MaskedArrayNode": _only("numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"),
    "DTypeNode": _only("numpy.dtype"),
    "RandomStateNode": _only("numpy.random.mtrand.RandomState"),
    "RandomGeneratorNode": _only("numpy.random._generator.Generator"),
    "SparseMatrixNode": frozenset(name for name in _names(allowed.INSTANCES) if name.startswith("scipy.sparse.")),
    "DictNode": _only("builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"),
    "DefaultDictNode": _only("collections.defaultdict"),
    "ListNode": _only("builtins.list"),
    "SetNode": _only("builtins.set"),
    "TupleNode": _only("builtins.tuple", "sklearn._loss.link.Interval"),
    "SliceNode": _only("builtins.slice"),
    "BytesNode": _only("builtins.bytes"),
    "BytearrayNode": _only("builtins.bytearray"),
    "JsonNode": _only("builtins.str"),
    "CachedNode": _only(),
}
_LISTED = frozenset().union(*_MAKES.values())


class Entry(NamedTuple):
    """What the schema makes: a type, and the loader that makes it."""

    loader: str
    name: str

    @property
    def fine(self) -> bool:
        return self.loader == "CachedNode" or self.name in _MAKES.get(self.loader, ())


def dump(model: Any, path: str) -> None:
    from zipfile import ZIP_DEFLATED

    try:
        _io().dump(model, path, compression=ZIP_DEFLATED, compresslevel=1)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, NotImplementedError, RecursionError) as error:
        raise ModelError(
            f"skops cannot represent this model: {error}", hint="leave out serialization_format"
        ) from error


def untrusted_types(path: str) -> List[str]:
    """The types in a file that skops itself would not load unasked."""
    found: List[str] = _io().get_untrusted_types(file=path)
    return found


def load(path: str, found: Found, instances: FrozenSet[Tuple[str, str]] = frozenset()) -> Any:
    """Load a skops file; unless the model may run code, only one whose types are on our list.

    ``instances`` are classes that a flavor vouches for beside these.
    """
    from zipfile import BadZipFile

    try:
        entries, protocol = read(path)
        if not found.trusted:
            for why, names in _objections(entries, protocol, trust.types(), instances):
                found.ask(why, names)
        io = _io()
        model = io.load(path, trusted=io.get_untrusted_types(file=path))
    except (
        BadZipFile,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelError(f"{path} is damaged, or no skops file: {error}") from error
    if not found.trusted:
        sound.check(model, path)
    return model


def objections(
    entries: Sequence[Entry],
    protocol: Any,
    types: FrozenSet[str],
    instances: FrozenSet[Tuple[str, str]] = frozenset(),
) -> List[str]:
    """Why a file would not load unasked."""
    return [why for why, _ in _objections(entries, protocol, types, instances)]


def _objections(
    entries: Sequence[Entry], protocol: Any, types: FrozenSet[str], instances: FrozenSet[Tuple[str, str]]
) -> List[Tuple[str, List[str]]]:
    """Each with the names that would have to be trusted, where these are all it takes."""
    vouched = {Entry("ObjectNode", f"{module}.{name}") for module, name in instances}
    strange = [entry for entry in entries if not entry.fine and entry.name not in types and entry not in vouched]
    unlisted = sorted({entry.name for entry in strange if entry.name not in _LISTED})
    result = [(pickles.told(unlisted), unlisted)] if unlisted else []
    # Each of the others is on the list, but not for that.
    result += [
        (f"it makes {entry.name[:100]} by {entry.loader[:100]}", []) for entry in strange if entry.name in _LISTED
    ]
    if protocol != PROTOCOL:
        result.append((f"it has the form of an old skops, {str(protocol)[:20]}", []))
    return result


def read(path: str) -> Tuple[List[Entry], Any]:
    """What a file would make, and its protocol, read without skops. Raises ModelError for what is no skops file."""
    import zipfile

    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is not a skops file")
    with zipfile.ZipFile(path) as archive:
        _check_size(archive.infolist(), path)
        try:
            schema = json.loads(archive.read(SCHEMA))
        except KeyError:
            raise ModelError(f"{path} is not a skops file: it has no {SCHEMA}") from None
    if not isinstance(schema, dict):
        raise ModelError(f"{path} is not a skops file: its schema is no map")
    return _entries(schema), schema.get("protocol")


def _check_size(entries: List[Any], path: str) -> None:
    """Refuse an archive that is small here and would be huge in memory."""
    packed, size = sum(item.compress_size for item in entries), sum(item.file_size for item in entries)
    if len(entries) > MAX_ENTRIES or (size > SMALL and size > MAX_RATIO * packed):
        raise ModelError(f"{path} is refused: its {len(entries)} parts of {packed} bytes would take {size} bytes")


def _entries(schema: Any) -> List[Entry]:
    found: Dict[Entry, None] = {}
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "__loader__" in part or "__class__" in part:
                loader, module, name = (str(part.get(key)) for key in ("__loader__", "__module__", "__class__"))
                found[Entry(loader, f"{module}.{name}")] = None
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return list(found)


def _io() -> Any:
    try:
        import skops.io
    except ImportError:
        raise ModelError("this needs skops, which is not installed", hint="pip install skops") from None
    return skops.io
