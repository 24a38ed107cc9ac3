"""An endpoint's functions, imported and ready to be called: the handlers with their fixtures and instances."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from flashfw import manifest
from flashfw.worker import load, signature
from flashfw.worker.batch_input import binder_of
from flashfw.worker.failure import Failures
from flashfw.worker.fixtures import Fixtures, Node
from flashfw.worker.frames import Failure
from flashfw.worker.jobs import JobFunction
from flashfw.worker.lifespan import Lifespan, is_application
from flashfw.worker.signature import Signature
from flashfw.worker.threads import Threads

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from flashfw.worker.asgi import Whole
    from flashfw.worker.middleware import Around
    from flashfw.worker.proxy import Proxy

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::[a-z]+)?\}")
_logger = logging.getLogger("flashfw.worker")


@dataclass(frozen=True, slots=True)
class Handler:
    """One function as imported. `cls` is the class that it is taken from; `needs` are its fixtures by name."""

    function: manifest.Function
    target: Any
    cls: type | None
    signature: Signature | None
    needs: Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Construction:
    """How the one instance of a class handler is made."""

    signature: Signature
    needs: Mapping[str, Node]


class BrokenFunction(Exception):
    """A function could not be imported or read; the cause is why."""

    def __init__(self, function: manifest.Function) -> None:
        super().__init__(function.id)
        self.function = function


class Service:
    """The functions of one endpoint: `load`, then `build`, then call `jobs` and `apps`, at the end `close`.

    Where modules were imported anew, `renewed` is another one over the same fixtures, which takes its place.
    """

    def __init__(
        self,
        endpoint: manifest.Endpoint,
        root: Path,
        threads: Threads,
        failures: Failures,
        *,
        on_broken: Callable[[Failure], None] = lambda failure: None,
        on_lost: Callable[[str], None] = lambda how: None,
    ) -> None:
        self.endpoint = endpoint
        self._on_broken = on_broken
        self.fixtures = Fixtures(root, threads)
        self.jobs: dict[str, JobFunction] = {}
        self.apps: dict[str, ASGIApp] = {}
        self.wholes: dict[str, Whole] = {}
        """Functions that can answer without ASGI; there is no middleware around them."""
        self.preflights: dict[str, ASGIApp] = {}
        self._threads = threads
        self._failures = failures
        self._handlers: list[Handler] = []
        self._constructions: dict[type, Construction] = {}
        self._instances: dict[type, Any] = {}
        self._lifespans: list[Lifespan | Proxy] = []
        self._root = root
        self._on_lost = on_lost
        self._around = None if endpoint.kind == "job" else _around(self._failure_of, threads)
        self._before: Mapping[type, Any] = {}

    def renewed(self, endpoint: manifest.Endpoint) -> Service:
        """One for the endpoint as it is now, to `load` and `build` as any other; this one goes on as it is.

        Fixtures that are built, middleware, and the instances of classes that are still the same are shared. Of the two
        that is closed which serves at the end; for the other one, `leave` what this one alone has.
        """
        new = Service(
            endpoint, self._root, self._threads, self._failures, on_broken=self._on_broken, on_lost=self._on_lost
        )
        new.fixtures, new._around, new._before = self.fixtures, self._around, self._instances
        new.fixtures.reread()
        return new

    async def leave(self, other: Service) -> None:
        """Close the instances that `other`, which is used from now on, has not."""
        kept = {id(instance) for instance in other._instances.values()}
        while self._instances:
            _, instance = self._instances.popitem()
            if id(instance) not in kept:
                await self._close_instance(instance)

    def has_left(self, other: Service) -> bool:
        """Whether there is something that `leave` would close."""
        kept = {id(instance) for instance in other._instances.values()}
        return any(id(instance) not in kept for instance in self._instances.values())

    @property
    def files(self) -> list[str]:
        """The project's files that count as loaded though nothing imports them: all of a server's."""
        return [source.path for source in self.endpoint.sources] if self.endpoint.command else []

    def load(self) -> None:
        """Imports the handlers and the fixtures that they need, and reads what they take. Builds nothing.

        Raises:
            BrokenFunction: one of them cannot be imported, or wants what nobody gives.
        """
        for module in self.endpoint.preload:
            importlib.import_module(module)
        for function in self.endpoint.functions:
            self._handlers.append(self.handler(function))
            self._load_middleware(function)
        known = {function.id for function in self.endpoint.functions}
        for handler in list(self._handlers):
            self._handlers += self._learned(handler, known)

    def _learned(self, handler: Handler, known: Collection[str]) -> Iterator[Handler]:
        """The methods of a class that the source does not show to be one; those that take no input are left out."""
        for function in learned(handler):
            if function.id in known:
                continue
            try:
                found = self.handler(function)
                assert found.signature is not None
                binder_of(function, found.signature)
            except (BrokenFunction, signature.SignatureError) as error:
                _logger.warning("%s is no function: %s", function.id, error.__cause__ or error)
            else:
                yield found

    async def build(self) -> dict[str, float]:
        """Builds fixtures, instances and applications; how long each fixture took, in seconds.

        Raises:
            FixtureFailed: a fixture raised.
            BrokenFunction: a class could not be made, or an application did not start.
        """
        took = await self.fixtures.build()
        for handler in self._handlers:
            try:
                await self._ready(handler)
            except BaseException as error:
                raise BrokenFunction(handler.function) from error
        return took

    def app(self, function: str, preflight: bool) -> ASGIApp | None:
        """Who answers a request of a function, or its CORS preflight; None for one that is not here."""
        return (self.preflights if preflight else self.apps).get(function)

    async def close(self) -> None:
        """Ends applications, then instances, then fixtures; a failure is logged and the others go on."""
        while self._lifespans:
            await self._lifespans.pop().shutdown()
        while self._instances:
            _, instance = self._instances.popitem()
            await self._close_instance(instance)
        await self.fixtures.close()

    def handler(self, function: manifest.Function) -> Handler:
        """One function, imported and read.

        Raises:
            BrokenFunction: it cannot be.
        """
        try:
            return self._handler(function)
        except BaseException as error:  # the user's module, whatever it raises
            raise BrokenFunction(function) from error

    def _handler(self, function: manifest.Function) -> Handler:
        if not function.module:
            return Handler(function, self._server(function), None, None, {})
        target, cls = load.find(function)
        directory = str(PurePosixPath(function.file).parent)
        if function.kind == "app" and is_application(target):
            return Handler(function, target, None, None, {})
        if isinstance(target, type) and function.kind == "job":
            cls = target
        read = self._signature(function, target, cls, directory)
        needs = self._needs(read, function, directory)
        if cls is not None and cls not in self._constructions:
            self._constructions[cls] = self._construction(cls, function, directory)
        return Handler(function, target, cls, read, needs)

    def _signature(
        self, function: manifest.Function, target: Any, cls: type | None, directory: str
    ) -> signature.Signature:
        names = self.fixtures.names(directory)
        path = _PARAMETER.findall(function.route) if function.kind == "http" else []
        if cls is None:
            has_caller = function.kind != "app"
            return signature.read(
                target, fixtures=names, path_parameters=path, owner=function.id, has_caller=has_caller
            )
        name = _method(function)
        if name not in _members(cls):  # getattr would find the metaclass's __call__
            what = f"{function.file}:{function.line}: class {cls.__name__} has no '{name}'"
            hint = "" if "." in function.attribute else f"write 'class {function.attribute}:' here, or a {name} in it"
            raise load.LoadError(what, hint=hint)
        bound = isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod))
        return signature.read(getattr(cls, name), fixtures=names, owner=function.id, skip_first=not bound)

    def _construction(self, cls: type, function: manifest.Function, directory: str) -> Construction:
        owner = f"{function.id} ({cls.__name__}.__init__)"
        if "__init__" not in _members(cls):
            return Construction(_nothing(cls, owner), {})
        read = signature.read(cls, fixtures=self.fixtures.names(directory), owner=owner, has_caller=False)
        for spec in read.inputs:
            if spec.default is signature.EMPTY:
                raise read.error(f"no fixture named '{spec.name}'", "a class is made once per worker, from fixtures")
        needs = self.fixtures.need(read, directory)
        for name, node in needs.items():
            if node.per_call:
                raise read.error(
                    f"'{name}' is built per call", "take it in the method: a class is made once per worker"
                )
        return Construction(read, needs)

    def _needs(self, read: Signature, function: manifest.Function, directory: str) -> dict[str, Node]:
        needs = self.fixtures.need(read, directory)
        given = {"job": {"job"}, "http": {"request"}, "app": set[str]()}[function.kind]
        if function.method == "WEBSOCKET":
            given = {"websocket"}
        if function.batch is not None:
            given = set()  # it is many jobs
        for name, node in needs.items():
            if missing := node.wants - given:
                what = f"fixture '{name}' ({node.spot.file}:{node.spot.line}) wants the {', '.join(sorted(missing))}"
                raise read.error(f"{what}, which this function has not")
        return needs

    def _load_middleware(self, function: manifest.Function) -> None:
        try:
            if self._around is not None:
                self._around.load(function)
        except BaseException as error:  # the user's module, whatever it raises
            raise BrokenFunction(function) from error

    async def _ready(self, handler: Handler) -> None:
        function, around = handler.function, self._around
        if around is None:
            self.jobs[function.id] = await self._job(handler)
            return
        if function.kind == "http":
            app: ASGIApp = self._http(handler, around)
        else:
            app = await self._application(handler)
        self.apps[function.id] = around.wrap(function, app)
        if function.middleware:
            beside = {other.method for other in self.endpoint.functions if other.route == function.route}
            self.preflights[function.id] = around.preflight(function, sorted(beside - {"WEBSOCKET", "*"}))

    async def _job(self, handler: Handler) -> JobFunction:
        target = handler.target
        if handler.cls is not None:
            instance = await self._instance(handler.cls)
            target = getattr(instance, _method(handler.function))
        assert handler.signature is not None
        return JobFunction.of(handler.function, target, handler.signature, handler.needs)

    async def _instance(self, cls: type) -> Any:
        if cls in self._before:
            self._instances[cls] = self._before[cls]
        if cls not in self._instances:
            arguments = {name: node.value for name, node in self._constructions[cls].needs.items()}
            self._instances[cls] = await self._threads.run(partial(cls, **arguments))
        return self._instances[cls]

    def _http(self, handler: Handler, around: Around) -> ASGIApp:
        from flashfw.worker.http import HttpFunction

        assert handler.signature is not None
        app = HttpFunction(
            handler.function,
            handler.signature,
            fixtures=_values(handler.needs),
            per_call=self._per_request(handler.needs) if any(one.per_call for one in handler.needs.values()) else None,
            run_sync=self._threads.run,
            refusals=around.refusals(handler.function),
        )
        if app.answers_whole and not handler.function.middleware:
            self.wholes[handler.function.id] = app
        return app

    def _failure_of(self, error: BaseException, reason: str) -> Failure:
        failure = self._failures.of(error, reason)
        if failure.get("broken"):
            self._on_broken(failure)
        return failure

    def _per_request(self, needs: Mapping[str, Node]) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
        return lambda connection: self.fixtures.per_call(needs, connection=connection)

    def _server(self, function: manifest.Function) -> Proxy:
        from flashfw.worker.foreign import ForeignServer
        from flashfw.worker.proxy import Proxy

        endpoint = self.endpoint
        return Proxy(
            ForeignServer(
                endpoint.command,
                ready=endpoint.ready,
                directory=self._root / PurePosixPath(function.file).parent,
                start_timeout_s=endpoint.start_timeout_s,
                on_lost=self._on_lost,
            )
        )

    async def _application(self, handler: Handler) -> ASGIApp:
        app = handler.target
        if handler.signature is not None:
            made = partial(app, **_values(handler.needs))
            app = await made() if handler.signature.is_async else await self._threads.run(made)
        lifespan = app if not handler.function.module else Lifespan(app)
        await lifespan.startup()
        self._lifespans.append(lifespan)
        return lifespan.app

    async def _close_instance(self, instance: Any) -> None:
        close = getattr(instance, "aclose", None) or getattr(instance, "close", None)
        if close is None:
            return
        try:
            closing = close() if inspect.iscoroutinefunction(close) else await self._threads.run(close)
            if inspect.isawaitable(closing):
                await closing
        except BaseException:  # user code, whatever it raises; the others have a right to their end
            _logger.exception("closing the %s of %s failed", type(instance).__name__, self.endpoint.id)


def methods(cls: type) -> list[str]:
    """The methods written in a class's body that are functions of its endpoint."""
    return [name for name, value in vars(cls).items() if _is_function(name, value)]


def learned(handler: Handler) -> Iterator[manifest.Function]:
    """The functions of a class that only loading could tell to be one (`handler = make()`)."""
    function = handler.function
    if isinstance(handler.target, type) and function.kind == "job" and "." not in function.attribute:
        for name in methods(handler.target):
            yield replace(
                function,
                id=f"{function.id}::{name}",
                attribute=f"{function.attribute}.{name}",
                route=f"{function.route}/{name}",
            )


def _is_function(name: str, value: Any) -> bool:
    if name.startswith("_") or name in ("close", "aclose") or isinstance(value, type):
        return False
    return callable(value) or isinstance(value, (staticmethod, classmethod))


def _around(failure_of: Callable[[BaseException, str], Failure], threads: Threads) -> Around:
    from flashfw.worker.middleware import Around

    return Around(failure_of, threads.run)


def _values(needs: Mapping[str, Node]) -> dict[str, Any]:
    return {name: node.value for name, node in needs.items() if not node.per_call}


def _method(function: manifest.Function) -> str:
    return function.attribute.partition(".")[2] or "__call__"


def _members(cls: type) -> set[str]:
    """Names that the class or its bases define, `object` aside."""
    return {name for base in cls.__mro__ if base is not object for name in vars(base)}


def _nothing(cls: type, owner: str) -> Signature:
    return Signature(cls, (), (), False, False, False, signature.EMPTY, owner)
