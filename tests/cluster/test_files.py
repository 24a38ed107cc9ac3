"""Files of jobs and of HTTP functions through a real server: how they come, what reads them, how they go."""

from __future__ import annotations

import base64
import errno
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import anyio
import httpx
import pytest

from flashfw.cluster.clock import SystemClock
from flashfw.cluster.gateway.answers import Refused
from flashfw.cluster.gateway.forms import MOST_PARTS
from flashfw.cluster.gateway.uploads import Uploads
from flashfw.cluster.job_files import RESERVE_BYTES, DiskFull, JobFiles, Spool, home_of
from tests.served import Served, ended, serving

pytestmark = pytest.mark.anyio

FILES = {
    "endpoints/measure/handler.py": """
        from flashfw import File

        def handler(image: File, size: int = 512, tags: list[str] = []) -> dict:
            return {
                "name": image.name, "type": image.content_type, "bytes": image.size, "size": size, "tags": tags,
                "begin": image.read_bytes()[:8].decode("latin-1"), "path": str(image.path),
            }
        """,
    "endpoints/upper/handler.py": """
        import flashfw

        def handler(text: flashfw.File) -> flashfw.File:
            return flashfw.File(text.read_bytes().upper(), name="upper.txt")
        """,
    "endpoints/several/handler.py": """
        from typing import Optional
        import flashfw

        def handler(pages: list[flashfw.File], cover: Optional[flashfw.File] = None, title: str = "") -> dict:
            first = flashfw.File(pages[0].path, name="first.bin")
            return {"title": title, "pages": [page.name for page in pages], "cover": cover, "first": first}
        """,
    "endpoints/retried/endpoint.toml": "retries = { max = 1, backoff = '0s' }\n",
    "endpoints/retried/handler.py": """
        import os
        from flashfw import File, Job

        def handler(data: File, job: Job, spoil: bool = False) -> list:
            if job.attempt == 1:
                if spoil:
                    os.chmod(data.path, 0o644)
                    data.path.write_bytes(b"other")
                raise OSError("once more")
            return [job.attempt, data.read_bytes().decode(), oct(data.path.stat().st_mode & 0o777)]
        """,
    "endpoints/waits/handler.py": """
        from pathlib import Path
        from flashfw import File

        def handler(data: File, go: str) -> str:
            import time
            while not Path(go).exists():
                time.sleep(0.01)
            return data.read_bytes().decode()
        """,
    "endpoints/short/endpoint.toml": "result_ttl = '10s'\nmax_body = 2000\n",
    "endpoints/short/handler.py": """
        from flashfw import File

        def handler(data: File) -> File:
            return data
        """,
    "endpoints/photos/handler.py": """
        from pathlib import Path
        from flashfw import File

        def post(photo: File, title: str = "") -> dict:
            return {"title": title, "name": photo.name, "bytes": photo.size, "path": str(photo.path)}

        def put(photo: File) -> File:
            return File(photo.path, name="cat.png")
        """,
    "endpoints/made/handler.py": """
        from flashfw import File

        def get() -> File:
            return File(b"0123456789", name="digits.txt")

        def post(photo: File | None = None, title: str = "") -> dict:
            return {"title": title, "chosen": photo is not None}
        """,
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, dev_environ: dict[str, str]) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("shop"), FILES, environ=dev_environ) as served:
        yield served


@pytest.fixture
def shop(server: Served) -> Served:
    """One server for all tests of this file but those that end it, with the events since the test began."""
    server.events.clear()
    return server


@pytest.fixture
async def alone(tmp_path: Path, dev_environ: dict[str, str]) -> AsyncIterator[Served]:
    """A server that no other test has used, for what is counted."""
    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        yield served


def folders(shop: Served) -> list[str]:
    place = shop.folder / ".flashfw" / "dev" / "files"
    place = next(iter((shop.folder / ".flashfw").rglob("files")), place)
    return sorted(set(os.listdir(place)) - {"home"}) if place.exists() else []


async def test_a_part_of_a_form_is_a_file_with_a_path(shop: Served) -> None:
    form = {"image": ("cat.png", b"\x89PNG1234 and more", "image/png")}
    answer = await shop.client.post(shop.url + "/measure", files=form, data={"size": "7", "tags": ["a", "b"]})

    got = answer.json()
    assert answer.status_code == 200, got
    path = got.pop("path")
    assert got == {
        "name": "cat.png",
        "type": "image/png",
        "bytes": 17,
        "size": 7,
        "tags": ["a", "b"],
        "begin": "\x89PNG1234",
    }
    assert Path(path).read_bytes() == b"\x89PNG1234 and more"


async def test_other_parameters_come_as_one_json_part(shop: Served) -> None:
    form = {"image": ("a.bin", b"abc"), "input": (None, '{"size": 3, "tags": ["x"]}', "application/json")}
    answer = await shop.client.post(shop.url + "/measure", files=form)

    assert (answer.json()["size"], answer.json()["tags"], answer.json()["type"]) == (
        3,
        ["x"],
        "application/octet-stream",
    )


async def test_a_raw_body_is_the_one_file_and_the_query_the_rest(shop: Served) -> None:
    headers = {"content-type": "image/jpeg", "content-disposition": 'attachment; filename="../../dog.jpg"'}
    answer = await shop.client.post(shop.url + "/measure?size=9&tags=a&tags=b", content=b"raw", headers=headers)

    got = answer.json()
    assert (got["name"], got["type"], got["size"], got["tags"]) == ("dog.jpg", "image/jpeg", 9, ["a", "b"])


async def test_json_callers_send_base64(shop: Served) -> None:
    text = base64.b64encode(b"hello").decode()
    plain = await shop.post("/measure", {"image": text})
    url = await shop.post("/measure", {"image": f"data:text/plain;base64,{text}"})
    runpod = await shop.post("/v2/measure/runsync", {"input": {"image": text, "size": 1}})

    assert (plain.json()["bytes"], plain.json()["begin"]) == (5, "hello")
    assert url.json()["type"] == "text/plain"
    assert runpod.json()["output"]["bytes"] == 5


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://example.org/cat.png", "flashfw fetches no URL"),
        ("not base64!", "send it as a part of multipart/form-data, or as base64 text"),
        ({"$file": "/_flashfw/jobs/x/files/i0"}, "refers to none of this job"),
        (3, "Input should be a file"),
    ],
)
async def test_anything_else_in_json_is_refused(shop: Served, value: object, words: str) -> None:
    answer = await shop.post("/measure", {"image": value})

    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


async def test_no_job_reads_the_file_of_another(shop: Served) -> None:
    form = {"image": ("secret.txt", b"secret")}
    first = await shop.client.post(shop.url + "/measure", files=form)
    stolen = f"/_flashfw/jobs/{first.headers['flashfw-job']}/files/i0"

    answer = await shop.post("/measure", {"image": {"$file": stolen}})

    assert (await shop.get(stolen)).content == b"secret"
    assert (answer.status_code, "none of this job" in answer.text) == (422, True)


async def test_a_form_that_does_not_fit_is_refused_and_nothing_is_kept(alone: Served) -> None:
    async def sent(**parts: tuple[str | None, bytes]) -> tuple[int, str]:
        answer = await alone.client.post(alone.url + "/measure", files=parts)
        return answer.status_code, answer.json()["error"]["message"]

    assert "'imagee' takes no file; files go to 'image'" in (await sent(imagee=("a", b"a")))[1]
    assert "give the part a file name (curl -F image=@FILE)" in (await sent(image=(None, b"a")))[1]
    assert "the part 'input' is no JSON" in (await sent(image=("a", b"a"), input=(None, b"{")))[1]
    assert (
        "is in the part 'input' and a part of its own"
        in (await sent(image=("a", b"a"), size=(None, b"1"), input=(None, b'{"size": 1}')))[1]
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    cut = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\nabc'
    torn = await alone.client.post(alone.url + "/measure", content=cut, headers=headers)
    assert (torn.status_code, "ends before its last boundary" in torn.text) == (422, True)
    two = await alone.client.post(alone.url + "/several", content=b"x", headers={"content-type": "image/png"})
    assert (two.status_code, "send multipart/form-data" in two.text) == (415, True)
    assert folders(alone) == []


async def test_a_form_has_so_many_parts_and_no_more(alone: Served) -> None:
    async def sent(tags: int) -> httpx.Response:
        files = [("image", ("a", b"a")), *(("tags", (None, b"t")) for _ in range(tags))]
        return await alone.client.post(alone.url + "/measure", files=files)

    fits, more = await sent(MOST_PARTS - 1), await sent(MOST_PARTS)

    assert fits.status_code == 200
    assert (more.status_code, f"it has more than {MOST_PARTS} parts" in more.text) == (422, True)
    assert folders(alone) == [fits.headers["flashfw-job"]]


async def test_more_than_max_body_is_refused_while_it_arrives(alone: Served) -> None:
    async def pieces():
        for _ in range(3):
            yield b"x" * 1000

    headers = {"content-type": "text/plain"}
    told = await alone.client.post(alone.url + "/short", content=b"x" * 2001, headers=headers)
    found = await alone.client.post(alone.url + "/short", content=pieces(), headers=headers)
    fits = await alone.client.post(alone.url + "/short", content=b"x" * 2000, headers=headers)

    assert (told.status_code, found.status_code, fits.status_code) == (413, 413, 200)
    assert folders(alone) == [fits.headers["flashfw-job"]]


async def test_a_file_comes_back_raw_or_as_a_reference(shop: Served) -> None:
    async def call(accept: str) -> httpx.Response:
        return await shop.client.post(
            shop.url + "/upper", files={"text": ("a.txt", b"hello")}, headers={"accept": accept}
        )

    raw = await call("*/*")
    text = await call("text/*, application/json;q=0.5")
    reference = await call("application/json")
    other = await call("image/png")

    assert (raw.content, raw.headers["content-type"]) == (b"HELLO", "text/plain")
    assert raw.headers["content-disposition"] == 'attachment; filename="upper.txt"'
    assert raw.headers["x-content-type-options"] == "nosniff"
    assert text.content == b"HELLO"
    kept = reference.json()
    assert (kept["name"], kept["content_type"], kept["size"]) == ("upper.txt", "text/plain", 5)
    assert other.json()["name"] == "upper.txt"
    whole = await shop.get(kept["$file"])
    part = await shop.get(kept["$file"], range="bytes=1-2")
    assert (whole.content, part.status_code, part.content) == (b"HELLO", 206, b"EL")
    assert part.headers["content-range"] == "bytes 1-2/5"
    assert (await shop.client.head(shop.url + kept["$file"])).headers["content-length"] == "5"


@pytest.mark.parametrize("entry", ["..%2f..%2fjobs.sqlite", "../../jobs.sqlite", "i0.json", "i9", ""])
async def test_only_files_of_the_job_are_served(shop: Served, entry: str) -> None:
    done = await shop.client.post(shop.url + "/upper", files={"text": ("a.txt", b"hello")})

    answer = await shop.get(f"/_flashfw/jobs/{done.headers['flashfw-job']}/files/{entry}")

    assert answer.status_code == 404


async def test_lists_optional_ones_and_results_that_hold_files(shop: Served) -> None:
    parts = [("pages", ("1.txt", b"one")), ("pages", ("2.txt", b"two")), ("cover", ("c.txt", b"cover"))]
    answer = await shop.client.post(shop.url + "/several", files=parts, data={"title": "T"})
    lone = await shop.client.post(shop.url + "/several", files=[("pages", ("1.txt", b"one"))])

    got = answer.json()
    assert (got["title"], got["pages"]) == ("T", ["1.txt", "2.txt"])
    assert (await shop.get(got["first"]["$file"])).content == b"one"
    assert (await shop.get(got["cover"]["$file"])).content == b"cover"
    assert lone.json()["pages"] == ["1.txt"]
    assert lone.json()["cover"] is None


async def test_a_retry_sees_the_same_read_only_file(shop: Served) -> None:
    good = await shop.client.post(shop.url + "/retried", files={"data": ("a", b"same")})
    spoilt = await shop.client.post(shop.url + "/retried", files={"data": ("a", b"same")}, data={"spoil": "true"})

    assert good.json() == [2, "same", "0o444"]
    assert "was changed by an earlier attempt" in spoilt.json()["error"]["message"]


async def test_the_story_of_a_job_with_files(shop: Served) -> None:
    headers = {"accept": "text/event-stream"}
    answer = await shop.client.post(shop.url + "/upper", files={"text": ("a", b"x")}, headers=headers)

    last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last[6:])["output"]["$file"].startswith("/_flashfw/jobs/")


async def test_the_same_idempotency_key_and_files_are_the_same_job(alone: Served) -> None:
    async def call(data: bytes) -> httpx.Response:
        headers = {"idempotency-key": "k1"}
        return await alone.client.post(alone.url + "/measure", files={"image": ("a", data)}, headers=headers)

    first, again, other = await call(b"one"), await call(b"one"), await call(b"two")

    assert first.headers["flashfw-job"] == again.headers["flashfw-job"]
    assert other.status_code == 409
    assert folders(alone) == [first.headers["flashfw-job"]]


async def test_a_client_that_leaves_in_the_middle_leaves_no_file(alone: Served) -> None:
    begun = anyio.Event()

    async def pieces():
        yield b"x" * 1_000_000
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            await alone.client.post(alone.url + "/measure", content=pieces(), headers={"content-type": "image/png"})

        tasks.start_soon(call)
        await begun.wait()
        tasks.cancel_scope.cancel()

    await alone.event("request", lambda event: event.fields["status"] == 499)
    assert folders(alone) == []


async def test_files_in_http_functions(shop: Served) -> None:
    form = await shop.client.post(
        shop.url + "/photos", files={"photo": ("cat.png", b"x" * 2_000_000)}, data={"title": "C"}
    )
    raw = await shop.client.post(shop.url + "/photos?title=D", content=b"raw", headers={"content-type": "image/png"})
    back = await shop.client.put(
        shop.url + "/photos", files={"photo": ("a.txt", b"0123456789")}, headers={"range": "bytes=2-4"}
    )

    assert (form.json()["title"], form.json()["name"], form.json()["bytes"]) == ("C", "cat.png", 2_000_000)
    assert (raw.json()["title"], raw.json()["bytes"]) == ("D", 3)
    assert not Path(form.json()["path"]).exists()
    assert not Path(raw.json()["path"]).exists()
    assert back.headers["content-type"] == "image/png"
    assert 'filename="cat.png"' in back.headers["content-disposition"]
    assert (back.status_code, back.content) in ((206, b"234"), (200, b"0123456789"))  # of a PUT no range is needed
    made = await shop.get("/made", range="bytes=2-4")
    assert (made.status_code, made.content, made.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert (await shop.get("/made")).headers["accept-ranges"] == "bytes"
    unchosen = await shop.client.post(shop.url + "/made", files={"photo": ("", b"")}, data={"title": "C"})
    assert unchosen.json() == {"title": "C", "chosen": False}


async def test_files_survive_a_restart_and_go_with_their_job(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    go = tmp_path / "go"
    files = {**FILES, "endpoints/waits/endpoint.toml": "result_ttl = '10s'\n"}
    async with serving(tmp_path, files, environ=dev_environ) as first:
        headers = {"prefer": "respond-async"}
        form = {"data": ("a.txt", b"patience")}
        sent = await first.client.post(first.url + "/waits", files=form, data={"go": str(go)}, headers=headers)
        assert sent.status_code == 202
        job = sent.json()["id"]
        folder = next((tmp_path / ".flashfw").rglob("files"))
        with closing(sqlite3.connect(folder.parent / "jobs.sqlite")) as jobs:
            assert jobs.execute("SELECT home FROM jobs WHERE id = ?", (job,)).fetchone() == (home_of(folder),)
        stray = folder / "01a00000-0000-7000-8000-000000000000"
        stray.mkdir()
    go.touch()
    async with serving(tmp_path, files, environ=dev_environ) as second:
        record = await second.status(job, "waits", until=ended)
        folders_then = folders(second)

    assert record["output"] == "patience"
    assert folders_then == [job]
    assert not stray.exists()


class _Known:
    """A store that knows these jobs."""

    def __init__(self, *jobs: str) -> None:
        self.jobs = set(jobs)

    async def get(self, job_id: str) -> str | None:
        return job_id if job_id in self.jobs else None


ONE, TWO = "01a00000-0000-7000-8000-000000000001", "01a00000-0000-7000-8000-000000000002"


async def test_what_the_store_forgets_is_swept_but_not_what_arrives(tmp_path: Path) -> None:
    files, store = JobFiles(tmp_path), _Known(ONE)
    async with files.arriving(ONE, store) as spool:
        await spool.finish(spool.begin("a", ""))
    async with files.arriving(TWO, store) as spool:
        await spool.finish(spool.begin("b", ""))
        (tmp_path / "a stranger").mkdir()
        assert await files.sweep(store) == 0
        assert sorted(os.listdir(tmp_path)) == [ONE, TWO, "a stranger"]
    assert sorted(os.listdir(tmp_path)) == [ONE, "a stranger"]  # its job was not kept

    store.jobs.clear()

    assert await files.sweep(store) == 1
    assert os.listdir(tmp_path) == ["a stranger"]


def test_servers_that_share_a_folder_of_files_know_it_by_one_name(tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(tmp_path / "one")

    assert home_of(tmp_path / "one") == home_of(tmp_path / "mounted") != home_of(tmp_path / "two")
    assert os.listdir(tmp_path / "one") == ["home"]


async def _fill(spool: Spool) -> None:
    part = spool.begin("large", "")
    for _ in range(100):
        await spool.write(part, b"x" * 1_000_000)


async def test_a_full_disk_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    room = RESERVE_BYTES + 20_000_000
    files = JobFiles(tmp_path, free=lambda folder: room - sum(path.stat().st_size for path in folder.rglob("i*")))
    store = _Known()
    with pytest.raises(DiskFull, match="no room"):
        async with files.arriving(ONE, store) as spool:
            spool.expect(20_000_001)
    with pytest.raises(DiskFull, match="no room"):
        async with files.arriving(ONE, store) as spool:
            await _fill(spool)

    assert os.listdir(tmp_path) == []


async def test_files_are_on_the_disk_before_their_job_is_kept_where_jobs_outlast_a_power_cut(tmp_path: Path) -> None:
    synced: list[str] = []

    def sync(folder: Path, entries: Iterable[str]) -> None:
        synced.extend((folder / entry).read_text() for entry in entries)
        assert sorted(os.listdir(folder)) == ["i0", "i0.json", "i1", "i1.json"]

    store = _Known()
    for is_synced, expected in ((False, []), (True, ["one", "two"])):
        async with JobFiles(tmp_path, is_synced=is_synced, sync=sync).arriving(ONE, store) as spool:
            for text in (b"one", b"two"):
                part = spool.begin("a.txt", "")
                await spool.write(part, text)
                await spool.finish(part)
            await spool.settle()
            assert synced == expected


async def test_a_disk_that_fails_at_the_end_keeps_no_job(tmp_path: Path) -> None:
    def full(folder: Path, entries: Iterable[str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    uploads = Uploads(JobFiles(tmp_path, is_synced=True, sync=full), _Known(), SystemClock())

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"data"}

    function = SimpleNamespace(id="takes", files=("data",))
    target = SimpleNamespace(
        dispatcher=SimpleNamespace(endpoint=SimpleNamespace(max_upload_bytes=None)), function=function
    )
    with pytest.raises(Refused) as refused:
        async with uploads.received({"headers": [], "query_string": b""}, receive, target):
            raise AssertionError("it was received")

    assert (refused.value.status, os.listdir(tmp_path)) == (507, ["home"])


async def test_a_full_disk_is_507(tmp_path: Path) -> None:
    uploads = Uploads(JobFiles(tmp_path, free=lambda folder: 0), _Known(), SystemClock())
    endpoint = SimpleNamespace(max_upload_bytes=None)
    target = SimpleNamespace(dispatcher=SimpleNamespace(endpoint=endpoint))

    with pytest.raises(Refused) as refused:
        async with uploads.received({"headers": []}, None, target):
            raise AssertionError("it was received")

    assert (refused.value.status, os.listdir(tmp_path)) == (507, [])
