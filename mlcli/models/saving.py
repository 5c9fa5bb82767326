"""Writing a model directory: what every flavor has in common. A flavor writes its own files and says what they are.

check what was given -> the flavor writes its files -> example, signature, environment, code, extra files
-> MLmodel with the digests of all of them -> the folder gets its name, all at once
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Union

from mlcli import rules
from mlcli._version import __version__
from mlcli.artifacts import LocalArtifacts, download
from mlcli.errors import InvalidInput, MlcliError, NotFound, StoreUnavailable
from mlcli.models import mlmodel, trust
from mlcli.models import signature as signatures
from mlcli.models.signature import ModelSignature

Pins = Union[str, Sequence[str], None]

CODE = "code"
EXTRA_FILES = "extra_files"
_EXAMPLE = "input_example.json"
_SERVED_EXAMPLE = "serving_input_example.json"


class Given(NamedTuple):
    """What may be given with a model of any flavor."""

    signature: Any = None
    input_example: Any = None
    conda_env: Any = None
    pip_requirements: Pins = None
    extra_pip_requirements: Pins = None
    code_paths: Optional[Sequence[str]] = None
    extra_files: Optional[Sequence[str]] = None
    metadata: Optional[Mapping[str, Any]] = None


class Written(NamedTuple):
    """What a flavor has written: its entries in the MLmodel, and the top-level modules that its files need.

    ``python`` is the entry that loads the model as a python_function, but for its environment; without one there is
    none. ``predict`` answers the input example, from which the signature is inferred.
    """

    name: str
    flavor: Mapping[str, Any]
    python: Optional[Mapping[str, Any]]
    modules: FrozenSet[str]
    predict: Optional[Callable[[Any], Any]] = None


Writer = Callable[[str], Written]


class ModelInfo(NamedTuple):
    """What was logged, and where."""

    model_uri: str
    run_id: str
    artifact_path: str
    model_uuid: str
    utc_time_created: str
    flavors: Mapping[str, Any]
    signature: Optional[ModelSignature]
    metadata: Optional[Mapping[str, Any]]
    digest: str
    saved_input_example_info: Optional[Mapping[str, Any]] = None
    registered_model_version: Optional[int] = None
    model_type: Optional[str] = None
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    step: int = 0
    model_id: Optional[str] = None  # MLflow 3's record of a model; a model here is an artifact of its run

    @property
    def name(self) -> str:
        return self.artifact_path

    @property
    def signature_dict(self) -> Optional[Dict[str, Any]]:
        return None if self.signature is None else self.signature.to_dict()


def save(path: str, writer: Writer, given: Given) -> None:
    """Write a model directory at ``path``, which must not exist or be empty."""
    path = os.path.abspath(os.fspath(path))
    if os.path.exists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise MlcliError(f"{path} exists already", hint="give a path that is free")
    parent = LocalArtifacts(os.path.dirname(path))
    if os.path.isdir(path):
        os.rmdir(path)
    with parent.writing(os.path.basename(path)) as folder:
        _write(folder, writer, given, {}, {})


def log(
    writer: Writer,
    given: Given,
    *,
    artifact_path: Optional[str] = None,
    name: Optional[str] = None,
    run_id: Optional[str] = None,
    registered_model_name: Optional[str] = None,
    params: Optional[Mapping[str, Any]] = None,
    tags: Optional[Mapping[str, Any]] = None,
    model_type: Optional[str] = None,
    step: int = 0,
    model_id: Optional[str] = None,
) -> ModelInfo:
    """Log a model as an artifact of the active run (or of ``run_id``) and, if a name is given, register it.

    Its digest is noted: in the run, to tell the model by, and in this user's own notes, so that it loads here unasked.
    """
    from mlcli import fluent

    artifact = rules.artifact_path(name or artifact_path or "model")
    if not artifact:
        raise InvalidInput("a model needs a name", hint="log_model(model, name='model')")
    if registered_model_name is not None:
        rules.model_name(registered_model_name)
    if model_id is not None:
        raise InvalidInput(
            "a model is logged to a run here, not to a logged model", hint="leave out model_id; give run_id or name"
        )
    about: Dict[str, Any] = {
        "model_type": model_type,
        "params": {str(key): str(value) for key, value in (params or {}).items()},
        "tags": {str(key): str(value) for key, value in (tags or {}).items()},
        "step": rules.int64(step, "a step"),
    }
    run = fluent.run_to_log(run_id)
    origin = {"artifact_path": artifact, "run_id": run.run_id}
    with run.artifacts.writing(artifact) as folder:
        content = _write(
            folder, writer, given, origin, {**_circumstances(run), **_filled({**about, "step": step or None})}
        )
        digest = mlmodel.tree_digest(folder)
    uri = f"runs:/{run.run_id}/{artifact}"
    trust.note_logged(digest, uri)
    run.set_tags({digest_tag(artifact): digest})
    version = register(run.root, registered_model_name, uri) if registered_model_name is not None else None
    described = content.get("signature")
    return ModelInfo(
        uri,
        run.run_id,
        artifact,
        content["model_uuid"],
        content["utc_time_created"],
        content["flavors"],
        None if described is None else ModelSignature.from_dict(described),
        given.metadata,
        digest,
        content.get("saved_input_example_info"),
        version,
        **about,
    )


def register(root: str, name: str, uri: str) -> int:
    """Make the model a new version of the registered model ``name``, which is created if need be; say which."""
    from mlcli import registry
    from mlcli.store import open_store

    with open_store(root) as store:
        version = int(registry.register(store, uri, name).version)
    print(f"mlcli: registered as version {version} of {name}: models:/{name}/{version}", file=sys.stderr)
    return version


def digest_tag(artifact: str) -> str:
    """The tag of a run that holds the digest of the model ``artifact``."""
    tag = f"mlcli.model.{artifact}.digest"
    try:
        return rules.key(tag, "tag")
    except InvalidInput:  # a name that no tag can have
        import hashlib

        return f"mlcli.model.{hashlib.sha256(artifact.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.digest"


def _circumstances(run: Any) -> Dict[str, Any]:
    """What the run says at this moment: its name, the data it read, its scores."""
    try:
        found = run.read()
    except (StoreUnavailable, NotFound):  # a server that is away: the model waits with the rest
        return {}
    data = [
        _filled({"name": item.dataset.name, "digest": item.dataset.digest, "context": item.tags.get(_CONTEXT)})
        for item in found.inputs.dataset_inputs
    ]
    return _filled(
        {
            "run_name": found.info.run_name,
            "experiment_id": found.info.experiment_id,
            "data": data,
            "scores": dict(found.data.metrics),
        }
    )


_CONTEXT = "mlflow.data.context"


def _filled(given: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in given.items() if value not in (None, "", {}, [])}


def _write(
    folder: str, writer: Writer, given: Given, origin: Mapping[str, Any], about: Mapping[str, Any]
) -> Dict[str, Any]:
    """Fill the new ``folder``; returns what its MLmodel holds."""
    signature = None if given.signature is None else signatures.as_dict(given.signature)
    os.makedirs(folder)
    written = writer(folder)
    example = write_example(folder, given.input_example)
    if signature is None and given.input_example is not None and written.predict is not None:
        answer = written.predict(given.input_example)
        signature = signatures.as_dict(signatures.infer_signature(given.input_example, answer))
    modules = set(written.modules)
    if is_table(given.input_example) or _is_series(given.input_example):
        modules.add("pandas")
    write_environment(folder, given, modules)
    flavors = _flavors(folder, written, given)
    content: Dict[str, Any] = {
        "flavors": flavors,
        "model_uuid": os.urandom(16).hex(),
        "utc_time_created": _now(),
        **origin,
    }
    if signature is not None:
        content["signature"] = signature
    if example:
        content["saved_input_example_info"] = example
    if given.metadata is not None:
        content["metadata"] = dict(given.metadata)
    names = mlmodel.files(folder)
    content["model_size_bytes"] = sum(os.path.getsize(os.path.join(folder, name)) for name in names)
    content[mlmodel.OWN_KEY] = {"version": __version__, **about, "digests": mlmodel.digests(folder)}
    mlmodel.write(folder, mlmodel.FILE, mlmodel.dump_yaml(content))
    return content


def _now() -> str:
    from datetime import datetime, timezone

    return f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S.%f}"


def _flavors(folder: str, written: Written, given: Given) -> Dict[str, Dict[str, Any]]:
    """The entries of the flavors, with the code and the extra files that were copied for them."""
    artifacts = LocalArtifacts(folder)
    own = dict(written.flavor)
    for path in given.code_paths or ():
        artifacts.put(path, CODE)
    own["code"] = CODE if given.code_paths else None
    if given.extra_files:
        for uri in given.extra_files:
            _put(artifacts, uri, EXTRA_FILES)
        own[EXTRA_FILES] = [
            {"path": f"{EXTRA_FILES}/{os.path.basename(os.fspath(uri).rstrip('/'))}"} for uri in given.extra_files
        ]
    if written.python is None:
        return {written.name: own}
    python = {
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "python_version": ".".join(map(str, sys.version_info[:3])),
        **written.python,
    }
    if given.code_paths:
        python["code"] = CODE
    if written.name == "python_function":  # a custom Python model has no other flavor
        return {written.name: {**own, **python}}
    return {"python_function": python, written.name: own}


def _put(artifacts: LocalArtifacts, uri: Any, folder: str) -> None:
    """Copy a file or folder, wherever its URI says that it is, into the model."""
    path = os.fspath(uri)
    artifacts.put(download(path) if ":" in path and not os.path.exists(path) else path, folder)


# -- the environment


def write_environment(folder: str, given: Given, modules: Iterable[str]) -> None:
    """Write requirements.txt, python_env.yaml and conda.yaml: as given, else exactly what is installed here."""
    if given.conda_env is not None:
        if given.pip_requirements is not None or given.extra_pip_requirements is not None:
            raise InvalidInput("requirements are given twice", hint="give conda_env or pip_requirements, one of them")
        _write_conda(folder, given.conda_env)
        return
    pins = _pins(given.pip_requirements)
    if pins is None:
        pins = mlmodel.requirements(modules)
    mlmodel.write_environment(folder, [*pins, *(_pins(given.extra_pip_requirements) or [])])


def _write_conda(folder: str, given: Any) -> None:
    if isinstance(given, (str, os.PathLike)):
        try:
            with open(given, encoding="utf-8") as file:
                given = mlmodel.load_yaml(file.read(), os.fspath(given))
        except OSError as error:
            raise InvalidInput(f"cannot read the conda environment {given}: {error.strerror}") from None
    if not isinstance(given, Mapping) or not isinstance(given.get("dependencies"), (list, tuple)):
        raise InvalidInput(
            "a conda environment is a map with a list of dependencies", hint="or the path of such a file"
        )
    pins: List[str] = []
    python = None
    for item in given["dependencies"]:
        if isinstance(item, Mapping):
            pins += map(str, item.get("pip") or ())
        elif str(item).replace(" ", "").startswith("python="):
            python = str(item).rpartition("=")[2].strip()
    mlmodel.write_environment(folder, pins, python=python)
    mlmodel.write(folder, "conda.yaml", mlmodel.dump_yaml(dict(given)))


def _pins(given: Pins) -> Optional[List[str]]:
    """Requirement lines from a list, or from the file that a text names, as in MLflow; ``-r FILE`` is read in."""
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return _read_pins(os.fspath(given))
    result: List[str] = []
    for line in given:
        word, _, file = str(line).strip().partition(" ")
        result += _read_pins(file.strip()) if word in ("-r", "--requirement") and file else [str(line)]
    return result


def _read_pins(path: str, above: FrozenSet[str] = frozenset()) -> List[str]:
    real = os.path.realpath(path)
    if real in above:
        raise InvalidInput(f"the requirements {path} read themselves in")
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"cannot read the requirements {path}: {reason}") from None
    result: List[str] = []
    for line in lines:
        word, _, file_name = line.partition(" ")
        if word in ("-r", "--requirement") and file_name:
            below = os.path.join(os.path.dirname(path), file_name.strip())
            result += _read_pins(below, above | {real})
        elif line and not line.startswith("#"):
            result.append(line)
    return result


# -- the input example


def write_example(folder: str, example: Any) -> Dict[str, Any]:
    """Write the input example as MLflow does, tables split, arrays as nested lists, and as `/invocations` takes it."""
    if example is None:
        return {}
    body: Dict[str, Any]
    if is_table(example):
        text = example.to_json(orient="split", index=False, date_format="iso")
        info = {"artifact_path": _EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
        body = {"dataframe_split": json.loads(text)}
    else:
        value = example.to_list() if _is_series(example) else example
        is_array = hasattr(value, "tolist") or _is_series(example)
        plain = value.tolist() if hasattr(value, "tolist") else value
        try:
            text = json.dumps(plain)
        except (TypeError, ValueError):
            raise InvalidInput(
                f"the input example cannot be kept: it is a {type(example).__name__}",
                hint="give a DataFrame, an array or a list",
            ) from None
        info = {"artifact_path": _EXAMPLE, "type": "ndarray" if is_array else "json_object"}
        body = {"inputs": plain}
    mlmodel.write(folder, _EXAMPLE, text)
    mlmodel.write(folder, _SERVED_EXAMPLE, json.dumps(body))
    return {**info, "serving_input_path": _SERVED_EXAMPLE}


def is_table(value: Any) -> bool:
    """Whether ``value`` is a DataFrame, told without importing pandas."""
    return hasattr(value, "columns") and hasattr(value, "to_json")


def _is_series(value: Any) -> bool:
    return hasattr(value, "index") and hasattr(value, "dtype") and hasattr(value, "to_list")
