"""What is let go once the calls that began before have ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

Then = Callable[[], None]


class Leaving:
    """Things to let go of, each with the calls that may still use it. From any thread, where nothing else is said."""

    def __init__(self) -> None:
        self.is_empty = True
        """Asked for each call, so that nothing more is done while nothing is left."""
        self._lock = threading.Lock()
        self._unseen: list[Then] = []
        self._waiting: list[tuple[set[int], Then]] = []

    def add(self, then: Then) -> None:
        """Do `then` once every call that has begun by now has ended."""
        with self._lock:
            self._unseen.append(then)
            self.is_empty = False

    def look(self, calls: Collection[int]) -> None:
        """Note which calls are under way, while none is being begun."""
        with self._lock:
            under_way = list(calls)
            self._waiting += [(set(under_way), then) for then in self._unseen]
            self._unseen.clear()
            over = self._over()
        _do(over)

    def ended(self, number: int) -> None:
        """A call has ended, and is none of those under way any more."""
        with self._lock:
            for calls, _ in self._waiting:
                calls.discard(number)
            over = self._over()
        _do(over)

    def _over(self) -> list[Then]:
        over = [then for calls, then in self._waiting if not calls]
        self._waiting = [(calls, then) for calls, then in self._waiting if calls]
        self.is_empty = not (self._waiting or self._unseen)
        return over


def _do(over: list[Then]) -> None:
    for then in over:
        then()
