"""What a server keeps of its releases: whole after a kill, and as many as it takes to go back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfw.bundle.release import Layer, Release
from flashfw.cluster.releases.rollout import Failed
from flashfw.cluster.releases.store import KEPT, LEFT, UNWRITTEN, ReleasesStore
from flashfw.cluster.state import FILE, State
from flashfw.manifest import Manifest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReleasesStore]:
    with State(tmp_path / FILE) as state:
        yield ReleasesStore(state)


def release(number: int) -> Release:
    manifest = Manifest(project="shop", environment="prod", endpoints=())
    return Release(manifest=manifest, source=Layer(digest=f"{number:064x}", size_bytes=1), packages=(), flashfw="0.1.0")


def rolled_out(store: ReleasesStore, number: int, *, fails: bool = False) -> str:
    """One rollout from its beginning to its end; the id of its release."""
    noted = store.begin(release(number), by="me", at=float(number))
    if fails:
        store.fail(noted.number, Failed(endpoint="a", message="no"), at=float(number), events=())
    else:
        store.finish(noted.number, at=float(number), events=())
    return noted.release


def test_a_rollout_that_a_killed_server_left_has_failed_and_says_why(store: ReleasesStore) -> None:
    first = rolled_out(store, 1)
    left = store.begin(release(2), by="me", at=2.0)

    assert store.recover(5.0) == [left.number]

    noted = store.rollout(left.number)
    assert noted is not None
    assert (noted.state, noted.ended, noted.failure, noted.before) == ("failed", 5.0, LEFT, first)
    assert (store.current(), store.recover(6.0)) == (first, [])


def test_one_whose_end_could_not_be_written_has_failed_by_the_next(store: ReleasesStore) -> None:
    unwritten = store.begin(release(1), by="me", at=1.0)
    rolled_out(store, 2)

    noted = store.rollout(unwritten.number)
    assert noted is not None
    assert (noted.state, noted.failure) == ("failed", UNWRITTEN)


def test_however_many_fail_the_current_and_the_one_before_it_stay(store: ReleasesStore) -> None:
    before, current = rolled_out(store, 1), rolled_out(store, 2)
    failed = [rolled_out(store, number, fails=True) for number in range(3, 5 + KEPT)]
    running = store.begin(release(99), by="me", at=99.0)

    kept = [found.id for found in store.prune()]

    assert {before, current, running.release} <= {*kept}
    assert failed[0] not in kept
    assert len(kept) <= KEPT + 2
    assert (store.current(), store.before()) == (current, before)
