"""What a server says to systemd, and the unit that it prints."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from flashfw.errors import UsageError
from flashfw.serve import systemd


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, is_abstract: bool) -> None:
    name = f"flashfw-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}" if is_abstract else name)

        systemd.notify("READY=1", {"NOTIFY_SOCKET": f"@{name}" if is_abstract else name})

        assert listening.recv(100) == b"READY=1"


def test_nobody_to_tell_is_no_error(tmp_path: Path) -> None:
    systemd.notify("READY=1", {})
    systemd.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    systemd.notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:1234"})


def test_a_socket_for_another_process_is_not_taken() -> None:
    assert systemd.activated({}) is None
    assert systemd.activated({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1)}) is None
    assert systemd.activated({"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())}) is None


def test_several_sockets_are_refused() -> None:
    with pytest.raises(UsageError, match="handed over 2 sockets"):
        systemd.activated({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())})


def test_a_unit_holds_what_a_server_needs() -> None:
    text = systemd.unit(
        ["/opt/flash fw/bin/flashfw", "serve", "--x", "50%$"], data=Path("/var/lib/shop"), port=443, stop_s=35.0
    )

    for line in (
        "Type=notify",
        'ExecStart="/opt/flash fw/bin/flashfw" serve --x 50%%$$',
        "ExecReload=/bin/kill -HUP $MAINPID",
        "TimeoutStopSec=35s",
        "KillMode=mixed",
        "StateDirectory=shop",
        "ReadWritePaths=/var/lib/shop",
        "NoNewPrivileges=yes",
        "Environment=HOME=/var/lib/shop",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
    ):
        assert line in text.splitlines()
    other = systemd.unit(["flashfw"], data=Path("/srv/shop"), port=8899, stop_s=35.0)
    assert "StateDirectory" not in other
    assert "AmbientCapabilities=\n" in other


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "shop.service"
    file.write_text(systemd.unit(["/bin/true", "a b", '"$%\\'], data=Path("/srv/my shop"), port=0, stop_s=35.0))

    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True)

    ours = [line for line in done.stderr.splitlines() if "shop.service" in line and "not-found" not in line]
    assert ours == []
