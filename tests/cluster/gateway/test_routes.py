from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path

from flashfw.cluster.gateway.http_calls import HttpTarget
from flashfw.cluster.gateway.intake import JobTarget
from flashfw.cluster.gateway.routes import Routes
from flashfw.manifest import Function, Kind

NOBODY: Any = None


def target(kind: Kind, route: str, method: str = "") -> JobTarget | HttpTarget:
    function = Function(
        id=f"{route}::{method}", kind=kind, module="m", attribute="a", file="f", line=1, route=route, method=method
    )
    return JobTarget(function, NOBODY) if kind == "job" else HttpTarget(function, NOBODY)


ROUTES = Routes(
    [
        target("job", "/gpu_a100"),
        target("job", "/gpu_a100/upscale"),
        target("http", "/api/users", "GET"),
        target("http", "/api/users", "POST"),
        target("http", "/api/users/{id}", "GET"),
        target("http", "/api/users/me", "GET"),
        target("http", "/files/{path:path}", "GET"),
        target("http", "/", "GET"),
        target("app", "/site"),
        target("app", "/site/admin"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "route", "params", "root_path"),
    [
        ("POST", "/gpu_a100", "/gpu_a100", {}, ""),
        ("POST", "/gpu_a100/upscale", "/gpu_a100/upscale", {}, ""),
        ("GET", "/api/users", "/api/users", {}, ""),
        ("HEAD", "/api/users", "/api/users", {}, ""),
        ("GET", "/api/users/7", "/api/users/{id}", {"id": "7"}, ""),
        ("GET", "/api/users/me", "/api/users/me", {}, ""),
        ("GET", "/files/a/b.txt", "/files/{path:path}", {"path": "a/b.txt"}, ""),
        ("GET", "/", "/", {}, ""),
        ("PATCH", "/site", "/site", {}, "/site"),
        ("GET", "/site/x/y", "/site", {}, "/site"),
        ("GET", "/site/admin/x", "/site/admin", {}, "/site/admin"),
    ],
)
def test_a_path_finds_its_function(method: str, path: str, route: str, params: dict[str, str], root_path: str) -> None:
    found = ROUTES.find(method, path)

    assert found is not None
    assert found.target is not None
    assert (route, params, root_path) == (found.target.function.route, found.params, found.root_path)


@pytest.mark.parametrize("path", ["/nope", "/gpu_a100/", "/gpu_a100/upscale/x", "/api/users/7/x", "/sitemap", "//"])
def test_an_unknown_path_finds_nothing(path: str) -> None:
    assert ROUTES.find("GET", path) is None


def test_a_known_path_with_another_method_names_those_that_it_has() -> None:
    found = ROUTES.find("DELETE", "/api/users")

    assert found is not None
    assert (found.target, found.allow) == (None, "GET, HEAD, OPTIONS, POST")
    assert found.takes == "GET, POST"


def test_a_job_is_called_by_post_alone() -> None:
    found = ROUTES.find("GET", "/gpu_a100")

    assert found is not None
    assert (found.target, found.allow) == (None, "OPTIONS, POST")


@pytest.mark.parametrize("path", ["/_flashfw/secrets/TOKEN", "/_flashfw", "/v2/gpu/run", "/docs", "/openapi.json"])
@pytest.mark.parametrize("greedy", [target("http", "/{path:path}", "PUT"), target("app", "/")])
def test_no_pattern_and_no_mount_takes_a_page_of_the_server(greedy: HttpTarget, path: str) -> None:
    assert Routes([greedy]).find("PUT", path) is None
    assert Routes([greedy]).find("PUT", "/_flashfw_/x") is not None


SEGMENTS = st.sampled_from(["a", "b", "v{w}", "{x}", "{y}", "{rest:path}", "{n:int}"])
PATHS = st.lists(st.sampled_from(["a", "b", "va", "7", ""]), max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(st.lists(SEGMENTS, min_size=1, max_size=3), min_size=1, max_size=6), PATHS)
def test_dynamic_routes_are_found_as_by_trying_one_after_the_other(routes: list[list[str]], path: str) -> None:
    made = {f"/{'/'.join(parts)}" for parts in routes if len({*parts}) == len(parts) and any("{" in it for it in parts)}
    found = Routes([target("http", route, "GET") for route in made]).find("GET", path)

    ordered = sorted(made, key=lambda route: (["{" in part for part in route.split("/")], route))
    matched = [(route, match.groupdict()) for route in ordered if (match := compile_path(route)[0].match(path))]
    expected = matched[0] if matched else None
    assert (found and found.target and (found.target.function.route, found.params)) == expected
