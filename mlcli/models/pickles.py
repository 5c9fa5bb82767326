"""Pickled models: written with a note of what they name, and read so that nothing but estimators comes to life.

A pickle may call anything it can name. The reader here lets it name the classes of scikit-learn that hold what was
learned (estimators, trees, losses, kernels), the arrays of NumPy and SciPy, and plain containers: enough for the models
of scikit-learn itself, and nothing that opens a file, starts a program or imports a module. All else needs trust.
"""

from __future__ import annotations

import pickle
from types import CodeType, FunctionType, ModuleType
from typing import IO, Any, FrozenSet, Set

from mlcli.errors import ModelError
from mlcli.models.loading import Found

# sklearn.<one of these>... Not among them are datasets, which read files, and utils, which wrap functions and threads.
_SKLEARN_PARTS = frozenset(
    "_loss base calibration cluster compose covariance cross_decomposition decomposition discriminant_analysis dummy "
    "ensemble feature_extraction feature_selection gaussian_process impute isotonic kernel_approximation kernel_ridge "
    "linear_model manifold mixture model_selection multiclass multioutput naive_bayes neighbors neural_network pipeline "
    "preprocessing random_projection semi_supervised svm tree".split()
)
_CLASSES = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "OrderedDict defaultdict deque Counter",
    "numpy": "ndarray dtype int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 "
    "bool_ bool str_ object_ datetime64 timedelta64",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "numpy.random.bit_generator": "SeedSequence",
    "sklearn.utils._bunch": "Bunch",
    "sklearn.utils": "Bunch",
    "sklearn.metrics._scorer": "_PassthroughScorer",
    "scipy.interpolate._bsplines": "BSpline",
}
_FUNCTIONS = {
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.ma.core": "_mareconstruct",
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "copyreg": "_reconstructor",
    "sklearn.neighbors._kd_tree": "newObj",
    "sklearn.neighbors._ball_tree": "newObj",
    "sklearn.metrics._dist_metrics": "newObj",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
    "numpy": "mean",
    "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence",
    "sklearn._loss._loss": "__pyx_unpickle_CyHalfSquaredError __pyx_unpickle_CyAbsoluteError "
    "__pyx_unpickle_CyPinballLoss __pyx_unpickle_CyHuberLoss __pyx_unpickle_CyHalfPoissonLoss "
    "__pyx_unpickle_CyHalfGammaLoss __pyx_unpickle_CyHalfTweedieLoss __pyx_unpickle_CyHalfTweedieLossIdentity "
    "__pyx_unpickle_CyHalfBinomialLoss __pyx_unpickle_CyHalfMultinomialLoss __pyx_unpickle_CyExponentialLoss",
    "sklearn.cluster._kmeans": "_kmeans_single_lloyd _kmeans_single_elkan",
    "sklearn.linear_model._sgd_fast": "__pyx_unpickle_Regression __pyx_unpickle_Classification",
}
_NAMED = frozenset((module, name) for module, names in _CLASSES.items() for name in names.split())
_CALLED = frozenset((module, name) for module, names in _FUNCTIONS.items() for name in names.split())


class _NotAllowed(pickle.UnpicklingError):
    """The pickle names something outside the list."""


class _Unpickler(pickle.Unpickler):
    """Finds what is listed above and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if _may_look(module, name):
            found = super().find_class(module, name)
            if (module, name) in _NAMED or (module, name) in _CALLED or (isinstance(found, type) and _at_home(found)):
                return found
        raise _NotAllowed(f"{module}.{name}")


def _may_look(module: str, name: str) -> bool:
    """Whether the module may be imported to look for the name."""
    if "." in name:  # protocol 4 follows dots, out of a class into its module's globals
        return False
    if (module, name) in _NAMED or (module, name) in _CALLED:
        return True
    return _is_learned(module) and not any("test" in part for part in module.split("."))


def _is_learned(module: str) -> bool:
    parts = [*module.split("."), ""]
    return (
        (parts[0] == "sklearn" and parts[1] in _SKLEARN_PARTS)
        or module == "sklearn.metrics._dist_metrics"
        or parts[:2] == ["scipy", "sparse"]
    )


def _at_home(found: type) -> bool:
    """Whether the class belongs to these modules: they import others, such as joblib's, that a pickle must not reach."""
    return _is_learned(found.__module__) and "." in found.__module__


def load(path: str, found: Found) -> Any:
    """Load a pickle; unless the model may run code, only one that is made of nothing but scikit-learn's own parts."""
    try:
        with open(path, "rb") as file:
            reader = pickle.Unpickler(file) if found.trusted else _Unpickler(file)  # noqa: S301 - given only to who asks
            return reader.load()
    except _NotAllowed as error:
        found.ask(f"it names {error}")
        raise
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{path} needs something that is missing here: {error}",
            hint="the requirements.txt beside it lists what it was made with",
        ) from error
    except (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise ModelError(f"{path} is damaged, or no pickle: {error}") from error


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

    Noting(file, protocol=pickle.DEFAULT_PROTOCOL).dump(model)
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


def is_known(type_name: str) -> bool:
    """Whether a type, written ``module.name``, may come to life without trust."""
    module, _, name = type_name.rpartition(".")
    if (module, name) in _NAMED or (module, name) in _CALLED:
        return True
    if not _may_look(module, name):
        return False
    import importlib

    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and _at_home(found)
