"""`flashfw dev` follows what is saved: what rolls, what stays, and what a broken save does."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from flashfw.cluster.events import Event
from flashfw.dev import server
from flashfw.errors import NothingCollectedError, TargetError, UsageError
from flashfw.project import root, select
from tests.served import Served, serving, write

pytestmark = pytest.mark.anyio

FILES = {
    "lib/words.py": "GREETING = 'hello'\n",
    "endpoints/greet/handler.py": """
        import os
        from lib.words import GREETING

        def handler(name: str) -> list:
            return [f"{GREETING} {name}", os.getpid()]
        """,
    "endpoints/other/handler.py": """
        import os

        def handler() -> int:
            return os.getpid()
        """,
    "endpoints/api/handler.py": """
        def get() -> dict[str, int]:
            return {"version": 1}
        """,
}


@pytest.fixture
async def shop(tmp_path: Path, dev_environ: dict[str, str]) -> AsyncIterator[Served]:
    async with serving(tmp_path, FILES, environ=dev_environ) as served:
        yield served


async def save(shop: Served, name: str, text: str, *, event: str = "reloaded") -> None:
    seen = len(shop.events)
    write(shop.folder, {name: text})
    await shop.event(event, after=seen)


async def test_a_saved_file_is_taken_in_by_the_workers_that_loaded_it(shop: Served) -> None:
    (before, pid), other = (await shop.post("/greet", {"name": "you"})).json(), (await shop.post("/other", {})).json()

    await save(shop, "lib/words.py", "GREETING = 'good day'\n", event="renewed")

    assert before == "hello you"
    assert (await shop.post("/greet", {"name": "you"})).json() == ["good day you", pid]
    assert (await shop.post("/other", {})).json() == other
    assert [(event.endpoint, event.fields["files"]) for event in shop.named("renewed")] == [("greet", ["lib/words.py"])]


async def test_edits_of_the_same_length_are_all_seen(shop: Served) -> None:
    await shop.post("/greet", {"name": "you"})

    for word in ("aloha", "salve", "howdy", "hello"):
        await save(shop, "lib/words.py", f"GREETING = '{word}'\n", event="renewed")
        assert (await shop.post("/greet", {"name": "you"})).json()[0] == f"{word} you"


async def test_changed_fixtures_take_a_new_process(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    files = {
        "endpoints/fixtures.py": "import os\n\ndef model() -> int:\n    return os.getpid()\n",
        "endpoints/a/handler.py": "def handler(model) -> list:\n    return ['one', model]\n",
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        _, model = (await shop.post("/a", {})).json()
        await save(
            shop, "endpoints/a/handler.py", files["endpoints/a/handler.py"].replace("one", "two"), event="renewed"
        )
        kept = (await shop.post("/a", {})).json()
        await save(shop, "endpoints/fixtures.py", files["endpoints/fixtures.py"] + "# again\n", event="replacing")
        await shop.event("worker", lambda event: event.fields["state"] == "GONE")

        assert kept == ["two", model]
        assert (await shop.post("/a", {})).json()[1] != model
        (replacing,) = shop.named("replacing")
        assert replacing.fields["why"] == "endpoints/fixtures.py: fixtures are built anew"


async def test_a_function_that_a_save_adds_is_served(shop: Served) -> None:
    await shop.get("/api")

    await save(shop, "endpoints/api/handler.py", "def post() -> str:\n    return 'posted'\n", event="renewed")

    assert (await shop.post("/api", {})).json() == "posted"
    assert (await shop.get("/api")).status_code == 405
    assert list((await shop.get("/openapi.json")).json()["paths"]["/api"]) == ["post"]


async def test_a_worker_that_starts_as_files_are_saved_serves_the_new_code(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    source = """
        import time
        from pathlib import Path
        def model() -> str:
            print("began", flush=True)
            while not Path("gate").exists():
                time.sleep(0.01)
            return "model"
        """
    files = {
        "endpoints/fixtures.py": source,
        "endpoints/a/handler.py": "def get(model) -> list:\n    return ['old', model]\n",
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        answers: list[object] = []

        async def ask() -> None:
            answers.append((await shop.get("/a")).json())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await shop.event("output", lambda event: "began" in event.fields["text"])
            await save(shop, "endpoints/a/handler.py", files["endpoints/a/handler.py"].replace("old", "new"))
            (tmp_path / "gate").touch()

    assert answers == [["new", "model"]]
    assert len([event for event in shop.named("worker") if event.fields["state"] == "INITIALIZING"]) == 1


async def test_a_broken_save_is_told_once_while_the_last_good_code_serves(shop: Served) -> None:
    good = (await shop.post("/greet", {"name": "you"})).json()

    await save(shop, "endpoints/greet/handler.py", "def handler(name:\n", event="problems")
    (problem,) = shop.named("problems")[-1].fields["problems"]
    during = (await shop.post("/greet", {"name": "you"})).json()
    mended = "def handler(name: str) -> str:\n    return name\n"
    await save(shop, "endpoints/greet/handler.py", mended, event="renewed")

    assert (problem.file, problem.line) == ("endpoints/greet/handler.py", 1)
    assert during == good
    assert (await shop.post("/greet", {"name": "you"})).json() == "you"


async def test_code_that_raises_on_import_leaves_the_old_workers_serving(shop: Served) -> None:
    good = (await shop.post("/greet", {"name": "you"})).json()

    await save(shop, "endpoints/greet/handler.py", "import nowhere_to_be_found\n\ndef handler(name: str): ...\n")
    failed = await shop.event("start_failed")

    assert "nowhere_to_be_found" in failed.fields["failure"]["message"]
    assert failed.fields["failure"]["place"] == "endpoints/greet/handler.py:1"
    assert (await shop.post("/greet", {"name": "you"})).json() == good
    await save(shop, "endpoints/greet/handler.py", "def handler(name: str) -> str:\n    return name\n", event="renewed")
    assert (await shop.post("/greet", {"name": "you"})).json() == "you"


async def test_a_file_that_keeps_new_workers_from_starting_is_mended_by_the_next_save(shop: Served) -> None:
    await shop.post("/greet", {"name": "you"})
    broken = "def model():\n    raise RuntimeError('no model')\n"
    taking = "def handler(name: str, model):\n    return f'{name} {model}'\n"
    write(shop.folder, {"endpoints/greet/fixtures.py": broken, "endpoints/greet/handler.py": taking})
    failed = (await shop.event("start_failed")).fields["worker"]
    await shop.event("worker", lambda event: event.fields["worker"] == failed and event.fields["state"] == "GONE")

    # No worker that runs has loaded it.
    await save(shop, "endpoints/greet/fixtures.py", "def model():\n    return 'here'\n", event="replacing")

    await shop.event("worker", lambda event: event.fields.get("why") == "a newer release took over")
    assert (await shop.post("/greet", {"name": "you"})).json() == "you here"


async def test_a_handler_that_never_worked_answers_with_its_error(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    def is_new(event: Event) -> bool:
        return event.endpoint == "new" and "functions" in event.fields

    async with serving(tmp_path, FILES, environ=dev_environ, describe_after_s=0.1) as shop:
        await save(shop, "endpoints/new/handler.py", "raise RuntimeError('not today')\n\ndef handler(): ...\n")

        answer = await shop.post("/new", {})

        assert answer.status_code == 503
        assert "not today" in answer.json()["error"]["message"]
        await shop.event("described", is_new)
        seen = len(shop.events)
        write(shop.folder, {"endpoints/new/handler.py": "def handler() -> str:\n    return 'now'\n"})
        await shop.event("described", is_new, after=seen)
        assert (await shop.post("/new", {})).json() == "now"


async def test_endpoints_come_and_go_with_their_files(shop: Served) -> None:
    await save(shop, "endpoints/late/handler.py", "def get() -> str:\n    return 'here'\n")
    here = await shop.get("/late")
    seen = len(shop.events)
    (shop.folder / "endpoints/late/handler.py").unlink()
    await shop.event("reloaded", after=seen)

    assert here.json() == "here"
    assert (await shop.get("/late")).status_code == 404


async def test_a_changed_configuration_rolls(shop: Served) -> None:
    first = (await shop.post("/other", {})).json()

    await save(shop, "endpoints/other/endpoint.toml", "[env]\nCOLOUR = 'red'\n")
    await shop.event("worker", lambda event: event.fields["state"] == "GONE")

    assert (await shop.post("/other", {})).json() != first


async def test_a_call_that_runs_finishes_on_the_old_code(shop: Served, tmp_path: Path) -> None:
    source = """
        import time
        from pathlib import Path

        def handler(gate: str) -> str:
            while not Path(gate).exists():
                time.sleep(0.01)
            return "{}"
        """
    await save(shop, "endpoints/slow/handler.py", source.format("old"))
    gate = tmp_path / "gate"
    job_id = (await shop.post("/v2/slow/run", {"input": {"gate": str(gate)}})).json()["id"]
    await shop.status(job_id, "slow", until=lambda record: record["status"] == "IN_PROGRESS")

    await save(shop, "endpoints/slow/handler.py", source.format("new"), event="renewed")
    gate.touch()

    record = await shop.status(job_id, "slow", until=lambda record: record["status"] == "COMPLETED")
    assert record["output"] == "old"
    assert (await shop.post("/slow", {"gate": str(gate)})).json() == "new"


async def test_a_port_in_use_is_named(shop: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    port = int(shop.url.rpartition(":")[2])
    options = _options(write(tmp_path_factory.mktemp("second"), FILES), port)

    with pytest.raises(TargetError, match=f"port {port} on 127.0.0.1 is in use"):
        await server.run(options, emit=shop.take, stop=shop.stopped)


async def test_an_empty_tree_is_nothing_to_serve(shop: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = _options(write(tmp_path_factory.mktemp("empty"), {}), 0)

    with pytest.raises(NothingCollectedError, match="no endpoint"):
        await server.run(options, emit=shop.take, stop=shop.stopped)


async def test_beyond_loopback_a_key_is_needed(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    async with serving(tmp_path, FILES, environ=dev_environ, host="0.0.0.0") as shop:
        (event,) = shop.named("serving")
        key = event.fields["key"]

        assert (await shop.get("/api")).status_code == 401
        assert (await shop.get("/openapi.json")).status_code == 401
        assert (await shop.get("/docs")).status_code == 200  # it has a field for the key
        assert (await shop.get("/api", authorization=f"Bearer {key}")).json() == {"version": 1}


def _options(folder: Path, port: int) -> server.Options:
    return server.Options(root=root.find(folder), host="127.0.0.1", port=port, variables=os.environ, cache=folder)


async def test_only_what_is_selected_is_served(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    selection = select.parse(["greet", "api"], keyword="not api")
    async with serving(tmp_path, FILES, environ=dev_environ, selection=selection) as shop:
        assert (await shop.post("/greet", {"name": "you"})).status_code == 200
        assert (await shop.get("/api")).status_code == 404
        assert (await shop.post("/other", {})).status_code == 404


async def test_an_unknown_id_is_refused(tmp_path: Path) -> None:
    options = _options(write(tmp_path, FILES), 0)

    with pytest.raises(UsageError, match="did you mean 'greet'"):
        await server.run(dataclasses.replace(options, selection=select.parse(["gret"])), emit=print, stop=anyio.Event())


async def test_a_changed_env_file_reaches_those_who_name_its_secrets(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    files = {
        **FILES,
        ".env": "TOKEN=one\n",
        "endpoints/keyed/endpoint.toml": "secrets = ['TOKEN']\n",
        "endpoints/keyed/handler.py": "import os\n\ndef handler() -> str:\n    return os.environ['TOKEN']\n",
    }
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        first, other = (await shop.post("/keyed", {})).json(), (await shop.post("/other", {})).json()

        await save(shop, ".env", "TOKEN=two\nUNASKED=1\n")
        await shop.event("worker", lambda event: event.endpoint == "keyed" and event.fields["state"] == "GONE")

        assert shop.named("reloaded")[-1].fields["roll"] == ("keyed",)
        assert (first, (await shop.post("/keyed", {})).json()) == ("one", "two")
        assert (await shop.post("/other", {})).json() == other


async def test_jobs_that_are_left_are_told_at_the_end_and_at_the_next_start(
    tmp_path: Path, dev_environ: dict[str, str]
) -> None:
    files = {"endpoints/long/handler.py": "import time\n\ndef handler() -> None:\n    time.sleep(600)\n"}
    async with serving(tmp_path, files, environ=dev_environ) as shop:
        assert shop.named("waiting") == []
        job_id = (await shop.post("/v2/long/run", {"input": {}})).json()["id"]
        await shop.status(job_id, "long", until=lambda record: record["status"] == "IN_PROGRESS")
    (stopping,) = shop.named("stopping")
    async with serving(tmp_path, files, environ=dev_environ) as again:
        (waiting,) = again.named("waiting")

    assert (stopping.fields["running"], stopping.fields["queued"]) == (1, 0)
    assert waiting.fields["jobs"] == {"long": 1}


async def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    options = _options(write(tmp_path / "p", FILES), 0)
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(TargetError, match="cannot write the cache .*XDG_CACHE_HOME"):
        await server.run(dataclasses.replace(options, cache=file), emit=print, stop=anyio.Event())
