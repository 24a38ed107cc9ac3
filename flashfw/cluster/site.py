"""What all pools of one server share: where things are, who makes environments and processes, whom to tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flashfw.cluster.clock import Clock, SystemClock
from flashfw.cluster.environments.base import EnvironmentMaker
from flashfw.cluster.events import Emit, silent
from flashfw.cluster.placement.base import Placement
from flashfw.cluster.webhooks.sending import Sending
from flashfw.cluster.workers.devices import Devices
from flashfw.manifest import Endpoint
from flashfw.worker.frames import Start

FILES = "files"
"""Where the files of jobs lie, in a server's state folder."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One server over one project, in whatever release. `variables` is the machine's environment as the CLI read it;
    `secrets` are values by name. `start_failures` is how many failed starts of a release that was
    never ready make an endpoint unhealthy: 3 on a server, 1 in `dev`, where a person waits. A release
    is described after `describe_after_s`, so that the worker that somebody waits for starts alone.
    `chance` is a number from 0 to 1, another each time. `schedules` tells whether jobs are started by
    the clock, `webhooks` how their ends are told, if at all. `devices` gives each GPU to one worker at a time; None
    where all workers share them, as in `dev`. With `reloads` workers may be asked to take in what was saved.
    """

    state: Path
    project: str
    environment: str
    boot: str
    placement: Placement
    environments: EnvironmentMaker
    overlay: Path
    variables: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    emit: Emit = silent
    start_failures: int = 3
    retries_at_call: bool = False
    describe_after_s: float = 0.0
    warm_ahead: int = 0
    """Of how many groups of endpoints a process to fork workers off is made ahead of the first worker, and kept."""
    schedules: bool = True
    webhooks: Sending | None = None
    files_synced: bool = False
    """Whether files of jobs have to outlast a power cut: it goes by the job store."""
    devices: Devices | None = None
    chance: Callable[[], float] = random.random
    reloads: bool = False

    def start_message(
        self, endpoint: Endpoint, encoded: dict[str, object], worker: str, *, root: Path, describe: bool
    ) -> Start:
        """What a worker of this endpoint is told first; the files that it serves lie at `root`."""
        return Start(
            endpoint=encoded,
            root=str(root),
            project=self.project,
            environment=self.environment,
            worker=worker,
            volumes={volume.name: str(self.volume(volume.name)) for volume in endpoint.volumes},
            secrets=[variable.name for variable in endpoint.secrets],
            describe=describe,
            files=str(self.files),
            synced=self.files_synced,
            reloads=self.reloads,
        )

    @property
    def local_webhooks(self) -> bool:
        """Whether callers may have webhooks sent to this machine itself."""
        return self.webhooks is not None and self.webhooks.allow_loopback

    @property
    def files(self) -> Path:
        """Where the files of jobs lie, of callers and of results."""
        return self.state / FILES

    def volume(self, name: str) -> Path:
        """The directory that stands for a volume on this machine; made at first use."""
        path = self.state / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path
