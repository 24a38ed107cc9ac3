"""Every form in which a handler, its class or its fixtures may be written, each called in a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashfw.worker.frames import Kind
from tests.worker.harness import Worker, endpoint, job, write

FILES = {
    "endpoints/a/fixtures.py": """
        from __future__ import annotations
        import functools
        import threading

        def passing(function):
            @functools.wraps(function)
            def wrapper(*args, **kw):
                return function(*args, **kw)
            return wrapper

        def unit() -> str:
            return "cm"

        @passing
        async def hidden_async(unit):
            return f"async {unit}"

        @passing
        def hidden_yield():
            yield threading.current_thread().name

        @passing
        async def hidden_async_yield():
            yield threading.current_thread().name
    """,
    "endpoints/a/handler.py": """
        from __future__ import annotations
        import asyncio, functools
        from dataclasses import dataclass
        from datetime import date, timedelta
        from decimal import Decimal
        from enum import Enum
        from pathlib import Path
        from typing import TYPE_CHECKING, Annotated, Any, Literal
        from uuid import UUID
        from pydantic import BaseModel, Field
        from flashfw import injected
        from endpoints.a.fixtures import passing
        if TYPE_CHECKING:
            from torch import Tensor

        def make():
            class Made:
                def __init__(self, unit):
                    self.unit = unit
                def __call__(self, n: int):
                    return [n, self.unit]
                async def more(self, n: int):
                    return n + 1
                @classmethod
                def named(cls):
                    return cls.__name__
                def odd(self, *args): ...
                def _hidden(self): ...
                class Nested: ...
            return Made

        handler = make()

        @dataclass
        class data:
            unit: str = injected
            def __call__(self, n: int = 1):
                return [self.unit, n]

        class Adder:
            "Adds."
            def __init__(self, by):
                self.by = by
            async def __call__(self, n: int):
                return n + self.by

        adder = Adder(10)

        class Decorator:
            def __init__(self, function):
                functools.update_wrapper(self, function)
                self.function = function
            def __call__(self, *args, **kw):
                return self.function(*args, **kw)

        @Decorator
        def by_object(n: int, unit=injected):
            return [n, unit]

        def power(base: int, exponent: int) -> int:
            return base ** exponent

        square = functools.partial(power, exponent=2)

        async def slow(n: int, job_name: str = "x"):
            await asyncio.sleep(0)
            return [n, job_name]

        partly = functools.partial(slow, job_name="y")

        @passing
        def wrapped(n: int, unit):
            return [n, unit]

        @passing
        async def wrapped_async(n: int):
            await asyncio.sleep(0)
            return n

        @passing
        def wrapped_items(n: int):
            yield from range(n)

        @passing
        async def wrapped_async_items(n: int):
            for index in range(n):
                yield index

        async def returns_items(n: int):
            return (index for index in range(n))

        async def returns_async_items(n: int):
            async def items():
                for index in range(n):
                    yield index
            return items()

        cached = functools.lru_cache(power)

        class Size(Enum):
            SMALL = "small"
            LARGE = "large"

        class Order(BaseModel):
            id: int
            sizes: list[Size] = []

        def typed(size: Size, day: date, wait: timedelta, price: Decimal, id: UUID, path: Path, mode: Literal["a", "b"],
                  raw: bytes):
            assert isinstance(path, Path) and isinstance(raw, bytes)
            return [size, day, wait, price, id, path, mode, raw]

        def limited(n: Annotated[int, Field(ge=1, le=3)], name: Annotated[str, Field(max_length=3)] = "toolong"):
            return [n, name]

        def defaults(items: list[int] = [], order: Order = Order(id=1), *, path: Path = Path("x")):
            items.append(len(items))
            return [items, order, path]

        def whole(input: Order):
            return [input.id, input.sizes]

        def injected_types(hidden_async: Any, hidden_yield: Tensor, hidden_async_yield: "NoSuchName" = injected):
            return [hidden_async, hidden_yield, hidden_async_yield]
    """,
}
NAMES = (
    "data adder by_object square partly wrapped wrapped_async wrapped_items wrapped_async_items "
    "returns_items returns_async_items cached typed limited defaults whole injected_types"
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    root = write(tmp_path_factory.mktemp("forms"), FILES)
    functions = [job(f"a/{name}", name, directory="a") for name in NAMES.split()]
    with Worker(root, endpoint(job("a"), *functions)) as worker:
        worker.ready()
        yield worker
        assert worker.drain() == 0


TYPED = {
    "size": "large",
    "day": "2026-01-02",
    "wait": "PT1M",
    "price": "1.50",
    "id": "6e1a5a3e-0000-4000-8000-000000000001",
    "path": "a/b",
    "mode": "a",
    "raw": "é",
}


@pytest.mark.parametrize(
    ("function", "value", "output"),
    [
        ("a", {"n": 3}, [3, "cm"]),
        ("a::more", {"n": 3}, 4),
        ("a::named", {}, "Made"),
        ("a/data", {"n": 3}, ["cm", 3]),
        ("a/adder", {"n": 3}, 13),
        ("a/by_object", {"n": 3}, [3, "cm"]),
        ("a/square", {"base": "3"}, 9),
        ("a/square", {"base": 3, "exponent": 3}, 27),
        ("a/partly", {"n": 3}, [3, "y"]),
        ("a/wrapped", {"n": "3"}, [3, "cm"]),
        ("a/wrapped_async", {"n": "3"}, 3),
        ("a/wrapped_items", {"n": 2}, [0, 1]),
        ("a/wrapped_async_items", {"n": 2}, [0, 1]),
        ("a/returns_items", {"n": 2}, [0, 1]),
        ("a/returns_async_items", {"n": 2}, [0, 1]),
        ("a/cached", {"base": 2, "exponent": 5}, 32),
        ("a/typed", TYPED, [*list(TYPED.values())[:-1], "w6k="]),
        ("a/limited", {"n": 3}, [3, "toolong"]),  # a default is the function's own
        ("a/defaults", {"items": [7], "order": {"id": 2}}, [[7, 1], {"id": 2, "sizes": []}, "x"]),
        ("a/whole", {"id": 3, "sizes": ["small"]}, [3, ["small"]]),
        ("a/injected_types", {}, ["async cm", "flashfw-user-1", "MainThread"]),
    ],
)
def test_forms_of_handlers(worker: Worker, function: str, value: object, output: object) -> None:
    assert json.loads(worker.result(function, json.dumps(value).encode())) == output


@pytest.mark.parametrize(
    ("function", "value", "loc"),
    [
        ("a/limited", {"n": 4}, ["n"]),
        ("a/limited", {"n": 1, "name": "four"}, ["name"]),
        ("a/wrapped", {"n": 1, "unit": "m"}, ["unit"]),
        ("a/wrapped_async", {}, ["n"]),
        ("a/whole", {"input": {"id": 3}}, ["id"]),
        ("a/typed", {**TYPED, "size": "huge"}, ["size"]),
        ("a/by_object", {"n": "x"}, ["n"]),
    ],
)
def test_what_does_not_fit_the_wrapped_signature(worker: Worker, function: str, value: object, loc: list[str]) -> None:
    failure = worker.failure(function, json.dumps(value).encode())
    assert failure["reason"] == "validation"
    assert failure["errors"][0]["loc"] == loc


def test_a_cancel_reaches_what_a_decorator_hides(tmp_path: Path) -> None:
    source = """
        import asyncio, functools
        from flashfw import Job

        async def waits(job: Job):
            job.progress("started")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                open("cancelled", "w").close()
                raise

        @functools.wraps(waits)
        def handler(*args, **kw):
            return waits(*args, **kw)
    """
    write(tmp_path, {"endpoints/a/handler.py": source})
    with Worker(tmp_path, endpoint(job("a"))) as worker:
        worker.ready()
        worker.next(Kind.PROGRESS, call=(call := worker.call("a")))
        worker.send(Kind.CANCEL, call, {"reason": "cancelled"})
        assert worker.end(call).kind is Kind.GONE
    assert (tmp_path / "cancelled").exists()


def test_a_method_that_takes_no_input_is_left_out_and_told(worker: Worker) -> None:
    assert "a::odd is no function: a::odd: '*args' cannot be filled" in worker.until_logged("a::odd is no function")
    assert worker.failure("a::odd")["reason"] == "function_gone"
    assert worker.failure("a::Nested")["reason"] == "function_gone"


def test_mutable_defaults_are_pythons_own(worker: Worker) -> None:
    assert json.loads(worker.result("a/defaults"))[0] == [0]
    assert json.loads(worker.result("a/defaults"))[0] == [0, 1]
