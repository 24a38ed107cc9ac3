"""What a worker does about saved files: the rule, without a worker."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.manifest import Endpoint, Variable
from flashfw.worker.reload import Anew, Module, Restart, decide, imports
from tests.worker.harness import endpoint, http, job

SOURCES = {
    "endpoints/a/handler.py": "from lib import words\nfrom lib.far import x\ndef handler(): ...\n",
    "endpoints/a/other/handler.py": "def handler():\n    import lib.lazy\n",
    "endpoints/fixtures.py": "from .weights import load\n",
    "endpoints/weights.py": "import lib.deep as deep\n",
    "lib/words.py": "from lib.common import y\n",
    "lib/common.py": "y = 1\n",
    "lib/far.py": "x = 1\n",
    "lib/lazy.py": "",
    "lib/deep.py": "",
    "lib/pack/__init__.py": "from .inner import z\n",
    "lib/pack/inner.py": "",
}
ENDPOINT = endpoint(job("a"), job("a/other"))


def name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {name(file): Module(name(file), file, source.encode()) for file, source in SOURCES.items()}


def after(*saved: str, now: Endpoint = ENDPOINT, before: Endpoint = ENDPOINT) -> Anew | Restart:
    return decide(before, now, saved=saved, modules=MODULES)


@pytest.mark.parametrize(
    ("saved", "anew"),
    [
        ("endpoints/a/handler.py", ["endpoints.a.handler"]),
        ("lib/far.py", ["endpoints.a.handler", "lib.far"]),
        ("lib/common.py", ["endpoints.a.handler", "lib.common", "lib.words"]),
        ("lib/lazy.py", ["endpoints.a.other.handler", "lib.lazy"]),
        ("README.md", []),
        ("lib/not_loaded.py", []),
        ("lib/fixtures.py", []),
    ],
)
def test_what_changed_and_what_imports_it_is_imported_anew(saved: str, anew: list[str]) -> None:
    assert after(saved) == Anew(frozenset(anew))


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ("endpoints/fixtures.py", "endpoints/fixtures.py: fixtures are built anew"),
        ("endpoints/weights.py", "endpoints/weights.py: endpoints/fixtures.py imports it"),
        ("lib/deep.py", "lib/deep.py: endpoints/fixtures.py imports it"),
        ("endpoints/a/fixtures.py", "endpoints/a/fixtures.py: it came or went"),
        ("endpoints/middleware.py", "endpoints/middleware.py: it came or went"),
        ("lib/pack/__init__.py", "lib/pack/__init__.py: a package is imported with all that is in it"),
        ("lib/pack/inner.py", "lib/pack/inner.py: lib/pack/__init__.py imports it"),
    ],
)
def test_what_cannot_be_imported_anew_asks_for_a_new_process(saved: str, why: str) -> None:
    assert after("endpoints/a/handler.py", saved) == Restart(why)


def test_special_files_elsewhere_are_nobodys() -> None:
    assert after("endpoints/b/fixtures.py") == Anew(frozenset())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"concurrency": 2}, "its configuration changed"),
        ({"env": (Variable(name="A", value="1"),)}, "its configuration changed"),
        ({"environment": "k2"}, "its configuration changed"),
        ({"command": ("serve",)}, "its command is started anew"),
        ({"functions": (http("a", "*", route="/a", directory="a"),)}, "a mounted application starts anew"),
        (
            {"functions": (dataclasses.replace(job("a"), middleware=("endpoints/middleware.py",)),)},
            "middleware came or went",
        ),
    ],
)
def test_what_a_process_begins_with_asks_for_a_new_one(changes: dict[str, object], why: str) -> None:
    assert after(now=dataclasses.replace(ENDPOINT, **changes)) == Restart(why)  # type: ignore[arg-type]


def test_functions_come_go_and_change_in_a_running_worker() -> None:
    now = dataclasses.replace(ENDPOINT, functions=(job("a", "other"), job("a::new", "new", directory="a")))

    assert after("endpoints/a/handler.py", now=now) == Anew(frozenset(["endpoints.a.handler"]))


def test_a_preloaded_module_stays() -> None:
    before = dataclasses.replace(ENDPOINT, preload=("lib.far",))

    assert after("lib/far.py", now=before, before=before) == Restart("lib/far.py: it is preloaded")


FILES = ["endpoints/handler.py", "endpoints/fixtures.py", "lib/one.py", "lib/two.py", "lib/three.py", "lib/four.py"]


@given(
    st.dictionaries(st.sampled_from(FILES), st.sets(st.sampled_from(FILES))),
    st.sets(st.sampled_from(FILES)),
)
def test_no_module_that_stays_has_imported_one_that_changed(graph: dict[str, set[str]], saved: set[str]) -> None:
    source = {file: "".join(f"import {name(other)}\n" for other in graph.get(file, ())) for file in FILES}
    modules = {name(file): Module(name(file), file, text.encode()) for file, text in source.items()}
    decided = decide(ENDPOINT, ENDPOINT, saved=saved, modules=modules)

    stale = {name(file) for file in saved}
    while more := {name(file) for file in FILES if {name(to) for to in graph.get(file, ())} & stale} - stale:
        stale |= more
    if "endpoints.fixtures" in stale:
        assert isinstance(decided, Restart)
    else:
        assert decided == Anew(frozenset(stale))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b, c as d", {"a.b", "c"}),
        ("from a import b", {"a", "a.b"}),
        ("from . import b", {"p.q", "p.q.b"}),
        ("from ..r import b", {"p.r", "p.r.b"}),
        ("if x:\n    def f():\n        from .s import t", {"p.q.s", "p.q.s.t"}),
        ("no python", set()),
        ("x = '\x00'", set()),
    ],
)
def test_the_imports_of_a_source(source: str, found: set[str]) -> None:
    assert imports(source.encode(), "p.q.module", is_package=False) == found
    inside = imports(source.encode(), "p.q", is_package=True)
    assert inside == found
