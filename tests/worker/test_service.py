"""From the first import to the last teardown of an endpoint's functions, in real workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, job, write

FIELD = "from pydantic import Field\ndef handler(n: int = Field(5, ge=1)): ...\n"
QUERY = "from flashfw import Query\ndef handler(n: int = Query()): ...\n"
NO_CALL = "class Made:\n    def go(self): ...\nhandler = Made\n"
CONTEXT = """
    from contextlib import contextmanager
    @contextmanager
    def one():
        yield 1
"""


@pytest.mark.parametrize(
    ("fixtures", "handler", "message"),
    [
        (
            "",
            "from pydantic import Field\ndef handler(n: int = Field(5, ge=1)): ...\n",
            "the default of 'n' is a Field",
        ),
        ("", QUERY, "the default of 'n' is a Query(...)"),
        (
            "",
            "class Made:\n    def go(self): ...\nhandler = Made\n",
            "write 'class handler:' here, or a __call__ in it",
        ),
        (CONTEXT, "def handler(one): ...\n", "has a yield, but calling it gave _GeneratorContextManager"),
        ("def one(): raise SystemExit(3)\n", "def handler(one): ...\n", "3"),
        ("async def one(): raise KeyboardInterrupt\n", "def handler(one): ...\n", ""),
        ("", "raise KeyboardInterrupt\n", ""),
        ("", "class handler:\n    def __init__(self): raise SystemExit(3)\n    def __call__(self): ...\n", "3"),
    ],
)
def test_what_ends_a_start_is_told(tmp_path: Path, fixtures: str, handler: str, message: str) -> None:
    write(tmp_path, {"endpoints/a/fixtures.py": fixtures, "endpoints/a/handler.py": handler})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        failure = worker.next(Kind.BROKEN).meta
        assert message in failure["message"]
        assert failure["reason"] == "startup"
        assert failure.get("fixture") == ("one" if "one" in handler else None)
        assert worker.exit_code() == 3


def test_teardown_goes_on_after_what_raises(tmp_path: Path) -> None:
    fixtures = """
        def first():
            yield 1
            print("first closed")

        async def second(first):
            yield 2
            raise SystemExit(9)

        def third(second):
            yield 3
            raise ValueError("in the teardown of third")

        def fourth(third):
            yield 4
            yield 5
    """
    handler = """
        class handler:
            def __init__(self, fourth): ...
            def __call__(self): ...
            def close(self):
                raise KeyboardInterrupt
    """
    write(tmp_path, {"endpoints/a/fixtures.py": fixtures, "endpoints/a/handler.py": handler})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        worker.ready()
        assert worker.drain() == 0
    logs = worker.logs()
    told = [
        "closing the handler of a failed",
        "the teardown of fixture 'fourth' failed",
        "yields more than once",
        "in the teardown of third",
        "the teardown of fixture 'second' failed",
        "first closed",
    ]
    assert [logs.index(text) for text in told] == sorted(logs.index(text) for text in told)


RECORDING = {
    "lib/note.py": """
        import threading

        def note(what):
            with open("record", "a") as file:
                file.write(f"{what}: {threading.current_thread().name}\\n")
    """,
    "endpoints/a/fixtures.py": """
        from flashfw import Job
        from lib.note import note

        def model():
            note("fixture")
            yield 1
            note("teardown")

        async def client():
            note("async fixture")
            yield 1
            note("async teardown")

        def session(job: Job):
            note("fixture of a call")
            yield 1
            note("teardown of a call")
    """,
    "endpoints/a/handler.py": """
        from lib.note import note

        note(f"import of {__name__}")

        class handler:
            def __init__(self, model, client):
                note("instance")
            def __call__(self, session):
                note("method")
                return len(open("record").read().split("import of endpoints.a.handler")) - 1
            def items(self):
                note("generator")
                yield 1
                note("generator again")
            async def slow(self, session):
                note("async method")
            async def async_items(self):
                note("async generator")
                yield 1
            async def aclose(self):
                note("aclose")

        class other:
            def __call__(self): ...
            def close(self):
                note("close")
    """,
}


def test_synchronous_code_has_one_thread_and_coroutines_the_main_one(tmp_path: Path) -> None:
    write(tmp_path, RECORDING)
    names = ["items", "slow", "async_items"]
    methods = [job(f"a::{name}", f"handler.{name}", directory="a") for name in names]
    with Worker(
        tmp_path, endpoint(job("a", "handler.__call__"), *methods, job("a/other", "other", directory="a"))
    ) as worker:
        worker.ready()
        assert worker.result("a") == b"1"  # one import for all functions
        for name in names:
            worker.result(f"a::{name}")
        assert worker.drain() == 0

    sync = ["fixture", "instance", "fixture of a call", "method", "teardown of a call", "generator", "generator again"]
    after = ["aclose", "async teardown", "teardown"]
    record = [line.split(": ") for line in (tmp_path / "record").read_text().splitlines()]
    threads = dict(record)
    assert {what for what, thread in threads.items() if thread == "flashfw-user-1"} == {*sync, "close", "teardown"}
    assert [what for what, _ in record if what in after] == after
    assert threads["import of endpoints.a.handler"] == threads["async method"] == "MainThread"
    assert threads["async generator"] == threads["aclose"] == threads["async fixture"] == "MainThread"
