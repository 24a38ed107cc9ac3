"""The handlers of an endpoint to its functions: their node ids, routes, and what to take from the module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flashfw.project import routes
from flashfw.project.model import Definition, EndpointTree, Handler


@dataclass(frozen=True, slots=True)
class FunctionTree:
    """One function as found. `name` is what `[function.NAME]` calls it, relative to its endpoint."""

    id: str
    name: str
    handler: Handler
    attribute: str
    route: str
    line: int
    method: str = ""


def functions(tree: EndpointTree) -> tuple[FunctionTree, ...]:
    """All functions of an endpoint, in the order of the walk and of each file."""
    return tuple(found for handler in tree.handlers for found in _of_handler(tree.id, handler))


def relative_name(endpoint: str, node: str) -> str:
    """The name of a function inside its endpoint's configuration.

    The endpoint's own job is `handler`; its own methods and verbs need no `::`.

    >>> [relative_name("gpu", node) for node in ("gpu", "gpu/upscale", "gpu::method", "gpu/users/_id_::get")]
    ['handler', 'upscale', 'method', 'users/_id_::get']
    """
    if node == endpoint:
        return "handler"
    return node.removeprefix(endpoint).removeprefix("::").removeprefix("/")


def _of_handler(endpoint: str, handler: Handler) -> Iterator[FunctionTree]:
    for definition in handler.definitions:
        if handler.kind == "job":
            yield from _of_job(endpoint, handler, definition)
        elif handler.kind == "app":
            node = routes.node_id(handler.path)
            yield _function(endpoint, handler, node, definition, method="*")
        else:
            node = routes.node_id(handler.path, definition.name)
            yield _function(endpoint, handler, node, definition, method=definition.name.upper())


def _of_job(endpoint: str, handler: Handler, definition: Definition) -> Iterator[FunctionTree]:
    node = routes.node_id(handler.path)
    if definition.form != "class":
        yield _function(endpoint, handler, node, definition)
        return
    for method in definition.methods:
        if method.name == "__call__":
            yield _function(endpoint, handler, node, definition)
        else:
            yield FunctionTree(
                id=routes.node_id(handler.path, method.name),
                name=relative_name(endpoint, routes.node_id(handler.path, method.name)),
                handler=handler,
                attribute=f"{definition.name}.{method.name}",
                route=routes.below(handler.route, method.name),
                line=method.line,
            )


def _function(endpoint: str, handler: Handler, node: str, definition: Definition, *, method: str = "") -> FunctionTree:
    name = "app" if method == "*" and node == endpoint else relative_name(endpoint, node)
    return FunctionTree(node, name, handler, definition.name, handler.route, definition.line, method)
