from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.worker.frames import HEAD, MAX_FRAME_BYTES, Frame, FrameError, Frames, Kind, pack

metas: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.integers())
)
headed = (Kind.REQUEST, Kind.HEAD)
numbers, bodies = st.integers(0, 2**32 - 1), st.binary(max_size=50)
frames_ = st.lists(
    st.builds(
        Frame, st.sampled_from([kind for kind in Kind if kind not in headed]), numbers, metas, bodies, st.just(b"")
    )
    | st.builds(Frame, st.sampled_from(headed), numbers, st.just({}), bodies, bodies),
    max_size=5,
)


@given(frames_, st.lists(st.integers(1, 40), min_size=1))
def test_frames_arrive_as_they_were_sent_however_the_stream_is_cut(sent: list[Frame], sizes: list[int]) -> None:
    stream = b"".join(pack(*frame) for frame in sent)
    reader, received, size = Frames(), [], 0
    while stream:
        cut = sizes[size % len(sizes)]
        received += reader.feed(stream[:cut])
        stream, size = stream[cut:], size + 1
    assert received == sent


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.lists(st.integers(1, 2000), min_size=1))
def test_bodies_that_span_many_reads_arrive_whole(bodies: list[int], sizes: list[int]) -> None:
    sent = [Frame(Kind.DATA, n, {"end": True}, bytes([n]) * size) for n, size in enumerate(bodies)]
    stream, reader, received = b"".join(pack(*frame) for frame in sent), Frames(), []
    for size in itertools.cycle(sizes):
        if not stream:
            break
        received += reader.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


@given(st.binary(max_size=200))
def test_garbage_is_frames_or_an_error_of_ours(data: bytes) -> None:
    try:
        list(Frames().feed(data))
    except FrameError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        HEAD.pack(99, 0, 0, 0),
        HEAD.pack(Kind.CALL, 0, 1, 0) + b"{",
        HEAD.pack(Kind.CALL, 0, 2, 0) + b"[]",
        HEAD.pack(Kind.CALL, 0, 3, 0) + b"{}{",
        HEAD.pack(Kind.CALL, 0, 2, 0) + b"\xff\xff",
        HEAD.pack(Kind.CALL, 0, 200_000, 0) + b'{"a":' + b"[" * 199_995,
        HEAD.pack(Kind.CALL, 0, 0, MAX_FRAME_BYTES + 1),
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(Frames().feed(data))


def test_a_frame_before_garbage_is_delivered() -> None:
    read = Frames().feed(pack(Kind.BEAT, meta={"blocked_s": 0}) + b"\xff" * 64)
    assert next(read) == Frame(Kind.BEAT, 0, {"blocked_s": 0}, b"")
    with pytest.raises(FrameError):
        next(read)


def test_meta_is_compact_json() -> None:
    assert pack(Kind.LOG, 0, {"a": [1, 2]}).endswith(b'{"a":[1,2]}')
    assert json.loads(pack(Kind.LOG, 0, {"a": "é"})[HEAD.size :]) == {"a": "é"}
