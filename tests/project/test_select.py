"""Selection by ids, words and marks."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.errors import UsageError
from flashfw.manifest import Endpoint, Function, Manifest
from flashfw.project import select

NODES = {
    "api": ["api::get", "api/users::get", "api/users/_id_::get", "api/users/_id_::delete"],
    "apis": ["apis"],
    "gpu": ["gpu", "gpu/upscale", "gpu::fast"],
    "index": ["index::get"],
}
MARKS = {"gpu/upscale": ("slow", "images"), "apis": ("slow",)}


def function(node: str) -> Function:
    marks = MARKS.get(node, ())
    return Function(id=node, kind="job", module="m", attribute="a", file="f", line=1, route="/", marks=marks)


MANIFEST = Manifest(
    project="shop",
    environment="dev",
    endpoints=tuple(
        Endpoint(
            id=name, kind="job", directory="d", python="3.11", fingerprint="f", functions=tuple(map(function, nodes))
        )
        for name, nodes in NODES.items()
    ),
)


def chosen(*ids: str, keyword: str = "", marks: str = "") -> list[str]:
    found = select.functions(MANIFEST, select.parse(ids, keyword=keyword, marks=marks))
    return [item.id for item in found]


ALL = [node for nodes in NODES.values() for node in nodes]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ((), ALL),
        (("api",), NODES["api"]),
        (("api/users",), NODES["api"][1:]),
        (("api/users/_id_::get",), ["api/users/_id_::get"]),
        (("gpu",), NODES["gpu"]),
        (("gpu::fast", "apis"), ["apis", "gpu::fast"]),
        (("endpoints/api/users/handler.py::get",), ["api/users::get"]),
        (("./endpoints/gpu/upscale/",), ["gpu/upscale"]),
        (("endpoints/handler.py",), ["index::get"]),
        (("endpoints",), ALL),
    ],
)
def test_an_id_selects_itself_and_all_below(ids: tuple[str, ...], wanted: list[str]) -> None:
    assert chosen(*ids) == wanted


@pytest.mark.parametrize(
    ("typed", "close"), [("gpu_", "gpu"), ("api/user", "api/users"), ("api::gett", "api::get"), ("apis::get", "api")]
)
def test_an_unknown_id_is_refused_with_the_closest(typed: str, close: str) -> None:
    with pytest.raises(UsageError, match=f"no endpoint or function is called '{typed}'; did you mean '{close}"):
        chosen(typed)


def test_an_id_like_nothing_is_sent_to_the_list() -> None:
    with pytest.raises(UsageError, match="`flashfw collect` lists the ids"):
        chosen("gpu", "zzzzzz")


@pytest.mark.parametrize(
    ("keyword", "wanted"),
    [
        ("users", NODES["api"][1:]),
        ("USERS and not _id_", ["api/users::get"]),
        ("fast or upscale", ["gpu/upscale", "gpu::fast"]),
        ("not (api or gpu)", ["index::get"]),
        ("not not fast", ["gpu::fast"]),
        ("::get and(index or apis)", ["index::get"]),
        ("nothing", []),
    ],
)
def test_words_are_looked_for_in_node_ids(keyword: str, wanted: list[str]) -> None:
    assert chosen(keyword=keyword) == wanted


def test_marks_are_matched_whole_and_all_filters_hold_together() -> None:
    assert chosen(marks="slow") == ["apis", "gpu/upscale"]
    assert chosen(marks="slow and not images") == ["apis"]
    assert chosen(marks="slo") == []
    assert chosen("gpu", keyword="up", marks="slow") == ["gpu/upscale"]


def test_narrowing_drops_endpoints_without_a_function() -> None:
    narrowed = select.narrow(MANIFEST, select.parse(["gpu::fast", "index"]))

    assert [(item.id, len(item.functions)) for item in narrowed.endpoints] == [("gpu", 1), ("index", 1)]
    assert select.narrow(MANIFEST, select.parse()) == MANIFEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("and", "-k 'and': expected a name at column 1, found 'and'"),
        ("a and", "expected a name at column 6, where it ends"),
        ("a b", "expected 'and', 'or' or the end at column 3, found 'b'"),
        ("(a", r"expected '\)' at column 3, where it ends"),
        ("a)", r"expected 'and', 'or' or the end at column 2, found '\)'"),
        ("()", r"expected a name at column 2, found '\)'"),
        ("not", "expected a name at column 4"),
        ("a or or b", "expected a name at column 6, found 'or'"),
        ("(" * 60 + "a" + ")" * 60, "more than 50 parentheses"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_column(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select.parse(keyword=text)


EXPRESSION = st.recursive(
    st.sampled_from("abc"),
    lambda inner: st.one_of(
        inner.map("not {}".format),
        inner.map("({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
    ),
    max_leaves=12,
)


@given(EXPRESSION, st.sets(st.sampled_from("abc")))
def test_expressions_mean_what_they_mean_in_python(text: str, true: set[str]) -> None:
    expected = eval(text, {name: name in true for name in "abc"})

    assert select.parse_expression(text)(true.__contains__) is expected


@given(st.text(st.sampled_from("ab ()\t") | st.characters(), max_size=20))
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        expression = select.parse_expression(text)
        assert expression(lambda word: True) in (True, False)


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_below_is_an_order(one: str, other: str) -> None:
    assert select.is_below(one, one)
    if select.is_below(one, other) and select.is_below(other, one):
        assert one == other
