"""The server of this machine: started by a ship, found again, stopped by a remove."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flashfw.errors import TargetError, UsageError
from flashfw.ship import local
from tests import command
from tests.ship.builds import write


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_life_of_the_local_server(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{port()}"
    toml = f'[project]\nname = "tiny"\n[environments.local]\nurl = "{url}"\n'
    handler = "import flashfw\n\n\ndef handler() -> str:\n    return flashfw.environment\n"
    files = {"flashfw.toml": toml, "endpoints/where/handler.py": handler}
    # Modules of the project are nothing to the commands that a ship runs for itself.
    files["secrets.py"] = files["platform.py"] = "raise SystemExit('this is not the standard library')\n"
    project = write(tmp_path / "tiny", files)
    config, data = tmp_path / "config", tmp_path / "data"
    environ = {**dev_environ, "XDG_CONFIG_HOME": str(config), "XDG_DATA_HOME": str(data)}
    environ.pop("FLASHFW_KEY", None)

    def flashfw(*arguments: str) -> str:
        done = command.flashfw(*arguments, cwd=project, environ=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        assert json.loads(flashfw("ship", "local", "--plan", "--json"))["state"] == "planned"
        assert not data.exists()
        with ThreadPoolExecutor(2) as pool:  # two at once get the same server, and the same release
            states = [
                json.loads(said)["state"] for said in pool.map(lambda _: flashfw("ship", "local", "--json"), "ab")
            ]
        assert set(states) <= {"done", "unchanged"}
        assert flashfw("call", "where", "--env", "local") == '"local"\n'
        # Another server had its key kept at this address meanwhile.
        kept = config / "flashfw" / "credentials.toml"
        kept.write_text(kept.read_text().replace("fw_", "fw_00000000_"))
        assert json.loads(flashfw("ship", "local", "--json"))["state"] == "unchanged"
        assert {path.stat().st_mode & 0o077 for path in (data / "flashfw/servers").iterdir()} == {0}
        removed = json.loads(flashfw("remove", "local", "--yes", "--confirm", "local", "--json"))
    finally:
        was_left = local.stop(data / "flashfw/servers/tiny-local")

    assert not was_left
    assert (removed["removed"], removed["stopped"]) == (True, True)
    assert local.running(data / "flashfw/servers/tiny-local") is None
    assert "no local server runs" in command.flashfw("remove", "local", cwd=project, environ=environ).stderr


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(TargetError) as raised:
        local.start(tmp_path / "servers" / "a-local", f"http://127.0.0.1:{taken.getsockname()[1]}")

    assert "the local server does not start" in raised.value.what
    assert not (tmp_path / "servers" / "a-local.out").exists()


@pytest.mark.parametrize("url", ["https://127.0.0.1:8899", "http://shop.example.com"])
def test_local_is_this_machine(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="on this machine"):
        local.start(tmp_path / "data", url)


def test_nothing_to_stop(tmp_path: Path) -> None:
    assert not local.stop(tmp_path)
    (tmp_path / "serving.json").write_text('{"url": "http://127.0.0.1:1", "pid": 999999999}')
    assert not local.stop(tmp_path)
    assert local.running(tmp_path) is None


def test_a_port_that_somebody_else_has_is_left_to_him() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert local.free(f"http://127.0.0.1:{taken.getsockname()[1]}") == "http://127.0.0.1:0"
    assert local.free(url := f"http://127.0.0.1:{port()}") == url
