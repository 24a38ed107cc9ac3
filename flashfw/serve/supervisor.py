"""The process that outlives gateways: it holds the listening socket, and has one gateway at a time answer on it.

A restart starts the next gateway beside the one that serves. It loads, says that it could serve, and waits; only then
the old one stops, and connections wait in the socket's queue until the new one accepts them. A next one that cannot
serve (a certificate that has expired, a flashfw that does not import) ends, and the old one goes on.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flashfw.errors import Exit, FlashfwError
from flashfw.serve.channel import Channel, Word

BACKOFF_S = (0.1, 0.5, 2.0, 5.0, 10.0, 30.0)
"""Waits before a gateway that died is replaced; the first ones again after it has served for `SERVED_WELL_S`."""

SERVED_WELL_S = 60.0
STANDBY_S = 120.0
"""How long a gateway may take to load."""

Launch = Callable[[int], subprocess.Popen[bytes]]
"""Starts a gateway that has the channel at this descriptor."""


class GatewayFailed(FlashfwError):
    """The first gateway could not serve; what it said, with its own exit code."""

    def __init__(self, what: str, *, hint: str = "", exit: Exit = Exit.INTERNAL) -> None:
        super().__init__(what, hint=hint)
        self.exit = exit


@dataclass(frozen=True, kw_only=True)
class Told:
    """Who hears what happens: lines for people, the first moment of service, what a service manager is to know."""

    line: Callable[[str], None]
    serving: Callable[[dict[str, Any]], None]
    notify: Callable[[str], None] = lambda text: None


@dataclass(eq=False)
class Gateway:
    """A gateway's process and where it stands."""

    process: subprocess.Popen[bytes]
    channel: Channel
    is_standby: bool = False
    serves_since: float | None = None
    failure: dict[str, Any] = field(default_factory=dict)


class Supervisor:
    """One gateway at a time. `stop_s` is how long one may take to end once it is asked to; then it is killed.

    `shows_key` lets the first one make an admin key for a server without any: somebody is there who reads it.
    Everything happens in `run`, one event after the other: signals, words of gateways, their ends, waits that are over.
    """

    def __init__(self, launch: Launch, *, told: Told, stop_s: float, shows_key: bool = False) -> None:
        self._launch = launch
        self._shows_key = shows_key
        self._told = told
        self._stop_s = stop_s
        self._send, self._events = anyio.create_memory_object_stream[tuple[str, Any]](1000)
        self._serving: Gateway | None = None
        self._next: Gateway | None = None
        self._has_served = False
        self._stopping = False
        self._again = False
        self._deaths = 0
        self._failure: GatewayFailed | None = None
        self._tasks: TaskGroup

    def restart(self) -> None:
        """Have a fresh gateway take over."""
        self._send.send_nowait(("restart", None))

    def stop(self) -> None:
        """End in good order; asked again, at once."""
        self._send.send_nowait(("stop", None))

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            GatewayFailed: the first gateway could not serve.
        """
        async with self._send, self._events, anyio.create_task_group() as self._tasks:
            try:
                await self._start()
                async for name, what in self._events:
                    await self._take(name, what)
                    if self._failure is not None or (self._stopping and not self._living()):
                        break
            finally:
                self._kill_all()
                self._tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _take(self, name: str, what: Any) -> None:
        if name == "stop":
            self._stop()
        elif name == "restart":
            await self._restart()
        elif name == "start" and not self._living() and not self._stopping:
            await self._start()
        elif name == "late" and what.process.poll() is None:
            self._told.line(f"gateway {what.process.pid} takes too long to start or to end: it is killed")
            what.process.kill()
        elif name == "said":
            self._hear(*what)
        elif name == "ended":
            self._ended(what)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = self._launch(theirs.fileno())
        except OSError as error:
            ours.close()
            self._told.line(f"cannot start a gateway: {error}")
            self._told.notify("READY=1")
            if self._serving is None:
                self._start_later()
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._next = Gateway(process, await Channel.over(ours))
        self._tasks.start_soon(self._follow, self._next)
        self._tasks.start_soon(self._expect_standby, self._next)

    async def _follow(self, gateway: Gateway) -> None:
        """What a gateway says, and its end; the channel ends with the process."""
        while (word := await gateway.channel.hear()) is not None:
            await self._send.send(("said", (gateway, word)))
        with anyio.move_on_after(self._stop_s):
            await anyio.to_thread.run_sync(gateway.process.wait, abandon_on_cancel=True)
        if gateway.process.poll() is None:
            gateway.process.kill()
            gateway.process.wait()
        await gateway.channel.close()
        await self._send.send(("ended", gateway))

    async def _expect_standby(self, gateway: Gateway) -> None:
        await anyio.sleep(STANDBY_S)
        if not gateway.is_standby:
            await self._send.send(("late", gateway))

    async def _restart(self) -> None:
        if self._stopping:
            return
        if self._next is not None:  # it may have read what is to be read anew
            self._again = True
            return
        self._told.notify(reloading())
        await self._start()

    def _stop(self) -> None:
        if self._stopping:
            self._told.line("ending at once")
            self._kill_all()
            return
        self._stopping = True
        self._told.notify("STOPPING=1")
        for gateway in self._living():
            self._end(gateway)

    def _end(self, gateway: Gateway) -> None:
        async def late() -> None:
            await anyio.sleep(self._stop_s)
            await self._send.send(("late", gateway))

        gateway.channel.say("stop")
        self._tasks.start_soon(late)

    def _hear(self, gateway: Gateway, word: Word) -> None:
        if word.name == "standby":
            gateway.is_standby = True
            if self._serving is not None and not self._stopping:
                self._told.line(f"gateway {gateway.process.pid} takes over from {self._serving.process.pid}")
                self._end(self._serving)
            self._go()
        elif word.name == "failed":
            gateway.failure = word.fields
        elif word.name == "serving":
            gateway.serves_since = anyio.current_time()
            if self._has_served:
                self._told.line(f"gateway {gateway.process.pid} serves")
            self._has_served = True
            self._told.serving(word.fields)
            self._told.notify("READY=1")
            self._restart_again()

    def _go(self) -> None:
        """Let the next gateway serve, if nobody does."""
        if self._serving is None and self._next is not None and self._next.is_standby and not self._stopping:
            self._serving, self._next = self._next, None
            self._serving.channel.say("go", shows_key=self._shows_key and not self._has_served)

    def _restart_again(self) -> None:
        if self._again:
            self._again = False
            self.restart()

    def _ended(self, gateway: Gateway) -> None:
        was_next = gateway is self._next
        if was_next:
            self._next = None
        else:
            self._serving = None
        if self._stopping:
            return
        if not self._has_served:
            self._failure = _failure(gateway)
        elif was_next and self._serving is not None:
            self._told.line(f"not restarted, gateway {self._serving.process.pid} serves on: {_why(gateway)}")
            self._told.notify("READY=1")
            self._restart_again()
        elif self._next is None:
            self._replace(gateway)
        self._go()

    def _replace(self, gateway: Gateway) -> None:
        """Start another one in place of one that died, the later the more often that happened."""
        since = gateway.serves_since
        if since is not None and anyio.current_time() - since >= SERVED_WELL_S:
            self._deaths = 0
        self._told.line(f"gateway {gateway.process.pid}: {_why(gateway)}")
        self._start_later()

    def _start_later(self) -> None:
        wait_s = BACKOFF_S[min(self._deaths, len(BACKOFF_S) - 1)]
        self._deaths += 1
        self._told.line(f"the next gateway starts in {wait_s:g} s")

        async def later() -> None:
            await anyio.sleep(wait_s)
            await self._send.send(("start", None))

        self._tasks.start_soon(later)

    def _living(self) -> list[Gateway]:
        return [gateway for gateway in (self._serving, self._next) if gateway is not None]

    def _kill_all(self) -> None:
        for gateway in self._living():
            if gateway.process.poll() is None:
                gateway.process.kill()
                gateway.process.wait()


def reloading() -> str:
    """What a service manager wants to hear of a restart."""
    return f"RELOADING=1\nMONOTONIC_USEC={int(asyncio.get_running_loop().time() * 1e6)}"


def _failure(gateway: Gateway) -> GatewayFailed:
    said = gateway.failure
    if not said:
        return GatewayFailed(f"the gateway {_code(gateway)} before it served", hint="what it wrote is above")
    code = said.get("exit")
    known = Exit(code) if isinstance(code, int) and code in list(Exit) else Exit.INTERNAL
    return GatewayFailed(str(said.get("what")), hint=str(said.get("hint") or ""), exit=known)


def _why(gateway: Gateway) -> str:
    return str(gateway.failure.get("what") or f"it {_code(gateway)}")


def _code(gateway: Gateway) -> str:
    code = gateway.process.returncode
    return f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
