"""Notes in Markdown as HTML that can do no harm: HTML in them stays text, links lead to the web, images are links."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST = 100_000  # characters that are drawn; beyond, the text is cut


def as_html(text: str) -> str:
    return str(_reader().render(text[:MOST]))


class _Reader(MarkdownIt):
    """A reader whose links lead to the web, or to a place in the note, and nowhere else."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        return url.strip().lower().startswith(("http://", "https://", "mailto:", "#"))


@cache
def _reader() -> MarkdownIt:
    made = _Reader("commonmark", {"html": False, "linkify": False, "maxNesting": 20})
    made.enable(["table", "strikethrough"])
    made.add_render_rule("image", _image)
    made.add_render_rule("link_open", _link)
    return made


def _link(self: Any, tokens: Sequence[Token], place: int, options: Any, _env: MutableMapping[str, Any]) -> str:
    tokens[place].attrSet("rel", "noopener noreferrer nofollow")
    return str(self.renderToken(tokens, place, options, _env))


def _image(self: Any, tokens: Sequence[Token], place: int, options: Any, env: MutableMapping[str, Any]) -> str:
    """A link to the picture: loading it would tell its server who reads the note."""
    from markupsafe import escape

    token = tokens[place]
    words = self.renderInlineAsText(token.children or [], options, env) or str(token.attrs.get("src", ""))
    return f'<a rel="noopener noreferrer nofollow" href="{escape(str(token.attrs.get("src", "")))}">{escape(words)}</a>'
