from __future__ import annotations

import base64
import json
import math
import types
from collections import ChainMap, OrderedDict, UserDict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.worker.encode import EncodeError, dumps

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=20)
anything = st.recursive(
    scalars
    | st.floats()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.builds(object)
    | st.sets(st.integers()),
    lambda v: (
        st.lists(v)
        | st.tuples(v, v)
        | st.dictionaries(st.text() | st.integers() | st.dates() | st.floats() | st.binary() | st.none(), v)
    ),
    max_leaves=12,
)


class Color(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


@dataclass
class Point:
    x: float
    color: Color = Color.RED


@pydantic.dataclasses.dataclass
class Checked:
    n: int


class Model(pydantic.BaseModel):
    at: date
    points: list[Point] = []
    short: int = pydantic.Field(default=1, serialization_alias="s")


Pair = namedtuple("Pair", "a b")


class Array:
    """Stands for numpy, torch and pandas, whose arrays share this one method."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def tolist(self) -> Any:
        return self.plain


@given(json_values)
def test_json_values_come_back_as_they_were(value: Any) -> None:
    assert json.loads(dumps(value)) == value


@given(anything)
def test_anything_is_valid_json_or_an_encode_error(value: Any) -> None:
    try:
        text = dumps(value)
    except EncodeError:
        return
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            Model(at=date(2026, 1, 2), points=[Point(1.5)]),
            {"at": "2026-01-02", "points": [{"x": 1.5, "color": "red"}], "s": 1},
        ),
        (Checked(n=2), {"n": 2}),
        (Point(math.nan), {"x": None, "color": "red"}),
        ([math.inf, -math.inf, math.nan, 1.5], [None, None, None, 1.5]),
        (datetime(2026, 1, 2, 3, tzinfo=timezone.utc), "2026-01-02T03:00:00Z"),
        (timedelta(seconds=90), "PT1M30S"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/a/b"), "/a/b"),
        ([Size.BIG, Color.RED], [3, "red"]),
        ({1, 2}, [1, 2]),
        (frozenset({"x"}), ["x"]),
        (Pair(1, 2), [1, 2]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.keys(), ["a"]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (ChainMap({"a": 1}), {"a": 1}),
        (UserDict({"a": {1}}), {"a": [1]}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (
            {1: "a", None: "b", 2.5: "c", Color.RED: "d", date(2026, 1, 2): "e"},
            {"1": "a", "2.5": "c", "null": "b", "red": "d", "2026-01-02": "e"},
        ),
        (b"\xfb\xff", "+/8="),
        ({"raw": bytearray(b"hi")}, {"raw": "aGk="}),
        (memoryview(b"hi"), "aGk="),
        (Array([[1.0, math.nan]]), [[1.0, None]]),
        ({"score": Array(0.5)}, {"score": 0.5}),
        ("é\u2028", "é\u2028"),
    ],
)
def test_what_each_type_becomes(value: Any, expected: Any) -> None:
    assert json.loads(dumps(value)) == expected


@given(st.binary())
def test_bytes_are_standard_base64(value: bytes) -> None:
    assert base64.b64decode(json.loads(dumps(value)), validate=True) == value


class Foo: ...


class Broken(pydantic.BaseModel):
    x: int = 1

    @pydantic.field_serializer("x")
    def fail(self, value: int) -> int:
        raise KeyError("no")


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"items": [1, 2, 3, {"x": Foo()}]}, r"output\.items\[3\]\.x: object of type Foo"),
        ({"a b": Foo()}, r"output\['a b'\]: object of type Foo"),
        ({(1, 2): 1}, r"output: key of type list"),
        ([Foo], r"output\[0\]: object of type type"),
        (Model, "output: object of type ModelMetaclass"),
        ([(n for n in range(2))], r"output\[0\]: object of type generator"),
        ({"t": "\ud800"}, r"output\.t: text with a lone surrogate at 0"),
        ({"\udc00": 1}, "output: text with a lone surrogate"),
        ({"n": [10**5000]}, r"output\.n\[0\]: integer of 16610 bits"),
        ({"m": Broken()}, r"output\.m: object of type Broken: .*no"),
        ({"z": 1j}, r"output\.z: object of type complex"),
        (circle(), "nested deeper than 200 levels; does it hold itself?"),
        (deep(200_000), "nested deeper than 200 levels"),
    ],
)
def test_what_cannot_be_encoded_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        dumps(value)


def test_the_path_begins_with_what_the_caller_calls_it() -> None:
    with pytest.raises(EncodeError, match=r"chunk\[0\]"):
        dumps([Foo()], root="chunk")
