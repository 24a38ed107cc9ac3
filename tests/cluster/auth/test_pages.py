"""Keys over HTTP and in front of everything: who is let through, who hears what, and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.administered import administering
from tests.cluster.bench import an_endpoint

pytestmark = pytest.mark.anyio

KEYS = "/_flashfw/keys"


async def test_who_has_no_key_an_unknown_a_revoked_or_one_of_the_wrong_scope_is_told_what_to_do(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        admin, caller = bench.a_key("admin"), bench.a_key("call")
        other = bench.a_key("call")
        bench.keys.revoke(other[3:11])
        wrong = other[:-4] + ("AAAA" if not other.endswith("AAAA") else "BBBB")

        said = {}
        for key in (None, "fw_", "nonsense", wrong, other, caller):
            call = await bench.ask(key, "GET", KEYS)
            said[key] = (call.status, call.error["reason"])
            assert "flashfw key" in call.error["hint"]
            assert key is None or len(key) < 40 or key[12:] not in call.body.decode()
        assert set(said.values()) == {(401, "unauthorized"), (403, "forbidden")}
        assert said[caller] == (403, "forbidden")
        assert "revoked" in (await bench.ask(other, "GET", KEYS)).error["message"]
        assert "revoked" not in (await bench.ask(wrong, "GET", KEYS)).error["message"]
        assert (await bench.ask(admin, "GET", KEYS)).status == 200


async def test_keys_are_made_listed_and_revoked_with_an_admin_key(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        admin = bench.a_key("admin", "first")
        status, made = await bench.answer(admin, "POST", KEYS, {"name": "ci", "scope": "call"})
        assert status == 201
        assert (await bench.ask(made["key"], "GET", "/openapi.json")).status == 200

        status, listed = await bench.answer(admin, "GET", KEYS)
        assert {key["name"]: key["scope"] for key in listed["keys"]} == {"first": "admin", "ci": "call"}
        assert all(key["last_used"] for key in listed["keys"])
        assert made["key"][12:] not in str(listed)

        status, revoked = await bench.answer(admin, "DELETE", f"{KEYS}/{made['id']}")
        assert (status, revoked["revoked"]) == (200, bench.clock.now())
        assert (await bench.ask(made["key"], "GET", "/openapi.json")).status == 401
        assert (await bench.answer(admin, "DELETE", f"{KEYS}/00000000"))[0] == 404
        status, refused = await bench.answer(admin, "DELETE", f"{KEYS}/{admin[3:11]}")
        assert (status, refused["error"]["reason"]) == (409, "last_admin")


@pytest.mark.parametrize("body", [[], {}, {"name": 1}, {"name": "", "scope": "call"}, {"name": "a", "scope": "root"}])
async def test_a_key_that_cannot_be_is_refused(tmp_path: Path, body: object) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        status, refused = await bench.answer(bench.a_key("admin"), "POST", KEYS, body)

        assert (status, refused["error"]["reason"]) == (422, "validation")
        assert len(bench.keys.all()) == 1


async def test_two_keys_may_use_the_same_idempotency_key(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        one, two = bench.a_key(), bench.a_key()

        async def send(key: str, value: int) -> tuple[int, str]:
            wanted = {"prefer": "respond-async", "content_type": "application/json", "idempotency_key": "k"}
            call = await bench.ask(key, "POST", "/gpu", {"input": value}, **wanted)
            return call.status, call.headers.get("flashfw-job", "")

        first, second = await send(one, 1), await send(two, 2)
        assert (first[0], second[0]) == (202, 202)
        assert first[1] != second[1]
        assert await send(one, 1) == first
        assert (await send(two, 1))[0] == 409
        job = await bench.store.get(first[1])
        assert job is not None
        assert job.principal == one[3:11]


async def test_a_revoked_key_hears_no_more_of_a_stream_that_it_began(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        key, other = bench.a_key(), bench.a_key()
        made = await bench.ask(key, "POST", "/gpu", {"input": 1}, prefer="respond-async")
        events = f"/_flashfw/jobs/{made.headers['flashfw-job']}/events"
        revoked, kept = await bench.ask(key, "GET", events), await bench.ask(other, "GET", events)
        waiting = await bench.call("POST", "/gpu", b'{"input": 2}', authorization=f"Bearer {key}")
        assert b"started" in revoked.body
        heard = revoked.body
        await bench.state.call(bench.keys.revoke, key[3:11])

        bench.worker.result()
        await bench.settle()
        assert revoked.is_over
        assert not revoked.is_whole
        assert revoked.body == heard
        assert b"completed" in kept.body
        assert kept.is_whole
        assert any("revoked" in fields.get("cut", "") for fields in bench.named("request"))
        bench.worker.result()
        await bench.settle()
        assert (waiting.status, waiting.is_whole) == (200, True), "what was accepted is answered"


async def test_a_public_function_needs_none_and_takes_any_authorization(tmp_path: Path) -> None:
    from tests.cluster.bench import a_function

    public = an_endpoint(functions=(a_function("gpu", public=True),))
    async with administering(tmp_path, public) as bench:
        for headers in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer theirs"}):
            call = await bench.call("POST", "/gpu", b"{}", prefer="respond-async", **headers)
            assert call.status == 202
        assert (await bench.call("GET", "/openapi.json")).status == 401


async def test_no_key_is_in_any_event(tmp_path: Path) -> None:
    async with administering(tmp_path, an_endpoint()) as bench:
        key, admin = bench.a_key(), bench.a_key("admin")
        await bench.ask(key, "POST", "/gpu", {"input": 1}, prefer="respond-async")
        await bench.ask(admin, "POST", KEYS, {"name": key, "scope": key})
        await bench.ask(admin, "DELETE", f"{KEYS}/nothing")

        assert key[12:] not in str(bench.events)
        assert admin[12:] not in str(bench.events)
