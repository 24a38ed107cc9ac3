"""Callers that never stop, over connections that are new for each call or kept, and never try again."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.dev_process import wait_until

TIMEOUT_S = 120.0
PAUSE_S = 0.01
"""Between two calls of one caller: the machine has others to serve."""


@dataclass(frozen=True)
class Ask:
    """A request that a caller makes again and again."""

    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/json"


@dataclass
class Seen:
    """One answer's text: how often it came, when first and last (seconds since the load began)."""

    first_s: float
    last_s: float = 0.0
    count: int = 0


@dataclass
class Load:
    """What the callers have met so far."""

    began: float = field(default_factory=time.monotonic)
    statuses: Counter[int] = field(default_factory=Counter)
    answers: dict[tuple[str, str], Seen] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        return self.statuses.total()

    @property
    def texts(self) -> set[str]:
        return {text for _, text in self.answers}

    @property
    def failures(self) -> list[str]:
        """Whatever was no 200."""
        return [*self.errors, *(f"{count} x {status}" for status, count in self.statuses.items() if status != 200)]

    def after_more(self, calls: int = 40) -> None:
        """Wait until the callers had so many more answers, or one failed."""
        until = self.count + calls
        wait_until(lambda: self.count >= until or bool(self.failures), "callers are answered", deadline_s=120)

    def answered(self, ask: Ask, status: int, text: str, *, took_s: float) -> None:
        """Note one answer."""
        with self.lock:
            now_s = time.monotonic() - self.began
            self.statuses[status] += 1
            self.longest_s = max(self.longest_s, took_s)
            seen = self.answers.setdefault((ask.path, text if status == 200 else f"{status} {text}"), Seen(now_s))
            seen.count, seen.last_s = seen.count + 1, now_s


@contextmanager
def constant_load(
    url: str, key: str, asks: Sequence[Ask], *, each: int = 2, pause_s: float = PAUSE_S
) -> Iterator[Load]:
    """While the block runs: for each ask so many callers that keep their connection, and as many that do not."""
    load, stop = Load(), threading.Event()
    callers = [(ask, is_kept) for ask in asks for is_kept in (True, False) for _ in range(each)]
    with ThreadPoolExecutor(len(callers), thread_name_prefix="caller") as pool:
        called = [
            pool.submit(_caller, url, key, ask, load, stop, is_kept=is_kept, pause_s=pause_s)
            for ask, is_kept in callers
        ]
        try:
            yield load
        finally:
            stop.set()
    for one in called:
        one.result()


def _caller(url: str, key: str, ask: Ask, load: Load, stop: threading.Event, *, is_kept: bool, pause_s: float) -> None:
    address = urlsplit(url).netloc
    headers = {"authorization": f"Bearer {key}"}
    if ask.body is not None:
        headers["content-type"] = ask.content_type
    if not is_kept:
        headers["connection"] = "close"
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        while not stop.wait(pause_s):
            began = time.monotonic()
            try:
                connection.request(ask.method, ask.path, body=ask.body, headers=headers)
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                which = "kept" if is_kept else "new"
                load.errors.append(
                    f"{ask.path} over a {which} connection, {began - load.began:.2f} s: {type(error).__name__}: {error}"
                )
                connection.close()
                continue
            load.answered(ask, answer.status, text, took_s=time.monotonic() - began)
    finally:
        connection.close()
