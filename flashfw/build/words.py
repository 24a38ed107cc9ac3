"""Lists and sizes as people read them, in problems, tables and lines of progress."""

from __future__ import annotations

from collections.abc import Sequence


def some(names: Sequence[str], most: int = 5) -> str:
    """A list, the first of it if it is long.

    >>> some(["a", "b"]), some(["a", "b", "c", "d"], 2)
    ('a, b', 'a, b and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def amount(size_bytes: int) -> str:
    """A number of bytes; a part of a kilobyte is one.

    >>> amount(1_234_567), amount(12_345_678_900), amount(2048)
    ('1.2 MB', '12.3 GB', '3 KB')
    """
    for unit, least in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= least:
            return f"{size_bytes / least:.1f} {unit}"
    return f"{-(-size_bytes // 1000)} KB"
