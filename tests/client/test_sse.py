from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from flashfw.client.failures import error_of
from flashfw.client.sse import Event, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
NAMES = st.sampled_from(["queued", "chunk", "completed"])


@given(st.lists(st.builds(Event, NAMES, JSON, st.integers(0, 99).map(str)), max_size=4), st.booleans())
def test_parse_gives_what_was_written(events: list[Event], comments: bool) -> None:
    lines: list[str] = []
    for event in events:
        lines += [": lives", ""] * comments
        lines += [f"id: {event.id}", f"event: {event.name}", *_data(event.data), ""]

    assert [event for event in parse(lines) if event is not None] == events


def _data(value: object) -> list[str]:
    return [f"data: {line}" for line in json.dumps(value, indent=1).split("\n")]


@given(st.lists(st.text()))
def test_any_lines_are_read_without_an_error(lines: list[str]) -> None:
    assert len(list(parse(lines))) == len(lines)


def test_the_rules_of_the_format() -> None:
    lines = ["data", "", "data:a", "data: b", "", "event: x", "", "retry: 5", "data:  c", "unknown: 1", "", "data: 1"]
    found = [event for event in parse(lines) if event is not None]

    assert found == [Event("message", ""), Event("message", "a\nb"), Event("message", " c")]


@given(JSON | st.text())
def test_any_error_of_the_wire_becomes_an_object(value: object) -> None:
    assert isinstance(error_of(value), dict)
