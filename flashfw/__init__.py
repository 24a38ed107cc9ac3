"""flashfw: a folder of Python files becomes autoscaled GPU and CPU endpoints.

The names below are what handlers, fixtures and tests import. Nothing heavy is imported with the
package: each name loads its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flashfw.worker.bind import ValidationFailed as ValidationFailed
    from flashfw.worker.context import Cancelled as Cancelled
    from flashfw.worker.context import HTTPError as HTTPError
    from flashfw.worker.context import Job as Job
    from flashfw.worker.context import WorkerBroken as WorkerBroken
    from flashfw.worker.context import environment as environment
    from flashfw.worker.context import injected as injected
    from flashfw.worker.context import volume as volume
    from flashfw.worker.files import File as File
    from flashfw.worker.markers import Body as Body
    from flashfw.worker.markers import Cookie as Cookie
    from flashfw.worker.markers import Form as Form
    from flashfw.worker.markers import Header as Header
    from flashfw.worker.markers import Query as Query

_PUBLIC = {
    "Body": "flashfw.worker.markers",
    "Cancelled": "flashfw.worker.context",
    "Cookie": "flashfw.worker.markers",
    "File": "flashfw.worker.files",
    "Form": "flashfw.worker.markers",
    "HTTPError": "flashfw.worker.context",
    "Header": "flashfw.worker.markers",
    "Job": "flashfw.worker.context",
    "Query": "flashfw.worker.markers",
    "ValidationFailed": "flashfw.worker.bind",
    "WorkerBroken": "flashfw.worker.context",
    "environment": "flashfw.worker.context",
    "injected": "flashfw.worker.context",
    "volume": "flashfw.worker.context",
}

__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'flashfw' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return list(__all__)
