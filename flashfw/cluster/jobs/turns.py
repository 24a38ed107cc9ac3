"""A store's writer that is spared the thread: what one turn of the loop writes is kept by the loop itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from flashfw.cluster.jobs.answer import Answer
from flashfw.cluster.jobs.lane import Call, Lane, Outcome
from flashfw.cluster.jobs.transactions import GroupCommit, read

T = TypeVar("T")

GROUP = 128
GROUP_BYTES = 1 << 18
"""Calls that share a transaction, and what they may bring for the loop to write it: bounds how long that is held."""

TURNS = 256
TURNS_BYTES = 1 << 23
"""Of so many transactions, or of those with so many bytes, two are the thread's and not the loop's: there a log that is
long is copied into the file."""


class _Asked(NamedTuple):
    call: Call
    answer: Answer[Any]
    size: int | None
    """How many bytes it brings; None if it is not small."""


class TurnWriter:
    """Does a store's writes in order, in groups: those of small ones on the loop, all others in a thread.

    To hand a write to a thread costs more than the write: two threads that are both at work take the interpreter from
    each other at every statement. So the loop does the statements, which change pages in memory, and the commit, which
    only with `waits_for_disk` is the thread's. What is not small, or has to wait for somebody, is the thread's from
    begin to end. What comes meanwhile is the next group.
    """

    def __init__(self, transaction: GroupCommit, *, waits_for_disk: bool, name: str) -> None:
        self._transaction = transaction
        self._waits_for_disk = waits_for_disk
        self._loop = asyncio.get_running_loop()
        self._lane = Lane(read, name=name)
        self._waiting: list[_Asked] = []
        self._is_due = False
        self._is_away = False
        self._turns = 0
        self._turns_bytes = 0
        self._ended: asyncio.Future[None] | None = None

    def call(self, do: Callable[..., T], *arguments: Any) -> Answer[T]:
        """Have `do(*arguments)` called, after all that was asked before, and answer once its transaction is kept."""
        return self._ask(Call(do, arguments), None)

    def call_small(self, do: Callable[..., T], *arguments: Any, size: int = 0) -> Answer[T]:
        """As `call`, for what writes a few rows, with `size` bytes of somebody else's, and reads none but of late."""
        return self._ask(Call(do, arguments), size)

    async def close(self) -> None:
        """Do what waits and end the thread. Nothing may be called afterwards."""
        if self._waiting or self._is_away:
            self._ended = self._loop.create_future()
            await asyncio.shield(self._ended)
        await self._lane.close()

    def _ask(self, call: Call, size: int | None) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self._waiting.append(_Asked(call, answer, size))
        self._look()
        return answer

    def _look(self) -> None:
        """The next group is what has come by the end of this turn of the loop, or while the one before is away."""
        if not (self._is_due or self._is_away):
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
        calls = [asked.call for asked in group]
        sizes = [asked.size for asked in group if asked.size is not None]
        is_small = len(sizes) == len(group) and sum(sizes) <= GROUP_BYTES
        try:
            outcomes = self._do_here(calls, sum(sizes)) if is_small else None
        except Exception as error:  # as in the thread: all of the group learn why, and the next one is done
            self._answer(group, [Outcome(error=error)] * len(group))
            return
        if outcomes is None:
            self._send_away(group, self._transaction, calls)
        elif self._waits_for_disk:
            self._send_away(group, self._commit, calls, outcomes)
        else:
            self._answer(group, outcomes)

    def _do_here(self, calls: Sequence[Call], size: int) -> Sequence[Outcome] | None:
        """What the calls return, kept but for a wait for the disk; None if they are the thread's."""
        if not self._waits_for_disk and self._is_for_thread(size):
            return None
        outcomes = self._transaction.prepare(calls)
        if outcomes is None or self._waits_for_disk:
            return outcomes
        return outcomes if self._transaction.commit(copies_log=False) else None

    def _is_for_thread(self, size: int) -> bool:
        if self._turns >= TURNS or self._turns_bytes >= TURNS_BYTES:
            self._turns = self._turns_bytes = 0
        self._turns += 1
        self._turns_bytes += size
        # The second, too: whoever is the first to write after a log was copied has to wait.
        return self._turns <= 2

    def _commit(self, calls: Sequence[Call], outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """In the thread: keep what the loop prepared, or do it again."""
        return outcomes if self._transaction.commit(copies_log=True) else self._transaction(calls)

    def _send_away(self, group: Sequence[_Asked], do: Callable[..., Sequence[Outcome]], *arguments: Any) -> None:
        def back(done: asyncio.Future[Sequence[Outcome]]) -> None:
            self._is_away = False
            error = done.exception()
            failed = [Outcome(error=error)] * len(group) if isinstance(error, Exception) else None
            self._answer(group, failed or done.result())

        self._is_away = True
        self._lane.call(do, *arguments).add_done_callback(back)

    def _answer(self, group: Sequence[_Asked], outcomes: Sequence[Outcome]) -> None:
        for asked, outcome in zip(group, outcomes, strict=True):
            asked.answer.settle(outcome)
        if self._waiting:  # after those who hear of it now, and may have more for the next group
            self._look()
        elif self._ended is not None:
            self._ended.set_result(None)
