"""A client of the job API; the CLI's `call` uses it."""

from flashfw.client.client import Client, JobHandle
from flashfw.client.failures import (
    AmbiguousJobError,
    CallFailedError,
    StillRunningError,
    UnknownFunctionError,
    UnknownJobError,
)
from flashfw.client.options import CallOptions
from flashfw.client.sse import Event
from flashfw.client.statuses import JobStatus

__all__ = [
    "AmbiguousJobError",
    "CallFailedError",
    "CallOptions",
    "Client",
    "Event",
    "JobHandle",
    "JobStatus",
    "StillRunningError",
    "UnknownFunctionError",
    "UnknownJobError",
]
