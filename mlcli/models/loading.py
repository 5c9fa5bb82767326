"""From the URI of a model to its files, and to the answer whether they may run code: nothing here loads a model."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Dict, NamedTuple, Optional, Sequence

from mlcli import scratch
from mlcli.artifacts import LocalArtifacts, download, locate, parse_runs_uri
from mlcli.errors import ModelError, NotFound
from mlcli.models import mlmodel, trust

_NAMED = re.compile(r"[^/:@?.~\\][^/:@?\\]*(?:@[^/:?]+|/(?:\d+|latest)|\?.+)\Z", re.DOTALL)


class Found(NamedTuple):
    """A model's files. ``grant`` says why they may run code; None: they may not."""

    uri: str
    folder: str
    content: Dict[str, Any]
    grant: Optional[str] = None

    @property
    def trusted(self) -> bool:
        return self.grant is not None

    def flavor(self, name: str) -> Dict[str, Any]:
        return mlmodel.flavor(self.content, name, self.folder)

    def path(self, name: Any, *, file: bool = True) -> str:
        """A file of the model (or, without ``file``, a folder too), which must be there and inside of it."""
        path = LocalArtifacts(self.folder).path(str(name or ""))
        if not name or not (os.path.isfile(path) if file else os.path.exists(path)):
            raise ModelError(f"{self.uri} is incomplete: its file {name!r} is missing")
        return path

    def ask(self, what: str, names: Sequence[str] = ()) -> None:
        """Raise unless the model may run code; ``what`` says what it would run, ``names`` which names it lacks."""
        if self.grant is None:
            raise trust.refusal(self.uri, self.content, what, names)


def find(model_uri: str, *, trust_it: bool = False, dst_path: Optional[str] = None) -> Found:
    """Find the files of a model, fetched if they are on a server, and check them against the digests in its MLmodel.

    ``trust_it`` lets the model run code; it does not say that its files are whole, so they are checked all the same.
    """
    found = look(model_uri, dst_path=dst_path)
    if found.grant is None:  # whose digest was noted may have been changed on purpose
        mlmodel.check_digests(found.folder, found.content)
    return found._replace(grant="trust=True") if trust_it else found


def check(folder: str, digest: str, *, only: bool = False) -> None:
    """Raise ModelError unless the files in ``folder`` are those of the ``digest`` on record, or (but for ``only``) trusted as they are."""
    found = mlmodel.tree_digest(folder)
    if found != digest and (only or trust.grant(folder) is None):
        raise ModelError(
            f"{folder} is not the model on record: its digest is {found[:19]}..., not {digest[:19]}...",
            hint="put the files back, or log and register it anew"
            + ("" if only else "; if you changed them on purpose: `mlcli models trust add`"),
        )


def look(model_uri: str, *, dst_path: Optional[str] = None) -> Found:
    """Find the files of a model, damaged or not."""
    model_uri = os.fspath(model_uri)
    if dst_path is not None:
        folder = download(model_uri, dst_path)
    else:
        artifacts, path = locate(model_uri)
        folder = artifacts.path(path)
    if not os.path.isdir(folder):
        raise NotFound(f"there is no model at {model_uri}", hint=f"{folder} is not a folder")
    return Found(model_uri, folder, mlmodel.read(folder), trust.grant(folder))


def whole_uri(uri: str) -> str:
    """The URI that a short name of a model stands for; any other stays as it is."""
    if _NAMED.match(uri) and not os.path.exists(uri):
        return f"models:/{uri}"
    if uri.startswith("runs:") and not parse_runs_uri(uri)[1]:
        from mlcli.registry import uri_of_only_model

        return uri_of_only_model(uri)
    return uri


def bring_code(found: Found, code: Any) -> None:
    """Make the code that travels with a model importable, if the model may run code.

    It is imported from a copy: importing it in place would leave bytecode in the model.
    """
    if not code:
        return
    found.ask(f"it brings code of its own, {code}")
    place = os.path.join(scratch.folder_of_process("code"), "code")
    sys.path.insert(0, LocalArtifacts(found.folder).get(str(code), place))
