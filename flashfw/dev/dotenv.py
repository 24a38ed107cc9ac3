"""`.env`: where a laptop keeps the values of secrets. Workers get only those that an endpoint names."""

from __future__ import annotations

from pathlib import Path

FILE = ".env"


def read(root: Path) -> dict[str, str]:
    """The variables of `.env` in the project's root; none without the file."""
    try:
        return parse((root / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def parse(text: str) -> dict[str, str]:
    """Lines of `NAME=value`, as shells and Docker read them: comments, `export`, one pair of quotes.

    >>> parse("# tokens\\nexport HF_TOKEN='abc'\\nEMPTY=\\nno value")
    {'HF_TOKEN': 'abc', 'EMPTY': ''}
    """
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name.isidentifier():
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found
