"""Local `$defs` of many JSON Schemas to one table of shared names, as an OpenAPI document needs them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Json = Any

# Where a JSON Schema keeps further schemas. Everything else (const, default, enum, examples) is data,
# in which a key named "$ref" means nothing.
_ONE = (
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("dependentSchemas", "patternProperties", "properties")
_LOCAL = "#/$defs/"


class Components:
    """Collects definitions under unique names. Lives as long as one document is made.

    The first definition of a name keeps it; another one of the same name that says something else
    becomes `Name_2`. Equal definitions are kept once. Names in `reserved` are taken from the start.

    >>> components = Components()
    >>> components.hoist({"$ref": "#/$defs/User", "$defs": {"User": {"type": "object"}}})
    {'$ref': '#/components/schemas/User'}
    >>> components.schemas
    {'User': {'type': 'object'}}
    """

    def __init__(self, reserved: Mapping[str, Json] | None = None) -> None:
        self.schemas: dict[str, Json] = dict(reserved or {})
        self._meanings = dict.fromkeys(self.schemas, "")

    def hoist(self, schema: Json) -> Json:
        """The schema without `$defs`, with references into `#/components/schemas/`.

        A reference to a definition that is not there becomes a schema that allows anything.
        """
        definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
        names = {local: self._name(local, definitions) for local in definitions}

        def point(reference: str) -> str | None:
            if not reference.startswith(_LOCAL):
                return reference
            name = names.get(_unescape(reference[len(_LOCAL) :]))
            return None if name is None else f"#/components/schemas/{name}"

        for local, name in names.items():
            if name not in self.schemas:
                self.schemas[name] = _rewrite(definitions[local], point)
        if not isinstance(schema, dict):
            return schema
        return _rewrite({key: value for key, value in schema.items() if key != "$defs"}, point)

    def _name(self, local: str, definitions: dict[str, Json]) -> str:
        meaning = _meaning(local, definitions)
        base = re.sub(r"[^A-Za-z0-9._-]", "_", local) or "_"
        name, number = base, 1
        while self._meanings.setdefault(name, meaning) != meaning:
            number += 1
            name = f"{base}_{number}"
        return name


def _meaning(local: str, definitions: dict[str, Json]) -> str:
    """The definition with all that it refers to: equal texts mean the same thing."""
    reached: dict[str, Json] = {}
    ahead = [local]
    while ahead:
        name = ahead.pop()
        if name in reached or name not in definitions:
            continue
        reached[name] = definitions[name]
        ahead += (_unescape(ref[len(_LOCAL) :]) for ref in _references(definitions[name]) if ref.startswith(_LOCAL))
    return json.dumps([local, reached], sort_keys=True)


def _references(schema: Json) -> Iterator[str]:
    found: list[str] = []

    def note(reference: str) -> str:
        found.append(reference)
        return reference

    _rewrite(schema, note)
    return iter(found)


def _rewrite(schema: Json, point: Callable[[str], str | None]) -> Json:
    """A copy of the schema in which each reference is what `point` makes of it; None allows anything."""
    if not isinstance(schema, dict):
        return schema
    copy: dict[str, Json] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            target = point(value)
            if target is not None:
                copy[key] = target
        elif key in _ONE:
            copy[key] = _rewrite(value, point)
        elif key in _MANY and isinstance(value, list):
            copy[key] = [_rewrite(item, point) for item in value]
        elif key in _NAMED and isinstance(value, dict):
            copy[key] = {name: _rewrite(item, point) for name, item in value.items()}
        elif key == "discriminator" and isinstance(value, dict):
            copy[key] = _discriminator(value, point)
        else:
            copy[key] = value
    return copy


def _discriminator(value: dict[str, Json], point: Callable[[str], str | None]) -> dict[str, Json]:
    mapping = value.get("mapping")
    if not isinstance(mapping, dict):
        return value
    return {**value, "mapping": {tag: point(target) or target for tag, target in mapping.items()}}


def _unescape(pointer: str) -> str:
    return pointer.replace("~1", "/").replace("~0", "~")
