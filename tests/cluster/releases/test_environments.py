"""Environments of releases: an interpreter that imports from a layer, made once, and anew if half of it is left."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from flashfw.bundle.needs import EnvironmentFailed
from flashfw.bundle.release import Layer, Packages, Release
from flashfw.cluster.releases.environments import ReleaseEnvironments
from flashfw.cluster.releases.platforms import runs_on
from flashfw.manifest import Manifest
from tests.cluster.bench import an_endpoint

pytestmark = pytest.mark.anyio

VERSION = ".".join(map(str, sys.version_info[:2]))
PACKAGES = Packages(
    key="0123456789abcdef",
    python=VERSION,
    platform="x86_64-manylinux_2_28",
    layer=Layer(digest="a" * 64, size_bytes=1),
    distributions=("shop_lib==1",),
)


def environments(folder: Path) -> ReleaseEnvironments:
    layer = folder / "layers" / PACKAGES.layer.digest
    layer.mkdir(parents=True, exist_ok=True)
    (layer / "shop_lib.py").write_text("VALUE = 7\n")
    return ReleaseEnvironments(folder / "environments", lambda digest: folder / "layers" / digest, {})


async def test_its_interpreter_imports_what_was_shipped_and_nothing_else(tmp_path: Path) -> None:
    made = environments(tmp_path)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(made.made, PACKAGES)
    found = await made.made(PACKAGES)
    code = "import shop_lib; print(shop_lib.VALUE)\ntry: import pydantic\nexcept ImportError: print('alone')"
    ran = await anyio.run_process([found.python, "-c", code])

    assert ran.stdout.split() == [b"7", b"alone"]
    assert (found.key, found.packages) == (PACKAGES.key, PACKAGES.distributions)
    complete = tmp_path / "environments" / PACKAGES.key / ".complete"
    before = complete.stat().st_mtime_ns
    assert await made.made(PACKAGES) == found
    assert complete.stat().st_mtime_ns == before

    complete.unlink()  # as a server leaves it that was killed meanwhile
    again = await environments(tmp_path).made(PACKAGES)
    assert (again, complete.is_file()) == (found, True)


async def test_a_python_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match=r"this server has no Python 3\.99"):
        await environments(tmp_path).made(replace(PACKAGES, python="3.99"))


async def test_only_what_a_release_has_is_made_and_what_none_needs_goes(tmp_path: Path) -> None:
    made = environments(tmp_path)
    endpoint = an_endpoint(environment=PACKAGES.key)
    with pytest.raises(EnvironmentFailed, match="no release here has the environment"):
        await made.ensure(endpoint, tmp_path)
    manifest = Manifest(project="shop", environment="prod", endpoints=(endpoint,))
    made.know(Release(manifest=manifest, source=PACKAGES.layer, packages=(PACKAGES,), flashfw="0.1.0"))
    found = await made.ensure(endpoint, tmp_path)
    made.remove_unused([PACKAGES.key])
    assert found.python.exists()

    made.remove_unused([])

    assert not found.python.exists()
    assert made.layers_of([PACKAGES.key, "other"]) == {PACKAGES.layer.digest}
    assert (await made.ensure(endpoint, tmp_path)).python.exists()


@pytest.mark.parametrize(
    ("built", "host", "runs"),
    [
        ("x86_64-manylinux_2_28", "x86_64-manylinux_2_28", True),
        ("x86_64-manylinux2014", "x86_64-manylinux_2_28", True),
        ("x86_64-manylinux_2_40", "x86_64-manylinux_2_28", False),
        ("aarch64-manylinux_2_28", "x86_64-manylinux_2_28", False),
        ("x86_64-unknown-linux-gnu", "x86_64-manylinux_2_17", True),
        ("linux", "x86_64-manylinux_2_17", True),
        ("arm64-apple-darwin", "aarch64-apple-darwin", True),
        ("x86_64-unknown-linux-musl", "x86_64-manylinux_2_28", False),
    ],
)
def test_platforms_are_compared_by_their_names(built: str, host: str, runs: bool) -> None:
    assert runs_on(built, host) is runs
