from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.websockets import WebSocket

from flashfw import Body, Cookie, Header, Job, Query
from flashfw.worker.signature import SignatureError
from tests.worker.http_call import application, ask, each_way, outcome

__all__ = ["each_way"]


class Color(Enum):
    RED = "red"


class User(pydantic.BaseModel):
    name: str
    tags: list[str] = []


def upload(file: UploadFile, note: str = "") -> Any:
    return [file.filename, note]


def search(
    q: str, n: int = 5, color: Color | None = None, ids: Sequence[int] = (), day: datetime.date | None = None
) -> Any:
    return [q, n, color, ids, day]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_methods_without_a_body_read_the_query(method: str) -> None:
    query = "?q=a+b&n=7&color=red&ids=1&ids=2&day=2026-01-02&utm=x"

    assert outcome(search, method, query) == ["a b", 7, "red", [1, 2], "2026-01-02"]
    assert outcome(search, method, "?q=") == ["", 5, None, [], None]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [("query.q", "missing")]),
        ("?q=a&n=x", [("query.n", "int_parsing")]),
        ("?q=a&n=", [("query.n", "int_parsing")]),
        ("?q=a&color=blue", [("query.color", "enum")]),
        ("?q=a&ids=1&ids=b&n=x", [("query.n", "int_parsing"), ("query.ids.1", "int_parsing")]),
        ("?q=a&day=never", [("query.day", "date_from_datetime_parsing")]),
        ("?q=a&n=" + "9" * 5000, [("query.n", "int_parsing_size")]),
    ],
)
def test_a_query_that_does_not_fit_names_the_parameter(query: str, expected: Any) -> None:
    assert outcome(search, query=query) == (422, expected)


@pytest.mark.parametrize(
    ("query", "q"),
    [("?q=1&q=2", "2"), ("?q=%FF", "\ufffd"), ("?q=a;b", "a;b"), ("?q=%00", "\x00"), ("?q=%E2%82%AC", "€")],
)
def test_odd_queries(query: str, q: str) -> None:
    assert outcome(search, query=query)[0] == q


def by_id(id: int, q: str = "") -> Any:
    return [id, q]


def test_path_parameters_parse_or_nothing_is_there() -> None:
    assert outcome(by_id, path={"id": "7"}) == [7, ""]
    assert outcome(by_id, path={"id": "x"}, query="?q=1") == (404, "Not Found")
    assert outcome(by_id, "POST", path={"id": "7"}, json={"q": "b"}) == [7, "b"]


def test_a_path_parameter_without_annotation_is_text() -> None:
    def get(rest):
        return rest  # type: ignore[no-untyped-def]  # noqa: E704

    assert outcome(get, path={"rest": "a/b"}) == "a/b"


def marked(
    a: Annotated[list[str], Query("tag")],
    user_agent: Annotated[str, Header()],
    x: Annotated[int, Header("X-Num"), Field(ge=2)] = 9,
    session: Annotated[str | None, Cookie()] = None,
    y: Annotated[int, Query] = 1,
) -> Any:
    return [a, user_agent, x, session, y]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_markers_override_where_a_parameter_is_read(method: str) -> None:
    headers = {"User-Agent": "me", "X-NUM": "3", "Cookie": "session=s1; other=2"}

    assert outcome(marked, method, "?tag=a&tag=b&y=2", headers=headers) == [["a", "b"], "me", 3, "s1", 2]
    assert outcome(marked, method, "?tag=a", headers={"User-Agent": "me", "x-num": "1"}) == (
        422,
        [("header.x-num", "greater_than_equal")],
    )
    assert outcome(marked, method, headers={"User-Agent": "me"}) == (422, [("query.tag", "missing")])


# JSON bodies.


def create(user: User, notify: bool = False) -> Any:
    return [user, notify]


def test_a_model_is_the_body_and_scalars_beside_it_come_from_the_query() -> None:
    assert outcome(create, "POST", "?notify=yes", json={"name": "a"}) == [{"name": "a", "tags": []}, True]
    assert outcome(create, "PUT", "?notify=2", json={"tags": 1}) == (
        422,
        [("query.notify", "bool_parsing"), ("body.name", "missing"), ("body.tags", "list_type")],
    )


def numbers(values: list[int]) -> int:
    return sum(values)


def free(data: dict[str, Any]) -> Any:
    return data


def several(user: User, other: User, n: int = 0) -> Any:
    return [user.name, other.name, n]


def embedded(n: Annotated[int, Body(embed=True)]) -> int:
    return n


def whole(n: Annotated[int, Body()], q: int = 0) -> int:
    return n + q


def maybe(user: User | None = None) -> Any:
    return user


@pytest.mark.parametrize(
    ("handler", "value", "expected"),
    [
        (numbers, [1, "2"], 3),
        (free, {"data": {"a": 1}}, {"data": {"a": 1}}),
        (several, {"user": {"name": "a"}, "other": {"name": "b"}}, ["a", "b", 0]),
        (several, {"user": {"name": "a"}, "n": 1}, (422, [("body.other", "missing"), ("body.n", "extra_forbidden")])),
        (embedded, {"n": "3"}, 3),
        (whole, 4, 4),
        (maybe, {"name": "a"}, {"name": "a", "tags": []}),
    ],
)
def test_json_bodies(handler: Any, value: Any, expected: Any) -> None:
    assert outcome(handler, "POST", json=value) == expected


def fields(a: int, b: str = "x") -> Any:
    return [a, b]


def extra(a: int, **kw: int) -> Any:
    return [a, kw]


def test_scalars_alone_are_fields_of_a_json_or_form_body() -> None:
    assert outcome(fields, "POST", json={"a": "1"}) == [1, "x"]
    assert outcome(fields, "PATCH", data={"a": "1", "b": "y"}) == [1, "y"]
    assert outcome(fields, "POST", files={"z": ("f", b"")}, data={"a": "1"}) == (422, [("body.z", "extra_forbidden")])
    assert outcome(fields, "POST", "?a=1") == (422, [("body.a", "missing")])
    assert outcome(fields, "POST", json={"a": 1, "c": 2}) == (422, [("body.c", "extra_forbidden")])
    assert outcome(fields, "POST", json=[1]) == (422, [("body", "dict_type")])
    assert outcome(extra, "POST", json={"a": 1, "c": "2"}) == [1, {"c": 2}]
    assert outcome(extra, "POST", data={"a": 1, "c": "z"}) == (422, [("body.c", "int_parsing")])


def test_an_unknown_field_suggests_the_nearest() -> None:
    def post(prompt: str) -> None: ...

    assert "did you mean 'prompt'?" in ask(post, "POST", json={"promt": 1}).text


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/vnd.x+json", None]
)
def test_content_types_that_are_json(content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}

    assert outcome(create, "POST", content=b'{"name": "a"}', headers=headers) == [{"name": "a", "tags": []}, False]


@pytest.mark.parametrize(
    ("handler", "content_type", "expected"),
    [
        (create, "application/x-www-form-urlencoded", "application/json"),
        (create, "text/plain", "application/json"),
        (create, "image/svg+json", "application/json"),
        (fields, "text/xml", "application/json or application/x-www-form-urlencoded or multipart/form-data"),
        (lambda a: a, "application", "application/json or application/x-www-form-urlencoded or multipart/form-data"),
    ],
)
def test_another_content_type_is_415(handler: Any, content_type: str, expected: str) -> None:
    detail = f"content type '{content_type}' is not supported; send {expected}"

    assert outcome(handler, "POST", content=b"a=1", headers={"content-type": content_type}) == (415, detail)


@pytest.mark.parametrize(
    "content", [b"{", b"nope", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 1000, b"\xef\xbb\xbf{}", b"\x00"]
)
def test_a_body_that_is_no_json_is_422(content: bytes) -> None:
    for handler in (create, fields, several):
        assert outcome(handler, "POST", content=content) == (422, [("body", "json_invalid")])


def test_an_empty_body_is_missing_unless_nothing_is_required() -> None:
    headers = {"content-type": "text/plain"}

    assert outcome(create, "POST", headers=headers) == (422, [("body", "missing")])
    assert outcome(several, "POST") == (422, [("body.user", "missing"), ("body.other", "missing")])
    assert ask(maybe, "POST", headers=headers).status_code == 204
    assert outcome(lambda a=1: a, "POST", headers=headers) == 1


def test_a_strict_model_takes_what_only_json_can_say() -> None:
    class Strict(pydantic.BaseModel, strict=True):
        day: datetime.date

    def post(s) -> Any:  # type: ignore[no-untyped-def]
        return s

    post.__annotations__["s"] = Strict

    assert outcome(post, "POST", json={"day": "2026-01-02"}) == {"day": "2026-01-02"}
    assert outcome(post, "POST", json={"day": 3})[0] == 422


def raw(data: bytes, q: int = 0) -> Any:
    return [data.decode("latin-1"), q]


def test_bytes_are_the_raw_body_whatever_its_type() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}

    assert outcome(raw, "POST", "?q=2", content=b"\xff=", headers=headers) == ["\xff=", 2]
    assert outcome(raw, "POST") == ["", 0]
    assert outcome(lambda data=b"d": data.decode(), "POST") == "d"


def test_limits_of_raw_bytes_count() -> None:
    def post(data: Annotated[bytes, Field(max_length=2)] = b"no") -> str:
        return data.decode()

    assert outcome(post, "POST") == "no"
    assert outcome(post, "POST", content=b"abc") == (422, [("body", "bytes_too_long")])


def test_the_handler_can_read_the_body_again() -> None:
    async def post(user: User, request: Request) -> Any:
        return [user.name, await request.json()]

    assert outcome(post, "POST", json={"name": "a"}) == ["a", {"name": "a"}]


@pytest.mark.parametrize(
    ("handler", "method", "message"),
    [
        (create, "GET", "'user' needs a body, which GET does not have"),
        (upload, "DELETE", "'file' needs a body, which DELETE does not have"),
        (lambda user, data: None, "POST", None),
    ],
)
def test_parameters_that_a_method_cannot_have(handler: Any, method: str, message: str | None) -> None:
    if message is None:
        application(handler, method)
        return
    with pytest.raises(SignatureError, match=message):
        application(handler, method)


def test_parameters_that_exclude_each_other_are_a_problem() -> None:
    def form_and_json(user: User, file: UploadFile) -> None: ...
    def two_raw(a: bytes, b: bytes) -> None: ...
    def job(me: Job) -> None: ...
    def socket(socket: WebSocket) -> None: ...
    def header(user: Annotated[User, Header()]) -> None: ...
    def default(q: str = Query("x")) -> None: ...  # type: ignore[assignment]
    def aliased(q: Annotated[str, Field(alias="x")]) -> None: ...

    for handler, message in (
        (form_and_json, "'file' and 'user' want the body in different ways"),
        (two_raw, "'a' and 'b' want the body in different ways"),
        (job, "'me' wants the Job, which an HTTP call does not have"),
        (socket, "'socket' wants a WebSocket"),
        (header, "'user' is no value that a header can hold"),
        (default, r"the default of 'q' is a Query\(...\)"),
        (aliased, "'q' has an alias of pydantic's"),
    ):
        with pytest.raises(SignatureError, match=message):
            application(handler, "POST")


# The property: a query or form is accepted exactly where pydantic accepts its text for the type.

hints = st.sampled_from([int, float, bool, str, int | None, Color, datetime.date])
texts = st.sampled_from(["1", "-3", "0.5", "true", "red", "2026-01-02", "nan", "é", "a b"]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1
)


def accepts(hint: Any, text: str) -> bool:
    try:
        TypeAdapter(hint).validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("method", ["GET", "POST"])
@given(types=st.lists(hints, min_size=1, max_size=3), data=st.data())
def test_text_is_accepted_where_pydantic_accepts_it(method: str, types: list[Any], data: st.DataObject) -> None:
    names = [f"p{index}" for index in range(len(types))]
    scope: dict[str, Any] = {}
    exec(f"def handler({', '.join(names)}): return 1", scope)
    scope["handler"].__annotations__.update(zip(names, types, strict=True))
    sent = {name: data.draw(texts) for name in names}
    wrong = {name for name, hint in zip(names, types, strict=True) if not accepts(hint, sent[name])}
    options: Any = {"params": sent} if method == "GET" else {"data": sent}

    response = ask(scope["handler"], method, **options)

    assert response.status_code == (422 if wrong else 200)
    if wrong:
        assert {error["loc"][1] for error in response.json()["detail"]} == wrong


@given(
    st.binary(max_size=200),
    st.sampled_from(["application/json", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded", ""]),
)
def test_no_body_is_an_error_of_ours(content: bytes, content_type: str) -> None:
    for handler in (fields, upload, create):
        response = ask(handler, "POST", content=content, headers={"content-type": content_type})
        assert response.status_code in (200, 415, 422)
        json.loads(response.content)
