"""What a worker's interpreter comes from: the protocol that every maker of environments keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flashfw.manifest import Endpoint


@dataclass(frozen=True, slots=True)
class Environment:
    """A finished environment: its interpreter, the key that names its folder, and `name==version` of what it holds."""

    python: Path
    key: str
    packages: tuple[str, ...] = ()


class EnvironmentMaker(Protocol):
    """Makes the environments of endpoints, each once. Lives as long as its server."""

    async def ensure(self, endpoint: Endpoint, root: Path) -> Environment:
        """The environment for workers of this endpoint, whose project lies at `root`; made if need be.

        Raises:
            EnvironmentFailed: it cannot be made; whose fault it is, and what to do.
        """
        ...
