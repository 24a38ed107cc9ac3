from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Annotated, Any, Optional

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from typing_extensions import TypedDict

from flashfw import Job, injected
from flashfw.worker.bind import MAX_ERRORS, JobBinder, ValidationFailed
from flashfw.worker.signature import EMPTY, Input, Signature, SignatureError, read


class Item(pydantic.BaseModel):
    name: str
    n: int = 1


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Options(TypedDict):
    deep: bool


class Color(Enum):
    RED = "red"


def binder(function: Callable[..., Any], *fixtures: str) -> JobBinder:
    return JobBinder(read(function, fixtures=fixtures, owner="shop"))


def bound(function: Callable[..., Any], value: Any, *fixtures: str) -> dict[str, Any]:
    return binder(function, *fixtures).bind(json.dumps(value).encode())


def errors(function: Callable[..., Any], raw: bytes) -> list[tuple[list[Any], str]]:
    with pytest.raises(ValidationFailed) as caught:
        binder(function).bind(raw)
    return [(error["loc"], error["type"]) for error in caught.value.errors]


# The rules, one by one.


def by_name(prompt: str, steps: int = 20, when: date | None = None, colors: list[Color] = []) -> None: ...  # noqa: B006
def whole_input(input: Any) -> None: ...
def typed_input(input: list[int]) -> None: ...
def event(event) -> None: ...  # type: ignore[no-untyped-def]
def job(job) -> None: ...  # type: ignore[no-untyped-def]
def model(item: Item) -> None: ...
def dataclass(p: Point) -> None: ...
def typed_dict(options: Options) -> None: ...
def free(config: dict[str, Any]) -> None: ...
def optional(item: Optional[Item] = None) -> None: ...  # noqa: UP045
def union(shape: Item | Point) -> None: ...
def extra(a: int, **kw: int) -> None: ...
def anything(**kw) -> None: ...  # type: ignore[no-untyped-def]
def nothing() -> None: ...
def two_models(item: Item, p: Point = Point(1)) -> None: ...  # noqa: B008


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (by_name, {"prompt": "a"}, {"prompt": "a"}),
        (by_name, {"prompt": "a", "steps": "3"}, {"prompt": "a", "steps": 3}),
        (
            by_name,
            {"prompt": "", "when": "2026-01-02", "colors": ["red"]},
            {"prompt": "", "when": date(2026, 1, 2), "colors": [Color.RED]},
        ),
        (whole_input, {"a": 1}, {"input": {"a": 1}}),
        (whole_input, {"input": 1}, {"input": {"input": 1}}),
        (whole_input, {}, {"input": {}}),
        (whole_input, None, {"input": None}),
        (whole_input, "x", {"input": "x"}),
        (typed_input, ["1", 2], {"input": [1, 2]}),
        (event, {"a": 1}, {"event": {"id": "", "input": {"a": 1}}}),
        (event, 7, {"event": {"id": "", "input": 7}}),
        (job, {"__empty": True}, {"job": {"id": "", "input": {}}}),
        (model, {"name": "a"}, {"item": Item(name="a")}),
        (model, {"item": {"name": "a", "n": 2}}, {"item": Item(name="a", n=2)}),
        (dataclass, {"x": 1}, {"p": Point(1.0)}),
        (dataclass, {"p": {"x": 1}}, {"p": Point(1.0)}),
        (typed_dict, {"deep": True}, {"options": {"deep": True}}),
        (free, {"a": 1}, {"config": {"a": 1}}),
        (free, {"config": {"a": 1}}, {"config": {"a": 1}}),
        (free, {"config": {}, "b": 1}, {"config": {"config": {}, "b": 1}}),
        (free, {}, {"config": {}}),
        (optional, {}, {}),
        (optional, {"name": "a"}, {"item": Item(name="a")}),
        (optional, None, {"item": None}),
        (union, {"x": 1}, {"shape": Point(1.0)}),
        (extra, {"a": 1, "b": "2"}, {"a": 1, "b": 2}),
        (anything, {"x": [1], "self": 2, "class": 3}, {"x": [1], "self": 2, "class": 3}),
        (nothing, {}, {}),
        (nothing, {"__empty": True}, {}),
        (nothing, None, {}),
        (two_models, {"item": {"name": "a"}}, {"item": Item(name="a")}),
    ],
)
def test_the_rules(function: Callable[..., Any], value: Any, expected: dict[str, Any]) -> None:
    assert bound(function, value) == expected


@pytest.mark.parametrize("raw", [b"", b" ", b"{}", b"{ }", b'{"__empty": true}', b'{ "__empty" : true }\n'])
def test_no_input_comes_in_several_forms(raw: bytes) -> None:
    assert binder(nothing).bind(raw) == {}
    assert binder(whole_input).bind(raw) == {"input": {}}
    assert errors(by_name, raw) == [(["prompt"], "missing")]


@pytest.mark.parametrize("value", [{"__empty": 1}, {"__empty": False}, {"__empty": True, "a": 1}])
def test_only_exactly_the_empty_mark_is_no_input(value: Any) -> None:
    assert bound(free, value) == {"config": value}


def test_the_event_carries_the_id() -> None:
    assert binder(event).bind(b'{"a":1}', job_id="j-1") == {"event": {"id": "j-1", "input": {"a": 1}}}


def test_an_annotated_job_is_an_input_by_name() -> None:
    def handler(job: str) -> None: ...

    assert bound(handler, {"job": "x"}) == {"job": "x"}


@pytest.mark.parametrize(
    ("function", "raw", "expected"),
    [
        (by_name, b"{", [([], "json_invalid")]),
        (by_name, b"[]", [([], "dict_type")]),
        (by_name, b'{"prompt": 1}', [(["prompt"], "string_type")]),
        (by_name, b'{"prompt": "a", "steps": "x"}', [(["steps"], "int_parsing")]),
        (by_name, b'{"prompt": "a", "colors": ["red", "blue"]}', [(["colors", 1], "enum")]),
        (by_name, b'{"prompt": "\xff"}', [([], "json_invalid")]),
        (by_name, b'{"prompt": "\\ud800"}', [([], "json_invalid")]),
        (by_name, b"\xef\xbb\xbf{}", [([], "json_invalid")]),
        (by_name, b'{"prompt": "a", "steps": 1e400}', [(["steps"], "finite_number")]),
        (by_name, b'{"prompt": "a", "steps": NaN}', [(["steps"], "finite_number")]),
        (by_name, b'{"prompt": "a", "steps": ' + b"9" * 5000 + b"}", [([], "json_invalid")]),
        (whole_input, b"nope", [([], "json_invalid")]),
        (event, b"[" * 1000, [([], "json_invalid")]),
        (model, b'{"item": {}}', [(["item", "name"], "missing")]),
        (model, b"{}", [(["name"], "missing")]),
        (model, b"[]", [([], "model_type")]),
        (extra, b'{"a": 1, "b": "x"}', [(["b"], "int_parsing")]),
        (nothing, b'{"a": 1}', [(["a"], "extra_forbidden")]),
    ],
)
def test_what_does_not_fit_names_the_field(function: Callable[..., Any], raw: bytes, expected: Any) -> None:
    assert errors(function, raw) == expected


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(ValidationFailed, match="promt: unknown input 'promt'; did you mean 'prompt'?"):
        bound(by_name, {"promt": "a"})
    with pytest.raises(ValidationFailed, match="unknown input 'zzz'; known: prompt, steps, when, colors"):
        bound(by_name, {"prompt": "a", "zzz": 1})


def test_a_huge_integer_that_python_takes_arrives_whole() -> None:
    assert bound(typed_input, [10**400]) == {"input": [10**400]}


def test_nan_reaches_a_float_as_pydantic_has_it() -> None:
    assert math.isnan(binder(dataclass).bind(b'{"x": NaN}')["p"].x)


def test_a_key_twice_means_the_last() -> None:
    assert binder(by_name).bind(b'{"prompt": "a", "prompt": "b"}') == {"prompt": "b"}


def test_many_errors_are_cut_off() -> None:
    assert len(errors(typed_input, json.dumps(["x"] * 1000).encode())) == MAX_ERRORS


def test_injection_is_no_input_and_wins_over_extra_keys() -> None:
    def handler(n: int, me: Job, model=injected, **kw) -> None: ...  # type: ignore[no-untyped-def]

    assert bound(handler, {"n": 1, "x": 2}, "model") == {"n": 1, "x": 2}
    for taken in ("model", "me"):
        with pytest.raises(ValidationFailed, match=f"unknown input '{taken}'"):
            bound(handler, {"n": 1, taken: 2}, "model")


def test_one_input_beside_injected_ones_is_alone() -> None:
    def handler(model, item: Item, me: Job) -> None: ...  # type: ignore[no-untyped-def]

    assert bound(handler, {"name": "a"}, "model") == {"item": Item(name="a")}


def test_limits_and_aliases_of_pydantic_count() -> None:
    def handler(n: Annotated[int, Field(ge=1)], text: Annotated[str, Field(alias="t")] = "") -> None: ...

    assert bound(handler, {"n": 1, "t": "x"}) == {"n": 1, "text": "x"}
    assert errors(handler, b'{"n": 0}') == [(["n"], "greater_than_equal")]


class Opaque: ...


def test_a_type_that_json_lacks_is_a_problem_that_names_the_parameter() -> None:
    def handler(a: int, model: Opaque) -> None: ...

    with pytest.raises(SignatureError, match=r"shop: 'model' cannot be an input.*Opaque") as error:
        binder(handler)
    assert "fixture" in error.value.hint


def test_a_job_has_no_request() -> None:
    def handler(request: Request) -> None: ...

    with pytest.raises(SignatureError, match="'request' wants the request of an HTTP call"):
        binder(handler)


def test_schemas_show_types_and_defaults() -> None:
    schema = binder(by_name).schema()

    assert schema["required"] == ["prompt"]
    assert schema["properties"]["steps"] == {"title": "Steps", "type": "integer", "default": 20}
    assert schema["properties"]["colors"]["items"] == {"$ref": "#/$defs/Color"}
    assert schema["additionalProperties"] is False
    assert binder(event).schema() == binder(whole_input).schema() == {}
    assert binder(model).schema()["title"] == "Item"


# The property: by name, binding accepts exactly what pydantic accepts for each field.

types_ = st.sampled_from(
    [
        int,
        str,
        float,
        bool,
        int | None,
        list[int],
        Item,
        Point,
        dict[str, int],
        date,
        Color,
        Any,
        list[Item],
        tuple[int, str],
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.sampled_from(["1", "red", "2026-01-02", "true"]),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(["name", "n", "x", "y", "a"]), v, max_size=3),
    max_leaves=5,
)
fields = st.dictionaries(
    st.sampled_from(["a", "b", "json", "copy", "model_x", "schema", "_low"]),
    st.tuples(types_, st.booleans()),
    min_size=2,
)


def accepts(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value))
    except ValidationError:
        return False
    return True


@given(fields, st.data())
def test_binding_by_name_accepts_what_pydantic_accepts_by_field(types: dict[str, Any], data: st.DataObject) -> None:
    inputs = tuple(Input(name, hint, None if has else EMPTY, None) for name, (hint, has) in types.items())
    bind = JobBinder(Signature(print, (), inputs, False, False, False, EMPTY, "shop")).bind
    sent = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(types, values)))
    missing = {name for name, (_, has) in types.items() if not has} - sent.keys()
    wrong = {name for name, value in sent.items() if not accepts(types[name][0], value)}

    try:
        arguments = bind(json.dumps(sent).encode())
    except ValidationFailed as error:
        assert {entry["loc"][0] for entry in error.errors} == missing | wrong  # noqa: PT017
    else:
        assert not missing | wrong
        assert arguments.keys() == sent.keys()


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_no_input_raises_anything_else(raw: bytes) -> None:
    for function in (by_name, whole_input, event, model, free, optional, extra, nothing):
        try:
            BINDERS[function].bind(raw)
        except ValidationFailed as error:
            assert error.errors  # noqa: PT017
            json.dumps(error.errors)


BINDERS = {f: binder(f) for f in (by_name, whole_input, event, model, free, optional, extra, nothing)}
