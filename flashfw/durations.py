"""Durations as people write them, in files, options and headers: "90s", "10m", "1.5 h"."""

from __future__ import annotations

import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""The units, and how long one of each is."""

# Digits without end would be a number that no float holds, and would take long to be told.
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(ms|s|m|h|d)?", re.ASCII)


def parse(text: str, *, bare: bool = False) -> float | None:
    """The seconds that a text says, None if it says no duration. With `bare` a number without a unit is of seconds.

    >>> parse("20ms"), parse("1.5 m"), parse("90"), parse("90", bare=True)
    (0.02, 90.0, None, 90.0)
    """
    found = _AMOUNT.fullmatch(text)
    if found is None or (found[2] is None and not bare):
        return None
    amount = float(found[1])
    # Milliseconds are divided: 20 * 0.001 is not 0.02 for every number.
    return amount / 1000 if found[2] == "ms" else amount * SECONDS[found[2] or "s"]
