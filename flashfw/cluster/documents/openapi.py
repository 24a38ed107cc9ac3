"""Manifest and descriptions to one OpenAPI 3.1 document: jobs, HTTP functions, mounts and the job API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from flashfw.cluster.documents.components import Components
from flashfw.cluster.documents.job_operations import (
    JOB_API,
    JOB_HEADERS,
    PLATFORM_SCHEMAS,
    PROBLEMS,
    job_operations,
    platform_components,
)
from flashfw.manifest import Endpoint, Function, Manifest
from flashfw.worker.frames import Description

Json = Any

_WITH_BODY = ("POST", "PUT", "PATCH")
_CONVERTORS: dict[str, Json] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
}
_PLACEHOLDER = re.compile(r"{(\w+)(?::(\w+))?}")


def document(
    manifest: Manifest, descriptions: Mapping[str, Description], *, title: str, version: str = "1"
) -> dict[str, Json]:
    """The OpenAPI document of a project.

    `operationId` is the node id, and `x-flashfw` on each operation says `id`, `kind` and `endpoint`. A
    function that has no description yet appears with schemas that allow anything.
    """
    components = Components(PLATFORM_SCHEMAS)
    paths: dict[str, dict[str, Json]] = {}
    jobs: list[str] = []
    for endpoint in manifest.endpoints:
        for function in endpoint.functions:
            item = paths.setdefault(_path(function.route), {})
            _add(item, endpoint, function, descriptions.get(function.id, Description()), components)
            if function.kind == "job":
                jobs.append(function.id)
    tags = [{"name": endpoint.id} for endpoint in manifest.endpoints]
    if jobs:
        paths |= job_operations(jobs)
        tags.append({"name": JOB_API, "description": "Submit, watch and cancel jobs by id, as Runpod's API has it."})
    # Off loopback a key is needed for all that is not public; in dev it is accepted and not asked for.
    security: list[Json] = [{"key": []}] if manifest.environment != "dev" else [{}, {"key": []}]
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "security": security,
        "tags": tags,
        "paths": paths,
        "components": {"schemas": components.schemas, **platform_components()},
    }


def _add(
    item: dict[str, Json], endpoint: Endpoint, function: Function, described: Description, components: Components
) -> None:
    """Put a function into the item of its path."""
    if function.method == "WEBSOCKET":
        item["x-websocket"] = _common(endpoint, function, described)
    elif function.kind == "app":
        item["x-flashfw"] = _mark(endpoint, function, described)
        item["summary"] = _summary(described) or "Mounted application"
        server = f"A server ({endpoint.command[0]})" if endpoint.command else "An ASGI application"
        item["description"] = f"{server} answers everything below {function.route}."
    elif function.kind == "job":
        item["post"] = _job(endpoint, function, described, components)
    else:
        item[function.method.lower()] = _http(endpoint, function, described, components)


def _job(endpoint: Endpoint, function: Function, described: Description, components: Components) -> dict[str, Json]:
    output = components.hoist(described.get("output", {}))
    answer = {"application/json": {"schema": output}, "text/event-stream": {"schema": {"type": "string"}}}
    return {
        **_common(endpoint, function, described),
        "parameters": [{"$ref": f"#/components/parameters/{name.replace('-', '')}"} for name, _, _ in JOB_HEADERS],
        "requestBody": _with_files(_body(described, components), function),
        "responses": {
            "200": {"description": "The output of the job.", "content": answer},
            "202": {"$ref": "#/components/responses/Accepted"},
            **{status: {"$ref": f"#/components/responses/Problem{status}"} for status in PROBLEMS},
        },
    }


def _http(endpoint: Endpoint, function: Function, described: Description, components: Components) -> dict[str, Json]:
    operation = _common(endpoint, function, described)
    parameters = _parameters(function, described, components)
    if parameters:
        operation["parameters"] = parameters
    # Without a description nobody knows whether there is a body, so methods that may have one allow it.
    if "input" in described or (not described and function.method in _WITH_BODY):
        operation["requestBody"] = _body(described, components)
    operation["responses"] = _http_responses(described, components, any(p.get("in") == "path" for p in parameters))
    return operation


def _http_responses(described: Description, components: Components, has_path: bool) -> dict[str, Json]:
    output = components.hoist(described.get("output", {}))
    responses: dict[str, Json] = {}
    if output == {"type": "null"}:
        responses["204"] = {"description": "Done; there is no body."}
    else:
        content = {"application/json": {"schema": output}}
        if described.get("stream"):
            content["text/event-stream"] = {"schema": {"type": "string"}}
        responses["200"] = {"description": "The answer.", "content": content}
    if has_path:
        responses["404"] = {"description": "A parameter of the path does not parse, or there is no such thing."}
    if described.get("parameters") or "input" in described:
        responses["422"] = {"$ref": "#/components/responses/Problem422"}
    return responses


def _common(endpoint: Endpoint, function: Function, described: Description) -> dict[str, Json]:
    """What every operation says: id, tag, text, mark and who may call it."""
    common: dict[str, Json] = {
        "operationId": function.id,
        "tags": [endpoint.id],
        "summary": _summary(described) or function.id,
        "x-flashfw": _mark(endpoint, function, described),
    }
    if text := _text(described):
        common["description"] = text
    if function.public:
        common["security"] = []
    return common


def _mark(endpoint: Endpoint, function: Function, described: Description) -> dict[str, Json]:
    mark: dict[str, Json] = {"id": function.id, "kind": function.kind, "endpoint": endpoint.id}
    if described.get("stream"):
        mark["stream"] = True
    if not described or "error" in described:
        mark["described"] = False
    if error := described.get("error"):
        mark["error"] = {key: error[key] for key in ("type", "message", "place") if key in error}
    return mark


def _summary(described: Description) -> str:
    return described.get("doc", "").strip().partition("\n")[0]


def _text(described: Description) -> str:
    """The description: the rest of the docstring, or why there is no schema."""
    if error := described.get("error"):
        place = f" ({error['place']})" if error.get("place") else ""
        return f"Its schema is not known: {error.get('type', 'Error')}: {error.get('message', '')}{place}"
    return described.get("doc", "").strip().partition("\n")[2].strip()


def _body(described: Description, components: Components) -> dict[str, Json]:
    schema = components.hoist(described.get("input", {}))
    required = isinstance(schema, dict) and (bool(schema.get("required")) or "$ref" in schema)
    return {"required": required, "content": {described.get("media", "application/json"): {"schema": schema}}}


def _with_files(body: dict[str, Json], function: Function) -> dict[str, Json]:
    """The body of a job that takes files: a form of them, one as it is, or base64 in JSON."""
    schema = body["content"].get("application/json", {}).get("schema")
    if not function.files or not isinstance(schema, dict):
        return body
    properties = schema.get("properties", {})
    content = {
        "multipart/form-data": {"schema": schema},
        "application/json": {"schema": {**schema, "properties": {**properties, **_in_base64(function, properties)}}},
    }
    if len(function.files) == 1:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {**body, "content": content}


def _in_base64(function: Function, properties: Mapping[str, Json]) -> dict[str, Json]:
    text = json.dumps({name: properties[name] for name in function.files if name in properties})
    found: dict[str, Json] = json.loads(text.replace('"format": "binary"', '"contentEncoding": "base64"'))
    return found


def _parameters(function: Function, described: Description, components: Components) -> list[dict[str, Json]]:
    """The described parameters; those of the path come from the route where nothing describes them."""
    convertors = dict(_PLACEHOLDER.findall(function.route))
    described_ones = described.get("parameters", [])
    known = {parameter["name"] for parameter in described_ones if parameter["in"] == "path"}
    from_route = [
        {"name": name, "in": "path", "required": True, "schema": _CONVERTORS.get(convertor, {"type": "string"})}
        for name, convertor in convertors.items()
        if name not in known
    ]
    given = [{**parameter, "schema": components.hoist(parameter.get("schema", {}))} for parameter in described_ones]
    return [
        # OpenAPI has no word for a parameter that spans segments.
        {**parameter, "x-slashes": True}
        if parameter["in"] == "path" and convertors.get(parameter["name"]) == "path"
        else parameter
        for parameter in from_route + given
    ]


def _path(route: str) -> str:
    """A Starlette path as OpenAPI writes it.

    >>> _path("/files/{path:path}")
    '/files/{path}'
    """
    return _PLACEHOLDER.sub(r"{\1}", route)
