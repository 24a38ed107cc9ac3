"""`flashfw ship` as people and scripts run it, with real builds, over a server in memory."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from flashfw.cli import main
from flashfw.errors import Exit
from tests.command import COMMAND
from tests.dev_process import wait_until
from tests.ship.builds import SHOP, write
from tests.ship.conformance import EDITED
from tests.ship.fake import FakeServer

Capture = pytest.CaptureFixture[str]
TOML = '[project]\nname = "shop"\npython = "3.11"\n[environments.prod]\nurl = "{url}"\n'


@pytest.fixture(scope="module")
def locked(dev_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was built once, so that its packages are locked and in the cache."""
    folder = write(tmp_path_factory.mktemp("locked") / "shop", {**SHOP, "flashfw.toml": TOML.format(url="http://x")})
    done = subprocess.run(
        [COMMAND, "build", "--env", "prod"], cwd=folder, env=dev_environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(
    locked: Path, tmp_path: Path, server: FakeServer, dev_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of it whose environment `prod` is the server in memory; entered."""
    server.keys[""] = "admin"
    folder = shutil.copytree(locked, tmp_path / "shop")
    (folder / "flashfw.toml").write_text(TOML.format(url=server.url))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", dev_environ["XDG_CACHE_HOME"])
    return folder


def shipped(capture: Capture, *arguments: str, code: int = Exit.DONE) -> Any:
    """The document of a ship."""
    assert main.run(["ship", "prod", "--json", *arguments]) == code, capture.readouterr().err
    return json.loads(capture.readouterr().out)


def test_a_first_ship_and_nothing_to_do(project: Path, server: FakeServer, capfd: Capture) -> None:
    assert main.run(["ship", "prod"]) == Exit.DONE

    said = capfd.readouterr()
    assert "nothing is served there yet" in said.err
    assert "2 to create" in said.err
    assert "sent source" in said.err
    assert "add: starting 1 worker" in said.err
    assert f"add       POST  {server.url}/add" in said.out
    assert f"shipped  prod serves release {server.current}" in said.out

    assert main.run(["ship", "prod"]) == Exit.DONE
    assert f"nothing to do: prod serves release {server.current}" in capfd.readouterr().out
    assert len(server.rollouts) == 1


def test_the_document(project: Path, server: FakeServer, capfd: Capture) -> None:
    first = shipped(capfd)
    write(project, EDITED)
    second = shipped(capfd)

    assert (first["state"], first["release"], first["plan"]["current"]) == ("done", first["plan"]["release"], None)
    assert second["release"] == server.current
    assert len(second["uploaded"]) == 1
    assert {row["id"]: row["action"] for row in second["plan"]["endpoints"]} == {"add": "change", "api": "keep"}
    assert second["plan"]["endpoints"][0]["files"] == [{"path": "endpoints/add/handler.py", "fate": "edited"}]
    unchanged = shipped(capfd)
    assert (unchanged["state"], unchanged.keys()) == ("unchanged", second.keys())
    assert second["urls"] == unchanged["urls"]


def test_plan_changes_nothing(project: Path, server: FakeServer, capfd: Capture) -> None:
    assert main.run(["ship", "prod", "--plan"]) == Exit.DONE

    assert "create  add" in capfd.readouterr().err
    assert (server.layers, server.rollouts) == ({}, [])
    assert shipped(capfd, "--plan")["state"] == "planned"


def test_a_deletion_needs_a_yes(project: Path, server: FakeServer, capfd: Capture) -> None:
    shipped(capfd)
    server.jobs["add"] = 3
    shutil.rmtree(project / "endpoints/add")

    assert main.run(["ship", "prod"]) == Exit.USAGE
    said = capfd.readouterr().err
    assert "3 jobs of add will end" in said
    assert "add --yes, or --removes-ok; nothing was changed" in said
    assert len(server.rollouts) == 1

    assert shipped(capfd, "--removes-ok")["plan"]["deletes"] == ["add"]


def test_a_protected_environment_needs_a_yes(project: Path, server: FakeServer, capfd: Capture) -> None:
    (project / "flashfw.toml").write_text(TOML.format(url=server.url) + "protected = true\n")

    assert main.run(["ship", "prod", "--removes-ok"]) == Exit.USAGE
    assert "'prod' is protected" in capfd.readouterr().err
    assert server.rollouts == []
    assert shipped(capfd, "--yes")["state"] == "done"


def test_problems_stop_before_anything_changes(project: Path, server: FakeServer, capfd: Capture) -> None:
    shipped(capfd)
    (project / "endpoints/add/handler.py").write_text("def handler(:\n")

    assert main.run(["ship", "prod", "--yes"]) == Exit.PROBLEMS
    assert "endpoints/add/handler.py:1: syntax error" in capfd.readouterr().err
    assert len(server.rollouts) == 1
    shutil.rmtree(project / "endpoints")
    assert main.run(["ship", "prod", "--yes"]) == Exit.NOTHING


def test_missing_secrets_are_problems(project: Path, server: FakeServer, capfd: Capture) -> None:
    (project / "endpoints/add/endpoint.toml").write_text('secrets = ["ONE", "TWO"]\n')

    found = shipped(capfd, code=Exit.PROBLEMS)["problems"]

    assert [problem["hint"] for problem in found] == ["flashfw secret set prod ONE", "flashfw secret set prod TWO"]
    assert (server.layers, server.rollouts) == ({}, [])


def test_a_failed_rollout(project: Path, server: FakeServer, capfd: Capture) -> None:
    first = shipped(capfd)["release"]
    write(project, EDITED)
    server.failing["add"] = {"message": "KeyError: 'X'", "traceback": "Traceback: line 1", "output": ["last words"]}

    assert main.run(["ship", "prod"]) == Exit.FAILED
    said = capfd.readouterr().err
    for words in ("Traceback: line 1", "last words", "KeyError: 'X'", f"never moved: release {first} serves on"):
        assert words in said
    assert shipped(capfd, code=Exit.FAILED)["failure"]["output"] == ["last words"]


def test_a_conflict_shows_what_changed_since(project: Path, server: FakeServer, capfd: Capture) -> None:
    first = shipped(capfd)["release"]
    write(project, EDITED)
    shipped(capfd)
    write(project, {"endpoints/add/handler.py": "def handler(a: int) -> int:\n    return a\n"})

    def meanwhile(request: str) -> None:
        if request == "POST /_flashfw/releases":
            server.current = first  # somebody else was faster

    server.on_request = meanwhile

    assert main.run(["ship", "prod"]) == Exit.TARGET
    said = capfd.readouterr().err
    assert "prod changed since this plan was made" in said
    assert f"release {first} by" in said
    assert "endpoints/add/handler.py (edited)" in said
    assert "ship again" in said


def test_the_same_release_by_somebody_faster_is_no_conflict(project: Path, server: FakeServer, capfd: Capture) -> None:
    first = shipped(capfd)["release"]
    write(project, EDITED)
    second = shipped(capfd)["release"]
    server.current = first

    def meanwhile(request: str) -> None:
        if request == "POST /_flashfw/releases":
            server.current = second

    server.on_request = meanwhile

    assert shipped(capfd)["state"] == "unchanged"


def test_somebody_else_ships(project: Path, server: FakeServer, capfd: Capture) -> None:
    server.is_held = True
    running = threading.Thread(target=main.run, args=[["ship", "prod", "--json"]])
    running.start()
    wait_until(lambda: bool(server.rollouts), "the first ship's rollout")
    write(project, EDITED)

    assert main.run(["ship", "prod"]) == Exit.TARGET
    said = capfd.readouterr().err
    assert f"ships release {server.rollouts[0]['release']} just now (rollout 1, for" in said
    assert "--wait" in said

    assert main.run(["status", "prod"]) == Exit.DONE
    assert f"rollout 1 of release {server.rollouts[0]['release']} by" in capfd.readouterr().out

    waiting = threading.Thread(target=main.run, args=[["ship", "prod", "--wait"]])
    waiting.start()
    wait_until(lambda: server.requests.count("GET /_flashfw/rollouts/1") > 2, "the second ship waits")
    server.let_go()
    running.join()
    waiting.join()
    assert [rollout["state"] for rollout in server.rollouts] == ["done", "done"]


def _started(project: Path, environ: dict[str, str], *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([COMMAND, "ship", "prod", *arguments], cwd=project, env=environ, text=True, **streams)


def test_ctrl_c_leaves_the_rollout_to_the_server(
    project: Path, server: FakeServer, dev_environ: dict[str, str], capfd: Capture
) -> None:
    server.is_held = True
    with _started(project, dev_environ, stderr=subprocess.PIPE) as process:
        wait_until(lambda: "GET /_flashfw/rollouts/1" in server.requests, "ship follows its rollout")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "rollout 1 goes on at the server" in said
    assert "flashfw status prod" in said
    # The next one goes on where that one was.
    asked = server.requests.count("GET /_flashfw/rollouts/1")
    joining = threading.Thread(target=main.run, args=[["ship", "prod"]])
    joining.start()
    wait_until(lambda: server.requests.count("GET /_flashfw/rollouts/1") > asked, "ship joins")
    server.let_go()
    joining.join()
    assert "rollout 1 of this release goes on already" in capfd.readouterr().err
    assert len(server.rollouts) == 1


@pytest.mark.parametrize(("answer", "code", "rollouts"), [("y", Exit.DONE, 2), ("n", 130, 1)])
def test_a_question_on_a_terminal(
    project: Path,
    server: FakeServer,
    dev_environ: dict[str, str],
    capfd: Capture,
    answer: str,
    code: int,
    rollouts: int,
) -> None:
    shipped(capfd)
    shutil.rmtree(project / "endpoints/add")
    ours, theirs = pty.openpty()
    with _started(project, dev_environ, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        said = ""
        while "Ship? [y/N]" not in said:
            said += os.read(ours, 4096).decode()
        os.write(ours, f"{answer}\n".encode())
        try:
            while piece := os.read(ours, 4096):
                said += piece.decode()
        except OSError:  # the terminal's other side is closed
            pass
        process.communicate(timeout=60)
    os.close(ours)

    assert process.returncode == code, said
    assert "add will be deleted" in said
    assert len(server.rollouts) == rollouts
    assert ("nothing was changed" in said) == (code != Exit.DONE)


def test_dev_and_what_is_not_declared(project: Path, capfd: Capture) -> None:
    assert main.run(["ship", "dev"]) == Exit.USAGE
    assert "`flashfw ship local`" in capfd.readouterr().err
    assert main.run(["ship", "staging"]) == Exit.USAGE
    said = capfd.readouterr().err
    assert "[environments.staging]" in said
    assert "there is: prod, local" in said


def test_a_server_of_another_project(project: Path, server: FakeServer, capfd: Capture) -> None:
    server.project, server.environment = "bar", "prod"

    assert main.run(["ship", "prod"]) == Exit.TARGET
    said = capfd.readouterr().err
    assert "the server is that of the project 'bar'" in said
    assert "to create" not in said
    assert server.layers == {}


def test_a_key_that_may_not_ship_is_told_before_the_build(project: Path, server: FakeServer, capfd: Capture) -> None:
    server.keys[""] = "call"
    (project / "endpoints/add/handler.py").write_text("def handler(:\n")

    assert main.run(["ship", "prod"]) == Exit.TARGET
    assert "this key may call functions only" in capfd.readouterr().err


def test_a_project_without_a_lock_gets_one(project: Path, server: FakeServer, capfd: Capture) -> None:
    (project / "flashfw.lock").unlink()

    assert main.run(["ship", "prod"]) == Exit.DONE
    assert "locked: flashfw.lock written" in capfd.readouterr().err
    assert (project / "flashfw.lock").exists()


def test_a_lock_that_is_out_of_date_stops_the_ship(project: Path, server: FakeServer, capfd: Capture) -> None:
    (project / "endpoints/add/endpoint.toml").write_text('dependencies = ["tqdm"]\n')

    assert main.run(["ship", "prod"]) == Exit.PROBLEMS
    said = capfd.readouterr().err
    assert "flashfw.lock" in said
    assert "flashfw lock" in said
    assert server.layers == {}
