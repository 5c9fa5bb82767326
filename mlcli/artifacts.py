"""The files of a run: put, listed and fetched below a root that no path and no link can leave.

A file appears under its name only when it is whole: it is written aside as ``.tmp-*`` in the same folder, checked, and
renamed. Names that begin with ``.tmp-`` are therefore ours; they are never listed and never fetched.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from mlcli import rights, rules
from mlcli.entities import FileInfo
from mlcli.errors import InvalidInput, MlcliError, NotFound

if TYPE_CHECKING:
    from mlcli.store import Store

TEMPORARY = ".tmp-"
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_WRITE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHUNK = 32 * 1024 * 1024

Tick = Callable[[int, int], None]  # bytes copied so far, bytes in all


class Skipped(NamedTuple):
    """Something in a folder that was not copied, and why."""

    path: str
    why: str


def warn(skipped: Skipped) -> None:
    """Tell of what was skipped as a Python warning."""
    warnings.warn(f"not copied: {skipped.path}: {skipped.why}", stacklevel=3)


class LocalArtifacts:
    """The artifacts below one local folder; the folder need not exist until something is put."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._real = os.path.realpath(self.root)
        self._inside = self._real.rstrip(os.sep) + os.sep

    def path(self, artifact: str = "") -> str:
        """The absolute path of an artifact, links resolved; raises when it is not below the root."""
        name = _writable_name(rules.artifact_path(artifact))
        real = os.path.realpath(os.path.join(self._real, *name.split("/"))) if name else self._real
        if not self._holds(real):
            raise InvalidInput(
                f"the artifact path {artifact!r} leaves the artifact root", hint="a link on its way points outside"
            )
        return real

    def list(self, artifact: str = "") -> List[FileInfo]:
        """What is directly in a folder, sorted by path; a file is listed as itself. Nothing there at all: NotFound."""
        name = rules.artifact_path(artifact)
        path = self.path(name)
        if os.path.isfile(path):
            return [FileInfo(name, False, os.path.getsize(path))]
        try:
            with os.scandir(path) as entries:
                found = [self._file_info(name, entry) for entry in entries if not entry.name.startswith(TEMPORARY)]
        except FileNotFoundError:
            if not name:
                return []
            raise NotFound(f"there is no artifact {name!r} in {self.root}") from None
        return sorted(item for item in found if item is not None)

    def walk(self, artifact: str = "") -> List[FileInfo]:
        """Every file at or below ``artifact``, sorted by path."""
        result, folders = [], [artifact]
        while folders:
            for item in self.list(folders.pop()):
                if item.is_dir:
                    folders.append(item.path)
                else:
                    result.append(item)
        return sorted(result)

    def has(self, artifact: str) -> bool:
        """Whether there is a file or folder of that path."""
        return os.path.lexists(self.path(artifact))

    def put(self, source: str, folder: str = "", *, on_skip: Callable[[Skipped], None] = warn) -> None:
        """Copy a file, or a folder with all that is in it, into ``folder`` under its own name."""
        source = os.path.abspath(os.fspath(source))
        kind = _kind(source)
        name = rules.artifact_path("/".join(part for part in (rules.artifact_path(folder), _name(source)) if part))
        if kind == "folder":
            self.put_tree(source, name, on_skip=on_skip)
        elif kind == "file":
            _copy(source, self._place(name))
        else:
            raise InvalidInput(f"{source} is a {kind}", hint="only files and folders can be artifacts")

    def put_tree(self, source: str, folder: str = "", *, on_skip: Callable[[Skipped], None] = warn) -> None:
        """Copy what is in the folder ``source`` into ``folder``.

        Links to files inside ``source`` are copied as files. Other links, pipes, sockets and devices are skipped.
        """
        source = os.path.abspath(os.fspath(source))
        if _kind(source) != "folder":
            raise InvalidInput(f"{source} is not a folder", hint="use log_artifact for a single file")
        below = rules.artifact_path(folder)
        folders, files = _tree(source, on_skip)
        for name in [below, *("/".join(filter(None, (below, item))) for item in folders)]:
            self._folder(name)
        for name, path, _size in files:
            _copy(path, self._place("/".join(filter(None, (below, name))), known=True))

    def put_bytes(self, content: bytes, artifact: str) -> None:
        """Write ``content`` as the file ``artifact``."""
        with self.writing(artifact) as path, open(path, "wb") as file:
            file.write(content)

    @contextmanager
    def writing(self, artifact: str, suffix: str = "") -> Iterator[str]:
        """Give a path to write to; what is there afterwards, a file or a folder, becomes ``artifact`` all at once.

        ``suffix`` ends the path given, for writers that choose the format by it.
        """
        target = self._place(artifact)
        aside = _aside(target) + suffix
        try:
            yield aside
            with _told(f"write the artifact {artifact}"):
                rights.protect(aside)
                _publish(aside, target)
        except BaseException:
            _remove(aside)
            raise

    def get(
        self,
        artifact: str,
        target: str,
        *,
        progress: Optional[Tick] = None,
        on_skip: Callable[[Skipped], None] = warn,
    ) -> str:
        """Copy an artifact, file or folder, to the path ``target`` and return it.

        A folder that is not there yet appears when it is complete; in one that is, each file does.
        """
        source = self.path(artifact)
        target = os.path.abspath(target)
        kind = _kind(source, self.root, artifact)
        with _told(f"write {target}"):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if kind == "file":
            total = os.path.getsize(source)
            _copy(source, target, progress and (lambda done: progress(done, total)))
            return target
        if kind != "folder":
            raise InvalidInput(f"the artifact {artifact!r} is a {kind}")
        folders, files = _tree(source, on_skip, self._real)
        aside = target if os.path.isdir(target) else _aside(target)
        try:
            _copy_tree(folders, files, aside, progress)
            if aside != target:
                with _told(f"write {target}"):
                    os.rename(aside, target)
        except BaseException:
            if aside != target:
                _remove(aside)
            raise
        return target

    def remove_leftovers(self, older_than: float) -> int:
        """Delete what interrupted writers left aside more than ``older_than`` seconds ago; return how many."""
        from time import time

        count = 0
        for parent, folders, files in os.walk(self._real):
            for name in [name for name in folders + files if name.startswith(TEMPORARY)]:
                path = os.path.join(parent, name)
                if os.lstat(path).st_mtime < time() - older_than:
                    _remove(path)
                    count += 1
            folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        return count

    def _holds(self, real: str) -> bool:
        return real == self._real or real.startswith(self._inside)

    def _file_info(self, folder: str, entry: os.DirEntry[str]) -> Optional[FileInfo]:
        """The entry as a FileInfo, or None for what is not ours to show: links that lead out, pipes, devices."""
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_symlink() and not self._holds(os.path.realpath(entry.path)):
            return None
        try:
            mode = entry.stat()
        except OSError:  # a link to nothing, or gone meanwhile
            return None
        if stat.S_ISDIR(mode.st_mode):
            return FileInfo(path, True)
        return FileInfo(path, False, mode.st_size) if stat.S_ISREG(mode.st_mode) else None

    def _folder(self, name: str) -> str:
        real = self.path(name)
        with _told(f"make the folder {real}"):
            rights.make_folder(real)
        return real

    def _place(self, artifact: str, *, known: bool = False) -> str:
        """Where the new file ``artifact`` goes; ``known`` when its folder was just made and checked by us."""
        name = _writable_name(rules.artifact_path(artifact))
        if not name:
            raise InvalidInput("an artifact needs a name", hint="give a path such as 'plots/loss.png'")
        if any(part.startswith(TEMPORARY) for part in name.split("/")):
            raise InvalidInput(f"the artifact path {artifact!r} has a part that begins with {TEMPORARY}")
        folder, _, last = name.rpartition("/")
        if known:
            return os.path.join(self._real, *folder.split("/"), last)
        return os.path.join(self._folder(folder), last)


def _writable_name(name: str) -> str:
    """The name, if the encoding of file names has all its characters; in the C locale of old that was ASCII."""
    if not name.isascii():
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            raise InvalidInput(
                f"the artifact path {name!r} cannot be written in {sys.getfilesystemencoding()}, the encoding of file names",
                hint="start Python with PYTHONUTF8=1, or under a UTF-8 locale such as LC_ALL=C.UTF-8",
            ) from None
    return name


def _name(path: str) -> str:
    return os.path.basename(path.rstrip(os.sep))


def _kind(path: str, root: str = "", artifact: str = "") -> str:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        what = f"there is no artifact {artifact!r} in {root}" if root else f"there is no file {path}"
        raise NotFound(what) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    return _mode_kind(mode)


def _mode_kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return name
    return "device"


def _tree(
    source: str, on_skip: Callable[[Skipped], None], inside: Optional[str] = None
) -> Tuple[List[str], List[Tuple[str, str, int]]]:
    """Folders (parents first) and files (name, path, size) in ``source``; links may lead anywhere below ``inside``."""
    real = os.path.realpath(inside or source).rstrip(os.sep) + os.sep
    folders: List[str] = []
    files: List[Tuple[str, str, int]] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(os.path.join(source, folder)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise InvalidInput(f"cannot read {os.path.join(source, folder)}: {error.strerror}") from error
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            why, path, size = _judge(entry, name, real)
            if why == "folder":
                folders.append(name)
                waiting.append(name)
            elif why:
                if not (inside and entry.name.startswith(TEMPORARY)):
                    on_skip(Skipped(name, why))
            else:
                files.append((name, path, size))
    return sorted(folders), files


def _judge(entry: os.DirEntry[str], name: str, inside: str) -> Tuple[str, str, int]:
    """("", path, size) for a file to copy, ("folder", ...) for a folder to enter, else why the entry is skipped."""
    if entry.name.startswith(TEMPORARY):
        return f"names that begin with {TEMPORARY} mark unfinished files", "", 0
    try:
        rules.artifact_path(name)
    except InvalidInput:
        return "its name would be a path elsewhere", "", 0
    path = entry.path
    link = entry.is_symlink()
    if link:
        path = os.path.realpath(path)
        if not path.startswith(inside):
            return "a link that leads out of the folder", "", 0
    try:
        found = os.stat(path) if link else entry.stat(follow_symlinks=False)
    except OSError:
        return ("a link that leads nowhere" if link else "it went away"), "", 0
    kind = _mode_kind(found.st_mode)
    if kind == "folder":
        return ("a link to a folder", "", 0) if link else ("folder", "", 0)
    return ("", path, found.st_size) if kind == "file" else (f"a {kind}", "", 0)


def _copy_tree(folders: List[str], files: List[Tuple[str, str, int]], target: str, progress: Optional[Tick]) -> None:
    total = sum(size for _, _, size in files)
    before = 0
    with _told(f"write {target}"):
        os.makedirs(target, exist_ok=True)
        for name in folders:
            os.makedirs(os.path.join(target, *name.split("/")), exist_ok=True)
    for name, path, size in files:
        start = before
        _copy(
            path,
            os.path.join(target, *name.split("/")),
            progress and (lambda done, start=start: progress(start + done, total)),
        )
        before += size


def _aside(target: str) -> str:
    return os.path.join(os.path.dirname(target), TEMPORARY + os.urandom(6).hex())


def _publish(aside: str, target: str) -> None:
    """Rename ``aside`` to ``target``, in place of the file or folder that may be there."""
    if not os.path.isdir(aside) or not os.path.isdir(target):
        os.replace(aside, target)
        return
    old = _aside(target)
    os.rename(target, old)
    os.rename(aside, target)
    _remove(old)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        from shutil import rmtree

        rmtree(path, ignore_errors=True)
        return
    try:
        os.unlink(path)
    except OSError:
        pass


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn an OSError into one sentence that says what could not be done."""
    try:
        yield
    except OSError as error:
        raise MlcliError(f"cannot {what}: {error.strerror or error}", hint="check space and permissions") from error


def _copy(source: str, target: str, tick: Optional[Callable[[int], None]] = None) -> None:
    """Copy one regular file; twice if it changes meanwhile, and not at all if it does not hold still."""
    try:
        reader = os.open(source, _READ)  # not blocking: a pipe must not hang us
    except OSError as error:
        raise InvalidInput(f"cannot read {source}: {error.strerror}") from error
    aside = _aside(target)
    try:
        for _attempt in range(2):
            before = os.fstat(reader)
            if not stat.S_ISREG(before.st_mode):
                raise InvalidInput(f"{source} is no longer a file")
            with _told(f"write {target}"):
                copied = _copy_once(reader, aside, before.st_mode, tick)
            after = os.fstat(reader)
            still = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
            if still and (copied == before.st_size or not before.st_size):  # files of /proc claim to be empty
                with _told(f"write {target}"):
                    os.replace(aside, target)
                return
            os.unlink(aside)
        raise MlcliError(f"{source} changes while it is copied", hint="log it when its writer has finished")
    except BaseException:
        _remove(aside)
        raise
    finally:
        os.close(reader)


def _copy_once(reader: int, target: str, mode: int, tick: Optional[Callable[[int], None]]) -> int:
    """Copy all of ``reader`` to the new file ``target``, inside the kernel where it can, and return how much."""
    os.lseek(reader, 0, os.SEEK_SET)
    writer = os.open(target, _WRITE, rights.FILE | mode & 0o111)
    copied = 0
    try:
        fast = hasattr(os, "copy_file_range")
        while True:
            if fast:
                try:
                    count = os.copy_file_range(reader, writer, _CHUNK)
                except OSError:  # another device, a file system without it: what is wrong for good, read and write tell
                    count = 0
                fast = count > 0
                if not fast:  # the end, or not: the files of /proc claim to be empty
                    continue
            else:
                block = os.read(reader, 1024 * 1024)
                if not block:
                    return copied
                count = _write_all(writer, block)
            copied += count
            if tick:
                tick(copied)
    finally:
        os.close(writer)


def _write_all(fd: int, block: bytes) -> int:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
    return len(block)


def open_artifacts(uri: str, *, store: Optional[str] = None, run_id: Optional[str] = None) -> LocalArtifacts:
    """The artifacts at a location: a folder's path or ``file:`` URI, or a place of the server that is the ``store``.

    With ``run_id`` files that are put while the server is away wait for it, instead of failing.
    """
    if uri.startswith("mlflow-artifacts:"):
        from mlcli.store.served import of_scheme

        return of_scheme(uri, store, run_id)
    if uri.startswith(("http://", "https://")):
        from mlcli.store.served import at

        return at(uri, run_id)
    return LocalArtifacts(_local_path(uri))


def _local_path(uri: str) -> str:
    """The path that ``uri`` means, when it means one on this machine."""
    scheme, colon, rest = uri.partition(":")
    if not colon or os.sep in scheme or (len(scheme) == 1 and sys.platform == "win32"):
        return os.path.abspath(uri)
    if scheme.lower() != "file":
        if scheme.replace("-", "").replace("+", "").isalnum() and rest.startswith("/"):
            raise InvalidInput(
                f"{uri!r}: mlcli does not read {scheme}: locations in this version",
                hint="use runs:/<run id>/<path>, a file: URI or a path",
            )
        return os.path.abspath(uri)
    if "?" in rest or "#" in rest or ";" in rest:
        raise InvalidInput(f"{uri!r} is not a plain file URI", hint="percent-encode ?, # and ;, or give a path")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise InvalidInput(f"{uri!r} is on another machine: {host}", hint="file:///path has three slashes")
        rest = slash + path
    from urllib.parse import unquote

    path = unquote(rest, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidInput(f"{uri!r} is not an absolute file URI", hint="write file:///absolute/path, or a path")
    return path


def locate(uri: str) -> Tuple[LocalArtifacts, str]:
    """The root and the path below it that an artifact URI means: ``runs:/<run>/<path>``, ``file:``, or a path."""
    uri = os.fspath(uri)
    if uri.startswith("runs:"):
        return _in_run(*parse_runs_uri(uri))
    if uri.startswith("models:"):
        return model_artifacts(uri), ""
    if uri.startswith(("http://", "https://", "mlflow-artifacts:")):
        return open_artifacts(uri), ""
    path = _local_path(uri).rstrip(os.sep) or os.sep
    return LocalArtifacts(os.path.dirname(path)), os.path.basename(path)


def parse_runs_uri(uri: str) -> Tuple[str, str]:
    """Split ``runs:/<run>[/<path>]`` into the run and the path."""
    run, _, path = uri[len("runs:/") :].partition("/")
    if not uri.startswith("runs:/") or not run:
        raise InvalidInput(f"{uri!r} is not an artifact URI", hint="write runs:/<run id>/<path>")
    return run, rules.artifact_path(path)


def run_artifacts(run: str, tracking_uri: Optional[str] = None) -> LocalArtifacts:
    """The artifacts of a run, named by its id, the beginning of it, or ``latest``."""
    from mlcli.store import open_store

    with open_store(tracking_uri, create=False) as store:
        return open_artifacts(store.artifact_root(store.find_run(run)))


def _in_run(run: str, path: str) -> Tuple[LocalArtifacts, str]:
    from mlcli.store import open_store

    with open_store(create=False) as store:
        return place_in_run(store, store.find_run(run), path)


def place_in_run(store: Store, run_id: str, path: str) -> Tuple[LocalArtifacts, str]:
    """A path in a run; where the run has no such file, in the logged model of that name, as MLflow 3 has it."""
    found = store.get_run(run_id)
    artifacts = open_artifacts(found.info.artifact_uri, store=store.root)
    name, _, rest = path.partition("/")
    if name and found.outputs.model_outputs and not artifacts.has(name):
        for output in reversed(found.outputs.model_outputs):
            try:
                model = store.get_logged_model(output.model_id)
            except NotFound:  # it was deleted
                continue
            if model.name == name:
                return open_artifacts(model.artifact_location, store=store.root), rest
    return artifacts, path


def model_artifacts(uri: str) -> LocalArtifacts:
    """The files of a registered or logged model: ``models:/<name>/<version>``, ``models:/<name>@<alias>`` ..."""
    from mlcli.store import open_store

    with open_store(create=False) as store:
        return model_in(store, uri)


def model_in(store: Store, uri: str) -> LocalArtifacts:
    """The files of a registered or logged model of a store."""
    found = store.locate_model(uri)
    if found.startswith("runs:"):
        return below(*place_in_run(store, *parse_runs_uri(found)))
    if os.path.isabs(found) or (found.startswith("mlflow-artifacts:/") and found[18:19] != "/"):
        return open_artifacts(found, store=store.root)
    # Whoever registered the model chose this address: no request, and no token of ours, goes there.
    raise InvalidInput(f"the files of {uri} are kept elsewhere", hint=f"fetch them yourself: {found}")


def below(artifacts: LocalArtifacts, path: str) -> LocalArtifacts:
    """The artifacts in a folder of others."""
    if not path:
        return artifacts
    if artifacts.root.startswith(("http://", "https://")):
        from urllib.parse import quote

        path = quote(path)
    return open_artifacts(f"{artifacts.root}/{path}")


def resolve(uri: str) -> str:
    """The absolute local path of an artifact URI; NotFound when nothing is there."""
    artifacts, path = locate(uri)
    found = artifacts.path(path)
    _kind(found, artifacts.root, path)
    return found


def download(
    uri: str,
    dst: Optional[str] = None,
    progress: Optional[Tick] = None,
    *,
    on_skip: Callable[[Skipped], None] = warn,
) -> str:
    """Copy an artifact into the folder ``dst`` and return its path there; without ``dst``, where it already lies."""
    if dst is None:
        return resolve(uri)
    return _download(*locate(uri), dst, progress, on_skip)


def _download(
    artifacts: LocalArtifacts,
    path: str,
    dst: str,
    progress: Optional[Tick] = None,
    on_skip: Callable[[Skipped], None] = warn,
) -> str:
    """The root itself is poured into ``dst``; anything else keeps its name there."""
    target = os.path.join(os.fspath(dst), path.rpartition("/")[2]) if path else os.fspath(dst)
    return artifacts.get(path, target, progress=progress, on_skip=on_skip)


def _asked(
    artifact_uri: Optional[str], run_id: Optional[str], artifact_path: Optional[str], tracking_uri: Optional[str]
) -> Tuple[LocalArtifacts, str]:
    if (artifact_uri is None) == (run_id is None):
        raise InvalidInput("give artifact_uri or run_id, one of them")
    if run_id is not None:
        return run_artifacts(run_id, tracking_uri), rules.artifact_path(artifact_path or "")
    artifacts, path = locate(artifact_uri or "")
    return artifacts, "/".join(filter(None, (path, rules.artifact_path(artifact_path or ""))))


def download_artifacts(
    artifact_uri: Optional[str] = None,
    run_id: Optional[str] = None,
    artifact_path: Optional[str] = None,
    dst_path: Optional[str] = None,
    tracking_uri: Optional[str] = None,
) -> str:
    """Fetch a file or folder and return its local path; without ``dst_path`` nothing is copied that is local already."""
    artifacts, path = _asked(artifact_uri, run_id, artifact_path, tracking_uri)
    if dst_path is not None:
        return _download(artifacts, path, dst_path)
    found = artifacts.path(path)
    if path:
        _kind(found, artifacts.root, path)
    return found


def list_artifacts(
    artifact_uri: Optional[str] = None,
    run_id: Optional[str] = None,
    artifact_path: Optional[str] = None,
    tracking_uri: Optional[str] = None,
) -> List[FileInfo]:
    """What is directly at a place; nothing there is an empty list, as in MLflow."""
    artifacts, path = _asked(artifact_uri, run_id, artifact_path, tracking_uri)
    try:
        return artifacts.list(path)
    except NotFound:
        return []


def load_text(artifact_uri: str) -> str:
    """Read a text artifact, which is UTF-8."""
    path = resolve(artifact_uri)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InvalidInput(f"{artifact_uri} is not a text file: {error}") from None


def load_dict(artifact_uri: str) -> Dict[str, Any]:
    """Read a JSON artifact."""
    try:
        content: Dict[str, Any] = json.loads(load_text(artifact_uri))
    except ValueError as error:
        raise InvalidInput(f"{artifact_uri} is not JSON: {error}") from None
    return content


def load_image(artifact_uri: str) -> Any:
    """Read an image artifact with Pillow."""
    path = resolve(artifact_uri)
    try:
        import PIL.Image
    except ImportError:
        raise MlcliError("reading images needs Pillow", hint="pip install pillow") from None
    try:
        with PIL.Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise InvalidInput(f"{artifact_uri} is not an image: {error}") from None
