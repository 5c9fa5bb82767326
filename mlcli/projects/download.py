"""Files at http addresses, brought to this machine: zip files of projects, values of parameters of type path."""

from __future__ import annotations

import os
import re
from typing import IO, NamedTuple

from mlcli.errors import InvalidInput, ProjectError
from mlcli.projects import git

ADDRESS = re.compile(r"https?://[^/\s]", re.IGNORECASE)


class Download(NamedTuple):
    """A value of a parameter that lies at ``uri`` and is wanted at ``path``, in a folder of its own of ``folder``."""

    parameter: str
    uri: str
    path: str
    folder: str


def planned(parameter: str, uri: str, number: int, storage_dir: str | None, before: Download | None) -> Download:
    """Where the value will lie: beside what is downloaded ``before`` for the same run; nothing is made yet."""
    import secrets
    import tempfile
    from urllib.parse import unquote, urlsplit

    folder = before.folder if before else ""
    if not folder:
        folder = os.path.join(os.path.abspath(storage_dir or tempfile.gettempdir()), f"mlcli-{secrets.token_hex(6)}")
    try:
        below = unquote(urlsplit(uri).path)
    except ValueError as error:
        raise InvalidInput(f"the parameter `{parameter}`: `{uri}` is not a URI: {error}") from None
    name = re.sub(r"[\x00-\x1f/\\]", "_", os.path.basename(below)).lstrip(".") or "download"
    return Download(parameter, uri, os.path.join(folder, f"param_{number}", name), folder)


def fetch(download: Download) -> int:
    """Bring it where it was planned; give its size."""
    os.makedirs(download.folder, mode=0o700, exist_ok=True)
    os.makedirs(os.path.dirname(download.path), exist_ok=True)
    with open(download.path, "wb") as file:
        into(file, download.uri)
        return file.tell()


def into(file: IO[bytes], uri: str, *, limit: int | None = None) -> None:
    """Write what lies at ``uri`` into ``file``; raises ProjectError that says why not, without the address's password."""
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    shown = git.strip_credentials(uri)
    size = 0
    try:
        with urlopen(uri, timeout=60) as response:  # noqa: S310 - only http and https get here
            while chunk := response.read(1 << 20):
                size += len(chunk)
                if limit is not None and size > limit:
                    raise ProjectError(f"{shown} is larger than {limit >> 20} MiB")
                file.write(chunk)
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise ProjectError(
            f"{shown} cannot be downloaded: {reason}", hint="is the address right, is the network up?"
        ) from None
