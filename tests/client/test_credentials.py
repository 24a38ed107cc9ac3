"""The keys that a user keeps: each goes to its own server, and nobody else may read them."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.client import credentials
from flashfw.client.client import Client
from flashfw.client.credentials import CredentialsError, forget, is_exposed, origin, read, save
from flashfw.errors import FlashfwError, UsageError

KEY = "fw_00c0ffee_" + "x" * 43
URL = "https://gpu.example.com"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flashfw" / "credentials.toml"


def test_a_key_is_kept_for_its_server_alone_and_for_its_owner(file: Path) -> None:
    assert read(URL, at=file) is None
    save(URL, KEY, at=file)
    save("http://gpu.example.com", "other", at=file)

    assert read("HTTPS://GPU.example.com:443/", at=file) == KEY
    assert read("http://gpu.example.com:80", at=file) == "other"
    for elsewhere in ("https://gpu.example.com:8443", "https://example.com", "https://gpu.example.com.evil.example"):
        assert read(elsewhere, at=file) is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_key_takes_the_place_of_the_one_before_and_is_forgotten(file: Path) -> None:
    assert not forget(URL, at=file)
    save(URL, "old", at=file)
    save(URL, KEY, at=file)
    save("http://127.0.0.1:8899", "local", at=file)
    assert read(URL, at=file) == KEY

    assert forget(URL, at=file)
    assert not forget(URL, at=file)
    assert read(URL, at=file) is None
    assert read("http://127.0.0.1:8899", at=file) == "local"


def test_two_commands_at_once_lose_no_key(file: Path) -> None:
    addresses = [f"http://127.0.0.1:{port}" for port in range(9000, 9020)]
    threads = [threading.Thread(target=save, args=(url, url), kwargs={"at": file}) for url in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [read(url, at=file) for url in addresses] == addresses


def test_a_file_that_others_may_read_is_not_trusted(file: Path) -> None:
    save(URL, KEY, at=file)
    file.chmod(0o640)

    with pytest.raises(CredentialsError, match=r"others may read the keys in .*; chmod 600 "):
        read(URL, at=file)


def test_a_damaged_file_is_named_and_left_as_it_is_and_never_quoted(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    file.write_text(f'["{URL}"]\nkey = {KEY}\n')
    with pytest.raises(CredentialsError, match="is no TOML") as caught:
        save(URL, "new", at=file)

    assert KEY in file.read_text()
    assert KEY not in str(caught.value)
    file.write_text(f'"{URL}" = 3\n["http://x"]\nkey = 5\n')
    assert read(URL, at=file) is None
    assert read("http://x", at=file) is None


@given(st.text("https:/.[]@:0123456789abcé\n", max_size=30) | st.text(max_size=30))
def test_any_text_has_an_origin_or_is_no_address(text: str) -> None:
    try:
        found = origin(text)
    except UsageError:
        return

    assert origin(found) == found
    assert is_exposed(found) in (True, False)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
def test_any_printable_key_comes_back(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    file = tmp_path_factory.mktemp("keys") / "credentials.toml"
    save(URL, key, at=file)

    assert read(URL, at=file) == key


def test_the_users_own_folder_is_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    assert save(URL, KEY) == credentials.path()
    assert tmp_path in credentials.path().parents
    assert read(URL) == KEY


@contextmanager
def answering(status: int, location: str = "") -> Iterator[tuple[str, list[str]]]:
    """A server that always answers so, and the headers that it was sent keys in."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(str(self.headers.get("authorization")))
            self.send_response(status)
            if location:
                self.send_header("Location", location + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_takes_no_key_to_another_server(status: int) -> None:
    with answering(200) as (elsewhere, heard), answering(status, elsewhere) as (url, asked):
        with Client(url, KEY) as client, pytest.raises(FlashfwError):
            client.openapi()

        assert asked == [f"Bearer {KEY}"]
        assert heard == []
