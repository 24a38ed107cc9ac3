from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.server import Wire, serving
from tests.conftest import StartDev

SHOP = Path(__file__).parent / "shop"


@pytest.fixture(scope="module")
def wire() -> Wire:
    return Wire()


@pytest.fixture(scope="module")
def wire_url(wire: Wire) -> Iterator[str]:
    with serving(wire.app()) as url:
        yield url


@pytest.fixture(scope="module")
def gateway_url(module_flashfw_dev: StartDev, tmp_path_factory: pytest.TempPathFactory) -> str:
    project = shutil.copytree(SHOP, tmp_path_factory.mktemp("client") / "shop")
    return module_flashfw_dev(project).url


@pytest.fixture(scope="module", params=["wire", "gateway"])
def url(request: pytest.FixtureRequest) -> str:
    """A server of the project under `shop/`: each implementation of the wire in turn."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address
