"""From the URI of a model to its files, and to the answer whether they may run code: nothing here loads a model."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, NamedTuple, Optional, Sequence

from mlcli import locks
from mlcli.artifacts import LocalArtifacts, download, locate
from mlcli.errors import ModelError, NotFound
from mlcli.models import mlmodel, trust


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
    """Find the files of a model, fetched if they are on a server, and check them against the digests in its MLmodel."""
    found = look(model_uri, dst_path=dst_path)
    if trust_it:
        return found._replace(grant="trust=True")
    if found.grant is None:  # what is trusted as it is may also have been changed on purpose
        mlmodel.check_digests(found.folder, found.content)
    return found


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


def bring_code(found: Found, code: Any) -> None:
    """Make the code that travels with a model importable, if the model may run code.

    It is imported from a copy: importing it in place would leave bytecode in the model.
    """
    if not code:
        return
    found.ask(f"it brings code of its own, {code}")
    _sweep()
    sys.path.insert(0, LocalArtifacts(found.folder).get(str(code), os.path.join(_place_for_code(), "code")))


_CODE, _LOCK = "mlcli-code-", "lock"


def _place_for_code() -> str:
    """A new folder that goes when this process ends, or at the next sweep if it is killed: its lock file tells."""
    import atexit
    import shutil
    import tempfile

    while True:
        place = tempfile.mkdtemp(prefix=_CODE)
        lock = os.path.join(place, _LOCK)
        try:
            held = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            # A sweep may have been between the two lines, and found a file that nobody held.
            if locks.try_lock(held) and os.path.exists(lock):
                break
        except FileNotFoundError:
            continue
        os.close(held)
    owner = os.getpid()

    def leave() -> None:
        if os.getpid() == owner:  # a fork of this process leaves it to its parent
            os.close(held)
            shutil.rmtree(place, ignore_errors=True)

    atexit.register(leave)
    return place


def _sweep() -> None:
    """Take away the folders of processes of this user that were killed: workers often are."""
    import shutil
    import tempfile

    with os.scandir(tempfile.gettempdir()) as entries:
        places = [
            entry.path for entry in entries if entry.name.startswith(_CODE) and entry.is_dir(follow_symlinks=False)
        ]
    for place in places:
        try:
            held = os.open(os.path.join(place, _LOCK), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:  # another user's, or gone by now, or about to be locked
            continue
        try:
            if locks.try_lock(held):
                shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(held)
