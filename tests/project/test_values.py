from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.project.values import (
    Fault,
    Invalid,
    Record,
    boolean,
    duration,
    integer,
    list_of,
    parse_duration,
    parse_size,
    positive,
    show_duration,
    show_size,
    shown,
    size,
    table_of,
    text,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("20ms", 0.02), ("90s", 90), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("1.5 h", 5400), (0, 0), (2.5, 2.5)],
)
def test_durations(value: Any, seconds: float) -> None:
    assert seconds == parse_duration(value)


@pytest.mark.parametrize(
    "value", ["", "10", "m", "10 min", "-1s", "1h30m", "1e3s", True, -1, math.inf, math.nan, None, [1], {}, "１s"]
)
def test_no_durations(value: Any) -> None:
    with pytest.raises(Invalid, match="must be a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "count"),
    [("10MB", 10**7), ("10 mb", 10**7), ("16GiB", 2**34), ("1.5KB", 1500), ("7B", 7), ("4TB", 4 * 10**12), (5, 5)],
)
def test_sizes(value: Any, count: int) -> None:
    assert count == parse_size(value)


@pytest.mark.parametrize("value", ["", "10", "10M", "MB", "-1MB", 1.5, -1, False, None, "10 MBit"])
def test_no_sizes(value: Any) -> None:
    with pytest.raises(Invalid, match="must be a size"):
        parse_size(value)


@given(st.one_of(st.integers(0, 10**7).map(float), st.integers(0, 10**6).map(lambda ms: ms / 1000)))
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert seconds == parse_duration(show_duration(seconds))


@given(st.integers(0, 10**15))
def test_a_shown_size_reads_back(count: int) -> None:
    assert count == parse_size(show_size(count))


@pytest.mark.parametrize("value", ["1s", "1h", 3600, 1, "3600000ms"])
def test_the_ends_of_a_range_belong_to_it(value: Any) -> None:
    duration("1s", "1h")(value)


@pytest.mark.parametrize("value", ["999ms", "61m", 0, 3601])
def test_out_of_range(value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        duration("1s", "1h")(value)

    assert f"'idle_timeout' must be from 1s to 1h, not {shown(value)}" == caught.value.faults[0].text(("idle_timeout",))


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (integer(1), 0, "must be a whole number of 1 or more, not 0"),
        (integer(1, 65_535), 70_000, "must be a whole number from 1 to 65,535, not 70000"),
        (integer(0), True, "must be a whole number of 0 or more, not true"),
        (integer(0), 1.0, "must be a whole number of 0 or more, not 1.0"),
        (integer(0), "1", 'must be a whole number of 0 or more, not "1"'),
        (positive, 0, "must be a number above 0, not 0"),
        (positive, math.inf, "must be a number above 0, not Infinity"),
        (boolean, "yes", 'must be true or false, not "yes"'),
        (text, "  ", 'must be a string that is not empty, not "  "'),
        (size("1GB", "4TB"), "5MB", 'must be from 1GB to 4TB, not "5MB"'),
        (size("1GB"), "5MB", 'must be 1GB or more, not "5MB"'),
        (list_of(text), "x", 'must be a list, not "x"'),
        (table_of(text, text), ["x"], "must be a table, not a list"),
    ],
)
def test_messages_quote_the_value(read: Any, value: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(value)

    assert (Fault(message),) == caught.value.faults


def test_every_fault_of_a_list_is_told_with_its_index() -> None:
    with pytest.raises(Invalid) as caught:
        list_of(integer(1))([1, 0, 2, "x"])

    assert [fault.at for fault in caught.value.faults] == [(1,), (3,)]
    assert caught.value.faults[0].text(("marks",)).startswith("'marks[1]' must be")


def test_a_record_tells_of_unknown_missing_and_wrong_keys() -> None:
    record = Record({"max": integer(0), "backoff": duration("0s", "1h")}, required=("max",))

    with pytest.raises(Invalid) as caught:
        record({"maxx": 1, "backoff": "2"})
    with pytest.raises(Invalid) as missing:
        record({})

    unknown, wrong = caught.value.faults
    assert (unknown.text(("retries",)), unknown.hint) == ("unknown key 'retries.maxx'", "did you mean 'max'?")
    assert wrong.text(("retries",)).startswith("'retries.backoff' must be a duration")
    assert missing.value.faults[0].text(("retries",)) == "'retries' must have \"max\""


def test_a_long_value_is_cut() -> None:
    assert len(shown("x" * 1000)) == 60
