"""An exception of user code to the Failure that travels: what, where in the project, and without secrets."""

from __future__ import annotations

import importlib
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flashfw
from flashfw.errors import FlashfwError
from flashfw.worker.context import HTTPError, WorkerBroken
from flashfw.worker.frames import Failure
from flashfw.worker.load import is_project_file

SHORTEST_SECRET = 4
"""Shorter values are part of too many words to be taken out of a text."""
REDACTED = "[redacted]"
_TRACEBACK_CHARACTERS = 20_000

_OWN = os.path.dirname(flashfw.__file__) + os.sep
_CUDA = re.compile(
    r"CUDA error|CUDA_ERROR_|cudaError|CUDNN_STATUS_|CUBLAS_STATUS_|cuDNN error|device-side assert|NVRTC_ERROR", re.I
)
_STICKY = re.compile(
    r"illegal (memory access|address|instruction)|device-side assert|misaligned|unspecified launch", re.I
)
_GPU_PACKAGES = ("torch", "cupy", "cupy_backends", "jax", "jaxlib", "numba", "pycuda", "tensorflow", "onnxruntime")


class Redaction:
    """Takes known secret values out of texts.

    >>> Redaction(["hunter22"])("the key is hunter22")
    'the key is [redacted]'
    """

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part for value in values for part in _forms(value) if len(part) >= SHORTEST_SECRET}
        self._parts = sorted(parts, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for part in self._parts:
            if part in text:
                text = text.replace(part, REDACTED)
        return text

    def value(self, value: Any) -> Any:
        """The same for all texts in a JSON value."""
        if not self._parts:
            return value
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value


class Failures:
    """Makes Failures for one project: `root` is where its files are, `redact` knows its secrets."""

    def __init__(self, root: Path, redact: Redaction) -> None:
        self._root = root.resolve()
        self._redact = redact

    def of(self, error: BaseException, reason: str) -> Failure:
        """The Failure of an exception: its type, message, traceback and innermost place in the project."""
        try:
            return self._of(error, reason)
        except Exception as fault:  # the user's exception class, or one too large to tell; a call always ends
            message = f"(it cannot be told: {type(fault).__name__})"
            return Failure(reason=reason, type=type(error).__name__, message=message, traceback="")

    def _of(self, error: BaseException, reason: str) -> Failure:
        failure = Failure(
            reason=reason,
            type=type(error).__name__,
            message=self._redact(_message(error)),
            traceback=self._redact(_traceback(error)),
        )
        if reason == "handler_error":
            failure["types"] = _types(error)
        if place := self._place(error):
            failure["place"] = place
        if is_broken(error):
            failure["broken"] = True
        self._add_status(failure, error)
        return failure

    def invalid(self, errors: list[dict[str, Any]]) -> Failure:
        """The Failure of an input that does not fit the function."""
        shown = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'input'}: {error['msg']}" for error in errors)
        return Failure(
            reason="validation",
            type="ValidationError",
            message=self._redact(shown),
            traceback="",
            errors=self._redact.value(errors),
            status=422,
        )

    def _add_status(self, failure: Failure, error: BaseException) -> None:
        status: Any = getattr(error, "status_code", None)  # Starlette's and FastAPI's HTTPException
        if isinstance(error, HTTPError):
            status = error.status
        if not isinstance(status, int) or not hasattr(error, "detail"):
            return
        failure["status"] = status
        failure["detail"] = self._redact.value(_plain(error.detail))
        if headers := getattr(error, "headers", None):
            failure["headers"] = {str(key): self._redact(str(value)) for key, value in dict(headers).items()}

    def _place(self, error: BaseException) -> str:
        if isinstance(error, SyntaxError) and error.filename and is_project_file(error.filename, self._root):
            return f"{Path(error.filename).relative_to(self._root)}:{error.lineno}"
        for one in _chain(error):
            for frame, line in reversed(list(traceback.walk_tb(one.__traceback__))):
                if is_project_file(frame.f_code.co_filename, self._root):
                    return f"{Path(frame.f_code.co_filename).relative_to(self._root)}:{line}"
        return ""


def is_broken(error: BaseException) -> bool:
    """Whether the process that raised this can do no more work: `WorkerBroken`, or a CUDA context that is lost.

    Out of memory on a device is no such error, unless its text shows that the context went with it.
    """
    return any(isinstance(one, WorkerBroken) or _is_cuda(one) for one in _chain(error))


def _types(error: BaseException) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__ if cls is not object]


def _is_cuda(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError) and type(error).__module__.split(".")[0] not in _GPU_PACKAGES:
        return False
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError":
        return _STICKY.search(text) is not None
    return _CUDA.search(text) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    try:
        text = str(error)
    except Exception as broken:  # the user's own __str__
        return f"<its __str__ raised {type(broken).__name__}>"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text}; add it to `dependencies` in endpoint.toml, or check the spelling"
    return text


def _traceback(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error)
    _strip(shown, set())
    if isinstance(error, FlashfwError) and not shown.stack:
        return ""  # the message says it all, and the place is told beside it
    text = "".join(shown.format())
    if len(text) <= _TRACEBACK_CHARACTERS:
        return text
    half = _TRACEBACK_CHARACTERS // 2
    return f"{text[:half]}\n  [{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def _strip(shown: Any, seen: set[int]) -> None:
    """Leaves out frames of flashfw and of the import machinery, in causes and groups too."""
    if shown is None or id(shown) in seen:
        return
    seen.add(id(shown))
    frames = [frame for frame in shown.stack if not _is_own(frame.filename)]
    shown.stack = traceback.StackSummary.from_list(frames)
    _strip(shown.__cause__, seen)
    _strip(shown.__context__, seen)
    for member in getattr(shown, "exceptions", None) or ():
        _strip(member, seen)


def _is_own(filename: str) -> bool:
    return filename.startswith((_OWN, "<frozen importlib")) or filename == importlib.__file__


def _plain(value: Any) -> Any:
    """A detail as JSON: what is no JSON is told by its text."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def _forms(secret: str) -> Iterator[str]:
    """How a secret may appear: as it is, as Python or JSON quotes it, and line by line."""
    stripped = secret.strip()
    yield stripped
    yield repr(stripped)[1:-1]
    yield stripped.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    if "\n" in stripped:
        yield from (line for line in stripped.splitlines() if len(line) >= 2 * SHORTEST_SECRET)
