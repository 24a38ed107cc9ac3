"""The handlers of an endpoint to its functions: their node ids, routes, and what to take from the module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flashfw.project import routes
from flashfw.project.annotations import holds_file
from flashfw.project.model import Definition, EndpointTree, Handler, Parameter


@dataclass(frozen=True, slots=True)
class FunctionTree:
    """One function as found. `name` is what `[function.NAME]` calls it, relative to its endpoint.

    `parameters` are None where the source does not tell, as of an assignment.
    """

    id: str
    name: str
    handler: Handler
    attribute: str
    route: str
    line: int
    method: str = ""
    parameters: tuple[Parameter, ...] | None = None
    yields: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The parameters that take files, so far as the source tells."""
        return tuple(item.name for item in self.parameters or () if holds_file(item.annotation))


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
        if handler.kind == "http":
            node = routes.node_id(handler.path, definition.name)
            yield _function(endpoint, handler, node, definition, method=definition.name.upper())
        elif handler.kind == "app":
            yield _function(endpoint, handler, routes.node_id(handler.path), definition, method="*")
        elif definition.form == "class":
            yield from (_of_method(endpoint, handler, definition, method) for method in definition.methods)
        else:
            yield _function(endpoint, handler, routes.node_id(handler.path), definition)


def _of_method(endpoint: str, handler: Handler, definition: Definition, method: Definition) -> FunctionTree:
    node = routes.node_id(handler.path)
    if method.name == "__call__":
        found = _function(endpoint, handler, node, definition)
        return replace(found, parameters=method.parameters, yields=method.yields)
    node = routes.node_id(handler.path, method.name)
    return FunctionTree(
        id=node,
        name=relative_name(endpoint, node),
        handler=handler,
        attribute=f"{definition.name}.{method.name}",
        route=routes.below(handler.route, method.name),
        line=method.line,
        parameters=method.parameters,
        yields=method.yields,
    )


def _function(endpoint: str, handler: Handler, node: str, definition: Definition, *, method: str = "") -> FunctionTree:
    return FunctionTree(
        id=node,
        name="app" if method == "*" and node == endpoint else relative_name(endpoint, node),
        handler=handler,
        attribute=definition.name,
        route=handler.route,
        line=definition.line,
        method=method,
        parameters=definition.parameters if definition.form == "function" else None,
        yields=definition.yields,
    )
