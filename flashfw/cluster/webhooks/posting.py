"""One POST to a URL of a stranger: its address looked at first, no redirects, little of the answer read."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore

from flashfw.cluster.webhooks.addresses import is_public

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""A name and a port to IP addresses.

Raises:
    OSError: the name is unknown.
"""

MOST_READ = 2_000
"""Bytes of an answer that are read at most."""


class AddressRefused(Exception):
    """The name leads to no address that may be called."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said: its status, where a redirect leads, and how its body begins."""

    status: int
    location: str = ""
    text: str = ""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, by the machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow_loopback: bool,
    resolve: Resolve = resolve,
    verify: ssl.SSLContext | None = None,
) -> Answer:
    """Send it and take the answer. The name is resolved once, and the connection goes to what was looked at then.

    `verify` decides which certificates are good: those of the public internet if nothing is given.

    Raises:
        AddressRefused: none of its addresses may be called.
        OSError, httpcore.NetworkError, httpcore.ProtocolError: it cannot be reached, or does not speak HTTP.
    """
    backend = _Pinned(resolve, allow_loopback)
    context = (verify or _certificates()) if url.startswith("https") else None
    async with (
        httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend) as pool,
        pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
    ):
        location = next(
            (value.decode("latin-1") for name, value in response.headers if name.lower() == b"location"), ""
        )
        if 200 <= response.status < 300:
            return Answer(response.status)
        return Answer(response.status, location, await _begin(response))


async def _begin(response: httpcore.Response) -> str:
    data = b""
    async for part in response.aiter_stream():
        data += part
        if len(data) >= MOST_READ:
            break
    return data[:MOST_READ].decode("utf-8", "replace")


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to an address that was looked at; Host and the name in TLS stay those of the URL."""

    def __init__(self, resolve: Resolve, allow_loopback: bool) -> None:
        self._resolve = resolve
        self._allow_loopback = allow_loopback
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await self._resolve(host, port)
        allowed = [one for one in found if is_public(one, allow_loopback=self._allow_loopback)]
        if not allowed:
            raise AddressRefused(f"{host} is {', '.join(found[:3])}: no address of the public internet")
        for address in allowed[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError:  # such as that of another family, which this machine does not reach
                continue
        return await self._backend.connect_tcp(allowed[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(trust_env=False)
