"""From a directory below `endpoints/` to a URL, letter for letter, and back to what two URLs have in common."""

from __future__ import annotations

import re
from typing import NamedTuple

from flashfw.project.names import ENDPOINTS, HANDLER, INDEX, RESERVED, parameter

CONVERTORS = ("str", "path", "int", "float", "uuid")
"""What a `route = "..."` may say after the colon: the conversions of Starlette."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]*")
_PLATFORM = (*RESERVED, "openapi.json", "_flashfw")


class Placeholder(NamedTuple):
    """One `{name:convertor}` of a route."""

    name: str
    convertor: str


def route(path: str) -> str:
    """The Starlette path of a directory below `endpoints/`.

    >>> [route(path) for path in ("", "gpu_a100", "api/users/_id_")]
    ['/', '/gpu_a100', '/api/users/{id}']
    """
    return "/" + "/".join(_segment(component) for component in path.split("/"))


def _segment(component: str) -> str:
    name = parameter(component)
    return component if name is None else f"{{{name}}}"


def module(path: str) -> str:
    """The dotted name under which the handler.py of a directory is imported.

    >>> [module(path) for path in ("", "api/users/_id_")]
    ['endpoints.handler', 'endpoints.api.users._id_.handler']
    """
    return ".".join(part for part in (ENDPOINTS, *path.split("/"), HANDLER[:-3]) if part)


def file(path: str, name: str = HANDLER) -> str:
    """A file of a directory below `endpoints/`, relative to the project's root.

    >>> file("api/users"), file("", "endpoint.toml")
    ('endpoints/api/users/handler.py', 'endpoints/endpoint.toml')
    """
    return f"{directory(path)}/{name}"


def directory(path: str) -> str:
    """A directory below `endpoints/`, relative to the project's root.

    >>> directory("api/users"), directory("")
    ('endpoints/api/users', 'endpoints')
    """
    return f"{ENDPOINTS}/{path}" if path else ENDPOINTS


def node_id(path: str, name: str = "") -> str:
    """The id that people paste, of a directory or of a named function in it.

    >>> node_id("gpu_a100"), node_id("api/users/_id_", "get"), node_id("", "get")
    ('gpu_a100', 'api/users/_id_::get', 'index::get')
    """
    return f"{path or INDEX}::{name}" if name else path or INDEX


def below(route: str, name: str) -> str:
    """The URL of a method of a class under the class's own.

    >>> below("/gpu_a100", "upscale")
    '/gpu_a100/upscale'
    """
    return f"{route.rstrip('/')}/{name}"


def placeholders(route: str) -> tuple[Placeholder, ...]:
    """The parameters of a route, in order.

    >>> placeholders("/files/{owner}/{path:path}")
    (Placeholder(name='owner', convertor='str'), Placeholder(name='path', convertor='path'))
    """
    return tuple(_placeholder(text) for text in _PLACEHOLDER.findall(route))


def _placeholder(text: str) -> Placeholder:
    name, _, convertor = text.partition(":")
    return Placeholder(name, convertor or "str")


def erase(route: str) -> str:
    """A route without the names of its parameters: two routes that erase alike take the same URLs.

    >>> erase("/users/{id}/files/{path:path}")
    '/users/{}/files/{:path}'
    """
    if "{" not in route:
        return route
    return _PLACEHOLDER.sub(lambda found: _erased(_placeholder(found.group(1))), route)


def _erased(item: Placeholder) -> str:
    return "{}" if item.convertor == "str" else f"{{:{item.convertor}}}"


def levels(route: str) -> tuple[tuple[str, str], ...]:
    """For each segment that is one parameter: the erased route down to it, and the parameter's name.

    >>> levels("/users/{id}/posts/{post}")
    (('/users/{}', 'id'), ('/users/{}/posts/{}', 'post'))
    """
    found, erased = [], ""
    for segment in route.split("/")[1:]:
        erased += f"/{erase(segment)}"
        if _PLACEHOLDER.fullmatch(segment):
            found.append((erased, placeholders(segment)[0].name))
    return tuple(found)


def repeated(route: str) -> str | None:
    """The parameter that a route names twice, None if there is none.

    >>> repeated("/a/{id}/b/{id}"), repeated("/a/{id}")
    ('id', None)
    """
    seen: set[str] = set()
    for name, _ in placeholders(route):
        if name in seen:
            return name
        seen.add(name)
    return None


def flaw(route: str) -> str | None:
    """Why a `route = "..."` cannot be one, None if it can.

    >>> flaw("/files/{path:path}"), flaw("files"), flaw("/files/{n:int8}")
    (None, "it must begin with '/'", "'int8' is no conversion; there are str, path, int, float, uuid")
    """
    if not route.startswith("/"):
        return "it must begin with '/'"
    if "//" in route:
        return "it has an empty segment ('//')"
    if (top := route.split("/")[1]) in _PLATFORM:
        return f"'/{top}' belongs to flashfw"
    literal = _PLACEHOLDER.sub("", route)
    if "{" in literal or "}" in literal:
        return "its braces do not match"
    if strange := next((char for char in literal.replace("/", "") if not _LITERAL.fullmatch(char)), None):
        return f"{strange!r} cannot stand in a URL's path"
    return next((reason for item in placeholders(route) if (reason := _placeholder_flaw(item))), None)


def _placeholder_flaw(item: Placeholder) -> str | None:
    if not _IDENTIFIER.fullmatch(item.name):
        return f"{item.name!r} is no name for a parameter"
    if item.convertor not in CONVERTORS:
        return f"{item.convertor!r} is no conversion; there are {', '.join(CONVERTORS)}"
    return None
