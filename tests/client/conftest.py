from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.server import Wire, serving

SHOP = Path(__file__).parent / "shop"


@pytest.fixture(scope="module")
def wire() -> Wire:
    return Wire()


@pytest.fixture(scope="module")
def wire_url(wire: Wire) -> Iterator[str]:
    with serving(wire.app()) as url:
        yield url


@pytest.fixture(scope="module", params=["wire"])
def url(request: pytest.FixtureRequest) -> str:
    """A server of the project under `shop/`: each implementation of the wire in turn."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address
