"""Directories to URLs, letter for letter, and URLs to what they have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.project import routes

COMPONENT = st.from_regex(r"[a-z][a-z0-9_]*|_[a-z][a-z0-9]*_", fullmatch=True)
PATH = st.lists(COMPONENT, min_size=1, max_size=5).map("/".join)


@pytest.mark.parametrize(
    ("path", "route", "module", "file"),
    [
        ("", "/", "endpoints.handler", "endpoints/handler.py"),
        ("gpu_a100", "/gpu_a100", "endpoints.gpu_a100.handler", "endpoints/gpu_a100/handler.py"),
        ("a/b/c", "/a/b/c", "endpoints.a.b.c.handler", "endpoints/a/b/c/handler.py"),
        ("users/_id_", "/users/{id}", "endpoints.users._id_.handler", "endpoints/users/_id_/handler.py"),
        ("_t_/x/_u_", "/{t}/x/{u}", "endpoints._t_.x._u_.handler", "endpoints/_t_/x/_u_/handler.py"),
        ("a_b_", "/a_b_", "endpoints.a_b_.handler", "endpoints/a_b_/handler.py"),
        ("index", "/index", "endpoints.index.handler", "endpoints/index/handler.py"),
    ],
)
def test_a_directory_is_a_route_a_module_and_a_file(path: str, route: str, module: str, file: str) -> None:
    assert (routes.route(path), routes.module(path), routes.file(path)) == (route, module, file)


@pytest.mark.parametrize(
    ("path", "name", "node"),
    [
        ("gpu_a100", "", "gpu_a100"),
        ("gpu_a100/upscale", "", "gpu_a100/upscale"),
        ("gpu_a100", "method", "gpu_a100::method"),
        ("api/users/_id_", "get", "api/users/_id_::get"),
        ("", "get", "index::get"),
        ("", "", "index"),
    ],
)
def test_node_ids_are_what_people_paste(path: str, name: str, node: str) -> None:
    assert routes.node_id(path, name) == node


@pytest.mark.parametrize(
    ("route", "erased"),
    [
        ("/", "/"),
        ("/users", "/users"),
        ("/users/{id}", "/users/{}"),
        ("/users/{id:str}", "/users/{}"),
        ("/users/{id:int}", "/users/{:int}"),
        ("/files/{path:path}", "/files/{:path}"),
        ("/{a}/{b}", "/{}/{}"),
        ("/v-{major}.{minor}", "/v-{}.{}"),
    ],
)
def test_erasing_leaves_the_shape_of_a_route(route: str, erased: str) -> None:
    assert routes.erase(route) == erased


@pytest.mark.parametrize(
    "route",
    ["/", "/a", "/a/", "/files/{path:path}", "/{a}/{b:int}", "/.well-known/x.json", "/v-{n:float}", "/~me/@x", "/v2x"],
)
def test_a_route_of_ones_own_may_be(route: str) -> None:
    assert routes.flaw(route) is None


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("", "begin with '/'"),
        ("files", "begin with '/'"),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("/a?b=1", "'?'"),
        ("/a#b", "'#'"),
        ("/a b", "' '"),
        ("/ä", "'ä'"),
        ("/a\x00", "'\\x00'"),
        ("/{", "braces"),
        ("/}", "braces"),
        ("/{a}}", "braces"),
        ("/{}", "no name"),
        ("/{1}", "no name"),
        ("/{a-b}", "no name"),
        ("/{a:int8}", "no conversion"),
        ("/v2", "belongs to flashfw"),
        ("/v2/x", "belongs to flashfw"),
        ("/docs", "belongs to flashfw"),
        ("/openapi.json", "belongs to flashfw"),
        ("/_flashfw/jobs", "belongs to flashfw"),
    ],
)
def test_a_route_that_cannot_be_says_why(route: str, reason: str) -> None:
    assert reason in (routes.flaw(route) or "")


@pytest.mark.parametrize(
    ("route", "name"), [("/a/{id}", None), ("/{id}/{id}", "id"), ("/{id}/a/{id:int}", "id"), ("/{a}/{b}/{a}", "a")]
)
def test_a_name_twice_in_one_route_is_found(route: str, name: str | None) -> None:
    assert routes.repeated(route) == name


@given(PATH)
def test_a_route_keeps_every_letter_of_its_path(path: str) -> None:
    route = routes.route(path)

    back = "/".join(f"_{part[1:-1]}_" if part[0] == "{" else part for part in route[1:].split("/"))
    assert back == path


@given(PATH)
def test_every_directory_with_allowed_names_gives_a_route_that_may_be(path: str) -> None:
    assert routes.flaw(f"/x{routes.route(path)}") is None


@given(PATH)
def test_erasing_is_stable_and_removes_every_name(path: str) -> None:
    erased = routes.erase(routes.route(path))

    assert routes.erase(erased) == erased
    assert all(not item.name for item in routes.placeholders(erased))


@given(PATH, PATH)
def test_two_paths_erase_alike_only_if_they_differ_in_parameter_names_alone(one: str, other: str) -> None:
    def shape(path: str) -> list[str]:
        return ["{}" if part[0] == "_" else part for part in path.split("/")]

    alike = routes.erase(routes.route(one)) == routes.erase(routes.route(other))
    assert alike == (shape(one) == shape(other))


@given(st.text())
def test_any_text_is_a_route_or_has_a_reason(text: str) -> None:
    if routes.flaw(text) is None:
        assert text.startswith("/")
        assert all(item.name.isidentifier() for item in routes.placeholders(text))
