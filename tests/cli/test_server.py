"""Which server a command line names, and which key goes there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashfw.cli.server import KEY, Server, locate
from flashfw.client import credentials
from flashfw.cluster.claim import Claimed
from flashfw.dev import state
from flashfw.errors import ProjectError, UsageError

PROD = "https://gpu.example.com"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an environment, of a user without a key."""
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv(KEY, raising=False)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "flashfw.toml").write_text(f'[environments.prod]\nurl = "{PROD}"\n[environments.bare]\n')
    return folder


def test_an_environment_gets_the_key_that_is_kept_for_its_address(root: Path) -> None:
    assert locate(url=None, environment="prod", root=root) == Server(PROD)
    credentials.save(PROD, "kept")
    credentials.save("https://other.example.com", "another")

    assert locate(url=None, environment="prod", root=root) == Server(PROD, "kept")
    assert locate(url=f"{PROD}/", environment="dev", root=root) == Server(f"{PROD}/", "kept")
    assert locate(url="http://gpu.example.com", environment="dev", root=root).key is None


def test_an_environment_says_whose_certificate_its_server_has(root: Path) -> None:
    config = root / "flashfw.toml"
    config.write_text(config.read_text().replace("[environments.bare]", 'cafile = "certs/ca.pem"'))

    found = locate(url=None, environment="prod", root=root)

    assert found == Server(PROD, cafile=root / "certs/ca.pem")
    with pytest.raises(UsageError, match=r"cafile .*certs/ca\.pem cannot be read"):
        found.client()


def test_the_variable_goes_before_what_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.save(PROD, "kept")
    monkeypatch.setenv(KEY, " given\n")

    assert locate(url=None, environment="prod", root=root) == Server(PROD, "given")
    monkeypatch.setenv(KEY, "")
    assert locate(url=None, environment="prod", root=root) == Server(PROD, "kept")
    monkeypatch.setenv(KEY, "a\nb")
    with pytest.raises(UsageError, match="FLASHFW_KEY holds no key"):
        locate(url=None, environment="prod", root=root)


def test_a_running_dev_is_asked_with_its_own_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "of prod")
    state.publish(state.folder(root), Claimed("http://127.0.0.1:8888", os.getpid(), "own"))

    assert locate(url=None, environment="dev", root=root) == Server("http://127.0.0.1:8888", "own")


def test_a_key_in_clear_is_warned_of_and_never_shown(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for url in ("http://10.1.2.3:8899", "http://127.0.0.1:8899", PROD):
        credentials.save(url, "fw_hidden")
        assert "hidden" not in repr(locate(url=url, environment="dev", root=root))

    said = capfd.readouterr().err
    assert said.count("warning") == 1
    assert "http://10.1.2.3:8899 unencrypted" in said


@pytest.mark.parametrize(
    ("environment", "said"), [("prdo", "did you mean 'prod'"), ("bare", "has no address"), ("nope", "there is: prod")]
)
def test_an_environment_without_a_server_is_said(root: Path, environment: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        locate(url=None, environment=environment, root=root)


def test_settings_that_cannot_be_read_hide_no_environment(root: Path) -> None:
    (root / "flashfw.toml").write_text(f'[environments.prod]\nurl = "{PROD}"\n[[[')

    with pytest.raises(ProjectError) as raised:
        locate(url=None, environment="prod", root=root)
    assert str(raised.value.problems[0]).startswith("flashfw.toml:3: not TOML")
