"""Pages for people with a browser: their routes, and what stands between a request and what is shown.

A page is a function that makes one dict; the HTML and its JSON twin (``?format=json``) are made from that dict. The
modules of the pages, and jinja2 with them, are imported when somebody asks for a page: clients of the API never do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from mlcli.errors import InvalidInput
from mlcli.server import http
from mlcli.server.http import Headers, Receive, Refused, Scope, Send
from mlcli.server.security import OPEN, READ, WRITE, Identity, read_cookies

if TYPE_CHECKING:
    from mlcli.server.app import Request, Server
    from mlcli.store import Store

# Nothing but our own files is loaded, nothing in a page itself runs, nobody frames it.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    b" frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE: Headers = [
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_HTML, _JSON = b"text/html; charset=utf-8", b"application/json"
MAX_FORM = 1024 * 1024
_SMALL = 1400  # bytes: what fits into one packet gains nothing by being compressed
LANGUAGES = ("en", "ko")
THEMES = ("light", "dark")
_LANGUAGE, _THEME = "mlcli-language", "mlcli-theme"

# Path, right, the function that makes it, what it shows.
_PAGES = (
    ("/", READ, "experiments:listing", "List the experiments."),
    ("/runs", READ, "runs:table", "Search the runs of several experiments, or of all."),
    ("/experiments/{experiment_id}", READ, "runs:table", "Search the runs of an experiment."),
    ("/search/check", READ, "search:check", "Say what is wrong with a filter, and how it could go on."),
    ("/runs/{run_id}", READ, "run:overview", "Show a run."),
    ("/runs/{run_id}/charts", READ, "run:charts", "Show the curves of a run."),
    ("/runs/{run_id}/artifacts", READ, "run:artifacts", "Show the files of a run."),
    ("/runs/{run_id}/log", READ, "run:log", "Show what a run wrote to stdout and stderr."),
    ("/charts", READ, "charts:overlay", "Lay curves of several runs over each other."),
    ("/charts/points", READ, "charts:points", "Give the points of curves, thinned to what a picture shows."),
    ("/compare", READ, "compare:compare", "Put runs side by side and in pictures."),
    ("/models", READ, "models:listing", "List the registered models."),
    ("/models/{name}", READ, "models:model", "Show a registered model and its versions."),
    ("/models/{name}/compare", READ, "models:compare", "Put versions of a model side by side."),
    ("/models/{name}/{version}", READ, "models:version", "Show a version of a model."),
    ("/rollouts", READ, "rollouts:listing", "List the rollouts."),
    ("/rollouts/{name}", READ, "rollouts:rollout", "Show how a rollout stands, and how it came to that."),
)


def routes() -> list[tuple[str, str, str, Callable[..., Awaitable[None]], str]]:
    """Method, path, right, handler and what it does, of every page and of every file that pages need."""
    return [
        *(("GET", path, right, _page(name), about) for path, right, name, about in _PAGES),
        ("GET", "/runs/{run_id}/file", READ, _stream("previews:show_file"), "Show a file of a run, where it can do no harm."),
        ("GET", "/charts/points.csv", READ, _stream("charts:download"), "Download every point of curves as CSV."),
        ("POST", "/do/{action}", WRITE, _act, "Do what a button says."),
        ("GET", "/login", OPEN, _stream("login:login"), "Let a browser in with the token in its address."),
        ("POST", "/login", OPEN, _stream("login:login"), "Let a browser in with a token."),
        ("POST", "/logout", OPEN, _stream("login:logout"), "Let a browser forget its token."),
        ("GET", "/static/{name}", OPEN, _stream("assets:send_asset"), "Send a file that pages need."),
    ]  # fmt: skip


class Query(dict[str, list[str]]):
    """What stands in the address after the ``?``, each name with all its values."""

    def one(self, name: str, default: str = "") -> str:
        return (self.get(name) or [default])[-1]

    def many(self, name: str) -> list[str]:
        return self.get(name, [])

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self.one(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 12):
            raise InvalidInput(f"{name}={text[:40]!r} is not a whole number")
        return min(max(int(text), least), most)

    def chosen(self, name: str, choices: tuple[str, ...]) -> str:
        """One of the choices; the first where another, or none, is given."""
        text = self.one(name)
        return text if text in choices else choices[0]


class Visit(NamedTuple):
    """Somebody looks at a page: what was asked for, by whom, and how they like to see it."""

    server: Server
    user: Identity
    path: str
    given: Mapping[str, str]
    query: Query
    language: str
    theme: str

    @property
    def may_write(self) -> bool:
        return self.user.may(WRITE)


class Page(NamedTuple):
    """What a page shows: ``data`` is all of it, ready for JSON; ``title`` and ``template`` say how it looks."""

    template: str
    title: str
    data: dict[str, Any]
    part: str = ""  # only this block of the template: what a page asks for again and again while runs go on
    named: bool = False  # the title is a name that somebody gave: it is in nobody's language


def _named(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), function)


def _stream(name: str) -> Callable[..., Awaitable[None]]:
    async def handler(request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        await _named(name)(request, scope, receive, send)

    return handler


def _page(name: str) -> Callable[..., Awaitable[None]]:
    async def handler(request: Request, scope: Scope, _receive: Receive, send: Send) -> None:
        visit = visit_of(request.server, scope, request.headers, request.given, request.user)
        as_json = visit.query.one("format") == "json"

        packs = b"gzip" in (request.header(b"accept-encoding") or b"")

        def job(store: Store) -> tuple[bytes, Headers]:
            made = _named(name)(visit, store)
            if isinstance(made, Page) and not as_json:
                return _packed(_drawing().draw(visit, made), _HTML, packs=packs)
            return _packed(dumped(made.data if isinstance(made, Page) else made), _JSON, packs=packs)

        content, headers = await request.server.workers.read(job, quick=False)
        await http.answer(send, 200, content, [*headers, *_kept(visit), *SAFE])

    return handler


def _packed(content: bytes, kind: bytes, *, packs: bool) -> tuple[bytes, Headers]:
    """The content, compressed where the browser takes that, with the headers that say what it is."""
    headers: Headers = [(b"content-type", kind), (b"vary", b"accept-encoding")]
    if not packs or len(content) < _SMALL:
        return content, headers
    import gzip

    return gzip.compress(content, 1, mtime=0), [*headers, (b"content-encoding", b"gzip")]


def _drawing() -> Any:
    return import_module(f"{__name__}.drawing")


async def draw(visit: Visit, page: Page) -> bytes:
    """Draw a page for which no store is asked, aside from the thread that answers."""
    return await asyncio.get_running_loop().run_in_executor(None, _drawing().draw, visit, page)


def dumped(found: Any) -> bytes:
    """JSON that browsers read, whatever was logged: NaN and the infinities are texts in it."""
    from mlcli.cli.render import json_ready

    try:
        return http.dump(found)
    except ValueError:  # a metric that JSON has no word for
        return http.dump(json_ready(found))


def _kept(visit: Visit) -> Headers:
    """A language that was chosen is remembered."""
    if visit.query.one("lang") not in LANGUAGES:
        return []
    return [cookie(visit.server, _LANGUAGE, visit.language, hidden=False)]


def cookie(server: Server, name: str, value: str, *, hidden: bool = True, age: int = 31_536_000) -> tuple[bytes, bytes]:
    path = server.prefix + "/"
    flags = "; HttpOnly; SameSite=Strict" if hidden else "; SameSite=Lax"
    return b"set-cookie", f"{name}={value}; Path={path}; Max-Age={age}{flags}".encode()


def visit_of(
    server: Server, scope: Scope, headers: Mapping[bytes, bytes], given: Mapping[str, str], user: Identity
) -> Visit:
    cookies = read_cookies(headers.get(b"cookie"))
    query = read_query(scope["query_string"])
    language = query.one("lang") or cookies.get(_LANGUAGE, "")
    if language not in LANGUAGES:
        language = preferred(headers.get(b"accept-language", b"").decode("latin-1"))
    theme = cookies.get(_THEME, "")
    path = server._path(scope)  # noqa: SLF001 - the path that the router saw
    return Visit(server, user, path, given, query, language, theme if theme in THEMES else "")


def read_query(text: bytes) -> Query:
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=2000)
    except ValueError:
        raise InvalidInput("the address is not valid text") from None
    query = Query()
    for name, value in pairs:
        if "\0" in value:
            raise InvalidInput(f"{name!r} in the address contains a character that is no text")
        query.setdefault(name, []).append(value)
    return query


def preferred(header: str) -> str:
    """The language of ours that a browser likes best."""
    liked = []
    for place, item in enumerate(header.split(",")):
        name, _, weight = item.strip().partition(";q=")
        try:
            liked.append((-float(weight or 1), place, name.strip().lower()[:2]))
        except ValueError:
            continue
    return next((name for _, _, name in sorted(liked) if name in LANGUAGES), LANGUAGES[0])


# -- answers that are no pages


async def answer_move(server: Server, send: Send, path: str, headers: Headers | None = None) -> None:
    """Send a browser to another page of ours; ``path`` is never taken from a request."""
    await http.answer(send, 303, b"", [(b"location", (server.prefix + path).encode()), *(headers or []), *SAFE])


async def answer_refused(server: Server, scope: Scope, send: Send, refused: Refused) -> None:
    """Say as a page what went wrong; where a token is needed, ask for it."""
    headers = {name: value for name, value in scope["headers"] if name != b"authorization"}
    try:
        visit = visit_of(server, scope, headers, {}, Identity(None, READ))
    except InvalidInput:
        visit = visit_of(server, {**scope, "query_string": b""}, headers, {}, Identity(None, READ))
    followed = headers.get(b"sec-fetch-site", b"") == b"cross-site"
    if refused.status == 401 and followed and headers.get(b"sec-fetch-mode") == b"navigate":
        # A link on somebody's page: the cookie is not sent with it, but with what a page of our own asks for.
        page = Page("again.html", "", {})
    elif refused.status == 401:
        page = Page("login.html", "Log in", {"wrong": False})
    else:
        page = Page("refused.html", refused.error_code, {"status": refused.status, "message": refused.message})
    content = await draw(visit, page)
    kept = [(name, value) for name, value in refused.headers if name != b"www-authenticate"]
    await http.answer(send, refused.status, content, [(b"content-type", b"text/html; charset=utf-8"), *kept, *SAFE])


async def read_form(request: Request, receive: Receive) -> Query:
    """The fields of a form that one of our pages sent, and no other page can have."""
    site, origin = request.header(b"sec-fetch-site"), request.header(b"origin")
    if site != b"same-origin" and origin is None:
        raise Refused(403, "PERMISSION_DENIED", "this is for the buttons of our own pages; programs use the API")
    kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/x-www-form-urlencoded":
        raise Refused(415, "BAD_REQUEST", "the body must be a form: application/x-www-form-urlencoded")
    return read_query(await http.read_body(receive, MAX_FORM))


async def _act(request: Request, _scope: Scope, receive: Receive, send: Send) -> None:
    form = await read_form(request, receive)
    action = _named("actions:find")(request.given["action"])
    place = await request.server.workers.write(lambda store: action(store, form, request.user), durable=True)
    if request.header(b"accept") == b"application/json":
        await http.answer(
            send,
            200,
            http.dump({"page": request.server.prefix + place}),
            [(b"content-type", b"application/json"), *SAFE],
        )
        return
    await answer_move(request.server, send, place)
