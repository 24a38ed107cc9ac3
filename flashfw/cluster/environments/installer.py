"""uv as a child process: its configuration comes from the user's own environment."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio
from uv import find_uv_bin

from flashfw.bundle.uv import cleaned, uv_variables


class UvFailed(Exception):
    """uv ended with an error; `str` of it is what uv said, shortened to what matters."""


class Uv:
    """Runs uv in a directory with the machine's variables, from which its configuration comes."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = uv_variables(variables)

    async def run(self, *arguments: str, cwd: Path, input: str = "", hold: int) -> None:
        """Run one command to its end. A cancellation kills it with all that it started.

        The descriptor `hold` stays open in uv and its children: a lock on it is held until
        the last of them has ended, even if this process is killed.

        Raises:
            UvFailed: it ended with an error, or could not be started.
        """
        try:
            process = await self._start(arguments, cwd, input.encode(), hold)
        except OSError as error:
            raise UvFailed(f"uv could not be started: {error}") from error
        try:
            _, said = await process.communicate()
        except BaseException:
            _kill(process.pid)
            with anyio.CancelScope(shield=True):
                await process.communicate()
            raise
        if process.returncode != 0:
            raise UvFailed(cleaned(said.decode(errors="replace")))

    async def _start(
        self, arguments: tuple[str, ...], cwd: Path, input: bytes, hold: int
    ) -> asyncio.subprocess.Process:
        # A file and no pipe: a uv that ends before it has read would break the pipe, which uvloop
        # reports by another error than asyncio does.
        with tempfile.TemporaryFile() as given:
            given.write(input)
            given.seek(0)
            return await asyncio.create_subprocess_exec(
                find_uv_bin(),
                *arguments,
                "--quiet",
                "--no-progress",
                "--color=never",
                cwd=cwd,
                env=self._variables,
                stdin=given,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[hold],
                start_new_session=True,
            )


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
