"""What a server takes and refuses, what it keeps, and what it is after it was stopped or killed at any point."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest

from flashfw import manifest
from flashfw.cluster.releases.layers import UNUSED_S
from flashfw.cluster.releases.store import KEPT
from flashfw.cluster.state import FILE, State, StateError
from flashfw.manifest import Variable
from tests.cluster.bench import an_endpoint, breaks, waits
from tests.cluster.releases.releasing import answers, packed, releasing

pytestmark = pytest.mark.anyio


async def test_the_next_server_serves_the_current_release(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        running = await bench.shipped(an_endpoint("gpu", workers_min=1))
    async with releasing(tmp_path) as bench:
        await bench.until(lambda: len(bench.workers) == 1)

        assert bench.releases.current == running.release.id
        assert bench.worker.spec.root == bench.releases.layers.path(running.release.source.digest)
        assert bench.cluster.shipped is not None
        assert (bench.cluster.shipped.id, bench.cluster.shipped.by) == (running.release.id, "me@here")


async def test_a_server_says_at_its_start_which_layers_it_lacks(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        running = await bench.shipped(an_endpoint("gpu"))
        bench.releases.layers.remove(running.release.source.digest)
    async with releasing(tmp_path) as bench:
        [said] = [event.fields["text"] for event in bench.events if event.name == "environment"]

        assert f"lacks layers on this disk: {running.release.source.digest}" in said
        assert bench.releases.current == running.release.id


async def test_a_server_that_stops_undoes_its_rollout(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        first = await bench.shipped(an_endpoint("gpu"))
        bench.placement.on_start = waits
        second = await bench.ship(an_endpoint("gpu"))
        await bench.told(second, "starting")
    assert (second.state, second.failure and second.failure.message) == (
        "failed",
        "the server stopped during the rollout; the release before it is served",
    )
    async with releasing(tmp_path) as bench:
        assert bench.releases.current == first.release.id
        noted = bench.releases.store.rollout(second.noted.number)
        assert noted is not None
        assert (noted.state, noted.failure) == ("failed", second.failure)


async def test_killed_at_any_point_a_server_leaves_one_release_that_is_whole(tmp_path: Path) -> None:
    """What is on the disk after each step of two rollouts, one of which fails, is what a killed server leaves."""
    left: list[tuple[Path, str | None]] = []

    async with releasing(tmp_path) as bench:
        say = bench.releases.store.state.call

        async def copying(do: Any, *arguments: object) -> Any:
            copy(bench.releases.current)
            found = await say(do, *arguments)
            copy(bench.releases.current)
            return found

        def copy(current: str | None) -> None:
            to = tmp_path / f"copy-{len(left)}"
            shutil.copytree(tmp_path / "data", to)
            left.append((to, current))

        bench.releases.store.state.call = copying  # type: ignore[method-assign, assignment]
        bench.placement.on_start = answers
        first = await bench.shipped(an_endpoint("gpu", workers_min=1))
        second = await bench.shipped(an_endpoint("gpu", workers_min=1, strategy="replace"))
        bench.placement.on_start = breaks()
        third = await bench.ship(an_endpoint("gpu", workers_min=1))
        await bench.over(third)
    known = [None, first.release.id, second.release.id]

    order = []
    for folder, told in left:
        async with releasing(tmp_path, over=folder.name) as after:
            assert after.releases.current in known
            order.append(known.index(after.releases.current))
            assert order[-1] >= known.index(told)  # what somebody was told of is kept
            assert [endpoint.id for endpoint in after.cluster.manifest.endpoints] == ["gpu"] * bool(order[-1])
            assert not after.releases.is_busy
            states = [after.releases.store.rollout(number) for number in (1, 2, 3)]
            assert [noted.state for noted in states if noted].count("running") == 0
            assert (await after.shipped(an_endpoint("gpu"))).state == "done"  # the next ship goes on
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}


async def test_two_at_once_one_is_told_of_the_other(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(an_endpoint("gpu"), by="you@there")
        await bench.told(running, "starting")
        body = {"release": encoded(running.release), "expected": None, "removes": [], "by": "me"}
        for path, value in (
            ("releases", body),
            ("rollback", {"to": None, "expected": None, "by": "me"}),
            ("remove", {"confirm": "shop/prod", "by": "me"}),
        ):
            status, answer = await bench.answer("POST", path, value)
            error = answer["error"]
            assert (status, error["reason"], error["by"]) == (409, "busy", "you@there")
            assert (error["rollout"], error["since"]) == (running.noted.number, running.noted.started)
        listed = (await bench.answer("GET", "releases"))[1]
        assert (listed["rollout"]["number"], listed["rollout"]["state"], listed["current"]) == (1, "running", None)
        assert listed["releases"][0]["state"] == "staged"


async def test_what_is_refused_changes_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = answers
        first = await bench.shipped(an_endpoint("a"), an_endpoint("b"))
        secret = (Variable(name="ONE", value="ONE"), Variable(name="X", value="TWO"))
        release = await bench.release(an_endpoint("a"), an_endpoint("b", secrets=secret))
        whole = {"release": encoded(release), "expected": first.release.id, "removes": [], "by": "me"}
        fewer = encoded(await bench.release(an_endpoint("a")))
        cases: list[tuple[dict[str, Any], int, str, str]] = [
            ({"expected": None}, 409, "conflict", "sent by me@here, is current"),
            ({"release": fewer}, 409, "removes", "it would delete b"),
            ({}, 422, "secrets", "ONE (for b), TWO (for b)"),
            ({"release": {"manifest": {"version": 99}}}, 422, "manifest", "version 99"),
            ({"release": None}, 422, "manifest", "version None"),
            ({"removes": 1}, 422, "validation", "removes"),
            ({"release": encoded(await bench.release(an_endpoint("a"), project="other"))}, 422, "project", "shop/prod"),
            ({"release": changed(fewer, python="3.8")}, 422, "host", "no Python 3.8 here, only 3.11"),
            ({"release": changed(fewer, platform="aarch64-manylinux_2_28")}, 422, "host", "do not run here"),
            ({"release": changed(fewer, digest="f" * 64)}, 422, "layers", "1 layer of the release"),
        ]
        for change, status, reason, words in cases:
            found, answer = await bench.answer("POST", "releases", {**whole, **change})
            assert (found, answer["error"]["reason"]) == (status, reason)
            assert words in answer["error"]["message"]
        assert (await bench.answer("POST", "releases", {**whole, "release": changed(fewer, digest="f" * 64)}))[1][
            "error"
        ]["missing"] == ["f" * 64]
        assert (await bench.answer("POST", "releases", whole))[1]["error"]["secrets"] == ["ONE", "TWO"]
        assert (bench.releases.last, len(await bench.releases.listed())) == (first, 1)

        bench.secrets.set("ONE", "1" * 20)
        bench.secrets.set("TWO", "2" * 20)
        assert await bench.answer("POST", "releases", whole) == (202, {"rollout": 2})


async def test_a_rollout_is_followed_by_its_events(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(an_endpoint("gpu"))
        await bench.told(running, "starting")
        await bench.until(lambda: len(bench.workers) == 1)
        status, told = await bench.answer("GET", "rollouts/1", query="after=0&wait=20")
        assert (status, told["state"], [event["step"] for event in told["events"]]) == (200, "running", ["starting"])
        assert told["events"][0]["text"] == f"gpu: starting 1 worker of {running.release.id}"
        waiting = bench.answer("GET", "rollouts/1", query="after=1&wait=20")
        bench.worker.ready()
        await bench.over(running)
        assert [event["seq"] for event in (await waiting)[1]["events"]] == [2, 3]

        done = (await bench.answer("GET", "rollouts/1"))[1]
        assert (done["state"], done["from"], done["failure"], done["by"]) == ("done", None, None, "me@here")
        bench.releases.last = None  # as after a restart
        assert (await bench.answer("GET", "rollouts/1"))[1] == done
        for path, expected in (("rollouts/9", 404), ("rollouts/1?after=x", 400), ("releases/nobody", 404)):
            name, _, query = path.partition("?")
            assert (await bench.answer("GET", name, query=query))[0] == expected


async def test_who_follows_a_rollout_does_not_hold_up_the_end_of_a_server(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = waits
        running = await bench.ship(an_endpoint("gpu"))
        await bench.told(running, "starting")
        waiting = asyncio.ensure_future(bench.answer("GET", "rollouts/1", query="after=1&wait=20"))
        await bench.settle()
        assert not waiting.done()
        bench.releases.dismiss()

        assert (await waiting)[1]["state"] == "running"
        assert (await bench.answer("GET", "rollouts/1", query="after=1&wait=20"))[1]["events"] == []
        status, told = await bench.answer("POST", "rollback", {"to": None, "expected": None, "by": "me"})
        assert (status, told["error"]["reason"]) == (503, "draining"), "it would be undone, and the next server does it"


async def test_back_to_the_one_before_or_to_any_that_is_kept(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = answers
        assert (await bench.answer("POST", "rollback", {"to": None, "expected": None, "by": "me"}))[0] == 404
        first = (await bench.shipped(an_endpoint("gpu"))).release
        second = (await bench.shipped(an_endpoint("gpu"))).release
        for to, expected, now in ((None, second.id, first.id), (second.id, first.id, second.id)):
            status, _ = await bench.answer("POST", "rollback", {"to": to, "expected": expected, "by": "me"})
            assert status == 202
            assert bench.releases.last is not None
            await bench.over(bench.releases.last)
            assert bench.releases.current == now
        status, answer = await bench.answer("POST", "rollback", {"to": "gone", "expected": second.id, "by": "me"})
        assert (status, answer["error"]["reason"]) == (404, "not_found")
        document = (await bench.answer("GET", f"releases/{first.id}"))[1]
        assert (document["release"], document["state"], document["by"]) == (encoded(first), "kept", "me@here")


async def test_old_releases_go_with_what_only_they_needed(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        bench.placement.on_start = answers
        shipped = [(await bench.shipped(an_endpoint("gpu"))).release for _ in range(KEPT + 2)]
        layers = bench.releases.layers
        assert [found.id for found in await bench.releases.listed()] == [one.id for one in shipped[:1:-1]]
        assert layers.path(shipped[0].source.digest).is_dir()  # somebody may be about to ship it again
        for path in layers.folder.iterdir():
            os.utime(path, (0, bench.clock.now() - UNUSED_S - 1))
        async with anyio.create_task_group() as tasks:
            for _ in range(4):  # and the one after the last rollout
                tasks.start_soon(bench.releases.collect_garbage)

        assert not layers.missing([layer.digest for one in shipped[2:] for layer in one.layers])
        assert len(layers.missing([one.source.digest for one in shipped[:2]])) == 2


async def test_all_goes_only_by_its_name(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        await bench.shipped(an_endpoint("gpu"))
        bench.secrets.set("TOKEN", "a" * 20)
        posted = await bench.post("/gpu", 1, authorization=f"Bearer {bench.key}", prefer="respond-async")
        assert (await bench.answer("POST", "remove", {"confirm": "shop/dev", "by": "me"}))[0] == 409
        assert bench.releases.current is not None

        assert (await bench.answer("POST", "remove", {"confirm": "shop/prod", "by": "me"}))[0] == 200
        assert (await bench.answer("GET", "releases"))[1] == {"current": None, "releases": [], "rollout": None}
        assert bench.secrets.all() == []
        assert (posted.status, [job.state.value for job in await bench.store.list()]) == (202, ["CANCELLED"])
        await bench.until(lambda: not bench.workers)
        assert (await bench.shipped(an_endpoint("gpu"))).state == "done"


async def test_layers_are_received_whole_or_not_at_all(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        layer, data = packed(tmp_path, {"a.py": "x = 1\n" * 1000})
        path, size = f"layers/{layer.digest}", f"size={layer.size_bytes}"
        folder = bench.releases.layers.folder
        for raw, query in ((data[: len(data) // 2], size), (b"nonsense", size), (data, "size=1"), (b"", size)):
            status, answer = await bench.answer("PUT", path, raw=raw, query=query)
            assert (status, answer["error"]["reason"]) == (422, "layer")
        for wrong, query in ((f"layers/{'e' * 64}", size), ("layers/up", size), (path, "size=-1"), (path, "")):
            assert (await bench.answer("PUT", wrong, raw=data, query=query))[0] == 422
        leaving = await bench.call(
            "PUT", f"/_flashfw/{path}", data[:9], query=size, more=True, authorization=f"Bearer {bench.key}"
        )
        leaving.leave()
        await bench.until(lambda: leaving.is_over)
        assert list(folder.iterdir()) == []

        assert (await bench.answer("POST", "layers/missing", {"digests": [layer.digest]}))[1] == {
            "missing": [layer.digest]
        }
        assert [(await bench.answer("PUT", path, raw=data, query=size))[0] for _ in range(2)] == [201, 201]
        assert (await bench.answer("POST", "layers/missing", {"digests": [layer.digest]}))[1] == {"missing": []}
        assert (bench.releases.layers.path(layer.digest) / "a.py").read_text() == "x = 1\n" * 1000
        assert [path.name for path in folder.iterdir()] == [layer.digest]
        assert (await bench.answer("POST", "layers/missing", {"digests": ["../up"]}))[0] == 422


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with releasing(tmp_path) as bench:
        layer, data = packed(tmp_path, {"a.py": "x = 1\n"})

        def is_full(*_: object, **__: object) -> None:
            with open("/dev/full", "wb", buffering=0) as file:
                file.write(b"x")

        monkeypatch.setattr("flashfw.bundle.archive.os.sync", is_full)
        status, answer = await bench.answer("PUT", f"layers/{layer.digest}", raw=data, query=f"size={layer.size_bytes}")
        assert (status, answer["error"]["reason"]) == (507, "disk_full")
        assert list(bench.releases.layers.folder.iterdir()) == []


async def test_a_pointer_that_cannot_be_written_fails_the_rollout_before_traffic_moves(tmp_path: Path) -> None:
    async with releasing(tmp_path) as bench:
        first = await bench.shipped(an_endpoint("gpu"))
        old = bench.worker

        def is_full(*_: object, **__: object) -> None:
            raise StateError("the server's state cannot be used: database or disk is full")

        store, finish = bench.releases.store, bench.releases.store.finish
        store.finish = store.fail = is_full  # type: ignore[method-assign, assignment]
        running = await bench.ship(an_endpoint("gpu"))
        await bench.over(running)

        assert (running.state, bench.releases.current) == ("failed", first.release.id)
        assert running.failure is not None
        assert "disk is full" in running.failure.message
        await bench.until(lambda: bench.workers == [old])
        store.finish = finish  # type: ignore[method-assign]
        bench.placement.on_start = answers
        again = await bench.shipped(an_endpoint("gpu"))
        noted = [store.rollout(number) for number in (running.noted.number, again.noted.number)]
        assert [found.state for found in noted if found] == ["failed", "done"]


async def test_an_unsound_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with State(tmp_path / "data" / FILE) as state:
        state.execute("INSERT INTO rooms VALUES ('releases', 99)")
    with pytest.raises(StateError, match="a newer flashfw"):
        async with releasing(tmp_path):
            pass


def encoded(release: Any) -> dict[str, Any]:

    found: dict[str, Any] = manifest.encode(release)
    return found


def changed(release: dict[str, Any], *, digest: str = "", **packages: str) -> dict[str, Any]:
    found = {**release, "packages": [{**release["packages"][0], **packages}]}
    return {**found, "source": {**release["source"], "digest": digest}} if digest else found
