"""What is in a model, told without running any of it: its files, what they name, and whether it would load unasked."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli.artifacts import LocalArtifacts
from mlcli.errors import MlcliError
from mlcli.models import lightgbm, loading, mlmodel, pickles, program, skops, trust, xgboost
from mlcli.models.flavors import PYTHON_FUNCTION, of_loader

MAX_NAMES = 1000


class File(NamedTuple):
    """A file of the model; ``state`` is ok, changed, missing, or unlisted where the MLmodel has no digest of it."""

    path: str
    size: int
    state: str


_DAMAGED = ("changed", "missing")


class Inspection(NamedTuple):
    """What there is to say of a model."""

    uri: str
    digest: str
    flavors: Mapping[str, Mapping[str, Any]]
    made: Mapping[str, Any]
    signature: Optional[Mapping[str, Any]]
    requirements: Sequence[str]
    files: Sequence[File]
    names: Sequence[str]
    trusted: Optional[str]
    reasons: Sequence[str]

    @property
    def loads(self) -> bool:
        """Whether it loads here without anybody being asked."""
        return self.trusted is not None or not self.reasons

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def to_dictionary(self) -> Dict[str, Any]:
        return {
            **self._asdict(),
            "files": [file._asdict() for file in self.files],
            "size_bytes": self.size,
            "loads": self.loads,
        }


def inspect(model_uri: str) -> Inspection:
    """Look at a model: ``runs:/<run>/<path>``, ``models:/<name>/<version>``, a path ... Nothing in it is run."""
    found = loading.look(model_uri)
    content = found.content
    own = content.get(mlmodel.OWN_KEY)
    signature = content.get("signature")
    names, reasons = _examine(found)
    files = _files(found.folder, mlmodel.noted_digests(content))
    damaged = [f"{file.path} is {file.state} since it was logged" for file in files if file.state in _DAMAGED]
    if found.grant is None:  # whoever trusts a model trusts it as it is
        reasons = [*damaged, *reasons]
    return Inspection(
        found.uri,
        mlmodel.tree_digest(found.folder),
        _flavors(content),
        _made(content, own if isinstance(own, dict) else {}),
        _read_signature(signature) if isinstance(signature, dict) else None,
        _requirements(found.folder),
        files,
        names[:MAX_NAMES],
        found.grant,
        reasons,
    )


def _flavors(content: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """What the MLmodel says of each flavor, but for lists that are long."""
    flavors = content.get("flavors")
    return {
        str(name): {
            key: value
            for key, value in flavor.items()
            if value not in (None, "") and key not in ("env", "skops_trusted_types")
        }
        for name, flavor in (flavors.items() if isinstance(flavors, dict) else ())
        if isinstance(flavor, dict)
    }


def _made(content: Mapping[str, Any], own: Mapping[str, Any]) -> Dict[str, Any]:
    """Where it came from, as it says itself."""
    about = {
        "time": content.get("utc_time_created"),
        "run_id": content.get("run_id"),
        "artifact_path": content.get("artifact_path"),
        "mlcli_version": own.get("version"),
        "mlflow_version": content.get("mlflow_version"),
        "metadata": content.get("metadata"),
        **{key: value for key, value in own.items() if key not in ("version", "digests")},
    }
    return {key: value for key, value in about.items() if value not in (None, "", {}, [])}


def _read_signature(given: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: _json(given.get(name)) for name in ("inputs", "outputs", "params")}


def _json(text: Any) -> Any:
    import json

    try:
        return json.loads(text) if text else None
    except (TypeError, ValueError):
        return None


def _requirements(folder: str) -> List[str]:
    try:
        with open(os.path.join(folder, "requirements.txt"), encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file if line.strip() and not line.startswith("#")]
    except OSError:
        return []


def _files(folder: str, digests: Mapping[str, str]) -> List[File]:
    result = []
    there = mlmodel.files(folder)
    for name in there:
        path = os.path.join(folder, *name.split("/"))
        state = "unlisted"
        if name in digests:
            state = "ok" if mlmodel.file_digest(path) == digests[name] else "changed"
        result.append(File(name, os.path.getsize(path), state))
    result += [File(name, 0, "missing") for name in sorted(set(digests) - set(there))]
    return result


# -- what it would run


def _examine(found: loading.Found) -> Tuple[List[str], List[str]]:
    """The names in its files, and why it would not load unasked."""
    names: Dict[str, None] = {}
    reasons: Dict[str, None] = {}
    flavors = found.content.get("flavors")
    for name, flavor in flavors.items() if isinstance(flavors, dict) else ():
        if not isinstance(flavor, dict):
            continue
        if flavor.get("code"):
            reasons[f"it brings code of its own, {flavor['code']}"] = None
        if name == PYTHON_FUNCTION and of_loader(str(flavor.get("loader_module"))) is None:
            reasons[f"it is loaded by the module {flavor.get('loader_module')}"] = None
        more, why = _told(found, str(name), flavor)
        names.update(dict.fromkeys(more))
        reasons.update(dict.fromkeys(why))
    return sorted(names), list(reasons)


def _told(found: loading.Found, name: str, flavor: Mapping[str, Any]) -> Tuple[List[str], List[str]]:
    """As `_of_flavor`; what is wrong with a file is a reason too."""
    try:
        return _of_flavor(found, name, flavor)
    except (MlcliError, OSError, ValueError, LookupError, RecursionError) as error:
        return [], [str(error)]


def _of_flavor(found: loading.Found, name: str, flavor: Mapping[str, Any]) -> Tuple[List[str], List[str]]:
    if name == "sklearn":
        return _of_file(found, flavor.get("pickled_model"), flavor.get("serialization_format"))
    if name == "lightgbm" and str(flavor.get("model_class", "")).startswith("lightgbm.sklearn."):
        return _of_file(found, flavor.get("data"), flavor.get("serialization_format"), lightgbm.INSTANCES)
    if name == "xgboost":
        kind = str(flavor.get("model_class", xgboost.BOOSTER))
        return [kind], [] if kind in xgboost.CLASSES else [f"it makes a {kind}"]
    if name == "pytorch":
        return _of_torch(found, str(flavor.get("model_data", "data")))
    if name == PYTHON_FUNCTION and flavor.get("python_model"):
        listed, _ = _of_file(found, flavor["python_model"], "pickle")
        return listed, ["it is a Python object of its own"]
    return [], []


def _of_file(found: loading.Found, name: Any, form: Any, instances: Any = frozenset()) -> Tuple[List[str], List[str]]:
    path = found.path(name)
    types = trust.types()
    if form == "skops":
        entries, protocol = skops.read(path)
        return sorted({entry.name for entry in entries}), skops.objections(entries, protocol, types, instances)
    with open(path, "rb") as file:
        content = file.read()
    try:
        verdict = pickles.judge(content, types, instances)
    except program.Strange as error:
        return _names(content), [str(error)]
    except program.Damaged as error:
        return [], [f"{name} is damaged, or no pickle: {error}"]
    return sorted(verdict.names), verdict.objections()


def _names(content: bytes) -> List[str]:
    """As many names as can be read of a pickle that is not followed to its end."""
    found = _Noting()
    try:
        program.read(content, found)
    except (program.Damaged, program.Strange):
        pass
    return sorted(found.names)


class _Noting(program.Free):
    def __init__(self) -> None:
        self.names: Dict[str, None] = {}

    def name(self, named: program.Named) -> None:
        self.names[str(named)] = None


def _of_torch(found: loading.Found, folder: str) -> Tuple[List[str], List[str]]:
    """The names in the pickle inside of what torch.save wrote."""
    import zipfile

    files = LocalArtifacts(found.folder)
    names: List[str] = []
    for file in (f"{folder}/model.pth", f"{folder}/model.pt2"):
        path = files.path(file)
        if os.path.isfile(path) and zipfile.is_zipfile(path):
            try:
                with zipfile.ZipFile(path) as archive:
                    for item in archive.infolist():
                        if item.filename.endswith(".pkl") and item.file_size < skops.SMALL:
                            names += _names(archive.read(item))
            except zipfile.BadZipFile as error:
                return names, [f"{file} is damaged: {error}"]
    return sorted(set(names)), ["a module of PyTorch is a pickle that makes what it likes"]
