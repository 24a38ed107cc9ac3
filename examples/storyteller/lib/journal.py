"""What was told, written to a file by a task in the background, so that no caller waits for the disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Journal:
    """Takes entries; `running` writes them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    def add(self, **entry: str) -> None:
        self._entries.put_nowait(entry)

    @classmethod
    @asynccontextmanager
    async def running(cls, file: Path) -> AsyncIterator[Journal]:
        """A journal whose entries are in the file when the block has ended."""
        journal = cls(file)
        writer = asyncio.create_task(journal._write())
        try:
            yield journal
            await journal._entries.join()
        finally:
            writer.cancel()

    async def _write(self) -> None:
        while True:
            entry = await self._entries.get()
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            self._entries.task_done()
