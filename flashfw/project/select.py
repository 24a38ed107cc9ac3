"""Selection as in pytest: ids with everything below them, `-k EXPR` on node ids, `-m EXPR` on marks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from flashfw.errors import UsageError
from flashfw.manifest import Function, Manifest
from flashfw.project import names

Expression = Callable[[Callable[[str], bool]], bool]
"""A parsed expression: given what a single word means, whether the whole is true."""

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
_WORDS = ("and", "or", "not", "(", ")")
_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user asked for, ready to be put to one function after the other. Empty asks for all."""

    ids: tuple[str, ...] = ()
    keyword: Expression | None = None
    marks: Expression | None = None

    def takes(self, node: str, marks: Collection[str] = ()) -> bool:
        """Whether the function of that node id, with those marks, is selected."""
        if self.ids and not any(is_below(node, wanted) for wanted in self.ids):
            return False
        if self.keyword is not None and not self.keyword(lambda word: word.casefold() in node.casefold()):
            return False
        return self.marks is None or self.marks(lambda word: word in marks)


def parse(ids: Iterable[str] = (), *, keyword: str = "", marks: str = "") -> Selection:
    """The selection of a command line.

    >>> selection = parse(["api"], keyword="users and not delete")
    >>> [selection.takes(node) for node in ("api/users::get", "api/users::delete", "apis/users::get")]
    [True, False, False]

    Raises:
        UsageError: an expression is wrong; the message quotes it and names the column.
    """
    return Selection(
        tuple(normal(item) for item in ids),
        parse_expression(keyword, "-k") if keyword.strip() else None,
        parse_expression(marks, "-m") if marks.strip() else None,
    )


def is_below(node: str, wanted: str) -> bool:
    """Whether a node id is the wanted one or lies below it.

    >>> [is_below("api/users/_id_::get", wanted) for wanted in ("api", "api/users/_id_", "api/user", "")]
    [True, True, False, True]
    """
    return not wanted or node == wanted or node.startswith((f"{wanted}/", f"{wanted}::"))


def normal(text: str) -> str:
    """The node id of what a user typed or completed from the file system.

    >>> [normal(text) for text in ("api/users/", "endpoints/api/handler.py::get", "endpoints/handler.py", "endpoints")]
    ['api/users', 'api::get', 'index', '']
    """
    path, separator, name = text.strip().removeprefix("./").partition("::")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts[:1] == [names.ENDPOINTS]:
        parts = [names.INDEX] if parts[1:] == [names.HANDLER] else parts[1:]
    if len(parts) > 1 and parts[-1] == names.HANDLER:
        parts = parts[:-1]
    return f"{'/'.join(parts)}{separator}{name}"


def check_ids(selection: Selection, known: Collection[str]) -> None:
    """Refuses ids that select none of the `known` node ids of endpoints and functions.

    Raises:
        UsageError: with the closest known id.
    """
    unknown = [item for item in selection.ids if not any(is_below(node, item) for node in known)]
    if unknown:
        what = "no endpoint or function is called " + ", ".join(repr(item) for item in unknown)
        close = names.closest(unknown[0], known)
        raise UsageError(what, hint=f"did you mean {close!r}?" if close else "`flashfw collect` lists the ids")


def functions(manifest: Manifest, selection: Selection) -> tuple[Function, ...]:
    """The selected functions of a manifest, in its order.

    Raises:
        UsageError: an id selects nothing.
    """
    check_ids(selection, _known(manifest))
    found = (function for endpoint in manifest.endpoints for function in endpoint.functions)
    return tuple(function for function in found if selection.takes(function.id, function.marks))


def narrow(manifest: Manifest, selection: Selection) -> Manifest:
    """The manifest with the selected functions only; endpoints left without one are dropped.

    An id that selects nothing is none of its business: it may belong to an endpoint that is broken
    for now. `check_ids` refuses it where a user typed it.
    """
    narrowed = (
        replace(endpoint, functions=tuple(item for item in endpoint.functions if selection.takes(item.id, item.marks)))
        for endpoint in manifest.endpoints
    )
    return replace(manifest, endpoints=tuple(endpoint for endpoint in narrowed if endpoint.functions))


def _known(manifest: Manifest) -> tuple[str, ...]:
    ids = (node for item in manifest.endpoints for node in (item.id, *(function.id for function in item.functions)))
    return tuple(dict.fromkeys(ids))


def parse_expression(text: str, option: str = "-k") -> Expression:
    """Reads `and`, `or`, `not`, parentheses and words; `not` binds strongest, then `and`.

    >>> expression = parse_expression("a and not (b or c)")
    >>> expression({"a"}.__contains__), expression({"a", "c"}.__contains__)
    (True, False)

    Raises:
        UsageError: with the column of what is wrong.
    """
    return _Parser(text, option).whole()


class _Parser:
    """One pass over the words of an expression, by recursive descent."""

    def __init__(self, text: str, option: str) -> None:
        self.text = text
        self.option = option
        self.words: Sequence[re.Match[str]] = list(_TOKEN.finditer(text))
        self.at = 0
        self.depth = 0

    def whole(self) -> Expression:
        expression = self.either()
        if self.peek():
            raise self.error("'and', 'or' or the end")
        return expression

    def either(self) -> Expression:
        parts = [self.both()]
        while self.take("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda holds: any(part(holds) for part in parts)

    def both(self) -> Expression:
        parts = [self.single()]
        while self.take("and"):
            parts.append(self.single())
        return parts[0] if len(parts) == 1 else lambda holds: all(part(holds) for part in parts)

    def single(self) -> Expression:
        negative = False
        while self.take("not"):
            negative = not negative
        inner = self.group() if self.take("(") else self.word()
        return (lambda holds: not inner(holds)) if negative else inner

    def group(self) -> Expression:
        self.depth += 1
        if self.depth > _DEPTH:
            raise UsageError(f"{self.option} {self.text!r}: more than {_DEPTH} parentheses inside each other")
        expression = self.either()
        if not self.take(")"):
            raise self.error("')'")
        self.depth -= 1
        return expression

    def word(self) -> Expression:
        word = self.peek()
        if not word or word in _WORDS:
            raise self.error("a name")
        self.at += 1
        return lambda holds: holds(word)

    def peek(self) -> str:
        return self.words[self.at].group(1) if self.at < len(self.words) else ""

    def take(self, word: str) -> bool:
        taken = self.peek() == word
        self.at += taken
        return taken

    def error(self, expected: str) -> UsageError:
        found = self.words[self.at] if self.at < len(self.words) else None
        column = found.start(1) + 1 if found else len(self.text) + 1
        what = f"{self.option} {self.text!r}: expected {expected} at column {column}"
        return UsageError(f"{what}, found {found.group(1)!r}" if found else f"{what}, where it ends")
