"""Certificates that are not to be trusted, and those of an authority of one's own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flashfw.errors import TargetError
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
def secured(cert: Path, key: Path) -> Iterator[str]:
    """The address of a server with that certificate, which wants a key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with _Quiet(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def refusal(url: str, cafile: Path | None = None) -> TargetError:
    with Cluster("prod", url, "fw_x", cafile=cafile) as target, pytest.raises(TargetError) as raised:
        target.host()
    return raised.value


def test_a_certificate_of_nobody_known(tmp_path: Path) -> None:
    made = certificate.write(tmp_path)
    with secured(made.cert, made.key) as url:
        stranger, trusted = refusal(url), refusal(url, made.cert)

    assert "is not to be trusted" in stranger.what
    assert "SSL_CERT_FILE=ca.pem" in stranger.hint
    assert "a key is needed" in trusted.what


def test_a_certificate_that_expired(tmp_path: Path) -> None:
    made = certificate.write(tmp_path, begins=NOW - 3 * DAY, ends=NOW - DAY)
    with secured(made.cert, made.key) as url:
        error = refusal(url, made.cert)

    assert "certificate has expired" in error.what
    assert "SIGHUP" in error.hint


def test_tls_where_there_is_none_and_the_reverse(tmp_path: Path) -> None:
    made = certificate.write(tmp_path)
    with secured(made.cert, made.key) as url:
        assert "broke" in refusal(url.replace("https:", "http:")).what


def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    with pytest.raises(TargetError, match="cannot be read"):
        Cluster("prod", "https://127.0.0.1:1", "k", cafile=tmp_path / "ca.pem")
