"""The model directory: its ``MLmodel`` file, the files that describe its environment, and its digests.

The YAML written here is the part of YAML that needs no library: block maps and lists, scalars as JSON writes them. Any
YAML reader takes it, MLflow's among them, and so does the small one below where PyYAML is not installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from functools import lru_cache
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from mlcli import rules
from mlcli.errors import ModelError

FILE = "MLmodel"
OWN_KEY = "mlcli"  # what MLflow does not know in an MLmodel stands below this key
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./=\-]*\Z")
_RESERVED = frozenset("null true false yes no on off y n".split())
# Valid in JSON text, but a line break or not printable to YAML.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "Pillow",
    "yaml": "PyYAML",
    "cv2": "opencv-python",
    "skops": "skops",
}


def dump_yaml(value: Any) -> str:
    """``value`` (maps, lists, text, numbers, booleans, None) as block YAML."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> List[str]:
    if isinstance(value, Mapping) and value:
        result = []
        for key, item in value.items():
            below = _lines(item)
            if isinstance(item, (Mapping, list, tuple)) and item:
                result += [f"{_scalar(str(key))}:", *(f"  {line}" for line in below)]
            else:
                result.append(f"{_scalar(str(key))}: {below[0]}")
        return result
    if isinstance(value, (list, tuple)) and value:
        result = []
        for item in value:
            first, *rest = _lines(item)
            result += [f"- {first}", *(f"  {line}" for line in rest)]
        return result
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.match(value) and value.lower() not in _RESERVED:
            return value
        return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, (list, tuple)):
        return "[]"
    if isinstance(value, float):
        text = repr(value)
        if value - value != 0.0:
            return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[text]
        return text if "." in text else text.replace("e", ".0e")  # YAML 1.1 reads 1e+16 as text
    return json.dumps(value)


def load_yaml(text: str, where: str) -> Dict[str, Any]:
    """Read a YAML map: with PyYAML where it is installed, else what `dump_yaml` writes."""
    try:
        import yaml
    except ImportError:
        result = _Reader(text, where).read()
    else:
        try:
            result = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ModelError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(result, dict):
        raise ModelError(f"{where} is not a map of names and values")
    return result


class _Reader:
    """Reads the YAML that `dump_yaml` writes, and says so when it meets anything else."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.lines = [
            (len(line) - len(line.lstrip(" ")), line.strip(), number)
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        self.next = 0

    def read(self) -> Any:
        result = self._block(0) if self.lines else None
        if self.next < len(self.lines):
            raise self._strange()
        return result

    def _block(self, indent: int) -> Any:
        if self.lines[self.next][0] != indent:
            raise self._strange()
        if not self.lines[self.next][1].startswith("- "):
            return self._map(indent)
        items: List[Any] = []
        while self._at(indent) and self.lines[self.next][1].startswith("- "):
            _, content, number = self.lines[self.next]
            self.lines[self.next] = (indent + 2, content[2:].strip(), number)
            below = content[2:].startswith("- ") or self._split(content[2:])
            items.append(self._block(indent + 2) if below else self._value())
        return items

    def _map(self, indent: int) -> Dict[str, Any]:
        result: Dict[str, Any] = {}
        while self._at(indent):
            pair = self._split(self.lines[self.next][1])
            if pair is None:
                raise self._strange()
            key, rest = pair
            if rest:
                result[key] = self._parse(rest)
                self.next += 1
                continue
            self.next += 1
            deeper = self.next < len(self.lines) and (
                self.lines[self.next][0] > indent or self.lines[self.next][1].startswith("- ")
            )
            result[key] = self._block(self.lines[self.next][0]) if deeper else None
        return result

    def _at(self, indent: int) -> bool:
        return self.next < len(self.lines) and self.lines[self.next][0] == indent

    def _value(self) -> Any:
        value = self._parse(self.lines[self.next][1])
        self.next += 1
        return value

    def _split(self, content: str) -> Optional[Tuple[str, str]]:
        match = re.match(r'("(?:[^"\\]|\\.)*"|[^\s"\'\[{&*!|>%@`#][^:]*?)\s*:(?:\s+(.*))?\Z', content)
        return (str(self._parse(match[1])), (match[2] or "").strip()) if match else None

    def _parse(self, text: str) -> Any:
        if text.startswith("'"):
            if re.match(r"'(?:[^']|'')*'\Z", text):
                return text[1:-1].replace("''", "'")
            raise self._strange()
        if text in (".nan", ".inf", "-.inf"):
            return float(text.replace(".", ""))
        try:
            return json.loads(text, parse_constant=str)  # NaN is a word in YAML
        except ValueError:
            if text[0] in '"[{&*!|>%@`' or " #" in text or ": " in text:
                raise self._strange() from None
        return {"~": None, "null": None}.get(text, text)

    def _strange(self) -> ModelError:
        number = self.lines[min(self.next, len(self.lines) - 1)][2]
        return ModelError(
            f"{self.where}:{number}: this file was not written by mlcli and needs PyYAML to be read",
            hint="pip install pyyaml",
        )


def read(folder: str) -> Dict[str, Any]:
    """The contents of a model directory's ``MLmodel``."""
    path = os.path.join(folder, FILE)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder} is not a model: it has no {FILE} file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from None
    return load_yaml(text, path)


def flavor(content: Mapping[str, Any], name: str, folder: str) -> Dict[str, Any]:
    """The part of an MLmodel about one flavor."""
    flavors = content.get("flavors")
    found = flavors.get(name) if isinstance(flavors, dict) else None
    if not isinstance(found, dict):
        there = ", ".join(sorted(map(str, flavors))) if isinstance(flavors, dict) and flavors else "none"
        raise ModelError(f"{folder} has no {name} flavor; its flavors: {there}")
    return found


def write(folder: str, name: str, content: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as file:
        file.write(content)


def files(folder: str) -> List[str]:
    """Every file of a model directory, relative, with forward slashes, sorted."""
    found = [
        os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
        for parent, _, names in os.walk(folder)
        for name in names
    ]
    return sorted(found)


def digests(folder: str) -> Dict[str, str]:
    """The SHA-256 of every file but ``MLmodel`` itself, which lists them."""
    return {name: file_digest(os.path.join(folder, name)) for name in files(folder) if name != FILE}


def check_digests(folder: str, content: Mapping[str, Any]) -> None:
    """Tell a damaged copy from a whole one; whoever wrote the MLmodel wrote its digests too, so this grants nothing."""
    for name, digest in noted_digests(content).items():
        file = os.path.join(folder, *name.split("/"))
        if not os.path.isfile(file):
            raise ModelError(f"{folder} is damaged: it lacks {name}, which was logged with it", hint=_DAMAGED)
        found = file_digest(file)
        if found != digest:
            raise ModelError(
                f"{folder} is damaged: {name} is not the file that was logged: its SHA-256 is {found}, not {digest}",
                hint=_DAMAGED,
            )


_DAMAGED = "get it again from where it was logged; if it was changed on purpose: `mlcli models trust add`"


def noted_digests(content: Mapping[str, Any]) -> Dict[str, str]:
    """The digests that an MLmodel lists, by file."""
    own = content.get(OWN_KEY)
    noted = own.get("digests") if isinstance(own, dict) else None
    return (
        {rules.artifact_path(str(name)): str(value) for name, value in noted.items()} if isinstance(noted, dict) else {}
    )


def tree_digest(folder: str) -> str:
    """One SHA-256 for a model directory: names and contents of all that could take part in loading it.

    ``registered_model_meta`` is left out: MLflow adds it to what it downloads.
    """
    total = hashlib.sha256()
    for name in files(folder):
        if name != "registered_model_meta":
            total.update(f"{name}\0{file_digest(os.path.join(folder, name))}\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{total.hexdigest()}"


def file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1024 * 1024), b""):
            digest.update(block)
    return digest.hexdigest()


def requirements(modules: Iterable[str]) -> List[str]:
    """Requirement lines with the exact versions installed here of what provides the top-level ``modules``."""
    pins = {}
    for module in modules:
        if module in sys.builtin_module_names or module in _standard_library() or module == "mlcli":
            continue
        found = _distribution(module)
        if found:
            pins[found[0]] = found[1]
    return [f"{name}=={pins[name]}" for name in sorted(pins, key=str.lower)]


def _standard_library() -> frozenset[str]:
    names = getattr(sys, "stdlib_module_names", ())  # Python 3.10 and newer
    return frozenset(names) | {"__main__", "builtins", "copyreg", "collections", "functools", "operator", "_codecs"}


@lru_cache(maxsize=None)
def _distribution(module: str) -> Optional[Tuple[str, str]]:
    """Name and version of the distribution that provides ``module``; None for the project's own code."""
    from importlib import metadata

    name = _DISTRIBUTIONS.get(module, module)
    try:
        return name, metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    # A wheel need not be named as its module is: xgboost-cpu, opencv-python-headless ...
    for distribution in metadata.distributions():
        if module in (distribution.read_text("top_level.txt") or "").split():
            return distribution.metadata["Name"], distribution.version
    for distribution in metadata.distributions():
        record = distribution.read_text("RECORD") or ""
        if f"\n{module}/__init__.py," in f"\n{record}" or f"\n{module}.py," in f"\n{record}":
            return distribution.metadata["Name"], distribution.version
    return None


def write_environment(folder: str, pins: Sequence[str], *, python: Optional[str] = None) -> None:
    """Write requirements.txt, python_env.yaml and conda.yaml, which all say the same."""
    python = python or ".".join(map(str, sys.version_info[:3]))
    build = [
        f"{name}=={found[1]}" for name in ("pip", "setuptools", "wheel") for found in [_distribution(name)] if found
    ]
    write(folder, "requirements.txt", "".join(f"{pin}\n" for pin in pins))
    write(
        folder,
        "python_env.yaml",
        dump_yaml(
            {
                "python": python,
                "build_dependencies": build or ["pip", "setuptools", "wheel"],
                "dependencies": ["-r requirements.txt"],
            }
        ),
    )
    write(
        folder,
        "conda.yaml",
        dump_yaml(
            {
                "name": "mlflow-env",
                "channels": ["conda-forge"],
                "dependencies": [f"python={python}", "pip", *([{"pip": list(pins)}] if pins else [])],
            }
        ),
    )
