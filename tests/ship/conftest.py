"""A server in memory, and a target that speaks with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flashfw.ship.cluster import Cluster
from tests.ship.fake import FakeServer, serving


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as running:
        yield running


@pytest.fixture
def target(server: FakeServer) -> Iterator[Cluster]:
    with Cluster("prod", server.url, "fw_admin_x") as found:
        yield found
