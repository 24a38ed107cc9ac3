from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cli.lines import Lines, showable
from flashfw.cluster.events import Event

JOB = "01a1fc26-2261-7233-b45d-26597e28603c"
FAILURE = {"type": "ValueError", "message": "no", "place": "endpoints/a/handler.py:3", "traceback": ""}


@contextmanager
def terminal() -> Iterator[None]:
    """A real terminal as stderr, where `dev` prints: it alone decides about colours."""
    master, slave = os.openpty()
    with os.fdopen(master, "rb"), os.fdopen(slave, "w") as screen, pytest.MonkeyPatch.context() as patched:
        patched.delenv("NO_COLOR", raising=False)
        patched.setenv("TERM", "xterm")
        with redirect_stderr(screen):
            yield


def lines(*events: Event) -> list[str]:
    seen = Lines()
    return [line for event in events for line in seen.render(event)]


def request(path: str, status: int = 200) -> Event:
    return Event("request", None, {"method": "GET", "path": path, "status": status, "duration_s": 0.5})


def job(state: str, **fields: Any) -> Event:
    base = {"id": JOB, "function": "a", "state": state, "reason": None, "delay_s": 0.1, "run_s": 2.0, "error": None}
    return Event("job", "a", {**base, **fields})


def worker(state: str, why: str = "", **fields: Any) -> Event:
    return Event("worker", "a", {"worker": "w-1", "state": state, "why": why, **fields})


def said(text: str, job: str | None = None) -> Event:
    return Event("output", "a", {"worker": "w-1", "job": job, "stream": "stdout", "text": text})


def start_failed() -> Event:
    return Event("start_failed", "a", {"worker": "w-1", "failure": FAILURE, "failures": 1, "retry_in_s": 1.0})


def test_a_terminal_gets_colours() -> None:
    with terminal():
        assert lines(request("/a"), said("x")) == ["\x1b[32m200\x1b[0m GET /a  500 ms", "\x1b[36m[a]\x1b[0m x"]


def test_a_file_gets_none() -> None:
    assert lines(request("/a")) == ["200 GET /a  500 ms"]


def test_colours_of_handlers_reach_a_terminal_and_end_with_the_line() -> None:
    with terminal():
        assert lines(said("\x1b[31mred")) == ["\x1b[36m[a]\x1b[0m \x1b[31mred\x1b[0m"]


def test_colours_of_handlers_are_left_out_of_a_file() -> None:
    assert lines(said("\x1b[1;31mred\x1b[0m")) == ["[a] red"]


@given(st.text(st.characters() | st.sampled_from("\x1b[2Jm;31\t\r\x07"), max_size=40))
def test_no_text_steers_the_terminal(text: str) -> None:
    assert all(char.isprintable() or char in "\t\n" for line in lines(said(text)) for char in line)
    assert "\x1b" not in showable(text)


def test_tabs_stay_and_progress_bars_show_what_they_came_to() -> None:
    assert lines(said("a\tb\n")) == ["[a] a\tb"]
    assert lines(said("\r10%\r60%\r100%\n")) == ["[a] 100%"]
    assert lines(said("from windows\r\n")) == ["[a] from windows"]


def test_jobs_are_named_by_what_tells_them_apart() -> None:
    # Ids begin with the time: within a minute all of them begin alike.
    assert lines(job("COMPLETED")) == ["COMPLETED a 7e28603c  waited 100 ms, ran 2.0 s"]
    assert lines(said("x", job=JOB)) == ["[a 7e28603c] x"]


def test_the_reason_is_shown_where_the_state_does_not_say_it() -> None:
    assert lines(job("TIMED_OUT", reason="timeout"))[0].startswith("TIMED_OUT a ")
    assert lines(job("TIMED_OUT", reason="expired"))[0].startswith("TIMED_OUT expired a ")
    assert lines(job("FAILED", reason="handler_error"))[0].startswith("FAILED handler_error a ")


def test_a_traceback_is_shown_with_a_job_but_not_again_for_a_start_that_failed() -> None:
    error = json.dumps({**FAILURE, "traceback": "Traceback\n  line\n"})
    head = "    endpoints/a/handler.py:3: ValueError: no"
    assert lines(job("FAILED", reason="handler_error", error=error))[1:] == [head, "    Traceback", "      line"]
    assert lines(job("FAILED", reason="startup", error=error))[1:] == [head]


def test_requests_of_the_command_itself_are_left_out() -> None:
    assert lines(request("/openapi.json"), request("/_flashfw/jobs/1")) == []
    assert lines(request("/openapi.json", 401)) == ["401 GET /openapi.json  500 ms"]


def test_a_failed_start_is_told_once_and_not_again_as_a_lost_worker() -> None:
    gone = worker("GONE", "exited with code 3")
    assert lines(start_failed(), gone, start_failed(), gone) == [
        "[a] cannot start: endpoints/a/handler.py:3: ValueError: no"
    ]


def test_a_start_that_fails_again_after_it_worked_is_told_again() -> None:
    first, ready, second, _ = lines(start_failed(), READY, start_failed())
    assert ready == "[a] worker ready in 200 ms  (import 100 ms, model 50.0 ms)"
    assert first == second


def test_a_worker_that_dies_is_told() -> None:
    assert lines(worker("GONE", "killed by signal 9")) == ["[a] worker w-1 gone: killed by signal 9"]


def test_stopping_says_what_happens_to_jobs_and_is_quiet_about_workers() -> None:
    stopping = Event("stopping", None, {"running": 1, "queued": 2, "grace_s": 3.0})
    assert lines(stopping, worker("GONE", "the server stops")) == [
        "waiting 3 s for 1 running job; what is not done goes back to the queue",
        "2 queued jobs kept for the next `flashfw dev`",
    ]
    assert lines(Event("stopping", None, {"running": 0, "queued": 0, "grace_s": 3.0})) == []


def test_jobs_of_the_last_run_are_counted() -> None:
    assert lines(Event("waiting", None, {"jobs": {"b": 2, "a": 1}})) == [
        "3 jobs of the last run in the queue  (a 1, b 2)"
    ]


READY = worker("IDLE", start_s=0.2, import_s=0.1, fixtures_s={"model": 0.05})
BROKEN = Event("problems", None, {"problems": ("x",), "held": ("a",)})


def test_a_mended_project_is_told_once() -> None:
    sound = Event("problems", None, {"problems": ()})
    assert lines(READY, sound, BROKEN, sound, sound)[1:] == ["[a] serves its last good code", "no problems any more"]


def test_code_that_no_worker_has_loaded_is_not_said_to_serve() -> None:
    assert lines(BROKEN) == lines(READY, worker("GONE"), BROKEN)[1:]
    assert lines(BROKEN) == ["[a] has no worker: calls fail until that is mended"]


def test_a_failed_start_beside_workers_says_that_they_serve() -> None:
    other = Event("start_failed", "a", {**start_failed().fields, "worker": "w-2"})
    assert lines(READY, other)[1:] == [
        "[a] cannot start: endpoints/a/handler.py:3: ValueError: no",
        "[a] the code before serves on",
    ]


def test_a_change_of_many_files_is_one_short_line() -> None:
    changed = [f"lib/{n}.py" for n in range(300)]
    fields = {"roll": ("b", "a", "c"), "restart": ("b", "a"), "added": (), "removed": (), "changed": changed}
    assert lines(Event("reloaded", None, fields)) == [
        "restarting a, b  (lib/0.py, lib/1.py, lib/2.py, lib/3.py, lib/4.py and 295 more)"
    ]


def test_what_became_of_a_save_is_one_line() -> None:
    renewed = Event("renewed", "a", {"files": ["endpoints/a/handler.py"], "took_s": 0.012, "release": 2})
    why = "endpoints/fixtures.py: fixtures are built anew"
    assert lines(
        renewed,
        Event("replacing", "a", {"files": ["endpoints/fixtures.py"], "why": why}),
        Event("replacing", "a", {"files": ["endpoints/a/endpoint.toml"], "why": "its configuration changed"}),
    ) == [
        "reloaded a  (endpoints/a/handler.py)  12.0 ms",
        "restarting a  (endpoints/fixtures.py: fixtures are built anew)",
        "restarting a  (endpoints/a/endpoint.toml: its configuration changed)",
    ]


def test_a_survived_defect_is_told_with_its_traceback() -> None:
    fields = {"where": "looking after workers", "error": "KeyError: 'x'", "traceback": "Traceback\nKeyError: 'x'\n"}
    assert lines(Event("internal", "a", fields)) == [
        "[a] a defect of flashfw, survived while looking after workers: KeyError: 'x'",
        "    Traceback",
        "    KeyError: 'x'",
    ]


def test_an_attempt_that_failed_and_the_next_one_are_told_without_the_traceback() -> None:
    error = json.dumps({**FAILURE, "traceback": "Traceback ..."})
    fields = {"id": JOB, "function": "a/b", "attempt": 2, "in_s": 4.0, "error": error}

    assert lines(Event("job_retry", "a", fields)) == [
        "RETRY attempt 2 of a/b 7e28603c failed, the next is in 4.0 s",
        "    endpoints/a/handler.py:3: ValueError: no",
    ]


def test_a_function_that_is_gone_is_told_with_its_jobs() -> None:
    gone = [Event("function_gone", None, {"function": "a", "jobs": jobs}) for jobs in (1, 2)]

    assert lines(*gone) == [
        "a is gone: 1 job that waited has ended; they can be retried once it is back",
        "a is gone: 2 jobs that waited have ended; they can be retried once it is back",
    ]


def test_releases_that_come_and_go() -> None:
    rollout = {"number": 3, "release": "3f2a", "by": "me@here"}
    events = [
        Event("rollout", None, {**rollout, "state": "done"}),
        Event("rollout", None, {**rollout, "state": "failed", "endpoint": "gpu", "why": "no weights\nat all"}),
        Event("rollout", None, {**rollout, "state": "failed", "endpoint": "", "why": "the server stopped"}),
        Event("removed", None, {"by": "me@here"}),
    ]

    assert lines(*events) == [
        "release 3f2a (rollout 3, by me@here) is served",
        "release 3f2a (rollout 3, by me@here) failed at gpu: no weights",
        "release 3f2a (rollout 3, by me@here) failed: the server stopped",
        "all releases, jobs and secrets were removed by me@here",
    ]


def test_unknown_events_are_no_lines() -> None:
    assert lines(Event("rolled", "a", {})) == []


def test_what_the_clock_starts() -> None:
    told = {"on": False, "count": 2, "next": 1_767_225_600.0, "function": "a"}
    tick = {"function": "a/b", "cron": "0 6 * * *", "tz": "UTC", "tick": 0.0}
    events = [
        Event("schedules", None, told),
        Event("schedules", None, {**told, "on": True, "count": 1}),
        Event("schedule", "a", {**tick, "job": JOB}),
        Event("schedule", "a", {**tick, "skipped": f"job {JOB} has not ended"}),
    ]
    when = datetime.fromtimestamp(1_767_225_600).astimezone()

    assert lines(*events) == [
        "  2 schedules off: jobs are started by the clock with --cron",
        f"  1 schedule; the next job is of a, at {when:%Y-%m-%d %H:%M %Z}",
        f"[a] schedule of a/b (0 6 * * *): job {JOB[-8:]}",
        f"[a] schedule of a/b (0 6 * * *): skipped: job {JOB} has not ended",
    ]


def test_webhooks_that_fail() -> None:
    fields = {"id": JOB, "url": "https://example.com/hook", "tries": 2, "status": 500, "error": "answered 500"}
    events = [
        Event("webhook", "a", {**fields, "state": "failed", "retry_in_s": 31.4}),
        Event("webhook", "a", {**fields, "state": "given_up"}),
        Event("webhook", "a", {"id": JOB, "url": "", "tries": 1, "status": 200, "state": "delivered"}),
    ]

    assert lines(*events) == [
        f"[a] webhook of job {JOB[-8:]}, https://example.com/hook: answered 500 (try 2, again in 31.4 s)",
        f"[a] webhook of job {JOB[-8:]}, https://example.com/hook: answered 500 (try 2, given up)",
    ]


def test_a_job_that_is_back_in_the_queue_is_one_line() -> None:
    fields = {"id": JOB, "function": "a", "why": '{"message": "worker w-1 is gone"}', "deaths": 1, "alone": False}
    back = "[a] job 7e28603c is back in the queue: worker w-1 is gone"
    assert lines(Event("job_requeued", "a", fields)) == [back]
    assert lines(Event("job_requeued", "a", {**fields, "alone": True})) == [f"{back}; it runs alone from now on"]


def store_failed(error: str) -> Event:
    return Event("store_failed", None, {"error": error})


def test_a_store_that_fails_is_told_once_and_that_it_works_again() -> None:
    outage = [store_failed("refused"), store_failed("refused"), store_failed("it starts up"), Event("store_back")]

    told = ["the job store cannot write: refused; trying again", "the job store works again"]
    assert lines(*outage, *outage) == told + told


def test_after_a_job_that_was_kept_a_failure_of_the_store_is_news() -> None:
    seen = lines(store_failed("full"), job("COMPLETED"), store_failed("full"))

    assert seen[0] == seen[2] == "the job store cannot write: full; trying again"


def test_the_path_of_a_request_is_one_line() -> None:
    assert lines(request("/item/a\n200 GET /admin")) == ["200 GET /item/a\\n200 GET /admin  500 ms"]


def test_a_request_that_the_server_refused_says_why() -> None:
    event = request("/a", 503)

    assert lines(Event("request", None, {**event.fields, "refused": "the disk is full"})) == [
        "503 GET /a  500 ms  the disk is full"
    ]


def test_queued_jobs_of_a_function_that_went_are_told_before_they_end() -> None:
    event = Event("function_missing", None, {"function": "a", "jobs": 3, "in_s": 60.0})

    assert lines(event) == ["a is not served: 3 queued jobs will end in 1 m unless it comes back"]


def test_a_silent_worker_is_told_with_what_follows() -> None:
    assert lines(worker("UNHEALTHY", "was silent for 5 s")) == [
        "[a] worker w-1 was silent for 5 s: it gets no new calls"
    ]


def test_a_job_that_says_no_by_an_http_error_needs_no_traceback() -> None:
    error = json.dumps({**FAILURE, "type": "HTTPError", "traceback": "Traceback...", "status": 422})

    head, *told = lines(job("FAILED", reason="handler_error", error=error))
    assert head.startswith("FAILED handler_error a ")
    assert told == ["    endpoints/a/handler.py:3: HTTPError: no"]
