from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.clock import ManualClock
from flashfw.cluster.explaining.journal import OF_A_JOB, OF_AN_ENDPOINT
from flashfw.cluster.explaining.moments import Moment
from flashfw.cluster.explaining.waiting import Absence, Situation, present
from flashfw.cluster.explaining.why import Ahead, Story, explain
from flashfw.cluster.jobs.model import Job, Reason, State
from flashfw.cluster.jobs.store import Entry
from tests.cluster.jobs.conformance import a_job

BEGIN = 1_000_000.0
READY = {
    "state": "IDLE",
    "why": "",
    "start_s": 0.5,
    "environment_s": 0.1,
    "import_s": 0.1,
    "fixtures_s": {"model": 0.2},
}
NO_MODEL = {"type": "OSError", "message": "no file\nat all", "place": "endpoints/gpu/fixtures.py:4", "fixture": "model"}


def job(**changes: Any) -> Job:
    made = a_job(ManualClock(BEGIN), **changes)
    return dataclasses.replace(made, id="j", worker=changes.get("worker", "w-1"), attempt=changes.get("attempt", 1))


def done(**changes: Any) -> Job:
    ended = {"state": State.COMPLETED, "started_at": BEGIN + 1, "finished_at": BEGIN + 3, "output": b"1"}
    return job(**{**ended, **changes})


def failed(reason: Reason, state: State = State.FAILED, **error: Any) -> Job:
    return done(state=state, reason=reason, output=None, error=json.dumps(error).encode() if error else None)


def of_job(after_s: float, name: str, worker: str | None = None, **fields: Any) -> Entry:
    return Entry(BEGIN + after_s, "gpu", name, fields, job="j", worker=worker)


def beside(after_s: float, name: str, worker: str | None = None, **fields: Any) -> Entry:
    return Entry(BEGIN + after_s, "gpu", name, fields, worker=worker)


def told(story: Story) -> list[tuple[float, str]]:
    return [(round(moment.at - BEGIN, 3), moment.text) for moment in story.moments]


def test_a_job_that_just_ran_is_told_by_its_record_alone() -> None:
    story = explain(done(started_at=BEGIN, finished_at=BEGIN + 0.25), [])

    assert story.summary == "COMPLETED: waited 0.0 ms, ran 250 ms"
    assert told(story) == [
        (0.0, "queued for gpu"),
        (0.0, "the call runs on worker w-1"),
        (0.25, "COMPLETED: done"),
    ]


def test_a_cold_start_is_split_into_what_it_was_spent_on() -> None:
    story = explain(
        done(),
        [
            beside(0.0, "scale", wanted=1, have=0, reason="1 waiting, no worker: 0 -> 1"),
            beside(0.4, "worker", "w-1", state="INITIALIZING", why=""),
            beside(0.9, "worker", "w-1", **READY),
        ],
    )

    assert story.summary == "COMPLETED: waited 1.0 s, 500 ms of it a cold start, ran 2.0 s"
    assert told(story)[1:-2] == [
        (0.0, "scaler: 1 waiting, no worker: 0 -> 1"),
        (0.4, "worker w-1 starts"),
        (0.4, "cold start: its environment is made ready"),
        (0.5, "cold start: its process starts"),
        (0.6, "cold start: the handlers are imported"),
        (0.7, "cold start: fixture 'model' is built"),
        (0.9, "worker w-1 is ready after 500 ms"),
    ]
    assert [moment.took_s for moment in story.moments if moment.is_cold] == pytest.approx([0.1, 0.1, 0.1, 0.2])


def test_no_part_of_a_cold_start_comes_before_the_start() -> None:
    """It is told a moment after it began: on a busy machine a part would stand above its own beginning."""
    entries = [
        beside(0.1, "worker", "w-1", state="INITIALIZING"),
        beside(0.9, "worker", "w-1", state="IDLE", start_s=0.81, import_s=0.1),
    ]

    texts = [text for _, text in told(explain(done(), entries))]

    assert texts.index("worker w-1 starts") < texts.index("cold start: its process starts")


def test_of_a_cold_start_that_had_begun_only_what_was_left_counts() -> None:
    story = explain(done(), [beside(0.15, "worker", "w-1", **READY)])

    assert story.summary == "COMPLETED: waited 1.0 s, 150 ms of it a cold start, ran 2.0 s"
    assert told(story)[1:3] == [
        (0.0, "cold start: fixture 'model' is built"),
        (0.15, "worker w-1 is ready after 500 ms"),
    ]


def test_a_job_that_was_tried_again_tells_each_attempt() -> None:
    story = explain(
        done(attempt=2, started_at=BEGIN + 5, finished_at=BEGIN + 6),
        [
            of_job(1, "job_started", "w-1", attempt=1),
            of_job(2, "job_retry", "w-1", attempt=1, in_s=2.0, error={"type": "ValueError", "message": "no"}),
        ],
    )

    assert story.summary == "COMPLETED: waited 5.0 s, went back into the queue 1 time, ran 1.0 s"
    assert told(story)[1:] == [
        (1.0, "attempt 1 runs on worker w-1"),
        (2.0, "attempt 1 failed: ValueError: no; tried again in 2.0 s"),
        (5.0, "attempt 2 runs on worker w-1"),
        (6.0, "COMPLETED: done"),
    ]
    assert [moment.took_s for moment in story.moments if "runs" in moment.text] == [1.0, 1.0]


def test_a_worker_that_died_is_told_with_how_often_it_may_happen() -> None:
    why = {"type": "WorkerLost", "message": "worker w-0 killed by SIGKILL"}
    (death,) = (
        moment.text
        for moment in explain(done(), [of_job(1, "job_requeued", "w-0", why=why, deaths=1, alone=True)]).moments
        if moment.what == "job_requeued"
    )

    assert death == (
        "back in the queue: WorkerLost: worker w-0 killed by SIGKILL; 1 worker lost with it, 2 more would end it; "
        "it runs alone from now on, since others were in flight beside it"
    )


ENTRIES = [
    (
        beside(0.5, "start_failed", "w-1", failure=NO_MODEL, failures=1, retry_in_s=2.0),
        "worker w-1 does not start: endpoints/gpu/fixtures.py:4: OSError: no file (fixture 'model'); "
        "the next try is in 2.0 s",
    ),
    (beside(0.5, "worker", "w-9", state="GONE", why="killed by SIGKILL"), "worker w-9 is gone: killed by SIGKILL"),
    (beside(0.5, "worker", "w-9", **READY), "worker w-9, another one, is ready after 500 ms"),
    (beside(0.5, "worker", "w-9", state="SILENT", why="was silent"), "worker w-9 takes no calls: was silent"),
    (beside(0.5, "renewed"), "the endpoint's code was saved: its workers took it in"),
    (beside(0.5, "rolled"), "the endpoint's code or configuration changed: its workers were replaced"),
    (beside(0.5, "store_failed", error="disk full"), "the job store failed: disk full"),
    (beside(0.5, "server", state="STOPPED"), "the server stopped"),
    (beside(0.5, "server", state="STARTED"), "the server started"),
    (beside(0.5, "recovered", jobs=2), "jobs that a dead server had begun were queued again: 2"),
    (beside(0.5, "journal_lost", entries=7), "notes from before this were lost: 7"),
    (of_job(0.0, "schedule", cron="* * * * *"), "submitted by the schedule '* * * * *'"),
    (
        of_job(9, "job_again", state="FAILED", error={"type": "E"}),
        "somebody asked for it again, after it was FAILED: E",
    ),
    (of_job(4, "webhook", url="http://x", state="delivered", tries=1), "webhook delivered to http://x"),
    (of_job(4, "webhook", url="http://x", state="delivered", tries=3), "webhook delivered to http://x at try 3"),
    (
        of_job(4, "webhook", url="http://x", state="failed", status=500, tries=1, retry_in_s=5.0),
        "webhook to http://x failed: status 500; tried again in 5.0 s",
    ),
    (
        of_job(4, "webhook", url="http://x", state="given_up", tries=9, error="refused"),
        "webhook to http://x given up after 9 tries: refused",
    ),
]


@pytest.mark.parametrize(("entry", "text"), ENTRIES, ids=lambda value: getattr(value, "name", ""))
def test_each_kind_of_entry_has_its_words(entry: Entry, text: str) -> None:
    assert text in [moment.text for moment in explain(done(), [entry]).moments]


@pytest.mark.parametrize("after_s", [-1.0, 2.0, 4.0])
def test_what_happened_while_it_did_not_wait_is_left_out(after_s: float) -> None:
    entry = beside(after_s, "scale", wanted=2, have=1, reason="2 waiting")

    assert explain(done(), [entry]) == explain(done(), [])


ENDS = [
    (failed(Reason.HANDLER_ERROR, type="ValueError", message="no"), "FAILED: the handler raised: ValueError: no"),
    (failed(Reason.TIMEOUT, State.TIMED_OUT), "TIMED_OUT: not done within its timeout (10 s)"),
    (failed(Reason.EXPIRED, State.TIMED_OUT), "TIMED_OUT: it waited longer than its ttl"),
    (failed(Reason.CANCELLED, State.CANCELLED), "CANCELLED: somebody cancelled it"),
    (
        dataclasses.replace(failed(Reason.OOM, type="OutOfMemory", message="used 2 GB"), deaths=3),
        "FAILED: its worker ran out of memory, 3 times by now; it is not tried again: OutOfMemory: used 2 GB",
    ),
]


@pytest.mark.parametrize(("ended", "text"), ENDS, ids=[text.partition(":")[0] for _, text in ENDS])
def test_each_end_says_why(ended: Job, text: str) -> None:
    assert explain(ended, []).moments[-1].text == text


def test_who_was_ahead_is_said_where_it_was_queued() -> None:
    story = explain(done(priority=-1), [], ahead=Ahead(jobs=3, running=1))

    assert story.summary == "COMPLETED: waited 1.0 s, 3 jobs ahead of it, ran 2.0 s"
    assert story.moments[0].text == "queued for gpu, with low priority: 3 jobs ahead of it, 1 of them running"
    assert str(Ahead(jobs=100, running=2, is_all=False)).startswith("100 or more jobs ahead")


SERVED = Situation(now=BEGIN + 10, is_served=True, workers_max=2, scaling="the scaler's words")
BUSY = dataclasses.replace(SERVED, workers={"RUNNING": 2})
SITUATIONS = [
    (
        job(),
        Situation(now=BEGIN + 10, absence=Absence(ends_in_s=43.0)),
        "waits: no server serves gpu any more: it was removed or renamed. Bring it back, or the job ends in 43.0 s.",
    ),
    (
        job(),
        Situation(now=BEGIN + 10, absence=Absence(is_here=True)),
        "waits: this server does not serve gpu now. Mend its code, or take it into the selection. Or: flashfw jobs ",
    ),
    (
        job(),
        Situation(now=BEGIN + 10, absence=Absence(is_here=True, is_elsewhere=True)),
        "waits: gpu is served by another server on the same store, not by this one. Ask that server. Or: ",
    ),
    (
        job(),
        Situation(now=BEGIN + 10, absence=Absence(is_elsewhere=None)),
        "waits: this server does not serve gpu; another one on the same store may. Ask that server, or bring gpu back.",
    ),
    (
        job(available_at=BEGIN + 12.5, error=b'{"type":"E","message":"m"}', attempt=2),
        BUSY,
        "waits: for its retry, which is due in 2.5 s; attempt 2 failed: E: m. Nothing is to be done.",
    ),
    (job(), dataclasses.replace(SERVED, workers_max=0), "waits: gpu may have no worker (workers = 0). Set workers"),
    (
        job(),
        dataclasses.replace(SERVED, failure=NO_MODEL, retry_in_s=4.0),
        "waits: workers of gpu do not start: endpoints/gpu/fixtures.py:4: OSError: no file (fixture 'model'). "
        "Mend that; the next try is in 4.0 s.",
    ),
    (job(), dataclasses.replace(SERVED, workers={"THROTTLED": 1}), "waits: no device is free for a worker."),
    (job(), dataclasses.replace(SERVED, workers={"INITIALIZING": 1}), "waits: 1 worker of gpu starting. It must be"),
    (job(alone=True), BUSY, "waits: it runs alone, since its worker died with others in flight"),
    (job(), SERVED, "waits: there is no worker (the scaler's words). One must start."),
    (job(priority=-1), SERVED, "waits: a job with low priority starts no worker, and there is none."),
    (
        job(),
        dataclasses.replace(BUSY, ahead=Ahead(jobs=4, running=2)),
        "waits: 2 workers of at most 2 busy, 4 jobs ahead of it, 2 of them running (scaler: the scaler's words). "
        "A call must end, or a further worker be ready. It expires in 1 m 30 s.",
    ),
    (job(), dataclasses.replace(SERVED, workers={"IDLE": 1}), "waits: a worker is about to take it."),
    (job(expires_at=BEGIN), SERVED, "waits: there is no worker (the scaler's words). One must start. Its ttl is over"),
    (
        job(state=State.IN_PROGRESS, started_at=BEGIN + 4),
        BUSY,
        "runs for 6.0 s on worker w-1; its timeout ends it in 4.0 s",
    ),
]


@pytest.mark.parametrize(("waiting", "situation", "text"), SITUATIONS, ids=[text[:40] for *_, text in SITUATIONS])
def test_a_job_that_has_not_ended_says_why(waiting: Job, situation: Situation, text: str) -> None:
    now = present(waiting, situation)

    assert now is not None
    assert now.text.startswith(text)
    assert explain(waiting, [], now=now, at=situation.now).moments[-1] == now


def test_nothing_is_awaited_of_a_job_that_has_ended() -> None:
    assert present(done(), SERVED) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from(
    ["state", "why", "start_s", "import_s", "fixtures_s", "environment_s", "failure", "error", "deaths", "alone"]
    + ["reason", "attempt", "in_s", "url", "status", "tries", "retry_in_s", "jobs", "entries", "cron"]
)
times = st.floats(BEGIN - 10, BEGIN + 100)
entries = st.builds(
    Entry,
    at=times,
    endpoint=st.just("gpu"),
    name=st.sampled_from([*OF_A_JOB, *OF_AN_ENDPOINT, "job_started", "server", "journal_lost", "unheard of"]),
    fields=st.dictionaries(keys, anything, max_size=5),
    job=st.sampled_from([None, "j"]),
    worker=st.sampled_from([None, "w-1", "w-2"]),
)
jobs = st.builds(
    job,
    state=st.sampled_from(State),
    reason=st.none() | st.sampled_from(Reason),
    started_at=st.none() | times,
    finished_at=st.none() | times,
    available_at=times,
    worker=st.none() | st.just("w-1"),
    attempt=st.integers(0, 5),
    deaths=st.integers(0, 4),
    priority=st.integers(-1, 1),
    alone=st.booleans(),
    error=st.none() | anything.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=4),
)
states = ["INITIALIZING", "IDLE", "RUNNING", "THROTTLED", "OUTDATED", "UNHEALTHY"]
situations = st.builds(
    Situation,
    now=times,
    is_served=st.booleans(),
    workers=st.dictionaries(st.sampled_from(states), st.integers(0, 3)),
    workers_max=st.integers(0, 3),
    failure=st.none() | st.dictionaries(keys, anything, max_size=3),
    ahead=st.none() | st.builds(Ahead, jobs=st.integers(0, 9), running=st.integers(0, 9), is_all=st.booleans()),
)


@given(jobs, st.lists(entries, max_size=8), situations)
def test_no_combination_is_too_much_and_time_goes_on(some: Job, noted: list[Entry], situation: Situation) -> None:
    now = present(some, situation)
    story = explain(some, noted, ahead=situation.ahead, now=now, at=situation.now)

    offsets = [moment["offset_s"] for moment in story.to_json()["moments"]]
    assert offsets == sorted(offsets)
    assert offsets[0] >= 0
    assert json.loads(json.dumps(story.to_json(), allow_nan=True))["id"] == "j"
    assert all(isinstance(moment, Moment) and moment.text for moment in story.moments)
    assert (now is None) == some.state.is_terminal
