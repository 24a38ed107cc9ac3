"""How uv is called and what it says: its variables, the project's configuration of it, its errors as one text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_UV_VARIABLES = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX.*|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|PRERELEASE|RESOLUTION|EXCLUDE_NEWER|CONSTRAINT"
    r"|OVERRIDE|EXCLUDE|NO_BINARY.*|NO_BUILD.*|TORCH_BACKEND|NO_SOURCES|CONFIG_FILE|NO_CONFIG)"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")

SHOWN_LINES = 30
"""How much of a build's own output is shown: the reason is at its end."""

_LEFT_OUT = frozenset(
    [
        # Each would make uv, or the Python that it asks, look at what happens to be installed.
        *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__"),
        *("UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_VENV_CLEAR", "UV_VENV_SEED"),
    ]
)


def uv_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv gets of the machine's: all but those that make it look at what happens to be installed."""
    kept = {name: value for name, value in variables.items() if name not in _LEFT_OUT}
    return {**kept, "UV_NO_WRAP": "1"}  # messages are taken apart by line


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


def uv_settings(root: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """What changes what uv would install: its variables, and the configuration that it finds from the project.

    Credentials are left out: a new token is not another environment.
    """
    for name, value in sorted(variables.items()):
        if _UV_VARIABLES.fullmatch(name) and not name.endswith(("_USERNAME", "_PASSWORD")):
            yield f"{name}={_CREDENTIALS.sub('', value)}"
    for folder in (root, *root.parents):
        found = read_toml(folder / "uv.toml") or read_toml(folder / "pyproject.toml").get("tool", {}).get("uv")
        if found:
            yield _CREDENTIALS.sub("", json.dumps(found, sort_keys=True, default=str))
            return


def without_credentials(text: str) -> str:
    """The text with user names and passwords of its URLs hidden.

    >>> without_credentials("cannot reach https://me:secret@host/simple/")
    'cannot reach https://***@host/simple/'
    """
    return _CREDENTIALS.sub("***@", text)


def stripped_credentials(text: str) -> str:
    """The text without user names and passwords in its URLs.

    >>> stripped_credentials("a @ https://me:secret@host/a.whl")
    'a @ https://host/a.whl'
    """
    return _CREDENTIALS.sub("", text)


def read_toml(path: Path) -> dict[str, Any]:
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
