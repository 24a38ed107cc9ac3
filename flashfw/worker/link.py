"""The worker's end of the link: one socket, a thread that reads it and beats, and sends from any thread.

A send never waits: what the socket does not take is kept and written by the link's thread. Those who
produce much (captured output) ask `room` first, so that memory stays bounded.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from flashfw.worker.frames import Frame, Frames, Kind, pack

BEAT_S = 1.0
LATEST_S = 0.02
"""How often at most the progress of a job is sent."""
KEPT_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_CLOSE_S = 5.0
_ENDS = (Kind.RESULT, Kind.FAILURE, Kind.GONE)

_LAST_WORDS_S = 1.0

Receive = Callable[[list[Frame]], None]
Blocked = Callable[[], float]
Lost = Callable[["Exception | None"], None]


class Link:
    """A connected stream socket that carries frames. `start` begins reading; before it, `first` reads START."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        connection.set_inheritable(False)  # a child that user code starts would hold the link open
        self._socket = connection
        self._frames = Frames()
        self._early: list[Frame] = []
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._kept = bytearray()
        self._latest: dict[int, bytes] = {}
        self._latest_at = 0.0
        self._woken = False
        self._wake_out, self._wake_in = os.pipe()
        self._poll = select.poll()
        self._writing = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def first(self) -> Frame | None:
        """The first frame, waiting for it; None if the other side is gone."""
        while not self._early:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                return None
            self._early.extend(self._frames.feed(data))
        return self._early.pop(0)

    def start(self, receive: Receive, lost: Lost, blocked_s: Blocked) -> None:
        """Reads from now on, in a thread of its own.

        That thread calls `receive` with the frames of one read and sends a BEAT with what `blocked_s` tells each
        second. It ends with `lost(None)` when the other side is gone, and with `lost(error)` when it cannot go
        on: the other side sent what is no frame, or what `receive` does not take.
        """
        self._socket.setblocking(False)
        os.register_at_fork(after_in_child=self._let_go)
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wake_out, select.POLLIN)
        self._thread = threading.Thread(
            target=self._run, args=(receive, lost, blocked_s), name="flashfw-link", daemon=True
        )
        self._thread.start()

    def send(
        self, kind: Kind, call: int = 0, meta: Any = None, body: bytes | memoryview = b"", head: bytes = b""
    ) -> None:
        """Sends one frame, after all that were sent before. From any thread; never waits."""
        data = pack(kind, call, meta, body, head)
        with self._lock:
            if kind in _ENDS:
                self._latest.pop(call, None)
            self._write(data)

    def latest(self, call: int, body: bytes) -> None:
        """Sends the progress of a call soon; a later one before that, or the call's end, takes its place."""
        with self._lock:
            if self._socket.fileno() >= 0:
                self._latest[call] = body
                self._wake()

    def room(self, wait_s: float) -> bool:
        """Whether little enough is waiting to be written; waits up to `wait_s` for that."""
        with self._room:
            return self._room.wait_for(lambda: len(self._kept) < KEPT_BYTES, wait_s)

    def close(self) -> None:
        """Writes what is left, for at most five seconds, and ends the thread and the socket."""
        with self._room:
            self._room.wait_for(lambda: not self._kept, _CLOSE_S)
            self._closing = True
            self._wake()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._socket.close()

    def last_words(self, frame: bytes) -> None:
        """Writes this after all that is left, for at most a second, from a process that ends without `close`."""
        with self._lock:
            data, self._kept = bytes(self._kept) + frame, bytearray()
            try:
                self._socket.settimeout(_LAST_WORDS_S)
                self._socket.sendall(data)
            except OSError:  # nobody hears them, or not in time
                pass

    def _let_go(self) -> None:
        """In a child that user code forked: two writers would mix their frames, and it must not hold the link open."""
        self._lock = threading.Lock()  # another thread may have held it, and there is none here
        self._room = threading.Condition(self._lock)
        self._socket.close()

    def _write(self, data: bytes) -> None:
        """With the lock held."""
        if self._kept:
            self._kept += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the other side is gone: the reading thread ends this process
            return
        if sent < len(data):
            self._kept += memoryview(data)[sent:]
            self._wake()

    def _flush(self) -> None:
        """With the lock held."""
        while self._kept:
            try:
                sent = self._socket.send(self._kept[:_READ_BYTES])
            except BlockingIOError:
                break
            except OSError:
                self._kept.clear()
                break
            del self._kept[:sent]
        if len(self._kept) < KEPT_BYTES:
            self._room.notify_all()

    def _wake(self) -> None:
        """With the lock held."""
        if not self._woken:
            self._woken = True
            os.write(self._wake_in, b"\0")

    def _run(self, receive: Receive, lost: Lost, blocked_s: Blocked) -> None:
        try:
            self._serve(receive, blocked_s)
        except Exception as error:  # a silent end of this thread would leave a worker that only looks alive
            lost(error)
        else:
            if not self._closing:
                lost(None)

    def _serve(self, receive: Receive, blocked_s: Blocked) -> None:
        """Until the end of the stream, or `close`."""
        next_beat = time.monotonic() + BEAT_S
        if self._early:
            receive(self._early)
        alive = True
        while alive and not self._closing:
            now = time.monotonic()
            if now >= next_beat:
                self.send(Kind.BEAT, meta={"blocked_s": round(blocked_s(), 3)})
                next_beat = now + BEAT_S
            alive = self._turn(self._wait_s(now, next_beat), receive)

    def _wait_s(self, now: float, next_beat: float) -> float:
        with self._lock:
            wait = next_beat - now
            if self._latest:
                wait = min(wait, self._latest_at + LATEST_S - now)
            if self._writing != bool(self._kept):
                self._writing = bool(self._kept)
                self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._writing else 0))
        return max(wait, 0.0)

    def _turn(self, wait_s: float, receive: Receive) -> bool:
        """Waits, writes what is due and reads what came; false at the end of the stream."""
        ready = self._poll.poll(wait_s * 1000)
        alive = True
        for file, events in ready:
            if file == self._wake_out:
                with self._lock:
                    os.read(self._wake_out, 64)
                    self._woken = False
            elif events & ~select.POLLOUT:
                alive = self._read(receive)
        with self._lock:
            self._flush()
            self._send_latest()
        return alive

    def _send_latest(self) -> None:
        """With the lock held."""
        now = time.monotonic()
        if self._latest and now >= self._latest_at + LATEST_S:
            latest, self._latest = self._latest, {}
            self._latest_at = now
            for call, body in latest.items():
                self._write(pack(Kind.PROGRESS, call, None, body))

    def _read(self, receive: Receive) -> bool:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if frames := list(self._frames.feed(data)):
            receive(frames)
        return bool(data)
