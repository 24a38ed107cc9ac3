"""TOML text to its values and to the place of every key, so that a problem can name the line to open.

`tomllib` keeps no positions. The scanner here reads the same text a second time, and only when
somebody asks for a place: it knows where keys, tables and list items begin, and nothing of values.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from flashfw.errors import Level, Problem
from flashfw.project import content

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KeyPath = tuple[str | int, ...]
"""Where a value is: keys of tables and indices of lists, `("schedule", 0, "cron")`."""


class Position(NamedTuple):
    """A place in a text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """One TOML file: its values as `tomllib` reads them, and the place of each key on demand."""

    file: str
    text: str
    data: dict[str, Any]

    @cached_property
    def positions(self) -> dict[KeyPath, Position]:
        try:
            return positions(self.text)
        except RecursionError:  # nested to the edge of what `tomllib` reads: its values count, the lines are lost
            return {}

    def position(self, path: KeyPath) -> Position:
        """The place of a key or list item; of the nearest one around it where it has none itself."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, Position(1, 1))

    def problem(self, what: str, path: KeyPath, *, hint: str = "", level: Level = "error") -> Problem:
        """A problem at the place of `path`."""
        line, column = self.position(path)
        return Problem(what, self.file, line, hint=hint, level=level, column=column)


def load(root: Path, file: str) -> Document | Problem:
    """The document at `file` below `root`, or what keeps it from being read."""
    data = content.read(root, file)
    if isinstance(data, Problem):
        return data
    try:
        text = data.decode("utf-8-sig")  # editors on Windows write the mark, and `tomllib` trips over it
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Problem(f"is not UTF-8: byte 0x{data[error.start]:02x}", file, line, hint="save it as UTF-8")
    return parse(file, text)


@lru_cache(maxsize=8192)
def parse(file: str, text: str) -> Document | Problem:
    """The document that `text` is, or the problem of its first syntax error; not to be changed.

    Kept: collecting and compiling share it, and so do all rounds of `flashfw dev`.

    >>> str(parse("flashfw.toml", "name = "))
    'flashfw.toml:1: not TOML: Invalid value'
    """
    try:
        return Document(file, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return _syntax_problem(file, text, str(error))
    except RecursionError:
        return Problem("not TOML: nested too deeply", file, 1)


def inside(data: Any, path: KeyPath) -> Any:
    """The value at `path`, None where there is none.

    >>> inside({"project": {"name": "shop"}}, ("project", "name")), inside({"project": 1}, ("project", "name"))
    ('shop', None)
    """
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def positions(text: str) -> dict[KeyPath, Position]:
    """The place of every key, table and list item of a valid TOML text.

    A key that is written in several places (a dotted prefix, a table header) has its first one.

    >>> positions('gpu = ["L40S"]\\n[env]\\nA = "1"')[("env", "A")]
    Position(line=3, column=1)
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


def _syntax_problem(file: str, text: str, message: str) -> Problem:
    found = re.fullmatch(r"(?s)(.*?) \((?:at line (\d+), column (\d+)|at end of document)\)", message)
    if found is None:
        return Problem(f"not TOML: {message}", file, 1)
    what, line, column = found.groups()
    if line is None:
        return Problem(f"not TOML: {what}", file, text.rstrip().count("\n") + 1)
    return Problem(f"not TOML: {what}", file, int(line), column=int(column))


_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)


class _Scanner:
    """Reads one text that `tomllib` accepted; it does not look for errors again."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[KeyPath, Position] = {}
        self.lengths: dict[KeyPath, int] = {}
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def scan(self) -> dict[KeyPath, Position]:
        table: KeyPath = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)
        return self.found

    def header(self) -> KeyPath:
        width = 2 if self.text.startswith("[[", self.at) else 1
        start = self.at
        self.at += width
        path = self.key((), through_lists=True)
        self.skip(_SPACE)
        self.at += width
        if width == 1:
            return path
        path = self.strip_index(path)
        index = self.lengths.get(path, 0)
        self.lengths[path] = index + 1
        self.mark((*path, index), start)
        return (*path, index)

    def pair(self, table: KeyPath) -> None:
        path = self.key(table)
        self.skip(_SPACE)
        self.at += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def key(self, path: KeyPath, *, through_lists: bool = False) -> KeyPath:
        """A dotted key; in a header, a name of an array of tables stands for its last table."""
        while True:
            self.skip(_SPACE)
            start = self.at
            path = (*path, self.simple_key())
            self.mark(path, start)
            if through_lists and path in self.lengths:
                path = (*path, self.lengths[path] - 1)
            self.skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return path
            self.at += 1

    def simple_key(self) -> str:
        quoted = self.text[self.at] in "\"'"
        raw = self.skip(_STRING if quoted else _BARE)
        if not quoted:
            return raw
        if "\\" not in raw or raw[0] == "'":
            return raw[1:-1]
        return str(tomllib.loads(f"key = {raw}")["key"])

    def value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening == "[":
            self.items(path)
        elif opening == "{":
            self.inline_table(path)
        else:
            self.skip(_STRING if opening in "\"'" else _SCALAR)

    def items(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while not self.closes("]"):
            self.mark((*path, index), self.at)
            self.value((*path, index))
            index += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while not self.closes("}"):
            self.pair(path)

    def closes(self, bracket: str) -> bool:
        """Moves to the next element, or past the end of the list or table."""
        self.skip(_BLANK)
        if self.text[self.at] == ",":
            self.at += 1
            self.skip(_BLANK)
        if self.text[self.at] != bracket:
            return False
        self.at += 1
        return True

    def strip_index(self, path: KeyPath) -> KeyPath:
        return path[:-1] if isinstance(path[-1], int) else path

    def mark(self, path: KeyPath, offset: int) -> None:
        line = bisect_right(self.starts, offset)
        self.found.setdefault(path, Position(line, offset - self.starts[line - 1] + 1))

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None, f"the scanner disagrees with tomllib at offset {self.at}"
        self.at = match.end()
        return match.group()
