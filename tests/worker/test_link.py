from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from queue import Queue

import anyio
import pytest

from flashfw.worker.frames import BEAT_S, Frame, FrameError, Frames, Kind, pack
from flashfw.worker.link import KEPT_BYTES, Link

WAIT_S = 10.0


@dataclass
class Peer:
    """Both ends of a link: what the worker's end received, and the gateway's socket."""

    link: Link
    socket: socket.socket
    received: Queue[Frame] = field(default_factory=Queue)
    lost: Queue[Exception | None] = field(default_factory=Queue)
    reader: Frames = field(default_factory=Frames)
    frames: list[Frame] = field(default_factory=list)

    def start(self, blocked_s: float = 0.0) -> None:
        self.link.start(self.receive, self.lost.put, lambda: blocked_s)

    def receive(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind is Kind.CALL and not frame.meta:
                raise KeyError("function")
            self.received.put(frame)

    def next(self, kind: Kind) -> Frame:
        while True:
            for index, frame in enumerate(self.frames):
                if frame.kind is kind:
                    return self.frames.pop(index)
            self.frames.extend(self.reader.feed(self.socket.recv(1 << 16)))


@pytest.fixture
def peer() -> Iterator[Peer]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT_S)
    peer = Peer(Link(ours), theirs)
    yield peer
    theirs.close()
    peer.link.close()


def test_what_comes_with_the_first_frame_is_not_lost(peer: Peer) -> None:
    peer.socket.sendall(pack(Kind.START, 0, {"a": 1}) + pack(Kind.CALL, 1, {"n": 1}, b"x") + pack(Kind.DRAIN)[:5])
    first = peer.link.first()
    assert first is not None
    assert (first.kind, first.meta) == (Kind.START, {"a": 1})
    peer.start()
    assert peer.received.get(timeout=WAIT_S).body == b"x"
    peer.socket.sendall(pack(Kind.DRAIN)[5:])
    assert peer.received.get(timeout=WAIT_S).kind is Kind.DRAIN


def test_a_gateway_that_never_starts_it(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.link.first() is None


def test_frames_of_many_threads_arrive_whole(peer: Peer) -> None:
    peer.start()
    threads = [
        threading.Thread(target=lambda n=n: [peer.link.send(Kind.RESULT, n, None, b"x" * 5000) for _ in range(200)])  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    calls = [peer.next(Kind.RESULT).call for _ in range(800)]
    assert {call: calls.count(call) for call in set(calls)} == {0: 200, 1: 200, 2: 200, 3: 200}


def test_a_send_does_not_wait_and_room_tells(peer: Peer) -> None:
    peer.start()
    assert peer.link.room(0)
    for _ in range(3):
        peer.link.send(Kind.RESULT, 1, None, b"x" * KEPT_BYTES)  # nobody reads
    assert not peer.link.room(0)
    assert [len(peer.next(Kind.RESULT).body) for _ in range(3)] == [KEPT_BYTES] * 3
    assert peer.link.room(WAIT_S)


@pytest.mark.parametrize("size", [100_000, 5 * KEPT_BYTES])
def test_large_bodies_arrive_whole_and_in_order(peer: Peer, size: int) -> None:
    peer.start()
    body = bytes(range(256)) * (size // 256)
    for n in range(3):
        peer.link.send(Kind.CHUNK, n, {"index": n}, memoryview(body))
        peer.link.send(Kind.CHUNK, n, {"index": n}, b"x")
    for n in range(3):
        assert [peer.next(Kind.CHUNK)[1:4] for _ in range(2)] == [(n, {"index": n}, body), (n, {"index": n}, b"x")]


def test_it_beats_while_nobody_reads_or_sends(peer: Peer) -> None:
    peer.start(blocked_s=1.23456)
    assert peer.next(Kind.BEAT).meta == {"blocked_s": 1.235}


def test_every_other_beat_is_left_out_while_nothing_is_to_do_and_the_one_before_says_so(peer: Peer) -> None:
    may_rest = False
    for is_idle, blocked_s in ((True, 0.0), (True, 0.0), (True, 0.0), (False, 0.0), (True, 2.0), (True, 0.0)):
        peer.link.is_idle = lambda is_idle=is_idle: is_idle  # type: ignore[misc]
        may_rest = peer.link._beat(blocked_s, may_rest)
    peer.start()

    later, busy, blocked = {"blocked_s": 0.0, "next_s": 2 * BEAT_S}, {"blocked_s": 0.0}, {"blocked_s": 2.0}
    assert [peer.next(Kind.BEAT).meta for _ in range(5)] == [later, later, busy, blocked, later]


def test_the_latest_progress_wins_and_never_follows_the_end(peer: Peer) -> None:
    peer.start()
    for n in range(1000):
        peer.link.latest(7, b"%d" % n)
    peer.link.latest(8, b"of another call")
    peer.link.send(Kind.RESULT, 7, None, b"end")
    order: list[tuple[Kind, int]] = []
    while (Kind.PROGRESS, 8) not in order:
        order.extend((frame.kind, frame.call) for frame in peer.reader.feed(peer.socket.recv(1 << 16)))
    assert (Kind.PROGRESS, 7) not in order[order.index((Kind.RESULT, 7)) :]
    assert order.count((Kind.PROGRESS, 7)) < 100


def test_the_other_sides_end_is_a_loss_without_error(peer: Peer) -> None:
    peer.start()
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.lost.get(timeout=WAIT_S) is None


@pytest.mark.parametrize(("sent", "error"), [(b"\xff" * 64, FrameError), (pack(Kind.CALL, 1), KeyError)])
def test_what_cannot_be_read_or_taken_is_a_loss_with_its_error(peer: Peer, sent: bytes, error: type[Exception]) -> None:
    peer.start()
    peer.socket.sendall(sent)
    assert isinstance(peer.lost.get(timeout=WAIT_S), error)


def test_last_words_come_after_all_that_was_sent(peer: Peer) -> None:
    peer.start()
    peer.link.send(Kind.RESULT, 1, None, b"x" * 2 * KEPT_BYTES)  # more than the socket takes
    speaker = threading.Thread(target=peer.link.last_words, args=(pack(Kind.LOG, 0, None, b"end"),))
    speaker.start()
    assert len(peer.next(Kind.RESULT).body) == 2 * KEPT_BYTES
    assert peer.next(Kind.LOG).body == b"end"
    speaker.join(WAIT_S)


def test_no_child_inherits_the_socket(peer: Peer) -> None:
    ours, theirs = socket.socketpair()
    ours.set_inheritable(True)  # as it is in a process that was started with it
    link = Link(ours)
    assert not ours.get_inheritable()
    theirs.close()
    link.close()


def test_close_writes_what_is_left(peer: Peer) -> None:
    peer.start()
    total = 4 * KEPT_BYTES
    peer.link.send(Kind.RESULT, 1, None, b"x" * total)
    closer = threading.Thread(target=peer.link.close)
    closer.start()
    assert len(peer.next(Kind.RESULT).body) == total
    closer.join(WAIT_S)
    assert not closer.is_alive()


def test_a_send_after_the_other_side_left_is_no_error(peer: Peer) -> None:
    peer.start()
    peer.socket.close()
    assert peer.lost.get(timeout=WAIT_S) is None
    for _ in range(3):
        peer.link.send(Kind.RESULT, 1, None, b"x")


# On a loop


async def read_on_loop(peer: Peer, blocked_s: float = 0.0) -> None:
    peer.start(blocked_s)
    peer.link.read_on(asyncio.get_running_loop())


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - a turn of the loop is what it waits for
            await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_loop_reads_until_it_is_asked_no_more(peer: Peer) -> None:
    await read_on_loop(peer)
    here: list[int] = []
    peer.received.put = lambda frame: here.append(threading.get_ident())  # type: ignore[method-assign, assignment]
    while threading.get_ident() not in here:  # the thread may have been about to read
        sent = len(here) + 1
        peer.socket.sendall(pack(Kind.CALL, sent, {"n": 1}))
        await until(lambda: len(here) == sent)  # noqa: B023 - waited for in this turn
    peer.link.read_on(None)
    peer.socket.sendall(pack(Kind.CALL, 99, {"n": 1}))
    await until(lambda: len(here) > sent)
    assert here[-1] != threading.get_ident()


@pytest.mark.anyio
async def test_what_is_read_on_a_loop_inherits_no_variables(peer: Peer) -> None:
    mine: ContextVar[str] = ContextVar("mine", default="")
    mine.set("of whoever set the link up")
    await read_on_loop(peer)
    seen: list[str] = []
    peer.received.put = lambda frame: seen.append(mine.get())  # type: ignore[method-assign, assignment]
    peer.socket.sendall(pack(Kind.CALL, 1, {"n": 1}))
    await until(lambda: bool(seen))
    assert seen == [""]


@pytest.mark.anyio
async def test_the_thread_reads_while_the_loop_does_not_turn(peer: Peer) -> None:
    await read_on_loop(peer, blocked_s=5.0)
    peer.socket.sendall(b"".join(pack(Kind.CALL, n, {"n": 1}) for n in range(100)))
    assert [peer.received.get(timeout=WAIT_S).call for _ in range(100)] == [*range(100)]  # this blocks the loop
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.lost.get(timeout=WAIT_S) is None


@pytest.mark.anyio
async def test_the_end_is_noticed_at_once_though_the_loop_reads(peer: Peer) -> None:
    await read_on_loop(peer)
    peer.socket.close()
    assert peer.lost.get(timeout=WAIT_S) is None  # this blocks the loop


@pytest.mark.anyio
@pytest.mark.parametrize(("sent", "error"), [(b"\xff" * 64, FrameError), (pack(Kind.CALL, 1), KeyError)])
async def test_what_a_loop_cannot_read_is_a_loss_too(peer: Peer, sent: bytes, error: type[Exception]) -> None:
    await read_on_loop(peer)
    peer.socket.sendall(sent)
    await until(lambda: not peer.lost.empty())
    assert isinstance(peer.lost.get(), error)


@pytest.mark.anyio
async def test_what_one_turn_sends_leaves_together_and_in_order(peer: Peer) -> None:
    await read_on_loop(peer)
    peer.link.gathers = True
    for n in range(10):
        peer.link.send(Kind.RESULT, n, None, b"x")
    peer.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.socket.recv(1)
    await asyncio.sleep(0)
    assert [frame.call for frame in peer.reader.feed(peer.socket.recv(1 << 16))] == [*range(10)]


@pytest.mark.anyio
async def test_what_is_gathered_does_not_wait_for_a_turn_that_takes_long(peer: Peer) -> None:
    await read_on_loop(peer)
    peer.link.gathers = True
    for n in range(3):
        peer.link.send(Kind.RESULT, n, None, b"x")
        assert peer.next(Kind.RESULT).call == n  # this blocks the loop


@pytest.mark.anyio
async def test_other_threads_send_after_what_was_gathered(peer: Peer) -> None:
    await read_on_loop(peer)
    peer.link.gathers = True
    peer.link.send(Kind.CHUNK, 1, {"index": 0}, b"x")
    other = threading.Thread(target=peer.link.send, args=(Kind.RESULT, 1))
    other.start()
    other.join(WAIT_S)
    order: list[Kind] = []
    while len(order) < 2:
        order += [frame.kind for frame in peer.reader.feed(peer.socket.recv(1 << 16))]
    assert order == [Kind.CHUNK, Kind.RESULT]
