"""The scanner against `tomllib`: whatever that reads has a position, and the position is the key's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from flashfw.errors import Problem
from flashfw.project.tomlkeys import Document, KeyPath, Position, load, parse, positions

KEYS = st.one_of(
    st.sampled_from(["a", "b", "gpu", "on", "x-1", "0", "true"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
SCALARS = st.one_of(
    st.sampled_from(["1", "-0.5", "1e3", "true", "inf", "1979-05-27 07:32:00", "0x1F", "07:32:00.5", "'C:\\x'"]),
    st.sampled_from(
        ['"""a\n[b]\nc = 1 # no"""', "'''\n[x]\n''y'''", '""', "''", '"""""a"" """', '"# ] } = ["', "'\"'"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(json.dumps),
)
SPACE = st.sampled_from(["", " ", "\t", "  "])
BREAK = st.sampled_from(["", " ", "\n", "\n  # ] x = 1\n", "\r\n"])


def spell(key: str, quoted: bool) -> str:
    bare = key and all(char.isascii() and (char.isalnum() or char in "_-") for char in key)
    return key if bare and not quoted else json.dumps(key).replace("\x7f", "\\u007f")


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    form = draw(st.integers(0, 3)) if depth else 0
    if form < 2:
        return draw(SCALARS).replace("\x7f", "\\u007f")
    if form == 2:
        items = draw(st.lists(values(depth - 1), max_size=3))
        text = "".join(f"{draw(BREAK)}{item}{draw(BREAK)}," for item in items)
        return f"[{text}{draw(BREAK)}]"
    keys = draw(st.lists(KEYS, max_size=3, unique=True))
    pairs = [f"{spell(key, draw(st.booleans()))}{draw(SPACE)}={draw(SPACE)}{draw(values(depth - 1))}" for key in keys]
    return "{" + draw(SPACE) + f"{draw(SPACE)},{draw(SPACE)}".join(pairs) + draw(SPACE) + "}"


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A pair, a header, or a header of an array of tables."""
    keys = draw(st.lists(KEYS, min_size=1, max_size=3))
    dotted = f"{draw(SPACE)}.{draw(SPACE)}".join(spell(key, draw(st.booleans())) for key in keys)
    form = draw(st.integers(0, 4))
    if form == 0:
        return f"{draw(SPACE)}[{draw(SPACE)}{dotted}{draw(SPACE)}]"
    if form == 1:
        return f"[[{dotted}]] # [[no]]"
    return f"{draw(SPACE)}{dotted}{draw(SPACE)}={draw(SPACE)}{draw(values())}{draw(SPACE)}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Valid texts: a line that contradicts the ones before it is left out."""
    text = ""
    for line in draw(st.lists(lines(), max_size=8)):
        longer = f"{text}{line}{draw(st.sampled_from([chr(10), chr(10) * 2, chr(13) + chr(10)]))}"
        text = longer if accepted(longer) is not None else text
    return text


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*path, index))


def accepted(text: str) -> dict[str, Any] | None:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError:
        return None


def key_at(text: str, position: Position) -> str:
    """What a parser reads as the key that begins at a position."""
    line = text.replace("\r\n", "\n").split("\n")[position.line - 1][position.column - 1 :]
    for end in range(1, len(line) + 1):
        data = accepted(f"{line[:end]} = 0")
        rest = line[end:].lstrip()
        if data is not None and len(data) == 1 and (not rest or rest[0] in ".=]") and next(iter(data.values())) == 0:
            return next(iter(data))
    raise AssertionError(f"no key at {position} of {text!r}")


@given(documents())
def test_every_key_that_a_parser_reads_has_a_position_and_no_other(text: str) -> None:
    assert set(paths(tomli.loads(text))) == set(positions(text))


@given(documents())
def test_a_position_points_at_its_key(text: str) -> None:
    for path, position in positions(text).items():
        if isinstance(path[-1], str):
            assert key_at(text, position) == path[-1]


@given(values(), st.integers(0, 5))
def test_any_value_is_passed_over_whole(value: str, blank: int) -> None:
    text = "\n" * blank + f"first = {value}\nsecond = 1\n"
    data = accepted(text)
    if data is not None:
        assert positions(text)[("second",)] == Position(blank + value.replace("\r\n", "\n").count("\n") + 2, 1)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("a = 1", ("a",), (1, 1)),
        ("[t]\n  a = 1", ("t", "a"), (2, 3)),
        ("x = [\n  1,\n  # no\n  2 ]", ("x", 1), (4, 3)),
        ("[[s]]\nc = 1\n[[s]]\nc = 2", ("s", 1, "c"), (4, 1)),
        ("[[s]]\n[s.t]\nq = 1\n[[s]]\n[s.t]\nq = 2", ("s", 1, "t", "q"), (6, 1)),
        ('on.prod.gpu = ["L40S", "A40"]', ("on", "prod", "gpu", 1), (1, 24)),
        ("v = {name = 'x', size = 1}", ("v", "size"), (1, 18)),
        ('"a.b" = 1', ("a.b",), (1, 1)),
        ('"\\u0061" = 1', ("a",), (1, 1)),
    ],
)
def test_places(text: str, path: KeyPath, expected: tuple[int, int]) -> None:
    assert positions(text)[path] == expected


def test_a_place_that_is_not_written_is_that_of_what_is_around_it() -> None:
    document = parse("x.toml", "\n[retries]\nbackoff = 1")

    assert isinstance(document, Document)
    assert document.position(("retries", "max")) == Position(2, 2)
    assert document.position(("nothing",)) == Position(1, 1)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = ", 2),
        ("a = 1\na = 2", 2),
        ("\n\n[x\n", 3),
        ('a = """\nnever closed\n', 2),
        ("a = " + "[" * 20_000, 1),
    ],
)
def test_a_syntax_error_is_a_problem_with_its_line(text: str, line: int) -> None:
    problem = parse("endpoints/a/endpoint.toml", text)

    assert isinstance(problem, Problem)
    assert problem.what.startswith("not TOML: ")
    assert (problem.file, problem.line) == ("endpoints/a/endpoint.toml", line)


def test_a_file_that_is_no_text_is_a_problem_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "endpoint.toml").write_bytes(b'a = 1\nb = "\xff"')

    assert str(load(tmp_path, "endpoint.toml")) == "endpoint.toml:2: is not UTF-8: byte 0xff; save it as UTF-8"


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "endpoint.toml").mkdir()

    problem = load(tmp_path, "endpoint.toml")

    assert isinstance(problem, Problem)
    assert problem.what == "is no regular file"
