"""scikit-learn models as directories that MLflow loads too: save_model, log_model, load_model.

Why pickle is the default and skops is not: MLflow 2 reads nothing else; MLflow 3 reads skops only with a list of types
that it believes; skops takes seconds to import, writes ten times the bytes and reads fifty times slower; and with its own
list it does not load a forest. What makes a pickle dangerous is who reads it, and how. Loading here asks, in order:

    trust=True, or this user noted the digest (models/trust.py)   load it
    the file is skops, its types are all on our list              load it (models/skops.py)
    the pickle does nothing but put listed parts together         load it (models/pickles.py)
    anything else                                                 refuse, and say what it wanted to run
"""

from __future__ import annotations

import os
import pickle
from typing import Any, Callable, FrozenSet, Mapping, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput, ModelError
from mlcli.models import flavors, loading, pickles, saving, skops
from mlcli.models.saving import Given, ModelInfo, Pins, Written

FLAVOR = "sklearn"
SERIALIZATION_FORMAT_PICKLE = "pickle"
SERIALIZATION_FORMAT_CLOUDPICKLE = "cloudpickle"
SERIALIZATION_FORMAT_SKOPS = "skops"
SUPPORTED_SERIALIZATION_FORMATS = [
    SERIALIZATION_FORMAT_PICKLE,
    SERIALIZATION_FORMAT_CLOUDPICKLE,
    SERIALIZATION_FORMAT_SKOPS,
]


def save_model(
    sk_model: Any,
    path: str,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    serialization_format: Optional[str] = None,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    pyfunc_predict_fn: str = "predict",
    metadata: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
    skops_trusted_types: Optional[Sequence[str]] = None,  # noqa: ARG001 - MLflow's signature; here the reader decides
) -> None:
    """Write ``sk_model`` as a model directory at ``path``, which must not exist or be empty.

    ``serialization_format`` is pickle unless the model needs cloudpickle (lambdas, classes of the main script).
    ``code_paths`` are files and packages of the project's own that the model imports; they travel with it.
    """
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    saving.save(path, _writer(sk_model, serialization_format, pyfunc_predict_fn), given)


def log_model(
    sk_model: Any,
    artifact_path: Optional[str] = None,
    conda_env: Any = None,
    code_paths: Optional[Sequence[str]] = None,
    *,
    name: Optional[str] = None,
    serialization_format: Optional[str] = None,
    registered_model_name: Optional[str] = None,
    signature: Any = None,
    input_example: Any = None,
    await_registration_for: Optional[int] = None,  # noqa: ARG001 - MLflow's; a version is ready at once here
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    pyfunc_predict_fn: str = "predict",
    metadata: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
    params: Optional[Mapping[str, Any]] = None,
    tags: Optional[Mapping[str, Any]] = None,
    model_type: Optional[str] = None,
    step: int = 0,
    model_id: Optional[str] = None,
    skops_trusted_types: Optional[Sequence[str]] = None,  # noqa: ARG001 - MLflow's signature; here the reader decides
    run_id: Optional[str] = None,
) -> ModelInfo:
    """Log ``sk_model`` as an artifact of the active run (or of ``run_id``), by default named ``model``.

    ``registered_model_name`` makes it a new version of that registered model. ``params``, ``tags``, ``model_type`` and
    ``step`` are kept in the model. Its digest is noted, so that what this user logged here loads without a question.
    """
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    return saving.log(
        _writer(sk_model, serialization_format, pyfunc_predict_fn),
        given,
        artifact_path=artifact_path,
        name=name,
        run_id=run_id,
        registered_model_name=registered_model_name,
        params=params,
        tags=tags,
        model_type=model_type,
        step=step,
        model_id=model_id,
    )


def load_model(model_uri: str, dst_path: Optional[str] = None, *, trust: bool = False) -> Any:
    """Load a scikit-learn model: ``runs:/<run>/<path>``, ``models:/<name>/<version>``, or the path of a directory.

    ``trust=True`` also loads what can run code while it is loaded. ``dst_path`` keeps a copy of the directory there.
    """
    found = loading.find(model_uri, trust_it=trust, dst_path=dst_path)
    loading.bring_code(found, found.flavor(FLAVOR).get("code"))
    return load(found)


def load(found: loading.Found) -> Any:
    """The estimator of a model directory."""
    # Models of MLflow before 1.x had only the python_function flavor.
    flavor = found.flavor(FLAVOR)
    return load_file(found, flavor.get("pickled_model"), flavor.get("serialization_format"))


def load_file(
    found: loading.Found, name: Any, form: Any, *, instances: FrozenSet[Tuple[str, str]] = frozenset()
) -> Any:
    """The object in a file of the model, pickled or in skops' form; ``instances`` as :func:`pickles.load` takes them."""
    path = found.path(name)
    if form == SERIALIZATION_FORMAT_SKOPS:
        return skops.load(path, found, instances)
    return pickles.load(path, found, instances)


def predictor(
    model: Any, how: Mapping[str, Any], _found: loading.Found, _config: Optional[Mapping[str, Any]] = None
) -> Tuple[Callable[..., Any], bool]:
    return flavors.plain_method(model, how), False


def _writer(model: Any, form: Optional[str], predict: str) -> saving.Writer:
    if not callable(getattr(model, "fit", None)) or not callable(getattr(model, "get_params", None)):
        raise InvalidInput(
            f"{type(model).__name__} is not a scikit-learn estimator", hint="it needs the methods fit and get_params"
        )
    if form is not None and form not in SUPPORTED_SERIALIZATION_FORMATS:
        raise InvalidInput(
            f"{form!r} is not a serialization format", hint="one of " + ", ".join(SUPPORTED_SERIALIZATION_FORMATS)
        )
    if predict.startswith("_") or (predict != "predict" and not callable(getattr(model, predict, None))):
        raise InvalidInput(f"a {type(model).__name__} has no method {predict!r}", hint="pyfunc_predict_fn='predict'")

    def write(folder: str) -> Written:
        import sklearn

        name, kind, modules = serialize(model, folder, form)
        own: dict[str, Any] = {
            "pickled_model": name,
            "serialization_format": kind,
            "sklearn_version": sklearn.__version__,
        }
        if kind == SERIALIZATION_FORMAT_SKOPS:  # what MLflow 3 is to believe when it loads the file; we do not
            own["skops_trusted_types"] = skops.untrusted_types(os.path.join(folder, name))
        python = {"loader_module": "mlflow.sklearn", "model_path": name, "predict_fn": predict}
        method = getattr(model, predict, None)
        return Written(
            FLAVOR,
            own,
            python if method is not None else None,
            modules | {"sklearn"} | ({kind} - {SERIALIZATION_FORMAT_PICKLE}),
            method,
        )

    return write


def serialize(model: Any, folder: str, form: Optional[str]) -> Tuple[str, str, FrozenSet[str]]:
    """Write ``model`` to a file in ``folder``; returns its name, its format and the modules that it names."""
    if form == SERIALIZATION_FORMAT_SKOPS:
        skops.dump(model, os.path.join(folder, "model.skops"))
        return "model.skops", form, frozenset(("sklearn", "numpy", "skops"))
    path = os.path.join(folder, "model.pkl")
    reason = "it was asked for"
    if form != SERIALIZATION_FORMAT_CLOUDPICKLE:
        try:
            with open(path, "wb") as file:
                modules = pickles.dump(model, file)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if form == SERIALIZATION_FORMAT_PICKLE:
                raise ModelError(f"the model cannot be pickled: {error}", hint="try cloudpickle") from error
            reason = str(error)
        else:
            if form or "__main__" not in modules:
                return "model.pkl", SERIALIZATION_FORMAT_PICKLE, modules
            reason = "it uses classes or functions of the main script, which no other program can import"
    return "model.pkl", SERIALIZATION_FORMAT_CLOUDPICKLE, pickles.dump_by_value(model, path, reason)
