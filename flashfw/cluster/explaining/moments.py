"""One thing that happened in a job's life, and how its fields are read: whatever they hold, as words."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened when: `what` is a stable name, `text` is for people, `took_s` how long it lasted if it did.

    `rank` orders what happened at one instant. `is_cold` marks a part of a cold start.
    """

    at: float
    what: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)
    took_s: float | None = None
    rank: int = 3
    is_cold: bool = False

    def since(self, at: float) -> Moment | None:
        """The part of it after `at`, None if a part of a cold start was over by then.

        Anything else that is earlier is moved there: clocks of two machines differ.
        """
        if self.at >= at:
            return self
        left = None if self.took_s is None else max(0.0, self.at + self.took_s - at)
        return None if self.is_cold and not left else dataclasses.replace(self, at=at, took_s=left)

    def to_json(self, since: float) -> dict[str, Any]:
        """As JSON values, with its offset from `since`."""
        return {
            "at": self.at,
            "offset_s": round(self.at - since, 6),
            "what": self.what,
            "text": self.text,
            "took_s": self.took_s,
            "details": self.details,
        }


def text(value: Any) -> str:
    """A field that should be a short text.

    >>> text("x"), text(None), text(3)
    ('x', '', '3')
    """
    return "" if value is None else value if isinstance(value, str) else str(value)


def number(value: Any) -> float:
    """A field that should be a number of seconds or things; 0 for anything else.

    >>> number(1.5), number("x"), number(None), number(float("nan"))
    (1.5, 0.0, 0.0, 0.0)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if abs(value) < 1e12 and math.isfinite(value) else 0.0


def error_of(error: bytes | None) -> Any:
    """An error of a job's record, as what its JSON says; as text if it is none.

    >>> error_of(b'{"message": "no"}'), error_of(b"no"), error_of(None)
    ({'message': 'no'}, 'no', None)
    """
    if not error:
        return None
    try:
        return json.loads(error)
    except (ValueError, RecursionError):
        return error.decode(errors="replace")


def failure_line(value: Any) -> str:
    """The first line of an error as the worker tells it: place, type, message and fixture.

    >>> failure_line({"type": "ValueError", "message": "no", "place": "a.py:3", "fixture": "model"})
    "a.py:3: ValueError: no (fixture 'model')"
    """
    if not isinstance(value, dict):
        return text(value).partition("\n")[0]
    kind, message = text(value.get("type")), text(value.get("message")).partition("\n")[0]
    said = ": ".join(part for part in (text(value.get("place")), kind, message) if part)
    fixture = text(value.get("fixture"))
    return f"{said} (fixture {fixture!r})" if fixture else said


def plural(count: int, noun: str, nouns: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "job"), plural(3, "job"), plural(2, "try", "tries")
    ('1 job', '3 jobs', '2 tries')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {nouns or noun + 's'}"


def duration(seconds: float) -> str:
    """A duration as people read it.

    >>> duration(0.0042), duration(0.42), duration(4.2), duration(75), duration(600), duration(7300)
    ('4.2 ms', '420 ms', '4.2 s', '1 m 15 s', '10 m', '2 h 1 m')
    """
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} m {int(seconds % 60)} s".removesuffix(" 0 s")
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} m".removesuffix(" 0 m")
