"""The laptop runs what is locked, where that is up to date and for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from flashfw.build import lock as locks
from flashfw.build import resolving
from flashfw.build.lock import Lock
from flashfw.cluster.environments.environments import Environments
from flashfw.cluster.releases.platforms import platform_name, runs_on
from flashfw.dev.locked import LockedEnvironments, pin
from flashfw.project import root as roots
from flashfw.project.collect import collect
from tests.build.wheels import links, wheel
from tests.project.shop import JOB, sound, write

pytestmark = pytest.mark.anyio
PLATFORMS = ("x86_64-manylinux2014", "aarch64-manylinux2014", "aarch64-apple-darwin")
HERE = next((platform for platform in PLATFORMS if runs_on(platform, platform_name())), PLATFORMS[0])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project that asks for `alpha` in an old version, and was locked; a newer one came since."""
    table = links(tmp_path / "wheels")
    wheel(tmp_path / "wheels", "alpha", "1.0")
    write(
        tmp_path / "shop",
        {
            "pyproject.toml": table,
            "endpoints/a/handler.py": JOB,
            "endpoints/a/endpoint.toml": 'dependencies = ["alpha"]\n',
            "endpoints/b/handler.py": JOB,
        },
    )
    lock(tmp_path / "shop", HERE)
    wheel(tmp_path / "wheels", "alpha", "2.0")
    return tmp_path / "shop"


def lock(folder: Path, platform: str) -> Lock:
    project = collect(roots.find(folder))
    made = resolving.lock(project, previous=None, platform=platform, variables=variables(folder))
    locks.save(folder, made)
    return made


def variables(folder: Path) -> dict[str, str]:
    return {**os.environ, "UV_CACHE_DIR": str(folder.parent / "uv")}


async def alpha(shop: Path) -> str:
    """What an endpoint's workers would import."""
    environments = Environments(shop.parent / "cache", variables(shop))
    endpoint = pin(sound(shop), shop).manifest.endpoints[0]
    made = await LockedEnvironments(environments, variables(shop)).ensure(endpoint, shop)
    return next(package for package in made.packages if package.startswith("alpha=="))


async def test_the_locked_version_is_installed(shop: Path) -> None:
    assert await alpha(shop) == "alpha==1.0"
    (shop / locks.FILE).unlink()
    assert await alpha(shop) == "alpha==2.0"


async def test_a_lock_that_is_out_of_date_is_said_and_not_used(shop: Path) -> None:
    (shop / "endpoints/a/endpoint.toml").write_text('dependencies = ["alpha>=1"]\n')
    pinned = pin(sound(shop), shop)

    a, b = pinned.manifest.endpoints
    assert (a.environment, bool(b.environment)) == ("", True)
    said = "flashfw.lock is out of date for a: alpha>=1 is new, alpha is gone"
    assert pinned.note == f"{said}; until `flashfw lock` packages are resolved anew"
    assert await alpha(shop) == "alpha==2.0"


def test_what_is_locked_is_part_of_what_an_endpoint_is(shop: Path) -> None:
    before, pinned = sound(shop), pin(sound(shop), shop)

    assert pinned.note == ""
    for old, new in zip(before.endpoints, pinned.manifest.endpoints, strict=True):
        assert new.environment
        assert new.fingerprint != old.fingerprint
        assert replace(new, environment="", fingerprint=old.fingerprint) == old


def test_a_lock_for_another_platform_is_said_and_not_used(shop: Path) -> None:
    other = "x86_64-manylinux2014" if HERE.startswith("aarch64") else "aarch64-manylinux2014"
    lock(shop, other)

    said = f"flashfw.lock is for another platform ({other}): packages are resolved for this machine"
    assert pin(sound(shop), shop) == (sound(shop), said)


def test_without_a_lock_nothing_is_said(shop: Path) -> None:
    (shop / locks.FILE).unlink()
    assert pin(sound(shop), shop) == (sound(shop), "")


def test_a_damaged_lock_is_said_and_not_used(shop: Path) -> None:
    (shop / locks.FILE).write_text("<<<<<<< ours\n")
    assert pin(sound(shop), shop).manifest == sound(shop)
    assert "line 1 is left of a merge" in pin(sound(shop), shop).note
