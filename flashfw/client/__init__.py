"""A client of the job API; the CLI's `call` uses it."""

from flashfw.client.client import Client, JobHandle, JobStatus
from flashfw.client.failures import CallFailedError, StillRunningError, UnknownFunctionError
from flashfw.client.sse import Event

__all__ = [
    "CallFailedError",
    "Client",
    "Event",
    "JobHandle",
    "JobStatus",
    "StillRunningError",
    "UnknownFunctionError",
]
