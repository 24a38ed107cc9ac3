"""What is wrong with a middleware.py, told from its source, and whom the manifest says it is around."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import shop

GOOD = "async def middleware(request, call_next):\n    return await call_next(request)\n"


@pytest.mark.parametrize(
    "source",
    [
        GOOD,
        "middleware = []\n",
        "errors = {ValueError: print}\n",
        "from lib import middleware\n",
        "from lib import errors, middleware\n",
        "@decorated\ndef middleware(anything): ...\n",
        "async def middleware(*args): ...\n",
        "async def middleware(request, call_next, *, retries=2): ...\n",
        "if True:\n    errors = {}\nelse:\n    middleware = []\n",
    ],
)
def test_what_a_middleware_may_be(tmp_path: Path, source: str) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.HTTP, "endpoints/a/middleware.py": source, "lib.py": ""})

    assert shop.told(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "line", "named"),
    [
        ("", 1, "defines neither 'middleware' nor 'errors'"),
        ("import os\n\n\ndef middelware(request, call_next): ...\n", 4, "did you mean 'middleware'?"),
        ("\ndef middleware(request, call_next): ...\n", 2, "must be async"),
        ("async def middleware(request): ...\n", 1, "takes exactly the request and `call_next`"),
        ("async def middleware(request, call_next, model): ...\n", 1, "no fixtures"),
        ("async def middleware(request, call_next, *, model): ...\n", 1, "no fixtures"),
        ("class middleware:\n    pass\n", 1, "is a class"),
        (f"{GOOD}\n\ndef errors(): ...\n", 5, "'errors' is a function"),
        ("def (", 1, "syntax error"),
    ],
)
def test_what_a_middleware_may_not_be(tmp_path: Path, source: str, line: int, named: str) -> None:
    files = {"endpoints/a/handler.py": shop.HTTP, "endpoints/b/handler.py": shop.JOB, "endpoints/middleware.py": source}
    manifest, problems = shop.compiled(shop.write(tmp_path, files))

    (problem,) = problems
    assert (problem.file, problem.line, problem.level) == ("endpoints/middleware.py", line, "error")
    assert named in f"{problem.what} {problem.hint}"
    assert [endpoint.id for endpoint in manifest.endpoints] == ["b"]  # jobs have no middleware


def test_one_that_only_jobs_are_below_is_told_of(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": shop.JOB, "endpoints/a/middleware.py": GOOD})

    manifest, (problem,) = shop.compiled(tmp_path)

    assert (problem.level, "jobs have no middleware" in problem.what) == ("warning", True)
    assert [function.middleware for endpoint in manifest.endpoints for function in endpoint.functions] == [()]


def test_the_manifest_says_whom_it_is_around_the_outermost_first(tmp_path: Path) -> None:
    files = {
        "endpoints/middleware.py": GOOD,
        "endpoints/a/handler.py": shop.HTTP,
        "endpoints/a/deep/middleware.py": GOOD,
        "endpoints/a/deep/er/handler.py": shop.HTTP,
        "endpoints/site/handler.py": "app = object()\n",
        "endpoints/job/handler.py": shop.JOB,
    }

    manifest = shop.sound(shop.write(tmp_path, files))

    top, deep = "endpoints/middleware.py", "endpoints/a/deep/middleware.py"
    found = {function.id: function.middleware for endpoint in manifest.endpoints for function in endpoint.functions}
    assert found == {"a::get": (top,), "a/deep/er::get": (top, deep), "site": (top,), "job": ()}


def test_a_websocket_must_be_async(tmp_path: Path) -> None:
    shop.write(tmp_path, {"endpoints/a/handler.py": "\ndef websocket(ws): ...\n"})

    assert "endpoints/a/handler.py:2: 'websocket' must be async" in shop.told(tmp_path)[0]
