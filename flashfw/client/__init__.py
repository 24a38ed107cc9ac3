"""A client of the job API; the CLI's `call` uses it."""

from flashfw.client.client import Client, JobHandle, JobStatus
from flashfw.client.failures import (
    AmbiguousJobError,
    CallFailedError,
    StillRunningError,
    UnknownFunctionError,
    UnknownJobError,
)
from flashfw.client.options import CallOptions
from flashfw.client.sse import Event

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
