"""Fixtures and who takes them, read from the source: what is certain to fail is a problem before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.project import root
from flashfw.project.annotations import type_name
from flashfw.project.collect import collect
from flashfw.project.fixtures import Fixtures, Spot
from flashfw.project.model import Definition, FixtureFile, Parameter, Project
from tests.project import shop

FIXTURES = "def model(): ...\ndef users(model): ...\n"


def collected(folder: Path, handler: str, fixtures: str = FIXTURES, **files: str) -> Project:
    tree = {"endpoints/a/handler.py": handler, "endpoints/a/fixtures.py": fixtures, **files}
    return collect(root.find(shop.write(folder, {name: text for name, text in tree.items() if text})))


@pytest.mark.parametrize(
    "handler",
    [
        "def handler(prompt: str, model): ...",
        "def handler(prompt: str, model=injected): ...",
        "def handler(model: str = injected): ...",
        "def handler(model: str = flashfw.injected): ...",
        "def handler(model: Model | None): ...",
        "def handler(model: 'Model'): ...",
        "def handler(modle): ...",
        "def handler(job: Job, request: 'Request | None', rest: Annotated[dict, x]): ...",
        "def handler(*model, **users): ...",
        "@anything\ndef handler(x=injected): ...",
        "handler = make()",
        "class handler:\n    def __init__(self, model, size=3): ...\n    def __call__(self, prompt, users): ...",
        "class handler(Base):\n    def __call__(self, prompt: str): ...",
        "def app(scope, receive, send): ...",
        "def app(users): ...",
        "app = make()",
        "def get(model: Annotated[Model, 1], q: str = ''): ...",
    ],
)
def test_nothing_is_wrong(tmp_path: Path, handler: str) -> None:
    assert collected(tmp_path, handler).problems == ()


@pytest.mark.parametrize(
    ("handler", "what"),
    [
        (
            "\ndef handler(modle=injected): ...",
            "handler.py:2: 'a': no fixture named 'modle'; did you mean 'model'?",
        ),
        (
            "def handler(x, *, zzz=flashfw.injected): ...",
            "handler.py:1: 'a': no fixture named 'zzz'; fixtures here: model, users",
        ),
        (
            "def handler(model: str): ...",
            "handler.py:1: 'a': 'model' is a fixture (endpoints/a/fixtures.py:1), but its annotation str reads like an "
            "input; write 'model: str = injected', or rename the parameter",
        ),
        (
            "def get(users: list[str] | None = None): ...",
            "handler.py:1: 'a::get': 'users' is a fixture (endpoints/a/fixtures.py:2), but its annotation list reads "
            "like an input; write 'users: list[str] | None = injected', or rename the parameter",
        ),
        (
            "class handler:\n    def __init__(self, size): ...\n    def __call__(self): ...",
            "handler.py:1: 'a': no fixture named 'size'; a class is made once per worker, from fixtures",
        ),
        (
            "class handler:\n    def up(self, usres=injected): ...",
            "handler.py:2: 'a::up': no fixture named 'usres'; did you mean 'users'?",
        ),
        (
            "def app(config): ...",
            "handler.py:1: 'a': no fixture named 'config'; an application is made once per worker, from fixtures",
        ),
        (
            "route = '/a/{model}'\ndef get(model): ...",
            "handler.py:2: 'a::get': takes 'model', a path parameter and a fixture; rename one of them",
        ),
    ],
)
def test_what_is_certain_to_fail_is_told_with_its_line(tmp_path: Path, handler: str, what: str) -> None:
    project = collected(tmp_path, handler)

    assert [str(problem) for problem in project.problems] == [f"endpoints/a/{what}"]
    assert project.endpoints[0].broken


def test_without_any_fixture_the_mend_is_to_write_one(tmp_path: Path) -> None:
    (problem,) = collected(tmp_path, "def handler(model=injected): ...", fixtures="").problems

    assert problem.hint == "write `def model()` in a fixtures.py beside it or above"


@pytest.mark.parametrize(
    ("fixtures", "what"),
    [
        (
            "def model(weigths): ...\ndef weights(): ...",
            "fixtures.py:1: fixture 'model': no fixture named 'weigths'; did you mean 'weights'?",
        ),
        (
            "def model(users): ...\n\ndef users(zzz=injected): ...",
            "fixtures.py:3: fixture 'users': no fixture named 'zzz'; fixtures here: model",
        ),
        ("def model(model): ...", "fixtures.py:1: fixture 'model': no fixture named 'model'; write `def model()`"),
        (
            "def model(a): ...\ndef a(b): ...\n\ndef b(model): ...",
            "fixtures.py:2: fixtures take one another in a circle: a -> b -> model -> a (endpoints/a/fixtures.py:4, "
            "endpoints/a/fixtures.py:1); take one of them apart",
        ),
    ],
)
def test_a_fixture_that_cannot_be_built_is_told_once_at_its_place(tmp_path: Path, fixtures: str, what: str) -> None:
    more = {"endpoints/a/b/handler.py": "def handler(model): ...", "endpoints/c/handler.py": shop.JOB}
    project = collected(tmp_path, "def handler(model): ...", fixtures, **more)

    (problem,) = project.problems
    assert str(problem).startswith(f"endpoints/a/{what}")
    assert [(tree.id, tree.broken) for tree in project.endpoints] == [("a", True), ("c", False)]


@pytest.mark.parametrize(
    "fixtures",
    [
        "def model(_x=1, size=3, *args, **kw): ...\ndef read(path): ...",  # `read` is a plain function of the file
        "def model(job: Job, request: Request): ...",
        "@cached\ndef model(whatever): ...",
        "def model(x): ...\nmodel = partial(model, 1)",
        "def model(weights: str): ...\ndef weights() -> str: ...",
        "if fast:\n    def model(): ...\nelse:\n    def model(size): ...\n    model = partial(model, 3)",
        "def model(): ...\ndef _model(model): ...",
    ],
)
def test_a_fixture_that_can_be_built(tmp_path: Path, fixtures: str) -> None:
    assert collected(tmp_path, "def handler(model): ...", fixtures).problems == ()


def test_a_circle_that_nobody_takes_is_a_warning(tmp_path: Path) -> None:
    project = collected(tmp_path, shop.JOB, "def a(b): ...\ndef b(a): ...")

    assert [(problem.level, problem.line) for problem in project.problems] == [("warning", 1)]
    assert not project.endpoints[0].broken


def test_only_who_takes_a_broken_fixture_is_broken(tmp_path: Path) -> None:
    files = {
        "endpoints/fixtures.py": "def shared(nothing): ...\ndef fine(): ...",
        "endpoints/b/handler.py": "def handler(fine): ...",
    }
    project = collected(tmp_path, "def handler(shared): ...", "", **files)
    manifest, _ = shop.compiled(tmp_path)

    assert [(tree.id, tree.broken) for tree in project.endpoints] == [("a", True), ("b", False)]
    assert [endpoint.id for endpoint in manifest.endpoints] == ["b"]


def test_the_nearest_fixture_wins_and_may_take_the_one_above_it(tmp_path: Path) -> None:
    above = {"endpoints/fixtures.py": "def model(): ...\ndef weights(model): ..."}

    assert collected(tmp_path, "def handler(model, weights): ...", "def model(model): ...", **above).problems == ()


def test_a_fixture_of_a_neighbour_is_out_of_reach(tmp_path: Path) -> None:
    files = {"endpoints/b/fixtures.py": "def other(): ...", "endpoints/b/handler.py": "def handler(other): ..."}

    assert [problem.line for problem in collected(tmp_path, "def handler(other=injected): ...", **files).problems] == [
        1
    ]


def test_nothing_is_told_of_names_while_a_fixtures_file_does_not_parse(tmp_path: Path) -> None:
    project = collected(tmp_path, "def handler(modle=injected): ...", "def model(:\n")

    assert [problem.where for problem in project.problems] == ["endpoints/a/fixtures.py:1"]
    assert project.endpoints[0].broken


def test_a_broken_middleware_breaks_http_alone(tmp_path: Path) -> None:
    files = {"endpoints/middleware.py": "def (", "endpoints/b/handler.py": shop.HTTP}

    project = collected(tmp_path, shop.JOB, **files)

    assert [(tree.id, tree.broken) for tree in project.endpoints] == [("a", False), ("b", True)]


NAMES = st.sampled_from(["a", "b", "c", "d"])
FILES = st.dictionaries(
    st.sampled_from(["", "x", "x/y"]), st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True)), max_size=3
)


@given(FILES)
def test_a_circle_is_found_exactly_where_a_fixture_reaches_itself(tree: dict[str, dict[str, list[str]]]) -> None:
    fixtures = Fixtures(
        FixtureFile(path, f"{path}/fixtures.py", tuple(
            Definition(name, 1, "function", tuple(Parameter(taken) for taken in takes))
            for name, takes in found.items()
        ))
        for path, found in tree.items()
    )  # fmt: skip
    spots = [Spot(path, name) for path, found in tree.items() for name in found]

    for spot in spots:
        needed = fixtures.needs(spot)[0]
        reaches_itself = any(spot in fixtures.reach(one) for one in needed)
        circle = fixtures.circle(spot)
        assert bool(circle) == reaches_itself
        assert not circle or (spot in circle and circle[0] == min(circle))
        for one, other in zip(circle, (*circle[1:], *circle[:1]), strict=True):
            assert other in fixtures.needs(one)[0]
        for one in needed:
            assert spot.path == one.path or f"{spot.path}/".startswith(f"{one.path}/") or not one.path


@given(st.text(max_size=20))
def test_any_text_has_a_type_name_or_none(text: str) -> None:
    assert isinstance(type_name(text), str)
