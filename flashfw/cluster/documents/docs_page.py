"""The page at `/docs`: one HTML document that holds all it needs and reads `/openapi.json`."""

from __future__ import annotations

import html
from importlib import resources

CONTENT_TYPE = "text/html; charset=utf-8"


def page(title: str) -> bytes:
    """The page under a title, in UTF-8; it fetches nothing but `openapi.json` beside it and what is tried."""
    template = _read("docs.html")
    for name, text in (("style", _read("docs.css")), ("script", _read("docs.js")), ("title", html.escape(title))):
        template = template.replace("{{%s}}" % name, text.rstrip())  # noqa: UP031 - braces in an f-string hide the name
    return template.encode()


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
