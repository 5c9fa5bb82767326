"""Pickled models: written with a note of what they name, and read so that nothing but estimators comes to life.

A pickle is a program: it may call whatever it names, with what it likes. Before one is run unasked it is read (by
models/program.py) and held against rules under which it can do nothing but put an estimator together:

* It names nothing but what stands in models/allowed.py and in `CALLS` below, and what the user has added by hand.
* A class comes to life as a bare instance; its state is set afterwards, on that instance and on nothing else.
* A call is one of `CALLS`, with arguments of the form that NumPy and scikit-learn themselves write. So no array is laid
  over bytes that are to be taken for objects, and no type of array claims to hold none.
* What may be called is never kept: an estimator cannot be made to call it later.

Then it is read by an unpickler that finds the same names and no others, and what it made is looked over (models/sound.py).
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from types import CodeType, FunctionType, ModuleType
from typing import IO, Any, Callable, Dict, FrozenSet, List, Mapping, Set, Tuple

from mlcli.errors import ModelError
from mlcli.models import allowed, program, sound, trust
from mlcli.models.loading import Found
from mlcli.models.program import Bytes, Made, Named


def _pairs(table: Mapping[str, str]) -> FrozenSet[Tuple[str, str]]:
    return frozenset((module, name) for module, names in table.items() for name in names.split())


_INSTANCES = _pairs(allowed.INSTANCES)
_VALUES = _pairs(allowed.VALUES)
_TREES = _pairs(allowed.TREES)
_BIT_GENERATORS = {
    ("numpy.random._mt19937", "MT19937"),
    ("numpy.random._pcg64", "PCG64"),
    ("numpy.random._philox", "Philox"),
    ("numpy.random._sfc64", "SFC64"),
}
_DICTS = frozenset(
    ("sklearn.utils.Bunch", "sklearn.utils._bunch.Bunch", "sklearn.covariance._graph_lasso._DictWithDeprecatedKeys")
) | {"collections.OrderedDict", "collections.Counter", "collections.defaultdict"}
_LOSSES = (
    "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss"
    " CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss"
).split()
_SGD = (
    "CyHalfBinomialLoss EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
).split()
# "_loss" is what Cython calls the module in some versions of scikit-learn.
_LOSS_MODULES = ("sklearn._loss._loss", "_loss")
_SIMPLE_DTYPE = re.compile(r"(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|U\d{1,6}|S\d{1,6}|[mM]8|V\d{1,6})\Z")
_OBJECTS, _UNICODE, _ALIGNED = 63, 8, 0x90  # flags of types of array, as NumPy writes them
_MAX_FIELDS = 64


# -- the form of each call: what its arguments are


def _numbers(args: Tuple[Any, ...]) -> bool:
    """Numbers, and nothing else."""
    return len(args) < 8 and all(isinstance(item, (int, float)) for item in args)


def _bounds(args: Tuple[Any, ...]) -> bool:
    return len(args) == 3 and all(item is None or isinstance(item, int) or _is_number(item) for item in args)


def _is_number(value: Any) -> bool:
    return isinstance(value, Made) and isinstance(value.by, Named) and value.by.name == "scalar"


def _nothing(args: Tuple[Any, ...]) -> bool:
    return args == ()


def _dtype(args: Tuple[Any, ...]) -> bool:
    """The text of a simple type, not aligned, its own copy."""
    return (
        len(args) == 3
        and args[1:] in ((False, True), (0, 1))
        and isinstance(args[0], str)
        and (args[0] in ("O8", "O4") or bool(_SIMPLE_DTYPE.match(args[0])))
    )


def _is_dtype(value: Any) -> bool:
    return isinstance(value, Made) and value.by == _DTYPE


def _of_objects(dtype: Made) -> bool:
    return str(dtype.args[0]).startswith("O")


def _empty_array(args: Tuple[Any, ...]) -> bool:
    """An array of no elements, whose content is set as its state."""
    return len(args) == 3 and args[0] == _NDARRAY and args[1] == (0,) and isinstance(args[2], (Bytes, str))


def _empty_masked(args: Tuple[Any, ...]) -> bool:
    return len(args) == 4 and args[0] in _MASKED and _empty_array(args[1:])


def _scalar(args: Tuple[Any, ...]) -> bool:
    return len(args) == 2 and _is_dtype(args[0]) and not _of_objects(args[0]) and isinstance(args[1], Bytes)


def _from_buffer(args: Tuple[Any, ...]) -> bool:
    return (
        len(args) == 4
        and isinstance(args[0], Bytes)
        and _is_dtype(args[1])
        and not _of_objects(args[1])
        and _numbers(args[2] if isinstance(args[2], tuple) else (None,))
        and args[3] in ("C", "F")
    )


def _bit_generator(args: Tuple[Any, ...]) -> bool:
    return len(args) < 2 and all(item in _BIT_GENERATORS or item in _BIT_GENERATOR_NAMES for item in args)


_BIT_GENERATOR_NAMES = frozenset(name for _, name in _BIT_GENERATORS)
_BIT_GENERATOR_CTOR = Named("numpy.random._pickle", "__bit_generator_ctor")


def _generator(args: Tuple[Any, ...]) -> bool:
    """A bit generator, or the name of one, with the function that makes it."""
    if not 1 <= len(args) <= 2 or (len(args) == 2 and args[1] != _BIT_GENERATOR_CTOR):
        return False
    return args[0] in _BIT_GENERATOR_NAMES or (isinstance(args[0], Made) and args[0].by == _BIT_GENERATOR_CTOR)


def _rebuilt(name: str) -> Callable[[Tuple[Any, ...]], bool]:
    """The function that Cython gives a class of that name: the class, a checksum, and its fields, which are numbers."""

    def check(args: Tuple[Any, ...]) -> bool:
        if len(args) != 3 or not isinstance(args[0], Named) or args[0].name != name or not isinstance(args[1], int):
            return False
        return args[2] is None or (isinstance(args[2], tuple) and _numbers(args[2]))

    return check


def _tree_class(args: Tuple[Any, ...]) -> bool:
    return len(args) == 1 and args[0] in _TREES


def _tree(args: Tuple[Any, ...]) -> bool:
    """Number of features, an array of the number of classes, and how many of these there are: it is believed."""
    if len(args) != 3 or not isinstance(args[0], int) or not isinstance(args[2], int) or not isinstance(args[1], Made):
        return False
    if args[1].by.name == "_frombuffer":
        return bool(args[1].args[2] == (args[2],))
    state = args[1].state
    return isinstance(state, tuple) and len(state) == 5 and state[1] == (args[2],)


def _raw_predict(args: Tuple[Any, ...]) -> bool:
    """The bound method that gradient boosting with early stopping keeps."""
    return (
        len(args) == 2
        and args[1] == "_raw_predict"
        and isinstance(args[0], Made)
        and isinstance(args[0].by, Named)
        and args[0].by.name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
    )


def _copy(args: Tuple[Any, ...]) -> bool:
    return args == () or (len(args) == 1 and isinstance(args[0], program.Box))


def _factory(args: Tuple[Any, ...]) -> bool:
    """What a defaultdict makes where it has nothing: a plain container or number."""
    return args in ((), (None,)) or (len(args) == 1 and args[0] in _FACTORIES)


_FACTORIES = (
    *(Named("builtins", name) for name in ("bool", "dict", "float", "int", "list", "set", "str")),
    Named("collections", "OrderedDict"),
)


_DTYPE, _NDARRAY = Named("numpy", "dtype"), Named("numpy", "ndarray")
_MASKED = (Named("numpy.ma", "MaskedArray"), Named("numpy.ma.core", "MaskedArray"))
Form = Callable[[Tuple[Any, ...]], bool]
CALLS: Dict[Tuple[str, str], Form] = {
    ("builtins", "slice"): _bounds,
    ("builtins", "getattr"): _raw_predict,
    ("collections", "OrderedDict"): _nothing,
    ("collections", "Counter"): _copy,
    ("collections", "defaultdict"): _factory,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.ma.core", "_mareconstruct"): _empty_masked,
    ("numpy.random._pickle", "__bit_generator_ctor"): _bit_generator,
    ("numpy.random._pickle", "__generator_ctor"): _generator,
    ("numpy.random._pickle", "__randomstate_ctor"): _generator,
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _rebuilt("SeedSequence"),
    ("sklearn.metrics._dist_metrics", "newObj"): _tree_class,
    ("sklearn.neighbors._ball_tree", "newObj"): _tree_class,
    ("sklearn.neighbors._kd_tree", "newObj"): _tree_class,
    ("sklearn.tree._tree", "Tree"): _tree,
    **{(module, name): _numbers for module in _LOSS_MODULES for name in _LOSSES},
    **{(module, f"__pyx_unpickle_{name}"): _rebuilt(name) for module in _LOSS_MODULES for name in _LOSSES},
    **{("sklearn.linear_model._sgd_fast", name): _numbers for name in _SGD},
}
LOSS_TYPES = frozenset(
    [f"{module}.{name}" for module in _LOSS_MODULES for name in _LOSSES]
    + [f"sklearn.linear_model._sgd_fast.{name}" for name in _SGD]
)
# Named for a call, and never kept.
_FOR_CALLS = (
    frozenset(CALLS)
    | _TREES
    | _BIT_GENERATORS
    | {
        _NDARRAY,
        *_MASKED,
        ("numpy.random.bit_generator", "SeedSequence"),
        ("numpy.random._bit_generator", "SeedSequence"),
    }
)


class Verdict:
    """The rules for a pickle that nobody vouches for; notes what goes against them. ``types`` are the user's own."""

    def __init__(
        self, types: FrozenSet[str] = frozenset(), instances: FrozenSet[Tuple[str, str]] = frozenset()
    ) -> None:
        self.types = types
        self.instances = instances  # classes of another library that its flavor vouches for
        self.names: Dict[str, bool] = {}  # every name, and whether it may be named
        self.faults: Dict[str, None] = {}  # in the order in which they were met

    @property
    def refused(self) -> List[str]:
        return [name for name, fine in self.names.items() if not fine]

    def objections(self) -> List[str]:
        """Why the pickle would not load unasked."""
        return [*([told(self.refused)] if self.refused else []), *self.faults]

    def name(self, named: Named) -> None:
        self.names[str(named)] = is_listed(named) or named in self.instances or str(named) in self.types

    def call(self, func: Any, args: Any, keywords: Any, *, new: bool) -> None:
        if not isinstance(func, Named):
            self.faults["it calls what it has made"] = None
        elif str(func) in self.types or not self.names[str(func)]:
            pass  # anything goes, or is refused by name
        elif new:
            if (
                (func not in _INSTANCES and func not in self.instances)
                or (args != () and func[1] not in _TUPLES)
                or keywords
            ):
                self.faults[f"it makes {func} in a way of its own"] = None
        elif func not in CALLS or not isinstance(args, tuple) or not CALLS[func](args):
            self.faults[f"it calls {func} in a way of its own"] = None

    def set_state(self, made: Any, state: Any) -> None:
        if not isinstance(made, Made):
            self.faults["it sets the state of what it has not made"] = None
        elif made.times and str(made.by) not in self.types:  # compiled classes take a second state for the first
            self.faults["it sets the state of one thing twice"] = None
        elif made.by == _DTYPE and not _sound_dtype(made, state):
            self.faults["it makes up a type of array"] = None

    def keep(self, named: Named) -> None:
        if named in _FOR_CALLS and str(named) not in self.types:
            self.faults[f"it keeps {named}"] = None

    def fill(self, made: Made) -> None:
        if str(made.by) not in _DICTS and str(made.by) not in self.types:
            self.faults[f"it puts items into a {made.by}"] = None

    def outside(self) -> None:
        self.faults["it takes something from outside, by a persistent id"] = None


_TUPLES = ("_ImputerTriplet", "DistributionBoundary")  # named tuples: their content is given when they are made


def _sound_dtype(made: Made, state: Any) -> bool:
    """Whether the state of a type of array is the one that NumPy writes for it."""
    if not isinstance(state, tuple) or len(state) not in (8, 9):
        return False
    version, order, subarray, names, fields, _size, _alignment, flags = state[:8]
    if version not in (3, 4) or order not in ("<", ">", "|", "=") or subarray is not None:
        return False
    kind = str(made.args[0])[0]
    if kind != "V":
        allowed_flags = _OBJECTS if kind == "O" else _UNICODE if kind in "US" else 0
        return names is None and fields is None and flags in (allowed_flags, 0 if kind != "O" else _OBJECTS)
    if names is None:
        return fields is None and flags & ~_UNICODE == 0
    if not isinstance(names, tuple) or not isinstance(fields, program.Box) or flags & ~_ALIGNED & ~_UNICODE:
        return False
    if fields.kind != "dict" or fields.size != len(fields.items) or len(names) > _MAX_FIELDS:
        return False
    return set(names) == set(fields.items) and all(
        isinstance(field, tuple) and len(field) == 2 and _is_dtype(field[0]) and not _of_objects(field[0])
        for field in fields.items.values()
    )


def is_listed(named: Tuple[str, str]) -> bool:
    """Whether a name may be in a pickle that nobody vouches for."""
    return named in _INSTANCES or named in _VALUES or named in _FOR_CALLS


def judge(
    content: bytes, types: FrozenSet[str] = frozenset(), instances: FrozenSet[Tuple[str, str]] = frozenset()
) -> Verdict:
    """Read a pickle without running it. Raises program.Damaged, and program.Strange for what cannot be followed."""
    verdict = Verdict(types, instances)
    program.read(content, verdict)
    return verdict


class _NotAllowed(pickle.UnpicklingError):
    """The pickle names something outside the list."""


class _Unpickler(pickle.Unpickler):
    """Finds what was read before, and nothing else."""

    def __init__(self, file: IO[bytes], names: FrozenSet[str]) -> None:
        super().__init__(file)
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._names or (module, name) == ("builtins", "getattr"):
            if (module, name) == ("builtins", "getattr"):
                return _bound
            raise _NotAllowed(f"{module}.{name}")
        module = _LOSS_MODULES[0] if module == "_loss" else module
        __import__(module)
        return getattr(sys.modules[module], name)


def _bound(thing: Any, name: str) -> Any:
    """Stands for getattr: the one method of gradient boosting that scikit-learn pickles."""
    if name != "_raw_predict":
        raise _NotAllowed(f"builtins.getattr of {name}")
    return thing._raw_predict  # noqa: SLF001 - scikit-learn's own


def load(path: str, found: Found, instances: FrozenSet[Tuple[str, str]] = frozenset()) -> Any:
    """Load a pickle; unless the model may run code, only one that is made of nothing but scikit-learn's own parts.

    ``instances`` are classes that a flavor vouches for beside these: setting their state runs nothing of the model's.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        if found.trusted:
            return pickle.loads(content)  # noqa: S301 - given only to who asks for it
        names = _checked(content, found, instances)
        model = _Unpickler(io.BytesIO(content), names).load()
    except program.Damaged as error:
        raise ModelError(f"{path} is damaged, or no pickle: {error}") from None
    except _NotAllowed as error:
        raise ModelError(f"{path} is not loaded: it names {error}") from None
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{path} needs something that is missing here: {error}",
            hint="the requirements.txt beside it lists what it was made with",
        ) from error
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        EOFError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelError(f"{path} is damaged, or no pickle: {error}") from error
    sound.check(model, path)
    return model


def _checked(content: bytes, found: Found, instances: FrozenSet[Tuple[str, str]]) -> FrozenSet[str]:
    """The names in a pickle that goes against no rule; raises for one that does."""
    try:
        verdict = judge(content, trust.types(), instances)
    except program.Strange as error:
        found.ask(str(error))
        raise
    if verdict.refused:
        found.ask(told(verdict.refused), verdict.refused)
    if verdict.faults:
        found.ask("; ".join(list(verdict.faults)[:3]))
    return frozenset(verdict.names)


def told(names: List[str]) -> str:
    """The names that a file should not have, so many of them as help."""
    more = f" and {len(names) - trust.MAX_TOLD} more" if len(names) > trust.MAX_TOLD else ""
    return f"it names {', '.join(name[:100] for name in names[: trust.MAX_TOLD])}{more}"


def dump(model: Any, file: IO[bytes], pickler: Any = pickle.Pickler) -> FrozenSet[str]:
    """Pickle ``model`` and return the top-level modules of everything its pickle names."""
    modules: Set[str] = set()
    inherited = getattr(pickler, "reducer_override", None)

    class Noting(pickler):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, ModuleType):
                modules.add(thing.__name__.partition(".")[0])
            else:
                named = thing if hasattr(thing, "__qualname__") else type(thing)
                module = str(getattr(named, "__module__", None) or "builtins").partition(".")[0]
                modules.add(module)
                if module == "__main__" and isinstance(thing, FunctionType):
                    modules.update(_imported(thing.__code__))
            return NotImplemented if inherited is None else inherited(self, thing)

    Noting(file, protocol=4).dump(model)  # what 5 adds is for buffers that travel apart from the pickle
    return frozenset(modules)


def dump_by_value(model: Any, path: str, reason: str) -> FrozenSet[str]:
    """Pickle ``model`` with cloudpickle, which takes along what the main script defines; ``reason`` says why it must."""
    try:
        import cloudpickle
    except ImportError:
        raise ModelError(
            f"the model needs cloudpickle, which is not installed: {reason}",
            hint="pip install cloudpickle, or move what the model uses into a module",
        ) from None
    try:
        with open(path, "wb") as file:
            modules = dump(model, file, cloudpickle.Pickler)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"the model cannot be pickled: {error}") from error
    return modules | {"cloudpickle"}


def _imported(code: CodeType) -> Set[str]:
    """The top-level modules that a function imports when it is called."""
    import dis

    found = {str(step.argval).partition(".")[0] for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"}
    return found.union(*(_imported(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
