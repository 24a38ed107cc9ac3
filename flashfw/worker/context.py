"""What user code sees of the call it runs in; all of it works without a worker, as in a test of a handler."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from flashfw.errors import Exit, FlashfwError

environment: str = "dev"
"""Where this code runs: the name of the environment, `dev` on a laptop and under pytest."""

_volumes: Mapping[str, str] | None = None

_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TABLE = re.compile(r"^\s*\[\s*tool\s*\.\s*flashfw\b", re.MULTILINE)


class _Injected:
    """The type of `injected`."""

    def __repr__(self) -> str:
        return "flashfw.injected"


injected: Any = _Injected()
"""The default of a parameter that flashfw fills (`model=injected`), so that callers type-check without it."""


class Cancelled(BaseException):
    """This call was cancelled or ran out of time.

    Raised in synchronous code by `Job.progress` and at a `yield`. No `Exception`, so that a broad handler
    around the work does not swallow it.
    """


class WorkerBroken(Exception):
    """This worker can do no more work: the call is tried again on another one, and this one is replaced."""


class HTTPError(Exception):
    """Ends an HTTP call with a status of your choice; in a job, a failure that carries the status.

    >>> HTTPError(404, "no such user").status
    404
    """

    def __init__(self, status: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return str(self.status) if self.detail is None else f"{self.status}: {self.detail}"


class UnknownVolumeError(FlashfwError):
    """Code asked for a volume that its endpoint does not have."""

    exit = Exit.PROBLEMS


class Job:
    """The job that a handler is called for; take it by annotation: `def handler(n: int, job: flashfw.Job)`.

    `attempt` counts from 1, `deadline` is when this attempt times out (aware, UTC). In a test make one
    yourself: `handler(3, job=Job())`; what the handler reported is then in `latest`.
    """

    __slots__ = ("_cancelled", "_report", "attempt", "deadline", "id", "latest")

    def __init__(
        self,
        id: str = "local",
        attempt: int = 1,
        deadline: datetime | None = None,
        *,
        report: Callable[[Any], None] | None = None,
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.deadline = deadline or datetime.now(timezone.utc) + timedelta(minutes=10)
        self.latest: Any = None
        self._report = report
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the caller cancelled this job, or it ran out of time."""
        return self._cancelled

    def cancel(self) -> None:
        """Asks the handler to stop: `cancelled` becomes true, the next `progress` raises `Cancelled`."""
        self._cancelled = True

    def progress(self, value: Any = None, **fields: Any) -> None:
        """Reports how far the work is; the latest report is what callers see.

        Either one value (`progress(0.4)`), or fields (`progress(step=3, of=20)`), or both: the value is
        then the field `value`.

        Raises:
            Cancelled: the job was cancelled or ran out of time.
        """
        if self.cancelled:
            raise Cancelled(f"job {self.id} was cancelled")
        self.latest = _report_of(value, fields)
        if self._report is not None:
            self._report(self.latest)

    def __repr__(self) -> str:
        return f"Job(id={self.id!r}, attempt={self.attempt})"


def volume(name: str) -> Path:
    """The path of one of the endpoint's volumes, everywhere; outside a worker `.flashfw/volumes/NAME`.

    Raises:
        UnknownVolumeError: the endpoint has no volume of that name, or it cannot be one.
    """
    if _volumes is None:
        return _local_volume(name)
    try:
        return Path(_volumes[name])
    except KeyError:
        raise UnknownVolumeError(f"no volume named {name!r}", hint=_other_volumes(name, _volumes)) from None


def configure(*, name: str, volumes: Mapping[str, str]) -> None:
    """Tells user code where it runs; a worker calls it once, before it imports anything of the project."""
    global environment, _volumes
    environment = name
    _volumes = dict(volumes)


def _report_of(value: Any, fields: dict[str, Any]) -> Any:
    if not fields:
        return value
    return fields if value is None else {"value": value, **fields}


def _other_volumes(name: str, volumes: Mapping[str, str]) -> str:
    if close := difflib.get_close_matches(name, volumes, 1):
        return f"did you mean {close[0]!r}?"
    if volumes:
        return f"this endpoint has: {', '.join(sorted(volumes))}"
    return f'add volume = {{name = "{name}", size = "10GB"}} to its endpoint.toml'


def _local_volume(name: str) -> Path:
    if not _VOLUME.fullmatch(name):
        raise UnknownVolumeError(f"{name!r} cannot be the name of a volume", hint="use letters, digits, '-' and '_'")
    path = _project_root() / ".flashfw" / "volumes" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _project_root() -> Path:
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_root(folder)), here)


def _is_root(folder: Path) -> bool:
    if (folder / "flashfw.toml").is_file():
        return True
    pyproject = folder / "pyproject.toml"
    return pyproject.is_file() and _TABLE.search(pyproject.read_text("utf-8", "replace")) is not None
