"""Jobs that one call of the handler does together, each answered by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flashfw.manifest import Batch, Function
from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, job, write

ALL = """
    import asyncio, functools, threading
    from collections.abc import Sequence
    from dataclasses import dataclass
    import flashfw

    class Vector:
        "What an array looks like to whoever encodes it, and no list."
        def __init__(self, *rows): self.rows = rows
        def tolist(self): return list(self.rows)
        def __len__(self): return len(self.rows)
        def __iter__(self): return iter(self.rows)

    @dataclass
    class Text:
        text: str
        weight: float = 1.0

    def handler(items: list[int]) -> list[int]:
        print("got", items)
        return [item * 10 for item in items]

    def texts(items: Sequence[Text]):
        return [{"of": len(items), "text": item.text, "weight": item.weight} for item in items]

    async def coroutine(items: list[int], offset):
        await asyncio.sleep(0)
        return [len(items) + item + offset for item in items]

    def anything(items):
        return Vector(*[[len(items), item] for item in items])

    def some_fail(items: list[int]) -> "list[int | Exception]":
        return [ValueError(f"{item} is odd") if item % 2 else item for item in items]

    calls = []

    def raises(items: list[int]):
        calls.append(list(items))
        print("given", items)
        if 13 in items:
            raise ValueError("13 is unlucky")
        return [list(calls) for item in items]

    async def raises_too(items: list[int]):
        if 13 in items:
            raise ValueError("13 is unlucky")
        return items

    def short(items: list[int]):
        return items[1:]

    def no_list(items: list[int]):
        return {item: item for item in items}

    def unencodable(items: list[int]):
        return [object() if item == 1 else item for item in items]

    def broken(items: list[int]):
        calls.append("broken")
        raise flashfw.WorkerBroken(f"no more after {len(calls)}")

    gate = threading.Event()

    def waits(items: list[int]):
        print("waiting with", items, flush=True)
        gate.wait(20)
        return items

    def opens():
        gate.set()

    async def sleeps(items: list[int]):
        print("asleep with", items, flush=True)
        await asyncio.sleep(1000 if 0 in items else 0)
        return items

    def plain(function):
        @functools.wraps(function)
        def wrapped(items: list[int]):
            return function(items)
        return wrapped

    @plain
    async def hidden(items: list[int]):
        print("hidden with", items, flush=True)
        await asyncio.sleep(1000 if 0 in items else 0)
        return items

    class Model:
        def __init__(self): self.calls = 0
        def embed(self, texts: list[str]) -> list[list[int]]:
            self.calls += 1
            return [[self.calls, len(text)] for text in texts]
"""
BATCHED = [
    *("texts", "coroutine", "anything", "some_fail", "raises", "raises_too", "short", "no_list", "unencodable"),
    *("broken", "waits", "sleeps", "hidden"),
]


def batched(id: str, attribute: str = "handler") -> Function:
    return replace(job(id, attribute, directory="all"), batch=Batch(max_size=32, max_wait_s=0.02))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"endpoints/all/handler.py": ALL, "endpoints/all/fixtures.py": "def offset(): return 100"}
    return write(tmp_path_factory.mktemp("shop"), files)


@pytest.fixture(scope="module")
def shared(root: Path) -> Iterator[Worker]:
    functions = [batched("all"), *(batched(f"all/{name}", name) for name in BATCHED)]
    functions.append(batched("all/embed", "Model.embed"))
    opens = job("all/opens", "opens", directory="all")
    with Worker(root, endpoint(*functions, opens, concurrency=2)) as worker:
        worker.ready()
        yield worker


@pytest.fixture
def worker(shared: Worker) -> Worker:
    shared.frames.clear()
    return shared


def answers(worker: Worker, function: str, *inputs: Any) -> list[Any]:
    """The output of each job, its failure, or None where there is no answer."""
    found = [worker.end(call) for call in worker.batch(function, *inputs)]
    by_kind = {Kind.RESULT: lambda frame: json.loads(frame.body), Kind.FAILURE: lambda frame: frame.meta}
    return [by_kind[frame.kind](frame) if frame.kind in by_kind else None for frame in found]


def reasons(found: list[Any]) -> list[tuple[str, str]]:
    return [(item["reason"], item["message"]) for item in found if isinstance(item, dict)]


def test_each_gets_its_own_result(worker: Worker) -> None:
    assert answers(worker, "all", 1, 2, 3) == [10, 20, 30]
    assert "got [1, 2, 3]\n" in worker.logs(job=f"j{worker._next_call - 2}")  # told of the first


def test_a_call_without_a_batch_is_a_list_of_one(worker: Worker) -> None:
    assert worker.result("all", b"7") == b"70"


def test_an_item_is_bound_as_the_whole_input(worker: Worker) -> None:
    found = answers(worker, "all/texts", {"text": "a"}, {"text": "b", "weight": 2}, {"items": {"text": "c"}})

    assert [(item["text"], item["weight"]) for item in found] == [("a", 1.0), ("b", 2.0), ("c", 1.0)]
    assert {item["of"] for item in found} == {3}


def test_a_coroutine_gets_its_fixtures(worker: Worker) -> None:
    assert answers(worker, "all/coroutine", 1, 2) == [103, 104]


def test_what_is_no_list_but_an_array_is_taken_row_by_row(worker: Worker) -> None:
    assert answers(worker, "all/anything", "a", {"b": 1}, None) == [[3, "a"], [3, {"b": 1}], [3, None]]


def test_a_method_is_called_on_the_one_instance(worker: Worker) -> None:
    assert answers(worker, "all/embed", "a", "bcd") == [[1, 1], [1, 3]]


def test_a_bad_input_fails_alone(worker: Worker) -> None:
    good, bad, unknown = answers(worker, "all/texts", {"text": "a"}, {"text": 3}, {"txt": "a"})

    assert good == {"of": 1, "text": "a", "weight": 1.0}
    assert (bad["reason"], bad["errors"][0]["loc"]) == ("validation", ["text"])
    assert unknown["reason"] == "validation"


def test_all_bad_never_reach_the_handler(worker: Worker) -> None:
    assert [item["reason"] for item in answers(worker, "all/raises", "a", "b")] == ["validation"] * 2
    assert "given" not in worker.logs()


def test_an_exception_in_the_list_fails_that_job(worker: Worker) -> None:
    found = answers(worker, "all/some_fail", 2, 3, 4)

    assert (found[0], found[2]) == (2, 4)
    assert (found[1]["type"], found[1]["message"]) == ("ValueError", "3 is odd")


def test_after_a_raise_each_is_tried_alone(worker: Worker) -> None:
    found = answers(worker, "all/raises", 1, 13, 2)

    assert found[0][-1] == [1]
    assert reasons(found) == [("handler_error", "13 is unlucky")]
    assert found[2] == [[1, 13, 2], [1], [13], [2]]
    assert found[1]["place"].startswith("endpoints/all/handler.py:")
    assert "given [2]" in worker.logs(job=f"j{worker._next_call}")


def test_after_a_raise_each_coroutine_is_tried_alone(worker: Worker) -> None:
    found = answers(worker, "all/raises_too", 1, 13, 2)

    assert (found[0], found[2], reasons(found)) == (1, 2, [("handler_error", "13 is unlucky")])


def test_a_list_of_one_that_raises_is_not_tried_again(worker: Worker) -> None:
    assert reasons(answers(worker, "all/raises", 13)) == [("handler_error", "13 is unlucky")]
    assert worker.logs().count("given [13]") == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("all/short", "the handler was given 3 items and returned list of 2: return a list of 3"),
        ("all/no_list", "the handler was given 3 items and returned dict: return a list of 3"),
    ],
)
def test_another_length_fails_all(worker: Worker, function: str, message: str) -> None:
    assert reasons(answers(worker, function, 1, 2, 3)) == [("handler_error", message)] * 3


def test_what_cannot_be_encoded_fails_alone(worker: Worker) -> None:
    found = answers(worker, "all/unencodable", 0, 1, 2)

    assert (found[0], found[1]["reason"], found[2]) == (0, "encode", 2)


def test_a_broken_worker_is_not_asked_again(worker: Worker) -> None:
    found = answers(worker, "all/broken", 1, 2)

    assert [item["broken"] for item in found] == [True, True]
    assert found[0]["message"] == found[1]["message"]


def test_one_that_is_cancelled_is_gone_at_once_and_the_others_go_on(worker: Worker) -> None:
    first, second = worker.batch("all/waits", 1, 2)
    worker.until_logged("waiting with [1, 2]")

    worker.send(Kind.CANCEL, first, {"reason": "cancelled"})
    gone = worker.end(first)
    worker.result("all/opens")

    assert gone.kind is Kind.GONE
    assert worker.end(second).body == b"2"
    assert [frame for frame in worker.frames if frame.call == first] == []


@pytest.mark.parametrize(("function", "told"), [("all/sleeps", "asleep"), ("all/hidden", "hidden")])
def test_a_batch_that_nobody_wants_is_stopped(worker: Worker, function: str, told: str) -> None:
    calls = worker.batch(function, 0, 1)
    worker.until_logged(f"{told} with [0, 1]")

    for call in calls:
        worker.send(Kind.CANCEL, call, {"reason": "timeout"})

    assert [worker.end(call).kind for call in calls] == [Kind.GONE] * 2
    assert answers(worker, function, 1, 2) == [1, 2]


def test_one_that_is_cancelled_before_the_others_have_come_is_left_out(worker: Worker) -> None:
    first = worker.call("all", b"1", batch="b", of=2)
    worker.send(Kind.CANCEL, first, {"reason": "cancelled"})
    assert worker.end(first).kind is Kind.GONE

    second = worker.call("all", b"2", batch="b", of=2)

    assert worker.end(second).body == b"20"
    assert "got [2]" in worker.logs()


def test_a_drained_worker_ends_its_batch_first(root: Path) -> None:
    with Worker(root, endpoint(batched("all"))) as worker:
        worker.ready()
        calls = worker.batch("all", 1, 2)
        worker.send(Kind.DRAIN)

        assert [worker.end(call).body for call in calls] == [b"10", b"20"]
        assert worker.exit_code() == 0


@pytest.mark.parametrize(
    ("handler", "what"),
    [
        ("def handler(items: dict): ...", "'batch' hands over a list, and 'items' is none"),
        ("def handler(items: 'Item'): ...\nItem = int", "'batch' hands over a list, and 'items' is none"),
        ("def handler(a: list, b: list): ...", "'batch' needs one list parameter, and this takes 'a' and 'b'"),
        ("def handler(items: list, **kw): ...", "'batch' needs one list parameter, and this takes 'items' and '**kw'"),
        ("def handler(items: list): yield 1", "'batch' and 'yield' do not go together"),
        ("import flashfw\ndef handler(items: list, job: flashfw.Job): ...", "'batch' and 'Job' do not go together"),
        ("def handler(items: list, mine): ...", "fixture 'mine' (endpoints/all/fixtures.py:2) wants the job"),
    ],
)
def test_a_handler_that_cannot_take_a_batch_does_not_start(tmp_path: Path, handler: str, what: str) -> None:
    fixtures = "import flashfw\ndef mine(job: flashfw.Job): ..."
    files = {"endpoints/all/handler.py": handler, "endpoints/all/fixtures.py": fixtures}

    with Worker(write(tmp_path, files), endpoint(batched("all"))) as worker:
        failure = worker.next(Kind.BROKEN).meta

    assert what in failure["message"]
    assert failure["place"].startswith("endpoints/all/handler.py:")


def test_callers_are_told_of_one_item(root: Path) -> None:
    functions = [batched("all"), batched("all/texts", "texts"), batched("all/some_fail", "some_fail")]
    with Worker(root, endpoint(*functions), describe=True) as worker:
        told = worker.next(Kind.DESCRIBED).meta["functions"]

    assert (told["all"]["input"], told["all"]["output"]) == ({"type": "integer"}, {"type": "integer"})
    assert told["all/texts"]["input"]["required"] == ["text"]
    assert told["all/some_fail"]["output"] == {"type": "integer"}
