"""One HTTP request on a worker: what came back and was not read yet, and how much may still be sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import anyio

from flashfw.cluster.clock import Clock
from flashfw.cluster.workers.worker import Worker
from flashfw.worker.frames import WINDOW_BYTES, Frame, FrameError, Kind
from flashfw.worker.http_frames import ResponseHead, read_response


class NothingCame(Exception):
    """The worker sent nothing for as long as it may take."""


class Outdated(Exception):
    """The call has run on old code for long enough."""


class Exchange:
    """One request on a worker. Lives from its REQUEST to the end of the call, which may be after its client left.

    `head` is that of the response, once its HEAD has come.
    """

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self.worker = worker
        self.number = 0
        self.lost: str | None = None
        self.ended = False
        self.head: ResponseHead | None = None
        self._clock = clock
        self._failed: Exception | None = None
        self._is_cancelled = False
        self._late_s: float | None = None
        self._frames: deque[Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._credit = WINDOW_BYTES
        self._credited = anyio.Event()

    def on_frame(self, frame: Frame) -> bool:
        """Take a frame of this call; True when it was the last one.

        Raises:
            FrameError: it is none that a worker may send.
        """
        if frame.kind is Kind.CREDIT:
            self._credit += frame.meta["bytes"]
            self._credited.set()
            return False
        if frame.kind is Kind.HEAD:
            self._begin(read_response(frame.head))
        else:
            self.ended = frame.kind in (Kind.FAILURE, Kind.GONE) or bool(frame.meta.get("end"))
        self._frames.append(frame)
        if self.ended:
            self._credited.set()
        self._wake()
        return self.ended

    def on_lost(self, why: str) -> None:
        self.lost = why
        self.ended = True
        self._credited.set()
        self._wake()

    def on_outdated(self, after_s: float) -> None:
        """A stream or a WebSocket may go on for ever, and is cut. What has not begun has its timeout to do so; should
        it be a stream then, it gets as long as the others had.
        """
        self._late_s = after_s
        if self.head is not None:
            self.fail(Outdated())

    async def next(self, timeout_s: float | None) -> Frame | None:
        """The next frame in order, None once the worker is lost. Without a timeout it waits for as long as it takes.

        Raises:
            NothingCame: none in time.
            Refused, ClientGone, Outdated: the request itself went wrong meanwhile.
        """
        while True:
            if self._failed is not None:
                raise self._failed
            if self._frames:
                return self._frames.popleft()
            if self.lost is not None:
                return None
            await self._news(timeout_s)

    async def send_piece(self, body: bytes, *, end: bool) -> None:
        """A further piece of the request's body, once the worker has room for it."""
        await self.send_data({"end": end}, body, len(body))

    async def send_data(self, meta: dict[str, Any], body: bytes | memoryview, cost: int) -> None:
        """A piece of what the client sends, once the worker has room; `cost` is what it takes of that."""
        while self._credit <= 0 and not self.ended:
            self._credited = anyio.Event()
            await self._credited.wait()
        self._credit -= cost
        if not self.ended:
            self.worker.send(Kind.DATA, self.number, meta, body)

    def fail(self, error: Exception) -> None:
        """The client left, or its request cannot be sent on: whoever waits for the response gets this error."""
        self._failed = self._failed or error
        self._wake()

    def cancel(self, reason: str) -> None:
        """Ask the worker to stop, once; its slot is free when it says that it did."""
        if not self.ended and not self._is_cancelled:
            self._is_cancelled = True
            self.worker.send(Kind.CANCEL, self.number, {"reason": reason})

    def _begin(self, head: ResponseHead) -> None:
        if self.head is not None:
            raise FrameError("a second head of one response")
        self.head = head
        self.ended = head.end
        if self._late_s is not None and not self.ended:
            self._clock.call_later(self._late_s, self._outlast)

    def _outlast(self) -> None:
        if not self.ended:
            self.fail(Outdated())

    async def _news(self, timeout_s: float | None) -> None:
        # A bare future: this is on the way of every request, and `wait_for` costs more than all the rest of it.
        self._waiter = asyncio.get_running_loop().create_future()
        timer = None if timeout_s is None else self._clock.call_later(timeout_s, lambda: self.fail(NothingCame()))
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
