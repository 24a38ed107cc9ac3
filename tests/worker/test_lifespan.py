from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette

from flashfw.worker.lifespan import Lifespan, LifespanFailed, is_application

WAIT_S = 10.0
App = Callable[[Any, Any, Any], Awaitable[None]]


async def _asgi(scope: Any, receive: Any, send: Any) -> None: ...


class _Callable:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def _factory(model: Any) -> Any: ...


async def _async_factory(a: Any, b: Any, c: Any) -> Any: ...


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_asgi, True),
        (_Callable(), True),
        (Starlette(), True),
        (_Callable().__call__, True),
        (_factory, False),
        (_async_factory, False),
        (Starlette, False),
    ],
)
def test_what_is_an_application(value: Any, expected: bool) -> None:
    assert is_application(value) is expected


def script(*answers: str, message: str = "") -> tuple[App, list[str]]:
    """An application that answers each lifespan message in turn, or raises; and what it was told."""
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for answer in answers:
            told.append((await receive())["type"])
            if answer == "raise":
                raise RuntimeError("no lifespan here")
            await send({"type": f"{told[-1]}.{answer}", "message": message})

    return app, told


def both(app: App) -> None:
    async def run() -> None:
        lifespan = Lifespan(app)
        await lifespan.startup()
        await lifespan.shutdown()

    asyncio.run(asyncio.wait_for(run(), WAIT_S))


def test_start_and_end_are_told() -> None:
    app, told = script("complete", "complete")
    both(app)
    assert told == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("answers", [(), ("raise",), ("complete", "raise")])
def test_an_application_without_lifespan_is_left_alone(answers: tuple[str, ...]) -> None:
    app, _ = script(*answers)
    both(app)


def test_a_failed_start_gives_its_reason() -> None:
    app, _ = script("failed", message="no database")
    with pytest.raises(LifespanFailed, match="no database"):
        both(app)


def test_a_failed_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = script("complete", "failed", message="still open")
    with caplog.at_level(logging.ERROR):
        both(app)
    assert "still open" in caplog.text
