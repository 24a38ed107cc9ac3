"""The target `cluster` over a server in memory: what it asks, and what it makes of refusals and broken connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flashfw.errors import TargetError
from flashfw.ship.cluster import Cluster
from flashfw.ship.plan import plan
from flashfw.ship.rollouts import begin, follow
from flashfw.ship.target import BusyError, Event, Rollout, UnansweredError
from tests.ship.builds import SHOP, build
from tests.ship.conformance import Conformance, ship
from tests.ship.fake import FakeServer, Refusal, serving


class TestInMemory(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Cluster]:
        with serving(FakeServer()) as running, Cluster("prod", running.url, "fw_admin_x") as found:
            yield found


def test_a_running_rollout_is_told_with_who_and_since(target: Cluster, server: FakeServer, tmp_path: Path) -> None:
    built = build(tmp_path / "shop", SHOP)
    server.is_held = True
    target.upload(built.release.layers, built.archives, lambda *_: None)
    number = target.apply(built.release, expected=None, removes=(), by="you@there")

    with pytest.raises(BusyError) as raised:
        target.apply(built.release, expected=None, removes=(), by="me@here")

    assert (raised.value.rollout, raised.value.by, raised.value.since) == (
        number,
        "you@there",
        server.rollouts[0]["started"],
    )
    running = target.situation().rollout
    assert running is not None
    assert (running.number, running.state) == (number, "running")


def test_events_are_told_once_as_they_come(target: Cluster, server: FakeServer, tmp_path: Path) -> None:
    built = build(tmp_path / "shop", SHOP)
    server.is_held = True
    target.upload(built.release.layers, built.archives, lambda *_: None)
    number = target.apply(built.release, expected=None, removes=(), by="me@here")
    heard: list[Event] = []

    def tell(event: Event) -> None:
        heard.append(event)
        if len(heard) == 2:
            threading.Thread(target=server.let_go).start()

    rollout = follow(target, number, tell)

    assert rollout.state == "done"
    assert [event.seq for event in heard] == [1, 2, 3]
    assert [event.endpoint for event in heard] == ["add", "api", ""]


def test_a_failed_rollout_tells_all(target: Cluster, server: FakeServer, tmp_path: Path) -> None:
    server.failing["add"] = {"message": "KeyError: 'X'", "traceback": "Traceback ...", "output": ["one", "two"]}

    rollout = ship(target, build(tmp_path / "shop", SHOP), expected=None)

    assert rollout.state == "failed"
    assert rollout.failure is not None
    assert (rollout.failure.endpoint, rollout.failure.message) == ("add", "KeyError: 'X'")
    assert rollout.failure.output == ("one", "two")


class _Cut(Cluster):
    """Loses the answer to its first request for a rollout."""

    cuts = 1

    def _send(self, *given, **named):  # type: ignore[no-untyped-def]
        answer = super()._send(*given, **named)
        if given[:2] == ("POST", "releases") and self.cuts:
            self.cuts -= 1
            raise UnansweredError("cut")
        return answer


@pytest.mark.parametrize("is_held", [True, False])
def test_an_answer_that_is_lost_begins_no_second_rollout(server: FakeServer, tmp_path: Path, is_held: bool) -> None:
    built = build(tmp_path / "shop", SHOP)
    server.is_held = is_held
    with _Cut("prod", server.url, "fw_admin_x") as target:
        target.upload(built.release.layers, built.archives, lambda *_: None)

        begun = begin(target, built.release, plan(built.release, target.situation()), by="me")

    assert begun == (1 if is_held else None)
    assert len(server.rollouts) == 1


def test_a_server_that_is_about_to_start_anew_is_asked_again(server: FakeServer, tmp_path: Path) -> None:
    built = build(tmp_path / "shop", SHOP)
    refusals = [Refusal(503, "draining", "it is about to start anew")] * 2

    def refuse(request: str) -> None:
        if request == "POST /_flashfw/releases" and refusals:
            raise refusals.pop()

    server.on_request = refuse
    with Cluster("prod", server.url, "fw_admin_x") as target:
        target.upload(built.release.layers, built.archives, lambda *_: None)

        assert begin(target, built.release, plan(built.release, target.situation()), by="me") == 1


def test_a_server_that_goes_for_good_is_given_up(server: FakeServer) -> None:
    now = iter(range(100))
    with Cluster("prod", "http://127.0.0.1:1", "k") as target, pytest.raises(TargetError) as raised:
        follow(target, 1, print, patience_s=5, monotonic=lambda: float(next(now)), pause=lambda _: None)

    assert "lost the server during rollout 1" in raised.value.what
    assert "flashfw status prod" in raised.value.hint


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "wants a key, and none is kept for it"),
        ("fw_wrong", "this key is unknown"),
        ("fw_call_x", "this key may call functions only"),
        ("fw_old", "this key was revoked"),
    ],
)
def test_a_key_that_does_not_do(server: FakeServer, key: str | None, said: str) -> None:
    server.keys["fw_old"] = "admin"
    server.revoked.add("fw_old")
    with Cluster("prod", server.url, key) as target, pytest.raises(TargetError, match=said) as raised:
        target.situation()

    assert "flashfw key save prod" in raised.value.hint


@pytest.mark.parametrize(("api", "words"), [(0, "older than this one"), (2, "newer than this one")])
def test_a_server_of_another_protocol(server: FakeServer, target: Cluster, api: int, words: str) -> None:
    server.api = api

    with pytest.raises(TargetError, match=words) as raised:
        target.situation()
    assert raised.value.hint == f"update flashfw {'on the server' if api == 0 else 'here'}"


def test_a_release_of_a_newer_flashfw_cannot_be_read(server: FakeServer, target: Cluster, tmp_path: Path) -> None:
    ship(target, build(tmp_path / "shop", SHOP), expected=None)
    assert server.current is not None
    server.releases[server.current]["release"]["manifest"]["version"] = 99

    with pytest.raises(TargetError, match="version 99") as raised:
        target.situation()
    assert "the same flashfw" in raised.value.hint


def test_a_full_disk(server: FakeServer, target: Cluster, tmp_path: Path) -> None:
    server.is_full = True
    built = build(tmp_path / "shop", SHOP)

    with pytest.raises(TargetError, match="no space left on device") as raised:
        target.upload(built.release.layers, built.archives, lambda *_: None)
    assert "nothing changed" in raised.value.hint


def test_nobody_answers() -> None:
    said = "no server answers at http://127.0.0.1:1"
    with Cluster("prod", "http://127.0.0.1:1", "k") as target, pytest.raises(TargetError, match=said):
        target.host()


def test_another_server_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno")

        thread = threading.Thread(target=answer)
        thread.start()
        with Cluster("prod", f"http://127.0.0.1:{port}", "k") as target, pytest.raises(TargetError) as raised:
            target.host()
        thread.join()

    assert "takes no releases" in raised.value.what


def test_logs_come_line_by_line(target: Cluster) -> None:
    assert [line["text"] for line in target.logs("add")] == ["one", "two"]


def test_an_unchanged_plan_needs_the_same_release(target: Cluster, tmp_path: Path) -> None:
    built = build(tmp_path / "shop", SHOP)
    ship(target, built, expected=None)
    moved = replace(built.release, source=replace(built.release.source, digest="e" * 64))

    made = plan(moved, target.situation())

    assert (made.is_empty, made.is_done) == (True, False)


class _Restarting(Cluster):
    """Is gone for the first two times that it is asked for a rollout."""

    gone = 2

    def wait(self, number: int, *, after: int = 0, wait_s: float = 20.0) -> Rollout:
        if self.gone:
            self.gone -= 1
            raise TargetError("no server answers")
        return super().wait(number, after=after, wait_s=wait_s)


def test_a_server_that_starts_anew_is_followed_on(server: FakeServer, target: Cluster, tmp_path: Path) -> None:
    ship(target, build(tmp_path / "shop", SHOP), expected=None)
    with _Restarting("prod", server.url, "fw_admin_x") as restarting:
        heard: list[Event] = []
        rollout = follow(restarting, 1, heard.append, pause=lambda _: None)

    assert rollout.state == "done"
    assert [event.seq for event in heard] == [1, 2, 3]
