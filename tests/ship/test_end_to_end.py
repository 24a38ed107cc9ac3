"""From a tree to a server with workers, under load, with ships that fail and ships that are killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flashfw.ship.cluster import Cluster
from tests.dev_process import wait_until
from tests.ship.builds import Make, Shippable, write
from tests.ship.conformance import Conformance
from tests.ship.end_to_end import Served, answering, built, flashfw, here, locked, serving, shipping, shop
from tests.ship.load import Ask, constant_load

ASKS = (Ask("POST", "/add", b'{"a": 0}'), Ask("GET", "/api"))


@pytest.fixture(scope="module")
def served(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), dev_environ) as running:
        yield running


@pytest.fixture(scope="module")
def lock(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return locked(tmp_path_factory.mktemp("locked") / "shop", dev_environ)


class TestServed(Conformance):
    """`flashfw serve` does what the server in memory does."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, served: Served) -> Iterator[Cluster]:
        with Cluster("prod", served.url, served.key) as found:
            yield found

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, dev_environ: dict[str, str], lock: str) -> Make:
        def made(folder: Path, files: Mapping[str, str]) -> Shippable:
            write(folder, {**here(files), "flashfw.lock": lock})
            return built(folder, dev_environ)

        return made


@pytest.fixture
def project(served: Served, lock: str, tmp_path: Path) -> Path:
    return shop(tmp_path / "shop", served, lock)


@pytest.mark.parametrize(
    ("settings", "values"),
    [("workers = [1, 2]\n", (11, 12)), ('workers = [1, 1]\nstrategy = "replace"\n', (21, 22))],
    ids=["surge", "replace"],
)
def test_no_request_fails_while_releases_change(
    project: Path, served: Served, settings: str, values: tuple[int, int]
) -> None:
    write(project, {**answering(values[0]), "endpoints/add/endpoint.toml": settings})
    flashfw(project, served, "ship", "prod", "--yes")
    with constant_load(served.url, served.key, ASKS) as load:
        load.after_more()
        write(project, answering(values[1]))
        flashfw(project, served, "ship", "prod")
        load.after_more()
        flashfw(project, served, "rollback", "prod")
        load.after_more()

    assert load.failures == []
    assert {str(value) for value in values} <= load.texts
    assert served.call("add", {"a": 0}).json() == values[0]


def test_code_that_fails_only_on_the_server_changes_nothing(project: Path, served: Served) -> None:
    write(project, answering(31))
    flashfw(project, served, "ship", "prod", "--yes")
    before = json.loads(flashfw(project, served, "ship", "prod", "--json")[0])["release"]
    broken = (
        "import flashfw\n\nif flashfw.environment == 'prod':\n    print('last words')\n    raise KeyError('TOKEN')\n"
    )
    write(project, answering(32, more=f"{broken}\n\n"))

    _, said = flashfw(project, served, "ship", "prod", code=1)

    for words in ("KeyError: 'TOKEN'", "endpoints/add/handler.py", "last words", "traffic never moved", before):
        assert words in said
    assert served.call("add", {"a": 0}).json() == 31


@pytest.mark.parametrize("lines", [2, 5, 7, 9])
def test_a_ship_that_is_killed_is_finished_or_undone_by_the_next(project: Path, served: Served, lines: int) -> None:
    """kill -9 once it has said so many lines; those after the plan come while layers travel and workers start."""
    value = 100 + lines
    write(project, answering(value))
    with shipping(project, served) as (ship, said):
        for _ in range(lines):
            next(said)
        ship.kill()

    flashfw(project, served, "ship", "prod", "--yes", "--wait")

    assert served.call("add", {"a": 0}).json() == value
    with Cluster("prod", served.url, served.key) as target:
        assert target.situation().rollout is None
        assert json.loads(flashfw(project, served, "ship", "prod", "--json")[0])["state"] == "unchanged"
    wait_until(lambda: served.half_done() == [], "what was received by half is removed")


def test_code_knows_where_it_runs_and_status_what_is_there(project: Path, served: Served) -> None:
    where = "import flashfw\n\n\ndef handler() -> str:\n    return flashfw.environment\n"
    write(project, {"endpoints/add/handler.py": where})
    flashfw(project, served, "ship", "prod", "--yes")

    assert flashfw(project, served, "call", "add", "--env", "prod")[0] == '"prod"\n'
    status = json.loads(flashfw(project, served, "status", "prod", "--json")[0])
    assert status["release"]["by"]
    assert status["drift"]["is_none"]


def test_all_is_removed(project: Path, served: Served) -> None:
    flashfw(project, served, "remove", "prod", "--yes", "--confirm", "prod")

    assert served.call("add", {"a": 0}).status_code == 404
