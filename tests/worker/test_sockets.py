"""WebSockets at the worker's side of a link: messages that never mix, credit both ways, grace for who is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfw.worker.frames import PIECE_BYTES, WINDOW_BYTES, Frame, Kind
from flashfw.worker.sockets import PIECE_COST, cost
from tests.worker.harness import Worker, endpoint, http, write

FILES = {
    "endpoints/chat/handler.py": """
        import asyncio
        from pathlib import Path

        import flashfw.worker.sockets
        from starlette.websockets import WebSocket

        async def opened(name):
            while not Path(name).exists():
                await asyncio.sleep(0.01)

        async def until_cancelled(name):
            Path(name + "-waits").touch()
            try:
                await asyncio.Event().wait()
            finally:
                Path(name + "-cancelled").touch()

        async def websocket(ws: WebSocket, does: str):
            if does == "hangs":
                await until_cancelled(does)
            await ws.accept()
            if does == "two":
                await asyncio.gather(ws.send_bytes(b"a" * 3_000_000), ws.send_bytes(b"little"))
            elif does == "late":
                await opened("go")
                sizes = [len(await ws.receive_bytes()) for _ in range(3)]
                await ws.send_json(sizes)
            elif does == "echo":
                await ws.send_text(str(len(await ws.receive_bytes())))
            elif does == "tidies":
                assert (await ws.receive())["type"] == "websocket.disconnect"
                Path("left").touch()
                await opened("tidy")
                Path("tidied").touch()
            elif does == "stubborn":
                flashfw.worker.sockets.LEAVE_S = 0.1
                await until_cancelled(does)
            elif does == "slow":
                await until_cancelled(does)
        """,
    "endpoints/chat/plain/handler.py": "def get() -> str:\n    return 'here'\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sockets"), FILES)


@pytest.fixture(scope="module")
def worker(project: Path) -> Iterator[Worker]:
    functions = [
        http("chat::websocket", "WEBSOCKET", route="/chat", directory="chat"),
        http("chat/plain::get", "GET", route="/chat/plain", directory="chat/plain"),
    ]
    with Worker(project, endpoint(*functions, concurrency=10)) as worker:
        worker.ready()
        yield worker
        assert worker.drain() == 0


def connect(worker: Worker, does: str, *, accepted: bool = True) -> int:
    """A WebSocket to the function, which does this; its call number."""
    call = worker.request("chat::websocket", "WEBSOCKET", "/chat", query=f"does={does}", subprotocols=[])
    if accepted:
        assert worker.next(Kind.HEAD, Kind.FAILURE, call=call).meta["status"] == 101
    return call


def credits(worker: Worker, call: int) -> int:
    """What the worker has given back so far: it has done all that it was told before it answers another request."""
    worker.next(Kind.HEAD, call=worker.request("chat/plain::get", path="/chat/plain"))
    return sum(frame.meta["bytes"] for frame in worker.frames if (frame.kind, frame.call) == (Kind.CREDIT, call))


def until(worker: Worker, path: Path) -> None:
    """Reads frames until the function has made this file."""
    while not path.exists():
        worker.next(Kind.BEAT, Kind.LOG)


def test_messages_sent_at_once_never_mix_and_wait_for_credit(worker: Worker) -> None:
    call = connect(worker, "two")
    pieces: list[Frame] = []
    under_way = 0
    while not (frame := worker.next(Kind.DATA, call=call)).meta.get("end"):
        pieces.append(frame)
        under_way += cost(frame.body)
        assert under_way <= WINDOW_BYTES
        if under_way + PIECE_BYTES + PIECE_COST > WINDOW_BYTES:
            worker.send(Kind.CREDIT, call, {"bytes": cost(frame.body)})
            under_way -= cost(frame.body)

    lasts = [index for index, piece in enumerate(pieces) if not piece.meta["more"]]
    first, second = pieces[: lasts[0] + 1], pieces[lasts[0] + 1 :]
    assert lasts[1:] == [len(pieces) - 1]
    assert [b"".join(piece.body for piece in message) for message in (first, second)] == [
        b"a" * 3_000_000,
        b"little",  # there was room for it all the time
    ]


def test_credit_is_given_as_the_function_takes_its_messages(worker: Worker, project: Path) -> None:
    call = connect(worker, "late")
    for size in (10, 0, 1000):
        worker.send(Kind.DATA, call, {"text": False, "more": False}, b"x" * size)

    assert credits(worker, call) == 0
    (project / "go").touch()
    assert worker.next(Kind.DATA, call=call).body == b"[10,0,1000]"
    assert credits(worker, call) == 1010 + 3 * PIECE_COST


def test_a_message_that_is_larger_than_the_window_is_credited_while_it_comes(worker: Worker) -> None:
    call = connect(worker, "echo")
    size = 3 * WINDOW_BYTES
    for begin in range(0, size, PIECE_BYTES):
        worker.send(Kind.DATA, call, {"text": False, "more": begin + PIECE_BYTES < size}, b"x" * PIECE_BYTES)
        assert worker.next(Kind.CREDIT, call=call).meta["bytes"] == PIECE_BYTES + PIECE_COST

    assert worker.next(Kind.DATA, call=call).body == str(size).encode()


def test_a_function_whose_client_left_may_tidy_up(worker: Worker, project: Path) -> None:
    call = connect(worker, "tidies")
    worker.send(Kind.CANCEL, call, {"reason": "disconnect"})
    until(worker, project / "left")
    (project / "tidy").touch()

    assert worker.next(Kind.GONE, Kind.FAILURE, call=call).kind is Kind.GONE
    assert (project / "tidied").exists()


@pytest.mark.parametrize(
    ("does", "reason"), [("stubborn", "disconnect"), ("slow", "timeout"), ("hangs", "disconnect"), ("hangs", "timeout")]
)
def test_a_function_that_stays_is_cancelled_when_its_grace_is_over(
    worker: Worker, project: Path, does: str, reason: str
) -> None:
    for name in ("waits", "cancelled"):
        (project / f"{does}-{name}").unlink(missing_ok=True)
    call = connect(worker, does, accepted=does != "hangs")
    until(worker, project / f"{does}-waits")
    worker.send(Kind.CANCEL, call, {"reason": reason})

    assert worker.next(Kind.GONE, Kind.FAILURE, call=call).kind is Kind.GONE
    assert (project / f"{does}-cancelled").exists()
