"""The one frozen record that every later stage takes: what `compile` derives from a project, as plain data.

It names endpoints and functions by their node ids, holds every effective value in base units
(seconds, bytes) and nothing else: no address, no key, no id of a target. `loads(dumps(m)) == m`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from flashfw.errors import ManifestError

VERSION = 1

Kind = Literal["job", "http", "app"]
Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Further attempts after an error of the handler; `on` names exception types, empty means any."""

    max: int = 0
    backoff_s: float = 1.0
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Calls that are handed to the handler together: at most `max_size`, waiting at most `max_wait_s`."""

    max_size: int
    max_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One cron line of a function. `tz` is an IANA name."""

    cron: str
    tz: str = "UTC"
    input: Json = None
    overlap: bool = False
    catch_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One callable of an endpoint: a job, one HTTP verb, or a mounted application.

    `id` is the node id that people paste (`gpu_a100`, `gpu_a100/upscale`, `gpu_a100::method`,
    `api/users/_id_::get`). `attribute` is what to take from `module`: `handler`, `handler.method`
    (a method of a class), `get`, `app`. `method` is the HTTP verb in upper case, `WEBSOCKET`, `*`
    for an application, empty for a job. `route` is a Starlette path (`/api/users/{id}`). `files` are the
    parameters that take files, `middleware` the paths of the middleware.py files around it, the outermost first.
    """

    id: str
    kind: Kind
    module: str
    attribute: str
    file: str
    line: int
    route: str
    method: str = ""
    timeout_s: float = 600.0
    ttl_s: float = 86_400.0
    result_ttl_s: float = 86_400.0
    retries: Retries = Retries()
    batch: Batch | None = None
    schedule: tuple[Schedule, ...] = ()
    public: bool = False
    marks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """When to add workers: `queue_delay` in seconds of waiting, `request_count` in calls per worker."""

    type: Literal["queue_delay", "request_count"]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A named disk that outlives workers; `flashfw.volume(name)` is its path."""

    name: str
    size_bytes: int | None = None
    mount: str | None = None
    datacenter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable of a worker: a plain value, or for a secret the name it is kept under."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file that counts for an endpoint: its path below the root and the SHA-256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One set of workers: hardware, scaling, dependencies and the functions that share them.

    With a `command` it is a server of somebody else's, ready when `ready` answers 200.

    `gpu` holds full device names in order of preference and is empty for a CPU endpoint. `environment` is the lock's
    key of the packages that its workers import, empty without one. `fingerprint` changes when, and only when, something
    that the workers depend on changed: the effective configuration, the lock, or one of `sources`.
    """

    id: str
    kind: Kind
    directory: str
    functions: tuple[Function, ...]
    gpu: tuple[str, ...] = ()
    gpu_count: int = 1
    cuda: str | None = None
    cpu: str | None = None
    memory_bytes: int | None = None
    workers_min: int = 0
    workers_max: int = 3
    idle_timeout_s: float = 60.0
    concurrency: int = 1
    scaler: Scaler = Scaler(type="queue_delay", value=4.0)
    start_timeout_s: float = 600.0
    drain_timeout_s: float = 30.0
    max_queue: int = 10_000
    max_body_bytes: int | None = None
    max_upload_bytes: int | None = None
    strategy: Literal["surge", "replace"] = "surge"
    dependencies: tuple[str, ...] = ()
    system_dependencies: tuple[str, ...] = ()
    python: str
    environment: str = ""
    preload: tuple[str, ...] = ()
    image: str | None = None
    disk_bytes: int | None = None
    registry: str | None = None
    datacenters: tuple[str, ...] = ()
    flashboot: bool = True
    env: tuple[Variable, ...] = ()
    secrets: tuple[Variable, ...] = ()
    volumes: tuple[Volume, ...] = ()
    include: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    ready: str = "/"
    sources: tuple[Source, ...] = ()
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole project in one environment, ready for dev, build and ship."""

    project: str
    environment: str
    endpoints: tuple[Endpoint, ...]
    version: int = VERSION

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint of that id, or None."""
        return next((endpoint for endpoint in self.endpoints if endpoint.id == endpoint_id), None)


def encode(record: Any) -> Any:
    """A record of this module as JSON values; keys in the order of the fields.

    >>> encode(Scaler(type="request_count", value=2.0))
    {'type': 'request_count', 'value': 2.0}
    """
    if dataclasses.is_dataclass(record):
        return {field.name: encode(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, tuple):
        return [encode(item) for item in record]
    return record


def decode(cls: Any, value: Any) -> Any:
    """The inverse of `encode` for a class of this module.

    Raises:
        ManifestError: a field is missing, unknown or of another type.
    """
    try:
        return _decode(cls, value, cls.__name__)
    except (TypeError, KeyError) as error:
        raise ManifestError(f"not a {cls.__name__} of this version: {error}") from error


def dumps(manifest: Manifest) -> str:
    """The manifest as JSON text, the same bytes for the same manifest."""
    return json.dumps(encode(manifest), indent=2, ensure_ascii=False) + "\n"


def loads(text: str) -> Manifest:
    """The manifest that `dumps` wrote.

    Raises:
        ManifestError: the text is no JSON, is damaged, or comes from another version of flashfw.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is no JSON: {error}") from error
    version = value.get("version") if isinstance(value, dict) else None
    if version != VERSION:
        raise ManifestError(
            f"the manifest has version {version!r}, this flashfw reads {VERSION}",
            hint="use the same flashfw on both sides",
        )
    manifest: Manifest = decode(Manifest, value)
    return manifest


def _decode(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _decode_record(hint, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{where} must be a list, not {value!r:.200}")
        return tuple(_decode(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _decode(args[0], value, where)
    if origin is Literal:
        if value not in args:
            raise TypeError(f"{where} must be one of {args}, not {value!r:.200}")
        return value
    if hint is Any:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"{where} must be {hint.__name__}, not {value!r:.200}")
    return value


def _decode_record(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be an object, not {value!r:.200}")
    hints = _hints(cls)
    if unknown := value.keys() - hints.keys():
        raise TypeError(f"{where} has unknown fields {str(sorted(unknown)):.200}")
    return cls(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


_hints = functools.cache(typing.get_type_hints)  # which evaluates texts; a release has ten thousands of records
