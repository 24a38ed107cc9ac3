from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfw.worker.frames import PIECE_BYTES, WINDOW_BYTES, Kind
from tests.worker.harness import Worker, endpoint, http, write
from tests.worker.test_asgi import answer

FILES = {
    "endpoints/fixtures.py": """
        import sqlite3
        from starlette.requests import Request

        def database():
            connection = sqlite3.connect(":memory:")  # of use in its own thread only
            yield connection
            connection.close()

        def session(request: Request, database):
            yield database
            print(f"session closed, {database.total_changes} changes")
    """,
    "endpoints/api/handler.py": """
        import threading, time
        from pathlib import Path
        import flashfw
        from starlette.background import BackgroundTask, BackgroundTasks
        from starlette.responses import PlainTextResponse, StreamingResponse

        def thread():
            return threading.current_thread().name + "\\n"

        def note(text):
            print(f"{text} in {threading.current_thread().name}")

        async def note_async(text):
            note(text)

        def get(session):
            def rows():
                try:
                    yield thread()
                    yield str(session.execute("select 1").fetchone()[0])
                finally:
                    note("closed")
            return StreamingResponse(rows(), background=BackgroundTask(note, "one"))

        shared = StreamingResponse(["a", "b"], background=BackgroundTask(note, "shared"))

        def wide():
            try:
                while True:
                    yield bytes(1 << 18)
            finally:
                note("wide closed")

        def silent():
            while True:
                time.sleep(0.001)
                yield ""

        def post(name: str):
            if name == "silent":
                return silent()
            if name == "shared":
                shared.body_iterator = StreamingResponse(iter(["a", "b"])).body_iterator
                return shared
            if name == "wide":
                return wide()
            if name == "several":
                tasks = BackgroundTasks([BackgroundTask(note, "first")])
                tasks.add_task(note_async, "second")
                return PlainTextResponse("several", background=tasks)
            def endless():
                try:
                    while True:
                        yield "x" * 1000
                finally:
                    note("endless closed")
            return StreamingResponse(endless())

        def put():
            def later():
                while not Path("go").exists():
                    time.sleep(0.005)
                Path("went").touch()
            return PlainTextResponse("", background=BackgroundTask(later))

        def patch():
            raise KeyboardInterrupt

        def delete():
            try:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            except RuntimeError as error:
                raise ValueError("no picture") from error
    """,
    "endpoints/mounted/handler.py": """
        import flashfw
        from starlette.applications import Starlette
        from starlette.routing import Route

        async def breaks(request):
            raise flashfw.WorkerBroken("the device fell off the bus")

        app = Starlette(routes=[Route("/", breaks)])
    """,
}
VERBS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    functions = [http(f"api::{verb}", verb.upper(), route="/api", directory="api") for verb in VERBS]
    with Worker(write(tmp_path, FILES), endpoint(*functions)) as worker:
        worker.ready()
        yield worker


def test_a_synchronous_stream_and_its_end_run_in_the_one_user_thread(worker: Worker) -> None:
    _, body = answer(worker, worker.request("api::get"))
    assert body == b"flashfw-user-1\n1"
    assert worker.drain() == 0
    text = ["closed in flashfw-user-1", "one in flashfw-user-1", "session closed, 0 changes"]
    assert [line for line in worker.logs().splitlines() if line in text] == text


def test_background_tasks_run_in_order_each_where_it_belongs(worker: Worker) -> None:
    def post(name: str) -> bytes:
        return answer(worker, worker.request("api::post", "POST", body=json.dumps({"name": name}).encode()))[1]

    assert post("several") == b"several"
    assert [post("shared"), post("shared")] == [b"ab", b"ab"]
    assert worker.drain() == 0
    assert "first in flashfw-user-1\nsecond in MainThread\n" in worker.logs()
    assert worker.logs().count("shared in flashfw-user-1\n") == 2


def test_a_stream_whose_client_leaves_is_closed_in_its_thread(worker: Worker) -> None:
    call = worker.request("api::post", "POST", body=b'{"name": "endless"}')
    worker.next(Kind.DATA, call=call)
    worker.send(Kind.CANCEL, call, {"reason": "disconnect"})
    assert worker.next(Kind.GONE, call=call)
    worker.until_logged("endless closed in flashfw-user-1")


def test_a_drain_waits_for_background_work(worker: Worker) -> None:
    answer(worker, worker.request("api::put", "PUT"))
    worker.send(Kind.DRAIN)
    (worker.root / "go").touch()
    assert worker.exit_code() == 0
    assert (worker.root / "went").exists()


def test_a_keyboard_interrupt_of_a_handler_is_an_answer(worker: Worker) -> None:
    head, body = answer(worker, worker.request("api::patch", "PATCH"))
    assert (head.meta["status"], json.loads(body)["error"]["type"]) == (500, "KeyboardInterrupt")


def test_a_broken_worker_is_told_before_the_answer(worker: Worker) -> None:
    call = worker.request("api::delete", "DELETE")
    frame = worker.next(Kind.UNFIT, Kind.HEAD)
    assert (frame.kind, frame.call, frame.meta["message"]) == (Kind.UNFIT, 0, "no picture")
    assert answer(worker, call)[0].meta["status"] == 500


def test_a_mounted_application_that_breaks_its_worker_is_told(tmp_path: Path) -> None:
    functions = [http("mounted", "*", route="/mounted", directory="mounted")]
    with Worker(write(tmp_path, FILES), endpoint(*functions)) as worker:
        worker.ready()
        call = worker.request("mounted")
        assert worker.next(Kind.UNFIT).meta["type"] == "WorkerBroken"
        assert answer(worker, call)[0].meta["status"] == 500


def test_a_synchronous_stream_waits_for_credit_in_its_thread(worker: Worker) -> None:
    call = worker.request("api::post", "POST", body=b'{"name": "wide"}')
    sent = 0
    while sent + PIECE_BYTES <= WINDOW_BYTES:
        sent += len(worker.next(Kind.DATA, call=call).body)
    assert worker.next(Kind.BEAT, Kind.DATA).kind is Kind.BEAT

    worker.send(Kind.CREDIT, call, {"bytes": sent})
    assert worker.next(Kind.DATA, call=call).body
    worker.send(Kind.CANCEL, call, {"reason": "disconnect"})
    assert worker.next(Kind.GONE, call=call)
    assert worker.drain() == 0
    assert "wide closed in flashfw-user-1" in worker.logs()


def test_a_synchronous_stream_that_yields_nothing_ends_when_its_client_leaves(worker: Worker) -> None:
    call = worker.request("api::post", "POST", body=b'{"name": "silent"}')
    worker.next(Kind.HEAD, call=call)
    worker.send(Kind.CANCEL, call, {"reason": "disconnect"})

    assert worker.next(Kind.GONE, call=call)
