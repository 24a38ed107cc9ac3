"""What a handler returns to JSON bytes.

The C encoder of the standard library does plain values at full speed and calls back for the rest. Only when
it gives up is the value walked in Python, which mends what can be mended (NaN, keys that are no text) and
otherwise names the place that cannot be encoded.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic_core import to_jsonable_python

from flashfw.errors import FlashfwError
from flashfw.worker.files import File, reference

MAX_DEPTH = 200
"""Deeper values are refused once they need the slow walk: they would not parse again on the other side."""

_SCALARS = (date, time, timedelta, Decimal, UUID, PurePath, IPv4Address, IPv4Network, IPv6Address, IPv6Network)
_BINARY = (bytes, bytearray, memoryview)
_FAILURES = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, ArithmeticError)
"""What encoders of the user's types (pydantic, numpy, torch) raise; RecursionError is a RuntimeError."""


class EncodeError(FlashfwError):
    """A value that cannot be JSON; `path` says where in the output it is (`output.items[3].x`)."""

    def __init__(self, path: str, what: str, hint: str = "") -> None:
        super().__init__(f"{path}: {what}", hint=hint)
        self.path = path


def dumps(value: Any, *, root: str = "output") -> bytes:
    """The value as compact JSON in UTF-8.

    Models, dataclasses, named tuples, dates, enums, sets, mappings, UUIDs, decimals, paths, numpy arrays and
    scalars, tensors; bytes become standard base64, NaN and infinities null.

    >>> dumps({"when": date(2026, 1, 2), "raw": b"hi", "score": float("nan")})
    b'{"when":"2026-01-02","raw":"aGk=","score":null}'

    Raises:
        EncodeError: something in it is none of these; `root` begins the path that the message names.
    """
    try:
        return _encode(value).encode()
    except _FAILURES:
        pass
    plain = _walk(value, root, 0)
    try:
        return _encode(plain).encode()
    except _FAILURES as error:
        raise EncodeError(root, str(error)) from error


def _convert(value: Any) -> Any:
    """One step from a value that JSON lacks towards one that it has.

    Raises:
        TypeError: there is no such step.
    """
    if isinstance(value, _BINARY):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, _SCALARS):
        return to_jsonable_python(value)
    if isinstance(value, File):
        return reference(value)
    # Both models and pydantic's dataclasses carry this serializer, which knows aliases and field serializers.
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None and not isinstance(value, type):
        return serializer.to_python(value, mode="json", by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (AbstractSet, Sequence, ValuesView)):
        return list(value)
    return _from_array(value)


def _from_array(value: Any) -> Any:
    """Arrays, scalars and tensors of numpy, torch, pandas and the like, none of which is imported for it."""
    tolist = getattr(type(value), "tolist", None)
    if tolist is None:
        raise TypeError(f"object of type {type(value).__name__}")
    plain = tolist(value)
    if type(plain) is type(value):  # numpy's long double has no plain counterpart
        return float(value)
    return plain


def _encoder() -> Callable[[Any], str]:
    """The C encoder, made once: a `JSONEncoder` makes one for each value. What holds itself is too deep for it."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_convert, check_circular=False
        ).encode
    pieces = make(None, _convert, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(pieces(value, 0))


_encode = _encoder()


def _walk(value: Any, path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise EncodeError(path[:200], f"nested deeper than {MAX_DEPTH} levels", "does it hold itself?")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(str.__str__(value), path)
    if isinstance(value, int):
        return _integer(int(value), path)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key, path): _walk(item, _member(path, key), depth + 1) for key, item in _items(value, path)}
    if isinstance(value, (list, tuple)):
        return [_walk(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _walk(_step(value, path), path, depth + 1)


def _step(value: Any, path: str) -> Any:
    try:
        return _convert(value)
    except _FAILURES as error:
        what = f"object of type {type(value).__name__}"
        detail = str(error)
        raise EncodeError(path, what if detail == what else f"{what}: {detail}", _HINT) from error


_HINT = "return plain values, models or dataclasses"


def _items(value: dict[Any, Any], path: str) -> Iterable[tuple[Any, Any]]:
    try:
        return list(value.items())
    except RuntimeError as error:
        raise EncodeError(path, str(error)) from error


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(path, f"text with a lone surrogate at {error.start}", "it is no valid Unicode") from error
    return value


def _integer(value: int, path: str) -> int:
    try:
        int.__repr__(value)
    except ValueError as error:
        raise EncodeError(path, f"integer of {value.bit_length()} bits", "return it as text") from error
    return value


def _key(key: Any, path: str) -> str:
    """A dict's key as the text that the C encoder makes of it, and of what `_convert` knows."""
    for _ in range(3):
        if isinstance(key, str):
            return _text(str.__str__(key), path)
        if key is None or isinstance(key, (bool, int, float)):
            text: str = json.dumps(_walk(key, path, 0))
            return text
        key = _step(key, path)
    raise EncodeError(path, f"key of type {type(key).__name__}", "use text as keys")


def _member(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r:.40}]"
