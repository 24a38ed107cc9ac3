from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flashfw.client.http_call import Operation, is_raw, operations, prepare, prepare_raw
from flashfw.cluster.documents.openapi import document
from flashfw.errors import UsageError
from tests.client.server import DESCRIPTIONS, manifest

ID = {"name": "id", "in": "path", "required": True}
TAG = {"name": "tag", "in": "query"}
GET = Operation("a::get", "http", "/a/{id}", "GET", (ID, TAG))
POST = Operation("a::post", "http", "/a/{id}", "POST", (ID, TAG), "application/json")


def test_operations_are_found_by_id() -> None:
    found = operations(document(manifest(), DESCRIPTIONS, title="shop"))

    assert found["tools::shout"] == Operation(
        "tools::shout", "job", "/tools/shout", "POST", (), "application/json", is_described=False
    )
    assert found["api/users/_id_::get"].path == "/api/users/{id}"
    assert found["api/users/_id_::get"].is_described
    assert found["api/notes::post"].media == "application/octet-stream"
    assert not any(name.startswith("v2.") for name in found)


@pytest.mark.parametrize(
    ("operation", "value", "path", "query", "body"),
    [
        (GET, {"id": 3}, "/a/3", (), None),
        (GET, {"id": "a/b c"}, "/a/a%2Fb%20c", (), None),
        (GET, {"id": 3, "tag": ["x", 2, True]}, "/a/3", (("tag", "x"), ("tag", "2"), ("tag", "true")), None),
        (GET, {"id": 3, "tag": None}, "/a/3", (), None),
        (POST, {"id": 3, "name": "é"}, "/a/3", (), '{"name": "é"}'.encode()),
        (Operation("b::post", "http", "/b", "POST", (), "application/json"), [1], "/b", (), b"[1]"),
        (Operation("b::post", "http", "/b", "POST", (), "application/json"), None, "/b", (), b"{}"),
        (Operation("b::post", "http", "/b", "POST", (), "text/plain"), "hello", "/b", (), b"hello"),
        (dataclasses.replace(POST, takes_list=True), {"id": 3, "tags": ["x"]}, "/a/3", (), b'["x"]'),
        (dataclasses.replace(POST, takes_list=True, parameters=()), ["x"], "/a/{id}", (), b'["x"]'),
        (Operation("b::get", "http", "/b", "GET", is_described=False), {"x": 1}, "/b", (("x", "1"),), None),
        (
            Operation("f::get", "http", "/f/{path}", "GET", ({**ID, "name": "path", "x-slashes": True},)),
            {"path": "a/b"},
            "/f/a/b",
            (),
            None,
        ),
    ],
)
def test_input_fills_path_then_query_then_body(
    operation: Operation, value: Any, path: str, query: tuple[tuple[str, str], ...], body: bytes | None
) -> None:
    request = prepare(operation, value)

    assert (request.path, request.query, request.body) == (path, query, body)


def test_headers_cookies_and_forms_go_where_they_belong() -> None:
    places = ({"name": "x-a", "in": "header"}, {"name": "c", "in": "cookie"}, {"name": "d", "in": "cookie"})
    operation = Operation("a::post", "http", "/a", "POST", places, "multipart/form-data")
    request = prepare(operation, {"x-a": 1, "c": "2", "d": "3", "name": "n", "tags": ["a"], "old": 4})

    assert request.headers == {"x-a": "1", "cookie": "c=2; d=3"}
    assert request.form == {"name": "n", "tags": ["a"], "old": "4"}
    assert request.is_multipart


@pytest.mark.parametrize(
    ("operation", "value", "message"),
    [
        (GET, {}, "a::get needs 'id' in its path"),
        (GET, None, "a::get needs 'id' in its path"),
        (GET, {"id": 1, "tga": 2}, "takes no 'tga'; did you mean 'tag'"),
        (GET, {"id": 1, "zzz": 2}, "takes no 'zzz'; it takes id, tag"),
        (Operation("b::get", "http", "/b", "GET"), {"x": 1}, "takes no 'x'; it takes nothing"),
        (Operation("b::post", "http", "/b", "POST", (), "multipart/form-data"), [1], "is a form"),
    ],
)
def test_what_does_not_fit_is_refused(operation: Operation, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(operation, value)


def test_bytes_travel_as_they_are() -> None:
    operation = Operation("n::post", "http", "/n", "POST", (), "application/octet-stream")
    request = prepare_raw(operation, b"\x00\xff")

    assert is_raw(operation)
    assert (request.body, request.headers) == (b"\x00\xff", {"content-type": "application/octet-stream"})
    with pytest.raises(UsageError, match="in its path"):
        prepare_raw(POST, b"")
