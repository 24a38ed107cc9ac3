"""The rules for path components: which directory names make a route, which are skipped, how to mend the rest."""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Iterable, Iterator

ENDPOINTS = "endpoints"
HANDLER = "handler.py"
FIXTURES = "fixtures.py"
MIDDLEWARE = "middleware.py"
CONFIG = "endpoint.toml"
SPECIAL = (HANDLER, FIXTURES, MIDDLEWARE, CONFIG)
SUFFIXES = (".py", ".toml", ".tml", ".yaml", ".yml")
"""Endings of special files and of those that somebody may have meant to be one."""
INDEX = "index"
"""The endpoint id of `endpoints/handler.py`."""

RESERVED = ("v2", "docs", "openapi")
"""Not to be had directly under `endpoints/`: the URLs of the platform itself."""

_COMPONENT = re.compile(r"[a-z][a-z0-9_]*")
_DYNAMIC = re.compile(r"_([^_].*[^_]|[^_])_", re.DOTALL)
_FOREIGN_DYNAMIC = re.compile(r"[\[{<(:$](?:\.\.\.)?([^\[\]{}<>():$]+)[\]}>)]?", re.DOTALL)


def parameter(component: str) -> str | None:
    """The parameter of a dynamic segment as written, None for any other component.

    >>> parameter("_user_id_"), parameter("users"), parameter("_private"), parameter("__init__")
    ('user_id', None, None, None)
    """
    found = _DYNAMIC.fullmatch(component)
    return found.group(1) if found else None


def is_skipped(component: str) -> bool:
    """Whether a directory of that name is no part of the tree: `_private`, `.hidden`, `__pycache__`.

    >>> [is_skipped(name) for name in ("_private", ".git", "__pycache__", "_id_", "users", "Bad-Name")]
    [True, True, True, False, False, False]
    """
    return component.startswith(".") or (component.startswith("_") and parameter(component) is None)


def is_component(name: str) -> bool:
    """Whether a plain name may be part of a path: `[a-z][a-z0-9_]*` and no keyword.

    >>> [is_component(name) for name in ("gpu_a100", "A100", "a-b", "class", "_x", "2d")]
    [True, False, False, False, False, False]
    """
    return _COMPONENT.fullmatch(name) is not None and not keyword.iskeyword(name)


def flaw(component: str) -> tuple[str, str] | None:
    """What is wrong with a directory's name and how to mend it, None if nothing is.

    >>> flaw("gpu-a100")
    ("'gpu-a100' cannot be part of a path: names are [a-z][a-z0-9_]*", "rename it to 'gpu_a100'")
    >>> flaw("class")
    ("'class' cannot be part of a path: it is a Python keyword, so nothing could import it", "rename it to 'class_'")
    >>> flaw("users"), flaw("_id_")
    (None, None)
    """
    name = parameter(component)
    if is_component(component if name is None else name):
        return None
    hint = f"rename it to {suggest(component)!r}"
    if name is not None:
        reason = "is a Python keyword" if keyword.iskeyword(name) else "is not of the form [a-z][a-z0-9_]*"
        return f"{component!r} cannot be a dynamic segment: the parameter {name!r} {reason}", hint
    if keyword.iskeyword(component):
        return f"{component!r} cannot be part of a path: it is a Python keyword, so nothing could import it", hint
    return f"{component!r} cannot be part of a path: names are [a-z][a-z0-9_]*", hint


def suggest(component: str) -> str:
    """A name close to `component` that the rules allow; other systems' dynamic segments become ours.

    >>> [suggest(name) for name in ("Users", "gpu-a100", "[id]", "{user-id}", "3d", "class", "_Id_")]
    ['users', 'gpu_a100', '_id_', '_user_id_', 'n3d', 'class_', '_id_']
    """
    foreign = _FOREIGN_DYNAMIC.fullmatch(component)
    inner = foreign.group(1) if foreign else parameter(component)
    if inner is not None:
        return f"_{_plain(inner)}_"
    return _plain(component)


def _plain(text: str) -> str:
    name = re.sub(r"[^a-z0-9_]", "_", text.lower()).strip("_") or "name"
    if not name[0].isalpha():
        name = f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def upwards(path: str) -> Iterator[str]:
    """A directory below `endpoints/` and those above it, nearest first, the top (empty) last.

    >>> list(upwards("api/users"))
    ['api/users', 'api', '']
    """
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that `name` was probably meant to be.

    >>> closest("gpu_a10", ["api", "gpu_a100"])
    'gpu_a100'
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def misspelt(file: str) -> str | None:
    """The special file that a file was probably meant to be.

    >>> [misspelt(name) for name in ("handlers.py", "Fixture.py", "endpoints.toml", "handler.py", "model.py")]
    ['handler.py', 'fixtures.py', 'endpoint.toml', None, None]
    """
    if file in SPECIAL or not file.lower().endswith(SUFFIXES):
        return None
    stem, _, suffix = file.lower().rpartition(".")
    wanted = {name.rpartition(".")[0]: name for name in SPECIAL if name.endswith(".py") == (suffix == "py")}
    match = closest(stem, wanted, cutoff=0.85)
    return wanted[match] if match else None
