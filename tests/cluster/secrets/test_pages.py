"""Secrets over HTTP, and what workers get of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashfw.cluster.logs.reading import Query
from flashfw.manifest import Variable
from tests.cluster.administered import administering
from tests.cluster.bench import an_endpoint
from tests.cluster.scripted import ScriptedProcess

pytestmark = pytest.mark.anyio

SECRETS = "/_flashfw/secrets"
TOKEN = Variable(name="HF_TOKEN", value="TOKEN")


async def test_setting_a_secret_rolls_who_needs_it_and_nobody_else(tmp_path: Path) -> None:
    endpoints = an_endpoint("gpu", secrets=(TOKEN,), workers_min=1), an_endpoint("cpu", workers_min=1)
    async with administering(tmp_path, *endpoints) as bench:
        admin = bench.a_key("admin")
        assert bench.named("start_failed")[0]["failure"]["message"].startswith("gpu needs the secret TOKEN")
        assert await bench.answer(admin, "PUT", f"{SECRETS}/TOKEN", {"value": "first-value"}) == (
            200,
            {"name": "TOKEN", "changed": True, "rolls": ["gpu"]},
        )
        await bench.settle()
        gpu, cpu = sorted(bench.workers, key=lambda worker: worker.spec.endpoint, reverse=True)
        assert gpu.spec.environ["HF_TOKEN"] == "first-value"
        assert "HF_TOKEN" not in cpu.spec.environ

        assert (await bench.answer(admin, "PUT", f"{SECRETS}/TOKEN", {"value": "first-value"}))[1]["rolls"] == []
        assert (await bench.answer(admin, "PUT", f"{SECRETS}/OTHER", {"value": "nobody's"}))[1]["rolls"] == []
        await bench.answer(admin, "PUT", f"{SECRETS}/TOKEN", {"value": "second-value"})
        await bench.settle()
        assert gpu not in bench.workers
        assert cpu in bench.workers
        assert [worker.spec.environ.get("HF_TOKEN") for worker in bench.workers] == [None, "second-value"]


async def test_names_and_dates_are_told_and_never_a_value(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint("gpu", secrets=(TOKEN,))) as bench:
        admin = bench.a_key("admin")
        await bench.answer(admin, "PUT", f"{SECRETS}/TOKEN", {"value": "hunter-22"})
        status, listed = await bench.answer(admin, "GET", SECRETS)

        now = bench.clock.now()
        assert (status, listed) == (
            200,
            {"secrets": [{"name": "TOKEN", "created": now, "updated": now, "endpoints": ["gpu"]}]},
        )
        assert "hunter-22" not in str(bench.events)
        for method, path in (("GET", SECRETS), ("PUT", f"{SECRETS}/TOKEN"), ("DELETE", f"{SECRETS}/TOKEN")):
            assert (await bench.ask(bench.a_key("call"), method, path, {"value": "x"})).status == 403


async def test_what_the_current_release_needs_is_removed_by_force_alone(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint("gpu", secrets=(TOKEN,))) as bench:
        admin = bench.a_key("admin")
        bench.secrets.set("TOKEN", "hunter-22")
        status, refused = await bench.answer(admin, "DELETE", f"{SECRETS}/TOKEN")
        assert (status, refused["error"]["reason"], refused["error"]["endpoints"]) == (409, "needed", ["gpu"])
        assert "TOKEN" in bench.secrets.values

        assert (await bench.answer(admin, "DELETE", f"{SECRETS}/TOKEN", query="force=1"))[0] == 200
        assert (await bench.answer(admin, "DELETE", f"{SECRETS}/TOKEN", query="force=1"))[0] == 404
        assert dict(bench.secrets.values) == {}


@pytest.mark.parametrize("value", [None, 1, "", "a\0b", ["hunter-22"]])
async def test_a_value_that_cannot_be_is_refused_without_being_quoted(tmp_path: Path, value: object) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        call = await bench.ask(bench.a_key("admin"), "PUT", f"{SECRETS}/a-b", {"value": value})
        await call.answer

        assert (call.status, call.error["reason"]) == (422, "validation")
        assert "hunter-22" not in call.body.decode()
        assert bench.secrets.all() == []


async def test_the_last_output_of_a_worker_that_did_not_start_is_shown_without_the_secret(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint("gpu", secrets=(TOKEN,))) as bench:
        bench.secrets.set("TOKEN", "hunter-22")

        def dies(process: ScriptedProcess) -> None:
            process.last_output = "no luck with hunter-22"
            process.die(1)

        bench.placement.on_start = dies
        await bench.ask(bench.a_key(), "POST", "/gpu", {}, prefer="respond-async")
        await bench.advance(1.0)
        assert "no luck with [redacted]" in bench.named("start_failed")[0]["failure"]["message"]
        status, standing = await bench.answer(bench.a_key("admin"), "GET", "/_flashfw/status")

        assert status == 200
        assert "hunter-22" not in str(standing)
        assert "hunter-22" not in str(bench.events)
        logged = await bench.logs.read(["gpu"], Query())
        assert b"hunter-22" not in b"".join(logged)
        assert b"[redacted]" in b"".join(logged)


async def test_a_body_that_is_no_secret_is_refused_in_words_of_its_page(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        admin = bench.a_key("admin")
        for body in ([], None, "text", {}, {"value": 1}):
            status, told = await bench.answer(admin, "PUT", f"{SECRETS}/TOKEN", body)
            assert (status, told["error"]["reason"]) == (422, "validation")
        status, told = await bench.answer(admin, "PUT", f"{SECRETS}/TOKEN", {"value": "x" * 1_000_000})
        assert (status, told["error"]["reason"]) == (413, "too_large")
        assert "this page" in told["error"]["message"]
        assert (await bench.answer(admin, "GET", SECRETS))[1] == {"secrets": []}
