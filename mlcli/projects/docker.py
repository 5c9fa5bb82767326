"""The ``docker_env`` of a project: image, volumes and environment of the container it runs in."""

from __future__ import annotations

from typing import NamedTuple


class DockerSpec(NamedTuple):
    """An item of ``environment`` is a name (copied from the host) or a pair of name and value (set)."""

    image: str
    volumes: tuple[str, ...] = ()
    environment: tuple[str | tuple[str, str], ...] = ()
