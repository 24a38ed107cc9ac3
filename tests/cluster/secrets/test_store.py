"""Secrets in a server's state: never readable there, back with the right key file, and untouched by a wrong one."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.secrets.sealing import Seal, SecretKeyError
from flashfw.cluster.secrets.store import VALUE_BYTES, InvalidSecret, Secrets, UnknownSecret, check, missing, users
from flashfw.cluster.state import FILE, State
from flashfw.manifest import Manifest, Variable
from tests.cluster.bench import an_endpoint

VALUE = "hunter-22-and-more"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / FILE) as state:
        yield state


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "secret.key"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_secret_is_back_after_a_restart_and_readable_nowhere(
    state: State, key_file: Path, clock: ManualClock
) -> None:
    secrets = Secrets(state, key_file, clock)
    values = secrets.values
    assert secrets.set("TOKEN", VALUE)
    assert not secrets.set("TOKEN", VALUE), "the same"

    assert values == {"TOKEN": VALUE}
    assert VALUE not in repr(values)
    assert dict(Secrets(state, key_file, clock).values) == values
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert VALUE.encode() not in b"".join(path.read_bytes() for path in state.path.parent.iterdir())
    assert VALUE not in repr(secrets.all())


def test_dates_say_when_it_was_made_and_changed(state: State, key_file: Path, clock: ManualClock) -> None:
    secrets = Secrets(state, key_file, clock)
    began = clock.now()
    secrets.set("TOKEN", "one")
    clock.advance(5.0)
    secrets.set("TOKEN", "two")

    (found,) = secrets.all()
    assert (found.name, found.created_at, found.updated_at) == ("TOKEN", began, began + 5.0)


def test_what_is_removed_is_gone(state: State, key_file: Path, clock: ManualClock) -> None:
    secrets = Secrets(state, key_file, clock)
    secrets.set("ONE", VALUE)
    secrets.set("TWO", VALUE)
    secrets.remove("ONE")
    with pytest.raises(UnknownSecret, match="no secret 'ONE'; the server has TWO"):
        secrets.remove("ONE")
    assert dict(secrets.values) == {"TWO": VALUE}
    secrets.clear()

    assert dict(Secrets(state, key_file, clock).values) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is missing"), (b"x", "holds no key"), (b"\xff", "holds no key"), (b"A" * 43 + b"=", "is not the one")],
)
def test_without_the_right_key_file_it_says_so_and_keeps_everything(
    state: State, key_file: Path, clock: ManualClock, content: bytes | None, said: str
) -> None:
    Secrets(state, key_file, clock).set("TOKEN", VALUE)
    right = key_file.read_bytes()
    key_file.unlink() if content is None else key_file.write_bytes(content)
    before = state.execute("SELECT * FROM secrets"), state.execute("SELECT * FROM secret_key")

    with pytest.raises(SecretKeyError, match=said):
        Secrets(state, key_file, clock)
    assert (state.execute("SELECT * FROM secrets"), state.execute("SELECT * FROM secret_key")) == before
    assert key_file.exists() == (content is not None)
    key_file.write_bytes(right)
    assert dict(Secrets(state, key_file, clock).values) == {"TOKEN": VALUE}


@pytest.mark.parametrize("text", ["A" * 43 + "=\n", "+/" * 21 + "8=", "-_" * 21 + "8=\n"])
def test_a_key_file_of_ones_own_may_be_there_before(
    state: State, tmp_path: Path, clock: ManualClock, text: str
) -> None:
    elsewhere = tmp_path / "elsewhere.key"
    elsewhere.write_text(text)
    Secrets(state, elsewhere, clock).set("TOKEN", VALUE)

    assert dict(Secrets(state, elsewhere, clock).values) == {"TOKEN": VALUE}
    with State(tmp_path / "other.sqlite") as other, pytest.raises(SecretKeyError, match="cannot be made"):
        Secrets(other, tmp_path / "no" / "secret.key", clock)


def test_while_there_are_no_secrets_any_key_file_will_do(state: State, key_file: Path, clock: ManualClock) -> None:
    secrets = Secrets(state, key_file, clock)
    secrets.set("TOKEN", VALUE)
    secrets.remove("TOKEN")
    key_file.unlink()
    again = Secrets(state, key_file, clock)
    again.set("TOKEN", VALUE)

    assert dict(Secrets(state, key_file, clock).values) == {"TOKEN": VALUE}


def test_a_value_that_was_changed_or_moved_to_another_name_does_not_open() -> None:
    seal = Seal(bytes(32))
    sealed = seal.close("TOKEN", VALUE)

    assert seal.open("TOKEN", sealed) == VALUE
    for name, bad in (("OTHER", sealed), ("TOKEN", sealed[:-1] + bytes([sealed[-1] ^ 1])), ("TOKEN", b"")):
        with pytest.raises(SecretKeyError):
            seal.open(name, bad)


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), st.text(st.characters(codec="utf-8"), min_size=1))
def test_what_passes_the_check_comes_back_as_it_was(name: str, value: str) -> None:
    if "\0" in value:
        with pytest.raises(InvalidSecret, match="NUL"):
            check(name, value)
        return
    check(name, value)
    seal = Seal(bytes(32))
    assert seal.open(name, seal.close(name, value)) == value


@pytest.mark.parametrize("name", ["", "a-b", "1A", "A B", "A=B", "é", "A\n", "a" * 101])
def test_names_are_those_of_variables_and_all_faults_come_at_once(name: str) -> None:
    with pytest.raises(InvalidSecret, match=r"(?s)is no name of a variable.*the value is empty"):
        check(name, "")
    with pytest.raises(InvalidSecret, match=f"at most {VALUE_BYTES}"):
        check("A", "x" * (VALUE_BYTES + 1))
    check("A", "x" * VALUE_BYTES)


def test_who_needs_a_secret_and_which_are_missing() -> None:
    one = an_endpoint("one", secrets=(Variable(name="HF", value="TOKEN"), Variable(name="OTHER", value="OTHER")))
    two = an_endpoint("two", secrets=(Variable(name="TOKEN", value="TOKEN"),))
    manifest = Manifest(project="shop", environment="prod", endpoints=(one, two, an_endpoint("three")))

    assert users(manifest, ["TOKEN"]) == ["one", "two"]
    assert users(manifest, ["HF"]) == []
    assert missing(manifest, {"OTHER"}) == {"TOKEN": ["one", "two"]}
