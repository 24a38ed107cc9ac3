"""What a caller probably meant, of however many names, in about the same time: nobody else is served meanwhile."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable

NEIGHBOURS = 16
"""Names that are compared, on each side of where the given one would stand: to compare two takes up to 0.1 ms."""


class Suggestions:
    """Names to suggest one of, sorted once by their beginnings and once by their ends."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._backwards = sorted(name[::-1] for name in self._names)

    def closest(self, given: str) -> str | None:
        """The name that is most like the given one, of those that begin or end most like it; None if none is.

        >>> Suggestions(f"/endpoint_{number}" for number in range(1000)).closest("/endpont_77")
        '/endpoint_77'
        """
        near = [*_around(self._names, given), *(name[::-1] for name in _around(self._backwards, given[::-1]))]
        found = difflib.get_close_matches(given, dict.fromkeys(near), n=1)
        return found[0] if found else None


def _around(names: list[str], given: str) -> list[str]:
    at = bisect.bisect(names, given)
    return names[max(0, at - NEIGHBOURS) : at + NEIGHBOURS]
