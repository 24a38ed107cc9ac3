"""A generator's items to an HTTP response: text and bytes as they are, objects as SSE or JSON lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from starlette.types import Send

from flashfw.worker.encode import EncodeError, dumps

if TYPE_CHECKING:
    from flashfw.worker.asgi import HttpCall

T = TypeVar("T")

END: Any = object()
_BINARY = (bytes, bytearray, memoryview)


class RunSync(Protocol):
    """Runs synchronous user code where it belongs."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...


class Items(Protocol):
    """What a generator yields, asked for one by one: no item is made before the last one is sent."""

    async def next(self) -> Any:
        """The next item, `END` after the last."""

    async def close(self) -> None:
        """Ends the generator, so that its `finally` runs."""


@dataclass(frozen=True, slots=True)
class SyncItems:
    generator: Generator[Any, Any, Any]
    run_sync: RunSync

    async def next(self) -> Any:
        return await self.run_sync(next, self.generator, END)

    async def close(self) -> None:
        await self.run_sync(self.generator.close)


@dataclass(frozen=True, slots=True)
class AsyncItems:
    generator: AsyncGenerator[Any, Any]

    async def next(self) -> Any:
        return await anext(self.generator, END)

    async def close(self) -> None:
        await self.generator.aclose()


async def send_items(items: Items, *, accept: str, send: Send) -> None:
    """Sends all items as one response.

    What is raised before the first item is there leaves the response unbegun, so that it can still be an
    error with a status. What is raised later ends this call with the response unfinished.

    Raises:
        EncodeError: an item is neither text nor bytes nor JSON, or objects follow on text.
        Exception: whatever the generator raises.
    """
    try:
        item = await items.next()
        media, piece = _form(item, accept)
        body = b"" if item is END else piece(item)
        headers = [(b"content-type", media), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while item is not END:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            item = await items.next()
            body = b"" if item is END else piece(item)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await items.close()


def push_items(generator: Generator[Any, Any, Any], *, accept: str, call: HttpCall) -> None:
    """The same for a generator that runs in this thread, which sends by itself, and waits where the client is slow.

    Raises:
        EncodeError, Exception: as above.
        WindowClosed: nobody waits for the rest.
    """
    try:
        item = next(generator, END)
        media, piece = _form(item, accept)
        body = b"" if item is END else piece(item)
        call.begin(200, [(b"content-type", media), (b"cache-control", b"no-cache")])
        while item is not END:
            call.push(body)
            item = next(generator, END)
            body = b"" if item is END else piece(item)
        call.finish()
    finally:
        generator.close()


def _form(first: Any, accept: str) -> tuple[bytes, Callable[[Any], bytes]]:
    """The content type, and how an item becomes bytes; the first item decides for all."""
    if isinstance(first, _BINARY):
        return b"application/octet-stream", _raw
    if isinstance(first, str):
        return b"text/plain; charset=utf-8", _raw
    if "text/event-stream" in accept.lower():
        return b"text/event-stream", _event
    return b"application/x-ndjson", _line


def _raw(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode("utf-8", "replace")
    if isinstance(item, _BINARY):
        return bytes(item)
    raise EncodeError("chunk", f"object of type {type(item).__name__} in a stream that began with text or bytes")


def _event(item: Any) -> bytes:
    return b"data: " + dumps(item, root="chunk") + b"\n\n"


def _line(item: Any) -> bytes:
    return dumps(item, root="chunk") + b"\n"
