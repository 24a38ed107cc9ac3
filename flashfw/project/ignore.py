"""Which paths `.gitignore` and `.flashfwignore` leave out, by git's rules: deeper files win, the last pattern wins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flashfw.errors import Problem

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

FILES = (".gitignore", ".flashfwignore")
"""In the order in which they apply: what `.flashfwignore` says wins within one directory."""


@dataclass(frozen=True, slots=True)
class Ignores:
    """The ignore files that apply in one directory, those of its parents included. Empty ignores nothing."""

    specs: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def __call__(self, path: str, *, is_dir: bool) -> bool:
        """Whether a path below the root (`endpoints/api/users`) is left out."""
        for base, spec in reversed(self.specs):
            below = path[len(base) :] + ("/" if is_dir else "")
            if (verdict := spec.check_file(below).include) is not None:
                return verdict
        return False

    @classmethod
    def of(cls, patterns: tuple[str, ...]) -> Ignores:
        """What these patterns leave out, as an ignore file at the root would.

        >>> Ignores.of(("data/",))("data/x.bin", is_dir=False)
        True
        """
        from pathspec import GitIgnoreSpec

        return cls((("", GitIgnoreSpec.from_lines(patterns)),)) if patterns else cls()

    def within(self, root: Path, directory: str, names: tuple[str, ...] = FILES) -> tuple[Ignores, list[Problem]]:
        """The ignores inside a directory below the root, given the ignore files that it has.

        >>> Ignores().within(Path("/nowhere"), "endpoints")
        (Ignores(specs=()), [])
        """
        specs = list(self.specs)
        problems: list[Problem] = []
        base = f"{directory}/" if directory else ""
        for name in (name for name in FILES if name in names):
            spec, found = _load(root / base / name, base + name)
            problems.extend(found)
            specs.extend([] if spec is None else [(base, spec)])
        return (Ignores(tuple(specs)) if len(specs) > len(self.specs) else self), problems


def _load(path: Path, file: str) -> tuple[GitIgnoreSpec | None, list[Problem]]:
    try:
        lines = path.read_text("utf-8", errors="surrogateescape").splitlines() if path.is_file() else []
    except OSError as error:
        hint = "make it readable, or remove it"
        return None, [Problem(f"cannot be read: {error.strerror or error}", file, hint=hint)]
    if not any(line.strip() and not line.startswith("#") for line in lines):
        return None, []
    from pathspec import GitIgnoreSpec  # a tree without ignore files need not pay for it

    try:
        return GitIgnoreSpec.from_lines(lines), []
    except (ValueError, re.error):
        bad = {number: line for number, line in enumerate(lines, 1) if not is_pattern(line)}
    hint = "mend it; the other lines are applied"
    problems = [
        Problem(f"{line!r} is no pattern of an ignore file", file, number, hint=hint) for number, line in bad.items()
    ]
    return GitIgnoreSpec.from_lines([line for number, line in enumerate(lines, 1) if number not in bad]), problems


def is_pattern(line: str) -> bool:
    """Whether a line of an ignore file is a pattern that git takes.

    >>> is_pattern("data/*.bin"), is_pattern("[")
    (True, True)
    """
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True
