"""Keys in a server's state: what is revoked opens nothing, whoever revoked it, and somebody can always administer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from flashfw.cluster.auth.store import USED_EVERY_S, InvalidKey, Keys, LastAdminKey, UnknownKey
from flashfw.cluster.clock import ManualClock
from flashfw.cluster.state import FILE, State


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / FILE) as state:
        yield state


@pytest.fixture
def keys(state: State, clock: ManualClock) -> Keys:
    return Keys(state, clock)


def test_a_key_is_found_after_it_was_made_and_only_its_hash_is_kept(keys: Keys, state: State) -> None:
    assert keys.is_empty()
    key, text = keys.create("ci", "call")

    found = keys.find(key.id)
    assert found is not None
    assert found.opens(text)
    assert not keys.is_empty()
    kept = b"".join(path.read_bytes() for path in state.path.parent.iterdir())
    assert key.id.encode() in kept
    assert text.secret.encode() not in kept


def test_a_key_that_another_process_made_or_revoked_counts_at_once(
    keys: Keys, state: State, clock: ManualClock
) -> None:
    keys.create("first", "admin")
    with State(state.path) as same:
        other = Keys(same, clock)
        key, _ = other.create("ci", "call")
        assert keys.find(key.id) is not None
        other.revoke(key.id)

    found = keys.find(key.id)
    assert found is not None
    assert found.revoked_at == clock.now()


def test_the_last_admin_key_stays_unless_forced(keys: Keys) -> None:
    first, _ = keys.create("first", "admin")
    keys.create("ci", "call")
    with pytest.raises(LastAdminKey, match=rf"'first' \({first.id}\) is the last admin key.*--force"):
        keys.revoke(first.id)
    second, _ = keys.create("second", "admin")

    assert keys.revoke(first.id).revoked_at is not None
    with pytest.raises(LastAdminKey):
        keys.revoke(second.id)
    assert keys.revoke(second.id, force=True).revoked_at is not None


def test_a_key_that_was_revoked_keeps_its_date(keys: Keys, clock: ManualClock) -> None:
    key, _ = keys.create("ci", "call")
    revoked = keys.revoke(key.id)
    clock.advance(5.0)

    assert keys.revoke(key.id) == revoked


def test_an_unknown_id_is_named_and_never_a_whole_key(keys: Keys) -> None:
    _, text = keys.create("ci", "call")
    with pytest.raises(UnknownKey) as caught:
        keys.revoke(str(text))

    assert text.id in str(caught.value)
    assert text.secret not in str(caught.value)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_names_are_for_people(keys: Keys, name: str) -> None:
    with pytest.raises(InvalidKey, match="cannot be named"):
        keys.create(name, "call")
    with pytest.raises(InvalidKey, match="'root' is no scope"):
        keys.create("ci", "root")  # type: ignore[arg-type]
    assert keys.is_empty()


@pytest.mark.anyio
async def test_the_use_of_a_key_is_shown_at_once_and_written_later(
    keys: Keys, state: State, clock: ManualClock
) -> None:
    key, _ = keys.create("ci", "call")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.run)
        await anyio.wait_all_tasks_blocked()
        keys.note_use(key)
        used = clock.now()
        await anyio.wait_all_tasks_blocked()
        assert [found.last_used_at for found in keys.all()] == [used]
        assert state.execute("SELECT last_used_at FROM keys") == [(None,)]
        clock.advance(USED_EVERY_S)
        await _written(state)
        keys.note_use(key)
        tasks.cancel_scope.cancel()

    assert state.execute("SELECT last_used_at FROM keys") == [(used + USED_EVERY_S,)], "at the end"


async def _written(state: State) -> None:
    with anyio.fail_after(30):
        while state.execute("SELECT last_used_at FROM keys") == [(None,)]:  # noqa: ASYNC110 (another thread writes it)
            await anyio.sleep(0.01)
