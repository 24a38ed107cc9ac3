"""What a key is: its text is read as it was made, and shown nowhere."""

from __future__ import annotations

import traceback

from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.auth import keys
from flashfw.cluster.auth.keys import Key, KeyText, Principal


@given(st.text("fw_0123456789abcdefABCXYZ-\n é", max_size=60) | st.text(max_size=60))
def test_any_text_is_a_key_or_none(text: str) -> None:
    found = keys.read(text)

    assert found is None or str(found) == text


@given(st.from_regex(r"fw_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", fullmatch=True), st.text(max_size=20), st.text(max_size=20))
def test_a_key_within_a_text_is_cut_down_to_its_id(key: str, before: str, after: str) -> None:
    found = keys.read(key)

    assert found is not None
    assert found.secret not in keys.masked(f"{before} {key} {after}")
    assert found.id in keys.masked(key)


def test_keys_are_all_different_and_read_as_they_were_made() -> None:
    made = [keys.make() for _ in range(50)]

    assert [keys.read(str(key)) for key in made] == made
    assert len({key.secret for key in made}) == len({key.id for key in made}) == 50


def test_only_the_whole_secret_opens() -> None:
    text = keys.make()
    key = Key(id=text.id, name="a", scope="call", digest=text.digest, created_at=0.0)
    other = "A" if text.secret[0] != "A" else "B"

    assert key.opens(text)
    assert not key.opens(KeyText(text.id, other + text.secret[1:]))
    assert not key.opens(keys.make())


def test_a_traceback_with_a_key_in_it_does_not_show_it() -> None:
    text = keys.make()
    try:
        raise ValueError(text, Key(id=text.id, name="a", scope="call", digest=text.digest, created_at=0.0))
    except ValueError:
        shown = traceback.format_exc()

    assert text.id in shown
    assert text.secret not in shown
    assert repr(text.digest) not in shown


def test_admin_may_do_what_call_may() -> None:
    assert Principal("a", "admin").may("call")
    assert Principal("a", "admin").may("admin")
    assert Principal("a", "call").may("call")
    assert not Principal("a", "call").may("admin")
