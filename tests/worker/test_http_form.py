from __future__ import annotations

from typing import Annotated, Any

import pydantic
import pytest
from starlette.datastructures import UploadFile

from flashfw import Form, Query
from tests.worker.http_call import each_way, outcome

__all__ = ["each_way"]


class User(pydantic.BaseModel):
    name: str
    tags: list[str] = []


async def upload(file: UploadFile, tags: list[str] = [], n: int = 1, more: UploadFile | None = None) -> Any:  # noqa: B006
    return [file.filename, (await file.read()).decode(), tags, n, more and more.filename]


async def uploads(files: list[UploadFile], note: Annotated[str, Form("remark")] = "") -> Any:
    return [[file.filename for file in files], note]


def form_model(user: Annotated[User, Form()]) -> Any:
    return user


def test_files_come_with_form_fields() -> None:
    one = {"file": ("a.txt", b"hello")}

    assert outcome(upload, "POST", files=one) == ["a.txt", "hello", [], 1, None]
    assert outcome(upload, "POST", files=one, data={"tags": ["x", "y"], "n": "3"}) == [
        "a.txt",
        "hello",
        ["x", "y"],
        3,
        None,
    ]
    assert outcome(upload, "POST", files=one, data={"n": ""})[3] == 1
    assert outcome(upload, "POST", files={**one, "more": ("b", b"")})[4] == "b"
    two = [("files", ("a", b"1")), ("files", ("b", b"2"))]
    assert outcome(uploads, "POST", files=two, data={"remark": "hi"}) == [["a", "b"], "hi"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (422, [("body.file", "missing")])),
        ({"data": {"file": "text"}}, (422, [("body.file", "is_instance_of")])),
        ({"files": {"file": ("a", b"")}, "data": {"n": "x"}}, (422, [("body.n", "int_parsing")])),
        ({"files": {"file": ("a", b""), "n": ("b", b"1")}}, (422, [("body.n", "int_type")])),
        ({"json": {"file": "x"}}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, (422, [("body", "form_invalid")])),
        (
            {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            (422, [("body", "form_invalid")]),
        ),
    ],
)
def test_forms_that_do_not_fit(options: Any, expected: Any) -> None:
    found = outcome(upload, "POST", **options)

    assert (found[0] if expected == 415 else found) == expected


def test_a_model_may_take_the_form_or_the_query() -> None:
    def get(user: Annotated[User, Query()]) -> Any:
        return user

    data = {"name": "a", "tags": ["x"]}

    assert outcome(form_model, "POST", data=data) == data
    assert outcome(get, query="?name=a&tags=x") == data
    assert outcome(form_model, "POST", data={"tags": "x"}) == (422, [("body.name", "missing")])
    assert outcome(get) == (422, [("query.name", "missing")])
