"""HTTP calls at a gateway: held, begun, streamed, cut, left, and what becomes of their slots."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from flashfw.cluster.gateway.http_calls import CREDIT_BYTES
from flashfw.worker.frames import WINDOW_BYTES, Kind, pack
from flashfw.worker.http_frames import response_head
from tests.cluster.bench import FAILURE, ClusterBench, a_function, an_endpoint, breaks, clustering, waits

pytestmark = pytest.mark.anyio


def an_api(**changes: object) -> object:
    return an_endpoint("api", "http", **{"concurrency": 2, **changes})


def slots(bench: ClusterBench) -> list[int]:
    return [worker.slots_used for worker in bench.cluster.dispatchers["api"].pool.workers]


async def test_a_call_is_answered_by_its_worker(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api", query="q=1")
        meta = bench.worker.calls[1].meta
        bench.worker.head(201, b"made")
        await bench.settle()

        assert (meta["function"], meta["query"], meta["end"]) == ("api::get", "q=1", True)
        assert (call.status, call.body, call.is_whole) == (201, b"made", True)
        assert bench.named("request")[-1]["status"] == 201
        assert slots(bench) == [0]


# Held


async def test_calls_are_held_until_a_worker_is_ready_and_go_in_order(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = waits
        calls = [await bench.call("GET", "/api", query=f"n={n}") for n in range(5)]
        bench.worker.ready()
        await bench.settle()
        order = []
        for _ in calls:
            number = min(bench.worker.calls)
            order.append(bench.worker.calls[number].meta["query"])
            bench.worker.head(number=number)
            await bench.settle()

        assert order == [f"n={n}" for n in range(5)]
        assert [call.status for call in calls] == [200] * 5


async def test_a_held_call_gets_503_after_start_timeout(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(start_timeout_s=30.0), start_failures=100) as bench:
        bench.environments.is_slow = True  # which does not count as a start
        call = await bench.call("GET", "/api")
        await bench.advance(29.0)
        assert not call.is_over
        await bench.advance(1.5)

        assert (call.status, call.headers["retry-after"]) == (503, "10")
        assert bench.cluster.dispatchers["api"].demand().queued == 0


async def test_no_more_calls_are_held_than_may_be(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(max_queue=2)) as bench:
        bench.placement.on_start = waits
        calls = [await bench.call("GET", "/api") for _ in range(3)]

        assert [call.is_over for call in calls] == [False, False, True]
        assert (calls[2].status, calls[2].headers["retry-after"]) == (429, "10")


async def test_held_calls_learn_why_workers_do_not_start(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = breaks("no weights here")
        first = await bench.call("GET", "/api")
        await bench.advance(0.5)
        second = await bench.call("GET", "/api")

        for call in (first, second):
            assert call.status == 503
            assert (call.error["message"], call.error["fixture"]) == ("no weights here", "model")
            assert (call.error["place"], bool(call.error["traceback"])) == ("f.py:1", True)


@pytest.mark.parametrize("body", [None, b"a body"])
async def test_a_client_that_leaves_is_held_no_longer(tmp_path: Path, body: bytes | None) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = waits
        leaves, stays = await bench.call("GET", "/api", body), await bench.call("GET", "/api", body)
        leaves.leave()
        await bench.settle()
        assert bench.cluster.dispatchers["api"].demand().queued == 1
        assert bench.named("request")[-1]["status"] == 499
        bench.worker.ready()
        await bench.settle()
        bench.worker.head(body=b"yours")
        await bench.settle()

        assert stays.body == b"yours"
        assert [frame.body for frame in bench.worker.said(Kind.REQUEST)] == [body or b""]
        assert slots(bench) == [0]


async def test_no_more_than_a_piece_of_a_held_body_is_read(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = waits
        told = await bench.call("GET", "/api", b"told", expect="100-continue")
        long = await bench.call("GET", "/api", b"first", more=True)
        long.send_body(b"second")
        await bench.settle()
        assert [call._incoming.qsize() for call in (told, long)] == [1, 1]
        bench.worker.ready()
        await bench.settle()

        assert [frame.body for frame in bench.worker.said(Kind.REQUEST)] == [b"told", b"first"]
        assert [frame.body for frame in bench.worker.said(Kind.DATA)] == [b"second"]


async def test_a_held_call_that_was_cut_off_breaks_nothing_when_starts_fail(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(), start_failures=1) as bench:
        bench.placement.on_start = waits
        cut, stays = await bench.call("GET", "/api"), await bench.call("GET", "/api")
        dispatcher = bench.cluster.dispatchers["api"]
        cut.answer.cancel()
        dispatcher.pool.starts.failure = FAILURE
        dispatcher.on_start_failed(FAILURE)  # before the one that was cut off has had its turn
        await bench.settle()

        assert stays.status == 503
        assert bench.named("internal") == []


async def test_a_call_cut_off_as_it_gets_its_worker_gives_the_slot_to_the_next(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(concurrency=1)) as bench:
        bench.placement.on_start = waits
        cut, next_one = await bench.call("GET", "/api"), await bench.call("GET", "/api")
        dispatcher = bench.cluster.dispatchers["api"]
        bench.worker.ready()
        for _ in range(1000):
            if dispatcher.demand().queued < 2:
                break
            await asyncio.sleep(0)
        cut.answer.cancel()  # the slot is its, and it has not heard of it
        await bench.settle()
        bench.worker.head(body=b"yours")
        await bench.settle()

        assert next_one.body == b"yours"
        assert slots(bench) == [0]


async def test_thousands_of_held_calls_are_let_go_in_moments(tmp_path: Path) -> None:
    count = 3000
    async with clustering(tmp_path, an_api(concurrency=count)) as bench:
        bench.placement.on_start = waits
        take = bench.cluster.dispatchers["api"].take
        held = [asyncio.ensure_future(take("api::get")) for _ in range(count)]  # type: ignore[call-arg]
        await bench.settle(2)
        bench.worker.ready()
        await bench.settle(2)

        assert all(task.done() for task in held)
        assert slots(bench) == [count]


# Rolls and removals


async def test_held_calls_survive_a_roll(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = waits
        call = await bench.call("GET", "/api")
        bench.apply(an_api())
        await bench.settle()
        bench.worker.ready()
        await bench.settle()
        bench.worker.head(body=b"new")
        await bench.settle()

        assert call.body == b"new"


async def test_held_calls_of_an_endpoint_that_goes_are_told_so(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = waits
        call = await bench.call("GET", "/api")
        bench.apply()
        await bench.settle()

        assert (call.status, call.error["reason"]) == (404, "function_gone")
        assert (await bench.call("GET", "/api")).status == 404


async def test_held_calls_of_a_method_that_goes_do_not_stop_the_others(tmp_path: Path) -> None:
    get, delete = a_function("api", "http"), a_function("api", "http", id="api::delete", method="DELETE")
    async with clustering(tmp_path, an_api(functions=(get, delete))) as bench:
        bench.placement.on_start = waits
        gone, stays = await bench.call("DELETE", "/api"), await bench.call("GET", "/api")
        bench.apply(an_api(functions=(get,)))
        await bench.settle()
        bench.worker.ready()
        await bench.settle()

        assert gone.status == 404
        assert [frame.meta["function"] for frame in bench.worker.calls.values()] == ["api::get"]
        assert not stays.is_over


async def test_an_endpoint_that_changes_its_kind_tells_who_is_held_and_serves_anew(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        bench.placement.on_start = waits
        call = await bench.call("GET", "/api")
        bench.apply(an_endpoint("api", "job"))
        bench.placement.on_start = lambda process: process.ready()
        await bench.settle()
        assert call.status == 404

        job = await bench.post("/api", {"x": 1})
        bench.worker.result(body=b"2")
        await bench.settle()
        assert (job.status, job.body) == (200, b"2")


async def test_a_new_method_waits_for_the_worker_that_has_it(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(workers_min=1)) as bench:
        await bench.advance(0.5)
        old = bench.worker
        bench.placement.on_start = waits
        new = a_function("api", "http", id="api::delete", method="DELETE")
        bench.apply(an_api(workers_min=1, functions=(a_function("api", "http"), new)))
        call = await bench.call("DELETE", "/api")
        assert old.calls == {}
        bench.workers[1].ready()
        await bench.settle()
        bench.workers[-1].head(204)
        await bench.settle()

        assert call.status == 204


# Bodies


async def test_a_slow_body_keeps_nobody_from_the_slot(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(concurrency=1)) as bench:
        slow = await bench.call("GET", "/api", b"", more=True)
        assert slots(bench) == [1]
        quick = await bench.call("GET", "/api")
        await bench.advance(1.0)
        assert not quick.is_over
        assert len(bench.worker.calls) == 1
        bench.worker.head(body=b"quick")
        await bench.settle()
        assert quick.body == b"quick"

        slow.send_body(b"at last")
        await bench.settle()
        assert bench.worker.calls[bench.worker.number].body == b"at last"
        bench.worker.head(body=b"slow")
        await bench.settle()
        assert slow.body == b"slow"


@pytest.mark.parametrize("how", ["dies", "drains"])
async def test_a_worker_that_goes_while_the_body_comes_is_replaced(tmp_path: Path, how: str) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api", b"", more=True)
        old = bench.worker
        if how == "dies":
            old.die(1)
        else:
            bench.apply(an_api())
        await bench.settle()
        call.send_body(b"whole")
        await bench.advance(1.0)

        assert not old.is_alive
        assert old.said(Kind.REQUEST) == []
        assert bench.worker.calls[1].body == b"whole"
        bench.worker.head(body=b"done")
        await bench.settle()
        assert (call.status, call.body) == (200, b"done")


async def test_a_client_that_leaves_in_its_first_body_gives_the_slot_back(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api", b"", more=True)
        call.leave()
        await bench.settle()

        assert call.is_over
        assert slots(bench) == [0]
        assert bench.named("request")[-1]["status"] == 499


async def test_a_body_goes_on_as_the_worker_takes_it(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api", b"first", more=True)
        call.send_body(bytes(WINDOW_BYTES), more=True)
        call.send_body(b"last")
        await bench.settle()
        assert bench.worker.calls[1].meta["end"] is False
        assert [len(frame.body) for frame in bench.worker.said(Kind.DATA)] == [WINDOW_BYTES]

        bench.worker.send(Kind.CREDIT, 1, {"bytes": WINDOW_BYTES})
        await bench.settle()
        assert [(len(frame.body), frame.meta.get("end", False)) for frame in bench.worker.said(Kind.DATA)] == [
            (WINDOW_BYTES, False),
            (4, True),
        ]


async def test_a_body_that_grows_beyond_its_limit_is_refused_and_its_call_cancelled(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(max_body_bytes=10)) as bench:
        call = await bench.call("GET", "/api", b"12345", more=True)
        call.send_body(b"678901", more=True)
        await bench.settle()

        assert call.status == 413
        assert bench.worker.said(Kind.CANCEL)
        assert slots(bench) == [0]


@pytest.mark.parametrize("more", [True, False])
async def test_a_body_whose_first_piece_is_too_large_reaches_no_worker(tmp_path: Path, more: bool) -> None:
    async with clustering(tmp_path, an_api(max_body_bytes=10)) as bench:
        call = await bench.call("GET", "/api", b"12345678901", more=more)

        assert call.status == 413
        assert not bench.worker.said(Kind.REQUEST)
        assert slots(bench) == [0]


# What goes wrong


async def test_a_worker_that_dies_before_its_response_is_502_and_after_it_began_a_cut(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        early, late = await bench.call("GET", "/api"), await bench.call("GET", "/api")
        bench.worker.head(200, b"half", end=False, number=2)
        await bench.settle()
        bench.worker.die(9)
        await bench.settle()

        assert (early.status, early.error["reason"]) == (502, "worker_lost")
        assert "exited with code 9" in early.error["message"]
        assert (late.status, late.body, late.is_whole, late.is_over) == (200, b"half", False, True)
        cut = [fields["cut"] for fields in bench.named("request") if "cut" in fields]
        assert len(cut) == 1
        assert "exited with code 9" in cut[0]
        assert bench.named("internal") == []


async def test_a_stream_on_code_that_was_replaced_is_cut_after_the_drain(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(drain_timeout_s=20.0, concurrency=4)) as bench:
        streams, answers, comes_late = [await bench.call("GET", "/api") for _ in range(3)]
        bench.worker.head(200, b"1", end=False, number=1)
        await bench.settle()
        dispatcher = bench.cluster.dispatchers["api"]
        saved = dataclasses.replace(dispatcher.endpoint, fingerprint="saved")
        dispatcher.apply(saved, bench.root, None, ("lib.py",))
        await bench.settle()
        bench.worker.reloaded()
        await bench.settle()
        after = await bench.call("GET", "/api")
        bench.worker.head(200, b"2", end=False, number=4)
        await bench.advance(19.0)
        assert not streams.is_over
        await bench.advance(1.5)

        assert (streams.body, streams.is_whole, streams.is_over) == (b"1", False, True)
        assert "within drain_timeout" in bench.named("request")[-1]["cut"]
        assert [frame.call for frame in bench.worker.said(Kind.CANCEL)] == [1]
        bench.worker.head(200, b"late", number=2)
        bench.worker.head(200, b"3", end=False, number=3)
        await bench.advance(19.0)
        assert (answers.body, answers.is_whole, comes_late.is_over) == (b"late", True, False)
        await bench.advance(1.5)
        assert (comes_late.body, comes_late.is_whole, comes_late.is_over) == (b"3", False, True)
        assert not after.is_over


async def test_a_worker_that_sends_nothing_for_too_long_is_504_and_asked_to_stop(tmp_path: Path) -> None:
    function = a_function("api", "http", timeout_s=5.0)
    async with clustering(tmp_path, an_api(functions=(function,))) as bench:
        call = await bench.call("GET", "/api")
        await bench.advance(4.5)
        assert not call.is_over
        await bench.advance(1.0)

        assert (call.status, call.error["reason"]) == (504, "timeout")
        assert [frame.meta for frame in bench.worker.said(Kind.CANCEL)] == [{"reason": "timeout"}]


async def test_a_client_that_leaves_frees_its_call_though_the_worker_says_nothing(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api(drain_timeout_s=20.0)) as bench:
        call = await bench.call("GET", "/api")
        stuck = bench.worker
        stuck.is_obedient = False
        await bench.advance(0.5)
        call.leave()
        await bench.settle()
        assert call.is_over
        assert [frame.meta for frame in stuck.said(Kind.CANCEL)] == [{"reason": "disconnect"}]
        assert slots(bench) == [1]  # until the worker says that it stopped

        await bench.advance(10.5)
        assert stuck.said(Kind.DRAIN)
        assert stuck.is_alive
        await bench.advance(20.0)
        assert not stuck.is_alive


async def test_a_slow_reader_holds_the_worker_back(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api")
        bench.worker.head(200, end=False)
        await bench.settle()
        call.reads = type(call.reads)()
        for _ in range(3):
            bench.worker.data(bytes(CREDIT_BYTES // 2), end=False)
        await bench.settle()
        assert bench.worker.said(Kind.CREDIT) == []

        call.reads.set()
        bench.worker.data(b"!", end=True)
        await bench.settle()
        assert call.body == bytes(3 * CREDIT_BYTES // 2) + b"!"
        assert [frame.meta["bytes"] for frame in bench.worker.said(Kind.CREDIT)] == [CREDIT_BYTES]


async def test_a_function_that_the_worker_lacks_is_404(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api")
        bench.worker.failure(reason="function_gone", message="this worker has no function 'api::get'")
        await bench.settle()

        assert (call.status, call.error["reason"]) == (404, "function_gone")


async def test_a_header_that_no_client_may_be_sent_is_an_error_of_ours(tmp_path: Path) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call = await bench.call("GET", "/api")
        bench.worker.send(Kind.HEAD, 1, {"status": 200, "headers": [["x", "1\r\nset-cookie: a"]], "end": False})
        await bench.settle()

        assert (call.status, call.error["reason"]) == (500, "encode")
        assert "header 'x'" in call.error["message"]
        assert bench.worker.said(Kind.CANCEL)


@pytest.mark.parametrize("heads", [[b"\0"], [response_head(200, end=False)] * 2])
async def test_a_worker_whose_heads_are_none_is_given_up(tmp_path: Path, heads: list[bytes]) -> None:
    async with clustering(tmp_path, an_api()) as bench:
        call, other = await bench.call("GET", "/api"), await bench.call("GET", "/api")
        for head in heads:
            bench.worker.send_raw(pack(Kind.HEAD, 1, None, b"", head))
        await bench.settle()

        assert (other.status, other.error["reason"]) == (502, "worker_lost")
        assert not call.is_whole or call.status == 502
