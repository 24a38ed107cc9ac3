from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from typing import Annotated, Any

import pydantic
import pytest
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import Response

from flashfw import Form, Header, Job, Query, injected, manifest
from flashfw.worker.describe import describe
from flashfw.worker.frames import Description
from flashfw.worker.signature import SignatureError, read
from tests.worker.http_call import function


class Color(Enum):
    RED = "red"


class User(pydantic.BaseModel):
    name: str
    color: Color = Color.RED


JOB = manifest.Function(id="shop", kind="job", module="m", attribute="handler", file="f.py", line=1, route="/shop")


def described(handler: Callable[..., Any], method: str = "", path: tuple[str, ...] = ()) -> Description:
    signature = read(handler, fixtures=["model"], path_parameters=path, owner="shop")
    return describe(function(method) if method else JOB, signature)


def test_a_job() -> None:
    def handler(prompt: str, job: Job, steps: int = 20, model=injected) -> User:  # type: ignore[no-untyped-def]
        """Makes an image
        of a prompt.

        More is not shown.
        """
        return User(name=prompt)

    found = described(handler)

    assert found["doc"] == "Makes an image of a prompt."
    assert (found["stream"], found["is_async"], found["media"], found["parameters"]) == (
        False,
        False,
        "application/json",
        [],
    )
    assert found["input"]["properties"].keys() == {"prompt", "steps"}
    assert found["input"]["required"] == ["prompt"]
    assert found["output"]["properties"]["color"]["default"] == "red"
    assert "'#/$defs/Color'" in str(found["output"]["properties"]["color"])
    assert found["output"]["$defs"]["Color"]["enum"] == ["red"]


def test_a_generator_shows_its_item() -> None:
    async def handler(n: int) -> AsyncIterator[User]:
        yield User(name="a")

    def plain() -> Iterator:  # type: ignore[type-arg]
        yield 1

    found = described(handler)

    assert (found["stream"], found["is_async"], found["output"]["title"]) == (True, True, "User")
    assert described(plain)["output"] == {}


class Opaque: ...


def test_a_result_without_a_schema_is_anything() -> None:
    def opaque() -> Opaque: ...
    def response() -> Response | None: ...
    def nothing() -> None: ...
    def unknown() -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821
    def bare(): ...  # type: ignore[no-untyped-def]

    outputs = [described(handler)["output"] for handler in (opaque, response, nothing, unknown, bare)]

    assert outputs == [{}, {}, {"type": "null"}, {}, {}]


def test_parameters_of_a_request() -> None:
    def get(
        id: int,
        color: Color = Color.RED,
        n: Annotated[int, Field(ge=1, description="how many"), Query("count")] = 1,
        token: Annotated[str | None, Header("X-Token")] = None,
        q: str = "",
    ) -> None: ...

    parameters = {item["name"]: item for item in described(get, "GET", ("id",))["parameters"]}

    assert parameters["id"] == {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    assert parameters["count"] == {
        "name": "count",
        "in": "query",
        "required": False,
        "description": "how many",
        "schema": {"type": "integer", "minimum": 1, "default": 1},
    }
    assert (parameters["x-token"]["in"], parameters["x-token"]["required"]) == ("header", False)
    assert "'#/$defs/Color'" in str(parameters["color"]["schema"])
    assert parameters["color"]["schema"]["$defs"].keys() == {"Color"}
    assert parameters["q"]["schema"] == {"type": "string", "default": ""}
    assert "input" not in described(get, "GET", ("id",))


def test_a_model_in_the_query_shows_as_its_fields() -> None:
    def get(user: Annotated[User, Query()]) -> None: ...

    found = described(get, "GET")["parameters"]

    assert [(item["name"], item["required"]) for item in found] == [("name", True), ("color", False)]


def test_bodies() -> None:
    def whole(user: User, n: int = 1) -> None: ...
    def raw(data: bytes) -> None: ...
    def fields(a: int) -> None: ...
    def upload(file: UploadFile, note: str = "") -> None: ...
    def form(user: Annotated[User, Form()]) -> None: ...
    def nothing() -> None: ...

    media = [described(handler, "POST").get("media") for handler in (whole, raw, fields, upload, form, nothing)]

    assert media == [
        "application/json",
        "application/octet-stream",
        "application/json",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        None,
    ]
    assert described(whole, "POST")["input"]["title"] == "User"
    assert described(whole, "POST")["parameters"][0]["name"] == "n"
    assert described(upload, "POST")["input"]["properties"]["file"]["format"] == "binary"
    assert described(form, "POST")["input"]["required"] == ["name"]
    assert described(form, "POST")["input"]["$defs"].keys() >= {"Color"}


def test_an_application_answers_for_itself_and_a_wrong_signature_is_told() -> None:
    def get(user: User) -> None: ...

    assert describe(function("*"), None) == {"doc": "", "stream": False, "is_async": True, "parameters": []}
    with pytest.raises(SignatureError, match="'user' needs a body"):
        described(get, "GET")
