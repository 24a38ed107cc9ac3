"""The verbs that speak of jobs, against `flashfw dev` with real workers."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flashfw.cli.main import run
from flashfw.cli.output import columns
from flashfw.client.client import Client
from flashfw.client.failures import CallFailedError
from flashfw.errors import Exit
from tests.client.conftest import SHOP
from tests.conftest import StartDev
from tests.dev_process import wait_until


class Done(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture(scope="module")
def project(module_flashfw_dev: StartDev, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose `flashfw dev` runs."""
    shop = shutil.copytree(SHOP, tmp_path_factory.mktemp("jobs") / "shop")
    module_flashfw_dev(shop)
    return shop


@pytest.fixture
def flashfw(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in the project, in this process."""

    def invoke(*arguments: str) -> Done:
        monkeypatch.chdir(project)
        return Done(int(run(arguments)), *capsys.readouterr())

    return invoke


@pytest.fixture
def client(project: Path) -> Iterator[Client]:
    with Client(json.loads((project / ".flashfw" / "dev.json").read_text())["url"]) as opened:
        yield opened


def ended(client: Client, function: str, value: Any) -> str:
    job = client.spawn(function, value)
    with contextlib.suppress(CallFailedError):
        job.result(30)
    return job.id


def test_jobs_are_listed_with_the_end_of_their_ids(flashfw: Command, client: Client) -> None:
    good, bad = ended(client, "echo", {}), ended(client, "fail", {"number": 1})

    listed = flashfw("jobs", "list", "--limit", "2")
    assert listed.code == Exit.DONE
    second, first = listed.out.splitlines()
    assert re.fullmatch(rf"{good[-8:]}  COMPLETED             echo  .* ago +ran .*", first)
    assert re.fullmatch(rf"{bad[-8:]}  FAILED handler_error  fail  .* ago +ran .*", second)
    document = flashfw("jobs", "list", "--state", "failed", "--function", "fail", "--limit", "1", "--json").document
    assert [job["id"] for job in document["jobs"]] == [bad]
    assert flashfw("jobs", "list", "--dead").err == "no such jobs\n"


def test_a_filter_that_nothing_has_is_told(flashfw: Command) -> None:
    wrong = flashfw("jobs", "list", "--state", "broken")
    assert (wrong.code, wrong.out) == (Exit.USAGE, "")
    assert "state 'broken' is none; it can be IN_QUEUE, IN_PROGRESS" in wrong.err
    assert "did you mean 'echo'?" in flashfw("jobs", "list", "--function", "ecco").err


def test_a_job_is_shown_by_the_end_of_its_id(flashfw: Command, client: Client) -> None:
    job = ended(client, "fail", {"number": 7})

    shown = flashfw("jobs", "show", job[-8:])
    assert shown.code == Exit.DONE
    assert f"id              {job}\n" in shown.out
    assert "timeout         10 m\n" in shown.out
    assert "result ttl      24 h\n" in shown.out
    assert 'input           {"number": 7}\n' in shown.out
    assert "error           endpoints/fail/handler.py:7: ValueError: no luck with 7" in shown.out
    assert flashfw("jobs", "show", job, "--json").document["error"]["type"] == "ValueError"


def test_why_tells_a_job_event_by_event(flashfw: Command, client: Client) -> None:
    job = ended(client, "fail", {"number": 7})

    told = flashfw("why", job[-10:])
    assert flashfw("why").out == told.out, "without an id it is of the newest"
    head, empty, *moments = told.out.splitlines()
    assert (told.code, empty) == (Exit.DONE, "")
    assert head.startswith(f"{job}  FAILED (handler_error): waited ")
    assert re.fullmatch(r" +0 +queued for fail", moments[0])
    assert re.fullmatch(r" *\+[\d.]+ ms +[\d.]+ ms  the call runs on worker w-\w+", moments[-2])
    assert moments[-1].endswith("FAILED: the handler raised: endpoints/fail/handler.py:7: ValueError: no luck with 7")
    story = flashfw("why", job, "--json").document
    assert [moment["what"] for moment in story["moments"]][-1] == "failed"


def test_jobs_are_cancelled_and_each_that_cannot_be_is_told(flashfw: Command, client: Client, tmp_path: Path) -> None:
    running = client.spawn("gate", {"file": str(tmp_path / "never")}).id
    over = ended(client, "echo", {})

    done = flashfw("jobs", "cancel", running[-8:], over)
    assert done.code == Exit.FAILED
    assert done.out == f"{running[-8:]}  CANCELLED\n"
    assert done.err == f"error: job {over} had ended: COMPLETED\n"
    assert client.job(running).status().status == "CANCELLED"


def test_a_part_of_several_ids_is_told_and_the_others_go_on(flashfw: Command, client: Client, tmp_path: Path) -> None:
    first = client.spawn("gate", {"file": str(tmp_path / "never")}).id
    ended(client, "echo", {})

    done = flashfw("jobs", "cancel", first[:6], first, "--json").document["jobs"]

    assert "is a part of several ids" in done[0]["error"]
    assert done[1] == {"job": first, "state": "CANCELLED"}


def test_a_failed_job_is_tried_again(flashfw: Command, client: Client) -> None:
    failed, done = ended(client, "fail", {"number": 3}), ended(client, "echo", {})

    assert flashfw("jobs", "retry", failed).out == f"{failed}  IN_QUEUE\n"
    refused = flashfw("jobs", "retry", done)
    assert refused.code == Exit.FAILED
    assert "COMPLETED" in refused.err
    nothing = flashfw("jobs", "retry", "--dead", "--function", "fail")
    assert (nothing.code, nothing.err) == (Exit.DONE, "no dead letters\n")
    assert flashfw("jobs", "retry", "--dead", "--json").document == {"jobs": []}


def test_an_unknown_job_says_where_it_was_looked_for(flashfw: Command, client: Client) -> None:
    for arguments in (("why",), ("jobs", "show"), ("jobs", "cancel"), ("jobs", "retry")):
        unknown = flashfw(*arguments, "nothing-like-it")
        assert unknown.code == Exit.NOTHING
        assert f"error: {client.url} has no job 'nothing-like-it'\n" in unknown.err
        assert "flashfw jobs list" in unknown.err


WRONG = [
    ("jobs", "retry"),
    ("jobs", "retry", "--dead", "abcdefgh"),
    ("jobs", "retry", "abcdefgh", "--function", "echo"),
    ("jobs", "list", "--limit", "0"),
    ("jobs", "cancel"),
    ("jobs", "nothing"),
    ("status", "elsewhere"),
    ("call", "echo", "--priority", "urgent"),
    ("call", "echo", "--timeout", "soon"),
    ("call", "echo", "{}", "--timeout", "1s"),
    ("call", "echo", "{}", "--webhook", "http://10.0.0.1/"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_command_line_is_4(flashfw: Command, arguments: tuple[str, ...]) -> None:
    wrong = flashfw(*arguments)

    assert (wrong.code, wrong.out) == (Exit.USAGE, "")
    assert "rror" in wrong.err


ASKING = [("jobs", "list"), ("why", "abcdefgh"), ("status",), ("jobs", "cancel", "abcdefgh")]


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_nobody_there_is_7(flashfw: Command, arguments: tuple[str, ...]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        gone = flashfw(*arguments, "--url", url)

    assert (gone.code, gone.out) == (Exit.TARGET, "")
    assert f"error: no answer from {url}" in gone.err


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """The address of a server that is none of flashfw's."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("arguments", [*ASKING, ("call", "echo", "{}")], ids=" ".join)
def test_a_server_of_another_kind_is_7(
    flashfw: Command, client: Client, stranger: str, arguments: tuple[str, ...]
) -> None:
    for url in (stranger, f"{client.url}/elsewhere"):
        done = flashfw(*arguments, "--url", url)

        assert (done.code, done.out) == (Exit.TARGET, "")
        assert f"error: {url} is no flashfw server" in done.err


def test_status_shows_workers_queues_and_reasons(flashfw: Command, client: Client) -> None:
    ended(client, "echo", {})
    # The scaler looks twice a second: its last reason may be of before the end.
    wait_until(lambda: "  scaler: nothing waits: stays at 1" in flashfw("status").out, "the scaler looked again")

    shown = flashfw("status")
    assert shown.code == Exit.DONE
    assert shown.out.startswith(f"shop  dev  {client.url}\n")
    echo = shown.out.partition("\necho  ")[2].partition("\n\n")[0].splitlines()
    assert re.fullmatch(r"workers: 1 IDLE \(at most 3\)", echo[0])
    assert echo[1].startswith("  scaler: nothing waits: stays at 1")
    assert re.fullmatch(r"  .* ago: .*1 waiting, no worker: 0 -> 1", echo[2])
    assert re.fullmatch(r"  echo  \d+ completed", echo[3])
    assert {endpoint["id"] for endpoint in flashfw("status", "dev", "--json").document["endpoints"]} >= {"echo", "api"}


def test_options_of_a_call_reach_the_job(flashfw: Command, client: Client) -> None:
    asked = ("--timeout", "2m", "--ttl", "90", "--priority", "low", "--idempotency-key", "k-1")
    job, again = (flashfw("call", "echo", "{}", "--spawn", *asked).out.strip() for _ in range(2))

    record = client.record(job)
    assert (record["timeout_s"], record["expires_at"] - record["submitted_at"], record["priority"]) == (120, 90, -1)
    assert (record["idempotency_key"], again) == ("k-1", job)


def test_columns_are_as_wide_as_what_is_seen_of_them() -> None:
    assert columns([["\x1b[31ma\x1b[0m", "x"], ["bb", "y"]]) == ["\x1b[31ma\x1b[0m   x", "bb  y"]
    assert columns([]) == []
