"""`flashfw.lock`: which packages, to the byte, each endpoint's environment holds; pure records and their text.

The file is committed. It holds nothing of the machine that made it: no absolute path, no credentials, and no
address of an index, unless the project itself names it. `loads(dumps(lock)) == lock`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from flashfw import whole
from flashfw.errors import Exit, FlashfwError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "flashfw.lock"
VERSION = 1
PLATFORM = "x86_64-manylinux_2_28"
"""What is locked for unless the user says otherwise: the Linux of nearly every server."""

_HEADER = "# Made by `flashfw lock`: commit it, do not edit it.\n"


class LockError(FlashfwError):
    """`flashfw.lock` is there and cannot be used: damaged, not readable, or of another version."""

    exit = Exit.PROBLEMS


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPackage:
    """One distribution of an environment.

    `name` is canonical (`scikit-learn`). Where `url` and `path` are empty it comes from whatever index is configured
    where it is installed. `url` is an archive or `git+https://...@<commit>`. `path` is a wheel, an sdist or a
    directory, relative to the project's root.
    `hashes` (`sha256:<hex>`) are of the archives that may be installed; of a directory, of its content;
    empty only for git, where the commit is the hash.
    """

    name: str
    version: str = ""
    url: str = ""
    path: str = ""
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedEnvironment:
    """What one distinct set of requirements came to.

    `key` is the hash of what is installed (`python`, `platform`, `packages`), so that two environments with one key are
    the same directory. `asked` is the hash of what was asked; `requirements` are that in words, the worker's needs
    included. `python` is a version (`3.12`), `platform` a target of uv's (`x86_64-manylinux_2_28`).
    """

    key: str
    python: str
    platform: str
    asked: str
    endpoints: tuple[str, ...]
    requirements: tuple[str, ...]
    packages: tuple[LockedPackage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """All environments of a project, in the order of their first endpoint."""

    environments: tuple[LockedEnvironment, ...]

    def environment_of(self, endpoint: str, environment: str = "") -> LockedEnvironment | None:
        """What is locked for the endpoint of that id where it is shipped to `environment`, or None.

        An endpoint whose `[on.ENV]` asks for something else there is listed as `<id>@<ENV>`.
        """
        names = (f"{endpoint}@{environment}", endpoint)
        return next((found for name in names for found in self.environments if name in found.endpoints), None)


def key_of(python: str, platform: str, packages: Iterable[LockedPackage]) -> str:
    """The key of an environment: the same for the same packages, whoever asks for them."""
    parts = [[getattr(package, field.name) for field in fields(package)] for package in packages]
    text = json.dumps([python, platform, parts], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def dumps(lock: Lock) -> str:
    """The text of the file, the same bytes for the same lock; one line per package, so that a diff tells what moved."""
    return _HEADER + f"version = {VERSION}\n" + "".join(_environment(found) for found in lock.environments)


@lru_cache(maxsize=8)  # `dev` asks at each save
def loads(text: str) -> Lock:
    """The lock that `dumps` wrote.

    Raises:
        LockError: the text is damaged, as a merge leaves it, or comes from another version of flashfw.
    """
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _damaged(_conflict(text) or f"not TOML: {error}") from error
    if "version" not in data:
        raise _damaged("version is missing")
    if data["version"] != VERSION:
        what = f"{FILE} has version {data['version']!r:.40}, this flashfw reads {VERSION}"
        raise LockError(what, hint="use the flashfw that wrote it, or remove it and run `flashfw lock` with this one")
    try:
        return Lock(environments=tuple(_read_environment(found) for found in data.get("environment", [])))
    except KeyError as error:
        raise _damaged(f"{error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise _damaged(str(error)) from error


def load(root: Path) -> Lock | None:
    """The lock of the project in a folder; None where there is none.

    Raises:
        LockError: it cannot be read.
    """
    try:
        return loads((root / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LockError(
            f"{FILE} cannot be read: {reason}", hint="restore it, or remove it and run `flashfw lock`"
        ) from error


def save(root: Path, lock: Lock) -> None:
    """Write the lock of the project in a folder: the whole file or nothing.

    Raises:
        LockError: it cannot be written.
    """
    try:
        whole.write(root / FILE, dumps(lock))
    except OSError as error:
        raise LockError(
            f"{FILE} cannot be written: {error.strerror or error}", hint="make the folder writable"
        ) from error


def toml_value(value: Any) -> str:
    """A plain value as TOML, tables inline.

    >>> toml_value({"a": ["b\\n", 1, True], "c d": 1.5})
    '{ a = ["b\\\\n", 1, true], "c d" = 1.5 }'
    """
    if isinstance(value, Mapping):
        entries = ", ".join(f"{_toml_key(name)} = {toml_value(item)}" for name, item in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _environment(found: LockedEnvironment) -> str:
    lines = ["", "[[environment]]"]
    lines += (f"{name} = {toml_value(getattr(found, name))}" for name in ("key", "python", "platform", "asked"))
    for name in ("endpoints", "requirements"):
        lines += _list(name, map(toml_value, getattr(found, name)))
    lines += _list("packages", (toml_value(dict(_entries(package))) for package in found.packages))
    return "\n".join(lines) + "\n"


def _list(name: str, items: Iterable[str]) -> Iterator[str]:
    yield f"{name} = ["
    yield from (f"    {item}," for item in items)
    yield "]"


def _entries(package: LockedPackage) -> Iterator[tuple[str, Any]]:
    for field in fields(package):
        value = getattr(package, field.name)
        if value or field.name == "name":
            yield field.name, list(value) if isinstance(value, tuple) else value


def _read_environment(data: Mapping[str, Any]) -> LockedEnvironment:
    return LockedEnvironment(
        **{name: _text(data[name], name) for name in ("key", "python", "platform", "asked")},
        endpoints=_texts(data["endpoints"], "endpoints"),
        requirements=_texts(data["requirements"], "requirements"),
        packages=tuple(_read_package(found) for found in data["packages"]),
    )


def _read_package(data: Mapping[str, Any]) -> LockedPackage:
    values = {name: _text(value, name) for name, value in data.items() if name != "hashes"}
    if unknown := sorted(values.keys() - {field.name for field in fields(LockedPackage)}):
        raise TypeError(f"{unknown[0]!r} is nothing that a package has")
    return LockedPackage(name=values.pop("name"), hashes=_texts(data.get("hashes", []), "hashes"), **values)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r} where a string belongs")
    return value


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{name} is {value!r} where a list belongs")
    return tuple(_text(item, name) for item in value)


def _conflict(text: str) -> str:
    """What is said of a file with the marks of a merge."""
    found = re.search(r"^(<{7}|={7}|>{7})", text, re.MULTILINE)
    return f"line {text.count(chr(10), 0, found.start()) + 1} is left of a merge" if found else ""


def _damaged(why: str) -> LockError:
    return LockError(f"{FILE} is damaged: {why}", hint="take one side of it, then run `flashfw lock`")
