from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from flashfw.cluster.documents.components import Components
from flashfw.cluster.documents.openapi import document
from flashfw.manifest import Endpoint, Function, Kind, Manifest
from flashfw.worker.frames import Description


def function(function_id: str, route: str, *, method: str = "", kind: Kind = "job", public: bool = False) -> Function:
    return Function(
        id=function_id,
        kind=kind,
        module="endpoints.x.handler",
        attribute=method.lower() or "handler",
        file="endpoints/x/handler.py",
        line=1,
        route=route,
        method=method,
        public=public,
    )


def endpoint(endpoint_id: str, *functions: Function) -> Endpoint:
    kind = functions[0].kind
    return Endpoint(
        id=endpoint_id, kind=kind, directory="endpoints/x", functions=functions, python="3.11", fingerprint=""
    )


USER = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SHOP = Manifest(
    project="shop",
    environment="dev",
    endpoints=(
        endpoint("gpu", function("gpu", "/gpu"), function("gpu/upscale", "/gpu/upscale"), function("gpu::m", "/gpu/m")),
        endpoint(
            "api",
            function("api/users::get", "/api/users", method="GET", kind="http"),
            function("api/users::post", "/api/users", method="POST", kind="http"),
            function("api/users/_id_::get", "/api/users/{id}", method="GET", kind="http", public=True),
            function("api/users/_id_::delete", "/api/users/{id:int}", method="DELETE", kind="http"),
            function("api/files::put", "/files/{path:path}", method="PUT", kind="http"),
            function("api/live::websocket", "/api/live", method="WEBSOCKET", kind="http"),
        ),
        endpoint("site", function("site", "/site", method="*", kind="app")),
    ),
)
DESCRIPTIONS: dict[str, Description] = {
    "gpu": {
        "doc": "Draw a picture.\n\nSlowly.",
        "stream": True,
        "input": {
            "type": "object",
            "properties": {"prompt": {"type": "string"}, "who": {"$ref": "#/$defs/User"}},
            "required": ["prompt"],
            "$defs": {"User": USER},
        },
        "output": {"type": "object"},
    },
    "gpu/upscale": {"error": {"type": "NameError", "message": "name 'x' is not defined", "place": "a.py:3"}},
    "api/users::get": {
        "parameters": [{"name": "limit", "in": "query", "required": False, "schema": {"type": "integer"}}],
        "output": {"type": "array", "items": {"$ref": "#/$defs/User"}, "$defs": {"User": USER}},
    },
    "api/users::post": {
        "input": {"$ref": "#/$defs/User", "$defs": {"User": {"type": "object"}}},
        "media": "multipart/form-data",
        "output": {},
    },
    "api/users/_id_::get": {
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
        "output": {"type": "object"},
    },
    "api/users/_id_::delete": {"output": {"type": "null"}},
}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(SHOP, DESCRIPTIONS, title="shop", version="7")


def test_the_document_is_valid_openapi(made: dict[str, Any]) -> None:
    validate(made)

    assert made["openapi"] == "3.1.0"
    assert made["info"] == {"title": "shop", "version": "7"}


def test_a_project_without_descriptions_is_valid_and_complete() -> None:
    bare = document(SHOP, {}, title="shop")
    validate(bare)

    assert bare["paths"]["/gpu"]["post"]["requestBody"]["content"] == {"application/json": {"schema": {}}}
    assert bare["paths"]["/api/users"]["post"]["requestBody"]["required"] is False
    assert "requestBody" not in bare["paths"]["/api/users"]["get"]


def test_an_empty_project_is_valid() -> None:
    empty = document(Manifest(project="a", environment="dev", endpoints=()), {}, title="a")
    validate(empty)

    assert empty["paths"] == {}


def test_a_job_says_how_it_is_called_and_what_can_go_wrong(made: dict[str, Any]) -> None:
    job = made["paths"]["/gpu"]["post"]

    assert (job["operationId"], job["summary"], job["description"]) == ("gpu", "Draw a picture.", "Slowly.")
    assert job["x-flashfw"] == {"id": "gpu", "kind": "job", "endpoint": "gpu", "stream": True}
    assert list(job["responses"]) == ["200", "202", "409", "413", "415", "422", "429", "500", "502", "503", "504"]
    assert job["requestBody"]["required"] is True
    body = job["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["who"] == {"$ref": "#/components/schemas/User"}
    assert "$defs" not in body


def test_the_job_api_is_written_once_and_names_every_job(made: dict[str, Any]) -> None:
    run = made["paths"]["/v2/{function}/run"]["post"]

    assert run["parameters"][0]["schema"]["enum"] == ["gpu", "gpu/upscale", "gpu::m"]
    assert len([path for path in made["paths"] if path.startswith("/v2/")]) == 9
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in run["parameters"]
    assert made["paths"]["/gpu"]["post"]["parameters"][1:3] == [
        {"$ref": "#/components/parameters/IdempotencyKey"},
        {"$ref": "#/components/parameters/FlashfwTimeout"},
    ]
    assert made["components"]["parameters"]["FlashfwPriority"]["schema"]["enum"] == ["low", "normal", "high"]
    assert {"400", "409", "413", "429", "503"} <= run["responses"].keys()


def test_a_function_that_cannot_be_described_says_why(made: dict[str, Any]) -> None:
    job = made["paths"]["/gpu/upscale"]["post"]

    assert job["description"] == "Its schema is not known: NameError: name 'x' is not defined (a.py:3)"
    assert job["x-flashfw"]["error"]["place"] == "a.py:3"


def test_http_functions_have_parameters_bodies_and_answers(made: dict[str, Any]) -> None:
    users, one = made["paths"]["/api/users"], made["paths"]["/api/users/{id}"]

    assert users["get"]["parameters"][0]["name"] == "limit"
    assert list(users["post"]["requestBody"]["content"]) == ["multipart/form-data"]
    assert one["get"]["parameters"] == DESCRIPTIONS["api/users/_id_::get"]["parameters"]
    assert one["delete"]["parameters"][0]["schema"] == {"type": "integer"}
    assert list(one["delete"]["responses"]) == ["204", "404"]
    assert made["paths"]["/files/{path}"]["put"]["parameters"][0]["name"] == "path"


def test_sockets_and_mounts_are_named_without_operations(made: dict[str, Any]) -> None:
    assert made["paths"]["/api/live"]["x-websocket"]["operationId"] == "api/live::websocket"
    assert made["paths"]["/site"]["x-flashfw"]["kind"] == "app"


def test_keys_are_asked_for_off_the_laptop_except_where_public(made: dict[str, Any]) -> None:
    live = document(Manifest(project="a", environment="live", endpoints=SHOP.endpoints), DESCRIPTIONS, title="a")

    assert made["security"] == [{}, {"key": []}]
    assert live["security"] == [{"key": []}]
    assert live["paths"]["/api/users/{id}"]["get"]["security"] == []


def test_definitions_of_one_name_and_two_meanings_are_kept_apart(made: dict[str, Any]) -> None:
    names = [name for name in made["components"]["schemas"] if not name.startswith("flashfw.")]

    assert names == ["User", "User_2"]
    assert made["components"]["schemas"]["User"] == USER
    content = made["paths"]["/api/users"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/User_2"}


def test_equal_text_with_other_references_is_another_definition() -> None:
    components = Components()
    order = {"properties": {"to": {"$ref": "#/$defs/Address"}}}
    first = {"$ref": "#/$defs/Order", "$defs": {"Order": order, "Address": {"type": "string"}}}
    second = {"$ref": "#/$defs/Order", "$defs": {"Order": order, "Address": {"type": "object"}}}

    assert components.hoist(first) == {"$ref": "#/components/schemas/Order"}
    assert components.hoist(second) == {"$ref": "#/components/schemas/Order_2"}
    assert components.schemas["Order_2"] == {"properties": {"to": {"$ref": "#/components/schemas/Address_2"}}}


def test_recursion_discriminators_and_data_survive_hoisting() -> None:
    components = Components({"flashfw.Problem": {}})
    node = {
        "properties": {"next": {"$ref": "#/$defs/Node"}, "$ref": {"type": "string"}},
        "default": {"$ref": "#/$defs/Node"},
        "discriminator": {"propertyName": "kind", "mapping": {"n": "#/$defs/Node"}},
    }
    hoisted = components.hoist({"anyOf": [{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Gone"}], "$defs": {"Node": node}})

    assert hoisted == {"anyOf": [{"$ref": "#/components/schemas/Node"}, {}]}
    assert components.schemas["Node"] == {
        "properties": {"next": {"$ref": "#/components/schemas/Node"}, "$ref": {"type": "string"}},
        "default": {"$ref": "#/$defs/Node"},
        "discriminator": {"propertyName": "kind", "mapping": {"n": "#/components/schemas/Node"}},
    }


NAMES = st.sampled_from(["User", "User_2", "Läden", "a/b", "a~b"])


@given(st.lists(st.dictionaries(NAMES, st.sampled_from(["string", "object", "null"]), min_size=1), max_size=6))
def test_every_reference_keeps_its_meaning(tables: list[dict[str, str]]) -> None:
    components = Components()
    for table in tables:
        local = {name: {"type": kind} for name, kind in table.items()}
        for name, kind in table.items():
            pointer = name.replace("~", "~0").replace("/", "~1")
            hoisted = components.hoist({"$ref": f"#/$defs/{pointer}", "$defs": local})
            shared = hoisted["$ref"].removeprefix("#/components/schemas/")

            assert components.schemas[shared] == {"type": kind}
            assert all(char.isascii() and (char.isalnum() or char in "._-") for char in shared)


def test_a_job_that_takes_files_says_how_they_come() -> None:
    binary = {"type": "string", "format": "binary"}
    shop = Manifest(
        project="shop",
        environment="dev",
        endpoints=(endpoint("gpu", dataclasses.replace(function("gpu", "/gpu"), files=("image",))),),
    )
    schema = {"type": "object", "properties": {"image": binary, "size": {"type": "integer"}}, "required": ["image"]}

    made = document(shop, {"gpu": {"input": schema, "media": "application/json"}}, title="shop")

    validate(made)
    content = made["paths"]["/gpu"]["post"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["image"] == binary
    assert content["application/json"]["schema"]["properties"]["image"] == {
        "type": "string",
        "contentEncoding": "base64",
    }
    assert content["application/octet-stream"]["schema"] == binary
