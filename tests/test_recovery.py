"""The server killed at any moment: every accepted job is there, gets done, and has one terminal record."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.conftest import StartDev
from tests.dev_process import wait_until
from tests.served import write

JOBS = 300
KILLS = 3

FILES = {
    "endpoints/note/endpoint.toml": "workers = [1, 2]\n",
    "endpoints/note/handler.py": """
        import time

        def handler(n: int) -> int:
            time.sleep(0.01)
            return n * n
        """,
}


def test_three_killed_servers_lose_no_job(flashfw_dev: StartDev, tmp_path: Path) -> None:
    project = write(tmp_path / "shop", FILES)
    accepted: dict[str, int] = {}
    ends: Counter[str] = Counter()
    for _ in range(KILLS):
        server = flashfw_dev(project)
        for n in range(len(accepted), len(accepted) + JOBS // KILLS):
            answer = server.request(
                "POST", "/v2/note/run", json.dumps({"input": {"n": n}}).encode(), content_type="application/json"
            )
            accepted[answer.json()["id"]] = n  # type: ignore[index]
        wait_until(lambda: _done(project) > len(ends), "some job is done")
        server.crash()
        ends.update(_terminal(project))

    server = flashfw_dev(project)
    wait_until(lambda: _done(project) == JOBS, "all jobs are done", deadline_s=60)

    for job_id, n in accepted.items():
        record = server.request("GET", f"/v2/note/status/{job_id}").json()
        assert (record["status"], record["output"]) == ("COMPLETED", n * n)  # type: ignore[index]


def _terminal(project: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{project}/.flashfw/jobs.sqlite?mode=ro", uri=True)) as database:
        return [row[0] for row in database.execute("SELECT id FROM jobs WHERE state = 'COMPLETED'")]


def _done(project: Path) -> int:
    return len(_terminal(project))


FLAKY = {
    "endpoints/flaky/endpoint.toml": "retries = {max = 1, backoff = '4s'}\nworkers = 1\n",
    "endpoints/flaky/handler.py": """
        from flashfw import Job

        def handler(job: Job) -> int:
            if job.attempt == 1:
                raise OSError("come again")
            return job.attempt
        """,
}


def test_a_job_that_waits_for_a_retry_is_tried_again_by_the_next_server(flashfw_dev: StartDev, tmp_path: Path) -> None:
    project = write(tmp_path / "shop", FLAKY)
    server = flashfw_dev(project)
    answer = server.request("POST", "/v2/flaky/run", b'{"input": {}}', content_type="application/json")
    job_id = answer.json()["id"]  # type: ignore[index]
    wait_until(lambda: "RETRY" in server.output(), "the first attempt failed")
    server.crash()

    server = flashfw_dev(project)
    wait_until(lambda: _done(project) == 1, "the second attempt is done")
    record = server.request("GET", f"/v2/flaky/status/{job_id}").json()
    assert (record["status"], record["output"]) == ("COMPLETED", 2)  # type: ignore[index]
