"""The worker's end of the link: one socket, who reads it, a thread that beats, and sends from any thread.

A worker that serves reads on its event loop, so that no call costs a change of threads; before and after, and for as
long as the loop does not turn, the link's thread reads, so that a handler that blocks never silences its worker.

A send never waits: what the socket does not take is kept and written by the link's thread. What one turn of the loop
sends for several calls leaves in one system call; should that turn take long, the thread sends it. Those who produce
much (captured output) ask `room` first, so that memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from flashfw.worker.frames import BEAT_S, Frame, Frames, Kind, pack, pack_before

LATEST_S = 0.02
"""How often at most the progress of a job is sent."""
KEPT_BYTES = 1 << 20
TAKEN_OVER_S = 0.5
"""How long the loop has not turned when the thread reads in its place; it is asked at each beat."""
GATHERED_S = 0.01
"""What is gathered and not sent after that long is in a turn of the loop that takes its time: the thread sends it."""
_WATCHED_S = 0.1
"""How long after something was gathered the thread looks again by itself, rather than being woken for each."""
_FULL_BYTES = 1 << 16
_READ_BYTES = 1 << 18
_CLOSE_S = 5.0
_ENDS = (Kind.RESULT, Kind.FAILURE, Kind.GONE)

_LAST_WORDS_S = 1.0
_HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)

Receive = Callable[[list[Frame]], "Callable[[], None] | None"]
Blocked = Callable[[], float]
Lost = Callable[["Exception | None"], None]


class Link:
    """A connected stream socket that carries frames. `start` begins reading; before it, `first` reads START.

    While it `gathers`, what the loop's thread sends waits for the end of the loop's turn. While it `is_idle` it beats
    every other second, and says so: hundreds of such workers would keep their server awake.
    """

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
        self._polled = select.POLLIN
        self._closing = False
        self._reading = threading.Lock()  # one reads at a time, until its frames are taken
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._is_blocked = False
        self._following: Callable[[], None] | None = None
        self.gathers = False
        self.is_idle: Callable[[], bool] = lambda: False
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._gathered_at = 0.0
        self._watched = False
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
        """Reads from now on, in a thread of its own until `read_on`.

        `receive` is called with the frames of one read, and what it returns is called next if the loop reads. The
        thread sends a BEAT with what `blocked_s` tells each second, and reads if that is long. It ends with
        `lost(None)` when the other side is gone, and with `lost(error)` when it cannot go on: the other side sent what
        is no frame, or what `receive` does not take.
        """
        self._socket.setblocking(False)
        self._receive, self._lost = receive, lost
        os.register_at_fork(after_in_child=self._let_go)
        self._poll.register(self._socket, self._polled)
        self._poll.register(self._wake_out, select.POLLIN)
        self._thread = threading.Thread(target=self._run, args=(blocked_s,), name="flashfw-link", daemon=True)
        self._thread.start()

    def read_on(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """The running loop reads from now on; with None the thread does again. To be called on the loop."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        with self._lock:
            self._write_gathered()
            self._loop, self._loop_thread = loop, threading.get_ident() if loop is not None else 0
            self._wake()
        if loop is not None:  # in an empty context: calls inherit no variables of whoever set this up
            contextvars.Context().run(loop.add_reader, self._socket, self._read_on_loop)

    def send(
        self, kind: Kind, call: int = 0, meta: Any = None, body: bytes | memoryview = b"", head: bytes = b""
    ) -> None:
        """Sends one frame, after all that were sent before. From any thread; never waits."""
        if len(body) > _FULL_BYTES:
            self._send_large(kind, call, pack_before(body, kind, call, meta, head), body)
            return
        data = pack(kind, call, meta, body, head)
        with self._lock:
            if self._latest and kind in _ENDS:
                self._latest.pop(call, None)
            if self.gathers and threading.get_ident() == self._loop_thread:
                self._gather(data)
            else:
                self._write_gathered()
                self._write(data)

    def _send_large(self, kind: Kind, call: int, before: bytes, body: bytes | memoryview) -> None:
        """The same without a copy of the body, but for what the socket does not take."""
        with self._lock:
            if kind in _ENDS:
                self._latest.pop(call, None)
            self._write_gathered()
            sent = 0
            if not self._kept:
                try:
                    sent = self._socket.sendmsg((before, body))
                except BlockingIOError:
                    pass
                except OSError:  # the other side is gone: the reading thread ends this process
                    return
            self._kept += before[sent:]
            self._kept += memoryview(body)[max(sent - len(before), 0) :]
            if self._kept:
                self._wake()

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
            self._write_gathered()
            self._room.wait_for(lambda: not self._kept, _CLOSE_S)
            self._closing = True
            self._wake()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._socket.close()

    def last_words(self, frame: bytes) -> None:
        """Writes this after all that is left, for at most a second, from a process that ends without `close`."""
        with self._lock:
            data, self._kept = b"".join((self._kept, *self._gathered, frame)), bytearray()
            self._gathered = []
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

    def _gather(self, data: bytes) -> None:
        """With the lock held, on the loop."""
        if not self._gathered:
            assert self._loop is not None
            self._loop.call_soon(self._flush_gathered)
            self._gathered_at = time.monotonic()
            if not self._watched:
                self._watched = True
                self._wake()
        self._gathered.append(data)
        self._gathered_size += len(data)
        if self._gathered_size >= _FULL_BYTES:
            self._write_gathered()

    def _flush_gathered(self) -> None:
        with self._lock:
            self._write_gathered()

    def _write_gathered(self) -> None:
        """With the lock held."""
        if self._gathered:
            data = b"".join(self._gathered)
            self._gathered, self._gathered_size = [], 0
            self._write(data)

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
                with memoryview(self._kept) as kept:
                    sent = self._socket.send(kept[:_READ_BYTES])
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

    def _run(self, blocked_s: Blocked) -> None:
        try:
            self._serve(blocked_s)
        except Exception as error:  # a silent end of this thread would leave a worker that only looks alive
            self._lost(error)
        else:
            if not self._closing:
                self._lost(None)

    def _serve(self, blocked_s: Blocked) -> None:
        """Until the end of the stream, or `close`."""
        next_beat, may_rest = time.monotonic() + BEAT_S, False
        if self._early:
            self._receive(self._early)
        alive = True
        while alive and not self._closing:
            now = time.monotonic()
            if now >= next_beat:
                blocked = blocked_s()
                self._is_blocked = blocked >= TAKEN_OVER_S
                may_rest = self._beat(blocked, may_rest)
                next_beat = now + BEAT_S
            alive = self._turn(self._wait_s(now, next_beat))

    def _beat(self, blocked_s: float, may_rest: bool) -> bool:
        """Beat, or leave out this one as the last one said; whether the next one may be left out."""
        is_idle = not blocked_s and self.is_idle()
        if is_idle and may_rest:
            return False
        meta = {"blocked_s": round(blocked_s, 3)}
        self.send(Kind.BEAT, meta={**meta, "next_s": 2 * BEAT_S} if is_idle else meta)
        return is_idle

    def _wait_s(self, now: float, next_beat: float) -> float:
        """How long the thread may wait, and for what; the end of the stream always wakes it."""
        with self._lock:
            wait = next_beat - now
            if self._latest:
                wait = min(wait, self._latest_at + LATEST_S - now)
            if self._watched:
                wait = min(wait, self._watch(now))
            polled = select.POLLIN if self._loop is None or self._is_blocked else _HUNG_UP
            if self._kept:
                polled |= select.POLLOUT
            if polled != self._polled:
                self._polled = polled
                self._poll.modify(self._socket, polled)
        return max(wait, 0.0)

    def _watch(self, now: float) -> float:
        """With the lock held: how long what is gathered, or may be soon, can be left to the loop."""
        due = self._gathered_at + GATHERED_S
        if self._gathered:
            return due - now
        self._watched = now < self._gathered_at + _WATCHED_S
        return GATHERED_S if self._watched else BEAT_S

    def _turn(self, wait_s: float) -> bool:
        """Waits, writes what is due and reads what came; false at the end of the stream."""
        ready = self._poll.poll(wait_s * 1000)
        alive = True
        for file, events in ready:
            if file == self._wake_out:
                with self._lock:
                    os.read(self._wake_out, 64)
                    self._woken = False
            elif events & select.POLLIN:
                with self._reading:
                    alive = self._read()
            elif events & _HUNG_UP:
                alive = False
        with self._lock:
            if self._gathered and time.monotonic() >= self._gathered_at + GATHERED_S:
                self._write_gathered()
            self._flush()
            self._send_latest()
        return alive

    def between_reads(self, look: Callable[[], None]) -> None:
        """Calls `look` while no frames are being taken. From any thread, but not from within `receive`."""
        with self._reading:
            look()

    def _send_latest(self) -> None:
        """With the lock held."""
        now = time.monotonic()
        if self._latest and now >= self._latest_at + LATEST_S:
            latest, self._latest = self._latest, {}
            self._latest_at = now
            self._write_gathered()
            for call, body in latest.items():
                self._write(pack(Kind.PROGRESS, call, None, body))

    def _read_on_loop(self) -> None:
        try:
            with self._reading:
                alive = self._read()
                following, self._following = self._following, None
        except Exception as error:  # the loop would only log it
            self._lost(error)
            return
        if not alive and self._loop is not None:
            self._loop.remove_reader(self._socket)  # the thread sees the end by itself
        if following is not None:  # code of the user's may run in there: others can read meanwhile
            following()

    def _read(self) -> bool:
        """Whether there may be more; with the right to read."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if frames := list(self._frames.feed(data)):
            self._following = self._receive(frames)
        return bool(data)
