"""How a gateway is started: a fresh interpreter, so that whatever flashfw is installed now is the one that serves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import socket
from typing import TextIO

from flashfw.serve.options import Options

PROGRAM = "import sys; sys.path[:] = [path for path in sys.path if path]; from flashfw.cli.main import main; main()"
"""Not `-m flashfw`: that would look for modules in the folder that the server was started in."""

OF_THE_PARENT = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")
"""What systemd says to the process that it started."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a gateway is given by its parent, as numbers: the channel, the listening socket, the lock of the data."""

    channel: int
    sock: int
    lock: int

    def __str__(self) -> str:
        return f"{self.channel},{self.sock},{self.lock}"

    @classmethod
    def read(cls, text: str) -> Descriptors:
        """Of their text.

        >>> Descriptors.read("5,3,4")
        Descriptors(channel=5, sock=3, lock=4)

        Raises:
            ValueError: it is none.
        """
        channel, sock, lock = map(int, text.split(","))
        return cls(channel, sock, lock)


def launcher(options: Options, sock: socket, lock: TextIO) -> Callable[[int], subprocess.Popen[bytes]]:
    """Who starts gateways of this server.

    A gateway leads a session of its own: Ctrl-C in a terminal is for the parent alone, which says what follows.
    """

    def launch(channel: int) -> subprocess.Popen[bytes]:
        given = Descriptors(channel, sock.fileno(), lock.fileno())
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "-v", "serve", *options.arguments(), "--gateway", str(given)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),  # stdout is the parent's document's
            pass_fds=[given.channel, given.sock, given.lock],
            env=_variables(options.variables),
            start_new_session=True,
        )

    return launch


def _variables(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in OF_THE_PARENT}
