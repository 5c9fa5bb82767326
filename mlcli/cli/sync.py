"""`mlcli sync`: send what is still to go to a tracking server that was away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mlcli import config
from mlcli.cli import options, render
from mlcli.errors import MlcliError, StoreUnavailable
from mlcli.store import is_remote, spool, store_root

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def sync(as_json: options.Json = False) -> None:
    """Send what was logged while a tracking server was away, or by a program that was killed.

    Lines go in their order and count once, however often this is started. Runs that a killed program left open are
    closed as KILLED. Without a server in --tracking-uri or the settings, all servers that something waits for are tried.
    """
    result = []
    failures: list[MlcliError] = []
    for root in _servers():
        try:
            sent = spool.sync(root, progress=render.detail)
        except MlcliError as error:
            failures.append(error)
            render.warn(f"nothing more could be sent to {root}: {error.message}", error.hint)
            continue
        result.append({"server": root, **sent._asdict()})
        render.note(_words(root, sent))
    if as_json:
        render.emit_json(result)
    if failures:
        unavailable = any(isinstance(error, StoreUnavailable) for error in failures)
        raise typer.Exit(StoreUnavailable.exit_code if unavailable else 1)
    if not result:
        render.note("nothing waits to be sent")


def _servers() -> Sequence[str]:
    if config.tracking_uri().source != "default":
        root = store_root()
        if is_remote(root):
            return [root]
    return [root for root in spool.spools() if any(spool.left(root))]


def _words(root: str, sent: spool.Sent) -> str:
    if not (sent.journals or sent.files or sent.live):
        return f"{root} has everything"
    words = f"{root}: sent {render.size(sent.bytes)} of {render.count(sent.journals, 'journal')}"
    words += f" and {render.count(sent.files, 'file')}"
    if sent.live:
        words += f"; {render.count(sent.live, 'journal')} of programs that run are sent by these"
    return words
