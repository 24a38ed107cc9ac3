"""Bringing one worker up: its GPUs, its environment, its process, its link, and why that failed when it did."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import anyio

from flashfw import manifest
from flashfw.cluster.clock import Clock, limit
from flashfw.cluster.environments.environ import worker_environ
from flashfw.cluster.placement.base import Process, WorkerSpec
from flashfw.cluster.site import Site
from flashfw.cluster.workers.devices import DevicesShort, Lender
from flashfw.cluster.workers.gpus import Gpu
from flashfw.cluster.workers.link import Link
from flashfw.cluster.workers.worker import Worker
from flashfw.errors import FlashfwError
from flashfw.manifest import Endpoint
from flashfw.worker.failure import Redaction
from flashfw.worker.frames import Failure, Frame, Kind, Ready

EXIT_PATIENCE_S = 1.0
"""How long a process whose link ended may take to exit by itself, so that its own exit code is known."""
COMMAND_MARGIN_S = 10.0
"""A worker that stands for a command times its start itself, and knows more of why it failed; it is given so long to
begin and to tell."""


class Launch:
    """One attempt to bring a worker up, and the end of that worker."""

    def __init__(self, worker: Worker, clock: Clock, *, on_frame: Callable[[Frame], None]) -> None:
        self.on_frame = on_frame
        self.settled = anyio.Event()
        self.lost = anyio.Event()
        self.ready: Ready | None = None
        self.failure: Failure | None = None
        self.described: dict[str, object] | None = None
        self._worker = worker
        self._clock = clock
        self._attending: asyncio.Task[None] | None = None

    def take(self, frame: Frame) -> None:
        """Every frame of the link: the first ones are answers to START, the rest belong to calls."""
        if frame.kind is Kind.READY:
            self.ready = frame.meta  # type: ignore[assignment]
            self.settled.set()
        elif frame.kind is Kind.BROKEN:
            self.failure = frame.meta  # type: ignore[assignment]
            self.settled.set()
        elif frame.kind is Kind.DESCRIBED:
            self.described = frame.meta["functions"]
            self.settled.set()
        else:
            self.on_frame(frame)

    def lose(self, why: str) -> None:
        """The link ended."""
        self._worker.is_deaf = True
        self.lost.set()
        self.settled.set()

    def attend(self, process: Process, link: Link) -> None:
        """End the link once the process is gone: a child of it that lives on may hold the other end open."""
        self._attending = asyncio.ensure_future(self._attend(process, link))

    async def ended(self) -> str:
        """Wait until the process is gone, killing it if it lingers; how it ended, for people."""
        process = self._worker.process
        if process is None:
            return "never started"
        with limit(self._clock, EXIT_PATIENCE_S):
            return exit_text(await process.wait())
        process.kill()
        return exit_text(await process.wait())

    async def _attend(self, process: Process, link: Link) -> None:
        await process.wait()
        with limit(self._clock, EXIT_PATIENCE_S):
            await self.lost.wait()  # what it sent last is still to be read
        link.close()


async def equip(worker: Worker, site: Site, lender: Lender, *, on_wait: Callable[[str], None]) -> Failure | None:
    """Give a worker its GPUs. One of a release to come does not wait for ever: its rollout would."""
    endpoint, devices = worker.endpoint, site.devices
    if devices is None or not devices.wants(endpoint):
        return None
    if lender not in devices.lenders:
        devices.lenders.append(lender)
    try:
        with limit(site.clock, endpoint.start_timeout_s if worker.stage else None) as scope:
            worker.gpus = await devices.lease(endpoint, worker.id, on_wait=on_wait)
    except DevicesShort as error:
        return startup_failure(str(error), type="DevicesShort")
    worker.is_throttled = False
    if scope.cancelled_caught:
        return startup_failure(f"within {endpoint.start_timeout_s:g} s {worker.why_throttled}")
    return None


async def launch(worker: Worker, site: Site, attempt: Launch, *, describe: bool = False) -> Failure | None:
    """Bring a worker up until it is ready (or has described itself); None, or why it is not.

    The environment is made outside `start_timeout`: a first download may take longer than any start.
    """
    endpoint = worker.endpoint
    try:
        environment = await site.environments.ensure(endpoint, worker.root)
        worker.environment_s = site.clock.monotonic() - worker.created_at
        with limit(site.clock, _patience_s(endpoint)) as scope:
            await _start(worker, site, attempt, environment.python, describe=describe)
            await attempt.settled.wait()
    except FlashfwError as error:
        return startup_failure(str(error), type=type(error).__name__)
    except OSError as error:
        return startup_failure(f"the worker cannot be started: {error}", type=type(error).__name__)
    if scope.cancelled_caught:
        if worker.process is not None:
            worker.process.kill()
        return startup_failure(f"not ready within start_timeout ({endpoint.start_timeout_s:g} s)")
    if attempt.ready is not None:
        worker.ready = attempt.ready
        worker.files.update(attempt.ready["files"])
        return None
    if attempt.described is not None:
        return None
    return attempt.failure or startup_failure(await _last_words(worker, site, attempt))


def _patience_s(endpoint: Endpoint) -> float:
    return endpoint.start_timeout_s + (COMMAND_MARGIN_S if endpoint.command else 0.0)


async def _start(worker: Worker, site: Site, attempt: Launch, python: Path, *, describe: bool) -> None:
    endpoint = worker.endpoint
    spec = worker_spec(worker.id, endpoint, site, python, root=worker.root, gpus=worker.gpus)
    worker.process = await site.placement.start(spec)
    worker.link = await _linked(worker.process, attempt)
    attempt.attend(worker.process, worker.link)
    encoded = manifest.encode(endpoint)
    told = site.start_message(endpoint, encoded, worker.id, root=worker.root, describe=describe)
    worker.send(Kind.START, 0, told)


def worker_spec(
    name: str, endpoint: Endpoint, site: Site, python: Path, *, root: Path, gpus: tuple[Gpu, ...] = ()
) -> WorkerSpec:
    """A worker of an endpoint whose files lie at `root`, to be run by the interpreter of its environment.

    Raises:
        SecretMissing: the endpoint names a secret that is not there.
    """
    variables = worker_environ(endpoint, machine=site.variables, secrets=site.secrets)
    return WorkerSpec(
        worker=name,
        endpoint=endpoint.id,
        python=python,
        overlay=site.overlay,
        root=root,
        environ={**variables, **(site.devices.variables(gpus) if site.devices else {})},
        secrets=frozenset(variable.name for variable in endpoint.secrets),
        preload=endpoint.preload,
    )


async def _linked(process: Process, attempt: Launch) -> Link:
    try:
        return await Link.over(process.sock, attempt.take, attempt.lose)
    except BaseException:
        process.sock.close()
        raise


def startup_failure(message: str, *, type: str = "StartupError") -> Failure:
    """A `Failure` for a start that broke outside of user code."""
    return Failure(reason="startup", type=type, message=message)


def exit_text(code: int) -> str:
    """How a process ended, for people.

    >>> exit_text(-9)
    'killed by SIGKILL'
    >>> exit_text(3)
    'exited with code 3'
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def _last_words(worker: Worker, site: Site, attempt: Launch) -> str:
    """How a worker ended, with its last output: nobody has taken the secrets out of that."""
    assert worker.process is not None
    how = await attempt.ended()
    redact = Redaction(site.secrets.get(secret.value, "") for secret in worker.endpoint.secrets)
    output = redact(worker.process.last_output.strip())
    return f"the worker {how} before it was ready" + (f":\n{output}" if output else "")
