"""Two `flashfw dev` of two copies of a project on one database: one queue, and nothing is lost when one dies."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import psycopg
import pytest

from flashfw.cluster.jobs.opening import schema_of
from tests.conftest import StartDev
from tests.dev_process import DevServer, wait_until
from tests.postgres_server import PASSWORD, PostgresServer
from tests.served import write

JOBS = 60

FILES = {
    "endpoints/note/endpoint.toml": "workers = 1\n",
    "endpoints/note/handler.py": """
        import time

        def handler(n: int) -> int:
            time.sleep(0.02)
            return n * n
        """,
    "endpoints/hold/endpoint.toml": "workers = 1\n",
    "endpoints/hold/handler.py": """
        import asyncio
        from pathlib import Path

        async def handler(until: str = "") -> str:
            here = Path.cwd().name
            if until:
                Path(until).with_suffix(".begun").write_text(here)
            try:
                while until and not Path(until).exists():
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                Path(until).with_suffix(".stopped").write_text(here)
                raise
            return here
        """,
}


@pytest.fixture
def pair(flashfw_dev: StartDev, tmp_path: Path, postgres: PostgresServer) -> tuple[DevServer, DevServer]:
    name = f"shop-{uuid.uuid4().hex[:8]}"
    files = {**FILES, "flashfw.toml": f'[project]\nname = "{name}"\n'}
    one, two = (flashfw_dev(write(tmp_path / folder, files), "--database", postgres.url) for folder in ("one", "two"))
    return one, two


def test_a_caller_of_one_server_gets_the_answer_of_the_other(pair: tuple[DevServer, DevServer], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held = submit(pair[0], "hold", {"until": str(gate)})
    taken_by, other = _by_who_began(pair, gate)

    assert taken_by.call("/hold", {}) == other.project.name

    cancelled = other.request("POST", f"/v2/hold/cancel/{held}").json()
    assert cancelled["status"] == "CANCELLED"  # type: ignore[index]
    wait_until(lambda: gate.with_suffix(".stopped").exists(), "its work is stopped at the other server")
    assert gate.with_suffix(".stopped").read_text() == taken_by.project.name
    assert status(taken_by, "hold", held)["status"] == "CANCELLED"


def test_what_a_killed_server_had_is_done_by_the_other(pair: tuple[DevServer, DevServer], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ids = [submit(pair[n % 2], "note", {"n": n}) for n in range(JOBS)]
    held = submit(pair[0], "hold", {"until": str(gate)})
    dying, left = _by_who_began(pair, gate)
    wait_until(lambda: health(left, "note")["completed"] > 0, "some job is done")
    dying.crash()
    gate.touch()

    assert left.call("/note", {"n": 7}) == 49
    wait_until(lambda: health(left, "note")["completed"] == JOBS + 1, "all jobs are done", deadline_s=60)
    wait_until(lambda: status(left, "hold", held)["status"] == "COMPLETED", "the job that ran is done anew")

    assert status(left, "hold", held)["output"] == left.project.name
    records = [status(left, "note", job_id) for job_id in ids]
    assert [(record["status"], record["output"]) for record in records] == [("COMPLETED", n * n) for n in range(JOBS)]
    assert health(left, "note") == {"completed": JOBS + 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}


def test_each_says_what_it_serves_so_that_no_other_ends_its_jobs(
    pair: tuple[DevServer, DevServer], postgres: PostgresServer
) -> None:
    one, two = pair
    name = (one.project / "flashfw.toml").read_text().split('"')[1]
    schema = schema_of(name, "dev")

    def served() -> list[list[str] | None]:
        with psycopg.connect(postgres.url) as database:
            rows = database.execute(f'SELECT functions FROM "{schema}".servers').fetchall()
        return sorted((functions for (functions,) in rows), key=lambda functions: functions or [])

    handler = two.project / "endpoints/extra/handler.py"
    write(two.project, {"endpoints/extra/handler.py": "def handler() -> int:\n    return 1\n"})
    wait_until(lambda: served() == [["extra", "hold", "note"], ["hold", "note"]], "the second one has one more")
    handler.write_text("def handler(")
    wait_until(lambda: served() == [None, ["hold", "note"]], "it cannot tell what it has")
    shutil.rmtree(handler.parent)
    wait_until(lambda: served() == [["hold", "note"]] * 2, "it has no more than the first one")


def _by_who_began(pair: tuple[DevServer, DevServer], gate: Path) -> tuple[DevServer, DevServer]:
    """The server whose worker has the job that waits for the gate, and the other one."""
    begun = gate.with_suffix(".begun")
    wait_until(lambda: begun.exists() and begun.read_text() != "", "a worker has the job")
    return pair if begun.read_text() == pair[0].project.name else (pair[1], pair[0])


def submit(server: DevServer, function: str, value: object) -> str:
    body = json.dumps({"input": value}).encode()
    answer = server.request("POST", f"/v2/{function}/run", body, content_type="application/json")
    assert answer.status == 200, answer.body
    return str(answer.json()["id"])  # type: ignore[index]


def status(server: DevServer, function: str, job_id: str) -> dict[str, object]:
    return dict(server.request("GET", f"/v2/{function}/status/{job_id}").json())  # type: ignore[call-overload]


def health(server: DevServer, function: str) -> dict[str, int]:
    return dict(server.request("GET", f"/v2/{function}/health").json()["jobs"])  # type: ignore[index]


def test_a_server_goes_on_when_its_database_was_killed(
    flashfw_dev: StartDev, tmp_path: Path, own_postgres: PostgresServer
) -> None:
    server = flashfw_dev(write(tmp_path / "one", FILES), "--database", own_postgres.url)
    gate = tmp_path / "gate"
    held = submit(server, "hold", {"until": str(gate)})
    wait_until(gate.with_suffix(".begun").exists, "the worker has the job")
    kept = submit(server, "note", {"n": 3})
    own_postgres.crash()
    refused = server.request("POST", "/note", b'{"n": 4}', content_type="application/json")
    gate.touch()  # what ends meanwhile is kept until it can be written

    own_postgres.start()
    wait_until(lambda: status(server, "hold", held).get("status") == "COMPLETED", "the end of the held job is kept")
    wait_until(lambda: status(server, "note", kept).get("status") == "COMPLETED", "the waiting job is done")
    assert server.call("/note", {"n": 5}) == 25
    assert refused.status == 503, refused.body
    assert PASSWORD not in refused.body.decode() + server.output()
