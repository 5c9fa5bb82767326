"""Letting a browser in: a token, shown once, becomes a cookie that only this server's pages send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlcli.server import http, pages
from mlcli.server.http import Receive, Refused, Scope, Send

if TYPE_CHECKING:
    from mlcli.server.app import Request


async def login(request: Request, scope: Scope, receive: Receive, send: Send) -> None:
    """Take the token of a form, or of an address as `mlcli ui` prints it, and go to the first page."""
    server = request.server
    if scope["method"] == "POST":
        token = (await pages.read_form(request, receive)).one("token").strip()
    else:
        token = pages.read_query(scope["query_string"]).one("token").strip()
    if not server.auth.required or (scope["method"] == "GET" and not token):
        await pages.answer_move(server, send, "/")
        return
    session = server.auth.session(token)
    if session is None:
        visit = pages.visit_of(server, {**scope, "query_string": b""}, request.headers, {}, request.user)
        page = pages.Page("login.html", "Log in", {"wrong": True})
        content = await pages.draw(visit, page)
        await http.answer(send, 401, content, [(b"content-type", b"text/html; charset=utf-8"), *pages.SAFE])
        return
    await pages.answer_move(server, send, "/", [pages.cookie(server, server.cookie, session)])


async def logout(request: Request, _scope: Scope, _receive: Receive, send: Send) -> None:
    """Let the browser forget its token."""
    if request.header(b"sec-fetch-site") != b"same-origin" and request.header(b"origin") is None:
        raise Refused(403, "PERMISSION_DENIED", "this is for the buttons of our own pages")
    await pages.answer_move(request.server, send, "/", [pages.cookie(request.server, request.server.cookie, "", age=0)])
