"""A TCP proxy in front of a PostgreSQL server that cuts a connection in the moment of a COMMIT."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

COMMIT = b";COMMIT\0"
"""Of a transaction that wrote something."""

Moment = Literal["before", "after"]
"""The server never gets the COMMIT, or it does it and nobody hears the answer."""


@dataclass
class CutProxy:
    """Takes connections from `start` to `close`. `cut_at` arms it for one COMMIT; `is_open` lets new ones through,
    and with `shuts` the cut ends that."""

    target: tuple[str, int]
    cut_at: Moment | None = None
    is_open: bool = True
    shuts: bool = False
    cuts: int = 0
    _listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _sockets: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def to(cls, url: str) -> CutProxy:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls((parts.hostname, parts.port))

    def url(self, of: str) -> str:
        """The URL of the server, through the proxy."""
        return of.replace(f":{self.target[1]}/", f":{self._listening.getsockname()[1]}/")

    def start(self) -> None:
        self._run(self._accept)

    def close(self) -> None:
        self.is_open = False
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._sockets:
            _hang_up(sock)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self._sockets += [client, server]
            muted = threading.Event()
            self._run(self._forth, client, server, muted)
            self._run(self._back, server, client, muted)

    def _forth(self, client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        while data := _read(client):
            moment = self.cut_at if COMMIT in data else None
            if moment is not None:
                self.cut_at = None
                self.cuts += 1
                self.is_open = not self.shuts
                muted.set()
                if moment == "after":
                    _write(server, data)  # and whoever brings the answer hangs up
                else:
                    _hang_up(client)
                    _hang_up(server)
                return
            _write(server, data)
        _hang_up(server)

    def _back(self, server: socket.socket, client: socket.socket, muted: threading.Event) -> None:
        while data := _read(server):
            if muted.is_set():
                break  # the answer to the COMMIT: it is done
            _write(client, data)
        _hang_up(client)
        _hang_up(server)

    def _run(self, do: object, *arguments: object) -> None:
        thread = threading.Thread(target=do, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65_536)
    except OSError:
        return b""


def _write(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
