"""Workers that say of themselves that they can do no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served import serving

pytestmark = pytest.mark.anyio


async def test_an_http_call_that_breaks_its_worker_has_it_replaced(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    handler = """
        import os
        import flashfw

        def get() -> int:
            return os.getpid()

        def delete() -> None:
            raise flashfw.WorkerBroken("the device fell off the bus")
        """
    async with serving(tmp_path, {"endpoints/api/handler.py": handler}, environ=dev_environ) as served:
        first = (await served.get("/api")).json()
        broken = await served.client.delete(served.url + "/api")
        assert (broken.status_code, broken.json()["error"]["type"]) == (500, "WorkerBroken")
        second = (await served.get("/api")).json()
        gone = await served.event("worker", lambda event: event.fields["state"] == "GONE")

    assert first != second
    assert "call broke it: WorkerBroken: the device fell off the bus" in gone.fields["why"]
