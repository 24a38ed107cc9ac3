from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.auth.keys import ANYBODY
from flashfw.cluster.auth.store import Keys
from flashfw.cluster.clock import ManualClock
from flashfw.cluster.gateway.answers import Refused
from flashfw.cluster.gateway.guard import PRINCIPAL, KeyGuard, KeysGuard, LoopbackGuard, admit, is_loopback
from flashfw.cluster.state import FILE, State


def scope(**headers: str) -> dict[str, object]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": pairs}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8888"},
        {"host": "localhost:8888"},
        {"host": "[::1]:8888"},
        {"host": "127.0.0.1:8888", "origin": "http://127.0.0.1:8888", "sec_fetch_site": "same-origin"},
        {"host": "localhost:8888", "sec_fetch_site": "none"},
    ],
)
def test_the_users_own_requests_pass(headers: dict[str, str]) -> None:
    LoopbackGuard().check(scope(**headers), public=False)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"host": "evil.example"}, "evil.example"),
        ({"host": "127.0.0.1.evil.example"}, "127.0.0.1.evil.example"),
        ({"host": "192.168.1.7:8888"}, "192.168.1.7"),
        ({"host": "127.0.0.1:8888", "origin": "http://evil.example"}, "evil.example"),
        ({"host": "127.0.0.1:8888", "origin": "http://127.0.0.1:3000"}, "127.0.0.1:3000"),
        ({"host": "127.0.0.1:8888", "origin": "null"}, "null"),
        ({"host": "127.0.0.1:8888", "sec_fetch_site": "cross-site"}, "another site"),
    ],
)
def test_foreign_pages_are_kept_out(headers: dict[str, str], named: str) -> None:
    with pytest.raises(Refused, match=named) as caught:
        LoopbackGuard().check(scope(**headers), public=True)

    assert caught.value.status == 403


def test_a_key_of_the_server_is_taken_off_and_what_is_for_the_users_code_is_not(tmp_path: Path) -> None:
    with State(tmp_path / FILE) as state:
        guard = KeysGuard(keys := Keys(state, ManualClock()))
        key = str(keys.create("somebody", "call")[1])
        ours, theirs = scope(host="here", authorization=f"Bearer {key}"), scope(authorization="Bearer theirs")

        principal = admit(guard, ours, public=True)
        admit(guard, theirs, public=True)

    assert ours["headers"] == [(b"host", b"here")]
    assert (ours[PRINCIPAL], principal.id) == (principal, key[3:11])
    assert theirs["headers"] == [(b"authorization", b"Bearer theirs")]


def test_a_state_that_cannot_be_read_lets_nobody_in_and_cuts_nobody_off(tmp_path: Path) -> None:
    with State(tmp_path / FILE) as state:
        guard = KeysGuard(keys := Keys(state, ManualClock()))
        given = scope(authorization=f"Bearer {keys.create('somebody', 'admin')[1]}")
        principal = guard.check(given, public=False)

    with pytest.raises(Refused) as caught:
        guard.check(given, public=False)
    assert (caught.value.status, dict(caught.value.headers)[b"retry-after"]) == (503, b"1")
    assert guard.check(given, public=True) == ANYBODY
    assert guard.holds(principal)


def test_a_key_is_needed_where_others_can_reach_the_server() -> None:
    guard = KeyGuard("secret")

    guard.check(scope(authorization="Bearer secret"), public=False)
    guard.check(scope(authorization="secret"), public=False)
    guard.check(scope(), public=True)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer sécret"}):
        with pytest.raises(Refused) as caught:
            guard.check(scope(**headers), public=False)
        assert caught.value.status == 401


@given(st.text(max_size=30))
def test_any_host_text_is_judged_without_an_error(host: str) -> None:
    assert is_loopback(host) in (True, False)
