"""Telling a job's end to a URL that its caller gave."""

from __future__ import annotations

from urllib.parse import urlsplit

from flashfw.errors import UsageError

MAX_URL = 2048


def check_url(url: str) -> None:
    """Refuse what can be no webhook, before a job is accepted.

    Raises:
        UsageError: it is no http or https URL with a host, holds a password, or is too long.

    >>> check_url("https://example.com/done?job=1")
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"it is no URL: {error}") from error
    if len(url) > MAX_URL:
        raise UsageError(f"a webhook has at most {MAX_URL} characters")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("a webhook is an http or https URL with a host")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise UsageError("a URL holds printable ASCII without spaces")
    if parts.username is not None or parts.password is not None:
        raise UsageError("a webhook's URL may hold no user or password")
