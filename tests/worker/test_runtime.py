from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flashfw.worker.capture import Capture
from flashfw.worker.failure import Failures, Redaction
from flashfw.worker.frames import Kind, pack
from flashfw.worker.link import Link
from flashfw.worker.runtime import Heartbeat, Runtime
from flashfw.worker.threads import Threads
from tests.worker.harness import WAIT_S, Worker, endpoint, job, write

HANDLER = """
    import asyncio, os, subprocess, sys, threading, time
    from pathlib import Path
    import flashfw
    from flashfw import Job

    gate = threading.Event()

    def handler():
        gate.set()
        return "ok"

    def progresses(job: Job):
        print("started", flush=True)
        try:
            while True:
                job.progress(1)
        except flashfw.Cancelled:
            Path("progresses").touch()
            raise

    def stubborn(job: Job):
        job.progress("started")
        while not Path("let-go").exists():
            time.sleep(0.005)
        return job.cancelled

    def yields(job: Job):
        try:
            while True:
                yield 1
        except flashfw.Cancelled:
            Path("yields").touch()
            raise

    async def yields_async(job: Job):
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            Path("yields_async").touch()

    async def waits(job: Job):
        job.progress("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            Path("waits").write_text(str(job.cancelled))
            raise

    async def answers():
        return "answered"

    def answers_in_thread():
        return "answered"

    async def blocks():
        while not Path("let-go").exists():
            time.sleep(0.005)

    def child():
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid
"""


def functions() -> list[str]:
    return [
        "progresses",
        "stubborn",
        "yields",
        "yields_async",
        "waits",
        "answers",
        "answers_in_thread",
        "blocks",
        "child",
    ]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Worker]]:
    """Starts a worker of the handler above, by its concurrency."""
    write(tmp_path, {"endpoints/a/handler.py": HANDLER})
    started: list[Worker] = []

    def begin(concurrency: int = 1) -> Worker:
        found = [job(f"a/{name}", name, directory="a") for name in functions()]
        worker = Worker(tmp_path, endpoint(job("a"), *found, concurrency=concurrency))
        started.append(worker)
        worker.ready()
        return worker

    yield begin
    for worker in started:
        worker.__exit__()


def test_cancel_ends_each_kind_of_call(start: Callable[[int], Worker], tmp_path: Path) -> None:
    worker = start(1)
    for name, first in {"progresses": Kind.PROGRESS, "yields": Kind.CHUNK, "yields_async": Kind.CHUNK}.items():
        call = worker.call(f"a/{name}")
        worker.next(first, call=call)
        worker.send(Kind.CANCEL, call, {"reason": "cancelled"})
        assert worker.end(call).kind is Kind.GONE
        assert (tmp_path / name).exists(), name
    call = worker.call("a/waits")
    worker.next(Kind.PROGRESS, call=call)
    worker.send(Kind.CANCEL, call, {"reason": "timeout"})
    assert worker.end(call).kind is Kind.GONE
    assert (tmp_path / "waits").read_text() == "True"


def test_a_call_is_gone_only_when_it_really_ended(start: Callable[[int], Worker], tmp_path: Path) -> None:
    worker = start(1)
    running, waiting = worker.call("a/stubborn"), worker.call("a")
    worker.next(Kind.PROGRESS, call=running)
    for call in (running, waiting):
        worker.send(Kind.CANCEL, call, {"reason": "timeout"})
    worker.send(Kind.CANCEL, asked := worker.call("a/waits"), {"reason": "cancelled"})
    worker.end(asked)  # all that was sent before has had its effect
    assert not [frame for frame in worker.frames if frame.kind is Kind.GONE]
    (tmp_path / "let-go").touch()
    assert worker.end(running).kind is Kind.GONE
    assert worker.end(waiting).kind is Kind.GONE  # it was never begun


def test_drain_finishes_what_runs(start: Callable[[int], Worker], tmp_path: Path) -> None:
    worker = start(1)
    call = worker.call("a/stubborn")
    worker.next(Kind.PROGRESS, call=call)
    worker.send(Kind.DRAIN)
    (tmp_path / "let-go").touch()
    assert worker.end(call).body == b"false"
    assert worker.exit_code() == 0


def test_sync_calls_run_beside_each_other_above_concurrency_one(start: Callable[[int], Worker], tmp_path: Path) -> None:
    worker = start(3)
    held = [worker.call("a/stubborn") for _ in range(2)]
    assert json.loads(worker.result("a")) == "ok"
    (tmp_path / "let-go").touch()
    assert [worker.end(call).body for call in held] == [b"false", b"false"]


def test_a_blocked_loop_beats_on(start: Callable[[int], Worker], tmp_path: Path) -> None:
    worker = start(1)
    call = worker.call("a/blocks")
    while worker.next(Kind.BEAT).meta["blocked_s"] == 0:
        pass
    (tmp_path / "let-go").touch()
    assert worker.end(call).kind is Kind.RESULT


def test_a_blocked_loop_holds_up_no_answer_no_cancel_and_no_thread(
    start: Callable[[int], Worker], tmp_path: Path
) -> None:
    worker = start(5)
    frames = [_call(number, name) for number, name in [(1, "answers"), (2, "blocks"), (3, "progresses")]]
    worker._socket.sendall(b"".join(frames))  # in one turn of the loop
    assert worker.end(1).kind is Kind.RESULT
    worker.next(Kind.PROGRESS, call=3)
    worker.send(Kind.CANCEL, 3, {"reason": "cancelled"})
    assert worker.end(3).kind is Kind.GONE
    worker._socket.sendall(_call(4, "answers_in_thread"))
    assert worker.end(4).kind is Kind.RESULT
    worker._socket.sendall(_call(5, "answers"))
    worker.send(Kind.DRAIN)
    (tmp_path / "let-go").touch()
    assert [worker.end(number).kind for number in (2, 5)] == [Kind.RESULT] * 2
    assert worker.exit_code() == 0


def _call(number: int, name: str) -> bytes:
    meta = {"function": f"a/{name}", "id": f"j{number}", "attempt": 1, "deadline": time.time() + 600}
    return pack(Kind.CALL, number, meta, b"{}")


def test_who_blocks_the_loop_is_told_and_again_later(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT_S)
    link, failures = Link(ours), Failures(tmp_path, Redaction(()))
    now = [100.0]
    runtime = Runtime(link, Capture(link, Redaction(())), failures, Threads(1), tmp_path, clock=lambda: now[0])
    blocking, go_on = threading.Event(), threading.Event()

    async def block() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("a/blocks")
        runtime.heartbeat.watch(asyncio.get_running_loop())
        blocking.set()
        go_on.wait(WAIT_S)

    thread = threading.Thread(target=asyncio.run, args=(block(),))
    thread.start()
    assert blocking.wait(WAIT_S)
    told = []
    for now[0] in (100.0, 102.0, 104.0, 105.0, 112.5):
        runtime.blocked_s()
        if select.select([theirs], [], [], 0)[0]:
            told.append(theirs.recv(1 << 16).partition(b"a/blocks")[2])
    go_on.set()
    thread.join(WAIT_S)
    theirs.close()
    link.close()

    expected = b" blocked its loop for %d s: use def, or await what takes long\n"
    assert told == [expected % 4, expected % 12]


def test_nothing_stays_behind_when_the_gateway_is_gone(start: Callable[[int], Worker]) -> None:
    worker = start(1)
    child = json.loads(worker.result("a/child"))
    worker.hang_up()
    assert worker.process.wait(WAIT_S) == -9
    deadline = time.monotonic() + WAIT_S
    while _runs(child):
        assert time.monotonic() < deadline, "the child of the worker is still there"


def test_a_loop_that_does_not_exist_is_not_blocked() -> None:
    heartbeat = Heartbeat(time.monotonic)
    assert heartbeat.blocked_s() == 0
    assert heartbeat.running() == ""


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    except ProcessLookupError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
