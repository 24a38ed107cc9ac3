from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from flashfw.worker.frames import WINDOW_BYTES, Kind
from tests.worker.harness import Worker, endpoint, job, write

ALL = """
    import asyncio, os, subprocess, sys, threading
    from datetime import timezone
    import flashfw
    from flashfw import Job, injected

    def handler(n: int = 1):
        return {"n": n + 1, "thread": threading.current_thread().name}

    async def coroutine(n: int):
        await asyncio.sleep(0)
        return n

    def items(n: int):
        for index in range(n):
            yield {"index": index}

    def counted(n: int):
        yield from range(n)
        return "done"

    async def streamed(n: int):
        for index in range(n):
            yield index

    def returned():
        return (n for n in range(3))

    def raises():
        return inner()

    def inner():
        raise ValueError("token is s3cret-token")

    def odd():
        return {"items": [1, object()]}

    def odd_item():
        yield 1
        yield object()

    def refuses():
        raise flashfw.HTTPError(409, "taken", {"x-a": "1"})

    def leaves():
        sys.exit(4)

    def stops():
        raise StopIteration(3)

    async def gives_up():
        raise asyncio.CancelledError

    def broken():
        raise flashfw.WorkerBroken("no more")

    def about(job: Job):
        return [job.id, job.attempt, job.deadline.timestamp(), job.deadline.tzinfo is timezone.utc, job.cancelled]

    def reports(job: Job):
        for n in range(2000):
            job.progress(step=n)
        while not job.cancelled:
            gate.wait(0.01)

    gate = threading.Event()

    def bad_report(job: Job):
        job.progress(object())

    def where():
        return [flashfw.environment, str(flashfw.volume("models"))]

    def no_volume():
        flashfw.volume("model")

    def large():
        for _ in range(40):
            yield "x" * 100_000

    async def large_async():
        for _ in range(40):
            yield "x" * 100_000

    def whole(input):
        return input

    def event(event):
        return event

    def later():
        import lib.late
        return lib.late.VALUE

    def interrupts():
        raise KeyboardInterrupt

    async def interrupts_async():
        raise KeyboardInterrupt

    class Untellable(Exception):
        detail = property(lambda self: 1 / 0)
        status_code = 500
        def __str__(self):
            raise ValueError

    def untellable():
        raise Untellable

    def chained():
        error = None
        for n in range(3000):
            try:
                raise ValueError(n) from error
            except ValueError as raised:
                error = raised
        raise error

    def recursive():
        return recursive()

    def holds_itself():
        value = []
        value.append(value)
        return {"value": value}

    def deep():
        value = []
        for _ in range(100_000):
            value = [value]
        return value

    def wide():
        return "x" * 30_000_000

    def too_wide():
        return b"x" * 80_000_000

    def own_loop():
        async def inner():
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
            return await process.wait()
        return asyncio.run(inner())

    def moves():
        os.chdir("/")
        sys.path[:] = []
        del sys.modules["endpoints.a.handler"]

    def after_moving():
        import lib.later_still
        return [os.getcwd(), lib.later_still.VALUE]

    def descriptors():
        def sockets(command):
            return subprocess.run(command, shell=True, close_fds=False, capture_output=True, text=True).stdout
        return sockets("ls -l /proc/self/fd").count("socket")

    def reads_stdin():
        return sys.stdin.read()
"""
NAMES = re.findall(r"^    (?:async )?def (\w+)\(", ALL, re.MULTILINE)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker at concurrency 1 with a function for each case."""
    root = write(
        tmp_path_factory.mktemp("jobs"),
        {"endpoints/a/handler.py": ALL, "lib/late.py": "VALUE = 7\n", "lib/later_still.py": "VALUE = 8\n"},
    )
    functions = [job(f"a/{name}", name, directory="a") for name in NAMES if name != "handler"]
    with Worker(
        root,
        endpoint(job("a"), *functions),
        env={"TOKEN": "s3cret-token"},
        secrets=("TOKEN",),
        volumes={"models": "/mnt/models"},
        fresh=True,
    ) as worker:
        worker.ready()
        yield worker
        assert worker.drain() == 0


def test_a_function_answers_from_the_one_user_thread(worker: Worker) -> None:
    answers = [json.loads(worker.result("a", b'{"n": %d}' % n)) for n in range(5)]
    assert [answer["n"] for answer in answers] == [1, 2, 3, 4, 5]
    assert {answer["thread"] for answer in answers} == {"flashfw-user-1"}


def test_many_calls_at_once_answer_each(worker: Worker) -> None:
    for function in ("a/coroutine", "a/whole"):
        calls = [worker.call(function, b'{"n": %d}' % n) for n in range(50)]
        assert all(worker.end(call).kind is Kind.RESULT for call in calls)


@pytest.mark.parametrize(
    ("function", "body", "output"),
    [
        ("a", b"{}", 2),
        ("a/coroutine", b'{"n": "3"}', 3),
        ("a/items", b'{"n": 2}', [{"index": 0}, {"index": 1}]),
        ("a/items", b'{"n": 0}', []),
        ("a/counted", b'{"n": 3}', "done"),
        ("a/streamed", b'{"n": 3}', [0, 1, 2]),
        ("a/returned", b"{}", [0, 1, 2]),
        ("a/whole", b"[1, 2]", [1, 2]),
        ("a/where", b"{}", ["test", "/mnt/models"]),
        ("a/own_loop", b"{}", 0),
        ("a/descriptors", b"{}", 0),
        ("a/reads_stdin", b"{}", ""),
    ],
)
def test_outputs(worker: Worker, function: str, body: bytes, output: object) -> None:
    answer = json.loads(worker.result(function, body))
    assert (answer["n"] if function == "a" else answer) == output


def test_an_event_is_what_runpod_passes(worker: Worker) -> None:
    call = worker.call("a/event", b'{"x": 1}', id="sync-1")
    assert json.loads(worker.end(call).body) == {"id": "sync-1", "input": {"x": 1}}


def test_chunks_come_in_order_before_the_result(worker: Worker) -> None:
    call = worker.call("a/items", b'{"n": 3}')
    frames = [worker.next(Kind.CHUNK, Kind.RESULT, call=call) for _ in range(4)]
    assert [frame.meta.get("index") for frame in frames] == [0, 1, 2, None]
    assert [frame.body for frame in frames[:3]] == [b'{"index":0}', b'{"index":1}', b'{"index":2}']


@pytest.mark.parametrize("function", ["a/large", "a/large_async"])
def test_a_generator_waits_for_credit(worker: Worker, function: str) -> None:
    call = worker.call(function)
    received = 0
    uncredited = 0
    while (frame := worker.next(Kind.CHUNK, Kind.RESULT, call=call)).kind is Kind.CHUNK:
        received += 1
        uncredited += len(frame.body)
        assert uncredited <= WINDOW_BYTES
        if uncredited > WINDOW_BYTES - len(frame.body):  # it can only go on with credit
            worker.send(Kind.CREDIT, call, {"bytes": uncredited})
            uncredited = 0
    assert received == 40


def test_an_error_tells_type_place_and_traceback_without_the_secret(worker: Worker) -> None:
    failure = worker.failure("a/raises")
    line = 1 + ALL.splitlines().index('        raise ValueError("token is s3cret-token")')
    assert failure["reason"] == "handler_error"
    assert failure["type"] == "ValueError"
    assert failure["message"] == "token is [redacted]"
    assert failure["place"] == f"endpoints/a/handler.py:{line}"
    assert "in raises" in failure["traceback"]
    assert "s3cret" not in failure["traceback"]
    assert "flashfw/worker" not in failure["traceback"]


@pytest.mark.parametrize(
    ("function", "body", "expected"),
    [
        ("a/coroutine", b'{"n": "x"}', {"reason": "validation", "status": 422}),
        ("a/coroutine", b"{}", {"reason": "validation"}),
        ("a/coroutine", b"{", {"reason": "validation"}),
        ("a/odd", b"{}", {"reason": "encode"}),
        ("a/odd_item", b"{}", {"reason": "encode"}),
        ("a/bad_report", b"{}", {"reason": "encode"}),
        ("a/refuses", b"{}", {"reason": "handler_error", "status": 409, "detail": "taken", "headers": {"x-a": "1"}}),
        ("a/leaves", b"{}", {"reason": "handler_error", "type": "SystemExit"}),
        ("a/stops", b"{}", {"reason": "handler_error", "type": "StopIteration"}),
        ("a/gives_up", b"{}", {"reason": "handler_error", "type": "CancelledError"}),
        ("a/interrupts", b"{}", {"reason": "handler_error", "type": "KeyboardInterrupt"}),
        ("a/interrupts_async", b"{}", {"reason": "handler_error", "type": "KeyboardInterrupt"}),
        ("a/untellable", b"{}", {"reason": "handler_error", "type": "Untellable"}),
        ("a/chained", b"{}", {"reason": "handler_error", "type": "ValueError"}),
        ("a/recursive", b"{}", {"reason": "handler_error", "type": "RecursionError"}),
        ("a/holds_itself", b"{}", {"reason": "encode"}),
        ("a/deep", b"{}", {"reason": "encode"}),
        ("a/too_wide", b"{}", {"reason": "too_large", "type": "OutputTooLarge"}),
        ("a/broken", b"{}", {"reason": "handler_error", "type": "WorkerBroken", "broken": True}),
        ("a/no_volume", b"{}", {"reason": "handler_error", "type": "UnknownVolumeError"}),
        ("a/nothing", b"{}", {"reason": "function_gone"}),
    ],
)
def test_failures(worker: Worker, function: str, body: bytes, expected: dict[str, object]) -> None:
    failure = worker.failure(function, body)
    assert {key: failure.get(key) for key in expected} == expected
    assert json.loads(worker.result("a"))["n"] == 2  # the worker goes on


def test_an_encode_failure_names_the_place_in_the_output(worker: Worker) -> None:
    assert "output.items[1]" in worker.failure("a/odd")["message"]
    assert "chunk[1]" in worker.failure("a/odd_item")["message"]


def test_a_job_knows_itself(worker: Worker) -> None:
    deadline = time.time() + 30
    call = worker.call("a/about", id="j-7", deadline=deadline)
    assert json.loads(worker.end(call).body) == ["j-7", 1, pytest.approx(deadline, abs=0.001), True, False]


def test_only_the_latest_progress_is_sent(worker: Worker) -> None:
    call = worker.call("a/reports")
    count = 0
    while True:
        frame = worker.next(Kind.PROGRESS, call=call)
        count += 1
        if json.loads(frame.body) == {"step": 1999}:
            break
    assert count < 500
    worker.send(Kind.CANCEL, call, {"reason": "cancelled"})
    assert worker.end(call).kind is Kind.GONE


def test_a_module_that_a_call_imports_is_told(worker: Worker) -> None:
    assert worker.result("a/later") == b"7"
    assert worker.next(Kind.LOADED).meta == {"files": ["lib/late.py"]}


def test_a_large_output_arrives_whole(worker: Worker) -> None:
    assert len(worker.result("a/wide")) == 30_000_002


def test_a_handler_may_change_directory_and_path(worker: Worker) -> None:
    worker.result("a/moves")
    assert json.loads(worker.result("a/after_moving")) == ["/", 8]
