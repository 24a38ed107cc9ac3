from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfw.worker.frames import PIECE_BYTES, WINDOW_BYTES, Frame, Kind
from tests.worker.harness import Worker, endpoint, http, write

FILES = {
    "endpoints/fixtures.py": """
        from starlette.requests import Request

        def store():
            return {"kept": 1}

        def user(request: Request):
            return request.headers.get("x-user", "nobody")
    """,
    "endpoints/api/handler.py": """
        from starlette.requests import Request

        def get(store, user, q: int = 0):
            return {"q": q, "store": store, "user": user}

        async def post(request: Request):
            return {"bytes": len(await request.body())}
    """,
    "endpoints/api/_id_/handler.py": "def get(id: int):\n    return {'id': id}\n",
    "endpoints/mounted/handler.py": """
        import asyncio
        from contextlib import asynccontextmanager
        from pathlib import Path
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response, StreamingResponse
        from starlette.routing import Route

        @asynccontextmanager
        async def lifespan(app):
            Path("lifespan").write_text("started")
            yield {"ready": "yes"}
            Path("lifespan").write_text("ended")

        async def scope(request: Request):
            return JSONResponse({
                "path": request.url.path, "root": request.scope["root_path"], "query": request.url.query,
                "state": request.state.ready, "store": request.app.state.store, "client": request.client.host,
                "header": request.headers["x-a"],
            })

        async def large(request):
            return Response(b"x" * 1_000_000)

        async def stream(request):
            async def pieces():
                for _ in range(40):
                    yield b"y" * 100_000
            return StreamingResponse(pieces())

        async def body(request):
            count = pieces = 0
            async for piece in request.stream():
                count += len(piece)
                pieces += bool(piece)
            return JSONResponse([count, pieces])

        async def waits(request):
            Path("waiting").touch()
            try:
                message = await request.receive()
                message = await request.receive()
            finally:
                Path("left").write_text(message["type"])

        async def hangs(request):
            Path("waiting").touch()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                Path("cancelled").touch()
                raise

        async def endless(request):
            async def pieces():
                try:
                    while True:
                        yield b"z" * 1000
                        await asyncio.sleep(0)
                finally:
                    Path("stopped").touch()
            return StreamingResponse(pieces())

        async def raises(request):
            raise ValueError("in the application")

        class Silent:
            async def __call__(self, scope, receive, send):
                pass

        class Half:
            async def __call__(self, scope, receive, send):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
                raise ValueError("midway")

        class Wrong:
            async def __call__(self, scope, receive, send):
                status = int(scope["query_string"])
                headers = [("text", "no bytes")] if status == 200 else []
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": b""})

        async def app(store):
            names = [scope, large, stream, body, waits, hangs, endless, raises, Silent(), Half(), Wrong()]
            routes = [Route("/" + getattr(f, "__name__", type(f).__name__), f, methods=["GET", "POST"]) for f in names]
            made = Starlette(routes=routes, lifespan=lifespan)
            made.state.store = store
            return made
    """,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("asgi"), FILES)


@pytest.fixture(scope="module")
def api(project: Path) -> Iterator[Worker]:
    functions = [
        http("api::get", "GET", route="/api", directory="api"),
        http("api::post", "POST", route="/api", directory="api"),
        http("api/_id_::get", "GET", route="/api/{id}", directory="api/_id_"),
    ]
    with Worker(project, endpoint(*functions, concurrency=10)) as worker:
        worker.ready()
        yield worker
        assert worker.drain() == 0


@pytest.fixture(scope="module")
def mounted(project: Path) -> Iterator[Worker]:
    """A worker of an application; its lifespan has started when it is ready and has ended when it is drained."""
    with Worker(
        project, endpoint(http("mounted", "*", route="/mounted", directory="mounted"), concurrency=10)
    ) as worker:
        worker.ready()
        assert (project / "lifespan").read_text() == "started"
        yield worker
        assert worker.drain() == 0
        assert (project / "lifespan").read_text() == "ended"


def answer(worker: Worker, call: int) -> tuple[Frame, bytes]:
    """The HEAD and the whole body of an answer, with credit for each piece."""
    head = worker.next(Kind.HEAD, Kind.FAILURE, call=call)
    assert head.kind is Kind.HEAD, head.meta
    body, end = head.body, head.meta["end"]
    while not end:
        frame = worker.next(Kind.DATA, call=call)
        body, end = body + frame.body, frame.meta["end"]
        if frame.body:
            worker.send(Kind.CREDIT, call, {"bytes": len(frame.body)})
    return head, body


def test_a_simple_answer_is_one_frame(api: Worker) -> None:
    head = api.next(Kind.HEAD, call=api.request("api::get", query="q=3", headers=[["x-user", "ann"]]))
    assert head.meta["end"] is True
    assert head.meta["status"] == 200
    assert ["content-type", "application/json"] in head.meta["headers"]
    assert json.loads(head.body) == {"q": 3, "store": {"kept": 1}, "user": "ann"}


def test_path_parameters_and_statuses(api: Worker) -> None:
    assert json.loads(answer(api, api.request("api/_id_::get", params={"id": "7"}))[1]) == {"id": 7}
    assert answer(api, api.request("api/_id_::get", params={"id": "x"}))[0].meta["status"] == 404
    assert answer(api, api.request("api::get", query="q=x"))[0].meta["status"] == 422


def test_a_body_in_pieces_is_credited(api: Worker) -> None:
    call = api.request("api::post", "POST", body=b"x" * 10, end=False)
    api.send(Kind.DATA, call, {"end": False}, b"y" * 1000)
    api.send(Kind.DATA, call, {"end": True}, b"z" * 500)
    assert json.loads(answer(api, call)[1]) == {"bytes": 1510}
    assert [api.next(Kind.CREDIT, call=call).meta["bytes"] for _ in range(2)] == [1000, 500]


def mounted_call(worker: Worker, name: str, **meta: object) -> int:
    headers = [["host", "localhost"], ["x-a", "b"]]
    return worker.request("mounted", path=f"/mounted/{name}", root_path="/mounted", headers=headers, **meta)


def test_an_application_sees_its_mount_state_and_fixtures(mounted: Worker) -> None:
    shown = json.loads(answer(mounted, mounted_call(mounted, "scope", query="a=1"))[1])
    assert shown == {
        "path": "/mounted/scope",
        "root": "/mounted",
        "query": "a=1",
        "state": "yes",
        "store": {"kept": 1},
        "client": "127.0.0.1",
        "header": "b",
    }


def test_a_large_answer_comes_in_pieces(mounted: Worker) -> None:
    call = mounted_call(mounted, "large")
    head = mounted.next(Kind.HEAD, call=call)
    assert head.body == b""
    body = 0
    while not (frame := mounted.next(Kind.DATA, call=call)).meta["end"]:
        assert len(frame.body) <= PIECE_BYTES
        body += len(frame.body)
    assert body == 1_000_000


def test_a_stream_waits_for_credit(mounted: Worker) -> None:
    call = mounted_call(mounted, "stream")
    mounted.next(Kind.HEAD, call=call)
    received = uncredited = 0
    while not (frame := mounted.next(Kind.DATA, call=call)).meta["end"]:
        received += len(frame.body)
        uncredited += len(frame.body)
        assert uncredited <= WINDOW_BYTES
        if uncredited + len(frame.body) > WINDOW_BYTES:
            mounted.send(Kind.CREDIT, call, {"bytes": uncredited})
            uncredited = 0
    assert received == 4_000_000


def test_a_request_stream_reaches_the_application_piece_by_piece(mounted: Worker) -> None:
    call = mounted_call(mounted, "body", method="POST", end=False)
    for index in range(3):
        mounted.send(Kind.DATA, call, {"end": index == 2}, b"x" * 100)
    assert json.loads(answer(mounted, call)[1]) == [300, 3]


def until(path: Path, worker: Worker) -> None:
    """Reads frames until the application has made this file."""
    while not path.exists():
        worker.next(Kind.BEAT, Kind.LOG, Kind.DATA)


@pytest.mark.parametrize(
    ("name", "reason", "file", "text"),
    [
        ("waits", "disconnect", "left", "http.disconnect"),
        ("hangs", "disconnect", "cancelled", ""),
        ("hangs", "timeout", "cancelled", ""),
    ],
)
def test_a_client_that_leaves(mounted: Worker, project: Path, name: str, reason: str, file: str, text: str) -> None:
    for old in ("waiting", file):
        (project / old).unlink(missing_ok=True)
    call = mounted_call(mounted, name)
    until(project / "waiting", mounted)
    mounted.send(Kind.CANCEL, call, {"reason": reason})
    assert mounted.next(Kind.GONE, Kind.FAILURE, call=call).kind is Kind.GONE
    assert (project / file).read_text() == text


def test_a_stream_whose_client_leaves_is_closed(mounted: Worker, project: Path) -> None:
    call = mounted_call(mounted, "endless")
    mounted.next(Kind.DATA, call=call)
    mounted.send(Kind.CANCEL, call, {"reason": "disconnect"})
    assert mounted.next(Kind.GONE, call=call)
    assert (project / "stopped").exists()


def test_an_application_that_raises_has_answered_by_itself(mounted: Worker) -> None:
    head, body = answer(mounted, mounted_call(mounted, "raises"))
    assert (head.meta["status"], body) == (500, b"Internal Server Error")
    assert "ValueError: in the application" in mounted.until_logged("in the application")


def test_an_application_that_does_not_answer_fails(mounted: Worker) -> None:
    failure = mounted.next(Kind.HEAD, Kind.FAILURE, call=mounted_call(mounted, "Silent"))
    assert failure.meta["message"] == "the handler ended without a complete response"


@pytest.mark.parametrize(("status", "type_"), [("600", "ValueError"), ("101", "ValueError"), ("200", "TypeError")])
def test_an_answer_that_is_none_of_http_fails(mounted: Worker, status: str, type_: str) -> None:
    failure = mounted.next(Kind.HEAD, Kind.FAILURE, call=mounted_call(mounted, "Wrong", query=status))
    assert failure.meta["type"] == type_


def test_an_answer_that_breaks_off_fails(mounted: Worker) -> None:
    call = mounted_call(mounted, "Half")
    assert mounted.next(Kind.HEAD, call=call).meta["end"] is False
    assert mounted.next(Kind.DATA, call=call).body == b"half"
    failure = mounted.next(Kind.DATA, Kind.FAILURE, call=call)
    assert failure.meta["type"] == "ValueError"
    assert re.fullmatch(r"endpoints/mounted/handler.py:\d+", failure.meta["place"])


def test_an_application_whose_start_fails_breaks_the_worker(tmp_path: Path) -> None:
    source = """
        from starlette.applications import Starlette

        async def lifespan(app):
            raise RuntimeError("no database")
            yield

        from contextlib import asynccontextmanager
        app = Starlette(lifespan=asynccontextmanager(lifespan))
    """
    write(tmp_path, {"endpoints/a/handler.py": source})
    with Worker(tmp_path, endpoint(http("a", "*", route="/a", directory="a"))) as worker:
        assert "no database" in worker.next(Kind.BROKEN).meta["message"]
        assert worker.exit_code() == 3
