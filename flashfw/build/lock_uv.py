"""Runs uv to its end in a folder aside: for a resolution, or for the installation of one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from uv import find_uv_bin

from flashfw.bundle.uv import cleaned, uv_variables, without_credentials

_NOT_REACHED = re.compile(
    r"(?i)request failed|error sending request|dns error|tcp connect|timed out|network was disabled|failed to fetch"
    r"|connection (refused|reset)|status (client|server) error|could not resolve host|lack of valid authentication"
)
_ADVICE = re.compile(r"hint: (An index URL \(.*\) could not be queried.*|.*because the network was disabled)")
"""What uv gives as advice although it is the reason."""

_NEVER = ("UV_WORKING_DIR", "UV_PROJECT", "UV_COMPILE_BYTECODE", "UV_NO_VERIFY_HASHES", "UV_REQUIRE_HASHES")
"""Variables that would have uv do something else than it is told to."""


class UvFailed(Exception):
    """uv ended with an error. `str` of it is what uv said; `unreachable` tells of an index that did not answer."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.unreachable = _NOT_REACHED.search(said) is not None


def run(*arguments: str, cwd: Path, variables: Mapping[str, str]) -> None:
    """Run one command of uv to its end.

    Raises:
        UvFailed: it ended with an error, or could not be started.
    """
    try:
        done = subprocess.run(
            [find_uv_bin(), *arguments, "--quiet", "--no-progress", "--color=never"],
            cwd=cwd,
            env=_variables(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise UvFailed(f"uv could not be started: {error}") from error
    if done.returncode != 0:
        printed = done.stderr.decode(errors="replace")
        advice = _ADVICE.search(printed)
        raise UvFailed(without_credentials(advice[1]) if advice else cleaned(printed))


def python_options(python: str) -> list[str]:
    """Whose Python builds what has to be built: flashfw's own where it is of that version, else what uv finds."""
    here = ".".join(map(str, sys.version_info[:2]))
    return ["--python", os.path.realpath(sys.executable)] if python == here else []


def _variables(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in uv_variables(variables).items() if name not in _NEVER}
    # Last on the path, so that uv finds some interpreter where there is no other.
    path = os.pathsep.join(filter(None, (kept.get("PATH"), os.path.dirname(os.path.realpath(sys.executable)))))
    return {**kept, "PATH": path}
