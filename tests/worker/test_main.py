from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, http, job, write

UNMADE = "class handler:\n    def __init__(self): 1 / 0\n    def __call__(self): ...\n"


@pytest.mark.parametrize(
    ("source", "type_", "text", "place"),
    [
        ("1 / 0\n", "ZeroDivisionError", "division by zero", "endpoints/a/handler.py:1"),
        ("import sys\nsys.exit(2)\n", "SystemExit", "2", "endpoints/a/handler.py:2"),
        ("def handler(:\n", "SyntaxError", "invalid syntax", "endpoints/a/handler.py:1"),
        ("import not_there\n", "ModuleNotFoundError", "endpoint.toml", "endpoints/a/handler.py:1"),
        ("x = 1\n", "LoadError", "does not define 'handler'", "endpoints/a/handler.py:1"),
        ("def handler(x: 'Nope'): ...\n", "SignatureError", "Nope", "endpoints/a/handler.py:1"),
        ("\nclass handler:\n    def go(self): ...\n", "LoadError", "class handler has no '__call__'", "handler.py:1"),
        (UNMADE, "Zero", "division", "handler.py:2"),
    ],
)
def test_a_handler_that_cannot_be_loaded(tmp_path: Path, source: str, type_: str, text: str, place: str) -> None:
    write(tmp_path, {"endpoints/a/handler.py": source})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        failure = worker.next(Kind.BROKEN).meta
        assert failure["type"].startswith(type_)
        assert text in failure["message"]
        assert failure["place"].endswith(place)
        assert worker.exit_code() == 3


def test_a_module_to_preload_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "def handler(): ...\n"})
    with Worker(tmp_path, endpoint(job("a"), preload=("json", "not_there"))) as worker:
        assert "No module named 'not_there'" in worker.next(Kind.BROKEN).meta["message"]
        assert worker.exit_code() == 3


def test_what_was_printed_comes_before_broken(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "print('about to fail')\n1 / 0\n"})
    with Worker(tmp_path, endpoint(job("a")), fresh=True) as worker:
        worker.next(Kind.BROKEN)
        assert "about to fail\n" in worker.logs()


def test_describing_builds_nothing_and_reports_each_failure(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "endpoints/a/handler.py": """
                def handler(n: int, model) -> int:
                    "Adds one."
                    return n

                class Model:
                    def __init__(self, model): raise RuntimeError("made")
                    def __call__(self, x: str): ...
                    async def again(self): yield 1
                    def _hidden(self): ...
                    def close(self): ...

                def wrong(n: complex): ...
            """,
            "endpoints/a/fixtures.py": "def model(): raise RuntimeError('built')\n",
            "endpoints/a/bad/handler.py": "raise LookupError('on import')\n",
        },
    )
    functions = [
        job("a"),
        job("a::Model", "Model", directory="a"),
        job("a/bad"),
        job("a::wrong", "wrong", directory="a"),
    ]
    with Worker(
        tmp_path, endpoint(*functions, job("a::Model.again", "Model.again", directory="a")), describe=True
    ) as worker:
        described = worker.next(Kind.DESCRIBED).meta["functions"]
        assert worker.exit_code() == 0
    assert described["a"]["doc"] == "Adds one."
    assert described["a"]["input"]["properties"]["n"]["type"] == "integer"
    assert "model" not in json.dumps(described["a"])
    assert described["a::Model"]["methods"] == ["again"]
    assert described["a::Model.again"]["stream"] is True
    assert described["a/bad"]["error"]["message"] == "on import"
    assert described["a/bad"]["error"]["place"] == "endpoints/a/bad/handler.py:1"
    assert "error" in described["a::wrong"] or described["a::wrong"]["input"] is not None


def test_an_application_is_described_without_starting_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "endpoints/a/handler.py": "def app(model):\n    'My app.'\n    raise RuntimeError\n",
            "endpoints/fixtures.py": "def model(): ...\n",
        },
    )
    with Worker(tmp_path, endpoint(http("a", "*", route="/a", directory="a")), describe=True) as worker:
        described = worker.next(Kind.DESCRIBED).meta["functions"]["a"]
        assert "error" not in described, described
        assert described["doc"] == "My app."


def test_a_gateway_that_leaves_before_start_ends_the_process(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "import time\ntime.sleep(60)\n"})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        worker.next(Kind.BEAT)  # the import holds the main thread, not the link's
        worker.hang_up()
        assert worker.process.wait(10) == -9


def test_a_drain_during_start_ends_after_it(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "def handler(): ...\n"})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        worker.send(Kind.DRAIN)
        assert worker.exit_code() == 0


def test_a_call_that_it_cannot_take_ends_the_worker_aloud(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "def handler():\n    print('before', end='')\n"})
    with Worker(tmp_path, endpoint(job("a")), env={"KEY": "function"}, secrets=("KEY",)) as worker:
        worker.ready()
        worker.result("a")
        worker.send(Kind.CALL, 7, {"name": "no function"})
        assert worker.exit_code() == 70
    log = worker.frames[-1]
    assert (log.kind, log.meta["level"]) == (Kind.LOG, "error")
    assert log.body.startswith(b"this worker ends: the link to the gateway failed\nTraceback")
    assert b"KeyError: '[redacted]'" in log.body


def test_what_is_no_frame_ends_the_worker_aloud(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/a/handler.py": "def handler(): ...\n"})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        worker.ready()
        worker.send(99, 0)  # type: ignore[arg-type]
        assert worker.exit_code() == 70
    assert "FrameError: 99 is not a valid Kind" in worker.logs()


def test_a_task_that_ends_the_loop_ends_the_worker_aloud(tmp_path: Path) -> None:
    source = """
        import asyncio, sys

        async def handler():
            async def leaves():
                sys.exit(0)
            await asyncio.gather(leaves(), asyncio.sleep(60))

        async def waits():
            await asyncio.Event().wait()
    """
    write(tmp_path, {"endpoints/a/handler.py": source})
    config = endpoint(job("a"), job("a/waits", "waits", directory="a"), concurrency=2)
    with Worker(tmp_path, config) as worker:
        worker.ready()
        worker.call("a/waits")
        worker.call("a")
        assert worker.exit_code() == 70
    assert "a task of user code ended the event loop" in worker.logs()
    assert not [frame for frame in worker.frames if frame.kind is Kind.FAILURE]  # the neighbour is lost, not failed


def test_what_is_printed_at_exit_is_captured(tmp_path: Path) -> None:
    source = """
        import atexit, os, sys, threading, time
        atexit.register(lambda: (print("at exit"), os.write(2, b"below\\n")))

        def handler():
            def late():
                threading.main_thread().join()  # until the loop has ended
                print("late thread")
            threading.Thread(target=late, daemon=False).start()

        def leaves_daemon():
            threading.Thread(target=time.sleep, args=(60,)).start()  # a daemon as its parent is one
    """
    write(tmp_path, {"endpoints/a/handler.py": source})
    config = endpoint(job("a"), job("a/leaves_daemon", "leaves_daemon", directory="a"))
    with Worker(tmp_path, config, fresh=True) as worker:
        worker.ready()
        worker.result("a")
        worker.result("a/leaves_daemon")
        assert worker.drain() == 0
    assert worker.logs(stream="stdout") == "late thread\nat exit\n"
    assert worker.logs(stream="stderr") == "below\n"


def test_a_thread_that_keeps_a_drained_worker_is_named(tmp_path: Path) -> None:
    source = """
        import threading

        def handler():
            threading.Thread(target=threading.Event().wait, name="left-behind", daemon=False).start()
    """
    write(tmp_path, {"endpoints/a/handler.py": source})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        worker.ready()
        worker.result("a")
        worker.send(Kind.DRAIN)
        worker.until_logged("waiting for threads that user code started: left-behind")
        worker.next(Kind.BEAT)  # the link lives as long as the process
