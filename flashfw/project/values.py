"""One value of a TOML file to the value that flashfw computes with, or everything that is wrong with it.

A reader takes what `tomllib` gave and returns the normalised value or raises `Invalid`. Readers
compose: `list_of(text)`, `Record({"max": integer(1)})`. A fault says where inside the value it is.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from flashfw import durations
from flashfw.project.names import closest
from flashfw.project.tomlkeys import KeyPath

Read = Callable[[Any], Any]

INHERITED = "..."
"""As the first item of a list: the items of the files above."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place inside a value; the name of the key is put before `what`."""

    what: str
    hint: str = ""
    at: KeyPath = ()
    kind: Literal["value", "unknown", "missing"] = "value"

    def text(self, key: KeyPath) -> str:
        """The whole sentence for the value of `key`."""
        name = f"'{dotted((*key, *self.at))}'"
        return f"unknown key {name}" if self.kind == "unknown" else f"{name} {self.what}"


class Invalid(ValueError):
    """A value that its key does not take."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(fault.text(("value",)) for fault in faults))
        self.faults = faults


def dotted(path: Iterable[str | int]) -> str:
    """A key path as people write it.

    >>> dotted(("volume", 0, "size"))
    'volume[0].size'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value as it stands in a TOML file, cut where it gets long."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | int | float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the known name that is closest to `name`, empty if none is close.

    >>> did_you_mean("worker", ["workers", "timeout"])
    "did you mean 'workers'?"
    """
    close = closest(name, known)
    return f"did you mean '{close}'?" if close else ""


def fail(what: str, value: Any, *, hint: str = "") -> Invalid:
    """The error of a value that is not `what`."""
    return Invalid(Fault(f"must be {what}, not {shown(value)}", hint))


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise fail("true or false", value)
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise fail("a string that is not empty", value)
    return value


def arguments(value: Any) -> tuple[str, ...]:
    """A reader of a command: its words, split as a shell does it, or a list of them.

    >>> arguments("node server.js --title 'My model'"), arguments(["sh", "-c", "exec server"])
    (('node', 'server.js', '--title', 'My model'), ('sh', '-c', 'exec server'))
    """
    what = 'a command such as "node server.js", or the list of its words'
    if isinstance(value, list):
        if not value or not all(isinstance(word, str) and "\0" not in word for word in value) or not value[0]:
            raise fail(what, value)
        return tuple(value)
    if not isinstance(value, str) or "\0" in value:
        raise fail(what, value)
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise fail(what, value, hint=f"it cannot be split: {error}") from error
    if not words:
        raise fail(what, value)
    return tuple(words)


def matching(pattern: str, what: str) -> Read:
    """A reader of strings that match the whole `pattern`, described by `what`."""
    compiled = re.compile(pattern)

    def read(value: Any) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise fail(what, value)
        return value

    return read


def choice(*known: str) -> Read:
    """A reader of one of a few words."""

    def read(value: Any) -> str:
        if value not in known:
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            raise fail(" or ".join(shown(word) for word in known), value, hint=hint)
        return str(value)

    return read


def integer(least: int, most: int | None = None) -> Read:
    """A reader of whole numbers in a range, ends included."""
    what = f"a whole number of {least:,} or more" if most is None else f"a whole number from {least:,} to {most:,}"

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
            raise fail(what, value)
        return value

    return read


def positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise fail("a number above 0", value)
    return float(value)


_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")


def duration(least: str, most: str) -> Read:
    """A reader of durations between two others, ends included; the value is in seconds.

    >>> duration("5s", "7d")("10m")
    600.0
    """
    low, high = parse_duration(least), parse_duration(most)

    def read(value: Any) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            raise fail(f"from {least} to {most}", value)
        return seconds

    return read


def parse_duration(value: Any) -> float:
    """Seconds of `"20ms"`, `"90s"`, `"10m"`, `"24h"`, `"7d"`, or of a plain number of seconds.

    Raises:
        Invalid: it is none of these.

    >>> parse_duration("20ms"), parse_duration(1.5)
    (0.02, 1.5)
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    seconds = durations.parse(value) if isinstance(value, str) else None
    if seconds is None:
        raise fail('a duration such as "20ms", "90s", "10m", "24h", or a number of seconds', value)
    return seconds


def size(least: str, most: str | None = None) -> Read:
    """A reader of sizes between two others, ends included; the value is in bytes."""
    low, high = parse_size(least), parse_size(most) if most else None

    def read(value: Any) -> int:
        count = parse_size(value)
        if count < low or (high is not None and count > high):
            raise fail(f"{least} or more" if most is None else f"from {least} to {most}", value)
        return count

    return read


def parse_size(value: Any) -> int:
    """Bytes of `"10MB"` (decimal), `"16MiB"` (binary), or of a plain number of bytes.

    Raises:
        Invalid: it is none of these.

    >>> parse_size("10MB"), parse_size("1KiB")
    (10000000, 1024)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2].upper() not in _BYTES:
        raise fail('a size such as "512MB", "10GB", "16GiB", or a number of bytes', value)
    return round(float(found[1]) * _BYTES[found[2].upper()])


def show_duration(seconds: float) -> str:
    """The shortest way to write a duration.

    >>> show_duration(600.0), show_duration(0.02)
    ('10m', '20ms')
    """
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % durations.SECONDS[unit] == 0 and (unit != "d" or seconds > 86_400):
            return f"{seconds / durations.SECONDS[unit]:.0f}{unit}"
    amount, unit = (seconds, "s") if seconds == 0 or seconds >= 1 else (seconds * 1000, "ms")
    return f"{amount:.6f}".rstrip("0").rstrip(".") + unit


def show_size(count: int) -> str:
    """The shortest way to write a size that loses nothing.

    >>> show_size(10_000_000), show_size(1024)
    ('10MB', '1KiB')
    """
    for unit, spelled in (("TB", "TB"), ("GB", "GB"), ("MB", "MB"), ("KB", "KB")):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{spelled}"
    for unit, spelled in (("TIB", "TiB"), ("GIB", "GiB"), ("MIB", "MiB"), ("KIB", "KiB")):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{spelled}"
    return f"{count}B"


def list_of(item: Read, *, what: str = "a list") -> Read:
    """A reader of lists, each item by `item`; a faulty item hides no other."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise fail(what, value)
        return tuple(_each(enumerate(value), item))

    return read


def one_or_more(item: Read) -> Read:
    """A reader of one value or a list of them."""
    many = list_of(item)

    def read(value: Any) -> tuple[Any, ...]:
        return many(value) if isinstance(value, list) else (item(value),)

    return read


@dataclass(frozen=True, slots=True)
class Record:
    """A reader of tables with known keys; `make` takes the keys that were given."""

    fields: Mapping[str, Read]
    make: Callable[[dict[str, Any]], Any] = dict
    required: tuple[str, ...] = ()

    def __call__(self, value: Any) -> Any:
        entries = self.partial(value)
        if missing := [name for name in self.required if name not in entries]:
            raise Invalid(*(Fault(f"must have {shown(name)}", kind="missing") for name in missing))
        return self.make(entries)

    def partial(self, value: Any) -> dict[str, Any]:
        """The keys of a table that may lack some, because a file above has them."""
        if not isinstance(value, dict):
            raise fail("a table", value)
        return dict(zip(value, _each(value.items(), self._field, keyed=True), strict=True))

    def _field(self, entry: tuple[str, Any]) -> Any:
        name, value = entry
        if name not in self.fields:
            raise Invalid(Fault("", did_you_mean(name, self.fields), kind="unknown"))
        return self.fields[name](value)


def table_of(key: Read, item: Read) -> Read:
    """A reader of tables with free keys."""

    def read_entry(entry: tuple[str, Any]) -> tuple[str, Any]:
        return key(entry[0]), item(entry[1])

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise fail("a table", value)
        return dict(_each(value.items(), read_entry, keyed=True))

    return read


def _each(entries: Iterable[tuple[Any, Any]], read: Callable[[Any], Any], *, keyed: bool = False) -> Iterator[Any]:
    """Reads all entries, then raises what was wrong with any; `keyed` readers get the key too."""
    values: list[Any] = []
    faults: list[Fault] = []
    for place, value in entries:
        try:
            values.append(read((place, value) if keyed else value))
        except Invalid as error:
            faults += (replace(fault, at=(place, *fault.at)) for fault in error.faults)
    if faults:
        raise Invalid(*faults)
    return iter(values)
