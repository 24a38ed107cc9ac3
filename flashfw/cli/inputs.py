"""The INPUT of a command line to a value: JSON, `@file`, or standard input."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from flashfw.errors import UsageError

_WINDOW = 72
"""How much of a long line is shown around a mistake."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was given, as bytes, and how to name it in a message. `is_text` tells that it was typed."""

    content: bytes
    name: str
    is_text: bool = False


def read(argument: str | None, stdin: BinaryIO) -> Given:
    """The input's bytes; standard input for `-`, or without an argument where it is no terminal.

    Raises:
        UsageError: the file cannot be read.
    """
    if argument == "-" or (argument is None and not stdin.isatty()):
        return Given(stdin.read(), "standard input")
    if argument is None:
        return Given(b"", "INPUT")
    if not argument.startswith("@"):
        return Given(argument.encode("utf-8", "surrogateescape"), "INPUT", is_text=True)
    try:
        return Given(Path(argument[1:]).read_bytes(), argument[1:])
    except OSError as error:
        raise UsageError(f"cannot read {argument[1:]!r}: {error.strerror}", hint="@ is followed by a file") from error


def files(given: Iterable[str]) -> dict[str, list[str]]:
    """The paths of `NAME=PATH` by name; an `@` before the path, as curl has it, is left out.

    >>> files(["image=@cat.png", "pages=1.txt", "pages=2.txt"])
    {'image': ['cat.png'], 'pages': ['1.txt', '2.txt']}

    Raises:
        UsageError: one is not of that form.
    """
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name.isidentifier() and equals and path.removeprefix("@")):
            raise UsageError(f"--file {text!r} is not NAME=PATH", hint="write --file image=cat.png")
        found.setdefault(name, []).append(path.removeprefix("@"))
    return found


def parse(given: Given) -> Any:
    """The JSON value, None for nothing at all.

    Raises:
        UsageError: it is no JSON; the message shows the place.
    """
    try:
        text = given.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{given.name} is not UTF-8: byte {error.start} is {given.content[error.start]:#04x}"
        ) from error
    if not text.strip():
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # what is sent; an escape may stand for half a character
    except json.JSONDecodeError as error:
        raise UsageError(_sentence(given, error), hint=_shown(error)) from error
    except RecursionError as error:
        raise UsageError(f"{given.name} is nested too deeply") from error
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise UsageError(f"{given.name} has {half} without its other half", hint="it is no character") from error
    except ValueError as error:
        raise UsageError(f"{given.name} holds a number with too many digits", hint="send it as text") from error
    return value


def _refuse(constant: str) -> NoReturn:
    raise UsageError(f"{constant} is not JSON", hint="write null")


def _sentence(given: Given, error: json.JSONDecodeError) -> str:
    sentence = f"{given.name} is not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
    word = error.doc.strip()
    if given.is_text and error.pos == 0 and not word.startswith(("{", "[", '"', "'")):
        sentence += f" (a text is written '{json.dumps(word, ensure_ascii=False)}')"
    return sentence


def _shown(error: json.JSONDecodeError) -> str:
    """The line with a caret below the place; a part of it where it is long."""
    line = error.doc.split("\n")[error.lineno - 1].replace("\t", " ").rstrip("\r")
    column = error.colno - 1
    start = max(0, column - _WINDOW // 2) if len(line) > _WINDOW else 0
    return f"{line[start : start + _WINDOW]}\n  {' ' * (column - start)}^"
