"""The effective values of an endpoint as rows that a person can check: key, value, and every place it comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashfw import manifest
from flashfw.manifest import Endpoint, Function
from flashfw.project.cascade import Items, Origin, Setting, Settings, Table, find
from flashfw.project.compile import FIELDS, derived, python, required
from flashfw.project.effective import EndpointConfig
from flashfw.project.keys import FUNCTION_KEYS, KEYS, Key
from flashfw.project.settings import ProjectSettings
from flashfw.project.values import show_duration, show_size


@dataclass(frozen=True, slots=True)
class Row:
    """One effective value. `value` is JSON in base units, `parts` is how a file would say it, one item per line.

    `places` has a place per part, or all that take part where their number differs; it is empty for a default.
    """

    key: str
    value: Any
    parts: tuple[str, ...]
    places: tuple[tuple[str, int], ...]


def endpoint_rows(config: EndpointConfig, project: ProjectSettings) -> tuple[Row, ...]:
    """The endpoint's own keys, in the order of the documentation."""
    kind, settings = config.tree.kind, config.settings
    known = derived(kind, settings)
    special = {
        "workers": (known["workers_min"], known["workers_max"]),
        "concurrency": known["concurrency"],
        "scaler": known["scaler"],
        "cpu": known["cpu"],
        "max_body": known["max_body_bytes"],
        "env": {variable.name: variable.value for variable in known["env"]},
        "secrets": {variable.name: variable.value for variable in known["secrets"]},
        "python": python(project),
    }
    defaults = {**_defaults(Endpoint), **special}
    rows = [_row(key, settings, defaults) for key in KEYS.values() if key.scope == "endpoint"]
    return tuple(_shared(row, config, project) for row in rows)


def function_rows(settings: Settings) -> tuple[Row, ...]:
    """The keys of one function."""
    defaults = _defaults(Function)
    return tuple(_row(KEYS[name], settings, defaults) for name in KEYS if name in FUNCTION_KEYS)


def render(value: Any, field: str = "") -> str:
    """A value as an endpoint.toml would say it; the name of its field tells the unit.

    >>> render(600.0, "timeout_s"), render(("a", 1)), render(manifest.Retries(max=2))
    ('"10m"', '["a", 1]', '{max = 2, backoff = "1s", on = []}')
    """
    if value is None:
        return "none"
    if field.endswith("_s"):
        return f'"{show_duration(value)}"'
    if field.endswith("_bytes"):
        return f'"{show_size(value)}"'
    if dataclasses.is_dataclass(value):
        entries = ((item.name, getattr(value, item.name)) for item in dataclasses.fields(value))
        return _table({name: render(part, name) for name, part in entries if part is not None})
    if isinstance(value, Mapping):
        return _table({name: render(part) for name, part in value.items()})
    if isinstance(value, tuple | list):
        return f"[{', '.join(render(part) for part in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def _table(entries: Mapping[str, str]) -> str:
    named = (f"{name.removesuffix('_s').removesuffix('_bytes')} = {text}" for name, text in entries.items())
    return "{" + ", ".join(named) + "}"


def _defaults(record: type) -> dict[str, Any]:
    names = {field: key for key, field in FIELDS.items()}
    fields = dataclasses.fields(record)
    return {names.get(field.name, field.name): field.default for field in fields}


def _row(key: Key, settings: Settings, defaults: Mapping[str, Any]) -> Row:
    setting = settings.get(key.name)
    value = setting.value if setting is not None else defaults[key.name]
    if key.name in ("scaler", "env", "secrets"):
        value = defaults[key.name]  # the file may give a part; the derived value is whole and in order
    parts, places = _parts(value, FIELDS.get(key.name, "")), _places(setting, value)
    return Row(key.name, _json(value), parts, places if len(places) == len(parts) else tuple(dict.fromkeys(places)))


def _parts(value: Any, field: str) -> tuple[str, ...]:
    if isinstance(value, Mapping) and value:
        return tuple(f"{name} = {render(part)}" for name, part in value.items())
    if isinstance(value, tuple) and value and not isinstance(value[0], int):
        return tuple(render(part) for part in value)
    return (render(value, field),)


def _places(setting: Setting | None, value: Any) -> tuple[tuple[str, int], ...]:
    """One place per part where parts can be told apart, else every place once."""
    if setting is None:
        return ()
    node = setting.node
    if isinstance(value, Mapping) and isinstance(node, Table):
        return tuple(_place(find(node, (name,))) for name in value)
    if isinstance(value, Mapping) and isinstance(node, Items):
        places = {item.value: _place(item.origin) for item in node.items}
        return tuple(places[name] for name in value)
    if isinstance(value, tuple) and isinstance(node, Items) and len(value) == len(node.items):
        return tuple(_place(item.origin) for item in node.items)
    return tuple(dict.fromkeys(_place(origin) for origin in setting.origins))


def _place(origin: Origin) -> tuple[str, int]:
    return origin.file, origin.line


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _json(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_json(part) for part in value]
    return manifest.encode(value)


def _shared(row: Row, config: EndpointConfig, project: ProjectSettings) -> Row:
    """The row with what flashfw.toml and pyproject.toml add to an endpoint.toml."""
    if row.key == "python" and project.python_at is not None and not row.places:
        return dataclasses.replace(row, places=(project.python_at,))
    if row.key == "dependencies" and (every := required(project, config.settings)):
        lines = {found.text: ("pyproject.toml", found.line) for found in project.dependencies}
        setting = config.settings.get("dependencies")
        if setting is not None:
            own = zip(setting.value, setting.origins, strict=True)
            lines = {text: _place(origin) for text, origin in own} | lines
        return Row(row.key, list(every), tuple(render(text) for text in every), tuple(lines[text] for text in every))
    return row
