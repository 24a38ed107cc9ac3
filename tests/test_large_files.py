"""What 200 MB cost in memory, the server and the worker each, on every way in and out that promises to stream."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.dev_process import DevServer
from tests.served import write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")

MEGABYTES = 200
MOST_MB = 40
"""What a peak may lie above what was there before."""

SIZE = MEGABYTES * 1_000_000
FILES = {
    "flashfw.toml": "",
    "endpoints/measure/handler.py": """
        from flashfw import File

        def handler(data: File) -> int:
            return data.size
        """,
    "endpoints/make/handler.py": """
        from flashfw import File

        def handler(size: int) -> File:
            with open("large.bin", "wb") as file:
                file.truncate(size)
            return File("large.bin")
        """,
    "endpoints/http/path/handler.py": """
        from flashfw import File

        def post(data: File) -> int:
            return data.size

        def get(size: int) -> File:
            with open("larger.bin", "wb") as file:
                file.truncate(size)
            return File("larger.bin")

        def put(data: bytes) -> int:
            return len(data)
        """,
    "endpoints/http/upload/handler.py": """
        from starlette.datastructures import UploadFile

        async def post(data: UploadFile) -> int:
            size = 0
            while piece := await data.read(1 << 16):
                size += len(piece)
            return size
        """,
    "endpoints/http/stream/handler.py": """
        from starlette.requests import Request

        async def post(request: Request) -> int:
            size = 0
            async for piece in request.stream():
                size += len(piece)
            return size
        """,
    "endpoints/http/handler.py": "def get() -> int:\n    return 0\n",
}
_HEAD = b'--b\r\ncontent-disposition: form-data; name="data"; filename="a.bin"\r\n\r\n'
_TAIL = b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_flashfw_dev: Callable[..., DevServer]) -> DevServer:
    return module_flashfw_dev(write(tmp_path_factory.mktemp("large"), FILES))


def form() -> Iterator[bytes]:
    yield _HEAD
    for _ in range(MEGABYTES):
        yield b"x" * 1_000_000
    yield _TAIL


def raw() -> Iterator[bytes]:
    for _ in range(MEGABYTES):
        yield b"x" * 1_000_000


FORM = {"content-type": "multipart/form-data; boundary=b"}
RAW = {"content-type": "application/octet-stream"}


class Peaks:
    """How far the server and the worker of an endpoint rise above what they hold now, in MB."""

    def __init__(self, server: DevServer, endpoint: str) -> None:
        self.pids = {"server": server.process.pid, "worker": _worker(server, endpoint)}
        self.before = {name: _memory(pid, "VmRSS") for name, pid in self.pids.items()}
        for pid in self.pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here

    def grown(self) -> dict[str, float]:
        return {name: round(_memory(pid, "VmHWM") - self.before[name], 1) for name, pid in self.pids.items()}


def _memory(pid: int, name: str) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def _worker(server: DevServer, endpoint: str) -> int:
    status = json.loads(server.request("GET", "/_flashfw/status").body)
    (found,) = (one for one in status["endpoints"] if one["id"] == endpoint)
    return int(found["workers"][0]["pid"])


def _warm(server: DevServer, endpoint: str) -> None:
    """A small call first: what is loaded once is none of what a large one costs."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        if endpoint == "http":
            for path, headers in (("path", FORM), ("upload", FORM), ("stream", RAW)):
                client.post(f"/http/{path}", content=_HEAD + b"x" + _TAIL, headers=headers).raise_for_status()
            client.get("/http/path?size=1").raise_for_status()
        elif endpoint == "make":
            client.post("/make", json={"size": 1}).raise_for_status()
        else:
            client.post("/measure", content=_HEAD + b"x" + _TAIL, headers=FORM).raise_for_status()


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/measure", FORM, form),
        ("/measure", RAW, raw),
        ("/http/path", FORM, form),
        ("/http/path", RAW, raw),
        ("/http/upload", FORM, form),
        ("/http/stream", RAW, raw),
    ],
    ids=["job-form", "job-raw", "http-file-form", "http-file-raw", "http-upload-file", "http-stream"],
)
def test_an_upload(server: DevServer, path: str, headers: dict[str, str], body: Callable[[], Iterator[bytes]]) -> None:
    endpoint = path.split("/")[1]
    _warm(server, endpoint)
    peaks = Peaks(server, endpoint)

    answer = httpx.post(server.url + path, content=body(), headers=headers, timeout=60)

    grown = peaks.grown()
    print(f"{path} {headers}: {grown}")
    assert answer.json() == SIZE
    assert max(grown.values()) < MOST_MB, grown


def test_what_is_read_whole_shows(server: DevServer) -> None:
    _warm(server, "http")
    peaks = Peaks(server, "http")

    assert httpx.put(server.url + "/http/path", content=raw(), headers=RAW, timeout=60).json() == SIZE

    grown = peaks.grown()
    assert grown["server"] < MOST_MB
    assert grown["worker"] > MEGABYTES * 0.9


@pytest.mark.parametrize("path", ["/make", "/http/path"], ids=["job", "http"])
def test_a_download(server: DevServer, path: str) -> None:
    endpoint = path.split("/")[1]
    _warm(server, endpoint)
    peaks = Peaks(server, endpoint)

    method, what = ("POST", {"json": {"size": SIZE}}) if path == "/make" else ("GET", {"params": {"size": SIZE}})
    size = 0
    with httpx.stream(method, server.url + path, timeout=60, **what) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            size += len(piece)

    grown = peaks.grown()
    print(f"{path}: {grown}")
    assert size == SIZE
    assert max(grown.values()) < MOST_MB, grown


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays(server: DevServer) -> Iterator[None]:
    """The files of the tests are large, and the temporary folders of pytest stay for a while."""
    yield
    for path in (server.project / ".flashfw").rglob("files/*/*"):
        os.unlink(path)
