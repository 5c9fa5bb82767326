"""scikit-learn models as directories that MLflow loads too: save_model, log_model, load_model.

Why pickle is the default: MLflow 2 reads nothing else, MLflow 3 reads skops only with a list of types that it believes,
and skops costs seconds to import. What makes a pickle dangerous is who reads it, and how. Loading here asks, in order:

    the digest is one that log_model noted in this store     load it
    the file is skops, its types are scikit-learn's own      load it
    the pickle names nothing but scikit-learn's own parts    load it (models/pickles.py)
    trust=True                                               load it
    anything else                                            refuse, and say what it wanted to run
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from mlcli import rules
from mlcli._version import __version__
from mlcli.artifacts import LocalArtifacts, locate
from mlcli.errors import InvalidInput, MlcliError, ModelError
from mlcli.models import mlmodel, pickles
from mlcli.models import signature as signatures

SERIALIZATION_FORMAT_PICKLE = "pickle"
SERIALIZATION_FORMAT_CLOUDPICKLE = "cloudpickle"
SERIALIZATION_FORMAT_SKOPS = "skops"
SUPPORTED_SERIALIZATION_FORMATS = [
    SERIALIZATION_FORMAT_PICKLE,
    SERIALIZATION_FORMAT_CLOUDPICKLE,
    SERIALIZATION_FORMAT_SKOPS,
]
_EXAMPLE = "input_example.json"
_CODE = "code"


class ModelInfo(NamedTuple):
    """What was logged, and where."""

    model_uri: str
    run_id: str
    artifact_path: str
    model_uuid: str
    utc_time_created: str
    flavors: Mapping[str, Any]
    signature: Optional[Mapping[str, Any]]
    metadata: Optional[Mapping[str, Any]]
    digest: str


def save_model(
    sk_model: Any,
    path: str,
    *,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Union[str, Sequence[str], None] = None,
    extra_pip_requirements: Union[str, Sequence[str], None] = None,
    metadata: Optional[Mapping[str, Any]] = None,
    serialization_format: Optional[str] = None,
    code_paths: Optional[Sequence[str]] = None,
    pyfunc_predict_fn: str = "predict",
) -> None:
    """Write ``sk_model`` as a model directory at ``path``, which must not exist or be empty.

    ``serialization_format`` is pickle unless the model needs cloudpickle (lambdas, classes of the main script).
    ``code_paths`` are files and packages of the project's own that the model imports; they travel with it.
    """
    path = os.path.abspath(os.fspath(path))
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise MlcliError(f"{path} exists already", hint="give a path that is free")
    parent = LocalArtifacts(os.path.dirname(path))
    if os.path.isdir(path):
        os.rmdir(path)
    with parent.writing(os.path.basename(path)) as folder:
        os.makedirs(folder)
        _write(
            folder,
            sk_model,
            origin={},
            signature=signature,
            example=input_example,
            pins=_given_pins(pip_requirements),
            extra_pins=_given_pins(extra_pip_requirements) or [],
            metadata=metadata,
            form=serialization_format,
            code_paths=code_paths or (),
            predict=pyfunc_predict_fn,
        )


def log_model(
    sk_model: Any,
    artifact_path: Optional[str] = None,
    *,
    name: Optional[str] = None,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Union[str, Sequence[str], None] = None,
    extra_pip_requirements: Union[str, Sequence[str], None] = None,
    metadata: Optional[Mapping[str, Any]] = None,
    serialization_format: Optional[str] = None,
    code_paths: Optional[Sequence[str]] = None,
    pyfunc_predict_fn: str = "predict",
    registered_model_name: Optional[str] = None,
    run_id: Optional[str] = None,
) -> ModelInfo:
    """Log ``sk_model`` as an artifact of the active run (or of ``run_id``), by default named ``model``.

    Its digest is noted in the run's tags, so that this store's own models load without a question.
    """
    from mlcli import fluent

    artifact = rules.artifact_path(name or artifact_path or "model")
    if not artifact:
        raise InvalidInput("a model needs a name", hint="log_model(model, name='model')")
    if registered_model_name:
        warnings.warn(
            f"the model is logged but not registered as {registered_model_name!r}: this version has no model registry",
            stacklevel=2,
        )
    run = fluent.run_to_log(run_id)
    with run.artifacts.writing(artifact) as folder:
        os.makedirs(folder)
        content = _write(
            folder,
            sk_model,
            origin={"artifact_path": artifact, "run_id": run.run_id},
            signature=signature,
            example=input_example,
            pins=_given_pins(pip_requirements),
            extra_pins=_given_pins(extra_pip_requirements) or [],
            metadata=metadata,
            form=serialization_format,
            code_paths=code_paths or (),
            predict=pyfunc_predict_fn,
        )
        digest = mlmodel.tree_digest(folder)
    run.set_tags({digest_tag(artifact): digest})
    return ModelInfo(
        f"runs:/{run.run_id}/{artifact}",
        run.run_id,
        artifact,
        content["model_uuid"],
        content["utc_time_created"],
        content["flavors"],
        content.get("signature"),
        metadata,
        digest,
    )


def load_model(model_uri: str, dst_path: Optional[str] = None, *, trust: bool = False) -> Any:
    """Load a scikit-learn model: ``runs:/<run>/<path>`` or the path of a model directory.

    ``trust=True`` also loads what can run code while it is loaded. ``dst_path`` keeps a copy of the directory there.
    """
    artifacts, path = locate(model_uri)
    folder = artifacts.path(path)
    if not os.path.isdir(folder):
        raise ModelError(f"there is no model at {model_uri}", hint=f"{folder} is not a folder")
    if dst_path is not None:
        artifacts.get(path, os.path.join(dst_path, path.rpartition("/")[2]))
    content = mlmodel.read(folder)
    flavor = mlmodel.flavor(content, "sklearn", folder)
    trusted = trust or _made_here(folder, content)
    if not trusted:
        _check_digests(folder, content)
    if flavor.get("code"):
        if not trusted:
            raise ModelError(
                f"{model_uri} is not loaded: it brings code of its own ({flavor['code']})",
                hint="load it with trust=True if you know who made it",
            )
        _bring_code(folder, str(flavor["code"]))
    file = LocalArtifacts(folder).path(str(flavor.get("pickled_model", "")))
    if not os.path.isfile(file):
        raise ModelError(f"{model_uri} is incomplete: its file {flavor.get('pickled_model')!r} is missing")
    if flavor.get("serialization_format") == SERIALIZATION_FORMAT_SKOPS:
        return _load_skops(file, trusted)
    with open(file, "rb") as stream:
        return pickles.load(stream, file, trusted=trusted)


def _bring_code(folder: str, code: str) -> None:
    """Make the model's own code importable, from a copy: importing it in place would leave bytecode in the model."""
    import atexit
    import shutil
    import tempfile

    copy = tempfile.mkdtemp(prefix="mlcli-code-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    sys.path.insert(0, LocalArtifacts(folder).get(code, os.path.join(copy, "code")))


def digest_tag(artifact: str) -> str:
    """The tag of a run that holds the digest of the model ``artifact``."""
    tag = f"mlcli.model.{artifact}.digest"
    try:
        return rules.key(tag, "tag")
    except InvalidInput:  # a name that no tag can have
        import hashlib

        return f"mlcli.model.{hashlib.sha256(artifact.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.digest"


def _made_here(folder: str, content: Mapping[str, Any]) -> bool:
    """Whether a run of this store noted this very content: then it is as trustworthy as the store itself.

    The run is looked up by the name that the untrusted file gives; only the digest, which cannot be forged, decides.
    """
    from mlcli.errors import NotFound
    from mlcli.store import open_store

    run_id = content.get("run_id")
    if not isinstance(run_id, str):
        return False
    try:
        with open_store(create=False) as store:
            tags = store.get_run(run_id).data.tags
    except (NotFound, InvalidInput):  # another store's model; or a tracking URI that is no store of ours
        return False
    noted = {value for key, value in tags.items() if key.startswith("mlcli.model.") and key.endswith(".digest")}
    return bool(noted) and mlmodel.tree_digest(folder) in noted


def _check_digests(folder: str, content: Mapping[str, Any]) -> None:
    """Tell a damaged download from a whole one; whoever wrote the MLmodel wrote its digests too, so this grants nothing."""
    own = content.get(mlmodel.OWN_KEY)
    noted = own.get("digests") if isinstance(own, dict) else None
    for name, digest in noted.items() if isinstance(noted, dict) else ():
        file = LocalArtifacts(folder).path(str(name))
        if not os.path.isfile(file) or mlmodel.file_digest(file) != digest:
            raise ModelError(f"{folder} is damaged: {name} is not what its MLmodel says", hint="download it again")


def _write(
    folder: str,
    model: Any,
    *,
    origin: Mapping[str, str],
    signature: Any,
    example: Any,
    pins: Optional[List[str]],
    extra_pins: List[str],
    metadata: Optional[Mapping[str, Any]],
    form: Optional[str],
    code_paths: Sequence[str],
    predict: str,
) -> Dict[str, Any]:
    """Fill ``folder``; returns what its MLmodel holds."""
    if not callable(getattr(model, "fit", None)) or not callable(getattr(model, "get_params", None)):
        raise InvalidInput(
            f"{type(model).__name__} is not a scikit-learn estimator", hint="it needs the methods fit and get_params"
        )
    form, modules = _serialize(model, folder, form)
    file = "model.skops" if form == SERIALIZATION_FORMAT_SKOPS else "model.pkl"
    example_info = _write_example(folder, example)
    if signature is None and example is not None:
        signature = signatures.infer_signature(example, getattr(model, predict)(example))
    if hasattr(example, "columns") or (hasattr(example, "index") and hasattr(example, "dtype")):
        modules |= {"pandas"}
    if pins is None:
        pins = mlmodel.requirements({*modules, "sklearn", *({form} - {SERIALIZATION_FORMAT_PICKLE})})
    mlmodel.write_environment(folder, [*pins, *extra_pins])
    for path in code_paths:
        LocalArtifacts(folder).put(path, _CODE)
    content = _describe(folder, form, file, predict)
    if code_paths:
        for flavor in content["flavors"].values():
            flavor["code"] = _CODE
    content.update(origin)
    if signature is not None:
        content["signature"] = signatures.as_dict(signature)
    if example_info:
        content["saved_input_example_info"] = example_info
    if metadata is not None:
        content["metadata"] = dict(metadata)
    names = mlmodel.files(folder)
    content["model_size_bytes"] = sum(os.path.getsize(os.path.join(folder, name)) for name in names)
    content[mlmodel.OWN_KEY] = {"version": __version__, "digests": mlmodel.digests(folder)}
    mlmodel.write(folder, mlmodel.FILE, mlmodel.dump_yaml(content))
    return content


def _describe(folder: str, form: str, file: str, predict: str) -> Dict[str, Any]:
    from datetime import datetime, timezone

    import sklearn

    python = {
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "loader_module": "mlflow.sklearn",
        "model_path": file,
        "predict_fn": predict,
        "python_version": ".".join(map(str, sys.version_info[:3])),
    }
    own: Dict[str, Any] = {
        "code": None,
        "pickled_model": file,
        "serialization_format": form,
        "sklearn_version": sklearn.__version__,
    }
    if form == SERIALIZATION_FORMAT_SKOPS:  # what MLflow 3 is to believe when it loads the file; we do not
        own["skops_trusted_types"] = _skops().get_untrusted_types(file=os.path.join(folder, file))
    return {
        "flavors": {"python_function": python, "sklearn": own},
        "model_uuid": os.urandom(16).hex(),
        "utc_time_created": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S.%f}",
    }


def _serialize(model: Any, folder: str, form: Optional[str]) -> Tuple[str, FrozenSet[str]]:
    """Write the model's file; returns the format and the modules that it names."""
    if form is not None and form not in SUPPORTED_SERIALIZATION_FORMATS:
        raise InvalidInput(
            f"{form!r} is not a serialization format", hint="one of " + ", ".join(SUPPORTED_SERIALIZATION_FORMATS)
        )
    if form == SERIALIZATION_FORMAT_SKOPS:
        return form, _dump_skops(model, os.path.join(folder, "model.skops"))
    path = os.path.join(folder, "model.pkl")
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
                return SERIALIZATION_FORMAT_PICKLE, modules
            reason = "it uses classes or functions of the main script, which no other program can import"
    else:
        reason = "it was asked for"
    try:
        import cloudpickle
    except ImportError:
        raise ModelError(
            f"the model needs cloudpickle, which is not installed: {reason}",
            hint="pip install cloudpickle, or move what the model uses into a module",
        ) from None
    try:
        with open(path, "wb") as file:
            modules = pickles.dump(model, file, cloudpickle.Pickler)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ModelError(f"the model cannot be pickled: {error}") from error
    return SERIALIZATION_FORMAT_CLOUDPICKLE, modules | {"cloudpickle"}


def _dump_skops(model: Any, path: str) -> FrozenSet[str]:
    skops = _skops()
    try:
        skops.dump(model, path)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"skops cannot represent this model: {error}", hint="leave out serialization_format"
        ) from error
    return frozenset(("sklearn", "numpy", "skops"))


def _load_skops(path: str, trusted: bool) -> Any:
    import zipfile

    skops = _skops()
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is not a skops file")
    try:
        strange = skops.get_untrusted_types(file=path)
        refused = [] if trusted else [name for name in strange if not pickles.is_known(name)]
        if refused:
            raise ModelError(
                f"{path} is not loaded: loading it can run code (it names {', '.join(refused)})",
                hint="load it with trust=True if you know who made it",
            )
        return skops.load(path, trusted=strange)
    except (zipfile.BadZipFile, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged, or no skops file: {error}") from error


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise ModelError("this needs skops, which is not installed", hint="pip install skops") from None
    return skops.io


def _write_example(folder: str, example: Any) -> Dict[str, Any]:
    """Write the input example as MLflow does: tables split, arrays as nested lists."""
    if example is None:
        return {}
    import json

    if hasattr(example, "columns") and hasattr(example, "to_json"):
        text = example.to_json(orient="split", index=False, date_format="iso")
        info = {"artifact_path": _EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
    else:
        is_array = hasattr(example, "tolist")
        try:
            text = json.dumps(example.tolist() if is_array else example)
        except (TypeError, ValueError):
            raise InvalidInput(
                f"the input example cannot be kept: it is a {type(example).__name__}",
                hint="give a DataFrame, an array or a list",
            ) from None
        info = {"artifact_path": _EXAMPLE, "type": "ndarray" if is_array else "json_object"}
    mlmodel.write(folder, _EXAMPLE, text)
    return info


def _given_pins(given: Union[str, Sequence[str], None]) -> Optional[List[str]]:
    """Requirement lines from a list, or from the file that a text names, as in MLflow."""
    if given is None or not isinstance(given, (str, os.PathLike)):
        return None if given is None else [str(line) for line in given]
    try:
        with open(given, encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip() and not line.lstrip().startswith("#")]
    except OSError as error:
        raise InvalidInput(f"cannot read the requirements {given}: {error.strerror}") from None
