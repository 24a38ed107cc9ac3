"""Lines of a server-sent event stream to events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `name` is its kind, `data` the JSON it carries (text if it is none), `id` for resuming after it."""

    name: str
    data: Any
    id: str = ""


def parse(lines: Iterable[str]) -> Iterator[Event | None]:
    """Each event once it is whole; None for each line that completes none, so that a reader can look at its clock.

    >>> [event for event in parse(["id: 1", "event: chunk", 'data: {"index": 0}', ""]) if event]
    [Event(name='chunk', data={'index': 0}, id='1')]
    """
    name, event_id, data = "", "", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield Event(name or "message", _decoded("\n".join(data)), event_id)
        else:
            yield None
        if not line:
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
