from __future__ import annotations

from pathlib import Path

import pytest
from flashfw import Cancelled, File, HTTPError, Job

from endpoints.transcribe.handler import Busy, handler as transcribe
from lib.tones import KEYS, dial


def heard(path: Path, job: Job | None = None) -> str:
    return "".join(segment["key"] for segment in transcribe(File(path), job or Job()))


@pytest.mark.parametrize("keys", ["5", "".join(KEYS), "1155 0000", "*123#"])
def test_what_was_dialled_is_heard(tmp_path: Path, keys: str) -> None:
    assert heard(dial(keys, tmp_path / "keys.wav")) == keys.replace(" ", "")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_at_any_rate_with_the_times(tmp_path: Path, rate: int) -> None:
    path = dial("42", tmp_path / "keys.wav", rate=rate)

    first, second = transcribe(File(path), Job())

    assert (first["key"], second["key"]) == ("4", "2")
    assert first["start"] == pytest.approx(0.06, abs=0.02)
    assert second["end"] == pytest.approx(0.32, abs=0.02)


def test_silence_holds_no_key(tmp_path: Path) -> None:
    assert heard(dial("   ", tmp_path / "silence.wav")) == ""


def test_progress_says_how_much_was_heard(tmp_path: Path) -> None:
    job = Job()
    heard(dial("1", tmp_path / "keys.wav"), job)

    assert job.latest == {"heard_s": 0.22, "of_s": 0.22}


def test_a_cancelled_job_ends_at_its_next_progress(tmp_path: Path) -> None:
    job = Job()
    keys = transcribe(File(dial("123", tmp_path / "keys.wav")), job)
    assert next(keys)["key"] == "1"

    job.cancel()

    with pytest.raises(Cancelled):
        next(keys)


def test_a_file_that_is_no_recording_is_the_fault_of_its_sender() -> None:
    with pytest.raises(HTTPError, match="not a WAV file"):
        list(transcribe(File(b"hello", name="a.wav"), Job()))


def test_the_first_attempts_may_be_busy(tmp_path: Path) -> None:
    path = dial("1", tmp_path / "keys.wav")
    with pytest.raises(Busy, match="attempt 1"):
        list(transcribe(File(path), Job(attempt=1), busy=1))

    assert len(list(transcribe(File(path), Job(attempt=2), busy=1))) == 1
