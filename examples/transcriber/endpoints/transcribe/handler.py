from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypedDict

from flashfw import File, HTTPError, Job

from lib.tones import NotAudio, Segment, Window, length_s, segments, windows


class Heard(TypedDict):
    """One key of the transcript."""

    key: str
    start: float
    end: float


class Busy(Exception):
    """The line was busy at the first attempt: for trying what `retries` does."""


def handler(audio: File, job: Job, pace: float = 0.0, busy: int = 0) -> Iterator[Heard]:
    """Hears the telephone keys in a recording, one by one.

    `pace` is how many seconds of work stand for one second of sound, as if the model were that slow; the first
    `busy` attempts fail.
    """
    try:
        total = length_s(audio.path)
    except NotAudio as error:
        raise HTTPError(422, str(error)) from error
    if job.attempt <= busy:
        raise Busy(f"the line is busy, attempt {job.attempt}")
    for segment in segments(_reported(windows(audio.path), total, job, pace)):
        yield _heard(segment)


def _reported(found: Iterator[Window], total: float, job: Job, pace: float) -> Iterator[Window]:
    """The windows, with progress: who cancels the job ends it there."""
    for window in found:
        job.progress(heard_s=round(window.end, 2), of_s=round(total, 2))
        time.sleep(pace * (window.end - window.start))
        yield window


def _heard(segment: Segment) -> Heard:
    return {"key": segment.key, "start": segment.start, "end": segment.end}
