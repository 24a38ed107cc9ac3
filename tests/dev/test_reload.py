from __future__ import annotations

import dataclasses
from pathlib import Path

from flashfw.dev.reload import Reload, plan
from flashfw.errors import Problem
from flashfw.manifest import Endpoint, Function, Manifest, Source, Variable
from flashfw.project.model import EndpointTree, Project, Root

ROOT = Root(Path("/p"), Path("/p/flashfw.toml"))


def endpoint(name: str, *, digest: str = "1", line: int = 1, concurrency: int = 1) -> Endpoint:
    file = f"endpoints/{name}/handler.py"
    function = Function(
        id=name, kind="job", module=f"endpoints.{name}.handler", attribute="handler", file=file, line=line, route="/x"
    )
    return Endpoint(
        id=name,
        kind="job",
        directory=f"endpoints/{name}",
        functions=(function,),
        python="3.11",
        concurrency=concurrency,
        sources=(Source(path=file, sha256=digest),),
        fingerprint=f"{digest}{concurrency}",
    )


def manifest(*endpoints: Endpoint) -> Manifest:
    return Manifest(project="p", environment="dev", endpoints=endpoints)


def step(
    served: Manifest,
    compiled: Manifest,
    *,
    present: tuple[str, ...] = (),
    problems: tuple[Problem, ...] = (),
    changed: tuple[str, ...] = (),
    loaded: dict[str, tuple[str, ...]] | None = None,
    secrets: tuple[str, ...] = (),
) -> Reload:
    names = present or tuple(item.id for item in compiled.endpoints)
    trees = tuple(EndpointTree(name, f"endpoints/{name}", "job", (), ()) for name in names)
    project = Project(ROOT, "p", trees)
    return plan(
        served, compiled, project=project, problems=problems, changed=changed, loaded=loaded or {}, secrets=secrets
    )


def test_only_endpoints_that_loaded_the_saved_file_are_rolled() -> None:
    served = manifest(endpoint("a"), endpoint("b"))
    compiled = manifest(endpoint("a", digest="2"), endpoint("b", digest="2"))

    result = step(
        served, compiled, changed=("lib/x.py",), loaded={"a": ("lib/x.py",), "b": ("endpoints/b/handler.py",)}
    )

    assert result.roll == ("a",)
    assert compiled == result.manifest


def test_a_changed_configuration_rolls_whatever_is_loaded() -> None:
    result = step(manifest(endpoint("a")), manifest(endpoint("a", concurrency=2)))

    assert result.roll == ("a",)


def test_a_moved_line_alone_rolls_nothing() -> None:
    assert step(manifest(endpoint("a")), manifest(endpoint("a", line=9, digest="2"))).roll == ()


def test_an_endpoint_that_does_not_compile_is_served_as_it_was() -> None:
    served = manifest(endpoint("a"), endpoint("b"))

    result = step(served, manifest(endpoint("b")), present=("a", "b"))

    assert (("a",), (), served) == (result.held, result.removed, result.manifest)


def test_a_file_that_does_not_parse_is_no_removal() -> None:
    served = manifest(endpoint("a"), endpoint("b"))
    problem = Problem("no TOML", "endpoints/a/endpoint.toml", 1)

    assert step(served, manifest(endpoint("b")), present=("b",), problems=(problem,)).held == ("a",)


def test_a_broken_project_file_removes_nothing() -> None:
    served = manifest(endpoint("a"), endpoint("b"))
    problem = Problem("no TOML", "flashfw.toml", 1)

    result = dataclasses.replace(step(served, manifest(), present=("none",), problems=(problem,)))

    assert (result.held, result.removed) == (("a", "b"), ())


def test_deleted_and_new_endpoints() -> None:
    result = step(manifest(endpoint("a")), manifest(endpoint("b")))

    assert (result.added, result.removed, result.held) == (("b",), ("a",), ())


def test_only_endpoints_that_get_a_changed_secret_are_rolled() -> None:
    token = dataclasses.replace(endpoint("a"), secrets=(Variable(name="TOKEN", value="HF_TOKEN"),))
    served = manifest(token, endpoint("b"))

    assert step(served, served, changed=(".env",), secrets=("HF_TOKEN",)).roll == ("a",)
    assert step(served, served, changed=(".env",), secrets=("OTHER", "TOKEN")).roll == ()
