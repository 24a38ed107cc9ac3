"""The GPUs of a server, each given to one worker at a time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import anyio

from flashfw.cluster.clock import Clock, limit
from flashfw.cluster.workers.gpus import Gpu, Gpus, read_gpus
from flashfw.errors import FlashfwError
from flashfw.manifest import Endpoint

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOOK_S = 0.5
COOLING_S = 30.0
"""For how long a GPU is kept back after its worker is gone, while its memory does not come free. Another program may
hold it; then the next worker says so better than we can."""
FREE_AGAIN = 0.95
"""Of the memory that was free before a worker got it: so much must be so again."""

FreeBytes = Callable[[], Awaitable[Mapping[str, int]]]
"""The memory that is free now on each GPU, by its uuid."""


class DevicesShort(FlashfwError):
    """An endpoint wants GPUs that this server will never have free, or had none free in time."""


class Lender(Protocol):
    """Whose idle workers may give their GPUs to somebody who waits."""

    def idle_since(self) -> float | None:
        """Since when (monotonic) one has been idle that it can do without; None if there is no such."""
        ...

    def lend(self, why: str) -> str:
        """End that one; its id."""
        ...


@dataclass(slots=True, eq=False)
class _Waiting:
    endpoint: Endpoint
    worker: str


class Devices:
    """Gives the GPUs of this server to workers, first come first served. Lives as long as its server.

    `gpus` is what there is. `free_bytes` reads what is free of their memory, where that can be known: a GPU is given
    again once its worker's process is gone, and its memory with it. A server without any GPU gives none, and its
    workers run on the CPU as in `dev`. `lenders` are asked when somebody waits.
    """

    def __init__(self, gpus: Gpus, *, clock: Clock, free_bytes: FreeBytes | None = None) -> None:
        self.gpus = gpus
        self.lenders: list[Lender] = []
        self.clock = clock
        self._free_bytes = free_bytes
        self._free = list(gpus.devices)
        self._held: dict[str, tuple[Gpu, ...]] = {}
        self._leaving: set[str] = set()
        self._cooling: dict[str, tuple[float, Gpu]] = {}
        self._most_free = {gpu.uuid: gpu.free_bytes for gpu in gpus.devices}
        self._waiting: list[_Waiting] = []
        self._changed = anyio.Event()

    def wants(self, endpoint: Endpoint) -> int:
        """How many GPUs a worker of this endpoint takes here."""
        return endpoint.gpu_count if endpoint.gpu and self.gpus.devices else 0

    def variables(self, gpus: tuple[Gpu, ...]) -> dict[str, str]:
        """What a worker sees of the machine's GPUs: those that it was given, so none if it asked for none."""
        return {VISIBLE: ",".join(gpu.uuid for gpu in gpus)} if self.gpus.devices else {}

    def room(self, endpoint: Endpoint, *, promised: int = 0) -> float:
        """How many more workers of this endpoint could start now without waiting, if others get `promised` GPUs."""
        if not (count := self.wants(endpoint)):
            return math.inf
        soon = [*self._free, *(gpu for _, gpu in self._cooling.values())]
        ahead = sum(self.wants(waiting.endpoint) for waiting in self._waiting)
        return max(0, (len(self._fitting(endpoint, soon)) - ahead - promised) // count)

    async def lease(self, endpoint: Endpoint, worker: str, *, on_wait: Callable[[str], None]) -> tuple[Gpu, ...]:
        """GPUs for a worker, at once or when others gave theirs back; `on_wait` is told why it waits.

        Raises:
            DevicesShort: this server can never give what the endpoint wants.
        """
        if not self.wants(endpoint):
            return ()
        if lacking := self._lacking(endpoint):
            raise DevicesShort(f"{endpoint.id} {lacking}", hint="change its endpoint.toml, or ship to another server")
        waiting = _Waiting(endpoint, worker)
        self._waiting.append(waiting)
        try:
            while (found := await self._granted(waiting)) is None:
                on_wait(self._why(endpoint))
                self._ask(waiting)
                changed = self._changed
                with limit(self.clock, LOOK_S):
                    await changed.wait()
            return found
        finally:
            self._waiting.remove(waiting)
            self._ring()

    def give_back(self, worker: str) -> None:
        """A worker's process is gone: what it had is another's, once its memory is free."""
        self._leaving.discard(worker)
        for gpu in self._held.pop(worker, ()):
            if self._free_bytes is None:
                self._free.append(gpu)
            else:
                self._cooling[gpu.uuid] = (self.clock.monotonic(), gpu)
        self._ring()

    async def _granted(self, waiting: _Waiting) -> tuple[Gpu, ...] | None:
        await self._cool()
        if self._waiting[0] is not waiting:
            return None
        endpoint, free = waiting.endpoint, self._fitting(waiting.endpoint, self._free)
        if len(free) < endpoint.gpu_count:
            return None
        given = tuple(free[: endpoint.gpu_count])
        self._free = [gpu for gpu in self._free if gpu not in given]
        self._held[waiting.worker] = given
        return given

    async def _cool(self) -> None:
        """Free the GPUs whose memory has come back, or did not for so long that somebody else must have it."""
        if not self._cooling or self._free_bytes is None:
            return
        free, now = await self._free_bytes(), self.clock.monotonic()
        for uuid, (since, gpu) in list(self._cooling.items()):
            is_free = free.get(uuid, 0) >= FREE_AGAIN * self._most_free[uuid]
            if uuid in self._cooling and (is_free or now - since >= COOLING_S):
                del self._cooling[uuid]
                self._free.append(gpu)

    def _ask(self, waiting: _Waiting) -> None:
        """If not enough is on its way already, have the longest idle worker that can be spared give its GPUs."""
        if self._waiting[0] is not waiting:
            return
        coming = [gpu for _, gpu in self._cooling.values()]
        coming += [gpu for worker in self._leaving for gpu in self._held.get(worker, ())]
        if len(self._fitting(waiting.endpoint, [*self._free, *coming])) >= waiting.endpoint.gpu_count:
            return
        idle = [(since, lender) for lender in self.lenders if (since := lender.idle_since()) is not None]
        if idle:
            _, lender = min(idle, key=lambda found: found[0])
            self._leaving.add(lender.lend(f"its GPU is for {waiting.endpoint.id}, which waits for one"))

    def _fitting(self, endpoint: Endpoint, gpus: list[Gpu]) -> list[Gpu]:
        """Those that an endpoint may have, the best first: of the types that it names if the server has any of them."""
        order = {name.casefold(): rank for rank, name in enumerate(endpoint.gpu)}
        if not any(gpu.name.casefold() in order for gpu in self.gpus.devices):
            return sorted(gpus, key=lambda gpu: gpu.index)
        named = [gpu for gpu in gpus if gpu.name.casefold() in order]
        return sorted(named, key=lambda gpu: (order[gpu.name.casefold()], gpu.index))

    def _lacking(self, endpoint: Endpoint) -> str:
        have = len(self._fitting(endpoint, list(self.gpus.devices)))
        if have < endpoint.gpu_count:
            return f"wants {endpoint.gpu_count} GPUs, and this server has {have} for it"
        if endpoint.cuda and self.gpus.cuda and _version(self.gpus.cuda) < _version(endpoint.cuda):
            return f"wants CUDA {endpoint.cuda}, and this server's driver runs CUDA up to {self.gpus.cuda}"
        return ""

    def _why(self, endpoint: Endpoint) -> str:
        have, ahead = len(self._held), len(self._waiting) - 1
        others = f", {ahead} {'waits' if ahead == 1 else 'wait'} as well" if ahead else ""
        return f"no GPU is free for it: {have} worker{' has' if have == 1 else 's have'} those of this server{others}"

    def _ring(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def own_devices(clock: Clock, *, visible: str | None = None) -> Devices:
    """The GPUs of this machine; with `visible` (the server's own CUDA_VISIBLE_DEVICES) only those that it names."""
    found = await anyio.to_thread.run_sync(read_gpus)
    return Devices(_visible(found, visible), clock=clock, free_bytes=_read_free)


def _visible(gpus: Gpus, visible: str | None) -> Gpus:
    if visible is None or not gpus.devices:
        return gpus
    names = [name.strip() for name in visible.split(",") if name.strip()]
    kept = tuple(gpu for gpu in gpus.devices if any(_is_named(gpu, name) for name in names))
    why = "" if kept else f"the server was started with {VISIBLE}={visible}"
    return Gpus(devices=kept, driver=gpus.driver, cuda=gpus.cuda, why=why)


def _is_named(gpu: Gpu, name: str) -> bool:
    return str(gpu.index) == name or gpu.uuid.startswith(name)


async def _read_free() -> Mapping[str, int]:
    found = await anyio.to_thread.run_sync(read_gpus)
    return {gpu.uuid: gpu.free_bytes for gpu in found.devices}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
