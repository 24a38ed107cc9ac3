"""The socket that a server listens on, and its address; light, for a process that does no more than hold it."""

from __future__ import annotations

import errno
import socket

from flashfw.errors import TargetError, UsageError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one.

    Raises:
        TargetError: the address is taken, not this machine's, or not allowed.
        UsageError: there is no such port.
    """
    if not 0 <= port <= 65_535:
        raise UsageError(f"{port} is no port", hint="choose one from 1 to 65535, or 0 for any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _refused(host, port, error) from error
    return sock


def url_of(sock: socket.socket, *, scheme: str = "http") -> str:
    """The URL of a bound socket, as a person on this machine opens it."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _refused(host: str, port: int, error: OSError) -> TargetError:
    if error.errno == errno.EADDRINUSE:
        return TargetError(
            f"port {port} on {host} is in use", hint=f"stop what runs there, or choose another: --port {port + 1}"
        )
    if error.errno == errno.EACCES:
        return TargetError(f"port {port} may not be used by this user", hint="choose one above 1023: --port 8888")
    return TargetError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint="check --host and --port")
