from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that servers run on: it reads and writes in other pieces than asyncio's own."""
    return "asyncio", {"use_uvloop": True}
