"""What a handler is given: the store, the checked request, and who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlcli.server.security import Identity
from mlcli.store import Store

if TYPE_CHECKING:
    from mlcli.server.app import Server


class Call(NamedTuple):
    """One request as its handler sees it; ``given`` has the known fields, checked."""

    server: Server
    store: Store
    given: dict[str, Any]
    user: Identity
    key: str | None = None  # Idempotency-Key: the same request sent again is the same request

    def text(self, name: str) -> str:
        found: str = self.given.get(name, "")
        return found
