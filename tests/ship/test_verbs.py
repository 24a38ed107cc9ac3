"""`rollback`, `remove`, `env` as people and scripts run them, over a server in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flashfw.cli import main
from flashfw.errors import Exit
from flashfw.ship.cluster import Cluster
from tests.ship.builds import SHOP, Built, build, write
from tests.ship.conformance import EDITED, ship
from tests.ship.fake import FakeServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose environment `prod` is the server in memory; entered."""
    server.keys[""] = "admin"
    folder = write(tmp_path / "shop", SHOP)
    (folder / "flashfw.toml").write_text(
        f'[project]\nname = "shop"\npython = "3.12"\n[environments.prod]\nurl = "{server.url}"\n'
    )
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shipped(project: Path, target: Cluster, tmp_path: Path) -> tuple[Built, Built]:
    """Two releases, the second of them current."""
    first = build(tmp_path / "first" / "shop", SHOP)
    second = build(tmp_path / "second" / "shop", {**SHOP, **EDITED})
    ship(target, first, expected=None)
    ship(target, second, expected=first.release.id)
    return first, second


def document(capture: Capture) -> Any:
    return json.loads(capture.readouterr().out)


def test_rollback_serves_the_release_before(shipped: tuple[Built, Built], server: FakeServer, capfd: Capture) -> None:
    first, second = (one.release.id for one in shipped)

    assert main.run(["rollback", "prod"]) == Exit.DONE

    said = capfd.readouterr()
    assert server.current == first
    assert f"-> {first}" in said.err
    assert "endpoints/add/handler.py (edited)" in said.err
    assert f"prod serves {first} again" in said.out
    assert main.run(["rollback", "prod", second[:5], "--json"]) == Exit.DONE
    assert document(capfd)["state"] == "done"
    assert server.current == second


def test_rollback_to_what_is_not_there(shipped: tuple[Built, Built], capfd: Capture) -> None:
    assert main.run(["rollback", "prod", "fff0"]) == Exit.USAGE
    assert shipped[0].release.id in capfd.readouterr().err
    assert main.run(["rollback", "prod", shipped[1].release.id]) == Exit.DONE
    assert "nothing to do" in capfd.readouterr().err


def test_rollback_with_nothing_before(project: Path, target: Cluster, tmp_path: Path, capfd: Capture) -> None:
    assert main.run(["rollback", "prod"]) == Exit.TARGET
    assert "nothing was shipped there yet" in capfd.readouterr().err
    assert main.run(["status", "prod"]) == Exit.DONE
    assert "nothing is served there" in capfd.readouterr().out
    ship(target, build(tmp_path / "first" / "shop", SHOP), expected=None)
    assert main.run(["rollback", "prod"]) == Exit.TARGET
    said = capfd.readouterr().err
    assert "no release to go back to" in said
    assert "keeps the current one alone" in said


def test_a_rollback_that_fails_changes_nothing(
    shipped: tuple[Built, Built], server: FakeServer, capfd: Capture
) -> None:
    server.failing["add"] = {"message": "KeyError: 'X'", "traceback": "Traceback: line 1", "output": ["last words"]}

    assert main.run(["rollback", "prod"]) == Exit.FAILED

    said = capfd.readouterr().err
    assert server.current == shipped[1].release.id
    assert all(words in said for words in ("Traceback: line 1", "last words", "KeyError: 'X'", "traffic never moved"))


def test_remove_asks_twice(shipped: tuple[Built, Built], server: FakeServer, capfd: Capture) -> None:
    assert main.run(["remove", "prod"]) == Exit.USAGE
    assert "--yes --confirm prod" in capfd.readouterr().err
    assert main.run(["remove", "prod", "--yes"]) == Exit.USAGE
    assert "--confirm prod" in capfd.readouterr().err
    assert main.run(["remove", "prod", "--yes", "--confirm", "staging"]) == Exit.USAGE
    assert server.current == shipped[1].release.id

    assert main.run(["remove", "prod", "--yes", "--confirm", "prod", "--json"]) == Exit.DONE
    assert document(capfd) == {"environment": "prod", "url": server.url, "removed": True, "stopped": False}
    assert server.current is None


def test_env_list_asks_nobody(project: Path, server: FakeServer, capfd: Capture) -> None:
    assert main.run(["env", "list", "--json"]) == Exit.DONE

    found = {one["name"]: one for one in document(capfd)["environments"]}
    assert found["prod"]["url"] == server.url
    assert found["local"]["url"] is None
    assert server.requests == []


def test_env_show(shipped: tuple[Built, Built], server: FakeServer, capfd: Capture) -> None:
    assert main.run(["env", "show", "prod", "--json"]) == Exit.DONE
    found = document(capfd)
    assert (found["server"], found["current"]) == ("flashfw 0.1.0, shop/prod", shipped[1].release.id)
    server.keys.clear()
    assert main.run(["env", "show", "prod", "--json"]) == Exit.DONE
    silent = document(capfd)
    assert silent.keys() == found.keys()
    assert main.run(["env", "show", "prod"]) == Exit.DONE
    assert "wants a key, and none is kept for it" in capfd.readouterr().out


@pytest.mark.parametrize("verb", [["rollback"], ["remove"], ["env", "show"]])
def test_an_environment_that_is_none(project: Path, capfd: Capture, verb: list[str]) -> None:
    assert main.run([*verb, "prdo"]) == Exit.USAGE
    said = capfd.readouterr().err
    assert "did you mean 'prod'?" in said
    assert "[environments.prdo]" in said
    assert main.run([*verb, "dev"]) == Exit.USAGE
    assert "flashfw dev" in capfd.readouterr().err


def test_no_server_and_no_key(project: Path, server: FakeServer, capfd: Capture) -> None:
    server.keys.clear()
    assert main.run(["rollback", "prod"]) == Exit.TARGET
    assert "flashfw key save prod" in capfd.readouterr().err
    (project / "flashfw.toml").write_text('[project]\nname="shop"\n[environments.prod]\nurl = "http://127.0.0.1:1"\n')
    assert main.run(["rollback", "prod"]) == Exit.TARGET
    assert "no server answers at http://127.0.0.1:1" in capfd.readouterr().err


def test_status_tells_release_and_drift(shipped: tuple[Built, Built], project: Path, capfd: Capture) -> None:
    write(project, EDITED)
    assert main.run(["status", "prod"]) == Exit.DONE
    said = capfd.readouterr().out
    assert f"release {shipped[1].release.id} by me@here" in said
    assert "it is what the tree says" in said

    (project / "endpoints/add/endpoint.toml").write_text("workers = [1, 2]\n")
    (project / "endpoints/api/handler.py").write_text("def get(:\n")
    assert main.run(["status", "prod", "--json"]) == Exit.DONE
    found = document(capfd)["drift"]
    assert (found["is_none"], found["problems"]) == (False, 1)
    assert [(row["id"], row["action"], row["spared"]) for row in found["endpoints"]] == [
        ("add", "change", False),
        ("api", "keep", True),
    ]
    assert main.run(["status", "prod"]) == Exit.DONE
    said = capfd.readouterr().out
    assert "[0, 3] -> [1, 2]" in said
    assert "api  what is in the tree cannot be read" in said
