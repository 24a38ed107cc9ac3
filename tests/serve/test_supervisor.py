"""Who holds the socket, over gateways that start, take over, die, and do not end: real processes with scripts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from flashfw.errors import Exit
from flashfw.serve import supervisor
from flashfw.serve.supervisor import GatewayFailed, Supervisor, Told

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).with_name("gateway_script.py")
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0,))


class Stage:
    """A supervisor whose gateways do what `modes` say, one after the other; `heard` is all that it told."""

    def __init__(self, *modes: str, stop_s: float = DEADLINE_S, shows_key: bool = False) -> None:
        self.modes = list(modes)
        self.started: list[subprocess.Popen[bytes]] = []
        self.heard: list[str] = []
        self._news = anyio.Event()
        told = Told(line=self._hear, serving=self._serving, notify=self._notify)
        self.supervisor = Supervisor(self._launch, told=told, stop_s=stop_s, shows_key=shows_key)

    def _launch(self, channel: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", str(SCRIPT), str(channel), self.modes.pop(0)]
        self.started.append(subprocess.Popen(command, pass_fds=[channel], stdin=subprocess.DEVNULL))
        return self.started[-1]

    def _serving(self, fields: dict[str, Any]) -> None:
        self._hear(f"serving {fields['mode']}{', and may show a key' if fields['shows_key'] else ''}")

    def _notify(self, text: str) -> None:
        self._hear(text.partition("\n")[0])

    def _hear(self, line: str) -> None:
        self.heard.append(line)
        self._news.set()

    async def until(self, words: str, *, times: int = 1) -> None:
        """Until so many lines hold these words."""
        with anyio.fail_after(DEADLINE_S):
            while sum(words in line for line in self.heard) < times:
                self._news = anyio.Event()
                await self._news.wait()

    def told(self, words: str) -> bool:
        return any(words in line for line in self.heard)


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[Stage]:
    """Until the block ends, then in good order; all gateways have ended."""
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.supervisor.run)
            yield stage
            stage.supervisor.stop()
    assert all(gateway.returncode is not None for gateway in stage.started)


async def test_a_gateway_serves_until_it_is_stopped() -> None:
    async with running(Stage("good")) as stage:
        await stage.until("READY=1")

    assert stage.heard == ["serving good", "READY=1", "STOPPING=1"]
    assert stage.started[0].returncode == 0


async def test_the_next_one_serves_once_the_one_before_has_ended() -> None:
    async with running(Stage("good", "better")) as stage:
        await stage.until("serving good")
        stage.supervisor.restart()
        await stage.until("serving better")
        assert stage.started[0].returncode == 0
        await stage.until("READY=1", times=2)

    assert stage.heard[2] == "RELOADING=1"


async def test_only_the_first_may_make_a_key_that_somebody_sees() -> None:
    async with running(Stage("first", "second", shows_key=True)) as stage:
        await stage.until("serving first")
        stage.supervisor.restart()
        await stage.until("serving second")

    assert [line for line in stage.heard if line.startswith("serving")] == [
        "serving first, and may show a key",
        "serving second",
    ]


async def test_a_restart_that_is_asked_for_meanwhile_follows() -> None:
    async with running(Stage("first", "second", "third")) as stage:
        await stage.until("serving first")
        for _ in range(3):
            stage.supervisor.restart()
        await stage.until("serving third")


@pytest.mark.parametrize(("mode", "why"), [("broken", "it ended with 9"), ("refuses", "the certificate expired")])
async def test_a_next_one_that_cannot_serve_leaves_the_one_before_at_work(mode: str, why: str) -> None:
    async with running(Stage("good", mode, "better")) as stage:
        await stage.until("serving good")
        stage.supervisor.restart()
        await stage.until(f"gateway {stage.started[0].pid} serves on: {why}")
        assert stage.started[0].poll() is None
        stage.supervisor.restart()
        await stage.until("serving better")


async def test_one_that_dies_is_replaced() -> None:
    async with running(Stage("dies", "late", "good")) as stage:
        await stage.until("serving good")

    assert stage.told("it was killed by SIGKILL")
    assert stage.told("the disk is full")


@pytest.mark.parametrize(
    ("mode", "exit", "why"),
    [
        ("broken", Exit.INTERNAL, "the gateway ended with 9 before it served"),
        ("refuses", Exit.USAGE, "the certificate expired; renew it"),
        ("late", Exit.TARGET, "the disk is full; make room"),
    ],
)
async def test_a_first_one_that_cannot_serve_is_the_end(mode: str, exit: Exit, why: str) -> None:
    stage = Stage(mode)

    with pytest.raises(GatewayFailed, match=why) as failed, anyio.fail_after(DEADLINE_S):
        await stage.supervisor.run()
    assert failed.value.exit == exit


async def test_one_that_does_not_end_is_killed() -> None:
    async with running(Stage("hangs", "good", stop_s=0.05)) as stage:
        await stage.until("serving hangs")
        stage.supervisor.restart()
        await stage.until("serving good")

    assert stage.told("takes too long")
    assert stage.started[0].returncode == -9


async def test_asked_again_it_ends_at_once() -> None:
    async with running(Stage("hangs")) as stage:
        await stage.until("serving hangs")
        stage.supervisor.stop()

    assert stage.started[0].returncode == -9


async def test_a_gateway_that_cannot_be_started_is_tried_again() -> None:
    stage = Stage("good")
    launch: Callable[[int], subprocess.Popen[bytes]] = stage.supervisor._launch
    tries = iter([OSError(11, "Resource temporarily unavailable")])

    def fails_once(channel: int) -> subprocess.Popen[bytes]:
        for error in tries:
            raise error
        return launch(channel)

    stage.supervisor._launch = fails_once
    async with running(stage):
        await stage.until("serving good")
    assert stage.told("cannot start a gateway: [Errno 11] Resource temporarily unavailable")


async def test_one_that_never_says_that_it_could_serve_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(Stage("good", "silent", "better")) as stage:
        await stage.until("serving good")
        monkeypatch.setattr(supervisor, "STANDBY_S", 0.01)
        stage.supervisor.restart()
        await stage.until("takes too long")
        await stage.until("not restarted")
        monkeypatch.undo()
        stage.supervisor.restart()
        await stage.until("serving better")


async def test_who_has_served_well_is_replaced_at_once_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SERVED_WELL_S", 0.0)
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0, 10 * DEADLINE_S))
    async with running(Stage("dies", "dies", "dies", "good")) as stage:
        await stage.until("serving good")
