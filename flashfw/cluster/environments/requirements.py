"""What an environment shall hold: requirements as people write them, each with who asks for it, to one key."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging import requirements as pep508
from packaging.utils import canonicalize_name

from flashfw.errors import Exit, FlashfwError

WORKER = "flashfw's worker"
WORKER_NEEDS = (
    "anyio>=4.5,<5",
    "h11>=0.14,<1",
    "pydantic>=2.8,<3",
    "python-multipart>=0.0.27",
    "starlette>=0.49.1",
    "wsproto>=1.2",
)
"""What the worker itself imports beside user code; no narrower than flashfw's own dependencies."""

_UV_VARIABLES = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX.*|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|PRERELEASE|RESOLUTION|EXCLUDE_NEWER|CONSTRAINT"
    r"|OVERRIDE|EXCLUDE|NO_BINARY.*|NO_BUILD.*|TORCH_BACKEND|NO_SOURCES|CONFIG_FILE|NO_CONFIG)"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_PATH = re.compile(r"\.{0,2}/|.*\.(whl|tar\.gz|zip)$")
_NAMED = re.compile(r"[\w.-]+\s*(\[[^]]*\])?\s*@")
_NOT_CONTENT = frozenset({"__pycache__", "build", "dist", "node_modules"})


class EnvironmentFailed(FlashfwError):
    """An environment could not be made; `what` holds uv's own words and who asks for what."""

    exit = Exit.PROBLEMS


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement and the place that asks for it.

    `line` is what uv reads; `name` is canonical and empty for a path without one; `path` is a project
    file or directory to install; `identity` tells requirements apart that would install something else.
    """

    text: str
    asker: str
    line: str
    name: str
    identity: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.asker} {'needs' if self.asker == WORKER else 'asks for'} {self.text}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An environment as asked for: `requirements` with the worker's own, the Python version, the key."""

    requirements: tuple[Requirement, ...]
    python: str
    root: Path
    key: str

    @property
    def asked(self) -> int:
        """How many requirements are not the worker's own."""
        return sum(requirement.asker != WORKER for requirement in self.requirements)

    @property
    def has_paths(self) -> bool:
        """Whether a part of the project itself is installed."""
        return any(requirement.path is not None for requirement in self.requirements)


def want(
    requirements: Sequence[str], *, python: str, root: Path, askers: Mapping[str, str], variables: Mapping[str, str]
) -> Wanted:
    """The environment for these requirements; equal keys mean that one environment does for both.

    `askers` names the place of each requirement by its text. `variables` is the machine's environment.

    Raises:
        EnvironmentFailed: a requirement is none, or names a path that is not there.
    """
    read_ones = [read(text, askers.get(text, "the project"), root) for text in requirements]
    own = [read(text, WORKER, root) for text in WORKER_NEEDS]
    parts = [
        *sorted({requirement.identity for requirement in read_ones}),
        *WORKER_NEEDS,
        python,
        sysconfig.get_platform(),
        *platform.libc_ver(),
        *uv_settings(root, variables),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return Wanted((*read_ones, *own), python, root, key)


def read(text: str, asker: str, root: Path) -> Requirement:
    """One requirement. A relative path is below the project's root.

    Raises:
        EnvironmentFailed: it is an option of an installer, no requirement at all, or a path that is not there.
    """
    stripped = text.strip()
    if stripped.startswith("-") or "\n" in stripped:
        hint = "write the requirement alone; indexes belong under [tool.uv] in pyproject.toml"
        if re.match(r"(-e|--editable)\b", stripped):
            hint = "write the path alone: it is installed anew when a file of it changes"
        raise EnvironmentFailed(f"{asker} asks for {text!r}, which is no requirement", hint=hint)
    if _is_path(stripped) and not _NAMED.match(stripped):
        path = _existing(stripped, stripped, asker, root)
        return Requirement(text, asker, str(path), "", f"{path} {_content(path, asker)}", path)
    try:
        parsed = pep508.Requirement(stripped)
    except pep508.InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise EnvironmentFailed(
            f"{asker} asks for {text!r}, which is no requirement: {reason}", hint='write it as in "torch>=2.4"'
        ) from error
    name = parsed.name = canonicalize_name(parsed.name)
    if parsed.url is None or not _is_path(parsed.url):
        return Requirement(text, asker, stripped, name, str(parsed))
    path = _existing(parsed.url, text, asker, root)
    parsed.url = path.as_uri()
    return Requirement(text, asker, str(parsed), name, f"{parsed} {_content(path, asker)}", path)


def mentioned(requirements: Sequence[Requirement], message: str) -> list[Requirement]:
    """Those whose package or path a message of uv's names.

    >>> root = Path("/")
    >>> asked = [read("Six>1", "a", root), read("six-extra", "b", root)]
    >>> [str(one) for one in mentioned(asked, "you require six>1, we can conclude")]
    ['a asks for Six>1']
    """
    return [requirement for requirement in requirements if _names(requirement, message)]


def uv_settings(root: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """What changes what uv would install: its variables, and the configuration that it finds from the project.

    Credentials are left out: a new token is not another environment.
    """
    for name, value in sorted(variables.items()):
        if _UV_VARIABLES.fullmatch(name) and not name.endswith(("_USERNAME", "_PASSWORD")):
            yield f"{name}={_CREDENTIALS.sub('', value)}"
    for folder in (root, *root.parents):
        found = _toml(folder / "uv.toml") or _toml(folder / "pyproject.toml").get("tool", {}).get("uv")
        if found:
            yield _CREDENTIALS.sub("", json.dumps(found, sort_keys=True, default=str))
            return


def without_credentials(text: str) -> str:
    """The text with user names and passwords of its URLs hidden.

    >>> without_credentials("cannot reach https://me:secret@host/simple/")
    'cannot reach https://***@host/simple/'
    """
    return _CREDENTIALS.sub("***@", text)


def _names(requirement: Requirement, message: str) -> bool:
    if requirement.path is not None and str(requirement.path) in message:
        return True
    name = re.escape(requirement.name)
    return bool(name) and re.search(rf"(?<![\w.-]){name}(?![\w-])", message, re.IGNORECASE) is not None


def _is_path(text: str) -> bool:
    return text.startswith("file:") or ("://" not in text and _PATH.match(text) is not None)


def _existing(written: str, text: str, asker: str, root: Path) -> Path:
    if written.startswith("file:"):
        written = unquote(re.sub(r"^file:(//)?", "", written))
    path = (root / written).resolve()
    if not path.exists():
        raise EnvironmentFailed(f"{asker} asks for {text}, and {path} does not exist", hint=f"paths start at {root}")
    return path


def _content(path: Path, asker: str) -> str:
    """The hash of a file, or of all files below a directory but hidden ones and what builds leave."""
    digest = hashlib.sha256()
    try:
        for file in sorted(_files(path)):
            data = file.read_bytes()
            digest.update(f"{file.relative_to(path).as_posix()}\0{len(data)}\0".encode())
            digest.update(data)
    except OSError as error:
        raise EnvironmentFailed(f"{asker} asks for {path}, which cannot be read: {error}") from error
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for entry in path.iterdir():
        if entry.name.startswith(".") or entry.name in _NOT_CONTENT or entry.name.endswith(".egg-info"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        elif entry.is_file():
            yield entry


def _toml(path: Path) -> dict[str, Any]:
    """A TOML file; empty if there is none, or none that parses: uv reads it itself and says what is wrong."""
    try:
        stat = path.stat()
        return _parsed(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=64)
def _parsed(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    """Parsed once per content, since every start of a worker asks: it takes longer than the rest of a key."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))
