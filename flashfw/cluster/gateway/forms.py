"""A multipart form as it arrives: its files to the disk, its fields to JSON values; no file is ever whole in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any, NamedTuple

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from flashfw.cluster.job_files import Part, Spool
from flashfw.errors import FlashfwError

MOST_PARTS = 1000
INPUT = "input"
"""The part that holds, as one JSON object, what the other parts do not."""

Json = Any


class FormInvalid(FlashfwError):
    """The form is none, or not what the function takes; the message names the part."""


class _Head(NamedTuple):
    name: str
    filename: str | None
    content_type: str


class _Event(NamedTuple):
    """What the parser met: the head of a part, a piece of its content, or (with neither) its end."""

    head: _Head | None = None
    data: bytes | None = None


class Form:
    """Reads one form. `files` are the names that take files; `limit` is for all that is no file together."""

    def __init__(self, spool: Spool, files: Collection[str], limit: int) -> None:
        self.files = files
        self._spool = spool
        self._left = limit
        self._limit = limit
        self._values: dict[str, list[Json]] = {}
        self._head = _Head("", None, "")
        self._file: Part | None = None
        self._text = bytearray()
        self._parts = 0

    async def read(self, content_type: str, chunks: AsyncIterator[bytes]) -> dict[str, Json]:
        """The input that the form says; a name that comes several times is a list.

        Raises:
            FormInvalid: it is no form, or a part of it does not fit.
            DiskFull: there is no room for a file.
        """
        parser = _Parser(content_type)
        async for chunk in chunks:
            for event in parser.feed(chunk):
                await self._take(event)
        if not parser.is_whole:
            raise FormInvalid("the form ends before its last boundary")
        return self._input()

    async def _take(self, event: _Event) -> None:
        if event.head is not None:
            self._begin(event.head)
        elif event.data is None:
            await self._end()
        elif self._file is not None:
            await self._spool.write(self._file, event.data)
        else:
            self._left -= len(event.data)
            if self._left < 0:
                raise FormInvalid(f"what is no file is larger than {self._limit} bytes, the most for JSON")
            self._text += event.data

    def _begin(self, head: _Head) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise FormInvalid(f"it has more than {MOST_PARTS} parts")
        self._head, self._text, self._file = head, bytearray(), None
        if head.filename is not None and head.name in self.files:
            self._file = self._spool.begin(head.filename, head.content_type)
        elif head.filename and head.name != INPUT:
            raise FormInvalid(f"'{head.name}' takes no file; {_named(self.files)}")
        elif head.name in self.files:
            raise FormInvalid(f"'{head.name}' takes a file: give the part a file name (curl -F {head.name}=@FILE)")

    async def _end(self) -> None:
        head = self._head
        if self._file is None:
            self._values.setdefault(head.name, []).append(_value(head, bytes(self._text)))
            return
        kept = await self._spool.finish(self._file)
        if head.filename or kept["size"]:  # browsers send an empty file where nobody chose one
            self._values.setdefault(head.name, []).append(kept)

    def _input(self) -> dict[str, Json]:
        found = {name: values[0] if len(values) == 1 else values for name, values in self._values.items()}
        whole = found.pop(INPUT, {})
        if not isinstance(whole, dict):
            raise FormInvalid(f"the part '{INPUT}' is a JSON object of the parameters that are no files")
        if twice := whole.keys() & found.keys():
            raise FormInvalid(f"'{min(twice)}' is in the part '{INPUT}' and a part of its own")
        return {**whole, **found}


class _Parser:
    """Chunks of bytes to events."""

    def __init__(self, content_type: str) -> None:
        self.is_whole = False
        self._events: list[_Event] = []
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise FormInvalid("its content type names no boundary")
        try:
            self._parser = MultipartParser(boundary, self._callbacks())  # type: ignore[arg-type]
        except (MultipartParseError, ValueError) as error:
            raise FormInvalid(str(error)) from error

    def feed(self, chunk: bytes) -> Iterable[_Event]:
        try:
            self._parser.write(chunk)
        except (MultipartParseError, ValueError) as error:
            raise FormInvalid(str(error)) from error
        events, self._events = self._events, []
        return events

    def _callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_head,
            "on_part_data": lambda data, start, end: self._events.append(_Event(data=bytes(data[start:end]))),
            "on_part_end": lambda: self._events.append(_Event()),
            "on_end": self._on_end,
        }

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_head(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition"))[1]
        if b"name" not in options:
            raise FormInvalid("a part of it has no name")
        filename = options.get(b"filename")
        media = _text(self._headers.get(b"content-type", b""))
        self._events.append(
            _Event(_Head(_text(options[b"name"]), None if filename is None else _text(filename), media))
        )

    def _on_end(self) -> None:
        self.is_whole = True


def _value(head: _Head, data: bytes) -> Json:
    """A field: JSON where it says that it is, text elsewhere, which pydantic makes a number or a date of."""
    media = head.content_type.partition(";")[0].strip().lower()
    if media == "application/json" or head.name == INPUT:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormInvalid(f"the part '{head.name}' is no JSON: {error}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormInvalid(f"the part '{head.name}' is not UTF-8 at byte {error.start}") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _named(names: Collection[str]) -> str:
    return f"files go to {' and '.join(repr(name) for name in names)}"
