"""What differs between two records of one endpoint, field by field, and the way back from differences to a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from flashfw.manifest import Endpoint, Function, Source

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is another now; `None` stands for what is not there on that side.

    `path` leads to it in the endpoint's record: `("workers_max",)`, `("functions", "gpu/upscale", "timeout_s")`,
    `("functions", "gpu/upscale")` for a whole function, `("sources", "lib/x.py")` for a file's digest.
    """

    path: Path
    old: Any
    new: Any


def differences(old: Endpoint, new: Endpoint) -> tuple[Change, ...]:
    """All that differs, in the order of the fields.

    The order of functions and files means nothing, of anything else it does.
    """
    return tuple(_differences(old, new))


def applied(old: Endpoint, changes: Iterable[Change]) -> Endpoint:
    """The endpoint after the changes: `applied(a, differences(a, b)) == b`, with functions and sources sorted."""
    fields: dict[str, Any] = {}
    functions = {function.id: function for function in old.functions}
    sources = {source.path: source.sha256 for source in old.sources}
    for change in changes:
        match change.path:
            case ("sources", path):
                _put(sources, path, change.new)
            case ("functions", name):
                _put(functions, name, change.new)
            case ("functions", name, field):
                functions[name] = replace(functions[name], **{field: change.new})
            case _:
                fields[change.path[0]] = change.new
    return replace(
        old,
        functions=tuple(functions[name] for name in sorted(functions)),
        sources=tuple(Source(path=path, sha256=sources[path]) for path in sorted(sources)),
        **fields,
    )


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        found.pop(name, None)
    else:
        found[name] = value


def _differences(old: Endpoint, new: Endpoint) -> Iterator[Change]:
    for field in dataclasses.fields(Endpoint):
        if field.name == "functions":
            yield from _functions(old.functions, new.functions)
        elif field.name == "sources":
            yield from _entries("sources", _digests(old), _digests(new))
        else:
            yield from _fields((), field.name, old, new)


def _functions(old: Iterable[Function], new: Iterable[Function]) -> Iterator[Change]:
    before, after = ({function.id: function for function in side} for side in (old, new))
    yield from (change for change in _entries("functions", before, after) if None in (change.old, change.new))
    for name in before.keys() & after.keys():
        for field in dataclasses.fields(Function):
            yield from _fields(("functions", name), field.name, before[name], after[name])


def _fields(path: Path, name: str, old: Any, new: Any) -> Iterator[Change]:
    before, after = getattr(old, name), getattr(new, name)
    if before != after:
        yield Change((*path, name), before, after)


def _entries(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield Change((name, key), old.get(key), new.get(key))


def _digests(endpoint: Endpoint) -> dict[str, str]:
    return {source.path: source.sha256 for source in endpoint.sources}
