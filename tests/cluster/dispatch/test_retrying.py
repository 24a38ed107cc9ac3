"""Which errors are tried again, and after how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.dispatch.retrying import LONGEST_S, backoff_s, matches, retry_in_s
from flashfw.manifest import Retries

TYPES = ("requests.exceptions.ConnectTimeout", "requests.exceptions.Timeout", "builtins.OSError", "builtins.Exception")


@pytest.mark.parametrize(
    ("retries", "told", "expected"),
    [
        (Retries(), {}, None),
        (Retries(max=1), {}, 1.0),
        (Retries(max=1), {"errors": 2}, None),
        (Retries(max=3), {"errors": 3}, 4.0),
        (Retries(max=3, backoff_s=0.0), {"errors": 3}, 0.0),
        (Retries(max=3, on=("OSError",)), {}, 1.0),
        (Retries(max=3, on=("KeyError", "Timeout")), {}, 1.0),
        (Retries(max=3, on=("requests.Timeout",)), {}, 1.0),
        (Retries(max=3, on=("KeyError",)), {}, None),
        (Retries(max=3), {"was_heard": True}, None),
        (Retries(max=3, on=("OSError",)), {"was_heard": True}, 1.0),
    ],
)
def test_when_an_error_is_tried_again(retries: Retries, told: dict[str, Any], expected: float | None) -> None:
    given: dict[str, Any] = {"errors": 1, "types": TYPES, "was_heard": False, "chance": 1.0}

    assert retry_in_s(retries, **{**given, **told}) == expected


@pytest.mark.parametrize(
    ("name", "matched"),
    [
        ("Timeout", True),
        ("requests.Timeout", True),
        ("requests.exceptions.Timeout", True),
        ("exceptions.Timeout", False),
        ("request.Timeout", False),
        ("out", False),
        ("requests", False),
    ],
)
def test_names_mean_a_class_by_itself_or_with_its_module(name: str, matched: bool) -> None:
    assert matches(name, "requests.exceptions.Timeout") is matched


@given(st.floats(0, 3600), st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_to_a_limit_and_lose_at_most_a_half(first: float, errors: int, chance: float) -> None:
    pause = backoff_s(first, errors=errors, chance=chance)

    assert first / 2 <= pause <= max(LONGEST_S, first)
    assert pause <= backoff_s(first, errors=errors + 1, chance=chance)
