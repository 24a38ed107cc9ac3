"""Twenty seeded rounds of killing things under load; `make soak` plays two hundred."""

from __future__ import annotations

import pytest

from tests.conftest import StartDev
from tests.faults.account import Round
from tests.faults.books import SqliteBooks
from tests.faults.plan import draw
from tests.faults.stage import Gateway, Stage


@pytest.fixture(scope="module")
def sqlite(module_flashfw_dev: StartDev, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, SqliteBooks]:
    """One server over all rounds: what a round leaves behind is the next one's."""
    project = tmp_path_factory.mktemp("rounds") / "shop"
    return Stage([Gateway(project, module_flashfw_dev)]), SqliteBooks(project / ".flashfw/jobs.sqlite")


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_round_on_sqlite_loses_and_doubles_nothing(seed: int, sqlite: tuple[Stage, SqliteBooks]) -> None:
    stage, books = sqlite

    account = Round(draw(seed, "sqlite"), stage, books).play()

    assert account.is_good, account
