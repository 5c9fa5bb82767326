"""The run of `mlcli run` on its way to a tracking server: its lines as they come, its files when it has ended.

Until then the files lie in the spool, under a lock that lives as long as this process; when the server is away, or mlcli
is killed, they stay there, and `mlcli sync` sends them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlcli import rights
from mlcli.artifacts import LocalArtifacts
from mlcli.errors import MlcliError, StoreUnavailable
from mlcli.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

START_SECONDS = 15.0  # for the server to take the beginning of a run


class Shipment:
    """What a run of the server ``root`` leaves here until it is sent."""

    def __init__(self, root: str, run_id: str) -> None:
        from mlcli.store import spool

        self.root = root
        spool.make_folder(root)
        folder = spool.files_folder(root, run_id, own=True)
        rights.make_folder(os.path.dirname(folder))
        self._lock = os.open(folder + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try_lock(self._lock)
        self.artifacts = LocalArtifacts(folder)

    def flush(self) -> None:
        """Send what stands in the journals of this process; raises when the server is away."""
        from mlcli.store import spool

        spool.shipper(self.root).send(START_SECONDS)

    def settle(self) -> bool:
        """The same, with what dead programs left, waiting a bounded time; False when the server is away."""
        from mlcli.store import settle

        return settle(self.root)

    def send(self, note: Callable[[str], None]) -> None:
        """Send all lines and files of the run, once its journals are closed."""
        from mlcli.store import spool

        os.close(self._lock)
        if not self.settle():
            return
        try:
            spool.send_files(self.root, self.artifacts.root)
        except StoreUnavailable as error:
            note(f"{error.message}; the files of the run wait here, and `mlcli sync` sends them later")
        except MlcliError as error:
            note(f"files of the run could not be sent and are kept in {self.artifacts.root}: {error.message}")


def login_variables(root: str) -> dict[str, str]:
    """The login that stood in the server's address, for the program that is run."""
    from mlcli.store import http

    return http.login_variables(root)
