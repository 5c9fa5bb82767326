"""Custom Python models: an object with ``predict``, or a function, kept by cloudpickle as MLflow keeps them.

Such a model is code. It loads unasked where this user logged it; anywhere else it takes trust.
"""

from __future__ import annotations

import os
import pickle
from typing import Any, Callable, Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

from mlcli.artifacts import LocalArtifacts, download
from mlcli.errors import InvalidInput, ModelError
from mlcli.models import loading, pickles, python_model, saving
from mlcli.models.python_model import FunctionModel, PythonModelContext
from mlcli.models.saving import Given, ModelInfo, Pins, Written

FLAVOR = "python_function"
LOADER = "mlflow.pyfunc.model"
_FILE = "python_model.pkl"
_COMPRESSIONS = {"lzma": "lzma", "bzip2": "bz2", "gzip": "gzip"}


def save_model(
    path: str,
    loader_module: Optional[str] = None,
    data_path: Optional[str] = None,
    code_paths: Optional[Sequence[str]] = None,
    conda_env: Any = None,
    python_model: Any = None,
    artifacts: Optional[Mapping[str, str]] = None,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    metadata: Optional[Mapping[str, Any]] = None,
    model_config: Optional[Mapping[str, Any]] = None,
    extra_files: Optional[Sequence[str]] = None,
) -> None:
    """Write a custom model at ``path``: a PythonModel or a function, or a module with the function ``_load_pyfunc``.

    ``artifacts`` are files, by name, that it finds in its context: paths, or URIs such as ``runs:/...``.
    """
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    saving.save(path, _writer(python_model, artifacts, model_config, loader_module, data_path), given)


def log_model(
    artifact_path: Optional[str] = None,
    loader_module: Optional[str] = None,
    data_path: Optional[str] = None,
    code_paths: Optional[Sequence[str]] = None,
    conda_env: Any = None,
    python_model: Any = None,
    artifacts: Optional[Mapping[str, str]] = None,
    registered_model_name: Optional[str] = None,
    signature: Any = None,
    input_example: Any = None,
    await_registration_for: Optional[int] = None,  # noqa: ARG001 - MLflow's; a version is ready at once here
    pip_requirements: Pins = None,
    extra_pip_requirements: Pins = None,
    metadata: Optional[Mapping[str, Any]] = None,
    model_config: Optional[Mapping[str, Any]] = None,
    *,
    extra_files: Optional[Sequence[str]] = None,
    name: Optional[str] = None,
    params: Optional[Mapping[str, Any]] = None,
    tags: Optional[Mapping[str, Any]] = None,
    model_type: Optional[str] = None,
    step: int = 0,
    model_id: Optional[str] = None,
    run_id: Optional[str] = None,
) -> ModelInfo:
    """Log a custom model as an artifact of the active run, as :func:`save_model` writes it."""
    given = Given(
        signature, input_example, conda_env, pip_requirements, extra_pip_requirements, code_paths, extra_files, metadata
    )
    return saving.log(
        _writer(python_model, artifacts, model_config, loader_module, data_path),
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


def _writer(
    model: Any,
    artifacts: Optional[Mapping[str, str]],
    config: Optional[Mapping[str, Any]],
    loader_module: Optional[str],
    data_path: Optional[str],
) -> saving.Writer:
    if (model is None) == (loader_module is None):
        raise InvalidInput(
            "give python_model or loader_module, one of them", hint="python_model=a PythonModel, or a function"
        )
    if loader_module is not None:
        return _module_writer(loader_module, data_path)
    if not callable(getattr(model, "predict", None)) and not callable(model):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise InvalidInput(f"{what} is no Python model", hint="give an object with the method predict, or a function")
    if isinstance(model, type):
        raise InvalidInput(f"{model.__name__} is a class", hint=f"give an object of it: {model.__name__}()")
    thing = model if callable(getattr(model, "predict", None)) else FunctionModel(model)

    def write(folder: str) -> Written:
        files = _copy_artifacts(folder, artifacts or {})
        modules = dump(thing, os.path.join(folder, _FILE))
        import cloudpickle

        own: Dict[str, Any] = {"cloudpickle_version": cloudpickle.__version__, "python_model": _FILE}
        if files:
            own["artifacts"] = files
        if config is not None:
            own["config"] = dict(config)

        def predict(example: Any) -> Any:
            paths = {name: os.path.join(folder, item["path"]) for name, item in files.items()}
            return _with_context(thing, PythonModelContext(paths, config))[0](example)

        return Written(FLAVOR, own, {"loader_module": LOADER}, modules, predict)

    return write


def _module_writer(loader_module: str, data_path: Optional[str]) -> saving.Writer:
    def write(folder: str) -> Written:
        own: Dict[str, Any] = {}
        if data_path is not None:
            LocalArtifacts(folder).put(data_path, "data")
            own["data"] = f"data/{os.path.basename(os.path.abspath(data_path))}"
        return Written(FLAVOR, own, {"loader_module": loader_module}, frozenset((loader_module.partition(".")[0],)))

    return write


def _copy_artifacts(folder: str, artifacts: Mapping[str, str]) -> Dict[str, Dict[str, str]]:
    """Copy the files of a model into it; returns where each is, and where it came from."""
    result: Dict[str, Dict[str, str]] = {}
    taken: Dict[str, str] = {}
    for name, uri in artifacts.items():
        source = os.fspath(uri)
        path = os.path.abspath(source if os.path.exists(source) else download(source))
        last = os.path.basename(path)
        below = "artifacts" if taken.setdefault(last, path) == path else f"artifacts/{name}"
        LocalArtifacts(folder).put(path, below)
        result[str(name)] = {"path": f"{below}/{last}", "uri": source}
    return result


def dump(thing: Any, path: str) -> FrozenSet[str]:
    """Pickle a Python model by value, mlcli's own classes too; returns the modules that it needs."""
    try:
        import cloudpickle
    except ImportError:
        raise ModelError(
            "a Python model needs cloudpickle, which is not installed", hint="pip install cloudpickle"
        ) from None
    by_value = getattr(cloudpickle, "register_pickle_by_value", None)  # cloudpickle 2.0 and newer
    if by_value is not None:
        by_value(python_model)
    try:
        return pickles.dump_by_value(thing, path, "a Python model is kept by value") - {"mlcli"}
    finally:
        if by_value is not None:
            cloudpickle.unregister_pickle_by_value(python_model)


def load(found: loading.Found) -> Any:
    """The Python object of a model; it has not read its artifacts yet."""
    flavor = found.flavor(FLAVOR)
    found.ask("it is a Python object of its own")
    path = found.path(flavor.get("python_model"))
    opener = _opener(flavor.get("python_model_compression"))
    try:
        with opener(path, "rb") as file:
            return pickle.load(file)  # noqa: S301 - asked above
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{path} needs something that is missing here: {error}",
            hint="the requirements.txt beside it lists what it was made with",
        ) from error
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{path} is damaged, or no pickle: {error}") from error


def _opener(compression: Any) -> Callable[..., Any]:
    if not compression:
        return open
    from importlib import import_module

    if compression not in _COMPRESSIONS:
        raise ModelError(f"the model is compressed by {str(compression)[:40]!r}", hint="known are lzma, bzip2 and gzip")
    opener: Callable[..., Any] = import_module(_COMPRESSIONS[compression]).open
    return opener


def predictor(
    model: Any,
    how: Mapping[str, Any],
    found: loading.Found,
    config: Optional[Mapping[str, Any]] = None,
) -> Tuple[Callable[..., Any], bool]:
    """Let the model read its artifacts, and give the function that predicts."""
    given = how.get("artifacts")
    paths = {
        str(name): LocalArtifacts(found.folder).path(str(item.get("path")))
        for name, item in (given.items() if isinstance(given, dict) else ())
    }
    kept = how.get("config") if isinstance(how.get("config"), dict) else None
    merged = {**(kept or {}), **(config or {})} if kept or config else None
    return _with_context(model, PythonModelContext(paths, merged))


def _with_context(model: Any, context: PythonModelContext) -> Tuple[Callable[..., Any], bool]:
    """``predict(data, params=...)`` of a model, whichever of context and params its own method takes."""
    import inspect

    if callable(getattr(model, "load_context", None)):
        model.load_context(context)
    names = list(inspect.signature(model.predict).parameters)
    takes_context = "context" in names or (len(names) > 1 and names[1] not in ("params", "_params"))
    takes_params = "params" in names

    def predict(data: Any, params: Optional[Mapping[str, Any]] = None) -> Any:
        before = (context,) if takes_context else ()
        more = {"params": params} if takes_params else {}
        return model.predict(*before, data, **more)

    return predict, True
