"""Everything that user code writes becomes LOG frames, whole lines, with the id of the job that wrote them.

`sys.stdout` and `sys.stderr` are replaced, and so are the descriptors 1 and 2 beneath them, for what C code
and child processes write. Output that the link does not take in time is counted and dropped: memory stays bounded.
"""

from __future__ import annotations

import codecs
import faulthandler
import io
import logging
import os
import select
import sys
import threading
import time
from contextvars import ContextVar
from typing import Any, NamedTuple

from flashfw.worker.failure import Redaction
from flashfw.worker.frames import Kind, pack
from flashfw.worker.link import Link

current_job: ContextVar[str | None] = ContextVar("flashfw_job", default=None)
"""The id of the job that this context works for."""

SEND_SIZE = 1 << 14
FRAME_SIZE = 1 << 16
"""What one frame holds at most, in characters; a longer line is cut."""
DELAY_S = 0.02
REDRAWN_S = 1.0
"""How often a line that is drawn anew by carriage returns, such as a progress bar, is sent before it ends."""
_WAIT_S = 2.0
_DESCRIPTORS = {"stdout": 1, "stderr": 2}
_READ_BYTES = 1 << 16


class _Source(NamedTuple):
    stream: str
    job: str | None


class _Lines:
    """What one job wrote to one stream and is not sent yet."""

    __slots__ = ("dropped", "parts", "shown_at", "size")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0
        self.dropped = 0
        self.shown_at = 0.0


class Capture:
    """Collects output and sends it; `install` begins, `flush` sends what a job wrote before its call ends."""

    def __init__(self, link: Link, redact: Redaction) -> None:
        self._link = link
        self._redact = redact
        self._lock = threading.RLock()
        self._lines: dict[_Source, _Lines] = {}
        self._running: dict[int, str] = {}
        self._pipes: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
        self._pipe_lock = threading.RLock()
        self._unread = select.poll()
        self._peek = select.poll()  # one poll object serves one thread at a time
        self._due = threading.Event()
        self._forked = False
        self.original_stderr = 2

    def install(self) -> None:
        """Takes over stdout, stderr, their descriptors, and logging that nobody else handles."""
        os.register_at_fork(after_in_child=self._mark_forked)
        self.original_stderr = os.dup(2)
        faulthandler.enable(self.original_stderr)
        for stream, descriptor in _DESCRIPTORS.items():
            self._take_over(descriptor, stream)
            setattr(sys, stream, _Stream(self, stream, descriptor))
        logging.lastResort = _Handler(self)
        logging.getLogger().setLevel(logging.INFO)
        threading.Thread(target=self._watch, name="flashfw-output", daemon=True).start()
        threading.Thread(target=self._send_late, name="flashfw-log", daemon=True).start()

    def began(self, call: int, job: str) -> None:
        """A job runs: output of unknown origin is its own while it is the only one."""
        self._running[call] = job

    def ended(self, call: int, job: str) -> None:
        """Sends what the job wrote; to be called before the frame that ends its call."""
        with self._pipe_lock:  # also waits for what another thread has read of the pipes
            if self._peek.poll(0):
                self._read_pipes()
        self._running.pop(call, None)
        if self._lines:
            self.flush(job)

    def write(self, stream: str, text: str, job: str | None = None) -> None:
        """Takes text; whole lines are sent soon."""
        if self._forked:
            os.write(_DESCRIPTORS[stream], text.encode("utf-8", "backslashreplace"))
            return
        source = _Source(stream, job or current_job.get() or self._only_job())
        with self._lock:
            lines = self._lines.setdefault(source, _Lines())
            lines.parts.append(text)
            lines.size += len(text)
            if lines.size >= SEND_SIZE:
                self._send(source, lines, all_of_it=False)
        self._due.set()

    def log(self, stream: str, text: str, *, level: str = "", job: str | None = None, wait_s: float = _WAIT_S) -> bool:
        """Sends whole lines at once; false if the link had no room for them."""
        if not self._link.room(wait_s):
            return False
        body = self._redact(text).encode("utf-8", "backslashreplace")
        self._link.send(Kind.LOG, 0, {"stream": stream, "job": job, "level": level}, body)
        return True

    def flush(self, job: str | None = None) -> None:
        """Sends everything that a job wrote, the last line even if it is not ended; of all jobs if None."""
        with self._lock:
            for source in [source for source in self._lines if job in (None, source.job)]:
                self._send(source, self._lines.pop(source), all_of_it=True)

    def close(self) -> None:
        """Sends all that is left; what is written later goes to the standard error that the process began with."""
        with self._pipe_lock:
            self._read_pipes()
        self.flush()
        for descriptor in _DESCRIPTORS.values():
            os.dup2(self.original_stderr, descriptor)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__

    def crash(self, text: str) -> None:
        """Says why the process ends now, after what was written before; waits for the link for a second at most."""
        text = self._redact(text)
        os.write(self.original_stderr, text.encode("utf-8", "backslashreplace"))
        if self._lock.acquire(timeout=_WAIT_S):
            self.flush()
        meta = {"stream": "log", "job": None, "level": "error"}
        self._link.last_words(pack(Kind.LOG, 0, meta, text.encode("utf-8", "backslashreplace")))

    def record(self, level: str, text: str) -> None:
        """One record of logging, in order with what its job printed."""
        if self._forked:
            self.write("stderr", text)
            return
        job = current_job.get() or self._only_job()
        with self._lock:
            for source, lines in self._lines.items():
                if source.job == job:
                    self._send(source, lines, all_of_it=False)
        self.log("log", text, level=level, job=job)

    def _send(self, source: _Source, lines: _Lines, *, all_of_it: bool) -> None:
        """With the lock held: sends whole lines, or all; keeps the rest."""
        text = "".join(lines.parts)
        cut = text.rfind("\n") + 1
        if all_of_it or len(text) - cut > FRAME_SIZE:
            cut = len(text)
        rest = text[cut:]
        lines.parts, lines.size = ([rest] if rest else []), len(rest)
        start = 0
        while start < cut:
            end = min(start + FRAME_SIZE, cut)
            if end < cut:
                end = text.rfind("\n", start, end) + 1 or end
            self._send_piece(source, lines, text[start:end])
            start = end

    def _send_piece(self, source: _Source, lines: _Lines, text: str) -> None:
        if lines.dropped:
            text = f"[{lines.dropped} characters of output dropped: the reader is too slow]\n{text}"
        if self.log(source.stream, text, job=source.job, wait_s=0.0 if lines.dropped else _WAIT_S):
            lines.dropped = 0
        else:
            lines.dropped += len(text)

    def _mark_forked(self) -> None:
        """In a child that user code forked: it has no link, so it writes to the pipes that its parent reads."""
        self._forked = True

    def _only_job(self) -> str | None:
        running = list(self._running.values())
        return running[0] if len(running) == 1 else None

    def _take_over(self, descriptor: int, stream: str) -> None:
        out, into = os.pipe()
        os.set_blocking(out, False)
        os.dup2(into, descriptor)
        os.close(into)
        self._pipes[out] = (stream, codecs.getincrementaldecoder("utf-8")("replace"))
        self._unread.register(out, select.POLLIN)
        self._peek.register(out, select.POLLIN)

    def _watch(self) -> None:
        while True:
            self._unread.poll()
            self._read_pipes()

    def _read_pipes(self) -> None:
        with self._pipe_lock:
            for out, (stream, decoder) in list(self._pipes.items()):
                while data := _read(out):
                    self.write(stream, decoder.decode(data))
                if data is not None:  # user code closed the descriptor: poll would never wait again
                    self._unread.unregister(out)
                    self._peek.unregister(out)
                    del self._pipes[out]

    def _send_late(self) -> None:
        while self._due.wait():
            time.sleep(DELAY_S)
            self._due.clear()
            with self._lock:
                for source, lines in list(self._lines.items()):
                    self._send(source, lines, all_of_it=False)
                    self._send_redrawn(source, lines)
                    if not lines.parts and not lines.shown_at:
                        del self._lines[source]

    def _send_redrawn(self, source: _Source, lines: _Lines) -> None:
        """With the lock held: of an unended line that was drawn anew, what it shows now."""
        text = "".join(lines.parts)
        _, redrawn, shown = text.rstrip("\r").rpartition("\r")
        now = time.monotonic()
        if redrawn and now - lines.shown_at >= REDRAWN_S:
            lines.shown_at = now
            lines.parts, lines.size = [], 0
            self._send_piece(source, lines, f"{shown}\n")


def _read(descriptor: int) -> bytes | None:
    """What is there to read: nothing at the end of the pipe, None while it is only empty."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes to the same lines."""

    def __init__(self, capture: Capture, stream: str, descriptor: int) -> None:
        self._capture = capture
        self._stream = stream
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._capture.write(self._stream, self._decoder.decode(raw))
        return len(raw)


class _Stream(io.TextIOBase):
    """A text stream whose lines become LOG frames. `fileno` is that of the descriptor it stands for."""

    def __init__(self, capture: Capture, stream: str, descriptor: int) -> None:
        self._capture = capture
        self._stream = stream
        self._descriptor = descriptor
        self.buffer = _Bytes(capture, stream, descriptor)

    @property
    def name(self) -> str:
        return f"<{self._stream}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._capture.write(self._stream, text)
        return len(text)

    def reconfigure(self, **_: Any) -> None:
        """Encoding and buffering are not the user's to choose here; libraries that ask go on."""


class _Handler(logging.Handler):
    """Stands in for `logging.lastResort`: what no handler of the user's takes keeps its level."""

    def __init__(self, capture: Capture) -> None:
        super().__init__(logging.NOTSET)
        self._capture = capture

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._capture.record(record.levelname.lower(), f"{record.name}: {self.format(record)}\n")
        except Exception:
            self.handleError(record)
