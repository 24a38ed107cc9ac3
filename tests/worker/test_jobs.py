from __future__ import annotations

import json
from pathlib import Path

from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, job, write


def test_a_job_answers(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/echo/handler.py": "def handler(n: int):\n    return {'n': n + 1}\n"})
    with Worker(tmp_path, endpoint(job("echo"))) as worker:
        ready = worker.ready()
        assert ready["pid"] == worker.process.pid
        assert ready["files"] == ["endpoints/echo/handler.py"]
        assert json.loads(worker.result("echo", b'{"n": 1}')) == {"n": 2}
        assert worker.drain() == 0


def test_an_async_job_answers(tmp_path: Path) -> None:
    write(tmp_path, {"endpoints/echo/handler.py": "async def handler(n: int):\n    return n\n"})
    with Worker(tmp_path, endpoint(job("echo"))) as worker:
        worker.ready()
        calls = [worker.call("echo", b'{"n": %d}' % n) for n in range(50)]
        assert [worker.end(call).body for call in calls] == [b"%d" % n for n in range(50)]
        assert worker.next(Kind.BEAT).meta["blocked_s"] == 0
        assert worker.drain() == 0
