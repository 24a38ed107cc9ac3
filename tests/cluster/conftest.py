from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Plain asyncio tells of what was left open; uvloop waits for it in `close`. Processes of dev run on uvloop."""
    return "asyncio"
