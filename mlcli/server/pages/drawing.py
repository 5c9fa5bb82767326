"""Pages as HTML: the templates of the package, what they may call, and every text escaped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from markupsafe import Markup

from mlcli._version import __version__
from mlcli.cli import render
from mlcli.evaluation import pictures
from mlcli.evaluation.page import AXES
from mlcli.rollouts.courses import evidence_pictures
from mlcli.rollouts.words import worded
from mlcli.server.pages import LANGUAGES, Page, Visit, assets, dumped
from mlcli.server.pages.markdown import as_html
from mlcli.server.pages.texts import SCRIPT_TEXTS, translated


def draw(visit: Visit, page: Page) -> bytes:
    """The page, or the part of it that is asked for, as HTML."""
    template = _environment().get_template(page.template)
    language = visit.language

    def here(**changes: Any) -> str:
        """The address of this page with other values; None takes a name out."""
        query = {name: values for name, values in visit.query.items() if name not in ("part", "format", "lang")}
        for name, value in changes.items():
            query.pop(name, None)
            if value is not None:
                query[name] = [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
        text = urlencode(query, doseq=True)
        return visit.server.prefix + quote(visit.path) + (f"?{text}" if text else "")

    context = {
        **page.data,
        "data": page.data,
        "bare": page.template in ("login.html", "refused.html"),
        "page_title": page.title if page.named else translated(page.title, language),
        "language": language,
        "theme": visit.theme,
        "may_write": visit.may_write,
        "user": visit.user,
        "logged_in": visit.server.auth.required,
        "query": visit.query,
        "path": visit.path,
        "here": here,
        "url": _addresses(visit.server.prefix),
        "asset": lambda name: f"{visit.server.prefix}/static/{assets.name_of(name)}",
        "worded": lambda text, said: _in_words(text, said, language),
        "t": lambda text, **values: translated(text, language, **values),
        "script_texts": {text: translated(text, language) for text in SCRIPT_TEXTS} if language != "en" else {},
        "now": int(time.time() * 1000),
    }
    if not page.part:
        return template.render(context).encode("utf-8", "replace")
    drawn = template.new_context(context)
    return "".join(template.blocks[page.part](drawn)).encode("utf-8", "replace")


def _in_words(text: str, said: Any, language: str) -> str:
    """What was said of a rollout in the reader's language; what a person wrote instead stays as it is."""
    if not isinstance(said, dict) or worded(said) != text:
        return text
    return worded(said, lambda sentence: translated(sentence, language)) or text


def _addresses(prefix: str) -> Callable[..., str]:
    def url(*parts: str, **query: Any) -> str:
        """The address of a page of ours: its parts, each quoted, and its query; None is left out."""
        text = urlencode({name: value for name, value in query.items() if value not in (None, "")}, doseq=True)
        path = "/".join(quote(str(part), safe="") for part in parts)
        return f"{prefix}/{path}" + (f"?{text}" if text else "")

    return url


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("mlcli.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.policies["json.dumps_function"] = lambda found, **_kwargs: dumped(found).decode()
    made.filters |= {
        "duration": render.duration,
        "size": render.size,
        "number": _number,
        "moment": _moment,
        "markdown": lambda text: Markup(as_html(text)),  # noqa: S704 - made from escaped text
        "count": lambda value: f"{value:,}",
        "short": lambda run_id: str(run_id)[:8],
        "spark": _spark,
    }
    made.globals |= {
        "in_columns": _in_columns,
        "picture": pictures.picture,
        "evidence_pictures": evidence_pictures,
        "axes": AXES,
        "svg": lambda shape, title: Markup(pictures.svg(shape, title)),  # noqa: S704 - what people named is escaped in it
        "legend": lambda shape: Markup(pictures.legend(shape)),  # noqa: S704 - the same
        "basename": lambda text: str(text).rstrip("/").rpartition("/")[2],
        "mlcli_version": __version__,
        "languages": LANGUAGES,
        "SIGNS": _SIGNS,
    }
    return made


_SIGNS = {"FINISHED": "✓", "FAILED": "✗", "KILLED": "■", "RUNNING": "●", "SCHEDULED": "◌"}


def _number(value: Any) -> str:
    if isinstance(value, str):  # NaN and the infinities, as JSON has them
        return value
    return "" if value is None else render.number(value)


def _in_columns(runs: Sequence[Any], columns: Sequence[str]) -> dict[str, Callable[[Any], str]]:
    """How to show the numbers of each metric so that their points stand below each other."""
    return {
        name: render.numbers(run["metrics"].get(name[len("metrics.") :]) for run in runs)
        for name in columns
        if name.startswith("metrics.")
    }


@pass_context
def _moment(context: Any, ms: int | None, *, absolute: bool = False) -> str:
    """A moment: how long ago, and its date for whoever points at it. The browser writes it in its own time zone."""
    if ms is None:
        return ""
    iso = render.iso_time(ms)
    shown = iso[:16].replace("T", " ") + " UTC" if absolute else translated_ago(ms, context["now"], context["language"])
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        iso, iso, Markup(' data-absolute=""') if absolute else "", shown
    )


def translated_ago(ms: int, now: int, language: str) -> str:
    seconds = (now - ms) / 1000
    for limit, unit, words in (
        (60, 1, "{n} s ago"),
        (3600, 60, "{n} min ago"),
        (86400, 3600, "{n} h ago"),
        (30 * 86400, 86400, "{n} d ago"),
    ):
        if -60 < seconds < limit:
            return translated(words, language, n=int(max(seconds, 0) // unit))
    return render.iso_time(ms)[:10]


def _spark(values: Sequence[float]) -> str:
    """A course as an SVG path, 100 wide and 24 high, broken where a value is no number."""
    finite = [value for value in values if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    half = (high / 2 - low / 2) or 1.0
    wide = 100 / (len(values) - 1)
    result, pen = [], "M"
    for place, value in enumerate(values):
        if not abs(value) < float("inf"):
            pen = "M"
            continue
        result.append(f"{pen}{place * wide:.1f},{23 - 22 * ((value / 2 - low / 2) / half):.1f}")
        pen = "L"
    return " ".join(result)
