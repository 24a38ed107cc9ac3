"""Projects to their locks, by uv itself, from wheels in a folder and an index on a socket of this machine."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from flashfw.build import lock_uv, resolving
from flashfw.build.lock import FILE, PLATFORM, Lock, LockedEnvironment, LockedPackage, dumps
from flashfw.build.lock_install import IndexUnreachable, InstallFailed, install
from flashfw.build.lock_stale import stale
from flashfw.bundle.needs import WORKER_NEEDS
from flashfw.errors import Exit, ProjectError, UsageError
from flashfw.project import root as roots
from flashfw.project.collect import collect
from flashfw.project.compile import compile as compile_project
from tests.build.wheels import links, wheel
from tests.project.shop import JOB, write

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER = "3.12" if VERSION == "3.13" else "3.13"
TAG = "".join(VERSION.split("."))
OFFLINE = 'no-index = true\nfind-links = ["../wheels"]\n'
PYPROJECT = "[project]\nname = 'shop'\nversion = '0'\ndependencies = [{shared}]\n\n[tool.uv]\n{uv}"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages in a folder: `alpha` in two versions, which needs `beta`; `native` for several platforms."""
    folder = tmp_path_factory.mktemp("index") / "wheels"
    links(folder)
    wheel(folder, "alpha", "1.0", requires=("beta>=1",))
    wheel(folder, "alpha", "2.0", requires=("beta>=1",))
    wheel(folder, "beta", "1.0")
    for tag in ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "macosx_11_0_arm64"):
        wheel(folder, "native", "1.0", tag=f"cp{TAG}-cp{TAG}-{tag}", files={"native.py": tag.encode()})
    return folder


@pytest.fixture(autouse=True)
def own_uv_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of these packages stays in the user's cache of uv."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "uv"))


@pytest.fixture
def shop(wheels: Path, tmp_path: Path) -> Path:
    """An empty project beside a copy of the folder of packages, which a test may add to."""
    shutil.copytree(wheels, tmp_path / "wheels")
    project(tmp_path / "shop")
    return tmp_path / "shop"


def project(
    folder: Path, endpoints: Mapping[str, str] | None = None, *, shared: str = "", uv: str = OFFLINE, **files: str
) -> None:
    """Write a project: the `dependencies` of each endpoint, those of all, and the configuration of uv."""
    shutil.rmtree(folder / "endpoints", ignore_errors=True)
    settings = {"flashfw.toml": f"[project]\nname = 'shop'\npython = '{VERSION}'\n[environments.prod]\n"}
    for name, text in (endpoints or {}).items():
        files |= {f"endpoints/{name}/handler.py": JOB, f"endpoints/{name}/endpoint.toml": text}
    write(folder, {**settings, "pyproject.toml": PYPROJECT.format(shared=shared, uv=uv), **files})


def lock(
    folder: Path,
    previous: Lock | None = None,
    *,
    upgrade: bool | Collection[str] = False,
    platform: str = PLATFORM,
    variables: Mapping[str, str] | None = None,
    told: list[str] | None = None,
) -> Lock:
    machine = {
        name: value for name, value in os.environ.items() if not name.startswith("UV_") or name == "UV_CACHE_DIR"
    }
    return resolving.lock(
        collect(roots.find(folder)),
        previous=previous,
        upgrade=upgrade,
        platform=platform,
        variables={**machine, "UV_HTTP_RETRIES": "0", **(variables or {})},
        tell=(told if told is not None else []).append,
    )


def versions(made: Lock, endpoint: str = "a", environment: str = "") -> dict[str, str]:
    found = made.environment_of(endpoint, environment)
    assert found is not None
    return {package.name: package.version for package in found.packages}


def package(made: Lock, name: str, endpoint: str = "a") -> LockedPackage:
    found = made.environment_of(endpoint)
    assert found is not None
    return next(package for package in found.packages if package.name == name)


def outdated(folder: Path, made: Lock | None, environment: str = "dev") -> list[str]:
    manifest, _ = compile_project(collect(roots.find(folder)), environment=environment)
    return [str(problem) for problem in stale(made, manifest, root=folder)]


def test_what_an_endpoint_gets(shop: Path) -> None:
    project(shop, {"a": 'dependencies = ["Alpha", "native"]'}, shared="'beta'")
    made = lock(shop)
    (environment,) = made.environments

    assert environment.endpoints == ("a",)
    assert (environment.python, environment.platform) == (VERSION, PLATFORM)
    assert environment.requirements == tuple(sorted(["Alpha", "beta", "native", *WORKER_NEEDS]))
    assert versions(made) | {"alpha": "2.0", "beta": "1.0", "native": "1.0"} == versions(made)
    assert {"anyio", "pydantic", "starlette"} <= versions(made).keys()
    digest = hashlib.sha256((shop.parent / "wheels/alpha-2.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert package(made, "alpha").hashes == (f"sha256:{digest}",)


def test_the_same_inputs_are_the_same_bytes_anywhere(shop: Path, tmp_path: Path) -> None:
    project(shop, {"a": 'dependencies = ["alpha"]', "b": "", "c": 'dependencies = ["native"]'})
    elsewhere = tmp_path / "another/place/shop"
    shutil.copytree(shop, elsewhere)
    shutil.copytree(tmp_path / "wheels", elsewhere.parent / "wheels")
    text = dumps(lock(shop))

    assert dumps(lock(elsewhere)) == text
    assert str(tmp_path) not in text
    assert "://" not in text


def test_endpoints_that_ask_alike_share_and_others_may_pin_against_one_another(shop: Path) -> None:
    same = 'dependencies = ["beta", "alpha>=2"]'
    project(shop, {"a": same, "b": 'dependencies = ["alpha>=2", "beta"]', "c": 'dependencies = ["alpha<2"]'})
    told: list[str] = []
    made = lock(shop, told=told)

    assert [environment.endpoints for environment in made.environments] == [("a", "b"), ("c",)]
    assert (versions(made, "a")["alpha"], versions(made, "c")["alpha"]) == ("2.0", "1.0")
    assert sorted(told) == [f"resolving a, b (Python {VERSION})", f"resolving c (Python {VERSION})"]


def test_nothing_is_done_where_nothing_changed(shop: Path) -> None:
    project(shop, {"a": 'dependencies = ["alpha"]', "b": ""})
    made, told = lock(shop), list[str]()

    assert lock(shop, made, told=told) is made
    assert told == []
    project(shop, {"a": 'dependencies = ["alpha"]', "b": 'dependencies = ["beta"]'})
    again = lock(shop, made, told=told)
    assert told == [f"resolving b (Python {VERSION})"]
    assert again.environment_of("a") == made.environment_of("a")


def test_pins_stay_until_an_upgrade(shop: Path) -> None:
    project(shop, {"a": 'dependencies = ["alpha<2"]'})
    old = lock(shop)
    project(shop, {"a": 'dependencies = ["alpha", "beta"]', "b": 'dependencies = ["alpha"]'})
    wheel(shop.parent / "wheels", "beta", "1.5")
    kept = lock(shop, old)

    assert [versions(kept, name)["alpha"] for name in "ab"] == ["1.0", "1.0"]  # a new endpoint takes what is there
    assert [versions(kept, name)["beta"] for name in "ab"] == ["1.0", "1.0"]
    one = lock(shop, kept, upgrade=["Beta"])
    assert (versions(one)["alpha"], versions(one)["beta"]) == ("1.0", "1.5")
    every = lock(shop, kept, upgrade=True)
    assert (versions(every)["alpha"], versions(every)["beta"]) == ("2.0", "1.5")
    with pytest.raises(UsageError, match="'alhpa'; did you mean 'alpha'"):
        lock(shop, kept, upgrade=["alhpa"])


def test_the_archives_are_those_of_the_platform(shop: Path, tmp_path: Path) -> None:
    project(shop, {"a": 'dependencies = ["native"]'})
    hashes = {
        platform: package(lock(shop, platform=platform), "native").hashes
        for platform in (PLATFORM, "aarch64-manylinux_2_28", "aarch64-apple-darwin")
    }

    assert len(set(hashes.values())) == 3
    made = lock(shop, platform="aarch64-apple-darwin").environments[0]
    install(made, root=shop, into=tmp_path / "site", variables=os.environ)
    assert (tmp_path / "site/native.py").read_text() == "macosx_11_0_arm64"


def test_an_environment_may_ask_for_something_else(shop: Path) -> None:
    text = 'dependencies = ["alpha<2"]\n[on.prod]\ndependencies = ["alpha>=2"]\n'
    project(shop, {"a": text, "b": 'dependencies = ["beta"]'})
    made = lock(shop)

    assert [environment.endpoints for environment in made.environments] == [("a",), ("a@prod",), ("b",)]
    assert versions(made, "a", "prod")["alpha"] == "2.0"
    assert versions(made, "a", "local")["alpha"] == versions(made, "a", "dev")["alpha"] == "1.0"
    assert outdated(shop, made) == outdated(shop, made, "prod") == []
    assert resolving.check(collect(roots.find(shop)), made) == ()


def test_parts_of_the_project_go_by_their_content(shop: Path, tmp_path: Path) -> None:
    wheel(shop / "vendored", "gamma", "0.1")
    library = {
        "libs/mylib/pyproject.toml": BACKEND.format(name="mylib"),
        "libs/mylib/backend.py": BUILDER,
        "libs/mylib/mylib.py": "VERSION = 'first'\n",
    }
    needs = 'dependencies = ["./libs/mylib", "gamma @ ./vendored/gamma-0.1-py3-none-any.whl", "delta"]'
    sources = OFFLINE + "sources = { delta = { path = 'vendored/delta-3.0-py3-none-any.whl' } }\n"
    wheel(shop / "vendored", "delta", "3.0")
    project(shop, {"a": needs}, uv=sources, **library)
    made = lock(shop)
    (environment,) = made.environments

    assert package(made, "mylib").path == "libs/mylib"
    assert package(made, "gamma").path == "vendored/gamma-0.1-py3-none-any.whl"
    assert package(made, "delta").path == "vendored/delta-3.0-py3-none-any.whl"
    assert str(tmp_path) not in dumps(made)
    install(environment, root=shop, into=tmp_path / "site", variables=os.environ)
    assert (tmp_path / "site/mylib.py").read_text() == "VERSION = 'first'\n"
    assert (tmp_path / "site/delta.py").exists()
    assert (tmp_path / "site/gamma.py").exists()

    (shop / "libs/mylib/mylib.py").write_text("VERSION = 'other'\n")
    assert outdated(shop, made) == [f"{FILE}: is out of date for a: libs/mylib changed; run `flashfw lock`"]
    with pytest.raises(InstallFailed, match="libs/mylib changed since"):
        install(environment, root=shop, into=tmp_path / "other", variables=os.environ)
    again = lock(shop, made)
    assert again.environments[0].key != environment.key
    install(again.environments[0], root=shop, into=tmp_path / "again", variables=os.environ)
    assert (tmp_path / "again/mylib.py").read_text() == "VERSION = 'other'\n"


def test_what_is_installed_tells_nothing_of_the_machine(shop: Path, tmp_path: Path) -> None:
    wheel(shop / "vendored", "gamma", "0.1")
    project(shop, {"a": 'dependencies = ["alpha", "gamma @ ./vendored/gamma-0.1-py3-none-any.whl"]'})
    (environment,) = lock(shop).environments
    for name in ("one", "two"):
        install(environment, root=shop, into=tmp_path / name, variables={**os.environ, "UV_COMPILE_BYTECODE": "1"})

    one, two = (_files(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert "alpha.py" in one
    assert not [path for path, data in one.items() if str(tmp_path).encode() in data or path.endswith(".pyc")]
    assert not [path for path in one if Path(path).name in (".lock", "direct_url.json", "uv_cache.json")]
    assert all(path in one for path in _recorded(one["gamma-0.1.dist-info/RECORD"]))


def test_an_archive_that_became_another_is_not_installed(shop: Path, tmp_path: Path) -> None:
    project(shop, {"a": 'dependencies = ["beta"]'})
    (environment,) = lock(shop).environments
    wheel(shop.parent / "wheels", "beta", "1.0", files={"beta.py": b"import os\n"})

    variables = {**os.environ, "UV_NO_VERIFY_HASHES": "1", "UV_CACHE_DIR": str(tmp_path / "cache")}
    with pytest.raises(InstallFailed, match="beta") as caught:
        install(environment, root=shop, into=tmp_path / "site", variables=variables)
    assert "hash" in str(caught.value).lower()
    assert not (tmp_path / "site/beta.py").exists()


def test_all_that_cannot_be_met_is_told_at_once(shop: Path) -> None:
    project(
        shop,
        {
            "a": 'dependencies = [\n  "beta",\n  "alpha>3",\n]\n',
            "b": 'dependencies = ["pydantic<2"]',
            "c": "workers = 1",
            "d": 'dependencies = ["alpha>3"]\n[on.prod]\ndependencies = ["nothing-of-that-name"]\n',
        },
        shared="'beta'",
    )
    with pytest.raises(ProjectError) as caught:
        lock(shop)

    a, b, prod = map(str, caught.value.problems)
    assert a == (
        "endpoints/a/endpoint.toml:3: the dependencies of a, d cannot be met: Because only alpha<=2.0 is available and "
        "a depends on alpha>3, we can conclude that your requirements are unsatisfiable "
        "(endpoints/d/endpoint.toml:1); change one of these"
    )
    assert b.startswith("endpoints/b/endpoint.toml:1: the dependencies of b cannot be met: ")
    assert b.endswith("; the worker itself needs pydantic>=2.8,<3")
    assert prod.startswith("endpoints/d/endpoint.toml:3: the dependencies of d on prod cannot be met: ")
    assert "nothing-of-that-name" in prod


def test_a_requirement_of_all_is_told_at_its_line_once(shop: Path) -> None:
    project(shop, {"a": "", "b": 'dependencies = ["beta"]'}, shared="'alpha>3'")
    with pytest.raises(ProjectError) as caught:
        lock(shop)

    (problem,) = caught.value.problems
    assert problem.where == "pyproject.toml:4"
    assert "the dependencies of a, b cannot be met" in problem.what


def test_requirements_that_are_none_are_told_before_anything_is_resolved(shop: Path) -> None:
    project(
        shop,
        {"a": '\ndependencies = ["x @ ./nowhere"]', "b": 'dependencies = ["y @ ./gone.whl", "./nameless"]'},
        **{"nameless/module.py": ""},
    )
    told: list[str] = []
    with pytest.raises(ProjectError) as caught:
        lock(shop, told=told)

    assert [problem.where for problem in caught.value.problems] == [
        "endpoints/a/endpoint.toml:2",
        "endpoints/b/endpoint.toml:1",
        "endpoints/b/endpoint.toml:1",
    ]
    nameless = "b asks for ./nameless, whose pyproject.toml tells no name"
    assert nameless in [problem.what for problem in caught.value.problems]
    assert told == []


def test_a_project_with_errors_is_not_locked(shop: Path) -> None:
    project(shop, {"a": 'worker = 3\n[on.prod]\npython = "2.7"'})
    with pytest.raises(ProjectError) as caught:
        lock(shop)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("text", "uv", "said"),
    [
        ('dependencies = ["alpha>=2"]', OFFLINE, "alpha>=2 is new, alpha is gone"),
        ("", OFFLINE, "alpha is gone"),
        (
            f'dependencies = ["alpha"]\npython = "{OTHER}"',
            OFFLINE,
            f"Python {OTHER} is asked for, {VERSION} is locked",
        ),
        ('dependencies = ["alpha"]', OFFLINE + 'prerelease = "allow"\n', "the configuration of uv is another"),
    ],
)
def test_what_made_a_lock_stale(shop: Path, text: str, uv: str, said: str) -> None:
    project(shop, {"a": 'dependencies = ["alpha"]', "b": 'dependencies = ["alpha"]'})
    made = lock(shop)
    assert outdated(shop, made) == []

    project(shop, {"a": text, "b": text}, uv=uv)
    assert outdated(shop, made) == [f"{FILE}: is out of date for a, b: {said}; run `flashfw lock`"]


def test_a_lock_that_was_edited_by_hand_is_not_trusted(shop: Path, tmp_path: Path) -> None:
    project(shop, {"a": 'dependencies = ["alpha"]'})
    (environment,) = lock(shop).environments

    def edited(**change: Any) -> LockedEnvironment:
        packages = (replace(found, **change) if found.name == "alpha" else found for found in environment.packages)
        return replace(environment, packages=tuple(packages))

    by_hand = Lock(environments=(edited(version="1.0"),))
    assert outdated(shop, by_hand) == [f"{FILE}: is out of date for a: it was edited by hand; run `flashfw lock`"]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"hashes": ()}, "flashfw.lock has no hash of alpha"),
        ({"name": "alpha --index-url=http://evil.example"}, "names a package that is none: 'alpha --index"),
        ({"version": "1.0\n--index-url=http://evil.example"}, "names a package that is none: 'alpha'"),
        ({"hashes": ("sha256:00 --no-verify-hashes",)}, "names a package that is none: 'alpha'"),
        ({"path": "libs/\n"}, "names a package that is none: 'alpha'"),
    ]
    for change, said in changes:
        with pytest.raises(InstallFailed, match=said):
            install(edited(**change), root=shop, into=tmp_path / "into", variables={})
    assert not (tmp_path / "into").exists()


def test_endpoints_that_come_and_go(shop: Path) -> None:
    project(shop, {"a": "", "b": ""})
    made = lock(shop)
    project(shop, {"a": "", "c": ""})

    assert outdated(shop, made) == []  # it asks for what is locked
    told = [str(problem) for problem in resolving.check(collect(roots.find(shop)), made)]
    assert told == [f"{FILE}: {what}; run `flashfw lock`" for what in ("still names b", "does not name c yet")]
    assert outdated(shop, None) == [f"{FILE}: is not there; make it with `flashfw lock`, and commit it"]
    assert versions(lock(shop, made), "c") == versions(made, "a")

    project(shop, {"a": "", "d": 'dependencies = ["alpha"]'})
    assert outdated(shop, made) == [f"{FILE}: is out of date for d: nothing is locked for it; run `flashfw lock`"]


def test_what_counts_of_uvs_configuration(shop: Path) -> None:
    """A constraint holds, a group for development changes nothing, uv.toml goes before pyproject.toml."""
    constrained = OFFLINE + 'constraint-dependencies = ["alpha<2"]\n'
    project(shop, {"a": 'dependencies = ["alpha"]'}, uv=constrained + 'dev-dependencies = ["nothing"]\n')
    made = lock(shop)
    assert versions(made)["alpha"] == "1.0"
    project(shop, {"a": 'dependencies = ["alpha"]'}, uv=constrained)
    assert outdated(shop, made) == []

    (shop / "uv.toml").write_text(f'no-index = true\nfind-links = ["{shop.parent.as_posix()}/wheels"]\n')
    assert len(outdated(shop, made)) == 1
    assert versions(lock(shop, made, upgrade=True))["alpha"] == "2.0"


def test_a_member_of_the_workspace(shop: Path, tmp_path: Path) -> None:
    member = {
        "packages/one/pyproject.toml": BACKEND.format(name="mylib"),
        "packages/one/backend.py": BUILDER,
        "packages/one/mylib.py": "VERSION = 'member'\n",
    }
    workspace = "sources = { MyLib = { workspace = true } }\nworkspace = { members = ['packages/*'] }\n"
    project(shop, {"a": 'dependencies = ["mylib"]'}, uv=OFFLINE + workspace, **member)
    made = lock(shop)

    assert package(made, "mylib").path == "packages/one"
    install(made.environments[0], root=shop, into=tmp_path / "site", variables=os.environ)
    assert (tmp_path / "site/mylib.py").exists()


class Index:
    """An index on a socket: `/open/simple`, and `/closed/simple` for `me` with `secret`."""

    def __init__(self, folder: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        index = self
        self.folder = folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        _, access, kind, name = unquote(request.path).rstrip("/").split("/")
        wanted = "Basic " + base64.b64encode(b"me:secret").decode()
        files = sorted(file for file in self.folder.iterdir() if file.name.split("-")[0].replace("_", "-") == name)
        status, body = 200, b""
        if access == "closed" and request.headers.get("Authorization") != wanted:
            status = 401
        elif kind == "files":
            body = (self.folder / name).read_bytes()
        elif files:
            body = "".join(f'<a href="/{access}/files/{file.name}">{file.name}</a>' for file in files).encode()
        else:
            status = 404
        request.send_response(status)
        request.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture(scope="module")
def index(wheels: Path) -> Iterator[Index]:
    made = Index(wheels)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_an_index_that_one_package_is_pinned_to(shop: Path, index: Index, tmp_path: Path) -> None:
    private = (
        '[[tool.uv.index]]\nname = "private"\nexplicit = true\n'
        f'url = "{index.url}/closed/simple"\n[tool.uv.sources]\nalpha = {{ index = "private" }}\n'
    )
    project(shop, {"a": 'dependencies = ["alpha"]'}, uv=f'index-url = "{index.url}/open/simple"\n{private}')
    password = {"UV_INDEX_PRIVATE_USERNAME": "me", "UV_INDEX_PRIVATE_PASSWORD": "secret"}
    made = lock(shop, variables=password)

    assert "127.0.0.1" not in dumps(made)
    digest = hashlib.sha256((index.folder / "alpha-2.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert package(made, "alpha").hashes == (f"sha256:{digest}",)
    install(made.environments[0], root=shop, into=tmp_path / "site", variables={**os.environ, **password})
    assert (tmp_path / "site/alpha.py").exists()


def test_an_index_of_the_machine_leaves_no_trace(shop: Path, index: Index) -> None:
    project(shop, {"a": 'dependencies = ["alpha"]'}, uv="")
    address = index.url.replace("http://", "http://me:secret@")
    made = lock(shop, variables={"UV_DEFAULT_INDEX": f"{address}/closed/simple"})

    assert outdated(shop, made) == []
    assert not {"127.0.0.1", "secret"} & {word for word in ("127.0.0.1", "secret") if word in dumps(made)}


@pytest.mark.parametrize(
    "variables",
    [
        {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"},
        {"UV_DEFAULT_INDEX": "{index}/closed/simple"},
        {"UV_DEFAULT_INDEX": "{index}/open/simple", "UV_OFFLINE": "1"},
    ],
    ids=["refused", "password", "offline"],
)
def test_an_index_that_does_not_answer_is_not_the_projects_fault(
    shop: Path, index: Index, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    project(shop, {"a": 'dependencies = ["alpha"]'}, uv="")
    given = {name: value.format(index=index.url) for name, value in variables.items()}
    with pytest.raises(IndexUnreachable) as caught:
        lock(shop, variables={**given, "UV_CACHE_DIR": str(tmp_path / "cache")})
    assert caught.value.exit is Exit.TARGET


def test_a_uv_that_cannot_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(lock_uv.UvFailed, match="could not be started"):
        lock_uv.run("version", cwd=tmp_path / "nowhere", variables={})


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _recorded(record: bytes) -> list[str]:
    return [line.split(",")[0] for line in record.decode().splitlines()]


BACKEND = """
[project]
name = "{name}"
version = "0.3"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BUILDER = """
import zipfile

META = "Metadata-Version: 2.1\\nName: mylib\\nVersion: 0.3\\n"
TAGS = "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "mylib-0.3-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.write("mylib.py")
        wheel.writestr("mylib-0.3.dist-info/METADATA", META)
        wheel.writestr("mylib-0.3.dist-info/WHEEL", TAGS)
        files = ("mylib.py", "mylib-0.3.dist-info/METADATA", "mylib-0.3.dist-info/WHEEL", "mylib-0.3.dist-info/RECORD")
        wheel.writestr("mylib-0.3.dist-info/RECORD", "".join(f"{file},,\\n" for file in files))
    return name
"""
