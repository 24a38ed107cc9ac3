"""`flashfw.File` by itself: what it is made of, what its names may be, how it is read from JSON."""

from __future__ import annotations

import gc
import json
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from flashfw import File
from flashfw.worker import files
from flashfw.worker.capture import current_job
from flashfw.worker.encode import EncodeError, dumps


def test_bytes_have_a_path_for_as_long_as_the_file(tmp_path: Path) -> None:
    file = File(b"hello", name="note.txt")
    path = file.path

    assert (path.read_bytes(), path.suffix, file.content_type, file.size) == (b"hello", ".txt", "text/plain", 5)
    with file.open() as opened:
        assert opened.read(2) == b"he"

    del file
    gc.collect()
    assert not path.exists()


def test_a_path_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"x")
    file = File(tmp_path / "cat.png")

    assert (file.name, file.content_type, file.read_bytes(), file.path) == (
        "cat.png",
        "image/png",
        b"x",
        tmp_path / "cat.png",
    )


@given(st.text(max_size=300) | st.text(alphabet="./\\ab\0\n", max_size=20))
def test_no_name_leads_anywhere(name: str) -> None:
    kept = files.base_name(name)

    assert not set(kept) & set("/\\\0\n\r")
    assert kept not in (".", "..")
    assert len(kept) <= files.MOST_OF_A_NAME


@given(st.text(alphabet=string.ascii_lowercase + string.digits + "/._-%", max_size=60))
def test_only_what_url_makes_is_one(text: str) -> None:
    place = files.parse_url(text)

    assert place is None or files.url(*place) == text


def test_a_job_saves_what_it_answers_with_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_root", tmp_path)
    token = current_job.set("j1")
    try:
        file = File(b"x", name="a.txt")
        first = json.loads(dumps({"one": file, "nan": float("nan")}))
        again = json.loads(dumps([file]))
    finally:
        current_job.reset(token)

    assert first["one"] == again[0]
    assert first["one"]["$file"].startswith("/_flashfw/jobs/j1/files/o")
    assert len(list((tmp_path / "j1").iterdir())) == 2  # the file, and what is known of it


def test_an_answer_is_on_the_disk_before_its_job_ends_where_jobs_outlast_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_root", tmp_path)
    synced: list[tuple[str, int]] = []  # how much of it was there when the disk was asked to keep it

    def fsync(descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((place.relative_to(tmp_path).as_posix(), place.stat().st_size if place.is_file() else 0))

    monkeypatch.setattr(os, "fsync", fsync)
    token = current_job.set("j1")
    try:
        dumps(File(b"never mind", name="a.txt"))
        assert synced == []
        monkeypatch.setattr(files, "_is_synced", True)
        url = json.loads(dumps(File(b"hello", name="b.txt")))["$file"]
    finally:
        current_job.reset(token)

    entry = f"j1/{url.rpartition('/')[2]}"
    assert synced == [(entry, 5), (f"{entry}.json", (tmp_path / f"{entry}.json").stat().st_size), ("j1", 0), (".", 0)]


def test_a_model_may_hold_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Picture(BaseModel):
        image: File

    monkeypatch.setattr(files, "_root", tmp_path)
    token = current_job.set("j1")
    try:
        shown = json.loads(dumps(Picture(image=File(b"x", name="a.txt"))))
    finally:
        current_job.reset(token)

    assert shown["image"]["name"] == "a.txt"
    assert Picture.model_validate_json('{"image": "aGk="}').image.read_bytes() == b"hi"


def test_a_value_with_a_file_is_no_answer_of_http() -> None:
    with pytest.raises(EncodeError, match="return the File itself"):
        dumps({"file": File(b"x")})


@pytest.mark.parametrize("entry", ["i0", "../j2/i0", "i1"])
def test_a_reference_reads_files_of_its_own_job_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setattr(files, "_root", tmp_path)
    for job in ("j1", "j2"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "i0").write_text(job)
        files.note(tmp_path / job, "i0", files.Particulars("a.txt", "text/plain", 2))
    whole = TypeAdapter(File)
    text = json.dumps({"$file": f"/_flashfw/jobs/j1/files/{entry}"})

    if entry == "i0":
        assert whole.validate_json(text, context={"job": "j1"}).read_bytes() == b"j1"
    with pytest.raises(ValidationError):
        whole.validate_json(text, context={"job": "j1" if entry != "i0" else "j2"})
