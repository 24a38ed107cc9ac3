from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Plain asyncio tells of what was left open by an error; uvloop can but warn of it (`tests/dev/test_uvloop.py`)."""
    return "asyncio"
