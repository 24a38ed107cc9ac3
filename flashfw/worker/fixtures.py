"""Fixtures: functions in `fixtures.py` to values, nearest directory first, each built once and only where needed."""

from __future__ import annotations

import ast
import asyncio
import difflib
import importlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from flashfw.errors import Exit, FlashfwError
from flashfw.worker import signature
from flashfw.worker.signature import Signature, SignatureError
from flashfw.worker.threads import Threads

Close = Callable[[], Awaitable[None]]
_logger = logging.getLogger("flashfw.fixtures")


class FixtureError(FlashfwError):
    """A fixture that cannot be built as it is written; `place` is its file and line, relative to the root."""

    exit = Exit.PROBLEMS

    def __init__(self, what: str, *, hint: str = "", spot: Spot | None = None) -> None:
        super().__init__(what, hint=hint)
        self.place = f"{spot.file}:{spot.line}" if spot else ""


class FixtureFailed(Exception):
    """A fixture raised while it was built; the cause is what it raised."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a fixture is defined: `directory` is relative to the root, with slashes."""

    name: str
    directory: str
    line: int

    @property
    def file(self) -> str:
        return f"{self.directory}/fixtures.py"


@dataclass(slots=True)
class Node:
    """One fixture that is needed: `needs` are the fixtures it takes, by parameter name.

    `wants` is what it, or one it takes, wants of a call (`job`, `request`). `value` is set once it `is_built`.
    """

    spot: Spot
    signature: Signature
    needs: dict[str, Node]
    wants: frozenset[str]
    value: Any = field(default=None)
    is_built: bool = False

    @property
    def per_call(self) -> bool:
        """Whether it is built for each call, not once per worker."""
        return bool(self.wants)


class Fixtures:
    """The fixtures of one endpoint. `need` first, for each function; then `build`; at the end `close`.

    Functions that come later may `need` more, which another `build` adds; `forget` what could not be built.
    """

    def __init__(self, root: Path, threads: Threads) -> None:
        self._root = root
        self._threads = threads
        self._spots: dict[str, dict[str, Spot]] = {}
        self._nodes: dict[Spot, Node] = {}
        self._closing: list[tuple[str, Close]] = []

    def names(self, directory: str) -> Collection[str]:
        """The names that a function in this directory can take. Reads the files, imports none.

        Raises:
            SyntaxError: a fixtures.py on the way does not parse.
        """
        return {name for above in _upwards(directory) for name in self._defined(above)}

    def need(self, wanted: Signature, directory: str) -> dict[str, Node]:
        """The fixtures that a function of this directory takes, by parameter name; imports where they are defined.

        Raises:
            FixtureError: fixtures take one another in a circle.
            SignatureError: a fixture takes what nobody can give it.
            Exception: whatever importing a fixtures.py raises.
        """
        return self._needed(wanted, directory, ())

    async def build(self) -> dict[str, float]:
        """Builds what lives as long as the worker and is not there yet; how long each took, in seconds, by name.

        Raises:
            FixtureFailed: one of them raised.
        """
        took: dict[str, float] = {}
        for node in self._nodes.values():  # in the order of need: what a fixture takes comes before it
            if node.per_call or node.is_built:
                continue
            begun = time.monotonic()
            arguments = {name: needed.value for name, needed in node.needs.items()}
            node.value = await self._open(node, arguments, self._closing)
            node.is_built = True
            took[node.spot.name] = round(time.monotonic() - begun, 4)
        return took

    def reread(self) -> None:
        """Have the files read anew of which no fixture was needed: they may have been saved, and concern nobody yet."""
        needed = {spot.directory for spot in self._nodes}
        self._spots = {directory: spots for directory, spots in self._spots.items() if directory in needed}

    def forget(self) -> None:
        """Drop what is needed and not built."""
        self._nodes = {spot: node for spot, node in self._nodes.items() if node.is_built or node.per_call}

    @asynccontextmanager
    async def per_call(
        self, needs: Mapping[str, Node], *, job: Any = None, connection: Any = None
    ) -> AsyncIterator[Any]:
        """The values of `needs` that are built for one call, torn down when it ended."""
        closing: list[tuple[str, Close]] = []
        built: dict[Spot, Any] = {}
        given = {"job": job, "request": connection, "websocket": connection}
        try:
            yield {
                name: await self._for_call(node, given, built, closing) for name, node in needs.items() if node.per_call
            }
        finally:
            await _close(closing)

    async def close(self) -> None:
        """Tears down in reverse order; a failure is logged and the others go on."""
        await _close(self._closing)

    def _defined(self, directory: str) -> dict[str, Spot]:
        if directory not in self._spots:
            file = self._root / directory / "fixtures.py"
            found = _functions(file) if file.is_file() else {}
            self._spots[directory] = {name: Spot(name, directory, line) for name, line in found.items()}
        return self._spots[directory]

    def _spot(self, name: str, directory: str, asker: Spot | None) -> Spot:
        """The nearest fixture of that name; one that takes its own name means the one above it."""
        for above in _upwards(directory):
            spot = self._defined(above).get(name)
            if spot is not None and spot != asker:
                return spot
        raise FixtureError(f"no fixture named '{name}' in or above {directory}", spot=asker)

    def _needed(
        self, wanted: Signature, directory: str, path: tuple[Spot, ...], asker: Spot | None = None
    ) -> dict[str, Node]:
        names = [injection.name for injection in wanted.injections if injection.source == "fixture"]
        return {name: self._node(self._spot(name, directory, asker), path) for name in names}

    def _node(self, spot: Spot, path: tuple[Spot, ...]) -> Node:
        if spot in path:
            circle = [*path[path.index(spot) :], spot]
            shown = " -> ".join(f"{one.name} ({one.file}:{one.line})" for one in circle)
            raise FixtureError(
                f"fixtures take one another in a circle: {shown}", hint="take one of them apart", spot=spot
            )
        if spot not in self._nodes:
            node = self._read(spot, (*path, spot))
            self._nodes[spot] = node
        return self._nodes[spot]

    def _read(self, spot: Spot, path: tuple[Spot, ...]) -> Node:
        function = getattr(importlib.import_module(f"{spot.directory.replace('/', '.')}.fixtures"), spot.name)
        try:
            names, owner = self.names(spot.directory), f"fixture '{spot.name}'"
            read = signature.read(function, fixtures=names, owner=owner, has_caller=False)
        except SignatureError as error:
            raise FixtureError(error.what, hint=error.hint, spot=spot) from error
        for spec in read.inputs:
            if spec.default is signature.EMPTY:
                raise self._unknown(spec.name, spot)
        needs = self._needed(read, spot.directory, path, spot)
        wants = {injection.source for injection in read.injections if injection.source != "fixture"}
        return Node(spot, read, needs, frozenset(wants).union(*(node.wants for node in needs.values())))

    def _unknown(self, name: str, spot: Spot) -> FixtureError:
        others = sorted(set(self.names(spot.directory)) - {spot.name})
        close = difflib.get_close_matches(name, others, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"fixtures here: {', '.join(others) or 'none'}"
        return FixtureError(f"fixture '{spot.name}': no fixture named '{name}'", hint=hint, spot=spot)

    async def _for_call(
        self, node: Node, given: Mapping[str, Any], built: dict[Spot, Any], closing: list[tuple[str, Close]]
    ) -> Any:
        if not node.per_call:
            return node.value
        if node.spot not in built:
            arguments = {
                name: await self._for_call(needed, given, built, closing) for name, needed in node.needs.items()
            }
            for injection in node.signature.injections:
                if injection.source != "fixture":
                    arguments[injection.name] = given[injection.source]
            built[node.spot] = await self._open(node, arguments, closing)
        return built[node.spot]

    async def _open(self, node: Node, arguments: dict[str, Any], closing: list[tuple[str, Close]]) -> Any:
        try:
            return await self._opened(node, partial(node.signature.function, **arguments), closing)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # user code, whatever it raises
            raise FixtureFailed(node.spot.name) from error

    async def _opened(self, node: Node, made: Callable[[], Any], closing: list[tuple[str, Close]]) -> Any:
        name = node.spot.name
        result = made() if node.signature.is_async else await self._threads.run(made)
        if inspect.iscoroutine(result):  # also of a decorator that hides it
            result = await result
        if not node.signature.yields:
            return result
        if isinstance(result, AsyncGenerator):
            value = await _first_async(result, node)
            closing.append((name, partial(_last_async, result, name)))
        elif isinstance(result, Generator):
            value = await self._threads.run(_first, result, node)
            closing.append((name, partial(self._threads.run, _last, result, name)))
        else:  # a decorator has made something else of it, such as a context manager
            raise FixtureError(
                f"fixture '{name}' has a yield, but calling it gave {type(result).__name__}",
                hint="remove its decorator: a fixture that yields needs none",
                spot=node.spot,
            )
        return value


async def _close(closing: list[tuple[str, Close]]) -> None:
    cancelled: asyncio.CancelledError | None = None
    while closing:
        name, close = closing.pop()
        try:
            await close()
        except BaseException as error:  # user code, whatever it raises; the others have a right to their end
            _logger.exception("the teardown of fixture '%s' failed", name)
            if isinstance(error, asyncio.CancelledError):
                cancelled = error
    if cancelled is not None:
        raise cancelled


def _first(items: Iterator[Any], node: Node) -> Any:
    for value in items:
        return value
    raise _without_value(node)


async def _first_async(steps: AsyncGenerator[Any, None], node: Node) -> Any:
    async for value in steps:
        return value
    raise _without_value(node)


def _without_value(node: Node) -> FixtureError:
    return FixtureError(f"fixture '{node.spot.name}' ended without a yield", spot=node.spot)


def _last(items: Iterator[Any], name: str) -> None:
    for _ in items:
        raise FixtureError(f"fixture '{name}' yields more than once")


async def _last_async(steps: AsyncGenerator[Any, None], name: str) -> None:
    async for _ in steps:
        raise FixtureError(f"fixture '{name}' yields more than once")


def _upwards(directory: str) -> Iterator[str]:
    """The directories from here to `endpoints`, nearest first."""
    place = PurePosixPath(directory)
    while place.parts:
        yield str(place)
        place = place.parent


def _functions(file: Path) -> dict[str, int]:
    """The functions at the top of a file, also inside `if` and `try`, with their lines; none with an underscore."""
    found: dict[str, int] = {}
    bodies: list[ast.stmt] = list(reversed(ast.parse(file.read_bytes(), str(file)).body))
    while bodies:
        statement = bodies.pop()
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not statement.name.startswith("_"):
                found[statement.name] = statement.lineno
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            bodies.extend(_nested(statement))
    return found


def _nested(statement: ast.If | ast.Try | ast.With) -> list[ast.stmt]:
    nested = [*statement.body, *getattr(statement, "orelse", []), *getattr(statement, "finalbody", [])]
    for handler in getattr(statement, "handlers", []):
        nested.extend(handler.body)
    return nested
