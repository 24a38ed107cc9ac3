"""What systemd and a server say to each other: a socket that is there already, readiness, and a unit that fits."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from flashfw.errors import UsageError

FIRST_DESCRIPTOR = 3
FIRST_FREE_PORT = 1024
"""Those below are the administrator's."""


def notify(text: str, variables: Mapping[str, str]) -> None:
    """Tell the service manager; nothing happens where there is none, or where it does not listen.

    >>> notify("READY=1", os.environ)
    """
    address = variables.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.sendall(text.encode())
        except OSError:
            pass  # a service manager that is gone keeps nobody from serving


def activated(variables: Mapping[str, str]) -> socket.socket | None:
    """The socket that systemd listens on for this process (`LISTEN_FDS`), None without one.

    Raises:
        UsageError: there are several, or it is none that HTTP comes through.
    """
    if variables.get("LISTEN_PID") != str(os.getpid()) or not variables.get("LISTEN_FDS", "").isdigit():
        return None
    count = int(variables["LISTEN_FDS"])
    if count == 0:
        return None
    if count > 1:
        raise UsageError(f"systemd handed over {count} sockets", hint="give the .socket unit one ListenStream=")
    try:
        sock = socket.socket(fileno=FIRST_DESCRIPTOR)
    except OSError as error:
        raise UsageError(f"LISTEN_FDS promises a socket, and there is none: {error.strerror}") from error
    sock.set_inheritable(False)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise UsageError(
            "the socket of systemd is not of TCP", hint="write ListenStream=8899 or ListenStream=ADDRESS:PORT"
        )
    return sock


def unit(command: Sequence[str], *, data: Path, port: int, stop_s: float) -> str:
    """A unit file for a server that is started by this command. Its user's home is the data folder, for uv's caches.

    Workers lead sessions of their own, so `KillMode=mixed`: the supervising process alone is asked to stop, and ends
    them in order; what is left when the time is over is killed by its control group. There is no
    `MemoryDenyWriteExecute` and no `PrivateDevices`, since models compile code and use GPUs.
    """
    return _UNIT.format(
        command=" ".join(map(_quoted, command)),
        data=_quoted(str(data)),
        home=_quoted(f"HOME={data}"),
        capabilities="CAP_NET_BIND_SERVICE" if 0 < port < FIRST_FREE_PORT else "",
        state=f"StateDirectory={data.name}\nStateDirectoryMode=0700\n" if data.parent == Path("/var/lib") else "",
        stop_s=round(stop_s),
    )


def _quoted(text: str) -> str:
    """A word as systemd reads it: its own specifiers and variables are doubled."""
    doubled = text.replace("%", "%%").replace("$", "$$")
    return doubled if shlex.quote(doubled.replace("$", "")) == doubled.replace("$", "") else f'"{_escaped(doubled)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


_UNIT = """\
[Unit]
Description=flashfw server ({data})
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
User=flashfw
Group=flashfw
Environment={home}
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2s
TimeoutStartSec=120s
TimeoutStopSec={stop_s}s
KillMode=mixed
{state}ReadWritePaths={data}
UMask=0077
LimitNOFILE=65536
OOMPolicy=continue
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""
