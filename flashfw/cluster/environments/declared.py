"""Environments of a working tree: what each endpoint declares, resolved and installed on this machine."""

from __future__ import annotations

from pathlib import Path

from flashfw.cluster.environments.base import Environment
from flashfw.cluster.environments.environments import Environments
from flashfw.manifest import Endpoint


class DeclaredEnvironments:
    """An `EnvironmentMaker` that goes by `dependencies` and `python` of the endpoint."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments

    async def ensure(self, endpoint: Endpoint, root: Path) -> Environment:
        """As `EnvironmentMaker.ensure`; relative paths of requirements start at `root`."""
        return await self._environments.ensure(
            endpoint.dependencies, python=endpoint.python, project_root=root, owner=endpoint.id
        )
