"""Files of logs: names that are safe, rotation that loses no line, a disk that is full."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.logs.files import LogFile, Rotation, Segment, endpoint_of, endpoints, file_name
from flashfw.cluster.logs.reading import Line, Query, merged, newest


def a_line(number: int, job: str | None = None) -> bytes:
    return json.dumps({"at": float(number), "job": job, "text": f"line {number}"}).encode() + b"\n"


def numbers(lines: list[Line]) -> list[int]:
    return [int(line.at) for line in lines]


@given(st.text(max_size=60), st.integers(1, 40))
def test_every_id_has_a_file_of_its_own_within_the_folder(part: str, times: int) -> None:
    endpoint = part * times
    try:
        name = file_name(endpoint)
    except UnicodeEncodeError:  # half of a surrogate pair
        return

    assert "/" not in name
    assert "\0" not in name
    assert name not in (".", "..")
    assert len(f"{name}.1000") <= 255
    known = endpoint_of(name)
    assert known is not None
    assert file_name(known) == name
    assert known == endpoint or len(endpoint) > 15


def test_long_ids_that_begin_alike_have_files_of_their_own(tmp_path: Path) -> None:
    ids = [f"{'a' * 120}/{'b' * 120}/{name}" for name in ("x", "y")]
    for number, endpoint in enumerate(ids):
        assert LogFile(tmp_path, endpoint, Rotation()).append([a_line(number)]).lines == 1

    assert [numbers(newest(LogFile(tmp_path, one, Rotation()).open_all(), Query())) for one in ids] == [[0], [1]]
    again = [LogFile(tmp_path, one, Rotation()) for one in endpoints(tmp_path)]
    assert sorted(numbers(newest(log.open_all(), Query()))[0] for log in again) == [0, 1]


def test_files_that_were_put_aside_are_no_endpoints(tmp_path: Path) -> None:
    for name in ("api.users.jsonl", "gpu.jsonl", "gpu.jsonl.1", "notes.txt"):
        (tmp_path / name).touch()

    assert endpoints(tmp_path) == ["api/users", "gpu"]
    assert endpoints(tmp_path / "nowhere") == []


def test_files_are_put_aside_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "gpu", Rotation(max_bytes=5 * len(a_line(10)), files=3))
    for number in range(10, 40, 2):
        assert log.append([a_line(number), a_line(number + 1)]).lines == 2

    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.jsonl", "gpu.jsonl.1", "gpu.jsonl.2"]
    assert all(path.stat().st_size <= 5 * len(a_line(10)) for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    found = numbers(newest(log.open_all(), Query(lines=100)))
    assert found == list(range(found[0], 40))
    assert len(found) > 10


@given(st.lists(st.integers(1, 12), max_size=12), st.integers(1, 3), st.integers(30, 400))
def test_whatever_the_sizes_the_newest_lines_are_there_in_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], files: int, max_bytes: int
) -> None:
    log = LogFile(tmp_path_factory.mktemp("logs"), "gpu", Rotation(max_bytes=max_bytes, files=files))
    total = 0
    for size in batches:
        assert log.append([a_line(total + number) for number in range(size)]).error is None
        total += size
    segments = log.open_all()
    found = numbers(newest(segments, Query(lines=1000)))
    for segment in segments:
        segment.close()

    assert found == list(range(total - len(found), total))
    assert found or not total
    assert len(segments) <= files


@given(st.binary(max_size=300), st.integers(1, 40))
def test_reading_backwards_finds_the_lines_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "x"
    path.write_bytes(content)
    segment = Segment.open(path)
    found = list(segment.backwards(block_bytes))
    segment.close()

    assert found[::-1] == [line for line in content.split(b"\n") if line]


def test_what_is_open_is_read_though_it_is_put_aside_and_deleted_meanwhile(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "gpu", Rotation(max_bytes=100, files=2))
    log.append([a_line(1), a_line(2)])
    opened = log.open_all()
    log.append([a_line(number) for number in range(3, 30)])

    assert numbers(newest(opened, Query())) == [1, 2]
    for segment in opened:
        segment.close()


def test_the_last_line_of_a_server_that_was_killed_spoils_no_other(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "gpu", Rotation())
    log.append([a_line(1)])
    with log.path.open("ab") as file:
        file.write(b'{"at": 2.0, "jo')
    log.append([a_line(3)])

    assert numbers(newest(log.open_all(), Query())) == [1, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_and_takes_no_half_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "gpu", Rotation())
    log.path.symlink_to("/dev/full")
    written = log.append([a_line(1), a_line(2)])

    assert written.lines == 0
    assert written.error is not None
    assert written.error.errno == errno.ENOSPC
    log.path.unlink()
    os.mkdir(tmp_path / "gpu.jsonl")
    assert log.append([a_line(1)]).error is not None


def test_lines_are_picked_by_time_job_and_count(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "gpu", Rotation())
    log.append([a_line(number, job=f"job-{number % 3}") for number in range(1000, 1020)])

    def found(**query: object) -> list[int]:
        return numbers(newest(log.open_all(), Query(**query)))  # type: ignore[arg-type]

    assert found(lines=3) == [1017, 1018, 1019]
    assert found(since=1015.0) == [1015, 1016, 1017, 1018, 1019]
    assert found(job="job-1", lines=2) == [1015, 1018]
    assert found(job="line 1015") == [], "in the text of one, and no job's id"


def test_logs_of_several_are_told_by_time() -> None:
    one = [Line(1.0, b"a"), Line(3.0, b"c")]
    two = [Line(2.0, b"b"), Line(4.0, b"d")]

    assert merged([one, two], Query()) == [b"a", b"b", b"c", b"d"]
    assert merged([one, two], Query(lines=2)) == [b"c", b"d"]
    assert merged([], Query()) == []
