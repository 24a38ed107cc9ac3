from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flashfw
from flashfw.worker.failure import REDACTED, Failures, Redaction, is_broken

SECRETS = st.text(min_size=6, max_size=30).filter(lambda text: text.strip() == text and text not in REDACTED)


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Foreign(Exception):
    __module__ = "numba.cuda.cudadrv"


@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_a_secret_never_stays(secret: str, before: str, after: str) -> None:
    assert secret not in Redaction([secret])(before + "|" + secret + "|" + after).replace(REDACTED, "")


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("abc", "abc stays, it is too short", "abc stays, it is too short"),
        ("", "nothing", "nothing"),
        ('qu"o\\te', 'json {"k":"qu\\"o\\\\te"}', 'json {"k":"[redacted]"}'),
        ("line one\nline two", "only line two here", "only [redacted] here"),
        ("secret\n", "my secret", "my [redacted]"),
        ("tab\there", repr({"k": "tab\there"}), "{'k': '[redacted]'}"),
    ],
)
def test_forms_of_a_secret(secret: str, text: str, shown: str) -> None:
    assert Redaction([secret])(text) == shown


def test_the_longer_secret_goes_first() -> None:
    assert Redaction(["hunter", "hunter22"])("hunter22 hunter") == "[redacted] [redacted]"


def test_secrets_leave_values() -> None:
    redact = Redaction(["hunter22"])
    assert redact.value({"a": ["x hunter22", 1, None]}) == {"a": ["x [redacted]", 1, None]}
    assert Redaction([]).value({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (flashfw.WorkerBroken("x"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (Foreign("Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS"), True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), False),
        (OutOfMemoryError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), False),
        (ValueError("the column CUDA error is unknown"), False),
        (RuntimeError("no"), False),
        (MemoryError(), False),
    ],
)
def test_what_breaks_a_worker(error: Exception, broken: bool) -> None:
    assert is_broken(error) is broken


def test_a_wrapped_error_breaks_the_worker_too() -> None:
    inner = RuntimeError("CUDA error: device-side assert triggered")
    outer = ValueError("the model failed")
    outer.__cause__ = inner
    assert is_broken(outer)
    inner.__cause__ = outer  # a circle ends
    assert is_broken(outer)


BAD_TEXT = "class E(Exception):\n  def __str__(self): return 1 / 0\nraise E"
CHAINED = "try:\n    1 / 0\nexcept Exception as error:\n    raise ValueError('x') from error\n"


def run(root: Path, source: str) -> BaseException:
    """What a project file with this source raises when it runs."""
    file = root / "endpoints" / "a" / "handler.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    try:
        exec(compile(source, str(file), "exec"), {})
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 / 0", {"type": "ZeroDivisionError", "message": "division by zero", "place": "endpoints/a/handler.py:1"}),
        ("\nimport json\njson.loads('{')", {"type": "JSONDecodeError", "place": "endpoints/a/handler.py:3"}),
        ("x = (", {"type": "SyntaxError", "message": "'(' was never closed", "place": "endpoints/a/handler.py:1"}),
        ("import nowhere_at_all", {"type": "ModuleNotFoundError"}),
        ("raise KeyError('a')", {"message": "'a'"}),
        (BAD_TEXT, {"message": "<its __str__ raised ZeroDivisionError>"}),
    ],
)
def test_type_message_and_place(tmp_path: Path, source: str, expected: dict[str, Any]) -> None:
    failure = dict(Failures(tmp_path, Redaction([])).of(run(tmp_path, source), "handler_error"))
    assert {key: failure.get(key) for key in expected} == expected
    assert str(expected.get("type", "")) in str(failure["traceback"])


def test_the_types_of_a_handlers_error_are_told_with_its_bases(tmp_path: Path) -> None:
    failures = Failures(tmp_path, Redaction([]))
    error = run(tmp_path, "class Busy(ConnectionError): __module__ = 'endpoints.a.handler'\nraise Busy")
    names = ["endpoints.a.handler.Busy", "builtins.ConnectionError", "builtins.OSError", "builtins.Exception"]

    assert failures.of(error, "handler_error")["types"] == [*names, "builtins.BaseException"]
    assert "types" not in failures.of(error, "startup")


def test_a_missing_module_says_what_to_do(tmp_path: Path) -> None:
    failure = Failures(tmp_path, Redaction([])).of(run(tmp_path, "import nowhere_at_all"), "startup")
    assert failure["message"].startswith("No module named 'nowhere_at_all'; add it to `dependencies` in endpoint.toml")


def test_the_cause_is_part_of_the_traceback(tmp_path: Path) -> None:
    failure = Failures(tmp_path, Redaction([])).of(run(tmp_path, CHAINED), "handler_error")
    assert "ZeroDivisionError" in failure["traceback"]
    assert "direct cause" in failure["traceback"]


def test_a_volume_error_keeps_the_users_frames_only(tmp_path: Path) -> None:
    failure = Failures(tmp_path, Redaction([])).of(
        run(tmp_path, "import flashfw\nflashfw.volume('/')"), "handler_error"
    )
    assert failure["place"] == "endpoints/a/handler.py:2"
    assert "flashfw/worker" not in failure["traceback"]


def test_a_long_traceback_keeps_both_ends(tmp_path: Path) -> None:
    error = ValueError("begin" + "x" * 100_000 + "end")
    failure = Failures(tmp_path, Redaction([])).of(error, "handler_error")
    assert len(failure["traceback"]) < 25_000
    assert "characters left out" in failure["traceback"]
    assert failure["traceback"].endswith("end\n")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in 3.11")
def test_groups_are_stripped_too(tmp_path: Path) -> None:
    failure = Failures(tmp_path, Redaction([])).of(
        run(tmp_path, "raise ExceptionGroup('many', [ValueError('one'), KeyError('two')])"), "handler_error"
    )
    assert "ValueError: one" in failure["traceback"]


def test_an_http_exception_keeps_status_detail_and_headers(tmp_path: Path) -> None:
    from starlette.exceptions import HTTPException

    failures = Failures(tmp_path, Redaction(["hunter22"]))
    failure = failures.of(HTTPException(404, "no hunter22", headers={"x-a": "hunter22"}), "handler_error")
    assert (failure["status"], failure["detail"], failure["headers"]) == (404, "no [redacted]", {"x-a": "[redacted]"})
    failure = failures.of(flashfw.HTTPError(409, {"why": [1, Path("x")]}), "handler_error")
    assert (failure["status"], failure["detail"]) == (409, {"why": [1, "x"]})


def test_an_invalid_input_names_its_fields(tmp_path: Path) -> None:
    errors = [{"loc": ["a", 0], "msg": "Field required", "type": "missing"}, {"loc": [], "msg": "no", "type": "x"}]
    failure = Failures(tmp_path, Redaction([])).invalid(errors)
    assert (failure["reason"], failure["status"], failure["errors"]) == ("validation", 422, errors)
    assert failure["message"] == "a.0: Field required; input: no"
