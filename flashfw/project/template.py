"""From the template to the files of a new project."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import flashfw
from flashfw.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_PLACEHOLDER = "{{ project_name }}"
_LEFTOVERS = frozenset({"__pycache__", ".flashfw", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv"})


@dataclass(frozen=True, slots=True)
class Created:
    """A project that was just written: its folder, its name, its files below the folder."""

    path: Path
    name: str
    files: tuple[str, ...]


def create(path: Path) -> Created:
    """Write a project from the template into a folder that is empty or does not exist yet.

    The folder's name becomes the project's. When a file cannot be written, what was written goes again.

    Raises:
        UsageError: the folder is not empty, is no folder or cannot be written, or its
            name is no project name.
    """
    name = _name(path)
    written: list[Path] = []
    try:
        _refuse_taken(path)
        _write(path, name, written)
    except OSError as error:
        _remove(path, written)
        raise UsageError(
            f"cannot make {path}: {error.filename or path}: {error.strerror or error}", hint="nothing was left behind"
        ) from error
    return Created(Path(os.path.abspath(path)), name, tuple(file.relative_to(path).as_posix() for file in written))


def find_template() -> Path:
    """The template's folder: inside the package when installed, beside it in a checkout."""
    package = Path(flashfw.__file__).parent
    inside = package / "project_template"
    return inside if inside.is_dir() else package.parent / "project_template"


def is_name(name: str) -> bool:
    """Whether a project may be called so: it is also the name of a Python distribution.

    >>> is_name("image-shop"), is_name("2shops")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def nearest_name(name: str) -> str:
    """The project name that comes nearest, empty when nothing of it can stay.

    >>> nearest_name("My Shop 2")
    'my-shop-2'
    """
    if is_name(name):
        return name
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    return "-".join(words).lstrip("0123456789-")


def _name(path: Path) -> str:
    name = Path(os.path.abspath(path)).name  # lexical: a link is called what the user called it
    if is_name(name):
        return name
    better = nearest_name(name)
    hint = f"did you mean {str(path.parent / better)!r}?" if better else "call it 'shop', for example"
    raise UsageError(f"{name!r} is no project name: lower-case letters, digits, - and _, a letter first", hint=hint)


def _refuse_taken(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link to nowhere")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file", hint="name a folder that does not exist yet")
    if path.is_dir() and (there := sorted(entry.name for entry in path.iterdir())):
        shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise UsageError(f"{path} is not empty: {shown}", hint="name a folder that is empty or does not exist yet")


def _write(target: Path, name: str, written: list[Path]) -> None:
    template = find_template()
    for source in sorted(template.rglob("*")):
        relative = source.relative_to(template)
        if source.is_file() and _LEFTOVERS.isdisjoint(relative.parts):
            text = source.read_text(encoding="utf-8").replace(_PLACEHOLDER, name)
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            written.append(target / relative)
            (target / relative).write_text(text, encoding="utf-8")


def _remove(target: Path, written: list[Path]) -> None:
    for file in written:
        file.unlink(missing_ok=True)
    folders = {folder for file in written for folder in file.parents if target in (folder, *folder.parents)}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        try:
            folder.rmdir()
        except OSError:  # not ours alone, or the working directory: an empty folder does no harm
            pass
