"""The files of a run that a tracking server keeps: listed, sent and fetched through its artifact proxy.

A file that is fetched appears under its name only when it is whole, and a fetch that is cut goes on where it stopped. A
file that is logged while the server is away waits in the spool, and `mlcli sync` sends it.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, List, Optional
from urllib.parse import quote, unquote

from mlcli import config, rights, rules, scratch, wire
from mlcli.artifacts import LocalArtifacts, Skipped, Tick, _aside, _kind, _name, _remove, _told, _tree, warn
from mlcli.entities import FileInfo
from mlcli.errors import InvalidInput, MlcliError, NotFound, StoreUnavailable
from mlcli.locks import locked
from mlcli.store import http, rest, spool

_DIGEST_HEADERS = ("x-mlcli-sha256", "x-content-sha256")


class ServedArtifacts(LocalArtifacts):
    """The artifacts below one folder of a server; ``waiting`` is where files wait for a server that is away."""

    def __init__(self, root: str, folder: str, waiting: Optional[str] = None) -> None:
        self.server = http.server(root)
        self.folder = folder.strip("/")
        self.waiting = waiting
        self.root = f"{self.server.url}{rest.ARTIFACTS}/{quote(self.folder)}"
        self._fetched: Optional[str] = None

    # -- looking

    def path(self, artifact: str = "") -> str:
        """A local copy of an artifact, which lives as long as this process; where there is none, a path to nothing."""
        name = rules.artifact_path(artifact)
        target = os.path.join(self._copies(), *name.split("/")) if name else self._copies()
        try:
            self.get(name, target)
        except NotFound:
            pass
        return target

    def has(self, artifact: str) -> bool:
        name = rules.artifact_path(artifact)
        return not name or self._file(name) is not None or self._is_folder(name)

    def list(self, artifact: str = "") -> List[FileInfo]:
        name = rules.artifact_path(artifact)
        found = self._children(name)
        if found or not name:
            return found
        for item in self._children(name.rpartition("/")[0]):
            if item.path == name:
                return [] if item.is_dir else [item]
        raise NotFound(f"there is no artifact {name!r} in {self.root}")

    def _children(self, name: str) -> List[FileInfo]:
        place = "/".join(part for part in (self.folder, name) if part)
        try:
            found = self.server.json("GET", rest.ARTIFACTS, query=[("path", place)])
        except NotFound:
            return []
        result = []
        for item in map(wire.file_info_from, found.get("files") or ()):
            last = item.path.rstrip("/").rpartition("/")[2]
            result.append(item._replace(path=rules.artifact_path(f"{name}/{last}" if name else last)))
        return sorted(result)

    # -- sending

    def put(self, source: str, folder: str = "", *, on_skip: Callable[[Skipped], None] = warn) -> None:
        source = os.path.abspath(os.fspath(source))
        kind = _kind(source)
        name = rules.artifact_path("/".join(part for part in (rules.artifact_path(folder), _name(source)) if part))
        if kind == "folder":
            self.put_tree(source, name, on_skip=on_skip)
        elif kind == "file":
            self._send(source, name)
        else:
            raise InvalidInput(f"{source} is a {kind}", hint="only files and folders can be artifacts")

    def put_tree(self, source: str, folder: str = "", *, on_skip: Callable[[Skipped], None] = warn) -> None:
        source = os.path.abspath(os.fspath(source))
        if _kind(source) != "folder":
            raise InvalidInput(f"{source} is not a folder", hint="use log_artifact for a single file")
        below = rules.artifact_path(folder)
        for name, path, _size in _tree(source, on_skip)[1]:
            self._send(path, "/".join(part for part in (below, name) if part))

    @contextmanager
    def writing(self, artifact: str, suffix: str = "") -> Iterator[str]:
        name = _file_name(artifact)
        from tempfile import TemporaryDirectory

        with TemporaryDirectory(prefix="mlcli-") as folder:
            aside = os.path.join(folder, "new" + suffix)
            yield aside
            if os.path.isdir(aside):
                self.put_tree(aside, name)
            else:
                self._send(aside, name)

    def _send(self, source: str, name: str) -> None:
        _file_name(name)
        try:
            self.upload(source, name)
        except StoreUnavailable as error:
            if self.waiting is None:
                raise
            _tell_waiting(self.server.url, error)
            os.makedirs(self.waiting, mode=0o700, exist_ok=True)
            lock = locked(self.waiting + ".lock")  # against a `sync` that is sending what is here
            with lock, LocalArtifacts(self.waiting).writing(name) as aside:
                _copy_plain(source, aside)

    def upload(self, source: str, name: str) -> None:
        """Send one file; it is read again from the start when the connection is cut."""
        try:
            with open(source, "rb") as file:
                size = os.fstat(file.fileno()).st_size
            if size == 0:  # of /proc: they claim to be empty
                with open(source, "rb") as file:
                    content = file.read()
                self.server.send("PUT", self._url(name), content, headers=_BINARY)
                return
            self.server.send(
                "PUT",
                self._url(name),
                lambda: open(source, "rb"),  # noqa: SIM115 - closed by the one who sends it
                headers=_BINARY,
                length=size,
            )
        except OSError as error:
            raise InvalidInput(f"cannot read {source}: {error.strerror}") from error

    # -- fetching

    def get(
        self,
        artifact: str,
        target: str,
        *,
        progress: Optional[Tick] = None,
        on_skip: Callable[[Skipped], None] = warn,  # noqa: ARG002 - a server has files only
    ) -> str:
        name = rules.artifact_path(artifact)
        target = os.path.abspath(target)
        with _told(f"write {target}"):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        alone = self._file(name)
        if alone is not None:
            total = alone.file_size or 0
            self._fetch(name, target, progress and (lambda done: progress(done, total)))
            return target
        files = self.walk(name)
        if not files and name and not self._is_folder(name):
            raise NotFound(f"there is no artifact {name!r} in {self.root}")
        aside = target if os.path.isdir(target) else _aside(target)
        total = sum(file.file_size or 0 for file in files)
        before = 0
        try:
            with _told(f"write {target}"):
                os.makedirs(aside, exist_ok=True)
            for file in files:
                inner = file.path[len(name) :].lstrip("/") if name else file.path
                place = os.path.join(aside, *inner.split("/"))
                with _told(f"write {place}"):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                self._fetch(file.path, place, progress and (lambda done, start=before: progress(start + done, total)))
                before += file.file_size or 0
            if aside != target:
                with _told(f"write {target}"):
                    os.rename(aside, target)
        except BaseException:
            if aside != target:
                _remove(aside)
            raise
        return target

    def _fetch(self, name: str, target: str, tick: Optional[Callable[[int], None]]) -> None:
        aside = _aside(target)
        try:
            with _told(f"write {target}"):
                made = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), rights.FILE)
            with os.fdopen(made, "r+b") as file:
                headers = self.server.fetch(self._url(name), file, tick)
                _check_digest(file, headers, name)
            with _told(f"write {target}"):
                os.replace(aside, target)
        except BaseException:
            _remove(aside)
            raise

    def _file(self, name: str) -> Optional[FileInfo]:
        """The artifact if it is a file."""
        folder, _, _last = name.rpartition("/")
        for item in self._children(folder) if name else ():
            if item.path == name and not item.is_dir:
                return item
        return None

    def _is_folder(self, name: str) -> bool:
        return any(item.path == name and item.is_dir for item in self._children(name.rpartition("/")[0]))

    def remove_leftovers(self, older_than: float) -> int:  # noqa: ARG002 - the server tidies up its own folders
        return 0

    def _url(self, name: str) -> str:
        place = "/".join(part for part in (self.folder, name) if part)
        return f"{rest.ARTIFACTS}/{quote(place, safe='/')}"

    def _copies(self) -> str:
        if self._fetched is None:
            self._fetched = os.path.join(scratch.folder_of_process("artifacts"), "files")
            os.mkdir(self._fetched)
        return self._fetched


_BINARY = {"Content-Type": "application/octet-stream"}


def at(url: str, run_id: Optional[str] = None) -> ServedArtifacts:
    """The artifacts at an address of a tracking server that this process knows, or that the settings name."""
    plain, _ = http.split_credentials(url)
    root, marker, folder = plain.partition(rest.ARTIFACTS)
    if not marker or not (http.known(root) or root == _configured()):
        raise InvalidInput(
            f"{http.masked(url)!r} is not a place of the tracking server in use",
            hint="name the run: runs:/<run id>/<path>",
        )
    waiting = spool.files_folder(root, run_id) if run_id else None
    return ServedArtifacts(root, unquote(folder), waiting)


def of_scheme(uri: str, root: Optional[str], run_id: Optional[str] = None) -> LocalArtifacts:
    """The artifacts at ``mlflow-artifacts:/<path>`` of the server ``root``, by default the one of the settings."""
    root = root or _configured()
    if root is None:
        raise InvalidInput(f"{uri!r} is on a tracking server, and none is named", hint="set MLCLI_TRACKING_URI")
    found = rest.proxied(root, uri)
    if found == uri:
        raise InvalidInput(f"{uri!r} is on another server than {root}")
    return at(found, run_id)


def _configured() -> Optional[str]:
    found = config.tracking_uri().value or ""
    return http.split_credentials(found)[0] if spool.is_remote(found) else None


def _file_name(artifact: str) -> str:
    name = rules.artifact_path(artifact)
    if not name:
        raise InvalidInput("an artifact needs a name", hint="give a path such as 'plots/loss.png'")
    return name


def _check_digest(file: Any, headers: Any, name: str) -> None:
    """Compare what was received with the digest that the server told, if it did."""
    told = next((headers[header].lower() for header in _DIGEST_HEADERS if headers.get(header)), "")
    if not told:
        return
    from hashlib import sha256

    digest = sha256()
    file.flush()
    file.seek(0)
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    if digest.hexdigest() != told:
        raise MlcliError(
            f"the artifact {name} was received damaged: its SHA-256 is {digest.hexdigest()}, not {told}",
            hint="fetch it again",
        )


def _copy_plain(source: str, target: str) -> None:
    from shutil import copyfile

    copyfile(source, target)


_told_waiting: Dict[str, bool] = {}


def _tell_waiting(root: str, error: MlcliError) -> None:
    if not _told_waiting.get(root):
        _told_waiting[root] = True
        print(f"mlcli: {error.message}; files that are logged wait here, and `mlcli sync` sends them", file=sys.stderr)


def send_waiting(root: str, run_id: str, folder: str, progress: Callable[[str], None] = lambda _text: None) -> int:
    """Send the files of a run that wait in ``folder`` and remove each that has arrived; return how many did."""
    try:
        with locked(folder + ".lock", timeout=0.0):
            return _send_all(root, run_id, folder, progress)
    except TimeoutError:  # its `mlcli run` lives and sends them itself, or somebody does so now
        return 0


def _send_all(root: str, run_id: str, folder: str, progress: Callable[[str], None]) -> int:
    count = 0
    if os.path.isdir(folder):
        files = LocalArtifacts(folder).walk()
        if files:
            try:
                with rest.RestStore(root) as store:
                    uri = store.get_run(run_id).info.artifact_uri
            except NotFound as error:
                spool.reject(root, "", {"run": run_id, "files": [file.path for file in files]}, error.message)
                return 0
            from mlcli.artifacts import open_artifacts

            there = open_artifacts(uri, store=root)
            for file in files:
                progress(f"sending {file.path} of run {run_id[:8]}")
                local = os.path.join(folder, *file.path.split("/"))
                if isinstance(there, ServedArtifacts):
                    there.upload(local, file.path)
                else:
                    there.put(local, file.path.rpartition("/")[0])
                os.unlink(local)
                count += 1
        for parent, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):  # something new came in
                os.rmdir(parent)
    _remove(folder + ".lock")
    return count
