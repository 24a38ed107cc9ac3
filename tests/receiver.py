"""A server that takes webhooks, and answers each as it is told to."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

DEADLINE_S = 60.0
Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """One POST as it came."""

    head: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Says this and closes."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        lines = [f"{name}: {value}" for name, value in {**headers, "content-length": str(len(body))}.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {status} So", *lines, "", ""]).encode() + body)
        await writer.drain()

    return behave


async def hangs(writer: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing."""
    await asyncio.Event().wait()


async def closes(writer: asyncio.StreamWriter) -> None:
    """Takes the request and hangs up."""


async def never_ends(writer: asyncio.StreamWriter) -> None:
    """Answers 500 with a body without end."""
    writer.write(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await writer.drain()


@dataclass
class Receiver:
    """What came, and how to answer: the first behaviours in turn, the last one for ever."""

    behaviours: list[Behaviour] = field(default_factory=lambda: [answers(204)])
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    open: int = 0
    most_open: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once it holds, which is looked at whenever something came or went."""
        with anyio.fail_after(DEADLINE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def got(self, count: int) -> list[Request]:
        """The requests, once there are so many."""
        await self.until(lambda: len(self.requests) >= count)
        return self.requests

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            self.requests.append(await _read(reader))
            behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            self._news.set()
            await behave(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._news.set()
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Request(head, headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def receiving(
    *behaviours: Behaviour, host: str = "127.0.0.1", certificate: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Receiver]:
    """A receiver while the block runs."""
    receiver = Receiver(list(behaviours) or [answers(204)], host=host)
    handling: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        task.add_done_callback(handling.discard)
        await receiver.take(reader, writer)

    server = await asyncio.start_server(take, host, port, ssl=certificate)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(handling):
            task.cancel()
        if handling:
            await asyncio.wait(list(handling))
