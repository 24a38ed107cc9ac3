"""uv as a child process: its configuration comes from the user's own environment, its errors as one text."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio
from uv import find_uv_bin

from flashfw.cluster.environments.requirements import without_credentials

SHOWN_LINES = 30
"""How much of a build's own output is shown: the reason is at its end."""

_LEFT_OUT = frozenset(
    [
        # Each would make uv, or the Python that it asks, look at what happens to be installed.
        *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"),
        *("UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_VENV_CLEAR", "UV_VENV_SEED"),
    ]
)


class UvFailed(Exception):
    """uv ended with an error; `str` of it is what uv said, shortened to what matters."""


class Uv:
    """Runs uv in a directory with the machine's variables, from which its configuration comes."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        kept = {name: value for name, value in variables.items() if name not in _LEFT_OUT}
        self._variables = {**kept, "UV_NO_WRAP": "1"}  # messages are taken apart by line

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


def cleaned(message: str) -> str:
    """What uv printed: its chain of causes as one line, then the end of what a build printed.

    Warnings, advice for uv's own users, frames and credentials are left out.

    >>> cleaned("error: No solution found\\n  cause: Because you require six<1 and six>1, it is so.\\n")
    'No solution found: Because you require six<1 and six>1, it is so.'
    """
    causes: list[str] = []
    output: list[str] = []
    block = output
    for line in message.splitlines():
        text = re.sub(r"^[\s×╰├─▶│>]+|\s+$", "", line)
        kind = re.match(r"(error|warning|hint|help|caused by|cause): *", text, re.IGNORECASE)
        if kind and kind[1].lower() in ("warning", "hint", "help"):
            block = []
        elif kind or line.lstrip().startswith(("×", "╰", "├", "▶")):
            causes.append(text[kind.end() :] if kind else text)
            block = output if kind else causes
        elif text and block is causes:
            causes[-1] += f" {text}"  # older versions of uv wrap their lines
        elif text:
            block.append(text)
    shown = [": ".join(cause.rstrip(":") for cause in causes), *output[-SHOWN_LINES:]]
    return without_credentials("\n".join(filter(None, shown))) or "uv failed and did not say why"


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
