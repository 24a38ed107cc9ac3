"""`flashfw key`: made, used, revoked and kept, as people and scripts do it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from flashfw.client import credentials
from flashfw.errors import Exit
from tests.cli.administered import Administered, administered
from tests.command import flashfw

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Administered]:
    folder = tmp_path / "data"
    folder.mkdir()
    with administered(folder) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(server: Administered, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in a project that has the server as `prod`, for a user with a folder of their own."""
    project = tmp_path / "shop"
    project.mkdir()
    (project / "flashfw.toml").write_text(f'[environments.prod]\nurl = "{server.url}"\n')
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.delenv("FLASHFW_KEY", raising=False)

    def invoke(*arguments: str, key: str | None = None, stdin: bytes = b"") -> CompletedProcess[str]:
        import os

        environ = {**os.environ, **({} if key is None else {"FLASHFW_KEY": key})}
        return flashfw(*arguments, cwd=project, environ=environ, stdin=stdin)

    return invoke


def made(server: Administered, scope: Any = "admin") -> str:
    return str(server.keys.create("somebody", scope)[1])


def test_the_first_key_is_made_at_the_servers_machine_and_saved(run: Run, server: Administered, home: Path) -> None:
    first = run("key", "create", "--data", str(server.data), "--scope", "admin", "me")
    key = first.stdout.strip()
    assert (first.returncode, first.stdout.count("\n")) == (Exit.DONE, 1)
    assert "not shown again" in first.stderr
    refused = run("key", "list", "prod")
    assert refused.returncode == Exit.TARGET
    assert f"flashfw key save --url {server.url}" in refused.stderr

    saved = run("key", "save", "prod", stdin=key.encode() + b"\n")
    assert (saved.returncode, saved.stderr) == (Exit.DONE, "")
    assert saved.stdout.startswith(f"saved  the key {key[3:11]} for {server.url} in {home}")
    listed = run("key", "list", "prod")
    assert [line.split()[:3] for line in listed.stdout.splitlines()] == [[key[3:11], "admin", "me"]]
    assert "used" in listed.stdout
    assert json.loads(run("key", "list", "--url", server.url, "--json").stdout)["keys"][0]["name"] == "me"

    assert run("key", "forget", "prod").stdout == f"forgotten  {server.url}\n"
    assert run("key", "forget", "prod").stdout == f"no key was kept  {server.url}\n"
    assert run("key", "list", "prod").returncode == Exit.TARGET


def test_a_key_is_made_and_revoked_from_afar(run: Run, server: Administered) -> None:
    admin = made(server)
    document = json.loads(run("key", "create", "prod", "ci", "--json", key=admin).stdout)
    assert (document["name"], document["scope"]) == ("ci", "call")
    assert run("key", "list", "prod", key=document["key"]).returncode == Exit.TARGET
    assert "scope 'admin'" in run("key", "list", "prod", key=document["key"]).stderr

    revoked = run("key", "revoke", "prod", document["key"], key=admin)
    assert (revoked.returncode, revoked.stdout) == (Exit.DONE, f"revoked  {document['id']}  ci\n")
    later = run("key", "list", "prod", key=document["key"])
    assert later.returncode == Exit.TARGET
    assert f"the key {document['id']} (ci) was revoked" in later.stderr
    assert "revoked" in run("key", "list", "prod", key=admin).stdout


def test_the_last_admin_key_goes_by_force_at_the_servers_machine_alone(run: Run, server: Administered) -> None:
    admin = made(server)
    for refused in (
        run("key", "revoke", "prod", admin[3:11], key=admin),
        run("key", "revoke", "--data", str(server.data), admin[3:11]),
    ):
        assert refused.returncode == Exit.TARGET
        assert "last admin key" in refused.stderr
    assert run("key", "revoke", "--force", "prod", admin[3:11], key=admin).returncode == Exit.USAGE

    assert run("key", "revoke", "--data", str(server.data), "--force", admin[3:11]).returncode == Exit.DONE
    assert run("key", "list", "prod", key=admin).returncode == Exit.TARGET


@pytest.mark.parametrize("text", ["", "nonsense", "fw_00c0ffee_short", "fw_00c0ffee_" + "x" * 43])
def test_what_is_no_key_of_the_server_is_not_kept(run: Run, server: Administered, home: Path, text: str) -> None:
    made(server)
    saved = run("key", "save", "prod", stdin=text.encode())

    assert saved.returncode in (Exit.USAGE, Exit.TARGET)
    assert not list(home.rglob(credentials.FILE))
    assert len(text) < 20 or text[12:] not in saved.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "prod"], Exit.USAGE, "give ENV NAME"),
        (["create", "a", "b", "c"], Exit.USAGE, "give ENV NAME"),
        (["create", "--data", "."], Exit.USAGE, "give NAME"),
        (["create", "--data", ".", "me"], Exit.USAGE, "no server's data"),
        (["create", "prod", " "], Exit.USAGE, "cannot be named"),
        (["create", "prdo", "me"], Exit.USAGE, "did you mean 'prod'"),
        (["list"], Exit.USAGE, "which server?"),
        (["list", "prod", "--url", "http://127.0.0.1:1"], Exit.USAGE, "one of ENV, --url and --data"),
        (["revoke", "prod", "00000000"], Exit.USAGE, "there is no key '00000000'"),
        (["save", "--url", "http://127.0.0.1:1"], Exit.TARGET, "no answer from"),
        (["list", "--url", "ftp://x"], Exit.USAGE, "is no address"),
    ],
)
def test_what_cannot_be_is_said(run: Run, server: Administered, arguments: list[str], code: int, said: str) -> None:
    done = run("key", *arguments, key=made(server), stdin=b"fw_00c0ffee_" + b"x" * 43)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_state_that_is_empty_is_left_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").touch()
    done = run("key", "list", "--data", str(tmp_path))

    assert done.returncode == Exit.USAGE
    assert "its state.sqlite is empty" in done.stderr
    assert (tmp_path / "state.sqlite").stat().st_size == 0


def test_a_key_in_the_environment_that_can_be_none_is_refused_without_being_shown(run: Run) -> None:
    done = run("key", "list", "prod", key="fw_sécret")

    assert done.returncode == Exit.USAGE
    assert "FLASHFW_KEY holds no key" in done.stderr
    assert "cret" not in done.stderr


def test_a_key_in_clear_over_a_network_is_warned_of(run: Run) -> None:
    done = run("key", "list", "--url", "http://192.0.2.1.invalid:1", key="fw_x")

    assert done.returncode == Exit.TARGET
    assert "warning: the key goes to http://192.0.2.1.invalid:1 unencrypted" in done.stderr
