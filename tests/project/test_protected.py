"""What never leaves the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.project import protected


@pytest.mark.parametrize("path", [".env", "a/.ENV.prod", "x.PEM", "a/.ssh/known_hosts", "id_rsa.pub", "Secrets.YAML"])
def test_credentials(path: str) -> None:
    assert protected.path(path) == "credentials"


@pytest.mark.parametrize("path", [".git/HEAD", "a/node_modules/b", "x.pyc", ".flashfw/webhook-secret"])
def test_what_tools_keep(path: str) -> None:
    assert protected.path(path) == "state of a tool"


@pytest.mark.parametrize(
    "path", ["credentials.py", "endpoints/env/handler.py", "keys.json", "monkey", "lib/secrets.py", "environment.txt"]
)
def test_ordinary_files(path: str) -> None:
    assert protected.path(path) is None


def test_content_that_is_no_secret() -> None:
    assert protected.content("a.json", b"[" * 100_000 + b'"private_key"') is None
    assert protected.content("a.py", b'KEY = """-----BEGIN PRIVATE KEY-----"""') is None
    assert protected.content("a.crt", b"-----BEGIN CERTIFICATE-----") is None


def test_the_page_names_all_of_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "build.md").read_text("utf-8")
    names = (*protected.CREDENTIAL_FILES, *protected.CREDENTIAL_FOLDERS)

    assert [name for name in names if f"`{name}`" not in page] == []
