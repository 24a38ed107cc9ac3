"""Requirements as people write them, each with who asks for it, and what the worker itself needs beside user code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

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

_PATH = re.compile(r"\.{0,2}/|.*\.(whl|tar\.gz|zip)$")
_NAMED = re.compile(r"[\w.-]+\s*(\[[^]]*\])?\s*@")
_PLAIN = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)((?:(?:==|>=|<=|!=|~=|<|>)[0-9]+(?:\.[0-9]+)*,)*"
    r"(?:(?:==|>=|<=|!=|~=|<|>)[0-9]+(?:\.[0-9]+)*))?"
)
"""What nearly every requirement is: a name and plain versions."""
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
    if plain := _PLAIN.fullmatch(stripped):
        name = canonical(plain[1])
        return Requirement(text, asker, stripped, name, name + ",".join(sorted((plain[2] or "").split(","))))
    return _parsed(text, asker, root)


def _parsed(text: str, asker: str, root: Path) -> Requirement:
    from packaging import requirements as pep508  # a twentieth of a second, which plain requirements need not pay

    try:
        parsed = pep508.Requirement(text.strip())
    except pep508.InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise EnvironmentFailed(
            f"{asker} asks for {text!r}, which is no requirement: {reason}", hint='write it as in "torch>=2.4"'
        ) from error
    name = parsed.name = canonical(parsed.name)
    if parsed.url is None or not _is_path(parsed.url):
        return Requirement(text, asker, text.strip(), name, str(parsed))
    path = _existing(parsed.url, text, asker, root)
    parsed.url = path.as_uri()
    return Requirement(text, asker, str(parsed), name, f"{parsed} {_content(path, asker)}", path)


def canonical(name: str) -> str:
    """The name of a distribution as package indexes compare it.

    >>> canonical("Scikit_Learn")
    'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def mentioned(requirements: Sequence[Requirement], message: str) -> list[Requirement]:
    """Those whose package or path a message of uv's names.

    >>> root = Path("/")
    >>> asked = [read("Six>1", "a", root), read("six-extra", "b", root)]
    >>> [str(one) for one in mentioned(asked, "you require six>1, we can conclude")]
    ['a asks for Six>1']
    """
    return [requirement for requirement in requirements if _names(requirement, message)]


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


def content(path: Path) -> str:
    """The SHA-256 over a file, or over all files below a directory but hidden ones and what builds leave.

    Raises:
        OSError: something of it cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(_files(path)):
        data = file.read_bytes()
        digest.update(f"{file.relative_to(path).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def _content(path: Path, asker: str) -> str:
    try:
        return content(path)
    except OSError as error:
        raise EnvironmentFailed(f"{asker} asks for {path}, which cannot be read: {error}") from error


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
