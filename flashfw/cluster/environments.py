"""One Python environment per distinct set of requirements, made by uv and kept for the next time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from flashfw.errors import Exit, FlashfwError

WORKER_NEEDS = ("anyio>=4.5", "pydantic>=2.8", "python-multipart>=0.0.12", "starlette>=0.40")
"""What the worker itself imports beside user code."""

AT_ONCE = 2
_COMPLETE = ".complete"
_LEAKING = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")


@dataclass(frozen=True, slots=True)
class Environment:
    """A finished environment: its interpreter, and the key that names its folder."""

    python: Path
    key: str


class EnvironmentFailed(FlashfwError):
    """An environment could not be made; `what` holds uv's own words."""

    exit = Exit.PROBLEMS


class Environments:
    """The environments under one cache folder, shared by all projects and servers of a user.

    `variables` is the machine's environment, which configures uv; `on_event` hears what is being made.
    """

    def __init__(
        self, cache: Path, variables: dict[str, str], on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        self._cache = cache
        self._variables = {name: value for name, value in variables.items() if name not in _LEAKING}
        self._on_event = on_event
        self._locks: dict[str, anyio.Lock] = {}
        self._slots = anyio.CapacityLimiter(AT_ONCE)

    async def ensure(self, requirements: Sequence[str], *, python: str, project_root: Path) -> Environment:
        """The environment that holds these requirements and the worker's own needs; made if need be.

        `python` is a version such as `3.12`. Concurrent calls, of other processes too, make it once.

        Raises:
            EnvironmentFailed: uv cannot find the interpreter, or cannot resolve or install the packages.
        """
        key = environment_key(requirements, python=python, project_root=project_root)
        folder = self._cache / key
        async with self._locks.setdefault(key, anyio.Lock()):
            if not (folder / _COMPLETE).exists():
                wanted = (*requirements, *WORKER_NEEDS)
                await anyio.to_thread.run_sync(
                    self._make, folder, wanted, python, project_root, limiter=self._slots, abandon_on_cancel=False
                )
        return Environment(folder / "bin" / "python", key)

    def _make(self, folder: Path, wanted: tuple[str, ...], python: str, project_root: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(self._cache / f"{folder.name}.lock"):
            if (folder / _COMPLETE).exists():
                return
            began = time.monotonic()
            own = len(wanted) - len(WORKER_NEEDS)
            self._on_event(f"making an environment: Python {python}, {own} requirement{'' if own == 1 else 's'}")
            shutil.rmtree(folder, ignore_errors=True)
            try:
                self._uv("venv", "--quiet", "--python", python, "--no-project", str(folder), cwd=project_root)
                packages = (
                    "pip",
                    "install",
                    "--quiet",
                    "--compile-bytecode",
                    "--python",
                    str(folder / "bin" / "python"),
                )
                self._uv(*packages, "--requirements", "-", cwd=project_root, text="\n".join(wanted))
            except EnvironmentFailed:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / _COMPLETE).touch()
            self._on_event(f"environment made in {time.monotonic() - began:.1f} s")

    def _uv(self, *arguments: str, cwd: Path, text: str = "") -> None:
        done = subprocess.run(
            [find_uv_bin(), *arguments],
            cwd=cwd,
            env=self._variables,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise EnvironmentFailed(_cleaned(done.stderr), hint=_hint(done.stderr))


def environment_key(requirements: Sequence[str], *, python: str, project_root: Path) -> str:
    """What distinguishes environments: requirements, Python, platform, and how the project configures uv.

    >>> root = Path("/nowhere")
    >>> one = environment_key(["A>=1", "b"], python="3.12", project_root=root)
    >>> one == environment_key(["b", "a >= 1"], python="3.12", project_root=root)
    True
    """
    parts = [
        *sorted({_normalised(text, project_root) for text in requirements}),
        *WORKER_NEEDS,
        python,
        sys.platform,
        os.uname().machine,
        _uv_settings(project_root),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _normalised(text: str, project_root: Path) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return f"{project_root}\0{text}"
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def _uv_settings(project_root: Path) -> str:
    """The text of `[tool.uv...]` in pyproject.toml: indexes and sources count, and so does any other of its keys."""
    try:
        text = (project_root / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    tables = re.split(r"(?m)^(?=\[)", text)
    return "".join(table for table in tables if re.match(r"\[+\s*tool\s*\.\s*uv\b", table))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cleaned(message: str) -> str:
    lines = [re.sub(r"^(error: |  [×╰─▶│ ]+)", "", line).strip(" ×╰─▶│") for line in message.splitlines()]
    return "\n".join(line for line in lines if line) or "uv failed without a message"


def _hint(message: str) -> str:
    own = ", ".join(WORKER_NEEDS)
    if "No interpreter found" in message:
        return "install that Python, or set 'python' to one that `uv python list` shows"
    if "unsatisfiable" in message and any(Requirement(need).name in message for need in WORKER_NEEDS):
        return f"flashfw's worker itself needs {own}"
    return "check 'dependencies' in endpoint.toml and pyproject.toml"
