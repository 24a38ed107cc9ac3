"""How every verb prints: results on stdout, problems and notes on stderr, with `--json` one document on stdout."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from flashfw.errors import Exit, FlashfwError, Problem, ProjectError

_PAINTED = re.compile(r"\x1b\[[0-9]*m")
_CODES = {"red": "31", "yellow": "33", "green": "32", "cyan": "36", "dim": "2", "bold": "1"}


def prepare() -> None:
    """Lets file names of any bytes be printed: what a terminal cannot show comes out as an escape.

    A stream that is closed (`>&-`) takes everything and shows nothing.
    """
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # for as long as the process lives


def line(text: str = "") -> None:
    """One line of the result, on stdout."""
    print(text)


def note(text: str = "") -> None:
    """One line beside the result, on stderr."""
    sys.stderr.write(f"{text}\n")  # print writes the end of the line by itself: another system call


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour (`red yellow green cyan dim bold`), where the stream shows colours.

    It does on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`. The default stream is stdout.
    """
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if shows_colours(stream or sys.stdout) else text


@functools.lru_cache(maxsize=4)
def shows_colours(stream: TextIO) -> bool:
    """Whether it is a terminal, and nobody forbids colours; decided once for each stream, since `dev` asks per line."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def printable(text: str) -> str:
    """The text with control characters escaped, so that a file's name cannot steer the terminal.

    >>> printable("endpoints/a\\x1b[2J")
    'endpoints/a\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def document(value: Any) -> None:
    """The one JSON document of a verb, on stdout."""
    print(json_text(value, indent=2))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON for stdout, in ASCII where that cannot show all of it: JSON has escapes of its own."""
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def problems(found: Iterable[Problem]) -> None:
    """Every problem, one per line and editor-clickable, then how many there are; nothing for none."""
    found = tuple(found)
    for problem in found:
        colour = "red" if problem.level == "error" else "yellow"
        prefix = "" if problem.level == "error" else "warning: "
        place = f"{paint(printable(problem.where), colour, sys.stderr)}: " if problem.file else ""
        bare = str(problem)[len(problem.where) + 2 :] if problem.file else str(problem)
        note(f"{place}{prefix}{printable(bare)}")
    if found:
        note(paint(tally(found), "bold", sys.stderr))


def tally(found: Sequence[Problem]) -> str:
    """How many problems there are, in words.

    >>> tally([Problem("a"), Problem("b", level="warning"), Problem("c")])
    '2 problems, 1 warning'
    """
    errors = sum(problem.level == "error" for problem in found)
    counts = [plural(errors, "problem")] if errors else []
    if warnings := len(found) - errors:
        counts.append(plural(warnings, "warning"))
    return ", ".join(counts) or "no problems"


def columns(rows: Sequence[Sequence[str]], *, right: int = 0) -> list[str]:
    """Rows of cells as aligned lines, the first `right` columns to the right; empty columns are left out.

    >>> columns([["a", "", "1"], ["bcd", "", "22"]], right=1)
    ['  a  1', 'bcd  22']
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            room = " " * (width - _width(cell))
            cells += [] if not width else [room + cell if place < right else cell + room]
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(cell: str) -> int:
    """How much of a line it takes: colours take nothing."""
    return len(_PAINTED.sub("", cell))


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "endpoint"), plural(3, "endpoint")
    ('1 endpoint', '3 endpoints')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def problem_json(problem: Problem) -> dict[str, Any]:
    """A problem as it stands in a `--json` document."""
    return {
        "level": problem.level,
        "what": problem.what,
        "file": problem.file or None,
        "line": problem.line,
        "column": problem.column,
        "hint": problem.hint or None,
        "also": [{"file": file, "line": number} for file, number in problem.also],
    }


def failure(error: FlashfwError, *, as_json: bool) -> None:
    """What a verb could not do: on stderr, and with `--json` as the document."""
    found = error.problems if isinstance(error, ProjectError) else ()
    if as_json:
        error_document(error.what, hint=error.hint, exit=error.exit, problems=found)
    if found:
        problems(found)
        return
    note(f"{paint('error:', 'red', sys.stderr)} {printable(error.what)}")
    if error.hint:
        note(f"  {printable(error.hint)}")


def error_document(what: str, *, exit: Exit, hint: str = "", problems: Sequence[Problem] = ()) -> None:
    """The document of a verb that failed."""
    reason = {"what": what, "hint": hint or None, "exit": int(exit)}
    document({"error": reason, "problems": [problem_json(problem) for problem in problems]})


def internal(error: Exception, arguments: Sequence[str], trace: str) -> None:
    """A defect of flashfw: short, with the way to the traceback."""
    note(f"{paint('internal error:', 'red', sys.stderr)} {type(error).__name__}: {printable(str(error))}")
    note(trace or f"  this is a defect of flashfw; for the traceback: flashfw -v {' '.join(arguments)}")
