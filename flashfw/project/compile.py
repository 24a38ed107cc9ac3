"""A collected project to its manifest in one environment, with everything that is wrong with its configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flashfw import manifest
from flashfw.errors import Level, Problem
from flashfw.manifest import Endpoint, Function, Manifest, Scaler, Source, Variable
from flashfw.project import hardware, middleware, protected, provided, servers
from flashfw.project.cascade import Origin, Settings
from flashfw.project.effective import Configuration, EndpointConfig, configure
from flashfw.project.files import Files, SourceFile
from flashfw.project.fingerprint import Inventory, fingerprint, included, sources
from flashfw.project.functions import FunctionTree
from flashfw.project.model import EndpointTree, Project
from flashfw.project.settings import ProjectSettings
from flashfw.project.validate import DEV

FIELDS = {
    "memory": "memory_bytes",
    "idle_timeout": "idle_timeout_s",
    "start_timeout": "start_timeout_s",
    "drain_timeout": "drain_timeout_s",
    "max_body": "max_body_bytes",
    "disk": "disk_bytes",
    "volume": "volumes",
    "timeout": "timeout_s",
    "ttl": "ttl_s",
    "result_ttl": "result_ttl_s",
}
"""Keys whose field of the manifest says the unit. All others go by their own name."""

_DERIVED = frozenset(
    {"workers", "concurrency", "scaler", "cpu", "max_body", "env", "secrets", "dependencies", "include", "python"}
    | {"command", "ready"}
)
"""Keys that do not become a field as they are."""
JOB_BODY_BYTES = 10_000_000
JOB_UPLOAD_BYTES = 5_000_000_000
"""Of a request with files, which lie on the disk and not in the job store."""
HTTP_CONCURRENCY = 100
QUEUE_DELAY_S = 4.0
CALLS_PER_SLOT = 0.7


def compile(project: Project, *, environment: str = DEV) -> tuple[Manifest, tuple[Problem, ...]]:
    """Derives the manifest. The problems are those of this stage; `project.problems` come on top.

    An endpoint with an error, in its tree or in its configuration, is left out: its problem tells
    why. All others are there, with their fingerprints.

    Raises:
        UsageError: the project declares no such environment.
    """
    configuration = configure(project, environment=environment)
    compiler = _Compiler(project, configuration, environment)
    endpoints = tuple(compiler.endpoints())
    made = Manifest(project=configuration.settings.name, environment=environment, endpoints=endpoints)
    told = {*project.problems, *configuration.problems}
    found = (problem for problem in dict.fromkeys(compiler.problems) if problem not in told)
    return made, (*configuration.problems, *found)


class _Compiler:
    def __init__(self, project: Project, configuration: Configuration, environment: str) -> None:
        self.root = project.root.path
        self.environment = environment
        self.configuration = configuration
        self.files = Files(self.root)
        self.inventory = Inventory(project)
        self.problems: list[Problem] = []

    def endpoints(self) -> Iterator[Endpoint]:
        for config in self.configuration.endpoints:
            if not config.is_sound:
                continue
            patterns = tuple(_pattern(config.tree, text) for text in _value(config.settings, "include", ()))
            found = self.sources(config, patterns)
            broken = self.broken(config, found)
            self.problems += broken
            if not broken:
                yield self.endpoint(config, patterns, found)

    def sources(self, config: EndpointConfig, patterns: tuple[str, ...]) -> dict[str, SourceFile]:
        preload = _value(config.settings, "preload", ())
        data = self.data(config, patterns)
        return sources(config.tree, inventory=self.inventory, files=self.files, preload=preload, data=data)

    def broken(self, config: EndpointConfig, found: Mapping[str, SourceFile]) -> list[Problem]:
        """What keeps the modules that the endpoint's workers import from being read."""
        if not any(file.problem for file in found.values()):
            return []
        # A module beside the handler that nobody imports counts as a source, but need not be Python.
        roots = [*self.inventory.entries(config.tree)]
        for module in _value(config.settings, "preload", ()):
            roots += self.files.module(module)
        return [file.problem for file in self.files.closure(roots).values() if file.problem is not None]

    def endpoint(self, config: EndpointConfig, patterns: tuple[str, ...], found: Mapping[str, SourceFile]) -> Endpoint:
        tree, settings = config.tree, config.settings
        dependencies = required(self.configuration.settings, settings)
        self.problems += provided.missing(tree.id, found, requirements=dependencies, files=self.files)
        if "preload" in settings:
            preload = zip(settings["preload"].value, settings["preload"].origins, strict=True)
            self.problems += provided.missing_preloads(tree.id, preload, requirements=dependencies, files=self.files)
        endpoint = Endpoint(
            id=tree.id,
            kind=tree.kind,
            directory=tree.directory,
            functions=tuple(_function(function, values, self.inventory) for function, values in config.functions),
            dependencies=dependencies,
            python=_value(settings, "python", python(self.configuration.settings)),
            include=patterns,
            sources=tuple(Source(path=path, sha256=found[path].sha256) for path in sorted(found)),
            fingerprint="",
            **derived(tree.kind, settings),
            **servers.served(tree, settings),
            **_plain(settings),
        )
        return replace(endpoint, fingerprint=fingerprint(endpoint))

    def data(self, config: EndpointConfig, patterns: tuple[str, ...]) -> list[str]:
        """The files that `include` names; a pattern that names none is told of. What never ships does not count."""
        # What a server reads is not known, so that everything beside its endpoint.toml counts.
        found = [*included(self.root, config.tree.directory)] if servers.is_server(config.tree) else []
        for index, pattern in enumerate(patterns):
            paths = included(self.root, pattern)
            found += paths
            if not paths or (pattern in paths and protected.path(pattern)):
                origins = config.settings["include"].origins
                origin = origins[index] if index < len(origins) else config.settings["include"].origin
                self.problems.append(self.void(pattern, origin, is_there=bool(paths)))
        return [path for path in found if not protected.path(path)]

    def void(self, pattern: str, origin: Origin, *, is_there: bool) -> Problem:
        """The problem of a pattern of `include` that brings nothing along."""
        what = f"'include' finds no file: '{pattern}'"
        hint = "patterns begin in the endpoint's directory; with a leading '/', at the project's root"
        if not is_there:
            return Problem(what, origin.file, origin.line, hint=hint, level="warning")
        what = f"'include' names '{pattern}', which is protected and never ships"
        level: Level = "warning" if self.environment == DEV else "error"
        return Problem(what, origin.file, origin.line, hint="give it as a secret", level=level)


def python(project: ProjectSettings) -> str:
    """The version of an endpoint that names none: the project's, else that of this process."""
    return project.python or f"{sys.version_info[0]}.{sys.version_info[1]}"


def required(project: ProjectSettings, settings: Settings) -> tuple[str, ...]:
    """The project's requirements, then the endpoint's own, each once."""
    shared = (found.text for found in project.dependencies)
    return tuple(dict.fromkeys((*shared, *_value(settings, "dependencies", ()))))


def derived(kind: manifest.Kind, settings: Settings) -> dict[str, Any]:
    """The fields of an endpoint that depend on more than their own key."""
    concurrency = _value(settings, "concurrency", 1 if kind == "job" else HTTP_CONCURRENCY)
    least, most = _value(settings, "workers", (0, 3))
    has_gpu = "gpu" in settings
    return {
        "concurrency": concurrency,
        "workers_min": least,
        "workers_max": most,
        "scaler": _scaler(kind, _value(settings, "scaler", {}), concurrency),
        "cpu": None if has_gpu else _value(settings, "cpu", hardware.DEFAULT_CPU),
        "env": _variables(_value(settings, "env", {})),
        "secrets": _variables(_value(settings, "secrets", {})),
        "max_body_bytes": _value(settings, "max_body", JOB_BODY_BYTES if kind == "job" else None),
        "max_upload_bytes": _value(settings, "max_body", JOB_UPLOAD_BYTES if kind == "job" else None),
    }


def _scaler(kind: manifest.Kind, given: Mapping[str, Any], concurrency: int) -> Scaler:
    which = given.get("type", "queue_delay" if kind == "job" else "request_count")
    default = QUEUE_DELAY_S if which == "queue_delay" else CALLS_PER_SLOT * concurrency
    return Scaler(type=which, value=given.get("value", default))


def _variables(table: Mapping[str, str]) -> tuple[Variable, ...]:
    return tuple(Variable(name=name, value=value) for name, value in sorted(table.items()))


def _plain(settings: Settings) -> dict[str, Any]:
    """The fields whose value is what the key says. Without a GPU, what is said of GPUs is void."""
    skipped = _DERIVED | (set() if "gpu" in settings else {"gpu_count", "cuda"})
    return {FIELDS.get(name, name): setting.value for name, setting in settings.items() if name not in skipped}


def _function(function: FunctionTree, settings: Settings, inventory: Inventory) -> Function:
    is_http = function.handler.kind != "job"
    return Function(
        id=function.id,
        kind=function.handler.kind,
        module=function.handler.module,
        attribute=function.attribute,
        file=function.handler.file,
        line=function.line,
        route=function.route,
        method=function.method,
        middleware=middleware.around(function.handler.path, inventory.files) if is_http else (),
        files=function.files,
        **{FIELDS.get(name, name): setting.value for name, setting in settings.items()},
    )


def _pattern(tree: EndpointTree, text: str) -> str:
    """A pattern of `include` from the project's root on."""
    return text.lstrip("/") if text.startswith("/") else f"{tree.directory}/{text.removeprefix('./')}"


def _value(settings: Settings, name: str, default: Any) -> Any:
    return settings[name].value if name in settings else default
