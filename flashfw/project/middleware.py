"""What a middleware.py has to say, told from its source alone, and whom it is around."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from flashfw.errors import Problem
from flashfw.project import names, routes
from flashfw.project.model import Definition
from flashfw.project.source import Source

FUNCTION = "middleware"
ERRORS = "errors"
SIGNED = frozenset({FUNCTION, ERRORS})
_WRITE = "write `async def middleware(request, call_next)`, or `middleware = [Middleware(...)]`"


def around(path: str, files: Mapping[str, Container[str]]) -> tuple[str, ...]:
    """The middleware.py files around what a directory below `endpoints/` defines, the outermost first.

    >>> around("api/users", {"endpoints": ["middleware.py"], "endpoints/api/users": ["middleware.py"]})
    ('endpoints/middleware.py', 'endpoints/api/users/middleware.py')
    """
    above = reversed(tuple(names.upwards(path)))
    return tuple(
        routes.file(it, names.MIDDLEWARE) for it in above if names.MIDDLEWARE in files.get(routes.directory(it), ())
    )


def flaws(file: str, source: Source, *, is_used: bool) -> Iterator[Problem]:
    """What is wrong with a middleware.py; `is_used` tells whether anything in or below its directory is HTTP."""
    found = [source.definitions[name] for name in (FUNCTION, ERRORS) if name in source.definitions]
    if not found:
        yield _nothing(file, source)
    for item in found:
        if flaw := _function_flaw(item) if item.name == FUNCTION else _errors_flaw(item):
            yield Problem(flaw[0], file, item.line, hint=flaw[1])
    if found and not is_used:
        what = "has no effect: there is no HTTP function in or below its directory, and jobs have no middleware"
        yield Problem(what, file, found[0].line, hint="remove it, or move it to an HTTP endpoint", level="warning")


def _nothing(file: str, source: Source) -> Problem:
    for item in source.definitions.values():
        meant = names.closest(item.name.lower(), sorted(SIGNED), cutoff=0.75)
        if meant and item.form != "import":
            return Problem(
                f"defines {item.name!r}, but neither 'middleware' nor 'errors'",
                file,
                item.line,
                hint=f"did you mean {meant!r}?",
            )
    return Problem("defines neither 'middleware' nor 'errors'", file, 1, hint=f"{_WRITE}, or `errors = {{...}}`")


def _function_flaw(item: Definition) -> tuple[str, str] | None:
    if item.form == "class":
        return "'middleware' is a class", "write `middleware = [Middleware(THE_CLASS)]`"
    if item.form != "function" or item.parameters is None:
        return None  # an assignment, or a decorator: the source does not tell
    if not item.is_async:
        return "'middleware' must be async, since it awaits `call_next(request)`", _WRITE
    taken = [parameter for parameter in item.parameters if parameter.kind in ("positional", "args")]
    required = [it for it in item.parameters if not it.has_default and it.kind in ("positional", "keyword")]
    takes_two = len(taken) >= 2 or any(it.kind == "args" for it in taken)
    if not takes_two or len(required) > 2 or any(it.kind == "keyword" for it in required):
        return "'middleware' takes exactly the request and `call_next`: no fixtures, no input", _WRITE
    return None


def _errors_flaw(item: Definition) -> tuple[str, str] | None:
    if item.form in ("function", "class"):
        return f"'errors' is a {item.form}", "write `errors = {ValueError: function}`"
    return None
