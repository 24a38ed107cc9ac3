"""Certificates that are not to be trusted, those of an authority of one's own, and TLS where there is none."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flashfw.client import reaching
from flashfw.client.client import Client
from flashfw.errors import TargetError, UsageError
from flashfw.ship.cluster import Cluster
from tests.serve import certificate
from tests.serve.certificate import DAY, NOW


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"error": {"reason": "unauthorized", "message": "a key is needed"}}')

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Quiet(HTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # a client that does not trust it goes away


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[str]:
    """The address of a server which wants a key, over TLS if it has a context for that."""
    with _Quiet(("127.0.0.1", 0), _Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def secured(cert: Path, key: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with serving(context) as url:
        yield url


Ask = Callable[[str], TargetError]


def _by_ship(url: str) -> TargetError:
    with Cluster("prod", url, "fw_x") as target, pytest.raises(TargetError) as raised:
        target.host()
    return raised.value


def _by_call(url: str) -> TargetError:
    with Client(url, "fw_x") as client, pytest.raises(TargetError) as raised:
        client.call("add", {})
    return raised.value


@pytest.fixture(params=[_by_ship, _by_call], ids=["ship", "call"])
def refusal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What the verbs that ship, and those that call, say of a server."""
    for name in reaching.AUTHORITIES:
        monkeypatch.delenv(name, raising=False)
    found: Ask = request.param
    return found


def test_a_certificate_of_nobody_known(tmp_path: Path, refusal: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificate.write(tmp_path)
    with secured(made.cert, made.key) as url:
        stranger = refusal(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(made.cert))
        trusted = refusal(url)

    assert "is not to be trusted" in stranger.what
    assert "SSL_CERT_FILE=ca.pem" in stranger.hint
    assert "not to be trusted" not in trusted.what
    assert url in trusted.what


def test_an_authority_by_option(tmp_path: Path) -> None:
    made = certificate.write(tmp_path)
    with (
        secured(made.cert, made.key) as url,
        Cluster("prod", url, "fw_x", cafile=made.cert) as target,
        pytest.raises(TargetError, match="a key is needed"),
    ):
        target.host()


@pytest.mark.parametrize(
    ("host", "begins", "ends", "what", "hint"),
    [
        ("127.0.0.1", NOW - 3 * DAY, NOW - DAY, "has expired", "SIGHUP"),
        ("127.0.0.1", NOW + DAY, NOW + 2 * DAY, "not yet valid", "clocks"),
        ("127.0.0.2", NOW - DAY, NOW + DAY, "not valid for '127.0.0.1'", "host name"),
    ],
    ids=["expired", "not begun", "another host"],
)
def test_a_certificate_that_does_not_do(
    tmp_path: Path,
    refusal: Ask,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    begins: datetime,
    ends: datetime,
    what: str,
    hint: str,
) -> None:
    made = certificate.write(tmp_path, begins=begins, ends=ends, host=host)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.cert))
    with secured(made.cert, made.key) as url:
        error = refusal(url)

    assert what in error.what
    assert hint in error.hint


def test_tls_where_there_is_none_and_the_reverse(tmp_path: Path, refusal: Ask) -> None:
    made = certificate.write(tmp_path)
    with secured(made.cert, made.key) as url:
        in_clear = refusal(url.replace("https:", "http:"))
    with serving(None) as url:
        over_tls = refusal(url.replace("http:", "https:"))

    assert "https://" in in_clear.hint
    assert "does not speak TLS as asked" in over_tls.what
    assert "is it http://" in over_tls.hint


def test_authorities_of_the_variable_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE=.*ca\.pem cannot be read: it holds no certificate"):
        reaching.tls("https://127.0.0.1:1")

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match="No such file"):
        reaching.tls("https://127.0.0.1:1")


def test_an_authority_of_the_option_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    with pytest.raises(UsageError, match=r"cafile .*ca\.pem cannot be read"):
        Cluster("prod", "https://127.0.0.1:1", "k", cafile=tmp_path / "ca.pem")
