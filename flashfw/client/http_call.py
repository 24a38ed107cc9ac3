"""One operation of an OpenAPI document and an input to the HTTP request that carries it."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from flashfw.errors import UsageError

Json = Any

JSON = "application/json"
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


@dataclass(frozen=True, slots=True)
class Operation:
    """A function as its server describes it; `method` and `path` are empty for a mount or a socket."""

    id: str
    kind: str
    path: str = ""
    method: str = ""
    parameters: tuple[Mapping[str, Json], ...] = ()
    media: str | None = None
    """The content type of the body, None where it takes none."""

    takes_list: bool = False
    """Whether the body is a list, so that the one key of an input that is left names the list."""

    is_described: bool = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be sent."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    form: Mapping[str, Json] | None = None
    is_multipart: bool = False


def operations(document: Mapping[str, Json]) -> dict[str, Operation]:
    """Every function of a document by its node id."""
    found: dict[str, Operation] = {}
    for path, item in document.get("paths", {}).items():
        for key, value in item.items():
            mark = value.get("x-flashfw", value) if isinstance(value, dict) else {}
            if key == "x-flashfw" or (key == "x-websocket" and "id" in mark):
                found[mark["id"]] = Operation(mark["id"], "app" if key == "x-flashfw" else "websocket")
            elif "id" in mark:
                found[mark["id"]] = _operation(path, key, value, mark)
    return found


def prepare(operation: Operation, value: Json) -> Prepared:
    """The request for an input: path and query parameters and headers by name, the rest is the body.

    Raises:
        UsageError: a parameter is missing, or a key belongs nowhere.
    """
    left = dict(value) if isinstance(value, dict) else {}
    path, query, headers = operation.path, list[tuple[str, str]](), dict[str, str]()
    for parameter in operation.parameters:
        name, place = parameter["name"], parameter["in"]
        if name not in left:
            _check_absent(operation, parameter)
        elif place == "path":
            path = path.replace(
                f"{{{name}}}", quote(_text(left.pop(name)), safe="/" if _takes_slashes(parameter) else "")
            )
        elif place == "query":
            query += ((name, _text(item)) for item in _items(left.pop(name)))
        else:
            headers |= _header(place, name, _text(left.pop(name)), headers)
    if operation.media is None:
        query += ((name, _text(item)) for name, given in _unknown(operation, left).items() for item in _items(given))
        return Prepared(operation.method, path, tuple(query), headers)
    body = left if isinstance(value, dict) else value
    if operation.takes_list and isinstance(body, dict) and len(body) == 1:
        body = next(iter(body.values()))
    return _with_body(Prepared(operation.method, path, tuple(query), headers), operation.media, body)


def prepare_raw(operation: Operation, body: bytes) -> Prepared:
    """The request that carries a file's bytes as they are.

    Raises:
        UsageError: the path has parameters, which bytes cannot fill.
    """
    for parameter in operation.parameters:
        _check_absent(operation, parameter)
    headers = {"content-type": operation.media or "application/octet-stream"}
    return Prepared(operation.method, operation.path, headers=headers, body=body)


def is_raw(operation: Operation) -> bool:
    """Whether the body is no JSON and no form, so that a file travels as it is."""
    return operation.media is not None and operation.media != JSON and operation.media not in _FORMS


def _operation(path: str, method: str, value: Mapping[str, Json], mark: Mapping[str, Json]) -> Operation:
    content = value.get("requestBody", {}).get("content", {})
    schema = next((body.get("schema") for body in content.values()), None)
    return Operation(
        mark["id"],
        mark["kind"],
        path,
        method.upper(),
        tuple(parameter for parameter in value.get("parameters", ()) if "name" in parameter),
        next(iter(content), None),
        takes_list=isinstance(schema, dict) and schema.get("type") == "array",
        is_described=mark.get("described", True),
    )


def _check_absent(operation: Operation, parameter: Mapping[str, Json]) -> None:
    if parameter.get("required"):
        place = "its path" if parameter["in"] == "path" else f"its {parameter['in']}"
        raise UsageError(
            f"{operation.id} needs {parameter['name']!r} in {place}",
            hint=f"give an object: '{{\"{parameter['name']}\": ...}}'",
        )


def _unknown(operation: Operation, left: dict[str, Json]) -> dict[str, Json]:
    """What is left goes to the query of a function that nobody could describe; else it is a mistake."""
    if not left or not operation.is_described:
        return left
    names = [parameter["name"] for parameter in operation.parameters]
    close = difflib.get_close_matches(next(iter(left)), names, n=1)
    known = f"it takes {', '.join(names)}" if names else "it takes nothing"
    hint = f"did you mean {close[0]!r}?" if close else known
    raise UsageError(f"{operation.id} takes no {next(iter(left))!r}", hint=hint)


def _with_body(request: Prepared, media: str, value: Json) -> Prepared:
    if media in _FORMS:
        if not isinstance(value, dict):
            raise UsageError(f"the body of {request.method} {request.path} is a form", hint="give an object")
        fields = {name: item if isinstance(item, list) else _text(item) for name, item in value.items()}
        return dataclasses.replace(request, form=fields, is_multipart=media == "multipart/form-data")
    if media == JSON:
        text = json.dumps({} if value is None else value, ensure_ascii=False)
    else:
        text = "" if value in (None, {}) else _text(value)
    return dataclasses.replace(request, headers={**request.headers, "content-type": media}, body=text.encode())


def _header(place: str, name: str, value: str, headers: Mapping[str, str]) -> dict[str, str]:
    if place == "header":
        return {name: value}
    earlier = f"{headers['cookie']}; " if "cookie" in headers else ""
    return {"cookie": f"{earlier}{name}={value}"}


def _takes_slashes(parameter: Mapping[str, Json]) -> bool:
    return bool(parameter.get("x-slashes"))


def _items(value: Json) -> list[Json]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
