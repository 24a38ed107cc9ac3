"""A user's function to its Signature: which parameters are injected, which are input, and how it runs.

Nothing is called and no fixture is built. Annotations are resolved one by one, so that a name that only
type checkers see (`if TYPE_CHECKING:`) matters only where flashfw needs the type.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic.fields import FieldInfo
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from flashfw.errors import Exit, FlashfwError
from flashfw.worker.context import Job, injected
from flashfw.worker.markers import MARKERS

Source = Literal["fixture", "job", "request", "websocket", "path"]
EMPTY = inspect.Parameter.empty

_BY_TYPE: tuple[tuple[type, Source], ...] = ((Job, "job"), (WebSocket, "websocket"), (HTTPConnection, "request"))
_PLAIN = (str, int, float, bool, bytes, list, dict, tuple, set, frozenset, date, time, timedelta, Decimal, UUID, Enum)


class SignatureError(FlashfwError):
    """A function's parameters cannot be filled; `line` is where the function begins, if that is known."""

    exit = Exit.PROBLEMS

    def __init__(self, what: str, line: int | None = None, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.line = line


@dataclass(frozen=True, slots=True)
class Injection:
    """A parameter that flashfw fills by itself: from a fixture, the call, or the path."""

    name: str
    source: Source
    annotation: Any


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter that the caller fills. `annotation` and `default` are `EMPTY` where there is none."""

    name: str
    annotation: Any
    default: Any
    kind: Any


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and how it runs; an async generator is both async and a generator.

    `extra` is the annotation of `**kw`. `line` is that of the function, for messages.
    """

    function: Callable[..., Any]
    injections: tuple[Injection, ...]
    inputs: tuple[Input, ...]
    takes_extra: bool
    is_async: bool
    is_generator: bool
    return_annotation: Any
    owner: str
    extra: Any = EMPTY
    line: int | None = None

    @property
    def yields(self) -> bool:
        """Whether what its decorators and partials wrap is a generator function, sync or async."""
        inner = _innermost(self.function)
        return inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)

    def error(self, what: str, hint: str = "") -> SignatureError:
        """A SignatureError about this function."""
        return SignatureError(f"{self.owner}: {what}", self.line, hint)


def read(
    function: Callable[..., Any],
    *,
    fixtures: Collection[str],
    path_parameters: Collection[str] = (),
    owner: str,
    skip_first: bool = False,
    has_caller: bool = True,
) -> Signature:
    """The signature of a function, method, class or callable object.

    `fixtures` are the names that this function may be given, `owner` its node id, for messages. With
    `skip_first` the first parameter is left out: a method taken from its class, without an instance. What
    `has_caller` has no fixture that looks like its input.

    Raises:
        SignatureError: a parameter is injected but nothing has its name, is positional-only or `*args`,
            or has an annotation whose names do not exist.
    """
    reader = _Reader(function, _target(function), frozenset(fixtures), frozenset(path_parameters), owner, has_caller)
    return reader.read(skip_first)


def unwrap(annotation: Any) -> Any:
    """The type inside `Annotated[...]`, `Optional[...]`, aliases and NewTypes, by which a parameter is classified.

    >>> unwrap(typing.Optional[Annotated[int, "meters"]])
    <class 'int'>
    """
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation = typing.get_args(annotation)[0]
            continue
        members = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if origin in (typing.Union, types.UnionType) and len(members) == 1:
            annotation = members[0]
            continue
        # `type X = ...` of Python 3.12, and NewType
        named = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
        if named is None:
            return annotation
        annotation = named


def is_a(annotation: Any, cls: type | tuple[type, ...]) -> bool:
    """Whether the annotation, unwrapped, is one of these classes, a subclass, or `list[int]` for list."""
    inner = unwrap(annotation)
    inner = typing.get_origin(inner) or inner
    return isinstance(inner, type) and issubclass(inner, cls)


@dataclass(frozen=True, slots=True)
class _Reader:
    function: Callable[..., Any]
    target: Callable[..., Any]
    fixtures: frozenset[str]
    path_parameters: frozenset[str]
    owner: str
    has_caller: bool

    def read(self, skip_first: bool) -> Signature:
        runs = _call_of(self.function)
        signature = _inspect(self.target)
        parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
        injections: list[Injection] = []
        inputs: list[Input] = []
        extra: Any = None
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                extra = self._resolve(parameter.name, parameter.annotation)
                continue
            self._refuse_positional(parameter)
            read = self._parameter(parameter)
            if isinstance(read, Injection):
                injections.append(read)
            else:
                inputs.append(read)
        return Signature(
            function=self.function,
            injections=tuple(injections),
            inputs=tuple(inputs),
            takes_extra=extra is not None,
            is_async=inspect.iscoroutinefunction(runs) or inspect.isasyncgenfunction(runs),
            is_generator=inspect.isgeneratorfunction(runs) or inspect.isasyncgenfunction(runs),
            return_annotation=self._return(signature.return_annotation),
            owner=self.owner,
            extra=EMPTY if extra is None else extra,
            line=self._line(),
        )

    def _parameter(self, parameter: inspect.Parameter) -> Injection | Input:
        name = parameter.name
        must_inject = parameter.default is injected
        if name in self.path_parameters:
            if name in self.fixtures:
                raise self._error(f"'{name}' is a path parameter and a fixture", "rename one of them")
            return Injection(name, "path", self._resolve(name, parameter.annotation))
        annotation = self._try_resolve(parameter.annotation)
        by_type = _source_by_type(annotation)
        if by_type is not None:
            return Injection(name, by_type, annotation)
        if name in self.fixtures:
            if self.has_caller and not must_inject and is_a(annotation, _PLAIN):
                what = f"'{name}' is a fixture, but its annotation {_show(annotation)} reads like an input"
                raise self._error(what, f"write '{name}: {_show(annotation)} = injected', or rename the parameter")
            return Injection(name, "fixture", annotation)
        if must_inject:
            raise self._error(f"no fixture named '{name}'", self._similar(name))
        if isinstance(parameter.default, (FieldInfo, *MARKERS)):
            kind = type(parameter.default).__name__.removesuffix("Info")
            what = f"the default of '{name}' is a {kind}(...), which the function would get as its value"
            raise self._error(what, f"write '{name}: Annotated[TYPE, {kind}(...)]', and a plain default or none")
        return Input(name, self._resolve(name, parameter.annotation), parameter.default, parameter.kind)

    def _similar(self, name: str) -> str:
        if close := difflib.get_close_matches(name, sorted(self.fixtures), 1):
            return f"did you mean '{close[0]}'?"
        known = ", ".join(sorted(self.fixtures))
        return f"fixtures here: {known}" if known else f"define 'def {name}()' in a fixtures.py beside or above it"

    def _refuse_positional(self, parameter: inspect.Parameter) -> None:
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise self._error(f"'*{parameter.name}' cannot be filled: input arrives by name", "take a list instead")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            what = f"'{parameter.name}' is positional-only, but arguments are passed by name"
            raise self._error(what, "remove the '/' from its parameters")

    def _resolve(self, name: str, annotation: Any) -> Any:
        resolved = self._try_resolve(annotation)
        if isinstance(resolved, _Unresolved):
            what = f"the annotation of '{name}' does not resolve: {resolved.error}"
            raise self._error(what, "import what it names at the top of the module, not under TYPE_CHECKING")
        return resolved

    def _try_resolve(self, annotation: Any) -> Any:
        if annotation is EMPTY:
            return EMPTY
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            hints = typing.get_type_hints(holder, globalns=dict(_globals(self.target)), include_extras=True)
        except (NameError, AttributeError, SyntaxError, TypeError) as error:
            return _Unresolved(error)
        # `x: None` is turned into NoneType by typing, which is what it means.
        return hints["it"]

    def _return(self, annotation: Any) -> Any:
        resolved = self._try_resolve(annotation)
        return EMPTY if isinstance(resolved, _Unresolved) else resolved

    def _line(self) -> int | None:
        code = getattr(inspect.unwrap(self.target), "__code__", None)
        return None if code is None else int(code.co_firstlineno)

    def _error(self, what: str, hint: str = "") -> SignatureError:
        return SignatureError(f"{self.owner}: {what}", self._line(), hint)


@dataclass(frozen=True, slots=True)
class _Unresolved:
    error: Exception


def _target(function: Callable[..., Any]) -> Callable[..., Any]:
    """What carries the annotations: `__init__` of a class, `__call__` of an object that wraps nothing."""
    if inspect.isclass(function):
        return _nothing if function.__init__ is object.__init__ else types.MethodType(function.__init__, object())
    return function if hasattr(function, "__wrapped__") else _call_of(function)


def _call_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs: `__call__` of an object."""
    if inspect.isclass(function) or inspect.isroutine(function) or isinstance(function, partial):
        return function
    return typing.cast(Callable[..., Any], getattr(function, "__call__", function))  # noqa: B004 - bound to the object


def _innermost(function: Any) -> Any:
    inner = inspect.unwrap(function)
    while isinstance(inner, partial):
        inner = inspect.unwrap(inner.func)
    return inner


def _nothing() -> None:
    """Stands for the `__init__` that a class does not write: that of `object` claims to take anything."""


def _inspect(target: Callable[..., Any]) -> inspect.Signature:
    """Since 3.14 annotations are evaluated when read; names that do not exist must not end that."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(target, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(target)


def _globals(target: Any) -> Mapping[str, Any]:
    return typing.cast(Mapping[str, Any], getattr(_innermost(target), "__globals__", {}))


def _source_by_type(annotation: Any) -> Source | None:
    return next((source for cls, source in _BY_TYPE if is_a(annotation, cls)), None)


def _show(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
