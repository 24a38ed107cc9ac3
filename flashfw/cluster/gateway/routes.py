"""The compiled route table: from method and path to a function, its path parameters and its mount."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from starlette.routing import compile_path

from flashfw.cluster.gateway.http_calls import HttpTarget
from flashfw.cluster.gateway.intake import JobTarget
from flashfw.cluster.gateway.suggestions import Suggestions

Target = JobTarget | HttpTarget

WEBSOCKET = "WEBSOCKET"
"""The method of a WebSocket's handshake, which no HTTP request can have."""

OWN = frozenset({"_flashfw", "v2", "docs", "openapi.json"})
"""First segments of the server's own pages. No pattern or mount takes them: a server of a project with a `/{path:path}`
could not be administered any more, and would hand the secrets that are set on it to the project."""


@dataclass(frozen=True, slots=True)
class Found:
    """A match. With `target` None the path exists under other `methods`."""

    target: Target | None
    params: dict[str, str] = field(default_factory=dict)
    root_path: str = ""
    methods: Mapping[str, Target] = field(default_factory=dict)

    @property
    def takes(self) -> str:
        """The HTTP methods that have a function here, for a person; empty where there are WebSockets alone."""
        return ", ".join(sorted(self.methods.keys() - {WEBSOCKET}))

    @property
    def allow(self) -> str:
        """All HTTP methods that are answered here: with those that need no function of their own."""
        named = self.methods.keys() - {WEBSOCKET}
        return ", ".join(sorted(named | {"OPTIONS"} | ({"HEAD"} if "GET" in named else set())))

    @property
    def shared(self) -> bool:
        """Whether there is middleware, which answers a page's CORS preflight."""
        return any(target.function.middleware for target in (self.target, *self.methods.values()) if target)


_Methods = dict[str, Target]


class _Dynamic(NamedTuple):
    """A route with parameters; its `rank` is its own."""

    rank: int
    pattern: re.Pattern[str]
    methods: _Methods


class Routes:
    """Static paths by dictionary, dynamic ones by pattern, mounts by the longest prefix; compiled once."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self.jobs: dict[str, JobTarget] = {}
        self._static: dict[str, _Methods] = {}
        self._dynamic: dict[str, list[_Dynamic]] = {}
        self._depth = 0
        self._mounts: list[tuple[str, HttpTarget]] = []
        patterns: dict[str, _Methods] = {}
        for target in targets:
            function = target.function
            if isinstance(target, JobTarget):
                self.jobs[function.route] = target
                self._static.setdefault(function.route, {})["POST"] = target
            elif function.kind == "app":
                self._mounts.append((function.route.rstrip("/"), target))
            elif "{" in function.route:
                patterns.setdefault(function.route, {})[function.method] = target
            else:
                self._static.setdefault(function.route, {})[function.method] = target
        for rank, (route, methods) in enumerate(sorted(patterns.items(), key=_rank)):
            stem = _stem(route)
            self._depth = max(self._depth, stem.count("/"))
            self._dynamic.setdefault(stem, []).append(_Dynamic(rank, _pattern(route), methods))
        self._mounts.sort(key=lambda mount: -len(mount[0]))

    def find(self, method: str, path: str) -> Found | None:
        """Who answers, or None if the path is unknown, or one of the server's own pages."""
        methods = self._static.get(path)
        if methods is not None:
            return _pick(methods, method, {})
        if path[1:].partition("/")[0] in OWN:
            return None
        for route in self._candidates(path):
            if match := route.pattern.match(path):
                return _pick(route.methods, method, match.groupdict())
        for prefix, target in self._mounts:
            if path == prefix or path.startswith(prefix + "/"):
                return Found(target, root_path=prefix)
        return None

    def _candidates(self, path: str) -> list[_Dynamic]:
        """The dynamic routes whose stem the path begins with, by rank: of a thousand a few."""
        stem, found = "", [*self._dynamic.get("", ())]
        for segment in path.split("/", self._depth + 1)[1 : self._depth + 1]:
            stem = f"{stem}/{segment}"
            found += self._dynamic.get(stem, ())
        found.sort()
        return found

    @cached_property
    def suggestions(self) -> Suggestions:
        """Of the static paths, for whoever asked for another."""
        return Suggestions(self._static)

    @cached_property
    def job_suggestions(self) -> Suggestions:
        """The same of the paths of jobs alone."""
        return Suggestions(self.jobs)


def route_of(function: str) -> str:
    """`/gpu/upscale` of `gpu/upscale`, `/gpu/method` of `gpu::method`; a path stays what it is."""
    return "/" + function.removeprefix("/").replace("::", "/")


def _pick(methods: _Methods, method: str, params: dict[str, str]) -> Found:
    target = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
    return Found(target, params, methods=methods)


@lru_cache(maxsize=4096)
def _pattern(route: str) -> re.Pattern[str]:
    """Kept, since `flashfw dev` makes all routes anew after each save."""
    return compile_path(route)[0]


def _stem(route: str) -> str:
    """The whole segments before the first parameter.

    >>> _stem("/users/{id}/posts"), _stem("/files/v{version}"), _stem("/{path:path}")
    ('/users', '/files', '')
    """
    return route.partition("{")[0].rpartition("/")[0]


def _rank(item: tuple[str, _Methods]) -> tuple[list[bool], str]:
    """Static segments before dynamic ones at the same depth, so that `/users/{id}/posts` beats `/{any}/{thing}`."""
    route, _ = item
    return ["{" in segment for segment in route.split("/")], route
