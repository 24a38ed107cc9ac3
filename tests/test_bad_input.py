"""What users get wrong, tried through what they touch: the `flashfw` command, `flashfw dev`, and HTTP.

One project holds every mistake that a tree can have beside endpoints that are sound: each mistake is told by
`check` and `dev` in one go, and the sound ones serve all the while. `COVERED` says which test tries what;
requests that are malformed as HTTP are tried in `test_bad_requests.py`.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any, BinaryIO

import httpx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator

from flashfw.errors import Exit
from tests.command import COMMAND, flashfw
from tests.conftest import StartDev
from tests.covered import untested
from tests.dev_process import DevServer, wait_until
from tests.wire import Reply, exchange, request

JOB_API, OPTIONS = (f"cluster/gateway/test_{name}.py::" for name in ("job_api", "options"))
WEBHOOKS, GONE = "cluster/webhooks/test_sending.py::", "cluster/dispatch/test_gone.py::"
COVERED = {
    "unknown key": "test_the_tree_is_checked_at_once",
    "wrong type": "test_the_tree_is_checked_at_once",
    "out of range": "test_the_tree_is_checked_at_once",
    "TOML syntax error": "test_the_tree_is_checked_at_once test_a_broken_project_file",
    "handler syntax error": "test_the_tree_is_checked_at_once",
    "handler that raises on import": "test_an_endpoint_that_cannot_start_says_why",
    "missing dependency": "test_an_endpoint_that_cannot_start_says_why test_the_tree_is_checked_at_once",
    "two kinds in one endpoint": "test_the_tree_is_checked_at_once",
    "every conflict of names and URLs": "test_the_tree_is_checked_at_once",
    "a name that is no identifier or a keyword": "test_the_tree_is_checked_at_once",
    "unreadable file": "test_what_may_not_be_read",
    "symlink loop": "test_the_tree_is_checked_at_once",
    "port in use": "test_a_port_that_cannot_be_had",
    "second dev": "test_a_second_dev_names_the_first",
    "body that is no JSON": "test_a_body_that_is_no_json",
    "body one byte over the limit": "test_a_body_at_the_limit_and_one_byte_over",
    "wrong content type": "test_parameters_that_do_not_fit",
    "missing, extra and wrong parameters": "test_parameters_that_do_not_fit",
    "foreign Host and Origin": "test_foreign_pages test_own_names",
    "a worker that exits": "test_workers_that_go_wrong",
    "a worker that hangs": "test_a_hanging_job_ends_by_its_timeout",
    "a worker that blocks its loop": "test_workers_that_go_wrong",
    "a worker that eats memory": "test_workers_that_go_wrong",
    "a worker that prints 100 MB": "test_workers_that_go_wrong",
    "a result that cannot be encoded": "test_results_and_errors_of_every_kind",
    "a fixture that raises": "test_an_endpoint_that_cannot_start_says_why",
    "unknown job id": f"{JOB_API}test_jobs_of_another_function_are_unknown",
    "another function's job id": f"{JOB_API}test_jobs_of_another_function_are_unknown",
    "double cancel": f"{JOB_API}test_a_cancel_says_how_the_job_ended_however_often_it_comes",
    "retry of a running job": f"{JOB_API}test_only_what_failed_is_retried",
    "negative ttl": f"{OPTIONS}test_a_header_that_is_wrong {OPTIONS}test_a_field_that_is_wrong",
    "options wrong all at once": f"{OPTIONS}test_all_that_is_wrong_is_told_at_once",
    "idempotency key that is none": f"{OPTIONS}test_a_header_that_is_wrong",
    "same idempotency key, other body": f"{OPTIONS}test_a_key_with_another_input_is_a_conflict",
    "webhook to nowhere": f"{WEBHOOKS}test_nobody_is_there {WEBHOOKS}test_a_name_that_nobody_knows",
    "webhook to a private address": "cluster/webhooks/test_addresses.py::test_a_webhook_may_not_be",
    "webhook that redirects": f"{WEBHOOKS}test_a_redirect_is_not_followed",
    "a result over the limit": "worker/test_jobs.py::test_failures",
    "a function removed by a reload": f"{GONE}test_queued_jobs_of_a_function_that_is_gone_end_after_a_minute "
    f"{JOB_API}test_jobs_of_a_function_that_is_gone_can_be_looked_at_and_cancelled",
    "cron that never fires": "project/test_keys.py::test_refused",
    "a batch of the wrong length": "worker/test_batches.py::test_another_length_fails_all",
    "any JSON to a function and to the job API": "test_answers_are_those_of_the_openapi_document",
    "compressed body": f"{JOB_API}test_compressed_bodies_are_refused",
    "server of another kind": "cli/test_jobs.py::test_a_server_of_another_kind_is_7",
}
"""Each kind of bad input and the tests that try it: of this file, or of another one below `tests/`."""

SOUND = {
    "flashfw.toml": "",
    "endpoints/echo/handler.py": "def handler(text: str, times: int = 1) -> str:\n    return text * times\n",
    "endpoints/anything/handler.py": "def handler(input):\n    return input\n",
    "endpoints/size/handler.py": "def handler(input):\n    return len(input)\n",
    "endpoints/people/_id_/handler.py": """
        def get(id: int) -> int:
            return id

        def put(id: int, name: str, age: int = 1) -> str:
            return f"{id} {name} {age}"
        """,
    "endpoints/result/handler.py": """
        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError("no words")

        def handler(kind: str):
            if kind == "cycle":
                ring = []
                ring.append(ring)
                return ring
            if kind == "chunk":
                return (object() for _ in range(2))
            if kind in RAISED:
                raise RAISED[kind]
            return RETURNED[kind]

        RAISED = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "memory": MemoryError(), "mute": Mute()}
        RETURNED = {"object": object(), "key": {(1, 2): 3}, "half": "\\ud800", "huge": 10**5000}
        """,
    "endpoints/die/handler.py": "import os\n\ndef handler() -> None:\n    os._exit(7)\n",
    "endpoints/hang/endpoint.toml": "timeout = '5s'\n",
    "endpoints/hang/handler.py": "import time\n\ndef handler() -> None:\n    time.sleep(60)\n",
    "endpoints/block/handler.py": "import time\n\nasync def handler() -> str:\n    time.sleep(1)\n    return 'done'\n",
    "endpoints/eat/endpoint.toml": "memory = '200MB'\n",
    "endpoints/eat/handler.py": """
        import time

        def handler() -> None:
            hoard = []
            while len(hoard) < 50:
                hoard.append(bytearray(20_000_000))
                time.sleep(0.01)
        """,
    "endpoints/flood/handler.py": """
        def handler() -> str:
            line = "x" * 1023
            for _ in range(100 * 1024):
                print(line)
            return "done"
        """,
    "endpoints/raises/handler.py": "import json\n\njson.loads('')\n\ndef handler() -> None: ...\n",
    "endpoints/misses/handler.py": "import numppy\n\ndef handler() -> None: ...\n",
    "endpoints/nowhere/endpoint.toml": "dependencies = ['flashfw-has-no-such-package==1.0']\n",
    "endpoints/nowhere/handler.py": "def handler() -> None: ...\n",
    "endpoints/clash/endpoint.toml": "dependencies = ['pydantic<2']\n",
    "endpoints/clash/handler.py": "def handler() -> None: ...\n",
    "endpoints/fixture/fixtures.py": "def model() -> str:\n    raise RuntimeError('no weights here')\n",
    "endpoints/fixture/handler.py": "def handler(model) -> str:\n    return model\n",
}
"""Endpoints that can be served, whatever they do when they are called."""

JOB = "def handler() -> None: ...\n"
GET = "def get() -> None: ...\n"

MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "unknown key": (
        {"key/handler.py": JOB, "key/endpoint.toml": "worker = 3\n"},
        "key/endpoint.toml:1: unknown key 'worker'; did you mean 'workers'?",
    ),
    "wrong type": (
        {"type/handler.py": JOB, "type/endpoint.toml": "\nconcurrency = 'many'\n"},
        "type/endpoint.toml:2: 'concurrency' must be a whole number of 1 or more, not \"many\"",
    ),
    "out of range": (
        {"range/handler.py": JOB, "range/endpoint.toml": "idle_timeout = '2h'\n"},
        "range/endpoint.toml:1: 'idle_timeout' must be from 1s to 1h, not \"2h\"",
    ),
    "toml": ({"toml/handler.py": JOB, "toml/endpoint.toml": "workers = = 2\n"}, "toml/endpoint.toml:1: not TOML"),
    "no text": (
        {"latin/handler.py": JOB, "latin/endpoint.toml": "# caf\udce9\n"},
        "latin/endpoint.toml:1: is not UTF-8: byte 0xe9; save it as UTF-8",
    ),
    "syntax": ({"syntax/handler.py": "\ndef handler(:\n"}, "syntax/handler.py:2: syntax error: "),
    "not installed": ({}, "misses/handler.py:1: warning: imports 'numppy', which no dependency of 'misses' provides"),
    "no requirement": (
        {"require/handler.py": JOB, "require/endpoint.toml": "dependencies = ['no such!']\n"},
        'require/endpoint.toml:1: \'dependencies[0]\' must be a requirement such as "torch>=2.4", not "no such!"',
    ),
    "two kinds": (
        {"kinds/handler.py": "def handler(): ...\ndef get(): ...\n"},
        "kinds/handler.py:2: one endpoint is one kind: 'get' makes it HTTP, but 'handler' makes it a job "
        "(endpoints/kinds/handler.py:1)",
    ),
    "same url": (
        {"one/handler.py": "route = '/same'\n" + GET, "other/handler.py": "route = '/same'\n" + GET},
        "other/handler.py:2: GET /same is taken twice: by 'other::get' and by 'one::get' (endpoints/one/handler.py:2)",
    ),
    "two names of a level": (
        {"level/_x_/handler.py": "def get(x): ...", "level/_y_/handler.py": "def put(y): ..."},
        "level/_y_/handler.py:1: one dynamic level has two names, 'y' and 'x', at '/level/{}'",
    ),
    "a name twice": (
        {"twice/_x_/b/_x_/handler.py": "def get(x): ..."},
        "twice/_x_/b/_x_/handler.py:1: the parameter 'x' stands twice in '/twice/{x}/b/{x}'",
    ),
    "case": (
        {"upper/handler.py": "route = '/Lower'\n" + GET, "lower/handler.py": GET},
        "'/Lower' and '/lower' differ by case only",
    ),
    "method and directory": (
        {"method/handler.py": "class handler:\n    def up(self): ...\n", "method/up/handler.py": JOB},
        "method/handler.py:2: the method 'up' has the URL of the directory endpoints/method/up",
    ),
    "not taken": (
        {"taken/_id_/handler.py": GET},
        "taken/_id_/handler.py:1: no parameter takes 'id' of '/taken/{id}'; write `def get(id: ...)`",
    ),
    "keyword": ({"class/handler.py": JOB}, "class: 'class' cannot be part of a path: it is a Python keyword"),
    "no identifier": ({"Bad-Name/handler.py": JOB}, "Bad-Name: 'Bad-Name' cannot be part of a path"),
    "loop": ({"loop/handler.py": JOB, "loop/again": "->../loop"}, "loop/again: symlink loop: it leads back to "),
}
"""Mistakes of a tree: the files below `endpoints/`, and what is said of them. `->` begins the target of a link."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all mistakes and all sound endpoints."""
    root = tmp_path_factory.mktemp("bad") / "shop"
    broken = {f"endpoints/{name}": text for files, _ in MISTAKES.values() for name, text in files.items()}
    return write(root, {**SOUND, **broken})


@pytest.fixture(scope="module")
def shop(project: Path, module_flashfw_dev: StartDev) -> DevServer:
    """`flashfw dev` over that project."""
    return module_flashfw_dev(project)


@pytest.fixture(scope="module")
def hanging(shop: DevServer) -> str:
    """The id of a job that hangs, begun early so that nobody waits for its timeout."""
    return str(exchange(shop.url, request("POST", "/v2/hang/run", b'{"input": {}}')).json()["id"])


@pytest.fixture(scope="module")
def said(shop: DevServer) -> Iterator[BinaryIO]:
    """What the server printed since it was read last: a worker floods it, and all of it would be read for each test."""
    with shop.log.open("rb") as log:
        yield log


@pytest.fixture(autouse=True)
def still_serving(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to the shared server, the next call is answered, and no traceback of flashfw was shown."""
    if "shop" in request.fixturenames:
        request.getfixturevalue("said")
    yield
    if "shop" in request.fixturenames:
        shop: DevServer = request.getfixturevalue("shop")
        assert shop.call("/echo", {"text": "a"}) == "a"
        assert b"flashfw/cluster/" not in request.getfixturevalue("said").read()


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_bytes(dedent(text).encode("utf-8", "surrogateescape"))
    return root


def refused(done: subprocess.CompletedProcess[str], code: Exit, *words: str) -> None:
    """The command ended with that code, said the words, and neither blamed itself nor showed its inside."""
    assert code == done.returncode, done.stderr
    for word in words:
        assert word in done.stderr
    assert "internal error" not in done.stderr
    assert "site-packages" not in done.stderr
    assert "flashfw/cli" not in done.stderr


def post(shop: DevServer, path: str, value: object) -> Reply:
    return exchange(shop.url, request("POST", path, json.dumps(value).encode()))


def test_every_item_has_its_test() -> None:
    assert untested(COVERED, Path(__file__)) == set()


# The tree


def test_the_tree_is_checked_at_once(project: Path) -> None:
    done = flashfw("check", cwd=project)

    refused(done, Exit.PROBLEMS)
    missing = [words for _, words in MISTAKES.values() if words not in done.stderr]
    assert missing == [], done.stderr
    assert done.stderr.splitlines()[-1] == f"{len(MISTAKES) - 1} problems, 1 warning"
    document = json.loads(flashfw("check", "--json", cwd=project).stdout)
    assert (document["errors"], document["warnings"]) == (len(MISTAKES) - 1, 1)


def test_what_is_sound_is_collected_beside_it(project: Path) -> None:
    done = flashfw("collect", cwd=project)

    assert done.returncode == Exit.PROBLEMS
    assert "endpoints/echo/handler.py:1" in done.stdout
    assert "syntax/handler.py:2: syntax error" in done.stderr


def test_dev_tells_every_mistake_and_serves_the_rest(shop: DevServer) -> None:
    told = shop.output()

    assert [words for _, words in MISTAKES.values() if words not in told] == []
    assert shop.call("/echo", {"text": "ab", "times": 2}) == "abab"
    assert post(shop, "/syntax", {}).status == 404


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[x", Exit.PROBLEMS, "flashfw.toml:1: not TOML: Expected ']'"),
        (
            "\n[dev]\nport = 99999\n",
            Exit.PROBLEMS,
            "flashfw.toml:3: 'dev.port' must be a whole number from 1 to 65,535",
        ),
        ("[dev]\nprot = 1\n", Exit.PROBLEMS, "flashfw.toml:2: unknown key 'dev.prot'; did you mean 'port'?"),
        ("->flashfw.toml", Exit.USAGE, "no flashfw.toml in "),
    ],
)
def test_a_broken_project_file(tmp_path: Path, text: str, code: Exit, words: str) -> None:
    write(tmp_path, {"endpoints/a/handler.py": JOB, "flashfw.toml": text})

    refused(flashfw("check", cwd=tmp_path), code, words)


def test_what_may_not_be_read(tmp_path: Path) -> None:
    """By a process without the rights of root, which may read anything."""
    write(tmp_path, {"flashfw.toml": "", "endpoints/a/handler.py": JOB, "endpoints/b/handler.py": JOB})
    write(tmp_path, {"endpoints/c/handler.py": JOB, "endpoints/c/endpoint.toml": "", "endpoints/d/handler.py": JOB})
    closed = [tmp_path / "endpoints" / name for name in ("a/handler.py", "b", "c/endpoint.toml")]
    for path in closed:
        path.chmod(0)
    try:
        done = unprivileged("check", cwd=tmp_path)
    finally:
        closed[1].chmod(0o700)

    refused(
        done,
        Exit.PROBLEMS,
        "endpoints/a/handler.py: cannot be read: Permission denied; make it readable, or remove it",
        "endpoints/b: cannot be read: Permission denied; make it readable",
        "endpoints/c/endpoint.toml: ",
        "3 problems",
    )


# Endpoints that are sound to read, and cannot start


@pytest.mark.parametrize(
    ("endpoint", "words", "place"),
    [
        ("raises", "Expecting value: line 1 column 1 (char 0)", "endpoints/raises/handler.py:3"),
        (
            "misses",
            "No module named 'numppy'; add it to `dependencies` in endpoint.toml",
            "endpoints/misses/handler.py:1",
        ),
        ("fixture", "no weights here", "endpoints/fixture/fixtures.py:2"),
        ("nowhere", "flashfw-has-no-such-package", ""),
        ("clash", "pydantic<2", ""),
    ],
)
def test_an_endpoint_that_cannot_start_says_why(shop: DevServer, endpoint: str, words: str, place: str) -> None:
    answer = post(shop, f"/{endpoint}", {})

    assert (answer.status, answer.json()["error"]["reason"]) == (503, "startup")
    assert words in answer.message
    assert answer.json()["error"].get("place", "") == place


# Workers


@pytest.mark.parametrize(
    ("function", "status", "words"),
    [
        ("die", 502, "exited with code 7"),
        ("eat", 502, "memory"),
        ("block", 200, "done"),
        ("flood", 200, "done"),
    ],
)
def test_workers_that_go_wrong(shop: DevServer, hanging: str, function: str, status: int, words: str) -> None:
    answer = post(shop, f"/{function}", {})

    assert (answer.status, words in answer.body.decode()) == (status, True), answer.raw


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        ("object", "encode", "output: object of type object; return plain values, models or dataclasses"),
        ("cycle", "encode", "output[0][0]"),
        ("key", "encode", "output: key of type list; use text as keys"),
        ("half", "encode", "output: text with a lone surrogate at 0; it is no valid Unicode"),
        ("huge", "encode", "return it as text"),
        ("chunk", "encode", "chunk[0]: object of type object"),
        ("exit", "handler_error", "3"),
        ("interrupt", "handler_error", "KeyboardInterrupt"),
        ("memory", "handler_error", "MemoryError"),
        ("mute", "handler_error", "__str__ raised ValueError"),
    ],
)
def test_results_and_errors_of_every_kind(shop: DevServer, kind: str, reason: str, words: str) -> None:
    answer = post(shop, "/result", {"kind": kind})

    assert (answer.status, answer.json()["error"]["reason"]) == (500, reason)
    assert words in answer.message


def test_a_hanging_job_ends_by_its_timeout(shop: DevServer, hanging: str) -> None:
    def record() -> Any:
        return exchange(shop.url, request("GET", f"/v2/hang/status/{hanging}")).json()

    wait_until(lambda: record()["status"] not in ("IN_QUEUE", "IN_PROGRESS"), "the hanging job ends")

    assert (record()["status"], record()["reason"]) == ("TIMED_OUT", "timeout")
    assert "5 s" in json.loads(record()["error"])["error_message"]


# Bodies and parameters


@pytest.mark.parametrize("path", ["/anything", "/v2/anything/run"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{no", "Expecting property name enclosed in double quotes at line 1, column 2"),
        (b"1 2", "Extra data at line 1, column 3"),
        (b"NaN", "NaN is no JSON value, write null"),
        (b"[1, -Infinity]", "-Infinity is no JSON value, write null"),
        (b'"\xff"', "byte 0xff at 1 is not UTF-8"),
        (b'\xef\xbb\xbf{"input": 1}', "byte order mark; send UTF-8 without one"),
        ('{"input": 1}'.encode("utf-16"), "byte 0xff at 0 is not UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b"1" * 5_000, "limit (4300"),
        (b'{"input": "\\ud800"}', "surrogate"),
        (b'{"input": {"\\udc00": 1}}', "surrogate"),
    ],
)
def test_a_body_that_is_no_json(shop: DevServer, path: str, body: bytes, words: str) -> None:
    answer = exchange(shop.url, request("POST", path, body))

    assert answer.status == (422 if path == "/anything" else 400)
    assert answer.message.startswith("the body is no JSON: ") or "Invalid JSON" in answer.message
    assert words in answer.message or "Invalid JSON" in answer.message


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
anything = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, width=16) | texts
inputs = st.fixed_dictionaries({}, optional={"text": texts | anything, "times": st.integers(-1, 9) | anything})
requests = st.fixed_dictionaries({}, optional={"input": inputs, "policy": anything | st.just({}), "webhook": anything})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.just("/echo"), inputs | anything) | st.tuples(st.just("/v2/echo/runsync"), requests | anything))
def test_answers_are_those_of_the_openapi_document(shop: DevServer, asked: tuple[str, Any]) -> None:
    """Whatever is sent: the status is documented, the body is as documented for it, and what fits is taken."""
    path, value = asked
    assume(not (isinstance(value, dict) and abs(number(value.get("times"))) > 1_000))
    document = described(shop.url)
    operation = document["paths"][path.replace("/v2/echo/", "/v2/{function}/")]["post"]

    answer = post(shop, path, value)

    documented = operation["responses"][str(answer.status)]
    documented = at(document, documented["$ref"]) if "$ref" in documented else documented
    validator(document, documented["content"]["application/json"]["schema"]).validate(answer.json())
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if path == "/echo" and validator(document, schema).is_valid(value):
        assert answer.status == 200, answer.raw


def number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0


@functools.cache
def described(url: str) -> Any:
    """The document, once it knows the schema of `echo`."""

    def read() -> Any:
        return exchange(url, request("GET", "/openapi.json")).json()

    wait_until(lambda: '"title": "Times"' in json.dumps(read()), "echo is described")
    return read()


def at(document: Any, reference: str) -> Any:
    """What a reference of the document means."""
    return functools.reduce(lambda found, key: found[key], reference.removeprefix("#/").split("/"), document)


def validator(document: Any, schema: Any) -> OAS31Validator:
    return OAS31Validator({**schema, "components": document["components"]})


def test_odd_json_that_is_json(shop: DevServer) -> None:
    """Of two equal keys the last counts; what is nested less than a hundred levels and what floats hold passes."""
    nested: Any = 1
    for _ in range(90):
        nested = [nested]
    assert exchange(shop.url, request("POST", "/echo", b'{"text": "a", "text": "b"}')).json() == "b"
    assert post(shop, "/anything", nested).json() == nested
    assert post(shop, "/anything", "\0 \u2028 \U0001f600").json() == "\0 \u2028 \U0001f600"
    assert exchange(shop.url, request("POST", "/anything", b"[1e400]")).json() == [None]
    assert exchange(shop.url, request("POST", "/anything", b"1" * 4_000)).json() == int("1" * 4_000)


@pytest.mark.parametrize(
    ("path", "limit", "around"),
    [("/size", 10_000_000, (b'"', b'"')), ("/v2/size/runsync", 20_000_000, (b'{"input": "', b'"}'))],
)
def test_a_body_at_the_limit_and_one_byte_over(
    shop: DevServer, path: str, limit: int, around: tuple[bytes, bytes]
) -> None:
    text = b"x" * (limit - sum(map(len, around)))

    with httpx.Client(base_url=shop.url, timeout=60) as client:
        fits = client.post(path, content=text.join(around))
        over = client.post(path, content=(text + b"x").join(around))

    assert (fits.status_code, str(len(text)) in fits.text) == (200, True)
    assert (over.status_code, over.json()["error"]["reason"]) == (413, "too_large")
    assert f"max_body ({limit} bytes)" in over.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status", "words"),
    [
        ("POST", "/echo", b'{"text": "a"}', "text/plain", 415, "send 'Content-Type: application/json'"),
        ("POST", "/echo", b"text=a", "application/x-www-form-urlencoded", 415, "application/json"),
        ("POST", "/echo", b'{"text": "a"}', "\xff;;", 415, "application/json"),
        ("POST", "/echo", b"", None, 422, "text: Field required"),
        ("POST", "/echo", b"null", "application/json", 422, "text: Field required"),
        ("POST", "/echo", b"[1]", "application/json", 422, "Input should be an object"),
        ("POST", "/echo", b'{"text": "a", "tims": 2}', None, 422, "unknown input 'tims'; did you mean 'times'?"),
        ("POST", "/echo", b'{"text": "a", "times": "many"}', None, 422, "times: Input should be a valid integer"),
        ("POST", "/echo", b'{"text": "a", "times": 1e30}', None, 422, "times: "),
        ("PUT", "/people/1", b"name=a", "text/plain", 415, "send application/json"),
        ("PUT", "/people/1", b"{", "application/json", 422, "Invalid JSON"),
        ("PUT", "/people/1", b'{"name": "\\ud800"}', "application/json", 422, "Invalid JSON"),
        ("PUT", "/people/1", b"[" * 100_000, "application/json", 422, "Invalid JSON: recursion limit"),
        ("PUT", "/people/1", b"", None, 422, "Field required"),
        ("PUT", "/people/1", b'{"name": "a", "agee": 2}', "application/json", 422, "did you mean 'age'?"),
        ("PUT", "/people/1", b'{"name": "a", "age": "old"}', "application/json", 422, "should be a valid integer"),
        ("PUT", "/people/1", b"xx", "multipart/form-data", 422, "Missing boundary"),
        ("GET", "/people/one", b"", None, 404, "Not Found"),
        ("GET", "/people/" + "9" * 5000, b"", None, 404, "Not Found"),
    ],
)
def test_parameters_that_do_not_fit(
    shop: DevServer, method: str, path: str, body: bytes, content_type: str | None, status: int, words: str
) -> None:
    answer = exchange(shop.url, request(method, path, body, content_type=content_type))

    assert status == answer.status, answer.raw[:500]
    assert words in answer.message


# Who may ask


@pytest.mark.parametrize("path", ["/echo", "/v2/echo/health", "/_flashfw/status", "/openapi.json", "/nothing/here"])
@pytest.mark.parametrize(
    ("host", "headers", "words"),
    [
        ("evil.example", (), "Host 'evil.example' is not this machine; use 127.0.0.1 or localhost"),
        ("localhost.evil.example", (), "not this machine"),
        ("192.168.1.7:8888", (), "not this machine"),
        ("127.0.0.1@evil.example", (), "not this machine"),
        ("evil.example@127.0.0.1", (), "not this machine"),
        ("127.0.0.1, evil.example", (), "not this machine"),
        ("127.0.0.1", [("Origin", "http://evil.example")], "Origin 'http://evil.example' may not call"),
        ("127.0.0.1", [("Origin", "http://127.0.0.1:3000")], "may call HTTP endpoints that have a middleware.py alone"),
        ("127.0.0.1", [("Origin", "null")], "may not call"),
        ("127.0.0.1", [("Sec-Fetch-Site", "cross-site")], "a page of another site"),
    ],
)
def test_foreign_pages(shop: DevServer, path: str, host: str, headers: list[tuple[str, str]], words: str) -> None:
    answer = exchange(shop.url, request("GET", path, host=host, headers=headers))

    assert (answer.status, words in answer.message) == (403, True)


@pytest.mark.parametrize(
    ("host", "version"),
    [("LOCALHOST", "1.1"), ("LocalHost:99", "1.1"), ("[::1]", "1.1"), ("127.0.0.1", "1.0"), (None, "1.0")],
)
def test_own_names(shop: DevServer, host: str | None, version: str) -> None:
    """No browser leaves `Host` out, so what does is a tool of the user."""
    assert exchange(shop.url, request("GET", "/v2/echo/health", host=host, version=version)).status == 200


# The command line


def test_a_second_dev_names_the_first(shop: DevServer) -> None:
    done = flashfw("dev", cwd=shop.project)

    refused(done, Exit.TARGET, f"served already at {shop.url} (pid {shop.process.pid})", "stop it first")


def test_a_port_that_cannot_be_had(tmp_path: Path) -> None:
    write(tmp_path, {"flashfw.toml": "", "endpoints/a/handler.py": JOB})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        in_use = flashfw("dev", "--port", str(port), cwd=tmp_path)

    refused(in_use, Exit.TARGET, f"port {port} on 127.0.0.1 is in use", f"choose another: --port {port + 1}")
    refused(flashfw("dev", "--port", "99999", cwd=tmp_path), Exit.USAGE, "99999")
    refused(flashfw("dev", "--host", "8.8.8.8", "--port", "0", cwd=tmp_path), Exit.TARGET, "cannot listen on 8.8.8.8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["echo", '{"text":'], Exit.USAGE, "INPUT is not JSON at line 1, column 9: Expecting value"),
        (["echo", "@nope.json"], Exit.USAGE, "cannot read 'nope.json': No such file or directory"),
        (["echo", "@endpoints"], Exit.USAGE, "cannot read 'endpoints': Is a directory"),
        (["echo", '{"text": "\\ud800"}'], Exit.USAGE, "INPUT has \\ud800 without its other half"),
        (["anything", "1" * 5000], Exit.USAGE, "INPUT holds a number with too many digits"),
        (["anything", "[" * 100_000], Exit.USAGE, "INPUT is nested too deeply"),
        (["anything", "NaN"], Exit.USAGE, "NaN is not JSON"),
        (["ecko", "{}"], Exit.NOTHING, "has no function 'ecko'"),
        (["echo", '{"tims": 1}'], Exit.FAILED, "did you mean 'times'?"),
        (["fixture", "{}"], Exit.FAILED, "no worker could start: RuntimeError: no weights here"),
        (["people/_id_::get", "{}"], Exit.USAGE, "needs 'id' in its path"),
        (["--url", "::::", "echo"], Exit.USAGE, "--url '::::' is no address of a server"),
        (
            ["--url", "http://127.0.0.1:1", "echo", "{}"],
            Exit.TARGET,
            "is `flashfw dev`, or on a server `flashfw serve`, running there?",
        ),
        (["--env", "prod", "echo", "{}"], Exit.USAGE, "declares no environment 'prod'"),
    ],
)
def test_calls_that_cannot_be(shop: DevServer, arguments: list[str], code: Exit, words: str) -> None:
    refused(flashfw("call", *arguments, cwd=shop.project), code, words)


def test_bytes_on_standard_input(shop: DevServer) -> None:
    done = flashfw("call", "echo", cwd=shop.project, stdin=b"\377\376")

    refused(done, Exit.USAGE, "standard input is not UTF-8: byte 0 is 0xff")


# The place for the server's state


def test_a_full_disk_refuses_jobs_and_loses_none(shop: DevServer) -> None:
    """No file of the server may grow for a while, which a disk without space comes to."""
    pid, unlimited = shop.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    text = "x" * 3_000_000
    assert post(shop, "/size", text).status == 200
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        full = exchange(shop.url, request("POST", "/v2/size/run", json.dumps({"input": text}).encode()))
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

    assert (full.status, full.json()["error"]["reason"]) == (503, "store")
    assert post(shop, "/size", text).json() == len(text)


def test_a_full_file_system(tmp_path: Path, flashfw_dev: StartDev) -> None:
    write(
        tmp_path / "p", {"flashfw.toml": "", "endpoints/a/handler.py": "def handler(input):\n    return len(input)\n"}
    )
    (tmp_path / "p" / ".flashfw").mkdir()
    with small_disk(tmp_path / "p" / ".flashfw", 2_000_000) as place:
        server = flashfw_dev(tmp_path / "p")
        assert server.call("/a", "x") == 1
        fill(place / "filled")
        full = post(server, "/a", "x" * 200_000)
        (place / "filled").unlink()
        again = post(server, "/a", "x" * 200_000)
        server.stop()

    assert (full.status, full.json()["error"]["reason"]) == (503, "store")
    assert "disk is full; free some space" in full.message
    assert again.json() == 200_000


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda state: (state / "jobs.sqlite").write_bytes(b"no database at all" * 500), "file is not a database"),
        (lambda state: (state / "jobs.sqlite").mkdir(), "Is a directory"),
        (lambda state: (state.rmdir(), state.touch()), "it is a file"),
        (lambda state: (state.rmdir(), state.symlink_to("nowhere")), "it is a link to nowhere"),
        (lambda state: (state.rmdir(), state.parent.chmod(0o555)), "Permission denied"),
        (lambda state: os.chown(state, 12345, -1), "belongs to user 12345"),
    ],
)
def test_state_that_cannot_be_kept(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    write(tmp_path, {"flashfw.toml": "", "endpoints/a/handler.py": JOB, ".flashfw/x": ""})
    (tmp_path / ".flashfw" / "x").unlink()
    if words.startswith("belongs") and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    spoil(tmp_path / ".flashfw")

    done = unprivileged("dev", "--port", "0", cwd=tmp_path)
    tmp_path.chmod(0o755)

    refused(done, Exit.TARGET, words, ".flashfw")
    assert len(done.stderr.splitlines()) == 3  # the header, the error, what to do


def test_without_a_home(tmp_path: Path, dev_environ: dict[str, str]) -> None:
    write(tmp_path, {"flashfw.toml": "", "endpoints/a/handler.py": "def handler(:\n"})
    environ = {name: value for name, value in dev_environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}

    done = flashfw("check", cwd=tmp_path, environ=environ)
    taken = flashfw("dev", "--host", "8.8.8.8", cwd=tmp_path, environ=environ)

    refused(done, Exit.PROBLEMS, "endpoints/a/handler.py:1: syntax error")
    refused(taken, Exit.TARGET, "cannot listen on 8.8.8.8")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("taken", "taken is not empty: file"),
        ("taken/file", "taken/file is a file"),
        ("taken/file/shop", "Not a directory"),
        ("closed/shop", "Permission denied"),
        ("My Shop", "did you mean 'my-shop'?"),
        ("/", "is no project name"),
        ("a\nb", "'a\\nb' is no project name"),
        ("a" * 300, "File name too long"),
        ("link", "is a link to nowhere"),
        ("/proc/shop", "cannot make /proc/shop"),
    ],
)
def test_new_in_odd_places(tmp_path: Path, path: str, words: str) -> None:
    write(tmp_path, {"taken/file": "", "link": "->nowhere"})
    (tmp_path / "closed").mkdir(mode=0o555)

    refused(unprivileged("new", path, cwd=tmp_path), Exit.USAGE, words)
    assert {"taken", "link", "closed"} == {entry.name for entry in tmp_path.iterdir()}


def unprivileged(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As `flashfw`, without the rights of root over files."""
    drop = (
        "import ctypes, os, sys\n"
        "for right in range(4):\n"  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        "    ctypes.CDLL(None).prctl(24, right, 0, 0, 0)\n"  # PR_CAPBSET_DROP: gone after the next exec
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", drop, str(COMMAND), *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as filled:
        while filled.write(bytes(4096)):
            pass


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes, where this user may mount one."""
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True)
    if not made or made.returncode:
        pytest.skip("this user may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
