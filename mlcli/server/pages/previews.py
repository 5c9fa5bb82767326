"""Files of a run as they can be looked at without harm: text, JSON, tables, images, HTML in a sandbox, models."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlcli import rules
from mlcli.artifacts import LocalArtifacts, open_artifacts
from mlcli.errors import InvalidInput, MlcliError
from mlcli.server.http import Receive, Scope, Send

if TYPE_CHECKING:
    from mlcli.server.app import Request

MOST_TEXT = 512 * 1024
MOST_ROWS, MOST_CELLS = 500, 60
IMAGES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
          "bmp": "image/bmp", "svg": "image/svg+xml", "avif": "image/avif"}  # fmt: skip
_TABLES = {"csv": ",", "tsv": "\t"}
_PAGES = ("html", "htm")
# What a file may do when it is shown: an image nothing, a page look as it was made to; neither runs anything.
_IMAGE_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
_PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; sandbox; frame-ancestors 'self'"
)


def ending(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[2].lower()


def preview(root: LocalArtifacts, path: str, run_uri: str) -> dict[str, Any]:
    """What to show of a file or folder; ``kind`` says how."""
    name = rules.artifact_path(path)
    place = root.path(name)
    if os.path.isdir(place):
        if os.path.isfile(os.path.join(place, "MLmodel")):
            return {
                "kind": "model",
                "path": name,
                "model": described(root, name),
                "code": code_for(f"{run_uri}/{name}"),
            }
        return {"kind": "folder", "path": name, "entries": len(root.list(name))}
    if not os.path.isfile(place):
        raise InvalidInput(f"there is no artifact {path[:200]!r}")
    size = os.path.getsize(place)
    kind = ending(name)
    found: dict[str, Any] = {"path": name, "size": size}
    if kind in IMAGES:
        return {**found, "kind": "image"}
    if kind in _PAGES:
        return {**found, "kind": "page"}
    with open(place, "rb") as file:
        content = file.read(MOST_TEXT + 1)
    cut, content = len(content) > MOST_TEXT, content[:MOST_TEXT]
    if b"\0" in content[:8192]:
        return {**found, "kind": "binary"}
    text = content.decode("utf-8", "replace")
    if kind in _TABLES:
        return {**found, "kind": "table", "cut": cut, **_table(text, _TABLES[kind])}
    if kind == "json" and not cut:
        try:
            return {
                **found,
                "kind": "text",
                "text": json.dumps(json.loads(text), indent=2, ensure_ascii=False),
                "cut": False,
            }
        except (ValueError, RecursionError):
            pass
    if kind == "md":
        return {**found, "kind": "markdown", "text": text, "cut": cut}
    return {**found, "kind": "text", "text": text, "cut": cut}


def _table(text: str, delimiter: str) -> dict[str, Any]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            rows.append(row[:MOST_CELLS])
            if len(rows) > MOST_ROWS:
                break
    except csv.Error:
        pass
    return {"head": rows[0] if rows else [], "rows": rows[1 : MOST_ROWS + 1], "more_rows": len(rows) > MOST_ROWS}


def described(root: LocalArtifacts, path: str) -> dict[str, Any]:
    """What the MLmodel file of a folder says, as text alone."""
    import yaml

    try:
        with open(root.path(f"{path}/MLmodel" if path else "MLmodel"), encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_TEXT)
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - the safe loader, in C
    except (OSError, yaml.YAMLError, MlcliError, RecursionError, ValueError):
        return {"flavors": {}, "inputs": [], "outputs": [], "facts": {}, "unreadable": True}
    found = _map(found)
    flavors, signature = _map(found.get("flavors")), _map(found.get("signature"))
    facts = {key: str(found[key]) for key in ("model_uuid", "utc_time_created", "mlflow_version", "mlcli_version", "model_size_bytes") if key in found}  # fmt: skip
    return {
        "flavors": {str(name): _short(value) for name, value in flavors.items()},
        "inputs": _columns(signature.get("inputs")),
        "outputs": _columns(signature.get("outputs")),
        "facts": facts,
        "unreadable": False,
    }


def _map(found: Any) -> dict[Any, Any]:
    return found if isinstance(found, dict) else {}


def _short(flavor: Any) -> str:
    if not isinstance(flavor, dict):
        return ""
    return ", ".join(
        f"{key} {value}" for key, value in flavor.items() if "version" in str(key) or key == "loader_module"
    )[:200]


def _columns(text: Any) -> list[dict[str, str]]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return []
    result = []
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict):
            kind = str(item.get("type", ""))
            if kind == "tensor" and isinstance(item.get("tensor-spec"), dict):
                spec = item["tensor-spec"]
                kind = f"tensor {spec.get('dtype', '')} {spec.get('shape', '')}"
            required = "" if item.get("required", True) else "optional"
            result.append({"name": str(item.get("name", "")), "type": kind, "required": required})
    return result


def code_for(uri: str) -> dict[str, str]:
    """What to paste to load, predict with and serve a model."""
    shown = uri if all(char.isalnum() or char in "@:/._-" for char in uri) else f"'{uri}'"
    return {
        "load": f"import mlcli\n\nmodel = mlcli.pyfunc.load_model({uri!r})\nmodel.predict(data)",
        "predict": f"mlcli models predict -m {shown} -i input.csv",
        "serve": f"mlcli models serve -m {shown} --port 5001",
    }


async def show_file(request: Request, scope: Scope, _receive: Receive, send: Send) -> None:
    """Send a file of a run so that a page can show it: images as such, pages in a sandbox, all else to be kept."""
    from mlcli.server import files
    from mlcli.server.pages import read_query

    path = read_query(scope["query_string"]).one("path")
    name = rules.artifact_path(path)
    run_id = request.given["run_id"]
    folder = await request.server.workers.read(lambda store: store.artifact_root(run_id), quick=True)
    kind = ending(name)
    shown: list[tuple[bytes, bytes]] | None = None
    if kind in IMAGES:
        shown = [(b"content-type", IMAGES[kind].encode()), (b"content-security-policy", _IMAGE_POLICY)]
    elif kind in _PAGES:
        shown = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _PAGE_POLICY)]
    await files.send_file(request, send, open_artifacts(folder), name, path, shown)


def file_address(prefix: str, run_id: str, path: str) -> str:
    return f"{prefix}/runs/{quote(run_id, safe='')}/file?path={quote(path)}"
