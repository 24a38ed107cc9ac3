"""One endpoint.toml to everything that is wrong in it, whether or not an endpoint uses the value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from flashfw.errors import Problem
from flashfw.project.keys import FUNCTION_KEYS, KEYS, STEERING, Key
from flashfw.project.tomlkeys import Document, KeyPath
from flashfw.project.values import INHERITED, Fault, Invalid, did_you_mean, dotted, shown

DEV = "dev"
"""The laptop's environment: always there, declared nowhere."""


def check(
    document: Document, *, environments: Collection[str], functions: Collection[str] | None
) -> tuple[Problem, ...]:
    """All problems of one file.

    `environments` are those that the project declares. `functions` are the names that
    `[function.NAME]` may have: those of all endpoints that the file holds for; None while they
    are not known, because a handler does not parse.
    """
    return tuple(_File(document, {*environments, DEV}, functions).problems())


class _File:
    def __init__(self, document: Document, environments: set[str], functions: Collection[str] | None) -> None:
        self.document = document
        self.environments = environments
        self.functions = functions

    def problems(self) -> Iterator[Problem]:
        data = self.document.data
        yield from self.table(data, ())
        if not isinstance(data.get("inherit", True), bool):
            yield self.problem(f"'inherit' must be true or false, not {shown(data['inherit'])}", ("inherit",))
        for name, values in _entries(data, "on"):
            path = ("on", name)
            if name not in self.environments:
                hint = did_you_mean(name, self.environments) or f"declare [environments.{name}] in flashfw.toml"
                yield self.problem(f"[on.{name}] is for an environment that the project does not declare", path, hint)
            if not isinstance(values, dict):
                yield self.problem(f"'on.{name}' must be a table, not {shown(values)}", path)
                continue
            yield from self.table(values, path)
        for steering in ("on", "function"):
            if not isinstance(data.get(steering, {}), dict):
                yield self.problem(f"'{steering}' must be a table, not {shown(data[steering])}", (steering,))

    def table(self, values: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
        """The whole file, or one `[on.ENV]`."""
        for name, value in values.items():
            here = (*path, name)
            if name in KEYS:
                yield from self.value(KEYS[name], value, here)
            elif name not in STEERING:
                yield self.unknown(here, (*KEYS, *STEERING))
            elif path and name != "function":
                yield self.problem(f"'{name}' cannot stand inside [{dotted(path)}]", here, "move it to the top")
        if all(values.get(name, False) is not False for name in ("gpu", "cpu")):
            hint = "an endpoint runs on one kind of hardware: remove one"
            yield self.problem("'gpu' and 'cpu' exclude each other", (*path, "cpu"), hint)
        for name, value in _entries(values, "function"):
            yield from self.function(name, value, (*path, "function", name))

    def function(self, name: str, values: Any, path: KeyPath) -> Iterator[Problem]:
        if self.functions is not None and name not in self.functions:
            known = ", ".join(sorted(self.functions)) or "none"
            hint = did_you_mean(name, self.functions) or f"there is: {known}"
            yield self.problem(f"[function.{name}] names no function of the endpoint", path, hint)
        if not isinstance(values, dict):
            yield self.problem(f"'{dotted(path)}' must be a table, not {shown(values)}", path)
            return
        for key, value in values.items():
            here = (*path, key)
            if key in FUNCTION_KEYS:
                yield from self.value(KEYS[key], value, here)
            elif key in KEYS:
                hint = "functions share workers and hardware: move it to the top"
                yield self.problem(f"'{key}' holds for a whole endpoint, not for one function", here, hint)
            else:
                yield self.unknown(here, FUNCTION_KEYS)

    def value(self, key: Key, value: Any, path: KeyPath) -> Iterator[Problem]:
        if value is False and not key.boolean:
            return
        given = _given(value) if key.lists or isinstance(value, dict) else value
        if given == [] and value != []:
            return
        try:
            key.check(given)
        except Invalid as error:
            for fault in error.faults:
                yield self.fault(fault, path, value)

    def fault(self, fault: Fault, path: KeyPath, value: Any) -> Problem:
        at, wrong = _written_at(fault.at, value)
        hint = fault.hint
        if wrong == INHERITED:
            hint = '"..." stands for the inherited items, and only as the first item of a list'
        return self.problem(replace(fault, at=at).text(path), (*path, *at), hint)

    def unknown(self, path: KeyPath, known: Collection[str]) -> Problem:
        return self.problem(f"unknown key '{dotted(path)}'", path, did_you_mean(str(path[-1]), known))

    def problem(self, what: str, path: KeyPath, hint: str = "") -> Problem:
        return self.document.problem(what, path, hint=hint)


def _entries(values: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    found = values.get(name)
    if isinstance(found, dict):
        yield from found.items()


def _given(value: Any) -> Any:
    """What a value says by itself: without entries that only take an inherited one away, and without `"..."`."""
    if isinstance(value, dict):
        return {name: _given(item) for name, item in value.items() if item is not False}
    if isinstance(value, list) and value[:1] == [INHERITED]:
        return value[1:]
    return value


def _written_at(at: KeyPath, value: Any) -> tuple[KeyPath, Any]:
    """Where in the file a part of what `_given` returned stands, and what stands there."""
    written: KeyPath = ()
    for part in at:
        if isinstance(part, int) and isinstance(value, list):
            index = part + (value[:1] == [INHERITED])
            written, value = (*written, index), value[index]
        else:
            written, value = (*written, part), value.get(part) if isinstance(value, dict) else None
    return written, value
