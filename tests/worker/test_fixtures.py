from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfw.worker.fixtures import Fixtures
from flashfw.worker.frames import Kind
from flashfw.worker.threads import Threads
from tests.worker.harness import Worker, endpoint, job, write

FILES = {
    "endpoints/fixtures.py": """
        from lib.record import record

        def settings():
            record("settings")
            return {"from": "top"}

        def model(settings):
            record("model of top")
            return "top model"

        def unused():
            raise RuntimeError("nobody needs this")
    """,
    "endpoints/a/fixtures.py": """
        import threading
        from flashfw import Job
        from lib.record import record

        def model(model, settings):
            record("model")
            yield f"near {model}, settings {settings['from']}"
            record("model closed")

        async def client(model):
            record("client")
            yield {"client": model}
            record("client closed")

        async def plain():
            return threading.current_thread().name

        def thread():
            return threading.current_thread().name

        def session(job: Job, client):
            record(f"session {job.id}")
            yield f"session of {job.id}"
            record(f"session {job.id} closed")

        async def trace(session):
            yield f"trace in {session}"
            record("trace closed")

        def failing(job: Job):
            raise LookupError("no such tenant")

        if True:
            def inner():
                return "inner"

        def _helper():
            raise RuntimeError("this is no fixture")
    """,
    "endpoints/a/deep/fixtures.py": "raise RuntimeError('not needed, not imported')\n\ndef other(): ...\n",
    "endpoints/a/handler.py": """
        from lib.record import record
        from flashfw import injected

        def handler(client, thread, inner, plain, unit: str = "m"):
            return [client, thread, inner, plain, unit]

        def with_session(session, trace=injected):
            return [session, trace]

        async def with_session_async(session, trace):
            return [session, trace]

        async def with_session_stream(session):
            yield session

        def with_failing(failing):
            return failing

        def records():
            from lib.record import lines
            return lines()

        class Holder:
            def __init__(self, model, tries: int = 3):
                record("Holder")
                self.model, self.calls = model, 0

            def __call__(self, n: int, inner):
                self.calls += 1
                return [self.model, n, self.calls, inner]

            async def again(self):
                return self.calls

            @staticmethod
            def still(n: int):
                return n

            @classmethod
            def named(cls):
                return cls.__name__

            def close(self):
                record("Holder closed")
    """,
    "endpoints/a/deep/handler.py": "def handler(model):\n    return model\n",
    "lib/record.py": """
        from pathlib import Path

        def record(line):
            with Path("record").open("a") as file:
                file.write(line + "\\n")

        def lines():
            return Path("record").read_text().splitlines()
    """,
}
NAMES = ["with_session", "with_session_async", "with_session_stream", "with_failing", "records"]
METHODS = ["Holder", "Holder.again", "Holder.still", "Holder.named"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("fixtures"), FILES)


@pytest.fixture(scope="module")
def worker(project: Path) -> Iterator[Worker]:
    """A worker with fixtures of every form; afterwards the order of all that they recorded is compared."""
    functions = [job(f"a/{name}", name, directory="a") for name in NAMES]
    methods = [job(f"a::{name}", name, directory="a") for name in METHODS]
    with Worker(project, endpoint(job("a"), *functions, *methods, job("a/deep"))) as worker:
        ready = worker.ready()
        assert set(ready["fixtures_s"]) == {"settings", "model", "client", "thread", "inner", "plain"}
        assert "endpoints/a/deep/fixtures.py" not in ready["files"]
        yield worker
        assert worker.drain() == 0
    assert (project / "record").read_text().splitlines()[-3:] == ["Holder closed", "client closed", "model closed"]


def test_values_are_injected_by_name(worker: Worker) -> None:
    near = "near top model, settings top"
    expected = [{"client": near}, "flashfw-user-1", "inner", "MainThread", "cm"]
    assert json.loads(worker.result("a", b'{"unit": "cm"}')) == expected


def test_the_nearest_directory_wins_and_each_is_built_once(worker: Worker) -> None:
    assert json.loads(worker.result("a/deep")) == "near top model, settings top"
    lines = json.loads(worker.result("a/records"))
    assert lines[:4] == ["settings", "model of top", "model", "client"]
    assert lines.count("model") == 1


@pytest.mark.parametrize("function", ["a/with_session", "a/with_session_async"])
def test_a_fixture_that_takes_the_job_is_built_per_call(worker: Worker, function: str) -> None:
    for id in ("x1", "x2"):
        call = worker.call(function, id=id)
        assert json.loads(worker.end(call).body) == [f"session of {id}", f"trace in session of {id}"]
    lines = json.loads(worker.result("a/records"))
    assert lines[-3:] == ["session x2", "trace closed", "session x2 closed"]


def test_a_stream_may_take_a_fixture_of_its_call(worker: Worker) -> None:
    assert json.loads(worker.end(worker.call("a/with_session_stream", id="x3")).body) == ["session of x3"]


def test_a_fixture_of_a_call_that_raises_fails_that_call(worker: Worker) -> None:
    failure = worker.failure("a/with_failing")
    assert (failure["type"], failure["fixture"]) == ("LookupError", "failing")
    assert failure["place"].startswith("endpoints/a/fixtures.py:")


def test_a_class_is_one_instance_with_fixtures(worker: Worker) -> None:
    near = "near top model, settings top"
    assert json.loads(worker.result("a::Holder", b'{"n": 4}')) == [near, 4, 1, "inner"]
    assert json.loads(worker.result("a::Holder", b'{"n": 5}')) == [near, 5, 2, "inner"]
    assert worker.result("a::Holder.again") == b"2"
    assert worker.result("a::Holder.still", b'{"n": 6}') == b"6"
    assert worker.result("a::Holder.named") == b'"Holder"'


ONE = "def handler(one): ...\n"
WITH_INJECTED = "from flashfw import injected\ndef handler(on=injected): ...\n"
WITH_REQUEST = "from starlette.requests import Request\ndef one(r: Request): ...\n"
CLASS = "class handler:\n    def __init__(self, n): ...\n    def __call__(self): ...\n"


@pytest.mark.parametrize(
    ("fixtures", "handler", "message", "place"),
    [
        ("def one(two): ...\ndef two(one): ...\n", ONE, "in a circle: one (", "fixtures.py:1"),
        ("def two(): ...\ndef one(tow): ...\n", ONE, "no fixture named 'tow'; did you mean 'two'?", "fixtures.py:2"),
        ("\ndef one(n: int = 3, *args): ...\n", ONE, "'*args' cannot be filled", "fixtures.py:2"),
        ("def one(one): ...\n", ONE, "no fixture named 'one' in or above endpoints/a", "fixtures.py:1"),
        ("def one(): ...\n", WITH_INJECTED, "did you mean 'one'?", "handler.py:2"),
        ("def one(:\n", ONE, "invalid syntax", "fixtures.py:1"),
        ("import missing_thing\ndef one(): ...\n", ONE, "endpoint.toml", "fixtures.py:1"),
        ("\ndef one():\n    if 0: yield\n", ONE, "ended without a yield", "fixtures.py:2"),
        ("async def one():\n    if 0: yield\n", ONE, "ended without a yield", "fixtures.py:1"),
        (WITH_REQUEST, ONE, "wants the request", "handler.py:1"),
        ("def one():\n    return 1 / 0\n", ONE, "division by zero", "endpoints/a/fixtures.py:2"),
        ("async def one():\n    return 1 / 0\n", ONE, "division by zero", "endpoints/a/fixtures.py:2"),
        ("", CLASS, "no fixture named 'n'", "handler.py:2"),
    ],
)
def test_a_start_that_fails_says_where(tmp_path: Path, fixtures: str, handler: str, message: str, place: str) -> None:
    write(tmp_path, {"endpoints/a/fixtures.py": fixtures, "endpoints/a/handler.py": handler})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        failure = worker.next(Kind.BROKEN).meta
        assert failure["reason"] == "startup"
        assert message in failure["message"]
        assert failure.get("place", "").endswith(place)
        assert ("ZeroDivision" in failure["type"]) == (failure.get("fixture") == "one" and "zero" in message)
        assert worker.exit_code() == 3


def test_names_are_read_without_import(project: Path) -> None:
    fixtures = Fixtures(project, Threads(1))
    assert set(fixtures.names("endpoints")) == {"settings", "model", "unused"}
    assert {"inner", "client", "settings"} <= set(fixtures.names("endpoints/a"))
    assert "_helper" not in fixtures.names("endpoints/a")
    assert "other" in fixtures.names("endpoints/a/deep/below")
