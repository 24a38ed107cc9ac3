"""A server with TLS on a socket of systemd's: certificates that are renewed or expire, and what the manager hears."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from flashfw.cluster.listening.binding import bind
from tests.dev_process import wait_until
from tests.serve import certificate, process
from tests.serve.certificate import DAY, NOW
from tests.serve.process import Server


@dataclass
class Secured:
    """A server that systemd started, as far as it can tell."""

    server: Server
    folder: Path
    manager: socket.socket

    def heard(self) -> str:
        """The next thing that the service manager is told, without the time."""
        return self.manager.recv(1000).decode().partition("\n")[0]

    def served(self) -> bytes:
        """The certificate that clients get."""
        context = ssl.create_default_context(cafile=self.folder / "server.pem")
        context.verify_mode, context.check_hostname = ssl.CERT_REQUIRED, False
        with socket.create_connection(self.server.address, timeout=30) as raw, context.wrap_socket(raw) as tls:
            found = tls.getpeercert(binary_form=True)
            assert found is not None
            assert tls.version() in ("TLSv1.2", "TLSv1.3")
            return found


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    good = certificate.write(folder)
    with bind("127.0.0.1", 0) as sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind(str(folder / "notify"))
        variables = {"NOTIFY_SOCKET": str(folder / "notify")}
        arguments = ["--cert", str(good.cert), "--key", str(good.key)]
        with process.serving(folder, *arguments, sock=sock, variables=variables) as server:
            assert server.address == sock.getsockname()
            found = Secured(server, folder, manager)
            assert found.heard() == "READY=1"
            yield found


def test_it_is_https_of_at_least_1_2(secured: Secured) -> None:
    assert secured.server.url.startswith("https://127.0.0.1:")
    verify = ssl.create_default_context(cafile=secured.folder / "server.pem")
    with httpx.Client(verify=verify, trust_env=False, timeout=30) as client:
        assert client.get(f"{secured.server.url}/_flashfw/ready").status_code == 200
        # Whoever sends more than is read hears the answer over TLS, too, which cannot be closed for writing alone.
        assert client.post(f"{secured.server.url}/nothing", content=bytes(3_000_000)).status_code == 401


def test_a_renewed_certificate_is_served_after_a_restart_and_an_expired_one_is_not(secured: Secured) -> None:
    before = secured.served()
    certificate.write(secured.folder)
    secured.server.restart()
    assert [secured.heard(), secured.heard()] == ["RELOADING=1", "READY=1"]
    renewed = secured.served()
    assert renewed != before

    good = {name: (secured.folder / name).read_bytes() for name in ("server.pem", "server.key")}
    certificate.write(secured.folder, begins=NOW - 2 * DAY, ends=NOW - DAY)
    secured.server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "serves on: the certificate" in secured.server.output(), "the restart is refused")
    assert f"server.pem expired on {NOW - DAY:%Y-%m-%d}" in secured.server.output()
    assert [secured.heard(), secured.heard()] == ["RELOADING=1", "READY=1"]
    for name, data in good.items():
        (secured.folder / name).write_bytes(data)
    assert secured.served() == renewed
