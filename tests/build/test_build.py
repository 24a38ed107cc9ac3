"""A whole build, offline: what is in it, what it is made of again, and what keeps it from being made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flashfw.build import build as builds
from flashfw.build.build import Built
from flashfw.bundle import release as releases
from flashfw.bundle.archive import unpack
from flashfw.errors import FlashfwError, NothingCollectedError, ProjectError, UsageError
from flashfw.project import root as roots
from tests.build.wheels import links, wheel

HANDLER = "import greeting\n\n\ndef handler(name: str) -> str:\n    return greeting.VERSION + name\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of wheels, and the configuration of uv that takes packages from it."""
    folder = tmp_path_factory.mktemp("wheels")
    table = links(folder)
    wheel(folder, "greeting", "1.0", scripts={"greet": "greeting:main"}, requires=("sentences>=2",))
    wheel(folder, "sentences", "2.0", files={"sentences/__init__.py": b"", "sentences/tests/big.txt": b"x" * 2_000_000})
    return folder, table


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the tests of this file, so that most install nothing."""
    return tmp_path_factory.mktemp("cache")


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def project(root: Path, table: str, **more: str) -> Path:
    files = {
        "flashfw.toml": "[project]\nname = 'shop'\n",
        "pyproject.toml": f"[project]\nname = 'shop'\nversion = '0'\n\n{table}",
        "endpoints/hello/handler.py": HANDLER,
        "endpoints/hello/endpoint.toml": 'dependencies = ["greeting"]\n',
        "endpoints/plain/handler.py": "def handler() -> int:\n    return 1\n",
    }
    return write(root, {**files, **more})


def build(root: Path, cache: Path, told: list[str] | None = None) -> Built:
    place = roots.find(root, explicit=root)
    tell = (lambda text: None) if told is None else told.append
    return builds.build(place, environment="local", variables=os.environ, cache=cache, on_progress=tell)


@pytest.fixture
def shop(tmp_path: Path, index: tuple[Path, str]) -> Path:
    return project(tmp_path / "shop", index[1])


def unpacked(built: Built, digest: str, into: Path) -> Path:
    layer = next(layer for layer in built.release.layers if layer.digest == digest)
    with built.archives[digest].open("rb") as stream:
        unpack(stream, into, layer=layer)
    return into


def test_a_release_has_what_its_workers_need(shop: Path, cache: Path, tmp_path: Path) -> None:
    built = build(shop, cache)
    release = built.release
    hello, plain = release.packages_of("hello"), release.packages_of("plain")
    assert hello is not None
    assert plain is not None
    source = unpacked(built, release.source.digest, tmp_path / "source")
    installed = unpacked(built, hello.layer.digest, tmp_path / "installed")

    assert built.locked
    assert (shop / "flashfw.lock").exists()
    assert built.archives.keys() == {layer.digest for layer in release.layers}
    assert releases.loads((shop / ".flashfw/build/release.json").read_text()) == release
    assert (source / "endpoints/hello/handler.py").read_text() == HANDLER
    assert (installed / "greeting.py").read_text() == "VERSION = '1.0'\n"
    assert "greeting==1.0" in hello.distributions
    assert "greeting==1.0" not in plain.distributions
    assert "starlette==0.49.1" in plain.distributions
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); import greeting, sentences; print(greeting.VERSION)"
    assert subprocess.run([sys.executable, "-Sc", program], capture_output=True, check=True).stdout == b"1.0\n"


def test_two_places_give_the_same_bytes(shop: Path, index: tuple[Path, str], tmp_path: Path) -> None:
    """Another folder, cache, order, dates, umask and locale."""
    first = build(shop, tmp_path / "cache")
    other = tmp_path / "elsewhere/deep/shop"
    before = os.umask(0o077)
    try:
        for path in sorted((path for path in shop.rglob("*") if path.is_file()), reverse=True):
            if ".flashfw" not in path.parts:
                copy = other / path.relative_to(shop)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
                os.utime(copy, (1, 1))
        program = (
            "import os, sys\nfrom pathlib import Path\nfrom tests.build.test_build import build\n"
            "build(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        variables = {**os.environ, "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
        made = [sys.executable, "-c", program, str(other), str(tmp_path / "cache2")]
        subprocess.run(made, check=True, env=variables, cwd=Path(__file__).parents[2])
    finally:
        os.umask(before)
    again = build(other, tmp_path / "cache2")

    assert again.release == first.release
    assert again.source.reused
    assert (other / ".flashfw/build/release.json").read_bytes() == (shop / ".flashfw/build/release.json").read_bytes()
    for digest, file in first.archives.items():
        assert again.archives[digest].read_bytes() == file.read_bytes()


def test_nothing_is_built_again_that_did_not_change(shop: Path, cache: Path) -> None:
    first = build(shop, cache)
    dates = {file: file.stat().st_mtime_ns for file in first.archives.values()}
    told: list[str] = []
    again = build(shop, cache, told)

    assert told == []
    assert again.release == first.release
    assert not again.locked
    assert again.source.reused
    assert all(found.reused for found in again.packages)
    assert {file: file.stat().st_mtime_ns for file in again.archives.values()} == dates


def test_one_line_makes_another_source_and_rolls_one_endpoint(shop: Path, cache: Path) -> None:
    first = build(shop, cache)
    write(shop, {"endpoints/plain/handler.py": "def handler() -> int:\n    return 2\n"})
    again = build(shop, cache)

    assert again.release.source != first.release.source
    assert again.release.packages == first.release.packages
    before = {endpoint.id: endpoint.fingerprint for endpoint in first.release.manifest.endpoints}
    after = {endpoint.id: endpoint.fingerprint for endpoint in again.release.manifest.endpoints}
    assert before["hello"] == after["hello"]
    assert before["plain"] != after["plain"]


def test_going_back_is_no_work(shop: Path, cache: Path) -> None:
    texts = [f"def handler() -> int:\n    return {number}\n" for number in range(builds.KEPT_SOURCES + 1)]
    made = [build(write(shop, {"endpoints/plain/handler.py": text}), cache) for text in texts]
    back = build(write(shop, {"endpoints/plain/handler.py": texts[1]}), cache)

    assert back.release == made[1].release
    assert back.source.reused
    assert len([*(shop / ".flashfw/build/layers").glob("*.tar.zst")]) == builds.KEPT_SOURCES


def test_all_problems_are_told_and_nothing_is_built(shop: Path, cache: Path) -> None:
    build(shop, cache)
    shutil.rmtree(shop / ".flashfw")
    write(
        shop,
        {
            "endpoints/bad/handler.py": "def handler(:\n",
            "endpoints/hello/endpoint.toml": 'dependencies = []\ncpuu = "x"\n',
        },
    )
    (shop / "data").symlink_to("/etc")
    with pytest.raises(ProjectError) as raised:
        build(shop, cache)

    told = "\n".join(map(str, raised.value.problems))
    assert "endpoints/bad/handler.py:1" in told
    assert "endpoints/hello/endpoint.toml:2: unknown key 'cpuu'" in told
    assert "data: is a link that leads out of the project, to /etc" in told
    assert not (shop / ".flashfw/build/release.json").exists()
    assert not (shop / ".flashfw/build/layers").exists()


def test_a_lock_that_is_out_of_date_is_refused(shop: Path, cache: Path) -> None:
    build(shop, cache)
    write(shop, {"endpoints/plain/endpoint.toml": 'dependencies = ["sentences"]\n'})
    before = (shop / "flashfw.lock").read_text()

    with pytest.raises(ProjectError) as raised:
        build(shop, cache)
    assert "flashfw.lock: is out of date for plain: sentences is new; run `flashfw lock`" in map(
        str, raised.value.problems
    )
    assert (shop / "flashfw.lock").read_text() == before


def test_a_lock_with_the_marks_of_a_merge_is_refused(shop: Path, cache: Path) -> None:
    write(shop, {"flashfw.lock": "<<<<<<< HEAD\n"})

    with pytest.raises(FlashfwError, match="left of a merge"):
        build(shop, cache)


def test_a_project_without_endpoints_is_no_release(tmp_path: Path, cache: Path) -> None:
    write(tmp_path, {"flashfw.toml": ""})

    with pytest.raises(NothingCollectedError):
        build(tmp_path, cache)
    assert not (tmp_path / "flashfw.lock").exists()


def test_an_environment_that_is_not_declared(shop: Path, cache: Path) -> None:
    with pytest.raises(UsageError, match="prod"):
        builds.build(roots.find(shop, explicit=shop), environment="prod", variables={}, cache=cache)


def test_a_size_limit_names_the_largest_packages(shop: Path, cache: Path) -> None:
    build(shop, cache)
    write(shop, {"flashfw.toml": "[project]\nname = 'shop'\n[build]\nmax_size = '1MB'\n"})
    with pytest.raises(ProjectError) as raised:
        build(shop, cache)

    (problem,) = raised.value.problems
    assert problem.what == "the packages of hello come to 2.0 MB, more than 1.0 MB"
    assert "the largest are sentences==2.0 2.0 MB, " in problem.hint
    assert "'build.exclude_installed'" in problem.hint


def test_installed_files_can_be_left_out(shop: Path, cache: Path, tmp_path: Path) -> None:
    first = build(shop, cache)
    write(
        shop, {"flashfw.toml": "[project]\nname = 'shop'\n[build]\nexclude_installed = ['tests/']\nmax_size = '1MB'\n"}
    )
    built = build(shop, cache)
    hello, before = built.release.packages_of("hello"), first.release.packages_of("hello")
    assert hello is not None
    assert before is not None
    installed = unpacked(built, hello.layer.digest, tmp_path / "installed")

    assert not (installed / "sentences/tests").exists()
    assert (installed / "sentences/__init__.py").exists()
    assert "tests" not in (installed / "sentences-2.0.dist-info/RECORD").read_text()
    assert hello.key != before.key  # one key is one layer
    assert built.release.manifest.endpoints[0].fingerprint != first.release.manifest.endpoints[0].fingerprint


def test_the_projects_files_have_a_limit_too(shop: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "weights.bin").write_bytes(b"x" * 1_500_000)
    monkeypatch.setattr(builds, "LARGE_SOURCE_BYTES", 1_000_000)
    (warning,) = build(shop, cache).problems
    write(
        shop, {"flashfw.toml": "[project]\nname = 'shop'\n[build]\nmax_size = '1MB'\nexclude_installed = ['tests/']\n"}
    )
    with pytest.raises(ProjectError) as raised:
        build(shop, cache)

    assert (warning.level, warning.what) == ("warning", "the project's files come to 1.5 MB")
    assert "the largest are weights.bin 1.5 MB, " in warning.hint
    assert raised.value.problems[-1].what == "the project's files come to 1.5 MB, more than 1.0 MB"


@pytest.mark.parametrize("moment", ["installing", "packing"])
def test_a_killed_build_leaves_nothing_that_counts(shop: Path, tmp_path: Path, moment: str) -> None:
    """Killed while it installs packages, and while it packs them; the next build makes what it would have made."""
    build(shop, tmp_path / "other")
    cache = tmp_path / "cache"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.build.test_build import build\n"
        f"class Told(list):\n    def append(self, text):\n        if text.startswith({moment!r}):\n"
        "            os.kill(os.getpid(), 9)\n"
        "build(Path(sys.argv[1]), Path(sys.argv[2]), Told())"
    )
    made = [sys.executable, "-c", program, str(shop), str(cache)]
    ran = subprocess.run(made, cwd=Path(__file__).parents[2], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert not [*(cache / "layers").glob("*.json")]
    built = build(shop, cache)

    assert not any(found.reused for found in built.packages)
    assert {layer.digest for layer in built.release.layers} == {
        layer.digest for layer in build(shop, tmp_path / "other").release.layers
    }


def test_a_damaged_layer_of_the_cache_is_made_again(shop: Path, tmp_path: Path) -> None:
    first = build(shop, tmp_path)
    for file in first.archives.values():
        file.write_bytes(b"cut off")
    again = build(shop, tmp_path)

    assert again.release == first.release
    assert not again.source.reused
    for layer in again.release.layers:
        unpacked(again, layer.digest, tmp_path / layer.digest)


def test_an_archive_that_is_another_than_was_locked_is_refused(
    shop: Path, index: tuple[Path, str], tmp_path: Path
) -> None:
    own = tmp_path / "wheels"
    shutil.copytree(index[0], own)
    write(shop, {"pyproject.toml": (shop / "pyproject.toml").read_text().replace(index[0].as_posix(), own.as_posix())})
    build(shop, tmp_path / "cache")
    (found,) = own.glob("greeting-*")
    with zipfile.ZipFile(found, "a") as archive:
        archive.writestr("evil.py", "")
    with pytest.raises(FlashfwError) as raised:
        builds.build(
            roots.find(shop, explicit=shop),
            environment="local",
            variables={**os.environ, "UV_CACHE_DIR": str(tmp_path / "uv")},
            cache=tmp_path / "cache2",
        )

    assert "Hash mismatch" in raised.value.what
    assert len([*(tmp_path / "cache2/layers").glob("*.json")]) <= 1  # that of `plain`


def test_a_folder_that_cannot_be_written(shop: Path, tmp_path: Path) -> None:
    build(shop, tmp_path / "cache")
    (tmp_path / "file").touch()

    with pytest.raises(FlashfwError, match="cannot write to"):
        build(shop, tmp_path / "file")


def test_the_key_is_the_locks_unless_files_are_left_out(shop: Path, cache: Path) -> None:
    built = build(shop, cache)
    text = (shop / "flashfw.lock").read_text()

    assert all(f'key = "{found.packages.key}"' in text for found in built.packages)
    assert {endpoint.environment for endpoint in built.release.manifest.endpoints} == {
        found.packages.key for found in built.packages
    }


def test_the_note_of_a_layer_says_what_is_in_it(shop: Path, cache: Path) -> None:
    built = build(shop, cache)
    sizes = next(found.sizes for found in built.packages if "hello" in found.endpoints)

    assert [*sizes][0] == "sentences==2.0"
    assert sizes["sentences==2.0"] > 2_000_000
    assert json.loads(built.packages[0].stored.file.with_suffix("").with_suffix(".json").read_text())["facts"]


def test_a_server_of_somebody_elses_keeps_its_secrets_here(shop: Path, cache: Path, tmp_path: Path) -> None:
    """All beside its endpoint.toml counts for it, but not what is protected."""
    write(
        shop,
        {"endpoints/llm/endpoint.toml": 'command = "serve"\n', "endpoints/llm/.env": "A=1", "endpoints/llm/.rc": "x"},
    )
    built = build(shop, cache)
    source = unpacked(built, built.release.source.digest, tmp_path / "source")
    endpoint = built.release.manifest.endpoint("llm")
    assert endpoint is not None

    assert sorted(path.name for path in (source / "endpoints/llm").iterdir()) == [".rc", "endpoint.toml"]
    assert [found.path for found in endpoint.sources] == ["endpoints/llm/.rc", "endpoints/llm/endpoint.toml"]


def test_include_brings_no_secret_along(shop: Path, cache: Path) -> None:
    write(
        shop, {"endpoints/plain/endpoint.toml": 'include = ["key.pem", "gone.txt"]\n', "endpoints/plain/key.pem": "x"}
    )
    build_problems = "endpoints/plain/endpoint.toml:1: 'include' names 'endpoints/plain/key.pem', which is protected"
    with pytest.raises(ProjectError) as raised:
        build(shop, cache)

    assert any(str(problem).startswith(build_problems) for problem in raised.value.problems)
