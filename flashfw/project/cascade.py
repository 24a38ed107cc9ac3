"""The endpoint.toml files of one endpoint, root to leaf, to one table whose every value knows where it comes from.

First all plain values root to leaf, then all `[on.ENV]` tables root to leaf. Tables merge, lists are
replaced unless they begin with `"..."`, `false` unsets what isn't boolean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flashfw.errors import Level, Problem
from flashfw.project.keys import FUNCTION_KEYS, KEYS, STEERING
from flashfw.project.tomlkeys import Document, KeyPath
from flashfw.project.values import INHERITED


class Origin(NamedTuple):
    """Where a value is written."""

    document: Document
    path: KeyPath

    @property
    def file(self) -> str:
        return self.document.file

    @property
    def line(self) -> int:
        return self.document.position(self.path).line


class Leaf(NamedTuple):
    """One value that does not merge."""

    value: Any
    origin: Origin


class Items(NamedTuple):
    """A list; its items may come from several files. `origin` is the last that wrote to it."""

    items: tuple[Leaf, ...]
    origin: Origin


class Table(NamedTuple):
    """A table; its entries may come from several files. `origin` is the last that wrote to it."""

    entries: dict[str, Node]
    origin: Origin


Node = Leaf | Items | Table
Nodes = dict[str, Node]


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that somebody wrote, read, and the node of the cascade that it was read from."""

    value: Any
    node: Node

    @property
    def origin(self) -> Origin:
        """The last place that wrote to it."""
        return self.node.origin

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Every place that a part of it is written at, in the order of the parts."""
        return tuple(origins(self.node))

    def problem(self, path: KeyPath, what: str, *, hint: str = "", level: Level = "error") -> Problem:
        """A problem at the place where the part of it at `path` is written."""
        origin = find(self.node, path)
        return origin.document.problem(what, origin.path, hint=hint, level=level)


Settings = Mapping[str, Setting]
"""The keys that are set; what is not here has its default."""


class Layer(NamedTuple):
    """One table of one file that takes part: the whole file, or its `[on.ENV]`."""

    document: Document
    path: KeyPath
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cascade:
    """What holds for an endpoint: its own keys with the defaults of its functions, and each function's own."""

    nodes: Nodes
    layers: tuple[Layer, ...]

    def function(self, name: str) -> Nodes:
        """The function keys of the function `name`: the endpoint's, overlaid with `[function.NAME]` of each layer."""
        nodes = {key: node for key, node in self.nodes.items() if key in FUNCTION_KEYS}
        for layer in self.layers:
            functions = layer.values.get("function")
            values = functions.get(name) if isinstance(functions, dict) else None
            if isinstance(values, dict):
                _overlay(nodes, Layer(layer.document, (*layer.path, "function", name), values))
        return nodes


def cascade(documents: Sequence[Document], environment: str) -> Cascade:
    """The merged tables of `documents`, root to leaf, in one environment.

    Unknown keys are left out: whoever checks the documents has told of them.
    """
    layers = tuple(_layers(_after_cut(documents), environment))
    nodes: Nodes = {}
    for layer in layers:
        _overlay(nodes, layer)
    return Cascade(nodes, layers)


def raw(node: Node) -> Any:
    """The plain value of a node, as `tomllib` would have read it from one file."""
    if isinstance(node, Table):
        return {name: raw(entry) for name, entry in node.entries.items()}
    if isinstance(node, Items):
        return [item.value for item in node.items]
    return node.value


def origins(node: Node) -> Iterator[Origin]:
    """Everywhere that a part of the node is written."""
    if isinstance(node, Table) and node.entries:
        for entry in node.entries.values():
            yield from origins(entry)
    elif isinstance(node, Items) and node.items:
        yield from (item.origin for item in node.items)
    else:
        yield node.origin


def find(node: Node, path: KeyPath) -> Origin:
    """Where the part of a node at `path` is written, or the nearest thing around it."""
    for depth, part in enumerate(path):
        if isinstance(node, Table) and part in node.entries:
            node = node.entries[str(part)]
        elif isinstance(node, Items) and isinstance(part, int):
            node = node.items[part]
        else:
            return Origin(node.origin.document, (*node.origin.path, *path[depth:]))
    return node.origin


def _after_cut(documents: Sequence[Document]) -> Sequence[Document]:
    for index in range(len(documents) - 1, 0, -1):
        if documents[index].data.get("inherit") is False:
            return documents[index:]
    return documents


def _layers(documents: Iterable[Document], environment: str) -> Iterator[Layer]:
    documents = tuple(documents)
    for document in documents:
        yield Layer(document, (), document.data)
    for document in documents:
        tables = document.data.get("on")
        values = tables.get(environment) if isinstance(tables, dict) else None
        if isinstance(values, dict):
            yield Layer(document, ("on", environment), values)


def _overlay(nodes: Nodes, layer: Layer) -> None:
    values = layer.values
    for name, other in (("gpu", "cpu"), ("cpu", "gpu")):
        # `false` and `["..."]` name none; naming one kind of hardware is what excludes the other.
        if name in values and values[name] not in (False, [INHERITED]):
            nodes.pop(other, None)
    for name, value in values.items():
        if name in STEERING or name not in KEYS or value == [INHERITED]:
            continue
        origin = Origin(layer.document, (*layer.path, name))
        if value is False and not KEYS[name].boolean:
            nodes.pop(name, None)
        else:
            nodes[name] = _merge(nodes.get(name), value, origin)


def _merge(inherited: Node | None, value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        return _merge_table(inherited, value, origin)
    if isinstance(value, list):
        items = tuple(Leaf(item, Origin(origin.document, (*origin.path, i))) for i, item in enumerate(value))
        if items and items[0].value == INHERITED:
            if isinstance(inherited, Table) and all(isinstance(item.value, str) for item in items):
                return Table({**inherited.entries, **_as_entries(items[1:])}, origin)
            items = (*_as_items(inherited), *items[1:])
        return Items(items, origin)
    return Leaf(value, origin)


def _merge_table(inherited: Node | None, value: Mapping[str, Any], origin: Origin) -> Table:
    entries: dict[str, Node] = {}
    if isinstance(inherited, Table):
        entries = dict(inherited.entries)
    elif isinstance(inherited, Items):
        entries = _as_entries(inherited.items)
    for name, item in value.items():
        if item is False:
            entries.pop(name, None)
        else:
            entries[name] = _merge(entries.get(name), item, Origin(origin.document, (*origin.path, name)))
    return Table(entries, origin)


def _as_entries(items: Iterable[Leaf]) -> dict[str, Node]:
    """A list of names as the table that it is short for: `["TOKEN"]` is `{TOKEN = "TOKEN"}`."""
    return {item.value: item for item in items if isinstance(item.value, str)}


def _as_items(inherited: Node | None) -> tuple[Leaf, ...]:
    """What `"..."` stands for; one value that may also be a list is a list of one."""
    if inherited is None:
        return ()
    if isinstance(inherited, Items):
        return inherited.items
    return (Leaf(raw(inherited), inherited.origin),)
