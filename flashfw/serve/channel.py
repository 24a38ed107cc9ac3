"""What the process that holds the socket and the one that answers say to each other: a line of JSON each.

Both may be of different versions of flashfw, since a restart brings a new one under a parent that stays. So the words
are few, and never change their meaning:

| to the gateway | fields |
| --- | --- |
| `go` | the one before has ended: serve; shows_key: whether a first admin key would be seen |
| `stop` | take no more calls, end those that run, and exit |

| from the gateway | fields |
| --- | --- |
| `standby` | it has loaded, and found nothing that would keep it from serving |
| `serving` | key: the first admin key if it was made just now; has_keys |
| `failed` | what, hint, exit: it ends for a reason that a person can mend |

The end of the channel is the end of who held its other end.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass, field
from typing import Any

LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Word:
    """One thing that was said."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)


class Channel:
    """One end of the channel. Lives on the loop that opened it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """The channel over one of two connected sockets, which is the channel's from now on."""
        return cls(*await asyncio.open_connection(sock=sock, limit=LINE_BYTES))

    def say(self, name: str, **fields: Any) -> None:
        """Say something; nothing happens if nobody is there any more."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"word": name, **fields}).encode() + b"\n")

    async def hear(self) -> Word | None:
        """The next thing that the other one says, None once it is gone."""
        try:
            line = await self._reader.readline()
            value = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return None if value is None else Word(value.pop("word"), value)

    async def close(self) -> None:
        """Send what was said, and let go."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the other one is gone
