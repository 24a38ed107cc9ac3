"""How much a request wants a content type, by its `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re

_WEIGHT = re.compile(r"\bq\s*=\s*([01](?:\.\d{0,3})?)", re.ASCII)


def weight(accept: str, media: str) -> float:
    """The weight of a content type, from 0 (not wanted) to 1; the most exact entry counts. No header wants anything.

    >>> [weight("image/*, application/json;q=0.5", media) for media in ("image/png", "application/json", "text/html")]
    [1.0, 0.5, 0.0]
    >>> weight("", "image/png"), weight("*/*;q=0.1, image/png;q=0", "image/png")
    (1.0, 0.0)
    """
    media = media.partition(";")[0].strip().lower()
    ranges = ("*/*", f"{media.partition('/')[0]}/*", media)
    found: tuple[int, float] = (-1, 0.0)
    for item in accept.lower().split(","):
        name, _, parameters = item.partition(";")
        if name.strip() in ranges:
            given = _WEIGHT.search(parameters)
            found = max(found, (ranges.index(name.strip()), float(given[1]) if given else 1.0))
    return found[1] if accept.strip() else 1.0
