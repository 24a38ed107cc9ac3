"""Twenty seeded rounds of killing things under load, shorter ones than the two hundred of `make soak`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartDev
from tests.faults.account import Round
from tests.faults.books import Books
from tests.faults.plan import Store, draw
from tests.faults.stage import Stage
from tests.postgres_server import PostgresServer, shared

Scene = tuple[Stage, Books]

JOBS, BLOWS = 20, 2
"""Of a round. Most of its time goes to servers that are started again."""


@pytest.fixture(scope="module")
def sqlite(module_flashfw_dev: StartDev, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """One server over all rounds: what a round leaves behind is the next one's."""
    return Stage.on_sqlite(tmp_path_factory.mktemp("sqlite"), module_flashfw_dev)


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own, since it is killed."""
    server = PostgresServer(shared().programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def postgres(database: PostgresServer, module_flashfw_dev: StartDev, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Two servers over all rounds."""
    return Stage.on_postgres(tmp_path_factory.mktemp("postgres"), module_flashfw_dev, database)


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_round_on_sqlite_loses_and_doubles_nothing(seed: int, sqlite: Scene) -> None:
    play("sqlite", seed, sqlite)


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_round_on_postgres_loses_and_doubles_nothing(seed: int, postgres: Scene) -> None:
    play("postgres", seed, postgres)


def play(store: Store, seed: int, scene: Scene) -> None:
    """One round, which must end well."""
    account = Round(draw(seed, store, jobs=JOBS, blows=BLOWS), *scene).play()

    assert account.is_good, account
