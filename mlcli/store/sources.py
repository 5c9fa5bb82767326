"""Where a model version may say that its files are: one reader of such URIs, which knows the safe ones and no others.

A source is text that a client chose, and a server would later read files by it. So it is decoded to the end before
anything is decided, the few signs that ever led out of a place are refused in every scheme, and what is unknown is
refused too. What a local path names is not looked at here: the store compares it with the folder of the run.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlcli import rules
from mlcli.errors import InvalidInput

MAX_SOURCE = 2048
# What MLflow writes for a prompt, whose text is a tag: it names no place.
_PLACELESS = frozenset(("prompt-template", "dummy-source"))
_REMOTE = frozenset(
    "s3 s3a s3n r2 gs gcs wasb wasbs abfs abfss adl http https ftp ftps sftp hdfs viewfs oss b2 mlflow-artifacts".split()
)
_MAY_LACK_HOST = frozenset(("hdfs", "viewfs", "mlflow-artifacts"))
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\?#;]|%u[0-9a-fA-F]{4}|[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_OF_RUN = re.compile(r"/[0-9]+/([A-Za-z0-9][\w\-]*)/artifacts(?:/(.*))?\Z", re.DOTALL)
_OF_MODEL = re.compile(r"/[0-9]+/models/(m-[\w\-]+)/artifacts(?:/(.*))?\Z", re.DOTALL)
_LOGGED_MODEL = re.compile(r"m-[\w\-]+\Z")


class Source(NamedTuple):
    """A source that has been read. Which fields say something depends on ``kind``."""

    kind: str  # run | run files | model | model files | version | local | remote | nowhere
    text: str  # as given
    name: str = ""  # of the run, the logged model, the registered model
    reference: str = ""  # of a version: a number, an alias (@best), a stage, latest
    path: str = ""  # inside the run or model; the whole local path


def read(value: object) -> Source:
    """Read a source, or raise InvalidInput."""
    text = rules.text(value, "the source of a model version", MAX_SOURCE)
    if not text.strip():
        raise InvalidInput("a model version needs a source", hint="such as runs:/<run>/model or models:/<logged model>")
    if text in _PLACELESS:
        return Source("nowhere", text)
    decoded = rules.percent_decoded(text)
    for form in (text, decoded):
        if form != form.strip() or _UNSAFE.search(form) or ".." in re.split("[/:]", form):
            raise refused(text)
    found = _SCHEME.match(text)
    if not found:
        # A colon that no scheme stands before is in no path we made.
        return _local(text, text) if ":" not in text.split("/", 1)[0] else _fail(text)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme == "runs":
        return _run(text, rest)
    if scheme == "models":
        return _model(text, rest)
    if scheme == "file":
        return _file(text, rest)
    if scheme in _REMOTE:
        return _remote(text, scheme, rest)
    raise refused(text)


def refused(text: str) -> InvalidInput:
    """One answer for every source that is refused, whether or not there is a file: an answer that differs would tell."""
    shown = re.sub("//[^/]*@", "//***@", text if len(text) <= 200 else text[:199] + "…")
    return InvalidInput(
        f"{shown!r} cannot be the source of a model version",
        hint="give runs:/<run>/<path>, models:/<model>, a path inside the artifacts of the run that run_id names, or"
        " a plain remote URI",
    )


def _fail(text: str) -> Source:
    raise refused(text)


def _local(text: str, path: str) -> Source:
    if not path.startswith("/") or path.startswith("//"):
        raise refused(text)
    return Source("local", text, path=path)


def _file(text: str, rest: str) -> Source:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise refused(text)
        rest = slash + path
    return _local(text, _decoded_once(rest))


def _run(text: str, rest: str) -> Source:
    run_id, _, path = rest[1:].partition("/")
    if not rest.startswith("/") or not run_id:
        raise refused(text)
    return Source("run", text, name=rules.run_id(run_id), path=rules.artifact_path(path))


def _model(text: str, rest: str) -> Source:
    parts = rest[1:].split("/")
    if not rest.startswith("/") or not all(parts) or len(parts) > 2:
        raise refused(text)
    if len(parts) == 2:
        return Source("version", text, name=rules.model_name(parts[0]), reference=parts[1])
    name, at, alias = parts[0].rpartition("@")
    if at:
        return Source("version", text, name=rules.model_name(name), reference=f"@{alias}")
    if not _LOGGED_MODEL.match(parts[0]):
        raise refused(text)
    return Source("model", text, name=parts[0])


def _remote(text: str, scheme: str, rest: str) -> Source:
    host, _, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
    user, at, _ = host.rpartition("@")
    if (not host and scheme not in _MAY_LACK_HOST) or (at and ":" in user) or (not host and not path.startswith("/")):
        raise refused(text)
    if scheme == "mlflow-artifacts" and not host:
        # A server's name for the artifacts of a run, and of nothing else. Kept by run, it stays right when the store moves.
        for kind, pattern in (("model files", _OF_MODEL), ("run files", _OF_RUN)):
            found = pattern.match(path)
            if found:
                return Source(kind, text, name=found[1], path=rules.artifact_path(found[2] or ""))
        raise refused(text)
    return Source("remote", text)


def _decoded_once(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)
