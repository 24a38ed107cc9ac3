"""What a gateway gets of the process that starts it, and what stays with that."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from flashfw.cluster.logs.files import Rotation
from flashfw.serve import launching
from flashfw.serve.options import Options


def test_what_systemd_says_to_the_parent_is_not_said_to_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "PROGRAM", "import os; print(*sorted(os.environ))")
    variables = {"PATH": os.environ["PATH"], "TOKEN": "x", **dict.fromkeys(launching.OF_THE_PARENT, "1")}
    options = Options(
        data=tmp_path,
        host="127.0.0.1",
        port=0,
        certificate=None,
        database=None,
        bound=None,
        secret_key=None,
        grace_s=1.0,
        rotation=Rotation(),
        quiet=True,
        variables=variables,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as sock, (tmp_path / "lock").open("w") as lock:
        assert launching.launcher(options, sock, lock)(theirs.fileno()).wait(60) == 0

    seen = set(capfd.readouterr().err.split())
    assert {"PATH", "TOKEN"} <= seen
    assert seen.isdisjoint(launching.OF_THE_PARENT)
    assert launching.OF_THE_PARENT[:3] == ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
