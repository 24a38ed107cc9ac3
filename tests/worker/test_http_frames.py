from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.worker.frames import FrameError
from flashfw.worker.http_frames import (
    RequestHead,
    block_of,
    pairs_of,
    read_response,
    request_head,
    response_head,
    wrong_header,
)

parts = st.binary(max_size=20)
clean = st.binary(max_size=20).map(lambda part: part.replace(b"\0", b"").replace(b"\n", b""))
addresses = st.none() | st.tuples(st.text(max_size=10), st.integers(0, 65535))
texts = st.text(max_size=10)
words = st.text("abcXYZ019/.", max_size=10)


@given(
    st.fixed_dictionaries(
        {
            "function": texts,
            "method": st.sampled_from(["GET", "WEBSOCKET"]),
            "scheme": words,
            "http_version": words,
            "path": texts,
            "raw_path": parts,
            "root_path": texts,
            "query": parts,
            "params": st.dictionaries(texts, texts, max_size=3),
            "client": addresses,
            "server": addresses,
            "end": st.booleans(),
            "subprotocols": st.lists(texts, max_size=3),
            "is_preflight": st.booleans(),
        }
    ),
    st.lists(st.tuples(clean, clean), max_size=5),
)
def test_a_request_arrives_as_it_was_sent(sent: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
    head = RequestHead(request_head(**sent, headers=block_of(headers)))
    scope = head.scope()
    assert {
        **{name: scope[name] for name in ("method", "scheme", "http_version", "path", "raw_path", "root_path")},
        **{name: scope[name] for name in ("client", "server")},
        "function": head.function,
        "query": scope["query_string"],
        "params": scope["path_params"],
        "end": head.end,
        "subprotocols": head.subprotocols,
        "is_preflight": head.is_preflight,
    } == sent
    assert head.is_socket is (sent["method"] == "WEBSOCKET")
    assert scope["headers"] == headers
    firsts = dict(reversed(headers))
    assert {name: head.header(name) for name in firsts} == {
        name: value.decode("latin-1") for name, value in firsts.items()
    }
    assert head.header(b"\n") == ""


@given(st.integers(100, 599), st.lists(st.tuples(clean, clean), max_size=5), st.booleans(), st.none() | texts)
def test_a_response_arrives_as_it_was_sent(
    status: int, headers: list[tuple[bytes, bytes]], end: bool, subprotocol: str | None
) -> None:
    head = read_response(response_head(status, headers, end=end, subprotocol=subprotocol))
    assert (head.status, head.end, head.subprotocol, pairs_of(head.headers)) == (status, end, subprotocol, headers)


@given(parts)
def test_garbage_is_a_head_or_an_error_of_ours(data: bytes) -> None:
    for read in (lambda: RequestHead(data).scope(), lambda: read_response(data)):
        try:
            read()
        except FrameError:
            pass


@given(st.binary(max_size=60))
def test_what_is_sound_is_no_more_than_its_headers(block: bytes) -> None:
    try:
        head = read_response(response_head(200, end=True) + block)
    except FrameError:
        return
    lines = [name + b": " + value for name, value in pairs_of(head.headers)]
    if head.is_sound:
        assert not any(set(line) & {*range(9), *range(10, 32), 127} for line in lines)
        assert block_of(pairs_of(block)) == block
    else:
        assert isinstance(wrong_header(block), str)


@given(st.lists(st.tuples(parts, parts), max_size=4))
def test_no_value_begins_another_header(headers: list[tuple[bytes, bytes]]) -> None:
    head = read_response(response_head(200, headers, end=True))
    assert len(pairs_of(head.headers)) == len(headers)
    if head.is_sound:
        assert pairs_of(head.headers) == headers


@pytest.mark.parametrize(
    ("name", "value", "is_sound"),
    [
        (b"x-a", b"", True),
        (b"x-a", b"a\tb \xe9", True),
        (b"x-a", b"1\r\nset-cookie: b", False),
        (b"x-a", b"1\nb", False),
        (b"x-a", b"1\0b", False),
        (b"x a", b"1", False),
        (b"x:a", b"1", False),
        (b"", b"1", False),
    ],
)
def test_headers_that_may_be_sent(name: bytes, value: bytes, is_sound: bool) -> None:
    head = read_response(response_head(200, [(b"a", b"b"), (name, value)], end=True))
    assert head.is_sound is is_sound
    if not is_sound:
        assert wrong_header(head.headers) == name.decode()


def test_a_client_may_name_subprotocols_as_long_as_headers_may_be() -> None:
    address = ("127.0.0.1", 1)
    sent = request_head(
        function="chat",
        method="WEBSOCKET",
        scheme="ws",
        http_version="1.1",
        path="/chat",
        raw_path=b"/chat",
        root_path="",
        query=b"",
        headers=b"",
        params={},
        client=address,
        server=address,
        end=True,
        subprotocols=["\xe9" * 100_000],
    )
    assert RequestHead(sent).subprotocols == ["\xe9" * 100_000]


def test_headers_may_be_of_any_bytes_and_any_sequence() -> None:
    given = ([bytearray(name), memoryview(value)] for name, value in [(b"a", b"1"), (b"b", b"2")])
    assert pairs_of(block_of(given)) == [(b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize("status", [0, 99, 600, 70_000])
def test_what_is_no_status(status: int) -> None:
    with pytest.raises(ValueError, match="no status"):
        response_head(status, end=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        response_head(200, [(b"a", b"b")], end=True)[:-1],
        response_head(200, end=True) + b"a\n",
        response_head(101, end=False, subprotocol="chat")[:-1],
        b"\1" + (99).to_bytes(2, "big") + b"\0\0",
        b"\4\0\xc8\0\1\xff",
    ],
)
def test_what_is_no_response(data: bytes) -> None:
    with pytest.raises(FrameError):
        read_response(data)
