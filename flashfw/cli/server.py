"""Which server a verb speaks to, and with which key: `--url`, the project's `flashfw dev`, or an environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flashfw.cli import output
from flashfw.client import credentials
from flashfw.dev import state
from flashfw.errors import ProjectError, TargetError, UsageError
from flashfw.project.model import Root
from flashfw.project.root import PYPROJECT, find
from flashfw.project.values import did_you_mean
from flashfw.ship import local

if TYPE_CHECKING:
    from flashfw.client.client import Client
    from flashfw.project.settings import ProjectSettings

DEV = "dev"
LOCAL = "local"

KEY = "FLASHFW_KEY"
"""The variable with the key to use, for scripts; it goes before one that is kept."""


@dataclass(frozen=True, slots=True)
class Server:
    """An address, the key for it, if one is known, and the authorities of its certificate beside the usual."""

    url: str
    key: str | None = field(default=None, repr=False)
    cafile: Path | None = None

    def client(self) -> Client:
        """Who calls its functions and pages."""
        from flashfw.client.client import Client

        return Client(self.url, self.key, cafile=self.cafile)


def locate(*, url: str | None, environment: str, root: Path | None) -> Server:
    """The server that the options of a command line name, with the key for it: of FLASHFW_KEY, or the one that is kept.

    Raises:
        NoProjectError: the answer is in a project, and there is none here.
        ProjectError: the project's settings cannot be read.
        UsageError: the environment is not declared or has no address; the kept keys cannot be read.
        TargetError: it is `local`, and no server of the project runs on this machine.
    """
    found = address(url=url, environment=environment, root=root)
    if found.key is not None:
        return found
    key = _given() or (credentials.read(found.url) if url is not None or environment != DEV else None)
    if key is not None:
        warn_if_exposed(found.url)
    return replace(found, key=key)


def address(*, url: str | None, environment: str, root: Path | None) -> Server:
    """As `locate`, with no key but that of a running `flashfw dev`.

    Raises:
        NoProjectError, ProjectError, UsageError: as `locate`.
    """
    if url is not None:
        return Server(_address(url))
    project = find(Path.cwd(), explicit=root)
    if environment == DEV and (running := state.served(project.path)):
        return Server(running.url, running.key)
    from flashfw.project.settings import load_settings  # the usual call goes to a running server and needs none

    settings, problems = load_settings(project)
    if environment == DEV:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return Server(f"http://{host}:{settings.port}")
    if environment == LOCAL:
        return Server(_local(settings.name))
    found = settings.environment(environment)
    if found is None and any(problem.level == "error" for problem in problems):
        raise ProjectError(problems)  # which may be why it is not there
    if found is None:
        raise undeclared(environment, project, settings, also=(DEV,))
    if not found.url:
        raise UsageError(
            f"the environment {environment!r} has no address",
            hint=f'write url = "https://..." under [environments.{environment}] in {project.config.name}',
        )
    return Server(found.url, cafile=project.path / found.cafile if found.cafile else None)


def undeclared(environment: str, root: Root, settings: ProjectSettings, *, also: tuple[str, ...] = ()) -> UsageError:
    """The error for an environment that the project does not declare, with the lines that declare it.

    What is in `also` may have been meant, too.
    """
    known = [found.name for found in settings.shippable]
    table = "tool.flashfw.environments" if root.config.name == PYPROJECT else "environments"
    meant = did_you_mean(environment, [*known, *also]) or f"there is: {', '.join(known)}"
    lines = f'    [{table}.{environment}]\n    url = "https://..."\n'
    return UsageError(
        f"the project declares no environment {environment!r}",
        hint=f"{meant}\n  or write into {root.config.name}:\n\n{lines}",
    )


def local_folder(project: str) -> Path:
    """Where the server of this machine keeps a project's data."""
    import platformdirs

    return local.folder(Path(platformdirs.user_data_dir("flashfw")), project)


def _local(project: str) -> str:
    """Where it listens: what its data says, since whoever else has its usual port is not to be asked with its key."""
    if url := local.running(local_folder(project)):
        return url
    raise TargetError(f"no local server of '{project}' runs", hint="`flashfw ship local` starts one")


def warn_if_exposed(url: str) -> None:
    """Say that others can read a key that goes there, if they can."""
    if credentials.is_exposed(url):
        warning = output.paint("warning:", "yellow", sys.stderr)
        output.note(f"{warning} the key goes to {url} unencrypted, and others on the way can read it: use https")


def _given() -> str | None:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{KEY} holds no key", hint="a key begins with fw_ and is printable ASCII")
    return key or None


def _address(url: str) -> str:
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return whole
    except ValueError:  # no port, or no address in its brackets
        pass
    raise UsageError(f"--url {url!r} is no address of a server", hint="write it as http://127.0.0.1:8888")
