"""What the server says of itself: health, version, what it can do, who its users are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlcli._version import __version__
from mlcli.server.call import Call
from mlcli.server.http import Receive, Send, answer_text

if TYPE_CHECKING:
    from mlcli.server.app import Request


async def health(_request: Request, _receive: Receive, send: Send) -> None:
    """Say OK."""
    await answer_text(send, "OK")


async def version(_request: Request, _receive: Receive, send: Send) -> None:
    """Say which version of mlcli this is."""
    await answer_text(send, __version__)


def server_info(_call: Call) -> dict[str, Any]:
    """Tell MLflow's clients which of its newer ways this server knows."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {"gateway": False},
        "server": "mlcli",
        "server_version": __version__,
    }


def openapi(call: Call) -> dict[str, Any]:
    """Describe every route in OpenAPI's form."""
    from mlcli.server.openapi import document

    return document(call.server.router.routes)


def list_users(call: Call) -> dict[str, Any]:
    """List the users and their roles."""
    users = call.server.users.read() if call.server.users else {}
    return {"users": [{"name": name, "role": user["role"]} for name, user in sorted(users.items())]}
